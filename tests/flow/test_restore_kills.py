"""A restore that waits for thaws, killed (`os._exit`) at every durable effect and every store call, and gone on with by
another process. CI has the first and the last of each, and every one of the few on which money depends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal

import pytest

from tests.crash import points
from tests.flow.cold_restores import Kill, Machine, freeze
from tests.flow.gateways import KIB, Gateway

pytestmark = [pytest.mark.usefixtures("long_waits"), pytest.mark.timeout(900)]

COSTLY = ("catalog:restore", "call:thaw")


def kills(machine: Machine) -> list[Kill]:
    """All there are, by a run without one."""
    counts = Counter(machine.watch.steps)
    return [Kill(moment, name, at) for (moment, name), count in counts.items() for at in range(1, count + 1)]


def some(found: list[Kill]) -> list[Kill]:
    last = {(kill.moment, kill.name): kill.occurrence for kill in found}
    return [e for e in found if e.occurrence in (1, last[e.moment, e.name]) or e.name in COSTLY]


def quoted(machine: Machine) -> tuple[Decimal, Decimal]:
    """The budget to go by, and what a plan itself costs."""
    machine.again()
    _, dry = machine.gateway.restore(dry_run=True)
    (offer,) = [each for each in dry.plan.tiers if each.tier == machine.restore["tier"]]
    return Decimal(str(offer.usd)) * Decimal("1.1"), machine.metered()


def attack(machine: Machine, choose: Callable[[list[Kill]], Iterable[Kill]] = some) -> tuple[list[str], list[Kill]]:
    budget, planning = quoted(machine)
    machine.restore["budget"] = budget
    machine.again()
    assert not machine.run(None)
    assert machine.wrong(machine.go_on(), budget, planning) == []
    wrong: list[str] = []
    chosen: list[Kill] = []
    for kill in choose(kills(machine)):
        chosen.append(kill)
        machine.again()
        while not machine.run(kill):  # threads met in another order
            assert kill.occurrence > 1, f"{kill} never came"
            kill = Kill(kill.moment, kill.name, kill.occurrence - 1)  # noqa: PLW2901
            machine.again()
        try:
            wrong += [f"{kill}: {each}" for each in machine.wrong(machine.go_on(), budget, 2 * planning)]
        except Exception as error:  # noqa: BLE001
            wrong.append(f"{kill}: {type(error).__name__}: {error}")
    return wrong, chosen


def test_killed_anywhere_and_gone_on(gateway: Gateway) -> None:
    freeze(gateway)
    wrong, chosen = attack(Machine(gateway, tier="standard"))
    assert wrong == []
    assert len(chosen) > 60


def test_killed_anywhere_in_waves(gateway: Gateway) -> None:
    """Each file is a wave of its own: what is thawed, fetched, written and dropped overlaps."""
    freeze(gateway, link=300 * KIB // (8 * 3600))
    machine = Machine(gateway, tier="standard")
    machine.again()
    assert gateway.restore(dry_run=True)[1].plan.waves == 2
    wrong, chosen = attack(machine)
    assert wrong == []
    met = {kill.name for kill in chosen}
    mine = {name for name, where in points.listed().items() if "tests/flow/test_restore_kills.py" in where}
    assert mine <= met | {"scratch-packs:share"}, "what is listed for these tests is killed at in them"
