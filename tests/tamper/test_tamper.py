"""Tampered repositories: read right, left out by name or refused, and named by a verification.

One seeded bit of every two bytes of the tiny golden repositories (each restored; a machine that knows the repository
and an empty one take turns in verifying), every structural case of them, and a seeded share of the rest; `soak.main`
runs all of it.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.golden import make
from tests.golden.described import path_text
from tests.tamper import bench, checks, runs, subjects
from tests.tamper.cases import Case

SEED = 20310506
FEWER = 0.15
"""Share of the structural cases that CI runs of larger repositories."""
INGESTS = 20
"""Cases of a repository that CI takes through an ingest, each on two machines, verified before it or not."""


@pytest.mark.parametrize("name", [*subjects.TINY, *subjects.LARGER])
def test_nothing_is_wrong_with_what_nobody_touched(name: str) -> None:
    with runs.made(name) as subject:
        assert name in subjects.LARGER or sum(map(len, subject.objects.values())) <= subjects.LIMIT_BYTES
        case = Case(kind="nothing", what="at all", changes={})
        for fast in (True, False):
            with bench.bench(subject, fast=fast) as machines:
                assert checks.check(machines, case) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", subjects.TINY)
def test_a_bit_of_every_two_bytes(name: str) -> None:
    with runs.made(name) as subject:
        assert runs.run(subject, runs.flips(subject, random.Random(SEED)), fast=True, both=False) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [*subjects.TINY, *subjects.LARGER])
def test_objects_that_go_come_change_and_are_exchanged(name: str) -> None:
    with runs.made(name) as subject:
        chance = random.Random(SEED)
        chosen = runs.structural(subject, chance)
        if name in subjects.LARGER:
            chosen = chance.sample(chosen, round(FEWER * len(chosen)))
        assert runs.run(subject, chosen, fast=False) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["tiny-tree", "tiny-delta", *subjects.LARGER])
def test_an_ingest_never_makes_it_worse(name: str) -> None:
    with runs.made(name) as subject:
        chance = random.Random(SEED + 1)
        chosen = runs.structural(subject, chance) + runs.flips(subject, chance)[::50]
        assert runs.run_ingests(subject, chance.sample(chosen, min(INGESTS, len(chosen)))) == []


def test_the_golden_repositories_are_the_same_in_kind() -> None:
    """The tiny ones are made anew for each run; this ties them to the files that never change."""
    for name in subjects.TINY:
        golden = Path(make.ROOT / name)
        expected = json.loads((golden / "expected.json").read_text())
        with runs.made(name) as subject:
            assert {len(tree) for tree in subject.wanted.values()} == {
                sum("left_out" not in record for record in each["records"]) for each in expected["generations"].values()
            }


def test_only_the_files_of_a_lost_pack_are_left_out() -> None:
    """Also when nothing is left that tells what the pack held."""
    with runs.made("two-chains") as subject, bench.bench(subject) as (_, machine):
        packs = [key for key in subject.objects if key.startswith("packs/") and "/meta/" not in key]
        for pack in packs:
            index = next(key for key in subject.objects if key.endswith("/index/" + pack.rpartition("/")[2]))
            with machine.engine({k: v for k, v in subject.objects.items() if k not in (pack, index)}) as engine:
                engine.rebuild()
                for generation, wanted in subject.wanted.items():
                    tree, report = machine.restore(engine, generation)
                    left_out = {path_text(each.path) for each in report.left_out}
                    assert tree == {path: one for path, one in wanted.items() if path not in left_out}
                    assert len(left_out) < len(wanted)
