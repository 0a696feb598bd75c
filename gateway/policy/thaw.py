"""How a restore's packs are thawed: in which order and waves, for how many days, when to look again. Pure.

A *wave* is what the way from the store carries in `WAVE`: its packs are asked for when the waves before it are about
to be through, so that thawed copies stand no longer than they must, and no more of them lie in the scratch directory.
docs/design/jobs.md has the states.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

DAY = timedelta(days=1)
WAVE = timedelta(hours=8)
"""LIMIT: what a wave takes to be fetched."""
LOOKS = 24
"""LIMIT: looks in the longest time a thaw takes; the first half of it goes by without one."""
MORE_LOOKS = 4
"""LIMIT: looks before a wave is asked for: whether others thawed it, and again each time there is no capacity."""
SHORTEST_LOOK = timedelta(minutes=1)
DEFAULT_BYTES_PER_SECOND = 32 * 1024 * 1024
"""Taken for the way from the store where nothing was measured."""
HEADS_A_PAGE = 12
"""A page of a listing costs what so many HEAD requests do (S3's prices: LIST 0.005, GET and HEAD 0.0004 for 1,000)."""


class Stage(StrEnum):
    """Where a pack of a restore job is. COLD: to be asked for. ASKING: asked, the answer is not known. READY: can be
    read in the store. FETCHED: what is wanted of it lies in the job's scratch directory, or was delivered.
    """

    COLD = "cold"
    ASKING = "asking"
    THAWING = "thawing"
    READY = "ready"
    FETCHED = "fetched"


@dataclass(slots=True)
class Waves:
    """Groups the files of a restore, in the order of its list, by the packs they need.

    `limit_bytes`: of packs a wave may bring. A file lies in one wave; one whose packs are more than that makes a wave
    larger. `ends` has the item behind the last of every wave but the last.
    """

    limit_bytes: int
    ends: list[int] = field(default_factory=list)
    _filled: int = 0

    def add(self, at: int, new_bytes: int) -> int:
        """The wave of the file that is item number `at` and needs `new_bytes` of packs that none before needed."""
        if self._filled and new_bytes and self._filled + new_bytes > self.limit_bytes:
            self.ends.append(at)
            self._filled = 0
        self._filled += new_bytes
        return len(self.ends)

    def window(self, wave: int, total: int) -> tuple[int, int]:
        """First and last+1 item of a wave, of `total` waves' items."""
        first = self.ends[wave - 1] if wave else 0
        return first, self.ends[wave] if wave < len(self.ends) else total


def last_uses(direct: Mapping[int, int], bases: Iterable[tuple[int, int]]) -> dict[int, int]:
    """The last wave that needs each pack. `direct`: the last that reads a pack's chunks; `bases`: pairs of a pack and
    one that it stands on, which is needed for as long.
    """
    found = dict(direct)
    under: dict[int, set[int]] = {}
    for pack, base in bases:
        if pack != base:
            under.setdefault(pack, set()).add(base)
    todo = sorted(found, key=lambda pack: -found[pack])
    for start in todo:
        stack = [start]
        while stack:
            pack = stack.pop()
            for base in under.get(pack, ()):
                if found.get(base, -1) < found[start]:
                    found[base] = found[start]
                    stack.append(base)
    return found


def scratch_bytes(sizes: Mapping[int, int], first: Mapping[int, int], last: Mapping[int, int], waves: int) -> int:
    """The most that lies in the scratch directory at a time, if the next wave is fetched while one is delivered."""
    change = [0] * (waves + 2)
    for pack, size in sizes.items():
        change[max(0, first[pack] - 1)] += size
        change[last[pack] + 1] -= size
    most = held = 0
    for each in change:
        held += each
        most = max(most, held)
    return most


def starts(wave_bytes: Sequence[int], bytes_per_second: int) -> list[timedelta]:
    """When each wave is asked for, after the first: when those before it have had the time to be fetched."""
    found, sum_bytes = [], 0
    for size in wave_bytes:
        found.append(timedelta(seconds=sum_bytes / bytes_per_second))
        sum_bytes += size
    return found


def days(thaw: timedelta, fetch: timedelta) -> int:
    """For how many days a copy is asked for: S3 counts them from the request, and a day is for what goes slower."""
    return max(2, -(-(thaw + fetch) // DAY) + 1)


def kept(asked: datetime, days: int, thaw: timedelta) -> timedelta:
    """How long a copy stands that is asked for then: S3 lets it go at the midnight (UTC) after `days`."""
    end = (asked + timedelta(days=days)).astimezone(UTC)
    midnight = end.replace(hour=0, minute=0, second=0, microsecond=0)
    if midnight < end:
        midnight += DAY
    return max(timedelta(), midnight - asked - thaw)


def next_look(asked: datetime, at_most: timedelta, now: datetime) -> datetime:
    """When to look next whether what was asked for then is thawed."""
    first = asked + at_most / 2
    if now < first:
        return first
    return now + max(SHORTEST_LOOK, at_most / LOOKS)


def looks(at_most: timedelta) -> int:
    """How often a thaw is looked at if it takes as long as it may."""
    step = max(SHORTEST_LOOK, at_most / LOOKS)
    return 1 + -(-(at_most / 2) // step)


def by_listing(packs: int, keys: int, page: int) -> bool:
    """Whether a listing of `keys` names costs less than one HEAD for each of `packs`."""
    return packs > HEADS_A_PAGE * max(1, -(-keys // page))
