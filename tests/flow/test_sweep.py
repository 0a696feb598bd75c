"""What is deleted, what never is, and what a kill or another writer in between leaves: on a whole gateway."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from gateway import durable
from gateway.api import Progress, SweepReport
from gateway.config.values import SourceKind, StorageClass
from gateway.errors import Conflict, GatewayError, StoreRefused, UsageError
from gateway.format import names
from gateway.jobs import ingest
from gateway.jobs.alarms import Alarms, Kind
from gateway.jobs.context import Context
from gateway.log import silent
from gateway.model.ids import ChainName
from gateway.repository.chain import Chain
from gateway.repository.fold import GenerationState as Folded
from gateway.store.crc import crc64
from tests.flow.gateways import KIB, Gateway
from tests.flow.test_chains import cloned
from tests.flow.test_retention import DAY, ref, rules
from tests.flow.trees import Tree, tree

FIRST = ChainName("src", 1)


def hot(gateway: Gateway) -> None:
    """A class that is billed for no least time, so that a week is all that a sweep waits for."""
    gateway.change(storage_class=StorageClass.HOT)


def replaced(gateway: Gateway, count: int) -> dict[int, Tree]:
    """Generations that share one file and each have one of their own, which also has packs of its own; their trees."""
    found = {}
    gateway.source.noise("shared", 200 * KIB)
    for _ in range(count):
        gateway.source.noise("own", 800 * KIB)
        number = gateway.made().number
        found[number] = tree(gateway.source.root)
    return found


def forced(gateway: Gateway) -> tuple[str, ...]:
    """Whatever the rules say expires, approved."""
    plan = gateway.engine.retention_plan()
    return gateway.engine.retention_apply(approve=plan.plan).expired


def packs(gateway: Gateway) -> list[str]:
    return gateway.keys("packs/")


def all_restore(gateway: Gateway, wanted: dict[int, Tree]) -> None:
    for info in gateway.engine.generations("src"):
        assert gateway.restored(f"src@{info.number}") == wanted[info.number], info.number


def test_a_sweep_deletes_what_is_free_and_nothing_else(gateway: Gateway) -> None:
    hot(gateway)
    rules(gateway, keep_last=1)
    wanted = replaced(gateway, 4)
    before = packs(gateway)
    assert gateway.engine.sweep().deleted == 0  # all is needed
    assert set(forced(gateway)) == {"src@1", "src@2", "src@3"}
    waiting = gateway.engine.sweep()
    assert (waiting.deleted, waiting.waiting > 0) == (0, True)
    assert all("can be undone" in each.reason and each.until for each in waiting.objects)
    assert packs(gateway) == before
    gateway.clock.advance(7 * DAY)
    shown = gateway.engine.sweep(dry_run=True)
    assert packs(gateway) == before
    assert shown.deleted >= 3
    done = gateway.engine.sweep()
    assert (done.deleted, done.deleted_bytes) == (shown.deleted, shown.deleted_bytes)
    assert len(packs(gateway)) == len(before) - done.deleted
    assert len(gateway.keys("chains/src/000001/index/")) == len(packs(gateway))
    assert {each.verdict for each in done.objects} == {"condemn"}
    all_restore(gateway, wanted)
    assert gateway.engine.sweep().deleted == 0
    # What is new refers to what is left only.
    gateway.source.noise("own", 200 * KIB)
    made = gateway.made()
    assert gateway.restored(f"src@{made.number}") == tree(gateway.source.root)


def test_what_was_deleted_cannot_be_held_any_more(gateway: Gateway) -> None:
    hot(gateway)
    rules(gateway, keep_last=1)
    wanted = replaced(gateway, 3)
    forced(gateway)
    gateway.engine.hold_generation(ref("src@1"), reason="in time")
    gateway.clock.advance(8 * DAY)
    gateway.engine.sweep()
    all_restore(gateway, wanted)
    assert [each.number for each in gateway.engine.generations()] == [1, 3]
    with pytest.raises(UsageError, match="condemned"):
        gateway.engine.hold_generation(ref("src@2"), reason="too late")


def test_files_that_come_back_are_stored_anew(gateway: Gateway) -> None:
    hot(gateway)
    rules(gateway, keep_last=1)
    old = gateway.source.noise("old", 200 * KIB).read_bytes()
    gateway.made()  # alone, so that no pack of it holds anything that stays
    gateway.source.path("old").unlink()
    gateway.source.noise("b", 200 * KIB)
    gateway.made()
    forced(gateway)
    # Expired and still there: it is not referred to, so that it can go.
    gateway.source.write("old", old)
    report = gateway.ingest()
    assert report.new_bytes >= 200 * KIB
    gateway.clock.advance(8 * DAY)
    gateway.engine.sweep()
    assert gateway.restored() == tree(gateway.source.root)


def test_a_pack_under_one_that_stays_stays(gateway: Gateway) -> None:
    """Deltas: the newest generation may use few of the chunks of a pack, and the next one others."""
    hot(gateway)
    rules(gateway, keep_last=1)
    wanted = {}
    gateway.source.noise("pages", 400 * KIB)
    for turn in range(5):
        gateway.source.overwrite("pages", turn * 64 * KIB + 100, b"x" * 300)
        number = gateway.made().number
        wanted[number] = tree(gateway.source.root)
        gateway.clock.advance(DAY)
    forced(gateway)
    gateway.clock.advance(8 * DAY)
    gateway.engine.sweep()
    all_restore(gateway, wanted)
    gateway.source.overwrite("pages", 64 * KIB + 100, b"y" * 300)
    gateway.made()
    assert gateway.restored() == tree(gateway.source.root)


def test_a_class_that_is_billed_for_ninety_days_is_kept_for_ninety_days(gateway: Gateway) -> None:
    rules(gateway, keep_last=1)
    wanted = replaced(gateway, 3)
    forced(gateway)
    gateway.clock.advance(30 * DAY)
    report = gateway.engine.sweep()
    data = [each for each in report.objects if "/meta/" not in each.key]
    assert data
    assert all(each.verdict == "wait" and "GLACIER_IR is billed for 90 days" in each.reason for each in data)
    gateway.clock.advance(61 * DAY)
    assert gateway.engine.sweep().deleted >= len(data)
    all_restore(gateway, wanted)


def test_what_no_entry_names_is_deleted_once_it_is_a_week_old(gateway: Gateway) -> None:
    replaced(gateway, 1)
    foreign = names.pack("instant", FIRST, 0x77, bytes(16))
    index = names.index(FIRST, 0x77, bytes(16))
    for key in (foreign, index):
        gateway.put_back(key, b"of a writer that was cut off")
    gateway.clock.advance(6 * DAY)
    assert gateway.engine.sweep().deleted == 0
    gateway.clock.advance(2 * DAY)
    assert gateway.engine.sweep().deleted == 2
    assert not gateway.keys(foreign)
    assert not gateway.keys(index)


def test_an_open_alarm_stops_a_sweep(gateway: Gateway) -> None:
    hot(gateway)
    rules(gateway, keep_last=1)
    replaced(gateway, 3)
    forced(gateway)
    gateway.clock.advance(8 * DAY)
    alarms = Alarms(gateway.engine.hold().catalog, gateway.clock, silent(gateway.clock))
    alarms.open(Kind.DAMAGE, "src ingest", "A pack is bad.", meaning="m", advice="a")
    report = gateway.engine.sweep()
    assert report.deleted == 0
    assert all("damaged-pack" in each.reason for each in report.objects)
    alarms.close(Kind.DAMAGE, "src ingest")
    assert gateway.engine.sweep().deleted > 0


def test_a_store_that_refuses_to_delete_is_asked_again(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    hot(gateway)
    rules(gateway, keep_last=1)
    wanted = replaced(gateway, 3)
    forced(gateway)
    gateway.clock.advance(8 * DAY)
    delete = type(gateway.store).delete

    def locked(self: object, key: str) -> None:
        if key.startswith("packs/"):
            raise StoreRefused(f"{key} is locked.")
        delete(gateway.store, key)

    with monkeypatch.context() as patch:
        patch.setattr(type(gateway.store), "delete", locked)
        report = gateway.engine.sweep()
        assert "is locked" in report.problems[0]
    assert gateway.engine.sweep().deleted > 0
    all_restore(gateway, wanted)


# --- the end of chains -----------------------------------------------------------------------------------------------


def ended(gateway: Gateway) -> SweepReport:
    """A chain of which nothing is needed, and the next one; the sweep that finishes the first."""
    hot(gateway)
    rules(gateway, keep_last=1)
    replaced(gateway, 2)
    gateway.made(new_chain=True)
    forced(gateway)
    gateway.clock.advance(8 * DAY)
    return gateway.engine.sweep()


def test_a_chain_that_holds_nothing_ends(gateway: Gateway) -> None:
    report = ended(gateway)
    assert report.ended == ("src/000001",)
    left = gateway.keys("chains/src/000001/") + gateway.keys("keys/src-000001") + gateway.keys("packs/hot/src/000001/")
    assert left == ["chains/src/000001/end", "chains/src/000001/header", "keys/src-000001-header"]
    assert [each.chain for each in gateway.engine.chains()] == ["src/000002"]
    assert gateway.verify() == ()
    assert gateway.restored() == tree(gateway.source.root)
    gateway.source.noise("more", 10)
    made = gateway.made()
    assert (made.number, made.chain) == (4, "src/000002")
    assert not gateway.lose_state().problems
    assert gateway.made(new_chain=True).chain == "src/000003"
    assert gateway.engine.sweep().ended == ()


def test_the_newest_chain_does_not_end(gateway: Gateway) -> None:
    hot(gateway)
    rules(gateway, keep_last=1)
    replaced(gateway, 1)
    gateway.clock.advance(30 * DAY)
    assert gateway.engine.sweep().ended == ()
    assert gateway.verify() == ()


# --- killed ----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What a kill is to the code that it meets."""


