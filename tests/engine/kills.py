"""The engine is killed with SIGKILL again and again while writers are at work; after the last restart all is
there.

A case is a machine of its own with two sources, one of minimum evidence 1 and one of 2, a schedule in each, and some
kills at moments drawn from the seed, from the middle of a start to the middle of a generation. Cases run side by side,
since most of their time is waiting.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gateway.api import Depth, Reference
from gateway.catalog import Catalog
from gateway.config import load
from gateway.engine import open_engine
from tests.engine.machines import SETTLE_SECONDS, Source, as_told, generations, held_now, init, machine, reading
from tests.system.command import Gateway
from tests.system.serving import Serving
from tests.writers.judge import Rules, judge
from tests.writers.kinds import KINDS, schedule
from tests.writers.oracle import Oracle
from tests.writers.play import OnDisk, Player

KILLS = 5
"""Of one case."""
WRITERS = 5
NEVER = 10_000.0
"""Seconds. A version that is gone before the engine runs in peace need not be found; what stands at the end must."""
Problems = list[str]


def run(root: Path, seed: int, kills: int = KILLS) -> Problems:
    """What is wrong after so many kills; `root` is left for a look where something is."""
    chance = random.Random(f"kills {seed}")
    sources = [
        Source(name=f"evidence-{minimum}", path=root / "spool" / str(minimum), minimum_evidence=minimum)
        for minimum in (1, 2)
    ]
    gateway = machine(root / "gateway", root / "store", sources)
    sheet = init(gateway)
    engine = Serving(gateway)
    problems: Problems = []
    seen: dict[str, tuple[str, int]] = {}
    with ThreadPoolExecutor(len(sources)) as pool:
        ready, pause = threading.Event(), threading.Event()
        playing = [pool.submit(_play, seed * 2 + number, source, ready) for number, source in enumerate(sources)]
        ready.set()
        for _ in range(kills):
            engine.start(ready=False)
            # Half of the moments lie in the start, about a second, and the look around that follows.
            pause.wait(chance.choice((chance.uniform(0.3, 2.5), chance.uniform(2.5, 6.0))))
            engine.kill()
            problems += _kept(gateway, seen)
        engine.start()
        try:
            oracles = [each.result() for each in playing]
            gateway.run("barrier", code=(0, 3))  # 3: the judge knows what is held back
            end = time.monotonic() + NEVER
            with reading(gateway) as reader:
                for source, oracle in zip(sources, oracles, strict=True):
                    truth = as_told(oracle.stood_until(end), watched=False)
                    made = generations(reader, source.name, truth)
                    rules = Rules(
                        minimum_evidence=source.minimum_evidence, settle_seconds=SETTLE_SECONDS,
                        grace_seconds=NEVER / 2, apart_seconds=NEVER,
                    )  # fmt: skip
                    found = judge(truth, made, rules, held_now=held_now(reader, source.name))
                    problems += [f"{source.name}: {each}" for each in found]
                    problems += _twice(source, made)
            problems += _kept(gateway, seen)
            if engine.stop():
                problems.append("the engine did not end well")
        finally:
            engine.kill()
    if "Traceback" in engine.log or "engine.defect" in engine.log:
        problems.append(engine.log[-3000:])
    problems += _after(gateway, sheet, root)
    if not problems:
        shutil.rmtree(root)
    return [f"seed {seed}: {each}" for each in problems]


def _play(seed: int, source: Source, ready: threading.Event) -> Oracle:
    ready.wait()
    kinds = random.Random(f"load {seed}").sample(list(KINDS), WRITERS)
    plan = schedule(seed, local=True, kinds=kinds, small_files=60)
    return Player(plan, OnDisk(source.path), settle_seconds=SETTLE_SECONDS).play(rest=0)


def _kept(gateway: Gateway, seen: dict[str, tuple[str, int]]) -> Problems:
    """What was protected before a kill is so after it, under the same number; the catalog is asked, no engine runs."""
    with Catalog(gateway.state / "catalog.sqlite", read_only=True) as catalog:
        rows = [row for each in ("evidence-1", "evidence-2") for row in catalog.generations(each)]
    now = {row.generation.hex(): (row.source, row.number) for row in rows if str(row.state) == "protected"}
    problems = [f"{where} was protected, and is not any more" for id_, where in seen.items() if now.get(id_) != where]
    if len(set(now.values())) != len(now):
        problems.append("two generations have one number")
    seen.update(now)
    return problems


def _twice(source: Source, made: list[Any]) -> Problems:
    """A kill between a commit and what is remembered of it must not lead to the same generation once more."""
    pairs = itertools.pairwise(made)
    return [
        f"{source.name}@{two.number} says what {one.number} says already"
        for one, two in pairs
        if one.files and one.state == two.state and one.files == two.files and one.held_back == two.held_back
        and _directories(source, one) == _directories(source, two)
    ]  # fmt: skip


def _directories(source: Source, made: Any) -> frozenset[str]:
    return frozenset(path.rpartition("/")[0] for path in made.files)


def _after(gateway: Gateway, sheet: Path, root: Path) -> Problems:
    """Everything that was stored is whole, no chunk in two packs, and a machine made anew from the bucket agrees."""
    other = Gateway(root / "other", gateway.place, {})
    other.config.write_text(gateway.config.read_text().replace(str(gateway.state), str(other.state)))
    with (
        contextlib.closing(open_engine(load(gateway.config))) as here,
        contextlib.closing(open_engine(load(other.config), recovery_sheet=sheet.read_text())) as there,
    ):
        problems = [f"verify: {each}" for each in here.verify(depth=Depth.DATA).problems]
        problems += [f"rebuild: {each}" for each in there.rebuild().problems]
        ours, theirs = (each._writing().catalog.dump_derived() for each in (here, there))
        problems += [f"table {name} differs from a rebuilt one" for name in ours if ours[name] != theirs[name]]
        if here.generations() != there.generations() or here.chains() != there.chains():
            problems.append("generations or chains differ from those of a rebuilt machine")
        for source in ("evidence-1", "evidence-2"):
            for each in here.generations(source):
                reference = Reference(source=source, number=each.number)
                if list(here.list_files(reference)) != list(there.list_files(reference)):
                    problems.append(f"{reference} has other files than on a rebuilt machine")
    return problems


def run_all(root: Path, seeds: list[int], *, kills: int = KILLS, at_once: int = 5) -> Problems:
    """Cases side by side; an exception is a problem, too."""

    def one(seed: int) -> Problems:
        try:
            return run(root / str(seed), seed, kills)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            return [f"seed {seed}: {type(error).__name__}: {error}"]

    with ThreadPoolExecutor(at_once) as pool:
        return [problem for each in pool.map(one, seeds) for problem in each]
