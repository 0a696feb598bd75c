"""`gateway ingest`: what happens around one pass over a source (`gateway.jobs.backup`)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import cached_property

from gateway.api import GenerationInfo, Progress, ProgressCallback, SourceIngest
from gateway.api import LeftOut as ShownLeftOut
from gateway.catalog import GenerationRow, GenerationState, MarkRow
from gateway.clock import milliseconds
from gateway.config.classes import HOT, INSTANT
from gateway.config.values import SourceConfig
from gateway.errors import Corrupt, IntegrityError, ObjectMissing, Overtaken
from gateway.format import log, names
from gateway.format.chunker import ChunkerParameters
from gateway.format.filelist import Item, LeftOutRecord
from gateway.jobs.anchors import Anchors
from gateway.jobs.backup import Backup, Tally
from gateway.jobs.backup_job import Job, RollCall, lines
from gateway.jobs.by_hand import ByHand
from gateway.jobs.changes import Carry, Changes, Decision, Raise, Read, Record, everything, members
from gateway.jobs.context import Context
from gateway.jobs.mending import Mending
from gateway.jobs.pace import LOOK_SECONDS, Pace
from gateway.jobs.retire import plan, planned
from gateway.jobs.runs import Run, remember
from gateway.jobs.views import generation_info
from gateway.model.entry import LeftOut, LeftOutReason
from gateway.model.ids import ChainName, generation_text
from gateway.policy.advice import of_reduction
from gateway.policy.rolling import NewestChain, reason_to_roll
from gateway.repository.chain import Chain, StorageClassFacts, complete_birth, create_chain
from gateway.repository.chunk_index import usable_packs
from gateway.repository.derive import missing_packs
from gateway.repository.fold import GenerationState as Folded
from gateway.repository.indexes import pack_key
from gateway.repository.lists import read_list
from gateway.repository.reader import ChainReader
from gateway.repository.retired import NOTHING, Retired
from gateway.repository.upload import forget_closed
from gateway.repository.writer import ChainWriter
from gateway.spool.completeness import Completeness
from gateway.spool.looks import FirstLook, compare, look
from gateway.spool.producers.choice import producers_of
from gateway.spool.walk import SpoolEntry, walk
from gateway.spool.watch import Watch

TRIES = 3
"""LIMIT: passes for one call when another writer got in between; more is an alarm, not bad luck."""


class Ingest:
    """One source, one call."""

    def __init__(
        self, context: Context, source: SourceConfig, *, seal_now: bool, new_chain: bool, operator: str,
        progress: ProgressCallback, watch: Watch | None = None, job: Job | None = None,
    ) -> None:  # fmt: skip
        """`watch`: what has settled is known already; `job`: the generation holds the members of one backup job."""
        self._context = context
        self._source = source
        self._seal_now = seal_now
        self._new_chain = new_chain
        self._operator = operator if seal_now else ""
        self._report = progress
        self._watch = watch if watch is not None and not watch.overflowed else None
        self._job = job
        self.stands: GenerationInfo | None = None
        """Where nothing was new: the generation that holds the job as it was sealed."""
        self.missing: tuple[str, ...] = ()
        """Where nothing was new: which of its files are not there as they were sealed, and why."""
        # A job holds its own files: that those of another are released is none of its business.
        rows = [] if self._of_job else context.catalog.released(source.name)
        self._released = frozenset(row.path for row in rows)
        self._looking: Pace | None = None
        self._sent = 0
        self._highest = 0
        self._seen: set[ChainName] = set()
        self._use_list = True
        self._mending: Mending | None = None
        self._held_back = Tally()
        """What a look for news that found none left out."""

    def run(self) -> SourceIngest:
        """Make the next generation, if there is anything new."""
        started = self._context.clock.monotonic()
        for left in reversed(range(TRIES)):
            try:
                return self._pass(started, use_list=True)
            except Overtaken as error:
                if not left:
                    raise
                self._context.log.error("chain.foreign_writer", source=self._source.name, problem=str(error))
        raise AssertionError("the last try returns or raises")

    # --- one pass ----------------------------------------------------------------------------------------------------

    def _pass(self, started: float, *, use_list: bool) -> SourceIngest:
        context, source = self._context, self._source
        begun = context.clock.now()
        # Chains that only this machine remembers count, too: the number of one that was deleted is not used again.
        remembered = [name for name in context.catalog.heads() if name.group == source.name]
        self._highest = max((name.number for name in (*context.chains_of(source.name), *remembered)), default=0)
        chains = context.refresh(source.name)
        self._seen = {chain.name for chain in chains}
        newest = chains[-1] if chains else None
        assert context.cache is not None
        for each in chains:
            forget_closed(each, context.catalog, context.cache)
        if newest is not None:
            self._note_missing(newest)
        before = self._previous(newest) if use_list else None
        self._mending = Mending.of(context.catalog, source, chains) if self._job is None else None
        looks = not self._seal_now and self._watch is None and not self._of_job
        first = look(source.path, context.scratch, context.clock) if looks else None
        try:
            expected = before is not None and newest is not None and not self._reason(newest) and self._expects_news()
            if not self._new_chain and not expected and not self._has_news(newest, before):
                return self._nothing(started)
            if first is not None:
                self._settle(first)
            chain, birth = self._chain(chains)
            self._use_list = use_list
            return self._generation(chain, before if chain is newest else None, first, begun, birth, started)
        except IntegrityError as error:
            if before is None or newest is None:
                raise
            if self._went_on(newest):
                raise Overtaken(
                    f"The log of {newest.name} went on while the generation before was read: {error}",
                    meaning="Another gateway expired that generation and swept it, or ended its chain.",
                ) from error
            # The list before only saves reading; without it, everything is read and what is missing is stored anew.
            context.log.error("list.damaged", source=source.name, problem=str(error))
            return self._pass(started, use_list=False)
        finally:
            if first is not None:
                first.close()

    def _went_on(self, chain: Chain) -> bool:
        """Whether somebody else has written to the log since, or ended the chain."""
        try:
            return self._context.open_chain(chain.name).head[0] > chain.head[0]
        except IntegrityError:
            return self._context.left_of_ended(chain.name) is not None

    def _note_missing(self, chain: Chain) -> None:
        """Packs that vanished from the store leave the index, so that this pass stores their chunks anew."""
        listed = chain.list_packs()
        wanted = set(usable_packs(chain.fold))
        now = milliseconds(self._context.clock.now())
        for number in missing_packs(chain, listed):
            if number in wanted and chain.writable:
                pack = chain.fold.packs[number].declaration
                if self._is_there(chain, pack):  # one listing that was not whole condemns nothing for ever
                    continue
                chain.append(  # refused where the log went on: then the pack may have been swept
                    log.DAMAGED,
                    log.Damaged(number, pack.pack_id, "not in the store, or with another size", now, 0),
                    self._context.writer,
                )
                self._context.log.error("pack.missing", chain=str(chain.name), pack=number)
                self._context.record(chain, listed)

    def _is_there(self, chain: Chain, pack: log.Declaration) -> bool:
        try:
            return self._context.repository.store.head(pack_key(chain, pack)).size == pack.size
        except ObjectMissing:
            return False

    def _previous(self, chain: Chain | None) -> Folded | None:
        """The newest generation of the chain whose list can be carried on from."""
        if chain is None or not chain.writable:
            return None
        usable = set(usable_packs(chain.fold))
        found = [
            state
            for state in chain.fold.generations.values()
            if state.committed
            and not state.expired
            and state.commit.source == self._source.name
            and set(state.commit.files.runs[::3]) <= usable
        ]
        return max(found, key=lambda state: state.commit.number, default=None)

    def _decisions(
        self, chain: Chain | None, before: Folded | None, first: FirstLook | None, reader: ChainReader | None,
        by_hand: ByHand, retired: Retired = NOTHING,
    ) -> tuple[Changes, Iterator[Decision]]:  # fmt: skip
        source, catalog = self._source, self._context.catalog
        usable = set(usable_packs(chain.fold)) if chain is not None else set[int]()
        items: Iterable[Item | LeftOutRecord] = ()
        if before is not None and reader is not None:
            items = read_list(before.commit.files, reader.fetch, f"file list of {source.name}@{before.commit.number}")
        # Without a list before (a new chain, a lost list), or of another generation (a kill behind the entry): all is
        # read, and what was read before need not settle again. The watch does not have it among what is pending.
        of_before = before is not None and catalog.known_generation(source.name) == before.commit.generation
        changes = Changes(
            source.path, usable=usable.issuperset,
            retired=lambda item: not retired.spent and retired.has_any(item.flat),
            held=self._held, growing=self._growing, released=self._released.__contains__,
            better=self._better(), enough=by_hand.enough, carry=self._job is None or not self._job.folder,
            of_before=of_before,
        )  # fmt: skip
        self._looking = Pace(self._context.clock, self._report, "looking", "entries", LOOK_SECONDS)
        entries = self._looking.over(walk(source.path))
        by_watch = self._watch is not None and not self._seal_now and not self._of_job
        looked = self._watch.looked(entries) if self._watch is not None and by_watch else compare(first, entries)
        if self._job is not None:
            items = self._job.as_before(items)
        wanted = self._job.holds if self._job is not None else everything
        return changes, changes.decide(members(looked, source, wanted), items, catalog.known_files(source.name))

    @property
    def _of_job(self) -> bool:
        """Whether the generation holds the members of one job and nothing else."""
        return self._job is not None and not self._job.everything

    def _held(self, entry: SpoolEntry) -> LeftOut | None:
        """What a pass before this one found wrong with the very same version; a person or a seal overrules it."""
        if self._watch is None or self._seal_now or self._of_job:
            return None
        return self._watch.still_held(entry)

    def _marks(self) -> Callable[[bytes], MarkRow | None]:
        """What is noted for a path. Nearly always few, so that they are read once and not file by file."""
        catalog, name = self._context.catalog, self._source.name
        known = catalog.marks(name)
        return known.get if known is not None else lambda path: catalog.mark(name, path)

    def _by_hand(self) -> ByHand:
        context, source = self._context, self._source
        return ByHand(
            context.catalog, source.name, self._marks(), minimum=source.minimum_evidence,
            operator=(self._operator or "an operator") if self._seal_now else "",
            now_ms=milliseconds(context.clock.now()),
        )  # fmt: skip

    def _better(self) -> Callable[[SpoolEntry, int], bool]:
        """Whether a mark says more of a version than it was read with: a seal that came after its generation."""
        mark = self._marks()

        def better(entry: SpoolEntry, evidence: int) -> bool:
            noted = mark(entry.path)
            return noted is not None and noted.evidence > evidence and noted.identity == entry.identity

        return better

    def _growing(self, entry: SpoolEntry) -> None:
        if self._watch is not None:
            self._watch.notice(entry)

    def _note_left_out(self, left: LeftOut) -> None:
        if self._watch is not None:
            self._watch.hold(left)

    def _expects_news(self) -> bool:
        """Whether the pass need not look for news before it begins: a walk of its own, which would end at a file that
        sorts last. Something settled that no generation has."""
        watch = self._watch
        if watch is None or self._of_job:
            return False
        return any(
            not each.again and each.held is None and watch.settled(path, each.identity)
            for path, each in list(watch.pending.items())
        )

    def _has_news(self, chain: Chain | None, before: Folded | None) -> bool:
        """Whether a pass would find anything to keep; stops at the first."""
        reader = self._context.reader(chain) if chain is not None and before is not None else None
        roll_call = RollCall(self._job) if self._job is not None else None
        empty, files, held, by_hand = True, 0, Tally(), self._by_hand()
        for decision in self._decisions(chain, before, None, reader, by_hand)[1]:
            empty = False
            if roll_call is not None:
                roll_call.take(decision)
            if isinstance(decision, LeftOut):
                if decision.reason is not LeftOutReason.RELEASED:  # that was there, and is protected
                    held.leave_out(decision)
                if self._mending is not None:
                    self._mending.left_out(decision)
            elif isinstance(decision, Carry):
                files += 1
            if isinstance(decision, Read | Raise) or (isinstance(decision, Record) and decision.news):
                return True
        by_hand.write()
        if empty and before is not None and before.commit.statistics.entries:
            self._context.log.warning(
                "source.empty", source=self._source.name, path=str(self._source.path),
                problem="Nothing is in it, though the generation before had files: is it mounted?",
            )  # fmt: skip
        self._held_back = held
        if roll_call is None:
            return self._mending is not None and self._mending.is_worth_a_generation(files)
        if roll_call.wants_its_own(before.commit if before is not None else None):
            return True
        self._answer_job(roll_call, before)
        return False

    def _answer_job(self, roll_call: RollCall, before: Folded | None) -> None:
        """Nothing was new: what that means for the job."""
        self.missing = tuple(lines(roll_call.missing()))
        if before is not None and roll_call.stands_in(before.commit):
            row = self._context.catalog.find_generation(self._source.name, generation_text(before.commit.generation))
            self.stands = generation_info(row, self._context.catalog)

    def _settle(self, first: FirstLook) -> None:
        """Wait until the settle time has passed since the first look."""
        total = round(self._source.settle.total_seconds())
        while (rest := first.wait_seconds(self._context.clock, self._source.settle)) > 0:
            self._report(Progress(phase="settling", done=max(0, total - round(rest)), total=total, unit="seconds"))
            self._context.clock.sleep(min(rest, 1.0))

    # --- the chain ---------------------------------------------------------------------------------------------------

    def _chain(self, chains: Sequence[Chain]) -> tuple[Chain, int]:
        """The chain to write to, and the bytes of its birth when it was just born."""
        context, source = self._context, self._source
        newest = chains[-1] if chains else None
        storage, reason = self._facts, self._reason(newest)
        self._new_chain = False  # whatever comes of this pass, the next one finds the chain
        for each in chains[:-1]:  # of another gateway that opened one at the same time
            self._close(each, "a later chain was opened")
        if newest is not None and not reason:
            if not newest.entries:
                complete_birth(newest)
                self._require_last(newest.name)
            return newest, 0
        if newest is not None:
            self._close(newest, reason)
        # After the highest that this pass has seen: a chain opened meanwhile by another gateway is a conflict.
        if self._highest >= names.HIGHEST:
            raise Corrupt(
                "has the highest number of a chain", address=names.chain_prefix(ChainName(source.name, self._highest)),
                meaning="No gateway counts so far: what lies there is foreign.", advice="Look at it, and delete it.",
            )  # fmt: skip
        name = ChainName(source.name, self._highest + 1)
        average = context.config.writer.chunk_average_bytes
        sizes = ChunkerParameters.of_average(average)
        triple = (sizes.minimum, sizes.average, sizes.maximum)
        local = context.local_log(name)
        assert local is not None
        chain, birth = create_chain(
            context.repository, name, storage, writer=context.writer, reason=reason, before=newest,
            data_chunks=triple, list_chunks=triple, local=local, seen_end=context.seen_end(name),
        )  # fmt: skip
        context.log.info("chain.opened", chain=str(name), storage=storage.name, reason=reason)
        self._require_last(name)
        return chain, birth

    def _close(self, chain: Chain, reason: str) -> None:
        if chain.writable:
            chain.append(log.CLOSE, log.Close(reason), self._context.writer)
            self._context.record(chain, chain.list_packs())

    def _require_last(self, name: ChainName) -> None:
        """Before the first entry of a chain: no other one was opened at the same time. `Overtaken`: it was.

        INVARIANT: generations of two chains never have one number. Whoever opens a chain looks for others when it has
        its key, and closes those below it before its first entry. Of two that are opened at once the lower one was born
        when the higher one looks, and is closed, which its writer meets; or its writer looks later, and finds the
        other's header.
        """
        for other in self._context.chains_of(name.group):
            if other == name or other in self._seen:
                continue
            if other.number < name.number:
                try:
                    self._context.open_chain(other)
                except IntegrityError:  # not born, or passed over as before
                    continue
            raise Overtaken(f"Chain {other} was opened beside {name}.", meaning="Another gateway has just opened it.")

    @cached_property
    def _facts(self) -> StorageClassFacts:
        return StorageClassFacts.of(self._context.config.class_named(self._storage()))

    def _reason(self, newest: Chain | None) -> str:
        """Why the next generation begins a chain; empty: it does not."""
        return reason_to_roll(
            _known(newest, self._highest) if newest is not None else None, self._facts.name, source=self._source.name,
            now=milliseconds(self._context.clock.now()), requested=self._new_chain,
        )  # fmt: skip

    def _storage(self) -> str:
        """The source's class; `hot` where the store has no classes to put a pack into, which is said."""
        wanted = str(self._source.storage_class)
        store = self._context.repository.store
        # In a directory everything is read at once, which is what "instant" promises.
        as_promised = wanted == INSTANT.name and store.url.startswith("file:")
        if wanted == HOT.name or store.knows_classes or as_promised:
            return wanted
        self._context.log.warning(
            "source.kept_hot", source=self._source.name, wanted=wanted,
            problem="The store has no storage classes: everything is kept as it is put there.",
        )  # fmt: skip
        return HOT.name

    # --- the generation ----------------------------------------------------------------------------------------------

    def _generation(
        self, chain: Chain, before: Folded | None, first: FirstLook | None, begun: datetime, birth: int, started: float
    ) -> SourceIngest:
        context, source, config = self._context, self._source, self._context.config
        generation = context.clock.random_bytes(16)
        indexes = context.indexes(chain)
        reader = ChainReader(chain, indexes, context.cache)
        assert context.cache is not None
        context.record(chain, chain.list_packs())
        retired = planned(context, chain, before, indexes)
        by_hand = self._by_hand()
        with contextlib.ExitStack() as afterwards, ChainWriter(
            chain, context.catalog, context.cache, indexes, sizes=config.writer, workers=config.limits.workers,
            uploaders=config.limits.uploaders, writer=context.writer, generation=generation,
            ids=context.chunk_ids(chain.name), sketches=context.sketches(chain.name), sent=self._note_sent,
            lists=self._use_list, before=before.commit.files if before is not None else None, retired=retired,
        ) as writer:  # fmt: skip
            changes, decisions = self._decisions(chain, before, first, reader, by_hand, retired)
            backup = Backup(
                context, source, writer, indexes, number=context.next_number(source.name),
                begun=milliseconds(begun), operator=self._operator, birth=birth, progress=self._note_read,
                anchors=Anchors(chain, source.name, before, reader, indexes, context.cache),
                completeness=Completeness(
                    source.path, source.marker, source.minimum_evidence, self._marks(), producers_of(source),
                    by_hand=by_hand.takes,
                ),
                left_out=self._note_left_out, before=before.commit if before is not None else None, job=self._job,
                mending=self._mending,
            )  # fmt: skip
            afterwards.callback(backup.close)
            commit = backup.run(decisions)
            if commit is None:
                if before is not None:
                    self._remember(before, before.commit.generation, backup, changes.outdated)
                if backup.roll_call is not None:
                    self._answer_job(backup.roll_call, before)
                return self._nothing(started, backup)
            by_hand.write()
            stored = writer.append(log.COMMIT, commit)
            context.record(chain, chain.list_packs())
            self._remember(before, generation, backup, changes.outdated)
            if self._released:  # where they went stands in the list now
                context.catalog.remove_released(source.name, self._released)
            plan(context, writer, commit, backup.usage)
        context.log.info("generation.committed", source=source.name, number=commit.number,
                         entry=stored.sequence, files=commit.statistics.files)  # fmt: skip
        advice = of_reduction(commit.statistics.new_raw, commit.statistics.stored_raw)
        if advice:
            context.log.warning("source.not_reducible", source=source.name, number=commit.number, advice=advice[0])
        row = context.catalog.find_generation(source.name, generation_text(generation))
        if row.state is not GenerationState.PROTECTED:
            context.log.warning("generation.incomplete", source=source.name, number=row.number, reasons=row.reasons)
        return self._made(started, backup, row, len(commit.packs))

    def _remember(self, before: Folded | None, generation: bytes, backup: Backup, outdated: list[bytes]) -> None:
        """Keep what the next pass needs to recognise what has not changed. Losing it costs reading, not data."""
        catalog, name = self._context.catalog, self._source.name
        if before is None or catalog.known_generation(name) != before.commit.generation:
            catalog.forget_known(name)
        catalog.update_known(name, generation, backup.known.files(), outdated)
        if self._job is not None and self._of_job:
            remember(catalog, name, Run(self._job.run, self._job.sealed_ms), generation, backup.known.files())
        if self._watch is not None:
            for known in backup.known.files():
                self._watch.taken(known.path, known.identity)

    # --- reports -----------------------------------------------------------------------------------------------------

    def _note_read(self, done: int) -> None:
        if self._looking is not None:
            self._looking.others_tell()
        self._report(Progress(phase="reading", done=done))

    def _note_sent(self, size: int) -> None:
        self._sent += size
        self._report(Progress(phase="uploading", done=self._sent))

    def _nothing(self, started: float, backup: Backup | None = None) -> SourceIngest:
        """No pass was made, or one (`backup`) that found nothing new: what either left out is named."""
        tally = backup.tally if backup else self._held_back
        return SourceIngest(
            source=self._source.name, held_back=shown_left_out(tally.left_out), bytes_read=backup.read if backup else 0,
            held_back_more=tally.more, seconds=self._seconds(started),
        )  # fmt: skip

    def _made(self, started: float, backup: Backup, row: GenerationRow, packs: int) -> SourceIngest:
        tally, statistics = backup.tally, row.statistics
        return SourceIngest(
            source=self._source.name, generation=generation_info(row, self._context.catalog),
            files_read=tally.read, files_unchanged=tally.carried,
            held_back=shown_left_out(tally.left_out),
            held_back_more=tally.more, bytes_read=statistics.read,
            new_bytes=statistics.new_raw, stored_bytes=row.stored_bytes, packs=packs, seconds=self._seconds(started),
        )  # fmt: skip

    def _seconds(self, started: float) -> float:
        return self._context.clock.monotonic() - started


