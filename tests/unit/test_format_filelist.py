"""The file list: records come back, are carried as bytes, and no list leads out of its tree or contradicts itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Corrupt
from gateway.format import filelist, limits, wire
from gateway.format.filelist import FileEntry, Item, LeftOutRecord, OutlineLine
from gateway.model.ids import Run
from tests.unit.format_values import judged, refuses, some, texts, u8, u32, u64

DIGEST = some("digest", 32)

components = st.binary(min_size=1, max_size=6).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"-"))
paths = st.lists(components.filter(lambda name: name not in (b".", b"..")), min_size=1, max_size=4).map(b"/".join)
run_lists = st.lists(
    st.builds(Run, st.integers(1, 2**32 - 1), st.integers(0, 2**31), st.integers(1, 2**31)), max_size=9
)


def file(path: bytes = b"a", **changes: Any) -> FileEntry:
    facts: dict[str, Any] = {"path": path, "kind": 1, "size": 10, "data_bytes": 10, "digest": DIGEST, "evidence": 3}
    return FileEntry(**{**facts, **changes})


def decode(part: bytes) -> list[Item | LeftOutRecord]:
    return list(filelist.decode_part(part, "list"))


def item(part: bytes) -> Item:
    [found] = decode(part)
    assert isinstance(found, Item)
    return found


def lone(entry: FileEntry, holes: Sequence[int] = (), runs: Sequence[Run] = ()) -> bytes:
    return filelist.encode_entry(entry, tuple(holes), runs)


def records(*rows: Any) -> bytes:
    return b"".join(filelist.frame(wire.encode(row)) for row in rows)


def fields(entry: FileEntry, **changes: Any) -> list[Any]:
    """An entry's record as a plain list, with what its type would not allow."""
    names = FileEntry.__struct_fields__
    return [changes.get(name, getattr(entry, name)) for name in names]


@st.composite
def files(draw: st.DrawFn, path: bytes) -> tuple[FileEntry, tuple[int, ...], list[Run]]:
    holes: list[int] = []
    at = 0
    for _ in range(draw(st.integers(0, 5))):
        at += draw(st.integers(0, 2**40))
        length = draw(st.integers(1, 2**40))
        holes += [at, length]
        at += length
    size = at + draw(st.integers(0, 2**40))
    names = sorted(draw(st.sets(st.binary(max_size=5), max_size=3)))
    entry = FileEntry(
        path=path,
        kind=1,
        size=size,
        mtime_ns=draw(st.integers(-(2**63), 2**63 - 1)),
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(u32),
        gid=draw(u32),
        user=draw(texts),
        group=draw(texts),
        xattrs=tuple((name, draw(st.binary(max_size=5))) for name in names),
        digest=DIGEST,
        data_bytes=size - sum(holes[1::2]),
        skip=draw(u32),
        evidence=draw(u8),
    )
    return entry, tuple(holes), draw(run_lists)


@given(st.sets(paths, max_size=6), st.data())
def test_a_part_comes_back(found: set[bytes], data: st.DataObject) -> None:
    part, said = b"", []
    for path in sorted(found, key=filelist.path_key):
        match data.draw(st.integers(0, 5)):
            case 0:
                part += filelist.encode_left_out(path, "growing", "detail")
                said.append((path, None, None))
            case 1:
                part += lone(FileEntry(path=path, kind=3, target=b"../x"))
                said.append((path, (), []))
            case _:
                entry, holes, runs = data.draw(files(path))
                step = data.draw(st.integers(1, 4))
                part += filelist.encode_entry(entry, holes, runs, runs_per_record=step)
                said.append((path, holes, runs))
    back = decode(part)
    assert [
        (each.path, None, None) if isinstance(each, LeftOutRecord) else (each.entry.path, each.holes, list(each.runs))
        for each in back
    ] == said
    carried = b"".join(
        filelist.encode_left_out(each.path, each.reason, each.detail) if isinstance(each, LeftOutRecord) else each.raw
        for each in back
    )
    assert carried == part


