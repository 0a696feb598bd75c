"""Which chunks are used, and what they stand on."""

from __future__ import annotations

import random
from array import array

import pytest

from gateway.errors import Corrupt
from gateway.format.directory import Directory, Head, Segment
from gateway.format.log import Declaration
from gateway.format.segment import Encoding
from gateway.model.ids import Run
from gateway.repository import usage as module
from gateway.repository.usage import Usage, used_bytes

HEAD = Head(writer=bytes(16), sequence=0, digest=bytes(32))


def directory(*segments: tuple[int, int, tuple[Run, ...]]) -> Directory:
    """Of segments given as chunks, size and bases; each chunk has 10 bytes."""
    made, first, offset = [], 0, 0
    for number, (chunks, size, bases) in enumerate(segments):
        encoding = Encoding.DELTA if bases else Encoding.ZSTD
        made.append(Segment(number, encoding, offset, size, first, chunks, 10 * chunks, b"", bases))
        first, offset = first + chunks, offset + size
    return Directory(HEAD, made, bytes(16 * first), array("Q", range(10, 10 * first + 1, 10)))


def declaration(number: int, chunks: int, *, bases: bool) -> Declaration:
    return Declaration(
        number=number, pack_id=bytes(16), storage="hot", size=1, crc64=0, index_digest=bytes(32), index_size=1,
        chunks=chunks, raw=10 * chunks, bases=(1, number - 1) if bases else (),
    )  # fmt: skip


def test_the_union_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 8)
    chance = random.Random(1)
    used, model = Usage(), dict[int, set[int]]()
    for _ in range(200):
        pack, first, count = chance.randrange(1, 5), chance.randrange(500), chance.randrange(1, 40)
        used.add((pack, first, count))
        model.setdefault(pack, set()).update(range(first, first + count))
    assert used.packs == set(model)
    for pack, chunks in model.items():
        assert used.chunks(pack) == len(chunks)
        assert {at for at, flag in enumerate(used.flags(pack, 600)) if flag} == chunks
    assert not used.flags(9, 3).any()


def test_what_is_used_of_a_delta_needs_all_it_stands_on_and_nothing_else() -> None:
    packs = {
        1: directory((4, 40, ()), (4, 40, ())),
        2: directory((2, 5, (Run(1, 0, 2),)), (2, 5, (Run(1, 4, 1),))),
        3: directory((3, 9, ()), (2, 5, (Run(2, 2, 1), Run(3, 1, 1)))),
    }
    opened: list[int] = []

    def give(number: int) -> Directory:
        opened.append(number)
        return packs[number]

    used = Usage()
    used.add((3, 4, 1))
    closed = used.copy()
    closed.close_over(lambda number: declaration(number, packs[number].chunks, bases=number != 1), give)
    assert used.packs == {3}
    assert closed.packs == {1, 2, 3}
    assert closed.flags(3, 5).tolist() == [False, True, False, False, True]
    assert closed.flags(2, 4).tolist() == [False, False, True, False]
    assert closed.flags(1, 8).tolist() == [False] * 4 + [True] + [False] * 3
    assert opened == [3, 2], "a pack without deltas need not be opened"


def test_a_base_that_its_pack_does_not_have_is_damage() -> None:
    used = Usage()
    used.add((2, 0, 1))
    with pytest.raises(Corrupt, match="pack 00000001 does not have"):
        used.close_over(
            lambda number: declaration(number, 5, bases=number == 2),
            lambda _: directory((2, 5, (Run(1, 4, 2),))),
        )


def test_what_is_not_declared_is_used_all_the_same() -> None:
    used = Usage()
    used.add((7, 0, 1))
    used.close_over(lambda _: None, lambda _: directory())
    assert used.packs == {7}


def test_the_stored_bytes_of_what_is_used() -> None:
    of = directory((4, 80, ()), (2, 10, ()))
    used = Usage()
    used.add((1, 0, 1, 1, 4, 2))
    assert used_bytes(of, 100, used.flags(1, 6)) == 20 + 10
    assert used_bytes(directory(), 100, used.flags(1, 0)) == 0
