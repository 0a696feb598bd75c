"""Restore jobs in trouble: power cuts, lost and damaged packs, full disks, lost catalogs, two at a time, and sweeps."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway import durable
from gateway.api import JobInfo, Reference, RestoreState, no_progress
from gateway.catalog import Catalog
from gateway.config.retention import RetentionConfig, RetentionRules
from gateway.errors import LocalStateError, LockHeld, StoreUnreachable, TargetError, UsageError
from gateway.store.meter import Operation
from gateway.target import local
from tests.flow.cold_restores import DAY, freeze
from tests.flow.gateways import KIB, Gateway
from tests.flow.trees import tree

pytestmark = pytest.mark.usefixtures("long_waits")

ENOUGH = 13 * 3600


@pytest.fixture
def frozen(gateway: Gateway) -> Gateway:
    freeze(gateway, files="abc", size=300 * KIB)
    return gateway


@pytest.fixture
def hooked() -> Iterator[None]:
    yield
    durable.install_hook(None)


def begun(gateway: Gateway, **options: Any) -> tuple[JobInfo, Path]:
    """A job that has asked for its thaws, in bulk."""
    target = gateway.root / f"to-{next(gateway.names)}"
    gateway.engine.restore(Reference.parse("src"), target, detach=True, **options)
    return gateway.engine.jobs()[0], target


def thaws(gateway: Gateway) -> list[str]:
    return [e.key for e in gateway.store.log() if e.what is Operation.THAW and e.status in (200, 202)]


def reads(gateway: Gateway) -> list[str]:
    return [e.key for e in gateway.store.log() if e.what is Operation.GET and e.key.startswith("packs/flex/")]


def wake(gateway: Gateway, job: JobInfo) -> None:
    """Until all is thawed, without a look at it."""
    gateway.clock.sleep(ENOUGH)
    assert job.state is RestoreState.THAWING


def scratch(gateway: Gateway, job: JobInfo) -> Path:
    return gateway.config.state.directory / "restore" / job.id


def fetched_only(gateway: Gateway, job: JobInfo) -> list[Path]:
    """Let a job fetch everything and end before it writes a file."""

    def hook(moment: str, name: str) -> None:
        if moment == "before" and name.startswith("target:"):
            raise LocalStateError("halted")

    durable.install_hook(hook)
    with pytest.raises((LocalStateError, TargetError)):
        gateway.engine.watch_job(job.id)
    durable.install_hook(None)
    found = sorted(scratch(gateway, job).iterdir())
    assert found
    assert all(path.suffix == "" for path in found)
    return found


def delivered(gateway: Gateway, job: JobInfo, target: Path) -> None:
    if gateway.engine.job(job.id).state is RestoreState.PAUSED:
        gateway.engine.resume_job(job.id)
    gateway.engine.watch_job(job.id)
    assert gateway.engine.job(job.id).state is RestoreState.DELIVERED
    assert tree(target) == tree(gateway.source.root)
    root = gateway.config.state.directory / "restore"
    assert not root.exists() or list(root.iterdir()) == []


# --- power cuts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["holes", "garbage", "short", "empty"])
def test_a_part_is_believed_as_far_as_its_frames_are_whole(frozen: Gateway, hooked: None, left: str) -> None:
    job, target = begun(frozen)
    wake(frozen, job)
    done = fetched_only(frozen, job)
    before = len(reads(frozen))
    for path in done:
        data = path.read_bytes()
        half = len(data) // 2
        match left:
            case "holes":
                data = data[:half] + bytes(len(data) - half)
            case "garbage":
                data = data[:half] + os.urandom(len(data) - half)
            case "short":
                data = data[:half]
            case _:
                data = b""
        path.unlink()
        path.with_suffix(".part").write_bytes(data)
    _forget_fetched(frozen, job)
    delivered(frozen, job, target)
    assert len(reads(frozen)) - before <= len(done) * 3, "no more than one read a range"
    assert len(thaws(frozen)) == len(set(thaws(frozen)))


def test_a_part_that_is_whole_is_not_fetched_again(frozen: Gateway, hooked: None) -> None:
    job, target = begun(frozen)
    wake(frozen, job)
    for path in fetched_only(frozen, job):
        path.rename(path.with_suffix(".part"))
    _forget_fetched(frozen, job)
    before = len(reads(frozen))
    delivered(frozen, job, target)
    assert len(reads(frozen)) == before


def _forget_fetched(gateway: Gateway, job: JobInfo) -> None:
    """As if the power had gone before the note that a pack is fetched."""
    from gateway.policy.thaw import Stage

    gateway.close()
    with Catalog(gateway.config.state.directory / "catalog.sqlite") as catalog:
        row = catalog.restore(job.id)
        assert row is not None
        packs = [replace(each, stage=Stage.READY) for each in catalog.restore_packs(job.id)]
        catalog.put_restore(row, packs)


@pytest.mark.parametrize("noted", [True, False])
def test_files_whose_names_were_lost(frozen: Gateway, hooked: None, noted: bool) -> None:
    """Their notes say fetched, and the directory was not synced."""
    job, target = begun(frozen)
    wake(frozen, job)
    for path in fetched_only(frozen, job):
        path.unlink()
    if not noted:
        _forget_fetched(frozen, job)
    delivered(frozen, job, target)
    assert len(thaws(frozen)) == len(set(thaws(frozen)))


@pytest.mark.parametrize("copies", ["thawed", "gone"])
def test_a_finished_file_that_is_garbage_is_not_believed(frozen: Gateway, hooked: None, copies: str) -> None:
    """The store is read in its place; where its copies are gone, they are asked for again."""
    job, target = begun(frozen)
    wake(frozen, job)
    for path in fetched_only(frozen, job):
        path.write_bytes(os.urandom(path.stat().st_size))
    if copies == "gone":
        frozen.clock.advance(10 * DAY)
    asked = len(thaws(frozen))
    delivered(frozen, job, target)
    assert (len(thaws(frozen)) == asked) is (copies == "thawed")


# --- the store --------------------------------------------------------------------------------------------------------


def test_a_pack_that_is_lost_leaves_its_files_out(frozen: Gateway) -> None:
    """Before the plan, and while it thaws."""
    keys = [each.key for each in frozen.store.list_objects("packs/flex/")]
    frozen.lose(keys[0])
    frozen.healthy = False
    job, target = begun(frozen)
    frozen.lose(keys[-1])
    wake(frozen, job)
    report = frozen.engine.watch_job(job.id)
    named = {each.path for each in report.left_out}
    assert named
    assert named < {b"a", b"b", b"c"}
    assert {path.name.encode() for path in target.iterdir()} == {b"a", b"b", b"c"} - named
    now = frozen.engine.job(job.id)
    assert (now.state, now.left_out) == (RestoreState.PARTIAL, len(named))
    for path in target.iterdir():
        assert path.read_bytes() == (frozen.source.root / path.name).read_bytes()


def test_a_pack_that_rotted_leaves_its_files_out(frozen: Gateway) -> None:
    key = next(iter(frozen.store.list_objects("packs/flex/"))).key
    size = len(frozen.store.dump()[key])
    frozen.store.rot(key, os.urandom(size))
    frozen.healthy = False
    job, target = begun(frozen)
    wake(frozen, job)
    report = frozen.engine.watch_job(job.id)
    named = {each.path for each in report.left_out}
    assert named
    assert frozen.engine.job(job.id).state is RestoreState.PARTIAL
    assert {path.name.encode() for path in target.iterdir()} == {b"a", b"b", b"c"} - named


def test_the_cache_is_evicted_while_a_job_waits(gateway: Gateway) -> None:
    """What the plan found in the cache is shared at once, or fetched by a thaw that nobody had planned."""
    gateway.engine.hold()
    freeze(gateway, files="abc", size=300 * KIB)
    cache = gateway.config.state.directory / "cache"
    kept = gateway.root / "state" / "cache"
    shutil.rmtree(cache)
    shutil.copytree(kept, cache)  # the machine that wrote it all
    some = sorted(path for path in cache.rglob("*") if path.is_file())[::2]
    for path in some:
        path.unlink()
    gateway.open()
    _, dry = gateway.restore(dry_run=True)
    states = {each.state: each.packs for each in dry.plan.by_state}
    assert states["cached"]
    assert states["cold"]
    job, target = begun(gateway)
    assert len(thaws(gateway)) == states["cold"]
    shutil.rmtree(cache)
    gateway.open()
    wake(gateway, job)
    delivered(gateway, job, target)


# --- here -------------------------------------------------------------------------------------------------------------


def test_a_full_target_pauses_the_job(frozen: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    job, target = begun(frozen)
    wake(frozen, job)
    resize = durable.resize

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(local.durable, "resize", full)
    with pytest.raises(TargetError, match="No space left"):
        frozen.engine.watch_job(job.id)
    now = frozen.engine.job(job.id)
    assert now.state is RestoreState.PAUSED
    assert "No space left" in now.reason
    monkeypatch.setattr(local.durable, "resize", resize)
    before = len(reads(frozen))
    frozen.clock.advance(20 * DAY)  # the copies are gone; what was fetched is here
    delivered(frozen, job, target)
    assert len(reads(frozen)) == before


def test_a_full_scratch_directory_pauses_the_job(frozen: Gateway, hooked: None) -> None:
    job, target = begun(frozen)
    wake(frozen, job)

    def hook(moment: str, name: str) -> None:
        if (moment, name) == ("before", "scratch-packs:fsync"):
            raise OSError(errno.ENOSPC, "No space left on device")

    durable.install_hook(hook)
    with pytest.raises(LocalStateError, match="No space left"):
        frozen.engine.watch_job(job.id)
    durable.install_hook(None)
    assert frozen.engine.job(job.id).state is RestoreState.PAUSED
    delivered(frozen, job, target)


def test_a_catalog_that_is_lost_while_packs_thaw(frozen: Gateway) -> None:
    """Whoever restores again shares the thaws that nobody here remembers."""
    job, _ = begun(frozen)
    asked = thaws(frozen)
    assert asked
    (frozen.config.state.directory / "catalog.sqlite").unlink()
    frozen.open().rebuild()
    assert frozen.engine.jobs() == []
    assert not scratch(frozen, job).exists(), "nobody knows the job any more"
    again, target = begun(frozen)
    assert thaws(frozen) == asked
    assert (again.spent_usd or 0) < (job.spent_usd or 0)
    frozen.engine.watch_job(again.id)
    assert tree(target) == tree(frozen.source.root)
    assert thaws(frozen) == asked


def test_what_others_thawed_since_the_plan_is_not_asked_for_again(frozen: Gateway) -> None:
    """A job that waited for its approval, while another came, thawed the same and ended."""
    frozen.close()
    config = frozen.config
    frozen.config = replace(config, restore=replace(config.restore, approval_above=Decimal(0)))
    with pytest.raises(Exception, match="approval"):
        begun(frozen)
    waiting = frozen.engine.jobs()[0]
    frozen.close()
    frozen.config = config
    job, target = begun(frozen)
    delivered(frozen, job, target)
    asked = thaws(frozen)
    frozen.engine.approve_job(waiting.id)
    report = frozen.engine.watch_job(waiting.id)
    assert tree(report.target) == tree(frozen.source.root)
    assert thaws(frozen) == asked


def test_one_runner_at_a_time(frozen: Gateway) -> None:
    job, target = begun(frozen)
    lock = durable.StateLock(scratch(frozen, job).parent, f"{job.id}.lock")
    wake(frozen, job)
    with pytest.raises(LockHeld):
        frozen.engine.turn_restore(job.id, no_progress)
    assert frozen.engine.cancel_job(job.id).state is RestoreState.CANCELLED
    assert scratch(frozen, job).exists(), "somebody works in it"
    lock.release()
    with pytest.raises(UsageError):
        frozen.engine.resume_job(job.id)
    other, target = begun(frozen)  # clears up, and finds all thawed
    assert not scratch(frozen, job).exists()
    assert other.state is RestoreState.DELIVERED
    assert tree(target) == tree(frozen.source.root)
    assert len(thaws(frozen)) == len(set(thaws(frozen)))


def test_a_scratch_directory_that_fails_stops_nothing_else(frozen: Gateway) -> None:
    root = frozen.config.state.directory / "restore"
    (root / "0123456789ab.lock").mkdir(parents=True)  # cannot be opened as a lock
    (root / "ba9876543210").mkdir()
    (root / "somebody's").mkdir()
    frozen.open()
    frozen.made()
    assert sorted(path.name for path in root.iterdir()) == ["0123456789ab.lock", "somebody's"]


@pytest.mark.parametrize("what", ["pause", "cancel"])
def test_stopped_by_somebody_else_while_it_fetches(frozen: Gateway, hooked: None, what: str) -> None:
    """The runner's next note does not take it back."""
    job, target = begun(frozen)
    wake(frozen, job)
    done: list[str] = []

    def hook(moment: str, name: str) -> None:
        if (moment, name) == ("after", "scratch-packs:rename") and not done:
            done.append(name)
            getattr(frozen.engine, f"{what}_job")(job.id, operator="anna")

    durable.install_hook(hook)
    report = frozen.engine.watch_job(job.id)
    durable.install_hook(None)
    assert done
    assert report.job is not None
    now = frozen.engine.job(job.id)
    assert now.state is {"pause": RestoreState.PAUSED, "cancel": RestoreState.CANCELLED}[what]
    assert "anna" in now.reason
    assert not target.exists()
    if what == "pause":
        assert any(scratch(frozen, job).iterdir())
        delivered(frozen, job, target)
    else:
        assert not list((frozen.config.state.directory / "restore").iterdir())


