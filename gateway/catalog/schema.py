"""The tables of the catalog, and how an older file becomes one of this version.

Columns hold what SQLite stores as it is; `gateway.catalog.codec` turns rows into them and back. An unsigned 64-bit
value stands as the signed one with the same bits, a tuple as MessagePack.

DERIVED tables begin with (group_name, chain) and go with their chain's row. LOCAL tables never refer to them: they
outlive a chain's rows being replaced or cleared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)
from sqlalchemy.schema import CreateIndex, CreateTable

# "gwct" in the file's header: says to file(1), and to us, whose database this is.
APPLICATION_ID = 0x67776374
VERSION = 6

metadata = MetaData()


def _number(name: str) -> Column[Any]:
    return Column(name, Integer, nullable=False)


def _text(name: str) -> Column[Any]:
    return Column(name, Text, nullable=False)


def _bytes(name: str) -> Column[Any]:
    return Column(name, LargeBinary, nullable=False)


def _table(name: str, *columns: Any, key: tuple[str, ...]) -> Table:
    """Rows lie in the order of `key` (WITHOUT ROWID): one tree, no second index to write."""
    return Table(name, metadata, *columns, PrimaryKeyConstraint(*key), sqlite_with_rowid=False)


def _of_chain() -> tuple[Any, ...]:
    return (
        _text("group_name"),
        _number("chain"),
        ForeignKeyConstraint(
            ["group_name", "chain"], ["chain.group_name", "chain.chain"], ondelete="CASCADE", onupdate="RESTRICT"
        ),
    )


# --- derived ---------------------------------------------------------------------------------------------------------

chain = _table(
    "chain",
    _text("group_name"),
    _number("chain"),
    _number("created"),
    _text("source"),
    _text("storage"),
    _text("state"),
    _bytes("header_digest"),
    _number("header_size"),
    _number("head_sequence"),
    _bytes("head_digest"),
    _text("problem"),
    key=("group_name", "chain"),
)

entry = _table(
    "entry",
    *_of_chain(),
    _number("sequence"),
    _bytes("digest"),
    _number("size"),
    _text("kind"),
    _bytes("writer"),
    _number("time"),
    key=("group_name", "chain", "sequence"),
)

pack = _table(
    "pack",
    *_of_chain(),
    _number("number"),
    _bytes("pack_id"),
    _text("storage"),
    _number("size"),
    _number("crc64"),
    _bytes("index_digest"),
    _number("index_size"),
    _number("chunks"),
    _number("raw"),
    _bytes("bases"),
    _number("declared_by"),
    _text("state"),
    _text("problem"),
    key=("group_name", "chain", "number"),
)

generation = _table(
    "generation",
    *_of_chain(),
    _bytes("generation"),
    _text("source"),
    _number("number"),
    _number("sequence"),
    _text("kind"),
    _text("source_kind"),
    _number("begun"),
    _number("cut"),
    _number("evidence"),
    _text("operator"),
    _text("state"),
    _bytes("reasons"),
    _bytes("needs"),
    _number("list_depth"),
    _number("list_size"),
    _bytes("list_runs"),
    _bytes("requires"),
    _number("left_out_count"),
    _bytes("statistics"),
    _number("files"),
    _number("bytes"),
    _number("stored_bytes"),
    # NULL: it never goes cold, or nobody has looked since the file was of a version without this.
    Column("hot_until", Integer, nullable=True),
    key=("group_name", "chain", "generation"),
)
Index("generation_of_source", generation.c.source, generation.c.number)

hold = _table(
    "hold",
    *_of_chain(),
    _bytes("hold"),
    _bytes("generation"),
    _text("who"),
    _text("why"),
    _number("sequence"),
    key=("group_name", "chain", "hold"),
)

DERIVED: tuple[Table, ...] = (chain, entry, pack, generation, hold)

# --- local -----------------------------------------------------------------------------------------------------------

known_source = _table(
    "known_source",
    _text("source"),
    # NULL: an update is under way or was interrupted.
    Column("generation", LargeBinary, nullable=True),
    key=("source",),
)

known_file = _table(
    "known_file",
    _text("source"),
    _bytes("key"),
    _number("device"),
    _number("inode"),
    _number("size"),
    _number("mtime_ns"),
    _number("ctime_ns"),
    _number("read_started_ns"),
    _number("evidence"),
    Column("held_ns", Integer, nullable=True),
    key=("source", "key"),
)

upload = _table(
    "upload",
    _text("group_name"),
    _number("chain"),
    _number("number"),
    _bytes("pack_id"),
    _text("storage"),
    _number("size"),
    _number("crc64"),
    _bytes("index_digest"),
    _number("index_size"),
    _number("chunks"),
    _number("raw"),
    _bytes("bases"),
    _bytes("generation"),
    Column("upload_id", Text, nullable=True),
    _text("state"),
    key=("group_name", "chain", "number"),
)

upload_part = _table(
    "upload_part",
    _text("group_name"),
    _number("chain"),
    _number("pack"),
    _number("number"),
    _number("size"),
    _text("etag"),
    _number("crc64"),
    ForeignKeyConstraint(
        ["group_name", "chain", "pack"],
        ["upload.group_name", "upload.chain", "upload.number"],
        ondelete="CASCADE",
        onupdate="RESTRICT",
    ),
    key=("group_name", "chain", "pack", "number"),
)

proof = _table(
    "proof",
    _text("group_name"),
    _number("chain"),
    _number("number"),
    _bytes("pack_id"),
    _number("proved"),
    key=("group_name", "chain", "number"),
)

head = _table(
    "head",
    _text("group_name"),
    _number("chain"),
    _number("sequence"),
    _bytes("digest"),
    key=("group_name", "chain"),
)

meta = _table("meta", _text("key"), _text("value"), key=("key",))

pending = _table(
    "pending",
    _text("source"),
    _bytes("path"),
    _text("state"),
    _number("size"),
    _number("since"),
    _text("detail"),
    key=("source", "path"),
)

mark = _table(
    "mark",
    _text("source"),
    _bytes("path"),
    _number("device"),
    _number("inode"),
    _number("size"),
    _number("mtime_ns"),
    _number("ctime_ns"),
    _number("evidence"),
    _text("how"),
    _number("time"),
    key=("source", "path"),
)

backup_job = _table(
    "backup_job",
    _text("source"),
    _text("run"),
    _text("state"),
    _number("begun"),
    _number("sealed"),
    _number("evidence"),
    _text("who"),
    _bytes("members"),
    _bytes("problems"),
    _bytes("requires"),
    _number("generation"),
    # NULL: no generation, or the row is of a version without this, which knew its number only.
    Column("made", LargeBinary, nullable=True),
    key=("source", "run"),
)

alarm = Table(
    "alarm",
    metadata,
    Column("id", Integer, primary_key=True),  # the rowid: counts up
    _text("kind"),
    _text("subject"),
    _text("what"),
    _text("meaning"),
    _text("advice"),
    _number("opened"),
    Column("closed", Integer, nullable=True),
    _bytes("told"),
)
Index("alarm_open", alarm.c.kind, alarm.c.subject, unique=True, sqlite_where=alarm.c.closed.is_(None))

released = _table(
    "released",
    _text("source"),
    _bytes("path"),
    _text("id"),
    _number("size"),
    _number("time"),
    _text("state"),
    key=("source", "path"),
)

restore_job = _table(
    "restore_job",
    _text("id"),
    _text("source"),
    _number("number"),
    _text("group_name"),
    _number("chain"),
    _bytes("generation"),
    _text("state"),
    _number("created"),
    _number("updated"),
    _number("wake"),
    _text("reason"),
    _bytes("order"),
    _bytes("planned"),
    _bytes("done"),
    key=("id",),
)

restore_pack = _table(
    "restore_pack",
    _text("job"),
    _number("number"),
    _text("stage"),
    _number("wave"),
    _number("last"),
    _number("size"),
    _text("storage_class"),
    _bytes("ranges"),
    _text("tier"),
    _number("asked"),
    _number("until"),
    _number("asks"),
    ForeignKeyConstraint(["job"], ["restore_job.id"], ondelete="CASCADE", onupdate="RESTRICT"),
    key=("job", "number"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),  # the rowid: counts up
    _number("time"),
    _text("who"),
    _text("what"),
    _text("detail"),
)


def create(connection: Connection) -> None:
    """Make every table, in the transaction of the caller."""
    for table in metadata.sorted_tables:
        connection.execute(CreateTable(table))
        for index in sorted(table.indexes, key=lambda each: str(each.name)):
            connection.execute(CreateIndex(index))


Migration = Callable[[Connection], None]


def _watching(connection: Connection) -> None:
    """What the engine knows of sources: pending files, marks, backup jobs, alarms, released files."""
    for statement in _VERSION_2.strip().split(";\n"):
        connection.exec_driver_sql(statement)


_VERSION_2 = """
CREATE TABLE pending (source TEXT NOT NULL, path BLOB NOT NULL, state TEXT NOT NULL, size INTEGER NOT NULL,
    since INTEGER NOT NULL, detail TEXT NOT NULL, PRIMARY KEY (source, path)) WITHOUT ROWID;
