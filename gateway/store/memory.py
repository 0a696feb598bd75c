"""A store in memory for tests: strict about everything a real store may be strict about.

It verifies every checksum, enforces the rules of parts, creates atomically under a condition, dates objects by the
clock it is given (a multipart object by its initiation and in whole seconds, as S3 does), runs lifecycle rules,
archives and thaws, counts every request and byte, can say what it all would have cost, and fails as a script says
(`gateway.store.faults`). How it behaves is in `gateway.store.shelf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from gateway.clock import Clock
from gateway.store.bill import Bill, bill
from gateway.store.cold import Weather
from gateway.store.faults import Faults, FaultyStore
from gateway.store.meter import CountingStore
from gateway.store.port import MIN_PART_BYTES
from gateway.store.prices import Prices
from gateway.store.record import Record
from gateway.store.shelf import Shelf


class MemoryStore(CountingStore):
    """See the module's docstring. Thread-safe; a put is seen by the next call of any thread.

    The keyword arguments make it imitate poorer stores: one that states no checksums, ignores classes or
    ignores the condition of a put, or (for small test data) one with smaller parts. `weather`: the chance in thaws.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        faults: str = "",
        url: str = "memory://store",
        min_part_bytes: int = MIN_PART_BYTES,
        states_checksums: bool = True,
        knows_classes: bool = True,
        conditional_put: bool = True,
        weather: Weather | None = None,
    ) -> None:
        self._shelf = Shelf(
            clock,
            url=url,
            min_part_bytes=min_part_bytes,
            states_checksums=states_checksums,
            knows_classes=knows_classes,
            conditional_put=conditional_put,
            weather=weather,
        )
        faulty = FaultyStore(self._shelf, faults)
        self.faults: Faults = faulty.faults
        super().__init__(faulty)

    def dump(self) -> dict[str, bytes]:
        """A copy of all objects' bytes; not counted, without faults."""
        return self._shelf.dump()

    def lock(self, key: str, *, until: datetime | None = None, legal_hold: bool = False) -> None:
        """See `gateway.store.shelf`."""
        self._shelf.lock(key, until=until, legal_hold=legal_hold)

    def load(self, contents: Mapping[str, bytes]) -> None:
        """Hold exactly these objects, as if just put into STANDARD, and no open uploads. The log begins anew; the
        lifecycle stays.
        """
        self._shelf.load(contents)

    def rot(self, key: str, data: bytes | None = None) -> None:
        """Change the bytes at rest (one bit, or all of them to `data`); the stated checksum stays as it
        was."""
        self._shelf.rot(key, data)

    def log(self) -> tuple[Record, ...]:
        """Every request that reached the store, and what it did of itself; in order."""
        return self._shelf.log()

    def bill(self, prices: Prices, *, until: datetime | None = None, egress: str = "") -> Bill:
        """What the log costs up to now, or to another moment; see `gateway.store.bill`."""
        return bill(self.log(), prices, until=until or self._shelf.now(), egress=egress)
