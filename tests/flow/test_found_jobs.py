"""Backup jobs that are found in a spool: when one is quiet, and when one that was not whole is looked at again."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from gateway.config.values import SourceKind
from gateway.jobs import backup
from gateway.jobs.keeper import Barrier
from gateway.spool import watch
from gateway.spool.pin import Unreadable
from gateway.spool.producers.view import DirectoryView, PinnedFile
from tests.flow.gateways import Gateway
from tests.flow.hand_turned import HandTurned, Unwatched, held
from tests.servers.process import until

# --- quiet -----------------------------------------------------------------------------------------------------------


def test_a_new_folder_is_not_quiet_before_it_has_settled(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB)
    by_hand.turn(0)
    gateway.source.write("d/1", b"half of the job")
    by_hand.turn(1)
    assert by_hand.numbers() == []
    gateway.source.write("d/2", b"the other half")
    by_hand.turn(4)
    assert by_hand.numbers() == []
    by_hand.turn(6)
    assert by_hand.numbers() == [1], "without a rescan and without an event"


@pytest.mark.parametrize("marker", [None, "DONE"])
def test_a_folder_with_a_temporary_name_is_no_job_before_it_is_renamed(gateway: Gateway, marker: str | None) -> None:
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB, marker=marker)
    gateway.source.write("run.tmp/a", b"half of it")
    gateway.source.write("run.tmp/DONE", b"")
    by_hand.turn(0, 6, 6)
    assert by_hand.numbers() == []
    gateway.source.write("run.tmp/a", b"all of it")
    gateway.source.path("run.tmp").rename(gateway.source.path("run"))
    by_hand.keeper.watch.look_everywhere()
    tick(gateway)
    gateway.source.write("run/DONE", b"again")
    by_hand.turn(60, 6, 6)
    assert by_hand.numbers() == [1]
    assert b"run/a" in gateway.list()


def test_a_new_file_of_a_quiet_folder_is_not_quiet(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB)
    gateway.source.write("d/1", b"1")
    by_hand.turn(0, 4)
    gateway.source.write("d/2", b"half of it")
    by_hand.turn(2)
    assert by_hand.numbers() == []
    assert set(by_hand.keeper.watch.pending) == {b"d/1", b"d/2"}, "it need not wait for the next rescan"


def test_what_cannot_be_named_is_quiet_when_its_folder_has_settled(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LIMIT_PENDING", 2)
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB)
    gateway.source.write("a/1", b"1")
    gateway.source.write("a/2", b"2")
    gateway.source.write("b/1", b"half of the job")
    by_hand.turn(0)
    assert by_hand.numbers() == []
    gateway.source.write("b/1", b"more of the job")
    by_hand.turn(4)
    assert by_hand.numbers() == []
    by_hand.turn(4)
    assert gateway.list("src@1") == [b"a", b"a/1", b"a/2"]
    by_hand.turn(2)
    assert gateway.list("src@2") == [b"b", b"b/1"]


def test_what_a_generation_read_as_it_is_need_not_settle_again(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB, marker="DONE", minimum_evidence=3)
    gateway.source.write("mon/a", b"1")
    gateway.source.write("mon/DONE", b"")
    by_hand.turn(0, 6)
    assert by_hand.numbers() == [1]
    gateway.source.path("mon/DONE").write_bytes(b"again")
    by_hand.turn(1)
    assert [each.state for each in by_hand.keeper.context.catalog.jobs("src")] == ["protected"] * 2
    assert by_hand.keeper.watch.pending == {}


def tick(gateway: Gateway) -> None:
    """Until the file system gives a later time than to all that is there."""
    probe = gateway.root / "probe"
    probe.write_bytes(b"")
    before = probe.stat().st_ctime_ns

    def later() -> bool:
        probe.write_bytes(b"")
        return probe.stat().st_ctime_ns > before

    until("the clock of the file system went on", later, seconds=10)


# --- again -----------------------------------------------------------------------------------------------------------


def test_a_marker_beside_a_folder_that_is_touched_anew_makes_the_next_job(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB, marker="{name}.done", minimum_evidence=3)
    gateway.source.write("mon/a", b"the first job")
    gateway.source.write("mon.done", b"")
    by_hand.turn(0, 6, 6)
    assert by_hand.numbers() == [1]
    tick(gateway)
    gateway.source.write("mon/a", b"the second job")
    by_hand.keeper.watch.hint(b"mon/a")
    by_hand.turn(6, 6, 6)  # settled before its marker comes
    assert by_hand.numbers() == [1]
    tick(gateway)
    gateway.source.path("mon.done").unlink()
    gateway.source.write("mon.done", b"")
    by_hand.keeper.watch.hint(b"mon.done")
    by_hand.turn(1)
    assert by_hand.numbers() == [1, 2]


def test_a_job_of_which_a_file_was_open_is_made_when_it_is_closed(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB, marker="DONE", minimum_evidence=3)
    gateway.source.write("mon/a", b"1")
    with gateway.source.path("mon/a").open("ab"):
        gateway.source.write("mon/DONE", b"")
        by_hand.turn(0, 6, 6)
        (shown,) = gateway.engine.status().sources[0].files
        assert (shown.path, shown.state) == (b"mon/a", "held")
    by_hand.turn(1)
    assert by_hand.numbers() == [], "nobody said that it was closed"
    by_hand.keeper.watch.hint(b"mon/a", closed=True)
    by_hand.turn(1)
    assert by_hand.numbers() == [1]
    assert gateway.engine.status().sources[0].pending == 0


def test_a_barrier_asks_again_for_what_was_held(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB, marker="DONE", minimum_evidence=3)
    gateway.source.write("mon/a", b"1")
    with gateway.source.path("mon/a").open("ab"):
        gateway.source.write("mon/DONE", b"")
        by_hand.turn(0, 6)
    now = gateway.clock.monotonic()
    barrier = Barrier(begun=now, deadline=now + 15)
    by_hand.keeper.barriers.append(barrier)
    by_hand.turn(1)
    assert barrier.done
    assert by_hand.numbers() == [1]


def test_what_was_held_is_judged_again_after_a_while_without_an_event(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB, marker="DONE", minimum_evidence=3)
    gateway.source.write("mon/a", b"1")
    with gateway.source.path("mon/a").open("ab"):
        gateway.source.write("mon/DONE", b"")
        by_hand.turn(0, 6, 61)
        assert by_hand.numbers() == []
    by_hand.turn(58)
    assert by_hand.numbers() == [], "it was judged a minute ago"
    by_hand.turn(3)
    assert by_hand.numbers() == [1]


def test_what_could_not_be_read_is_judged_again_after_a_while(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB, marker="DONE", minimum_evidence=3)
    gateway.source.write("mon/a", b"1")
    gateway.source.write("mon/DONE", b"")
    tries = list[bytes]()

    def failing(_: DirectoryView, path: bytes) -> PinnedFile:
        tries.append(path)
        raise Unreadable(path, "Input/output error.")

    with monkeypatch.context() as patched:
        patched.setattr(DirectoryView, "open", failing)
        by_hand.turn(0, 6, 1, 1, 57)
        assert tries == [b"mon/a"], "not in a loop"
    by_hand.turn(1)
    assert by_hand.numbers() == [1]


def test_what_is_torn_is_not_read_again_before_it_is_another(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB, marker="DONE", minimum_evidence=3)
    gateway.source.write("mon/a.gz", gzip.compress(b"1" * 100)[:-1])
    gateway.source.write("mon/DONE", b"")
    by_hand.turn(0, 6)
    assert by_hand.keeper.found is not None
    assert b"mon" in by_hand.keeper.found.reasons
    monkeypatch.setattr(DirectoryView, "open", lambda *_: pytest.fail("it is what it was"))
    by_hand.turn(*[3600] * 3)
    assert by_hand.numbers() == []


# --- whole, but not when it was read ---------------------------------------------------------------------------------


def opened_when_read(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, path: str) -> list[Any]:
    """Somebody has it open for writing at the very moment when a pass pins it."""
    real, files = backup.pin, list[Any]()

    def pin(root: Path, entry: Any, **more: Any) -> Any:
        if entry.path == path.encode() and not files:
            files.append(gateway.source.path(path).open("r+b"))
        return real(root, entry, **more)

    monkeypatch.setattr(backup, "pin", pin)
    return files


def interrupted(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> tuple[HandTurned, Any]:
    """A job that got an incomplete generation, since one of its files was opened meanwhile."""
    gateway.checked = False
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB, marker="DONE", minimum_evidence=3)
    gateway.source.write("mon/a", b"1")
    gateway.source.write("mon/b", b"2")
    gateway.source.write("mon/DONE", b"")
    opened = opened_when_read(gateway, monkeypatch, "mon/a")
    by_hand.turn(0, 6)
    assert states(gateway) == ["incomplete"]
    return by_hand, opened[0]


def states(gateway: Gateway) -> list[str]:
    return [str(each.state) for each in gateway.engine.generations("src")]


def test_a_job_of_which_a_file_was_opened_while_it_was_read_is_made_again(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand, opened = interrupted(gateway, monkeypatch)
    by_hand.turn(1, 400, 400, 4000)
    assert states(gateway) == ["incomplete"], "it is still open, so another pass would be for nothing"
    opened.close()
    by_hand.keeper.watch.hint(b"mon/a", closed=True)
    by_hand.turn(1)
    assert states(gateway) == ["incomplete", "protected"]
    assert gateway.list() == [b"mon", b"mon/a", b"mon/b"]
    assert by_hand.keeper.context.catalog.open_alarms() == []
    by_hand.turn(*[3600] * 3)
    assert len(states(gateway)) == 2


def test_it_is_made_again_after_a_restart_when_the_pause_is_over(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand, opened = interrupted(gateway, monkeypatch)
    opened.close()
    by_hand.keeper = Unwatched(by_hand.keeper.context, gateway.config.sources[0], by_hand.keeper.alarms)
    by_hand.turn(0, 6, 50)
    assert states(gateway) == ["incomplete"]
    by_hand.turn(5)
    assert states(gateway) == ["incomplete", "protected"]


def test_what_fails_in_every_pass_makes_fewer_and_fewer_generations(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand, opened = interrupted(gateway, monkeypatch)
    opened.close()

    def pin(root: Path, entry: Any, **more: Any) -> Any:
        raise Unreadable(entry.path, "Input/output error.")

    monkeypatch.setattr(backup, "pin", pin)
    by_hand.turn(*[10] * 360)
    assert 3 <= len(states(gateway)) <= 7, "each after twice the pause, not one a minute"
    assert set(states(gateway)) == {"incomplete"}


# --- files that no generation holds ----------------------------------------------------------------------------------


def grow(by_hand: HandTurned, name: str, *seconds: float) -> None:
    for number, each in enumerate(seconds):
        by_hand.gateway.source.write(name, bytes(number + 1))
        by_hand.keeper.watch.hint(name.encode())
        by_hand.turn(each)


def runs(by_hand: HandTurned) -> list[str]:
    return [str(each.state) for each in by_hand.keeper.context.catalog.jobs("src")]


def test_silence_is_no_evidence_while_a_temporary_file_grows(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB)
    gateway.source.write("d/1", b"1")
    by_hand.turn(0)
    grow(by_hand, "d/2.tmp", *[4] * 40)
    assert (by_hand.numbers(), runs(by_hand)) == ([], [])
    barrier = by_hand.ask()
    by_hand.turn(0, 6)
    assert held(barrier) == [b"d/1"]
    gateway.source.path("d/2.tmp").rename(gateway.source.path("d/2"))
    by_hand.keeper.watch.renamed(b"d/2.tmp", b"d/2")
    by_hand.turn(0, 6, 60)
    assert runs(by_hand) == ["protected"]
    assert gateway.list("src@1") == [b"d", b"d/1", b"d/2"]


@pytest.mark.parametrize("marker", [None, "DONE"])
def test_what_is_written_to_a_temporary_file_makes_no_other_run(gateway: Gateway, marker: str | None) -> None:
    gateway.healthy = False  # a rebuild names what is incomplete
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB, marker=marker)
    gateway.source.write("d/1", b"1")
    gateway.source.write("d/2.tmp", b"")
    gateway.source.write("d/DONE", b"")
    by_hand.turn(0, 6, 6)
    assert runs(by_hand) == ["incomplete"]
    grow(by_hand, "d/2.tmp", *[3600] * 8)
    assert (by_hand.numbers(), runs(by_hand)) == ([1], ["incomplete"])
    gateway.source.path("d/2.tmp").unlink()
    by_hand.turn(0, 6, 60)
    assert runs(by_hand) == ["incomplete", "protected"]


def test_an_ignored_file_that_grows_makes_no_other_run(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB, ignore=("*.log",))
    gateway.source.write("d/1", b"1")
    by_hand.turn(0)
    grow(by_hand, "d/2.log", *[4] * 8, *[3600] * 8)
    assert (by_hand.numbers(), runs(by_hand)) == ([1], ["protected"])
