"""The newest generation of a source of kind "files" is incomplete, and nothing is new: whether what is there now is
worth a generation, so that the source does not stay unprotected until somebody writes to it.

A pass without a job holds the whole spool and lacks nothing that it would have to have, so it is complete: one is
enough, whatever became of the run that the incomplete one was made for. What the incomplete generation lacks, or holds
and cannot be read any more, must not be passed over while it is only held back: the pass that takes it is worth waiting
for.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.catalog import Catalog, GenerationState, JobState
from gateway.config.values import SourceConfig, SourceKind
from gateway.format.log import Commit
from gateway.model.entry import LeftOut, LeftOutReason
from gateway.repository.chain import Chain

MEND_SECONDS = 60.0
"""LIMIT: between two looks at the newest generation, and from an incomplete one to the first pass that may mend it."""
MEND_DOUBLED = 10
"""LIMIT: how often that is doubled, with each pass that mended nothing: to 17 hours."""

_PASSING = frozenset(
    {
        LeftOutReason.WRITER, LeftOutReason.CHANGED, LeftOutReason.UNREADABLE, LeftOutReason.VANISHED,
        LeftOutReason.GROWING,
    }
)  # fmt: skip


class Mending:
    """For one pass, which tells it what it leaves out."""

    def __init__(self, newest: Commit | None, members: Iterable[bytes]) -> None:
        """`newest`: the incomplete generation, where its chain has it; `members`: files of the runs it was made for."""
        self._members = frozenset(members)
        self._lacked = frozenset(path for path, *_ in newest.left_out) if newest is not None else frozenset[bytes]()
        self._waits = False

    @classmethod
    def of(cls, catalog: Catalog, source: SourceConfig, chains: Iterable[Chain]) -> Mending | None:
        """None: there is nothing to mend. The chains' rows are as they are in the store."""
        newest = max(catalog.generations(source.name), key=lambda row: row.number, default=None)
        if source.kind is not SourceKind.FILES or newest is None or newest.state is not GenerationState.INCOMPLETE:
            return None
        folded = (chain.fold.generations.get(newest.generation) for chain in chains if chain.name == newest.chain)
        runs = (
            run for run in catalog.jobs(source.name, JobState.INCOMPLETE) if run.is_in(newest.generation, newest.number)
        )
        return cls(
            next((state.commit for state in folded if state is not None), None),
            (member.path for run in runs for member in run.members),
        )

    def left_out(self, left: LeftOut) -> None:
        way = left.path + b"/"
        lacked = left.path in self._members or any(path.startswith(way) for path in self._members)
        self._waits |= lacked or (left.reason in _PASSING and left.path not in self._lacked)

    def is_worth_a_generation(self, files: int) -> bool:
        """`files`: how many it would hold. None is what a volume looks like that is not mounted."""
        return files > 0 and not self._waits


class Tries:
    """When a running engine makes a pass for no other reason than that the newest generation is incomplete."""

    def __init__(self, settle_seconds: float) -> None:
        self._pause = max(MEND_SECONDS, settle_seconds)
        self._look_at = float("-inf")
        self._made = 0

    def may_look(self, now: float) -> bool:
        return now >= self._look_at

    def looked(self, now: float, *, incomplete: bool, may_begin: bool) -> bool:
        """Whether to try it. So what cannot be mended costs fewer and fewer passes."""
        self._made = self._made if incomplete else 0
        self._look_at = now + self._pause * 2 ** min(self._made, MEND_DOUBLED)
        begins = incomplete and may_begin
        self._made += begins
        return begins

    def rest(self, made_at: float) -> None:
        """An incomplete generation was made just now."""
        self._look_at = max(self._look_at, made_at + self._pause)
