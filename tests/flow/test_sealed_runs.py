"""A sealed run is protected by a generation that holds what was sealed, in the versions that were, and by no other."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from gateway.api import RunReport, SealedFile, no_progress
from gateway.catalog import JobState
from gateway.config.values import SourceKind
from gateway.jobs.alarms import Alarms
from gateway.jobs.keeper import Keeper
from tests.flow.gateways import Gateway


@pytest.fixture(autouse=True)
def _without_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS, an overflow, or no more than the moment before an event arrives: hints are given by the test."""
    monkeypatch.setattr(Keeper, "_watch_events", lambda _: None)


def keep(gateway: Gateway, **changes: Any) -> Keeper:
    """A keeper without events, on a clock that shows the time of the files."""
    gateway.healthy = False  # a rebuild names what is incomplete
    gateway.change(generation_interval=timedelta(), **changes)
    gateway.clock.advance(datetime.now(UTC) - gateway.clock.now())
    context = gateway.engine.hold()
    return Keeper(context, gateway.config.sources[0], Alarms(context.catalog, gateway.clock, context.log))


def turn(gateway: Gateway, keeper: Keeper, *seconds: float) -> None:
    for each in seconds or (0,):
        gateway.clock.advance(timedelta(seconds=each))
        keeper.turn(no_progress)


def seal(keeper: Keeper, run: str, *files: bytes, folder: bytes = b"") -> RunReport:
    return keeper.seals.seal(run, [SealedFile(path=each, size=None, digest="") for each in files], folder, (), "me")


def answer(keeper: Keeper, run: str) -> RunReport:
    """What the same call again says."""
    return seal(keeper, run)


def number(report: RunReport) -> int | None:
    return report.generation.number if report.generation is not None else None


def states(gateway: Gateway) -> list[str]:
    return [str(each.state) for each in gateway.engine.generations("src")]


def alarms(gateway: Gateway) -> list[str]:
    return [each.kind for each in gateway.engine.status().alarms]


@pytest.mark.parametrize("kind", [SourceKind.FILES, SourceKind.JOB])
def test_a_sealed_file_that_went_before_the_pass_makes_the_run_incomplete(gateway: Gateway, kind: SourceKind) -> None:
    keeper = keep(gateway, kind=kind)
    gateway.source.write("d/a", b"1")
    gateway.source.write("d/b", b"2")
    assert seal(keeper, "run", folder=b"d").problems == ()
    gateway.source.path("d/b").unlink()
    turn(gateway, keeper)
    report = answer(keeper, "run")
    assert (str(report.state), number(report)) == ("incomplete", 1)
    assert report.problems == ("d/b is not there any more",)
    assert states(gateway) == ["incomplete"]
    assert "generation-incomplete" in alarms(gateway)
    assert gateway.list("src@1") == [b"d", b"d/a"], "what is there is kept"


def test_a_sealed_folder_that_was_renamed_is_not_protected_by_another_job(gateway: Gateway) -> None:
    keeper = keep(gateway, kind=SourceKind.JOB, marker="DONE", minimum_evidence=3)
    gateway.source.write("d/a", b"1")
    seal(keeper, "one", folder=b"d")
    turn(gateway, keeper)
    gateway.source.write("e/a", b"2")
    seal(keeper, "two", folder=b"e")
    gateway.source.path("e").rename(gateway.source.path("f"))
    turn(gateway, keeper)
    report = answer(keeper, "two")
    assert (str(report.state), number(report)) == ("incomplete", None)
    assert report.problems == ("e/a is not there any more",)
    assert alarms(gateway) == ["seal-mismatch"]
    assert number(answer(keeper, "one")) == 1


@pytest.mark.parametrize("kind", [SourceKind.FILES, SourceKind.JOB])
def test_a_sealed_file_that_is_another_now_makes_the_run_incomplete(gateway: Gateway, kind: SourceKind) -> None:
    keeper = keep(gateway, kind=kind)
    gateway.source.write("d/a", b"whole")
    gateway.source.write("d/b", b"whole")
    seal(keeper, "run", folder=b"d")
    gateway.source.write("d/a", b"half of the ne")
    turn(gateway, keeper)
    report = answer(keeper, "run")
    assert (str(report.state), number(report)) == ("incomplete", 1)
    wanted = "is not the version that was sealed" if kind is SourceKind.JOB else "is left out: growing."
    assert report.problems[0].startswith(f"d/a {wanted}")


