"""Sets owner, attributes, mode and time of a restored entry, in the order in which none undoes another.

Owner first (it clears the setuid bits), then attributes (an ACL rewrites the group bits), then the mode, then the
time. A thing that cannot be set is reported and does not stop the restore.

SECURITY: setuid and setgid are left away on a file whose owner could not be set, else a restore by an ordinary user
would make programs that run with *his* rights for everybody.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat

from gateway.model.entry import EntryType, RestoreEntry
from gateway.target.port import Property, Unset


class Owners:
    """Numbers of users and groups on this machine, by name where the name is known here, else as recorded."""

    def __init__(self, *, numeric: bool) -> None:
        self._numeric = numeric
        self._users: dict[str, int | None] = {}
        self._groups: dict[str, int | None] = {}

    def of(self, entry: RestoreEntry) -> tuple[int, int]:
        if self._numeric:
            return entry.uid, entry.gid
        if entry.user not in self._users:
            self._users[entry.user] = _user(entry.user)
        if entry.group not in self._groups:
            self._groups[entry.group] = _group(entry.group)
        uid, gid = self._users[entry.user], self._groups[entry.group]
        return entry.uid if uid is None else uid, entry.gid if gid is None else gid


def _user(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid if name else None
    except (KeyError, OSError, ValueError):
        return None


def _group(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid if name else None
    except (KeyError, OSError, ValueError):
        return None


def apply(fd: int, entry: RestoreEntry, owners: Owners) -> list[Unset]:
    """Set everything on an open thing (also an O_PATH descriptor, also of a symlink); returns what could not be set."""
    # Through /proc, because the calls on descriptors refuse O_PATH ones; the link leads to the very object.
    unset = []
    place = f"/proc/self/fd/{fd}"
    mode = entry.mode
    wanted = owners.of(entry)
    status = os.fstat(fd)
    if (status.st_uid, status.st_gid) != wanted:
        try:
            os.chown(place, *wanted)
        except (OSError, OverflowError) as error:
            unset.append(_unset(entry, Property.OWNER, error))
            if entry.type is not EntryType.DIRECTORY:
                mode &= ~(stat.S_ISUID | stat.S_ISGID)
    for name, value in entry.xattrs:
        try:
            os.setxattr(place, name, value)
        except (OSError, ValueError) as error:
            unset.append(_unset(entry, Property.XATTRS, error))
            break
    if entry.type is not EntryType.SYMLINK:
        try:
            os.chmod(place, mode)
        except OSError as error:
            unset.append(_unset(entry, Property.MODE, error))
    try:
        os.utime(place, ns=(os.fstat(fd).st_atime_ns, entry.mtime_ns))
    except (OSError, OverflowError) as error:
        unset.append(_unset(entry, Property.TIME, error))
    return unset


def same_time(recorded_ns: int, found_ns: int) -> bool:
    """Whether a file system that keeps times in 1, 100, 1,000 ns, milliseconds or seconds made the one of the other."""
    return any(found_ns == recorded_ns - recorded_ns % grain for grain in (1, 100, 1_000, 10**6, 10**9))


def _unset(entry: RestoreEntry, what: Property, error: Exception) -> Unset:
    return Unset(path=entry.path, what=what, detail=getattr(error, "strerror", None) or str(error))
