"""A file of chunk ids and places, sorted: what of a chain's index does not fit into memory.

    blocks of 4 KiB: 128 records of 32 bytes: id (16), pack u32, index u32, check u64; ids ascend, the last block is
                     filled up with 0xFF
    fences:          the first eight bytes of every block's first id, u64
    filter:          a Bloom filter of the ids, 12 bits an id
    footer:          magic, records, bytes of the filter, the four multipliers of the checks, digest of all from the
                     fences on

Integers are little-endian, but for the ids' own order. It is derived from index objects, so nothing in it is trusted:
a record counts only if its check fits, which binds the id, the place and the *tag* of the pack. So a record is worth
nothing when its bytes rotted, or its pack's number has another pack now. A file damaged elsewhere is refused.

Memory: the fences and the filter, 1.6 bytes an id. A look-up of an unknown id reads nothing, but for one in 150; that
of a known one reads a block.
"""

from __future__ import annotations

import os
import struct
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from gateway import durable
from gateway.errors import Corrupt

BLOCK = 4096
RECORD = np.dtype([("high", ">u8"), ("low", ">u8"), ("pack", "<u4"), ("index", "<u4"), ("check", "<u8")])
IN_BLOCK = BLOCK // RECORD.itemsize
MAGIC = b"GWIDFIL1"
FOOTER = struct.Struct("<8sQQ4Q32s")
BITS = 12
HASHES = 4
"""Of 12 bits an id and 4 hashes: one unknown id in 150 passes. The hashes are the id's own four words."""

PIECE = 1 << 14
"""Records that a merge has in memory of each file."""

U64 = NDArray[np.uint64]
Records = NDArray[np.void]
Tags = Callable[[NDArray[np.uint32]], U64]
"""Gives each pack number the tag of its pack; 0 where no new generation may refer to it."""


def check(records: Records, tags: U64, keys: U64) -> U64:
    """What a record must have as check: changed in one word, it never fits; in several, once in 2^63."""
    place = records["pack"].astype(np.uint64) | (records["index"].astype(np.uint64) << np.uint64(32))
    words = (records["high"].astype(np.uint64), records["low"].astype(np.uint64), place, tags)
    total = np.zeros(len(records), np.uint64)
    for word, key in zip(words, keys, strict=True):
        mixed = word * key  # modulo 2^64; keys are odd, so it can be undone
        total += mixed ^ (mixed >> np.uint64(32))
    return total


class IdFile:
    """An open file. Thread-safe. `Corrupt`: it is not a whole one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with durable.open_file(path) as file:
            self._fd = os.dup(file.fileno())
        # A merged file goes away when the last thread that reads it is done.
        weakref.finalize(self, os.close, self._fd)
        with durable.reading(path):
            size = os.fstat(self._fd).st_size
            footer = os.pread(self._fd, FOOTER.size, max(0, size - FOOTER.size))
            if len(footer) != FOOTER.size or not footer.startswith(MAGIC):
                raise Corrupt("is no file of ids, or not a whole one", address=str(path))
            _, self.count, filter_bytes, *keys, digest = FOOTER.unpack(footer)
            blocks = -(-self.count // IN_BLOCK)
            start = blocks * BLOCK
            if start + blocks * 8 + filter_bytes + FOOTER.size != size:
                raise Corrupt("has another size than it says", address=str(path))
            rest = os.pread(self._fd, size - FOOTER.size - start, start)
            if blake3(rest).update(footer[: -len(digest)]).digest() != digest:
                raise Corrupt("digest is wrong", address=str(path))
        self._keys = np.array(keys, np.uint64)
        self._fences: U64 = np.frombuffer(rest, "<u8", blocks).astype(np.uint64)
        self._filter = np.frombuffer(rest, np.uint8, filter_bytes, blocks * 8)

    def find(self, ids: NDArray[np.uint8], tags: Tags) -> NDArray[np.uint32]:
        """For ids in rows of 16 bytes: rows of pack and index, zeros where an id is unknown."""
        places = np.zeros((len(ids), 2), np.uint32)
        likely = np.flatnonzero(_passes(self._filter, ids)) if self.count else np.zeros(0, np.intp)
        if not len(likely):
            return places
        high = ids[likely, :8].copy().view(">u8").ravel().astype(np.uint64)
        blocks = np.searchsorted(self._fences, high, "right") - 1
        found: list[bytes] = []
        rows: list[int] = []
        for row, block in zip(likely.tolist(), blocks.tolist(), strict=True):
            record = self._record(ids[row].tobytes(), block)
            if record:
                found.append(record)
                rows.append(row)
        if found:
            records = np.frombuffer(b"".join(found), RECORD)
            known = tags(records["pack"])
            good = (known != 0) & (check(records, known, self._keys) == records["check"])
            places[np.array(rows)[good], 0] = records["pack"][good]
            places[np.array(rows)[good], 1] = records["index"][good]
        return places

    def _record(self, key: bytes, block: int) -> bytes:
        if block < 0:
            return b""
        try:
            data = os.pread(self._fd, BLOCK, block * BLOCK)
        except OSError:
            return b""  # it is a hint: the chunk is stored once more
        at = data.find(key)
        while at >= 0 and at % RECORD.itemsize:
            at = data.find(key, at + 1)
        return data[at : at + RECORD.itemsize] if at >= 0 else b""

    def live(self, low: int, high: int, tags: Tags) -> Records:
        """`LocalStateError`. The good records whose ids' first eight bytes are in low .. high-1, ascending."""
        first = max(0, int(np.searchsorted(self._fences, np.uint64(low), "left")) - 1)
        last = len(self._fences)
        if high < 1 << 64:
            last = int(np.searchsorted(self._fences, np.uint64(high), "left"))
        wanted = min(last * IN_BLOCK, self.count) - first * IN_BLOCK
        with durable.reading(self.path):
            data = os.pread(self._fd, max(0, wanted) * RECORD.itemsize, first * BLOCK)
        records = np.frombuffer(data[: len(data) - len(data) % RECORD.itemsize], RECORD)
        ids = records["high"].astype(np.uint64)
        inside = ids >= np.uint64(low)
        if high < 1 << 64:
            inside &= ids < np.uint64(high)
        records = records[inside]
        known = tags(records["pack"])
        good: NDArray[np.bool_] = (known != 0) & (check(records, known, self._keys) == records["check"])
        return records[good]