@contextmanager
def killing(at: int, met: list[str]) -> Iterator[None]:
    """Ends what runs inside at its so-manieth durable effect, before or after it."""

    def hook(moment: str, name: str) -> None:
        met.append(f"{moment} {name}")
        if len(met) == at:
            raise Killed

    durable.install_hook(hook)
    try:
        yield
    finally:
        durable.install_hook(None)


@pytest.mark.parametrize("part", range(4))
def test_a_sweep_that_was_killed_is_finished_by_the_next(make_gateway: Callable[[], Gateway], part: int) -> None:
    """At every durable effect of a sweep that condemns, deletes and ends a chain; one in four each."""
    met: list[str] = []
    at, reached = part + 1, False
    while not reached:
        gateway = make_gateway()
        hot(gateway)
        rules(gateway, keep_last=1)
        gateway.source.noise("own", 40 * KIB)
        gateway.made()
        gateway.made(new_chain=True)
        wanted = tree(gateway.source.root)
        forced(gateway)
        gateway.clock.advance(8 * DAY)
        met = []
        gateway.engine.hold()
        try:
            with killing(at, met):
                gateway.engine.sweep()
            reached = True
        except Killed:
            gateway.close()
        assert gateway.restored() == wanted, met[-1]
        gateway.engine.sweep()
        assert gateway.keys("chains/src/000001/") == ["chains/src/000001/end", "chains/src/000001/header"], met[-1]
        assert not gateway.keys("packs/hot/src/000001/"), met[-1]
        assert gateway.restored() == wanted, met[-1]
        assert gateway.verify() == (), met[-1]
        at += 4
    effects = {each.split()[1] for each in met}
    assert effects >= {"store:condemn", "store:swept-index", "store:swept-pack", "store:end", "store:ended-object"}


