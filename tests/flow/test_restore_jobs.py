"""Restore jobs on the simulated cold store: quoted, approved, thawed in waves, fetched as packs wake, gone on with."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from gateway import durable
from gateway.api import JobInfo, Progress, Reference, RestoreState
from gateway.config.classes import BUILT_IN, ClassConfig
from gateway.errors import ApprovalNeeded, OverBudget, TargetError, UsageError
from gateway.jobs import restores
from gateway.policy.thaw import SHORTEST_LOOK
from gateway.store.bill import bill
from gateway.store.cold import Weather
from gateway.store.port import ThawTier
from gateway.store.prices import default_prices
from gateway.store.record import Operation
from tests.flow.cold_restores import freeze
from tests.flow.gateways import KIB, Gateway
from tests.flow.trees import tree

pytestmark = pytest.mark.usefixtures("long_waits")

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MIB = KIB * KIB
FLEX = ClassConfig(name="flex", steps=((0, "STANDARD"), (30, "GLACIER")), hot_days=7, chain_days=15)
FAST_LINK = 1 << 40


@pytest.fixture
def frozen(gateway: Gateway) -> Gateway:
    """Two generations of a class that goes into GLACIER, long ago; the machine's cache is empty."""
    gateway.config = replace(
        gateway.config, repository=replace(gateway.config.repository, region="us-east-1"), classes=(*BUILT_IN, FLEX),
        restore=replace(gateway.config.restore, link=FAST_LINK),
    )  # fmt: skip
    gateway.change(storage_class="flex")
    gateway.engine.lifecycle_apply()
    for name in "abcdefgh":
        gateway.source.noise(name, 400 * KIB)
    gateway.made()
    gateway.source.noise("new", 300 * KIB)
    gateway.made()
    gateway.clock.advance(40 * DAY)
    gateway.lose_state()  # nothing is at hand but the bucket
    gateway.checked = False  # what is cold is not read for a proof
    return gateway


def with_weather(gateway: Gateway, **weather: float) -> None:
    """The same objects in a store with another kind of chance; the rules run on."""
    gateway.store._shelf._weather = Weather(**weather)  # type: ignore[arg-type]


def thaws(gateway: Gateway) -> list[str]:
    return [each.key for each in gateway.store.log() if each.what is Operation.THAW]


def frozen_packs(gateway: Gateway) -> int:
    return sum(each.storage_class == "GLACIER" for each in gateway.store.list_objects("packs/"))


def only(gateway: Gateway) -> JobInfo:
    (job,) = gateway.engine.jobs()
    return job


def test_a_dry_run_quotes_every_tier_and_asks_for_nothing(frozen: Gateway) -> None:
    before = len(frozen.store.log())
    _, report = frozen.restore(dry_run=True)
    plan = report.plan
    asked = {each.what for each in frozen.store.log()[before:]}
    assert asked <= {Operation.LIST, Operation.HEAD, Operation.GET}
    assert all("packs/flex" not in e.key for e in frozen.store.log()[before:] if e.what is Operation.GET)
    by_state = {each.state: each for each in plan.by_state}
    assert plan.packs >= by_state["cold"].packs == plan.cold_packs > 10
    offers = {each.tier: each for each in plan.tiers}
    assert list(offers) == ["bulk", "standard", "expedited"]
    assert plan.chosen == "bulk"
    assert all(each.usd is not None and each.hours is not None and each.fits for each in plan.tiers)
    assert 5 <= (offers["standard"].hours or 0) < 5.2
    assert (offers["bulk"].usd or 0) < (offers["standard"].usd or 0) < (offers["expedited"].usd or 0)
    assert all(figure.origin for each in plan.tiers for figure in each.figures)
    assert plan.scratch_bytes > 0
    assert frozen.engine.jobs() == []


