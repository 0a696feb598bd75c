"""A process that plays schedules, one after the other: ``python -m tests.sweeps.lane``, and the side that asks it.

It has one thread, so that it can fork the processes of its schedules; several lanes use several processors.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

from gateway.clock import SystemClock
from gateway.store.open import open_store
from tests.crash import child
from tests.servers.answering import Answering
from tests.sweeps.hands import Place
from tests.sweeps.play import run

Outcome = tuple[int, list[str], Counter[str]]


class Lane(Answering):
    """The side that asks."""

    def __init__(self) -> None:
        super().__init__("tests.sweeps.lane")

    def play(self, seed: int, root: Path, real: str) -> Outcome:
        problems, counts = self.ask([seed, str(root), real])
        return seed, problems, Counter(counts)


def play_all(seeds: Iterable[int], root: Path, real: str = "", *, lanes: int) -> Iterator[Outcome]:
    """Every seed on some lane, in their order. `real`: with ``{}`` for what is each schedule's own."""
    with ExitStack() as stack:
        free: SimpleQueue[Lane] = SimpleQueue()
        for _ in range(lanes):
            free.put(stack.enter_context(Lane()))

        def one(seed: int) -> Outcome:
            lane = free.get()
            try:
                return lane.play(seed, root / f"schedule-{seed}", real.format(seed))
            finally:
                free.put(lane)

        pool = stack.enter_context(ThreadPoolExecutor(lanes))
        yield from pool.map(one, seeds)


def serve() -> None:
    child.prepare()
    gc.disable()  # what is forked lives for seconds
    for line in sys.stdin:
        seed, root, real = json.loads(line)
        if real:
            open_store(Place(root=Path(root), real=real).repository(), SystemClock()).close()  # imported once
        problems, counts = run(seed, Path(root), real)
        sys.stdout.write(json.dumps([problems, counts]) + "\n")
        sys.stdout.flush()
        gc.collect()


if __name__ == "__main__":
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    serve()
