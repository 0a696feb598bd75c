"""Records: one spelling of every value, strict types, growth only at the end."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Corrupt
from gateway.format import wire
from gateway.format.log import U8, U32, U64, Digest, Id, Label
from tests.unit.format_values import judged, refuses


class Sample(wire.Record, frozen=True):
    number: U64
    text: str
    data: bytes
    numbers: tuple[U32, ...]
    small: int = 7


GOOD = Sample(1, "a", b"b", (1, 2))
values = st.recursive(
    st.one_of(
        st.integers(-(2**63), 2**64 - 1),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
        st.binary(max_size=40),
    ),
    lambda inner: st.lists(inner, max_size=20),
    max_leaves=20,
)


def record(*parts: bytes) -> bytes:
    return bytes([0x90 + len(parts)]) + b"".join(parts)


def sample(
    number: bytes = b"\x01", text: bytes = b"\xa1a", data: bytes = b"\xc4\x01b", numbers: bytes = b"\x92\x01\x02"
) -> bytes:
    return record(number, text, data, numbers, b"\x07")


def both(data: bytes) -> Sample:
    wire.require_shortest(data, "x")
    return wire.decode(data, Sample, "x")


@given(values)
def test_what_is_encoded_is_in_its_shortest_form(value: Any) -> None:
    wire.require_shortest(wire.encode([value]), "x")


def test_the_bytes_of_a_record() -> None:
    assert wire.encode(GOOD) == sample()
    assert both(sample()) == GOOD


def longer_spellings(value: int) -> list[bytes]:
    """Every MessagePack spelling of a small unsigned integer but the shortest."""
    formats = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
    return [bytes([code]) + struct.pack(each, value) for code, each in formats.items()]


@pytest.mark.parametrize("number", longer_spellings(1))
def test_longer_integers_are_refused(number: bytes) -> None:
    refuses(lambda: both(sample(number=number)), "shortest")


@pytest.mark.parametrize(
    ("fields", "canonical"),
    [
        ({"text": b"\xd9\x01a"}, False),
        ({"text": b"\xda\x00\x01a"}, False),
        ({"text": b"\xdb\x00\x00\x00\x01a"}, False),
        ({"data": b"\xc5\x00\x01b"}, False),
        ({"data": b"\xc6\x00\x00\x00\x01b"}, False),
        ({"numbers": b"\xdc\x00\x02\x01\x02"}, False),
        ({"numbers": b"\xdd\x00\x00\x00\x02\x01\x02"}, False),
        ({"numbers": b"\x92\x01\xcc\x02"}, False),
        ({"number": b"\xcc\x80"}, True),
        ({"number": b"\xcf" + b"\xff" * 8}, True),
        ({"text": b"\xa0"}, True),
        ({"numbers": b"\x90"}, True),
    ],
)
def test_longer_strings_and_arrays_are_refused(fields: dict[str, bytes], canonical: bool) -> None:
    if canonical:
        assert wire.encode(both(sample(**fields))) == sample(**fields)
    else:
        refuses(lambda: both(sample(**fields)), "shortest")
        assert wire.decode(sample(**fields), Sample, "x") == GOOD, "list records are carried as bytes and not checked"


def test_longer_spellings_are_seen_where_only_a_later_version_looks() -> None:
    refuses(lambda: both(b"\x96" + sample()[1:] + b"\xcc\x01"), "shortest")
    refuses(lambda: both(b"\x96" + sample()[1:] + b"\x91\x91\x91\xd9\x01a"), "shortest")
    refuses(lambda: wire.require_shortest(b"\xdc\x00\x05" + sample()[1:], "x"), "shortest")


FOREIGN = {
    "nil": b"\xc0",
    "false": b"\xc2",
    "true": b"\xc3",
    "map": b"\x81\x01\x02",
    "empty map": b"\x80",
    "map with a list as key": b"\x81\x91\x01\x02",
    "map with a map as key": b"\x81\x80\x02",
    "float 64": b"\xcb" + bytes(8),
    "float 32": b"\xca" + bytes(4),
    "not a number": b"\xcb\x7f\xf8" + bytes(6),
    "extension": b"\xd4\x05\x00",
    "long extension": b"\xc7\x01\x05\x00",
    "time 32": b"\xd6\xff" + bytes(4),
    "time 64": b"\xd7\xff" + b"\xff" * 8,
    "time 96": b"\xc7\x0c\xff" + b"\x7f" * 12,
    "never used": b"\xc1",
    "text that is no UTF-8": b"\xa2\xc3\x28",
    "lone surrogate": b"\xa3\xed\xa0\x80",
    "overlong text": b"\xa2\xc0\x80",
}


@pytest.mark.parametrize("what", FOREIGN)
def test_types_the_format_does_not_have_are_refused_everywhere(what: str) -> None:
    each = FOREIGN[what]
    for data in (
        each,
        record(each),
        record(record(record(each))),
        sample()[:1].replace(b"\x95", b"\x96") + sample()[1:] + each,
    ):
        refuses(lambda d=data: wire.require_shortest(d, "x"))
    for field in ("number", "text", "data", "numbers"):
        refuses(lambda f=field: wire.decode(sample(**{f: each}), Sample, "x"))


TYPES = {
    "nil": b"\xc0",
    "false": b"\xc2",
    "true": b"\xc3",
    "integer": b"\x01",
    "negative": b"\xff",
    "text": b"\xa1a",
    "data": b"\xc4\x01b",
    "array": b"\x92\x01\x02",
    "empty array": b"\x90",
    "array of text": b"\x91\xa1a",
    "array of true": b"\x91\xc3",
    "array of negatives": b"\x91\xff",
    "array beyond u32": b"\x91\xcf\x00\x00\x00\x01\x00\x00\x00\x00",
}
ALLOWED = {
    "number": {"integer"},
    "text": {"text"},
    "data": {"data"},
    "numbers": {"array", "empty array"},
}


@pytest.mark.parametrize("field", ALLOWED)
@pytest.mark.parametrize("what", TYPES)
def test_types_are_strict(field: str, what: str) -> None:
    data = sample(**{field: TYPES[what]})
    if what in ALLOWED[field]:
        both(data)
    else:
        refuses(lambda: both(data))
        refuses(lambda: wire.decode(data, Sample, "x"), "malformed")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (U8, [0, 255], [-1, 256]),
        (U32, [0, 2**32 - 1], [-1, 2**32]),
        (U64, [0, 2**63, 2**64 - 1], [-1, -(2**63)]),
        (Id, [bytes(16)], [bytes(15), bytes(17), b""]),
        (Digest, [bytes(32)], [bytes(31), bytes(33), b""]),
        (
            Label,
            ["a", "a" * 32, "a-0"],
            ["", "a" * 33, "A", "a_", "a\n", "\na", "a" * 32 + "\n", "\u0661", "\u00e9", "a b"],
        ),
    ],
)
def test_values_have_bounds(kind: Any, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert wire.decode(wire.encode(value), kind, "x") == value
    for value in bad:
        refuses(lambda v=value: wire.decode(wire.encode(v), kind, "x"))


def test_a_record_has_at_least_the_fields_of_this_version() -> None:
    class Plain(wire.Record, frozen=True):
        one: int
        two: str

    assert wire.decode(record(b"\x01", b"\xa1a"), Plain, "x") == Plain(1, "a")
    assert wire.decode(record(b"\x01", b"\xa1a", b"\xc4\x00", b"\x90"), Plain, "x") == Plain(1, "a")
    refuses(lambda: wire.decode(record(*[b"\x01", b"\xa1a", b"\xc4\x01b", b"\x90"]), Sample, "x"), "short")
    for head in (b"\xdc\x00\x04", b"\xdd\x00\x00\x00\x04"):
        refuses(lambda h=head: wire.decode(h + sample()[1:-1], Sample, "x"), "short")
    for short in (record(), record(b"\x01")):
        refuses(lambda data=short: wire.decode(data, Plain, "x"))


def test_a_record_is_an_array_and_fills_its_bytes() -> None:
    as_map = b"\x85\xa6number\x01\xa4text\xa1a\xa4data\xc4\x01b\xa7numbers\x90\xa5small\x07"
    for data in (
        b"",
        b"\xc0",
        b"\x01",
        as_map,
        sample() + b"\0",
        sample() + sample(),
        sample()[:-1],
        b"\xc4\x04" + sample()[:4],
    ):
        refuses(lambda d=data: wire.decode(d, Sample, "x"))
    for cut in range(len(sample())):
        refuses(lambda n=cut: wire.require_shortest(sample()[:n], "x"))


@pytest.mark.parametrize("code", [b"\xdd", b"\xdb", b"\xc6", b"\xdf"])
def test_a_huge_declared_size_takes_no_memory(code: bytes) -> None:
    data = record(b"\x01", b"\xa1a", b"\xc4\x00", code + b"\xff\xff\xff\xff" + b"\x01" * 1000)
    top = code + b"\xff\xff\xff\xff" + b"\x01" * 1000
    tracemalloc.start()
    try:
        for each in (data, top):
            refuses(lambda d=each: wire.require_shortest(d, "x"))
            refuses(lambda d=each: wire.decode(d, Sample, "x"))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_arrays_nest_at_most_16_deep() -> None:
    wire.require_shortest(b"\x91" * 16 + b"\x01", "x")
    wire.require_shortest(b"\x91" * 15 + b"\x90", "x")
    refuses(lambda: wire.require_shortest(b"\x91" * 17 + b"\x01", "x"), "deep")
    refuses(lambda: wire.require_shortest(b"\x91" * 16 + b"\x90", "x"), "deep")


def test_deep_nesting_is_damage_at_every_depth() -> None:
    for depth in [1, 100, *range(700, 1100, 7), 5000, 200_000]:
        data = b"\x91" * depth + b"\x01"
        judged(lambda d=data: wire.require_shortest(d, "x"))
        judged(lambda d=data: wire.decode(record(b"\x01", b"\xa1a", b"\xc4\x00", b"\x90", b"\x07", d), Sample, "x"))
    refuses(lambda: wire.require_shortest(b"\x91" * 200_000 + b"\x01", "x"))


@given(st.binary(max_size=60))
def test_arbitrary_bytes_never_raise_anything_else(data: bytes) -> None:
    judged(lambda: wire.require_shortest(data, "x"))
    judged(lambda: wire.decode(data, Sample, "x"))


@given(
    st.lists(
        st.sampled_from([*FOREIGN.values(), *TYPES.values(), b"\x91", b"\x95", b"\xdc", b"\xc4", b"\xa3"]), max_size=12
    )
)
def test_bytes_like_records_never_raise_anything_else(parts: list[bytes]) -> None:
    for data in (b"".join(parts), bytes([0x90 + len(parts)]) + b"".join(parts)):
        judged(lambda d=data: wire.require_shortest(d, "x"))
        judged(lambda d=data: wire.decode(d, Sample, "x"))


@given(values)
def test_what_the_decoder_takes_is_what_another_encoder_writes(value: Any) -> None:
    """`require_shortest` and a plain decoder agree on what a body says."""
    data = wire.encode(value)
    assert msgspec.msgpack.decode(data) == value


class Grown(wire.Record, frozen=True):
    """A record that got a field after the freeze."""

    LATER = 1

    first: int
    second: int = 5
    third: int = 0


def test_only_fields_added_after_the_freeze_may_be_missing() -> None:
    assert wire.decode(b"\x92\x01\x02", Grown, "here") == Grown(1, 2)
    assert wire.decode(b"\x94\x01\x02\x03\x04", Grown, "here") == Grown(1, 2, 3)
    with pytest.raises(Corrupt, match="too short"):
        wire.decode(b"\x91\x01", Grown, "here")
