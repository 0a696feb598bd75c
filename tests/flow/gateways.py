"""A gateway on a store in memory, with real files for spool, state and target.

What a test may do to it is said here once; that the bucket was enough is proved at the end of every test
(`Gateway.prove_the_bucket_is_enough`, called by the fixture).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.api import (
    Depth,
    GenerationInfo,
    Problem,
    ProgressCallback,
    RebuildReport,
    Reference,
    RestoreReport,
    SourceIngest,
    no_progress,
)
from gateway.catalog import Catalog
from gateway.clock import FakeClock
from gateway.config.sizes import WriterSizes
from gateway.config.values import CacheConfig, Config, LimitsConfig, RepositoryConfig, SourceConfig, StateConfig
from gateway.engine import Engine, open_engine
from gateway.log import Collector, Level, Log
from gateway.store.memory import MemoryStore
from gateway.store.wrap import RetryingStore
from tests.flow.trees import Source, Tree, tree

PASSPHRASE = "correct horse battery staple"
ENVIRONMENT = {"GATEWAY_PASSPHRASE": PASSPHRASE}
KIB = 1024

# Every cut that the writer makes comes after little: packs of 256 KiB in parts of 64, lists of some 8 records a part.
SMALL = WriterSizes(
    pack_bytes=256 * KIB,
    part_bytes=64 * KIB,
    segment_bytes=16 * KIB,
    extent_bytes=64 * KIB * KIB,
    own_stream_bytes=96 * KIB,
    small_pack_bytes=1,
    list_part_records=8,
    runs_per_record=4,
    outline_runs_bytes=64,
    checkpoint_packs=4096,
    chunk_average_bytes=4 * KIB,
)

# Files made by a test are always older than two seconds for this clock, so unchanged ones are known as such at once.
START = datetime(2031, 3, 1, 3, 0, tzinfo=UTC)


def make_clock(seed: bytes = b"flow") -> FakeClock:
    return FakeClock(START, seed=seed)


def make_store(clock: FakeClock, **changes: Any) -> MemoryStore:
    return MemoryStore(clock, min_part_bytes=KIB, **changes)


@dataclass(frozen=True, slots=True)
class Born:
    """A repository just after `init`: its objects, and its recovery sheet."""

    objects: dict[str, bytes]
    sheet: str
    meta: dict[str, str]


@dataclass(slots=True)
class Gateway:
    """One machine with its store. `healthy` False: the test damaged the store for good."""

    root: Path
    born: Born
    sizes: WriterSizes = SMALL
    workers: int = 2
    healthy: bool = True
    checked: bool = True
    clock: FakeClock = field(default_factory=make_clock)
    events: Collector = field(default_factory=Collector)
    names: itertools.count[int] = field(default_factory=itertools.count)
    store: MemoryStore = field(init=False)
    config: Config = field(init=False)
    source: Source = field(init=False)
    engines: dict[Path, Engine] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = make_store(self.clock)
        self.store.load(self.born.objects)
        self.source = Source(self.root / "spool")
        self.source.root.mkdir()
        self.config = Config(
            repository=RepositoryConfig(url="s3://bucket/gateway"),
            state=StateConfig(directory=self.root / "state"),
            cache=CacheConfig(max_bytes=64 * KIB * KIB),
            limits=LimitsConfig(workers=self.workers, uploaders=2),
            writer=self.sizes,
            sources=(SourceConfig(name="src", path=self.source.root, settle=timedelta(seconds=5)),),
        )
        # The state directory of the machine that ran `init`.
        (self.root / "state").mkdir()
        with Catalog(self.root / "state" / "catalog.sqlite") as catalog:
            for key, value in self.born.meta.items():
                catalog.set_meta(key, value)

    # --- machines ----------------------------------------------------------------------------------------------------

    def open(self, config: Config | None = None, **options: Any) -> Engine:
        """The engine on a configuration's state directory; the one before it on the same directory is closed."""
        config = config or self.config
        self.close(config.state.directory)
        options.setdefault("environment", ENVIRONMENT)
        log = Log(self.events, self.clock, level=Level.INFO)
        engine = open_engine(config, store=RetryingStore(self.store, self.clock), clock=self.clock, log=log, **options)
        self.engines[config.state.directory] = engine
        return engine

    def close(self, state: Path | None = None) -> None:
        for directory in [state] if state else list(self.engines):
            engine = self.engines.pop(directory, None)
            if engine is not None:
                engine.close()

    @property
    def engine(self) -> Engine:
        return self.engines.get(self.config.state.directory) or self.open()

    def change(self, *, sizes: dict[str, int] | None = None, **changes: Any) -> None:
        """Another configuration: fields of `sizes`, and of the only source. Like a restart of the gateway."""
        self.close()
        writer = replace(self.config.writer, **(sizes or {}))
        source = replace(self.config.sources[0], **changes)
        self.config = replace(self.config, writer=writer, sources=(source, *self.config.sources[1:]))

    def add_source(self, name: str) -> Source:
        self.close()
        source = Source(self.root / f"spool-{name}")
        source.root.mkdir()
        entry = SourceConfig(name=name, path=source.root, settle=timedelta(seconds=5))
        self.config = replace(self.config, sources=(*self.config.sources, entry))
        return source

    def elsewhere(self, name: str = "") -> Config:
        """The same configuration on an empty machine."""
        state = self.root / f"state-{name or next(self.names)}"
        return replace(self.config, state=StateConfig(directory=state))

    def lose_state(self) -> RebuildReport:
        """The gateway's own disk is lost: go on with an empty one."""
        self.close()
        self.config = self.elsewhere()
        return self.engine.rebuild()

    # --- verbs -------------------------------------------------------------------------------------------------------

    def ingest(self, source: str = "src", *, progress: ProgressCallback = no_progress, **options: Any) -> SourceIngest:
        self.clock.advance(timedelta(minutes=10))
        (report,) = self.engine.ingest(source, progress=progress, **options).sources
        return report

    def made(self, source: str = "src", **options: Any) -> GenerationInfo:
        """Ingest, where a protected generation must come of it."""
        report = self.ingest(source, **options)
        assert report.generation is not None, report
        assert report.generation.state == "protected", report
        return report.generation

    def restore(self, generation: str = "src", *, check: bool = True, **options: Any) -> tuple[Path, RestoreReport]:
        target = options.pop("to", None) or self.root / f"restored-{next(self.names)}"
        report = self.engine.restore(Reference.parse(generation), target, **options)
        if check:
            assert not report.left_out, report.left_out
            assert not report.notes, report.notes
        return target, report

    def restored(self, generation: str = "src", **options: Any) -> Tree:
        return tree(self.restore(generation, **options)[0])

    def list(self, generation: str = "src", path: bytes = b"") -> list[bytes]:
        return [info.path for info in self.engine.list_files(Reference.parse(generation), path)]

    def diff(self, before: str, after: str) -> dict[bytes, str]:
        found = self.engine.diff(Reference.parse(before), Reference.parse(after))
        return {each.path: str(each.change) for each in found}

    def verify(self, depth: Depth = Depth.DATA) -> tuple[Problem, ...]:
        return self.engine.verify(depth=depth).problems

    # --- the store ---------------------------------------------------------------------------------------------------

    def keys(self, start: str) -> list[str]:
        return sorted(key for key in self.store.dump() if key.startswith(start))

    def lose(self, key: str) -> bytes:
        """Delete an object behind the gateway's back; returns its bytes."""
        objects = self.store.dump()
        data = objects[key]
        self.store.delete(key)
        return data

    def put_back(self, key: str, data: bytes) -> None:
        from gateway.store.crc import crc64

        self.store.put(key, data, crc64=crc64(data))

    # --- the proof ---------------------------------------------------------------------------------------------------

    def derived(self) -> dict[str, list[Any]]:
        with Catalog(self.config.state.directory / "catalog.sqlite", read_only=True) as catalog:
            return catalog.dump_derived()

    def prove_the_bucket_is_enough(self) -> None:
        """An empty machine with nothing but the bucket and the sheet comes to the same catalog, and can read all."""
        self.store.faults.clear()
        if not self.checked:
            return
        if not self.healthy:
            self.engine.verify(depth=Depth.DATA)  # so that this machine knows of the damage
        self.close()
        here = self.derived()
        empty = self.elsewhere("empty")
        engine = self.open(empty, recovery_sheet=self.born.sheet, environment={})
        report = engine.rebuild()
        with Catalog(empty.state.directory / "catalog.sqlite", read_only=True) as catalog:
            there = catalog.dump_derived()
        for table, rows in here.items():
            assert there[table] == rows, table
        if self.healthy:
            assert not report.problems
            found = engine.verify(depth=Depth.DATA)
            assert not found.problems
        self.close()
