"""From a folded chain and a listing of its packs to the rows of the catalog. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.catalog.rows import (
    ChainRow,
    ChainRows,
    ChainState,
    EntryRow,
    GenerationKind,
    GenerationRow,
    GenerationState,
    HoldRow,
    PackRow,
    PackState,
)
from gateway.model.ids import in_ranges
from gateway.policy.hot import hot_until
from gateway.repository import fold
from gateway.repository.chain import Chain

Listed = Mapping[int, tuple[bytes, int]]
"""Pack number -> (id, size), as the store lists them."""


def chain_rows(chain: Chain, listed: Listed) -> ChainRows:
    """All rows of a chain; a rebuild and a running gateway get the same from the same store."""
    sequence, digest = chain.head
    if chain.ended:
        state = ChainState.ENDED
    elif chain.problem:
        state = ChainState.DAMAGED
    else:
        state = ChainState.CLOSED if chain.fold.closed else ChainState.OPEN
    row = ChainRow(
        chain=chain.name, created=chain.header.created, source=chain.header.group, storage=chain.header.storage,
        state=state, header_digest=chain.header_digest, header_size=chain.header_size, head_sequence=sequence,
        head_digest=digest, problem=chain.problem,
    )  # fmt: skip
    entries = tuple(
        EntryRow(chain=chain.name, sequence=e.sequence, digest=e.digest, size=e.size, kind=e.entry.kind,
                 writer=e.entry.writer, time=e.entry.time)
        for e in chain.entries
    )  # fmt: skip
    packs = tuple(_pack_row(chain, number, listed) for number in sorted(chain.fold.packs))
    generations = tuple(_generation_row(chain, each, listed) for each in chain.fold.generations.values())
    holds = tuple(
        HoldRow(hold=hold_id, generation=hold.generation, who=hold.who, why=hold.why, chain=chain.name, sequence=at)
        for hold_id, (at, hold) in chain.fold.holds.items()
    )
    return ChainRows(chain=row, entries=entries, packs=packs, generations=generations, holds=holds)


def missing_packs(chain: Chain, listed: Listed) -> list[int]:
    """Declared packs that the store does not list with their id and size, condemned ones aside."""
    return [
        number
        for number, pack in chain.fold.packs.items()
        if not pack.condemned and listed.get(number) != (pack.declaration.pack_id, pack.declaration.size)
    ]


def _pack_row(chain: Chain, number: int, listed: Listed) -> PackRow:
    pack = chain.fold.packs[number]
    d = pack.declaration
    state, problem = PackState.LIVE, pack.damaged
    if pack.condemned:
        state = PackState.CONDEMNED
    elif pack.damaged or listed.get(number) != (d.pack_id, d.size):
        state, problem = PackState.DAMAGED, pack.damaged or "not in the store, or with another size"
    return PackRow(
        chain=chain.name, number=number, pack_id=d.pack_id, storage=d.storage, size=d.size, crc64=d.crc64,
        index_digest=d.index_digest, index_size=d.index_size, chunks=d.chunks, raw=d.raw, bases=d.bases,
        declared_by=pack.declared_by, state=state, problem=problem,
    )  # fmt: skip


def _generation_row(chain: Chain, each: fold.GenerationState, listed: Listed) -> GenerationRow:
    commit = each.commit
    reasons = list(commit.reasons)
    if not each.committed:
        reasons.append("it is a checkpoint of a run that has not ended")
    reasons += [f"pack {number:08x} is another writer's" for number in each.foreign]
    for number in in_ranges(commit.needs):
        pack = chain.fold.packs.get(number)
        where = f"pack {number:08x}"
        if pack is None:
            reasons.append(f"no entry declares {where}")
        elif pack.condemned:
            reasons.append(f"{where} is condemned")
        elif pack.damaged:
            reasons.append(f"{where} is damaged: {pack.damaged}")
        elif listed.get(number) != (pack.declaration.pack_id, pack.declaration.size):
            reasons.append(f"{where} is not in the store, or has another size")
    if each.expired:
        state = GenerationState.EXPIRED
    elif reasons or not commit.complete:
        state = GenerationState.INCOMPLETE
    else:
        state = GenerationState.PROTECTED
    return GenerationRow(
        source=commit.source, number=commit.number, generation=commit.generation, chain=chain.name,
        sequence=each.sequence, kind=GenerationKind.COMMIT if each.committed else GenerationKind.CHECKPOINT,
        source_kind=commit.source_kind, begun=commit.begun, cut=commit.cut, evidence=commit.evidence,
        operator=commit.operator, state=state, reasons=tuple(reasons[:20]), needs=commit.needs,
        list_depth=commit.files.depth, list_size=commit.files.size, list_runs=commit.files.runs,
        requires=commit.requires, left_out_count=commit.left_out_count, statistics=commit.statistics,
        files=commit.statistics.files, bytes=commit.statistics.bytes, stored_bytes=each.stored_bytes + each.birth,
        hot_until=hot_until(chain.header.steps, _dates(chain, commit.needs)),
    )  # fmt: skip


def _dates(chain: Chain, needs: tuple[int, ...]) -> Iterator[int]:
    """The store's dates of the packs that are needed and that the class's rules move."""
    return (chain.dates[number] for number in in_ranges(needs) if number in chain.dates)
