"""Restore jobs under other terms: what thaws too slowly is asked for again, deadlines are kept or refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.api import JobInfo, Reference, RestoreState
from gateway.errors import ApprovalNeeded, OverBudget, StoreUnreachable
from gateway.store.cold import Weather
from gateway.store.meter import Operation
from gateway.store.port import ThawTier
from tests.flow.cold_restores import DAY, freeze
from tests.flow.gateways import Gateway
from tests.flow.trees import tree

pytestmark = pytest.mark.usefixtures("long_waits")

HOUR = timedelta(hours=1)
SRC = Reference.parse("src")


def begun(gateway: Gateway, name: str = "to", **options: Any) -> tuple[JobInfo, Path]:
    target = gateway.root / name
    gateway.engine.restore(SRC, target, detach=True, **options)
    return gateway.engine.jobs()[0], target


def approval_above(gateway: Gateway, amount: Decimal) -> None:
    gateway.close()
    gateway.config = replace(gateway.config, restore=replace(gateway.config.restore, approval_above=amount))


def thaws(gateway: Gateway) -> list[tuple[int, ThawTier]]:
    """What was asked for: the answer's status, and the tier."""
    return [(e.status, e.tier) for e in gateway.store.log() if e.what is Operation.THAW and e.tier is not None]


def delivered(gateway: Gateway, job: JobInfo, target: Path) -> JobInfo:
    gateway.engine.watch_job(job.id)
    assert tree(target) == tree(gateway.source.root)
    now = gateway.engine.job(job.id)
    assert now.state is RestoreState.DELIVERED
    return now


# --- hastening --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("age", [0, 1, 4])
def test_a_nearer_deadline_hastens_however_old_the_job_is(frozen: Gateway, age: int) -> None:
    job, target = begun(frozen)
    asked = thaws(frozen)
    assert set(asked) == {(202, ThawTier.BULK)}
    frozen.clock.advance(age * HOUR)
    start = frozen.clock.now()
    assert frozen.engine.resume_job(job.id, deadline=HOUR).tier == "expedited"
    delivered(frozen, job, target)
    assert frozen.clock.now() - start < HOUR
    assert thaws(frozen)[len(asked) :] == [(202, ThawTier.EXPEDITED)] * len(asked)


@pytest.mark.parametrize("age", [0, 1])
def test_from_deep_archive_a_thaw_is_hastened_with_the_days_it_has(gateway: Gateway, age: int) -> None:
    """Of bulk thaws copies are asked for longer than of standard ones; other days the store refuses."""
    freeze(gateway, files="abcd", storage="DEEP_ARCHIVE")
    job, target = begun(gateway)
    asked = thaws(gateway)
    assert set(asked) == {(202, ThawTier.BULK)}
    gateway.clock.advance(age * HOUR)
    start = gateway.clock.now()
    assert gateway.engine.resume_job(job.id, deadline=14 * HOUR).tier == "standard"
    delivered(gateway, job, target)
    assert gateway.clock.now() - start < 14 * HOUR
    assert thaws(gateway)[len(asked) :] == [(202, ThawTier.STANDARD)] * len(asked)


def test_more_money_hastens_nothing_and_is_not_quoted_as_if_it_did(frozen: Gateway) -> None:
    job, target = begun(frozen, tier="standard", budget=Decimal(1))
    asked = len(thaws(frozen))
    frozen.clock.advance(HOUR)
    now = frozen.engine.resume_job(job.id, budget=Decimal(2))
    assert (now.tier, now.budget) == ("standard", "2")
    assert now.quote_usd == pytest.approx(job.quote_usd, rel=0.2)
    assert now.quote_hours == pytest.approx(4, abs=0.2)
    delivered(frozen, job, target)
    assert len(thaws(frozen)) == asked


