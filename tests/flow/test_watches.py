"""More directories than the kernel watches: an alarm while it is so, and every file is found all the same."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from watchdog.observers import inotify_c

from gateway.api import no_progress
from gateway.jobs.keeper import Keeper
from tests.flow.gateways import Gateway
from tests.servers.process import until
from tests.servers.require import cannot

ROOT = Path(__file__).parents[2]


@dataclass
class Kernel:
    """As if the user had no more than `most` watches: all others are refused with what inotify(7) says."""

    most: int
    given: set[tuple[int, bytes]] = field(default_factory=set)

    def add(self, fd: int, path: bytes, mask: int) -> int:
        if (fd, path) not in self.given and len(self.given) >= self.most:
            ctypes.set_errno(errno.ENOSPC)
            return -1
        self.given.add((fd, path))
        return self.real(fd, path, mask)

    def remove(self, fd: int, number: int) -> int:
        self.given = {each for each in self.given if each[0] != fd}
        return self.real_remove(fd, number)

    def __post_init__(self) -> None:
        self.real, self.real_remove = inotify_c.inotify_add_watch, inotify_c.inotify_rm_watch


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    one = Kernel(5)
    monkeypatch.setattr(inotify_c, "inotify_add_watch", one.add)
    monkeypatch.setattr(inotify_c, "inotify_rm_watch", one.remove)
    return one


def turn(gateway: Gateway, keeper: Keeper, *seconds: float) -> None:
    for each in seconds:
        gateway.clock.advance(timedelta(seconds=each))
        keeper.turn(no_progress)


def test_directories_without_a_watch_are_an_alarm_until_they_have_one(
    gateway: Gateway, keeper: Keeper, kernel: Kernel
) -> None:
    for number in range(12):
        gateway.source.write(f"d{number:02}/f", b"1")
    keeper.start()
    turn(gateway, keeper, 0, 6)
    (alarm,) = gateway.engine.status().alarms
    assert (alarm.kind, alarm.subject) == ("no-events", "src")
    assert "gave no watch for 8 directories" in alarm.what
    assert "rename" in alarm.meaning
    assert "max_user_watches" in alarm.advice
    assert len(gateway.list()) == 24, "the rescan finds all"
    watching = keeper._events
    turn(gateway, keeper, 301)
    assert keeper._events is watching, "nothing is gained by beginning anew"
    kernel.most = 100
    turn(gateway, keeper, 301)
    assert keeper._events is not watching
    assert gateway.engine.status().alarms == ()
    gateway.source.write("d11/new.tmp", b"1")
    (gateway.source.root / "d11/new.tmp").rename(gateway.source.root / "d11/new")

    def seen() -> bool:
        keeper.turn(no_progress)
        return keeper.context.catalog.mark("src", b"d11/new") is not None

    until("a rename in one that had none is seen", seen, seconds=20)


def test_a_directory_that_is_made_when_there_is_no_watch_left_is_told_with_the_next_rescan(
    gateway: Gateway, keeper: Keeper, kernel: Kernel
) -> None:
    gateway.source.write("a/f", b"1")
    keeper.start()
    turn(gateway, keeper, 0)
    assert gateway.engine.status().alarms == ()
    kernel.most = 2
    gateway.source.write("b/f", b"1")
    events = keeper._events
    assert events is not None
    until("the library has tried", lambda: events.refused > 0, seconds=20)
    turn(gateway, keeper, 301)
    assert [each.kind for each in gateway.engine.status().alarms] == ["no-events"]


def test_a_source_without_any_watch_leaves_nothing_open(gateway: Gateway, keeper: Keeper, kernel: Kernel) -> None:
    kernel.most = 0
    keeper.start()
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    turn(gateway, keeper, 0, 301, 301)
    assert [each.kind for each in gateway.engine.status().alarms] == ["no-events"]
    assert threading.active_count() <= threads
    assert len(os.listdir("/proc/self/fd")) <= files


CHILD = """
    import sys
    from pathlib import Path
    from gateway.spool.events import Events

    Path("/proc/sys/user/max_inotify_watches").write_text("10")

    class Hints:
        def hint(self, path, *, closed=False): pass
        def renamed(self, before, after): pass
        def look_everywhere(self): pass

    events = Events(Path(sys.argv[1]), Hints())
    print(events.refused, events.may_watch_more())
    Path("/proc/sys/user/max_inotify_watches").write_text("100")
    print(events.may_watch_more())
    events.close()
"""


def test_the_kernel_says_so_in_the_way_that_is_understood(tmp_path: Path) -> None:
    """A user of a namespace of his own has a limit of his own, and needs no right for it."""
    alone = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        cannot("make a user namespace")
    for number in range(40):
        (tmp_path / f"d{number:02}").mkdir()
    done = subprocess.run(
        [*alone, sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path)],
        capture_output=True, check=False, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.split() == ["31", "False", "True"], done.stderr
