"""Keys and what is sealed with them outside containers: slots and wraps (docs/format/README.md sections 3 and 5).

SECURITY: a secret lives in `MasterKey` and `ChainKeys`; both have a repr without content. Python cannot wipe bytes;
what limits exposure is that only the engine's process holds them.
"""

from __future__ import annotations

import hmac
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache

from argon2.exceptions import HashingError
from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.errors import Corrupt, LocalStateError, UsageError

PURPOSES = ("head", "log", "meta", "data", "nonce", "id", "list-id", "chunker")


def derive(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA-256, extract and expand (RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(secret)


@dataclass(frozen=True, slots=True)
class MasterKey:
    """The repository's master key and what is derived from it."""

    secret: bytes = field(repr=False)
    repository: bytes

    def mac(self, canonical: bytes) -> str:
        key = derive(self.secret, self.repository, b"gateway/v1/master/mac", 32)
        return hmac.digest(key, canonical, "sha256").hex()

    def wrap_secret(self) -> bytes:
        return derive(self.secret, self.repository, b"gateway/v1/master/wrap", 32)


@dataclass(frozen=True, slots=True)
class ChainKeys:
    """The purpose keys of a chain, each 32 bytes."""

    secret: bytes = field(repr=False)
    repository: bytes
    head: bytes = field(repr=False)
    log: bytes = field(repr=False)
    meta: bytes = field(repr=False)
    data: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    chunk_id: bytes = field(repr=False)
    list_id: bytes = field(repr=False)
    chunker: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: bytes, repository: bytes) -> ChainKeys:
        made = [derive(secret, repository, b"gateway/v1/chain/" + name.encode(), 32) for name in PURPOSES]
        return cls(secret, repository, *made)


def chunk_id(key: bytes, data: bytes | memoryview) -> bytes:
    """The 16-byte id of a chunk; `key` is `ChainKeys.chunk_id` or `.list_id`."""
    return blake3(data, key=key).digest(16)


@dataclass(frozen=True, slots=True)
class Argon2Cost:
    """Cost of a passphrase slot. The default is `init`'s: 256 MiB, about 0.7 s of one core."""

    memory_kib: int = 262144
    iterations: int = 3
    lanes: int = 4

    def __post_init__(self) -> None:
        if not (
            8 <= self.memory_kib <= 4 * 1024 * 1024
            and 1 <= self.iterations <= 64
            and 1 <= self.lanes <= 64
            and self.memory_kib >= 8 * self.lanes
        ):
            raise Corrupt("Argon2id cost out of bounds", meaning="The key slot was changed, or is not one.")


@lru_cache(maxsize=8)
def stretch(passphrase: str, salt: bytes, cost: Argon2Cost) -> bytes:
    """The 32-byte secret of a passphrase slot. Remembered, since it is slow by design."""
    try:
        text = unicodedata.normalize("NFC", passphrase).encode("utf-8")
    except UnicodeEncodeError:
        # SECURITY: the error holds the passphrase, so it goes no further.
        raise UsageError("The passphrase is not text in UTF-8.") from None
    # A thread for each lane, so it lasts half as long on two cores (ADR 0005).
    try:
        return hash_secret_raw(text, salt, cost.iterations, cost.memory_kib, cost.lanes, 32, Type.ID)
    except HashingError as error:
        raise LocalStateError(
            f"The key of the passphrase cannot be derived: {error}.",
            meaning=f"It takes {cost.memory_kib >> 10} MiB of memory, so that guessing passphrases is dear.",
            advice="Give this machine or this process more memory, and run the command again.",
        ) from error


@dataclass(frozen=True, slots=True)
class Sealed:
    """A 32-byte key sealed for a secret: what a slot or a wrap holds besides its facts."""

    salt: bytes
    commitment: bytes
    nonce: bytes
    sealed: bytes


def _keys_of(secret: bytes, salt: bytes, info: bytes) -> tuple[bytes, bytes, bytes]:
    made = derive(secret, salt, info, 96)
    return made[:32], made[32:64], made[64:]


def seal_key(secret: bytes, salt: bytes, info: bytes, aad: bytes, key: bytes) -> Sealed:
    """Seal `key` for `secret`. The nonce depends on what is sealed, so a repeated salt never repeats a nonce."""
    seal, commitment, nonce_key = _keys_of(secret, salt, info)
    nonce = blake3(aad + key, key=nonce_key).digest(12)
    return Sealed(salt, commitment, nonce, AESGCM(seal).encrypt(nonce, key, aad))


def open_key(secret: bytes, sealed: Sealed, info: bytes, aad: bytes) -> bytes | None:
    """The sealed key; None when `secret` is not the one it was sealed for. `Corrupt` when it was changed."""
    key, commitment, _ = _keys_of(secret, sealed.salt, info)
    if not hmac.compare_digest(commitment, sealed.commitment):
        return None
    try:
        return AESGCM(key).decrypt(sealed.nonce, sealed.sealed, aad)
    except InvalidTag as error:
        raise Corrupt("sealed key does not authenticate") from error
