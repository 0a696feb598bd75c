"""Canonical JSON: one spelling of every object, and a MAC over exactly those bytes."""

from __future__ import annotations

import hmac
import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Corrupt, NewerFormat
from gateway.format import canonical, limits
from gateway.format.keys import MasterKey
from tests.unit.format_values import MASTER, REPOSITORY, hkdf, judged, refuses, some

BASE = {"format": 1, "needs_features": []}

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
keys = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7D, exclude_characters='"\\'), max_size=6).filter(
    lambda name: name not in ("format", "needs_features")
)
values = st.recursive(
    st.one_of(st.integers(0, 2**53 - 1), text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)


def spelled(inner: str, *, mac: str = "0" * 64) -> bytes:
    return b'{"format":1,"needs_features":[],"x":' + inner.encode() + b',"~mac":"' + mac.encode() + b'"}\n'


def decode(data: bytes) -> dict[str, Any]:
    return canonical.decode(data, "repository.json")


@given(st.dictionaries(keys, values, max_size=5))
def test_what_is_stored_is_what_was_said(said: dict[str, Any]) -> None:
    stored = canonical.with_mac({**said, **BASE}, MASTER)
    value = decode(stored)
    assert {name: each for name, each in value.items() if name != "~mac"} == {**said, **BASE}
    assert list(value) == sorted(value)
    assert stored.isascii()
    assert stored.count(b"\n") == 1
    canonical.check_mac(value, MASTER, "")


def test_the_mac_covers_the_bytes_without_itself_and_without_the_newline() -> None:
    stored = canonical.with_mac({**BASE, "x": "\u00fc"}, MASTER)
    covered = b'{"format":1,"needs_features":[],"x":"\\u00fc"}'
    key = hkdf(MASTER.secret, REPOSITORY, b"gateway/v1/master/mac", 32)
    mac = hmac.new(key, covered, sha256).hexdigest().encode()
    assert stored == covered[:-1] + b',"~mac":"' + mac + b'"}\n'


def test_a_mac_that_was_there_is_replaced_not_covered() -> None:
    once = canonical.with_mac(BASE, MASTER)
    assert canonical.with_mac(decode(once), MASTER) == once


def test_the_mac_notices_another_repository_and_another_key() -> None:
    value = decode(canonical.with_mac(BASE, MASTER))
    for other in (MasterKey(MASTER.secret, some("other", 16)), MasterKey(some("other", 32), REPOSITORY)):
        refuses(lambda key=other: canonical.check_mac(value, key, "x"), "MAC")


def test_unknown_keys_are_kept_and_covered() -> None:
    stored = canonical.with_mac({**BASE, "later": {"deep": [1]}}, MASTER)
    value = decode(stored)
    assert value["later"] == {"deep": [1]}
    canonical.check_mac(value, MASTER, "")
    for changed in (
        {**value, "later": {"deep": [2]}},
        {**value, "more": 1},
        {k: v for k, v in value.items() if k != "later"},
    ):
        refuses(lambda other=changed: canonical.check_mac(other, MASTER, "x"), "MAC")


@pytest.mark.parametrize(
    "inner",
    [
        '"\\u00fc"',
        '"\\ud83d\\ude00"',
        '"\\u0001"',
        '"\\b\\f\\n\\r\\t\\"\\\\"',
        '"/"',
        "0",
        "10",
        "9007199254740991",
        '{"a":1,"b":{"a":[],"b":{}}}',
        '{" !#[]}":[[],{}]}',
    ],
)
def test_canonical_spellings(inner: str) -> None:
    assert canonical.encode(decode(spelled(inner))) + b"\n" == spelled(inner)


@pytest.mark.parametrize(
    "inner",
    [
        " 1",
        "1 ",
        "-1",
        "-0",
        "9007199254740992",
        "18446744073709551616",
        "true",
        "[false]",
        '{"a":null}',
        '{"~":1}',
        '{"a~":1}',
        '{"\\"":1}',
        '{"\\\\":1}',
        '{"\\n":1}',
        '{"\\u00fc":1}',
        '{"\\ud83d\\ude00":1,"\\uffff":1}',
        "+1",
        "00",
        "01",
        "1.0",
        "0.5",
        "1e3",
        "1E400",
        "-0.0",
        "NaN",
        "Infinity",
        "-Infinity",
        "9" * 5000,
        '"\\u00FC"',
        '"\\u0041"',
        '"\\/"',
        '"\\u000a"',
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '{"\\ud800":1}',
        '"\x7f"',
        '"\x01"',
        '"\u00fc"',
        '{"b":1,"a":2}',
        '{"a":1,"a":1}',
        '{"a" :1}',
        "[1, 2]",
        "[1,]",
        "tru",
        "",
        '"',
        "'a'",
    ],
)
def test_every_other_spelling_is_refused(inner: str) -> None:
    refuses(lambda: decode(spelled(inner)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[]\n",
        b"null\n",
        b"1\n",
        b'"x"\n',
        spelled("1")[:-1],
        spelled("1") + b"\n",
        spelled("1")[:-1] + b"\r\n",
        b" " + spelled("1"),
        b"\xef\xbb\xbf" + spelled("1"),
        spelled("1").decode().encode("utf-16"),
        spelled("1") + spelled("1"),
        spelled("1").replace(b'"format":1,', b'"format":1,"format":1,'),
        spelled("1", mac="0" * 63),
        spelled("1", mac="0" * 65),
        spelled("1", mac="G" * 64),
        spelled("1", mac="A" * 64),
        spelled("1", mac="0 " * 32),
        spelled("1", mac="\\u00fc" * 64),
        b'{"format":1,"needs_features":[]}\n',
        b'{"format":1,"needs_features":[],"~mac":1}\n',
        b'{"format":1,"needs_features":[],"~mac":null}\n',
        b'{"format":1,"needs_features":[],"~mac":"' + b"0" * 64 + b'","~n":1}\n',
        b'{"format":1,"needs_features":[],"~mac":"' + b"0" * 64 + b'","\\u00fc":1}\n',
        b'{"needs_features":[],"~mac":"' + b"0" * 64 + b'"}\n',
        b'{"format":0,"needs_features":[],"~mac":"' + b"0" * 64 + b'"}\n',
        b'{"format":true,"needs_features":[],"~mac":"' + b"0" * 64 + b'"}\n',
        b'{"format":"1","needs_features":[],"~mac":"' + b"0" * 64 + b'"}\n',
        b'{"format":1,"needs_features":{},"~mac":"' + b"0" * 64 + b'"}\n',
        b'{"format":1,"needs_features":[1],"~mac":"' + b"0" * 64 + b'"}\n',
        b'{"format":1,"needs_features":"","~mac":"' + b"0" * 64 + b'"}\n',
        b'{"format":1,"~mac":"' + b"0" * 64 + b'"}\n',
    ],
)
def test_bytes_that_are_no_object_are_refused(data: bytes) -> None:
    refuses(lambda: decode(data))


@pytest.mark.parametrize(
    "data",
    [
        b'{"format":2}\n',
        b'{"format":2,"needs_features":7,"~mac":[]}\n',
        b'{"format":9007199254740991,"needs_features":[],"~mac":""}\n',
        b'{"format":1,"needs_features":["sharding"]}\n',
        b'{"format":1,"needs_features":["\\u001b[2J"],"~mac":{}}\n',
    ],
)
def test_a_newer_version_is_told_from_damage_before_the_rest_is_looked_at(data: bytes) -> None:
    with pytest.raises(NewerFormat) as caught:
        decode(data)
    assert str(caught.value).isprintable()


def test_deep_nesting_is_damage_at_every_depth() -> None:
    """The parser and the encoder meet the recursion limit at different depths; both must be translated."""
    for depth in [1, 100, *range(800, 1100), 2000, 30000]:
        judged(lambda n=depth: decode(spelled("[" * n + "]" * n)))
        judged(lambda n=depth: decode(spelled('{"a":' * (n // 2) + "1" + "}" * (n // 2))))
    refuses(lambda: decode(spelled("[" * 30000 + "]" * 30000)))


def test_the_bound_of_64_kib() -> None:
    room = limits.JSON_BYTES - len(spelled('""'))
    assert len(decode(spelled('"' + "a" * room + '"'))["x"]) == room
    refuses(lambda: decode(spelled('"' + "a" * (room + 1) + '"')), "large")


@given(st.binary(max_size=80))
def test_arbitrary_bytes_never_raise_anything_else(data: bytes) -> None:
    judged(lambda: decode(data))


@given(st.text('{}[]":,\\u0123456789abcdef~mac-.eE \n', max_size=60))
def test_json_shaped_bytes_never_raise_anything_else(text: str) -> None:
    judged(lambda: decode(text.encode()))


def test_no_flipped_bit_and_no_cut_gets_past_parser_and_mac() -> None:
    stored = canonical.with_mac({**BASE, "x": "\u00fc", "n": 12}, MASTER)
    variants = [
        stored[:at] + bytes([stored[at] ^ 1 << bit]) + stored[at + 1 :] for at in range(len(stored)) for bit in range(8)
    ]
    variants += [stored[:at] for at in range(len(stored))] + [stored + bytes([more]) for more in range(256)]
    for variant in variants:
        value = judged(lambda data=variant: decode(data))
        if value is not None:
            refuses(lambda said=value: canonical.check_mac(said, MASTER, "x"), "MAC")


@pytest.mark.parametrize(
    "bad", ["00", "0" * 31, "0" * 33, "0G" * 16, "0A" * 16, "0 " * 16, " " * 32, "\u0660" * 32, 0, None, [], True]
)
def test_a_field_of_bytes_is_lower_case_hexadecimal_of_its_length(bad: object) -> None:
    assert canonical.hex_field({"id": "0a" * 16}, "id", 16, "x") == b"\n" * 16
    refuses(lambda: canonical.hex_field({"id": bad}, "id", 16, "x"), "id")
    refuses(lambda: canonical.hex_field({}, "id", 16, "x"), "id")


@pytest.mark.parametrize("bad", [0, None, [], True])
def test_a_field_of_text_is_text(bad: object) -> None:
    assert canonical.text_field({"kind": ""}, "kind", "x") == ""
    refuses(lambda: canonical.text_field({"kind": bad}, "kind", "x"), "kind")


def test_an_object_is_encoded_the_same_whatever_the_order_of_its_keys() -> None:
    one, two = {"b": 1, "a": [{"d": 1, "c": 2}]}, {"a": [{"c": 2, "d": 1}], "b": 1}
    assert canonical.encode(one) == canonical.encode(two) == b'{"a":[{"c":2,"d":1}],"b":1}'


def test_what_the_address_says_is_in_the_error() -> None:
    with pytest.raises(Corrupt) as caught:
        canonical.decode(b"", "slots/x.json")
    assert caught.value.address == "slots/x.json"
    with pytest.raises(NewerFormat, match=r"slots/x\.json"):
        canonical.decode(json.dumps({"format": 2}, separators=(",", ":")).encode() + b"\n", "slots/x.json")
