"""What is pending, by a clock that is moved by hand, on real files."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.clock import FakeClock, milliseconds
from gateway.config.values import SourceConfig
from gateway.model.entry import EntryType, Evidence, Identity, LeftOut, LeftOutReason, order_key
from gateway.spool import watch as watching
from gateway.spool.events import Events
from gateway.spool.looks import Looked, Verdict
from gateway.spool.walk import SpoolEntry, walk
from gateway.spool.watch import RETRY_SECONDS, Watch

START = datetime(2026, 11, 25, 7, tzinfo=UTC)
SETTLE = 10.0


@dataclass
class Spool:
    """A source with its watch and its clock."""

    root: Path
    settings: SourceConfig
    clock: FakeClock = field(default_factory=lambda: FakeClock(START))
    vouched: list[tuple[bytes, Identity, Evidence, str]] = field(default_factory=list)
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Watch(self.settings, self.clock, lambda *what: self.vouched.append(what))

    def write(self, name: str, data: bytes = b"x") -> bytes:
        """Never twice within one tick of the kernel's clock: mtime is set, and moves on."""
        place = self.root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        before = place.stat().st_mtime_ns if place.exists() else 0
        place.write_bytes(data)
        os.utime(place, ns=(0, max(before, 10**18) + 10**9))
        return os.fsencode(name)

    def identity(self, path: bytes) -> Identity:
        return Identity.of(os.lstat(os.path.join(os.fsencode(self.root), path)))

    def later(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    def settled(self, path: bytes) -> bool:
        return self.watch.settled(path, self.identity(path))

    def hold(self, path: bytes, reason: LeftOutReason) -> None:
        self.watch.hold(LeftOut(path=path, reason=reason, detail="why"))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    root = tmp_path / "spool"
    root.mkdir()
    return Spool(root, SourceConfig(name="s", path=root, settle=timedelta(seconds=SETTLE), marker="{name}.done",
                                    ignore=("*.log", "lost+found")))  # fmt: skip


def entries(spool: Spool) -> dict[bytes, SpoolEntry]:
    return {each.path: each for each in walk(spool.root) if isinstance(each, SpoolEntry)}


def test_a_file_is_seen_grows_is_quiet_and_settles(spool: Spool) -> None:
    path = spool.write("a", b"1")
    spool.watch.rescan([])
    (first,) = spool.watch.pending.values()
    assert (first.looks, first.changed) == (1, False)  # seen
    assert first.first_ms == milliseconds(START)
    spool.later(SETTLE - 1)
    spool.write("a", b"12")
    spool.watch.tick()
    growing = spool.watch.pending[path]
    assert (growing.looks, growing.changed) == (1, True)  # growing
    assert growing.first_ms == milliseconds(START) + 9000
    spool.later(SETTLE - 1)
    spool.watch.tick()
    assert spool.watch.pending[path].looks == 2  # quiet
    assert not spool.settled(path)
    assert not spool.watch.candidates()
    spool.later(1)
    spool.watch.tick()
    assert spool.settled(path)
    assert spool.watch.candidates()


def test_a_version_that_changed_since_the_last_look_has_not_settled(spool: Spool) -> None:
    path = spool.write("a")
    spool.watch.rescan([])
    spool.later(2 * SETTLE)
    assert spool.settled(path)
    spool.write("a", b"other")
    assert not spool.settled(path)  # though no look has noticed yet
    (looked,) = [each for each in spool.watch.looked(walk(spool.root)) if isinstance(each, Looked)]
    assert looked.verdict is Verdict.GROWING
    spool.watch.notice(looked.entry)
    assert spool.watch.pending[path].changed
    spool.later(SETTLE)
    assert spool.settled(path)


def test_directories_and_links_never_wait(spool: Spool) -> None:
    spool.write("d/a")
    (spool.root / "link").symlink_to("d")
    found = {each.entry.path: each.verdict for each in spool.watch.looked(walk(spool.root)) if isinstance(each, Looked)}
    assert found == {b"d": Verdict.SETTLED, b"d/a": Verdict.GROWING, b"link": Verdict.SETTLED}
    left = LeftOut(path=b"x", reason=LeftOutReason.UNREADABLE)
    assert list(spool.watch.looked([left])) == [left]


def test_what_is_known_gone_temporary_ignored_or_a_marker_is_not_pending(spool: Spool) -> None:
    names = ("a", "a.done", "b/x.log", "lost+found/y", "c.tmp", "b/z", "b-", ".gateway/own")
    for name in names:
        spool.write(name)
    os.mkfifo(spool.root / "fifo")
    known = sorted((order_key(path), spool.identity(path), True) for path in (b"a", b"b/z"))
    known.insert(0, (b"A\0gone", spool.identity(b"a"), True))
    spool.watch.rescan(known)
    assert set(spool.watch.pending) == {b"b-"}
    other = replace(spool.identity(b"a"), ctime_ns=1)
    spool.watch.rescan([(order_key(b"a"), other, True)])
    assert set(spool.watch.pending) == {b"a", b"b-", b"b/z"}
    spool.watch.rescan([(order_key(b"a"), spool.identity(b"a"), False)])
    assert spool.watch.pending[b"a"].again, "read so soon after its last change that it must be read once more"
    shutil.rmtree(spool.root / "b")
    spool.watch.tick()
    assert set(spool.watch.pending) == {b"a", b"b-"}
    (spool.root / "a").unlink()
    spool.watch.rescan([])
    assert set(spool.watch.pending) == {b"b-"}


def test_a_rescan_keeps_since_when_a_file_has_not_changed(spool: Spool) -> None:
    path = spool.write("a")
    spool.watch.rescan([])
    spool.later(SETTLE - 1)
    spool.watch.rescan([])
    assert spool.watch.pending[path].looks == 2
    spool.later(1)
    assert spool.settled(path)


def test_hints_make_a_file_pending_sooner_than_the_rescan(spool: Spool) -> None:
    path = spool.write("d/a")
    spool.watch.tick()
    assert not spool.watch.pending
    for hinted in (path, b"nothing", b"d", b"d/a.done"):
        spool.watch.hint(hinted)
    spool.watch.tick()
    assert set(spool.watch.pending) == {path}
    (spool.root / "d" / "a").unlink()
    spool.watch.hint(path)
    spool.watch.tick()
    assert not spool.watch.pending


def test_a_rename_from_a_temporary_name_is_evidence(spool: Spool) -> None:
    spool.write("d/a.tmp")
    spool.write("b.old")
    (spool.root / "d" / "a.tmp").rename(spool.root / "a")
    (spool.root / "b.old").rename(spool.root / "b")
    spool.watch.renamed(b"d/a.tmp", b"a")
    spool.watch.renamed(b"b.old", b"b")
    spool.watch.tick()
    assert set(spool.watch.pending) == {b"a", b"b"}
    assert spool.vouched == [(b"a", spool.identity(b"a"), Evidence.MARKER, "renamed from d/a.tmp")]
    assert spool.settled(b"a")
    assert not spool.settled(b"b")
    assert spool.watch.candidates()
    spool.write("a", b"written again")
    spool.watch.tick()
    assert not spool.settled(b"a")


def test_a_rename_is_not_forgotten_over_an_event_that_follows(spool: Spool) -> None:
    spool.write("a")
    spool.watch.renamed(b"a.part", b"a")
    spool.watch.hint(b"a")
    spool.watch.tick()
    assert [each[0] for each in spool.vouched] == [b"a"]


def test_a_rename_speaks_for_the_version_that_was_renamed_only(spool: Spool) -> None:
    """The engine may be busy for hours: what it finds then at the new name may be half of another version."""
    for name in ("written", "shorter", "replaced", "chmod"):
        spool.write(f"{name}.tmp")
        (spool.root / f"{name}.tmp").rename(spool.root / name)
        spool.watch.renamed(os.fsencode(f"{name}.tmp"), os.fsencode(name))
    spool.write("written", b"y")
    (spool.root / "shorter").open("wb").close()
    spool.write("other", b"x")
    (spool.root / "other").rename(spool.root / "replaced")
    (spool.root / "chmod").chmod(0o600)
    for name in (b"written", b"shorter", b"replaced", b"chmod"):
        spool.watch.hint(name)
    spool.watch.tick()
    assert [each[0] for each in spool.vouched] == [b"chmod"]
    assert not any(spool.settled(name) for name in (b"written", b"shorter", b"replaced"))


def test_a_version_written_before_the_event_of_the_rename_came_is_not_the_one(spool: Spool) -> None:
    """Events come half a second late, one behind the other: that of the write follows that of the rename."""
    (spool.root / "a.tmp").write_bytes(b"x")
    (spool.root / "a.tmp").rename(spool.root / "a")
    (spool.root / "a").write_bytes(b"y")
    spool.watch.renamed(b"a.tmp", b"a")
    spool.watch.hint(b"a", closed=True)
    spool.watch.hint(b"a")
    spool.watch.tick()
    assert not spool.vouched
    assert not spool.settled(b"a")


def test_a_rename_before_the_close_is_evidence(spool: Spool) -> None:
    """Within one tick of the kernel's clock: all that comes after it is that its writer lets go of it."""
    (spool.root / "a.tmp").write_bytes(b"x")
    (spool.root / "a.tmp").rename(spool.root / "a")
    spool.watch.renamed(b"a.tmp", b"a")
    spool.watch.hint(b"a", closed=True)
    spool.watch.tick()
    assert [each[0] for each in spool.vouched] == [b"a"]


def test_what_a_pass_took_is_pending_no_more_unless_it_changed(spool: Spool) -> None:
    one, other = spool.write("a"), spool.write("b")
    spool.watch.rescan([])
    before = spool.identity(other)
    spool.write("b", b"changed")
    spool.watch.tick()
    spool.watch.taken(one, spool.identity(one))
    spool.watch.taken(other, before)
    spool.watch.taken(b"never seen", before)
    assert set(spool.watch.pending) == {other}


@pytest.mark.parametrize("reason", [LeftOutReason.TORN, LeftOutReason.BELOW_MINIMUM_EVIDENCE])
def test_what_a_pass_held_back_stays_so_until_it_changes(spool: Spool, reason: LeftOutReason) -> None:
    path = spool.write("a")
    spool.watch.rescan([])
    spool.later(SETTLE)
    spool.hold(path, reason)
    assert not spool.watch.candidates()
    spool.later(10 * RETRY_SECONDS)
    spool.watch.tick()
    assert not spool.watch.candidates()
    held = spool.watch.still_held(entries(spool)[path])
    assert held is not None
    assert (held.reason, held.detail) == (reason, "why")
    spool.write("a", b"whole")
    assert spool.watch.still_held(entries(spool)[path]) is None
    spool.watch.hint(path)
    spool.watch.tick()
    assert spool.watch.pending[path].held is None
    spool.later(SETTLE)
    assert spool.watch.candidates()


@pytest.mark.parametrize(
    "reason", [LeftOutReason.WRITER, LeftOutReason.CHANGED, LeftOutReason.UNREADABLE, LeftOutReason.VANISHED]
)
def test_what_may_be_over_is_tried_again(spool: Spool, reason: LeftOutReason) -> None:
    path = spool.write("a")
    spool.watch.rescan([])
    spool.later(SETTLE)
    spool.hold(path, reason)
    spool.later(RETRY_SECONDS - 1)
    spool.watch.tick()
    assert not spool.watch.candidates()
    assert spool.watch.still_held(entries(spool)[path]) is not None
    spool.later(1)
    assert spool.watch.candidates()
    assert spool.watch.still_held(entries(spool)[path]) is None


def test_a_pass_that_does_not_try_a_file_puts_off_no_try(spool: Spool) -> None:
    """However often passes are made."""
    path = spool.write("a")
    spool.watch.rescan([])
    spool.later(SETTLE)
    spool.hold(path, LeftOutReason.WRITER)
    for _ in range(round(RETRY_SECONDS / 10)):
        held = spool.watch.still_held(entries(spool)[path])
        assert held is not None
        spool.watch.hold(held)
        spool.later(10)
    assert spool.watch.still_held(entries(spool)[path]) is None


def test_what_its_writer_let_go_of_is_tried_at_once(spool: Spool) -> None:
    path, other = spool.write("a"), spool.write("b")
    spool.watch.rescan([])
    spool.later(SETTLE)
    spool.hold(path, LeftOutReason.WRITER)
    spool.hold(other, LeftOutReason.TORN)
    for each in (path, other):
        spool.watch.hint(each)
    spool.watch.tick()
    assert not spool.watch.candidates()
    for each in (path, other):
        spool.watch.hint(each, closed=True)
    spool.watch.tick()
    assert spool.watch.still_held(entries(spool)[path]) is None
    assert spool.watch.still_held(entries(spool)[other]) is not None
    assert spool.watch.candidates()


@pytest.mark.parametrize("by_event", [True, False])
def test_what_is_held_back_is_tried_once_for_each_version_of_its_marker(spool: Spool, by_event: bool) -> None:
    path, other = spool.write("d/a"), spool.write("d/b")
    spool.watch.rescan([])
    spool.later(SETTLE)

    def hold() -> None:
        for each in (path, other):
            spool.hold(each, LeftOutReason.BELOW_MINIMUM_EVIDENCE)

    def look() -> set[bytes]:
        """What would be tried after it."""
        if by_event:
            spool.watch.hint(b"d/a.done")
            spool.watch.tick()
        else:
            spool.watch.rescan([])
        return {name for name, entry in entries(spool).items() if spool.watch.still_held(entry) is None}

    hold()
    assert look() == {b"d"}
    for text in (b"", b"again"):
        spool.write("d/a.done", text)
        assert look() == {b"d", b"d/a", b"d/a.done"}
        assert spool.watch.candidates()
        hold()
        assert not spool.watch.candidates()
        assert look() == {b"d", b"d/a.done"}
    (spool.root / "d/a.done").unlink()
    assert look() == {b"d"}


def test_the_marker_of_a_directory_speaks_for_the_files_in_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path, SourceConfig(name="s", path=tmp_path, settle=timedelta(), marker="DONE"))
    for name in ("d/a", "d/b", "d/e/c"):
        spool.write(name)
    spool.watch.rescan([])
    for path in spool.watch.pending:
        spool.hold(path, LeftOutReason.TORN)
    spool.watch.hint(spool.write("d/DONE"))
    spool.watch.tick()
    assert [path for path, entry in entries(spool).items() if spool.watch.still_held(entry) is not None] == [b"d/e/c"]


