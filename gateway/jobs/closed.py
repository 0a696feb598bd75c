"""Closed chains that are as they were when they were opened last.

A source has one chain that grows and, after some years, a hundred that are closed. Opening one asks the store some ten
times; that nothing of it changed is seen in a listing that has to be made anyway.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from gateway.catalog import Catalog, Given
from gateway.format import log, names
from gateway.model.ids import ChainName
from gateway.repository.chain import PENDING, Chain
from gateway.repository.derive import Listed
from gateway.repository.repository import Repository
from gateway.store.port import ObjectFacts

MOST_KEPT = 50_000
"""LIMIT: entries and packs of all chains that are kept open. A pack takes 0.8 KiB with its place in the listing."""


@dataclass(frozen=True, slots=True)
class _Known:
    objects: bytes
    chain: Chain
    size: int
    packs: tuple[Listed, dict[int, int]]
    rows: Given | None


def digests(listed: Iterable[ObjectFacts]) -> dict[ChainName, bytes]:
    """Of what the store lists below the chains of a group: for each chain what tells one listing from another."""
    found: dict[ChainName, Any] = {}
    for each in listed:
        parsed = names.parse_chain(each.key)
        if parsed is not None:
            facts = (each.key, each.size, each.modified and each.modified.isoformat(), each.version, each.crc64)
            found.setdefault(parsed[0], sha256()).update(repr(facts).encode())
    return {name: digest.digest() for name, digest in sorted(found.items())}


class ClosedChains:
    """Of one process. INVARIANT: a chain is given back only where the store lists the same objects of it as before it
    was opened, with the same sizes and dates, and nothing that this gateway wants to append to it is half done. Its
    packs are listed anew each time: they are what goes missing."""

    def __init__(self) -> None:
        self._known: dict[ChainName, _Known] = {}

    def find(self, name: ChainName, objects: bytes, repository: Repository) -> Chain | None:
        """It goes on by this repository, whose store counts for who asks now."""
        known = self._known.get(name)
        if known is None or known.objects != objects:
            return None
        local = known.chain.local
        if local is None or (local / PENDING).exists():
            return None
        known.chain.repository = repository
        return known.chain

    def forget(self, name: ChainName) -> None:
        self._known.pop(name, None)

    def is_recorded(self, chain: Chain, listed: Listed, catalog: Catalog) -> bool:
        """Whether the catalog has what there is to say of it."""
        known = self._known.get(chain.name)
        return (
            known is not None and known.chain is chain and known.packs == (listed, chain.dates)
            and known.rows is not None and known.rows == catalog.given_rows(chain.name)
        )  # fmt: skip

    def keep(self, chain: Chain, objects: bytes, listed: Listed, catalog: Catalog) -> None:
        """Chains that others may go on with, that are damaged or that were rolled back are opened each time."""
        self.forget(chain.name)
        size = len(chain.entries) + len(chain.fold.packs)
        most = MOST_KEPT - sum(each.size for each in self._known.values())
        seen = catalog.head(chain.name)
        as_seen = seen is not None and (seen.sequence, seen.digest) == chain.head
        if chain.fold.closed and chain.takes(log.CONDEMN) and as_seen and size <= most:
            rows = catalog.given_rows(chain.name)
            self._known[chain.name] = _Known(objects, chain, size, (listed, chain.dates), rows)
