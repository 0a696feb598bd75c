"""Ninety nights of a small database and of a tree that hardly changes: what is stored in all, and the largest night.

The gateway is driven with a clock that moves a day a night, since what it keeps dense goes by days. Peers are run as
they come; none of them looks at the clock. Nothing is deleted, so what is stored is what was uploaded.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.api import Reference
from gateway.clock import FakeClock
from gateway.config.values import Config, RepositoryConfig, SourceConfig, StateConfig
from gateway.engine import open_engine
from tests.perf.bench import data, measure, rounds, series
from tests.perf.bench.contenders import PASSWORD
from tests.perf.bench.data import DataSet
from tests.perf.bench.generations import Kept, Result
from tests.perf.bench.measure import BenchError
from tests.perf.bench.peers import Contender, Ours

NIGHTS = 90
PEERS = ("restic", "rustic", "borg1", "borg2")


def database(path: Path, night: int) -> None:
    """2 % of the pages, and once a week as many more in runs, as after a vacuum."""
    chance, file = random.Random(f"database {night}"), path / "base.tar"
    content = bytearray(file.read_bytes())
    series.change_pages(content, 0.02, chance)
    if night % 7 == 0:
        series.change_pages(content, 0.02, chance, clustered=True)
    file.write_bytes(content)


def tree(path: Path, night: int) -> None:
    """Three files get a line."""
    chance = random.Random(f"tree {night}")
    for file in chance.sample(measure.files_below(path), 3):
        with file.open("ab") as opened:
            opened.write(b"# night %d\n" % night)


def make_database(path: Path, scale: float) -> None:
    data.make_postgresql(path, 0.02 * scale)


def make_tree(path: Path, scale: float) -> None:
    data.make_tree(path, 0.2 * scale)


KINDS: dict[str, tuple[str, Callable[[Path, float], None], Callable[[Path, int], None]]] = {
    "ninety-database": ("tar of a small PostgreSQL, 2 % of the pages a night", make_database, database),
    "ninety-tree": ("texts, three files a night", make_tree, tree),
}


def compare(name: str, contenders: Sequence[Contender], work: Path, scale: float, kept: Kept) -> list[Result]:
    _, make, change = KINDS[name]
    first = work / "series" / f"{name}-{scale:g}"
    if not first.exists():
        made = first.with_name(f"{first.name}.new")
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        make(made, scale)
        made.rename(first)
    results = []
    for contender in contenders:
        result = kept.get(contender)
        if result is None:
            result = Result(contender.name, contender.version, contender.style, contender.note)
            try:
                _nights(first, change, contender, result, work / "run")
            except BenchError as error:
                result.failed = str(error)
            kept.put(result)
        told = result.failed or f"{sum(result.stored) / 1e6:.1f} MB"
        print(f"{name} {contender.name}: {told}", file=sys.stderr, flush=True)
        results.append(result)
    return results


def _nights(first: Path, change: Callable[[Path, int], None], contender: Contender, result: Result, home: Path) -> None:
    source, restored = home.with_name("source"), home.with_name("restored")
    for path in (home, source, restored):
        shutil.rmtree(path, ignore_errors=True)
    home.mkdir(parents=True)
    shutil.copytree(first, source)
    try:
        keeper = Gateway(home, source) if isinstance(contender, Ours) else _Peer(contender, home, source)
        before = keeper.stored()
        for night in range(1, NIGHTS + 1):
            if night > 1:
                change(source, night)
            keeper.ingest()
            now = keeper.stored()
            result.stored.append(now - before)
            result.sizes.append(measure.stored_bytes(source))
            before = now
        rounds.require_equal(source, keeper.restore(restored))
    finally:
        for path in (home, source, restored):
            shutil.rmtree(path, ignore_errors=True)


class Gateway:
    """The product in this process, on a clock of its own."""

    def __init__(self, home: Path, source: Path) -> None:
        self._store = home / "store"
        self._clock = FakeClock(datetime(2031, 3, 1, 3, tzinfo=UTC), seed=os.urandom(16))
        config = Config(
            repository=RepositoryConfig(url=f"file://{self._store}"), state=StateConfig(directory=home / "state"),
            sources=(SourceConfig(name="bench", path=source),),
        )  # fmt: skip
        self._engine = open_engine(config, environment={"GATEWAY_PASSPHRASE": PASSWORD}, clock=self._clock)
        self._engine.init()

    def ingest(self) -> None:
        self._clock.advance(timedelta(days=1))
        (report,) = self._engine.ingest(seal_now=True, operator="bench").sources
        if report.generation is None or report.generation.state != "protected":
            raise BenchError(f"no protected generation: {report}")

    def stored(self) -> int:
        return measure.stored_bytes(self._store)

    def restore(self, to: Path) -> Path:
        self._engine.restore(Reference.parse("bench"), to)
        return to


class _Peer:
    def __init__(self, contender: Contender, home: Path, source: Path) -> None:
        self._contender = contender
        contender.begin(home, DataSet(name="", title="", path=source, size=0, files=0, single=None))

    def ingest(self) -> None:
        measure.run(self._contender.ingest())

    def stored(self) -> int:
        return self._contender.stored()

    def restore(self, to: Path) -> Path:
        measure.run(self._contender.restore(to))
        return self._contender.tree(to)
