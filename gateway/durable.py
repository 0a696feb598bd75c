"""Every durable local effect on files, by name.

Nothing else in the gateway creates, renames, links or removes files (`tests/unit/test_house.py` enforces it), so
this module is also the list of local crash points: each effect calls `effect(name)` before and after it happens,
and a test may install a hook there that kills the process.

Names are ``<what>:<effect>``, for example ``entry:rename``. `what` is given by the caller and says which thing of
the product is written.

CRASH: a file under its final name is whole and on disk, or it is not there; what may be left over are files whose
names start with `TEMPORARY`, which `sweep_temporary` removes when their owner starts.

LIMIT: after a failed fsync the kernel marks pages clean, so the error is final: the caller must stop and read again
from a good copy; fsync is never tried a second time.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from gateway.errors import LocalStateError, LockHeld

TEMPORARY = ".tmp-"
# copy_file_range(2) between these two files is not possible; plain reads and writes are.
_NOT_BY_THE_KERNEL = frozenset({errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM})
# link(2) cannot give a file a second name there; a copy can be made.
_NO_LINK = frozenset({errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EMLINK})

WRITEBACK_BYTES = 8 * 1024 * 1024
"""So much is given to the disk at a time while a file grows, so that the fsync at its end finds most of it done."""

Hook = Callable[[str, str], None]
_hook: Hook | None = None


def install_hook(hook: Hook | None) -> None:
    """Call `hook(moment, name)` with moment "before" or "after" around every effect. For crash tests only."""
    global _hook
    _hook = hook


@contextlib.contextmanager
def effect(name: str) -> Iterator[None]:
    """Mark a durable effect: a crash point before it and one after it."""
    if _hook is not None:
        _hook("before", name)
    yield
    if _hook is not None:
        _hook("after", name)


@contextlib.contextmanager
def _translated(path: Path | str) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise  # a definite answer of `link_new`, for its caller
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LocalStateError(
                f"No space left while writing {path}.",
                meaning="Nothing that was reported as done is lost; this step was not done.",
                advice="Free or add disk space there and run the command again.",
            ) from error
        raise LocalStateError(
            f"Cannot write {path}: {error.strerror or error}.",
            meaning="This step was not done.",
            advice="Check the disk, the mount and the permissions, then run the command again.",
        ) from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around effects by descriptor in a directory of the gateway's own: a disk that fails is `LocalStateError`."""
    with _translated(path):
        yield


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Around reads of a file of the gateway's own: a disk that fails is `LocalStateError`."""
    try:
        yield
    except OSError as error:
        raise LocalStateError(
            f"Cannot read {path}: {error.strerror or error}.",
            meaning="This step was not done; what is in the store is not affected.",
            advice="Check the disk and the mount, then run the command again.",
        ) from error


def open_file(path: Path) -> FileIO:
    """A file of the gateway's own, for reading under `reading`. `LocalStateError`."""
    with reading(path):
        return path.open("rb", buffering=0)


def read_file(path: Path) -> bytes:
    """All of a file of the gateway's own. `LocalStateError`."""
    with reading(path):
        return path.read_bytes()


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(what: str, path: Path, mode: int = 0o700) -> None:
    """Create a directory and its parents where missing, durably."""
    if path.is_dir():
        return
    missing = [path]
    while not missing[-1].parent.is_dir():
        missing.append(missing[-1].parent)
    with _translated(path), effect(f"{what}:mkdir"):
        for each in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(each, mode)
            sync_directory(each.parent)


def temporary_name(final: Path) -> Path:
    """Where the bytes of `final` are gathered: the same directory, a name that marks it as unfinished."""
    return final.with_name(f"{TEMPORARY}{final.name}-{os.getpid()}-{threading.get_ident()}")