CREATE TABLE mark (source TEXT NOT NULL, path BLOB NOT NULL, device INTEGER NOT NULL, inode INTEGER NOT NULL,
    size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, evidence INTEGER NOT NULL,
    how TEXT NOT NULL, time INTEGER NOT NULL, PRIMARY KEY (source, path)) WITHOUT ROWID;
CREATE TABLE backup_job (source TEXT NOT NULL, run TEXT NOT NULL, state TEXT NOT NULL, begun INTEGER NOT NULL,
    sealed INTEGER NOT NULL, evidence INTEGER NOT NULL, who TEXT NOT NULL, members BLOB NOT NULL,
    problems BLOB NOT NULL, requires BLOB NOT NULL, generation INTEGER NOT NULL,
    PRIMARY KEY (source, run)) WITHOUT ROWID;
CREATE TABLE alarm (id INTEGER NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, what TEXT NOT NULL,
    meaning TEXT NOT NULL, advice TEXT NOT NULL, opened INTEGER NOT NULL, closed INTEGER, told BLOB NOT NULL,
    PRIMARY KEY (id));
CREATE UNIQUE INDEX alarm_open ON alarm (kind, subject) WHERE closed IS NULL;
CREATE TABLE released (source TEXT NOT NULL, path BLOB NOT NULL, id TEXT NOT NULL, size INTEGER NOT NULL,
    time INTEGER NOT NULL, state TEXT NOT NULL, PRIMARY KEY (source, path)) WITHOUT ROWID;
