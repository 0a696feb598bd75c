"""Events of a source's directory as hints where to look. They decide nothing, and losing them costs a rescan."""

from __future__ import annotations

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
from watchdog.observers import Observer

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
        self._observer = Observer()
        try:
            self._observer.schedule(_Handler(root, hints), str(root), recursive=True, event_filter=_KINDS)
            self._observer.start()
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

    def close(self) -> None:
        _LIBRARY.removeHandler(self._overflow)
        self._observer.stop()
        self._observer.join(5.0)


def _identity(root: Path) -> tuple[int, int]:
    status = root.stat()
    return status.st_dev, status.st_ino


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
