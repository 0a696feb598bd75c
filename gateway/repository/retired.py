"""Chunks that a run does not refer to though they are stored: those of packs that are retired, and those that stand on
them (docs/design/reduction.md).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from gateway.format.segment import Encoding
from gateway.model.ids import in_ranges
from gateway.repository.fold import Fold
from gateway.repository.indexes import PackIndexes

Flags = NDArray[np.bool_]


class Retired:
    """Thread-safe. Hides chunks until `budget` bytes were stored anew because of it."""

    def __init__(self, flags: dict[int, Flags], budget: int) -> None:
        self._flags = flags
        self._numbers = np.array(sorted(flags), np.uint32)
        self._left = budget
        self.packs = frozenset(flags)

    @property
    def spent(self) -> bool:
        """Whether no more may be stored anew: from here on everything that is stored is referred to."""
        return self._left <= 0

    def spend(self, size: int) -> None:
        # Two workers that meet may count one of them too little: the bound is one of costs.
        self._left -= size

    def has(self, pack: int, chunk: int) -> bool:
        flags = self._flags.get(pack)
        return flags is not None and chunk < len(flags) and bool(flags[chunk])

    def has_any(self, flat: Sequence[int]) -> bool:
        """Whether any of these runs (pack, first, count, ...) holds such a chunk."""
        for pack, first, count in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
            flags = self._flags.get(pack)
            if flags is not None and flags[first : first + count].any():
                return True
        return False

    def hide(self, found: array[int]) -> frozenset[int]:
        """Make places (pack, index, ...) of such chunks unknown ones; their positions in `found`, halved."""
        if self.spent or not len(self._numbers):
            return frozenset()
        places = np.frombuffer(found, np.uint32).reshape(-1, 2)
        hidden = [
            at
            for at in np.flatnonzero(np.isin(places[:, 0], self._numbers)).tolist()
            if self.has(int(places[at, 0]), int(places[at, 1]))
        ]
        places[hidden] = 0
        return frozenset(hidden)


NOTHING = Retired({}, 0)


def retired_chunks(packs: Iterable[int], budget: int, fold: Fold, indexes: PackIndexes) -> Retired:
    """All chunks of `packs`, and of the segments of other packs that stand on them. `Corrupt`, `Missing`: a directory
    is not to be had.
    """
    flags: dict[int, Flags] = {
        pack: np.ones(indexes.opened(pack).directory.chunks, np.bool_) for pack in packs if pack in fold.packs
    }
    if not flags:
        return NOTHING
    for number in sorted(fold.packs):
        state = fold.packs[number]
        if not state.usable or flags.keys().isdisjoint(in_ranges(state.declaration.bases)):
            continue
        directory = indexes.opened(number).directory
        mine = flags.get(number, np.zeros(directory.chunks, np.bool_))
        for segment in directory.segments:
            if segment.encoding is Encoding.DELTA and any(
                _touches(mine if run.pack == number else flags.get(run.pack), run.first, run.count)
                for run in segment.bases
            ):
                mine[segment.first : segment.first + segment.chunks] = True
        if mine.any():
            flags[number] = mine
    return Retired(flags, budget)


def _touches(flags: Flags | None, first: int, count: int) -> bool:
    return flags is not None and bool(flags[first : first + count].any())
