"""Disks that are full, fail, or are mounted read-only, and clocks that jump.

A command under such a fault ends with what happened, what it means and what to do, or does its work in spite of it;
the next one, the fault gone, goes on; and what was reported committed is in the store.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.clock import FakeClock
from gateway.engine import open_engine
from gateway.store.memory import MemoryStore
from tests.faults.disks import Disk, differs, disks, harm
from tests.faults.job import Job
from tests.faults.machine import Machine, Zygote, build_shim
from tests.faults.matrix import Born
from tests.faults.rigs import MemoryRig
from tests.flow.trees import tree
from tests.servers.require import cannot

SEED = 1


@pytest.fixture(scope="session")
def ready(memory_root: Path, born: Born) -> Iterator[Machine]:
    """A machine with one generation and news for a second; tests harm copies of it."""
    shim = build_shim(memory_root)
    if shim is None:
        cannot("compile the library that makes calls of the system fail (a C compiler is missing)")
    zygote = Zygote(shim)
    machine = Machine(memory_root / "ready", zygote, born.sheet)
    machine.prepare(born.objects)
    yield machine
    zygote.close()


@pytest.mark.parametrize("disk", list(disks()), ids=str)
def test_a_disk_that_fails(disk: Disk, ready: Machine, place: Path) -> None:
    harm(disk, ready, place, SEED)


# --- real mounts -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(where: Path, megabytes: int) -> Iterator[Path]:
    """A small file system in memory at `where`, for root only."""
    where.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(where)], capture_output=True, check=False
    )
    if made.returncode:
        cannot(f"mount a small file system: {made.stderr.decode().strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def test_a_full_file_system_under_the_state(ready: Machine, place: Path) -> None:
    machine = ready.copy(place / "machine")
    kept = machine.root / "kept"
    (machine.root / "state").rename(kept)
    with mounted(machine.root / "state", 4) as state:
        subprocess.run(["cp", "-a", f"{kept}/.", str(state)], check=True)
        room = os.statvfs(state)
        (state / "ballast").write_bytes(bytes(max(0, (room.f_bavail - 12) * room.f_bsize)))
        answer = machine.run("ingest")
        assert (answer["error"], answer["exit"]) == ("LocalStateError", 1), answer
        assert "No space left" in answer["what"]
        assert "disk space" in answer["advice"]
        # What is stored can be had all the same.
        restored = machine.run("restore", what="src@1", to=str(machine.root / "target"))
        assert restored.get("left_out") == [], restored
        assert not differs(machine)
        (state / "ballast").unlink()
        assert machine.run("ingest")["made"] == [2, "protected"]
        machine.prove()


def test_a_state_that_is_mounted_read_only(ready: Machine, place: Path) -> None:
    machine = ready.copy(place / "machine")
    kept = machine.root / "kept"
    (machine.root / "state").rename(kept)
    with mounted(machine.root / "state", 16) as state:
        subprocess.run(["cp", "-a", f"{kept}/.", str(state)], check=True)
        subprocess.run(["mount", "-o", "remount,ro", str(state)], check=True)
        answer = machine.run("ingest")
        assert (answer["error"], answer["exit"]) == ("LocalStateError", 1), answer
        assert "ead-only" in answer["what"]
        # What is stored can be had all the same.
        restored = machine.run("restore", what="src@1", to=str(machine.root / "target"))
        assert restored.get("left_out") == [], restored
        assert not differs(machine)
        subprocess.run(["mount", "-o", "remount,rw", str(state)], check=True)
        assert machine.run("ingest")["made"] == [2, "protected"]
        machine.prove()


def test_a_full_restore_target(ready: Machine, place: Path) -> None:
    machine = ready.copy(place / "machine")
    with mounted(machine.root / "target", 1) as target:
        (target / "ballast").write_bytes(bytes(900_000))
        answer = machine.run("restore", what="src@1", to=str(target))
        assert (answer["error"], answer["exit"]) == ("TargetError", 1), answer
        assert answer["advice"]
        (target / "ballast").unlink()
        assert machine.run("restore", what="src@1", to=str(target))["left_out"] == []
        assert not differs(machine)


# --- clocks ----------------------------------------------------------------------------------------------------------


class JumpingClock(FakeClock):
    """A wall clock that is set while the gateway sleeps; the monotonic one goes on as it must."""

    jump = timedelta(0)
    jumps = 0

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if self.jump:
            with self._lock:
                self._now += self.jump
            self.jumps += 1

    def set_wall(self, by: timedelta) -> None:
        with self._lock:
            self._now += by


HOURS = [timedelta(hours=-30), timedelta(hours=-3), timedelta(seconds=-2), timedelta(hours=5), timedelta(days=400)]


@pytest.mark.parametrize("jump", HOURS, ids=str)
@pytest.mark.parametrize("when", ["between", "during"])
def test_a_wall_clock_that_jumps(when: str, jump: timedelta, place: Path, born: Born) -> None:
    """Neither the settle time nor what is known of files is fooled, and generations keep their numbers and order."""
    rig = MemoryRig(born.objects, None)
    clock = JumpingClock(rig.clock.now(), seed=json.dumps(str(jump)).encode())
    rig.clock = clock
    rig.memory = MemoryStore(clock, min_part_bytes=1024)
    rig.memory.load(born.objects)
    job = Job(place, rig, born.sheet)
    job._fill()
    for made in range(1, 5):
        engine = open_engine(
            job.config("here"), store=rig.memory, clock=clock, recovery_sheet=born.sheet, environment={}
        )
        slept = len(clock.slept)
        if when == "during":
            clock.jump = jump if made % 2 else -jump
        (report,) = engine.ingest("src").sources
        engine.close()
        clock.jump = timedelta(0)
        assert report.generation is not None
        assert (report.generation.number, report.generation.state) == (made, "protected")
        assert sum(clock.slept[slept:]) >= 5, "the settle time is the monotonic clock's"
        assert report.bytes_read >= (200_000 if made != 4 else 0)
        job.trees[made] = tree(job.source.root)
        # Rewritten in place, the same size, its times set back: only the kernel's ctime tells.
        path, status = job.source.path("a/large"), job.source.path("a/large").stat()
        job.source.overwrite("a/large", 1000 * made, f"version {made}".encode())
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        if when == "between":
            clock.set_wall(jump if made % 2 else -jump)
        clock.advance(timedelta(minutes=1))
    engine = open_engine(job.config("there"), store=rig.memory, clock=clock, recovery_sheet=born.sheet, environment={})
    assert not engine.rebuild().problems
    assert [info.number for info in engine.generations()] == [1, 2, 3, 4]
    for made in job.trees:
        assert job.restore(made)(engine) == ""
    engine.close()
