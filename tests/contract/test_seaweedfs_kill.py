"""A real server that is killed: what it had acknowledged is there, and an upload goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.errors import StoreUnreachable
from gateway.store.crc import crc64
from gateway.store.port import MIN_PART_BYTES
from gateway.store.s3 import S3Settings, S3Store
from gateway.store.wrap import RetryingStore
from tests.contract.stores import session
from tests.servers.seaweedfs import SeaweedFS


@pytest.mark.needs_seaweedfs
def test_upload_goes_on_after_a_kill(tmp_path: Path) -> None:
    pieces = [bytes([number]) * MIN_PART_BYTES for number in (1, 2)] + [b"tail"]
    whole = b"".join(pieces)
    with SeaweedFS(tmp_path) as server:
        server.create_bucket("backups")
        settings = S3Settings(bucket="backups", endpoint_url=server.endpoint, addressing_style="path")
        plain = S3Store(settings, session=session())
        store = RetryingStore(plain, SystemClock())
        store.put("a", b"x", crc64=crc64(b"x"), if_absent=True)
        upload_id = store.start_upload("k")
        sent = store.put_part("k", upload_id, 1, pieces[0], crc64=crc64(pieces[0]))
        server.kill()
        with pytest.raises(StoreUnreachable):
            plain.head("a")
        server.start()
        held = store.list_parts("k", upload_id)
        assert [part.etag for part in held] == [sent.etag]
        parts = held + [
            store.put_part("k", upload_id, number, piece, crc64=crc64(piece))
            for number, piece in enumerate(pieces[1:], 2)
        ]
        facts = store.complete_upload("k", upload_id, parts, size=len(whole), crc64=crc64(whole))
        assert facts.crc64 == crc64(whole)
        assert store.get("k") == whole
        assert store.get("a") == b"x"
        store.close()
