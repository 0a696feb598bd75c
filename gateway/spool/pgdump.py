"""pg_dump's custom format, which has no trailer but a table of contents that can tell.

pg_dump writes the table first, then the data, then goes back and writes the table once more with the place of every
table's data. So a table of contents with all places was written by a pg_dump that came to its end, and the last
data block must end with the file. Written to a pipe there are no places, and nothing can be told.

Versions 1.12 to 1.16 of the format: PostgreSQL 9.0 to 18 (src/bin/pg_dump/pg_backup_archiver.c, _custom.c).
"""

from __future__ import annotations

from gateway.spool.structure import Look, NotToldError, Structure, complete, torn, unknown

TABLE_BYTES = 192 * 1024
"""LIMIT: a table of contents that is read; one entry has some 300 bytes. A longer one is UNKNOWN."""

WALKED_CHUNKS = 8_192
"""LIMIT: chunks of the last data block that are walked, 4 to 64 KiB each."""

_DATA, _BLOBS = 1, 3
_NOT_SET, _SET, _NONE = 1, 2, 3
_READ_AT_ONCE = 16 * 1024


def is_pg_dump(head: bytes) -> bool:
    return head[:5] == b"PGDMP" and len(head) > 11 and head[10] == 1


class _Reader:
    """pg_dump's own numbers and strings, one after the other."""

    def __init__(self, look: Look, offset: int, int_size: int, offset_size: int, end: int) -> None:
        self.offset = offset
        self._look = look
        self._int_size = int_size
        self._offset_size = offset_size
        self._end = end
        self._buffer = b""
        self._buffered = 0

    def take(self, length: int) -> bytes:
        if self.offset + length > self._end:
            raise NotToldError("its table of contents is longer than a bounded look")
        place = self.offset - self._buffered
        if place < 0 or place + length > len(self._buffer):
            self._buffered, place = self.offset, 0
            self._buffer = self._look.at(self.offset, max(length, _READ_AT_ONCE))
        data = self._buffer[place : place + length]
        if len(data) < length:
            raise EOFError
        self.offset += length
        return data

    def byte(self) -> int:
        return self.take(1)[0]

    def integer(self) -> int:
        sign, data = self.byte(), self.take(self._int_size)
        value = int.from_bytes(data, "little")
        return -value if sign else value

    def string(self) -> bytes | None:
        length = self.integer()
        return None if length < 0 else self.take(length)

    def place(self) -> tuple[int, int]:
        return self.byte(), int.from_bytes(self.take(self._offset_size), "little")


def pg_dump(look: Look) -> Structure:
    head = look.at(0, 11)
    version = head[5] * 100 + head[6]
    if not 112 <= version <= 116 or not 4 <= head[8] <= 8 or not 4 <= head[9] <= 8:
        return unknown("pg_dump", f"Version {head[5]}.{head[6]} of the format is not known here.")
    end = look.size if look.limit is None else TABLE_BYTES
    reader = _Reader(look, 11, head[8], head[9], end)
    try:
        places = _places(reader, version)
        if places is None:
            return unknown("pg_dump", "Its table of contents is not understood.")
        if any(flag not in (_NOT_SET, _SET, _NONE) for flag, _ in places):
            return unknown("pg_dump", "Its table of contents is not understood.")
        if any(flag == _NOT_SET for flag, _ in places):
            return unknown("pg_dump", "Its table of contents has no places: not finished, or written to a pipe.")
        last = max((place for flag, place in places if flag == _SET), default=None)
        if last is None:
            ends, what = reader.offset, "no data"
        elif last < reader.offset:
            return torn("pg_dump", "Its table of contents points into itself.")
        else:
            ends, what = _block_end(look, last), f"{sum(1 for flag, _ in places if flag == _SET)} data blocks"
    except EOFError:
        return torn("pg_dump", "It ends within its table of contents or its last data block.")
    except ValueError:
        return torn("pg_dump", "Its last data block is damaged.")
    if ends > look.size:
        return torn("pg_dump", "It ends within its last data block.")
    if ends < look.size:
        return unknown("pg_dump", f"Something follows its last data block at byte {ends}.")
    if last is not None and not any(look.tail(1 + head[8] + 8)):
        return unknown("pg_dump", "Its last data are zeros: they may not have come yet.")
    return complete("pg_dump", f"A finished table of contents with {len(places)} entries, {what}.")


def _places(reader: _Reader, version: int) -> list[tuple[int, int]] | None:
    """(flag, offset) of every entry of the table; None for what cannot be one."""
    if version >= 115:
        reader.byte()  # the compression's method instead of its level
    else:
        reader.integer()
    for _ in range(7):
        reader.integer()  # when it was made
    for _ in range(3):
        reader.string()  # database, version of the server and of pg_dump
    count = reader.integer()
    if not 0 <= count <= 10_000_000:
        return None
    places = []
    for _ in range(count):
        reader.integer()  # its number
        reader.integer()  # whether a dumper was there
        for _ in range(4):
            reader.string()  # oid of the catalog's table, oid, tag, description
        reader.integer()  # section
        for _ in range(5):
            reader.string()  # definition, drop, copy, schema, tablespace
        if version >= 114:
            reader.string()  # access method
        if version >= 116:
            reader.integer()  # kind of relation
        reader.string()  # owner
        reader.string()  # "false", once whether it had oids
        while reader.string() is not None:
            pass  # what it depends on
        places.append(reader.place())
    return places


def _block_end(look: Look, offset: int) -> int:
    """Where the data block at `offset` ends. `ValueError` for what is none, EOFError where the file ends in it."""
    int_size = look.at(8, 1)[0]
    head = look.at(offset, 2 + int_size)
    if len(head) < 2 + int_size:
        raise EOFError
    if head[0] not in (_DATA, _BLOBS):
        raise ValueError("no data block")
    offset += 2 + int_size
    in_blob = False
    for _ in range(WALKED_CHUNKS if look.limit is not None else look.size):
        word = look.at(offset, 1 + int_size)
        if len(word) < 1 + int_size:
            raise EOFError
        number = int.from_bytes(word[1:], "little")
        if word[0]:
            raise ValueError("a negative length")
        offset += 1 + int_size
        if head[0] == _BLOBS and not in_blob:
            if number == 0:
                return offset
            in_blob = True  # this was the blob's oid; its chunks follow
        elif number == 0:
            if head[0] == _DATA:
                return offset
            in_blob = False
        else:
            offset += number
            if offset > look.size:
                raise EOFError
    raise NotToldError("its last data block has more chunks than a bounded look walks")
