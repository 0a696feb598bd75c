"""Where the packs are that a restore needs, and what they cost: from hot metadata and listings, before anything is
asked for. docs/design/jobs.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

from gateway.api import ClassNeeds, CostFigure, GenerationInfo, RestorePlan, StateNeeds, TierOffer
from gateway.catalog import Catalog, RestorePackRow
from gateway.clock import milliseconds
from gateway.config.classes import COLD, STANDARD
from gateway.config.prices import PriceList, Tier, find_prices, thaw_time
from gateway.config.values import Config
from gateway.errors import ObjectMissing
from gateway.format import names
from gateway.jobs.context import Context
from gateway.policy import thaw
from gateway.policy.prices import Need, PackState, Quote, Terms, choose, quote
from gateway.policy.thaw import Stage, Waves
from gateway.repository.cache import Cached
from gateway.repository.chain import Chain
from gateway.repository.indexes import pack_key
from gateway.store.port import PAGE_KEYS, ObjectFacts

ASKED_AGAIN = 8
"""LIMIT: archived packs of which a listing states no thaw, and that are asked for one by one, to see if it would."""
SOON = timedelta(minutes=5)
"""A copy that goes in so short a time is taken for gone."""
_TIERS = list(Tier)
_RATE = "link/bytes-per-second"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One pack that a restore needs. `storage_class`: where it is now; `ranges`: what is read of it; `until`: of a
    thawed one; `ready`: when a thaw that goes on is over at the latest, where this gateway knows; `tier`: of one that
    the job itself asked for, and may ask for again by a faster one."""

    number: int
    key: str
    size: int
    state: PackState
    storage_class: str
    ranges: tuple[tuple[int, int], ...]
    wave: int
    last: int
    until: datetime | None = None
    ready: datetime | None = None
    tier: Tier | None = None

    def by(self, tier: Tier) -> Place:
        """As it is where all is to thaw by `tier` at least: what the job thaws slower has to be asked for again."""
        slower = self.tier is not None and _TIERS.index(self.tier) < _TIERS.index(tier)
        return replace(self, state=PackState.COLD) if slower else self

    @property
    def fetch_bytes(self) -> int:
        return sum(end - start for start, end in self.ranges)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a restore needs, as it was found. `keys`: how many names a listing of its packs has."""

    packs: tuple[Place, ...]
    waves: Waves
    items: int
    files: int
    size: int
    existing: int
    keys: int = 0

    @property
    def cold(self) -> list[Place]:
        return [each for each in self.packs if each.state in (PackState.COLD, PackState.THAWING)]

    @property
    def wave_count(self) -> int:
        return len(self.waves.ends) + 1

    @property
    def scratch_bytes(self) -> int:
        if not self.cold:
            return 0
        return thaw.scratch_bytes(
            {each.number: each.fetch_bytes for each in self.packs}, {each.number: each.wave for each in self.packs},
            {each.number: each.last for each in self.packs}, self.wave_count,
        )  # fmt: skip

    def wave_bytes(self) -> list[int]:
        """What is fetched for each wave."""
        found = [0] * self.wave_count
        for each in self.packs:
            if each.state is not PackState.CACHED:
                found[each.wave] += each.fetch_bytes
        return found

    def plan(self, info: GenerationInfo) -> RestorePlan:
        """As it is shown, without quotes."""
        stored = [each for each in self.packs if each.state is not PackState.CACHED]
        classes: dict[str, list[int]] = {}
        for each in stored:
            of_class = classes.setdefault(each.storage_class, [0, 0])
            of_class[0] += 1
            of_class[1] += each.fetch_bytes
        frozen = [each for each in self.packs if each.state in (PackState.COLD, PackState.THAWING)]
        return RestorePlan(
            generation=info, files=self.files, bytes=self.size, packs=len(stored),
            requests=sum(len(each.ranges) for each in stored), fetch_bytes=sum(each.fetch_bytes for each in stored),
            cached_bytes=sum(each.fetch_bytes for each in self.packs if each.state is PackState.CACHED),
            classes=tuple(ClassNeeds(storage_class=name, packs=n, bytes=b) for name, (n, b) in sorted(classes.items())),
            existing=self.existing, cold_packs=len(frozen), cold_bytes=sum(each.size for each in frozen),
            by_state=_by_state(self.packs), scratch_bytes=self.scratch_bytes, waves=self.wave_count,
        )  # fmt: skip


def _by_state(packs: Iterable[Place]) -> tuple[StateNeeds, ...]:
    sums = {state: [0, 0, 0] for state in PackState}
    for each in packs:
        sums[each.state][0] += 1
        sums[each.state][1] += each.size
        sums[each.state][2] += each.fetch_bytes
    return tuple(StateNeeds(state=str(s), packs=n, size=b, fetch_bytes=f) for s, (n, b, f) in sums.items())


# --- where packs are --------------------------------------------------------------------------------------------------


def places(
    context: Context,
    chain: Chain,
    ranges: Mapping[int, Sequence[tuple[int, int]]],
    first: Mapping[int, int],
    last: Mapping[int, int],
    *,
    cache: Cached | None = None,
) -> tuple[Place, ...]:
    """Where each of these packs is now: one listing for each storage class of the names, and HEAD requests only where
    that says too little.
    """
    facts = states(context, chain, ranges)
    now = context.clock.now()
    found = []
    cached = cache or context.cache
    for number in sorted(ranges):
        declaration = chain.fold.packs[number].declaration
        key = pack_key(chain, declaration)
        known = facts.get(key)
        storage = known.storage_class if known is not None else class_of_day_0(chain, declaration.storage)
        state = PackState.READABLE
        if cached is not None and cached.find(chain.name, number, declaration.pack_id):
            state = PackState.CACHED
        elif known is not None and storage in COLD:
            state = state_of(known, now)
        found.append(Place(
            number=number, key=key, size=declaration.size, state=state, storage_class=storage,
            ranges=tuple(ranges[number]), wave=first.get(number, 0), last=last.get(number, 0),
            until=known.thaw.until if known is not None and known.thaw is not None else None,
        ))  # fmt: skip
    return tuple(found)


def cached_packs(cache: Cached, chain: Chain, packs: Iterable[RestorePackRow]) -> frozenset[int]:
    """Of the packs of a job that need no thaw: those that are not read from the store either."""
    return frozenset(
        each.number
        for each in packs
        if each.stage is Stage.READY
        and cache.find(chain.name, each.number, chain.fold.packs[each.number].declaration.pack_id)
    )


_BY_STAGE = {
    Stage.COLD: PackState.COLD, Stage.ASKING: PackState.COLD, Stage.THAWING: PackState.THAWING,
    Stage.FETCHED: PackState.CACHED,
}  # fmt: skip


def places_of(packs: Iterable[RestorePackRow], cached: Container[int] = ()) -> list[Place]:
    """Where the packs of a job are, by its own notes. `cached`: those that the pack cache has."""
    return [
        Place(
            number=each.number, key="", size=each.size,
            state=PackState.CACHED if each.number in cached else _BY_STAGE.get(
                each.stage, PackState.THAWED if each.storage_class in COLD else PackState.READABLE
            ),
            storage_class=each.storage_class, ranges=each.ranges, wave=each.wave, last=each.last,
        )
        for each in packs
    ]  # fmt: skip


def state_of(facts: ObjectFacts, now: datetime) -> PackState:
    """Of an object in a cold storage class."""
    if facts.readable(now):
        return PackState.THAWED
    return PackState.THAWING if facts.thaw is not None and facts.thaw.in_progress else PackState.COLD


def class_of_day_0(chain: Chain, storage: str) -> str:
    steps = chain.header.steps
    return str(steps[1]) if storage == chain.header.storage and len(steps) > 1 else STANDARD


def _nobody(*, listings: int = 0, heads: int = 0, storage: str = STANDARD) -> None:
    pass


def states(
    context: Context, chain: Chain, wanted: Iterable[int], looked: Callable[..., None] = _nobody
) -> dict[str, ObjectFacts]:
    """What the store says of the wanted packs of a chain, by key; nothing where they all stay in one hot class, and
    nothing of those that are lost. `looked` is told of every request, as `Spent.looked`.
    """
    header = chain.header
    if len(header.steps) <= 2 and not any(name in COLD for name in header.steps[1::2]):
        return {}
    store, now = chain.repository.store, context.clock.now()
    keys = {pack_key(chain, chain.fold.packs[number].declaration) for number in wanted}
    prefix = names.pack_prefix(header.storage, chain.name)
    found: dict[str, ObjectFacts] = {}

    def look(key: str) -> None:
        try:
            found[key] = store.head(key)
        except ObjectMissing:
            found.pop(key, None)
            looked(heads=1)
        else:
            looked(heads=1, storage=found[key].storage_class)

    if few(len(keys), chain):
        for key in sorted(keys):
            if key.startswith(prefix):
                look(key)
        return found
    silent: list[str] = []
    listed = 0
    for facts in store.list_objects(prefix):
        listed += 1
        if facts.key in keys:
            found[facts.key] = facts
            if facts.storage_class in COLD and facts.thaw is None:
                silent.append(facts.key)
    looked(listings=max(1, -(-listed // PAGE_KEYS)))
    # A listing may not state thaws at all: a few of those that ought to be thawed, or any, say whether it does.
    for key in ask_again(silent):
        look(key)
    if any(key in found and found[key].thaw is not None for key in silent):
        for key in silent:
            if key in found and found[key].thaw is None and not found[key].readable(now):
                look(key)
    return found


def compared(
    context: Context, chain: Chain, packs: Sequence[RestorePackRow], looked: Callable[..., None], job: str
) -> list[RestorePackRow]:
    """The packs of a job as the store says that they are now."""
    now = context.clock.now()
    keys = {each.number: pack_key(chain, chain.fold.packs[each.number].declaration) for each in packs}
    found = states(context, chain, keys, looked)
    # Of those that ought to be thawed, a listing that says nothing is not believed.
    silent = [
        each.number for each in packs
        if (facts := found.get(keys[each.number])) is not None
        and each.stage is not Stage.COLD and facts.storage_class in COLD and facts.thaw is None
    ]  # fmt: skip
    if silent and not few(len(keys), chain):
        for number in silent:
            found |= states(context, chain, [number], looked)
    changed = []
    for each in packs:
        facts = found.get(keys[each.number])
        if facts is None:  # it is gone; whoever reads it will say so
            changed.append(replace(each, stage=Stage.READY, until=0))
            continue
        cold = facts.storage_class in COLD
        state = state_of(facts, now) if cold else PackState.READABLE
        until = facts.thaw.until if facts.thaw is not None and facts.thaw.until is not None else None
        if state is PackState.THAWED and until is not None and until - now < SOON:
            state = PackState.COLD
        stage = {PackState.COLD: Stage.COLD, PackState.THAWING: Stage.THAWING}.get(state, Stage.READY)
        if stage is Stage.COLD and each.stage in (Stage.THAWING, Stage.READY):
            context.log.warning("restore.frozen_again", job=job, pack=f"{each.number:08x}")
            each = replace(each, asks=0, asked=each.asked or milliseconds(now))  # noqa: PLW2901
        changed.append(replace(
            each, stage=stage, storage_class=facts.storage_class,
            asked=each.asked or (milliseconds(now) if stage is Stage.THAWING else 0),
            until=milliseconds(until) if until is not None and stage is Stage.READY else 0,
        ))  # fmt: skip
    return changed


def few(packs: int, chain: Chain) -> bool:
    """Whether to ask for each of so many packs of a chain, and not to list them all."""
    return not thaw.by_listing(packs, len(chain.fold.packs), PAGE_KEYS)


def ask_again(keys: Sequence[str]) -> list[str]:
    step = max(1, len(keys) // ASKED_AGAIN)
    return list(keys[::step][:ASKED_AGAIN])


# --- what it costs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What the way from the store carries. `origin`: who says so."""

    bytes_per_second: int
    origin: str


