"""Known answers: every key, id and sealed byte, computed here from the specification with other code.

Nothing of `gateway.format` is used to make the expected values; HKDF is made of HMAC, the rest of `blake3` and
`AESGCM` as the specification spells it (docs/format/README.md sections 3 to 5).
"""

from __future__ import annotations

import hmac
import json
import struct
from hashlib import sha256

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from gateway.format import container, sheet, slots
from gateway.format.container import Frame, Kind, Sealer
from gateway.format.keys import ChainKeys, chunk_id
from tests.unit.format_values import (
    CHAIN,
    CHEAP,
    CREATED,
    KEYS,
    MASTER,
    REPOSITORY,
    SALT,
    entry_name,
    hkdf,
    pack_name,
    some,
)

MK = some("master", 32)
CK = some("chain", 32)


def canonical(value: dict[str, object]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def maced(value: dict[str, object]) -> bytes:
    key = hkdf(MK, REPOSITORY, b"gateway/v1/master/mac", 32)
    return canonical({**value, "~mac": hmac.new(key, canonical(value), sha256).hexdigest()}) + b"\n"


def sealed(secret: bytes, info: bytes, facts: dict[str, object], key: bytes) -> dict[str, object]:
    made = hkdf(secret, bytes.fromhex(str(facts["salt"])), info, 96)
    aad = canonical(facts)
    nonce = blake3(aad + key, key=made[64:]).digest()[:12]
    return {
        **facts,
        "commitment": made[32:64].hex(),
        "nonce": nonce.hex(),
        "sealed": AESGCM(made[:32]).encrypt(nonce, key, aad).hex(),
    }


def test_hkdf_of_the_test_is_the_one_of_the_rfc() -> None:
    # RFC 5869, A.1
    okm = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    salt, info = bytes(range(13)), bytes(range(0xF0, 0xFA))
    assert hkdf(b"\x0b" * 22, salt, info, 42).hex() == okm


def test_master_keys() -> None:
    mac_key = hkdf(MK, REPOSITORY, b"gateway/v1/master/mac", 32)
    assert MASTER.mac(b"text") == hmac.new(mac_key, b"text", sha256).hexdigest()
    assert MASTER.wrap_secret() == hkdf(MK, REPOSITORY, b"gateway/v1/master/wrap", 32)


def test_chain_keys() -> None:
    keys = ChainKeys.of(CK, REPOSITORY)
    for name, key in (
        ("head", keys.head),
        ("log", keys.log),
        ("meta", keys.meta),
        ("data", keys.data),
        ("nonce", keys.nonce),
        ("id", keys.chunk_id),
        ("list-id", keys.list_id),
        ("chunker", keys.chunker),
    ):
        assert key == hkdf(CK, REPOSITORY, b"gateway/v1/chain/" + name.encode(), 32), name


def test_keys_of_two_purposes_chains_or_repositories_have_nothing_in_common() -> None:
    def all_of(keys: ChainKeys) -> list[bytes]:
        return [keys.head, keys.log, keys.meta, keys.data, keys.nonce, keys.chunk_id, keys.list_id, keys.chunker]

    other_chain, other_repository = ChainKeys.of(MK, REPOSITORY), ChainKeys.of(CK, SALT[:16])
    found = all_of(KEYS) + all_of(other_chain) + all_of(other_repository)
    found += [MASTER.wrap_secret(), bytes.fromhex(MASTER.mac(b""))]
    assert len(set(found)) == len(found)


def test_keys_do_not_show_in_a_repr() -> None:
    for secret in (MK, CK, KEYS.nonce, KEYS.data):
        for shown in (repr(MASTER), repr(KEYS)):
            assert repr(secret)[2:-1] not in shown
            assert secret.hex() not in shown


def test_chunk_id() -> None:
    assert chunk_id(KEYS.chunk_id, b"chunk") == blake3(b"chunk", key=KEYS.chunk_id).digest()[:16]
    assert chunk_id(KEYS.list_id, memoryview(b"chunk")) != chunk_id(KEYS.chunk_id, b"chunk")
    assert len(chunk_id(KEYS.chunk_id, b"")) == 16


def expected_header(kind: int, number: int, pack_id: bytes, purpose: bytes) -> tuple[bytes, bytes]:
    """Header and key of a container."""
    made = hkdf(purpose, SALT, b"gateway/v1/container", 64)
    head = bytes.fromhex("894757420d0a1a0a") + struct.pack(">HBB", 1, 1, kind) + REPOSITORY
    head += b"orcl-prod" + bytes(23) + struct.pack(">II", 7, number) + pack_id + SALT + made[32:]
    return head, made[:32]


def test_a_container_of_one_body() -> None:
    plain = b"what is to be kept"
    head, key = expected_header(3, 3, bytes(16), KEYS.log)
    length = 8 + len(plain) + 16
    trailer = struct.pack(">QIIQ", 148, length, 0, 148 + length + 32) + bytes.fromhex("4757454e440d0a1a")
    aad = head + bytes(4) + bytes([3, 1]) + trailer
    tail = blake3(aad + plain, key=KEYS.nonce).digest()[:8]
    frame = tail + AESGCM(key).encrypt(bytes(4) + tail, plain, aad)
    assert len(head) == 148
    assert container.seal_body(entry_name(), KEYS, SALT, plain) == head + frame + trailer


def test_a_frame_of_a_pack() -> None:
    for kind, purpose in ((Kind.DATA, KEYS.data), (Kind.LIST, KEYS.meta)):
        head, key = expected_header(int(kind), 5, some("pack", 16), purpose)
        sealer = Sealer(pack_name(kind=kind), KEYS, SALT)
        assert sealer.header == head
        aad = head + (9).to_bytes(4, "big") + bytes([1, 0])
        tail = blake3(aad + b"segment", key=KEYS.nonce).digest()[:8]
        made = tail + AESGCM(key).encrypt((9).to_bytes(4, "big") + tail, b"segment", aad)
        assert sealer.seal(9, Frame.SEGMENT, b"segment") == made


def test_header_and_end_are_sealed_with_the_head_key() -> None:
    for kind in (Kind.HEADER, Kind.END):
        name = container.Name(kind=kind, repository=REPOSITORY, chain=CHAIN)
        assert Sealer(name, KEYS, SALT).header == expected_header(int(kind), 0, bytes(16), KEYS.head)[0]


def test_repository_json() -> None:
    value: dict[str, object] = {
        "created": "2026-11-25T07:00:00Z",
        "format": 1,
        "kind": "gateway-repository",
        "needs_features": [],
        "repository": REPOSITORY.hex(),
    }
    assert slots.encode_repository(MASTER, CREATED) == maced(value)


def slot_facts(kind: str, kdf: dict[str, object]) -> dict[str, object]:
    return {
        "created": "2026-11-25T07:00:00Z",
        "format": 1,
        "id": some("slot", 16).hex(),
        "kdf": kdf,
        "kind": kind,
        "needs_features": [],
        "repository": REPOSITORY.hex(),
        "salt": SALT.hex(),
    }


def test_a_passphrase_slot() -> None:
    kdf: dict[str, object] = {"iterations": 1, "lanes": 1, "memory_kib": 8, "name": "argon2id"}
    # Decomposed as typed on some keyboards; the specification wants the composed form.
    secret = Argon2id(salt=SALT, length=32, iterations=1, lanes=1, memory_cost=8).derive("schl\u00fcssel".encode())
    info = b"gateway/v1/slot" + REPOSITORY + some("slot", 16)
    expected = maced(sealed(secret, info, slot_facts("passphrase", kdf), MK))
    made = slots.passphrase_slot(MASTER, some("slot", 16), SALT, CREATED, "schlu\u0308ssel", CHEAP)
    assert made == expected


def test_a_sheet_slot() -> None:
    info = b"gateway/v1/slot" + REPOSITORY + some("slot", 16)
    expected = maced(sealed(some("sheet", 32), info, slot_facts("sheet", {"name": "none"}), MK))
    assert slots.sheet_slot(MASTER, some("slot", 16), SALT, CREATED, some("sheet", 32)) == expected


def test_a_wrap() -> None:
    facts: dict[str, object] = {
        "chain": 7,
        "created": "2026-11-25T07:00:00Z",
        "format": 1,
        "group": "orcl-prod",
        "header": some("digest", 32).hex(),
        "id": some("wrap", 16).hex(),
        "kind": "master",
        "needs_features": [],
        "repository": REPOSITORY.hex(),
        "salt": SALT.hex(),
    }
    secret = hkdf(MK, REPOSITORY, b"gateway/v1/master/wrap", 32)
    expected = maced(sealed(secret, b"gateway/v1/wrap" + REPOSITORY + some("wrap", 16), facts, CK))
    made = slots.encode_wrap(MASTER, CHAIN, CK, some("digest", 32), some("wrap", 16), SALT, CREATED)
    assert made == expected


def test_a_line_of_the_sheet() -> None:
    def word(value: int) -> str:
        bits = f"{value:016b}"
        consonants, vowels = "bdfghjklmnprstvz", "aiou"
        letters = [bits[:4], bits[4:6], bits[6:10], bits[10:12], bits[12:]]
        return "".join((consonants if len(b) == 4 else vowels)[int(b, 2)] for b in letters)

    secret = some("sheet", 32)
    for number, line in enumerate(sheet.lines(secret), 1):
        data = secret[8 * number - 8 : 8 * number]
        check = sha256(b"gateway/v1/sheet" + bytes([number]) + data).digest()[:2]
        words = [word(int.from_bytes((data + check)[i : i + 2], "big")) for i in range(0, 10, 2)]
        assert line.split() == [str(number), *words]
