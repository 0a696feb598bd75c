"""Lifecycle rules as the client library gives and takes them: pure translation, there and back.

A rule that does not come back the same from the fields of `LifecycleRule` is kept as the text S3 gave: that is the test
of whether the fields hold all of it, and it needs no list of what S3 may invent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gateway.store.lifecycle import Lifecycle, LifecycleRule, SmallObjects, Transition
from gateway.store.s3_answers import Answer, NotAnAnswer, member


def lifecycle_of(answer: Answer) -> Lifecycle:
    """The rules in an answer to GetBucketLifecycleConfiguration; one without any is none: then S3 says 404."""
    rules = member(answer, "Rules", list)
    if not rules:
        raise NotAnAnswer("it has no rules")
    said = answer.get("TransitionDefaultMinimumObjectSize")
    try:
        small = SmallObjects(said) if said else SmallObjects.STAY
    except ValueError as error:
        raise NotAnAnswer(f"its minimum size is {said!r:.40}") from error
    return Lifecycle(rules=tuple(_rule_of(each) for each in rules), small_objects=small)


def request_of(lifecycle: Lifecycle) -> dict[str, Any]:
    """The arguments of PutBucketLifecycleConfiguration."""
    return {
        "LifecycleConfiguration": {"Rules": [_request_of(rule) for rule in lifecycle.rules]},
        "TransitionDefaultMinimumObjectSize": lifecycle.small_objects.value,
    }


def _rule_of(each: Mapping[str, Any]) -> LifecycleRule:
    status: str = member(each, "Status", str)
    name = each.get("ID") or ""
    try:
        rule = _read(each, name, enabled=status == "Enabled")
        if _request_of(rule) == _plain(each):
            return rule
    except (AttributeError, KeyError, TypeError, ValueError):
        pass  # not of our kind
    where = each.get("Filter") or {}
    prefix = each.get("Prefix") or where.get("Prefix") or (where.get("And") or {}).get("Prefix") or ""
    return LifecycleRule(
        id=name, prefix=prefix, enabled=status == "Enabled",
        foreign=json.dumps(each, sort_keys=True, default=datetime.isoformat),
    )  # fmt: skip


def _read(each: Mapping[str, Any], name: str, *, enabled: bool) -> LifecycleRule:
    """The fields of a rule, as far as there are any for what it says."""
    where = each.get("Filter") or {}
    inside = where.get("And") or where
    return LifecycleRule(
        id=name,
        prefix=inside.get("Prefix", ""),
        enabled=enabled,
        transitions=tuple(
            Transition(days=move["Days"], storage_class=move["StorageClass"]) for move in each.get("Transitions") or ()
        ),
        larger_than=inside.get("ObjectSizeGreaterThan"),
        smaller_than=inside.get("ObjectSizeLessThan"),
        expire_days=each["Expiration"]["Days"] if "Expiration" in each else None,
        abort_days=(each.get("AbortIncompleteMultipartUpload") or {}).get("DaysAfterInitiation"),
    )


def _plain(each: Mapping[str, Any]) -> dict[str, Any]:
    """A rule as it is compared: without members that are there and empty."""
    return {name: value for name, value in each.items() if value not in (None, [])}


def _request_of(rule: LifecycleRule) -> dict[str, Any]:
    if rule.foreign:
        kept: dict[str, Any] = json.loads(rule.foreign)
        return kept
    sizes = {
        name: size
        for name, size in (("ObjectSizeGreaterThan", rule.larger_than), ("ObjectSizeLessThan", rule.smaller_than))
        if size is not None
    }
    where: dict[str, Any] = {"Prefix": rule.prefix} if rule.prefix or not sizes else {}
    where |= sizes
    made: dict[str, Any] = {
        "ID": rule.id,
        "Status": "Enabled" if rule.enabled else "Disabled",
        "Filter": where if len(where) == 1 else {"And": where},
    }
    if rule.transitions:
        made["Transitions"] = [{"Days": each.days, "StorageClass": each.storage_class} for each in rule.transitions]
    if rule.expire_days is not None:
        made["Expiration"] = {"Days": rule.expire_days}
    if rule.abort_days is not None:
        made["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": rule.abort_days}
    return made
