"""Restoring a generation, or a part of it: what it needs; then fetch, verify and deliver a window of its list.

The list is read twice, once for the plan and once for the work, so that neither holds it. Files are written by a few
threads, in pieces of 64 MiB of data; a file is delivered only when the digest of what was written is the list's.
"""

from __future__ import annotations

import contextlib
import os
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from gateway.api import Progress, ProgressCallback, RestorePlan
from gateway.catalog import GenerationRow
from gateway.errors import Corrupt, IntegrityError, UsageError
from gateway.format import limits
from gateway.format.filelist import FileEntry, Item, LeftOutRecord, data_ranges
from gateway.format.log import ListRoot
from gateway.jobs.backup import digest
from gateway.jobs.context import Context
from gateway.jobs.demand import Chosen, Demand, Existing, chosen_items, chosen_rows
from gateway.jobs.survey import Survey, places
from gateway.jobs.views import generation_info
from gateway.log import printable
from gateway.model.entry import EntryType, RestoreEntry, order_key
from gateway.model.ids import Run
from gateway.policy.patterns import Selection
from gateway.policy.thaw import Waves, last_uses
from gateway.repository.cache import Cached
from gateway.repository.chain import Chain
from gateway.repository.lists import read_below, read_list, read_list_rows
from gateway.repository.reader import ChainReader
from gateway.repository.segment_table import Numbers
from gateway.target.port import FileSink, RestoreTarget, TargetReport

BATCH_FILES = 64
BATCH_BYTES = 8 * 1024 * 1024
GATHERED_BYTES = 256 * 1024
"""LIMIT: of small pieces that are written and hashed as one."""


class ListView:
    """A generation's file list, whole or as far as a selection needs it."""

    def __init__(self, root: ListRoot, reader: ChainReader, address: str) -> None:
        self._root = root
        self._reader = reader
        self._address = address

    def items(self, selection: Selection) -> Iterator[Item]:
        """Selected items in order, each preceded by the directories it lies in."""
        parents: list[Item] = []
        given: set[bytes] = set()
        for item in self._candidates(selection):
            key = order_key(item.entry.path)
            while parents and not key.startswith(order_key(parents[-1].entry.path) + b"\0"):
                given.discard(parents.pop().entry.path)
            taken = selection.takes(item.entry.path)
            if taken:
                for parent in parents:
                    if parent.entry.path not in given:
                        given.add(parent.entry.path)
                        yield parent
                yield item
            if item.entry.kind == EntryType.DIRECTORY:
                parents.append(item)
                if taken:
                    given.add(item.entry.path)

    def _candidates(self, selection: Selection) -> Iterator[Item]:
        literals = selection.literals
        if literals is None:
            found = read_list(self._root, self._reader.fetch, self._address)
            yield from (item for item in found if isinstance(item, Item))
            return
        seen: set[bytes] = set()
        done: bytes | None = None
        for path in literals:
            if done is not None and (path == done or path.startswith(done + b"/")):
                continue
            parts = path.split(b"/")
            for depth in range(1, len(parts)):
                parent = b"/".join(parts[:depth])
                if parent not in seen and (item := self.find(parent)) is not None:
                    seen.add(parent)
                    yield item
            yield from self.below(path)
            done = path

    def chosen(self, selection: Selection) -> Iterator[Chosen]:
        """The selected files, some thousand at a time, with what a plan needs of them."""
        if selection.literals is None:
            yield from chosen_rows(read_list_rows(self._root, self._reader.fetch, self._address), selection)
        else:
            yield from chosen_items(self.items(selection))

    def below(self, path: bytes) -> Iterator[Item]:
        """The item at a path and all below it, reading only the parts that may hold them."""
        found = read_below(self._root, path, self._reader.fetch, self._address)
        return (item for item in found if isinstance(item, Item))

    def find(self, path: bytes) -> Item | None:
        item = next(self.below(path), None)
        return item if item is not None and item.entry.path == path else None

    def records(self) -> Iterator[Item | LeftOutRecord]:
        return read_list(self._root, self._reader.fetch, self._address)


