"""The product on a directory store of a test: small sizes, a clock and chance that repeat, deltas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from gateway.api import Reference
from gateway.clock import FakeClock
from gateway.config.sizes import WriterSizes
from gateway.config.values import (
    Config,
    KeysConfig,
    LimitsConfig,
    RepositoryConfig,
    SourceConfig,
    StateConfig,
    StorageClass,
)
from gateway.engine import Engine, open_engine
from gateway.format.directory import Segment
from gateway.format.keys import Argon2Cost
from gateway.format.log import COMMIT, Payload
from gateway.jobs import ingest
from gateway.model.ids import ChainName, Run
from gateway.repository import repository
from gateway.repository.chain import Chain
from gateway.repository.lists import read_list
from gateway.repository.packs import Base, NewSegment
from gateway.repository.reader import ChainReader
from gateway.repository.writer import ChainWriter
from gateway.store.directory import DirectoryStore
from gateway.store.port import ObjectFacts
from tests.golden import described

PASSPHRASE = "correct horse, battery: Straße"
CHEAP = Argon2Cost(8, 1, 1)
BEGINNING = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)  # later than the ctime of any file a test makes
SMALL = WriterSizes(
    pack_bytes=24 * 1024, part_bytes=24 * 1024, segment_bytes=4096, small_pack_bytes=2048, list_part_records=2,
    outline_runs_bytes=1, chunk_average_bytes=4096, own_stream_bytes=4096, extent_bytes=64 * 1024,
)  # fmt: skip


class Clock(FakeClock):
    """`passing` is called with every sleep: what happens to the source between two looks."""

    passing: Callable[[], None] | None = None

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if self.passing is not None:
            self.passing()


class NearestBase:
    """Chooses the stored segments that share most with a new one: up to two, of different packs."""

    def __init__(self, chain: Chain, reader: ChainReader, indexes: Any) -> None:
        self._found: list[tuple[set[bytes], int, Segment, bytes, int, int]] = []
        facts: dict[tuple[int, int], tuple[int, int]] = {}
        for number, state in chain.fold.packs.items():
            if state.declaration.storage == "meta" or not state.usable:
                continue
            directory = indexes.opened(number).directory
            for segment in directory.segments:
                below = [
                    (run.pack, one.number)
                    for run in segment.bases
                    for one, _, _ in indexes.opened(run.pack).directory.segments_of(run.first, run.count, "")
                ]
                depth = 1 + max((facts[each][0] for each in below), default=-1)
                closure = segment.raw + sum(facts[each][1] for each in below)
                facts[number, segment.number] = depth, closure
                data = b"".join(reader.stream([Run(number, segment.first, segment.chunks)]))
                self._found.append((self._shingles(data), number, segment, data, depth, closure))

    @staticmethod
    def _shingles(data: bytes) -> set[bytes]:
        return {data[i : i + 16] for i in range(len(data) - 16)}

    def choose(self, new: NewSegment, *_: object) -> Base | None:
        own = self._shingles(bytes(new.raw))
        best: dict[int, tuple[int, Segment, bytes, int, int]] = {}
        for shingles, number, segment, data, depth, closure in self._found:
            shared = len(own & shingles)
            if shared > 100 and depth < 8 and shared > best.get(number, (0,))[0]:
                best[number] = shared, segment, data, depth, closure
        chosen = sorted(best.items(), key=lambda each: -each[1][0])[:2]
        if not chosen:
            return None
        return Base(
            tuple(Run(number, one[1].first, one[1].chunks) for number, one in chosen),
            b"".join(one[2] for _, one in chosen),
        )  # fmt: skip

    def stored(self, *_: object) -> None:
        pass

    def read(self, *_: object) -> None:
        pass


class NoBase:
    """Nothing is a delta."""

    def choose(self, *_: object) -> None:
        pass

    def stored(self, *_: object) -> None:
        pass

    def read(self, *_: object) -> None:
        pass


class InClasses(DirectoryStore):
    """A directory that takes packs of every class, as a bucket would; where a class leads is none of the format's."""

    def __init__(self, root: Path, clock: FakeClock) -> None:
        super().__init__(root, clock)
        self._classes: dict[str, str] = {}

    @property
    def knows_classes(self) -> bool:
        return True

    def put(self, key: str, data: bytes | memoryview, *, storage_class: str = "STANDARD", **more: Any) -> ObjectFacts:
        self._classes[key] = storage_class
        return super().put(key, data, storage_class=storage_class, **more)

    def head(self, key: str) -> ObjectFacts:
        return replace(super().head(key), storage_class=self._classes.get(key, "STANDARD"))


class Abandoned(Exception):
    """The run ends here, as after a power cut."""


