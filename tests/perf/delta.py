"""What deltas and sketches cost, and what they find: ``python -m tests.perf.delta [FILE]``.

FILE is data to take segments from, best a PostgreSQL base backup; database-like pages without one.

1. The size of zstd's hash table: milliseconds and bytes of a segment of 256 KiB in which 40 places changed, for bases
   of several sizes.
2. Features: the windows at the ends of chunks, against windows sampled by a second pass of the chunker over the same
   data (the peer): processor seconds per GB, and the share of changed chunks for which the right place is found.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import zstandard

from gateway.format.chunker import WINDOW_BYTES, Chunker, ChunkerParameters
from gateway.format.segment import DELTA_WINDOW_LOG, delta_hash_log
from gateway.format.sketch import FEATURE, Sketcher
from tests.golden.test_chunker_golden import pages

SEGMENT = 256 * 1024
MIB = 1 << 20
RUNS = 60
Features = Callable[[memoryview, list[int]], list[tuple[bytes, int]]]
"""Data and ends of its chunks -> features, each with the number of its chunk."""


def changed(raw: bytes, places: int, chance: random.Random) -> bytes:
    out = bytearray(raw)
    for _ in range(places):
        at = chance.randrange(len(out) - 40)
        out[at : at + 40] = chance.randbytes(40)
    return bytes(out)


def hash_tables(data: bytes) -> None:
    print(f"{'base KiB':>10}{'hash log':>10}{'ms':>8}{'bytes':>10}")
    for base_bytes in (300_000, 600_000, MIB):
        chosen = delta_hash_log(base_bytes + SEGMENT)
        for hash_log in range(chosen - 2, 20):
            chance, spent, size = random.Random(1), 0.0, 0
            parameters = zstandard.ZstdCompressionParameters.from_level(
                1, hash_log=hash_log, window_log=DELTA_WINDOW_LOG
            )
            for _ in range(RUNS):
                at = chance.randrange(len(data) - base_bytes)
                base = data[at : at + base_bytes]
                raw = changed(base[:SEGMENT], 40, chance)  # what is furthest from the end of the dictionary
                begun = time.process_time()
                dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
                packed = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters).compress(raw)
                spent += time.process_time() - begun
                size += len(packed)
            mark = "  <- delta_hash_log" if hash_log == chosen else ""
            print(f"{base_bytes // 1024:10}{hash_log:10}{spent / RUNS * 1000:8.2f}{size // RUNS:10}{mark}")


def at_ends(sketcher: Sketcher) -> Features:
    def make(data: memoryview, ends: list[int]) -> list[tuple[bytes, int]]:
        joined = sketcher.features(data, ends)
        return [(joined[FEATURE * at : FEATURE * (at + 1)], at) for at in range(len(ends))]

    return make


def sampled(sketcher: Sketcher, average: int) -> Features:
    chunker = Chunker(bytes(reversed(range(32))), ChunkerParameters.of_average(average))

    def make(data: memoryview, ends: list[int]) -> list[tuple[bytes, int]]:
        cuts = [each for each in chunker.cut(data, 0, len(data), True)[:-1] if each >= WINDOW_BYTES]
        joined = sketcher.features(data, cuts)
        chunks = np.searchsorted(np.array(ends), np.array(cuts), "left").tolist()
        return [(joined[FEATURE * at : FEATURE * (at + 1)], chunk) for at, chunk in enumerate(chunks)]

    return make


def features(data: bytes) -> None:
    chunker, sketcher = Chunker(bytes(range(32)), ChunkerParameters.of_average(16384)), Sketcher(bytes(range(32)))
    ways = {"ends of chunks": at_ends(sketcher), "sampled, 16 KiB": sampled(sketcher, 16384),
            "sampled, 4 KiB": sampled(sketcher, 4096)}  # fmt: skip
    segments = [data[at : at + SEGMENT] for at in range(0, len(data) - SEGMENT + 1, SEGMENT)]
    cuts = [chunker.cut(each, 0, SEGMENT, True) for each in segments]
    print(f"\n{'features':18}{'s/GB':>8}{'found: pages':>14}{'addresses':>12}{'insertions':>12}")
    for name, make in ways.items():
        begun = time.process_time()
        for segment, ends in zip(segments, cuts, strict=True):
            make(memoryview(segment), ends)
        cost = (time.process_time() - begun) / (len(segments) * SEGMENT / 1e9)
        shares = [found(segments, cuts, chunker, make, change) for change in (pages_of, addresses_of, insertions_of)]
        print(f"{name:18}{cost:8.2f}{shares[0]:14.1%}{shares[1]:12.1%}{shares[2]:12.1%}")


def pages_of(segment: bytes, chance: random.Random) -> bytes:
    return changed(segment, 6, chance)


def addresses_of(segment: bytes, chance: random.Random) -> bytes:
    out = bytearray(segment)
    for at in range(0, len(out), 8192):
        out[at : at + 8] = chance.randbytes(8)
    return bytes(out)


def insertions_of(segment: bytes, chance: random.Random) -> bytes:
    at = sorted(chance.sample(range(len(segment)), 4))
    parts = [segment[a:b] for a, b in pairwise([0, *at, len(segment)])]
    return b"0123456789abcdef".join(parts)


def found(
    segments: list[bytes], cuts: list[list[int]], chunker: Chunker, make: Features,
    change: Callable[[bytes, random.Random], bytes],
) -> float:  # fmt: skip
    """The share of changed chunks for which a feature leads to an old chunk that lies within 16 KiB of their place."""
    chance, right, total = random.Random(2), 0, 0
    for segment, ends in zip(segments[:200], cuts, strict=False):
        old = dict(make(memoryview(segment), ends))
        was = {segment[a:b] for a, b in pairwise([0, *ends])}
        after = change(segment, chance)
        now = chunker.cut(after, 0, len(after), True)
        hits = {chunk: old[feature] for feature, chunk in make(memoryview(after), now) if feature in old}
        for number, (a, b) in enumerate(pairwise([0, *now])):
            if after[a:b] not in was:
                total += 1
                right += number in hits and abs(ends[hits[number]] - b) <= 16384
    return right / max(total, 1)


def main() -> None:
    if len(sys.argv) > 1:
        with Path(sys.argv[1]).open("rb") as file:
            data = file.read(256 * MIB)
    else:
        data = pages(64 * MIB)
    hash_tables(data)
    features(data)


if __name__ == "__main__":
    main()
