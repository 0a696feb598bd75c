"""Reading chunks of a chain back: from the pack cache, else from the store by ranged reads.

Every segment is authenticated, expanded and its used chunks compared with their ids before a byte leaves this module.
Decoded segments are kept in a small cache, since neighbours in a file are neighbours in a pack. Thread-safe.
"""

from __future__ import annotations

import contextlib
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from gateway.errors import Corrupt, Missing, ObjectMissing
from gateway.format import limits, names
from gateway.format.container import Frame, Kind
from gateway.format.directory import Directory, PackIndex, Segment
from gateway.format.keys import chunk_id
from gateway.format.segment import Encoding, SegmentCodec
from gateway.model.ids import Run
from gateway.repository.cache import Cached
from gateway.repository.chain import Chain
from gateway.repository.closures import Closures
from gateway.repository.indexes import PackIndexes, pack_key, pack_kind
from gateway.repository.pack_files import PACK_FILES

READ_AHEAD = 8 * 1024 * 1024
"""LIMIT: sealed bytes fetched in one request: of consecutive segments that one caller needs."""
CACHED_AHEAD = 1024 * 1024
"""The same where the pack is in the cache: a request costs nothing there, and what was read should still be hot."""
DECODED_BYTES = 32 * 1024 * 1024
"""LIMIT: of decoded segments kept for neighbours; all that one segment stands on has no more."""
BLOCK_BYTES = 48 * 1024 * 1024
"""LIMIT: of planned ranges that are kept. Where deltas stand on deltas, a range of each pack below is in use at a time,
of which all but the first are small.
"""
GAP = 256 * 1024
"""LIMIT: unneeded bytes between two segments that are fetched along rather than asked around."""

_Above = frozenset[tuple[int, int]]
"""The segments (pack, number) that stand on the one being decoded."""


class _Want(NamedTuple):
    """Chunks first .. last-1 of a segment."""

    pack: int
    segment: Segment
    first: int
    last: int


class _Block:
    """A planned range, and the lock of who fetches it."""

    __slots__ = ("data", "lock")

    def __init__(self) -> None:
        self.data = b""
        self.lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Decoded:
    """A segment's bytes, and which of its chunks have been compared with their ids in them."""

    raw: bytes
    checked: bytearray


