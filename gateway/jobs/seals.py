"""What producers say of their backup jobs: begin, seal, fail. Compared with what is there before anybody is answered.

CRASH: the marks stand before the row says "sealed"; a seal that is cut off is repeated by the producer and finds them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from gateway.api import GenerationInfo, ProgressCallback, RunReport, RunState, SealedFile, no_progress
from gateway.catalog import BackupJobRow, GenerationRow, GenerationState, JobState, MarkRow, Member
from gateway.clock import milliseconds
from gateway.config.values import SourceConfig, SourceKind
from gateway.errors import UsageError
from gateway.jobs.alarms import Alarms, Kind, source_of
from gateway.jobs.backup_job import PROBLEMS, Job, Required
from gateway.jobs.context import Context
from gateway.jobs.pace import Pace
from gateway.jobs.requirements import Requirements, Told
from gateway.jobs.views import generation_info
from gateway.log import printable
from gateway.model.entry import EntryType, Evidence, Identity
from gateway.model.ids import generation_text
from gateway.policy.naming import is_ignored, is_marker, is_temporary
from gateway.policy.patterns import normal
from gateway.spool.pin import NotPinned, pin
from gateway.spool.walk import SpoolEntry, walk

RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+@-]{0,127}")
LIMIT_MEMBERS = 1_000_000
"""LIMIT: files that a seal call may list; about 100 MB of memory while it is compared."""
READ_BYTES = 1024 * 1024
KIT = b".restore-kit.txt"
"""Behind the name of a job: where its restore kit lies in its generation."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What a seal call lists, against what is there."""

    members: tuple[Member, ...] = ()
    marks: tuple[MarkRow, ...] = ()
    problems: tuple[str, ...] = ()


