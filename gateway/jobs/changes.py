"""What a new look at a spool means against the generation before: carry, read, or leave out. Streaming, no effects
but reading attributes of what has no data.

Three sorted streams are merged: the look, the file list before, and what is known of the files it read. Nothing is held
but the paths of files with several links.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from gateway.catalog import KnownFile
from gateway.config.values import SourceConfig
from gateway.format.filelist import FileEntry, Item, LeftOutRecord
from gateway.model.entry import EntryType, Identity, LeftOut, LeftOutReason, order_key
from gateway.policy.naming import is_ignored, is_marker, is_temporary
from gateway.spool.looks import Looked, Verdict
from gateway.spool.metadata import xattrs_below
from gateway.spool.walk import SpoolEntry

OLD_ENOUGH_NS = 2_000_000_000
"""A file whose ctime is not this much older than the start of its last reading is read again: two changes within one
tick of the file system's clock have one ctime."""


def is_sure(known: KnownFile) -> bool:
    """Whether the last reading of a version came late enough after its ctime that the times tell any later change."""
    return known.identity.ctime_ns <= known.read_started_ns - OLD_ENOUGH_NS


Xattrs = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Carry:
    """Unchanged: its records go into the new list as bytes."""

    item: Item
    identity: Identity


@dataclass(frozen=True, slots=True)
class Raise:
    """Unchanged, and since it was read something better than what was known then said that it is complete."""

    entry: SpoolEntry
    item: Item
    known: KnownFile


@dataclass(frozen=True, slots=True)
class Read:
    """A file that is new, changed or not known well enough.

    `carry_on`: should it turn out to be what it was, its records of before may stay. `anew`: it has not
    changed, but what it refers to is retired. `known`: the evidence that this very version was read with before.
    `held_ns`: when it was read first, should its content be what it was; 0: never before.
    """

    entry: SpoolEntry
    before: Item | None
    carry_on: bool
    anew: bool = False
    known: int = 0
    held_ns: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """Something without data of its own. `news`: whether it alone is worth a generation. `known`: of a further name of
    a carried file, what is to be known of it from here on; what the first name was read with holds for it, too."""

    entry: FileEntry
    news: bool
    identity: Identity
    known: KnownFile | None = None


Decision = Carry | Raise | Read | Record | LeftOut
Wanted = Callable[[bytes], bool]
"""Whether a path may belong to the generation that is being made."""


def base_entry(entry: SpoolEntry, xattrs: Xattrs) -> FileEntry:
    """The record of an entry, as far as it can be said without reading it."""
    is_file = entry.type is EntryType.FILE
    is_device = entry.type in (EntryType.CHARACTER, EntryType.BLOCK)
    return FileEntry(
        path=entry.path, kind=int(entry.type), size=entry.identity.size if is_file else 0,
        mtime_ns=entry.identity.mtime_ns, mode=entry.mode, uid=entry.uid, gid=entry.gid, user=entry.user,
        group=entry.group, xattrs=xattrs, target=entry.target, rdev=entry.rdev if is_device else 0,
    )  # fmt: skip


def members(look: Iterable[Looked | LeftOut], source: SourceConfig, wanted: Wanted) -> Iterator[Looked | LeftOut]:
    """What of a look may belong to a generation. Ignored names and markers are passed over, temporary ones named."""
    for each in look:
        path = each.path if isinstance(each, LeftOut) else each.entry.path
        name = path.rpartition(b"/")[2]
        if not wanted(path) or any(is_ignored(part, source.ignore) for part in path.split(b"/")):
            continue
        if isinstance(each, Looked) and each.entry.type is EntryType.FILE:
            if is_marker(path, source.marker):
                continue
            if is_temporary(name):
                yield LeftOut(
                    path=path, reason=LeftOutReason.TEMPORARY, detail="Its name is that of a file not yet finished."
                )
                continue
        yield each


def everything(path: bytes) -> bool:  # noqa: ARG001  (a `Wanted`)
    """What a generation of a source of kind "files" may hold."""
    return True


