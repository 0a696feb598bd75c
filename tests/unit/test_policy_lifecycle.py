"""The bucket's rules: ours become what they should be, others' stay and are named where they touch us."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.classes import BUILT_IN, DEEP, INSTANT, ClassConfig
from gateway.format import names
from gateway.policy.lifecycle import (
    ABORT_DAYS,
    MOST_RULES,
    ROOMS,
    SMALLEST_BYTES,
    Drift,
    DriftKind,
    LifecyclePlan,
    in_words,
    own_prefix,
    plan,
)

OWN = own_prefix("gw")
DEEP_RULE = {
    "ID": f"{OWN}deep",
    "Filter": {"And": {"Prefix": "gw/packs/deep/", "ObjectSizeGreaterThan": SMALLEST_BYTES - 1}},
    "Status": "Enabled",
    "Transitions": [{"Days": 97, "StorageClass": "DEEP_ARCHIVE"}],
}
ABORT_RULE = {
    "ID": f"{OWN}.abort",
    "Filter": {"Prefix": "gw/packs/"},
    "Status": "Enabled",
    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": ABORT_DAYS},
}


def foreign(**actions: Any) -> dict[str, Any]:
    return {"ID": "logs", "Filter": {"Prefix": "logs/"}, "Status": "Enabled", **actions}


def planned(*rules: dict[str, Any], classes: tuple[ClassConfig, ...] = BUILT_IN, **more: Any) -> LifecyclePlan:
    return plan("gw", classes, rules, **more)


def test_an_empty_bucket_gets_one_rule_for_each_class_that_moves_and_one_for_uploads() -> None:
    made = planned()
    assert made.after == (DEEP_RULE, ABORT_RULE)
    assert made.changes
    assert not made.foreign
    assert [str(each) for each in made.drift] == [
        f"rule {OWN}deep is missing: {in_words(DEEP_RULE)}",
        f'rule {OWN}.abort is missing: below "gw/packs/": aborts uploads after 14 days',
    ]
    assert in_words(DEEP_RULE) == (
        'below "gw/packs/deep/" larger than 131,071 bytes: moves objects to DEEP_ARCHIVE after 97 days'
    )
    assert planned(*made.after).drift == ()
    assert not planned(*made.after).changes


def test_rules_have_the_shape_that_s3_takes() -> None:
    many = ClassConfig(
        name="x", steps=((0, "STANDARD"), (30, "STANDARD_IA"), (90, "GLACIER")), hot_days=3, chain_days=60
    )
    shape = botocore.session.Session().get_service_model("s3").operation_model("PutBucketLifecycleConfiguration")
    assert shape.input_shape is not None
    for prefix in ("", "a/b"):
        rules = list(plan(prefix, (*BUILT_IN, many), []).after)
        asked = {"Bucket": "bucket", "LifecycleConfiguration": {"Rules": rules}}
        assert not ParamValidator().validate(asked, shape.input_shape).has_errors()
        assert all(len(rule["ID"]) <= 255 for rule in rules)
        for rule in rules:
            if "Transitions" in rule:
                below = rule["Filter"]["And"]["Prefix"]
                chain = names.pack_prefix(rule["ID"].rsplit(".", 1)[1], names.ChainName("s", 1))
                assert (f"{prefix}/" if prefix else "") + chain == below + "s/000001/"
    assert any(names.header(names.ChainName("s", 1)).startswith(room) for room in ROOMS)


def test_foreign_rules_stay_untouched_and_in_order() -> None:
    first, second = foreign(Expiration={"Days": 3}), foreign(ID="zz", Prefix="old/", Transitions=[])
    before = [first, {**DEEP_RULE, "Transitions": [{"Days": 30, "StorageClass": "GLACIER"}]}, second]
    untouched = copy.deepcopy(before)
    made = planned(*before, minimum_object_size="varies_by_storage_class")
    assert made.after == (first, DEEP_RULE, second, ABORT_RULE)
    assert before == untouched
    assert made.minimum_object_size == "varies_by_storage_class"
    assert [(each.kind, each.rule) for each in made.drift] == [
        (DriftKind.CHANGED, f"{OWN}deep"), (DriftKind.MISSING, f"{OWN}.abort"),
    ]  # fmt: skip
    assert "should be: " in str(made.drift[0])
    assert "moves objects to GLACIER after 30 days" in made.drift[0].found


@pytest.mark.parametrize(
    "change",
    [
        {"Status": "Disabled"},
        {"Filter": {"Prefix": "gw/packs/deep/"}},
        {"Filter": {"And": {"Prefix": "gw/packs/", "ObjectSizeGreaterThan": SMALLEST_BYTES - 1}}},
        {"Transitions": [{"Days": 96, "StorageClass": "DEEP_ARCHIVE"}]},
        {"Transitions": [{"Date": datetime(2027, 1, 1, tzinfo=UTC), "StorageClass": "DEEP_ARCHIVE"}]},
        {"Expiration": {"Days": 400}},
        {"NoncurrentVersionExpiration": {"NoncurrentDays": 30, "NewerNoncurrentVersions": 2}},
        {"NewAction": {"Days": 3}},
    ],
)
def test_every_change_of_a_rule_of_ours_is_drift(change: dict[str, Any]) -> None:
    made = planned({**DEEP_RULE, **change}, ABORT_RULE)
    (drift,) = made.drift
    assert (drift.kind, drift.rule) == (DriftKind.CHANGED, f"{OWN}deep")
    assert drift.wanted != drift.found
    assert made.after == (DEEP_RULE, ABORT_RULE)


def test_the_same_in_other_words_is_no_drift() -> None:
    other = {**DEEP_RULE, "NoncurrentVersionTransitions": [], "Expiration": {}}
    assert planned(other, {**ABORT_RULE, "Filter": {"And": {"Prefix": "gw/packs/", "Tags": []}}}).drift == ()
    old_form = {key: value for key, value in ABORT_RULE.items() if key != "Filter"} | {"Prefix": "gw/packs/"}
    assert planned(DEEP_RULE, old_form).drift == ()


def test_a_rule_goes_with_its_last_chain() -> None:
    month = ClassConfig(name="month", steps=((0, "STANDARD"), (45, "DEEP_ARCHIVE")), hot_days=14, chain_days=24)
    before = planned(classes=(*BUILT_IN, month)).after
    assert [rule["ID"] for rule in planned(*before, in_use=[month, INSTANT]).after] == [rule["ID"] for rule in before]
    assert not planned(*before, in_use=[month]).drift
    gone = planned(*before)
    assert gone.after == (DEEP_RULE, ABORT_RULE)
    assert gone.drift == (
        Drift(
            rule=f"{OWN}month", kind=DriftKind.UNWANTED,
            found='below "gw/packs/month/" larger than 131,071 bytes: moves objects to DEEP_ARCHIVE after 45 days',
        ),
    )  # fmt: skip
    assert "not needed any more" in str(gone.drift[0])


def test_steps_of_living_chains_do_not_change() -> None:
    old = ClassConfig(name="month", steps=((0, "STANDARD"), (45, "DEEP_ARCHIVE")), hot_days=14, chain_days=24)
    new = ClassConfig(name="month", steps=((0, "STANDARD"), (40, "DEEP_ARCHIVE")), hot_days=14, chain_days=19)
    before = planned(classes=(*BUILT_IN, old)).after
    made = planned(*before, classes=(*BUILT_IN, new), in_use=[old, old])
    assert not made.changes
    assert made.after == before
    (conflict,) = made.conflicts
    assert conflict.text == (
        'class "month" has living chains with the steps day 0 STANDARD, day 45 DEEP_ARCHIVE, and is to have day 0 '
        "STANDARD, day 40 DEEP_ARCHIVE: packs of both would move alike; give the new steps a new name"
    )
    assert planned(*before, classes=(*BUILT_IN, new)).changes, "without chains the name is free"


@pytest.mark.parametrize(
    ("rule", "does", "deletes"),
    [
        (foreign(Filter={}, Expiration={"Days": 90}), "deletes objects after 90 days", True),
        (foreign(Filter={"Prefix": ""}, Expiration={"Days": 90}), "deletes objects after 90 days", True),
        (foreign(Filter={"Prefix": "g"}, Expiration={"Days": 90}), "deletes objects after 90 days", True),
        (
            foreign(Filter={"Prefix": "gw/chains/a"}, Expiration={"Date": datetime(2027, 1, 1, tzinfo=UTC)}),
            "deletes objects on 2027-01-01",
            True,
        ),
        (
            foreign(Filter={"ObjectSizeGreaterThan": 5}, Transitions=[{"Days": 0, "StorageClass": "GLACIER"}]),
            "moves objects to GLACIER after 0 days",
            False,
        ),
        (
            foreign(Filter={}, Prefix="gw/packs/meta/", Transitions=[{"Days": 1, "StorageClass": "X"}]),
            "moves objects to X after 1 day",
            False,
        ),
        (
            foreign(Filter={"Prefix": ""}, AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1}),
            "aborts uploads after 1 day, from which the gateway would have gone on",
            False,
        ),
        (foreign(Filter={"Prefix": ""}, Melt={"Days": 1}), "Melt, which this version does not know", False),
    ],
)  # fmt: skip
def test_a_foreign_rule_that_touches_us_is_named(rule: dict[str, Any], does: str, *, deletes: bool) -> None:
    made = planned(rule, DEEP_RULE, ABORT_RULE)
    (alarm,) = made.foreign
    assert (alarm.rule, alarm.does, alarm.deletes) == (rule["ID"], (does,), deletes)
    assert str(alarm).startswith(f"lifecycle rule {rule['ID']} is not the gateway's and acts on ")
    assert made.after[0] == rule
    assert not made.changes


@pytest.mark.parametrize(
    "rule",
    [
        foreign(Expiration={"Days": 1}),
        foreign(Filter={"Prefix": "gw2/"}, Expiration={"Days": 1}),
        foreign(Filter={"Prefix": ""}, Expiration={"Days": 1}, Status="Disabled"),
        foreign(Filter={"Tag": {"Key": "k", "Value": "v"}}, Expiration={"Days": 1}),
        foreign(Filter={"And": {"Prefix": "", "Tags": [{"Key": "k", "Value": "v"}]}}, Expiration={"Days": 1}),
        foreign(Filter={"Prefix": ""}, NoncurrentVersionExpiration={"NoncurrentDays": 30}),
        foreign(Filter={"Prefix": ""}, Expiration={"ExpiredObjectDeleteMarker": True}),
        foreign(Filter={"Prefix": ""}, AbortIncompleteMultipartUpload={"DaysAfterInitiation": ABORT_DAYS}),
        foreign(Filter={"Prefix": "gw/something-else/"}, Expiration={"Days": 1}),
    ],
)
def test_a_foreign_rule_that_does_not_touch_us_is_left_alone(rule: dict[str, Any]) -> None:
    made = planned(rule)
    assert made.foreign == ()
    assert made.after[0] == rule


def test_repositories_in_one_bucket_do_not_touch_each_other() -> None:
    one = plan("one", BUILT_IN, []).after
    both = plan("two", BUILT_IN, one)
    assert both.after[: len(one)] == one
    assert not both.foreign
    assert not plan("one", BUILT_IN, both.after).drift
    root = plan("", BUILT_IN, both.after)
    assert not root.foreign
    assert root.after[-1]["Filter"] == {"Prefix": "packs/"}


def test_s3_takes_a_thousand_rules() -> None:
    many = [foreign(ID=f"r{number}") for number in range(MOST_RULES)]
    made = planned(*many[:-2])
    assert made.changes
    assert len(made.after) == MOST_RULES
    made = planned(*many[:-1])
    assert not made.changes
    assert made.after == tuple(many[:-1])
    assert made.conflicts[0].text.startswith("the bucket would have 1,001 lifecycle rules")


def test_words_are_for_people() -> None:
    rule = foreign(
        Filter={"And": {"Prefix": "x/", "Tags": [{"Key": "k", "Value": "v"}], "ObjectSizeLessThan": 10}},
        NoncurrentVersionExpiration={"NoncurrentDays": 30, "NewerNoncurrentVersions": 2},
        NoncurrentVersionTransitions=[{"NoncurrentDays": 3, "StorageClass": "GLACIER"}],
        Expiration={"ExpiredObjectDeleteMarker": True},
        Status="Disabled",
    )
    assert in_words(rule) == (
        'below "x/" with tag k=v smaller than 10 bytes: moves old versions to GLACIER after 3 days, deletes old '
        "versions after 30 days but the newest 2, removes delete markers that hide nothing (switched off)"
    )
    assert in_words({"ID": "x", "Status": "Enabled"}) == "everywhere: nothing"


rules_of_any_kind = st.lists(
    st.fixed_dictionaries(
        {
            "ID": st.sampled_from(["a", "b", f"{OWN}deep", f"{OWN}old", f"{OWN}.abort", "gateway.x"]),
            "Status": st.sampled_from(["Enabled", "Disabled"]),
        },
        optional={
            "Prefix": st.sampled_from(["", "gw/", "x"]),
            "Filter": st.sampled_from([{}, {"Prefix": "gw/packs/"}, {"Tag": {"Key": "a", "Value": "b"}}]),
            "Expiration": st.sampled_from([{"Days": 3}, {"ExpiredObjectDeleteMarker": True}]),
            "Transitions": st.just([{"Days": 97, "StorageClass": "DEEP_ARCHIVE"}]),
        },
    ),
    unique_by=lambda rule: rule["ID"],
)


@given(rules_of_any_kind, st.sampled_from([(), (DEEP,)]))
def test_carried_out_once_a_plan_is_done_and_keeps_what_is_foreign(
    before: list[dict[str, Any]], in_use: tuple[ClassConfig, ...]
) -> None:
    made = planned(*before, in_use=in_use)
    again = planned(*made.after, in_use=in_use)
    assert (again.drift, again.after, again.foreign) == ((), made.after, made.foreign)

    def others(rules: Any) -> list[Any]:
        return [rule for rule in rules if not rule["ID"].startswith(OWN)]

    assert others(made.after) == others(before)
    for rule in made.after:
        if rule["ID"].startswith(OWN):
            assert rule in (DEEP_RULE, ABORT_RULE)
