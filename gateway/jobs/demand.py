"""What a restore needs, worked out for some thousand files at a time: which segments of which packs, and for which file
first. docs/design/restore.md.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gateway.errors import IntegrityError
from gateway.format.filelist import Item
from gateway.format.list_rows import Rows
from gateway.model.entry import EntryType
from gateway.policy.patterns import Selection
from gateway.repository.indexes import PackIndexes
from gateway.repository.reader import GAP, READ_AHEAD
from gateway.repository.segment_table import Numbers, SegmentTable, expand

ITEMS_AT_A_TIME = 4096
DIRECTORIES = 1024
"""LIMIT: directories of the target of which it is remembered whether they are there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Some selected files, in the order of the list. Items are counted from 0 on, directories and all.

    `items`: how many there were so far. `runs`: pack, first, count, one row each; `owners`: the item each belongs to,
    ascending. `links`: hard links, by item, and the path of the first member of their group.
    """

    items: int
    sizes: NDArray[np.uint64]
    runs: Numbers
    owners: Numbers
    links: list[tuple[int, bytes]]
    paths: Callable[[], Iterable[bytes]]


def chosen_items(items: Iterable[Item]) -> Iterator[Chosen]:
    """What a plan needs of these items, which all are selected."""
    for begun, some in enumerate(_batches(items, ITEMS_AT_A_TIME)):
        base = begun * ITEMS_AT_A_TIME
        files = [(at, each) for at, each in enumerate(some, base) if each.entry.kind == EntryType.FILE]
        flat = [number for _, each in files for number in each.flat]
        counts = [len(each.flat) // 3 for _, each in files]
        yield Chosen(
            items=base + len(some), sizes=np.array([each.entry.size for _, each in files], np.uint64),
            runs=np.array(flat, np.int64).reshape(-1, 3),
            owners=np.repeat(np.array([at for at, _ in files], np.int64), counts),
            links=[(at, each.entry.hardlink) for at, each in files if each.entry.hardlink],
            paths=partial(_item_paths, files),
        )  # fmt: skip


def _item_paths(files: list[tuple[int, Item]]) -> Iterator[bytes]:
    return (each.entry.path for _, each in files)


def _row_paths(rows: Rows, taken: Numbers) -> Iterator[bytes]:
    return map(rows.path, taken.tolist())


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    some: list[Item] = []
    for each in items:
        some.append(each)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


def chosen_rows(parts: Iterable[Rows], selection: Selection) -> Iterator[Chosen]:
    """What a plan needs of the selected ones of all entries of a list; the directories they lie in count as items."""
    items, parents = 0, _Parents(selection)
    for rows in parts:
        kinds = rows.entries["kind"]
        if selection.everything:
            taken = np.arange(len(kinds))
            numbers = items + taken
            items += len(kinds)
        else:
            taken, numbers, items = parents.take(rows, items)
        files = kinds[taken] == EntryType.FILE
        taken, numbers = taken[files], numbers[files]
        ends = rows.entries["runs"].astype(np.int64)
        counts = rows.run_counts[taken]
        linked = np.flatnonzero(rows.entries["link_bytes"][taken])
        yield Chosen(
            items=items, sizes=rows.entries["size"][taken],
            runs=rows.runs[expand(ends[taken] - counts, ends[taken] - 1)], owners=np.repeat(numbers, counts),
            links=[(int(numbers[at]), rows.link(int(taken[at]))) for at in linked],
            paths=partial(_row_paths, rows, taken),
        )  # fmt: skip


class _Parents:
    """Finds the selected rows; an item is also each directory that one lies in, just before the first that does."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._open: list[tuple[bytes, bool]] = []
        """Directories that the current path may lie in, with a slash behind them; whether they count already."""

    def take(self, rows: Rows, items: int) -> tuple[Numbers, Numbers, int]:
        """The selected rows, their numbers, and how many items there are then."""
        takes, opened = self._selection.takes, self._open
        taken, numbers = [], []
        is_directory = (rows.entries["kind"] == EntryType.DIRECTORY).tolist()
        for row, path in enumerate(rows.paths()):
            while opened and not path.startswith(opened[-1][0]):
                opened.pop()
            found = takes(path)
            if found:
                for at in range(len(opened)):
                    if not opened[at][1]:
                        opened[at] = opened[at][0], True
                        items += 1
                taken.append(row)
                numbers.append(items)
                items += 1
            if is_directory[row]:
                opened.append((path + b"/", found))
        return np.array(taken, np.int64), np.array(numbers, np.int64), items


class Existing:
    """Counts the files that are at the target already. Nothing is below a directory that is not there."""

    def __init__(self, to: bytes) -> None:
        self.count = 0
        self._to = to
        self._there = os.path.lexists(to)
        self._known: OrderedDict[bytes, bool] = OrderedDict()

    def look(self, some: Chosen) -> None:
        if self._there:
            self.count += sum(self._has(path) for path in some.paths())

    def _has(self, path: bytes) -> bool:
        parent = path.rpartition(b"/")[0]
        found = self._known.get(parent)
        if found is None:
            found = self._known[parent] = os.path.isdir(os.path.join(self._to, parent))
            if len(self._known) > DIRECTORIES:
                self._known.popitem(last=False)
        return found and os.path.lexists(os.path.join(self._to, path))


