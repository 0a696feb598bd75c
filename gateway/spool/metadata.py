"""Extended attributes of spool entries, read without following links.

What is kept: ``user.*`` and the two POSIX ACLs. Left away on purpose:

* ``security.capability`` SECURITY: it would hand out root's powers on the machine a list is restored on;
* ``security.selinux``, ``security.ima``, ``trusted.*``: they are the policy and the state of one machine;
* ``security.NTACL`` (Samba's), ``system.nfs4_acl``: only a server of the same domain can make sense of them.
"""

from __future__ import annotations

import logging
import os
from errno import ENODATA, ENOTSUP, EPERM
from pathlib import Path

from gateway.spool.walk import SpoolEntry, open_below, open_root

Xattrs = tuple[tuple[bytes, bytes], ...]

XATTR_BYTES = 256 * 1024
"""LIMIT: names and values of one entry together. ext4 holds at most 64 KiB, XFS has no bound but 64 KiB a
value; the record of a file must stay small whatever a producer does. What does not fit, by name order, is
logged and not kept."""

_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
_log = logging.getLogger(__name__)


def is_kept(name: bytes) -> bool:
    return name.startswith(b"user.") or name in _ACLS


def read_xattrs(fd: int, path: bytes = b"") -> Xattrs:
    """The kept attributes of an open file, sorted by name. `path` is for the log only. Raises `OSError`.

    `fd` may be an `O_PATH` descriptor. A file system without attributes has none.
    """
    # Through /proc, because the calls on descriptors refuse O_PATH ones; the link leads to the very object,
    # also when that is a symlink.
    place = f"/proc/self/fd/{fd}"
    try:
        names = sorted(name for name in map(os.fsencode, os.listxattr(place)) if is_kept(name))
    except OSError as error:
        if _is_absence(error):
            return ()
        raise
    kept: list[tuple[bytes, bytes]] = []
    size = 0
    for name in names:
        try:
            value = os.getxattr(place, name)
        except OSError as error:
            if _is_absence(error):
                continue
            raise
        size += len(name) + len(value)
        if size > XATTR_BYTES:
            _log.warning("spool.xattrs_dropped", extra={"path": os.fsdecode(path), "kept": len(kept), "of": len(names)})
            break
        kept.append((name, value))
    return tuple(kept)


def xattrs_below(root: Path, entry: SpoolEntry) -> Xattrs:
    """The same of an entry that is not pinned: directory, symlink, FIFO and so on. Raises `OSError`."""
    directory, _, name = entry.path.rpartition(b"/")
    root_fd = open_root(root)
    try:
        parent = open_below(root_fd, directory)
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        finally:
            os.close(parent)
        try:
            return read_xattrs(fd, entry.path)
        finally:
            os.close(fd)
    finally:
        os.close(root_fd)


def _is_absence(error: OSError) -> bool:
    # EPERM: user attributes of symlinks and special files, which the kernel does not allow.
    return error.errno in (ENODATA, ENOTSUP, EPERM)
