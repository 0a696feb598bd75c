"""Deleting packs that nothing needs: `gateway.policy.sweep` decides, this carries it out.

For each chain: its log read anew -> `condemn` appended, which fails when anything was written meanwhile, and then all
is decided again -> index deleted, then its pack. INVARIANT: no pack is deleted before a `condemn` of it stands, also
where no entry declares it: a writer just about to declare it finds that the log went on, and then its pack given up.
CRASH: after the entry, or between index and pack, the next sweep finds the pack condemned and still there.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from gateway import durable
from gateway.api import Progress, ProgressCallback, SweepReport, SweptObject
from gateway.catalog import GenerationKind, GenerationState
from gateway.clock import from_milliseconds, milliseconds
from gateway.config.classes import STANDARD
from gateway.config.retention import sweep_after
from gateway.errors import IntegrityError, NewerFormat, ObjectMissing, Overtaken, StoreDenied, StoreRefused
from gateway.format import log, names
from gateway.jobs.context import Context
from gateway.jobs.dates import store_date
from gateway.jobs.retain import TRIES, alarms_of, refresh
from gateway.model.ids import ChainName, ranges
from gateway.policy import sweep
from gateway.policy.hot import entered_at
from gateway.policy.retention import MOST_SKEW
from gateway.policy.sweep import Holder, Pack, SweepPlan, Unnamed, Verdict
from gateway.repository.chain import Chain, NeverBorn, delete_rest, pack_classes
from gateway.repository.ending import may_end, put_end
from gateway.repository.indexes import pack_key
from gateway.repository.upload import forget_closed, give_up
from gateway.store.port import ObjectFacts

NAMED = 1000
"""LIMIT: objects that a report names."""
CONDEMNED = 4096
"""LIMIT: packs that one entry condemns, each in some 20 bytes of the 1 MiB that an entry may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A chain as its log and the store's listings have it, and what that comes to."""

    chain: Chain
    plan: SweepPlan
    packs: dict[int, ObjectFacts]
    indexes: dict[int, str]


