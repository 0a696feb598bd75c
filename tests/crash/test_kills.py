"""kill -9 before and after the first and the last time of every durable effect, and what follows.

An operator who gives the command again loses nothing and sends nothing twice: what was committed is whole at once, on
an empty machine (`checks.elsewhere`); after the second command both generations are there, nothing is left over, and
the bucket is enough (`checks.in_order`). `scripts/soak crash` does the same at every occurrence.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import points
from tests.crash.cases import STEPS, Prepared, kill_and_go_on
from tests.crash.forks import Forks
from tests.crash.machine import Kill

FAMILIES = (
    ("init",),
    ("first-parts", "second-parts", "recover", "first", "second", "roll", "lost"),
    ("rebuild", "aside"),
)
"""Runs that belong together: the first time of an effect is killed at in the first step that has it, the last time in
the last step of the first group, so that both generations have their share."""

# Where these happen in another way when packs are sent as whole files.
WHOLE = frozenset({"object:create", "object:fsync", "object:rename", "store:file", "store:index"})


def chosen() -> Iterator[tuple[str, str]]:
    """Name and steps, for each family."""
    for name, where in points.listed().items():
        for family in FAMILIES:
            steps = [step for step in family if step in where.split()]
            if steps:
                yield name, " ".join(steps)


def kills(prepared: Prepared, name: str, steps: list[str]) -> Iterator[tuple[str, Kill]]:
    parts = [step for step in steps if step in ("first-parts", "second-parts")] or steps[:1]
    places = [(parts[0], 1), (parts[-1], prepared.occurrences(parts[-1])[name])]
    if name in WHOLE and "second" in steps:
        places.append(("second", prepared.occurrences("second")[name] // 2 or 1))
    for step, occurrence in dict.fromkeys(places):
        for moment in ("before", "after"):
            yield step, Kill(moment=moment, name=name, occurrence=occurrence)


@pytest.mark.parametrize(("name", "steps"), list(chosen()))
def test_a_kill_at(quick: Path, prepared: Prepared, forks: Forks, name: str, steps: str) -> None:
    found = {
        f"{step}, {kill.moment} {name} no. {kill.occurrence}": kill_and_go_on(
            prepared, forks, quick / "case", step, kill
        )
        for step, kill in kills(prepared, name, steps.split())
    }
    assert not {where: problems for where, problems in found.items() if problems}
    assert set(steps.split()) <= STEPS.keys()
