"""The whole of what CI does a share of: schedules, kills, an hour of work. Run by ``scripts/soak``.

Cases are numbered from the seed. What was done is noted in ``out/soak/<suite>-<seed>``; the same seed goes on behind
it. A case is noted when it is over, so that one that was cut off is run again.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from tests.engine import flat, kills, schedules
from tests.servers import samba

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "soak.md"
NOTES = ROOT / "out" / "soak"
LONGEST_MINUTES = 60
SCHEDULES = 1000
SOURCES = 18
KILLS = 500
AT_ONCE = 3

Batch = Callable[[Path, list[int]], dict[int, list[str]]]


def play_batch(root: Path, seeds: list[int]) -> dict[int, list[str]]:
    shared = samba.find_smbd() is not None and samba.can_run()
    share = root / "share"
    share.mkdir(parents=True, exist_ok=True)
    if not shared:
        return schedules.play(root / "batch", schedules.cases(seeds, shared=False), None)
    with samba.Samba(share) as server:
        return schedules.play(root / "batch", schedules.cases(seeds, shared=True), server)


def kill_batch(root: Path, seeds: list[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for problem in kills.run_all(root, seeds, at_once=AT_ONCE):
        found.setdefault(int(problem.split(":")[0].removeprefix("seed ")), []).append(problem)
    return found


SUITES: dict[str, tuple[Batch, int, int, int]] = {
    # what is run, cases, cases at once, what a case counts
    "schedules": (play_batch, SCHEDULES, SOURCES, 1),
    "engine-kills": (kill_batch, KILLS // kills.KILLS, 2 * AT_ONCE, kills.KILLS),
}


def soak(suite: str, seed: int, minutes: float, root: Path) -> int:
    """Run what of a suite fits into the time; the number of failed cases."""
    run, total, together, worth = SUITES[suite]
    began = time.monotonic()
    NOTES.mkdir(parents=True, exist_ok=True)
    notes = NOTES / f"{suite}-{seed}"
    done = {int(line.split(":")[0]) for line in notes.read_text().splitlines()} if notes.exists() else set[int]()
    todo = [case for case in range(seed * total, (seed + 1) * total) if case not in done]
    runs = failures = 0
    longest = 0.0
    with notes.open("a") as noted:
        for start in range(0, len(todo), together):
            # A batch that would not end in time is left to the next call.
            batch_began = time.monotonic()
            if batch_began - began + longest > minutes * 60:
                break
            batch = todo[start : start + together]
            place = root / str(start)
            try:
                found = run(place, batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                found = {case: [f"{type(error).__name__}: {error}"] for case in batch}
            for problems in found.values():
                sys.stderr.write("".join(f"{suite}: {each}\n" for each in problems))
            failures += len(found)
            runs += len(batch)
            noted.writelines(f"{case}: {'failed' if case in found else 'ok'}\n" for case in batch)
            noted.flush()
            shutil.rmtree(place, ignore_errors=True)
            longest = max(longest, time.monotonic() - batch_began)
    share = f"{runs * worth} of {total * worth}" + (f", {len(done) * worth} before" if done else "")
    report(suite, seed, share, failures, began)
    return failures


def report(suite: str, seed: int, share: str, failures: int, began: float) -> None:
    spent = (time.monotonic() - began) / 60
    line = f"| {datetime.now(UTC):%Y-%m-%d} | {suite} | {seed} | {share} | {failures} | {spent:.1f} |\n"
    sys.stdout.write(line)
    with RESULTS.open("a") as results:
        results.write(line)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("suite", choices=[*SUITES, "flat"])
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="gateway-soak-", dir="/var/tmp"))
    try:
        if given.suite == "flat":
            began = time.monotonic()
            wanted = min(given.minutes or flat.MINUTES, LONGEST_MINUTES)
            wrong = flat.serve(root, given.seed, wanted * 60, say=sys.stderr.write)
            sys.stderr.write("".join(f"flat: {each}\n" for each in wrong))
            report("flat", given.seed, f"{wanted:g} of {flat.MINUTES} minutes", len(wrong), began)
            return bool(wrong)
        return bool(soak(given.suite, given.seed, min(given.minutes or LONGEST_MINUTES, LONGEST_MINUTES), root))
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
