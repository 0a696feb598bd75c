"""Backup jobs that are found in a spool without a call: asked of the producers, judged once a version, noted as sealed.

Judging may read everything (a manifest's checksums), so it is done once for each state a job was seen in: the
*fingerprint*, a digest over the names and identities of its files, is part of the id of its run. Of files with
temporary names, which no generation holds, it has only the names, and of those that the source ignores nothing: what is
written to them makes no other run. But where silence is all that says that a job is whole, the former must be silent.

Judging is done again after a while, or when a writer lets go, where the reason may pass though no file is another then.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from hashlib import sha256

from gateway.api import ProgressCallback, no_progress
from gateway.catalog import BackupJobRow
from gateway.catalog import JobState as RunState
from gateway.config.values import SourceConfig
from gateway.errors import IntegrityError
from gateway.jobs.backup_job import PROBLEMS
from gateway.jobs.context import Context
from gateway.jobs.pace import Pace
from gateway.jobs.requirements import told_of
from gateway.jobs.runs import is_less, known_below
from gateway.jobs.seals import Seals
from gateway.log import printable
from gateway.model.entry import EntryType, Evidence, Identity, LeftOut, LeftOutReason
from gateway.policy.naming import is_marker, is_temporary
from gateway.spool.looks import Looked, Verdict
from gateway.spool.pin import NotPinned
from gateway.spool.producers.base import FoundJob, JobState, JudgedJob, Producer, Role, pieces
from gateway.spool.producers.choice import producers_of
from gateway.spool.producers.folders import FoldersProducer
from gateway.spool.producers.view import DirectoryView
from gateway.spool.walk import SpoolEntry
from gateway.spool.watch import RETRY_SECONDS, Watch

ASK_SECONDS = 10.0
"""LIMIT: between two looks at runs that lack something."""
LIMIT_DOUBLED = 10
"""LIMIT: how often the pause is doubled before a job is made again that its pass could not read: to 17 hours."""
FOUND = "found by "
"""Begins who sealed a job that nobody sealed by a call."""


_PASSING = (LeftOutReason.WRITER, LeftOutReason.CHANGED, LeftOutReason.UNREADABLE)


@dataclass(slots=True)
class _Wanting:
    """A state that was judged and found wanting. `again_at`: when it is judged again, monotonic; `held`: files that
    could not be read, and when the watch lets each be tried again."""

    fingerprint: bytes
    again_at: float = float("inf")
    held: dict[bytes, float] = field(default_factory=dict)
    generation: int | None = None
    """Of what was whole, but not when it was read: the number of its incomplete generation."""
    left_out: tuple[LeftOut, ...] = ()
    tries: int = 0

    def rests(self, watch: Watch, now: float) -> bool:
        """Whether it is too early to judge it again: before its time, unless all that was held was let go."""
        sooner = [
            path in watch.pending and watch.pending[path].retry_at < retry_at for path, retry_at in self.held.items()
        ]
        return now < self.again_at and not (sooner and all(sooner))


class FoundJobs:
    """Of one source of kind "job". The producer that knows most comes first; a folder belongs to the first that
    finds a job in it."""

    def __init__(
        self, context: Context, source: SourceConfig, seals: Seals, tell: ProgressCallback = no_progress
    ) -> None:  # fmt: skip
        self._context = context
        self._source = source
        self._seals = seals
        self._tell_progress = tell
        self._pace = self._begin()
        self._producers = producers_of(source)
        self._seen: dict[bytes, tuple[bytes, float]] = {}
        """Folder -> fingerprint, and the first look at which it was as it is, monotonic."""
        self._judged: dict[bytes, _Wanting] = {}
        """By folder."""
        self.reasons: dict[bytes, str] = {}
        """Folder -> why it is not a generation yet."""
        self._ask_at = float("-inf")
        self._asked: dict[str, frozenset[bytes]] = {}
        """Run that lacks something -> the protected generations among which it was looked for."""

    def look(self, watch: Watch) -> None:
        """Note as sealed what is whole now."""
        self._ask_again()
        self._pace = self._begin()
        view = DirectoryView(self._source.path, step=self._pace.step)
        taken: set[bytes] = set()
        for producer in self._producers:
            for found in producer.find(view):
                folder = found.folders[0] if found.folders else found.name
                top = folder.partition(b"/")[0]
                if top in taken or not top:
                    continue
                taken.add(top)
                self._one(producer, view, found, top, watch)
        for folder in set(self._seen) - taken:
            del self._seen[folder]
            self._judged.pop(folder, None)
            self.reasons.pop(folder, None)

    def describe(self, row: BackupJobRow, watch: Watch) -> BackupJobRow:
        """What its producer says of a run that was sealed by a call. A seal says what belongs to a job; its producer's
        manifest, where it has one, still says whether that is whole.
        """
        tops = {member.path.partition(b"/")[0] for member in row.members}
        if row.who.startswith(FOUND) or self._seals.requirements.told(row.run) is not None:
            return row
        self._pace = self._begin()
        view = self._view(watch)
        for producer in (each for each in self._producers if each.name != FoldersProducer.name):
            for found in producer.find(view):
                if not tops or {each.partition(b"/")[0] for each in found.folders} != tops:
                    continue
                judged = producer.judge(view, found)
                if judged.state is JobState.COMPLETE:
                    self._seals.requirements.note(row.run, told_of(producer, judged))
                elif judged.state is JobState.INCOMPLETE:
                    wrong = [f"{printable(each.path)}: {each.text}" for each in judged.reasons]
                    row = replace(row, problems=tuple(dict.fromkeys([*row.problems, *wrong]))[:PROBLEMS])
                    self._context.catalog.put_job(row)
                return row
        return row

    def _begin(self) -> Pace:
        return Pace(self._context.clock, self._tell_progress, "judging")

    def _view(self, watch: Watch, *, still: bool = False) -> DirectoryView:
        """With verdicts. A file counts as settled when the watch saw it so, or a generation read it as it is; another
        is pending from here on. `still`: nothing has changed for the settle time, whoever is asked.
        """
        known: dict[bytes, frozenset[tuple[bytes, Identity]]] = {}

        def is_known(entry: SpoolEntry) -> bool:
            top = entry.path.partition(b"/")[0]
            if top not in known:
                known[top] = known_below(self._context.catalog, self._source.name, top)
            return (entry.path, entry.identity) in known[top]

        def verdict(entry: SpoolEntry) -> Verdict:
            if still or not self._seals.counts(entry.path) or watch.settled(entry.path, entry.identity):
                return Verdict.SETTLED
            pending = watch.pending.get(entry.path)
            if pending is None or pending.identity != entry.identity:
                if is_known(entry):
                    return Verdict.SETTLED
                watch.notice(entry)
            return Verdict.GROWING

        return DirectoryView(self._source.path, verdict, self._pace.step)

    def _ask_again(self) -> None:
        """Runs that lacked something that they require: whether it is there now."""
        now = self._context.clock.monotonic()
        if now < self._ask_at:
            return
        self._ask_at = now + ASK_SECONDS
        catalog = self._context.catalog
        rows = [row for row in catalog.jobs(self._source.name, RunState.INCOMPLETE) if not row.problems]
        self._asked = {row.run: self._asked[row.run] for row in rows if row.run in self._asked}
        if not rows:
            return
        there = frozenset(each.generation for each in catalog.protected())
        left_out = [each for each in catalog.generations(self._source.name) if each.left_out_count]
        for row in rows:
            if row.who.startswith(FOUND) and any(row.is_in(each.generation, each.number) for each in left_out):
                continue  # by what it left out, it is judged once more in its folder
            if self._asked.get(row.run) != there:
                self._asked[row.run] = there
                if self._seals.again(row):  # what its next generation lacks is another question
                    self._judged = {
                        folder: each for folder, each in self._judged.items() if each.generation != row.generation
                    }

    def _one(self, producer: Producer, view: DirectoryView, found: FoundJob, folder: bytes, watch: Watch) -> None:
        fingerprint, everything = self._fingerprint(view, found, folder)
        still = self._is_still(folder, everything)
        wanting = self._judged.get(folder)
        if wanting is not None and wanting.fingerprint != fingerprint:
            wanting = None
        if fingerprint is None or (wanting is not None and wanting.rests(watch, self._context.clock.monotonic())):
            return
        run = f"found-{sha256(folder).hexdigest()[:8]}-{fingerprint.hex()[:16]}"
        row = self._context.catalog.job(self._source.name, run)
        if row is not None and (wanting is None or wanting.generation != row.generation):
            tries = wanting.tries if wanting is not None else 0
            self._judged[folder] = self._incomplete(row, fingerprint, tries, watch)
            return
        if (wanting is not None and not self._is_readable(run, wanting, view, watch)) or self._is_sealed(view, folder):
            return
        if self._is_left(view, found, folder):
            self._judged[folder] = _Wanting(fingerprint)
            return
        view = self._view(watch, still=still)
        if not _is_quiet(view, folder):
            self.reasons[folder] = "It changed within the settle time."
            return
        began = self._context.clock.monotonic()
        judged = producer.judge(view, found)
        if self._fingerprint(view, found, folder)[0] != fingerprint:
            return  # what was judged is not what was quiet
        evidence = self._accepted(judged, silent=still or not self._has_temporary(judged))
        if evidence is None:
            again = self._wanting(fingerprint, judged, watch, began)
            if wanting is not None:
                again.generation, again.left_out, again.tries = wanting.generation, wanting.left_out, wanting.tries
            self._judged[folder] = again
            self._tell(folder, judged)
            return
        self.reasons.pop(folder, None)
        problems = () if evidence >= self._source.minimum_evidence else (
            f"evidence {int(evidence)} says that it is complete, and the source wants {self._source.minimum_evidence}",
        )  # fmt: skip
        files = {
            each.path: each.identity
            for each in judged.members
            if each.role is not Role.MARKER and stat.S_ISREG(_mode(view, each.path))
        }
        self._seals.note_found(run, files, evidence, FOUND + producer.name, problems, told_of(producer, judged))
        self._context.log.info("job.found", source=self._source.name, folder=printable(folder), run=run,
                               producer=producer.name, evidence=int(evidence))  # fmt: skip

    def _wanting(self, fingerprint: bytes, judged: JudgedJob, watch: Watch, began: float) -> _Wanting:
        wanting = _Wanting(fingerprint)
        left_out = [each.left_out for each in judged.reasons if each.left_out is not None]
        if left_out or judged.state is JobState.OPEN:
            wanting.again_at = self._pause(began)
        self._hold(wanting, left_out, watch)
        return wanting

    def _incomplete(self, row: BackupJobRow, fingerprint: bytes, tries: int, watch: Watch) -> _Wanting:
        """A job that has its row already. Where its generation left out what may be read another time, it is judged
        once more: each time after a longer pause, since another incomplete generation is all that may come of it."""
        now = self._context.clock.monotonic()
        wanting = _Wanting(fingerprint, generation=row.generation, tries=tries + 1)
        if row.state is RunState.SEALED:
            wanting.generation, wanting.again_at, wanting.tries = None, now, tries
        elif row.state is RunState.INCOMPLETE and not row.problems:
            wanting.left_out = self._left_out(row)
        if wanting.left_out and all(left.reason in _PASSING for left in wanting.left_out):
            pause = max(RETRY_SECONDS, self._source.settle.total_seconds())
            wanting.again_at = now + pause * 2 ** min(tries, LIMIT_DOUBLED)
            for left in wanting.left_out if not tries else ():
                each = watch.pending.get(left.path)
                if each is not None:
                    if each.held is None:
                        watch.hold(left)
                    wanting.held[left.path] = each.retry_at if each.retry_at > now else float("inf")
        return wanting

    def _left_out(self, row: BackupJobRow) -> tuple[LeftOut, ...]:
        """What the generation of a run left out; nothing where that cannot be told."""
        for each in self._context.catalog.generations(self._source.name):
            if row.is_in(each.generation, each.number) and each.left_out_count:
                with contextlib.suppress(IntegrityError):
                    state = self._context.open_chain(each.chain).fold.generations.get(each.generation)
                    found = state.commit.left_out if state is not None else ()
                    return tuple(
                        LeftOut(path=path, reason=LeftOutReason(reason), detail=text) for path, reason, text in found
                    )
        return ()

    def _is_readable(self, run: str, wanting: _Wanting, view: DirectoryView, watch: Watch) -> bool:
        """Whether what its generation left out can be read now, to its end, and what it requires is there. Otherwise it
        rests again."""
        began, failed = self._context.clock.monotonic(), list[LeftOut]()
        try:
            for left in wanting.left_out:
                with view.open(left.path) as file:
                    for _ in pieces(file):
                        pass
                    file.check()
        except NotPinned as error:
            failed.append(error.left_out)
        told = self._seals.requirements.told(run) if wanting.generation is not None else None
        if not failed and (told is None or not self._seals.requirements.resolve(told.wants)[1]):
            return True
        wanting.again_at, wanting.held = self._pause(began), {}
        self._hold(wanting, failed, watch)
        return False

    def _pause(self, began: float) -> float:
        """Until when something rests that was looked at since `began`: not more than a tenth of the time goes into it,
        however much there is to read."""
        now = self._context.clock.monotonic()
        return now + max(RETRY_SECONDS, self._source.settle.total_seconds(), 9 * (now - began))

    @staticmethod
    def _hold(wanting: _Wanting, left_out: Iterable[LeftOut], watch: Watch) -> None:
        """The watch names it, and says when its writer lets go of it."""
        for left in left_out:
            watch.hold(left)
            if left.path in watch.pending:
                wanting.held[left.path] = watch.pending[left.path].retry_at

    def _tell(self, folder: bytes, judged: JudgedJob) -> None:
        reason = judged.reasons[0] if judged.reasons else None
        where = f"{printable(reason.path)}: " if reason is not None and reason.path else ""
        text = f"{where}{reason.text}" if reason is not None else "Its evidence is too little."
        if self.reasons.get(folder) != text:
            self.reasons[folder] = text
            self._context.log.info("job.not_complete", source=self._source.name, folder=printable(folder),
                                   reason=text)  # fmt: skip

    def _has_temporary(self, judged: JudgedJob) -> bool:
        """Whether it has files that the watch does not look at, but whose writing is part of the job."""
        names = [each.path.rpartition(b"/")[2] for each in judged.members if not self._seals.is_ignored(each.path)]
        return any(map(is_temporary, names))

    def _accepted(self, judged: JudgedJob, *, silent: bool) -> Evidence | None:
        """The evidence with which a quiet job is taken; None: not yet. Silence is enough only where the source asks for
        no more and names no marker. `silent`: nothing was written to a file with a temporary name, either."""
        if judged.state is JobState.COMPLETE:
            return judged.evidence
        bare = silent and self._source.marker is None and self._source.minimum_evidence <= Evidence.QUIET
        if judged.state is JobState.OPEN and bare and judged.found.producer == FoldersProducer.name:
            files = any(member.path != judged.found.name for member in judged.members)
            return Evidence.QUIET if files and not is_temporary(judged.found.name) else None
        return None

    def _is_sealed(self, view: DirectoryView, folder: bytes) -> bool:
        """Whether a seal call named all that lies there as it is: that job has its generation, or waits for it."""
        for seen in view.walk(folder):
            if isinstance(seen, Looked) and seen.entry.type is EntryType.FILE:
                mark = self._context.catalog.mark(self._source.name, seen.entry.path)
                if mark is None or mark.evidence < Evidence.SEAL or mark.identity != seen.entry.identity:
                    return False
        return True

    def _is_left(self, view: DirectoryView, found: FoundJob, folder: bytes) -> bool:
        """Whether this is what is left of a job that is being released, or deleted: unchanged, and fewer files. Its
        marker may still call it whole."""
        folders, there, marked = {*found.folders, folder}, dict[bytes, Identity](), 0
        for path in found.paths:
            with contextlib.suppress(OSError):
                marked = max(marked, os.lstat(os.path.join(view.root, path)).st_ctime_ns)
        for seen in (seen for each in folders for seen in view.walk(each)):
            if isinstance(seen, LeftOut) or seen.entry.type is not EntryType.FILE:
                continue
            if is_marker(seen.entry.path, self._source.marker):
                marked = max(marked, seen.entry.identity.ctime_ns)
            else:
                there[seen.entry.path] = seen.entry.identity
        return is_less(self._context.catalog, self._source.name, there, folders, marked // 1_000_000)

    def _is_still(self, folder: bytes, fingerprint: bytes | None) -> bool:
        """Whether nothing in a folder has changed for the settle time. So a job settles also where the watch cannot
        name all of its files."""
        now = self._context.clock.monotonic()
        before, since = self._seen.get(folder, (None, now))
        if before != fingerprint or fingerprint is None:
            since = now
        self._seen[folder] = (fingerprint or b"", since)
        return now - since >= self._source.settle.total_seconds()

    def _fingerprint(
        self, view: DirectoryView, found: FoundJob, folder: bytes
    ) -> tuple[bytes | None, bytes | None]:  # fmt: skip
        """Of what lies there now, and of markers beside it, and the same with what is written to files with temporary
        names; None where there is no file."""
        state, everything, files = sha256(), sha256(), 0
        elsewhere = (each for each in found.folders if each != folder and not each.startswith(folder + b"/"))
        for seen in (seen for each in (folder, *elsewhere) for seen in view.walk(each)):
            if isinstance(seen, LeftOut) or seen.entry.type is not EntryType.FILE:
                continue
            path = seen.entry.path
            if self._seals.is_ignored(path):
                continue
            files += 1
            line = _line(path, seen.entry.identity)
            everything.update(line)
            state.update(repr(path).encode() if is_temporary(path.rpartition(b"/")[2]) else line)
        for path in sorted(found.paths):
            with contextlib.suppress(OSError):
                line = _line(path, Identity.of(os.lstat(os.path.join(view.root, path))))
                everything.update(line)
                state.update(line)
        return (state.digest(), everything.digest()) if files else (None, None)


def _is_quiet(view: DirectoryView, folder: bytes) -> bool:
    """Of every file, since each that is met for the first time becomes pending."""
    seen = [each.verdict for each in view.walk(folder) if isinstance(each, Looked)]
    return all(each is Verdict.SETTLED for each in seen)


def _mode(view: DirectoryView, path: bytes) -> int:
    """0 for what is not there any more: nobody can take it for a file."""
    try:
        return os.lstat(os.path.join(view.root, path)).st_mode
    except OSError:
        return 0


def _line(path: bytes, one: Identity) -> bytes:
    return repr((path, one.device, one.inode, one.size, one.mtime_ns, one.ctime_ns)).encode()