@given(st.data())
def test_raw_is_what_encoding_again_gives(data: st.DataObject) -> None:
    entry, holes, runs = data.draw(files(b"a/b"))
    made = lone(entry, holes, runs)
    back = item(made)
    assert back.raw == made == lone(back.entry, back.holes, list(back.runs))
    assert msgspec.structs.replace(back.entry, hole_records=0, run_records=0) == entry
    assert back.packs == {run.pack for run in runs}


@given(st.data())
def test_holes_and_data_fill_the_file(data: st.DataObject) -> None:
    entry, holes, _ = data.draw(files(b"a"))
    ranges = list(filelist.data_ranges(entry, holes))
    assert sum(length for _, length in ranges) == entry.data_bytes
    pieces = sorted([*ranges, *zip(holes[::2], holes[1::2], strict=True)])
    at = 0
    for offset, length in pieces:
        assert offset == at
        at += length
    assert at == entry.size


def test_the_bytes_of_an_entry() -> None:
    entry = FileEntry(path=b"a", kind=1, size=4, mtime_ns=-1, mode=0o644, data_bytes=3, evidence=2, digest=DIGEST)
    body = b"\xdc\x00\x14\x01\xc4\x01a\x01\x04\xff\xcd\x01\xa4\x00\x00\xa0\xa0\x90\xc4\x00\xc4\x00\x00\xc4\x20" + DIGEST
    body += b"\x03\x00\x02\x01\x01"
    made = len(body).to_bytes(4, "big") + body + b"\0\0\0\5\x92\x02\x92\x00\x01" + b"\0\0\0\6\x92\x03\x93\x05\x00\x02"
    assert lone(entry, (0, 1), [Run(5, 0, 2)]) == made


def test_ten_thousand_runs_are_split_over_records_and_come_back() -> None:
    runs = [Run(1 + n % 7, n, 1 + n % 3) for n in range(10_000)]
    part = lone(file(), (), runs)
    back = item(part)
    assert (back.entry.run_records, back.entry.hole_records) == (3, 0)
    assert list(back.runs) == runs
    assert back.raw == part
    rows = [wire.require_shortest(part[start + 4 : end], "x") for start, end in filelist.split(part, "x")]
    assert [len(row[1]) // 3 for row in rows[1:]] == [4096, 4096, 1808]


def test_many_holes_are_split_over_records_and_come_back() -> None:
    holes = tuple(n for each in range(5000) for n in (each * 10, 5))
    back = item(lone(file(size=50_000, data_bytes=25_000), holes, [Run(1, 0, 1)]))
    assert (back.entry.hole_records, back.holes) == (2, holes)


def test_a_file_may_pass_over_several_parts() -> None:
    runs = [Run(1, n, 1) for n in range(10_000)]
    whole = lone(file(b"a"), (), runs) + lone(file(b"b"), (), [Run(2, 0, 1)])
    cuts = [start for start, _ in filelist.split(whole, "x")]
    for cut in cuts[1:]:
        found = list(filelist.decode_parts([whole[:cut], whole[cut:]], "x"))
        assert [each.raw for each in found if isinstance(each, Item)] == [whole[: cuts[4]], whole[cuts[4] :]]
        inside = list(filelist.decode_parts([whole[cut:]], "x", inside=True))
        assert [each.entry.path for each in inside if isinstance(each, Item)] == ([b"b"] if cut <= cuts[4] else [])
        if cut != cuts[4]:
            refuses(lambda c=cut: list(filelist.decode_parts([whole[:c]], "x")), "within a file")
            refuses(lambda c=cut: list(filelist.decode_parts([whole[c:]], "x")), "without a file")
    refuses(lambda: list(filelist.decode_parts([lone(file(b"b")), lone(file(b"a"))], "x")), "order")
    refuses(lambda: list(filelist.decode_parts([whole[: cuts[4]], records([2, [0, 1]])], "x", inside=True)))


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/",
        b"/a",
        b"a/",
        b"a//b",
        b".",
        b"..",
        b"./a",
        b"a/.",
        b"a/./b",
        b"../a",
        b"a/..",
        b"a/../b",
        b"a/b/../../..",
        b"\0",
        b"a\0b",
        b"a/\0",
        b"a" * 65536,
    ],
)
def test_paths_that_lead_out_or_nowhere(path: bytes) -> None:
    for part in (lone(FileEntry(path=path, kind=2)), filelist.encode_left_out(path, "growing", "")):
        refuses(lambda p=part: decode(p), "path")
    refuses(lambda: list(filelist.decode_outline(outline(line(path)), "x")), "path")
    if path:
        refuses(lambda: decode(lone(file(b"z", digest=b"", hardlink=path))), "path")


