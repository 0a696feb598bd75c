"""Sizes and durations as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import duration_text, parse_duration, parse_size, size_text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0), (4096, 4096), ("4096", 4096), ("1 B", 1), ("1KiB", 1024), ("1.5 GiB", 3 * 2**29),
        ("0.1 GiB", 107374182), ("200 GiB", 200 * 2**30),
        ("2 TB", 2 * 10**12), ("1 kB", 1000), (" 512 MiB ", 512 * 2**20), ("1 PiB", 2**50),
    ],
)  # fmt: skip
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [-1, 1.5, True, None, "", "GiB", "1 gib", "1 G", "1 M", "-1 B", "1e3", "0.3 B", "9999999 PiB", "1 GiB x", []],
)
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("60 s", 60), ("5 min", 300), ("1 h", 3600), ("30 d", 2592000), ("1.5 h", 5400), ("90s", 90)]
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", [60, "60", "1 m", "1 hour", "1 w", "", "-1 s", "999999999 d", None, True])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


def test_the_unit_that_was_meant_is_named() -> None:
    with pytest.raises(ValueError, match='did you mean "5 min"'):
        parse_duration("5 m")
    with pytest.raises(ValueError, match='did you mean "GiB"'):
        parse_size("5 gib")


@given(st.integers(0, 2**62))
def test_a_shown_size_is_near_the_size(size: int) -> None:
    shown = parse_size(size_text(size)) if size < 2**60 else size
    assert abs(shown - size) <= size * 0.06


@given(st.integers(0, 10**8))
def test_a_shown_duration_is_the_duration(seconds: int) -> None:
    assert parse_duration(duration_text(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@given(st.text(max_size=30))
def test_any_text_is_a_quantity_or_a_value_error(text: str) -> None:
    for parse in (parse_size, parse_duration):
        said = "fine"
        try:
            parse(text)
        except ValueError as error:
            said = str(error)
        assert said