class Restore:
    """One restore of one generation."""

    def __init__(
        self,
        context: Context,
        row: GenerationRow,
        chain: Chain,
        root: ListRoot,
        selection: Selection,
        progress: ProgressCallback,
        cache: Cached | None = None,
    ) -> None:
        """`cache`: where packs are looked for before the store; without one, in the pack cache."""
        self._context = context
        self._row = row
        self._chain = chain
        self.indexes = context.indexes(chain)
        self._reader = ChainReader(chain, self.indexes, cache or context.cache)
        self._selection = selection
        self.progress = progress
        self._list = ListView(root, self._reader, f"file list of {row.source}@{row.number}")
        self._alias: dict[bytes, bytes] = {}
        self._lock = threading.Lock()
        self._done = 0
        self._total = 0

    @property
    def _label(self) -> str:
        return f"{self._row.source}@{self._row.number}"

    # --- plan --------------------------------------------------------------------------------------------------------

    def survey(self, to: Path, wave_bytes: int) -> Survey:
        """What is needed, wave by wave, and where it is. `UsageError`: a pattern that matches nothing."""
        demand = Demand(self.indexes)
        with contextlib.closing(demand.table):
            return self._survey(demand, to, wave_bytes)

    def _survey(self, demand: Demand, to: Path, wave_bytes: int) -> Survey:
        files, size, items = 0, 0, 0
        waves, existing = Waves(wave_bytes), Existing(os.fsencode(to))
        first, direct = dict[int, int](), np.zeros(len(demand.table.packs), np.int64)
        declared, aliased = self._chain.fold.packs, set[bytes]()
        for some in self._list.chosen(self._selection):
            items = some.items
            files += len(some.sizes)
            size += _sum(some.sizes)
            existing.look(some)
            runs, owners = self._with_links(some, aliased)
            before, later = len(waves.ends), list[int]()
            found = demand.add(runs, owners)
            for owner, packs in found.new:
                wave = waves.add(owner, sum(declared[pack].declaration.size for pack in packs))
                first.update(dict.fromkeys(packs, wave))
                later += [owner] * (len(waves.ends) - before - len(later))
            used = before + np.searchsorted(later, found.owners, "right") if later else before
            np.maximum.at(direct, found.slots, used)
        unmatched = self._selection.unmatched()
        if unmatched:
            raise UsageError(
                f'Nothing in {self._label} matches "{printable(unmatched[0])}".',
                meaning="Patterns are compared with whole paths, relative to the source.",
                advice=f"`gateway ls {self._label}` lists the paths.",
            )
        last = dict(first)
        if waves.ends:
            uses = zip(demand.table.packs.tolist(), direct.tolist(), strict=True)
            last = last_uses({pack: max(first[pack], wave) for pack, wave in uses if pack in first}, demand.under)
        ranges = demand.ranges()
        for pack, planned in ranges.items():
            self._reader.expect(pack, planned)
        return Survey(
            packs=places(self._context, self._chain, ranges, first, last), waves=waves, items=items, files=files,
            size=size, existing=existing.count,
        )  # fmt: skip

    def _with_links(self, some: Chosen, aliased: set[bytes]) -> tuple[Numbers, Numbers]:
        """The runs of some files and the items they belong to. A hard link has data of its own only where the first
        member of its group is not restored, and of several such links, one has.
        """
        runs, owners = [some.runs], [some.owners]
        for at, link in some.links:
            if link in aliased or self._selection.takes(link):
                continue
            aliased.add(link)
            # What cannot be looked up cannot be fetched either: such a file is named when its turn comes.
            with contextlib.suppress(IntegrityError):
                flat = self._first_of(link).flat
                runs.append(np.array(flat, np.int64).reshape(-1, 3))
                owners.append(np.full(len(flat) // 3, at, np.int64))
        if len(runs) == 1:
            return some.runs, some.owners
        joined = np.concatenate(owners)
        order = np.argsort(joined, kind="stable")
        return np.concatenate(runs)[order], joined[order]

    def expect(self, ranges: Mapping[int, Sequence[tuple[int, int]]]) -> None:
        """What a plan made earlier reads of each pack."""
        for pack, planned in ranges.items():
            self._reader.expect(pack, list(planned))

    def plan(self, survey: Survey) -> RestorePlan:
        """The same, as it is shown; without quotes."""
        info = generation_info(self._row, self._context.catalog)
        return survey.plan(info)

    def _data_of(self, item: Item) -> Item:
        """The item whose data a file has: its own, or the first of its hard-link group."""
        if not item.entry.hardlink:
            return item
        return self._first_of(item.entry.hardlink)

    def _first_of(self, path: bytes) -> Item:
        first = self._list.find(path)
        if first is None or first.entry.kind != EntryType.FILE or first.entry.hardlink:
            raise Corrupt("hard link leads to no file", address=printable(path))
        return first

    # --- work --------------------------------------------------------------------------------------------------------

    def taken_from_store(self) -> dict[int, tuple[int, int]]:
        """Requests and bytes by pack since the last call."""
        return self._reader.taken()

    def deliver(self, target: RestoreTarget, window: tuple[int, int], total: int) -> TargetReport:
        """Write the items of a window of the list. Damaged files are left out and named; a store or target that fails
        ends it. `ObjectCold`: a pack that is needed cannot be read; what was delivered stays. `total`: for progress.
        """
        self._total = total
        workers = self._context.config.limits.workers
        try:
            with ThreadPoolExecutor(workers, thread_name_prefix="restore") as pool:
                self._deliver(pool, target, 4 * workers, window)
            return target.finish()
        except BaseException:
            target.abandon()
            raise

    def _deliver(self, pool: ThreadPoolExecutor, target: RestoreTarget, ahead: int, window: tuple[int, int]) -> None:
        running: deque[Future[None]] = deque()
        batch: list[tuple[Item, FileSink]] = []
        size = 0

        def submit(jobs: list[tuple[Item, FileSink]]) -> None:
            running.append(pool.submit(self._files, jobs))
            while len(running) > ahead:
                running.popleft().result()

        try:
            for item in self._window(window):
                job = self._begin(item, target)
                if job is None:
                    continue
                if job[0].entry.data_bytes > limits.DIGEST_PIECE_BYTES:
                    self._large(pool, running, *job)
                    while len(running) > ahead:
                        running.popleft().result()
                    continue
                batch.append(job)
                size += job[0].entry.data_bytes
                if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
                    submit(batch)
                    batch, size = [], 0
            if batch:
                submit(batch)
            while running:
                running.popleft().result()
        except BaseException:
            for future in running:
                future.cancel()
            raise

    def _window(self, window: tuple[int, int]) -> Iterator[Item]:
        """The items of a window, and before them the directories they lie in."""
        parents: list[Item] = []
        for at, item in enumerate(self._list.items(self._selection)):
            if at >= window[1]:
                return
            if at >= window[0]:
                yield from parents
                parents = []
                yield item
            else:
                first = item.entry.hardlink
                if first and not self._selection.takes(first):
                    self._alias.setdefault(first, item.entry.path)
                parents = [each for each in parents if item.entry.path.startswith(each.entry.path + b"/")]
                if item.entry.kind == EntryType.DIRECTORY:
                    parents.append(item)

    def _begin(self, item: Item, target: RestoreTarget) -> tuple[Item, FileSink] | None:
        """Make what has no data; open a file that has."""
        entry = restore_entry(item.entry)
        match EntryType(item.entry.kind):
            case EntryType.DIRECTORY:
                target.add_directory(entry)
            case EntryType.SYMLINK:
                target.add_symlink(entry)
            case EntryType.FILE:
                return self._begin_file(item, entry, target)
            case _:
                target.add_special(entry)
        return None

    def _begin_file(self, item: Item, entry: RestoreEntry, target: RestoreTarget) -> tuple[Item, FileSink] | None:
        first = item.entry.hardlink
        if first:
            known = first if self._selection.takes(first) else self._alias.get(first)
            if known is not None:
                target.add_hardlink(restore_entry(item.entry, hardlink=known))
                return None
            self._alias[first] = item.entry.path
            try:
                item = self._data_of(item)
            except IntegrityError as error:
                lost = target.open_file(entry)
                if lost is not None:
                    self._give_up(lost, error)
                return None
            entry = restore_entry(item.entry, path=entry.path)
        sink = target.open_file(entry)
        return (item, sink) if sink is not None else None

    def _files(self, jobs: list[tuple[Item, FileSink]]) -> None:
        for item, sink in jobs:
            try:
                found = self._piece(item, sink, list(item.runs), item.entry.skip, 0, item.entry.data_bytes)
                self._finish(item, sink, [found] if item.entry.data_bytes else [])
            except IntegrityError as error:
                self._give_up(sink, error)

    def _large(self, pool: ThreadPoolExecutor, running: deque[Future[None]], item: Item, sink: FileSink) -> None:
        """A file in pieces of 64 MiB; the last to end finishes it."""
        try:
            pieces = list(self._pieces(item))
        except IntegrityError as error:
            self._give_up(sink, error)
            return
        digests: list[bytes | None] = [None] * len(pieces)
        failures: list[IntegrityError] = []
        left = [len(pieces)]

        def work(at: int) -> None:
            runs, skip, start, length = pieces[at]
            try:
                if not failures:
                    digests[at] = self._piece(item, sink, runs, skip, start, length)
            except IntegrityError as error:
                failures.append(error)
            with self._lock:
                left[0] -= 1
                last = left[0] == 0
            if last:
                self._end_large(item, sink, digests, failures)

        running.extend(pool.submit(work, at) for at in range(len(pieces)))

    def _end_large(
        self, item: Item, sink: FileSink, digests: list[bytes | None], failures: list[IntegrityError]
    ) -> None:
        try:
            if failures:
                raise failures[0]
            self._finish(item, sink, [each for each in digests if each is not None])
        except IntegrityError as error:
            self._give_up(sink, error)

    def _pieces(self, item: Item) -> Iterator[tuple[list[Run], int, int, int]]:
        """Runs, bytes to skip in their first chunk, start in the data and length, for every piece of 64 MiB."""
        total, piece = item.entry.data_bytes, limits.DIGEST_PIECE_BYTES
        start, skip = 0, item.entry.skip
        gathered: list[Run] = []
        have = -skip  # bytes of data that `gathered` holds
        for run in item.runs:
            directory = self.indexes.opened(run.pack).directory
            first, left = run.first, run.count
            if first + left > directory.chunks:
                raise Corrupt(f"has no chunk {first + left - 1}", address=f"pack {run.pack:08x}")
            while left:
                wanted = min(piece, total - start)
                count = _chunks_for(directory.ends, first, left, wanted - have)
                gathered.append(Run(run.pack, first, count))
                have += directory.span(first, count)
                first, left = first + count, left - count
                if have < wanted:
                    continue
                yield gathered, skip, start, wanted
                start += wanted
                over = have - wanted
                if start >= total:
                    return
                if over:  # the last chunk reaches into the next piece
                    last = Run(run.pack, first - 1, 1)
                    gathered, skip = [last], directory.span(first - 1, 1) - over
                    have = over
                else:
                    gathered, skip, have = [], 0, 0
        raise Corrupt("its runs hold too few bytes", address=printable(item.entry.path))

    def _piece(self, item: Item, sink: FileSink, runs: list[Run], skip: int, start: int, length: int) -> bytes:
        """Fetch, write and digest `length` bytes of data from `start` on."""
        hasher = blake3()
        places = _places(item, start)
        offset, room = next(places, (0, 0))
        left = length
        for data in _gathered(self._reader.stream(runs), skip, length):
            hasher.update(data)
            left -= len(data)
            view = data
            while view:
                take = min(room, len(view))
                if not take:
                    offset, room = next(places)
                    continue
                sink.write_at(offset, view[:take])
                view, offset, room = view[take:], offset + take, room - take
        if left:
            raise Corrupt("its runs hold too few bytes", address=printable(item.entry.path))
        with self._lock:
            self._done += length
            done = self._done
        self.progress(Progress(phase="restoring", done=done, total=self._total))
        return hasher.digest()

    def _finish(self, item: Item, sink: FileSink, digests: list[bytes]) -> None:
        if digest(digests) != item.entry.digest:
            raise Corrupt("digest is not that of the file list", address=printable(item.entry.path))
        sink.finish()

    def _give_up(self, sink: FileSink, error: IntegrityError) -> None:
        sink.discard(str(error))
        self._context.log.error("file.damaged", path=printable(sink.entry.path), problem=str(error))


def _chunks_for(ends: Sequence[int], first: int, left: int, wanted: int) -> int:
    """How many of `left` chunks from `first` on hold at least `wanted` bytes; all when they hold fewer."""
    before = ends[first - 1] if first else 0
    return min(bisect_left(ends, before + wanted, first, first + left) - first + 1, left)


def _gathered(pieces: Iterable[memoryview], skip: int, length: int) -> Iterator[memoryview]:
    """`length` bytes behind the first `skip`, as far as there are so many; small neighbours as one: of a file that was
    changed often, runs are short, and a call for each would take longer than what it does.
    """
    parts: list[memoryview] = []
    size = 0
    for piece in pieces:
        rest = piece[skip:] if skip else piece
        skip -= min(skip, len(piece))
        rest = rest[:length]
        length -= len(rest)
        parts.append(rest)
        size += len(rest)
        if size >= GATHERED_BYTES or not length:
            yield parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
            parts, size = [], 0
        if not length:
            return
    if size:
        yield memoryview(b"".join(parts))


def _sum(sizes: NDArray[np.uint64]) -> int:
    """Of numbers that together may have more than 64 bits."""
    return (int((sizes >> np.uint64(32)).sum()) << 32) + int((sizes & np.uint64(2**32 - 1)).sum())


def _places(item: Item, start: int) -> Iterator[tuple[int, int]]:
    """Where data from `start` on lies in the file: offset and length."""
    for offset, length in data_ranges(item.entry, item.holes):
        if start >= length:
            start -= length
            continue
        yield offset + start, length - start
        start = 0


def restore_entry(entry: FileEntry, *, path: bytes = b"", hardlink: bytes = b"") -> RestoreEntry:
    return RestoreEntry(
        path=path or entry.path, type=EntryType(entry.kind), size=entry.size, mtime_ns=entry.mtime_ns, mode=entry.mode,
        uid=entry.uid, gid=entry.gid, user=entry.user, group=entry.group, xattrs=entry.xattrs, target=entry.target,
        hardlink=hardlink, rdev=entry.rdev,
    )  # fmt: skip