@pytest.mark.parametrize(
    "path", [b"...", b"..a", b"a..", b".a", b"a/...", b" ", b"\n", b"\xff", b"a\\..\\b", b"C:", b"~", b"-rf"]
)
def test_paths_that_only_look_odd(path: bytes) -> None:
    assert item(lone(FileEntry(path=path, kind=2))).entry.path == path


ORDER = [b"a", b"a/b", b"a/b/c", b"a/c", b"a\x01", b"a b", b"a.b", b"aa", b"b"]


def test_the_order_is_by_component() -> None:
    assert sorted(ORDER, key=filelist.path_key) == ORDER
    decode(b"".join(lone(FileEntry(path=path, kind=2)) for path in ORDER))
    for at in range(len(ORDER) - 1):
        swapped = [*ORDER[:at], ORDER[at + 1], ORDER[at], *ORDER[at + 2 :]]
        twice = [*ORDER[: at + 1], *ORDER[at:]]
        for wrong in (swapped, twice):
            for make in (
                lambda path: lone(FileEntry(path=path, kind=2)),
                lambda path: filelist.encode_left_out(path, "x", ""),
            ):
                refuses(lambda w=wrong, m=make: decode(b"".join(map(m, w))), "order")


def test_only_a_left_out_record_may_have_the_path_of_the_entry_before_it() -> None:
    entry, left = lone(FileEntry(path=b"a", kind=2)), filelist.encode_left_out(b"a", "unreadable", "")
    inside = lone(FileEntry(path=b"a/b", kind=2))
    assert len(decode(entry + left)) == 2
    assert len(decode(entry + left + inside)) == 3
    for wrong in (
        left + entry,
        left + left,
        entry + entry,
        entry + left + left,
        entry + left + entry,
        entry + inside + left,
    ):
        refuses(lambda w=wrong: decode(w), "order")


ONE = fields(file(), hole_records=1, run_records=1, data_bytes=9)
HOLE, RUN = [2, [0, 1]], [3, [5, 0, 1]]


def test_counts_of_hole_and_run_records() -> None:
    decode(records(ONE, HOLE, RUN))
    for wrong in (
        [ONE],
        [ONE, HOLE],
        [ONE, RUN],
        [ONE, RUN, HOLE],
        [ONE, HOLE, HOLE, RUN],
        [ONE, HOLE, RUN, RUN],
        [ONE, HOLE, RUN, HOLE],
        [ONE, HOLE, [9], RUN],
        [ONE, [9, []], HOLE, RUN],
        [ONE, [4, b"b", "x", ""], HOLE, RUN],
        [ONE, fields(file(b"b")), HOLE, RUN],
        [HOLE],
        [RUN],
        [HOLE, ONE, HOLE, RUN],
        [fields(file(), run_records=2**32 - 1), RUN],
        [fields(file(), run_records=2**32), RUN],
        [fields(file(), hole_records=-1), RUN],
    ):
        refuses(lambda w=wrong: decode(records(*w)))


