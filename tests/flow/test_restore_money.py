"""What restore jobs may spend: nothing is asked for beyond what was quoted, approved and budgeted, whenever it is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.api import JobInfo, Reference, RestoreState, no_progress
from gateway.config.prices import SHIPPED
from gateway.config.values import PricesConfig
from gateway.errors import ApprovalNeeded, OverBudget
from gateway.store.meter import Operation
from tests.flow.cold_restores import DAY, FAST_LINK, freeze
from tests.flow.gateways import KIB, Gateway
from tests.flow.trees import tree

pytestmark = pytest.mark.usefixtures("long_waits")

HOUR = timedelta(hours=1)
SRC = Reference.parse("src")


def thaws(gateway: Gateway) -> int:
    return sum(each.what is Operation.THAW for each in gateway.store.log())


def quotes(gateway: Gateway) -> dict[str, Decimal]:
    _, dry = gateway.restore(dry_run=True)
    return {each.tier: Decimal(str(each.usd)) for each in dry.plan.tiers}


def approval_above(gateway: Gateway, amount: Decimal) -> None:
    gateway.close()
    gateway.config = replace(gateway.config, restore=replace(gateway.config.restore, approval_above=amount))


def begun(gateway: Gateway, name: str = "to", **options: object) -> tuple[JobInfo, Path]:
    target = gateway.root / name
    gateway.engine.restore(SRC, target, detach=True, **options)  # type: ignore[arg-type]
    return gateway.engine.jobs()[0], target


def paused_until_it_freezes(gateway: Gateway, job: JobInfo) -> None:
    gateway.engine.pause_job(job.id)
    gateway.clock.advance(10 * DAY)
    gateway.engine.resume_job(job.id)


def waits(gateway: Gateway, job: JobInfo) -> JobInfo:
    """It waits for approval, and asks for nothing."""
    asked = thaws(gateway)
    with pytest.raises(ApprovalNeeded, match=job.id):
        gateway.engine.watch_job(job.id)
    now = gateway.engine.job(job.id)
    assert (now.state, now.problem, now.approved_by) == (RestoreState.APPROVAL, "ApprovalNeeded", "")
    assert thaws(gateway) == asked
    return now


def delivered(gateway: Gateway, job: JobInfo, target: Path) -> JobInfo:
    gateway.engine.watch_job(job.id)
    assert tree(target) == tree(gateway.source.root)
    now = gateway.engine.job(job.id)
    assert now.state is RestoreState.DELIVERED
    return now


# --- approval ---------------------------------------------------------------------------------------------------------


def test_what_freezes_again_is_not_asked_for_beyond_what_needs_no_approval(frozen: Gateway) -> None:
    usd = quotes(frozen)["expedited"]
    approval_above(frozen, usd * Decimal("1.01"))
    job, target = begun(frozen, tier="expedited")
    paused_until_it_freezes(frozen, job)
    now = waits(frozen, job)
    assert Decimal(str(now.spent_usd)) <= frozen.config.restore.approval_above
    assert Decimal(str(now.quote_usd)) == pytest.approx(2 * usd, rel=Decimal("0.01"))
    assert "approval_above is" in now.reason
    asked = thaws(frozen)
    frozen.engine.approve_job(job.id, operator="anna")
    assert frozen.engine.job(job.id).problem == ""
    done = delivered(frozen, job, target)
    assert thaws(frozen) == 2 * asked
    assert done.approved_by == "anna"
    assert Decimal(str(done.spent_usd)) <= Decimal(str(now.quote_usd)) * Decimal("1.01")


def test_what_was_approved_once_is_not_approved_twice(frozen: Gateway) -> None:
    approval_above(frozen, Decimal(0))
    with pytest.raises(ApprovalNeeded):
        begun(frozen, tier="expedited")
    job, target = frozen.engine.jobs()[0], frozen.root / "to"
    frozen.engine.approve_job(job.id, operator="anna")
    frozen.engine.turn_restore(job.id, no_progress)
    assert thaws(frozen)
    paused_until_it_freezes(frozen, job)
    waits(frozen, job)
    with pytest.raises(ApprovalNeeded):  # nor by terms that ask for less than what waits
        frozen.engine.resume_job(job.id, budget=Decimal(9))
    frozen.engine.approve_job(job.id, operator="bert")
    assert delivered(frozen, job, target).approved_by == "bert"


def test_thaws_of_another_job_that_are_gone_are_not_asked_for_beyond_it(frozen: Gateway) -> None:
    frozen.engine.restore(SRC, frozen.root / "one", detach=True, tier="standard")
    (first,) = frozen.engine.jobs()
    frozen.clock.advance(timedelta(minutes=10))
    shared = quotes(frozen)
    approval_above(frozen, shared["expedited"] * 3)
    job, target = begun(frozen, tier="expedited")
    assert job.state is RestoreState.THAWING
    frozen.engine.pause_job(job.id)
    frozen.engine.cancel_job(first.id)
    frozen.clock.advance(10 * DAY)
    frozen.engine.resume_job(job.id)
    now = waits(frozen, job)
    assert Decimal(str(now.quote_usd)) > frozen.config.restore.approval_above
    frozen.engine.approve_job(job.id)
    delivered(frozen, job, target)


def test_thaws_of_another_job_that_are_gone_are_asked_for_by_the_slowest_tier(frozen: Gateway) -> None:
    """All tiers cost the same while nothing has to be asked for: so none was chosen for its price."""
    full = quotes(frozen)
    frozen.engine.restore(SRC, frozen.root / "one", detach=True, tier="standard")
    (first,) = frozen.engine.jobs()
    frozen.clock.advance(timedelta(minutes=10))
    job, target = begun(frozen)
    assert job.tier == "bulk"
    frozen.engine.pause_job(job.id)
    frozen.engine.cancel_job(first.id)
    frozen.clock.advance(10 * DAY)
    frozen.engine.resume_job(job.id)
    done = delivered(frozen, job, target)
    assert Decimal(str(done.spent_usd)) < full["bulk"] * 2


def test_a_price_that_is_not_known_any_more_needs_approval(frozen: Gateway) -> None:
    job, target = begun(frozen, tier="standard")
    paused_until_it_freezes(frozen, job)
    frozen.close()
    frozen.config = replace(frozen.config, repository=replace(frozen.config.repository, region="xx-nowhere-1"))
    now = waits(frozen, job)
    assert now.quote_usd is None
    assert "what is not known" in now.reason
    frozen.engine.approve_job(job.id)
    delivered(frozen, job, target)


@pytest.mark.parametrize("hour", [1, 20])
def test_waves_at_other_hours_are_within_what_was_approved(gateway: Gateway, hour: int) -> None:
    """Copies go at a midnight: asked for in the morning they stand longer, and cost more, than in the evening."""
    freeze(gateway, link=300 * KIB // (8 * 3600), files="abcdef")
    approval_above(gateway, Decimal(0))
    gateway.clock.advance(timedelta(hours=(hour - gateway.clock.now().hour) % 24))
    with pytest.raises(ApprovalNeeded):
        begun(gateway, tier="bulk")
    (job,) = gateway.engine.jobs()
    gateway.engine.approve_job(job.id)
    done = delivered(gateway, job, gateway.root / "to")
    assert gateway.config.restore.link != FAST_LINK
    assert done.approved_by


def test_what_the_pack_cache_has_is_no_cost(gateway: Gateway) -> None:
    """Neither in the quote nor in what is compared with it before thaws are asked for."""
    gateway.engine.hold()
    kept = gateway.config
    freeze(gateway, files="abcdef")
    gateway.config = replace(gateway.config, state=kept.state)  # the machine that wrote it all
    gateway.open().rebuild()
    packs = sorted(path for path in (kept.state.directory / "cache").rglob("*-*") if path.is_file())
    for path in packs[: len(packs) // 4]:
        path.unlink()
    gateway.open()
    states = {each.state: each.packs for each in gateway.restore(dry_run=True)[1].plan.by_state}
    assert states["cached"] > states["cold"] > 0
    approval_above(gateway, Decimal(0))
    with pytest.raises(ApprovalNeeded):
        begun(gateway, tier="bulk")
    (job,) = gateway.engine.jobs()
    gateway.engine.approve_job(job.id)
    delivered(gateway, job, gateway.root / "to")


def test_a_price_list_that_was_edited_counts_at_once(frozen: Gateway) -> None:
    file = frozen.root / "prices.toml"
    text = (SHIPPED / "us-east-1.toml").read_text()
    file.write_text(text)
    frozen.close()
    frozen.config = replace(frozen.config, prices=PricesConfig(file=file))
    before = quotes(frozen)
    bulk = 'item = "thaw-gb"\nclass = "GLACIER"\ntier = "bulk"\namount = '
    assert f'{bulk}"0"' in text
    file.write_text(text.replace(f'{bulk}"0"', f'{bulk}"1000"'))
    after = quotes(frozen)
    assert after["bulk"] > before["bulk"] * 100
    assert after["standard"] == pytest.approx(before["standard"], rel=Decimal("0.01"))


# --- quotes of what needs no thaw -------------------------------------------------------------------------------------


def priced(gateway: Gateway) -> None:
    gateway.config = replace(gateway.config, repository=replace(gateway.config.repository, region="us-east-1"))
    gateway.source.noise("a", 400 * KIB)
    gateway.made()
    gateway.lose_state()
    gateway.checked = False


def test_a_dry_run_quotes_what_is_hot(gateway: Gateway) -> None:
    priced(gateway)
    _, dry = gateway.restore(dry_run=True)
    assert dry.plan.cold_packs == 0
    assert [each.tier for each in dry.plan.tiers] == ["bulk", "standard", "expedited"]
    assert len({(each.usd, each.hours, each.figures) for each in dry.plan.tiers}) == 1
    assert "sending by internet" in {figure.what for figure in dry.plan.tiers[0].figures}
    assert (dry.plan.chosen, "nothing has to be asked for" in dry.plan.reason) == ("bulk", True)
    usd = dry.plan.tiers[0].usd
    assert usd
    approval_above(gateway, Decimal(0))
    with pytest.raises(ApprovalNeeded):
        gateway.restore()
    assert gateway.engine.jobs()[0].quote_usd == usd


@pytest.mark.parametrize("limit", ["budget", "deadline"])
def test_a_dry_run_says_that_what_is_hot_does_not_fit_as_the_restore_would(gateway: Gateway, limit: str) -> None:
    priced(gateway)
    limits = {"budget": Decimal("0.0000001")} if limit == "budget" else {"deadline": timedelta(microseconds=1)}
    _, dry = gateway.restore(dry_run=True, **limits)
    assert (dry.plan.chosen, [each.fits for each in dry.plan.tiers]) == ("", [False] * 3)
    with pytest.raises(OverBudget) as error:
        gateway.restore(**limits)
    assert dry.plan.reason in error.value.what
    assert dry.plan.reason.count("over the budget" if limit == "budget" else "it takes up to") == 1
    assert gateway.engine.jobs() == []


def test_a_dry_run_quotes_what_is_thawed(frozen: Gateway) -> None:
    _, target = begun(frozen, "one", tier="standard")
    frozen.clock.advance(6 * HOUR)
    _, dry = frozen.restore(dry_run=True)
    assert dry.plan.cold_packs == 0
    assert {each.state: each.packs for each in dry.plan.by_state}["thawed"] > 0
    assert dry.plan.chosen == "bulk"
    assert all(each.usd for each in dry.plan.tiers)
    assert not target.exists()
