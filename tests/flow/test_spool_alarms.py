"""What went, and what the disk cannot read: alarms of a spool."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from gateway.api import Alarm, Reference
from gateway.config.values import SourceKind
from gateway.model.entry import LeftOutReason
from gateway.spool.events import Events
from tests.flow.gateways import KIB, Gateway
from tests.flow.hand_turned import HandTurned


def alarms(gateway: Gateway) -> list[str]:
    return [each.kind for each in gateway.engine.status().alarms]


def the_alarm(gateway: Gateway, kind: str) -> Alarm:
    (found,) = [each for each in gateway.engine.status().alarms if each.kind == kind]
    return found


# --- deleted before it was protected ---------------------------------------------------------------------------------


def deleted(gateway: Gateway, by_hand: HandTurned, *names: str) -> None:
    """They settle, while no generation may be made, and go."""
    places = [gateway.source.write(name, b"1") for name in names]
    for name in names:
        by_hand.keeper.watch.hint(os.fsencode(name))
    by_hand.keeper.watch.tick()
    by_hand.gateway.clock.advance(by_hand.keeper.source.settle)
    for place in places:
        place.unlink()
    by_hand.turn(0)


def test_what_went_before_it_was_protected_is_an_alarm_until_a_person_accepts_it(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway)
    gateway.source.write("stays", b"1")
    by_hand.turn(0, 6)
    deleted(gateway, by_hand, "a")
    found = the_alarm(gateway, "deleted-before-protected")
    assert found.subject == "src"
    assert found.what == "1 file was deleted from src before a generation had them; the last: a."
    assert found.meaning
    assert "gateway accept src --alarm deleted-before-protected" in found.advice
    deleted(gateway, by_hand, "b", "c")
    assert "3 files were" in the_alarm(gateway, "deleted-before-protected").what
    gateway.source.write("d", b"1")
    by_hand.keeper.watch.hint(b"d")
    by_hand.turn(0, 6, 60)
    assert by_hand.numbers() == [1, 2]
    the_alarm(gateway, "deleted-before-protected")
    assert gateway.engine.accept("src", alarm="deleted-before-protected")
    by_hand.turn(60)
    assert alarms(gateway) == []
    deleted(gateway, by_hand, "e")
    assert "1 file was" in the_alarm(gateway, "deleted-before-protected").what


def test_a_file_that_got_another_name_before_it_was_protected_is_not_deleted(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway)
    place = gateway.source.write("a", b"1")
    by_hand.keeper.watch.hint(b"a")
    by_hand.keeper.watch.tick()
    gateway.clock.advance(by_hand.keeper.source.settle)
    place.rename(place.with_name("b"))
    by_hand.keeper.watch.renamed(b"a", b"b")
    by_hand.turn(0, 6)
    assert gateway.list() == [b"b"]
    assert alarms(gateway) == []


def test_files_of_a_volume_that_is_unmounted_are_not_deleted(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway)
    by_hand.keeper._events = Events(gateway.source.root, by_hand.keeper.watch)
    gateway.source.write("a", b"1")
    by_hand.keeper.watch.rescan(())
    gateway.clock.advance(by_hand.keeper.source.settle)
    gateway.source.root.rename(gateway.root / "unmounted")
    gateway.source.root.mkdir()  # the place it was mounted at
    by_hand.turn(0)
    assert "deleted-before-protected" not in alarms(gateway)
    by_hand.keeper.stop()


# --- a disk that cannot read -----------------------------------------------------------------------------------------


class BadDisk:
    """Reads of files of these names fail, as those of a bad sector do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str, number: int = errno.EIO) -> None:
        self.names = set(names)
        real = os.preadv

        def preadv(fd: int, *rest: Any) -> int:
            if os.path.basename(os.readlink(f"/proc/self/fd/{fd}")) in self.names:
                raise OSError(number, os.strerror(number))
            return real(fd, *rest)

        monkeypatch.setattr(os, "preadv", preadv)


def test_a_disk_that_cannot_read_a_file_is_an_alarm_until_it_can(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = BadDisk(monkeypatch, "bad", "worse")
    by_hand = HandTurned.of(gateway)
    for name in ("bad", "good", "worse"):
        gateway.source.write(name, os.urandom(KIB))
    by_hand.turn(0, 6)
    found = the_alarm(gateway, "spool-disk")
    assert found.subject == "src"
    assert "bad, and 1 more of src: Input/output error" in found.what
    assert found.meaning
    assert found.advice
    (made,) = gateway.engine.generations("src")
    assert str(made.state) == "protected", "what can be read is offered for restore"
    left = {each.path: each.reason for each in gateway.engine.show(Reference.parse("src@1")).left_out}
    assert left == {b"bad": LeftOutReason.UNREADABLE, b"worse": LeftOutReason.UNREADABLE}
    by_hand.turn(61, 61)
    the_alarm(gateway, "spool-disk")
    # After a restart nothing is known to be unreadable, until a pass has tried.
    gateway.close()
    by_hand = HandTurned.of(gateway)
    by_hand.keeper.close_old_alarms()
    by_hand.turn(0)
    the_alarm(gateway, "spool-disk")
    by_hand.turn(6)
    the_alarm(gateway, "spool-disk")
    gateway.source.path("worse").unlink()
    disk.names.clear()
    by_hand.turn(61, 61)
    assert gateway.list() == [b"bad", b"good"]
    by_hand.keeper.observe()
    assert alarms(gateway) == ["deleted-before-protected"], "nobody has it"


@pytest.mark.parametrize(("number", "told"), [(errno.EUCLEAN, True), (errno.EACCES, False)])
def test_a_broken_file_system_is_told_like_a_bad_sector_and_a_right_is_not(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, number: int, told: bool
) -> None:
    BadDisk(monkeypatch, "bad", number=number)
    by_hand = HandTurned.of(gateway)
    gateway.source.write("bad", os.urandom(KIB))
    by_hand.turn(0, 6)
    by_hand.keeper.observe()
    assert ("spool-disk" in alarms(gateway)) == told


def test_a_job_of_which_the_disk_cannot_read_a_file_is_incomplete(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.healthy = False
    disk = BadDisk(monkeypatch, "bad")
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB)
    for name in ("job/bad", "job/good"):
        gateway.source.write(name, os.urandom(KIB))
    by_hand.turn(0, 6, 6)
    states = [str(each.state) for each in gateway.engine.generations("src")]
    assert set(states) <= {"incomplete"}
    the_alarm(gateway, "spool-disk")
    disk.names.clear()
    by_hand.turn(61, 61, 130)
    by_hand.keeper.observe()
    assert str(gateway.engine.generations("src")[-1].state) == "protected"
    assert "spool-disk" not in alarms(gateway)