@pytest.mark.parametrize(
    "holes",
    [
        [0],
        [0, 1, 2],
        [0, 0],
        [0, 11],
        [10, 1],
        [9, 2],
        [0, 2, 1, 2],
        [0, 2, 0, 2],
        [5, 1, 0, 1],
        [2**64 - 1, 1],
        [0, 2**64 - 1],
        [-1, 2],
        [0, True],
        [0, "1"],
    ],
)
def test_holes_that_overlap_or_pass_the_end(holes: list[Any]) -> None:
    total = sum(each for each in holes[1::2] if type(each) is int)
    for data_bytes in {max(10 - total, 0), 10, 0}:
        row = fields(file(), hole_records=1, data_bytes=data_bytes)
        refuses(lambda r=row: decode(records(r, [2, holes])))


def test_holes_that_touch_and_fill() -> None:
    for holes in ([0, 10], [0, 5, 5, 5], [0, 1, 9, 1], [3, 1, 4, 1]):
        left = 10 - sum(holes[1::2])
        assert item(records(fields(file(), hole_records=1, data_bytes=left), [2, holes])).holes == tuple(holes)
        refuses(
            lambda h=holes, n=left + 1: decode(records(fields(file(), hole_records=1, data_bytes=n), [2, h])), "holes"
        )
    refuses(lambda: decode(records(fields(file(), data_bytes=9))), "holes")


@pytest.mark.parametrize(
    "runs",
    [
        [1],
        [1, 0],
        [1, 0, 1, 1],
        [0, 0, 1],
        [1, 0, 0],
        [2**32, 0, 1],
        [1, 2**32, 1],
        [1, 2**32 - 1, 2],
        [1, 0, 2**64 - 1],
        [1, -1, 1],
        [1, 0, True],
    ],
)
def test_runs_that_are_none(runs: list[Any]) -> None:
    refuses(lambda: decode(records(fields(file(), run_records=1), [3, runs])))


def test_runs_at_the_bounds() -> None:
    for runs in ([2**32 - 1, 0, 1], [1, 2**32 - 1, 1], [1, 0, 2**32]):
        assert list(item(records(fields(file(), run_records=1), [3, runs])).flat) == runs


def test_a_record_holds_whole_triples_and_at_most_4096_of_them() -> None:
    most = [1, 0, 1] * limits.RUNS_PER_RECORD
    decode(records(fields(file(), run_records=1), [3, most]))
    refuses(lambda: decode(records(fields(file(), run_records=1), [3, [*most, 1, 0, 1]])))
    refuses(lambda: decode(records(fields(file(), run_records=2), [3, [1, 0]], [3, [1]])))
    holes = [n for each in range(limits.HOLES_PER_RECORD) for n in (2 * each, 1)]
    row = fields(file(), size=20_000, hole_records=1)
    decode(records([*row[:15], 20_000 - 4096, *row[16:]], [2, holes]))
    refuses(lambda: decode(records([*row[:15], 20_000 - 4097, *row[16:]], [2, [*holes, 15_000, 1]])))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        *[(kind, {"size": 1}) for kind in range(2, 8)],
        *[(kind, {"data_bytes": 1}) for kind in range(2, 8)],
        *[(kind, {"evidence": 1}) for kind in range(2, 8)],
        *[(kind, {"digest": DIGEST}) for kind in range(2, 8)],
        *[(kind, {"run_records": 1}) for kind in range(2, 8)],
        *[(kind, {"target": b"x"}) for kind in (1, 2, 4, 5, 6, 7)],
        *[(kind, {"rdev": 1}) for kind in (1, 2, 3, 4, 5)],
        *[(kind, {"hardlink": b"0"}) for kind in range(2, 8)],
        (1, {}),
        (1, {"digest": bytes(31)}),
        (1, {"digest": bytes(33)}),
        (1, {"hardlink": b"0", "digest": DIGEST}),
        (1, {"hardlink": b"0", "data_bytes": 1, "size": 1}),
        (1, {"hardlink": b"0", "run_records": 1}),
        (1, {"hardlink": b"0", "hole_records": 1, "size": 1}),
        (0, {}),
        (8, {}),
        (True, {}),
    ],
)
def test_what_a_type_does_not_have(kind: int, change: dict[str, Any]) -> None:
    row = fields(FileEntry(path=b"a", kind=1), **{"kind": kind, **change})
    extra = [[3, [1, 0, 1]]] if "run_records" in change else [[2, [0, 1]]] if "hole_records" in change else []
    refuses(lambda: decode(records(row, *extra)))


