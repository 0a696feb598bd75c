"""What expires, what somebody holds, and what stops it: on a whole gateway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway import durable
from gateway.api import Reference, RetentionReport, no_progress
from gateway.clock import FakeClock
from gateway.config.retention import ALL_OTHERS, RetentionConfig, RetentionRules
from gateway.config.values import SourceKind, StorageClass
from gateway.daemon import Daemon
from gateway.engine import open_engine
from gateway.errors import ApprovalNeeded, UsageError
from gateway.jobs.alarms import Alarms, Kind
from gateway.log import silent
from gateway.model.ids import ChainName
from gateway.repository.chain import Chain
from gateway.store.wrap import RetryingStore
from tests.flow.gateways import ENVIRONMENT, KIB, Gateway

DAY = timedelta(days=1)


def rules(gateway: Gateway, sources: Sequence[str] = (ALL_OTHERS,), **given: Any) -> None:
    """Retention rules for the sources, as after a restart of the gateway."""
    gateway.close()
    made = RetentionConfig(sources=tuple(sources), rules=RetentionRules(**given))
    gateway.config = replace(gateway.config, retention=(made,))


def daily(gateway: Gateway, count: int, *, size: int = 4 * KIB) -> None:
    """A large file that stays, and a generation a day with a little that is new."""
    gateway.source.noise("base", 600 * KIB)
    for day in range(count):
        gateway.source.noise(f"day-{day}", size)
        gateway.made()
        gateway.clock.advance(DAY)


def numbers(gateway: Gateway, source: str = "src") -> list[int]:
    return [each.number for each in gateway.engine.generations(source)]


def ref(text: str) -> Reference:
    return Reference.parse(text)


def expiring(report: RetentionReport) -> list[tuple[str, int]]:
    return [(each.source, each.number) for each in report.decisions if not each.reasons]


# --- plans -----------------------------------------------------------------------------------------------------------


def test_without_rules_nothing_ever_expires(gateway: Gateway) -> None:
    daily(gateway, 3)
    report = gateway.engine.retention_apply()
    assert report.expired == ()
    assert [each.reasons[0].rule for each in report.decisions] == ["no-rules"] * 3
    assert numbers(gateway) == [1, 2, 3]


def test_what_the_plan_says_is_what_expires(gateway: Gateway) -> None:
    rules(gateway, keep_last=2)
    daily(gateway, 5)
    plan = gateway.engine.retention_plan()
    assert expiring(plan) == [("src", 3), ("src", 2), ("src", 1)]
    assert plan.expired == ()
    assert not plan.needs_approval
    assert all(each.why for each in plan.decisions if not each.reasons)
    assert numbers(gateway) == [1, 2, 3, 4, 5]  # a plan changes nothing
    done = gateway.engine.retention_apply(approve=plan.plan)
    assert (done.plan, set(done.expired)) == (plan.plan, {"src@1", "src@2", "src@3"})
    assert numbers(gateway) == [4, 5]
    assert gateway.engine.retention_apply().expired == ()
    gateway.lose_state()
    assert numbers(gateway) == [4, 5]


def test_a_source_by_itself_is_planned_by_itself(gateway: Gateway) -> None:
    other = gateway.add_source("other")
    rules(gateway, keep_last=1)
    gateway.source.noise("base", 600 * KIB)
    other.noise("base", 600 * KIB)
    for day in range(2):
        gateway.source.noise(f"{day}", 10)
        other.noise(f"{day}", 10)
        gateway.made()
        gateway.made("other")
    plan = gateway.engine.retention_plan("other")
    assert {each.source for each in plan.decisions} == {"other"}
    assert gateway.engine.retention_apply("other", approve=plan.plan).expired == ("other@1",)
    assert (numbers(gateway), numbers(gateway, "other")) == ([1, 2], [2])
    with pytest.raises(UsageError, match='named "othr"'):
        gateway.engine.retention_plan("othr")


# --- approval --------------------------------------------------------------------------------------------------------


def large(gateway: Gateway) -> None:
    """Generations that each replace what was before: expiring one frees much."""
    rules(gateway, keep_last=1)
    for _ in range(3):
        gateway.source.noise("all", 400 * KIB)
        gateway.made()


def test_a_plan_that_removes_much_is_carried_out_once_it_was_approved(gateway: Gateway) -> None:
    large(gateway)
    plan = gateway.engine.retention_plan()
    assert plan.needs_approval
    with pytest.raises(ApprovalNeeded) as raised:
        gateway.engine.retention_apply()
    assert raised.value.exit_code == 21
    assert plan.plan in str(raised.value)
    with pytest.raises(ApprovalNeeded, match="not 0123456789abcdef"):
        gateway.engine.retention_apply(approve="0123456789abcdef")
    assert numbers(gateway) == [1, 2, 3]
    assert set(gateway.engine.retention_apply(approve=plan.plan).expired) == {"src@1", "src@2"}
    assert numbers(gateway) == [3]


def test_an_approval_is_for_the_plan_that_was_shown(gateway: Gateway) -> None:
    large(gateway)
    plan = gateway.engine.retention_plan()
    gateway.engine.hold_generation(ref("src@1"), reason="audit")
    with pytest.raises(ApprovalNeeded):
        gateway.engine.retention_apply(approve=plan.plan)
    assert numbers(gateway) == [1, 2, 3]


def test_an_approved_plan_that_is_not_needed_any_more_is_refused(gateway: Gateway) -> None:
    rules(gateway, keep_last=2)
    daily(gateway, 2)
    with pytest.raises(ApprovalNeeded):
        gateway.engine.retention_apply(approve="feedfeedfeedfeed")


# --- holds -----------------------------------------------------------------------------------------------------------


def test_a_hold_keeps_its_generation_until_it_ends(gateway: Gateway) -> None:
    rules(gateway, keep_last=1)
    daily(gateway, 3)
    held = gateway.engine.hold_generation(ref("src@1"), reason="the audit of May", operator="ada")
    assert held.holds == ("the audit of May (ada)",)
    gateway.lose_state()  # it stands in the log
    assert gateway.engine.retention_apply().expired == ("src@2",)
    assert [each.held for each in gateway.engine.generations()] == [True, False]
    assert gateway.engine.unhold_generation(ref("src@1"), operator="ada").holds == ()
    assert gateway.engine.retention_apply().expired == ("src@1",)
    with pytest.raises(UsageError, match="has no hold"):
        gateway.engine.unhold_generation(ref("src@3"))
    with pytest.raises(UsageError, match="needs a reason"):
        gateway.engine.hold_generation(ref("src@3"), reason=" ")


def test_a_hold_undoes_an_expiry(gateway: Gateway) -> None:
    rules(gateway, keep_last=1)
    daily(gateway, 3)
    before = gateway.restored("src@2")
    gateway.engine.retention_apply()
    with pytest.raises(UsageError):
        gateway.restore("src@2")
    report = gateway.engine.hold_generation(ref("src@2"), reason="we want it back")
    assert report.kept_again == ("src@2",)
    assert numbers(gateway) == [2, 3]
    assert gateway.restored("src@2") == before
    gateway.lose_state()
    assert gateway.restored("src@2") == before


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_a_generation_expires_by_hand(gateway: Gateway) -> None:
    large(gateway)
    shown = gateway.engine.expire_generation(ref("src@1"), dry_run=True)
    assert shown.freed_bytes > 300 * KIB
    assert numbers(gateway) == [1, 2, 3]
    assert gateway.engine.expire_generation(ref("src@1")).freed_bytes == shown.freed_bytes
    assert numbers(gateway) == [2, 3]
    with pytest.raises(UsageError, match="expired already"):
        gateway.engine.expire_generation(ref("src@1"))
    gateway.engine.hold_generation(ref("src@2"), reason="why not")
    with pytest.raises(UsageError, match="held"):
        gateway.engine.expire_generation(ref("src@2"))
    gateway.engine.unhold_generation(ref("src@2"))
    gateway.engine.expire_generation(ref("src@2"))
    with pytest.raises(UsageError, match="only protected"):
        gateway.engine.expire_generation(ref("src@3"))
    with pytest.raises(UsageError, match="does not say which"):
        gateway.engine.expire_generation(ref("src"))


# --- what others require ---------------------------------------------------------------------------------------------


def jobs(gateway: Gateway) -> None:
    """A job, one that requires it, and one that stands alone."""
    gateway.change(kind=SourceKind.JOB)
    for run, requires in (("level-0", ()), ("level-1", ("level-0",)), ("alone", ())):
        gateway.source.noise(f"{run}/piece", 300 * KIB)
        gateway.clock.advance(timedelta(hours=1))
        report = gateway.engine.seal("src", run, folder=run.encode(), requires=requires, wait=True)
        assert str(report.state) == "protected", report


def test_what_a_kept_generation_requires_is_kept(gateway: Gateway) -> None:
    jobs(gateway)
    rules(gateway, keep_last=2)
    plan = gateway.engine.retention_plan()
    assert expiring(plan) == []
    first = next(each for each in plan.decisions if each.number == 1)
    assert [each.rule for each in first.reasons] == ["required"]
    with pytest.raises(UsageError, match="src@2 requires it"):
        gateway.engine.expire_generation(ref("src@1"))
    rules(gateway, keep_last=1)
    plan = gateway.engine.retention_plan()
    assert expiring(plan) == [("src", 2), ("src", 1)]
    gateway.engine.retention_apply(approve=plan.plan)
    # Undone for one, it is undone for what that requires.
    report = gateway.engine.hold_generation(ref("src@2"), reason="back")
    assert set(report.kept_again) == {"src@1", "src@2"}
    assert numbers(gateway) == [1, 2, 3]
    plan = gateway.engine.retention_plan()
    assert expiring(plan) == []
    gateway.lose_state()
    assert numbers(gateway) == [1, 2, 3]


# --- what stops it ---------------------------------------------------------------------------------------------------


def reasons(report: RetentionReport) -> str:
    return "; ".join(f"{each.source}: {each.reason}" for each in report.freezes)


def test_an_open_alarm_of_damage_stops_expiry(gateway: Gateway) -> None:
    rules(gateway, keep_last=1)
    daily(gateway, 3)
    alarms = Alarms(gateway.engine.hold().catalog, gateway.clock, silent(gateway.clock))
    alarms.open(Kind.DAMAGE, "src ingest", "A pack is bad.", meaning="m", advice="a")
    report = gateway.engine.retention_apply()
    assert report.expired == ()
    assert "damaged-pack" in reasons(report)
    with pytest.raises(UsageError, match="damaged-pack"):
        gateway.engine.expire_generation(ref("src@1"))
    alarms.close(Kind.DAMAGE, "src ingest")
    assert len(gateway.engine.retention_apply().expired) == 2


def test_a_source_without_a_young_generation_keeps_what_it_has(gateway: Gateway) -> None:
    rules(gateway, keep_last=1)
    daily(gateway, 3)
    gateway.clock.advance(10 * DAY)
    report = gateway.engine.retention_apply()
    assert report.expired == ()
    assert "is wanted" in reasons(report)
    gateway.source.noise("new", 10)
    gateway.made()
    assert len(gateway.engine.retention_apply().expired) == 3


def test_a_clock_that_is_wrong_stops_expiry(gateway: Gateway) -> None:
    rules(gateway, keep_last=1)
    daily(gateway, 3)
    gateway.close()
    fast = FakeClock(gateway.clock.now() + timedelta(hours=2), seed=b"fast")
    engine = open_engine(
        gateway.config, store=RetryingStore(gateway.store, fast), clock=fast, environment=ENVIRONMENT
    )  # fmt: skip
    try:
        report = engine.retention_apply()
        assert report.expired == ()
        assert "clock differs from the store's by 120 minutes" in reasons(report)
        with pytest.raises(UsageError, match="clock differs"):
            engine.expire_generation(ref("src@1"))
        assert engine.sweep().deleted == 0
    finally:
        engine.close()
    assert len(gateway.engine.retention_apply().expired) == 2


def test_a_store_that_cannot_be_asked_for_its_date_is_said_so(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules(gateway, keep_last=1)
    daily(gateway, 2)
    monkeypatch.setattr("gateway.jobs.dates.date_of", lambda *_: None)
    report = gateway.engine.retention_plan()
    assert "not known" in report.notes[0]
    assert gateway.engine.retention_apply().expired == ("src@1",)


def test_what_is_not_protected_takes_nobodys_place(gateway: Gateway) -> None:
    rules(gateway, keep_last=1)
    gateway.source.noise("a", 300 * KIB)
    gateway.made()
    gateway.source.noise("b", 300 * KIB)
    gateway.made()
    # The newest one loses a pack of its own: the one before is the newest that counts.
    newest = gateway.engine.show(ref("src@2"))
    own = next(each for each in newest.packs if each.new and each.storage_class != "meta")
    gateway.lose(next(key for key in gateway.keys("packs/") if key.endswith(own.id)))
    gateway.engine.rebuild()
    report = gateway.engine.retention_apply()
    assert report.expired == ()
    assert [each.number for each in report.decisions if any(one.rule == "last" for one in each.reasons)] == [1]
    gateway.healthy = False


def test_the_last_copy_of_a_file_that_is_left_out_stays(gateway: Gateway) -> None:
    rules(gateway, keep_last=1)
    gateway.change(minimum_evidence=2)
    gateway.source.write("kept.gz", _gzip(b"one" * 5000))
    gateway.source.noise("base", 300 * KIB)
    gateway.change(minimum_evidence=1)
    gateway.made()
    path = gateway.source.path("kept.gz")
    path.write_bytes(path.read_bytes()[:-9])  # torn
    gateway.source.noise("more", 10)
    report = gateway.ingest()
    assert [each.path for each in report.held_back] == [b"kept.gz"]
    gateway.source.noise("still more", 10)
    gateway.ingest()
    plan = gateway.engine.retention_plan()
    (first,) = (each for each in plan.decisions if each.number == 1)
    assert {each.rule for each in first.reasons} == {"last-copy"}
    assert "kept.gz" in first.reasons[0].text
    assert expiring(plan) == [("src", 2)]
    # A later generation holds it again, and five weeks are over.
    gateway.source.write("kept.gz", _gzip(b"two" * 5000))
    gateway.made()
    gateway.clock.advance(40 * DAY)
    gateway.source.noise("new", 10)
    gateway.made()
    assert ("src", 1) in expiring(gateway.engine.retention_plan())


def _gzip(data: bytes) -> bytes:
    import gzip

    return gzip.compress(data)


# --- two machines ----------------------------------------------------------------------------------------------------


def test_what_somebody_holds_meanwhile_does_not_expire(gateway: Gateway) -> None:
    from tests.flow.test_chains import cloned

    rules(gateway, keep_last=1)
    daily(gateway, 3)
    clone = cloned(gateway)
    from gateway.jobs import retain

    plan = retain.Retention.plan
    done: list[bool] = []

    def meanwhile(self: retain.Retention, *, fresh: bool = False) -> Any:
        made = plan(self, fresh=fresh)
        if not done:
            done.append(True)
            clone.engine.hold_generation(ref("src@1"), reason="quick")
            clone.close()
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retain.Retention, "plan", meanwhile)
        report = gateway.engine.retention_apply()
    assert report.expired == ("src@2",)
    assert numbers(gateway) == [1, 3]


# --- a running engine ------------------------------------------------------------------------------------------------


def test_a_running_engine_does_what_it_is_asked(gateway: Gateway) -> None:
    large(gateway)
    gateway.close()
    daemon = Daemon(
        gateway.config, log=silent(gateway.clock), clock=gateway.clock, environment=ENVIRONMENT,
        store=RetryingStore(gateway.store, gateway.clock),
    )  # fmt: skip
    daemon.start()
    try:
        plan = daemon.call("retention_plan", {}, "", no_progress)
        done = daemon.call("retention_apply", {"approve": plan.plan, "operator": "ada"}, "", no_progress)
        assert set(done.expired) == {"src@1", "src@2"}
        undone = daemon.call("hold_generation", {"reference": ref("src@2"), "reason": "back"}, "", no_progress)
        assert undone.kept_again == ("src@2",)
        daemon.call("unhold_generation", {"reference": ref("src@2")}, "", no_progress)
        assert daemon.call("expire_generation", {"reference": ref("src@2")}, "", no_progress).freed_bytes > 0
        assert daemon.call("sweep", {"dry_run": True}, "", no_progress).waiting > 0
    finally:
        daemon.finish()
    assert numbers(gateway) == [3]


def test_a_hold_that_a_sweep_was_faster_than_is_refused(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.jobs import retain
    from tests.flow.test_chains import cloned

    gateway.change(storage_class=StorageClass.HOT)
    large(gateway)
    gateway.engine.retention_apply(approve=gateway.engine.retention_plan().plan)
    gateway.clock.advance(8 * DAY)
    clone = cloned(gateway)
    undoable, done = retain._require_undoable, list[bool]()

    def meanwhile(context: Any, row: Any) -> None:
        undoable(context, row)
        if not done:
            done.append(True)
            assert clone.engine.sweep().deleted > 0
            clone.close()

    monkeypatch.setattr(retain, "_require_undoable", meanwhile)
    with pytest.raises(UsageError, match="condemned"):
        gateway.engine.hold_generation(ref("src@1"), reason="back")
    assert numbers(gateway) == [3]
    assert gateway.verify() == ()


def test_a_hold_of_what_expires_and_goes_meanwhile_is_refused(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had not expired when the hold was begun."""
    from gateway.jobs import retain
    from tests.flow.test_chains import cloned

    gateway.change(storage_class=StorageClass.HOT)
    large(gateway)
    rules(gateway, keep_last=1, sweep_after=timedelta())
    clone, find = cloned(gateway), retain.find

    def then(*given: Any) -> Any:
        row = find(*given)
        monkeypatch.setattr(retain, "find", find)
        clone.engine.retention_apply(approve=clone.engine.retention_plan().plan)
        assert clone.engine.sweep().deleted > 0
        clone.close()
        return row

    monkeypatch.setattr(retain, "find", then)
    with pytest.raises(UsageError, match="condemned"):
        gateway.engine.hold_generation(ref("src@1"), reason="audit")
    assert gateway.engine.hold().catalog.holds() == []
    assert numbers(gateway) == [3]
    assert gateway.verify() == ()


