"""Hands out open readers of spool files whose bytes cannot change unnoticed.

Three ways, the best that the file system and the rights allow (`Pinned.by`):

* ``clone``: a reflink copy (FICLONE; XFS, btrfs) in an unnamed file of the same directory. The producer may
  rewrite or delete the file at once; what is read stays what it was. No name is ever left over, not even by a
  power cut.
* ``lease``: the kernel's read lease is held while the file is read. A writer that opens the file is held back
  until the lease is given up, which happens within `WATCH_SECONDS`; the version is then given up too.
* ``identity``: neither is possible (NFS; not the owner and no CAP_LEASE): device, inode, size, mtime and
  ctime before and after. That does not see a program which still has the file open and has not written its
  last byte, so the evidence of such a version is at most 1 (`Pinned.evidence_limit`).

Asking for a lease is also the probe for writers: the kernel refuses it while anybody has the file open for
writing, mapped writable (also after close), or has an exclusive oplock on it (Samba). The probe can only
*veto*: over NFS nobody has a file open on this machine.

Signals: the kernel tells the holder of a lease that it is being broken by a signal, SIGIO by default, whose
default action is to kill the process. `F_SETSIG` makes it SIGURG, whose default action is to be ignored, so
that a pin works in any thread and no handler is needed. The state of the lease is polled instead: around
every read, and by one thread that lives while leases are held.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import signal
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Literal

from gateway import durable
from gateway.errors import LocalStateError, SourceError
from gateway.model.entry import EntryType, Evidence, Identity, LeftOut, LeftOutReason
from gateway.spool.metadata import Xattrs, read_xattrs
from gateway.spool.walk import SpoolEntry, open_below, open_root

WATCH_SECONDS = 0.25
"""LIMIT: how long a writer may be held back by our lease. The kernel's own bound is 45 s (lease-break-time);
an SMB client begins to complain after some seconds."""

CLONE_FROM_BYTES = 1024 * 1024
"""Smaller files are read under the lease even where a clone is possible: creating and dropping an inode costs
more than reading them, and a collision with a writer costs one more try."""

_FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)

PinnedBy = Literal["clone", "lease", "identity"]


class NotPinned(SourceError):
    """This version of the file cannot be read to its end; `left_out` says which path and why."""

    reason: ClassVar[LeftOutReason]

    def __init__(self, path: bytes, detail: str) -> None:
        super().__init__(f"{os.fsdecode(path)!r}: {detail}")
        self.left_out = LeftOut(path=path, reason=self.reason, detail=detail)


class Changed(NotPinned):
    """It is no longer what was seen, or stopped being so while it was read: look again later."""

    reason = LeftOutReason.CHANGED


class HasWriter(NotPinned):
    """Somebody has it open for writing."""

    reason = LeftOutReason.WRITER


class Unreadable(NotPinned):
    """No right to read it, or the disk cannot."""

    reason = LeftOutReason.UNREADABLE


class Vanished(NotPinned):
    reason = LeftOutReason.VANISHED


class _LeaseWatch:
    """Gives up leases that are being broken, also while nobody reads.

    The thread starts with the first lease and ends by itself a second after the last; it owns nothing, so a program
    that ends does not wait for it.
    """

    _IDLE_ROUNDS = 4

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pins: set[Pinned] = set()
        self._running = False
        self._pause = threading.Event()

    def add(self, pin: Pinned) -> None:
        with self._lock:
            self._pins.add(pin)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="lease-watch", daemon=True).start()

    def discard(self, pin: Pinned) -> None:
        with self._lock:
            self._pins.discard(pin)

    def _run(self) -> None:
        idle = 0
        while True:
            self._pause.wait(WATCH_SECONDS)
            with self._lock:
                pins = list(self._pins)
                idle = 0 if pins else idle + 1
                if idle >= self._IDLE_ROUNDS:
                    self._running = False
                    return
            for pin in pins:
                pin.lease_holds()


_watch = _LeaseWatch()


class Pinned:
    """An open, pinned file, made by `pin`. A context manager; its reading methods are thread-safe."""

    def __init__(self, entry: SpoolEntry, fd: int, by: PinnedBy, xattrs: Xattrs, *, no_writer: bool) -> None:
        self.entry = entry
        self.by = by
        self.xattrs = xattrs
        self.no_writer = no_writer
        """Whether the kernel said that nobody had the file open for writing when it was pinned."""
        self._fd = fd
        self._lease_lock = threading.Lock()
        self._leased = by == "lease"
        self._broken = False
        if self._leased:
            _watch.add(self)

    @property
    def evidence_limit(self) -> Evidence:
        """The highest evidence a version read this way may claim."""
        return Evidence.QUIET if self.by == "identity" else Evidence.SEAL

    @property
    def size(self) -> int:
        return self.entry.identity.size

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset`; returns the bytes read, fewer only at the end of the file.

        `Changed` when the lease is lost, `Unreadable` when the disk fails. Bytes that were read are those of
        the pinned version only if a `check` afterwards says nothing.
        """
        done = 0
        try:
            while done < len(buffer):
                count = os.preadv(self._fd, [buffer[done:]], offset + done)
                if count == 0:
                    break
                done += count
        except OSError as error:
            raise Unreadable(self.entry.path, f"{error.strerror or error} at byte {offset + done}.") from error
        self._require_lease()
        return done

    def data_ranges(self) -> Iterator[tuple[int, int]]:
        """The (offset, length) of everything that is not a hole, ascending, never touching one another.

        What lies outside is zeros and need not be read, up to the file's size. A file system that knows no
        holes has one range; an empty file has none.
        """
        size, position, start, end = self.size, 0, 0, 0
        while position < size:
            try:
                data = os.lseek(self._fd, position, os.SEEK_DATA)
                hole = os.lseek(self._fd, data, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break
                if error.errno in (errno.EINVAL, errno.ENOTSUP):
                    data, hole = position, size
                else:
                    raise Unreadable(self.entry.path, f"{error.strerror or error}.") from error
            if data > end:
                if end > start:
                    yield start, end - start
                start = data
            end = position = min(hole, size)
            if data >= size:
                return
        if end > start:
            yield start, end - start

    def check(self) -> None:
        """`Changed` when what was read so far may not be one version. To be called after the last byte."""
        self._require_lease()
        if self.by == "clone":
            return
        found, seen = Identity.of(os.fstat(self._fd)), self.entry.identity
        if self.by == "lease":
            # Under an unbroken lease nobody could write: what moved ctime alone was its name, its mode or its owner. So
            # a file that is deleted or replaced while it is read is rescued.
            found = dataclasses.replace(found, ctime_ns=seen.ctime_ns)
        if found != seen:
            raise Changed(self.entry.path, "It changed while it was read.")

    def drop_behind(self, offset: int, length: int) -> None:
        """Let the kernel forget these bytes: a backup must not push out everybody's cache."""
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)

    def lease_holds(self) -> bool:
        """Whether the lease is unbroken; one being broken is given up, so that the writer can go on."""
        with self._lease_lock:
            if self._leased and fcntl.fcntl(self._fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
                self._broken = True
                self._leased = False
                _release(self._fd)
            broken = self._broken
        if broken:
            _watch.discard(self)
        return not broken

    def close(self) -> None:
        _watch.discard(self)
        with self._lease_lock:
            if self._fd < 0:
                return
            if self._leased:
                self._leased = False
                _release(self._fd)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Pinned:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_lease(self) -> None:
        if (self._leased or self._broken) and not self.lease_holds():
            raise Changed(self.entry.path, "Somebody opened it for writing while it was read.")


class Parents:
    """Descriptors of the directories that files were last opened in, so that a file costs one open and not one for
    each directory above it. Thread-safe; closed by its owner.

    A directory that is moved away meanwhile is still found here: what is opened in it is compared with what was seen.
    """

    def __init__(self, root: Path) -> None:
        self._root = open_root(root)
        self._lock = threading.Lock()
        self._found: OrderedDict[bytes, int] = OrderedDict()

    def open(self, directory: bytes, name: bytes, flags: int) -> int:
        """A descriptor of an entry. Raises `OSError`."""
        with self._lock:
            return os.open(name, flags, dir_fd=self._parent(directory))

    def unnamed_file(self, directory: bytes) -> int:
        """A new file without a name on the directory's file system. Raises `OSError`."""
        with self._lock:
            return durable.unnamed_file(self._parent(directory))

    def _parent(self, directory: bytes) -> int:
        parent = self._found.get(directory, -1)
        if parent < 0:
            parent = open_below(self._root, directory)
            self._found[directory] = parent
            while len(self._found) > HELD_PARENTS:
                os.close(self._found.popitem(last=False)[1])
        self._found.move_to_end(directory)
        return parent

    def close(self) -> None:
        with self._lock:
            for fd in (*self._found.values(), self._root):
                os.close(fd)
            self._found.clear()


HELD_PARENTS = 16
"""LIMIT: directories that a pass keeps open: those that its workers are in."""


def pin(root: Path, entry: SpoolEntry, *, clone: bool = True, parents: Parents | None = None) -> Pinned:
    """Open a regular file so that it can be read as one version, the one that `entry` describes.

    `parents`: of this root; for who pins many. Without `clone` the file itself is held, by a lease where one can be
    had: for who is about to remove it.

    Raises a `NotPinned`: `Changed`, `HasWriter`, `Vanished` or `Unreadable`; nothing is left open or behind
    then.
    """
    if entry.type is not EntryType.FILE:
        raise ValueError("only regular files have bytes to pin")
    directory, _, name = entry.path.rpartition(b"/")
    with contextlib.ExitStack() as stack:
        if parents is None:
            parents = Parents(root)
            stack.callback(parents.close)
        try:
            # O_NONBLOCK: a FIFO put in its place must not hang us, nor must the breaking of a foreign lease.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            source = parents.open(directory, name, flags)
        except OSError as error:
            raise _not_opened(entry.path, error) from error
        with contextlib.ExitStack() as opened:
            opened.callback(os.close, source)
            pinned = _pin_open(entry, source, parents if clone else None, directory)
            opened.pop_all()
        if pinned.by == "clone":
            os.close(source)
        return pinned


def _pin_open(entry: SpoolEntry, source: int, parents: Parents | None, directory: bytes) -> Pinned:
    _require_identity(entry, source)
    leased = _take_lease(entry.path, source)
    clone = -1
    try:
        # Now that no writer can come (or with no lease: before and after), what is seen is what is pinned.
        _require_identity(entry, source)
        if parents is not None and (entry.identity.size >= CLONE_FROM_BYTES or not leased):
            clone = _clone(source, parents, directory)
        xattrs = read_xattrs(source, entry.path)
        _require_identity(entry, source)
        by: PinnedBy = "clone" if clone >= 0 else "lease" if leased else "identity"
        if clone >= 0 and leased:
            _release(source)
        fd = clone if clone >= 0 else source
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return Pinned(entry, fd, by, xattrs, no_writer=leased)
    except BaseException as error:
        if clone >= 0:
            os.close(clone)
        if isinstance(error, OSError):
            raise Unreadable(entry.path, f"{error.strerror or error}.") from error
        raise


def _require_identity(entry: SpoolEntry, fd: int) -> None:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or Identity.of(status) != entry.identity:
        raise Changed(entry.path, "It is not the version that was seen.")


def _take_lease(path: bytes, fd: int) -> bool:
    """Whether the lease was given; `HasWriter` when somebody has the file open for writing."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EBUSY):
            raise HasWriter(path, "Somebody has it open for writing.") from error
        # EACCES: not the owner and no CAP_LEASE. EINVAL, ENOLCK, ENOTSUP, ...: the file system knows no
        # leases.
        return False
    return True


def _release(fd: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _clone(source: int, parents: Parents, directory: bytes) -> int:
    """A reflink copy in an unnamed file, or -1 where that is not possible, for whatever reason."""
    try:
        fd = parents.unnamed_file(directory)
    except OSError:
        return -1
    try:
        fcntl.ioctl(fd, _FICLONE, source)
    except OSError:
        os.close(fd)
        return -1
    return fd


def _not_opened(path: bytes, error: OSError) -> NotPinned:
    """What an error says about the file. One that is about this process is raised: no file is to blame for it."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise LocalStateError(
            f"The gateway cannot open any more files: {error.strerror}.",
            meaning="This pass was given up; nothing that was committed is lost.",
            advice="Raise the limit of open files (LimitNOFILE) or the machine's memory, and run it again.",
        ) from error
    if error.errno == errno.ENOENT:
        return Vanished(path, "It is gone.")
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENODEV):
        return Changed(path, "Something else was put in its place.")
    if error.errno in (errno.EWOULDBLOCK, errno.ETXTBSY):
        return HasWriter(path, "Another program has it open exclusively.")
    return Unreadable(path, f"{error.strerror or error}.")
