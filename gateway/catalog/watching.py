"""What the engine knows of sources: pending files, marks of evidence, backup jobs, alarms, released files.

Local: without these rows files wait for their settle time once more, a producer repeats its seal call, and alarms open
again. What was released stays restorable; only the reason why a file left the spool is no longer known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import delete, select, update
from sqlalchemy.dialects.sqlite import insert

from gateway.catalog import schema
from gateway.catalog.codec import Values, signed, unsigned
from gateway.catalog.database import Database
from gateway.catalog.writes import put, remove
from gateway.model.entry import Identity

LIMIT_PENDING = 1_000
"""LIMIT: pending files of one source that are kept by name."""
LIMIT_MARKS = 50_000
"""LIMIT: marks of one source in memory, about 30 MiB."""
KEPT_CLOSED_ALARMS = 1_000
"""LIMIT: closed alarms that are kept, the newest."""


class PendingState(StrEnum):
    SEEN = "seen"
    GROWING = "growing"
    QUIET = "quiet"
    CANDIDATE = "candidate"
    HELD = "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRow:
    """A file that is in no generation as it is. `since`: ms of the wall clock, when it was first seen like this."""

    path: bytes
    state: PendingState
    size: int
    since: int
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkRow:
    """Evidence for one version of a file: worth nothing for another identity. `how`: one phrase for people."""

    path: bytes
    identity: Identity
    evidence: int
    how: str
    when: int


class JobState(StrEnum):
    BEGUN = "begun"
    SEALED = "sealed"
    FAILED = "failed"
    PROTECTED = "protected"
    INCOMPLETE = "incomplete"


class Member(msgspec.Struct, frozen=True, array_like=True):
    """A file of a backup job as its producer lists it. `size` -1 and an empty `digest`: not said. `digest` is
    ``sha256:HEX`` or another algorithm of hashlib. `seen`: the identity of the version that was compared, in the order
    of its fields; None where that is not what was listed."""

    path: bytes
    size: int = -1
    digest: str = ""
    seen: tuple[int, int, int, int, int] | None = None

    @property
    def identity(self) -> Identity | None:
        return None if self.seen is None else Identity(*self.seen)

    def as_seen(self, one: Identity) -> Member:
        return msgspec.structs.replace(self, seen=(one.device, one.inode, one.size, one.mtime_ns, one.ctime_ns))


_members = msgspec.msgpack.Decoder(tuple[Member, ...])
_problems = msgspec.msgpack.Decoder(tuple[str, ...])
_requires = msgspec.msgpack.Decoder(tuple[str, ...])
_told = msgspec.msgpack.Decoder(dict[str, int])


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupJobRow:
    """A run of a producer. `requires`: run ids of the same source this one is worth nothing without; `generation` and
    `made` are number and id of what holds it, 0 and empty before. Rows of an older release have no id."""

    source: str
    run: str
    state: JobState
    begun: int
    sealed: int = 0
    evidence: int = 0
    who: str = ""
    members: tuple[Member, ...] = ()
    problems: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    generation: int = 0
    made: bytes = b""

    def is_in(self, generation: bytes, number: int) -> bool:
        """Whether this generation is what holds it: by its id, since two hosts may have given one number to two."""
        return generation == self.made if self.made else number == self.generation


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmRow:
    """An open or closed condition. `told`: by name of a hook, 1 when it was told of the opening, 2 of both."""

    id: int
    kind: str
    subject: str
    what: str
    meaning: str
    advice: str
    opened: int
    closed: int | None = None
    told: dict[str, int] = field(default_factory=dict)


class ReleaseState(StrEnum):
    RELEASING = "releasing"
    """Renamed or about to be; a restart finishes or undoes it."""
    RELEASED = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedRow:
    path: bytes
    id: str
    size: int
    when: int
    state: ReleaseState


class Watching:
    """Part of `Catalog`. Thread-safe."""

    _database: Database

    # --- pending files -----------------------------------------------------------------------------------------------

    def replace_pending(self, source: str, rows: Sequence[PendingRow], total: int) -> None:
        """What is pending now; `total` counts also those that are not named."""
        with self._database.writing("pending") as connection:
            connection.execute(delete(schema.pending).filter_by(source=source))
            named = rows[:LIMIT_PENDING]
            put(
                connection,
                schema.pending,
                [(source, each.path, str(each.state), each.size, each.since, each.detail) for each in named],
            )
            put(connection, schema.meta, [(f"pending/{source}", str(total))])

    def pending(self, source: str) -> tuple[list[PendingRow], int]:
        """The named ones in the order of their paths, and how many there are."""
        with self._database.reading() as connection:
            found = connection.execute(
                select(schema.pending).filter_by(source=source).order_by(schema.pending.c.path)
            ).all()
            total = connection.execute(select(schema.meta.c.value).filter_by(key=f"pending/{source}")).scalar()
        rows = [
            PendingRow(path=row.path, state=PendingState(row.state), size=row.size, since=row.since, detail=row.detail)
            for row in found
        ]
        return rows, int(total or 0)

    # --- marks -------------------------------------------------------------------------------------------------------

    def add_marks(self, source: str, rows: Iterable[MarkRow]) -> None:
        """Stronger or newer evidence takes the place of what a path had; a weaker mark of the same version does not."""
        wanted = list(rows)
        with self._database.writing("mark") as connection:
            for row in wanted:
                old = connection.execute(select(schema.mark).filter_by(source=source, path=row.path)).first()
                if old is not None and _mark(old).identity == row.identity and old.evidence > row.evidence:
                    continue
                put(connection, schema.mark, [_mark_values(source, row)])

    def mark(self, source: str, path: bytes) -> MarkRow | None:
        with self._database.reading() as connection:
            row = connection.execute(select(schema.mark).filter_by(source=source, path=path)).first()
        return None if row is None else _mark(row)

    def marks(self, source: str) -> dict[bytes, MarkRow] | None:
        """All of a source by path; None where there are more than `LIMIT_MARKS`, to be asked for one by one."""
        statement = select(schema.mark).filter_by(source=source).limit(LIMIT_MARKS + 1)
        with self._database.reading() as connection:
            rows = connection.execute(statement).all()
        return None if len(rows) > LIMIT_MARKS else {row.path: _mark(row) for row in rows}

    def forget_marks(self, source: str, before_ms: int) -> None:
        """Of long ago: their files are in a generation, or gone."""
        with self._database.writing("mark") as connection:
            connection.execute(delete(schema.mark).filter_by(source=source).where(schema.mark.c.time < before_ms))

    # --- backup jobs -------------------------------------------------------------------------------------------------

    def put_job(self, row: BackupJobRow) -> None:
        values = (
            row.source, row.run, str(row.state), row.begun, row.sealed, row.evidence, row.who,
            msgspec.msgpack.encode(row.members), msgspec.msgpack.encode(row.problems),
            msgspec.msgpack.encode(row.requires), row.generation, row.made or None,
        )  # fmt: skip
        with self._database.writing("job") as connection:
            put(connection, schema.backup_job, [values])

    def job(self, source: str, run: str) -> BackupJobRow | None:
        with self._database.reading() as connection:
            row = connection.execute(select(schema.backup_job).filter_by(source=source, run=run)).first()
        return None if row is None else _job(row)

    def jobs(self, source: str, *states: JobState) -> list[BackupJobRow]:
        """In the order in which they were sealed, then begun; all states where none is named."""
        table = schema.backup_job
        statement = select(table).filter_by(source=source).order_by(table.c.sealed, table.c.begun, table.c.run)
        if states:
            statement = statement.where(table.c.state.in_([str(each) for each in states]))
        with self._database.reading() as connection:
            return [_job(row) for row in connection.execute(statement).all()]

    def forget_jobs(self, source: str, before_ms: int) -> None:
        """Of long ago, but those whose generation is still to come."""
        table = schema.backup_job
        with self._database.writing("job") as connection:
            connection.execute(
                delete(table)
                .filter_by(source=source)
                .where(table.c.begun < before_ms, table.c.state != str(JobState.SEALED))
            )

    # --- alarms ------------------------------------------------------------------------------------------------------

    def open_alarm(self, kind: str, subject: str, what: str, meaning: str, advice: str, when_ms: int) -> bool:
        """False: it is open already; its text then becomes what it is now."""
        table = schema.alarm
        same = (table.c.kind == kind) & (table.c.subject == subject) & table.c.closed.is_(None)
        texts = {"what": what, "meaning": meaning, "advice": advice}
        with self._database.writing("alarm") as connection:
            if connection.execute(update(table).where(same).values(**texts)).rowcount:
                return False
            told = msgspec.msgpack.encode({})
            row = {"kind": kind, "subject": subject, "opened": when_ms, "closed": None, "told": told, **texts}
            connection.execute(insert(table), row)
        return True

    def close_alarm(self, kind: str, subject: str, when_ms: int) -> bool:
        """False: it is not open. Then nothing is written, however often it is asked."""
        table = schema.alarm
        same = (table.c.kind == kind) & (table.c.subject == subject) & table.c.closed.is_(None)
        with self._database.reading() as connection:
            if connection.execute(select(table.c.id).where(same)).first() is None:
                return False
        with self._database.writing("alarm") as connection:
            return bool(connection.execute(update(table).where(same).values(closed=when_ms)).rowcount)

    def open_alarms(self) -> list[AlarmRow]:
        """The oldest first."""
        table = schema.alarm
        with self._database.reading() as connection:
            rows = connection.execute(select(table).where(table.c.closed.is_(None)).order_by(table.c.id)).all()
        return [_alarm(row) for row in rows]

    def alarms(self, limit: int = 100) -> list[AlarmRow]:
        """Open and closed ones, the newest first."""
        table = schema.alarm
        with self._database.reading() as connection:
            rows = connection.execute(select(table).order_by(table.c.id.desc()).limit(limit)).all()
        return [_alarm(row) for row in rows]

    def told(self, alarm: int, hook: str, level: int) -> None:
        """A hook was told of the opening (1) or of the closing (2) of an alarm."""
        table = schema.alarm
        with self._database.writing("alarm") as connection:
            row = connection.execute(select(table.c.told).filter_by(id=alarm)).first()
            if row is not None:
                told = _told.decode(row.told) | {hook: level}
                connection.execute(update(table).filter_by(id=alarm).values(told=msgspec.msgpack.encode(told)))

    def forget_alarms(self) -> None:
        """All closed ones but the newest."""
        table = schema.alarm
        newest = select(table.c.id).where(table.c.closed.is_not(None)).order_by(table.c.id.desc())
        with self._database.writing("alarm") as connection:
            bound = connection.execute(newest.limit(1).offset(KEPT_CLOSED_ALARMS)).scalar()
            if bound is not None:
                connection.execute(delete(table).where(table.c.closed.is_not(None), table.c.id <= bound))

    # --- released files ----------------------------------------------------------------------------------------------

    def put_released(self, source: str, row: ReleasedRow) -> None:
        with self._database.writing("released") as connection:
            put(connection, schema.released, [(source, row.path, row.id, row.size, row.when, str(row.state))])

    def remove_released(self, source: str, paths: Iterable[bytes]) -> None:
        keys = [(source, path) for path in paths]
        with self._database.writing("released") as connection:
            remove(connection, schema.released, keys)

    def released(self, source: str) -> list[ReleasedRow]:
        table = schema.released
        with self._database.reading() as connection:
            rows = connection.execute(select(table).filter_by(source=source).order_by(table.c.path)).all()
        return [
            ReleasedRow(path=row.path, id=row.id, size=row.size, when=row.time, state=ReleaseState(row.state))
            for row in rows
        ]


def _mark_values(source: str, row: MarkRow) -> Values:
    one = row.identity
    return (
        source, row.path, signed(one.device), signed(one.inode), one.size, one.mtime_ns, one.ctime_ns, row.evidence,
        row.how, row.when,
    )  # fmt: skip


def _mark(row: Any) -> MarkRow:
    identity = Identity(unsigned(row.device), unsigned(row.inode), row.size, row.mtime_ns, row.ctime_ns)
    return MarkRow(path=row.path, identity=identity, evidence=row.evidence, how=row.how, when=row.time)


def _job(row: Any) -> BackupJobRow:
    return BackupJobRow(
        source=row.source, run=row.run, state=JobState(row.state), begun=row.begun, sealed=row.sealed,
        evidence=row.evidence, who=row.who, members=_members.decode(row.members),
        problems=_problems.decode(row.problems), requires=_requires.decode(row.requires), generation=row.generation,
        made=row.made or b"",
    )  # fmt: skip


def _alarm(row: Any) -> AlarmRow:
    return AlarmRow(
        id=row.id, kind=row.kind, subject=row.subject, what=row.what, meaning=row.meaning, advice=row.advice,
        opened=row.opened, closed=row.closed, told=_told.decode(row.told),
    )  # fmt: skip
