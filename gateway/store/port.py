"""The port every store implements, and its contract.

A store maps names (`key`: ``/``-separated ASCII, relative to the repository's prefix, no leading slash) to
immutable byte strings. What every adapter promises, and `tests/contract` checks on all of them:

* A method returns only when the store said, in an answer that was checked, that the thing was done. An
  answer that cannot be trusted (wrong checksum echoed, HTML, an empty body) is an error, never a success.
* After `put`, `complete_upload` or `delete` returned, `get`, `head` and `list_objects` see it.
* `data` may be any contiguous bytes-like buffer; it is not changed and not kept after the method returned.
* Adapters never retry: `gateway.store.wrap` is the one place that does. Each failure is one of the classes
  of `gateway.errors`: `StoreUnreachable` (worth a retry), `AnswerUnknown` (a write that may have happened:
  look first), `StoreDenied`, `StoreRefused`, `ClockSkew`, `ObjectMissing`, `ObjectExists`, `ObjectCold`,
  `Conflict`.
* All methods may be called from several threads at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from gateway.store.lifecycle import ARCHIVED, Lifecycle

# LIMIT: one PUT in this gateway, 64 MiB (S3 itself takes 5 GB): what a retry costs and what memory a request
# pins.
MAX_PUT_BYTES: Final = 64 << 20
# LIMIT: smallest part of a multipart upload that is not its last, 5 MiB (S3 user guide, "Amazon S3 limits").
MIN_PART_BYTES: Final = 5 << 20
# LIMIT: part numbers 1..10000 (the same).
MAX_PARTS: Final = 10_000
# LIMIT: bytes of a key (the same); the prefix of an S3 store counts too.
MAX_KEY_BYTES: Final = 1024
# LIMIT: keys in one page of a listing (ListObjectsV2); a store of objects is asked once a page.
PAGE_KEYS: Final = 1000


class ThawTier(StrEnum):
    """How fast a thaw is to be, the fastest first; S3's words. EXPEDITED does not exist for DEEP_ARCHIVE."""

    EXPEDITED = "Expedited"
    STANDARD = "Standard"
    BULK = "Bulk"


class ThawAnswer(StrEnum):
    """What a store said to a request to thaw. Only NO_CAPACITY is no success."""

    STARTED = "started"
    """202: the thaw began, or one that was running goes on in this faster tier."""
    EXTENDED = "extended"
    """200: it is thawed, and stays so for the days asked for, counted from this request: longer or shorter."""
    RUNNING = "running"
    """409: a thaw is in progress, in this tier or a faster one, or for other days; nothing changed."""
    NO_CAPACITY = "no-capacity"
    """503: nobody thaws Expedited just now; nothing changed. Ask again, or in a slower tier."""
    NEVER_COLD = "never-cold"
    """The object can be read as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thaw:
    """The thaw of an archived object: in progress (`until` is None), or readable before `until`.

    The store's word may be old: an `until` that is over means cold again.
    """

    in_progress: bool
    until: datetime | None = None

    def __post_init__(self) -> None:
        if self.in_progress is not (self.until is None):
            raise ValueError("a thaw is in progress, or it has an end")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFacts:
    """What the store itself says about an object.

    `crc64` is the CRC64NVME of the full object as the *store* states it, None where it states none.
    `storage_class` is S3's name ("STANDARD", "GLACIER_IR", ...); stores without classes say "STANDARD".
    `thaw` is None where none was asked for or its end has come. Of an archived object in a listing that is to be
    confirmed by `head`: some stores do not state it there.
    `locked_until`, `legal_hold`: Object Lock, stated by `head` alone. S3 leaves them out for who may not read them
    (s3:GetObjectRetention, s3:GetObjectLegalHold); and in a bucket with versions `delete` hides a locked object without
    an error, while its bytes stay and are billed.
    """

    key: str
    size: int
    crc64: int | None = None
    storage_class: str = "STANDARD"
    modified: datetime | None = None
    version: str | None = None
    thaw: Thaw | None = None
    locked_until: datetime | None = None
    legal_hold: bool = False

    def readable(self, now: datetime) -> bool:
        """Whether `get` would find it hot or thawed, as far as these facts say."""
        if self.storage_class not in ARCHIVED:
            return True
        return self.thaw is not None and self.thaw.until is not None and now < self.thaw.until


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part the store holds. `number` counts from 1; `etag` is the store's name for it, opaque."""

    number: int
    size: int
    etag: str
    crc64: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A multipart upload that was started and neither completed nor aborted."""

    key: str
    upload_id: str
    initiated: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a store can do, as `probe` found it out by trying.

    `conditional_put`: a second create of the same key is refused; without it the store is *single-writer*.
    `checksums`: the store verifies CRC64NVME on the way in and states it in HEAD; without it objects are
    proved by reading them back. `classes`: storage classes other than STANDARD are accepted and reported
    back.
    """

    conditional_put: bool
    checksums: bool
    ranges: bool
    listing: bool
    classes: bool


def check_key(key: str) -> None:
    """`ValueError` for a name that cannot be the same object in a bucket and in a directory.

    Printable ASCII; ``/`` separates components, none of which is empty, ``.`` or ``..``.
    """
    if not key or len(key) > MAX_KEY_BYTES or not key.isascii() or not key.isprintable():
        raise ValueError(f"not a key: {key[:80]!r}")
    if any(component in ("", ".", "..") for component in key.split("/")):
        raise ValueError(f"not a key: {key[:80]!r}")


