"""A machine whose engine keeps many sources, for the suites of this folder, and what its generations hold."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

import pytest

from gateway.api import FileInfo, GenerationState, Reference
from gateway.catalog import PendingState
from gateway.config import load
from gateway.engine import Engine, open_engine
from gateway.format.keys import Argon2Cost
from gateway.repository import repository
from tests.system.command import Gateway, in_directory
from tests.writers.content import Form
from tests.writers.judge import Generation, Held
from tests.writers.oracle import Oracle, Version, digest_of

SETTLE_SECONDS = 1.0
RESCAN_SECONDS = 2
SAMPLE_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    name: str
    path: Path
    minimum_evidence: int
    more: tuple[str, ...] = ()


def machine(home: Path, store: Path, sources: list[Source]) -> Gateway:
    """Its configuration; a generation whenever something settled. `init` is left to the caller."""
    gateway = Gateway(home, in_directory(store), {}, more=("[engine]", f'rescan = "{RESCAN_SECONDS} s"'))
    lines = []
    for source in sources:
        source.path.mkdir(parents=True, exist_ok=True)
        lines += ["[[source]]", f'name = "{source.name}"', f'path = "{source.path}"', 'class = "hot"']
        lines += [f'settle = "{SETTLE_SECONDS:g} s"', f"minimum_evidence = {source.minimum_evidence}"]
        # One that is drawn in explicitly wins, so that a suite can make fewer generations.
        if not any(line.startswith("generation_interval") for line in source.more):
            lines.append('generation_interval = "0 s"')
        lines += source.more
    with gateway.config.open("a") as out:
        out.write("\n".join(lines) + "\n")
    return gateway


_QUICK = Argon2Cost(memory_kib=64, iterations=1, lanes=1)
_ONE_AT_A_TIME = threading.Lock()


def init(gateway: Gateway) -> Path:
    """`gateway init` in this process, and its sheet. Its passphrase is not stretched for long: these engines start by
    the dozen, and each would spend the better part of a second of a processor on that.
    """
    with _ONE_AT_A_TIME, pytest.MonkeyPatch.context() as patch:
        patch.setattr(repository, "Argon2Cost", lambda: _QUICK)
        with contextlib.closing(open_engine(load(gateway.config))) as engine:
            text = engine.init().recovery_sheet
    sheet = gateway.home / "sheet.txt"
    sheet.write_text(text)
    return sheet


TOLD_GZIP_BYTES = 128 * 1024
"""Up to here a gzip's structure is told (docs/design/evidence.md); of a larger one only quiet or a rename is."""


def as_told(oracle: Oracle, *, watched: bool = True) -> Oracle:
    """The same, without asking for evidence that the product says it does not find: of a large gzip, and, where no
    engine ran all the time (`watched` False), of a rename that nobody saw.
    """

    def told(path: str, each: Version) -> int:
        evidence = each.evidence
        if evidence == 3 and not watched:
            evidence = 2 if each.structure else 1
        large = path.endswith(Form.GZIP) and each.size > TOLD_GZIP_BYTES
        return 1 if evidence == 2 and large else evidence

    versions = {
        path: tuple(replace(each, evidence=told(path, each)) for each in versions)
        for path, versions in oracle.versions.items()
    }
    return replace(oracle, versions=versions)


