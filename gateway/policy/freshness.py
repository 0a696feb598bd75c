"""Whether a source has a recent protected generation, and when its spool will be full. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

GRACE = 0.1
"""LIMIT: share of `expect_every` that a generation may be late; a job that starts at the same minute every night does
not end at the same minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """`age` is None where there is no protected generation; `overdue` by how much it should have been younger."""

    age: timedelta | None
    overdue: timedelta | None


def freshness(newest: datetime | None, since: datetime, now: datetime, expect_every: timedelta | None) -> Freshness:
    """`newest`: when the newest protected generation began; `since`: when the source was first watched, from where a
    source without any generation counts."""
    age = now - newest if newest is not None else None
    if expect_every is None:
        return Freshness(age=age, overdue=None)
    late = (age if age is not None else now - since) - expect_every * (1 + GRACE)
    return Freshness(age=age, overdue=late if late > timedelta() else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How much of a file system was in use at one moment (monotonic seconds)."""

    at: float
    used: int


WINDOW_SECONDS = 3600.0
"""LIMIT: a forecast looks at the last hour: a night's job fills in hours, and a rate older than that says nothing."""


def seconds_to_full(samples: list[Sample], capacity: int) -> float | None:
    """At the rate between the first and the last sample of the window; None when it does not fill."""
    if len(samples) < 2:
        return None
    last = samples[-1]
    first = next(each for each in samples if last.at - each.at <= WINDOW_SECONDS)
    passed, grown = last.at - first.at, last.used - first.used
    if passed <= 0 or grown <= 0:
        return None
    return max(0.0, (capacity - last.used) * passed / grown)
