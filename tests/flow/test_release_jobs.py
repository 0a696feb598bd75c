"""Files of backup jobs leave the spool job by job, the oldest first, and what is left of one is no other job."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.api import no_progress
from gateway.config.values import ReleaseConfig, SourceKind
from gateway.jobs.alarms import Alarms
from gateway.jobs.keeper import Keeper
from tests.flow.gateways import KIB, Gateway


@pytest.fixture
def keeper(gateway: Gateway) -> Iterator[Keeper]:
    gateway.change(
        kind=SourceKind.JOB, marker="DONE", minimum_evidence=3, generation_interval=timedelta(),
        release=ReleaseConfig(keep_generations=2),
    )  # fmt: skip
    gateway.clock.advance(datetime.now(UTC) - gateway.clock.now())  # so that it is the time of the files, too
    context = gateway.engine.hold()
    one = Keeper(context, gateway.config.sources[0], Alarms(context.catalog, gateway.clock, context.log))
    yield one
    one.stop()


def job(gateway: Gateway, name: str) -> Path:
    for number in range(3):
        gateway.source.write(f"{name}/piece-{number}", f"{name} {number}".encode() * KIB)
    gateway.source.write(f"{name}/DONE", b"")
    return gateway.source.path(name)


def turns(gateway: Gateway, keeper: Keeper) -> None:
    for seconds in (0, 6, 1, 60):
        gateway.clock.advance(timedelta(seconds=seconds))
        keeper.watch.rescan_at = float("-inf")
        keeper.turn(no_progress)


def numbers(gateway: Gateway) -> list[int]:
    return [each.number for each in gateway.engine.generations("src")]


def files(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_the_files_of_every_job_that_is_old_enough_go(gateway: Gateway, keeper: Keeper) -> None:
    folders = []
    for name in ("mon", "tue", "wed", "thu"):
        folders.append(job(gateway, name))
        turns(gateway, keeper)
    assert numbers(gateway) == [1, 2, 3, 4]
    assert [files(each) for each in folders[:2]] == [["DONE"], ["DONE"]]
    assert [len(files(each)) for each in folders[2:]] == [4, 4], "the newest two stay"
    assert gateway.engine.status().sources[0].pending == 0
    for number, name in enumerate(("mon", "tue", "wed", "thu"), 1):
        to, _ = gateway.restore(f"src@{number}")
        assert (to / name / "piece-2").read_bytes() == f"{name} 2".encode() * KIB
    turns(gateway, keeper)
    assert numbers(gateway) == [1, 2, 3, 4], "an empty folder with a marker is no job"
    assert keeper.context.catalog.released("src") == []


def test_with_a_water_mark_whole_jobs_go(gateway: Gateway, keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper.release, "_wanted_bytes", lambda: 1)
    folders = []
    for name in ("mon", "tue", "wed", "thu"):
        folders.append(job(gateway, name))
        monkeypatch.setattr(keeper.release, "_wanted_bytes", lambda last=name == "thu": int(last))
        turns(gateway, keeper)
        monkeypatch.setattr(keeper.release, "_wanted_bytes", lambda: 0)
    assert numbers(gateway) == [1, 2, 3, 4]
    assert files(folders[0]) == ["DONE"]


def test_a_job_of_which_a_file_is_another_now_stays_whole(gateway: Gateway, keeper: Keeper) -> None:
    first = job(gateway, "mon")
    turns(gateway, keeper)
    (first / "piece-1").write_bytes(b"being written anew")
    for name in ("tue", "wed", "thu"):
        job(gateway, name)
        turns(gateway, keeper)
    assert len(files(first)) == 4
    assert files(gateway.source.path("tue")) == ["DONE"]


def test_what_is_left_of_a_job_is_no_other_job(gateway: Gateway, keeper: Keeper) -> None:
    """Its producer deletes it file by file, and its marker still stands."""
    folder = job(gateway, "mon")
    turns(gateway, keeper)
    (folder / "piece-0").unlink()
    turns(gateway, keeper)
    assert numbers(gateway) == [1]
    gateway.clock.advance(datetime.now(UTC) - gateway.clock.now() - timedelta(minutes=5))
    (folder / "DONE").unlink()
    gateway.clock.advance(timedelta(minutes=5))
    (folder / "piece-1").write_bytes(b"the next job")
    (folder / "DONE").write_bytes(b"")
    turns(gateway, keeper)
    assert numbers(gateway) == [1, 2], "a file that is new makes it one"
    assert gateway.list() == [b"mon", b"mon/piece-1", b"mon/piece-2"]
