"""The upload ledger: packs that are finished here and not yet declared by an entry, and how far their upload is.

Local: without it half-sent uploads are found by listing and given up, and their packs are sent again.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, delete, select, update

from gateway.catalog import codec, schema
from gateway.catalog.codec import chain_key
from gateway.catalog.database import Database
from gateway.catalog.rows import PackUpload, UploadPart, UploadState
from gateway.catalog.writes import put, remove
from gateway.model.ids import ChainName


class UploadLedger:
    """Part of `Catalog`. Thread-safe. A pack that is not in the ledger is `ValueError`: a mistake of the caller."""

    _database: Database

    def ledger_add(self, pack: PackUpload) -> None:
        """Write a finished pack down, before anything of it is sent. Again, with the same id: its row is replaced, its
        parts stay. `ValueError`: the number is another pack's."""
        with self._database.writing("ledger-add") as connection:
            held = connection.execute(
                select(schema.upload.c.pack_id).filter_by(**chain_key(pack.chain), number=pack.number)
            ).scalar()
            if held is not None and held != pack.pack_id:
                raise ValueError(f"pack {pack.number} of chain {pack.chain} is in the ledger with another id")
            put(connection, schema.upload, [codec.upload_values(pack)])

    def ledger_state(self, chain: ChainName, number: int, state: UploadState) -> None:
        with self._database.writing("ledger-state") as connection:
            _change(connection, chain, number, state=str(state))

    def ledger_upload(self, chain: ChainName, number: int, upload_id: str | None) -> None:
        """A multipart upload was opened (the pack is now "sending"), or with None given up (it is "finished").

        Parts of another upload id are forgotten: the store knows them no more.
        """
        state = UploadState.FINISHED if upload_id is None else UploadState.SENDING
        with self._database.writing("ledger-upload") as connection:
            own = {**chain_key(chain), "number": number}
            before = connection.execute(select(schema.upload.c.upload_id).filter_by(**own)).scalar()
            if before != upload_id:
                connection.execute(delete(schema.upload_part).filter_by(**chain_key(chain), pack=number))
            _change(connection, chain, number, upload_id=upload_id, state=str(state))

    def ledger_part(self, chain: ChainName, number: int, part: UploadPart) -> None:
        """Write a part down, before it is sent (no etag) and after the store's answer; the last word wins."""
        with self._database.writing("ledger-part") as connection:
            _change(connection, chain, number)
            put(connection, schema.upload_part, [codec.part_values(chain, number, part)])

    def ledger(self, chain: ChainName | None = None) -> list[PackUpload]:
        """All packs in the ledger, or a chain's, by chain and number."""
        where = {} if chain is None else chain_key(chain)
        order = schema.upload.primary_key.columns
        with self._database.reading() as connection:
            rows = connection.execute(select(schema.upload).filter_by(**where).order_by(*order)).all()
        return [codec.upload_row(row) for row in rows]

    def ledger_parts(self, chain: ChainName, number: int) -> list[UploadPart]:
        """The parts of a pack's upload by number; none for a pack that is not in the ledger."""
        own = select(schema.upload_part).filter_by(**chain_key(chain), pack=number)
        with self._database.reading() as connection:
            rows = connection.execute(own.order_by(schema.upload_part.c.number)).all()
        return [codec.part_row(row) for row in rows]

    def ledger_remove(self, chain: ChainName, numbers: Iterable[int]) -> None:
        """Forget packs and their parts: an entry declares them, or they were given up. Idempotent."""
        keys = [(chain.group, chain.number, number) for number in numbers]
        with self._database.writing("ledger-remove") as connection:
            remove(connection, schema.upload, keys)


def _change(connection: Connection, chain: ChainName, number: int, **values: str | None) -> None:
    """Set columns of a pack's row (none: only see that it is there)."""
    own = {**chain_key(chain), "number": number}
    if values:
        there = connection.execute(update(schema.upload).filter_by(**own).values(**values)).rowcount
    else:
        there = len(connection.execute(select(schema.upload.c.number).filter_by(**own)).all())
    if not there:
        raise ValueError(f"pack {number} of chain {chain} is not in the ledger")
