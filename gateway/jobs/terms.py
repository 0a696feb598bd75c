"""What a restore job may cost: by its quote, its budget, and what somebody approved.

Nothing here looks at the store. docs/design/jobs.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from gateway.catalog import RestoreJobRow, RestorePlanned
from gateway.config.prices import PriceList, Tier, thaw_time
from gateway.config.values import Config
from gateway.errors import ApprovalNeeded, OverBudget
from gateway.jobs.survey import Place, a_look, classes_of, needs
from gateway.policy import thaw
from gateway.policy.prices import Terms, money, quote


def needs_approval(planned: RestorePlanned, above: Decimal, amount: Decimal | None) -> bool:
    """Whether somebody has to approve that all of a job comes to `amount` (None: not known). `above`: what needs no
    approval. What was approved is `planned.most`, the amount at whatever hour the copies are asked for.
    """
    approved = bool(planned.approved_by)
    if amount is None:
        return not approved or bool(planned.amount)
    if amount <= above:
        return False
    return not approved or not planned.amount or amount > Decimal(planned.most or planned.amount)


def unapproved(planned: RestorePlanned, amount: Decimal | None, most: Decimal | None) -> RestorePlanned:
    """What somebody is asked to approve now. INVARIANT: `approved_by` is who approved this very amount."""
    return msgspec.structs.replace(
        planned, amount="" if amount is None else str(amount), most="" if most is None else str(most), approved_by=""
    )


def approval_needed(row: RestoreJobRow, above: Decimal | None = None) -> ApprovalNeeded:
    return ApprovalNeeded(
        f"Restore job {row.id} waits for approval: it costs {_costs(row.planned)}"
        + (f", and restore.approval_above is {above:.2f}." if above is not None else "."),
        meaning="Nothing more is asked of the store that costs money.",
        advice=f"`gateway jobs approve {row.id}` lets it go on; `gateway jobs cancel {row.id}` ends it.",
    )


def _costs(planned: RestorePlanned) -> str:
    if not planned.amount:
        return "what is not known"
    amount = money(Decimal(planned.amount), planned.currency)
    most = money(Decimal(planned.most or planned.amount), planned.currency)
    return amount if most == amount else f"{amount}, and {most} at most"


def require_budget(row: RestoreJobRow, amount: Decimal | None) -> None:
    """`OverBudget`: all of the job comes to more than it may."""
    if not row.order.budget:
        return
    budget = Decimal(row.order.budget)
    if amount is None or amount > budget:
        known = "is not known" if amount is None else f"is {amount:.2f}"
        raise OverBudget(
            f"The job's cost {known}, and its budget {budget:.2f}.",
            meaning="It was paused. What is thawed already stays so for the days that were paid for.",
            advice=f'`gateway jobs resume {row.id} --budget "..."` lets it go on.',
        )


def rest(
    planned: RestorePlanned, places: Sequence[Place], prices: PriceList | None, config: Config, asked: datetime
) -> Decimal | None:
    """What is still to be spent, by the job's tier, if its copies are asked for then."""
    return quote(needs(places), Tier(planned.tier), prices, _terms(planned, config, asked)).amount


def rest_at_most(
    planned: RestorePlanned, places: Sequence[Place], prices: PriceList | None, config: Config, keys: int
) -> Decimal | None:
    """The same at whatever hour, with all looks. `keys`: of the chain's packs."""
    tier = Tier(planned.tier)
    times = [found.at_most for one in classes_of(places) if (found := thaw_time(prices, one, tier)) is not None]
    looks = thaw.looks(max(times, default=timedelta())) + thaw.MORE_LOOKS
    worst = _terms(planned, config, None, looks=looks * (len(planned.ends) + 1) * a_look(len(places), keys))
    return quote(needs(places), tier, prices, worst).amount


def _terms(planned: RestorePlanned, config: Config, asked: datetime | None, looks: int = 0) -> Terms:
    """`asked` None: at the hour at which copies cost the most."""
    return Terms(
        days=planned.days + (asked is None), asked=asked, looks=looks, via=config.restore.via,
        bytes_per_second=max(1, planned.bytes_per_second),
    )  # fmt: skip
