"""What goes wrong in a spool, as the engine meets it: rows of docs/design/engine.md that nothing else shows."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from datetime import timedelta

import pytest

from gateway.api import Reference, SealedFile, no_progress
from gateway.jobs import reading
from gateway.jobs.alarms import Alarms
from gateway.jobs.keeper import Keeper
from gateway.jobs.pending import HELD_SECONDS
from gateway.model.entry import LeftOutReason
from gateway.spool.completeness import Completeness
from gateway.spool.pin import Pinned, Unreadable
from tests.flow.gateways import KIB, Gateway
from tests.flow.trees import tree

HOUR = timedelta(hours=1)


@pytest.fixture
def keeper(gateway: Gateway) -> Iterator[Keeper]:
    gateway.change(generation_interval=HOUR)
    context = gateway.engine.hold()
    one = Keeper(context, gateway.config.sources[0], Alarms(context.catalog, gateway.clock, context.log))
    yield one
    one.stop()


def turn(gateway: Gateway, keeper: Keeper, seconds: float = 0.0) -> None:
    gateway.clock.advance(timedelta(seconds=seconds))
    keeper.turn(no_progress)


def settle(gateway: Gateway, keeper: Keeper) -> None:
    """Whatever lies there has settled, and its generation is made."""
    keeper.watch.rescan_at = float("-inf")
    turn(gateway, keeper)
    turn(gateway, keeper, 6)
    turn(gateway, keeper, 3700)


def named(gateway: Gateway, event: str) -> list[object]:
    return [each.fields.get("path") for each in gateway.events.events if each.name == event]


def test_what_changes_after_its_seal_is_told_and_the_sealed_version_stays(gateway: Gateway, keeper: Keeper) -> None:
    gateway.source.write("dump", b"sealed")
    keeper.seals.seal("night", [SealedFile(path=b"dump", size=6, digest="")], b"", (), "dba")
    settle(gateway, keeper)
    assert named(gateway, "file.modified_after_seal") == []
    gateway.source.write("dump", b"changed afterwards")
    settle(gateway, keeper)
    assert named(gateway, "file.modified_after_seal") == ["dump"]
    assert (gateway.restore("src@1")[0] / "dump").read_bytes() == b"sealed"
    assert (gateway.restore("src@2")[0] / "dump").read_bytes() == b"changed afterwards"
    evidence = {each.path: each.evidence for each in gateway.engine.list_files(Reference.parse("src@2"))}
    assert evidence == {b"dump": 1}, "the seal was for another version"


def test_what_is_deleted_before_a_generation_had_it_is_told(gateway: Gateway, keeper: Keeper) -> None:
    gateway.source.write("stays", b"s")
    turn(gateway, keeper)
    turn(gateway, keeper, 6)
    assert gateway.list() == [b"stays"]
    gone, growing = gateway.source.write("gone", b"g"), gateway.source.write("growing", b"g")
    for name in (b"gone", b"growing"):
        keeper.watch.hint(name)
    turn(gateway, keeper)
    gateway.clock.advance(timedelta(seconds=6))
    gateway.source.write("growing", b"more")
    keeper.watch.hint(b"growing")
    turn(gateway, keeper)
    gone.unlink()
    growing.unlink()
    turn(gateway, keeper)
    assert named(gateway, "file.deleted_before_protected") == ["gone"], "what had not settled was no backup yet"


def test_a_disk_that_cannot_read_a_file_is_an_alarm_after_a_day_and_tried_again(
    gateway: Gateway, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.source.write("bad", b"b" * KIB)
    gateway.source.write("good", b"g")
    take = reading.Reading.take

    def failing(self: reading.Reading, pinned: Pinned, completeness: Completeness) -> Pinned:
        if self.entry.path == b"bad":
            pinned.close()
            raise Unreadable(self.entry.path, "Input/output error at byte 0.")
        return take(self, pinned, completeness)

    monkeypatch.setattr(reading.Reading, "take", failing)
    settle(gateway, keeper)
    assert gateway.list() == [b"good"]
    (left,) = gateway.engine.show(Reference.parse("src@1")).left_out
    assert (left.path, left.reason) == (b"bad", LeftOutReason.UNREADABLE)
    assert [each.state for each in gateway.engine.status().sources[0].files] == ["held"]
    assert [each.kind for each in gateway.engine.status().alarms] == ["spool-disk"]
    turn(gateway, keeper, HELD_SECONDS)
    keeper.observe()
    _, alarm = gateway.engine.status().alarms
    assert (alarm.kind, alarm.subject) == ("files-held-back", "src")
    assert "bad" in alarm.what
    monkeypatch.undo()
    settle(gateway, keeper)
    keeper.observe()
    assert gateway.list() == [b"bad", b"good"]
    assert gateway.engine.status().alarms == ()


def test_a_wall_clock_that_jumps_neither_settles_a_file_nor_stops_generations(gateway: Gateway, keeper: Keeper) -> None:
    gateway.source.write("a", b"1")
    turn(gateway, keeper)
    gateway.clock._now += timedelta(days=30)
    turn(gateway, keeper, 1)
    assert list(gateway.engine.generations("src")) == [], "a second has passed, whatever the clock says"
    turn(gateway, keeper, 6)
    assert [each.number for each in gateway.engine.generations("src")] == [1]
    gateway.clock._now -= timedelta(days=60)
    gateway.source.write("b", b"2")
    keeper.watch.hint(b"b")
    turn(gateway, keeper)
    turn(gateway, keeper, 600)
    assert [each.number for each in gateway.engine.generations("src")] == [1], "the interval has not passed"
    turn(gateway, keeper, 3600)
    assert [each.number for each in gateway.engine.generations("src")] == [1, 2]
    assert gateway.list() == [b"a", b"b"]


def test_odd_names_go_through_the_engine_and_back(gateway: Gateway, keeper: Keeper) -> None:
    e = "\u00e9"
    odd = [
        b"\xff\xfe not UTF-8", b"new\nline", b"tab\tbell\a", b"trailing dot.", b"trailing space ", b" leading", b"-rf",
        b"*?[a]", b"CASE", b"case", unicodedata.normalize("NFC", e).encode(), unicodedata.normalize("NFD", e).encode(),
        b"n" * 255, b"con", b"a:b|c<d>\"", b"\\back\\slash", b"%41%00", "\u202etxt.exe".encode(),
        b"'; DROP TABLE mark; --",
    ]  # fmt: skip
    for number, name in enumerate(odd):
        gateway.source.write(b"dir-" + name[:200] + b"/" + name, b"%d" % number)
    everything = tree(gateway.source.root)
    keeper.watch.rescan_at = float("-inf")
    turn(gateway, keeper)
    pending = gateway.engine.status().sources[0]
    assert {os.path.basename(each.path) for each in pending.files} == set(odd)
    assert pending.pending == len(odd)
    paths = [each.path for each in pending.files]
    report = keeper.seals.seal("odd", [SealedFile(path=each, size=None, digest="") for each in paths], b"", (), "dba")
    assert report.problems == ()
    settle(gateway, keeper)
    listed = {each.path: each.evidence for each in gateway.engine.list_files(Reference.parse("src")) if each.size}
    assert listed == dict.fromkeys(paths, 5)
    assert gateway.restored("src") == everything
    assert gateway.engine.status().sources[0].pending == 0


def test_a_file_that_is_renamed_is_stored_once(gateway: Gateway, keeper: Keeper) -> None:
    old = gateway.source.noise("before", 300 * KIB)
    settle(gateway, keeper)
    old.rename(gateway.source.path("after"))
    settle(gateway, keeper)
    statistics = gateway.engine.show(Reference.parse("src@2")).statistics
    assert statistics is not None
    assert statistics.new_bytes == 0
    assert gateway.list() == [b"after"]
    assert named(gateway, "file.deleted_before_protected") == []