@pytest.mark.parametrize("what", ["pause", "cancel"])
def test_who_stops_a_job_that_has_just_ended_is_told(
    frozen: Gateway, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It ends between the look at it and the note."""
    job, target = begun(frozen)
    wake(frozen, job)
    change = Catalog.change_restore
    done: list[JobInfo] = []

    def late(catalog: Catalog, *arguments: Any) -> Any:
        if not done:
            frozen.engine.watch_job(job.id)
            done.append(frozen.engine.job(job.id))
        return change(catalog, *arguments)

    monkeypatch.setattr(Catalog, "change_restore", late)
    with pytest.raises(UsageError, match="it is delivered"):
        getattr(frozen.engine, f"{what}_job")(job.id)
    assert frozen.engine.job(job.id) == done[0]
    assert done[0].files_done == 3
    assert tree(target) == tree(frozen.source.root)


def test_a_pause_in_the_last_moment_loses_no_count(frozen: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is written, and the job's end is not noted yet."""
    job, target = begun(frozen)
    wake(frozen, job)
    end = Catalog.end_restore

    def paused(catalog: Catalog, *arguments: Any) -> Any:
        monkeypatch.setattr(Catalog, "end_restore", end)
        frozen.engine.pause_job(job.id, operator="anna")
        return end(catalog, *arguments)

    monkeypatch.setattr(Catalog, "end_restore", paused)
    frozen.engine.watch_job(job.id)
    now = frozen.engine.job(job.id)
    assert (now.state, now.files_done) == (RestoreState.PAUSED, 3)
    delivered(frozen, job, target)
    assert frozen.engine.job(job.id).files_done == 3


def test_an_outage_while_it_asks(frozen: Gateway) -> None:
    """What may have been asked for is looked at, and not asked for twice."""
    answers = iter([True, False, False] * 9)
    ask = frozen.store.thaw

    def flaky(*arguments: Any, **options: Any) -> Any:
        found = ask(*arguments, **options)
        if next(answers):
            raise StoreUnreachable("The answer was lost.")
        return found

    frozen.open()
    frozen.store.thaw = flaky  # type: ignore[method-assign]
    try:
        job, target = begun(frozen)
    except StoreUnreachable:
        job = frozen.engine.jobs()[0]
        target = job.target
    frozen.store.thaw = ask  # type: ignore[method-assign]
    delivered(frozen, job, target)
    assert len(thaws(frozen)) == len(set(thaws(frozen)))


# --- retention --------------------------------------------------------------------------------------------------------


def test_a_job_holds_what_it_restores(frozen: Gateway) -> None:
    """While it has not ended: no expiry, no sweep; not even where another machine let the generation expire."""
    frozen.source.noise("a", 300 * KIB)
    frozen.made()
    frozen.change()
    rules = RetentionRules(keep_last=1, sweep_after=0 * DAY)
    frozen.config = replace(frozen.config, retention=(RetentionConfig(sources=("src",), rules=rules),))
    target = frozen.root / "held"
    frozen.engine.restore(Reference.parse("src@1"), target, detach=True)
    (job,) = frozen.engine.jobs()
    reasons = {d.number: d.reasons for d in frozen.engine.retention_plan().decisions}
    assert any("a restore job reads it" in each.text for each in reasons[1])
    with pytest.raises(UsageError, match="a restore job reads it"):
        frozen.engine.expire_generation(Reference.parse("src@1"))

    other = frozen.elsewhere()  # a machine that knows nothing of the job
    engine = frozen.open(other)
    engine.rebuild()
    engine.expire_generation(Reference.parse("src@1"))
    frozen.close(other.state.directory)
    frozen.clock.advance(100 * DAY)  # what GLACIER is billed for anyway
    before = frozen.keys("packs/flex/")
    report = frozen.engine.sweep()
    assert frozen.keys("packs/flex/") == before
    assert report.deleted == 0
    frozen.engine.watch_job(job.id)
    assert sorted(path.name for path in target.iterdir()) == ["a", "b", "c"]
    frozen.engine.sweep()
    assert len(frozen.keys("packs/flex/")) < len(before)


def test_a_generation_that_is_gone_ends_the_job(frozen: Gateway) -> None:
    job, _ = begun(frozen)
    for key in frozen.keys("chains/"):
        frozen.store.delete(key)
    frozen.healthy = False
    frozen.open()
    with pytest.raises(Exception):  # noqa: B017 - whichever is noticed first
        frozen.engine.watch_job(job.id)
    now = frozen.engine.job(job.id)
    assert now.state is RestoreState.FAILED
    assert now.reason
