"""Making the catalog anew from the bucket: a fold over all logs, without reading a single pack."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from gateway.api import Head, Problem, ProblemKind, Progress, ProgressCallback, RebuildReport
from gateway.catalog import GenerationState
from gateway.errors import IntegrityError, Missing
from gateway.format import names
from gateway.jobs.context import Context
from gateway.model.ids import ChainName
from gateway.repository.chain import Chain, NeverBorn
from gateway.repository.repository import chain_names


def problem_of(error: IntegrityError, address: str, generations: tuple[str, ...] = ()) -> Problem:
    """An integrity error as a value. `address` stands in where the error names none."""
    kind = ProblemKind.MISSING if isinstance(error, Missing) else ProblemKind.CORRUPT
    named = getattr(error, "address", "") or address
    return Problem(kind=kind, address=named, what=str(error), generations=generations)


class Rebuild:
    """In steps, so that a running engine can do something else between two of them: `begin`, `fold` for each chain,
    `end`. All of them where writing is allowed.
    """

    def __init__(self, context: Context, expected: Sequence[Head]) -> None:
        self._context = context
        self._expected = expected
        self._started = context.clock.monotonic()
        self._problems: list[Problem] = []
        self._opened: dict[ChainName, Chain] = {}
        self._over: set[ChainName] = set()
        self._seen: list[Head] = []

    def begin(self, *, clear: bool) -> list[ChainName]:
        """The chains that the store has. `clear`: forget what the catalog has of any. Otherwise each is replaced when
        it is folded, and only those that the store does not have are forgotten: nothing is missing meanwhile."""
        context = self._context
        self._problems += [problem_of(each, names.SLOTS) for each in context.repository.problems]
        found = chain_names(context.repository.store)
        self._seen = context.heads()
        if clear:
            context.catalog.clear_derived()
        for row in context.catalog.chains():
            if row.chain not in found:
                context.forget(row.chain)
        return list(found)

    def fold(self, name: ChainName) -> None:
        context = self._context
        try:
            chain = context.open_chain(name)
        except NeverBorn:
            context.forget(name)
            return
        except IntegrityError as error:
            if context.left_of_ended(name) is not None:
                context.forget(name)
                self._over.update([name] if context.has_ended(name) else [])
            else:
                self._problems.append(problem_of(error, names.chain_prefix(name)))
                context.distrust(name, error)
            return
        self._opened[name] = chain
        context.record(chain, chain.list_packs())
        self._problems += [problem_of(error, names.log_prefix(name)) for error in chain.problems]

    def end(self) -> RebuildReport:
        opened, context = self._opened, self._context
        problems = [*self._problems, *rolled_back(opened, [*self._expected, *self._seen], self._over)]
        generations = context.catalog.generations()
        problems += [
            Problem(kind=ProblemKind.MISSING, address=names.chain_prefix(row.chain), what=row.reasons[0],
                    generations=(f"{row.source}@{row.number}",))
            for row in generations
            if row.reasons and row.kind == "commit" and row.state is not GenerationState.EXPIRED
        ]  # fmt: skip
        heads = tuple(
            str(Head(chain=name, sequence=chain.head[0], digest=chain.head[1].hex())) for name, chain in opened.items()
        )
        return RebuildReport(
            chains=len(opened), generations=len(generations),
            packs=sum(len(chain.fold.packs) for chain in opened.values()), heads=heads, problems=tuple(problems),
            seconds=context.clock.monotonic() - self._started,
        )  # fmt: skip


def rebuild(context: Context, expected: Sequence[Head], progress: ProgressCallback) -> RebuildReport:
    """Fold every chain of the store into the catalog. Problems are reported; nothing is dropped because of one."""
    steps = Rebuild(context, expected)
    found = steps.begin(clear=True)
    for done, name in enumerate(found):
        progress(Progress(phase="rebuilding", done=done, total=len(found), unit="chains"))
        steps.fold(name)
    return steps.end()


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
