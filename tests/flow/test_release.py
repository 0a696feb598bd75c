"""Spool files leave only when their versions are proved, by steps that can be cut off anywhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from gateway import durable
from gateway.api import Reference
from gateway.config.values import ReleaseConfig
from gateway.jobs.release import FOLDER, Release
from gateway.spool.walk import RESERVED
from tests.flow.gateways import Gateway

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
KILLED = 9


def two_generations(gateway: Gateway, content: bytes) -> Path:
    """`old` is in both, `new` in the second only: with one generation to keep, `old` may go."""
    gateway.change(release=ReleaseConfig(keep_generations=1))
    gateway.source.write("sub/old", content)
    gateway.made()
    gateway.source.write("new", content[::-1])
    gateway.made()
    return gateway.source.path("sub/old")


def aside(gateway: Gateway) -> list[str]:
    place = gateway.source.root / os.fsdecode(RESERVED) / os.fsdecode(FOLDER)
    return os.listdir(place) if place.exists() else []


def released(gateway: Gateway) -> list[bytes]:
    (report,) = gateway.engine.release("src")
    return list(report.paths)


def run_killed(gateway: Gateway, at: int, meddle: Callable[[str, str], None] | None = None) -> bool:
    """Release in a process that ends at its effect number `at`. False: it has not so many."""
    gateway.close()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            left = at

            def hook(moment: str, name: str) -> None:
                nonlocal left
                if meddle is not None:
                    meddle(moment, name)
                if name.startswith("release") or name == "catalog:released":
                    left -= 1
                    if left == 0:
                        os._exit(KILLED)

            engine = gateway.engine
            engine._writing()
            durable.install_hook(hook)
            engine.release("src")
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, KILLED)
    return code == KILLED


def test_a_version_that_was_only_read_again_is_as_old_as_its_first_reading(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too young to be known by its times, it is read in every generation: on a full spool there is no later one."""
    with monkeypatch.context() as young:
        young.setattr("gateway.jobs.changes.OLD_ENOUGH_NS", 1 << 60)
        old = two_generations(gateway, b"old" * 1000)
        gateway.source.write("sub/other", b"other" * 300)
        report = gateway.ingest()
        assert (report.files_read, report.files_unchanged) == (3, 0)
        assert released(gateway) == [], "the last reading was too early, too: it may be another by now"
    assert sorted(released(gateway)) == [b"new", b"sub/old"]
    assert not old.exists()
    gateway.source.write("sub/other", b"OTHER" * 300)
    gateway.made()
    assert released(gateway) == [], "another version is as young as its own reading"


def test_it_is_as_the_plan_says_and_the_next_generation_names_it(gateway: Gateway) -> None:
    old = two_generations(gateway, b"old" * 1000)
    (plan,) = gateway.engine.release("src", dry_run=True)
    assert (plan.paths, plan.size) == ((b"sub/old",), 3000)
    assert old.exists()
    assert released(gateway) == [b"sub/old"]
    assert not old.exists()
    assert not aside(gateway)
    gateway.source.write("third", b"3")
    gateway.made()
    left = {each.path: each.reason for each in gateway.engine.show(Reference.parse("src")).left_out}
    assert left == {b"sub/old": "released"}
    assert b"sub/old" in gateway.restored("src@2")
    # A new file of that name is a file like any other.
    gateway.source.write("sub/old", b"again")
    gateway.made()
    assert b"sub/old" in gateway.list()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (ReleaseConfig(), "does not set"),
        (ReleaseConfig(keep_generations=2), "not more than 2"),
        (ReleaseConfig(keep_generations=1, high=0.999, low=0.9), "not full enough"),
    ],
)
def test_nothing_goes_without_a_reason_to(gateway: Gateway, settings: ReleaseConfig, reason: str) -> None:
    old = two_generations(gateway, b"x" * 100)
    gateway.change(release=settings)
    (report,) = gateway.engine.release("src")
    assert reason in report.reason
    assert old.exists()


def test_what_is_not_the_version_that_is_protected_stays(gateway: Gateway) -> None:
    old = two_generations(gateway, b"x" * 100)
    old.write_bytes(b"y" * 100)
    assert released(gateway) == []
    assert old.read_bytes() == b"y" * 100


def test_what_somebody_writes_to_or_has_linked_stays(gateway: Gateway) -> None:
    old = two_generations(gateway, b"x" * 100)
    with old.open("r+b"):
        assert released(gateway) == []
    assert old.exists()
    os.link(old, gateway.source.root / "other")
    assert released(gateway) == []
    assert old.exists()
    assert not aside(gateway)


