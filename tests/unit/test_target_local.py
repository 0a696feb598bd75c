"""Restores into a directory: what is made, what is left alone, what cannot lead outside."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway import durable
from gateway.clock import FakeClock
from gateway.errors import Corrupt, TargetError
from gateway.model.entry import EntryType, RestoreEntry
from gateway.target import local
from gateway.target.local import LocalTarget
from gateway.target.port import NotRestoredReason, Property, RestoreTarget, TargetReport
from gateway.target.tree import TEMPORARY, Tree, temporary_name

REPOSITORY = Path(__file__).parents[2]
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


# --- what is made -------------------------------------------------------------------------------------------------


def test_a_whole_tree(tmp_path: Path) -> None:
    acl = bytes.fromhex("0200000001000700ffffffff020007003930000004000500ffffffff10000700ffffffff")
    acl += bytes.fromhex("20000500ffffffff")
    delivered: list[RestoreEntry] = []
    root = tmp_path / "new/target"
    with target(root) as into:
        into.add_directory(entry(b"d", EntryType.DIRECTORY, mode=0o2755))
        into.add_directory(entry(b"d/e", EntryType.DIRECTORY, mode=0o500, uid=12345, user=""))
        file = entry(
            b"d/e/f", size=10, mode=0o4751, uid=12345, gid=54321, user="", group="", xattrs=((b"user.x", b"\0"),)
        )
        sink = into.open_file(file)
        assert sink is not None
        sink.write_at(5, b"56789")
        sink.write_at(0, memoryview(b"01234"))
        sink.finish(delivered.append)
        assert delivered == []
        assert all(name.startswith(".tmp-gateway-") for name in os.listdir(root / "d/e"))
        into.add_hardlink(entry(b"d/g", size=10, hardlink=b"d/e/f"))
        into.add_symlink(entry(b"d/link", EntryType.SYMLINK, target=b"/etc/\xff", uid=7, user=""))
        into.add_special(entry(b"fifo", EntryType.FIFO, mode=0o622))
        put(into, b"empty", b"", xattrs=((b"system.posix_acl_access", acl),), mode=0o775)
        report = into.finish()
    assert [each.path for each in delivered] == [b"d/e/f"]
    assert (root / "d/e/f").read_bytes() == b"0123456789"
    status = (root / "d/e/f").stat()
    assert stat.S_IMODE(status.st_mode) == 0o4751
    assert (status.st_uid, status.st_gid, status.st_mtime_ns, status.st_nlink) == (12345, 54321, TIME_NS, 2)
    assert os.getxattr(root / "d/e/f", "user.x") == b"\0"
    assert (root / "d/g").stat().st_ino == status.st_ino
    assert os.readlink(os.fsencode(root / "d/link")) == b"/etc/\xff"
    assert (root / "d/link").lstat().st_uid == 7
    assert (root / "d/link").lstat().st_mtime_ns == TIME_NS
    assert stat.S_ISFIFO((root / "fifo").stat().st_mode)
    assert stat.S_IMODE((root / "fifo").stat().st_mode) == 0o622
    assert os.getxattr(root / "empty", "system.posix_acl_access") == acl
    assert stat.S_IMODE((root / "empty").stat().st_mode) == 0o775
    for path, mode, uid in (("d", 0o2755, 0), ("d/e", 0o500, 12345)):
        status = (root / path).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime_ns) == (mode, uid, TIME_NS)
    counts = (report.files, report.bytes, report.directories, report.symlinks, report.hardlinks, report.fifos)
    assert counts == (2, 10, 2, 1, 1, 1)
    assert not report.left_out
    assert not report.unset
    assert temporaries(root) == []


def test_holes_stay_holes(tmp_path: Path) -> None:
    size = 1 << 30
    with target(tmp_path) as into:
        sink = into.open_file(entry(b"sparse", size=size))
        assert sink is not None
        sink.write_at(size - 4096, b"x" * 4096)
        sink.finish()
        into.finish()
    status = (tmp_path / "sparse").stat()
    assert status.st_size == size
    assert status.st_blocks * 512 < 1 << 20


def test_odd_names(tmp_path: Path) -> None:
    names = [b"\xff\x80", b"new\nline", b"n" * 255, b"-rf *", b"...", b"u\xcc\x88"]
    with target(tmp_path) as into:
        for name in names:
            put(into, name + b"/" + name, name)
        assert into.finish().left_out == ()
    for name in names:
        with open(os.fsencode(tmp_path) + b"/" + name + b"/" + name, "rb") as file:
            assert file.read() == name


def test_many_threads_and_more_files_than_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "OPEN_FILES", 3)
    monkeypatch.setattr(local, "BATCH_ENTRIES", 7)
    delivered: list[bytes] = []
    with target(tmp_path) as into:
        sinks = []
        for number in range(40):
            sink = into.open_file(entry(b"d%d/f" % (number % 5) + b"%d" % number, size=1000))
            assert sink is not None
            sinks.append(sink)

        def work(mine: int) -> None:
            for offset in range(mine * 100, 1000, 400):
                for number, sink in enumerate(sinks):
                    sink.write_at(offset, bytes([number]) * 100)

        threads = [threading.Thread(target=work, args=(mine,)) for mine in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        work(0)
        for position in (200, 300, 700):
            for number, sink in enumerate(sinks):
                sink.write_at(position, bytes([number]) * 100)
        finishers = [
            threading.Thread(target=sink.finish, args=(lambda one: delivered.append(one.path),)) for sink in sinks
        ]
        for thread in finishers:
            thread.start()
        for thread in finishers:
            thread.join()
        report = into.finish()
    assert report.files == len(set(delivered)) == len(delivered) == 40
    for number in range(40):
        assert (tmp_path / f"d{number % 5}/f{number}").read_bytes() == bytes([number]) * 1000


def test_a_batch_is_delivered_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "BATCH_ENTRIES", 3)
    seen: list[str] = []
    durable.install_hook(lambda moment, name: seen.append(name) if moment == "after" else None)
    try:
        with target(tmp_path) as into:
            seen.clear()
            for name in (b"a", b"b", b"c"):
                put(into, name)
            assert seen == [
                *["target:create"] * 3,
                "target:syncfs",
                *["target:rename"] * 3,
                "target:syncfs",
            ]
            assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]
            put(into, b"d")
            assert not (tmp_path / "d").exists()
            into.flush()
            assert (tmp_path / "d").exists()
    finally:
        durable.install_hook(None)


def test_bytes_fill_a_batch_and_large_files_are_synced_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "BATCH_BYTES", 100)
    monkeypatch.setattr(local, "ALONE_BYTES", 80)
    seen: list[str] = []
    durable.install_hook(lambda moment, name: seen.append(name) if moment == "after" else None)
    try:
        with target(tmp_path) as into:
            seen.clear()
            put(into, b"large", b"x" * 81)
            assert seen == ["target:create", "target:fsync"]
            put(into, b"small", b"x" * 19)
            assert seen[2:] == ["target:create", "target:syncfs", "target:rename", "target:rename", "target:syncfs"]
    finally:
        durable.install_hook(None)


# --- what is left out ---------------------------------------------------------------------------------------------


@pytest.fixture
def taken(tmp_path: Path) -> Path:
    root = tmp_path / "target"
    (root / "directory").mkdir(parents=True)
    (root / "directory/mine").write_text("mine")
    (root / "file").write_text("mine")
    (root / "same").write_bytes(b"data")
    os.utime(root / "same", ns=(0, TIME_NS))
    (root / "dangling").symlink_to("nowhere")
    (tmp_path / "outside").mkdir(mode=0o755)
    (root / "outside").symlink_to(tmp_path / "outside")
    return root


def fill(into: LocalTarget) -> TargetReport:
    for name in (b"directory", b"file", b"same", b"dangling", b"free"):
        put(into, name)
    put(into, b"outside/f")
    put(into, b"file/below")
    into.add_directory(entry(b"outside", EntryType.DIRECTORY, mode=0o700))
    into.add_directory(entry(b"dangling", EntryType.DIRECTORY))
    into.add_directory(entry(b"directory", EntryType.DIRECTORY, mode=0o700))
    return into.finish()


def test_what_exists_is_never_touched(taken: Path) -> None:
    before = (taken / "directory").stat()
    (taken / ".tmp-gateway-other").touch()
    with target(taken) as into:
        report = fill(into)
    assert reasons(report) == {
        b"directory": "in-the-way",
        b"file": "in-the-way",
        b"same": "already-there",
        b"dangling": "in-the-way",
        b"outside/f": "in-the-way",
        b"file/below": "in-the-way",
        b"outside": "in-the-way",
    }
    assert report.left_out_counts == ((NotRestoredReason.ALREADY_THERE, 1), (NotRestoredReason.IN_THE_WAY, 7))
    assert (taken / "file").read_text() == "mine"
    assert (taken / "free").read_bytes() == b"data"
    assert (taken / "directory").stat().st_mode == before.st_mode
    assert os.listdir(taken.parent / "outside") == []
    assert stat.S_IMODE((taken.parent / "outside").stat().st_mode) == 0o755
    assert temporaries(taken) == [".tmp-gateway-other"]


def test_overwriting_replaces_files_and_links_but_no_directory(taken: Path) -> None:
    held = (taken / "file").open()
    with target(taken, overwrite=True) as into:
        report = fill(into)
    with held:
        assert held.read() == "mine"
    assert {path: reason for path, reason in reasons(report).items() if path != b"dangling"} == {
        b"directory": "in-the-way",
        b"outside/f": "in-the-way",
        b"file/below": "in-the-way",
        b"outside": "in-the-way",
    }
    for name in ("file", "same", "dangling", "free"):
        assert (taken / name).read_bytes() == b"data"
        assert not (taken / name).is_symlink()
    assert stat.S_IMODE((taken / "directory").stat().st_mode) == 0o700
    assert (taken / "directory/mine").read_text() == "mine"
    assert os.listdir(taken.parent / "outside") == []
    assert temporaries(taken) == []


def test_what_comes_while_we_restore_is_not_overwritten(tmp_path: Path) -> None:
    delivered: list[RestoreEntry] = []
    with target(tmp_path) as into:
        sink = into.open_file(entry(b"f", size=4))
        assert sink is not None
        sink.write_at(0, b"data")
        (tmp_path / "f").write_text("mine")
        sink.finish(delivered.append)
        report = into.finish()
    assert reasons(report) == {b"f": "in-the-way"}
    assert report.files == 0
    assert delivered == []
    assert (tmp_path / "f").read_text() == "mine"
    assert temporaries(tmp_path) == []


def test_file_systems_without_noreplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hard links do it as well; with neither, the name is looked up first."""

    class Libc:
        syncfs = durable._libc.syncfs

        @staticmethod
        def renameat2(*_: object) -> int:
            ctypes.set_errno(errno.EINVAL)
            return -1

    monkeypatch.setattr(durable, "_libc", Libc)

    def race(root: Path) -> None:
        with target(root) as into:
            put(into, b"a")
            put(into, b"b")
            (root / "b").write_text("mine")
            report = into.finish()
        assert reasons(report) == {b"b": "in-the-way"}
        assert sorted(os.listdir(root)) == ["a", "b"]
        assert (root / "b").read_text() == "mine"

    race(tmp_path / "links")

    def no_link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    race(tmp_path / "no-links")


