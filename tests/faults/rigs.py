"""The two ways to a store in memory: over HTTP through the proxy, and through faults at the port itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from gateway.clock import FakeClock
from gateway.format import names
from gateway.store.faults import Fault
from gateway.store.memory import MemoryStore
from gateway.store.meter import Operation
from gateway.store.port import ObjectStore
from gateway.store.s3 import S3Settings, S3Store
from gateway.store.wrap import RetryingStore
from tests.contract.stores import session
from tests.faults.job import POLICY, Case, Surprise, new_clock
from tests.faults.kinds import KINDS, Wire
from tests.faults.proxy import Proxy
from tests.faults.truth import BUCKET, S3

READ_TIMEOUT = timedelta(seconds=20)
SHORT_TIMEOUT = timedelta(milliseconds=400)
"""Real time: as short as a busy machine bears, because every stalled answer costs it."""


def s3_store(proxy: Proxy, *, short: bool = False) -> S3Store:
    return S3Store(
        S3Settings(
            bucket=BUCKET, endpoint_url=proxy.url, addressing_style="path", byte_order=True,
            read_timeout=SHORT_TIMEOUT if short else READ_TIMEOUT, connect_timeout=timedelta(seconds=5),
        ),
        session=session(),
    )  # fmt: skip


@dataclass(slots=True)
class Wires:
    """The proxy and the two clients of it that all cases share."""

    proxy: Proxy
    patient: S3Store
    hasty: S3Store


class ProxyRig:
    """S3Store over HTTP."""

    def __init__(self, wires: Wires, objects: dict[str, bytes], case: Case | None) -> None:
        self.clock = new_clock(str(case))
        self.memory = MemoryStore(self.clock, min_part_bytes=1024)
        self.memory.load(objects)
        self.proxy = wires.proxy
        self.proxy.serve(S3(self.memory))
        stalls = case is not None and KINDS[case.fault].wire is Wire.STALL
        self._store = RetryingStore(wires.hasty if stalls else wires.patient, self.clock, POLICY)

    @property
    def store(self) -> ObjectStore:
        return self._store

    def arm(self, case: Case) -> None:
        self.proxy.arm(f"{case.operation}:{case.which}={case.fault}")

    def interrupt(self) -> None:
        self.proxy.arm("part:3+=access-denied")

    def heal(self) -> None:
        self.proxy.heal()

    def requests(self) -> Counter[str]:
        with self.proxy.lock:
            return Counter(self.proxy.seen.requests)

    def hits(self) -> int:
        return self.proxy.armed_hits()

    def hit_a_slot(self) -> bool:
        return False  # the client's checksums find what is harmed on the way

    def race(self, racer: Callable[[], None]) -> None:
        self.proxy.race = racer

    def check(self) -> None:
        if self.proxy.seen.sent_again:
            raise Surprise(f"acknowledged, and sent again: {self.proxy.seen.sent_again}")


# The proxy's operations at the port. Ranges and whole objects are one there.
AT_THE_PORT = {
    "put-header": "put@header", "put-wrap": "put@/wraps/", "put-entry": "put@/log/", "put-index": "put@/index/",
    "put-pack": "put@packs/", "part": "part", "start": "start", "complete": "complete", "parts": "parts",
    "head": "head", "get": "get", "range": "get@packs/", "list": "list", "put-slot": "put@slots/",
    "put-repository": "put@repository",
}  # fmt: skip


class MemoryRig:
    """The store in memory itself, with `gateway.store.faults`."""

    def __init__(self, objects: dict[str, bytes], case: Case | None) -> None:
        self.clock: FakeClock = new_clock(str(case))
        self.memory = MemoryStore(self.clock, min_part_bytes=1024)
        self.memory.load(objects)
        self._store = RetryingStore(self.memory, self.clock, POLICY)
        self._hits: list[str] = []
        take = self.memory.faults.take

        def counted(operation: Operation, key: str) -> Fault | None:
            fault = take(operation, key)
            if fault is not None:
                self._hits.append(key)
            return fault

        self.memory.faults.take = counted  # type: ignore[method-assign]

    @property
    def store(self) -> ObjectStore:
        return self._store

    def arm(self, case: Case) -> None:
        self.memory.faults.add(f"{AT_THE_PORT[case.operation]}:{case.which}={KINDS[case.fault].script}")

    def interrupt(self) -> None:
        self.memory.faults.add("part:3+=denied")

    def heal(self) -> None:
        self.memory.faults.clear()

    def requests(self) -> Counter[str]:
        meter = self.memory.meter()
        return Counter({str(each): meter.requests(each) for each in Operation})

    def hits(self) -> int:
        return len(self._hits)

    def hit_a_slot(self) -> bool:
        return any(key.startswith(names.SLOTS) for key in self._hits)

    def race(self, racer: Callable[[], None]) -> None:
        return

    def check(self) -> None:
        return
