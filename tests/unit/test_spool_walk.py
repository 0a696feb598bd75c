"""The walk: everything, once, in order, without ever leaving the spool."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import SourceError
from gateway.model.entry import (
    EntryType,
    Identity,
    LeftOut,
    LeftOutReason,
    RestoreEntry,
    entry_type,
    order_key,
)
from gateway.spool import walk as walk_module
from gateway.spool.metadata import XATTR_BYTES, is_kept, xattrs_below
from gateway.spool.walk import SpoolEntry, walk

REPOSITORY = Path(__file__).parents[2]

names = st.binary(min_size=1, max_size=6).filter(lambda name: not set(name) & set(b"/\0") and name not in (b".", b".."))
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)


def entries(root: Path) -> dict[bytes, SpoolEntry]:
    return {entry.path: entry for entry in walk(root) if isinstance(entry, SpoolEntry)}


def left_out(root: Path) -> list[LeftOut]:
    return [entry for entry in walk(root) if isinstance(entry, LeftOut)]


@given(st.lists(paths, max_size=12))
def test_order_key_is_the_order_of_component_lists(some: list[bytes]) -> None:
    assert sorted(some, key=order_key) == sorted(some, key=lambda path: path.split(b"/"))


@given(st.sets(paths, max_size=12))
def test_walk_finds_every_name_once_in_order(tmp_path_factory: pytest.TempPathFactory, some: set[bytes]) -> None:
    root = tmp_path_factory.mktemp("spool")
    made = set()
    for path in some:
        directory, _, _name = path.rpartition(b"/")
        try:
            os.makedirs(os.path.join(os.fsencode(root), directory), exist_ok=True)
            with open(os.path.join(os.fsencode(root), path), "xb"):
                pass
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue
        made.update([path, *(path.rsplit(b"/", depth)[0] for depth in range(1, path.count(b"/") + 1))])
    made = {path for path in made if path != b".gateway" and not path.startswith(b".gateway/")}
    found = [entry.path for entry in walk(root)]
    assert found == sorted(made, key=order_key)


def test_a_directory_is_followed_by_its_subtree(tmp_path: Path) -> None:
    for name in ("a", "a/x", "a/x/1"):
        (tmp_path / name).mkdir()
    for name in ("a!", "a.b", "a/x/1/f", "a0"):
        (tmp_path / name).touch()
    assert list(entries(tmp_path)) == [b"a", b"a/x", b"a/x/1", b"a/x/1/f", b"a!", b"a.b", b"a0"]


def test_what_is_known_of_an_entry(tmp_path: Path) -> None:
    path = tmp_path / "piece"
    path.write_bytes(b"12345")
    os.link(path, tmp_path / "second")
    os.chown(path, 0, 12345)
    path.chmod(0o4751)
    status = path.stat()
    assert entries(tmp_path)[b"piece"] == SpoolEntry(
        path=b"piece",
        type=EntryType.FILE,
        identity=Identity.of(status),
        mode=0o4751,
        uid=0,
        gid=12345,
        user=pwd.getpwuid(0).pw_name,
        group="",
        nlink=2,
        rdev=0,
    )
    assert entries(tmp_path)[b"second"].identity == Identity.of(status)
    assert grp.getgrgid(0).gr_name == walk_module.Owners().group(0) == "root"


def test_every_type(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "outside").symlink_to("/etc")
    os.mkfifo(tmp_path / "fifo")
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    os.mknod(tmp_path / "character", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(tmp_path / "block", stat.S_IFBLK | 0o600, os.makedev(259, 77))
    found = entries(tmp_path)
    assert {path: entry.type.name for path, entry in found.items()} == {
        b"block": "BLOCK",
        b"character": "CHARACTER",
        b"dangling": "SYMLINK",
        b"directory": "DIRECTORY",
        b"fifo": "FIFO",
        b"file": "FILE",
        b"outside": "SYMLINK",
        b"socket": "SOCKET",
    }
    assert found[b"outside"].target == b"/etc"
    assert found[b"dangling"].target == b"nowhere"
    assert found[b"block"].rdev == os.makedev(259, 77)
    with pytest.raises(ValueError, match="file type"):
        entry_type(0)


def test_odd_names(tmp_path: Path) -> None:
    odd = {b"\xff\x80", b"new\nline", b"n" * 255, b" ", b"-", b"\x01", "ü".encode(), b"u\xcc\x88", b"..."}
    for name in odd:
        with open(os.fsencode(tmp_path) + b"/" + name, "xb"):
            pass
    os.symlink(b"\xfe\xff", os.fsencode(tmp_path) + b"/link")
    found = entries(tmp_path)
    assert found.keys() == odd | {b"link"}
    assert found[b"link"].target == b"\xfe\xff"


def test_the_gateways_own_directory_is_skipped_in_the_root_only(tmp_path: Path) -> None:
    (tmp_path / ".gateway/seal").mkdir(parents=True)
    (tmp_path / "job/.gateway").mkdir(parents=True)
    assert list(entries(tmp_path)) == [b"job", b"job/.gateway"]


@pytest.mark.parametrize("what", ["missing", "file"])
def test_no_root_is_an_error_with_advice(tmp_path: Path, what: str) -> None:
    root = tmp_path / "spool"
    if what == "file":
        root.touch()
    with pytest.raises(SourceError, match="Check that it exists, is mounted") as caught:
        next(walk(root))
    assert str(root) in caught.value.what


def test_what_cannot_be_read_is_named_and_the_walk_goes_on(tmp_path: Path) -> None:
    for parent in (tmp_path, *tmp_path.parents):
        if parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    for name in ("closed", "listed", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / "closed").chmod(0o000)
    (tmp_path / "listed").chmod(0o744)
    code = """
