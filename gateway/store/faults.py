"""Faults of a store as data.

A script is a comma-separated list of rules ``operation[@text]:which=kind``, for example
``put:3=503,get:7=flip,complete:1=lost,put@/log/:*=409``:

* `operation`: a short name of `gateway.store.meter.Operation`.
* `@text`: only calls whose key (or prefix) contains it; may hold no colon.
* `which`: ``3`` the third such call since the rule was added, ``3-5`` a range, ``3+`` from then on, ``*``
  every.
* `kind`: see the table.

| kind | calls | what happens |
| --- | --- | --- |
| ``503`` | all | not done; `StoreUnreachable` |
| ``timeout`` | all | not done, but a writer cannot know: `AnswerUnknown` (reads: `StoreUnreachable`) |
| ``lost`` | all | done, and the answer is lost: `AnswerUnknown` (reads: `StoreUnreachable`) |
| ``409`` | writes | not done; `Conflict` |
| ``denied`` | all | not done; `StoreDenied` |
| ``refused`` | all | not done; `StoreRefused` |
| ``skew`` | all | not done; `ClockSkew` |
| ``cold`` | get | `ObjectCold` |
| ``missing`` | get, head, parts, part, complete, thaw | `ObjectMissing`, although it is there |
| ``flip`` | get | one bit of the answer is wrong and nobody noticed |
| ``flip`` | put, part | one bit of what the store keeps is wrong; the answer is that of success |
| ``short`` | get | the body ends early and the adapter noticed: `Corrupt` |
| ``nocapacity`` | thaw | not done; the answer is NO_CAPACITY |
| ``stale`` | list | the listing leaves out the object written last |

The first matching rule that is due wins; every matching rule counts the call.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from gateway.errors import (
    AnswerUnknown,
    ClockSkew,
    Conflict,
    Corrupt,
    ObjectCold,
    ObjectMissing,
    StoreDenied,
    StoreRefused,
    StoreUnreachable,
)
from gateway.store.crc import crc64 as crc64_of
from gateway.store.lifecycle import Lifecycle
from gateway.store.meter import Operation
from gateway.store.passing import PassingStore
from gateway.store.port import ObjectFacts, ObjectStore, Part, ThawAnswer, ThawTier, Upload


class Fault(StrEnum):
    UNREACHABLE = "503"
    TIMEOUT = "timeout"
    LOST = "lost"
    CONFLICT = "409"
    DENIED = "denied"
    REFUSED = "refused"
    SKEW = "skew"
    COLD = "cold"
    MISSING = "missing"
    FLIP = "flip"
    SHORT = "short"
    STALE = "stale"
    NO_CAPACITY = "nocapacity"


_GET, _PUT, _PART, _LIST = Operation.GET, Operation.PUT, Operation.PART, Operation.LIST
_ONLY: dict[Fault, frozenset[Operation]] = {
    Fault.CONFLICT: frozenset(operation for operation in Operation if operation.writes),
    Fault.COLD: frozenset({_GET}),
    Fault.MISSING: frozenset({_GET, Operation.HEAD, Operation.PARTS, _PART, Operation.COMPLETE, Operation.THAW}),
    Fault.FLIP: frozenset({_GET, _PUT, _PART}),
    Fault.SHORT: frozenset({_GET}),
    Fault.STALE: frozenset({_LIST}),
    Fault.NO_CAPACITY: frozenset({Operation.THAW}),
}
_RULE = re.compile(r"(?P<op>[a-z]+)(?:@(?P<text>[^:,=]+))?:(?P<which>\*|\d+(?:-\d+|\+)?)=(?P<kind>[a-z0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRule:
    """`first` and `last` count matching calls from 1; `last` None means for ever."""

    operation: Operation
    fault: Fault
    text: str = ""
    first: int = 1
    last: int | None = None

    def __post_init__(self) -> None:
        if self.first < 1 or (self.last is not None and self.last < self.first):
            raise ValueError(f"a fault cannot be due at call {self.first} to {self.last}")
        if self.operation not in _ONLY.get(self.fault, frozenset(Operation)):
            raise ValueError(f"{self.fault} is no fault of {self.operation}")


def parse_faults(script: str) -> tuple[FaultRule, ...]:
    """The rules of a script; `ValueError` names the rule that is none."""
    rules = []
    for text in filter(None, (part.strip() for part in script.split(","))):
        match = _RULE.fullmatch(text)
        if match is None:
            raise ValueError(f"not a fault rule: {text!r}")
        which = match["which"]
        if which == "*":
            first, last = 1, None
        elif which.endswith("+"):
            first, last = int(which[:-1]), None
        else:
            low, _, high = which.partition("-")
            first, last = int(low), int(high or low)
        rules.append(
            FaultRule(
                operation=Operation(match["op"]),
                fault=Fault(match["kind"]),
                text=match["text"] or "",
                first=first,
                last=last,
            )
        )
    return tuple(rules)


class Faults:
    """The rules in force for one store. Thread-safe."""

    def __init__(self, script: str = "") -> None:
        self._lock = threading.Lock()
        self._rules: list[tuple[FaultRule, list[int]]] = []
        self.add(script)

    def add(self, script: str) -> None:
        """Put more rules in force; they count from now."""
        rules = parse_faults(script)
        with self._lock:
            self._rules.extend((rule, [0]) for rule in rules)

    def clear(self) -> None:
        """The store is healthy again."""
        with self._lock:
            self._rules.clear()

    def take(self, operation: Operation, key: str) -> Fault | None:
        """Count one call and say what shall go wrong with it."""
        due: Fault | None = None
        with self._lock:
            for rule, count in self._rules:
                if rule.operation is not operation or rule.text not in key:
                    continue
                count[0] += 1
                if due is None and rule.first <= count[0] and (rule.last is None or count[0] <= rule.last):
                    due = rule.fault
        return due


def raise_instead(fault: Fault | None, operation: Operation, key: str) -> None:
    """Raise what a fault raises *instead of* doing the thing; return where it is done."""
    what = f"Scripted fault: {operation} of {key}: {fault}."
    match fault:
        case Fault.UNREACHABLE:
            raise StoreUnreachable(what)
        case Fault.TIMEOUT:
            raise AnswerUnknown(what) if operation.writes else StoreUnreachable(what)
        case Fault.CONFLICT:
            raise Conflict(what)
        case Fault.DENIED:
            raise StoreDenied(what)
        case Fault.REFUSED:
            raise StoreRefused(what)
        case Fault.SKEW:
            raise ClockSkew(what)
        case Fault.COLD:
            raise ObjectCold(what)
        case Fault.MISSING:
            raise ObjectMissing(what)
        case Fault.SHORT:
            raise Corrupt(what, address=key)
        case Fault.LOST | Fault.FLIP | Fault.STALE | Fault.NO_CAPACITY | None:
            return


def raise_afterwards(fault: Fault | None, operation: Operation, key: str) -> None:
    """Raise what a fault raises *after* the thing was done."""
    if fault is Fault.LOST:
        what = f"Scripted fault: {operation} of {key}: {fault}."
        raise AnswerUnknown(what) if operation.writes else StoreUnreachable(what)


def flipped(data: bytes | memoryview) -> bytes:
    """A copy with one bit in its middle turned over; nothing stays nothing."""
    copy = bytearray(data)
    if copy:
        copy[len(copy) // 2] ^= 0x10
    return bytes(copy)


class FaultyStore(PassingStore):
    """Any store with scripted faults. Thread-safe as far as the inner store is.

    A flipped `put` or `part` reaches the inner store with the CRC of the flipped bytes, so it is taken; the
    answer states the CRC that was asked for, and only a later look at the store (or reading back) finds the
    damage.
    """

    def __init__(self, inner: ObjectStore, script: str = "") -> None:
        super().__init__(inner)
        self.faults = Faults(script)
        self._newest = ""

    def _before(self, operation: Operation, key: str) -> Fault | None:
        fault = self.faults.take(operation, key)
        raise_instead(fault, operation, key)
        return fault

    def put(
        self,
        key: str,
        data: bytes | memoryview,
        *,
        crc64: int,
        storage_class: str = "STANDARD",
        if_absent: bool = False,
    ) -> ObjectFacts:
        fault = self._before(Operation.PUT, key)
        kept, kept_crc = (data, crc64)
        if fault is Fault.FLIP:
            kept = flipped(data)
            kept_crc = crc64_of(kept)
        facts = self.inner.put(key, kept, crc64=kept_crc, storage_class=storage_class, if_absent=if_absent)
        self._newest = key
        raise_afterwards(fault, Operation.PUT, key)
        if fault is Fault.FLIP and facts.crc64 is not None:
            return replace(facts, crc64=crc64)
        return facts

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        fault = self._before(Operation.GET, key)
        data = self.inner.get(key, start=start, length=length)
        raise_afterwards(fault, Operation.GET, key)
        return flipped(data) if fault is Fault.FLIP else data

    def head(self, key: str) -> ObjectFacts:
        fault = self._before(Operation.HEAD, key)
        facts = self.inner.head(key)
        raise_afterwards(fault, Operation.HEAD, key)
        return facts

    def list_objects(self, prefix: str, *, after: str = "") -> Iterator[ObjectFacts]:
        fault = self._before(Operation.LIST, prefix)
        for facts in self.inner.list_objects(prefix, after=after):
            if fault is not Fault.STALE or facts.key != self._newest:
                yield facts
        raise_afterwards(fault, Operation.LIST, prefix)

    def delete(self, key: str) -> None:
        fault = self._before(Operation.DELETE, key)
        self.inner.delete(key)
        raise_afterwards(fault, Operation.DELETE, key)

    def start_upload(self, key: str, *, storage_class: str = "STANDARD") -> str:
        fault = self._before(Operation.START, key)
        upload_id = self.inner.start_upload(key, storage_class=storage_class)
        raise_afterwards(fault, Operation.START, key)
        return upload_id

    def put_part(self, key: str, upload_id: str, number: int, data: bytes | memoryview, *, crc64: int) -> Part:
        fault = self._before(Operation.PART, key)
        if fault is Fault.FLIP:
            bad = flipped(data)
            return replace(self.inner.put_part(key, upload_id, number, bad, crc64=crc64_of(bad)), crc64=crc64)
        part = self.inner.put_part(key, upload_id, number, data, crc64=crc64)
        raise_afterwards(fault, Operation.PART, key)
        return part

    def list_parts(self, key: str, upload_id: str) -> list[Part]:
        fault = self._before(Operation.PARTS, key)
        parts = self.inner.list_parts(key, upload_id)
        raise_afterwards(fault, Operation.PARTS, key)
        return parts

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part], *, size: int, crc64: int) -> ObjectFacts:
        fault = self._before(Operation.COMPLETE, key)
        facts = self.inner.complete_upload(key, upload_id, parts, size=size, crc64=crc64)
        self._newest = key
        raise_afterwards(fault, Operation.COMPLETE, key)
        return facts

    def abort_upload(self, key: str, upload_id: str) -> None:
        fault = self._before(Operation.ABORT, key)
        self.inner.abort_upload(key, upload_id)
        raise_afterwards(fault, Operation.ABORT, key)

    def list_uploads(self, prefix: str) -> list[Upload]:
        fault = self._before(Operation.UPLOADS, prefix)
        uploads = self.inner.list_uploads(prefix)
        raise_afterwards(fault, Operation.UPLOADS, prefix)
        return uploads

    def thaw(self, key: str, *, days: int, tier: ThawTier) -> ThawAnswer:
        fault = self._before(Operation.THAW, key)
        if fault is Fault.NO_CAPACITY:
            return ThawAnswer.NO_CAPACITY
        answer = self.inner.thaw(key, days=days, tier=tier)
        raise_afterwards(fault, Operation.THAW, key)
        return answer

    def get_lifecycle(self) -> Lifecycle:
        fault = self._before(Operation.RULES, "")
        lifecycle = self.inner.get_lifecycle()
        raise_afterwards(fault, Operation.RULES, "")
        return lifecycle

    def put_lifecycle(self, lifecycle: Lifecycle) -> None:
        fault = self._before(Operation.NEWRULES, "")
        self.inner.put_lifecycle(lifecycle)
        raise_afterwards(fault, Operation.NEWRULES, "")
