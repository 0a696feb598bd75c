"""Bursts of errors, lost answers, wrong bytes: ridden out, looked up, named."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.api import Depth, Reference
from gateway.config.values import CacheConfig
from gateway.errors import Corrupt, IntegrityError, StoreDenied
from gateway.repository.chain import Chain
from tests.flow.gateways import KIB, Gateway
from tests.flow.trees import tree


def fill(gateway: Gateway) -> None:
    gateway.source.noise("a/large", 700_000)
    gateway.source.noise("b/middle", 50_000)
    for number in range(40):
        gateway.source.noise(f"c/{number}", 100)


@pytest.mark.parametrize("fault", ["503", "timeout", "409"])
def test_bursts_are_ridden_out(gateway: Gateway, fault: str) -> None:
    fill(gateway)
    calls = ["put", "start", "part", "complete"] + (["get", "head", "list", "parts"] if fault != "409" else [])
    gateway.store.faults.add(",".join(f"{call}:2-5={fault}" for call in calls))
    gateway.made()
    assert gateway.restored() == tree(gateway.source.root)
    assert len(gateway.keys("chains/src/000001/log/")) == 1


LOST = [
    "put@/header:1", "put@-header:1", "put@keys/:2", "put@/wraps/:1", "put@packs/meta/:1", "put@packs/instant/:1",
    "put@/index/:1", "put@/log/:1", "start:1", "part:1", "part:3", "complete:1",
]  # fmt: skip


@pytest.mark.parametrize("fault", ["lost", "timeout"])
@pytest.mark.parametrize("call", LOST)
def test_an_answer_that_is_lost_doubles_nothing(gateway: Gateway, call: str, fault: str) -> None:
    fill(gateway)
    gateway.store.faults.add(f"{call}={fault}")
    gateway.made()
    gateway.store.faults.clear()
    (one,) = gateway.engine.generations()
    assert one.number == 1
    assert len(gateway.keys("chains/src/000001/log/")) == 1
    declared = {pack.id for pack in gateway.engine.show(Reference.parse("src")).packs}
    assert {key.rpartition("-")[2] for key in gateway.keys("packs/")} == declared


@pytest.mark.parametrize("call", ["put@/log/:1+", "put@packs/meta/:1+", "put@/index/:2+", "complete:1+", "part:3+"])
@pytest.mark.parametrize("fault", ["lost", "timeout", "503"])
def test_an_outage_in_the_middle_is_gone_on_from(gateway: Gateway, call: str, fault: str) -> None:
    """The store is away for longer than anybody retries; what it has done meanwhile is found afterwards."""
    fill(gateway)
    script = f"{call}={fault}"
    if fault == "lost":
        script += ",head:1+=503,get@/log/:1+=503"  # it cannot be looked at either
    gateway.store.faults.add(script)
    with pytest.raises(Exception, match="Scripted fault") as caught:
        gateway.ingest()
    assert caught.value.exit_code == 14  # type: ignore[attr-defined]
    gateway.store.faults.clear()
    gateway.open()
    gateway.ingest()
    (one,) = gateway.engine.generations()
    assert (one.number, one.state) == (1, "protected")
    assert gateway.restored() == tree(gateway.source.root)


def test_a_store_that_denies_is_not_asked_twice(gateway: Gateway) -> None:
    fill(gateway)
    gateway.store.faults.add("part:2+=denied")
    slept = len(gateway.clock.slept)
    with pytest.raises(StoreDenied):
        gateway.ingest()
    assert sum(gateway.clock.slept[slept:]) == pytest.approx(5)  # the settle time, no retries
    assert not gateway.engine.generations()
    assert not gateway.keys("chains/src/000001/log/")


@pytest.mark.parametrize("call", ["put@packs/:1", "part:2", "put@packs/meta:1"])
def test_bytes_that_the_store_got_wrong_are_never_protected(gateway: Gateway, call: str) -> None:
    """The store says thank you and keeps something else."""
    fill(gateway)
    gateway.store.faults.add(f"{call}=flip")
    with pytest.raises(Corrupt):
        gateway.ingest()
    assert not gateway.engine.generations()
    # They are sent again, and not believed to be there.
    gateway.made()
    assert gateway.restored() == tree(gateway.source.root)


def test_bytes_changed_on_the_way_back_are_never_restored(gateway: Gateway) -> None:
    # One worker: where the one wrong bit of an answer falls depends on what lies beside what.
    gateway.config = replace(gateway.config, limits=replace(gateway.config.limits, workers=1))
    fill(gateway)
    gateway.made()
    gateway.lose_state()
    gateway.store.faults.add("get@packs/instant/:*=flip")
    target, report = gateway.restore(check=False)
    assert {left.path for left in report.left_out} >= {b"a/large", b"b/middle"}
    assert all("discarded" in left.reason for left in report.left_out)
    whole = tree(gateway.source.root)
    found = tree(target)
    assert not any(found[path].data for path in found if found[path].kind == "file" and found[path] != whole[path])
    gateway.store.faults.clear()
    gateway.restore(to=target, overwrite=True)
    assert tree(target) == whole


def test_a_single_wrong_answer_harms_one_file(gateway: Gateway) -> None:
    fill(gateway)
    gateway.made()
    gateway.lose_state()
    gateway.store.faults.add("get@packs/instant/:1=flip")
    target, report = gateway.restore(check=False)
    assert report.left_out
    whole = tree(gateway.source.root)
    for path, node in tree(target).items():
        assert node == whole[path]
    assert tree(target).keys() | {left.path for left in report.left_out} == whole.keys()


@pytest.mark.parametrize("what", ["/log/", "/index/", "packs/meta", "/header", "/wraps/", "slots/", "repository.json"])
def test_wrong_answers_are_an_error_and_never_a_wrong_catalog(gateway: Gateway, what: str) -> None:
    fill(gateway)
    gateway.made()
    gateway.source.noise("new", 1000)
    gateway.made()
    gateway.close()
    gateway.config = gateway.elsewhere()
    gateway.store.faults.add(f"get@{what}:*=flip")
    try:
        report = gateway.engine.rebuild()
    except IntegrityError:
        pass
    else:
        infos = gateway.engine.generations()
        assert report.problems or [info.number for info in infos] == [1, 2]
    gateway.store.faults.clear()
    gateway.open()
    assert not gateway.engine.rebuild().problems
    assert gateway.restored() == tree(gateway.source.root)


@pytest.mark.parametrize("place", ["packs/instant", "packs/meta"])
def test_a_pack_that_rots_is_found_and_stored_anew(gateway: Gateway, place: str) -> None:
    fill(gateway)
    gateway.made()
    key = gateway.keys(place)[0]
    whole = gateway.store.dump()[key]
    gateway.store.rot(key)
    assert gateway.verify(Depth.PRESENCE) == ()  # it is there, with its size
    problems = gateway.verify(Depth.DATA)
    assert any(problem.address.startswith(key) or key in problem.what for problem in problems)
    assert any("src@1" in problem.generations for problem in problems)
    (info,) = gateway.engine.generations()
    assert (info.state, "damaged" in info.reason) == ("incomplete", True)
    gateway.made()
    assert gateway.restored("src@2") == tree(gateway.source.root)
    # The first generation still needs the damaged pack; put back, it is good again.
    assert [info.state for info in gateway.engine.generations()] == ["incomplete", "protected"]
    gateway.put_back(key, whole)
    assert gateway.verify(Depth.STRUCTURE) == ()
    assert gateway.engine.generations()[0].state == "incomplete"
    assert gateway.verify(Depth.DATA) == ()
    assert [info.state for info in gateway.engine.generations()] == ["protected", "protected"]
    gateway.clock.advance(timedelta(days=1))
    assert gateway.restored("src@1") == gateway.restored("src@2")


@pytest.mark.parametrize("place", ["packs/instant", "packs/meta"])
def test_a_pack_that_is_gone_is_stored_anew(gateway: Gateway, place: str) -> None:
    fill(gateway)
    gateway.made()
    key = gateway.keys(place)[0]
    data = gateway.lose(key)
    (problem,) = [each for each in gateway.verify(Depth.PRESENCE) if each.address == key]
    assert (problem.kind, problem.generations) == ("missing", ("src@1",))
    assert gateway.engine.generations()[0].state == "incomplete"
    gateway.made()
    assert gateway.restored("src@2") == tree(gateway.source.root)
    gateway.put_back(key, data)
    assert gateway.verify(Depth.DATA) == ()
    assert [info.state for info in gateway.engine.generations()] == ["protected", "protected"]


@pytest.mark.parametrize("place", ["packs/instant", "packs/meta"])
def test_ingest_itself_notices_a_missing_pack(gateway: Gateway, place: str) -> None:
    """Nobody verified; nothing in the spool changed. What is missing is made good all the same."""
    fill(gateway)
    gateway.made()
    gateway.lose(gateway.keys(place)[0])
    gateway.healthy = False
    made = gateway.made()
    assert made.number == 2
    assert gateway.restored("src@2") == tree(gateway.source.root)
    assert [info.state for info in gateway.engine.generations()] == ["incomplete", "protected"]


def test_a_pack_lost_between_look_and_commit_is_noticed(gateway: Gateway) -> None:
    gateway.source.noise("old", 300 * KIB)
    gateway.made()
    key = gateway.keys("packs/instant")[0]
    gateway.source.noise("new", 300 * KIB)

    def lose(progress: object) -> None:
        if key in gateway.store.dump() and getattr(progress, "phase", "") == "uploading":
            gateway.lose(key)

    gateway.healthy = False
    made = gateway.made(progress=lose)
    assert key not in gateway.store.dump()
    assert gateway.restored(f"src@{made.number}") == tree(gateway.source.root)


@pytest.mark.timeout(120)
def test_packs_that_were_not_sent_hold_up_no_other_source(gateway: Gateway) -> None:
    """A run that the store refused leaves its packs in the cache, of an engine that goes on."""
    other = gateway.add_source("other")
    gateway.change(sizes={"pack_bytes": 64 * KIB, "part_bytes": 16 * KIB})
    gateway.config = replace(gateway.config, cache=CacheConfig(max_bytes=512 * KIB))
    gateway.source.noise("file", 1024 * KIB)
    other.noise("file", 1024 * KIB)
    gateway.store.faults.add("part:2+=denied")
    with pytest.raises(StoreDenied):
        gateway.ingest("src")
    gateway.store.faults.clear()
    assert gateway.made("other").state == "protected"
    assert gateway.made("src").state == "protected"
    assert gateway.restored("src") == tree(gateway.source.root)
    assert gateway.restored("other") == tree(other.root)


def test_a_listing_that_lacks_packs_once_makes_none_damaged(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(gateway)
    gateway.made()
    whole, asked = Chain.list_packs, list[Chain]()

    def once(self: Chain) -> dict[int, tuple[bytes, int]]:
        asked.append(self)
        return {} if len(asked) == 2 else whole(self)  # the first one is for the catalog

    monkeypatch.setattr(Chain, "list_packs", once)
    gateway.source.noise("d", 10_000)
    gateway.made()
    assert len(asked) > 2
    assert "pack.missing" not in gateway.events.names()
    assert gateway.verify() == ()
    gateway.prove_the_bucket_is_enough()
