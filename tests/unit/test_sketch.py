"""Features of chunks: what leaves them, and what does not."""

from __future__ import annotations

import random
from itertools import accumulate

import pytest

from gateway.format.chunker import Chunker, ChunkerParameters
from gateway.format.sketch import FEATURE, Sketcher

KEY = bytes(range(32))
CHUNKER = Chunker(KEY, ChunkerParameters.of_average(4096))


def ids(count: int) -> bytes:
    return random.Random(count).randbytes(16 * count)


def features(data: bytes, key: bytes = KEY) -> list[bytes]:
    ends = CHUNKER.cut(data, 0, len(data), True)
    joined = Sketcher(key).features(data, ends, ids(len(ends)))
    return [joined[at : at + FEATURE] for at in range(0, len(joined), FEATURE)]


def test_a_chunk_has_the_feature_of_its_last_bytes_alone() -> None:
    data = random.Random(1).randbytes(1000)
    one = Sketcher(KEY).features(data, [500, 1000], ids(2))
    other = Sketcher(KEY).features(bytes(436) + data[436:], [500, 1000], ids(2))
    assert one == other
    assert one[:FEATURE] != one[FEATURE:]
    changed = bytearray(data)
    changed[-64] ^= 1
    assert Sketcher(KEY).features(changed, [500, 1000], ids(2))[FEATURE:] != one[FEATURE:]


def test_a_short_chunk_has_its_id() -> None:
    given = ids(2)
    joined = Sketcher(KEY).features(bytes(163), [100, 163], given)
    assert joined[FEATURE:] == given[FEATURE:]
    assert joined[:FEATURE] != given[:FEATURE]
    assert Sketcher(KEY).features(b"", [], b"") == b""


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
    ends, given = list(accumulate(lengths)), ids(3)
    wanted = Sketcher(KEY).features(data, ends, given)
    assert Sketcher(KEY).features(memoryview(b"x" + data)[1:], ends, given) == wanted
    assert Sketcher(KEY).features(bytearray(data), ends, given) == wanted
