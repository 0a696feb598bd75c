"""The ends of compressed streams: gzip, bzip2, xz, zstd and lz4.

What the tail can prove differs: an xz says at its end how long it must be; a zstd and an lz4 can be walked from block
to block without decompressing; a bzip2 ends in a mark of 48 bits; a gzip ends in two numbers that are as good as any
others, so nothing but decompressing tells a whole one. `whole` decompresses, in memory that does not depend on the
file.
"""

from __future__ import annotations

import binascii
import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Protocol, cast

import zstandard

from gateway.spool.structure import Look, State, Structure, complete, torn, unknown

WALKED_BLOCKS = 32_768
"""LIMIT: block headers of a zstd or lz4 that a bounded look reads, 3 or 4 bytes each. zstd's blocks are at most
128 KiB of what was compressed, so this reaches 4 GiB of it; `whole` goes on to the end."""

PIECE_BYTES = 256 * 1024
"""What `whole` reads at once, and the most it lets a decompressor give back at once."""

DECODER_BYTES = 128 * 1024 * 1024
"""LIMIT: the window of a zstd and the memory of an xz decoder; a stream that wants more is UNKNOWN."""

ZEROS = 64
"""So many zeros at the end of a compressed stream are no data: the size was reserved, and the bytes did not come."""

_ZERO_TAIL = "It ends in zeros: its size was reserved, and the bytes did not come."


# --- gzip ---------------------------------------------------------------------------------------------------------


def is_gzip(head: bytes) -> bool:
    return head[:3] == b"\x1f\x8b\x08" and len(head) > 3 and not head[3] & 0xE0


def gzip(look: Look) -> Structure:
    """A gzip that fits into a bounded look is decompressed; of any other the tail proves nothing but that it is torn,
    where it is zeros."""
    if look.size < 18:
        return torn("gzip", "It is shorter than the shortest gzip.")
    if zero_tail(look):
        return torn("gzip", _ZERO_TAIL)
    if look.limit is not None and look.size > PIECE_BYTES // 2:
        return unknown("gzip", "Only decompressing all of it tells whether it is whole.")
    return _whole("gzip", Look(look.size, look.at, None))


# --- bzip2 --------------------------------------------------------------------------------------------------------

_BZIP2_END = 0x177245385090


def is_bzip2(head: bytes) -> bool:
    return head[:3] == b"BZh" and head[3:4] in b"123456789" and head[4:10] in (
        b"1AY&SY", b"\x17rE8P\x90"
    )  # fmt: skip


def bzip2(look: Look) -> Structure:
    """The mark of the end, 48 bits, stands before a checksum of 32 bits, at any of eight shifts."""
    if look.limit is None:
        return _whole("bzip2", look)
    if zero_tail(look):
        return torn("bzip2", _ZERO_TAIL)
    tail = int.from_bytes(look.tail(11))
    for shift in range(8):
        if tail >> (32 + shift) & 0xFFFF_FFFF_FFFF != _BZIP2_END:
            continue
        if not tail >> shift & 0xFFFF_FFFF and look.size > 14:
            return unknown("bzip2", "Its last bytes are zeros: they may not have come yet.")
        return complete("bzip2", "The mark of the stream's end stands at the end.")
    return unknown("bzip2", "The mark of the stream's end is not at the end.")


# --- xz -----------------------------------------------------------------------------------------------------------

_XZ_MAGIC = b"\xfd7zXZ\0"
_XZ_STREAMS = 64
_INDEX_BYTES = 128 * 1024


def is_xz(head: bytes) -> bool:
    return head[:6] == _XZ_MAGIC


def xz(look: Look) -> Structure:
    """From the end backwards: footer, index, and by the sizes in the index to the stream's header; up to 64 streams in
    a row, down to the file's first byte. All checksums of header, index and footer are checked."""
    if look.limit is None:
        return _whole("xz", look)
    if look.size < 32:
        return torn("xz", "It is shorter than the shortest xz.")
    if zero_tail(look):
        return torn("xz", _ZERO_TAIL)
    ends, streams = look.size, 0
    while ends > 0 and streams < _XZ_STREAMS:
        while streams and ends >= 4 and not any(look.at(ends - 4, 4)):
            ends -= 4  # padding between streams
        footer = look.at(ends - 12, 12)
        if len(footer) < 12 or footer[10:] != b"YZ" or _crc(footer[4:10]) != footer[:4]:
            if streams == 0:
                return torn("xz", "The footer at the end is missing.")
            return unknown("xz", f"What lies before byte {ends} is no stream.")
        length = (int.from_bytes(footer[4:8], "little") + 1) * 4
        if length > _INDEX_BYTES:
            return unknown("xz", f"Its index has {length} bytes.")
        index = look.at(ends - 12 - length, length)
        blocks = _xz_blocks(index) if len(index) == length else None
        if blocks is None:
            return torn("xz", "The index before the footer is damaged.")
        begins = ends - 12 - length - blocks - 12
        header = look.at(begins, 12)
        if header[:6] != _XZ_MAGIC or header[6:8] != footer[8:10] or _crc(header[6:8]) != header[8:12]:
            return torn("xz", "By its index it would not begin where it does.")
        ends, streams = begins, streams + 1
    if ends > 0:
        return unknown("xz", f"It has more than {_XZ_STREAMS} streams.")
    return complete("xz", f"{streams} stream(s), footer, index and header agree.")


