"""A closed chain of which nothing changed is not opened again, and whatever changes of it is noticed at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from gateway.api import Reference
from gateway.catalog import ChainState, GenerationState, PackState
from gateway.jobs import closed
from gateway.store.meter import Operation
from tests.flow.gateways import KIB, Gateway

CLOSED = 3


@pytest.fixture
def grown(gateway: Gateway) -> Gateway:
    """Three closed chains and an open one, as an engine that runs knows them."""
    gateway.checked = gateway.healthy = False
    for number in range(CLOSED + 1):
        gateway.source.noise(f"{number}", 30 * KIB)
        gateway.made(new_chain=number > 0)
    new_generation(gateway)
    return gateway


def new_generation(gateway: Gateway) -> None:
    gateway.source.noise("often", KIB)
    gateway.clock.advance(timedelta(minutes=1))
    gateway.made()


def asked(gateway: Gateway, act: Callable[[Gateway], object]) -> dict[Operation, list[str]]:
    """What the store was asked about closed chains meanwhile."""
    begin = len(gateway.store.log())
    act(gateway)
    found: dict[Operation, list[str]] = {}
    for record in gateway.store.log()[begin:]:
        if any(f"/src/{number:06d}/" in record.key for number in range(1, CLOSED + 1)):
            assert isinstance(record.what, Operation)
            found.setdefault(record.what, []).append(record.key)
    return found


def states(gateway: Gateway) -> list[GenerationState]:
    return [row.state for row in gateway.engine.hold().catalog.generations("src")]


def test_a_generation_asks_only_which_packs_closed_chains_have(grown: Gateway) -> None:
    found = asked(grown, new_generation)
    assert set(found) == {Operation.LIST}
    assert all(key.startswith("packs/") for key in found[Operation.LIST])
    grown.open()
    assert set(asked(grown, new_generation)) > {Operation.LIST}, "who begins anew opens them once"
    assert set(asked(grown, new_generation)) == {Operation.LIST}


def test_a_missing_pack_is_noticed(grown: Gateway) -> None:
    key = next(key for key in grown.keys("packs/") if "/src/000002/" in key and "/meta/" not in key)
    data = grown.lose(key)
    new_generation(grown)
    assert states(grown)[1] is GenerationState.INCOMPLETE
    catalog = grown.engine.hold().catalog
    assert [row.state for row in catalog.damaged_packs("src")] == [PackState.DAMAGED]
    assert [each.kind for each in catalog.alarms()] == ["damaged-pack"]
    new_generation(grown)
    assert states(grown)[1] is GenerationState.INCOMPLETE
    grown.put_back(key, data)
    new_generation(grown)
    assert states(grown)[1] is GenerationState.PROTECTED


@pytest.mark.parametrize("what", ["header", "wraps/", "log/"])
def test_a_missing_object_is_noticed_and_so_is_that_it_came_back(grown: Gateway, what: str) -> None:
    keys = [key for key in grown.keys("chains/src/000002/") if f"000002/{what}" in key]
    assert keys
    data = {key: grown.lose(key) for key in keys}
    context = grown.engine.hold()
    begin = len(grown.store.log())
    new_generation(grown)
    records = grown.store.log()[begin:]
    assert any(each.what is Operation.GET and "src/000002/" in each.key for each in records), "it was opened"
    for key in keys:
        grown.put_back(key, data[key])
    new_generation(grown)
    rows = {row.chain.number: row.state for row in context.catalog.chains()}
    assert rows[2] is ChainState.CLOSED
    assert states(grown)[1] is GenerationState.PROTECTED


def test_what_another_machine_writes_is_noticed(grown: Gateway) -> None:
    elsewhere = grown.elsewhere("other")
    engine = grown.open(elsewhere)
    engine.rebuild()
    engine.hold_generation(Reference.parse("src@2"), reason="audit", operator="ada")
    grown.close(elsewhere.state.directory)
    new_generation(grown)
    assert [row.why for row in grown.engine.hold().catalog.holds()] == ["audit"]


def test_a_catalog_that_others_changed_is_recorded_anew(grown: Gateway) -> None:
    context = grown.engine.hold()
    name = context.catalog.chains()[1].chain
    context.catalog.remove_chain(name)
    new_generation(grown)
    assert context.catalog.chain(name) is not None


def test_only_so_many_are_kept_open(grown: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed, "MOST_KEPT", 9)
    grown.open()
    new_generation(grown)
    found = asked(grown, new_generation)
    opened = {key.split("/")[2] for key in found[Operation.GET]}
    assert 0 < len(opened) < CLOSED


def test_one_that_is_forgotten_makes_room_for_others(grown: Gateway) -> None:
    context = grown.engine.hold()
    known = len(context.closed._known)
    assert known == CLOSED
    context.forget(context.catalog.chains()[0].chain)
    assert len(context.closed._known) == known - 1
