"""The lifecycle rules of the bucket that carry out the steps of classes. Pure: a plan's `after` is what is written.

S3 knows one configuration for a whole bucket, and a PUT replaces all of it. So a plan is made from what is there:
foreign rules stay as they are and in their order; ours are recognised by their ids alone and become what they should
be. LIMIT: the PUT is not conditional, so of two who write at once one change can get lost; whoever carried out a plan
reads the configuration again and plans anew: the new plan has no drift.

Ours move objects of ``packs/<class>/`` and nothing else, and abort uploads below ``packs/`` that nobody goes on with.
None of them deletes an object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any

from gateway.config.classes import ClassConfig

MOST_RULES = 1_000
"""LIMIT: rules of a bucket (S3 User Guide, "Setting an S3 Lifecycle configuration on a bucket")."""
SMALLEST_BYTES = 128 * 1024
"""Smaller objects stay where they are: S3 bills 128 KiB, or 40 KiB more than they have, in the colder classes."""
ABORT_DAYS = 14
"""An upload that nobody went on with for so long is aborted: longer than an outage from which the gateway resumes."""

ROOMS = ("chains/", "jobs/", "keys/", "packs/", "repository.json", "slots/")
"""Below a repository's prefix all names begin like one of these."""

Rule = Mapping[str, Any]
"""A rule as S3's API has it, which is a contract of theirs and not of ours."""


class DriftKind(StrEnum):
    MISSING = "missing"
    CHANGED = "changed"
    UNWANTED = "unwanted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A rule of ours that is not what it should be. `wanted`, `found`: what each does, empty where there is none."""

    rule: str
    kind: DriftKind
    wanted: str = ""
    found: str = ""

    def __str__(self) -> str:
        match self.kind:
            case DriftKind.MISSING:
                return f"rule {self.rule} is missing: {self.wanted}"
            case DriftKind.UNWANTED:
                return f"rule {self.rule} is not needed any more: {self.found}"
            case DriftKind.CHANGED:
                return f"rule {self.rule} should be: {self.wanted}; it is: {self.found}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignRule:
    """A rule that is not ours and acts on our objects: an alarm, since it deletes them, moves them to where the gateway
    does not expect them, or aborts uploads before they can be resumed. The gateway never changes it.

    `prefix`: what it acts on. `does`: its actions, in words. `deletes`: one of them removes what restores need.
    """

    rule: str
    prefix: str
    does: tuple[str, ...]
    deletes: bool

    def __str__(self) -> str:
        where = f'objects below "{self.prefix}"' if self.prefix else "all objects of the bucket"
        return f"lifecycle rule {self.rule} is not the gateway's and acts on {where}: {', '.join(self.does)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Why a plan must not be carried out, in one sentence."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecyclePlan:
    """`before`, `after`: all rules of the bucket. With `conflicts` they are the same, and drift is only reported.

    `minimum_object_size`: S3's ``TransitionDefaultMinimumObjectSize`` as it was; a PUT that leaves it out resets it.
    """

    before: tuple[Rule, ...]
    after: tuple[Rule, ...]
    drift: tuple[Drift, ...]
    foreign: tuple[ForeignRule, ...]
    conflicts: tuple[Conflict, ...] = ()
    minimum_object_size: str | None = None

    @property
    def changes(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.drift) and not self.conflicts


def plan(
    prefix: str,
    classes: Iterable[ClassConfig],
    existing: Sequence[Rule],
    *,
    in_use: Iterable[ClassConfig] = (),
    minimum_object_size: str | None = None,
) -> LifecyclePlan:
    """What the bucket's rules should become.

    `prefix`: the repository's, without a slash at its end, empty for the bucket's root. `classes`: those of the
    configuration; `in_use`: those that headers of living chains fix, also ones the configuration has no more.
    `existing`: the bucket's rules as boto3 gives them, none where it has no configuration.
    """
    before = tuple(existing)
    foreign = tuple(_foreign(prefix, before))
    wanted, conflicts = _wanted(prefix, tuple(classes), tuple(in_use))
    ids = own_prefix(prefix)
    found = {str(rule["ID"]): rule for rule in before if str(rule.get("ID", "")).startswith(ids)}
    drift = tuple(_drift(wanted, found))
    kept = [wanted.get(str(rule.get("ID", "")), rule) for rule in before if _stays(rule, ids, wanted)]
    after = (*kept, *(rule for name, rule in wanted.items() if name not in found))
    if len(after) > MOST_RULES:
        text = f"the bucket would have {len(after):,} lifecycle rules, and S3 takes {MOST_RULES:,}; remove others first"
        conflicts = (*conflicts, Conflict(text=text))
    return LifecyclePlan(
        before=before, after=before if conflicts else after, drift=drift, foreign=foreign, conflicts=conflicts,
        minimum_object_size=minimum_object_size,
    )  # fmt: skip


