"""Tells of work that takes long: that it goes on, and how far it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from gateway.api import Progress, ProgressCallback
from gateway.clock import Clock

TELL_SECONDS = 0.2
"""LIMIT: between two reports; `gateway.api` allows some ten a second."""

LOOK_SECONDS = 5.0
"""LIMIT: between two reports of a walk, which usually is over before, or has reads to tell of."""

_Piece = TypeVar("_Piece")


class Pace:
    """INVARIANT: whatever may take minutes on the worker takes a `step` for every piece of it. By that the engine shows
    that it does not hang, `gateway status` says what it does, and a stop takes effect: `tell` may raise `Stopped`.
    """

    def __init__(
        self, clock: Clock, tell: ProgressCallback, phase: str, unit: str = "bytes", every: float = TELL_SECONDS
    ) -> None:
        self._every = every
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
        if now - self._told >= self._every:
            self._told = now
            self._tell(Progress(phase=self._phase, done=self._done, unit=self._unit))

    def over(self, pieces: Iterable[_Piece]) -> Iterator[_Piece]:
        """A step for each piece, before somebody has it."""
        for each in pieces:
            self.step(1)
            yield each

    def others_tell(self) -> None:
        """Somebody else has just told of the same work."""
        self._told = self._clock.monotonic()
