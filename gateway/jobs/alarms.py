"""Open conditions somebody must look at: opened once, closed once, in the catalog, in the log, and told to hooks."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from enum import StrEnum

from gateway.api import Alarm
from gateway.catalog import AlarmRow, Catalog
from gateway.clock import Clock, from_milliseconds, milliseconds
from gateway.errors import GatewayError
from gateway.log import Log

_AFTER_SOURCE = re.compile(r"[ @/]")


def source_of(subject: str) -> str:
    """The source that an alarm is about: its subject as a whole, or up to a run, a generation, or a word."""
    return _AFTER_SOURCE.split(subject, maxsplit=1)[0]


class Kind(StrEnum):
    OVERDUE = "source-overdue"
    UNREADABLE = "source-unreadable"
    HELD_BACK = "files-held-back"
    INCOMPLETE = "generation-incomplete"
    SEAL = "seal-mismatch"
    DELETED = "deleted-before-protected"
    DISK = "spool-disk"
    FILLING = "spool-filling"
    STORE = "store-refusing"
    CLOCK = "clock-skew"
    DAMAGE = "damaged-pack"
    FAILED = "ingest-failed"
    WATCH = "no-events"
    ANOMALY = "anomaly"
    DRIFT = "lifecycle-drift"
    FOREIGN = "foreign-rule"
    APPROVAL = "retention-waits"
    STOPPED = "expiry-stopped"


_WATCHED = (
    Kind.OVERDUE, Kind.UNREADABLE, Kind.HELD_BACK, Kind.INCOMPLETE, Kind.SEAL, Kind.DELETED, Kind.DISK, Kind.FILLING,
    Kind.FAILED, Kind.WATCH,
)  # fmt: skip
"""What only who watches a source can say is over. Damage and anomalies are of what was stored, and stay."""


class Alarms:
    """The table of alarms, as jobs use it. Thread-safe."""

    def __init__(self, catalog: Catalog, clock: Clock, log: Log) -> None:
        self._catalog = catalog
        self._clock = clock
        self._log = log

    def open(self, kind: Kind, subject: str, what: str, *, meaning: str, advice: str) -> None:
        """Idempotent: an alarm that is open gets the newer text and is not told of again."""
        if self._catalog.open_alarm(str(kind), subject, what, meaning, advice, self._now()):
            self._log.error("alarm.opened", kind=kind, subject=subject, what=what, meaning=meaning, advice=advice)

    def is_open(self, kind: Kind, subject: str) -> bool:
        return any((row.kind, row.subject) == (kind, subject) for row in self._catalog.open_alarms())

    def close(self, kind: Kind, subject: str) -> bool:
        """Idempotent. False: it was not open."""
        closed = self._catalog.close_alarm(str(kind), subject, self._now())
        if closed:
            self._log.info("alarm.closed", kind=kind, subject=subject)
        return closed

    def close_all(self, source: str, *kinds: Kind) -> bool:
        """All of these kinds that are about a source, or a run of it. False: none was open."""
        closed = False
        for row in self._catalog.open_alarms():
            if row.kind in kinds and source_of(row.subject) == source:
                closed |= self.close(Kind(row.kind), row.subject)
        return closed

    def close_of_others(self, sources: Container[str]) -> None:
        """What nobody watches any more: of sources that are not among these."""
        for row in self._catalog.open_alarms():
            if row.kind in _WATCHED and source_of(row.subject) not in sources:
                self.close(Kind(row.kind), row.subject)

    def set(self, kind: Kind, subject: str, what: str, *, meaning: str = "", advice: str = "") -> None:
        """Open where `what` says something, else closed."""
        if what:
            self.open(kind, subject, what, meaning=meaning, advice=advice)
        else:
            self.close(kind, subject)

    def of_error(self, kind: Kind, subject: str, error: GatewayError) -> None:
        self.open(kind, subject, error.what, meaning=error.meaning, advice=error.advice)

    def _now(self) -> int:
        return milliseconds(self._clock.now())


def shown(rows: Iterable[AlarmRow]) -> tuple[Alarm, ...]:
    return tuple(
        Alarm(
            kind=row.kind, subject=row.subject, what=row.what, meaning=row.meaning, advice=row.advice,
            opened=from_milliseconds(row.opened),
            closed=None if row.closed is None else from_milliseconds(row.closed),
        )
        for row in rows
    )  # fmt: skip
