"""When a source is overdue, and when a spool will be full."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.freshness import WINDOW_SECONDS, Freshness, Sample, freshness, seconds_to_full

NOW = datetime(2026, 11, 25, 7, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def test_a_source_that_expects_nothing_is_never_overdue() -> None:
    assert freshness(NOW - 400 * DAY, NOW - 500 * DAY, NOW, None) == Freshness(age=400 * DAY, overdue=None)
    assert freshness(None, NOW - 500 * DAY, NOW, None) == Freshness(age=None, overdue=None)


@pytest.mark.parametrize(
    ("age", "overdue"),
    [
        (timedelta(), None),
        (DAY, None),
        (DAY + 2.4 * HOUR, None),
        (DAY + 2.4 * HOUR + SECOND, SECOND),
        (3 * DAY, 3 * DAY - 1.1 * DAY),
    ],
)
def test_a_tenth_of_the_time_is_grace(age: timedelta, overdue: timedelta | None) -> None:
    assert freshness(NOW - age, NOW - 100 * DAY, NOW, DAY) == Freshness(age=age, overdue=overdue)


def test_without_a_generation_it_counts_from_when_somebody_began_to_watch() -> None:
    assert freshness(None, NOW - DAY, NOW, DAY) == Freshness(age=None, overdue=None)
    assert freshness(None, NOW - 2 * DAY, NOW, DAY) == Freshness(age=None, overdue=0.9 * DAY)
    # Old as it is, a generation counts, not the time of watching.
    assert freshness(NOW - 2 * DAY, NOW - SECOND, NOW, DAY).overdue == 0.9 * DAY


def test_a_generation_of_the_future_is_not_overdue() -> None:
    assert freshness(NOW + HOUR, NOW, NOW, HOUR).overdue is None


def _samples(*pairs: tuple[float, int]) -> list[Sample]:
    return [Sample(at=at, used=used) for at, used in pairs]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (_samples(), None),
        (_samples((0, 10)), None),
        (_samples((0, 10), (10, 10)), None),
        (_samples((0, 10), (10, 9)), None),
        (_samples((5, 10), (5, 20)), None),
        (_samples((0, 10), (10, 20)), 80.0),
        (_samples((0, 10), (3, 90), (10, 20)), 80.0),  # the ends count
        (_samples((0, 10), (10, 100)), 0.0),
        (_samples((0, 10), (10, 110)), 0.0),
    ],
)
def test_when_it_is_full_at_this_rate(samples: list[Sample], expected: float | None) -> None:
    assert seconds_to_full(samples, 100) == expected


def test_what_is_older_than_the_window_does_not_count() -> None:
    old = _samples((0, 0), (100, 80))
    late = 100 + WINDOW_SECONDS
    assert seconds_to_full([*old, Sample(at=late + 1, used=81)], 100) is None
    assert seconds_to_full([*old, Sample(at=late, used=81)], 100) == 19 * WINDOW_SECONDS


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 2**50)), max_size=10),
    st.integers(0, 2**50),
)
def test_a_forecast_is_never_negative(pairs: list[tuple[float, int]], capacity: int) -> None:
    found = seconds_to_full(_samples(*sorted(pairs)), capacity)
    assert found is None or found >= 0
