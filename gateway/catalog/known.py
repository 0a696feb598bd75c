"""Known files: what the last generation of a source read at each path, so that unchanged files are not read again.

Local: without these rows every file is read once more, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from sqlalchemy import Connection, delete, select

from gateway.catalog import codec, schema
from gateway.catalog.database import Database
from gateway.catalog.rows import KnownFile
from gateway.catalog.writes import batches, put, remove
from gateway.model.entry import order_key

Item = TypeVar("Item")

# LIMIT: rows a transaction and a page, about 12 MiB in memory on their way through SQLAlchemy. A transaction costs a
# few fsyncs, so that 10 million rows pay 2,000 times for them; a reader beside the writer waits for one batch at most.
BATCH_ROWS = 5_000


class KnownFiles:
    """Part of `Catalog`. Thread-safe; one source is updated by one thread at a time.

    INVARIANT: the rows of a source are exactly those of the generation `known_generation` names, or it names none.
    """

    _database: Database

    def known_generation(self, source: str) -> bytes | None:
        """The generation whose files the rows are; None: nothing is known, or an update did not come to its end."""
        with self._database.reading() as connection:
            return _generation(connection, source)

    def known_files(self, source: str, below: bytes = b"") -> Iterator[KnownFile]:
        """The rows in the order of their keys; none where `known_generation` is None. `below`: those in a directory.

        They are read in pages, with no lock or cursor held between them: bounded memory, and the source may be written
        meanwhile. What lies behind the page in hand is then seen as it is when its page is read.
        """
        table = schema.known_file
        begin = order_key(below) + b"\0" if below else b""
        after: bytes | None = None
        while True:
            page = select(table).where(table.c.source == source).order_by(table.c.key).limit(BATCH_ROWS)
            if below:
                page = page.where(table.c.key < begin[:-1] + b"\1")
            if after is not None or below:
                page = page.where(table.c.key > (begin if after is None else after))
            with self._database.reading() as connection:
                if after is None and _generation(connection, source) is None:
                    return
                rows = connection.execute(page).all()
            yield from map(codec.known_file, rows)
            if len(rows) < BATCH_ROWS:
                return
            after = rows[-1].key

    def update_known(
        self, source: str, generation: bytes, puts: Iterable[KnownFile], deletes: Iterable[bytes] = ()
    ) -> None:
        """Make the rows those of `generation`: delete these keys, then put these files.

        What fits into one batch is one transaction. More is written in bounded ones, and nothing is known of the source
        from the first to the last; after an interruption the rows there are removed before the next update, so that
        `puts` must then be all files. `puts` and `deletes` are drawn from outside of any transaction and may read the
        catalog themselves.
        """
        removing = batches(deletes, BATCH_ROWS)
        putting = batches(puts, BATCH_ROWS)
        first_removed = next(removing, [])
        first_put = next(putting, [])
        if len(first_removed) + len(first_put) < BATCH_ROWS and self._is_whole(source):
            with self._database.writing("known-whole") as connection:
                _apply(connection, source, first_removed, first_put)
                _mark(connection, source, generation)
            return
        self._begin(source)
        for keys in _chained(first_removed, removing):
            with self._database.writing("known-rows") as connection:
                _apply(connection, source, keys, [])
        for files in _chained(first_put, putting):
            with self._database.writing("known-rows") as connection:
                _apply(connection, source, [], files)
        with self._database.writing("known-done") as connection:
            _mark(connection, source, generation)

    def forget_known(self, source: str) -> None:
        """Know nothing of a source, in bounded transactions; idempotent."""
        with self._database.writing("known-begin") as connection:
            _mark(connection, source, None)
        self._wipe(source)
        with self._database.writing("known-done") as connection:
            connection.execute(delete(schema.known_source).filter_by(source=source))

    def _is_whole(self, source: str) -> bool:
        """No interrupted update: either a generation is known or there never was one."""
        with self._database.reading() as connection:
            row = connection.execute(select(schema.known_source).filter_by(source=source)).first()
            return row is None or row.generation is not None

    def _begin(self, source: str) -> None:
        whole = self._is_whole(source)
        with self._database.writing("known-begin") as connection:
            _mark(connection, source, None)
        if not whole:
            self._wipe(source)

    def _wipe(self, source: str) -> None:
        """Delete a source's rows, batch by batch from the first key on."""
        table = schema.known_file
        own = table.c.source == source
        last_of_batch = select(table.c.key).where(own).order_by(table.c.key).limit(1).offset(BATCH_ROWS - 1)
        while True:
            with self._database.writing("known-rows") as connection:
                last = connection.execute(last_of_batch).scalar()
                batch = delete(table).where(own)
                connection.execute(batch if last is None else batch.where(table.c.key <= last))
            if last is None:
                return


def _generation(connection: Connection, source: str) -> bytes | None:
    return connection.execute(select(schema.known_source.c.generation).filter_by(source=source)).scalar()


def _mark(connection: Connection, source: str, generation: bytes | None) -> None:
    put(connection, schema.known_source, [(source, generation)])


def _apply(connection: Connection, source: str, keys: list[bytes], files: list[KnownFile]) -> None:
    remove(connection, schema.known_file, [(source, key) for key in keys])
    put(connection, schema.known_file, [codec.known_values(source, known) for known in files])


def _chained(first: list[Item], rest: Iterator[list[Item]]) -> Iterator[list[Item]]:
    if first:
        yield first
    yield from rest
