"""The request log of a simulated store: what a bill is made of, and what a test looks at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from gateway.store.meter import Operation
from gateway.store.port import ThawTier


class Event(StrEnum):
    """What a store does without being asked."""

    GIVEN = "given"
    """A test put the object there; it costs nothing to arrive."""
    TRANSITION = "transition"
    EXPIRY = "expiry"
    RULE_ABORT = "rule-abort"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One request, in the order in which they were answered, or one event.

    `status` is S3's (events: 200). `size` and `storage_class`: of the object, or of the part, that it is about, as it
    is afterwards (`delete`, `expiry`: as it was); the class of a missing one is STANDARD. `sent` and `received` are
    bytes of objects. `number`: of a part. `keys`: how many a listing gave. `tier`, `ready`, `until`: of a thaw that
    was started or extended.
    """

    at: datetime
    what: Operation | Event
    status: int = 200
    key: str = ""
    size: int = 0
    storage_class: str = "STANDARD"
    sent: int = 0
    received: int = 0
    upload_id: str = ""
    number: int = 0
    keys: int = 0
    tier: ThawTier | None = None
    ready: datetime | None = None
    until: datetime | None = None
