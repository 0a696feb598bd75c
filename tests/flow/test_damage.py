"""A pack that is damaged or missing is an alarm until it is whole, and nothing expires meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway.api import Alarm, Depth, Reference, no_progress
from gateway.config.retention import RetentionConfig, RetentionRules
from gateway.errors import UsageError
from gateway.jobs.alarms import Alarms, Kind
from gateway.jobs.keeper import Keeper
from tests.flow.gateways import KIB, Gateway
from tests.flow.hand_turned import HandTurned
from tests.flow.test_beside import served

DAY = timedelta(days=1)
DATA = "packs/instant/"


def alarms(gateway: Gateway) -> list[tuple[str, str]]:
    return [(each.kind, each.subject) for each in gateway.engine.status().alarms]


def the_alarm(gateway: Gateway) -> Alarm:
    (found,) = gateway.engine.status().alarms
    assert (found.kind, found.subject) == ("damaged-pack", "src")
    return found


def rules(gateway: Gateway, **values: Any) -> None:
    gateway.close()
    given = RetentionConfig(sources=("src",), rules=RetentionRules(**values))
    gateway.config = replace(gateway.config, retention=(given,))


def daily(gateway: Gateway, days: int) -> None:
    for _ in range(days):
        gateway.clock.advance(DAY)
        gateway.source.noise(f"f{next(gateway.names)}", 50 * KIB)
        gateway.made()


def flip(gateway: Gateway, key: str) -> bytes:
    """A bit of an object turns; returns what it was."""
    objects = gateway.store.dump()
    whole, data = objects[key], bytearray(objects[key])
    data[len(data) // 2] ^= 1
    gateway.store.load(objects | {key: bytes(data)})
    return whole


def states(gateway: Gateway) -> dict[int, str]:
    return {each.number: str(each.state) for each in gateway.engine.generations("src")}


def test_a_flipped_byte_that_a_verification_finds_stops_expiry_until_a_person_answers(gateway: Gateway) -> None:
    gateway.healthy = False
    daily(gateway, 3)
    rules(gateway, keep_last=1)
    bad = gateway.keys(DATA)[0]
    flip(gateway, bad)
    assert alarms(gateway) == []
    gateway.verify()
    found = the_alarm(gateway)
    assert bad in found.what
    assert "src@1, src@2, src@3" in found.what
    assert "expires" in found.meaning
    assert "--alarm damaged-pack" in found.advice
    daily(gateway, 2)  # stored anew: these two are whole
    assert states(gateway) == {1: "incomplete", 2: "incomplete", 3: "incomplete", 4: "protected", 5: "protected"}
    plan = gateway.engine.retention_plan()
    assert any("damaged-pack" in each.reason for each in plan.freezes)
    assert gateway.engine.retention_apply(approve=plan.plan).expired == ()
    with pytest.raises(UsageError, match="damaged-pack"):
        gateway.engine.expire_generation(Reference.parse("src@4"))
    assert sorted(states(gateway)) == [1, 2, 3, 4, 5]
    assert gateway.engine.accept("src", alarm="damaged-pack", operator="alice")
    assert alarms(gateway) == []
    gateway.verify()
    assert alarms(gateway) == [], "it is answered for"
    plan = gateway.engine.retention_plan()
    assert plan.freezes == ()
    assert gateway.engine.retention_apply(approve=plan.plan).expired
    flip(gateway, gateway.keys(DATA)[-1])
    gateway.verify()
    assert gateway.keys(DATA)[-1] in the_alarm(gateway).what, "that is another one"


def test_what_a_verification_reads_as_whole_again_closes_the_alarm(gateway: Gateway) -> None:
    daily(gateway, 2)
    key = gateway.keys(DATA)[0]
    whole = flip(gateway, key)
    gateway.verify()
    the_alarm(gateway)
    gateway.put_back(key, whole)
    gateway.verify(Depth.STRUCTURE)
    the_alarm(gateway)
    gateway.verify()
    assert alarms(gateway) == []
    assert set(states(gateway).values()) == {"protected"}


def test_damage_that_was_answered_for_and_mended_and_comes_back_is_a_new_alarm(gateway: Gateway) -> None:
    gateway.healthy = False
    daily(gateway, 1)
    key = gateway.keys(DATA)[0]
    whole = flip(gateway, key)
    gateway.verify()
    assert gateway.engine.accept("src", alarm="damaged-pack")
    gateway.put_back(key, whole)
    gateway.verify()
    flip(gateway, key)
    gateway.verify()
    the_alarm(gateway)


def test_a_pack_that_a_pass_finds_missing_is_an_alarm_and_closes_with_what_needs_it(gateway: Gateway) -> None:
    gateway.healthy = False
    by_hand = HandTurned.of(gateway)
    gateway.source.noise("a", 50 * KIB)
    by_hand.turn(0, 6)
    key = gateway.keys(DATA)[0]
    gateway.lose(key)
    gateway.source.noise("b", 50 * KIB)
    by_hand.keeper.watch.hint(b"b")
    by_hand.turn(0, 6)
    assert key in the_alarm(gateway).what
    assert states(gateway) == {1: "incomplete", 2: "protected"}
    by_hand.turn(6, 60)
    the_alarm(gateway)


@pytest.mark.parametrize("lose", [lambda one: one.verify(), lambda one: one.engine.retention_plan()])
def test_whoever_finds_a_pack_missing_opens_the_alarm(gateway: Gateway, lose: Callable[[Gateway], object]) -> None:
    gateway.healthy = False
    daily(gateway, 1)
    gateway.lose(gateway.keys(DATA)[0])
    lose(gateway)
    gateway.ingest()
    the_alarm(gateway)


def test_a_verification_beside_a_running_worker_opens_it_too(gateway: Gateway) -> None:
    gateway.healthy = False
    daily(gateway, 1)
    flip(gateway, gateway.keys(DATA)[0])
    gateway.engine.verify_beside(lambda write: write(), depth=Depth.DATA)
    the_alarm(gateway)


def test_damage_that_is_found_while_generations_are_made_is_written_down(gateway: Gateway) -> None:
    """Reading all of a chain takes longer than the next generation: then no look is of the log as it is."""
    gateway.healthy = False
    daily(gateway, 2)
    flipped, lost = gateway.keys(DATA)
    flip(gateway, flipped)
    gateway.lose(lost)
    asked = 0

    def busy(write: Callable[[], Any]) -> Any:
        nonlocal asked
        asked += 1
        if asked == 1:
            daily(gateway, 1)
        return write()

    gateway.engine.verify_beside(busy, depth=Depth.DATA)
    assert asked == 2
    assert "1 more object" in the_alarm(gateway).what
    assert states(gateway)[1] == "incomplete"


def test_a_pack_that_is_whole_again_by_the_time_of_writing_is_not_damaged(gateway: Gateway) -> None:
    daily(gateway, 2)
    key = gateway.keys(DATA)[0]
    whole = flip(gateway, key)

    def busy(write: Callable[[], Any]) -> Any:
        if gateway.store.dump()[key] != whole:
            gateway.put_back(key, whole)
            daily(gateway, 1)
        return write()

    gateway.engine.verify_beside(busy, depth=Depth.DATA)
    assert alarms(gateway) == []


def test_a_verification_that_a_running_engine_is_asked_for_opens_it(gateway: Gateway) -> None:
    gateway.healthy = False
    daily(gateway, 1)
    flip(gateway, gateway.keys(DATA)[0])
    gateway.close()
    with served(gateway) as daemon:
        daemon.call("verify", {"source": None, "depth": Depth.DATA}, "", no_progress)
        assert [each.kind for each in daemon.call("status", {}, "", no_progress).alarms] == ["damaged-pack"]
        assert daemon.call("accept", {"source": "src", "alarm": "damaged-pack"}, "", no_progress)
        assert daemon.call("status", {}, "", no_progress).alarms == ()


def test_a_chain_that_cannot_be_opened_is_damage(gateway: Gateway) -> None:
    daily(gateway, 1)
    wraps = [*gateway.keys("chains/src/000001/wraps/"), *gateway.keys("keys/src-000001-")]
    lost = {key: gateway.lose(key) for key in wraps if not key.endswith("header")}
    gateway.verify()
    assert "chains/src/000001" in the_alarm(gateway).what
    for key, data in lost.items():
        gateway.put_back(key, data)
    gateway.verify()
    assert alarms(gateway) == []


def test_a_keeper_sees_what_was_damaged_before_it_and_closes_what_is_not(gateway: Gateway) -> None:
    """A catalog of a version that knew of the damage and had no alarm, or an alarm of one that nothing closed."""
    gateway.healthy = False
    daily(gateway, 1)
    flip(gateway, gateway.keys(DATA)[0])
    gateway.verify()
    context = gateway.engine.hold()
    told = Alarms(context.catalog, gateway.clock, context.log)
    told.close(Kind.DAMAGE, "src")
    keeper = Keeper(context, gateway.config.sources[0], told)
    keeper.turn(no_progress)
    the_alarm(gateway)
    keeper.stop()
