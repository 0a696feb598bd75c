"""Writing a pack into the cache: segments sealed, opened again and compared, then directory and trailer.

CRASH: a pack that is not finished is a temporary file, which `sweep_temporary` removes; a finished one that is in no
ledger was never sent and is removed when the engine starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from gateway import durable
from gateway.errors import Corrupt
from gateway.format import container, directory
from gateway.format.container import Frame, Name, Opener, Sealer
from gateway.format.directory import Head, Segment
from gateway.format.keys import ChainKeys
from gateway.format.segment import Encoding, SegmentCodec
from gateway.model.ids import Run, ranges
from gateway.store.crc import crc64

FRAME_ROOM = 384 * 1024
"""Two buffers of this size stay with an open pack: one frame sealed, and opened again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedPack:
    """A pack that lies in the cache under `path`, whole and on disk."""

    name: Name
    path: Path
    size: int
    crc64: int
    index: bytes
    chunks: int
    raw: int
    bases: tuple[int, ...]

    @property
    def index_digest(self) -> bytes:
        return sha256(self.index).digest()


@dataclass(frozen=True, slots=True)
class NewSegment:
    """Chunks that are about to be stored: their bytes joined, and where each ends."""

    raw: memoryview
    ends: list[int]


@dataclass(frozen=True, slots=True)
class Base:
    """What a delta stands on: base runs, and their chunks joined."""

    runs: tuple[Run, ...]
    data: bytes


class PackWriter:
    """One open pack. Used by one thread at a time."""

    def __init__(self, name: Name, keys: ChainKeys, salt: bytes, head: Head, path: Path) -> None:
        self.name = name
        self._sealer = Sealer(name, keys, salt)
        self._opener = Opener(self._sealer.header, name, keys, str(path))
        self._head = head
        self._file = durable.GrowingFile("pack", path)
        self._crc = 0
        self._ids = bytearray()
        self._lengths: list[int] = []
        self._segments: list[Segment] = []
        self._bases: set[int] = set()
        self._frame = self._opened = memoryview(b"")
        self._append(self._sealer.header)

    @property
    def projected(self) -> int:
        """Bytes of the pack if it were finished now, directory included; a little too high."""
        return self._file.size + 19 * len(self._lengths) + 64 * len(self._segments) + 256

    @property
    def chunks(self) -> int:
        return len(self._lengths)

    def _append(self, data: bytes | memoryview) -> None:
        self._file.append(data)
        self._crc = crc64(data, self._crc)

    def add(
        self,
        codec: SegmentCodec,
        raw: bytes | bytearray | memoryview,
        encoding: Encoding,
        packed: bytes | bytearray | memoryview,
        ids: bytes,
        lengths: list[int],
        base: Base | None,
    ) -> int:
        """Append a segment; returns the index of its first chunk. `Corrupt`: it did not open to what went in."""
        number = len(self._segments)
        if len(packed) + container.OVERHEAD > len(self._frame):
            room = max(len(packed) + container.OVERHEAD, FRAME_ROOM)
            self._frame, self._opened = memoryview(bytearray(room)), memoryview(bytearray(room))
        frame = self._sealer.seal_into(self._frame, number, Frame.SEGMENT, packed)
        opened = self._opener.open_into(self._opened, number, Frame.SEGMENT, frame)
        back = codec.expand(encoding, opened, len(raw), base.data if base else b"", self._opener.address)
        if back != bytes(raw):  # a memoryview is compared element by element, thirty times slower than the copy
            raise Corrupt(
                "a segment did not open to what was put in", address=self._opener.address,
                meaning="This machine's memory or processor makes errors.", advice="Test the memory before going on.",
            )  # fmt: skip
        first = len(self._lengths)
        runs = base.runs if base else ()
        self._segments.append(
            Segment(number, encoding, self._file.size, len(frame), first, len(lengths), len(raw),
                    bytes(frame[-container.TAG :]), runs)
        )  # fmt: skip
        self._append(frame)
        self._ids += ids
        self._lengths += lengths
        self._bases.update(run.pack for run in runs)
        return first

    def finish(self) -> FinishedPack:
        """Write directory and trailer and publish the file."""
        plain = directory.encode(self._head, self._segments, bytes(self._ids), self._lengths)
        frame, trailer = self._sealer.finish(self._file.size, len(self._segments), Frame.DIRECTORY, plain)
        self._append(frame)
        self._append(trailer)
        self._file.finish()
        return FinishedPack(
            name=self.name, path=self._file.final, size=self._file.size, crc64=self._crc,
            index=directory.index_object(self._sealer.header, frame, trailer), chunks=len(self._lengths),
            raw=sum(self._lengths), bases=tuple(ranges(list(self._bases - {self.name.number}))),
        )  # fmt: skip

    def abandon(self) -> None:
        self._file.abandon()
