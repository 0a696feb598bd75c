"""What only a directory store has: mounts, permissions, space, left-overs, other people's files."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway import durable
from gateway.clock import FakeClock, SystemClock
from gateway.errors import (
    Corrupt,
    ObjectExists,
    ObjectMissing,
    StoreDenied,
    StoreError,
    StoreRefused,
    StoreUnreachable,
)
from gateway.store.crc import crc64
from gateway.store.directory import MARKER, DirectoryStore, _classified


class Killed(BaseException):
    """Stands for a power cut."""


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    created = DirectoryStore(tmp_path / "store", FakeClock(datetime(2026, 1, 1, tzinfo=UTC)))
    created.create_root()
    return created


def put(store: DirectoryStore, key: str, data: bytes, *, if_absent: bool = False) -> None:
    store.put(key, data, crc64=crc64(data), if_absent=if_absent)


def files(store: DirectoryStore) -> set[str]:
    return {path.relative_to(store.root).as_posix() for path in store.root.rglob("*") if path.is_file()}


@contextlib.contextmanager
def killed_at(moment: str, name: str) -> Iterator[None]:
    def hook(now: str, effect: str) -> None:
        if (now, effect) == (moment, name):
            raise Killed

    durable.install_hook(hook)
    try:
        with pytest.raises(Killed):
            yield
    finally:
        durable.install_hook(None)


def test_objects_are_files_of_their_names(store: DirectoryStore) -> None:
    put(store, "chains/g/000001/log/00000001", b"entry")
    assert files(store) == {MARKER, "chains/g/000001/log/00000001"}
    assert (store.root / "chains/g/000001/log/00000001").read_bytes() == b"entry"
    assert store.url == store.root.as_uri()


def test_a_copy_is_the_same_store(store: DirectoryStore, tmp_path: Path) -> None:
    put(store, "a/b", b"x")
    copy = tmp_path / "copy"
    (copy / "a").mkdir(parents=True)
    (copy / "a/b").write_bytes((store.root / "a/b").read_bytes())
    other = DirectoryStore(copy)
    with pytest.raises(StoreUnreachable, match=MARKER):
        other.get("a/b")
    (copy / MARKER).touch()
    assert other.get("a/b") == b"x"
    assert [facts.key for facts in other.list_objects("")] == ["a/b"]


def test_not_mounted_is_never_empty(store: DirectoryStore) -> None:
    """Everything fails on an empty mount point, and nothing is created there."""
    put(store, "a", b"x")
    upload_id = store.start_upload("m")
    away = store.root.rename(store.root.with_name("away"))
    for mount_point in (False, True):
        if mount_point:
            store.root.mkdir()
        for call in (
            lambda: put(store, "b/c", b"x"),
            lambda: put(store, "b/c", b"x", if_absent=True),
            lambda: store.get("a"),
            lambda: store.head("a"),
            lambda: list(store.list_objects("")),
            lambda: list(store.list_objects("no/such/")),
            lambda: store.delete("a"),
            lambda: store.start_upload("m"),
            lambda: store.put_part("m", upload_id, 1, b"", crc64=0),
            lambda: store.list_parts("m", upload_id),
            lambda: store.complete_upload("m", upload_id, [], size=0, crc64=0),
            lambda: store.abort_upload("m", upload_id),
            lambda: store.list_uploads(""),
        ):
            with pytest.raises(StoreUnreachable, match="mounted"):
                call()
        assert store.root.exists() == mount_point
    assert list(store.root.iterdir()) == []
    store.root.rmdir()
    away.rename(store.root)
    assert store.get("a") == b"x"


def test_goes_away_in_a_listing(store: DirectoryStore) -> None:
    for name in ("a/1", "b/1", "c/1"):
        put(store, name, b"")
    listing = store.list_objects("")
    assert next(listing).key == "a/1"
    store.root.rename(store.root.with_name("away"))
    with pytest.raises(StoreUnreachable):
        list(listing)


def test_create_root(tmp_path: Path) -> None:
    with pytest.raises(StoreUnreachable):
        DirectoryStore(tmp_path / "not/there").create_root()
    assert not (tmp_path / "not").exists()
    store = DirectoryStore(tmp_path / "store")
    store.create_root()
    put(store, "a", b"x")
    store.create_root()
    assert store.get("a") == b"x"


def test_names_of_its_own_are_no_keys(store: DirectoryStore) -> None:
    for key in (MARKER, ".uploads/x", ".tmp-x", "a/.tmp-x", ".tmp-a/b"):
        with pytest.raises(ValueError):
            put(store, key, b"")


def test_foreign_files_are_not_objects(store: DirectoryStore, tmp_path: Path) -> None:
    put(store, "a/b", b"x")
    (store.root / "lost+found").mkdir()
    (store.root / "a/.tmp-left-1-2").write_bytes(b"torn")
    (store.root / "a/näme").write_bytes(b"foreign")
    (store.root / "a/link").symlink_to(store.root / "a/b")
    (store.root / "away").symlink_to(tmp_path)
    os.mkfifo(store.root / "a/pipe")
    store.start_upload("m")
    assert [facts.key for facts in store.list_objects("")] == ["a/b"]
    with pytest.raises(ObjectMissing):
        store.head("a/link")
    with pytest.raises(ObjectMissing):
        store.head("a/pipe")
    with pytest.raises(ObjectMissing):
        store.get("a/pipe")
    with pytest.raises((ObjectMissing, StoreRefused)):
        store.get("a/link")


def test_a_name_is_an_object_or_a_directory(store: DirectoryStore) -> None:
    put(store, "a/b", b"x")
    with pytest.raises(StoreRefused):
        put(store, "a", b"x")
    with pytest.raises(StoreError):
        put(store, "a/b/c", b"x")
    assert [facts.key for facts in store.list_objects("")] == ["a/b"]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("name", "if_absent"), [("object:write", False), ("object:rename", False), ("object:link", True)]
)
def test_killed_while_writing(store: DirectoryStore, moment: str, name: str, if_absent: bool) -> None:
    """Whole, or not there; and the next try finds nothing in its way."""
    with killed_at(moment, name):
        put(store, "a", b"new", if_absent=if_absent)
    there = (moment, name) in (("after", "object:rename"), ("after", "object:link"))
    assert [facts.key for facts in store.list_objects("")] == (["a"] if there else [])
    if there and if_absent:
        with pytest.raises(ObjectExists):
            put(store, "a", b"new", if_absent=True)
    else:
        put(store, "a", b"new", if_absent=if_absent)
    assert store.get("a") == b"new"


@pytest.mark.parametrize("ended", ["completed", "aborted"])
def test_an_upload_that_another_writer_ends_is_gone_from_the_first_moment(store: DirectoryStore, ended: str) -> None:
    """Machines that were cloned go on with the same upload. What is being removed is not what was never sent."""
    upload = store.start_upload("m")
    parts = [store.put_part("m", upload, number, b"%d" % number, crc64=crc64(b"%d" % number)) for number in (1, 2)]
    seen: list[str] = []

    def other(moment: str, effect: str) -> None:
        if (moment, effect) != ("before", "upload:rmtree") or seen:
            return
        (store.root / ".uploads" / upload / "00001").unlink()  # removing has begun, and can begin with any of them
        for act in (
            lambda: store.complete_upload("m", upload, parts, size=2, crc64=crc64(b"12")),
            lambda: store.put_part("m", upload, 1, b"1", crc64=crc64(b"1")),
            lambda: store.list_parts("m", upload),
        ):
            with pytest.raises(ObjectMissing):
                act()
            seen.append(effect)

    durable.install_hook(other)
    try:
        if ended == "completed":
            store.complete_upload("m", upload, parts, size=2, crc64=crc64(b"12"))
        else:
            store.abort_upload("m", upload)
    finally:
        durable.install_hook(None)
    assert len(seen) == 3
    assert store.list_uploads("") == []


UPLOAD_EFFECTS = [
    "upload:mkdir", "upload-key:write", "upload-key:rename", "part:create", "part:fsync", "part:rename",
    "object:create", "object:fsync", "object:rename", "upload-key:unlink", "upload:rmtree",
]  # fmt: skip


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", UPLOAD_EFFECTS)
def test_killed_while_uploading(store: DirectoryStore, moment: str, name: str) -> None:
    """A new process goes on from what is listed, wherever the old one was killed."""
    data = [b"first", b"second"]
    whole = b"".join(data)

    def run(upload_id: str) -> None:
        held = {part.number: part for part in store.list_parts("m", upload_id)}
        for number, piece in enumerate(data, 1):
            if number not in held:
                held[number] = store.put_part("m", upload_id, number, piece, crc64=crc64(piece))
        store.complete_upload("m", upload_id, [held[1], held[2]], size=len(whole), crc64=crc64(whole))

    with killed_at(moment, name):
        run(store.start_upload("m"))
    uploads = store.list_uploads("")
    assert len(uploads) <= 1
    try:
        run(uploads[0].upload_id if uploads else store.start_upload("m"))
    except ObjectMissing:
        pytest.fail("a listed upload is not known")
    assert store.get("m") == whole
    assert store.list_uploads("") == []


def test_left_overs_are_swept_when_old(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store", SystemClock())
    store.create_root()
    put(store, "a/b", b"x")
    (store.root / "a/.tmp-b-1-2").write_bytes(b"torn")
    unbegun = store.root / ".uploads" / ("0" * 24)
    unbegun.mkdir(parents=True)
    begun = store.start_upload("m")
    assert store.sweep_leftovers() == 0
    long_ago = datetime.now(UTC) - timedelta(days=2)
    for path in (store.root / "a/.tmp-b-1-2", unbegun):
        os.utime(path, (long_ago.timestamp(), long_ago.timestamp()))
    assert store.sweep_leftovers() == 2
    assert files(store) == {MARKER, "a/b", f".uploads/{begun}/key"}


def test_no_space(store: DirectoryStore) -> None:
    """A limit on the size of files is as definite a no as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(StoreRefused, match="space"):
            put(store, "a/b", bytes(2 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(store) == {MARKER}
    put(store, "a/b", bytes(2 << 20))


@pytest.mark.parametrize(
    ("number", "two_names", "expected"),
    [
        (errno.ENOSPC, False, StoreRefused),
        (errno.EDQUOT, False, StoreRefused),
        (errno.EACCES, False, StoreDenied),
        (errno.EROFS, False, StoreDenied),
        (errno.EPERM, False, StoreDenied),
        (errno.EPERM, True, StoreRefused),
        (errno.EOPNOTSUPP, True, StoreRefused),
        (errno.ENAMETOOLONG, False, StoreRefused),
        (errno.EIO, False, StoreUnreachable),
        (errno.ESTALE, False, StoreUnreachable),
        (errno.ENOTCONN, False, StoreUnreachable),
        (errno.EHOSTDOWN, False, StoreUnreachable),
    ],
)
def test_errors_of_the_system(number: int, two_names: bool, expected: type[StoreError]) -> None:
    error = OSError(number, os.strerror(number), "/a", None, "/b" if two_names else None)
    assert type(_classified(error, "write a")) is expected
    if two_names:
        assert "hard links" in str(_classified(error, "write a"))


def test_our_own_link_over_nfs(store: DirectoryStore) -> None:
    """A repeated LINK request answers "exists" for the name that its first try made."""
    temporary, final = store.root / ".tmp-a", store.root / "a"
    temporary.write_bytes(b"x")
    os.link(temporary, final)
    durable.link_new("object", temporary, final)
    assert not temporary.exists()
    temporary.write_bytes(b"y")
    with pytest.raises(FileExistsError):
        durable.link_new("object", temporary, final)


def test_wrong_checksum_leaves_nothing(store: DirectoryStore) -> None:
    with pytest.raises(Corrupt):
        store.put("a/b", b"x", crc64=1)
    assert files(store) == {MARKER}


def test_put_file(store: DirectoryStore, tmp_path: Path) -> None:
    source = tmp_path / "pack"
    source.write_bytes(b"0123456789")
    facts = store.put_file("packs/p", source, size=8, crc64=crc64(b"01234567"))
    assert facts is not None
    assert facts.size == 8
    assert store.get("packs/p") == b"01234567"
    with pytest.raises(StoreError):
        store.put_file("packs/q", source, size=11, crc64=0)
    assert files(store) == {MARKER, "packs/p"}


def test_a_whole_file_is_shared_not_copied(store: DirectoryStore, tmp_path: Path) -> None:
    source = tmp_path / "pack"
    source.write_bytes(b"0123456789")
    for _ in range(2):  # the second time its name is taken by the file itself
        assert store.put_file("packs/p", source, size=10, crc64=crc64(b"0123456789")) is not None
    assert (store.root / "packs/p").samefile(source)
    assert files(store) == {MARKER, "packs/p"}
    source.unlink()
    assert store.get("packs/p") == b"0123456789"


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_a_whole_file_is_copied_where_it_cannot_be_shared(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(number, "no")

    source = tmp_path / "pack"
    source.write_bytes(b"0123456789")
    monkeypatch.setattr(os, "link", link)
    store.put_file("packs/p", source, size=10, crc64=crc64(b"0123456789"))
    assert not (store.root / "packs/p").samefile(source)
    assert store.get("packs/p") == b"0123456789"
    assert files(store) == {MARKER, "packs/p"}
