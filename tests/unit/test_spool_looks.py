"""Two looks: what changed, came or was set back in time between them is growing."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import FakeClock
from gateway.errors import LocalStateError, SourceError
from gateway.model.entry import EntryType, Identity, LeftOut, LeftOutReason, order_key
from gateway.spool import looks
from gateway.spool.looks import Looked, Verdict, compare, look
from gateway.spool.walk import SpoolEntry, walk

SETTLE = timedelta(seconds=60)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 11, 25, 7, 0, tzinfo=UTC))


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    root = tmp_path / "spool"
    root.mkdir()
    return root


def growing(first: looks.FirstLook | None, root: Path) -> set[bytes]:
    found = [each for each in compare(first, walk(root)) if isinstance(each, Looked)]
    return {each.entry.path for each in found if each.verdict is Verdict.GROWING}


def test_what_stayed_the_same_is_settled(spool: Path, tmp_path: Path, clock: FakeClock) -> None:
    (spool / "a").write_bytes(b"1")
    (spool / "d").mkdir()
    (spool / "d/b").write_bytes(b"2")
    with look(spool, tmp_path, clock) as first:
        assert [path for path, _ in first.files()] == [b"a", b"d/b"]
        assert growing(first, spool) == set()
        assert growing(first, spool) == set()
    assert os.listdir(tmp_path) == ["spool"]


@pytest.mark.parametrize("change", ["append", "rewrite", "replace", "metadata"])
def test_what_changed_is_growing(spool: Path, tmp_path: Path, clock: FakeClock, change: str) -> None:
    for name in "abc":
        (spool / name).write_bytes(b"12345")
    before = (spool / "b").stat()
    with look(spool, tmp_path, clock) as first:
        if change == "append":
            with (spool / "b").open("ab") as file:
                file.write(b"6")
        elif change == "rewrite":
            # What a copy tool does: same size, and the time of its source.
            (spool / "b").write_bytes(b"54321")
        elif change == "replace":
            (spool / "n").write_bytes(b"12345")
            (spool / "n").rename(spool / "b")
        else:
            (spool / "b").chmod(0o600)
        os.utime(spool / "b", ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (spool / "b").stat().st_mtime_ns == before.st_mtime_ns
        assert growing(first, spool) == {b"b"}


def test_what_came_in_between_is_growing(spool: Path, tmp_path: Path, clock: FakeClock) -> None:
    for name in "ac":
        (spool / name).write_bytes(b"12345")
    with look(spool, tmp_path, clock) as first:
        (spool / "b").write_bytes(b"12345")
        os.utime(spool / "b", (0, 0))
        (spool / "c").unlink()
        (spool / "d").write_bytes(b"")
        assert growing(first, spool) == {b"b", b"d"}


def test_directories_and_links_never_wait(spool: Path, tmp_path: Path, clock: FakeClock) -> None:
    (spool / "d").mkdir()
    with look(spool, tmp_path, clock) as first:
        (spool / "d/sub").mkdir()
        (spool / "link").symlink_to("d")
        os.mkfifo(spool / "fifo")
        assert growing(first, spool) == set()


def test_seal_now_needs_one_look(spool: Path) -> None:
    (spool / "a").write_bytes(b"1")
    assert growing(None, spool) == set()


def test_the_wait_is_counted_from_the_end_of_the_first_look(spool: Path, tmp_path: Path, clock: FakeClock) -> None:
    with look(spool, tmp_path, clock) as first:
        assert first.wait_seconds(clock, SETTLE) == 60
        clock.advance(timedelta(seconds=45))
        assert first.wait_seconds(clock, SETTLE) == 15
        clock.sleep(100)
        assert first.wait_seconds(clock, SETTLE) == 0


def test_what_the_second_look_cannot_see_is_passed_on(spool: Path, tmp_path: Path, clock: FakeClock) -> None:
    (spool / "a").write_bytes(b"1")
    unseen = LeftOut(path=b"b", reason=LeftOutReason.UNREADABLE)
    with look(spool, tmp_path, clock) as first:
        found = list(compare(first, [*walk(spool), unseen]))
    assert found[1] is unseen


def test_doors(spool: Path, tmp_path: Path, clock: FakeClock) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SourceError):
        look(tmp_path / "missing", tmp_path, clock)
    with pytest.raises(LocalStateError):
        look(spool, tmp_path / "missing", clock)
    assert len(os.listdir("/proc/self/fd")) == before


def entry(path: bytes, version: int) -> SpoolEntry:
    identity = Identity(1, version, version, -version, 2**62)
    return SpoolEntry(path=path, type=EntryType.FILE, identity=identity, mode=0, uid=0, gid=0)


versions = st.dictionaries(st.text("ab!/", min_size=1, max_size=4).map(str.encode), st.integers(0, 2), max_size=12)


@given(versions, versions)
def test_merging_agrees_with_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, first: dict[bytes, int], second: dict[bytes, int]
) -> None:
    def walked(some: dict[bytes, int]) -> list[SpoolEntry]:
        return [entry(path, some[path]) for path in sorted(some, key=order_key)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looks, "walk", lambda _: walked(first))
        seen = look(Path("unused"), tmp_path_factory.getbasetemp(), FakeClock(datetime(2026, 1, 1, tzinfo=UTC)))
    with seen:
        found = {each.entry.path: each.verdict for each in compare(seen, walked(second)) if isinstance(each, Looked)}
    assert found == {
        path: Verdict.SETTLED if first.get(path) == version else Verdict.GROWING for path, version in second.items()
    }
