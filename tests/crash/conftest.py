"""A machine just before each step that is killed, and the process that runs commands on copies of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.cases import Prepared, prepare
from tests.crash.forks import Forks

ENOUGH = 512 * 1024 * 1024


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
def forks() -> Iterator[Forks]:
    with Forks() as server:
        yield server


@pytest.fixture(scope="session")
def prepared(quick: Path, forks: Forks) -> Prepared:
    return prepare(quick, forks)