def link_rate(config: Config, catalog: Catalog) -> Rate:
    if config.restore.link is not None:
        return Rate(bytes_per_second=config.restore.link, origin="restore.link")
    measured = catalog.meta(_RATE)
    if measured is not None:
        return Rate(bytes_per_second=max(1, int(measured)), origin="measured")
    return Rate(bytes_per_second=thaw.DEFAULT_BYTES_PER_SECOND, origin="taken for granted: set restore.link")


def measured_rate(catalog: Catalog, fetched: int, seconds: float) -> None:
    """Remember what a long enough fetch showed, half of it new, half as before."""
    if seconds <= 0 or fetched < 8 << 20:
        return
    now = int(fetched / seconds)
    before = catalog.meta(_RATE)
    catalog.set_meta(_RATE, str(max(1, (now + int(before)) // 2 if before else now)))


def price_list(config: Config) -> PriceList | None:
    """The list as it stands now. Raises as `find_prices`."""
    file = config.prices.file
    version: tuple[int, ...] = ()
    if file is not None:
        with contextlib.suppress(OSError):  # who reads it says that it is not there
            found = file.stat()
            version = found.st_mtime_ns, found.st_size, found.st_ino
    return _price_list(file, config.repository.region, version)


@lru_cache(maxsize=8)
def _price_list(file: Path | None, region: str | None, _version: tuple[int, ...]) -> PriceList | None:
    """Read once, until the file is another one."""
    return find_prices(file, region)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """One quote a tier, and the one to go by; None: none fits. `days`: by tier, for how long copies are asked for.
    `most`: by tier, what it comes to if they are asked for at the worst hour of a day, wave after wave.
    """

    quotes: tuple[Quote, ...]
    chosen: Quote | None
    reason: str
    rejected: dict[Tier, str] = field(default_factory=dict)
    days: dict[Tier, int] = field(default_factory=dict)
    most: dict[Tier, Decimal | None] = field(default_factory=dict)

    def shown(self, plan: RestorePlan) -> RestorePlan:
        offers = []
        for each in self.quotes:
            taken = self.chosen is not None and each.tier is self.chosen.tier
            why = self.reason if taken else self.rejected.get(each.tier, "")
            time = each.time
            offers.append(TierOffer(
                tier=str(each.tier), usd=None if each.amount is None else float(each.amount),
                hours=None if time is None or each.unavailable else time.total_seconds() / 3600,
                fits=taken or self.rejected.get(each.tier, NOT_CHEAPER) == NOT_CHEAPER, reason=why,
                currency=each.currency, cautions=(*each.cautions, *each.missing),
                figures=tuple(
                    CostFigure(what=figure.what, quantity=float(figure.quantity), unit=figure.unit,
                               amount=None if figure.amount is None else float(figure.amount), origin=figure.origin)
                    for figure in each.figures
                ),
            ))  # fmt: skip
        return replace(
            plan, tiers=tuple(offers), chosen=str(self.chosen.tier) if self.chosen else "", reason=self.reason
        )


NOT_CHEAPER = "it is not cheaper"


def needs(packs: Iterable[Place], now: datetime | None = None) -> list[Need]:
    """By storage class and state. `now`: from when on thaws take time that go on, where their end is known."""
    groups: dict[tuple[str, PackState], list[Place]] = {}
    for each in packs:
        groups.setdefault((each.storage_class, each.state), []).append(each)
    return [
        Need(
            storage_class=storage, state=state, packs=len(group), bytes=sum(each.size for each in group),
            fetched_bytes=sum(each.fetch_bytes for each in group), requests=sum(len(each.ranges) for each in group),
            largest_bytes=max(each.size for each in group), ready_in=_ready_in(group, now),
        )
        for (storage, state), group in sorted(groups.items())
    ]  # fmt: skip


def _ready_in(packs: Sequence[Place], now: datetime | None) -> timedelta | None:
    ends = [each.ready for each in packs if each.ready is not None]
    return max(timedelta(), max(ends) - now) if now is not None and len(ends) == len(packs) else None


def longest_thaw(
    prices: PriceList | None, tier: Tier, packs: Iterable[Place], states: Container[PackState] = (PackState.COLD,)
) -> timedelta:
    """How long thaws by a tier take at most, from where packs in these states are."""
    classes = {each.storage_class for each in packs if each.state in states}
    times = [found.at_most for one in classes if (found := thaw_time(prices, one, tier)) is not None]
    return max(times, default=timedelta())


def a_look(packs: int, keys: int) -> int:
    """What it costs to see once where so many packs of a chain are, in listings; `keys`: of all its packs.

    LIMIT: a HEAD is a GET in the bill and costs a twelfth of a listing.
    """
    if thaw.by_listing(packs, keys, PAGE_KEYS):
        return -(-keys // PAGE_KEYS)
    return -(-packs // thaw.HEADS_A_PAGE)


def quoted(
    context: Context,
    catalog: Catalog,
    packs: Sequence[Place],
    wave_bytes: Sequence[int],
    keys: int,
    *,
    tier: str = "",
    budget: Decimal | None = None,
    deadline: timedelta | None = None,
    days: int = 0,
) -> Quoted:
    """What it costs by each tier, and which to take. `keys`: of the chain's packs, for the listings; `days`: for which
    copies have to be asked for, 0: as many as it takes.
    """
    config, prices = context.config, price_list(context.config)
    rate = link_rate(config, catalog)
    now = context.clock.now()
    frozen = sum(each.state in (PackState.COLD, PackState.THAWING) for each in packs)
    longest = timedelta(seconds=max(wave_bytes, default=0) / rate.bytes_per_second)
    offered, asked_days, most = [], {}, {}
    for each in Tier:
        places = [one.by(each) for one in packs]
        wanted = needs(places, now)
        # What is thawed or thaws for others may be gone before it is read, and has to be asked for like the rest.
        archived = longest_thaw(prices, each, places, (PackState.COLD, PackState.THAWING, PackState.THAWED))
        asked_days[each] = days or thaw.days(archived, longest)
        looks = thaw.looks(longest_thaw(prices, each, places)) * a_look(frozen, keys)
        terms = Terms(
            days=asked_days[each], asked=now, looks=looks, via=config.restore.via,
            bytes_per_second=rate.bytes_per_second, rate_origin=rate.origin, region=config.repository.region or "",
        )  # fmt: skip
        offered.append(quote(wanted, each, prices, terms))
        more = thaw.MORE_LOOKS * a_look(frozen, keys)
        worst = replace(terms, days=asked_days[each] + 1, asked=None, looks=(looks + more) * max(1, len(wave_bytes)))
        most[each] = quote(wanted, each, prices, worst).amount
    considered = [each for each in offered if not tier or each.tier == tier]
    choice = choose(considered, budget=budget, deadline=deadline)
    rejected = dict(choice.rejected) | {
        each.tier: "another tier was asked for" for each in offered if tier and each.tier != tier
    }
    return Quoted(
        quotes=tuple(offered), chosen=choice.quote, reason=choice.reason, rejected=rejected, days=asked_days, most=most
    )
