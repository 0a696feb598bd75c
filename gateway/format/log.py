"""Chain header, log entries, end (docs/format/log.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from gateway.errors import Corrupt
from gateway.format import canonical, container, limits, wire
from gateway.format.container import Kind, Name
from gateway.format.keys import ChainKeys
from gateway.model.ids import ChainName

Flag = Annotated[int, msgspec.Meta(ge=0, le=1)]
U8 = Annotated[int, msgspec.Meta(ge=0, lt=2**8)]
U32 = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
U64 = Annotated[int, msgspec.Meta(ge=0)]  # MessagePack itself ends at 2^64 - 1
Id = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Label = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,32}\Z")]
Numbers = tuple[U32, ...]

COMMIT = "commit"
CHECKPOINT = "checkpoint"
EXPIRE = "expire"
HOLD = "hold"
UNHOLD = "unhold"
DAMAGED = "damaged"
CONDEMN = "condemn"
CLOSE = "close"


class ChainHeader(wire.Record, frozen=True, kw_only=True):
    needs_features: tuple[str, ...] = ()
    group: Label
    number: U32
    created: U64
    writer: Id
    storage: Label
    steps: tuple[U32 | str, ...]
    hot_days: U32
    chain_days: U32
    chunker: str
    data_chunks: tuple[U32, U32, U32]
    list_chunks: tuple[U32, U32, U32]
    reason: str
    before: U32
    before_digest: bytes


class Declaration(wire.Record, frozen=True, kw_only=True):
    """A pack, as an entry declares it."""

    number: Annotated[int, msgspec.Meta(ge=1, lt=2**32)]
    pack_id: Id
    storage: Label
    size: Annotated[int, msgspec.Meta(ge=0, le=limits.PACK_BYTES)]
    crc64: U64
    index_digest: Digest
    index_size: Annotated[int, msgspec.Meta(ge=0, le=limits.INDEX_BYTES)]
    chunks: U32
    raw: U64
    bases: Numbers = ()


class Statistics(wire.Record, frozen=True, kw_only=True):
    LATER = 5

    entries: U64 = 0
    files: U64 = 0
    bytes: U64 = 0
    data_bytes: U64 = 0
    read: U64 = 0
    carried: U64 = 0
    new_raw: U64 = 0
    new_chunks: U64 = 0
    known_chunks: U64 = 0
    known_raw: U64 = 0
    stored_raw: U64 = 0
    stored_zstd: U64 = 0
    stored_delta: U64 = 0
    birth: U64 = 0
    milliseconds: U64 = 0
    delta_raw: U64 = 0
    based: U64 = 0
    absent: U64 = 0
    bounded: U64 = 0
    retired: U64 = 0


class ListRoot(wire.Record, frozen=True):
    """The part at the top of a file list."""

    depth: U8
    size: U64
    runs: Numbers


class BackupJob(wire.Record, frozen=True, kw_only=True):
    """What the producer of a backup job says of it. `provides`: (line, from, to) of a log; `lacks`: in words, what it
    needs and no generation has; `kit`: how somebody who has its files comes to what was backed up.
    """

    run: str
    producer: str
    keys: tuple[str, ...]
    provides: tuple[tuple[str, U64, U64], ...]
    lacks: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    kit: str


class Commit(wire.Record, frozen=True, kw_only=True):
    """Payload of `commit` and `checkpoint`."""

    LATER = 1

    generation: Id
    source: Label
    number: U64
    source_kind: str
    begun: U64
    cut: U64
    evidence: U8
    operator: str
    complete: Flag
    reasons: tuple[str, ...]
    packs: tuple[Declaration, ...]
    needs: Numbers
    files: ListRoot
    requires: tuple[tuple[Label, U32, Id], ...]
    left_out_count: U64
    left_out: tuple[tuple[bytes, str, str], ...]
    statistics: Statistics
    jobs: tuple[Any, ...] = ()
    """To be read with `jobs_of`."""


def jobs_of(commit: Commit) -> Iterator[BackupJob]:
    """Backup jobs that a commit names. What has another form is a later writer's, and passed over."""
    for each in commit.jobs:
        with contextlib.suppress(msgspec.ValidationError):
            yield msgspec.convert(each, BackupJob)


class Expire(wire.Record, frozen=True):
    generations: tuple[Id, ...]
    who: str
    rule: str


class Hold(wire.Record, frozen=True):
    hold: Id
    generation: Id
    who: str
    why: str


class Unhold(wire.Record, frozen=True):
    hold: Id
    who: str
    why: str


class Damaged(wire.Record, frozen=True):
    pack: U32
    pack_id: Id
    what: str
    found: U64
    good: Flag


class Condemn(wire.Record, frozen=True):
    packs: Numbers
    ids: tuple[Id, ...]
    why: str


class Close(wire.Record, frozen=True):
    why: str


Payload = Commit | Expire | Hold | Unhold | Damaged | Condemn | Close

PAYLOADS: dict[str, type[Payload]] = {
    COMMIT: Commit,
    CHECKPOINT: Commit,
    EXPIRE: Expire,
    HOLD: Hold,
    UNHOLD: Unhold,
    DAMAGED: Damaged,
    CONDEMN: Condemn,
    CLOSE: Close,
}


class _Features(wire.Record, frozen=True):
    """The first field of every body, read before the rest, whose meaning it may change."""

    needs_features: tuple[str, ...]


