"""A spool that fills while the store takes nothing: told in time, nothing unproved goes, and it heals by itself."""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.api import GenerationState, Reference
from gateway.config import load
from gateway.config.values import EngineConfig
from gateway.engine import Engine, open_engine
from tests.engine.machines import Source, held_now, init, machine
from tests.servers.loopfs import LoopFS
from tests.system.serving import Serving

MIB = 1 << 20
WARNING = EngineConfig().spool_warning
FILE_BYTES = 90_000
"""Below what a bounded look can decompress, so that every file is known to be whole by its structure."""


@pytest.fixture
def volume(loopfs: Callable[[int], LoopFS]) -> Path:
    return loopfs(32 * MIB).path


def piece(number: int) -> bytes:
    data = gzip.compress(random.Random(number).randbytes(FILE_BYTES), mtime=0)
    assert len(data) < 128 * 1024
    return data


def used(volume: Path) -> float:
    space = os.statvfs(volume)
    return 1 - space.f_bfree / space.f_blocks


@pytest.mark.slow
@pytest.mark.needs_loopfs
def test_a_full_spool_is_told_loses_nothing_and_drains_by_itself(tmp_path: Path, volume: Path) -> None:
    store, aside = tmp_path / "store", tmp_path / "aside"
    source = Source(name="files", path=volume / "in", minimum_evidence=2, more=("release_keep_generations = 1",))
    gateway = machine(tmp_path / "gateway", store, [source])
    init(gateway)
    written: dict[str, bytes] = {}

    def write(number: int) -> None:
        data, name = piece(number), f"{number:04}.gz"
        (source.path / name).write_bytes(data)
        written[name] = data

    engine = Serving(gateway)
    with contextlib.closing(open_engine(load(gateway.config))) as reader, engine:
        kept = Kept(reader)
        number = 0
        while used(volume) < 0.4:
            write(number)
            number += 1
        first = set(written)
        engine.until("the first are protected", lambda: kept() >= first)
        # From here on the store is gone: its place is taken by a file.
        store.rename(aside)
        store.touch()
        while used(volume) < WARNING + 0.02:
            write(number)
            number += 1
        engine.until("it is told", lambda: "spool-filling" in engine.alarms())
        assert used(volume) < 0.9, "told when it was too late"
        torn = ""
        while not torn:
            try:
                write(number)
                number += 1
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                torn = f"{number:04}.gz"
        assert used(volume) > 0.97, "the writer was refused before the spool was full"
        unproved = written.keys() - first
        assert unproved
        assert {name: (source.path / name).read_bytes() for name in unproved} == {
            name: written[name] for name in unproved
        }
        # It comes back; nobody calls the engine.
        store.unlink()
        aside.rename(store)
        engine.until("all are protected", lambda: kept() >= written.keys(), seconds=120)
        assert torn not in kept()
        engine.until("the torn one is named", lambda: (held_now(reader, "files") or {}).get(torn))
        engine.until("there is room again", lambda: used(volume) < 0.8, seconds=60)
        (source.path / torn).unlink(missing_ok=True)
        engine.until("the alarms are closed", lambda: not engine.alarms(), seconds=60)
        write(number + 1)
        engine.until("the next is protected", lambda: f"{number + 1:04}.gz" in kept())
        assert engine.stop() == 0
        for each in reader.generations("files"):
            place = tmp_path / f"to-{each.number}"
            reader.restore(Reference(source="files", number=each.number), place)
            for path in place.glob("*.gz"):
                assert path.read_bytes() == written[path.name]


class Kept:
    """Names in any protected generation; each is asked once for its files. Read in this process, since a busy machine
    takes seconds to start one."""

    def __init__(self, reader: Engine) -> None:
        self._reader = reader
        self._seen: dict[int, set[str]] = {}

    def __call__(self) -> set[str]:
        for each in self._reader.generations("files"):
            if each.number not in self._seen and each.state is GenerationState.PROTECTED:
                reference = Reference(source="files", number=each.number)
                names = {os.fsdecode(file.path) for file in self._reader.list_files(reference)}
                self._seen[each.number] = names
        return set().union(*self._seen.values())
