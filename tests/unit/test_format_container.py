"""Containers: every byte is bound to its place, its name and its length; nonces never repeat under one key."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Corrupt, NewerFormat
from gateway.format import container, limits
from gateway.format.container import HEADER, OVERHEAD, TRAILER, Frame, Kind, Name, Opener, Sealer, Trailer
from gateway.format.keys import ChainKeys
from gateway.model.ids import ChainName
from tests.unit.format_values import CHAIN, KEYS, REPOSITORY, SALT, entry_name, hkdf, judged, pack_name, refuses, some

BODY = b"a body"
SEALED = container.seal_body(entry_name(), KEYS, SALT, BODY)
OTHER_KEYS = ChainKeys.of(some("other", 32), REPOSITORY)


def opened(data: bytes, name: Name | None = None, keys: ChainKeys = KEYS) -> bytes:
    return container.open_body(data, name or entry_name(), keys, "log/x")


def pack(plains: list[bytes], *, name: Name | None = None, salt: bytes = SALT) -> tuple[Sealer, list[bytes], bytes]:
    """Sealer, frames and trailer of a container; the last frame is a directory."""
    sealer = Sealer(name or pack_name(), KEYS, salt)
    frames = [bytes(sealer.seal(number, Frame.SEGMENT, plain)) for number, plain in enumerate(plains[:-1])]
    offset = HEADER.size + sum(map(len, frames))
    last, trailer = sealer.finish(offset, len(frames), Frame.DIRECTORY, plains[-1])
    return sealer, [*frames, bytes(last)], trailer


@given(st.binary(min_size=1, max_size=300), st.binary(min_size=32, max_size=32), st.integers(0, 2**32 - 1))
def test_a_body_comes_back(body: bytes, salt: bytes, sequence: int) -> None:
    data = container.seal_body(entry_name(sequence), KEYS, salt, body)
    assert opened(data, entry_name(sequence)) == body
    assert len(data) == HEADER.size + OVERHEAD + len(body) + TRAILER.size
    assert body not in data[HEADER.size : -TRAILER.size] or len(body) < 4


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5).filter(lambda plains: plains[-1]))
def test_frames_come_back_in_their_places(plains: list[bytes]) -> None:
    sealer, frames, trailer = pack(plains)
    opener = Opener(sealer.header, pack_name(), KEYS, "packs/x")
    last = len(frames) - 1
    for number, (plain, frame) in enumerate(zip(plains[:-1], frames[:-1], strict=True)):
        assert opener.open(number, Frame.SEGMENT, frame) == plain
        assert opener.open(number, Frame.SEGMENT, memoryview(frame)) == plain
    assert opener.open(last, Frame.DIRECTORY, frames[-1], trailer) == plains[-1]
    said = container.decode_trailer(trailer, "x")
    total = HEADER.size + sum(map(len, frames)) + TRAILER.size
    assert said == Trailer(total - 32 - len(frames[-1]), len(frames[-1]), last, total)


def test_the_layout_of_the_specification() -> None:
    assert HEADER.size == 148
    assert TRAILER.size == 32
    assert SEALED[:8] == bytes.fromhex("894757420D0A1A0A")
    assert SEALED[8:12] == bytes([0, 1, 1, 3])
    assert SEALED[12:28] == REPOSITORY
    assert SEALED[28:60] == b"orcl-prod" + bytes(23)
    assert SEALED[60:68] == struct.pack(">II", 7, 3)
    assert SEALED[68:84] == bytes(16)
    assert SEALED[84:116] == SALT
    assert SEALED[-8:] == bytes.fromhex("4757454E440D0A1A")


def test_every_flipped_bit_is_noticed() -> None:
    for at in range(len(SEALED)):
        for bit in range(8):
            bitten = SEALED[:at] + bytes([SEALED[at] ^ 1 << bit]) + SEALED[at + 1 :]
            with pytest.raises((Corrupt, NewerFormat)) as caught:
                opened(bitten)
            assert (8 <= at < 11) or caught.type is Corrupt, at


def test_every_truncation_and_extension_is_noticed() -> None:
    for at in range(len(SEALED)):
        refuses(lambda n=at: opened(SEALED[:n]))
        refuses(lambda n=at: opened(SEALED[n + 1 :]))
        for other in (SEALED[:at] + SEALED[at + 1 :], SEALED[:at] + b"\0" + SEALED[at:]):
            assert judged(lambda data=other: opened(data)) is None
    for more in (b"\0", SEALED[-32:], SEALED[148:], SEALED):
        refuses(lambda x=more: opened(SEALED + x))


NAMES: list[Name] = [
    replace(entry_name(), kind=Kind.HEADER),
    replace(entry_name(), kind=Kind.END),
    replace(entry_name(), kind=Kind.DATA),
    replace(entry_name(), repository=some("other", 16)),
    replace(entry_name(), chain=ChainName("orcl-prod", 8)),
    replace(entry_name(), chain=ChainName("orcl-pro", 7)),
    replace(entry_name(), chain=ChainName("orcl-prod2", 7)),
    replace(entry_name(), number=4),
    replace(entry_name(), number=0),
    replace(entry_name(), pack_id=some("pack", 16)),
]


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_another_objects_bytes_are_refused_by_name(name: Name) -> None:
    refuses(lambda: opened(SEALED, name), "another object")
    refuses(lambda: opened(container.seal_body(name, KEYS, SALT, BODY)), "another object")


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_a_header_rewritten_to_the_name_asked_for_does_not_open(name: Name) -> None:
    """The frame's aad holds the header, so an exchanged object cannot be relabelled."""
    relabelled = container.seal_body(name, KEYS, SALT, BODY)
    if name.kind in (Kind.HEADER, Kind.END, Kind.DATA):
        refuses(lambda: opened(SEALED[:84] + relabelled[84:]), "commitment")
    else:
        refuses(lambda: opened(SEALED[:84] + relabelled[84:]), "authenticate")


