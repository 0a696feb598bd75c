"""The lists of files that producers' scripts give to `gateway seal`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.api import SealedFile
from gateway.errors import UsageError


def parse_list(data: bytes, where: str) -> Iterator[SealedFile]:
    """The lines of a list of files: ``DIGEST  PATH`` as sha256sum writes it, or ``SIZE  PATH``, or only a path."""
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        first, _, rest = line.partition(b" ")
        rest = rest.removeprefix(b" ").removeprefix(b"*")
        if rest and re.fullmatch(rb"[0-9a-fA-F]{64}", first):
            yield SealedFile(path=rest, digest="sha256:" + first.decode().lower())
        elif rest and first.isdigit() and len(first) < 20:
            yield SealedFile(path=rest, size=int(first))
        elif line.startswith(b"/"):
            raise UsageError(
                f"{where}, line {number}: the path is absolute.",
                meaning="Paths are relative to the source's directory.",
                advice="Make the list in that directory.",
            )
        else:
            yield SealedFile(path=line)
