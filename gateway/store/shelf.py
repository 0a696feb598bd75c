"""One bucket in memory that behaves as S3 does: objects, uploads, classes, lifecycle, thaws, and a log of it all.

`gateway.store.memory` puts faults and a meter around it; the simulator for other processes serves it over HTTP.
Time is the clock's alone: before every request the rules do what was due at the midnights since the one before.
"""

from __future__ import annotations

import contextlib
import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from gateway.clock import Clock
from gateway.errors import Corrupt, ObjectCold, ObjectExists, ObjectMissing, StoreError, StoreRefused
from gateway.store import cold
from gateway.store.crc import combine_all
from gateway.store.crc import crc64 as crc64_of
from gateway.store.faults import flipped
from gateway.store.lifecycle import ARCHIVED, CLASSES, Lifecycle, aborted_at, midnight, refusal, steps
from gateway.store.meter import Operation
from gateway.store.port import (
    MAX_PARTS,
    MAX_PUT_BYTES,
    PAGE_KEYS,
    ObjectFacts,
    Part,
    ThawAnswer,
    ThawTier,
    Upload,
    check_key,
    check_range,
)
from gateway.store.record import Event, Record

_STATUS = {ObjectMissing: 404, ObjectExists: 412, ObjectCold: 403, Corrupt: 400, StoreRefused: 400}
_THAW_STATUS = {
    ThawAnswer.STARTED: 202, ThawAnswer.EXTENDED: 200, ThawAnswer.RUNNING: 409, ThawAnswer.NO_CAPACITY: 503,
    ThawAnswer.NEVER_COLD: 403,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Object:
    """`crc64` is what was verified on the way in; the bytes may rot away from it. `copy`: its newest thaw."""

    data: bytes
    crc64: int
    storage_class: str
    modified: datetime
    copy: cold.Copy | None = None
    locked_until: datetime | None = None
    legal_hold: bool = False

    def is_cold(self, now: datetime) -> bool:
        return self.storage_class in ARCHIVED and not (self.copy is not None and self.copy.readable(now))


@dataclass(slots=True, kw_only=True)
class _OpenUpload:
    key: str
    storage_class: str
    initiated: datetime
    parts: dict[int, tuple[Part, bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShelfPage:
    """A page of a listing; `after`: where the next one begins, None at the end."""

    objects: tuple[ObjectFacts, ...]
    levels: tuple[str, ...] = ()
    after: str | None = None


class Shelf:
    """See the module's docstring. Thread-safe: one request at a time."""

    def __init__(
        self,
        clock: Clock,
        *,
        url: str,
        min_part_bytes: int,
        states_checksums: bool = True,
        knows_classes: bool = True,
        conditional_put: bool = True,
        weather: cold.Weather | None = None,
    ) -> None:
        self._clock = clock
        self._url = url
        self._min_part_bytes = min_part_bytes
        self._states_checksums = states_checksums
        self._knows_classes = knows_classes
        self._conditional_put = conditional_put
        self._weather = weather or cold.Weather()
        self._lock = threading.RLock()
        self._objects: dict[str, _Object] = {}
        self._keys: list[str] = []
        """Those of `_objects`, in order: a listing costs what it lists, not what there is."""
        self._uploads: dict[str, _OpenUpload] = {}
        self._started = 0
        self._lifecycle = Lifecycle()
        self._rules_since = self._now()
        self._next_run = midnight(self._now())
        self._log: list[Record] = []

    @property
    def url(self) -> str:
        return self._url

    @property
    def base(self) -> str:
        return ""

    @property
    def states_checksums(self) -> bool:
        return self._states_checksums

    @property
    def knows_classes(self) -> bool:
        return self._knows_classes

    def _now(self) -> datetime:
        return self._clock.now().replace(microsecond=0)

    def _class(self, storage_class: str) -> str:
        if not self._knows_classes:
            return "STANDARD"
        if storage_class not in CLASSES:
            raise StoreRefused(f"{self._url} has no storage class {storage_class}.")
        return storage_class

    def _facts(self, key: str, stored: _Object, *, listed: bool = False) -> ObjectFacts:
        """A listing states no checksums."""
        return ObjectFacts(
            key=key,
            size=len(stored.data),
            crc64=stored.crc64 if self._states_checksums and not listed else None,
            storage_class=stored.storage_class,
            modified=stored.modified,
            thaw=stored.copy.state(self._now()) if stored.copy is not None else None,
        )

    @contextlib.contextmanager
    def _request(self, what: Operation, key: str = "", **facts: Any) -> Iterator[dict[str, Any]]:
        """Around a request, with the lock: let the rules catch up, then record it and how it ended."""
        with self._lock:
            self._catch_up()
            record: dict[str, Any] = {"at": self._now(), "what": what, "key": key} | facts
            try:
                yield record
            except (StoreError, Corrupt) as error:
                record["status"] = _STATUS[type(error)]
                raise
            finally:
                self._log.append(Record(**record))

    def _object(self, key: str, record: dict[str, Any]) -> _Object:
        stored = self._objects.get(key)
        if stored is None:
            raise ObjectMissing(f"No object {key} in {self._url}.")
        record |= {"size": len(stored.data), "storage_class": stored.storage_class}
        return stored

    def _upload(self, key: str, upload_id: str) -> _OpenUpload:
        upload = self._uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise ObjectMissing(f"No upload {upload_id} of {key} in {self._url}.")
        return upload

    def put(
        self,
        key: str,
        data: bytes | memoryview,
        *,
        crc64: int,
        storage_class: str = "STANDARD",
        if_absent: bool = False,
    ) -> ObjectFacts:
        check_key(key)
        if len(data) > MAX_PUT_BYTES:
            raise ValueError(f"{len(data)} bytes are too many for one PUT")
        with self._request(Operation.PUT, key, sent=len(data), size=len(data)) as record:
            record["storage_class"] = self._class(storage_class)
            kept = _verified(key, data, crc64)
            if if_absent and self._conditional_put and key in self._objects:
                raise ObjectExists(f"There is already an object {key} in {self._url}.")
            stored = _Object(data=kept, crc64=crc64, storage_class=record["storage_class"], modified=record["at"])
            self._keep(key, stored)
            return self._facts(key, stored)

    def put_file(self, *_: object, **__: object) -> None:
        """In parts, always: they can be resumed."""

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        check_key(key)
        check_range(start, length)
        with self._request(Operation.GET, key) as record:
            stored = self._object(key, record)
            if stored.is_cold(record["at"]):
                raise ObjectCold(f"{key} in {self._url} is in {stored.storage_class} and not thawed.")
            end = len(stored.data) if length is None else start + length
            if end > len(stored.data) or (start >= len(stored.data) and start > 0):
                raise Corrupt(f"holds {len(stored.data)} bytes, not {start} to {end}", address=key)
            data = stored.data[start:end]
            record["received"] = len(data)
            if self._states_checksums and len(data) == len(stored.data) and crc64_of(data) != stored.crc64:
                raise Corrupt("the bytes do not have the checksum that the store states", address=key)
            return data

    def head(self, key: str) -> ObjectFacts:
        check_key(key)
        with self._request(Operation.HEAD, key) as record:
            stored = self._object(key, record)
            return replace(self._facts(key, stored), locked_until=stored.locked_until, legal_hold=stored.legal_hold)

    def lock(self, key: str, *, until: datetime | None = None, legal_hold: bool = False) -> None:
        """What an administrator does to an object by Object Lock. As in a bucket with versions `delete` hides it
        nevertheless.
        """
        with self._lock:
            self._objects[key] = replace(self._objects[key], locked_until=until, legal_hold=legal_hold)

    def look(self, key: str) -> ObjectFacts:
        """`head` without a request: for who serves the shelf, or looks behind it."""
        with self._lock:
            self._catch_up()
            return self._facts(key, self._object(key, {}))

    def list_objects(self, prefix: str, *, after: str = "") -> Iterator[ObjectFacts]:
        more: str | None = after
        while more is not None:
            page = self.page(prefix, after=more)
            yield from page.objects
            more = page.after

    def page(self, prefix: str, *, after: str = "", limit: int = PAGE_KEYS, delimiter: str = "") -> ShelfPage:
        """One request of a listing. `levels`: names up to a delimiter behind the prefix, in place of what is below."""
        with self._request(Operation.LIST, prefix) as record:
            objects: list[ObjectFacts] = []
            levels: list[str] = []
            last = after
            begin = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after))
            for key in islice(self._keys, begin, None):
                if not key.startswith(prefix):
                    break
                level = _level(key, prefix, delimiter)
                if level and levels and levels[-1] == level:
                    continue
                if len(objects) + len(levels) == limit:
                    record["keys"] = limit
                    return ShelfPage(objects=tuple(objects), levels=tuple(levels), after=last)
                if level:
                    levels.append(level)
                    last = level + "\x7f"  # behind everything below it
                else:
                    objects.append(self._facts(key, self._objects[key], listed=True))
                    last = key
            record["keys"] = len(objects) + len(levels)
            return ShelfPage(objects=tuple(objects), levels=tuple(levels))

    def _keep(self, key: str, stored: _Object) -> None:
        if key not in self._objects:
            insort(self._keys, key)
        self._objects[key] = stored

    def _drop(self, key: str) -> _Object | None:
        stored = self._objects.pop(key, None)
        if stored is not None:
            del self._keys[bisect_left(self._keys, key)]
        return stored

    def delete(self, key: str) -> None:
        check_key(key)
        with self._request(Operation.DELETE, key) as record:
            stored = self._drop(key)
            if stored is not None:
                record |= {"size": len(stored.data), "storage_class": stored.storage_class}

    def start_upload(self, key: str, *, storage_class: str = "STANDARD") -> str:
        check_key(key)
        with self._request(Operation.START, key) as record:
            record["storage_class"] = self._class(storage_class)
            self._started += 1
            upload_id = record["upload_id"] = f"upload-{self._started}"
            self._uploads[upload_id] = _OpenUpload(
                key=key, storage_class=record["storage_class"], initiated=record["at"]
            )
        return upload_id

    def put_part(self, key: str, upload_id: str, number: int, data: bytes | memoryview, *, crc64: int) -> Part:
        if not 1 <= number <= MAX_PARTS:
            raise ValueError(f"not a part number: {number}")
        size = len(data)
        with self._request(Operation.PART, key, sent=size, size=size, upload_id=upload_id, number=number) as record:
            upload = self._upload(key, upload_id)
            record["storage_class"] = upload.storage_class
            kept = _verified(key, data, crc64)
            part = Part(number=number, size=size, etag=f'"{crc64:016x}-{size}"', crc64=crc64)
            upload.parts[number] = (part, kept)
        return part

    def list_parts(self, key: str, upload_id: str) -> list[Part]:
        with self._request(Operation.PARTS, key, upload_id=upload_id):
            parts = self._upload(key, upload_id).parts
            return [parts[number][0] for number in sorted(parts)]

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part], *, size: int, crc64: int) -> ObjectFacts:
        with self._request(Operation.COMPLETE, key, upload_id=upload_id) as record:
            upload = self._upload(key, upload_id)
            record["storage_class"] = upload.storage_class
            chosen = []
            for part in parts:
                held = upload.parts.get(part.number)
                if held is None or held[0].etag != part.etag:
                    raise StoreRefused(f"Part {part.number} of {key} is not the one that was sent.")
                chosen.append(held)
            numbers = [part.number for part in parts]
            if not numbers or numbers != sorted(set(numbers)):
                raise StoreRefused(f"The parts of {key} are not in ascending order: {numbers[:10]}.")
            if any(len(data) < self._min_part_bytes for _, data in chosen[:-1]):
                raise StoreRefused(f"A part of {key} that is not the last is too small.")
            total = sum(len(data) for _, data in chosen)
            crc = combine_all((crc64_of(data), len(data)) for _, data in chosen)
            if (total, crc) != (size, crc64):
                raise Corrupt(f"its parts make {total} bytes of CRC {crc:016x}", address=key)
            stored = _Object(
                data=b"".join(data for _, data in chosen),
                crc64=crc,
                storage_class=upload.storage_class,
                modified=upload.initiated,
            )
            self._keep(key, stored)
            del self._uploads[upload_id]
            record["size"] = total
            return self._facts(key, stored)

    def abort_upload(self, key: str, upload_id: str) -> None:
        check_key(key)
        with self._request(Operation.ABORT, key, upload_id=upload_id):
            self._uploads.pop(upload_id, None)

    def list_uploads(self, prefix: str) -> list[Upload]:
        with self._request(Operation.UPLOADS, prefix):
            return [
                Upload(key=upload.key, upload_id=upload_id, initiated=upload.initiated)
                for upload_id, upload in self._uploads.items()
                if upload.key.startswith(prefix)
            ]

    def thaw(self, key: str, *, days: int, tier: ThawTier) -> ThawAnswer:
        check_key(key)
        if days < 1:
            raise ValueError(f"cannot thaw for {days} days")
        with self._request(Operation.THAW, key, tier=tier) as record:
            stored = self._object(key, record)
            if stored.storage_class in ARCHIVED and not cold.has_tier(stored.storage_class, tier):
                raise StoreRefused(f"{stored.storage_class} has no tier {tier}.")
            answer, copy = cold.ask(
                stored.copy, key=key, size=len(stored.data), storage_class=stored.storage_class, days=days, tier=tier,
                now=record["at"], weather=self._weather,
            )  # fmt: skip
            record["status"] = _THAW_STATUS[answer]
            if answer in (ThawAnswer.STARTED, ThawAnswer.EXTENDED) and copy is not None:
                self._objects[key] = replace(stored, copy=copy)
                record |= {"ready": copy.ready, "until": copy.until}
            return answer

    def get_lifecycle(self) -> Lifecycle:
        with self._request(Operation.RULES):
            self._require_lifecycle()
            return self._lifecycle

    def put_lifecycle(self, lifecycle: Lifecycle) -> None:
        with self._request(Operation.NEWRULES) as record:
            self._require_lifecycle()
            why = refusal(lifecycle)
            if why:
                raise StoreRefused(f"{self._url} does not take the lifecycle rules: {why}.")
            self._lifecycle = lifecycle
            self._rules_since = midnight(record["at"] + timedelta(seconds=1))

    def _require_lifecycle(self) -> None:
        if not self._knows_classes:
            raise StoreRefused(f"{self._url} has no lifecycle rules.")

    def catch_up(self) -> None:
        """Let the rules do what is due by now; every request does that first."""
        with self._lock:
            self._catch_up()

    def _catch_up(self) -> None:
        """INVARIANT: what a rule does carries the midnight at which it was due, whenever the clock was looked at."""
        now = self._now()
        if now < self._next_run:
            return
        # What the midnights before had to do is done; what came to be since, however old it says it is, was not there.
        since = max(self._rules_since, self._next_run)
        self._next_run = midnight(now + timedelta(seconds=1))
        due: list[Record] = []
        for key, stored in self._objects.items():
            for step in steps(
                self._lifecycle, name=key, size=len(stored.data), storage_class=stored.storage_class,
                modified=stored.modified, since=since,
            ):  # fmt: skip
                if step.at <= now:
                    what = Event.EXPIRY if step.storage_class is None else Event.TRANSITION
                    becomes = step.storage_class or stored.storage_class
                    due.append(Record(at=step.at, what=what, key=key, size=len(stored.data), storage_class=becomes))
        for upload_id, upload in self._uploads.items():
            at = aborted_at(self._lifecycle, name=upload.key, initiated=upload.initiated, since=since)
            if at is not None and at <= now:
                due.append(Record(at=at, what=Event.RULE_ABORT, key=upload.key, upload_id=upload_id))
        for record in sorted(due, key=lambda each: each.at):
            if record.what is Event.RULE_ABORT:
                del self._uploads[record.upload_id]
            elif record.what is Event.EXPIRY:
                gone = self._drop(record.key)
                assert gone is not None
                self._log.append(replace(record, storage_class=gone.storage_class))
                continue
            else:
                # The thawed copy belongs to the class that was left.
                moved = replace(self._objects[record.key], storage_class=record.storage_class, copy=None)
                self._objects[record.key] = moved
            self._log.append(record)

    def log(self) -> tuple[Record, ...]:
        """Everything since the beginning, or since `load`; in order of time."""
        with self._lock:
            self._catch_up()
            return tuple(self._log)

    def now(self) -> datetime:
        """The store's time, in whole seconds."""
        return self._now()

    def close(self) -> None:
        return

    def dump(self) -> dict[str, bytes]:
        with self._lock:
            self._catch_up()
            return {key: stored.data for key, stored in self._objects.items()}

    def load(self, contents: Mapping[str, bytes]) -> None:
        with self._lock:
            now = self._now()
            self._next_run = midnight(now + timedelta(seconds=1))
            self._objects = {
                key: _Object(data=bytes(data), crc64=crc64_of(data), storage_class="STANDARD", modified=now)
                for key, data in contents.items()
            }
            self._keys = sorted(self._objects)
            self._uploads.clear()
            self._log = [
                Record(at=now, what=Event.GIVEN, key=key, size=len(data)) for key, data in sorted(contents.items())
            ]

    def rot(self, key: str, data: bytes | None) -> None:
        with self._lock:
            self._catch_up()
            stored = self._object(key, {})
            self._objects[key] = replace(stored, data=flipped(stored.data) if data is None else data)


def _level(key: str, prefix: str, delimiter: str) -> str:
    if not delimiter:
        return ""
    at = key.find(delimiter, len(prefix))
    return "" if at < 0 else key[: at + len(delimiter)]


def _verified(key: str, data: bytes | memoryview, crc64: int) -> bytes:
    kept = bytes(data)
    if crc64_of(kept) != crc64:
        raise Corrupt("the bytes that arrived do not have the checksum that was sent with them", address=key)
    return kept
