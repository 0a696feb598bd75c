"""What the catalog keeps, as values.

The rows of a chain (`ChainRows`) are derived: a fold over its log gives them again, equal in every field. So they hold
nothing that only this machine knows. The other rows are local and are lost with the catalog's file; what that costs is
said at each.

Times are milliseconds since 1970-01-01T00:00:00Z unless a name says otherwise, sizes are bytes, packs and their
ranges are numbers within their chain (`gateway.model.ids.ranges`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from gateway.format.log import Statistics
from gateway.model.entry import Identity, order_key
from gateway.model.ids import ChainName


class ChainState(StrEnum):
    OPEN = "open"
    CLOSED = "closed"
    DAMAGED = "damaged"
    """Its log has a gap or a wrong digest: read-only."""
    ENDED = "ended"
    """Only header and `end` are left in the store."""


class PackState(StrEnum):
    LIVE = "live"
    CONDEMNED = "condemned"
    DAMAGED = "damaged"


class GenerationKind(StrEnum):
    """Which entry says that the generation exists."""

    COMMIT = "commit"
    CHECKPOINT = "checkpoint"


class GenerationState(StrEnum):
    PROTECTED = "protected"
    INCOMPLETE = "incomplete"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRow:
    """A chain, and how far its log was folded. `head_sequence` 0: no entry yet, `head_digest` is the header's."""

    chain: ChainName
    created: int
    source: str
    storage: str
    state: ChainState
    header_digest: bytes
    header_size: int
    head_sequence: int
    head_digest: bytes
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryRow:
    chain: ChainName
    sequence: int
    digest: bytes
    size: int
    kind: str
    writer: bytes
    time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackRow:
    """A pack as the first entry that declared its number says; `declared_by` is that entry's sequence number."""

    chain: ChainName
    number: int
    pack_id: bytes
    storage: str
    size: int
    crc64: int
    index_digest: bytes
    index_size: int
    chunks: int
    raw: int
    bases: tuple[int, ...]
    declared_by: int
    state: PackState = PackState.LIVE
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRow:
    """A generation; `sequence` is the entry that set it last, `needs` all its packs, data and list, as ranges.

    `hot_until`: by the store's own dates and its class; None: always.
    """

    source: str
    number: int
    generation: bytes
    chain: ChainName
    sequence: int
    kind: GenerationKind
    source_kind: str
    begun: int
    cut: int
    evidence: int
    operator: str
    state: GenerationState
    reasons: tuple[str, ...]
    needs: tuple[int, ...]
    list_depth: int
    list_size: int
    list_runs: tuple[int, ...]
    requires: tuple[tuple[str, int, bytes], ...]
    left_out_count: int
    statistics: Statistics
    files: int
    bytes: int
    stored_bytes: int
    hot_until: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRow:
    """A hold that stands. `sequence` is the entry that set it."""

    hold: bytes
    generation: bytes
    who: str
    why: str
    chain: ChainName
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRows:
    """All rows of one chain. `Catalog.chain_rows` gives entries and packs by number, generations by (number, id) and
    holds by (sequence, id); `Catalog.replace_chain` takes them in any order."""

    chain: ChainRow
    entries: tuple[EntryRow, ...] = ()
    packs: tuple[PackRow, ...] = ()
    generations: tuple[GenerationRow, ...] = ()
    holds: tuple[HoldRow, ...] = ()

    def __post_init__(self) -> None:
        name = self.chain.chain
        for rows in (self.entries, self.packs, self.generations, self.holds):
            if any(row.chain != name for row in rows):
                raise ValueError(f"a row of another chain among those of {name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFile:
    """What the last generation of a source read at one path; without it the file is read again.

    `key` is the path with ``/`` as NUL (`gateway.model.entry.order_key`), so that keys sort as file lists do.
    `read_started_ns` and `held_ns` are nanoseconds of the wall clock. `held_ns`: when the reading began that first
    found this version with this content. A later one only confirms it, for two changes may share one ctime.
    """

    key: bytes
    identity: Identity
    read_started_ns: int
    evidence: int
    held_ns: int

    @classmethod
    def of(
        cls, path: bytes, identity: Identity, read_started_ns: int, evidence: int, held_ns: int | None = None
    ) -> KnownFile:  # fmt: skip
        held_ns = read_started_ns if held_ns is None else held_ns
        return cls(
            key=order_key(path), identity=identity, read_started_ns=read_started_ns, evidence=evidence, held_ns=held_ns
        )  # fmt: skip

    def under(self, path: bytes) -> KnownFile:
        """The same file under another of its names."""
        return replace(self, key=order_key(path))

    @property
    def path(self) -> bytes:
        return self.key.replace(b"\0", b"/")


class UploadState(StrEnum):
    FINISHED = "finished"
    """Whole in the pack cache; the store has nothing of it that counts."""
    SENDING = "sending"
    """A multipart upload is open in the store."""
    STORED = "stored"
    """The store acknowledged the pack object."""
    INDEXED = "indexed"
    """The store acknowledged its index object too; an entry may declare it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackUpload:
    """A pack on its way to the store, until an entry declares it. Lost: it is sent again under another number."""

    chain: ChainName
    number: int
    pack_id: bytes
    storage: str
    size: int
    crc64: int
    index_digest: bytes
    index_size: int
    chunks: int
    raw: int
    bases: tuple[int, ...]
    generation: bytes
    upload_id: str | None = None
    state: UploadState = UploadState.FINISHED


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPart:
    """A part of a multipart upload, numbered from 1. An empty `etag`: it was sent and no answer was seen yet."""

    number: int
    size: int
    etag: str
    crc64: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """When a pack was last compared with what the store states, or read back. Lost: it is proved again."""

    number: int
    pack_id: bytes
    when: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The newest entry ever seen of a chain's log. Lost: a log rolled back before the next fold goes unnoticed."""

    sequence: int
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """Who changed what, when."""

    who: str
    what: str
    when: int
    detail: str
