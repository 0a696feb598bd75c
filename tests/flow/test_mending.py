"""A source of kind "files" whose newest generation is incomplete is protected again without anybody writing to it."""

from __future__ import annotations

import os

import pytest

from gateway.api import SealedFile
from gateway.jobs import backup
from gateway.spool.pin import Unreadable
from tests.flow.gateways import Gateway
from tests.flow.hand_turned import HandTurned, answer
from tests.flow.test_known_files import with_a_lost_pack

NOBODY = "0" * 64


def incomplete(gateway: Gateway) -> HandTurned:
    """Of the two files that were sealed, one went before it was read."""
    gateway.healthy = False  # a rebuild names what is incomplete
    by_hand = HandTurned.of(gateway)
    gateway.source.write("a", b"1")
    gateway.source.write("b", b"2")
    seal(by_hand, b"a", b"b")
    gateway.source.path("b").unlink()
    by_hand.turn(0, 3, 3)
    assert states(gateway) == ["incomplete"]
    return by_hand


def seal(by_hand: HandTurned, *paths: bytes, digest: str = "") -> None:
    files = [SealedFile(path=each, size=None, digest=digest) for each in paths]
    by_hand.keeper.seals.seal("run", files, b"", (), "me")


def states(gateway: Gateway) -> list[str]:
    return [str(each.state) for each in gateway.engine.generations("src")]


def alarms(gateway: Gateway) -> list[str]:
    return [each.kind for each in gateway.engine.status().alarms]


def test_it_is_protected_after_a_while_though_nothing_is_new(gateway: Gateway) -> None:
    by_hand = incomplete(gateway)
    assert alarms(gateway) == ["generation-incomplete"]
    by_hand.turn(60, *[3600] * 30)
    assert states(gateway) == ["incomplete", "protected"]
    assert gateway.list() == [b"a"]
    assert alarms(gateway) == []


def test_a_barrier_is_answered_with_a_generation_that_is_whole(gateway: Gateway) -> None:
    by_hand = incomplete(gateway)
    barrier = by_hand.ask()
    by_hand.turn(0, 6)
    made = answer(barrier).generation
    assert made is not None
    assert (made.number, str(made.state)) == (2, "protected")


def test_it_is_protected_by_a_command_without_an_engine(gateway: Gateway) -> None:
    incomplete(gateway)
    assert gateway.made().number == 2
    assert gateway.ingest().generation is None


def test_a_file_with_another_digest_does_not_keep_the_source_unprotected(gateway: Gateway) -> None:
    gateway.healthy = False
    by_hand = HandTurned.of(gateway)
    gateway.source.write("a", b"1")
    by_hand.turn(0)
    gateway.clock.advance(gateway.config.sources[0].settle)
    seal(by_hand, b"a", digest=f"sha256:{NOBODY}")
    by_hand.turn(0)
    assert states(gateway) == ["incomplete"]
    by_hand.turn(60, *[3600] * 3)
    assert states(gateway) == ["incomplete", "protected"]
    assert alarms(gateway) == ["seal-mismatch"], "of the run nothing was mended"


def test_nothing_is_made_while_what_was_sealed_is_held_back(gateway: Gateway) -> None:
    gateway.healthy = False
    by_hand = HandTurned.of(gateway)
    gateway.source.write("a", b"1")
    gateway.source.write("b", b"2")
    seal(by_hand, b"a", b"b")
    with gateway.source.path("b").open("ab"):
        by_hand.turn(0, *[3600] * 5)
        assert states(gateway) == ["incomplete"]
    by_hand.turn(3600)
    assert states(gateway) == ["incomplete", "protected"]
    assert gateway.list() == [b"a", b"b"]


def test_what_cannot_be_mended_costs_fewer_and_fewer_passes(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand = incomplete(gateway)
    passes: list[int] = []
    monkeypatch.setattr("gateway.jobs.mending.Mending.is_worth_a_generation", lambda *_: bool(passes.append(1)))
    by_hand.turn(*[60] * 600)
    assert 5 < len(passes) < 12
    assert states(gateway) == ["incomplete"]


def test_a_spool_that_was_emptied_is_not_protected_as_nothing(gateway: Gateway) -> None:
    by_hand = incomplete(gateway)
    gateway.source.path("a").unlink()
    by_hand.turn(*[3600] * 5)
    assert states(gateway) == ["incomplete"]


def test_files_of_a_pack_that_was_lost_are_read_again_without_anything_new(gateway: Gateway) -> None:
    by_hand = with_a_lost_pack(gateway)
    gateway.verify()
    assert states(gateway) == ["incomplete"]
    by_hand.turn(*[60] * 5)
    assert states(gateway) == ["incomplete", "protected"]


def test_a_file_of_which_the_store_has_nothing_is_waited_for_while_it_cannot_be_read(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.healthy = False
    by_hand = HandTurned.of(gateway)
    gateway.source.write("f", os.urandom(3000))
    gateway.source.write("g", b"")
    by_hand.turn(0, 6, 60)
    (pack,) = [key for key in gateway.store.dump() if key.startswith("packs/instant")]
    gateway.lose(pack)
    gateway.verify()
    real = backup.pin

    def pin(root: object, entry: object, **more: object) -> object:
        if entry.path == b"f":  # type: ignore[attr-defined]
            raise Unreadable(b"f", "The disk fails.")
        return real(root, entry, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as failing:
        failing.setattr(backup, "pin", pin)
        by_hand.turn(*[3600] * 3)
        assert states(gateway) == ["incomplete"]
    by_hand.turn(*[3600] * 5)
    assert states(gateway) == ["incomplete", "protected"]
    assert gateway.list() == [b"f", b"g"]
