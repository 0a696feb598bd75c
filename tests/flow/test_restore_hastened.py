"""Restore jobs under other terms: what thaws too slowly is asked for again, deadlines are kept or refused."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.api import JobInfo, Reference, RestoreState
from gateway.errors import StoreUnreachable
from gateway.jobs import restores
from gateway.store.meter import Operation
from gateway.store.port import ThawTier
from tests.flow.cold_restores import freeze
from tests.flow.gateways import Gateway
from tests.flow.trees import tree

HOUR = timedelta(hours=1)
SRC = Reference.parse("src")


@pytest.fixture(autouse=True)
def _waits_in_long_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restores, "WAITED_SECONDS", 600.0)


@pytest.fixture
def frozen(gateway: Gateway) -> Gateway:
    freeze(gateway, files="abcd")
    return gateway


def begun(gateway: Gateway, name: str = "to", **options: Any) -> tuple[JobInfo, Path]:
    target = gateway.root / name
    gateway.engine.restore(SRC, target, detach=True, **options)
    return gateway.engine.jobs()[0], target


def thaws(gateway: Gateway) -> list[tuple[int, ThawTier]]:
    """What was asked for: the answer's status, and the tier."""
    return [(e.status, e.tier) for e in gateway.store.log() if e.what is Operation.THAW and e.tier is not None]


def delivered(gateway: Gateway, job: JobInfo, target: Path) -> JobInfo:
    gateway.engine.watch_job(job.id)
    assert tree(target) == tree(gateway.source.root)
    now = gateway.engine.job(job.id)
    assert now.state is RestoreState.DELIVERED
    return now


# --- hastening --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("age", [0, 1, 4])
def test_a_nearer_deadline_hastens_however_old_the_job_is(frozen: Gateway, age: int) -> None:
    job, target = begun(frozen)
    asked = thaws(frozen)
    assert set(asked) == {(202, ThawTier.BULK)}
    frozen.clock.advance(age * HOUR)
    start = frozen.clock.now()
    assert frozen.engine.resume_job(job.id, deadline=HOUR).tier == "expedited"
    delivered(frozen, job, target)
    assert frozen.clock.now() - start < HOUR
    assert thaws(frozen)[len(asked) :] == [(202, ThawTier.EXPEDITED)] * len(asked)


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_killed_while_it_hastens(frozen: Gateway, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    """Nobody can say which tier goes on: it is asked for once more, whatever the job's age is."""
    job, target = begun(frozen)
    asked = len(thaws(frozen))
    frozen.clock.advance(HOUR)
    start = frozen.clock.now()
    frozen.engine.resume_job(job.id, deadline=HOUR)
    thaw = frozen.store.thaw

    def unreachable(*arguments: Any, **options: Any) -> Any:
        if lost == "answer":
            thaw(*arguments, **options)
        raise StoreUnreachable("Nobody answers.")

    frozen.open()
    monkeypatch.setattr(frozen.store, "thaw", unreachable)
    with pytest.raises(StoreUnreachable):
        frozen.engine.watch_job(job.id)
    monkeypatch.setattr(frozen.store, "thaw", thaw)
    frozen.open()
    delivered(frozen, job, target)
    assert frozen.clock.now() - start < HOUR
    assert thaws(frozen).count((202, ThawTier.EXPEDITED)) == asked
