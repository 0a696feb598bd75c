"""The catalog's file: opening, damage, versions, threads, readers beside the writer, kills."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
import signal
import sqlite3
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from gateway import durable
from gateway.api import RestoreState
from gateway.catalog import (
    TRANSACTIONS,
    BackupJobRow,
    Catalog,
    ChainRow,
    ChainRows,
    ChainState,
    JobState,
    KnownFile,
    MarkRow,
    PackRow,
    PackUpload,
    PendingRow,
    PendingState,
    ReleasedRow,
    ReleaseState,
    RestoreJobRow,
    RestoreOrder,
    UploadPart,
    UploadState,
    database,
    known,
    schema,
    set_aside,
)
from gateway.errors import LocalStateError, NewerFormat, NoRepository
from gateway.model.entry import Identity
from gateway.model.ids import ChainName

ONE = ChainName("db", 1)
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "catalog.sqlite"


@pytest.fixture(autouse=True)
def _no_hook() -> Iterator[None]:
    yield
    durable.install_hook(None)


def chain(packs: int, storage: str = "instant") -> ChainRows:
    return ChainRows(
        chain=ChainRow(
            chain=ONE, created=1, source="db", storage=storage, state=ChainState.OPEN, header_digest=b"h" * 32,
            header_size=900, head_sequence=packs, head_digest=b"e" * 32,
        ),
        packs=tuple(
            PackRow(
                chain=ONE, number=number, pack_id=b"p" * 16, storage=storage, size=1, crc64=2, index_digest=b"i" * 32,
                index_size=10, chunks=3, raw=200, bases=(), declared_by=1,
            )
            for number in range(1, packs + 1)
        ),
    )  # fmt: skip


def known_file(number: int) -> KnownFile:
    return KnownFile.of(b"%06d" % number, Identity(1, number, 3, 4, 5), 6, 1)


def start_child(act: Callable[[], None]) -> int:
    """Run in a forked process; its pid. It ends with 0, or with 99 after an exception."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            act()
            code = 0
        finally:
            os._exit(code)  # never back into pytest
    return child


def in_child(act: Callable[[], None]) -> int:
    """Run in a forked process; its exit code."""
    return exit_code(start_child(act))


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class KillAt:
    """A hook that ends the process at the `index`-th crash point of the catalog's transactions."""

    def __init__(self, index: int) -> None:
        self.left = index

    def __call__(self, moment: str, name: str) -> None:
        if is_transaction(name):
            if self.left == 0:
                os._exit(7)
            self.left -= 1


def is_transaction(name: str) -> bool:
    return name.startswith("catalog:") and name.partition(":")[2] in TRANSACTIONS


# --- opening ---------------------------------------------------------------------------------------------------------


