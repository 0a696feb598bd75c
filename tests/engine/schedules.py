"""One engine with many sources, in each of which the writers of another seed are at work: it is never fooled.

A batch is a number of seeds: every odd one is written over SMB where there is a server, the others by this machine,
with mappings and `kill -9`; every second pair wants evidence 2. All are played at once, since most of the time of a
schedule is waiting.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.engine.machines import (
    SETTLE_SECONDS,
    Load,
    Source,
    as_told,
    generations,
    held_now,
    init,
    joined,
    machine,
    passes,
    reading,
)
from tests.servers.samba import Address, Samba
from tests.system.serving import Serving
from tests.writers.child import RemoteHands
from tests.writers.hands import Hands
from tests.writers.judge import Rules, judge
from tests.writers.kinds import KINDS, LOCAL_ONLY, schedule
from tests.writers.oracle import Oracle
from tests.writers.plan import How, Schedule
from tests.writers.play import OnDisk, Player

WRITERS = 4
SMALL_FILES = 16
"""Few, so that what is held back at the end is known by name, and the engine is busy with more than one source."""
APART_SECONDS = 1.0
"""How far the moments of a generation's files may be from one another, beyond what its pass took: how late the books
of a busy machine may be."""
GRACE_SECONDS = 4.5
"""After how long of standing a version must be found, with nothing to do for the engine: settle, a rescan, a few looks
around at all sources. The engine takes its sources in turn, so passes, which are in its log, are no grace, and neither
is time in which it computed or others had the processors. Whatever stands at the end must be found whenever it came."""
STANDS_SECONDS = 10_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    seed: int
    shared: bool
    small_files: int = 0
    """That many small files beside the other writers; 0: only what was drawn, and few of them."""

    @property
    def name(self) -> str:
        return f"s{self.seed}"

    @property
    def minimum_evidence(self) -> int:
        return 1 + self.seed // 2 % 2

    def schedule(self) -> Schedule:
        possible = [name for name in KINDS if not (self.shared and name in LOCAL_ONLY)]
        kinds = random.Random(f"kinds {self.seed}").sample(possible, WRITERS)
        if self.small_files and "small_files" not in kinds:
            kinds[0] = "small_files"
        return schedule(
            self.seed, local=not self.shared, kinds=kinds, small_files=self.small_files or SMALL_FILES
        )  # fmt: skip


def cases(seeds: Sequence[int], *, shared: bool) -> list[Case]:
    return [Case(seed=seed, shared=shared and seed % 2 == 1) for seed in seeds]


class Below:
    """Mixed into hands: all paths are below a directory of the share."""

    prefix = ""

    def make_directory(self, path: str) -> None:
        super().make_directory(self.prefix + path)  # type: ignore[misc]

    def open(self, path: str, how: How, size: int = 0) -> None:
        super().open(self.prefix + path, how, size)  # type: ignore[misc]

    def rename(self, path: str, to: str) -> None:
        super().rename(self.prefix + path, self.prefix + to)  # type: ignore[misc]

    def delete(self, path: str) -> None:
        super().delete(self.prefix + path)  # type: ignore[misc]


class RemoteBelow(Below, RemoteHands):
    pass


class OnShare(OnDisk):
    """One directory of a share that others use, too."""

    def __init__(self, spool: Path, address: Address, prefix: str) -> None:
        super().__init__(spool, address)
        self._where = address
        self._prefix = prefix

    def hands(self, *, mortal: bool) -> Hands:
        from tests.writers.smb import SmbHands

        class SmbBelow(Below, SmbHands):
            pass

        made = RemoteBelow(self._where) if mortal else SmbBelow(self._where)
        made.prefix = self._prefix
        self._all.append(made)
        return made


def rules(case: Case, busy: Sequence[tuple[float, float]]) -> Rules:
    return Rules(
        minimum_evidence=case.minimum_evidence,
        settle_seconds=SETTLE_SECONDS,
        grace_seconds=GRACE_SECONDS,
        apart_seconds=APART_SECONDS,
        busy=busy,
    )


def play(root: Path, chosen: Sequence[Case], server: Samba | None) -> dict[int, list[str]]:
    """Every violation, by seed. `root` is left as it is where there is one, and is empty else."""
    sources = [
        Source(name=case.name, path=_spool(root, case, server), minimum_evidence=case.minimum_evidence)
        for case in chosen
    ]
    for source in sources:
        shutil.rmtree(source.path, ignore_errors=True)  # an earlier batch that failed left it
    gateway = machine(root / "gateway", root / "store", sources)
    init(gateway)
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(Serving(gateway, words=("--log-json", "serve")))
        assert engine.process is not None
        load = stack.enter_context(Load(engine.process.pid))
        pool = stack.enter_context(ThreadPoolExecutor(len(chosen)))
        oracles = list(pool.map(lambda each: _played(each[0], each[1].path, server), zip(chosen, sources, strict=True)))
        gateway.run("barrier", code=(0, 3))  # 3: the judge knows what is held back
        made = passes(engine.log)
        # What stands now has stood for long enough, whatever it is.
        end = time.monotonic() + STANDS_SECONDS
        found: dict[int, list[str]] = {}
        with reading(gateway) as reader:
            for case, oracle in zip(chosen, oracles, strict=True):
                truth = as_told(oracle.stood_until(end))
                of_case = generations(reader, case.name, truth, made)
                at_work = [(truth.moment(each.begun), truth.moment(each.ended)) for each in made]
                busy = joined([*at_work, *load.spans])
                wrong = judge(truth, of_case, rules(case, busy), held_now=held_now(reader, case.name))
                if not of_case:
                    found[case.seed] = ["no generation was made"]
                elif wrong:
                    found[case.seed] = [f"{case}: {each}" for each in wrong]
        code = engine.stop()
        if code:
            found[-1] = [f"the engine ended with {code}: {engine.log[-2000:]}"]
        if "engine.defect" in engine.log or "Traceback" in engine.log:
            found[-1] = [engine.log[-4000:]]
    if not found:
        shutil.rmtree(root)
        for source in sources:
            shutil.rmtree(source.path, ignore_errors=True)
    return found


def _spool(root: Path, case: Case, server: Samba | None) -> Path:
    return server.directory / case.name if case.shared and server is not None else root / "spool" / case.name


def _played(case: Case, spool: Path, server: Samba | None) -> Oracle:
    if case.shared:
        assert server is not None
        place: OnDisk = OnShare(spool, server.address, f"{case.name}/")
    else:
        place = OnDisk(spool)
    return Player(case.schedule(), place, settle_seconds=SETTLE_SECONDS).play()
