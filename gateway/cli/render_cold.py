"""What the verbs about storage classes report, for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from gateway.api import LifecycleReport, RuleDrift, RuleDriftKind
from gateway.cli.render import table
from gateway.cli.run import safe


def lifecycle(report: LifecycleReport, *, planned: bool) -> Iterator[RenderableType]:
    """What differs, then every rule of the bucket."""
    for each in report.drift:
        yield Text(safe(_drift(each)))
    if report.conflicts:
        yield Text("Nothing is written while there is a conflict.")
    elif report.written and not report.drift:
        yield Text(f"The rules of {safe(report.url)} were written and read back.")
    elif not report.drift:
        yield Text(f"The rules of {safe(report.url)} are as they should be.")
    if not report.rules:
        return
    made = table("=whose", "rule" + (", if applied" if planned else ""), "does")
    for rule in report.rules:
        made.add_row("gateway" if rule.own else "other", safe(rule.rule), Text(safe(rule.does)))
    yield made


def _drift(each: RuleDrift) -> str:
    match each.kind:
        case RuleDriftKind.MISSING:
            return f"{each.rule} is missing: {each.wanted}"
        case RuleDriftKind.UNWANTED:
            return f"{each.rule} is not needed any more: {each.found}"
        case RuleDriftKind.CHANGED:
            return f"{each.rule} should be: {each.wanted}; it is: {each.found}"
