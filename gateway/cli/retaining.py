"""The verbs of retention: retention plan, retention apply, hold, unhold, expire, sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import click
from rich.console import RenderableType

from gateway.api import Reference
from gateway.cli import render_retention
from gateway.cli.app import REFERENCE, Verbs, gateway, opens_repository, shared_options
from gateway.cli.run import Run, operator_name

T = TypeVar("T")
INCOMPLETE_EXIT = 3


@gateway.group(cls=Verbs)
@shared_options(variables=False)
def retention() -> None:
    """Work with the rules that say which generations are kept."""


@retention.command()
@click.argument("source", required=False)
@opens_repository
def plan(run: Run, source: str | None) -> None:
    """Show which rule keeps each generation of SOURCE or of all sources, and what would expire. Changes nothing."""
    with run.api() as api:
        report = api.retention_plan(source)
    _notes(run, report.notes)
    if run.json:
        run.document(report)
    else:
        run.show(*render_retention.plan(report))


@retention.command()
@click.argument("source", required=False)
@click.option(
    "--approve", default="", metavar="PLAN", help="Carry out this plan, though it removes much; no other one."
)
@click.option("--dry-run", is_flag=True, help="Only show the plan, as `retention plan` does.")
@opens_repository
def apply(run: Run, source: str | None, approve: str, dry_run: bool) -> None:
    """Let expire what the plan says. Exit code 21: it removes more than a tenth of what is stored."""
    with run.api() as api:
        if dry_run:
            report = api.retention_plan(source)
        else:
            report = api.retention_apply(source, approve=approve, operator=operator_name())
    _notes(run, report.notes)
    _told(run, report, render_retention.plan if dry_run else render_retention.applied)


@gateway.command()
@click.argument("generation", type=REFERENCE, metavar="SOURCE[@GEN]")
@click.option("--reason", required=True, metavar="TEXT", help="Why, for whoever finds it there.")
@opens_repository
def hold(run: Run, generation: Reference, reason: str) -> None:
    """Keep a generation whatever the rules say, with all it requires. One that has just expired is kept again."""
    with run.api() as api:
        report = api.hold_generation(generation, reason=reason, operator=operator_name())
    _told(run, report, render_retention.hold)


@gateway.command()
@click.argument("generation", type=REFERENCE, metavar="SOURCE[@GEN]")
@click.option("--reason", default="", metavar="TEXT", help="Why, for people.")
@opens_repository
def unhold(run: Run, generation: Reference, reason: str) -> None:
    """End all holds of a generation."""
    with run.api() as api:
        report = api.unhold_generation(generation, reason=reason, operator=operator_name())
    _told(run, report, render_retention.hold)


@gateway.command()
@click.argument("generation", type=REFERENCE, metavar="SOURCE@GEN")
@click.option("--dry-run", is_flag=True, help="Only show how much that would free.")
@opens_repository
def expire(run: Run, generation: Reference, dry_run: bool) -> None:
    """Let one generation expire, whatever the rules say. What is held or required by another does not."""
    with run.api() as api:
        report = api.expire_generation(generation, dry_run=dry_run, operator=operator_name())
    _notes(run, report.notes)
    _told(run, report, render_retention.expire)


@gateway.command()
@click.argument("source", required=False)
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted, and what waits for what.")
@opens_repository
def sweep(run: Run, source: str | None, dry_run: bool) -> None:
    """Delete packs of SOURCE or of all sources that no kept generation needs and whose time has come."""
    with run.api() as api, run.progress() as progress:
        report = api.sweep(source, dry_run=dry_run, progress=progress)
    run.exit_code = INCOMPLETE_EXIT if report.problems else 0
    _notes(run, (*report.notes, *report.problems))
    _told(run, report, render_retention.sweep)


def _told(run: Run, report: T, render: Callable[[T], Iterable[RenderableType]]) -> None:
    if run.json:
        run.document(report)
    else:
        run.summary(*render(report))


def _notes(run: Run, notes: tuple[str, ...]) -> None:
    for note in notes:
        run.warn(note)
