"""Two gateways write to one chain: a cloned machine, and a second host with the same configuration.

Nobody plans that, and nothing of it may cost a byte. Both reach the PUT of their commit at the same moment; who loses
reads the log again and does its pass once more.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from gateway import durable
from gateway.api import Depth, GenerationInfo, Reference
from gateway.catalog import database
from gateway.errors import Overtaken
from tests.crash.forks import Forks
from tests.crash.machine import SOURCE, Kill, Machine
from tests.flow.trees import Source, Tree, tree

Trees = dict[str, Tree]
"""What a generation must give back, by its id."""


@pytest.fixture(autouse=True)
def _no_syncs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(database, "SYNCHRONOUS", "OFF")
    yield
    durable.install_hook(None)


def spool(root: Path, name: str, seed: int) -> Source:
    """Files of its own, and some that both have."""
    root.mkdir()
    source = Source(root)
    for index in range(6):
        source.noise(f"common-{index}", 30_000)
    source.made = seed
    for index in range(3):
        source.noise(f"{name}-{index}", 70_000)
    return source


def meet(name: str) -> None:
    """The first time each of two threads comes to an effect, it waits there for the other one."""
    barrier = threading.Barrier(2, timeout=60)
    been: set[int] = set()

    def hook(moment: str, effect: str) -> None:
        if (moment, effect) == ("before", name) and threading.get_ident() not in been:
            been.add(threading.get_ident())
            barrier.wait()

    durable.install_hook(hook)


def both(act: Callable[[Machine], None], machines: list[Machine]) -> None:
    with ThreadPoolExecutor(2) as pool:
        errors = [future.exception() for future in [pool.submit(act, machine) for machine in machines]]
    # One that failed is waited for by the other: what it failed of is what is to be seen.
    errors.sort(key=lambda error: isinstance(error, threading.BrokenBarrierError))
    for error in filter(None, errors):
        raise error


def ingest(machine: Machine, run: int) -> GenerationInfo:
    engine = machine.engine(run)
    try:
        (report,) = engine.ingest(SOURCE).sources
    except Overtaken:
        # Three times in one call (a header, a checkpoint, a commit): then it says so, and is run again.
        (report,) = engine.ingest(SOURCE).sources
    engine.close()
    assert report.generation is not None
    assert report.generation.state == "protected"
    return report.generation


def alarms(machine: Machine) -> int:
    return sum(event["event"] == "chain.foreign_writer" and event["level"] == "error" for event in machine.events())


def restored(machine: Machine, run: int, target: Path) -> Trees:
    """Every generation by its id, from an empty machine; the log is whole and everything in it."""
    engine = machine.engine(run, state=target / "state")
    report = engine.rebuild()
    assert not report.problems
    assert not engine.verify(depth=Depth.DATA).problems
    found: Trees = {}
    for info in engine.generations(SOURCE):
        assert info.state == "protected"
        engine.restore(Reference(source=SOURCE, id_prefix=info.id), target / info.id)
        found[info.id] = tree(target / info.id)
    engine.close()
    shutil.rmtree(target)
    return found


def on_own_state(machine: Machine, spooled: Source, name: str) -> Machine:
    """Another machine on the same store."""
    own = replace(machine, root=machine.root.parent / name, spool=spooled.root, seed=name)
    own.root.mkdir()
    (own.root / "store").symlink_to(machine.store_root)
    return own


@pytest.fixture
def first(quick: Path, request: pytest.FixtureRequest) -> Iterator[Machine]:
    root = quick / request.node.name.translate(str.maketrans("[]", "--"))
    root.mkdir()
    machine = Machine(
        root=root / "one", spool=spool(root / "spool-one", "one", 100).root, seed="one", parts=True, alone=False
    )
    machine.root.mkdir()
    machine.born()
    yield machine
    shutil.rmtree(root)


def clone(machine: Machine) -> Machine:
    """The machine as it is, spool and all that came after aside."""
    made = on_own_state(machine, spool(machine.root.parent / "spool-two", "two", 200), "two")
    shutil.copytree(machine.state, made.state)
    return made


def race(first: Machine, second: Machine, before: Trees) -> None:
    """Both commit at once, then each once more, and each sees what the other one did."""
    runs = iter(range(20, 60))
    expected: Trees = {}

    def act(machine: Machine) -> None:
        expected[ingest(machine, 10).id] = tree(machine.spool)

    meet("store:commit")
    both(act, [first, second])
    durable.install_hook(None)
    assert len(expected) == 2
    assert alarms(first) + alarms(second) >= 1, "who lost says nothing"
    for machine in (first, second):
        Source(machine.spool).write(f"later-{machine.root.name}", machine.root.name.encode())
        expected[ingest(machine, next(runs)).id] = tree(machine.spool)
    assert len(expected) == 4
    assert alarms(first)
    assert alarms(second)
    found = restored(first, next(runs), first.root / "elsewhere")
    assert found == before | expected


def test_a_cloned_machine(first: Machine) -> None:
    """Cloned after its first generation."""
    before = {ingest(first, 1).id: tree(first.spool)}
    Source(first.spool).noise("more", 90_000)
    race(first, clone(first), before)


def test_a_machine_cloned_in_the_middle_of_an_upload(first: Machine, forks: Forks) -> None:
    """Both go on with the same packs, and one of them with the very same upload."""
    before = {ingest(first, 1).id: tree(first.spool)}
    for index in range(4):
        Source(first.spool).write(f"more-{index}", bytes(range(256)) * 300 + str(index).encode())
        Source(first.spool).noise(f"noise-{index}", 90_000)
    assert forks.run(first, "ingest", 2, kill=Kill(moment="after", name="store:part", occurrence=3))
    race(first, clone(first), before)


def test_a_second_host_with_the_same_configuration(first: Machine) -> None:
    """Its own state directory is empty: it finds the chain, and nothing of it strange."""
    before = {ingest(first, 1).id: tree(first.spool)}
    second = on_own_state(first, spool(first.root.parent / "spool-two", "two", 200), "two")
    Source(first.spool).noise("more", 90_000)
    race(first, second, before)


def test_two_hosts_open_the_first_chain_at_once(first: Machine) -> None:
    second = on_own_state(first, spool(first.root.parent / "spool-two", "two", 200), "two")
    made: Trees = {}

    def act(machine: Machine) -> None:
        made[ingest(machine, 10).id] = tree(machine.spool)

    meet("store:header")
    both(act, [first, second])
    durable.install_hook(None)
    assert alarms(first) + alarms(second) >= 1
    assert restored(first, 20, first.root / "elsewhere") == made


def test_no_machine_is_a_stranger_to_itself(first: Machine) -> None:
    """Neither after its chain has changed, nor where it begins again with an empty state directory."""
    ingest(first, 1)
    Source(first.spool).noise("more", 90_000)
    ingest(replace(first, storage="hot"), 2)
    assert len(list(Path(first.store_root, "chains", SOURCE).iterdir())) == 2
    empty = replace(first, storage="hot", state_name="empty")
    engine = empty.engine(3)
    engine.rebuild()
    engine.close()
    Source(first.spool).noise("even-more", 90_000)
    ingest(empty, 4)
    assert not [event for event in first.events() if event["level"] == "error"]


def test_a_chain_that_another_host_opened(first: Machine) -> None:
    ingest(first, 1)
    second = replace(on_own_state(first, spool(first.root.parent / "spool-two", "two", 200), "two"), storage="hot")
    ingest(second, 2)
    Source(first.spool).noise("more", 90_000)
    ingest(replace(first, storage="hot"), 3)
    (alarm,) = [
        event for event in first.events() if event["event"] == "chain.foreign_writer" and "000002" in str(event)
    ]
    assert alarm["entries"]
    assert not alarms(second)
