"""Pinning by clone on real file systems, in loop-mounted images."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.spool.pin import pin
from gateway.spool.walk import SpoolEntry, walk
from tests.servers.require import cannot

MIB = 1 << 20


@pytest.fixture(params=["xfs", "btrfs"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    make = shutil.which(f"mkfs.{request.param}")
    if make is None:
        cannot(f"make a file system: mkfs.{request.param} is not installed")
    image, place = tmp_path / "image", tmp_path / "volume"
    with image.open("wb") as file:
        file.truncate(400 * MIB)
    subprocess.run([make, "-q", image], check=True, capture_output=True)
    place.mkdir()
    mounted = subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, text=True, check=False)
    if mounted.returncode:
        cannot(f"mount an image: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_clone_outlives_rewriting_and_deletion(volume: Path) -> None:
    data = os.urandom(MIB) * 8
    (volume / "piece").write_bytes(data)
    os.truncate(volume / "piece", 32 * MIB)
    [entry] = walk(volume)
    assert isinstance(entry, SpoolEntry)
    with pin(volume, entry) as pinned:
        assert pinned.by == "clone"
        assert pinned.no_writer
        assert os.listdir(volume) == ["piece"]
        assert list(walk(volume)) == [entry], "cloning must not look like a change"
        with (volume / "piece").open("r+b", buffering=0) as file:
            file.write(b"z" * MIB)
        (volume / "piece").unlink()
        assert list(pinned.data_ranges()) == [(0, 8 * MIB)]
        buffer = bytearray(9 * MIB)
        assert pinned.read_into(memoryview(buffer), 0) == 9 * MIB
        assert buffer == data + bytes(MIB)
        pinned.check()
    assert os.listdir(volume) == []
