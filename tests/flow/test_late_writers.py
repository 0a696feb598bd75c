"""Entries and packs that a writer sends behind the end of a chain, which it has not seen, and what becomes of them when
it is killed there: nobody can open the chain any more."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import durable
from gateway.api import Progress
from gateway.format import log, names
from gateway.format.keys import ChainKeys
from gateway.format.log import End
from gateway.store.crc import crc64
from tests.flow.gateways import KIB, Gateway
from tests.flow.test_chains import cloned
from tests.flow.test_retention import DAY, ref
from tests.flow.test_sweep import FIRST, Killed, forced, hot, packs
from tests.flow.test_sweep_waits import kill, once, overcome
from tests.flow.trees import tree

ENDED = ["chains/src/000001/end", "chains/src/000001/header", "keys/src-000001-header"]


def left(gateway: Gateway) -> list[str]:
    """All there is of the first chain."""
    found = gateway.keys("chains/src/000001/") + gateway.keys("keys/src-000001-")
    return found + [key for key in packs(gateway) if "/src/000001/" in key]


def killed_late(gateway: Gateway, *, seen: bool) -> Gateway:
    """A clone that was killed behind its entry in an ended chain: before it had seen the end, as soon as the store had
    the entry, or after it.
    """
    clone, end = overcome(gateway)
    put, state = gateway.store.put, ["young"]

    def putting(key: str, *args: Any, **options: Any) -> Any:
        done = put(key, *args, **options)
        if not seen and state == ["ended"] and key.startswith("chains/src/000001/log/"):
            raise Killed
        return done

    def hook(moment: str, effect: str) -> None:
        if (moment, effect) == ("before", "store:expire") and state == ["young"]:
            state[0] = "ending"
            end()
            state[0] = "ended"
        elif state == ["ended"] and (moment, effect) == ("before", "store:ended-object"):
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway.store, "put", putting)
        durable.install_hook(hook)
        try:
            with pytest.raises(Killed):
                clone.engine.expire_generation(ref("src@1"))
        finally:
            durable.install_hook(None)
    clone.close()
    assert left(gateway) == [*ENDED[:2], "chains/src/000001/log/00000004", ENDED[2]]
    return clone


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("by", ["whoever ended it", "whoever sent it"])
def test_what_a_killed_writer_left_beside_an_end_is_taken_back(gateway: Gateway, by: str, seen: bool) -> None:
    """By both, so that it does not matter which of them is still there; and the next chain can end."""
    clone = killed_late(gateway, seen=seen)
    host = gateway if by == "whoever ended it" else clone
    before = left(gateway)
    assert host.engine.sweep(dry_run=True).problems == ()
    assert left(gateway) == before, "a dry run deletes nothing"
    assert host.engine.sweep().problems == ()
    assert left(gateway) == ENDED
    for each in (gateway, clone) if seen else (gateway,):  # who has seen no proof of an end goes on asking for it
        assert each.verify() == ()
        each.close()
    host.made(new_chain=True)
    forced(host)
    gateway.clock.advance(8 * DAY)
    assert host.engine.sweep().ended == ("src/000002",)
    assert host.restored("src") == tree(gateway.source.root)
    host.close()
    gateway.config = host.config


def test_a_third_host_waits_for_one_that_knows(gateway: Gateway) -> None:
    """It can prove nothing: to it, the wraps may have been lost. It deletes nothing, and says so."""
    clone = killed_late(gateway, seen=True)
    third = gateway.elsewhere()
    gateway.close()
    before = gateway.store.dump()
    engine = gateway.open(third)
    engine.rebuild()
    assert engine.verify().problems
    engine.sweep()
    assert gateway.store.dump().keys() >= before.keys()
    gateway.close()
    clone.engine.sweep()
    clone.close()
    engine = gateway.open(third)
    assert engine.verify().problems == ()
    gateway.close()


def test_packs_that_were_sent_behind_an_end_are_taken_back_by_their_sender(gateway: Gateway) -> None:
    """It was killed before it came to its entry."""
    hot(gateway)
    gateway.source.noise("own", 200 * KIB)
    clone, ended = cloned(gateway), list[str]()

    def meanwhile(progress: Progress) -> None:
        if progress.phase == "reading" and not ended:
            clone.made(new_chain=True)
            ended.extend(clone.engine.sweep().ended)
            clone.close()
            once("store:commit", kill)

    with pytest.raises(Killed):
        gateway.ingest(progress=meanwhile)
    durable.install_hook(None)
    assert ended == ["src/000001"]
    assert any(key.startswith("packs/hot/src/000001/") for key in left(gateway))
    gateway.open().sweep()
    assert left(gateway) == ENDED
    assert gateway.engine.hold().catalog.ledger(FIRST) == []
    gateway.source.noise("more", 10)
    gateway.made()
    assert gateway.restored("src") == tree(gateway.source.root)


def test_an_end_that_anybody_may_have_put_there_deletes_nothing(gateway: Gateway) -> None:
    """The wraps of a chain are lost, and beside its packs lies what looks like an end: that is damage."""
    gateway.checked = False  # what is lost here no rebuild brings back
    gateway.source.noise("own", 100 * KIB)
    gateway.made()
    keys = ChainKeys.of(b"x" * 32, gateway.engine.hold().repository.id)
    data = log.encode_end(End((), 1, b"d" * 32, 1, b"w" * 16), FIRST, keys, b"s" * 32)
    gateway.store.put(names.end(FIRST), data, crc64=crc64(data))
    for key in gateway.keys(names.wrap_prefix(FIRST)) + gateway.keys("keys/src-000001-"):
        if not key.endswith("header"):
            gateway.lose(key)
    gateway.source.noise("more", 100 * KIB)
    once("store:commit", kill)
    with pytest.raises(Killed):
        gateway.ingest()
    durable.install_hook(None)
    before = left(gateway)
    gateway.clock.advance(8 * DAY)
    gateway.open().sweep()
    assert left(gateway) == before
    assert any("src/000001" in each.address for each in gateway.verify())
