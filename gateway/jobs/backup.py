"""One pass over a spool: from looks to a committed generation.

    first look -> anything new? -> settle -> second look, merged with the list before ->
    files read by the workers, records kept in order -> packs proved -> older packs present -> entry -> catalog

CRASH: before the entry there is no generation, and the next pass adopts the packs; after it, the catalog's rows and
what is known of the files are made again from the store, at the cost of reading files once more.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec
from blake3 import blake3

from gateway import durable
from gateway.catalog import KnownFile
from gateway.clock import milliseconds
from gateway.config.values import SourceConfig
from gateway.errors import Corrupt, IntegrityError
from gateway.format import filelist, limits
from gateway.format.filelist import FileEntry, Item
from gateway.format.log import Commit, ListRoot, Statistics
from gateway.format.segment import Encoding
from gateway.jobs.anchors import Anchors
from gateway.jobs.backup_job import Job, Kit, RollCall, with_kit
from gateway.jobs.changes import Carry, Decision, Raise, Read, Record, base_entry
from gateway.jobs.context import Context
from gateway.jobs.known import KnownSpill
from gateway.jobs.mending import Mending
from gateway.jobs.reading import GivenReader, PinnedReader, Reading
from gateway.log import printable
from gateway.model.entry import EntryType, Identity, LeftOut, LeftOutReason
from gateway.model.ids import flatten, generation_text
from gateway.repository.bases import Fate
from gateway.repository.earlier import Earlier
from gateway.repository.indexes import PackIndexes
from gateway.repository.pipeline import Piece, Reader, SourceChanged, join
from gateway.repository.usage import Usage
from gateway.repository.writer import DECLARED, ChainWriter
from gateway.spool.completeness import Completeness
from gateway.spool.pin import NotPinned, Parents, pin
from gateway.spool.walk import SpoolEntry

EXTENT_BYTES = limits.DIGEST_PIECE_BYTES
EXTENT_FILES = 2048
LEFT_OUT_BYTES = 256 * 1024
"""LIMIT: of paths and details that an entry names as left out, so that it stays far below 1 MiB."""
WAITING_RECORDS = 20_000
"""LIMIT: records kept while an extent before them is being worked on, about 10 MiB."""


@dataclass(slots=True)
class Ready:
    """Records that only wait for those before them."""

    records: bytes
    path: bytes
    files: int = 0
    size: int = 0
    link_to: bytes = b""
    identity: Identity | None = None
    """Of a further name of a file."""


@dataclass(slots=True)
class Tally:
    """What is counted on the way for the commit and the report."""

    entries: int = 0
    files: int = 0
    bytes: int = 0
    data_bytes: int = 0
    read: int = 0
    carried: int = 0
    news: int = 0
    evidence: int = 0
    left_out_count: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    left_out_bytes: int = 0
    usage: Usage = field(default_factory=Usage)

    @property
    def more(self) -> int:
        """How many are left out beside those that are named."""
        return self.left_out_count - len(self.left_out)

    def data(self, data_bytes: int, evidence: int) -> None:
        """A file with data of its own."""
        self.data_bytes += data_bytes
        self.evidence = min(self.evidence or evidence, evidence)

    def leave_out(self, left: LeftOut) -> None:
        self.left_out_count += 1
        self.left_out_bytes += len(left.path) + len(left.detail)
        if len(self.left_out) < limits.LEFT_OUT_IN_ENTRY and self.left_out_bytes <= LEFT_OUT_BYTES:
            self.left_out.append(left)


class Backup:
    """Runs the second look of one source through a `ChainWriter`. One use."""

    def __init__(
        self,
        context: Context,
        source: SourceConfig,
        writer: ChainWriter,
        indexes: PackIndexes,
        *,
        number: int,
        begun: int,
        operator: str,
        birth: int,
        anchors: Anchors,
        completeness: Completeness,
        progress: Callable[[int], None],
        left_out: Callable[[LeftOut], None],
        before: Commit | None = None,
        job: Job | None = None,
        mending: Mending | None = None,
    ) -> None:
        """`birth`: bytes of the chain's own objects when it was born for this; `progress`: bytes read so far;
        `left_out` is told of every file that is not in the generation, of the worker's own thread; `before`: the
        generation that unchanged files are carried from; `mending`: the newest one is incomplete.
        """
        self._context = context
        self._source = source
        self._writer = writer
        self._indexes = indexes
        self._number = number
        self._begun = begun
        self._operator = operator
        self._birth = birth
        self._anchors = anchors
        self._completeness = completeness
        self._parents = Parents(source.path)
        self._progress = progress
        self._tell_left_out = left_out
        self._before = before
        self._job = job
        self._mending = mending
        self.roll_call = RollCall(job) if job is not None else None
        self._sizes = context.config.writer
        # Never more than an extent, whatever was configured: a digest is of pieces from there on.
        self._own_stream = min(self._sizes.own_stream_bytes, EXTENT_BYTES)
        self._started = context.clock.monotonic()
        self._checkpointed = self._started
        self._earlier = max(
            (
                state.commit.statistics.entries
                for state in writer.chain.fold.generations.values()
                if not state.committed and state.commit.source == source.name
            ),
            default=0,
        )
        self._waiting: deque[Ready | Reading] = deque()
        self._batch: list[Reading] = []
        self._batch_bytes = 0
        self._running: deque[Future[None]] = deque()
        self._told_of_damage = False
        self._failed_links: set[bytes] = set()
        self._links: dict[bytes, KnownFile] = {}
        """First names of files with several that were read: what is known of them holds for the others, too."""
        self.tally = Tally()
        self.known = KnownSpill(durable.ScratchFile(context.scratch))
        self.usage = Usage()
        """What the newest commit uses, bases included."""

    @property
    def read(self) -> int:
        """Bytes read so far."""
        return self._writer.counts().read

    # --- the pass ----------------------------------------------------------------------------------------------------

    def run(self, decisions: Iterable[Decision]) -> Commit | None:
        """Read what must be read and settle it all in the store; the commit to append, None when nothing was new."""
        for decision in with_kit(decisions, self._job):
            self._take(decision)
            if len(self._waiting) > WAITING_RECORDS:
                self._advance(wait=True)
            self._checkpoint_if_due()
        self._drain()
        own = self.roll_call is not None and self.roll_call.wants_its_own(self._before)
        own |= self._mending is not None and self._mending.is_worth_a_generation(self.tally.files)
        if not self.tally.news and not own:
            return None
        return self._commit(self._writer.settle(), complete=True)

    def close(self) -> None:
        """After the workers have ended: let go of every file that is still pinned, which a failed pass leaves so."""
        for each in self._waiting:
            if isinstance(each, Reading):
                each.close()
        self._parents.close()
        self.known.close()

    def _take(self, decision: Decision | Kit) -> None:
        # Of what is left out `_left_out` tells: it may turn out later, too.
        if self.roll_call is not None and not isinstance(decision, Kit | LeftOut):
            self.roll_call.take(decision)
        match decision:
            case Kit(entry=entry, data=data, evidence=evidence):
                ranges = [(0, len(data))] if data else []
                kit = Reading(entry, None, 0, False, False, evidence=evidence, ranges=ranges, given=data)
                self._waiting.append(kit)
                self._into_batch(kit, len(data))
            case Carry(item=item):
                self.tally.carried += 1
                self._waiting.append(Ready(item.raw, item.entry.path, 1, item.entry.size))
                self._count_item(item)
            case Raise():
                self._raise(decision)
            case Record(entry=entry, news=news, identity=identity, known=known):
                self.tally.news += news
                if known is not None:
                    self.known.add(known)
                records = filelist.encode_entry(entry, (), ())
                files = int(entry.kind == EntryType.FILE)
                self._waiting.append(Ready(records, entry.path, files, entry.size, entry.hardlink, identity))
            case LeftOut():
                self._waiting.append(self._left_out(decision))
            case Read():
                self._read(decision)

    def _raise(self, decision: Raise) -> None:
        """The same record with better evidence. Nothing is read but what tells of completeness; where that cannot be
        told now, the record stays as it is."""
        entry, item = decision.entry, decision.item
        evidence = 0
        with contextlib.suppress(NotPinned), pin(self._source.path, entry, parents=self._parents) as pinned:
            evidence = int(self._completeness.evidence(pinned))
        if evidence <= item.entry.evidence:
            self.tally.carried += 1
            self._waiting.append(Ready(item.raw, entry.path, 1, item.entry.size))
            self._count_item(item)
            return
        record = msgspec.structs.replace(item.entry, evidence=evidence)
        records = filelist.encode_entry(record, item.holes, item.runs, runs_per_record=self._sizes.runs_per_record)
        self._waiting.append(Ready(records, entry.path, 1, record.size))
        self.known.add(replace(decision.known, evidence=evidence))
        self.tally.carried += 1
        self.tally.news += 1
        self.tally.data(record.data_bytes, evidence)
        self.tally.usage.add(item.flat)

    def _count_item(self, item: Item) -> None:
        self.tally.data(item.entry.data_bytes, item.entry.evidence)
        self.tally.usage.add(item.flat)

    def _left_out(self, left: LeftOut) -> Ready:
        self.tally.leave_out(left)
        if self.roll_call is not None:
            self.roll_call.left_out(left)
        if self._mending is not None:
            self._mending.left_out(left)
        self._tell_left_out(left)
        return Ready(filelist.encode_left_out(left.path, str(left.reason), left.detail), left.path)

    # --- reading -----------------------------------------------------------------------------------------------------

    def _read(self, decision: Read) -> None:
        started = milliseconds(self._context.clock.now()) * 1_000_000
        reading = Reading(
            decision.entry, decision.before, started, decision.carry_on, decision.anew, known=decision.known,
            held_ns=decision.held_ns,
        )  # fmt: skip
        self._waiting.append(reading)
        if decision.entry.identity.size <= self._own_stream:
            self._into_batch(reading, decision.entry.identity.size)
            return
        try:
            pinned = reading.take(pin(self._source.path, decision.entry, parents=self._parents), self._completeness)
        except NotPinned as error:
            reading.pieces.append(Piece(_never, failed=_changed(error)))
            return
        data = sum(length for _, length in reading.ranges)
        if data <= self._own_stream:
            self._into_batch(reading, data)
            return
        self._flush_batch()
        earlier, (position,) = self._stream_before([reading], anchored=True)
        reading.submitting = True
        for number, ranges in enumerate(extents(reading.ranges, EXTENT_BYTES)):
            reader = PinnedReader(pinned, ranges, alone=False)
            at = position + number * EXTENT_BYTES if position >= 0 else -1
            piece = Piece(partial(_given, reader), at, reading.anew)
            reading.pieces.append(piece)
            reading.futures.append(self._submit([piece], earlier))
        reading.submitting = False

    def _into_batch(self, reading: Reading, size: int) -> None:
        if self._batch and (self._batch_bytes + size > self._sizes.extent_bytes or len(self._batch) >= EXTENT_FILES):
            self._flush_batch()
        self._batch.append(reading)
        self._batch_bytes += size

    def _flush_batch(self) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if not batch:
            return
        earlier, positions = self._stream_before(batch)
        for reading, position in zip(batch, positions, strict=True):
            reading.pieces.append(Piece(partial(self._open, reading), position, reading.anew))
        future = self._submit([reading.pieces[0] for reading in batch], earlier)
        for reading in batch:
            reading.futures.append(future)

    def _stream_before(self, batch: Sequence[Reading], *, anchored: bool = False) -> tuple[Earlier | None, list[int]]:
        """What files held in the generation before, as one stream, and where in it each begins; -1 for a new one. With
        `anchored`, in the generation that suits best.
        """
        parts = [(number, each.before) for number, each in enumerate(batch) if each.before is not None]
        parts = [(number, item) for number, item in parts if item.flat]
        positions = [-1] * len(batch)
        if not parts:
            return None, positions
        try:
            if anchored:
                parts = [(number, self._anchors.of(item)) for number, item in parts]
            earlier = Earlier([item.flat for _, item in parts], self._indexes)
        except IntegrityError as error:
            # It only tells what to compress against: `verify` is who looks for damage.
            if not self._told_of_damage:
                self._context.log.warning("index.damaged", source=self._source.name, problem=str(error))
            self._told_of_damage = True
            return None, positions
        for (number, item), start in zip(parts, earlier.part_starts, strict=False):
            positions[number] = start + item.entry.skip
        return earlier, positions

    def _open(self, reading: Reading) -> Reader:
        """In the worker: pin a small file when it is its turn."""
        if reading.given is not None:
            return GivenReader(reading.given)
        try:
            pinned = reading.pinned or reading.take(
                pin(self._source.path, reading.entry, parents=self._parents), self._completeness
            )
        except NotPinned as error:
            raise _changed(error) from error
        return PinnedReader(pinned, reading.ranges, alone=True)

    def _submit(self, pieces: list[Piece], earlier: Earlier | None) -> Future[None]:
        while len(self._running) >= 2 * self._context.config.limits.workers:
            self._running.popleft().result()
            self._advance(wait=False)
        future = self._writer.submit(pieces, earlier)
        self._running.append(future)
        return future

    # --- records, in order -------------------------------------------------------------------------------------------

    def _advance(self, *, wait: bool) -> None:
        """Move finished records into the list; with `wait`, at least half of what is waiting."""
        target = len(self._waiting) // 2 if wait else len(self._waiting)
        while self._waiting:
            first = self._waiting[0]
            if isinstance(first, Reading) and first.submitting:
                break
            if isinstance(first, Reading) and not first.futures and not first.failure:
                if not wait or len(self._waiting) <= target:
                    break
                self._flush_batch()
            if isinstance(first, Reading):
                if not (wait and len(self._waiting) > target) and not all(f.done() for f in first.futures):
                    break
                for future in first.futures:
                    future.result()
            self._waiting.popleft()
            self._emit(first)
        self._progress(self.read)

    def _drain(self) -> None:
        """Wait for everything and put all records into the list."""
        self._flush_batch()
        while self._waiting:
            first = self._waiting[0]
            if isinstance(first, Reading):
                for future in first.futures:
                    future.result()
            self._waiting.popleft()
            self._emit(first)
        self._running.clear()
        self._progress(self.read)

    def _emit(self, each: Ready | Reading) -> None:
        if isinstance(each, Reading):
            each = self._finished(each)
        elif each.link_to in self._failed_links:
            detail = "The file it is another name of was left out."
            each = self._left_out(LeftOut(path=each.path, reason=LeftOutReason.CHANGED, detail=detail))
        elif (first := self._links.get(each.link_to)) is not None and first.identity == each.identity:
            self.known.add(first.under(each.path))
        self.tally.entries += 1
        self.tally.files += each.files
        self.tally.bytes += each.size
        self._writer.files.add(each.records, each.path, files=each.files, size=each.size)

    def _finished(self, reading: Reading) -> Ready:
        entry, failure, pieces = reading.entry, reading.failure, list(reading.pieces)
        reading.close()
        if failure is not None and reading.anew and reading.before is not None:
            # It had not changed and was read for our own sake only: it stays in the generation as it was.
            self._recorded(entry)
            self._count_item(reading.before)
            return Ready(reading.before.raw, entry.path, 1, reading.before.entry.size)
        if failure is not None:
            self._failed_links.add(entry.path)
            cause = failure.__cause__
            changed = LeftOut(path=entry.path, reason=LeftOutReason.CHANGED, detail=str(failure))
            return self._left_out(cause.left_out if isinstance(cause, NotPinned) else changed)
        data_bytes = sum(piece.data_bytes for piece in pieces)
        if data_bytes != sum(length for _, length in reading.ranges):
            raise Corrupt(
                f"{data_bytes} bytes of it were read, not all", address=printable(entry.path),
                meaning="Its record would be wrong. Nothing of this generation is committed.",
                advice="This is a defect of the gateway: report it, with the log.",
            )  # fmt: skip
        runs = join([piece.runs for piece in pieces])
        record = msgspec.structs.replace(
            base_entry(entry, reading.xattrs),
            digest=digest([piece.digest for piece in pieces]),
            data_bytes=data_bytes,
            skip=pieces[0].skip if pieces else 0,
            evidence=int(reading.evidence),
        )
        if reading.given is None:
            self._recorded(entry)
            self.tally.read += 1
            known = KnownFile.of(
                entry.path, entry.identity, reading.started_ns, record.evidence, reading.held_since(record)
            )
            self.known.add(known)
            if entry.nlink > 1:
                self._links[entry.path] = known
        gaps, before = holes(reading.ranges, record.size), reading.before
        if before is not None and reading.carry_on and same_file(before.entry, record) and before.holes == gaps:
            self._count_item(before)
            return Ready(before.raw, entry.path, 1, record.size)
        records = filelist.encode_entry(record, gaps, runs, runs_per_record=self._sizes.runs_per_record)
        self.tally.data(data_bytes, record.evidence)
        self.tally.usage.add(flatten(runs))
        self.tally.news += 1
        return Ready(records, entry.path, 1, record.size)

    def _recorded(self, entry: SpoolEntry) -> None:
        if self.roll_call is not None:
            self.roll_call.recorded(entry.path, entry.identity)

    # --- entries -----------------------------------------------------------------------------------------------------

    def _checkpoint_if_due(self) -> None:
        minutes = (self._context.clock.monotonic() - self._checkpointed) / 60
        if self._writer.undeclared < self._sizes.checkpoint_packs and minutes < self._sizes.checkpoint_minutes:
            return
        # It takes the place of the newest checkpoint of an earlier run, so it must not be worth less than that, unless
        # very much is waiting to be declared.
        further = self.tally.entries + len(self._waiting) > self._earlier
        if not further and self._writer.undeclared < 2 * DECLARED:
            return
        self._drain()
        if self.tally.news:
            self.checkpoint(self._commit(self._writer.settle(), complete=False))
        self._checkpointed = self._context.clock.monotonic()

    def checkpoint(self, commit: Commit) -> None:
        """Make what was read so far findable after a crash, and restorable on request."""
        stored = self._writer.append("checkpoint", commit)
        self._context.record(self._writer.chain, self._writer.chain.list_packs())
        self._context.log.info("generation.checkpoint", source=self._source.name, number=self._number,
                               entry=stored.sequence, files=commit.statistics.files)  # fmt: skip

    def _commit(self, root: ListRoot, *, complete: bool) -> Commit:
        tally, counts, clock = self.tally, self._writer.counts(), self._context.clock
        stored = counts.stored
        self.usage = self._writer.close_over(tally.usage)
        needs = self._writer.needed_ranges(self.usage)
        problems, job = self._problems(complete=complete), self._job
        return Commit(
            generation=self._writer.generation,
            source=self._source.name,
            number=self._number,
            source_kind=str(self._source.kind),
            begun=self._begun,
            cut=milliseconds(clock.now()),
            evidence=tally.evidence,
            operator=self._operator,
            complete=int(complete and not problems),
            reasons=problems,
            packs=self._writer.declarations(),
            needs=needs,
            files=root,
            requires=job.requires if job is not None else (),
            left_out_count=tally.left_out_count,
            left_out=tuple((left.path, str(left.reason), left.detail) for left in tally.left_out),
            statistics=Statistics(
                entries=tally.entries, files=tally.files, bytes=tally.bytes, data_bytes=tally.data_bytes,
                read=counts.read, carried=tally.carried, new_raw=counts.new_raw, new_chunks=counts.new_chunks,
                known_chunks=counts.known_chunks, known_raw=counts.known_raw, stored_raw=stored[Encoding.RAW],
                stored_zstd=stored[Encoding.ZSTD], stored_delta=stored[Encoding.DELTA], birth=self._birth,
                milliseconds=round((clock.monotonic() - self._started) * 1000), delta_raw=counts.delta_raw,
                based=counts.fates[Fate.BASED], absent=counts.fates[Fate.ABSENT], bounded=counts.fates[Fate.BOUNDED],
                retired=counts.retired,
            ),
            jobs=(job.told,) if job is not None and job.told is not None else (),
        )  # fmt: skip

    def _problems(self, *, complete: bool) -> tuple[str, ...]:
        """Why a job's generation is incomplete; at a checkpoint, what is missing is still to come. INVARIANT: what it
        requires of its own chain is there when its entry is written, since the entry goes in only where the log still
        ends as it was folded. What it requires of others is asked for last of all, and held until the entry is there.
        """
        if self._job is None:
            return ()
        here, generations = self._writer.chain.name, self._writer.chain.fold.generations
        gone = [
            one
            for group, number, one in self._job.requires
            if (group, number) == (here.group, here.number) and (one not in generations or generations[one].expired)
        ]
        others = [each for each in self._job.requires if each[:2] != (here.group, here.number)]
        gone += [one for _, _, one in self._job.lost(others)] if complete else []
        missing = self.roll_call.missing() if complete and self.roll_call is not None else {}
        found = self._job.problems_of(self.tally.left_out, self.tally.left_out_count, missing)
        return (*found, *(f"{generation_text(one)}, which it requires, is not protected any more" for one in gone))


# --- small parts -----------------------------------------------------------------------------------------------------


def _given(reader: PinnedReader) -> PinnedReader:
    return reader


def _never() -> PinnedReader:
    raise AssertionError("a piece that failed before it was submitted is never read")


def _changed(error: NotPinned) -> SourceChanged:
    changed = SourceChanged(error.what)
    changed.__cause__ = error
    return changed


def digest(pieces: list[bytes]) -> bytes:
    """A file's digest from those of its pieces of 64 MiB (docs/format/data.md section 4)."""
    if not pieces:
        return blake3().digest()
    return pieces[0] if len(pieces) == 1 else blake3(b"".join(pieces)).digest()


def same_file(before: FileEntry, after: FileEntry) -> bool:
    """Whether a file read again is what it was, its holes aside: the digest does not tell where its data lie."""
    return before == msgspec.structs.replace(
        after, skip=before.skip, hole_records=before.hole_records, run_records=before.run_records
    )


def extents(ranges: Iterable[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    """Data ranges cut so that each group but the last has exactly `size` bytes."""
    group: list[tuple[int, int]] = []
    room = size
    for start, count in ranges:
        offset, length = start, count
        while length:
            take = min(length, room)
            group.append((offset, take))
            offset, length, room = offset + take, length - take, room - take
            if not room:
                yield group
                group, room = [], size
    if group:
        yield group


def holes(ranges: list[tuple[int, int]], size: int) -> tuple[int, ...]:
    """What of a file of `size` bytes is not in its data ranges: offset, length, ..."""
    out: list[int] = []
    at = 0
    for offset, length in ranges:
        if offset > at:
            out += [at, offset - at]
        at = offset + length
    if size > at:
        out += [at, size - at]
    return tuple(out)
