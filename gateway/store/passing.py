"""A store that hands every call to another one: what wrappers start from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gateway.store.lifecycle import Lifecycle
from gateway.store.port import ObjectFacts, ObjectStore, Part, ThawAnswer, ThawTier, Upload


class PassingStore:
    """Changes nothing. Wrappers override what they care about."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def base(self) -> str:
        return self.inner.base

    @property
    def states_checksums(self) -> bool:
        return self.inner.states_checksums

    @property
    def knows_classes(self) -> bool:
        return self.inner.knows_classes

    def put(
        self,
        key: str,
        data: bytes | memoryview,
        *,
        crc64: int,
        storage_class: str = "STANDARD",
        if_absent: bool = False,
    ) -> ObjectFacts:
        return self.inner.put(key, data, crc64=crc64, storage_class=storage_class, if_absent=if_absent)

    def put_file(
        self, key: str, path: Path, *, size: int, crc64: int, storage_class: str = "STANDARD"
    ) -> ObjectFacts | None:
        return self.inner.put_file(key, path, size=size, crc64=crc64, storage_class=storage_class)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        return self.inner.get(key, start=start, length=length)

    def head(self, key: str) -> ObjectFacts:
        return self.inner.head(key)

    def list_objects(self, prefix: str, *, after: str = "") -> Iterator[ObjectFacts]:
        return self.inner.list_objects(prefix, after=after)

    def delete(self, key: str) -> None:
        self.inner.delete(key)

    def start_upload(self, key: str, *, storage_class: str = "STANDARD") -> str:
        return self.inner.start_upload(key, storage_class=storage_class)

    def put_part(self, key: str, upload_id: str, number: int, data: bytes | memoryview, *, crc64: int) -> Part:
        return self.inner.put_part(key, upload_id, number, data, crc64=crc64)

    def list_parts(self, key: str, upload_id: str) -> list[Part]:
        return self.inner.list_parts(key, upload_id)

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part], *, size: int, crc64: int) -> ObjectFacts:
        return self.inner.complete_upload(key, upload_id, parts, size=size, crc64=crc64)

    def abort_upload(self, key: str, upload_id: str) -> None:
        self.inner.abort_upload(key, upload_id)

    def list_uploads(self, prefix: str) -> list[Upload]:
        return self.inner.list_uploads(prefix)

    def thaw(self, key: str, *, days: int, tier: ThawTier) -> ThawAnswer:
        return self.inner.thaw(key, days=days, tier=tier)

    def get_lifecycle(self) -> Lifecycle:
        return self.inner.get_lifecycle()

    def put_lifecycle(self, lifecycle: Lifecycle) -> None:
        self.inner.put_lifecycle(lifecycle)

    def close(self) -> None:
        self.inner.close()


def innermost(store: ObjectStore) -> ObjectStore:
    """The store that all wrappers stand around."""
    while isinstance(store, PassingStore):
        store = store.inner
    return store
