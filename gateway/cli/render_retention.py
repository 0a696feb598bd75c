"""What the verbs of retention report, for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from gateway import clock
from gateway.api import ExpireReport, HoldReport, RetentionDecision, RetentionReport, SweepReport
from gateway.cli.render import count, table
from gateway.cli.run import safe
from gateway.config import size_text


def plan(report: RetentionReport) -> Iterator[RenderableType]:
    """Each generation with all that keeps it, then what stops expiry, then what it comes to."""
    made = table("=generation", "=begun", "=", "because")
    for each in report.decisions:
        for at, (word, why) in enumerate(_lines(each)):
            first = at == 0
            made.add_row(
                f"{each.source}@{each.number}" if first else "",
                clock.text(each.begun) if first else "",
                Text(word if first else "", style="" if each.reasons else "yellow"),
                Text(safe(why)),
            )
    yield made
    for freeze in report.freezes:
        of = freeze.source or "all sources"
        yield Text(safe(f"Nothing of {of} expires: {freeze.reason}."), style="yellow")
    going = [each for each in report.decisions if not each.reasons]
    share = f", {report.removed_bytes / report.stored_bytes:.0%}" if report.stored_bytes else ""
    yield Text(
        f"Plan {report.plan}: {len(going):,} of {count(len(report.decisions), 'generation')} expire, "
        f"{size_text(report.removed_bytes)} of {size_text(report.stored_bytes)} removed{share}."
    )
    if report.needs_approval:
        yield Text(f"It needs an approval: gateway retention apply --approve {report.plan}", style="bold")


def _lines(each: RetentionDecision) -> list[tuple[str, str]]:
    if each.reasons:
        return [("keep", f"{one.rule}: {one.text}") for one in each.reasons]
    return [("expire", why) for why in each.why] or [("expire", "no rule keeps it")]


def applied(report: RetentionReport) -> Iterator[RenderableType]:
    for freeze in report.freezes:
        of = freeze.source or "all sources"
        yield Text(safe(f"Nothing of {of} expires: {freeze.reason}."), style="yellow")
    for name in report.expired:
        yield Text(f"{name} expired")
    yield Text(f"Plan {report.plan}: {count(len(report.expired), 'generation')} expired.")


def hold(report: HoldReport) -> Iterator[RenderableType]:
    for name in report.kept_again:
        yield Text(f"{name} is kept again")
    name = f"{report.source}@{report.number}"
    if not report.holds:
        yield Text(f"{name} is not held any more; the rules decide.")
    for why in report.holds:
        yield Text(safe(f"{name} is held: {why}"))


def expire(report: ExpireReport) -> Iterator[RenderableType]:
    name, freed = f"{report.source}@{report.number}", size_text(report.freed_bytes)
    if report.dry_run:
        yield Text(f"{name} would expire; {freed} are in packs that only it needs.")
        return
    until = f" until {clock.text(report.until)}" if report.until is not None else ""
    yield Text(f"{name} expired; {freed} are in packs that only it needed. `gateway hold {name}` undoes it{until}.")


def sweep(report: SweepReport) -> Iterator[RenderableType]:
    if report.objects:
        made = table("verdict", ">size", "=until", "object", "because")
        for each in report.objects:
            made.add_row(
                each.verdict, size_text(each.size), clock.text(each.until) if each.until is not None else "", each.key,
                Text(safe(each.reason)),
            )  # fmt: skip
        yield made
    if report.objects_more:
        yield Text(f"and {count(report.objects_more, 'more object')}")
    for chain in report.ended:
        yield Text(f"chain {chain} {'would be' if report.dry_run else 'is'} finished")
    verb = "would be deleted" if report.dry_run else "deleted"
    yield Text(
        f"{count(report.deleted, 'object')} ({size_text(report.deleted_bytes)}) {verb}, "
        f"{report.waiting:,} ({size_text(report.waiting_bytes)}) wait, "
        f"{report.kept:,} ({size_text(report.kept_bytes)}) are needed."
    )
