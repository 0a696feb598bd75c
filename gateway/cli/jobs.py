"""The verbs of restore jobs: jobs list, show, approve, cancel, pause, resume, watch."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import click

from gateway.api import GatewayApi, JobInfo
from gateway.cli import render_jobs, restores
from gateway.cli.app import Verbs, gateway, pass_run, shared_options, sheet_option
from gateway.cli.run import Run, operator_name


@gateway.group(cls=Verbs, invoke_without_command=True)
@shared_options(variables=False)
@click.pass_context
def jobs(context: click.Context) -> None:
    """Look at restore jobs, and approve, pause, resume, cancel or watch them. Without a verb: list them."""
    if context.invoked_subcommand is None:
        context.invoke(list_jobs)


@jobs.command("list")
@sheet_option
@shared_options(variables=False)
@pass_run
def list_jobs(run: Run) -> None:
    """List restore jobs, the newest first."""
    with run.api() as api:
        found = api.jobs()
    if run.json:
        run.document([restores.job_document(each) for each in found])
    else:
        run.show(*render_jobs.jobs(found))


@jobs.command()
@click.argument("job", metavar="ID")
@sheet_option
@shared_options(variables=False)
@pass_run
def show(run: Run, job: str) -> None:
    """Show a restore job: where it is, what it costs, what it waits for."""
    with run.api() as api:
        found = api.job(job)
    if run.json:
        run.document(restores.job_document(found))
    else:
        run.show(*render_jobs.job(found))


@jobs.command()
@click.argument("job", metavar="ID")
@sheet_option
@shared_options(variables=False)
@pass_run
def approve(run: Run, job: str) -> None:
    """Let a job begin that waits for approval of its costs."""
    _change(run, lambda api: api.approve_job(job, operator=operator_name()), goes_on=True)


@jobs.command()
@click.argument("job", metavar="ID")
@sheet_option
@shared_options(variables=False)
@pass_run
def cancel(run: Run, job: str) -> None:
    """End a job for good. What was delivered stays; thaws that were asked for cannot be taken back."""
    _change(run, lambda api: api.cancel_job(job, operator=operator_name()))


@jobs.command()
@click.argument("job", metavar="ID")
@sheet_option
@shared_options(variables=False)
@pass_run
def pause(run: Run, job: str) -> None:
    """Ask for nothing more and fetch nothing more until the job is resumed."""
    _change(run, lambda api: api.pause_job(job, operator=operator_name()))


@jobs.command()
@click.argument("job", metavar="ID")
@click.option("--tier", type=restores.TIER, help="Thaw by this tier.")
@click.option("--deadline", type=restores.DURATION, help='Be done in this time from now, such as "6 h".')
@click.option("--budget", type=restores.MONEY, help='Spend no more than this in all, such as "25 USD".')
@sheet_option
@shared_options(variables=False)
@pass_run
def resume(run: Run, job: str, tier: str | None, deadline: timedelta | None, budget: Decimal | None) -> None:
    """Let a paused job go on, or a running one go on by another tier, deadline or budget.

    What thaws too slowly for that is asked for again by a faster tier, which is paid for again.
    """
    _change(
        run,
        lambda api: api.resume_job(job, deadline=deadline, budget=budget, tier=tier or "", operator=operator_name()),
        goes_on=True,
    )


@jobs.command()
@click.argument("job", metavar="ID")
@sheet_option
@shared_options(variables=False)
@pass_run
def watch(run: Run, job: str) -> None:
    """Wait for the end of a job, and carry it out meanwhile where no engine does. Exit codes as for restore."""
    with run.api() as api, run.progress() as progress, restores.may_be_left(run, api, job):
        report = api.watch_job(job, progress=progress)
    restores.answer(run, report)


def _change(run: Run, change: Callable[[GatewayApi], JobInfo], *, goes_on: bool = False) -> None:
    with run.api() as api:
        found = change(api)
        carried = not goes_on or not found.state.active or api.status().running
    if run.json:
        run.document(restores.job_document(found))
    else:
        run.summary(*render_jobs.changed(found))
    if not carried:
        run.note(f"No engine runs: `gateway serve` or `gateway jobs watch {found.id}` goes on with it.")
