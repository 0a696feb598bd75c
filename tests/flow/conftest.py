"""The main fixture: a gateway, and at its end the proof that the bucket is enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.config.values import Config, RepositoryConfig, StateConfig
from gateway.engine import open_engine
from tests.flow.gateways import ENVIRONMENT, Born, Gateway, make_clock, make_store


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
    return Born(store.dump(), report.recovery_sheet, report.repository)


@pytest.fixture
def gateway(tmp_path: Path, born: Born) -> Iterator[Gateway]:
    one = Gateway(tmp_path, born)
    yield one
    one.prove_the_bucket_is_enough()


@pytest.fixture
def make_gateway(tmp_path: Path, born: Born) -> Iterator[Callable[[str], Gateway]]:
    """Any number of gateways, each on a store of its own, all proved at the end."""
    made: list[Gateway] = []

    def make(name: str) -> Gateway:
        root = tmp_path / name
        root.mkdir()
        made.append(Gateway(root, born))
        return made[-1]

    yield make
    for each in made:
        each.prove_the_bucket_is_enough()
