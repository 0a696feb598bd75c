"""One backup job of a producer as a generation: which files it holds, and what is wrong with it."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice

import msgspec

from gateway.format.filelist import Item, LeftOutRecord
from gateway.format.log import BackupJob, Commit
from gateway.jobs.changes import Carry, Decision, Raise, Record
from gateway.model.entry import EntryType, Identity, LeftOut, order_key
from gateway.spool.walk import SpoolEntry

PROBLEMS = 20
"""LIMIT: reasons that an entry of the log names."""
GONE = "is not there any more"


Required = tuple[str, int, bytes]
"""Group, chain and id of a generation, as a commit has them."""


def _none(_: Sequence[Required]) -> Collection[Required]:
    return ()


@dataclass(frozen=True, slots=True)
class Kit:
    """A file that lies in no spool: the restore kit of a job."""

    entry: SpoolEntry
    data: bytes
    evidence: int


def with_kit(decisions: Iterable[Decision], job: Job | None) -> Iterator[Decision | Kit]:
    """The restore kit of a job where its path belongs in the order of the list; a file of that name goes first."""
    left = job.kit() if job is not None else None
    for decision in decisions:
        if left is not None and order_key(path_of(decision)) >= order_key(left.entry.path):
            if path_of(decision) != left.entry.path:
                yield left
            left = None
        yield decision
    if left is not None:
        yield left


@dataclass(frozen=True, kw_only=True)
class Job:
    """`members`: paths of its files; `folder`: everything below it belongs to it, too (empty: nothing does).
    `everything`: the generation holds the whole spool, as those of a source of kind "files" do; the members only say
    what must be in it, `sealed` in which versions. `problems`: what its seal said and is not so. `requires`: (group,
    chain, generation) of what it builds on. `told`: what its producer says of it; its restore kit becomes a file at
    `kit_path`. `lost` says of some of `requires` which are not protected any more, by their logs as they are then.
    """

    run: str
    members: frozenset[bytes] = frozenset()
    sealed: Mapping[bytes, Identity] = field(default_factory=dict)
    folder: bytes = b""
    problems: tuple[str, ...] = ()
    requires: tuple[Required, ...] = ()
    everything: bool = False
    told: BackupJob | None = None
    kit_path: bytes = b""
    evidence: int = 0
    sealed_ms: int = 0
    lost: Callable[[Sequence[Required]], Collection[Required]] = _none

    def holds(self, path: bytes) -> bool:
        """A member, something below the folder, or a directory on the way to one."""
        below = bool(self.folder) and _below(path, self.folder)
        return self.everything or below or path in self.members or path in self.on_the_way

    @cached_property
    def on_the_way(self) -> frozenset[bytes]:
        """Directories that lead to members and to the folder: looked at for every entry of the spool."""
        found: set[bytes] = set()
        for path in (*self.members, self.folder):
            while b"/" in path and (path := path.rpartition(b"/")[0]) not in found:
                found.add(path)
        return frozenset(found)

    def kit(self) -> Kit | None:
        """None: files speak for themselves."""
        if self.told is None or not self.told.kit or not self.kit_path:
            return None
        data = self.told.kit.encode("utf-8", "replace")
        identity = Identity(0, 0, len(data), self.sealed_ms * 1_000_000, 0)
        entry = SpoolEntry(
            path=self.kit_path, type=EntryType.FILE, identity=identity, mode=0o644, uid=os.geteuid(), gid=os.getegid()
        )
        return Kit(entry, data, self.evidence)

    def as_before(self, items: Iterable[Item | LeftOutRecord]) -> Iterator[Item | LeftOutRecord]:
        """The list of the job before, with its files where this job has them: the folder's name is another each time,
        what lies in it is not. So each file is compressed against what it was in the job before. Their records are
        those of other paths, so none may be carried on.
        """
        if not self.folder:
            yield from items
            return
        top: bytes | None = None
        for item in items:
            if not isinstance(item, Item):
                continue
            first, slash, rest = item.entry.path.partition(b"/")
            top = first if top is None else top
            if first == top and slash:
                yield replace(item, entry=msgspec.structs.replace(item.entry, path=self.folder + b"/" + rest))

    def problems_of(self, left_out: Sequence[LeftOut], count: int, missing: Mapping[bytes, str]) -> tuple[str, ...]:
        """Reasons why a generation of this job is incomplete: a job is whole, or it is not one. `missing`: of a
        `RollCall`."""
        found = [*self.problems, *lines(missing)]
        if self.everything:
            left_out = [left for left in left_out if left.path in self.members]
            count = len(left_out)
        others = (left for left in left_out if left.path not in missing)
        found += [f"{_name(left.path)} {_left_out(left)}" for left in islice(others, max(0, PROBLEMS - len(found)))]
        if count > len(left_out):
            found.append(f"{count - len(left_out)} more files are left out")
        return tuple(found[:PROBLEMS])


class RollCall:
    """Which files of a job one pass has recorded in the very versions that were sealed, and why not the others."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._missing = dict.fromkeys(job.sealed, GONE)
        self._ways: dict[bytes, LeftOut] = {}
        self._files = 0

    def take(self, decision: Decision) -> None:
        """What a decision means for it, except that of a file which is still to be read."""
        match decision:
            case Carry(item=Item(entry=entry), identity=identity):
                self.recorded(entry.path, identity)
            case Raise(entry=seen):
                self.recorded(seen.path, seen.identity)
            case Record(entry=entry, identity=identity) if entry.kind == EntryType.FILE:
                self.recorded(entry.path, identity)
            case LeftOut():
                self.left_out(decision)

    def recorded(self, path: bytes, identity: Identity) -> None:
        self._files += 1
        sealed = self._job.sealed.get(path)
        if sealed == identity:
            self._missing.pop(path, None)
        elif sealed is not None:
            self._missing[path] = "is not the version that was sealed"

    def left_out(self, left: LeftOut) -> None:
        if left.path in self._job.sealed:
            self._missing[left.path] = _left_out(left)
        elif left.path in self._job.on_the_way:
            self._ways[left.path] = left

    def missing(self) -> dict[bytes, str]:
        """Path -> why the generation does not hold it as it was sealed. A directory that was left out says it of all
        that lies below."""
        for path, reason in self._missing.items() if self._ways else ():
            way = next((left for way, left in self._ways.items() if _below(path, way)), None)
            if reason == GONE and way is not None:
                self._missing[path] = _left_out(way)
        return self._missing

    def stands_in(self, before: Commit | None) -> bool:
        """Where nothing was new: whether the generation before is what was sealed. That of a job holds nothing else."""
        if before is None or not before.complete or self._job.problems or self.missing():
            return False
        return self._job.everything or before.statistics.files == self._files

    def wants_its_own(self, before: Commit | None) -> bool:
        """Where nothing was new: whether the job is worth a generation though. The whole spool is not kept a second
        time only to say that it lacks something."""
        if not self._files or self.stands_in(before):
            return False
        return not (self._job.everything and (self._job.problems or self.missing()))


def lines(missing: Mapping[bytes, str]) -> list[str]:
    """What a `RollCall` misses, for people."""
    return [f"{_name(path)} {missing[path]}" for path in heapq.nsmallest(PROBLEMS, missing)]


def path_of(decision: Decision) -> bytes:
    match decision:
        case Carry(item=item):
            return item.entry.path
        case LeftOut():
            return decision.path
        case _:
            return decision.entry.path


def _name(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _left_out(left: LeftOut) -> str:
    return f"is left out: {left.reason}. {left.detail}".rstrip()


def _below(path: bytes, directory: bytes) -> bool:
    return path == directory or path.startswith(directory + b"/")
