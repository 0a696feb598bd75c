"""Restoring a part, and into a place where something is already."""

from __future__ import annotations

import os

import pytest

from gateway.errors import UsageError
from tests.flow.gateways import KIB, Gateway
from tests.flow.trees import Tree, tree


@pytest.fixture
def filled(gateway: Gateway) -> Gateway:
    for name in ("a.dbf", "b.dbf", "b.log", "sub/c.dbf", "sub/deep/d.dbf", "sub/deep/e.log", "[x]", "sub*", "other/f"):
        gateway.source.noise(name, 3 * KIB)
    gateway.source.path("sub/link").symlink_to("../a.dbf")
    gateway.source.path("empty").mkdir()
    gateway.made()
    return gateway


WHOLE_SUB = [b"sub", b"sub/c.dbf", b"sub/deep", b"sub/deep/d.dbf", b"sub/deep/e.log", b"sub/link"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([b"a.dbf"], [b"a.dbf"]),
        ([b"/a.dbf"], [b"a.dbf"]),
        ([b"./sub/"], WHOLE_SUB),
        ([b"sub/deep"], [b"sub", b"sub/deep", b"sub/deep/d.dbf", b"sub/deep/e.log"]),
        ([b"sub", b"sub/deep"], WHOLE_SUB),
        ([b"sub/deep/e.log", b"a.dbf"], [b"a.dbf", b"sub", b"sub/deep", b"sub/deep/e.log"]),
        ([b"*.dbf"], [b"a.dbf", b"b.dbf"]),
        ([b"*.dbf", b"sub/c.dbf"], [b"a.dbf", b"b.dbf", b"sub", b"sub/c.dbf"]),
        ([b"**.dbf"], [b"a.dbf", b"b.dbf", b"sub", b"sub/c.dbf", b"sub/deep", b"sub/deep/d.dbf"]),
        ([b"**/e.log"], [b"sub", b"sub/deep", b"sub/deep/e.log"]),
        ([b"[ab].*"], [b"a.dbf", b"b.dbf", b"b.log"]),
        ([b"[!a].dbf"], [b"b.dbf"]),
        ([b"?.log"], [b"b.log"]),
        ([b"s*"], sorted([*WHOLE_SUB, b"sub*"], key=lambda path: path.split(b"/"))),
        ([b"[[]x]"], [b"[x]"]),
        ([b"sub[*]"], [b"sub*"]),
        ([b"empty"], [b"empty"]),
    ],
)
def test_a_part_is_restored_with_what_it_lies_in(filled: Gateway, patterns: list[bytes], expected: list[bytes]) -> None:
    whole = tree(filled.source.root)
    found = filled.restored(paths=patterns)
    assert list(found) == sorted(expected, key=lambda path: path.split(b"/"))
    assert found == {path: whole[path] for path in found}


@pytest.mark.parametrize("patterns", [[b"nothing"], [b"a.dbf", b"*.none"], [b"sub/none"], [b"a.dbf/below"]])
def test_a_pattern_that_matches_nothing_is_an_error(filled: Gateway, patterns: list[bytes]) -> None:
    with pytest.raises(UsageError):
        filled.restore(paths=patterns)
    assert not list(filled.root.glob("restored-*"))


def occupied(gateway: Gateway) -> tuple[Tree, dict[str, object]]:
    """A target where some of it is already, and other things are in the way."""
    target = gateway.root / "target"
    (target / "sub").mkdir(parents=True, mode=0o711)
    (target / "a.dbf").write_bytes(b"mine")
    (target / "b.dbf").symlink_to("a.dbf")
    (target / "sub" / "own").write_bytes(b"stays")
    (target / "sub" / "c.dbf").mkdir()
    return tree(target), {"to": target}


def test_what_exists_is_not_touched(filled: Gateway) -> None:
    before, where = occupied(filled)
    target, report = filled.restore(check=False, **where)
    assert {left.path for left in report.left_out} == {b"a.dbf", b"b.dbf", b"sub/c.dbf"}
    found, whole = tree(target), tree(filled.source.root)
    for path in (b"a.dbf", b"b.dbf", b"sub/own"):
        assert found[path] == before[path]
    assert found[b"sub"].mode == 0o711
    rest = whole.keys() - {b"a.dbf", b"b.dbf", b"sub/c.dbf", b"sub"}
    assert {path: found[path] for path in rest} == {path: whole[path] for path in rest}


def test_overwriting_replaces_files_and_leaves_what_is_not_in_the_list(filled: Gateway) -> None:
    before, where = occupied(filled)
    target, report = filled.restore(check=False, overwrite=True, **where)
    assert {left.path for left in report.left_out} == {b"sub/c.dbf"}  # a directory is not replaced by a file
    found, whole = tree(target), tree(filled.source.root)
    assert found[b"sub/own"] == before[b"sub/own"]
    rest = whole.keys() - {b"sub/c.dbf"}
    assert {path: found[path] for path in rest} == {path: whole[path] for path in rest}


def test_a_second_restore_finds_all_there(filled: Gateway) -> None:
    target, _ = filled.restore()
    _, report = filled.restore(to=target, check=False)
    assert report.files == 0
    reasons = {left.path: left.reason.partition(":")[0] for left in report.left_out}
    assert reasons.pop(b"sub/link") == "in-the-way"
    assert set(reasons.values()) == {"already-there"}
    assert tree(target) == tree(filled.source.root)


def test_a_dry_run_is_the_plan_and_writes_nothing(filled: Gateway) -> None:
    filled.lose_state()
    before = filled.store.meter()
    target, report = filled.restore(dry_run=True)
    assert (report.dry_run, report.files, report.plan.files) == (True, 0, 9)
    assert not target.exists()
    planned = filled.store.meter() - before
    before = filled.store.meter()
    filled.restore(to=target)
    used = filled.store.meter() - before
    # The plan names what the store is asked for: packs of data, beside the lists that planning read as well.
    assert report.plan.fetch_bytes <= used.of("get").received
    assert used.of("get").received <= report.plan.fetch_bytes + planned.of("get").received + 4 * KIB
    assert report.plan.cached_bytes == 0


def test_what_is_in_the_cache_is_not_fetched(filled: Gateway) -> None:
    _, report = filled.restore()
    assert (report.plan.fetch_bytes, report.plan.requests) == (0, 0)
    assert report.plan.cached_bytes > 0
    filled.store.faults.add("get@packs/:*=503")
    assert filled.restored() == tree(filled.source.root)


def test_a_target_that_is_read_only_is_an_error_at_once(filled: Gateway) -> None:
    from gateway.errors import TargetError

    target = filled.root / "file"
    target.write_bytes(b"")
    with pytest.raises(TargetError):
        filled.restore(to=target)
    assert os.listxattr(target) == []
