"""What looks as if something destroyed a source, and what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.policy.anomaly import Shape, anomaly

MIB = 1024 * 1024
BEFORE = Shape(files=100, bytes=100 * MIB, carried=95, new_raw=5 * MIB, stored_raw=MIB)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, ""),
        ({"files": 51, "carried": 50}, ""),
        ({"files": 49, "carried": 49}, "gone"),
        ({"bytes": 49 * MIB}, "hold"),
        ({"bytes": 51 * MIB}, ""),
        ({"carried": 0, "new_raw": 100 * MIB, "stored_raw": 99 * MIB}, "encrypted"),
        ({"carried": 0, "new_raw": 100 * MIB, "stored_raw": 50 * MIB}, ""),
        ({"carried": 60, "new_raw": 40 * MIB, "stored_raw": 40 * MIB}, ""),
        ({"carried": 0, "new_raw": 1000, "stored_raw": 1000}, ""),
    ],
)
def test_what_is_told(changes: dict[str, int], word: str) -> None:
    told = anomaly(BEFORE, replace(BEFORE, **changes), dense_before=0.2)
    assert (word in told) if word else not told


def test_a_source_that_never_compressed_is_not_suspected() -> None:
    encrypted = replace(BEFORE, carried=0, new_raw=100 * MIB, stored_raw=100 * MIB)
    assert not anomaly(BEFORE, encrypted, dense_before=0.95)
    assert not anomaly(BEFORE, encrypted, dense_before=None)


def test_few_files_are_only_judged_by_their_bytes() -> None:
    few = replace(BEFORE, files=3, carried=0)
    assert not anomaly(few, replace(few, files=1), dense_before=0.2)
    assert anomaly(few, replace(few, bytes=MIB), dense_before=0.2)


def test_where_files_are_released_fewer_of_them_say_nothing() -> None:
    few = replace(BEFORE, files=1, bytes=1, carried=1)
    assert anomaly(BEFORE, few, dense_before=0.2)
    assert not anomaly(BEFORE, few, dense_before=0.2, may_shrink=True)
    encrypted = replace(BEFORE, carried=0, new_raw=100 * MIB, stored_raw=99 * MIB)
    assert "encrypted" in anomaly(BEFORE, encrypted, dense_before=0.2, may_shrink=True)
