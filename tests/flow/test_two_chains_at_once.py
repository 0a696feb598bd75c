"""Two hosts that open a chain of one source at the same time: no number is given to two generations."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from gateway import durable
from gateway.config.values import SourceKind
from gateway.format import names
from gateway.model.ids import ChainName
from tests.flow.gateways import Gateway
from tests.flow.test_chains import cloned
from tests.flow.test_retention import ref, rules
from tests.flow.test_sweep import Killed
from tests.flow.test_sweep_waits import kill, once
from tests.flow.trees import tree

SECONDS = 60.0
"""A thread that waits longer than that waits for ever."""


def all_numbers(gateway: Gateway) -> list[int]:
    """Of the source's generations, by the logs."""
    context, found = gateway.engine.hold(), list[int]()
    for name in context.chains_of("src"):
        generations = (
            context.open_chain(name).fold.generations.values() if gateway.keys(names.wrap_prefix(name)) else ()
        )
        found += [state.commit.number for state in generations]
    return sorted(found)


def test_a_chain_that_was_opened_above_ours_meanwhile(gateway: Gateway) -> None:
    """We have put the header of chain 2 when another host opens chain 3, and makes a generation there."""
    gateway.source.noise("own", 1000)
    gateway.made()
    clone = cloned(gateway)

    def other() -> None:
        durable.install_hook(None)
        gateway.source.noise("own", 2000)
        assert clone.made(new_chain=True).chain == "src/000003"
        clone.close()
        gateway.source.noise("own", 3000)

    once("store:wrap", other)
    made = gateway.made(new_chain=True)
    assert (made.chain, made.number) == ("src/000003", 3)
    assert all_numbers(gateway) == [1, 2, 3]
    assert gateway.restored("src@3") == tree(gateway.source.root)
    assert gateway.verify() == ()


def test_a_chain_that_was_born_below_ours_meanwhile(gateway: Gateway) -> None:
    """The other host had seen no chain beside its own when it looked, and is about to write its first entry."""
    gateway.source.noise("own", 1000)
    gateway.made()
    clone = cloned(gateway)
    gateway.source.noise("own", 2000)
    begun, born, looked, done = (threading.Event() for _ in range(4))
    failures: list[BaseException] = []

    def lower() -> None:
        try:
            clone.engine.ingest("src", new_chain=True)
        except BaseException as error:  # noqa: BLE001  (shown by the test)
            failures.append(error)
        finally:
            begun.set()
            looked.set()
            clone.close()

    thread = threading.Thread(target=lower)

    def hook(moment: str, effect: str) -> None:
        mine = threading.current_thread() is thread
        if moment != "before" or effect not in ("store:wrap", "store:commit"):
            return
        if mine and effect == "store:wrap" and not begun.is_set():
            begun.set()
            assert born.wait(SECONDS)
        elif mine and effect == "store:commit" and not looked.is_set():
            looked.set()
            assert done.wait(SECONDS)
        elif not mine and effect == "store:wrap" and not born.is_set():
            born.set()
            assert looked.wait(SECONDS)

    durable.install_hook(hook)
    try:
        thread.start()
        assert begun.wait(SECONDS)
        gateway.ingest(new_chain=True)
    finally:
        born.set()
        done.set()
        thread.join(SECONDS)
        durable.install_hook(None)
    assert failures == []
    assert len(set(all_numbers(gateway))) == len(all_numbers(gateway)) >= 2
    assert gateway.restored("src") == tree(gateway.source.root)
    assert gateway.verify() == ()


def test_a_chain_above_that_is_not_born_yet_does_not_stop_us(gateway: Gateway) -> None:
    """Whoever began it may be dead: neither it nor the one below is written to, and both can end."""
    gateway.source.noise("own", 1000)
    gateway.made()
    clone = cloned(gateway)
    once("store:wrap", kill)
    with pytest.raises(Killed):
        clone.ingest(new_chain=True)
    durable.install_hook(None)
    clone.close()
    gateway.source.noise("own", 2000)
    made = gateway.made()
    assert (made.chain, made.number) == ("src/000003", 2)
    assert gateway.engine.hold().open_chain(ChainName("src", 1)).fold.closed
    assert gateway.made(new_chain=True).chain == "src/000004"


def test_a_run_is_found_by_the_id_of_its_generation(gateway: Gateway) -> None:
    """Its number may be another one's, too: then that one would be required, or shown, in its place."""
    gateway.change(kind=SourceKind.JOB)
    for run in ("one", "two"):
        gateway.source.noise(f"{run}/piece", 1000)
        gateway.clock.advance(timedelta(hours=1))
        gateway.engine.seal("src", run, folder=run.encode(), wait=True)
    catalog = gateway.engine.hold().catalog
    row = catalog.job("src", "one")
    assert row is not None
    assert row.made == catalog.find_generation("src", "1").generation
    assert row.is_in(row.made, 7)
    assert not row.is_in(b"x" * 16, 1)
    report = gateway.engine.seal("src", "one", folder=b"one", wait=True)
    assert report.generation is not None
    assert report.generation.number == 1


def test_a_run_whose_base_is_gone_is_incomplete(gateway: Gateway) -> None:
    """The row of the base still says that it is protected."""
    gateway.healthy = False  # a rebuild names what is incomplete
    gateway.change(kind=SourceKind.JOB)
    rules(gateway, keep_last=1)
    for run in ("level-0", "other"):
        gateway.source.noise(f"{run}/piece", 1000)
        gateway.clock.advance(timedelta(hours=1))
        gateway.engine.seal("src", run, folder=run.encode(), wait=True)
    gateway.engine.expire_generation(ref("src@1"))
    gateway.source.noise("level-1/piece", 1000)
    report = gateway.engine.seal("src", "level-1", folder=b"level-1", requires=("level-0",), wait=True)
    assert str(report.state) == "incomplete"
    assert "level-0" in report.problems[0]
