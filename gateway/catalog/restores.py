"""Restore jobs and where each of their packs is.

Local: without these rows a restore that waited must be asked for again. Nothing is thawed twice for that: the store
itself says what is thawed. What was delivered stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, select

from gateway.api import RestoreState
from gateway.catalog import schema
from gateway.catalog.database import Database
from gateway.catalog.writes import put
from gateway.model.ids import ChainName
from gateway.policy.thaw import Stage

KEPT_RESTORES = 1_000
"""LIMIT: restore jobs that came to their end and are kept, the newest."""


class RestoreOrder(msgspec.Struct, frozen=True, array_like=True):
    """What was asked for. `deadline`: ms, 0: none; `budget`: a decimal, empty: none; `tier` empty: the job chooses.
    `fresh`: there was nothing at the target, so that every directory there is the job's. `by_command`: whoever asked
    carries it out, too, and no engine does."""

    target: bytes
    paths: tuple[bytes, ...] = ()
    overwrite: bool = False
    incomplete: bool = False
    tier: str = ""
    deadline: int = 0
    budget: str = ""
    operator: str = ""
    fresh: bool = False
    by_command: bool = False


class RestorePlanned(msgspec.Struct, frozen=True, array_like=True):
    """What the plan came to. `amount`: a decimal, empty: not known; `most`: at whatever hour copies are asked for.
    `ends`: see `policy.thaw.Waves`. `approved_by`: who approved that amount, and up to `most`; empty: nobody."""

    files: int = 0
    size: int = 0
    packs: int = 0
    cold_packs: int = 0
    cold_bytes: int = 0
    fetch_bytes: int = 0
    requests: int = 0
    scratch: int = 0
    tier: str = ""
    amount: str = ""
    currency: str = ""
    seconds: int = -1
    days: int = 0
    bytes_per_second: int = 0
    ends: tuple[int, ...] = ()
    items: int = 0
    approved_by: str = ""
    most: str = ""


class RestoreDone(msgspec.Struct, frozen=True, array_like=True):
    """What was done so far. `spent`: how much of each priced thing (`item|class|tier`) was used: requests, bytes, or
    bytes times seconds. `phases`: ms in each; `since`: when it began (ms). `wave`: the first that is not delivered;
    `opened`: its delivery began. `refused`: thaws for which there was no capacity. `problem`: the class of the error
    that paused or ended it."""

    files: int = 0
    written: int = 0
    wave: int = 0
    opened: bool = False
    since: int = 0
    refused: int = 0
    spent: dict[str, int] = {}
    phases: dict[str, int] = {}
    left_out: tuple[tuple[bytes, str], ...] = ()
    left_out_more: int = 0
    notes: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreJobRow:
    """`wake`: ms, not before that is anything to be done. `reason`: why it waits, failed or was stopped."""

    id: str
    source: str
    number: int
    chain: ChainName
    generation: bytes
    state: RestoreState
    created: int
    updated: int
    order: RestoreOrder
    planned: RestorePlanned = field(default_factory=RestorePlanned)
    done: RestoreDone = field(default_factory=RestoreDone)
    reason: str = ""
    wake: int = 0

    @property
    def alone(self) -> bool:
        """Nothing of it is thawed, and only the command that asked for it carries it out. If that is killed, nobody
        goes on with it unasked: whoever waited for the files has long begun to use others in their place.
        """
        return self.order.by_command and not self.planned.cold_packs


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePackRow:
    """`ranges`: what is read of the pack (start, end). `asked`, `until`: ms, 0: never, not known. `asks`: this job's
    requests to thaw it since it was cold: one that is COLD and has some thaws, but too slowly. `wave`, `last`: the
    first and the last wave that needs it. `storage_class`: where it was when planned.
    """

    number: int
    stage: Stage
    wave: int
    last: int
    size: int
    storage_class: str
    ranges: tuple[tuple[int, int], ...]
    tier: str = ""
    asked: int = 0
    until: int = 0
    asks: int = 0

    @property
    def fetch_bytes(self) -> int:
        return sum(end - start for start, end in self.ranges)


_order = msgspec.msgpack.Decoder(RestoreOrder)
_planned = msgspec.msgpack.Decoder(RestorePlanned)
_done = msgspec.msgpack.Decoder(RestoreDone)
_ranges = msgspec.msgpack.Decoder(tuple[tuple[int, int], ...])
_pack = msgspec.msgpack.encode


class Restores:
    """Part of `Catalog`. Thread-safe."""

    _database: Database

    def put_restore(self, row: RestoreJobRow, packs: Iterable[RestorePackRow] = ()) -> None:
        """A job as it is now, and those of its packs that changed, at once."""
        with self._database.writing("restore") as connection:
            put(connection, schema.restore_job, [_job_values(row)])
            put(connection, schema.restore_pack, [_pack_values(row.id, each) for each in packs])

    def carry_restore(
        self, seen: RestoreJobRow, row: RestoreJobRow, packs: Iterable[RestorePackRow] = ()
    ) -> RestoreJobRow | None:
        """A runner's note: `seen` is what it knew, `row` what it makes of it.

        What somebody else wrote since stands, and of the note then only what was done is kept; packs that are to be
        asked for again stay so. The row as it is now; None: there is none any more.
        """
        jobs, table, changed = schema.restore_job, schema.restore_pack, list(packs)
        with self._database.writing("restore") as connection:
            found = connection.execute(select(jobs).filter_by(id=row.id)).first()
            if found is None:
                return None
            now = _job(found)
            if (now.state, now.order, now.planned) != (seen.state, seen.order, seen.planned):
                row = _by_runner(now, row)
                again = {
                    each.number
                    for each in connection.execute(select(table.c.number).filter_by(job=row.id, stage=str(Stage.COLD)))
                }
                changed = [e for e in changed if not (e.stage is Stage.THAWING and e.number in again)]
            put(connection, jobs, [_job_values(row)])
            put(connection, table, [] if now.state.ended else [_pack_values(row.id, each) for each in changed])
        return row

    def change_restore(
        self, seen: RestoreJobRow, row: RestoreJobRow, again: Iterable[RestorePackRow] = ()
    ) -> RestoreJobRow | None:
        """What a person makes of a job: `seen` is what it was when that was decided. What a runner has done since is
        kept. `again`: thaws to be asked for again, where they still go on.

        The row as it is now; None: it is another job by now (ended, paused, of other terms), and nothing was changed.
        """
        jobs, table = schema.restore_job, schema.restore_pack
        with self._database.writing("restore") as connection:
            found = connection.execute(select(jobs).filter_by(id=row.id)).first()
            now = _job(found) if found is not None else None
            if now is None or (now.state, now.order, now.planned) != (seen.state, seen.order, seen.planned):
                return None
            row = replace(row, done=msgspec.structs.replace(now.done, problem=row.done.problem))
            put(connection, jobs, [_job_values(row)])
            if row.state.ended:
                _end(connection, row)
            else:
                going = select(table.c.number).filter_by(job=row.id, stage=str(Stage.THAWING))
                numbers = {each.number for each in connection.execute(going)}
                put(connection, table, [_pack_values(row.id, each) for each in again if each.number in numbers])
        return row

    def restore(self, job: str) -> RestoreJobRow | None:
        with self._database.reading() as connection:
            row = connection.execute(select(schema.restore_job).filter_by(id=job)).first()
        return None if row is None else _job(row)

    def restores(self, states: Sequence[RestoreState] = ()) -> list[RestoreJobRow]:
        """The oldest first; all states where none is named."""
        table = schema.restore_job
        statement = select(table).order_by(table.c.created, table.c.id)
        if states:
            statement = statement.where(table.c.state.in_([str(each) for each in states]))
        with self._database.reading() as connection:
            return [_job(row) for row in connection.execute(statement).all()]

    def restore_packs(self, job: str) -> list[RestorePackRow]:
        table = schema.restore_pack
        with self._database.reading() as connection:
            rows = connection.execute(select(table).filter_by(job=job).order_by(table.c.number)).all()
        return [
            RestorePackRow(
                number=row.number, stage=Stage(row.stage), wave=row.wave, last=row.last, size=row.size,
                storage_class=row.storage_class, ranges=_ranges.decode(row.ranges), tier=row.tier, asked=row.asked,
                until=row.until, asks=row.asks,
            )
            for row in rows
        ]  # fmt: skip

    def other_thaws(self, job: str, chain: ChainName) -> dict[int, RestorePackRow]:
        """What other jobs have asked for or thawed of a chain: by pack, the one that lasts longest."""
        jobs, table = schema.restore_job, schema.restore_pack
        statement = (
            select(table)
            .join(jobs, jobs.c.id == table.c.job)
            .where(jobs.c.id != job, jobs.c.group_name == chain.group, jobs.c.chain == chain.number)
            .where(table.c.stage.in_([str(Stage.THAWING), str(Stage.READY)]), table.c.asked > 0)
            .order_by(table.c.asked)
        )
        with self._database.reading() as connection:
            rows = connection.execute(statement).all()
        return {
            row.number: RestorePackRow(
                number=row.number, stage=Stage(row.stage), wave=0, last=0, size=row.size,
                storage_class=row.storage_class, ranges=(), tier=row.tier, asked=row.asked, until=row.until,
            )
            for row in rows
        }  # fmt: skip

    def end_restore(self, row: RestoreJobRow, seen: RestoreJobRow | None = None) -> RestoreJobRow | None:
        """A job that came to its end: where its packs were is not needed any more. The oldest ended ones go.

        With `seen`, a runner's note as in `carry_restore`: what somebody else wrote since stands.
        """
        with self._database.writing("restore") as connection:
            if seen is not None:
                found = connection.execute(select(schema.restore_job).filter_by(id=row.id)).first()
                now = _job(found) if found is not None else None
                if now is None:
                    return None
                if (now.state, now.order, now.planned) != (seen.state, seen.order, seen.planned):
                    row = _by_runner(now, row)
            put(connection, schema.restore_job, [_job_values(row)])
            if row.state.ended:
                _end(connection, row)
        return row


def _by_runner(now: RestoreJobRow, row: RestoreJobRow) -> RestoreJobRow:
    """What somebody else wrote, with what the runner has done."""
    return replace(now, done=msgspec.structs.replace(row.done, problem=now.done.problem), updated=row.updated)


def _end(connection: Connection, row: RestoreJobRow) -> None:
    table = schema.restore_job
    ended = [str(each) for each in RestoreState if each.ended]
    newest = select(table.c.created).where(table.c.state.in_(ended)).order_by(table.c.created.desc())
    connection.execute(delete(schema.restore_pack).filter_by(job=row.id))
    bound = connection.execute(newest.limit(1).offset(KEPT_RESTORES)).scalar()
    if bound is not None:
        connection.execute(delete(table).where(table.c.state.in_(ended), table.c.created <= bound))


def _job_values(row: RestoreJobRow) -> tuple[Any, ...]:
    return (
        row.id, row.source, row.number, row.chain.group, row.chain.number, row.generation, str(row.state), row.created,
        row.updated, row.wake, row.reason, _pack(row.order), _pack(row.planned), _pack(row.done),
    )  # fmt: skip


def _pack_values(job: str, row: RestorePackRow) -> tuple[Any, ...]:
    return (
        job, row.number, str(row.stage), row.wave, row.last, row.size, row.storage_class, _pack(row.ranges), row.tier,
        row.asked, row.until, row.asks,
    )  # fmt: skip


def _job(row: Any) -> RestoreJobRow:
    return RestoreJobRow(
        id=row.id, source=row.source, number=row.number, chain=ChainName(row.group_name, row.chain),
        generation=row.generation, state=RestoreState(row.state), created=row.created, updated=row.updated,
        order=_order.decode(row.order), planned=_planned.decode(row.planned), done=_done.decode(row.done),
        reason=row.reason, wake=row.wake,
    )  # fmt: skip
