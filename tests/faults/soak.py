"""The whole matrix and all failing disks, again and again until the time is over, each with another call hit. Run by
``scripts/soak faults``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.disks import Disk, disks, harm
from tests.faults.job import Case
from tests.faults.machine import Machine, Zygote, build_shim
from tests.faults.matrix import Born, at_the_port, cases, measure, number, over_http, placed
from tests.faults.proxy import running_proxy
from tests.faults.rigs import Wires, s3_store

RESULTS = Path(__file__).parents[2] / "docs" / "soak.md"
LONGEST_MINUTES = 60


def rounds(seed: int) -> Iterator[tuple[int, str, Case | Disk]]:
    """Every case once over HTTP and at the port, and every disk, in an order of its own; then all with another seed."""
    while True:
        every: list[tuple[str, Case | Disk]] = [("http", case) for case in cases()]
        every += [("port", case) for case in cases(at_the_port=True)] + [("disk", disk) for disk in disks()]
        for way, case in sorted(every, key=lambda one: number(seed, *one)):
            yield seed, way, case
        seed += 1


def main(seed: int, minutes: float) -> tuple[int, list[str]]:
    """Run for so long; returns how many cases were run, and what failed, each with the words to run it again."""
    end, count, failures = time.monotonic() + minutes * 60, 0, list[str]()
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=base, prefix="gateway-faults-") as name, running_proxy() as proxy:
        root = Path(name)
        wires = Wires(proxy, s3_store(proxy), s3_store(proxy, short=True))
        try:
            born = Born.make(root / "born")
            baseline = measure(root / "baseline", wires, born)
            shim = build_shim(root)
            zygote = Zygote(shim) if shim is not None else None
            ready = Machine(root / "ready", zygote, born.sheet) if zygote is not None else None
            if ready is not None:
                ready.prepare(born.objects)
            for of_round, way, each in rounds(seed):
                if time.monotonic() > end:
                    break
                place = root / str(count)
                place.mkdir()
                case = placed(each, baseline, of_round) if isinstance(each, Case) else each
                try:
                    if isinstance(case, Disk):
                        if ready is not None:
                            harm(case, ready, place, of_round)
                    elif way == "http":
                        over_http(case, place, wires, born, baseline)
                    else:
                        at_the_port(case, place, born)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                    failures.append(f"{of_round} {way} {case!r}: {type(error).__name__}: {error}")
                    sys.stderr.write(failures[-1] + "\n")
                shutil.rmtree(place)
                count += 1
            if zygote is not None:
                zygote.close()
        finally:
            wires.patient.close()
            wires.hasty.close()
    return count, failures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/soak faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=LONGEST_MINUTES)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    began = time.monotonic()
    done, found = main(given.seed, min(given.minutes, LONGEST_MINUTES))
    spent = (time.monotonic() - began) / 60
    line = f"| {datetime.now(UTC):%Y-%m-%d} | faults | {given.seed} | {done} | {len(found)} | {spent:.1f} |\n"
    sys.stdout.write(line)
    with RESULTS.open("a") as results:
        results.write(line)
    sys.exit(bool(found))
