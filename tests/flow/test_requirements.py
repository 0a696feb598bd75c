"""What backup jobs require of one another, and what their producers say of them, from spool to store and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.api import Fact, GenerationInfo, Reference, no_progress
from gateway.config.retention import RetentionConfig, RetentionRules
from gateway.config.values import SourceConfig, SourceKind
from gateway.engine import Engine
from gateway.errors import UsageError
from gateway.format import log
from gateway.format.log import ListRoot
from gateway.jobs.alarms import Alarms
from gateway.jobs.keeper import Keeper
from gateway.jobs.requirements import Requirements
from gateway.jobs.retain import append
from gateway.model.ids import ChainName
from gateway.repository.writer import ChainWriter
from tests.flow.gateways import Gateway
from tests.unit.pg_backups import LABEL, SYSTEM, Backup, wal_segment, write

RETENTION = (RetentionConfig(sources=("src", "wal"), rules=RetentionRules(keep_last=1, minimum_generations=1)),)


class Made:
    """The keepers of a gateway's sources, turned by hand."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.context = gateway.engine.hold()
        self.keepers = {
            each.name: Keeper(self.context, each, Alarms(self.context.catalog, gateway.clock, self.context.log))
            for each in gateway.config.sources
        }

    def turn(self, *names: str) -> None:
        """As long as it takes for what lies there to settle and be made."""
        for seconds in (0, 6, 11):
            self.gateway.clock.advance(timedelta(seconds=seconds))
            for name in names or self.keepers:
                self.keepers[name].watch.rescan_at = float("-inf")
                self.keepers[name].turn(no_progress)

    def close(self) -> None:
        for each in self.keepers.values():
            each.stop()


@pytest.fixture
def made(gateway: Gateway) -> Iterator[Made]:
    gateway.add_source("wal")
    gateway.change(kind=SourceKind.JOB, minimum_evidence=3, generation_interval=timedelta())
    wal: SourceConfig = replace(gateway.config.sources[1], generation_interval=timedelta())
    gateway.config = replace(gateway.config, sources=(gateway.config.sources[0], wal))
    found = Made(gateway)
    yield found
    found.close()


def full() -> Backup:
    backup = Backup(start="0/100028")
    backup.wal = {"000000010000000000000001": wal_segment(1)} | backup.wal
    return backup


def incremental() -> Backup:
    backup = Backup()
    backup.files["backup_label"] = LABEL + b"INCREMENTAL FROM LSN: 0/100028\nINCREMENTAL FROM TLI: 1\n"
    backup.files["base/1/INCREMENTAL.1259"] = b"blocks"
    return backup


def generations(gateway: Gateway, source: str = "src") -> list[GenerationInfo]:
    return list(gateway.engine.generations(source))


def states(gateway: Gateway, source: str = "src") -> list[str]:
    return [str(each.state) for each in generations(gateway, source)]


def holds(made: Made) -> list[str]:
    return [each.why for each in made.context.catalog.holds()]


def test_an_incremental_is_incomplete_until_what_it_stands_on_is_protected(gateway: Gateway, made: Made) -> None:
    gateway.healthy = False  # a rebuild names what is incomplete
    incremental().plain(gateway.source.root / "tuesday")
    made.turn("src")
    assert states(gateway) == ["incomplete"]
    (shown,) = gateway.engine.show(Reference.parse("src@1")).jobs
    assert "the backup that starts at 0/100028" in shown.lacks[0]
    assert shown.lacks[0] in generations(gateway)[0].reason
    made.turn("src")
    assert states(gateway) == ["incomplete"], "nothing is made again while nothing has changed"
    full().plain(gateway.source.root / "monday")
    made.turn("src")
    assert states(gateway) == ["incomplete", "protected", "protected"]
    shown = gateway.engine.show(Reference.parse("src@3"))
    assert shown.requires == (generations(gateway)[1].id,)
    assert shown.jobs[0].lacks == ()
    assert holds(made) == []
    with pytest.raises(UsageError, match="src@3 requires it"):
        gateway.engine.expire_generation(Reference.parse("src@2"))
    gateway.config = replace(gateway.config, retention=RETENTION)
    made.close()
    gateway.close()
    plan = gateway.engine.retention_plan("src")
    assert {each.number for each in plan.decisions if each.reasons} >= {2, 3}


