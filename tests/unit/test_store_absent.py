"""A store that never answered is not waited for as long as one that did."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from gateway.clock import FakeClock
from gateway.errors import ObjectMissing, StoreAbsent, StoreUnreachable
from gateway.store.crc import crc64
from gateway.store.memory import MemoryStore
from gateway.store.passing import PassingStore
from gateway.store.wrap import ABSENT, RetryingStore, RetryPolicy

LONG = RetryPolicy().total.total_seconds()


class Gone(PassingStore):
    """A store whose requests end in `error` while that is set."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(MemoryStore(clock))
        self.error: StoreUnreachable | None = StoreAbsent("nobody there")

    def _ask(self) -> None:
        if self.error is not None:
            raise self.error

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self._ask()
        return super().get(key, start=start, length=length)

    def put(self, key: str, data: bytes | memoryview, **how):  # type: ignore[no-untyped-def]
        self._ask()
        return super().put(key, data, **how)

    def list_objects(self, prefix: str, *, after: str = ""):  # type: ignore[no-untyped-def]
        self._ask()
        return super().list_objects(prefix, after=after)


def waited(clock: FakeClock, call: Callable[[], object]) -> float:
    """How long a call tries before it gives up."""
    before = clock.monotonic()
    with pytest.raises(StoreUnreachable):
        call()
    return clock.monotonic() - before


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 1, 1, tzinfo=UTC), seed=b"absent")


FIRST: dict[str, Callable[[RetryingStore], object]] = {
    "get": lambda store: store.get("a"),
    "put": lambda store: store.put("a", b"", crc64=crc64(b"")),
    "list": lambda store: list(store.list_objects("")),
}


@pytest.mark.parametrize("first", list(FIRST))
def test_a_store_that_was_never_there_is_given_up_soon_and_one_that_was_is_not(first: str, clock: FakeClock) -> None:
    gone = Gone(clock)
    store = RetryingStore(gone, clock)
    ask = FIRST[first]
    assert 0 < waited(clock, lambda: ask(store)) <= ABSENT.total_seconds()

    gone.error = None
    if first == "get":
        with pytest.raises(ObjectMissing):  # an answer, too
            ask(store)
    else:
        ask(store)
    gone.error = StoreAbsent("gone")
    assert ABSENT.total_seconds() < waited(clock, lambda: ask(store)) <= LONG


def test_a_store_that_answers_it_is_busy_is_waited_for(clock: FakeClock) -> None:
    gone = Gone(clock)
    gone.error = StoreUnreachable("503")
    store = RetryingStore(gone, clock)
    assert ABSENT.total_seconds() < waited(clock, lambda: store.get("a")) <= LONG
    gone.error = StoreAbsent("gone")
    assert ABSENT.total_seconds() < waited(clock, lambda: store.get("a")) <= LONG