class Seals:
    """Runs of one source. Used by one thread at a time, but for `compare`."""

    def __init__(
        self, context: Context, source: SourceConfig, alarms: Alarms, tell: ProgressCallback = no_progress
    ) -> None:  # fmt: skip
        self._context = context
        self._source = source
        self._alarms = alarms
        self.requirements = Requirements(context, source, tell)

    # --- the calls ---------------------------------------------------------------------------------------------------

    def begin(self, run: str, operator: str) -> RunReport:
        row = self._find(run)
        if row is None:
            row = BackupJobRow(
                source=self._source.name, run=run, state=JobState.BEGUN, begun=self._now(), who=operator
            )  # fmt: skip
            self._context.catalog.put_job(row)
            self._context.log.info("run.begun", source=self._source.name, run=run, who=operator)
        return self.report(row)

    def fail(self, run: str, reason: str, operator: str) -> RunReport:
        row = self._find(run)
        if row is not None and row.state not in (JobState.BEGUN, JobState.FAILED):
            raise UsageError(
                f"Run {run} of {self._source.name} is {row.state} and cannot fail any more.",
                meaning="What it sealed stays what it is.",
                advice="Begin another run, or make the next generation without it.",
            )
        if row is None or row.state is JobState.BEGUN:
            begun = row.begun if row is not None else self._now()
            row = BackupJobRow(
                source=self._source.name, run=run, state=JobState.FAILED, begun=begun, who=operator,
                problems=(reason or "its producer gave it up",),
            )  # fmt: skip
            self._context.catalog.put_job(row)
            self._context.log.warning("run.failed", source=self._source.name, run=run, reason=reason, who=operator)
        return self.report(row)

    def seal(
        self, run: str, files: Sequence[SealedFile], folder: bytes, requires: Sequence[str], operator: str,
        progress: ProgressCallback = no_progress,
    ) -> RunReport:  # fmt: skip
        """Compare and note. The generation is made by whoever finds the row: `waiting`."""
        return self.note(run, self.compare(run, files, folder, progress), requires, operator)

    def compare(
        self, run: str, files: Sequence[SealedFile], folder: bytes, progress: ProgressCallback = no_progress
    ) -> Compared:  # fmt: skip
        """What is there of what a seal call lists. Reads every file that has a digest, which may take hours; writes
        nothing, and may be done on any thread, beside everything else."""
        pace = Pace(self._context.clock, progress, "comparing")
        row = self._find(run)
        if row is not None and row.state not in (JobState.BEGUN, JobState.FAILED):
            return Compared(problems=("it was sealed before, and what is there was not compared",))
        problems: list[str] = []
        marks: list[MarkRow] = []
        compared: list[Member] = []
        for member in self._listed(files, folder, pace):
            pace.step()
            identity, problem = self._compare(member, pace)
            compared.append(member if identity is None else member.as_seen(identity))
            if problem:
                problems.append(f"{printable(member.path)}: {problem}")
            elif identity is not None:
                marks.append(
                    MarkRow(path=member.path, identity=identity, evidence=int(Evidence.SEAL),
                            how=f"sealed by run {run}", when=self._now())
                )  # fmt: skip
        if not compared:
            problems.append("it names no file that is there")
        return Compared(tuple(compared), tuple(marks), tuple(problems))

    def note(self, run: str, compared: Compared, requires: Sequence[str], operator: str) -> RunReport:
        """A run is sealed with what was compared, unless a call like this one was faster."""
        row = self._find(run)
        if row is not None and row.state not in (JobState.BEGUN, JobState.FAILED):
            return self.report(row)
        problems = [f"it requires run {each}, which is not protected" for each in requires if not self._done(each)]
        problems += compared.problems
        self._context.catalog.add_marks(self._source.name, compared.marks)
        row = BackupJobRow(
            source=self._source.name, run=run, state=JobState.SEALED, begun=row.begun if row else self._now(),
            sealed=self._now(), evidence=int(Evidence.SEAL), who=operator, members=compared.members,
            problems=tuple(problems[:PROBLEMS]), requires=tuple(requires),
        )  # fmt: skip
        self._context.catalog.put_job(row)
        self._context.log.info("run.sealed", source=self._source.name, run=run, files=len(compared.members),
                               who=operator, problems=len(problems))  # fmt: skip
        if problems:
            meaning = "What is there is kept as an incomplete generation, which is not offered for restore."
            self._alarm(run, problems[0], meaning)
        return self.report(row)

    def _alarm(self, run: str, problem: str, meaning: str) -> None:
        self._alarms.open(
            Kind.SEAL, f"{self._source.name}/{run}",
            f"Run {run} of {self._source.name} was sealed, but is not what its producer says: {problem}.",
            meaning=meaning,
            advice="Look at the producer's log, and run the backup job again, under another id. Where it writes other "
            f"names: `gateway accept {self._source.name} --alarm {Kind.SEAL}`.",
        )  # fmt: skip

    def note_found(
        self, run: str, found: Mapping[bytes, Identity], evidence: Evidence, how: str, problems: tuple[str, ...],
        told: Told | None = None,
    ) -> None:  # fmt: skip
        """A job that was found complete without a call: by a marker, by its producer's manifest, or by its silence.

        `found`: its files with the identities that were judged. What changed since then is another version, and the
        evidence is not for it. `told`: what its producer says of it.
        """
        now = self._now()
        self.requirements.note(run, told)
        if evidence > Evidence.QUIET:
            self._context.catalog.add_marks(
                self._source.name,
                [
                    MarkRow(path=path, identity=identity, evidence=int(evidence), how=how, when=now)
                    for path, identity in found.items()
                ],
            )
        self._context.catalog.put_job(
            BackupJobRow(
                source=self._source.name, run=run, state=JobState.SEALED, begun=now, sealed=now,
                evidence=int(evidence), who=how, problems=problems,
                members=tuple(Member(path).as_seen(found[path]) for path in sorted(found)),
            )
        )  # fmt: skip

    def known(self, run: str) -> RunReport | None:
        """What became of a run so far."""
        row = self._find(run)
        return self.report(row) if row is not None else None

    # --- what waits --------------------------------------------------------------------------------------------------

    def waiting(self) -> list[BackupJobRow]:
        """Sealed runs whose generation is still to come, in the order of their seals."""
        return self._context.catalog.jobs(self._source.name, JobState.SEALED)

    def again(self, row: BackupJobRow) -> bool:
        """Whether a run lacked something that is there now. Then it is sealed once more, and gets a generation anew."""
        told = self.requirements.told(row.run)
        if row.state is not JobState.INCOMPLETE or row.problems or told is None or not told.wants:
            return False
        if self.requirements.resolve(told.wants)[1] or not self._is_as_sealed(row):
            return False
        self._context.catalog.put_job(replace(row, state=JobState.SEALED, generation=0, made=b""))
        self._context.log.info("run.has_what_it_requires", source=self._source.name, run=row.run)
        return True

    def _is_as_sealed(self, row: BackupJobRow) -> bool:
        """Whether its files are there as they were compared: a job whose files are gone cannot be made anew."""
        sealed = self.sealed(row)
        try:
            return all(
                Identity.of(os.lstat(self._place(each.path))) == sealed.get(each.path)
                for each in row.members
                if self._is_kept(each.path)
            )
        except OSError:
            return False

    def sealed(self, row: BackupJobRow) -> dict[bytes, Identity]:
        """The version of each file that is to be in its generation. Rows of an older release have none: then the marks
        say it."""
        found: dict[bytes, Identity] = {}
        for each in row.members:
            identity = each.identity
            if identity is None and (mark := self._context.catalog.mark(self._source.name, each.path)) is not None:
                identity = mark.identity
            if identity is not None and self._is_kept(each.path):
                found[each.path] = identity
        return found

    @contextlib.contextmanager
    def kept(self, row: BackupJobRow) -> Iterator[Job]:
        """The generation that a sealed run wants; what it requires is held meanwhile."""
        required, gone = dict[Required, None](), list[str]()
        for each in row.requires:
            base = self._context.catalog.job(self._source.name, each)
            made = self._generation_of(base) if base is not None else None
            if made is not None:
                required[made.chain.group, made.chain.number, made.generation] = None
            elif base is not None and base.state is JobState.PROTECTED:
                gone.append(f"it requires run {each}, whose generation is not there any more")
        told = self.requirements.told(row.run)
        met, lacks = self.requirements.resolve(told.wants if told is not None else ())
        required |= dict.fromkeys(met)
        with self.requirements.kept(row.run, list(required)) as lost:
            lacks += gone
            lacks += [f"{generation_text(one)}, which it requires, is not protected any more" for _, _, one in lost]
            yield self._job(row, [each for each in required if each not in lost], told, lacks)

    def _job(self, row: BackupJobRow, required: list[Required], told: Told | None, lacks: list[str]) -> Job:
        paths = frozenset(member.path for member in row.members)
        tops = {path.partition(b"/")[0] for path in paths if b"/" in path}
        folder = tops.pop() if len(tops) == 1 and all(b"/" in path for path in paths) else b""
        whole = self._source.kind is SourceKind.FILES
        return Job(
            run=row.run, members=paths, sealed=self.sealed(row), folder=b"" if whole else folder,
            problems=(*row.problems, *lacks)[:PROBLEMS], requires=tuple(required), everything=whole,
            told=told.said(row.run, lacks) if told is not None else None,
            kit_path=told.place + KIT if told is not None and not whole else b"",
            evidence=row.evidence, sealed_ms=row.sealed, lost=partial(self.requirements.lost, row.run),
        )  # fmt: skip

    def made(
        self, row: BackupJobRow, generation: GenerationInfo | None, missing: Sequence[str], *, protected: bool
    ) -> RunReport:
        """Its generation is there, or there was nothing to keep. `missing`: what no generation says of it."""
        state = JobState.PROTECTED if protected else JobState.INCOMPLETE
        number, made = (generation.number, _id_of(generation)) if generation is not None else (0, b"")
        problems = (*row.problems, *missing)[:PROBLEMS]
        row = replace(row, state=state, generation=number, made=made, problems=problems)
        self._context.catalog.put_job(row)
        if missing:
            self._alarm(row.run, missing[0], "No generation holds it as it was sealed.")
        if protected:
            self.requirements.note(row.run, None)
            self._close_alarms(row)
        return self.report(row)

    def _close_alarms(self, row: BackupJobRow) -> None:
        """Of a run that is protected now, and of every one sealed before it whose files it sealed, all of them, under
        their names: the job ran again."""
        name = self._source.name
        self._alarms.close(Kind.SEAL, f"{name}/{row.run}")
        if row.evidence < Evidence.SEAL:
            return  # found without a call: nobody says that this is what the other one should have been
        has = {member.path for member in row.members}
        for alarm in self._context.catalog.open_alarms():
            if alarm.kind != Kind.SEAL or source_of(alarm.subject) != name:
                continue
            before = self._context.catalog.job(name, alarm.subject.partition("/")[2])
            wanted = {member.path for member in before.members} if before and before.sealed <= row.sealed else set()
            if wanted and wanted <= has:
                self._alarms.close(Kind.SEAL, alarm.subject)

    def report(self, row: BackupJobRow) -> RunReport:
        state = RunState(str(row.state))
        if state is RunState.SEALED and row.problems:
            state = RunState.INCOMPLETE
        found = self._generation_of(row)
        generation = generation_info(found, self._context.catalog) if found is not None else None
        problems = row.problems
        if not problems and generation is not None and row.state is JobState.INCOMPLETE and generation.reason:
            problems = (generation.reason,)
        return RunReport(source=row.source, run=row.run, state=state, problems=problems, generation=generation)

    # --- comparing ---------------------------------------------------------------------------------------------------

    def _find(self, run: str) -> BackupJobRow | None:
        if not RUN.fullmatch(run):
            raise UsageError(
                f'"{printable(run)}" is not an id of a run.',
                meaning="It is 1 to 128 letters, digits and . _ : + @ -, and begins with a letter or digit.",
                advice="Take what the producer calls the run, such as a date with time or a process number.",
            )
        return self._context.catalog.job(self._source.name, run)

    def _done(self, run: str) -> bool:
        row = self._find(run)
        return row is not None and row.state is JobState.PROTECTED

    def _generation_of(self, row: BackupJobRow) -> GenerationRow | None:
        """What holds a run, unless it has expired, or cannot be told from another one of its number."""
        found = [
            each
            for each in self._context.catalog.generations(self._source.name)
            if row.is_in(each.generation, each.number) and each.state is not GenerationState.EXPIRED
        ]
        return found[0] if len(found) == 1 else None

    def _listed(self, files: Sequence[SealedFile], folder: bytes, pace: Pace) -> list[Member]:
        if len(files) > LIMIT_MEMBERS:
            raise UsageError(
                f"The seal lists {len(files):,} files.",
                meaning=f"At most {LIMIT_MEMBERS:,} can be compared in one call.",
                advice="Seal a folder instead of a list.",
            )
        found: dict[bytes, Member] = {}
        for each in files:
            path = normal(each.path)
            size = -1 if each.size is None else each.size
            found[path] = Member(path, size, each.digest)
        if folder or (not files and self._source.kind is SourceKind.FILES):
            for entry in self._below(normal(folder), pace):
                found.setdefault(entry.path, Member(entry.path))
        return [found[path] for path in sorted(found)]

    def _below(self, folder: bytes, pace: Pace) -> Iterator[SpoolEntry]:
        for entry in walk(self._source.path):
            pace.step()
            inside = not folder or entry.path.startswith(folder + b"/")
            if isinstance(entry, SpoolEntry) and entry.type is EntryType.FILE and inside and self.counts(entry.path):
                yield entry

    def counts(self, path: bytes) -> bool:
        """Whether a file may belong to a generation by its name."""
        return self._is_kept(path) and not is_temporary(path.rpartition(b"/")[2])

    def _is_kept(self, path: bytes) -> bool:
        """Whether the configuration lets a file belong to a generation, which passes over all others."""
        return not self.is_ignored(path) and not is_marker(path, self._source.marker)

    def is_ignored(self, path: bytes) -> bool:
        return any(is_ignored(each, self._source.ignore) for each in path.split(b"/"))

    def _place(self, path: bytes) -> bytes:
        return os.path.join(os.fsencode(self._source.path), path)

    def _compare(self, member: Member, pace: Pace) -> tuple[Identity | None, str]:
        """The identity of what is there, or what is wrong with it."""
        if any(part in (b"", b".", b"..") for part in member.path.split(b"/")):
            return None, "its name leads out of the source"
        if self.is_ignored(member.path):
            return None, "the source ignores files of its name"
        try:
            status = os.lstat(self._place(member.path))
        except OSError as error:
            return None, f"is not there: {error.strerror}"
        if not stat.S_ISREG(status.st_mode):
            return None, "is not a file"
        if member.size >= 0 and status.st_size != member.size:
            return None, f"has {status.st_size} bytes, not {member.size}"
        identity = Identity.of(status)
        if not member.digest:
            return identity, ""
        return self._digested(member, status, identity, pace)

    def _digested(
        self, member: Member, status: os.stat_result, identity: Identity, pace: Pace
    ) -> tuple[Identity | None, str]:
        algorithm, _, wanted = member.digest.partition(":")
        try:
            state = hashlib.new(algorithm)
        except ValueError:
            return None, f'"{printable(algorithm)}" is not a digest this gateway can compute'
        entry = SpoolEntry(
            path=member.path, type=EntryType.FILE, identity=identity, mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid, gid=status.st_gid,
        )  # fmt: skip
        buffer = memoryview(bytearray(READ_BYTES))
        try:
            with pin(self._source.path, entry) as pinned:
                offset = 0
                while count := pinned.read_into(buffer, offset):
                    state.update(buffer[:count])
                    pace.step(count)
                    offset += count
                pinned.check()
        except NotPinned as error:
            return None, error.left_out.detail
        found = state.hexdigest()
        return (identity, "") if found == wanted.lower() else (None, f"has another {algorithm}: {found}")

    def _now(self) -> int:
        return milliseconds(self._context.clock.now())


def _id_of(generation: GenerationInfo) -> bytes:
    return bytes.fromhex(generation.id.removeprefix("g"))
