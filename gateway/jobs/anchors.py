"""Which version of a large file its next one is compressed against (`gateway.policy.anchor`)."""

from __future__ import annotations

from collections import Counter

from gateway.errors import IntegrityError
from gateway.format import names
from gateway.format.filelist import Item
from gateway.format.log import Commit
from gateway.format.segment import Encoding
from gateway.model.ids import in_ranges
from gateway.policy.anchor import Reduced, anchor
from gateway.repository.cache import PackCache
from gateway.repository.chain import Chain
from gateway.repository.chunk_index import usable_packs
from gateway.repository.fold import GenerationState
from gateway.repository.indexes import PackIndexes
from gateway.repository.lists import read_below
from gateway.repository.reader import ChainReader

MOSTLY = 8
"""A pack that takes less than such a part of its raw bytes holds mostly deltas."""


class Anchors:
    """Of one source's chain, for one run. One thread."""

    def __init__(self, chain: Chain, source: str, before: GenerationState | None, reader: ChainReader,
                 indexes: PackIndexes, cache: PackCache) -> None:  # fmt: skip
        """`before`: the generation before, whose items `of` is asked about."""
        self._chain = chain
        self._before = before
        self._reader = reader
        self._indexes = indexes
        self._cache = cache
        usable = set(usable_packs(chain.fold))
        mine = _committed(chain, source)
        self._lists = {
            each.commit.number: each.commit.files
            for each in mine
            if not each.expired and _lists_of(chain, each) <= usable
        }
        self._made = {each.sequence: each.commit.number for each in mine}
        chosen = anchor([_reduced(each.commit, each.commit.number in self._lists) for each in mine])
        self._anchor = chosen.number if chosen is not None else None

    def of(self, before: Item) -> Item:
        """The item of the same path to compress against: of the anchor, or of the later generation that stored most of
        the file without deltas; or `before`, where less of it is missing in the cache. `Corrupt`, `Missing`: a
        directory is not to be had.
        """
        if self._before is None or self._anchor is None:
            return before
        number = max(self._anchor, self._stored_by(before))
        if number >= self._before.commit.number or number not in self._lists:
            return before
        path = before.entry.path
        address = f"file list of {self._before.commit.source}@{number}"
        try:
            item = next(read_below(self._lists[number], path, self._reader.fetch, address), None)
        except IntegrityError:
            return before  # `verify` is who looks for damage
        if isinstance(item, Item) and item.entry.path == path and self._at_hand(item) >= self._at_hand(before):
            return item
        return before

    def _at_hand(self, item: Item) -> int:
        """How many bytes of an item lie in packs that are in the cache."""
        total = 0
        for run in item.runs:
            opened = self._indexes.opened(run.pack)
            pack_id = self._chain.fold.packs[run.pack].declaration.pack_id
            if self._cache.has(self._chain.name, run.pack, pack_id):
                total += opened.directory.span(run.first, run.count)
        return total

    def _stored_by(self, item: Item) -> int:
        """The generation in whose packs most of a file's plain chunks lie; 0 where that is not known."""
        plain = Counter[int]()
        for run in item.runs:
            opened = self._indexes.opened(run.pack)
            made = self._made.get(self._chain.fold.packs[run.pack].declared_by, 0)
            for segment, first, last in opened.segments_of(run.first, run.count):
                if segment.encoding is not Encoding.DELTA:
                    plain[made] += opened.directory.span(first, last - first)
        return plain.most_common(1)[0][0] if plain else 0


def joined(chain: Chain, source: str) -> set[int]:
    """Packs of deltas that the next generation stores anew, since it will be the anchor; none when it will not be."""
    packs = chain.fold.packs
    mine = _committed(chain, source)
    made = {each.sequence: each.commit.number for each in mine}
    chosen = anchor([_reduced(each.commit, not each.expired) for each in mine])
    if chosen is None or not chosen.joins:
        return set()
    return {
        number
        for number, state in packs.items()
        if state.declaration.bases
        and state.declaration.size * MOSTLY < state.declaration.raw
        and made.get(state.declared_by, 0) > chosen.number
    }


def _committed(chain: Chain, source: str) -> list[GenerationState]:
    found = [each for each in chain.fold.generations.values() if each.committed and each.commit.source == source]
    return sorted(found, key=lambda each: each.commit.number)


def _reduced(commit: Commit, readable: bool) -> Reduced:
    taken = commit.statistics
    return Reduced(number=commit.number, delta_raw=taken.delta_raw, delta_stored=taken.stored_delta, readable=readable)


def _lists_of(chain: Chain, state: GenerationState) -> set[int]:
    """The list packs that a generation needs."""
    packs = chain.fold.packs
    return {
        number
        for number in in_ranges(state.commit.needs)
        if number not in packs or packs[number].declaration.storage == names.META
    }
