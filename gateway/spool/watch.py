"""What is pending in a source: files whose bytes are in no generation yet, and since when they have not changed.

One `Watch` per source, in memory (docs/design/engine.md). Time is the monotonic clock's. A file is *settled* when its
identity was the same at every look for the settle time, or when something better than quiet says that it is complete.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass

from gateway.clock import Clock, milliseconds
from gateway.config.values import SourceConfig
from gateway.model.entry import EntryType, Evidence, Identity, LeftOut, LeftOutReason, order_key
from gateway.policy.naming import is_ignored, is_marker, is_temporary, marker_of
from gateway.spool.looks import Looked, Verdict
from gateway.spool.walk import SpoolEntry, walk

LIMIT_PENDING = 100_000
"""LIMIT: pending files that are known by name, about 40 MiB. More of them are found by two looks on disk."""
LIMIT_GONE = 100
"""LIMIT: files that went too early and are named at one time."""
AGAIN_SECONDS = 2.5
"""LIMIT: a little more than what a ctime must be older than a reading to tell anything."""
RETRY_SECONDS = 60.0
"""LIMIT: how soon a file is tried again that had a writer, could not be read, or changed or was away while it was read,
where no event says sooner that its writer let go of it."""

_RETRIED = (LeftOutReason.WRITER, LeftOutReason.CHANGED, LeftOutReason.UNREADABLE, LeftOutReason.VANISHED)


@dataclass(slots=True)
class Pending:
    """`since`: monotonic seconds, the first look at which it was as it is; `first_ms`: the same on the wall clock."""

    identity: Identity
    since: float
    first_ms: int
    looks: int = 1
    changed: bool = False
    held: LeftOut | None = None
    retry_at: float = float("inf")
    again: bool = False
    """The newest generation read it as it is, but so soon after its last change that it must be read once more."""
    sure: bool = False
    """Something better than quiet says that it is complete: it need not settle."""
    marker: Identity | None = None
    """Its marker file as it was when it was last looked at for a version that is held back."""


@dataclass(frozen=True, slots=True)
class Unread:
    """What a walk could not look into: whatever is below it is in no generation, and nobody knows its names. Times as
    in `Pending`."""

    left: LeftOut
    since: float
    first_ms: int


_Found = SpoolEntry | LeftOut


@dataclass(slots=True)
class _Rename:
    """A file came from the temporary name `before`, and was `seen` so. `touched`: something happened to it since."""

    before: bytes
    seen: Identity
    touched: bool = False

    def vouches(self, now: Identity) -> bool:
        """Whether it is still what was renamed. A look may come hours later, behind a pass, and by then somebody may
        have written half of another version over it. A rename moves only ctime, so do a new mode and a new owner; who
        writes sets both to one moment, which tells him where he was faster than the event.
        """
        return _version(self.seen) == _version(now) and not (self.touched and now.mtime_ns == now.ctime_ns)


class Watch:
    """See the module. `hint`, `renamed` and `look_everywhere` may be called from any thread, the rest from one."""

    def __init__(
        self, source: SourceConfig, clock: Clock, vouch: Callable[[bytes, Identity, Evidence, str], None]
    ) -> None:
        """`vouch` is told of evidence for a version that only this watch has seen."""
        self.source = source
        self.pending: dict[bytes, Pending] = {}
        self.unread: dict[bytes, Unread] = {}
        """Of the newest rescan."""
        self.overflowed = False
        """More is pending than `LIMIT_PENDING`: only two looks on disk can tell what has settled."""
        self.rescan_at = float("-inf")
        """When the next rescan is due, monotonic."""
        self._clock = clock
        self._vouch = vouch
        self._sure: dict[bytes, Identity] = {}
        self._gone: list[tuple[bytes, Identity]] = []
        self._lock = threading.Lock()
        self._hints: dict[bytes, _Rename | None] = {}
        self._let_go: set[bytes] = set()
        self._everywhere = False
        self._rescan_cost = 0.0

    # --- hints, from any thread --------------------------------------------------------------------------------------

    def hint(self, path: bytes, *, closed: bool = False) -> None:
        """`closed`: it is as it was; a writer may have renamed it before he closed it."""
        with self._lock:
            if len(self._hints) >= LIMIT_PENDING:
                self._everywhere = True
            else:
                rename = self._hints.setdefault(path, None)
                if rename is not None:
                    rename.touched |= not closed
                if closed:
                    self._let_go.add(path)

    def renamed(self, before: bytes, after: bytes) -> None:
        """A file that was renamed, or lies in a directory that was."""
        rename = None
        in_place = not any(map(is_temporary, after.split(b"/"))) and any(map(is_temporary, before.split(b"/")[:-1]))
        if (in_place or is_temporary(before.rpartition(b"/")[2])) and (status := self._status(after)) is not None:
            rename = _Rename(before, Identity.of(status))
        with self._lock:
            if len(self._hints) >= LIMIT_PENDING:
                self._everywhere = True
            else:
                self._hints.setdefault(before, None)
                self._hints[after] = rename

    def look_everywhere(self) -> None:
        with self._lock:
            self._everywhere = True

    # --- looks -------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Look again at what was hinted at and at what is pending."""
        with self._lock:
            hints, self._hints = self._hints, {}
            let_go, self._let_go = self._let_go, set()
            if self._everywhere:
                self._everywhere = False
                # Not more than a tenth of the time goes into rescans, however often somebody makes directories.
                self.rescan_at = min(self.rescan_at, self._clock.monotonic() + 9 * self._rescan_cost)
        for path, rename in hints.items():
            self._look(path, rename)
        for path in [path for path, each in self.pending.items() if path not in hints and self._unsettled(each)]:
            self._look(path, None)
        for path in let_go:
            each = self.pending.get(path)
            if each is not None and each.held is not None and each.held.reason is LeftOutReason.WRITER:
                each.retry_at = self._clock.monotonic()
        if any(is_marker(path, self.source.marker) for path in hints):
            self._look_at_markers(hints)

    def try_again(self) -> None:
        """What was held back for a reason that may have passed by itself may be tried by the next pass."""
        for each in self.pending.values():
            if each.held is not None and each.held.reason in _RETRIED:
                each.retry_at = self._clock.monotonic()

    def take_gone(self) -> list[bytes]:
        """Files that had settled and went before any generation had them, since the last call. What lies there under
        another name now went nowhere."""
        gone, self._gone = self._gone, []
        there = {_version(each.identity) for each in self.pending.values()} if gone else set[tuple[int, ...]]()
        return [path for path, identity in gone if _version(identity) not in there]

    def rescan(
        self,
        known: Iterable[tuple[bytes, Identity, bool]],
        paced: Callable[[Iterator[_Found]], Iterator[_Found]] = iter,
    ) -> None:
        """The truth: a walk, merged with what the newest generation read, both by `order_key`.

        The last of each: whether its time tells that it is still what was read. Otherwise it is read once more, when
        that can be told, and need not settle again. `paced`: passes on what the walk finds, and tells that it goes on;
        what it raises leaves everything as it was.
        """
        began = self._clock.monotonic()
        found: dict[bytes, Pending] = {}
        unread: dict[bytes, Unread] = {}
        overflowed = False
        facts = iter(known)
        fact = next(facts, None)
        for entry in paced(walk(self.source.path)):
            if isinstance(entry, LeftOut):
                if len(unread) < LIMIT_PENDING and not self._ignored(entry.path):
                    unread[entry.path] = self._unread(self.unread.get(entry.path), entry)
                continue
            if entry.type is not EntryType.FILE or not self._wanted(entry.path):
                continue
            key = order_key(entry.path)
            while fact is not None and fact[0] < key:
                fact = next(facts, None)
            again = fact is not None and fact[:2] == (key, entry.identity)
            if again and fact is not None and fact[2]:
                continue
            if len(found) >= LIMIT_PENDING:
                overflowed = True
                continue
            found[entry.path] = self._seen(self.pending.get(entry.path), entry.identity)
            found[entry.path].again = again
        self.pending, self.unread, self.overflowed = found, unread, overflowed
        self._look_at_markers()
        now = self._clock.monotonic()
        self._rescan_cost = now - began

    def _status(self, path: bytes) -> os.stat_result | None:
        try:
            return os.lstat(os.path.join(os.fsencode(self.source.path), path))
        except OSError:
            return None

    def _look(self, path: bytes, rename: _Rename | None) -> None:
        status = self._status(path)
        if status is None:
            gone = self.pending.pop(path, None)
            torn = gone is not None and gone.held is not None and gone.held.reason is LeftOutReason.TORN
            # A producer that failed removes what he left: that was no backup.
            if gone is not None and not torn and self._is_quiet(gone) and len(self._gone) < LIMIT_GONE:
                self._gone.append((path, gone.identity))
            return
        if not stat.S_ISREG(status.st_mode) or not self._wanted(path):
            self.pending.pop(path, None)
            return
        identity = Identity.of(status)
        old = self.pending.get(path)
        if old is None and len(self.pending) >= LIMIT_PENDING:
            self.overflowed = True
            return
        self.pending[path] = new = self._seen(old, identity)
        if rename is not None and rename.vouches(identity):
            new.sure = True
            self._vouch(path, identity, Evidence.MARKER, f"renamed from {os.fsdecode(rename.before)}")

    def _look_at_markers(self, among: Container[bytes] | None = None) -> None:
        """What is held back may be tried once more for each version of its marker; whether that is evidence, a pass
        finds out. `among`: only these markers."""
        for path, each in self.pending.items():
            marker = marker_of(path, self.source.marker) if each.held is not None else None
            if marker is None or (among is not None and marker not in among):
                continue
            status = self._status(marker)
            before, each.marker = each.marker, Identity.of(status) if status is not None else None
            if each.marker is not None and each.marker != before:
                each.retry_at = self._clock.monotonic()

    def _seen(self, old: Pending | None, identity: Identity) -> Pending:
        if old is not None and old.identity == identity:
            old.looks += 1
            return old
        now = self._clock.monotonic()
        return Pending(identity, now, milliseconds(self._clock.now()), changed=old is not None)

    def _unread(self, old: Unread | None, left: LeftOut) -> Unread:
        if old is not None:
            return Unread(left, old.since, old.first_ms)
        return Unread(left, self._clock.monotonic(), milliseconds(self._clock.now()))

    def _wanted(self, path: bytes) -> bool:
        name = path.rpartition(b"/")[2]
        return not (self._ignored(path) or is_temporary(name) or is_marker(path, self.source.marker))

    def _ignored(self, path: bytes) -> bool:
        return any(is_ignored(each, self.source.ignore) for each in path.split(b"/"))

    def _unsettled(self, each: Pending) -> bool:
        return each.held is None or each.held.reason in _RETRIED

    # --- decisions ---------------------------------------------------------------------------------------------------

    def settled(self, path: bytes, identity: Identity) -> bool:
        """Whether this very version has been quiet for long enough, or need not be."""
        if self._sure.get(path) == identity:
            return True
        each = self.pending.get(path)
        return each is not None and each.identity == identity and self._is_quiet(each)

    def _is_quiet(self, each: Pending) -> bool:
        settle = self.source.settle.total_seconds()
        return each.sure or self._clock.monotonic() - each.since >= (
            min(settle, AGAIN_SECONDS) if each.again else settle
        )

    def candidates(self) -> bool:
        """Whether a pass would find something that it may take."""
        return any(self._may_try(each) for each in self.pending.values())

    def _may_try(self, each: Pending) -> bool:
        return self._is_quiet(each) and (each.held is None or self._clock.monotonic() >= each.retry_at)

    def looked(self, entries: Iterable[SpoolEntry | LeftOut]) -> Iterator[Looked | LeftOut]:
        """A walk with verdicts, for a pass. What turns out to be new is pending from here on."""
        for entry in entries:
            if isinstance(entry, LeftOut):
                yield entry
                continue
            settled = entry.type is not EntryType.FILE or self.settled(entry.path, entry.identity)
            yield Looked(entry=entry, verdict=Verdict.SETTLED if settled else Verdict.GROWING)

    def notice(self, entry: SpoolEntry) -> None:
        """A pass met a file that is not settled: from now on it is pending."""
        if len(self.pending) < LIMIT_PENDING and self._wanted(entry.path):
            self.pending[entry.path] = self._seen(self.pending.get(entry.path), entry.identity)

    def taken(self, path: bytes, identity: Identity) -> None:
        """A pass read it; when its generation is there, it is not pending any more."""
        each = self.pending.get(path)
        if each is not None and each.identity == identity:
            del self.pending[path]

    def hold(self, left: LeftOut) -> None:
        """A pass left it out: having tried it, or as `still_held` said, which puts off no other try."""
        each = self.pending.get(left.path)
        if each is not None and left is not each.held and left.reason is not LeftOutReason.GROWING:
            each.held, each.retry_at = left, float("inf")
            if left.reason in _RETRIED:
                each.retry_at = self._clock.monotonic() + max(RETRY_SECONDS, self.source.settle.total_seconds())

    def still_held(self, entry: SpoolEntry) -> LeftOut | None:
        """Why this very version was left out, unless it is time to try it again."""
        each = self.pending.get(entry.path)
        if each is None or each.identity != entry.identity or self._clock.monotonic() >= each.retry_at:
            return None
        return each.held

    def left_out(self, settled: LeftOutReason | None = None) -> Iterator[LeftOut]:
        """What is pending or could not be looked into, and will not be in a generation that is made now; by path.
        `settled`: why what has settled will not be, either."""
        both: dict[bytes, Pending | Unread] = {**self.unread, **self.pending}
        for path, each in sorted(both.items(), key=lambda item: order_key(item[0])):
            if isinstance(each, Unread):
                yield each.left
            elif each.held is not None:
                yield each.held
            elif not each.again and not self._is_quiet(each):
                yield LeftOut(path=path, reason=LeftOutReason.GROWING)
            elif not each.again and settled is not None:
                yield LeftOut(path=path, reason=settled)

    def sure(self, path: bytes, identity: Identity) -> None:
        """Evidence came for a version: it need not wait, and what held it back may not do so any more."""
        self._sure[path] = identity
        each = self.pending.get(path)
        if each is not None and each.identity == identity:
            each.sure, each.held = True, None

    def passed(self) -> None:
        """A pass came to its end: what was sure for it is in its generation, or will be looked at anew."""
        self._sure.clear()


def _version(one: Identity) -> tuple[int, ...]:
    """What a rename leaves as it is."""
    return one.device, one.inode, one.size, one.mtime_ns
