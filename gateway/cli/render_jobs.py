"""Restores and restore jobs for people: what one takes and costs, where it is, what it came to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal

from rich.console import RenderableType
from rich.text import Text

from gateway import clock
from gateway.api import JobInfo, RestorePlan, RestoreReport, RestoreState, TierOffer
from gateway.cli.render import count, facts, left_out, table, title, took
from gateway.cli.run import safe
from gateway.config import size_text
from gateway.log import printable
from gateway.policy.prices import hours as at_most
from gateway.policy.prices import money

UNKNOWN = "not known"
_STATES = {
    "cached": "in the pack cache", "readable": "readable", "thawed": "thawed", "thawing": "thawing", "cold": "cold",
}  # fmt: skip
_STATE_STYLES = {
    RestoreState.APPROVAL: "yellow", RestoreState.PAUSED: "yellow", RestoreState.PARTIAL: "yellow",
    RestoreState.DELIVERED: "green", RestoreState.FAILED: "red",
}  # fmt: skip


def amount(value: float | None, currency: str) -> str:
    """A price that is missing is never a zero."""
    return UNKNOWN if value is None else money(Decimal(str(value)), currency)


def hours(value: float | None) -> str:
    return UNKNOWN if value is None else at_most(timedelta(hours=value))


def _small(value: float, currency: str) -> str:
    """Two digits that count: a thousandth of a cent is no zero either."""
    return f"{value:,.2f} {currency}" if value >= 1 else f"{Decimal(f'{value:.2g}'):f} {currency}"


# --- a plan -----------------------------------------------------------------------------------------------------------


def plan(shown: RestorePlan) -> Iterator[RenderableType]:
    """What is written and fetched; where the packs are; what each tier costs, and by which figures."""
    yield facts(_plan_facts(shown))
    if shown.packs:
        yield title("Where its packs are")
        made = table("=packs", ">number", ">size", ">to fetch")
        for each in (each for each in shown.by_state if each.packs):
            name = _STATES.get(each.state, each.state)
            made.add_row(name, f"{each.packs:,}", size_text(each.size), size_text(each.fetch_bytes))
        yield made
    if shown.tiers:
        yield from _tiers(shown)


def _plan_facts(shown: RestorePlan) -> list[tuple[str, str]]:
    generation = shown.generation
    made = f"{generation.source}@{generation.number} of {clock.text(generation.created)}, {generation.state}"
    fetch = f"{size_text(shown.fetch_bytes)} in {count(shown.requests, 'request')} to {count(shown.packs, 'pack')}"
    pairs = [
        ("generation", made),
        ("to write", f"{count(shown.files, 'file')}, {size_text(shown.bytes)}"),
        ("to fetch", fetch),
        ("from the pack cache", size_text(shown.cached_bytes)),
        *[
            (f"class {each.storage_class}", f"{count(each.packs, 'pack')}, {size_text(each.bytes)}")
            for each in shown.classes
        ],
    ]  # fmt: skip
    if shown.cold_packs:
        cold = f"{count(shown.cold_packs, 'pack')} of {size_text(shown.cold_bytes)}: a thaw comes first"
        pairs.append(("cold", cold))
    if shown.scratch_bytes:
        waves = f", in {shown.waves:,} waves" if shown.waves > 1 else ""
        pairs.append(("scratch space", f"{size_text(shown.scratch_bytes)} at most{waves}"))
    if shown.existing:
        pairs.append(("there already", count(shown.existing, "file")))
    return pairs


def _tiers(shown: RestorePlan) -> Iterator[RenderableType]:
    explained = next((each for each in shown.tiers if each.tier == shown.chosen), shown.tiers[0])
    thaws = bool(shown.cold_packs)  # else all tiers are the same
    yield title("What it costs, by the tier of its thaws" if thaws else "What it costs")
    made = table("=tier", ">price", ">takes at most", "=", "why")
    for each in shown.tiers if thaws else (explained,):
        verdict = "taken" if thaws and each.tier == shown.chosen else "fits" if each.fits else "does not fit"
        style = "green" if each.tier == shown.chosen else "" if each.fits else "yellow"
        made.add_row(
            each.tier if thaws else "no thaw", amount(each.usd, each.currency), hours(each.hours),
            Text(verdict, style=style), Text(safe(each.reason)),
        )  # fmt: skip
    yield made
    if not shown.chosen:
        yield Text(safe(f"No tier fits: {shown.reason}."))
    yield from _figures(explained, f"the price of {explained.tier}" if thaws else "the price")
    for text in dict.fromkeys(text for each in shown.tiers for text in each.cautions):
        yield Text(safe(f"caution: {text}"))


def _figures(offer: TierOffer, what: str) -> Iterator[RenderableType]:
    if not offer.figures:
        return
    yield title(f"Where {what} comes from")
    made = table("what", ">quantity", "=", ">price", "from")
    for each in offer.figures:
        price = UNKNOWN if each.amount is None else _small(each.amount, offer.currency)
        made.add_row(
            Text(safe(each.what)), f"{each.quantity:,.4g}" if each.quantity < 1000 else f"{each.quantity:,.0f}",
            each.unit, price, Text(safe(each.origin)),
        )  # fmt: skip
    yield made


# --- how it came out --------------------------------------------------------------------------------------------------


def restore(report: RestoreReport) -> Iterator[RenderableType]:
    if report.dry_run:
        yield from plan(report.plan)
        yield Text("Nothing was asked for, fetched or written: --dry-run.")
        return
    job, generation = report.job, report.plan.generation
    named = f"{generation.source}@{generation.number} to {printable(report.target)}"
    if job is not None and job.state not in (RestoreState.DELIVERED, RestoreState.PARTIAL):
        yield from changed(job)
    else:
        done = f"{count(report.files, 'file')}, {size_text(report.bytes)}, of {named} in {took(report.seconds)}"
        yield Text(f"Restored {done}.")
        if job is not None and job.tier:
            yield Text(safe(_came_to(job)))
    if report.left_out or report.left_out_more:
        yield title("Left out")
        yield from left_out(report.left_out, report.left_out_more)


def _came_to(job: JobInfo) -> str:
    """What a job that had to thaw cost and how long its phases took."""
    quote, spent = amount(job.quote_usd, job.currency), amount(job.spent_usd, job.currency)
    time = ", ".join(f"{name} {took(seconds)}" for name, seconds in job.phases)
    return f"Quoted {quote}, spent {spent} in {count(job.requests, 'request')}, by {job.tier} thaws; time: {time}."


def changed(job: JobInfo) -> Iterator[RenderableType]:
    """One line about a job that is not at its end, or was ended."""
    quote = f", quoted {amount(job.quote_usd, job.currency)} and {hours(job.quote_hours)}" if job.tier else ""
    by = f" by {job.tier} thaws" if job.tier else ""
    where = f"{job.generation} to {printable(job.target)}"
    yield Text(safe(f"Restore job {job.id} of {where} is {job.state}{by}{quote}."))


# --- jobs -------------------------------------------------------------------------------------------------------------


def jobs(found: Sequence[JobInfo]) -> Iterator[RenderableType]:
    """The table, and below it why some do not go on."""
    if not found:
        yield Text("There are no restore jobs. `gateway restore` makes one.")
        return
    made = table("=job", "=state", "=generation", "target", ">packs", ">done", ">of", ">quote", ">spent", "=next look")
    for each in found:
        made.add_row(
            each.id, Text(each.state.value, style=_STATE_STYLES.get(each.state, "")), each.generation,
            Text(printable(each.target)), f"{each.packs:,}", size_text(each.bytes_done), size_text(each.bytes_total),
            amount(each.quote_usd, each.currency) if each.tier else "", amount(each.spent_usd, each.currency),
            clock.text(each.next_look) if each.next_look else "",
        )  # fmt: skip
    yield made
    for each in found:
        if each.reason and not each.state.ended:
            yield Text(safe(f"{each.id}: {each.reason}"))


def job(shown: JobInfo) -> Iterator[RenderableType]:
    cost = amount(shown.spent_usd, shown.currency)
    files = f"{shown.files_done:,} of {count(shown.files_total, 'file')}"
    written = f"{files}, {size_text(shown.bytes_done)} of {size_text(shown.bytes_total)}"
    optional = [
        ("why", shown.reason),
        ("tier", shown.tier),
        (
            "quote",
            f"{amount(shown.quote_usd, shown.currency)}, at most {hours(shown.quote_hours)}" if shown.tier else "",
        ),
        ("deadline", clock.text(shown.deadline) if shown.deadline else ""),
        ("budget", f"{shown.budget} {shown.currency}" if shown.budget else ""),
        ("left out", count(shown.left_out, "file") if shown.left_out else ""),
        ("its packs are", ", ".join(f"{number:,} {stage}" for stage, number in shown.stages)),
        ("time", ", ".join(f"{name} {took(seconds)}" for name, seconds in shown.phases)),
        ("next look", clock.text(shown.next_look) if shown.next_look else ""),
        ("asked for by", shown.operator),
        ("approved by", shown.approved_by),
    ]
    yield facts([
        ("job", shown.id),
        ("state", shown.state.value),
        ("generation", shown.generation),
        ("to", printable(shown.target)),
        ("created", clock.text(shown.created)),
        ("changed", clock.text(shown.updated)),
        ("packs", f"{shown.packs:,}"),
        ("written", written),
        ("spent", f"{cost} in {count(shown.requests, 'request')}"),
        *[(name, value) for name, value in optional if value],
    ])  # fmt: skip
