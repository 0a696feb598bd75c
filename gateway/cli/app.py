"""The verbs and their options. What each does is in docs/operate/cli.md; what it means is in `gateway.api`."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from gateway.api import Change, CheckReport, Depth, Failure, Head, IngestReport, LeftOut, Reference, VersionInfo
from gateway.cli import render, reports, restores
from gateway.cli.run import Run, operator_name
from gateway.config import Config, nearest
from gateway.log import printable

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")
pass_run = click.make_pass_decorator(Run)


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    """Keep a shared option; given twice, before and after the verb, the later one counts."""
    if value is not None and parameter.name:
        setattr(context.ensure_object(Run) if context.obj is None else context.obj, parameter.name, value)


def _shared(*declarations: str, **attributes: Any) -> Callable[[F], F]:
    return click.option(*declarations, expose_value=False, callback=_remember, default=None, **attributes)


def shared_options(*, variables: bool) -> Callable[[F], F]:
    """The options every verb takes, before and after its name."""

    def add(command: F) -> F:
        for option in reversed(
            (
                _shared(
                    "--config",
                    "config_file",
                    type=click.Path(path_type=Path),
                    metavar="FILE",
                    envvar="GATEWAY_CONFIG" if variables else None,
                    help="The configuration (default: /etc/gateway/gateway.toml).",
                ),
                _shared("--json", "json", is_flag=True, help="One JSON document on standard output."),
                _shared("-q", "--quiet", "quiet", is_flag=True, help="No progress, notes and summaries."),
                _shared("-v", "--verbose", "verbose", is_flag=True, help="Log every file, pack and job."),
                _shared("--log-json", "log_json", is_flag=True, help="JSON lines on standard error."),
            )
        ):
            command = option(command)
        return command

    return add


def sheet_option(command: F) -> F:
    return _shared(
        "--recovery-sheet",
        "recovery_sheet",
        metavar="FILE",
        help="Open the repository with the recovery sheet's text instead of the passphrase; - is standard input.",
    )(command)


def opens_repository(command: Callable[Concatenate[Run, P], R]) -> Callable[P, R]:
    """What every verb takes that opens the repository: the shared options, the sheet, and the `Run` they fill."""
    return sheet_option(shared_options(variables=False)(pass_run(command)))


class Verbs(click.Group):
    """Names the nearest verb when there is none of that name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            meant = nearest(args[0], self.commands)
            hint = f' Did you mean "{meant}"?' if meant else f" There are: {', '.join(self.commands)}."
            ctx.fail(f'There is no verb "{printable(args[0])}".{hint}')
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return list(self.commands)