def own_prefix(prefix: str) -> str:
    """What the ids of a repository's rules begin with: a bucket may have several repositories, and others' rules."""
    return f"gateway.{blake2b(prefix.encode(), digest_size=6).hexdigest()}."


def in_words(rule: Rule) -> str:
    """What a rule does, for people; equal for rules that do the same."""
    scope = _scope(rule)
    parts = [f'below "{scope.prefix}"' if scope.prefix else "everywhere"]
    if scope.tags:
        parts.append(f"with {scope.tags}")
    if scope.larger_than is not None:
        parts.append(f"larger than {scope.larger_than:,} bytes")
    if scope.smaller_than is not None:
        parts.append(f"smaller than {scope.smaller_than:,} bytes")
    actions = _actions(rule) or ("nothing",)
    off = "" if rule.get("Status") == "Enabled" else " (switched off)"
    return f"{' '.join(parts)}: {', '.join(actions)}{off}"


def _stays(rule: Rule, ids: str, wanted: Mapping[str, Rule]) -> bool:
    name = str(rule.get("ID", ""))
    return name in wanted or not name.startswith(ids)


# --- what should be ---------------------------------------------------------------------------------------------------


def _wanted(
    prefix: str, classes: tuple[ClassConfig, ...], in_use: tuple[ClassConfig, ...]
) -> tuple[dict[str, Rule], tuple[Conflict, ...]]:
    ids, below = own_prefix(prefix), f"{prefix}/" if prefix else ""
    conflicts: list[Conflict] = []
    by_name = {each.name: each for each in classes}
    for used in in_use:
        known = by_name.setdefault(used.name, used)
        if known.steps != used.steps:
            text = (
                f'class "{used.name}" has living chains with the steps {_steps(used)}, and is to have {_steps(known)}: '
                "packs of both would move alike; give the new steps a new name"
            )
            conflicts.append(Conflict(text=text))
    wanted: dict[str, Rule] = {}
    for name in sorted(by_name):
        steps = by_name[name].steps[1:]
        if steps:
            wanted[f"{ids}{name}"] = {
                "ID": f"{ids}{name}",
                "Filter": {
                    "And": {"Prefix": f"{below}packs/{name}/", "ObjectSizeGreaterThan": SMALLEST_BYTES - 1},
                },
                "Status": "Enabled",
                "Transitions": [{"Days": days, "StorageClass": storage} for days, storage in steps],
            }
    # A dot is in no class's name. S3 takes an abort only in a rule without sizes and tags, so it is one of its own.
    wanted[f"{ids}.abort"] = {
        "ID": f"{ids}.abort",
        "Filter": {"Prefix": f"{below}packs/"},
        "Status": "Enabled",
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": ABORT_DAYS},
    }
    return wanted, tuple(dict.fromkeys(conflicts))


def _steps(config: ClassConfig) -> str:
    return ", ".join(f"day {days} {storage}" for days, storage in config.steps)


def _drift(wanted: Mapping[str, Rule], found: Mapping[str, Rule]) -> Iterable[Drift]:
    for name, rule in wanted.items():
        if name not in found:
            yield Drift(rule=name, kind=DriftKind.MISSING, wanted=in_words(rule))
        elif in_words(found[name]) != in_words(rule):
            yield Drift(rule=name, kind=DriftKind.CHANGED, wanted=in_words(rule), found=in_words(found[name]))
    for name, rule in found.items():
        if name not in wanted:
            yield Drift(rule=name, kind=DriftKind.UNWANTED, found=in_words(rule))


# --- what is there ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
    prefix: str
    tags: str
    larger_than: int | None
    smaller_than: int | None


