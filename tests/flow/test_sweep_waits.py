"""What waits to be swept is whole until it is condemned, an object's name alone condemns nothing, and nothing waits for
ever that nobody can go on with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway import durable
from gateway.api import Progress
from gateway.config.classes import BUILT_IN, ClassConfig
from gateway.errors import GatewayError, Overtaken, UsageError
from gateway.store.crc import crc64
from tests.flow.gateways import KIB, Gateway
from tests.flow.test_chains import cloned
from tests.flow.test_retention import DAY, ref, rules
from tests.flow.test_sweep import Killed, all_restore, forced, hot, packs, replaced
from tests.flow.trees import tree


def once(effect: str, act: Callable[[], object], moment: str = "before", at: int = 1) -> None:
    """Does something at the so-many-th durable effect of that name."""
    met: list[str] = []

    def hook(when: str, name: str) -> None:
        if (when, name) == (moment, effect):
            met.append(name)
            if len(met) == at:
                act()

    durable.install_hook(hook)


def months(gateway: Gateway) -> None:
    """Four times so long that whatever may go goes, each with a generation, an expiry and a sweep."""
    for _ in range(4):
        gateway.clock.advance(40 * DAY)
        gateway.source.noise("x", 20 * KIB)
        gateway.made()
        forced(gateway)
        gateway.engine.sweep()


def kill() -> None:
    raise Killed


def test_an_object_with_the_number_and_id_of_a_declared_pack_condemns_nothing(gateway: Gateway) -> None:
    """It lies under another class, as that of a machine cloned with its random numbers may, or of somebody else."""
    hot(gateway)
    wanted = replaced(gateway, 2)
    (mine, *_) = [key for key in packs(gateway) if key.startswith("packs/hot/")]
    gateway.store.put(mine.replace("packs/hot/", "packs/instant/"), b"x", crc64=crc64(b"x"))
    gateway.clock.advance(8 * DAY)
    for _ in range(2):
        assert gateway.engine.sweep().problems == ()
    assert mine in packs(gateway)
    assert mine.replace("packs/hot/", "packs/instant/") not in packs(gateway)
    all_restore(gateway, wanted)


def _stacked(gateway: Gateway) -> int:
    """Pack 3 stands on pack 1; the third generation needs pack 3 and none of the chunks that stand on pack 1."""
    gateway.source.noise("pages", 200 * KIB)
    gateway.made()
    gateway.source.overwrite("pages", 100, b"x" * 300)
    gateway.source.noise("fresh", 40 * KIB)
    gateway.made()
    gateway.source.path("pages").unlink()
    gateway.source.noise("more", 10 * KIB)
    number = gateway.made().number
    gateway.made(new_chain=True)
    return number


def test_what_waits_can_be_verified(gateway: Gateway) -> None:
    """One host, no race: a base goes while what stands on it waits for the ninety days it is billed for."""
    gateway.source.noise("pages", 200 * KIB)
    gateway.made()
    gateway.clock.advance(30 * DAY)
    gateway.source.overwrite("pages", 100, b"x" * 300)
    gateway.made()
    gateway.made(new_chain=True)
    for number in (1, 2):
        gateway.engine.expire_generation(ref(f"src@{number}"))
    gateway.clock.advance(61 * DAY)
    gateway.engine.sweep()
    assert gateway.verify() == ()


def test_what_is_held_in_time_is_whole(gateway: Gateway) -> None:
    """One host, no race: the base's generation expired five days before, so that the base goes first."""
    hot(gateway)
    third = _stacked(gateway)
    for number in (1, 2):
        gateway.engine.expire_generation(ref(f"src@{number}"))
    gateway.clock.advance(5 * DAY)
    gateway.engine.expire_generation(ref(f"src@{third}"))
    gateway.clock.advance(3 * DAY)
    gateway.engine.sweep()
    gateway.engine.hold_generation(ref(f"src@{third}"), reason="audit")
    assert gateway.verify() == ()
    assert all(str(each.state) == "protected" for each in gateway.engine.generations())


