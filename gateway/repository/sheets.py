"""A further recovery sheet for a repository that is there: what an `init` that was cut off still owes."""

from __future__ import annotations

from gateway.clock import text
from gateway.errors import Corrupt
from gateway.format import names, sheet, slots
from gateway.repository.repository import Repository, put_checked


def add_sheet(repository: Repository, *, region: str, endpoint: str) -> str:
    """Make one more recovery-sheet slot, read it back, and return the sheet's text. Sheets made before stay good."""
    clock, store, now = repository.clock, repository.store, repository.clock.now()
    secret, slot_id = clock.random_bytes(32), clock.random_bytes(16)
    key = names.slot(slot_id)
    put_checked(store, key, slots.sheet_slot(repository.master, slot_id, clock.random_bytes(32), now, secret))
    slot = slots.decode_slot(store.get(key), slot_id, key)
    if slots.open_slot(slot, secret=secret) != repository.master:
        raise Corrupt("key slot does not open after it was written", address=key)
    return sheet.render(
        secret, url=store.url, region=region, endpoint=endpoint, repository=repository.id, slot=slot_id,
        created=text(now),
    )  # fmt: skip
