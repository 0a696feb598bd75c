"""Pinning: writers are vetoed, changes are noticed, nobody is held back, nothing is left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from gateway import durable
from gateway.model.entry import EntryType, Evidence, LeftOutReason
from gateway.spool import pin as pin_module
from gateway.spool.pin import Changed, HasWriter, Pinned, Unreadable, Vanished, pin
from gateway.spool.walk import SpoolEntry, walk

REPOSITORY = Path(__file__).parents[2]
NOBODY = 65534


def seen(root: Path, path: bytes = b"piece") -> SpoolEntry:
    [entry] = [each for each in walk(root) if isinstance(each, SpoolEntry) and each.path == path]
    return entry


def content(pinned: Pinned) -> bytes:
    buffer = bytearray(pinned.size + 10)
    return bytes(buffer[: pinned.read_into(memoryview(buffer), 0)])


@contextlib.contextmanager
def other_process(code: str, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `code` and wait until it printed a line; it ends when its standard input is closed."""
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        yield child
    finally:
        for stream in (child.stdin, child.stdout):
            assert isinstance(stream, IO) or stream is not None
            stream.close()
        child.wait(30)


WRITER = """
import sys
file = open(sys.argv[1], "r+b")
print("ready", flush=True)
sys.stdin.read()
"""

MAPPED_WRITER = """
import mmap, sys
file = open(sys.argv[1], "r+b")
view = mmap.mmap(file.fileno(), 0)
file.close()
print("ready", flush=True)
sys.stdin.read()
"""


def test_reads_the_file_under_a_lease(tmp_path: Path) -> None:
    (tmp_path / "piece").write_bytes(b"0123456789" * 1000)
    with pin(tmp_path, seen(tmp_path)) as pinned:
        assert pinned.by == "lease"
        assert pinned.no_writer
        assert pinned.evidence_limit == Evidence.SEAL
        assert content(pinned) == b"0123456789" * 1000
        small = bytearray(4)
        assert pinned.read_into(memoryview(small), 9_998) == 2
        assert small == b"89\0\0"
        assert pinned.read_into(memoryview(small), 20_000) == 0
        pinned.drop_behind(0, 10_000)
        pinned.check()
        pinned.check()
    pinned.close()


@pytest.mark.parametrize("code", [WRITER, MAPPED_WRITER])
def test_a_writer_is_a_veto(tmp_path: Path, code: str) -> None:
    (tmp_path / "piece").write_bytes(b"x" * 100)
    with other_process(code, tmp_path / "piece"):
        with pytest.raises(HasWriter) as caught:
            pin(tmp_path, seen(tmp_path))
        assert caught.value.left_out.reason is LeftOutReason.WRITER
        assert caught.value.left_out.path == b"piece"
    with pin(tmp_path, seen(tmp_path)) as pinned:
        assert content(pinned) == b"x" * 100


def test_a_reader_is_no_veto(tmp_path: Path) -> None:
    (tmp_path / "piece").write_bytes(b"x")
    with (tmp_path / "piece").open("rb"), pin(tmp_path, seen(tmp_path)) as pinned:
        assert pinned.by == "lease"


def test_a_late_writer_is_let_in_at_once_and_the_version_given_up(tmp_path: Path) -> None:
    """Nobody reads, and still the writer's open returns long before the kernel's 45 seconds."""
    path = tmp_path / "piece"
    path.write_bytes(b"old" * 100)
    with pin(tmp_path, seen(tmp_path)) as pinned:
        code = "import sys; open(sys.argv[1], 'wb').write(b'new'); print('ready', flush=True)"
        with other_process(code, path) as child:
            assert child.wait(20) == 0
        with pytest.raises(Changed):
            content(pinned)
        with pytest.raises(Changed):
            pinned.check()
    assert path.read_bytes() == b"new"


def test_a_writer_who_does_not_wait_is_noticed_too(tmp_path: Path) -> None:
    path = tmp_path / "piece"
    path.write_bytes(b"old")
    with pin(tmp_path, seen(tmp_path)) as pinned:
        with pytest.raises(BlockingIOError):
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        with pytest.raises(Changed):
            pinned.check()
        # It was given up, so the next one comes in.
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def test_truncated_by_name_while_it_is_pinned(tmp_path: Path) -> None:
    """truncate(2) opens nothing, and still it must wait for the lease."""
    path = tmp_path / "piece"
    path.write_bytes(b"old" * 100)
    with pin(tmp_path, seen(tmp_path)) as pinned:
        os.truncate(path, 10)
        with pytest.raises(Changed):
            pinned.check()
    assert path.stat().st_size == 10