class Product:
    """A repository below `base`, made anew or of given objects, and an engine on it."""

    def __init__(
        self, base: Path, *, seed: str = "", store: Path | None = None, sizes: WriterSizes = SMALL,
        passphrase: str = PASSPHRASE, source: str = "files", sheet: str | None = None,
    ) -> None:  # fmt: skip
        self.base, self.source, self.sizes = base, source, sizes
        base.mkdir(parents=True, exist_ok=True)
        self.spool, self.state = base / "spool", base / "state"
        self.root = store or base / "repository"
        self.clock = Clock(BEGINNING, seed=seed.encode() or None)
        self.store = InClasses(self.root, self.clock)
        self.storage = StorageClass.INSTANT
        self.deltas = True
        (base / "passphrase").write_text(passphrase + "\n")
        self.sheet = sheet
        if store is None:
            self.spool.mkdir()
            self.store.create_root()
            made = repository.create(self.store, self.clock, passphrase, region="", endpoint="", cost=CHEAP)
            self.sheet = made.sheet.replace(self.store.url, "file:///golden")

    def engine(self, *, with_sheet: bool = False) -> Engine:
        config = Config(
            repository=RepositoryConfig(url=self.store.url), state=StateConfig(directory=self.state),
            keys=KeysConfig(passphrase_file=self.base / "passphrase"), limits=LimitsConfig(workers=1, uploaders=1),
            sources=(SourceConfig(name=self.source, path=self.spool, storage_class=self.storage),), writer=self.sizes,
        )  # fmt: skip
        return open_engine(
            config, clock=self.clock, store=self.store, recovery_sheet=self.sheet if with_sheet else None
        )

    @contextmanager
    def opened(self, *, with_sheet: bool = False) -> Iterator[Engine]:
        engine = self.engine(with_sheet=with_sheet)
        try:
            yield engine
        finally:
            engine.close()

    def ingest(self, *, commit: bool = True, checkpoints: int = 0, passing: Callable[[], None] | None = None) -> None:
        """One generation, with so many checkpoints on the way; without `commit` the run is cut off before its entry."""
        product, left = self, checkpoints

        class Writer(ChainWriter):
            def __init__(self, chain: Chain, catalog: Any, cache: Any, indexes: Any, **more: Any) -> None:
                bases = NearestBase(chain, ChainReader(chain, indexes, None), indexes) if product.deltas else NoBase()
                super().__init__(chain, catalog, cache, indexes, bases=bases, **more)

            def submit(self, *extent: Any) -> Any:
                nonlocal left
                if left:  # an hour passes: a checkpoint is due
                    left -= 1
                    product.clock.advance(timedelta(minutes=61))
                return super().submit(*extent)

            def append(self, kind: str, payload: Any) -> Any:
                if kind == COMMIT and not commit:
                    raise Abandoned
                return super().append(kind, payload)

        self.clock.advance(timedelta(hours=1))
        self.clock.passing = passing
        try:
            with mock.patch.object(ingest, "ChainWriter", Writer), self.opened() as engine:
                report = engine.ingest(operator="golden").sources[0]
                assert report.generation is not None, report
        except Abandoned:
            assert not commit
        finally:
            self.clock.passing = None

    def append(self, chain: int, kind: str, payload: Payload) -> None:
        """An entry by hand."""
        self.clock.advance(timedelta(minutes=1))
        with self.opened() as engine:
            context = engine._writing()
            opened = context.open_chain(ChainName(self.source, chain))
            opened.append(kind, payload, context.writer)
            context.record(opened, opened.list_packs())

    # --- reading -----------------------------------------------------------------------------------------------------

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Every generation's file list, by the id people see."""
        found = {}
        with self.opened() as engine:
            for row in engine._reading().catalog.generations():
                generation = "g" + row.generation.hex()
                chain = engine._reading().open_chain(row.chain)
                commit = chain.fold.generations[row.generation].commit
                items = read_list(commit.files, engine._reading().reader(chain).fetch, generation)
                found[generation] = [described.product_record(item) for item in items]
        return found

    def rows(self) -> list[Any]:
        """The catalog of derived rows, by chain, as far as they follow from the repository's bytes alone."""
        with self.opened() as engine:
            catalog = engine._reading().catalog
            found = [described.plain(catalog.chain_rows(row.chain)) for row in catalog.chains()]
        for chain in found:
            for generation in chain["generations"]:
                del generation["hot_until"]  # of the store's dates, which are in no repository
        return found

    def restore(self, generation: str, to: Path, *, with_sheet: bool = False) -> None:
        with self.opened(with_sheet=with_sheet) as engine:
            row = next(r for r in engine._reading().catalog.generations() if "g" + r.generation.hex() == generation)
            engine.restore(Reference.parse(f"{row.source}@{generation}"), to, incomplete=True)
