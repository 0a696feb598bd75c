"""What verify finds has consequences, at every depth that can find it and in every chain."""

from __future__ import annotations

from gateway.api import Depth
from tests.flow.gateways import Gateway
from tests.flow.trees import tree


def states(gateway: Gateway) -> dict[int, str]:
    return {info.number: str(info.state) for info in gateway.engine.generations()}


def test_damage_in_a_closed_chain_is_remembered(gateway: Gateway) -> None:
    gateway.source.noise("a", 100_000)
    gateway.made()
    gateway.change(storage_class="hot")
    gateway.source.noise("b", 1000)
    gateway.made()
    pack = gateway.keys("packs/instant/src/000001/")[0]
    whole = gateway.store.dump()[pack]
    gateway.store.rot(pack)
    assert gateway.verify()
    assert states(gateway) == {1: "incomplete", 2: "protected"}
    gateway.open().rebuild()
    assert states(gateway) == {1: "incomplete", 2: "protected"}
    gateway.put_back(pack, whole)
    assert not gateway.verify()
    assert states(gateway) == {1: "protected", 2: "protected"}


def test_what_is_lost_of_a_closed_chain_shows_at_once(gateway: Gateway) -> None:
    gateway.source.noise("a", 100_000)
    gateway.made()
    gateway.change(storage_class="hot")
    gateway.source.noise("b", 1000)
    gateway.made()
    pack = gateway.keys("packs/instant/src/000001/")[0]
    data = gateway.lose(pack)
    assert gateway.verify(Depth.PRESENCE)
    assert states(gateway) == {1: "incomplete", 2: "protected"}
    gateway.put_back(pack, data)
    assert not gateway.verify()
    assert states(gateway) == {1: "protected", 2: "protected"}


def test_a_list_that_cannot_be_read_blames_its_pack(gateway: Gateway) -> None:
    gateway.healthy = False
    for number in range(40):
        gateway.source.noise(f"f{number:02}", 3000)
    gateway.made()
    gateway.store.rot(gateway.keys("packs/meta/")[0])
    assert gateway.verify(Depth.STRUCTURE)
    assert states(gateway) == {1: "incomplete"}
    gateway.made()
    assert states(gateway) == {1: "incomplete", 2: "protected"}
    assert gateway.restored("src@2") == tree(gateway.source.root)