class ChainReader:
    """Reads the chunks of one chain."""

    def __init__(self, chain: Chain, indexes: PackIndexes, cache: Cached | None, *, only_local: bool = False) -> None:
        """With `only_local`, what is not in the cache is `Missing`: the store is never asked for a pack."""
        self._only_local = only_local
        self._chain = chain
        self._indexes = indexes
        self._cache = cache
        self._local = threading.local()
        self._lock = threading.Lock()
        self._decoded: OrderedDict[tuple[int, int], _Decoded] = OrderedDict()
        self._decoded_bytes = 0
        self.closures = Closures(indexes)
        self.requests = 0
        self.fetched = 0
        self._taken: dict[int, tuple[int, int]] = {}
        self._planned: dict[int, list[tuple[int, int]]] = {}
        self._block_bytes = 0
        self._blocks: OrderedDict[tuple[int, int, int], _Block] = OrderedDict()

    def taken(self) -> dict[int, tuple[int, int]]:
        """What the store was asked for since the last call, by pack: requests and bytes."""
        with self._lock:
            taken, self._taken = self._taken, {}
        return taken

    def expect(self, pack: int, ranges: list[tuple[int, int]]) -> None:
        """These ranges (start, end; ascending) of a pack will be wanted as a whole, in whatever order of files: what
        the store is asked for in one of them is asked once, and kept for a while.
        """
        self._planned[pack] = ranges

    def expect_all(self, pack: int, directory: Directory) -> None:
        """Any segment of a pack may be wanted, as a base of others."""
        ranges: list[tuple[int, int]] = []
        for segment in directory.segments:
            end = segment.offset + segment.size
            if ranges and end - ranges[-1][0] <= READ_AHEAD:
                ranges[-1] = (ranges[-1][0], end)
            else:
                ranges.append((segment.offset, end))
        self._planned[pack] = ranges

    def fetch(self, runs: list[Run], size: int) -> bytes:
        """`size` bytes that runs hold, from the first chunk's start; `Corrupt` when they hold another number."""
        data = b"".join(self.stream(runs))
        if len(data) != size:
            raise Corrupt(f"runs hold {len(data)} bytes, not {size}", address=names.chain_prefix(self._chain.name))
        return data

    def stream(self, runs: Iterable[Run]) -> Iterator[memoryview]:
        """The bytes of runs in order, in pieces of at most a segment, each checked."""
        for wants in self._batches(self._wants(runs)):
            sealed = self._sealed(wants)
            again = {a.segment.number for a, b in pairwise(wants) if a.segment.number == b.segment.number}
            for want, frame in zip(wants, sealed, strict=True):
                opened = self._indexes.opened(want.pack)
                # A segment that is wanted as a whole is done with. Kept, it would only push out those that are not,
                # and its memory could not be used again while it is hot.
                keep = want.last - want.first < want.segment.chunks or want.segment.number in again
                raw = self._raw(want.pack, want.segment, opened, frame, frozenset(), keep=keep)
                yield self._checked(opened, want, raw)

    def joined(self, runs: Iterable[Run]) -> bytes:
        """The bytes of runs that a delta is to stand on, each chunk compared with its id in the very bytes returned: a
        segment that was made with other bytes than the chunks have could never be expanded again.
        """
        wants = list(self._wants(runs))
        parts = []
        for want in wants:
            opened = self._indexes.opened(want.pack)
            decoded = self._raw(want.pack, want.segment, opened, None, frozenset())
            start, end = _span(opened, want.segment, want.first, want.last)
            parts.append(memoryview(decoded.raw)[start:end])
        base, at = b"".join(parts), 0
        view = memoryview(base)
        for want in wants:
            directory, key = self._indexes.opened(want.pack).directory, self._id_key(want.pack)
            shift = at - (directory.ends[want.first - 1] if want.first else 0)
            for index in range(want.first, want.last):
                end = directory.ends[index] + shift
                if chunk_id(key, view[at:end]) != directory.chunk_id(index):
                    raise Corrupt(f"chunk {index} is not the one it should be", address=f"pack {want.pack:08x}")
                at = end
        return base

    # --- what is wanted ----------------------------------------------------------------------------------------------

    def _wants(self, runs: Iterable[Run]) -> Iterator[_Want]:
        for run in runs:
            pack = run.pack
            for segment, first, last in self._indexes.opened(pack).segments_of(run.first, run.count):
                yield _Want(pack, segment, first, last)

    def _batches(self, wants: Iterable[_Want]) -> Iterator[list[_Want]]:
        """Consecutive wants that one read of one pack serves."""
        batch: list[_Want] = []
        ahead = READ_AHEAD
        for want in wants:
            if batch:
                last = batch[-1].segment
                gap = want.segment.offset - (last.offset + last.size)
                if (
                    want.pack != batch[-1].pack
                    or (want.segment.number != last.number and not 0 <= gap <= GAP)
                    or want.segment.offset + want.segment.size - batch[0].segment.offset > ahead
                ):
                    yield batch
                    batch = []
            if not batch:
                planned = self._planned_range(want.pack, want.segment.offset)
                if self._at_hand(want.pack):
                    ahead = CACHED_AHEAD
                else:
                    ahead = planned[1] - want.segment.offset if planned else READ_AHEAD
            batch.append(want)
        if batch:
            yield batch

    # --- sealed bytes ------------------------------------------------------------------------------------------------

    def _sealed(self, wants: list[_Want]) -> list[memoryview | None]:
        """The sealed frame of every want; None where its segment is decoded already."""
        pack = wants[0].pack
        with self._lock:
            missing = [want for want in wants if (pack, want.segment.number) not in self._decoded]
        if not missing:
            return [None] * len(wants)
        start = missing[0].segment.offset
        end = max(want.segment.offset + want.segment.size for want in missing)
        planned = self._planned_range(pack, start)
        if planned is not None and end <= planned[1] and not self._at_hand(pack):
            start = planned[0]
            data = memoryview(self._block(pack, *planned))
        else:
            data = memoryview(self.read_pack(pack, start, end - start))
        have = {want.segment.number for want in missing}
        return [
            data[want.segment.offset - start : want.segment.offset - start + want.segment.size]
            if want.segment.number in have
            else None
            for want in wants
        ]

    def _planned_range(self, pack: int, offset: int) -> tuple[int, int] | None:
        """The planned range that `offset` of a pack lies in."""
        ranges = self._planned.get(pack)
        at = bisect_right(ranges, offset, key=lambda each: each[0]) - 1 if ranges else -1
        return ranges[at] if ranges and at >= 0 and offset < ranges[at][1] else None

    def _frame(self, pack: int, segment: Segment) -> memoryview:
        """The sealed frame of one segment."""
        start, end = segment.offset, segment.offset + segment.size
        planned = self._planned_range(pack, start)
        if planned is not None and end <= planned[1] and not self._at_hand(pack):
            return memoryview(self._block(pack, *planned))[start - planned[0] : end - planned[0]]
        return memoryview(self.read_pack(pack, start, segment.size))

    def _block(self, pack: int, start: int, end: int) -> bytes:
        """A planned range of a pack, from the store once."""
        key = (pack, start, end)
        with self._lock:
            block = self._blocks.get(key)
            if block is None:
                block = self._blocks[key] = _Block()
                self._block_bytes += end - start
            self._blocks.move_to_end(key)
            while self._block_bytes > BLOCK_BYTES and len(self._blocks) > 1:
                (_, gone_start, gone_end), _ = self._blocks.popitem(last=False)
                self._block_bytes -= gone_end - gone_start
        with block.lock:
            if not block.data:
                block.data = self._read_stored(pack, start, end - start)
            return block.data

    def _at_hand(self, pack: int) -> bool:
        if self._cache is None:
            return False
        return self._cache.has(self._chain.name, pack, self._chain.fold.packs[pack].declaration.pack_id)

    def read_pack(self, number: int, start: int, length: int) -> bytes:
        """Bytes of a pack object, from the cache or the store. `Missing`, `Corrupt`."""
        if self._cache is not None:
            path = self._cache.find(self._chain.name, number, self._chain.fold.packs[number].declaration.pack_id)
            try:
                if path is not None:
                    file = PACK_FILES.open(path)
                    if len(data := os.pread(file.fd, length, start)) == length:
                        return data
            except OSError:
                pass  # evicted by the writer, or the cache's disk fails: the store has it
        return self._read_stored(number, start, length)

    def _read_stored(self, number: int, start: int, length: int) -> bytes:
        key = pack_key(self._chain, self._chain.fold.packs[number].declaration)
        if self._only_local:
            raise Missing("not in the pack cache, or not whole there", address=key)
        with self._lock:
            self.requests += 1
            self.fetched += length
            requests, taken = self._taken.get(number, (0, 0))
            self._taken[number] = requests + 1, taken + length
        try:
            return self._chain.repository.store.get(key, start=start, length=length)
        except ObjectMissing as error:
            raise Missing("a pack that is needed is not there", address=key) from error

    # --- decoding ----------------------------------------------------------------------------------------------------

    def _codec(self) -> SegmentCodec:
        codec = getattr(self._local, "codec", None)
        if codec is None:
            codec = self._local.codec = SegmentCodec()
        return codec

    def _raw(
        self,
        pack: int,
        segment: Segment,
        opened: PackIndex,
        frame: memoryview | None,
        above: frozenset[tuple[int, int]],
        *,
        keep: bool = True,
    ) -> _Decoded:
        """A segment's raw bytes, its bases decoded first. `above`: the segments that stand on this one.

        `keep`: whether somebody is likely to want it again soon.
        """
        key = (pack, segment.number)
        found = self._decoded.get(key)
        if found is not None:
            with contextlib.suppress(KeyError):  # another thread let it go meanwhile
                self._decoded.move_to_end(key)
            return found
        if frame is None:
            frame = self._frame(pack, segment)
        address = f"{opened.opener.address} frame {segment.number}"
        try:
            packed = opened.opener.open(segment.number, Frame.SEGMENT, frame)
        except Corrupt:
            if not self._at_hand(pack):
                raise
            # The local copy may have rotted: the store has the last word.
            frame = memoryview(self._read_stored(pack, segment.offset, segment.size))
            packed = opened.opener.open(segment.number, Frame.SEGMENT, frame)
        if bytes(frame[-16:]) != segment.tag:
            raise Corrupt("frame is not the one in the directory", address=address)
        base = b""
        if segment.encoding is Encoding.DELTA:
            if len(above) >= limits.DEPTH:
                raise Corrupt("delta is deeper than the format allows", address=address)
            self.closures.of(pack, segment)  # within the bounds, also where some of it is decoded already
            base = self._base(segment, pack_kind(self._storage(pack)), above | {key}, address)
        try:
            raw = self._codec().expand(segment.encoding, packed, segment.raw, base, address)
        except Corrupt:
            self._blame(segment)
            raise
        decoded = _Decoded(raw, bytearray(segment.chunks))
        if keep:
            self._keep(key, decoded)
        return decoded

    def decode(self, pack: int, segment: Segment, opened: PackIndex, frame: memoryview) -> bytes:
        """The raw bytes of a segment whose sealed frame the caller has read; its chunks are not compared yet."""
        with self._lock:
            gone = self._decoded.pop((pack, segment.number), None)
            self._decoded_bytes -= len(gone.raw) if gone is not None else 0
        return self._raw(pack, segment, opened, frame, frozenset()).raw

    def _storage(self, pack: int) -> str:
        return self._chain.fold.packs[pack].declaration.storage

    def _base(self, segment: Segment, kind: Kind, above: _Above, address: str) -> bytes:
        """The dictionary of a delta: its base chunks, joined. They are not compared with their ids: if one was another,
        so would be what is made with it, which is compared.
        """
        parts = []
        packs = {run.pack: self._indexes.opened(run.pack) for run in segment.bases}
        for pack in packs:
            if pack_kind(self._storage(pack)) is not kind:
                raise Corrupt("base is of another kind", address=address)
        for run in segment.bases:
            opened = packs[run.pack]
            for under, first, last in opened.segments_of(run.first, run.count):
                decoded = self._decoded.get((run.pack, under.number))
                if decoded is None:
                    decoded = self._raw(run.pack, under, opened, None, above)
                start, end = _span(opened, under, first, last)
                parts.append(memoryview(decoded.raw)[start:end])
        base = b"".join(parts)
        if len(base) > limits.BASE_BYTES:
            raise Corrupt("base is larger than the format allows", address=address)
        return base

    def _keep(self, key: tuple[int, int], decoded: _Decoded) -> None:
        with self._lock:
            if key not in self._decoded:
                self._decoded[key] = decoded
                self._decoded_bytes += len(decoded.raw)
            while self._decoded_bytes > DECODED_BYTES:
                _, gone = self._decoded.popitem(last=False)
                self._decoded_bytes -= len(gone.raw)

    def _id_key(self, pack: int) -> bytes:
        keys = self._chain.keys
        return keys.list_id if pack_kind(self._storage(pack)) is Kind.LIST else keys.chunk_id

    def _checked(self, opened: PackIndex, want: _Want, decoded: _Decoded) -> memoryview:
        """The wanted chunks of a decoded segment, after comparing each with its id, once for these bytes."""
        segment, view, checked = want.segment, memoryview(decoded.raw), decoded.checked
        ends, low = opened.directory.ends, segment.first
        start, stop = _span(opened, segment, want.first, want.last)
        if checked.find(0, want.first - low, want.last - low) >= 0:
            key, at, origin = self._id_key(want.pack), start, ends[low - 1] if low else 0
            for index in range(want.first, want.last):
                end = ends[index] - origin
                if not checked[index - low]:
                    if chunk_id(key, view[at:end]) != opened.directory.chunk_id(index):
                        self._blame(segment)
                        raise Corrupt(
                            f"chunk {index} is not the one it should be",
                            address=f"{opened.opener.address} frame {segment.number}",
                        )
                    checked[index - low] = 1
                at = end
        return view[start:stop]

    def _blame(self, segment: Segment) -> None:
        """A segment is not what it should be: `Corrupt` when that is because of one it stands on."""
        for want in self._wants(segment.bases):
            opened = self._indexes.opened(want.pack)
            self._checked(opened, want, self._raw(want.pack, want.segment, opened, None, frozenset()))


def _span(opened: PackIndex, segment: Segment, first: int, last: int) -> tuple[int, int]:
    """Where chunks first .. last-1 are in their segment's raw bytes."""
    ends = opened.directory.ends
    origin = ends[segment.first - 1] if segment.first else 0
    return (ends[first - 1] if first else 0) - origin, ends[last - 1] - origin
