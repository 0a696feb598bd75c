"""A whole job under one fault: what every combination of fault and operation has to prove.

    init | ingest, interrupted and gone on with | ingest of a change | rebuild on an empty machine | restore | verify

Each step runs through a faulty store; one that fails is run again, unchanged, once the fault is gone. Afterwards the
store alone, read without any fault, must give every generation that was reported back, byte for byte.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Protocol
from unittest.mock import patch

from gateway.api import Depth, Head, Reference
from gateway.catalog import Catalog, schema
from gateway.clock import FakeClock
from gateway.config.sizes import WriterSizes
from gateway.config.values import CacheConfig, Config, LimitsConfig, RepositoryConfig, SourceConfig, StateConfig
from gateway.engine import Engine, open_engine
from gateway.errors import GatewayError, StoreError
from gateway.format.keys import Argon2Cost
from gateway.repository import repository as repositories
from gateway.store.memory import MemoryStore
from gateway.store.port import ObjectStore
from gateway.store.wrap import RetryingStore, RetryPolicy
from tests.faults.kinds import BIRTH, KINDS
from tests.flow.gateways import ENVIRONMENT, START
from tests.flow.trees import Source, Tree, tree

KIB = 1024
SETTLE_SECONDS = 5
BURST = 3
# Short, so that a fault that lasts costs little; what may pass in the fake clock per call is still its `total`.
POLICY = RetryPolicy(tries=5, total=timedelta(minutes=5))
SIZES = WriterSizes(
    pack_bytes=256 * KIB, part_bytes=64 * KIB, segment_bytes=16 * KIB, extent_bytes=64 * KIB * KIB,
    own_stream_bytes=96 * KIB, small_pack_bytes=1, list_part_records=8, runs_per_record=4, outline_runs_bytes=64,
    checkpoint_packs=4096, chunk_average_bytes=4 * KIB,
)  # fmt: skip
UPLOADERS = 2
# LIMIT: calls of one step that may meet a lasting fault at the same time: the uploaders', and one after the other in
# the main thread what is not given up at once (the list of a damaged chain, a second chain).
CALLS_AT_ONCE = UPLOADERS + 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A fault, the operation it happens to, and when: once at call `first`, for a `burst`, or from there on."""

    fault: str
    operation: str
    first: int = 1
    lasts: str = "once"

    def __str__(self) -> str:
        return f"{self.fault}{'' if self.lasts == 'once' else '-' + self.lasts}@{self.operation}"

    @property
    def which(self) -> str:
        return {
            "once": str(self.first), "burst": f"{self.first}-{self.first + BURST - 1}", "for-ever": f"{self.first}+"
        }[self.lasts]  # fmt: skip


class Rig(Protocol):
    """A faulty way to a store in memory."""

    memory: MemoryStore
    clock: FakeClock

    @property
    def store(self) -> ObjectStore: ...

    def arm(self, case: Case) -> None: ...

    def interrupt(self) -> None: ...

    def heal(self) -> None: ...

    def requests(self) -> Counter[str]: ...

    def hits(self) -> int: ...

    def hit_a_slot(self) -> bool: ...

    def race(self, racer: Callable[[], None]) -> None: ...

    def check(self) -> None:
        """What only this rig sees: nothing acknowledged was sent again."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A step that did not do what it should, and said so."""

    step: str
    said: str
    error: GatewayError | None = None


class Surprise(AssertionError):
    """An invariant does not hold."""


class NeverHappened(Surprise):
    """The job made fewer such calls than the one that before it was measured."""


