"""Directories below the root of a target, by descriptor, so that nothing leads outside.

SECURITY: a path is split and every component checked; each step is one `openat` with O_NOFOLLOW from the directory
before. A symlink on the way, planted by the list itself or by another user, is never followed: it is in the way.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from hashlib import blake2b

from gateway import durable
from gateway.errors import Corrupt

TEMPORARY = b".tmp-gateway-"
"""What the names of unfinished files begin with; no entry of a list may have such a name."""

_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def split(path: bytes) -> tuple[bytes, bytes]:
    """(directory, name) of a harmless relative path; `Corrupt` for every other.

    Refused are empty paths, absolute ones, NUL, and the components "", "." and "..".
    """
    for component in path.split(b"/"):
        if component in (b"", b".", b"..") or b"\0" in component:
            raise Corrupt(
                f"the file list names the path {path!r}, which is no plain relative path",
                meaning="Nothing was written for it; a list made by this product never holds such a path.",
                advice="Do not use what was restored before the list was verified.",
            )
    directory, _, name = path.rpartition(b"/")
    return directory, name


def is_reserved(path: bytes) -> bool:
    return any(component.startswith(TEMPORARY) for component in path.split(b"/"))


def temporary_name(name: bytes) -> bytes:
    """Where the bytes of `name` are gathered, in the same directory: the same in every run, so that a rerun finds and
    removes what a crash left, and short, whatever the name is."""
    return TEMPORARY + blake2b(name, digest_size=16).hexdigest().encode()


class Tree:
    """Descriptors of directories, the most recently used ones kept open. Not thread-safe.

    A descriptor handed out is good until the next call.
    """

    KEPT = 64

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: OrderedDict[bytes, int] = OrderedDict()
        self.implied: set[bytes] = set()
        """Directories that were made only because something below them was asked for."""

    def directory(self, path: bytes, *, make: bool = True) -> int:
        """An O_PATH descriptor; missing directories are made for the owner alone unless `make` is False.

        `NotADirectoryError` when something else, also a symlink, stands in the way; other `OSError` as they come.
        """
        known, steps = path, []
        while known and known not in self._open:
            known, _, name = known.rpartition(b"/")
            steps.append(name)
        if known:
            self._open.move_to_end(known)
        fd = self._open[known] if known else self._root
        for name in reversed(steps):
            known = known + b"/" + name if known else name
            fd = self._step(fd, name, known, make=make)
        return fd

    def _step(self, parent: int, name: bytes, path: bytes, *, make: bool) -> int:
        try:
            fd = os.open(name, _STEP, dir_fd=parent)
        except FileNotFoundError:
            if not make:
                raise
            durable.make_directory_at("target", parent, name)
            self.implied.add(path)
            fd = os.open(name, _STEP, dir_fd=parent)
        self._open[path] = fd
        if len(self._open) > self.KEPT:
            _, oldest = self._open.popitem(last=False)
            os.close(oldest)
        return fd

    def close(self) -> None:
        while self._open:
            with contextlib.suppress(OSError):
                os.close(self._open.popitem()[1])
