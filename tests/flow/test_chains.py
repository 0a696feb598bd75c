"""Chains follow each other, two machines write one log, and an older bucket is noticed."""

from __future__ import annotations

import copy
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from gateway.api import Head, Progress
from gateway.config.values import StateConfig, StorageClass
from gateway.model.ids import ChainName
from gateway.repository import chain
from gateway.repository.repository import Repository
from tests.flow.gateways import KIB, Gateway
from tests.flow.trees import tree


def entries(gateway: Gateway, chain: str = "src/000001") -> int:
    return len(gateway.keys(f"chains/{chain}/log/"))


# --- classes ---------------------------------------------------------------------------------------------------------


def test_another_class_opens_another_chain(gateway: Gateway) -> None:
    gateway.change(storage_class=StorageClass.HOT)
    gateway.source.noise("a", 200 * KIB)
    first = gateway.made()
    gateway.change(storage_class=StorageClass.INSTANT)
    assert gateway.ingest().generation is None  # no chain without something to put into it
    gateway.source.noise("b", 200 * KIB)
    report = gateway.ingest()
    second = report.generation
    assert second is not None
    assert (first.chain, first.storage_class, second.chain, second.storage_class) == (
        "src/000001", "hot", "src/000002", "instant",
    )  # fmt: skip
    assert (first.number, second.number, report.files_read) == (1, 2, 2)  # a full one
    assert entries(gateway) == 2  # a commit, and the end of it
    gateway.source.noise("c", 10)
    assert gateway.made().chain == "src/000002"
    assert entries(gateway) == 2
    assert gateway.keys("packs/hot/src/000001/")
    assert gateway.keys("packs/instant/src/000002/")
    whole = tree(gateway.source.root)
    assert gateway.restored("src@3") == whole
    assert gateway.restored("src@1")[b"a"] == whole[b"a"]
    assert gateway.diff("src@1", "src@3") == {b"b": "added", b"c": "added"}


def test_sources_do_not_mix(gateway: Gateway) -> None:
    other = gateway.add_source("other")
    gateway.source.noise("a", 200 * KIB)
    shutil.copy(gateway.source.path("a"), other.path("a"))
    other.noise("b", 10)
    reports = gateway.engine.ingest().sources
    assert [(each.source, each.generation.number if each.generation else 0) for each in reports] == [
        ("src", 1), ("other", 1),
    ]  # fmt: skip
    assert reports[0].new_bytes == 200 * KIB  # nothing refers across chains
    assert reports[1].new_bytes == 200 * KIB + 10
    assert gateway.restored("other") == tree(other.root)
    assert gateway.restored("src") == tree(gateway.source.root)
    assert [info.source for info in gateway.engine.generations("other")] == ["other"]


def test_one_source_that_fails_stops_no_other(gateway: Gateway) -> None:
    other = gateway.add_source("other")
    other.noise("b", 10)
    gateway.source.root.rmdir()
    first, second = gateway.engine.ingest().sources
    assert first.failure is not None
    assert (first.failure.kind, first.generation) == ("SourceError", None)
    assert second.generation is not None


# --- two machines ----------------------------------------------------------------------------------------------------


def cloned(gateway: Gateway) -> Gateway:
    """A second machine: a copy of the first one's state, on the same store and spool."""
    gateway.close()
    state = gateway.root / "state-clone"
    shutil.copytree(gateway.config.state.directory, state)
    other = copy.copy(gateway)
    other.config = replace(gateway.config, state=StateConfig(directory=state))
    other.engines = {}
    return other


def once(act: Callable[[], None], phase: str) -> Callable[[Progress], None]:
    done: list[bool] = []

    def callback(progress: Progress) -> None:
        if progress.phase == phase and not done:
            done.append(True)
            act()

    return callback


def test_two_machines_write_one_log(gateway: Gateway) -> None:
    gateway.source.noise("a", 100 * KIB)
    gateway.made()
    clone = cloned(gateway)
    gateway.source.noise("b", 100 * KIB)

    def meanwhile() -> None:
        assert clone.made().number == 2
        gateway.source.noise("c", 100 * KIB)

    # The clone commits while the first machine uploads; both do what they were asked to.
    third = gateway.made(progress=once(meanwhile, "uploading"))
    clone.close()
    assert third.number == 3
    assert entries(gateway) == 3
    assert any(event.name == "chain.foreign_writer" for event in gateway.events.events)
    whole = tree(gateway.source.root)
    assert gateway.restored("src@3") == whole
    second = gateway.restored("src@2")
    assert set(second) == {b"a", b"b"}
    assert second == {path: node for path, node in whole.items() if path in second}
    # The clone finds the log gone on, and goes on itself.
    gateway.source.noise("d", 10)
    assert clone.made().number == 4
    clone.close()
    assert gateway.ingest().generation is None


def test_a_machine_that_loses_every_race_gives_up(gateway: Gateway) -> None:
    from gateway.errors import Conflict

    gateway.source.noise("a", KIB)
    gateway.made()
    clone = cloned(gateway)
    gateway.source.noise("b", 100 * KIB)

    turn = threading.Lock()  # several threads send, and a machine is for one

    def always(progress: Progress) -> None:
        if progress.phase == "uploading":
            with turn:
                clone.ingest(seal_now=True)
                clone.close()
                gateway.source.noise(f"x{entries(gateway)}", 100 * KIB)

    with pytest.raises(Conflict):
        gateway.ingest(progress=always)
    clone.close()
    infos = gateway.open().generations()
    assert {str(info.state) for info in infos} == {"protected"}
    gateway.made()
    assert gateway.restored() == tree(gateway.source.root)