def test_devices_and_sockets_are_named_not_made(tmp_path: Path) -> None:
    with target(tmp_path) as into:
        into.add_special(entry(b"disk", EntryType.BLOCK, rdev=os.makedev(8, 1), mode=0o666))
        into.add_special(entry(b"null", EntryType.CHARACTER, rdev=os.makedev(1, 3)))
        into.add_special(entry(b"socket", EntryType.SOCKET))
        report = into.finish()
    assert os.listdir(tmp_path) == []
    assert set(reasons(report).values()) == {"special"}
    assert "block device 8:1" in report.left_out[0].detail


def test_hard_links(tmp_path: Path) -> None:
    (tmp_path / "foreign").write_bytes(b"mine")
    with target(tmp_path) as into:
        # The first member is in the way of nothing but a file of somebody else, so its second name must not be made.
        put(into, b"foreign")
        into.add_hardlink(entry(b"second", size=4, hardlink=b"foreign"))
        into.add_hardlink(entry(b"third", size=4, hardlink=b"nowhere/at all"))
        into.add_hardlink(entry(b"fourth", size=4, hardlink=b"missing"))
        put(into, b"good")
        into.add_hardlink(entry(b"sub/fifth", size=4, hardlink=b"good"))
        into.add_hardlink(entry(b"foreign", size=4, hardlink=b"good"))
        report = into.finish()
    assert [(each.path, each.reason.value) for each in report.left_out] == [
        (b"foreign", "in-the-way"),
        (b"second", "first-missing"),
        (b"third", "first-missing"),
        (b"fourth", "first-missing"),
        (b"foreign", "in-the-way"),
    ]
    assert report.hardlinks == 1
    assert (tmp_path / "sub/fifth").samefile(tmp_path / "good")
    assert (tmp_path / "foreign").read_bytes() == b"mine"


