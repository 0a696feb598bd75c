"""What a restore costs and how long it takes, before anything is asked of the store. Pure.

Every figure of a quote names where it comes from. One that is not known is not known, and neither is any sum with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from gateway.config.classes import COLD, STANDARD
from gateway.config.prices import Item, Price, PriceList, Tier, thaw_time
from gateway.config.units import duration_text
from gateway.config.values import Via
from gateway.policy.thaw import kept

GIB = 1024**3
MONTH_DAYS = 30
REQUESTS_PER_SECOND = 300
"""Thaws asked for in a second. LIMIT: S3 takes 1,000 for an account and region (S3 User Guide, "Understanding archival
storage"), and others want some.
"""
EXPEDITED_BYTES = 250 * 1000 * 1000
"""LIMIT: up to this size an expedited thaw takes 1 to 5 minutes (S3 User Guide, "Understanding archive retrieval
options").
"""
EXPEDITED_PACKS = 300
"""LIMIT: expedited thaws are meant for up to hundreds of objects (same place)."""


class PackState(StrEnum):
    """Where packs are read from. READABLE: in a storage class that is hot."""

    CACHED = "cached"
    READABLE = "readable"
    THAWED = "thawed"
    THAWING = "thawing"
    COLD = "cold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Packs of one storage class, in one state, that a restore reads.

    `bytes`: of the whole packs, which is what a thaw brings back; `fetched_bytes`: of the ranges that are read, in
    `requests`. `largest_bytes`: of the largest pack. `ready_in`: when the last THAWING one is thawed, where
    that is known.
    """

    storage_class: str
    state: PackState
    packs: int
    bytes: int
    fetched_bytes: int
    requests: int
    largest_bytes: int = 0
    ready_in: timedelta | None = None

    def __post_init__(self) -> None:
        if min(self.packs, self.bytes, self.fetched_bytes, self.requests, self.largest_bytes) < 0:
            raise ValueError("counts and sizes are not negative")
        if self.state is PackState.READABLE and self.storage_class in COLD:
            raise ValueError(f"{self.storage_class} is not readable before a thaw")
        if self.state in (PackState.COLD, PackState.THAWING, PackState.THAWED) and self.storage_class not in COLD:
            raise ValueError(f"{self.storage_class} is never thawed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """`days`: for which thawed copies are asked for, and `asked`: when; None: whole days are counted. `looks`: listings
    asked for until all is thawed. `bytes_per_second`: of the way from the store, None: not measured; `rate_origin`: who
    says so.

    `region`: the bucket's, as far as it is known; only for texts.
    """

    days: int = 3
    asked: datetime | None = None
    looks: int = 0
    rate_origin: str = ""
    via: Via = Via.INTERNET
    bytes_per_second: int | None = None
    requests_per_second: int = REQUESTS_PER_SECOND
    region: str = ""

    def __post_init__(self) -> None:
        if self.days < 1 or self.requests_per_second < 1 or (self.bytes_per_second or 1) < 1:
            raise ValueError("days and rates are at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """`quantity` of `unit` at `price` each. `amount`: None where the price is not known. `origin`: where the price
    comes from, or why there is none.
    """

    what: str
    quantity: Decimal
    unit: str
    price: Decimal | None
    amount: Decimal | None
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """One part of the time a restore takes; None where it is not known."""

    what: str
    time: timedelta | None
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What a restore takes if its cold packs are thawed by `tier`.

    `packs`, `thawed_bytes`: that are thawed anew. `fetched_bytes`, `requests`: to read everything that is not cached.
    `unavailable`: why this tier cannot be had; the other values say then what is known all the same. `cautions`: what
    may turn out otherwise.
    """

    tier: Tier
    currency: str
    packs: int
    thawed_bytes: int
    fetched_bytes: int
    requests: int
    figures: tuple[Figure, ...]
    durations: tuple[Duration, ...]
    cautions: tuple[str, ...] = ()
    unavailable: str = ""

    @property
    def amount(self) -> Decimal | None:
        """What it costs; None: some figure is not known."""
        amounts = [each.amount for each in self.figures if each.amount is not None]
        return sum(amounts, Decimal(0)) if len(amounts) == len(self.figures) else None

    @property
    def known_amount(self) -> Decimal:
        """What the known figures come to: at least this."""
        return sum((each.amount for each in self.figures if each.amount is not None), Decimal(0))

    @property
    def time(self) -> timedelta | None:
        """How long it takes at most, one part after the other; None: some part is not known."""
        times = [each.time for each in self.durations if each.time is not None]
        return sum(times, timedelta()) if len(times) == len(self.durations) else None

    @property
    def missing(self) -> tuple[str, ...]:
        """Why a figure or a time is not known, each reason once."""
        reasons = [f"{each.what}: {each.origin}" for each in self.figures if each.amount is None]
        reasons += [f"{each.what}: {each.origin}" for each in self.durations if each.time is None]
        return tuple(dict.fromkeys(reasons))


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The quote to go by; None: none fits. `reason`: why this one, or why none. `rejected`: the others, and why not."""

    quote: Quote | None
    reason: str
    rejected: tuple[tuple[Tier, str], ...] = ()


def quotes(needs: Iterable[Need], prices: PriceList | None, terms: Terms) -> tuple[Quote, ...]:
    """One quote for each tier, the slowest tier first. `prices` None: no list is known."""
    known = tuple(needs)
    return tuple(quote(known, tier, prices, terms) for tier in Tier)


def quote(needs: Sequence[Need], tier: Tier, prices: PriceList | None, terms: Terms) -> Quote:
    cold = [each for each in needs if each.state is PackState.COLD and each.packs]
    read = [each for each in needs if each.state is not PackState.CACHED]
    impossible = [each.storage_class for each in cold if thaw_time(prices, each.storage_class, tier) is None]
    figures = tuple(_Figures(tier, prices, terms).of(needs))
    unchecked = sorted({each.what for each in figures if each.origin.endswith(_UNCHECKED)})
    cautions = [f"the price of {each} was not checked" for each in unchecked]
    if tier is Tier.EXPEDITED and cold:
        cautions += _expedited(cold)
    return Quote(
        tier=tier, currency=prices.currency if prices is not None else "",
        packs=sum(each.packs for each in cold), thawed_bytes=sum(each.bytes for each in cold),
        fetched_bytes=sum(each.fetched_bytes for each in read), requests=sum(each.requests for each in read),
        figures=figures, durations=tuple(_durations(needs, tier, prices, terms)), cautions=tuple(cautions),
        unavailable=f"{impossible[0]} has no {tier} retrieval" if impossible else "",
    )  # fmt: skip


def choose(offered: Sequence[Quote], *, budget: Decimal | None = None, deadline: timedelta | None = None) -> Choice:
    """The cheapest quote that is within `budget` and done by `deadline`; of equally cheap ones the faster, of equally
    fast ones, which is all of them where nothing has to be asked for, the slowest tier: by it is asked for what turns
    out to be cold after all.

    What is not known fits no limit. Where no price is known and none is asked for, the slowest tier in time is taken,
    since slower tiers are never dearer.
    """
    rejected = {each.tier: _objection(each, budget, deadline) for each in offered}
    fitting = [each for each in offered if not rejected[each.tier]]
    left_out = [(tier, why) for tier, why in rejected.items() if why]
    if not fitting:
        alike = len(left_out) > 1 and len({why for _, why in left_out}) == 1
        reason = "; ".join(why if alike else f"{tier}: {why}" for tier, why in left_out[: 1 if alike else None])
        reason = reason or "nothing was offered"
        return Choice(quote=None, reason=f"no retrieval fits: {reason}", rejected=tuple(left_out))
    order = list(Tier)
    best = min(fitting, key=_rank)
    if not any(each.packs for each in fitting):
        why = "nothing has to be asked for, so that all tiers cost the same"
    elif any(each.amount is None for each in fitting):
        best = min(fitting, key=lambda each: order.index(each.tier))
        whose = "its price" if best.amount is None else "the price of a faster one"
        why = f"it is the slowest that is in time, and slower ones are not dearer; {whose} is not known"
    elif len(fitting) == 1:
        why = "it is the only one that fits" if left_out else "it is the only one"
    else:
        why = "it is the cheapest that fits" if left_out else "it is the cheapest"
    others = [(each.tier, "it is not cheaper") for each in fitting if each is not best]
    return Choice(quote=best, reason=f"{best.tier}: {why}", rejected=(*left_out, *others))


def _rank(each: Quote) -> tuple[Decimal, timedelta, int]:
    """Without a time it is taken for the slowest."""
    time = each.time if each.time is not None else timedelta.max
    return each.known_amount, time, list(Tier).index(each.tier)


def _objection(each: Quote, budget: Decimal | None, deadline: timedelta | None) -> str:
    if each.unavailable:
        return each.unavailable
    found: list[str] = []
    if budget is not None:
        if each.known_amount > budget:
            more = "" if each.amount is not None else "at least "
            found.append(f"it costs {more}{money(each.known_amount, each.currency)}, over the budget of {budget:,.2f}")
        elif each.amount is None:
            found.append(f"its price is not known ({each.missing[0]}), and the budget is {budget:,.2f}")
    if deadline is not None:
        if each.time is None:
            found.append("how long it takes is not known")
        elif each.time > deadline:
            found.append(f"it takes up to {hours(each.time)}, and has {hours(deadline)}")
    return ", and ".join(found)


def money(amount: Decimal, currency: str) -> str:
    """Rounded up to the next cent: a quote is not exceeded by rounding."""
    cents = amount.quantize(Decimal("0.01"), rounding="ROUND_CEILING")
    return f"{cents:,.2f} {currency}".rstrip()


def hours(time: timedelta) -> str:
    """``1 h 30 min``: minutes rounded up."""
    minutes = -(-time // timedelta(minutes=1))
    parts = [f"{minutes // 60} h"] * (minutes >= 60) + [f"{minutes % 60} min"] * (minutes % 60 > 0 or minutes < 60)
    return " ".join(parts)


# --- money ------------------------------------------------------------------------------------------------------------

_UNCHECKED = "(not checked)"
_WAITED_FOR = (PackState.COLD, PackState.THAWING)


class _Figures:
    def __init__(self, tier: Tier, prices: PriceList | None, terms: Terms) -> None:
        self._tier, self._prices, self._terms = tier, prices, terms

    def of(self, needs: Sequence[Need]) -> Iterator[Figure]:
        for storage in sorted({each.storage_class for each in needs}):
            yield from self._of_class(storage, [each for each in needs if each.storage_class == storage])
        copied = [each for each in needs if each.state is PackState.COLD and each.bytes]
        if copied:
            found = self._price(Item.STORAGE, storage_class=STANDARD)
            quantity = sum((_gib(each.bytes) * self._kept_days(each) / MONTH_DAYS for each in copied), Decimal(0))
            what = f"keeping thawed copies for {_count(self._terms.days, 'day')}"
            yield self._figure(what, quantity, "GB-months", found, f"{Item.STORAGE} of {STANDARD}")
        if self._terms.looks and any(each.packs for each in needs if each.state in _WAITED_FOR):
            found = self._price(Item.LIST)
            quantity = Decimal(self._terms.looks) / 1000
            yield self._figure("looking what is thawed", quantity, "1,000 requests", found, str(Item.LIST))
        sent = sum(each.fetched_bytes for each in needs if each.state is not PackState.CACHED)
        if sent:
            via = self._terms.via
            found = self._price(Item.EGRESS, via=via)
            yield self._figure(f"sending by {via}", _gib(sent), "GB", found, f"{Item.EGRESS} by {via}")

    def _kept_days(self, need: Need) -> Decimal:
        """How long copies stand that are asked for now and thawed as late as may be."""
        time = thaw_time(self._prices, need.storage_class, self._tier)
        if self._terms.asked is None or time is None:
            return Decimal(self._terms.days)
        span = kept(self._terms.asked, self._terms.days, time.at_most)
        return Decimal(int(span.total_seconds())) / 86_400

    def _of_class(self, storage: str, needs: Sequence[Need]) -> Iterator[Figure]:
        cold = [each for each in needs if each.state is PackState.COLD]
        packs, thawed = sum(each.packs for each in cold), sum(each.bytes for each in cold)
        requests = sum(each.requests for each in needs if each.state is not PackState.CACHED)
        direct = sum(each.fetched_bytes for each in needs if each.state is PackState.READABLE)
        if packs:
            for item, quantity, unit in (
                (Item.THAW, _gib(thawed), "GB"),
                (Item.THAW_REQUESTS, Decimal(packs) / 1000, "1,000 requests"),
            ):
                found = self._price(item, storage_class=storage, tier=self._tier)
                what = f"thawing from {storage}, {self._tier}"
                yield self._figure(what, quantity, unit, found, f"{item} of {storage}, {self._tier}")
        if direct:
            found = self._price(Item.RETRIEVAL, storage_class=storage)
            yield self._figure(
                f"retrieving from {storage}", _gib(direct), "GB", found, f"{Item.RETRIEVAL} of {storage}"
            )
        if requests:
            found = self._price(Item.GET, storage_class=storage)
            quantity = Decimal(requests) / 1000
            yield self._figure(f"reading from {storage}", quantity, "1,000 requests", found, f"{Item.GET} of {storage}")

    def _price(
        self, item: Item, *, storage_class: str = "", tier: Tier | None = None, via: Via | None = None
    ) -> Price | None:
        if self._prices is None:
            return None
        return self._prices.price(item, storage_class=storage_class, tier=tier, via=via)

    def _figure(self, what: str, quantity: Decimal, unit: str, price: Price | None, wanted: str) -> Figure:
        if price is None:
            return Figure(
                what=what, quantity=quantity, unit=unit, price=None, amount=None, origin=self._why_not(wanted)
            )
        assert self._prices is not None
        origin = f"{self._prices.region}, {self._prices.date}, {price.source}"
        if not price.checked:
            origin = f"{origin} {_UNCHECKED}"
        return Figure(
            what=what, quantity=quantity, unit=unit, price=price.amount, amount=quantity * price.amount, origin=origin
        )

    def _why_not(self, wanted: str) -> str:
        if self._prices is not None:
            return f"the price list of {self._prices.region} has no {wanted}"
        where = f'for region "{self._terms.region}"' if self._terms.region else "while the region is not known"
        return f"there is no price list {where}; prices.file names one"


# --- time -------------------------------------------------------------------------------------------------------------


def _durations(needs: Sequence[Need], tier: Tier, prices: PriceList | None, terms: Terms) -> Iterator[Duration]:
    packs = sum(each.packs for each in needs if each.state is PackState.COLD)
    if packs:
        time = timedelta(seconds=packs / terms.requests_per_second)
        yield Duration(what="asking for thaws", time=time, origin=f"{terms.requests_per_second} requests a second")
    thaws = [each for each in (_thaw(need, tier, prices) for need in needs) if each is not None]
    if thaws:
        unknown = [each for each in thaws if each.time is None]
        yield unknown[0] if unknown else max(thaws, key=lambda each: each.time or timedelta())
    sent = sum(each.fetched_bytes for each in needs if each.state is not PackState.CACHED)
    if sent and terms.bytes_per_second is None:
        yield Duration(what="fetching", time=None, origin="the way from the store was not measured")
    elif sent and terms.bytes_per_second is not None:
        rate = f"{terms.bytes_per_second / 1024**2:,.1f} MiB a second{terms.rate_origin and ', ' + terms.rate_origin}"
        yield Duration(what="fetching", time=timedelta(seconds=sent / terms.bytes_per_second), origin=rate)


def _thaw(need: Need, tier: Tier, prices: PriceList | None) -> Duration | None:
    """How long until these packs are thawed. Of a thaw that goes on nobody knows the tier: taken for the slowest."""
    if not need.packs or need.state not in (PackState.COLD, PackState.THAWING):
        return None
    if need.state is PackState.THAWING and need.ready_in is not None:
        return Duration(what="a thaw that goes on", time=need.ready_in, origin="asked for before")
    by = tier if need.state is PackState.COLD else Tier.BULK
    found = thaw_time(prices, need.storage_class, by)
    what = f"thawing from {need.storage_class}, {by}"
    if found is None:
        return Duration(what=what, time=None, origin=f"{need.storage_class} has no {by} retrieval")
    return Duration(what=what, time=found.at_most, origin=f"at most {duration_text(found.at_most)}: {found.source}")


def _expedited(cold: Sequence[Need]) -> Iterator[str]:
    packs = sum(each.packs for each in cold)
    if max(each.largest_bytes for each in cold) > EXPEDITED_BYTES:
        yield "packs above 250 MB take longer than 5 minutes"
    if packs > EXPEDITED_PACKS:
        yield f"{packs:,} packs are more than expedited retrieval is meant for; S3 may refuse some of them"


def _gib(size: int) -> Decimal:
    return Decimal(size) / GIB


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