def _scope(rule: Rule) -> _Scope:
    """The filter, in the old form (a prefix beside it) or the new one, where several conditions are in an ``And``."""
    filtered: Mapping[str, Any] = rule.get("Filter") or {}
    both: Mapping[str, Any] = {**filtered, **(filtered.get("And") or {})}
    tags = both.get("Tags") or ([both["Tag"]] if both.get("Tag") else [])
    return _Scope(
        prefix=str(both.get("Prefix") or rule.get("Prefix") or ""),
        tags=" and ".join(sorted(f"tag {each.get('Key')}={each.get('Value')}" for each in tags)),
        larger_than=both.get("ObjectSizeGreaterThan"),
        smaller_than=both.get("ObjectSizeLessThan"),
    )


def _when(action: Mapping[str, Any]) -> str:
    if action.get("Date") is not None:
        date = action["Date"]
        return f"on {date:%Y-%m-%d}" if hasattr(date, "strftime") else f"on {date}"
    return f"after {_days(action.get('Days', action.get('NoncurrentDays', 0)))}"


def _days(number: Any) -> str:
    return f"{number} day" if number == 1 else f"{number} days"


def _moves(rule: Rule, key: str, what: str) -> list[str]:
    moves = sorted(rule.get(key) or (), key=lambda each: (str(each.get("Date")), each.get("Days") or 0))
    return [f"moves {what} to {each.get('StorageClass')} {_when(each)}" for each in moves]


def _deletions(rule: Rule) -> list[str]:
    found: list[str] = []
    expiration = rule.get("Expiration") or {}
    if "Days" in expiration or "Date" in expiration:
        found.append(f"deletes objects {_when(expiration)}")
    return found


def _old_versions(rule: Rule) -> list[str]:
    found = _moves(rule, "NoncurrentVersionTransitions", "old versions")
    expiration = rule.get("NoncurrentVersionExpiration") or {}
    if expiration:
        kept = expiration.get("NewerNoncurrentVersions")
        found.append(f"deletes old versions {_when(expiration)}" + (f" but the newest {kept}" if kept else ""))
    if (rule.get("Expiration") or {}).get("ExpiredObjectDeleteMarker"):
        found.append("removes delete markers that hide nothing")
    return found


def _aborts_after(rule: Rule) -> int | None:
    abort = rule.get("AbortIncompleteMultipartUpload") or {}
    days = abort.get("DaysAfterInitiation")
    return int(days) if days is not None else None


KNOWN = frozenset(
    {
        "ID", "Filter", "Prefix", "Status", "Expiration", "Transitions", "NoncurrentVersionTransitions",
        "NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload",
    }
)  # fmt: skip


def _unknown(rule: Rule) -> list[str]:
    return [f"{key}, which this version does not know" for key in sorted(rule.keys() - KNOWN) if rule[key]]


def _actions(rule: Rule) -> tuple[str, ...]:
    days = _aborts_after(rule)
    abort = [f"aborts uploads after {_days(days)}"] if days is not None else []
    return (*_deletions(rule), *_moves(rule, "Transitions", "objects"), *_old_versions(rule), *abort, *_unknown(rule))


def _foreign(prefix: str, rules: Iterable[Rule]) -> Iterable[ForeignRule]:
    """Rules that act on objects or uploads below `prefix`, whoever's they are but ours.

    One for tagged objects does not: the gateway tags nothing. Old versions are not counted as ours either; objects are
    identified by what is in them, and an undo window is the bucket owner's to choose.
    """
    rooms = [f"{prefix}/{room}" if prefix else room for room in ROOMS]
    ids = own_prefix(prefix)
    for rule in rules:
        scope = _scope(rule)
        name = str(rule.get("ID", "")) or "without a name"
        if name.startswith(ids) or rule.get("Status") != "Enabled" or scope.tags:
            continue
        if not any(room.startswith(scope.prefix) or scope.prefix.startswith(room) for room in rooms):
            continue
        deletions = _deletions(rule)
        does = [*deletions, *_moves(rule, "Transitions", "objects"), *_unknown(rule)]
        days = _aborts_after(rule)
        if days is not None and days < ABORT_DAYS:
            does.append(f"aborts uploads after {_days(days)}, from which the gateway would have gone on")
        if does:
            yield ForeignRule(rule=name, prefix=scope.prefix, does=tuple(does), deletes=bool(deletions))
