"""Every fault at every operation: the whole list, and the share of it that every run takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from gateway.config.values import Config, RepositoryConfig, StateConfig
from gateway.engine import open_engine
from gateway.store.memory import MemoryStore
from tests.faults.job import Case, Job, NeverHappened, cheap_passphrase, new_clock
from tests.faults.kinds import KINDS
from tests.faults.rigs import MemoryRig, ProxyRig, Wires
from tests.flow.gateways import ENVIRONMENT

OPERATIONS = (
    "put-slot", "put-repository", "put-header", "put-wrap", "put-entry", "put-index", "put-pack", "start", "part",
    "parts", "complete", "head", "get", "range", "list",
)  # fmt: skip
SHARE = 0.06
"""Of the operations of each script, the share that every run takes; at least one. The soak takes all."""


@dataclass(frozen=True, slots=True)
class Born:
    """A repository just after `init`."""

    objects: dict[str, bytes]
    sheet: str

    @classmethod
    def make(cls, state: Path) -> Born:
        clock = new_clock("born")
        store = MemoryStore(clock)
        config = Config(repository=RepositoryConfig(url="s3://bucket"), state=StateConfig(directory=state))
        engine = open_engine(config, store=store, clock=clock, environment=ENVIRONMENT)
        with cheap_passphrase():
            report = engine.init()
        engine.close()
        return cls(store.dump(), report.recovery_sheet)


def scripts() -> list[tuple[str, str]]:
    """Every fault with every duration: (fault, lasts)."""
    found = []
    for name, kind in KINDS.items():
        found.append((name, "once"))
        if kind.ridden and kind.errors:
            found += [(name, "burst"), (name, "for-ever")]
    return found


def cases(*, at_the_port: bool = False) -> list[Case]:
    """The whole matrix."""
    found = []
    for fault, lasts in scripts():
        kind = KINDS[fault]
        if at_the_port and not kind.script:
            continue
        found += [Case(fault=fault, operation=each, lasts=lasts) for each in OPERATIONS if each in kind.operations]
    return found


def number(*words: object) -> int:
    """The same number for the same words, spread evenly."""
    return int.from_bytes(sha256("/".join(map(str, words)).encode()).digest()[:8])


def share(found: list[Case], seed: object, part: float = SHARE) -> list[Case]:
    """A part of the cases of each script, at least one of each, the same for the same seed."""
    by_script: dict[tuple[str, str], list[Case]] = {}
    for case in found:
        by_script.setdefault((case.fault, case.lasts), []).append(case)
    chosen = []
    for of_one in by_script.values():
        mixed = sorted(of_one, key=lambda case: number(seed, case))
        chosen += mixed[: max(1, round(part * len(mixed)))]
    return chosen


def measure(root: Path, wires: Wires, born: Born) -> dict[str, Counter[str]]:
    """The requests of each step of a job without faults."""
    root.mkdir()
    job = Job(root, ProxyRig(wires, born.objects, None), born.sheet)
    job.run()
    job.steps["init"] = Counter({"put-slot": 2, "put-repository": 1, "other": 40})
    return job.steps


def placed(case: Case, baseline: dict[str, Counter[str]], seed: object) -> Case:
    """The case with the call that it happens to chosen among those a job makes."""
    # Not among the last ones: how many there are depends on which worker was faster.
    total = max(1, sum(step[case.operation] for step in baseline.values()) * 6 // 10)
    if case.operation in ("put-slot", "put-repository", "parts"):
        total = {"put-slot": 2}.get(case.operation, 1)
    return Case(
        fault=case.fault, operation=case.operation, lasts=case.lasts, first=1 + number(seed, case, "first") % total
    )


def over_http(case: Case, root: Path, wires: Wires, born: Born, baseline: dict[str, Counter[str]]) -> None:
    def run(one: Case, place: Path) -> None:
        Job(place, ProxyRig(wires, born.objects, one), born.sheet, one, baseline=baseline).run()

    _run(case, root, run)


def at_the_port(case: Case, root: Path, born: Born) -> None:
    def run(one: Case, place: Path) -> None:
        Job(place, MemoryRig(born.objects, one), born.sheet, one).run()

    _run(case, root, run)


def _run(case: Case, root: Path, run: Callable[[Case, Path], None]) -> None:
    """Run a case; where the call that was to be hit did not come, which threads decide, the first one is hit."""
    for name, one in (("a", case), ("b", replace(case, first=1))):
        place = root / name
        place.mkdir()
        try:
            return run(one, place)
        except NeverHappened:
            if one.first == 1:
                raise
    return None
