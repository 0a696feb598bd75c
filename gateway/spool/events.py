"""Events of a source's directory as hints where to look. They decide nothing, and losing them costs a rescan."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Protocol

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter
from watchdog.observers.inotify_c import CallbackId, InotifyFD, Mask, WatchCallback, WatchDescriptor

from gateway.spool.walk import RESERVED

# Opening and closing without writing are left away: most of them are our own.
_KINDS: list[type[FileSystemEvent]] = [
    DirCreatedEvent, DirMovedEvent, FileClosedEvent, FileCreatedEvent, FileDeletedEvent, FileModifiedEvent,
    FileMovedEvent,
]  # fmt: skip
_LIBRARY = logging.getLogger("watchdog.observers")


class Hints(Protocol):
    """Who is told. Called from the library's threads; returns at once."""

    def hint(self, path: bytes, *, closed: bool = False) -> None:
        """Something happened to the entry at `path`; `closed`: no more than that a writer let go of it."""

    def renamed(self, before: bytes, after: bytes) -> None:
        """A file got another name."""

    def look_everywhere(self) -> None:
        """Events were lost, or a directory came that was filled before it was watched."""


class Events:
    """Watches one source; closed with `close`."""

    def __init__(self, root: Path, hints: Hints) -> None:
        """Raises `OSError` where the kernel gives no watch, which is no reason not to work: rescans find everything."""
        self._root = root
        self._watched = _identity(root)
        self._overflow = _Overflow(hints)
        _LIBRARY.addHandler(self._overflow)
        try:
            self._observer = _Observer()
            self._observer.watch(_Handler(root, hints), root, recursive=True)
        except BaseException:
            _LIBRARY.removeHandler(self._overflow)
            raise

    @property
    def lost(self) -> bool:
        """Whether another directory is there now, mounted or made anew: the kernel tells of the old one only, which is
        to say of nothing."""
        try:
            return _identity(self._root) != self._watched
        except OSError:
            return True

    @property
    def refused(self) -> int:
        """Directories of which the kernel gave no watch, since the user has as many as he may: what happens in them is
        told by nobody. Those below them, and those made later, may be more."""
        return self._observer.descriptor.refused

    def may_watch_more(self) -> bool:
        """Whether the kernel gives one more watch by now, so that it is worth to begin anew."""
        try:
            one = _Observer()
            one.watch(FileSystemEventHandler(), self._root, recursive=False)
        except OSError:
            return False
        one.stop()
        one.join(5.0)
        return True

    def close(self) -> None:
        _LIBRARY.removeHandler(self._overflow)
        self._observer.stop()
        self._observer.join(5.0)


def _identity(root: Path) -> tuple[int, int]:
    status = root.stat()
    return status.st_dev, status.st_ino


class _Descriptor(InotifyFD):
    """Counts what the library passes over: a watch that it does not get for a directory below the root."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = 0

    def add_callback(self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId) -> WatchDescriptor:
        try:
            return super().add_callback(path, mask, callback, id_)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self.refused += 1
            raise


class _Observer(BaseObserver):
    """The library's for inotify, with that descriptor."""

    def __init__(self) -> None:
        self.descriptor = _Descriptor()
        self.descriptor.start()
        super().__init__(InotifyEmitter, inotify_fd=self.descriptor)

    def watch(self, handler: FileSystemEventHandler, root: Path, *, recursive: bool) -> None:
        """Raises `OSError` where there is no watch for the root; then nothing is left open."""
        try:
            self.schedule(handler, str(root), recursive=recursive, event_filter=_KINDS)
            self.start()
        except BaseException:
            self._end()
            raise

    def on_thread_stop(self) -> None:
        super().on_thread_stop()
        self._end()

    def _end(self) -> None:
        self.descriptor.stop()
        self.descriptor.join(5.0)


class _Overflow(logging.Handler):
    """The library has no event for a queue that overflowed; it logs a warning."""

    def __init__(self, hints: Hints) -> None:
        super().__init__(level=logging.WARNING)
        self._hints = hints

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in str(record.msg):
            self._hints.look_everywhere()


class _Handler(FileSystemEventHandler):
    def __init__(self, root: Path, hints: Hints) -> None:
        self._root = os.fsencode(root).rstrip(b"/") + b"/"
        self._hints = hints

    def on_any_event(self, event: FileSystemEvent) -> None:
        before = self._path(event.src_path)
        after = self._path(event.dest_path) if event.dest_path else None
        if event.is_directory:
            self._hints.look_everywhere()
        elif after is not None:
            if before is None:
                self._hints.hint(after)
            else:
                self._hints.renamed(before, after)
        elif before is not None:
            self._hints.hint(before, closed=isinstance(event, FileClosedEvent))

    def _path(self, name: bytes | str) -> bytes | None:
        """Relative to the source; None outside of it and in the gateway's own directory."""
        whole = os.fsencode(name)
        path = whole[len(self._root) :] if whole.startswith(self._root) else b""
        return None if not path or path == RESERVED or path.startswith(RESERVED + b"/") else path