def test_a_hold_between_two_entries_of_a_condemn(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """They go downwards, so that nothing is condemned under what may still be kept again."""
    hot(gateway)
    rules(gateway, keep_last=1)
    third = _stacked(gateway)
    forced(gateway)
    gateway.clock.advance(8 * DAY)
    clone = cloned(gateway)
    monkeypatch.setattr("gateway.jobs.sweep.CONDEMNED", 1)
    refused: list[str] = []

    def hold() -> None:
        try:
            clone.engine.hold_generation(ref(f"src@{third}"), reason="audit")
        except UsageError as error:
            refused.append(str(error))
        finally:
            clone.close()

    once("store:condemn", hold, at=2)
    gateway.engine.sweep()
    durable.install_hook(None)
    assert "condemned" in refused[0]
    assert gateway.verify() == ()
    assert all(str(each.state) == "protected" for each in gateway.engine.generations())


def test_a_checkpoint_in_a_chain_that_was_left_goes(gateway: Gateway) -> None:
    hot(gateway)
    rules(gateway, keep_last=1)
    gateway.change(sizes={"checkpoint_packs": 1})
    for each in range(12):
        gateway.source.noise(f"f{each}", 200 * KIB)
    once("store:checkpoint", kill, "after")
    with pytest.raises(Killed):
        gateway.ingest()
    durable.install_hook(None)
    gateway.change(sizes={"checkpoint_packs": 4096})
    gateway.made(new_chain=True)
    months(gateway)
    assert not gateway.keys("packs/hot/src/000001")


def test_packs_of_a_run_that_was_cut_off_go_once_their_chain_is_closed(gateway: Gateway) -> None:
    """The ledger says for ever that the next generation declares them; no entry of a closed chain can."""
    hot(gateway)
    rules(gateway, keep_last=1)
    gateway.source.noise("a", 200 * KIB)
    gateway.made()
    gateway.source.noise("b", 200 * KIB)
    once("store:commit", kill)
    with pytest.raises(Killed):
        gateway.ingest()
    durable.install_hook(None)
    gateway.open()
    gateway.made(new_chain=True)
    months(gateway)
    assert not gateway.keys("packs/hot/src/000001")


def test_a_generation_is_not_committed_into_a_chain_that_ended(gateway: Gateway) -> None:
    """No time passes. Another host closes the young chain, opens the next one, and its sweep ends the first."""
    hot(gateway)
    gateway.source.noise("own", 200 * KIB)
    clone, ended = cloned(gateway), []

    def meanwhile(progress: Progress) -> None:
        if progress.phase == "reading" and not ended:
            ended.append("")
            clone.made(new_chain=True)
            ended.extend(clone.engine.sweep().ended)
            clone.close()

    report = gateway.ingest(progress=meanwhile)
    assert ended[1:] == ["src/000001"]
    assert gateway.keys("chains/src/000001/") == ["chains/src/000001/end", "chains/src/000001/header"]
    assert not [key for key in packs(gateway) if "/src/000001/" in key]
    assert report.generation is None or report.generation.chain == "src/000002"
    assert gateway.restored("src") == tree(gateway.source.root)
    assert gateway.verify() == ()


def test_two_sweeps_end_a_chain(gateway: Gateway) -> None:
    """The second one's `condemn` takes a number whose entry the first one has deleted."""
    hot(gateway)
    rules(gateway, keep_last=1)
    replaced(gateway, 2)
    gateway.made(new_chain=True)
    forced(gateway)
    gateway.clock.advance(8 * DAY)
    clone = cloned(gateway)

    def other() -> None:
        assert clone.engine.sweep().ended == ("src/000001",)
        clone.close()

    once("store:condemn", other)
    gateway.engine.sweep()
    durable.install_hook(None)
    assert gateway.keys("chains/src/000001/") == ["chains/src/000001/end", "chains/src/000001/header"]
    assert gateway.engine.sweep().problems == ()
    assert gateway.verify() == ()


def overcome(gateway: Gateway) -> tuple[Gateway, Callable[[], None]]:
    """A clone whose log of the first chain is young, and what lets the chain expire and end behind its back."""
    hot(gateway)
    rules(gateway, keep_last=1)
    replaced(gateway, 2)
    gateway.made(new_chain=True)
    clone = cloned(gateway)

    def end() -> None:
        forced(gateway)
        gateway.clock.advance(8 * DAY)
        assert gateway.engine.sweep().ended == ("src/000001",)
        gateway.close()

    return clone, end


@pytest.mark.parametrize("verb", ["expire", "hold", "retention"])
def test_whoever_meets_the_end_of_a_chain_knows_it_from_then_on(gateway: Gateway, verb: str) -> None:
    """Whatever the entry was. Otherwise the log that is gone would look like one that was rolled back."""
    clone, end = overcome(gateway)
    once("store:hold" if verb == "hold" else "store:expire", end)
    try:
        match verb:
            case "expire":
                with pytest.raises(Overtaken, match="ended"):
                    clone.engine.expire_generation(ref("src@1"))
            case "hold":
                with pytest.raises(GatewayError):
                    clone.engine.hold_generation(ref("src@1"), reason="audit")
            case _:
                forced(clone)
    finally:
        durable.install_hook(None)
    assert clone.verify() == ()
    clone.close()


def test_a_sweep_knows_the_end_that_it_meets_on_its_last_try(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    clone, end = overcome(gateway)
    forced(gateway)
    gateway.clock.advance(8 * DAY)
    monkeypatch.setattr("gateway.jobs.sweep.TRIES", 1)
    once("store:condemn", end)
    with pytest.raises(Overtaken, match="ended"):
        clone.engine.sweep()
    durable.install_hook(None)
    assert clone.verify() == ()
    clone.close()


def test_a_kill_behind_the_end_that_was_met_leaves_nothing_that_looks_rolled_back(gateway: Gateway) -> None:
    """It is noted before the last wrap goes."""
    clone, end = overcome(gateway)
    met: list[str] = []

    def hook(moment: str, effect: str) -> None:
        if (moment, effect) == ("before", "store:expire") and not met:
            met.append(effect)
            end()
            met.append("ended")
        elif "ended" in met and (moment, effect) == ("after", "store:ended-object"):
            raise Killed

    durable.install_hook(hook)
    with pytest.raises(Killed):
        clone.engine.expire_generation(ref("src@1"))
    durable.install_hook(None)
    clone.open()
    assert clone.verify() == ()
    clone.close()


def test_what_came_into_a_class_later_waits_from_then(gateway: Gateway) -> None:
    """Thirty days in STANDARD, then GLACIER: deleted before day 120, its least time would be billed all the same."""
    flex = ClassConfig(name="flex", steps=((0, "STANDARD"), (30, "GLACIER")), hot_days=7, chain_days=15)
    gateway.config = replace(gateway.config, classes=(*BUILT_IN, flex))
    gateway.checked = False  # its data are frozen
    gateway.change(storage_class="flex")
    gateway.engine.lifecycle_apply()
    gateway.source.noise("a", 300 * KIB)
    gateway.made()
    gateway.made(new_chain=True)
    gateway.engine.expire_generation(ref("src@1"))
    gateway.clock.advance(100 * DAY)
    waiting = [each for each in gateway.engine.sweep().objects if "GLACIER is billed for 90 days" in each.reason]
    assert waiting
    there = {each.key for each in waiting}
    assert there <= set(gateway.keys("packs/"))
    gateway.clock.advance(22 * DAY)
    gateway.engine.sweep()
    assert not there & set(gateway.keys("packs/"))
