"""The keeper of a source, turn by turn, on a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.api import no_progress
from gateway.jobs import ingest
from gateway.jobs.alarms import Alarms
from gateway.jobs.keeper import Barrier, Keeper
from gateway.spool import watch
from tests.flow.gateways import Gateway
from tests.servers.process import until


@pytest.fixture
def keeper(gateway: Gateway) -> Iterator[Keeper]:
    gateway.change(generation_interval=timedelta(minutes=30), expect_every=timedelta(hours=2))
    context = gateway.engine.hold()
    one = Keeper(context, gateway.config.sources[0], Alarms(context.catalog, gateway.clock, context.log))
    yield one
    one.stop()


def numbers(gateway: Gateway) -> list[int]:
    return [each.number for each in gateway.engine.generations("src")]


def turn(gateway: Gateway, keeper: Keeper, seconds: float = 0.0) -> None:
    gateway.clock.advance(timedelta(seconds=seconds))
    keeper.turn(no_progress)


def test_it_waits_for_the_settle_time_and_then_for_the_interval(gateway: Gateway, keeper: Keeper) -> None:
    gateway.source.write("a", b"1")
    turn(gateway, keeper)
    turn(gateway, keeper, 4)
    assert numbers(gateway) == []
    turn(gateway, keeper, 2)
    assert numbers(gateway) == [1]
    gateway.source.write("b", b"2")
    keeper.watch.hint(b"b")
    turn(gateway, keeper)
    turn(gateway, keeper, 600)
    assert numbers(gateway) == [1]
    (status,) = gateway.engine.status().sources
    assert [(each.path, each.state) for each in status.files] == [(b"b", "candidate")]
    turn(gateway, keeper, 1800)
    assert numbers(gateway) == [1, 2]
    assert gateway.engine.status().sources[0].pending == 0


def test_events_come_also_of_a_directory_that_was_mounted_or_made_anew(gateway: Gateway, keeper: Keeper) -> None:
    """A rename that nobody sees is no evidence: a file that needs it would be held back for ever."""
    keeper.start()
    root = gateway.config.sources[0].path
    root.rename(root.with_name("away"))
    turn(gateway, keeper, 600)
    root.mkdir()
    turn(gateway, keeper, 600)
    gateway.source.write("a.tmp", b"1")
    (root / "a.tmp").rename(root / "a")

    def seen() -> bool:
        turn(gateway, keeper)
        return gateway.engine._writing().catalog.mark("src", b"a") is not None

    until("the rename is seen", seen, seconds=20)


def test_a_barrier_does_not_wait_for_the_interval(gateway: Gateway, keeper: Keeper) -> None:
    gateway.source.write("a", b"1")
    turn(gateway, keeper)
    turn(gateway, keeper, 6)
    gateway.source.write("b", b"2")
    now = gateway.clock.monotonic()
    barrier = Barrier(begun=now, deadline=now + 100)
    keeper.barriers.append(barrier)
    turn(gateway, keeper)
    assert not barrier.done, "b has not settled"
    turn(gateway, keeper, 6)
    assert barrier.done
    assert barrier.report is not None
    assert numbers(gateway) == [1, 2]
    assert gateway.list() == [b"a", b"b"]


def test_a_barrier_that_comes_while_the_spool_is_walked_waits_for_what_was_written_before_it(
    gateway: Gateway, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walk has passed the place where a file is written; then somebody asks. Another one asked before the walk."""
    for name in ("a/1", "b/1"):
        gateway.source.write(name, b"1")
    turn(gateway, keeper)
    turn(gateway, keeper, 6)
    assert numbers(gateway) == [1]
    walk, late = watch.walk, list[Barrier]()

    def meanwhile(root: Path) -> Iterator[Any]:
        for entry in walk(root):
            yield entry
            if getattr(entry, "path", b"") == b"b" and not late:
                gateway.source.write("a/2", b"written before the barrier, behind the walk")
                now = gateway.clock.monotonic()
                late.append(Barrier(begun=now, deadline=now + 100))
                keeper.barriers.append(late[0])

    monkeypatch.setattr(watch, "walk", meanwhile)
    now = gateway.clock.monotonic()
    early = Barrier(begun=now, deadline=now + 100)
    keeper.barriers.append(early)
    turn(gateway, keeper)
    assert early.done, "nothing was pending when it asked"
    for _ in range(4):
        assert not late[0].done or b"a/2" in gateway.list()
        turn(gateway, keeper, 2)
    assert late[0].done
    assert b"a/2" in gateway.list()


def test_a_barrier_tries_again_what_had_a_writer(gateway: Gateway, keeper: Keeper) -> None:
    """Also where no event told that he let go of it."""
    gateway.source.write("a", b"1")
    gateway.source.write("b", b"2")
    with gateway.source.path("b").open("ab"):
        turn(gateway, keeper)
        turn(gateway, keeper, 6)
        assert gateway.list() == [b"a"]
        assert keeper.watch.pending[b"b"].held is not None
    now = gateway.clock.monotonic()
    barrier = Barrier(begun=now, deadline=now + 100)
    keeper.barriers.append(barrier)
    turn(gateway, keeper)
    assert barrier.done
    assert gateway.list() == [b"a", b"b"]


