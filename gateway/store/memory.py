"""A store in memory for tests: strict about everything a real store may be strict about.

It verifies every checksum, enforces the rules of parts, creates atomically under a condition, dates objects
by the clock it is given (a multipart object by its initiation and in whole seconds, as S3 does), counts
every request and byte, and fails as a script says (`gateway.store.faults`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from gateway.clock import Clock
from gateway.errors import Corrupt, ObjectExists, ObjectMissing, StoreRefused
from gateway.store.crc import combine_all
from gateway.store.crc import crc64 as crc64_of
from gateway.store.faults import Faults, FaultyStore, flipped
from gateway.store.meter import CountingStore
from gateway.store.port import (
    MAX_PARTS,
    MAX_PUT_BYTES,
    MIN_PART_BYTES,
    ObjectFacts,
    Part,
    Upload,
    check_key,
    check_range,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Object:
    """`crc64` is what was verified on the way in; the bytes may rot away from it."""

    data: bytes
    crc64: int
    storage_class: str
    modified: datetime


@dataclass(slots=True, kw_only=True)
class _OpenUpload:
    key: str
    storage_class: str
    initiated: datetime
    parts: dict[int, tuple[Part, bytes]] = field(default_factory=dict)


class _Shelf:
    """The store proper: no faults, no counting."""

    def __init__(
        self,
        clock: Clock,
        *,
        url: str,
        min_part_bytes: int,
        states_checksums: bool,
        knows_classes: bool,
        conditional_put: bool,
    ) -> None:
        self._clock = clock
        self._url = url
        self._min_part_bytes = min_part_bytes
        self._states_checksums = states_checksums
        self._knows_classes = knows_classes
        self._conditional_put = conditional_put
        self._lock = threading.Lock()
        self._objects: dict[str, _Object] = {}
        self._uploads: dict[str, _OpenUpload] = {}
        self._started = 0

    @property
    def url(self) -> str:
        return self._url

    @property
    def states_checksums(self) -> bool:
        return self._states_checksums

    @property
    def knows_classes(self) -> bool:
        return self._knows_classes

    def _now(self) -> datetime:
        return self._clock.now().replace(microsecond=0)

    def _class(self, storage_class: str) -> str:
        return storage_class if self._knows_classes else "STANDARD"

    def _facts(self, key: str, stored: _Object) -> ObjectFacts:
        return ObjectFacts(
            key=key,
            size=len(stored.data),
            crc64=stored.crc64 if self._states_checksums else None,
            storage_class=stored.storage_class,
            modified=stored.modified,
        )

    def _object(self, key: str) -> _Object:
        with self._lock:
            stored = self._objects.get(key)
        if stored is None:
            raise ObjectMissing(f"No object {key} in {self._url}.")
        return stored

    def _upload(self, key: str, upload_id: str) -> _OpenUpload:
        """Call with the lock held."""
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
        kept = _verified(key, data, crc64)
        stored = _Object(data=kept, crc64=crc64, storage_class=self._class(storage_class), modified=self._now())
        with self._lock:
            if if_absent and self._conditional_put and key in self._objects:
                raise ObjectExists(f"There is already an object {key} in {self._url}.")
            self._objects[key] = stored
        return self._facts(key, stored)

    def put_file(self, *_: object, **__: object) -> None:
        """In parts, always: they can be resumed."""

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        check_key(key)
        check_range(start, length)
        stored = self._object(key)
        end = len(stored.data) if length is None else start + length
        if end > len(stored.data) or (start >= len(stored.data) and start > 0):
            raise Corrupt(f"holds {len(stored.data)} bytes, not {start} to {end}", address=key)
        data = stored.data[start:end]
        if self._states_checksums and len(data) == len(stored.data) and crc64_of(data) != stored.crc64:
            raise Corrupt("the bytes do not have the checksum that the store states", address=key)
        return data

    def head(self, key: str) -> ObjectFacts:
        check_key(key)
        return self._facts(key, self._object(key))

    def list_objects(self, prefix: str, *, after: str = "") -> Iterator[ObjectFacts]:
        with self._lock:
            found = [(key, stored) for key, stored in self._objects.items() if key.startswith(prefix)]
        for key, stored in sorted(found, key=lambda item: item[0]):
            if key > after:
                yield replace(self._facts(key, stored), crc64=None)

    def delete(self, key: str) -> None:
        check_key(key)
        with self._lock:
            self._objects.pop(key, None)

    def start_upload(self, key: str, *, storage_class: str = "STANDARD") -> str:
        check_key(key)
        with self._lock:
            self._started += 1
            upload_id = f"upload-{self._started}"
            self._uploads[upload_id] = _OpenUpload(
                key=key, storage_class=self._class(storage_class), initiated=self._now()
            )
        return upload_id

    def put_part(self, key: str, upload_id: str, number: int, data: bytes | memoryview, *, crc64: int) -> Part:
        if not 1 <= number <= MAX_PARTS:
            raise ValueError(f"not a part number: {number}")
        kept = _verified(key, data, crc64)
        part = Part(number=number, size=len(kept), etag=f'"{crc64:016x}-{len(kept)}"', crc64=crc64)
        with self._lock:
            self._upload(key, upload_id).parts[number] = (part, kept)
        return part

    def list_parts(self, key: str, upload_id: str) -> list[Part]:
        with self._lock:
            parts = self._upload(key, upload_id).parts
            return [parts[number][0] for number in sorted(parts)]

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part], *, size: int, crc64: int) -> ObjectFacts:
        with self._lock:
            upload = self._upload(key, upload_id)
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
            self._objects[key] = stored
            del self._uploads[upload_id]
        return self._facts(key, stored)

    def abort_upload(self, key: str, upload_id: str) -> None:
        check_key(key)
        with self._lock:
            self._uploads.pop(upload_id, None)

    def list_uploads(self, prefix: str) -> list[Upload]:
        with self._lock:
            return [
                Upload(key=upload.key, upload_id=upload_id, initiated=upload.initiated)
                for upload_id, upload in self._uploads.items()
                if upload.key.startswith(prefix)
            ]

    def close(self) -> None:
        return

    def dump(self) -> dict[str, bytes]:
        with self._lock:
            return {key: stored.data for key, stored in self._objects.items()}

    def load(self, contents: Mapping[str, bytes]) -> None:
        with self._lock:
            self._objects = {
                key: _Object(data=bytes(data), crc64=crc64_of(data), storage_class="STANDARD", modified=self._now())
                for key, data in contents.items()
            }
            self._uploads.clear()

    def rot(self, key: str, data: bytes | None) -> None:
        stored = self._object(key)
        with self._lock:
            self._objects[key] = replace(stored, data=flipped(stored.data) if data is None else data)


def _verified(key: str, data: bytes | memoryview, crc64: int) -> bytes:
    kept = bytes(data)
    if crc64_of(kept) != crc64:
        raise Corrupt("the bytes that arrived do not have the checksum that was sent with them", address=key)
    return kept


class MemoryStore(CountingStore):
    """See the module's docstring. Thread-safe; a put is seen by the next call of any thread.

    The keyword arguments make it imitate poorer stores: one that states no checksums, ignores classes or
    ignores the condition of a put, or (for small test data) one with smaller parts.
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
    ) -> None:
        self._shelf = _Shelf(
            clock,
            url=url,
            min_part_bytes=min_part_bytes,
            states_checksums=states_checksums,
            knows_classes=knows_classes,
            conditional_put=conditional_put,
        )
        faulty = FaultyStore(self._shelf, faults)
        self.faults: Faults = faulty.faults
        super().__init__(faulty)

    def dump(self) -> dict[str, bytes]:
        """A copy of all objects' bytes; not counted, without faults."""
        return self._shelf.dump()

    def load(self, contents: Mapping[str, bytes]) -> None:
        """Hold exactly these objects, as if just put into STANDARD, and no open uploads."""
        self._shelf.load(contents)

    def rot(self, key: str, data: bytes | None = None) -> None:
        """Change the bytes at rest (one bit, or all of them to `data`); the stated checksum stays as it
        was."""
        self._shelf.rot(key, data)
