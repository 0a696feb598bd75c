"""A chain whose key is gone protects nothing."""

from __future__ import annotations

import pytest

from tests.flow.gateways import Gateway


@pytest.mark.parametrize("verb", ["verify", "ingest"])
def test_nothing_is_protected_by_a_chain_without_its_key(gateway: Gateway, verb: str) -> None:
    gateway.source.noise("a", 1000)
    gateway.made()
    wraps = [*gateway.keys("chains/src/000001/wraps/"), *gateway.keys("keys/src-000001-")]
    lost = {key: gateway.lose(key) for key in wraps if not key.endswith("header")}
    gateway.open()
    if verb == "verify":
        assert gateway.verify()
    else:
        assert gateway.made().chain == "src/000002"
    first = gateway.engine.generations()[0]
    assert (first.number, str(first.state)) == (1, "incomplete")
    assert "cannot be opened" in first.reason
    for key, data in lost.items():
        gateway.put_back(key, data)
    assert not gateway.verify()
    assert str(gateway.engine.generations()[0].state) == "protected"