@dataclass(slots=True)
class Job:
    """One run of the whole job. `case` None: without a fault, to count requests."""

    root: Path
    rig: Rig
    sheet: str
    case: Case | None = None
    failures: list[Failed] = field(default_factory=list)
    steps: dict[str, Counter[str]] = field(default_factory=dict)
    baseline: dict[str, Counter[str]] | None = None
    source: Source = field(init=False)
    trees: dict[int, Tree] = field(default_factory=dict)
    engine: Engine | None = None

    def __post_init__(self) -> None:
        self.source = Source(self.root / "spool")
        self.source.root.mkdir()

    # --- machines ----------------------------------------------------------------------------------------------------

    def config(self, machine: str) -> Config:
        return Config(
            repository=RepositoryConfig(url="s3://bucket"),
            state=StateConfig(directory=self.root / machine),
            cache=CacheConfig(max_bytes=64 * KIB * KIB),
            limits=LimitsConfig(workers=2, uploaders=UPLOADERS),
            writer=SIZES,
            sources=(
                SourceConfig(name="src", path=self.source.root, settle=timedelta(seconds=SETTLE_SECONDS)),
            ),
        )  # fmt: skip

    def open(self, machine: str, store: ObjectStore, sheet: str | None) -> Engine:
        """A new process on a machine's state."""
        self.close()
        environment = {} if sheet else ENVIRONMENT
        self.engine = open_engine(
            self.config(machine), store=store, clock=self.rig.clock, recovery_sheet=sheet, environment=environment
        )
        return self.engine

    def close(self) -> None:
        if self.engine is not None:
            self.engine.close()
            self.engine = None

    # --- steps -------------------------------------------------------------------------------------------------------

    def step(self, name: str, machine: str, work: Callable[[Engine], str], *, sheet: bool = True) -> None:
        """Run a step under the fault; when it fails, heal and run it again, which must do it. `work` returns what it
        did not do, or nothing.
        """
        before, began, slept = self.rig.requests(), self.rig.clock.monotonic(), len(self.rig.clock.slept)
        try:
            said = work(self.open(machine, self.rig.store, self.sheet if sheet else None))
            failed = Failed(name, said) if said else None
        except GatewayError as error:
            failed = Failed(name, str(error), error)
        self.steps[name] = self.rig.requests() - before
        self._bounded(name, self.rig.clock.monotonic() - began, self.rig.clock.slept[slept:])
        if failed is None:
            return
        self.failures.append(failed)
        self.rig.heal()
        self.rig.clock.advance(timedelta(minutes=10))
        said = work(self.open(machine, self.rig.store, self.sheet if sheet else None))
        if said:
            raise Surprise(f"{name}, the fault gone: {said}; first it was: {failed.said}")

    def _bounded(self, name: str, seconds: float, sleeps: list[float]) -> None:
        """No call retries without end: neither in requests nor in time."""
        if self.baseline is None:
            return
        limit: float = 2 * self.baseline[name].total() + CALLS_AT_ONCE * 3 * POLICY.tries
        if self.steps[name].total() > limit:
            raise Surprise(f"{name} took {self.steps[name].total()} requests, more than {limit}")
        limit = SETTLE_SECONDS + 1 + CALLS_AT_ONCE * POLICY.total.total_seconds()
        if seconds > limit or len(sleeps) > SETTLE_SECONDS + 1 + CALLS_AT_ONCE * POLICY.tries:
            raise Surprise(f"{name} took {seconds} s and waited {len(sleeps)} times")

    def ingest(self, number: int) -> Callable[[Engine], str]:
        def work(engine: Engine) -> str:
            self.rig.clock.advance(timedelta(minutes=10))
            (report,) = engine.ingest("src").sources
            if report.generation is None:
                # Committed by the try before, whose answer came too late to be believed, or by a racer.
                if engine.generations() and engine.generations()[-1].number >= number:
                    return "" if engine.generations()[-1].state == "protected" else "nothing new, and not protected"
                return "nothing new"
            if report.generation.state != "protected":
                return f"{report.generation.state}: {report.generation.reason}"
            self._is_stored()
            return ""

        return work

    def _is_stored(self) -> None:
        """What was just reported protected lies in the store, whole. Nobody but the store itself is asked."""
        held = {key.rpartition("/")[2]: data for key, data in self.rig.memory.dump().items() if "packs/" in key}
        for name, (size, state) in self.packs("here").items():
            if state == "" and len(held.get(name, b"")) != size:
                raise Surprise(f"pack {name} was declared and is not in the store, or not whole")

    def packs(self, machine: str) -> dict[str, tuple[int, str]]:
        """Size and problem of every pack that a machine's catalog knows, by the last part of its key."""
        with Catalog(self.root / machine / "catalog.sqlite", read_only=True) as catalog:
            rows = catalog.dump_derived()["pack"]
        columns = [column.name for column in schema.pack.columns]
        found = [dict(zip(columns, row, strict=True)) for row in rows]
        return {f"{row['number']:08x}-{row['pack_id'].hex()}": (row["size"], row["problem"]) for row in found}

    def rebuild(self, engine: Engine) -> str:
        with Catalog(self.root / "here" / "catalog.sqlite", read_only=True) as catalog:
            heads = [
                Head(chain=name, sequence=head.sequence, digest=head.digest.hex())
                for name, head in catalog.heads().items()
            ]
        report = engine.rebuild(expect_heads=heads)
        if report.problems:
            return f"problems: {report.problems[0].what}"
        numbers = [info.number for info in engine.generations()]
        if numbers != sorted(self.trees):
            raise Surprise(f"rebuild is content with the generations {numbers}")
        return ""

    def restore(self, number: int) -> Callable[[Engine], str]:
        def work(engine: Engine) -> str:
            target = self.root / "restored"
            shutil.rmtree(target, ignore_errors=True)
            report = engine.restore(Reference.parse(f"src@{number}"), target)
            if report.left_out:
                return f"left out: {report.left_out[0].reason}"
            if tree(target) != self.trees[number]:
                raise Surprise(f"src@{number} was restored, and is another")
            return ""

        return work

    def verify(self, engine: Engine) -> str:
        problems = engine.verify(depth=Depth.DATA).problems
        return f"problems: {problems[0].what}" if problems else ""

    # --- the job -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        try:
            if self.case is not None and self.case.operation in BIRTH:
                self._run_birth()
            else:
                self._run()
        finally:
            self.close()
        self.rig.heal()
        self._judge()

    def _run(self) -> None:
        self._fill()
        if self.case is not None and self.case.operation == "parts":
            self.rig.interrupt()
            try:
                self.ingest(1)(self.open("here", self.rig.store, self.sheet))
            except GatewayError:
                self.rig.heal()
            else:
                raise Surprise("a denied part was not noticed")
        if self.case is not None:
            self.rig.race(self._racer)
            self.rig.arm(self.case)
        self.step("ingest", "here", self.ingest(1))
        self._change()
        self.step("change", "here", self.ingest(2))
        self.step("rebuild", "there", self.rebuild)
        self.step("restore", "there", self.restore(max(self.trees)))
        self.step("verify", "there", self.verify)
        self.rig.heal()
        self._prove()

    def _run_birth(self) -> None:
        """`init` under the fault, on an empty store."""
        self.rig.memory.load({})
        assert self.case is not None
        self.rig.arm(self.case)

        def init(engine: Engine) -> str:
            try:
                self.sheet = engine.init().recovery_sheet
            except GatewayError:
                # An init whose last answer was lost has made a repository; its passphrase opens it.
                if not self.failures or not any(key == "repository.json" for key in self.rig.memory.dump()):
                    raise
                self.sheet = ""
            return ""

        with cheap_passphrase():
            self.step("init", "here", init, sheet=False)
            self.rig.heal()
            self._fill()
            self.step("ingest", "here", self.ingest(1), sheet=False)
        if self.sheet:
            self._prove()

    def _fill(self) -> None:
        self.source.noise("a/large", 200_000)
        for number in range(3):
            self.source.noise(f"b/{number}", 2_000)
        self.trees[1] = tree(self.source.root)

    def _change(self) -> None:
        self.source.noise("b/new", 20_000)
        self.source.overwrite("a/large", 100_000, b"changed")
        self.trees[2] = tree(self.source.root)

    def _racer(self) -> None:
        """Another gateway with the same keys writes its generation first."""
        engine = open_engine(
            self.config("foreign"), store=RetryingStore(self.rig.memory, self.rig.clock), clock=self.rig.clock,
            recovery_sheet=self.sheet, environment={},
        )  # fmt: skip
        try:
            engine.rebuild()
            engine.ingest("src", seal_now=True)
        finally:
            engine.close()

    # --- the proof ---------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Whether what was reported was allowed."""
        self.rig.check()
        if self.case is None:
            if self.failures:
                raise Surprise(f"without any fault: {self.failures}")
            return
        kind = KINDS[self.case.fault]
        if not self.rig.hits():
            raise NeverHappened(f"the fault never happened; {self.steps}")
        errors = kind.errors + (kind.of_a_slot if self.rig.hit_a_slot() else ())
        for failed in self.failures:
            error = failed.error
            if error is None:
                if kind.ridden:
                    raise Surprise(f"{failed.step} was not done: {failed.said}")
                continue
            if not isinstance(error, errors):
                raise Surprise(f"{failed.step} failed of the wrong thing: {error!r}") from error
            if isinstance(error, StoreError) and not error.advice:
                raise Surprise(f"{failed.step} says not what to do: {type(error).__name__}: {failed.said}") from error
        if kind.ridden and self.case.lasts != "for-ever" and self.failures:
            raise Surprise(f"was not ridden out: {self.failures}")
        # What was done in spite of its answer is found by a look: then nobody need notice.
        lasting = kind.ridden and not kind.acts and self.case.lasts == "for-ever"
        if (kind.fatal or lasting) and not self.failures:
            raise Surprise("nobody noticed")

    def _prove(self) -> None:
        """From the store alone, without faults: all that was reported is there, and this machine knows it rightly."""
        store = RetryingStore(self.rig.memory, self.rig.clock)
        engine = self.open("here", store, self.sheet)
        problems = engine.verify(depth=Depth.DATA).problems
        if problems:
            raise Surprise(f"the store is damaged: {problems}")
        engine = self.open("empty", store, self.sheet)
        report = engine.rebuild()
        if report.problems:
            raise Surprise(f"rebuild finds {report.problems}")
        made = [(info.number, info.state) for info in engine.generations()]
        if made != [(number, "protected") for number in sorted(self.trees)]:
            raise Surprise(f"generations are lost or doubled: {made}")
        for number in self.trees:
            if said := self.restore(number)(engine):
                raise Surprise(f"src@{number} cannot be restored: {said}")
        tables = {}
        for machine in ("here", "empty"):
            with Catalog(self.root / machine / "catalog.sqlite", read_only=True) as catalog:
                tables[machine] = catalog.dump_derived()
        for name, rows in tables["here"].items():
            if rows != tables["empty"][name]:
                raise Surprise(f"the catalog's {name} is not what a rebuild makes of the store")
        declared = self.packs("empty")
        orphans = {key for key in self.rig.memory.dump() if key.startswith("packs/")}
        orphans = {key for key in orphans if key.rpartition("/")[2] not in declared}
        # Who was overtaken keeps what it sent until the sweep; its numbers belong to the other now.
        if orphans and not (self.case is not None and KINDS[self.case.fault].race):
            raise Surprise(f"sent and never used: {orphans}")


@contextmanager
def cheap_passphrase() -> Iterator[None]:
    """Lets `init` stretch the passphrase at next to no cost."""
    with patch.object(repositories, "Argon2Cost", lambda: Argon2Cost(memory_kib=64, iterations=1, lanes=1)):
        yield


def new_clock(seed: str) -> FakeClock:
    return FakeClock(START, seed=seed.encode())
