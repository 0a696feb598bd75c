"""Writing and reading file lists: parts and outlines as streams of the chain (docs/format/data.md section 5).

Nobody holds a whole list: the writer keeps one part and a line for each part written, the reader one part at a time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from blake3 import blake3

from gateway.errors import Corrupt, IntegrityError
from gateway.format import filelist, limits
from gateway.format.filelist import Item, LeftOutRecord, OutlineLine
from gateway.format.list_rows import Rows, read_rows
from gateway.format.log import ListRoot
from gateway.model.ids import Run, flatten
from gateway.repository.earlier import Earlier
from gateway.repository.indexes import PackIndexes
from gateway.repository.pipeline import Piece, Worker

PART_BYTES = 4 * 1024 * 1024
"""LIMIT: a part is ended here whatever its records are; a quarter of a part of usual records is 128 KiB."""

LINES_AT_LEAST = 8
"""LIMIT: lines in every part of an outline but the last, so that 8^8 parts stay within the format's depth of lists."""


Fetch = Callable[[list[Run], int], bytes]
"""Reads `size` bytes that the chunks of runs hold, ids checked."""


class _Bytes:
    """A part as the pipeline reads it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.ranges = [(0, len(data))]

    def read_into(self, buffer: memoryview, offset: int) -> int:
        piece = self._data[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def finished(self) -> None:
        pass


@dataclass(slots=True)
class _Part:
    first: bytes = b""
    last: bytes = b""
    entries: int = 0
    files: int = 0
    bytes: int = 0


class ListBefore:
    """The parts of the list before, in order, for who writes the next list in the same order."""

    def __init__(self, root: ListRoot, fetch: Fetch, indexes: PackIndexes, address: str) -> None:
        self._lines = _leaves(root, fetch, address)
        self._indexes = indexes
        self._near: list[OutlineLine] = []
        self._ended = False

    def between(self, first: bytes, last: bytes) -> Earlier | None:
        """The parts with records of paths from `first` to `last`; not before those that were asked for earlier. None
        where they are not to be had: it costs bytes, nothing else.
        """
        low, high = filelist.path_key(first), filelist.path_key(last)
        try:
            while not self._ended and (not self._near or filelist.path_key(self._near[-1].first) <= high):
                line = next(self._lines, None)
                self._ended = line is None
                if line is not None:
                    self._near.append(line)
            while len(self._near) > 1 and filelist.path_key(self._near[1].first) <= low:
                self._near.pop(0)
            wanted = [line.runs for line in self._near if filelist.path_key(line.first) <= high]
            return Earlier(wanted, self._indexes) if wanted else None
        except IntegrityError:
            self._near, self._ended = [], True
            return None


class ListWriter:
    """Gathers the records of a list in order and stores them part by part. One thread."""

    def __init__(
        self, worker: Worker, list_id: bytes, before: ListBefore | None, *, part_records: int, outline_runs_bytes: int
    ) -> None:
        """`before`: the list that this one is like."""
        self._worker = worker
        self._before = before
        self._list_id = list_id
        self._part_records = part_records
        self._outline_runs_bytes = outline_runs_bytes
        self._lines: list[OutlineLine] = []
        self._records = bytearray()
        self._part = _Part()
        self.packs: set[int] = set()
        """The packs that the list of the last `root` is in."""

    def add(self, records: bytes, path: bytes, *, files: int = 0, size: int = 0) -> None:
        """All records of one entry or left-out thing, in path order; `files` 1 and `size` for a file."""
        part = self._part
        if self._records and (
            self._starts_part(path)
            or part.entries >= 4 * self._part_records
            or len(self._records) + len(records) > PART_BYTES
        ):
            self._end_part()
            part = self._part
        if not self._records:
            part.first = path
        part.last = path
        part.entries += 1
        part.files += files
        part.bytes += size
        if len(self._records) + len(records) <= PART_BYTES:
            self._records += records
            return
        for start, end in filelist.split(records, "file list"):
            if self._records and len(self._records) + end - start > PART_BYTES:
                self._end_part()
                self._part.first = self._part.last = path
            self._records += records[start:end]

    def _starts_part(self, path: bytes, depth: int = 0) -> bool:
        """Each depth asks other bits: every line of an outline has said yes to those of the depth before."""
        digest = blake3(path, key=self._list_id).digest(8, seek=8 * depth)
        return int.from_bytes(digest) % self._part_records == 0

    def _end_part(self) -> None:
        self._lines.append(self._stored_part())
        self._records.clear()
        self._part = _Part()

    def _stored_part(self) -> OutlineLine:
        part = self._part
        earlier = self._before.between(part.first, part.last) if self._before is not None else None
        return self._line(self._store(bytes(self._records), earlier), len(self._records))

    def _line(self, runs: list[Run], size: int) -> OutlineLine:
        part = self._part
        return OutlineLine(first=part.first, entries=part.entries, files=part.files, bytes=part.bytes, size=size,
                           runs=tuple(flatten(runs)))  # fmt: skip

    def _store(self, data: bytes, earlier: Earlier | None = None) -> list[Run]:
        piece = Piece(lambda: _Bytes(data), 0)
        self._worker.run([piece], earlier)
        if piece.failed is not None:
            raise piece.failed
        return piece.runs

    def root(self) -> ListRoot:
        """Store what is open and all outlines; the list so far. More may be added afterwards, for a later root."""
        lines = list(self._lines)
        if self._records:
            lines.append(self._stored_part())
        self.packs = {pack for line in lines for pack in line.runs[::3]}
        if not lines:
            return ListRoot(0, 0, ())
        depth = 0
        while len(lines) > 1:
            depth += 1
            lines = self._outline(lines, depth)
            self.packs.update(pack for line in lines for pack in line.runs[::3])
        return ListRoot(depth, lines[0].size, lines[0].runs)

    def _outline(self, lines: list[OutlineLine], depth: int) -> list[OutlineLine]:
        """Lines one level up: one, or several where the runs of the whole outline would pass the threshold."""
        whole = b"".join(filelist.encode_line(line) for line in lines)
        if len(whole) <= PART_BYTES:
            runs = self._store(whole)
            if 9 * len(runs) <= self._outline_runs_bytes or len(lines) < 2 * self._part_records:
                return [_sum(lines, len(whole), runs)]
        groups: list[list[OutlineLine]] = [[]]
        for line in lines:
            if len(groups[-1]) >= LINES_AT_LEAST and (
                self._starts_part(line.first, depth) or _size(groups[-1]) > PART_BYTES // 2
            ):
                groups.append([])
            groups[-1].append(line)
        out = []
        for group in groups:
            data = b"".join(filelist.encode_line(line) for line in group)
            out.append(_sum(group, len(data), self._store(data)))
        return out


def _size(lines: list[OutlineLine]) -> int:
    return sum(32 + len(line.first) + 5 * len(line.runs) for line in lines)


def _sum(lines: list[OutlineLine], size: int, runs: list[Run]) -> OutlineLine:
    return OutlineLine(
        first=lines[0].first, entries=sum(line.entries for line in lines), files=sum(line.files for line in lines),
        bytes=sum(line.bytes for line in lines), size=size, runs=tuple(flatten(runs)),
    )  # fmt: skip


def _part(fetch: Fetch, flat: tuple[int, ...], size: int, address: str) -> bytes:
    if size > limits.PART_BYTES:
        raise Corrupt("part of the file list is too large", address=address)
    runs = [Run(*flat[i : i + 3]) for i in range(0, len(flat), 3)]
    return fetch(runs, size)


def read_list(root: ListRoot, fetch: Fetch, address: str) -> Iterator[Item | LeftOutRecord]:
    """Every item of a list, in order."""
    return filelist.decode_parts(_parts(root.depth, root.runs, root.size, fetch, address), address)


def read_list_rows(root: ListRoot, fetch: Fetch, address: str) -> Iterator[Rows]:
    """Every entry of a list, in order, with what a plan needs of it."""
    return read_rows(_parts(root.depth, root.runs, root.size, fetch, address), address)


def _parts(depth: int, flat: tuple[int, ...], size: int, fetch: Fetch, address: str) -> Iterator[bytes]:
    if not flat and not size:
        return
    data = _part(fetch, flat, size, address)
    if depth == 0:
        yield data
        return
    for line in filelist.decode_outline(data, address):
        yield from _parts(depth - 1, line.runs, line.size, fetch, address)


def _leaves(root: ListRoot, fetch: Fetch, address: str) -> Iterator[OutlineLine]:
    """A line for every part with records, in order."""
    if root.depth == 0:
        if root.runs:
            yield OutlineLine(first=b"", entries=0, files=0, bytes=0, size=root.size, runs=root.runs)
        return
    for outline in _parts(root.depth - 1, root.runs, root.size, fetch, address):
        yield from filelist.decode_outline(outline, address)


def read_below(root: ListRoot, path: bytes, fetch: Fetch, address: str) -> Iterator[Item | LeftOutRecord]:
    """The item of `path` and all below it, reading only the parts that may hold them."""
    low, high = filelist.path_key(path), filelist.path_key(path) + b"\1"
    parts = _parts_between(root.depth, root.runs, root.size, fetch, address, low, high)
    for item in filelist.decode_parts(parts, address, inside=True, until=high):
        key = filelist.path_key(item.entry.path if isinstance(item, Item) else item.path)
        if key == low or key.startswith(low + b"\0"):
            yield item


def _parts_between(
    depth: int, flat: tuple[int, ...], size: int, fetch: Fetch, address: str, low: bytes, high: bytes
) -> Iterator[bytes]:
    if not flat and not size:
        return
    data = _part(fetch, flat, size, address)
    if depth == 0:
        yield data
        return
    lines = list(filelist.decode_outline(data, address))
    keys = [filelist.path_key(line.first) for line in lines]
    # The item of `low` may begin in the last part whose first path is smaller, or in the first one that starts with it.
    at = max(bisect_left(keys, low) - 1, 0)
    for line, key in zip(lines[at:], keys[at:], strict=True):
        if key >= high:
            return
        yield from _parts_between(depth - 1, line.runs, line.size, fetch, address, low, high)
