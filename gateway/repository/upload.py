"""Sending finished packs: pack object, proof, index object, each step in the ledger.

States of a pack in the ledger: finished (whole in the cache) -> sending (a multipart upload is open) -> stored (the
store's own size and checksum were compared) -> indexed (its index object is there, too: an entry may declare it).
CRASH: at each of them `resume` goes on: a multipart upload with the parts the store still holds, a PUT by first asking
whether the object is there. A pack that is `stored` is never sent again.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Container
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

from gateway import durable
from gateway.catalog import Catalog
from gateway.catalog.rows import PackUpload, UploadPart, UploadState
from gateway.clock import Clock
from gateway.errors import Corrupt, IntegrityError, LocalStateError, ObjectExists, ObjectMissing
from gateway.format import names
from gateway.format.directory import cut_index
from gateway.format.log import Declaration
from gateway.model.ids import ChainName
from gateway.repository.cache import PackCache
from gateway.repository.chain import Chain
from gateway.repository.indexes import PackIndexes
from gateway.repository.packs import FinishedPack
from gateway.repository.pipeline import Stopped
from gateway.repository.repository import put_checked
from gateway.store.crc import crc64
from gateway.store.port import ObjectFacts, ObjectStore, Part

READ_BACK_BYTES = 4 * 1024 * 1024
UNKNOWN_FOR = timedelta(days=7)
"""LIMIT: as long as a pack that no entry names: longer than an outage after which an upload goes on."""


def declaration_of(row: PackUpload) -> Declaration:
    return Declaration(
        number=row.number, pack_id=row.pack_id, storage=row.storage, size=row.size, crc64=row.crc64,
        index_digest=row.index_digest, index_size=row.index_size, chunks=row.chunks, raw=row.raw, bases=row.bases,
    )  # fmt: skip


def prove(store: ObjectStore, key: str, facts: ObjectFacts, size: int, crc: int) -> None:
    """Compare an object with what it must be: by the store's own checksum, else by reading it back. `Corrupt`."""
    if facts.size != size:
        raise Corrupt(f"the store has {facts.size} bytes of it, not {size}", address=key)
    stated = None
    if store.states_checksums:
        stated = facts.crc64 if facts.crc64 is not None else store.head(key).crc64
    if stated is None:
        stated = 0
        for start in range(0, size, READ_BACK_BYTES):
            stated = crc64(store.get(key, start=start, length=min(READ_BACK_BYTES, size - start)), stated)
    if stated != crc:
        raise Corrupt("the store has other bytes than were sent", address=key)


def is_proved(store: ObjectStore, row: PackUpload) -> bool:
    """Whether the store has a pack of the ledger, whole. What is there and is wrong is to be sent again."""
    key = names.pack(row.storage, row.chain, row.number, row.pack_id)
    try:
        prove(store, key, store.head(key), row.size, row.crc64)
    except (ObjectMissing, Corrupt):
        return False
    return True


