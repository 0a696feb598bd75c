"""Containers: header, frames, trailer (docs/format/README.md section 4).

Pure: bytes in, bytes out. `Sealer` makes the frames of one container, `Opener` opens them; both hold one container's
key, which `container_key` derives from the chain's purpose key and the salt in the header.
"""

from __future__ import annotations

import contextlib
import hmac
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import Corrupt, NewerFormat
from gateway.format import limits
from gateway.format.keys import ChainKeys, derive
from gateway.model.ids import NAME, ChainName

MAGIC = bytes.fromhex("89475742 0D0A1A0A")
END_MAGIC = bytes.fromhex("4757454E 440D0A1A")
HEADER = struct.Struct(">8sHBB16s32sII16s32s32s")
TRAILER = struct.Struct(">QIIQ8s")
NONCE_TAIL = 8
TAG = 16
OVERHEAD = NONCE_TAIL + TAG
SALT = 32
ID = 16
NO_PACK = bytes(ID)


class Kind(IntEnum):
    DATA = 1
    LIST = 2
    ENTRY = 3
    HEADER = 4
    END = 5


class Frame(IntEnum):
    SEGMENT = 1
    DIRECTORY = 2
    BODY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """What a container says it is; compared with what was asked for before anything else.

    ValueError for one that the header has no room for: `struct` would cut or pad it without a word.
    """

    kind: Kind
    repository: bytes
    chain: ChainName
    number: int = 0
    pack_id: bytes = NO_PACK

    def __post_init__(self) -> None:
        if not (
            len(self.repository) == len(self.pack_id) == ID
            and NAME.fullmatch(self.chain.group)
            and 0 <= self.chain.number < 2**32
            and 0 <= self.number < 2**32
        ):
            raise ValueError(f"not the name of a container: {self}")


def purpose_key(kind: Kind, keys: ChainKeys) -> bytes:
    match kind:
        case Kind.DATA:
            return keys.data
        case Kind.LIST:
            return keys.meta
        case Kind.ENTRY:
            return keys.log
        case _:
            return keys.head


@dataclass(frozen=True, slots=True)
class Trailer:
    """`offset`, `length`, `number`: of the last frame; `total`: bytes of the whole container."""

    offset: int
    length: int
    number: int
    total: int

    def encode(self) -> bytes:
        return TRAILER.pack(self.offset, self.length, self.number, self.total, END_MAGIC)


def decode_trailer(data: bytes, address: str) -> Trailer:
    if len(data) != TRAILER.size:
        raise Corrupt("too short for a trailer", address=address)
    offset, length, number, total, magic = TRAILER.unpack(data)
    if magic != END_MAGIC:
        raise Corrupt("has no trailer", address=address, meaning="It was cut off or changed.")
    if (
        offset < HEADER.size
        or length <= OVERHEAD
        or offset + length + TRAILER.size != total
        or number >= limits.PACK_FRAMES
        or total > limits.PACK_BYTES
    ):
        raise Corrupt("trailer contradicts itself", address=address)
    return Trailer(offset, length, number, total)


def _aad(header: bytes, number: int, frame: Frame, extra: bytes) -> bytes:
    return header + struct.pack(">IBB", number, frame, 1 if extra else 0) + extra


class Sealer:
    """Seals the frames of one new container. `seal` is thread-safe; the caller gives out frame numbers."""

    __slots__ = ("_aead", "_nonce_key", "header")

    def __init__(self, name: Name, keys: ChainKeys, salt: bytes) -> None:
        if len(salt) != SALT:
            raise ValueError("a salt has 32 bytes")
        made = derive(purpose_key(name.kind, keys), salt, b"gateway/v1/container", 64)
        self.header = HEADER.pack(
            MAGIC,
            limits.FORMAT,
            limits.SUITE,
            name.kind,
            name.repository,
            name.chain.group.encode("ascii").ljust(32, b"\0"),
            name.chain.number,
            name.number,
            name.pack_id,
            salt,
            made[32:],
        )
        self._aead = AESGCM(made[:32])
        self._nonce_key = keys.nonce

    def seal(self, number: int, frame: Frame, plain: bytes | bytearray | memoryview, extra: bytes = b"") -> bytes:
        """One frame: nonce tail, ciphertext, tag. `extra` is the trailer for the last frame, else empty."""
        out = bytearray(len(plain) + OVERHEAD)
        self.seal_into(memoryview(out), number, frame, plain, extra)
        return out  # type: ignore[return-value]  # a bytearray of our own, never changed again

    def seal_into(
        self, room: memoryview, number: int, frame: Frame, plain: bytes | bytearray | memoryview, extra: bytes = b""
    ) -> memoryview:
        """`seal` into the front of a buffer that is used again and again: fresh memory is dear."""
        aad = _aad(self.header, number, frame, extra)
        tail = blake3(aad, key=self._nonce_key).update(plain).digest(NONCE_TAIL)
        out = room[: len(plain) + OVERHEAD]
        out[:NONCE_TAIL] = tail
        self._aead.encrypt_into(number.to_bytes(4) + tail, plain, aad, out[NONCE_TAIL:])
        return out

    def finish(self, offset: int, number: int, frame: Frame, plain: bytes) -> tuple[bytes, bytes]:
        """The last frame, which starts at `offset`, and the trailer behind it."""
        length = len(plain) + OVERHEAD
        trailer = Trailer(offset, length, number, offset + length + TRAILER.size).encode()
        return self.seal(number, frame, plain, trailer), trailer


