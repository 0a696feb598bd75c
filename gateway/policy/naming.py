"""What a file's name says: that it is still being written, that nobody wants it, or which file says it is complete."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Sequence

TEMPORARY = (
    "*.partial", "*.part", "*.tmp", "*.temp", "*.filepart", "*.crdownload", "*.swp", "*.inprogress",
    ".~*", "~$*", ".nfs*", ".smbdelete*", "*.tmp.[0-9]*",
)  # fmt: skip
"""Names under which known programs write before they rename: browsers and WinSCP (.part, .filepart, .crdownload),
PostgreSQL (.partial, .tmp), Office (~$), NFS and Samba (files deleted while open). rsync's ``.NAME.XXXXXX`` is not
among them: it cannot be told from a hidden file that somebody wants. docs/operate/configuration.md lists them."""


_TEMPORARY = re.compile("|".join(map(fnmatch.translate, TEMPORARY)))


def is_temporary(name: bytes) -> bool:
    """Whether the last component of a path is the name of something not finished."""
    return _TEMPORARY.fullmatch(os.fsdecode(name)) is not None


def is_ignored(name: bytes, patterns: Sequence[str]) -> bool:
    """Whether an operator said that files of this name are nobody's backup."""
    return bool(patterns) and _any(os.fsdecode(name), patterns)


def marker_of(path: bytes, marker: str | None) -> bytes | None:
    """The path of the file that says that `path` is complete; None where none can, as for a marker itself.

    Without ``{name}`` the marker is one for the whole directory that `path` lies in.
    """
    if marker is None or is_marker(path, marker):
        return None
    directory, slash, name = path.rpartition(b"/")
    return directory + slash + os.fsencode(marker.replace("{name}", os.fsdecode(name)))


def is_marker(path: bytes, marker: str | None) -> bool:
    """Whether a path has the name of a marker: it belongs to no generation."""
    if marker is None:
        return False
    before, placeholder, after = marker.partition("{name}")
    name = os.fsdecode(path.rpartition(b"/")[2])
    if not placeholder:
        return name == marker
    return name.startswith(before) and name.endswith(after) and len(name) > len(before) + len(after)


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
