"""Files that a pass left out come into a generation as soon as what held them back is over, also without an event."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.jobs import backup
from tests.flow.gateways import Gateway
from tests.flow.hand_turned import HandTurned, answer


def test_a_file_that_was_away_when_it_was_read_is_taken(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its directory is moved away when it is read, and back before anybody walks: no identity changes by that."""
    by_hand = HandTurned.of(gateway)
    gateway.source.write("d/a", b"1")
    gateway.source.write("z", b"1")
    by_hand.turn(0)
    real, folder = backup.pin, gateway.source.path("d")

    def pin(root: Path, entry: Any, **more: Any) -> Any:
        if entry.path == b"d/a":
            folder.rename(folder.with_name("e"))
        return real(root, entry, **more)

    with monkeypatch.context() as moved:
        moved.setattr(backup, "pin", pin)
        by_hand.turn(6)
    assert gateway.list() == [b"d", b"z"]
    folder.with_name("e").rename(folder)
    by_hand.keeper.watch.look_everywhere()
    barrier = by_hand.ask()
    by_hand.turn(0, 3600, 3600)
    assert answer(barrier).held_back == ()
    assert b"d/a" in gateway.list()


@pytest.mark.parametrize("event", [True, False])
def test_a_marker_that_comes_after_a_pass_lets_its_file_in(gateway: Gateway, event: bool) -> None:
    by_hand = HandTurned.of(gateway, marker="{name}.done", minimum_evidence=3)
    gateway.source.write("a", b"1")
    by_hand.turn(0, 6)
    gateway.source.write("b", b"2")
    barrier = by_hand.ask()
    by_hand.turn(0, 6)
    answer(barrier)
    gateway.source.write("a.done", b"")
    if event:
        by_hand.keeper.watch.hint(b"a.done")
        by_hand.turn(0)
    else:
        by_hand.ask()
        by_hand.turn(0)
    assert gateway.list() == [b"a"]
    assert set(by_hand.keeper.watch.pending) == {b"b"}
