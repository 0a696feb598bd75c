"""Prices as data: a table per region and date, read from TOML; the arithmetic is `gateway.store.bill`'s."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from importlib.resources import files
from typing import Any

from gateway.errors import UsageError
from gateway.store.port import ThawTier

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassPrices:
    """Of one storage class; the units are in `prices.toml`."""

    storage: Decimal
    put: Decimal
    get: Decimal
    transition: Decimal = ZERO
    retrieval: Decimal = ZERO
    minimum_days: int = 0
    smallest_bytes: int = 0
    archive_bytes: int = 0
    index_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ThawPrices:
    gb: Decimal
    requests: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """A price table. `thaws` is by class and tier, `egress` by the way out."""

    name: str
    as_of: date
    classes: Mapping[str, ClassPrices]
    thaws: Mapping[tuple[str, ThawTier], ThawPrices]
    egress: Mapping[str, Decimal]


def parse_prices(text: str) -> Prices:
    """`UsageError` for anything that is no price table."""
    try:
        table = tomllib.loads(text, parse_float=Decimal)
        return Prices(
            name=str(table["name"]),
            as_of=table["as_of"],
            classes={name: ClassPrices(**_exact(each)) for name, each in table["class"].items()},
            thaws={
                (name, ThawTier(tier)): ThawPrices(**_exact(each))
                for name, tiers in table["thaw"].items()
                for tier, each in tiers.items()
            },
            egress={way: Decimal(price) for way, price in table["egress"].items()},
        )
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"Not a table of prices: {error}.") from error


def default_prices() -> Prices:
    """The table that comes with the gateway."""
    return parse_prices(files("gateway.store").joinpath("prices.toml").read_text("utf-8"))


def _exact(values: Mapping[str, Any]) -> dict[str, Any]:
    """Money as decimals; counts of days and bytes stay whole."""
    return {name: value if name.endswith(("_days", "_bytes")) else Decimal(value) for name, value in values.items()}
