"""File lists as scripts/rescue.py reads them: paths, holes, digests, records out of place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from scripts import rescue
from tests.golden.spec_writer import entry, framed


@pytest.mark.parametrize(
    "path", [b"", b"/", b"/etc", b"a/", b"a//b", b".", b"..", b"a/../b", b"a/.", b"a\0b", b"x" * 65_536]
)
def test_hostile_paths(path: bytes) -> None:
    assert not rescue.good_path(path)
    record = entry("a", 1)
    record[1] = path
    with pytest.raises(rescue.Damage):
        rescue.Entry(record)


def test_good_paths() -> None:
    for path in (b"a", b"a/b", b"...", b"a/..b", b"\xff\n", b"-rf", b"x" * 65_535):
        assert rescue.good_path(path)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": 0}, {"kind": 8}, {"mode": 0o10000}, {"kind": 2, "size": 1}, {"kind": 2, "runs": 1},
        {"kind": 3}, {"target": b"x"}, {"kind": 3, "target": b"a\0"}, {"link": b"../a"}, {"link": b"p"},
        {"link": b"z"}, {"link": b"a", "runs": 1}, {"digest": b"x"}, {"size": 1 << 63}, {"mtime": 1 << 63},
        {"xattrs": [[b"name"]]}, {"xattrs": [b"name"]}, {"xattrs": [[b"b", b""], [b"a", b""]]}, {"digest": b""},
        {"device": 1}, {"kind": 2, "evidence": 1}, {"kind": 4, "digest": bytes(32)}, {"link": b"a", "data_bytes": 1},
        {"link": b"a", "digest": bytes(32)}, {"kind": 4, "link": b"a"},
    ],
)  # fmt: skip
def test_entries_that_contradict_themselves(change: dict) -> None:
    record = entry("p", **({"kind": 1} | change))
    with pytest.raises(rescue.Damage):
        rescue.Entry(record)


def test_order_is_that_of_components() -> None:
    paths = [b"a", b"a/b", b"a/b/c", b"a/b-c", b"a-b", b"a.b", b"ab"]
    assert sorted(paths, key=rescue.path_key) == paths


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5))), st.integers(0, 9), st.integers(1, 7), st.data())
def test_holes_and_data_make_the_file(gaps: list, last: int, step: int, data: st.DataObject) -> None:
    expected, flat, content = b"", [], b""
    for before, hole in gaps:
        part = data.draw(st.binary(min_size=before, max_size=before))
        content += part
        expected += part
        flat += [len(expected), hole]
        expected += bytes(hole)
    content += b"x" * last
    expected += b"x" * last
    holes = rescue.Holes(len(expected))
    holes.add(flat)
    fd = os.memfd_create("file")
    try:
        os.ftruncate(fd, len(expected))
        rescue.write_around(fd, holes, iter([content[i : i + step] for i in range(0, len(content), step)]))
        assert os.pread(fd, len(expected) + 1, 0) == expected
    finally:
        os.close(fd)


@pytest.mark.parametrize("flat", [[0], [0, 0], [5, 6], [4, 2, 5, 1], [4, 1, 2, 1], [-1, 2], ["a", 1], [0, 1] * 4097])
def test_bad_holes(flat: list) -> None:
    with pytest.raises(rescue.Damage):
        rescue.Holes(10).add(flat)


def test_digest_of_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rescue.Digest, "PIECE", 10)

    def of(data: bytes, step: int) -> bytes:
        digest = rescue.Digest()
        for i in range(0, len(data), step):
            digest.update(data[i : i + step])
        return digest.value()

    data = bytes(range(25))
    for step in (1, 3, 10, 25):
        assert of(b"", step) == blake3(b"").digest()
        assert of(data[:10], step) == blake3(data[:10]).digest()
        pieces = b"".join(blake3(data[i : i + 10]).digest() for i in (0, 10, 20))
        assert of(data, step) == blake3(pieces).digest()


class Chunks:
    """Stands for `Data`: a list of one part in chunks of any size."""

    needs = None

    def __init__(self, data: bytes, step: int) -> None:
        self.parts = [data[i : i + step] for i in range(0, len(data), step)]

    def chunks(self, run: tuple, kind: int) -> list[bytes]:
        assert kind == 2
        return self.parts


class Generation:
    needs, depth, list_runs = None, 0, ((1, 0, 1),)

    def __init__(self, size: int) -> None:
        self.list_bytes = size

    def title(self) -> str:
        return "files@1"


def read(data: bytes, step: int = 7, size: int | None = None) -> tuple[list, list[str]]:
    report = rescue.Report()
    files = rescue.FileList(Chunks(data, step), Generation(len(data) if size is None else size), report)  # type: ignore[arg-type]
    found: list = []
    for thing in files.things():
        if isinstance(thing[0], bytes):
            found.append(thing)
        else:
            found.append((thing[0].path, list(thing[1]), list(thing[2])))
    return found, report.damage


def test_records_in_any_pieces() -> None:
    data = framed([
        entry("a", 1, size=9, holes=2, runs=2, data_bytes=4, digest=bytes(32)), [2, [0, 3]], [2, [5, 2], "more"],
        [77, "unknown"], [3, [1, 2, 3]], [3, [4, 5, 6, 7, 8, 9]], [4, b"b", "growing", "", 1], entry("c", 2),
    ])  # fmt: skip
    for step in (1, 2, 5, 1000):
        found, damage = read(data, step)
        assert damage == []
        assert found == [
            (b"a", [(0, 3), (5, 2)], [(1, 2, 3), (4, 5, 6), (7, 8, 9)]), (b"b", "growing", ""), (b"c", [], []),
        ]  # fmt: skip


def test_a_bad_entry_costs_only_itself() -> None:
    bad = entry("b", 1, runs=1, data_bytes=5, size=4)
    data = framed([entry("a", 2), bad, [3, [1, 2, 3]], entry("a", 2), entry("c", 1, holes=1, size=1), entry("d", 2)])
    found, damage = read(data)
    assert [f[0] for f in found] == [b"a", b"d"]
    assert len(damage) == 3


def test_lists_cut_short_or_too_long() -> None:
    data = framed([entry("a", 2), entry("b", 2)])
    for broken, size in ((data[:-1], None), (data + b"\0", None), (data, len(data) + 1), (data, len(data) - 1),
                         (data + b"\0\0\0\0", None), (data + b"\x7f\0\0\0", None), (b"", 1)):  # fmt: skip
        _, damage = read(broken, size=size)
        assert damage


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_are_things_or_damage(data: bytes, step: int) -> None:
    read(data, step)


def test_target_must_be_empty(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(rescue.Stop) as stop:
        rescue.Target(tmp_path, rescue.Report())
    assert stop.value.code == rescue.USAGE
