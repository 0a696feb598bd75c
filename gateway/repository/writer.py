"""Writing one generation into a chain: workers, open packs, uploads, the list, the entry.

Order of what becomes durable: packs in the cache, packs and their indexes in the store (proved), presence of every
older pack the generation needs, the entry. CRASH before the entry: the generation does not exist; its acknowledged
packs are in the ledger and are adopted by the next run, so their chunks are not sent again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import msgspec

from gateway.catalog import Catalog, Proof
from gateway.clock import milliseconds
from gateway.config.sizes import WriterSizes
from gateway.errors import Corrupt, Missing
from gateway.format import log, names
from gateway.format.chunker import Chunker, ChunkerParameters
from gateway.format.container import Kind, Name
from gateway.format.directory import open_index
from gateway.format.log import Commit, Declaration, ListRoot, Statistics
from gateway.model.ids import in_ranges, ranges
from gateway.policy.density import PackUse
from gateway.repository import chunk_index
from gateway.repository.bases import Bases
from gateway.repository.cache import PackCache
from gateway.repository.chain import Chain
from gateway.repository.chunk_index import ChunkIndex
from gateway.repository.earlier import Earlier
from gateway.repository.fold import Stored
from gateway.repository.indexes import PackIndexes
from gateway.repository.lists import ListBefore, ListWriter
from gateway.repository.packs import PackWriter
from gateway.repository.pipeline import BaseChooser, Counts, Packs, Piece, Stopped, Worker
from gateway.repository.reader import ChainReader
from gateway.repository.retired import NOTHING, Retired
from gateway.repository.sketch_index import SketchIndex
from gateway.repository.upload import Uploads, adoptable, declaration_of
from gateway.repository.usage import Usage, used_bytes

DECLARED = 4096
"""LIMIT: packs that one entry declares, each in some 100 bytes of the 1 MiB that an entry may have."""

DENSE = 0.6
"""A pack of whose chunks the newest generation uses this share is not sparse, whatever their sizes are."""


def parameters(sizes: tuple[int, int, int]) -> ChunkerParameters:
    """The chunker's sizes as a chain's header has them."""
    minimum, average, maximum = sizes
    return ChunkerParameters(minimum=minimum, average=average, maximum=maximum)


class ChainWriter:
    """One run on a chain. Methods are for one thread, the run's; a context manager that ends all its threads."""

    def __init__(
        self,
        chain: Chain,
        catalog: Catalog,
        cache: PackCache,
        indexes: PackIndexes,
        *,
        sizes: WriterSizes,
        workers: int,
        uploaders: int,
        writer: bytes,
        generation: bytes,
        ids: Path,
        sketches: Path,
        sent: Callable[[int], None],
        before: ListRoot | None,
        bases: BaseChooser | None = None,
        lists: bool = True,
        retired: Retired = NOTHING,
    ) -> None:
        """Adopts what an earlier run left, and goes on sending it. `ids`, `sketches`: where indexes are kept. `sent`:
        bytes of each part acknowledged. `before`: the list of the generation before. `bases`: who chooses them, if not
        `Bases`. `lists` False: no chunk of an earlier list is referred to, since one of them could not be read.
        `retired`: chunks that are not referred to.
        """
        self.chain = chain
        self.generation = generation
        self.stopped = threading.Event()
        self._failure: BaseException | None = None
        self._catalog = catalog
        self._cache = cache
        self._indexes = indexes
        self._sizes = sizes
        self._writer = writer
        self._lock = threading.Lock()
        self._undeclared: dict[int, Declaration] = {}
        self._present = chain.list_packs()
        self._uploads = Uploads(
            chain, catalog, cache, indexes,
            part_bytes=sizes.part_bytes, threads=uploaders, stopped=self.stopped, sent=sent,
        )  # fmt: skip
        cache.prepare(chain.name)
        self._keep_what_is_needed()
        adopted = self._adopt()
        self.index = ChunkIndex(ids, chain.repository.clock.random_bytes)
        chunk_index.load(self.index, chain.fold, indexes, adopted, lists=lists)
        ledger = (row.number for row in catalog.ledger(chain.name))
        self._next = 1 + max([0, *chain.fold.packs, *self._present, *self._undeclared, *ledger])
        keys, header = chain.keys, chain.header
        usable = frozenset(chunk_index.usable_packs(chain.fold))
        self._sketches = SketchIndex(sketches, chain, sorted(usable))
        data_bases = bases or Bases(chain, indexes, cache, usable, self._sketches, retired)
        self._data_packs = self._packs(Kind.DATA)
        self._open_list_packs = self._packs(Kind.LIST)
        data_chunker = Chunker(keys.chunker, parameters(header.data_chunks))
        list_chunker = Chunker(keys.chunker, parameters(header.list_chunks))

        def worker() -> Worker:
            return Worker(
                data_chunker, keys.chunk_id, self.index, self._data_packs, sizes.segment_bytes, self.stopped,
                data_bases, retired,
            )  # fmt: skip

        self._idle = [worker() for _ in range(workers)]
        self._all_workers = list(self._idle)
        self._list_worker = Worker(
            list_chunker, keys.list_id, self.index, self._open_list_packs, sizes.segment_bytes, self.stopped,
            Bases(chain, indexes, cache, usable) if bases is None else None,
        )  # fmt: skip
        fetch = ChainReader(chain, indexes, cache).fetch
        list_before = ListBefore(before, fetch, indexes, f"file list of {chain.name}") if before and lists else None
        self.files = ListWriter(
            self._list_worker, keys.list_id, list_before, part_records=sizes.list_part_records,
            outline_runs_bytes=sizes.outline_runs_bytes,
        )  # fmt: skip
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="worker")

    def __enter__(self) -> ChainWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._uploads.close()
        self._data_packs.end()
        self._open_list_packs.end()
        # A thread that was merely stopped may have been asked first: say what really went wrong.
        cause = self._failure or self._uploads.failure
        if isinstance(error, Stopped) and cause is not None:
            raise cause
        if error is None:
            chunk_index.save(self.index, self.chain.fold)
            self._sketches.save()

    # --- packs -------------------------------------------------------------------------------------------------------

    def _keep_what_is_needed(self) -> None:
        fold = self.chain.fold
        standing = [each for each in fold.generations.values() if each.committed and not each.expired]
        newest = max(standing, key=lambda each: each.commit.number, default=None)
        needed = in_ranges(newest.commit.needs) if newest is not None else []
        lists = [number for number, pack in fold.packs.items() if pack.declaration.storage == names.META]
        self._cache.keep(self.chain.name, needed, lists, of=max(fold.packs, default=0))

    def _adopt(self) -> list[tuple[int, bytes, bytes]]:
        """Take over packs of an earlier run; returns number, pack id and ids of their chunks for the index."""
        adopted = []
        for row, index in adoptable(self.chain, self._catalog, self._cache, self._indexes):
            declaration = declaration_of(row)
            name = self._name(row.storage == names.META, row.number, row.pack_id)
            opened = open_index(index, name, self.chain.keys, names.index(self.chain.name, row.number, row.pack_id))
            adopted.append((row.number, row.pack_id, opened.directory.ids))
            self._undeclared[row.number] = declaration
            self._uploads.resume(row, index)
        return adopted

    def _name(self, is_list: bool, number: int, pack_id: bytes) -> Name:
        return Name(
            kind=Kind.LIST if is_list else Kind.DATA, repository=self.chain.repository.id, chain=self.chain.name,
            number=number, pack_id=pack_id,
        )  # fmt: skip

    def _packs(self, kind: Kind) -> Packs:
        clock = self.chain.repository.clock

        def create() -> PackWriter:
            self._cache.wait_for_room(self._sizes.pack_bytes, self.stopped)
            with self._lock:
                number, self._next = self._next, self._next + 1
            if number > names.HIGHEST:
                raise Corrupt(
                    "holds a pack with the highest number there is", address=names.chain_prefix(self.chain.name),
                    meaning="No gateway counts so far: the pack is foreign.",
                    advice=f"Look below {names.PACKS} for a pack of this chain with that number, and delete it.",
                )  # fmt: skip
            pack_id = clock.random_bytes(16)
            self.index.allow(number, pack_id)
            path = self._cache.path(self.chain.name, number, pack_id)
            name = self._name(kind is Kind.LIST, number, pack_id)
            return PackWriter(name, self.chain.keys, clock.random_bytes(32), self.chain.pack_head(self._writer), path)

        def finished(pack: PackWriter) -> None:
            done = pack.finish()
            if kind is Kind.LIST:
                storage = names.META
            else:
                storage = "hot" if done.size < self._sizes.small_pack_bytes else self.chain.header.storage
            declaration = self._uploads.submit(done, storage, self.generation)
            with self._lock:
                self._undeclared[declaration.number] = declaration

        return Packs(create, finished, self._sizes.pack_bytes)

    @property
    def undeclared(self) -> int:
        """Packs finished and not yet declared by an entry."""
        return len(self._undeclared)

    # --- running -----------------------------------------------------------------------------------------------------

    def submit(self, pieces: Sequence[Piece], earlier: Earlier | None = None) -> Future[None]:
        """Run an extent on a free worker. `earlier`: the stream before."""
        return self._pool.submit(self._run, pieces, earlier)

    def _run(self, pieces: Sequence[Piece], earlier: Earlier | None) -> None:
        with self._lock:
            worker = self._idle.pop()
        try:
            worker.run(pieces, earlier)
        except Stopped:
            raise
        except BaseException as error:
            self._failure = self._failure or error
            self.stopped.set()
            raise
        finally:
            with self._lock:
                self._idle.append(worker)

    def counts(self) -> Counts:
        """What all workers did; the list's own chunks are not among it."""
        total = Counts()
        for worker in self._all_workers:
            total.add(worker.counts)
        return total

    # --- ending ------------------------------------------------------------------------------------------------------

    def settle(self) -> ListRoot:
        """Finish all open packs with the list so far, and wait until the store has proved everything.

        Only while no extent runs. More may be written afterwards, for a later entry.
        """
        self._data_packs.finish_all()
        root = self.files.root()
        self._open_list_packs.finish_all()
        self._uploads.wait()
        return root

    def _declaration(self, number: int) -> Declaration:
        state = self.chain.fold.packs.get(number)
        return state.declaration if state is not None else self._undeclared[number]

    def close_over(self, referenced: Usage) -> Usage:
        """All chunks that are needed of what a generation's files refer to, bases included."""
        usage = referenced.copy()
        usage.close_over(
            self._declaration,
            lambda number: self._indexes.of(self._declaration(number)).directory,
        )
        return usage

    def needs(self, usage: Usage) -> list[int]:
        """All packs a generation needs: those in `usage`, those its list is in, and those the list's bases lie in."""
        todo, lists = set(self.files.packs), set[int]()
        while todo:
            number = todo.pop()
            if number not in lists:
                lists.add(number)
                todo.update(in_ranges(self._declaration(number).bases))
        return sorted(usage.packs | lists)

    def require_present(self, needs: Iterable[int]) -> None:
        """Every older pack that is needed is listed by the store with its declared size. `Missing` names the first."""
        fresh = set(self._undeclared)
        older = [number for number in needs if number not in fresh]
        if not older:
            return
        listed = self.chain.list_packs()
        for number in older:
            declaration = self.chain.fold.packs[number].declaration
            if listed.get(number) != (declaration.pack_id, declaration.size):
                key = names.pack(declaration.storage, self.chain.name, number, declaration.pack_id)
                raise Missing(
                    "a pack that an earlier generation needs is not in the store, or has another size", address=key,
                    meaning="Somebody deleted or changed it. Nothing new was committed on top of it.",
                    advice="Run `gateway verify` to see all damage, then `gateway ingest` again: it stores what is "
                    "missing anew from the spool.",
                )  # fmt: skip

    def append(self, kind: str, commit: Commit) -> Stored:
        """Append the entry that declares everything undeclared. `Overtaken`: the log went on without us.

        What one entry cannot hold is declared by checkpoints before it. CRASH: they list no file, but need all packs
        of the commit that were declared by then, so that the next run finds every chunk.
        """
        while len(commit.packs) > DECLARED:
            now, later = commit.packs[:DECLARED], commit.packs[DECLARED:]
            there = self.chain.fold.packs.keys() | {each.number for each in now}
            needs = ranges([number for number in in_ranges(commit.needs) if number in there])
            part = msgspec.structs.replace(
                commit, complete=0, packs=now, needs=tuple(needs), files=ListRoot(0, 0, ()), left_out_count=0,
                left_out=(), statistics=Statistics(),
            )  # fmt: skip
            self._append(log.CHECKPOINT, part)
            commit = msgspec.structs.replace(commit, packs=later)
        return self._append(kind, commit)

    def _append(self, kind: str, commit: Commit) -> Stored:
        stored = self.chain.append(kind, commit, self._writer)
        self._catalog.ledger_remove(self.chain.name, [declaration.number for declaration in commit.packs])
        now = milliseconds(self.chain.repository.clock.now())
        proofs = [Proof(number=each.number, pack_id=each.pack_id, when=now) for each in commit.packs]
        self._catalog.proved_all(self.chain.name, proofs)
        for declaration in commit.packs:
            self._undeclared.pop(declaration.number, None)
        return stored

    def declarations(self) -> tuple[Declaration, ...]:
        return tuple(self._undeclared[number] for number in sorted(self._undeclared))

    def needed_ranges(self, usage: Usage) -> tuple[int, ...]:
        needs = self.needs(usage)
        self.require_present(needs)
        return tuple(ranges(needs))

    def uses(self, usage: Usage, joins: set[int]) -> list[PackUse]:
        """Of each declared data pack in `usage`, how much of it is used. `joins`: packs of deltas to join."""
        out = []
        bases = {base for number in usage.packs for base in in_ranges(self._declaration(number).bases)}
        times = {each.sequence: each.entry.time for each in self.chain.entries}
        for number in usage.packs & self.chain.fold.packs.keys():
            state = self.chain.fold.packs[number]
            declaration = state.declaration
            if declaration.storage == names.META or not state.usable:
                continue
            used = round(declaration.size * usage.chunks(number) / declaration.chunks)
            if used < DENSE * declaration.size:  # chunks differ in size: only of these it matters how much it is
                opened = self._indexes.of(declaration).directory
                used = used_bytes(opened, declaration.size, usage.flags(number, opened.chunks))
            out.append(
                PackUse(number=number, size=declaration.size, used=used, written=times.get(state.declared_by, 0),
                        is_base=number in bases, joins=number in joins)
            )  # fmt: skip
        return out
