"""The stream before: positions, runs, and where a new chunk's base is looked for."""

from __future__ import annotations

import random
from array import array
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gateway.errors import Corrupt
from gateway.model.ids import Run
from gateway.repository.earlier import MARGIN, NEAR, Cursor, Earlier, Wanted

KIB = 1024


class Lengths:
    """Opened directories that know nothing but how long chunks are."""

    def __init__(self, **packs: list[int]) -> None:
        self._packs = {int(name[1:]): array("Q", accumulate(lengths)) for name, lengths in packs.items()}

    def opened(self, number: int) -> Any:
        ends = self._packs[number]
        return SimpleNamespace(directory=SimpleNamespace(ends=ends, chunk_id=lambda chunk: bytes([number, chunk])))


def earlier(*parts: list[int], **packs: list[int]) -> Earlier:
    return Earlier(parts, Lengths(**packs))  # type: ignore[arg-type]


def positions(stream: Earlier, *places: tuple[int, int]) -> list[int]:
    table = np.array(places, np.int64).reshape(-1, 2)
    found: list[int] = stream.positions(table[:, 0], table[:, 1]).tolist()
    return found


def test_chunks_have_the_places_their_runs_give_them() -> None:
    stream = earlier([7, 1, 2, 9, 0, 1, 7, 0, 1], p7=[10, 20, 30, 40], p9=[5, 6])
    assert stream.size == 20 + 30 + 5 + 10
    assert positions(stream, (7, 1), (7, 2), (9, 0), (7, 0)) == [0, 20, 50, 55]
    assert positions(stream, (7, 3), (9, 1), (8, 0), (0, 0)) == [-1, -1, -1, -1]


def test_runs_are_the_chunks_that_hold_the_bytes() -> None:
    stream = earlier([7, 1, 2, 9, 0, 1, 7, 0, 1], p7=[10, 20, 30, 40], p9=[5, 6])
    assert stream.runs(0, 1) == [Run(7, 1, 1)]
    assert stream.runs(19, 21) == [Run(7, 1, 2)]
    assert stream.runs(20, 50) == [Run(7, 2, 1)]
    assert stream.runs(49, 56) == [Run(7, 2, 1), Run(9, 0, 1), Run(7, 0, 1)]
    assert stream.runs(-100, 1000) == [Run(7, 1, 2), Run(9, 0, 1), Run(7, 0, 1)]
    assert stream.runs(65, 70) == stream.runs(-5, 0) == stream.runs(10, 10) == []


def test_several_streams_lie_one_behind_the_other() -> None:
    stream = earlier([7, 0, 1], [], [7, 1, 1], p7=[10, 20])
    assert stream.part_starts == [0, 10, 10, 30]
    assert earlier().size == 0
    assert earlier().runs(0, 10) == []
    assert list(earlier().follow(0)) == list(stream.follow(-1)) == list(stream.follow(30)) == []
    assert positions(earlier(), (1, 0)) == [-1]


def test_a_list_that_refers_to_chunks_that_are_not_there_is_damaged() -> None:
    with pytest.raises(Corrupt, match="fewer chunks"):
        earlier([7, 1, 2], p7=[10, 20])


def test_runs_and_positions_agree_with_bytes() -> None:
    """Against a model that writes the place of each byte down."""
    chance = random.Random(4)
    for _ in range(50):
        packs = {f"p{number}": [chance.randrange(1, 9) for _ in range(12)] for number in (1, 2, 3)}
        flat, model, starts = list[int](), list[tuple[int, int]](), list[tuple[tuple[int, int], int]]()
        for _ in range(chance.randrange(1, 8)):
            pack, first = chance.randrange(1, 4), chance.randrange(12)
            count = chance.randrange(1, 13 - first)
            flat += [pack, first, count]
            for chunk in range(first, first + count):
                starts.append(((pack, chunk), len(model)))
                model += [(pack, chunk)] * packs[f"p{pack}"][chunk]
        stream = earlier(flat, **packs)
        assert stream.size == len(model)
        low, high = sorted((chance.randrange(len(model) + 1), chance.randrange(len(model) + 1)))
        covered = [
            (run.pack, chunk) for run in stream.runs(low, high) for chunk in range(run.first, run.first + run.count)
        ]
        assert set(covered) == set(model[low:high])
        for place in set(model):
            (found,) = positions(stream, place)
            # Of a chunk that is there several times any place will do.
            assert (place, found) in starts
            for position in range(len(model) + 1):
                wanted = [each for each in starts if each[1] >= position]
                if (position and not wanted) or (wanted and wanted[0][1] != position):
                    wanted = []
                followed = [((pack, chunk), size, known) for pack, chunk, size, known in stream.follow(position)]
                assert [each[0] for each in followed] == [each[0] for each in wanted]
                assert all(size == packs[f"p{pack}"][chunk] for (pack, chunk), size, _ in followed)
                assert all(known == bytes(place) for place, _, known in followed)
                assert stream.is_at(position, *place) == ((place, position) in starts)


