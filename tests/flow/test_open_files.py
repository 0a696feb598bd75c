"""A pass leaves nothing behind in the process: neither open files nor what it read with, also without a collection of
cycles, which a large process does seldom.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator

import pytest

from gateway.jobs.backup import Backup, Reading
from gateway.repository.chunk_index import ChunkIndex
from gateway.repository.pack_files import OPEN_FILES, PACK_FILES
from gateway.repository.pipeline import Worker
from gateway.repository.reader import ChainReader
from gateway.repository.writer import ChainWriter
from tests.flow.gateways import KIB, Gateway
from tests.flow.test_deltas import change_pages, write_pages
from tests.unit.test_pack_files import open_below

HEAVY = (Backup, ChainReader, ChainWriter, ChunkIndex, Reading, Worker)


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def left() -> Counter[str]:
    return Counter(type(each).__name__ for each in gc.get_objects() if type(each) in HEAVY)


@pytest.mark.usefixtures("uncollected")
def test_a_pass_leaves_neither_open_files_nor_memory(gateway: Gateway) -> None:
    before = left()
    gateway.change(sizes={"own_stream_bytes": 64 * KIB})
    write_pages(gateway, "base", 64)
    for night in range(4):
        if night:
            change_pages(gateway, "base", 0.1, night)
        for number in range(20):
            gateway.source.noise(f"small-{number}", 4 * KIB + night)
        gateway.made()
        assert left() == before, f"after pass {night}"
    state = gateway.engine._state
    assert not open_below(state / "ids")
    assert not open_below(state / "sketches")
    assert 0 < len(open_below(state / "cache")) <= len(PACK_FILES) <= OPEN_FILES
