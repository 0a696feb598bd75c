"""The whole of what CI does a share of: every bit of the tiny repositories, every structural case, every ingest. Run by
``scripts/soak tamper``.

The work is cut into batches, which are shuffled by the seed and taken until the time is over. What was done is noted in
``out/soak/tamper-<seed>``; the same seed goes on behind it.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tests.tamper import runs, subjects
from tests.tamper.cases import Case
from tests.tamper.subjects import Subject

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "soak.md"
NOTES = ROOT / "out" / "soak"
LONGEST_MINUTES = 60
BATCH = {"flips": 2000, "structural": 200, "ingests": 40}


def batches(subject: Subject, seed: int) -> Iterator[tuple[str, str, list[Case]]]:
    """Name, kind and cases of every batch of a subject."""
    structural = runs.structural(subject, random.Random(seed))
    kinds = {"structural": structural, "ingests": structural}
    if subject.name in subjects.TINY:
        kinds["flips"] = runs.flips(subject, random.Random(seed), every_bit=True)
    for kind, chosen in kinds.items():
        for at in range(0, len(chosen), BATCH[kind]):
            yield f"{subject.name} {kind} {at}", kind, chosen[at : at + BATCH[kind]]


def main(seed: int, minutes: float) -> int:
    """Run what fits into the time; the number of failures."""
    began = time.monotonic()
    NOTES.mkdir(parents=True, exist_ok=True)
    notes = NOTES / f"tamper-{seed}"
    done = set(notes.read_text().splitlines()) if notes.exists() else set[str]()
    ran = before = total = failures = 0
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(runs.made(name)) for name in (*subjects.TINY, *subjects.LARGER)]
        todo = [(subject, *batch) for subject in made for batch in batches(subject, seed)]
        total = sum(len(chosen) for *_, chosen in todo)
        before = sum(len(chosen) for _, name, _, chosen in todo if name in done)
        todo = [each for each in todo if each[1] not in done]
        random.Random(seed).shuffle(todo)
        with notes.open("a") as noted:
            for subject, name, kind, chosen in todo:
                if time.monotonic() - began > minutes * 60:
                    break
                if kind == "ingests":
                    wrong = runs.run_ingests(subject, chosen)
                else:
                    wrong = runs.run(subject, chosen, fast=kind == "flips", both=kind != "flips")
                ran += len(chosen)
                failures += len(wrong)
                noted.write(name + "\n")
                noted.flush()
                for line in wrong:
                    sys.stderr.write(line + "\n")
    spent = (time.monotonic() - began) / 60
    share = f"{ran} of {total}" + (f", {before} before" if before else "")
    line = f"| {datetime.now(UTC):%Y-%m-%d} | tamper | {seed} | {share} | {failures} | {spent:.1f} |"
    sys.stdout.write(line + "\n")
    with RESULTS.open("a") as results:
        results.write(line + "\n")
    return failures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/soak tamper", description=__doc__)
    parser.add_argument("--minutes", type=float, default=LONGEST_MINUTES)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    sys.exit(1 if main(given.seed, min(given.minutes, LONGEST_MINUTES)) else 0)