def write_file(what: str, path: Path, data: bytes | memoryview, *, mode: int = 0o600, replace: bool = True) -> None:
    """Write a whole file: temp, fsync, rename (or link, when `replace` is False), fsync of the directory.

    With ``replace=False`` an existing file raises `FileExistsError` and is untouched; the check and the creation are
    one atomic step.
    """
    temporary = temporary_name(path)
    with _translated(path):
        try:
            with effect(f"{what}:write"):
                fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
                try:
                    view = memoryview(data)
                    while view:
                        view = view[os.write(fd, view) :]
                    os.fsync(fd)
                finally:
                    os.close(fd)
            if replace:
                publish(what, temporary, path)
            else:
                link_new(what, temporary, path)
        except FileExistsError:
            if replace:
                raise
            _remove_quietly(temporary)
            raise
        except BaseException:
            _remove_quietly(temporary)
            raise


def publish(what: str, temporary: Path, final: Path) -> None:
    """Give an already fsynced file its final name, replacing what was there."""
    with _translated(final), effect(f"{what}:rename"):
        os.rename(temporary, final)
        sync_directory(final.parent)


def link_new(what: str, temporary: Path, final: Path) -> None:
    """Give an already fsynced file its final name only if that name is free; the temporary name goes away.

    `FileExistsError`: it was taken; the temporary file stays for the caller. A name that is taken by this very
    file is ours: over NFS a repeated request reports its own first try as "exists" (link(2), BUGS).
    """
    with effect(f"{what}:link"):
        try:
            os.link(temporary, final)
        except FileExistsError:
            if not os.path.samefile(temporary, final):
                raise
        os.unlink(temporary)
        sync_directory(final.parent)


