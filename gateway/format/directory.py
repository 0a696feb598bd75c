"""The directory of a pack, and its index object (docs/format/data.md section 3, README.md section 4.4).

Who looks at very many packs reads `Columns`. For these there is a C kernel, `gateway.format._columns`, beside the twin
here: it accepts only what is as the gateway itself writes it. A directory in which it finds anything else is read by
the twin, which accepts or refuses it as `decode` does.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.errors import Corrupt
from gateway.format import container, kernels, limits, wire
from gateway.format.container import HEADER, OVERHEAD, TRAILER, Frame, Name, Opener, Trailer
from gateway.format.keys import ChainKeys
from gateway.format.log import U32, Digest, Id, check_runs
from gateway.format.segment import Encoding
from gateway.model.ids import Run

ID = 16


_kernel = kernels.load("_columns")


class _Segment(wire.Record, frozen=True):
    encoding: int
    size: U32
    chunks: U32
    tag: bytes
    bases: tuple[U32, ...]


class _Directory(wire.Record, frozen=True):
    writer: Id
    sequence: U32
    digest: Digest
    segments: tuple[_Segment, ...]
    ids: bytes
    lengths: bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of a pack: `offset` and `size` of its sealed frame, its chunks from `first` on, `raw` bytes of them."""

    number: int
    encoding: Encoding
    offset: int
    size: int
    first: int
    chunks: int
    raw: int
    tag: bytes
    bases: tuple[Run, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The newest log entry the writer of a pack had folded; sequence 0: the chain's header."""

    writer: bytes
    sequence: int
    digest: bytes


class Directory:
    """What a pack holds. Immutable; safe to share between threads."""

    __slots__ = ("_firsts", "ends", "head", "ids", "segments")

    def __init__(self, head: Head, segments: Sequence[Segment], ids: bytes, ends: array[int]) -> None:
        """`ends`: where each chunk ends among all of the pack's bytes."""
        self.head = head
        self.segments = tuple(segments)
        self.ids = ids
        self.ends = ends
        self._firsts = [segment.first for segment in self.segments]

    @property
    def chunks(self) -> int:
        return len(self.ends)

    @property
    def raw(self) -> int:
        """Bytes of all chunks."""
        return self.ends[-1] if self.ends else 0

    def columns(self) -> Columns:
        rows, counts = self.segments, [len(segment.bases) for segment in self.segments]
        flat = [(run.pack, run.first, run.count) for segment in rows for run in segment.bases]
        return Columns(
            np.array([segment.offset for segment in rows], np.int64),
            np.array([segment.size for segment in rows], np.int64),
            np.array(self._firsts, np.int64), np.array(flat, np.int64).reshape(-1, 3),
            np.cumsum(np.array(counts, np.int64)), self.chunks, self.raw,
        )  # fmt: skip

    def chunk_id(self, index: int) -> bytes:
        return self.ids[ID * index : ID * index + ID]

    def length(self, index: int) -> int:
        return self.ends[index] - (self.ends[index - 1] if index else 0)

    def span(self, first: int, count: int) -> int:
        """Bytes of `count` chunks from `first` on."""
        return self.ends[first + count - 1] - (self.ends[first - 1] if first else 0)

    def segment_of(self, index: int) -> Segment:
        return self.segments[bisect_right(self._firsts, index) - 1]

    def segments_of(self, first: int, count: int, address: str) -> list[tuple[Segment, int, int]]:
        """The segments that chunks `first .. first+count-1` lie in, each with the first and last+1 chunk used."""
        last = first + count
        if last > len(self.ends):
            raise Corrupt(f"has no chunk {last - 1}", address=address)
        at = bisect_right(self._firsts, first) - 1
        segment = self.segments[at]
        end = segment.first + segment.chunks
        if last <= end:  # nearly always
            return [(segment, first, last)]
        out = [(segment, first, end)]
        while end < last:
            at += 1
            segment = self.segments[at]
            first, end = end, segment.first + segment.chunks
            out.append((segment, first, min(last, end)))
        return out


def encode(head: Head, segments: Sequence[Segment], ids: bytes, lengths: Sequence[int]) -> bytes:
    """The plain text of a directory frame."""
    packed = b"".join(length.to_bytes(3, "little") for length in lengths)
    rows = tuple(
        _Segment(
            int(s.encoding),
            s.size,
            s.chunks,
            s.tag,
            tuple(n for run in s.bases for n in (run.pack, run.first, run.count)),
        )
        for s in segments
    )
    return wire.encode(_Directory(head.writer, head.sequence, head.digest, rows, ids, packed))


@dataclass(frozen=True, slots=True)
class Columns:
    """The segments of a pack, each with where its frame begins, the frame's size and its first chunk.

    `bases`: pack, first, count of what they stand on, a row each; those of segment n end at `bases_to[n]`.
    """

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    firsts: NDArray[np.int64]
    bases: NDArray[np.int64]
    bases_to: NDArray[np.int64]
    chunks: int
    raw: int


def decode(plain: bytes, pack: int, end: int, address: str) -> Directory:
    """Parse and check a directory; `end` is the offset at which the directory frame starts."""
    record, columns, ends = _decoded(plain, pack, end, address)
    segments = []
    begin = before = 0
    for number, (row, offset, first) in enumerate(
        zip(record.segments, columns.offsets.tolist(), columns.firsts.tolist(), strict=True)
    ):
        begin, before = before, int(ends[first + row.chunks - 1])
        flat = row.bases
        bases = tuple(Run(*flat[i : i + 3]) for i in range(0, len(flat), 3))
        segments.append(
            Segment(number, Encoding(row.encoding), offset, row.size, first, row.chunks, before - begin, row.tag, bases)
        )
    head = Head(writer=record.writer, sequence=record.sequence, digest=record.digest)
    return Directory(head, segments, record.ids, array("Q", ends.tobytes()))


def decode_columns(plain: bytes, pack: int, end: int, address: str) -> Columns:
    """The same, of which only columns are wanted. Their arrays are not to be written to."""
    found = _kernel.columns(plain, pack, end) if _kernel is not None else None
    if found is None:
        return _decoded(plain, pack, end, address)[1]
    offsets, sizes, firsts, bases, bases_to = (np.frombuffer(each, np.int64) for each in found[:5])
    return Columns(offsets, sizes, firsts, bases.reshape(-1, 3), bases_to, *found[5:])


def _decoded(plain: bytes, pack: int, end: int, address: str) -> tuple[_Directory, Columns, NDArray[np.int64]]:
    """The record, what it says, and where each chunk ends among all of the pack's bytes."""
    wire.require_shortest(plain, address)
    record = wire.decode(plain, _Directory, address)
    count = len(record.ids) // ID
    if len(record.ids) != ID * count or len(record.lengths) != 3 * count:
        raise Corrupt("directory counts its chunks wrongly", address=address)
    thirds = np.frombuffer(record.lengths, np.uint8).reshape(-1, 3).astype(np.int64)
    lengths = thirds[:, 0] | thirds[:, 1] << 8 | thirds[:, 2] << 16
    if count and not (lengths.min() > 0 and lengths.max() <= limits.CHUNK_BYTES):
        raise Corrupt("chunk length is out of bounds", address=address)
    rows = record.segments
    ends = np.cumsum(lengths)
    sizes = np.array([row.size for row in rows], np.int64)
    lasts = np.cumsum(np.array([row.chunks for row in rows], np.int64))
    firsts = np.concatenate((np.zeros(1, np.int64), lasts[:-1])) if rows else lasts
    offsets = HEADER.size + np.cumsum(sizes) - sizes
    wrong = [
        number
        for number, row in enumerate(rows)
        if row.chunks < 1
        or not OVERHEAD < row.size <= limits.FRAME_BYTES
        or len(row.tag) != container.TAG
        or row.encoding not in (0, 1, 2)
    ]
    if not wrong and rows:
        behind = np.concatenate((np.zeros(1, np.int64), ends))
        within = np.minimum(lasts, count)
        raw = behind[within] - behind[np.minimum(firsts, count)]
        wrong = np.flatnonzero((lasts > count) | (raw > limits.SEGMENT_BYTES)).tolist()
    if wrong:
        raise Corrupt(f"segment {wrong[0]} is out of bounds", address=address)
    flat: list[int] = []
    bases_to = []
    for row, first in zip(rows, firsts.tolist(), strict=True):
        if row.bases or row.encoding == Encoding.DELTA:
            _check_bases(row, pack, first, address)
            flat += row.bases
        bases_to.append(len(flat) // 3)
    if (int(offsets[-1] + sizes[-1]) if rows else HEADER.size) != end or (int(lasts[-1]) if rows else 0) != count:
        raise Corrupt("segments do not fill the pack", address=address)
    columns = Columns(
        offsets, sizes, firsts, np.array(flat, np.int64).reshape(-1, 3), np.array(bases_to, np.int64), count,
        int(ends[-1]) if count else 0,
    )  # fmt: skip
    return record, columns, ends


def _check_bases(row: _Segment, pack: int, first: int, address: str) -> None:
    """Base runs, each before the segment: in a pack with a smaller number, or earlier in this one."""
    check_runs(row.bases, address)
    if (row.encoding == Encoding.DELTA) != bool(row.bases) or len(row.bases) > 3 * limits.BASE_RUNS:
        raise Corrupt("base runs are out of bounds", address=address)
    for base, begin, count in zip(row.bases[::3], row.bases[1::3], row.bases[2::3], strict=True):
        if base > pack or (base == pack and begin + count > first):
            raise Corrupt("base lies behind what is based on it", address=address)


@dataclass(frozen=True, slots=True)
class PackIndex:
    """An opened index object: the directory, and what opens the pack's segments."""

    directory: Directory
    opener: Opener
    trailer: Trailer

    def segments_of(self, first: int, count: int) -> list[tuple[Segment, int, int]]:
        """`Directory.segments_of`, with the pack's address in what goes wrong."""
        return self.directory.segments_of(first, count, self.opener.address)


def index_object(pack_header: bytes, directory_frame: bytes, trailer: bytes) -> bytes:
    return pack_header + directory_frame + trailer


def open_index(data: bytes, name: Name, keys: ChainKeys, address: str) -> PackIndex:
    """Open an index object, or the same bytes cut out of a pack."""
    plain, opener, trailer = _plain(data, name, keys, address)
    directory = decode(plain, name.number, trailer.offset, address)
    if len(directory.segments) != trailer.number:
        raise Corrupt("directory counts its segments wrongly", address=address)
    return PackIndex(directory, opener, trailer)


def open_columns(data: bytes, name: Name, keys: ChainKeys, address: str) -> Columns:
    """The same, of which only columns are wanted."""
    plain, _, trailer = _plain(data, name, keys, address)
    columns = decode_columns(plain, name.number, trailer.offset, address)
    if len(columns.sizes) != trailer.number:
        raise Corrupt("directory counts its segments wrongly", address=address)
    return columns


def _plain(data: bytes, name: Name, keys: ChainKeys, address: str) -> tuple[bytes, Opener, Trailer]:
    if len(data) > limits.INDEX_BYTES:
        raise Corrupt("is too large", address=address)
    opener = Opener(data[: HEADER.size], name, keys, address)
    trailer = container.decode_trailer(data[-TRAILER.size :], address)
    if len(data) != HEADER.size + trailer.length + TRAILER.size:
        raise Corrupt("trailer contradicts the object", address=address)
    plain = opener.open(trailer.number, Frame.DIRECTORY, data[HEADER.size : -TRAILER.size], data[-TRAILER.size :])
    return plain, opener, trailer


def cut_index(read: Callable[[int, int], bytes], size: int, address: str) -> bytes:
    """The index object's bytes, cut out of a pack of `size` bytes that `read(start, length)` reads."""
    if size <= HEADER.size + TRAILER.size:
        raise Corrupt("is too small for a pack", address=address)
    tail = read(size - TRAILER.size, TRAILER.size)
    trailer = container.decode_trailer(tail, address)
    if trailer.total != size:
        raise Corrupt("trailer contradicts the pack", address=address)
    return read(0, HEADER.size) + read(trailer.offset, trailer.length) + tail