def two_chains(gateway: Gateway) -> None:
    """A job in one chain, another that requires it in the next, and one that stands alone."""
    gateway.change(kind=SourceKind.JOB)
    for run, requires, name in (("level-0", (), "hot"), ("level-1", ("level-0",), "instant"), ("alone", (), "instant")):
        gateway.change(storage_class=StorageClass(name))  # another class begins another chain
        gateway.source.noise(f"{run}/piece", 100 * KIB)
        gateway.clock.advance(timedelta(hours=1))
        gateway.engine.seal("src", run, folder=run.encode(), requires=requires, wait=True)
    assert len({each.chain for each in gateway.engine.generations()}) == 2


def test_a_hold_between_two_expiries_keeps_what_it_requires(gateway: Gateway) -> None:
    """The plan knows the first chain as it is; the hold is of a generation in the second one, which has expired."""
    from tests.flow.test_chains import cloned
    from tests.flow.test_sweep_waits import once

    two_chains(gateway)
    rules(gateway, keep_last=1)
    clone = cloned(gateway)

    def hold() -> None:
        assert clone.engine.hold_generation(ref("src@2"), reason="audit").kept_again == ("src@2",)
        clone.close()

    once("store:expire", hold, at=2)
    try:
        gateway.engine.retention_apply(approve=gateway.engine.retention_plan().plan)
    finally:
        durable.install_hook(None)
    assert numbers(gateway) == [1, 2, 3]
    assert [each.number for each in gateway.engine.generations() if each.held] == [2]
    gateway.engine.unhold_generation(ref("src@2"))
    assert expiring(gateway.engine.retention_plan()) == [("src", 2), ("src", 1)]


