"""The derived tables: chains, entries, packs, generations, holds, as the logs tell them."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Select, Table, bindparam, delete, func, select

from gateway.catalog import codec, schema
from gateway.catalog.codec import Values, chain_key
from gateway.catalog.database import Database, foreign_writes
from gateway.catalog.rows import (
    ChainRow,
    ChainRows,
    ChainState,
    EntryRow,
    GenerationKind,
    GenerationRow,
    GenerationState,
    HoldRow,
    PackRow,
    PackState,
)
from gateway.catalog.writes import put, remove
from gateway.errors import UsageError
from gateway.model.ids import ChainName, generation_text

Given = tuple[bytes, int]
"""The rows that a chain was given last, as a digest, and what `foreign_writes` said then."""

_NUMBER = re.compile(r"[0-9]{1,19}")
_PREFIX = re.compile(r"g?[0-9a-f]{1,32}")

# How many generations an error names.
_NAMED = 4


class DerivedTables:
    """Part of `Catalog`. Thread-safe."""

    _database: Database
    _replaced: dict[ChainName, Given]

    # --- writing -----------------------------------------------------------------------------------------------------

    def replace_chain(self, rows: ChainRows) -> None:
        """Make the catalog hold exactly these rows of that chain, in one transaction; idempotent.

        Only rows that differ are written: the cost of the others is one read in order and a comparison, and not even
        that where the same rows were given last time and nobody else wrote.
        """
        name = rows.chain.chain
        tables = (
            (schema.chain, [codec.chain_values(rows.chain)]),  # first: the others refer to it
            (schema.entry, [codec.entry_values(row) for row in rows.entries]),
            (schema.pack, [codec.pack_values(row) for row in rows.packs]),
            (schema.generation, [codec.generation_values(row) for row in rows.generations]),
            (schema.hold, [codec.hold_values(row) for row in rows.holds]),
        )
        digest = sha256(pickle.dumps([values for _, values in tables])).digest()
        with self._database.reading() as connection:
            if self._replaced.get(name) == (digest, foreign_writes(connection)):
                return
        try:
            with self._database.writing("replace-chain") as connection:
                for table, values in tables:
                    _make_equal(connection, table, name, values)
                self._replaced[name] = digest, foreign_writes(connection)
        except BaseException:
            self._replaced.pop(name, None)
            raise

    def given_rows(self, chain: ChainName) -> Given | None:
        """What tells the rows that this process gave a chain last; None where others may have written since."""
        with self._database.reading() as connection:
            given = self._replaced.get(chain)
            return given if given is not None and given[1] == foreign_writes(connection) else None

    def remove_chain(self, chain: ChainName) -> None:
        """Forget a chain's derived rows; one that is not there is no error."""
        with self._database.writing("remove-chain") as connection:
            self._replaced.pop(chain, None)
            connection.execute(delete(schema.chain).filter_by(**chain_key(chain)))  # the others go with it

    def clear_derived(self) -> None:
        """Forget what a rebuild brings back. The local tables stay."""
        with self._database.writing("clear-derived") as connection:
            self._replaced.clear()
            connection.execute(delete(schema.chain))

    # --- reading -----------------------------------------------------------------------------------------------------

    def chains(self) -> list[ChainRow]:
        """All chains by name."""
        return [codec.chain_row(row) for row in self._rows(schema.chain)]

    def chain_rows(self, chain: ChainName) -> ChainRows | None:
        """All rows of a chain, of one moment; None where there is none of that name."""
        with self._database.reading() as connection:
            own = _of_chain(connection, schema.chain, chain)
            if not own:
                return None
            entries, packs, generations, holds = (
                _of_chain(connection, table, chain)
                for table in (schema.entry, schema.pack, schema.generation, schema.hold)
            )
        return ChainRows(
            chain=codec.chain_row(own[0]),
            entries=tuple(map(codec.entry_row, entries)),
            packs=tuple(map(codec.pack_row, packs)),
            generations=tuple(sorted(map(codec.generation_row, generations), key=lambda r: (r.number, r.generation))),
            holds=tuple(sorted(map(codec.hold_row, holds), key=lambda row: (row.sequence, row.hold))),
        )

    def chain(self, chain: ChainName) -> ChainRow | None:
        return next((codec.chain_row(row) for row in self._rows(schema.chain, **chain_key(chain))), None)

    def entries(self, chain: ChainName) -> list[EntryRow]:
        """A chain's entries by sequence number."""
        return [codec.entry_row(row) for row in self._rows(schema.entry, **chain_key(chain))]

    def packs(self, chain: ChainName) -> list[PackRow]:
        """A chain's packs by number, whatever their state."""
        return [codec.pack_row(row) for row in self._rows(schema.pack, **chain_key(chain))]

    def damaged_chains(self, source: str) -> list[ChainRow]:
        """Those of a source whose log is damaged, or that cannot be opened."""
        return [codec.chain_row(row) for row in self._rows(schema.chain, source=source, state=str(ChainState.DAMAGED))]

    def damaged_packs(self, source: str) -> list[PackRow]:
        """Those of a source's chains that are missing or damaged, by chain and number."""
        return [codec.pack_row(row) for row in self._rows(schema.pack, group_name=source, state=str(PackState.DAMAGED))]

    def holds(self, chain: ChainName | None = None) -> list[HoldRow]:
        """The holds that stand, of a chain or of all."""
        return [codec.hold_row(row) for row in self._rows(schema.hold, **(chain_key(chain) if chain else {}))]

    def generations(self, source: str | None = None) -> list[GenerationRow]:
        """Ascending by source and number. A superseded checkpoint does not show."""
        where = {} if source is None else {"source": source}
        rows = [codec.generation_row(row) for row in self._rows(schema.generation, **where)]
        return sorted(not_superseded(rows), key=lambda row: (row.source, row.number, row.chain, row.sequence))

    def protected(self, source: str | None = None) -> list[GenerationRow]:
        """The protected ones among `generations`. What has expired stays in a log until its chain ends, and is most of
        it: it is not even read.
        """
        where = {} if source is None else {"source": source}
        rows = self._rows(schema.generation, state=str(GenerationState.PROTECTED), **where)
        return sorted(
            map(codec.generation_row, rows), key=lambda row: (row.source, row.number, row.chain, row.sequence)
        )

    def find_generation(self, source: str, spec: str = "latest") -> GenerationRow:
        """The generation of `source` that an operator means.

        `spec`: "latest" (the newest that is protected), a number, or the first hexadecimal digits of an id. Only
        digits are a number; a prefix of that kind is given with the leading ``g``. `UsageError`: none, or several.
        """
        spec = spec.strip().lower()
        if spec == "latest" and (found := self.protected(source)):
            return found[-1]
        generations = self.generations(source)
        if not generations:
            known = sorted({row.source for row in self.chains()})
            raise UsageError(
                f'There is no generation of source "{source}" in the repository.',
                meaning=f"It has chains of: {', '.join(known)}." if known else "It has no chains yet.",
                advice="`gateway generations` lists all.",
            )
        list_them = f"`gateway generations {source}` lists them."
        if spec == "latest":
            raise UsageError(
                f'No generation of source "{source}" is protected.',
                meaning=f"It has {_text_of(generations)}.",
                advice="Name one by its number or id to take it as it is.",
            )
        if _NUMBER.fullmatch(spec):
            found = [row for row in generations if row.number == int(spec)]
        elif _PREFIX.fullmatch(spec):
            prefix = spec.removeprefix("g")
            found = [row for row in generations if row.generation.hex().startswith(prefix)]
        else:
            raise UsageError(
                f'"{spec}" does not name a generation.',
                meaning='A generation is named by "latest", its number, or the letter g and first digits of its id.',
                advice=list_them,
            )
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(
                f'"{spec}" fits {len(found)} generations of source "{source}": {_text_of(found)}.',
                advice="Give more digits of the id.",
            )
        raise UsageError(
            f'Source "{source}" has no generation "{spec}".',
            meaning=f"It has {_text_of(generations)}.",
            advice=list_them,
        )

    def next_generation_number(self, source: str) -> int:
        """1 + the highest of the source over all chains, superseded and expired ones included."""
        with self._database.reading() as connection:
            highest = select(func.max(schema.generation.c.number)).where(schema.generation.c.source == source)
            return int(connection.execute(highest).scalar() or 0) + 1

    def dump_derived(self) -> dict[str, list[Values]]:
        """Every derived table as its sorted rows of stored values: two catalogs of one repository are equal in it."""
        with self._database.reading() as connection:
            return {
                table.name: sorted(tuple(row) for row in connection.execute(select(table))) for table in schema.DERIVED
            }

    def _rows(self, table: Table, **where: Any) -> Sequence[Sequence[Any]]:
        with self._database.reading() as connection:
            return connection.execute(_in_order(table, *where), where).all()