def test_the_restore_kit_is_shown_and_restored_with_its_job(gateway: Gateway, made: Made) -> None:
    full().plain(gateway.source.root / "monday")
    made.turn("src")
    (job,) = gateway.engine.show(Reference.parse("src@1")).jobs
    assert job.producer == "postgresql"
    assert Fact(name="start-lsn", value="0/100028") in job.facts
    assert "pg_verifybackup" in job.kit
    to, report = gateway.restore("src@1")
    assert (to / "monday.restore-kit.txt").read_text() == job.kit
    assert (to / "monday/backup_manifest").read_bytes() == (gateway.source.root / "monday/backup_manifest").read_bytes()
    assert report.files == generations(gateway)[0].files
    assert gateway.list()[-1] == b"monday.restore-kit.txt"
    made.close()
    gateway.lose_state()
    assert gateway.engine.show(Reference.parse("src@1")).jobs == (job,), "the bucket is enough"


def test_wal_in_an_archive_is_required_and_held_meanwhile(gateway: Gateway, made: Made) -> None:
    gateway.healthy = False  # a rebuild names what is incomplete
    archive = gateway.config.sources[1].path
    backup = full()
    backup.wal = {}
    backup.plain(gateway.source.root / "monday")
    write(archive / "a/000000010000000000000001", wal_segment(1))
    write(archive / "a/000000010000000000000002", wal_segment(2, system=SYSTEM + 1))
    write(archive / "a/000000010000000000000003", wal_segment(3))
    made.turn("wal")
    made.turn("src")
    assert states(gateway) == ["incomplete"], "segment 2 is another cluster's"
    write(archive / "a/000000010000000000000002", wal_segment(2))
    made.turn("wal")
    held: list[str] = []
    keeper = made.keepers["src"]
    gateway.events.events.clear()
    keeper_turn(made, held)
    assert states(gateway) == ["incomplete", "protected"]
    shown = gateway.engine.show(Reference.parse("src@2"))
    assert shown.requires == (generations(gateway, "wal")[-1].id,)
    assert any("which is being made, requires it" in each for each in held)
    assert holds(made) == []
    assert keeper.seals.requirements.told("x") is None
    with pytest.raises(UsageError, match="src@2 requires it"):
        gateway.engine.expire_generation(Reference.parse("wal@2"))


def keeper_turn(made: Made, held: list[str]) -> None:
    """A turn in which the store notes what was held when the commit arrived."""
    put = made.gateway.store.put

    def noting(key: str, *args: object, **options: object) -> object:
        if key.startswith("chains/src/") and "/log/" in key:
            held.extend(holds(made))
        return put(key, *args, **options)  # type: ignore[arg-type]

    made.gateway.store.put = noting  # type: ignore[assignment, method-assign]
    try:
        made.turn("src")
    finally:
        made.gateway.store.put = put  # type: ignore[method-assign]


def test_a_hold_that_a_kill_left_ends_with_the_generation(gateway: Gateway, made: Made) -> None:
    full().plain(gateway.source.root / "monday")
    made.turn("src")
    incremental().plain(gateway.source.root / "tuesday")
    keeper = made.keepers["src"]
    keeper.watch.rescan_at = float("-inf")
    keeper.turn(no_progress)
    gateway.clock.advance(timedelta(seconds=6))
    keeper.watch.tick()
    assert keeper.found is not None
    keeper.found.look(keeper.watch)
    (row,) = keeper.seals.waiting()
    # Killed while it is made: the hold stands, and the next start finds it with the row.
    why = f"run {row.run} of src, which is being made, requires it"
    base = made.context.catalog.generations("src")[0]
    append(made.context, base.chain, log.HOLD, log.Hold(b"h" * 16, base.generation, "gateway", why))
    assert holds(made) == [why]
    made.close()
    gateway.close()
    again = Made(gateway)
    again.turn("src")
    assert states(gateway) == ["protected", "protected"]
    assert holds(again) == []
    again.close()


def test_what_has_gone_meanwhile_is_named(gateway: Gateway, made: Made) -> None:
    full().plain(gateway.source.root / "monday")
    made.turn("src")
    requirements = made.keepers["src"].seals.requirements
    there = ("src", 1, bytes.fromhex(generations(gateway)[0].id[1:]))
    unknown, nowhere = ("src", 1, b"u" * 16), ("src", 7, b"n" * 16)
    with requirements.kept("run", [there, unknown, nowhere]) as lost:
        assert lost == {unknown, nowhere}
    assert holds(made) == []


