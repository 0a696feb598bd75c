"""A restore job's ledger: what was used of priced things, and what that comes to."""

from __future__ import annotations

from decimal import Decimal

from gateway.config.prices import Item, Tier, find_prices
from gateway.config.values import Via
from gateway.jobs.spending import MONTH_SECONDS, Spent

GIB = 1 << 30


def test_every_thing_has_its_price() -> None:
    prices = find_prices(None, "us-east-1")
    assert prices is not None

    def price(item: Item, storage: str = "", tier: Tier | None = None, via: Via | None = None) -> Decimal:
        found = prices.price(item, storage_class=storage, tier=tier, via=via)
        assert found is not None
        return found.amount

    spent = Spent({})
    assert spent.amount(prices) == 0
    spent.asked("GLACIER", Tier.STANDARD, 2 * GIB, MONTH_SECONDS // 2)
    spent.thaw_requests("GLACIER", Tier.STANDARD, 3)
    assert spent.amount(prices) == (
        2 * price(Item.THAW, "GLACIER", Tier.STANDARD)
        + price(Item.STORAGE, "STANDARD")
        + 3 * price(Item.THAW_REQUESTS, "GLACIER", Tier.STANDARD) / 1000
    )
    before = spent.amount(prices)
    spent.looked(listings=2, heads=5, storage="GLACIER")
    spent.read("GLACIER", Via.INTERNET, 4, GIB)
    spent.read("GLACIER_IR", Via.INTERNET, 1, GIB)
    spent.stands(GIB, MONTH_SECONDS)
    assert before is not None
    assert spent.amount(prices) == (
        before
        + 2 * price(Item.LIST) / 1000
        + 9 * price(Item.GET, "GLACIER") / 1000
        + price(Item.GET, "GLACIER_IR") / 1000
        + price(Item.RETRIEVAL, "GLACIER_IR")
        + 2 * price(Item.EGRESS, via=Via.INTERNET)
        + price(Item.STORAGE, "STANDARD")
    )
    assert spent.requests == 3 + 2 + 9 + 1


def test_what_has_no_price_is_not_known() -> None:
    spent = Spent({})
    spent.looked(heads=1, storage="NO_SUCH_CLASS")
    assert spent.amount(find_prices(None, "us-east-1")) is None
    assert spent.amount(None) is None
    assert Spent({}).amount(None) == 0, "nothing costs nothing"


def test_counts_go_on_where_they_were() -> None:
    first = Spent({})
    first.looked(listings=1)
    second = Spent(first.counts)
    second.looked(listings=2)
    assert list(first.counts.values()) == [1], "a ledger is not written through to the row it came from"
    assert list(second.counts.values()) == [3]