@contextlib.contextmanager
def reading(gateway: Gateway) -> Iterator[Engine]:
    """An engine that only reads, in this process, beside one that runs: the passphrase is stretched once for all."""
    engine = open_engine(load(gateway.config))
    try:
        yield engine
    finally:
        engine.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One pass over a source, on the wall clock. `generation` None: nothing was new."""

    source: str
    begun: datetime
    ended: datetime
    generation: int | None

    @property
    def seconds(self) -> float:
        return (self.ended - self.begun).total_seconds()


def passes(log: str) -> list[Pass]:
    """All that an engine with a log in JSON has made, one after the other as its one worker does."""
    found = []
    for line in log.splitlines():
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("event") == "pass.ended":
            ended = datetime.fromisoformat(event["ts"])
            begun = ended - timedelta(seconds=event["seconds"])
            found.append(Pass(source=event["source"], begun=begun, ended=ended, generation=event["generation"]))
    return found


Spans = list[tuple[float, float]]
"""Monotonic."""


class Load:
    """When a process had no time: it was computing, or waited for a processor that others had. A context manager."""

    def __init__(self, pid: int) -> None:
        self._tasks = Path(f"/proc/{pid}/task")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.spans: Spans = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        before = self._spent()
        while not self._stop.wait(SAMPLE_SECONDS):
            now, spent = time.monotonic(), self._spent()
            busy = max((spent[task] - before.get(task, 0.0) for task in spent), default=0.0)
            # A thread that waits is counted when its turn came: it may have begun to wait some samples ago.
            self.spans.append((now - busy, now))
            before = spent

    def _spent(self) -> dict[str, float]:
        """Seconds of each thread, computing and waiting for a processor."""
        found = {}
        with contextlib.suppress(OSError):  # it has ended
            for task in os.listdir(self._tasks):
                with contextlib.suppress(OSError):
                    run, wait, _ = (self._tasks / task / "schedstat").read_text().split()
                    found[task] = (int(run) + int(wait)) / 1e9
        return found


def joined(spans: Iterable[tuple[float, float]]) -> Spans:
    """The same time, without overlaps."""
    out: Spans = []
    for begin, end in sorted(spans):
        if out and begin <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((begin, end))
    return out


def generations(engine: Engine, source: str, oracle: Oracle, made: Sequence[Pass] = ()) -> list[Generation]:
    """All generations of a source, oldest first; files of protected ones only. `made`: the passes they came of.

    The digest that is listed leaves holes out (docs/format/data.md). A file whose digest the oracle does not know is
    restored, and has the digest of what came of it.
    """
    known = {(version.digest, version.size) for _, version in oracle.all()}
    whole: dict[str, str] = {}
    spread = {each.generation: each.seconds for each in made if each.source == source}
    found = []
    for info in sorted(engine.generations(source), key=lambda each: each.number):
        reference = Reference(source=source, number=info.number)
        detail = engine.show(reference)
        protected = info.state is GenerationState.PROTECTED
        files = held(engine.list_files(reference)) if protected else {}
        for path, each in files.items():
            if (each.digest, each.size) not in known:
                if each.digest not in whole:
                    whole[each.digest] = _restored_digest(engine, reference, path)
                files[path] = replace(each, digest=whole[each.digest])
        found.append(
            Generation(
                number=info.number,
                state=str(info.state),
                created=info.created,
                files=files,
                held_back={_name(each.path): each.reason for each in detail.left_out},
                held_back_more=detail.left_out_more,
                spread_seconds=spread.get(info.number, 0.0),
            )
        )
    return found


def _restored_digest(engine: Engine, reference: Reference, path: str) -> str:
    with tempfile.TemporaryDirectory() as place:
        engine.restore(reference, Path(place) / "to", paths=[os.fsencode(path)])
        return digest_of((Path(place) / "to" / path).read_bytes())


def held(listed: Iterator[FileInfo]) -> dict[str, Held]:
    """A hard link is what its first member is."""
    files = {each.path: each for each in listed if str(each.type) == "file"}
    found = {}
    for path, each in files.items():
        first = each if each.hard_link_to is None else files[each.hard_link_to]
        assert first.digest is not None
        assert first.evidence is not None
        found[_name(path)] = Held(digest=first.digest, size=first.size, evidence=first.evidence)
    return found


def held_now(engine: Engine, source: str) -> Mapping[str, str] | None:
    """What is held back at this moment, with reasons; None when more is pending than is known by name."""
    with engine._catalog_to_read() as catalog:
        rows, count = catalog.pending(source)
    if count > len(rows):
        return None
    return {_name(row.path): row.detail if row.state is PendingState.HELD else "" for row in rows}


def _name(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
