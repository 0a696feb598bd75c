"""What can be said of a file by its structure, and the bounded reader by which it is found out.

TORN means *certainly not whole*; COMPLETE means that the format ends where it should, and nothing more: whether
somebody still has the file open is another question (`gateway.spool.pin`), and both together are evidence 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

Read = Callable[[int, int], bytes]
"""`read(offset, length)`: the bytes from there; fewer only where the file ends."""

LOOK_BYTES = 256 * 1024
"""LIMIT: what one look reads of a file whatever its size, unless a format says otherwise."""

WINDOW_BYTES = 64 * 1024
"""LIMIT: how much of a tail is searched for the last record of a format."""


class State(StrEnum):
    COMPLETE = "complete"
    TORN = "torn"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """`kind`: the format that was recognised, empty for none. `detail`: one sentence for people."""

    state: State
    kind: str = ""
    detail: str = ""


class NotToldError(Exception):
    """Raised within a look: it would have to read more than it may, or the file is shorter than it was said to be."""


class Look:
    """Reads of one file, counted. `limit` None: no bound on the whole, only on each piece."""

    def __init__(self, size: int, read: Read, limit: int | None = LOOK_BYTES) -> None:
        self.size = size
        self.limit = limit
        self.spent = 0
        self._read = read

    def at(self, offset: int, length: int) -> bytes:
        """Exactly the bytes asked for, or fewer because the file ends. `NotToldError` beyond the limit."""
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0:
            return b""
        self.spent += length
        if self.limit is not None and self.spent > self.limit:
            raise NotToldError("it would take more than a bounded look")
        data = self._read(offset, length)
        if len(data) != length:
            raise NotToldError("it is shorter than it was said to be")
        return data

    def tail(self, length: int = WINDOW_BYTES) -> bytes:
        return self.at(max(0, self.size - length), length)

    def zeros_to_the_end(self, offset: int, at_most: int) -> bool:
        """Whether nothing but zeros follows; False too where that is more than `at_most` bytes."""
        length = self.size - offset
        return length <= at_most and not any(self.at(offset, length))


def complete(kind: str, detail: str) -> Structure:
    return Structure(state=State.COMPLETE, kind=kind, detail=detail)


def torn(kind: str, detail: str) -> Structure:
    return Structure(state=State.TORN, kind=kind, detail=detail)


def unknown(kind: str, detail: str) -> Structure:
    return Structure(state=State.UNKNOWN, kind=kind, detail=detail)
