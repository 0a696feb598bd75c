"""A kill and what follows, on machines copied from prepared ones."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.crash import checks
from tests.crash.forks import Forks
from tests.crash.machine import Kill, Machine, fields, first_spool, litter, second_spool

Trace = Sequence[tuple[str, str]]
"""The effects of a command in their order: moment and name."""

STEPS = {
    "init": "init",
    # Ingests of the two spools where packs go up in parts, as into a bucket.
    "first-parts": "ingest",
    "second-parts": "ingest",
    # The second one after a kill, with all that any kill leaves.
    "recover": "ingest",
    # Where packs go up as whole files.
    "first": "ingest",
    "second": "ingest",
    # The second one where the source's class has changed, and where a pack has vanished from the store.
    "roll": "ingest",
    "lost": "ingest",
    # On an empty machine, and on one whose catalog is damaged.
    "rebuild": "rebuild",
    "aside": "rebuild",
}
"""What is killed: step -> command."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A machine just before each step, and the step's effects. Everything here is read only."""

    root: Path
    spools: tuple[Path, Path]
    machines: dict[str, Machine]
    traces: dict[str, Trace]

    def occurrences(self, step: str) -> Counter[str]:
        return Counter(name for moment, name in self.traces[step] if moment == "before")


def prepare(root: Path, forks: Forks) -> Prepared:
    """Run every step once without a kill."""
    first = first_spool(root / "spool-1")
    second = second_spool(first, root / "spool-2")
    machines: dict[str, Machine] = {}
    traces: dict[str, Trace] = {}

    def step(name: str, machine: Machine, run: int) -> None:
        machines[name] = machine.copy(root / f"before-{name}", name)
        trace = machine.root / "trace"
        forks.run(machine, STEPS[name], run, trace=trace)
        traces[name] = fields(trace.read_text().splitlines())
        trace.unlink()

    def fresh(name: str) -> Machine:
        machine = Machine(root=root / name, spool=first.root, seed=name)
        machine.root.mkdir()
        return machine

    step("init", fresh("machine-init"), 0)

    machine = replace(fresh("machine-parts"), parts=True)
    machine.born()
    step("first-parts", machine, 1)
    machine = replace(machine, spool=second.root)
    killed = machine.copy(root / "machine-killed", "killed")
    step("second-parts", machine, 2)
    assert forks.run(killed, "ingest", 2, kill=Kill(moment="before", name="catalog:ledger-add", occurrence=4))
    litter(killed)
    step("recover", killed, 3)

    machine = fresh("machine")
    machine.born()
    step("first", machine, 1)
    machine = replace(machine, spool=second.root)
    rolled = replace(machine.copy(root / "machine-rolled", "rolled"), storage="hot")
    lost = machine.copy(root / "machine-lost", "lost")
    step("second", machine, 2)
    step("roll", rolled, 2)
    min((lost.store_root / "packs" / "instant").rglob("*-*")).unlink()
    step("lost", lost, 2)

    machine = replace(machine, state_name="rebuilt")
    broken = machine.copy(root / "machine-broken", "broken")
    step("rebuild", machine, 3)
    broken.state.mkdir()
    for suffix in ("", "-journal"):
        (broken.state / f"catalog.sqlite{suffix}").write_bytes(b"no database at all" * 100)
    step("aside", broken, 3)
    return Prepared(root, (first.root, second.root), machines, traces)


def kill_and_go_on(prepared: Prepared, forks: Forks, place: Path, step: str, kill: Kill) -> list[str]:
    """What went wrong when a step was killed and the operator went on; nothing: all promises were kept.

    A trace is of one run; in another one the threads may meet in another order, and an occurrence may not come. Then
    nothing is killed, and the one before it is tried.
    """
    while True:
        machine = prepared.machines[step].copy(place, f"{step} {kill}")
        try:
            if forks.run(machine, STEPS[step], 5, kill=kill):
                return _go_on(prepared, forks, machine, step)
            if kill.occurrence == 1:
                return [f"{kill} never came"]
        except AssertionError as error:
            return [str(error)]
        finally:
            shutil.rmtree(place)
        kill = replace(kill, occurrence=kill.occurrence - 1)


