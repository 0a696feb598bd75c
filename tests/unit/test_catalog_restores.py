"""Rows of restore jobs: they come back as they were, others' words stand, old ones go, old catalogs get the tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from gateway.api import RestoreState
from gateway.catalog import Catalog, RestoreDone, RestoreJobRow, RestoreOrder, RestorePackRow, RestorePlanned
from gateway.catalog import restores as module
from gateway.model.ids import ChainName
from gateway.policy.thaw import Stage

CHAIN = ChainName("src", 1)
JOB = RestoreJobRow(
    id="a" * 12, source="src", number=3, chain=CHAIN, generation=b"g" * 16, state=RestoreState.THAWING, created=5,
    updated=6, reason="why", wake=9,
    order=RestoreOrder(target=b"/t\xff", paths=(b"a\xff",), overwrite=True, incomplete=True, tier="bulk", deadline=7,
                       budget="1.50", operator="anna", fresh=True),
    planned=RestorePlanned(files=1, size=2, packs=3, cold_packs=4, cold_bytes=5, fetch_bytes=6, requests=7, scratch=8,
                           tier="bulk", amount="0.10", currency="USD", seconds=9, days=2, bytes_per_second=10,
                           ends=(11, 12), items=13, approved_by="bert"),
    done=RestoreDone(files=1, written=2, wave=1, opened=True, since=3, refused=1, spent={"get||": 4},
                     phases={"thawing": 5}, left_out=((b"x", "y"),), left_out_more=6, notes=("n",)),
)  # fmt: skip


def pack(number: int, stage: Stage = Stage.COLD, **facts: object) -> RestorePackRow:
    row = RestorePackRow(
        number=number, stage=stage, wave=0, last=1, size=100, storage_class="GLACIER", ranges=((0, 5), (9, 20)),
        tier="bulk", asked=4, until=8, asks=1,
    )  # fmt: skip
    return replace(row, **facts)  # type: ignore[arg-type]


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "catalog.sqlite") as one:
        yield one


def test_rows_come_back_as_they_were(catalog: Catalog) -> None:
    packs = [pack(1), pack(2, Stage.FETCHED), pack(3, Stage.ASKING, ranges=())]
    catalog.put_restore(JOB, reversed(packs))
    assert catalog.restore(JOB.id) == JOB
    assert catalog.restore_packs(JOB.id) == packs
    assert packs[0].fetch_bytes == 16
    later = replace(JOB, id="b" * 12, created=4, state=RestoreState.PAUSED)
    catalog.put_restore(later)
    assert catalog.restores() == [later, JOB]
    assert catalog.restores([RestoreState.PAUSED]) == [later]
    assert catalog.restore("c" * 12) is None
    changed = replace(packs[0], stage=Stage.THAWING)
    catalog.put_restore(replace(JOB, wake=0), [changed])
    assert catalog.restore_packs(JOB.id) == [changed, *packs[1:]]


def test_a_note_of_the_runner_is_the_row_where_nobody_else_wrote(catalog: Catalog) -> None:
    catalog.put_restore(JOB, [pack(1)])
    new = replace(JOB, state=RestoreState.REHYDRATING, wake=0)
    assert catalog.carry_restore(JOB, new, [pack(1, Stage.THAWING)]) is new
    assert catalog.restore(JOB.id) == new
    assert [each.stage for each in catalog.restore_packs(JOB.id)] == [Stage.THAWING]


def test_a_note_of_the_runner_does_not_undo_what_others_wrote(catalog: Catalog) -> None:
    catalog.put_restore(JOB, [pack(1, Stage.THAWING), pack(2, Stage.COLD)])
    paused = replace(JOB, state=RestoreState.PAUSED, reason="paused by anna", wake=0)
    catalog.put_restore(paused)
    done = msgspec.structs.replace(JOB.done, files=9)
    note = replace(JOB, done=done, updated=99, reason="", wake=1)
    now = catalog.carry_restore(JOB, note, [pack(1, Stage.FETCHED), pack(2, Stage.THAWING)])
    assert now == catalog.restore(JOB.id) == replace(paused, done=done, updated=99)
    assert [each.stage for each in catalog.restore_packs(JOB.id)] == [Stage.FETCHED, Stage.COLD]


def test_a_cancelled_job_gets_no_packs_back(catalog: Catalog) -> None:
    catalog.put_restore(JOB, [pack(1)])
    catalog.end_restore(replace(JOB, state=RestoreState.CANCELLED))
    now = catalog.carry_restore(JOB, JOB, [pack(1, Stage.FETCHED)])
    assert now is not None
    assert now.state is RestoreState.CANCELLED
    assert catalog.restore_packs(JOB.id) == []
    assert catalog.carry_restore(JOB, replace(JOB, id="f" * 12)) is None


def test_a_change_keeps_what_the_runner_did_meanwhile(catalog: Catalog) -> None:
    catalog.put_restore(JOB, [pack(1, Stage.THAWING), pack(2, Stage.READY)])
    done = msgspec.structs.replace(JOB.done, files=9, problem="OverBudget")
    catalog.put_restore(replace(JOB, done=done, wake=77), [pack(2, Stage.FETCHED)])
    paused = replace(JOB, state=RestoreState.PAUSED, reason="paused by anna", wake=0)
    now = catalog.change_restore(JOB, paused, [pack(1, Stage.COLD), pack(2, Stage.COLD)])
    kept = msgspec.structs.replace(done, problem="")  # which a change may answer
    assert now == catalog.restore(JOB.id) == replace(paused, done=kept)
    assert [each.stage for each in catalog.restore_packs(JOB.id)] == [Stage.COLD, Stage.FETCHED]
    cancelled = catalog.change_restore(paused, replace(paused, state=RestoreState.CANCELLED))
    assert cancelled is not None
    assert cancelled.done == kept
    assert catalog.restore_packs(JOB.id) == []


def test_a_change_of_another_job_than_was_seen_is_none(catalog: Catalog) -> None:
    catalog.put_restore(JOB, [pack(1, Stage.THAWING)])
    delivered = replace(JOB, state=RestoreState.DELIVERED)
    catalog.end_restore(delivered)
    paused = replace(JOB, state=RestoreState.PAUSED)
    assert catalog.change_restore(JOB, paused, [pack(1)]) is None
    assert catalog.restore(JOB.id) == delivered
    assert catalog.restore_packs(JOB.id) == []
    assert catalog.change_restore(replace(JOB, id="f" * 12), paused) is None


def test_an_end_does_not_undo_what_others_wrote(catalog: Catalog) -> None:
    catalog.put_restore(JOB, [pack(1)])
    paused = replace(JOB, state=RestoreState.PAUSED)
    catalog.put_restore(paused)
    done = msgspec.structs.replace(JOB.done, files=9)
    ended = replace(JOB, state=RestoreState.DELIVERED, done=done, updated=99)
    now = catalog.end_restore(ended, JOB)
    assert now == catalog.restore(JOB.id) == replace(paused, done=done, updated=99)
    assert catalog.restore_packs(JOB.id) == [pack(1)]
    assert catalog.end_restore(replace(ended, id="f" * 12), JOB) is None
    assert catalog.end_restore(ended, paused) == ended
    assert catalog.restore_packs(JOB.id) == []


def test_other_jobs_thaws_are_those_of_the_chain_that_were_asked_for(catalog: Catalog) -> None:
    other = replace(JOB, id="b" * 12)
    elsewhere = replace(JOB, id="c" * 12, chain=ChainName("src", 2))
    catalog.put_restore(JOB, [pack(9, Stage.THAWING)])
    catalog.put_restore(other, [
        pack(1, Stage.THAWING, asked=50, tier="standard"), pack(2, Stage.READY, asked=60),
        pack(3, Stage.READY, asked=0),
        pack(4, Stage.COLD), pack(5, Stage.ASKING), pack(6, Stage.FETCHED),
    ])  # fmt: skip
    catalog.put_restore(elsewhere, [pack(7, Stage.THAWING)])
    found = catalog.other_thaws(JOB.id, CHAIN)
    assert sorted(found) == [1, 2]
    assert (found[1].asked, found[1].tier) == (50, "standard")
    third = replace(JOB, id="d" * 12)
    catalog.put_restore(third, [pack(1, Stage.THAWING, asked=40)])
    assert catalog.other_thaws(JOB.id, CHAIN)[1].asked == 50, "the one that lasts longest"


def test_ended_jobs_are_kept_up_to_a_bound(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_RESTORES", 3)
    going_on = replace(JOB, id="0" * 12, created=1)
    catalog.put_restore(going_on, [pack(1)])
    for at in range(2, 8):
        row = replace(JOB, id=f"{at:012x}", created=at)
        catalog.put_restore(row, [pack(1)])
        catalog.end_restore(replace(row, state=RestoreState.DELIVERED))
        assert catalog.restore_packs(row.id) == []
    assert [each.created for each in catalog.restores()] == [1, 5, 6, 7]
    assert catalog.restore_packs(going_on.id) == [pack(1)], "however old it is"


def test_a_catalog_of_version_3_gets_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    with Catalog(path) as one:
        one.set_meta("kept", "1")
    connection = sqlite3.connect(path)
    for table in ("restore_pack", "restore_job"):
        connection.execute(f"DROP TABLE {table}")
    connection.execute("ALTER TABLE backup_job DROP COLUMN made")  # of version 5
    connection.execute("ALTER TABLE known_file DROP COLUMN held_ns")  # of version 6
    connection.execute("PRAGMA user_version=3")
    connection.commit()
    connection.close()
    with Catalog(path) as one:
        assert one.meta("kept") == "1"
        one.put_restore(JOB, [pack(1)])
        assert one.restores() == [JOB]
        assert one.restore_packs(JOB.id) == [pack(1)]
