"""Where in a chain a chunk like this one is: the features of stored chunks.

Kept like the chunk index, in memory and in sorted files (`gateway.repository.chunk_index`), and never believed: what it
finds is a proposal for a base, whose chunks are compared with their ids, and which must pay. What is lost of it costs
bytes; it comes back with what is stored and with what is read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gateway.format import names
from gateway.format.sketch import Sketcher
from gateway.repository.chain import Chain
from gateway.repository.chunk_index import ChunkIndex


class SketchIndex:
    """Of the data packs of one chain. Thread-safe."""

    def __init__(self, directory: Path, chain: Chain, usable: Sequence[int]) -> None:
        """`usable`: packs that a new generation may refer to."""
        self._chain = chain
        self._index = ChunkIndex(directory, chain.repository.clock.random_bytes)
        self._sketcher = Sketcher(chain.keys.chunker)
        self.forgotten = set[int]()
        """Packs whose chunks are not in it: it was lost. `remember` puts back what is read of them."""
        for number in usable:
            declaration = chain.fold.packs[number].declaration
            self._index.allow(number, declaration.pack_id)
            if declaration.storage != names.META and not self._index.covers(number, declaration.pack_id):
                self.forgotten.add(number)

    def find(self, raw: memoryview, ends: Sequence[int]) -> list[tuple[int, int]]:
        """Pack and index of a chunk like each, in a pack that an entry declares; pack 0 where none is known."""
        found = self._index.lookup(self._sketcher.features(raw, ends))
        places = np.frombuffer(found, "<u4").reshape(-1, 2).tolist()
        return [(pack, index) if pack in self._chain.fold.packs else (0, 0) for pack, index in places]

    def add(self, raw: memoryview, ends: Sequence[int], pack: int, pack_id: bytes, first: int) -> None:
        """These chunks were stored in a pack, from index `first` on."""
        self._index.allow(pack, pack_id)
        self._index.add(self._sketcher.features(raw, ends), pack, first)

    def remember(self, raw: memoryview, ends: Sequence[int], places: Sequence[int]) -> None:
        """Known chunks were read; `places`: pack and index of each, flat. Those of forgotten packs are added."""
        for at, (pack, index) in enumerate(zip(places[::2], places[1::2], strict=True)):
            if pack in self.forgotten:
                start = ends[at - 1] if at else 0
                self._index.add(self._sketcher.features(raw[start : ends[at]], [ends[at] - start]), pack, index)

    def save(self) -> None:
        """Keep it for the next run, of the packs the log declares. Only while nobody adds."""
        self._index.save({number: pack.declaration.pack_id for number, pack in self._chain.fold.packs.items()})
