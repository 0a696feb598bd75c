"""Canonical JSON, recovery sheet, checksum and keys of scripts/rescue.py, against values made by other means."""

from __future__ import annotations

import hashlib
import struct

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from scripts import rescue
from tests.golden import spec_writer

KEYS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7D, exclude_characters='"\\'), max_size=10)
OBJECTS = st.dictionaries(
    KEYS,
    st.recursive(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=10) | st.integers(0, (1 << 53) - 1),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
        max_leaves=10,
    ),
)


@given(OBJECTS)
def test_canonical_json_comes_back(value: dict) -> None:
    assert rescue.parse_json(rescue.canonical(value) + b"\n") == value


def test_canonical_form() -> None:
    value = {"b": '\u00e9\U0001f512\n"\\/', "a": [1, {"d": 2, "c": 3}]}
    expected = rb'{"a":[1,{"c":3,"d":2}],"b":"\u00e9\ud83d\udd12\n\"\\/"}'
    assert rescue.canonical(value) == expected


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1}', b'{"a":1}\n\n', b'{"a": 1}\n', b'{"b":1,"a":1}\n', b'{"a":1,"a":1}\n', b'{"a":-1}\n',
        b'{"a":1.0}\n', b'{"a":9007199254740992}\n', b'{"~":1}\n', b'{"a":{"~mac":"x"}}\n', b'{"\\"":1}\n',
        b'{"a":1e3}\n', b'{"a":01}\n', b'{"a":NaN}\n', b'{"a":null}\n', b'{"a":true}\n', b'[]\n',
        b'{"a":"\\u00E9"}\n', '{"a":"\u00e9"}\n'.encode(), b'{"a":"\\/"}\n', b'{"a":"\\u0041"}\n', b'{"a":"\\u000a"}\n',
        b'{"a":"\\ud800"}\n', b"{" * 3000 + b"\n", b'{"a":' + b"[" * 30000 + b"\n", b"\xff\n", b"",
        b'{"a":' + b"9" * 5000 + b"}\n",
    ],
)  # fmt: skip
def test_what_is_not_canonical_is_damage(raw: bytes) -> None:
    with pytest.raises(rescue.Damage):
        rescue.parse_json(raw)


def by_hand_hmac(key: bytes, data: bytes) -> bytes:
    key = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in key) + data).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in key) + inner).digest()


def test_mac_covers_unknown_keys_and_nothing_else() -> None:
    key = bytes(range(32))
    value = {"zebra": 1, "format": 1}
    mac = by_hand_hmac(key, b'{"format":1,"zebra":1}').hex()
    assert rescue.json_mac(key, value) == mac
    assert rescue.json_mac(key, value | {"~mac": "anything"}) == mac


def test_hkdf_of_rfc_5869() -> None:
    ikm, salt, info = bytes([0x0B]) * 22, bytes(range(13)), bytes(range(0xF0, 0xFA))
    expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    assert rescue.hkdf(ikm, salt, info, 42).hex() == expected
    assert rescue.hkdf(ikm, b"", b"", 42).hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


def test_container_key_and_frame_by_hand() -> None:
    """README §3, §4.1, §4.2 with nothing but SHA-256 and AES-GCM."""
    chain_key, repository, salt = bytes(range(32)), bytes(range(16)), bytes(range(100, 132))
    purpose = by_hand_hmac(by_hand_hmac(repository, chain_key), b"gateway/v1/chain/log\x01")
    assert rescue.ChainKeys(chain_key, repository).purpose[3] == purpose
    prk = by_hand_hmac(salt, purpose)
    key = by_hand_hmac(prk, b"gateway/v1/container\x01")
    commitment = by_hand_hmac(prk, key + b"gateway/v1/container\x02")
    name = b"\x03" + repository + b"alpha".ljust(32, b"\0") + struct.pack(">II", 1, 7) + bytes(16)
    assert name == rescue.container_name(3, repository, "alpha", 1, 7)
    header = bytes.fromhex("894757420d0a1a0a") + b"\x00\x01\x01" + name + salt + commitment
    plain = spec_writer.pack([1, "x"])
    trailer = struct.pack(">QIIQ", 148, 24 + len(plain), 0, 148 + 24 + len(plain) + 32) + bytes.fromhex(
        "4757454e440d0a1a"
    )
    aad = header + bytes(4) + b"\x03\x01" + trailer
    tail = blake3(aad + plain, key=bytes(32)).digest()[:8]
    raw = header + tail + rescue.AESGCM(key).encrypt(bytes(4) + tail, plain, aad) + trailer
    assert rescue.open_body(raw, purpose, name) == [1, "x"]
    for at in range(len(raw)):
        broken = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        with pytest.raises(rescue.Damage):
            rescue.open_body(broken, purpose, name)
    for cut in (0, 147, 148, len(raw) - 1):
        with pytest.raises(rescue.Damage):
            rescue.open_body(raw[:cut], purpose, name)
    for version, suite in ((2, 1), (1, 2)):
        with pytest.raises(rescue.Newer):
            rescue.container_key(purpose, raw[:8] + struct.pack(">HB", version, suite) + raw[11:148], name)


