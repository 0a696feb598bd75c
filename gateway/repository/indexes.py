"""Index objects of a chain's packs: fetched, checked against their declaration, kept on the local disk."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from gateway import durable
from gateway.clock import Clock
from gateway.errors import Corrupt, Missing, ObjectMissing
from gateway.format import directory, limits, names
from gateway.format.container import Kind, Name
from gateway.format.directory import Columns, PackIndex, cut_index
from gateway.format.log import Declaration
from gateway.repository.chain import Chain
from gateway.repository.fold import PackState
from gateway.store.port import ObjectStore

OPENED = 64
"""LIMIT: opened directories held; one of a full pack takes about 2 MiB."""


def pack_kind(storage: str) -> Kind:
    return Kind.LIST if storage == names.META else Kind.DATA


def pack_name(chain: Chain, declaration: Declaration) -> Name:
    return Name(
        kind=pack_kind(declaration.storage), repository=chain.repository.id, chain=chain.name,
        number=declaration.number, pack_id=declaration.pack_id,
    )  # fmt: skip


def pack_key(chain: Chain, declaration: Declaration) -> str:
    return names.pack(declaration.storage, chain.name, declaration.number, declaration.pack_id)


def _kept(path: str) -> bytes:
    """A local copy. Without `pathlib`: a plan asks for tens of thousands that are not there."""
    with open(path, "rb") as file:
        return file.read()


class PackIndexes:
    """Opened directories of a chain's packs. Thread-safe. `local`: where their bytes are kept on disk, None: nowhere.
    `keep` False: what somebody else keeps there is used, and nothing is changed."""

    def __init__(self, chain: Chain, local: Path | None, *, keep: bool = True) -> None:
        self._chain = chain
        self._local = local
        self._directory = os.fspath(local) if local is not None else ""
        self._keep = keep and local is not None
        self._lock = threading.Lock()
        self._opened: OrderedDict[int, PackIndex] = OrderedDict()
        if local is not None and keep:
            durable.make_directory("index", local)

    @property
    def clock(self) -> Clock:
        return self._chain.repository.clock

    @property
    def declared(self) -> Mapping[int, PackState]:
        """The packs of the chain, by number."""
        return self._chain.fold.packs

    def opened(self, number: int) -> PackIndex:
        """The directory of a declared pack. `Corrupt`, `Missing` name the index object."""
        found = self._opened.get(number)
        if found is not None:
            with contextlib.suppress(KeyError):  # another thread let it go meanwhile
                self._opened.move_to_end(number)
            return found
        state = self._chain.fold.packs.get(number)
        if state is None:
            raise Corrupt(f"pack {number:08x} is not declared", address=names.chain_prefix(self._chain.name))
        return self.of(state.declaration)

    def of(self, declaration: Declaration) -> PackIndex:
        """The directory of the pack that this declares."""
        number = declaration.number
        found = self._opened.get(number)
        if found is not None:
            return found
        key = names.index(self._chain.name, number, declaration.pack_id)
        opened = directory.open_index(
            self.read(declaration), pack_name(self._chain, declaration), self._chain.keys, key
        )
        if (opened.directory.chunks, opened.directory.raw) != (declaration.chunks, declaration.raw):
            raise Corrupt("directory and declaration differ", address=key)
        opened.opener.address = pack_key(self._chain, declaration)  # from here on it opens the pack's own frames
        with self._lock:
            self._opened[number] = opened
            while len(self._opened) > OPENED:
                self._opened.popitem(last=False)
        return opened

    def columns(self, declaration: Declaration) -> Columns:
        """The segments of a declared pack, for who looks at very many: opened are kept as many as there is room for."""
        number = declaration.number
        if number in self._opened or len(self._opened) < OPENED:
            return self.of(declaration).directory.columns()
        key = names.index(self._chain.name, declaration.number, declaration.pack_id)
        name = pack_name(self._chain, declaration)
        found = directory.open_columns(self.read(declaration), name, self._chain.keys, key)
        if (found.chunks, found.raw) != (declaration.chunks, declaration.raw):
            raise Corrupt("directory and declaration differ", address=key)
        return found

    def read(self, declaration: Declaration, *, from_store: bool = False) -> bytes:
        """The bytes of an index object, equal to the digest in the declaration. A lost or damaged one is cut out of
        its pack, unless `from_store` asks for the object itself.
        """
        if self._local is not None and not from_store:
            with contextlib.suppress(OSError):  # the store has it
                data = _kept(f"{self._directory}/{declaration.number:08x}-{declaration.pack_id.hex()}")
                if sha256(data).digest() == declaration.index_digest:
                    return data
        key = names.index(self._chain.name, declaration.number, declaration.pack_id)
        store = self._chain.repository.store
        try:
            data = store.get(key)
        except ObjectMissing as error:
            if from_store:
                raise Missing("the index of a declared pack is not there", address=key) from error
            data = b""
        except Corrupt:
            if from_store:
                raise
            data = b""
        if sha256(data).digest() != declaration.index_digest and not from_store:
            data = self._cut(store, declaration)
        if len(data) > limits.INDEX_BYTES or sha256(data).digest() != declaration.index_digest:
            raise Corrupt("is not the index its declaration names", address=key)
        self.keep(declaration, data)
        return data

    def _cut(self, store: ObjectStore, declaration: Declaration) -> bytes:
        key = pack_key(self._chain, declaration)
        try:
            return cut_index(lambda start, length: store.get(key, start=start, length=length), declaration.size, key)
        except ObjectMissing as error:
            raise Missing("a declared pack and its index are not there", address=key) from error

    def forget_others(self, known: Iterable[tuple[int, bytes]]) -> None:
        """Remove local copies that are of none of these packs, given by number and id.

        CRASH: a copy is kept just before its pack enters the ledger.
        """
        if self._local is not None and self._keep:
            stems = {f"{number:08x}-{pack_id.hex()}" for number, pack_id in known}
            for path in self._local.iterdir():
                if path.name not in stems:
                    durable.remove("index", path)

    def keep(self, declaration: Declaration, data: bytes) -> None:
        """Remember an index object on the local disk."""
        if self._local is not None and self._keep:
            durable.write_file("index", self._local / f"{declaration.number:08x}-{declaration.pack_id.hex()}", data)