def test_a_long_settle_time_is_also_the_time_between_tries(tmp_path: Path) -> None:
    spool = Spool(tmp_path, SourceConfig(name="s", path=tmp_path, settle=timedelta(seconds=3 * RETRY_SECONDS)))
    path = spool.write("a")
    spool.watch.rescan([])
    spool.later(3 * RETRY_SECONDS)
    spool.hold(path, LeftOutReason.WRITER)
    spool.later(3 * RETRY_SECONDS - 1)
    assert not spool.watch.candidates()
    spool.later(1)
    assert spool.watch.candidates()


def test_growing_is_no_reason_that_is_kept(spool: Spool) -> None:
    path = spool.write("a")
    spool.watch.rescan([])
    spool.hold(path, LeftOutReason.GROWING)
    spool.hold(b"unknown", LeftOutReason.TORN)
    assert spool.watch.pending[path].held is None
    assert set(spool.watch.pending) == {path}


def test_evidence_that_comes_later_frees_what_was_held_back(spool: Spool) -> None:
    path = spool.write("a")
    spool.watch.rescan([])
    spool.hold(path, LeftOutReason.BELOW_MINIMUM_EVIDENCE)
    spool.watch.sure(path, replace(spool.identity(path), size=99))  # of another version: worth nothing
    assert not spool.watch.candidates()
    spool.watch.sure(path, spool.identity(path))
    assert spool.settled(path)
    assert spool.watch.candidates()
    assert spool.watch.still_held(entries(spool)[path]) is None


