"""Thousands of repositories a minute: machines whose state is put back instead of made anew, on a store in memory.

Everything is the product's own but the catalog: it stays open and is put back from a copy in memory (SQLite's backup),
or, for flips, is no SQL at all. Files lie where fsync costs nothing.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway import durable
from gateway.api import Reference, RestoreReport, RestoreState
from gateway.catalog import (
    AlarmRow,
    Catalog,
    GenerationRow,
    GenerationState,
    PackUpload,
    RestoreJobRow,
    RestorePackRow,
)
from gateway.catalog.derived import not_superseded
from gateway.catalog.rows import ChainRow, ChainRows, ChainState, EntryRow, Head, HoldRow, PackRow, PackState
from gateway.clock import FakeClock
from gateway.engine import Engine, open_engine
from gateway.format import names
from gateway.model.ids import ChainName
from gateway.store.memory import MemoryStore
from tests.golden import described
from tests.golden.product import BEGINNING
from tests.tamper.subjects import URL, Subject

MEMORY = Path("/dev/shm")
FOLDERS = ("cache", "index", "log")


def scratch() -> Path | None:
    """Where fsync costs nothing, when there is such a place."""
    return MEMORY if os.access(MEMORY, os.W_OK) else None


class KeptCatalog(Catalog):
    """A catalog that an engine does not close, and that can be put back to what it was when `keep` was called."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._kept = sqlite3.connect(":memory:")

    def keep(self) -> None:
        self._database._driver.backup(self._kept)

    def put_back(self) -> None:
        self._kept.backup(self._database._driver)
        self._replaced.clear()  # behind its back: SQLite tells of other connections only

    def close(self) -> None:
        """Nobody but `end` closes it."""

    def end(self) -> None:
        super().close()
        self._kept.close()


class DictCatalog(Catalog):
    """What a verification, a rebuild and a restore ask of a catalog, without SQL: most of a flip's time went there.

    The structural cases run on the real one.
    """

    def __init__(self) -> None:
        self._chains: dict[ChainName, ChainRows] = {}
        self._heads: dict[ChainName, Head] = {}
        self._meta: dict[str, str | None] = {}
        self._alarms: dict[tuple[str, str], AlarmRow] = {}
        self._kept: tuple[Any, ...] = ({}, {}, {}, {})
        self._restores: dict[str, RestoreJobRow] = {}

    def keep(self) -> None:
        self._kept = (dict(self._chains), dict(self._heads), dict(self._meta), dict(self._alarms))

    def put_back(self) -> None:
        self._restores.clear()
        self._chains, self._heads, self._meta, self._alarms = (dict(each) for each in self._kept)

    def close(self) -> None:
        pass

    def end(self) -> None:
        pass

    def replace_chain(self, rows: ChainRows) -> None:
        for keys in ([e.sequence for e in rows.entries], [p.number for p in rows.packs],
                     [g.generation for g in rows.generations], [h.hold for h in rows.holds]):  # fmt: skip
            assert len(set(keys)) == len(keys)
        self._chains[rows.chain.chain] = rows

    def clear_derived(self) -> None:
        self._chains.clear()

    def chains(self) -> list[ChainRow]:
        return [self._chains[name].chain for name in sorted(self._chains)]

    def chain_rows(self, chain: ChainName) -> ChainRows | None:
        return self._chains.get(chain)

    def packs(self, chain: ChainName) -> list[PackRow]:
        return list(self._chains[chain].packs)

    def damaged_packs(self, source: str) -> list[PackRow]:
        rows = (pack for name in sorted(self._chains) if name.group == source for pack in self._chains[name].packs)
        return [pack for pack in rows if pack.state is PackState.DAMAGED]

    def damaged_chains(self, source: str) -> list[ChainRow]:
        rows = [rows.chain for rows in self._chains.values() if rows.chain.source == source]
        return sorted((row for row in rows if row.state is ChainState.DAMAGED), key=lambda row: row.chain)

    def open_alarm(self, kind: str, subject: str, what: str, meaning: str, advice: str, when_ms: int) -> bool:
        new = (kind, subject) not in self._alarms
        self._alarms[kind, subject] = AlarmRow(
            id=1, kind=kind, subject=subject, what=what, meaning=meaning, advice=advice, opened=when_ms, closed=None,
            told={},
        )  # fmt: skip
        return new

    def close_alarm(self, kind: str, subject: str, when_ms: int) -> bool:
        return self._alarms.pop((kind, subject), None) is not None

    def open_alarms(self) -> list[AlarmRow]:
        return list(self._alarms.values())

    def entries(self, chain: ChainName) -> list[EntryRow]:
        return list(self._chains[chain].entries)

    def holds(self) -> list[HoldRow]:
        return [hold for each in self._chains.values() for hold in each.holds]

    def protected(self, source: str | None = None) -> list[GenerationRow]:
        return [row for row in self.generations(source) if row.state is GenerationState.PROTECTED]

    def generations(self, source: str | None = None) -> list[GenerationRow]:
        rows = [row for each in self._chains.values() for row in each.generations if source in (None, row.source)]
        return sorted(not_superseded(rows), key=lambda row: (row.source, row.number, row.chain, row.sequence))

    def remember_head(self, chain: ChainName, sequence: int, digest: bytes, *, force: bool = False) -> bool:
        known = self._heads.get(chain)
        if known is None or known.sequence < sequence:
            self._heads[chain] = Head(sequence=sequence, digest=digest)
        return self._heads[chain].digest == digest

    def heads(self) -> dict[ChainName, Head]:
        return dict(self._heads)

    def head(self, chain: ChainName) -> Head | None:
        return self._heads.get(chain)

    def ledger(self, chain: ChainName | None = None) -> list[PackUpload]:
        return []

    def meta(self, key: str) -> str | None:
        return self._meta.get(key)

    def set_meta(self, key: str, value: str | None) -> None:
        self._meta[key] = value

    def audit(self, who: str, what: str, when_ms: int, detail: str = "") -> None:
        pass

    # A flip's restore is a job at whose packs nobody looks.

    def put_restore(self, row: RestoreJobRow, packs: Iterable[RestorePackRow] = ()) -> None:
        self._restores[row.id] = row

    def carry_restore(
        self, seen: RestoreJobRow, row: RestoreJobRow, packs: Iterable[RestorePackRow] = ()
    ) -> RestoreJobRow | None:
        self._restores[row.id] = row
        return row

    def restore(self, job: str) -> RestoreJobRow | None:
        return self._restores.get(job)

    def restores(self, states: Sequence[RestoreState] = ()) -> list[RestoreJobRow]:
        return [row for row in self._restores.values() if not states or row.state in states]

    def restore_packs(self, job: str) -> list[RestorePackRow]:
        return []

    def other_thaws(self, job: str, chain: ChainName) -> dict[int, RestorePackRow]:
        return {}

    def end_restore(self, row: RestoreJobRow, seen: RestoreJobRow | None = None) -> RestoreJobRow | None:
        self._restores[row.id] = row
        return row


