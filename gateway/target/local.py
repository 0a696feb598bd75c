"""Restores into a local directory.

A file is gathered under a temporary name in its own directory, gets its metadata there, and is queued. A *batch* is
made durable as a whole: one syncfs for the bytes, the renames, one syncfs for the names; then its entries are
delivered. `docs/design/target.md` says why.

CRASH: a name of the list stands for a whole file with its metadata, or is not there. What else may be there are
``.tmp-gateway-...`` names, which the next restore of the same entries removes, and directories that are still the
owner's alone, because directories get their metadata last; a rerun with overwriting sets it.

`_lock` guards the tree, the batch and the counts; it is not held while a sink's bytes are written. Order of locks: the
open files' first, then `_lock`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from gateway import durable
from gateway.clock import Clock
from gateway.errors import Corrupt, LocalStateError, TargetError
from gateway.model.entry import EntryType, RestoreEntry
from gateway.target.later import Later
from gateway.target.metadata import Owners, apply, same_time
from gateway.target.port import Delivered, NotRestored, NotRestoredReason, Property, TargetReport, Unset
from gateway.target.sink import LocalSink, OpenFiles
from gateway.target.tree import TEMPORARY, Tree, is_reserved, split, temporary_name

BATCH_ENTRIES = 1_000
BATCH_BYTES = 1 << 30
ALONE_BYTES = 64 << 20
"""LIMIT: larger files are fsynced when they are finished, so that the syncfs of a batch stays short. An fsync costs
3.2 ms (measured): nothing against writing 64 MiB, much against writing 64 KiB."""

OPEN_FILES = 256
REPORTED = 1_000
"""LIMIT: so many left-out entries and unset properties are named in the report; all are counted."""

_COPY_BYTES = 1 << 20

# What stops everything, not just one entry.
_FATAL = {
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE,
    errno.ENODEV, errno.ENXIO,
}  # fmt: skip
_IN_THE_WAY = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENOTEMPTY}
_NO_LINKS = {errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EACCES}


class _LeftOut(Exception):
    def __init__(self, reason: NotRestoredReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class _Delivered(Exception):
    """An earlier run of this restore did it."""


@dataclass(frozen=True, slots=True)
class _Queued:
    entry: RestoreEntry
    directory: bytes
    name: bytes
    delivered: Delivered | None = None
    is_link: bool = False


class LocalTarget:
    """See `gateway.target.port.RestoreTarget`. A context manager: left without `finish`, it abandons.

    `TargetError` at once when the directory cannot be made or written, or another restore writes into it. Owners are
    set by name where this machine knows the name, unless `numeric_owner`.
    """

    def __init__(
        self,
        root: Path,
        *,
        overwrite: bool,
        clock: Clock,
        numeric_owner: bool = False,
        again: bool = False,
        own_directories: bool = False,
    ) -> None:
        """`again`: an earlier run of the same restore was cut off; what is already there as it must be, it delivered.
        `own_directories`: all below `root` is the restore's, so directories that exist get their metadata, too.
        """
        self._again = again
        self._own_directories = own_directories
        self._path = root
        self._overwrite = overwrite
        self._clock = clock
        self._began = clock.now()
        self._owners = Owners(numeric=numeric_owner)
        self._lock = threading.Lock()
        self._queue: list[_Queued] = []
        self._queued_bytes = 0
        self._sinks: set[LocalSink] = set()
        self._busy: set[bytes] = set()  # paths of sinks and of what is queued
        self._delivered: Counter[EntryType] = Counter()
        self._bytes = 0
        self._links = 0
        self._left_out: list[NotRestored] = []
        self._left_out_counts: Counter[NotRestoredReason] = Counter()
        self._unset: list[Unset] = []
        self._unset_counts: Counter[Property] = Counter()
        self._closed = False
        with contextlib.ExitStack() as stack:
            self._root = _open_root(root)
            stack.callback(os.close, self._root)
            try:
                self._later_directories = Later(root)
                stack.callback(self._later_directories.close)
                self._later_links = Later(root)
            except LocalStateError as error:
                raise _unwritable(root, str(error.__cause__)) from error
            stack.pop_all()
        self._devices = {os.fstat(self._root).st_dev: self._root}
        self._tree = Tree(self._root)
        self._files = OpenFiles(OPEN_FILES, self.reopen)

    # --- entries ------------------------------------------------------------------------------------------------------

    def add_directory(self, entry: RestoreEntry) -> None:
        directory, name = split(entry.path)
        with self._lock, self._one(entry):
            _refuse_reserved(entry.path)
            parent = self._directory(directory)
            new = entry.path in self._tree.implied
            try:
                durable.make_directory_at("target", parent, name)
                new = True
            except FileExistsError:
                self._tree.directory(entry.path, make=False)
            self._tree.implied.discard(entry.path)
            self._delivered[EntryType.DIRECTORY] += 1
            if new or self._overwrite or self._own_directories:
                self._later_directories.add(entry)

    def open_file(self, entry: RestoreEntry) -> LocalSink | None:
        directory, name = split(entry.path)
        sink: LocalSink | None = None
        fd = -1
        with self._lock, self._one(entry):
            parent = self._place(entry, directory, name)
            temporary = temporary_name(name)
            fd = _create(parent, temporary)
            try:
                durable.resize(fd, entry.size)
            except BaseException:
                os.close(fd)
                durable.remove_at("target", parent, temporary)
                raise
            status = os.fstat(fd)
            sink = LocalSink(self, self._files, entry, directory, temporary, (status.st_dev, status.st_ino))
            self._sinks.add(sink)
            self._busy.add(entry.path)
        if sink is not None:
            self._files.add(sink, fd)
        return sink

    def add_symlink(self, entry: RestoreEntry) -> None:
        directory, name = split(entry.path)
        if b"\0" in entry.target:
            raise Corrupt(f"the file list has a symlink with a NUL in its target: {entry.path!r}")
        with self._lock, self._one(entry):
            parent = self._place(entry, directory, name)
            temporary = temporary_name(name)
            durable.remove_at("target", parent, temporary)
            durable.symlink_at("target", parent, temporary, entry.target)
            self._finish_special(parent, entry, directory, name)
        self._flush_if_full()

    def add_special(self, entry: RestoreEntry) -> None:
        directory, name = split(entry.path)
        with self._lock, self._one(entry):
            if entry.type is not EntryType.FIFO:
                raise _LeftOut(NotRestoredReason.SPECIAL, _special(entry))
            parent = self._place(entry, directory, name)
            temporary = temporary_name(name)
            durable.remove_at("target", parent, temporary)
            durable.fifo_at("target", parent, temporary)
            self._finish_special(parent, entry, directory, name)
        self._flush_if_full()

    def add_hardlink(self, entry: RestoreEntry) -> None:
        split(entry.path)
        split(entry.hardlink)
        with self._lock, self._one(entry):
            self._later_links.add(entry)

    # --- sinks --------------------------------------------------------------------------------------------------------

    def reopen(self, sink: LocalSink) -> int:
        with self._lock:
            fd = durable.open_at(self._tree.directory(sink.directory, make=False), sink.temporary)
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != sink.inode:
            os.close(fd)
            raise OSError(errno.ESTALE, "another file was put in its place")
        return fd

    def finish_sink(self, sink: LocalSink, delivered: Delivered | None) -> None:
        with self.translated(sink.entry.path), self._files.borrowed(sink) as fd:
            unset = apply(fd, sink.entry, self._owners)
            if sink.entry.size > ALONE_BYTES:
                durable.sync_file("target", fd)
        self._files.close(sink)
        directory, name = split(sink.entry.path)
        with self._lock:
            self._sinks.discard(sink)
            self._record_unset(unset)
            self._enqueue(_Queued(sink.entry, directory, name, delivered))
        self._flush_if_full()

    def discard_sink(self, sink: LocalSink, detail: str) -> None:
        self._files.close(sink)
        with self._lock, self._one(sink.entry):
            self._sinks.discard(sink)
            self._busy.discard(sink.entry.path)
            self._record(sink.entry.path, NotRestoredReason.DISCARDED, detail)
            durable.remove_at("target", self._tree.directory(sink.directory, make=False), sink.temporary)

    @contextlib.contextmanager
    def translated(self, path: bytes) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._fatal(path, error) from error

    # --- batches and the end ------------------------------------------------------------------------------------------

    def flush(self) -> None:
        with self._lock:
            batch = self._queue
            if not batch:
                return
            done: list[_Queued] = []
            self._sync()
            for queued in batch:
                with self._one(queued.entry):
                    self._publish(queued)
                    done.append(queued)
            self._sync()
            # Only now: until here `abandon` must find what still has a temporary name.
            self._queue = []
            self._queued_bytes = 0
            self._busy.difference_update(queued.entry.path for queued in batch)
            for queued in done:
                self._count(queued)
        for queued in done:
            if queued.delivered is not None:
                queued.delivered(queued.entry)

    def finish(self) -> TargetReport:
        for sink in list(self._sinks):
            sink.discard("It was never finished.")
        self.flush()
        for entry in self._later_links.forwards():
            self._link(entry)
        self.flush()
        with self._lock:
            for entry in self._later_directories.backwards():
                with self._one(entry):
                    fd = self._tree.directory(entry.path, make=False)
                    self._record_unset(apply(fd, entry, self._owners))
            self._sync()
            report = self._report()
            self._close()
        return report

    def abandon(self) -> None:
        with self._lock:
            sinks, queue, self._queue = list(self._sinks), self._queue, []
            self._sinks.clear()
            if self._closed:
                return
        for sink in sinks:
            self._files.close(sink)
        left = [(sink.directory, sink.temporary) for sink in sinks]
        left += [(queued.directory, temporary_name(queued.name)) for queued in queue]
        with self._lock:
            for directory, temporary in left:
                with contextlib.suppress(OSError):
                    durable.remove_at("target", self._tree.directory(directory, make=False), temporary)
            self._close()

    def __enter__(self) -> LocalTarget:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    # --- with the lock held -------------------------------------------------------------------------------------------

    def _place(self, entry: RestoreEntry, directory: bytes, name: bytes) -> int:
        """The directory for an entry, made where missing; `_LeftOut` when its name is not free for it."""
        _refuse_reserved(entry.path)
        if entry.path in self._busy:
            raise _LeftOut(NotRestoredReason.IN_THE_WAY, "The list names it twice.")
        parent = self._directory(directory)
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return parent
        if self._overwrite and not stat.S_ISDIR(status.st_mode):
            return parent
        with contextlib.suppress(OSError):
            durable.remove_at("target", parent, temporary_name(name))
        if entry.type is EntryType.FILE and _is_same(entry, status):
            if self._again:
                raise _Delivered
            raise _LeftOut(NotRestoredReason.ALREADY_THERE, "A file of the same size and time is there.")
        raise _LeftOut(
            NotRestoredReason.IN_THE_WAY,
            "A directory of that name is there." if stat.S_ISDIR(status.st_mode) else "That name is taken.",
        )

    def _directory(self, path: bytes) -> int:
        fd = self._tree.directory(path)
        device = os.fstat(fd).st_dev
        if device not in self._devices:
            # A volume mounted inside the target has its own syncfs.
            self._devices[device] = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        return fd

    def _finish_special(self, parent: int, entry: RestoreEntry, directory: bytes, name: bytes) -> None:
        self._enqueue(_Queued(entry, directory, name))
        fd = os.open(temporary_name(name), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            self._record_unset(apply(fd, entry, self._owners))
        finally:
            os.close(fd)

    def _enqueue(self, queued: _Queued) -> None:
        self._queue.append(queued)
        self._busy.add(queued.entry.path)
        if queued.entry.type is EntryType.FILE and not queued.is_link:
            self._queued_bytes += queued.entry.size

    def _publish(self, queued: _Queued) -> None:
        parent = self._tree.directory(queued.directory, make=False)
        temporary = temporary_name(queued.name)
        try:
            durable.publish_at("target", parent, temporary, queued.name, replace=self._overwrite)
        except OSError as error:
            if error.errno not in _FATAL:
                durable.remove_at("target", parent, temporary)
            raise

    def _count(self, queued: _Queued) -> None:
        if queued.is_link:
            self._links += 1
            return
        self._delivered[queued.entry.type] += 1
        if queued.entry.type is EntryType.FILE:
            self._bytes += queued.entry.size

    def _sync(self) -> None:
        with self.translated(b""):
            for fd in self._devices.values():
                durable.sync_file_system("target", fd)

    @contextlib.contextmanager
    def _one(self, entry: RestoreEntry) -> Iterator[None]:
        """What goes wrong inside concerns this entry: record it and go on, unless it stops everything."""
        try:
            yield
        except _Delivered:
            self._count(_Queued(entry, b"", b"", is_link=bool(entry.hardlink)))
        except _LeftOut as left_out:
            self._record(entry.path, left_out.reason, left_out.detail)
        except OverflowError:
            self._record(entry.path, NotRestoredReason.REFUSED, "Its size is beyond what a file can have.")
        except LocalStateError as error:
            cause = error.__cause__
            raise self._fatal(b"", cause if isinstance(cause, OSError) else OSError(str(error))) from error
        except OSError as error:
            if error.errno in _FATAL:
                raise self._fatal(entry.path, error) from error
            in_the_way = error.errno in _IN_THE_WAY
            self._record(
                entry.path,
                NotRestoredReason.IN_THE_WAY if in_the_way else NotRestoredReason.REFUSED,
                f"{error.strerror or error}.",
            )

    def _record(self, path: bytes, reason: NotRestoredReason, detail: str) -> None:
        self._left_out_counts[reason] += 1
        if len(self._left_out) < REPORTED:
            self._left_out.append(NotRestored(path=path, reason=reason, detail=detail))

    def _record_unset(self, unset: list[Unset]) -> None:
        for each in unset:
            self._unset_counts[each.what] += 1
            if len(self._unset) < REPORTED:
                self._unset.append(each)

    def _report(self) -> TargetReport:
        return TargetReport(
            began=self._began,
            finished=self._clock.now(),
            files=self._delivered[EntryType.FILE],
            bytes=self._bytes,
            directories=self._delivered[EntryType.DIRECTORY],
            symlinks=self._delivered[EntryType.SYMLINK],
            hardlinks=self._links,
            fifos=self._delivered[EntryType.FIFO],
            left_out_counts=tuple(sorted(self._left_out_counts.items())),
            left_out=tuple(self._left_out),
            unset_counts=tuple(sorted(self._unset_counts.items())),
            unset=tuple(self._unset),
        )

    def _close(self) -> None:
        self._closed = True
        self._tree.close()
        self._later_directories.close()
        self._later_links.close()
        for fd in self._devices.values():
            os.close(fd)

    # --- without the lock ---------------------------------------------------------------------------------------------

    def _flush_if_full(self) -> None:
        with self._lock:
            full = len(self._queue) >= BATCH_ENTRIES or self._queued_bytes >= BATCH_BYTES
        if full:
            self.flush()

    def _link(self, entry: RestoreEntry) -> None:
        """Make a further name of a file that was delivered; copy it where the file system has no hard links."""
        directory, name = split(entry.path)
        copied = -1
        with self._lock, self._one(entry):
            first_directory, first_name = split(entry.hardlink)
            first = self._first(entry, first_directory, first_name)
            try:
                parent = self._place(entry, directory, name)
                temporary = temporary_name(name)
                durable.remove_at("target", parent, temporary)
                try:
                    durable.link_at("target", first, first_name, parent, temporary)
                    self._enqueue(_Queued(entry, directory, name, is_link=True))
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                    copied = os.open(first_name, flags, dir_fd=first)
            finally:
                os.close(first)
        if copied >= 0:
            with contextlib.closing(os.fdopen(copied, "rb", buffering=0)):
                self._copy(copied, entry)
        self._flush_if_full()

    def _first(self, entry: RestoreEntry, directory: bytes, name: bytes) -> int:
        """A descriptor of the directory of the group's first member, which is there and looks as it must."""
        try:
            fd = os.dup(self._tree.directory(directory, make=False))
        except OSError as error:
            if error.errno in _FATAL:
                raise
            raise _LeftOut(
                NotRestoredReason.FIRST_MISSING, f"Its other name, {entry.hardlink!r}, is missing."
            ) from error
        try:
            # Size and time, so that it is not made a name of somebody's file that was in the way of the first member.
            if _is_same(entry, os.stat(name, dir_fd=fd, follow_symlinks=False)):
                return fd
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        raise _LeftOut(NotRestoredReason.FIRST_MISSING, f"Its other name, {entry.hardlink!r}, was not restored.")

    def _copy(self, source: int, entry: RestoreEntry) -> None:
        sink = self.open_file(entry)
        if sink is None:
            return
        zeros = bytes(_COPY_BYTES)
        offset = 0
        with self.translated(entry.path):
            while piece := os.pread(source, _COPY_BYTES, offset):
                if piece != zeros[: len(piece)]:
                    sink.write_at(offset, piece)
                offset += len(piece)
        sink.finish()

    def _fatal(self, path: bytes, error: OSError) -> TargetError:
        place = f"{self._path}" + (f" while restoring {os.fsdecode(path)!r}" if path else "")
        meaning = (
            f"{self._delivered[EntryType.FILE]} files were delivered and are whole; what was unfinished is removed."
        )
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return TargetError(
                f"No space left in {place}.",
                meaning=meaning,
                advice="Free or add space there, or choose another target, and run the restore again.",
            )
        return TargetError(
            f"Cannot write to {place}: {error.strerror or error}.",
            meaning=meaning,
            advice="Check the disk, the mount and the limits of this process, and run the restore again.",
        )