def test_what_a_kill_in_a_hold_left_ends_with_the_hold(gateway: Gateway) -> None:
    from tests.flow.test_sweep import Killed
    from tests.flow.test_sweep_waits import kill, once

    two_chains(gateway)
    once("store:unhold", kill)
    with pytest.raises(Killed):
        gateway.engine.hold_generation(ref("src@2"), reason="audit")
    durable.install_hook(None)
    gateway.open()
    assert [each.number for each in gateway.engine.generations() if each.held] == [1, 2]
    gateway.engine.unhold_generation(ref("src@2"))
    assert [each.number for each in gateway.engine.generations() if each.held] == []


def test_logs_are_read_as_they_all_were_at_one_moment(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is read before a hold is appended to it, and the next one after what it required is let go again."""
    from gateway.jobs.context import Context
    from tests.flow.test_chains import cloned

    two_chains(gateway)
    gateway.engine.expire_generation(ref("src@2"))
    clone, opened, done = cloned(gateway), Context.open_chain, list[str]()

    def meanwhile(self: Context, name: ChainName) -> Chain:
        if name == ChainName("src", 1) and not done and self.state == gateway.config.state.directory:
            done.append("")
            second = opened(self, ChainName("src", 2))
            clone.engine.hold_generation(ref("src@2"), reason="audit")
            clone.close()
            early.append(second)
        return early.pop() if early and name == ChainName("src", 2) else opened(self, name)

    early: list[Chain] = []
    monkeypatch.setattr(Context, "open_chain", meanwhile)
    with pytest.raises(UsageError, match="src@2 requires it"):
        gateway.engine.expire_generation(ref("src@1"))
    assert numbers(gateway) == [1, 2, 3]
