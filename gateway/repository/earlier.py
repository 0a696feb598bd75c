"""The stream before: where the data of a file lay in the generation before, byte by byte (the *cursor*).

A new chunk is compressed against what stood at its place before. Where that is, its neighbours say: a known chunk has a
position here, and the distance between that and its own position (its *shift*) holds until the next known one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.errors import Corrupt
from gateway.model.ids import Run
from gateway.repository.indexes import PackIndexes

NEAR = 256 * 1024
"""A known chunk whose shift is this near to the one before is believed at once; others when a neighbour confirms them:
a page that occurs many times says nothing about where it is.
"""
MARGIN = 16 * 1024
"""Bytes taken along on both sides of where a chunk stood."""
GROWN = 4
"""What stood between two known chunks is shared out among those that do now, if it was not more than so many times as
much.
"""


class Earlier:
    """Runs of the generation before as one stream of bytes. Immutable; safe to share between threads."""

    def __init__(self, parts: Iterable[Sequence[int]], indexes: PackIndexes) -> None:
        """`parts`: runs of consecutive streams, each flat (pack, first, count, ...). `Corrupt`, `Missing`: a directory
        that says how long chunks are is not to be had.
        """
        self._indexes = indexes
        arrays = [np.asarray(part, np.int64).reshape(-1, 3) for part in parts]
        rows: NDArray[np.int64] = np.concatenate([np.empty((0, 3), np.int64), *arrays])
        self._packs, self._firsts, self._counts = (np.ascontiguousarray(rows[:, at]) for at in range(3))
        lengths = np.zeros(len(rows), np.int64)
        for pack in np.unique(self._packs).tolist():
            which = np.flatnonzero(self._packs == pack)
            ends = self._ends(pack)
            last = self._firsts[which] + self._counts[which]
            if int(last.max()) >= len(ends):
                raise Corrupt("has fewer chunks than a list refers to", address=f"pack {pack:08x}")
            lengths[which] = ends[last] - ends[self._firsts[which]]
        self._starts: NDArray[np.int64] = np.concatenate([[0], np.cumsum(lengths)])
        self.part_starts = self._starts[np.cumsum([0, *(len(array) for array in arrays)])].tolist()
        """Where each part begins, and where the last ends."""
        self._order = np.lexsort((self._firsts, self._packs))
        self._keys = (self._packs[self._order] << 32) | self._firsts[self._order]
        # Of all runs up to this one in that order: the one that reaches furthest. It holds what a short run hides.
        reach = self._keys + self._counts[self._order]
        furthest = np.maximum.accumulate(reach)
        self._furthest = self._order[np.maximum.accumulate(np.where(reach == furthest, np.arange(len(reach)), 0))]

    def _ends(self, pack: int) -> NDArray[np.int64]:
        """Where the chunks of a pack begin among its raw bytes, and where the last ends."""
        ends = np.frombuffer(self._indexes.opened(pack).directory.ends, np.uint64).astype(np.int64)
        return np.concatenate([[0], ends])

    @property
    def size(self) -> int:
        return int(self._starts[-1])

    def positions(self, packs: NDArray[np.int64], chunks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where chunks (pack and index of each) begin in this stream; -1 where one is not in it. Of several places of a
        chunk it gives one.
        """
        out = np.full(len(packs), -1, np.int64)
        if not len(self._keys):
            return out
        at = np.searchsorted(self._keys, (packs << 32) | chunks, side="right") - 1
        rows = self._order[np.maximum(at, 0)]
        rows = np.where(chunks - self._firsts[rows] < self._counts[rows], rows, self._furthest[np.maximum(at, 0)])
        here = (at >= 0) & (self._packs[rows] == packs) & (chunks - self._firsts[rows] < self._counts[rows])
        for pack in np.unique(packs[here]).tolist():
            which = np.flatnonzero(here & (packs == pack))
            ends = self._ends(pack)
            out[which] = self._starts[rows[which]] + ends[chunks[which]] - ends[self._firsts[rows[which]]]
        return out

    def is_at(self, position: int, pack: int, chunk: int) -> bool:
        """Whether just this chunk begins at a byte of this stream."""
        if not 0 <= position < self.size:
            return False
        row = int(np.searchsorted(self._starts, position, side="right")) - 1
        first = int(self._firsts[row])
        if int(self._packs[row]) != pack or not first <= chunk < first + int(self._counts[row]):
            return False
        ends = self._indexes.opened(pack).directory.ends
        begin = (ends[chunk - 1] if chunk else 0) - (ends[first - 1] if first else 0)
        return int(self._starts[row]) + begin == position

    def follow(self, position: int) -> Iterator[tuple[int, int, int, bytes]]:
        """The chunks from the one that begins at `position` on: pack, index there, bytes and id of each. None where no
        chunk begins there.
        """
        if not 0 <= position < self.size:
            return
        row = int(np.searchsorted(self._starts, position, side="right")) - 1
        inside = position - int(self._starts[row])
        for at in range(row, len(self._packs)):
            pack, first, count = int(self._packs[at]), int(self._firsts[at]), int(self._counts[at])
            directory = self._indexes.opened(pack).directory
            ends, begin = directory.ends, inside + (directory.ends[first - 1] if first else 0)
            chunk, inside = bisect_right(ends, begin), 0
            if (ends[chunk - 1] if chunk else 0) != begin:
                return
            while chunk < first + count:
                yield pack, chunk, ends[chunk] - begin, directory.chunk_id(chunk)
                begin, chunk = ends[chunk], chunk + 1

    def runs(self, start: int, end: int) -> list[Run]:
        """The chunks that hold bytes `start` to `end` of this stream, as far as there are any."""
        start, end = max(start, 0), min(end, self.size)
        out: list[Run] = []
        if start >= end:
            return out
        row = int(np.searchsorted(self._starts, start, side="right")) - 1
        while row < len(self._packs) and self._starts[row] < end:
            pack, first, count = int(self._packs[row]), int(self._firsts[row]), int(self._counts[row])
            begin = int(self._starts[row])
            ends = self._indexes.opened(pack).directory.ends
            origin = (ends[first - 1] if first else 0) - begin
            low = bisect_right(ends, start + origin, first, first + count) if start > begin else first
            high = bisect_left(ends, end + origin, first, first + count)
            high = min(high + 1, first + count)
            if high > low:
                out.append(Run(pack, low, high - low))
            row += 1
        return out


