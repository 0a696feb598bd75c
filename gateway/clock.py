"""The one clock, and the one source of randomness.

Nothing else in the gateway asks the operating system for the time, sleeps or draws random bytes (enforced by
lint), so that a test can give all three.
"""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Time as the gateway sees it. Implementations are thread-safe."""

    def now(self) -> datetime:
        """Wall-clock time, aware UTC. For what people and the store read; never for measuring durations."""

    def monotonic(self) -> float:
        """Seconds that only go forward. For settle times, deadlines and rates."""

    def sleep(self, seconds: float) -> None: ...

    def random_bytes(self, count: int) -> bytes:
        """Bytes fit for keys, salts and ids."""

    def uniform(self, low: float, high: float) -> float:
        """A number for jitter; not for secrets."""


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def random_bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * int.from_bytes(os.urandom(7)) / 2**56


class FakeClock:
    """A clock that moves only when told to, or by the sleeps of those who use it. Random bytes come from a seed."""

    def __init__(self, start: datetime, *, seed: bytes | None = None) -> None:
        self._lock = threading.Lock()
        self._now = start
        self._monotonic = 1000.0
        self._seed = seed
        self._drawn = 0
        self.slept: list[float] = []

    def now(self) -> datetime:
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        with self._lock:
            return self._monotonic

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept.append(seconds)
        self.advance(timedelta(seconds=seconds))

    def advance(self, by: timedelta) -> None:
        with self._lock:
            self._now += by
            self._monotonic += by.total_seconds()

    def random_bytes(self, count: int) -> bytes:
        if self._seed is None:
            return os.urandom(count)
        from hashlib import shake_256

        with self._lock:
            self._drawn += 1
            return shake_256(self._seed + self._drawn.to_bytes(8)).digest(count)

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2


def milliseconds(moment: datetime) -> int:
    """Milliseconds since 1970-01-01T00:00:00Z, the unit of every time in the format."""
    return round(moment.timestamp() * 1000)


def from_milliseconds(value: int) -> datetime:
    return datetime.fromtimestamp(value / 1000, UTC)


def text(moment: datetime) -> str:
    """``2026-11-25T07:00:00Z``: how times are written in JSON objects and shown to people."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
