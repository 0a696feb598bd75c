"""What a restore job used of priced things so far, and what that comes to."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from gateway.config.classes import COLD, STANDARD
from gateway.config.prices import Item, PriceList, Tier
from gateway.config.values import Via
from gateway.policy.prices import GIB, MONTH_DAYS

MONTH_SECONDS = MONTH_DAYS * 86_400
_REQUESTS = (Item.GET, Item.LIST, Item.THAW_REQUESTS)


class Spent:
    """A count for each item, storage class and tier or way: requests, bytes, or bytes times seconds."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = dict(counts)

    def _add(self, item: Item, storage: str, by: str, quantity: int) -> None:
        key = f"{item}|{storage}|{by}"
        if quantity:
            self.counts[key] = self.counts.get(key, 0) + quantity

    def asked(self, storage: str, tier: Tier, size: int, kept_seconds: int) -> None:
        """A thaw that was begun."""
        self._add(Item.THAW, storage, tier, size)
        self.stands(size, kept_seconds)

    def stands(self, size: int, seconds: int) -> None:
        """A copy that stands so long, or so much longer."""
        self._add(Item.STORAGE, STANDARD, "", size * seconds)

    def thaw_requests(self, storage: str, tier: Tier, requests: int) -> None:
        self._add(Item.THAW_REQUESTS, storage, tier, requests)

    def looked(self, *, listings: int = 0, heads: int = 0, storage: str = STANDARD) -> None:
        self._add(Item.LIST, "", "", listings)
        self._add(Item.GET, storage, "", heads)

    def read(self, storage: str, via: Via, requests: int, size: int) -> None:
        self._add(Item.GET, storage, "", requests)
        if storage not in COLD:
            self._add(Item.RETRIEVAL, storage, "", size)
        self._add(Item.EGRESS, "", via, size)

    @property
    def requests(self) -> int:
        return sum(count for key, count in self.counts.items() if key.split("|")[0] in _REQUESTS)

    def amount(self, prices: PriceList | None) -> Decimal | None:
        """None: a price is not known."""
        total = Decimal(0)
        for key, count in self.counts.items():
            item, storage, by = key.split("|")
            tier = Tier(by) if item in (Item.THAW, Item.THAW_REQUESTS) else None
            via = Via(by) if item == Item.EGRESS else None
            found = prices.price(Item(item), storage_class=storage, tier=tier, via=via) if prices is not None else None
            if found is None:
                return None
            total += _units(Item(item), count) * found.amount
        return total


def _units(item: Item, count: int) -> Decimal:
    if item in _REQUESTS:
        return Decimal(count) / 1000
    if item is Item.STORAGE:
        return Decimal(count) / GIB / MONTH_SECONDS
    return Decimal(count) / GIB
