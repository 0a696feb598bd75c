"""What the chunk index holds in memory and how fast it answers: ``python -m tests.perf.ids [MILLION ...]``.

Synthetic ids, added as an ingest adds them (runs of 16 in packs of 2,000), saved, opened by a new process, asked for
known and unknown ids in batches of 64, the number that a buffer of 1 MiB has. Memory is the greatest resident set of
each process; Python with numpy alone is printed as "nothing".
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from blake3 import blake3

from gateway.repository.chunk_index import ChunkIndex

PACK = 2000
BATCH = 64


def ids(first: int, count: int) -> bytes:
    return b"".join(blake3(n.to_bytes(8, "little")).digest(16) for n in range(first, first + count))


def pack_id(number: int) -> bytes:
    return blake3(number.to_bytes(8, "big")).digest(16)


def fill(directory: Path, count: int) -> None:
    index = ChunkIndex(directory, os.urandom)
    spent = 0.0
    for number in range(1, count // PACK + 1):
        index.allow(number, pack_id(number))
        made = ids(number * PACK, PACK)
        begun = time.process_time()
        for at in range(0, PACK, 16):
            index.add(made[16 * at : 16 * (at + 16)], number, at)
        spent += time.process_time() - begun
    begun = time.process_time()
    index.save({number: pack_id(number) for number in range(1, count // PACK + 1)})
    spent += time.process_time() - begun
    print(f"{spent / count * 1e6:.2f} {_rss()}")


def ask(directory: Path, count: int) -> None:
    begun = time.monotonic()
    index = ChunkIndex(directory, os.urandom)
    for number in range(1, count // PACK + 1):
        index.allow(number, pack_id(number))
    opened = time.monotonic() - begun
    found = []
    for first, known in ((PACK, True), (count * 10, False)):
        asked = [ids(first + at, BATCH) for at in range(0, min(count - PACK, 200_000), BATCH)]
        begun = time.process_time()
        answers = [index.lookup(each) for each in asked]
        found.append((time.process_time() - begun) / len(asked) / BATCH * 1e6)
        assert all(any(answer) is known for answer in answers)
    print(f"{opened:.2f} {found[0]:.2f} {found[1]:.2f} {_rss()}")


def _rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.perf.ids", description=__doc__.split("\n", 1)[0])
    parser.add_argument("millions", nargs="*", type=float, default=[1.0, 20.0])
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/gateway-ids"))
    options = parser.parse_args()

    def child(what: str, count: int) -> list[str]:
        words = [sys.executable, "-c", f"from tests.perf.ids import *; {what}(Path({str(options.work)!r}), {count})"]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        return done.stdout.split()

    print("| ids | on disk MB | add us | its RSS MiB | open s | known us | unknown us | its RSS MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for millions in options.millions:
        shutil.rmtree(options.work, ignore_errors=True)
        count = int(millions * 1e6)
        added, filling = child("fill", count)
        size = sum(path.stat().st_size for path in options.work.iterdir())
        opened, known, unknown, asking = child("ask", count)
        print(f"| {count:,} | {size / 1e6:.0f} | {added} | {filling} | {opened} | {known} | {unknown} | {asking} |")
    shutil.rmtree(options.work)
    nothing = subprocess.run(
        [sys.executable, "-c", "from tests.perf.ids import *; from tests.perf.ids import _rss; print(_rss())"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    print(f"nothing: {nothing.stdout.strip()} MiB")


if __name__ == "__main__":
    main()
