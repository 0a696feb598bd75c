"""The table of segments finds packs by their numbers, whether these are dense or far apart."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import FakeClock
from gateway.errors import Corrupt
from gateway.format.directory import Columns
from gateway.repository.segment_table import DENSE, QUICK_SECONDS, SLOW_IN_A_ROW, TOGETHER, SegmentTable

numbers = st.one_of(st.integers(1, 50), st.integers(1, 10_000), st.integers(1, 2**32 - 1))


def table(declared: set[int]) -> SegmentTable:
    return SegmentTable(cast(Any, SimpleNamespace(declared=dict.fromkeys(declared))))


@given(st.sets(numbers, max_size=40), st.lists(numbers, max_size=20))
def test_a_slot_is_the_place_among_declared_packs(declared: set[int], asked: list[int]) -> None:
    ordered = sorted(declared)
    asked += ordered
    expected = [ordered.index(each) if each in declared else -1 for each in asked]
    assert table(declared).slots(np.array(asked, np.int64)).tolist() == expected


def test_one_high_number_takes_no_large_table() -> None:
    few, many = {1, 2**32 - 1}, set(range(1, 2000))
    assert table(few)._slot_of is None
    assert table(few).slots(np.array([2**32 - 1, 2, 1, 2**32 - 2])).tolist() == [1, -1, 0, -1]
    assert table(many)._slot_of is not None
    assert table(many | {DENSE * 2000 + 1024})._slot_of is not None
    assert table(many | {DENSE * 2000 + 1025})._slot_of is None


class Packs:
    """Each of three segments of two chunks; one of them is damaged. To read one takes `seconds`."""

    def __init__(self, count: int, seconds: list[float], damaged: int = 0) -> None:
        declaration = {number: SimpleNamespace(number=number, index_size=10) for number in range(1, count + 1)}
        self.declared = {number: SimpleNamespace(declaration=each) for number, each in declaration.items()}
        self.clock = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.by: list[str] = []
        self._seconds = seconds
        self._damaged = damaged

    def columns(self, declaration: Any) -> Columns:
        self.by.append(threading.current_thread().name)
        self.clock.sleep(self._seconds[(declaration.number - 1) % len(self._seconds)])
        if declaration.number == self._damaged:
            raise Corrupt("is damaged", address="x")
        few = np.arange(3, dtype=np.int64)
        return Columns(148 + 100 * few, few * 0 + 100, 2 * few, np.zeros((0, 3), np.int64), few * 0, 6, 6)


@pytest.mark.parametrize(
    ("seconds", "alone"),
    [
        ([QUICK_SECONDS / 2], 200),
        ([QUICK_SECONDS * 2], SLOW_IN_A_ROW),
        ([QUICK_SECONDS * 2] * (SLOW_IN_A_ROW - 1) + [0.0], 200),  # hiccups
    ],
)
def test_only_for_a_store_that_lets_one_wait_there_are_threads(seconds: list[float], alone: int) -> None:
    packs = Packs(200, seconds, damaged=150)
    found = SegmentTable(cast(Any, packs))
    found.load(np.arange(200))
    found.load(np.arange(200))
    found.close()
    assert len(packs.by) == 200
    assert [name.startswith("index") for name in packs.by] == [False] * alone + [True] * (200 - alone)
    assert set(found.failed) == {149}
    assert len(found) == 3 * 199
    assert [found.place_of(each) for each in (0, 3 * 149, 3 * 199 - 1)] == [(0, 1), (150, 151), (199, 200)]


def test_a_store_that_was_slow_for_a_while_is_tried_again() -> None:
    packs = Packs(4 * TOGETHER, [QUICK_SECONDS * 2] * 8 + [0.0] * (4 * TOGETHER - 8))
    found = SegmentTable(cast(Any, packs))
    for first in range(0, 4 * TOGETHER, 100):
        found.load(np.arange(first, min(first + 100, 4 * TOGETHER)))
    found.close()
    threads = [name.startswith("index") for name in packs.by]
    assert threads[:SLOW_IN_A_ROW] == [False] * SLOW_IN_A_ROW
    assert TOGETHER <= sum(threads) < TOGETHER + 100
    assert not any(threads[TOGETHER + 110 :])
    assert len(found) == 12 * TOGETHER
