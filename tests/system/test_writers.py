"""Schedules of writers on a real directory and over a real Samba: the books agree with what lies on the disk."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.spool.pin import Changed, HasWriter, pin
from gateway.spool.walk import SpoolEntry, walk
from tests.servers.loopfs import LoopFS
from tests.servers.process import ServerError, until
from tests.servers.require import require_server
from tests.servers.samba import Samba, descendants
from tests.system.command import Gateway, in_directory
from tests.writers.child import RemoteHands
from tests.writers.generations import held_back_of, read_generations
from tests.writers.hands import Hands, LocalHands, has_writer
from tests.writers.judge import Rules, Wrong, judge
from tests.writers.kinds import KINDS, LOCAL_ONLY, schedule
from tests.writers.oracle import Ended, Oracle
from tests.writers.plan import How
from tests.writers.play import OnDisk, Player, files_below

SETTLE = 0.3
MORTAL = {name for name in KINDS if name.endswith("killed")}
KIB = 1024
MIB = 1024 * KIB


def play(spool: Path, seed: int, samba: Samba | None = None, *, small_files: int = 1000) -> Oracle:
    """Played and compared with the disk, at every close and at the end."""
    plan = schedule(seed, local=samba is None, small_files=small_files)
    player = Player(plan, OnDisk(spool, samba.address if samba else None), settle_seconds=SETTLE, check=True)
    oracle = player.play()
    assert not player.differences(files_below(spool))
    for path, version in oracle.all():
        assert not version.beyond_telling, path
        assert version.last is None or version.first <= version.last, path
    return oracle


def may_ask_for_leases(directory: Path) -> None:
    probe = directory / "probe"
    probe.touch()
    try:
        assert not has_writer(probe)
    except OSError as error:
        pytest.skip(f"no read leases here: {error}")
    finally:
        probe.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_writers_on_a_directory(tmp_path: Path, seed: int) -> None:
    may_ask_for_leases(tmp_path)
    oracle = play(tmp_path, seed)
    small = [path for path in oracle.versions if "-small_files/" in path]
    assert len(small) == 1000
    dead = {path.partition("-")[2].partition("/")[0] for path, each in oracle.all() if each.ended is Ended.KILLED}
    assert dead == MORTAL


@pytest.mark.slow
@pytest.mark.needs_samba
@pytest.mark.parametrize("seed", [1, 2])
def test_writers_over_samba(samba: Samba, seed: int) -> None:
    """Fewer small files: a client in Python takes 10 ms for each."""
    oracle = play(samba.directory, seed, samba, small_files=100)
    dead = [(path, each) for path, each in oracle.all() if each.ended is Ended.KILLED]
    assert sorted(path.partition("-")[2].partition("/")[0] for path, _ in dead) == sorted(MORTAL - LOCAL_ONLY)
    for path, version in dead:
        assert not version.complete
        if "-preallocated_killed" in path:
            assert (samba.directory / path).stat().st_blocks * 512 < version.size, "full size, and half of the data"


@pytest.fixture(params=["directory", "samba"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Callable[[], RemoteHands], Hands]]:
    """A spool, a maker of writers in processes of their own, and a writer of this process."""
    with contextlib.ExitStack() as stack:
        if request.param == "samba":
            require_server("samba")
            server = stack.enter_context(Samba(tmp_path))
            from tests.writers.smb import SmbHands

            own: Hands = SmbHands(server.address)
            yield tmp_path, lambda: RemoteHands(server.address), own
        else:
            may_ask_for_leases(tmp_path)
            own = LocalHands(tmp_path)
            yield tmp_path, lambda: RemoteHands(tmp_path), own
        own.end()


def test_everything_a_writer_can_do_arrives(both: tuple[Path, Callable[[], RemoteHands], Hands]) -> None:
    spool, _, hands = both
    hands.make_directory("d")
    hands.make_directory("d")
    file = spool / "d" / "über.bak"
    hands.open("d/über.bak", How.CREATE)
    hands.set_end(3 * MIB)
    assert file.stat().st_size == 3 * MIB
    assert file.stat().st_blocks == 0
    assert has_writer(file)
    hands.write(MIB, b"x" * (2 * MIB))
    hands.backdate()
    hands.close()
    assert not has_writer(file)
    assert file.read_bytes() == bytes(MIB) + b"x" * (2 * MIB)
    assert file.stat().st_ctime - file.stat().st_mtime > 300 * 24 * 3600

    inode = file.stat().st_ino
    hands.open("d/über.bak", How.APPEND)
    hands.write(3 * MIB, b"more")
    hands.set_end(3 * MIB + 2)
    hands.close()
    hands.open("d/über.bak", How.UPDATE)
    hands.write(0, b"new")
    hands.close()
    assert file.stat().st_ino == inode
    assert file.read_bytes() == b"new" + bytes(MIB - 3) + b"x" * (2 * MIB) + b"mo"

    hands.open("d/a.tmp", How.CREATE)
    hands.write(0, b"in its place")
    hands.close()
    hands.rename("d/a.tmp", "d/über.bak")
    assert file.read_bytes() == b"in its place"
    assert os.listdir(file.parent) == ["über.bak"]
    hands.rename("d", "done")
    assert os.listdir(spool) == ["done"]
    hands.open("done/über.bak", How.CREATE)
    hands.close()
    assert (spool / "done" / "über.bak").read_bytes() == b""
    hands.delete("done/über.bak")
    assert os.listdir(spool / "done") == []


def test_a_writer_that_hangs_keeps_its_file_open_and_one_that_is_killed_does_not(
    both: tuple[Path, Callable[[], RemoteHands], Hands],
) -> None:
    spool, start, own = both
    writer = start()
    try:
        writer.open("a", How.CREATE)
        writer.write(0, b"x" * 100)
        writer.stop()
        assert has_writer(spool / "a")
        writer.go_on()
        writer.write(100, b"y" * 100)
        writer.kill(200, b"z" * (4 * MIB))
        until("the file is closed", lambda: not has_writer(spool / "a"), seconds=30)
        data = (spool / "a").read_bytes()
        assert data[:200] == b"x" * 100 + b"y" * 100
        assert set(data[200:]) <= {ord("z")}
    finally:
        writer.end()
    own.open("a", How.CREATE)
    own.write(0, b"whole")
    own.close()
    assert (spool / "a").read_bytes() == b"whole"


def test_a_writer_gets_in_while_a_gateway_reads(both: tuple[Path, Callable[[], RemoteHands], Hands]) -> None:
    """It waits for the lease to be given up, is told nothing, and the reader knows that what it read is no version."""
    spool, _, own = both
    own.open("a", How.CREATE)
    own.write(0, b"x" * (100 * KIB))
    own.close()
    with pin(spool, _entry(spool, b"a")) as pinned:
        assert pinned.by == "lease"
        assert pinned.read_into(memoryview(bytearray(KIB)), 0) == KIB
        began = time.monotonic()
        own.open("a", How.UPDATE)
        assert time.monotonic() - began < 5, "a producer must never wait for us"
        own.write(0, b"y" * KIB)
        with pytest.raises(Changed):
            pinned.check()
    with pytest.raises(HasWriter):
        pin(spool, _entry(spool, b"a"))
    own.close()
    with pin(spool, _entry(spool, b"a")) as pinned:
        assert pinned.no_writer


def _entry(spool: Path, path: bytes) -> SpoolEntry:
    [entry] = [each for each in walk(spool) if isinstance(each, SpoolEntry) and each.path == path]
    return entry


def test_a_writer_that_cannot_says_why(both: tuple[Path, Callable[[], RemoteHands], Hands]) -> None:
    _, start, _ = both
    writer = start()
    try:
        with pytest.raises(OSError, match=r"open: .*(FileNotFound|NotFound|NOT_FOUND)"):
            writer.open("nowhere", How.UPDATE)
    finally:
        writer.end()


def test_a_mapping_is_a_writer_after_the_file_was_closed(tmp_path: Path) -> None:
    may_ask_for_leases(tmp_path)
    hands = LocalHands(tmp_path)
    hands.open("a", How.MAP, 100_000)
    assert [fd for fd in Path("/proc/self/fd").iterdir() if os.path.realpath(fd) == str(tmp_path / "a")] == []
    hands.write(99_000, b"x" * 1000)
    assert has_writer(tmp_path / "a")
    with pytest.raises(ValueError, match="outside"):
        hands.write(99_001, b"x" * 1000)
    hands.close()
    assert not has_writer(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == bytes(99_000) + b"x" * 1000


@pytest.mark.needs_samba
def test_samba_starts_again_after_its_kill_and_leaves_nothing_behind(samba: Samba) -> None:
    from tests.writers.smb import SmbHands

    hands = SmbHands(samba.address)
    hands.open("a", How.CREATE)
    assert hands.oplock == 9, "a batch oplock, as a Windows client gets it"
    hands.write(0, b"half")
    family = [samba.pid, *descendants(samba.pid)]
    samba.kill()
    assert not has_writer(samba.directory / "a")
    hands.end()
    address = samba.address
    samba.start()
    assert samba.address == address
    hands = SmbHands(samba.address)
    hands.open("a", How.APPEND)
    hands.write(4, b" and half")
    hands.close()
    hands.end()
    assert (samba.directory / "a").read_bytes() == b"half and half"
    samba.close()
    assert not any(Path(f"/proc/{pid}/cwd").exists() for pid in family)
    with pytest.raises(ServerError, match="not running"):
        _ = samba.pid


def _fill(file: io.FileIO) -> None:
    while True:
        file.write(bytes(256 * KIB))


@pytest.mark.needs_loopfs
def test_a_small_file_system_fills_up_and_mounts_again(loopfs: Callable[[int], LoopFS]) -> None:
    volume = loopfs(32 * MIB)
    may_ask_for_leases(volume.path)
    assert 16 * MIB < volume.free_bytes() < 32 * MIB
    with (volume.path / "a").open("wb", buffering=0) as file:
        file.write(bytes(volume.free_bytes() - MIB))
        with pytest.raises(OSError, match="No space"):
            _fill(file)
    assert volume.free_bytes() < MIB
    size = (volume.path / "a").stat().st_size
    volume.unmount()
    assert os.listdir(volume.path) == []
    volume.mount()
    assert (volume.path / "a").stat().st_size == size


def test_what_the_product_keeps_is_judged(tmp_path: Path) -> None:
    """Quiet files of a finished schedule, taken by an ingest: no torn one had a writer, so evidence 1 may be there."""
    may_ask_for_leases(tmp_path)
    spool = tmp_path / "spool"
    spool.mkdir()
    gateway = Gateway(tmp_path / "gateway", in_directory(tmp_path / "store"), {"src": spool}, settle="1 s")
    gateway.init()
    plan = schedule(
        5, local=True, kinds=["volume_killed", "preallocated_killed", "renamed", "small_files"], small_files=30
    )
    player = Player(plan, OnDisk(spool), settle_seconds=0.05)
    oracle = player.play(rest=0)
    writer = RemoteHands(spool)
    try:
        writer.open("open.bak", How.CREATE)
        writer.write(0, b"not all of it")
        report = gateway.json("ingest", "src")["sources"][0]
    finally:
        writer.end()
    held = held_back_of(report["held_back"])
    assert held["open.bak"]
    assert all("-preallocated_killed/" in path for path in held.keys() - {"open.bak"}), held
    [made] = read_generations(gateway, "src")
    assert made.held_back == held
    assert made.created is not None
    assert made.files.keys() == files_below(spool) - held.keys()
    # Nothing changed since the last step, and the oracle ends when the generation was read.
    oracle = oracle.stood_until(player.pace.now())
    rules = Rules(minimum_evidence=1, settle_seconds=1.0, grace_seconds=1.1, apart_seconds=600.0)
    assert not judge(oracle, [made], rules)
    # The same generation for a source of minimum 2: what is opaque is below, and the killed job's half of it torn.
    convicted = judge(oracle, [made], replace(rules, minimum_evidence=2))
    assert {Wrong.BELOW, Wrong.TORN} <= {each.wrong for each in convicted}