def test_the_seal_of_a_later_version_does_not_answer_for_an_earlier_one(gateway: Gateway) -> None:
    keeper = keep(gateway, kind=SourceKind.JOB)
    gateway.source.write("d/a", b"one")
    seal(keeper, "one", folder=b"d")
    gateway.source.write("d/a", b"and two")
    seal(keeper, "two", folder=b"d")
    turn(gateway, keeper)
    assert str(answer(keeper, "one").state) == "incomplete"
    assert str(answer(keeper, "two").state) == "protected"


def test_nothing_new_names_the_newest_generation_where_it_holds_what_was_sealed(gateway: Gateway) -> None:
    keeper = keep(gateway)
    gateway.source.write("a", b"1")
    gateway.source.write("b", b"2")
    seal(keeper, "one", b"a", b"b")
    turn(gateway, keeper)
    turn(gateway, keeper, 3, 3)
    seal(keeper, "two", b"a", b"b")
    turn(gateway, keeper)
    assert (str(answer(keeper, "two").state), number(answer(keeper, "two"))) == ("protected", 1)
    seal(keeper, "three", b"a", b"b")
    gateway.source.path("b").unlink()
    turn(gateway, keeper)
    report = answer(keeper, "three")
    assert (str(report.state), number(report)) == ("incomplete", None)
    assert report.problems == ("b is not there any more",)
    assert alarms(gateway) == ["seal-mismatch"]
    assert states(gateway) == ["protected"], "the spool is not kept once more only to say so"


def test_nothing_new_after_an_incomplete_generation_makes_a_whole_one(gateway: Gateway) -> None:
    keeper = keep(gateway)
    gateway.source.write("a", b"1")
    gateway.source.write("b", b"2")
    seal(keeper, "one", b"a", b"b")
    gateway.source.path("b").unlink()
    turn(gateway, keeper)
    turn(gateway, keeper, 3, 3)
    assert states(gateway) == ["incomplete"]
    seal(keeper, "two", b"a")
    turn(gateway, keeper)
    assert (str(answer(keeper, "two").state), number(answer(keeper, "two"))) == ("protected", 2)
    assert "generation-incomplete" not in alarms(gateway)
    assert (gateway.restore("src@2")[0] / "a").read_bytes() == b"1"


def test_a_job_of_loose_files_is_protected_by_a_generation_of_them_alone(gateway: Gateway) -> None:
    keeper = keep(gateway, kind=SourceKind.JOB)
    for name in ("a", "b"):
        gateway.source.write(name, name.encode())
    for run, files, wanted in (("one", (b"a", b"b"), 1), ("two", (b"a", b"b"), 1), ("three", (b"a",), 2)):
        gateway.clock.advance(timedelta(seconds=3))
        seal(keeper, run, *files)
        turn(gateway, keeper, 3)
        assert (str(answer(keeper, run).state), number(answer(keeper, run))) == ("protected", wanted)
    assert gateway.list("src@2") == [b"a"]


def test_all_names_of_a_sealed_file_count(gateway: Gateway) -> None:
    keeper = keep(gateway, kind=SourceKind.JOB)
    gateway.source.write("d/a", b"1")
    gateway.source.path("d/b").hardlink_to(gateway.source.path("d/a"))
    seal(keeper, "run", folder=b"d")
    turn(gateway, keeper)
    assert str(answer(keeper, "run").state) == "protected"


def test_a_sealed_file_that_the_source_ignores_is_named_and_a_marker_is_none(gateway: Gateway) -> None:
    keeper = keep(gateway, kind=SourceKind.JOB, marker="DONE", ignore=("*.log",))
    gateway.source.write("d/a", b"1")
    gateway.source.write("d/b.log", b"2")
    gateway.source.write("d/DONE", b"")
    report = seal(keeper, "run", b"d/a", b"d/b.log")
    assert report.problems == ("d/b.log: the source ignores files of its name",)
    seal(keeper, "marked", b"d/DONE", b"d/a")
    turn(gateway, keeper)
    assert str(answer(keeper, "run").state) == "incomplete"
    assert str(answer(keeper, "marked").state) == "protected"


def test_a_row_without_identities_goes_by_the_marks(gateway: Gateway) -> None:
    keeper = keep(gateway, kind=SourceKind.JOB)
    gateway.source.write("d/a", b"1")
    gateway.source.write("d/b", b"2")
    seal(keeper, "run", folder=b"d")
    row = keeper.context.catalog.job("src", "run")
    assert row is not None
    old = tuple(msgspec.structs.replace(each, seen=None) for each in row.members)
    keeper.context.catalog.put_job(replace(row, members=old))
    gateway.source.path("d/b").unlink()
    turn(gateway, keeper)
    row = keeper.context.catalog.job("src", "run")
    assert row is not None
    assert row.state is JobState.INCOMPLETE
