"""The pipeline: streams in, references out; new chunks go into packs.

One worker thread runs an extent to completion on its own reused buffers:
read -> cut -> id -> known: reference / new: segment -> compress -> seal -> open again and compare -> pack.
Packs are handed to the `finished` of `Packs` as they fill up; a reference is durable only when its pack is
acknowledged, which is the caller's to wait for.

Memory: workers x (read buffer 1 MiB + greatest chunk, segment buffer 256 KiB + greatest chunk, zstd contexts about
2 MiB, frame buffers about 1 MiB).
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NoReturn, Protocol

import numpy as np
from blake3 import blake3

from gateway.errors import GatewayError
from gateway.format.chunker import Chunker
from gateway.format.container import OVERHEAD
from gateway.format.segment import Encoding, SegmentCodec
from gateway.model.ids import Run
from gateway.repository.bases import Fates
from gateway.repository.chunk_index import ChunkIndex
from gateway.repository.earlier import NEAR, Cursor, Earlier, Wanted
from gateway.repository.packs import Base, NewSegment, PackWriter
from gateway.repository.retired import NOTHING, Retired

READ_BYTES = 1024 * 1024
"""As much as stays in the second-level cache of a core until it is cut, hashed and compressed."""

HINTS = 6
"""So often in a buffer it is tried whether what follows is what stood there before; once where much has changed."""
AFTER_A_CHANGE = 96 * 1024
"""Bytes that are cut behind a chunk that is another, more than the greatest chunk has."""

STUBBORN = 4
"""So many segments in a row that did not compress make a worker ask a few samples first."""
SAMPLES, SAMPLE_BYTES = 3, 8 * 1024
PAYS_WITHOUT_ASKING = 16
"""A delta this many times smaller than its segment is taken without trying what zstd alone would make of it."""


class SourceChanged(GatewayError):
    """The bytes under a reader changed, or could not be read: this version of the file is not to be had."""


class Stopped(GatewayError):
    """Another thread of the run has failed. Never shown: `ChainWriter` raises what that thread failed of instead."""


class Reader(Protocol):
    """An opened file whose content does not change, or that says so.

    `ranges`: what of it belongs to the piece, as (offset, length), ascending.
    """

    @property
    def ranges(self) -> Sequence[tuple[int, int]]: ...

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Bytes read at `offset` of the file; 0 at its end. `SourceChanged`."""

    def finished(self) -> None:
        """Called once all ranges of a piece were read. `SourceChanged` when they are not one version."""


@dataclass(slots=True)
class Piece:
    """What of one file is in an extent. `opener` is called by the worker when it is its turn.

    `position`: where its data began in the stream before (`Worker.run`); -1: nobody knows. `anew`: it has not changed,
    and is read since what it referred to is retired.
    """

    opener: Callable[[], Reader]
    position: int = -1
    anew: bool = False
    failed: GatewayError | None = None
    start: int = 0
    data_bytes: int = 0
    digest: bytes = b""
    runs: list[Run] = field(default_factory=list)
    skip: int = 0


@dataclass(slots=True)
class Counts:
    """What a run did, in bytes and chunks; each worker has its own, summed at the end."""

    read: int = 0
    new_raw: int = 0
    new_chunks: int = 0
    known_chunks: int = 0
    known_raw: int = 0
    stored: dict[Encoding, int] = field(default_factory=lambda: dict.fromkeys(Encoding, 0))
    delta_raw: int = 0
    retired: int = 0
    fates: Fates = field(default_factory=Fates)

    def add(self, other: Counts) -> None:
        self.read += other.read
        self.new_raw += other.new_raw
        self.new_chunks += other.new_chunks
        self.known_chunks += other.known_chunks
        self.known_raw += other.known_raw
        for encoding, size in other.stored.items():
            self.stored[encoding] += size
        self.delta_raw += other.delta_raw
        self.retired += other.retired
        self.fates.update(other.fates)


