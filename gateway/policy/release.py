"""Which spool files may be removed because their versions are safely in the store. Pure, with a reason for each.

A file may go when its version was read for a generation that is protected and proved, and at least `keep_generations`
protected generations of the source are as new as that one or newer, so that the files of the newest ones stay at hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gateway.model.entry import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A file in the spool as it was read. `held_ms`: when the reading began that first found it with its content.
    `group`: the backup job that it belongs to, which goes as a whole; empty: it is for itself."""

    path: bytes
    identity: Identity
    held_ms: int
    group: str = ""

    @property
    def size(self) -> int:
        return self.identity.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    version: Version
    reason: str


def bound(begun_ms: list[int], keep_generations: int) -> int | None:
    """Versions read before this moment are in an old enough generation. `begun_ms`: of the protected generations.

    The newest `keep_generations` generations keep what they were the first to hold; the newest always does.
    """
    newest_first = sorted(begun_ms, reverse=True)
    keep = max(1, keep_generations)
    if len(newest_first) <= keep:
        return None
    return newest_first[keep - 1]


def choose(versions: Iterable[Version], *, before_ms: int, wanted: int | None) -> Iterator[Decision]:
    """The oldest first until `wanted` bytes are reached; None: all that may go. Of a group all or nothing."""
    every, began, ended = list(versions), dict[str, int](), dict[str, int]()
    for each in every:
        began[each.group] = min(began.get(each.group, each.held_ms), each.held_ms)
        ended[each.group] = max(ended.get(each.group, each.held_ms), each.held_ms)

    def place(each: Version) -> tuple[int, str, int, bytes]:
        return (began[each.group] if each.group else each.held_ms, each.group, each.held_ms, each.path)

    old = [each for each in every if (ended[each.group] if each.group else each.held_ms) < before_ms]
    freed, last = 0, ""
    for each in sorted(old, key=place):
        if wanted is not None and freed >= wanted and (not each.group or each.group != last):
            return
        freed, last = freed + each.size, each.group
        yield Decision(version=each, reason="its version is protected, and enough newer generations are, too")
