"""Who waits for what was written so far, and what of that no generation has when he is answered."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace

from gateway.api import GenerationInfo, GenerationState, SourceIngest
from gateway.api import LeftOut as ShownLeftOut
from gateway.config.values import SourceKind
from gateway.errors import GatewayError
from gateway.jobs.backup import Tally
from gateway.model.entry import Identity, LeftOut, LeftOutReason
from gateway.spool.watch import Watch

_OF_NOBODY = (LeftOutReason.TEMPORARY, LeftOutReason.RELEASED)
"""Who asks for what was written does not ask for these: one is still being written and says so, one is protected."""


@dataclass(slots=True, eq=False)
class Barrier:
    """Somebody waits for what was written so far. `report` or `error` when it is `done`.

    `deadline`: when whatever has not settled is left out, monotonic. What was written settles only after it was seen,
    so the time that was given counts from the rescan that says what is `wanted`, however long that one had to wait.
    """

    deadline: float
    begun: float
    operator: str = ""
    seal_now: bool = False
    new_chain: bool = False
    report: SourceIngest | None = None
    error: GatewayError | None = None
    done: bool = False
    wanted: dict[bytes, Identity] | None = None
    lacking: GenerationInfo | None = None
    """A job that was made while it waited, and is not whole."""

    def want(self, watch: Watch, now: float) -> None:
        """A rescan came to its end that began after this barrier."""
        self.wanted = {path: each.identity for path, each in watch.pending.items()}
        self.deadline += max(0.0, now - self.begun)

    def saw(self, report: SourceIngest) -> None:
        if report.generation is not None and report.generation.state is GenerationState.INCOMPLETE:
            self.lacking = report.generation

    def answer(self, report: SourceIngest, watch: Watch) -> None:
        if (
            self.lacking is not None and watch.source.kind is SourceKind.JOB
        ):  # of files, one generation has all there is
            report = replace(report, generation=self.lacking)
        if self.wanted is None or watch.overflowed:  # nobody knows their names
            self.report = with_unprotected(report)
        else:
            tally = Tally()
            for left in self._left_out(self.wanted, watch):
                tally.leave_out(left)
            named = tuple(ShownLeftOut(path=each.path, reason=str(each.reason)) for each in tally.left_out)
            self.report = replace(report, unprotected=named, unprotected_more=tally.more)
        self.done = True

    @staticmethod
    def _left_out(wanted: Container[bytes], watch: Watch) -> Iterator[LeftOut]:
        """What is pending still of what was wanted, and what could not be looked into: nobody knows what lies there."""
        of_jobs = watch.source.kind is SourceKind.JOB
        for left in watch.left_out(LeftOutReason.IN_NO_JOB if of_jobs else LeftOutReason.GROWING):
            if left.path in wanted or left.path in watch.unread:
                yield left


def with_unprotected(report: SourceIngest) -> SourceIngest:
    """For a pass that was asked for everything there is."""
    named = tuple(each for each in report.held_back if each.reason not in _OF_NOBODY)
    return replace(report, unprotected=named, unprotected_more=report.held_back_more)
