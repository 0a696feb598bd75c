"""What restore and the verbs of its jobs have in common: documents, exit codes, and how to leave one that goes on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from gateway.api import Failure, GatewayApi, JobInfo, RestorePlan, RestoreReport, RestoreState, StateNeeds, TierOffer
from gateway.cli import render, render_jobs, reports
from gateway.cli.plain import plain
from gateway.cli.run import Run
from gateway.config.prices import Tier
from gateway.config.units import parse_duration, parse_money
from gateway.errors import GatewayError
from gateway.log import JsonValue

INTERRUPTED = 130


class _Text(click.ParamType[Any]):
    """An option that a function of the configuration parses."""

    def __init__(self, name: str, parse: Callable[[object], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _deadline(value: object) -> timedelta:
    found = parse_duration(value)
    if found <= timedelta():
        raise ValueError("must be more than nothing")
    return found


DURATION: click.ParamType[timedelta] = _Text("DURATION", _deadline)
MONEY: click.ParamType[Decimal] = _Text("AMOUNT", parse_money)
TIER = click.Choice([str(each) for each in Tier])


# --- documents --------------------------------------------------------------------------------------------------------


def job_document(job: JobInfo) -> dict[str, JsonValue]:
    made = _object(job)
    return made | {"stages": dict(job.stages), "phases": dict(job.phases)}


def document(report: RestoreReport) -> dict[str, JsonValue]:
    """After a dry run the plan's fields stand at the top, too."""
    made = _object(report)
    made["plan"] = _plan(report.plan)
    made["job"] = job_document(report.job) if report.job is not None else None
    return made | _plan(report.plan) if report.dry_run else made


def _plan(plan: RestorePlan) -> dict[str, JsonValue]:
    made = _object(plan)
    made["by_state"] = {each.state: _needs(each) for each in plan.by_state}
    made["tiers"] = {each.tier: _offer(each) for each in plan.tiers}
    made["currency"] = plan.tiers[0].currency if plan.tiers else "USD"
    return made


def _needs(each: StateNeeds) -> dict[str, JsonValue]:
    return {"packs": each.packs, "bytes": each.size, "fetch_bytes": each.fetch_bytes}


def _offer(each: TierOffer) -> dict[str, JsonValue]:
    made = _object(each)
    del made["tier"], made["currency"]
    return made


def _object(value: object) -> dict[str, JsonValue]:
    made = plain(value)
    assert isinstance(made, dict)
    return made


# --- how a job came out -----------------------------------------------------------------------------------------------


def answer(run: Run, report: RestoreReport, *, detached: bool = False) -> None:
    """Say what a restore came to, and set the exit code."""
    run.exit_code = reports.of_restore(report, detached=detached)
    job = report.job
    for note in report.notes:
        run.warn(note)
    left_out = len(report.left_out) + report.left_out_more
    if left_out:
        run.warn(f"{render.count(left_out, 'file')} left out")
    if run.exit_code and report.plan.generation.reason and not report.dry_run:
        run.warn(f"the generation is {report.plan.generation.state}: {report.plan.generation.reason}")
    if run.json:
        run.document(document(report))
    else:
        run.summary(*render_jobs.restore(report))
    if report.dry_run and run.exit_code:
        run.show_failure(
            Failure(
                kind="OverBudget", what=f"The restore would not begin: {report.plan.reason}.",
                meaning="Nothing was asked for.", advice="Allow more time or more money.", exit_code=run.exit_code,
            )
        )  # fmt: skip
    if job is not None and not detached:
        failure = _unfinished(job)
        if failure is not None:
            run.show_failure(failure)


def _unfinished(job: JobInfo) -> Failure | None:
    """Why a job is not delivered."""
    code = reports.of_job(job)
    if job.state in (RestoreState.DELIVERED, RestoreState.PARTIAL):
        return None
    advice = {
        RestoreState.APPROVAL: f"`gateway jobs approve {job.id}` lets it begin.",
        RestoreState.PAUSED: f"`gateway jobs resume {job.id}` lets it go on.",
    }
    meaning = "What was delivered is whole and stays." if job.files_done else "Nothing was written yet."
    usual = "" if job.state.ended else f"`gateway jobs watch {job.id}` waits for it."
    if job.problem:  # the error's own text says the rest
        return Failure(kind=job.problem, what=job.reason, meaning="", advice="", exit_code=code)
    why = f": {job.reason}" if job.reason else ""
    return Failure(
        kind="NotReady", what=f"Restore job {job.id} is {job.state}{why}.", meaning=meaning,
        advice=advice.get(job.state, usual), exit_code=code,
    )  # fmt: skip


def began(run: Run, api: GatewayApi, report: RestoreReport) -> None:
    """After `--detach`: what carries it on."""
    job = report.job
    if job is None or not job.state.active:
        return
    if api.status().running:
        run.note(f"The engine goes on with restore job {job.id}; `gateway jobs watch {job.id}` waits for it.")
    else:
        run.note(
            f"Restore job {job.id} is begun, and no engine runs: "
            f"`gateway serve` or `gateway jobs watch {job.id}` goes on with it."
        )


@contextlib.contextmanager
def may_be_left(
    run: Run, api: GatewayApi, job: str = "", source: str = "", target: Path | None = None
) -> Iterator[None]:
    """Ctrl-C, or a store that does not answer, leaves a job that goes on: say so, and how. `job` is one that is
    watched; else it is the newest of `source` to `target`.
    """
    try:
        yield
    except KeyboardInterrupt:
        found = _left(api, job, source, target)
        if found is not None:
            run.interruption = Failure(
                kind="Interrupted", what=f"Interrupted. Restore job {found.id} stays: it is {found.state}.",
                meaning="A running engine goes on with it; so does the next one that is started.",
                advice=f"`gateway jobs watch {found.id}` goes on with it; `gateway jobs cancel {found.id}` ends it.",
                exit_code=INTERRUPTED,
            )  # fmt: skip
        raise
    except GatewayError:
        found = _left(api, job, source, target)
        if found is not None and found.state.active:
            run.note(
                f"Restore job {found.id} stays: it is {found.state}. `gateway jobs watch {found.id}` goes on with it."
            )
        raise


def _left(api: GatewayApi, job: str, source: str, target: Path | None) -> JobInfo | None:
    with contextlib.suppress(GatewayError):
        if job:
            return _alive(api.job(job))
        for each in api.jobs():  # the newest first
            if each.generation.partition("@")[0] == source and each.target == Path(os.path.abspath(target or "")):
                return _alive(each)
    return None


def _alive(job: JobInfo) -> JobInfo | None:
    return None if job.state.ended else job