@dataclass(slots=True)
class _Tally:
    kept: int = 0
    kept_bytes: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    deleted: int = 0
    deleted_bytes: int = 0
    objects: list[SweptObject] = field(default_factory=list)
    more: int = 0
    ended: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Sweep:
    """Of one source's chains, or of all. For the owner of `state.dir`."""

    def __init__(self, context: Context, source: str | None, progress: ProgressCallback) -> None:
        self._context = context
        self._source = source
        self._report = progress
        self._tally = _Tally()
        self._date = store_date(context)
        self._required: dict[bytes, str] = {}

    def run(self, *, dry_run: bool) -> SweepReport:
        context, tally = self._context, self._tally
        started = context.clock.monotonic()
        refresh(context)
        self._required = self._still_required()
        for group in [self._source] if self._source is not None else context.groups():
            for name in context.chains_of(group):
                try:
                    self._chain(name, dry_run=dry_run)
                except (IntegrityError, NewerFormat) as error:
                    tally.problems.append(f"chain {name} was left alone: {error}")
                except (StoreDenied, StoreRefused) as error:  # a lock of the store's, or no right to delete
                    tally.problems.append(f"chain {name}: {error}")
            self._end(group, dry_run=dry_run)
        return SweepReport(
            dry_run=dry_run, kept=tally.kept, kept_bytes=tally.kept_bytes, waiting=tally.waiting,
            waiting_bytes=tally.waiting_bytes, deleted=tally.deleted, deleted_bytes=tally.deleted_bytes,
            objects=tuple(tally.objects), objects_more=tally.more, ended=tuple(tally.ended),
            problems=tuple(tally.problems), notes=(self._date.note,) if self._date.note else (),
            seconds=context.clock.monotonic() - started,
        )  # fmt: skip

    def _still_required(self) -> dict[bytes, str]:
        """Generations that a kept one requires, to any depth, and those a job reads; with why. They stay, expired or
        not.
        """
        rows = {row.generation: row for row in self._context.catalog.generations()}
        found = dict.fromkeys(self._context.held_by_jobs(), "which a restore job reads,")
        todo = [row for row in rows.values() if row.state is not GenerationState.EXPIRED or row.generation in found]
        while todo:
            row = todo.pop()
            for _, _, each in row.requires:
                if each not in found:
                    found[each] = f"which {row.source}@{row.number} requires,"
                    todo += [rows[each]] if each in rows else []
        return found

    # --- one chain ---------------------------------------------------------------------------------------------------

    def _chain(self, name: ChainName, *, dry_run: bool) -> None:
        found = self._look(name)
        if found is not None and not dry_run:
            assert self._context.cache is not None
            forget_closed(found.chain, self._context.catalog, self._context.cache)
            found = self._condemned(found)
        if found is None:
            return
        self._count(found, dry_run=dry_run)
        if not dry_run:
            try:
                self._delete(found)
            finally:
                self._context.record(found.chain, found.chain.list_packs())

    def _condemned(self, found: _Found) -> _Found | None:
        """The plan, with its entry in the log; another one where the log went on meanwhile."""
        for _ in range(TRIES - 1):
            try:
                self._condemn(found)
                return found
            except Overtaken:
                again = self._look(found.chain.name)
                if again is None:
                    return None
                found = again
        self._condemn(found)
        return found

    def _look(self, name: ChainName) -> _Found | None:
        """The log first, then the listings: what is declared between the two is too young to be deleted."""
        context = self._context
        try:
            chain = context.open_chain(name)
        except NeverBorn:
            return None
        except IntegrityError:
            if context.left_of_ended(name) is not None:
                context.forget(name)
                return None
            raise
        if chain.ended:
            return None
        if not chain.takes(log.CONDEMN) or chain.fold.undeclared():
            why = chain.problem or ("it has entries of a kind that this version does not know" if chain.fold.unknown
                                    else "a generation needs packs that no entry declares")  # fmt: skip
            self._tally.problems.append(f"chain {name} was left alone: {why}")
            return None
        packs, unnamed = self._listed(chain)
        store = context.repository.store
        ours = self._ours(chain)
        indexes: dict[int, str] = {}
        for facts in store.list_objects(names.index_prefix(name)):
            parsed = names.parse_index(facts.key.removeprefix(names.chain_prefix(name)))
            if parsed is None:
                continue
            state = chain.fold.packs.get(parsed[0])
            if state is not None and state.declaration.pack_id == parsed[1]:
                indexes[parsed[0]] = facts.key
            else:
                unnamed.append(_unnamed(facts, parsed, ours, chain))
        holders, frozen = list(self._holders(chain)), self._frozen(name.group)
        after = sweep_after(context.config.retention, name.group)
        known = list(self._packs(chain, packs, indexes))
        made = sweep.plan(known, holders, unnamed, now=self._date.now, sweep_after=after, frozen=frozen)
        locks = self._locks(chain, made)
        if locks:
            known = [_locked(each, locks.get(packs[each.number].key if each.number in packs else "")) for each in known]
            unnamed = [_locked(each, locks.get(each.key)) for each in unnamed]
            made = sweep.plan(known, holders, unnamed, now=self._date.now, sweep_after=after, frozen=frozen)
        return _Found(chain=chain, plan=made, packs=packs, indexes=indexes)

    def _locks(self, chain: Chain, made: SweepPlan) -> dict[str, ObjectFacts]:
        """What of that which would go now is under Object Lock. Listings do not say: one HEAD each."""
        found: dict[str, ObjectFacts] = {}
        for each in made.of(Verdict.CONDEMN) + made.of(Verdict.DELETE):
            key = each.key or pack_key(chain, chain.fold.packs[each.number].declaration)
            try:
                facts = chain.repository.store.head(key)
            except ObjectMissing:
                continue
            if facts.locked_until is not None or facts.legal_hold:
                found[key] = facts
        return found

    def _listed(self, chain: Chain) -> tuple[dict[int, ObjectFacts], list[Unnamed]]:
        """Pack objects by number, those that entries declare, and the others."""
        packs: dict[int, ObjectFacts] = {}
        unnamed: list[Unnamed] = []
        ours = self._ours(chain)
        for storage in _storages(self._context, chain):
            for facts in chain.repository.store.list_objects(names.pack_prefix(storage, chain.name)):
                parsed = names.parse_pack(facts.key)
                if parsed is None:
                    continue
                state = chain.fold.packs.get(parsed.number)
                if state is not None and pack_key(chain, state.declaration) == facts.key:
                    packs[parsed.number] = facts
                else:
                    unnamed.append(_unnamed(facts, (parsed.number, parsed.pack_id), ours, chain))
        return packs, unnamed

    def _ours(self, chain: Chain) -> set[tuple[int, bytes]]:
        """Packs that our next generation declares: none in a chain that is closed."""
        rows = [] if chain.fold.closed else self._context.catalog.ledger(chain.name)
        return {(row.number, row.pack_id) for row in rows}

    def _packs(self, chain: Chain, listed: dict[int, ObjectFacts], indexes: dict[int, str]) -> Iterable[Pack]:
        times = {each.sequence: from_milliseconds(each.entry.time) for each in chain.entries}
        for number, state in chain.fold.packs.items():
            facts = listed.get(number)
            stored = facts.modified if facts is not None else None
            storage = facts.storage_class if facts is not None else STANDARD
            of_class = state.declaration.storage == chain.header.storage
            yield Pack(
                number=number, size=state.declaration.size, declared=times[state.declared_by],
                bases=state.declaration.bases, condemned=state.condemned,
                there=facts is not None or number in indexes, stored=stored, storage_class=storage,
                entered=_entered(chain, storage, stored) if of_class and stored is not None else None,
            )  # fmt: skip

    def _holders(self, chain: Chain) -> Iterable[Holder]:
        expired = self._expired_at(chain)
        open_runs = any(not each.committed for each in chain.fold.generations.values())
        left = self._left_at(chain) if open_runs else None
        for each in chain.fold.generations.values():
            label = f"{each.commit.source}@{each.commit.number}"
            when = expired[each.commit.generation] if each.expired else None
            if not each.committed and when is None:
                when = left
            if when is not None and each.commit.generation in self._required and not chain.fold.is_gone(each):
                label, when = f"{label}, {self._required[each.commit.generation]}", None
            yield Holder(label=label, needs=each.commit.needs, expired=when)

    def _left_at(self, chain: Chain) -> datetime | None:
        """Since when nobody goes on with a run that was cut off in this chain: it is closed, and there is a generation
        of its source in a later one. None: that is not so.
        """
        rows = self._context.catalog.generations(chain.name.group)
        if not any(row.chain.number > chain.name.number and row.kind is GenerationKind.COMMIT for row in rows):
            return None
        closed = [each.entry.time for each in chain.entries if isinstance(each.entry.payload, log.Close)]
        return from_milliseconds(max(closed)) if closed else None

    def _expired_at(self, chain: Chain) -> dict[bytes, datetime]:
        """When generations expired: as the entry says or, if that is later, as the store dates it."""
        dates = {}
        for facts in chain.repository.store.list_objects(names.log_prefix(chain.name)):
            parsed = names.parse_chain(facts.key)
            sequence = names.parse_entry(parsed[1]) if parsed else None
            if sequence is not None and facts.modified is not None:
                dates[sequence] = facts.modified
        found: dict[bytes, datetime] = {}
        for each in chain.entries:
            if isinstance(each.entry.payload, log.Expire):
                said = from_milliseconds(each.entry.time)
                when = max(said, dates.get(each.sequence, said))
                found.update(dict.fromkeys(each.entry.payload.generations, when))
        return found

    def _frozen(self, source: str) -> str:
        if abs(self._date.skew) > MOST_SKEW:
            return "the clock differs from the store's by more than an hour"
        return next(iter(alarms_of(self._context, source)), "")

    # --- doing it ----------------------------------------------------------------------------------------------------

    def _condemn(self, found: _Found) -> None:
        chain, context = found.chain, self._context
        todo = {(number, chain.fold.packs[number].declaration.pack_id) for number in found.plan.condemning}
        todo |= {_named(each.key) for each in found.plan.of(Verdict.CONDEMN) if not each.number}
        while todo:
            # An entry names a number once; what no entry names may have the number of something else. The highest come
            # first: what is left behind a kill, or a hold in between, has all that it stands on.
            part: dict[int, bytes] = {}
            for number, pack_id in sorted(todo, reverse=True):
                if number not in part and len(part) < CONDEMNED:
                    part[number] = pack_id
            todo -= set(part.items())
            numbers = sorted(part)
            ids = tuple(part[number] for number in numbers)
            chain.append(log.CONDEMN, log.Condemn(tuple(ranges(numbers)), ids, "swept"), context.writer)
            context.log.info("packs.condemned", chain=str(chain.name), packs=len(part))

    def _delete(self, found: _Found) -> None:
        chain, store, context = found.chain, found.chain.repository.store, self._context
        gone: list[int] = []
        wanted = [each for each in found.plan.decisions if each.verdict in (Verdict.CONDEMN, Verdict.DELETE)]
        total = sum(each.size for each in wanted)
        try:
            for number in (each.number for each in wanted if each.number):
                state = chain.fold.packs[number]
                assert state.condemned
                if number in found.indexes:
                    with durable.effect("store:swept-index"):
                        store.delete(found.indexes[number])
                if number in found.packs:
                    with durable.effect("store:swept-pack"):
                        store.delete(found.packs[number].key)
                gone.append(number)
                if context.cache is not None:
                    context.cache.drop(chain.name, number, state.declaration.pack_id)
                self._deleted(state.declaration.size, total)
        finally:
            if gone:
                context.catalog.forget_proofs(chain.name, gone)
                context.log.info("packs.deleted", chain=str(chain.name), packs=len(gone))
        for each in wanted:
            if not each.number:
                assert _nobody_declares(_named(each.key), chain)
                with durable.effect("store:swept-unnamed"):
                    store.delete(each.key)
                context.log.info("object.deleted", key=each.key)
                self._deleted(each.size, total)

    def _deleted(self, size: int, total: int) -> None:
        self._tally.deleted += 1
        self._tally.deleted_bytes += size
        self._report(Progress(phase="deleting", done=self._tally.deleted_bytes, total=total))

    def _count(self, found: _Found, *, dry_run: bool) -> None:
        tally, chain = self._tally, found.chain
        for each in found.plan.decisions:
            match each.verdict:
                case Verdict.KEEP:
                    tally.kept += 1
                    tally.kept_bytes += each.size
                    continue
                case Verdict.WAIT:
                    tally.waiting += 1
                    tally.waiting_bytes += each.size
                case Verdict.CONDEMN | Verdict.DELETE:
                    if dry_run:
                        tally.deleted += 1
                        tally.deleted_bytes += each.size
            if len(tally.objects) >= NAMED:
                tally.more += 1
                continue
            key = each.key or pack_key(chain, chain.fold.packs[each.number].declaration)
            tally.objects.append(
                SweptObject(chain=str(chain.name), key=key, size=each.size, verdict=str(each.verdict),
                            reason=each.reason, until=each.until)
            )  # fmt: skip

    # --- the end of chains -------------------------------------------------------------------------------------------

    def _end(self, group: str, *, dry_run: bool) -> None:
        """Finish chains that hold nothing, the oldest first.

        Not the newest, nor one without a later generation: a source's numbers go on from those in the logs. Nor one
        after a chain that still keeps a generation: its log may say which files that one is the last to hold.
        """
        older: list[Chain] = []  # without a later generation so far
        for chain in self._from_oldest(group, dry_run=dry_run):
            over, generations = [], [each for each in chain.fold.generations.values() if each.committed]
            if chain.ended:
                over = [chain]
            elif generations:
                over, older = [each for each in older if may_end(each) and not self._left_in(each)], [chain]
            else:
                older.append(chain)
            for each in over:
                self._tally.ended.append(str(each.name))
                if not dry_run:
                    self._finish(each)
            if any(not each.expired for each in generations):
                return

    def _from_oldest(self, group: str, *, dry_run: bool) -> Iterator[Chain]:
        """The chains of a group, up to one that cannot be opened."""
        context = self._context
        for name in context.chains_of(group):
            try:
                yield context.open_chain(name)
            except IntegrityError as error:
                left = context.left_of_ended(name)
                if left is None and not isinstance(error, NeverBorn):
                    return
                if left and not dry_run:
                    self._take_back(name)

    def _left_in(self, chain: Chain) -> bool:
        """Whether packs or indexes are left, condemned or named by nobody."""
        store = chain.repository.store
        prefixes = [names.pack_prefix(storage, chain.name) for storage in _storages(self._context, chain)]
        return any(True for prefix in (*prefixes, names.index_prefix(chain.name)) for _ in store.list_objects(prefix))

    def _finish(self, chain: Chain) -> None:
        context = self._context
        if not chain.ended:
            put_end(chain, context.writer)
            ended = context.open_chain(chain.name)
            if not ended.ended:  # something else lies there: nothing more of the chain is touched
                self._tally.problems.append(f"chain {chain.name}: its end cannot be read")
                return
            context.record(ended, {})
            context.log.info("chain.ended", chain=str(chain.name))
        context.note_ended(chain.name)
        try:
            for _, _ in delete_rest(chain.repository.store, chain.name, _storages(context, chain)):
                self._report(Progress(phase="ending", done=len(self._tally.ended), unit="chains"))
        except (StoreDenied, StoreRefused) as error:
            self._tally.problems.append(f"chain {chain.name}: {error}")
            return
        self._forget(chain.name)

    def _take_back(self, name: ChainName) -> None:
        """What a writer that had not seen the end of a chain has sent behind it, and nobody can read."""
        store = self._context.repository.store
        try:
            for key, _ in delete_rest(store, name, list(pack_classes(store))):
                self._context.log.info("object.deleted", key=key)
        except (StoreDenied, StoreRefused) as error:
            self._tally.problems.append(f"chain {name}: {error}")
            return
        self._forget(name)

    def _forget(self, name: ChainName) -> None:
        """What this machine has of a chain that is finished. CRASH: what was sent to it is known until it is gone."""
        context = self._context
        assert context.cache is not None
        give_up(name, context.repository.store, context.catalog, context.cache)
        context.forget(name)
        for directory in (
            context.local_log(name), context.local_indexes(name), context.chunk_ids(name), context.sketches(name)
        ):  # fmt: skip
            if directory is not None and directory.is_dir():
                durable.remove_tree("ended-chain", directory)


