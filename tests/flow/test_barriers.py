"""What who asked for a barrier is told: a generation, what is held back, or what failed; never just nothing."""

from __future__ import annotations

import shutil
from datetime import timedelta
from typing import Any

import pytest

from gateway.config.values import SourceKind
from gateway.daemon import Daemon
from gateway.errors import PartialError
from gateway.format import limits
from gateway.log import silent
from gateway.spool import walk as walking
from gateway.spool import watch
from gateway.store.wrap import RetryingStore
from tests.flow.gateways import ENVIRONMENT, Gateway
from tests.flow.hand_turned import HandTurned, answer, held
from tests.flow.test_beside import call


def test_a_barrier_for_all_sources_tells_of_one_that_failed(gateway: Gateway) -> None:
    gateway.change(settle=timedelta(0), generation_interval=timedelta(0))
    gateway.source.write("a", b"1")
    other = gateway.add_source("other")
    shutil.rmtree(other.root)
    daemon = Daemon(
        gateway.config, log=silent(gateway.clock), clock=gateway.clock, environment=ENVIRONMENT,
        store=RetryingStore(gateway.store, gateway.clock),
    )  # fmt: skip
    daemon.start()
    try:
        thread, answers = call(daemon, "barrier")
        thread.join(30)
    finally:
        daemon.finish()
    well, failed = answers[0].sources
    assert well.failure is None
    assert failed.generation is None
    assert failed.failure.kind == "SourceError"


def test_a_barrier_names_what_is_held_back_where_nothing_else_is_new(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway)
    gateway.source.write("torn.gz", b"\x1f\x8b\x08" + bytes(2000))
    by_hand.turn(0, 6)
    barrier = by_hand.ask()
    by_hand.turn(6)
    assert answer(barrier).generation is None
    assert held(barrier) == [b"torn.gz"]


def test_a_barrier_names_what_did_not_settle_in_time(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway)
    barrier = by_hand.ask()
    for number in range(8):
        gateway.source.write("grows", bytes(number))
        by_hand.turn(2)
    assert answer(barrier).generation is None
    assert [(each.path, each.reason) for each in answer(barrier).held_back] == [(b"grows", "growing")]


def test_a_directory_that_cannot_be_read_is_named_and_after_a_day_an_alarm(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand = HandTurned.of(gateway, ignore=("lost+found",))
    for name in ("locked/a", "lost+found/b"):
        gateway.source.write(name, b"1")
    descend = walking._descend

    def refused(path: bytes, *rest: Any) -> Any:
        if path in (b"locked", b"lost+found"):
            raise PermissionError(13, "Permission denied")
        return descend(path, *rest)

    with monkeypatch.context() as locked:
        locked.setattr(walking, "_descend", refused)
        by_hand.turn(0, 6)
        barrier = by_hand.ask()
        by_hand.turn(6)
        assert held(barrier) == [b"locked"]
        (status,) = gateway.engine.status().sources
        assert [(each.path, each.state, each.detail) for each in status.files] == [
            (b"locked", "held", "Permission denied.")
        ]
        by_hand.turn(*[3600] * 23)
        assert gateway.engine.status().alarms == ()
        by_hand.turn(3600, 3600)
        (alarm,) = gateway.engine.status().alarms
        assert (alarm.kind, "locked: unreadable" in alarm.what) == ("files-held-back", True)
    by_hand.turn(*[3600] * 2)
    assert gateway.list() == [b"locked", b"locked/a"]
    assert gateway.engine.status().alarms == ()
    assert gateway.engine.status().sources[0].pending == 0


def test_not_more_is_named_than_an_entry_holds(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand = HandTurned.of(gateway, minimum_evidence=2)
    for name in "abc":
        gateway.source.write(name, b"1")
    by_hand.turn(0, 6)
    monkeypatch.setattr(limits, "LEFT_OUT_IN_ENTRY", 2)
    barrier = by_hand.ask()
    by_hand.turn(6)
    assert held(barrier) == [b"a", b"b"]
    assert answer(barrier).held_back_more == 1


def test_a_barrier_of_jobs_names_what_belongs_to_none(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB, marker="DONE")
    for name in ("loose.dump", "job/a", "job/DONE", "unfinished/a"):
        gateway.source.write(name, b"1")
    by_hand.turn(0, 6)
    gateway.source.write("young/a", b"1")
    barrier = by_hand.ask()
    by_hand.turn(0, 6)
    assert gateway.list() == [b"job", b"job/a"]
    assert [(each.path, each.reason) for each in answer(barrier).held_back] == [
        (b"loose.dump", "in-no-job"), (b"unfinished/a", "in-no-job"), (b"young/a", "in-no-job"),
    ]  # fmt: skip


def test_a_barrier_of_jobs_waits_where_more_is_pending_than_can_be_named(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LIMIT_PENDING", 2)
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB, marker="DONE")
    for number in range(5):
        gateway.source.write(f"d/{number}", b"1")
    late, never = by_hand.ask(), by_hand.ask()
    never.deadline += 100
    by_hand.turn(0)
    assert not late.done
    by_hand.turn(16)
    assert isinstance(late.error, PartialError)
    assert not never.done
    gateway.source.write("d/DONE", b"")
    by_hand.turn(0, 6, 0)  # of more than have names, all must stand still for the settle time
    assert held(never) == []
    assert gateway.list() == [b"d", *(b"d/%d" % number for number in range(5))]
