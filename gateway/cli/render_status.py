"""What the engine's verbs report, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from gateway import clock
from gateway.api import Alarm, ReleaseReport, RunReport, SourceStatus, StatusReport, Work
from gateway.cli.render import count, facts, table
from gateway.cli.run import safe
from gateway.config import size_text
from gateway.log import printable


def status(report: StatusReport) -> Iterator[RenderableType]:
    """Alarms first: whoever looks at night looks for them."""
    yield from alarms(report.alarms)
    if report.running and report.since is not None:
        yield Text(f"The engine runs since {clock.text(report.since)} (pid {report.pid}).")
    else:
        yield Text("No engine runs: nothing is noticed until `gateway serve` or `gateway ingest`.", style="yellow")
    for work in report.work:
        yield Text(safe(_work(work)))
    if report.queue:
        yield Text(safe("waiting: " + ", ".join(f"{each.what} {each.source}".strip() for each in report.queue)))
    made = table("=source", ">newest", "begun", ">age", ">expected", ">pending", ">spool free", ">full in")
    for source in report.sources:
        newest = source.newest
        made.add_row(
            source.name,
            str(newest.number) if newest else "none",
            clock.text(newest.created) if newest else "",
            Text(_time(source.age), style="red" if source.overdue else ""),
            _time(source.expect_every),
            f"{source.pending:,}",
            size_text(source.spool_free),
            _time(source.full_in),
        )
    yield made
    for source in report.sources:
        yield from _pending(source)


def _pending(source: SourceStatus) -> Iterator[Text]:
    for file in source.files:
        why = f": {file.detail}" if file.detail else ""
        yield Text(safe(f"{source.name}: {printable(file.path)} ({size_text(file.size)}) is {file.state}{why}"))
    if source.pending > len(source.files):
        yield Text(f"{source.name}: {count(source.pending - len(source.files), 'more file')} pending")


def _work(work: Work) -> str:
    def amount(number: float) -> str:
        return size_text(round(number)) if work.unit == "bytes" else f"{number:,.0f} {work.unit}"

    total = f" of {amount(work.total)}" if work.total is not None else ""
    rate = f", {amount(work.rate)}/s" if work.rate and work.unit == "bytes" else ""
    return f"{work.what} {work.source}: {work.phase} {amount(work.done)}{total}{rate}, for {_time(work.seconds)}"


def alarms(found: Sequence[Alarm]) -> Iterator[RenderableType]:
    for each in found:
        state = "" if each.closed is None else f", closed {clock.text(each.closed)}"
        style = "bold red" if each.closed is None else "dim"
        head = f"{each.kind} {each.subject} since {clock.text(each.opened)}{state}"
        yield Text.assemble((safe(head), style), *(safe(f"\n  {line}") for line in _texts(each)))


def _texts(alarm: Alarm) -> list[str]:
    return [line for line in (alarm.what, alarm.meaning, alarm.advice) if line]


def run(report: RunReport) -> Iterator[RenderableType]:
    pairs = [("run", f"{report.source} {report.run}"), ("state", str(report.state))]
    if report.generation is not None:
        pairs.append(("generation", f"{report.source}@{report.generation.number}, {report.generation.state}"))
    yield facts(pairs)


def released(found: Sequence[ReleaseReport]) -> Iterator[RenderableType]:
    for each in found:
        if each.reason:
            yield Text(safe(f"{each.source}: nothing goes, {each.reason}"))
            continue
        verb = "would be released" if each.dry_run else "released"
        yield Text(f"{each.source}: {count(each.files, 'file')}, {size_text(each.size)} {verb}")
        for path in each.paths:
            yield Text(f"  {printable(path)}")


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
