"""A long first run that is killed again and again comes to its end, and is protected as it goes."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.crash import checks
from tests.crash.forks import Forks
from tests.crash.machine import Kill, Machine, fields, many_files

FILES = 55
KILLS = 12


@pytest.mark.parametrize(("seed", "parts"), [(1, True), (2, False)])
def test_killed_again_and_again(quick: Path, forks: Forks, seed: int, parts: bool) -> None:
    """At some effect or other, `KILLS` times. What was acknowledged is never sent again, and what the newest checkpoint
    gives back never becomes less.
    """
    chance = random.Random(seed)
    root = quick / f"resume-{seed}"
    root.mkdir()
    spool = many_files(root / "spool", FILES)
    machine = Machine(root=root / "machine", spool=spool.root, seed=f"resume {seed}", parts=parts)
    machine.root.mkdir()
    machine.born()
    acknowledged: set[str] = set()
    restorable = [0]
    killed, run = 0, 0
    while killed < KILLS:
        run += 1
        kill = Kill(moment=chance.choice(["before", "after"]), name="", occurrence=chance.randrange(60, 240))
        before = _lines(machine)
        if not forks.run(machine, "ingest", run, kill=kill):
            break
        killed += 1
        assert not {key for _, key in _lines(machine)[len(before) :]} & acknowledged
        acknowledged |= checks.acknowledged(machine)
        restorable += forks.check(machine, "checkpoint", run)
    assert killed >= KILLS // 2, "it was too quick to prove anything"
    before = _lines(machine)
    forks.run(machine, "ingest", run + 1)
    assert not {key for _, key in _lines(machine)[len(before) :]} & acknowledged
    assert restorable == sorted(restorable), "a checkpoint gave back less than the one before"
    assert restorable[-1] > FILES // 8
    # An upload whose pack that run gave up is nobody's now; the next one aborts it.
    forks.run(machine, "ingest", run + 2)
    assert forks.check(machine, "in_order", run + 3, [str(spool.root)]) == []
    whole = Counter(key for what, key in _lines(machine) if what == "put" and key.startswith("packs/"))
    assert max((count for key, count in whole.items() if key in acknowledged), default=1) == 1


def _lines(machine: Machine) -> list[tuple[str, str]]:
    return fields(machine.sent.read_text().splitlines()) if machine.sent.exists() else []
