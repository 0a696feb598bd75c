"""A list that cannot be read is never referred to by the next one."""

from __future__ import annotations

from tests.flow.gateways import Gateway
from tests.flow.trees import tree


def test_a_rotten_list_is_stored_anew(gateway: Gateway) -> None:
    gateway.healthy = False
    for number in range(40):
        gateway.source.noise(f"f{number:02}", 3000)
    gateway.made()
    gateway.store.rot(gateway.keys("packs/meta/")[0])
    gateway.lose_state()  # and the pack cache with it
    gateway.source.noise("z", 1000)
    second = gateway.made()
    assert gateway.restored("src@2") == tree(gateway.source.root)
    gateway.verify()
    assert {info.number: str(info.state) for info in gateway.engine.generations()} == {1: "incomplete", 2: "protected"}
    assert second.chain == "src/000001"
