"""One restore job, carried forward: what is due is asked for, looked at, fetched, written out; then it waits, or ends.

`turn` does all that can be done now and returns; it may be killed at any moment. docs/design/jobs.md has the states and
what a crash at each step leaves.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

import msgspec

from gateway.api import Progress, ProgressCallback, RestoreState
from gateway.catalog import Catalog, GenerationRow, RestoreDone, RestoreJobRow, RestorePackRow
from gateway.catalog.writes import batches
from gateway.clock import from_milliseconds, milliseconds
from gateway.config.prices import Tier, thaw_time
from gateway.errors import (
    GatewayError,
    IntegrityError,
    LocalStateError,
    NotReady,
    ObjectCold,
    ObjectMissing,
    OverBudget,
    StoreError,
    TargetError,
)
from gateway.jobs import terms
from gateway.jobs.context import Context
from gateway.jobs.restore import Restore
from gateway.jobs.spending import Spent
from gateway.jobs.staging import Scratch
from gateway.jobs.survey import (
    SOON,
    cached_packs,
    class_of_day_0,
    compared,
    measured_rate,
    places_of,
    price_list,
)
from gateway.log import printable
from gateway.policy import thaw
from gateway.policy.thaw import Stage, Waves
from gateway.repository.chain import Chain
from gateway.repository.indexes import pack_key
from gateway.store.port import ThawAnswer, ThawTier
from gateway.target.local import LocalTarget
from gateway.target.port import TargetReport

ASKERS = 8
ASKED_TOGETHER = 200
"""LIMIT: thaws between two notes in the catalog: so many may have to be looked at again after a kill."""
SHOWN = 1000
"""LIMIT: left-out files named in a report."""
REFUSALS = 3
"""LIMIT: turns in which nobody thaws Expedited before the job goes on in a slower tier."""
LATER = timedelta(minutes=1)
"""When to try again what the store refused for the moment."""


class _Halted(Exception):
    """Somebody paused or cancelled the job meanwhile."""


class _Later(Exception):
    """Nothing more can be done for the moment."""


class RestoreRun:
    """For one runner at a time: it holds the lock on the job's scratch directory."""

    def __init__(
        self,
        context: Context,
        catalog: Catalog,
        row: RestoreJobRow,
        opened: tuple[GenerationRow, Chain, Restore],
        scratch: Scratch,
        progress: ProgressCallback,
    ) -> None:
        self._context = context
        self._catalog = catalog
        self._row = row
        self._generation, self._chain, self._restore = opened
        self._scratch = scratch
        self._progress = progress
        self._spent = Spent(row.done.spent)
        self._prices = price_list(context.config)
        self._packs = {each.number: each for each in catalog.restore_packs(row.id)}
        self._began = context.clock.monotonic()
        self._restore.expect({each.number: each.ranges for each in self._packs.values()})

    # --- one turn ----------------------------------------------------------------------------------------------------

    def turn(self) -> RestoreJobRow:
        """All that can be done now. Errors are written to the row before they are raised."""
        if not self._row.state.active:
            return self._row
        self._waited()
        try:
            self._turn()
        except (_Halted, _Later):
            if self._row.state.ended:  # who cancelled it could not clear up behind us
                self._scratch.remove()
        return self._row

    def _turn(self) -> None:
        later = int(LATER.total_seconds() * 1000)
        try:
            self._work()
        except _Later as error:
            self._save(reason=str(error), wake=self._now_ms() + later)
        except (OverBudget, TargetError, LocalStateError, StoreError) as error:
            if self._row.alone:  # whoever asked hears of it at once, and asks again
                self._end(RestoreState.FAILED, error)
                raise
            if isinstance(error, StoreError):
                self._save(reason=str(error), wake=self._now_ms() + later)
                raise
            self._save(state=RestoreState.PAUSED, reason=str(error), wake=0, done=self._stopped(error))
            self._context.log.warning("restore.paused", job=self._row.id, reason=str(error))
            raise
        except (IntegrityError, NotReady) as error:
            self._end(RestoreState.FAILED, error)
            raise

    def _work(self) -> None:
        waves = Waves(0, list(self._row.planned.ends))
        total = len(waves.ends) + 1
        self._recover()
        while self._row.done.wave < total:
            wave = self._row.done.wave
            self._require_active()
            self._look()
            self._ask(wave)
            self._fetch(wave + 1)
            if self._missing(wave):
                if self._row.state is not RestoreState.THAWING:
                    self._save(state=RestoreState.THAWING)
                self._wait(wave)
                return
            self._deliver(wave, waves.window(wave, self._row.planned.items))
        self._finish()

    def _require_active(self) -> None:
        """`_Halted`: what somebody else wrote to the row stands."""
        now, seen = self._catalog.restore(self._row.id), self._row
        if now is None or (now.state, now.planned, now.order) != (seen.state, seen.planned, seen.order):
            self._save()

    # --- notes -------------------------------------------------------------------------------------------------------

    def _now_ms(self) -> int:
        return milliseconds(self._context.clock.now())

    def _save(self, packs: Iterable[RestorePackRow] = (), **changes: object) -> None:
        changed, seen = list(packs), self._row
        self._packs.update({each.number: each for each in changed})
        done = changes.pop("done", self._row.done)
        assert isinstance(done, RestoreDone)
        done = msgspec.structs.replace(done, spent=dict(self._spent.counts))
        self._row = replace(self._row, updated=self._now_ms(), done=done, **changes)  # type: ignore[arg-type]
        self._stand(self._catalog.carry_restore(seen, self._row, changed))

    def _stand(self, now: RestoreJobRow | None) -> None:
        """What the row is after a note; of somebody else's words `_Halted`, or `_Later` where it was to stop anyway."""
        if now is self._row:
            return
        if now is None:
            self._row = replace(self._row, state=RestoreState.CANCELLED)
            raise _Halted
        wanted, self._row = self._row.state, now  # paused, cancelled, or another tier, budget or deadline
        self._packs = {each.number: each for each in self._catalog.restore_packs(now.id)}
        if not now.state.active:
            raise _Halted
        if not wanted.active:
            raise _Later("The terms were changed.")

    def _phase(self, name: str) -> None:
        """The time since the last note of a phase belongs to this one."""
        now = self._context.clock.monotonic()
        phases = dict(self._row.done.phases)
        phases[name] = phases.get(name, 0) + round((now - self._began) * 1000)
        self._began = now
        self._row = replace(self._row, done=msgspec.structs.replace(self._row.done, phases=phases))

    def _waited(self) -> None:
        """The time since the turn before was one of waiting for thaws."""
        if self._row.wake and self._row.state is RestoreState.THAWING:
            phases = dict(self._row.done.phases)
            phases["thawing"] = phases.get("thawing", 0) + max(0, self._now_ms() - self._row.updated)
            self._row = replace(self._row, done=msgspec.structs.replace(self._row.done, phases=phases))

    def _stopped(self, error: GatewayError) -> RestoreDone:
        """For whoever only looks at the row: the same exit code as for whoever meets the error itself."""
        return msgspec.structs.replace(self._row.done, problem=type(error).__name__)

    def _end(self, state: RestoreState, error: GatewayError | None = None) -> None:
        # CRASH: the scratch directory goes first: a job that has not ended does so once more.
        self._require_active()
        self._scratch.remove()
        done = self._stopped(error) if error is not None else self._row.done
        done = msgspec.structs.replace(done, spent=dict(self._spent.counts))
        seen, reason = self._row, str(error) if error is not None else ""
        self._row = replace(self._row, state=state, reason=reason, wake=0, updated=self._now_ms(), done=done)
        self._stand(self._catalog.end_restore(self._row, seen))

    # --- asking ------------------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """What was being asked for when a runner was killed: the store says what became of it."""
        unknown = {each.number: each for each in self._packs.values() if each.stage is Stage.ASKING}
        if not unknown:
            return
        changed, now = [], self._context.clock.now()
        for seen in self._compared(list(unknown.values())):
            found, each = seen, unknown[seen.number]
            asked, tier = from_milliseconds(each.asked), Tier(each.tier)
            if found.stage is Stage.COLD and now < asked + timedelta(days=self._row.planned.days):
                changed.append(found)
                continue
            # What may have been asked for counts as paid.
            self._spent.thaw_requests(each.storage_class, tier, 1)
            self._pay(each, tier, asked)
            asks = each.asks + 1 if found.stage is not Stage.COLD else 0
            if found.stage is Stage.THAWING and each.asks:  # by which tier, nobody can say: once more by the faster
                found = replace(found, stage=Stage.COLD)
            changed.append(replace(found, asks=asks))
        self._save(changed)

    def _begin(self) -> datetime:
        if not self._row.done.since:
            self._save(done=msgspec.structs.replace(self._row.done, since=self._now_ms()))
        return from_milliseconds(self._row.done.since)

    def _due(self, wave: int) -> int:
        """The last wave that is to be asked for by now."""
        began, now = self._begin(), self._context.clock.now()
        return max([wave, *(at for at, start in enumerate(self._starts()) if began + start <= now)])

    def _starts(self) -> list[timedelta]:
        sizes = [0] * (len(self._row.planned.ends) + 1)
        for each in self._packs.values():
            sizes[each.wave] += each.fetch_bytes
        return thaw.starts(sizes, max(1, self._row.planned.bytes_per_second))

    def _ask(self, wave: int) -> None:
        if not self._packs:
            return
        due = self._due(wave)
        cold = [
            each for each in self._packs.values()
            if each.stage is Stage.COLD and (each.wave <= due or each.wave <= wave <= each.last)
        ]  # fmt: skip
        if not cold:
            return
        cold = self._shared(cold)
        compared_for: object = None
        for some in batches(sorted(cold, key=lambda each: (each.wave, each.number)), ASKED_TOGETHER):
            self._require_active()
            # What is asked for was the rest before: the sum is another one by other terms, and at another hour.
            now_for = self._row.planned, self._row.order, self._now_ms() // 60_000
            if now_for != compared_for:
                self._require_allowed(cold)
                compared_for = now_for
            self._ask_some(some, Tier(self._row.planned.tier))

    def _shared(self, cold: list[RestorePackRow]) -> list[RestorePackRow]:
        """Those that no other job has asked for already; of the others, what the store says. What is cold here and was
        asked for by this job thaws too slowly: that is no reason not to ask again."""
        others = self._catalog.other_thaws(self._row.id, self._chain.name)
        shared = [
            replace(each, stage=Stage.THAWING, asked=other.asked, tier=other.tier) if other is not None else each
            for each in cold
            if not each.asks and ((other := others.get(each.number)) is not None or self._is_old)
        ]
        if shared:
            self._compare(shared)
        return [each for each in cold if self._packs[each.number].stage is Stage.COLD]

    @property
    def _is_old(self) -> bool:
        """Whether so much time went by since the plan that others may have thawed what it found cold."""
        return self._now_ms() - self._row.created > SOON.total_seconds() * 1000

    def _ask_some(self, packs: Sequence[RestorePackRow], tier: Tier) -> None:
        now = self._context.clock.now()
        # CRASH: ASKING means that the request may have been sent; `_recover` looks before anything is asked again.
        by = {each.number: self._tier_of(each, tier) for each in packs}
        self._save([
            replace(each, stage=Stage.ASKING, tier=str(by[each.number]), asked=milliseconds(now)) for each in packs
        ])  # fmt: skip
        began = self._context.clock.monotonic()
        with ThreadPoolExecutor(ASKERS, thread_name_prefix="thaw") as pool:
            answers = list(pool.map(lambda each: self._thaw(each, by[each.number]), packs))
        took = self._context.clock.monotonic() - began
        self._context.clock.sleep(max(0.0, len(packs) / 300 - took))  # LIMIT: see policy.prices.REQUESTS_PER_SECOND
        changed, refused, failed = [], 0, None
        for each, answer in zip(packs, answers, strict=True):
            own = by[each.number]
            asked = replace(each, tier=str(own), asked=milliseconds(now))
            if isinstance(answer, StoreError):
                failed = answer
                continue  # stays ASKING
            if answer is not ThawAnswer.NO_CAPACITY:  # which costs nothing
                self._spent.thaw_requests(each.storage_class, own, 1)
            match answer:
                case ThawAnswer.STARTED:
                    self._pay(each, own, now)
                    changed.append(replace(asked, stage=Stage.THAWING, asks=each.asks + 1))
                case ThawAnswer.EXTENDED:
                    kept = thaw.kept(now, self._row.planned.days, timedelta())
                    self._spent.stands(each.size, int(kept.total_seconds()))
                    changed.append(replace(asked, stage=Stage.READY, asks=each.asks + 1))
                case ThawAnswer.RUNNING:
                    changed.append(replace(asked, stage=Stage.THAWING))
                case ThawAnswer.NEVER_COLD:
                    changed.append(replace(asked, stage=Stage.READY, asked=each.asked))
                case ThawAnswer.NO_CAPACITY:
                    refused += 1
                    changed.append(replace(each, stage=Stage.COLD))
        self._save(changed)
        self._context.log.info("restore.thaw_asked", job=self._row.id, packs=len(changed) - refused, tier=str(tier))
        if refused:
            self._refused(refused)
        if failed is not None:
            raise failed

    def _pay(self, pack: RestorePackRow, tier: Tier, now: datetime) -> None:
        found = thaw_time(self._prices, pack.storage_class, tier)
        kept = thaw.kept(now, self._row.planned.days, found.at_most if found else timedelta())
        self._spent.asked(pack.storage_class, tier, pack.size, int(kept.total_seconds()))

    def _tier_of(self, pack: RestorePackRow, tier: Tier) -> Tier:
        """A rule may have moved a pack into a class that has no such tier."""
        return tier if thaw_time(self._prices, pack.storage_class, tier) is not None else Tier.STANDARD

    def _thaw(self, pack: RestorePackRow, tier: Tier) -> ThawAnswer | StoreError:
        try:
            return self._chain.repository.store.thaw(
                self._key(pack.number), days=self._row.planned.days, tier=ThawTier(str(tier).capitalize())
            )
        except StoreError as error:
            return error

    def _refused(self, packs: int) -> None:
        """Nobody thaws Expedited just now: again a few times, then by the next tier, which costs less."""
        refused = self._row.done.refused + 1
        self._save(done=msgspec.structs.replace(self._row.done, refused=refused))
        self._context.log.warning("restore.no_capacity", job=self._row.id, packs=packs)
        if refused < REFUSALS:
            raise _Later("No capacity for expedited thaws.")
        note = f"There was no capacity for expedited thaws; {packs} packs were thawed by standard ones."
        planned = msgspec.structs.replace(self._row.planned, tier=str(Tier.STANDARD))
        done = msgspec.structs.replace(self._row.done, notes=(*self._row.done.notes, note))
        self._save(planned=planned, done=done)
        raise _Later(note)

    def _require_allowed(self, packs: Sequence[RestorePackRow]) -> None:
        """Before anything that costs money: what is spent, and what the rest still costs, is no more than it may be,
        and the deadline can be kept. `OverBudget`; `_Halted`: it waits for approval now.

        `packs`: that are asked for next. A later wave whose turn has come is asked for even if it comes too late: the
        job is on its way.
        """
        config, spent = self._context.config, self._spent.amount(self._prices)
        places = places_of(self._packs.values(), self._cached)
        rest = terms.rest(self._row.planned, places, self._prices, config, self._context.clock.now())
        amount = None if spent is None or rest is None else spent + rest
        terms.require_budget(self._row, amount)
        if any(each.wave == 0 or each.asked for each in packs):  # nothing was asked for yet, or it froze again
            time = terms.rest_time(self._row.planned, places, self._prices)
            terms.require_time(self._row, self._context.clock.now(), time)
        above = config.restore.approval_above
        if not terms.needs_approval(self._row.planned, above, amount):
            return
        rest = terms.rest_at_most(self._row.planned, places, self._prices, config, len(self._chain.fold.packs))
        planned = terms.unapproved(self._row.planned, amount, None if spent is None or rest is None else spent + rest)
        error = terms.approval_needed(replace(self._row, planned=planned), above)
        self._context.log.warning("restore.needs_approval", job=self._row.id, reason=error.what)
        self._save(state=RestoreState.APPROVAL, planned=planned, reason=str(error), wake=0, done=self._stopped(error))
        raise _Halted

    @cached_property
    def _cached(self) -> frozenset[int]:
        """Packs that are read from the pack cache, as far as this turn found them there."""
        cache = self._context.cache
        return cached_packs(cache, self._chain, self._packs.values()) if cache is not None else frozenset()

    # --- looking -----------------------------------------------------------------------------------------------------

    def _at_most(self, pack: RestorePackRow) -> timedelta:
        found = thaw_time(self._prices, pack.storage_class, Tier(pack.tier)) if pack.tier else None
        return found.at_most if found is not None else timedelta(hours=12)

    def _look(self) -> None:
        """Compare what is thawing, and what was thawed and is not fetched, with what the store says; when it is due."""
        if self._row.wake and self._now_ms() < self._row.wake:
            return
        now = self._context.clock.now()
        doubtful = [
            each for each in self._packs.values()
            if (each.stage is Stage.THAWING
            and from_milliseconds(each.asked) + self._at_most(each) / 2 <= now)
            or (each.stage is Stage.READY and each.until and from_milliseconds(each.until) - now < SOON)
        ]  # fmt: skip
        if doubtful:
            self._compare(doubtful)

    def _compare(self, packs: Sequence[RestorePackRow]) -> None:
        """Bring rows to what the store says."""
        self._save(self._compared(packs))

    def _compared(self, packs: Sequence[RestorePackRow]) -> list[RestorePackRow]:
        return compared(self._context, self._chain, packs, self._spent.looked, self._row.id)

    def _wait(self, wave: int) -> None:
        """Until when there is nothing to be done."""
        now = self._context.clock.now()
        moments = [
            thaw.next_look(from_milliseconds(each.asked), self._at_most(each), now)
            for each in self._packs.values()
            if each.stage is Stage.THAWING
        ]  # fmt: skip
        began = self._begin()
        moments += [began + start for at, start in enumerate(self._starts()) if at > wave and began + start > now]
        if any(each.stage in (Stage.COLD, Stage.ASKING) for each in self._missing(wave)):
            moments.append(now + LATER)
        self._phase("thawing")
        soonest = max(min(moments, default=now + LATER), now + timedelta(seconds=1))
        self._save(reason="", wake=milliseconds(soonest))

    # --- fetching ----------------------------------------------------------------------------------------------------

    def _missing(self, wave: int) -> list[RestorePackRow]:
        """What a wave needs and is not in the scratch directory."""
        return [e for e in self._packs.values() if e.wave <= wave <= e.last and e.stage is not Stage.FETCHED]

    def _fetch(self, up_to: int) -> None:
        ready = [
            each for each in self._packs.values()
            if each.stage is Stage.READY and each.wave <= up_to and each.last >= self._row.done.wave
        ]  # fmt: skip
        if not ready:
            return
        ready.sort(key=lambda each: (each.wave, each.number))
        began, bytes_before = self._context.clock.monotonic(), self._fetched_bytes()
        workers = self._context.config.limits.workers
        cold: StoreError | None = None
        with ThreadPoolExecutor(workers, thread_name_prefix="fetch") as pool:
            for some in batches(ready, 4 * workers):
                self._require_active()
                for each, outcome in zip(some, pool.map(self._fetch_one, some), strict=True):
                    fetched, requests, error = outcome
                    self._spent.read(each.storage_class, self._context.config.restore.via, requests, fetched)
                    if isinstance(error, ObjectCold):
                        self._context.log.warning("restore.frozen_again", job=self._row.id, pack=f"{each.number:08x}")
                        storage = self._chain.repository.store.head(self._key(each.number)).storage_class
                        self._save([replace(
                            each, stage=Stage.COLD, until=0, asks=0, asked=each.asked or self._now_ms(),
                            storage_class=storage,
                        )])  # fmt: skip
                    elif error is not None:
                        cold = error
                    else:
                        self._save([replace(each, stage=Stage.FETCHED)])
                self._tell_fetched()
                if cold is not None:
                    raise cold
        measured_rate(self._catalog, self._fetched_bytes() - bytes_before, self._context.clock.monotonic() - began)
        self._phase("fetching")

    def _fetched_bytes(self) -> int:
        return sum(each.fetch_bytes for each in self._packs.values() if each.stage is Stage.FETCHED)

    def _tell_fetched(self) -> None:
        total = sum(each.fetch_bytes for each in self._packs.values())
        self._progress(Progress(phase="fetching", done=self._fetched_bytes(), total=total))

    def _fetch_one(self, pack: RestorePackRow) -> tuple[int, int, StoreError | None]:
        """Bytes and requests it took, and what went wrong. What is damaged or lost is left to whoever reads it."""
        declaration = self._chain.fold.packs[pack.number].declaration
        cache = self._context.cache
        source = cache.find(self._chain.name, pack.number, declaration.pack_id) if cache is not None else None
        if source is not None and self._scratch.take(pack.number, source):
            return 0, 0, None
        requests = fetched = 0
        store, key = self._chain.repository.store, self._key(pack.number)

        def read(start: int, length: int) -> bytes:
            nonlocal requests, fetched
            requests += 1
            data = store.get(key, start=start, length=length)
            fetched += length
            return data

        try:
            opened = self._restore.indexes.opened(pack.number)
            self._scratch.fill(pack.number, pack.ranges, opened, read)
        except ObjectCold as error:
            return fetched, requests, error
        except StoreError as error:
            return fetched, requests, None if isinstance(error, ObjectMissing) else error
        except IntegrityError as error:
            self._context.log.error("restore.pack_damaged", job=self._row.id, key=key, problem=str(error))
        return fetched, requests, None

    def _key(self, number: int) -> str:
        return pack_key(self._chain, self._chain.fold.packs[number].declaration)

    # --- writing out -------------------------------------------------------------------------------------------------

    def _deliver(self, wave: int, window: tuple[int, int]) -> None:
        order, again = self._row.order, self._row.done.opened
        self._save(
            state=RestoreState.REHYDRATING, done=msgspec.structs.replace(self._row.done, opened=True), wake=0, reason=""
        )
        target = LocalTarget(
            Path(os.fsdecode(order.target)), overwrite=order.overwrite, clock=self._context.clock,
            again=again, own_directories=order.fresh,
        )  # fmt: skip
        self._restore.progress = self._progress
        try:
            with target:
                report = self._restore.deliver(target, window, self._row.planned.size)
        except ObjectCold:
            self._phase("rehydrating")
            self._froze(wave)
            return
        self._phase("rehydrating")
        self._account()
        gone = [each.number for each in self._packs.values() if each.last == wave]
        self._save(done=self._with(report, wave))
        for number in gone:
            self._scratch.drop(number)

    def _account(self) -> None:
        """What was read from the store while files were written: of packs that are not in the scratch directory."""
        for number, (requests, size) in self._restore.taken_from_store().items():
            row, declared = self._packs.get(number), self._chain.fold.packs[number].declaration
            storage = row.storage_class if row is not None else class_of_day_0(self._chain, declared.storage)
            self._spent.read(storage, self._context.config.restore.via, requests, size)

    def _with(self, report: TargetReport, wave: int) -> RestoreDone:
        done = self._row.done
        left = [(each.path, f"{each.reason}: {each.detail}") for each in report.left_out]
        kept = (*done.left_out, *left)[:SHOWN]
        total = len(done.left_out) + done.left_out_more + sum(count for _, count in report.left_out_counts)
        notes = tuple(f"{printable(each.path)}: {each.what}: {each.detail}" for each in report.unset)
        return msgspec.structs.replace(
            done, files=done.files + report.files + report.hardlinks, written=done.written + report.bytes,
            wave=wave + 1, opened=False, left_out=tuple(kept), left_out_more=total - len(kept),
            notes=(*done.notes, *notes)[:SHOWN],
        )  # fmt: skip

    def _froze(self, wave: int) -> None:
        """A pack went cold before it was read: all that this wave needs and has not is looked at."""
        if not self._packs:
            raise NotReady(
                "A pack that is needed went cold.", meaning="What was delivered is whole and stays.",
                advice="Run the restore again: it says what a thaw costs.",
            )  # fmt: skip
        lost = [
            replace(each, stage=Stage.READY)
            for each in self._packs.values()
            if each.wave <= wave <= each.last
            and not self._scratch.check(each.number, each.ranges, self._restore.indexes.opened(each.number))
        ]
        self._compare(lost)

    def _finish(self) -> None:
        left = len((done := self._row.done).left_out) + done.left_out_more
        self._end(RestoreState.PARTIAL if left else RestoreState.DELIVERED)
        self._context.log.info("restore.delivered", job=self._row.id, files=done.files, left_out=left)
