"""Checking what the repository holds against the store, in three depths.

presence: a listing; structure: logs, wraps, indexes and lists opened, all from the store and not from local copies;
data: every pack read, every chunk and file digest; packs that are cold, and what stands on them, are named and passed
over. What is found bad is written into the log (`damaged`), so that the
next ingest stores it anew from the spool; what was bad and is whole again is written there, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256

from blake3 import blake3

from gateway.api import Depth, Problem, ProblemKind, Progress, ProgressCallback, VerifyReport
from gateway.clock import milliseconds
from gateway.errors import Corrupt, IntegrityError, Missing, NewerFormat, ObjectCold, ObjectMissing
from gateway.format import directory, limits, log, names, slots
from gateway.format.filelist import Item
from gateway.format.keys import chunk_id
from gateway.format.log import Declaration
from gateway.jobs import strays
from gateway.jobs.backup import digest
from gateway.jobs.context import Context
from gateway.jobs.rebuild import problem_of, rolled_back
from gateway.log import printable
from gateway.model.entry import EntryType
from gateway.model.ids import ChainName, in_ranges
from gateway.repository.chain import Chain, NeverBorn, open_chain, read_wrap, wrap_keys
from gateway.repository.derive import Listed
from gateway.repository.fold import GenerationState
from gateway.repository.id_table import IdTable
from gateway.repository.indexes import PackIndexes, pack_key, pack_name
from gateway.repository.lists import read_list
from gateway.repository.reader import ChainReader
from gateway.repository.repository import chain_names
from gateway.repository.usage import Usage
from gateway.store.crc import crc64

READ_BYTES = 16 * 1024 * 1024
TRIES = 3
"""LIMIT: looks at a chain that somebody writes to meanwhile."""
SHOWN = 1000
"""LIMIT: problems named in a report."""


def run_now(write: Callable[[], bool]) -> bool:
    return write()


class _BaseCold(ObjectCold):
    """A pack could be read, and what it holds could not be decoded."""


@dataclass(slots=True)
class Tally:
    objects: int = 0
    bytes: int = 0
    requests: int = 0
    problems: list[Problem] = field(default_factory=list)

    def looked(self, objects: int, size: int = 0, requests: int = 0) -> None:
        self.objects += objects
        self.bytes += size
        self.requests += requests


class Verify:
    """One verification of all chains, or of one source's."""

    def __init__(
        self, context: Context, source: str | None, depth: Depth, progress: ProgressCallback,
        writing: Callable[[Callable[[], bool]], bool] = run_now,
    ) -> None:  # fmt: skip
        """`writing` runs what writes where writing is allowed: beside a worker, on the worker."""
        self._writing = writing
        self._context = context
        self._source = source
        self._depth = depth
        self._report = progress
        self._tally = Tally()
        self._done = 0
        self._total = 0

    # --- what it would take ------------------------------------------------------------------------------------------

    def plan(self) -> VerifyReport:
        """Objects, bytes and requests of the same run, from the catalog alone."""
        started = self._context.clock.monotonic()
        tally, catalog = self._tally, self._context.catalog
        for row in catalog.chains():
            if self._source in (None, row.source):
                packs = catalog.packs(row.chain)
                entries = row.head_sequence
                tally.looked(2 * len(packs) + entries + 3, 0, 3 + len(packs) // 500)
                if self._depth is not Depth.PRESENCE:
                    sealed = sum(pack.index_size for pack in packs)
                    lists = sum(pack.size for pack in packs if pack.storage == names.META)
                    tally.looked(0, sealed + lists, entries + 3 + 2 * len(packs))
                if self._depth is Depth.DATA:
                    size = sum(pack.size for pack in packs)
                    tally.looked(0, size, sum(-(-pack.size // READ_BYTES) for pack in packs))
        return self._shown(len(catalog.generations(self._source)), started, dry_run=True)

    # --- the run -----------------------------------------------------------------------------------------------------

    def run(self) -> VerifyReport:
        started = self._context.clock.monotonic()
        context = self._context
        # Before anything of this run is recorded: its own new entries are not in the logs that it reads.
        heads = [each for each in context.heads() if self._source in (None, each.chain.group)]
        problems = self._tally.problems
        problems += [problem_of(each, names.SLOTS) for each in context.repository.problems]
        opened: dict[ChainName, Chain] = {}
        generations, over = 0, set[ChainName]()
        names_found = self._chains()
        for name in names_found:
            known = context.catalog.chain_rows(name)
            try:
                chain = open_chain(context.repository, name, None)
            except NeverBorn as error:
                if known is not None:
                    problems.append(self._unopened(name, error))
                continue
            except IntegrityError as error:
                if context.left_of_ended(name) is not None:
                    over.update([name] if context.has_ended(name) else [])
                else:
                    problems.append(self._unopened(name, error))
                continue
            if known is not None:
                problems += strays.forgotten(known, chain)
            opened[name] = chain = self._chain(chain)
            generations += len(chain.fold.generations)
        problems += rolled_back(opened, heads, over)
        problems += strays.unlinked(opened, names_found)
        return self._shown(generations, started, dry_run=False)

    def _unopened(self, name: ChainName, error: IntegrityError) -> Problem:
        self._context.distrust(name, error)
        return problem_of(error, names.chain_prefix(name))

    def _chains(self) -> list[ChainName]:
        """Those of the store, and those that only the catalog knows."""
        known = {row.chain for row in self._context.catalog.chains()} | {each.chain for each in self._context.heads()}
        found = known | set(chain_names(self._context.repository.store))
        return sorted(name for name in found if self._source in (None, name.group))

    def _chain(self, chain: Chain) -> Chain:
        """Look at a chain; the chain as it was looked at. Others may write meanwhile: what looks wrong because they did
        is looked at once more, as it is then.
        """
        before = len(self._tally.problems)
        listed, bad, read = self._look(chain)
        for _ in range(TRIES - 1):
            if len(self._tally.problems) == before:
                break
            try:
                again = open_chain(self._context.repository, chain.name, None)
            except IntegrityError:
                break
            if again.head == chain.head and again.ended == chain.ended:
                break
            chain = again
            del self._tally.problems[before:]
            listed, bad, read = self._look(chain)
        self._write_down(chain, listed, bad, read)
        return chain

    def _write_down(self, chain: Chain, listed: Listed, bad: dict[int, str], read: set[int]) -> None:
        """Have the log say what was found. INVARIANT: never by an old look. A look takes hours, and the log goes on
        meanwhile; so what is at stake is looked at once more, alone, which takes a moment."""
        for left in reversed(range(TRIES)):
            if self._writing(partial(self._record, chain, listed, bad, read)) or not left:
                return
            healed = {number for number in read if chain.fold.packs[number].damaged}
            try:
                chain = open_chain(self._context.repository, chain.name, None)
            except IntegrityError:
                return
            listed = chain.list_packs()
            bad, read = self._once_more(chain, listed, sorted(bad.keys() | healed))

    def _once_more(self, chain: Chain, listed: Listed, numbers: list[int]) -> tuple[dict[int, str], set[int]]:
        """Which of these packs are bad, and which are whole, as the chain is now."""
        reader = ChainReader(chain, PackIndexes(chain, None), None)
        bad: dict[int, str] = {}
        read: set[int] = set()
        for number in numbers:
            pack = chain.fold.packs.get(number)
            if pack is None or pack.condemned:
                continue
            if listed.get(number) != (pack.declaration.pack_id, pack.declaration.size):
                bad[number] = "not in the store, or with another size"
                continue
            try:
                self._pack(chain, pack.declaration, reader)
                read.add(number)
            except IntegrityError as error:
                bad[number] = error.what
            except ObjectCold:
                continue
        return bad, read

    def _look(self, chain: Chain) -> tuple[Listed, dict[int, str], set[int]]:
        """What the store has of it, what is wrong with packs, and which were read and are whole."""
        tally = self._tally
        tally.problems += [problem_of(error, names.log_prefix(chain.name)) for error in chain.problems]
        listed = chain.list_packs()
        bad: dict[int, str] = {}
        read: set[int] = set()
        self._presence(chain, listed, bad)
        if self._depth is not Depth.PRESENCE:
            self._structure(chain, bad)
        if self._depth is Depth.DATA:
            read = self._data(chain, bad)
        return listed, bad, read

    def _presence(self, chain: Chain, listed: Listed, bad: dict[int, str]) -> None:
        self._tally.looked(len(chain.entries) + 1 + len(chain.fold.packs), 0, 3)
        indexes = {f.key: f.size for f in chain.repository.store.list_objects(names.index_prefix(chain.name))}
        for number, pack in chain.fold.packs.items():
            declaration = pack.declaration
            if pack.condemned:
                continue
            found = listed.get(number)
            if found is None:
                self._bad(
                    chain, declaration, bad, Missing("the pack is not there", address=pack_key(chain, declaration))
                )
            elif found != (declaration.pack_id, declaration.size):
                what = f"the pack has {found[1]} bytes, not {declaration.size}"
                self._bad(chain, declaration, bad, Corrupt(what, address=pack_key(chain, declaration)))
            key = names.index(chain.name, number, declaration.pack_id)
            if indexes.get(key) != declaration.index_size:
                error = Missing(
                    "the index is not there" if key not in indexes else "the index has another size", address=key
                )
                self._tally.problems.append(problem_of(error, key, self._users(chain, number)))
        wraps = dict(wrap_keys(chain.repository, chain.name))
        for wrap_id in sorted(set(wraps.values())) if not chain.ended else ():
            for key in (names.wrap(chain.name, wrap_id), names.second_wrap(chain.name, wrap_id)):
                if key not in wraps:
                    what = f"{key}: a copy of the wrap of the chain's key is not there"
                    self._tally.problems.append(Problem(kind=ProblemKind.MISSING, address=key, what=what))

    def _structure(self, chain: Chain, bad: dict[int, str]) -> None:
        store, tally = chain.repository.store, self._tally
        for key, wrap_id in wrap_keys(chain.repository, chain.name):
            try:
                wrap = read_wrap(chain.repository, chain.name, wrap_id, key)
                if wrap.kind == slots.MASTER:
                    slots.open_wrap(wrap, chain.repository.master, chain.header_digest, key)
            except IntegrityError as error:
                tally.problems.append(problem_of(error, key))
            except NewerFormat:
                continue  # not ours to open; its MAC is right
        for key in (names.header(chain.name), names.second_header(chain.name)):
            try:
                if sha256(store.get(key)).digest() != chain.header_digest:
                    raise Corrupt("is not the header that the chain's wraps name", address=key)
            except ObjectMissing:
                what = "a copy of the chain's header is not there"
                tally.problems.append(Problem(kind=ProblemKind.MISSING, address=key, what=what))
            except Corrupt as error:
                tally.problems.append(problem_of(error, key))
        indexes = PackIndexes(chain, None)
        for number, pack in chain.fold.packs.items():
            if pack.condemned or number in bad:
                continue
            key = names.index(chain.name, number, pack.declaration.pack_id)
            try:
                tally.looked(1, pack.declaration.index_size, 1)
                data = indexes.read(pack.declaration, from_store=True)
                opened = directory.open_index(data, pack_name(chain, pack.declaration), chain.keys, key)
                self._head_known(chain, opened.directory.head, key)
            except IntegrityError as error:
                tally.problems.append(problem_of(error, key, self._users(chain, number)))
        if not chain.ended:
            problems, heads = strays.undeclared(chain)
            tally.problems += problems
            for key, head in heads:
                self._head_known(chain, head, key)
        reader = ChainReader(chain, indexes, None)
        for state in _standing(chain):
            if not self._list(chain, state, reader, indexes):
                self._list_packs(chain, state, reader, bad)

    def _head_known(self, chain: Chain, head: directory.Head, key: str) -> None:
        """A pack proves that the entry its writer had folded existed."""
        digests = {0: chain.header_digest} | {e.sequence: e.digest for e in chain.entries}
        if not chain.ended and digests.get(head.sequence) != head.digest:
            address = names.entry(chain.name, head.sequence)
            self._tally.problems.append(
                Problem(kind=ProblemKind.ROLLED_BACK, address=address,
                        what=f"{key} was written after this entry, which is not in the log any more")
            )  # fmt: skip

    def _list_packs(self, chain: Chain, state: GenerationState, reader: ChainReader, bad: dict[int, str]) -> None:
        """Find out which packs are to blame for a list that cannot be read."""
        for number in in_ranges(state.commit.needs):
            pack = chain.fold.packs.get(number)
            if pack is None or pack.condemned or number in bad or pack.declaration.storage != names.META:
                continue
            try:
                self._pack(chain, pack.declaration, reader)
            except IntegrityError as error:
                self._bad(chain, pack.declaration, bad, error)

    def _list(self, chain: Chain, state: GenerationState, reader: ChainReader, indexes: PackIndexes) -> bool:
        """Read a generation's list; every run must lead into a directory that has its chunks."""
        commit = state.commit
        label = f"{commit.source}@{commit.number}"
        needs = set(in_ranges(commit.needs))
        try:
            self._list_closed(chain, commit, needs, f"file list of {label}")
            usage = Usage()
            for item in read_list(commit.files, reader.fetch, f"file list of {label}"):
                if not isinstance(item, Item):
                    continue
                address = f"{label}:{printable(item.entry.path)}"
                size = 0
                usage.add(item.flat)
                for run in item.runs:
                    if run.pack not in needs:
                        raise Corrupt(
                            f"refers to pack {run.pack:08x}, which its generation does not need", address=address
                        )
                    opened = indexes.opened(run.pack).directory
                    if run.first + run.count > opened.chunks:
                        raise Corrupt(f"refers to chunks that pack {run.pack:08x} does not have", address=address)
                    size += opened.span(run.first, run.count)
                if size < item.entry.data_bytes + item.entry.skip:
                    raise Corrupt("its runs hold too few bytes", address=address)
            packs = chain.fold.packs
            usage.close_over(
                lambda number: packs[number].declaration if number in packs else None,
                lambda number: indexes.opened(number).directory,
            )
            if missing := usage.packs - needs:
                raise _not_needed(missing, label)
        except IntegrityError as error:
            self._tally.problems.append(problem_of(error, f"file list of {label}", (label,)))
            return False
        return True

    def _list_closed(self, chain: Chain, commit: log.Commit, needs: set[int], address: str) -> None:
        """What a generation needs holds its list's packs, and those their bases lie in."""
        wanted = set(commit.files.runs[::3])
        for number in needs:
            pack = chain.fold.packs.get(number)
            if pack is not None and pack.declaration.storage == names.META:
                wanted.update(in_ranges(pack.declaration.bases))
        if missing := wanted - needs:
            raise _not_needed(missing, address)

    # --- data --------------------------------------------------------------------------------------------------------

    def _data(self, chain: Chain, bad: dict[int, str]) -> set[int]:
        """The packs that were read and are whole. INVARIANT: none that is cold is among them."""
        self._total += sum(pack.declaration.size for pack in chain.fold.packs.values() if not pack.condemned)
        indexes = PackIndexes(chain, None)
        reader = ChainReader(chain, indexes, None)
        read: set[int] = set()
        cold: set[int] = set()
        for number, pack in sorted(chain.fold.packs.items()):
            if pack.condemned or number in bad:
                continue
            try:
                self._pack(chain, pack.declaration, reader)
                read.add(number)
            except IntegrityError as error:
                self._bad(chain, pack.declaration, bad, error)
            except ObjectCold as error:
                cold.add(number)
                self._cold(chain, pack.declaration, error)
            self._done += pack.declaration.size
            self._report(Progress(phase="verifying", done=self._done, total=self._total))
        seen = IdTable()
        for state in _standing(chain):
            self._files(state, reader, bad, cold, seen)
        return read

    def _cold(self, chain: Chain, declaration: Declaration, error: ObjectCold) -> None:
        key = pack_key(chain, declaration)
        what = f"{key}: the pack is cold and was not read"
        if isinstance(error, _BaseCold):
            what = f"{key}: only its checksum was compared, since it stands on a pack that is cold"
        self._tally.problems.append(
            Problem(kind=ProblemKind.COLD, address=key, what=what, generations=self._users(chain, declaration.number))
        )

    def _pack(self, chain: Chain, declaration: Declaration, reader: ChainReader) -> None:
        """Read a pack from the store as a whole: checksum, directory against index, every frame, every chunk.

        `ObjectCold`: it is; `_BaseCold`: one that it stands on is, and its bytes are those that were declared.
        """
        key, store = pack_key(chain, declaration), chain.repository.store
        crc, data = 0, bytearray()
        try:
            for start in range(0, declaration.size, READ_BYTES):
                piece = store.get(key, start=start, length=min(READ_BYTES, declaration.size - start))
                self._tally.looked(0, len(piece), 1)
                crc = crc64(piece, crc)
                data += piece
        except ObjectMissing as error:
            raise Missing("the pack is not there", address=key) from error
        self._tally.looked(1)
        view = memoryview(data)
        cut = directory.cut_index(lambda start, length: bytes(view[start : start + length]), len(data), key)
        if sha256(cut).digest() != declaration.index_digest:
            raise Corrupt("its directory is not the one its declaration names", address=key)
        opened = directory.open_index(cut, pack_name(chain, declaration), chain.keys, key)
        reader.expect_all(declaration.number, opened.directory)
        id_key = chain.keys.list_id if declaration.storage == names.META else chain.keys.chunk_id
        at, base_cold = 0, False
        for segment in opened.directory.segments:
            frame = view[segment.offset : segment.offset + segment.size]
            try:
                raw = reader.decode(declaration.number, segment, opened, frame)
            except ObjectCold:
                base_cold, at = True, opened.directory.ends[segment.first + segment.chunks - 1]
                continue
            index, origin = segment.first, at
            while index < segment.first + segment.chunks:
                end = opened.directory.ends[index]
                if chunk_id(id_key, raw[at - origin : end - origin]) != opened.directory.chunk_id(index):
                    raise Corrupt(f"chunk {index} is not the one it should be", address=f"{key} frame {segment.number}")
                at, index = end, index + 1
        if crc != declaration.crc64 and not chain.fold.packs[declaration.number].adopted:
            raise Corrupt("checksum is not the one its declaration names", address=key)
        if base_cold:
            raise _BaseCold(key)

    def _files(
        self, state: GenerationState, reader: ChainReader, bad: dict[int, str], cold: set[int], seen: IdTable
    ) -> None:
        """The digest of every file, each version of a record once."""
        frozen = 0
        commit = state.commit
        label = f"{commit.source}@{commit.number}"
        if set(in_ranges(commit.needs)) & set(bad):
            self._tally.problems.append(
                Problem(kind=ProblemKind.CORRUPT, address=label, generations=(label,),
                        what="it needs packs that are missing or damaged")
            )  # fmt: skip
        items = read_list(commit.files, reader.fetch, f"file list of {label}")
        while True:
            try:
                item = next(items, None)
                if item is None:
                    break
                if isinstance(item, Item) and item.entry.kind == EntryType.FILE and not item.entry.hardlink:
                    known = blake3(item.raw).digest(16)
                    if seen.get(known) is None:
                        seen.add(known, 1, 0)
                        if item.packs & cold:
                            frozen += 1
                        elif not item.packs & set(bad):
                            self._file(item, reader, label)
            except ObjectCold:
                frozen += 1
            except IntegrityError as error:
                self._tally.problems.append(problem_of(error, label, (label,)))
                if not isinstance(error, Corrupt) or error.address.startswith("file list"):
                    break
        if frozen:
            what = f"{label}: {frozen:,} versions of files lie in packs that are cold and were not compared"
            self._tally.problems.append(Problem(kind=ProblemKind.COLD, address=label, what=what, generations=(label,)))

    def _file(self, item: Item, reader: ChainReader, label: str) -> None:
        hasher, digests, skip, left = blake3(), [], item.entry.skip, item.entry.data_bytes
        room = limits.DIGEST_PIECE_BYTES
        for data in reader.stream(item.runs):
            view = data[min(skip, len(data)) :][:left]
            skip -= min(skip, len(data))
            left -= len(view)
            while len(view) >= room:
                hasher.update(view[:room])
                digests.append(hasher.digest())
                view, hasher, room = view[room:], blake3(), limits.DIGEST_PIECE_BYTES
            hasher.update(view)
            room -= len(view)
        if room < limits.DIGEST_PIECE_BYTES:
            digests.append(hasher.digest())
        if left or digest(digests) != item.entry.digest:
            raise Corrupt("digest is not that of the file list", address=f"{label}:{printable(item.entry.path)}")

    # --- what was found ----------------------------------------------------------------------------------------------

    def _users(self, chain: Chain, number: int) -> tuple[str, ...]:
        return tuple(
            f"{state.commit.source}@{state.commit.number}"
            for state in chain.fold.generations.values()
            if number in set(in_ranges(state.commit.needs))
        )

    def _bad(self, chain: Chain, declaration: Declaration, bad: dict[int, str], error: IntegrityError) -> None:
        bad[declaration.number] = error.what
        key = pack_key(chain, declaration)
        self._tally.problems.append(problem_of(error, key, self._users(chain, declaration.number)))

    def _record(self, chain: Chain, listed: Listed, bad: dict[int, str], read: set[int]) -> bool:
        """Write what changed about packs into the log, and the catalog. False: the log went on, nothing is written."""
        now = milliseconds(self._context.clock.now())
        local = self._context.open_chain(chain.name)
        if local.head != chain.head:
            return False
        for number, pack in local.fold.packs.items() if local.takes(log.DAMAGED) else ():
            what = bad.get(number, "")
            healed = pack.damaged and not what and number in read
            if pack.condemned or not (healed or (what and not pack.damaged)):
                continue
            payload = log.Damaged(number, pack.declaration.pack_id, what[:500], now, 0 if what else 1)
            local.append(log.DAMAGED, payload, self._context.writer)
        self._context.record(local, listed)
        return True

    def _shown(self, generations: int, started: float, *, dry_run: bool) -> VerifyReport:
        tally = self._tally
        # What is named first is damage: thousands of packs may be cold.
        tally.problems.sort(key=lambda each: each.kind is ProblemKind.COLD)
        return VerifyReport(
            depth=self._depth, dry_run=dry_run, generations=generations, objects=tally.objects, bytes=tally.bytes,
            requests=tally.requests, problems=tuple(tally.problems[:SHOWN]),
            problems_more=max(0, len(tally.problems) - SHOWN), seconds=self._context.clock.monotonic() - started,
        )  # fmt: skip


def _standing(chain: Chain) -> list[GenerationState]:
    """All generations but those of which packs are condemned: nobody gets them back."""
    return [state for state in chain.fold.generations.values() if not chain.fold.is_gone(state)]


def _not_needed(missing: set[int], address: str) -> Corrupt:
    return Corrupt(f"stands on pack {min(missing):08x}, which its generation does not need", address=address)
