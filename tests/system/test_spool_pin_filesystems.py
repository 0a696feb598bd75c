"""What a pin promises on each file system: on XFS and btrfs a clone, on ext4 the lease; all real, in mounted images.

========================== =============================== ======================================
a producer meanwhile        XFS, btrfs (from 1 MiB)         ext4, and smaller files everywhere
========================== =============================== ======================================
rewrites or truncates it    waits for nothing; the pinned   waits at most `WATCH_SECONDS`; the pinned
                            version is read to its end      version is given up, and said so
deletes it                  the pinned version is rescued   the same: under the lease nobody could write
                            whole
renames another over it     the pinned version is rescued   as deleted
has it mapped for writing   vetoed before it is read        the same
========================== =============================== ======================================
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.spool.pin import CLONE_FROM_BYTES, Changed, HasWriter, Pinned, Vanished, pin
from gateway.spool.walk import SpoolEntry, walk
from tests.servers.require import cannot

MIB = 1 << 20
LARGE, SMALL = 4 * MIB, 64 * 1024
MAKE = {"xfs": ("-q",), "btrfs": ("-q",), "ext4": ("-q", "-F")}


@dataclass(frozen=True)
class Volume:
    path: Path
    clones: bool


@pytest.fixture(scope="module", params=MAKE)
def mounted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Volume]:
    make = shutil.which(f"mkfs.{request.param}", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if make is None:
        cannot(f"make a file system: mkfs.{request.param} is not installed")
    work = tmp_path_factory.mktemp(request.param)
    image, place = work / "image", work / "volume"
    with image.open("wb") as file:
        file.truncate(400 * MIB)
    subprocess.run([make, *MAKE[request.param], image], check=True, capture_output=True)
    place.mkdir()
    done = subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, text=True, check=False)
    if done.returncode:
        cannot(f"mount an image: {done.stderr.strip()}")
    try:
        yield Volume(place, clones=request.param != "ext4")
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def volume(mounted: Volume, request: pytest.FixtureRequest) -> Iterator[Volume]:
    """A fresh directory on the volume."""
    place = mounted.path / f"test-{abs(hash(request.node.name))}"
    place.mkdir()
    yield Volume(place, mounted.clones)
    shutil.rmtree(place)


def seen(root: Path) -> SpoolEntry:
    [entry] = [each for each in walk(root) if isinstance(each, SpoolEntry) and each.path == b"piece"]
    return entry


def content(pinned: Pinned) -> bytes:
    buffer = bytearray(pinned.size)
    assert pinned.read_into(memoryview(buffer), 0) == len(buffer)
    return bytes(buffer)


def rewrite(path: Path) -> None:
    with path.open("r+b", buffering=0) as file:
        file.write(b"new" * 1000)


def empty_and_rewrite(path: Path) -> None:
    path.write_bytes(b"shorter")


def truncate(path: Path) -> None:
    os.truncate(path, 10)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def delete(path: Path) -> None:
    path.unlink()


def rename_over(path: Path) -> None:
    """What rsync and careful programs do: the old inode loses its last name."""
    (path.parent / "temporary").write_bytes(b"another")
    os.rename(path.parent / "temporary", path)


WRITES: list[Callable[[Path], None]] = [rewrite, empty_and_rewrite, truncate, append]
TAKES_AWAY: list[Callable[[Path], None]] = [delete, rename_over]


def made(volume: Volume, size: int) -> tuple[Path, bytes]:
    path, data = volume.path / "piece", os.urandom(size)
    path.write_bytes(data)
    return path, data


def is_clone(volume: Volume, size: int) -> bool:
    return volume.clones and size >= CLONE_FROM_BYTES


@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_how_it_is_pinned(volume: Volume, size: int) -> None:
    _, data = made(volume, size)
    with pin(volume.path, seen(volume.path)) as pinned:
        assert pinned.by == ("clone" if is_clone(volume, size) else "lease")
        assert pinned.no_writer
        assert content(pinned) == data
        pinned.check()
        assert os.listdir(volume.path) == ["piece"]
    assert os.listdir(volume.path) == ["piece"]


@pytest.mark.parametrize("size", [LARGE, SMALL])
@pytest.mark.parametrize("change", WRITES)
def test_written_while_it_is_read(volume: Volume, size: int, change: Callable[[Path], None]) -> None:
    path, data = made(volume, size)
    before = seen(volume.path)
    with pin(volume.path, before) as pinned:
        first = bytearray(1000)
        pinned.read_into(memoryview(first), 0)
        assert first == data[:1000]
        # Under a lease the kernel makes the producer wait; somebody else must notice it meanwhile.
        writer = threading.Thread(target=change, args=(path,))
        writer.start()
        writer.join(20)
        assert not writer.is_alive(), "the producer waits for us"
        if is_clone(volume, size):
            assert content(pinned) == data
            pinned.check()
        else:
            with pytest.raises(Changed):
                content(pinned)
            with pytest.raises(Changed):
                pinned.check()
    after = seen(volume.path)
    assert after.identity != before.identity, "what was written is a new version"
    with pytest.raises(Changed):
        pin(volume.path, before)
    with pin(volume.path, after) as pinned:
        assert content(pinned) == path.read_bytes() != data
        pinned.check()


@pytest.mark.parametrize("size", [LARGE, SMALL])
@pytest.mark.parametrize("change", TAKES_AWAY)
def test_taken_away_while_it_is_read(volume: Volume, size: int, change: Callable[[Path], None]) -> None:
    path, data = made(volume, size)
    before = seen(volume.path)
    with pin(volume.path, before) as pinned:
        change(path)
        assert content(pinned) == data, "the bytes outlive their name as long as the pin is open"
        pinned.check()
    with pytest.raises(Vanished if change is delete else Changed):
        pin(volume.path, before)
    if change is rename_over:
        with pin(volume.path, seen(volume.path)) as pinned:
            assert content(pinned) == b"another"


def test_a_version_outlives_several_newer_ones(volume: Volume) -> None:
    """A volume that is recycled in place, again and again, while an old version of it is still being read."""
    path, data = made(volume, LARGE)
    inode = path.stat().st_ino
    if not volume.clones:
        return  # said by the tests of single changes: the version is given up
    with pin(volume.path, seen(volume.path)) as oldest:
        versions = []
        for number in range(5):
            with path.open("r+b") as file:
                file.truncate(0)
                file.write(bytes([number]) * LARGE)
            versions.append(pin(volume.path, seen(volume.path)))
        assert path.stat().st_ino == inode
        path.unlink()
        assert content(oldest) == data
        oldest.check()
        for number, version in enumerate(versions):
            assert content(version) == bytes([number]) * LARGE
            version.check()
            version.close()
    assert os.listdir(volume.path) == []


MAPPED = """
import mmap, sys
file = open(sys.argv[1], "r+b")
view = mmap.mmap(file.fileno(), 0)
file.close()
print("ready", flush=True)
for line in sys.stdin:
    view[0:6] = b"mapped"
    print("done", flush=True)