def _refuse_reserved(path: bytes) -> None:
    if is_reserved(path):
        raise _LeftOut(NotRestoredReason.RESERVED, "Only unfinished files of a restore may have such a name.")


def _create(parent: int, temporary: bytes) -> int:
    """A new file under a temporary name; what an earlier run left under it goes away."""
    try:
        return durable.create_at("target", parent, temporary)
    except FileExistsError:
        durable.remove_at("target", parent, temporary)
        return durable.create_at("target", parent, temporary)


def _is_same(entry: RestoreEntry, status: os.stat_result) -> bool:
    return (
        stat.S_ISREG(status.st_mode) and status.st_size == entry.size and same_time(entry.mtime_ns, status.st_mtime_ns)
    )


def _special(entry: RestoreEntry) -> str:
    if entry.type is EntryType.SOCKET:
        return "A socket is made by the program that listens on it."
    kind = "character" if entry.type is EntryType.CHARACTER else "block"
    return f"A {kind} device {os.major(entry.rdev)}:{os.minor(entry.rdev)}; make it with mknod if it is wanted."


def _open_root(root: Path) -> int:
    """The root, locked against a second restore and shown to be writable."""
    try:
        durable.make_directory("target", root, 0o777)
    except LocalStateError as error:
        raise _unwritable(root, str(error.__cause__)) from error
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unwritable(root, error.strerror or str(error)) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TargetError(
                f"Another restore is writing into {root}.",
                meaning="Two at a time would remove each other's unfinished files.",
                advice="Wait for it to end, or choose another directory.",
            ) from error
        except OSError:
            pass  # network file systems that cannot lock a directory: the lock is only a courtesy
        probe = TEMPORARY + b"probe"
        os.close(_create(fd, probe))
        durable.remove_at("target", fd, probe)
    except OSError as error:
        os.close(fd)
        raise _unwritable(root, error.strerror or str(error)) from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def _unwritable(root: Path, why: str) -> TargetError:
    return TargetError(
        f"Cannot restore into {root}: {why}.",
        meaning="Nothing was written.",
        advice="Choose a directory on a disk with space that this user may write.",
    )
