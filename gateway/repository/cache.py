"""The pack cache: packs of a repository that lie on the gateway's own disk.

A pack is written here first and uploaded from here. INVARIANT: a pack that is on its way to the store is never evicted;
a quarter of the cache full of such packs is back-pressure (`wait_for_room`): more of them would push out the bases that
the rest of the generation needs, and then a slow store would be sent more, not less. Nobody waits for packs whose run
has ended without an answer of the store: they wait for the next run of their source, and are evicted last of all, since
then their files are read again. Losing the cache costs reads from the store and some reduction, never data.

Which acknowledged packs go when room is needed: first those that the newest generation of their source does not need,
the oldest first; then data packs by their random pack id, the highest first; then file lists. A generation is read from
end to end, and with "the least recently used goes first" a cache a little smaller than it would have nothing of what
is asked for. So the same packs stay, whatever is read in which order, and the share of hits is the share of bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway import durable
from gateway.errors import LocalStateError
from gateway.model.ids import ChainName
from gateway.repository.pack_files import PACK_FILES

MOST_HELD = 4
"""Packs that were not acknowledged may fill one part of so many of the cache."""


@dataclass(frozen=True, slots=True)
class _Needed:
    """What `PackCache.keep` was told of a source."""

    chain: ChainName
    packs: frozenset[int]
    lists: frozenset[int]
    of: int


class Cached(Protocol):
    """What a reader asks of a cache."""

    def find(self, chain: ChainName, number: int, pack_id: bytes) -> Path | None:
        """A file that has at its place what is wanted of the pack."""

    def has(self, chain: ChainName, number: int, pack_id: bytes) -> bool: ...


class PackCache:
    """Thread-safe. `directory` belongs to it alone."""

    def __init__(self, directory: Path, max_bytes: int, *, read_only: bool = False) -> None:
        """With `read_only`, another process owns the cache: only `find` is called, and what it found may go away."""
        if not read_only:
            durable.make_directory("cache", directory)
        self.directory = directory
        self.max_bytes = max_bytes
        self._room = threading.Condition()
        self._sizes: dict[tuple[ChainName, int, bytes], int] = {}
        self._held: set[tuple[ChainName, int, bytes]] = set()
        self._left: set[tuple[ChainName, int, bytes]] = set()
        self._needed: dict[str, _Needed] = {}
        for path in sorted(directory.glob("*/*/*-*")):
            try:
                number, pack_id = path.name.split("-")
                key = (
                    ChainName(path.parent.parent.name, int(path.parent.name)),
                    int(number, 16),
                    bytes.fromhex(pack_id),
                )
            except ValueError:
                continue
            self._sizes[key] = path.stat().st_size

    def path(self, chain: ChainName, number: int, pack_id: bytes) -> Path:
        return self.directory / chain.group / f"{chain.number:06d}" / f"{number:08x}-{pack_id.hex()}"

    def prepare(self, chain: ChainName) -> None:
        durable.make_directory("cache", self.path(chain, 0, b"").parent)

    def added(self, chain: ChainName, number: int, pack_id: bytes, size: int) -> None:
        """A finished pack lies under its path; it is held until `acknowledged`, or its run `left` it."""
        with self._room:
            self._sizes[chain, number, pack_id] = size
            self._held.add((chain, number, pack_id))
            self._left.discard((chain, number, pack_id))

    def acknowledged(self, chain: ChainName, number: int, pack_id: bytes) -> None:
        """The store has the pack, proved; from now on it may be evicted."""
        with self._room:
            self._held.discard((chain, number, pack_id))
            self._evict(0)
            self._room.notify_all()

    def left(self, chain: ChainName) -> None:
        """The run that sent the packs of a chain has ended: what was not acknowledged waits for the next one."""
        with self._room:
            ours = {key for key in self._held if key[0] == chain}
            self._held -= ours
            self._left |= ours

    def keep(self, chain: ChainName, needed: Iterable[int], lists: Iterable[int], *, of: int) -> None:
        """Say which packs of number `of` and below the newest generation of a source needs, and which packs of its
        chain hold file lists.

        Packs with higher numbers are new and count as needed, and so do all packs of sources of which nothing was said.
        """
        with self._room:
            self._needed[chain.group] = _Needed(chain, frozenset(needed), frozenset(lists), of)

    def find(self, chain: ChainName, number: int, pack_id: bytes) -> Path | None:
        with self._room:
            return self.path(chain, number, pack_id) if (chain, number, pack_id) in self._sizes else None

    def has(self, chain: ChainName, number: int, pack_id: bytes) -> bool:
        return (chain, number, pack_id) in self._sizes

    def drop(self, chain: ChainName, number: int, pack_id: bytes) -> None:
        """Remove a pack that is damaged or was never to be."""
        with self._room:
            self._remove((chain, number, pack_id))

    def packs(self, chain: ChainName) -> list[tuple[int, bytes]]:
        with self._room:
            return sorted((number, pack_id) for each, number, pack_id in self._sizes if each == chain)

    def wait_for_room(self, size: int, stopped: threading.Event) -> None:
        """Evict what may go for `size` bytes more; before, wait for uploads while what is not acknowledged yet would
        fill more than its part.
        """
        with self._room:
            if size > self.max_bytes:
                raise LocalStateError(
                    f"The pack cache of {self.max_bytes} bytes is smaller than one pack.",
                    advice="Raise cache.max_size in the configuration.",
                )
            while self._held and self._held_bytes() + size > self.max_bytes // MOST_HELD:
                if stopped.is_set():
                    return
                self._room.wait(0.2)
            self._evict(size)

    def _held_bytes(self) -> int:
        return sum(self._sizes[key] for key in self._held)

    def _total(self) -> int:
        return sum(self._sizes.values())

    def _evict(self, size: int) -> None:
        excess = self._total() + size - self.max_bytes
        if excess <= 0:
            return
        for key in sorted(self._sizes, key=self._worth):
            if excess <= 0:
                return
            if key not in self._held:
                excess -= self._sizes[key]
                self._remove(key)

    def _worth(self, key: tuple[ChainName, int, bytes]) -> tuple[int, int, int]:
        """What is worth least comes first."""
        chain, number, pack_id = key
        if key in self._left:
            return 3, chain.number, number
        newest = self._needed.get(chain.group)
        if newest is not None and (chain != newest.chain or (number <= newest.of and number not in newest.packs)):
            return 0, chain.number, number
        is_list = newest is not None and number in newest.lists
        return 2 if is_list else 1, -int.from_bytes(pack_id), 0

    def _remove(self, key: tuple[ChainName, int, bytes]) -> None:
        path = self.path(*key)
        durable.remove("cache", path)
        PACK_FILES.forget(path)  # open, it would keep its place on the disk
        self._sizes.pop(key, None)
        self._held.discard(key)
        self._left.discard(key)
