"""How archived objects thaw and grow cold again, as S3 does it: pure. `gateway.store.shelf` acts on it.

An archived object is *cold*, *thawing* or *thawed*; which one follows from its `Copy` and the time alone, so nothing
has to happen when a thaw is over or a copy expires. docs/design/coldsim.md has the states and what always holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final

from gateway.store.lifecycle import ARCHIVED, midnight
from gateway.store.port import Thaw, ThawAnswer, ThawTier

_HOUR: Final = timedelta(hours=1)
_MINUTE: Final = timedelta(minutes=1)
# How long a thaw takes, from and to (S3 user guide, "Understanding archive retrieval options"). Where the guide gives
# the longest time only, the shortest is ours.
_TAKES: Final = {
    ("GLACIER", ThawTier.EXPEDITED): (_MINUTE, 5 * _MINUTE),
    ("GLACIER", ThawTier.STANDARD): (3 * _HOUR, 5 * _HOUR),
    ("GLACIER", ThawTier.BULK): (5 * _HOUR, 12 * _HOUR),
    ("DEEP_ARCHIVE", ThawTier.STANDARD): (9 * _HOUR, 12 * _HOUR),
    ("DEEP_ARCHIVE", ThawTier.BULK): (36 * _HOUR, 48 * _HOUR),
}
# LIMIT: what Expedited brings within its 5 minutes, and how many bytes of more in a second (the same).
EXPEDITED_BYTES: Final = 250_000_000
EXPEDITED_RATE: Final = 300_000_000
_FAST: Final = (ThawTier.EXPEDITED, ThawTier.STANDARD, ThawTier.BULK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What is chance at S3, drawn from a seed: how long each thaw takes, and whether Expedited has capacity.

    `expedited_capacity`: the share of Expedited requests that are taken. The same calls give the same answers.
    """

    seed: int = 0
    expedited_capacity: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.expedited_capacity <= 1:
            raise ValueError("a share is between 0 and 1")

    def _draw(self, *what: object) -> float:
        """Evenly from [0, 1)."""
        text = "\0".join(map(str, (self.seed, *what))).encode()
        return int.from_bytes(blake2b(text, digest_size=6).digest()) / 2**48

    def takes(self, *, key: str, size: int, storage_class: str, tier: ThawTier, now: datetime) -> timedelta:
        """How long a thaw that begins now takes, in whole seconds."""
        shortest, longest = _TAKES[storage_class, tier]
        drawn = shortest + (longest - shortest) * self._draw("takes", key, storage_class, tier, now.isoformat())
        if tier is ThawTier.EXPEDITED and size >= EXPEDITED_BYTES:
            drawn += timedelta(seconds=(size - EXPEDITED_BYTES) / EXPEDITED_RATE)
        return timedelta(seconds=int(drawn.total_seconds()))

    def has_capacity(self, key: str, now: datetime) -> bool:
        return self._draw("capacity", key, now.isoformat()) < self.expedited_capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A thaw that was asked for: readable in ``[ready, until)``, which may be empty."""

    tier: ThawTier
    days: int
    ready: datetime
    until: datetime

    def state(self, now: datetime) -> Thaw | None:
        """None: cold again."""
        if now < self.ready:
            return Thaw(in_progress=True)
        return Thaw(in_progress=False, until=self.until) if now < self.until else None

    def readable(self, now: datetime) -> bool:
        return self.ready <= now < self.until


def has_tier(storage_class: str, tier: ThawTier) -> bool:
    return (storage_class, tier) in _TAKES


def ask(
    copy: Copy | None,
    *,
    key: str,
    size: int,
    storage_class: str,
    days: int,
    tier: ThawTier,
    now: datetime,
    weather: Weather,
) -> tuple[ThawAnswer, Copy | None]:
    """S3's answer to RestoreObject and the copy there is afterwards. The class must have the tier.

    LIMIT: of a thaw that is hastened the end stays as the first request set it.
    """
    if storage_class not in ARCHIVED:
        return ThawAnswer.NEVER_COLD, copy
    until = midnight(now + timedelta(days=days))
    state = copy.state(now) if copy is not None else None
    if copy is not None and state is not None and not state.in_progress:
        return ThawAnswer.EXTENDED, replace(copy, days=days, until=until)
    running = copy if state is not None else None
    if running is not None and (days != running.days or _FAST.index(tier) >= _FAST.index(running.tier)):
        return ThawAnswer.RUNNING, copy
    if tier is ThawTier.EXPEDITED and not weather.has_capacity(key, now):
        return ThawAnswer.NO_CAPACITY, copy
    ready = now + weather.takes(key=key, size=size, storage_class=storage_class, tier=tier, now=now)
    if running is not None:
        return ThawAnswer.STARTED, replace(running, tier=tier, ready=min(ready, running.ready))
    return ThawAnswer.STARTED, Copy(tier=tier, days=days, ready=ready, until=until)