def test_an_expiry_that_was_killed_is_finished_by_the_next(make_gateway: Callable[[], Gateway]) -> None:
    at, reached = 1, False
    while not reached:
        gateway = make_gateway()
        rules(gateway, keep_last=1)
        gateway.source.noise("own", 40 * KIB)
        gateway.made()
        gateway.made(new_chain=True)
        gateway.engine.hold()
        met: list[str] = []
        try:
            with killing(at, met):
                forced(gateway)
            reached = True
        except Killed:
            gateway.close()
        forced(gateway)
        assert [each.number for each in gateway.engine.generations()] == [2], met[-1]
        at += 2
    assert at > 4


# --- a writer and a sweeper ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_writer_and_a_sweeper_meet_in_the_log(gateway: Gateway, seed: int) -> None:
    """One machine writes, another expires and sweeps in the middle of it, at moments drawn by a seed. Whatever each is
    refused, every generation that is kept can be restored, and nothing that one needs was deleted.
    """
    chance = random.Random(seed)
    hot(gateway)
    rules(gateway, keep_last=2)
    gateway.source.noise("shared", 200 * KIB)
    wanted: dict[int, Tree] = {}
    versions = [gateway.source.noise(f"v{each}", 150 * KIB).read_bytes() for each in range(4)]
    wanted[gateway.made().number] = tree(gateway.source.root)
    clone = cloned(gateway)

    def other() -> None:
        """What the second machine does in between; it may lose a race, and then does it again later."""
        try:
            if chance.random() < 0.7:
                forced(clone)
            clone.engine.sweep()
        except Conflict:
            pass
        finally:
            clone.close()

    for _ in range(5):
        # Old data comes and goes, so that what one machine gives up the other just wants.
        for name in range(4):
            if chance.random() < 0.5:
                gateway.source.write(f"v{name}", versions[chance.randrange(4)])
            else:
                gateway.source.path(f"v{name}").unlink(missing_ok=True)
        gateway.source.noise("own", 60 * KIB)
        phase, turns = chance.choice(["reading", "uploading"]), [chance.randrange(3)]

        def meanwhile(progress: Progress, phase: str = phase, turns: list[int] = turns) -> None:
            if progress.phase == phase:
                turns[0] -= 1
                if turns[0] == -1:
                    other()

        try:
            report = gateway.ingest(progress=meanwhile)
        except GatewayError as error:
            assert isinstance(error, Conflict), error  # noqa: PT017  (whatever else it is must be seen)
            continue
        if report.generation is not None:
            assert str(report.generation.state) == "protected"
            wanted[report.generation.number] = tree(gateway.source.root)
        if chance.random() < 0.5:
            other()
        # Between runs: one that lasts a week without an entry loses what it has sent.
        gateway.clock.advance(timedelta(days=chance.choice([0, 3, 8])))
    other()
    gateway.engine.rebuild()
    all_restore(gateway, wanted)
    assert gateway.verify() == ()
    assert {each.number for each in gateway.engine.generations()} <= wanted.keys()


