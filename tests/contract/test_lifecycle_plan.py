"""Plans of lifecycle rules on stores that take them over real HTTP: rules of others come through as they are."""

from __future__ import annotations

from gateway.config.classes import BUILT_IN
from gateway.policy.lifecycle import DriftKind, own_prefix, plan
from gateway.store.lifecycle import Lifecycle, LifecycleRule, Transition
from gateway.store.s3_lifecycle import lifecycle_of, request_of
from tests.contract.stores import Subject

OTHERS = (
    LifecycleRule(id="logs", prefix="logs/", expire_days=30),
    LifecycleRule(id="old", prefix="old/", transitions=(Transition(days=90, storage_class="GLACIER"),), enabled=False),
)


def test_a_plan_there_and_back(subject: Subject) -> None:
    """Where a store drops a filter of sizes, what is read back is drift that names it, and nothing else is."""
    if subject.name in ("directory", "seaweedfs"):
        return  # they take no transitions; test_cold.py
    store, prefix = subject.store, subject.store.base.rstrip("/")
    store.put_lifecycle(Lifecycle(rules=OTHERS))
    existing = request_of(store.get_lifecycle())["LifecycleConfiguration"]["Rules"]
    made = plan(prefix, BUILT_IN, existing)
    assert {each.kind for each in made.drift} == {DriftKind.MISSING}
    store.put_lifecycle(lifecycle_of({"Rules": list(made.after)}))
    back = subject.reopen().get_lifecycle()
    assert [each for each in back.rules if each.id in ("logs", "old")] == list(OTHERS)
    again = plan(prefix, BUILT_IN, request_of(back)["LifecycleConfiguration"]["Rules"])
    if subject.habits.keeps_rules:
        assert not again.drift
    else:
        (drift,) = again.drift
        assert (drift.rule, drift.kind) == (f"{own_prefix(prefix)}deep", DriftKind.CHANGED)
        assert "larger than" in drift.wanted
        assert "larger than" not in drift.found
    store.put_lifecycle(Lifecycle())
