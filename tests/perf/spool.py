"""What it costs to watch a spool of many small files: ``python -m tests.perf.spool [FILES] [DIRECTORY] [--keep]``.

Makes FILES files (1,000,000) of 1 KiB in directories of 500, and runs the engine without its door: the first
generation; one in a thousand changed and found by events alone; one in a thousand changed while no engine ran, found by
the rescan at the start; a rescan that finds nothing. Prints a table for docs/benchmarks.md. With ``--keep`` what was
made stays in DIRECTORY/kept, and a further run with it goes on from there, without a first generation.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from gateway.catalog import GenerationState
from gateway.config.values import Config, EngineConfig, RepositoryConfig, SourceConfig, StateConfig
from gateway.daemon import Daemon
from gateway.engine import open_engine
from gateway.log import silent

IN_DIRECTORY = 500
FILE_BYTES = 1024
LIMIT_SECONDS = 3600.0
ENVIRONMENT = {"GATEWAY_PASSPHRASE": "a million small files"}


def place(top: Path, number: int) -> Path:
    return top / f"d{number // IN_DIRECTORY:05}" / f"file-{number:07}.dat"


def fill(top: Path, count: int) -> None:
    chance = random.Random(1)
    for number in range(count):
        if number % IN_DIRECTORY == 0:
            place(top, number).parent.mkdir(parents=True)
        place(top, number).write_bytes(chance.randbytes(FILE_BYTES))


def change(top: Path, count: int, seed: int) -> int:
    chance = random.Random(seed)
    chosen = chance.sample(range(count), max(1, count // 1000))
    for number in chosen:
        place(top, number).write_bytes(chance.randbytes(FILE_BYTES))
    return len(chosen)


def configuration(base: Path) -> Config:
    return Config(
        repository=RepositoryConfig(url=(base / "store").as_uri()),
        state=StateConfig(directory=base / "state"),
        sources=(
            SourceConfig(
                name="files", path=base / "files", settle=timedelta(seconds=1), generation_interval=timedelta()
            ),
        ),
        engine=EngineConfig(rescan=timedelta(days=1)),
    )


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_mib() -> int:
    """The greatest resident size since `forget_peak`."""
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM:"))
    return int(line.split()[1]) // 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


class Measured:
    """One line of the table."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> Measured:
        forget_peak()
        self._began, self._cpu = time.monotonic(), cpu()
        return self

    def __exit__(self, *_: object) -> None:
        seconds, used = time.monotonic() - self._began, cpu() - self._cpu
        sys.stdout.write(f"| {self._what} | {seconds:.1f} | {used:.1f} | {peak_mib()} |\n")
        sys.stdout.flush()


def wait(what: str, done: Callable[[], object]) -> None:
    until = time.monotonic() + LIMIT_SECONDS
    while not done():
        if time.monotonic() > until:
            raise TimeoutError(what)
        time.sleep(0.05)


def running(base: Path) -> Daemon:
    daemon = Daemon(configuration(base), log=silent(), environment=ENVIRONMENT)
    daemon.start()
    return daemon


def generations(daemon: Daemon) -> int:
    context = daemon._context
    assert context is not None
    return len(context.catalog.generations("files"))


def require_read(daemon: Daemon, files: int, read: int) -> None:
    """The newest generation is whole, and nothing but what changed was read for it."""
    context = daemon._context
    assert context is not None
    newest = max(context.catalog.generations("files"), key=lambda row: row.number)
    found = newest.state, newest.files, newest.statistics.read
    if found != (GenerationState.PROTECTED, files, read * FILE_BYTES):
        daemon.finish()
        raise AssertionError(f"generation {newest.number}: {found}, of {files} files {read} were to be read")


def follow(base: Path) -> tuple[Daemon, int]:
    """A running engine that has nothing to do, and how many generations there are."""
    daemon = running(base)
    keeper = daemon._keepers["files"]
    wait("the rescan", lambda: keeper.watch.rescan_at > 0 and not keeper.watch.pending)
    return daemon, generations(daemon)


def measure(base: Path, count: int) -> None:
    sys.stdout.write(f"{count:,} files of {FILE_BYTES} bytes, {os.cpu_count()} cores\n\n")
    sys.stdout.write("| | seconds | CPU s | peak RSS MiB |\n| --- | --- | --- | --- |\n")
    if (base / "state").exists():
        daemon, made = follow(base)
    else:
        fill(base / "files", count)
        engine = open_engine(configuration(base), environment=ENVIRONMENT)
        engine.init()
        engine.close()
        with Measured("start, rescan and first generation"):
            daemon = running(base)
            wait("the first generation", lambda: generations(daemon) == 1)
        require_read(daemon, count, count)
        made = 1
    keeper = daemon._keepers["files"]
    wait("the pass to end", lambda: not keeper.watch.pending)
    time.sleep(5)
    changed = change(base / "files", count, 2 + made)
    with Measured(f"{changed:,} changed, found by events alone, and the generation"):
        wait("the second generation", lambda: generations(daemon) == made + 1)
    require_read(daemon, count, changed)
    daemon.finish()
    time.sleep(3)
    changed = change(base / "files", count, 3 + made)
    with Measured(f"{changed:,} changed while no engine ran: start, rescan and the generation"):
        daemon = running(base)
        wait("the third generation", lambda: generations(daemon) == made + 2)
    require_read(daemon, count, changed)
    daemon.finish()
    keeper = daemon._keepers["files"]
    engine = open_engine(configuration(base), environment=ENVIRONMENT)
    keeper.context = engine.hold()
    with Measured("a rescan that finds nothing"):
        keeper.watch.rescan(keeper._known())
    assert all(each.again for each in keeper.watch.pending.values())
    engine.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="?", type=int, default=1_000_000)
    parser.add_argument("directory", nargs="?")
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    if given.keep:
        base = Path(given.directory or tempfile.gettempdir()) / "kept"
        base.mkdir(exist_ok=True)
        measure(base, given.files)
        return
    base = Path(tempfile.mkdtemp(prefix="gateway-spool-", dir=given.directory))
    try:
        measure(base, given.files)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
