"""What the engine knows of sources, in the catalog."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.catalog import (
    BackupJobRow,
    Catalog,
    JobState,
    MarkRow,
    Member,
    PendingRow,
    PendingState,
    ReleasedRow,
    ReleaseState,
    schema,
)
from gateway.model.entry import Identity

ONE = Identity(2**63 + 5, 2**64 - 1, 10, 20, 30)
OTHER = Identity(2**63 + 5, 2**64 - 1, 10, 20, 31)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "catalog.sqlite") as one:
        yield one


def test_pending_files_are_replaced_as_a_whole(catalog: Catalog) -> None:
    first = [PendingRow(path=b"b", state=PendingState.SEEN, size=1, since=2), PendingRow(
        path=b"a\xff", state=PendingState.HELD, size=3, since=4, detail="why")]  # fmt: skip
    catalog.replace_pending("s", first, 7)
    catalog.replace_pending("other", first[:1], 1)
    assert catalog.pending("s") == (first[::-1], 7)
    catalog.replace_pending("s", [], 0)
    assert catalog.pending("s") == ([], 0)
    assert catalog.pending("other")[1] == 1


def test_a_mark_is_of_one_version_and_never_weakened(catalog: Catalog) -> None:
    strong = MarkRow(path=b"x", identity=ONE, evidence=5, how="seal", when=1)
    weak = MarkRow(path=b"x", identity=ONE, evidence=3, how="marker", when=2)
    newer = MarkRow(path=b"x", identity=OTHER, evidence=3, how="marker", when=3)
    catalog.add_marks("s", [strong])
    catalog.add_marks("s", [weak])
    assert catalog.mark("s", b"x") == strong
    catalog.add_marks("s", [newer])
    assert catalog.mark("s", b"x") == newer
    assert catalog.mark("other", b"x") is None
    catalog.forget_marks("s", 4)
    assert catalog.mark("s", b"x") is None


def test_jobs_come_back_as_they_were_in_the_order_of_their_seals(catalog: Catalog) -> None:
    begun = BackupJobRow(source="s", run="r1", state=JobState.BEGUN, begun=5)
    sealed = BackupJobRow(
        source="s", run="r2", state=JobState.SEALED, begun=1, sealed=9, evidence=5, who="root",
        members=(Member(b"a\xff", 3, "sha256:00"), Member(b"b")), problems=("x",), requires=("r1",),
    )  # fmt: skip
    catalog.put_job(sealed)
    catalog.put_job(begun)
    assert catalog.jobs("s") == [begun, sealed]
    assert catalog.jobs("s", JobState.SEALED) == [sealed]
    assert catalog.job("s", "r2") == sealed
    assert catalog.job("s", "r3") is None
    catalog.forget_jobs("s", 100)
    assert catalog.jobs("s") == [sealed], "a sealed one waits for its generation however old it is"


def test_an_alarm_opens_and_closes_once(catalog: Catalog) -> None:
    assert catalog.open_alarm("k", "s", "what", "meaning", "advice", 1)
    assert not catalog.open_alarm("k", "s", "what now", "meaning", "advice", 2)
    assert catalog.open_alarm("k", "other", "what", "", "", 3)
    (one, two) = catalog.open_alarms()
    assert (one.what, one.opened, one.told, two.subject) == ("what now", 1, {}, "other")
    catalog.told(one.id, "mail", 1)
    assert catalog.close_alarm("k", "s", 4)
    assert not catalog.close_alarm("k", "s", 5)
    assert [each.subject for each in catalog.open_alarms()] == ["other"]
    closed = next(each for each in catalog.alarms() if each.id == one.id)
    assert (closed.closed, closed.told) == (4, {"mail": 1})
    assert catalog.open_alarm("k", "s", "again", "", "", 6), "closed, so it can open anew"


def test_released_files(catalog: Catalog) -> None:
    row = ReleasedRow(path=b"x", id="1", size=3, when=4, state=ReleaseState.RELEASING)
    catalog.put_released("s", row)
    assert catalog.released("s") == [row]
    catalog.remove_released("s", [b"x", b"never"])
    assert catalog.released("s") == []


def test_a_catalog_of_version_1_becomes_what_a_new_one_is(tmp_path: Path) -> None:
    """The migration is written with the tables as they were; here it meets those of the program."""
    with Catalog(tmp_path / "new.sqlite"):
        pass
    with Catalog(tmp_path / "old.sqlite"):
        pass
    added = (
        "pending",
        "mark",
        "backup_job",
        "alarm",
        "released",
        "restore_pack",
        "restore_job",
        "generation",
        "known_file",
    )
    connection = sqlite3.connect(tmp_path / "old.sqlite")
    for table in added[:-2]:
        connection.execute(f"DROP TABLE {table}")
    connection.execute("ALTER TABLE generation DROP COLUMN hot_until")  # of version 3
    connection.execute("ALTER TABLE known_file DROP COLUMN held_ns")  # of version 6
    connection.execute("PRAGMA user_version=1")
    connection.commit()
    connection.close()
    with Catalog(tmp_path / "old.sqlite"):
        pass
    assert _columns(tmp_path / "old.sqlite", added) == _columns(tmp_path / "new.sqlite", added)
    assert schema.VERSION == 6


def _columns(path: Path, tables: tuple[str, ...]) -> dict[str, list[tuple[object, ...]]]:
    connection = sqlite3.connect(path)
    try:
        found: dict[str, list[tuple[object, ...]]] = {
            table: connection.execute(f"PRAGMA table_info({table})").fetchall() for table in tables
        }
        found["indexes"] = connection.execute(
            "SELECT name, tbl_name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name"
        ).fetchall()
        return found
    finally:
        connection.close()
