"""Restore jobs as a whole: made from a plan and a quote, approved, paused, cancelled, resumed, and run to their end.

Rows are written by whoever makes or runs a job, also beside a process that holds the lock on `state.dir`: a job has a
lock of its own, on its scratch directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path

import msgspec

from gateway import durable
from gateway.api import (
    JobInfo,
    LeftOut,
    Progress,
    ProgressCallback,
    RestorePlan,
    RestoreReport,
    RestoreState,
)
from gateway.catalog import (
    Catalog,
    GenerationRow,
    RestoreJobRow,
    RestoreOrder,
    RestorePackRow,
    RestorePlanned,
)
from gateway.clock import Clock, from_milliseconds, milliseconds
from gateway.config.prices import Tier
from gateway.config.units import size_text
from gateway.config.values import Config
from gateway.errors import (
    GatewayError,
    IntegrityError,
    LocalStateError,
    LockHeld,
    NotReady,
    OverBudget,
    UsageError,
)
from gateway.format.log import ListRoot
from gateway.jobs import terms
from gateway.jobs.context import GOING_ON, Context
from gateway.jobs.restore import Restore
from gateway.jobs.restore_job import RestoreRun
from gateway.jobs.spending import Spent
from gateway.jobs.staging import Scratch
from gateway.jobs.survey import Quoted, Survey, link_rate, price_list, quoted
from gateway.jobs.views import generation_info
from gateway.log import printable
from gateway.policy.patterns import Selection
from gateway.policy.prices import PackState
from gateway.policy.thaw import WAVE, Stage
from gateway.repository.cache import Cached
from gateway.repository.chain import Chain
from gateway.target.local import LocalTarget

WAITED_SECONDS = 1.0
"""LIMIT: between two looks at the clock while a job waits."""

FOLLOWED_SECONDS = 0.5
LOCK = ".lock"

Opened = tuple[Context, GenerationRow, Chain, ListRoot]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a caller asks of a restore; `what`: the generation in the caller's own words, for the audit log."""

    to: Path
    what: str = ""
    paths: tuple[bytes, ...] = ()
    overwrite: bool = False
    incomplete: bool = False
    tier: str = ""
    deadline: timedelta | None = None
    budget: Decimal | None = None
    operator: str = ""
    by_command: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What somebody makes of a job. `again`: what it thaws, and has to ask for again."""

    row: RestoreJobRow
    again: tuple[RestorePackRow, ...] = ()


class RestoreJobs:
    """`catalog` is one that can be written; `open_generation` opens what a row names."""

    def __init__(
        self, catalog: Catalog, config: Config, clock: Clock, open_generation: Callable[[str, bytes], Opened]
    ) -> None:
        self._catalog = catalog
        self._config = config
        self._clock = clock
        self._open = open_generation
        self._ready: dict[str, tuple[Opened, Restore]] = {}
        """Of jobs that were made or worked on here and go on: what was opened and read for them."""

    @property
    def _above(self) -> Decimal:
        return self._config.restore.approval_above

    # --- looking -----------------------------------------------------------------------------------------------------

    def all(self) -> list[JobInfo]:
        return [self.shown(row) for row in reversed(self._catalog.restores())]

    def find(self, text: str) -> RestoreJobRow:
        """By the beginning of an id. `UsageError`."""
        exactly = self._catalog.restore(text)
        if exactly is not None:
            return exactly
        found = [row for row in self._catalog.restores() if text and row.id.startswith(text)]
        if len(found) == 1:
            return found[0]
        raise UsageError(
            f'There is no restore job "{text}".' if not found else f'"{text}" begins the ids of {len(found)} jobs.',
            meaning="Nothing was changed.", advice="`gateway jobs` lists them.",
        )  # fmt: skip

    def shown(self, row: RestoreJobRow) -> JobInfo:
        prices, planned, done = price_list(self._config), row.planned, row.done
        spent = Spent(done.spent)
        amount = spent.amount(prices)
        stages: dict[str, int] = {}
        for each in self._catalog.restore_packs(row.id) if not row.state.ended else ():
            stages[str(each.stage)] = stages.get(str(each.stage), 0) + 1
        return JobInfo(
            id=row.id, state=row.state, generation=f"{row.source}@{row.number}",
            target=Path(os.fsdecode(row.order.target)), created=from_milliseconds(row.created),
            updated=from_milliseconds(row.updated), packs=planned.packs, bytes_done=done.written,
            bytes_total=planned.size, quote_usd=float(planned.amount) if planned.amount else None,
            spent_usd=None if amount is None else float(amount), requests=spent.requests, reason=row.reason,
            tier=planned.tier if planned.cold_packs else "", currency=planned.currency or "USD",
            quote_hours=planned.seconds / 3600 if planned.seconds >= 0 else None,
            deadline=from_milliseconds(row.order.deadline) if row.order.deadline else None, budget=row.order.budget,
            files_done=done.files, files_total=planned.files, left_out=len(done.left_out) + done.left_out_more,
            stages=tuple(sorted(stages.items())),
            phases=tuple((name, ms / 1000) for name, ms in sorted(done.phases.items())),
            next_look=from_milliseconds(row.wake) if row.wake and row.state.active else None,
            operator=row.order.operator, approved_by=planned.approved_by, problem=done.problem,
        )  # fmt: skip

    def report(self, row: RestoreJobRow, plan: RestorePlan | None = None) -> RestoreReport:
        """What a job came to."""
        done = row.done
        if plan is None:
            context, generation, _, _ = self._open(row.source, row.generation)
            planned = row.planned
            plan = RestorePlan(
                generation=generation_info(generation, context.catalog), files=planned.files, bytes=planned.size,
                packs=planned.packs, requests=planned.requests, fetch_bytes=planned.fetch_bytes,
                cold_packs=planned.cold_packs, cold_bytes=planned.cold_bytes, scratch_bytes=planned.scratch,
                chosen=planned.tier, waves=len(planned.ends) + 1,
            )  # fmt: skip
        return RestoreReport(
            plan=plan, target=Path(os.fsdecode(row.order.target)), dry_run=False, files=done.files, bytes=done.written,
            left_out=tuple(LeftOut(path=path, reason=reason) for path, reason in done.left_out),
            left_out_more=done.left_out_more, notes=done.notes,
            seconds=sum(ms for name, ms in done.phases.items()) / 1000, job=self.shown(row),
        )  # fmt: skip

    # --- making ------------------------------------------------------------------------------------------------------

    def plan(
        self, opened: Opened, wanted: Wanted, restore: Restore | None = None
    ) -> tuple[Survey, Quoted, RestorePlan]:
        """What it takes and costs. Asks for nothing but listings and facts."""
        context, row, chain, _ = opened
        restore = restore or self._restore(opened, wanted.paths, context.cache)
        rate = link_rate(self._config, self._catalog)
        survey = restore.survey(wanted.to, int(rate.bytes_per_second * WAVE.total_seconds()))
        offers = quoted(
            context, self._catalog, survey.packs, survey.wave_bytes(), len(chain.fold.packs), tier=wanted.tier,
            budget=wanted.budget, deadline=wanted.deadline,
        )  # fmt: skip
        plan = survey.plan(generation_info(row, context.catalog))
        return survey, offers, offers.shown(plan)

    def make(self, opened: Opened, wanted: Wanted) -> tuple[RestoreJobRow | None, RestorePlan]:
        """A job, which may begin at once, or waits for approval. `OverBudget`: no tier fits, and there is none.

        None: `state.dir` takes no note of it (full, or mounted read-only), and it needs none, since nothing is cold.
        """
        context, row, chain, _ = opened
        restore = self._restore(opened, wanted.paths, context.cache)
        survey, offers, plan = self.plan(opened, wanted, restore)
        restore.taken_from_store()  # what a plan reads is not the job's
        chosen = offers.chosen
        limited = wanted.budget is not None or wanted.deadline is not None or bool(wanted.tier)
        if chosen is None and (survey.cold or limited):
            raise _none_fits(offers, survey)
        assert chosen is not None or not survey.cold
        frozen = bool(survey.cold)
        self.tidy()
        self._require_space(survey)
        now = self._clock.now()
        # Jobs are listed in the order in which they were made.
        newest = max((each.created for each in self._catalog.restores()), default=0)
        created = max(milliseconds(now), newest + 1)
        amount, most = (chosen.amount, offers.most[chosen.tier]) if chosen is not None else (None, None)
        waits = (most is not None or frozen) and terms.needs_approval(RestorePlanned(), self._above, most)
        days = max(offers.days[chosen.tier], offers.days[Tier.STANDARD]) if chosen is not None else 0
        time = chosen.time if chosen is not None else None
        rate = link_rate(self._config, self._catalog)
        job = RestoreJobRow(
            id=self._clock.random_bytes(6).hex(), source=row.source, number=row.number, chain=chain.name,
            generation=row.generation,
            state=RestoreState.APPROVAL if waits else RestoreState.THAWING if frozen else RestoreState.REHYDRATING,
            created=created, updated=created,
            order=RestoreOrder(
                target=os.fsencode(os.path.abspath(wanted.to)), paths=wanted.paths, overwrite=wanted.overwrite,
                incomplete=wanted.incomplete, tier=wanted.tier, operator=wanted.operator,
                deadline=milliseconds(now + wanted.deadline) if wanted.deadline is not None else 0,
                budget="" if wanted.budget is None else str(wanted.budget), fresh=_is_empty(wanted.to),
                by_command=wanted.by_command,
            ),
            planned=RestorePlanned(
                files=survey.files, size=survey.size, packs=plan.packs, cold_packs=plan.cold_packs,
                cold_bytes=plan.cold_bytes, fetch_bytes=plan.fetch_bytes, requests=plan.requests,
                scratch=survey.scratch_bytes, tier=str(chosen.tier) if chosen is not None else "",
                amount="" if amount is None else str(amount), currency=chosen.currency if chosen is not None else "",
                seconds=-1 if time is None else int(time.total_seconds()), days=days,
                bytes_per_second=rate.bytes_per_second, ends=tuple(survey.waves.ends) if frozen else (),
                items=survey.items, most="" if most is None else str(most),
            ),
        )  # fmt: skip
        try:
            durable.make_directory("scratch-packs", self._scratch_root)
            self._catalog.put_restore(job, self._rows(job, survey) if frozen else ())
            self._catalog.audit(wanted.operator, "restore", created, f"job {job.id}: {wanted.what} to {wanted.to}")
        except LocalStateError as error:
            if frozen or waits:
                raise
            context.log.warning("restore.not_noted", problem=str(error))
            return None, plan
        if not frozen:
            self._ready[job.id] = opened, restore
        if waits:
            raise terms.approval_needed(job, self._above)
        return job, plan

    def _rows(self, job: RestoreJobRow, survey: Survey) -> list[RestorePackRow]:
        """Where every pack is at first. Of a thaw that goes on, the job that asked for it knows when and how."""
        others = self._catalog.other_thaws(job.id, job.chain)
        stages = {PackState.COLD: Stage.COLD, PackState.THAWING: Stage.THAWING}
        found = []
        for each in survey.packs:
            stage, other = stages.get(each.state, Stage.READY), others.get(each.number)
            found.append(RestorePackRow(
                number=each.number, stage=stage, wave=each.wave, last=each.last, size=each.size,
                storage_class=each.storage_class, ranges=each.ranges,
                tier=other.tier if other is not None and stage is Stage.THAWING else "",
                asked=(other.asked if other is not None else job.created) if stage is Stage.THAWING else 0,
                until=milliseconds(each.until) if each.until is not None and each.state is PackState.THAWED else 0,
            ))  # fmt: skip
        return found

    def _require_space(self, survey: Survey) -> None:
        needed = survey.scratch_bytes
        if not needed:
            return
        where = self._scratch_root
        while not where.exists():
            where = where.parent
        free = shutil.disk_usage(where).free
        if free < needed:
            raise LocalStateError(
                f"The restore needs {size_text(needed)} of scratch space, and {where} has {size_text(free)}.",
                meaning="Nothing was asked for and nothing was written.",
                advice="Set restore.scratch to a directory with more space, or restore fewer files with --path.",
            )

    # --- changing ----------------------------------------------------------------------------------------------------

    def approve(self, text: str, operator: str) -> RestoreJobRow:
        return self._change(text, partial(self._approved, operator=operator))

    def _approved(self, row: RestoreJobRow, operator: str) -> Change:
        if row.state is not RestoreState.APPROVAL:
            raise _not_so(row, "waits for no approval")
        planned = row.planned
        anew = self._anew(row, keep=True)
        if anew is None:  # nothing of it has to be asked for any more
            return self._begun(row, msgspec.structs.replace(planned, approved_by=operator))
        if terms.needs_approval(msgspec.structs.replace(planned, approved_by=operator), self._above, anew.amount):
            return Change(row=replace(row, planned=anew.unapproved))  # it waited too long
        planned = msgspec.structs.replace(anew.planned, most=planned.most, approved_by=operator)
        return self._begun(row, planned, anew.slower)

    def pause(self, text: str, operator: str) -> RestoreJobRow:
        def paused(row: RestoreJobRow) -> Change:
            if row.state is RestoreState.PAUSED:
                return Change(row=row)
            if not row.state.active:
                raise _not_so(row, "does not run")
            return Change(row=replace(row, state=RestoreState.PAUSED, reason=f"paused by {operator}", wake=0))

        return self._change(text, paused)

    def cancel(self, text: str, operator: str) -> RestoreJobRow:
        def cancelled(row: RestoreJobRow) -> Change:
            if row.state.ended:
                raise _not_so(row, "has ended already")
            return Change(row=replace(row, state=RestoreState.CANCELLED, reason=f"cancelled by {operator}", wake=0))

        # CRASH: what lies in the scratch directory then, and what somebody fetches just now, `tidy` removes.
        row = self._change(text, cancelled)
        self.tidy()
        return row

    def resume(self, text: str, *, deadline: timedelta | None, budget: Decimal | None, tier: str) -> RestoreJobRow:
        until = milliseconds(self._clock.now() + deadline) if deadline is not None else None

        def resumed(row: RestoreJobRow) -> Change:
            if row.state.ended:
                raise _not_so(row, "has ended already")
            if until is not None or budget is not None or tier:
                return self._by_terms(row, msgspec.structs.replace(
                    row.order, deadline=until if until is not None else row.order.deadline,
                    budget=str(budget) if budget is not None else row.order.budget, tier=tier or row.order.tier,
                ))  # fmt: skip
            if row.state is RestoreState.APPROVAL:
                raise _not_so(row, "waits for approval")
            return self._begun(row, row.planned)

        return self._change(text, resumed)

    def _by_terms(self, row: RestoreJobRow, order: RestoreOrder) -> Change:
        was, row = row.planned, replace(row, order=order)
        anew = self._anew(row, keep=False)
        if anew is None and row.state is RestoreState.APPROVAL:
            raise terms.approval_needed(row, self._above)
        if anew is None:
            return self._begun(row, was)
        if terms.needs_approval(was, self._above, anew.amount if was.approved_by else anew.most):
            return Change(row=replace(row, state=RestoreState.APPROVAL, reason="", wake=0, planned=anew.unapproved))
        # What was approved goes as far as it went.
        planned = msgspec.structs.replace(anew.planned, most=was.most) if was.approved_by else anew.planned
        return self._begun(row, planned, anew.slower)

    def _begun(self, row: RestoreJobRow, planned: RestorePlanned, again: tuple[RestorePackRow, ...] = ()) -> Change:
        """It goes on, and an engine may carry it out."""
        return Change(again=again, row=replace(
            row, state=RestoreState.THAWING if planned.cold_packs else RestoreState.REHYDRATING, reason="", wake=0,
            planned=planned, order=msgspec.structs.replace(row.order, by_command=False),
            done=msgspec.structs.replace(row.done, problem=""),
        ))  # fmt: skip

    def _change(self, text: str, decide: Callable[[RestoreJobRow], Change]) -> RestoreJobRow:
        """What somebody wants of a job, decided again where a runner, or somebody else, was faster. `ApprovalNeeded`:
        it waits for that now."""
        job = self.find(text).id
        while True:
            seen = self.find(job)
            change = decide(seen)
            if change.row is seen:
                return seen
            new = replace(change.row, updated=milliseconds(self._clock.now()))
            row = self._catalog.change_restore(seen, new, change.again)
            if row is not None and row.state is RestoreState.APPROVAL:
                raise terms.approval_needed(row, self._above)
            if row is not None:
                return row

    def _anew(self, row: RestoreJobRow, *, keep: bool) -> terms.Anew | None:
        """`OverBudget`: it cannot be done any more by its order."""
        if not row.planned.cold_packs:
            terms.require_time(row, self._clock.now())
            return None
        context, _, chain, _ = self._open(row.source, row.generation)
        return terms.quoted_anew(context, self._catalog, chain, row, keep=keep)

    # --- running -----------------------------------------------------------------------------------------------------

    def turn(self, job: str, progress: ProgressCallback) -> RestoreJobRow:
        """Do what can be done of a job now. `LockHeld`: somebody else does."""
        row = self.find(job)
        if not row.state.active:
            return row
        with self._alone(row):
            row = self.find(row.id)
            if not row.state.active:
                return row
            if row.id not in self._ready:
                self._ready[row.id] = self._reopened_or_failed(row)
            (context, generation, chain, _), restore = self._ready[row.id]
            scratch = Scratch(self._scratch(row), context.cache)
            run = RestoreRun(context, self._catalog, row, (generation, chain, restore), scratch, progress)
            row = run.turn()
            if not row.state.active:
                del self._ready[row.id]
        if row.state.ended:
            self.tidy()
        return row

    def _reopened_or_failed(self, row: RestoreJobRow) -> tuple[Opened, Restore]:
        try:
            return self._reopened(row)
        except (UsageError, IntegrityError) as error:  # it is not there any more, or cannot be read
            durable.remove_tree("scratch-packs", self._scratch(row))
            self._catalog.end_restore(replace(
                row, state=RestoreState.FAILED, reason=str(error), wake=0, updated=milliseconds(self._clock.now())
            ), row)  # fmt: skip
            raise

    def _reopened(self, row: RestoreJobRow) -> tuple[Opened, Restore]:
        opened = self._open(row.source, row.generation)
        if row.planned.cold_packs:
            return opened, self._restore(opened, row.order.paths, Scratch(self._scratch(row), opened[0].cache))
        restore = self._restore(opened, row.order.paths, opened[0].cache)
        restore.survey(Path(os.fsdecode(row.order.target)), sys.maxsize)  # what it reads of each pack
        return opened, restore

    def run(self, job: str, progress: ProgressCallback) -> RestoreJobRow:
        """To its end, or until it is paused. Waits as long as that takes, also while somebody else carries it out, an
        engine or another command."""
        while True:
            row = self.begin(job, progress)
            if not row.state.active:
                require_approved(row)
                return row
            self.wait(row)

    def begin(self, job: str, progress: ProgressCallback) -> RestoreJobRow:
        """One turn, or a short wait where somebody else does it."""
        try:
            return self.turn(job, progress)
        except LockHeld:
            self._clock.sleep(FOLLOWED_SECONDS)
            return self.find(job)

    def follow(self, job: str, progress: ProgressCallback) -> RestoreJobRow:
        """Wait until a job that somebody else carries out does not go on by itself any more, or nobody asks."""
        while (row := self.find(job)).state.active:
            packs = self._catalog.restore_packs(row.id)
            fetched = sum(each.stage is Stage.FETCHED for each in packs)
            if progress(Progress(phase=str(row.state), done=fetched, total=len(packs), unit="packs")) is False:
                break
            self._clock.sleep(FOLLOWED_SECONDS)
        return row

    def wait(self, row: RestoreJobRow) -> None:
        while (left := row.wake / 1000 - self._clock.now().timestamp()) > 0:
            self._clock.sleep(min(WAITED_SECONDS, left))
            now = self._catalog.restore(row.id)
            if now is None or not now.state.active or now.wake != row.wake:
                return

    def due(self) -> list[RestoreJobRow]:
        """Jobs that have something to do now, and are not some command's own."""
        now = milliseconds(self._clock.now())
        return [row for row in self._catalog.restores(_ACTIVE) if row.wake <= now and not row.alone]

    def _restore(self, opened: Opened, paths: Sequence[bytes], cache: Cached | None) -> Restore:
        context, row, chain, root = opened
        return Restore(context, row, chain, root, Selection(paths), _nothing, cache)

    # --- scratch -----------------------------------------------------------------------------------------------------

    @property
    def _scratch_root(self) -> Path:
        return self._config.restore.scratch or self._config.state.directory / "restore"

    def _scratch(self, row: RestoreJobRow) -> Path:
        return self._scratch_root / row.id

    def tidy(self) -> None:
        """Remove what jobs left in the scratch directory that have ended, or of which the catalog knows nothing. What
        cannot be removed stays: a disk for restores that fails is no reason to stop anything else.
        """
        try:
            # A job is noted before it has a directory: so the directories first.
            left = {each.removesuffix(LOCK) for each in os.listdir(self._scratch_root) if _is_job(each)}
        except OSError:
            return
        going_on = {row.id for row in self._catalog.restores(GOING_ON)}
        for job in sorted(left - going_on):
            with contextlib.suppress(LockHeld, LocalStateError):
                lock = durable.StateLock(self._scratch_root, f"{job}{LOCK}")
                try:
                    durable.remove_tree("scratch-packs", self._scratch_root / job)
                    durable.remove("scratch-packs", self._scratch_root / f"{job}{LOCK}")
                finally:
                    lock.release()

    @contextlib.contextmanager
    def _alone(self, row: RestoreJobRow) -> Iterator[None]:
        durable.make_directory("scratch-packs", self._scratch_root)
        lock = durable.StateLock(self._scratch_root, f"{row.id}{LOCK}")
        try:
            yield
        finally:
            lock.release()


