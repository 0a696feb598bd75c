"""What a segment stands on: its bases, theirs, and so on (docs/format/data.md section 2)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway.errors import Corrupt
from gateway.format import limits
from gateway.format.directory import Segment
from gateway.model.ids import Run
from gateway.repository.indexes import PackIndexes

REMEMBERED = 1024
"""LIMIT: closures that are kept; one of a deep delta has some hundred members."""

Key = tuple[int, int]
"""A segment: its pack, and its number there."""


@dataclass(frozen=True, slots=True)
class Closure:
    """`depth` of a segment; raw bytes of each `members`, itself among them, and their `total`; `packs` they lie in."""

    depth: int
    members: dict[Key, int]
    total: int
    packs: frozenset[int]


class Closures:
    """Closures of a chain's segments, each computed once. Thread-safe."""

    def __init__(self, indexes: PackIndexes) -> None:
        self._indexes = indexes
        self._lock = threading.Lock()
        self._found: OrderedDict[Key, Closure] = OrderedDict()

    def parts(self, runs: Sequence[Run]) -> Iterator[tuple[int, Segment, int, int]]:
        """Runs by segment: pack, segment, first chunk and last + 1 (in the pack)."""
        for run in runs:
            pack = run.pack
            for segment, first, last in self._indexes.opened(pack).segments_of(run.first, run.count):
                yield pack, segment, first, last

    def of(self, pack: int, segment: Segment) -> Closure:
        """`Corrupt`: it breaks the format's bounds."""
        return self._of(pack, segment, {}, 0)

    def _of(self, pack: int, segment: Segment, seen: dict[Key, Closure], level: int) -> Closure:
        key = (pack, segment.number)
        found = seen.get(key)
        if found is None:
            found = self._found.get(key)
        if found is None:
            found = self._made(key, segment, seen, level)
            with self._lock:
                self._found[key] = found
                while len(self._found) > REMEMBERED:
                    self._found.popitem(last=False)
        seen[key] = found
        return found

    def _made(self, key: Key, segment: Segment, seen: dict[Key, Closure], level: int) -> Closure:
        if level > limits.DEPTH:
            raise Corrupt("delta is deeper than the format allows", address=_address(key))
        members, depth, packs = {key: segment.raw}, 0, {key[0]}
        below: Key | None = None
        for pack, base, _, _ in self.parts(segment.bases):
            if (pack, base.number) == below:
                continue
            below = (pack, base.number)
            closure = self._of(pack, base, seen, level + 1)
            members.update(closure.members)
            packs |= closure.packs
            depth = max(depth, closure.depth + 1)
        if depth > limits.DEPTH:
            raise Corrupt("delta is deeper than the format allows", address=_address(key))
        total = sum(members.values())
        if total > limits.CLOSURE_BYTES:
            raise Corrupt("delta stands on more than the format allows", address=_address(key))
        return Closure(depth, members, total, frozenset(packs))


def _address(key: Key) -> str:
    return f"pack {key[0]:08x} frame {key[1]}"
