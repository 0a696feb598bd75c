"""A spool that fills while the store takes nothing: told in time, nothing unproved goes, and it heals by itself."""

from __future__ import annotations

import errno
import gzip
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.machines import Source, machine
from tests.servers.require import cannot
from tests.system.serving import Serving

MIB = 1 << 20
FILE_BYTES = 90_000
"""Below what a bounded look can decompress, so that every file is known to be whole by its structure."""


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A small ext4 that keeps nothing back for root."""
    make = shutil.which("mkfs.ext4")
    if make is None or os.geteuid():
        cannot("make and mount an ext4")
    image, place = tmp_path / "image", tmp_path / "volume"
    with image.open("wb") as file:
        file.truncate(24 * MIB)
    subprocess.run([make, "-q", "-m", "0", "-O", "^has_journal", image], check=True, capture_output=True)
    place.mkdir()
    mounted = subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, text=True, check=False)
    if mounted.returncode:
        cannot(f"mount an image: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def piece(number: int) -> bytes:
    data = gzip.compress(random.Random(number).randbytes(FILE_BYTES), mtime=0)
    assert len(data) < 128 * 1024
    return data


def used(volume: Path) -> float:
    space = os.statvfs(volume)
    return 1 - space.f_bfree / space.f_blocks


@pytest.mark.slow
def test_a_full_spool_is_told_loses_nothing_and_drains_by_itself(tmp_path: Path, volume: Path) -> None:
    store, aside = tmp_path / "store", tmp_path / "aside"
    source = Source(name="files", path=volume / "in", minimum_evidence=2, more=("release_keep_generations = 1",))
    gateway = machine(tmp_path / "gateway", store, [source])
    gateway.init()
    written: dict[str, bytes] = {}

    def write(number: int) -> None:
        data, name = piece(number), f"{number:04}.gz"
        (source.path / name).write_bytes(data)
        written[name] = data

    engine = Serving(gateway)
    engine.start()
    try:
        number = 0
        while used(volume) < 0.4:
            write(number)
            number += 1
        first = set(written)
        engine.until("the first are protected", lambda: set(_kept(engine)) >= first)
        # From here on the store is gone: its place is taken by a file.
        store.rename(aside)
        store.touch()
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
        # That of the store opens when a request was given up, which takes minutes.
        engine.until("the alarm is there", lambda: "spool-filling" in engine.alarms())
        unproved = written.keys() - first
        assert unproved
        assert {name: (source.path / name).read_bytes() for name in unproved} == {
            name: written[name] for name in unproved
        }
        # It comes back; nobody calls the engine.
        store.unlink()
        aside.rename(store)
        engine.until("all are protected", lambda: _all(engine) >= written.keys(), seconds=120)
        assert torn not in _all(engine)
        engine.until("there is room again", lambda: used(volume) < 0.8, seconds=60)
        (source.path / torn).unlink(missing_ok=True)
        engine.until("the alarms are closed", lambda: not engine.alarms(), seconds=60)
        write(number + 1)
        engine.until("the next is protected", lambda: f"{number + 1:04}.gz" in _all(engine))
        assert engine.stop() == 0
    finally:
        engine.kill()
    for each in engine.gateway.json("generations", "files"):
        place = tmp_path / f"to-{each['number']}"
        gateway.run("restore", f"files@{each['number']}", "--to", place)
        for path in place.glob("*.gz"):
            assert path.read_bytes() == written[path.name]


def _kept(engine: Serving) -> list[str]:
    return list(_all(engine))


def _all(engine: Serving) -> set[str]:
    """Names in any protected generation."""
    return {name for number in engine.protected("files") for name in engine.files("files", number)}
