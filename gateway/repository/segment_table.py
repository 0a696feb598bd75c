"""The segments of very many packs in columns: some 35 bytes each, where an opened directory takes 2 MiB a full pack.

For who asks of all packs of a chain which segments chunks lie in and what those stand on, in any order. Every index
object is read once. A segment is named by its number in the table; they stand in the order in which packs were loaded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.errors import Corrupt, IntegrityError
from gateway.format.directory import Columns
from gateway.format.log import Declaration
from gateway.repository.indexes import PackIndexes

LOADERS = 16
"""LIMIT: index objects that are fetched at a time from a store that lets one wait, as S3 does for some 20 ms."""
QUICK_SECONDS = 0.001
"""LIMIT: a store that gives an index object in this time is not worth threads: sixteen that wait for nothing but each
other take twice as long as one, and twice the processor time."""
SLOW_IN_A_ROW = 4
"""LIMIT: index objects that took longer, one after the other, until others are fetched at a time; fewer: a hiccup."""
TOGETHER = 1024
"""LIMIT: about so many are fetched at a time before one by itself shows again whether the store lets one wait."""
IN_TASK = 8
DENSE = 8
"""LIMIT: numbers up to the highest for each declared pack, 8 bytes each, of a table by number."""
AT_ONCE = 64
"""LIMIT: packs whose columns are held before they are appended together: full ones have some 100 KB each."""
IN_FLIGHT_BYTES = 16 * 1024 * 1024

Numbers = NDArray[np.int64]


class _Column:
    """An array that grows; `data` is valid until it does."""

    def __init__(self, kind: type[np.generic], width: int = 1) -> None:
        self._room: NDArray[Any] = np.empty((1024, width) if width > 1 else 1024, kind)
        self.size = 0

    @property
    def data(self) -> NDArray[Any]:
        return self._room[: self.size]

    def extend(self, values: NDArray[np.generic] | Sequence[int]) -> None:
        end = self.size + len(values)
        if end > len(self._room):
            room = np.empty((max(end, len(self._room) * 5 // 4), *self._room.shape[1:]), self._room.dtype)
            room[: self.size] = self._room[: self.size]
            self._room = room
        self._room[self.size : end] = values
        self.size = end


class SegmentTable:
    """A *slot* is the place of a pack among all declared ones, ascending. One thread; it fetches with several."""

    def __init__(self, indexes: PackIndexes) -> None:
        self._indexes = indexes
        self._declared = indexes.declared
        self.packs = np.array(sorted(self._declared), np.int64)
        self.failed: dict[int, IntegrityError] = {}
        """By slot: packs whose directory cannot be read."""
        count = len(self.packs)
        self._slot_of = self._direct()
        self._base = np.full(count, -1, np.int64)  # where its chunks begin among all loaded ones; -1: not loaded
        self._chunks = np.zeros(count, np.int64)
        self._start = np.zeros(count, np.int64)
        self._count = np.zeros(count, np.int64)
        self._firsts, self._offsets, self._sizes = _Column(np.int64), _Column(np.int64), _Column(np.uint32)
        self._slots, self._bases_to, self._bases = _Column(np.uint32), _Column(np.int64), _Column(np.uint32, 3)
        self._total = 0
        self._pool: ThreadPoolExecutor | None = None
        self._slow = 0  # objects in a row that took long
        self._at_a_time = 0  # that were fetched so since one was by itself

    def __len__(self) -> int:
        """Segments so far."""
        return self._firsts.size

    def _direct(self) -> Numbers | None:
        """Slots by pack number, where numbers are dense; the last stands for all that are higher. None: they have to be
        looked for."""
        highest = int(self.packs[-1]) if len(self.packs) else 0
        if highest > DENSE * len(self.packs) + 1024:
            return None
        slots = np.full(highest + 2, -1, np.int64)
        slots[self.packs] = np.arange(len(self.packs))
        return slots

    # --- loading -----------------------------------------------------------------------------------------------------

    def slots(self, packs: Numbers) -> Numbers:
        """Slots of pack numbers; -1 where a pack is not declared."""
        if self._slot_of is None:
            at = np.searchsorted(self.packs, packs)
            at[at == len(self.packs)] = 0
            return np.where(self.packs[at] == packs, at, -1)
        return self._slot_of[np.minimum(packs, len(self._slot_of) - 1)]

    def load(self, slots: Numbers) -> None:
        """Read the directories of these packs that were not read yet. What is damaged lands in `failed`."""
        wanted = slots[slots >= 0]
        wanted = np.unique(wanted[self._base[wanted] < 0])
        missing = [slot for slot in wanted.tolist() if slot not in self.failed]
        if not missing:
            return
        declarations = [self._declared[int(self.packs[slot])].declaration for slot in missing]
        taken: list[tuple[int, Columns]] = []
        for slot, found in zip(missing, self._fetched(declarations), strict=True):
            if isinstance(found, IntegrityError):
                self.failed[slot] = found
                continue
            taken.append((slot, found))
            if len(taken) == AT_ONCE:
                self._take(taken)
                taken = []
        if taken:
            self._take(taken)

    def _fetched(self, declarations: list[Declaration]) -> Iterator[Columns | IntegrityError]:
        clock, done = self._indexes.clock, 0
        while done < len(declarations) and self._slow < SLOW_IN_A_ROW:
            begun = clock.monotonic()
            found = self._opened([declarations[done]])
            self._slow = self._slow + 1 if clock.monotonic() - begun > QUICK_SECONDS else 0
            done += 1
            yield from found
        yield from self._together(declarations[done:])
        self._at_a_time += len(declarations) - done
        if self._at_a_time >= TOGETHER:
            self._at_a_time, self._slow = 0, SLOW_IN_A_ROW - 1

    def _together(self, declarations: list[Declaration]) -> Iterator[Columns | IntegrityError]:
        tasks: deque[tuple[Future[list[Columns | IntegrityError]], int]] = deque()
        held = 0
        try:
            for group in _groups(declarations):
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(LOADERS, thread_name_prefix="index")
                size = sum(each.index_size for each in group)
                while tasks and (held + size > IN_FLIGHT_BYTES or len(tasks) >= 2 * LOADERS):
                    done, less = tasks.popleft()
                    held -= less
                    yield from done.result()
                tasks.append((self._pool.submit(self._opened, group), size))
                held += size
            while tasks:
                yield from tasks.popleft()[0].result()
        finally:
            for task, _ in tasks:
                task.cancel()

    def close(self) -> None:
        """End the threads that fetch; what was loaded stays."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _opened(self, declarations: list[Declaration]) -> list[Columns | IntegrityError]:
        found: list[Columns | IntegrityError] = []
        for each in declarations:
            try:
                found.append(self._indexes.columns(each))
            except IntegrityError as error:
                found.append(error)
        return found

    def _take(self, some: list[tuple[int, Columns]]) -> None:
        """Append these packs to the columns."""
        slots = np.array([slot for slot, _ in some], np.int64)
        found = [columns for _, columns in some]
        chunks = np.array([each.chunks for each in found], np.int64)
        counts = np.array([len(each.sizes) for each in found], np.int64)
        bases = np.array([len(each.bases) for each in found], np.int64)
        begin = self._total + np.cumsum(chunks) - chunks
        self._base[slots], self._chunks[slots] = begin, chunks
        self._start[slots], self._count[slots] = self._firsts.size + np.cumsum(counts) - counts, counts
        self._firsts.extend(np.concatenate([each.firsts for each in found]) + np.repeat(begin, counts))
        self._offsets.extend(np.concatenate([each.offsets for each in found]))
        self._sizes.extend(np.concatenate([each.sizes for each in found]))
        self._slots.extend(np.repeat(slots, counts))
        before = self._bases.size + np.cumsum(bases) - bases
        self._bases_to.extend(np.concatenate([each.bases_to for each in found]) + np.repeat(before, counts))
        self._bases.extend(np.concatenate([each.bases for each in found]))
        self._total += int(chunks.sum())

    # --- looking -----------------------------------------------------------------------------------------------------

    def has(self, slots: Numbers, firsts: Numbers, counts: Numbers) -> NDArray[np.bool_]:
        """Whether these packs are loaded and have the chunks."""
        if not len(self.packs):
            return np.zeros(len(slots), np.bool_)
        return (slots >= 0) & (self._base[slots] >= 0) & (firsts + counts <= self._chunks[slots])

    def spans(self, slots: Numbers, firsts: Numbers, counts: Numbers) -> tuple[Numbers, Numbers]:
        """The first and the last segment that chunks lie in, which `has` said are there."""
        begin = self._base[slots] + firsts
        column = self._firsts.data
        low = np.searchsorted(column, begin, "right") - 1
        high = low.copy()
        several = counts > 1
        high[several] = np.searchsorted(column, (begin + counts - 1)[several], "right") - 1
        return low, high

    def slot_of(self, segments: Numbers) -> Numbers:
        return self._slots.data[segments].astype(np.int64)

    def place_of(self, segment: int) -> tuple[int, int]:
        """Slot and pack."""
        slot = int(self._slots.data[segment])
        return slot, int(self.packs[slot])

    def based(self, segments: Numbers) -> NDArray[np.bool_]:
        """Which of them stand on others."""
        low, high = self._base_span(segments)
        return high > low

    def _base_span(self, segments: Numbers) -> tuple[Numbers, Numbers]:
        column = self._bases_to.data
        return np.where(segments > 0, column[np.maximum(segments - 1, 0)], 0), column[segments]

    def bases(self, segments: Numbers) -> Numbers:
        """Pack, first, count of all that these stand on, one row each."""
        low, high = self._base_span(segments)
        return self._bases.data[expand(low, high - 1)].astype(np.int64)

    def bases_of(self, segment: int) -> list[list[int]]:
        column = self._bases_to.data
        found: list[list[int]] = self._bases.data[column[segment - 1] if segment else 0 : column[segment]].tolist()
        return found

    def load_closure(self, segments: Numbers) -> None:
        """Read the directories of all that these stand on, a level at a time."""
        seen = np.zeros(len(self), np.bool_)
        while len(segments):
            runs = self.bases(segments)
            slots = self.slots(runs[:, 0])
            self.load(slots)
            there = self.has(slots, runs[:, 1], runs[:, 2])
            below = np.unique(expand(*self.spans(slots[there], runs[there, 1], runs[there, 2])))
            seen = np.concatenate((seen, np.zeros(len(self) - len(seen), np.bool_)))
            segments = below[~seen[below] & self.based(below)]
            seen[segments] = True

    def segments_of(self, pack: int, first: int, count: int) -> range:
        """The segments that chunks of a pack lie in. `Corrupt`, `Missing`."""
        slot = int(np.searchsorted(self.packs, pack))
        if slot == len(self.packs) or self.packs[slot] != pack:
            raise Corrupt(f"pack {pack:08x} is not declared")
        if self._base[slot] < 0:
            self.load(np.array([slot]))
        if slot in self.failed:
            raise self.failed[slot]
        if first + count > self._chunks[slot]:
            raise Corrupt(f"has no chunk {first + count - 1}", address=f"pack {pack:08x}")
        begin, column = int(self._base[slot]) + first, self._firsts.data
        low, high = np.searchsorted(column, (begin, begin + count - 1), "right").tolist()
        return range(low - 1, high)

    def of_slot(self, slot: int) -> tuple[int, int]:
        """The first and last+1 segment of a loaded pack."""
        return int(self._start[slot]), int(self._start[slot] + self._count[slot])

    def extents(self, segments: Numbers) -> tuple[list[int], list[int]]:
        """Where these begin and end in their pack."""
        start = self._offsets.data[segments].astype(np.int64)
        return start.tolist(), (start + self._sizes.data[segments]).tolist()


def expand(low: Numbers, high: Numbers) -> Numbers:
    """All numbers of the ranges `low` .. `high`, both included, one range after the other."""
    counts = high - low + 1
    total = int(counts.sum())
    if total == len(counts) and not (counts != 1).any():
        return low
    starts = np.cumsum(counts) - counts
    return np.repeat(low - starts, counts) + np.arange(total)


def _groups(declarations: list[Declaration]) -> Iterator[list[Declaration]]:
    step = max(1, min(IN_TASK, len(declarations) // LOADERS))
    for at in range(0, len(declarations), step):
        yield declarations[at : at + step]