@dataclass(slots=True)
class Wanted:
    """A new chunk, bytes `start` to `end` of its stream, and the shifts of what is known on both sides of it."""

    start: int
    end: int
    left: int | None
    left_end: int
    right: int | None = None
    right_start: int = 0

    def windows(self) -> list[tuple[int, int]]:
        """The bytes of the stream before that are most likely like it; none when nothing says where."""
        left, right = self.left, self.right
        if left is None or right is None:
            shift = left if left is not None else right
            if shift is None:
                return []
            low, high = self.start + shift - MARGIN, self.end + shift + MARGIN
            if left is not None:
                return [(max(low, self.left_end + left), high)]
            return [(low, min(high, self.right_start + shift))]
        if left == right:  # changed in place
            return [(self.start + left, self.end + left)]
        first, last, gap = self.left_end + left, self.right_start + right, self.right_start - self.left_end
        if abs(left - right) <= 2 * MARGIN:
            low, high = self.start + min(left, right) - MARGIN, self.end + max(left, right) + MARGIN
        elif first < last <= first + GROWN * gap + 8 * MARGIN:  # each takes its part of what stood between the two
            scale = (last - first) / gap
            low = first + int((self.start - self.left_end) * scale) - MARGIN
            high = first + int((self.end - self.left_end) * scale) + MARGIN
            high = min(high, low + (self.end - self.start) + 8 * MARGIN)
        else:  # what is on its two sides came from two places, and it is a part of one, or of both
            return [(self.start + left, self.end + left), (self.start + right, self.end + right)]
        return [(max(low, first), min(high, last)) if first < last else (low, high)]


class Cursor:
    """Follows a stream along the one before: which shift holds where. One thread."""

    def __init__(self, earlier: Earlier) -> None:
        self.earlier = earlier
        self._shift: int | None = None
        self._left_end = 0
        self._doubted: int | None = None
        self._open: list[Wanted] = []

    @property
    def shift(self) -> int | None:
        """What holds now; None: nothing says where the stream is."""
        return self._shift

    def begin(self, start: int, position: int) -> None:
        """From `start` on the stream is a file that began at `position` before; -1: nobody knows where."""
        self._open.clear()
        self._shift = position - start if position >= 0 else None
        self._left_end, self._doubted = start, None

    def known(self, start: int, end: int, position: int, place: tuple[int, int]) -> None:
        """A known chunk that stood at `position` before; -1: not in that stream. `place`: pack and index of it.

        What stood at several places stood at the one that it is expected at.
        """
        if self._shift is not None and position != start + self._shift:
            expected = start + self._shift
            if self.earlier.is_at(expected, *place):
                position = expected
        if position < 0:
            self._doubted = None
            return
        shift = position - start
        near = self._shift is not None and abs(shift - self._shift) <= NEAR
        if not near and shift != self._doubted:
            self._doubted = shift
            return
        for each in self._open:
            each.right, each.right_start = shift, start
        self._open.clear()
        self._shift, self._left_end, self._doubted = shift, end, shift

    def new(self, start: int, end: int) -> Wanted:
        self._doubted = None
        wanted = Wanted(start, end, self._shift, self._left_end)
        self._open.append(wanted)
        return wanted
