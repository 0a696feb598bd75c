"""The bucket's lifecycle rules: plan, apply, check, alarms, and the check of every day."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.api import RuleDriftKind
from gateway.config.classes import BUILT_IN, ClassConfig
from gateway.jobs.alarms import Alarms
from gateway.jobs.lifecycle import DailyCheck
from gateway.log import Log
from gateway.policy.lifecycle import SMALLEST_BYTES, own_prefix
from gateway.store.lifecycle import Lifecycle, LifecycleRule, SmallObjects, Transition
from tests.flow.gateways import KIB, Gateway, make_store

OURS = own_prefix("")
LOGS = LifecycleRule(id="logs", prefix="logs/", expire_days=30)
TAGGED = LifecycleRule(
    id="tagged",
    foreign='{"Expiration": {"Days": 3}, "Filter": {"Tag": {"Key": "a", "Value": "b"}}, "ID": "tagged", '
    '"Status": "Enabled"}',
)
SWEEPER = LifecycleRule(id="sweeper", prefix="", expire_days=365)


def open_kinds(gateway: Gateway) -> set[tuple[str, str]]:
    return {(each.kind, each.subject) for each in gateway.engine.alarms() if each.closed is None}


@pytest.fixture
def deep(gateway: Gateway) -> Gateway:
    gateway.change(storage_class="deep")
    return gateway


def test_apply_writes_what_is_missing_and_keeps_the_rules_of_others(deep: Gateway) -> None:
    before = Lifecycle(rules=(LOGS, TAGGED), small_objects=SmallObjects.VARY)
    deep.store.put_lifecycle(before)
    planned = deep.engine.lifecycle_plan()
    assert {each.kind for each in planned.drift} == {RuleDriftKind.MISSING}
    assert deep.store.get_lifecycle() == before
    report = deep.engine.lifecycle_apply(operator="ada")
    assert (report.written, report.drift, report.foreign, report.conflicts, report.notes) == (True, (), (), (), ())
    assert {each.rule for each in report.rules} == {each.rule for each in planned.rules}
    after = deep.store.get_lifecycle()
    assert after.small_objects is SmallObjects.VARY
    assert after.rules[:2] == (LOGS, TAGGED)
    rules = {each.id: each for each in after.rules}
    assert rules[f"{OURS}deep"] == LifecycleRule(
        id=f"{OURS}deep", prefix="packs/deep/", larger_than=SMALLEST_BYTES - 1,
        transitions=(Transition(days=97, storage_class="DEEP_ARCHIVE"),),
    )  # fmt: skip
    assert rules[f"{OURS}.abort"].abort_days == 14
    assert not deep.engine.lifecycle_apply().written
    assert deep.store.get_lifecycle() == after


def test_drift_is_named_and_is_an_alarm_until_it_is_gone(deep: Gateway) -> None:
    deep.engine.lifecycle_apply()
    whole = deep.store.get_lifecycle()
    changed = tuple(
        replace(each, transitions=(Transition(days=9, storage_class="GLACIER"),)) if each.id == f"{OURS}deep" else each
        for each in whole.rules
    )
    odd = LifecycleRule(id=f"{OURS}gone", prefix="packs/gone/", expire_days=1)
    deep.store.put_lifecycle(replace(whole, rules=(*changed, odd)))
    report = deep.engine.lifecycle_check()
    assert {(each.rule, each.kind) for each in report.drift} == {
        (f"{OURS}deep", RuleDriftKind.CHANGED), (f"{OURS}gone", RuleDriftKind.UNWANTED),
    }  # fmt: skip
    assert not report.written
    (alarm,) = [each for each in deep.engine.alarms() if each.closed is None]
    assert alarm.kind == "lifecycle-drift"
    assert "after 9 days" in alarm.what
    assert "DEEP_ARCHIVE after 97 days" in alarm.what
    assert deep.engine.lifecycle_apply().written
    assert not open_kinds(deep)
    assert deep.store.get_lifecycle() == whole


def test_a_foreign_rule_on_our_objects_is_an_alarm_and_stays(deep: Gateway) -> None:
    deep.store.put_lifecycle(Lifecycle(rules=(SWEEPER, LOGS)))
    report = deep.engine.lifecycle_apply()
    assert [(each.rule, each.deletes) for each in report.foreign] == [("sweeper", True)]
    assert open_kinds(deep) == {("foreign-rule", "sweeper")}
    assert SWEEPER in deep.store.get_lifecycle().rules
    others = tuple(each for each in deep.store.get_lifecycle().rules if each != SWEEPER)
    deep.store.put_lifecycle(Lifecycle(rules=others))
    assert not deep.engine.lifecycle_check().foreign
    assert not open_kinds(deep)


def test_a_class_keeps_its_rule_while_a_chain_lives(deep: Gateway) -> None:
    """Also when no source uses it any more, or the configuration has it no more."""
    own = ClassConfig(name="own", steps=((0, "STANDARD"), (60, "GLACIER")), hot_days=10, chain_days=20)
    deep.config = replace(deep.config, classes=(*BUILT_IN, own))
    deep.change(storage_class="own")
    deep.source.noise("a", 300 * KIB)
    deep.made()
    assert deep.engine.lifecycle_apply().written
    deep.change(storage_class="instant")
    deep.config = replace(deep.config, classes=BUILT_IN)
    assert not deep.engine.lifecycle_check().drift
    # And its steps cannot change under the packs.
    steps = ((0, "STANDARD"), (50, "GLACIER"))
    deep.close()
    deep.config = replace(deep.config, classes=(*BUILT_IN, replace(own, steps=steps)))
    deep.change(storage_class="own")
    before = deep.store.get_lifecycle()
    report = deep.engine.lifecycle_apply()
    assert report.conflicts
    assert not report.written
    assert deep.store.get_lifecycle() == before
    assert open_kinds(deep) == {("lifecycle-drift", "bucket")}


def test_a_store_that_drops_what_it_was_sent_is_found(deep: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules without their filter of sizes, and a rule of somebody else that gets lost on the way."""
    deep.store.put_lifecycle(Lifecycle(rules=(LOGS, replace(LOGS, id="more", prefix="more/"))))
    put = type(deep.store).put_lifecycle

    def careless(store: object, lifecycle: Lifecycle) -> None:
        rules = [replace(each, larger_than=None) for each in lifecycle.rules if each.id != "more"]
        put(deep.store, replace(lifecycle, rules=tuple(rules)))

    monkeypatch.setattr(type(deep.store), "put_lifecycle", careless)
    report = deep.engine.lifecycle_apply()
    assert report.written
    assert [(each.rule, each.kind) for each in report.drift] == [(f"{OURS}deep", RuleDriftKind.CHANGED)]
    assert len(report.notes) == 1
    assert "more" in report.notes[0]
    assert open_kinds(deep) == {("lifecycle-drift", "bucket")}


