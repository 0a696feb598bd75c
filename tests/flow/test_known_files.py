"""Files that an earlier generation read: in all later ones while they stand, and not released on its word alone."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.api import no_progress
from gateway.config.values import ReleaseConfig
from gateway.jobs import ingest
from gateway.jobs.alarms import Alarms
from gateway.jobs.keeper import Barrier, Keeper
from tests.flow.gateways import Gateway


@pytest.fixture(autouse=True)
def _without_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS, an overflow, or no more than the moment before an event arrives: hints are given by the test."""
    monkeypatch.setattr(Keeper, "_watch_events", lambda _: None)


def keep(gateway: Gateway, **changes: Any) -> Keeper:
    """A keeper without events, on a clock that shows the time of the files."""
    gateway.change(generation_interval=timedelta(), **changes)
    gateway.clock.advance(datetime.now(UTC) - gateway.clock.now())
    context = gateway.engine.hold()
    return Keeper(context, gateway.config.sources[0], Alarms(context.catalog, gateway.clock, context.log))


def turn(gateway: Gateway, keeper: Keeper, *seconds: float) -> None:
    for each in seconds:
        gateway.clock.advance(timedelta(seconds=each))
        keeper.turn(no_progress)


def ask(gateway: Gateway, keeper: Keeper) -> Barrier:
    now = gateway.clock.monotonic()
    barrier = Barrier(begun=now, deadline=now + 15)
    keeper.barriers.append(barrier)
    return barrier


def numbers(gateway: Gateway) -> list[int]:
    return [each.number for each in gateway.engine.generations("src")]


def old_and_new(gateway: Gateway, keeper: Keeper) -> None:
    for number in range(5):
        gateway.source.write(f"a{number}", os.urandom(1000))
    turn(gateway, keeper, 0, 6, 60)
    assert numbers(gateway) == [1]
    gateway.source.write("b", b"new")
    keeper.watch.hint(b"b")
    turn(gateway, keeper, 0)


def test_the_first_generation_of_a_new_chain_holds_everything(gateway: Gateway) -> None:
    keeper = keep(gateway)
    old_and_new(gateway, keeper)
    barrier = ask(gateway, keeper)
    barrier.new_chain = True
    turn(gateway, keeper, 6)
    assert numbers(gateway) == [1, 2]
    assert len(gateway.list("src@2")) == 6


def test_a_generation_after_a_list_that_is_gone_holds_everything(gateway: Gateway) -> None:
    gateway.healthy = False
    keeper = keep(gateway)
    old_and_new(gateway, keeper)
    for key in [key for key in gateway.store.dump() if key.startswith("packs/meta")]:
        gateway.lose(key)
    turn(gateway, keeper, 6)
    assert numbers(gateway) == [1, 2]
    assert len(gateway.list("src@2")) == 6


def test_a_generation_after_a_kill_behind_the_entry_holds_everything(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = keep(gateway)
    old_and_new(gateway, keeper)
    with monkeypatch.context() as killed:
        killed.setattr(ingest.Ingest, "_remember", lambda *_: 1 / 0)
        turn(gateway, keeper, 6)
    assert numbers(gateway) == [1, 2]
    gateway.source.write("c", b"new")
    keeper = keep(gateway)
    turn(gateway, keeper, 0, 6)
    assert len(gateway.list("src@3")) == 7


def test_a_file_of_which_the_store_has_nothing_is_not_released(gateway: Gateway) -> None:
    gateway.healthy = False
    keeper = keep(gateway, release=ReleaseConfig(keep_generations=1))
    gateway.source.write("f", os.urandom(3000))
    turn(gateway, keeper, 0, 6, 60)
    (pack,) = [key for key in gateway.store.dump() if key.startswith("packs/instant")]
    gateway.lose(pack)
    with gateway.source.path("f").open("ab"):
        for name in ("g", "h"):
            gateway.source.write(name, os.urandom(3000))
            keeper.watch.hint(name.encode())
            turn(gateway, keeper, 0, 6)
    keeper.watch.hint(b"f", closed=True)
    turn(gateway, keeper, 0)
    assert b"f" not in gateway.list()
    keeper.release.run(dry_run=False)  # `gateway release`, or the turn of the next generation
    assert gateway.source.path("f").exists()


def test_a_file_that_was_left_out_though_it_did_not_change_is_taken_later(gateway: Gateway) -> None:
    gateway.healthy = False
    keeper = keep(gateway)
    gateway.source.write("f", os.urandom(3000))
    turn(gateway, keeper, 0, 6, 60)
    (pack,) = [key for key in gateway.store.dump() if key.startswith("packs/instant")]
    gateway.lose(pack)
    with gateway.source.path("f").open("ab"):
        gateway.source.write("g", os.urandom(3000))
        keeper.watch.hint(b"g")
        turn(gateway, keeper, 0, 6)
    keeper.watch.hint(b"f", closed=True)
    turn(gateway, keeper, *[3600] * 10)
    assert b"f" in gateway.list()