def test_a_seal_does_not_overrule_the_producers_own_manifest(gateway: Gateway, made: Made) -> None:
    gateway.healthy = False  # a rebuild names what is incomplete
    good = full().plain(gateway.source.root / "monday")
    bad = full().plain(gateway.source.root / "tuesday")
    (bad / "base/1/1259").write_bytes(b"R" * (bad / "base/1/1259").stat().st_size)
    seal(made, "monday", good)
    seal(made, "tuesday", bad)
    for _ in range(2):
        made.turn("src")
    monday, tuesday = generations(gateway)
    assert (monday.state, monday.evidence) == ("protected", 5)
    (job,) = gateway.engine.show(Reference.parse("src@1")).jobs
    assert (job.run, job.producer) == ("monday", "postgresql")
    assert tuesday.state == "incomplete"
    assert "is not the manifest's" in tuesday.reason


def seal(made: Made, run: str, folder: Path) -> None:
    report = made.keepers["src"].seals.seal(run, (), folder.name.encode(), (), "dba")
    assert report.problems == ()


# --- several hosts ---------------------------------------------------------------------------------------------------


def standing(made: Made, source: str = "src") -> list[str]:
    """Holds by the log of the source's first chain."""
    chain = made.context.open_chain(ChainName(source, 1))
    return [each.why for _, each in chain.fold.holds.values()]


def other_host(gateway: Gateway) -> Engine:
    """On a disk of its own, which knows what the store has."""
    engine = gateway.open(gateway.elsewhere())
    engine.rebuild()
    return engine


def test_a_hold_that_another_host_has_ended_is_made_anew(gateway: Gateway, made: Made) -> None:
    full().plain(gateway.source.root / "monday")
    made.turn("src")
    base = made.context.catalog.generations("src")[0]
    why = "run run of src, which is being made, requires it"
    append(made.context, base.chain, log.HOLD, log.Hold(b"h" * 16, base.generation, "gateway", why))
    other_host(gateway).unhold_generation(Reference.parse("src@1"))
    assert holds(made) == [why], "as this host believes"
    with made.keepers["src"].seals.requirements.kept("run", [("src", 1, base.generation)]) as lost:
        assert lost == frozenset()
        assert standing(made) == [why]
    assert standing(made) == []


def test_two_hosts_that_make_one_run_do_not_end_each_others_holds(gateway: Gateway, made: Made) -> None:
    full().plain(gateway.source.root / "monday")
    made.turn("src")
    there = [("src", 1, made.context.catalog.generations("src")[0].generation)]
    mine = made.keepers["src"].seals.requirements
    other = Requirements(other_host(gateway).hold(), gateway.config.sources[0])
    with mine.kept("run", there):
        with pytest.raises(RuntimeError), other.kept("run", there):
            raise RuntimeError
        assert len(standing(made)) == 1
        with other.kept("run", there):
            pass
        # It has made its generation, and takes the hold for one that a kill left; it is looked at before the commit.
        assert mine.lost("run", there) == frozenset()
        assert len(standing(made)) == 1
    assert standing(made) == []


@pytest.mark.parametrize("swept", [False, True])
def test_what_another_host_lets_expire_in_spite_of_a_hold_is_looked_at_before_the_commit(
    gateway: Gateway, made: Made, monkeypatch: pytest.MonkeyPatch, swept: bool
) -> None:
    gateway.healthy = not swept  # a rebuild names what is incomplete
    archive = gateway.config.sources[1].path
    backup = full()
    backup.wal = {}
    for number in (1, 2):
        write(archive / f"a/00000001000000000000000{number}", wal_segment(number))
    made.turn("wal")
    write(archive / "a/000000010000000000000003", wal_segment(3))
    made.turn("wal")
    backup.plain(gateway.source.root / "monday")
    settle, done = ChainWriter.settle, list[str]()
    rules = RetentionConfig(sources=("src", "wal"), rules=RetentionRules(keep_last=1, sweep_after=timedelta()))

    def meanwhile(self: ChainWriter) -> ListRoot:
        root = settle(self)
        if self.chain.name.group == "src" and not done:
            done.append("")
            engine = gateway.open(replace(gateway.elsewhere(), retention=(rules,)))
            engine.rebuild()
            engine.unhold_generation(Reference.parse("wal@2"))
            engine.expire_generation(Reference.parse("wal@2"))
            if swept:
                gateway.clock.advance(timedelta(days=91))
                assert engine.sweep().deleted > 0
        return root

    monkeypatch.setattr(ChainWriter, "settle", meanwhile)
    made.turn("src")
    assert done
    (generation,) = generations(gateway)
    assert [each.number for each in generations(gateway, "wal")] == ([1] if swept else [1, 2])
    assert generation.state == ("incomplete" if swept else "protected")
    assert ("is not protected any more" in generation.reason) == swept
    assert standing(made, "wal") == []
