"""A file on its way through the workers: what it is read by, and what is known of it until its record is written."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

from gateway.format.filelist import FileEntry, Item
from gateway.model.entry import Evidence
from gateway.repository.pipeline import Piece, SourceChanged
from gateway.spool.completeness import Completeness
from gateway.spool.pin import NotPinned, Pinned
from gateway.spool.walk import SpoolEntry


class PinnedReader:
    """Some ranges of a pinned file, as the pipeline reads them.

    `alone`: no other reader has the file, so it is closed as soon as this one is done with it. Otherwise several
    workers read from one descriptor, and only who waits for all of them may close it.
    """

    def __init__(self, pinned: Pinned, ranges: list[tuple[int, int]], *, alone: bool) -> None:
        self.ranges = ranges
        self._pinned = pinned
        self._alone = alone

    def read_into(self, buffer: memoryview, offset: int) -> int:
        try:
            return self._pinned.read_into(buffer, offset)
        except NotPinned as error:
            self._done()
            raise SourceChanged(error.what) from error

    def finished(self) -> None:
        try:
            self._pinned.check()
        except NotPinned as error:
            raise SourceChanged(error.what) from error
        finally:
            self._done()

    def _done(self) -> None:
        if self._alone:
            self._pinned.close()


class GivenReader:
    """Bytes that lie in no spool, as the pipeline reads them."""

    def __init__(self, data: bytes) -> None:
        self.ranges = [(0, len(data))] if data else []
        self._data = data

    def read_into(self, buffer: memoryview, offset: int) -> int:
        piece = self._data[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def finished(self) -> None:
        """Nobody can change it."""


@dataclass(slots=True)
class Reading:
    """A file on its way through the workers.

    `submitting`: more of its pieces are still to come, so that it is not done when those it has are.
    """

    entry: SpoolEntry
    before: Item | None
    started_ns: int
    carry_on: bool
    anew: bool
    pieces: list[Piece] = field(default_factory=list)
    futures: list[Future[None]] = field(default_factory=list)
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    known: int = 0
    held_ns: int = 0
    evidence: int = Evidence.QUIET
    ranges: list[tuple[int, int]] = field(default_factory=list)
    pinned: Pinned | None = None
    submitting: bool = False
    given: bytes | None = None
    """All of it, where it lies in no spool."""

    def take(self, pinned: Pinned, completeness: Completeness) -> Pinned:
        """Note what the open file says; closes it when it cannot be read, or may not be, after all.

        Evidence does not shrink while a version stays what it is.
        """
        self.pinned = pinned
        try:
            self.evidence = self.known or completeness.evidence(pinned)
            self.ranges = list(pinned.data_ranges())
        except NotPinned:
            pinned.close()
            raise
        self.xattrs = pinned.xattrs
        return pinned

    def held_since(self, record: FileEntry) -> int:
        """When this version was read first with the content that it was read with now."""
        before = self.before.entry if self.before is not None and (self.carry_on or self.anew) else None
        same = before is not None and (before.size, before.digest) == (record.size, record.digest)
        return self.held_ns if same and self.held_ns else self.started_ns

    def close(self) -> None:
        """Its pieces know it and its pass, and would keep both until cycles are collected."""
        if self.pinned is not None:
            self.pinned.close()
        self.pieces.clear()

    @property
    def failure(self) -> BaseException | None:
        return next((piece.failed for piece in self.pieces if piece.failed is not None), None)