def _crc(data: bytes) -> bytes:
    return binascii.crc32(data).to_bytes(4, "little")


def _xz_blocks(index: bytes) -> int | None:
    """The bytes of all blocks by an index, which is at least 8 bytes; None for one that is damaged."""
    if index[0] != 0 or _crc(index[:-4]) != index[-4:]:
        return None
    place, total = 1, 0
    numbers: list[int] = []
    end = len(index) - 4
    while place < end and (not numbers or len(numbers) < 1 + 2 * numbers[0]):
        value, shift = 0, 0
        while True:
            if place >= end or shift > 56:
                return None
            byte = index[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        numbers.append(value)
    if not numbers or len(numbers) != 1 + 2 * numbers[0] or end - place > 3 or any(index[place:end]):
        return None
    for unpadded in numbers[1::2]:
        total += -(-unpadded // 4) * 4
    return total


# --- zstd ---------------------------------------------------------------------------------------------------------

_ZSTD_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A50


def is_zstd(head: bytes) -> bool:
    """Also of a stream that begins with a skippable frame, as those of pzstd do."""
    if len(head) < 5:
        return False
    magic = int.from_bytes(head[:4], "little")
    if magic & ~0xF == _SKIPPABLE and len(head) >= 12:
        magic = int.from_bytes(head[(after := 8 + int.from_bytes(head[4:8], "little")) : after + 4], "little")
    return magic == _ZSTD_MAGIC


def zstd(look: Look) -> Structure:
    return _whole("zstd", look) if look.limit is None else _walked_zstd(look)


def _walked_zstd(look: Look) -> Structure:
    """Frame by frame, block header by block header (RFC 8878, section 3.1), to the file's last byte."""
    offset, frames, blocks = 0, 0, 0
    while offset < look.size:
        head = look.at(offset, 18)
        magic = int.from_bytes(head[:4], "little")
        if len(head) >= 8 and magic & ~0xF == _SKIPPABLE:
            offset += 8 + int.from_bytes(head[4:8], "little")
            if offset > look.size:
                return torn("zstd", "A skippable frame is cut off.")
            frames += 1
            if frames > WALKED_BLOCKS and look.limit is not None:
                return unknown("zstd", f"It has more than {WALKED_BLOCKS} frames.")
            continue
        if len(head) < 6 and offset:
            return torn("zstd", f"It ends within the header of frame {frames + 1}.")
        if magic != _ZSTD_MAGIC:
            if not any(head):
                return torn("zstd", _ZERO_TAIL)
            return unknown("zstd", f"What follows frame {frames} at byte {offset} is no frame.")
        described = head[4]
        single = described & 0x20
        content = (1 if single else 0, 2, 4, 8)[described >> 6]
        offset += 5 + (0 if single else 1) + (0, 1, 2, 4)[described & 3] + content
        last = False
        while not last:
            blocks += 1
            if blocks > WALKED_BLOCKS and look.limit is not None:
                return unknown("zstd", f"It has more than {WALKED_BLOCKS} blocks.")
            block = look.at(offset, 3)
            if len(block) < 3:
                return torn("zstd", f"It ends before block {blocks}.")
            header = int.from_bytes(block, "little")
            last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
            if header == 0 and not any(look.at(offset, ZEROS)):
                return torn("zstd", _ZERO_TAIL)
            if kind == 3:
                return torn("zstd", f"Block {blocks} at byte {offset} is damaged.")
            offset += 3 + (1 if kind == 1 else size)
            if offset > look.size:
                return torn("zstd", f"It ends within block {blocks}.")
        offset += 4 if described & 4 else 0
        if offset > look.size:
            return torn("zstd", "The checksum at its end is cut off.")
        frames += 1
    if look.limit is not None and not any(look.tail(4)):
        return unknown("zstd", "Its last bytes are zeros: they may not have come yet.")
    return complete("zstd", f"{frames} frame(s), {blocks} block(s), the last one marked as such.")


# --- lz4 ----------------------------------------------------------------------------------------------------------

_LZ4_MAGIC = b"\x04\x22\x4d\x18"


def is_lz4(head: bytes) -> bool:
    return head[:4] == _LZ4_MAGIC and len(head) > 6 and head[4] >> 6 == 1


def lz4(look: Look) -> Structure:
    """Block by block to the end mark, and the checksum behind it. It is never decompressed here."""
    offset, frames, blocks, flags = 0, 0, 0, 0
    while offset < look.size:
        head = look.at(offset, 7)
        if len(head) < 7:
            return torn("lz4", f"It ends within the header of frame {frames + 1}.")
        if head[:4] != _LZ4_MAGIC:
            if not any(head):
                return torn("lz4", _ZERO_TAIL)
            return unknown("lz4", f"What follows frame {frames} at byte {offset} is no frame.")
        flags = head[4]
        offset += 7 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0)
        while True:
            blocks += 1
            if blocks > WALKED_BLOCKS and look.limit is not None:
                return unknown("lz4", f"It has more than {WALKED_BLOCKS} blocks.")
            word = look.at(offset, 4)
            if len(word) < 4:
                return torn("lz4", f"It ends before block {blocks}, without the end mark.")
            size = int.from_bytes(word, "little") & 0x7FFF_FFFF
            offset += 4
            if word == b"\0\0\0\0":
                break
            offset += size + (4 if flags & 16 else 0)
            if offset > look.size:
                return torn("lz4", f"It ends within block {blocks}.")
        offset += 4 if flags & 4 else 0
        if offset > look.size:
            return torn("lz4", "The checksum at its end is cut off.")
        frames += 1
    if flags & 4 and not any(look.tail(4)):
        return unknown("lz4", "Its last bytes are zeros: they may not have come yet.")
    return complete("lz4", f"{frames} frame(s) with their end marks.")


# --- all of it ----------------------------------------------------------------------------------------------------


class DamagedStreamError(Exception):
    """It does not decompress to its end: certainly not whole."""


class TrailingBytesError(Exception):
    """A whole stream, and something behind it that is none."""


class _Decoder(Protocol):
    """What bz2 and lzma have: gives at most so much at once, and says when its stream has ended."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Zlib:
    """zlib, which leaves surplus input with its caller, in the shape of the others."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(31)
        self._full = False

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail and not self._full

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        out = self._inner.decompress(self._inner.unconsumed_tail + data, max(0, max_length))
        # Output that just fits may leave more inside zlib, with no input left over.
        self._full = len(out) == max_length and not self._inner.eof
        return out


class _Source:
    """A look as the file object that zstandard reads from."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._offset = 0

    def read(self, length: int = -1) -> bytes:
        data = self._look.at(self._offset, PIECE_BYTES if length < 0 else length)
        self._offset += len(data)
        return data


def decompressed(kind: str, look: Look) -> Iterator[bytes]:
    """What a gzip, bzip2, xz or zstd holds, in pieces of at most `PIECE_BYTES`; the look must have no limit.

    Raises `DamagedStreamError` and `TrailingBytesError`; only who iterates to the end knows that all was well. Memory:
    two pieces and the decoder's own, which is below `DECODER_BYTES`.
    """
    if kind == "gzip":
        yield from _decoded(look, _Zlib, is_gzip, padding=1)
    elif kind == "bzip2":
        yield from _decoded(look, bz2.BZ2Decompressor, is_bzip2, padding=0)
    elif kind == "xz":
        yield from _decoded(look, _xz_decoder, is_xz, padding=4)
    elif kind == "zstd":
        walked = _walked_zstd(look)
        if walked.state is State.TORN:
            raise DamagedStreamError(walked.detail)
        if walked.state is State.UNKNOWN:
            raise TrailingBytesError(walked.detail)
        try:
            context = zstandard.ZstdDecompressor(max_window_size=DECODER_BYTES)
            with context.stream_reader(cast(IO[bytes], _Source(look)), read_across_frames=True) as reader:
                while piece := reader.read(PIECE_BYTES):
                    yield piece
        except zstandard.ZstdError as error:
            raise DamagedStreamError(f"It does not decompress: {error}.") from error
    else:
        raise ValueError(f"nothing here reads {kind}")


def _xz_decoder() -> _Decoder:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=DECODER_BYTES)


def _decoded(
    look: Look, make: Callable[[], _Decoder], begins: Callable[[bytes], bool], *, padding: int
) -> Iterator[bytes]:
    """`padding`: zeros may follow a stream in multiples of this; 0: none may."""
    decoder, offset = make(), 0
    while True:
        data = b""
        if decoder.needs_input:
            data = look.at(offset, PIECE_BYTES)
            offset += len(data)
            if not data:
                raise DamagedStreamError(f"It ends within a stream, after {offset} bytes.")
        try:
            piece = decoder.decompress(data, PIECE_BYTES)
        except (zlib.error, OSError, ValueError, EOFError, lzma.LZMAError) as error:
            raise DamagedStreamError(f"It does not decompress, before byte {offset}: {error}.") from error
        if piece:
            yield piece
        if not decoder.eof:
            continue
        offset -= len(decoder.unused_data)
        while padding and offset < look.size and not any(look.at(offset, padding)):
            offset += padding
        if offset >= look.size:
            return
        if not begins(look.at(offset, 16)):
            raise TrailingBytesError(f"Something follows its last stream at byte {offset}.")
        decoder = make()


def _whole(kind: str, look: Look) -> Structure:
    size = 0
    try:
        for piece in decompressed(kind, look):
            size += len(piece)
    except DamagedStreamError as error:
        return torn(kind, str(error))
    except TrailingBytesError as error:
        return unknown(kind, str(error))
    return complete(kind, f"Decompressed to its end, {size} bytes, all checksums right.")


def zero_tail(look: Look) -> bool:
    """Whether the last bytes are zeros, more than the format could mean."""
    tail = look.tail(ZEROS)
    return len(tail) == ZEROS and not any(tail)
