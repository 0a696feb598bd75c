"""What the list of a million small files costs when one in a hundred changes: ``python -m tests.perf.lists [FILES]``.

Makes FILES files (1,000,000) of some bytes in directories of 500, then three generations; between two of them every
hundredth file, drawn at random, is written anew. Prints the new bytes of list packs of each.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

from gateway.config.values import Config, RepositoryConfig, SourceConfig, StateConfig
from gateway.engine import Engine, open_engine

IN_DIRECTORY = 500
SETTLED = 2.1
"""Seconds after which the time of a change tells that a file is the one that was read."""


def place(top: Path, number: int) -> Path:
    return top / f"d{number // IN_DIRECTORY:05}" / f"file-{number:07}.dat"


def opened(base: Path) -> Engine:
    config = Config(
        repository=RepositoryConfig(url=(base / "store").as_uri()),
        state=StateConfig(directory=base / "state"),
        sources=(SourceConfig(name="files", path=base / "files"),),
    )
    return open_engine(config, environment={"GATEWAY_PASSPHRASE": "a million small files"})


def list_bytes(base: Path) -> int:
    return sum(path.stat().st_size for path in (base / "store" / "packs" / "meta").rglob("*") if path.is_file())


def measure(base: Path, count: int) -> None:
    for number in range(count):
        if number % IN_DIRECTORY == 0:
            place(base / "files", number).parent.mkdir(parents=True)
        place(base / "files", number).write_bytes(b"%d" % number)
    engine = opened(base)
    engine.init()
    before = first = 0
    for generation in range(1, 4):
        time.sleep(SETTLED)
        begun = time.monotonic()
        (report,) = engine.ingest(seal_now=True, operator="bench").sources
        spent, after = time.monotonic() - begun, list_bytes(base)
        first = first or after
        share = (after - before) / first
        print(f"generation {generation}: {report.files_read:9,} files read, {spent:6.1f} s, "
              f"list {after - before:11,} bytes, {share:6.1%} of the first's")  # fmt: skip
        before = after
        for number in random.Random(generation).sample(range(count), count // 100):
            place(base / "files", number).write_bytes(b"%d in %d" % (number, generation))
    engine.close()


def main() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="gateway-lists-") as name:
        measure(Path(name), int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)


if __name__ == "__main__":
    main()
