"""Lists in many parts: outlines name the parts, and who wants little reads little."""

from __future__ import annotations

import pytest

from gateway.api import Reference
from gateway.catalog import Catalog, GenerationRow
from gateway.repository import lists
from tests.flow.gateways import KIB, Gateway
from tests.flow.trees import noise, tree


def rows(gateway: Gateway) -> list[GenerationRow]:
    gateway.close()
    with Catalog(gateway.config.state.directory / "catalog.sqlite", read_only=True) as catalog:
        return catalog.generations()


def fill(gateway: Gateway, count: int) -> None:
    for number in range(count):
        gateway.source.write(f"d{number // 50:03d}/file-{number:05d}", b"%d" % number)


@pytest.mark.parametrize(
    ("files", "records", "runs_bytes", "depth"),
    [(3, 8, 64, 0), (60, 8, 64 * KIB, 1), (400, 8, 1, 2), (900, 2, 1, 3), (1500, 1, 1, 4)],
)
def test_outlines_grow_as_lists_do(gateway: Gateway, files: int, records: int, runs_bytes: int, depth: int) -> None:
    gateway.change(sizes={"list_part_records": records, "outline_runs_bytes": runs_bytes})
    fill(gateway, files)
    gateway.made()
    assert rows(gateway)[0].list_depth == depth
    assert gateway.list() == list(tree(gateway.source.root))
    for number in (0, files // 2, files - 1):
        path = b"d%03d/file-%05d" % (number // 50, number)
        assert gateway.list("src", path) == [path]
    assert gateway.list("src", b"d000") == [b"d000", *(b"d000/file-%05d" % n for n in range(min(files, 50)))]


def received(gateway: Gateway, path: bytes) -> tuple[int, int]:
    """Requests and bytes that a listing took, without what opening the chain takes."""
    engine = gateway.open()
    list(engine.generations())
    start = gateway.store.meter()
    engine.show(Reference.parse("src"))
    opened = gateway.store.meter()
    assert gateway.list("src", path)
    end = gateway.store.meter()
    again, more = (opened - start).of("get"), (end - opened).of("get")
    # Opening again costs less than the first time, when keys and indexes were fetched.
    return max(0, more.requests - again.requests), more.received


def test_who_wants_little_of_a_list_reads_little(gateway: Gateway) -> None:
    gateway.change(sizes={"list_part_records": 16, "outline_runs_bytes": 256, "segment_bytes": 4 * KIB})
    fill(gateway, 3000)
    gateway.made()
    gateway.lose_state()  # nothing in the pack cache
    everything = received(gateway, b"")
    one = received(gateway, b"d020/file-01024")
    subtree = received(gateway, b"d020")
    assert rows(gateway)[0].list_depth >= 1
    assert one[1] < everything[1] / 4
    assert subtree[1] < everything[1] / 3
    assert one[0] <= 6


def test_one_file_of_many_is_restored_for_little(gateway: Gateway) -> None:
    gateway.change(sizes={"list_part_records": 16, "segment_bytes": 4 * KIB})
    fill(gateway, 2000)
    gateway.made()
    gateway.lose_state()
    wanted = b"d010/file-00512"
    gateway.engine.show(Reference.parse("src"))
    start = gateway.store.meter()
    _, report = gateway.restore(paths=[wanted])
    used = (gateway.store.meter() - start).of("get")
    assert (report.files, report.plan.files, report.plan.packs) == (1, 1, 1)
    packs = sum(len(gateway.store.dump()[key]) for key in gateway.keys("packs/"))
    assert used.received < packs / 3
    found = gateway.restored(paths=[wanted])
    assert list(found) == [b"d010", wanted]


def test_an_insertion_moves_no_other_boundary(gateway: Gateway) -> None:
    fill(gateway, 1000)
    gateway.made()
    before = {row.number: row for row in rows(gateway)}[1]
    gateway.source.write("d007/a new one", b"new")
    gateway.made()
    after = {row.number: row for row in rows(gateway)}[2]
    packs = gateway.engine.show(Reference.parse("src@2")).packs
    new = sum(pack.bytes for pack in packs if pack.new and pack.storage_class == "meta")
    old = sum(pack.bytes for pack in packs if not pack.new and pack.storage_class == "meta")
    assert before.list_depth == after.list_depth == 1
    assert new < old / 5


def test_a_file_whose_records_pass_over_several_parts(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "PART_BYTES", KIB)
    piece = 20 * KIB
    pieces = [noise(n, piece) for n in range(120)]
    gateway.source.write("a", b"a")
    gateway.source.write("m/shuffled", b"".join(pieces))
    gateway.source.write("z", b"z")
    gateway.made()
    # The same pieces in another order: each is a run of its own, and there are holes between some of them.
    order = sorted(range(120), key=lambda n: noise(n, 8))
    gateway.source.sparse("m/shuffled", 20_000_000, [(at * 32 * KIB, pieces[n]) for at, n in enumerate(order)])
    gateway.source.write("m/next", b"n")
    second = gateway.ingest()
    assert second.generation is not None
    assert second.new_bytes < 120 * 3 * 4 * KIB  # what was cut anew at the ends of the pieces
    row = rows(gateway)[1]
    assert row.list_depth >= 1
    for path in (b"a", b"m", b"m/next", b"m/shuffled", b"z"):
        assert gateway.list("src@2", path)[0] == path
    whole = gateway.restored("src@2")
    assert whole == tree(gateway.source.root)
    for path in (b"m/shuffled", b"z", b"m/next"):
        part = gateway.restored("src@2", paths=[path])
        assert part[path] == whole[path]


def test_an_empty_generation_has_an_empty_list(gateway: Gateway) -> None:
    gateway.source.write("a", b"a")
    gateway.made()
    gateway.source.path("a").unlink()
    gateway.source.path("d").mkdir()
    gateway.made()
    assert gateway.list("src@2") == [b"d"]
    assert gateway.restored("src@2") == tree(gateway.source.root)
