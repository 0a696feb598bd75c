"""Everything below a spool directory, in the order of the file list.

The walk goes by directory descriptors and never follows a symlink, so a name that is swapped while it runs
cannot lead it out of the spool. Mount points inside *are* walked: a spool may be put together from several
volumes, and an `Identity` holds the device.

Nothing is opened but directories: whether a file can be read is found out when it is pinned.

A name that was listed and is gone a moment later is left away without a word: had the walk come a moment
later, it would not have seen it either. A directory that cannot be read is one `LeftOut`, in its place in the
order, and the walk goes on behind it.

LIMIT: memory is the names of the directories on the current path, about 150 bytes a name; at most
`HELD_DIRECTORIES` descriptors are open however deep the tree is.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gateway.errors import SourceError
from gateway.model.entry import EntryType, Identity, LeftOut, LeftOutReason, entry_type

RESERVED = b".gateway"
"""Directly in the root: the gateway's own (seal files); never part of a generation."""

HELD_DIRECTORIES = 128
"""LIMIT: a quarter of what is left of the usual 1,024 descriptors after uploads and workers; deeper levels
are closed and found again by path, checked by device and inode."""

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolEntry:
    """One entry as it was seen. `mode`: 12 permission bits. Names are empty where the machine has none."""

    path: bytes
    type: EntryType
    identity: Identity
    mode: int
    uid: int
    gid: int
    user: str = ""
    group: str = ""
    nlink: int = 1
    rdev: int = 0
    target: bytes = b""


class Owners:
    """Names of users and groups, each looked up once. One object per walk, so that a renamed user is seen."""

    def __init__(self) -> None:
        self._users: dict[int, str] = {}
        self._groups: dict[int, str] = {}

    def user(self, uid: int) -> str:
        name = self._users.get(uid)
        if name is None:
            try:
                name = pwd.getpwuid(uid).pw_name
            except (KeyError, OSError):
                name = ""
            self._users[uid] = name
        return name

    def group(self, gid: int) -> str:
        name = self._groups.get(gid)
        if name is None:
            try:
                name = grp.getgrgid(gid).gr_name
            except (KeyError, OSError):
                name = ""
            self._groups[gid] = name
        return name


@dataclass(slots=True)
class _Level:
    """A directory being walked: its descriptor (-1 while closed to save one) and the names to come."""

    path: bytes
    fd: int
    device: int
    inode: int
    names: list[bytes] = field(default_factory=list)


def open_root(root: Path) -> int:
    """A descriptor of the source's directory, itself reached through symlinks: the admin named it."""
    try:
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable_root(root, error) from error


def unreadable_root(root: Path, error: OSError) -> SourceError:
    return SourceError(
        f"Cannot read the source's directory {root}: {error.strerror or error}.",
        meaning="Nothing of this source was backed up; what is already protected stays as it is.",
        advice="Check that it exists, is mounted, and may be read and entered by the gateway's user.",
    )


def open_below(root_fd: int, path: bytes) -> int:
    """A descriptor of the directory at `path`, following no symlink. Raises `OSError`."""
    fd = os.dup(root_fd)
    if not path:
        return fd
    try:
        for component in path.split(b"/"):
            below = os.open(component, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = below
        readable = os.open(b".", _OPEN, dir_fd=fd)
    finally:
        os.close(fd)
    return readable


def walk(root: Path) -> Iterator[SpoolEntry | LeftOut]:
    """Everything below `root` by `order_key`; `SourceError` when the root itself cannot be read."""
    owners = Owners()
    levels: list[_Level] = []
    try:
        top = open_root(root)
        levels.append(_level(b"", top))
        try:
            levels[0].names = _names(top)
        except OSError as error:
            raise unreadable_root(root, error) from error
        levels[0].names = [name for name in levels[0].names if name != RESERVED]
        while levels:
            level = levels[-1]
            if not level.names:
                _close(levels.pop())
                if levels and levels[-1].fd < 0:
                    gone = _reopen(levels[0].fd, levels[-1])
                    if gone is not None:
                        yield gone
                continue
            name = level.names.pop()
            path = level.path + b"/" + name if level.path else name
            below: _Level | None = None
            target = b""
            try:
                status = os.stat(name, dir_fd=level.fd, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    below = _descend(path, name, level.fd, status)
                elif stat.S_ISLNK(status.st_mode):
                    target = os.readlink(name, dir_fd=level.fd)
            except OSError as error:
                left_out = _left_out(path, error)
                if left_out is not None:
                    yield left_out
                continue
            if below is not None:
                levels.append(below)
                if len(levels) > HELD_DIRECTORIES:
                    # The root stays open: it is where a closed level is found again from.
                    _close(levels[len(levels) - HELD_DIRECTORIES])
            yield _entry(path, status, owners, target)
    finally:
        for level in levels:
            _close(level)


def _level(path: bytes, fd: int) -> _Level:
    status = os.fstat(fd)
    return _Level(path, fd, status.st_dev, status.st_ino)


def _names(fd: int) -> list[bytes]:
    """The names in a directory, last first, to be taken from the end."""
    return sorted(map(os.fsencode, os.listdir(fd)), reverse=True)


def _descend(path: bytes, name: bytes, parent: int, status: os.stat_result) -> _Level:
    level = _level(path, os.open(name, _OPEN, dir_fd=parent))
    try:
        if (level.device, level.inode) != (status.st_dev, status.st_ino):
            raise OSError(errno.ENOTDIR, "another directory was put in its place")
        level.names = _names(level.fd)
    except BaseException:
        _close(level)
        raise
    return level


def _reopen(root_fd: int, level: _Level) -> LeftOut | None:
    """Open a level that was closed to save descriptors; give up the rest of it when it is not there."""
    try:
        found = _level(level.path, open_below(root_fd, level.path))
    except OSError as error:
        level.names = []
        return _left_out(level.path, error)
    if (found.device, found.inode) != (level.device, level.inode):
        _close(found)
        level.names = []
        return LeftOut(path=level.path, reason=LeftOutReason.CHANGED, detail="It was replaced while it was walked.")
    level.fd = found.fd
    return None


def _close(level: _Level) -> None:
    if level.fd >= 0:
        os.close(level.fd)
        level.fd = -1


def _entry(path: bytes, status: os.stat_result, owners: Owners, target: bytes) -> SpoolEntry:
    return SpoolEntry(
        path=path,
        type=entry_type(status.st_mode),
        identity=Identity.of(status),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        user=owners.user(status.st_uid),
        group=owners.group(status.st_gid),
        nlink=status.st_nlink,
        rdev=status.st_rdev,
        target=target,
    )


def _left_out(path: bytes, error: OSError) -> LeftOut | None:
    """None: it is gone, as if it had never been listed."""
    if error.errno == errno.ENOENT:
        return None
    changed = error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EINVAL)
    return LeftOut(
        path=path,
        reason=LeftOutReason.CHANGED if changed else LeftOutReason.UNREADABLE,
        detail=f"{error.strerror or error}.",
    )
