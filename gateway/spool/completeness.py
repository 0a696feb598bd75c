"""What says that a pinned file is complete: a mark, a marker file, its structure, or nothing but quiet.

The answer is about the pinned bytes. A mark counts for one identity only, and a marker file only if it is not older
than the last change of the file it speaks for, so neither outlives the version it was made for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.model.entry import Evidence, Identity, LeftOutReason
from gateway.policy.naming import marker_of
from gateway.spool.pin import NotPinned, Pinned
from gateway.spool.probes import writer_of
from gateway.spool.producers.base import Producer
from gateway.spool.producers.choice import inspect
from gateway.spool.structure import State


class NotComplete(NotPinned):
    """Less says that it is complete than the source wants."""

    reason = LeftOutReason.BELOW_MINIMUM_EVIDENCE


class Torn(NotPinned):
    """Its own structure says that it is not whole."""

    reason = LeftOutReason.TORN


class OpenElsewhere(NotPinned):
    """A probe found somebody who has it open for writing."""

    reason = LeftOutReason.WRITER


class Mark(Protocol):
    @property
    def identity(self) -> Identity: ...
    @property
    def evidence(self) -> int: ...
    @property
    def how(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Completeness:
    """Of one source. `mark`: what is noted for a path; `producers`: who is asked about a file's structure; `by_hand`:
    whether an operator answers for a version."""

    root: Path
    marker: str | None
    minimum: int
    mark: Callable[[bytes], Mark | None]
    producers: Sequence[Producer]
    by_hand: Callable[[bytes, Identity], bool] = lambda *_: False

    def evidence(self, pinned: Pinned) -> Evidence:
        """How it is known that the file is complete. Raises `Torn`, `OpenElsewhere` or `NotComplete`."""
        path, identity = pinned.entry.path, pinned.entry.identity
        found = self._noted(path, identity)
        if found < Evidence.MANIFEST:
            # A marker or a rename is a producer's word, given also behind a program that failed: what is there counts.
            if not pinned.no_writer and (who := writer_of(identity)):
                raise OpenElsewhere(path, f"{who} has it open for writing.")
            structure = self._structure(pinned)
            found = max(found, structure) if pinned.no_writer else Evidence.QUIET
        found = min(found, pinned.evidence_limit) if found < Evidence.SEAL else found
        if found < self.minimum and not self.by_hand(path, identity):
            raise NotComplete(path, self._too_little(found))
        return found

    def _noted(self, path: bytes, identity: Identity) -> Evidence:
        mark = self.mark(path)
        noted = Evidence(mark.evidence) if mark is not None and mark.identity == identity else Evidence.QUIET
        if noted < Evidence.MARKER and self._has_marker(path, identity):
            return Evidence.MARKER
        return noted

    def _has_marker(self, path: bytes, identity: Identity) -> bool:
        marker = marker_of(path, self.marker)
        if marker is None:
            return False
        try:
            status = os.lstat(os.path.join(os.fsencode(self.root), marker))
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_ctime_ns >= identity.ctime_ns

    def _structure(self, pinned: Pinned) -> Evidence:
        def read(offset: int, length: int) -> bytes:
            buffer = bytearray(length)
            return bytes(buffer[: pinned.read_into(memoryview(buffer), offset)])

        structure = inspect(self.producers, pinned.entry.path, pinned.size, read)
        if structure.state is State.TORN and not self.by_hand(pinned.entry.path, pinned.entry.identity):
            raise Torn(pinned.entry.path, structure.detail)
        return Evidence.STRUCTURE if structure.state is State.COMPLETE else Evidence.QUIET

    def _too_little(self, found: Evidence) -> str:
        what = "Nothing but quiet says" if found == Evidence.QUIET else f"Only evidence {found} says"
        return f"{what} that it is complete, and the source wants evidence {self.minimum}."
