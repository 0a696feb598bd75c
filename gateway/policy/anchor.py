"""Which earlier generation large files are compressed against. Pure.

Compressed against the generation just before, every generation would add a level of deltas, and whoever restores
decodes them all. Compressed against one further back, the *anchor*, what changed since is stored again each time, but
one level serves many generations. An anchor is kept until deltas against it take twice what they took at first. The
generation after that *joins*: it stores anew all that deltas since the anchor have brought, and is the next anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GROWN = 2.0
"""Deltas that take so many times what the first ones against their anchor took ask for another anchor."""
LEAST = 1024 * 1024
"""Fewer raw bytes of deltas than this say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """A committed generation: raw bytes of its deltas, and what they took. `readable`: its list can still be read."""

    number: int
    delta_raw: int
    delta_stored: int
    readable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """What the next generation is compressed against, and whether it joins."""

    number: int
    joins: bool


def anchor(generations: Sequence[Reduced]) -> Anchor | None:
    """For the generation after these of one chain, ascending; None where there is none to compress against."""
    chosen: int | None = None
    first: float | None = None
    joins = False
    for each in generations:
        if chosen is None or joins:
            chosen, first, joins = each.number, None, False
            continue
        if each.delta_raw < LEAST:
            continue
        ratio = each.delta_stored / each.delta_raw
        first = first or ratio
        joins = ratio > GROWN * first
    number = next((each.number for each in generations if each.readable and each.number >= (chosen or 0)), None)
    return Anchor(number=number, joins=joins and number == chosen) if number is not None else None
