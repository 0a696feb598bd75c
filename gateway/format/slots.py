"""The JSON objects of a repository: itself, key slots, wraps (docs/format/README.md section 5)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway import clock
from gateway.errors import Corrupt
from gateway.format import canonical, keys
from gateway.format.keys import Argon2Cost, ChainKeys, MasterKey, Sealed
from gateway.model.ids import NAME, ChainName

PASSPHRASE = "passphrase"
SHEET = "sheet"
MASTER = "master"
NOTHING = Sealed(b"", b"", b"", b"")
_TIME = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_SECRETS = ("commitment", "nonce", "sealed", canonical.MAC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A parsed slot, not yet opened. `value` is the whole object, for its MAC and its AAD."""

    slot_id: bytes
    kind: str
    cost: Argon2Cost | None
    repository: bytes
    sealed: Sealed
    value: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrap:
    wrap_id: bytes
    kind: str
    header_digest: bytes
    sealed: Sealed
    value: dict[str, Any]


def encode_repository(master: MasterKey, created: datetime) -> bytes:
    return canonical.with_mac(
        {
            "created": clock.text(created),
            "format": 1,
            "kind": "gateway-repository",
            "needs_features": [],
            "repository": master.repository.hex(),
        },
        master,
    )


def decode_repository(data: bytes, address: str) -> tuple[bytes, dict[str, Any]]:
    """The repository's id, and the object for `canonical.check_mac`."""
    value = canonical.decode(data, address)
    if value.get("kind") != "gateway-repository":
        raise Corrupt("is not a repository", address=address)
    _created(value, address)
    return canonical.hex_field(value, "repository", 16, address), value


def _aad(value: dict[str, Any]) -> bytes:
    return canonical.encode({name: each for name, each in value.items() if name not in _SECRETS})


def _with(value: dict[str, Any], sealed: Sealed, master: MasterKey) -> bytes:
    return canonical.with_mac(
        {
            **value,
            "commitment": sealed.commitment.hex(),
            "nonce": sealed.nonce.hex(),
            "sealed": sealed.sealed.hex(),
        },
        master,
    )


def _sealed(value: dict[str, Any], address: str) -> Sealed:
    return Sealed(
        *(
            canonical.hex_field(value, name, length, address)
            for name, length in (("salt", 32), ("commitment", 32), ("nonce", 12), ("sealed", 48))
        )
    )


def _slot(
    master: MasterKey,
    slot_id: bytes,
    salt: bytes,
    created: datetime,
    kind: str,
    kdf: dict[str, Any],
    secret: bytes,
) -> bytes:
    value = {
        "created": clock.text(created),
        "format": 1,
        "id": slot_id.hex(),
        "kdf": kdf,
        "kind": kind,
        "needs_features": [],
        "repository": master.repository.hex(),
        "salt": salt.hex(),
    }
    sealed = keys.seal_key(secret, salt, _slot_info(master.repository, slot_id), _aad(value), master.secret)
    return _with(value, sealed, master)


def passphrase_slot(
    master: MasterKey, slot_id: bytes, salt: bytes, created: datetime, passphrase: str, cost: Argon2Cost
) -> bytes:
    """A slot that a passphrase opens. Takes as long as `cost` says."""
    kdf = {
        "iterations": cost.iterations,
        "lanes": cost.lanes,
        "memory_kib": cost.memory_kib,
        "name": "argon2id",
    }
    return _slot(master, slot_id, salt, created, PASSPHRASE, kdf, keys.stretch(passphrase, salt, cost))


def sheet_slot(master: MasterKey, slot_id: bytes, salt: bytes, created: datetime, secret: bytes) -> bytes:
    """A slot that the 32 secret bytes of a recovery sheet open."""
    return _slot(master, slot_id, salt, created, SHEET, {"name": "none"}, secret)


def decode_slot(data: bytes, slot_id: bytes, address: str) -> Slot:
    """Parse a slot. One of a kind this version does not know holds nothing, and no secret opens it."""
    value = canonical.decode(data, address)
    kind = canonical.text_field(value, "kind", address)
    if canonical.hex_field(value, "id", 16, address) != slot_id:
        raise Corrupt("is another slot than its name says", address=address)
    _created(value, address)
    cost = _cost(value, address) if kind == PASSPHRASE else None
    if kind == SHEET and _kdf(value, address) != "none":
        raise Corrupt("has an unknown kdf", address=address)
    return Slot(
        slot_id=slot_id,
        kind=kind,
        cost=cost,
        sealed=_sealed(value, address) if kind in (PASSPHRASE, SHEET) else NOTHING,
        value=value,
        repository=canonical.hex_field(value, "repository", 16, address),
    )


