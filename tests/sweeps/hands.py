"""One of the two processes of a schedule: an engine that stops before and after whatever another process could see.

It is forked by `tests.sweeps.play` and talks to it through a socket, one JSON object a line: it is told an act, says at
each gate where it is and waits to be let on, and says what came of the act. So the schedule decides who goes next, and
can kill either anywhere. What is real: the engine, its state directory, its threads, the store. What is not: the clock,
and with it the dates that the store states.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from gateway import durable
from gateway.api import Reference
from gateway.clock import Clock, FakeClock, SystemClock
from gateway.config.retention import RetentionConfig, RetentionRules
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
from gateway.errors import ApprovalNeeded, Conflict, GatewayError, UsageError
from gateway.log import Log, json_line
from gateway.store.directory import DirectoryStore
from gateway.store.open import open_store
from gateway.store.passing import PassingStore
from gateway.store.port import ObjectFacts, ObjectStore, Part, Upload
from gateway.store.wrap import RetryingStore
from tests.crash.machine import ENVIRONMENT, KIB, SIZES, SOURCE, append

BASE = datetime(2031, 3, 1, 3, 0, tzinfo=UTC)
"""Where the time of every schedule begins: behind all dates of the files in its spools."""
KEPT = 2
REAL_SIZES = replace(SIZES, pack_bytes=5 * KIB * KIB, part_bytes=5 * KIB * KIB, checkpoint_packs=1)
"""A real server refuses parts below 5 MiB: there every pack is one PUT, and a generation has few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A schedule's directory and store. `real`: as in `tests.crash.machine.Machine`."""

    root: Path
    real: str = ""
    parts: bool = False
    sweep_after: timedelta = timedelta(days=1)

    def repository(self) -> RepositoryConfig:
        if self.real:
            url, endpoint = self.real.split(" ")
            return RepositoryConfig(url=url, endpoint_url=endpoint, region="us-east-1")
        return RepositoryConfig(url=f"file://{self.root}/store")

    def bare_store(self) -> ObjectStore:
        if self.real:
            return open_store(self.repository(), SystemClock())
        return RetryingStore(DirectoryStore(self.root / "store", SystemClock()), SystemClock())

    def spool(self, name: str) -> Path:
        return self.root / f"spool-{name}"

    def state(self, name: str) -> Path:
        return self.root / f"state-{name}"

    def events(self, name: str) -> Path:
        return self.root / f"events-{name}"

    def config(self, name: str) -> Config:
        return Config(
            repository=self.repository(),
            state=StateConfig(directory=self.state(name)),
            cache=CacheConfig(max_bytes=64 * KIB * KIB),
            limits=LimitsConfig(workers=1, uploaders=1),
            writer=REAL_SIZES if self.real else SIZES,
            sources=(
                SourceConfig(
                    name=SOURCE, path=self.spool(name), settle=timedelta(seconds=5), storage_class=StorageClass.HOT
                ),
            ),
            retention=(
                RetentionConfig(sources=(SOURCE,), rules=RetentionRules(keep_last=KEPT, sweep_after=self.sweep_after)),
            ),
        )

    def engine(self, name: str, store: ObjectStore, clock: Clock) -> Engine:
        log = Log(lambda event: append(self.events(name), json_line(event)), clock)
        return open_engine(self.config(name), store=store, clock=clock, log=log, environment=ENVIRONMENT)


class Gate(Protocol):
    def __call__(self, where: str) -> None: ...


def open_gate(where: str) -> None:
    """Of the judge, whom nobody stops."""


