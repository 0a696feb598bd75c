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

from gateway.catalog import Catalog, GenerationRow, GenerationState
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


def rows(daemon: Daemon) -> list[GenerationRow]:
    context = daemon._context
    assert context is not None
    return context.catalog.generations("files")


def has(daemon: Daemon, files: int, read: int, before: int = 0) -> bool:
    """Whether the newest generation is whole, and so many files were read for those after `before`."""
    found = rows(daemon)
    newest = max(found, key=lambda row: row.number, default=None)
    if newest is None or newest.state is not GenerationState.PROTECTED or newest.files != files:
        return False
    return _read(found, before) >= read


def require_read(daemon: Daemon, most: int, before: int = 0) -> None:
    """For the generations after `before` not more files were read than that."""
    if (read := _read(rows(daemon), before)) > most:
        daemon.finish()
        raise AssertionError(f"{read} files were read, of which {most} were to be")


def _read(found: list[GenerationRow], before: int) -> int:
    return sum(row.statistics.read for row in found if row.number > before) // FILE_BYTES


def rows_of(base: Path) -> list[GenerationRow]:
    """Where no engine runs."""
    with Catalog(base / "state" / "catalog.sqlite", read_only=True) as catalog:
        return catalog.generations("files")


def follow(base: Path) -> Daemon:
    """A running engine that has nothing to do."""
    daemon = running(base)
    keeper = daemon._keepers["files"]
    wait("the rescan", lambda: keeper.watch.rescan_at > 0 and not keeper.watch.pending)
    return daemon


def measure(base: Path, count: int) -> None:
    sys.stdout.write(f"{count:,} files of {FILE_BYTES} bytes, {os.cpu_count()} cores\n\n")
    sys.stdout.write("| | seconds | CPU s | peak RSS MiB |\n| --- | --- | --- | --- |\n")
    if (base / "state").exists():
        daemon = follow(base)
    else:
        fill(base / "files", count)
        engine = open_engine(configuration(base), environment=ENVIRONMENT)
        engine.init()
        engine.close()
        with Measured("start, rescan and first generation"):
            daemon = running(base)
            wait("all files", lambda: has(daemon, count, count))
        require_read(daemon, count)
    keeper = daemon._keepers["files"]
    wait("the pass to end", lambda: not keeper.watch.pending)
    time.sleep(5)
    made = len(rows(daemon))
    changed = change(base / "files", count, 2 + made)
    with Measured(f"{changed:,} changed, found by events alone, and the generation"):
        wait("what changed", lambda: has(daemon, count, changed, made))
    sys.stdout.write(f"(in {len(rows(daemon)) - made} generations)\n")
    daemon.finish()
    time.sleep(3)
    now = len(rows_of(base))
    changed_too = change(base / "files", count, 3 + made)
    with Measured(f"{changed_too:,} changed while no engine ran: start, rescan and the generation"):
        daemon = running(base)
        wait("what changed too", lambda: has(daemon, count, changed_too, now))
    # What was read within seconds of its change is read once more.
    require_read(daemon, 2 * (changed + changed_too), made)
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