def _go_on(prepared: Prepared, forks: Forks, machine: Machine, step: str) -> list[str]:
    first, second = map(str, prepared.spools)
    spools = [first, second]
    if STEPS[step] == "ingest":
        spools = [checks.LOST if step == "lost" else first]
        if step not in ("first", "first-parts"):
            spools.append(second)
        if problems := _ingest_again(forks, machine, spools):
            return problems
        spools = [spools[0], second]
    elif step == "init":
        # From its last PUT on it has worked, and the sheet that nobody saw is made anew.
        forks.run(machine, "init", 6)
        forks.run(replace(machine, spool=prepared.spools[0]), "ingest", 8)
    else:
        forks.run(machine, "rebuild", 6)
        forks.run(replace(machine, spool=prepared.spools[0]), "ingest", 8)
        spools = [*spools, *spools]
    machine = replace(machine, spool=prepared.spools[1])
    forks.run(machine, "ingest", 9)
    found = forks.check(machine, "in_order", 10, spools)
    if step != "lost":
        found += [f"logged: {event}" for event in machine.events() if event["level"] == "error"]
    return [f"at the end: {each}" for each in found]


def _ingest_again(forks: Forks, machine: Machine, spools: list[str]) -> list[str]:
    problems = [f"just after the kill: {each}" for each in forks.check(machine, "elsewhere", 6, spools)]
    acknowledged = checks.acknowledged(machine)
    before = len(_sent(machine))
    forks.run(machine, "ingest", 7)
    again = {key for _, key in _sent(machine)[before:]} & acknowledged
    return problems + [f"acknowledged, and sent again: {key}" for key in sorted(again)]


def _sent(machine: Machine) -> list[tuple[str, str]]:
    return fields(machine.sent.read_text().splitlines()) if machine.sent.exists() else []


# --- a store that cannot be copied -----------------------------------------------------------------------------------


def prepare_remote(root: Path, forks: Forks, real: str) -> Prepared:
    """The two ingests into a real store, once without a kill."""
    first = first_spool(root / "spool-1")
    for index in range(2):
        first.noise(f"huge-{index}", 12_000_000)
    second = second_spool(first, root / "spool-2")
    second.noise("huge-new", 12_000_000)
    second.noise("huge-newer", 7_000_000)
    machine = Machine(root=root / "machine", spool=first.root, seed="remote", parts=True, real=real)
    machine.root.mkdir()
    forks.run(machine, "born", 0)
    traces: dict[str, Trace] = {}
    for run, (step, spool) in enumerate((("first-parts", first), ("second-parts", second)), 1):
        trace = machine.root / step
        forks.run(replace(machine, spool=spool.root), "ingest", run, trace=trace)
        traces[step] = fields(trace.read_text().splitlines())
    return Prepared(root, (first.root, second.root), {}, traces)


def kill_remote(prepared: Prepared, forks: Forks, place: Path, step: str, kill: Kill, real: str) -> list[str]:
    """As `kill_and_go_on`, but everything before the kill is done anew, in a repository of its own."""
    machine = Machine(root=place, spool=prepared.spools[0], seed=f"{step} {kill}", parts=True, real=real)
    place.mkdir()
    try:
        forks.run(machine, "born", 0)
        if step == "second-parts":
            forks.run(machine, "ingest", 1)
            machine = replace(machine, spool=prepared.spools[1])
        if not forks.run(machine, "ingest", 5, kill=kill):
            return [] if kill.occurrence > 1 else [f"{kill} never came"]
        return _go_on(prepared, forks, machine, step)
    except AssertionError as error:
        return [str(error)]
    finally:
        shutil.rmtree(place)
