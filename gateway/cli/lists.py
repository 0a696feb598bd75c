"""The lists of files that producers' scripts give to `gateway seal`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.api import SealedFile
from gateway.errors import UsageError

_ESCAPED = re.compile(rb"\\([\\nr])")
_MEANT = {b"\\": b"\\", b"n": b"\n", b"r": b"\r"}


def parse_list(data: bytes, where: str) -> Iterator[SealedFile]:
    """The lines of a list of files: ``DIGEST  PATH`` as sha256sum writes it, or ``SIZE  PATH``, or only a path.

    sha256sum begins a line with a backslash where it escaped the name's own backslashes and line ends.
    """
    for number, line in enumerate(re.split(rb"\r?\n", data.removesuffix(b"\r")), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        one = _parsed(line)
        if one.path.startswith(b"/"):
            raise UsageError(
                f"{where}, line {number}: the path is absolute.",
                meaning="Paths are relative to the source's directory.",
                advice="Make the list in that directory.",
            )
        yield one


def _parsed(line: bytes) -> SealedFile:
    escaped = re.match(rb"\\[0-9a-fA-F]{64} ", line) is not None
    first, _, rest = line.removeprefix(b"\\" if escaped else b"").partition(b" ")
    rest = rest[1:] if rest.startswith((b" ", b"*")) else rest
    if rest and re.fullmatch(rb"[0-9a-fA-F]{64}", first):
        path = _ESCAPED.sub(lambda found: _MEANT[found[1]], rest) if escaped else rest
        return SealedFile(path=path, digest="sha256:" + first.decode().lower())
    if rest and first.isdigit() and len(first) < 20:
        return SealedFile(path=rest, size=int(first))
    return SealedFile(path=line)