class _Parsed(click.ParamType[Any]):
    """An argument that a function of the api parses; its errors say more than click's."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        return self._parse(value) if isinstance(value, str) else value


REFERENCE = _Parsed("SOURCE@GEN", Reference.parse)
HEAD = _Parsed("GROUP/NUMBER:SEQ:DIGEST", Head.parse)
NAME_BYTES = _Parsed("NAME", os.fsencode)
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Verbs, context_settings=HELP)
@shared_options(variables=True)
def gateway() -> None:
    """Reduces, encrypts and keeps backups in S3 and Glacier, and restores them from there.

    A generation is named SOURCE@GEN; GEN is a number, the first digits of an id, or latest, which is the default.
    """


@gateway.command()
@shared_options(variables=False)
@pass_run
def init(run: Run) -> None:
    """Create the repository and print its recovery sheet."""
    with run.api() as api:
        report = api.init()
    if run.json:
        run.document(report)
    else:
        run.write(report.recovery_sheet if report.recovery_sheet.endswith("\n") else report.recovery_sheet + "\n")
    run.note(f"Repository {report.repository} is ready at {report.url}.")
    for line in (*render.capabilities(report.capabilities), *report.notes):
        run.note(line)
    run.note("Print the recovery sheet and keep it in two places: with it and the bucket everything can be restored.")
    run.note("It is not shown again.")


@gateway.group(cls=Verbs)
@shared_options(variables=False)
def config() -> None:
    """Work with the configuration."""


@config.command()
@click.option("--online", is_flag=True, help="Also look at the store, the repository and the passphrase.")
@shared_options(variables=False)
@pass_run
def check(run: Run, online: bool) -> None:
    """Check the configuration and show every effective setting.

    Without --online only the file itself is looked at.
    """
    found: CheckReport | None = None
    if online:
        with run.api() as api:
            found = api.check_config()
        checked = run.opened or run.config()
    else:
        checked = run.config()
    run.exit_code = reports.of_check(found) if found else 0
    if run.json:
        run.document(_check_document(checked, found))
        return
    run.summary(render.settings(checked.settings))
    if found:
        run.show(render.findings(found))
    if not run.exit_code:
        run.note(f"{printable(run.config_file)} is valid.")


def _check_document(checked: Config, found: CheckReport | None) -> dict[str, object]:
    document: dict[str, object] = {
        "file": checked.file,
        "warnings": checked.warnings,
        "settings": checked.settings,
        "sources": [source.name for source in checked.sources],
    }
    return document if found is None else document | {"findings": found.findings}


@gateway.command()
@click.argument("source", required=False)
@click.option("--seal-now", is_flag=True, help="Take quiet files at once; your name stays with the generation.")
@click.option("--new-chain", is_flag=True, help="Begin a new chain: everything is read and stored again.")
@opens_repository
def ingest(run: Run, source: str | None, seal_now: bool, new_chain: bool) -> None:
    """Make the next generation of SOURCE or of all sources.

    Returns when every new generation is protected: its objects have been compared with what the store holds.
    """
    with run.api() as api, run.progress() as progress:
        report = api.ingest(source, seal_now=seal_now, new_chain=new_chain, operator=operator_name(), progress=progress)
    run.exit_code = reports.of_ingest(report)
    show_ingest(run, report)


def show_ingest(run: Run, report: IngestReport, *, all_wanted: bool = False) -> None:
    """What is held back and what failed, by name, then the report. `all_wanted`: who asked relies on all he wrote."""
    for each in report.sources:
        missed = frozenset(each.unprotected if all_wanted else ())
        for file in each.unprotected if all_wanted else ():
            run.warn(f"{each.source}: {printable(file.path)} is not protected: {file.reason}")
        if all_wanted and each.unprotected_more:
            run.warn(f"{each.source}: {render.count(each.unprotected_more, 'more file')} not protected")
        for file in each.held_back:
            if file not in missed:
                run.warn(f"{each.source}: {_held_back(file)}")
        if each.held_back_more:
            run.warn(f"{each.source}: {render.count(each.held_back_more, 'more file')} held back")
        if each.failure:
            run.show_failure(each.failure, about=each.source)
    if run.json:
        run.document(report)
    else:
        run.summary(render.ingest(report))


def _held_back(file: LeftOut) -> str:
    return f"{printable(file.path)} is held back: {file.reason}"


@gateway.command()
@click.argument("source", required=False)
@opens_repository
def generations(run: Run, source: str | None) -> None:
    """List the generations of SOURCE or of all sources."""
    with run.api() as api:
        rows = api.generations(source)
    if run.json:
        run.document(list(rows))
    else:
        run.show(*render.generations(rows))


@gateway.command()
@click.argument("source", required=False)
@opens_repository
def chains(run: Run, source: str | None) -> None:
    """List the chains of SOURCE or of all sources, and what each saves."""
    with run.api() as api:
        rows = api.chains(source)
    if run.json:
        run.document(list(rows))
    else:
        run.show(*render.chains(rows))


@gateway.command()
@click.argument("generation", type=REFERENCE, metavar="SOURCE[@GEN]")
@opens_repository
def show(run: Run, generation: Reference) -> None:
    """Show everything about one generation."""
    with run.api() as api:
        detail = api.show(generation)
    if run.json:
        run.document(detail)
    else:
        run.show(*render.detail(detail))


@gateway.command()
@click.argument("generation", type=REFERENCE, metavar="SOURCE[@GEN]")
@click.argument("path", type=NAME_BYTES, required=False)
@opens_repository
def ls(run: Run, generation: Reference, path: bytes | None) -> None:
    """List the files of a generation, all or below PATH."""
    with run.api() as api:
        files = api.list_files(generation, path or b"")
        if run.json:
            run.array(files)
        else:
            for each in files:
                run.write(render.file_line(each))


@gateway.command()
@click.argument("before", type=REFERENCE, metavar="SOURCE@A")
@click.argument("after", type=REFERENCE, metavar="SOURCE@B")
@opens_repository
def diff(run: Run, before: Reference, after: Reference) -> None:
    """List what differs between two generations.

    + added, - removed, M data changed, U only times, mode, owner or attributes changed.
    """
    totals = dict.fromkeys(Change, 0)
    with run.api() as api:
        entries = api.diff(before, after)
        if run.json:
            run.array(entries)
            return
        for entry in entries:
            totals[entry.change] += 1
            run.write(render.diff_line(entry))
    run.note(", ".join(f"{number:,} {change.value}" for change, number in totals.items()))


@gateway.command()
@click.argument("generation", type=REFERENCE, metavar="SOURCE[@GEN]")
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    required=True,
    help="The directory below which the files are written.",
)
@click.option(
    "--path", "paths", type=NAME_BYTES, metavar="GLOB", multiple=True, help="Only these files; may be repeated."
)
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option("--incomplete", is_flag=True, help="Accept a generation that is not protected.")
@click.option("--dry-run", is_flag=True, help="Only show what would be thawed, fetched and written, and its price.")
@click.option("--tier", type=restores.TIER, help="Thaw by this tier, instead of the cheapest that fits.")
@click.option("--deadline", type=restores.DURATION, help='Be done in this time, such as "6 h".')
@click.option("--budget", type=restores.MONEY, help='Spend no more than this, such as "25 USD".')
@click.option("--detach", is_flag=True, help="Return when the restore job is begun.")
@sheet_option
@shared_options(variables=False)
@pass_run
def restore(
    run: Run,
    generation: Reference,
    target: Path,
    paths: tuple[bytes, ...],
    overwrite: bool,
    incomplete: bool,
    dry_run: bool,
    tier: str | None,
    deadline: timedelta | None,
    budget: Decimal | None,
    detach: bool,
) -> None:
    """Restore the files of a generation to a directory.

    What is cold is thawed first, which costs money and takes hours: --dry-run says how much. It is a job: left, it
    goes on in the engine, or with `gateway jobs watch`.
    """
    with run.api() as api:
        may_be_left = restores.may_be_left(run, api, source=generation.source, target=target)
        with run.progress() as progress, contextlib.nullcontext() if dry_run else may_be_left:
            report = api.restore(
                generation,
                target,
                paths=paths,
                overwrite=overwrite,
                incomplete=incomplete,
                dry_run=dry_run,
                tier=tier or "",
                deadline=deadline,
                budget=budget,
                detach=detach,
                operator=operator_name(),
                progress=progress,
            )
        restores.answer(run, report, detached=detach)
        if detach:
            restores.began(run, api, report)


@gateway.command()
@click.argument("source", required=False)
@click.option(
    "--depth",
    type=click.Choice([str(each) for each in Depth]),
    default=str(Depth.STRUCTURE),
    show_default=True,
    help="How deep to look; each depth includes those before it.",
)
@click.option("--dry-run", is_flag=True, help="Only show how much would be read.")
@opens_repository
def verify(run: Run, source: str | None, depth: str, dry_run: bool) -> None:
    """Check SOURCE or all sources against the store."""
    with run.api() as api, run.progress() as progress:
        report = api.verify(source, depth=Depth(depth), dry_run=dry_run, progress=progress)
    with _judged(run, reports.of_problems(report.problems, report.problems_more)):
        if run.json:
            run.document(report)
        else:
            shown = run.show if run.exit_code else run.summary
            shown(*render.verify(report))


@contextlib.contextmanager
def _judged(run: Run, failure: Failure | None) -> Iterator[None]:
    """The exit code is set before anything is printed; what it means comes last, where it is read."""
    if failure:
        run.exit_code = failure.exit_code
    yield
    if failure:
        run.show_failure(failure)


@gateway.command()
@click.option(
    "--expect-head",
    "expect_heads",
    type=HEAD,
    metavar="GROUP/NUMBER:SEQ:DIGEST",
    multiple=True,
    help="A log must reach at least to this entry; may be repeated.",
)
@opens_repository
def rebuild(run: Run, expect_heads: tuple[Head, ...]) -> None:
    """Make the local catalog anew from the bucket."""
    with run.api() as api, run.progress() as progress:
        report = api.rebuild(expect_heads=expect_heads, progress=progress)
    with _judged(run, reports.of_problems(report.problems)):
        for note in report.notes:
            run.warn(note)
        if run.json:
            run.document(report)
        else:
            shown = run.show if run.exit_code else run.summary
            shown(*render.rebuild(report))


@gateway.command()
@shared_options(variables=False)
@pass_run
def version(run: Run) -> None:
    """Show the version of the gateway and of its format, and which chunker runs."""
    from gateway.format.chunker import implementation  # other verbs' --help must not load it

    info = VersionInfo(chunker=f"wide-64, {implementation()}")
    python = platform.python_version()
    if run.json:
        run.document({"gateway": info.gateway, "format": info.format, "chunker": info.chunker, "python": python})
    else:
        run.write(f"gateway {info.gateway}, repository format {info.format}, Python {python}\n")
        run.write(f"chunker {info.chunker}\n")