def test_a_sealed_file_that_no_look_saw_yet_is_sure_until_its_pass_is_over(spool: Spool) -> None:
    path = spool.write("a")
    spool.watch.sure(path, spool.identity(path))
    assert spool.settled(path)
    spool.watch.passed()
    assert not spool.settled(path)


def test_more_than_the_limit_is_not_known_by_name(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LIMIT_PENDING", 3)
    for name in "abcde":
        spool.write(name)
    spool.watch.rescan([])
    assert spool.watch.overflowed
    assert set(spool.watch.pending) == {b"a", b"b", b"c"}
    for name in "de":
        (spool.root / name).unlink()
    spool.watch.rescan([])
    assert not spool.watch.overflowed
    spool.write("d")
    spool.watch.hint(b"d")
    spool.watch.tick()
    assert spool.watch.overflowed
    assert len(spool.watch.pending) == 3
    spool.watch.notice(entries(spool)[b"d"])
    assert len(spool.watch.pending) == 3


def test_more_hints_than_the_limit_are_a_rescan(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LIMIT_PENDING", 2)
    spool.watch.rescan_at = spool.clock.monotonic() + 300
    for name in (b"a", b"b"):
        spool.watch.hint(name)
    spool.watch.tick()
    assert spool.watch.rescan_at == spool.clock.monotonic() + 300
    for name in (b"a", b"b", b"c"):
        spool.watch.hint(name)
    spool.watch.tick()
    assert spool.watch.rescan_at == spool.clock.monotonic()
    spool.watch.rescan_at = spool.clock.monotonic() + 300
    for name in (b"a", b"b", b"c"):
        spool.watch.renamed(name + b".tmp", name)
    spool.watch.tick()
    assert spool.watch.rescan_at == spool.clock.monotonic()


def test_looking_everywhere_takes_a_tenth_of_the_time_at_most(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(root: Path) -> object:
        spool.later(20)
        return walk(root)

    monkeypatch.setattr(watching, "walk", slow)
    spool.watch.rescan([])
    now = spool.clock.monotonic()
    spool.watch.rescan_at = now + 300
    spool.watch.look_everywhere()
    spool.watch.tick()
    assert spool.watch.rescan_at == now + 180
    spool.watch.rescan_at = now + 5
    spool.watch.look_everywhere()
    spool.watch.tick()
    assert spool.watch.rescan_at == now + 5


def test_only_files_are_noticed_by_name(spool: Spool) -> None:
    spool.write("a.tmp")
    entry = entries(spool)[b"a.tmp"]
    assert entry.type is EntryType.FILE
    spool.watch.notice(entry)
    assert not spool.watch.pending


def test_a_directory_that_is_renamed_into_place_speaks_for_its_files(spool: Spool) -> None:
    for name in ("night.tmp/a", "night.tmp/deep/b", "later.tmp/c.part", "plain/d"):
        spool.write(name, name.encode())
    events = Events(spool.root, spool.watch)
    try:
        (spool.root / "night.tmp").rename(spool.root / "night")
        (spool.root / "later.tmp").rename(spool.root / "later")
        (spool.root / "plain").rename(spool.root / "other")
        pause = threading.Event()
        for _ in range(100):
            spool.watch.tick()
            if len(spool.vouched) >= 2 and b"other/d" in spool.watch.pending:
                break
            pause.wait(0.1)
    finally:
        events.close()
    assert sorted(spool.vouched) == [
        (path, spool.identity(path), Evidence.MARKER, f"renamed from {before}")
        for path, before in ((b"night/a", "night.tmp/a"), (b"night/deep/b", "night.tmp/deep/b"))
    ]


@pytest.mark.parametrize(("reason", "gone"), [
    (LeftOutReason.TORN, []), (LeftOutReason.BELOW_MINIMUM_EVIDENCE, [b"a"]), (None, [b"a"]),
])  # fmt: skip
def test_what_a_failed_producer_removes_was_no_backup(
    spool: Spool, reason: LeftOutReason | None, gone: list[bytes]
) -> None:
    path = spool.write("a")
    spool.watch.rescan([])
    spool.clock.advance(timedelta(seconds=SETTLE + 1))
    spool.watch.tick()
    if reason is not None:
        spool.watch.hold(LeftOut(path=path, reason=reason, detail="why"))
    (spool.root / "a").unlink()
    spool.watch.hint(path)
    spool.watch.tick()
    assert spool.watch.take_gone() == gone


def test_a_file_that_is_renamed_counts_wherever_it_lies(spool: Spool) -> None:
    """Also in a directory that only looks as if it were temporary; not what such a one only lost a parent for."""
    for name in ("db.tmp/a", "db.tmp/b"):
        spool.write(name)
    spool.watch.renamed(b"db.tmp/a.part", b"db.tmp/a")
    spool.watch.renamed(b"old.tmp/db.tmp/b", b"db.tmp/b")
    spool.watch.tick()
    assert [path for path, *_ in spool.vouched] == [b"db.tmp/a"]
