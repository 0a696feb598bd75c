"""What lay in a spool, and when: the truth that a gateway's generations are measured against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from blake3 import blake3

from tests.writers.plan import is_temporary

LARGEST = 64 * 1024 * 1024
"""Up to here the digest of a file in `gateway ls` is the BLAKE3 of its bytes (docs/format/data.md)."""


def digest_of(data: bytes | bytearray) -> str:
    """The digest of a file as the gateway states it."""
    if len(data) > LARGEST:
        raise ValueError("the digest of a file above 64 MiB is made of pieces")
    return blake3(data).hexdigest()


class Ended(StrEnum):
    """How a version came to be what it is."""

    OPEN = "open"
    """A writer still has it open, or mapped: there may be more to come."""
    CLOSED = "closed"
    KILLED = "killed"
    RENAMED = "renamed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One state of a path.

    `complete`: the producer says that it is whole. `structure`: the bytes alone show that they are.
    `evidence`: what a gateway can know of it at least (0 while it is not complete), `evidence_limit` what it may claim
    at most. `first` and `last` are monotonic seconds: from `first` to `last` it lay there, unchanged and with no change
    under way; None while it still does.
    """

    digest: str
    size: int
    complete: bool
    structure: bool
    ended: Ended
    evidence: int
    evidence_limit: int
    first: float
    last: float | None = None

    def until(self, end: float) -> float:
        return end if self.last is None else self.last

    @property
    def torn(self) -> bool:
        return not self.complete

    @property
    def beyond_telling(self) -> bool:
        """No writer, and bytes that look whole, but are not: nobody could know. Schedules do not make it."""
        return self.torn and self.structure and self.ended is not Ended.OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """The versions of every path, oldest first. `wall` is the wall clock's time at the monotonic moment `began`."""

    versions: Mapping[str, tuple[Version, ...]]
    began: float
    end: float
    wall: datetime

    def moment(self, when: datetime) -> float:
        """The monotonic moment of a time of the wall clock, as far as that did not jump."""
        return self.began + (when - self.wall).total_seconds()

    def stood_until(self, end: float) -> Oracle:
        """The same, when nothing was written for some time more."""
        return replace(self, end=end)

    def all(self) -> Iterator[tuple[str, Version]]:
        for path, versions in self.versions.items():
            for version in versions:
                yield path, version

    def matching(self, path: str, digest: str, size: int) -> list[Version]:
        return [each for each in self.versions.get(path, ()) if (each.digest, each.size) == (digest, size)]


def evidence_of(path: str, *, complete: bool, structure: bool, moved: bool, into_place: bool) -> tuple[int, int]:
    """What a gateway can know at least, and may claim at most. `moved`: by a rename of it or of a directory above;
    `into_place`: from a temporary name.

    Both are 1 at most for what is torn: neither a structure nor a rename makes it whole.
    """
    if not complete:
        return 0, 1
    low = 0 if is_temporary(path) else 3 if into_place else 2 if structure else 1
    return low, 3 if moved else 2 if structure else 1