def test_lease_break_kills_no_process(tmp_path: Path) -> None:
    """The default signal would end a process that has no handler; ours has none, in a thread that is not the first."""
    (tmp_path / "piece").write_bytes(b"x")
    code = """
import os, signal, sys, threading
from pathlib import Path
from gateway.spool.pin import Changed, pin
from gateway.spool.walk import walk
root = Path(sys.argv[1])
assert signal.getsignal(signal.SIGIO) == signal.SIG_DFL
pinned = []
thread = threading.Thread(target=lambda: pinned.append(pin(root, next(walk(root)))))
thread.start(); thread.join()
try:
    os.open(root / "piece", os.O_WRONLY | os.O_NONBLOCK)
except BlockingIOError:
    pass
try:
    pinned[0].check()
except Changed:
    print("ready", flush=True)
"""
    with other_process(code, tmp_path) as child:
        assert child.wait(20) == 0


def test_the_watch_thread_ends(tmp_path: Path) -> None:
    (tmp_path / "piece").write_bytes(b"x")
    pin(tmp_path, seen(tmp_path)).close()
    for thread in threading.enumerate():
        if thread.name == "lease-watch":
            assert thread.daemon, "a program that ends would wait for it"
            thread.join(20)
            assert not thread.is_alive()


@pytest.mark.parametrize("change", ["grow", "truncate", "rewrite", "replace", "symlink", "fifo", "directory"])
def test_what_is_not_the_version_seen_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "piece"
    path.write_bytes(b"a" * 5000)
    entry = seen(tmp_path)
    if change == "grow":
        with path.open("ab") as file:
            file.write(b"b")
    elif change == "truncate":
        os.truncate(path, 10)
    elif change == "rewrite":
        path.write_bytes(b"b" * 5000)
        os.utime(path, ns=(0, entry.identity.mtime_ns))
    elif change == "replace":
        (tmp_path / "other").write_bytes(b"b" * 5000)
        os.rename(tmp_path / "other", path)
    else:
        path.unlink()
        if change == "symlink":
            path.symlink_to("/etc/passwd")
        elif change == "fifo":
            os.mkfifo(path)
        else:
            path.mkdir()
    with pytest.raises(Changed) as caught:
        pin(tmp_path, entry)
    assert caught.value.left_out.reason is LeftOutReason.CHANGED


def test_what_is_gone_has_vanished(tmp_path: Path) -> None:
    (tmp_path / "piece").write_bytes(b"x")
    entry = seen(tmp_path)
    (tmp_path / "piece").unlink()
    with pytest.raises(Vanished):
        pin(tmp_path, entry)


def test_a_directory_swapped_for_a_symlink_does_not_lead_outside(tmp_path: Path) -> None:
    root, outside = tmp_path / "spool", tmp_path / "outside"
    (root / "job").mkdir(parents=True)
    (root / "job/piece").write_bytes(b"x")
    entry = seen(root, b"job/piece")
    (root / "job").rename(outside)
    (root / "job").symlink_to(outside)
    with pytest.raises(Changed):
        pin(root, entry)


def test_only_files_have_bytes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "piece")
    entry = seen(tmp_path)
    assert entry.type is EntryType.FIFO
    with pytest.raises(ValueError, match="regular"):
        pin(tmp_path, entry)


def test_deleted_while_it_is_read(tmp_path: Path) -> None:
    """Its link count moves ctime, but nobody could write: the version is rescued."""
    (tmp_path / "piece").write_bytes(b"x" * 100)
    with pin(tmp_path, seen(tmp_path)) as pinned:
        assert pinned.by == "lease"
        (tmp_path / "piece").unlink()
        assert content(pinned) == b"x" * 100
        pinned.check()


def test_a_time_set_back_under_a_lease_is_a_change(tmp_path: Path) -> None:
    (tmp_path / "piece").write_bytes(b"x" * 100)
    with pin(tmp_path, seen(tmp_path)) as pinned:
        os.utime(tmp_path / "piece", (1, 1))
        with pytest.raises(Changed):
            pinned.check()


def test_odd_names(tmp_path: Path) -> None:
    for name in (b"\xff\xfe", b"a\nb", b"n" * 255, b"-rf *", "ü".encode("latin-1")):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
            file.write(name)
        with pin(tmp_path, seen(tmp_path, name)) as pinned:
            assert content(pinned) == name


# --- what is not a hole -------------------------------------------------------------------------------------------


def ranges(root: Path) -> list[tuple[int, int]]:
    with pin(root, seen(root)) as pinned:
        return list(pinned.data_ranges())


def test_an_empty_file_has_no_data(tmp_path: Path) -> None:
    (tmp_path / "piece").touch()
    assert ranges(tmp_path) == []


def test_a_file_of_one_hole_has_no_data(tmp_path: Path) -> None:
    (tmp_path / "piece").touch()
    os.truncate(tmp_path / "piece", 1 << 40)
    assert ranges(tmp_path) == []


