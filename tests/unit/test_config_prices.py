"""Price lists: what is read, every mistake with its place, and what comes with the gateway."""

from __future__ import annotations

import tomllib
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.config.classes import COLD, MINIMUM_DAYS
from gateway.config.prices import (
    BY,
    DEFAULT_TIMES,
    SHIPPED,
    Item,
    Price,
    ThawTime,
    Tier,
    Via,
    find_prices,
    load_prices,
    parse_prices,
    thaw_time,
)
from gateway.errors import ConfigError, UsageError

ROOT = Path(__file__).parents[2]
HEAD = '[list]\nregion = "r"\ndate = "2026-11-22"\n'
"""What follows begins in line 4."""
PRICE = '[[price]]\nitem = "get-1000"\nclass = "GLACIER"\namount = "0.1"\nsource = "s"\n'


def mistakes(text: str, *, head: str = HEAD) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_prices((head + text).encode(), Path("p.toml"))
    return caught.value.mistakes


def test_every_key_is_read() -> None:
    text = """[list]
region = "eu-x-1"
date = 2026-11-22
currency = "EUR"
[[price]]
item = "thaw-gb"
class = "DEEP_ARCHIVE"
tier = "bulk"
amount = "0.0025"
source = "contract"
[[price]]
item = "egress-gb"
via = "direct-connect"
amount = 0.02
source = "phone"
checked = false
[[time]]
class = "DEEP_ARCHIVE"
tier = "bulk"
at_most = "30 h"
source = "seen"
"""
    found = parse_prices(text.encode(), Path("/p.toml"))
    assert (found.region, found.date, found.currency, found.file) == (
        "eu-x-1", date(2026, 11, 22), "EUR", Path("/p.toml"),
    )  # fmt: skip
    thaw = Price(
        item=Item.THAW, storage_class="DEEP_ARCHIVE", tier=Tier.BULK, amount=Decimal("0.0025"), source="contract"
    )
    egress = Price(item=Item.EGRESS, via=Via.DIRECT_CONNECT, amount=Decimal("0.02"), source="phone", checked=False)
    assert found.prices == (thaw, egress)
    assert found.price(Item.THAW, storage_class="DEEP_ARCHIVE", tier=Tier.BULK) == thaw
    assert found.price(Item.THAW, storage_class="DEEP_ARCHIVE", tier=Tier.STANDARD) is None
    assert found.price(Item.EGRESS, via=Via.DIRECT_CONNECT) == egress
    own = ThawTime(storage_class="DEEP_ARCHIVE", tier=Tier.BULK, at_most=timedelta(hours=30), source="seen")
    assert thaw_time(found, "DEEP_ARCHIVE", Tier.BULK) == own
    assert thaw_time(found, "DEEP_ARCHIVE", Tier.STANDARD) in DEFAULT_TIMES
    assert thaw_time(None, "DEEP_ARCHIVE", Tier.EXPEDITED) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[price]]\nclass = 'GLACIER'", "4:1: price[1].item: is missing"),
        (PRICE.replace("get-1000", "get-100"), '5:1: price[1].item: "get-100" is not known; did you mean "get-1000"?'),
        (PRICE.replace("get-1000", "x"), '"x" is not known; there are storage-gb-month, get-1000'),
        (PRICE.replace("GLACIER", "GLACIERS"), '6:1: price[1].class: "GLACIERS" is not a storage class'),
        (PRICE.replace('class = "GLACIER"\n', ""), 'price[1].class: is missing: prices of "get-1000" differ by class'),
        (PRICE + "tier = 'bulk'", '9:1: price[1].tier: does not belong here: prices of "get-1000" differ by class'),
        (PRICE.replace("get-1000", "thaw-gb"), 'tier: is missing: prices of "thaw-gb" differ by class and tier'),
        (PRICE.replace("get-1000", "egress-gb"), 'price[1].via: is missing: prices of "egress-gb" differ by via'),
        (PRICE.replace('"0.1"', '"-0.1"'), "7:1: price[1].amount: must be an amount of money"),
        (PRICE.replace('"0.1"', '"1 USD"'), "7:1: price[1].amount: must be an amount of money"),
        (PRICE.replace('"0.1"', "nan"), "7:1: price[1].amount: must be an amount of money"),
        (PRICE.replace('"0.1"', "true"), "7:1: price[1].amount: must be an amount of money"),
        (PRICE.replace('amount = "0.1"\n', ""), "4:1: price[1].amount: is missing"),
        (PRICE.replace('source = "s"\n', ""), "4:1: price[1].source: is missing"),
        (PRICE + "checked = 'no'", "9:1: price[1].checked: must be true or false"),
        (PRICE + "amuont = 1", '9:1: price[1].amuont: unknown key; did you mean "amount"?'),
        (PRICE * 2, "10:1: price[2].item: the same price stands in line 5"),
        ("[[time]]\nclass = 'GLACIER'\ntier = 'bulk'\nsource = 's'", "4:1: time[1].at_most: is missing"),
        ("[[time]]\nclass = 'GLACIER'\ntier = 'b'\nat_most = '1 h'\nsource = 's'", '6:1: time[1].tier: "b" is not'),
        ("[[time]]\nclass = 'GLACIER'\ntier = 'bulk'\nat_most = '1 m'\nsource = 's'", 'did you mean "1 min"?'),
        ("[[prize]]\n", "4:1: prize: unknown table; did you mean [[price]]?"),
        ("[price]\n", "4:1: price: must be an array of tables: [[price]]"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(text: str, expected: str) -> None:
    found = mistakes(text)
    assert any(expected in each for each in found), found
    assert all(each.startswith("p.toml:") for each in found)


def test_the_head_must_be_there() -> None:
    assert mistakes("", head="") == ("p.toml:1:1: list: the table [list] is missing",)
    assert mistakes("", head="[list]\ndate = '22.11.2026'\n") == (
        "p.toml:1:1: list.region: is missing",
        'p.toml:2:1: list.date: must be a day: "2026-11-22"',
    )
    assert mistakes("", head="[list")[0].startswith("p.toml:1:")


def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load_prices(tmp_path / "none.toml")
    with pytest.raises(UsageError):
        find_prices(tmp_path / "none.toml", "us-east-1")
    (tmp_path / "big").write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load_prices(tmp_path / "big")


def test_a_file_of_ones_own_comes_first_and_a_region_without_a_list_has_none(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(HEAD + PRICE)
    found = find_prices(own, "us-east-1")
    assert found is not None
    assert found.region == "r"
    assert find_prices(None, "moon-1") is None
    assert find_prices(None, None) is None


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.toml")), ids=lambda file: file.stem)
def test_what_comes_with_the_gateway_is_complete(file: Path) -> None:
    found = load_prices(file)
    assert found.region == file.stem
    keys = {each.key for each in found.prices}
    hot = [each for each in MINIMUM_DAYS if each not in COLD]
    for item, by in BY.items():
        storages = hot if item is Item.RETRIEVAL else sorted(COLD) if "tier" in by else list(MINIMUM_DAYS)
        for storage in storages if "class" in by else [""]:
            for tier in Tier if "tier" in by else [None]:
                for via in Via if "via" in by else [None]:
                    possible = tier is None or thaw_time(None, storage, tier) is not None
                    assert ((item, storage, tier, via) in keys) == possible, (item, storage, tier, via)
    assert all(each.source for each in found.prices)


def test_it_is_packaged() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["package-data"]["gateway.config"] == ["price_lists/*.toml"]
    assert list(SHIPPED.glob("*.toml"))
    assert SHIPPED.parent.name == "config"