def test_what_is_frozen_is_thawed_fetched_and_equal(frozen: Gateway) -> None:
    told: list[Progress] = []
    target, report = frozen.restore(progress=told.append)
    assert tree(target) == tree(frozen.source.root)
    job = only(frozen)
    assert job.state is RestoreState.DELIVERED
    assert job.bytes_done == job.bytes_total == sum(p.stat().st_size for p in frozen.source.root.iterdir())
    assert len(thaws(frozen)) == len(set(thaws(frozen))) == frozen_packs(frozen)
    assert {each.phase for each in told} == {"fetching", "restoring"}
    assert job.quote_hours is not None
    assert 1 <= dict(job.phases)["thawing"] / 3600 <= job.quote_hours + 1
    assert report.seconds == pytest.approx(sum(seconds for _, seconds in job.phases))
    assert not list((frozen.config.state.directory / "restore").glob("*/*"))


@pytest.mark.parametrize(("storage", "tiers"), [
    ("GLACIER", ("bulk", "standard", "expedited")), ("DEEP_ARCHIVE", ("bulk", "standard")),
])  # fmt: skip
def test_the_quote_is_what_the_store_bills(gateway: Gateway, storage: str, tiers: tuple[str, ...]) -> None:
    """Within one hundredth, by the simulator's own count; and within the time of the tier."""
    freeze(gateway, files="abcd", size=14 * MIB, storage=storage)  # against which a few listings are little
    gateway.restore(dry_run=True)  # what is looked up for the plan is read once, and kept
    for count, tier in enumerate(tiers, 1):
        gateway.clock.advance(HOUR)
        start = gateway.clock.now()
        before = gateway.store.bill(default_prices(), egress="internet")
        gateway.restore(tier=tier)
        took = gateway.clock.now() - start
        job = gateway.engine.jobs()[0]
        assert len(gateway.engine.jobs()) == count
        assert job.quote_hours is not None
        assert took <= timedelta(hours=job.quote_hours) + SHORTEST_LOOK, "it is looked at when the time is up"
        gateway.clock.advance(4 * DAY)  # the copies are gone
        after = gateway.store.bill(default_prices(), egress="internet")
        spent = after.total - before.total - _storage_at_rest(gateway, start)
        assert job.quote_usd is not None
        assert job.spent_usd is not None
        assert abs(Decimal(job.spent_usd) - spent) <= spent / 100, (tier, job.spent_usd, spent)
        assert abs(Decimal(job.quote_usd) - spent) <= spent / 100, (tier, job.quote_usd, spent)


def _storage_at_rest(gateway: Gateway, start: datetime) -> Decimal:
    """What everything would have cost in the same time if nobody had restored anything."""
    log = [each for each in gateway.store.log() if each.at < start]
    prices, now = default_prices(), gateway.clock.now()
    until_now, until_then = (bill(log, prices, until=until, egress="internet").total for until in (now, start))
    return until_now - until_then


def test_it_waits_for_approval_and_asks_for_nothing_before(frozen: Gateway) -> None:
    frozen.close()
    frozen.config = replace(frozen.config, restore=replace(frozen.config.restore, approval_above=Decimal(0)))
    target = frozen.root / "approved"
    with pytest.raises(ApprovalNeeded) as error:
        frozen.restore(to=target)
    job = only(frozen)
    assert job.state is RestoreState.APPROVAL
    assert job.id in str(error.value)
    assert thaws(frozen) == []
    assert not target.exists()
    with pytest.raises(ApprovalNeeded):
        frozen.engine.watch_job(job.id)
    assert frozen.engine.approve_job(job.id[:6], operator="anna").approved_by == "anna"
    frozen.engine.watch_job(job.id)
    assert tree(target) == tree(frozen.source.root)
    with pytest.raises(UsageError):
        frozen.engine.approve_job(job.id)


def test_no_price_is_said_and_waits_for_approval(frozen: Gateway) -> None:
    frozen.close()
    repository = replace(frozen.config.repository, region="xx-nowhere-1")
    frozen.config = replace(frozen.config, repository=repository)
    _, dry = frozen.restore(dry_run=True)
    assert all(each.usd is None and each.cautions for each in dry.plan.tiers)
    with pytest.raises(ApprovalNeeded, match="not known"):
        frozen.restore()


