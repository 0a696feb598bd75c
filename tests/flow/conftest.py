"""The main fixture: a gateway, and at its end the proof that the bucket is enough."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.catalog import Catalog
from gateway.config.values import Config, RepositoryConfig, StateConfig
from gateway.engine import CAPABILITIES, REPOSITORY, open_engine
from gateway.jobs import restores
from gateway.jobs.alarms import Alarms
from gateway.jobs.keeper import Keeper
from tests.flow.cold_restores import freeze
from tests.flow.gateways import ENVIRONMENT, Born, Gateway, make_clock, make_store


@contextmanager
def in_memory() -> Iterator[Path]:
    """A directory on a file system in memory, where there is one: nobody pulls the plug in these tests."""
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    root = Path(tempfile.mkdtemp(prefix="gateway-flow-", dir=shared))
    try:
        yield root
    finally:
        shutil.rmtree(root)


@contextmanager
def proved(root: Path, born: Born) -> Iterator[Gateway]:
    """A gateway in a directory; when all went well, the proof."""
    one = Gateway(root, born)
    try:
        yield one
        one.prove_the_bucket_is_enough()
    finally:
        one.close()


@pytest.fixture(scope="session")
def born(tmp_path_factory: pytest.TempPathFactory) -> Born:
    """One `init` for all tests: its passphrase is stretched on purpose slowly, and once a process."""
    clock = make_clock(b"born")
    store = make_store(clock)
    config = Config(
        repository=RepositoryConfig(url="s3://bucket/gateway"),
        state=StateConfig(directory=tmp_path_factory.mktemp("born") / "state"),
    )
    engine = open_engine(config, store=store, clock=clock, environment=ENVIRONMENT)
    report = engine.init()
    engine.close()
    with Catalog(config.state.directory / "catalog.sqlite", read_only=True) as catalog:
        meta = {key: catalog.meta(key) or "" for key in (REPOSITORY, CAPABILITIES)}
    return Born(store.dump(), report.recovery_sheet, meta)


@pytest.fixture
def gateway(born: Born) -> Iterator[Gateway]:
    with in_memory() as root, proved(root, born) as one:
        yield one


@pytest.fixture
def gateway_on_disk(tmp_path: Path, born: Born) -> Iterator[Gateway]:
    """The same where spool, state and target lie on what `/tmp` is."""
    with proved(tmp_path, born) as one:
        yield one


@pytest.fixture
def make_gateway(born: Born) -> Iterator[Callable[[], Gateway]]:
    """As many gateways as wanted, each with a store of its own, all proved at the end."""
    made: list[Gateway] = []
    with in_memory() as root:

        def make() -> Gateway:
            place = root / str(len(made))
            place.mkdir()
            made.append(Gateway(place, born))
            return made[-1]

        yield make
        for each in made:
            each.prove_the_bucket_is_enough()


@pytest.fixture
def long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who follows a restore job lets ten minutes of the clock go by at a time."""
    monkeypatch.setattr(restores, "WAITED_SECONDS", 600.0)


@pytest.fixture
def frozen(gateway: Gateway) -> Gateway:
    """Four files in GLACIER; nothing is at hand but the bucket."""
    freeze(gateway, files="abcd")
    return gateway


@pytest.fixture
def keeper(gateway: Gateway) -> Iterator[Keeper]:
    """Of the only source, turned by hand; a generation is due as soon as something is complete."""
    gateway.change(generation_interval=timedelta())
    context = gateway.engine.hold()
    one = Keeper(context, gateway.config.sources[0], Alarms(context.catalog, gateway.clock, context.log))
    yield one
    one.stop()
