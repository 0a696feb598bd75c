"""The whole of what CI does a share of: kills at every occurrence of every effect. Run by ``scripts/soak``.

The cases of a suite are shuffled by the seed and taken until the time is over. What was done is noted in
``out/soak/<suite>-<seed>``; the same seed goes on behind it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue

from tests.crash import points
from tests.crash.cases import STEPS, Prepared, kill_and_go_on, kill_remote, prepare, prepare_remote
from tests.crash.forks import Forks
from tests.crash.machine import Kill
from tests.servers.answering import ROOT
from tests.servers.seaweedfs import SeaweedFS

PROCESSES = min(2, os.cpu_count() or 1)
RESULTS = ROOT / "docs" / "soak.md"
NOTES = ROOT / "out" / "soak"
LONGEST_MINUTES = 60

Case = tuple[str, Kill]
Run = Callable[[Forks, Path, str, Kill], list[str]]


@dataclass(frozen=True, slots=True)
class Suite:
    """What is killed, where; and how a case is run."""

    prepared: Prepared
    run: Run

    def cases(self, seed: int) -> list[Case]:
        found = [
            (step, Kill(moment=moment, name=name, occurrence=occurrence))
            for step in self.prepared.traces
            for name, count in sorted(self.prepared.occurrences(step).items())
            for occurrence in range(1, count + 1)
            for moment in ("before", "after")
        ]
        random.Random(seed).shuffle(found)
        return found


@contextlib.contextmanager
def on_a_directory(root: Path, forks: Forks) -> Iterator[Suite]:
    prepared = prepare(root, forks)

    def run(server: Forks, place: Path, step: str, kill: Kill) -> list[str]:
        return kill_and_go_on(prepared, server, place, step, kill)

    yield Suite(prepared, run)


@contextlib.contextmanager
def on_seaweedfs(root: Path, forks: Forks) -> Iterator[Suite]:
    server: SeaweedFS = _servers[0]
    where = f"s3://crash/{{}} {server.endpoint}"
    prepared = prepare_remote(root, forks, where.format("prepare"))

    def run(server: Forks, place: Path, step: str, kill: Kill) -> list[str]:
        return kill_remote(prepared, server, place, step, kill, where.format(place.name))

    yield Suite(prepared, run)


_servers: list[SeaweedFS] = []
SUITES = {"crash": on_a_directory, "crash-seaweedfs": on_seaweedfs}


def name_of(case: Case) -> str:
    step, kill = case
    return f"{step} {kill.moment} {kill.name} {kill.occurrence}"


def soak(suite: str, seed: int, minutes: float, root: Path) -> int:
    """Run what of a suite fits into the time; the number of failures."""
    began = time.monotonic()
    NOTES.mkdir(parents=True, exist_ok=True)
    notes = NOTES / f"{suite}-{seed}"
    done = {line.rpartition(": ")[0] for line in notes.read_text().splitlines()} if notes.exists() else set[str]()
    runs = failures = 0
    with contextlib.ExitStack() as stack:
        free: SimpleQueue[Forks] = SimpleQueue()
        first = stack.enter_context(Forks())
        for server in (first, *(stack.enter_context(Forks()) for _ in range(PROCESSES - 1))):
            free.put(server)
        made = stack.enter_context(SUITES[suite](root, first))
        cases = made.cases(seed)
        todo = [case for case in cases if name_of(case) not in done]

        def run(numbered: tuple[int, Case]) -> tuple[Case, list[str] | None]:
            number, case = numbered
            if time.monotonic() - began > minutes * 60:
                return case, None
            server = free.get()
            try:
                return case, made.run(server, root / f"case-{number}", *case)
            finally:
                free.put(server)

        with notes.open("a") as noted, ThreadPoolExecutor(PROCESSES) as pool:
            for case, problems in pool.map(run, enumerate(todo)):
                if problems is None:
                    continue
                runs += 1
                failures += bool(problems)
                noted.write(f"{name_of(case)}: {'failed' if problems else 'ok'}\n")
                noted.flush()
                for problem in problems:
                    sys.stderr.write(f"{name_of(case)}: {problem}\n")
    spent = (time.monotonic() - began) / 60
    share = f"{runs} of {len(cases)}" + (f", {len(cases) - len(todo)} before" if len(todo) < len(cases) else "")
    line = f"| {datetime.now(UTC):%Y-%m-%d} | {suite} | {seed} | {share} | {failures} | {spent:.1f} |"
    sys.stdout.write(line + "\n")
    with RESULTS.open("a") as results:
        results.write(line + "\n")
    return failures


def write_points(root: Path) -> None:
    """Write the steps anew into ``points.txt``; what is killed at elsewhere stays."""
    with Forks() as forks:
        prepared = prepare(root, forks)
    found = {name: where for name, where in points.listed().items() if not set(where.split()) & STEPS.keys()}
    met: dict[str, list[str]] = {}
    for step in STEPS:
        for name in prepared.occurrences(step):
            met.setdefault(name, []).append(step)
    found |= {name: " ".join(steps) for name, steps in met.items()}
    head = points.LIST.read_text().partition("\n\n")[0]
    points.LIST.write_text(head + "\n\n" + "".join(f"{name:<26} {found[name]}\n" for name in sorted(found)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("suite", choices=[*SUITES, "points"])
    parser.add_argument("--minutes", type=float, default=LONGEST_MINUTES)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="gateway-soak-", dir=memory if memory.is_dir() else None))
    try:
        if given.suite == "points":
            write_points(root)
            return 0
        with contextlib.ExitStack() as stack:
            if given.suite == "crash-seaweedfs":
                server = stack.enter_context(SeaweedFS(root / "seaweedfs"))
                server.create_bucket("crash")
                os.environ |= {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
                _servers.append(server)
            return 1 if soak(given.suite, given.seed, min(given.minutes, LONGEST_MINUTES), root) else 0
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