def test_hard_links_restored_twice(tmp_path: Path) -> None:
    for overwrite in (False, True, True):
        with target(tmp_path, overwrite=overwrite) as into:
            put(into, b"a")
            into.add_hardlink(entry(b"b", size=4, hardlink=b"a"))
            report = into.finish()
        assert report.left_out == ()
        assert (tmp_path / "a").samefile(tmp_path / "b")
        assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_hard_links_are_copied_where_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EMLINK, "Too many links")

    monkeypatch.setattr(os, "link", no_link)
    data = b"x" * local._COPY_BYTES + bytes(3 * local._COPY_BYTES) + b"end"
    with target(tmp_path) as into:
        put(into, b"a", data)
        into.add_hardlink(entry(b"b", size=len(data), hardlink=b"a"))
        report = into.finish()
    assert report.left_out == ()
    assert report.files == 2
    assert (tmp_path / "b").read_bytes() == data
    assert (tmp_path / "b").stat().st_blocks < (tmp_path / "a").stat().st_blocks


def test_an_entry_named_twice(tmp_path: Path) -> None:
    with target(tmp_path) as into:
        one, two = into.open_file(entry(b"f", size=3)), into.open_file(entry(b"f", size=3))
        assert one is not None
        assert two is None
        one.write_at(0, b"one")
        one.finish()
        put(into, b"f", b"two")
        into.add_symlink(entry(b"f", EntryType.SYMLINK, target=b"x"))
        assert len(into.finish().left_out) == 3
    assert (tmp_path / "f").read_bytes() == b"one"


