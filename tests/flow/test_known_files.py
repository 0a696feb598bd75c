"""Files that an earlier generation read: in all later ones while they stand, and not released on its word alone."""

from __future__ import annotations

import os

import pytest

from gateway.config.values import ReleaseConfig
from gateway.jobs import ingest
from tests.flow.gateways import Gateway
from tests.flow.hand_turned import HandTurned


def old_and_new(by_hand: HandTurned) -> None:
    gateway = by_hand.gateway
    for number in range(5):
        gateway.source.write(f"a{number}", os.urandom(1000))
    by_hand.turn(0, 6, 60)
    assert by_hand.numbers() == [1]
    gateway.source.write("b", b"new")
    by_hand.keeper.watch.hint(b"b")
    by_hand.turn(0)


def test_the_first_generation_of_a_new_chain_holds_everything(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway)
    old_and_new(by_hand)
    barrier = by_hand.ask()
    barrier.new_chain = True
    by_hand.turn(6)
    assert by_hand.numbers() == [1, 2]
    assert len(gateway.list("src@2")) == 6


def test_a_generation_after_a_list_that_is_gone_holds_everything(gateway: Gateway) -> None:
    gateway.healthy = False
    by_hand = HandTurned.of(gateway)
    old_and_new(by_hand)
    for key in [key for key in gateway.store.dump() if key.startswith("packs/meta")]:
        gateway.lose(key)
    by_hand.turn(6)
    assert by_hand.numbers() == [1, 2]
    assert len(gateway.list("src@2")) == 6


def test_a_generation_after_a_kill_behind_the_entry_holds_everything(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand = HandTurned.of(gateway)
    old_and_new(by_hand)
    with monkeypatch.context() as killed:
        killed.setattr(ingest.Ingest, "_remember", lambda *_: 1 / 0)
        by_hand.turn(6)
    assert by_hand.numbers() == [1, 2]
    gateway.source.write("c", b"new")
    by_hand = HandTurned.of(gateway)
    by_hand.turn(0, 6)
    assert len(gateway.list("src@3")) == 7


def test_a_file_of_which_the_store_has_nothing_is_not_released(gateway: Gateway) -> None:
    gateway.healthy = False
    by_hand = HandTurned.of(gateway, release=ReleaseConfig(keep_generations=1))
    gateway.source.write("f", os.urandom(3000))
    by_hand.turn(0, 6, 60)
    (pack,) = [key for key in gateway.store.dump() if key.startswith("packs/instant")]
    gateway.lose(pack)
    with gateway.source.path("f").open("ab"):
        for name in ("g", "h"):
            gateway.source.write(name, os.urandom(3000))
            by_hand.keeper.watch.hint(name.encode())
            by_hand.turn(0, 6)
    by_hand.keeper.watch.hint(b"f", closed=True)
    by_hand.turn(0)
    assert b"f" not in gateway.list()
    by_hand.keeper.release.run(dry_run=False)  # `gateway release`, or the turn of the next generation
    assert gateway.source.path("f").exists()


def with_a_lost_pack(gateway: Gateway) -> HandTurned:
    """The file "f" is in a generation, and the store has lost its data."""
    gateway.healthy = False
    by_hand = HandTurned.of(gateway)
    gateway.source.write("f", os.urandom(3000))
    by_hand.turn(0, 6, 60)
    (pack,) = [key for key in gateway.store.dump() if key.startswith("packs/instant")]
    gateway.lose(pack)
    return by_hand


def test_a_file_that_was_left_out_though_it_did_not_change_is_taken_later(gateway: Gateway) -> None:
    by_hand = with_a_lost_pack(gateway)
    with gateway.source.path("f").open("ab"):
        gateway.source.write("g", os.urandom(3000))
        by_hand.keeper.watch.hint(b"g")
        by_hand.turn(0, 6)
    by_hand.keeper.watch.hint(b"f", closed=True)
    by_hand.turn(*[3600] * 10)
    assert b"f" in gateway.list()
