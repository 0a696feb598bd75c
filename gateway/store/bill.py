"""What a request log costs: the bill is computed from the log and a price table alone, by a second look at the rules.

It shares no code with the store that wrote the log, so that a mistake in one does not hide in the other. Rules:

* A request is billed unless it failed with 5xx; DELETE and aborts are free, listings cost a PUT of STANDARD.
* An upload into an archive class costs STANDARD until its completion, requests and parts; the completion costs the
  archive's price (S3 user guide, "Multipart upload and pricing"). Into other classes everything costs theirs.
* Storage is by the second, of at least `smallest_bytes`; archived objects have `archive_bytes` at their class's price
  and `index_bytes` at STANDARD's more.
* Who leaves a class before its minimum (deleted, overwritten, moved on) pays the rest of it at once.
* A thaw costs its request and its gigabytes when it is asked for; one that was hastened costs both requests, and its
  gigabytes in the faster tier. The copy costs STANDARD while it is readable. To extend it costs a request.

LIMIT: first price tier only; no tax, no free tier, no price of versions, tags, locks or replication.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from gateway.store.meter import Operation
from gateway.store.port import ThawTier
from gateway.store.prices import Prices
from gateway.store.record import Event, Record

GB = Decimal(1 << 30)
MONTH = timedelta(days=30)
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """`amount` is `quantity` times `price`, in the price table's currency, not rounded."""

    item: str
    storage_class: str
    quantity: Decimal
    unit: str
    price: Decimal

    @property
    def amount(self) -> Decimal:
        return self.quantity * self.price


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """`until`: what is stored is billed to there."""

    until: datetime
    lines: tuple[Line, ...]

    @property
    def total(self) -> Decimal:
        return sum((line.amount for line in self.lines), Decimal(0))

    def amount(self, item: str, storage_class: str = "") -> Decimal:
        """Of an item, in one class or in all."""
        return sum(
            (line.amount for line in self.lines if line.item == item and storage_class in ("", line.storage_class)),
            Decimal(0),
        )

    def quantity(self, item: str, storage_class: str = "") -> Decimal:
        return sum(
            (line.quantity for line in self.lines if line.item == item and storage_class in ("", line.storage_class)),
            Decimal(0),
        )


@dataclass(slots=True, kw_only=True)
class _Held:
    """An object, or a part of an open upload, from `since` in one class."""

    size: int
    storage_class: str
    since: datetime


@dataclass(slots=True, kw_only=True)
class _Copy:
    size: int
    storage_class: str
    tier: ThawTier
    ready: datetime
    until: datetime


@dataclass(slots=True)
class _Account:
    prices: Prices
    lines: dict[tuple[str, str, str, Decimal], Decimal] = field(default_factory=dict)
    objects: dict[str, _Held] = field(default_factory=dict)
    parts: dict[str, dict[int, _Held]] = field(default_factory=dict)
    copies: dict[str, _Copy] = field(default_factory=dict)

    def charge(self, item: str, storage_class: str, quantity: Decimal, unit: str, price: Decimal) -> None:
        if quantity:
            name = (item, storage_class, unit, price)
            self.lines[name] = self.lines.get(name, Decimal(0)) + quantity

    def request(self, item: str, storage_class: str, price: Decimal) -> None:
        self.charge(item, storage_class, Decimal(1) / 1000, "1000 requests", price)

    def stored(self, item: str, storage_class: str, size: int, price: Decimal, span: timedelta) -> None:
        if span > timedelta(0):
            months = Decimal(int(span.total_seconds())) / Decimal(int(MONTH.total_seconds()))
            self.charge(item, storage_class, size * months / GB, "GB-month", price)

    def leave(self, held: _Held | None, at: datetime, *, early: bool = True) -> None:
        """An object or part leaves its class."""
        if held is None:
            return
        facts = self.prices.classes[held.storage_class]
        size = max(held.size, facts.smallest_bytes) + facts.archive_bytes
        spent = at - held.since
        self.stored("storage", held.storage_class, size, facts.storage, spent)
        index_price = self.prices.classes["STANDARD"].storage
        self.stored("index", "STANDARD", facts.index_bytes, index_price, spent)
        if early:
            rest = timedelta(days=facts.minimum_days) - spent
            self.stored("early", held.storage_class, size, facts.storage, rest)

    def end_copy(self, key: str, at: datetime) -> None:
        copy = self.copies.pop(key, None)
        if copy is None:
            return
        rate = self.prices.thaws[copy.storage_class, copy.tier]
        self.charge(f"retrieval:{copy.tier}", copy.storage_class, Decimal(copy.size) / GB, "GB", rate.gb)
        span = min(copy.until, at) - copy.ready
        self.stored("copy", "STANDARD", copy.size, self.prices.classes["STANDARD"].storage, span)

    def arrive(self, record: Record) -> None:
        self.leave(self.objects.pop(record.key, None), record.at)
        self.end_copy(record.key, record.at)
        self.objects[record.key] = _Held(size=record.size, storage_class=record.storage_class, since=record.at)

    def drop_parts(self, upload_id: str, at: datetime) -> None:
        for part in self.parts.pop(upload_id, {}).values():
            self.leave(part, at, early=False)


