"""From the catalog's rows and the format's records to the values of the API. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gateway import api
from gateway.api import Answer, Capability, ChainInfo, FileInfo, FileType, GenerationInfo
from gateway.catalog import Catalog, ChainRows, GenerationRow, GenerationState
from gateway.clock import from_milliseconds
from gateway.format.filelist import FileEntry
from gateway.model.entry import EntryType
from gateway.model.ids import generation_text

_TYPES = {
    EntryType.FILE: FileType.FILE,
    EntryType.DIRECTORY: FileType.DIRECTORY,
    EntryType.SYMLINK: FileType.SYMLINK,
    EntryType.FIFO: FileType.FIFO,
    EntryType.SOCKET: FileType.SOCKET,
    EntryType.CHARACTER: FileType.CHARACTER_DEVICE,
    EntryType.BLOCK: FileType.BLOCK_DEVICE,
}


def generation_info(row: GenerationRow, catalog: Catalog) -> GenerationInfo:
    """One line of the list of generations."""
    rows = catalog.chain_rows(row.chain)
    digest = next((e.digest for e in rows.entries if e.sequence == row.sequence), b"") if rows else b""
    held = any(hold.generation == row.generation for hold in rows.holds) if rows else False
    return _info(row, digest, rows.chain.storage if rows else "", held)


def generation_infos(rows: list[GenerationRow], catalog: Catalog) -> list[GenerationInfo]:
    """The same for many; expired ones are left away."""
    kept = [row for row in rows if row.state is not GenerationState.EXPIRED]
    storage = {row.chain: row.storage for row in catalog.chains()} if kept else {}
    held = {hold.generation for hold in catalog.holds()} if kept else set()
    digests = {
        (chain, entry.sequence): entry.digest
        for chain in {row.chain for row in kept} for entry in catalog.entries(chain)
    }  # fmt: skip
    return [
        _info(row, digests.get((row.chain, row.sequence), b""), storage.get(row.chain, ""), row.generation in held)
        for row in kept
    ]


def chain_infos(catalog: Catalog, source: str | None) -> list[ChainInfo]:
    """Every chain of a source, or of all."""
    rows = (catalog.chain_rows(row.chain) for row in catalog.chains() if source in (None, row.source))
    return [_chain_info(each) for each in rows if each is not None]


def _chain_info(rows: ChainRows) -> ChainInfo:
    chain, kept = rows.chain, [row for row in rows.generations if row.state is not GenerationState.EXPIRED]
    counted = [row.statistics for row in rows.generations]
    plain_raw = sum(each.new_raw - each.delta_raw for each in counted)
    plain = sum(each.stored_raw + each.stored_zstd for each in counted)
    data = sum(row.statistics.data_bytes for row in kept)
    return ChainInfo(
        chain=str(chain.chain), source=chain.source, storage_class=chain.storage, state=chain.state.value,
        created=from_milliseconds(chain.created),
        head=str(api.Head(chain=chain.chain, sequence=chain.head_sequence, digest=chain.head_digest.hex())),
        generations=len(kept), packs=len(rows.packs), stored_bytes=sum(row.stored_bytes for row in rows.generations),
        data_bytes=data, full_bytes=round(data * plain / plain_raw) if plain_raw else 0, problem=chain.problem,
    )  # fmt: skip


def _info(row: GenerationRow, digest: bytes, storage: str, held: bool) -> GenerationInfo:
    protected = row.state is GenerationState.PROTECTED
    return GenerationInfo(
        source=row.source, number=row.number, id=generation_text(row.generation), chain=str(row.chain),
        head=str(api.Head(chain=row.chain, sequence=row.sequence, digest=digest.hex())),
        created=from_milliseconds(row.cut),
        state=api.GenerationState.PROTECTED if protected else api.GenerationState.INCOMPLETE,
        evidence=row.evidence, files=row.files, bytes=row.bytes, stored_bytes=row.stored_bytes, storage_class=storage,
        held=held, left_out=row.left_out_count, reason="; ".join(row.reasons),
        hot_until=None if row.hot_until is None else from_milliseconds(row.hot_until),
    )  # fmt: skip


def file_info(entry: FileEntry) -> FileInfo:
    is_file = entry.kind == EntryType.FILE
    return FileInfo(
        path=entry.path, type=_TYPES[EntryType(entry.kind)], size=entry.size, mtime_ns=entry.mtime_ns, mode=entry.mode,
        uid=entry.uid, gid=entry.gid, evidence=entry.evidence if is_file and not entry.hardlink else None,
        digest=entry.digest.hex() or None, link_target=entry.target if entry.kind == EntryType.SYMLINK else None,
        hard_link_to=entry.hardlink or None,
    )  # fmt: skip


_CAPABILITIES = {
    "conditional_put": "Two gateways can never overwrite each other's log; without it only one may ever write.",
    "checksums": "The store checks what arrives and states it; without it every object is read back.",
    "ranges": "Parts of an object can be read.",
    "listing": "What was written is listed at once.",
    "classes": "Packs go into the class of their source; without it everything is kept hot.",
}


def capability_infos(found: object) -> Iterator[Capability]:
    """What a store can do, and what that means for people."""
    for name, meaning in _CAPABILITIES.items():
        answer = Answer.YES if getattr(found, name) else Answer.NO
        yield Capability(name=name, answer=answer, meaning=meaning)