_ACTIVE = tuple(each for each in RestoreState if each.active)


def _is_job(name: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{12}(\.lock)?", name) is not None


def _nothing(_: object) -> None:
    pass


def _none_fits(offers: Quoted, survey: Survey) -> GatewayError:
    return OverBudget(
        f"The restore was not begun: {offers.reason}.",
        meaning=f"{len(survey.cold):,} packs are cold. Nothing was asked of the store that costs money.",
        advice="Allow more time or more money, or see `gateway restore --dry-run`.",
    )


def _not_so(row: RestoreJobRow, what: str) -> UsageError:
    return UsageError(f"Restore job {row.id} {what}: it is {row.state}.", meaning="Nothing was changed.")


def _is_empty(path: Path) -> bool:
    try:
        with os.scandir(path) as found:
            return next(found, None) is None
    except OSError:
        return True


def require_approved(row: RestoreJobRow) -> None:
    """`ApprovalNeeded`: it waits for it."""
    if row.state is RestoreState.APPROVAL:
        raise terms.approval_needed(row)


def restore_unrecorded(jobs: RestoreJobs, opened: Opened, wanted: Wanted, progress: ProgressCallback) -> RestoreReport:
    """A restore where the catalog can be read and not written: at once, and only where nothing is cold."""
    survey, _, plan = jobs.plan(opened, wanted)
    if survey.cold:
        raise NotReady(
            f"{len(survey.cold):,} packs are cold, and the catalog cannot be written.",
            meaning="Nothing was written: a restore that waits for thaws is a job, which is noted there.",
            advice="Run the command as the user that the gateway runs as.",
        )
    context, row, chain, root = opened
    began = context.clock.monotonic()
    restore = Restore(context, row, chain, root, Selection(wanted.paths), progress)
    with LocalTarget(wanted.to, overwrite=wanted.overwrite, clock=context.clock) as target:
        done = restore.deliver(target, (0, survey.items), survey.size)
    left = tuple(LeftOut(path=e.path, reason=f"{e.reason}: {e.detail}") for e in done.left_out)
    return RestoreReport(
        plan=plan, target=wanted.to, dry_run=False, files=done.files + done.hardlinks, bytes=done.bytes,
        left_out=left, left_out_more=sum(count for _, count in done.left_out_counts) - len(left),
        notes=tuple(f"{printable(e.path)}: {e.what}: {e.detail}" for e in done.unset),
        seconds=context.clock.monotonic() - began,
    )  # fmt: skip
