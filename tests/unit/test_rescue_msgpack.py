"""The strict msgpack decoder of scripts/rescue.py: one form for every value, and damage for all else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import rescue
from tests.golden.spec_writer import pack

VALUES = st.recursive(
    st.integers(-(1 << 63), (1 << 64) - 1) | st.binary(max_size=300) | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=20),
    max_leaves=30,
)


@given(VALUES)
def test_reads_what_an_independent_encoder_wrote(value: object) -> None:
    assert rescue.unpack_whole(pack(value)) == value


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("00", 0), ("7f", 127), ("cc80", 128), ("ccff", 255), ("cd0100", 256), ("ce00010000", 65536),
        ("cf0000000100000000", 1 << 32), ("ff", -1), ("e0", -32), ("d0df", -33), ("d080", -128), ("d1ff7f", -129),
        ("d2ffff7fff", -32769), ("d3ffffffff7fffffff", -(1 << 31) - 1), ("a0", ""), ("a161", "a"), ("c400", b""),
        ("90", []), ("9201a0", [1, ""]), ("d920" + "61" * 32, "a" * 32), ("dc0010" + "00" * 16, [0] * 16),
    ],
)  # fmt: skip
def test_shortest_forms(data: str, value: object) -> None:
    assert rescue.unpack_whole(bytes.fromhex(data)) == value


@pytest.mark.parametrize(
    "data",
    [
        "cc7f", "cd00ff", "ce0000ffff", "cf00000000ffffffff",  # unsigned, too long
        "d0e0", "d1ff80", "d2ffff8000", "d3ffffffff80000000",  # negative, too long
        "d07f", "d10080", "d201000000", "d37fffffffffffffff",  # not negative, and in a signed form
        "d900", "da0020" + "61" * 32, "db00000100" + "61" * 256,
        "c50001aa", "c60000000100", "dc000f" + "00" * 15, "dd00000010" + "00" * 16,
        "c0", "c2", "c3", "ca00000000", "cb0000000000000000", "80", "de0000", "d40100", "c70000", "c1",
        "a1ff", "a3eda080",  # not UTF-8, a lone surrogate
        "", "92", "9201", "c4", "c402aa", "cd01", "a2", "ddffffffff00",  # cut short
        "0000", "91" * 17 + "00",
    ],
)  # fmt: skip
def test_refuses(data: str) -> None:
    with pytest.raises(rescue.Damage):
        rescue.unpack_whole(bytes.fromhex(data))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_in_its_one_form_or_damage(data: bytes) -> None:
    try:
        value = rescue.unpack_whole(data)
    except rescue.Damage:
        return
    assert pack(value) == data


def test_a_record_may_grow_and_not_shrink() -> None:
    assert rescue.take([1, "x", b"new"], "thing", rescue.u8, rescue.text) == [1, "x"]
    for bad in ([1], "x", [256, "x"], [-1, "x"], [1, b"x"]):
        with pytest.raises(rescue.Damage):
            rescue.take(bad, "thing", rescue.u8, rescue.text)


def test_ranges_are_never_expanded() -> None:
    ranges = rescue.Ranges([1, 3, (1 << 32) - (1 << 23), 1 << 23], "needs")
    assert [n in ranges for n in (0, 1, 3, 4, 9, (1 << 32) - (1 << 23), (1 << 32) - 1)] == [
        False,
        True,
        True,
        False,
        False,
        True,
        True,
    ]
    for bad in ([1], [1, 0], [5, 2, 6, 1], [5, 1, 1, 1], [1, 1 << 32], [1, (1 << 24) + 1]):
        with pytest.raises(rescue.Damage):
            rescue.Ranges(bad, "needs")
