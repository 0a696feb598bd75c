"""What the benchmark makes of its measurements: resumed, compared with what was wanted, drawn."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.perf.bench import tables
from tests.perf.bench.generations import Kept, Result
from tests.perf.bench.measure import Run
from tests.perf.bench.peers import DEFAULTS, FINE, YARDSTICK, Program
from tests.perf.bench.series import PAGE, Series, change_pages

MB = 1_000_000
RUN = Run(wall=2.0, cpu=3.0, rss=100 << 20, others=0.0)


def result(name: str, style: str, *stored: int, wall: float = 2.0) -> Result:
    run = replace(RUN, wall=wall)
    return Result(
        name=name, version="1", style=style, note="", sizes=[1000 * MB] * len(stored), stored=list(stored),
        firsts=[run] * 3, laters=[run] * (len(stored) - 1), restores=[run] * 3, one_core=3.6,
        new_chunks=1000, bounded=5,
    )  # fmt: skip


def series(**changes: bool) -> Series:
    facts = {"paged": True, "reducible": True, **changes}
    return Series(name="pages", title="pages", generations=(Path("1"), Path("2")), **facts)


def targets(*results: Result, **changes: bool) -> dict[str, tuple[str, str]]:
    text = tables.text(series(**changes), results, [], [])
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.endswith(("| yes |", "| no |"))]
    return {what: (reached, met) for what, _, reached, met in rows}


def test_what_is_finished_is_kept_and_what_failed_is_tried_again(tmp_path: Path) -> None:
    program = Program("restic", "1", DEFAULTS, [], [], [])
    kept = Kept(tmp_path / "deep" / "results", fresh=False)
    assert kept.get(program) is None
    kept.put(replace(result("restic", DEFAULTS, 10, 1), failed="no space"))
    assert kept.get(program) is None
    done = result("restic", DEFAULTS, 10, 2)
    kept.put(done)
    kept.put(result("rustic", DEFAULTS, 9, 9))
    assert Kept(tmp_path / "deep" / "results", fresh=False).get(program) == done
    assert kept.get(Program("restic", "2", DEFAULTS, [], [], [])) is None
    assert Kept(tmp_path / "deep" / "results", fresh=True).get(program) is None


def test_targets_are_met_by_what_was_measured_and_not_otherwise() -> None:
    ours = result("gateway", "", 100 * MB, 2 * MB, wall=1.0)
    restic, fine = (
        result("restic", DEFAULTS, 100 * MB, 60 * MB),
        result("rustic, 16 KiB", FINE, 99 * MB, 12 * MB),
    )
    found = targets(ours, restic, fine, result("rclone crypt", YARDSTICK, 1, 1, wall=0.1))
    assert found["stored, all later generations, against restic at its defaults"] == ("1/30.0 (restic)", "yes")
    assert found["stored, all later generations, against the best at 16 KiB"] == (
        "1/6.0 (rustic, 16 KiB)",
        "no",
    )
    assert found["new chunks left plain because of bounds"] == ("0.50%", "yes")
    assert found["first generation: MB/s"] == ("2.00 (restic)", "yes"), "the yardstick does not do the same job"
    assert found["first generation: what a second core brings"] == ("3.60", "yes")
    assert found["later generations: MB/s, peers with 16 KiB"] == ("2.00 (rustic, 16 KiB)", "no")
    plain = targets(ours, restic, paged=False, reducible=False)
    assert plain["first generation: CPU s/GB"] == ("3.00", "no")
    assert "new chunks left plain because of bounds" not in plain
    assert targets(restic) == {}


def test_who_failed_is_named() -> None:
    broken = replace(result("bup", DEFAULTS, 1, 1), failed="exit 1\nmore")
    text = tables.text(series(), [result("gateway", "", 1, 1), broken], ["kopia (not here)"], [("date", "today")])
    assert "| bup (1) | failed: exit 1 |" in text
    assert "| not here, so not measured | kopia (not here) |" in text


def test_nights_have_totals_and_the_largest() -> None:
    ours, peer = (
        result("gateway", "", 100 * MB, 5 * MB, 11 * MB),
        result("restic", DEFAULTS, 100 * MB, 500 * MB, 400 * MB),
    )
    text = tables.of_nights("ninety-database", "a database", [ours, peer], [], [])
    assert "| largest night after the first, of the first | <= 0.1 | 0.11 | no |" in text
    assert "| stored in all, against the best | <= 1/8 | 1/8.6 (restic) | yes |" in text
    assert "| gateway (1) | 100.00 | 16.00 | 116.00 | 11.00 |" in text


@pytest.mark.parametrize("count", [1, 3, 15])
def test_the_plot_is_a_picture_with_a_line_for_each(count: int) -> None:
    drawn = [result(f"peer <{number}>", DEFAULTS, 10**9, 0, 10**3) for number in range(count)]
    picture = ET.fromstring(tables.plot("pages", drawn))
    lines = picture.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == count
    assert all(len(line.attrib["points"].split()) == 3 for line in lines)


def test_so_many_pages_change_and_each_only_in_part() -> None:
    for clustered in (False, True):
        before = random.Random(1).randbytes(2000 * PAGE)
        after = bytearray(before)
        change_pages(after, 0.1, random.Random(2), clustered=clustered)
        assert len(after) == len(before)
        changed = [
            page
            for page in range(2000)
            if before[page * PAGE : page * PAGE + PAGE] != after[page * PAGE : page * PAGE + PAGE]
        ]
        assert 190 <= len(changed) <= 200
        different = sum(a != b for a, b in zip(before, after, strict=True))
        assert different < len(changed) * 320
