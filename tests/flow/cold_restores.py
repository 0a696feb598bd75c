"""Restores of frozen generations for tests that kill them: a machine that can be put back to where it was, a process
that ends at a given effect or store call, and what must hold when the job was gone on with.

The store in memory is the process's own. A child that is killed writes down what the store and the clock are, in the
moment before: a store goes on when its client dies.
"""

from __future__ import annotations

import os
import pickle
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from gateway import durable
from gateway.api import JobInfo, Reference, RestoreState
from gateway.config.classes import BUILT_IN, ClassConfig
from gateway.config.values import StateConfig
from gateway.store.bill import bill
from gateway.store.meter import Operation
from gateway.store.prices import default_prices
from gateway.store.record import Record
from tests.flow.gateways import KIB, Gateway
from tests.flow.trees import tree

DAY = timedelta(days=1)
FLEX = ClassConfig(name="flex", steps=((0, "STANDARD"), (30, "GLACIER")), hot_days=7, chain_days=15)
FAST_LINK = 1 << 40
CALLS = ("get", "head", "list_objects", "thaw")
_SHELF = ("_objects", "_uploads", "_started", "_lifecycle", "_rules_since", "_next_run", "_log")
_CLOCK = ("_now", "_monotonic", "_drawn")

GET_USD, LIST_USD, EGRESS_USD = Decimal("0.0000004"), Decimal("0.000005"), Decimal("0.09") / (1 << 30)
"""Of us-east-1: a read or a look, a listing, and a byte on its way to the internet."""

Step = tuple[str, str]
"""A moment (before, after) and the name of an effect, or of a call as ``call:<method>``."""
Read = tuple[str, int, int | None]


@dataclass(frozen=True, slots=True)
class Kill:
    """End the process at the `occurrence`-th (from 1) of a step."""

    moment: str
    name: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.moment} {self.name} {self.occurrence}"


def freeze(
    gateway: Gateway,
    *,
    link: int = FAST_LINK,
    files: str = "ab",
    size: int = 300 * KIB,
    storage: str = "GLACIER",
) -> None:
    """A generation of a class that goes into an archive, long ago; the machine has nothing but the bucket."""
    flex = replace(FLEX, steps=((0, "STANDARD"), (30, storage)))
    gateway.config = replace(
        gateway.config, repository=replace(gateway.config.repository, region="us-east-1"), classes=(*BUILT_IN, flex),
        restore=replace(gateway.config.restore, link=link),
    )  # fmt: skip
    gateway.change(storage_class="flex")
    gateway.engine.lifecycle_apply()
    for name in files:
        gateway.source.noise(name, size)
    gateway.made()
    gateway.clock.advance(40 * DAY)
    gateway.lose_state()
    gateway.checked = False


