"""The port every restore target implements, and its contract.

A target takes the entries of a file list and makes a tree of them. What every adapter promises:

* Paths come from a list that may be hostile. One that is not a plain relative path raises `Corrupt`; none can lead
  outside the target, whatever the list or another user plants there.
* A file is there as a whole, with its metadata, or it is not there; it is *delivered* when a power cut cannot take it
  back. Nothing that exists is overwritten unless the restore was told to.
* What stands in the way of one entry is recorded in the report and the restore goes on. What stands in the way of all
  (no space, no right to write, a failing disk) raises `TargetError`; `abandon` then leaves no unfinished file behind.

Order: a directory is added before what is below it, the first member of a hard-link group is opened before the others
are added. Between `open_file` and `finish` of a sink any time may pass and other entries may come.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from gateway.model.entry import RestoreEntry

Delivered = Callable[[RestoreEntry], None]


class NotRestoredReason(StrEnum):
    """IN_THE_WAY: something exists there (or a symlink or file stands where a directory must be). ALREADY_THERE: what
    exists has the very size and time of the entry, most likely from an earlier run. SPECIAL: sockets and devices are
    never made. REFUSED: the file system does not take the name, the size or the type, or denies it. FIRST_MISSING: the
    other name of this hard link was not restored. RESERVED: a name that only our temporary files may have. DISCARDED:
    the restore itself gave the file up."""

    IN_THE_WAY = "in-the-way"
    ALREADY_THERE = "already-there"
    SPECIAL = "special"
    REFUSED = "refused"
    FIRST_MISSING = "first-missing"
    RESERVED = "reserved"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRestored:
    path: bytes
    reason: NotRestoredReason
    detail: str


class Property(StrEnum):
    """What of an entry's metadata could not be set."""

    OWNER = "owner"
    MODE = "mode"
    XATTRS = "xattrs"
    TIME = "time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unset:
    path: bytes
    what: Property
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetReport:
    """What a restore made. `left_out` and `unset` hold the first of each only; the counts are complete.

    `bytes` are those of delivered files by their size, holes included, hard links not counted again.
    """

    began: datetime
    finished: datetime
    files: int
    bytes: int
    directories: int
    symlinks: int
    hardlinks: int
    fifos: int
    left_out_counts: tuple[tuple[NotRestoredReason, int], ...]
    left_out: tuple[NotRestored, ...]
    unset_counts: tuple[tuple[Property, int], ...]
    unset: tuple[Unset, ...]


class FileSink(Protocol):
    """A file on its way. `write_at` may be called by several threads at once; what nobody writes is a hole."""

    @property
    def entry(self) -> RestoreEntry: ...

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """`Corrupt` beyond the entry's size; `TargetError` when the target cannot take it."""

    def finish(self, delivered: Delivered | None = None) -> None:
        """All is written and verified: queue the file. `delivered` is called (in some thread) once it cannot be lost;
        never, when its name turned out to be taken."""

    def discard(self, detail: str) -> None:
        """Give this file up: remove what was written and record it as left out."""


class RestoreTarget(Protocol):
    """Thread-safe, but for `finish` and `abandon`, which come when nobody else works on it."""

    def add_directory(self, entry: RestoreEntry) -> None:
        """One that exists is used as it is; its metadata is set (at the end) only if it is new or overwriting is on."""

    def open_file(self, entry: RestoreEntry) -> FileSink | None:
        """None: recorded as left out, so its bytes need not be fetched."""

    def add_symlink(self, entry: RestoreEntry) -> None: ...

    def add_hardlink(self, entry: RestoreEntry) -> None:
        """One more name for the file at `entry.hardlink`; made at the end, copied where links are not possible."""

    def add_special(self, entry: RestoreEntry) -> None:
        """FIFO, socket, device."""

    def flush(self) -> None:
        """Deliver what is queued now instead of when the batch is full."""

    def finish(self) -> TargetReport: ...

    def abandon(self) -> None:
        """Remove everything that was not delivered. Never raises; idempotent; nothing happens after `finish`."""