def _kdf(value: dict[str, Any], address: str) -> str:
    kdf = value.get("kdf")
    if not isinstance(kdf, dict):
        raise Corrupt("has a malformed kdf", address=address)
    return canonical.text_field(kdf, "name", address)


def _cost(value: dict[str, Any], address: str) -> Argon2Cost:
    if _kdf(value, address) != "argon2id":
        raise Corrupt("has an unknown kdf", address=address)
    kdf = value["kdf"]
    memory, iterations, lanes = (kdf.get(name) for name in ("memory_kib", "iterations", "lanes"))
    if not (type(memory) is int and type(iterations) is int and type(lanes) is int):
        raise Corrupt("has a malformed kdf", address=address)
    try:
        return Argon2Cost(memory, iterations, lanes)
    except Corrupt as error:
        raise Corrupt(error.what, address=address, meaning=error.meaning) from error


def _created(value: dict[str, Any], address: str) -> None:
    if not _TIME.fullmatch(canonical.text_field(value, "created", address)):
        raise Corrupt("field created is wrong", address=address)


def _slot_info(repository: bytes, slot_id: bytes) -> bytes:
    return b"gateway/v1/slot" + repository + slot_id


def open_slot(slot: Slot, *, passphrase: str | None = None, secret: bytes | None = None) -> MasterKey | None:
    """The master key; None when the slot is of the other kind or the secret is not its own."""
    if slot.kind == PASSPHRASE and passphrase is not None and slot.cost is not None:
        given = keys.stretch(passphrase, slot.sealed.salt, slot.cost)
    elif slot.kind == SHEET and secret is not None:
        given = secret
    else:
        return None
    key = keys.open_key(given, slot.sealed, _slot_info(slot.repository, slot.slot_id), _aad(slot.value))
    return MasterKey(key, slot.repository) if key is not None else None


def encode_wrap(
    master: MasterKey,
    chain: ChainName,
    chain_key: bytes,
    header_digest: bytes,
    wrap_id: bytes,
    salt: bytes,
    created: datetime,
) -> bytes:
    value = {
        "chain": chain.number,
        "created": clock.text(created),
        "format": 1,
        "group": chain.group,
        "header": header_digest.hex(),
        "id": wrap_id.hex(),
        "kind": MASTER,
        "needs_features": [],
        "repository": master.repository.hex(),
        "salt": salt.hex(),
    }
    info = b"gateway/v1/wrap" + master.repository + wrap_id
    return _with(value, keys.seal_key(master.wrap_secret(), salt, info, _aad(value), chain_key), master)


def decode_wrap(data: bytes, chain: ChainName, wrap_id: bytes, address: str) -> Wrap:
    """Parse a wrap. One of a kind this version does not know (not `MASTER`) holds nothing; readers skip it."""
    value = canonical.decode(data, address)
    said = (value.get("group"), value.get("chain"), value.get("id"))
    asked = (chain.group, chain.number, wrap_id.hex())
    if said != asked or type(said[1]) is not int or not NAME.fullmatch(chain.group):
        raise Corrupt("is another wrap than its name says", address=address)
    _created(value, address)
    kind = canonical.text_field(value, "kind", address)
    return Wrap(
        wrap_id=wrap_id,
        kind=kind,
        sealed=_sealed(value, address) if kind == MASTER else NOTHING,
        header_digest=canonical.hex_field(value, "header", 32, address),
        value=value,
    )


def open_wrap(wrap: Wrap, master: MasterKey, header_digest: bytes, address: str) -> ChainKeys:
    """The chain's keys, from a wrap of kind `MASTER`. `Corrupt` when the wrap was changed, or belongs to another header
    or repository.
    """
    canonical.check_mac(wrap.value, master, address)
    if wrap.header_digest != header_digest:
        raise Corrupt(
            "wraps the key of another header",
            address=address,
            meaning="The chain's header or the wrap was exchanged or changed.",
        )
    info = b"gateway/v1/wrap" + master.repository + wrap.wrap_id
    key = keys.open_key(master.wrap_secret(), wrap.sealed, info, _aad(wrap.value))
    if key is None or len(key) != 32:
        raise Corrupt("key commitment is wrong", address=address)
    return ChainKeys.of(key, master.repository)