class Uploads:
    """Sends packs with a few threads. The first failure stops the run: `stopped` is set, `wait` raises it, and
    `failure` is it.
    """

    def __init__(
        self,
        chain: Chain,
        catalog: Catalog,
        cache: PackCache,
        indexes: PackIndexes,
        *,
        part_bytes: int,
        threads: int,
        stopped: threading.Event,
        sent: Callable[[int], None],
    ) -> None:
        """`sent` is called with the bytes of every part that was acknowledged, from any thread."""
        self._chain = chain
        self._store = chain.repository.store
        self._catalog = catalog
        self._cache = cache
        self._indexes = indexes
        self._part_bytes = part_bytes
        self._stopped = stopped
        self._sent = sent
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="upload")
        self._futures: list[Future[None]] = []
        self.failure: BaseException | None = None

    def submit(self, pack: FinishedPack, storage: str, generation: bytes) -> Declaration:
        """Put a finished pack into the ledger and on the way."""
        name = pack.name
        row = PackUpload(
            chain=self._chain.name, number=name.number, pack_id=name.pack_id, storage=storage, size=pack.size,
            crc64=pack.crc64, index_digest=pack.index_digest, index_size=len(pack.index), chunks=pack.chunks,
            raw=pack.raw, bases=pack.bases, generation=generation,
        )  # fmt: skip
        declaration = declaration_of(row)
        self._cache.added(self._chain.name, name.number, name.pack_id, pack.size)
        self._indexes.keep(declaration, pack.index)
        self._catalog.ledger_add(row)
        self._start(row, pack.index, fresh=True)
        return declaration

    def resume(self, row: PackUpload, index: bytes) -> None:
        """Go on with a pack of an earlier run."""
        self._start(row, index, fresh=False)

    def _start(self, row: PackUpload, index: bytes, *, fresh: bool) -> None:
        self._futures.append(self._pool.submit(self._run, row, index, fresh))

    def wait(self) -> None:
        """Until everything submitted so far is acknowledged; raises the first failure."""
        futures, self._futures = self._futures, []
        for future in futures:
            future.result()
        if self.failure is not None:
            raise self.failure
        # INVARIANT: a stopped run skips packs, so that none of it is ever taken for acknowledged.
        if self._stopped.is_set():
            raise Stopped("The run was stopped.")

    def close(self) -> None:
        """Nothing is under way afterwards."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._cache.left(self._chain.name)

    def _run(self, row: PackUpload, index: bytes, fresh: bool) -> None:
        if self._stopped.is_set():
            return
        try:
            key = names.pack(row.storage, row.chain, row.number, row.pack_id)
            if row.state in (UploadState.FINISHED, UploadState.SENDING):
                if fresh or not is_proved(self._store, row):  # a try whose answer we do not know may have worked
                    self._send(row, key, fresh=fresh)
                self._catalog.ledger_state(row.chain, row.number, UploadState.STORED)
            if row.state is not UploadState.INDEXED:
                with durable.effect("store:index"):
                    put_checked(self._store, names.index(row.chain, row.number, row.pack_id), index)
                self._catalog.ledger_state(row.chain, row.number, UploadState.INDEXED)
            self._cache.acknowledged(row.chain, row.number, row.pack_id)
        except Stopped:
            return
        except BaseException as error:
            self.failure = self.failure or error
            self._stopped.set()
            raise

    def _send(self, row: PackUpload, key: str, *, fresh: bool) -> None:
        path = self._cache.path(row.chain, row.number, row.pack_id)
        storage_class = self._storage_class(row.storage)
        if row.size <= self._part_bytes:
            data = durable.read_file(path)
            # A new pack's name must be free: a cloned machine may draw the same id. Later, what is there is ours, and
            # not what was sent. ObjectExists: `prove` says what it is.
            with durable.effect("store:pack"), contextlib.suppress(ObjectExists):
                self._store.put(key, data, crc64=row.crc64, storage_class=storage_class, if_absent=fresh)
            self._sent(row.size)
        else:
            self._send_file(row, key, path, storage_class)
        # The answer to a write says what arrived; what is kept says the store when it is asked.
        prove(self._store, key, self._store.head(key), row.size, row.crc64)

    def _send_file(self, row: PackUpload, key: str, path: Path, storage_class: str) -> None:
        """As one file where the store takes it so, else in parts."""
        if row.upload_id is None:
            with durable.effect("store:file"):
                facts = self._store.put_file(key, path, size=row.size, crc64=row.crc64, storage_class=storage_class)
            if facts is not None:
                self._sent(row.size)
                return
        try:
            self._send_parts(row, key, path, storage_class)
        except ObjectMissing:
            # The upload is gone: a rule of the bucket aborted it, or a machine cloned from this one has completed it.
            if not is_proved(self._store, row):
                self._catalog.ledger_upload(row.chain, row.number, None)
                self._send_parts(replace(row, upload_id=None), key, path, storage_class)

    def _storage_class(self, storage: str) -> str:
        header = self._chain.header
        return str(header.steps[1]) if storage == header.storage else "STANDARD"

    def _send_parts(self, row: PackUpload, key: str, path: Path, storage_class: str) -> None:
        upload_id, held = self._open_upload(row, key, storage_class)
        parts: list[Part] = []
        with durable.open_file(path) as file:
            for number in range(1, -(-row.size // self._part_bytes) + 1):
                with durable.reading(path):
                    data = file.read(self._part_bytes)
                crc = crc64(data)
                part = held.get(number)
                if part is None or part.size != len(data) or part.crc64 != crc:
                    if self._stopped.is_set():
                        raise Stopped("The run was stopped.")
                    self._catalog.ledger_part(
                        row.chain, row.number, UploadPart(number=number, size=len(data), etag="", crc64=crc)
                    )
                    with durable.effect("store:part"):
                        part = self._store.put_part(key, upload_id, number, data, crc64=crc)
                    self._catalog.ledger_part(
                        row.chain, row.number, UploadPart(number=number, size=len(data), etag=part.etag, crc64=crc)
                    )
                self._sent(len(data))
                parts.append(part)
        try:
            with durable.effect("store:complete"):
                self._store.complete_upload(key, upload_id, parts, size=row.size, crc64=row.crc64)
        except Corrupt:
            # One of the parts the store holds is not what was sent, and nobody can tell which: the next run sends all.
            self._store.abort_upload(key, upload_id)
            self._catalog.ledger_upload(row.chain, row.number, None)
            raise

    def _open_upload(self, row: PackUpload, key: str, storage_class: str) -> tuple[str, dict[int, Part]]:
        """The upload to go on with, and the parts that the store and the ledger agree on."""
        if row.upload_id is not None:
            with contextlib.suppress(ObjectMissing):
                known = {part.number: part for part in self._catalog.ledger_parts(row.chain, row.number)}
                held = {
                    part.number: Part(
                        number=part.number, size=part.size, etag=part.etag, crc64=known[part.number].crc64
                    )
                    for part in self._store.list_parts(key, row.upload_id)
                    if part.number in known and known[part.number].etag == part.etag
                }
                return row.upload_id, held
        with durable.effect("store:upload"):
            upload_id = self._store.start_upload(key, storage_class=storage_class)
        self._catalog.ledger_upload(row.chain, row.number, upload_id)
        return upload_id, {}


def abort_unknown_uploads(store: ObjectStore, catalog: Catalog, clock: Clock) -> list[str]:
    """Abort uploads of packs that are not in the ledger and older than `UNKNOWN_FOR`; returns their keys.

    CRASH: an upload that was opened just before a kill is in no ledger. It may as well be another writer's, which is
    why it must be old.
    """
    ours = {row.upload_id for row in catalog.ledger()}
    found = []
    for upload in store.list_uploads(names.PACKS):
        if upload.upload_id in ours or names.parse_pack(upload.key) is None:
            continue
        if upload.initiated is not None and clock.now() - upload.initiated > UNKNOWN_FOR:
            store.abort_upload(upload.key, upload.upload_id)
            found.append(upload.key)
    return found


def forget_closed(chain: Chain, catalog: Catalog, cache: PackCache) -> None:
    """Give up packs of an earlier run that a closed chain takes no more; a sweep deletes what the store has of them."""
    if chain.fold.closed:
        declared = {(number, state.declaration.pack_id) for number, state in chain.fold.packs.items()}
        give_up(chain.name, chain.repository.store, catalog, cache, keep=declared)


def give_up(
    name: ChainName, store: ObjectStore, catalog: Catalog, cache: PackCache, keep: Container[tuple[int, bytes]] = ()
) -> None:
    """Nothing more of what the ledger has of a chain is sent. `keep`: packs that stay in the cache.

    CRASH: an upload is aborted before its row goes.
    """
    rows = catalog.ledger(name)
    for row in rows:
        if row.upload_id is not None:
            with contextlib.suppress(ObjectMissing):
                store.abort_upload(names.pack(row.storage, name, row.number, row.pack_id), row.upload_id)
        if (row.number, row.pack_id) not in keep:
            cache.drop(name, row.number, row.pack_id)
    if rows:
        catalog.ledger_remove(name, [row.number for row in rows])


def adoptable(chain: Chain, catalog: Catalog, cache: PackCache, indexes: PackIndexes) -> list[tuple[PackUpload, bytes]]:
    """Packs of an earlier run that may still be declared, each with its index object; the others leave the ledger.

    A pack is adopted when the ledger knows it, no entry gave its number to another or condemned it, and its bytes are
    still to be had with the ledger's checksum: once stored, in the store, else in the cache.

    INVARIANT: who deletes what no entry names condemns it first, in the log: an entry that declares it all the same is
    refused, since the log went on, or its writer has met that here.
    """
    found: list[tuple[PackUpload, bytes]] = []
    gone: list[int] = []
    rows = catalog.ledger(chain.name)
    known = {(row.number, row.pack_id) for row in rows}
    known |= {(number, state.declaration.pack_id) for number, state in chain.fold.packs.items()}
    for number, pack_id in cache.packs(chain.name):
        if (number, pack_id) not in known:
            cache.drop(chain.name, number, pack_id)
    indexes.forget_others(known)
    for each in rows:
        row, declaration = each, declaration_of(each)
        state = chain.fold.packs.get(row.number)
        given_up = (row.number, row.pack_id) in chain.fold.given_up
        path = cache.find(chain.name, row.number, row.pack_id)
        sent = state is None and not given_up and row.state in (UploadState.STORED, UploadState.INDEXED)
        if sent and not is_proved(chain.repository.store, row):
            # It was there and is not any more, or is another: as if it had never been sent.
            catalog.ledger_upload(row.chain, row.number, None)
            row, sent = replace(row, state=UploadState.FINISHED, upload_id=None), False
        if state is not None or given_up or not (sent or (path is not None and _is_whole(path, row))):
            gone.append(row.number)
            if state is None or state.declaration.pack_id != row.pack_id:
                cache.drop(chain.name, row.number, row.pack_id)
            continue
        try:
            index = indexes.read(declaration) if path is None else _cut_local(path, declaration)
        except IntegrityError:
            gone.append(row.number)
            cache.drop(chain.name, row.number, row.pack_id)
            continue
        if not sent:
            cache.added(chain.name, row.number, row.pack_id, row.size)
        found.append((row, index))
    if gone:
        catalog.ledger_remove(chain.name, gone)
    return found


def _is_whole(path: Path, row: PackUpload) -> bool:
    if not path.is_file() or path.stat().st_size != row.size:
        return False
    crc = 0
    try:
        with durable.reading(path), path.open("rb", buffering=0) as file:
            while piece := file.read(READ_BACK_BYTES):
                crc = crc64(piece, crc)
    except LocalStateError:
        return False  # the spool still has what was in it
    return crc == row.crc64


def _cut_local(path: Path, declaration: Declaration) -> bytes:
    with durable.reading(path), path.open("rb", buffering=0) as file:

        def read(start: int, length: int) -> bytes:
            file.seek(start)
            return file.read(length)

        index = cut_index(read, declaration.size, str(path))
    if sha256(index).digest() != declaration.index_digest:
        raise Corrupt("is not the pack of the ledger", address=str(path))
    return index