class BaseChooser(Protocol):
    """Finds what a new segment may be compressed against."""

    def choose(
        self, new: NewSegment, earlier: Earlier | None, wanted: Sequence[Wanted], fates: Fates
    ) -> Base | None:  # fmt: skip
        """`earlier`: the stream before, `wanted`: what is known of where each chunk stood in it; empty where there was
        no such stream. Adds to `fates` what became of each chunk.
        """

    def stored(self, new: NewSegment, pack: int, pack_id: bytes, first: int) -> None:
        """The segment is in that pack now, its chunks from index `first` on."""

    def read(self, raw: memoryview, ends: Sequence[int], places: Sequence[int]) -> None:
        """Chunks were read that end there in `raw`; `places`: pack and index of each, flat; zeros: it is not known."""


class Packs:
    """The open packs of one kind. A worker borrows one for the whole of an extent; the last returned goes out first,
    so that a small generation fills one pack, not one for each worker.
    """

    def __init__(self, create: Callable[[], PackWriter], finished: Callable[[PackWriter], None], full: int) -> None:
        self._create = create
        self._finished = finished
        self._full = full
        self._idle: list[PackWriter] = []
        self._lock = threading.Lock()

    def borrow(self) -> PackWriter:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._create()

    def give_back(self, pack: PackWriter) -> None:
        with self._lock:
            self._idle.append(pack)

    def room(self, pack: PackWriter, size: int) -> PackWriter:
        """`pack`, or a new one after `pack` was finished because `size` more bytes would make it too large."""
        if pack.chunks and pack.projected + size > self._full:
            self._finished(pack)
            return self._create()
        return pack

    def finish_all(self) -> None:
        """Finish what is open. Only while no extent runs."""
        with self._lock:
            idle, self._idle = self._idle, []
        for pack in idle:
            if pack.chunks:
                self._finished(pack)
            else:
                pack.abandon()

    def end(self) -> None:
        """The run is over: abandon what is open, and let go of who made it, so that its memory and its files need not
        wait for the collector of cycles.
        """
        with self._lock:
            idle, self._idle = self._idle, []
        for pack in idle:
            pack.abandon()
        self._create = self._finished = _over


def _over(*_: object) -> NoReturn:
    raise Stopped("The run is over.")


class Worker:
    """Buffers and codec of one thread. Runs extents one after the other."""

    def __init__(self, chunker: Chunker, id_key: bytes, index: ChunkIndex, packs: Packs, segment_bytes: int,
                 stopped: threading.Event, bases: BaseChooser | None = None,
                 retired: Retired = NOTHING) -> None:  # fmt: skip
        self._chunker = chunker
        self._id_key = id_key
        self._index = index
        self._packs = packs
        self._segment_bytes = segment_bytes
        self._stopped = stopped
        self._bases = bases
        self._retired = retired
        self._codec = SegmentCodec()
        greatest = chunker.parameters.maximum
        self._buffer = bytearray(READ_BYTES + greatest)
        self._segment = bytearray(segment_bytes + greatest)
        self._stubborn = 0
        self.counts = Counts()

    def run(self, pieces: Sequence[Piece], earlier: Earlier | None = None) -> None:
        """Fill in digest, data_bytes, runs and skip of every piece, or `failed`. `earlier`: the stream before."""
        extent = _Extent(self, pieces, earlier)
        try:
            extent.run()
        except BaseException:
            extent.abandon()
            raise
        extent.close()

    def note(self, encoding: Encoding) -> None:
        """What became of a segment that zstd was asked about."""
        self._stubborn = self._stubborn + 1 if encoding is Encoding.RAW else 0

    def is_stubborn(self, raw: memoryview) -> bool:
        """Whether nothing is to be gained from `raw`: those before did not compress, and its samples do not either.

        Compressed and encrypted input costs next to no work so. A segment that would have compressed after all is
        stored raw, which is right, and larger.
        """
        if self._stubborn < STUBBORN or len(raw) < 2 * SAMPLES * SAMPLE_BYTES:
            return False
        step = (len(raw) - SAMPLE_BYTES) // (SAMPLES - 1)
        for number in range(SAMPLES):
            encoding, _ = self._codec.compress(raw[number * step : number * step + SAMPLE_BYTES])
            if encoding is not Encoding.RAW:
                self._stubborn = 0
                return False
        return True


