"""Work that takes long is no hang: the heartbeat of systemd's watchdog moves, status names it, a stop ends it."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway import durable
from gateway.api import Work, no_progress
from gateway.config.values import ReleaseConfig, SourceKind
from gateway.daemon import STUCK_SECONDS, Daemon
from gateway.jobs import ingest
from gateway.model.entry import LeftOut
from gateway.spool import watch
from gateway.spool.pin import Pinned
from gateway.spool.walk import SpoolEntry, walk
from tests.flow.gateways import Gateway
from tests.flow.test_beside import SECONDS, served
from tests.unit.pg_backups import Backup

SLOW_SECONDS = 600.0
MIB = 1024 * 1024
READERS = ("gateway.jobs.seals", "gateway.spool.producers.view")


@dataclass
class Slow:
    """Something that takes ten minutes each time, on the worker's thread. `seen`: the age of the heartbeat before each,
    and what status said. `stop_at`: then the engine is told to stop."""

    gateway: Gateway
    daemon: Daemon | None = None
    seen: list[tuple[float, tuple[Work, ...]]] = field(default_factory=list)
    stop_at: int = 0

    def __call__(self) -> None:
        daemon = self.daemon
        if daemon is None or threading.current_thread() is not daemon._worker:
            return
        age = self.gateway.clock.monotonic() - daemon._heartbeat
        self.seen.append((age, daemon.call("status", {}, "", no_progress).work))
        self.gateway.clock.advance(timedelta(seconds=SLOW_SECONDS))
        if len(self.seen) == self.stop_at:
            daemon.stop()

    def meet(self, daemon: Daemon) -> None:
        self.daemon = daemon

    def of(self, phase: str) -> list[float]:
        """Ages of the heartbeat while status said so."""
        return [age for age, work in self.seen if any(each.phase == phase for each in work)]


@pytest.fixture
def slow(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Slow:
    """Every read of a spool is slow but those of a pass."""
    found, read = Slow(gateway), Pinned.read_into

    def read_slowly(self: Pinned, *how: Any) -> int:
        if sys._getframe(1).f_globals["__name__"] in READERS:
            found()
        return read(self, *how)

    monkeypatch.setattr(Pinned, "read_into", read_slowly)
    gateway.change(kind=SourceKind.JOB, settle=timedelta(0), generation_interval=timedelta(0), marker="DONE")
    gateway.close()
    return found


def until(gateway: Gateway, reached: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(SECONDS * 10):
        if reached():
            return
        gateway.clock.advance(timedelta(seconds=3))
        pause.wait(0.1)
    raise AssertionError("it was never reached")


def protected(daemon: Daemon) -> int:
    return sum(str(each.state) == "protected" for each in daemon.call("generations", {}, "", no_progress))


def place(gateway: Gateway) -> Path:
    own = gateway.source.root / ".gateway"
    own.mkdir(exist_ok=True)
    return own


def seal_file(gateway: Gateway, **what: Any) -> None:
    (place(gateway) / "seal-1.json").write_text(json.dumps(what))


def a_seal_file_with_digests(gateway: Gateway) -> None:
    for number in range(3):
        gateway.source.noise(f"job/{number}", 2 * MIB)
    seal_file(gateway, files=[{"path": f"job/{number}", "sha256": "0" * 64} for number in range(3)])


def a_base_backup(gateway: Gateway) -> None:
    Backup().plain(gateway.source.root / "pg")


def a_base_backup_that_is_sealed(gateway: Gateway) -> None:
    a_base_backup(gateway)
    seal_file(gateway, folder="pg")


def a_folder_with_a_marker(gateway: Gateway) -> None:
    for number in range(8):
        gateway.source.write(f"job/{number}.gz", b"\x1f\x8b\x08 no more of it")
    gateway.source.write("job/DONE", b"")


CASES = [
    (a_seal_file_with_digests, "comparing"), (a_base_backup, "judging"), (a_base_backup_that_is_sealed, "judging"),
    (a_folder_with_a_marker, "judging"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "phase"), CASES)
def test_long_work_before_a_generation_is_seen_to_go_on(
    gateway: Gateway, slow: Slow, make: Callable[[Gateway], None], phase: str
) -> None:
    gateway.checked = gateway.healthy = False
    make(gateway)
    with served(gateway, slow.meet):
        until(gateway, lambda: len(slow.of(phase)) > 3)
    assert SLOW_SECONDS * len(slow.of(phase)) > STUCK_SECONDS
    assert max(slow.of(phase)) < 2 * SLOW_SECONDS
    assert max(age for age, _ in slow.seen) < 2 * SLOW_SECONDS


@pytest.mark.parametrize(("make", "phase"), CASES)
def test_a_stop_takes_effect_within_it_and_it_is_done_after_the_next_start(
    gateway: Gateway, slow: Slow, make: Callable[[Gateway], None], phase: str
) -> None:
    gateway.checked = gateway.healthy = False
    make(gateway)
    slow.stop_at = 3
    with served(gateway, slow.meet) as daemon:
        assert daemon._worker is not None
        daemon._worker.join(SECONDS)
        assert not daemon._worker.is_alive()
    assert len(slow.seen) == 3, "nothing more was read"
    slow.stop_at = 0
    with served(gateway, slow.meet):
        until(gateway, lambda: len(slow.of(phase)) > 3)


@pytest.mark.parametrize("place", ["watch", "ingest"])
def test_a_long_walk_is_seen_to_go_on_and_a_stop_takes_effect_within_it(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Of the look at everything, and of the pass that makes a generation."""
    gateway.change(settle=timedelta(0), generation_interval=timedelta(0))
    gateway.checked = gateway.healthy = False
    gateway.close()
    for number in range(8):
        gateway.source.write(f"{number}", b"x")
    slow, where = Slow(gateway), {"watch": watch, "ingest": ingest}[place]

    def walk_slowly(root: Path) -> Iterator[SpoolEntry | LeftOut]:
        for each in walk(root):
            slow()
            yield each

    monkeypatch.setattr(where, "walk", walk_slowly)
    slow.stop_at = 4
    with served(gateway, slow.meet) as daemon:
        assert daemon._worker is not None
        daemon._worker.join(SECONDS)
        assert not daemon._worker.is_alive()
    assert len(slow.seen) <= 5, "nothing more was looked at"
    slow.stop_at = 0
    slow.seen.clear()
    with served(gateway, slow.meet) as daemon:
        until(gateway, lambda: protected(daemon) == 1)
    assert len(slow.of("looking")) > 3
    assert max(age for age, _ in slow.seen) < 2 * SLOW_SECONDS


