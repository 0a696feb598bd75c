"""Segments: what was compressed comes back, and a frame that is not exactly one of the declared size does not."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Corrupt
from gateway.format import limits
from gateway.format.keys import chunk_id
from gateway.format.segment import Encoding, SegmentCodec
from tests.unit.format_values import KEYS, judged, refuses, some

CODEC = SegmentCodec()
KIB, MIB = 1024, 1024 * 1024
DICTIONARY_MAGIC = bytes.fromhex("37A430EC")


def words(seed: int, size: int) -> bytes:
    """Text-like bytes: they compress, and differ by seed."""
    draw = random.Random(seed)
    stock = [draw.randbytes(draw.randint(2, 12)) for _ in range(60)]
    return b" ".join(draw.choice(stock) for _ in range(size // 4 + 1))[:size]


def edited(data: bytes, edits: int, seed: int = 1) -> bytes:
    draw, out = random.Random(seed), bytearray(data)
    for _ in range(edits):
        at = draw.randrange(len(out) + 1)
        out[at : at + draw.randint(0, 8)] = draw.randbytes(draw.randint(0, 8))
    return bytes(out)


def expand(encoding: Encoding, packed: bytes, raw: int, base: bytes = b"") -> bytes:
    return CODEC.expand(encoding, packed, raw, base, "packs/x frame 1")


def zstd(data: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(level=1, **options).compress(data)


def frame(size: int, *blocks: tuple[int, int, bytes]) -> bytes:
    """A zstd frame by hand: declared content size (8 bytes), blocks of (type, size, content)."""
    out = bytes.fromhex("28B52FFD") + bytes([0b11100000]) + struct.pack("<Q", size)
    for number, (kind, length, content) in enumerate(blocks):
        out += (length << 3 | kind << 1 | (number == len(blocks) - 1)).to_bytes(3, "little") + content
    return out


@given(st.binary(min_size=1, max_size=5000))
def test_a_segment_comes_back(raw: bytes) -> None:
    encoding, packed = CODEC.compress(raw)
    assert encoding in (Encoding.RAW, Encoding.ZSTD)
    assert (encoding is Encoding.RAW) == (len(packed) >= len(raw))
    assert expand(encoding, bytes(packed), len(raw)) == raw
    assert CODEC.expand(encoding, memoryview(bytes(packed)), len(raw), b"", "x") == raw


@settings(max_examples=60)
@given(st.binary(min_size=1, max_size=2000), st.binary(min_size=1, max_size=2000))
def test_a_delta_comes_back_whatever_its_base(raw: bytes, base: bytes) -> None:
    packed = CODEC.compress_delta(raw, base)
    assert expand(Encoding.DELTA, packed, len(raw), base) == raw


SIZES = [1, 2, 7, 8, 9, 255, 256, 257, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 128 * KIB, 128 * KIB + 1, 256 * KIB]


@pytest.mark.parametrize("size", SIZES)
def test_sizes_around_boundaries(size: int) -> None:
    raw = words(1, size)
    bases = [raw, edited(raw, 5), words(2, size), raw[: size // 2] or b"x", raw + raw, raw[::-1], bytes(size), b"x" * 7]
    for base in bases:
        packed = CODEC.compress_delta(raw, base)
        assert expand(Encoding.DELTA, packed, size, base) == raw
    for data in (raw, bytes(size), some("noise", size)):
        encoding, squeezed = CODEC.compress(data)
        assert expand(encoding, bytes(squeezed), size) == data


def test_the_largest_segment_and_base() -> None:
    for raw in (bytes(2 * MIB), words(3, 2 * MIB), some("noise", 2 * MIB)):
        encoding, packed = CODEC.compress(raw)
        assert expand(encoding, bytes(packed), len(raw)) == raw
        base = edited(raw[MIB:], 50)[:MIB]
        assert expand(Encoding.DELTA, CODEC.compress_delta(raw, base), len(raw), base) == raw


def test_what_is_like_its_base_becomes_small() -> None:
    base = some("noise", 200 * KIB)
    assert len(CODEC.compress_delta(base, base)) < 100
    assert len(CODEC.compress_delta(edited(base, 20), base)) < 2000
    assert CODEC.compress(base)[0] is Encoding.RAW
    assert CODEC.compress(bytes(1000))[0] is Encoding.ZSTD


@pytest.mark.parametrize("start", [DICTIONARY_MAGIC, DICTIONARY_MAGIC + b"\1\0\0\0", bytes.fromhex("28B52FFD")])
def test_a_base_that_looks_like_a_dictionary_is_still_plain_bytes(start: bytes) -> None:
    base = start + words(5, 3000)
    for raw in (base, edited(base, 3), base[4:]):
        packed = CODEC.compress_delta(raw, base)
        assert zstandard.get_frame_parameters(packed).dict_id == 0
        assert expand(Encoding.DELTA, packed, len(raw), base) == raw
        assert len(packed) < 200


def test_a_frame_says_its_size_and_no_dictionary_and_no_checksum() -> None:
    raw = words(1, 5000)
    for packed in (bytes(CODEC.compress(raw)[1]), CODEC.compress_delta(raw, words(2, 5000))):
        said = zstandard.get_frame_parameters(packed)
        assert (said.content_size, said.dict_id, said.has_checksum) == (5000, 0, False)


RAW = words(1, 3000)
PACKED = zstd(RAW)
SKIPPABLE = bytes.fromhex("502A4D18") + (4).to_bytes(4, "little") + b"abcd"
WRONG: dict[str, bytes] = {
    "empty": b"",
    "magic only": PACKED[:4],
    "cut": PACKED[:-1],
    "one byte behind": PACKED + b"\0",
    "a frame behind": PACKED + PACKED,
    "an empty frame behind": PACKED + zstd(b""),
    "a skippable frame behind": PACKED + SKIPPABLE,
    "a skippable frame before": SKIPPABLE + PACKED,
    "only a skippable frame": SKIPPABLE,
    "no size": zstd(RAW, write_content_size=False),
    "one byte less": zstd(RAW[:-1]),
    "one byte more": zstd(RAW + b"\0"),
    "another format": b"\x1f\x8b" + PACKED[2:],
    "an older zstd": bytes.fromhex("27B52FFD") + PACKED[4:],
    "declares right, holds less": frame(3000, (0, 2999, bytes(2999))),
    "declares right, holds more": frame(3000, (0, 3001, bytes(3001))),
    "declares right, bursts": frame(3000, *[(1, 128 * KIB, b"\0")] * 50),
    "declares right, holds nothing": frame(3000, (0, 0, b"")),
    "declares too much": frame(2**40, (1, 128 * KIB, b"\0")),
    "declares the most": frame(2**64 - 1, (1, 128 * KIB, b"\0")),
    "declares an error value": frame(2**64 - 2, (1, 128 * KIB, b"\0")),
    "reserved block": frame(3000, (3, 3000, bytes(3000))),
    "no last block": frame(3000, (0, 3000, bytes(3000)))[:-3003] + (3000 << 3).to_bytes(3, "little") + bytes(3000),
    "names a dictionary": b"\x28\xb5\x2f\xfd\x61\x01\xb8\x0a" + PACKED[6:],
}


def test_the_frame_made_by_hand_is_one() -> None:
    assert (
        expand(Encoding.ZSTD, frame(3000, (0, 2000, bytes(2000)), (1, 1000, b"\1")), 3000) == bytes(2000) + b"\1" * 1000
    )


@pytest.mark.parametrize("encoding", [Encoding.ZSTD, Encoding.DELTA])
@pytest.mark.parametrize("what", WRONG)
def test_what_is_not_exactly_one_frame_of_the_size_is_damage(what: str, encoding: Encoding) -> None:
    refuses(lambda: expand(encoding, WRONG[what], 3000, RAW[:100] if encoding is Encoding.DELTA else b""))


def test_a_trained_dictionarys_id_is_refused() -> None:
    samples = [words(n, 300) for n in range(200)]
    trained = zstandard.train_dictionary(4096, samples)
    packed = zstandard.ZstdCompressor(level=1, dict_data=trained).compress(RAW)
    assert zstandard.get_frame_parameters(packed).dict_id
    for encoding in (Encoding.ZSTD, Encoding.DELTA):
        refuses(lambda e=encoding: expand(e, packed, len(RAW), trained.as_bytes()))


@pytest.mark.parametrize("declared", [2 * MIB, 2**30, 2**62])
def test_a_bomb_is_told_by_its_declared_size_before_memory_is_taken(declared: int) -> None:
    bomb = frame(declared, *[(1, 128 * KIB, b"\0")] * 200)
    codec = SegmentCodec()
    tracemalloc.start()
    try:
        refuses(lambda: codec.expand(Encoding.ZSTD, bomb, 3000, b"", "x"))
        refuses(lambda: codec.expand(Encoding.ZSTD, bomb, declared + 1, b"", "x"))
        if declared > limits.SEGMENT_BYTES:
            refuses(lambda: codec.expand(Encoding.ZSTD, bomb, declared, b"", "x"), "large")
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", list(Encoding))
def test_the_bounds_of_segment_and_base(encoding: Encoding) -> None:
    most, base = bytes(limits.SEGMENT_BYTES), bytes(limits.BASE_BYTES)
    made: Callable[[bytes], bytes] = zstd if encoding is not Encoding.RAW else bytes
    assert expand(encoding, made(most), len(most), base) == most
    refuses(lambda: expand(encoding, made(most + b"\0"), len(most) + 1), "large")
    refuses(lambda: expand(encoding, made(most), len(most), base + b"\0"), "large")


def test_raw_has_exactly_its_size() -> None:
    assert expand(Encoding.RAW, b"abc", 3) == b"abc"
    for size in (0, 2, 4):
        refuses(lambda n=size: expand(Encoding.RAW, b"abc", n), "size")


def test_a_wrong_base_is_an_error_or_other_bytes_and_the_chunk_id_tells() -> None:
    base = some("base", 4000)
    raw = edited(base, 3)
    packed = CODEC.compress_delta(raw, base)
    right = chunk_id(KEYS.chunk_id, raw)
    outcomes = set()
    for wrong in (
        edited(base, 1, seed=9),
        base[1:],
        base[:-1],
        bytes(4000),
        base[::-1],
        b"",
        b"x",
        base + b"\0",
        some("other", 4000),
    ):
        found = judged(lambda w=wrong: expand(Encoding.DELTA, packed, len(raw), w))
        outcomes.add(found is None)
        assert found is None or len(found) == len(raw)
        assert found is None or (chunk_id(KEYS.chunk_id, found) == right) == (found == raw)
        assert found != raw
    assert outcomes == {True, False}, "both outcomes happen: zstd alone does not notice a wrong base"
    refuses(lambda: expand(Encoding.ZSTD, packed, len(raw)))


def test_no_flipped_bit_raises_anything_else() -> None:
    raw = words(1, 600)
    base = edited(raw, 4)
    for encoding, packed in ((Encoding.ZSTD, zstd(raw)), (Encoding.DELTA, CODEC.compress_delta(raw, base))):
        for at in range(len(packed)):
            for bit in range(8):
                bitten = packed[:at] + bytes([packed[at] ^ 1 << bit]) + packed[at + 1 :]
                found = judged(lambda e=encoding, b=bitten: expand(e, b, len(raw), base))
                assert found is None or len(found) == len(raw)
            refuses(lambda e=encoding, b=packed[:at]: expand(e, b, len(raw), base))


@given(st.binary(max_size=60), st.integers(0, 100), st.sampled_from(list(Encoding)), st.binary(max_size=20))
def test_arbitrary_bytes_never_raise_anything_else(data: bytes, size: int, encoding: Encoding, base: bytes) -> None:
    for packed in (data, bytes.fromhex("28B52FFD") + data, frame(size) + data):
        found = judged(lambda p=packed: expand(encoding, p, size, base))
        assert found is None or len(found) == size


def test_a_codec_is_used_again_after_an_error() -> None:
    codec = SegmentCodec()
    with pytest.raises(Corrupt):
        codec.expand(Encoding.ZSTD, WRONG["cut"], 3000, b"", "x")
    assert codec.expand(Encoding.ZSTD, PACKED, 3000, b"", "x") == RAW
