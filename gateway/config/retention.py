"""Which generations of a source are kept, as somebody wrote it down. `gateway.policy.retention` decides by it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import timedelta

DEFAULT_RELEASED_KEEP = timedelta(days=35)
DEFAULT_SWEEP_AFTER = timedelta(days=7)
ALL_OTHERS = "*"
"""In place of names: every source that no other table names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRules:
    """A generation is kept if any rule keeps it.

    `keep_last` and its like: so many generations, the newest of each hour, day, ISO week, month or year in UTC;
    0 is no such rule. `keep_within`: all that began so long before the newest, or later. `minimum_generations`: so many
    are kept whatever the rules say. `released_keep`: how long the last generation is kept that holds a file which
    later ones lack although its producer did not remove it. `sweep_after`: how long an expiry can be undone before
    packs are deleted because of it.
    """

    keep_last: int = 0
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    keep_within: timedelta | None = None
    minimum_generations: int = 1
    released_keep: timedelta = DEFAULT_RELEASED_KEEP
    sweep_after: timedelta = DEFAULT_SWEEP_AFTER

    def __post_init__(self) -> None:
        counts = [getattr(self, each) for each in COUNTS]
        if min(counts) < 0 or self.minimum_generations < 1 or min(self.released_keep, self.sweep_after) < timedelta():
            raise ValueError("counts and durations are not negative, minimum_generations is at least 1")
        if self.keep_within is not None and self.keep_within <= timedelta():
            raise ValueError("keep_within is longer than nothing")
        if not any(counts) and self.keep_within is None:
            raise ValueError("no rule keeps anything")


COUNTS = tuple(each.name for each in fields(RetentionRules) if each.name.startswith("keep_") and each.type == "int")
"""The rules that count generations or periods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionConfig:
    """The rules of some sources; `ALL_OTHERS` as the only name means all that no other table names."""

    sources: tuple[str, ...]
    rules: RetentionRules

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("rules are for one source at least")


def rules_of(tables: tuple[RetentionConfig, ...], source: str) -> RetentionRules | None:
    """The rules of a source; None: all its generations are kept."""
    for names in ((source,), (ALL_OTHERS,)):
        for table in tables:
            if set(names) & set(table.sources):
                return table.rules
    return None


def sweep_after(tables: tuple[RetentionConfig, ...], source: str) -> timedelta:
    """How long an expiry of the source can be undone, also where it has no rules and somebody expires by hand."""
    rules = rules_of(tables, source)
    return rules.sweep_after if rules is not None else DEFAULT_SWEEP_AFTER
