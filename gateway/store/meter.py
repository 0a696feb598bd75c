"""Counting requests and bytes, per operation, as a store would bill them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from gateway.store.lifecycle import Lifecycle
from gateway.store.passing import PassingStore
from gateway.store.port import PAGE_KEYS, ObjectFacts, ObjectStore, Part, ThawAnswer, ThawTier, Upload


class Operation(StrEnum):
    """The methods of the port under the short names that meters and fault scripts use."""

    PUT = "put"
    GET = "get"
    HEAD = "head"
    LIST = "list"
    DELETE = "delete"
    START = "start"
    PART = "part"
    PARTS = "parts"
    COMPLETE = "complete"
    ABORT = "abort"
    UPLOADS = "uploads"
    THAW = "thaw"
    RULES = "rules"
    NEWRULES = "newrules"

    @property
    def writes(self) -> bool:
        """Whether a lost answer leaves the store in doubt."""
        return self in _WRITES


_WRITES = frozenset(
    {
        Operation.PUT, Operation.DELETE, Operation.START, Operation.PART, Operation.COMPLETE, Operation.ABORT,
        Operation.THAW, Operation.NEWRULES,
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """`sent` and `received` are bytes of objects; names, headers and XML are not counted."""

    requests: int = 0
    sent: int = 0
    received: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            requests=self.requests + other.requests,
            sent=self.sent + other.sent,
            received=self.received + other.received,
        )

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(
            requests=self.requests - other.requests,
            sent=self.sent - other.sent,
            received=self.received - other.received,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """What was counted up to one moment. ``later - earlier`` is what happened in between."""

    by_operation: Mapping[Operation, Traffic]

    def of(self, operation: Operation | str) -> Traffic:
        return self.by_operation.get(Operation(operation), Traffic())

    def requests(self, operation: Operation | str) -> int:
        return self.of(operation).requests

    @property
    def total(self) -> Traffic:
        return sum(self.by_operation.values(), Traffic())

    def __sub__(self, other: Meter) -> Meter:
        names = self.by_operation.keys() | other.by_operation.keys()
        return Meter(by_operation=MappingProxyType({name: self.of(name) - other.of(name) for name in names}))


class Tally:
    """Counts for one store. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[Operation, list[int]] = {}

    def add(self, operation: Operation, *, requests: int = 1, sent: int = 0, received: int = 0) -> None:
        with self._lock:
            counts = self._counts.setdefault(operation, [0, 0, 0])
            counts[0] += requests
            counts[1] += sent
            counts[2] += received

    def meter(self) -> Meter:
        with self._lock:
            counted = {
                name: Traffic(requests=requests, sent=sent, received=received)
                for name, (requests, sent, received) in self._counts.items()
            }
        return Meter(by_operation=MappingProxyType(counted))


class CountingStore(PassingStore):
    """Any store with a meter. A request that failed counts like any other; `received` counts what arrived."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._tally = Tally()

    def meter(self) -> Meter:
        """What was counted so far."""
        return self._tally.meter()

    def put(
        self,
        key: str,
        data: bytes | memoryview,
        *,
        crc64: int,
        storage_class: str = "STANDARD",
        if_absent: bool = False,
    ) -> ObjectFacts:
        self._tally.add(Operation.PUT, sent=len(data))
        return super().put(key, data, crc64=crc64, storage_class=storage_class, if_absent=if_absent)

    def put_file(
        self, key: str, path: Path, *, size: int, crc64: int, storage_class: str = "STANDARD"
    ) -> ObjectFacts | None:
        facts = super().put_file(key, path, size=size, crc64=crc64, storage_class=storage_class)
        if facts is not None:
            self._tally.add(Operation.PUT, sent=size)
        return facts

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self._tally.add(Operation.GET)
        data = super().get(key, start=start, length=length)
        self._tally.add(Operation.GET, requests=0, received=len(data))
        return data

    def head(self, key: str) -> ObjectFacts:
        self._tally.add(Operation.HEAD)
        return super().head(key)

    def list_objects(self, prefix: str, *, after: str = "") -> Iterator[ObjectFacts]:
        self._tally.add(Operation.LIST)
        for count, facts in enumerate(super().list_objects(prefix, after=after)):
            if count and count % PAGE_KEYS == 0:
                self._tally.add(Operation.LIST)
            yield facts

    def delete(self, key: str) -> None:
        self._tally.add(Operation.DELETE)
        super().delete(key)

    def start_upload(self, key: str, *, storage_class: str = "STANDARD") -> str:
        self._tally.add(Operation.START)
        return super().start_upload(key, storage_class=storage_class)

    def put_part(self, key: str, upload_id: str, number: int, data: bytes | memoryview, *, crc64: int) -> Part:
        self._tally.add(Operation.PART, sent=len(data))
        return super().put_part(key, upload_id, number, data, crc64=crc64)

    def list_parts(self, key: str, upload_id: str) -> list[Part]:
        self._tally.add(Operation.PARTS)
        return super().list_parts(key, upload_id)

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part], *, size: int, crc64: int) -> ObjectFacts:
        self._tally.add(Operation.COMPLETE)
        return super().complete_upload(key, upload_id, parts, size=size, crc64=crc64)

    def abort_upload(self, key: str, upload_id: str) -> None:
        self._tally.add(Operation.ABORT)
        super().abort_upload(key, upload_id)

    def list_uploads(self, prefix: str) -> list[Upload]:
        self._tally.add(Operation.UPLOADS)
        return super().list_uploads(prefix)

    def thaw(self, key: str, *, days: int, tier: ThawTier) -> ThawAnswer:
        self._tally.add(Operation.THAW)
        return super().thaw(key, days=days, tier=tier)

    def get_lifecycle(self) -> Lifecycle:
        self._tally.add(Operation.RULES)
        return super().get_lifecycle()

    def put_lifecycle(self, lifecycle: Lifecycle) -> None:
        self._tally.add(Operation.NEWRULES)
        super().put_lifecycle(lifecycle)