def shown_left_out(left_out: list[LeftOut]) -> tuple[ShownLeftOut, ...]:
    return tuple(ShownLeftOut(path=left.path, reason=str(left.reason)) for left in left_out)


def _known(chain: Chain, highest: int) -> NewestChain:
    """What of a chain says whether it takes another generation. `highest`: the number of the last chain there is, born
    or not.

    When the upload of its oldest pack began say the store's own dates, of packs that no entry names yet, too, since the
    next generation may adopt them; and the log says when the ingest began.
    """
    header, fold = chain.header, chain.fold
    usable = set(usable_packs(fold))
    commits = [each.commit for each in fold.generations.values()]
    oldest = [
        each.begun
        for each in commits
        if any(pack.number in usable and pack.storage != names.META for pack in each.packs)
    ]
    oldest += [dated for number, dated in chain.dates.items() if number in usable or number not in fold.packs]
    return NewestChain(
        storage=header.storage, problem=_problem(chain, highest), created=header.created, steps=header.steps,
        hot_days=header.hot_days, chain_days=header.chain_days, oldest=min(oldest, default=0),
        longest=max((each.statistics.milliseconds for each in commits), default=0),
    )  # fmt: skip


def _problem(chain: Chain, highest: int) -> str:
    if chain.writable:
        return f"chain {highest} was begun after it" if highest > chain.name.number else ""
    return chain.problem or (
        "it has ended" if chain.ended else "it is closed" if chain.fold.closed else "unknown entries"
    )
