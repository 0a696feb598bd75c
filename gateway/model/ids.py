"""Ids and small values that every room uses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

GenerationId = NewType("GenerationId", bytes)
PackId = NewType("PackId", bytes)
WriterId = NewType("WriterId", bytes)

NAME = re.compile(r"[a-z0-9-]{1,32}")


def generation_text(generation: bytes) -> str:
    """How a generation's id is shown: ``g`` and 32 hexadecimal digits."""
    return "g" + generation.hex()


@dataclass(frozen=True, slots=True, order=True)
class ChainName:
    """A chain: its group (today: its source) and its number, counted from 1."""

    group: str
    number: int

    def __str__(self) -> str:
        return f"{self.group}/{self.number:06d}"


@dataclass(frozen=True, slots=True, order=True)
class Run:
    """`count` consecutive chunks of pack `pack`, from index `first` on."""

    pack: int
    first: int
    count: int


def flatten(runs: list[Run] | tuple[Run, ...]) -> list[int]:
    """Runs as the format writes them: ``[pack, first, count, ...]``."""
    return [number for run in runs for number in (run.pack, run.first, run.count)]


def ranges(numbers: list[int]) -> list[int]:
    """Ascending disjoint ranges ``[first, count, ...]`` of a list of numbers in any order."""
    out: list[int] = []
    for number in sorted(set(numbers)):
        if out and out[-2] + out[-1] == number:
            out[-1] += 1
        else:
            out += [number, 1]
    return out


def in_ranges(flat: list[int] | tuple[int, ...]) -> list[int]:
    """The numbers that flat ranges name, ascending."""
    return [n for first, count in zip(flat[::2], flat[1::2], strict=True) for n in range(first, first + count)]
