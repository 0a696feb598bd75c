"""Tells of work that takes long: that it goes on, and how far it is."""

from __future__ import annotations

from gateway.api import Progress, ProgressCallback
from gateway.clock import Clock

TELL_SECONDS = 0.2
"""LIMIT: between two reports; `gateway.api` allows some ten a second."""


class Pace:
    """INVARIANT: whatever may take minutes on the worker takes a `step` for every piece of it. By that the engine shows
    that it does not hang, `gateway status` says what it does, and a stop takes effect: `tell` may raise `Stopped`.
    """

    def __init__(self, clock: Clock, tell: ProgressCallback, phase: str, unit: str = "bytes") -> None:
        self._clock = clock
        self._tell = tell
        self._phase = phase
        self._unit = unit
        self._done = 0
        self._told = clock.monotonic()

    def step(self, count: int = 0) -> None:
        """So many units more are done. Costs next to nothing, and tells nothing of what is over at once."""
        self._done += count
        now = self._clock.monotonic()
        if now - self._told >= TELL_SECONDS:
            self._told = now
            self._tell(Progress(phase=self._phase, done=self._done, unit=self._unit))
