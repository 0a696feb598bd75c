"""Two looks at a spool: what did not change from one to the other for the settle time is quiet.

`look` writes what it sees into a scratch file, sorted as the walk is, and `compare` merges a second walk with it, so
that memory stays the same with ten entries or ten million. The time between the looks is the monotonic clock's;
mtime proves nothing, because copy tools set it back, and wall clocks jump.

Only regular files can be growing. A directory changes with every file in it, and a symlink or a FIFO is there at once
or not at all, so nothing waits for them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from types import TracebackType

from gateway import durable
from gateway.clock import Clock
from gateway.model.entry import EntryType, Identity, LeftOut, order_key
from gateway.spool.walk import SpoolEntry, walk

_RECORD = struct.Struct("<IQQQqq")
"""Length of the path, then device, inode, size, mtime_ns, ctime_ns; the path follows."""


class Verdict(StrEnum):
    SETTLED = "settled"
    GROWING = "growing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """An entry as the second look saw it. GROWING: it was not the same, or not there, in the first."""

    entry: SpoolEntry
    verdict: Verdict


class FirstLook:
    """What the first look saw. Holds a descriptor and disk space below `state.dir` until it is closed."""

    def __init__(self, scratch: durable.ScratchFile, finished: float) -> None:
        self.finished = finished
        """Monotonic seconds at its end: every entry was seen at this moment or before."""
        self._scratch = scratch

    def wait_seconds(self, clock: Clock, settle: timedelta) -> float:
        """How long the second look must still wait; never negative."""
        return max(0.0, self.finished + settle.total_seconds() - clock.monotonic())

    def files(self) -> Iterator[tuple[bytes, Identity]]:
        """Path and identity of every regular file, by `order_key`. One iteration at a time."""
        self._scratch.seek(0)
        while head := self._scratch.read(_RECORD.size):
            length, *numbers = _RECORD.unpack(head)
            yield self._scratch.read(length), Identity(*numbers)

    def close(self) -> None:
        self._scratch.close()

    def __enter__(self) -> FirstLook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def look(root: Path, scratch_directory: Path, clock: Clock) -> FirstLook:
    """The first look at the whole spool. About 60 bytes and the path of scratch space for each file.

    Raises `SourceError` (the spool) and `LocalStateError` (the scratch directory).
    """
    scratch = durable.ScratchFile(scratch_directory)
    try:
        for entry in walk(root):
            if isinstance(entry, SpoolEntry) and entry.type is EntryType.FILE:
                one = entry.identity
                numbers = (one.device, one.inode, one.size, one.mtime_ns, one.ctime_ns)
                scratch.append(_RECORD.pack(len(entry.path), *numbers) + entry.path)
    except BaseException:
        scratch.close()
        raise
    return FirstLook(scratch, clock.monotonic())


def compare(first: FirstLook | None, second: Iterable[SpoolEntry | LeftOut]) -> Iterator[Looked | LeftOut]:
    """Every entry of the second look with its verdict; what the second could not see is passed on as it is.

    The caller starts `second` when `first.wait_seconds` is 0. With no first look, which is what an operator's
    seal-now means, everything is settled.
    """
    before = first.files() if first is not None else iter(())
    path, identity = next(before, (None, None))
    for entry in second:
        if isinstance(entry, LeftOut):
            yield entry
            continue
        if first is None or entry.type is not EntryType.FILE:
            yield Looked(entry=entry, verdict=Verdict.SETTLED)
            continue
        key = order_key(entry.path)
        while path is not None and order_key(path) < key:
            path, identity = next(before, (None, None))
        same = path == entry.path and identity == entry.identity
        yield Looked(entry=entry, verdict=Verdict.SETTLED if same else Verdict.GROWING)
