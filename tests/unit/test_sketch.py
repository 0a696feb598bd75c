"""Features of chunks: what leaves them, and what does not."""

from __future__ import annotations

import random
from itertools import accumulate

import pytest

from gateway.format.chunker import Chunker, ChunkerParameters
from gateway.format.sketch import FEATURE, Sketcher

KEY = bytes(range(32))
CHUNKER = Chunker(KEY, ChunkerParameters.of_average(4096))


def features(data: bytes, key: bytes = KEY) -> list[bytes]:
    ends = CHUNKER.cut(data, 0, len(data), True)
    joined = Sketcher(key).features(data, ends)
    return [joined[at : at + FEATURE] for at in range(0, len(joined), FEATURE)]


def test_a_chunk_has_the_feature_of_its_last_bytes_alone() -> None:
    data = random.Random(1).randbytes(1000)
    one = Sketcher(KEY).features(data, [500, 1000])
    other = Sketcher(KEY).features(bytes(436) + data[436:], [500, 1000])
    assert one == other
    assert one[:FEATURE] != one[FEATURE:]
    changed = bytearray(data)
    changed[-64] ^= 1
    assert Sketcher(KEY).features(changed, [500, 1000])[FEATURE:] != one[FEATURE:]


def test_of_a_short_chunk_all_counts() -> None:
    one = Sketcher(KEY).features(b"a" * 100 + b"b" * 63, [100, 163])
    other = Sketcher(KEY).features(b"b" * 63, [63])
    assert one[FEATURE:] == other
    assert Sketcher(KEY).features(b"", []) == b""


@pytest.mark.parametrize("change", ["addresses", "insertion", "scattered"])
def test_a_later_version_shares_most_features(change: str) -> None:
    chance = random.Random(2)
    data = bytearray(chance.randbytes(400_000))
    before = set(features(bytes(data)))
    if change == "addresses":
        for at in range(0, len(data), 8192):
            data[at : at + 8] = chance.randbytes(8)
    elif change == "insertion":
        data[1000:1000] = chance.randbytes(777)
    else:
        for _ in range(50):
            at = chance.randrange(len(data) - 20)
            data[at : at + 20] = chance.randbytes(20)
    after = features(bytes(data))
    assert sum(each in before for each in after) > 0.8 * len(after)


def test_another_key_has_other_features() -> None:
    data = random.Random(3).randbytes(100_000)
    assert not set(features(data)) & set(features(data, bytes(32)))


def test_the_place_of_a_buffer_does_not_matter() -> None:
    lengths = [300, 64, 1000]
    data = random.Random(4).randbytes(sum(lengths))
    ends = list(accumulate(lengths))
    wanted = Sketcher(KEY).features(data, ends)
    assert Sketcher(KEY).features(memoryview(b"x" + data)[1:], ends) == wanted
    assert Sketcher(KEY).features(bytearray(data), ends) == wanted
