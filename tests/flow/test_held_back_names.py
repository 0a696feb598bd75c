"""What `gateway ingest` without an engine says where nothing is new: what it did not take, and why, like a barrier."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.api import SourceIngest
from gateway.config.values import SourceKind
from gateway.format import limits
from gateway.jobs import ingest
from gateway.spool import walk as walking
from gateway.spool import watch
from tests.flow.gateways import Gateway
from tests.flow.hand_turned import HandTurned, answer


def held(report: SourceIngest) -> list[tuple[bytes, str]]:
    assert report.generation is None
    return [(each.path, each.reason) for each in report.held_back]


def lock(monkeypatch: pytest.MonkeyPatch, name: bytes) -> None:
    """A directory that cannot be read, whoever runs the test."""
    descend = walking._descend

    def refused(path: bytes, *rest: Any) -> Any:
        if path == name:
            raise PermissionError(13, "Permission denied")
        return descend(path, *rest)

    monkeypatch.setattr(walking, "_descend", refused)


def test_what_cannot_be_looked_into_and_what_is_not_finished(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.source.write("a", b"1")
    gateway.made()
    gateway.source.write("b.tmp", b"1")
    gateway.source.write("locked/c", b"1")
    lock(monkeypatch, b"locked")
    assert held(gateway.ingest()) == [(b"b.tmp", "temporary"), (b"locked", "unreadable")]


def test_what_grows_between_two_looks(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.source.write("a", b"1")
    gateway.made()
    real = ingest.look

    def look(*arguments: Any) -> Any:
        found = real(*arguments)
        gateway.source.write("grows", b"1")
        return found

    monkeypatch.setattr(ingest, "look", look)
    assert held(gateway.ingest()) == [(b"grows", "growing")]


def test_what_is_in_use_and_what_is_below_the_minimum(gateway: Gateway) -> None:
    gateway.change(minimum_evidence=2)
    gateway.source.write("quiet", b"1")
    gateway.source.write("used", b"1")
    with gateway.source.path("used").open("ab"):
        assert held(gateway.ingest()) == [(b"quiet", "below-minimum-evidence"), (b"used", "writer")]


def test_not_more_is_named_than_an_entry_holds(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.source.write("a", b"1")
    gateway.made()
    for name in ("x.tmp", "y.tmp", "z.tmp"):
        gateway.source.write(name, b"1")
    monkeypatch.setattr(limits, "LEFT_OUT_IN_ENTRY", 2)
    report = gateway.ingest()
    assert ([path for path, _ in held(report)], report.held_back_more) == ([b"x.tmp", b"y.tmp"], 1)


def test_a_barrier_where_more_is_pending_than_can_be_named(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LIMIT_PENDING", 1)
    by_hand = HandTurned.of(gateway)
    gateway.source.write("a", b"1")
    by_hand.turn(0, 6, 60, 60)
    gateway.source.write("locked/b", b"1")
    lock(monkeypatch, b"locked")
    by_hand.turn(0, 3600)
    barrier = by_hand.ask()
    by_hand.keeper.watch.overflowed = True
    monkeypatch.setattr(by_hand.keeper, "_look", lambda _: False)
    by_hand.turn(6)
    assert [(each.path, each.reason) for each in answer(barrier).held_back] == [(b"locked", "unreadable")]


@pytest.mark.parametrize("whole", [True, False])
def test_what_belongs_to_no_job(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, *, whole: bool) -> None:
    gateway.change(kind=SourceKind.JOB, marker="DONE")
    for name in ("loose.dump", "job/a", "unfinished/a", "locked/a"):
        gateway.source.write(name, b"1")
    if whole:
        gateway.source.write("job/DONE", b"")
    lock(monkeypatch, b"locked")
    report = gateway.ingest()
    assert (report.generation is not None) is whole
    assert {each.path: each.reason for each in report.held_back} == {
        b"loose.dump": "in-no-job", b"locked": "unreadable", b"unfinished/a": "in-no-job",
        **({} if whole else {b"job/a": "in-no-job"}),
    }  # fmt: skip
