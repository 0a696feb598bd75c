"""What lies on the gateway's own disk may rot; the store has the last word."""

from __future__ import annotations

from tests.flow.gateways import Gateway
from tests.flow.trees import tree


def test_a_rotten_cache_costs_reads_and_no_file(gateway: Gateway) -> None:
    gateway.source.noise("a", 100_000)
    gateway.made()
    packs = [path for path in (gateway.config.state.directory / "cache").rglob("*-*") if path.is_file()]
    for path in packs:
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 1
        path.write_bytes(data)
    assert len(packs) == 2
    gateway.open()
    assert gateway.restored() == tree(gateway.source.root)
    gateway.source.noise("b", 1000)
    gateway.made()
    assert gateway.restored() == tree(gateway.source.root)
