"""The verbs about storage classes: lifecycle plan, apply and check."""

from __future__ import annotations

import click

from gateway.api import LifecycleReport
from gateway.cli import render_cold
from gateway.cli.app import Verbs, gateway, pass_run, shared_options, sheet_option
from gateway.cli.run import Run, operator_name

DRIFT_EXIT = 3


@gateway.group(cls=Verbs)
@shared_options(variables=False)
def lifecycle() -> None:
    """Work with the bucket's lifecycle rules, which move packs from one storage class to the next."""


@lifecycle.command()
@sheet_option
@shared_options(variables=False)
@pass_run
def plan(run: Run) -> None:
    """Show what apply would change, and all rules there would be. Nothing is written."""
    with run.api() as api:
        report = api.lifecycle_plan()
    _show(run, report, planned=True)


@lifecycle.command()
@click.option("--dry-run", is_flag=True, help="The same as plan.")
@sheet_option
@shared_options(variables=False)
@pass_run
def apply(run: Run, dry_run: bool) -> None:
    """Make the rules what the classes need, and read them back.

    Rules of others stay as they are. Exit code 3: something still differs, or a conflict forbids to write.
    """
    with run.api() as api:
        report = api.lifecycle_plan() if dry_run else api.lifecycle_apply(operator=operator_name())
    if not dry_run:
        run.exit_code = DRIFT_EXIT if report.drift or report.conflicts or report.notes else 0
    _show(run, report, planned=dry_run)


@lifecycle.command()
@sheet_option
@shared_options(variables=False)
@pass_run
def check(run: Run) -> None:
    """Compare the rules with what they should be, and open or close the alarms about it. Exit code 3: they differ, or a
    rule of somebody else acts on the repository's objects.
    """
    with run.api() as api:
        report = api.lifecycle_check()
    run.exit_code = DRIFT_EXIT if report.drift or report.foreign or report.conflicts else 0
    _show(run, report)


def _show(run: Run, report: LifecycleReport, *, planned: bool = False) -> None:
    for each in report.foreign:
        run.warn(each.what)
    for text in (*report.conflicts, *report.notes):
        run.warn(text)
    if run.json:
        run.document(report)
    else:
        run.show(*render_cold.lifecycle(report, planned=planned))
