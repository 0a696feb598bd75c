"""The chunker `wide-64` in numpy, for machines without the compiled kernel and as its opponent in tests.

Stage 1 does not depend on where a chunk starts, so it runs over the whole range in blocks, and chunks are
then picked from the few positions that both stages let pass.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gateway.format.chunker import Bytes

WINDOW = 64
PASSING = 32
STAGE1_BITS = 11

# Positions a block. Three arrays of 16-bit lanes are alive at a time: 3/4 MiB, which stays in the L2 cache.
BLOCK = 1 << 17


class _Key(NamedTuple):
    c0: np.uint16
    c1: np.uint16
    levels: tuple[tuple[int, np.uint16], ...]  # distance, K
    off: np.uint16
    s: np.uint64
    m1: np.uint64
    m2: np.uint64


def _key(parameters: bytes) -> _Key:
    def u16(at: int) -> int:
        return int.from_bytes(parameters[at : at + 2], "little")

    def u64(at: int) -> int:
        return int.from_bytes(parameters[at : at + 8], "little")

    def coefficient(byte: int) -> np.uint16:
        magnitude = (byte & 0x3F) | 1
        return np.uint16(0x10000 - magnitude if byte & 0x80 else magnitude)

    return _Key(
        c0=coefficient(parameters[0]),
        c1=coefficient(parameters[1]),
        levels=tuple((2 << k, np.uint16(u16(2 + 2 * k) | 3)) for k in range(5)),
        off=np.uint16((u16(12) & 0xFC00) | 0x0200),
        s=np.uint64(u64(16)),
        m1=np.uint64(u64(24) | 1),
        m2=np.uint64(u64(32) | 1),
    )


def _stage1(key: _Key, data: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Offsets in `data` of the windows that pass; a window is told by its first byte."""
    x = data[:-1] * key.c0
    x += data[1:] * key.c1
    x ^= x >> np.uint16(7)
    for distance, k in key.levels:
        level = x[:-distance] * k
        level += x[distance:]
        x = level
    x -= key.off
    return np.flatnonzero(x < PASSING)


def _stage2(key: _Key, data: NDArray[np.uint8], windows: NDArray[np.intp]) -> NDArray[np.uint64]:
    # One row a window, eight words a row; a copy, so that the rows are aligned.
    words = np.lib.stride_tricks.sliding_window_view(data, WINDOW)[windows].view("<u8")
    h = np.full(len(windows), key.s, dtype=np.uint64)
    for column in range(WINDOW // 8):
        h ^= words[:, column]
        h *= key.m1
        h ^= h >> np.uint64(32)
    h *= key.m2
    return h


def _top_bits(count: int) -> np.uint64:
    return np.uint64((1 << 64) - (1 << (64 - max(count, 0))))


def cut_numpy(
    parameters: bytes,
    minimum: int,
    average: int,
    maximum: int,
    buffer: Bytes,
    start: int,
    length: int,
    final: bool,
) -> list[int]:
    """As `Chunker.cut`; `parameters` are the forty derived bytes."""
    if start < 0 or length < 0 or start + length > memoryview(buffer).nbytes:
        raise ValueError("start and length leave the buffer")
    key = _key(parameters)
    data = np.frombuffer(buffer, dtype=np.uint8)[start : start + length]
    bits = average.bit_length() - 1
    strict_bits, loose_bits = _top_bits(bits - STAGE1_BITS + 1), _top_bits(bits - STAGE1_BITS - 1)

    # Ends, counted from `start`, that are cuts of a chunk that has at most `average` bytes, or more.
    strict: list[int] = []
    loose: list[int] = []
    for first in range(0, length - WINDOW + 1, BLOCK):
        block = data[first : first + BLOCK + WINDOW - 1]
        windows = _stage1(key, block)
        if not len(windows):
            continue
        h = _stage2(key, block, windows)
        ends = windows + (first + WINDOW)
        strict.extend(ends[(h & strict_bits) == 0].tolist())
        loose.extend(ends[(h & loose_bits) == 0].tolist())

    def first_end(ends: list[int], low: int, high: int) -> int | None:
        at = bisect_left(ends, low)
        return ends[at] if at < len(ends) and ends[at] < high else None

    result: list[int] = []
    position = 0
    while position < length:
        left = length - position
        limit = min(left, maximum)
        end: int | None = None
        if left > minimum:
            middle = min(limit, average + 1)
            end = first_end(strict, position + minimum, position + middle)
            if end is None:
                end = first_end(loose, position + middle, position + limit)
        if end is None:
            if not final and left < maximum:
                break
            end = position + limit if left > minimum else length
        result.append(end)
        position = end
    return result