ELSEWHERE = (9, 0)
"""A chunk that the stream does not have where it is looked for."""


def begun(position: int = 0) -> Cursor:
    cursor = Cursor(earlier([1, 0, 1], p1=[1000 * KIB]))
    cursor.begin(0, position)
    return cursor


def test_the_same_place_is_the_first_guess() -> None:
    wanted = begun().new(100 * KIB, 110 * KIB)
    assert wanted.windows() == [(100 * KIB - MARGIN, 110 * KIB + MARGIN)]
    assert begun(-1).new(0, 10).windows() == []


def test_what_is_known_on_both_sides_bounds_the_window() -> None:
    cursor = begun()
    cursor.known(0, 50 * KIB, 8 * KIB, ELSEWHERE)  # eight more KiB stood before it
    wanted = cursor.new(50 * KIB, 60 * KIB)
    assert wanted.windows() == [(58 * KIB, 68 * KIB + MARGIN)]
    cursor.known(60 * KIB, 70 * KIB, 70 * KIB, ELSEWHERE)  # two KiB more were between the two
    assert wanted.windows() == [(58 * KIB, 70 * KIB)]


def test_a_gap_that_grew_is_shared_out() -> None:
    wanted = [Wanted(at * KIB, (at + 10) * KIB, 0, 0) for at in (0, 100, 190)]
    for each in wanted:
        each.right, each.right_start = 200 * KIB, 200 * KIB
    assert wanted[0].windows() == [(0, 20 * KIB + MARGIN)]
    assert wanted[1].windows() == [(200 * KIB - MARGIN, 220 * KIB + MARGIN)]
    assert wanted[2].windows() == [(380 * KIB - MARGIN, 400 * KIB)]


def test_what_was_removed_leaves_both_edges() -> None:
    """Nothing stood between the two neighbours, or they changed their order."""
    cursor = begun()
    cursor.known(0, 10 * KIB, 100 * KIB, ELSEWHERE)
    wanted = cursor.new(10 * KIB, 14 * KIB)
    cursor.known(14 * KIB, 20 * KIB, 90 * KIB, ELSEWHERE)
    (window,) = wanted.windows()
    assert window is not None
    assert window[0] < 90 * KIB < 110 * KIB < window[1]


def test_a_far_place_counts_when_a_neighbour_confirms_it() -> None:
    cursor = begun()
    cursor.known(0, 10, NEAR + 1, ELSEWHERE)
    assert cursor.new(10, 20).left == 0
    cursor.known(20, 30, 2 * NEAR + 20, ELSEWHERE)
    cursor.known(30, 40, 2 * NEAR + 30, ELSEWHERE)
    assert cursor.new(40, 50).left == 2 * NEAR
    cursor.known(50, 60, -1, ELSEWHERE)
    assert cursor.new(60, 70).left == 2 * NEAR


def test_another_file_begins_anew() -> None:
    cursor = begun()
    before = cursor.new(0, 10)
    cursor.begin(10, 500)
    assert cursor.new(10, 20).left == 490
    cursor.known(20, 30, 510, ELSEWHERE)
    assert before.right is None


def test_what_stands_at_several_places_stands_at_the_expected_one() -> None:
    """Databases have copies of one another: their chunks say nothing about where a stream is."""
    stream = earlier([1, 0, 3, 1, 1, 1], p1=[10, 20, 30])
    (elsewhere,) = positions(stream, (1, 1))
    assert elsewhere == 60
    cursor = Cursor(stream)
    cursor.begin(0, 0)
    for _ in range(2):
        cursor.known(10, 30, elsewhere, (1, 1))
        assert cursor.new(30, 40).left == 0


def test_a_short_run_does_not_hide_a_long_one() -> None:
    stream = earlier([1, 0, 9, 1, 2, 1], p1=[10] * 9)
    assert positions(stream, *((1, chunk) for chunk in (0, 1, 3, 8))) == [0, 10, 30, 80]


def test_what_stands_between_two_places_may_be_of_either() -> None:
    """As at the edges of what is multiplexed. The megabytes between the two are not looked through."""
    far = Wanted(100 * KIB, 110 * KIB, 0, 95 * KIB, 5000 * KIB, 115 * KIB)
    assert far.windows() == [(100 * KIB, 110 * KIB), (5100 * KIB, 5110 * KIB)]
    back = Wanted(6000 * KIB, 6010 * KIB, 0, 5990 * KIB, -5000 * KIB, 6020 * KIB)
    assert back.windows() == [(6000 * KIB, 6010 * KIB), (1000 * KIB, 1010 * KIB)]