def test_what_another_job_thaws_is_not_hastened_and_that_is_said(frozen: Gateway) -> None:
    first, one = begun(frozen, "one", tier="bulk")
    frozen.clock.advance(HOUR)
    job, target = begun(frozen)
    asked = len(thaws(frozen))
    with pytest.raises(OverBudget, match="it takes up to 11 h"):
        frozen.engine.resume_job(job.id, deadline=6 * HOUR)
    assert frozen.engine.resume_job(job.id, deadline=12 * HOUR).state is RestoreState.THAWING
    delivered(frozen, job, target)
    delivered(frozen, first, one)
    assert len(thaws(frozen)) == asked


# --- deadlines --------------------------------------------------------------------------------------------------------


def test_more_money_does_not_lift_the_deadline(frozen: Gateway) -> None:
    """What is still to be asked for is asked for by the tier that is in time."""
    approval_above(frozen, Decimal(0))
    with pytest.raises(ApprovalNeeded):
        begun(frozen, deadline=6 * HOUR, budget=Decimal(1))
    (job,) = frozen.engine.jobs()
    approval_above(frozen, Decimal(25))
    frozen.clock.advance(HOUR / 2)
    now = frozen.engine.resume_job(job.id, budget=Decimal(2))
    assert (now.tier, now.deadline, now.state) == ("standard", job.deadline, RestoreState.THAWING)
    delivered(frozen, job, frozen.root / "to")
    assert job.deadline is not None
    assert frozen.clock.now() < job.deadline
    assert {tier for _, tier in thaws(frozen)} == {ThawTier.STANDARD}