def test_holes_are_left_away(tmp_path: Path) -> None:
    mib = 1 << 20
    with (tmp_path / "piece").open("wb") as file:
        file.seek(mib)
        file.write(b"x" * 4096)
        file.seek(3 * mib)
        file.write(b"y" * 4096)
        file.truncate(5 * mib)
    assert ranges(tmp_path) == [(mib, 4096), (3 * mib, 4096)]


def test_a_dense_file_is_one_range(tmp_path: Path) -> None:
    (tmp_path / "piece").write_bytes(b"x" * 12_345)
    assert ranges(tmp_path) == [(0, 12_345)]


def test_a_file_system_without_holes_has_one_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "piece").write_bytes(b"x" * 12_345)

    def no_seek(*_: int) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "lseek", no_seek)
    assert ranges(tmp_path) == [(0, 12_345)]


# --- clones and the lack of everything ----------------------------------------------------------------------------


def copying_clone(fd: int, request: int, source: int) -> int:
    """What FICLONE does, for file systems that cannot: the bytes of now."""
    assert request == 0x40049409
    offset = 0
    while data := os.pread(source, 1 << 20, offset):
        offset += os.pwrite(fd, data, offset)
    return 0


def test_a_clone_stays_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", copying_clone)
    path, size = tmp_path / "piece", pin_module.CLONE_FROM_BYTES
    path.write_bytes(b"a" * size)
    with pin(tmp_path, seen(tmp_path)) as pinned:
        assert pinned.by == "clone"
        assert pinned.no_writer
        assert os.listdir(tmp_path) == ["piece"]
        path.write_bytes(b"b")  # no lease is in the way any more
        path.unlink()
        assert content(pinned) == b"a" * size
        assert list(pinned.data_ranges()) == [(0, size)]
        pinned.check()
    assert os.listdir(tmp_path) == []


def test_a_change_while_it_is_cloned_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "piece"
    path.write_bytes(b"a" * pin_module.CLONE_FROM_BYTES)

    def slow_clone(fd: int, request: int, source: int) -> int:
        copying_clone(fd, request, source)
        path.chmod(0o600)  # the lease does not see that, but a new ctime is a new version
        return 0

    monkeypatch.setattr(fcntl, "ioctl", slow_clone)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Changed):
        pin(tmp_path, seen(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_lease_and_clone_it_is_identity_and_weak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.fcntl

    def no_lease(fd: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETLEASE:
            raise PermissionError(13, "Permission denied")
        return real(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", no_lease)
    path = tmp_path / "piece"
    path.write_bytes(b"a" * 100)
    with pin(tmp_path, seen(tmp_path)) as pinned:
        assert pinned.by == "identity"
        assert not pinned.no_writer
        assert pinned.evidence_limit == Evidence.QUIET
        assert content(pinned) == b"a" * 100
        pinned.check()
        before = os.stat(path)
        path.write_bytes(b"b" * 100)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(Changed):
            pinned.check()


def test_somebody_elses_file_gets_no_lease(tmp_path: Path) -> None:
    """Without CAP_LEASE only the owner may take one: a real process without it, not a patched one."""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    (tmp_path / "piece").write_bytes(b"x")
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "secret").chmod(0)
    code = """
import os, sys
from pathlib import Path
from gateway.spool.pin import Unreadable, pin
from gateway.spool.walk import walk
os.setgroups([]); os.setgid(65534); os.setuid(65534)
root = Path(sys.argv[1])
piece, secret = walk(root)
with pin(root, piece) as pinned:
    assert pinned.by == "identity", pinned.by
try:
    pin(root, secret)
except Unreadable:
    print("ready", flush=True)
"""
    assert os.getuid() == 0, "this test drops root's rights, so it must have them"
    with other_process(code, tmp_path) as child:
        assert child.wait(20) == 0


def test_a_failing_disk_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "piece").write_bytes(b"x" * 100)
    with pin(tmp_path, seen(tmp_path)) as pinned:

        def broken(*_: object) -> int:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "preadv", broken)
        with pytest.raises(Unreadable, match="Input/output error at byte 0"):
            content(pinned)


def test_attributes_come_with_the_pin(tmp_path: Path) -> None:
    path = tmp_path / "piece"
    path.write_bytes(b"x")
    os.setxattr(path, "user.b", b"2")
    os.setxattr(path, "user.a", b"\0\xff")
    with pin(tmp_path, seen(tmp_path)) as pinned:
        assert pinned.xattrs == ((b"user.a", b"\0\xff"), (b"user.b", b"2"))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "piece").write_bytes(b"x")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        pin(tmp_path, seen(tmp_path)).close()
    with other_process(WRITER, tmp_path / "piece"):
        for _ in range(20):
            with pytest.raises(HasWriter):
                pin(tmp_path, seen(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == before


def test_unnamed_files_have_no_name(tmp_path: Path) -> None:
    fd = durable.unnamed_file(tmp_path)
    assert os.listdir(tmp_path) == []
    os.close(fd)