def bill(log: Iterable[Record], prices: Prices, *, until: datetime, egress: str = "") -> Bill:
    """The bill of a log, what is still there billed to `until`. `egress`: the way out of `prices`; empty: none billed.

    `until` is not before the last record. What is there is not billed for the rest of its minimum, which nobody owes
    yet.
    """
    account = _Account(prices)
    for record in log:
        if record.status < 500:
            _request(account, record)
            _change(account, record)
            if egress:
                account.charge("egress", "", Decimal(record.received) / GB, "GB", prices.egress[egress])
    for held in account.objects.values():
        account.leave(held, until, early=False)
    for upload_id in list(account.parts):
        account.drop_parts(upload_id, until)
    for key in list(account.copies):
        account.end_copy(key, until)
    lines = [
        Line(item=item, storage_class=storage_class, quantity=quantity, unit=unit, price=price)
        for (item, storage_class, unit, price), quantity in account.lines.items()
    ]
    return Bill(until=until, lines=tuple(sorted(lines, key=lambda line: (line.item, line.storage_class, line.price))))


def _staged(storage_class: str) -> str:
    """The class that an open upload is billed in."""
    return "STANDARD" if storage_class in _ARCHIVES else storage_class


def _request(account: _Account, record: Record) -> None:
    """The price of being asked."""
    prices, of = account.prices, record.storage_class
    match record.what:
        case Operation.PUT | Operation.COMPLETE:
            account.request("request:put", of, prices.classes[of].put)
        case Operation.START | Operation.PART:
            staged = _staged(of)
            account.request("request:put", staged, prices.classes[staged].put)
        case Operation.LIST | Operation.UPLOADS | Operation.PARTS | Operation.NEWRULES:
            account.request("request:list", "STANDARD", prices.classes["STANDARD"].put)
        case Operation.GET | Operation.HEAD:
            account.request("request:get", of, prices.classes[of].get)
            if record.received and prices.classes[of].retrieval:
                account.charge("retrieval", of, Decimal(record.received) / GB, "GB", prices.classes[of].retrieval)
        case Operation.RULES:
            account.request("request:get", "STANDARD", prices.classes["STANDARD"].get)
        case Operation.THAW:
            rate = prices.thaws.get((of, record.tier)) if record.tier is not None else None
            if rate is not None:
                account.request(f"request:thaw:{record.tier}", of, rate.requests)
        case Event.TRANSITION:
            account.request("request:transition", of, prices.classes[of].transition)
        case _:
            return


def _change(account: _Account, record: Record) -> None:
    """What is stored from here on."""
    at, key = record.at, record.key
    match record.what:
        case Operation.PUT | Operation.COMPLETE | Event.GIVEN if record.status == 200:
            account.drop_parts(record.upload_id, at)
            account.arrive(record)
        case Operation.DELETE | Event.EXPIRY if record.status == 200:
            account.leave(account.objects.pop(key, None), at)
            account.end_copy(key, at)
        case Event.TRANSITION:
            account.arrive(record)
        case Operation.PART if record.status == 200:
            parts = account.parts.setdefault(record.upload_id, {})
            account.leave(parts.pop(record.number, None), at, early=False)
            parts[record.number] = _Held(size=record.size, storage_class=_staged(record.storage_class), since=at)
        case Operation.ABORT | Event.RULE_ABORT:
            account.drop_parts(record.upload_id, at)
        case Operation.THAW if record.status in (200, 202):
            _thaw(account, record)
        case _:
            return


def _thaw(account: _Account, record: Record) -> None:
    copy = account.copies.get(record.key)
    if record.tier is None or record.ready is None or record.until is None:
        raise ValueError(f"a thaw that does not say when: {record}")
    if copy is not None and record.status == 200:
        copy.until = record.until
    elif copy is not None and record.at < copy.ready:  # hastened
        copy.tier, copy.ready = record.tier, record.ready
    else:
        account.end_copy(record.key, record.at)
        account.copies[record.key] = _Copy(
            size=record.size, storage_class=record.storage_class, tier=record.tier, ready=record.ready,
            until=record.until,
        )  # fmt: skip
