"""Everything about one generation, as `gateway show` has it."""

from __future__ import annotations

from collections import Counter

from gateway import api
from gateway.api import ClassNeeds, EvidenceCount, GenerationDetail, PackInfo
from gateway.catalog import GenerationRow
from gateway.clock import from_milliseconds
from gateway.format.log import Commit, jobs_of
from gateway.jobs.context import Context
from gateway.jobs.views import generation_info
from gateway.model.ids import generation_text, in_ranges
from gateway.policy.advice import of_reduction
from gateway.repository.chain import Chain


def generation_detail(context: Context, row: GenerationRow, chain: Chain, commit: Commit) -> GenerationDetail:
    """Of the catalog's row and the log's entry; asks the store for nothing."""
    needs, packs = Counter[str](), []
    sizes = Counter[str]()
    proofs = context.catalog.proofs(row.chain)
    for number in in_ranges(commit.needs):
        state = chain.fold.packs.get(number)
        if state is None:
            continue  # the reasons of the generation name it
        pack = state.declaration
        needs[pack.storage] += 1
        sizes[pack.storage] += pack.size
        proof = proofs.get(number)
        new = any(declared.number == number for declared in commit.packs)
        packs.append(
            PackInfo(number=number, id=pack.pack_id.hex(), storage_class=pack.storage, bytes=pack.size, new=new,
                     proved=from_milliseconds(proof.when) if proof else None)
        )  # fmt: skip
    statistics = commit.statistics
    stored = statistics.stored_raw + statistics.stored_zstd + statistics.stored_delta
    return GenerationDetail(
        info=generation_info(row, context.catalog),
        sealed=from_milliseconds(commit.cut),
        operator=commit.operator or None,
        statistics=api.Statistics(
            read_bytes=statistics.read, duplicate_bytes=statistics.known_raw, new_bytes=statistics.new_raw,
            stored_bytes=stored, delta_bytes=statistics.delta_raw, new_chunks=statistics.new_chunks,
            bases_missing=statistics.absent, bases_bounded=statistics.bounded, cache_wanted_bytes=sizes.total(),
            retired_bytes=statistics.retired, seconds=statistics.milliseconds / 1000,
        ),
        evidence=(EvidenceCount(evidence=commit.evidence, files=statistics.files),) if commit.evidence else (),
        needs=tuple(ClassNeeds(storage_class=name, packs=needs[name], bytes=sizes[name]) for name in sorted(needs)),
        packs=tuple(packs),
        left_out=tuple(api.LeftOut(path=path, reason=reason) for path, reason, _ in commit.left_out),
        left_out_more=commit.left_out_count - len(commit.left_out),
        advice=of_reduction(statistics.new_raw, statistics.stored_raw),
        requires=tuple(generation_text(each) for _, _, each in commit.requires),
        jobs=tuple(
            api.BackupJob(
                run=each.run, producer=each.producer, lacks=each.lacks, kit=each.kit,
                facts=tuple(api.Fact(name=name, value=value) for name, value in each.facts),
            )
            for each in jobs_of(commit)
        ),
    )  # fmt: skip
