"""The one door to a gateway: everything the CLI, the control socket and the REST API can ask for, as values.

A `GatewayApi` speaks for one configuration. Calls raise `gateway.errors.GatewayError`; whoever calls decides how an
error is shown. Whatever costs money, takes hours or deletes has a `dry_run`, which returns the plan that the same call
would carry out.

Sizes are bytes, times are aware UTC, names of files are bytes as the file system has them (`printable` shows them).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from gateway import __version__
from gateway.errors import UsageError
from gateway.log import printable
from gateway.model.ids import NAME, ChainName

FORMAT_VERSION = 1


# --- what is asked for -----------------------------------------------------------------------------------------------


_ID_PREFIX = re.compile(r"g[0-9a-f]{0,32}")
_DIGITS = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Names one generation of a source: by `number`, by a unique prefix of its id, or, with neither, the latest."""

    source: str
    number: int | None = None
    id_prefix: str | None = None

    def __post_init__(self) -> None:
        if self.number is not None and self.id_prefix is not None:
            raise ValueError("a number or a prefix, not both")

    def __str__(self) -> str:
        if self.number is not None:
            return f"{self.source}@{self.number}"
        return f"{self.source}@{self.id_prefix or 'latest'}"

    @classmethod
    def parse(cls, text: str) -> Reference:
        """``SOURCE[@GEN]``; GEN is ``latest`` (the default), a number, or ``g`` and first digits of an id."""
        source, separator, generation = text.partition("@")
        if not NAME.fullmatch(source):
            raise UsageError(
                f'"{printable(text)}" does not name a generation.',
                meaning="It is written SOURCE@GENERATION, and a source's name is 1 to 32 of a-z, 0-9 and -.",
                advice="`gateway generations` lists them.",
            )
        if not separator or generation == "latest":
            return cls(source=source)
        if _DIGITS.fullmatch(generation):
            return cls(source=source, number=int(generation))
        if _ID_PREFIX.fullmatch(generation) and len(generation) > 1:
            return cls(source=source, id_prefix=generation)
        raise UsageError(
            f'"{printable(generation)}" in "{printable(text)}" does not name a generation.',
            meaning='A generation is named by "latest", its number, or the letter g and the first digits of its id.',
            advice=f"`gateway generations {source}` lists them.",
        )

    def choose(self, generations: Sequence[GenerationInfo], *, incomplete: bool = False) -> GenerationInfo:
        """The one generation meant, out of all of its source.

        The latest is the newest that is protected; with `incomplete` the newest whatever its state; where none is
        protected, the newest there is, so that the caller can say what is wrong with it. `UsageError`: none, or
        more than one.
        """
        own = [each for each in generations if each.source == self.source]
        if not own:
            raise UsageError(
                f'There is no generation of source "{self.source}" in the repository.',
                meaning="Either nothing was ingested from it yet, or its name is spelt differently.",
                advice="`gateway generations` lists all.",
            )
        newest_first = sorted(own, key=lambda each: each.number, reverse=True)
        if self.number is not None:
            found = [each for each in newest_first if each.number == self.number]
        elif self.id_prefix is not None:
            found = [each for each in newest_first if each.id.startswith(self.id_prefix)]
        else:
            protected = [each for each in newest_first if each.state is GenerationState.PROTECTED]
            found = newest_first[:1] if incomplete or not protected else protected[:1]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(
                f"{self} fits {len(found)} generations: {', '.join(each.id for each in found[:4])}.",
                meaning="A prefix must fit exactly one.",
                advice="Give more digits of the id, or the generation's number.",
            )
        numbers = f"{newest_first[-1].number} to {newest_first[0].number}"
        raise UsageError(
            f"There is no generation {self}.",
            meaning=f'Source "{self.source}" has {len(own)}, with numbers from {numbers}.',
            advice=f"`gateway generations {self.source}` lists them.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """How far a chain's log reached: its newest entry. Written ``GROUP/NUMBER:SEQUENCE:DIGEST``.

    `digest` is the SHA-256 of that entry as 64 hexadecimal digits.
    """

    chain: ChainName
    sequence: int
    digest: str

    def __str__(self) -> str:
        return f"{self.chain}:{self.sequence}:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Head:
        found = re.fullmatch(r"([a-z0-9-]{1,32})/([0-9]{1,9}):([0-9]{1,18}):([0-9a-f]{64})", text)
        if not found:
            raise UsageError(
                f'"{printable(text)}" is not the head of a log.',
                meaning="It is written GROUP/NUMBER:SEQUENCE:DIGEST, with 64 hexadecimal digits.",
                advice="Copy it from `gateway generations --json` (the field head) or from a report.",
            )
        chain = ChainName(found[1], int(found[2]))
        return cls(chain=chain, sequence=int(found[3]), digest=found[4])


class Depth(StrEnum):
    """How deep a verification looks; each includes those before it."""

    PRESENCE = "presence"
    """Every object that is needed is listed by the store with its declared size."""
    STRUCTURE = "structure"
    """Log, indexes and file lists are read and decrypted; every run of every list leads into a directory."""
    DATA = "data"
    """Every pack is read, every segment decoded, every chunk's id and every file's digest compared."""


# --- what goes on while it works -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a phase is. `phase` is a word for people ("reading", "uploading", "proving", "fetching" ...), `unit` is
    "bytes" or a plural noun, `total` is None while nobody knows it. A later event of the same phase replaces it."""

    phase: str
    done: int
    total: int | None = None
    unit: str = "bytes"


ProgressCallback = Callable[[Progress], object]
"""Called from any thread, at most some ten times a second; returns at once and never raises. False: nobody listens any
more, which ends what only waits, and no work."""


def no_progress(progress: Progress) -> None:
    """For callers that do not look."""


# --- what comes back -------------------------------------------------------------------------------------------------


class GenerationState(StrEnum):
    OPEN = "open"
    SEALED = "sealed"
    PROTECTED = "protected"
    INCOMPLETE = "incomplete"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A file that is not in a generation or not restored, and why (one word or a short phrase)."""

    path: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationInfo:
    """One line of the list of generations.

    `id` is ``g`` and 32 hexadecimal digits; `chain` is ``GROUP/NUMBER``; `head` names the entry that committed it, as
    ``rebuild --expect-head`` takes it; `evidence` is the weakest of its files; `bytes` is the data of its files,
    `stored_bytes` what its new packs take in the store.
    """

    source: str
    number: int
    id: str
    chain: str
    head: str
    created: datetime
    state: GenerationState
    evidence: int
    files: int
    bytes: int
    stored_bytes: int
    storage_class: str = "instant"
    held: bool = False
    left_out: int = 0
    reason: str = ""
    """Why it is not protected."""
    hot_until: datetime | None = None
    """From then on some of it must be thawed first; None: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceCount:
    evidence: int
    files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassNeeds:
    """What a generation needs of one storage class, bases included."""

    storage_class: str
    packs: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackInfo:
    number: int
    id: str
    storage_class: str
    bytes: int
    new: bool
    """Declared by this generation, not by an earlier one."""
    proved: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """How a generation was reduced, in bytes of file data unless said otherwise. Numbers nobody took are None."""

    read_bytes: int
    """Read from the spool; the rest was known to be unchanged."""
    duplicate_bytes: int
    new_bytes: int
    """In chunks that the chain did not have."""
    stored_bytes: int
    """New packs in the store."""
    delta_bytes: int | None = None
    """Of the new bytes: those compressed against the generation before."""
    new_chunks: int | None = None
    bases_missing: int | None = None
    """New chunks whose base was not at hand."""
    bases_bounded: int | None = None
    """New chunks for which every base would have broken a bound of the format."""
    retired_bytes: int | None = None
    """Stored anew though the chain had it, to let old packs go that are hardly used any more."""
    cache_wanted_bytes: int | None = None
    """The size of pack cache at which every base is at hand."""
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupJob:
    """What the producer of a backup job says of it. `lacks`: what it needs and no protected generation had."""

    run: str
    producer: str
    facts: tuple[Fact, ...] = ()
    lacks: tuple[str, ...] = ()
    kit: str = ""
    """How somebody who has its files comes to what was backed up; a file of the generation, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationDetail:
    info: GenerationInfo
    sealed: datetime | None = None
    operator: str | None = None
    """Who sealed it by hand."""
    statistics: Statistics | None = None
    evidence: tuple[EvidenceCount, ...] = ()
    needs: tuple[ClassNeeds, ...] = ()
    packs: tuple[PackInfo, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    left_out_more: int = 0
    """Files left out beyond those named."""
    advice: tuple[str, ...] = ()
    """What would make later generations smaller."""
    requires: tuple[str, ...] = ()
    """Ids of generations this one cannot be used without."""
    jobs: tuple[BackupJob, ...] = ()
    """Backup jobs whose files it holds, as far as their producers are known."""


class FileType(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER_DEVICE = "character-device"
    BLOCK_DEVICE = "block-device"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """`path` is relative to the source, without a leading slash; `mode` has the permission bits only."""

    path: bytes
    type: FileType
    size: int
    mtime_ns: int
    mode: int
    uid: int = 0
    gid: int = 0
    evidence: int | None = None
    digest: str | None = None
    link_target: bytes | None = None
    hard_link_to: bytes | None = None
    """Path of the first member of its hard-link group."""

    @property
    def printable_path(self) -> str:
        return printable(self.path)


class Change(StrEnum):
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    METADATA = "metadata"
    """Same data; times, mode, owner or attributes differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffEntry:
    """`before` is None for what was added, `after` for what was removed."""

    path: bytes
    change: Change
    before: FileInfo | None = None
    after: FileInfo | None = None


class Answer(StrEnum):
    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """Something a store can do or not, found by trying, and what that means in one sentence."""

    name: str
    answer: Answer
    meaning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitReport:
    """SECURITY: `recovery_sheet` opens the repository; it is shown once and never logged."""

    repository: str
    url: str
    recovery_sheet: str = field(repr=False)
    capabilities: tuple[Capability, ...] = ()
    notes: tuple[str, ...] = ()


class Grade(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at: the store answers, a source's path is there, the passphrase fits ..."""

    grade: Grade
    subject: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error as a value, where one source's failure must not hide what became of the others."""

    kind: str
    what: str
    meaning: str
    advice: str
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceIngest:
    """What became of one source. `generation` is None when there was nothing new to keep, or on `failure`.

    `held_back` are files that are not in the generation although they are in the spool, with the reason. `unprotected`
    are those of them that were there before the call came and that somebody may rely on: not those of temporary names.
    """

    source: str
    generation: GenerationInfo | None = None
    files_read: int = 0
    files_unchanged: int = 0
    held_back: tuple[LeftOut, ...] = ()
    held_back_more: int = 0
    unprotected: tuple[LeftOut, ...] = ()
    unprotected_more: int = 0
    bytes_read: int = 0
    new_bytes: int = 0
    stored_bytes: int = 0
    packs: int = 0
    seconds: float = 0.0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport:
    sources: tuple[SourceIngest, ...]


class RestoreState(StrEnum):
    """APPROVAL: waits until somebody approves its costs. THAWING: packs are asked for, waited for and fetched.
    REHYDRATING: files are being written. PAUSED, until somebody resumes it: by hand, or because it would cost or take
    more than it may. Four ends: DELIVERED, PARTIAL (some files were left out), FAILED, CANCELLED."""

    APPROVAL = "approval"
    THAWING = "thawing"
    REHYDRATING = "rehydrating"
    PAUSED = "paused"
    DELIVERED = "delivered"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (RestoreState.DELIVERED, RestoreState.PARTIAL, RestoreState.FAILED, RestoreState.CANCELLED)

    @property
    def active(self) -> bool:
        """Whether it goes on by itself."""
        return self in (RestoreState.THAWING, RestoreState.REHYDRATING)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateNeeds:
    """Packs that a restore reads, and what is fetched of them. `state`: cached, readable, thawed, thawing or cold."""

    state: str
    packs: int
    size: int
    fetch_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CostFigure:
    """One line of a quote. `amount` None: not known; `origin` says where the price comes from, or why there is none."""

    what: str
    quantity: float
    unit: str
    amount: float | None
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TierOffer:
    """What a restore costs and how long it takes at most, if its cold packs are thawed by `tier`. None: not known.

    `fits`: within budget and deadline, and to be had; `reason` says why not, or why it was taken.
    """

    tier: str
    usd: float | None
    hours: float | None
    fits: bool
    reason: str = ""
    currency: str = "USD"
    figures: tuple[CostFigure, ...] = ()
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlan:
    """What a restore will do. `fetch_bytes` and `requests` are what the store is asked for, in `packs` packs;
    `cached_bytes` come from the pack cache instead."""

    generation: GenerationInfo
    files: int
    bytes: int
    packs: int
    requests: int
    fetch_bytes: int
    cached_bytes: int = 0
    classes: tuple[ClassNeeds, ...] = ()
    existing: int = 0
    """Files that are at the target already."""
    cold_packs: int = 0
    """Of `packs`: those that cannot be read before they are thawed."""
    cold_bytes: int = 0
    """What those hold, which is what a thaw is about."""
    by_state: tuple[StateNeeds, ...] = ()
    tiers: tuple[TierOffer, ...] = ()
    """The slowest tier first; all the same where nothing has to be asked for."""
    chosen: str = ""
    """The tier that will be used where something has to be thawed; empty where none fits."""
    reason: str = ""
    scratch_bytes: int = 0
    """The most that lies in the scratch directory at a time."""
    waves: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """A restore job. `packs`: that the store is asked for; `bytes_done` of `bytes_total`: of files.

    `quote_usd`, `spent_usd`: None where a price is not known; `requests`: to thaw, to look and to read. `stages`: packs
    by where they are. `phases`: seconds in each. `next_look`: when there is something to do again. `problem`: the class
    of the error that paused or ended it, whose text is `reason`.
    """

    id: str
    state: RestoreState
    generation: str
    target: Path
    created: datetime
    updated: datetime
    packs: int
    bytes_done: int
    bytes_total: int
    quote_usd: float | None
    spent_usd: float | None
    requests: int
    reason: str = ""
    tier: str = ""
    currency: str = "USD"
    quote_hours: float | None = None
    deadline: datetime | None = None
    budget: str = ""
    files_done: int = 0
    files_total: int = 0
    left_out: int = 0
    stages: tuple[tuple[str, int], ...] = ()
    phases: tuple[tuple[str, float], ...] = ()
    next_look: datetime | None = None
    operator: str = ""
    approved_by: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport:
    """After a `dry_run` only the plan says something."""

    plan: RestorePlan
    target: Path
    dry_run: bool
    files: int = 0
    bytes: int = 0
    left_out: tuple[LeftOut, ...] = ()
    left_out_more: int = 0
    notes: tuple[str, ...] = ()
    """What could not be given back to files that were restored: owners, attributes ..."""
    seconds: float = 0.0
    job: JobInfo | None = None
    """None after a `dry_run`, and where the catalog cannot be written."""


class ProblemKind(StrEnum):
    MISSING = "missing"
    CORRUPT = "corrupt"
    ROLLED_BACK = "rolled-back"
    """A log is shorter than it was known to be, or is not the same."""
    DENIED = "denied"
    COLD = "cold"
    BUSY = "busy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`address` is the object's key, or key and frame; `generations` are written ``SOURCE@NUMBER``."""

    kind: ProblemKind
    address: str
    what: str
    generations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainInfo:
    """One chain, as the catalog has it. Sizes are bytes in the store, of packs with their indexes."""

    chain: str
    source: str
    storage_class: str
    state: str
    """``open``, ``closed``, ``ended`` or ``damaged``."""
    created: datetime
    head: str
    """The newest entry seen, as `rebuild --expect-head` takes it."""
    generations: int
    """Those that are not expired."""
    packs: int
    stored_bytes: int
    data_bytes: int
    """What the files of its generations hold, each generation counted."""
    full_bytes: int
    """What its generations would take as one full each: their data at the ratio that plain segments of it reached."""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """After a `dry_run` `objects` and `bytes` are what would be looked at and read, and there are no problems."""

    depth: Depth
    dry_run: bool
    generations: int
    objects: int
    bytes: int
    requests: int = 0
    problems: tuple[Problem, ...] = ()
    problems_more: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildReport:
    """`heads` are the newest entries found, to be kept and given to the next rebuild as expected."""

    chains: int
    generations: int
    packs: int
    heads: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedFile:
    """A file as a producer lists it in a seal call. `size` None and an empty `digest`: not said. A digest is written
    ``sha256:HEX``, with the name of any algorithm that Python's hashlib has."""

    path: bytes
    size: int | None = None
    digest: str = ""


class RunState(StrEnum):
    BEGUN = "begun"
    SEALED = "sealed"
    FAILED = "failed"
    PROTECTED = "protected"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What became of a run of a producer. `problems`: what its seal said and is not so; `generation`: what holds it."""

    source: str
    run: str
    state: RunState
    problems: tuple[str, ...] = ()
    generation: GenerationInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingFile:
    """A file that is in no generation as it is. `state`: seen, growing, quiet, candidate or held; `detail` says why."""

    path: bytes
    state: str
    size: int
    since: datetime
    detail: str = ""


ACCEPTED = ("anomaly", "damaged-pack", "deleted-before-protected", "seal-mismatch")
"""Kinds of alarms that a person may answer for. `accept` takes the first where none is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """An open or closed condition that somebody must look at."""

    kind: str
    subject: str
    what: str
    meaning: str
    advice: str
    opened: datetime
    closed: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Something under way or waiting. `rate`: of `done` a second; None where nobody knows."""

    what: str
    source: str = ""
    phase: str = ""
    done: int = 0
    total: int | None = None
    unit: str = "bytes"
    seconds: float = 0.0
    rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """`files` are the first of the `pending`; `full_in` seconds until the spool's file system is full at this rate."""

    name: str
    path: Path
    kind: str
    pending: int
    files: tuple[PendingFile, ...] = ()
    newest: GenerationInfo | None = None
    """The newest protected generation."""
    age: float | None = None
    """Seconds since it began."""
    expect_every: float | None = None
    overdue: bool = False
    spool_bytes: int = 0
    spool_free: int = 0
    full_in: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """`running`: whether an engine runs; without one nothing is noticed until somebody runs `gateway ingest`."""

    running: bool
    sources: tuple[SourceStatus, ...]
    alarms: tuple[Alarm, ...]
    work: tuple[Work, ...] = ()
    queue: tuple[Work, ...] = ()
    since: datetime | None = None
    pid: int | None = None
    gateway: str = __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseReport:
    """`files` of `size` bytes left the spool, or would after a `dry_run`; `paths` are the first of them."""

    source: str
    dry_run: bool
    paths: tuple[bytes, ...] = ()
    files: int = 0
    size: int = 0
    reason: str = ""
    """Why nothing may go, where nothing may."""


class RuleDriftKind(StrEnum):
    MISSING = "missing"
    CHANGED = "changed"
    UNWANTED = "unwanted"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleDrift:
    """A lifecycle rule of the gateway's that is not what it should be; `wanted` and `found` are in words."""

    rule: str
    kind: RuleDriftKind
    wanted: str = ""
    found: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignRule:
    """A lifecycle rule of somebody else that acts on the repository's objects. `what` says it in a sentence."""

    rule: str
    prefix: str
    does: tuple[str, ...]
    deletes: bool
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketRule:
    """One lifecycle rule of the bucket. `own`: whether it is the gateway's for this repository; `does`: in words."""

    rule: str
    own: bool
    does: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecycleReport:
    """The bucket's lifecycle rules against what they should be.

    `rules`: all of the bucket as they are now, after `lifecycle_plan` as they would be. `drift`: what differs; after
    `lifecycle_apply` what still does. `written`: whether they were replaced. `conflicts`: why nothing may be written.
    """

    url: str
    written: bool
    rules: tuple[BucketRule, ...] = ()
    drift: tuple[RuleDrift, ...] = ()
    foreign: tuple[ForeignRule, ...] = ()
    conflicts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepReason:
    """Why a generation is kept. `rule`: one word; `until`: when it ends, where time alone ends it."""

    rule: str
    text: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionDecision:
    """`reasons`: all that keep it. None: it expires, and `why` says for each rule why it does not keep it."""

    source: str
    number: int
    id: str
    begun: datetime
    reasons: tuple[KeepReason, ...] = ()
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """Nothing of `source` expires now, and why; an empty name means all sources."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionReport:
    """What is kept and what expires, by source, the newest first.

    `plan` names it: the same decisions for the same reasons have the same name. `removed_bytes` of the `stored_bytes`
    are in packs that no generation needs afterwards. `expired`: what a run let expire, as ``SOURCE@NUMBER``.
    """

    plan: str
    decisions: tuple[RetentionDecision, ...] = ()
    freezes: tuple[Freeze, ...] = ()
    stored_bytes: int = 0
    removed_bytes: int = 0
    needs_approval: bool = False
    expired: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldReport:
    """`holds`: why it must stay, one for each hold. `kept_again`: generations whose expiry was undone by it."""

    source: str
    number: int
    id: str
    holds: tuple[str, ...] = ()
    kept_again: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireReport:
    """`freed_bytes`: in packs that only this generation needs; `until`: how long a hold undoes it."""

    source: str
    number: int
    id: str
    dry_run: bool
    freed_bytes: int = 0
    until: datetime | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptObject:
    """A pack, or an object that no entry names. `verdict`: keep, wait, condemn or delete; `until`: when it may go."""

    chain: str
    key: str
    size: int
    verdict: str
    reason: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """`objects`: the first of those that do not simply stay. After a `dry_run` the numbers are what a run would do.

    `ended`: chains that were finished. `problems`: what could not be deleted, or looked at.
    """

    dry_run: bool
    kept: int = 0
    kept_bytes: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    deleted: int = 0
    deleted_bytes: int = 0
    objects: tuple[SweptObject, ...] = ()
    objects_more: int = 0
    ended: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionInfo:
    gateway: str = __version__
    format: int = FORMAT_VERSION
    chunker: str = ""
    """Which implementation of the chunker runs."""


# --- the door --------------------------------------------------------------------------------------------------------


class GatewayApi(Protocol):
    """One gateway. Iterators are lazy: they read on as they are consumed, and raise where they meet an error."""

    def init(self) -> InitReport:
        """Make a new repository with a passphrase slot and a recovery-sheet slot.

        `UsageError` when there is one already. After a failure it may be called again.
        """

    def check_config(self) -> CheckReport:
        """Look at what the configuration names: store, repository, passphrase, paths. Changes nothing."""

    def ingest(
        self,
        source: str | None = None,
        *,
        seal_now: bool = False,
        new_chain: bool = False,
        operator: str = "",
        progress: ProgressCallback = no_progress,
    ) -> IngestReport:
        """Make the next generation of a source, or of every source, and return when it is protected.

        With `seal_now` quiet files are taken at once, without waiting for their settle time; `operator` is the person
        who answers for that and stays visible with the generation. `new_chain`: it is the first of a new chain, so
        everything is read and stored again, whether something is new or not.
        """

    def generations(self, source: str | None = None) -> Sequence[GenerationInfo]:
        """All generations, by source and number; expired ones are not among them."""

    def chains(self, source: str | None = None) -> Sequence[ChainInfo]:
        """All chains, by group and number."""

    def show(self, reference: Reference) -> GenerationDetail: ...

    def list_files(self, reference: Reference, path: bytes = b"") -> Iterator[FileInfo]:
        """The file at `path`, or all files below it, in list order. `UsageError`: there is none."""

    def diff(self, before: Reference, after: Reference) -> Iterator[DiffEntry]:
        """What differs between two generations, in list order."""

    def restore(
        self,
        reference: Reference,
        to: Path,
        *,
        paths: Sequence[bytes] = (),
        overwrite: bool = False,
        incomplete: bool = False,
        dry_run: bool = False,
        tier: str = "",
        deadline: timedelta | None = None,
        budget: Decimal | None = None,
        detach: bool = False,
        operator: str = "",
        progress: ProgressCallback = no_progress,
    ) -> RestoreReport:
        """Write the files of a generation below a directory, as a restore job.

        What is cold is thawed first: by `tier`, else by the cheapest that is within `budget` and done by `deadline`
        (counted from now). `OverBudget`: none is. `ApprovalNeeded`: it costs more than `restore.approval_above`; the
        job waits for `approve_job`. With `detach` it returns when the job is begun; without, when it came to an end.

        `paths` are patterns over whole paths: ``*``, ``?`` and ``[...]`` never match a slash, ``**`` does; one that
        matches a directory takes all below it. None means everything; a pattern that matches nothing is a
        `UsageError`. A file that exists is left out (with a reason) unless `overwrite`. A generation that is not
        protected is refused unless `incomplete`.
        """

    def jobs(self) -> Sequence[JobInfo]:
        """Restore jobs, the newest first. From the catalog alone."""

    def job(self, job: str) -> JobInfo:
        """By its id or the beginning of it, if no other begins so. From the catalog alone."""

    def approve_job(self, job: str, *, operator: str = "") -> JobInfo:
        """Let a job begin that waits for approval of its costs."""

    def cancel_job(self, job: str, *, operator: str = "") -> JobInfo:
        """End a job for good. What was delivered stays; thaws that were asked for cannot be taken back."""

    def pause_job(self, job: str, *, operator: str = "") -> JobInfo:
        """Ask for nothing more, fetch nothing more, until it is resumed. Idempotent."""

    def resume_job(
        self,
        job: str,
        *,
        deadline: timedelta | None = None,
        budget: Decimal | None = None,
        tier: str = "",
        operator: str = "",
    ) -> JobInfo:
        """Let a job go on, or a running one go on by another deadline (from now), budget or tier: what is thawing
        slower than that is hastened. `OverBudget`: no tier fits; nothing is changed.
        """

    def watch_job(self, job: str, *, progress: ProgressCallback = no_progress) -> RestoreReport:
        """Return when a job came to its end, carrying it out meanwhile where no engine does. Errors as of `restore`."""

    def verify(
        self,
        source: str | None = None,
        *,
        depth: Depth = Depth.STRUCTURE,
        dry_run: bool = False,
        progress: ProgressCallback = no_progress,
    ) -> VerifyReport:
        """Check generations against the store. Damage is reported, not raised."""

    def rebuild(self, *, expect_heads: Sequence[Head] = (), progress: ProgressCallback = no_progress) -> RebuildReport:
        """Make the catalog anew from the bucket. A log that is shorter than an expected head is a problem."""

    def status(self) -> StatusReport:
        """What is pending, under way and wrong, from the catalog and, where one runs, from the engine."""

    def alarms(self, limit: int = 100) -> Sequence[Alarm]:
        """Open and closed alarms, the newest first."""

    def accept(self, source: str, *, alarm: str = "anomaly", operator: str = "") -> bool:
        """A person looked at what an alarm of `ACCEPTED` says of a source and answers for it: it closes. False: none
        was open."""

    def begin(self, source: str, run: str, *, operator: str = "") -> RunReport:
        """A producer begins a backup job. The same call again changes nothing."""

    def seal(
        self,
        source: str,
        run: str,
        *,
        files: Sequence[SealedFile] = (),
        folder: bytes = b"",
        requires: Sequence[str] = (),
        operator: str = "",
        wait: bool = False,
        progress: ProgressCallback = no_progress,
    ) -> RunReport:
        """A producer says that a backup job is complete: these files, or all below a folder of the source.

        What is there is compared with what is said before this returns; what does not match makes the run
        `INCOMPLETE`, with its problems. `requires`: runs it is worth nothing without. `wait`: until it is protected.
        The same call again answers what became of the run.
        """

    def fail(self, source: str, run: str, *, reason: str = "", operator: str = "") -> RunReport:
        """A producer gave a job up. A run that was sealed stays sealed (`UsageError`)."""

    def barrier(
        self, source: str | None = None, *, wait: bool = True, progress: ProgressCallback = no_progress
    ) -> IngestReport:
        """Protect what was written so far, without waiting for `generation_interval`. With `wait` it returns when that
        is done, or when only files are left that are held back: `unprotected`."""

    def release(self, source: str | None = None, *, dry_run: bool = False) -> Sequence[ReleaseReport]:
        """Remove from the spool what the source's settings say may go: proved versions only."""

    def retention_plan(self, source: str | None = None) -> RetentionReport:
        """What the retention rules keep and let expire, of a source or of all. Changes nothing."""

    def retention_apply(self, source: str | None = None, *, approve: str = "", operator: str = "") -> RetentionReport:
        """Let expire what the plan says, computed from the logs as they are now.

        `ApprovalNeeded`: it removes more than a tenth of the stored bytes and `approve` does not name it, or `approve`
        names another plan. Until packs are condemned a hold undoes it.
        """

    def hold_generation(self, reference: Reference, *, reason: str, operator: str = "") -> HoldReport:
        """A generation must stay, with all it requires, until `unhold_generation`. One that has expired is kept again.

        `UsageError`: it has expired and packs of it are condemned already.
        """

    def unhold_generation(self, reference: Reference, *, reason: str = "", operator: str = "") -> HoldReport:
        """End all holds of a generation. `UsageError`: it has none."""

    def expire_generation(self, reference: Reference, *, dry_run: bool = False, operator: str = "") -> ExpireReport:
        """Let one generation expire, whatever the rules say. `UsageError`: something needs it."""

    def sweep(
        self, source: str | None = None, *, dry_run: bool = False, progress: ProgressCallback = no_progress
    ) -> SweepReport:
        """Delete packs that no kept generation needs and whose time has come, and finish chains that hold nothing."""

    def lifecycle_plan(self) -> LifecycleReport:
        """What `lifecycle_apply` would change. `StoreRefused`: the store has no lifecycle rules."""

    def lifecycle_apply(self, *, operator: str = "") -> LifecycleReport:
        """Make the bucket's lifecycle rules what the classes need, and read them back. Rules of others stay as they
        are. With `conflicts` nothing is written."""

    def lifecycle_check(self) -> LifecycleReport:
        """Compare only, and open or close the alarms about it."""

    def version(self) -> VersionInfo: ...

    def close(self) -> None:
        """Give back locks and connections. May be called twice."""