_Lockable = TypeVar("_Lockable", Pack, Unnamed)


def _locked(each: _Lockable, facts: ObjectFacts | None) -> _Lockable:
    if facts is None:
        return each
    return replace(each, locked_until=facts.locked_until, legal_hold=facts.legal_hold)


def _unnamed(facts: ObjectFacts, named: tuple[int, bytes], ours: Container[tuple[int, bytes]], chain: Chain) -> Unnamed:
    return Unnamed(
        key=facts.key, size=facts.size, stored=facts.modified, ours=named in ours,
        condemned=_nobody_declares(named, chain),
    )  # fmt: skip


def _nobody_declares(named: tuple[int, bytes], chain: Chain) -> bool:
    """Whether no writer can still declare an object of that name: it was condemned, or the very number and id is that
    of a declared pack, which lies under another class. INVARIANT: an entry that condemned it would mean that pack.
    """
    owner = chain.fold.packs.get(named[0])
    return named in chain.fold.given_up or (owner is not None and owner.declaration.pack_id == named[1])


def _named(key: str) -> tuple[int, bytes]:
    """Number and id in the name of a pack or of an index."""
    pack = names.parse_pack(key)
    if pack is not None:
        return pack.number, pack.pack_id
    parsed = names.parse_chain(key)
    index = names.parse_index(parsed[1]) if parsed is not None else None
    assert index is not None
    return index


def _entered(chain: Chain, storage_class: str, stored: datetime) -> datetime:
    return from_milliseconds(entered_at(chain.header.steps, storage_class, milliseconds(stored)))


def _storages(context: Context, chain: Chain) -> list[str]:
    """Classes that packs of a chain may have in their names."""
    found = {names.META, "hot", chain.header.storage, *(each.name for each in context.config.classes)}
    return sorted(found | {state.declaration.storage for state in chain.fold.packs.values()})