def test_whatever_is_written_before_a_barrier_is_protected_when_it_returns(gateway: Gateway, keeper: Keeper) -> None:
    """Writers that never stop, and barriers at any moment between their files."""
    written: list[str] = []
    asked: list[tuple[Barrier, list[str]]] = []
    for step in range(40):
        name = f"d{step % 3}/f{step}"
        gateway.source.write(name, b"%d" % step)
        written.append(name)
        if step % 2:
            keeper.watch.hint(name.encode())
        if step % 3 == 0:
            now = gateway.clock.monotonic()
            barrier = Barrier(begun=now, deadline=now + 15)
            keeper.barriers.append(barrier)
            asked.append((barrier, list(written)))
        turn(gateway, keeper, 1.5)
        for barrier, before in [each for each in asked if each[0].done]:
            assert barrier.error is None
            assert set(map(str.encode, before)) <= set(gateway.list())
        asked = [each for each in asked if not each[0].done]
    for _ in range(10):
        turn(gateway, keeper, 6)
    assert all(barrier.done for barrier, _ in asked)
    assert set(map(str.encode, written)) <= set(gateway.list())


def test_more_than_can_be_named_is_taken_by_two_looks(
    gateway: Gateway, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LIMIT_PENDING", 3)
    for number in range(10):
        gateway.source.write(f"f{number}", b"%d" % number)
    turn(gateway, keeper)
    assert keeper.watch.overflowed
    turn(gateway, keeper, 6)
    assert numbers(gateway) == [1]
    assert len(gateway.list()) == 10
    turn(gateway, keeper)
    assert not keeper.watch.overflowed
    assert not keeper.watch.pending
    gateway.source.write("f3", b"new")
    keeper.watch.hint(b"f3")
    turn(gateway, keeper)
    turn(gateway, keeper, 1900)
    assert numbers(gateway) == [1, 2]


def test_a_new_file_that_sorts_last_costs_one_walk(
    gateway: Gateway, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        gateway.source.write(f"f{number:02}", b"%d" % number)
    turn(gateway, keeper)
    turn(gateway, keeper, 6)
    walked, walk = list[bytes](), ingest.walk

    def counted(root: Path) -> Iterator[Any]:
        for entry in walk(root):
            walked.append(entry.path)
            yield entry

    monkeypatch.setattr(ingest, "walk", counted)
    gateway.source.write("last", b"new")
    keeper.watch.hint(b"last")
    turn(gateway, keeper)
    turn(gateway, keeper, 1900)
    assert numbers(gateway) == [1, 2]
    assert len(walked) == 21


def test_a_store_that_refuses_is_an_alarm_and_tried_again_later(gateway: Gateway, keeper: Keeper) -> None:
    gateway.source.write("a", b"1")
    turn(gateway, keeper)
    gateway.store.faults.add("put:*=denied")
    turn(gateway, keeper, 6)
    assert [each.kind for each in gateway.engine.status().alarms] == ["store-refusing"]
    gateway.store.faults.clear()
    turn(gateway, keeper, 1)
    assert numbers(gateway) == [], "it waits before it tries again"
    turn(gateway, keeper, 10)
    assert numbers(gateway) == [1]
    assert gateway.engine.status().alarms == ()


def test_a_source_that_writes_nothing_is_overdue(gateway: Gateway, keeper: Keeper) -> None:
    keeper.start()
    turn(gateway, keeper)
    turn(gateway, keeper, 2.3 * 3600)
    assert [each.kind for each in gateway.engine.status().alarms] == ["source-overdue"]
    gateway.source.write("a", b"1")
    keeper.watch.hint(b"a")
    turn(gateway, keeper)
    turn(gateway, keeper, 6)
    turn(gateway, keeper, 600)
    assert gateway.engine.status().alarms == ()


def test_a_source_that_is_gone_is_an_alarm_a_pause_and_an_answer_to_who_waits(gateway: Gateway, keeper: Keeper) -> None:
    gateway.source.write("a", b"1")
    turn(gateway, keeper)
    gateway.source.root.rename(gateway.root / "unmounted")
    now = gateway.clock.monotonic()
    barrier = Barrier(begun=now, deadline=now + 100)
    keeper.barriers.append(barrier)
    gateway.clock.advance(timedelta(seconds=6))
    assert not keeper.turn(no_progress), "nothing was done, so that the worker waits before it asks again"
    assert barrier.done
    assert barrier.error is not None
    assert [each.kind for each in gateway.engine.status().alarms] == ["source-unreadable"]
    events = len(gateway.events.events)
    turn(gateway, keeper, 1)
    assert len(gateway.events.events) == events, "it pauses"
    (gateway.root / "unmounted").rename(gateway.source.root)
    turn(gateway, keeper, 600)
    turn(gateway, keeper, 600)
    assert numbers(gateway) == [1]
    assert gateway.engine.status().alarms == ()


def test_a_generation_right_after_another_holds_what_that_one_read(gateway: Gateway, keeper: Keeper) -> None:
    """Their ctime is younger than two seconds when they are read: they are read again, and never left out."""
    gateway.clock.advance(datetime.now(UTC) - gateway.clock.now())  # so that it is the time of the files, too
    for number in range(5):
        gateway.source.write(f"f{number}", b"%d" % number)
    turn(gateway, keeper)
    assert numbers(gateway) == []
    for path in list(keeper.watch.pending):
        keeper.watch.pending[path].sure = True
    turn(gateway, keeper)
    assert numbers(gateway) == [1]
    gateway.source.write("new", b"new")
    keeper.watch.hint(b"new")
    keeper.watch.tick()
    keeper.watch.pending[b"new"].sure = True
    barrier = Barrier(begun=0, deadline=gateway.clock.monotonic() + 100)
    keeper.barriers.append(barrier)
    turn(gateway, keeper)
    assert not barrier.done, "it cannot be told yet whether they are still what was read"
    turn(gateway, keeper, 3)
    assert barrier.done
    assert gateway.list() == [b"f0", b"f1", b"f2", b"f3", b"f4", b"new"]
    assert barrier.report is not None
    assert barrier.report.held_back == ()