def test_what_a_type_has() -> None:
    for entry in (
        FileEntry(path=b"a", kind=1, digest=DIGEST),
        FileEntry(path=b"a", kind=1, size=9, hardlink=b"0", evidence=3),
        FileEntry(path=b"a", kind=3, target=b"/../x"),
        FileEntry(path=b"a", kind=6, rdev=2**64 - 1),
        FileEntry(path=b"a", kind=7, rdev=1),
    ):
        assert item(lone(entry)).entry == entry


@pytest.mark.parametrize(
    "change",
    [
        {"path": "a"},
        {"size": -1},
        {"mtime_ns": 2**63},
        {"mtime_ns": 1.0},
        {"mode": 0o10000},
        {"mode": -1},
        {"uid": 2**32},
        {"gid": -1},
        {"user": b"x"},
        {"xattrs": [[b"a"]]},
        {"xattrs": [["a", b"b"]]},
        {"xattrs": [[b"b", b""], [b"a", b""]]},
        {"xattrs": [[b"a", b""], [b"a", b""]]},
        {"xattrs": {}},
        {"target": None},
        {"hardlink": ""},
        {"skip": 2**32},
        {"evidence": 256},
        {"tag": True},
    ],
    ids=str,
)
def test_fields_of_other_shapes(change: dict[str, Any]) -> None:
    refuses(lambda: decode(records(fields(file(), **change))))


def test_records_that_end_early_are_damage_and_longer_ones_are_carried() -> None:
    full = fields(file())
    for length in range(1, len(full)):
        refuses(lambda n=length: decode(records(full[:n])))
    for length in range(1, 4):
        refuses(lambda n=length: decode(records([4, b"a", "b", "c"][:n])))
    grown = records([*full, "later", [1]])
    assert item(grown).entry == file()
    assert item(grown).raw == grown
    [left] = decode(records([4, b"a", "b", "c", "later"]))
    assert left == LeftOutRecord(path=b"a", reason="b", detail="c")


def test_unknown_records_are_passed_over() -> None:
    other = records([5], [0, "x"], [2**64 - 1, [[]]], [-1])
    a, b = lone(file(b"a"), (), [Run(1, 0, 1)]), lone(file(b"b"))
    found = decode(other + a + other + b + other)
    assert [each.raw for each in found if isinstance(each, Item)] == [a, b]


def test_framing() -> None:
    part = lone(file(b"a"), (), [Run(1, 0, 1)]) + lone(file(b"b"))
    ends = {end for _, end in filelist.split(part, "x")}
    for at in range(len(part)):
        cut = judged(lambda n=at: decode(part[:n]))
        assert (cut is not None) == (at == 0 or (at in ends and at != min(ends)))
    for wrong in (
        b"\0\0\0\0",
        b"\0\0\0\1",
        b"\xff\xff\xff\xff",
        b"\0",
        b"\0\0\0\2\x91\x04",
        b"\0\0\0\1\x90",
        b"\0\0\0\2\xc0\xc0",
    ):
        refuses(lambda w=wrong: decode(part + w))
    assert decode(b"") == []


def outline(*lines: OutlineLine) -> bytes:
    return b"".join(map(filelist.encode_line, lines))


def line(first: bytes = b"a", **changes: Any) -> OutlineLine:
    return OutlineLine(
        **{"first": first, "entries": 1, "files": 1, "bytes": 1, "size": 1, "runs": (1, 0, 1), **changes}
    )


