"""Price lists: what a store asks for reading and thawing, as data with a date and a source for every figure.

A figure that a list does not have is not known; nothing here or in `gateway.policy.prices` takes it for zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from gateway.config.classes import MINIMUM_DAYS
from gateway.config.load import LIMIT_FILE_BYTES, parse_document
from gateway.config.parsers import text
from gateway.config.reading import Document, Table
from gateway.config.units import MAX_DURATION
from gateway.config.values import Via, nearest
from gateway.errors import ConfigError, UsageError

E = TypeVar("E", bound=StrEnum)

SHIPPED = Path(__file__).parent / "price_lists"
"""One file a region, named after it."""
DEFAULT_CURRENCY = "USD"


class Item(StrEnum):
    """What a price is for. A GB has 1024³ bytes, as AWS bills; a month has 30 days."""

    STORAGE = "storage-gb-month"
    GET = "get-1000"
    LIST = "list-1000"
    RETRIEVAL = "retrieval-gb"
    THAW = "thaw-gb"
    THAW_REQUESTS = "thaw-1000"
    EGRESS = "egress-gb"


class Tier(StrEnum):
    """How fast a thaw is, the slowest first."""

    BULK = "bulk"
    STANDARD = "standard"
    EXPEDITED = "expedited"


BY = {
    Item.STORAGE: ("class",),
    Item.GET: ("class",),
    Item.LIST: (),
    Item.RETRIEVAL: ("class",),
    Item.THAW: ("class", "tier"),
    Item.THAW_REQUESTS: ("class", "tier"),
    Item.EGRESS: ("via",),
}
"""The keys by which the prices of an item differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """`checked`: somebody compared the figure with its source on the list's date."""

    item: Item
    amount: Decimal
    source: str
    storage_class: str = ""
    tier: Tier | None = None
    via: Via | None = None
    checked: bool = True

    @property
    def key(self) -> tuple[Item, str, Tier | None, Via | None]:
        return self.item, self.storage_class, self.tier, self.via


@dataclass(frozen=True, slots=True, kw_only=True)
class ThawTime:
    """How long a thaw takes at most, for objects of up to 250 MB where it is expedited."""

    storage_class: str
    tier: Tier
    at_most: timedelta
    source: str


_GUIDE = 'S3 User Guide, "Understanding archive retrieval options"'
DEFAULT_TIMES = tuple(
    ThawTime(storage_class=storage, tier=tier, at_most=at_most, source=_GUIDE)
    for storage, tier, at_most in (
        ("GLACIER", Tier.EXPEDITED, timedelta(minutes=5)),
        ("GLACIER", Tier.STANDARD, timedelta(hours=5)),
        ("GLACIER", Tier.BULK, timedelta(hours=12)),
        ("DEEP_ARCHIVE", Tier.STANDARD, timedelta(hours=12)),
        ("DEEP_ARCHIVE", Tier.BULK, timedelta(hours=48)),
    )
)
"""The same in all regions; DEEP_ARCHIVE has no expedited retrieval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """`date`: when the figures were looked up. `times`: in place of those of `DEFAULT_TIMES` for the same class and
    tier. `file`: where the list stands.
    """

    region: str
    date: date
    currency: str
    prices: tuple[Price, ...]
    times: tuple[ThawTime, ...] = ()
    file: Path | None = None

    def price(
        self, item: Item, *, storage_class: str = "", tier: Tier | None = None, via: Via | None = None
    ) -> Price | None:
        """None: the list does not have it."""
        wanted = item, storage_class, tier, via
        return next((each for each in self.prices if each.key == wanted), None)


def thaw_time(prices: PriceList | None, storage_class: str, tier: Tier) -> ThawTime | None:
    """None: there is no such retrieval."""
    times = (*(prices.times if prices is not None else ()), *DEFAULT_TIMES)
    return next((each for each in times if (each.storage_class, each.tier) == (storage_class, tier)), None)


def find_prices(file: Path | None, region: str | None) -> PriceList | None:
    """The list in `file`; without one that of the region which comes with the gateway; None: there is none.

    Raises as `load_prices`.
    """
    if file is not None:
        return load_prices(file)
    shipped = {each.stem: each for each in SHIPPED.glob("*.toml")}
    return load_prices(shipped[region]) if region in shipped else None


def load_prices(file: Path) -> PriceList:
    """Read a price list. `ConfigError` carries all its mistakes; `UsageError`: it is not there or cannot be read."""
    try:
        with file.open("rb") as stream:
            data = stream.read(LIMIT_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"The price list {file} cannot be read: {error.strerror or error}.",
            meaning="Without it no quote has a price.",
            advice="Correct prices.file in the configuration; without it the list that comes with the gateway is used.",
        ) from error
    if len(data) > LIMIT_FILE_BYTES:
        raise ConfigError((f"{file}:1:1: the file is larger than 1 MiB and surely not a price list",))
    return parse_prices(data, file)


def parse_prices(data: bytes, file: Path = Path("prices.toml")) -> PriceList:
    """Make a `PriceList` of a file's bytes; `file` is only the name in messages and in `PriceList.file`."""
    document = parse_document(data, file, tables=("list", "price", "time"), arrays=("price", "time"))
    document.check_tables()
    result = _list(document)
    document.raise_mistakes()
    return result


