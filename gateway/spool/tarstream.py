"""A tar read from front to back, member by member, in bounded memory: for contents that must be compared.

Not `tarfile`: it keeps every member it saw, takes a cut archive for a short one, and reads what follows the end as it
likes. Here an archive that does not end as it should is an error like a damaged stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.spool.archives import BLOCK, EXTENDED_BYTES, padded, pax_size, tar_header
from gateway.spool.streams import DamagedStreamError


@dataclass(frozen=True, slots=True)
class TarMember:
    """`type` is the type flag as a character; ``0`` for a regular file, also of old archives."""

    name: bytes
    type: str
    size: int
    link: bytes


class TarStream:
    """Iterate for members; `data` gives the bytes of the latest one. Raises `DamagedStreamError`, and what `pieces`
    raises. After the last member everything up to the end of `pieces` was read, and it was zeros."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""
        self._place = 0
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[TarMember]:
        long_name: bytes | None = None
        long_size: int | None = None
        while True:
            for _ in self.data():
                pass
            self._exactly(self._padding)
            self._padding = 0
            block = self._exactly(BLOCK)
            if not any(block):
                break
            header = tar_header(block)
            if header is None:
                raise DamagedStreamError("There is no tar header where a member should begin.")
            if header.extended or header.type in b"MV":
                raise DamagedStreamError("It is a tar of a kind that is not read here.")
            if header.type in b"xL":
                if header.size > EXTENDED_BYTES:
                    raise DamagedStreamError("A tar header is unusually large.")
                data = self._exactly(padded(header.size))[: header.size]
                if header.type == ord("L"):
                    long_name = data.rstrip(b"\0")
                else:
                    try:
                        long_size = pax_size(data)
                    except ValueError as error:
                        raise DamagedStreamError("A pax header is damaged.") from error
                    long_name = _pax_path(data) or long_name
                continue
            size = header.size if long_size is None else long_size
            self._left, self._padding = size, padded(size) - size
            if header.type not in b"gK":
                kind = "0" if header.type in b"\x000" else chr(header.type)
                yield TarMember(long_name or header.name, kind, size, block[157:257].split(b"\0", 1)[0])
                long_name = long_size = None
        if any(self._exactly(BLOCK)):
            raise DamagedStreamError("One zero block stands alone in a tar.")
        while self._fill():
            if any(memoryview(self._buffer)[self._place :]):
                raise DamagedStreamError("Something follows the end of a tar.")
            self._place = len(self._buffer)

    def data(self) -> Iterator[bytes]:
        """The bytes of the member that was given last, once. What is not taken is skipped."""
        while self._left:
            if not self._fill():
                raise DamagedStreamError("A tar ends within a member.")
            piece = self._buffer[self._place : self._place + self._left]
            self._place += len(piece)
            self._left -= len(piece)
            yield piece

    def _fill(self) -> bool:
        while self._place >= len(self._buffer):
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._buffer, self._place = piece, 0
        return True

    def _exactly(self, length: int) -> bytes:
        parts: list[bytes] = []
        while length:
            if not self._fill():
                raise DamagedStreamError("A tar ends without its two zero blocks.")
            part = self._buffer[self._place : self._place + length]
            self._place += len(part)
            length -= len(part)
            parts.append(part)
        return b"".join(parts)


def _pax_path(data: bytes) -> bytes | None:
    """The `path` of records that `pax_size` found sound."""
    found = None
    while data:
        length = int(data.partition(b" ")[0])
        key, _, value = data[:length].partition(b" ")[2][:-1].partition(b"=")
        if key == b"path":
            found = value
        data = data[length:]
    return found
