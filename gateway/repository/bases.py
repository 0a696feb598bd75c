"""What a new segment is compressed against: the chunks that stood at its places before, as far as the bounds allow.

Bases come from the pack cache and nowhere else: what is not there is not waited for, the segment is then stored plain.
Every base chunk is compared with its id in the very bytes that become the dictionary.

The bounds are the format's (docs/format/limits.md): a part that would break one gives way to what it is itself based
on, down to the last plain version at that place; a part that still does not fit is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from gateway.errors import IntegrityError, LocalStateError
from gateway.format import limits
from gateway.format.directory import ID, Segment
from gateway.format.segment import Encoding
from gateway.model.ids import Run
from gateway.repository.cache import PackCache
from gateway.repository.chain import Chain
from gateway.repository.closures import Key
from gateway.repository.earlier import MARGIN, Earlier, Wanted
from gateway.repository.indexes import PackIndexes
from gateway.repository.packs import Base
from gateway.repository.reader import ChainReader


class Fate(Enum):
    """What became of the search for a base of a chunk."""

    BASED = "based"
    UNKNOWN = "nothing says where it stood before"
    ABSENT = "what it stands on is not in the pack cache"
    BOUNDED = "every base would break a bound"


Fates = Counter[Fate]
"""How many chunks had which."""


@dataclass(slots=True)
class _Gathered:
    """The base of one segment as it grows."""

    room: int
    chunks: dict[tuple[int, int], None] = field(default_factory=dict)
    members: dict[Key, int] = field(default_factory=dict)
    total: int = 0
    size: int = 0


class Bases:
    """Finds bases among the packs of one kind of a chain. Thread-safe."""

    def __init__(self, chain: Chain, indexes: PackIndexes, cache: PackCache, usable: frozenset[int]) -> None:
        """`usable`: packs that a new generation may refer to."""
        self._chain = chain
        self._indexes = indexes
        self._cache = cache
        self._usable = usable
        self._reader = ChainReader(chain, indexes, cache, only_local=True)
        self._closures = self._reader.closures

    def choose(
        self, ids: bytes, raw: memoryview, earlier: Earlier | None, wanted: Sequence[Wanted], fates: Fates
    ) -> Base | None:
        """The base of a segment, by where its chunks stood before; see `gateway.repository.pipeline.BaseChooser`."""
        windows: list[tuple[int, int, int]] = []
        if earlier is None:
            fates[Fate.UNKNOWN] += len(ids) // ID
            return None
        for each in wanted:
            window = each.window()
            if window is None:
                fates[Fate.UNKNOWN] += 1
            elif windows and windows[-1][0] <= window[0] <= windows[-1][1]:
                low, high, chunks = windows[-1]
                windows[-1] = (low, max(high, window[1]), chunks + 1)
            else:
                windows.append((*window, 1))
        gathered = _Gathered(limits.CLOSURE_BYTES - len(raw))
        found = Fates()
        try:
            for low, high, chunks in windows:
                found[self._window(gathered, earlier, low, high)] += chunks
            base = self._base(gathered)
        except (IntegrityError, LocalStateError):
            # Gone from the cache meanwhile, or damaged there: that costs bytes, nothing else.
            fates[Fate.ABSENT] += sum(chunks for *_, chunks in windows)
            return None
        fates.update(found)
        return base

    def _window(self, gathered: _Gathered, earlier: Earlier, low: int, high: int) -> Fate:
        """Add the chunks of a window."""
        fates = {self._add(gathered, *part) for part in self._closures.parts(earlier.runs(low, high))}
        return _best(fates)

    def _add(self, gathered: _Gathered, pack: int, segment: Segment, first: int, last: int) -> Fate:
        closure = self._closures.of(pack, segment)
        fate = Fate.BOUNDED
        if not all(map(self._at_hand, closure.packs)):
            fate = Fate.ABSENT
        elif closure.depth < limits.DEPTH:
            more = sum(raw for key, raw in closure.members.items() if key not in gathered.members)
            if gathered.total + more <= gathered.room:
                if not self._take(gathered, pack, first, last):
                    return fate
                gathered.members.update(closure.members)
                gathered.total += more
                return Fate.BASED
        if segment.encoding is not Encoding.DELTA:
            return fate
        older = self._closures.parts(self._below(pack, segment, first, last))
        return _best({self._add(gathered, *part) for part in older})

    def _take(self, gathered: _Gathered, pack: int, first: int, last: int) -> bool:
        """Add chunks as long as there is room; whether any of them are in."""
        directory = self._indexes.opened(pack).directory
        taken = False
        for chunk in range(first, last):
            if (pack, chunk) not in gathered.chunks:
                size = directory.length(chunk)
                if gathered.size + size > limits.BASE_BYTES:
                    break
                gathered.chunks[pack, chunk] = None
                gathered.size += size
            taken = True
        return taken

    def _below(self, pack: int, segment: Segment, first: int, last: int) -> list[Run]:
        """What chunks of a delta segment stood on, about: bases were gathered in the order of the places, so that each
        part of a segment has its own part of them.
        """
        directory = self._indexes.opened(pack).directory
        origin = directory.ends[segment.first] - directory.length(segment.first)
        low, high = directory.ends[first] - directory.length(first) - origin, directory.ends[last - 1] - origin
        spans = [(run, self._indexes.opened(run.pack).directory.span(run.first, run.count)) for run in segment.bases]
        scale = sum(size for _, size in spans) / segment.raw
        low, high = int(low * scale) - MARGIN, int(high * scale) + MARGIN
        out, at = [], 0
        for run, size in spans:
            if at < high and at + size > low:
                out.append(run)
            at += size
        return out

    def _at_hand(self, pack: int) -> bool:
        state = self._chain.fold.packs.get(pack)
        if state is None or pack not in self._usable:
            return False
        return self._cache.has(self._chain.name, pack, state.declaration.pack_id)

    def _base(self, gathered: _Gathered) -> Base | None:
        runs: list[Run] = []
        for pack, chunk in gathered.chunks:  # in the order of the places
            last = runs[-1] if runs else None
            if last is not None and last.pack == pack and last.first + last.count == chunk:
                runs[-1] = Run(pack, last.first, last.count + 1)
            else:
                runs.append(Run(pack, chunk, 1))
        if not runs:
            return None
        runs = runs[: limits.BASE_RUNS]
        return Base(tuple(runs), b"".join(self._reader.bases(runs)))


def _best(fates: set[Fate]) -> Fate:
    """Of a window's parts: one base is enough."""
    return next((fate for fate in (Fate.BASED, Fate.BOUNDED, Fate.ABSENT) if fate in fates), Fate.UNKNOWN)
