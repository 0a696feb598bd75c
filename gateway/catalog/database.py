"""The connection to the catalog's file: opening, checking, transactions, errors.

One connection a process, used under one lock by all its threads; other processes read beside it through SQLite's own
file locks. Rollback journal and not WAL: SQLite below 3.51.3 can corrupt a WAL database that several connections use.

CRASH: a transaction is whole or not there. A killed process leaves a journal, which the next one that opens the file
plays back; that is the only change a reader can make.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from gateway import durable
from gateway.catalog import schema
from gateway.errors import LocalStateError, NewerFormat, NoRepository

# LIMIT: how long a transaction waits for another process. Readers hold the file for one page of rows, the writer for
# one bounded transaction; what takes longer than this is stuck.
BUSY_SECONDS = 30.0

# LIMIT: 8 MiB of pages in memory (negative: KiB), of the process's budget.
CACHE_KIB = -8192

# FULL: a transaction that returned outlives a power cut. Tests that only kill processes turn it off.
SYNCHRONOUS = "FULL"

# The crash points of the catalog: `durable.effect` sees them as ``catalog:<name>``.
TRANSACTIONS = (
    "create",
    "migrate",
    "replace-chain",
    "remove-chain",
    "clear-derived",
    "known-whole",
    "known-begin",
    "known-rows",
    "known-done",
    "ledger-add",
    "ledger-state",
    "ledger-upload",
    "ledger-part",
    "ledger-remove",
    "proved",
    "forget-proofs",
    "head",
    "meta",
    "audit",
    "pending",
    "mark",
    "job",
    "alarm",
    "released",
    "restore",
)

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class _Opening(threading.local):
    """What the thread opens just now: the engine asks for a connection without saying of what."""

    connect: Callable[[], sqlite3.Connection] | None = None


_opening = _Opening()


def _open() -> sqlite3.Connection:
    if _opening.connect is None:
        raise RuntimeError("a catalog's connection is made once, when it is opened")
    return _opening.connect()


@cache
def _engine() -> Engine:
    """One for all catalogs of the process: it keeps what statements were compiled to. Compiling them anew for each file
    took half the time of a small ingest, and more of a verification.
    """
    engine = create_engine("sqlite+pysqlite://", creator=_open, poolclass=NullPool)
    event.listen(engine, "handle_error", _stay_open)
    return engine


def _stay_open(failed: ExceptionContext) -> None:
    """After Ctrl-C in a statement SQLAlchemy would close the file and leave it locked: the error keeps the statement.
    `writing` and `reading` undo the transaction, and the catalog can say what was left.
    """
    failed.is_disconnect = False


class Database:
    """A catalog's file. Thread-safe; `writing` and `reading` must not be nested."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open, check and, unless `read_only`, create or migrate.

        `NoRepository`: there is none and `read_only`. `NewerFormat`: a newer version wrote it. `LocalStateError`:
        damaged, foreign, or the disk fails.
        """
        self.path = path
        self.read_only = read_only
        self._lock = threading.Lock()
        self._driver: sqlite3.Connection
        if read_only:
            if not path.exists():
                raise _nothing_at(path)
        else:
            with self._translated():
                self._prepare_file()
        _opening.connect = self._connect
        try:
            with self._translated():
                self._connection = _engine().connect()
        finally:
            _opening.connect = None
        try:
            self._settle()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Idempotent. Waits for the transaction of another thread."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Connection]:
        """One transaction, durable when this returns; nothing of it is left when it raises.

        It is the crash point ``catalog:<name>``.
        """
        assert name in TRANSACTIONS
        if self.read_only:
            raise RuntimeError(f"catalog:{name}: opened for reading only")
        with self._lock, self._translated(), durable.effect(f"catalog:{name}"):
            try:
                # IMMEDIATE: take the write lock now, when waiting is harmless, and not in the middle.
                self._connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.commit()
            except BaseException:
                self._undo()
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """All that is read inside is of one moment. Fetch everything before it ends: no cursor outlives it."""
        with self._lock, self._translated():
            try:
                self._connection.exec_driver_sql("BEGIN")
                yield self._connection
            finally:
                self._undo()

    def _undo(self) -> None:
        self._connection.rollback()
        # A commit that failed because a reader held the file leaves SQLite's transaction open, while SQLAlchemy thinks
        # that it ended.
        if self._driver.in_transaction:
            self._driver.rollback()

    # --- opening -----------------------------------------------------------------------------------------------------

    def _prepare_file(self) -> None:
        """SQLite would create the file with the umask's permissions; an empty one of ours is a new database to it."""
        if not self.path.exists():
            durable.make_directory("state", self.path.parent)
            durable.write_file("catalog", self.path, b"", mode=0o600)
        # SECURITY: the names of all files of all sources stand in it. The journal inherits its permissions.
        elif self.path.stat().st_mode & 0o077:
            os.chmod(self.path, 0o600)

    def _connect(self) -> sqlite3.Connection:
        # mode=rw: never creates. A reader gets it too, and query_only: it must be able to play back the journal of a
        # killed writer, or nobody could read beside a gateway that is down.
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,  # transactions begin where `writing` and `reading` say so
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute(f"PRAGMA cache_size={CACHE_KIB}")
            connection.execute(f"PRAGMA synchronous={SYNCHRONOUS}")
            connection.execute("PRAGMA temp_store=MEMORY")
            if self.read_only:
                connection.execute("PRAGMA query_only=ON")
            else:
                # TRUNCATE and not DELETE: with FULL, SQLite syncs the truncated journal, but not the directory that a
                # deleted one was in, so that a power cut could undo the last transaction.
                mode = connection.execute("PRAGMA journal_mode=TRUNCATE").fetchone()[0]
                if mode != "truncate":
                    raise sqlite3.OperationalError(f"journal mode is {mode}")
        except BaseException:
            connection.close()
            raise
        self._driver = connection
        return connection

    def _settle(self) -> None:
        with self.reading() as connection:
            version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
            owner = int(connection.exec_driver_sql("PRAGMA application_id").scalar_one())
            empty = not connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one()
        if empty and version == 0:
            if self.read_only:
                raise _nothing_at(self.path)
            with self.writing("create") as connection:
                schema.create(connection)
                connection.exec_driver_sql(f"PRAGMA application_id={schema.APPLICATION_ID}")
                connection.exec_driver_sql(f"PRAGMA user_version={schema.VERSION}")
            return
        if owner != schema.APPLICATION_ID or version == 0:
            raise LocalStateError(
                f"{self.path} is not a catalog of the gateway.",
                meaning="It is the database of another program.",
                advice="Check `state.dir`, or move the file away and run `gateway rebuild`.",
            )
        if version > schema.VERSION:
            raise NewerFormat(
                f"The catalog {self.path} has version {version}; this gateway knows up to {schema.VERSION}.",
                meaning="A newer gateway worked here before.",
                advice="Install that version again, or move the file away and run `gateway rebuild`.",
            )
        if version < schema.VERSION and self.read_only:
            raise LocalStateError(
                f"The catalog {self.path} is of an older version.",
                meaning="It must be converted once before it can be read.",
                advice="Start the gateway, or run any command that writes, and then this one again.",
            )
        self._check()
        if version < schema.VERSION:
            with self.writing("migrate") as connection:
                for migration in schema.MIGRATIONS[version - 1 :]:
                    migration(connection)
                connection.exec_driver_sql(f"PRAGMA user_version={schema.VERSION}")

    def _check(self) -> None:
        """SQLite's quick_check. A reader looks at the derived tables only, whose size does not grow with the files."""
        with self.reading() as connection:
            if self.read_only:
                checks = [f"PRAGMA quick_check({table.name})" for table in schema.DERIVED]
            else:
                checks = ["PRAGMA quick_check(1)"]
            for check in checks:
                answer = connection.exec_driver_sql(check).scalars().first()
                if answer != "ok":
                    raise _damaged(self.path, str(answer))

    # --- errors ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            translated = self._in_our_words(error.orig)
            if translated is None:
                raise
            raise translated from error
        except (sqlite3.Error, OSError) as error:
            translated = self._in_our_words(error)
            if translated is None:
                raise
            raise translated from error

    def _in_our_words(self, error: BaseException | None) -> LocalStateError | None:
        """None: a mistake of ours (a broken constraint, a value out of range), which must be seen as it is."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the high bits say more; the low ones what to do
        if code in _DAMAGED:
            return _damaged(self.path, str(error))
        if code in _BUSY:
            return LocalStateError(
                f"The catalog {self.path} was in use by another process for {BUSY_SECONDS:.0f} seconds.",
                meaning="This step was not done.",
                advice="End what reads or copies that file, and run the command again.",
            )
        if code == sqlite3.SQLITE_FULL:
            return LocalStateError(
                f"No space left while writing {self.path}.",
                meaning="Nothing that was reported as done is lost; this step was not done.",
                advice="Free or add disk space there and run the command again.",
            )
        if isinstance(error, sqlite3.OperationalError | OSError):
            return LocalStateError(
                f"Cannot use the catalog {self.path}: {error}.",
                meaning="This step was not done.",
                advice="Check the disk, the mount and the permissions, then run the command again.",
            )
        return None


def foreign_writes(connection: Connection) -> int:
    """Another number after another connection has written to the file (SQLite's `data_version`)."""
    return int(connection.exec_driver_sql("PRAGMA data_version").scalar_one())


def _nothing_at(path: Path) -> NoRepository:
    return NoRepository(
        f"There is no catalog at {path}.",
        meaning="This gateway was never connected with a repository, or its local state is lost.",
        advice="Run `gateway init` for a new repository, or `gateway rebuild` for one that exists.",
    )


def _damaged(path: Path, what: str) -> LocalStateError:
    return LocalStateError(
        f"The catalog {path} is damaged: {what}.",
        meaning="The repository is not affected; what the catalog knew about it can be read from the store again.",
        advice="Check the disk, then run `gateway rebuild`.",
    )


def set_aside(path: Path) -> Path:
    """Rename a catalog that cannot be opened, and its journal, out of the way; returns the file's new name.

    For the owner of `state.dir` only, while no process has it open. An older one set aside before is replaced.
    """
    aside = path.with_name(f"{path.name}.damaged")
    # CRASH: the journal first. One that stays behind alone would be played back into the next catalog.
    for suffix in ("-journal", ""):
        old = path.with_name(path.name + suffix)
        if old.exists():
            durable.publish("catalog-aside", old, aside.with_name(aside.name + suffix))
    return aside
