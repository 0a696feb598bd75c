"""The directory of a pack, and its index object (docs/format/data.md section 3, README.md section 4.4)."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from gateway.errors import Corrupt
from gateway.format import container, limits, wire
from gateway.format.container import HEADER, OVERHEAD, TRAILER, Frame, Name, Opener, Trailer
from gateway.format.keys import ChainKeys
from gateway.format.log import U32, Digest, Id, check_runs
from gateway.format.segment import Encoding
from gateway.model.ids import Run

ID = 16


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

    def __init__(self, head: Head, segments: Sequence[Segment], ids: bytes, lengths: Sequence[int]) -> None:
        self.head = head
        self.segments = tuple(segments)
        self.ids = ids
        self.ends = array("Q", accumulate(lengths))
        self._firsts = [segment.first for segment in self.segments]

    @property
    def chunks(self) -> int:
        return len(self.ends)

    @property
    def raw(self) -> int:
        """Bytes of all chunks."""
        return self.ends[-1] if self.ends else 0

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


def decode(plain: bytes, pack: int, end: int, address: str) -> Directory:
    """Parse and check a directory; `end` is the offset at which the directory frame starts."""
    wire.require_shortest(plain, address)
    record = wire.decode(plain, _Directory, address)
    count = len(record.ids) // ID
    if len(record.ids) != ID * count or len(record.lengths) != 3 * count:
        raise Corrupt("directory counts its chunks wrongly", address=address)
    lengths = [int.from_bytes(record.lengths[i : i + 3], "little") for i in range(0, 3 * count, 3)]
    if any(not 0 < length <= limits.CHUNK_BYTES for length in lengths):
        raise Corrupt("chunk length is out of bounds", address=address)
    segments = []
    offset, first = HEADER.size, 0
    for number, row in enumerate(record.segments):
        last = first + row.chunks
        raw = sum(lengths[first:last])
        if (
            row.chunks < 1
            or last > count
            or raw > limits.SEGMENT_BYTES
            or not OVERHEAD < row.size <= limits.FRAME_BYTES
            or len(row.tag) != container.TAG
            or row.encoding not in (0, 1, 2)
        ):
            raise Corrupt(f"segment {number} is out of bounds", address=address)
        bases = _bases(row, pack, first, address)
        segments.append(
            Segment(number, Encoding(row.encoding), offset, row.size, first, row.chunks, raw, row.tag, bases)
        )
        offset += row.size
        first = last
    if offset != end or first != count:
        raise Corrupt("segments do not fill the pack", address=address)
    head = Head(writer=record.writer, sequence=record.sequence, digest=record.digest)
    return Directory(head, segments, record.ids, lengths)


def _bases(row: _Segment, pack: int, first: int, address: str) -> tuple[Run, ...]:
    """Base runs, each before the segment: in a pack with a smaller number, or earlier in this one."""
    check_runs(row.bases, address)
    if (row.encoding == Encoding.DELTA) != bool(row.bases) or len(row.bases) > 3 * limits.BASE_RUNS:
        raise Corrupt("base runs are out of bounds", address=address)
    runs = tuple(Run(*row.bases[i : i + 3]) for i in range(0, len(row.bases), 3))
    for run in runs:
        if run.pack > pack or (run.pack == pack and run.first + run.count > first):
            raise Corrupt("base lies behind what is based on it", address=address)
    return runs


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
    if len(data) > limits.INDEX_BYTES:
        raise Corrupt("is too large", address=address)
    opener = Opener(data[: HEADER.size], name, keys, address)
    trailer = container.decode_trailer(data[-TRAILER.size :], address)
    if len(data) != HEADER.size + trailer.length + TRAILER.size:
        raise Corrupt("trailer contradicts the object", address=address)
    plain = opener.open(trailer.number, Frame.DIRECTORY, data[HEADER.size : -TRAILER.size], data[-TRAILER.size :])
    directory = decode(plain, name.number, trailer.offset, address)
    if len(directory.segments) != trailer.number:
        raise Corrupt("directory counts its segments wrongly", address=address)
    return PackIndex(directory, opener, trailer)


def cut_index(read: Callable[[int, int], bytes], size: int, address: str) -> bytes:
    """The index object's bytes, cut out of a pack of `size` bytes that `read(start, length)` reads."""
    if size <= HEADER.size + TRAILER.size:
        raise Corrupt("is too small for a pack", address=address)
    tail = read(size - TRAILER.size, TRAILER.size)
    trailer = container.decode_trailer(tail, address)
    if trailer.total != size:
        raise Corrupt("trailer contradicts the pack", address=address)
    return read(0, HEADER.size) + read(trailer.offset, trailer.length) + tail