def test_budget_and_deadline_choose_the_tier_or_say_why_none_fits(frozen: Gateway) -> None:
    _, dry = frozen.restore(dry_run=True)
    usd = {each.tier: Decimal(str(each.usd)) for each in dry.plan.tiers}
    assert frozen.restore(dry_run=True, deadline=6 * HOUR)[1].plan.chosen == "standard"
    assert frozen.restore(dry_run=True, deadline=HOUR)[1].plan.chosen == "expedited"
    with pytest.raises(OverBudget, match=r"standard: it takes up to"):
        frozen.restore(deadline=HOUR, budget=usd["standard"] * Decimal("1.01"))
    with pytest.raises(OverBudget, match="over the budget"):
        frozen.restore(budget=usd["bulk"] / 2)
    assert thaws(frozen) == []
    assert frozen.engine.jobs() == []


def test_expedited_without_capacity_goes_on_in_standard(frozen: Gateway) -> None:
    with_weather(frozen, expedited_capacity=0.0)
    target, report = frozen.restore(tier="expedited", check=False)
    assert tree(target) == tree(frozen.source.root)
    assert "no capacity" in report.notes[0]
    job = only(frozen)
    assert job.state is RestoreState.DELIVERED
    assert {each.tier for each in frozen.store.log() if each.what is Operation.THAW and each.status == 202} == {
        ThawTier.STANDARD
    }


def test_a_detached_job_goes_on_later_and_others_share_its_thaws(frozen: Gateway) -> None:
    one, two = frozen.root / "one", frozen.root / "two"
    plan = frozen.engine.restore(Reference.parse("src@1"), one, detach=True, tier="standard").plan
    first = only(frozen)
    assert first.state is RestoreState.THAWING
    asked = len(thaws(frozen))
    assert asked == plan.cold_packs >= plan.packs - 1  # a pack below 128 KiB, if there is one, stays hot
    frozen.clock.advance(timedelta(minutes=5))
    frozen.engine.restore(Reference.parse("src@1"), two, detach=True, tier="standard")
    assert len(thaws(frozen)) == asked  # nothing is asked for twice
    second = frozen.engine.jobs()[0]
    assert (second.spent_usd or 0) < (first.spent_usd or 0) / 10
    frozen.close()  # the machine restarts
    for job in (first.id, second.id):
        frozen.engine.watch_job(job)
    assert tree(one) == tree(two)
    assert len(thaws(frozen)) == asked