"""


def _hot_until(connection: Connection) -> None:
    """Until when a generation is readable at once; the next fold of its chain fills it in."""
    connection.exec_driver_sql("ALTER TABLE generation ADD COLUMN hot_until INTEGER")


def _restores(connection: Connection) -> None:
    """Restore jobs, and where each of their packs is."""
    for statement in _VERSION_4.strip().split(";\n"):
        connection.exec_driver_sql(statement)


_VERSION_4 = """
CREATE TABLE restore_job (id TEXT NOT NULL, source TEXT NOT NULL, number INTEGER NOT NULL, group_name TEXT NOT NULL,
    chain INTEGER NOT NULL, generation BLOB NOT NULL, state TEXT NOT NULL, created INTEGER NOT NULL,
    updated INTEGER NOT NULL, wake INTEGER NOT NULL, reason TEXT NOT NULL, "order" BLOB NOT NULL,
    planned BLOB NOT NULL, done BLOB NOT NULL, PRIMARY KEY (id)) WITHOUT ROWID;
CREATE TABLE restore_pack (job TEXT NOT NULL, number INTEGER NOT NULL, stage TEXT NOT NULL, wave INTEGER NOT NULL,
    last INTEGER NOT NULL, size INTEGER NOT NULL, storage_class TEXT NOT NULL, ranges BLOB NOT NULL,
    tier TEXT NOT NULL, asked INTEGER NOT NULL, until INTEGER NOT NULL, asks INTEGER NOT NULL,
    PRIMARY KEY (job, number),
    FOREIGN KEY(job) REFERENCES restore_job (id) ON DELETE CASCADE ON UPDATE RESTRICT) WITHOUT ROWID;
"""


def _made(connection: Connection) -> None:
    """The id of the generation that a run was made as: its number may be another one's, too."""
    connection.exec_driver_sql("ALTER TABLE backup_job ADD COLUMN made BLOB")


def _held(connection: Connection) -> None:
    """When a known version was read first; where nothing stands, all that can be said is when it was read last."""
    connection.exec_driver_sql("ALTER TABLE known_file ADD COLUMN held_ns INTEGER")


# MIGRATIONS[n - 1] makes version n + 1 out of version n, in the transaction of the caller. A migration is written with
# the tables as they were then, never with those above. One that cannot carry derived rows over clears them: the next
# fold of the logs brings them back.
MIGRATIONS: tuple[Migration, ...] = (_watching, _hot_until, _restores, _made, _held)
