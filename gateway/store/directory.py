"""A store in a directory: a repository on a disk or a NAS, object by object the same names as in a bucket.

An object is the file ``root/key``. Copying all files (but those whose names start with a dot) into a bucket,
or a bucket's objects into a directory, gives the same repository. Beside them lie

* ``.gateway-store``: the marker. A root without it is *unreachable*, never empty: a NAS that is not mounted
  leaves an empty mount point behind;
* ``.uploads/<id>/``: multipart uploads: ``key`` names the object, ``00001`` ... hold a part and its CRC each;
* ``.tmp-*``: files being written.

CRASH: an object is under its name and whole, or not there. What may be left over: ``.tmp-`` files, an upload
directory without its ``key``, and an upload whose object is already complete; `sweep_leftovers` removes the
first two, aborting old uploads removes the last.

LIMIT: a name cannot be an object and a "directory" of others at the same time (in a bucket it can); names of
the repository format never are. Empty directories stay. One directory's names are sorted in memory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway import durable
from gateway.clock import Clock, SystemClock
from gateway.errors import (
    Corrupt,
    LocalStateError,
    ObjectExists,
    ObjectMissing,
    StoreAbsent,
    StoreDenied,
    StoreError,
    StoreRefused,
    StoreUnreachable,
)
from gateway.store.crc import combine_all
from gateway.store.crc import crc64 as crc64_of
from gateway.store.lifecycle import Lifecycle
from gateway.store.port import (
    MAX_PARTS,
    MAX_PUT_BYTES,
    ObjectFacts,
    Part,
    ThawAnswer,
    ThawTier,
    Upload,
    check_key,
    check_range,
)

MARKER = ".gateway-store"
UPLOADS = ".uploads"
_MARKER_TEXT = (
    b"This directory is a store of the backup gateway. Do not change or remove files in it.\n"
    b"The gateway refuses to work here when this file is missing: it then takes the disk for not mounted.\n"
)
# Names at the top that belong to the store or to the file system, not to the repository.
_NOT_OBJECTS = frozenset({MARKER, UPLOADS, "lost+found"})
_UPLOAD_ID = re.compile(r"[0-9a-f]{24}")
_PART_NAME = re.compile(r"[0-9]{5}")
_CRC_BYTES = 8
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class DirectoryStore:
    """See the module's docstring. `root` is made absolute; nothing is touched before the first call.

    Thread-safe; several processes may write to one root, as long as they use `if_absent` where they meet.
    """

    def __init__(self, root: Path, clock: Clock | None = None) -> None:
        self.root = Path(root).absolute()
        self._marker = os.fspath(self.root / MARKER)
        self._clock = clock or SystemClock()

    @property
    def url(self) -> str:
        return self.root.as_uri()

    @property
    def base(self) -> str:
        return ""

    @property
    def states_checksums(self) -> bool:
        return False

    @property
    def knows_classes(self) -> bool:
        return False

    def create_root(self) -> None:
        """Make the root and its marker where missing; for `init` only. Idempotent.

        The directory above must exist: creating that too could fill the disk below a mount point.
        """
        if not self.root.parent.is_dir():
            raise StoreAbsent(
                f"{self.root.parent} does not exist.",
                meaning="The store would be created below it.",
                advice="Mount the disk, or create that directory, and run the command again.",
            )
        with self._door("create"):
            durable.make_directory("store", self.root)
            if not (self.root / MARKER).exists():
                durable.write_file("store-marker", self.root / MARKER, _MARKER_TEXT)

    def put(
        self,
        key: str,
        data: bytes | memoryview,
        *,
        crc64: int,
        storage_class: str = "STANDARD",  # noqa: ARG002 - the port's; a directory has no classes
        if_absent: bool = False,
    ) -> ObjectFacts:
        path = self._path(key)
        if len(data) > MAX_PUT_BYTES:
            raise ValueError(f"{len(data)} bytes are too many for one PUT")
        _check_sum(key, data, crc64)
        self._require_root()
        with self._door(f"write {key}"):
            durable.make_directory("store", path.parent)
            try:
                durable.write_file("object", path, data, replace=not if_absent)
            except FileExistsError as error:
                raise ObjectExists(f"There is already an object {key} in {self.url}.") from error
        self._require_root()
        return self._facts(key, path)

    def put_file(
        self,
        key: str,
        path: Path,
        *,
        size: int,
        crc64: int,  # noqa: ARG002 - the port's; the caller reads back
        storage_class: str = "STANDARD",  # noqa: ARG002 - see put
    ) -> ObjectFacts | None:
        target = self._path(key)
        self._require_root()
        with self._door(f"write {key}"):
            durable.make_directory("store", target.parent)
            if not durable.share_file("object", path, target, size):
                _copy(path, target, size)
        self._require_root()
        return self._facts(key, target)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)
        path = self._path(key)
        self._require_root()
        with self._door(f"read {key}"), self._opened(key, path) as fd:
            size = os.fstat(fd).st_size
            end = size if length is None else start + length
            if end > size or (start >= size and start > 0):
                raise Corrupt(f"holds {size} bytes, not {start} to {end}", address=key)
            return _read_exactly(key, fd, start, end - start)

    def head(self, key: str) -> ObjectFacts:
        path = self._path(key)
        self._require_root()
        return self._facts(key, path)

    def list_objects(self, prefix: str, *, after: str = "") -> Iterator[ObjectFacts]:
        self._require_root()
        base = prefix.rpartition("/")[0]
        if base:
            with contextlib.suppress(ValueError):  # no object can have such a prefix
                yield from self._walk(self._path(base), f"{base}/", prefix, after)
        else:
            yield from self._walk(self.root, "", prefix, after)
        self._require_root()  # a disk that went away meanwhile: not "no more objects"

    def delete(self, key: str) -> None:
        path = self._path(key)
        self._require_root()
        with self._door(f"delete {key}"):
            if path.parent.is_dir():
                durable.remove("object", path)
        self._require_root()

    def start_upload(self, key: str, *, storage_class: str = "STANDARD") -> str:  # noqa: ARG002 - see put
        self._path(key)
        self._require_root()
        upload_id = self._clock.random_bytes(12).hex()
        directory = self.root / UPLOADS / upload_id
        with self._door(f"begin an upload of {key}"):
            durable.make_directory("upload", directory)
            durable.write_file("upload-key", directory / "key", key.encode("ascii"))
        self._require_root()
        return upload_id

    def put_part(self, key: str, upload_id: str, number: int, data: bytes | memoryview, *, crc64: int) -> Part:
        if not 1 <= number <= MAX_PARTS:
            raise ValueError(f"not a part number: {number}")
        _check_sum(key, data, crc64)
        directory = self._upload(key, upload_id)
        with self._door(f"write part {number} of {key}"):
            try:
                growing = durable.GrowingFile("part", directory / f"{number:05d}")
            except LocalStateError:
                self._upload(key, upload_id)  # aborted meanwhile?
                raise
            try:
                growing.append(data)
                growing.append(crc64.to_bytes(_CRC_BYTES))
                growing.finish()
            except BaseException:
                growing.abandon()
                raise
        self._require_root()
        return _part(number, len(data), crc64)

    def list_parts(self, key: str, upload_id: str) -> list[Part]:
        directory = self._upload(key, upload_id)
        with self._door(f"list the parts of {key}"):
            names = sorted(name for name in os.listdir(directory) if _PART_NAME.fullmatch(name))
            return [self._held_part(key, directory, int(name)) for name in names]

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part], *, size: int, crc64: int) -> ObjectFacts:
        path = self._path(key)
        directory = self._upload(key, upload_id)
        numbers = [part.number for part in parts]
        if not numbers or numbers != sorted(set(numbers)):
            raise StoreRefused(f"The parts of {key} are not in ascending order: {numbers[:10]}.")
        with self._door(f"complete {key}"):
            held = []
            for part in parts:
                try:
                    held.append(self._held_part(key, directory, part.number))
                except FileNotFoundError as error:
                    self._upload(key, upload_id)  # completed or aborted meanwhile?
                    raise StoreRefused(f"Part {part.number} of {key} was never sent.") from error
                if held[-1].etag != part.etag:
                    raise StoreRefused(f"Part {part.number} of {key} is not the one that was sent.")
            total = sum(part.size for part in held)
            crc = combine_all((part.crc64 or 0, part.size) for part in held)
            if (total, crc) != (size, crc64):
                raise Corrupt(f"its parts make {total} bytes of CRC {crc:016x}", address=key)
            durable.make_directory("store", path.parent)
            self._assemble(directory, path, held)
            self._remove_upload(directory)
        self._require_root()
        return self._facts(key, path)

    def abort_upload(self, key: str, upload_id: str) -> None:
        try:
            directory = self._upload(key, upload_id)
        except ObjectMissing:
            return
        self._remove_upload(directory)
        self._require_root()
        if directory.exists():
            raise StoreDenied(f"The upload {directory} cannot be removed.", advice="Check its permissions.")

    def list_uploads(self, prefix: str) -> list[Upload]:
        self._require_root()
        uploads = []
        with self._door("list uploads"):
            for directory in self._upload_directories():
                try:
                    key = (directory / "key").read_text("ascii")
                    started = (directory / "key").stat().st_mtime
                except (FileNotFoundError, UnicodeDecodeError):
                    continue  # never begun, or gone meanwhile
                if key.startswith(prefix):
                    initiated = datetime.fromtimestamp(started, UTC)
                    uploads.append(Upload(key=key, upload_id=directory.name, initiated=initiated))
        self._require_root()
        return uploads

    def thaw(self, key: str, *, days: int, tier: ThawTier) -> ThawAnswer:  # noqa: ARG002 - nothing here is ever cold
        if days < 1:
            raise ValueError(f"cannot thaw for {days} days")
        self.head(key)
        return ThawAnswer.NEVER_COLD

    def get_lifecycle(self) -> Lifecycle:
        raise self._no_lifecycle()

    def put_lifecycle(self, lifecycle: Lifecycle) -> None:  # noqa: ARG002 - the port's
        raise self._no_lifecycle()

    def _no_lifecycle(self) -> StoreRefused:
        return StoreRefused(
            f"{self.url} is a directory and has no lifecycle rules.",
            meaning="Nothing in it moves into another storage class, and nothing is ever cold.",
            advice="Use classes without steps for this repository: instant or hot.",
        )

    def close(self) -> None:
        return

    def sweep_leftovers(self, *, older_than: timedelta = timedelta(days=1)) -> int:
        """Remove what killed writers left behind (see CRASH above); returns how many things.

        Younger ones stay: they may belong to a writer that runs.
        """
        self._require_root()
        limit = self._clock.now().timestamp() - older_than.total_seconds()
        count = 0
        with self._door("sweep"):
            for directory, _, names in os.walk(self.root):
                for name in names:
                    path = Path(directory) / name
                    if name.startswith(durable.TEMPORARY) and _age_of(path) < limit:
                        durable.remove("leftover", path)
                        count += 1
            for directory_path in self._upload_directories():
                if not (directory_path / "key").exists() and _age_of(directory_path) < limit:
                    durable.remove_tree("leftover", directory_path)
                    count += 1
        return count

    def _path(self, key: str) -> Path:
        check_key(key)
        components = key.split("/")
        if components[0] in _NOT_OBJECTS or any(each.startswith(durable.TEMPORARY) for each in components):
            raise ValueError(f"not a key of a directory store: {key[:80]!r}")
        return self.root / key

    def _require_root(self) -> None:
        try:
            os.stat(self._marker)
        except PermissionError as error:
            raise _classified(error, f"look into {self.root}") from error
        except OSError as error:
            raise StoreAbsent(
                f"{self.root} is not there, or is no store: it holds no file {MARKER}.",
                meaning="Most likely the disk or share is not mounted, or no repository was made there yet.",
                advice=f"Mount it, or run `gateway init`. If {self.root} is a copy of a bucket, create an empty file "
                f"{MARKER} in it.",
            ) from error

    @contextlib.contextmanager
    def _door(self, what: str) -> Iterator[None]:
        """Foreign exceptions become the port's here."""
        try:
            yield
        except LocalStateError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError):
                raise
            self._require_root()
            raise _classified(cause, f"{what} in {self.root}") from cause
        except OSError as error:
            self._require_root()
            raise _classified(error, f"{what} in {self.root}") from error

    @contextlib.contextmanager
    def _opened(self, key: str, path: Path) -> Iterator[int]:
        try:
            fd = os.open(path, _READ_FLAGS)
        except (FileNotFoundError, NotADirectoryError) as error:
            self._require_root()
            raise ObjectMissing(f"No object {key} in {self.url}.") from error
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ObjectMissing(f"{key} in {self.url} is not a file.")
            yield fd
        finally:
            os.close(fd)

    def _facts(self, key: str, path: Path) -> ObjectFacts:
        with self._door(f"look at {key}"):
            try:
                found = os.stat(path, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError) as error:
                self._require_root()
                raise ObjectMissing(f"No object {key} in {self.url}.") from error
        if not stat.S_ISREG(found.st_mode):
            raise ObjectMissing(f"{key} in {self.url} is not a file.")
        return _facts_of(key, found)

    def _walk(self, directory: Path, base: str, prefix: str, after: str) -> Iterator[ObjectFacts]:
        """The objects below one directory in byte order of their full keys.

        That is not the order of the names: ``a/b`` comes after ``a.b``, because ``/`` comes after ``.``.
        Sorting directories as if their names ended in ``/`` gives it.
        """
        entries: list[tuple[str, os.DirEntry[str]]] = []
        with self._door(f"list {base or 'the root'}"):
            try:
                with os.scandir(directory) as found:
                    for entry in found:
                        if entry.is_dir(follow_symlinks=False):
                            name = f"{base}{entry.name}/"
                            wanted = name.startswith(prefix) or prefix.startswith(name)
                            wanted = wanted and (name > after or after.startswith(name))
                        else:
                            name = f"{base}{entry.name}"
                            wanted = name.startswith(prefix) and name > after
                        if wanted and self._is_object_name(base, entry.name):
                            entries.append((name, entry))
            except (FileNotFoundError, NotADirectoryError):
                return  # removed meanwhile; a root that went away is found out at the end
        entries.sort(key=lambda item: item[0])
        for name, entry in entries:
            if name.endswith("/"):
                yield from self._walk(Path(entry.path), name, prefix, after)
                continue
            with self._door(f"look at {name}"):
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # deleted meanwhile
            if stat.S_ISREG(status.st_mode):
                yield _facts_of(name, status)

    @staticmethod
    def _is_object_name(base: str, name: str) -> bool:
        if name.startswith(durable.TEMPORARY) or (not base and name in _NOT_OBJECTS):
            return False
        return name.isascii() and name.isprintable()

    def _upload_directories(self) -> list[Path]:
        try:
            names = os.listdir(self.root / UPLOADS)
        except FileNotFoundError:
            return []
        return [self.root / UPLOADS / name for name in sorted(names) if _UPLOAD_ID.fullmatch(name)]

    @staticmethod
    def _remove_upload(directory: Path) -> None:
        """INVARIANT: without its `key` it is none any more. That goes first: another writer that is at the same upload
        must never take parts that are gone for parts that were not sent. What cannot be removed is left over.
        """
        with contextlib.suppress(LocalStateError):
            durable.remove("upload-key", directory / "key")
        durable.remove_tree("upload", directory)

    def _upload(self, key: str, upload_id: str) -> Path:
        self._path(key)
        self._require_root()
        directory = self.root / UPLOADS / upload_id
        with self._door(f"look at the upload of {key}"), contextlib.suppress(FileNotFoundError):
            if _UPLOAD_ID.fullmatch(upload_id) and (directory / "key").read_bytes() == key.encode("ascii"):
                return directory
        self._require_root()
        raise ObjectMissing(f"No upload {upload_id} of {key} in {self.url}.")

    @staticmethod
    def _held_part(key: str, directory: Path, number: int) -> Part:
        fd = os.open(directory / f"{number:05d}", _READ_FLAGS)
        try:
            size = os.fstat(fd).st_size - _CRC_BYTES
            if size < 0:
                raise Corrupt(f"part {number} is too short", address=key)
            return _part(number, size, int.from_bytes(_read_exactly(key, fd, size, _CRC_BYTES)))
        finally:
            os.close(fd)

    @staticmethod
    def _assemble(directory: Path, path: Path, parts: Sequence[Part]) -> None:
        growing = durable.GrowingFile("object", path)
        try:
            for part in parts:
                fd = os.open(directory / f"{part.number:05d}", _READ_FLAGS)
                try:
                    growing.append_from(fd, part.size)
                finally:
                    os.close(fd)
            growing.finish()
        except BaseException:
            growing.abandon()
            raise


