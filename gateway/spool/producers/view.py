"""A spool directory as producers see it: listed without following links, read through pins."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.model.entry import EntryType, Evidence, Identity, LeftOut, LeftOutReason, entry_type
from gateway.spool.looks import Looked, Verdict
from gateway.spool.pin import Changed, Pinned, Unreadable, Vanished, pin
from gateway.spool.walk import RESERVED, Owners, SpoolEntry, open_below, open_root


class PinnedFile:
    """`base.SpoolFile` over a `Pinned`."""

    def __init__(self, pinned: Pinned, step: Callable[[int], None]) -> None:
        self._pinned = pinned
        self._step = step

    @property
    def entry(self) -> SpoolEntry:
        return self._pinned.entry

    @property
    def size(self) -> int:
        return self._pinned.size

    @property
    def no_writer(self) -> bool:
        return self._pinned.no_writer

    @property
    def evidence_limit(self) -> Evidence:
        return self._pinned.evidence_limit

    def read(self, offset: int, length: int) -> bytes:
        buffer = bytearray(max(0, min(length, self.size - offset)))
        count = self._pinned.read_into(memoryview(buffer), offset)
        self._step(count)
        return bytes(buffer) if count == len(buffer) else bytes(buffer[:count])

    def check(self) -> None:
        self._pinned.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pinned.close()


class DirectoryView:
    """`base.SpoolView` of a directory as it is at the moment of each call.

    `verdict` says of an entry whether it was quiet for the settle time; without it everything counts as settled.
    `step` is told of every entry, and of every read with its bytes, since a producer may read terabytes for one answer;
    what it raises ends that.
    """

    def __init__(
        self, root: Path, verdict: Callable[[SpoolEntry], Verdict] | None = None,
        step: Callable[[int], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._root = root
        self._verdict = verdict
        self._step = step
        self._owners = Owners()

    @property
    def root(self) -> bytes:
        return os.fsencode(os.path.abspath(self._root))

    def list(self, directory: bytes) -> Iterator[Looked | LeftOut]:
        root = open_root(self._root)
        try:
            fd = open_below(root, directory)
        except FileNotFoundError:
            return
        except OSError as error:
            yield LeftOut(path=directory, reason=LeftOutReason.UNREADABLE, detail=f"{error.strerror or error}.")
            return
        finally:
            os.close(root)
        try:
            for name in sorted(map(os.fsencode, os.listdir(fd))):
                if directory or name != RESERVED:
                    self._step(0)
                    seen = self._look(directory + b"/" + name if directory else name, name, fd)
                    if seen is not None:
                        yield seen
        finally:
            os.close(fd)

    def walk(self, directory: bytes) -> Iterator[Looked | LeftOut]:
        for seen in self.list(directory):
            yield seen
            if isinstance(seen, Looked) and seen.entry.type is EntryType.DIRECTORY:
                yield from self.walk(seen.entry.path)

    def open(self, path: bytes) -> PinnedFile:
        directory, _, name = path.rpartition(b"/")
        root = open_root(self._root)
        try:
            parent = open_below(root, directory)
            try:
                seen = self._look(path, name, parent)
            finally:
                os.close(parent)
        except FileNotFoundError as error:
            raise Vanished(path, "It is gone.") from error
        except OSError as error:
            raise Unreadable(path, f"{error.strerror or error}.") from error
        finally:
            os.close(root)
        if seen is None:
            raise Vanished(path, "It is gone.")
        if isinstance(seen, LeftOut):
            raise Unreadable(path, seen.detail)
        if seen.entry.type is not EntryType.FILE:
            raise Changed(path, "It is not a regular file.")
        return PinnedFile(pin(self._root, seen.entry), self._step)

    def _look(self, path: bytes, name: bytes, parent: int) -> Looked | LeftOut | None:
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            target = os.readlink(name, dir_fd=parent) if stat.S_ISLNK(status.st_mode) else b""
        except FileNotFoundError:
            return None
        except OSError as error:
            return LeftOut(path=path, reason=LeftOutReason.UNREADABLE, detail=f"{error.strerror or error}.")
        entry = SpoolEntry(
            path=path,
            type=entry_type(status.st_mode),
            identity=Identity.of(status),
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            user=self._owners.user(status.st_uid),
            group=self._owners.group(status.st_gid),
            nlink=status.st_nlink,
            rdev=status.st_rdev,
            target=target,
        )
        verdict = Verdict.SETTLED
        if self._verdict is not None and entry.type is EntryType.FILE:
            verdict = self._verdict(entry)
        return Looked(entry=entry, verdict=verdict)
