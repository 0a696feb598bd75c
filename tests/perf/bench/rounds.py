"""Ingest and restore of every contender over a data set, round by round: who suffers from noise changes with it."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.perf.bench import measure
from tests.perf.bench.contenders import Contender
from tests.perf.bench.data import DataSet
from tests.perf.bench.measure import BenchError, Run, Summary


@dataclass(slots=True)
class Result:
    """What one contender did with one data set. `failed`: why there is nothing of it."""

    contender: Contender
    size: int
    ingests: list[Run] = field(default_factory=list)
    restores: list[Run] = field(default_factory=list)
    stored: int = 0
    failed: str = ""

    @property
    def ingest(self) -> Summary:
        return Summary(size=self.size, runs=tuple(self.ingests))

    @property
    def restore(self) -> Summary:
        return Summary(size=self.size, runs=tuple(self.restores))


def compare(data: DataSet, contenders: list[Contender], work: Path, rounds: int, quiet_seconds: float) -> list[Result]:
    """`rounds` times each contender, one after the other. The first restore of each is compared with the source."""
    results = [Result(contender=each, size=data.size) for each in contenders]
    for number in range(rounds):
        measure.read_all(measure.files_below(data.path))
        # Everybody is first, last and behind each of the others in turn.
        turn = number % len(results)
        for result in [*results[turn:], *results[:turn]]:
            if result.failed:
                continue
            try:
                _one(data, result, work / "run", check=number == 0, quiet_seconds=quiet_seconds)
            except BenchError as error:
                result.failed = str(error)
            told = result.failed or f"ingest {_told(result.ingest)}; restore {_told(result.restore)}"
            print(f"{data.name} {number + 1}/{rounds} {result.contender.name}: {told}", file=sys.stderr, flush=True)
    return results


def _told(summary: Summary) -> str:
    last = summary.runs[-1]
    return f"{summary.speeds[-1]:.0f} MB/s, {last.wall:.2f} s, CPU {last.cpu:.2f} s, others {last.others:.2f} cores"


def _one(data: DataSet, result: Result, home: Path, *, check: bool, quiet_seconds: float) -> None:
    contender, restored = result.contender, home.with_name("restored")
    for path in (home, restored):
        shutil.rmtree(path, ignore_errors=True)
    home.mkdir(parents=True)
    try:
        contender.begin(home, data)
        os.sync()  # what was written before must not be paid for by who comes next
        measure.wait_quiet(quiet_seconds)
        result.ingests.append(measure.run(contender.ingest()))
        result.stored = contender.stored()
        os.sync()
        measure.wait_quiet(quiet_seconds)
        result.restores.append(measure.run(contender.restore(restored)))
        if check:
            require_equal(data.path, restored)
    finally:
        for path in (home, restored):
            shutil.rmtree(path, ignore_errors=True)


def require_equal(source: Path, restored: Path) -> None:
    """`BenchError` unless both trees hold the same files with the same bytes."""
    wanted = {path.relative_to(source) for path in measure.files_below(source)}
    found = {path.relative_to(restored) for path in measure.files_below(restored)}
    if wanted != found:
        raise BenchError(f"restored {len(found)} files, not {len(wanted)}: {sorted(wanted ^ found)[:3]}")
    for name in wanted:
        if not same_bytes(source / name, restored / name):
            raise BenchError(f"{name} came back as something else")


def same_bytes(one: Path, other: Path) -> bool:
    with one.open("rb", buffering=0) as first, other.open("rb", buffering=0) as second:
        while True:
            piece = first.read(1 << 20)
            if piece != second.read(1 << 20):
                return False
            if not piece:
                return True