def test_a_long_release_is_seen_to_go_on_and_a_stop_takes_effect_within_it(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.change(settle=timedelta(0), generation_interval=timedelta(0))
    slow, move, names = Slow(gateway), durable.move_at, [f"old-{number}" for number in range(8)]

    def move_slowly(*how: Any) -> None:
        slow()
        move(*how)

    monkeypatch.setattr(durable, "move_at", move_slowly)
    for name in names:
        gateway.source.write(name, name.encode())
    gateway.made()
    for number in range(2):
        gateway.source.write(f"new-{number}", b"x")
        gateway.made()
    gateway.change(release=ReleaseConfig(keep_generations=1))
    gateway.close()

    def left() -> int:
        return sum((gateway.source.root / name).exists() for name in names)

    slow.stop_at = 5
    gateway.source.write("newest", b"x")
    with served(gateway, slow.meet) as daemon:
        assert daemon._worker is not None
        daemon._worker.join(SECONDS)
        assert not daemon._worker.is_alive()
    assert left() == 3
    assert len(slow.of("releasing")) > 3
    assert max(slow.of("releasing")) < 2 * SLOW_SECONDS
    slow.stop_at = 0
    with served(gateway, slow.meet) as daemon:
        asked = threading.Thread(target=daemon.call, args=("release", {}, "", no_progress))
        asked.start()
        until(gateway, lambda: not left())
        asked.join(SECONDS)  # its answer comes after the last file went
    assert max(age for age, _ in slow.seen) < 2 * SLOW_SECONDS, "also where somebody asked for it"
