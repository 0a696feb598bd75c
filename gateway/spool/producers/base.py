"""What a producer knows about its backups, asked through one interface.

A *producer* is the software that writes into a spool: it decides which files make one backup job, and what proves
that a file or a job is whole. An object here knows one of them and nothing else of the gateway: it sees a spool
through a read-only `SpoolView`, gives values back, writes nothing and remembers nothing. So it can be asked again at
any time, and the answer depends on the spool alone.

The order of questions: `find` (cheap: names and small heads) says which jobs there are; `judge` (reads what it must)
says of one whether it is whole; `restore_kit` says what a person needs who gets it back. `inspect` is asked of every
file that a generation takes: what its bytes say by themselves.

**A file is a version.** A `Member` is a path *and* an `Identity`. Some producers rewrite a file in place under the
same name and inode (a recycled volume, a merged full backup): such a member is `mutable`, its next version is
another member of another job, and what an older job holds is the older version. A file may belong to several jobs
(a volume that jobs are appended to): then `extents` say which bytes are this job's.

**A job may lie anywhere.** `FoundJob.folders` and `paths` are as many as it takes; nothing says that they have a
parent in common, or that a folder holds one job only.

**A job may need others.** `keys` are the names by which others may ask for it, `requires` what it asks for: another
job by its key, or a stretch of a log as a `Span` of positions, which other jobs or log files `provides`. Whoever
keeps jobs resolves them; a requirement nobody can meet makes a chain incomplete, not this job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from gateway.model.entry import Evidence, Identity, LeftOut
from gateway.spool.looks import Looked
from gateway.spool.pin import Changed, HasWriter, NotPinned, Vanished
from gateway.spool.structure import Read, Structure
from gateway.spool.walk import SpoolEntry

READ_BYTES = 1024 * 1024

REASONS = 100
"""LIMIT: reasons that a judgement names; the last one says how many more there are."""


class SpoolFile(Protocol):
    """One version of one file, open and pinned. A context manager."""

    @property
    def entry(self) -> SpoolEntry: ...
    @property
    def size(self) -> int: ...
    @property
    def no_writer(self) -> bool:
        """Whether the kernel said that nobody had it open for writing."""
        ...

    @property
    def evidence_limit(self) -> Evidence: ...
    def read(self, offset: int, length: int) -> bytes:
        """Fewer bytes only at the end. Raises a `NotPinned`."""
        ...

    def check(self) -> None:
        """`Changed` when what was read may not be one version; to be called after the last byte."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class SpoolView(Protocol):
    """A spool as a producer may see it: read-only, no symlink followed, paths relative to `root`."""

    @property
    def root(self) -> bytes:
        """The source's directory as the gateway knows it; symlinks may point below it."""
        ...

    def list(self, directory: bytes) -> Iterator[Looked | LeftOut]:
        """What lies directly in a directory, by name; nothing for one that is not there."""
        ...

    def walk(self, directory: bytes) -> Iterator[Looked | LeftOut]:
        """Everything below a directory, in the order of the file list."""
        ...

    def open(self, path: bytes) -> SpoolFile:
        """Raises a `NotPinned`: `Vanished`, `Changed`, `HasWriter`, `Unreadable`."""
        ...


class Role(StrEnum):
    """What a member is to its job."""

    DATA = "data"
    LOG = "log"
    MANIFEST = "manifest"
    MARKER = "marker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One version of one file, directory or link of a job. `extents`: (offset, length); empty: all of it."""

    path: bytes
    identity: Identity
    role: Role = Role.DATA
    mutable: bool = False
    extents: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of a log: positions from `start` to before `end` on the line `series` (LSNs, sequence numbers); `text`
    says for people which one that is.
    """

    series: str
    start: int
    end: int
    text: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.series or self.start < 0 or self.end < self.start:
            raise ValueError(f"not a span: {self.series!r} {self.start} {self.end}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKey:
    """Another job, by one of its `keys`; `text` says for people which one that is."""

    key: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a job is not whole, or not yet: one sentence, and the path it is about (empty: the job). `left_out`: what
    could not be read, which may be over though nothing of the file is another then."""

    path: bytes
    text: str
    left_out: LeftOut | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundJob:
    """A backup job that lies in the spool, whole or not. `name` tells it from the others of its producer and source."""

    producer: str
    name: bytes
    folders: tuple[bytes, ...] = ()
    paths: tuple[bytes, ...] = ()

    def holds(self, path: bytes) -> bool:
        if path in self.paths:
            return True
        return any(not folder or path == folder or path.startswith(folder + b"/") for folder in self.folders)


