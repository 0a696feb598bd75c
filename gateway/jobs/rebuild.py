"""Making the catalog anew from the bucket: a fold over all logs, without reading a single pack."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from gateway.api import Head, Problem, ProblemKind, Progress, ProgressCallback, RebuildReport
from gateway.catalog import GenerationState
from gateway.errors import IntegrityError, Missing
from gateway.format import names
from gateway.jobs.context import Context
from gateway.model.ids import ChainName
from gateway.repository.chain import Chain, NeverBorn, finished
from gateway.repository.repository import chain_names


def problem_of(error: IntegrityError, address: str, generations: tuple[str, ...] = ()) -> Problem:
    """An integrity error as a value. `address` stands in where the error names none."""
    kind = ProblemKind.MISSING if isinstance(error, Missing) else ProblemKind.CORRUPT
    named = getattr(error, "address", "") or address
    return Problem(kind=kind, address=named, what=str(error), generations=generations)


def rebuild(context: Context, expected: Sequence[Head], progress: ProgressCallback) -> RebuildReport:
    """Fold every chain of the store into the catalog. Problems are reported; nothing is dropped because of one."""
    started = context.clock.monotonic()
    catalog = context.catalog
    problems = [problem_of(each, names.SLOTS) for each in context.repository.problems]
    found = chain_names(context.repository.store)
    opened: dict[ChainName, Chain] = {}
    over: set[ChainName] = set()
    seen = context.heads()
    catalog.clear_derived()
    for done, name in enumerate(found):
        progress(Progress(phase="rebuilding", done=done, total=len(found), unit="chains"))
        try:
            chain = context.open_chain(name)
        except NeverBorn:
            continue
        except IntegrityError as error:
            if finished(context.repository, name):
                over.update([name] if context.has_ended(name) else [])
            else:
                problems.append(problem_of(error, names.chain_prefix(name)))
            continue
        opened[name] = chain
        context.record(chain, chain.list_packs())
        problems += [problem_of(error, names.log_prefix(name)) for error in chain.problems]
    problems += rolled_back(opened, [*expected, *seen], over)
    generations = catalog.generations()
    for row in generations:
        if row.reasons and row.kind == "commit" and row.state is not GenerationState.EXPIRED:
            problems.append(
                Problem(kind=ProblemKind.MISSING, address=names.chain_prefix(row.chain), what=row.reasons[0],
                        generations=(f"{row.source}@{row.number}",))
            )  # fmt: skip
    heads = tuple(
        str(Head(chain=name, sequence=chain.head[0], digest=chain.head[1].hex())) for name, chain in opened.items()
    )
    return RebuildReport(
        chains=len(opened), generations=len(generations), packs=sum(len(chain.fold.packs) for chain in opened.values()),
        heads=heads, problems=tuple(problems), seconds=context.clock.monotonic() - started,
    )  # fmt: skip


def rolled_back(
    opened: dict[ChainName, Chain], expected: Iterable[Head], over: Collection[ChainName] = ()
) -> list[Problem]:
    """Expected heads that the logs do not have. `over`: chains that we finished, whose logs are gone."""
    problems: dict[str, Problem] = {}
    for head in expected:
        if head.chain in over:
            continue
        chain = opened.get(head.chain)
        key = names.entry(head.chain, head.sequence) if head.sequence else names.header(head.chain)
        if chain is None:
            what = "the chain is not there, or cannot be opened"
        elif chain.ended:
            continue
        else:
            digest = next((e.digest for e in chain.entries if e.sequence == head.sequence), None)
            if head.sequence == 0:
                digest = chain.header_digest
            if digest is not None and digest.hex() == head.digest:
                continue
            what = "the log ends before it" if digest is None else "the log has another entry in its place"
        problems[key] = Problem(
            kind=ProblemKind.ROLLED_BACK, address=key,
            what=f"{what}: the store shows an older state than was once seen, or was rewritten",
        )  # fmt: skip
    return list(problems.values())
