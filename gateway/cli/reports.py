"""What a report means as an exit code. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from gateway import errors
from gateway.api import (
    CheckReport,
    Failure,
    GenerationInfo,
    GenerationState,
    Grade,
    IngestReport,
    JobInfo,
    Problem,
    ProblemKind,
    RestoreReport,
    RestoreState,
)
from gateway.errors import ApprovalNeeded, GatewayError, IntegrityError, NotReady, OverBudget, PartialError, StoreError

DAMAGE = frozenset({ProblemKind.MISSING, ProblemKind.CORRUPT, ProblemKind.ROLLED_BACK})


def of_ingest(report: IngestReport) -> int:
    """The first failure's; else 3 for a generation that did not become protected. Held-back files are no failure: who
    makes a generation takes what there is."""
    for source in report.sources:
        if source.failure:
            return source.failure.exit_code
    if any(_lacking(source.generation) for source in report.sources):
        return PartialError.exit_code
    return 0


def of_barrier(report: IngestReport) -> int:
    """As of `ingest`, and 3 where something of what was asked for is not protected: `gateway barrier && rm` is safe."""
    lacking = any(each.unprotected or each.unprotected_more for each in report.sources)
    return of_ingest(report) or (PartialError.exit_code if lacking else 0)


def of_restore(report: RestoreReport, *, detached: bool = False) -> int:
    """3 where files were left out, or may be missing; what a job that is not delivered waits for or failed of. With
    `detached`: 0 for one that goes on. After a dry run: 22 where no tier fits, else 0, also for what would wait."""
    if report.dry_run:
        return OverBudget.exit_code if report.plan.tiers and not report.plan.chosen else 0
    if report.job is not None and report.job.state not in (RestoreState.DELIVERED, RestoreState.PARTIAL):
        return 0 if detached and report.job.state.active else of_job(report.job)
    if report.left_out or report.left_out_more or _lacking(report.plan.generation):
        return PartialError.exit_code
    return 0


def of_job(job: JobInfo) -> int:
    if job.problem:
        kind = getattr(errors, job.problem, GatewayError)
        return int(getattr(kind, "exit_code", GatewayError.exit_code))
    match job.state:
        case RestoreState.DELIVERED:
            return 0
        case RestoreState.PARTIAL:
            return PartialError.exit_code
        case RestoreState.APPROVAL:
            return ApprovalNeeded.exit_code
        case RestoreState.THAWING | RestoreState.REHYDRATING | RestoreState.PAUSED:
            return NotReady.exit_code
        case RestoreState.FAILED | RestoreState.CANCELLED:
            return GatewayError.exit_code


def of_problems(problems: Sequence[Problem], more: int = 0) -> Failure | None:
    """Damage comes first, then a store that did not let us look, then what is frozen."""
    if not problems:
        return None
    kinds = {problem.kind for problem in problems}
    number = len(problems) + more
    what = "A problem was found." if number == 1 else f"{number:,} problems were found."
    if kinds & DAMAGE:
        return Failure(
            kind="IntegrityError",
            what=what,
            meaning="The generations named beside a problem may not restore whole; all others are as good as before.",
            advice="Keep what the spool still holds of them: it can replace what is damaged.",
            exit_code=IntegrityError.exit_code,
        )
    if kinds & {ProblemKind.DENIED, ProblemKind.BUSY}:
        return Failure(
            kind="StoreError",
            what=what,
            meaning="Nothing is known to be damaged, but not everything could be looked at.",
            advice="Check the store and the gateway's permissions in it, then run the command again.",
            exit_code=StoreError.exit_code,
        )
    return Failure(
        kind="NotReady",
        what=what,
        meaning="Nothing is known to be damaged, but some objects are frozen and cannot be read.",
        advice="Use a depth that reads less, or thaw them first.",
        exit_code=NotReady.exit_code,
    )


def of_check(report: CheckReport) -> int:
    problem = any(finding.grade is Grade.PROBLEM for finding in report.findings)
    return GatewayError.exit_code if problem else 0


def _lacking(generation: GenerationInfo | None) -> bool:
    return generation is not None and generation.state in (GenerationState.INCOMPLETE, GenerationState.FAILED)
