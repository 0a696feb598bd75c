"""A run that was cut off: what it left is gone on from, and nothing is sent twice."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gateway.api import GenerationInfo, Progress, Reference
from gateway.errors import StoreDenied, StoreError, UsageError
from tests.flow.gateways import KIB, Gateway
from tests.flow.trees import tree


def packs(gateway: Gateway) -> dict[str, int]:
    return {key: len(data) for key, data in gateway.store.dump().items() if key.startswith("packs/")}


def cut_off(gateway: Gateway, faults: str) -> None:
    """A run that the store ends."""
    gateway.store.faults.add(faults)
    with pytest.raises(StoreError):
        gateway.ingest()
    gateway.store.faults.clear()


@pytest.mark.parametrize("restart", [False, True])
def test_packs_of_a_failed_run_are_adopted(gateway: Gateway, restart: bool) -> None:
    for number in range(8):
        gateway.source.noise(f"f{number}", 200 * KIB)
    cut_off(gateway, "complete:4+=denied")
    assert not gateway.keys("chains/src/000001/log/")
    assert not gateway.engine.generations()
    sent = packs(gateway)
    assert len(sent) >= 2
    if restart:
        gateway.open()
    before = gateway.store.meter()
    report = gateway.ingest()
    used = gateway.store.meter() - before
    assert report.generation is not None
    everything = packs(gateway)
    assert set(sent) < set(everything)
    # What was acknowledged is declared, and was not sent again; nothing lies about that no entry names.
    shown = gateway.engine.show(Reference.parse("src"))
    assert {key.rpartition("-")[2] for key in everything} == {pack.id for pack in shown.packs}
    assert used.of("part").sent + used.of("put").sent < sum(everything.values()) - sum(sent.values()) + 40 * KIB
    # Chunks in those packs were known.
    assert report.new_bytes < 8 * 200 * KIB - sum(sent.values()) / 2
    assert gateway.restored() == tree(gateway.source.root)


def test_parts_of_a_failed_upload_are_not_sent_again(gateway: Gateway) -> None:
    gateway.source.noise("f", 240 * KIB)
    cut_off(gateway, "complete:1+=denied")
    assert not gateway.keys("packs/instant/")
    gateway.open()
    before = gateway.store.meter()
    gateway.made()
    used = gateway.store.meter() - before
    assert (used.requests("part"), used.requests("start"), used.requests("complete")) == (0, 0, 1)
    assert gateway.restored() == tree(gateway.source.root)


def test_an_upload_the_store_forgot_is_begun_again(gateway: Gateway) -> None:
    gateway.source.noise("f", 240 * KIB)
    cut_off(gateway, "complete:1+=denied")
    (upload,) = gateway.store.list_uploads("packs/")
    gateway.store.abort_upload(upload.key, upload.upload_id)
    gateway.made()
    assert gateway.restored() == tree(gateway.source.root)


def test_a_lost_cache_costs_the_packs_that_were_not_sent(gateway: Gateway) -> None:
    import shutil

    for number in range(8):
        gateway.source.noise(f"f{number}", 200 * KIB)
    cut_off(gateway, "complete:4+=denied")
    gateway.close()
    shutil.rmtree(gateway.config.state.directory / "cache")
    gateway.made()
    assert gateway.restored() == tree(gateway.source.root)


def test_files_that_went_after_a_failed_run_are_not_in_the_next(gateway: Gateway) -> None:
    for number in range(8):
        gateway.source.noise(f"f{number}", 200 * KIB)
    cut_off(gateway, "put@packs/meta:1+=denied")
    gateway.source.path("f0").unlink()
    gateway.source.noise("f1", 200 * KIB)
    gateway.made()
    assert gateway.restored() == tree(gateway.source.root)


# --- checkpoints -----------------------------------------------------------------------------------------------------


def cut_off_after_a_checkpoint(gateway: Gateway) -> GenerationInfo:
    gateway.change(sizes={"checkpoint_packs": 3})
    for number in range(20):
        gateway.source.noise(f"f{number:02d}", 200 * KIB)
    gateway.store.faults.add("put@/log/00000003:1+=denied")
    with pytest.raises(StoreDenied):
        gateway.ingest()
    gateway.store.faults.clear()
    assert len(gateway.keys("chains/src/000001/log/")) == 2
    (info,) = gateway.engine.generations()
    return info


def test_a_checkpoint_is_shown_and_restored_when_asked_for(gateway: Gateway) -> None:
    info = cut_off_after_a_checkpoint(gateway)
    assert (info.state, info.number, info.reason) == (
        "incomplete", 1, "it is a checkpoint of a run that has not ended",
    )  # fmt: skip
    assert 3 <= info.files < 20
    with pytest.raises(UsageError):
        gateway.restore()
    found = gateway.restored(incomplete=True)
    whole = tree(gateway.source.root)
    assert len(found) == info.files
    assert all(whole[path] == node for path, node in found.items())
    # It is in the bucket, not only here.
    assert not gateway.lose_state().problems[1:]
    assert gateway.restored(incomplete=True) == found


@pytest.mark.parametrize("lost", [False, True])
def test_the_next_run_goes_on_from_a_checkpoint(gateway: Gateway, lost: bool) -> None:
    info = cut_off_after_a_checkpoint(gateway)
    if lost:
        gateway.lose_state()
    sent = packs(gateway)
    report = gateway.ingest()
    assert report.generation is not None
    # A number that was given to a checkpoint is not given again.
    assert (report.generation.number, report.generation.state) == (2, "protected")
    assert report.generation.id != info.id
    assert [each.number for each in gateway.engine.generations()] == [2]
    in_checkpoint = info.files * 200 * KIB
    assert report.new_bytes <= 20 * 200 * KIB - in_checkpoint
    assert set(sent) <= set(packs(gateway))
    assert gateway.restored() == tree(gateway.source.root)
    assert gateway.ingest().bytes_read == 0


def test_time_alone_makes_a_checkpoint(gateway: Gateway) -> None:
    for number in range(20):
        gateway.source.noise(f"f{number}", 200 * KIB)

    def slow(progress: Progress) -> None:
        if progress.phase == "reading":
            gateway.clock.advance(timedelta(minutes=45))

    gateway.made(progress=slow)
    assert len(gateway.keys("chains/src/000001/log/")) > 1
    (info,) = gateway.engine.generations()
    assert info.number == 1
    assert gateway.restored() == tree(gateway.source.root)


def test_a_checkpoint_after_a_generation_is_superseded_too(gateway: Gateway) -> None:
    gateway.source.noise("old", 100 * KIB)
    gateway.made()
    gateway.change(sizes={"checkpoint_packs": 2})
    for number in range(12):
        gateway.source.noise(f"f{number:02d}", 200 * KIB)
    gateway.store.faults.add("put@/log/00000003:1+=denied")
    with pytest.raises(StoreDenied):
        gateway.ingest()
    gateway.store.faults.clear()
    assert [(each.number, str(each.state)) for each in gateway.engine.generations()] == [
        (1, "protected"), (2, "incomplete"),
    ]  # fmt: skip
    assert list(gateway.restored()) == [b"old"]  # the latest is the newest that is protected
    gateway.made()
    assert [(each.number, str(each.state)) for each in gateway.engine.generations()] == [
        (1, "protected"), (3, "protected"),
    ]  # fmt: skip
    assert gateway.restored() == tree(gateway.source.root)