@cache
def _in_order(table: Table, *where: str) -> Select[Any]:
    """The rows of which these columns have given values. Made once: that takes longer than to execute it."""
    equal = [table.c[name] == bindparam(name) for name in where]
    return select(table).where(*equal).order_by(*table.primary_key.columns)


def _of_chain(connection: Connection, table: Table, chain: ChainName) -> Sequence[Sequence[Any]]:
    key = chain_key(chain)
    return connection.execute(_in_order(table, *key), key).all()


def _make_equal(connection: Connection, table: Table, chain: ChainName, wanted: list[Values]) -> None:
    """Insert, change and delete what differs between a chain's rows in `table` and `wanted`."""
    key = _key_of(table)
    old = {key(row): row for row in map(tuple, _of_chain(connection, table, chain))}
    keys = {key(row) for row in wanted}
    if len(keys) != len(wanted):
        raise ValueError(f"two rows of chain {chain} in table {table.name} have one key")
    remove(connection, table, [each for each in old if each not in keys])
    put(connection, table, [row for row in wanted if old.get(key(row)) != row])


def _key_of(table: Table) -> Callable[[Values], Values]:
    count = len(table.primary_key.columns)  # they are the first columns
    return lambda row: row[:count]


def not_superseded(rows: list[GenerationRow]) -> list[GenerationRow]:
    """Without the checkpoints after which their source has another entry that sets a generation."""

    def place(row: GenerationRow) -> tuple[int, int]:
        return (row.chain.number, row.sequence)

    last: dict[tuple[str, str], tuple[int, int]] = {}
    for row in rows:
        of = (row.source, row.chain.group)
        last[of] = max(last.get(of, (0, 0)), place(row))
    return [
        row
        for row in rows
        if row.kind is not GenerationKind.CHECKPOINT or place(row) == last[row.source, row.chain.group]
    ]


def _text_of(rows: list[GenerationRow]) -> str:
    """``3 (g01ab..., protected), 2 (...) and 7 more``, the newest first."""
    newest = list(reversed(rows))
    text = ", ".join(f"{row.number} ({generation_text(row.generation)}, {row.state})" for row in newest[:_NAMED])
    return f"{text} and {len(rows) - _NAMED} more" if len(rows) > _NAMED else text
