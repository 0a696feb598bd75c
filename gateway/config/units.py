"""Sizes and durations as people write them: ``"200 GiB"``, ``"5 min"``."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal

SIZE_UNITS = {
    "B": 1,
    **{f"{letter}iB": 1024 ** (i + 1) for i, letter in enumerate("KMGTP")},
    "kB": 1000,
    **{f"{letter}B": 1000 ** (i + 1) for i, letter in enumerate("KMGTP")},
}
DURATION_UNITS = {
    "s": timedelta(seconds=1),
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_MEANT = {
    "m": "min",
    "sec": "s",
    "second": "s",
    "seconds": "s",
    "minute": "min",
    "minutes": "min",
    "hour": "h",
}
_MEANT |= {"hours": "h", "hr": "h", "day": "d", "days": "d"}
_QUANTITY = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)[ \t]*([A-Za-z]*)")
_MONEY = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)[ \t]*(?:[A-Z]{3})?")
MAX_SIZE_BYTES = 2**62
MAX_DURATION = timedelta(days=36_525)


def parse_size(value: object) -> int:
    """Bytes. Takes an integer or a text; `ValueError` says what is wrong with it."""
    if isinstance(value, int) and not isinstance(value, bool):
        size = Decimal(value)
    elif isinstance(value, str):
        number, unit = _split(value, 'a size such as "200 GiB", "512 MiB" or a number of bytes')
        if unit not in SIZE_UNITS and unit:
            raise ValueError(_unknown_size_unit(value, unit))
        size = number * SIZE_UNITS[unit or "B"]
        if unit in ("", "B") and size != int(size):
            raise ValueError(f'"{value}" is not a whole number of bytes')
    else:
        raise ValueError('must be a size such as "200 GiB", "512 MiB" or a number of bytes')
    if not 0 <= size <= MAX_SIZE_BYTES:
        raise ValueError(f"{value} is out of range")
    return int(size)


def parse_duration(value: object) -> timedelta:
    """Takes a text with a unit; `ValueError` says what is wrong with it."""
    wanted = 'a duration such as "60 s", "5 min", "1 h" or "30 d"'
    if not isinstance(value, str):
        raise ValueError(f"must be {wanted}")
    number, unit = _split(value, wanted)
    if not unit:
        raise ValueError(f'"{value}" has no unit: write {wanted}')
    if unit not in DURATION_UNITS:
        meant = _MEANT.get(unit.lower())
        hint = f'did you mean "{number} {meant}"?' if meant else "the units are s, min, h, d"
        raise ValueError(f'unknown unit "{unit}" in "{value}" ({hint})')
    unit_seconds = int(DURATION_UNITS[unit].total_seconds())
    if number * unit_seconds > int(MAX_DURATION.total_seconds()):
        raise ValueError(f'"{value}" is out of range')
    return timedelta(microseconds=int(number * unit_seconds * 1_000_000))


def size_text(size: int) -> str:
    """``1.5 GiB``: binary units, one decimal."""
    if size < 1024:
        return f"{size} B"
    amount = float(size)
    for letter in "KMGTPE":
        amount /= 1024
        if amount < 1023.95 or letter == "E":
            return f"{amount:.1f} {letter}iB".replace(".0 ", " ")
    raise AssertionError("not reached")


def duration_text(duration: timedelta) -> str:
    """The largest unit in which the duration is a whole number: ``5 min``."""
    seconds = duration.total_seconds()
    for unit in reversed(DURATION_UNITS):
        count = seconds / DURATION_UNITS[unit].total_seconds()
        if count >= 1 and count == int(count):
            return f"{int(count)} {unit}"
    return f"{seconds:g} s"


def _split(value: str, wanted: str) -> tuple[Decimal, str]:
    found = _QUANTITY.fullmatch(value.strip())
    if not found:
        raise ValueError(f'"{value}" is not {wanted}')
    return Decimal(found[1]), found[2]


def _unknown_size_unit(value: str, unit: str) -> str:
    letter = unit[:1].upper()
    binary = f"{letter}iB"
    known = [name for name in SIZE_UNITS if name.lower() == unit.lower()]
    if known:
        hint = f'did you mean "{known[0]}"?'
    elif letter in "KMGTP":
        hint = f'did you mean "{binary}" (1024) or "{letter}B" (1000)?'
    else:
        hint = "the units are B, KiB, MiB, GiB, TiB, PiB and kB, MB, GB, TB, PB"
    return f'unknown unit "{unit}" in "{value}" ({hint})'


def parse_share(value: object) -> float:
    """``"85 %"`` as 0.85; `ValueError` says what is wrong with it."""
    found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,3})?)[ ]*%", value) if isinstance(value, str) else None
    if found is None or not 0 < float(found[1]) <= 100:
        raise ValueError('must be a share such as "85 %", above 0 and at most 100')
    return float(found[1]) / 100


def share_text(share: float) -> str:
    return f"{round(share * 100, 3):g} %"


def parse_money(value: object) -> Decimal:
    """An amount: ``25``, ``"25"`` or ``"25 USD"``; the currency is that of the price list and is not converted."""
    wanted = 'an amount such as 25 or "25.50 USD"'
    if isinstance(value, int | float) and not isinstance(value, bool):
        found = Decimal(str(value))
    elif isinstance(value, str) and (match := _MONEY.fullmatch(value.strip())):
        found = Decimal(match[1])
    else:
        raise ValueError(f"must be {wanted}")
    if not found.is_finite() or found < 0:
        raise ValueError(f"must be {wanted}, not below 0")
    return found
