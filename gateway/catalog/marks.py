"""Small local tables: proof dates, heads, key/value pairs, audit rows."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert

from gateway.catalog import schema
from gateway.catalog.codec import chain_key
from gateway.catalog.database import Database
from gateway.catalog.rows import AuditRow, Head, Proof
from gateway.catalog.writes import put, remove
from gateway.model.ids import ChainName


class LocalMarks:
    """Part of `Catalog`. Thread-safe."""

    _database: Database

    # --- proofs ------------------------------------------------------------------------------------------------------

    def proved(self, chain: ChainName, number: int, pack_id: bytes, when_ms: int) -> None:
        """A pack was compared with what the store states, or read back."""
        self.proved_all(chain, [Proof(number=number, pack_id=pack_id, when=when_ms)])

    def proved_all(self, chain: ChainName, proofs: Iterable[Proof]) -> None:
        """The same of many, in one transaction. A later date of the same pack stays."""
        rows = [
            {**chain_key(chain), "number": each.number, "pack_id": each.pack_id, "proved": each.when} for each in proofs
        ]
        if not rows:
            return
        statement = insert(schema.proof)
        new, old = statement.excluded, schema.proof.c
        statement = statement.on_conflict_do_update(
            index_elements=list(schema.proof.primary_key.columns),
            set_={"pack_id": new.pack_id, "proved": new.proved},
            where=(old.pack_id != new.pack_id) | (old.proved < new.proved),
        )
        with self._database.writing("proved") as connection:
            connection.execute(statement, rows)

    def proofs(self, chain: ChainName) -> dict[int, Proof]:
        """A chain's proof dates by pack number. Compare the id: a number alone proves nothing."""
        statement = select(schema.proof).filter_by(**chain_key(chain)).order_by(schema.proof.c.number)
        with self._database.reading() as connection:
            rows = connection.execute(statement).all()
        return {row.number: Proof(number=row.number, pack_id=row.pack_id, when=row.proved) for row in rows}

    def forget_proofs(self, chain: ChainName, numbers: Iterable[int] | None = None) -> None:
        """Of packs that were found bad or deleted; None: of the whole chain."""
        with self._database.writing("forget-proofs") as connection:
            if numbers is None:
                connection.execute(delete(schema.proof).filter_by(**chain_key(chain)))
            else:
                remove(connection, schema.proof, [(chain.group, chain.number, number) for number in numbers])

    # --- heads -------------------------------------------------------------------------------------------------------

    def remember_head(self, chain: ChainName, sequence: int, digest: bytes, *, force: bool = False) -> bool:
        """Remember how far a chain's log reached. False: a newer head, or another digest at this one, is remembered and
        stays; that is a log that was rolled back or replaced, unless `force` says that an operator accepted it."""
        with self._database.writing("head") as connection:
            row = connection.execute(select(schema.head).filter_by(**chain_key(chain))).first()
            if row is not None and not force:
                if row.sequence == sequence:
                    return bool(row.digest == digest)
                if row.sequence > sequence:
                    return False
            put(connection, schema.head, [(chain.group, chain.number, sequence, digest)])
            return True

    def heads(self) -> dict[ChainName, Head]:
        with self._database.reading() as connection:
            rows = connection.execute(select(schema.head).order_by(*schema.head.primary_key.columns)).all()
        return {ChainName(row.group_name, row.chain): Head(sequence=row.sequence, digest=row.digest) for row in rows}

    def head(self, chain: ChainName) -> Head | None:
        """The newest entry ever seen of a chain."""
        with self._database.reading() as connection:
            row = connection.execute(select(schema.head).filter_by(**chain_key(chain))).first()
        return None if row is None else Head(sequence=row.sequence, digest=row.digest)

    # --- meta --------------------------------------------------------------------------------------------------------

    def meta(self, key: str) -> str | None:
        with self._database.reading() as connection:
            return connection.execute(select(schema.meta.c.value).filter_by(key=key)).scalar()

    def set_meta(self, key: str, value: str | None) -> None:
        """None removes the key."""
        with self._database.writing("meta") as connection:
            if value is None:
                remove(connection, schema.meta, [(key,)])
            else:
                put(connection, schema.meta, [(key, value)])

    # --- audit -------------------------------------------------------------------------------------------------------

    def audit(self, who: str, what: str, when_ms: int, detail: str = "") -> None:
        """Add a row; nothing ever changes or removes one. Text that is not UTF-8 is kept escaped."""
        row = {"who": _storable(who), "what": _storable(what), "time": when_ms, "detail": _storable(detail)}
        with self._database.writing("audit") as connection:
            connection.execute(insert(schema.audit), row)

    def audits(self, limit: int = 100) -> list[AuditRow]:
        """The newest rows, the newest first."""
        statement = select(schema.audit).order_by(schema.audit.c.id.desc()).limit(limit)
        with self._database.reading() as connection:
            rows = connection.execute(statement).all()
        return [AuditRow(who=row.who, what=row.what, when=row.time, detail=row.detail) for row in rows]


def _storable(text: str) -> str:
    """A name of a file that is not UTF-8 comes in as lone surrogates, which SQLite cannot hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
