"""WAL segments that a base backup holds, against what its manifest needs.

A manifest does not list WAL files, it names the positions that must be readable. Every segment of them is checked
page by page: magic, timeline, the page's own position, and in the first page the system identifier and the sizes.
That finds what is missing, cut, reserved and not written, recycled, or another cluster's. The records inside and
their checksums are not read: a flipped byte within a page is not found (`pg_waldump` would).

Layout: src/include/access/xlog_internal.h, XLogPageHeaderData and XLogLongPageHeaderData.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gateway.spool.producers.pg_manifest import WalRange, format_lsn

_NAME = re.compile(rb"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})")
_PAGE = struct.Struct("<HHIQ")
"""Magic, flags, timeline, position; u32 follows that does not matter here."""
_LONG = struct.Struct("<QII")
"""At byte 24 of a segment's first page: system identifier, size of a segment, size of a page."""
_LONG_FLAG = 2
_HEADER_BYTES = 40
_SMALLEST, _LARGEST = 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class _Segment:
    timeline: int
    start: int
    size: int


def segment_place(name: bytes, size: int) -> tuple[int, int, int] | None:
    """Timeline, first position and the one behind the last of a whole segment; None: it is none."""
    parts = _NAME.fullmatch(name)
    if parts is None or not _SMALLEST <= size <= _LARGEST or size & (size - 1):
        return None
    timeline, log, number = (int(part, 16) for part in parts.groups())
    start = (log << 32) + number * size
    return timeline, start, start + size


class WalCheck:
    """Give it every segment with `add`, then ask `missing`. `wrong` collects (name, sentence)."""

    def __init__(self, ranges: tuple[WalRange, ...]) -> None:
        self.wrong: list[tuple[bytes, str]] = []
        self.system_identifiers: set[int] = set()
        self.segments = 0
        self._ranges = ranges
        self._there: list[_Segment] = []

    @staticmethod
    def is_segment(name: bytes) -> bool:
        return _NAME.fullmatch(name) is not None

    def add(self, name: bytes, size: int, pieces: Iterable[bytes]) -> None:
        """One segment and all its bytes; whether it is needed at all is found out here."""
        self.segments += 1
        place = segment_place(name, size)
        if place is None:
            self.wrong.append((name, f"A WAL segment has no {size} bytes."))
            return
        timeline, start, _ = place
        end = max(
            (min(one.end, start + size) for one in self._ranges if one.timeline == timeline and one.end > start),
            default=start,
        )
        if not any(one.timeline == timeline and one.start < start + size and one.end > start for one in self._ranges):
            return
        problem = self._check_pages(timeline, start, end, size, iter(pieces))
        if problem:
            self.wrong.append((name, problem))
        else:
            self._there.append(_Segment(timeline, start, size))

    def missing(self) -> Iterator[str]:
        """One sentence for each stretch that is needed and that no sound segment holds."""
        for one in self._ranges:
            at = one.start
            for segment in sorted(self._there, key=lambda each: each.start):
                if segment.timeline == one.timeline and segment.start <= at < segment.start + segment.size:
                    at = segment.start + segment.size
            if at < one.end:
                yield (
                    f"WAL of timeline {one.timeline} from {format_lsn(at)} to {format_lsn(one.end)} "
                    "is not in the backup."
                )

    def _check_pages(self, timeline: int, start: int, end: int, size: int, pieces: Iterator[bytes]) -> str:
        """Empty, or what is wrong with a page before `end`. Pages behind it are whatever they were before."""
        offset, page_size, magic = 0, 0, 0
        buffer, place = b"", 0
        while start + offset < end:
            while len(buffer) - place < _HEADER_BYTES:
                piece = next(pieces, None)
                if piece is None:
                    return f"It ends within its page at byte {offset}."
                buffer, place = buffer[place:] + piece, 0
            page_magic, flags, page_timeline, position = _PAGE.unpack_from(buffer, place)
            if offset == 0:
                if not flags & _LONG_FLAG or page_magic & 0xFF00 != 0xD100:
                    return "It does not begin with a WAL page."
                identifier, segment_size, page_size = _LONG.unpack_from(buffer, place + 24)
                if segment_size != size:
                    return f"It says that a segment has {segment_size} bytes; it has {size}."
                if not 1024 <= page_size <= 65_536 or page_size & (page_size - 1):
                    return f"It says that a page has {page_size} bytes."
                magic = page_magic
                self.system_identifiers.add(identifier)
            if page_magic != magic or position != start + offset or not 1 <= page_timeline <= timeline:
                return f"Its page at byte {offset} is not the one that belongs there."
            place += page_size
            while place > len(buffer):
                place -= len(buffer)
                piece = next(pieces, None)
                if piece is None:
                    return f"It ends within its page at byte {offset}."
                buffer = piece
            offset += page_size
        return ""