def left_undeclared(gateway: Gateway) -> tuple[Gateway, dict[int, Tree]]:
    """A machine that was cut off a week ago with packs in the store that no entry declares, and a clone of it."""
    hot(gateway)
    wanted = replaced(gateway, 1)
    clone = cloned(gateway)
    gateway.source.noise("own", 200 * KIB)
    wanted[2] = tree(gateway.source.root)

    def hook(moment: str, effect: str) -> None:
        if (moment, effect) == ("before", "store:commit"):
            raise Killed

    durable.install_hook(hook)
    try:
        with pytest.raises(Killed):
            gateway.ingest()
    finally:
        durable.install_hook(None)
    gateway.open()
    gateway.clock.advance(8 * DAY)
    return clone, wanted


def test_a_writer_that_comes_back_declares_nothing_that_is_deleted_beside_it(gateway: Gateway) -> None:
    """It has found its packs in the store, and a sweep of another machine comes before its entry."""
    clone, wanted = left_undeclared(gateway)
    before, swept = packs(gateway), []

    def meanwhile(progress: Progress) -> None:
        if progress.phase == "reading" and not swept:
            swept.append(clone.engine.sweep())
            clone.close()

    report = gateway.ingest(progress=meanwhile)
    assert swept[0].deleted >= 2, "a pack and its index"
    assert set(before) - set(packs(gateway))
    assert report.generation is not None
    assert str(report.generation.state) == "protected"
    gateway.engine.rebuild()
    all_restore(gateway, wanted)


