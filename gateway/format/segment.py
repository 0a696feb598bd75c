"""The codec of segments: raw, zstd, delta (docs/format/data.md section 2).

A delta is a zstd frame made with a raw-content dictionary, the base chunks joined. A codec object keeps its zstd
contexts and is used by one thread at a time.
"""

from __future__ import annotations

from enum import IntEnum

import zstandard

from gateway.errors import Corrupt
from gateway.format import limits

LEVEL = 1
DELTA_WINDOW_LOG = 23
"""As large as a base and a segment may be together."""


class Encoding(IntEnum):
    RAW = 0
    ZSTD = 1
    DELTA = 2


class SegmentCodec:
    """Compresses and expands segments. Not thread-safe."""

    def __init__(self, level: int = LEVEL) -> None:
        self._level = level
        self._compressor = zstandard.ZstdCompressor(
            level=level, write_checksum=False, write_content_size=True, write_dict_id=False
        )
        self._decompressor = zstandard.ZstdDecompressor()

    def compress(self, raw: bytes | bytearray | memoryview) -> tuple[Encoding, bytes | bytearray | memoryview]:
        """zstd, or raw where zstd does not pay."""
        packed = self._compressor.compress(raw)
        return (Encoding.ZSTD, packed) if len(packed) < len(raw) else (Encoding.RAW, raw)

    def compress_delta(self, raw: bytes | bytearray | memoryview, base: bytes) -> bytes:
        """The delta of `raw` against `base`; whether it pays is for the caller to compare."""
        dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        parameters = zstandard.ZstdCompressionParameters.from_level(
            self._level, hash_log=delta_hash_log(len(base) + len(raw)), window_log=DELTA_WINDOW_LOG,
            write_checksum=False, write_content_size=True, write_dict_id=False,
        )  # fmt: skip
        return zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters).compress(raw)

    def expand(self, encoding: Encoding, packed: bytes | memoryview, raw: int, base: bytes, address: str) -> bytes:
        """The segment's `raw` bytes. `Corrupt` when the frame is not exactly one of that size."""
        if raw > limits.SEGMENT_BYTES or len(base) > limits.BASE_BYTES:
            raise Corrupt("segment is too large", address=address)
        if encoding is Encoding.RAW:
            if len(packed) != raw:
                raise Corrupt("segment has another size than its directory says", address=address)
            return bytes(packed)
        try:
            parameters = zstandard.get_frame_parameters(packed)
            if parameters.content_size != raw or parameters.dict_id != 0:
                raise Corrupt("zstd frame declares another size than its directory says", address=address)
            if encoding is Encoding.ZSTD:
                out = self._decompressor.decompress(packed, max_output_size=raw, allow_extra_data=False)
            else:
                dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
                out = zstandard.ZstdDecompressor(dict_data=dictionary).decompress(
                    packed, max_output_size=raw, allow_extra_data=False
                )
        except zstandard.ZstdError as error:
            raise Corrupt("segment does not decompress", address=address) from error
        if len(out) != raw:
            raise Corrupt("segment has another size than its directory says", address=address)
        return out


def delta_hash_log(size: int) -> int:
    """Of the hash table for `size` bytes of base and segment: the smallest that forgets nothing of the base (ADR 0006,
    measured by tests/perf/delta.py).
    """
    return max(12, size.bit_length() - 3)
