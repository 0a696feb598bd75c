"""The whole matrix, again and again until the time is over, each case with another call hit than the time before."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.job import Case
from tests.faults.matrix import Born, at_the_port, cases, measure, number, over_http, placed
from tests.faults.proxy import running_proxy
from tests.faults.rigs import Wires, s3_store


def rounds(seed: int) -> Iterator[tuple[int, str, Case]]:
    """Every case once over HTTP and at the port, in an order of its own, then all over again with another seed."""
    while True:
        both = [("http", case) for case in cases()] + [("port", case) for case in cases(at_the_port=True)]
        for way, case in sorted(both, key=lambda one: number(seed, *one)):
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
            for of_round, way, each in rounds(seed):
                if time.monotonic() > end:
                    break
                case, place = placed(each, baseline, of_round), root / str(count)
                place.mkdir()
                try:
                    if way == "http":
                        over_http(case, place, wires, born, baseline)
                    else:
                        at_the_port(case, place, born)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                    failures.append(f"{way} {case!r}: {type(error).__name__}: {error}")
                    sys.stderr.write(failures[-1] + "\n")
                shutil.rmtree(place)
                count += 1
        finally:
            wires.patient.close()
            wires.hasty.close()
    return count, failures


if __name__ == "__main__":
    done, found = main(int(sys.argv[1]), float(sys.argv[2]))
    sys.stdout.write(f"{done} cases, {len(found)} failures\n")
    sys.exit(bool(found))
