"""The scratch directory of a restore job: what was fetched of packs and is not written out yet.

Of a pack there is a sparse file with its ranges at their places: ``<number>.part`` while it is filled, ``<number>``
when all that is wanted of it is there and synced.
CRASH: a ``.part`` is gone on with. Which of its ranges are whole, their frames themselves say, so that nothing is
fetched twice and nothing half-written is believed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway import durable
from gateway.errors import Corrupt
from gateway.format.container import Frame
from gateway.format.directory import PackIndex
from gateway.model.ids import ChainName
from gateway.repository.cache import Cached
from gateway.repository.pack_files import PACK_FILES

PART = ".part"


class Scratch:
    """Looks like a pack cache, in front of the real one. Thread-safe for different packs."""

    def __init__(self, directory: Path, cache: Cached | None) -> None:
        self.directory = directory
        self._cache = cache
        durable.make_directory("scratch-packs", directory)

    def path(self, number: int) -> Path:
        return self.directory / f"{number:08x}"

    def find(self, chain: ChainName, number: int, pack_id: bytes) -> Path | None:
        path = self.path(number)
        if path.exists():
            return path
        return self._cache.find(chain, number, pack_id) if self._cache is not None else None

    def has(self, chain: ChainName, number: int, pack_id: bytes) -> bool:
        return self.find(chain, number, pack_id) is not None

    def holds(self, number: int) -> bool:
        return self.path(number).exists()

    def take(self, number: int, source: Path) -> bool:
        """A pack of the cache, so that it cannot be evicted any more: one more name of it where that is possible."""
        if self.holds(number):
            return True
        with contextlib.suppress(OSError):
            return durable.share_file("scratch-packs", source, self.path(number), source.stat().st_size)
        return False

    def fill(
        self, number: int, ranges: Sequence[tuple[int, int]], opened: PackIndex, read: Callable[[int, int], bytes]
    ) -> int:
        """Fetch what of these ranges (start, end) is not there yet, by `read(start, length)`; how many bytes that was.

        `LocalStateError`: no space here. What `read` raises ends it; what it gave is kept.
        """
        if self.holds(number):
            return 0
        fetched = 0
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        name = f"{number:08x}{PART}".encode()
        try:
            with durable.writing(self.directory):
                try:
                    fd = durable.create_at("scratch-packs", directory, name)
                except FileExistsError:
                    fd = durable.open_at(directory, name)
                try:
                    for start, end in ranges:
                        if _whole(fd, start, end, opened):
                            continue
                        durable.write_at(fd, read(start, end - start), start)
                        fetched += end - start
                    durable.sync_file("scratch-packs", fd)
                finally:
                    os.close(fd)
                durable.publish_at("scratch-packs", directory, name, f"{number:08x}".encode(), replace=True)
        finally:
            os.close(directory)
        return fetched

    def check(self, number: int, ranges: Sequence[tuple[int, int]], opened: PackIndex) -> bool:
        """Whether the file of a pack has what is wanted of it, whole; one that has not is dropped."""
        if not self.holds(number):
            return False
        with durable.open_file(self.path(number)) as file:
            if all(_whole(file.fileno(), start, end, opened) for start, end in ranges):
                return True
        self.drop(number)
        return False

    def drop(self, number: int) -> None:
        PACK_FILES.forget(self.path(number))  # open, it would keep its place on the disk, and its name
        for path in (self.path(number), self.path(number).with_suffix(PART)):
            if path.exists():
                durable.remove("scratch-packs", path)

    def remove(self) -> None:
        for path in self.directory.glob("*"):
            PACK_FILES.forget(path)
        durable.remove_tree("scratch-packs", self.directory)


def _whole(fd: int, start: int, end: int, opened: PackIndex) -> bool:
    """Whether a range lies in the file as it was stored: every frame in it says so itself."""
    if os.fstat(fd).st_size < end:
        return False
    for segment in opened.directory.segments:
        if segment.offset < start or segment.offset + segment.size > end:
            continue
        frame = os.pread(fd, segment.size, segment.offset)
        try:
            opened.opener.open(segment.number, Frame.SEGMENT, frame)
        except Corrupt:
            return False
        if frame[-16:] != segment.tag:
            return False
    return True
