"""One proxy, one repository just born, and how many requests of each kind a job without faults makes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.matrix import Born, measure
from tests.faults.proxy import running_proxy
from tests.faults.rigs import Wires, s3_store


@pytest.fixture(scope="session")
def memory_root() -> Iterator[Path]:
    """Where these jobs keep their files: no power is cut here, so memory serves."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=base, prefix="gateway-faults-") as root:
        yield Path(root)


@pytest.fixture
def place(memory_root: Path) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir=memory_root))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def wires() -> Iterator[Wires]:
    with running_proxy() as proxy:
        both = Wires(proxy, s3_store(proxy), s3_store(proxy, short=True))
        yield both
        both.patient.close()
        both.hasty.close()


@pytest.fixture(scope="session")
def born(memory_root: Path) -> Born:
    return Born.make(memory_root / "born")


@pytest.fixture(scope="session")
def baseline(memory_root: Path, wires: Wires, born: Born) -> dict[str, Counter[str]]:
    return measure(memory_root / "baseline", wires, born)