import os, sys
from pathlib import Path
from gateway.spool.walk import walk
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for entry in walk(Path(sys.argv[1])):
    print(entry.path, getattr(entry, "reason", ""), getattr(entry, "detail", ""))
"""
    assert os.getuid() == 0, "this test drops root's rights, so it must have them"
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert [line.rstrip() for line in run.stdout.splitlines()] == [
        "b'closed' unreadable Permission denied.",
        "b'listed'",
        "b'listed/file' unreadable Permission denied.",
        "b'open'",
        "b'open/file'",
    ]


def test_names_that_go_away_are_not_mentioned(tmp_path: Path) -> None:
    for name in ("a", "b", "d"):
        (tmp_path / name).touch()
    (tmp_path / "c").mkdir()
    walking = walk(tmp_path)
    assert next(walking).path == b"a"
    (tmp_path / "b").unlink()
    (tmp_path / "c").rmdir()
    assert [entry.path for entry in walking] == [b"d"]


def test_a_directory_swapped_for_a_symlink_is_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "spool/job").mkdir(parents=True)
    (tmp_path / "spool/a").touch()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").touch()
    walking = walk(tmp_path / "spool")
    assert next(walking).path == b"a"
    (tmp_path / "spool/job").rmdir()
    (tmp_path / "spool/job").symlink_to(tmp_path / "outside")
    assert [entry.path for entry in walking] == [b"job"]


def test_a_directory_swapped_between_stat_and_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spool/job").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").touch()
    real = os.open

    def swap(path: object, *arguments: int, dir_fd: int | None = None) -> int:
        if path == b"job":
            (tmp_path / "spool/job").rmdir()
            (tmp_path / "spool/job").symlink_to(tmp_path / "outside")
        return real(path, *arguments, dir_fd=dir_fd)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", swap)
    [only] = walk(tmp_path / "spool")
    assert isinstance(only, LeftOut)
    assert (only.path, only.reason) == (b"job", LeftOutReason.CHANGED)


def test_a_failing_disk_leaves_out_one_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    real, bad = os.listdir, (tmp_path / "a").stat().st_ino

    def listdir(fd: int) -> list[str]:
        if os.fstat(fd).st_ino == bad:
            raise OSError(5, "Input/output error")
        return real(fd)

    monkeypatch.setattr(os, "listdir", listdir)
    assert left_out(tmp_path) == [LeftOut(path=b"a", reason=LeftOutReason.UNREADABLE, detail="Input/output error.")]
    assert list(entries(tmp_path)) == [b"b", b"b/file"]
    bad = tmp_path.stat().st_ino
    with pytest.raises(SourceError):
        next(walk(tmp_path))


def test_a_deep_tree_needs_few_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_module, "HELD_DIRECTORIES", 4)
    deep = tmp_path
    for _ in range(20):
        deep = deep / "d"
        deep.mkdir()
        (deep / "z").touch()
    before, most, found = len(os.listdir("/proc/self/fd")), 0, []
    for entry in walk(tmp_path):
        found.append(entry.path)
        most = max(most, len(os.listdir("/proc/self/fd")) - before)
    assert len(found) == 40
    assert found == sorted(found, key=order_key)
    assert most <= 5
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("how", ["replaced", "gone", "symlink"])
def test_a_deep_level_that_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(walk_module, "HELD_DIRECTORIES", 2)
    (tmp_path / "spool/d/d/d").mkdir(parents=True)
    (tmp_path / "spool/d/z").touch()
    walking = walk(tmp_path / "spool")
    assert [next(walking).path for _ in range(3)] == [b"d", b"d/d", b"d/d/d"]
    (tmp_path / "spool/d").rename(tmp_path / "away")
    if how == "replaced":
        (tmp_path / "spool/d").mkdir()
        (tmp_path / "spool/d/z").touch()
    elif how == "symlink":
        (tmp_path / "spool/d").symlink_to(tmp_path / "away")
    rest = list(walking)
    if how == "gone":
        assert rest == []
    else:
        assert {getattr(entry, "reason", None) for entry in rest} == {LeftOutReason.CHANGED}
        assert rest[-1].path == b"d"


def test_an_abandoned_walk_closes_its_directories(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))
    walking = walk(tmp_path)
    next(walking)
    next(walking)
    walking.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == before


# --- attributes ---------------------------------------------------------------------------------------------------


def test_attributes_of_everything_that_can_have_some(tmp_path: Path) -> None:
    acl = bytes.fromhex("0200000001000700ffffffff020007003930000004000500ffffffff10000700ffffffff")
    acl += bytes.fromhex("20000500ffffffff")
    (tmp_path / "d").mkdir()
    os.setxattr(tmp_path / "d", "system.posix_acl_default", acl)
    os.setxattr(tmp_path / "d", "user.x", b"")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("d")
    (tmp_path / "trusted").touch()
    os.setxattr(tmp_path / "trusted", "trusted.x", b"1")
    found = {path: xattrs_below(tmp_path, entry) for path, entry in entries(tmp_path).items()}
    assert found == {
        b"d": ((b"system.posix_acl_default", acl), (b"user.x", b"")),
        b"fifo": (),
        b"link": (),
        b"trusted": (),
    }
    assert not is_kept(b"security.capability")


def test_more_attributes_than_a_record_may_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.spool.metadata.XATTR_BYTES", 16)
    assert XATTR_BYTES > 65_536 * 2
    (tmp_path / "f").touch()
    os.setxattr(tmp_path / "f", "user.a", b"1")
    os.setxattr(tmp_path / "f", "user.b", b"2" * 20)
    assert xattrs_below(tmp_path, entries(tmp_path)[b"f"]) == ((b"user.a", b"1"),)
    assert [record.message for record in caplog.records] == ["spool.xattrs_dropped"]


def test_a_file_system_without_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").touch()

    def refuse(_: object) -> list[str]:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "listxattr", refuse)
    assert xattrs_below(tmp_path, entries(tmp_path)[b"f"]) == ()


def test_restore_entries_have_permission_bits_only() -> None:
    assert RestoreEntry(path=b"a", type=EntryType.FILE, mode=0o7777).mode == 0o7777
    with pytest.raises(ValueError):
        RestoreEntry(path=b"a", type=EntryType.FILE, mode=0o100644)
    with pytest.raises(ValueError):
        RestoreEntry(path=b"a", type=EntryType.FILE, size=-1)
