"""Whatever a tree is and becomes: each generation gives it back as it was."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings

from tests.flow import histories as h
from tests.flow.conftest import in_memory, proved
from tests.flow.gateways import KIB, Born, Gateway
from tests.flow.histories import Content, Step
from tests.flow.trees import Tree, noise, tree

# CI takes a share of what the soak profile runs.
EXAMPLES = 50 if settings.default.max_examples <= 100 else settings.default.max_examples


def changes(before: Tree, after: Tree) -> dict[bytes, str]:
    found = {}
    for path in before.keys() | after.keys():
        a, b = before.get(path), after.get(path)
        if a is None or b is None:
            found[path] = "added" if a is None else "removed"
        elif a != b:
            data = ("kind", "size", "data", "ranges", "target", "first")
            found[path] = "changed" if any(getattr(a, n) != getattr(b, n) for n in data) else "metadata"
    return found


def moved_hole(name: bytes) -> list[list[Step]]:
    """The same bytes elsewhere in a file of the same size and time."""
    data = Content("noise", 1, 8 * KIB)
    return [
        [h.sparse(name, 64 * KIB, [(0, data)]), h.touch(0, 5)],
        [h.sparse(name, 64 * KIB, [(8, data)]), h.touch(0, 5)],
    ]


@given(history=h.histories())
@example(history=moved_hole(b"f"))
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_every_generation_is_the_tree_of_its_time(born: Born, history: list[list[Step]]) -> None:
    with in_memory() as place, proved(place, born) as gateway:
        kept: list[Tree] = []
        root = gateway.source.root
        for steps in history:
            for step in steps:
                step(root)
            now = tree(root)
            report = gateway.ingest()
            assert not report.held_back
            assert (report.generation is not None) == h.news(kept[-1] if kept else {}, now)
            if report.generation is not None:
                kept.append(now)
                assert report.generation.number == len(kept)
                assert report.generation.state == "protected"
            again = gateway.ingest()
            assert (again.generation, again.bytes_read) == (None, 0)
        for number, then in enumerate(kept, 1):
            assert gateway.restored(f"src@{number}") == then
            assert gateway.list(f"src@{number}") == list(then)
        for number, (before, after) in enumerate(pairwise(kept), 1):
            assert gateway.diff(f"src@{number}", f"src@{number + 1}") == changes(before, after)


@pytest.mark.parametrize("edge", h.EDGES)
def test_files_of_every_size_around_an_edge(gateway_on_disk: Gateway, edge: int) -> None:
    gateway = gateway_on_disk
    for off in (-1, 0, 1):
        gateway.source.noise(f"noise{off}", edge + off)
        gateway.source.write(f"zeros{off}", bytes(edge + off))
        gateway.source.sparse(f"hole{off}", edge + off, [])
        gateway.source.sparse(f"tail{off}", edge + off, [(0, b"head")])
    gateway.made()
    assert gateway.restored() == tree(gateway.source.root)


def test_holes_wherever_they_are(gateway_on_disk: Gateway) -> None:
    gateway = gateway_on_disk
    page = 4 * KIB
    data = [noise(n, page) for n in range(3)]
    gateway.source.sparse("leading", 40 * page, [(39 * page, data[0])])
    gateway.source.sparse("trailing", 40 * page, [(0, data[0])])
    gateway.source.sparse("middle", 40 * page, [(0, data[0]), (39 * page, data[1])])
    gateway.source.sparse("nothing else", 40 * page + 1, [])
    gateway.source.sparse("everywhere", 41 * page, [(n * page, data[n % 3]) for n in range(1, 40, 2)])
    gateway.source.sparse("far", 1 << 40, [(1 << 39, data[2])])
    report = gateway.ingest()
    assert report.bytes_read == 25 * page
    # `tree` would read a TiB of zeros; its data ranges and its end say as much.
    target, _ = gateway.restore()
    for root in (gateway.source.root, target):
        (root / "far").rename(root.with_name(f"{root.name}-far"))
    assert tree(target) == tree(gateway.source.root)
    far = target.with_name(f"{target.name}-far")
    assert far.stat().st_size == 1 << 40
    with far.open("rb") as file:
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 1 << 39
        assert os.pread(file.fileno(), 2 * page, 1 << 39) == data[2] + bytes(page)


def test_hard_links_across_directories_restored_in_part(gateway_on_disk: Gateway) -> None:
    gateway = gateway_on_disk
    gateway.source.noise("a/first", 150_000)
    gateway.source.path("b").mkdir()
    for name in ("a/second", "b/third", "b/fourth"):
        gateway.source.path(name).hardlink_to(gateway.source.path("a/first"))
    gateway.source.noise("b/own", 10)
    made = gateway.made()
    assert (made.files, made.bytes) == (5, 600_010)
    whole = tree(gateway.source.root)
    assert gateway.restored() == whole
    # Without the first member, its first restored one takes its place, and the others are links to that.
    part = gateway.restored(paths=[b"b"])
    assert set(part) == {b"b", b"b/fourth", b"b/own", b"b/third"}
    assert part[b"b/third"].first == b"b/fourth"
    assert part[b"b/fourth"].data == whole[b"a/first"].data
    assert part[b"b/fourth"].ranges == whole[b"a/first"].ranges


def test_a_path_is_as_long_as_the_system_takes(gateway: Gateway) -> None:
    names = ["n" * 255] * 15
    fd = os.open(gateway.source.root, os.O_DIRECTORY)
    for _ in range(2):
        for name in names:
            os.mkdir(name, dir_fd=fd)
            below = os.open(name, os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
    file = os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.write(file, b"deep")
    os.close(file)
    os.close(fd)
    gateway.made()
    paths = gateway.list()
    assert len(paths) == 31
    assert len(paths[-1]) == 30 * 256 + 1
    target, _ = gateway.restore()
    fd = os.open(target, os.O_DIRECTORY)
    for name in names * 2:
        below = os.open(name, os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    file = os.open("f", os.O_RDONLY, dir_fd=fd)
    assert os.read(file, 10) == b"deep"
    os.close(file)
    os.close(fd)