class _Extent:
    """One extent on its way through a worker's buffers and packs."""

    def __init__(self, worker: Worker, pieces: Sequence[Piece], earlier: Earlier | None) -> None:
        self._w = worker
        self._pieces = pieces
        self._earlier = earlier
        self._cursor = Cursor(earlier) if earlier is not None and worker._bases is not None else None
        self._begun: deque[Piece] = deque()
        self._anew = False
        self._wanted: list[Wanted] = []
        self._place: int | None = None  # the shift of what waits of this piece
        self._pack: PackWriter | None = None
        self._ends = array("Q")
        self._pack_of = array("I")
        self._index_of = array("I")
        self._total = 0
        self._segment_used = 0
        self._segment_ids = bytearray()
        self._segment_lengths: list[int] = []
        self._segment_retired = 0
        self._pending: dict[bytes, list[int]] = {}
        self._hints = HINTS if self._cursor is not None else 0
        self._reading = self._read()

    def run(self) -> None:
        w, view = self._w, memoryview(self._w._buffer)
        filled, final = 0, False
        while not final:
            if w._stopped.is_set():
                raise Stopped("The run was stopped.")
            filled, final = self._fill(view, filled)
            done = self._cut(view, filled, final)
            view[: filled - done] = view[done:filled]
            filled -= done
        self._close_segment()
        for piece in self._pieces:
            self._refer(piece)

    def close(self) -> None:
        if self._pack is not None:
            self._w._packs.give_back(self._pack)

    def abandon(self) -> None:
        """The run is over: what was being written when it failed may not be whole."""
        if self._pack is not None:
            self._pack.abandon()

    def _cut(self, view: memoryview, filled: int, final: bool) -> int:
        """Take the chunks in the buffer, and say where the last one ends.

        Most are those that stood at their places before, which is found out faster than where they end. Behind one that
        is not, a little is cut; where that happens again and again, all of the rest.
        """
        w, at, hints, calm = self._w, 0, self._hints, False
        while True:
            last = filled
            if hints:
                at, hints = self._hinted(view, at, filled), hints - 1
                calm = filled - at < AFTER_A_CHANGE
                last = min(filled, at + AFTER_A_CHANGE) if hints else filled
            ends = w._chunker.cut(w._buffer, at, last - at, final and last == filled)
            if not ends and last < filled:
                last = filled
                ends = w._chunker.cut(w._buffer, at, last - at, final)
            if ends:
                self._take(view[at:], ends)
                at += ends[-1]
            if last == filled:
                break
        if self._hints:
            self._hints = HINTS if hints or calm else 1  # one tells whether it is calm again
        return at

    def _hinted(self, view: memoryview, at: int, filled: int) -> int:
        """Take chunks from `at` on as long as they are those that stood at their places before."""
        w, cursor = self._w, self._cursor
        if cursor is None:
            return at
        position = self._ends[-1] if self._ends else 0
        while True:
            while self._begun and self._begun[0].start <= position:
                self._begin(self._begun.popleft())
            if cursor.shift is None:
                return at
            for pack, chunk, size, known in cursor.earlier.follow(position + cursor.shift):
                data = view[at : at + size]
                if (
                    at + size > filled
                    or not w._index.allows(pack)
                    or (not w._retired.spent and w._retired.has(pack, chunk))
                    or blake3(data, key=w._id_key).digest(16) != known
                ):
                    return at
                if w._bases is not None:
                    w._bases.read(data, (size,), (pack, chunk))
                cursor.known(position, position + size, position + cursor.shift, (pack, chunk))
                at, position = at + size, position + size
                self._ends.append(position)
                self._pack_of.append(pack)
                self._index_of.append(chunk)
                w.counts.known_chunks += 1
                w.counts.known_raw += size
                if self._begun and self._begun[0].start <= position:
                    break  # another file, which has its own place
            else:
                return at

    def _fill(self, view: memoryview, filled: int) -> tuple[int, bool]:
        """Read until the buffer is full or the pieces are done."""
        while filled < len(view):
            try:
                count = self._next(view[filled : filled + READ_BYTES])
            except StopIteration:
                return filled, True
            filled += count
        return filled, False

    def _next(self, room: memoryview) -> int:
        self._room = room
        return next(self._reading)

    def _read(self) -> Iterator[int]:
        """Reads the pieces into `self._room`, yielding how much; sets digest and failure of each piece as it ends."""
        for piece in self._pieces:
            piece.start = self._total
            self._begun.append(piece)
            hasher = blake3()
            try:
                reader = piece.opener()
                for start, length in reader.ranges:
                    at, end = start, start + length
                    while at < end:
                        room = self._room[: end - at]
                        count = reader.read_into(room, at)
                        if count == 0:
                            raise SourceChanged("The file became shorter while it was read.")
                        hasher.update(room[:count])
                        at += count
                        self._total += count
                        piece.data_bytes += count
                        yield count
                reader.finished()
            except SourceChanged as error:
                piece.failed = error
            piece.digest = hasher.digest()
            self._w.counts.read += piece.data_bytes

    def _take(self, view: memoryview, ends: list[int]) -> None:
        """Look up the chunks that end at `ends` in the buffer; new ones join the segment."""
        w = self._w
        starts = [0, *ends[:-1]]
        ids = [blake3(view[a:b], key=w._id_key).digest(16) for a, b in zip(starts, ends, strict=True)]
        found = array("I")
        found.frombytes(w._index.lookup(b"".join(ids)))
        base = self._ends[-1] if self._ends else 0
        if w._bases is not None:
            w._bases.read(view, ends, found)
        before = self._before(found)
        hidden = w._retired.hide(found)
        for at, (start, end, chunk) in enumerate(zip(starts, ends, ids, strict=True)):
            place = len(self._ends)
            self._ends.append(base + end)
            pack = found[2 * at]
            self._pack_of.append(pack)
            self._index_of.append(found[2 * at + 1])
            while self._begun and self._begun[0].start <= base + start:
                self._begin(self._begun.popleft())
            if self._cursor is not None and pack:
                self._cursor.known(base + start, base + end, before[at], (pack, found[2 * at + 1]))
            if pack:
                w.counts.known_chunks += 1
                w.counts.known_raw += end - start
            elif chunk in self._pending:
                self._pending[chunk].append(place)
            elif not self._stored_meanwhile(chunk, place):
                if self._cursor is not None:
                    wanted = self._cursor.new(base + start, base + end)
                    self._part(wanted.left)
                    self._wanted.append(wanted)
                self._segment_retired += end - start if self._anew or at in hidden else 0
                self._new(view[start:end], chunk, place)

    def _begin(self, piece: Piece) -> None:
        """The chunks from here on are of this piece, at least in part."""
        self._anew = piece.anew
        self._place = None
        if self._cursor is not None:
            self._cursor.begin(piece.start, piece.position)

    def _before(self, found: array[int]) -> list[int]:
        """Where known chunks stood in the stream before; empty when there was none."""
        if self._cursor is None:
            return []
        places = np.frombuffer(found, np.uint32).reshape(-1, 2).astype(np.int64)
        before: list[int] = self._cursor.earlier.positions(places[:, 0], places[:, 1]).tolist()
        return before

    def _stored_meanwhile(self, chunk: bytes, place: int) -> bool:
        """Whether the chunk was stored since its batch was looked up: by this extent, or by another worker."""
        found = array("I")
        found.frombytes(self._w._index.newest(chunk))
        if found[0] and not self._w._retired.spent and self._w._retired.has(*found):
            found = array("I", (0, 0))
        self._pack_of[place], self._index_of[place] = found
        return found[0] != 0

    def _new(self, data: memoryview, chunk: bytes, place: int) -> None:
        w, size = self._w, len(data)
        w._segment[self._segment_used : self._segment_used + size] = data
        self._segment_used += size
        self._segment_ids += chunk
        self._segment_lengths.append(size)
        self._pending[chunk] = [place]
        if self._segment_used >= w._segment_bytes:
            self._close_segment()

    def _part(self, place: int | None) -> None:
        """Close the segment where a file goes on at another place of the stream before.

        Whoever restores decodes all that a segment stands on. In a file that was multiplexed that would be in many
        places, and what is there would itself stand on many.
        """
        if place is None:
            return
        if self._place is None:
            self._place = place
        elif abs(place - self._place) > NEAR:
            self._close_segment()
            self._place = place

    def _close_segment(self) -> None:
        if not self._segment_lengths:
            return
        w = self._w
        raw = memoryview(w._segment)[: self._segment_used]
        ids = bytes(self._segment_ids)
        new = NewSegment(raw, list(accumulate(self._segment_lengths)))
        base = w._bases.choose(new, self._earlier, self._wanted, w.counts.fates) if w._bases else None
        encoding, packed, base = self._reduced(raw, base)
        self._pack = w._packs.room(self._pack or w._packs.borrow(), len(packed))
        first = self._pack.add(w._codec, raw, encoding, packed, ids, self._segment_lengths, base)
        number = self._pack.name.number
        w._index.add(ids, number, first)
        if w._bases is not None:
            w._bases.stored(new, number, self._pack.name.pack_id, first)
        for index, places in enumerate(self._pending.values(), first):
            for place in places:
                self._pack_of[place] = number
                self._index_of[place] = index
        w.counts.new_chunks += len(self._segment_lengths)
        w.counts.new_raw += self._segment_used
        w.counts.stored[encoding] += len(packed) + OVERHEAD
        w.counts.delta_raw += self._segment_used if encoding is Encoding.DELTA else 0
        if self._segment_retired:
            anew = (len(packed) + OVERHEAD) * self._segment_retired // self._segment_used
            w.counts.retired += anew
            w._retired.spend(anew)
            self._segment_retired = 0
        self._segment_used = 0
        self._segment_ids.clear()
        self._segment_lengths = []
        self._pending.clear()
        self._wanted.clear()

    def _reduced(
        self, raw: memoryview, base: Base | None
    ) -> tuple[Encoding, bytes | bytearray | memoryview, Base | None]:
        """The smallest of delta, zstd and raw."""
        codec = self._w._codec
        delta = codec.compress_delta(raw, base.data) if base is not None else None
        if delta is not None and len(delta) * PAYS_WITHOUT_ASKING < len(raw):
            return Encoding.DELTA, delta, base
        if delta is None and self._w.is_stubborn(raw):
            return Encoding.RAW, raw, None
        encoding, packed = codec.compress(raw)
        self._w.note(encoding)
        if delta is not None and len(delta) < len(packed):
            return Encoding.DELTA, delta, base
        return encoding, packed, None

    def _refer(self, piece: Piece) -> None:
        """Set runs and skip of a piece from where the chunks that cover it are."""
        if piece.failed is not None or not piece.data_bytes:
            return
        first = bisect_right(self._ends, piece.start)
        last = bisect_right(self._ends, piece.start + piece.data_bytes - 1)
        piece.skip = piece.start - (self._ends[first - 1] if first else 0)
        piece.runs = merge(zip(self._pack_of[first : last + 1], self._index_of[first : last + 1], strict=True))


def merge(places: Iterator[tuple[int, int]]) -> list[Run]:
    """Runs of chunks given one by one as (pack, index)."""
    runs: list[Run] = []
    pack = first = count = 0
    for each, index in places:
        if each == pack and index == first + count:
            count += 1
            continue
        if count:
            runs.append(Run(pack, first, count))
        pack, first, count = each, index, 1
    if count:
        runs.append(Run(pack, first, count))
    return runs


def join(parts: Sequence[Sequence[Run]]) -> list[Run]:
    """Runs of several extents as one list, neighbours merged."""
    out: list[Run] = []
    for run in (run for part in parts for run in part):
        last = out[-1] if out else None
        if last is not None and last.pack == run.pack and last.first + last.count == run.first:
            out[-1] = Run(run.pack, last.first, last.count + run.count)
        else:
            out.append(run)
    return out
