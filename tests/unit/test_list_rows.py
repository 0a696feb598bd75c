"""Rows of a file list: what the kernel says of a part is what every other reader of lists says, or nothing."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Corrupt
from gateway.format import _list_rows, filelist, list_rows
from gateway.format.filelist import FileEntry, Item
from gateway.format.list_rows import Rows
from gateway.model.ids import Run
from tests.unit.test_format_filelist import DIGEST, files, lone, paths

Said = list[tuple[bytes, bytes, int, int, list[tuple[int, int, int]]]]


def said(found: list[Rows]) -> Said:
    out: Said = []
    for rows in found:
        at = 0
        for row, path in enumerate(rows.paths()):
            end = int(rows.entries["runs"][row])
            assert path == rows.path(row)
            runs = [(pack, first, count) for pack, first, count in rows.runs[at:end].tolist()]
            assert rows.run_counts[row] == end - at
            entry = rows.entries[row]
            out.append((path, rows.link(row), int(entry["kind"]), int(entry["size"]), runs))
            at = end
        assert at == len(rows.runs)
    return out


def decoded(parts: list[bytes]) -> Said:
    return [
        (each.entry.path, each.entry.hardlink, each.entry.kind, each.entry.size,
         [(run.pack, run.first, run.count) for run in each.runs])
        for each in filelist.decode_parts(parts, "list")
        if isinstance(each, Item)
    ]  # fmt: skip


@st.composite
def lists(draw: st.DrawFn) -> bytes:
    part = b""
    for path in sorted(draw(st.sets(paths, max_size=6)), key=filelist.path_key):
        match draw(st.integers(0, 5)):
            case 0:
                part += filelist.encode_left_out(path, "growing", "detail")
            case 1:
                part += lone(FileEntry(path=path, kind=2)) + filelist.encode_left_out(path, "unreadable", "")
            case 2:
                part += lone(FileEntry(path=path, kind=1, size=7, hardlink=b"a/b"))
            case _:
                entry, holes, runs = draw(files(path))
                part += filelist.encode_entry(entry, holes, runs, runs_per_record=draw(st.integers(1, 4)))
    return part


@pytest.fixture(params=["kernel", "twin"])
def _either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_rows, "_kernel", _list_rows if request.param == "kernel" else None)


def cut(part: bytes, at: list[int]) -> list[bytes]:
    starts = [start for start, _ in filelist.split(part, "list")]
    edges = [0, *sorted(starts[each % len(starts)] for each in at if starts), len(part)]
    return [part[begin:end] for begin, end in pairwise(edges)]


@pytest.mark.parametrize("kernel", [_list_rows, None])
@given(part=lists(), at=st.lists(st.integers(0, 50), max_size=3))
def test_rows_are_what_the_list_says_wherever_it_is_cut(kernel: object, part: bytes, at: list[int]) -> None:
    parts = cut(part, at)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(list_rows, "_kernel", kernel)
        assert said(list(list_rows.read_rows(parts, "list"))) == decoded(parts)


@given(part=lists(), at=st.integers(0, 2**16), byte=st.integers(0, 255))
def test_of_a_changed_part_the_kernel_says_what_the_twin_says_or_nothing(part: bytes, at: int, byte: int) -> None:
    if part:
        part = part[: at % len(part)] + bytes([byte]) + part[at % len(part) + 1 :]
    found = _list_rows.scan(part, b"", False)
    if found is not None:
        rows, *rest = list_rows._scan_slowly(part, b"", False, "list")
        assert rest == list(found[2:])
        assert said([list_rows._scan(part, b"", False, "list")[0]]) == said([rows])
    refused = False
    try:
        expected = decoded([part])
    except Corrupt:
        refused = True
    with contextlib.ExitStack() as stack:
        if refused:
            stack.enter_context(pytest.raises(Corrupt))
        assert said(list(list_rows.read_rows([part], "list"))) == expected


def test_the_kernel_reads_what_the_gateway_writes() -> None:
    entry = FileEntry(
        path=b"d/a", kind=1, size=30, data_bytes=20, digest=DIGEST, evidence=3, user="backup", mtime_ns=-5,
        xattrs=((b"user.a", b"1"), (b"user.b", b"2")), uid=70_000, rdev=0,
    )  # fmt: skip
    part = lone(FileEntry(path=b"d", kind=2)) + lone(entry, (0, 10), [Run(5, 7, 2**32 - 7), Run(2**32 - 1, 0, 1)])
    found = _list_rows.scan(part, b"c", True)
    assert found is not None
    assert (found[2], found[3], found[4]) == (len(part), b"d/a", False)
    assert np.frombuffer(found[1], np.int64).tolist() == [5, 7, 2**32 - 7, 2**32 - 1, 0, 1]
    assert _list_rows.scan(part, b"d", False) is None  # out of order


@pytest.mark.usefixtures("_either")
def test_a_list_that_ends_within_a_file_is_refused() -> None:
    whole = lone(FileEntry(path=b"a", kind=1, size=1, data_bytes=1, digest=DIGEST), (), [Run(1, 0, 1)])
    [_, (start, _)] = filelist.split(whole, "list")
    with pytest.raises(Corrupt, match="within a file"):
        list(list_rows.read_rows([whole[:start]], "list"))
    assert said(list(list_rows.read_rows([whole[:start], whole[start:]], "list"))) == decoded([whole])
