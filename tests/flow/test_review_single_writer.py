"""A store that ignores the condition of a put, and two gateways that should not both be there."""

from __future__ import annotations

from gateway.api import Reference
from tests.flow.gateways import Gateway, make_store
from tests.flow.trees import tree


def test_an_entry_of_another_gateway_is_not_overwritten(gateway: Gateway) -> None:
    gateway.checked = False
    gateway.store = make_store(gateway.clock, conditional_put=False)
    gateway.store.load(gateway.born.objects)
    gateway.source.noise("a", 1000)
    gateway.made()
    here, there = gateway.config, gateway.elsewhere("other")
    gateway.open(there).rebuild()
    gateway.source.noise("b", 1000)
    done: list[int] = []

    def meanwhile(progress: object) -> None:
        """The other one commits while this one settles."""
        if not done:
            done.append(1)
            gateway.engines[there.state.directory].ingest("src", seal_now=True, operator="bob")

    gateway.config = here
    assert gateway.ingest(progress=meanwhile).generation is None  # the other one has it already
    gateway.source.noise("c", 1000)
    gateway.made()
    assert [info.number for info in gateway.engine.generations()] == [1, 2, 3]
    assert gateway.engine.show(Reference.parse("src@2")).operator == "bob"
    assert gateway.restored("src@3") == tree(gateway.source.root)
    assert not gateway.verify()
