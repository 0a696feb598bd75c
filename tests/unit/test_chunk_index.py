"""The chunk index on disk: it knows what it was told, forgets what is gone, and is never believed when it is wrong."""

from __future__ import annotations

import random
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import durable
from gateway.errors import Corrupt, LocalStateError
from gateway.repository import id_file
from gateway.repository.chunk_index import ChunkIndex
from gateway.repository.id_file import IdFile

NOWHERE = bytes(8)


def chunk(number: int) -> bytes:
    return sha256(number.to_bytes(8, "little")).digest()[:16]


def chunks(first: int, count: int) -> bytes:
    return b"".join(chunk(number) for number in range(first, first + count))


def pack_id(number: int, life: int = 0) -> bytes:
    return sha256(b"pack%d.%d" % (number, life)).digest()[:16]


def place(pack: int, index: int) -> bytes:
    return pack.to_bytes(4, "little") + index.to_bytes(4, "little")


class Run:
    """One run after the other on one directory."""

    def __init__(self, directory: Path, *, in_memory: int = 1000) -> None:
        self.directory = directory
        self.in_memory = in_memory
        self.seed = random.Random(1)
        self.open({})

    def open(self, packs: dict[int, bytes]) -> ChunkIndex:
        self.index = ChunkIndex(self.directory, self.seed.randbytes, in_memory=self.in_memory)
        for number, each in packs.items():
            self.index.allow(number, each)
        return self.index

    def fill(self, packs: int, each: int) -> dict[int, bytes]:
        for number in range(1, packs + 1):
            self.index.allow(number, pack_id(number))
            self.index.add(chunks(number * each, each), number, 0)
        made = {number: pack_id(number) for number in range(1, packs + 1)}
        self.index.save(made)
        return made

    def files(self) -> list[Path]:
        return sorted(self.directory.glob("*.ids"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "ids")


def test_the_next_run_knows_all_and_nothing_else(run: Run) -> None:
    packs = run.fill(40, 300)
    index = run.open(packs)
    assert all(index.covers(*pack) for pack in packs.items())
    for number in packs:
        assert index.lookup(chunks(number * 300, 300)) == b"".join(place(number, at) for at in range(300))
    assert index.lookup(chunks(10**6, 5000)) == NOWHERE * 5000
    assert not index.covers(41, pack_id(41))


def test_files_stay_few_and_nothing_is_left_over(run: Run) -> None:
    packs = run.fill(100, 300)
    names = {path.name for path in run.directory.iterdir()}
    assert len(names) <= 8
    assert names == {path.name for path in run.files()} | {"covered"}
    sizes = [IdFile(path).count for path in run.files()]
    assert sum(sizes) == 30_000
    run.open(packs)
    assert {path.name for path in run.directory.iterdir()} == names


def test_what_was_not_saved_is_gone_and_what_was_saved_is_not(run: Run) -> None:
    packs = run.fill(3, 500)
    index = run.open(packs)
    index.allow(4, pack_id(4))
    index.add(chunks(10**6, 5000), 4, 0)
    assert index.lookup(chunk(10**6 + 4999)) == place(4, 4999)
    index = run.open(packs)
    assert index.lookup(chunks(500, 1500)) == b"".join(place(pack, at) for pack in (1, 2, 3) for at in range(500))
    assert index.lookup(chunk(10**6)) == NOWHERE
    assert len(run.files()) <= 3


def test_a_number_that_has_another_pack_now(run: Run) -> None:
    packs = run.fill(10, 300)
    index = run.open(packs | {5: pack_id(5, life=1)})
    assert not index.covers(5, pack_id(5, life=1))
    assert index.lookup(chunks(5 * 300, 300)) == NOWHERE * 300
    index.add(chunks(10**6, 300), 5, 0)
    now = packs | {5: pack_id(5, life=1)}
    index.save(now)
    index = run.open(now)
    assert index.lookup(chunks(5 * 300, 300)) == NOWHERE * 300
    assert index.lookup(chunk(10**6)) == place(5, 0)
    assert index.lookup(chunk(4 * 300)) == place(4, 0)


def test_packs_that_may_not_be_referred_to(run: Run) -> None:
    packs = run.fill(10, 300)
    index = run.open({number: each for number, each in packs.items() if number != 7})
    assert index.lookup(chunks(7 * 300, 300)) == NOWHERE * 300
    index.add(chunks(7 * 300, 300), 8, 300)
    assert index.lookup(chunk(7 * 300)) == place(8, 300)


def test_only_packs_of_this_run_are_called_covered(run: Run) -> None:
    packs = run.fill(10, 300)
    index = run.open({number: each for number, each in packs.items() if number != 7})
    index.allow(11, pack_id(11))
    index.add(chunks(10**6, 300), 11, 0)
    index.save(packs | {11: pack_id(11)})
    index = run.open(packs | {11: pack_id(11)})
    assert index.covers(11, pack_id(11))
    assert not index.covers(7, pack_id(7)), "its records may have gone with a merge"


def test_numbers_may_be_large(run: Run) -> None:
    highest = 2**32 - 1
    packs = {1: pack_id(1), highest: pack_id(highest)}
    for number in packs:
        run.index.allow(number, pack_id(number))
        run.index.add(chunks(number, 1500), number, 0)
    run.index.save(packs)
    index = run.open(packs)
    assert index.lookup(chunk(highest + 7)) == place(highest, 7)
    assert index.lookup(chunk(7)) == place(1, 6)


def test_a_lost_file_or_list_of_files_means_starting_anew(run: Run) -> None:
    packs = run.fill(10, 300)
    for path in (run.files()[0], run.directory / "covered"):
        path.unlink()
        index = run.open(packs)
        assert not any(index.covers(*pack) for pack in packs.items())
        assert index.lookup(chunks(300, 300)) == NOWHERE * 300
        assert run.files() == []
        run.open({})
        packs = run.fill(10, 300)


@pytest.mark.parametrize("seed", range(4))
def test_no_changed_byte_makes_a_wrong_place(run: Run, seed: int) -> None:
    packs = run.fill(4, 300)
    ids = chunks(300, 1200)
    right = b"".join(place(pack, at) for pack in packs for at in range(300))
    whole = {path: path.read_bytes() for path in run.directory.iterdir()}
    chosen = random.Random(seed)
    for path in sorted(whole):
        for _ in range(100):
            for each, data in whole.items():
                each.write_bytes(data)
            damaged = bytearray(whole[path])
            damaged[chosen.randrange(len(damaged))] ^= 1 << chosen.randrange(8)
            path.write_bytes(damaged)
            found = run.open(packs).lookup(ids)
            for at in range(0, len(right), 8):
                assert found[at : at + 8] in (right[at : at + 8], NOWHERE)


def test_a_cut_file_is_refused(run: Run) -> None:
    run.fill(4, 300)
    path = run.files()[0]
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 4096, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(Corrupt):
            IdFile(path)


def test_a_full_disk_costs_memory_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise LocalStateError("No space left.")

    monkeypatch.setattr(durable, "GrowingFile", full)
    run.fill(10, 300)
    assert run.index.lookup(chunk(300)) == place(1, 0)
    assert run.index.lookup(chunk(3299)) == place(10, 299)
    assert run.files() == []
    monkeypatch.undo()
    assert not run.open({}).covers(1, pack_id(1))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 400), st.integers(1, 60)), max_size=40), st.randoms())