def test_two_machines_open_one_chain(gateway: Gateway) -> None:
    """Both want to be the first; one chain comes of it, or two that know of each other."""
    clone = cloned(gateway)
    gateway.source.noise("a", 100 * KIB)

    def meanwhile() -> None:
        clone.made()
        clone.close()

    report = gateway.ingest(progress=once(meanwhile, "settling"))
    infos = gateway.engine.generations()
    numbers = [info.number for info in infos]
    assert len(numbers) == len(set(numbers)) == 1 + (report.generation is not None)
    assert gateway.restored() == tree(gateway.source.root)


# --- an older bucket -------------------------------------------------------------------------------------------------


def rolled_back(gateway: Gateway) -> Head:
    """Three generations, and a bucket that knows one of them. Returns the head of the newest."""
    gateway.source.noise("a", 10 * KIB)
    gateway.made()
    old = gateway.store.dump()
    for name in ("b", "c"):
        gateway.source.noise(name, 10 * KIB)
        newest = gateway.made()
    gateway.close()
    gateway.store.load(old)
    gateway.checked = False  # this machine knows what an empty one cannot know
    return Head.parse(newest.head)


def test_an_older_bucket_is_noticed_by_who_remembers(gateway: Gateway) -> None:
    head = rolled_back(gateway)
    found = gateway.verify()
    assert any((each.kind, each.address) == ("rolled-back", "chains/src/000001/log/00000003") for each in found)
    report = gateway.engine.rebuild()
    assert "rolled-back" in {str(each.kind) for each in report.problems}
    # An empty machine remembers nothing, unless it is told.
    assert not gateway.lose_state().problems
    report = gateway.engine.rebuild(expect_heads=[head])
    assert [(str(each.kind), each.address) for each in report.problems] == [
        ("rolled-back", "chains/src/000001/log/00000003")
    ]
    assert report.generations == 1


def test_an_expected_head_that_is_there_is_no_problem(gateway: Gateway) -> None:
    gateway.source.noise("a", 10)
    first = gateway.made()
    gateway.source.noise("b", 10)
    gateway.made()
    gateway.lose_state()
    assert not gateway.engine.rebuild(expect_heads=[Head.parse(first.head)]).problems
    wrong = replace(Head.parse(first.head), digest="0" * 64)
    (problem,) = gateway.engine.rebuild(expect_heads=[wrong]).problems
    assert problem.kind == "rolled-back"
    gateway.lose_state()


def test_an_older_log_is_not_gone_on_from(gateway: Gateway) -> None:
    rolled_back(gateway)
    made = gateway.made()
    assert made.chain == "src/000002"
    assert entries(gateway) == 1
    assert any("rolled back" in str(event.fields.get("reason", "")) for event in gateway.events.events)
    assert gateway.restored() == tree(gateway.source.root)


def test_an_entry_that_is_gone_leaves_the_rest_restorable(gateway: Gateway) -> None:
    for name in ("a", "b", "c"):
        gateway.source.noise(name, 200 * KIB)
        gateway.made()
    third = gateway.restored("src@3")
    gateway.lose("chains/src/000001/log/00000002")
    report = gateway.lose_state()
    assert report.problems
    assert gateway.restored("src@1") == {path: third[path] for path in (b"a",)}
    assert gateway.restored("src@3", incomplete=True) == third
    gateway.source.noise("d", 10)
    made = gateway.made()
    assert made.chain == "src/000002"
    assert gateway.restored(f"src@{made.number}") == tree(gateway.source.root)
    gateway.healthy = False


def test_a_local_copy_that_rots_is_taken_from_the_store_again(gateway: Gateway) -> None:
    for name in ("a", "b", "c"):
        gateway.source.noise(name, 10)
        gateway.made()
    gateway.close()
    for number in (1, 3):
        copy = gateway.config.state.directory / "log" / "src" / "000001" / f"{number:08d}"
        data = bytearray(copy.read_bytes())
        data[300] ^= 1
        copy.write_bytes(data)
    gateway.source.noise("d", 10)
    assert gateway.made().chain == "src/000001"
    assert gateway.verify() == ()


def test_a_new_chain_on_request_holds_everything(gateway: Gateway) -> None:
    gateway.source.noise("a", 300_000)
    gateway.made()
    assert gateway.ingest().generation is None
    made = gateway.made(new_chain=True)
    assert (made.number, made.chain) == (2, "src/000002")
    assert made.stored_bytes > 300_000
    assert gateway.ingest().generation is None
    gateway.source.noise("b", 1000)
    assert gateway.made().chain == "src/000002"
    assert gateway.restored("src@1").keys() == {b"a"}
    assert gateway.restored() == tree(gateway.source.root)


def test_a_chain_that_is_born_while_it_is_looked_at_is_no_damage(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine puts the wraps of its key between our listing of them and our look at what else there is."""
    gateway.source.noise("a", 20 * KIB)
    gateway.made()
    listed, looks = chain.wrap_keys, list[ChainName]()

    def late(repository: Repository, name: ChainName) -> Iterator[tuple[str, bytes]]:
        looks.append(name)
        return iter(()) if len(looks) == 1 else listed(repository, name)

    monkeypatch.setattr(chain, "wrap_keys", late)
    gateway.open()
    assert gateway.engine.rebuild().problems == ()
    assert len(looks) == 2