def share_file(what: str, source: Path, final: Path, size: int) -> bool:
    """Give a whole, fsynced file of `size` bytes one more name, replacing what was there; nothing is copied.

    False where that is not to be had: another file system, one without hard links, another size. Only for files that
    nobody ever changes in place.
    """
    temporary = temporary_name(final)
    with _translated(final):
        if os.stat(source, follow_symlinks=False).st_size != size:
            return False
        with effect(f"{what}:share"):
            _remove_quietly(temporary)
            try:
                os.link(source, temporary, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
                return False
        try:
            publish(what, temporary, final)
        finally:
            _remove_quietly(temporary)  # two names of one file: rename(2) does nothing and leaves both
    return True


class GrowingFile:
    """A file that is written piece by piece under a temporary name and published as a whole.

    Not thread-safe. `abandon` removes it; a crash leaves the temporary name, which `sweep_temporary` removes.
    """

    def __init__(self, what: str, final: Path, *, mode: int = 0o600) -> None:
        self.what = what
        self.final = final
        self.size = 0
        self._begun = 0
        self._temporary = temporary_name(final)
        with _translated(final), effect(f"{what}:create"):
            self._fd = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

    def append(self, data: bytes | bytearray | memoryview) -> None:
        with _translated(self.final):
            view = memoryview(data)
            while view:
                written = os.write(self._fd, view)
                view = view[written:]
                self.size += written
        if self.size - self._begun >= WRITEBACK_BYTES:
            begin_writeback(self._fd, self._begun, self.size - self._begun)
            self._begun = self.size

    def append_from(self, fd: int, length: int) -> None:
        """Append the first `length` bytes of another open file, shared instead of copied where the disk can."""
        done = 0
        with _translated(self.final):
            while done < length:
                try:
                    count = os.copy_file_range(fd, self._fd, length - done, done, self.size)
                except OSError as error:
                    if error.errno not in _NOT_BY_THE_KERNEL:
                        raise
                    count = 0
                if count == 0:
                    break
                done += count
                self.size += count
            os.lseek(self._fd, self.size, os.SEEK_SET)  # copy_file_range with an offset leaves the position alone
            while done < length:
                piece = os.pread(fd, min(length - done, 1 << 20), done)
                if not piece:
                    raise OSError(errno.EIO, "the file ends too early")
                self.append(piece)
                done += len(piece)

    def read(self, start: int, length: int) -> bytes:
        return os.pread(self._fd, length, start)

    def finish(self) -> None:
        """fsync and publish under the final name."""
        with _translated(self.final), effect(f"{self.what}:fsync"):
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1
        publish(self.what, self._temporary, self.final)

    def abandon(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        _remove_quietly(self._temporary)


def unnamed_file(directory: int | Path) -> int:
    """A descriptor of a new file that has no name and is gone when it is closed: no crash point, nothing left over.

    `directory` (a path or a descriptor) says on which file system it lies. Raises `OSError` where the file system
    cannot do that.
    """
    flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
    if isinstance(directory, int):
        return os.open(b".", flags, 0o600, dir_fd=directory)
    return os.open(directory, flags, 0o600)


class ScratchFile:
    """Bytes that need not outlive this process but may be more than memory should hold: a file without a name.

    First written, then read. Not thread-safe. Nothing is left over, so there is no crash point (but where a file
    system knows no unnamed files, a name in `TEMPORARY` for a moment).
    """

    def __init__(self, directory: Path) -> None:
        self._where = directory
        with _translated(directory):
            try:
                fd = unnamed_file(directory)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                    raise
                name = temporary_name(directory / "scratch")
                fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                os.unlink(name)
            self._file = os.fdopen(fd, "w+b", buffering=1 << 18)
        self.size = 0

    def append(self, data: bytes) -> None:
        with _translated(self._where):
            self._file.write(data)
        self.size += len(data)

    def seek(self, position: int) -> None:
        with _translated(self._where):
            self._file.seek(position)

    def read(self, length: int) -> bytes:
        """The next bytes after `seek`; fewer only at the end."""
        with _translated(self._where):
            return self._file.read(length)

    def close(self) -> None:
        # What could not be written is of no use to anybody now.
        with contextlib.suppress(OSError):
            self._file.close()


def remove(what: str, path: Path) -> None:
    """Remove a file durably; one that is not there is no error."""
    with _translated(path), effect(f"{what}:unlink"):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        sync_directory(path.parent)


# --- effects in a foreign tree -----------------------------------------------------------------------------------
#
# What a restore target does, by descriptor of the directory (also an O_PATH one) and one component as name, so that
# no symlink can lead elsewhere. They raise `OSError` as it is: what it means for a target, the target says. Nothing
# here is on disk before `sync_file_systems` or `sync_file`.

_libc = ctypes.CDLL(None, use_errno=True)
_RENAME_NOREPLACE = 1  # linux/fs.h


def create_at(what: str, directory: int, name: bytes, mode: int = 0o600) -> int:
    """A descriptor of a new, empty file; `FileExistsError` when the name is taken by anything at all."""
    with effect(f"{what}:create"):
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=directory)


def open_at(directory: int, name: bytes) -> int:
    """A file made by `create_at`, once more, for writing."""
    return os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)


def resize(fd: int, size: int) -> None:
    """Give a file its size; what was never written is a hole."""
    os.ftruncate(fd, size)


