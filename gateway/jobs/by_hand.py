"""Versions that an operator took though too little says that they are complete (docs/design/engine.md).

A mark of evidence QUIET says so: it is worth nothing but that, and for one identity only. Marks are forgotten after a
while, so that one that is still needed is written again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from gateway.catalog import Catalog, MarkRow
from gateway.model.entry import Evidence, Identity
from gateway.spool.walk import SpoolEntry

BATCH = 1000
"""LIMIT: marks that are held before they are written."""
DAY_MS = 86_400_000


class ByHand:
    """Of one pass over a source; its workers ask it. `operator`: who takes everything that is there; empty: nobody."""

    def __init__(
        self, catalog: Catalog, source: str, mark: Callable[[bytes], MarkRow | None], *, minimum: int, operator: str,
        now_ms: int,
    ) -> None:  # fmt: skip
        self._catalog = catalog
        self._source = source
        self._mark = mark
        self._minimum = minimum
        self._operator = operator
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._new: list[MarkRow] = []

    def takes(self, path: bytes, identity: Identity) -> bool:
        """Whether an operator answers for this version: now, or since an earlier pass."""
        if self._operator:
            self._note(path, identity, f"taken by {self._operator}")
            return True
        mark = self._mark(path)
        if mark is None or mark.evidence > Evidence.QUIET or mark.identity != identity:
            return False
        if mark.when < self._now_ms - DAY_MS:
            self._note(path, identity, mark.how)
        return True

    def enough(self, entry: SpoolEntry, evidence: int) -> bool:
        """Whether the evidence that a version was read with still is what its source wants."""
        return evidence >= self._minimum or self.takes(entry.path, entry.identity)

    def _note(self, path: bytes, identity: Identity, how: str) -> None:
        row = MarkRow(path=path, identity=identity, evidence=Evidence.QUIET, how=how, when=self._now_ms)
        with self._lock:
            self._new.append(row)
            full = len(self._new) >= BATCH
        if full:
            self.write()

    def write(self) -> None:
        """Before the entry: a generation that has such a version is never without its mark.

        CRASH: a mark without a generation says of a version that an operator wanted it, which is so.
        """
        with self._lock:
            new, self._new = self._new, []
        if new:
            self._catalog.add_marks(self._source, new)
