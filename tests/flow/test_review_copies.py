"""Where there are two copies, the store's refusal to give one does not hide the other."""

from __future__ import annotations

from tests.flow.gateways import Gateway
from tests.flow.trees import tree


def test_rotten_indexes_and_a_rotten_header_hide_nothing(gateway: Gateway) -> None:
    gateway.checked = False
    gateway.source.noise("a", 100_000)
    gateway.made()
    rotten = [*gateway.keys("chains/src/000001/index/"), "chains/src/000001/header"]
    for key in rotten:
        gateway.store.rot(key)
    gateway.lose_state()
    assert gateway.restored() == tree(gateway.source.root)
    gateway.source.noise("b", 1000)
    assert gateway.made().chain == "src/000001"
    assert gateway.restored() == tree(gateway.source.root)
    assert {problem.address for problem in gateway.verify()} == set(rotten)
