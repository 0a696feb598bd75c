"""What an interrupted run left is taken over only where it is whole."""

from __future__ import annotations

import pytest

from gateway.errors import StoreError
from tests.flow.gateways import Gateway
from tests.flow.trees import tree


def interrupted(gateway: Gateway, faults: str) -> None:
    gateway.source.noise("a", 700_000)
    gateway.store.faults.add(faults)
    with pytest.raises(StoreError):
        gateway.ingest()
    gateway.store.faults.clear()
    gateway.close()


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("place", ["packs/instant/", "packs/meta/"])
@pytest.mark.parametrize("what", ["gone", "changed"])
def test_a_pack_that_was_stored_and_is_not_any_more(gateway: Gateway, place: str, what: str, cached: bool) -> None:
    interrupted(gateway, "put@/log/:1+=denied")
    key = gateway.keys(place)[0]
    data = bytearray(gateway.lose(key))
    if what == "changed":
        data[len(data) // 2] ^= 1
        gateway.put_back(key, bytes(data))
    if not cached:
        for path in (gateway.config.state.directory / "cache").rglob("*-*"):
            path.unlink()
    gateway.made()
    assert gateway.restored() == tree(gateway.source.root)


def test_a_pack_that_rots_before_it_is_sent(gateway: Gateway) -> None:
    interrupted(gateway, "put@packs/:1+=denied,start:1+=denied")
    packs = [path for path in (gateway.config.state.directory / "cache").rglob("*-*") if path.is_file()]
    for path in packs:
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 1
        path.write_bytes(data)
    assert packs
    gateway.made()
    assert gateway.restored() == tree(gateway.source.root)