def _list(document: Document) -> PriceList:
    head = document.table("list", required=True)
    region = head.require("region", text, placeholder="")
    day = head.require("date", _date, placeholder=date.min)
    currency = head.take("currency", text, DEFAULT_CURRENCY)
    head.finish()
    prices = _prices(document.tables_of("price"))
    times = _times(document.tables_of("time"))
    return PriceList(region=region, date=day, currency=currency, prices=prices, times=times, file=document.file)


def _prices(tables: Sequence[Table]) -> tuple[Price, ...]:
    found: list[Price] = []
    lines: dict[object, int] = {}
    for table in tables:
        item = table.require("item", _member(Item), placeholder=None)
        by = BY[item] if item is not None else ("class", "tier", "via")
        for key in ("class", "tier", "via"):
            if item is not None and table.has(key) != (key in by):
                wrong = "is missing" if key in by else "does not belong here"
                table.mistake(key, f'{wrong}: prices of "{item}" differ by {" and ".join(by)}')
        storage = table.take("class", _storage, "") if "class" in by else ""
        tier = table.take("tier", _member(Tier), None) if "tier" in by else None
        via = table.take("via", _member(Via), None) if "via" in by else None
        amount = table.require("amount", _amount, placeholder=Decimal(0))
        source = table.require("source", text, placeholder="")
        checked = table.take("checked", _flag, default=True)
        for key in {"class", "tier", "via"} - set(by):
            table.known(key)
        table.finish()
        if item is None:
            continue
        price = Price(
            item=item, storage_class=storage, tier=tier, via=via, amount=amount, source=source, checked=checked
        )  # fmt: skip
        if price.key in lines:
            table.mistake("item", f"the same price stands in line {lines[price.key]}")
        lines.setdefault(price.key, table.position("item").line)
        found.append(price)
    return tuple(found)


def _times(tables: Sequence[Table]) -> tuple[ThawTime, ...]:
    found: list[ThawTime] = []
    for table in tables:
        storage = table.require("class", _storage, placeholder="")
        tier = table.require("tier", _member(Tier), placeholder=None)
        nothing = timedelta(0)
        at_most = table.duration("at_most", nothing, least=timedelta(minutes=1), most=MAX_DURATION)
        if not table.has("at_most"):
            table.mistake("at_most", "is missing")
        source = table.require("source", text, placeholder="")
        table.finish()
        if tier is not None:
            found.append(ThawTime(storage_class=storage, tier=tier, at_most=at_most, source=source))
    return tuple(found)


def _member(kind: type[E]) -> Callable[[object], E | None]:
    allowed = [str(each) for each in kind]

    def parse(value: object) -> E | None:
        called = text(value)
        if called in allowed:
            return kind(called)
        meant = nearest(called, allowed)
        hint = f'did you mean "{meant}"?' if meant else f"there are {', '.join(allowed)}"
        raise ValueError(f'"{called}" is not known; {hint}')

    return parse


def _storage(value: object) -> str:
    called = text(value)
    if called not in MINIMUM_DAYS:
        raise ValueError(f'"{called}" is not a storage class that packs go to; there are {", ".join(MINIMUM_DAYS)}')
    return called


def _amount(value: object) -> Decimal:
    wanted = 'must be an amount of money that is not negative, best as a text: "0.0025"'
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(wanted)
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        raise ValueError(wanted) from None
    if not amount.is_finite() or not 0 <= amount <= 1_000_000:
        raise ValueError(wanted)
    return amount


def _date(value: Any) -> date:
    if type(value) is date:
        return value
    try:
        return date.fromisoformat(text(value))
    except ValueError:
        raise ValueError('must be a day: "2026-11-22"') from None


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value