def test_headers_cannot_be_swapped_between_containers_of_one_name() -> None:
    other = container.seal_body(entry_name(), KEYS, some("salt 2", 32), BODY)
    refuses(lambda: opened(other[:148] + SEALED[148:]), "authenticate")
    refuses(lambda: opened(SEALED[:116] + other[116:148] + SEALED[148:]), "commitment")
    refuses(lambda: opened(SEALED[:84] + other[84:116] + SEALED[116:]), "commitment")


def test_the_name_is_compared_before_keys_are_tried() -> None:
    refuses(lambda: opened(SEALED, replace(entry_name(), number=4), OTHER_KEYS), "another object")
    refuses(lambda: opened(SEALED, entry_name(), OTHER_KEYS), "commitment")


def test_the_commitment_is_compared_before_a_frame_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "AESGCM", lambda key: pytest.fail("used the key"))
    refuses(lambda: opened(SEALED[:147] + bytes([SEALED[147] ^ 1]) + SEALED[148:]), "commitment")


@pytest.mark.parametrize(
    ("at", "value", "error"),
    [
        (8, b"\x00\x02", NewerFormat),
        (8, b"\xff\xff", NewerFormat),
        (8, b"\x00\x00", Corrupt),
        (10, b"\x02", NewerFormat),
        (10, b"\x00", NewerFormat),
        (11, b"\x06", Corrupt),
        (0, b"\x88", Corrupt),
    ],
)
def test_versions_and_magic(at: int, value: bytes, error: type[Exception]) -> None:
    changed = SEALED[:at] + value + SEALED[at + len(value) :]
    with pytest.raises(error):
        container.check_header(changed[:148], entry_name(), "log/x")
    # The rest was sealed as format 1, so it was changed; what does not open as ours, may be newer.
    with pytest.raises(Corrupt):
        opened(changed)
    with pytest.raises(error):
        opened(changed[:-40] + bytes([changed[-40] ^ 1]) + changed[-39:])


