"""The catalog: one file, one class; each part stands in a module of its own."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.catalog.database import Database
from gateway.catalog.derived import DerivedTables
from gateway.catalog.known import KnownFiles
from gateway.catalog.ledger import UploadLedger
from gateway.catalog.marks import LocalMarks
from gateway.catalog.restores import Restores
from gateway.catalog.watching import Watching


class Catalog(DerivedTables, KnownFiles, UploadLedger, LocalMarks, Watching, Restores):
    """The gateway's local database. Thread-safe; one process may write, others open it with `read_only`.

    Opening raises `NoRepository` (nothing there and `read_only`), `NewerFormat`, or `LocalStateError` (damaged,
    foreign, older and `read_only`, disk full or broken); every method may raise `LocalStateError`, after which nothing
    of its transaction is left. Each transaction is a crash point ``catalog:<name>`` (`TRANSACTIONS`).
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._database = Database(path, read_only=read_only)
        self._replaced = {}

    @property
    def path(self) -> Path:
        return self._database.path

    @property
    def read_only(self) -> bool:
        return self._database.read_only

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
