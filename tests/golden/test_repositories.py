"""Golden repositories: whatever changes in the code, these are read as on the day they were made (README.md)."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from scripts import rescue
from tests.golden import compared, make

ROOT = Path(__file__).parent / "v1"
GOLDENS = sorted(path.parent.name for path in ROOT.glob("*/expected.json"))


def facts_of(name: str) -> compared.Facts:
    return dict(json.loads((ROOT / name / "expected.json").read_text()))


def test_no_golden_file_ever_changes() -> None:
    assert sorted([*make.GOLDENS, "other-hand"]) == GOLDENS
    listed = dict(line.split("  ")[::-1] for line in (ROOT / "SHA256SUMS").read_text().splitlines())
    found = {p.relative_to(ROOT).as_posix(): p for p in ROOT.rglob("*") if p.is_file() and p.name != "SHA256SUMS"}
    assert {name: sha256(path.read_bytes()).hexdigest() for name, path in found.items()} == listed


@pytest.mark.parametrize("with_sheet", [False, True], ids=["passphrase", "sheet"])
@pytest.mark.parametrize("name", GOLDENS)
def test_the_product_reads_it(name: str, with_sheet: bool, tmp_path: Path) -> None:
    facts = facts_of(name)
    product = compared.opened_product(facts, ROOT / name / "repository", tmp_path)
    compared.product_agrees(facts, product, with_sheet=with_sheet)


@pytest.mark.parametrize("with_sheet", [False, True], ids=["passphrase", "sheet"])
@pytest.mark.parametrize("name", GOLDENS)
def test_rescue_reads_it(name: str, with_sheet: bool, tmp_path: Path) -> None:
    compared.rescue_agrees(facts_of(name), ROOT / name / "repository", tmp_path / "out", with_sheet=with_sheet)


def test_they_hold_what_they_are_for() -> None:
    """Every encoding, deltas on deltas and across packs, deep lists, all kinds of entries."""
    kinds, encodings, depths, lists = set(), set(), set(), set()
    several = False
    for name in GOLDENS:
        facts = facts_of(name)
        if facts["newer"]:
            continue
        kinds |= {entry["kind"] for chain in facts["catalog"] for entry in chain["entries"]}
        repository = compared.opened_rescue(facts, ROOT / name / "repository", with_sheet=True)
        for chain in repository.chains:
            lists |= {generation.depth for generation in chain.generations.values()}
            data, depth_of = rescue.Data(chain, repository.store), dict[tuple[int, int], int]()
            for number, declared in sorted(chain.packs.items()):
                pack = data.pack(number, 2 if declared.cls == "meta" else 1)
                for s, segment in enumerate(pack.segments):
                    encodings.add((pack.kind, segment.encoding))
                    below = [
                        depth_of[other, t]
                        for other, first, count in segment.bases
                        for t in data.pack(other, pack.kind).segments_of(first, count)
                    ]
                    depth_of[number, s] = 1 + max(below, default=-1)
                    several |= len({run[0] for run in segment.bases}) > 1
            depths |= set(depth_of.values())
    assert encodings == {(kind, encoding) for kind in (1, 2) for encoding in (0, 1, 2)}
    assert {0, 1, 2} <= depths
    assert {0, 1, 2} <= lists
    assert several
    assert kinds >= {"commit", "checkpoint", "expire", "hold", "unhold", "damaged", "condemn", "close", "celebrate"}
