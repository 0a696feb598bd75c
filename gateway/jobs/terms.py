"""What a restore job may cost and take: by its quote, its budget, its deadline and what was approved; and that quote
made anew, by other terms or later.

Nothing here looks at the store. docs/design/jobs.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from gateway.catalog import Catalog, RestoreJobRow, RestorePackRow, RestorePlanned
from gateway.clock import from_milliseconds
from gateway.config.prices import PriceList, Tier, thaw_time
from gateway.config.values import Config
from gateway.errors import ApprovalNeeded, OverBudget
from gateway.jobs.context import Context
from gateway.jobs.spending import Spent
from gateway.jobs.survey import (
    SOON,
    Place,
    Quoted,
    a_look,
    cached_packs,
    longest_thaw,
    needs,
    places_of,
    price_list,
    quoted,
)
from gateway.policy import thaw
from gateway.policy.prices import PackState, Terms, hours, money, quote
from gateway.policy.thaw import Stage
from gateway.repository.chain import Chain


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
    by = f" by {row.planned.tier} thaws" if row.planned.cold_packs else ""
    return ApprovalNeeded(
        f"Restore job {row.id} waits for approval: it costs {_costs(row.planned)}{by}"
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


def require_time(row: RestoreJobRow, now: datetime, time: timedelta | None = None) -> None:
    """`OverBudget`: what takes so long (None: all of the job, as planned) is not done by the deadline."""
    if time is None and row.planned.seconds >= 0:
        time = timedelta(seconds=row.planned.seconds)
    left = from_milliseconds(row.order.deadline) - now
    if not row.order.deadline or time is None or time <= left:
        return
    by = f" by {row.planned.tier} thaws" if row.planned.cold_packs else ""
    raise OverBudget(
        f"The job takes up to {hours(time)}{by}, and its deadline is in {hours(max(timedelta(), left))}.",
        meaning="Nothing more was asked for. What is thawed already stays so for the days that were paid for.",
        advice=f'`gateway jobs resume {row.id} --deadline "..."` lets it go on.',
    )


def rest_time(planned: RestorePlanned, places: Sequence[Place], prices: PriceList | None) -> timedelta | None:
    """How long it takes if what is cold is asked for now. What thaws already is there when it is there."""
    known = [replace(e, state=PackState.THAWED) if e.state is PackState.THAWING else e for e in places]
    return quote(needs(known), Tier(planned.tier), prices, Terms(
        days=planned.days, bytes_per_second=max(1, planned.bytes_per_second),
    )).time  # fmt: skip


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
    looks = thaw.looks(longest_thaw(prices, tier, places)) + thaw.MORE_LOOKS
    worst = _terms(planned, config, None, looks=looks * (len(planned.ends) + 1) * a_look(len(places), keys))
    return quote(needs(places), tier, prices, worst).amount


def _terms(planned: RestorePlanned, config: Config, asked: datetime | None, looks: int = 0) -> Terms:
    """`asked` None: at the hour at which copies cost the most."""
    return Terms(
        days=planned.days + (asked is None), asked=asked, looks=looks, via=config.restore.via,
        bytes_per_second=max(1, planned.bytes_per_second),
    )  # fmt: skip


# --- quoted anew ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Anew:
    """How a job goes on: with the tier in `planned`, and then `amount` for all of it, `most` at the worst hour.
    `slower`: what it thaws, and has to ask for again by that tier.
    """

    planned: RestorePlanned
    amount: Decimal | None
    most: Decimal | None
    slower: tuple[RestorePackRow, ...]

    @property
    def unapproved(self) -> RestorePlanned:
        return unapproved(self.planned, self.amount, self.most)


def quoted_anew(context: Context, catalog: Catalog, chain: Chain, row: RestoreJobRow, *, keep: bool) -> Anew | None:
    """By the job's order, of which some time and money are gone. `keep`: by the same tier, as long as that fits.

    None: nothing is left to be thawed. `OverBudget`: no tier fits.
    """
    order, prices, now = row.order, price_list(context.config), context.clock.now()
    packs = [_by_now(each, row.planned.days, now) for each in catalog.restore_packs(row.id)]
    if not any(each.stage in (Stage.COLD, Stage.ASKING, Stage.THAWING) for each in packs):
        return None
    cached = cached_packs(context.cache, chain, packs) if context.cache is not None else frozenset()
    places = [_thawing(each, pack, prices) for each, pack in zip(places_of(packs, cached), packs, strict=True)]
    spent = Spent(row.done.spent).amount(prices)
    # A request with other days is refused while a thaw goes on that was asked for before.
    running = any(
        each.stage is Stage.ASKING or (each.asks and each.stage in (Stage.COLD, Stage.THAWING)) for each in packs
    )

    def offered(tier: str) -> Quoted:
        return quoted(
            context, catalog, places, _wave_bytes(places), len(chain.fold.packs), tier=tier,
            budget=Decimal(order.budget) - (spent or 0) if order.budget else None,
            deadline=max(timedelta(), from_milliseconds(order.deadline) - now) if order.deadline else None,
            days=row.planned.days if running else 0,
        )  # fmt: skip

    offers = offered(row.planned.tier if keep else order.tier)
    if offers.chosen is None and keep:
        offers = offered(order.tier)
    chosen = offers.chosen
    if chosen is None:
        raise OverBudget(
            f"No retrieval tier fits: {offers.reason}.",
            meaning="The job goes on, or waits, as before.",
            advice=f'Allow more time or more money: `gateway jobs resume {row.id} --deadline "..." --budget "..."`.',
        )
    amount, most = (
        None if each is None or spent is None else each + spent for each in (chosen.amount, offers.most[chosen.tier])
    )
    by = {each.number for each in places if each.by(chosen.tier) is not each}
    return Anew(
        planned=msgspec.structs.replace(
            row.planned, tier=str(chosen.tier), days=max(offers.days[chosen.tier], offers.days[Tier.STANDARD]),
            seconds=-1 if chosen.time is None else int(chosen.time.total_seconds()), currency=chosen.currency,
            amount="" if amount is None else str(amount), most="" if most is None else str(most),
        ),
        amount=amount, most=most, slower=tuple(replace(each, stage=Stage.COLD) for each in packs if each.number in by),
    )  # fmt: skip


def _thawing(place: Place, pack: RestorePackRow, prices: PriceList | None) -> Place:
    """With what is known of a thaw that goes on."""
    if place.state is not PackState.THAWING or not pack.tier:
        return place
    tier = Tier(pack.tier)
    time = thaw_time(prices, pack.storage_class, tier)
    ready = from_milliseconds(pack.asked) + time.at_most if time is not None else None
    return replace(place, ready=ready, tier=tier if pack.asks else None)


def _by_now(pack: RestorePackRow, days: int, now: datetime) -> RestorePackRow:
    """A copy that was thawed for so many days, and is gone, though nobody has looked since."""
    until = from_milliseconds(pack.until) if pack.until else None
    if pack.stage is Stage.THAWING and pack.asked:
        asked = from_milliseconds(pack.asked)
        until = asked + thaw.kept(asked, days, timedelta())
    gone = pack.stage in (Stage.THAWING, Stage.READY) and until is not None and until - now < SOON
    return replace(pack, stage=Stage.COLD, asks=0) if gone else pack


def _wave_bytes(places: Sequence[Place]) -> list[int]:
    """What is still fetched for each wave."""
    found: dict[int, int] = {}
    for each in places:
        if each.state is not PackState.CACHED:
            found[each.wave] = found.get(each.wave, 0) + each.fetch_bytes
    return list(found.values())
