"""A keeper that is turned by hand, on a clock that shows the time of the files, and that hears of no event."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.api import SourceIngest, no_progress
from gateway.jobs.alarms import Alarms
from gateway.jobs.keeper import Barrier, Keeper
from tests.flow.gateways import Gateway


class Unwatched(Keeper):
    """As on NFS, after an overflow, or in the moment before an event arrives: hints are given by the test."""

    def _watch_events(self) -> None:
        return


@dataclass
class HandTurned:
    gateway: Gateway
    keeper: Keeper

    @classmethod
    def of(cls, gateway: Gateway, **changes: Any) -> HandTurned:
        gateway.change(generation_interval=timedelta(), **changes)
        gateway.clock.advance(datetime.now(UTC) - gateway.clock.now())
        context = gateway.engine.hold()
        alarms = Alarms(context.catalog, gateway.clock, context.log)
        return cls(gateway, Unwatched(context, gateway.config.sources[0], alarms))

    def turn(self, *seconds: float) -> None:
        """One turn after each of these pauses."""
        for each in seconds:
            self.gateway.clock.advance(timedelta(seconds=each))
            self.keeper.turn(no_progress)

    def ask(self) -> Barrier:
        now = self.gateway.clock.monotonic()
        barrier = Barrier(begun=now, deadline=now + 15)
        self.keeper.barriers.append(barrier)
        return barrier

    def numbers(self) -> list[int]:
        return [each.number for each in self.gateway.engine.generations("src")]


def answer(barrier: Barrier) -> SourceIngest:
    assert barrier.done
    assert barrier.report is not None
    return barrier.report


def held(barrier: Barrier) -> list[bytes]:
    """What an answer names as held back."""
    return [each.path for each in answer(barrier).held_back]
