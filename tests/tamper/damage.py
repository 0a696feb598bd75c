"""What an ingest makes of a repository that was tampered with: never a wrong generation, never more damage."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from gateway.api import Depth, Reference
from gateway.clock import FakeClock
from gateway.engine import Engine, open_engine
from gateway.errors import GatewayError
from gateway.store.memory import MemoryStore
from tests.golden import described
from tests.golden.product import BEGINNING
from tests.tamper.bench import scratch
from tests.tamper.cases import Case
from tests.tamper.subjects import URL, Subject

TRIES = 2
"""After a refusal that says so, the next ingest may need a new chain; it must not need a third try."""


@contextmanager
def _engine(subject: Subject, store: MemoryStore, clock: FakeClock, state: Path, spool: Path) -> Iterator[Engine]:
    engine = open_engine(subject.config(state, spool), clock=clock, store=store)
    try:
        yield engine
    finally:
        engine.close()


def check(subject: Subject, case: Case) -> list[str]:
    """What is wrong with an ingest after a case; each on the machine that wrote the repository and on a new one, with
    and without a verification before it.
    """
    wrong = []
    for knows in (True, False):
        for verified in (True, False):
            with tempfile.TemporaryDirectory(prefix="gateway-tamper-", dir=scratch()) as folder:
                how = f"{'knowing' if knows else 'empty'} machine, {'verified' if verified else 'not verified'}"
                found = _one(subject, case, Path(folder), knows=knows, verified=verified)
                wrong += [f"{subject.name}, {case.kind} {case.what}, {how}: {each}" for each in found]
    return wrong


def _one(subject: Subject, case: Case, root: Path, *, knows: bool, verified: bool) -> list[str]:
    clock = FakeClock(BEGINNING, seed=case.what.encode())
    clock.advance(timedelta(days=2))
    store = MemoryStore(clock, url=URL)
    store.load(case.apply(subject.objects))
    state, spool = root / "state", root / "spool"
    shutil.copytree(subject.where / "spool", spool, symlinks=True)
    if knows:
        shutil.copytree(subject.where / "state", state)
    (spool / "after").write_bytes(b"the damage came before this")
    try:
        made = _ingest(subject, store, clock, state, spool, knows=knows, verified=verified)
    except GatewayError as error:
        return [] if error.what else ["a refusal without a word"]
    except Exception as error:  # noqa: BLE001 - any other type is what is looked for
        return [f"{type(error).__name__}: {error}"]
    if made is None:
        return ["nothing was made"]
    generation, protected = made
    return _restored(subject, store, clock, root, spool, generation, must=protected and verified)


def _ingest(
    subject: Subject, store: MemoryStore, clock: FakeClock, state: Path, spool: Path, *, knows: bool, verified: bool
) -> tuple[str, bool] | None:
    with _engine(subject, store, clock, state, spool) as engine:
        if not knows:
            engine.rebuild()
        if verified:
            engine.verify(depth=Depth.DATA)
        for left in reversed(range(TRIES)):
            try:
                report = engine.ingest(operator="tamper").sources[0]
                break
            except GatewayError:
                if not left:
                    raise
        if report.generation is None:
            return None
        return report.generation.id, report.generation.state == "protected"


def _restored(
    subject: Subject, store: MemoryStore, clock: FakeClock, root: Path, spool: Path, generation: str, *, must: bool
) -> list[str]:
    """On an empty machine: right bytes, and all of them when the generation was called protected by one that had
    looked at all the data; else what cannot be had is named.
    """
    to = root / "out"
    reference = Reference.parse(f"{subject.source}@{generation}")
    try:
        with _engine(subject, store, clock, root / "elsewhere", spool) as engine:
            engine.rebuild()
            report = engine.restore(reference, to, incomplete=True)
    except GatewayError as error:
        return [f"what was called protected is not restored: {error}"] if must else []
    found, source = described.tree(to), described.tree(spool)
    wrong = [f"{path} is {one}, not {source.get(path)}" for path, one in found.items() if one != source.get(path)]
    left_out = {described.path_text(each.path) for each in report.left_out}
    lost = source.keys() - found.keys()
    if must:
        wrong += [f"{path} of what was called protected is left out" for path in lost]
    else:
        wrong += [f"{path} is neither there nor named" for path in lost - left_out]
    return wrong