def test_what_the_restore_gives_up(tmp_path: Path) -> None:
    with target(tmp_path) as into:
        sink = into.open_file(entry(b"f", size=4))
        assert sink is not None
        sink.discard("Its digest is wrong.")
        assert into.open_file(entry(b"g", size=4)) is not None
        report = into.finish()
    assert [(each.path, each.detail) for each in report.left_out] == [
        (b"f", "Its digest is wrong."),
        (b"g", "It was never finished."),
    ]
    assert os.listdir(tmp_path) == []


def test_what_the_file_system_refuses(tmp_path: Path) -> None:
    with target(tmp_path) as into:
        put(into, b"n" * 256)
        assert into.open_file(entry(b"vast", size=1 << 62)) is None
        assert into.open_file(entry(b"vaster", size=1 << 64)) is None
        into.add_symlink(entry(b"empty", EntryType.SYMLINK, target=b""))
        put(into, TEMPORARY + b"x")
        into.add_directory(entry(b"d/" + TEMPORARY + b"x", EntryType.DIRECTORY))
        put(into, b"good")
        report = into.finish()
    assert reasons(report) == {
        b"n" * 256: "refused",
        b"vast": "refused",
        b"vaster": "refused",
        b"empty": "refused",
        TEMPORARY + b"x": "reserved",
        b"d/" + TEMPORARY + b"x": "reserved",
    }
    assert os.listdir(tmp_path) == ["good"]


def test_the_report_names_some_and_counts_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "REPORTED", 2)
    with target(tmp_path) as into:
        for number in range(5):
            into.add_special(entry(b"%d" % number, EntryType.SOCKET))
            put(into, b"f%d" % number, xattrs=((b"unknown.x", b""),))
        report = into.finish()
    assert len(report.left_out) == len(report.unset) == 2
    assert report.left_out_counts == ((NotRestoredReason.SPECIAL, 5),)
    assert report.unset_counts == ((Property.XATTRS, 5),)
    assert report.files == 5


def test_an_ordinary_user_restores_what_he_can(tmp_path: Path) -> None:
    for parent in (tmp_path, *tmp_path.parents):
        if parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    root = tmp_path / "target"
    root.mkdir()
    os.chown(root, 65534, 65534)
    (tmp_path / "closed").mkdir(mode=0o755)
    code = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from gateway.clock import FakeClock
from gateway.errors import TargetError
from gateway.model.entry import EntryType, RestoreEntry
from gateway.target.local import LocalTarget
os.setgroups([]); os.setgid(65534); os.setuid(65534)
clock = FakeClock(datetime(2026, 11, 25, tzinfo=UTC))
with LocalTarget(Path(sys.argv[1]) / "target", overwrite=False, clock=clock) as into:
    into.add_directory(RestoreEntry(path=b"d", type=EntryType.DIRECTORY, mode=0o2555))
    sink = into.open_file(RestoreEntry(path=b"d/f", type=EntryType.FILE, mode=0o6755, size=1))
    sink.write_at(0, b"x")
    sink.finish()
    report = into.finish()
