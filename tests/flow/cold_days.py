"""Days of a gateway on the simulated cold store: a database every night, files during the day, retention, sweeps,
restores that wait for thaws, and engines that die. What must hold is looked at every day.

Classes are those of a year in small: hot for 3 days, chains of 5 and 10 days, cold from day 15 on. Files come twice a
day, and every hour of each 20th.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from gateway import durable
from gateway.api import JobInfo, Reference, RestoreState
from gateway.catalog import Catalog, GenerationRow
from gateway.clock import from_milliseconds
from gateway.config.classes import BUILT_IN, ClassConfig
from gateway.config.retention import RetentionConfig, RetentionRules
from gateway.config.values import CacheConfig
from gateway.errors import GatewayError
from gateway.format import names
from gateway.jobs.restores import RestoreJobs
from gateway.model.ids import in_ranges
from gateway.policy.thaw import Stage
from gateway.store.bill import bill
from gateway.store.meter import Operation
from gateway.store.prices import default_prices
from tests.flow.gateways import KIB, Gateway
from tests.flow.trees import Source, Tree, noise, tree

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
HOT_DAYS = 3
COLD_AFTER = timedelta(days=16)
"""From then on there is something frozen."""
CLASSES = (
    ClassConfig(name="fast", steps=((0, "STANDARD"), (15, "GLACIER")), hot_days=HOT_DAYS, chain_days=5),
    ClassConfig(name="slow", steps=((0, "STANDARD"), (20, "DEEP_ARCHIVE")), hot_days=HOT_DAYS, chain_days=10),
)
RULES = RetentionRules(
    keep_last=3, keep_hourly=6, keep_daily=5, keep_weekly=4, keep_monthly=12, keep_yearly=2, minimum_generations=2,
    sweep_after=2 * DAY,
)  # fmt: skip
PERIODS: tuple[tuple[int, Callable[[datetime], tuple[int, ...]]], ...] = (
    (RULES.keep_hourly, lambda at: (at.year, at.month, at.day, at.hour)),
    (RULES.keep_daily, lambda at: (at.year, at.month, at.day)),
    (RULES.keep_weekly, lambda at: at.isocalendar()[:2]),
    (RULES.keep_monthly, lambda at: (at.year, at.month)),
    (RULES.keep_yearly, lambda at: (at.year,)),
)
TIERS = {"src": ("standard", "standard", "bulk", "expedited"), "files": ("standard", "standard", "bulk")}
PAGES = 320
FILES_A_DAY, HOURLY_EVERY = 2, 20
CRASH_SHARE = 0.25
FIRST_EFFECTS = 80


class Dead(BaseException):
    """The process was killed here."""


@dataclass(slots=True)
class Days:
    """`wrong`: what did not hold, with its day. `of_restores`: the places in the store's log of what restores asked for
    where nobody died, `spent` what their ledgers came to meanwhile; `shaken`: what they came to where somebody did."""

    gateway: Gateway
    seed: int
    wrong: list[str] = field(default_factory=list)
    day: int = 0
    crashes: int = 0
    effects: dict[str, int] = field(default_factory=dict)
    restored: int = 0
    thawed: int = 0
    born: dict[tuple[str, int], datetime] = field(default_factory=dict)
    trees: dict[tuple[str, int], Tree] = field(default_factory=dict)
    running: dict[str, tuple[Any, Tree]] = field(default_factory=dict)
    ended: list[JobInfo] = field(default_factory=list)
    of_restores: list[tuple[int, int]] = field(default_factory=list)
    spent: Decimal = Decimal(0)
    shaken: Decimal = Decimal(0)
    of_plans: list[tuple[int, int]] = field(default_factory=list)
    chance: random.Random = field(init=False)
    files: Source = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        gateway = self.gateway
        gateway.change(storage_class="fast")
        self.files = gateway.add_source("files")
        database, files = gateway.config.sources
        gateway.config = replace(
            gateway.config, repository=replace(gateway.config.repository, region="us-east-1"),
            classes=(*BUILT_IN, *CLASSES), sources=(database, replace(files, storage_class="slow")),
            restore=replace(gateway.config.restore, link=1 << 40), cache=CacheConfig(max_bytes=2 * KIB * KIB),
            retention=tuple(RetentionConfig(sources=(name,), rules=RULES) for name in ("src", "files")),
        )  # fmt: skip
        gateway.checked = False
        gateway.engine.lifecycle_apply()
        gateway.source.write("base/1", noise(self.seed, PAGES * KIB))

    # --- what happens -------------------------------------------------------------------------------------------------

    def run(self, days: int, go_on: Callable[[], bool] = lambda: True) -> None:
        """So many days, while `go_on`."""
        make = RestoreJobs.make

        def noted(jobs: RestoreJobs, *arguments: Any) -> Any:
            begin = self._logged
            try:
                return make(jobs, *arguments)
            finally:
                self.of_plans.append((begin, self._logged))

        RestoreJobs.make = noted  # type: ignore[method-assign]
        try:
            while self.day < days and go_on():
                self.one_day()
            self.finish()
        finally:
            RestoreJobs.make = make  # type: ignore[method-assign]
            durable.install_hook(None)

    def one_day(self) -> None:
        self.day += 1
        gateway, start = self.gateway, self.gateway.clock.now()
        self._change_database()
        self._twice("ingest src", lambda: self._ingest("src"))
        parts = 24 if self.day % HOURLY_EVERY == 0 else FILES_A_DAY
        for part in range(parts):
            name = f"{self.chance.randrange(6)}"
            self.files.write(name, noise(self.chance.randrange(1 << 30), self.chance.randrange(1, 160) * KIB))
            self._twice("ingest files", lambda: self._ingest("files"))
            if part == 0:
                self._twice("restore", self._begin_restore)
            gateway.clock.advance(14 * HOUR / parts)
            self._turn()
        self._twice("retain", self._retain)
        self._twice("sweep", self._sweep)
        self._look()
        gateway.clock.advance(start + DAY - gateway.clock.now())

    def finish(self) -> None:
        """All jobs come to their end."""
        for _ in range(20):
            if not self.running:
                break
            self.gateway.clock.advance(7 * HOUR)
            self._turn()
        for job in self.running:
            self._say(f"restore job {job} never ended: {self.gateway.engine.job(job)}")
        metered = self.metered()
        if abs(metered - self.spent) > metered / 100:
            self._say(f"restores: the ledger has {self.spent}, the store bills {metered}")

    def _say(self, what: str) -> None:
        self.wrong.append(f"seed {self.seed} day {self.day}: {what}")

    def _twice(self, what: str, act: Callable[[], Any]) -> None:
        """First it may die, then it is done."""
        self._maybe_dies(what, act)
        self._done(what, act)

    def _done(self, what: str, act: Callable[[], Any]) -> None:
        effects = 0

        def hook(*_: str) -> None:
            nonlocal effects
            effects += 1

        durable.install_hook(hook)
        try:
            act()
        finally:
            durable.install_hook(None)
            self.effects[what] = effects

    def _maybe_dies(self, what: str, act: Callable[[], Any]) -> None:
        """Sometimes, at a drawn one of so many effects as it had when it was done last: it never comes to the next one,
        and the engine is opened anew."""
        if self.chance.random() >= CRASH_SHARE:
            return
        left = self.chance.randrange(self.effects.get(what) or FIRST_EFFECTS) + 1

        def hook(*_: str) -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                raise Dead

        durable.install_hook(hook)
        try:
            act()
        except Dead:
            pass
        except Exception:
            if left > 0:
                raise
        finally:
            durable.install_hook(None)
        if left <= 0:
            self.crashes += 1
            self.gateway.open()
            self._known("src", self.gateway.source)
            self._known("files", self.files)
            self._jobs_known()

    def _change_database(self) -> None:
        path = self.gateway.source.path("base/1")
        data = bytearray(path.read_bytes())
        for page in self.chance.sample(range(PAGES), PAGES // 12):
            data[page * KIB : page * KIB + 40] = self.chance.randbytes(40)
        self.gateway.source.write("base/1", bytes(data))
        self.gateway.source.write("wal", self.chance.randbytes(self.chance.randrange(1, 20) * KIB))

    def _ingest(self, name: str) -> None:
        self.gateway.clock.advance(timedelta(minutes=10))
        self.gateway.engine.ingest(name)
        self._known(name, self.gateway.source if name == "src" else self.files)

    def _known(self, name: str, source: Source) -> None:
        for row in self._kept(name):
            if (name, row.number) not in self.trees:
                self.trees[name, row.number] = tree(source.root)
                self.born[name, row.number] = from_milliseconds(row.begun)

    def _retain(self) -> None:
        engine = self.gateway.engine
        engine.retention_apply(approve=engine.retention_plan().plan)

    def _sweep(self) -> None:
        self.gateway.engine.sweep()

    # --- restores -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _restoring(self, jobs: Callable[[], set[str]]) -> Iterator[None]:
        """What is asked for here, and what it adds to the ledgers of these jobs, is compared at the end. Not where
        somebody died: what was asked for just before that is not in the ledger, or twice as what may have been. Nor
        where what had been asked for before a death is settled.
        """
        begin, crashes, before, whole = self._logged, self.crashes, self._ledger(jobs()), False
        settled = not self._unsettled(jobs())
        try:
            yield
            whole = settled and self.crashes == crashes
        finally:
            if whole:
                self.of_restores.append((begin, self._logged))
                self.spent += self._ledger(jobs()) - before
        if not whole:
            self.shaken += self._ledger(jobs()) - before

    def _ledger(self, jobs: set[str]) -> Decimal:
        return sum((Decimal(str(self.gateway.engine.job(each).spent_usd)) for each in jobs), Decimal(0))

    def _unsettled(self, jobs: set[str]) -> bool:
        """Whether one of them does not know yet whether the store got a request for a thaw."""
        catalog = self.gateway.engine.hold().catalog
        return any(pack.stage is Stage.ASKING for job in jobs for pack in catalog.restore_packs(job))

    @property
    def _logged(self) -> int:
        return len(self.gateway.store._shelf._log)

    def _kept(self, source: str | None = None) -> list[GenerationRow]:
        return self.gateway.engine.hold().catalog.protected(source)

    def _begin_restore(self) -> None:
        rows = sorted(self._kept(), key=lambda row: row.begun)
        frozen = [row for row in rows if from_milliseconds(row.begun) + COLD_AFTER < self.gateway.clock.now()]
        row = self.chance.choice(frozen if frozen and self.chance.random() < 0.7 else rows)
        target = self.gateway.root / f"restored-{next(self.gateway.names)}"
        tier = self.chance.choice(TIERS[row.source])
        made: set[str] = set()
        with self._restoring(lambda: made):
            report = self.gateway.engine.restore(
                Reference.parse(f"{row.source}@{row.number}"), target, detach=True, tier=tier
            )
            made |= {report.job.id} if report.job is not None else set()
        self._jobs_known()

    def _jobs_known(self) -> None:
        over = {each.id for each in self.ended}
        for job in self.gateway.engine.jobs():
            if job.id not in over and job.id not in self.running:
                source, _, number = job.generation.partition("@")
                self.running[job.id] = job.target, self.trees[source, int(number)]
                self.thawed += bool(job.tier)
            if job.state.ended and job.id in self.running:
                self._end(job)

    def _turn(self) -> None:
        engine = self.gateway.engine
        for row in engine.due_restores(engine.hold().catalog):
            with self._restoring(partial(set, [row.id])):
                self._maybe_dies("turn", partial(self._turn_one, row.id))
                with contextlib.suppress(GatewayError):
                    self._done("turn", partial(self._turn_one, row.id))
        self._jobs_known()

    def _turn_one(self, job: str) -> None:
        self.gateway.engine.turn_restore(job, lambda _: None)

    def _end(self, job: JobInfo) -> None:
        target, whole = self.running.pop(job.id)
        self.ended.append(job)
        if job.state is not RestoreState.DELIVERED:
            self._say(f"restore job {job.id} of {job.generation} is {job.state}: {job.reason}")
        elif tree(target) != whole:
            self._say(f"{job.generation} came back with other bytes")
        self.restored += 1
        shutil.rmtree(target, ignore_errors=True)

    def metered(self) -> Decimal:
        """What the store bills for everything that restores asked for; plans are nobody's."""
        log = self.gateway.store.log()
        mine: set[int] = set()
        for begin, end in self.of_restores:
            mine.update(range(begin, end))
        for begin, end in self.of_plans:
            mine.difference_update(range(begin, end))
        prices, until = default_prices(), self.gateway.clock.now() + 30 * DAY
        asked = (Operation.GET, Operation.HEAD, Operation.LIST, Operation.THAW)
        plans: set[int] = set()
        for begin, end in self.of_plans:
            plans.update(range(begin, end))
        without = [
            each for at, each in enumerate(log)
            if at not in plans and not (at in mine and each.what in asked and each.key.startswith("packs/"))
        ]  # fmt: skip
        all_but_plans = [each for at, each in enumerate(log) if at not in plans]
        return (
            bill(all_but_plans, prices, until=until, egress="internet").total
            - bill(without, prices, until=until, egress="internet").total
        )

    # --- what must hold -----------------------------------------------------------------------------------------------

    def _look(self) -> None:
        self._look_at_rules()
        self._look_at_closures()
        self._look_at_plans()
        self._look_at_rebuild()

    def _look_at_rules(self) -> None:
        """What the rules keep is there: looked up without the planner. Of each period the newest, of as many periods
        as have a generation."""
        kept = {(row.source, row.number) for row in self._kept()}
        for source in ("src", "files"):
            mine = sorted(number for name, number in self.trees if name == source)
            wanted = set(mine[-RULES.keep_last :])
            for count, period in PERIODS:
                newest = {period(self.born[source, number]): number for number in mine}
                wanted.update(sorted(newest.values())[-count:])
            for number in wanted:
                if (source, number) not in kept:
                    self._say(f"{source}@{number} is lost")

    def _look_at_closures(self) -> None:
        there = set(self.gateway.store.dump())
        with Catalog(self.gateway.config.state.directory / "catalog.sqlite", read_only=True) as catalog:
            packs = {row.chain: {each.number: each for each in catalog.packs(row.chain)} for row in catalog.chains()}
        for row in self._kept():
            todo, seen = list(in_ranges(row.needs)), set[int]()
            while todo:
                number = todo.pop()
                if number in seen:
                    continue
                seen.add(number)
                pack = packs[row.chain].get(number)
                if pack is None or names.pack(pack.storage, row.chain, number, pack.pack_id) not in there:
                    self._say(f"{row.source}@{row.number} needs pack {number:08x}, which is gone")
                    break
                todo += in_ranges(pack.bases)

    def _look_at_plans(self) -> None:
        """What is younger than `hot_days` needs nothing cold, from an empty cache."""
        now = self.gateway.clock.now().timestamp() * 1000
        cache = self.gateway.config.state.directory / "cache"
        aside = cache.with_name("cache-aside")
        self.gateway.close()
        cache.rename(aside)
        try:
            for row in self._kept():
                if now - row.begun < HOT_DAYS * 86_400_000:
                    _, report = self.gateway.restore(f"{row.source}@{row.number}", dry_run=True)
                    if report.plan.cold_packs:
                        self._say(f"{row.source}@{row.number} needs {report.plan.cold_packs} cold packs")
                    if report.plan.cached_bytes:
                        self._say("the cache was not empty")
        finally:
            self.gateway.close()
            shutil.rmtree(cache, ignore_errors=True)
            aside.rename(cache)

    def _look_at_rebuild(self) -> None:
        here = self.gateway.derived()
        elsewhere = self.gateway.elsewhere("rebuilt")
        engine = self.gateway.open(elsewhere)
        report = engine.rebuild()
        with Catalog(elsewhere.state.directory / "catalog.sqlite", read_only=True) as catalog:
            there = catalog.dump_derived()
        self.gateway.close(elsewhere.state.directory)
        shutil.rmtree(elsewhere.state.directory)
        if report.problems:
            self._say(f"rebuild: {report.problems}")
        for table, rows in here.items():
            if there[table] != rows:
                self._say(f"a rebuilt catalog differs in {table}")
