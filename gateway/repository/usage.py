"""Which chunks of which packs a generation uses, its bases included: one bit a chunk.

What a generation refers to is counted while its list is written; what that stands on follows from the directories of
packs with deltas, from the highest number down, since a base lies in a pack before.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from gateway.errors import Corrupt
from gateway.format.directory import Directory
from gateway.format.log import Declaration
from gateway.format.segment import Encoding

ROWS = 1 << 16
"""Runs that are gathered before they become bits, some 1.5 MiB."""

Bits = NDArray[np.uint8]
Flags = NDArray[np.bool_]


class Usage:
    """Chunks by pack. One thread."""

    def __init__(self) -> None:
        self._rows = array("Q")
        self._bits: dict[int, Bits] = {}

    def add(self, flat: Iterable[int]) -> None:
        """Runs as (pack, first, count, ...)."""
        self._rows.extend(flat)
        if len(self._rows) >= 3 * ROWS:
            self._gather()

    def copy(self) -> Usage:
        self._gather()
        out = Usage()
        out._bits = dict(self._bits)
        return out

    @property
    def packs(self) -> set[int]:
        self._gather()
        return set(self._bits)

    def chunks(self, pack: int) -> int:
        """How many chunks of a pack are used."""
        self._gather()
        return int(np.bitwise_count(self._bits[pack]).sum()) if pack in self._bits else 0

    def flags(self, pack: int, chunks: int) -> Flags:
        """For each of a pack's chunks whether it is used."""
        self._gather()
        out = np.zeros(chunks, np.bool_)
        if pack in self._bits:
            known = np.unpackbits(self._bits[pack], bitorder="little")[:chunks]
            out[: len(known)] = known
        return out

    def close_over(self, declared: Callable[[int], Declaration | None], directory: Callable[[int], Directory]) -> None:
        """Add what the chunks so far stand on. `declared`: the declaration of a pack, which says whether it has deltas
        at all; where there is none, nothing is known to be under it. `Corrupt`: a base is not in its pack.
        """
        self._gather()
        todo = [-pack for pack in self._bits]
        heapq.heapify(todo)
        seen = set(self._bits)
        while todo:
            pack = -heapq.heappop(todo)
            declaration = declared(pack)
            if declaration is None or not declaration.bases:
                continue
            opened = directory(pack)
            used = self.flags(pack, opened.chunks)
            for segment in reversed(opened.segments):
                if segment.encoding is Encoding.DELTA and used[segment.first : segment.first + segment.chunks].any():
                    for run in segment.bases:
                        under = declared(run.pack)
                        if under is not None and run.first + run.count > under.chunks:
                            raise Corrupt(f"stands on chunks that pack {run.pack:08x} does not have",
                                          address=f"pack {pack:08x} frame {segment.number}")  # fmt: skip
                        if run.pack == pack:
                            used[run.first : run.first + run.count] = True
                        self._rows.extend((run.pack, run.first, run.count))
            self._gather()
            for below in self._bits.keys() - seen:
                heapq.heappush(todo, -below)
            seen |= self._bits.keys()

    def _gather(self) -> None:
        if not self._rows:
            return
        rows = np.frombuffer(self._rows, np.uint64).astype(np.int64).reshape(-1, 3)
        self._rows = array("Q")
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        packs, starts = np.unique(rows[:, 0], return_index=True)
        for pack, of_pack in zip(packs.tolist(), np.split(rows, starts[1:]), strict=True):
            self._bits[pack] = _joined(self._bits.get(pack), _bits_of(of_pack))


def _bits_of(rows: NDArray[np.int64]) -> Bits:
    """One bit for each chunk that any of the runs holds."""
    first, end = rows[:, 1], rows[:, 1] + rows[:, 2]
    if len(rows) == 1:
        flags = np.zeros(int(end[0]), np.bool_)
        flags[int(first[0]) :] = True
    else:
        size = int(end.max()) + 1
        steps = np.bincount(first, minlength=size) - np.bincount(end, minlength=size)
        flags = np.cumsum(steps)[:-1] > 0
    return np.packbits(flags, bitorder="little")


def _joined(one: Bits | None, other: Bits) -> Bits:
    if one is None:
        return other
    if len(one) < len(other):
        one, other = other, one
    out = one.copy()
    out[: len(other)] |= other
    return out


def used_bytes(directory: Directory, size: int, flags: Flags) -> int:
    """Of a pack's `size` bytes, those of its used chunks: each segment's by the part of its raw bytes that is used."""
    raw = np.diff(np.frombuffer(directory.ends, np.uint64).astype(np.int64), prepend=0)
    firsts = np.array([segment.first for segment in directory.segments], np.int64)
    of_segment = np.array([segment.raw for segment in directory.segments], np.float64)
    sizes = np.array([segment.size for segment in directory.segments], np.float64)
    if not len(firsts):
        return 0
    used = np.add.reduceat(np.where(flags, raw, 0), firsts)
    return min(size, int((sizes * used / of_segment).sum()))