def write(path: Path, pieces: Iterable[Records], most: int, tags: Tags, keys: bytes) -> int:
    """Write a file of records, given in ascending pieces, at most `most` of them; `keys`: 32 random bytes.

    Records of packs without a tag are left out. How many were written. CRASH: nothing, or the whole file.
    """
    multipliers: U64 = np.frombuffer(keys, "<u8").astype(np.uint64) | np.uint64(1)
    bits = np.zeros(max(8, -(-most * BITS // 8)), np.uint8)
    fences: list[U64] = []
    rest = np.zeros(0, RECORD)
    count = 0
    growing = durable.GrowingFile("ids", path)
    try:
        for piece in pieces:
            known = tags(piece["pack"])
            records = piece[known != 0].copy()
            records["check"] = check(records, known[known != 0], multipliers)
            count += len(records)
            _mark(bits, records)
            records = np.concatenate([rest, records], dtype=RECORD)  # else it is in native order
            whole = len(records) - len(records) % IN_BLOCK
            fences.append(records["high"][:whole:IN_BLOCK].astype(np.uint64))
            growing.append(records[:whole].tobytes())
            rest = records[whole:]
        if len(rest):
            fences.append(rest["high"][:1].astype(np.uint64))
            growing.append(rest.tobytes().ljust(BLOCK, b"\xff"))
        tail = b"".join(each.astype("<u8").tobytes() for each in fences) + bits.tobytes()
        footer = FOOTER.pack(MAGIC, count, len(bits), *multipliers.tolist(), bytes(32))[:-32]
        growing.append(tail + footer + blake3(tail).update(footer).digest())
        growing.finish()
    except BaseException:
        growing.abandon()
        raise
    return count


def from_table(table: bytes) -> Records:
    """Records, ascending, of what `IdTable.records` gives."""
    given = np.frombuffer(table, np.dtype([("high", ">u8"), ("low", ">u8"), ("pack", "<u4"), ("index", "<u4")]))
    records = np.zeros(len(given), RECORD)
    for name in ("high", "low", "pack", "index"):
        records[name] = given[name]
    return records[_order(records)]


def merged(files: Sequence[IdFile], tags: Tags) -> Iterator[Records]:
    """The live records of several files, ascending, each id once; the first file's place counts."""
    most = max(1, max(file.count for file in files) // PIECE)
    edges = [(1 << 64) * number // most for number in range(most + 1)]
    for low, high in pairwise(edges):
        records = np.concatenate([file.live(low, high, tags) for file in files], dtype=RECORD)
        records = records[_order(records)]
        fresh = np.ones(len(records), bool)
        fresh[1:] = (records["high"][1:] != records["high"][:-1]) | (records["low"][1:] != records["low"][:-1])
        yield records[fresh]


def _order(records: Records) -> NDArray[np.intp]:
    return np.lexsort((records["low"].astype(np.uint64), records["high"].astype(np.uint64)))


# --- the filter ------------------------------------------------------------------------------------------------------


def _positions(words: NDArray[np.uint32], size: int) -> U64:
    """The bits of ids, given as rows of four words, in a filter of so many bytes."""
    return words.astype(np.uint64) * np.uint64(size * 8) >> np.uint64(32)


def _mark(bits: NDArray[np.uint8], records: Records) -> None:
    ids = np.empty((len(records), 2), ">u8")
    ids[:, 0], ids[:, 1] = records["high"], records["low"]
    at = _positions(ids.view("<u4").reshape(-1, HASHES), len(bits)).ravel()
    np.bitwise_or.at(bits, at >> np.uint64(3), np.uint8(1) << (at & np.uint64(7)).astype(np.uint8))


def _passes(bits: NDArray[np.uint8], ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
    at = _positions(np.ascontiguousarray(ids).view("<u4").reshape(-1, HASHES), len(bits))
    hit = bits[at >> np.uint64(3)] >> (at & np.uint64(7)).astype(np.uint8) & np.uint8(1)
    passes: NDArray[np.bool_] = np.all(hit, axis=1)
    return passes