class Changes:
    """Decides entry by entry. `usable`: whether all packs of a set may be referred to by a new generation; `retired`:
    whether some chunk of an item should not be, so that it is read though it has not changed; `held`: why a version
    that was left out before will be so again; `growing` is told of versions that have not settled.
    """

    def __init__(
        self, root: Path, *, usable: Callable[[set[int]], bool], retired: Callable[[Item], bool],
        held: Callable[[SpoolEntry], LeftOut | None], growing: Callable[[SpoolEntry], None],
        released: Callable[[bytes], bool], better: Callable[[SpoolEntry, int], bool],
        enough: Callable[[SpoolEntry, int], bool], carry: bool = True, of_before: bool = True,
    ) -> None:  # fmt: skip
        """`released`: whether we removed the file at a path. `better`: whether more than that evidence is noted for
        this very version; `enough`: whether that evidence is what the source wants now. `carry` False: records of the
        list before are of other paths and only say what a file was like. `of_before` False: what is known is of another
        generation than the list before; it says what was read, and had settled then, and not what that list holds."""
        self._root = root
        self._carry = carry
        self._usable = usable
        self._retired = retired
        self._held = held
        self._growing = growing
        self._released = released
        self._better = better
        self._enough = enough
        self._of_before = of_before
        self._links: dict[tuple[int, int], tuple[bytes, KnownFile | None]] = {}
        self.outdated: list[bytes] = []
        """Keys of known files that the look did not meet, or that are read anew: if that fails, the new generation has
        nothing of them, and they are known no more."""

    def decide(
        self,
        look: Iterable[Looked | LeftOut],
        before: Iterable[Item | LeftOutRecord],
        known: Iterable[KnownFile],
    ) -> Iterator[Decision]:
        items = (each for each in before if isinstance(each, Item))
        item = next(items, None)
        facts = iter(known)
        fact = next(facts, None)
        for each in look:
            if isinstance(each, LeftOut):
                yield each
                continue
            key = order_key(each.entry.path)
            while item is not None and order_key(item.entry.path) < key:
                yield from self._gone(item)
                item = next(items, None)
            while fact is not None and fact.key < key:
                self.outdated.append(fact.key)
                fact = next(facts, None)
            old = None
            if item is not None and item.entry.path == each.entry.path:
                old, item = item, next(items, None)
            same = fact if fact is not None and fact.key == key else None
            if same is not None:
                fact = next(facts, None)
            decision = self._one(each, old, same)
            stays = isinstance(decision, Carry | Raise)
            if same is not None and isinstance(decision, Record) and decision.known == same:
                decision, stays = replace(decision, known=None), True
            if same is not None and not stays:
                self.outdated.append(same.key)
            yield decision
        while item is not None:
            yield from self._gone(item)
            item = next(items, None)
        if fact is not None:
            self.outdated += [fact.key, *(rest.key for rest in facts)]

    def _gone(self, item: Item) -> Iterator[LeftOut]:
        """A file of the generation before that is not there: its producer removed it, or we did, which is said."""
        if item.entry.kind == EntryType.FILE and self._released(item.entry.path):
            yield LeftOut(path=item.entry.path, reason=LeftOutReason.RELEASED, detail="Its spool copy was removed.")

    def _one(self, looked: Looked, old: Item | None, known: KnownFile | None) -> Decision:
        entry = looked.entry
        if entry.type is not EntryType.FILE:
            return self._without_data(entry, old)
        inode = (entry.identity.device, entry.identity.inode)
        first = self._links.get(inode) if entry.nlink > 1 else None
        if first is not None:
            return self._another_link(entry, *first, old)
        decision = self._with_data(looked, old, known)
        if entry.nlink > 1 and not isinstance(decision, LeftOut):
            self._links[inode] = (entry.path, known if isinstance(decision, Carry | Raise) else None)
        return decision

    def _with_data(self, looked: Looked, old: Item | None, known: KnownFile | None) -> Decision:
        entry = looked.entry
        same = known if known is not None and known.identity == entry.identity else None
        evidence, held_ns = (same.evidence, same.held_ns) if same is not None else (0, 0)
        if (
            old is not None
            and known is not None
            and self._unchanged(entry, old, known)
            and self._enough(entry, old.entry.evidence)
        ):
            if self._retired(old):
                return Read(entry, old, carry_on=False, anew=True, known=evidence, held_ns=held_ns)
            return Raise(entry, old, known) if self._better(entry, old.entry.evidence) else Carry(old, entry.identity)
        # What was read as it is had settled then; it is only read again because two changes may share one ctime.
        if looked.verdict is Verdict.GROWING and not evidence:
            self._growing(entry)
            return LeftOut(path=entry.path, reason=LeftOutReason.GROWING, detail="It changed between two looks.")
        held = self._held(entry)
        if held is not None:
            return held
        carry_on = self._carry and old is not None and self._usable(old.packs) and not self._retired(old)
        # What was taken while the source wanted less, or by hand, is judged as if nobody had seen it.
        judged = evidence and not self._better(entry, evidence) and self._enough(entry, evidence)
        evidence = evidence if judged else 0
        return Read(entry, old, carry_on=carry_on, known=evidence, held_ns=held_ns)

    def _unchanged(self, entry: SpoolEntry, old: Item, known: KnownFile) -> bool:
        return (
            self._carry
            and self._of_before
            and old.entry.kind == EntryType.FILE
            and not old.entry.hardlink
            and known.identity == entry.identity
            and is_sure(known)
            and self._usable(old.packs)
        )

    def _another_link(
        self, entry: SpoolEntry, first: bytes, known: KnownFile | None, old: Item | None
    ) -> Decision:  # fmt: skip
        """A further name of a file: metadata, and the path of the first."""
        try:
            xattrs = xattrs_below(self._root, entry)
        except OSError as error:
            return unreadable(entry, error)
        record = msgspec.structs.replace(base_entry(entry, xattrs), hardlink=first)
        if known is not None:
            known = known.under(entry.path) if known.identity == entry.identity else None
        return Record(record, news=old is None or old.entry != record, identity=entry.identity, known=known)

    def _without_data(self, entry: SpoolEntry, old: Item | None) -> Decision:
        try:
            xattrs = xattrs_below(self._root, entry)
        except FileNotFoundError:
            return LeftOut(path=entry.path, reason=LeftOutReason.VANISHED)
        except OSError as error:
            return unreadable(entry, error)
        record = base_entry(entry, xattrs)
        if old is None:
            return Record(record, news=True, identity=entry.identity)
        same = old.entry
        if entry.type is EntryType.DIRECTORY:
            # Its time moves with everything that comes and goes in it, which is news, or is not, by itself.
            same = msgspec.structs.replace(same, mtime_ns=record.mtime_ns)
        return Record(record, news=same != record, identity=entry.identity)


def unreadable(entry: SpoolEntry, error: OSError) -> LeftOut:
    return LeftOut(path=entry.path, reason=LeftOutReason.UNREADABLE, detail=f"{error.strerror or error}.")
