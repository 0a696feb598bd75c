"""Every adapter of the store port, behind one fixture.

Where a server legitimately differs from the contract, `Habits` says so and the suite asserts the difference: the day
it is gone, the test fails and the line is removed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from gateway.clock import FakeClock
from gateway.store.directory import DirectoryStore
from gateway.store.memory import MemoryStore
from gateway.store.port import ObjectStore
from gateway.store.s3 import S3Store
from tests.contract.stores import HABITS, Subject, s3_settings, session
from tests.servers import coldsim
from tests.servers.seaweedfs import SeaweedFS


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    # It looks whether a key is there, and then writes: of two conditional writes at once both could win.
    wsgi = server._server
    assert wsgi is not None
    app, one_at_a_time = wsgi.app, threading.Lock()

    def answer(*request: Any) -> Any:
        with one_at_a_time:
            return app(*request)

    wsgi.app = answer
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def simulator() -> Iterator[coldsim.ColdSim]:
    with coldsim.running(coldsim.ColdSim()) as server:
        yield server


# moto and the simulator also the way AWS is asked: flat pages in byte order.
KINDS = [
    "memory",
    "directory",
    "moto",
    "moto-flat",
    "coldsim",
    "coldsim-flat",
    pytest.param("seaweedfs", marks=pytest.mark.needs_seaweedfs),
]


@pytest.fixture(params=KINDS)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    kind: str = request.param
    name = kind.removesuffix("-flat")
    opened: list[ObjectStore] = []
    open_store: Callable[[], ObjectStore]
    clock: FakeClock | None = None
    if name == "memory":
        clock = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
        memory = MemoryStore(clock)

        def open_store() -> ObjectStore:
            return memory

    elif name == "directory":

        def open_store() -> ObjectStore:
            store = DirectoryStore(tmp_path / "store", FakeClock(datetime(2026, 1, 1, tzinfo=UTC)))
            store.create_root()
            return store

    else:
        if name == "moto":
            url = str(request.getfixturevalue("moto_url"))
        elif name == "coldsim":
            simulator: coldsim.ColdSim = request.getfixturevalue("simulator")
            url, clock = simulator.url, simulator.clock
        else:
            server: SeaweedFS = request.getfixturevalue("seaweedfs")
            url = server.endpoint
        settings = replace(s3_settings(url), byte_order=True if kind.endswith("-flat") else None)

        def open_store() -> ObjectStore:
            return S3Store(settings, session=session())

    def reopen() -> ObjectStore:
        opened.append(open_store())
        return opened[-1]

    yield Subject(
        name=name,
        store=reopen(),
        habits=HABITS[name],
        reopen=reopen,
        now=clock.now if clock else None,
        advance=clock.advance if clock else None,
    )
    for store in opened:
        store.close()
