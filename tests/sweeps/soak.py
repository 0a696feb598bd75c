"""The whole of what CI does a share of: a thousand schedules of two processes. Run by ``scripts/soak``.

Schedules are numbered from the seed; every tenth is played on a real S3 server. What was done is noted in
``out/soak/sweep-<seed>``; the same seed goes on behind it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from tests.servers.answering import ROOT
from tests.servers.seaweedfs import SeaweedFS
from tests.sweeps.lane import Outcome, play_all

RESULTS = ROOT / "docs" / "soak.md"
NOTES = ROOT / "out" / "soak"
LONGEST_MINUTES = 60
SCHEDULES = 1000
REAL_EVERY = 10
BUCKET = "sweeps"
SHARE = 20
"""CI plays one schedule in so many."""


def is_real(case: int) -> bool:
    return case % REAL_EVERY == 0


def where(server: SeaweedFS) -> str:
    """For `play_all`: a prefix for each schedule."""
    return f"s3://{BUCKET}/{{}} {server.endpoint}"


def start_server(stack: ExitStack, root: Path) -> SeaweedFS:
    server = stack.enter_context(SeaweedFS(root))
    server.create_bucket(BUCKET)
    os.environ |= {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
    return server


def soak(seed: int, minutes: float, root: Path, lanes: int) -> int:
    began = time.monotonic()
    NOTES.mkdir(parents=True, exist_ok=True)
    notes = NOTES / f"sweep-{seed}"
    done = {int(line.split(":")[0]) for line in notes.read_text().splitlines()} if notes.exists() else set[int]()
    todo = [case for case in range(seed * SCHEDULES, (seed + 1) * SCHEDULES) if case not in done]
    runs = failures = 0
    counts: Counter[str] = Counter()
    with ExitStack() as stack, notes.open("a") as noted:
        real = where(start_server(stack, root / "seaweedfs"))
        together = lanes * REAL_EVERY
        for start in range(0, len(todo), together):
            if time.monotonic() - began > minutes * 60:
                break
            batch = todo[start : start + together]
            remote, local = [each for each in batch if is_real(each)], [each for each in batch if not is_real(each)]
            outcomes: Iterator[Outcome] = chain(
                play_all(remote, root, real, lanes=lanes), play_all(local, root, lanes=lanes)
            )
            for case, problems, each in outcomes:
                runs, failures = runs + 1, failures + bool(problems)
                counts += each
                noted.write(f"{case}: {'failed' if problems else 'ok'}\n")
                noted.flush()
                sys.stderr.write("".join(f"sweep: {one}\n" for one in problems))
    sys.stderr.write(f"sweep: {', '.join(f'{name} {count}' for name, count in sorted(counts.items()))}\n")
    spent = (time.monotonic() - began) / 60
    share = f"{runs} of {SCHEDULES}" + (f", {len(done)} before" if done else "")
    line = f"| {datetime.now(UTC):%Y-%m-%d} | sweep | {seed} | {share} | {failures} | {spent:.1f} |\n"
    sys.stdout.write(line)
    with RESULTS.open("a") as results:
        results.write(line)
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak sweep", description=__doc__)
    parser.add_argument("--minutes", type=float, default=LONGEST_MINUTES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lanes", type=int, default=min(2, os.cpu_count() or 1))
    given = parser.parse_args()
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="gateway-sweep-", dir=memory if memory.is_dir() else None))
    try:
        return bool(soak(given.seed, min(given.minutes, LONGEST_MINUTES), root, given.lanes))
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
