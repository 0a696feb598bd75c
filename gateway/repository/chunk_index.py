"""Which chunks of a chain are stored, and where: the index a writer asks for every chunk.

It knows only packs new generations may refer to: declared and neither damaged nor condemned nor needed by expired
generations alone, and packs of the run itself. What is newest is in memory, the rest in sorted files
(`gateway.repository.id_file`) that outlive the run: docs/design/index.md. All of it is derived from index objects, and
what is lost or does not fit is made again from them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from gateway import durable
from gateway.errors import Corrupt, LocalStateError
from gateway.format import names
from gateway.model.ids import in_ranges
from gateway.repository import id_file
from gateway.repository.fold import Fold
from gateway.repository.id_file import IdFile
from gateway.repository.id_table import IdTable
from gateway.repository.indexes import PackIndexes

BATCH = 256
COVERED = "covered"
IN_MEMORY = 1 << 16
"""Ids that a table in memory holds before it becomes a file: some 4 MiB, and 1 GiB of new data."""


class Covered(msgspec.Struct, frozen=True, dict=True):
    """The files and the packs all of whose ids are in them, as number and pack id."""

    files: tuple[str, ...]
    packs: tuple[tuple[int, bytes], ...]

    @cached_property
    def pack_ids(self) -> dict[int, bytes]:
        return dict(self.packs)


class ChunkIndex:
    """Thread-safe. `random` gives so many random bytes.

    Two threads that meet may lose an id: its chunk is stored twice, nothing else.
    """

    def __init__(self, directory: Path, random: Callable[[int], bytes], *, in_memory: int = IN_MEMORY) -> None:
        self._directory = directory
        self._random = random
        self._in_memory = in_memory
        self._lock = threading.Lock()
        self._table = IdTable(0)
        self._full: tuple[IdTable, ...] = ()
        self._files: tuple[IdFile, ...] = ()  # the newest first
        self._allowed: dict[int, bytes] = {}
        self._tags: tuple[NDArray[np.uint32], NDArray[np.uint64]] | None = None  # made of `_allowed` when asked for
        self._tag_lock = threading.Lock()
        durable.make_directory("ids", directory)
        self._saved = self._open()
        self._remove_others()

    def _open(self) -> Covered:
        """Take what an earlier run left, if all of it is whole."""
        try:
            data = durable.read_file(self._directory / COVERED)
            if blake3(data[32:]).digest() != data[:32]:
                return Covered((), ())
            covered = msgspec.msgpack.decode(data[32:], type=Covered)
            self._files = tuple(IdFile(self._directory / name) for name in covered.files)
        except (Corrupt, LocalStateError, msgspec.MsgspecError):
            return Covered((), ())
        return covered

    def _remove_others(self) -> None:
        kept = {COVERED, *self._saved.files, *(file.path.name for file in self._files)}
        with durable.reading(self._directory):
            there = list(self._directory.iterdir())
        for path in there:
            if path.name not in kept:
                durable.remove("ids", path)

    # --- packs -------------------------------------------------------------------------------------------------------

    def allow(self, pack: int, pack_id: bytes) -> None:
        """From here on chunks of this pack may be referred to."""
        if self._allowed.get(pack) == pack_id:
            return
        with self._tag_lock:
            self._allowed[pack] = pack_id
            self._tags = None

    def allows(self, pack: int) -> bool:
        """Whether chunks of this pack may be referred to."""
        return pack in self._allowed

    def covers(self, pack: int, pack_id: bytes) -> bool:
        """Whether the files have all ids of this pack."""
        return self._saved.pack_ids.get(pack) == pack_id

    def _tags_of(self, packs: NDArray[np.uint32]) -> NDArray[np.uint64]:
        with self._tag_lock:
            if self._tags is None:
                numbers = sorted(self._allowed)
                tags = [_tag(self._allowed[number]) for number in numbers]
                self._tags = np.array([*numbers, 0], np.uint32), np.array([*tags, 0], np.uint64)
            known, tags_of = self._tags
        at = np.searchsorted(known[:-1], packs)
        return np.where(known[at] == packs, tags_of[at], np.uint64(0))

    # --- ids ---------------------------------------------------------------------------------------------------------

    def lookup(self, ids: bytes) -> bytes:
        """For ids of 16 bytes, joined: eight bytes each, pack and index as little-endian u32; pack 0 = unknown."""
        found = self.newest(ids)
        if not self._files:
            return found
        places = np.frombuffer(found, "<u4").reshape(-1, 2).copy()
        rows = np.frombuffer(ids, np.uint8).reshape(-1, 16)
        unknown = np.flatnonzero(places[:, 0] == 0)
        for file in self._files:
            if not len(unknown):
                break
            places[unknown] = file.find(rows[unknown], self._tags_of)
            unknown = unknown[places[unknown, 0] == 0]
        return places.astype("<u4").tobytes()

    def newest(self, ids: bytes) -> bytes:
        """The same of the ids in memory: what was added since a `lookup` a moment ago."""
        found = self._table.lookup(ids)
        for table in self._full:
            if len(ids) == 16 and not any(found):
                found = table.lookup(ids)
            elif len(ids) > 16:
                here, there = np.frombuffer(found, "<u8"), np.frombuffer(table.lookup(ids), "<u8")
                found = np.where(here == 0, there, here).tobytes()
        return found

    def add(self, ids: bytes | bytearray, pack: int, first: int) -> None:
        """Ids that lie one behind the other in a pack that is allowed; the first has index `first` there."""
        for at in range(0, len(ids), 16 * BATCH):
            self._table.add(bytes(ids[at : at + 16 * BATCH]), pack, first + at // 16)
        if len(self._table) >= self._in_memory:
            self._spill(self._in_memory)

    def _spill(self, least: int) -> None:
        """Make a file of the table, if it still has so many ids. Where the disk takes none, memory has to do."""
        with self._lock:
            table = self._table
            if len(table) < least:
                return  # another thread was first
            self._full = (table, *self._full)  # before it is replaced: who looks meanwhile finds it in one of the two
            self._table = IdTable(0)
        records = id_file.from_table(table.records())
        with contextlib.suppress(LocalStateError):
            made = self._write([records], len(records))
            with self._lock:
                self._files = (made, *self._files)
                self._full = tuple(each for each in self._full if each is not table)
                self._merge()

    def _merge(self) -> None:
        """Join neighbours until each file is at least twice as large as the next newer: a look-up asks them all."""
        while True:
            files = self._files
            at = next((n for n, (new, old) in enumerate(pairwise(files)) if new.count * 2 > old.count), None)
            if at is None:
                return
            pair = files[at : at + 2]
            made = self._write(id_file.merged(pair, self._tags_of), sum(each.count for each in pair))
            self._files = (*files[:at], made, *files[at + 2 :])
            # Another thread may still read them, which it can; those of the last run stay until `save`.
            for file in pair:
                if file.path.name not in self._saved.files:
                    durable.remove("ids", file.path)

    def _write(self, pieces: Iterable[id_file.Records], most: int) -> IdFile:
        path = self._directory / f"{self._random(8).hex()}.ids"
        id_file.write(path, pieces, most, self._tags_of, self._random(32))
        return IdFile(path)

    # --- the end of a run --------------------------------------------------------------------------------------------

    def save(self, declared: Mapping[int, bytes]) -> None:
        """Keep for the next run what is known of those of these packs, by number and pack id, that are allowed.

        Only while nobody adds. CRASH: what is kept is what was kept before, or this.
        """
        packs = {number: pack_id for number, pack_id in declared.items() if self._allowed.get(number) == pack_id}
        if packs == self._saved.pack_ids:
            return
        with contextlib.suppress(LocalStateError):
            self._spill(1)
            if self._full:
                return  # the disk takes no file: the next run will ask the index objects
            kept = Covered(tuple(each.path.name for each in self._files), tuple(sorted(packs.items())))
            data = msgspec.msgpack.encode(kept)
            durable.write_file("ids", self._directory / COVERED, blake3(data).digest() + data)
            self._saved = kept
            self._remove_others()


def _tag(pack_id: bytes) -> int:
    """What of a pack id the checks of records bind; never 0."""
    return int.from_bytes(pack_id[:8], "little") | 1


def usable_packs(fold: Fold) -> list[int]:
    """Numbers of the packs whose chunks a new generation may refer to.

    Those that no generation needs are among them: packs of a run that was cut off, which the next entry declared for
    the run after it, and of a checkpoint that gave way to another. Not among them: what stands on a condemned pack.
    """
    kept, expired = set[int](), set[int]()
    for state in fold.generations.values():
        (expired if state.expired else kept).update(in_ranges(state.commit.needs))
    lost = _on_condemned(fold)
    return [
        number
        for number, pack in fold.packs.items()
        if pack.usable and (number in kept or number not in expired) and number not in lost
    ]


def _on_condemned(fold: Fold) -> set[int]:
    """The packs that are condemned, and those that stand on them: a chunk in one may be unreadable any moment."""
    lost = {number for number, pack in fold.packs.items() if pack.condemned}
    if lost:
        for number, pack in sorted(fold.packs.items()):  # bases lie in packs before
            if pack.declaration.bases and not lost.isdisjoint(in_ranges(pack.declaration.bases)):
                lost.add(number)
    return lost


def load(
    index: ChunkIndex,
    fold: Fold,
    indexes: PackIndexes,
    adopted: Iterable[tuple[int, bytes, bytes]] = (),
    *,
    lists: bool = True,
) -> None:
    """Fill the index of a chain; `adopted`: number, pack id and ids (joined) of packs no entry declares yet. Without
    the packs of file lists when `lists` is False.
    """
    usable = [each for each in usable_packs(fold) if lists or fold.packs[each].declaration.storage != names.META]
    for number in usable:
        pack_id = fold.packs[number].declaration.pack_id
        index.allow(number, pack_id)
        if not index.covers(number, pack_id):
            index.add(indexes.opened(number).directory.ids, number, 0)
    for number, pack_id, ids in adopted:
        index.allow(number, pack_id)
        index.add(ids, number, 0)


def save(index: ChunkIndex, fold: Fold) -> None:
    """Keep the index for the next run: of the packs the log declares."""
    index.save({number: fold.packs[number].declaration.pack_id for number in usable_packs(fold)})