"""


@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_a_mapped_writer_is_a_veto_though_it_closed_the_file(volume: Volume, size: int) -> None:
    path, data = made(volume, size)
    entry = seen(volume.path)
    child = subprocess.Popen(
        [sys.executable, "-c", MAPPED, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "ready\n"
        with pytest.raises(HasWriter):
            pin(volume.path, entry)
    finally:
        child.stdin.close()
        child.wait(20)
        child.stdout.close()
    with pin(volume.path, entry) as pinned:
        assert content(pinned) == data


@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_a_writer_that_maps_it_while_it_is_read(volume: Volume, size: int) -> None:
    path, data = made(volume, size)
    with pin(volume.path, seen(volume.path)) as pinned:
        child = subprocess.Popen(
            [sys.executable, "-c", MAPPED, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "ready\n", "it was let in"
            child.stdin.write("go\n")
            child.stdin.flush()
            assert child.stdout.readline() == "done\n"
            if is_clone(volume, size):
                assert content(pinned) == data
                pinned.check()
            else:
                with pytest.raises(Changed):
                    content(pinned)
        finally:
            child.stdin.close()
            child.wait(20)
            child.stdout.close()
    with path.open("rb") as file:
        assert file.read(6) == b"mapped"


def test_holes_stay_holes(volume: Volume) -> None:
    path = volume.path / "piece"
    with path.open("wb") as file:
        file.write(b"x" * 65_536)
        file.seek(8 * MIB)
        file.write(b"y" * 65_536)
        file.truncate(16 * MIB)
    os.sync()
    with pin(volume.path, seen(volume.path)) as pinned:
        assert list(pinned.data_ranges()) == [(0, 65_536), (8 * MIB, 65_536)]
        assert content(pinned) == path.read_bytes()


def test_a_full_volume_takes_no_pin_away(volume: Volume) -> None:
    """A clone needs a little space for itself; where there is none, the lease does."""
    path, data = made(volume, LARGE)
    entry = seen(volume.path)
    filler = volume.path / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            while file.write(bytes(MIB)) == MIB:
                pass
    except OSError:
        pass
    try:
        with pin(volume.path, entry) as pinned:
            assert pinned.by in (("clone", "lease") if volume.clones else ("lease",))
            assert content(pinned) == data
            pinned.check()
    finally:
        filler.unlink()
    assert path.read_bytes() == data
