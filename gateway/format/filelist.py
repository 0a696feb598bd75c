"""Records of the file list and its outlines (docs/format/data.md section 5).

Pure: an iterator of bytes in, an iterator of values out, and back. Nothing here holds a whole list.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import msgspec

from gateway.errors import Corrupt
from gateway.format import limits, wire
from gateway.format.log import U8, U32, U64, check_runs
from gateway.model.entry import EntryType
from gateway.model.ids import Run

ENTRY, HOLES, RUNS, LEFT_OUT = 1, 2, 3, 4
Data = bytes  # for records with a field of that name, which hides the type from who resolves the annotations
I64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class FileEntry(wire.Record, frozen=True, kw_only=True):
    """One thing of the tree. Times in nanoseconds, sizes in bytes, `kind` as `gateway.model.entry.EntryType`."""

    tag: int = ENTRY
    path: bytes
    kind: Annotated[int, msgspec.Meta(ge=1, le=7)]
    size: U64 = 0
    mtime_ns: I64 = 0
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o7777)] = 0
    uid: U32 = 0
    gid: U32 = 0
    user: str = ""
    group: str = ""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    target: bytes = b""
    hardlink: bytes = b""
    rdev: U64 = 0
    digest: bytes = b""
    data_bytes: U64 = 0
    skip: U32 = 0
    evidence: U8 = 0
    hole_records: U32 = 0
    run_records: U32 = 0


class _Numbers(wire.Record, frozen=True):
    tag: int
    numbers: tuple[U64, ...]


class LeftOutRecord(wire.Record, frozen=True, kw_only=True):
    tag: int = LEFT_OUT
    path: bytes
    reason: str
    detail: str


class OutlineLine(wire.Record, frozen=True, kw_only=True):
    """A part: where its records start, what they sum up to, and the chunks that hold it."""

    first: Data
    entries: U64
    files: U64
    bytes: U64
    size: U64
    runs: tuple[U32, ...]


class _Tag(wire.Record, frozen=True):
    tag: int


@dataclass(frozen=True, slots=True)
class Item:
    """An entry with its holes and runs, and `raw`: its records exactly as they stand in the list.

    `flat` has the runs as pack, first, count, one after the other: a file may have very many.
    """

    entry: FileEntry
    holes: tuple[int, ...]
    flat: Sequence[int]
    raw: bytes

    @property
    def runs(self) -> Iterator[Run]:
        return map(Run, self.flat[::3], self.flat[1::3], self.flat[2::3])

    @property
    def packs(self) -> set[int]:
        """Numbers of the packs its runs name."""
        return set(self.flat[::3])


def frame(record: bytes) -> bytes:
    """A record as it stands in a list: its length, then itself."""
    return len(record).to_bytes(4) + record


def encode_entry(
    entry: FileEntry,
    holes: tuple[int, ...],
    runs: Iterable[Run],
    *,
    runs_per_record: int = limits.RUNS_PER_RECORD,
) -> bytes:
    """All records of one entry. The counts of hole and run records in `entry` are replaced by the right ones."""
    flat = [number for run in runs for number in (run.pack, run.first, run.count)]
    hole_step, run_step = 2 * limits.HOLES_PER_RECORD, 3 * runs_per_record
    hole_rows = [_Numbers(HOLES, tuple(holes[i : i + hole_step])) for i in range(0, len(holes), hole_step)]
    run_rows = [_Numbers(RUNS, tuple(flat[i : i + run_step])) for i in range(0, len(flat), run_step)]
    entry = msgspec.structs.replace(entry, hole_records=len(hole_rows), run_records=len(run_rows))
    return b"".join(frame(wire.encode(row)) for row in (entry, *hole_rows, *run_rows))


def encode_left_out(path: bytes, reason: str, detail: str) -> bytes:
    return frame(wire.encode(LeftOutRecord(path=path, reason=reason, detail=detail)))


def encode_line(line: OutlineLine) -> bytes:
    return frame(wire.encode(line))


def split(part: bytes, address: str) -> Iterator[tuple[int, int]]:
    """Start (of the length) and end of every record in a part."""
    at, size = 0, len(part)
    while at < size:
        end = at + 4 + int.from_bytes(part[at : at + 4])
        if end > size or end == at + 4:
            raise Corrupt("record passes the end of its part", address=address)
        if end - at - 4 > limits.RECORD_BYTES:
            raise Corrupt("record is too large", address=address)
        yield at, end
        at = end


def check_part(part: bytes, address: str) -> None:
    if len(part) > limits.PART_BYTES:
        raise Corrupt("part is too large", address=address)


def path_key(path: bytes) -> bytes:
    """Sort key of a path: a directory is followed by all that is in it."""
    return path.replace(b"/", b"\0")


def check_path(path: bytes, address: str) -> None:
    """A path of a list never leaves its tree."""
    parts = path.split(b"/")
    if len(path) > limits.PATH_BYTES or b"\0" in path or any(part in (b"", b".", b"..") for part in parts):
        raise Corrupt(f"file list has an impossible path {path[:80]!r}", address=address)


def decode_part(part: bytes, address: str) -> Iterator[Item | LeftOutRecord]:
    """The items of a list that is one part."""
    return decode_parts((part,), address)


def decode_parts(
    parts: Iterable[bytes],
    address: str,
    *,
    inside: bool = False,
    until: bytes | None = None,
    behind: tuple[bytes, bool] = (b"", False),
) -> Iterator[Item | LeftOutRecord]:
    """The items of consecutive parts, checked: counts, order, paths. Unknown tags are passed over.

    With `inside`, the parts may start in the middle of an item, and its remaining records are passed over. With
    `until`, a path key, it stops before the first item that is not below it: that one's last parts need not be there.
    `behind`: the path that the parts follow, and whether it was left out.
    """
    before, left = path_key(behind[0]), behind[1]
    open_item: _Gathering | None = None
    for part in parts:
        check_part(part, address)
        for start, end in split(part, address):
            body = part[start + 4 : end]
            tag = wire.decode(body, _Tag, address).tag
            if open_item is not None:
                if open_item.add(tag, body, part[start:end], address):
                    yield open_item.item(address)
                    open_item = None
                continue
            if tag in (HOLES, RUNS):
                if not inside:
                    raise Corrupt("holes or runs without a file", address=address)
                continue
            if tag not in (ENTRY, LEFT_OUT):
                continue
            inside = False
            record = _decode_head(tag, body, address)
            key = path_key(record.path)
            if until is not None and key >= until:
                return
            # A directory that could not be read is left out behind its own entry; else every path stands there once.
            second = tag == LEFT_OUT and key == before and not left
            if key <= before and not second:
                raise Corrupt("file list is out of order", address=address)
            before, left = key, tag == LEFT_OUT
            if isinstance(record, LeftOutRecord):
                yield record
            elif record.hole_records or record.run_records:
                open_item = _Gathering(record, part[start:end])
            else:
                yield _Gathering(record, part[start:end]).item(address)
    if open_item is not None:
        raise Corrupt("file list ends within a file", address=address)


def end_of_items(part: bytes, address: str) -> int:
    """Where the item begins whose last records are not in this part any more; else where the part ends."""
    begun = left = 0
    for start, end in split(part, address):
        if left:
            left -= 1
        elif wire.decode(part[start + 4 : end], _Tag, address).tag == ENTRY:
            entry = wire.decode(part[start + 4 : end], FileEntry, address)
            begun, left = start, entry.hole_records + entry.run_records
    return begun if left else len(part)


def _decode_head(tag: int, body: bytes, address: str) -> FileEntry | LeftOutRecord:
    if tag == LEFT_OUT:
        left = wire.decode(body, LeftOutRecord, address)
        check_path(left.path, address)
        return left
    entry = wire.decode(body, FileEntry, address)
    check_path(entry.path, address)
    if entry.hardlink:
        check_path(entry.hardlink, address)
    return entry


class _Gathering:
    """An entry whose hole and run records are being read."""

    def __init__(self, entry: FileEntry, raw: bytes) -> None:
        self.entry = entry
        self.raw = [raw]
        self.holes = array("Q")
        self.flat = array("Q")

    def add(self, tag: int, body: bytes, raw: bytes, address: str) -> bool:
        """Take one more record; True when the item is complete."""
        done = len(self.raw) - 1
        wanted = HOLES if done < self.entry.hole_records else RUNS
        record = wire.decode(body, _Numbers, address)
        if record.tag != wanted:
            raise Corrupt("holes and runs are out of order", address=address)
        width, most = (2, limits.HOLES_PER_RECORD) if tag == HOLES else (3, limits.RUNS_PER_RECORD)
        if len(record.numbers) % width or len(record.numbers) > width * most:
            raise Corrupt("holes or runs are malformed", address=address)
        (self.holes if tag == HOLES else self.flat).extend(record.numbers)
        self.raw.append(raw)
        return done + 1 == self.entry.hole_records + self.entry.run_records

    def item(self, address: str) -> Item:
        check_runs(self.flat, address)
        _check_entry(self.entry, address)
        _check_holes(self.holes, self.entry, address)
        return Item(self.entry, tuple(self.holes), self.flat, b"".join(self.raw))


def _check_entry(entry: FileEntry, address: str) -> None:
    """What only some types may have, and what only the first member of a hard-link group has."""
    regular = entry.kind == EntryType.FILE
    own_data = regular and not entry.hardlink
    if (
        (not own_data and (entry.hole_records or entry.run_records or entry.data_bytes))
        or (not regular and (entry.size or entry.evidence or entry.hardlink))
        or len(entry.digest) != (32 if own_data else 0)
        or (entry.target and entry.kind != EntryType.SYMLINK)
        or (entry.rdev and entry.kind not in (EntryType.CHARACTER, EntryType.BLOCK))
        or any(this[0] >= other[0] for this, other in pairwise(entry.xattrs))
    ):
        raise Corrupt("entry contradicts its type", address=address)


def _check_holes(holes: Sequence[int], entry: FileEntry, address: str) -> None:
    at = total = 0
    for offset, length in zip(holes[::2], holes[1::2], strict=False):
        if offset < at or length < 1 or offset + length > entry.size:
            raise Corrupt("holes are malformed", address=address)
        at = offset + length
        total += length
    own_data = entry.kind == EntryType.FILE and not entry.hardlink
    if len(holes) % 2 or (own_data and entry.data_bytes != entry.size - total):
        raise Corrupt("holes are malformed", address=address)


def decode_outline(part: bytes, address: str) -> Iterator[OutlineLine]:
    """The lines of an outline, checked. Parts that begin within one file all have its path as their first."""
    check_part(part, address)
    before = b""
    for start, end in split(part, address):
        line = wire.decode(part[start + 4 : end], OutlineLine, address)
        check_runs(line.runs, address)
        check_path(line.first, address)
        key = path_key(line.first)
        if key < before or not 0 < line.size <= limits.PART_BYTES:
            raise Corrupt("outline is malformed", address=address)
        before = key
        yield line


def data_ranges(entry: FileEntry, holes: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """The non-hole ranges of a file: offset and length."""
    at = 0
    for offset, length in zip(holes[::2], holes[1::2], strict=True):
        if offset > at:
            yield at, offset - at
        at = offset + length
    if entry.size > at:
        yield at, entry.size - at
