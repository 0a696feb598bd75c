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
VERSION = 1

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

# MIGRATIONS[n - 1] makes version n + 1 out of version n, in the transaction of the caller. A migration is written with
# the tables as they were then, never with those above. One that cannot carry derived rows over clears them: the next
# fold of the logs brings them back.
MIGRATIONS: tuple[Migration, ...] = ()
