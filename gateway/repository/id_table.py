"""The table from chunk id to place, which answers "is it stored?" for every chunk of every stream.

An id has 16 bytes; a place is a pack's number, which starts at 1, and the chunk's index in that pack.
`IdTable` is the C type of `gateway.format._id_table` (24 bytes a slot, so 40 to 80 bytes an id; 0.05 us an id
looked up in batches) or, where that was not compiled, the twin `DictIdTable` (some 170 bytes and 0.4 us).
``GATEWAY_NO_KERNEL=1`` in the environment, read at import, takes the twin.

Methods are atomic under the GIL, so threads may share a table. Keep batches to some hundred ids: it is held.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import TYPE_CHECKING

ID_BYTES = 16
PLACE = struct.Struct("<II")
GREATEST = (1 << 32) - 1

Bytes = bytes | bytearray | memoryview


class DictIdTable:
    """The table as a dict."""

    def __init__(self, capacity_hint: int = 0) -> None:
        """Expect `capacity_hint` ids: a table of the right size need not grow. It may still hold more."""
        if capacity_hint < 0:
            raise ValueError("capacity_hint is negative")
        self._places: dict[bytes, bytes] = {}

    def lookup(self, ids: Bytes, /) -> bytes:
        """Eight bytes for each id: pack and index as little-endian u32. Pack 0 and index 0: unknown."""
        unknown = bytes(PLACE.size)
        return b"".join(self._places.get(each, unknown) for each in _split(ids))

    def add(self, ids: Bytes, pack: int, first_index: int, /) -> None:
        """Put ids that lie one behind the other in a pack; the first has index `first_index`.

        An id that is there already has the new place from then on. `ValueError`: nothing was added.
        """
        each_id = _split(ids)
        if not 1 <= pack <= GREATEST:
            raise ValueError("pack is not in 1..2^32-1")
        if not 0 <= first_index <= GREATEST + 1 - len(each_id):
            raise ValueError("an index is not in 0..2^32-1")
        for index, each in enumerate(each_id, first_index):
            self._places[each] = PLACE.pack(pack, index)

    def get(self, key: Bytes, /) -> tuple[int, int] | None:
        """Pack and index of one id."""
        if memoryview(key).nbytes != ID_BYTES:
            raise ValueError("an id has 16 bytes")
        place = self._places.get(bytes(key))
        if place is None:
            return None
        pack, index = PLACE.unpack(place)
        return pack, index

    def records(self) -> bytes:
        """24 bytes for each id in the table, in any order: the id, pack and index as little-endian u32.

        One pass over the whole table, during which no other thread runs.
        """
        return b"".join(each + place for each, place in self._places.items())

    def memory_bytes(self) -> int:
        """Bytes that the table takes, without what the allocator wastes."""
        each = sys.getsizeof(bytes(ID_BYTES)) + sys.getsizeof(bytes(PLACE.size))
        return sys.getsizeof(self._places) + len(self._places) * each

    def __len__(self) -> int:
        return len(self._places)


def _split(ids: Bytes) -> list[bytes]:
    joined = bytes(ids)
    if len(joined) % ID_BYTES:
        raise ValueError(f"{len(joined)} bytes are no whole number of ids of 16 bytes")
    return [joined[at : at + ID_BYTES] for at in range(0, len(joined), ID_BYTES)]


if TYPE_CHECKING:
    from gateway.format._id_table import IdTable
elif os.environ.get("GATEWAY_NO_KERNEL") == "1":
    IdTable = DictIdTable
else:
    try:
        from gateway.format._id_table import IdTable
    except ImportError:
        IdTable = DictIdTable

__all__ = ["DictIdTable", "IdTable"]
