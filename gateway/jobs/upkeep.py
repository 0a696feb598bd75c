"""Retention and sweep by the engine itself, every `engine.retention`: the same plans that the verbs show and carry out.

A plan that removes unusually much waits for a person: an alarm names it, and the command that approves it. What stops
expiry though rules would let generations go is an alarm with the reason. CRASH: each step is finished by the next run;
when the last one was is noted at its end, so one that was killed begins again at the next start.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

from gateway.api import ProgressCallback
from gateway.clock import milliseconds
from gateway.errors import ApprovalNeeded, GatewayError, Stopped
from gateway.jobs.alarms import Alarms, Kind
from gateway.jobs.context import Context
from gateway.jobs.retain import Retention, refresh
from gateway.jobs.sweep import Sweep
from gateway.policy.retention import RetentionPlan, Rule

AGAIN = timedelta(hours=1)
"""LIMIT: after a run that failed, or whose plan waits for approval: the next one. A waiting plan gets another name with
every new generation, and the alarm has to name the one that would be carried out."""
DONE = "retention-done"
"""Under this the catalog keeps when the last run ended, in ms."""
OPERATOR = "engine"
REPOSITORY = "repository"
"""Subject of alarms that are about no source."""


@dataclass(slots=True)
class Upkeep:
    """Called by the one thread that works."""

    alarms: Alarms
    _again: int | None = field(init=False, default=None)

    def due(self, context: Context) -> bool:
        """By the clock, also across restarts; never where the configuration says so."""
        every = context.config.engine.retention
        if not every:
            return False
        now = milliseconds(context.clock.now())
        last = int(context.catalog.meta(DONE) or 0)
        if self._again is not None:
            last, every = self._again, min(AGAIN, every)
        # A clock that was set back must not put it off.
        return last > now or now - last >= every // timedelta(milliseconds=1)

    def turn(self, context: Context, progress: ProgressCallback) -> None:
        """Never raises what a store, a damaged chain or another writer can cause: the next try is in an hour."""
        now = milliseconds(context.clock.now())
        self._again = now
        try:
            waits = self._expire(context)
            self._sweep(context, progress)
        except Stopped:
            raise
        except GatewayError as error:
            context.log.warning("retention.failed", problem=str(error))
            return
        if not waits:
            self._again = None
        context.catalog.set_meta(DONE, str(milliseconds(context.clock.now())))

    # --- expiry ------------------------------------------------------------------------------------------------------

    def _expire(self, context: Context) -> bool:
        """True: a plan waits for its approval."""
        job = Retention(context, None)
        refresh(context)
        plan = job.plan(fresh=True)
        self._tell_of_stops(context, plan)
        waits = advice = ""
        try:
            report = job.apply("", OPERATOR)
        except ApprovalNeeded as error:
            waits, advice = error.what, error.advice
        else:
            context.log.info("retention.applied", plan=report.plan, expired=len(report.expired))
            if report.expired:
                _audit(context, "expire", f"plan {report.plan}: {', '.join(report.expired)}")
        self.alarms.set(
            Kind.APPROVAL, REPOSITORY, waits,
            meaning="Nothing expires before somebody approves that very plan; backup goes on.",
            advice=advice,
        )  # fmt: skip
        return bool(waits)

    def _tell_of_stops(self, context: Context, plan: RetentionPlan) -> None:
        """An alarm for each source of which something would expire but for what stops it. Alarms that stop it are open
        already.
        """
        frozen = Counter(
            each.source for each in plan.decisions if {reason.rule for reason in each.reasons} == {Rule.FROZEN}
        )
        told: set[str] = set()
        for each in plan.freezes:
            for source in [each.source] if each.source else list(frozen):
                if not frozen[source] or source in told or each.of_alarm:
                    continue
                told.add(source)
                self.alarms.open(
                    Kind.STOPPED, source, f"Nothing of {source} expires, though its rules let "
                    f"{frozen[source]} generations go: {each.reason}.",
                    meaning="The store fills up; nothing is lost.",
                    advice=f"`gateway retention plan {source}` says what each generation waits for.",
                )  # fmt: skip
        for alarm in context.catalog.open_alarms():
            if alarm.kind == Kind.STOPPED and alarm.subject not in told:
                self.alarms.close(Kind.STOPPED, alarm.subject)

    # --- sweep -------------------------------------------------------------------------------------------------------

    def _sweep(self, context: Context, progress: ProgressCallback) -> None:
        report = Sweep(context, None, progress).run(dry_run=False)
        if report.deleted or report.ended:
            _audit(context, "sweep", f"{report.deleted} objects, {report.deleted_bytes} bytes")
        for problem in report.problems:
            context.log.warning("sweep.left", problem=problem)
        context.log.info(
            "sweep.done", deleted=report.deleted, bytes=report.deleted_bytes, waiting=report.waiting,
            ended=list(report.ended),
        )  # fmt: skip


def _audit(context: Context, what: str, detail: str) -> None:
    context.catalog.audit(OPERATOR, what, milliseconds(context.clock.now()), detail)