def _copy(source: Path, target: Path, size: int) -> None:
    growing = durable.GrowingFile("object", target)
    try:
        with source.open("rb", buffering=0) as file:
            growing.append_from(file.fileno(), size)
        growing.finish()
    except BaseException:
        growing.abandon()
        raise


def _part(number: int, size: int, crc64: int) -> Part:
    return Part(number=number, size=size, etag=f"{crc64:016x}-{size}", crc64=crc64)


def _facts_of(key: str, status: os.stat_result) -> ObjectFacts:
    return ObjectFacts(key=key, size=status.st_size, modified=datetime.fromtimestamp(status.st_mtime, UTC))


def _check_sum(key: str, data: bytes | memoryview, crc64: int) -> None:
    if crc64_of(data) != crc64:
        raise Corrupt("the bytes to be stored do not have the checksum given with them", address=key)


def _read_exactly(key: str, fd: int, start: int, length: int) -> bytes:
    pieces = []
    while length:
        piece = os.pread(fd, length, start)
        if not piece:
            raise Corrupt("became shorter while it was read", address=key)
        pieces.append(piece)
        start += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _age_of(path: Path) -> float:
    """The time of last change; a thing that is gone is as young as can be."""
    try:
        return os.stat(path, follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return float("inf")


def _classified(error: OSError, what: str) -> StoreError:
    """Which of the port's errors an error of the file system is."""
    text = f"Cannot {what}: {os.strerror(error.errno) if error.errno else error}."
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return StoreRefused(
                text,
                meaning="Nothing that was reported as done is lost; this object was not stored.",
                advice="Free or add space there and run the command again.",
            )
        case errno.EPERM | errno.EOPNOTSUPP | errno.ENOSYS | errno.EMLINK if error.filename2 is not None:
            return StoreRefused(
                text,
                meaning="This file system has no hard links, so an object cannot be created only if it is absent.",
                advice="Use a file system with hard links (ext4, XFS, btrfs, NFS).",
            )
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return StoreDenied(text, advice="Check owner, permissions and mount options.")
        case errno.ENOTDIR | errno.EISDIR | errno.ENAMETOOLONG | errno.ELOOP | errno.EINVAL:
            return StoreRefused(text, meaning="The name cannot be stored there.")
        case _:
            return StoreUnreachable(text, advice="Check the disk, the mount or the network share.")
