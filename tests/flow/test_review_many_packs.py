"""A generation of any number of packs fits into entries."""

from __future__ import annotations

import pytest

from gateway.errors import StoreError
from gateway.repository import writer
from tests.flow.gateways import KIB, Gateway
from tests.flow.trees import tree


def entries(gateway: Gateway) -> int:
    return len(gateway.keys("chains/src/000001/log/"))


def test_more_packs_than_an_entry_holds(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "DECLARED", 3)
    gateway.source.noise("a", 1_500_000)  # 6 packs or 7, and that of the list
    gateway.made()
    assert entries(gateway) == 3
    assert [info.number for info in gateway.engine.generations()] == [1]
    assert gateway.restored() == tree(gateway.source.root)


@pytest.mark.parametrize("entry", [1, 2, 3])
def test_what_was_declared_before_a_cut_is_not_sent_again(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, entry: int
) -> None:
    monkeypatch.setattr(writer, "DECLARED", 3)
    gateway.source.noise("a", 1_500_000)
    gateway.store.faults.add(f"put@/log/:{entry}+=denied")
    with pytest.raises(StoreError):
        gateway.ingest()
    gateway.store.faults.clear()
    assert entries(gateway) == entry - 1
    gateway.open()
    before = gateway.store.meter()
    gateway.made()
    assert (gateway.store.meter() - before).total.sent < 100 * KIB
    assert gateway.restored() == tree(gateway.source.root)