def write_at(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`; may be called by several threads."""
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def begin_writeback(fd: int, offset: int, length: int) -> None:
    """Let the disk begin with what was written there, so that the sync to come finds most of it done.

    A hint, never an error: on Linux this advice starts the writing of dirty pages and returns at once. It drops what is
    clean already, which is nobody's loss so soon after it was written.
    """
    with contextlib.suppress(OSError):
        os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


def make_directory_at(what: str, directory: int, name: bytes, mode: int = 0o700) -> None:
    with effect(f"{what}:mkdir"):
        os.mkdir(name, mode, dir_fd=directory)


def symlink_at(what: str, directory: int, name: bytes, target: bytes) -> None:
    with effect(f"{what}:symlink"):
        os.symlink(target, name, dir_fd=directory)


def fifo_at(what: str, directory: int, name: bytes) -> None:
    with effect(f"{what}:mkfifo"):
        os.mkfifo(name, 0o600, dir_fd=directory)


def link_at(what: str, first_directory: int, first: bytes, directory: int, name: bytes) -> None:
    """One more name for a file; a symlink is linked itself, never what it points to."""
    with effect(f"{what}:link"):
        os.link(first, name, src_dir_fd=first_directory, dst_dir_fd=directory, follow_symlinks=False)


def publish_at(what: str, directory: int, temporary: bytes, final: bytes, *, replace: bool) -> None:
    """Give a finished thing its final name in the same directory.

    With ``replace=False`` a taken name raises `FileExistsError`, in one atomic step with the renaming (LIMIT: on file
    systems that know neither RENAME_NOREPLACE nor hard links, FAT for one, the check comes just before).
    """
    with effect(f"{what}:rename"):
        if replace:
            os.rename(temporary, final, src_dir_fd=directory, dst_dir_fd=directory)
            # Two names of one file: rename(2) then does nothing and leaves both.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
            return
        if _libc.renameat2(directory, temporary, directory, final, _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise OSError(number, os.strerror(number), final)
        try:
            os.link(temporary, final, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            with contextlib.suppress(FileNotFoundError):
                os.stat(final, dir_fd=directory, follow_symlinks=False)
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), final) from None
            os.rename(temporary, final, src_dir_fd=directory, dst_dir_fd=directory)
        else:
            os.unlink(temporary, dir_fd=directory)


def move_at(what: str, first_directory: int, first: bytes, directory: int, name: bytes) -> None:
    """Move a thing to another directory of the same file system; a taken name raises `FileExistsError`.

    LIMIT: where the file system knows no RENAME_NOREPLACE, the check comes just before.
    """
    with effect(f"{what}:move"):
        if _libc.renameat2(first_directory, first, directory, name, _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise OSError(number, os.strerror(number), name)
        with contextlib.suppress(FileNotFoundError):
            os.stat(name, dir_fd=directory, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        os.rename(first, name, src_dir_fd=first_directory, dst_dir_fd=directory)


def remove_at(what: str, directory: int, name: bytes) -> None:
    """Remove one of our own temporary names; one that is not there is no error."""
    with effect(f"{what}:unlink"), contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def sync_file(what: str, fd: int) -> None:
    with effect(f"{what}:fsync"):
        os.fsync(fd)


def sync_file_system(what: str, fd: int) -> None:
    """Everything written so far on the file system of `fd` (no O_PATH descriptor) is on disk; errors included."""
    with effect(f"{what}:syncfs"):
        if _libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def remove_tree(what: str, path: Path) -> None:
    """Remove a directory of the gateway's own (never one of a source or a target) with all that is in it."""
    with effect(f"{what}:rmtree"):
        shutil.rmtree(path, ignore_errors=True)


def sweep_temporary(what: str, root: Path, *, below: bool = True) -> int:
    """Remove left-over temporary files in `root` and `below` it; returns how many. For the owner of `root` only."""
    count = 0
    for directory, _, names in os.walk(root):
        for name in names:
            if name.startswith(TEMPORARY):
                remove(what, Path(directory) / name)
                count += 1
        if not below:
            break
    return count


def _remove_quietly(path: Path) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


class StateLock:
    """The exclusive lock on `state.dir`, or another one below it, held as long as the process lives or until
    `release`."""

    def __init__(self, directory: Path, name: str = "lock") -> None:
        make_directory("state", directory)
        path = directory / name
        with _translated(path):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._fd, 64, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise LockHeld(
                f"Another gateway process ({holder}) works on {directory if name == 'lock' else path.stem}.",
                meaning="Only one process may change the repository's local state at a time.",
                advice="Wait for it to end, or stop it, and run the command again.",
            ) from error
        # Only for the message above: a full disk must not keep anybody from restoring.
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"pid {os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._fd)
