"""Packs of the cache that are kept open, of the whole process: a segment is small, and opening a file is not for free.

Readers come and go, one for every pass over a source and every verb, and each may touch every pack of a chain. So it is
not they who hold descriptors. What is open at most: `OPEN_FILES`, and one for each thread that is just reading.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from pathlib import Path

OPEN_FILES = 64
"""LIMIT: packs of caches that a process keeps open."""


class PackFile:
    """A pack in a cache. Closed when it is not kept any more and the last thread that reads it is done."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.fd)


class PackFiles:
    """Thread-safe. A path is that of one pack for ever, since a pack's id is drawn for it."""

    def __init__(self, limit: int = OPEN_FILES) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, PackFile] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def open(self, path: Path) -> PackFile:
        """`OSError`: it is not there, or cannot be read."""
        with self._lock:
            file = self._open.get(path)
            if file is None:
                file = self._open[path] = PackFile(path)
                while len(self._open) > self._limit:
                    self._open.popitem(last=False)
            self._open.move_to_end(path)
            return file

    def forget(self, path: Path) -> None:
        """It was removed."""
        with self._lock:
            self._open.pop(path, None)


PACK_FILES = PackFiles()
"""Those of this process."""