def test_as_a_dict(
    tmp_path_factory: pytest.TempPathFactory, adds: list[tuple[int, int, int]], chance: random.Random
) -> None:
    run = Run(tmp_path_factory.mktemp("ids"), in_memory=50)
    model: dict[bytes, bytes] = {}
    next_index: Counter[int] = Counter()
    packs: dict[int, bytes] = {}
    closed = 0
    for number, first, count in adds:
        pack = closed + number  # what is declared gets no more chunks
        packs[pack] = pack_id(pack)
        run.index.allow(pack, pack_id(pack))
        fresh = [each for each in range(first, first + count) if chunk(each) not in model]
        for each in fresh:
            run.index.add(chunk(each), pack, next_index[pack])
            model[chunk(each)] = place(pack, next_index[pack])
            next_index[pack] += 1
        if chance.random() < 0.2:
            run.index.save(packs)
            run.open(packs)
            closed += 30
    for asked in range(470):
        assert run.index.lookup(chunk(asked)) == model.get(chunk(asked), NOWHERE)
    everything = b"".join(chunk(asked) for asked in range(470))
    assert run.index.lookup(everything) == b"".join(model.get(chunk(asked), NOWHERE) for asked in range(470))


def test_a_merge_goes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_file, "PIECE", 64)

    def tags(packs: np.ndarray) -> np.ndarray:
        return np.where(packs < 3, np.uint64(7), np.uint64(0))

    files = []
    for pack in (1, 2, 3):
        table = b"".join(chunk(n) + place(pack, n) for n in range(pack * 500, pack * 500 + 1000))
        path = tmp_path / f"{pack}.ids"
        id_file.write(path, [id_file.from_table(table)], 1000, lambda p: np.full(len(p), 7, np.uint64), bytes(32))
        files.append(IdFile(path))
    written = id_file.write(tmp_path / "all.ids", id_file.merged(files, tags), 3000, tags, bytes(range(32)))
    assert written == 1500
    ids = np.frombuffer(chunks(0, 3000), np.uint8).reshape(-1, 16)
    found = IdFile(tmp_path / "all.ids").find(ids, tags)
    expected = [(0, 0)] * 500 + [(1, n) for n in range(500, 1500)] + [(2, n) for n in range(1500, 2000)]
    assert found.tolist() == [list(each) for each in expected] + [[0, 0]] * 1000