def is_key(name: str) -> bool:
    """Whether a name in a bucket is one that the port can name; others are foreign and left alone."""
    try:
        check_key(name)
    except ValueError:
        return False
    return True


def check_range(start: int, length: int | None) -> None:
    """`ValueError` for a range that no `get` can mean."""
    if start < 0 or (length is not None and length <= 0):
        raise ValueError(f"not a range: start {start}, length {length}")


class ObjectStore(Protocol):
    """See the module's docstring for what holds for every method."""

    @property
    def url(self) -> str:
        """Where this is, for messages: ``s3://bucket/prefix`` or ``file:///srv/store``. Holds no secret."""

    @property
    def base(self) -> str:
        """What stands before every key in the bucket: empty, or ending in ``/``. Lifecycle rules need it."""

    @property
    def states_checksums(self) -> bool:
        """Whether `ObjectFacts.crc64` is the store's own word. False: prove objects by reading them back."""

    @property
    def knows_classes(self) -> bool:
        """Whether `storage_class` has an effect. False: it is ignored."""

    def put(
        self,
        key: str,
        data: bytes | memoryview,
        *,
        crc64: int,
        storage_class: str = "STANDARD",
        if_absent: bool = False,
    ) -> ObjectFacts:
        """Create or replace an object in one request; at most 64 MiB.

        `crc64` is the CRC64NVME of `data`; the store checks it where it can, and then `Corrupt` says that
        `data` no longer has it. With `if_absent` an existing object is never touched: `ObjectExists` (also
        when it is our own, from a try whose answer was lost: the caller compares). `Conflict`: a concurrent
        create; ask again. `AnswerUnknown`: look before doing anything.
        """

    def put_file(
        self, key: str, path: Path, *, size: int, crc64: int, storage_class: str = "STANDARD"
    ) -> ObjectFacts | None:
        """Create or replace an object from a local file of `size` bytes, where that costs less than sending parts.

        None: nothing was done, this store wants the object in parts. It is not compared with `crc64` on the way in
        where `states_checksums` is False: the caller reads it back.
        """

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Exactly `length` bytes from `start` (to the end when None); fewer is `Corrupt`, never returned.

        `length=0` is refused by ValueError; a `start` at or behind the end of the object (but 0 of an empty
        one) is `Corrupt`. A body cut off on its way is `StoreUnreachable`: asking again may help. Where the
        store states a checksum of the full object and all of it was read, it was compared. `ObjectMissing`,
        `ObjectCold`.
        """

    def head(self, key: str) -> ObjectFacts:
        """`ObjectMissing` when there is none; never confuses "denied" with "missing"."""

    def list_objects(self, prefix: str, *, after: str = "") -> Iterator[ObjectFacts]:
        """Every object whose key starts with `prefix`, in ascending byte order of keys, lazily, complete or
        raising.

        With `after` only keys greater than it: how a listing that broke off goes on. `crc64` is usually None
        here.
        """

    def delete(self, key: str) -> None:
        """Idempotent: a key that is not there is no error."""

    def start_upload(self, key: str, *, storage_class: str = "STANDARD") -> str:
        """Begin a multipart upload, return its id. Nothing is visible under `key` before
        `complete_upload`."""

    def put_part(self, key: str, upload_id: str, number: int, data: bytes | memoryview, *, crc64: int) -> Part:
        """Send part `number` (1..10000; all but the last >= 5 MiB). Sending a number again replaces it.

        `ObjectMissing` when the upload id is not known (any more); `Corrupt` as with `put`.
        """

    def list_parts(self, key: str, upload_id: str) -> list[Part]:
        """The parts the store holds, ascending. `ObjectMissing` when the upload id is not known (any
        more)."""

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part], *, size: int, crc64: int) -> ObjectFacts:
        """Make the object of exactly these parts; returns what the store states about the finished object.

        A result whose size or checksum is not `size` and `crc64` is `Corrupt`. Never sent twice at once. A
        part that the store does not hold, or holds otherwise, or that is too small, is `StoreRefused`.
        `AnswerUnknown` / `ObjectMissing` (unknown upload id): the caller looks with `head`, for it may have
        worked.
        """

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Idempotent."""

    def list_uploads(self, prefix: str) -> list[Upload]:
        """Multipart uploads under `prefix` that are still open."""

    def thaw(self, key: str, *, days: int, tier: ThawTier) -> ThawAnswer:
        """Ask for a readable copy of an archived object. Costs money; asking twice is asking once.

        The copy is there when the thaw is over, which takes up to 48 hours, and until `days` (1 or more) after *this
        request*, rounded up to midnight UTC: of few days a slow thaw leaves nothing. A running thaw is hastened by
        the same days and a faster tier, never slowed down or stopped. `ObjectMissing`; `StoreRefused` for a tier that
        the class does not have, or where the store has archive classes but cannot thaw.
        """

    def get_lifecycle(self) -> Lifecycle:
        """All rules of the bucket; no rules is no error. `StoreRefused` where a store has no such thing."""

    def put_lifecycle(self, lifecycle: Lifecycle) -> None:
        """Replace *all* rules of the bucket, those of others too: pass on what `get_lifecycle` gave, with changes.

        Not conditional: two who do it at once race. S3 may take minutes until it acts on the rules and shows them, so
        nothing is read back here; a store that drops what it does not understand is found by `get_lifecycle` later.
        `StoreRefused` for rules that contradict themselves, and where a store has none.
        """

    def close(self) -> None:
        """Let go of connections. Idempotent; nothing else is called afterwards."""
