"""What changed is compressed against what stood at its place before, and comes back as it was, whatever happens to
the cache."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gateway.api import Reference, Statistics
from gateway.config.values import CacheConfig
from gateway.errors import Missing
from gateway.format import limits
from gateway.format.segment import Encoding
from gateway.model.ids import in_ranges
from gateway.repository.chunk_index import ChunkIndex
from gateway.repository.closures import Closures
from gateway.repository.earlier import NEAR, Earlier
from gateway.repository.reader import ChainReader
from tests.flow.gateways import KIB, Gateway
from tests.flow.test_reduction import stored
from tests.flow.trees import noise, tree

PAGE = 1024


def write_pages(gateway: Gateway, name: str, pages: int, seed: int = 1) -> None:
    gateway.source.write(name, noise(seed, pages * PAGE))


def change_pages(gateway: Gateway, name: str, share: float, seed: int) -> int:
    """Change twenty bytes in so many of the pages; how many bytes that are."""
    chance = random.Random(seed)
    data = bytearray(gateway.source.path(name).read_bytes())
    count = max(1, int(len(data) // PAGE * share))
    for page in chance.sample(range(len(data) // PAGE), count):
        at = page * PAGE + chance.randrange(PAGE - 20)
        data[at : at + 20] = chance.randbytes(20)
    gateway.source.write(name, bytes(data))
    return 20 * count


def statistics(gateway: Gateway) -> Statistics:
    found = gateway.engine.show(Reference.parse("src")).statistics
    assert found is not None
    return found


def cached(gateway: Gateway) -> list[Path]:
    return sorted(path for path in (gateway.config.state.directory / "cache").rglob("*-*") if path.is_file())


def deepest(gateway: Gateway, *storages: str) -> int:
    """The greatest depth of a segment of the newest chain, in packs of these storages; all bounds are checked."""
    context = gateway.engine._reading()
    chain = context.open_chain(context.chains_of("src")[-1])
    indexes = context.indexes(chain)
    closures, greatest = Closures(indexes), 0
    for number, state in chain.fold.packs.items():
        below = set[int]()
        for segment in indexes.opened(number).directory.segments:
            depth = closures.of(number, segment).depth
            if not storages or state.declaration.storage in storages:
                greatest = max(greatest, depth)
            assert sum(run.count for run in segment.bases) == 0 or segment.encoding is Encoding.DELTA
            assert len(segment.bases) <= limits.BASE_RUNS
            below.update(run.pack for run in segment.bases)
        assert below - {number} == set(in_ranges(state.declaration.bases))
    return greatest


def test_changed_pages_cost_what_changed_in_them(gateway: Gateway) -> None:
    write_pages(gateway, "db", 2000)
    gateway.made()
    before = stored(gateway, "instant")
    changed = change_pages(gateway, "db", 0.05, 1)
    report = gateway.ingest()
    assert report.new_bytes > 300 * KIB
    assert stored(gateway, "instant") - before < 8 * changed
    taken = statistics(gateway)
    assert taken.delta_bytes == taken.new_bytes
    assert (taken.bases_missing, taken.bases_bounded) == (0, 0)
    assert gateway.restored() == tree(gateway.source.root)


def test_thirty_generations_stay_cheap_within_the_bounds_and_come_back(gateway: Gateway) -> None:
    write_pages(gateway, "db", 1000)
    wanted = {1: noise(1, 1000 * PAGE)}
    gateway.made()
    first, bounded, new = stored(gateway, "instant"), 0, 0
    for number in range(2, 31):
        change_pages(gateway, "db", 0.05, number)
        gateway.made()
        taken = statistics(gateway)
        bounded, new = bounded + (taken.bases_bounded or 0), new + (taken.new_chunks or 0)
        wanted[number] = gateway.source.path("db").read_bytes()
    assert stored(gateway, "instant") - first < first
    assert bounded < new / 100
    assert deepest(gateway) == limits.DEPTH
    for number, data in wanted.items():
        target, _ = gateway.restore(f"src@{number}")
        assert (target / "db").read_bytes() == data


def test_what_is_inserted_moves_the_rest_along(gateway: Gateway) -> None:
    lines = [b"%06d;%s\n" % (number, noise(number, 30).hex().encode()) for number in range(12_000)]
    gateway.source.write("dump.sql", b"".join(lines))
    gateway.made()
    before = stored(gateway, "instant")
    chance = random.Random(3)
    for at in chance.sample(range(len(lines)), 120):
        lines[at] = b"%06d;changed %s\n" % (at, chance.randbytes(chance.randrange(60)).hex().encode())
    gateway.source.write("dump.sql", b"".join(lines))
    report = gateway.ingest()
    assert report.new_bytes > 300 * KIB
    assert stored(gateway, "instant") - before < 40 * KIB
    assert gateway.restored() == tree(gateway.source.root)


def test_pages_whose_addresses_all_change_keep_their_places(gateway: Gateway) -> None:
    """Nothing matches exactly any more, and still everything stands where it stood."""
    pages = [noise(number, PAGE - 8) for number in range(600)]
    gateway.source.write("db", b"".join(b"%08d" % number + page for number, page in enumerate(pages)))
    gateway.made()
    before = stored(gateway, "instant")
    gateway.source.write("db", b"".join(b"%08d" % (number + 7000) + page for number, page in enumerate(pages)))
    report = gateway.ingest()
    assert report.new_bytes == 600 * PAGE
    assert stored(gateway, "instant") - before < 40 * KIB
    assert gateway.restored() == tree(gateway.source.root)


def test_small_files_are_compressed_against_what_they_were(gateway: Gateway) -> None:
    for number in range(300):
        gateway.source.write(f"d{number % 7}/f{number:03}", noise(number, 2000))
    gateway.made()
    before = stored(gateway, "instant")
    for number in range(0, 300, 3):
        gateway.source.write(f"d{number % 7}/f{number:03}", noise(number, 1000) + b"!" + noise(number, 2000)[1000:])
    gateway.source.noise("d3/new", 3000)
    gateway.ingest()
    assert stored(gateway, "instant") - before < 3000 + 30 * KIB
    assert gateway.restored() == tree(gateway.source.root)


def test_a_list_costs_what_changed_in_it(gateway: Gateway) -> None:
    gateway.change(sizes={"list_part_records": 256, "segment_bytes": 256 * KIB, "pack_bytes": 1024 * KIB})
    for number in range(3000):
        gateway.source.write(f"d{number % 50}/f{number:05}", b"%d" % number)
    gateway.made()
    first = stored(gateway, "meta")
    for number in range(0, 3000, 100):
        gateway.source.write(f"d{number % 50}/f{number:05}", b"changed %d" % number)
    gateway.made()
    assert stored(gateway, "meta") - first < first / 10
    assert gateway.restored() == tree(gateway.source.root)
    assert gateway.restored("src@1").keys() == gateway.restored().keys()


def test_the_rescue_script_restores_deltas(gateway: Gateway) -> None:
    write_pages(gateway, "db", 500)
    for number in range(1, 12):
        for name in range(40):
            gateway.source.write(f"files/{name:02}", b"%d" % (number * name // 7))
        gateway.made()
        wanted = tree(gateway.source.root)
        change_pages(gateway, "db", 0.1, number)
    root = gateway.root / "repository"
    for key, data in gateway.store.dump().items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(data)
    sheet, restored = gateway.root / "sheet", gateway.root / "rescued"
    sheet.write_text(gateway.born.sheet)
    script = Path(__file__).parents[2] / "scripts" / "rescue.py"
    words = [sys.executable, script, "--recovery-sheet", sheet, root, "restore", "src", "--to", restored]
    subprocess.run(words, check=True, capture_output=True, cwd=gateway.root)
    assert tree(restored) == wanted


def test_without_the_cache_everything_is_plain_and_right(gateway: Gateway) -> None:
    write_pages(gateway, "db", 500)
    gateway.made()
    gateway.close()
    shutil.rmtree(gateway.config.state.directory / "cache")
    change_pages(gateway, "db", 0.1, 2)
    gateway.made()
    taken = statistics(gateway)
    assert taken.delta_bytes == 0
    assert taken.bases_missing == taken.new_chunks
    assert gateway.restored() == tree(gateway.source.root)
    change_pages(gateway, "db", 0.1, 3)
    gateway.made()
    again = statistics(gateway)
    assert 0 < (again.bases_missing or 0) < (again.new_chunks or 0)
    assert gateway.restored() == tree(gateway.source.root)


def test_a_cache_of_a_third_gives_a_third(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """In proportion, and no cliff: what is missing is stored plain, the rest as deltas. The store is slow, so that
    packs wait in the cache for their upload.
    """
    put_part = gateway.store.put_part

    def slow(*args: Any, **options: Any) -> Any:
        threading.Event().wait(0.02)
        return put_part(*args, **options)

    monkeypatch.setattr(gateway.store, "put_part", slow)
    gateway.change(sizes={"pack_bytes": 64 * KIB, "part_bytes": 16 * KIB})
    write_pages(gateway, "db", 3000)
    gateway.made()
    gateway.close()
    gateway.config = replace(gateway.config, cache=CacheConfig(max_bytes=1024 * KIB))
    for number in range(2, 7):
        change_pages(gateway, "db", 0.1, number)
        gateway.made()
        taken = statistics(gateway)
        assert taken.new_chunks is not None
        assert taken.bases_missing is not None
        if number > 2:  # the second began with a cache that was still whole
            assert 0.35 < taken.bases_missing / taken.new_chunks < 0.9
        assert gateway.restored() == tree(gateway.source.root)
    assert sum(path.stat().st_size for path in cached(gateway)) <= 1024 * KIB
    assert taken.cache_wanted_bytes is not None
    assert taken.cache_wanted_bytes > 3000 * KIB


@pytest.mark.parametrize("harm", ["rot", "cut", "swap"])
def test_a_damaged_cache_never_becomes_a_base(gateway: Gateway, harm: str) -> None:
    write_pages(gateway, "db", 800)
    gateway.made()
    change_pages(gateway, "db", 0.1, 1)
    gateway.made()
    gateway.close()
    packs = cached(gateway)
    for number, path in enumerate(packs):
        data = path.read_bytes()
        if harm == "rot":
            data = bytes(byte ^ (at % 997 == 0) for at, byte in enumerate(data))
        elif harm == "cut":
            data = data[: len(data) // 2]
        else:
            data = packs[number - 1].read_bytes()
        path.unlink()
        path.write_bytes(data)
    change_pages(gateway, "db", 0.1, 2)
    gateway.made()
    assert gateway.restored() == tree(gateway.source.root)
    shutil.rmtree(gateway.config.state.directory / "cache")
    gateway.open()
    assert gateway.restored() == tree(gateway.source.root)


def test_a_lost_pack_is_no_base_any_more(gateway: Gateway) -> None:
    write_pages(gateway, "db", 800)
    gateway.made()
    (lost,) = gateway.keys("packs/instant/")[1:2]
    gateway.lose(lost)
    change_pages(gateway, "db", 0.1, 2)
    gateway.made()
    number = int(lost.rpartition("/")[2][:8], 16)
    shown = gateway.engine.show(Reference.parse("src"))
    assert number not in {pack.number for pack in shown.packs}
    assert gateway.restored() == tree(gateway.source.root)
    gateway.healthy = False


def test_chains_say_what_deltas_save(gateway: Gateway) -> None:
    write_pages(gateway, "db", 500)
    for number in range(1, 5):
        gateway.made()
        change_pages(gateway, "db", 0.1, number)
    (chain,) = gateway.engine.chains("src")
    assert (chain.chain, chain.state, chain.generations) == ("src/000001", "open", 4)
    assert chain.data_bytes == 4 * 500 * PAGE
    assert chain.full_bytes > 0.95 * chain.data_bytes
    assert chain.stored_bytes < chain.data_bytes / 3


def blocks(count: int, addresses: int, order: list[int] | None = None) -> bytes:
    """Blocks of a backup piece: each begins with an address, which producers write anew."""
    numbers = order or list(range(count))
    return b"".join(b"%08d" % (addresses + at) + noise(number, PAGE - 8) for at, number in enumerate(numbers))


def test_a_piece_with_another_name_and_other_addresses_is_recognised(gateway: Gateway) -> None:
    gateway.source.write("piece_0001", blocks(800, 0))
    gateway.made()
    before = stored(gateway, "instant")
    gateway.source.path("piece_0001").unlink()
    gateway.source.write("piece_0417", blocks(800, 5000))
    report = gateway.ingest()
    assert report.new_bytes > 790 * PAGE
    assert stored(gateway, "instant") - before < 100 * KIB
    assert gateway.restored() == tree(gateway.source.root)


def test_blocks_in_another_order_are_recognised(gateway: Gateway) -> None:
    """As when several files are multiplexed into one piece, and come at another pace."""
    gateway.source.write("piece_1", blocks(960, 0))
    gateway.made()
    before = stored(gateway, "instant")
    groups = [list(range(at, at + 32)) for at in range(0, 960, 32)]
    random.Random(1).shuffle(groups)
    gateway.source.path("piece_1").unlink()
    gateway.source.write("piece_2", blocks(960, 7000, [number for group in groups for number in group]))
    gateway.ingest()
    assert stored(gateway, "instant") - before < 320 * KIB
    assert gateway.restored() == tree(gateway.source.root)


def test_segments_of_a_shuffled_file_stand_on_few_places(gateway: Gateway) -> None:
    """As when files are multiplexed in another order: who restores decodes what a segment stands on, all of it."""
    gateway.config = replace(gateway.config, writer=replace(gateway.config.writer, segment_bytes=64 * KIB))
    groups = [noise(at, 24 * PAGE) for at in range(250)]
    gateway.source.write("piece", b"".join(groups))
    gateway.made()
    random.Random(1).shuffle(groups)
    changed = [group[: 9 * PAGE] + bytes(20) + group[9 * PAGE + 20 :] for group in groups]
    gateway.source.write("piece", b"".join(changed))
    gateway.made()
    taken = statistics(gateway)
    assert taken.new_bytes > len(groups) * 4 * KIB
    assert taken.delta_bytes == taken.new_bytes
    places = [places_of(bases) for bases in based_on(gateway)]
    assert max(places) <= 2, "its own, and that of what follows, of which the last chunk has a part"
    assert len(places) < len(groups), "a group is a segment, or two that followed one another are"
    assert gateway.restored() == tree(gateway.source.root)


def based_on(gateway: Gateway) -> list[list[int]]:
    """Where the bases of each delta segment of the newest chain are in the data of all packs, one behind the other."""
    context = gateway.engine._reading()
    chain = context.open_chain(context.chains_of("src")[-1])
    indexes, at, begin = context.indexes(chain), 0, dict[int, int]()
    packs = sorted(number for number, state in chain.fold.packs.items() if state.declaration.storage == "instant")
    for number in packs:
        begin[number], at = at, at + indexes.opened(number).directory.ends[-1]
    return [
        [begin[run.pack] + indexes.opened(run.pack).directory.ends[run.first] for run in segment.bases]
        for number in packs
        for segment in indexes.opened(number).directory.segments
        if segment.bases
    ]


def places_of(bases: list[int]) -> int:
    """How many places far from one another these are."""
    bases = sorted(bases)
    return 1 + sum(after - before > NEAR for before, after in pairwise(bases))


def test_sketches_are_found_after_a_restart_and_missed_without_harm(gateway: Gateway) -> None:
    gateway.source.write("piece_1", blocks(400, 0))
    gateway.made()
    gateway.close()
    shutil.rmtree(gateway.config.state.directory / "sketches")
    gateway.source.path("piece_1").unlink()
    gateway.source.write("piece_2", blocks(400, 5000))
    assert gateway.made()
    assert statistics(gateway).delta_bytes == 0
    gateway.close()
    gateway.source.path("piece_2").unlink()
    gateway.source.write("piece_3", blocks(400, 9000))
    gateway.made()
    taken = statistics(gateway)
    assert taken.delta_bytes == taken.new_bytes
    assert gateway.restored() == tree(gateway.source.root)


def test_lost_sketches_come_back_with_what_is_read_again(gateway: Gateway) -> None:
    gateway.source.write("piece_1", blocks(400, 0))
    gateway.made()
    gateway.close()
    shutil.rmtree(gateway.config.state.directory / "sketches")
    gateway.source.path("piece_1").touch()
    gateway.source.write("other", b"new")
    report = gateway.ingest()
    assert report.new_bytes < 100
    gateway.close()
    gateway.source.path("piece_1").unlink()
    gateway.source.write("piece_2", blocks(400, 5000))
    gateway.made()
    taken = statistics(gateway)
    assert taken.delta_bytes == taken.new_bytes
    assert gateway.restored() == tree(gateway.source.root)


def test_a_base_that_memory_changed_is_not_used(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made with other bytes than the chunks have, a delta could never be expanded again."""
    write_pages(gateway, "db", 500)
    gateway.made()
    change_pages(gateway, "db", 0.2, 1)
    decode = ChainReader._raw

    def wrong(reader: ChainReader, *segment: Any, **more: Any) -> Any:
        decoded = decode(reader, *segment, **more)
        if not reader._only_local:
            return decoded
        raw = bytearray(decoded.raw)
        raw[len(raw) // 2] ^= 1
        return replace(decoded, raw=bytes(raw), checked=bytearray(b"\1" * len(decoded.checked)))

    monkeypatch.setattr(ChainReader, "_raw", wrong)
    gateway.made()
    assert (statistics(gateway).bases_missing or 0) > 10
    monkeypatch.undo()
    assert gateway.restored() == tree(gateway.source.root)
    assert not gateway.verify()


def test_one_level_of_deltas_serves_many_generations(gateway: Gateway) -> None:
    """Large files stand on an anchor, not on one another; from time to time a generation joins what came since."""
    write_pages(gateway, "db", 4000)
    wanted = {1: noise(1, 4000 * PAGE)}
    gateway.made()
    taken, joined = {}, []
    for number in range(2, 22):
        change_pages(gateway, "db", 0.1, number)
        gateway.made()
        wanted[number] = gateway.source.path("db").read_bytes()
        taken[number] = statistics(gateway)
        if taken[number].retired_bytes:
            joined.append(number)
        assert (taken[number].bases_missing, taken[number].bases_bounded) == (0, 0)
    assert 2 <= len(joined) <= 6
    assert deepest(gateway, "instant") == len(joined) + 1
    for number in joined:
        assert taken[number].stored_bytes < 4 * taken[number - 1].stored_bytes
    for number in range(2, 22):
        if number not in joined:
            assert taken[number].stored_bytes < 3 * taken[2].stored_bytes
    for number in (1, 2, *joined, 21):
        target, _ = gateway.restore(f"src@{number}")
        assert (target / "db").read_bytes() == wanted[number]


def test_a_file_that_was_replaced_stands_on_what_replaced_it(gateway: Gateway) -> None:
    write_pages(gateway, "db", 1500, seed=1)
    gateway.made()
    change_pages(gateway, "db", 0.1, 2)
    gateway.made()
    write_pages(gateway, "db", 1500, seed=2)
    gateway.made()
    for number in range(3, 6):
        before = stored(gateway, "instant")
        change_pages(gateway, "db", 0.05, number)
        report = gateway.ingest()
        assert report.new_bytes > 200 * KIB
        assert stored(gateway, "instant") - before < 20 * KIB
    assert deepest(gateway, "instant") == 1
    assert gateway.restored() == tree(gateway.source.root)


def test_an_anchor_whose_list_is_gone_is_not_asked(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pages(gateway, "db", 1500)
    gateway.made()
    change_pages(gateway, "db", 0.1, 2)
    gateway.made()

    def gone(*arguments: Any) -> Any:
        raise Missing("gone", address="list")

    monkeypatch.setattr("gateway.jobs.anchors.read_below", gone)
    before = stored(gateway, "instant")
    change_pages(gateway, "db", 0.1, 3)
    gateway.made()
    assert stored(gateway, "instant") - before < 20 * KIB
    assert deepest(gateway, "instant") == 2
    assert gateway.restored() == tree(gateway.source.root)


@pytest.mark.parametrize("share", [0.002, 0.02, 0.3])
def test_hints_change_nothing_but_the_work(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Chunks are the same with and without, in whole files, in changed ones and where files lie behind one another."""
    write_pages(gateway, "db", 3000)
    for number in range(40):
        gateway.source.noise(f"small/{number:02d}", 3000 + 500 * number)
    gateway.made()
    change_pages(gateway, "db", share, 2)
    for number in range(0, 40, 7):
        gateway.source.noise(f"small/{number:02d}", 4000)
    for path in gateway.source.root.rglob("*"):
        path.touch()
    looked = list[int]()
    lookup = ChunkIndex.lookup

    def counted(index: ChunkIndex, ids: bytes) -> bytes:
        looked.append(len(ids) // 16)
        return lookup(index, ids)

    monkeypatch.setattr(ChunkIndex, "lookup", counted)
    gateway.made()
    hinted, taken = sum(looked), statistics(gateway)
    assert gateway.restored() == tree(gateway.source.root)
    monkeypatch.setattr(Earlier, "follow", lambda *_: iter(()))
    gateway.source.path("small/00").write_bytes(b"1")
    for path in gateway.source.root.rglob("*"):
        path.touch()
    looked.clear()
    gateway.made()
    again = statistics(gateway)
    assert again.duplicate_bytes + again.new_bytes == taken.duplicate_bytes + taken.new_bytes - 4000 + 1
    assert again.new_bytes < 20 * KIB, "nothing but the one file is new"
    assert share > 0.01 or hinted < sum(looked) / 2