class JobState(StrEnum):
    """OPEN: not yet, ask again. COMPLETE: whole by `evidence`. INCOMPLETE: something is missing or wrong *now*; a
    producer that is restarted may still mend it, so that too may be asked again."""

    OPEN = "open"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedJob:
    """What is known of a job. `facts`: (name, value) in a fixed order, for grouping and for people."""

    found: FoundJob
    state: JobState
    evidence: Evidence | None = None
    members: tuple[Member, ...] = ()
    reasons: tuple[Reason, ...] = ()
    notes: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    keys: tuple[str, ...] = ()
    provides: tuple[Span, ...] = ()
    requires: tuple[Span | JobKey, ...] = ()

    def __post_init__(self) -> None:
        if (self.state is JobState.COMPLETE) != (self.evidence is not None):
            raise ValueError("a complete job has evidence, and no other has")
        if self.state is not JobState.COMPLETE and not self.reasons:
            raise ValueError("what is not complete says why")

    def fact(self, name: str) -> str:
        """Empty where it is not known."""
        return next((value for key, value in self.facts if key == name), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedFile:
    """A line of a seal: what the producer says it wrote. `sha256` empty: it did not say."""

    path: bytes
    size: int
    sha256: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """A call of the producer that names what a job consists of. `only_these`: nothing else belongs to it."""

    job: bytes
    files: tuple[SealedFile, ...]
    only_these: bool = True


@dataclass(frozen=True, slots=True)
class LogFile:
    """One version of a file that may hold a stretch of a log."""

    path: bytes
    identity: Identity


class Producer(Protocol):
    """One producer's knowledge. Stateless but for its settings; its methods are thread-safe."""

    name: str

    def find(self, view: SpoolView) -> Iterator[FoundJob]:
        """The jobs that lie in the spool now. Cheap; claims nothing about their being whole."""
        ...

    def inspect(self, path: bytes, size: int, read: Read) -> Structure:
        """What the bytes of one file say by themselves, whatever job it belongs to. UNKNOWN: another producer is asked.
        Raises what `read` raises, and nothing else."""
        ...

    def judge(self, view: SpoolView, found: FoundJob, seal: Seal | None = None) -> JudgedJob:
        """A job as it lies there now. A seal that does not match makes it INCOMPLETE, with every difference."""
        ...

    def restore_kit(self, judged: JudgedJob) -> str:
        """What somebody needs to know who has the files back, as a text; empty where files speak for themselves."""
        ...

    def may_hold(self, file: LogFile, wanted: Span) -> bool:
        """Whether a file may hold a part of a log, by its name and size. Cheap: asked of every file of a source."""
        ...

    def log_held(self, view: SpoolView, files: Iterable[LogFile], wanted: Span) -> Iterator[tuple[int, int]]:
        """Stretches (from, before) of the line that is wanted which these versions hold, proved by reading them."""
        ...


class Reasons:
    """Collects reasons, bounded, and whether they mean "not yet" or "wrong"."""

    def __init__(self) -> None:
        self.waiting = False
        self._kept: list[Reason] = []
        self._more = 0
        self._more_left_out: LeftOut | None = None

    def wrong(self, path: bytes, text: str, left_out: LeftOut | None = None) -> None:
        if len(self._kept) < REASONS:
            self._kept.append(Reason(path=path, text=text, left_out=left_out))
        else:
            self._more += 1
            self._more_left_out = left_out or self._more_left_out

    def wait(self, path: bytes, text: str) -> None:
        self.waiting = True
        self.wrong(path, text)

    def not_pinned(self, error: NotPinned) -> None:
        """A file that could not be read: one that changes will be there another time."""
        self.waiting |= isinstance(error, Changed | HasWriter | Vanished)
        self.left_out(error.left_out)

    def left_out(self, left_out: LeftOut) -> None:
        self.wrong(left_out.path, left_out.detail or f"It is {left_out.reason}.", left_out)

    def __bool__(self) -> bool:
        return bool(self._kept)

    def all(self) -> tuple[Reason, ...]:
        if not self._more:
            return tuple(self._kept)
        return (*self._kept, Reason(path=b"", text=f"And {self._more} more.", left_out=self._more_left_out))

    @property
    def state(self) -> JobState:
        """To be asked where there are reasons."""
        return JobState.OPEN if self.waiting else JobState.INCOMPLETE


def member_of(looked: Looked, role: Role = Role.DATA) -> Member:
    return Member(path=looked.entry.path, identity=looked.entry.identity, role=role)


def match_seal(view: SpoolView, seal: Seal, members: tuple[Member, ...], reasons: Reasons) -> Evidence:
    """Every difference between a seal and what is there goes to `reasons`. Returns the highest evidence possible."""
    there = {member.path: member for member in members}
    limit = Evidence.SEAL
    for file in seal.files:
        member = there.pop(file.path, None)
        if member is None:
            reasons.wrong(file.path, "The seal names it, and it is not there.")
        elif member.identity.size != file.size:
            reasons.wrong(file.path, f"The seal says {file.size} bytes; it has {member.identity.size}.")
        else:
            try:
                with view.open(file.path) as opened:
                    if opened.entry.identity != member.identity:
                        reasons.wait(file.path, "It is not the version that was seen.")
                        continue
                    limit = min(limit, opened.evidence_limit)
                    if file.sha256 and _sha256(opened) != file.sha256:
                        reasons.wrong(file.path, "Its SHA-256 is not the seal's.")
                    opened.check()
            except NotPinned as error:
                reasons.not_pinned(error)
    if seal.only_these:
        for path, member in there.items():
            if member.role is not Role.MARKER:
                reasons.wrong(path, "The seal does not name it, and says that it names everything.")
    return limit


def pieces(file: SpoolFile) -> Iterator[bytes]:
    """All of a file, `READ_BYTES` at a time."""
    offset = 0
    while data := file.read(offset, READ_BYTES):
        yield data
        offset += len(data)


def _sha256(file: SpoolFile) -> bytes:
    sum_ = hashlib.sha256()
    for data in pieces(file):
        sum_.update(data)
    return sum_.digest()
