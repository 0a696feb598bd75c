"""When an admin is told that a source cannot be reduced."""

from __future__ import annotations

import pytest

from gateway.policy.advice import WORTH_SAYING, of_reduction


@pytest.mark.parametrize(
    ("new", "raw", "said"),
    [
        (0, 0, False),
        (WORTH_SAYING - 1, WORTH_SAYING - 1, False),
        (WORTH_SAYING, WORTH_SAYING, True),
        (WORTH_SAYING, WORTH_SAYING // 2, True),
        (WORTH_SAYING, WORTH_SAYING // 2 - 1, False),
        (1 << 60, 1 << 59, True),
    ],
)
def test_advice(new: int, raw: int, said: bool) -> None:
    assert bool(of_reduction(new, raw)) is said


def test_it_says_how_much_and_what_to_do() -> None:
    first, *more = of_reduction(WORTH_SAYING, WORTH_SAYING * 9 // 10)
    assert first.startswith("90% of the new data cannot be reduced")
    assert any("FILESPERSET 1" in each for each in more)
    assert any("pg_basebackup without -z" in each for each in more)
