"""A seal of what was read already: the evidence of the stored version becomes what is known of it now."""

from __future__ import annotations

from datetime import timedelta

from gateway.api import Reference, SealedFile, no_progress
from gateway.jobs.keeper import Keeper
from tests.flow.gateways import KIB, Gateway


def turns(gateway: Gateway, keeper: Keeper) -> None:
    for seconds in (0, 6, 1):
        gateway.clock.advance(timedelta(seconds=seconds))
        keeper.turn(no_progress)


def evidence(gateway: Gateway, generation: str = "src") -> dict[bytes, int | None]:
    return {each.path: each.evidence for each in gateway.engine.list_files(Reference.parse(generation))}


def test_a_seal_that_came_late_makes_a_generation_that_says_so(gateway: Gateway, keeper: Keeper) -> None:
    gateway.source.write("a", b"a" * KIB)
    gateway.source.noise("large", 300 * KIB)
    gateway.source.write("other", b"o")
    turns(gateway, keeper)
    assert evidence(gateway) == {b"a": 1, b"large": 1, b"other": 1}
    files = [SealedFile(path=b"a", size=KIB, digest=""), SealedFile(path=b"large", size=300 * KIB, digest="")]
    report = keeper.seals.seal("night", files, b"", (), "dba")
    assert report.problems == ()
    turns(gateway, keeper)
    row = keeper.context.catalog.job("src", "night")
    assert row is not None
    assert keeper.seals.report(row).state == "protected"
    assert evidence(gateway, "src@2") == {b"a": 5, b"large": 5, b"other": 1}
    assert evidence(gateway, "src@1") == {b"a": 1, b"large": 1, b"other": 1}, "what was is not rewritten"
    shown = gateway.engine.show(Reference.parse("src@2"))
    assert shown.info.evidence == 1, "the lowest of its files"
    assert shown.statistics is not None
    assert (shown.statistics.read_bytes, shown.statistics.new_bytes) == (0, 0), "nothing was read again"
    assert (gateway.restore("src@2")[0] / "large").read_bytes() == (gateway.source.root / "large").read_bytes()
    # It says so once: the same call again, and further turns, make nothing.
    keeper.seals.seal("night", files, b"", (), "dba")
    gateway.source.write("b", b"b")
    keeper.watch.hint(b"b")
    turns(gateway, keeper)
    assert evidence(gateway, "src@3") == {b"a": 5, b"b": 1, b"large": 5, b"other": 1}
    assert [each.number for each in gateway.engine.generations("src")] == [1, 2, 3]


def test_a_seal_of_another_version_raises_nothing(gateway: Gateway, keeper: Keeper) -> None:
    gateway.source.write("a", b"one")
    turns(gateway, keeper)
    keeper.seals.seal("night", [SealedFile(path=b"a", size=3, digest="")], b"", (), "dba")
    gateway.source.write("a", b"two")
    turns(gateway, keeper)
    assert evidence(gateway, "src@1") == {b"a": 1}
    newest = max(each.number for each in gateway.engine.generations("src"))
    assert evidence(gateway, f"src@{newest}").get(b"a") in (None, 1)


def test_a_version_that_is_read_again_takes_the_better_evidence(gateway: Gateway, keeper: Keeper) -> None:
    gateway.source.write("a", b"one")
    turns(gateway, keeper)
    keeper.context.catalog.forget_known("src")
    keeper.seals.seal("night", [SealedFile(path=b"a", size=3, digest="")], b"", (), "dba")
    turns(gateway, keeper)
    assert evidence(gateway) == {b"a": 5}
