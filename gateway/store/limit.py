"""A limit on the bandwidth that a gateway takes from a line it shares."""

from __future__ import annotations

import threading

from gateway.clock import Clock
from gateway.store.passing import PassingStore
from gateway.store.port import ObjectFacts, ObjectStore, Part


class Pace:
    """Hands out time on a line of `bytes_per_second`. Thread-safe: threads queue up behind one another."""

    def __init__(self, clock: Clock, bytes_per_second: int) -> None:
        if bytes_per_second <= 0:
            raise ValueError("a line of no bandwidth")
        self._clock = clock
        self._rate = bytes_per_second
        self._lock = threading.Lock()
        self._free_at = clock.monotonic()

    def take(self, count: int) -> None:
        """Sleep until `count` more bytes may be sent. Idle time is not saved up for later bursts."""
        with self._lock:
            now = self._clock.monotonic()
            begin = max(now, self._free_at)
            self._free_at = begin + count / self._rate
        if begin > now:
            self._clock.sleep(begin - now)


class LimitedStore(PassingStore):
    """Any store, sending objects and parts no faster on average than a limit. Reads are not limited."""

    def __init__(self, inner: ObjectStore, clock: Clock, *, bytes_per_second: int) -> None:
        super().__init__(inner)
        self._pace = Pace(clock, bytes_per_second)

    def put(
        self,
        key: str,
        data: bytes | memoryview,
        *,
        crc64: int,
        storage_class: str = "STANDARD",
        if_absent: bool = False,
    ) -> ObjectFacts:
        self._pace.take(len(data))
        return super().put(key, data, crc64=crc64, storage_class=storage_class, if_absent=if_absent)

    def put_part(self, key: str, upload_id: str, number: int, data: bytes | memoryview, *, crc64: int) -> Part:
        self._pace.take(len(data))
        return super().put_part(key, upload_id, number, data, crc64=crc64)
