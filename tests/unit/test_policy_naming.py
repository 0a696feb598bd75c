"""What a file's name says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.naming import is_ignored, is_marker, is_temporary, marker_of


@pytest.mark.parametrize(
    "name",
    [
        b"000000010000000000000001.partial", b"backup_manifest.tmp", b"x.temp", b"x.part", b"x.filepart",
        b"x.crdownload", b".x.swp", b"x.inprogress", b"~$report.xlsx", b".~lock.x#", b".nfs000000000012",
        b".smbdeleteAAA0000", b"x.tmp.1", b"x.tmp.7f", b"\xff.tmp", b".tmp", b"new\nline.tmp",
    ],
)  # fmt: skip
def test_names_of_what_is_being_written(name: bytes) -> None:
    assert is_temporary(name)


@pytest.mark.parametrize(
    "name",
    [b"x", b"x.TMP", b"tmp", b"x.tmp2", b"x.tmp.gz", b"x.partial.gz", b".x.Ab12Cd", b"nfs", b"part", b"x~", b"a.tmpl"],
)
def test_names_of_what_may_be_whole(name: bytes) -> None:
    assert not is_temporary(name)


def test_patterns_of_the_operator_are_of_whole_names_and_know_case() -> None:
    patterns = ("*.log", "lost+found", "core.[0-9]*", "\udcff*")
    assert is_ignored(b"a.log", patterns)
    assert is_ignored(b"lost+found", patterns)
    assert is_ignored(b"core.123", patterns)
    assert is_ignored(b"\xffx", patterns)
    assert not is_ignored(b"a.LOG", patterns)
    assert not is_ignored(b"a.log.gz", patterns)
    assert not is_ignored(b"core.x", patterns)
    assert not is_ignored(b"a.log", ())


@pytest.mark.parametrize(
    ("path", "marker", "expected"),
    [
        (b"dump.sql", "{name}.done", b"dump.sql.done"),
        (b"a/b/dump.sql", "{name}.done", b"a/b/dump.sql.done"),
        (b"a/dump.sql", "ok-{name}", b"a/ok-dump.sql"),
        (b"a/\xff", ".{name}.ok", b"a/.\xff.ok"),
        (b"a/dump.sql", "DONE", b"a/DONE"),
        (b"dump.sql", "DONE", b"DONE"),
        (b"dump.sql", None, None),
        (b"a/DONE", "DONE", None),
        (b"a/dump.sql.done", "{name}.done", None),
    ],
)
def test_which_file_speaks_for_another(path: bytes, marker: str | None, expected: bytes | None) -> None:
    assert marker_of(path, marker) == expected


@pytest.mark.parametrize(
    ("path", "marker", "expected"),
    [
        (b"a/x.done", "{name}.done", True),
        (b"a/.done", "{name}.done", False),  # of no file at all
        (b"x.done/y", "{name}.done", False),
        (b"ok-x", "ok-{name}", True),
        (b"aXa", "a{name}a", True),
        (b"aa", "a{name}a", False),
        (b"a", "a{name}a", False),
        (b"b/DONE", "DONE", True),
        (b"b/DONE2", "DONE", False),
        (b"DONE/x", "DONE", False),
        (b"x", None, False),
    ],
)
def test_which_names_are_markers(path: bytes, marker: str | None, expected: bool) -> None:
    assert is_marker(path, marker) is expected


_NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: b"/" not in name and b"\0" not in name)


@given(_NAMES, st.sampled_from(["{name}.done", "ok-{name}", ".{name}.ok", "DONE"]))
def test_the_marker_of_a_file_is_a_marker_and_no_marker_has_one(name: bytes, marker: str) -> None:
    for path in (name, b"some/where/" + name):
        found = marker_of(path, marker)
        assert (found is None) == is_marker(path, marker)
        if found is not None:
            assert is_marker(found, marker)
            assert marker_of(found, marker) is None
