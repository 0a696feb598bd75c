"""A bucket's lifecycle rules as values, and what they do to an object: pure.

S3 keeps one configuration a bucket, replaced whole at every PUT (S3 user guide, "Managing the lifecycle of objects"):
whoever changes a rule reads all, keeps the others as they are and writes all. So a rule that the values here cannot
hold completely (tags, dates, versions) is kept as the text S3 gave, and sent back as that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

CLASSES: Final = ("STANDARD", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE")
"""The storage classes that are used here, each colder than the one before: transitions go this way only."""
ARCHIVED: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Of these nothing is read before it was thawed."""

SMALL_BYTES: Final = 128 << 10
"""LIMIT: smaller objects do not move where no size filter says otherwise (the same guide, "Transitioning objects")."""


class SmallObjects(StrEnum):
    """What becomes of objects below 128 KiB under a rule without a filter of sizes; S3's words."""

    STAY = "all_storage_classes_128K"
    VARY = "varies_by_storage_class"
    """They move into GLACIER and DEEP_ARCHIVE, not into the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """`days`: the object's age, counted from the start of its upload."""

    days: int
    storage_class: str

    def __post_init__(self) -> None:
        if self.days < 0 or not self.storage_class:
            raise ValueError(f"not a transition: {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecycleRule:
    """`prefix` is of names in the bucket: `ObjectStore.base` and the beginning of a key.

    `larger_than`, `smaller_than`: bytes, both exclusive. `abort_days`: unfinished uploads older than that are aborted.
    `foreign`: JSON of the rule as S3 gave it, where the fields do not hold all of it; then that is what is sent back.
    """

    id: str
    prefix: str = ""
    enabled: bool = True
    transitions: tuple[Transition, ...] = ()
    larger_than: int | None = None
    smaller_than: int | None = None
    expire_days: int | None = None
    abort_days: int | None = None
    foreign: str = ""

    def covers(self, name: str, size: int) -> bool:
        """Whether the rule is in force for an object; a foreign one is not ours to judge and covers nothing."""
        if not self.enabled or self.foreign or not name.startswith(self.prefix):
            return False
        return (self.larger_than is None or size > self.larger_than) and (
            self.smaller_than is None or size < self.smaller_than
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """All rules of a bucket. Their order says nothing."""

    rules: tuple[LifecycleRule, ...] = ()
    small_objects: SmallObjects = SmallObjects.STAY


def midnight(moment: datetime) -> datetime:
    """`moment` rounded up to midnight UTC: how S3 rounds ages and the ends of thaws."""
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return day if day == moment else day + timedelta(days=1)


def refusal(lifecycle: Lifecycle) -> str:
    """Why S3 would not take these rules; empty when it would."""
    ids = [rule.id for rule in lifecycle.rules]
    if len(set(ids)) != len(ids) or not all(ids):
        return "rules need different ids"
    for rule in lifecycle.rules:
        if rule.foreign:
            continue
        if not rule.transitions and rule.expire_days is None and rule.abort_days is None:
            return f"rule {rule.id} does nothing"
        classes = [each.storage_class for each in rule.transitions]
        if any(each not in CLASSES[1:] for each in classes):
            return f"rule {rule.id} leads into an unknown storage class"
        colder = sorted(rule.transitions, key=lambda each: CLASSES.index(each.storage_class))
        days = [each.days for each in colder]
        if len(set(classes)) != len(classes) or days != sorted(set(days)):
            return f"rule {rule.id} does not lead downwards"
        if rule.expire_days is not None and (rule.expire_days < 1 or (days and rule.expire_days <= days[-1])):
            return f"rule {rule.id} lets objects expire before they move"
        if rule.abort_days is not None and rule.abort_days < 1:
            return f"rule {rule.id} aborts uploads at once"
        if None not in (rule.larger_than, rule.smaller_than) and (rule.larger_than or 0) + 1 >= (
            rule.smaller_than or 0
        ):
            return f"rule {rule.id} fits no size"
        if rule.abort_days is not None and (rule.larger_than, rule.smaller_than) != (None, None):
            return f"rule {rule.id} aborts uploads by size"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a rule does to an object at midnight `at`: move it into a class, or delete it (None)."""

    at: datetime
    storage_class: str | None


def steps(
    lifecycle: Lifecycle, *, name: str, size: int, storage_class: str, modified: datetime, since: datetime
) -> Iterator[Step]:
    """What the rules do to an object, in order of time, nothing of it before `since`.

    Where several apply at one midnight, deleting wins, then the coldest class.
    """
    found: list[tuple[datetime, int, Step]] = []
    for rule in lifecycle.rules:
        if not rule.covers(name, size):
            continue
        sized = rule.larger_than is not None or rule.smaller_than is not None
        for each in rule.transitions:
            moves = sized or size >= SMALL_BYTES
            moves = moves or (lifecycle.small_objects is SmallObjects.VARY and each.storage_class in ARCHIVED)
            if moves:
                at = max(midnight(modified + timedelta(days=each.days)), since)
                step = Step(at=at, storage_class=each.storage_class)
                found.append((at, -CLASSES.index(each.storage_class), step))
        if rule.expire_days is not None:
            at = max(midnight(modified + timedelta(days=rule.expire_days)), since)
            found.append((at, -len(CLASSES), Step(at=at, storage_class=None)))
    coldness = CLASSES.index(storage_class)
    for _, _, step in sorted(found, key=lambda item: item[:2]):
        if step.storage_class is None:
            yield step
            return
        if CLASSES.index(step.storage_class) > coldness:
            coldness = CLASSES.index(step.storage_class)
            yield step


def aborted_at(lifecycle: Lifecycle, *, name: str, initiated: datetime, since: datetime) -> datetime | None:
    """The midnight at which the rules abort an upload; None: never."""
    due = [
        max(midnight(initiated + timedelta(days=rule.abort_days)), since)
        for rule in lifecycle.rules
        if rule.abort_days is not None and rule.covers(name, 0)
    ]
    return min(due, default=None)