@given(st.sets(paths, max_size=5), u64, u64, u64, st.integers(1, 2**26), run_lists)
def test_an_outline_comes_back(
    found: set[bytes], entries: int, count: int, size: int, part: int, runs: list[Run]
) -> None:
    flat = tuple(n for run in runs for n in (run.pack, run.first, run.count))
    lines = [
        OutlineLine(first=path, entries=entries, files=count, bytes=size, size=part, runs=flat)
        for path in sorted(found, key=filelist.path_key)
    ]
    assert list(filelist.decode_outline(outline(*lines), "x")) == lines


def test_an_outline_in_order() -> None:
    """Several parts may begin within one file; they all name it."""
    good = [line(b"a"), line(b"a/b"), line(b"a/b"), line(b"a/b", entries=0), line(b"a b")]
    assert list(filelist.decode_outline(outline(*good), "x")) == good
    refuses(lambda: list(filelist.decode_outline(outline(line(b"a b"), line(b"a/b")), "x")), "outline")


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0},
        {"size": 2**26 + 1},
        {"runs": (1, 0)},
        {"runs": (0, 0, 1)},
        {"runs": (1, 0, 0)},
        {"runs": (2**32, 0, 1)},
        {"first": "a"},
        {"entries": -1},
        {"files": True},
        {"bytes": 1.5},
    ],
    ids=str,
)
def test_contradictions_of_an_outline(change: dict[str, Any]) -> None:
    refuses(lambda: list(filelist.decode_outline(outline(line(**change)), "x")))


def test_lines_that_end_early_are_damage_and_longer_ones_are_taken() -> None:
    full: list[Any] = [b"a", 1, 1, 1, 1, [1, 0, 1]]
    for length in range(6):
        refuses(lambda n=length: list(filelist.decode_outline(records(full[:n]), "x")))
    assert list(filelist.decode_outline(records([*full, "later"]), "x")) == [line()]


@given(st.binary(max_size=120))
def test_arbitrary_bytes_never_raise_anything_else(data: bytes) -> None:
    for part in (data, filelist.frame(data or b"\0"), lone(file(b"0")) + data):
        judged(lambda p=part: decode(p))
        judged(lambda p=part: list(filelist.decode_parts([p, data], "x", inside=True)))
        judged(lambda p=part: list(filelist.decode_outline(p, "x")))


anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 2**64 - 1),
        st.binary(max_size=4),
        st.text("ab\u00fc", max_size=3),
        st.floats(),
    ),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)


@settings(max_examples=200)
@given(
    st.lists(
        st.one_of(
            anything, st.tuples(st.integers(0, 5), anything), st.tuples(st.just(file()), st.integers(0, 19), anything)
        ),
        max_size=4,
    )
)
def test_records_of_anything_never_raise_anything_else(rows: list[Any]) -> None:
    made = []
    for row in rows:
        if isinstance(row, tuple) and isinstance(row[0], FileEntry):
            made.append([*fields(row[0])[: row[1]], row[2], *fields(row[0])[row[1] + 1 :]])
        else:
            made.append(row)
    part = b"".join(filelist.frame(msgspec.msgpack.encode(row)) for row in made)
    judged(lambda: decode(part))
    judged(lambda: list(filelist.decode_outline(part, "x")))


def test_changed_bytes_never_raise_anything_else() -> None:
    part = lone(file(b"a", xattrs=((b"n", b"v"),)), (), [Run(1, 0, 1)]) + filelist.encode_left_out(b"b", "x", "y")
    line_bytes = outline(line(), line(b"b"))
    for data in (part, line_bytes):
        for at in range(len(data)):
            for value in {0x00, 0x80, 0x91, 0xC0, 0xC3, 0xCA, 0xCF, 0xDD, 0xFF, data[at] ^ 1, data[at] ^ 0x80}:
                changed = data[:at] + bytes([value]) + data[at + 1 :]
                judged(lambda c=changed: decode(c))
                judged(lambda c=changed: list(filelist.decode_outline(c, "x")))


def test_errors_name_the_list() -> None:
    with pytest.raises(Corrupt) as caught:
        decode(b"\0")
    assert caught.value.address == "list"
