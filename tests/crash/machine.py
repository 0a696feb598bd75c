"""One machine of the crash tests: a store, a state directory and a spool, and the commands an operator runs on them.

Everything lies below one directory, so that a machine can be copied just after a kill. Time and random bytes are a
fake clock's, ten days on with every command: old enough for whatever is only removed when it is old.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway import durable
from gateway.clock import Clock, FakeClock
from gateway.config.sizes import WriterSizes
from gateway.config.values import (
    CacheConfig,
    Config,
    LimitsConfig,
    RepositoryConfig,
    SourceConfig,
    StateConfig,
    StorageClass,
)
from gateway.engine import Engine, open_engine
from gateway.format import names
from gateway.format.keys import Argon2Cost
from gateway.log import Log, json_line
from gateway.model.ids import ChainName
from gateway.repository.chain import PENDING
from gateway.repository.repository import create
from gateway.store.directory import UPLOADS, DirectoryStore
from gateway.store.passing import PassingStore
from gateway.store.port import ObjectFacts, ObjectStore, Part
from gateway.store.wrap import RetryingStore
from tests.flow.trees import Source, noise

KIB = 1024
PASSPHRASE = "correct horse battery staple"
ENVIRONMENT = {"GATEWAY_PASSPHRASE": PASSPHRASE}
CHEAP = Argon2Cost(memory_kib=8, iterations=1, lanes=1)
START = datetime(2031, 3, 1, 3, 0, tzinfo=UTC)
BETWEEN = timedelta(days=10)
SOURCE = "src"

# Packs of 64 KiB in parts of 24, and a checkpoint after three of them; the last pack of a generation is a small one.
SIZES = WriterSizes(
    pack_bytes=64 * KIB,
    part_bytes=24 * KIB,
    segment_bytes=16 * KIB,
    extent_bytes=64 * KIB * KIB,
    own_stream_bytes=40 * KIB,
    small_pack_bytes=24 * KIB,
    list_part_records=8,
    runs_per_record=4,
    outline_runs_bytes=64,
    checkpoint_packs=3,
    chunk_average_bytes=4 * KIB,
)
# Real servers refuse parts below 5 MiB.
REAL_SIZES = replace(SIZES, pack_bytes=11 * KIB * KIB, part_bytes=5 * KIB * KIB, checkpoint_packs=1)


def append(path: Path, line: str) -> None:
    """At once and whole: what was written before a kill is there."""
    with path.open("ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


class WatchedStore(PassingStore):
    """Writes down what of packs is sent: a line ``<what> <key>`` before each request that carries bytes.

    `parts`: every object larger than a part goes up in parts, as into a bucket.
    """

    def __init__(self, inner: ObjectStore, record: Path, *, parts: bool) -> None:
        super().__init__(inner)
        self._record = record
        self._parts = parts

    def _note(self, what: str, key: str) -> None:
        append(self._record, f"{what} {key}")

    def put(
        self,
        key: str,
        data: bytes | memoryview,
        *,
        crc64: int,
        storage_class: str = "STANDARD",
        if_absent: bool = False,
    ) -> ObjectFacts:
        self._note("put", key)
        return super().put(key, data, crc64=crc64, storage_class=storage_class, if_absent=if_absent)

    def put_file(
        self, key: str, path: Path, *, size: int, crc64: int, storage_class: str = "STANDARD"
    ) -> ObjectFacts | None:
        if self._parts:
            return None
        self._note("put", key)
        return super().put_file(key, path, size=size, crc64=crc64, storage_class=storage_class)

    def put_part(self, key: str, upload_id: str, number: int, data: bytes | memoryview, *, crc64: int) -> Part:
        self._note("part", key)
        return super().put_part(key, upload_id, number, data, crc64=crc64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """`spool`: where the source lies, outside of `root`. `seed`: of ids and keys, another one for every machine."""

    root: Path
    spool: Path
    seed: str = ""
    parts: bool = False
    state_name: str = "state"
    storage: str = "instant"
    alone: bool = True
    """Else its clock is right but for minutes, since what another machine writes must not seem old."""
    real: str = ""
    """URL and endpoint, with a space between, of a store that is not the directory."""

    @property
    def store_root(self) -> Path:
        return self.root / "store"

    @property
    def state(self) -> Path:
        return self.root / self.state_name

    @property
    def sent(self) -> Path:
        return self.root / "sent"

    def events(self) -> list[dict[str, object]]:
        lines = (self.root / "events").read_text().splitlines() if (self.root / "events").exists() else []
        return [json.loads(line) for line in lines]

    def repository(self) -> RepositoryConfig:
        if self.real:
            url, endpoint = self.real.split(" ")
            return RepositoryConfig(url=url, endpoint_url=endpoint, region="us-east-1")
        return RepositoryConfig(url=f"file://{self.store_root}")

    def config(self, state: Path | None = None) -> Config:
        return Config(
            repository=self.repository(),
            state=StateConfig(directory=state or self.state),
            cache=CacheConfig(max_bytes=64 * KIB * KIB),
            limits=LimitsConfig(workers=1, uploaders=1),
            writer=REAL_SIZES if self.real else SIZES,
            sources=(
                SourceConfig(
                    name=SOURCE, path=self.spool, settle=timedelta(seconds=5), storage_class=StorageClass(self.storage)
                ),
            ),
        )

    def clock(self, run: int) -> FakeClock:
        start, between = (START, BETWEEN) if self.alone else (datetime.now(UTC), timedelta(minutes=1))
        return FakeClock(start + run * between, seed=f"{self.seed} {self.state_name} {run}".encode())

    def bare_store(self, clock: Clock) -> ObjectStore:
        if self.real:
            from gateway.store.open import open_store

            return open_store(self.repository(), clock)
        return RetryingStore(DirectoryStore(self.store_root, clock), clock)

    def engine(self, run: int, *, state: Path | None = None) -> Engine:
        """An engine as the `run`-th command on this machine opens it."""
        clock = self.clock(run)
        log = Log(lambda event: append(self.root / "events", json_line(event)), clock)
        store = WatchedStore(self.bare_store(clock), self.sent, parts=self.parts)
        return open_engine(self.config(state), store=store, clock=clock, log=log, environment=ENVIRONMENT)

    def born(self) -> None:
        """What a cheap `init` leaves: the real one stretches its passphrase on purpose slowly."""
        if not self.real:
            DirectoryStore(self.store_root).create_root()
        create(self.bare_store(self.clock(-1)), self.clock(-1), PASSPHRASE, region="", endpoint="", cost=CHEAP)

    def copy(self, root: Path, seed: str) -> Machine:
        """The same machine somewhere else, from now on with ids of its own."""
        shutil.copytree(self.root, root)
        return replace(self, root=root, seed=seed)


# --- commands --------------------------------------------------------------------------------------------------------


def run_init(machine: Machine, run: int) -> None:
    engine = machine.engine(run)
    engine.init()
    engine.close()


def run_ingest(machine: Machine, run: int) -> None:
    engine = machine.engine(run)
    engine.ingest(SOURCE)
    engine.close()


def run_rebuild(machine: Machine, run: int) -> None:
    engine = machine.engine(run)
    engine.rebuild()
    engine.close()


def run_born(machine: Machine, run: int) -> None:
    machine.born()


COMMANDS: dict[str, Callable[[Machine, int], None]] = {
    "born": run_born,
    "init": run_init,
    "ingest": run_ingest,
    "rebuild": run_rebuild,
}


# --- kills -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """Die `moment` ("before", "after") the effect `name` for the `occurrence`-th time; with no name, of any effect."""

    moment: str
    name: str
    occurrence: int


def watch(trace: Path | None, kill: Kill | None) -> None:
    """From now on write down every effect of this process, and die at one."""
    out = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if trace is not None else -1
    seen = 0

    def hook(moment: str, name: str) -> None:
        nonlocal seen
        if out >= 0:
            os.write(out, f"{moment} {name}\n".encode())
        if kill is not None and moment == kill.moment and kill.name in ("", name):
            # Two threads may be here at once: one count lost makes one kill later, never none that matters.
            seen += 1
            if seen == kill.occurrence:
                os.kill(os.getpid(), 9)

    durable.install_hook(hook)


# --- spools ----------------------------------------------------------------------------------------------------------


def first_spool(root: Path) -> Source:
    """Many small files, a directory, a link, and files that are streams of their own."""
    source = Source(root)
    root.mkdir()
    for index in range(12):
        source.noise(f"small/{index:02}", 1_500 + 700 * index)
    for index in range(5):
        source.noise(f"big-{index}", 65_000 + 3_000 * index)
    source.write("text", b"".join(b"line %d\n" % index for index in range(2_000)))
    source.write("empty", b"")
    source.path("link").symlink_to("text")
    return source


def second_spool(first: Source, root: Path) -> Source:
    """What became of it: a file changed, one removed, large new ones; all others are the very same files."""
    root.mkdir()
    source = Source(root)
    for path in sorted(first.root.rglob("*")):
        name = path.relative_to(first.root)
        if path.is_dir():
            source.path(str(name)).mkdir()
            shutil.copystat(path, source.path(str(name)))
        elif name.as_posix() not in ("small/03", "big-2"):
            os.link(path, source.path(str(name)), follow_symlinks=False)
    source.write("big-2", first.path("big-2").read_bytes()[:60_000] + noise(77, 30_000))
    for index in range(4):
        source.write(f"new-large-{index}", noise(80 + index, 130_000))
    source.write("new-tiny", noise(79, 300))
    return source


def litter(machine: Machine) -> None:
    """Plant what kills at other places leave, all in one machine; the fake clock takes all of it for old."""
    for directory in ("", "cache", "ids", "index", "log", "scratch", "sketches"):
        (machine.state / directory / f"{durable.TEMPORARY}left").touch()
    (machine.state / "log" / SOURCE / "000001" / PENDING).write_bytes(b"an entry that was never sent")
    (machine.store_root / f"{durable.TEMPORARY}left").touch()
    (machine.store_root / UPLOADS / ("0" * 24)).mkdir()
    unknown = machine.store_root / UPLOADS / ("1" * 24)
    unknown.mkdir()
    (unknown / "key").write_text(names.pack("instant", ChainName(SOURCE, 1), 99, bytes(16)))


def many_files(root: Path, count: int) -> Source:
    source = Source(root)
    root.mkdir()
    for index in range(count):
        source.noise(f"file-{index:03}", 41_000 + 300 * index)
    return source


def fields(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Lines of two words."""
    return [(first, rest) for first, _, rest in (line.partition(" ") for line in lines)]
