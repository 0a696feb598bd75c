"""Machines to kill, and the processes that do it: two at a time where there are two processors."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.crash.cases import Prepared, kill_and_go_on, prepare
from tests.crash.forks import Forks
from tests.crash.machine import Kill

ENOUGH = 512 * 1024 * 1024
PROCESSES = min(2, os.cpu_count() or 1)


class Killing:
    """Runs cases ahead of the tests that ask for them."""

    def __init__(self, root: Path, servers: list[Forks]) -> None:
        self._root = root
        self._free: SimpleQueue[Forks] = SimpleQueue()
        for server in servers:
            self._free.put(server)
        self.prepared = prepare(root, servers[0])
        self._pool = ThreadPoolExecutor(len(servers))
        self._futures: dict[tuple[str, Kill], Future[list[str]]] = {}

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def start(self, step: str, kill: Kill) -> Future[list[str]]:
        key = step, kill
        if key not in self._futures:
            self._futures[key] = self._pool.submit(self._run, step, kill, self._root / f"case-{len(self._futures)}")
        return self._futures[key]

    def _run(self, step: str, kill: Kill, place: Path) -> list[str]:
        server = self._free.get()
        try:
            return kill_and_go_on(self.prepared, server, place, step, kill)
        finally:
            self._free.put(server)


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in memory where there is one: what kills leave is the same there, and nothing waits for a disk."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < ENOUGH:
        yield tmp_path_factory.mktemp("crash")
        return
    root = Path(tempfile.mkdtemp(prefix="gateway-crash-", dir=memory))
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def killing(quick: Path) -> Iterator[Killing]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Forks()) for _ in range(PROCESSES)]
        made = Killing(quick, servers)
        stack.callback(made.close)
        yield made


@pytest.fixture(scope="session")
def prepared(killing: Killing) -> Prepared:
    return killing.prepared


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    with Forks() as server:
        yield server