class Watch:
    """What a store is asked, and where a process ends."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.steps: list[Step] = []
        self.reads: list[Read] = []
        self.kill: Kill | None = None
        self.end: Callable[[], None] = lambda: None
        self._left = 0
        for name in CALLS:
            self._wrap(name)

    def arm(self, kill: Kill | None, end: Callable[[], None]) -> None:
        self.kill, self.end, self._left = kill, end, kill.occurrence if kill else 0
        durable.install_hook(self.step)

    def step(self, moment: str, name: str) -> None:
        self.steps.append((moment, name))
        if self.kill is not None and (moment, name) == (self.kill.moment, self.kill.name):
            self._left -= 1
            if self._left == 0:
                self.end()

    def _wrap(self, name: str) -> None:
        call = getattr(self.gateway.store, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            self.step("before", f"call:{name}")
            found = call(*arguments, **options)
            if name == "list_objects":
                found = iter(list(found))
            if name == "get":
                self.reads.append((arguments[0], options.get("start", 0), options.get("length")))
            self.step("after", f"call:{name}")
            return found

        setattr(self.gateway.store, name, wrapped)


class Machine:
    """A frozen gateway, put back to its beginning for every case."""

    def __init__(self, gateway: Gateway, **restore: Any) -> None:
        self.gateway, self.restore = gateway, restore
        gateway.close()
        self.watch = Watch(gateway)
        self._born = gateway.config.state.directory
        self._before = self._store()
        self._cases = 0
        self.asked = len(gateway.store.log())
        self.whole = tree(gateway.source.root)
        self.target = gateway.root
        self.lost = Decimal(0)

    # --- state --------------------------------------------------------------------------------------------------------

    def _store(self) -> dict[str, Any]:
        shelf, clock = self.gateway.store._shelf, self.gateway.clock
        with shelf._lock:
            found = {name: getattr(shelf, name) for name in _SHELF} | {name: getattr(clock, name) for name in _CLOCK}
            return {k: v.copy() if isinstance(v, dict | list) else v for k, v in found.items()}

    def _difference(self) -> dict[str, Any]:
        """What a restore changed: of all that is in the store, a child hands over little."""
        found, before = self._store(), self._before
        found["_log"] = found["_log"][len(before["_log"]) :]
        found["_objects"] = {k: v for k, v in found["_objects"].items() if v is not before["_objects"].get(k)}
        return found

    def _joined(self, difference: dict[str, Any]) -> dict[str, Any]:
        before = self._before
        return difference | {
            "_log": before["_log"] + difference["_log"],
            "_objects": before["_objects"] | difference["_objects"],
        }

    def _load(self, found: dict[str, Any]) -> None:
        for name in _SHELF:
            value = found[name]
            setattr(self.gateway.store._shelf, name, value.copy() if isinstance(value, dict | list) else value)
        for name in _CLOCK:
            setattr(self.gateway.clock, name, found[name])

    def again(self) -> None:
        """Everything as it was, in a state directory and with a target of their own."""
        gateway = self.gateway
        gateway.close()
        if self._cases:
            shutil.rmtree(gateway.config.state.directory)
            shutil.rmtree(self.target, ignore_errors=True)
        self._cases += 1
        place = gateway.root / f"case-{self._cases}"
        shutil.copytree(self._born, place)
        gateway.config = replace(gateway.config, state=StateConfig(directory=place))
        self.target = gateway.root / f"target-{self._cases}"
        self._load(self._before)
        self.watch.steps, self.watch.reads = [], []

    @property
    def scratch(self) -> Path:
        return self.gateway.config.state.directory / "restore"

    # --- a process that ends ------------------------------------------------------------------------------------------

    def run(self, kill: Kill | None) -> bool:
        """Restore in a child; whether it was killed. Where it was, this process goes on."""
        self.gateway.close()
        left = self.gateway.root / "left"
        child = os.fork()
        if child == 0:
            self._child(kill, left)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        found = pickle.loads(left.read_bytes())
        assert code in (0, 9), found
        difference, self.watch.steps, self.watch.reads = found
        self._load(self._joined(difference))
        self.lost = self._uncounted() if code == 9 else Decimal(0)
        return code == 9

    def _uncounted(self) -> Decimal:
        """What the process had been told by the store and may not have written into its ledger: it died with it. Of as
        many reads at a time as there are workers, each is written down by itself. Requests for thaws are written down
        before they are made."""
        asked = (Operation.GET, Operation.HEAD, Operation.LIST)
        calls, written = 0, 0
        for moment, name in reversed(self.watch.steps):
            written += (moment, name) == ("after", "catalog:restore")
            if written == self.gateway.workers:
                break
            calls += moment == "after" and name.startswith("call:") and name != "call:thaw"
        records = [each for each in self.gateway.store.log()[self.asked :] if each.what in asked]
        last = [each for each in records[-calls:] if calls and each.key.startswith("packs/")]
        return sum(
            ((LIST_USD if each.what is Operation.LIST else GET_USD) + each.received * EGRESS_USD for each in last),
            Decimal(0),
        )

    def _child(self, kill: Kill | None, left: Path) -> None:
        def end(code: int = 9) -> None:
            left.write_bytes(pickle.dumps((self._difference(), self.watch.steps, self.watch.reads)))
            os._exit(code)

        try:
            self.watch.arm(kill, end)
            self.gateway.engine.restore(Reference.parse("src"), self.target, **self.restore)
            end(0)
        except BaseException:  # noqa: BLE001
            left.write_bytes(pickle.dumps(traceback.format_exc()))
            os._exit(1)

    # --- going on -----------------------------------------------------------------------------------------------------

    def go_on(self) -> JobInfo:
        """Whoever looks next: with the job that is there, or a new one where none was noted yet."""
        engine = self.gateway.engine
        jobs = engine.jobs()
        if not jobs:
            engine.restore(Reference.parse("src"), self.target, **self.restore)
        elif not jobs[0].state.ended:
            engine.watch_job(jobs[0].id)
        engine.hold()  # opens the state directory for writing, which clears up
        (job,) = engine.jobs()
        return job

    def since(self) -> Iterator[Record]:
        """What the store was asked about packs since the beginning, but for uploads that were left: nobody's job."""
        for record in self.gateway.store.log()[self.asked :]:
            of_packs = record.key.startswith("packs/") and record.what is not Operation.UPLOADS
            if of_packs and isinstance(record.what, Operation):
                yield record

    def metered(self) -> Decimal:
        """What the store bills for the job: its copies to their end, and nothing of what lay there anyway."""
        log, until = self.gateway.store.log(), self.gateway.clock.now() + 30 * DAY
        before = [*log[: self.asked]]
        prices = default_prices()
        with_it = bill([*before, *self.since()], prices, until=until, egress="internet").total
        return with_it - bill(before, prices, until=until, egress="internet").total

    def wrong(self, job: JobInfo, budget: Decimal, planning: Decimal) -> list[str]:
        """What does not hold after a job that was killed and gone on with."""
        found = []
        if job.state is not RestoreState.DELIVERED:
            found.append(f"it is {job.state}: {job.reason}")
        if tree(self.target) != self.whole:
            found.append("other bytes")
        thaws = Counter(e.key for e in self.since() if e.what is Operation.THAW and e.status in (200, 202))
        found += [f"asked {count} times for {key}" for key, count in thaws.items() if count > 1]
        packs = [read for read in self.watch.reads if read[0].startswith("packs/flex/")]
        twice = sum(count - 1 for count in Counter(packs).values())
        if twice > self.gateway.workers:
            found.append(f"{twice} ranges were fetched twice")
        if self.scratch.is_dir() and any(self.scratch.iterdir()):
            found.append(f"left in the scratch directory: {sorted(p.name for p in self.scratch.iterdir())}")
        metered, spent = self.metered(), Decimal(str(job.spent_usd))
        if metered > budget:
            found.append(f"the store bills {metered}, over the budget of {budget}")
        lost = self.lost + planning
        if abs(metered - spent) > metered / 100 + lost:
            found.append(f"the ledger has {spent}, the store bills {metered}")
        return found
