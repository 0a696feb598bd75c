"""What `probe` finds out is what the stores really do."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.clock import FakeClock, SystemClock
from gateway.errors import StoreDenied, StoreUnreachable
from gateway.store.memory import MemoryStore
from gateway.store.probe import probe
from tests.contract.stores import Subject


def test_finds_the_habits(subject: Subject) -> None:
    found, notes = probe(subject.store, SystemClock())
    habits = subject.habits
    assert found.conditional_put
    assert found.ranges
    assert found.listing
    assert found.classes == habits.knows_classes
    assert found.checksums == (habits.states_checksums and habits.refuses_bad_checksum)
    assert len(notes) == (not found.checksums) + (not found.classes)
    assert list(subject.store.list_objects("")) == []
    again, _ = probe(subject.store, SystemClock())
    assert again == found


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 1, 1, tzinfo=UTC), seed=b"probe")


def test_poor_stores(clock: FakeClock) -> None:
    store = MemoryStore(clock, states_checksums=False, knows_classes=False, conditional_put=False)
    found, notes = probe(store, clock)
    assert (found.conditional_put, found.checksums, found.classes) == (False, False, False)
    assert len(notes) == 3


def test_may_not_delete(clock: FakeClock) -> None:
    store = MemoryStore(clock, faults="delete:*=denied")
    found, notes = probe(store, clock)
    assert found.conditional_put
    assert len(notes) == 1
    assert ".probe/" in notes[0]


@pytest.mark.parametrize(("faults", "error"), [("put:1=denied", StoreDenied), ("get:1=503", StoreUnreachable)])
def test_no_store_at_all(clock: FakeClock, faults: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        probe(MemoryStore(clock, faults=faults), clock)
