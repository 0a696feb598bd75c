"""The verbs of the engine and of producers: serve, status, alarms, begin, seal, fail, barrier, release."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gateway.api import ACCEPTED, RunReport, RunState
from gateway.cli import render_status, reports
from gateway.cli.app import NAME_BYTES, gateway, pass_run, shared_options, sheet_option, show_ingest
from gateway.cli.lists import parse_list
from gateway.cli.run import Run, import_lasting, operator_name
from gateway.errors import UsageError

INCOMPLETE_EXIT = 3
FAILED_EXIT = 1


@gateway.command()
@sheet_option
@shared_options(variables=False)
@pass_run
def serve(run: Run) -> None:
    """Run the engine: watch the sources, protect what is complete, answer other commands.

    It stops at SIGTERM and reads its configuration again at SIGHUP.
    """
    run.verbose = True
    daemon = import_lasting("gateway.daemon")
    daemon.serve(run.config(), recovery_sheet=run.read_sheet(), log=run.log())


@gateway.command()
@sheet_option
@shared_options(variables=False)
@pass_run
def status(run: Run) -> None:
    """Show what is pending, under way and wrong. Exit code 3: an alarm is open, or a source is overdue."""
    with run.api() as api:
        report = api.status()
    run.exit_code = INCOMPLETE_EXIT if report.alarms or any(each.overdue for each in report.sources) else 0
    if run.json:
        run.document(report)
    else:
        run.show(*render_status.status(report))


@gateway.command()
@click.option("--all", "closed", is_flag=True, help="Also those that are closed, the newest first.")
@sheet_option
@shared_options(variables=False)
@pass_run
def alarms(run: Run, closed: bool) -> None:
    """List open alarms: what happened, what it means, what to do."""
    with run.api() as api:
        found = [each for each in api.alarms() if closed or each.closed is None]
    if run.json:
        run.document(found)
    else:
        run.show(*render_status.alarms(found))


@gateway.command()
@click.argument("source")
@click.option("--alarm", type=click.Choice(ACCEPTED), default=ACCEPTED[0], show_default=True, help="Which one.")
@sheet_option
@shared_options(variables=False)
@pass_run
def accept(run: Run, source: str, alarm: str) -> None:
    """Answer for an alarm of a source that does not end by itself: you looked, and it closes."""
    with run.api() as api:
        closed = api.accept(source, alarm=alarm, operator=operator_name())
    if run.json:
        run.document({"source": source, "alarm": alarm, "closed": closed})
    else:
        run.note(f"{alarm} of {source} is accepted." if closed else f"{source} has no open alarm {alarm}.")


@gateway.command()
@click.argument("source")
@click.option("--run", "name", metavar="ID", required=True, help="What the producer calls this run.")
@sheet_option
@shared_options(variables=False)
@pass_run
def begin(run: Run, source: str, name: str) -> None:
    """Say that a backup job begins. The same call again changes nothing."""
    with run.api() as api:
        _answer(run, api.begin(source, name, operator=operator_name()))


@gateway.command()
@click.argument("source")
@click.option("--run", "name", metavar="ID", required=True, help="What the producer calls this run.")
@click.option("--list", "list_file", metavar="FILE", help="Its files, as sha256sum writes them; - is standard input.")
@click.option("--folder", type=NAME_BYTES, metavar="DIR", help="All files below this directory of the source.")
@click.option("--requires", metavar="ID", multiple=True, help="A run it is worth nothing without; may be repeated.")
@click.option("--wait", is_flag=True, help="Return when it is protected.")
@sheet_option
@shared_options(variables=False)
@pass_run
def seal(
    run: Run, source: str, name: str, list_file: str | None, folder: bytes | None, requires: tuple[str, ...], wait: bool
) -> None:
    """Say that a backup job is complete.

    Without --list and --folder it is all that is in the source. What is there is compared first; exit code 3 says that
    something is missing or different. The same call again answers what became of the run.
    """
    files = tuple(parse_list(_read(list_file), list_file)) if list_file is not None else ()
    with run.api() as api, run.progress() as progress:
        report = api.seal(
            source, name, files=files, folder=folder or b"", requires=requires, operator=operator_name(), wait=wait,
            progress=progress,
        )  # fmt: skip
    _answer(run, report)


def _read(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise UsageError(
            f"The list {name} cannot be read: {error.strerror or error}.", meaning="Nothing was sealed.",
            advice="Name the file with --list.",
        ) from error  # fmt: skip


@gateway.command()
@click.argument("source")
@click.option("--run", "name", metavar="ID", required=True, help="What the producer calls this run.")
@click.option("--reason", default="", help="Why, for people.")
@sheet_option
@shared_options(variables=False)
@pass_run
def fail(run: Run, source: str, name: str, reason: str) -> None:
    """Say that a backup job was given up: it never becomes a generation."""
    with run.api() as api:
        report = api.fail(source, name, reason=reason, operator=operator_name())
    _answer(run, report, fine=(RunState.FAILED,))


def _answer(run: Run, report: RunReport, fine: tuple[RunState, ...] = ()) -> None:
    if report.state is RunState.INCOMPLETE:
        run.exit_code = INCOMPLETE_EXIT
    elif report.state is RunState.FAILED and report.state not in fine:
        run.exit_code = FAILED_EXIT
    for problem in report.problems:
        run.warn(f"{report.source}: {problem}")
    if run.json:
        run.document(report)
    else:
        run.summary(*render_status.run(report))


@gateway.command()
@click.argument("source", required=False)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Return when it is protected.")
@sheet_option
@shared_options(variables=False)
@pass_run
def barrier(run: Run, source: str | None, wait: bool) -> None:
    """Protect what was written to SOURCE or to all sources until now, without waiting for its interval.

    Exit code 3: something of it is not protected; it is named.
    """
    with run.api() as api, run.progress() as progress:
        report = api.barrier(source, wait=wait, progress=progress)
    run.exit_code = reports.of_barrier(report)
    show_ingest(run, report, all_wanted=True)


@gateway.command()
@click.argument("source", required=False)
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@sheet_option
@shared_options(variables=False)
@pass_run
def release(run: Run, source: str | None, dry_run: bool) -> None:
    """Remove from the spool what is safely in the store and may go by the source's settings."""
    with run.api() as api:
        found = api.release(source, dry_run=dry_run)
    if run.json:
        run.document(list(found))
    else:
        run.summary(*render_status.released(found))