def test_a_job_that_somebody_else_carries_out_is_waited_for(frozen: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commands that watch, or one beside an engine: whoever comes second waits, and takes over after a kill."""
    target = frozen.root / "to"
    frozen.engine.restore(Reference.parse("src"), target, detach=True)
    job = only(frozen).id
    frozen.clock.advance(DAY)  # all is thawed, and stands
    other = durable.StateLock(frozen.config.state.directory / "restore", f"{job}.lock")
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            other.release()

    monkeypatch.setattr(frozen.clock, "sleep", sleep)
    frozen.engine.watch_job(job)
    assert waits[:3] == [restores.FOLLOWED_SECONDS] * 3
    assert tree(target) == tree(frozen.source.root)


def test_a_relative_target_is_the_callers(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.source.noise("a", 10 * KIB)
    gateway.made()
    monkeypatch.chdir(gateway.root)
    gateway.engine.restore(Reference.parse("src"), Path("below"))
    assert only(gateway).target == gateway.root / "below"


def test_pause_cancel_and_resume(frozen: Gateway) -> None:
    target = frozen.root / "to"
    frozen.engine.restore(Reference.parse("src"), target, detach=True)
    job = only(frozen).id
    assert frozen.engine.pause_job(job, operator="anna").reason == "paused by anna"
    assert frozen.engine.pause_job(job).state is RestoreState.PAUSED
    frozen.clock.advance(DAY)
    assert frozen.engine.watch_job(job).job.state is RestoreState.PAUSED  # type: ignore[union-attr]
    assert not target.exists()
    frozen.engine.resume_job(job)
    frozen.engine.watch_job(job)
    assert tree(target) == tree(frozen.source.root)
    frozen.clock.advance(10 * DAY)
    frozen.engine.restore(Reference.parse("src"), frozen.root / "other", detach=True)
    other = frozen.engine.jobs()[0].id
    assert frozen.engine.cancel_job(other).state is RestoreState.CANCELLED
    with pytest.raises(UsageError, match="ended"):
        frozen.engine.resume_job(other)
    assert not list((frozen.config.state.directory / "restore").glob("*/*"))


def test_a_nearer_deadline_hastens_what_thaws(frozen: Gateway) -> None:
    target = frozen.root / "to"
    frozen.engine.restore(Reference.parse("src"), target, detach=True)
    job = only(frozen)
    assert job.tier == "bulk"
    start = frozen.clock.now()
    assert frozen.engine.resume_job(job.id, deadline=HOUR).tier == "expedited"
    frozen.engine.watch_job(job.id)
    assert frozen.clock.now() - start < HOUR
    assert tree(target) == tree(frozen.source.root)


def test_terms_that_cost_more_than_allowed_wait_for_approval(frozen: Gateway) -> None:
    """What thaws already goes on by itself; nothing more is asked for. What was approved once needs no more of it."""
    _, dry = frozen.restore(dry_run=True)
    usd = {each.tier: Decimal(str(each.usd)) for each in dry.plan.tiers}
    frozen.close()
    above = (usd["standard"] + usd["expedited"]) / 2
    frozen.config = replace(frozen.config, restore=replace(frozen.config.restore, approval_above=above))
    target = frozen.root / "to"
    frozen.engine.restore(Reference.parse("src"), target, detach=True, tier="standard")
    job, asked = only(frozen).id, len(thaws(frozen))
    with pytest.raises(ApprovalNeeded, match=r"approval_above is"):
        frozen.engine.resume_job(job, tier="expedited")
    waiting = only(frozen)
    assert waiting.state is RestoreState.APPROVAL
    assert Decimal(str(waiting.quote_usd)) >= usd["expedited"]
    with pytest.raises(ApprovalNeeded):
        frozen.engine.watch_job(job)
    assert len(thaws(frozen)) == asked
    assert frozen.engine.resume_job(job, tier="standard").state is RestoreState.THAWING  # or it is content with less
    with pytest.raises(ApprovalNeeded):
        frozen.engine.resume_job(job, tier="expedited")
    frozen.engine.approve_job(job, operator="anna")
    frozen.engine.pause_job(job)
    frozen.engine.resume_job(job, deadline=HOUR)
    frozen.engine.watch_job(job)
    assert len(thaws(frozen)) == 2 * asked
    assert tree(target) == tree(frozen.source.root)


def test_copies_that_freeze_again_are_asked_for_again(frozen: Gateway) -> None:
    target = frozen.root / "to"
    frozen.engine.restore(Reference.parse("src"), target, detach=True)
    asked = len(thaws(frozen))
    frozen.engine.pause_job(only(frozen).id)
    frozen.clock.advance(10 * DAY)  # thawed, and cold again
    frozen.engine.resume_job(only(frozen).id)
    frozen.engine.watch_job(only(frozen).id)
    assert tree(target) == tree(frozen.source.root)
    assert len(thaws(frozen)) == 2 * asked


def test_the_budget_is_never_exceeded(frozen: Gateway) -> None:
    """What has to be asked for again does not fit any more: the job waits, and says so."""
    _, dry = frozen.restore(dry_run=True)
    budget = Decimal(str(dry.plan.tiers[0].usd)) * Decimal("1.02")
    target = frozen.root / "to"
    # 22 thaws in the bulk tier cost nothing but their copies, so that what is asked for twice shows: take standard.
    budget = Decimal(str(dry.plan.tiers[1].usd)) * Decimal("1.02")
    frozen.engine.restore(Reference.parse("src"), target, detach=True, tier="standard", budget=budget)
    frozen.engine.pause_job(only(frozen).id)
    frozen.clock.advance(10 * DAY)
    frozen.engine.resume_job(only(frozen).id)
    with pytest.raises(OverBudget):
        frozen.engine.watch_job(only(frozen).id)
    job = only(frozen)
    assert job.state is RestoreState.PAUSED
    assert job.problem == "OverBudget"
    assert Decimal(str(job.spent_usd)) <= budget
    assert frozen.engine.resume_job(job.id, budget=budget * 3).problem == ""
    frozen.engine.watch_job(job.id)
    assert tree(target) == tree(frozen.source.root)


def test_waves_are_asked_for_one_after_the_other(frozen: Gateway) -> None:
    frozen.close()
    # A link that carries a megabyte in eight hours makes waves of that.
    frozen.config = replace(frozen.config, restore=replace(frozen.config.restore, link=MIB // (8 * 3600)))
    _, dry = frozen.restore(dry_run=True)
    assert dry.plan.waves >= 3
    assert dry.plan.scratch_bytes < dry.plan.fetch_bytes
    asked: list[float] = []
    start = frozen.clock.now()
    assert frozen.restored() == tree(frozen.source.root)
    asked = [(each.at - start) / HOUR for each in frozen.store.log() if each.what is Operation.THAW]
    assert len({round(each) for each in asked}) >= 3
    assert len(thaws(frozen)) == len(set(thaws(frozen)))


def test_a_hot_restore_is_a_job_too(gateway: Gateway) -> None:
    gateway.source.noise("a", 100 * KIB)
    gateway.made()
    assert gateway.restored() == tree(gateway.source.root)
    job = only(gateway)
    assert (job.state, job.tier, job.files_done) == (RestoreState.DELIVERED, "", 1)


def test_one_file_thaws_only_what_it_needs(frozen: Gateway) -> None:
    target, report = frozen.restore(paths=(b"c",))
    assert [path.name for path in target.iterdir()] == ["c"]
    assert (target / "c").read_bytes() == (frozen.source.root / "c").read_bytes()
    _, whole = frozen.restore(dry_run=True)
    assert len(thaws(frozen)) == report.plan.packs < whole.plan.packs / 3


def test_existing_files_are_left_out_and_a_job_says_so(frozen: Gateway) -> None:
    target = frozen.root / "to"
    target.mkdir()
    (target / "a").write_bytes(b"mine")
    _, report = frozen.restore(to=target, check=False)
    assert [each.path for each in report.left_out] == [b"a"]
    assert (target / "a").read_bytes() == b"mine"
    job = only(frozen)
    assert (job.state, job.left_out) == (RestoreState.PARTIAL, 1)
    assert isinstance(job.target, Path)


def test_nobody_goes_on_unasked_with_what_a_command_left(gateway: Gateway) -> None:
    """Days later an engine would write over what took the files' place."""
    gateway.source.noise("a", 100 * KIB)
    gateway.made()
    target = gateway.root / "to"

    def killed(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gateway.restore(to=target, progress=killed, overwrite=True)
    job = only(gateway)
    assert job.state is RestoreState.REHYDRATING
    context = gateway.engine.hold()
    assert gateway.engine.due_restores(context.catalog) == []
    assert len(context.held_by_jobs("src")) == 1
    gateway.clock.advance(8 * DAY)
    assert context.held_by_jobs("src") == frozenset()
    gateway.engine.resume_job(job.id)  # now somebody asked for it
    assert [row.id for row in gateway.engine.due_restores(context.catalog)] == [job.id]
    gateway.engine.watch_job(job.id)
    assert tree(target) == tree(gateway.source.root)


def test_a_command_that_cannot_write_leaves_no_job_behind(gateway: Gateway) -> None:
    gateway.source.noise("a", 100 * KIB)
    gateway.made()
    target = gateway.root / "to"
    target.write_bytes(b"a file")
    with pytest.raises(TargetError):
        gateway.restore(to=target)
    assert only(gateway).state is RestoreState.FAILED
    assert gateway.engine.hold().held_by_jobs() == frozenset()