def test_the_file_is_private_and_safely_set(path: Path) -> None:
    with Catalog(path) as catalog:
        catalog.set_meta("a", "b")
        pragmas = {
            name: catalog._database._connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "trusted_schema", "busy_timeout")
        }
        assert pragmas == {
            "journal_mode": "truncate", "synchronous": 2, "foreign_keys": 1, "trusted_schema": 0, "busy_timeout": 30000,
        }  # fmt: skip
    for each in path.parent.iterdir():
        assert stat.S_IMODE(each.stat().st_mode) == 0o600, each
    os.chmod(path, 0o644)
    with Catalog(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_name_that_is_hard_to_write_as_a_uri(tmp_path: Path) -> None:
    path = tmp_path / "a b?c#d%41" / os.fsdecode(b"\xff&x=1")
    with Catalog(path) as catalog:
        catalog.set_meta("a", "b")
    with Catalog(path, read_only=True) as catalog:
        assert catalog.meta("a") == "b"


def test_close_is_idempotent(path: Path) -> None:
    catalog = Catalog(path)
    catalog.close()
    catalog.close()


def test_a_reader_says_what_to_do_where_nothing_is(path: Path) -> None:
    with pytest.raises(NoRepository, match="gateway rebuild"):
        Catalog(path, read_only=True)
    assert not path.parent.exists()
    path.parent.mkdir()
    path.touch()
    with pytest.raises(NoRepository):
        Catalog(path, read_only=True)
    assert path.stat().st_size == 0
    Catalog(path).close()  # what a kill between the file and its tables leaves
    Catalog(path, read_only=True).close()


def test_a_reader_writes_nothing(path: Path) -> None:
    with Catalog(path) as catalog:
        catalog.replace_chain(chain(3))
    before = hashlib.sha256(path.read_bytes()).digest()
    with Catalog(path, read_only=True) as reader:
        assert reader.read_only
        assert reader.chain_rows(ONE) == chain(3)
        with pytest.raises(RuntimeError):
            reader.set_meta("a", "b")
        with pytest.raises(LocalStateError, match="readonly"), reader._database.reading() as connection:
            connection.exec_driver_sql("DELETE FROM chain")
    assert hashlib.sha256(path.read_bytes()).digest() == before


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("damage", ["not a database", "cut", "pages"])
def test_a_damaged_file_is_named_and_set_aside(path: Path, read_only: bool, damage: str) -> None:
    with Catalog(path) as catalog:
        catalog.replace_chain(chain(500))
    size = path.stat().st_size
    with path.open("r+b") as file:
        if damage == "not a database":
            file.write(b"x" * 100)
        elif damage == "cut":
            file.truncate(size - 3 * 4096)
        else:
            file.seek(4096)
            file.write(b"\xa5" * (size - 4096))
    with pytest.raises(LocalStateError, match="gateway rebuild"):
        Catalog(path, read_only=read_only)
    if not read_only:
        aside = set_aside(path)
        assert aside.exists()
        with Catalog(path) as catalog:
            assert catalog.chains() == []


def test_damage_met_later_is_named_too(path: Path) -> None:
    with Catalog(path) as catalog:
        catalog.update_known("db", b"g" * 16, map(known_file, range(5000)))
    with Catalog(path, read_only=True) as reader:
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(size // 2)
            file.write(b"\xa5" * (size - size // 2))
        with pytest.raises(LocalStateError, match="gateway rebuild"):
            list(reader.known_files("db"))


@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_of_a_newer_version_is_refused(path: Path, read_only: bool) -> None:
    Catalog(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={schema.VERSION + 1}")
        connection.execute("CREATE TABLE later (x)")
    connection.close()
    with pytest.raises(NewerFormat, match="version"):
        Catalog(path, read_only=read_only)


def test_a_database_of_another_program_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(LocalStateError, match="not a catalog"):
        Catalog(path)
    assert path.read_bytes() == before


def _add_a_column(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE meta ADD COLUMN note TEXT")


def test_an_older_file_is_migrated_by_the_writer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Catalog(path) as catalog:
        catalog.set_meta("a", "b")
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, _add_a_column))
    with pytest.raises(LocalStateError, match="older"):
        Catalog(path, read_only=True)

    for copy, index in (("before", 0), ("after", 1)):
        killed = path.with_name(copy)
        shutil.copy(path, killed)
        durable.install_hook(KillAt(index))
        assert in_child(partial(open_catalog, killed)) == 7
        durable.install_hook(None)
        assert version_of(killed) == schema.VERSION - 1 + index
        with Catalog(killed) as catalog:
            assert catalog.meta("a") == "b"
            columns = catalog._database._connection.exec_driver_sql("PRAGMA table_info(meta)").all()
            assert "note" in {column[1] for column in columns}
        assert version_of(killed) == schema.VERSION
        Catalog(killed, read_only=True).close()


def open_catalog(path: Path) -> None:
    Catalog(path).close()


def version_of(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    finally:
        connection.close()


def test_every_version_has_its_migration() -> None:
    assert len(schema.MIGRATIONS) == schema.VERSION - 1


def test_a_full_disk_leaves_what_was_there(path: Path) -> None:
    with Catalog(path) as catalog:
        catalog.replace_chain(chain(3))
        pages = catalog._database._connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        catalog._database._connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        with pytest.raises(LocalStateError, match="No space left"):
            catalog.replace_chain(chain(5000))
        assert catalog.chain_rows(ONE) == chain(3)
        catalog._database._connection.exec_driver_sql("PRAGMA max_page_count=1000000")
        catalog.replace_chain(chain(5000))


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalStateError):
        Catalog(tmp_path / "file" / "catalog")
    (tmp_path / "folder").mkdir()
    with pytest.raises(LocalStateError):
        Catalog(tmp_path / "folder")


# --- side by side ----------------------------------------------------------------------------------------------------


def test_a_file_that_another_process_holds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    with Catalog(path) as catalog:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LocalStateError, match="in use"):
            catalog.set_meta("a", "b")
        with pytest.raises(LocalStateError, match="in use"):
            catalog.meta("a")
        other.execute("ROLLBACK")
        # A reader in the middle of its read: the commit must wait, and fails whole.
        other.execute("BEGIN")
        other.execute("SELECT * FROM meta").fetchall()
        with pytest.raises(LocalStateError, match="in use"):
            catalog.set_meta("a", "b")
        other.execute("ROLLBACK")
        other.close()
        assert catalog.meta("a") is None
        catalog.set_meta("a", "b")
        assert catalog.meta("a") == "b"


@pytest.fixture
def _heeding_ctrl_c() -> Iterator[None]:
    """Where tests run in several processes, these ignore it."""
    given = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, given)


@pytest.mark.usefixtures("_heeding_ctrl_c")
@pytest.mark.parametrize("writing", [True, False])
def test_ctrl_c_in_a_statement_undoes_it_and_the_catalog_stays_of_use(path: Path, writing: bool) -> None:
    """The signal comes while SQLite works: Python, and with it SQLAlchemy, hears of it when the statement returns."""
    with contextlib.closing(database.Database(path)) as file:
        with file.writing("create") as connection:
            connection.exec_driver_sql("CREATE TABLE noted (word TEXT)")
            connection.exec_driver_sql("INSERT INTO noted VALUES ('before')")
        interrupt = partial(ctypes.CDLL(None)["raise"], signal.SIGINT.value)  # os.kill would look for signals itself
        file._driver.create_function("interrupt", 0, interrupt)

        def half() -> None:
            with file.writing("create") if writing else file.reading() as connection:
                if writing:
                    connection.exec_driver_sql("INSERT INTO noted VALUES ('half')")
                connection.exec_driver_sql("SELECT interrupt()")

        with pytest.raises(KeyboardInterrupt):
            half()
        with file.reading() as connection:
            assert connection.exec_driver_sql("SELECT word FROM noted").scalars().all() == ["before"]
        with file.writing("create") as connection:
            connection.exec_driver_sql("INSERT INTO noted VALUES ('after')")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT word FROM noted").fetchall() == [("before",), ("after",)]


def test_threads_share_one_catalog(path: Path) -> None:
    with Catalog(path) as catalog:

        def ledger() -> None:
            for number in range(1, 30):
                catalog.ledger_add(pack_upload(number))
                catalog.ledger_upload(ONE, number, f"u{number}")
                catalog.ledger_part(ONE, number, UploadPart(number=1, size=1, etag="e", crc64=1))

        def chains() -> None:
            for count in range(30):
                catalog.replace_chain(chain(count))
                rows = catalog.chain_rows(ONE)
                assert rows is not None
                assert len(rows.packs) == rows.chain.head_sequence

        def files() -> None:
            for round_ in range(15):
                catalog.update_known("db", bytes(16), [known_file(round_)])
                assert len(list(catalog.known_files("db"))) == round_ + 1

        with ThreadPoolExecutor() as pool:
            for future in [pool.submit(act) for act in (ledger, chains, files)]:
                future.result()
        assert len(catalog.ledger()) == 29


def test_a_reading_process_sees_whole_transactions_only(path: Path) -> None:
    with Catalog(path) as catalog:
        catalog.replace_chain(chain(1))
    begin_read, begin_write = os.pipe()

    def read() -> None:
        with Catalog(path, read_only=True) as reader:
            os.write(begin_write, b"!")
            seen = 0
            while seen < 60:
                rows = reader.chain_rows(ONE)
                assert rows is not None
                assert rows == chain(rows.chain.head_sequence)
                seen = rows.chain.head_sequence

    child = start_child(read)
    os.close(begin_write)
    assert os.read(begin_read, 1)
    with Catalog(path) as catalog:
        for count in range(2, 61):
            catalog.replace_chain(chain(count))
    assert exit_code(child) == 0
    os.close(begin_read)


# --- kills -----------------------------------------------------------------------------------------------------------


def pack_upload(number: int) -> PackUpload:
    return PackUpload(
        chain=ONE, number=number, pack_id=number.to_bytes(16), storage="instant", size=1, crc64=2,
        index_digest=b"i" * 32, index_size=10, chunks=3, raw=200, bases=(), generation=b"g" * 16,
    )  # fmt: skip


def everything(path: Path) -> None:
    """Every transaction there is but "migrate", on a catalog in any state."""
    with Catalog(path) as catalog:
        catalog.replace_chain(chain(3))
        catalog.replace_chain(chain(5, "deep"))
        catalog.update_known("db", b"1" * 16, [known_file(1)])
        catalog.update_known("db", b"2" * 16, map(known_file, range(7)), [known_file(1).key])
        catalog.update_known("dc", b"2" * 16, map(known_file, range(7)))
        catalog.forget_known("dc")
        catalog.ledger_add(pack_upload(1))
        catalog.ledger_upload(ONE, 1, "u")
        catalog.ledger_part(ONE, 1, UploadPart(number=1, size=1, etag="e", crc64=1))
        catalog.ledger_state(ONE, 1, UploadState.STORED)
        catalog.ledger_remove(ONE, [1])
        catalog.proved(ONE, 1, b"p" * 16, 1)
        catalog.forget_proofs(ONE)
        catalog.remember_head(ONE, 1, b"d" * 32)
        catalog.set_meta("a", "b")
        catalog.audit("ann", "hold", 1)
        catalog.replace_pending("db", [PendingRow(path=b"p", state=PendingState.SEEN, size=1, since=1)], 1)
        catalog.add_marks("db", [MarkRow(path=b"p", identity=Identity(1, 2, 3, 4, 5), evidence=3, how="h", when=1)])
        catalog.put_job(BackupJobRow(source="db", run="r", state=JobState.SEALED, begun=1))
        catalog.open_alarm("kind", "db", "what", "meaning", "advice", 1)
        catalog.put_released("db", ReleasedRow(path=b"p", id="1", size=1, when=1, state=ReleaseState.RELEASED))
        order = RestoreOrder(target=b"/to")
        restore = RestoreJobRow(
            id="1", source="db", number=1, chain=ONE, generation=b"g" * 16, state=RestoreState.PAUSED, created=1,
            updated=1, order=order,
        )  # fmt: skip
        catalog.put_restore(restore)
        catalog.change_restore(restore, replace(restore, state=RestoreState.THAWING))
        catalog.end_restore(replace(restore, state=RestoreState.CANCELLED))
        catalog.remove_chain(ONE)
        catalog.clear_derived()
        catalog.replace_chain(chain(2))


def dump(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the file, not through the catalog; nothing for a file without tables."""
    connection = sqlite3.connect(path)
    try:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in sorted(names)}
    finally:
        connection.close()


def test_a_kill_at_any_transaction_leaves_exactly_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "BATCH_ROWS", 3)
    monkeypatch.setattr(database, "SYNCHRONOUS", "OFF")
    points: list[tuple[str, str]] = []
    states: list[dict[str, list[tuple[Any, ...]]]] = []
    reference = tmp_path / "reference"

    def record(moment: str, name: str) -> None:
        if is_transaction(name):
            points.append((moment, name))
            states.append(dump(reference))

    durable.install_hook(record)
    everything(reference)
    durable.install_hook(None)
    assert {name.partition(":")[2] for _, name in points} == set(TRANSACTIONS) - {"migrate"}
    final = states[-1]

    for index, point in enumerate(points):
        if point in points[:index] and point in points[index + 1 :]:
            continue  # the first and the last time of each are enough
        path = tmp_path / f"killed{index}"
        durable.install_hook(KillAt(index))
        assert in_child(partial(everything, path)) == 7, point
        durable.install_hook(None)
        assert dump(path) == states[index], point
        everything(path)
        assert {**dump(path), "audit": []} == {**final, "audit": []}, point


@pytest.mark.parametrize("first_to_open", ["reader", "writer"])
def test_a_kill_in_the_middle_of_a_transaction_undoes_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, first_to_open: str
) -> None:
    with Catalog(path) as catalog:
        catalog.replace_chain(chain(3000))
    monkeypatch.setattr(database, "CACHE_KIB", -32)  # so that changed pages reach the file before the commit

    def half() -> None:
        catalog = Catalog(path)
        monkeypatch.setattr(Connection, "commit", lambda self: os._exit(7))
        catalog.replace_chain(chain(2000, "deep"))

    before = path.read_bytes()
    assert in_child(half) == 7
    assert path.read_bytes() != before, "the kill came too early to prove anything"
    assert path.with_name(path.name + "-journal").stat().st_size
    copy = path.with_name("copy")
    for suffix in ("", "-journal"):
        shutil.copy(path.with_name(path.name + suffix), copy.with_name(copy.name + suffix))
    with Catalog(path, read_only=first_to_open == "reader") as catalog:
        assert catalog.chain_rows(ONE) == chain(3000)

    set_aside(copy)  # takes the journal along: it must not be played back into the next catalog
    with Catalog(copy) as catalog:
        assert catalog.chains() == []
