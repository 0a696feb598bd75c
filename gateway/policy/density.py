"""Which packs of a chain are retired: nothing refers to them any more, and what is still used of them is stored anew
from the spool, so that old packs die whole. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SPARSE = 0.3
"""A pack of which the newest generation uses less is retired, unless it is small anyway."""
SMALL = 8 * 1024 * 1024
"""A pack of fewer bytes is small, or of less than a quarter of what a full one has: it costs requests, and at a restore
time, out of proportion.
"""
SMALL_AFTER_MS = 7 * 24 * 3600 * 1000
"""Small packs are left alone for so long."""
TOGETHER = 32
"""Small packs are retired as soon as there are so many of them, or as they make a pack that is not small any more:
each by itself would only become another small one.
"""
SHARE = 0.05
"""Of what a full would take: so much, at most, is stored anew in one generation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackUse:
    """A data pack of `size` bytes, `used` of them by the newest generation, bases included; `written`: ms. `is_base`:
    something in another pack stands on it; `joins`: it holds deltas that the next generation joins to its own.
    """

    number: int
    size: int
    used: int
    written: int
    is_base: bool = False
    joins: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    pack: int
    used: int
    reason: str


def budget(full: int) -> int:
    """Bytes that one generation may store anew; `full`: what it would take in a chain of its own."""
    return int(SHARE * full)


def to_retire(packs: Sequence[PackUse], *, now: int, full: int, full_pack: int) -> tuple[Retirement, ...]:
    """What the next generation retires, in the order of what it gives for a byte stored anew. `full`: see `budget`;
    `full_pack`: bytes at which a pack is finished.

    All of it together passes what one generation may store anew by one pack at most; who carries it out stops there,
    and a pack that was begun goes on with the generation after.
    """
    used, small_size = [each for each in packs if each.used], min(SMALL, full_pack // 4)
    large = [each for each in used if each.size >= small_size and not each.joins]
    sparse = sorted((each for each in large if each.used < SPARSE * each.size), key=lambda each: each.used / each.size)
    out = [
        Retirement(
            pack=each.number, used=each.used,
            reason=f"only {each.used / each.size:.0%} of it is used",
        )
        for each in sparse
    ]  # fmt: skip
    small = sorted(
        (
            each
            for each in used
            if each.size < small_size and now - each.written > SMALL_AFTER_MS and not (each.is_base or each.joins)
        ),
        key=lambda each: each.number,
    )
    if len(small) >= TOGETHER or sum(each.used for each in small) >= small_size:
        out += [
            Retirement(
                pack=each.number, used=each.used, reason=f"it is one of {len(small)} small ones that are a week old"
            )
            for each in small
        ]
    out += [
        Retirement(pack=each.number, used=each.used, reason="the next generation joins deltas")
        for each in used
        if each.joins
    ]
    left, chosen = budget(full), []
    for each in out:
        if left <= 0:
            break
        chosen.append(each)
        left -= each.used
    return tuple(chosen)