def test_more_money_after_the_deadline_is_refused(frozen: Gateway) -> None:
    job, target = begun(frozen, deadline=6 * HOUR, budget=Decimal("0.001"))
    frozen.engine.pause_job(job.id)
    frozen.clock.advance(10 * DAY)
    with pytest.raises(OverBudget, match="has 0 min"):
        frozen.engine.resume_job(job.id, budget=Decimal(5))
    assert frozen.engine.job(job.id).budget == "0.001"
    frozen.engine.resume_job(job.id, budget=Decimal(5), deadline=12 * HOUR)
    delivered(frozen, job, target)


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_killed_while_it_hastens(frozen: Gateway, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    """Nobody can say which tier goes on: it is asked for once more, whatever the job's age is."""
    job, target = begun(frozen)
    asked = len(thaws(frozen))
    frozen.clock.advance(HOUR)
    start = frozen.clock.now()
    frozen.engine.resume_job(job.id, deadline=HOUR)
    thaw = frozen.store.thaw

    def unreachable(*arguments: Any, **options: Any) -> Any:
        if lost == "answer":
            thaw(*arguments, **options)
        raise StoreUnreachable("Nobody answers.")

    frozen.open()
    monkeypatch.setattr(frozen.store, "thaw", unreachable)
    with pytest.raises(StoreUnreachable):
        frozen.engine.watch_job(job.id)
    monkeypatch.setattr(frozen.store, "thaw", thaw)
    frozen.open()
    delivered(frozen, job, target)
    assert frozen.clock.now() - start < HOUR
    assert thaws(frozen).count((202, ThawTier.EXPEDITED)) == asked


def waiting(gateway: Gateway, **options: Any) -> JobInfo:
    """A job that waits for approval."""
    approval_above(gateway, Decimal(0))
    with pytest.raises(ApprovalNeeded):
        begun(gateway, **options)
    return gateway.engine.jobs()[0]


def test_an_approval_that_comes_late_is_for_a_tier_that_is_in_time(frozen: Gateway) -> None:
    """Another tier is another price: nobody has approved that yet."""
    job = waiting(frozen, deadline=6 * HOUR)
    assert job.tier == "standard"
    frozen.clock.advance(5 * HOUR)
    with pytest.raises(ApprovalNeeded, match="by expedited thaws"):
        frozen.engine.approve_job(job.id, operator="anna")
    now = frozen.engine.job(job.id)
    assert (now.state, now.tier, now.approved_by) == (RestoreState.APPROVAL, "expedited", "")
    assert now.quote_usd is not None
    assert job.quote_usd is not None
    assert now.quote_usd > job.quote_usd
    assert thaws(frozen) == []
    assert frozen.engine.approve_job(job.id, operator="anna").approved_by == "anna"
    delivered(frozen, job, frozen.root / "to")
    assert job.deadline is not None
    assert frozen.clock.now() < job.deadline


def test_an_approval_that_comes_too_late_is_refused(frozen: Gateway) -> None:
    job = waiting(frozen, deadline=6 * HOUR, tier="standard")
    frozen.clock.advance(5 * HOUR)
    with pytest.raises(OverBudget, match="and has 1 h"):
        frozen.engine.approve_job(job.id)
    assert frozen.engine.job(job.id).state is RestoreState.APPROVAL
    with pytest.raises(ApprovalNeeded):
        frozen.engine.resume_job(job.id, deadline=6 * HOUR)
    frozen.engine.approve_job(job.id)
    delivered(frozen, job, frozen.root / "to")
    assert {tier for _, tier in thaws(frozen)} == {ThawTier.STANDARD}


def test_an_approval_in_time_keeps_the_tier(frozen: Gateway) -> None:
    job = waiting(frozen, deadline=20 * HOUR)
    frozen.clock.advance(HOUR)
    assert frozen.engine.approve_job(job.id).tier == job.tier == "bulk"


def test_a_hot_restore_that_is_approved_too_late_is_refused(gateway: Gateway) -> None:
    gateway.source.noise("a", 100_000)
    gateway.made()
    gateway.config = replace(gateway.config, repository=replace(gateway.config.repository, region="us-east-1"))
    gateway.lose_state()
    job = waiting(gateway, deadline=HOUR)
    gateway.clock.advance(2 * HOUR)
    with pytest.raises(OverBudget, match="its deadline is in 0 min"):
        gateway.engine.approve_job(job.id)
    assert not job.target.exists()


@pytest.mark.parametrize("stopped", ["paused", "not carried out"])
def test_a_job_that_stood_still_asks_for_nothing_that_comes_too_late(frozen: Gateway, stopped: str) -> None:
    if stopped == "paused":  # and its copies are gone
        job, target = begun(frozen, deadline=6 * HOUR)
        frozen.engine.pause_job(job.id)
        frozen.clock.advance(10 * DAY)
        frozen.engine.resume_job(job.id)
    else:
        job, target = waiting(frozen, deadline=6 * HOUR), frozen.root / "to"
        frozen.engine.approve_job(job.id)
        frozen.clock.advance(5 * HOUR)
    asked = len(thaws(frozen))
    with pytest.raises(OverBudget, match="takes up to 5 h 1 min by standard thaws"):
        frozen.engine.watch_job(job.id)
    now = frozen.engine.job(job.id)
    assert (now.state, now.problem) == (RestoreState.PAUSED, "OverBudget")
    assert len(thaws(frozen)) == asked
    approval_above(frozen, Decimal(25))
    frozen.engine.resume_job(job.id, deadline=6 * HOUR)
    delivered(frozen, job, target)


def test_expedited_without_capacity_does_not_go_on_too_slowly_for_the_deadline(frozen: Gateway) -> None:
    frozen.store._shelf._weather = Weather(expedited_capacity=0.0)
    job, target = begun(frozen, deadline=HOUR)
    assert job.tier == "expedited"
    with pytest.raises(OverBudget, match="by standard thaws"):
        frozen.engine.watch_job(job.id)
    assert {status for status, _ in thaws(frozen)} == {503}
    frozen.engine.resume_job(job.id, deadline=6 * HOUR)
    delivered(frozen, job, target)


def test_what_thaws_already_is_waited_for_however_late_it_comes(frozen: Gateway) -> None:
    job, target = begun(frozen, deadline=6 * HOUR)
    frozen.engine.pause_job(job.id)
    frozen.clock.advance(7 * HOUR)
    frozen.engine.resume_job(job.id)
    delivered(frozen, job, target)
