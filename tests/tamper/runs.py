"""Running cases in all processors: a subject is made once, its cases are dealt out, what is wrong comes back."""

from __future__ import annotations

import multiprocessing
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.tamper import cases, damage, subjects
from tests.tamper.bench import bench, scratch
from tests.tamper.cases import Case
from tests.tamper.checks import check
from tests.tamper.subjects import Subject

SHOWN = 20
DEALT = 8
"""Shares for each process, so that none waits long for the last."""


@contextmanager
def made(name: str) -> Iterator[Subject]:
    with tempfile.TemporaryDirectory(prefix="gateway-tamper-", dir=scratch()) as folder:
        yield subjects.subject(name, Path(folder))


def flips(subject: Subject, chance: random.Random, *, every_bit: bool = False) -> list[Case]:
    return [
        case
        for key, data in subject.objects.items()
        for case in cases.flips(
            key, data, iter(range(8 * len(data))) if every_bit else cases.one_bit_of_two_bytes(data, chance)
        )
    ]


def structural(subject: Subject, chance: random.Random) -> list[Case]:
    return list(cases.structural(subject, chance))


def share(subject: Subject, chosen: Sequence[Case], *, fast: bool, both: bool) -> list[str]:
    """What is wrong with these cases, the first of it; runs in a process of its own. Not `both`: the machines take
    turns in verifying.
    """
    wrong: list[str] = []
    with bench(subject, fast=fast) as machines:
        for number, case in enumerate(chosen):
            wrong += check(machines, case, verifies=None if both else number % 2)
            if len(wrong) > SHOWN:
                break
    return wrong


def ingests(subject: Subject, chosen: Sequence[Case]) -> list[str]:
    """The same of what an ingest makes of them."""
    return [line for case in chosen for line in damage.check(subject, case)]


def spread(subject: Subject, chosen: Sequence[Case], work: partial[list[str]]) -> list[str]:
    """Run `work(subject, some of the cases)` in all processors."""
    processes = len(os.sched_getaffinity(0))
    deals = [chosen[at :: processes * DEALT] for at in range(processes * DEALT)]
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        found = list(pool.map(work, [subject] * len(deals), deals))
    return [line for lines in found for line in lines][:SHOWN]


def run(subject: Subject, chosen: Sequence[Case], *, fast: bool, both: bool = True) -> list[str]:
    return spread(subject, chosen, partial(share, fast=fast, both=both))


def run_ingests(subject: Subject, chosen: Sequence[Case]) -> list[str]:
    return spread(subject, chosen, partial(ingests))
