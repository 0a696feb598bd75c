"""docs/format/chunker.md, sentence by sentence, on Python's integers."""

from __future__ import annotations

import hashlib
import hmac

U16 = 0xFFFF
U64 = 0xFFFF_FFFF_FFFF_FFFF
WINDOW = 64


def derive(chunker_key: bytes) -> bytes:
    """P = HKDF-Expand-SHA-256(chunker key, info, 40), by RFC 5869 section 2.3."""
    first = hmac.digest(chunker_key, b"gateway/v1/wide-64" + b"\x01", hashlib.sha256)
    second = hmac.digest(chunker_key, first + b"gateway/v1/wide-64" + b"\x02", hashlib.sha256)
    return (first + second)[:40]


class Wide64:
    def __init__(self, p: bytes) -> None:
        def u16(at: int) -> int:
            return p[at] | p[at + 1] << 8

        def u64(at: int) -> int:
            return int.from_bytes(p[at : at + 8], "little")

        self.c0, self.c1 = (-((each & 0x3F) | 1) & U16 if each & 0x80 else (each & 0x3F) | 1 for each in (p[0], p[1]))
        self.k1, self.k2, self.k3, self.k4, self.k5 = (u16(at) | 3 for at in (2, 4, 6, 8, 10))
        self.off = (u16(12) & 0xFC00) | 0x0200
        self.s, self.m1, self.m2 = u64(16), u64(24) | 1, u64(32) | 1

    def stage1(self, b: bytes) -> list[bool]:
        """For every position 0..len(b): does it pass? False where fewer than 64 bytes lie before it."""

        def level(x: list[int], k: int, distance: int) -> list[int]:
            return [(x[i] + k * x[i - distance]) & U16 if i >= distance else 0 for i in range(len(x))]

        x = [0] + [(self.c0 * b[i - 1] + self.c1 * b[i]) & U16 for i in range(1, len(b))]
        x = [each ^ (each >> 7) for each in x]
        for k, distance in ((self.k1, 2), (self.k2, 4), (self.k3, 8), (self.k4, 16), (self.k5, 32)):
            x = level(x, k, distance)
        return [e >= WINDOW and (x[e - 1] - self.off) & U16 < 32 for e in range(len(b) + 1)]

    def stage2(self, b: bytes, e: int) -> int:
        h = self.s
        for k in range(8, 0, -1):
            h = ((h ^ int.from_bytes(b[e - 8 * k : e - 8 * k + 8], "little")) * self.m1) & U64
            h ^= h >> 32
        return (h * self.m2) & U64

    def is_cut(self, h: int, e: int, average: int) -> bool:
        bits = average.bit_length() - 1 - 11 + (1 if e <= average else -1)
        return bits < 1 or h >> (64 - bits) == 0

    def cut(self, minimum: int, average: int, maximum: int, stream: bytes) -> list[int]:
        """All ends of the chunks of a whole stream."""
        passes = self.stage1(stream)
        ends = []
        start = 0
        while start < len(stream):
            left = len(stream) - start
            size = min(left, maximum)
            if left > minimum:
                for e in range(minimum, size):
                    if passes[start + e] and self.is_cut(self.stage2(stream, start + e), e, average):
                        size = e
                        break
            start += size
            ends.append(start)
        return ends

    def certain(self, minimum: int, average: int, maximum: int, part: bytes) -> list[int]:
        """Those ends in the first part of a stream that hold whatever follows."""
        ends = self.cut(minimum, average, maximum, part)
        before = ends[-2] if len(ends) > 1 else 0
        return ends if not ends or len(part) - before >= maximum else ends[:-1]