class Machine:
    """One state directory. `knows`: it has seen the repository whole; else it is empty each time."""

    def __init__(self, subject: Subject, root: Path, *, knows: bool, fast: bool) -> None:
        self.subject = subject
        self.state = root / ("knows" if knows else "empty")
        self.knows = knows
        self.clock = FakeClock(BEGINNING, seed=b"tamper")
        self.state.mkdir()
        self._template = root / "template"
        self._learned = self._touched = False
        self.catalog = DictCatalog() if fast else KeptCatalog(self.state / "catalog.sqlite")
        if knows:
            self._learn()
        self.catalog.keep()
        self._learned = True
        self._outputs = 0
        self.root = root

    def _learn(self) -> None:
        """Heads, logs, indexes and every pack in the cache: whatever could hide damage from a verification."""
        with self.engine(self.subject.objects) as engine:
            engine.rebuild()
            context = engine._writing()
            for row in context.catalog.chains():
                indexes = context.indexes(context.open_chain(row.chain))
                for pack in context.catalog.packs(row.chain):
                    indexes.opened(pack.number)
        for key, data in self.subject.objects.items():
            if pack := names.parse_pack(key):
                path = self.state / "cache" / pack.chain.group / f"{pack.chain.number:06d}" / key.rpartition("/")[2]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        shutil.copytree(self.state, self._template, ignore=shutil.ignore_patterns("catalog.sqlite*"))

    def _put_back(self) -> None:
        self.catalog.put_back()
        if self.knows and not self._touched:
            return
        self._touched = False
        for name in FOLDERS:
            shutil.rmtree(self.state / name, ignore_errors=True)
            source = self._template / name
            if self.knows and source.exists():
                shutil.copytree(source, self.state / name)
            else:
                (self.state / name).mkdir()
        (self.state / "scratch").mkdir(exist_ok=True)

    @contextmanager
    def engine(self, objects: Mapping[str, bytes], *, with_sheet: bool = False) -> Iterator[Engine]:
        """An engine on this machine as it was, and a store of these objects."""
        if self._learned:
            self._put_back()
        store = MemoryStore(self.clock, url=URL)
        store.load(objects)
        sheet = self.subject.sheet if with_sheet else None
        engine = open_engine(self.subject.config(self.state), clock=self.clock, store=store, recovery_sheet=sheet)
        engine._context = engine._open(self.catalog, writable=True)
        durable.install_hook(self._note)
        try:
            yield engine
        finally:
            durable.install_hook(None)
            engine._context = None

    def _note(self, moment: str, name: str) -> None:
        """Something was written, so that there is something to put back; what restores write nobody reads again."""
        self._touched |= not name.startswith(("restore:", "scratch-packs:", "target:"))

    def restore(self, engine: Engine, generation: str) -> tuple[dict[str, dict[str, Any]], RestoreReport]:
        """What a restore made of a generation, by its id; `GatewayError` as the engine raises it."""
        self._outputs += 1
        to = self.root / f"out-{self._outputs}"
        try:
            reference = Reference.parse(f"{self.subject.source}@{generation}")
            report = engine.restore(reference, to, incomplete=True)
            return described.tree(to), report
        finally:
            shutil.rmtree(to, ignore_errors=True)

    def end(self) -> None:
        self.catalog.end()


@contextmanager
def bench(subject: Subject, *, fast: bool = False) -> Iterator[tuple[Machine, Machine]]:
    """A machine that knows the repository and one that does not. `fast`: with catalogs that are no files."""
    with tempfile.TemporaryDirectory(prefix="gateway-tamper-", dir=scratch()) as folder:
        machines = [Machine(subject, Path(folder), knows=knows, fast=fast) for knows in (True, False)]
        try:
            yield machines[0], machines[1]
        finally:
            for machine in machines:
                machine.end()
