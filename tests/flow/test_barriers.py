"""What who asked for a barrier is told: a generation, what is held back, or what failed; never just nothing."""

from __future__ import annotations

import shutil
from datetime import timedelta
from typing import Any

import pytest

from gateway.api import SealedFile
from gateway.cli import reports
from gateway.config.values import SourceKind
from gateway.daemon import Daemon
from gateway.errors import PartialError
from gateway.format import limits
from gateway.jobs.barriers import Barrier
from gateway.log import silent
from gateway.spool import walk as walking
from gateway.spool import watch
from gateway.store.wrap import RetryingStore
from tests.flow.gateways import ENVIRONMENT, Gateway
from tests.flow.hand_turned import HandTurned, answer, held
from tests.flow.test_beside import call, served


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
    for number in range(9):
        gateway.source.write("grows", bytes(number))
        by_hand.turn(2)
    assert answer(barrier).generation is None
    assert [(each.path, each.reason) for each in answer(barrier).held_back] == [(b"grows", "growing")]


def missed(barrier: Barrier) -> list[tuple[bytes, str]]:
    """What an answer names as not protected."""
    return [(each.path, each.reason) for each in answer(barrier).unprotected]


def test_a_barrier_that_waited_for_a_busy_worker_gives_files_their_time_to_settle(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway)
    by_hand.turn(0)
    gateway.source.write("new", b"1")
    barrier = by_hand.ask()
    gateway.clock.advance(timedelta(hours=3))  # the pass of another source
    by_hand.turn(0)
    assert not barrier.done
    by_hand.turn(6)
    assert gateway.list() == [b"new"]
    assert missed(barrier) == []


def test_a_barrier_of_jobs_that_waited_for_a_busy_worker_does_so_too(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB, marker="DONE")
    by_hand.turn(0)
    for name in ("job/a", "job/DONE"):
        gateway.source.write(name, b"1")
    barrier = by_hand.ask()
    gateway.clock.advance(timedelta(hours=3))
    by_hand.turn(0)
    assert not barrier.done
    by_hand.turn(6)
    assert gateway.list() == [b"job", b"job/a"]
    assert missed(barrier) == []


def test_what_a_barrier_was_to_protect_and_did_not_is_named(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway)
    for name in ("good", "grows", "dump.tmp"):
        gateway.source.write(name, b"1")
    gateway.source.write("torn.gz", b"\x1f\x8b\x08" + bytes(2000))
    barrier = by_hand.ask()
    by_hand.turn(0)
    gateway.source.write("later", b"1")
    for number in range(9):
        gateway.source.write("grows", bytes(number + 2))
        gateway.source.write("later", bytes(number + 2))
        by_hand.keeper.watch.hint(b"later")
        by_hand.turn(2)
    assert gateway.list() == [b"good"]
    assert missed(barrier) == [(b"grows", "growing"), (b"torn.gz", "torn")]
    assert held(barrier) == [b"dump.tmp", b"grows", b"later", b"torn.gz"]
    one, other = by_hand.ask(), by_hand.ask()
    by_hand.turn(0, 6)
    assert missed(one) == missed(other) == [(b"torn.gz", "torn")], "also where others are answered"


def test_a_barrier_that_takes_everything_as_it_is_leaves_nothing_out(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway)
    gateway.source.write("torn.gz", b"\x1f\x8b\x08" + bytes(2000))
    barrier = by_hand.ask()
    barrier.seal_now = True
    by_hand.turn(0)
    assert gateway.list() == [b"torn.gz"]
    assert missed(barrier) == []


def test_a_job_that_was_made_incomplete_while_a_barrier_waited_is_its_answer(gateway: Gateway) -> None:
    gateway.healthy = False  # a rebuild names what is incomplete
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB, marker="DONE")
    for name in ("a/x", "b/x", "b/DONE"):
        gateway.source.write(name, name.encode())
    by_hand.keeper.seals.seal("1", [SealedFile(path=b"a/x"), SealedFile(path=b"a/gone")], b"", (), "ada")
    barrier = by_hand.ask()
    by_hand.turn(0, 6, 6)
    assert [str(each.state) for each in gateway.engine.generations("src")] == ["incomplete", "protected"]
    assert str(answer(barrier).generation.state) == "incomplete"  # type: ignore[union-attr]


@pytest.mark.parametrize("running", [True, False])
def test_a_barrier_says_the_same_with_and_without_an_engine(gateway: Gateway, running: bool) -> None:
    gateway.change(settle=timedelta(0), generation_interval=timedelta(0))
    for name in ("good", "dump.tmp"):
        gateway.source.write(name, b"1")
    gateway.source.write("torn.gz", b"\x1f\x8b\x08" + bytes(2000))
    if running:
        with served(gateway) as daemon:
            thread, answers = call(daemon, "barrier")
            thread.join(30)
            (report,) = answers
    else:
        report = gateway.engine.barrier()
    (one,) = report.sources
    assert [each.path for each in one.held_back] == [b"dump.tmp", b"torn.gz"]
    assert [(each.path, each.reason) for each in one.unprotected] == [(b"torn.gz", "torn")]
    assert (reports.of_ingest(report), reports.of_barrier(report)) == (0, 3)


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
        assert missed(barrier) == [(b"locked", "unreadable")]
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
    assert (len(missed(barrier)), answer(barrier).unprotected_more) == (2, 1)


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
    assert answer(barrier).unprotected == answer(barrier).held_back


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
