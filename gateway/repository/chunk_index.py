"""Which chunks of a chain are stored, and where: the index a writer asks for every chunk.

Holds only packs new generations may refer to: declared and neither damaged nor condemned nor needed by expired
generations alone, and packs of the run itself. It is memory, made from the index objects when a chain is opened for
writing (48 to 80 bytes a chunk).
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.format import names
from gateway.model.ids import in_ranges
from gateway.repository.fold import Fold
from gateway.repository.id_table import IdTable
from gateway.repository.indexes import PackIndexes

BATCH = 256


class ChunkIndex:
    """Thread-safe: every call is atomic under the GIL and short."""

    def __init__(self, capacity: int = 0) -> None:
        self._table = IdTable(capacity)

    def lookup(self, ids: bytes) -> bytes:
        """For ids of 16 bytes, joined: eight bytes each, pack and index as little-endian u32; pack 0 = unknown."""
        return self._table.lookup(ids)

    def add(self, ids: bytes | bytearray, pack: int, first: int) -> None:
        for at in range(0, len(ids), 16 * BATCH):
            self._table.add(bytes(ids[at : at + 16 * BATCH]), pack, first + at // 16)

    def remove_pack(self, pack: int) -> None:
        self._table.remove_pack(pack)


def usable_packs(fold: Fold) -> list[int]:
    """Numbers of the packs whose chunks a new generation may refer to.

    Those that no generation needs are among them: packs of a run that was cut off, which the next entry declared for
    the run after it, and of a checkpoint that gave way to another.
    """
    kept, expired = set[int](), set[int]()
    for state in fold.generations.values():
        (expired if state.expired else kept).update(in_ranges(state.commit.needs))
    return [number for number, pack in fold.packs.items() if pack.usable and (number in kept or number not in expired)]


def load(
    fold: Fold, indexes: PackIndexes, extra: Iterable[tuple[int, bytes]] = (), *, lists: bool = True
) -> ChunkIndex:
    """The index of a chain; `extra`: numbers and ids (joined) of adopted packs; without those of file lists when
    `lists` is False.
    """
    usable = [each for each in usable_packs(fold) if lists or fold.packs[each].declaration.storage != names.META]
    index = ChunkIndex(sum(fold.packs[number].declaration.chunks for number in usable))
    for number in usable:
        index.add(indexes.opened(number).directory.ids, number, 0)
    for number, ids in extra:
        index.add(ids, number, 0)
    return index