class _Envelope(wire.Record, frozen=True):
    needs_features: tuple[str, ...]
    kind: str
    writer: Id
    before: Digest
    time: U64
    signature: bytes
    payload: msgspec.Raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A log entry. `payload` is None for a kind this version does not know."""

    kind: str
    writer: bytes
    before: bytes
    time: int
    payload: Payload | None


class End(wire.Record, frozen=True):
    needs_features: tuple[str, ...]
    sequence: U32
    digest: Digest
    time: U64
    writer: Id


def entry_name(repository: bytes, chain: ChainName, sequence: int) -> Name:
    return Name(kind=Kind.ENTRY, repository=repository, chain=chain, number=sequence)


def header_name(repository: bytes, chain: ChainName) -> Name:
    return Name(kind=Kind.HEADER, repository=repository, chain=chain)


def end_name(repository: bytes, chain: ChainName) -> Name:
    return Name(kind=Kind.END, repository=repository, chain=chain)


def encode_entry(entry: Entry, sequence: int, chain: ChainName, keys: ChainKeys, salt: bytes) -> bytes:
    """The object of an entry. ValueError when it is larger than the format allows: the caller must split."""
    payload = msgspec.Raw(wire.encode(entry.payload))
    body = wire.encode(_Envelope((), entry.kind, entry.writer, entry.before, entry.time, b"", payload))
    data = container.seal_body(entry_name(keys.repository, chain, sequence), keys, salt, body)
    if len(data) > limits.ENTRY_BYTES:
        raise ValueError(f"log entry of {len(data)} bytes")
    return data


def decode_entry(data: bytes, sequence: int, chain: ChainName, keys: ChainKeys, address: str) -> Entry:
    body = container.open_body(data, entry_name(keys.repository, chain, sequence), keys, address)
    said = _require_known(body, address)
    envelope = wire.decode(body, _Envelope, address)
    kind = PAYLOADS.get(envelope.kind)
    payload = wire.decode(bytes(envelope.payload), kind, address) if kind is not None else None
    if isinstance(payload, Commit):
        _check_commit(payload, address)
        for declared in said[6][10]:
            wire.require_fields(len(declared), Declaration, address)
        wire.require_fields(len(said[6][16]), Statistics, address)
        if payload.complete and envelope.kind == CHECKPOINT:
            raise Corrupt("checkpoint calls itself complete", address=address)
    elif isinstance(payload, Condemn):
        check_ranges(payload.packs, address)
        if sum(payload.packs[1::2]) != len(payload.ids):
            raise Corrupt("condemns as many packs as it names ids", address=address)
    return Entry(
        kind=envelope.kind,
        writer=envelope.writer,
        before=envelope.before,
        time=envelope.time,
        payload=payload,
    )


def _check_commit(commit: Commit, address: str) -> None:
    check_ranges(commit.needs, address)
    for pack in commit.packs:
        check_ranges(pack.bases, address)
        if pack.bases and pack.bases[-2] + pack.bases[-1] > pack.number:
            raise Corrupt("pack is based on itself or on a later one", address=address)
    check_runs(commit.files.runs, address)
    depth, size, runs = commit.files.depth, commit.files.size, commit.files.runs
    if depth > limits.LIST_DEPTH or size > limits.PART_BYTES or bool(size) != bool(runs) or (depth and not size):
        raise Corrupt("file list is out of bounds", address=address)
    if len(commit.left_out) > limits.LEFT_OUT_IN_ENTRY:
        raise Corrupt("names too many left out", address=address)


def check_ranges(flat: tuple[int, ...], address: str) -> None:
    """Ascending, disjoint, non-empty ranges of pack numbers, u32 from 1."""
    if len(flat) % 2 or sum(flat[1::2]) > limits.PACKS_IN_RANGES:
        raise Corrupt("ranges are malformed", address=address)
    at = 0
    for first, count in zip(flat[::2], flat[1::2], strict=True):
        if first <= at or count < 1 or first + count > 2**32:
            raise Corrupt("ranges are malformed", address=address)
        at = first + count - 1


def check_runs(flat: Sequence[int], address: str) -> None:
    """Triples of pack (from 1), first, count (from 1); pack numbers and indexes are u32."""
    if len(flat) % 3:
        raise Corrupt("runs are malformed", address=address)
    for pack, first, count in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
        if not 0 < pack < 2**32 or count < 1 or first + count > 2**32:
            raise Corrupt("runs are malformed", address=address)


def encode_header(header: ChainHeader, keys: ChainKeys, salt: bytes) -> bytes:
    name = header_name(keys.repository, ChainName(header.group, header.number))
    return container.seal_body(name, keys, salt, wire.encode(header))


def decode_header(data: bytes, chain: ChainName, keys: ChainKeys, address: str) -> ChainHeader:
    body = container.open_body(data, header_name(keys.repository, chain), keys, address)
    _require_known(body, address)
    header = wire.decode(body, ChainHeader, address)
    if (header.group, header.number) != (chain.group, chain.number):
        raise Corrupt("header is another chain's", address=address)
    steps = header.steps
    if (
        len(header.before_digest) not in (0, 32)
        or len(steps) % 2
        or any(isinstance(each, str) != bool(i % 2) for i, each in enumerate(steps))
    ):
        raise Corrupt("header is malformed", address=address)
    return header


def encode_end(end: End, chain: ChainName, keys: ChainKeys, salt: bytes) -> bytes:
    return container.seal_body(end_name(keys.repository, chain), keys, salt, wire.encode(end))


def decode_end(data: bytes, chain: ChainName, keys: ChainKeys, address: str) -> End:
    body = container.open_body(data, end_name(keys.repository, chain), keys, address)
    _require_known(body, address)
    return wire.decode(body, End, address)


def _require_known(body: bytes, address: str) -> Any:
    """The body, untyped, in its shortest form. `NewerFormat` goes first: a feature may write the rest as it likes."""
    features = wire.decode(body, _Features, address).needs_features
    canonical.require_known(limits.FORMAT, features, address)
    return wire.require_shortest(body, address)