def test_a_bucket_that_needs_no_rule_is_no_alarm(gateway: Gateway) -> None:
    report = gateway.engine.lifecycle_check()
    assert [each.rule for each in report.drift] == [f"{OURS}.abort"]
    assert not open_kinds(gateway)


# --- once a day -------------------------------------------------------------------------------------------------------


def test_the_check_of_every_day(deep: Gateway) -> None:
    deep.source.noise("a", 10)
    context = deep.engine.hold()
    alarms = Alarms(context.catalog, deep.clock, Log(deep.events, deep.clock))
    daily = DailyCheck(alarms)
    assert daily.due(context)
    daily.turn(context)
    assert open_kinds(deep) == {("lifecycle-drift", "bucket")}
    assert not daily.due(context)
    assert not DailyCheck(alarms).due(context)  # after a restart, too
    deep.clock.advance(timedelta(hours=23))
    assert not daily.due(context)
    deep.clock.advance(timedelta(hours=1))
    assert daily.due(context)
    deep.store.faults.add("rules:1=denied")
    daily.turn(context)  # which is said, and tried again in an hour
    assert "lifecycle.not_checked" in deep.events.names()
    assert not daily.due(context)
    deep.clock.advance(timedelta(hours=1))
    assert daily.due(context)
    daily.turn(context)
    assert not daily.due(context)
    deep.clock.advance(timedelta(days=-3))  # a clock that was set back must not put it off
    assert DailyCheck(alarms).due(context)


def test_a_store_without_classes_is_never_due(deep: Gateway) -> None:
    deep.store = make_store(deep.clock, knows_classes=False)
    deep.store.load(deep.born.objects)
    context = deep.engine.hold()
    assert not DailyCheck(Alarms(context.catalog, deep.clock, context.log)).due(context)
