"""When a new chain opens, and why."""

from __future__ import annotations

from dataclasses import replace

from gateway.policy.rolling import DAY_MS, JITTER, NewestChain, lifetime, reason_to_roll, transition

DEEP = NewestChain(
    storage="deep",
    created=100 * DAY_MS,
    steps=(0, "GLACIER_IR", 97, "DEEP_ARCHIVE"),
    hot_days=30,
    chain_days=60,
    oldest=100 * DAY_MS,
    longest=DAY_MS // 2,
)


def reason(chain: NewestChain | None, day: float, storage: str = "deep", **options: bool) -> str:
    return reason_to_roll(chain, storage, source="db", now=int(day * DAY_MS), **options)


def test_a_first_a_broken_and_another_class() -> None:
    assert reason(None, 100) == "it is the source's first"
    assert "closed" in reason(replace(DEEP, problem="it is closed"), 100)
    assert reason(DEEP, 100, storage="hot") == "the class changed from deep to hot"
    assert reason(DEEP, 100, requested=True) == "it was asked for"
    assert reason(DEEP, 100) == ""


def test_a_class_that_never_gets_cold_has_no_law() -> None:
    instant = NewestChain(storage="instant", steps=(0, "GLACIER_IR"), created=1, oldest=1)
    assert transition(instant.steps) is None
    assert reason(instant, 10_000, storage="instant") == ""


def test_a_chain_ends_at_its_age_which_differs_from_source_to_source() -> None:
    days = lifetime(60, "db")
    assert 60 * (1 - JITTER) <= days <= 60
    assert len({lifetime(60, f"db-{number}") for number in range(20)}) == 20
    assert lifetime(0, "db") == 0
    young = replace(DEEP, oldest=10**15)
    assert reason(young, 100 + days - 0.1) == ""
    assert reason(young, 100.1 + days).startswith(f"the chain before is {days:.0f} days old, of 60")


def test_no_generation_goes_where_it_would_get_cold_too_early() -> None:
    """97 days after the oldest pack it is cold; 30 days of reading at once and two ingests of half a day must fit."""
    old = replace(DEEP, chain_days=0)
    assert reason(old, 100 + 97 - 31) == ""
    assert reason(old, 100 + 97 - 30.9) == (
        "packs of the chain before get cold in 30 days, and a generation has to be readable at once for 30"
    )
    assert reason(replace(old, oldest=0), 500) == "", "nothing is in it yet"