def test_frames_cannot_change_places_types_or_ends() -> None:
    sealer, frames, trailer = pack([b"one", b"two", b"dir"])
    opener = Opener(sealer.header, pack_name(), KEYS, "packs/x")
    wrong: list[Callable[[], bytes]] = [
        lambda: opener.open(0, Frame.SEGMENT, frames[1]),
        lambda: opener.open(1, Frame.SEGMENT, frames[0]),
        lambda: opener.open(0, Frame.DIRECTORY, frames[0]),
        lambda: opener.open(0, Frame.BODY, frames[0]),
        lambda: opener.open(0, Frame.SEGMENT, frames[0], trailer),
        lambda: opener.open(2, Frame.DIRECTORY, frames[2]),
        lambda: opener.open(2, Frame.SEGMENT, frames[2], trailer),
        lambda: opener.open(1, Frame.DIRECTORY, frames[2], trailer),
        lambda: opener.open(2, Frame.DIRECTORY, frames[2], trailer[:-9] + b"\x01" + trailer[-8:]),
        lambda: opener.open(2, Frame.DIRECTORY, frames[2], bytes(32)),
        lambda: opener.open(0, Frame.SEGMENT, frames[0] + b"\0"),
        lambda: opener.open(0, Frame.SEGMENT, frames[0][:-1]),
        lambda: opener.open(0, Frame.SEGMENT, frames[1][:8] + frames[0][8:]),
    ]
    for attempt in wrong:
        refuses(attempt, "authenticate")
    for short in range(OVERHEAD):
        refuses(lambda n=short: opener.open(0, Frame.SEGMENT, frames[0][:n]), "frame 0")


def test_a_frame_of_a_container_with_another_name_or_salt_does_not_open() -> None:
    sealer, _, _ = pack([b"one", b"dir"])
    opener = Opener(sealer.header, pack_name(), KEYS, "packs/x")
    for name, salt in (
        (pack_name(6), SALT),
        (pack_name(kind=Kind.LIST), SALT),
        (replace(pack_name(), pack_id=some("p", 16)), SALT),
        (replace(pack_name(), chain=ChainName("x", 7)), SALT),
        (pack_name(), some("salt 2", 32)),
    ):
        _, foreign, _ = pack([b"one", b"dir"], name=name, salt=salt)
        refuses(lambda f=foreign: opener.open(0, Frame.SEGMENT, f[0]), "authenticate")


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 3), st.integers(0, 3))
def test_the_nonce_depends_on_aad_and_plain_text(one: bytes, two: bytes, first: int, second: int) -> None:
    """A machine set back to an older state draws the same salt again: (key, nonce) is still never used twice."""
    sealer = Sealer(pack_name(), KEYS, SALT)
    sealed = [(sealer.seal(n, Frame.SEGMENT, p), n) for n, p in ((first, one), (second, two))]
    nonces = {n.to_bytes(4, "big") + bytes(frame[:8]) for frame, n in sealed}
    assert (len(nonces) == 1) == ((one, first) == (two, second))


def test_one_salt_in_many_containers_never_repeats_key_and_nonce() -> None:
    used: dict[tuple[bytes, bytes], tuple[Any, ...]] = {}
    names = [replace(entry_name(), kind=kind, number=number) for kind in Kind for number in (0, 1)]
    names += [replace(name, chain=CHAIN, repository=REPOSITORY, pack_id=some("pack", 16)) for name in names]
    for name in names:
        sealer = Sealer(name, KEYS, SALT)
        key = hkdf(container.purpose_key(name.kind, KEYS), SALT, b"gateway/v1/container", 64)[:32]
        for number in range(2):
            for frame in Frame:
                for extra in (b"", bytes(32), b"\1" * 32):
                    for plain in (b"", b"\0", b"one", b"two"):
                        sealed = sealer.seal(number, frame, plain, extra)
                        nonce = number.to_bytes(4, "big") + bytes(sealed[:8])
                        what = (name, number, frame, extra, plain)
                        assert used.setdefault((key, nonce), what) == what
    assert len(used) == 20 * 2 * 3 * 3 * 4


def test_sealing_the_same_twice_gives_the_same_bytes() -> None:
    assert container.seal_body(entry_name(), KEYS, SALT, BODY) == SEALED