def test_a_dry_run_forgets_nothing_of_a_run_that_was_cut_off(gateway: Gateway) -> None:
    """Also where its chain is closed, so that a sweep gives it up."""
    clone, _ = left_undeclared(gateway)
    clone.ingest(new_chain=True)
    clone.close()
    catalog = gateway.engine.hold().catalog
    before = catalog.ledger(FIRST)
    assert before
    gateway.engine.sweep(dry_run=True)
    assert catalog.ledger(FIRST) == before
    gateway.engine.sweep()
    assert catalog.ledger(FIRST) == []


def test_a_writer_declares_nothing_that_is_condemned_and_still_there(gateway: Gateway) -> None:
    """The sweep of another machine has begun, and deletes behind its entry. One that was killed is gone on with."""
    clone, wanted = left_undeclared(gateway)
    made = []

    def hook(moment: str, effect: str) -> None:
        if (moment, effect) == ("before", "store:swept-unnamed"):
            if made:
                raise Killed
            made.append(effect)
            assert gateway.made().number == 2

    durable.install_hook(hook)
    try:
        with pytest.raises(Killed):
            clone.engine.sweep()
    finally:
        durable.install_hook(None)
        clone.close()
    assert made
    done = clone.engine.sweep()
    assert (done.deleted, done.problems) == (3, ()), "of two packs and their indexes one is gone already"
    clone.close()
    gateway.engine.rebuild()
    all_restore(gateway, wanted)