@dataclass(frozen=True, slots=True)
class Added:
    """What some files brought. `new`: by item, in order, the packs that none before needed. `slots`: of the packs in
    which the files' own data lies, and `owners`, for each the item that has it there."""

    new: list[tuple[int, list[int]]]
    slots: Numbers
    owners: Numbers


@dataclass(slots=True)
class Demand:
    """Which segments of which packs are wanted."""

    indexes: PackIndexes
    table: SegmentTable = field(init=False)
    _marks: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    _wanted: NDArray[np.bool_] = field(init=False)
    _under: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.table = SegmentTable(self.indexes)
        self._wanted = np.zeros(len(self.table.packs), np.bool_)

    @property
    def under(self) -> Iterator[tuple[int, int]]:
        """Pairs of packs: one, and one that something wanted of it stands on."""
        return ((pair >> 32, pair & 0xFFFFFFFF) for pair in self._under)

    def add(self, runs: Numbers, owners: Numbers) -> Added:
        """Mark what these runs lie in and all that stands on. A file with a run that cannot be looked up needs what can
        be read before it: it is tried, and named, when its turn comes."""
        table = self.table
        slots = table.slots(runs[:, 0])
        table.load(slots)
        there = table.has(slots, runs[:, 1], runs[:, 2])
        bad: list[int] = []
        if not there.all():
            bad = np.unique(owners[~there]).tolist()
            there = ~np.isin(owners, bad)
        good, slots, of_good = runs[there], slots[there], owners[there]
        low, high = table.spans(slots, good[:, 1], good[:, 2])
        segments = expand(low, high)
        by = of_good if len(segments) == len(low) else np.repeat(of_good, high - low + 1)
        self._make_room()
        fresh = ~self._marks[segments]
        unmarked, at = np.unique(segments[fresh], return_index=True)
        table.load_closure(unmarked[table.based(unmarked)])
        self._make_room()
        # What stands on nothing, in a pack that is wanted anyway or that another of these brings, is only marked.
        pack = table.slot_of(unmarked)
        decides = table.based(unmarked)
        order = np.argsort(at)
        _, brings = np.unique(pack[order], return_index=True)
        brings = order[brings]
        decides[brings[~self._wanted[pack[brings]]]] = True
        self._marks[unmarked[~decides]] = True
        deciding = order[decides[order]]
        todo = [(int(owner), int(segment)) for owner, segment in zip(
            by[fresh][at[deciding]].tolist(), unmarked[deciding].tolist(), strict=True
        )]  # fmt: skip
        new: dict[int, list[int]] = {}
        used_slots, used_by = [slots], [of_good]
        todo += [(owner, -1) for owner in bad]
        for owner, segment in sorted(todo, key=lambda each: each[0]) if bad else todo:
            brought: list[int] = []
            try:
                if segment >= 0:
                    self._mark(segment, brought)
                else:
                    read = self._mark_runs(runs[owners == owner], brought)
                    used_slots.append(np.array(read, np.int64))
                    used_by.append(np.full(len(read), owner, np.int64))
            except IntegrityError:
                pass  # a base is damaged: as above
            if brought:
                new.setdefault(owner, []).extend(brought)
        return Added(list(new.items()), np.concatenate(used_slots), np.concatenate(used_by))

    def _make_room(self) -> None:
        more = len(self.table) - len(self._marks)
        if more > 0:
            self._marks = np.concatenate((self._marks, np.zeros(max(more, len(self._marks) // 4), np.bool_)))

    def _mark_runs(self, runs: Numbers, brought: list[int]) -> list[int]:
        """Of a file of which not all can be looked up; returns the slots of its packs up to there."""
        read: list[int] = []
        for pack, first, count in runs.tolist():
            try:
                segments = self.table.segments_of(pack, first, count)
                self._make_room()
                read.append(int(self.table.slots(np.array([pack]))[0]))
                for segment in segments:
                    self._mark(segment, brought)
            except IntegrityError:
                break
        return read

    def _mark(self, segment: int, brought: list[int]) -> None:
        """Mark a segment and all it stands on. `brought`: gets the packs that were not wanted before."""
        todo = [segment]
        table = self.table
        while todo:
            each = todo.pop()
            if self._marks[each]:
                continue
            self._marks[each] = True
            slot, pack = table.place_of(each)
            if not self._wanted[slot]:
                self._wanted[slot] = True
                brought.append(pack)
            for base, first, count in table.bases_of(each):
                todo += table.segments_of(base, first, count)
                self._make_room()
                self._under.add(pack << 32 | base)

    def ranges(self) -> dict[int, list[tuple[int, int]]]:
        """The reads (start, end) that fetch what is wanted, by pack."""
        found: dict[int, list[tuple[int, int]]] = {}
        for slot in np.flatnonzero(self._wanted).tolist():
            low, high = self.table.of_slot(slot)
            starts, ends = self.table.extents(low + np.flatnonzero(self._marks[low:high]))
            reads: list[tuple[int, int]] = []
            begin, end = starts[0], ends[0]
            for start, last in zip(starts, ends, strict=True):
                if start - end <= GAP and last - begin <= READ_AHEAD:
                    end = last
                else:
                    reads.append((begin, end))
                    begin, end = start, last
            reads.append((begin, end))
            found[int(self.table.packs[slot])] = reads
        return found
