"""Entries whose turn comes at the end of a restore: on disk, because a list may hold millions of them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gateway import durable
from gateway.model.entry import RestoreEntry

_STRIDE = 1_000


class Later:
    """First all `add`, then read, forwards or backwards. Memory: 8 bytes for every thousand entries."""

    def __init__(self, directory: Path) -> None:
        self._scratch = durable.ScratchFile(directory)
        self._count = 0
        self._blocks = array("Q")
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(RestoreEntry).decode

    def add(self, entry: RestoreEntry) -> None:
        if self._count % _STRIDE == 0:
            self._blocks.append(self._scratch.size)
        data = self._encode(entry)
        self._scratch.append(len(data).to_bytes(4) + data)
        self._count += 1

    def forwards(self) -> Iterator[RestoreEntry]:
        for block in range(len(self._blocks)):
            yield from self._block(block)

    def backwards(self) -> Iterator[RestoreEntry]:
        for block in reversed(range(len(self._blocks))):
            yield from reversed(self._block(block))

    def close(self) -> None:
        self._scratch.close()

    def _block(self, number: int) -> list[RestoreEntry]:
        self._scratch.seek(self._blocks[number])
        count = min(_STRIDE, self._count - number * _STRIDE)
        return [self._decode(self._scratch.read(int.from_bytes(self._scratch.read(4)))) for _ in range(count)]