class DatedStore(PassingStore):
    """Stops at a gate before every request, and dates objects by the schedule's clock: the day that an object got is
    written into a file before its bytes are sent.

    Parts: every pack goes up in parts, as into a bucket. `get` and `head` have no gate: what they see, nobody changes.
    """

    def __init__(self, place: Place, clock: Clock, gate: Gate = open_gate) -> None:
        super().__init__(place.bare_store())
        self._clock, self._gate, self._parts = clock, gate, place.parts
        self._path = place.root / "dates"
        self._read, self._dates = 0, dict[str, datetime]()
        self._lock = threading.Lock()

    def _note(self, key: str, *, again: bool = True) -> None:
        if again or self._date(key) is None:
            append(self._path, f"{self._clock.now().timestamp()} {key}")

    def _date(self, key: str) -> datetime | None:
        with self._lock:
            if self._path.exists() and self._path.stat().st_size > self._read:
                with self._path.open("rb") as file:
                    file.seek(self._read)
                    lines = file.read()
                whole = lines.rpartition(b"\n")[0]
                self._read += len(whole) + 1 if whole else 0
                for line in whole.decode().splitlines():
                    stamp, _, name = line.partition(" ")
                    self._dates[name] = datetime.fromtimestamp(float(stamp), UTC)
            return self._dates.get(key)

    def _dated(self, facts: ObjectFacts) -> ObjectFacts:
        return replace(facts, modified=self._date(facts.key))

    def put(
        self,
        key: str,
        data: bytes | memoryview,
        *,
        crc64: int,
        storage_class: str = "STANDARD",
        if_absent: bool = False,
    ) -> ObjectFacts:
        self._gate(f"put {key}")
        self._note(key, again=not if_absent)
        return self._dated(super().put(key, data, crc64=crc64, storage_class=storage_class, if_absent=if_absent))

    def put_file(
        self, key: str, path: Path, *, size: int, crc64: int, storage_class: str = "STANDARD"
    ) -> ObjectFacts | None:
        if self._parts:
            return None
        self._gate(f"put {key}")
        self._note(key)
        found = super().put_file(key, path, size=size, crc64=crc64, storage_class=storage_class)
        return None if found is None else self._dated(found)

    def head(self, key: str) -> ObjectFacts:
        return self._dated(super().head(key))

    def list_objects(self, prefix: str, *, after: str = "") -> Iterator[ObjectFacts]:
        self._gate(f"list {prefix}")
        return map(self._dated, list(super().list_objects(prefix, after=after)))

    def delete(self, key: str) -> None:
        self._gate(f"delete {key}")
        super().delete(key)

    def start_upload(self, key: str, *, storage_class: str = "STANDARD") -> str:
        self._gate(f"start {key}")
        upload = super().start_upload(key, storage_class=storage_class)
        self._note(f"upload {upload}")
        return upload

    def put_part(self, key: str, upload_id: str, number: int, data: bytes | memoryview, *, crc64: int) -> Part:
        self._gate(f"part {key}")
        return super().put_part(key, upload_id, number, data, crc64=crc64)

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part], *, size: int, crc64: int) -> ObjectFacts:
        self._gate(f"complete {key}")
        self._note(key)
        return self._dated(super().complete_upload(key, upload_id, parts, size=size, crc64=crc64))

    def abort_upload(self, key: str, upload_id: str) -> None:
        self._gate(f"abort {key}")
        super().abort_upload(key, upload_id)

    def list_uploads(self, prefix: str) -> list[Upload]:
        return [
            replace(each, initiated=self._date(f"upload {each.upload_id}")) for each in super().list_uploads(prefix)
        ]


# --- the process -----------------------------------------------------------------------------------------------------


class Line:
    """JSON objects through a socket, one a line."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self._in = end.makefile("rb")

    def say(self, **message: Any) -> None:
        self.end.sendall(json.dumps(message).encode() + b"\n")

    def hear(self) -> dict[str, Any] | None:
        """None: the other side is gone."""
        line = self._in.readline()
        heard: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return heard

    def close(self) -> None:
        self._in.close()
        self.end.close()


def live(place: Place, name: str, life: str, line: Line) -> None:
    """Do what is told until told to end. Never returns."""
    try:
        _serve(place, name, life, line)
    except BaseException:  # noqa: BLE001 - told to the schedule, whatever it is
        line.say(failed=traceback.format_exc())
    finally:  # also where nobody hears it any more: what the schedule does next is not this process's
        os._exit(0)


def _serve(place: Place, name: str, life: str, line: Line) -> None:
    turn = threading.Lock()
    open_now = [False]

    def gate(where: str) -> None:
        with turn:
            if open_now[0]:
                return
            line.say(at=where)
            heard = line.hear()
            if heard is None:
                os._exit(1)
            open_now[0] = bool(heard.get("free"))

    durable.install_hook(lambda moment, effect: gate(f"{moment} {effect}"))
    clock = FakeClock(BASE, seed=life.encode())
    store = DatedStore(place, clock, gate)
    engine: Engine | None = None
    while (told := line.hear()) is not None:
        clock.advance(max(timedelta(), datetime.fromtimestamp(told["now"], UTC) - clock.now()))
        open_now[0] = bool(told.get("free"))
        if told.get("reopen") and engine is not None:
            engine.close()
            engine = None
        try:
            engine = engine or place.engine(name, store, clock)
            came = _do(engine, told["act"], told.get("generation", ""))
        except Conflict as error:
            came = {"refused": str(error)}
        except (UsageError, ApprovalNeeded) as error:
            if told["act"] not in ("hold", "unhold", "expire", "expire-one"):
                raise
            came = {"refused": str(error)}
        line.say(done=came, now=clock.now().timestamp())


def _do(engine: Engine, act: str, generation: str) -> dict[str, Any]:
    reference = Reference(source=SOURCE, id_prefix=generation)
    match act:
        case "ingest" | "new-chain":
            (report,) = engine.ingest(SOURCE, new_chain=act == "new-chain").sources
            made = report.generation
            return {} if made is None else {"made": made.id, "state": str(made.state), "reason": made.reason}
        case "expire":
            plan = engine.retention_plan()
            return {"expired": len(engine.retention_apply(approve=plan.plan).expired)}
        case "expire-one":
            engine.expire_generation(reference)
        case "hold":
            engine.hold_generation(reference, reason="drawn by the schedule")
        case "unhold":
            engine.unhold_generation(reference)
        case "sweep":
            swept = engine.sweep()
            return {"deleted": swept.deleted, "ended": len(swept.ended), "problems": list(swept.problems)}
        case "rebuild":
            engine.rebuild()
        case _:
            raise GatewayError(f"no such act: {act}")
    return {}
