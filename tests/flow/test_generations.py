"""Generations follow each other: numbered, complete, and what did not change is not read."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest

from gateway.api import Reference
from gateway.errors import UsageError
from tests.flow.gateways import Gateway
from tests.flow.trees import tree


def test_a_tree_goes_there_and_back(gateway: Gateway) -> None:
    gateway.source.noise("a", 100_000)
    gateway.source.noise("d/b", 10)
    gateway.source.write("d/empty", b"")
    gateway.source.path("e").mkdir()
    first = gateway.made()
    assert (first.number, first.files, first.evidence, first.storage_class) == (1, 3, 1, "instant")
    assert gateway.restored() == tree(gateway.source.root)


def test_nothing_new_is_no_generation_and_reads_nothing(gateway: Gateway) -> None:
    gateway.source.noise("a", 100_000)
    gateway.source.path("link").symlink_to("a")
    gateway.made()
    entries = gateway.keys("chains/src/000001/log/")
    before = gateway.store.meter()
    report = gateway.ingest()
    assert (report.generation, report.bytes_read, report.files_read) == (None, 0, 0)
    assert gateway.keys("chains/src/000001/log/") == entries
    assert (gateway.store.meter() - before).total.sent == 0


def test_an_empty_source_is_no_generation_and_no_chain(gateway: Gateway) -> None:
    assert gateway.ingest().generation is None
    assert not gateway.keys("chains/")


def test_only_what_changed_is_read(gateway: Gateway) -> None:
    for name in "abc":
        gateway.source.noise(name, 50_000)
    gateway.made()
    gateway.source.noise("b", 30_000)
    report = gateway.ingest()
    assert report.generation is not None
    assert (report.generation.number, report.files_read, report.files_unchanged) == (2, 1, 2)
    assert report.bytes_read == 30_000
    assert gateway.restored() == tree(gateway.source.root)


def test_a_file_changed_a_moment_ago_is_read_again_and_kept_as_it_was(gateway: Gateway) -> None:
    """The clock of the gateway and the times of files are close together: a change may hide within a tick."""
    gateway.source.noise("a", 50_000)
    status = gateway.source.path("a").stat()
    gateway.clock.advance(timedelta(seconds=status.st_ctime + 1 - gateway.clock.now().timestamp() - 605))
    gateway.made()
    report = gateway.ingest()
    assert (report.generation, report.bytes_read) == (None, 50_000)
    assert gateway.ingest().bytes_read == 0  # by now its reading began long after its last change


def test_without_what_was_known_all_is_read_and_nothing_is_new(gateway: Gateway) -> None:
    gateway.source.noise("a", 50_000)
    gateway.source.sparse("holes", 1_000_000, [(500_000, b"middle")])
    gateway.made()
    gateway.lose_state()
    before = gateway.store.dump()
    report = gateway.ingest()
    assert report.generation is None
    assert report.bytes_read >= 50_000
    assert gateway.store.dump() == before
    assert gateway.ingest().bytes_read == 0


def test_touch_and_chmod_are_news_without_data(gateway: Gateway) -> None:
    for name in ("mode", "time", "attribute", "same"):
        gateway.source.noise(name, 120_000)  # each a stream of its own: its chunks are cut as they were
    gateway.source.path("d").mkdir()
    gateway.made()
    gateway.source.path("mode").chmod(0o4711)
    os.utime(gateway.source.path("time"), ns=(0, -1_500_000_001))
    os.setxattr(gateway.source.path("attribute"), "user.note", b"\0\xff")
    gateway.source.path("d").chmod(0o700)
    report = gateway.ingest()
    assert report.generation is not None
    assert (report.new_bytes, report.files_read, report.files_unchanged) == (0, 3, 1)
    assert gateway.diff("src@1", "src@2") == {
        b"mode": "metadata", b"time": "metadata", b"attribute": "metadata", b"d": "metadata",
    }  # fmt: skip
    assert gateway.restored() == tree(gateway.source.root)


def test_what_differs_between_generations_is_told(gateway: Gateway) -> None:
    for name in ("gone", "changed", "same", "moved", "becomes/file", "target"):
        gateway.source.noise(name, 5_000)
    gateway.source.path("link").symlink_to("gone")
    gateway.made()
    before = tree(gateway.source.root)
    gateway.source.path("gone").unlink()
    gateway.source.noise("changed", 5_000)
    gateway.source.path("moved").rename(gateway.source.path("to"))
    gateway.source.path("link").unlink()
    gateway.source.path("link").symlink_to("to")
    gateway.source.path("becomes/file").unlink()
    gateway.source.path("becomes").rmdir()
    gateway.source.noise("becomes", 3)
    gateway.source.path("target").unlink()
    gateway.source.noise("target/below", 3)
    gateway.made()
    assert gateway.diff("src@1", "src@2") == {
        b"becomes": "changed", b"becomes/file": "removed", b"changed": "changed", b"gone": "removed",
        b"link": "changed", b"moved": "removed", b"target": "changed", b"target/below": "added", b"to": "added",
    }  # fmt: skip
    assert gateway.diff("src@1", "src@1") == {}
    assert gateway.restored("src@1") == before
    assert gateway.restored("src@2") == tree(gateway.source.root)


def test_a_removed_file_alone_is_no_news_but_is_not_carried_on(gateway: Gateway) -> None:
    gateway.source.noise("a", 10)
    gateway.source.noise("b", 10)
    gateway.made()
    gateway.source.path("a").unlink()
    assert gateway.ingest().generation is None
    gateway.source.noise("c", 10)
    gateway.made()
    assert gateway.list() == [b"b", b"c"]
    assert gateway.list("src@1") == [b"a", b"b"]


def test_listing_shows_a_file_or_a_subtree(gateway: Gateway) -> None:
    for name in ("a/1", "a/2", "a.b", "a-c", "ab/1", "z"):
        gateway.source.noise(name, 10)
    gateway.made()
    assert gateway.list() == [b"a", b"a/1", b"a/2", b"a-c", b"a.b", b"ab", b"ab/1", b"z"]
    assert gateway.list("src@1", b"a") == [b"a", b"a/1", b"a/2"]
    assert gateway.list("src", b"/a/2/") == [b"a/2"]
    with pytest.raises(UsageError):
        gateway.list("src", b"a/3")


def test_a_generation_is_shown(gateway: Gateway) -> None:
    gateway.source.noise("a", 300_000)
    gateway.made()
    gateway.source.overwrite("a", 150_000, b"changed")
    second = gateway.made()
    shown = gateway.engine.show(Reference.parse("src@2"))
    assert shown.info == second
    assert shown.statistics is not None
    assert shown.statistics.read_bytes == 300_000
    assert shown.statistics.new_bytes + shown.statistics.duplicate_bytes == 300_000
    assert 0 < shown.statistics.new_bytes < 40_000
    assert {each.storage_class for each in shown.needs} == {"instant", "meta"}
    assert sum(pack.new for pack in shown.packs) >= 2
    assert sum(not pack.new for pack in shown.packs) >= 2
    # by the first digits of its id, and by its number
    assert gateway.engine.show(Reference.parse(f"src@{second.id[:12]}")).info == second


def test_stored_bytes_of_all_generations_are_the_bucket(gateway: Gateway) -> None:
    """Every byte below `chains/`, `keys/` and `packs/` belongs to exactly one generation."""
    for step in range(4):
        gateway.source.noise(f"f{step % 2}", 200_000)
        gateway.made()
    counted = sum(info.stored_bytes for info in gateway.engine.generations())
    objects = gateway.store.dump()
    stored = sum(len(data) for key, data in objects.items() if key.startswith(("chains/", "packs/", "keys/")))
    assert counted == stored


def test_seal_now_waits_for_nothing_and_names_who_said_so(gateway: Gateway) -> None:
    gateway.source.noise("a", 10)
    slept = len(gateway.clock.slept)
    gateway.made(seal_now=True, operator="alice")
    assert len(gateway.clock.slept) == slept
    assert gateway.engine.show(Reference.parse("src")).operator == "alice"
    gateway.source.noise("b", 10)
    gateway.made()
    assert gateway.engine.show(Reference.parse("src")).operator is None


def test_the_settle_time_is_waited_for(gateway: Gateway) -> None:
    gateway.source.noise("a", 10)
    gateway.made()
    assert sum(gateway.clock.slept) == pytest.approx(5)


def test_generations_are_listed_without_keys_or_store(gateway: Gateway) -> None:
    gateway.source.noise("a", 10)
    made = gateway.made()
    gateway.store.faults.add("get:*=503,list:*=503,head:*=503")
    engine = gateway.open(environment={})
    assert list(engine.generations()) == [made]


def test_a_file_that_changed_has_changed_under_all_its_names(gateway: Gateway) -> None:
    gateway.source.noise("a", 5000)
    gateway.source.path("z").hardlink_to(gateway.source.path("a"))
    gateway.made()
    gateway.source.overwrite("a", 100, b"other")
    gateway.made()
    assert gateway.diff("src@1", "src@2") == {b"a": "changed", b"z": "changed"}
