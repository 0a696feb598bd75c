"""What the engine expires and sweeps by itself, what waits for a person, and what stops it: on a whole gateway."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from gateway.api import Alarm, no_progress
from gateway.clock import FakeClock
from gateway.config.values import StorageClass
from gateway.daemon import Daemon
from gateway.jobs.alarms import Alarms, Kind
from gateway.jobs.upkeep import AGAIN, Upkeep
from gateway.log import silent
from gateway.store.wrap import RetryingStore
from tests.flow.gateways import ENVIRONMENT, KIB, Gateway
from tests.flow.test_retention import DAY, daily, numbers, rules
from tests.flow.trees import tree

SECONDS = 60.0


def upkeep(gateway: Gateway) -> Upkeep:
    context = gateway.engine.hold()
    return Upkeep(Alarms(context.catalog, gateway.clock, context.log))


def turn(gateway: Gateway, job: Upkeep | None = None) -> None:
    (job or upkeep(gateway)).turn(gateway.engine.hold(), no_progress)


def alarms(gateway: Gateway, kind: Kind) -> list[Alarm]:
    return [each for each in gateway.engine.alarms() if each.kind == kind and each.closed is None]


def replaced(gateway: Gateway) -> None:
    """Three generations of which each is nearly all new."""
    for _ in range(3):
        gateway.source.noise("own", 200 * KIB)
        gateway.made()
        gateway.clock.advance(timedelta(hours=2))


def serving(gateway: Gateway, what: str, reached: Callable[[list[int]], bool]) -> None:
    """Let an engine run until its generations, or the store, are as they should be."""
    gateway.close()
    daemon = Daemon(
        gateway.config, log=silent(gateway.clock), clock=gateway.clock, environment=ENVIRONMENT,
        store=RetryingStore(gateway.store, gateway.clock),
    )  # fmt: skip
    daemon.start()
    try:
        end = time.monotonic() + SECONDS
        while not reached([each.number for each in daemon.call("generations", {"source": "src"}, "", no_progress)]):
            assert time.monotonic() < end, what
            threading.Event().wait(0.05)
    finally:
        daemon.finish()


# --- by itself -------------------------------------------------------------------------------------------------------


def test_a_running_engine_expires_and_sweeps(gateway: Gateway) -> None:
    gateway.change(storage_class=StorageClass.HOT)
    rules(gateway, keep_last=2)
    gateway.source.noise("base", 3000 * KIB)
    for _ in range(4):
        gateway.source.noise("own", 60 * KIB)
        gateway.made()
        gateway.clock.advance(DAY)
    before = gateway.keys("packs/")
    serving(gateway, "it expires when it starts", lambda standing: standing == [3, 4])
    assert gateway.keys("packs/") == before, "an expiry can be undone for a week"
    gateway.clock.advance(6 * DAY)
    gateway.source.noise("more", 2 * KIB)
    gateway.made()
    gateway.clock.advance(2 * DAY)
    serving(gateway, "packs are deleted", lambda _: not set(before) <= set(gateway.keys("packs/")))
    audit = [(row.who, row.what) for row in gateway.engine.hold().catalog.audits()]
    assert ("engine", "expire") in audit
    assert ("engine", "sweep") in audit
    assert gateway.restored() == tree(gateway.source.root)


def test_it_is_due_once_a_day_also_across_restarts_and_never_where_it_is_off(gateway: Gateway) -> None:
    rules(gateway, keep_last=2)
    daily(gateway, 2)
    job = upkeep(gateway)
    assert job.due(gateway.engine.hold()), "first when it starts"
    turn(gateway, job)
    assert not job.due(gateway.engine.hold())
    gateway.clock.advance(timedelta(hours=23))
    assert not upkeep(gateway).due(gateway.engine.hold())
    gateway.clock.advance(timedelta(hours=2))
    assert upkeep(gateway).due(gateway.engine.hold())
    gateway.close()
    gateway.config = replace(gateway.config, engine=replace(gateway.config.engine, retention=timedelta()))
    assert not upkeep(gateway).due(gateway.engine.hold())


def test_without_rules_it_expires_nothing(gateway: Gateway) -> None:
    replaced(gateway)
    turn(gateway)
    assert numbers(gateway) == [1, 2, 3]
    assert not alarms(gateway, Kind.APPROVAL)


def test_a_store_that_does_not_answer_is_asked_again_in_an_hour(gateway: Gateway) -> None:
    rules(gateway, keep_last=2)
    daily(gateway, 3)
    job = upkeep(gateway)
    gateway.store.faults.add("list:1-400=503")
    turn(gateway, job)
    gateway.store.faults.clear()
    assert numbers(gateway) == [1, 2, 3]
    assert not job.due(gateway.engine.hold())
    gateway.clock.advance(AGAIN)
    assert job.due(gateway.engine.hold())
    turn(gateway, job)
    assert numbers(gateway) == [2, 3]


# --- approval --------------------------------------------------------------------------------------------------------


def test_a_plan_that_removes_much_waits_for_a_person(gateway: Gateway) -> None:
    gateway.change(storage_class=StorageClass.HOT)
    rules(gateway, keep_last=1)
    replaced(gateway)
    job = upkeep(gateway)
    turn(gateway, job)
    assert numbers(gateway) == [1, 2, 3]
    (alarm,) = alarms(gateway, Kind.APPROVAL)
    shown = gateway.engine.retention_plan()
    assert f"Plan {shown.plan} removes" in alarm.what
    assert f"--approve {shown.plan}" in alarm.advice
    # A new generation gives it another name; within an hour the alarm says so.
    gateway.source.noise("own", 200 * KIB)
    gateway.made()
    assert not job.due(gateway.engine.hold())
    gateway.clock.advance(AGAIN)
    assert job.due(gateway.engine.hold())
    turn(gateway, job)
    (alarm,) = alarms(gateway, Kind.APPROVAL)
    named = gateway.engine.retention_plan().plan
    assert named != shown.plan
    assert named in alarm.what
    gateway.engine.retention_apply(approve=named)
    gateway.clock.advance(AGAIN)
    turn(gateway, job)
    assert not alarms(gateway, Kind.APPROVAL)
    assert numbers(gateway) == [4]
    assert not job.due(gateway.engine.hold())


# --- what stops it ---------------------------------------------------------------------------------------------------


def test_a_source_without_a_young_generation_is_told(gateway: Gateway) -> None:
    rules(gateway, keep_last=2)
    daily(gateway, 3)
    gateway.clock.advance(10 * DAY)
    turn(gateway)
    assert numbers(gateway) == [1, 2, 3]
    (alarm,) = alarms(gateway, Kind.STOPPED)
    assert alarm.subject == "src"
    assert "1 generations go" in alarm.what
    assert "is wanted" in alarm.what
    gateway.source.noise("new", 10)
    gateway.made()
    turn(gateway)
    assert numbers(gateway) == [3, 4]
    assert not alarms(gateway, Kind.STOPPED)


def test_a_source_that_stands_still_and_is_as_its_rules_want_it_is_no_alarm(gateway: Gateway) -> None:
    rules(gateway, keep_last=3)
    daily(gateway, 3)
    gateway.clock.advance(30 * DAY)
    turn(gateway)
    assert numbers(gateway) == [1, 2, 3]
    assert not alarms(gateway, Kind.STOPPED)


def test_a_clock_that_is_wrong_stops_it_with_the_reason(gateway: Gateway) -> None:
    rules(gateway, keep_last=2)
    daily(gateway, 3)
    gateway.close()
    right, fast = gateway.clock, FakeClock(gateway.clock.now() + timedelta(hours=2), seed=b"fast")
    gateway.clock = fast
    turn(gateway)
    (alarm,) = alarms(gateway, Kind.STOPPED)
    assert "the clock differs from the store's by 120 minutes" in alarm.what
    gateway.close()
    gateway.clock = right
    turn(gateway)
    assert numbers(gateway) == [2, 3]
    assert not alarms(gateway, Kind.STOPPED)


def test_an_anomaly_stops_expiry_and_sweep_until_a_person_accepts_it(gateway: Gateway) -> None:
    rules(gateway, keep_last=2)
    daily(gateway, 3)
    opened = Alarms(gateway.engine.hold().catalog, gateway.clock, silent(gateway.clock))
    opened.open(Kind.ANOMALY, "src", "Half of it is gone.", meaning="m", advice="a")
    turn(gateway)
    assert numbers(gateway) == [1, 2, 3]
    assert not alarms(gateway, Kind.STOPPED), "the anomaly is the alarm"
    (freeze,) = gateway.engine.retention_plan().freezes
    assert "anomaly" in freeze.reason
    assert gateway.engine.accept("src")
    turn(gateway)
    assert numbers(gateway) == [2, 3]
