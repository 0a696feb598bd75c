"""Local disks that fail: where, which calls, during which command, and what has to come of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.machine import Machine
from tests.faults.matrix import number
from tests.flow.trees import tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A place, the calls that fail there, and the command that makes them."""

    below: str
    calls: str
    verb: str = "ingest"
    error: str = "EIO"

    def __str__(self) -> str:
        return f"{self.verb}-{self.error}-{self.calls}@{self.below}"


def disks() -> Iterator[Disk]:
    for below in ("cache", "catalog", "log", "index", "scratch", ""):
        for calls in ("write", "name"):
            yield Disk(below=f"state/{below}", calls=calls, error="ENOSPC")
            yield Disk(below=f"state/{below}", calls=calls)
        yield Disk(below=f"state/{below}", calls="name", error="EROFS")
    for below in ("cache", "catalog", "log", "index"):
        yield Disk(below=f"state/{below}", calls="sync")
    for below in ("cache", "log", "index", "scratch"):
        yield Disk(below=f"state/{below}", calls="read")
    yield Disk(below="spool", calls="read")
    for verb in ("rebuild", "verify"):
        yield Disk(below="state/", calls="write+name", verb=verb, error="ENOSPC")
        yield Disk(below="state/", calls="write+sync+name", verb=verb)
    for error in ("ENOSPC", "EIO", "EDQUOT"):
        yield Disk(below="target", calls="write", verb="restore", error=error)
        yield Disk(below="target", calls="name", verb="restore", error=error)
    yield Disk(below="target", calls="sync", verb="restore")


def command(machine: Machine, disk: Disk, arm: dict[str, Any] | None) -> dict[str, Any]:
    more = {"what": "src@1", "to": str(machine.root / "target")} if disk.verb == "restore" else {}
    return machine.run(disk.verb, arm, **more)


def check_said(answer: dict[str, Any], disk: Disk) -> None:
    """What happened, what it means, what to do; never a traceback."""
    assert answer.get("exit") != -1, answer["what"]
    if "error" in answer:
        assert answer["what"], answer
        assert answer["meaning"], answer
        assert answer["advice"], answer
        assert answer["exit"] == 1, answer
    assert answer["threads"] == []
    if "catalog" not in disk.below and disk.below != "state/":  # SQLite rolls back what it could not sync
        assert answer["synced_again"] == 0, "a failed fsync was tried again"


def harm(disk: Disk, ready: Machine, place: Path, seed: object) -> None:
    """Run a command with two of its calls failing, one from then on and one (a disk in trouble) just once; prove that
    it said so, and that the next run goes on.
    """
    counting = ready.copy(place / "count")
    answer = command(counting, disk, counting.arm(disk.below, disk.calls, disk.error, 10**9, 0))
    assert "error" not in answer, answer
    calls = answer["seen"]
    if not calls:
        assert disk.below in ("spool", "state/scratch", "state/log") or disk.verb == "verify", "no such calls"
        return
    for at, times in (_call(calls, disk, seed, "lasting"), 0), (_call(calls, disk, seed, "once"), 1):
        machine = ready.copy(place / f"{at}-{times}")
        answer = command(machine, disk, machine.arm(disk.below, disk.calls, disk.error, at, times))
        check_said(answer, disk)
        if disk.verb == "restore":
            assert "error" in answer or answer["left_out"] or not answer["failed"] or not differs(machine), answer
        again = command(machine, disk, None)
        assert "error" not in again, again
        if disk.verb == "restore":
            assert again["left_out"] == []
            assert not differs(machine)
            continue
        if disk.verb != "ingest":
            assert again["problems"] == [], again
        machine.run("ingest")
        machine.prove()


def _call(calls: int, *words: object) -> int:
    """Which of so many calls; the first and the last more often than any other."""
    drawn = number(*words) % (calls + 4)
    return 1 if drawn < 2 else calls if drawn < 4 else drawn - 3


def differs(machine: Machine) -> bool:
    """Whether what was restored is not the first generation."""
    found, whole = tree(machine.root / "target"), machine.trees[1]
    return {path: node.data for path, node in found.items()} != {path: node.data for path, node in whole.items()}
