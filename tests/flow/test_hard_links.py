"""Further names of a file are known like its first one: they are not pending, and cost no pass."""

from __future__ import annotations

import os

from gateway.config.values import ReleaseConfig, SourceKind
from gateway.jobs.runs import known_name
from tests.flow.gateways import Gateway
from tests.flow.hand_turned import HandTurned


def linked(gateway: Gateway, *names: str) -> None:
    first = gateway.source.write(names[0], os.urandom(3000))
    for each in names[1:]:
        gateway.source.path(each).parent.mkdir(exist_ok=True)
        os.link(first, gateway.source.path(each))


def passes(gateway: Gateway) -> int:
    return len([each for each in gateway.events.events if each.name == "pass.ended"])


def test_a_further_name_is_not_pending_for_ever(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway)
    linked(gateway, "a", "d/b", "z")
    by_hand.turn(0, 6)
    assert by_hand.numbers() == [1]
    by_hand.turn(60, 60)  # read once more, as every young file
    done = passes(gateway)
    by_hand.turn(*[3600] * 5)
    assert by_hand.keeper.watch.pending == {}
    assert passes(gateway) == done
    assert gateway.engine.status().sources[0].pending == 0


def test_it_stays_known_when_its_first_name_is_carried(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway)
    linked(gateway, "a", "b")
    by_hand.turn(0, 6, 60)
    for name in ("c", "d"):
        gateway.source.write(name, b"new")
        by_hand.keeper.watch.hint(name.encode())
        by_hand.turn(0, 6, 60)
        known = {each.path: each for each in by_hand.keeper.context.catalog.known_files("src")}
        assert known[b"b"] == known[b"a"].under(b"b")
    assert gateway.list() == [b"a", b"b", b"c", b"d"]
    by_hand.turn(*[3600] * 2)
    assert by_hand.keeper.watch.pending == {}


def test_names_that_were_not_known_before_are_after_a_pass_without_news(gateway: Gateway) -> None:
    """As a catalog of an earlier version has them."""
    by_hand = HandTurned.of(gateway)
    linked(gateway, "a", "b")
    by_hand.turn(0, 6, 60, 60)
    catalog = by_hand.keeper.context.catalog
    generation = catalog.known_generation("src")
    assert generation is not None
    catalog.update_known("src", generation, [], [b"b"])
    by_hand.turn(3600, 6, 3600)
    assert [each.path for each in catalog.known_files("src")] == [b"a", b"b"]
    assert by_hand.keeper.watch.pending == {}
    assert by_hand.numbers() == [1]


def test_only_the_first_name_counts_as_read(gateway: Gateway) -> None:
    linked(gateway, "a", "b", "c")
    report = gateway.ingest()
    assert (report.files_read, report.files_unchanged) == (1, 0)
    gateway.source.write("d", b"new")
    report = gateway.ingest()
    assert (report.files_read, report.files_unchanged) == (1, 1)


def test_a_name_whose_file_was_left_out_is_not_known(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway)
    linked(gateway, "a", "b")
    gateway.source.write("c", b"1")
    with gateway.source.path("b").open("ab"):
        by_hand.turn(0, 6)
        assert gateway.list() == [b"c"]
        assert [each.path for each in by_hand.keeper.context.catalog.known_files("src")] == [b"c"]
    by_hand.keeper.watch.try_again()
    by_hand.turn(6, 3600, 3600)
    assert gateway.list() == [b"a", b"b", b"c"]
    assert by_hand.keeper.watch.pending == {}


def test_a_file_with_several_names_is_not_touched_by_a_release(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway, release=ReleaseConfig(keep_generations=1))
    linked(gateway, "a", "b")
    by_hand.turn(0, 6, 60)
    before = gateway.source.path("a").stat()
    gateway.source.write("c", b"new")
    by_hand.keeper.watch.hint(b"c")
    by_hand.turn(0, 6, 60)
    (report,) = gateway.engine.release("src")
    assert report.files == 0
    assert gateway.source.path("a").stat().st_ctime_ns == before.st_ctime_ns
    assert not [each for each in gateway.events.events if each.name == "release.undone"]


def test_the_names_of_a_job_are_known_of_its_run_and_it_goes_as_a_whole_or_not(gateway: Gateway) -> None:
    release = ReleaseConfig(keep_generations=1)
    by_hand = HandTurned.of(gateway, kind=SourceKind.JOB, marker="DONE", release=release)
    for name in ("mon", "tue"):
        linked(gateway, f"{name}/a", f"{name}/b")
        gateway.source.write(f"{name}/c", b"1")
        gateway.source.write(f"{name}/DONE", b"")
        by_hand.keeper.watch.rescan_at = float("-inf")
        by_hand.turn(0, 6, 60)
    assert by_hand.numbers() == [1, 2]
    catalog = by_hand.keeper.context.catalog
    for row in catalog.jobs("src"):
        known = [each.path for each in catalog.known_files(known_name("src", row.run))]
        assert len(known) == 3
    by_hand.turn(*[3600] * 3)
    assert by_hand.keeper.watch.pending == {}
    assert sorted(os.listdir(gateway.source.path("mon"))) == ["DONE", "a", "b", "c"]
