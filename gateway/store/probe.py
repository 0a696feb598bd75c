"""What a store can do, found out by trying. Leaves nothing behind where it may delete."""

from __future__ import annotations

import contextlib
from dataclasses import fields
from datetime import datetime, timedelta

from gateway.clock import Clock
from gateway.errors import Corrupt, ObjectExists, StoreDenied, StoreError
from gateway.store.crc import crc64
from gateway.store.passing import PassingStore
from gateway.store.port import Capabilities, ObjectStore

PROBE = ".probe/"
OLD = timedelta(days=1)
"""LIMIT: no probe takes that long."""
COLD_ENOUGH = "GLACIER_IR"


def probe(store: ObjectStore, clock: Clock) -> tuple[Capabilities, list[str]]:
    """Try conditional PUT, checksums, ranges, listing and classes below ``.probe/``. Notes are sentences for people.

    Raises what the store raises when it cannot even be written to or read from.
    """
    notes: list[str] = []
    prefix = f"{PROBE}{clock.random_bytes(8).hex()}/"
    key, data, other = prefix + "a", b"gateway probe, may be removed", b"another object"
    store.put(key, data, crc64=crc64(data), if_absent=True)
    try:
        conditional = _refuses_second(store, key, other)
        if not conditional:
            notes.append("The store overwrites objects although told not to: only one gateway may ever write to it.")
        store.put(key, data, crc64=crc64(data))
        checksums = store.head(key).crc64 == crc64(data) and _refuses_wrong(store, prefix + "b", data)
        if not checksums:
            notes.append("The store does not check or state CRC64NVME: every pack is read back after its upload.")
        ranges = store.get(key, start=8, length=5) == data[8:13]
        listing = [facts.key for facts in store.list_objects(prefix) if facts.key == key] == [key]
        classes = _keeps_class(store, prefix + "c", data)
        if not classes:
            notes.append("The store has no storage classes: everything stays in the one it has.")
    finally:
        _clean(store, prefix, notes)
    return (
        Capabilities(conditional_put=conditional, checksums=checksums, ranges=ranges, listing=listing, classes=classes),
        notes,
    )


class AsProbed(PassingStore):
    """A store that claims no more than the probe found."""

    def __init__(self, inner: ObjectStore, found: Capabilities) -> None:
        super().__init__(inner)
        self._found = found

    @property
    def states_checksums(self) -> bool:
        return self._found.checksums and self.inner.states_checksums

    @property
    def knows_classes(self) -> bool:
        return self._found.classes and self.inner.knows_classes


def date_of(store: ObjectStore, clock: Clock) -> datetime | None:
    """What time it is by the store: the date of an object just put, as exact as the store's dates are. None: no date.

    Raises what the store raises when it cannot be written to.
    """
    key, data = f"{PROBE}{clock.random_bytes(8).hex()}/date", b"gateway probe, may be removed"
    store.put(key, data, crc64=crc64(data))
    try:
        return store.head(key).modified
    finally:
        with contextlib.suppress(StoreError):  # `sweep_probes` removes it later
            store.delete(key)


def to_text(found: Capabilities) -> str:
    """The names of what a store can do, for keeping."""
    return " ".join(each.name for each in fields(found) if getattr(found, each.name))


def from_text(text: str) -> Capabilities:
    can = text.split()
    return Capabilities(**{each.name: each.name in can for each in fields(Capabilities)})


def _refuses_second(store: ObjectStore, key: str, data: bytes) -> bool:
    try:
        store.put(key, data, crc64=crc64(data), if_absent=True)
    except ObjectExists:
        return True
    return False


def _refuses_wrong(store: ObjectStore, key: str, data: bytes) -> bool:
    """Whether bytes that do not fit their checksum are turned away."""
    try:
        store.put(key, data, crc64=crc64(data) ^ 1)
    except (Corrupt, StoreError):
        return True
    return False


def _keeps_class(store: ObjectStore, key: str, data: bytes) -> bool:
    try:
        store.put(key, data, crc64=crc64(data), storage_class=COLD_ENOUGH)
    except StoreError:
        return False
    return store.head(key).storage_class == COLD_ENOUGH


def _clean(store: ObjectStore, prefix: str, notes: list[str]) -> None:
    try:
        for facts in list(store.list_objects(prefix)):
            store.delete(facts.key)
    except StoreDenied:
        notes.append(f"Objects below {prefix} could not be deleted; they are a few bytes and may stay.")


def sweep_probes(store: ObjectStore, clock: Clock) -> None:
    """Remove what probes that were killed left; young ones may be another gateway's that runs."""
    for facts in list(store.list_objects(PROBE)):
        if facts.modified is not None and clock.now() - facts.modified > OLD:
            store.delete(facts.key)
