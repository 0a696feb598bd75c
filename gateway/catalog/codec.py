"""Rows to what SQLite stores, and back.

A row's values come in the order of its table's columns (`gateway.catalog.schema`), so that values read and values to
be written can be compared as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.catalog.rows import (
    ChainRow,
    ChainState,
    EntryRow,
    GenerationKind,
    GenerationRow,
    GenerationState,
    HoldRow,
    KnownFile,
    PackRow,
    PackState,
    PackUpload,
    UploadPart,
    UploadState,
)
from gateway.format import wire
from gateway.format.log import Statistics
from gateway.model.entry import Identity
from gateway.model.ids import ChainName

Values = tuple[Any, ...]

_numbers = msgspec.msgpack.Decoder(tuple[int, ...])
_texts = msgspec.msgpack.Decoder(tuple[str, ...])
_requires = msgspec.msgpack.Decoder(tuple[tuple[str, int, bytes], ...])
_statistics = msgspec.msgpack.Decoder(Statistics)

_EMPTY = wire.encode(())


def signed(value: int) -> int:
    """The signed 64-bit integer with the bits of an unsigned one: SQLite has no unsigned. The order is lost."""
    return value - 2**64 if value >= 2**63 else value


def unsigned(value: int) -> int:
    return value + 2**64 if value < 0 else value


def chain_key(name: ChainName) -> dict[str, Any]:
    """The first two columns of all that belongs to a chain, as keyword arguments of `filter_by`."""
    return {"group_name": name.group, "chain": name.number}


def _pack_numbers(numbers: tuple[int, ...]) -> bytes:
    return wire.encode(numbers) if numbers else _EMPTY


def chain_values(row: ChainRow) -> Values:
    return (
        row.chain.group,
        row.chain.number,
        signed(row.created),
        row.source,
        row.storage,
        str(row.state),
        row.header_digest,
        row.header_size,
        row.head_sequence,
        row.head_digest,
        row.problem,
    )


def chain_row(values: Sequence[Any]) -> ChainRow:
    return ChainRow(
        chain=ChainName(values[0], values[1]),
        created=unsigned(values[2]),
        source=values[3],
        storage=values[4],
        state=ChainState(values[5]),
        header_digest=values[6],
        header_size=values[7],
        head_sequence=values[8],
        head_digest=values[9],
        problem=values[10],
    )


def entry_values(row: EntryRow) -> Values:
    return (
        row.chain.group,
        row.chain.number,
        row.sequence,
        row.digest,
        row.size,
        row.kind,
        row.writer,
        signed(row.time),
    )


def entry_row(values: Sequence[Any]) -> EntryRow:
    return EntryRow(
        chain=ChainName(values[0], values[1]),
        sequence=values[2],
        digest=values[3],
        size=values[4],
        kind=values[5],
        writer=values[6],
        time=unsigned(values[7]),
    )


def pack_values(row: PackRow) -> Values:
    return (
        row.chain.group,
        row.chain.number,
        row.number,
        row.pack_id,
        row.storage,
        signed(row.size),
        signed(row.crc64),
        row.index_digest,
        row.index_size,
        row.chunks,
        signed(row.raw),
        _pack_numbers(row.bases),
        row.declared_by,
        str(row.state),
        row.problem,
    )


def pack_row(values: Sequence[Any]) -> PackRow:
    return PackRow(
        chain=ChainName(values[0], values[1]),
        number=values[2],
        pack_id=values[3],
        storage=values[4],
        size=unsigned(values[5]),
        crc64=unsigned(values[6]),
        index_digest=values[7],
        index_size=values[8],
        chunks=values[9],
        raw=unsigned(values[10]),
        bases=_numbers.decode(values[11]),
        declared_by=values[12],
        state=PackState(values[13]),
        problem=values[14],
    )


def generation_values(row: GenerationRow) -> Values:
    return (
        row.chain.group,
        row.chain.number,
        row.generation,
        row.source,
        signed(row.number),
        row.sequence,
        str(row.kind),
        row.source_kind,
        signed(row.begun),
        signed(row.cut),
        row.evidence,
        row.operator,
        str(row.state),
        wire.encode(row.reasons),
        _pack_numbers(row.needs),
        row.list_depth,
        signed(row.list_size),
        _pack_numbers(row.list_runs),
        wire.encode(row.requires),
        signed(row.left_out_count),
        wire.encode(row.statistics),
        signed(row.files),
        signed(row.bytes),
        signed(row.stored_bytes),
        row.hot_until,
    )


def generation_row(values: Sequence[Any]) -> GenerationRow:
    return GenerationRow(
        chain=ChainName(values[0], values[1]),
        generation=values[2],
        source=values[3],
        number=unsigned(values[4]),
        sequence=values[5],
        kind=GenerationKind(values[6]),
        source_kind=values[7],
        begun=unsigned(values[8]),
        cut=unsigned(values[9]),
        evidence=values[10],
        operator=values[11],
        state=GenerationState(values[12]),
        reasons=_texts.decode(values[13]),
        needs=_numbers.decode(values[14]),
        list_depth=values[15],
        list_size=unsigned(values[16]),
        list_runs=_numbers.decode(values[17]),
        requires=_requires.decode(values[18]),
        left_out_count=unsigned(values[19]),
        statistics=_statistics.decode(values[20]),
        files=unsigned(values[21]),
        bytes=unsigned(values[22]),
        stored_bytes=unsigned(values[23]),
        hot_until=values[24],
    )


def hold_values(row: HoldRow) -> Values:
    return (row.chain.group, row.chain.number, row.hold, row.generation, row.who, row.why, row.sequence)


def hold_row(values: Sequence[Any]) -> HoldRow:
    return HoldRow(
        chain=ChainName(values[0], values[1]),
        hold=values[2],
        generation=values[3],
        who=values[4],
        why=values[5],
        sequence=values[6],
    )


def known_values(source: str, known: KnownFile) -> Values:
    identity = known.identity
    return (
        source,
        known.key,
        signed(identity.device),
        signed(identity.inode),
        identity.size,
        identity.mtime_ns,
        identity.ctime_ns,
        known.read_started_ns,
        known.evidence,
        known.held_ns,
    )


def known_file(values: Sequence[Any]) -> KnownFile:
    return KnownFile(
        key=values[1],
        identity=Identity(unsigned(values[2]), unsigned(values[3]), values[4], values[5], values[6]),
        read_started_ns=values[7],
        evidence=values[8],
        held_ns=values[7] if values[9] is None else values[9],
    )


def upload_values(row: PackUpload) -> Values:
    return (
        row.chain.group,
        row.chain.number,
        row.number,
        row.pack_id,
        row.storage,
        signed(row.size),
        signed(row.crc64),
        row.index_digest,
        row.index_size,
        row.chunks,
        signed(row.raw),
        _pack_numbers(row.bases),
        row.generation,
        row.upload_id,
        str(row.state),
    )


def upload_row(values: Sequence[Any]) -> PackUpload:
    return PackUpload(
        chain=ChainName(values[0], values[1]),
        number=values[2],
        pack_id=values[3],
        storage=values[4],
        size=unsigned(values[5]),
        crc64=unsigned(values[6]),
        index_digest=values[7],
        index_size=values[8],
        chunks=values[9],
        raw=unsigned(values[10]),
        bases=_numbers.decode(values[11]),
        generation=values[12],
        upload_id=values[13],
        state=UploadState(values[14]),
    )


def part_values(chain: ChainName, pack: int, row: UploadPart) -> Values:
    return (chain.group, chain.number, pack, row.number, row.size, row.etag, signed(row.crc64))


def part_row(values: Sequence[Any]) -> UploadPart:
    return UploadPart(number=values[3], size=values[4], etag=values[5], crc64=unsigned(values[6]))
