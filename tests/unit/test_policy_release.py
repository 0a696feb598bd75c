"""Which spool files may go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.entry import Identity
from gateway.policy.release import Version, bound, choose


def version(name: str, held_ms: int, size: int = 10) -> Version:
    return Version(path=name.encode(), identity=Identity(1, 2, size, 3, 4), held_ms=held_ms)


@pytest.mark.parametrize(
    ("begun", "keep", "expected"),
    [
        ([], 1, None),
        ([100], 1, None),
        ([100, 200], 1, 200),
        ([200, 100], 1, 200),
        ([100, 200, 300], 1, 300),
        ([100, 200, 300], 2, 200),
        ([100, 200, 300], 3, None),
        ([100, 200, 300], 0, 300),  # the newest always keeps what it was the first to hold
    ],
)
def test_what_was_read_before_the_bound_is_in_enough_newer_generations(
    begun: list[int], keep: int, expected: int | None
) -> None:
    assert bound(begun, keep) == expected


def chosen(versions: list[Version], before_ms: int, wanted: int | None) -> list[str]:
    return [each.version.path.decode() for each in choose(versions, before_ms=before_ms, wanted=wanted)]


def test_the_oldest_go_first_until_enough_is_free() -> None:
    spool = [version("c", 30), version("a", 10), version("b", 20), version("new", 40)]
    assert chosen(spool, 40, None) == ["a", "b", "c"]
    assert chosen(spool, 40, 0) == []
    assert chosen(spool, 40, 1) == ["a"]
    assert chosen(spool, 40, 10) == ["a"]
    assert chosen(spool, 40, 11) == ["a", "b"]
    assert chosen(spool, 40, 10_000) == ["a", "b", "c"]
    assert chosen(spool, 10, None) == []


def test_files_of_one_reading_go_in_the_order_of_their_paths() -> None:
    assert chosen([version("b", 5), version("a", 5)], 6, None) == ["a", "b"]


def test_every_decision_has_a_reason() -> None:
    assert all(each.reason for each in choose([version("a", 1)], before_ms=2, wanted=None))


_VERSIONS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 1000)), max_size=20)
_GENERATIONS = st.lists(st.integers(0, 50), max_size=8, unique=True)


@given(_VERSIONS, _GENERATIONS, st.integers(1, 5), st.none() | st.integers(0, 5000))
def test_nothing_goes_that_the_kept_generations_were_the_first_to_hold(
    readings: list[tuple[int, int]], begun: list[int], keep: int, wanted: int | None
) -> None:
    before = bound(begun, keep)
    if before is None:
        assert len(begun) <= keep
        return
    versions = [version(str(at), read, size) for at, (read, size) in enumerate(readings)]
    decisions = list(choose(versions, before_ms=before, wanted=wanted))
    # A version read before a generation began is in it, if it was still there; so many hold each that goes.
    assert all(sum(moment > each.version.held_ms for moment in begun) >= keep for each in decisions)
    freed = [each.version.size for each in decisions]
    if wanted is not None and freed:
        assert sum(freed[:-1]) < wanted
