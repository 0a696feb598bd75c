"""What a new segment is compressed against: the chunks that stood at its places before, as far as the bounds allow.

Bases come from the pack cache and nowhere else: what is not there is not waited for, the segment is then stored plain.
Every base chunk is compared with its id in the very bytes that become the dictionary.

The bounds are the format's (docs/format/limits.md): a part that would break one gives way to what it is itself based
on, down to the last plain version at that place; a part that still does not fit is left out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from gateway.errors import IntegrityError, LocalStateError
from gateway.format import limits
from gateway.format.directory import Segment
from gateway.format.segment import Encoding
from gateway.model.ids import Run
from gateway.repository.cache import PackCache
from gateway.repository.chain import Chain
from gateway.repository.closures import Key
from gateway.repository.earlier import MARGIN, Earlier, Wanted
from gateway.repository.indexes import PackIndexes
from gateway.repository.packs import Base, NewSegment
from gateway.repository.reader import ChainReader
from gateway.repository.retired import NOTHING, Retired
from gateway.repository.sketch_index import SketchIndex


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

    def __init__(
        self, chain: Chain, indexes: PackIndexes, cache: PackCache, usable: frozenset[int],
        sketches: SketchIndex | None = None, retired: Retired = NOTHING,
    ) -> None:  # fmt: skip
        """`usable`: packs that a new generation may refer to, but for the chunks of `retired`. Without `sketches` only
        places say what is alike.
        """
        self._chain = chain
        self._indexes = indexes
        self._cache = cache
        self._usable = usable
        self._sketches = sketches
        self._retired = retired
        self._reader = ChainReader(chain, indexes, cache, only_local=True)
        self._closures = self._reader.closures

    def choose(
        self, new: NewSegment, earlier: Earlier | None, wanted: Sequence[Wanted], fates: Fates
    ) -> Base | None:  # fmt: skip
        """The base of a segment: what stood at its places before, else what is like it."""
        if not self._usable:  # the first generation of a chain
            fates[Fate.UNKNOWN] += len(new.ends)
            return None
        gathered = _Gathered(limits.CLOSURE_BYTES - len(new.raw))
        found = Fates()
        try:
            unplaced: Sequence[int] = range(len(new.ends))
            if earlier is not None:
                windows, unplaced = _windows(wanted)
                for low, high, chunks in windows:
                    found[self._add_all(gathered, earlier.runs(low, high))] += chunks
            for runs, chunks in self._alike(new, unplaced):
                found[self._add_all(gathered, runs)] += chunks
            base = self._base(gathered)
        except (IntegrityError, LocalStateError):
            # Gone from the cache meanwhile, or damaged there: that costs bytes, nothing else.
            fates[Fate.ABSENT] += len(new.ends)
            return None
        fates.update(found)
        return base

    def stored(self, new: NewSegment, pack: int, pack_id: bytes, first: int) -> None:
        """A segment is in a pack now, its chunks from index `first` on."""
        if self._sketches is not None:
            self._sketches.add(new.raw, new.ends, pack, pack_id, first)

    def read(self, raw: memoryview, ends: Sequence[int], places: Sequence[int]) -> None:
        """Chunks were read, of which some are known; `places`: pack and index of each, flat, zeros for unknown ones."""
        if self._sketches is not None and self._sketches.forgotten:
            self._sketches.remember(raw, ends, places)

    def _alike(self, new: NewSegment, unplaced: Sequence[int]) -> Iterator[tuple[list[Run], int]]:
        """For chunks of which nobody knows where they stood: what their sketches say, and how many chunks it is for."""
        places = self._sketches.find(new.raw, new.ends) if self._sketches is not None and unplaced else []
        spans: list[tuple[int, int, int, int]] = []  # pack, first and last byte in it, chunks
        for number in unplaced:
            pack, chunk = places[number] if places else (0, 0)
            if not pack:
                yield [], 1
                continue
            directory = self._indexes.opened(pack).directory
            if chunk >= directory.chunks:
                yield [], 1
                continue
            end = directory.ends[chunk]
            size = new.ends[number] - (new.ends[number - 1] if number else 0)
            low, high = max(0, end - size - MARGIN), end + MARGIN
            if spans and spans[-1][0] == pack and spans[-1][1] <= low <= spans[-1][2]:
                spans[-1] = (pack, spans[-1][1], max(spans[-1][2], high), spans[-1][3] + 1)
            else:
                spans.append((pack, low, high, 1))
        for pack, low, high, chunks in spans:
            ends = self._indexes.opened(pack).directory.ends
            first = bisect_right(ends, low)
            last = min(bisect_left(ends, high) + 1, len(ends))
            yield [Run(pack, first, last - first)], chunks

    def _add_all(self, gathered: _Gathered, runs: Sequence[Run]) -> Fate:
        """Add these chunks; of several parts one is enough."""
        return _best({self._add(gathered, *part) for part in self._closures.parts(runs)})

    def _add(self, gathered: _Gathered, pack: int, segment: Segment, first: int, last: int) -> Fate:
        closure = self._closures.of(pack, segment)
        fate = Fate.BOUNDED
        if not all(map(self._at_hand, closure.packs)):
            fate = Fate.ABSENT
        elif closure.depth < limits.DEPTH and not self._retired.has(pack, first):
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
        return Base(tuple(runs), self._reader.joined(runs))


def _windows(wanted: Sequence[Wanted]) -> tuple[list[tuple[int, int, int]], list[int]]:
    """Where in the stream before chunks are looked for, neighbours joined: first and last byte, how many chunks. And
    the numbers of those of which nothing says where.
    """
    out: list[tuple[int, int, int]] = []
    unplaced: list[int] = []
    for number, each in enumerate(wanted):
        windows = each.windows()
        if not windows:
            unplaced.append(number)
        for which, (low, high) in enumerate(windows):
            counted = 0 if which else 1
            if out and out[-1][0] <= low <= out[-1][1]:
                out[-1] = (out[-1][0], max(out[-1][1], high), out[-1][2] + counted)
            else:
                out.append((low, high, counted))
    return out, unplaced


def _best(fates: set[Fate]) -> Fate:
    """Of a window's parts: one base is enough."""
    return next((fate for fate in (Fate.BASED, Fate.BOUNDED, Fate.ABSENT) if fate in fates), Fate.UNKNOWN)