print(report.unset_counts)
try:
    LocalTarget(Path(sys.argv[1]) / "closed", overwrite=False, clock=clock)
except TargetError as error:
    print(error)
"""
    assert os.getuid() == 0, "this test drops root's rights, so it must have them"
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert "(<Property.OWNER: 'owner'>, 2)" in run.stdout
    assert "Permission denied. Nothing was written. Choose a directory" in run.stdout
    # Without its owner a file must not lend that user's rights.
    assert stat.S_IMODE((root / "d/f").stat().st_mode) == 0o755
    assert (root / "d/f").read_bytes() == b"x"


# --- hostile lists and neighbours -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [b"", b"/", b"/etc/passwd", b"a//b", b"a/", b".", b"..", b"../x", b"a/../../x", b"a/./b", b"a\0b"]
)
def test_paths_that_are_none(tmp_path: Path, path: bytes) -> None:
    with target(tmp_path / "target") as into:
        for add in (into.add_directory, into.open_file, into.add_symlink, into.add_special, into.add_hardlink):
            with pytest.raises(Corrupt):
                add(entry(path, EntryType.FIFO, hardlink=b"a"))
        with pytest.raises(Corrupt):
            into.add_hardlink(entry(b"a", hardlink=path))
    assert os.listdir(tmp_path) == ["target"]


def test_a_list_that_plants_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    root = tmp_path / "target"
    with target(root, overwrite=True) as into:
        into.add_symlink(entry(b"way", EntryType.SYMLINK, target=os.fsencode(tmp_path / "outside")))
        into.flush()
        put(into, b"way/f")
        into.add_directory(entry(b"way/d", EntryType.DIRECTORY))
        into.add_directory(entry(b"way", EntryType.DIRECTORY, mode=0o777))
        into.add_hardlink(entry(b"stolen", size=4, hardlink=b"way/secret"))
        report = into.finish()
    assert os.listdir(tmp_path / "outside") == []
    assert reasons(report) == {
        b"way/f": "in-the-way",
        b"way/d": "in-the-way",
        b"way": "in-the-way",
        b"stolen": "first-missing",
    }


def test_a_neighbour_who_plants_symlinks(tmp_path: Path) -> None:
    """Under the temporary name, as the directory, and as the final name."""
    (tmp_path / "outside").mkdir()
    secret = tmp_path / "outside/secret"
    secret.write_text("secret")
    root = tmp_path / "target"
    with target(root) as into:
        (root / os.fsdecode(temporary_name(b"f"))).symlink_to(secret)
        put(into, b"f")
        sink = into.open_file(entry(b"d/g", size=4))
        assert sink is not None
        (root / "d").rename(root / "away")
        (root / "d").symlink_to(tmp_path / "outside")
        sink.write_at(0, b"data")
        sink.finish()
        sink = into.open_file(entry(b"h", size=4))
        assert sink is not None
        sink.write_at(0, b"data")
        (root / "h").symlink_to(secret)
        sink.finish()
        into.finish()
    assert secret.read_text() == "secret"
    assert os.listdir(tmp_path / "outside") == ["secret"]
    assert (root / "f").read_bytes() == b"data"


def test_a_temporary_file_that_is_swapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "OPEN_FILES", 0)
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "target"
    with target(root) as into:
        sink = into.open_file(entry(b"f", size=4))
        assert sink is not None
        [name] = temporaries(root)
        (root / name).unlink()
        os.link(tmp_path / "secret", root / name)
        with pytest.raises(TargetError, match="another file was put in its place"):
            sink.write_at(0, b"data")
    assert (tmp_path / "secret").read_text() == "secret"


def test_writes_beyond_the_end(tmp_path: Path) -> None:
    with target(tmp_path) as into:
        sink = into.open_file(entry(b"f", size=4))
        assert sink is not None
        for offset, data in ((0, b"12345"), (4, b"1"), (-1, b"1")):
            with pytest.raises(Corrupt):
                sink.write_at(offset, data)
        with pytest.raises(Corrupt):
            into.add_symlink(entry(b"l", EntryType.SYMLINK, target=b"a\0b"))


def test_a_deep_path_needs_few_descriptors(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    deep = b"/".join([b"d"] * 1500)
    with target(tmp_path) as into:
        put(into, deep + b"/f")
        into.flush()
        assert len(os.listdir("/proc/self/fd")) - before < Tree.KEPT + 10
        report = into.finish()
    assert report.files == 1
    assert len(os.listdir("/proc/self/fd")) == before
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)
