"""What a restore costs and takes, and which tier is chosen; a price that is missing is never zero."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.prices import Item, PriceList, Tier, Via, find_prices
from gateway.policy.prices import (
    EXPEDITED_BYTES,
    Need,
    PackState,
    Quote,
    Terms,
    choose,
    hours,
    money,
    quote,
    quotes,
)

GIB = 1024**3
TIB = 1024 * GIB
PACK = 256 * 1024**2
HOUR = timedelta(hours=1)
FAST = Terms(bytes_per_second=GIB, via=Via.REGION, region="us-east-1")


def prices() -> PriceList:
    found = find_prices(None, "us-east-1")
    assert found is not None
    return found


def need(storage: str = "DEEP_ARCHIVE", state: PackState = PackState.COLD, **more: object) -> Need:
    """1 TiB in packs of 256 MiB, all of it read."""
    facts = {"packs": 4096, "bytes": TIB, "fetched_bytes": TIB, "requests": 4096, "largest_bytes": PACK}
    return Need(storage_class=storage, state=state, **(facts | more))  # type: ignore[arg-type]


def amounts(given_quote: Quote) -> dict[str, Decimal | None]:
    return {f"{each.what}, {each.unit}": each.amount for each in given_quote.figures}


def test_a_terabyte_from_deep_archive() -> None:
    bulk, standard, expedited = quotes([need()], prices(), FAST)
    assert [bulk.tier, standard.tier, expedited.tier] == list(Tier)
    assert amounts(standard) == {
        "thawing from DEEP_ARCHIVE, standard, GB": Decimal("20.48"),
        "thawing from DEEP_ARCHIVE, standard, 1,000 requests": Decimal("0.4096"),
        "reading from DEEP_ARCHIVE, 1,000 requests": Decimal("0.0016384"),
        "keeping thawed copies for 3 days, GB-months": Decimal("2.3552"),
        "sending by region, GB": Decimal(0),
    }
    assert standard.amount == Decimal("23.2464384")
    assert bulk.amount == Decimal("2.56") + Decimal("0.1024") + Decimal("0.0016384") + Decimal("2.3552")
    assert (standard.packs, standard.thawed_bytes, standard.fetched_bytes, standard.requests) == (4096, TIB, TIB, 4096)
    assert standard.time == 12 * HOUR + timedelta(seconds=4096 / 300) + timedelta(seconds=1024)
    assert bulk.time == standard.time + 36 * HOUR
    assert standard.unavailable == bulk.unavailable == ""
    assert expedited.unavailable == "DEEP_ARCHIVE has no expedited retrieval"
    assert expedited.amount is None
    assert expedited.time is None
    for figure in standard.figures:
        assert figure.origin.startswith("us-east-1, 2026-11-22, ")
    assert [each.what for each in standard.durations] == [
        "asking for thaws", "thawing from DEEP_ARCHIVE, standard", "fetching",
    ]  # fmt: skip
    assert all(each.origin for each in standard.durations)
    assert standard.cautions == ("the price of sending by region was not checked",)


def test_what_is_free_is_free_and_not_missing() -> None:
    bulk = quote([need("GLACIER")], Tier.BULK, prices(), FAST)
    assert amounts(bulk)["thawing from GLACIER, bulk, GB"] == 0
    assert bulk.missing == ()


def test_where_packs_are_decides_what_is_paid() -> None:
    instant = quote([need("GLACIER_IR", PackState.READABLE)], Tier.BULK, prices(), FAST)
    assert amounts(instant) == {
        "retrieving from GLACIER_IR, GB": Decimal("30.72"),
        "reading from GLACIER_IR, 1,000 requests": Decimal("0.04096"),
        "sending by region, GB": Decimal(0),
    }
    assert (instant.packs, instant.thawed_bytes) == (0, 0)
    cached = quote([need("GLACIER_IR", PackState.CACHED)], Tier.BULK, prices(), Terms())
    assert (cached.figures, cached.durations, cached.amount, cached.time) == ((), (), Decimal(0), timedelta())
    thawed = quote([need(state=PackState.THAWED)], Tier.EXPEDITED, prices(), FAST)
    assert thawed.unavailable == ""
    assert list(amounts(thawed)) == ["reading from DEEP_ARCHIVE, 1,000 requests", "sending by region, GB"]
    thawing = quote([need(state=PackState.THAWING, ready_in=2 * HOUR)], Tier.EXPEDITED, prices(), FAST)
    # Whoever asked for a thaw pays for it and for its copy.
    assert "keeping thawed copies for 3 days, GB-months" not in amounts(thawing)
    assert thawing.time == 2 * HOUR + timedelta(seconds=1024)
    unknown = quote([need(state=PackState.THAWING)], Tier.EXPEDITED, prices(), FAST)
    assert unknown.time == 48 * HOUR + timedelta(seconds=1024)


def test_more_is_thawed_than_is_read() -> None:
    some = quote(
        [need(fetched_bytes=GIB, requests=9000)], Tier.BULK, prices(), replace(FAST, via=Via.INTERNET, days=30)
    )
    assert amounts(some) == {
        "thawing from DEEP_ARCHIVE, bulk, GB": Decimal("2.56"),
        "thawing from DEEP_ARCHIVE, bulk, 1,000 requests": Decimal("0.1024"),
        "reading from DEEP_ARCHIVE, 1,000 requests": Decimal("0.0036"),
        "keeping thawed copies for 30 days, GB-months": Decimal("23.552"),
        "sending by internet, GB": Decimal("0.09"),
    }


def test_the_slowest_of_several_classes_counts() -> None:
    mixed = quote([need("GLACIER"), need(), need("STANDARD", PackState.READABLE)], Tier.STANDARD, prices(), FAST)
    assert mixed.time == 12 * HOUR + timedelta(seconds=8192 / 300) + timedelta(seconds=3072)
    assert (mixed.packs, mixed.requests) == (8192, 12288)


def test_a_missing_price_is_said_and_never_zero() -> None:
    whole = prices()
    without = replace(whole, prices=tuple(each for each in whole.prices if each.item is not Item.THAW))
    lacking = quote([need()], Tier.BULK, without, FAST)
    assert lacking.amount is None
    assert lacking.missing == (
        "thawing from DEEP_ARCHIVE, bulk: the price list of us-east-1 has no thaw-gb of DEEP_ARCHIVE, bulk",
    )
    assert lacking.known_amount > 0
    nothing = quote([need()], Tier.BULK, None, replace(FAST, region="eu-x-1"))
    assert nothing.amount is None
    assert nothing.currency == ""
    assert all(each.amount is None and each.price is None for each in nothing.figures)
    assert nothing.figures[0].origin == 'there is no price list for region "eu-x-1"; prices.file names one'
    assert nothing.figures[0].quantity == 1024, "sizes and hours are known all the same"
    assert nothing.time is not None
    unknown = quote([need()], Tier.BULK, None, Terms())
    assert unknown.figures[0].origin == "there is no price list while the region is not known; prices.file names one"
    assert unknown.time is None
    assert unknown.missing[-1] == "fetching: the way from the store was not measured"


def test_expedited_says_what_it_is_not_made_for() -> None:
    many = quote([need("GLACIER", largest_bytes=EXPEDITED_BYTES + 1)], Tier.EXPEDITED, prices(), FAST)
    assert many.cautions[-2:] == (
        "packs above 250 MB take longer than 5 minutes",
        "4,096 packs are more than expedited retrieval is meant for; S3 may refuse some of them",
    )
    few = quote([need("GLACIER", packs=3, largest_bytes=EXPEDITED_BYTES)], Tier.EXPEDITED, prices(), FAST)
    assert few.cautions == ("the price of sending by region was not checked",)


def test_budget_and_deadline_choose() -> None:
    offered = quotes([need("GLACIER")], prices(), FAST)
    free = choose(offered)
    assert free.quote is not None
    assert (free.quote.tier, free.reason) == (Tier.BULK, "bulk: it is the cheapest")
    assert free.rejected == ((Tier.STANDARD, "it is not cheaper"), (Tier.EXPEDITED, "it is not cheaper"))
    soon = choose(offered, deadline=6 * HOUR)
    assert soon.quote is not None
    assert (soon.quote.tier, soon.reason) == (Tier.STANDARD, "standard: it is the cheapest that fits")
    assert soon.rejected[0] == (Tier.BULK, "it takes up to 12 h 18 min, and has 6 h")
    now = choose(offered, deadline=HOUR)
    assert now.quote is not None
    assert (now.quote.tier, now.reason) == (Tier.EXPEDITED, "expedited: it is the only one that fits")
    none = choose(offered, deadline=HOUR, budget=Decimal(20))
    assert none.quote is None
    assert none.reason == (
        "no retrieval fits: bulk: it takes up to 12 h 18 min, and has 1 h; standard: it takes up to 5 h 18 min, and "
        "has 1 h; expedited: it costs 74.04 USD, over the budget of 20.00"
    )
    assert choose([]).reason == "no retrieval fits: nothing was offered"


def test_without_a_price_only_a_restore_without_a_budget_goes_on() -> None:
    offered = quotes([need("GLACIER")], None, FAST)
    slow = choose(offered, deadline=6 * HOUR)
    assert slow.quote is not None
    assert slow.reason == (
        "standard: it is the slowest that is in time, and slower ones are not dearer; its price is not known"
    )
    none = choose(offered, budget=Decimal(1_000_000))
    assert none.quote is None
    assert "its price is not known (thawing from GLACIER, bulk: there is no price list for region" in none.reason
    slow_way = choose(quotes([need("GLACIER")], prices(), Terms()), deadline=HOUR)
    assert "how long it takes is not known" in slow_way.reason
    whole = prices()
    partly = replace(whole, prices=tuple(each for each in whole.prices if each.tier is not Tier.STANDARD))
    assert "the price of a faster one is not known" in choose(quotes([need("GLACIER")], partly, FAST)).reason
    dear = choose(quotes([need("GLACIER", fetched_bytes=TIB)], partly, FAST), budget=Decimal(2))
    assert "at least 2.36 USD, over the budget" in dict(dear.rejected)[Tier.STANDARD]


def test_nothing_cold_is_the_same_by_every_tier() -> None:
    offered = quotes([need("STANDARD", PackState.READABLE)], prices(), FAST)
    assert len({(each.amount, each.time) for each in offered}) == 1
    assert choose(offered, budget=Decimal(1)).quote is not None
    dear = choose(quotes([need("STANDARD", PackState.READABLE)], prices(), replace(FAST, via=Via.INTERNET)),
                  budget=Decimal(1))  # fmt: skip
    assert dear.reason == "no retrieval fits: it costs 92.17 USD, over the budget of 1.00"
    unpriced = choose(quotes([need("STANDARD", PackState.READABLE)], None, FAST))
    assert unpriced.reason == "bulk: nothing has to be asked for, so that all tiers cost the same"


@pytest.mark.parametrize("state", [PackState.THAWING, PackState.THAWED, PackState.CACHED])
def test_where_nothing_is_asked_for_the_slowest_tier_is_ready_for_what_is(state: PackState) -> None:
    """Copies go before they are read: what costs nothing now may have to be asked for."""
    offered = quotes([need("GLACIER", state)], prices(), FAST)
    chosen = choose(offered).quote
    assert chosen is not None
    assert chosen.tier is Tier.BULK
    asked_for = choose([each for each in offered if each.tier is Tier.STANDARD]).quote
    assert asked_for is not None
    assert asked_for.tier is Tier.STANDARD


def test_values_hold_their_invariants() -> None:
    for storage, state in (
        ("GLACIER", PackState.READABLE), ("STANDARD", PackState.COLD), ("GLACIER_IR", PackState.THAWED),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            need(storage, state)
    with pytest.raises(ValueError):
        need(packs=-1)
    for wrong in ({"days": 0}, {"bytes_per_second": -1}, {"requests_per_second": 0}):
        with pytest.raises(ValueError):
            Terms(**wrong)


def test_words_round_up() -> None:
    assert money(Decimal("1234.561"), "USD") == "1,234.57 USD"
    assert money(Decimal(0), "") == "0.00"
    assert [hours(each) for each in (timedelta(), timedelta(seconds=1), HOUR, 90 * HOUR / 60, 50 * HOUR)] == [
        "0 min", "1 min", "1 h", "1 h 30 min", "50 h",
    ]  # fmt: skip


sizes = st.integers(0, 10 * TIB)
classes_and_states = st.one_of(
    st.tuples(
        st.sampled_from(["GLACIER", "DEEP_ARCHIVE"]),
        st.sampled_from([PackState.COLD, PackState.THAWING, PackState.THAWED, PackState.CACHED]),
    ),
    st.tuples(
        st.sampled_from(["STANDARD", "STANDARD_IA", "GLACIER_IR"]),
        st.sampled_from([PackState.READABLE, PackState.CACHED]),
    ),
)
needs_of_any_kind = st.lists(
    st.builds(
        lambda where, packs, size, fetched, requests: need(
            *where, packs=packs, bytes=size, fetched_bytes=fetched, requests=requests
        ),
        classes_and_states, st.integers(1, 5000), sizes, sizes, st.integers(0, 9000),
    ),
    max_size=4,
)  # fmt: skip


@given(needs_of_any_kind, st.sampled_from(Tier), st.integers(0, 25), st.booleans())
def test_a_sum_is_known_exactly_when_all_its_parts_are(
    needs: list[Need],
    tier: Tier,
    dropped: int,
    some: bool,
) -> None:
    whole = prices()
    lacking = replace(whole, prices=whole.prices[:dropped] + whole.prices[dropped + 1 :])
    made = quote(needs, tier, lacking if some else whole, FAST)
    assert (made.amount is None) == any(each.amount is None for each in made.figures)
    assert all(each.origin for each in made.figures)
    if made.amount is not None:
        assert made.amount == made.known_amount == sum(each.amount or Decimal(0) for each in made.figures)
    if not made.unavailable and not some:
        assert made.missing == (), "the list that comes with the gateway is complete"
    if made.amount is None and not made.unavailable:
        assert made.missing


@given(needs_of_any_kind)
def test_a_faster_tier_is_never_cheaper(needs: list[Need]) -> None:
    """What a choice without prices relies on."""
    known = [each for each in quotes(needs, prices(), FAST) if not each.unavailable]
    costs = [each.known_amount for each in known]
    assert costs == sorted(costs)
    times = [each.time or timedelta() for each in known]
    assert times == sorted(times, reverse=True)


@given(needs_of_any_kind, st.none() | st.integers(0, 500), st.none() | st.integers(0, 60))
def test_what_is_chosen_keeps_both_limits(needs: list[Need], budget: int | None, limit: int | None) -> None:
    offered = quotes(needs, prices(), FAST)
    money_limit = Decimal(budget) if budget is not None else None
    deadline = limit * HOUR if limit is not None else None
    choice = choose(offered, budget=money_limit, deadline=deadline)
    fitting = [
        each for each in offered
        if not each.unavailable and each.amount is not None and each.time is not None
        and (money_limit is None or each.amount <= money_limit) and (deadline is None or each.time <= deadline)
    ]  # fmt: skip
    assert (choice.quote is None) == (not fitting)
    if choice.quote is not None:
        assert choice.quote in fitting
        assert choice.quote.amount == min(each.amount for each in fitting if each.amount is not None)
    assert {tier for tier, _ in choice.rejected} == set(Tier) - ({choice.quote.tier} if choice.quote else set())
