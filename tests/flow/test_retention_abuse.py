"""Who can write to a spool, or turn a clock, gets no good generation removed by the rules alone."""

from __future__ import annotations

from datetime import timedelta

from gateway.clock import FakeClock
from gateway.engine import open_engine
from gateway.errors import ApprovalNeeded
from gateway.store.wrap import RetryingStore
from tests.flow.gateways import ENVIRONMENT, KIB, Gateway
from tests.flow.test_retention import DAY, expiring, numbers, rules
from tests.flow.trees import tree


def good_nights(gateway: Gateway, count: int = 6) -> None:
    for night in range(count):
        gateway.source.noise("base", 300 * KIB)
        gateway.source.noise(f"night-{night}", 20 * KIB)
        gateway.made()
        gateway.clock.advance(DAY)


def flood(gateway: Gateway, count: int = 12) -> None:
    for each in range(count):
        gateway.clock.advance(timedelta(minutes=5))
        gateway.source.noise("x", 2 * KIB + each)
        gateway.made()


def test_a_flood_of_generations_without_the_data_removes_nothing(gateway: Gateway) -> None:
    rules(gateway, keep_last=5)
    good_nights(gateway)
    good = tree(gateway.source.root)
    for path in list(gateway.source.root.iterdir()):
        path.unlink()
    flood(gateway)
    for _ in range(8):
        gateway.clock.advance(DAY)
        try:
            assert gateway.engine.retention_apply().expired == ()
        except ApprovalNeeded:
            pass
    assert numbers(gateway)[:6] == [1, 2, 3, 4, 5, 6]
    target, _ = gateway.restore("src@6")
    assert tree(target) == good


def test_a_flood_beside_the_data_costs_versions_and_no_data(gateway: Gateway) -> None:
    """The rules count generations: what stays in the spool is in the newest ones, too."""
    rules(gateway, keep_last=5)
    good_nights(gateway, 1)
    flood(gateway)
    report = gateway.engine.retention_plan()
    assert ("src", 1) in expiring(report)
    gateway.engine.retention_apply(approve=report.plan)
    target, _ = gateway.restore("src")
    assert tree(target) == tree(gateway.source.root)


YEARS = timedelta(days=3650)


def test_a_clock_that_somebody_turned_removes_nothing(gateway: Gateway) -> None:
    rules(gateway, keep_daily=3, minimum_generations=1)
    good_nights(gateway)
    gateway.close()
    fast = FakeClock(gateway.clock.now() + YEARS, seed=b"fast")
    engine = open_engine(
        gateway.config, store=RetryingStore(gateway.store, fast), clock=fast, environment=ENVIRONMENT
    )  # fmt: skip
    try:
        assert engine.retention_apply().expired == ()
        assert engine.sweep().deleted == 0
    finally:
        engine.close()
    assert numbers(gateway) == [1, 2, 3, 4, 5, 6]


def test_ten_years_in_which_nothing_came_remove_nothing(gateway: Gateway) -> None:
    """Both clocks turned, or a gateway that nobody looked at: a source without a young generation keeps what it has."""
    rules(gateway, keep_daily=3, minimum_generations=1)
    good_nights(gateway)
    gateway.clock.advance(YEARS)
    assert gateway.engine.retention_apply().expired == ()
    assert numbers(gateway) == [1, 2, 3, 4, 5, 6]
