"""What is stored: new chunks, once."""

from __future__ import annotations

import pytest

from gateway.api import Reference
from gateway.policy.advice import WORTH_SAYING
from tests.flow.gateways import KIB, Gateway
from tests.flow.trees import noise, tree

GREATEST_CHUNK = 16 * KIB


def stored(gateway: Gateway, storage: str) -> int:
    return sum(len(data) for key, data in gateway.store.dump().items() if key.startswith(f"packs/{storage}/"))


def test_a_changed_file_costs_its_changed_chunks(gateway: Gateway) -> None:
    gateway.source.noise("big", 1_500_000)
    gateway.made()
    before = stored(gateway, "instant")
    gateway.source.overwrite("big", 700_000, b"x" * 100)
    report = gateway.ingest()
    assert 0 < report.new_bytes <= 4 * GREATEST_CHUNK
    assert stored(gateway, "instant") - before < report.new_bytes + 2 * KIB
    assert gateway.restored() == tree(gateway.source.root)


def test_an_insertion_shifts_everything_and_costs_little(gateway: Gateway) -> None:
    data = noise(1, 1_000_000)
    gateway.source.write("big", data)
    gateway.made()
    gateway.source.write("big", b"inserted" + data)
    report = gateway.ingest()
    assert 0 < report.new_bytes <= 2 * GREATEST_CHUNK
    gateway.source.write("big", b"inserted" + data + b"appended")
    assert 0 < gateway.ingest().new_bytes <= 2 * GREATEST_CHUNK
    assert gateway.restored() == tree(gateway.source.root)


@pytest.mark.parametrize("workers", [1, 3])
def test_equal_files_are_stored_once(gateway: Gateway, workers: int) -> None:
    from dataclasses import replace

    gateway.config = replace(gateway.config, limits=replace(gateway.config.limits, workers=workers))
    data = noise(1, 600_000)
    for name in ("a", "b", "c"):
        gateway.source.write(name, data)
    report = gateway.ingest()
    # Several workers may meet a chunk at one time: what each has in an open segment is not known to the others yet.
    assert report.new_bytes <= (600_000 if workers == 1 else 1_800_000)
    assert gateway.restored() == tree(gateway.source.root)
    gateway.source.write("d", data)
    assert gateway.ingest().new_bytes == 0


def test_a_renamed_file_costs_no_data(gateway: Gateway) -> None:
    gateway.source.noise("d/old", 500_000)
    gateway.made()
    before = stored(gateway, "instant")
    gateway.source.path("d").rename(gateway.source.path("e"))
    report = gateway.ingest()
    assert (report.new_bytes, report.bytes_read) == (0, 500_000)
    assert stored(gateway, "instant") == before
    assert gateway.restored() == tree(gateway.source.root)


def test_a_file_that_comes_back_is_known(gateway: Gateway) -> None:
    gateway.source.noise("a", 200_000)
    data = gateway.source.path("a").read_bytes()
    gateway.made()
    gateway.source.noise("a", 200_000)
    gateway.made()
    gateway.source.write("a", data)
    assert gateway.ingest().new_bytes == 0
    assert gateway.restored() == tree(gateway.source.root)


def test_unchanged_records_are_carried_as_bytes(gateway: Gateway) -> None:
    for number in range(1500):
        gateway.source.write(f"d{number % 20}/f{number}", b"%d" % number)
    gateway.made()
    first = stored(gateway, "meta")
    gateway.source.write("d3/f3", b"changed")
    report = gateway.ingest()
    assert (report.files_read, report.files_unchanged) == (1, 1499)
    assert stored(gateway, "meta") - first < first / 8
    # With nothing known of the files, all are read, and their records are still those of before.
    gateway.lose_state()
    second = stored(gateway, "meta")
    gateway.source.write("d4/f4", b"changed")
    report = gateway.ingest()
    assert report.files_read == 1500
    assert stored(gateway, "meta") - second < first / 8
    assert gateway.restored() == tree(gateway.source.root)


def test_what_compresses_is_compressed_and_noise_is_not(gateway: Gateway) -> None:
    gateway.source.write("text", b"the same line again and again\n" * 20_000)
    gateway.source.noise("noise", 400_000)
    gateway.source.write("zeros", bytes(800_000))
    report = gateway.ingest()
    assert report.generation is not None
    assert 400_000 < report.stored_bytes < 440_000
    shown = gateway.engine.show(Reference.parse("src"))
    assert shown.statistics is not None
    assert shown.statistics.new_bytes < 1_100_000  # the zeros are one chunk


def test_packs_are_full_and_cut_into_parts(gateway: Gateway) -> None:
    gateway.source.noise("big", 2_000_000)
    before = gateway.store.meter()
    gateway.made()
    used = gateway.store.meter() - before
    sizes = [len(gateway.store.dump()[key]) for key in gateway.keys("packs/instant/")]
    assert len(sizes) >= 8
    assert max(sizes) <= 256 * KIB
    assert sorted(sizes)[2] > 200 * KIB
    assert used.requests("complete") >= 7
    assert used.requests("part") >= 4 * used.requests("complete") - 4
    assert gateway.restored() == tree(gateway.source.root)


def test_small_packs_stay_hot(gateway: Gateway) -> None:
    gateway.change(sizes={"small_pack_bytes": 100 * KIB})
    gateway.source.noise("small", 10_000)
    gateway.made()
    assert len(gateway.keys("packs/hot/")) == 1
    assert not gateway.keys("packs/instant/")
    gateway.source.noise("large", 600_000)
    gateway.made()
    assert len(gateway.keys("packs/instant/")) >= 2
    classes = {facts.key.split("/")[1]: facts.storage_class for facts in gateway.store.list_objects("packs/")}
    assert classes["instant"] == "GLACIER_IR"
    assert classes["hot"] == classes["meta"] == "STANDARD"
    assert gateway.restored() == tree(gateway.source.root)


def test_noise_before_what_compresses_does_not_keep_it_from_being_compressed(gateway: Gateway) -> None:
    gateway.change(sizes={"segment_bytes": 64 * KIB, "pack_bytes": 1024 * KIB})
    text = b"".join(b"line %d of a text that compresses well\n" % number for number in range(20_000))
    gateway.source.write("mixed", noise(1, 1_000_000) + text + noise(2, 1_000_000))
    report = gateway.ingest()
    assert 2_000_000 < report.stored_bytes < 2_000_000 + len(text) // 2
    assert gateway.restored() == tree(gateway.source.root)


def test_a_source_that_cannot_be_reduced_is_told_so(gateway: Gateway) -> None:
    gateway.change(sizes={"segment_bytes": 256 * KIB, "pack_bytes": 16 * KIB * KIB, "part_bytes": 1024 * KIB})
    gateway.source.noise("backup.gz", WORTH_SAYING)
    gateway.made()
    shown = gateway.engine.show(Reference.parse("src"))
    assert shown.advice
    assert shown.advice[0].startswith("100% of the new data")
    assert "source.not_reducible" in {event.name for event in gateway.events.events}
    gateway.source.write("text", b"compresses well " * (WORTH_SAYING // 16))
    gateway.made()
    assert not gateway.engine.show(Reference.parse("src")).advice