@pytest.mark.parametrize(
    ("memory", "rounds", "lanes"),
    [
        (7, 1, 1),
        (4_194_305, 1, 1),
        (8, 0, 1),
        (8, 65, 1),
        (64, 1, 0),
        (1024, 1, 65),
        (15, 1, 2),
        ("8", 1, 1),
        (True, 1, 1),
    ],
)
def test_argon2_bounds_come_before_the_work(memory: object, rounds: object, lanes: object) -> None:
    with pytest.raises(rescue.Damage):
        rescue.argon2id("x", bytes(32), {"memory_kib": memory, "iterations": rounds, "lanes": lanes})


def test_a_passphrase_is_normalised() -> None:
    kdf = {"memory_kib": 8, "iterations": 1, "lanes": 1}
    assert rescue.argon2id("u\u0308", bytes(32), kdf) == rescue.argon2id("\u00fc", bytes(32), kdf)


@pytest.mark.parametrize(("data", "crc"), [(b"123456789", 0xAE8B14860A799888), (b"", 0)])
def test_crc_check_value(data: bytes, crc: int) -> None:
    assert rescue.crc64(data) == crc


@given(st.binary(max_size=100), st.integers(0, 100))
def test_crc_in_pieces(data: bytes, at: int) -> None:
    assert rescue.crc64(data[at:], rescue.crc64(data[:at])) == spec_writer.crc64(data)


REPOSITORY, SECRET = bytes(range(16)), bytes(range(7, 39))


def test_a_word() -> None:
    # 127.0.0.1 is lusab-babad in the scheme these syllables come from.
    assert (rescue.word_value("lusab"), rescue.word_value("babad")) == (0x7F00, 0x0001)


@given(st.binary(min_size=32, max_size=32))
def test_a_sheet_comes_back(secret: bytes) -> None:
    assert rescue.read_sheet(spec_writer.sheet(secret, REPOSITORY)) == (secret, REPOSITORY)


def test_a_sheet_is_read_as_people_type_it() -> None:
    lines = [
        line.upper().replace("-", "  ") for line in spec_writer.sheet(SECRET, REPOSITORY).splitlines() if "-" in line
    ]
    typed = "1 sheet for the safe\n" + "\r\n".join(reversed(lines))
    assert rescue.read_sheet(typed) == (SECRET, None)


@pytest.mark.parametrize("n", range(1, 5))
def test_a_misread_letter_names_its_line(n: int) -> None:
    lines = spec_writer.sheet(SECRET, REPOSITORY).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"  {n}  "))
    for position in [p for p, letter in enumerate(lines[at]) if letter.isalpha()]:
        for letter in "bzaue":
            if lines[at][position] == letter:
                continue
            wrong = lines[at][:position] + letter + lines[at][position + 1 :]
            with pytest.raises(rescue.Stop, match=f"line {n}"):
                rescue.read_sheet("\n".join([*lines[:at], wrong, *lines[at + 1 :]]))
    with pytest.raises(rescue.Stop, match=f"no readable line {n}"):
        rescue.read_sheet("\n".join([*lines[:at], *lines[at + 1 :]]))


def test_lines_of_a_sheet_cannot_be_exchanged() -> None:
    sheet = spec_writer.sheet(SECRET, REPOSITORY).replace("  1  ", "  x  ").replace("  2  ", "  1  ")
    with pytest.raises(rescue.Stop):
        rescue.read_sheet(sheet.replace("  x  ", "  2  "))
