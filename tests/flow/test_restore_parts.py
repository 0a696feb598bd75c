"""A restore of a part reads and thaws what holds that part and what it stands on: no other pack, no byte more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.api import Reference, RestoreReport
from gateway.config.classes import BUILT_IN
from gateway.format.filelist import Item
from gateway.jobs import restores
from gateway.model.ids import Run
from gateway.repository.indexes import PackIndexes, pack_key
from gateway.repository.lists import read_list
from gateway.store.record import Operation, Record
from tests.flow.gateways import KIB, Gateway
from tests.flow.test_deltas import change_pages, write_pages
from tests.flow.test_restore_jobs import FAST_LINK, FLEX, thaws
from tests.flow.trees import tree


@dataclass(frozen=True, slots=True)
class Needed:
    """By the name of a pack: where the first segment that is needed begins and where the last one ends.

    Packs of tests are smaller than the gap that is read over, so that each is read in one request.
    """

    spans: dict[str, tuple[int, int]]

    @property
    def bytes(self) -> int:
        return sum(end - start for start, end in self.spans.values())


def needed(gateway: Gateway, chosen: Callable[[bytes], bool]) -> Needed:
    """From the list and the directories, file by file: the segments that hold the files, their bases, and theirs."""
    context, row, chain, commit = gateway.engine._opened(Reference.parse("src"))
    indexes, reader = PackIndexes(chain, None), context.reader(chain)
    items = {
        each.entry.path: each for each in read_list(commit.files, reader.fetch, row.source) if isinstance(each, Item)
    }
    found: dict[int, set[int]] = {}
    todo: list[Run] = []
    for path, item in items.items():
        if chosen(path):
            todo += items[item.entry.hardlink or path].runs
    while todo:
        run = todo.pop()
        for segment in indexes.opened(run.pack).directory.segments:
            reaches = segment.first < run.first + run.count and run.first < segment.first + segment.chunks
            if reaches and segment.number not in found.setdefault(run.pack, set()):
                found[run.pack].add(segment.number)
                todo += segment.bases
    spans = {}
    for pack, numbers in found.items():
        segments = [indexes.opened(pack).directory.segments[number] for number in numbers]
        key = pack_key(chain, chain.fold.packs[pack].declaration)
        spans[key] = min(each.offset for each in segments), max(each.offset + each.size for each in segments)
    gateway.close()
    return Needed(spans)


def requests(gateway: Gateway, since: int, prefix: str) -> list[Record]:
    found = gateway.store.log()[since:]
    return [each for each in found if each.what is Operation.GET and each.key.startswith(prefix)]


def restored_as_needed(gateway: Gateway, pattern: bytes, chosen: Callable[[bytes], bool]) -> tuple[Path, RestoreReport]:
    """Restore what a pattern says and nothing at hand: the store is asked for what is needed, and for nothing else."""
    wanted = needed(gateway, chosen)
    begun = len(gateway.store.log())
    target, report = gateway.restore(paths=[pattern])
    gateway.close()
    plan = report.plan
    asked = [each for each in requests(gateway, begun, "packs/") if not each.key.startswith("packs/meta/")]
    assert plan.packs == len(wanted.spans) > 0
    assert {each.key for each in asked} == set(wanted.spans)
    assert len(asked) == plan.requests == plan.packs
    assert sum(each.received for each in asked) == plan.fetch_bytes == wanted.bytes
    assert plan.cached_bytes == 0
    return target, report


def base_backup(gateway: Gateway) -> None:
    """Tables in two databases, of which some pages change from night to night; a file of many names; four nights."""
    for database in (1, 2):
        gateway.source.path(f"base/{database}").mkdir(parents=True)
        for table in range(6):
            write_pages(gateway, f"base/{database}/100{table}", 24, seed=10 * database + table)
    gateway.source.noise("global", 20 * KIB)
    os.link(gateway.source.path("base/1/1004"), gateway.source.path("linked"))
    os.link(gateway.source.path("base/1/1004"), gateway.source.path("linked too"))
    for night in range(4):
        gateway.made()
        change_pages(gateway, "base/1/1002", 0.3, night)
        change_pages(gateway, "base/2/1003", 0.2, night)
    gateway.made()


def forget_packs(gateway: Gateway) -> None:
    gateway.close()
    shutil.rmtree(gateway.config.state.directory / "cache")


SELECTIONS: list[tuple[bytes, Callable[[bytes], bool]]] = [
    (b"base/1/1002", lambda path: path == b"base/1/1002"),
    (b"base/2/100[35]", lambda path: path in (b"base/2/1003", b"base/2/1005")),
    (b"base/2", lambda path: path.startswith(b"base/2/")),
    (b"linked", lambda path: path == b"linked"),
    (b"linked*", lambda path: path in (b"linked", b"linked too")),
    (b"**/1004", lambda path: path in (b"base/1/1004", b"base/2/1004")),
]


def test_a_part_of_a_base_backup_reads_its_segments_and_their_bases(gateway: Gateway) -> None:
    base_backup(gateway)
    everything = tree(gateway.source.root)
    forget_packs(gateway)
    packs = []
    for pattern, chosen in SELECTIONS:
        target, report = restored_as_needed(gateway, pattern, chosen)
        files = {os.fsdecode(path) for path in everything if chosen(path)}
        assert {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()} == files
        for name in files:
            assert (target / name).read_bytes() == gateway.source.path(name).read_bytes()
        packs.append(report.plan.packs)
    all_packs = [key for key in gateway.keys("packs/") if not key.startswith("packs/meta/")]
    assert 1 < packs[0] < len(all_packs)  # later nights are deltas on earlier ones
    assert packs[3] < packs[2]


def test_a_plan_uses_the_indexes_that_are_at_hand(gateway: Gateway) -> None:
    """Also beside the engine that keeps them, and changes none: one that is damaged there is read from the store."""
    base_backup(gateway)
    gateway.open()
    kept = sorted((gateway.config.state.directory / "index").rglob("*-*"))
    assert len(kept) > 2
    kept[0].write_bytes(b"damaged")
    kept[1].unlink()
    before = {path: path.read_bytes() for path in kept if path.exists()}
    begun = len(gateway.store.log())
    _, report = gateway.restore(dry_run=True)
    asked = {each.key for each in requests(gateway, begun, "chains/") if "/index/" in each.key}
    assert {Path(key).name for key in asked} == {kept[0].name, kept[1].name}
    assert report.plan.files > 0
    assert {path: path.read_bytes() for path in kept if path.exists()} == before


@pytest.fixture
def frozen(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    monkeypatch.setattr(restores, "WAITED_SECONDS", 600.0)
    gateway.config = replace(
        gateway.config, repository=replace(gateway.config.repository, region="us-east-1"), classes=(*BUILT_IN, FLEX),
        restore=replace(gateway.config.restore, link=FAST_LINK),
    )  # fmt: skip
    gateway.change(storage_class="flex")
    gateway.engine.lifecycle_apply()
    base_backup(gateway)
    gateway.clock.advance(timedelta(days=40))
    gateway.lose_state()
    gateway.checked = False  # what is cold is not read for a proof
    return gateway


def test_of_a_frozen_chain_only_what_the_part_needs_is_thawed(frozen: Gateway) -> None:
    wanted = needed(frozen, SELECTIONS[0][1])
    cold = {each.key for each in frozen.store.list_objects("packs/") if each.storage_class == "GLACIER"}
    target, report = restored_as_needed(frozen, *SELECTIONS[0])
    assert sorted(thaws(frozen)) == sorted(cold & set(wanted.spans))
    assert len(thaws(frozen)) == report.plan.cold_packs > 0
    assert (target / "base/1/1002").read_bytes() == frozen.source.path("base/1/1002").read_bytes()


def test_one_file_of_very_many_reads_little_of_the_list(gateway: Gateway) -> None:
    """A part of the list and the outlines above it, whatever the list holds; of packs, the one with the file."""
    count = 3000
    for number in range(count):
        if number % 100 == 0:
            gateway.source.path(f"d{number // 100:03}").mkdir()
        gateway.source.write(f"d{number // 100:03}/f{number:05}", b"%d" % number * 20)
    gateway.made()
    forget_packs(gateway)
    whole = sum(each.size for each in gateway.store.list_objects("packs/meta/"))
    begun = len(gateway.store.log())
    gateway.restore(paths=[b"d017/f01717"], dry_run=True)
    read = requests(gateway, begun, "packs/meta/")
    assert len(read) < 60
    assert sum(each.received for each in read) < whole / 5
    target, report = restored_as_needed(gateway, b"d017/f01717", lambda path: path == b"d017/f01717")
    assert (report.plan.files, report.plan.packs) == (1, 1)
    assert (target / "d017/f01717").read_bytes() == b"1717" * 20
