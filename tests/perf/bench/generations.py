"""One set of generations through every contender. What is finished is kept, so that a run that was cut off goes on."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.perf.bench import measure, rounds, series
from tests.perf.bench.measure import BenchError, Run, Summary
from tests.perf.bench.peers import Contender, Ours
from tests.perf.bench.series import Series

LONG_SECONDS = 300.0
"""A restore that takes longer is not repeated: it is no close contest."""


@dataclass(slots=True)
class Result:
    """What one contender did. `sizes`: bytes of each generation; `stored`: by which the repository grew with it."""

    name: str
    version: str
    style: str
    note: str
    sizes: list[int] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    firsts: list[Run] = field(default_factory=list)
    laters: list[Run] = field(default_factory=list)
    restores: list[Run] = field(default_factory=list)
    new_chunks: int = 0
    bounded: int = 0
    one_core: float = 0.0
    failed: str = ""

    @property
    def first(self) -> Summary:
        return Summary(size=self.sizes[0], runs=tuple(self.firsts))

    @property
    def later(self) -> Summary:
        return Summary(size=sum(self.sizes[1:]) // len(self.laters), runs=tuple(self.laters))

    @property
    def restore(self) -> Summary:
        return Summary(size=self.sizes[-1], runs=tuple(self.restores))

    @property
    def rss(self) -> int:
        return max(run.rss for run in (*self.firsts, *self.laters, *self.restores))


class Kept:
    """Results of one set, a line of JSON each, by contender and version. What failed is tried again."""

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            path.unlink(missing_ok=True)

    def get(self, contender: Contender) -> Result | None:
        found = None
        for line in self._path.read_text().splitlines() if self._path.exists() else ():
            result = decode(json.loads(line))
            if (result.name, result.version) == (contender.name, contender.version) and not result.failed:
                found = result
        return found

    def put(self, result: Result) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(result)) + "\n")


def decode(record: dict[str, object]) -> Result:
    runs = {
        name: [Run(**each) for each in record[name]]  # type: ignore[attr-defined]
        for name in ("firsts", "laters", "restores")
    }
    return Result(**{**record, **runs})  # type: ignore[arg-type]


def compare(
    of: Series, contenders: Sequence[Contender], work: Path, kept: Kept, *, times: int, quiet_seconds: float
) -> list[Result]:
    results = []
    for contender in contenders:
        result = kept.get(contender)
        if result is None:
            result = Result(contender.name, contender.version, contender.style, contender.note)
            try:
                _One(of, contender, result, work / "run", quiet_seconds).run(times)
            except BenchError as error:
                result.failed = str(error)
            kept.put(result)
        told = result.failed.splitlines()[0] if result.failed else (
            f"first {result.first.speed:.0f} MB/s, later {result.later.speed:.0f} MB/s, "
            f"{sum(result.stored[1:]) / 1e6:.1f} MB, restore {result.restore.speed:.0f} MB/s"
        )  # fmt: skip
        print(f"{of.name} {contender.name}: {told}", file=sys.stderr, flush=True)
        results.append(result)
    return results


class _One:
    """One contender and one set."""

    def __init__(self, of: Series, contender: Contender, result: Result, home: Path, quiet_seconds: float) -> None:
        self._of = of
        self._contender = contender
        self._result = result
        self._home = home
        self._source = home.with_name("source")
        self._restored = home.with_name("restored")
        self._quiet = quiet_seconds

    def run(self, times: int) -> None:
        """The first generation `times` times, each later one once, then the restore of the newest."""
        try:
            if isinstance(self._contender, Ours):
                self._result.one_core = self._first(pinned=True).wall
            for _ in range(times):
                self._result.firsts.append(self._first())
            for generation in self._of.generations[1:]:
                self._later(generation)
            for number in range(times):
                if not number or self._result.restores[-1].wall < LONG_SECONDS:
                    self._restore(check=number == 0)
        finally:
            for path in (self._home, self._source, self._restored):
                shutil.rmtree(path, ignore_errors=True)

    def _first(self, *, pinned: bool = False) -> Run:
        for path in (self._home, self._source):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        placed = series.place(self._of.generations[0], self._source)
        self._contender.begin(self._home, placed)
        before = self._contender.stored()
        command = self._contender.ingest()
        if pinned:
            core = str(min(os.sched_getaffinity(0)))
            command = measure.Command(
                words=["taskset", "-c", core, *command.words], environment=command.environment,
                directory=command.directory,
            )  # fmt: skip
        run = self._timed(command)
        self._result.sizes = [placed.size]
        self._result.stored = [self._contender.stored() - before]
        return run

    def _later(self, generation: Path) -> None:
        result, before = self._result, self._contender.stored()
        result.sizes.append(series.place(generation, self._source).size)
        result.laters.append(self._timed(self._contender.ingest()))
        result.stored.append(self._contender.stored() - before)
        if isinstance(self._contender, Ours):
            taken = self._contender.taken()
            result.new_chunks += taken["new_chunks"]
            result.bounded += taken["bases_bounded"]

    def _restore(self, *, check: bool) -> None:
        shutil.rmtree(self._restored, ignore_errors=True)
        self._result.restores.append(self._timed(self._contender.restore(self._restored)))
        if check:
            rounds.require_equal(self._source, self._contender.tree(self._restored))

    def _timed(self, command: measure.Command) -> Run:
        os.sync()  # what was written before must not be paid for by who comes next
        measure.wait_quiet(self._quiet)
        return measure.run(command)