def test_a_generation_that_goes_while_it_is_carried_on_from_is_no_damage(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine has made the next one in a new chain, and swept what this one has just begun to read."""
    hot(gateway)
    rules(gateway, keep_last=1, sweep_after=timedelta())
    gateway.source.noise("own", 200 * KIB)
    gateway.made()
    clone = cloned(gateway)
    shutil.rmtree(gateway.config.state.directory / "cache")
    choose, swept = ingest.Ingest._previous, list[SweepReport]()

    def then(self: ingest.Ingest, chain: Chain | None) -> Folded | None:
        before = choose(self, chain)
        if not swept:
            monkeypatch.setattr(ingest.Ingest, "_previous", choose)
            gateway.source.noise("own", 200 * KIB)
            clone.ingest(new_chain=True)
            forced(clone)
            swept.append(clone.engine.sweep())
            clone.close()
            gateway.source.noise("own", 200 * KIB)
        return before

    monkeypatch.setattr(ingest.Ingest, "_previous", then)
    made = gateway.made()
    assert swept[0].deleted > 0
    assert made.number == 3
    assert "list.damaged" not in gateway.events.names()
    assert gateway.restored("src@3") == tree(gateway.source.root)


def test_packs_that_are_swept_while_they_are_looked_for_are_not_missing(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    hot(gateway)
    rules(gateway, keep_last=1, sweep_after=timedelta())
    replaced(gateway, 2)
    clone = cloned(gateway)
    look, swept = ingest.Ingest._note_missing, list[SweepReport]()

    def then(self: ingest.Ingest, chain: Chain) -> None:
        if not swept:
            forced(clone)
            swept.append(clone.engine.sweep())
            clone.close()
        look(self, chain)

    monkeypatch.setattr(ingest.Ingest, "_note_missing", then)
    gateway.source.noise("own", 200 * KIB)
    assert gateway.made().number == 3
    assert swept[0].deleted > 0
    assert "pack.missing" not in gateway.events.names()


def test_packs_of_one_number_that_nobody_names_are_condemned_one_after_the_other(gateway: Gateway) -> None:
    hot(gateway)
    wanted = replaced(gateway, 1)
    strangers = [f"packs/{storage}/src/000001/00000001-{digit * 32}" for storage in ("hot", "meta") for digit in "ab"]
    for key in strangers:
        gateway.store.put(key, b"cut off", crc64=crc64(b"cut off"))
    gateway.clock.advance(8 * DAY)
    assert gateway.engine.sweep().deleted == 4
    assert not set(strangers) & set(packs(gateway))
    gateway.engine.rebuild()
    all_restore(gateway, wanted)


def test_a_plan_shown_beside_a_chain_that_another_machine_ended_is_the_plan_carried_out(gateway: Gateway) -> None:
    """The catalog of a machine that slept still knows the chain; its generations are no part of any plan."""
    hot(gateway)
    rules(gateway, keep_last=1)
    replaced(gateway, 2)
    gateway.made(new_chain=True)
    clone = cloned(gateway)
    forced(gateway)
    gateway.clock.advance(8 * DAY)
    assert gateway.engine.sweep().ended == ("src/000001",)
    gateway.made(new_chain=True)
    shown = clone.engine.retention_plan()
    assert [each.number for each in shown.decisions] == [4, 3]
    assert clone.engine.retention_apply(approve=shown.plan).expired == ("src@3",)
    clone.close()
    gateway.engine.rebuild()


def test_what_a_held_generation_requires_in_another_chain_stays(gateway: Gateway) -> None:
    """Through retention, expiry by hand and sweep; and what a job reads stays in the same way, expired or not."""
    gateway.change(kind=SourceKind.JOB, storage_class=StorageClass.HOT)
    for run, requires, name in (("level-0", (), "hot"), ("level-1", ("level-0",), "instant"), ("alone", (), "instant")):
        gateway.change(storage_class=StorageClass(name))  # another class begins another chain
        gateway.source.noise(f"{run}/piece", 200 * KIB)
        gateway.clock.advance(timedelta(hours=1))
        report = gateway.engine.seal("src", run, folder=run.encode(), requires=requires, wait=True)
        assert str(report.state) == "protected", report
    chains = {each.number: each.chain for each in gateway.engine.generations()}
    assert chains[1] != chains[2]
    before = packs(gateway)
    gateway.engine.hold_generation(ref("src@2"), reason="audit")
    rules(gateway, keep_last=1)
    assert forced(gateway) == ()
    with pytest.raises(UsageError, match="src@2 requires it"):
        gateway.engine.expire_generation(ref("src@1"))
    gateway.clock.advance(100 * DAY)
    gateway.engine.sweep()
    assert packs(gateway) == before
    for number in (1, 2):
        assert gateway.restored(f"src@{number}")
    # Released and expired, but a job reads the upper one: both stay until it ends.
    gateway.engine.unhold_generation(ref("src@2"))
    gateway.source.noise("young/piece", 10 * KIB)
    gateway.engine.seal("src", "young", folder=b"young", wait=True)
    (reads,) = [each for each in gateway.engine.hold().catalog.generations("src") if each.number == 2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Context, "held_by_jobs", lambda *_: frozenset({reads.generation}))
        plan = gateway.engine.retention_plan()
        assert {each.number for each in plan.decisions if not each.reasons} == {3}
        with pytest.raises(UsageError, match="a restore job reads it"):
            gateway.engine.expire_generation(ref("src@2"))
    assert set(forced(gateway)) >= {"src@1", "src@2"}
    gateway.clock.advance(8 * DAY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Context, "held_by_jobs", lambda *_: frozenset({reads.generation}))
        gateway.engine.sweep()
        left = {each.split("/")[3] for each in packs(gateway)}
        assert {chains[1].split("/")[1], chains[2].split("/")[1]} <= left
    gateway.engine.sweep()
    assert chains[1].split("/")[1] not in {each.split("/")[3] for each in packs(gateway)}