class Opener:
    """Opens the frames of a container whose 148 bytes of header are `header`. Thread-safe."""

    __slots__ = ("_aead", "address", "header")

    def __init__(self, header: bytes, name: Name, keys: ChainKeys, address: str) -> None:
        """`Corrupt` when the header is not the one of `name`; `NewerFormat`."""
        check_header(header, name, address)
        salt, commitment = header[84:116], header[116:148]
        made = derive(purpose_key(name.kind, keys), salt, b"gateway/v1/container", 64)
        if not hmac.compare_digest(made[32:], commitment):
            raise Corrupt("key commitment is wrong", address=address, meaning="Its header was changed.")
        self.header = bytes(header)
        self.address = address
        self._aead = AESGCM(made[:32])

    def open(self, number: int, frame: Frame, sealed: bytes | memoryview, extra: bytes = b"") -> bytes:
        """The plain text of a frame; `Corrupt` names the frame when it does not authenticate."""
        view = self._checked(number, sealed, extra)
        with self._authenticated(number):
            return self._aead.decrypt(_nonce(number, view), view[NONCE_TAIL:], _aad(self.header, number, frame, extra))

    def open_into(self, room: memoryview, number: int, frame: Frame, sealed: bytes | memoryview) -> memoryview:
        """`open` into the front of a buffer that is used again and again; not for the last frame."""
        view = self._checked(number, sealed, b"")
        out = room[: len(view) - OVERHEAD]
        with self._authenticated(number):
            self._aead.decrypt_into(_nonce(number, view), view[NONCE_TAIL:], _aad(self.header, number, frame, b""), out)
        return out

    def _checked(self, number: int, sealed: bytes | memoryview, extra: bytes) -> memoryview:
        view = memoryview(sealed)
        if len(view) < OVERHEAD:
            raise Corrupt("frame is too short", address=f"{self.address} frame {number}")
        if len(view) > limits.FRAME_BYTES and not extra:
            raise Corrupt("frame is too large", address=f"{self.address} frame {number}")
        return view

    @contextlib.contextmanager
    def _authenticated(self, number: int) -> Iterator[None]:
        try:
            yield
        except InvalidTag as error:
            raise Corrupt(
                "does not authenticate",
                address=f"{self.address} frame {number}",
                meaning="Its bytes were changed or rotted.",
            ) from error


def _nonce(number: int, sealed: memoryview) -> bytes:
    return number.to_bytes(4) + bytes(sealed[:NONCE_TAIL])


def check_header(header: bytes, name: Name, address: str) -> None:
    """Compare a header with the name asked for."""
    if len(header) != HEADER.size:
        raise Corrupt("too short for a header", address=address)
    magic, version, suite, kind, repository, group, chain, number, pack_id, _, _ = HEADER.unpack(header)
    if magic != MAGIC:
        raise Corrupt("is not an object of a repository", address=address)
    if version > limits.FORMAT or suite != limits.SUITE:
        raise NewerFormat(
            f"{address} has format {version}, suite {suite}.",
            meaning="A newer version of the gateway wrote it, or it was changed.",
            advice="Upgrade the gateway and run the command again.",
        )
    said = (version, kind, repository, group, chain, number, pack_id)
    asked = (
        limits.FORMAT,
        name.kind,
        name.repository,
        name.chain.group.encode("ascii").ljust(32, b"\0"),
        name.chain.number,
        name.number,
        name.pack_id,
    )
    if said != asked:
        raise Corrupt(
            "is another object than its name says",
            address=address,
            meaning="Objects of the repository were exchanged, or the header was changed.",
        )


def seal_body(name: Name, keys: ChainKeys, salt: bytes, plain: bytes) -> bytes:
    """A whole container with one body frame: a log entry, a chain header, an end."""
    sealer = Sealer(name, keys, salt)
    body, trailer = sealer.finish(HEADER.size, 0, Frame.BODY, plain)
    return sealer.header + body + trailer


def open_body(data: bytes, name: Name, keys: ChainKeys, address: str) -> bytes:
    """The body of such a container. `NewerFormat`, unless its number was changed: then it opens as ours."""
    if len(data) > limits.ENTRY_BYTES:
        raise Corrupt("is too large", address=address)
    try:
        return _open_body(data, name, keys, address)
    except NewerFormat:
        ours = data[: len(MAGIC)] + struct.pack(">HB", limits.FORMAT, limits.SUITE) + data[len(MAGIC) + 3 :]
        try:
            _open_body(ours, name, keys, address)
        except Corrupt:
            pass
        else:
            raise Corrupt("format number was changed", address=address) from None
        raise


def _open_body(data: bytes, name: Name, keys: ChainKeys, address: str) -> bytes:
    opener = Opener(data[: HEADER.size], name, keys, address)
    trailer = decode_trailer(data[-TRAILER.size :], address)
    if trailer.offset != HEADER.size or trailer.number != 0 or trailer.total != len(data):
        raise Corrupt("trailer contradicts the object", address=address)
    return opener.open(0, Frame.BODY, data[HEADER.size : -TRAILER.size], data[-TRAILER.size :])
