"""A target in trouble: no space, failing disks, two at a time, killed at every effect; and what spares it trouble."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway import durable
from gateway.clock import FakeClock
from gateway.errors import TargetError
from gateway.model.entry import EntryType, RestoreEntry
from gateway.target import local
from gateway.target.local import LocalTarget
from gateway.target.port import RestoreTarget, TargetReport
from gateway.target.sink import WRITEBACK_BYTES

TIME_NS = 1_700_000_000_123_456_789


def target(root: Path, *, overwrite: bool = False) -> LocalTarget:
    return LocalTarget(root, overwrite=overwrite, clock=FakeClock(datetime(2026, 11, 25, tzinfo=UTC)))


def entry(path: bytes, type: EntryType = EntryType.FILE, **facts: Any) -> RestoreEntry:  # noqa: A002
    known: dict[str, Any] = {"mtime_ns": TIME_NS, "mode": 0o640, "user": "root", "group": "root"} | facts
    return RestoreEntry(path=path, type=type, **known)


def put(into: RestoreTarget, path: bytes, data: bytes = b"data", **facts: Any) -> None:
    sink = into.open_file(entry(path, size=len(data), **facts))
    if sink is not None:
        sink.write_at(0, data)
        sink.finish()


def reasons(report: TargetReport) -> dict[bytes, str]:
    return {each.path: each.reason.value for each in report.left_out}


def temporaries(root: Path) -> list[str]:
    return [name for _, _, names in os.walk(root) for name in names if name.startswith(".tmp-")]


def test_two_restores_into_one_directory(tmp_path: Path) -> None:
    with target(tmp_path), pytest.raises(TargetError, match="Another restore is writing"):
        target(tmp_path)
    with target(tmp_path):
        pass


def test_a_root_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    before = len(os.listdir("/proc/self/fd"))
    for root in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(TargetError, match="Choose a directory"):
            target(root)
    assert len(os.listdir("/proc/self/fd")) == before


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[None]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_full_disk(tmp_path: Path) -> None:
    """A real one where mounting is allowed; else the limit of the process on file sizes plays it."""
    root = tmp_path / "disk"
    with contextlib.ExitStack() as stack:
        mounted = True
        try:
            stack.enter_context(small_disk(root))
        except subprocess.CalledProcessError:
            mounted = False
        with target(root) as into:
            put(into, b"first", b"x" * 1000)
            into.flush()
            put(into, b"queued", b"x" * 1000)
            sink = into.open_file(entry(b"big", size=1 << 21))
            assert sink is not None  # a hole needs no space
            if not mounted:
                soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
                stack.callback(resource.setrlimit, resource.RLIMIT_FSIZE, (soft, hard))
            with pytest.raises(TargetError, match="No space left in" if mounted else "File too large") as caught:
                sink.write_at(0, b"x" * (1 << 21))
        assert caught.value.exit_code == 1
        assert "1 files were delivered" in caught.value.meaning
        assert "run the restore again" in caught.value.advice
        assert os.listdir(root) == ["first"]


@pytest.mark.parametrize("name", ["fsync", "syncfs"])
def test_a_failing_sync_delivers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(local, "ALONE_BYTES", 1)

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    delivered: list[RestoreEntry] = []
    with target(tmp_path) as into:
        monkeypatch.setattr(durable, {"fsync": "sync_file", "syncfs": "sync_file_system"}[name], broken)
        sink = into.open_file(entry(b"f", size=4))
        assert sink is not None
        sink.write_at(0, b"data")
        with pytest.raises(TargetError, match="Input/output error"):  # noqa: PT012 - one of the two
            sink.finish(delivered.append)
            into.flush()
    assert delivered == []
    assert os.listdir(tmp_path) == []


def test_leaving_without_finish_abandons(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with target(tmp_path) as into:
        put(into, b"queued")
        into.add_symlink(entry(b"link", EntryType.SYMLINK, target=b"x"))
        assert into.open_file(entry(b"open", size=1)) is not None
    into.abandon()
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before


def restore_everything(root: Path, *, overwrite: bool) -> TargetReport:
    with target(root, overwrite=overwrite) as into:
        into.add_directory(entry(b"d", EntryType.DIRECTORY, mode=0o755))
        for name in (b"a", b"d/b", b"d/e/c"):
            put(into, name, name * 100)
        into.add_symlink(entry(b"link", EntryType.SYMLINK, target=b"a"))
        into.flush()
        put(into, b"z", b"z" * 100)
        into.add_special(entry(b"fifo", EntryType.FIFO))
        into.add_hardlink(entry(b"h", size=100, hardlink=b"a"))
        return into.finish()


def restore_in_a_child(root: Path, die_at: int) -> bool:
    """Whether the child died at effect number `die_at` (before and after count as two)."""
    child = os.fork()
    if child == 0:
        left = die_at

        def hook(*_: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(9)

        durable.install_hook(hook)
        with contextlib.suppress(BaseException):
            restore_everything(root, overwrite=False)
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9)
    return code == 9


def test_killed_at_every_effect(tmp_path: Path) -> None:
    """Names stand for whole files at every moment, and a rerun, with overwriting or without, ends with everything."""
    whole = {"a": b"a" * 100, "d/b": b"d/b" * 100, "d/e/c": b"d/e/c" * 100, "z": b"z" * 100, "h": b"a" * 100}
    died, number = True, 0
    while died:
        root = tmp_path / str(number)
        died = restore_in_a_child(root, number)
        for path, data in whole.items():
            if (root / path).exists():
                assert (root / path).read_bytes() == data
                assert (root / path).stat().st_mtime_ns == TIME_NS
        assert {name for name in temporaries(root) if not name.startswith(".tmp-gateway-")} == set()
        report = restore_everything(root, overwrite=bool(number % 2))
        assert set(reasons(report).values()) <= {"already-there", "in-the-way"}
        assert {path: (root / path).read_bytes() for path in whole} == whole
        assert (root / "a").samefile(root / "h")
        assert (root / "link").readlink() == Path("a")
        assert temporaries(root) == []
        number += 1
    assert number > 40


def test_the_disk_begins_with_a_large_file_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(durable, "begin_writeback", lambda _, offset, length: begun.append((offset, length)))
    unit = WRITEBACK_BYTES
    with target(tmp_path) as into:
        sink = into.open_file(entry(b"f", size=4 * unit))
        assert sink is not None
        for offset in range(0, 3 * unit, unit // 4):
            sink.write_at(offset, bytes(unit // 4))
        assert begun == [(0, unit), (unit, unit), (2 * unit, unit)]
        sink.write_at(3 * unit - 1, b"xx")
        assert begun[3:] == [(2 * unit, unit)], "what was written last is on its way too"
        sink.finish()
