"""Keeps one source protected: looks, notes what is pending, decides what is due, makes generations, raises alarms.

One thread calls `turn` again and again; docs/design/engine.md has the states. Nothing here waits: what is not due yet
is looked at again at the next turn.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

from gateway.api import GenerationInfo, Progress, ProgressCallback, RunReport, SourceIngest, no_progress
from gateway.catalog import GenerationRow, GenerationState, MarkRow, PendingRow
from gateway.clock import from_milliseconds, milliseconds
from gateway.config.values import SourceConfig, SourceKind
from gateway.errors import (
    GatewayError,
    LocalStateError,
    PartialError,
    SourceError,
    Stopped,
)
from gateway.jobs.alarms import Alarms
from gateway.jobs.backup import Tally
from gateway.jobs.barriers import Barrier
from gateway.jobs.changes import is_sure
from gateway.jobs.conditions import Conditions
from gateway.jobs.context import Context
from gateway.jobs.found import FoundJobs
from gateway.jobs.ingest import Ingest, shown_left_out
from gateway.jobs.mending import Tries
from gateway.jobs.pace import LOOK_SECONDS, Pace
from gateway.jobs.pending import rows_of
from gateway.jobs.release import Release
from gateway.jobs.runs import forget_gone, known_of_runs
from gateway.jobs.seal_files import SealFiles
from gateway.jobs.seals import Seals
from gateway.jobs.status import WATCHED_SINCE
from gateway.jobs.views import generation_info
from gateway.log import printable
from gateway.model.entry import Evidence, Identity, LeftOutReason
from gateway.policy.freshness import Sample
from gateway.spool.events import Events
from gateway.spool.watch import LIMIT_PENDING, Watch

RETRY_FIRST_SECONDS = 5.0
RETRY_MOST_SECONDS = 600.0
"""LIMIT: between two tries of a source whose last try failed: doubled from the first to the last of these."""
SAMPLE_SECONDS = 30.0
SAMPLES = 240
MARKS_DAYS = 30
JOBS_DAYS = 400


@dataclass(slots=True)
class Keeper:
    """Of one source. `operator`: who answers for generations the engine makes by itself: nobody."""

    context: Context
    source: SourceConfig
    alarms: Alarms
    conditions: Conditions = field(init=False)
    watch: Watch = field(init=False)
    seals: Seals = field(init=False)
    seal_files: SealFiles = field(init=False)
    release: Release = field(init=False)
    found: FoundJobs | None = field(init=False, default=None)
    barriers: list[Barrier] = field(init=False, default_factory=list)
    _events: Events | None = field(init=False, default=None)
    _noted: tuple[list[PendingRow], int] | None = field(init=False, default=None)
    _observing: threading.Lock = field(init=False, default_factory=threading.Lock)
    _told: dict[bytes, Identity] = field(init=False, default_factory=dict)
    _retry_at: float = field(init=False, default=float("-inf"))
    _failures: int = field(init=False, default=0)
    _made_at: float = field(init=False, default=float("-inf"))
    _swept: float = field(init=False, default=float("-inf"))
    _tries: Tries = field(init=False)
    _listener: ProgressCallback = field(init=False, default=no_progress)
    _modified: dict[bytes, Identity] = field(init=False, default_factory=dict)
    """Versions that were told of: what stands there is another than was sealed."""

    def __post_init__(self) -> None:
        self.conditions = Conditions(self.context, self.source, self.alarms)
        self.watch = Watch(self.source, self.context.clock, self._vouch)
        self.seals = Seals(self.context, self.source, self.alarms, self._tell)
        self.seal_files = SealFiles(self.source, self.seals, self.context.log, self._tell)
        self.release = Release(self.context, self.source, self._tell)
        self._tries = Tries(self.source.settle.total_seconds())
        if self.source.kind is SourceKind.JOB:
            self.found = FoundJobs(self.context, self.source, self.seals, self._tell)

    def _tell(self, progress: Progress) -> object:
        """What works for this keeper tells whoever turns it."""
        return self._listener(progress)

    # --- begin and end -----------------------------------------------------------------------------------------------

    def close_old_alarms(self) -> None:
        self.conditions.begin()

    def start(self) -> None:
        """Finish what a kill left, and begin to watch."""
        if self.context.catalog.meta(WATCHED_SINCE + self.source.name) is None:
            now = milliseconds(self.context.clock.now())
            self.context.catalog.set_meta(WATCHED_SINCE + self.source.name, str(now))
        try:
            self.release.recover()
        except (OSError, GatewayError) as error:
            self.context.log.warning("release.not_recovered", source=self.source.name, problem=str(error))
        self._watch_events()

    def _watch_events(self) -> None:
        try:
            self._events = Events(self.source.path, self.watch)
        except OSError as error:
            self._events = None
            if self.source.path.is_dir():
                what = f"The kernel gives no events for {self.source.path}: {error.strerror or error}."
                self.conditions.no_events(what)

    def stop(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    @property
    def samples(self) -> list[Sample]:
        return self.conditions.samples

    # --- one turn ----------------------------------------------------------------------------------------------------

    def turn(self, progress: ProgressCallback) -> bool:
        """Whatever is due. True: something was done that took time."""
        self._listener = progress
        now = self.context.clock.monotonic()
        try:
            worked = self._look(now)
            if now < self._retry_at and not self.barriers:
                return worked
            made = self._make_what_is_due(progress)
            self._well(worked=made)
            return worked or made
        except Stopped:
            raise
        except Exception as caught:  # noqa: BLE001  (what is wrong with one source must not leave the others alone)
            error = caught if isinstance(caught, GatewayError) else _defect(self.source.name, caught)
            self._failed(error)
            # Not at once again: nothing may wait meanwhile, and whoever waits is told.
            self.watch.rescan_at = max(self.watch.rescan_at, self._retry_at)
            while self.barriers:  # one by one: the door adds to this very list
                each = self.barriers.pop()
                each.error, each.done = error, True
            return False
        finally:
            self._note_pending()

    def observe(self) -> None:
        """What can be said at any time, also while a pass stands still because the store does: how full the spool is,
        and how old the newest generation. From any thread."""
        with self._observing:
            self.conditions.observe(self.watch)
            self._forget_old()

    def _look(self, now: float) -> bool:
        self.watch.tick()
        if (gone := self.watch.take_gone()) and not self._is_away():
            self.conditions.deleted(gone)
        self.seal_files.look()
        if now < self.watch.rescan_at and not any(each.wanted is None for each in self.barriers):
            return False
        if self._events is not None and (self._events.lost or (self._events.refused and self._events.may_watch_more())):
            self.stop()
        if self._events is None:
            self._watch_events()
        if self._events is not None:
            self.conditions.watched(self._events.refused)
        # Only those that were there before the walk: what was written before a later one may lie where it has been.
        asked = [each for each in self.barriers if each.wanted is None]
        self._rescan()
        self.watch.rescan_at = self.context.clock.monotonic() + self.context.config.engine.rescan.total_seconds()
        self.observe()
        self._tell_of_changed_seals()
        if asked:
            self.watch.try_again()
        for barrier in asked:
            barrier.want(self.watch, self.context.clock.monotonic())
        return True

    def _rescan(self) -> None:
        pace = Pace(self.context.clock, self._listener, "looking", "entries", LOOK_SECONDS)
        self.watch.rescan(self._known(), pace.over)

    def _is_away(self) -> bool:
        """Whether the source as a whole is not there, or another directory in its place: then no file was deleted."""
        return self._events.lost if self._events is not None else not self.source.path.is_dir()

    def _tell_of_changed_seals(self) -> None:
        """A file that was sealed and is another now: the sealed version stays what it is, but somebody should know."""
        marks = self.context.catalog.marks(self.source.name) if self.watch.pending else {}
        told, self._modified = self._modified, {}
        for path, each in self.watch.pending.items():
            mark = (marks or {}).get(path)
            if mark is None or mark.evidence != Evidence.SEAL or mark.identity == each.identity:
                continue
            self._modified[path] = each.identity
            if told.get(path) != each.identity:
                self.context.log.warning("file.modified_after_seal", source=self.source.name, path=printable(path),
                                         how=mark.how)  # fmt: skip

    def _known(self) -> Iterator[tuple[bytes, Identity, bool]]:
        """What the newest generation read, and whether a walk can tell that it has not changed since."""
        catalog, name = self.context.catalog, self.source.name
        of_jobs = self.source.kind is SourceKind.JOB
        for known in known_of_runs(catalog, name) if of_jobs else catalog.known_files(name):
            yield known.key, known.identity, is_sure(known)

    def _make_what_is_due(self, progress: ProgressCallback) -> bool:
        worked = False
        ready = [each for each in self.barriers if self._is_ready(each)]
        if self.found is not None:
            self.found.look(self.watch)
        for row in self.seals.waiting():
            run, report = self._ingest_run(row.run, progress)
            worked = True
            for each in self.barriers:
                each.saw(report)
            for each in ready if self.source.kind is SourceKind.FILES and not run.problems else ():
                # It holds the whole spool, so it answers whoever waits for what was written before.
                if not (each.seal_now or each.new_chain):
                    each.answer(report, self.watch)
        self._forget_answered()
        ready = [each for each in ready if not each.done]
        if self.source.kind is SourceKind.JOB:
            self._answer_of_jobs(ready)
        elif self._answer(ready, progress):
            worked = True
        elif self._due():
            self._ingest(progress)
            worked = True
        if worked:
            self._release()
        return worked

    def once(self, progress: ProgressCallback) -> list[SourceIngest]:
        """For who runs no engine: look twice with the settle time between, and make what is complete then. The last
        report of a source of kind `job` names what is in none."""
        self._listener = progress
        made = [self._ingest_run(row.run, progress)[1] for row in self.seals.waiting()]
        if self.found is None:
            return made
        self._rescan()
        self.found.look(self.watch)
        total = round(self.source.settle.total_seconds())
        until = self.context.clock.monotonic() + total
        while (rest := until - self.context.clock.monotonic()) > 0 and self.watch.pending:
            progress(Progress(phase="settling", done=max(0, total - round(rest)), total=total, unit="seconds"))
            self.context.clock.sleep(min(rest, 1.0))
        self._rescan()
        self.found.look(self.watch)
        made += [self._ingest_run(row.run, progress)[1] for row in self.seals.waiting()]
        last, named = made.pop() if made else SourceIngest(source=self.source.name), set[bytes]()
        for report in (*made, last):
            named.update(each.path for each in report.held_back)
        held = self._held_of_jobs(named)
        return [*made, replace(last, held_back=last.held_back + shown_left_out(held.left_out),
                               held_back_more=last.held_back_more + held.more)]  # fmt: skip

    def _held_of_jobs(self, named: Container[bytes] = ()) -> Tally:
        """What is in no generation when every job that is whole has been made: what is held back, and what belongs to
        none. Without what was `named` already."""
        tally = Tally()
        for left in self.watch.left_out(LeftOutReason.IN_NO_JOB):
            if left.path not in named:
                tally.leave_out(left)
        return tally

    # --- generations -------------------------------------------------------------------------------------------------

    def _due(self) -> bool:
        """Whether something may be taken, or the newest generation is to be mended, and the interval since it has
        passed."""
        news, now = self.watch.overflowed or self.watch.candidates(), self.context.clock.monotonic()
        if not news and not self._tries.may_look(now):
            return False
        newest = self._newest_row()
        if newest is None or news:
            return news and (newest is None or self._is_interval_over(newest))
        incomplete = newest.state is GenerationState.INCOMPLETE
        return self._tries.looked(now, incomplete=incomplete, may_begin=self._is_interval_over(newest))

    def _is_interval_over(self, newest: GenerationRow) -> bool:
        age, interval = self.context.clock.now() - from_milliseconds(newest.cut), self.source.generation_interval
        if age < timedelta(0):  # the clock was set back: what this engine remembers counts
            return self.context.clock.monotonic() - self._made_at >= interval.total_seconds()
        return age >= interval

    def _ingest(self, progress: ProgressCallback, **how: object) -> SourceIngest:
        seal_now, new_chain = bool(how.get("seal_now")), bool(how.get("new_chain"))
        report = Ingest(
            self.context, self.source, seal_now=seal_now, new_chain=new_chain, operator=str(how.get("operator", "")),
            progress=progress, watch=self.watch,
        ).run()  # fmt: skip
        self._passed(report)
        self._made(report)
        return report

    def _passed(self, report: SourceIngest) -> None:
        """Sources take turns: who wonders why one had to wait finds in the log what the others took."""
        self.context.log.info("pass.ended", source=self.source.name, seconds=round(report.seconds, 3),
                              generation=report.generation.number if report.generation else None)  # fmt: skip
        self.watch.passed()
        self.conditions.check_disk(self.watch)
        if self.watch.overflowed:
            # Nothing told this watch what that pass took; what is pending now, only a rescan can tell.
            self.watch.rescan_at = float("-inf")

    def _made(self, report: SourceIngest) -> None:
        if report.generation is None:
            return
        self._made_at = self.context.clock.monotonic()
        name = self.source.name
        self.conditions.made(report.generation)
        self.context.catalog.audit("engine", "ingest", milliseconds(self.context.clock.now()),
                                   f"{name}@{report.generation.number}")  # fmt: skip
        if str(report.generation.state) != "protected":
            self._tries.rest(self._made_at)

    def _ingest_run(self, run: str, progress: ProgressCallback) -> tuple[RunReport, SourceIngest]:
        """The generation of a sealed run."""
        row = self.context.catalog.job(self.source.name, run)
        assert row is not None
        for path, identity in self.seals.sealed(row).items():
            self.watch.sure(path, identity)
        if self.found is not None:
            row = self.found.describe(row, self.watch)
        with self.seals.kept(row) as job:
            ingest = Ingest(
                self.context, self.source, seal_now=False, new_chain=False, operator="", progress=progress,
                watch=self.watch, job=job,
            )  # fmt: skip
            report = ingest.run()
        self._passed(report)
        self._made(report)
        generation = report.generation or ingest.stands
        protected = not row.problems and generation is not None and str(generation.state) == "protected"
        return self.seals.made(row, generation, ingest.missing, protected=protected), report

    def _answer(self, ready: list[Barrier], progress: ProgressCallback) -> bool:
        """Barriers whose files have settled get their generation. True: a pass was made."""
        if not ready:
            return False
        first = ready[0]
        try:
            report = self._ingest(progress, seal_now=first.seal_now, new_chain=first.new_chain, operator=first.operator)
            for each in ready:
                if (each.seal_now, each.new_chain) == (first.seal_now, first.new_chain):
                    each.answer(report, self.watch)
        except GatewayError as error:
            for each in ready:
                each.error, each.done = error, True
            raise
        finally:
            self._forget_answered()
        return True

    def _is_ready(self, barrier: Barrier) -> bool:
        if barrier.seal_now or (self.watch.overflowed and self.found is None):  # a pass takes two looks of its own
            return True
        if barrier.wanted is None:
            return False
        waits = self.watch.overflowed or any(self._waits(path) for path in barrier.wanted)
        return not waits or self.context.clock.monotonic() >= barrier.deadline

    def _waits(self, path: bytes) -> bool:
        each = self.watch.pending.get(path)
        if each is None or each.held is not None:
            return False
        return not self.watch.settled(path, each.identity)

    def _forget_answered(self) -> None:
        """One by one, since others append meanwhile: a list made anew could lose a barrier that just came."""
        for each in [each for each in self.barriers if each.done]:
            self.barriers.remove(each)

    def _answer_of_jobs(self, ready: list[Barrier]) -> None:
        """Every job that was whole when its barrier was ready has been made by now; what is left belongs to none."""
        if not ready:
            return
        if self.watch.overflowed:
            for each in ready:
                each.error, each.done = _too_many(self.source.name), True
            self._forget_answered()
            return
        tally = self._held_of_jobs()
        report = SourceIngest(
            source=self.source.name, generation=self._newest(), held_back=shown_left_out(tally.left_out),
            held_back_more=tally.more,
        )  # fmt: skip
        for each in ready:
            each.answer(report, self.watch)
        self._forget_answered()

    def _newest_row(self) -> GenerationRow | None:
        rows = self.context.catalog.generations(self.source.name)
        return max(rows, key=lambda row: row.number, default=None)

    def _newest(self) -> GenerationInfo | None:
        newest = self._newest_row()
        return None if newest is None else generation_info(newest, self.context.catalog)

    # --- afterwards --------------------------------------------------------------------------------------------------

    def _release(self) -> None:
        if self.source.release.keep_generations is None:
            return
        try:
            self.release.run(dry_run=False)
        except OSError as error:
            self.context.log.warning("release.failed", source=self.source.name, problem=str(error))

    def _vouch(self, path: bytes, identity: Identity, evidence: Evidence, how: str) -> None:
        now = milliseconds(self.context.clock.now())
        mark = MarkRow(path=path, identity=identity, evidence=int(evidence), how=_storable(how), when=now)
        self.context.catalog.add_marks(self.source.name, [mark])

    # --- trouble -----------------------------------------------------------------------------------------------------

    def _failed(self, error: GatewayError) -> None:
        self._failures += 1
        pause = min(RETRY_MOST_SECONDS, RETRY_FIRST_SECONDS * 2 ** (self._failures - 1))
        self._retry_at = self.context.clock.monotonic() + pause
        self.context.log.error("ingest.failed", source=self.source.name, problem=str(error), again_in=pause)
        try:
            self.conditions.failed(error)
        except LocalStateError as full:  # the very disk that the table of alarms is on: the log has it
            self.context.log.error("alarm.not_kept", source=self.source.name, problem=str(full))

    def _well(self, *, worked: bool) -> None:
        self._failures, self._retry_at = 0, float("-inf")
        self.conditions.well(worked=worked)

    def _forget_old(self) -> None:
        now = self.context.clock.monotonic()
        if now - self._swept < 3600:
            return
        self._swept = now
        wall, day = milliseconds(self.context.clock.now()), 86_400_000
        self.context.catalog.forget_marks(self.source.name, wall - MARKS_DAYS * day)
        self.context.catalog.forget_jobs(self.source.name, wall - JOBS_DAYS * day)
        self.context.catalog.forget_alarms()
        if self.source.kind is SourceKind.JOB:
            forget_gone(self.context.catalog, self.source.name, os.fsencode(self.source.path))

    # --- what is pending, for people ---------------------------------------------------------------------------------

    def _note_pending(self) -> None:
        """Write it down where it changed."""
        now = rows_of(self.watch)
        if now != self._noted:
            try:
                self.context.catalog.replace_pending(self.source.name, *now)
                self._noted = now
            except LocalStateError as error:  # it is only for people to see
                self.context.log.warning("pending.not_noted", source=self.source.name, problem=str(error))


def _defect(source: str, error: Exception) -> GatewayError:
    return SourceError(
        f"Source {source} could not be looked at: {type(error).__name__}: {error}.",
        meaning="Nothing new of it is protected; other sources are not affected.",
        advice="Look at its directory and its disk. If they are well, this is a defect: report it with the log.",
    )


def _too_many(source: str) -> GatewayError:
    return PartialError(
        f"More files of {source} are in no generation than can be named: {LIMIT_PENDING:,}.",
        meaning="Jobs that are whole are protected; whether all that was written belongs to one cannot be told.",
        advice="See `gateway status`: finish or delete the jobs that are not whole, and ask again.",
    )


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
