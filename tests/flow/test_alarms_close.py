"""Alarms are closed when what they say is over, also over a restart, and of what nobody watches any more."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.api import RunState, SealedFile
from gateway.catalog import JobState
from gateway.config.values import Config, SourceKind
from gateway.errors import ClockSkew, Corrupt, GatewayError, StoreUnreachable, UsageError
from gateway.jobs.alarms import Alarms, Kind
from gateway.jobs.retain import alarms_of
from tests.flow.gateways import Gateway
from tests.flow.hand_turned import HandTurned

FAILURES: dict[str, Callable[[], GatewayError]] = {
    "store-refusing": lambda: StoreUnreachable("no answer"),
    "clock-skew": lambda: ClockSkew("your clock is wrong"),
    "damaged-pack": lambda: Corrupt("is not what it should be", address="keys/x"),
}


def alarms(gateway: Gateway) -> list[tuple[str, str]]:
    return [(each.kind, each.subject) for each in gateway.engine.status().alarms]


def restarted(gateway: Gateway) -> HandTurned:
    gateway.close()
    by_hand = HandTurned.of(gateway)
    by_hand.keeper.close_old_alarms()
    by_hand.keeper.start()
    return by_hand


@pytest.mark.parametrize("kind", sorted(FAILURES))
def test_what_failed_before_a_restart_is_over_with_the_first_generation_after_it(gateway: Gateway, kind: str) -> None:
    HandTurned.of(gateway).keeper._failed(FAILURES[kind]())
    assert [each for each, _ in alarms(gateway)] == [kind]
    by_hand = restarted(gateway)
    by_hand.turn(0, 6)
    assert [each for each, _ in alarms(gateway)] == ([] if kind == "clock-skew" else [kind]), "nothing was to do"
    gateway.source.write("a", b"1")
    by_hand.keeper.watch.hint(b"a")
    by_hand.turn(0, 6)
    assert by_hand.numbers() == [1]
    assert alarms(gateway) == []


def test_an_ingest_without_an_engine_ends_what_failed_in_one(gateway: Gateway) -> None:
    for each in FAILURES.values():
        HandTurned.of(gateway).keeper._failed(each())
    gateway.close()
    gateway.source.write("a", b"1")
    gateway.made()
    assert alarms(gateway) == []


def seal(by_hand: HandTurned, run: str, *files: tuple[bytes, int]) -> RunState:
    listed = [SealedFile(path=path, size=size, digest="") for path, size in files]
    return by_hand.keeper.seals.seal(run, listed, b"", (), "dba").state


def test_a_later_run_that_has_the_same_files_and_is_protected_closes_a_mismatch(gateway: Gateway) -> None:
    gateway.healthy = False  # an incomplete generation is what a rebuild tells of
    by_hand = HandTurned.of(gateway)
    gateway.source.write("a", b"1")
    gateway.source.write("b", b"1")
    assert seal(by_hand, "mon", (b"a", 9), (b"b", 1)) is RunState.INCOMPLETE
    by_hand.turn(0, 6)
    assert ("seal-mismatch", "src/mon") in alarms(gateway)
    gateway.source.write("b", b"22")
    assert seal(by_hand, "other", (b"b", 2)) is RunState.SEALED
    by_hand.turn(6)
    assert ("seal-mismatch", "src/mon") in alarms(gateway), "that run had other files"
    gateway.source.write("a", b"123456789")
    assert seal(by_hand, "tue", (b"a", 9), (b"b", 2)) is RunState.SEALED
    by_hand.turn(6)
    assert by_hand.keeper.context.catalog.jobs("src", JobState.PROTECTED)[-1].run == "tue"
    assert alarms(gateway) == []


def test_a_mismatch_of_a_job_whose_next_run_has_other_names_is_accepted(gateway: Gateway) -> None:
    gateway.healthy = False
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB)
    gateway.source.write("mon/a", b"1")
    assert seal(by_hand, "mon", (b"mon/a", 9)) is RunState.INCOMPLETE
    gateway.source.write("tue/a", b"123456789")
    seal(by_hand, "tue", (b"tue/a", 9))
    by_hand.turn(0, 6)
    assert ("seal-mismatch", "src/mon") in alarms(gateway)
    assert not gateway.engine.accept("src")
    assert gateway.engine.accept("src", alarm="seal-mismatch", operator="alice")
    assert "seal-mismatch" not in [each for each, _ in alarms(gateway)]
    with pytest.raises(UsageError, match="not for anybody to accept"):
        gateway.engine.accept("src", alarm="source-overdue")


@pytest.fixture
def two(gateway: Gateway) -> Config:
    """A second source with alarms of all sorts; the configuration without it."""
    without = gateway.config
    gateway.add_source("old").write("a", b"1")
    gateway.made("old")
    context = gateway.engine.hold()
    told = Alarms(context.catalog, gateway.clock, context.log)
    for kind in (Kind.OVERDUE, Kind.HELD_BACK, Kind.FILLING, Kind.ANOMALY, Kind.UNREADABLE):
        told.open(kind, "old", "what", meaning="m", advice="a")
    told.open(Kind.SEAL, "old/mon", "what", meaning="m", advice="a")
    told.open(Kind.OVERDUE, "src", "what", meaning="m", advice="a")
    told.open(Kind.STORE, "s3://bucket/gateway", "what", meaning="m", advice="a")
    return without


LEFT = {("anomaly", "old"), ("source-overdue", "src"), ("store-refusing", "s3://bucket/gateway")}


def test_a_start_closes_what_nobody_watches_any_more(gateway: Gateway, two: Config) -> None:
    gateway.close()
    gateway.config = two
    gateway.engine.hold()
    assert set(alarms(gateway)) == LEFT
    assert gateway.engine.accept("old"), "what is stored of it can still be answered for"


def test_a_reload_closes_what_nobody_watches_any_more(gateway: Gateway, two: Config) -> None:
    gateway.engine.reconfigure(two)
    assert set(alarms(gateway)) == LEFT


def test_the_anomaly_of_a_source_that_left_stops_no_other(gateway: Gateway, two: Config) -> None:
    gateway.close()
    gateway.config = two
    context = gateway.engine.hold()
    assert alarms_of(context, "old")
    assert alarms_of(context, "src") == ()