TRAILERS = [
    (148, 30, 0, 210),
    (148, OVERHEAD + 1, limits.PACK_FRAMES - 1, 148 + OVERHEAD + 1 + 32),
    (limits.PACK_BYTES - 32 - 100, 100, 9, limits.PACK_BYTES),
]
BAD_TRAILERS = [
    (147, 30, 0, 209),
    (148, 30, 0, 209),
    (148, 30, 0, 211),
    (148, OVERHEAD, 0, 148 + OVERHEAD + 32),
    (148, 0, 0, 180),
    (148, 30, limits.PACK_FRAMES, 210),
    (limits.PACK_BYTES - 32 - 99, 100, 9, limits.PACK_BYTES + 1),
    (2**64 - 62, 30, 0, 0),
    (0, 2**32 - 1, 2**32 - 1, 2**64 - 1),
]


@pytest.mark.parametrize("fields", TRAILERS)
def test_trailers_that_agree_with_themselves(fields: tuple[int, int, int, int]) -> None:
    assert container.decode_trailer(Trailer(*fields).encode(), "x") == Trailer(*fields)


@pytest.mark.parametrize("fields", BAD_TRAILERS)
def test_trailers_that_contradict_themselves(fields: tuple[int, int, int, int]) -> None:
    refuses(lambda: container.decode_trailer(Trailer(*fields).encode(), "x"), "contradicts")


def test_a_trailer_that_lies_about_the_object_is_refused() -> None:
    frame = len(SEALED) - 180
    for fields in (
        (149, frame - 1, 0, len(SEALED)),
        (148, frame, 1, len(SEALED)),
        (148, frame + 1, 0, len(SEALED) + 1),
    ):
        refuses(lambda f=fields: opened(SEALED[:-32] + Trailer(*f).encode()), "contradicts")


def test_an_authentic_frame_behind_a_gap_is_refused() -> None:
    sealer = Sealer(entry_name(), KEYS, SALT)
    last, trailer = sealer.finish(150, 0, Frame.BODY, BODY)
    refuses(lambda: opened(sealer.header + b"\0\0" + bytes(last) + trailer), "contradicts")
    last, trailer = sealer.finish(148, 1, Frame.BODY, BODY)
    refuses(lambda: opened(sealer.header + bytes(last) + trailer), "contradicts")
    last, trailer = sealer.finish(148, 0, Frame.DIRECTORY, BODY)
    refuses(lambda: opened(sealer.header + bytes(last) + trailer), "authenticate")


@pytest.mark.parametrize(
    "change",
    [
        {"repository": bytes(15)},
        {"repository": bytes(17)},
        {"pack_id": b""},
        {"chain": ChainName("a" * 33, 1)},
        {"chain": ChainName("", 1)},
        {"chain": ChainName("A", 1)},
        {"chain": ChainName("a\n", 1)},
        {"chain": ChainName("\u00fc", 1)},
        {"chain": ChainName("a", 2**32)},
        {"chain": ChainName("a", -1)},
        {"number": 2**32},
        {"number": -1},
    ],
)
def test_a_name_the_header_has_no_room_for_is_the_callers_error(change: dict[str, Any]) -> None:
    """Cut or padded it could be the name of another container."""
    with pytest.raises(ValueError, match="not the name"):
        replace(entry_name(), **change)


def test_a_salt_has_32_bytes() -> None:
    for length in (0, 16, 31, 33):
        with pytest.raises(ValueError, match="salt"):
            Sealer(entry_name(), KEYS, bytes(length))


@given(st.binary(max_size=250))
def test_arbitrary_bytes_never_raise_anything_else(data: bytes) -> None:
    judged(lambda: opened(data))
    judged(lambda: container.decode_trailer(data, "x"))
    judged(lambda: opened(SEALED[:148] + data))
    judged(lambda: opened(SEALED[:148] + data + SEALED[-32:]))
    assert judged(lambda: opened(data + SEALED[len(data) :])) in (None, BODY)


def test_an_error_names_the_object_and_the_frame() -> None:
    with pytest.raises(Corrupt) as caught:
        opened(SEALED[:160] + b"\0" + SEALED[161:])
    assert caught.value.address == "log/x frame 0"
    with pytest.raises(Corrupt) as caught:
        opened(b"")
    assert caught.value.address == "log/x"
