"""What a spool, a file list and a restore say about one entry of a file tree.

Paths are bytes relative to the root they belong to, components joined by ``/``; the root itself has no entry.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class EntryType(IntEnum):
    """The type numbers of the file list format; never renumbered."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    FIFO = 4
    SOCKET = 5
    CHARACTER = 6
    BLOCK = 7


_TYPES = {
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFDIR: EntryType.DIRECTORY,
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFIFO: EntryType.FIFO,
    stat.S_IFSOCK: EntryType.SOCKET,
    stat.S_IFCHR: EntryType.CHARACTER,
    stat.S_IFBLK: EntryType.BLOCK,
}


def entry_type(mode: int) -> EntryType:
    """The type in a `st_mode`; `ValueError` for one that Linux does not have."""
    try:
        return _TYPES[stat.S_IFMT(mode)]
    except KeyError:
        raise ValueError(f"not a file type: {mode:#o}") from None


class Evidence(IntEnum):
    """How it is known that a file or backup job is complete; the higher, the stronger.

    QUIET nothing but silence for the settle time (also an operator's seal-now); STRUCTURE a trailer that
    stands at the very end, no writer, and quiet; MARKER a marker file, a rename into place or a log line of
    the producer; MANIFEST the producer's own manifest, verified; SEAL a seal call whose list matches what is
    there.
    """

    QUIET = 1
    STRUCTURE = 2
    MARKER = 3
    MANIFEST = 4
    SEAL = 5


@dataclass(frozen=True, slots=True)
class Identity:
    """Equal identities of one path at two moments: the content did not change in between.

    `ctime_ns` is what a copy tool cannot set back. LIMIT: Linux before 6.13 moves it in ticks of 1 to 10 ms
    (and some network file systems in seconds), so two changes within one tick look like one; whoever relies
    on an identity across a *gap in watching* must also see that ctime is well older than the earlier look.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class LeftOutReason(StrEnum):
    """Why an entry of the spool is not in a generation."""

    GROWING = "growing"
    WRITER = "writer"
    CHANGED = "changed"
    UNREADABLE = "unreadable"
    VANISHED = "vanished"
    BELOW_MINIMUM_EVIDENCE = "below-minimum-evidence"
    TEMPORARY = "temporary"
    TORN = "torn"
    MISMATCH = "mismatch"
    RELEASED = "released"
    IN_NO_JOB = "in-no-job"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """An entry that is not in a generation, and why; `detail` is one sentence for people, or empty.

    Of a directory it speaks for the whole subtree: nobody knows what is below, so nothing there counts as
    removed.
    """

    path: bytes
    reason: LeftOutReason
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreEntry:
    """One entry as a restore target is asked to make it.

    `mode` holds the 12 permission bits. `user` and `group` are names, empty where unknown. `xattrs` are
    (name, value), sorted by name. `target` is the text of a symlink. `hardlink` is the path of the first
    member of a hard-link group, empty for that first member and for files with one name. `rdev` is the device
    number of a CHARACTER or BLOCK entry. Whether the path is harmless is for the target to check.
    """

    path: bytes
    type: EntryType
    size: int = 0
    mtime_ns: int = 0
    mode: int = 0o600
    uid: int = 0
    gid: int = 0
    user: str = ""
    group: str = ""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    target: bytes = b""
    hardlink: bytes = b""
    rdev: int = 0

    def __post_init__(self) -> None:
        if self.size < 0 or self.mode & ~0o7777:
            raise ValueError(f"not a size and 12 permission bits: {self.size}, {self.mode:#o}")


def order_key(path: bytes) -> bytes:
    """Sorts paths component by component, by bytes: a directory is directly followed by its subtree.

    No component holds a NUL, so ``/`` sorts before every other byte once it is one.
    """
    return path.replace(b"/", b"\0")