def test_a_generation_that_lost_a_pack_lets_nothing_go(gateway: Gateway) -> None:
    old = two_generations(gateway, b"x" * 100)
    gateway.store.delete(gateway.keys("packs/")[0])
    gateway.engine.verify()
    assert released(gateway) == []
    assert old.exists()
    gateway.healthy = False


def test_it_can_be_cut_off_anywhere(gateway: Gateway) -> None:
    """os._exit before and after every effect; then the file is at its place or its release is finished."""
    back = 0
    for at in range(1, 100):
        content = b"%d" % at * 500
        digest = sha256(content).hexdigest()
        old = two_generations(gateway, content)
        gateway.clock.advance(timedelta(hours=1))
        killed = run_killed(gateway, at)
        gateway.open()
        gateway.engine.release("src")
        assert not aside(gateway), at
        rows = [(row.path, str(row.state)) for row in gateway.engine._writing().catalog.released("src")]
        if old.exists():  # renamed and put back, so it has another ctime and is read once more before it may go
            assert old.read_bytes() == content
            assert not rows
            back += 1
        else:
            assert rows == [(b"sub/old", "released")]
        assert gateway.restored(f"src@{gateway.engine.generations('src')[-1].number}")[b"sub/old"].data == digest
        gateway.source.path("new").unlink()
        if not killed:
            assert (at > 10, back > 0) == (True, True)
            return
    raise AssertionError("it never came to its end")


def test_putting_back_can_be_cut_off_anywhere(gateway: Gateway) -> None:
    """A name given to the file at the last moment: it is put back, beside what has its name meanwhile."""
    for at in range(1, 100):
        old = two_generations(gateway, b"%d" % at * 500)
        place = gateway.source.root / os.fsdecode(RESERVED) / os.fsdecode(FOLDER)
        twin = gateway.root / "twin"

        def meddle(moment: str, name: str, place: Path = place, twin: Path = twin, old: Path = old) -> None:
            if (moment, name) == ("after", "release:move"):
                os.link(place / os.listdir(place)[0], twin)
                old.write_bytes(b"newer")

        killed = run_killed(gateway, at, meddle)
        gateway.open()
        gateway.engine._writing()
        Release(gateway.engine._writing(), gateway.config.sources[0]).recover()
        assert not aside(gateway)
        names = os.listdir(old.parent)
        if twin.exists():
            assert old.read_bytes() == b"newer"
            (kept,) = (name for name in names if ".kept-" in name)
            assert (old.parent / kept).read_bytes() == twin.read_bytes()
            (old.parent / kept).unlink()
            twin.unlink()
        else:
            assert names == ["old"]
        gateway.source.path("new").unlink()
        if not killed:
            assert at > 6
            return
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("instead", ["nothing", "a file", "a link"])
def test_what_lies_aside_is_put_back_also_where_its_directory_is_gone(gateway: Gateway, instead: str) -> None:
    old = two_generations(gateway, b"old" * 1000)

    def die(moment: str, name: str) -> None:
        if (moment, name) == ("after", "release:move"):
            os._exit(KILLED)

    assert run_killed(gateway, 99, die)
    assert len(aside(gateway)) == 1
    old.parent.rmdir()
    if instead == "a file":
        old.parent.write_bytes(b"1")
    elif instead == "a link":
        old.parent.symlink_to(gateway.root)
    gateway.open()
    context = gateway.engine._writing()
    Release(context, gateway.config.sources[0]).recover()
    assert not aside(gateway)
    assert context.catalog.released("src") == []
    (kept,) = gateway.source.root.glob("old.kept-*")
    assert kept.read_bytes() == b"old" * 1000
    gateway.made()
    assert os.fsencode(kept.name) in gateway.list()


def test_what_was_unlinked_is_released_also_where_its_directory_is_gone(gateway: Gateway) -> None:
    old = two_generations(gateway, b"old" * 1000)

    def die(moment: str, name: str) -> None:
        if (moment, name) == ("after", "release:unlink"):
            os._exit(KILLED)

    assert run_killed(gateway, 99, die)
    old.parent.rmdir()
    gateway.open()
    context = gateway.engine._writing()
    Release(context, gateway.config.sources[0]).recover()
    assert [(row.path, str(row.state)) for row in context.catalog.released("src")] == [(b"sub/old", "released")]
