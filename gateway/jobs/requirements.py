"""What backup jobs say of one another: which generations hold what a job requires; these stay while it is made.

What a producer said of a job (`Told`) is kept in the catalog from the moment the job was found until it is protected,
and stands in the commit from then on, so that the bucket is enough to resolve what a later job requires. A requirement
is met by protected generations only. One that is not met leaves the generation incomplete, and is asked for again when
there are other generations.

CRASH: a hold that a kill left is found by its words when the run is made again, and ends with the generation.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

import msgspec

from gateway.api import ProgressCallback, no_progress
from gateway.catalog import GenerationRow, GenerationState
from gateway.config.values import SourceConfig, SourceKind
from gateway.errors import IntegrityError
from gateway.format import log
from gateway.format.log import BackupJob
from gateway.jobs.backup_job import Required
from gateway.jobs.context import Context
from gateway.jobs.pace import Pace
from gateway.jobs.retain import append, closure, take_back
from gateway.model.entry import Identity
from gateway.model.ids import ChainName
from gateway.spool.producers.base import JobKey, JudgedJob, LogFile, Producer, Span
from gateway.spool.producers.choice import KNOW_LOGS
from gateway.spool.producers.view import DirectoryView

WHO = "gateway"
KIT_CHARACTERS = 64 * 1024
FACTS, FACT_CHARACTERS = 100, 1000
"""LIMIT: of what a producer says of a job; an entry of the log is small."""


class Want(msgspec.Struct, frozen=True):
    """Another job by its key, or a stretch of a log."""

    text: str
    key: str = ""
    line: str = ""
    start: int = 0
    end: int = 0


class Told(msgspec.Struct, frozen=True):
    """What a producer says of a job. `place`: its name in the source."""

    producer: str
    place: bytes
    keys: tuple[str, ...] = ()
    provides: tuple[tuple[str, int, int], ...] = ()
    wants: tuple[Want, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    kit: str = ""

    def said(self, run: str, lacks: Sequence[str]) -> BackupJob:
        return BackupJob(
            run=run, producer=self.producer, keys=self.keys, provides=self.provides, lacks=tuple(lacks),
            facts=self.facts, kit=self.kit,
        )  # fmt: skip


def told_of(producer: Producer, judged: JudgedJob) -> Told | None:
    """None: its files speak for themselves."""
    kit = producer.restore_kit(judged)
    if not (kit or judged.keys or judged.provides or judged.requires or judged.facts):
        return None
    wants = []
    for each in judged.requires:
        if isinstance(each, JobKey):
            wants.append(Want(text=each.text or each.key, key=each.key))
        else:
            wants.append(Want(text=each.text or each.series, line=each.series, start=each.start, end=each.end))
    return Told(
        producer=producer.name, place=judged.found.name, keys=judged.keys,
        provides=tuple((each.series, each.start, each.end) for each in judged.provides), wants=tuple(wants),
        facts=tuple((name, _storable(value)[:FACT_CHARACTERS]) for name, value in judged.facts[:FACTS]),
        kit=_storable(kit)[:KIT_CHARACTERS],
    )  # fmt: skip


class Requirements:
    """Of the jobs of one source. For the thread that keeps it."""

    def __init__(self, context: Context, source: SourceConfig, tell: ProgressCallback = no_progress) -> None:
        self._context = context
        self._tell = tell
        self._source = source
        self._holds: dict[Required, bytes] = {}
        self._producers = KNOW_LOGS

    # --- what was said -----------------------------------------------------------------------------------------------

    def note(self, run: str, told: Told | None) -> None:
        """None: it is not needed any more."""
        text = None if told is None else msgspec.json.encode(told).decode()
        if told is not None or self._context.catalog.meta(self._key(run)) is not None:
            self._context.catalog.set_meta(self._key(run), text)

    def told(self, run: str) -> Told | None:
        text = self._context.catalog.meta(self._key(run))
        return None if text is None else msgspec.json.decode(text, type=Told)

    def _key(self, run: str) -> str:
        return f"told/{self._source.name}/{run}"

    # --- what meets it -----------------------------------------------------------------------------------------------

    def resolve(self, wants: Sequence[Want]) -> tuple[list[Required], list[str]]:
        """The generations that hold what is wanted, and in words what none holds."""
        found: dict[bytes, Required] = {}
        lacks: list[str] = []
        jobs = list(self._jobs()) if wants else []
        for want in wants:
            rows = self._by_key(want, jobs) if want.key else self._by_line(want, jobs)
            if not rows:
                lacks.append(f"it requires {want.text}, which no protected generation holds")
            for row in rows:
                found[row.generation] = (row.chain.group, row.chain.number, row.generation)
        return list(found.values()), lacks

    def _jobs(self) -> Iterator[tuple[GenerationRow, BackupJob]]:
        """Backup jobs that protected generations hold: of this source first, the newest first."""
        names = [self._source.name]
        names += [
            each.name
            for each in self._context.config.sources
            if each.kind is SourceKind.JOB and each.name != self._source.name
        ]
        for name in names:
            rows = {row.generation: row for row in self._protected(name)}
            states = []
            for chain in self._context.refresh(name) if rows else ():
                states += [state for state in chain.fold.generations.values() if state.commit.generation in rows]
            for state in sorted(states, key=lambda each: each.commit.number, reverse=True):
                for job in log.jobs_of(state.commit):
                    yield rows[state.commit.generation], job

    def _protected(self, source: str) -> list[GenerationRow]:
        rows = self._context.catalog.generations(source)
        return [row for row in rows if row.state is GenerationState.PROTECTED]

    @staticmethod
    def _by_key(want: Want, jobs: list[tuple[GenerationRow, BackupJob]]) -> list[GenerationRow]:
        return [row for row, job in jobs if want.key in job.keys][:1]

    def _by_line(self, want: Want, jobs: list[tuple[GenerationRow, BackupJob]]) -> list[GenerationRow]:
        """As few generations as hold all of a stretch; none where a part of it is nowhere."""
        held = [
            (row, start, end) for row, job in jobs for line, start, end in job.provides if line == want.line
        ]  # fmt: skip
        rows = _cover(want, held)
        return rows or _cover(want, held + list(self._in_files(want)))

    def _in_files(self, want: Want) -> Iterator[tuple[GenerationRow, int, int]]:
        """Log files of sources of kind "files": as the newest generation read them, and as they lie in the spool."""
        catalog, pace = self._context.catalog, Pace(self._context.clock, self._tell, "judging")
        for source in self._context.config.sources:
            rows = self._protected(source.name) if source.kind is SourceKind.FILES else []
            newest = max(rows, key=lambda row: row.number, default=None)
            if newest is None or catalog.known_generation(source.name) != newest.generation:
                continue
            line = Span(series=want.line, start=want.start, end=want.end)
            root = os.fsencode(source.path)
            for producer in self._producers:
                files = (LogFile(each.path, each.identity) for each in catalog.known_files(source.name))
                there = (each for each in files if producer.may_hold(each, line) and _is_there(root, each))
                view = DirectoryView(source.path, step=pace.step)
                for start, end in producer.log_held(view, there, line):
                    yield newest, start, end

    # --- while it is made --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def kept(self, run: str, required: Sequence[Required]) -> Iterator[frozenset[Required]]:
        """They are held until the end; gives those that had gone before.

        Holds are this gateway's own, since another one may be making the same run, and end its own at any moment.
        CRASH: those that a kill left have the same words. They end when the generation is there, which keeps what it
        requires from then on: should one of them be another gateway's after all, nothing goes by it.
        """
        try:
            yield self.lost(run, required)
            for group, number, generation in required:
                chain = ChainName(group, number)
                for each in self._context.catalog.holds(chain):
                    if (each.generation, each.who, each.why) == (generation, WHO, self._why(run)):
                        take_back(self._context, chain, each.hold, WHO, "it is made")
        finally:
            holds, self._holds = self._holds, {}
            for (group, number, _), hold in holds.items():
                take_back(self._context, ChainName(group, number), hold, WHO, "it is made")

    def lost(self, run: str, required: Sequence[Required]) -> frozenset[Required]:
        """Those that are not protected, as their logs say now; all others are held. Asked again just before the commit:
        a hold that somebody has ended meanwhile is made anew.
        """
        gone: set[Required] = set()
        for each in required:
            try:
                self._hold(each, self._why(run))
            except IntegrityError as error:
                chain = str(ChainName(each[0], each[1]))
                self._context.log.error("requirement.not_held", run=run, chain=chain, problem=str(error))
                gone.add(each)
        rows = {row.generation: row for row in self._context.catalog.generations()}
        for each in required:
            row = rows.get(each[2])
            if row is None or any(one.state is not GenerationState.PROTECTED for one in closure(row, rows)):
                gone.add(each)
        return frozenset(gone)

    def _why(self, run: str) -> str:
        return f"run {run} of {self._source.name}, which is being made, requires it"

    def _hold(self, required: Required, why: str) -> None:
        """By its log, and not by what the catalog has of it."""
        group, number, generation = required
        chain = self._context.open_chain(ChainName(group, number))
        self._context.record(chain, chain.list_packs())
        if self._holds.get(required) in chain.fold.holds:
            return
        state = chain.fold.generations.get(generation)
        for each in state.commit.requires if state is not None and state.expired else ():
            self._hold(each, why)  # the hold undoes its expiry, and theirs comes first
        self._holds[required] = self._context.clock.random_bytes(16)
        append(self._context, chain.name, log.HOLD, log.Hold(self._holds[required], generation, WHO, why))


def _cover(want: Want, held: list[tuple[GenerationRow, int, int]]) -> list[GenerationRow]:
    """Rows whose stretches together hold all of it; of each place the one that reaches farthest."""
    at, chosen = want.start, list[GenerationRow]()
    while at < want.end:
        best = max((each for each in held if each[1] <= at < each[2]), key=lambda each: each[2], default=None)
        if best is None:
            return []
        at = best[2]
        if best[0] not in chosen:
            chosen.append(best[0])
    return chosen


def _is_there(root: bytes, file: LogFile) -> bool:
    try:
        return Identity.of(os.lstat(os.path.join(root, file.path))) == file.identity
    except OSError:
        return False


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
