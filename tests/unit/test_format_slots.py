"""Key slots and wraps: the right secret opens, everything else gives nothing, and never a wrong key."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from argon2.exceptions import HashingError
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Corrupt, LocalStateError, NewerFormat, UsageError
from gateway.format import canonical, keys, slots
from gateway.format.keys import Argon2Cost, ChainKeys, MasterKey
from gateway.format.slots import Slot, Wrap
from gateway.model.ids import ChainName
from tests.unit.format_values import CHAIN, CHEAP, CREATED, KEYS, MASTER, REPOSITORY, SALT, judged, refuses, some

SLOT, WRAP = some("slot", 16), some("wrap", 16)
SECRET, DIGEST = some("sheet", 32), some("digest", 32)
PASSPHRASE_SLOT = slots.passphrase_slot(MASTER, SLOT, SALT, CREATED, "correct horse", CHEAP)
SHEET_SLOT = slots.sheet_slot(MASTER, SLOT, SALT, CREATED, SECRET)
WRAPPED = slots.encode_wrap(MASTER, CHAIN, KEYS.secret, DIGEST, WRAP, SALT, CREATED)


def slot(data: bytes) -> Slot:
    return slots.decode_slot(data, SLOT, "slots/x.json")


def wrap(data: bytes) -> Wrap:
    return slots.decode_wrap(data, CHAIN, WRAP, "wraps/x")


def open_passphrase(data: bytes) -> MasterKey | None:
    return slots.open_slot(slot(data), passphrase="correct horse")


def open_sheet(data: bytes) -> MasterKey | None:
    return slots.open_slot(slot(data), secret=SECRET)


def open_wrap(data: bytes) -> ChainKeys:
    return slots.open_wrap(wrap(data), MASTER, DIGEST, "wraps/x")


def changed(data: bytes, *, mac: bool = True, **fields: Any) -> bytes:
    """The object with other fields; with `mac`, by somebody who has the master key. `...` removes a field."""
    value = {**json.loads(data), **fields}
    value = {name: each for name, each in value.items() if each is not ...}
    return canonical.with_mac(value, MASTER) if mac else canonical.encode(value) + b"\n"


@settings(max_examples=25)
@given(
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=16, max_size=16),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
def test_a_passphrase_opens_its_slot(secret: bytes, repository: bytes, passphrase: str) -> None:
    master = MasterKey(secret, repository)
    stored = slots.passphrase_slot(master, SLOT, SALT, CREATED, passphrase, CHEAP)
    parsed = slot(stored)
    assert (parsed.kind, parsed.cost, parsed.repository) == ("passphrase", CHEAP, repository)
    assert slots.open_slot(parsed, passphrase=passphrase) == master
    assert slots.open_slot(parsed, passphrase=passphrase + "x") is None
    assert slots.open_slot(parsed, secret=SECRET) is None
    assert slots.open_slot(parsed) is None
    canonical.check_mac(parsed.value, master, "")


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32))
def test_a_sheet_opens_its_slot(secret: bytes, repository: bytes, sheet: bytes) -> None:
    master = MasterKey(secret, repository)
    parsed = slot(slots.sheet_slot(master, SLOT, SALT, CREATED, sheet))
    assert (parsed.kind, parsed.cost) == ("sheet", None)
    assert slots.open_slot(parsed, secret=sheet) == master
    for other in (bytes([sheet[0] ^ 1]) + sheet[1:], sheet[:31], sheet + b"\0", b""):
        assert slots.open_slot(parsed, secret=other) is None
    assert slots.open_slot(parsed, passphrase="x") is None
    assert slots.open_slot(parsed, passphrase="x", secret=sheet) == master


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.integers(1, 2**32 - 1))
def test_a_wrap_opens_with_the_master_key(chain_key: bytes, digest: bytes, number: int) -> None:
    name = ChainName("a-1", number)
    parsed = slots.decode_wrap(slots.encode_wrap(MASTER, name, chain_key, digest, WRAP, SALT, CREATED), name, WRAP, "x")
    assert (parsed.kind, parsed.header_digest) == ("master", digest)
    assert slots.open_wrap(parsed, MASTER, digest, "x") == ChainKeys.of(chain_key, REPOSITORY)


def test_a_passphrase_is_the_same_in_every_unicode_form() -> None:
    stored = slots.passphrase_slot(MASTER, SLOT, SALT, CREATED, "na\u00efve", CHEAP)
    assert slots.open_slot(slot(stored), passphrase="nai\u0308ve") == MASTER


def test_a_passphrase_that_is_no_text_is_the_users_mistake_and_is_not_shown() -> None:
    with pytest.raises(UsageError) as caught:
        slots.open_slot(slot(PASSPHRASE_SLOT), passphrase="hunter2\udcff")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


BITTEN = {
    "commitment": "0" * 64,
    "nonce": "0" * 24,
    "sealed": "0" * 96,
    "salt": "0" * 64,
    "created": "2026-11-25T07:00:01Z",
    "repository": "0" * 32,
    "later": 1,
}
SLOT_CHANGES: dict[str, Any] = {**BITTEN, "id": "0" * 32, "kind": "sheet", "format": 2, "needs_features": ["x"]}


@pytest.mark.parametrize("mac", [False, True])
@pytest.mark.parametrize(("stored", "opens"), [(PASSPHRASE_SLOT, open_passphrase), (SHEET_SLOT, open_sheet)])
def test_a_changed_slot_never_gives_a_key(stored: bytes, opens: Callable[[bytes], MasterKey | None], mac: bool) -> None:
    kind = json.loads(stored)["kind"]
    for name, each in SLOT_CHANGES.items():
        value = {"sheet": "passphrase", "passphrase": "sheet"}[kind] if name == "kind" else each
        assert judged(lambda n=name, v=value: opens(changed(stored, mac=mac, **{n: v}))) is None, name
    for name in json.loads(stored):
        if name != "~mac":
            assert judged(lambda n=name: opens(changed(stored, mac=mac, **{n: ...}))) is None, name


def test_a_changed_kdf_never_gives_a_key() -> None:
    kdf = {"iterations": 1, "lanes": 1, "memory_kib": 8, "name": "argon2id"}
    for name, each in (("iterations", 2), ("memory_kib", 9), ("name", "argon2i"), ("name", "none"), ("later", 1)):
        stored = changed(PASSPHRASE_SLOT, kdf={**kdf, name: each})
        assert judged(lambda data=stored: open_passphrase(data)) is None
    for other in ({"name": "none", "x": 1}, {"name": "argon2id"}, {}, "none", None):
        stored = changed(SHEET_SLOT, kdf=other)
        assert judged(lambda data=stored: open_sheet(data)) is None


@pytest.mark.parametrize("mac", [False, True])
def test_a_changed_wrap_never_gives_a_key(mac: bool) -> None:
    changes = {
        **BITTEN,
        "header": "0" * 64,
        "id": "0" * 32,
        "kind": "recipient",
        "chain": 8,
        "group": "orcl-tes",
        "format": 2,
    }
    for name, each in changes.items():
        assert judged(lambda n=name, v=each: open_wrap(changed(WRAPPED, mac=mac, **{n: v}))) is None, name
    for name in json.loads(WRAPPED):
        if name != "~mac":
            assert judged(lambda n=name: open_wrap(changed(WRAPPED, mac=mac, **{n: ...}))) is None, name


def test_a_slot_whose_mac_alone_was_changed_opens_and_the_mac_tells() -> None:
    parsed = slot(PASSPHRASE_SLOT.replace(json.loads(PASSPHRASE_SLOT)["~mac"].encode(), b"0" * 64))
    assert slots.open_slot(parsed, passphrase="correct horse") == MASTER
    refuses(lambda: canonical.check_mac(parsed.value, MASTER, "x"), "MAC")


@pytest.mark.parametrize(("stored", "opens"), [(SHEET_SLOT, open_sheet), (WRAPPED, open_wrap)])
def test_no_flipped_bit_gives_a_key(stored: bytes, opens: Callable[[bytes], Any]) -> None:
    right = opens(stored)
    mac_at = stored.index(b'"~mac":"') + 8
    for at in range(len(stored)):
        for bit in (0, 2, 5, 7):
            bitten = stored[:at] + bytes([stored[at] ^ 1 << bit]) + stored[at + 1 :]
            found = judged(lambda data=bitten: opens(data))
            assert found is None or (found == right and mac_at <= at < mac_at + 64 and stored is SHEET_SLOT), (at, bit)
    for at in range(len(stored)):
        assert judged(lambda data=stored[:at]: opens(data)) is None


def test_facts_of_a_slot_and_of_a_wrap_are_not_those_of_another() -> None:
    refuses(lambda: slots.decode_slot(SHEET_SLOT, WRAP, "x"), "name")
    refuses(lambda: slots.decode_wrap(WRAPPED, CHAIN, SLOT, "x"), "name")
    refuses(lambda: slots.decode_wrap(WRAPPED, ChainName(CHAIN.group, 8), WRAP, "x"), "name")
    refuses(lambda: slots.decode_wrap(WRAPPED, ChainName("orcl", 7), WRAP, "x"), "name")
    refuses(lambda: slots.open_wrap(wrap(WRAPPED), MASTER, SECRET, "x"), "header")
    refuses(lambda: slots.open_wrap(wrap(WRAPPED), MasterKey(SECRET, REPOSITORY), DIGEST, "x"), "MAC")
    refuses(lambda: slots.open_wrap(wrap(WRAPPED), MasterKey(MASTER.secret, SLOT), DIGEST, "x"), "MAC")


def test_a_chain_number_is_a_number() -> None:
    """In Python `True == 1`, and so would a wrap of chain `true` be the one of chain 1."""
    name = ChainName("orcl-prod", 1)
    stored = slots.encode_wrap(MASTER, name, KEYS.secret, DIGEST, WRAP, SALT, CREATED)
    slots.decode_wrap(stored, name, WRAP, "x")
    refuses(lambda: slots.decode_wrap(changed(stored, chain=True), name, WRAP, "x"))


def test_kinds_of_later_versions_are_there_but_open_with_nothing() -> None:
    later = {"commitment": ..., "nonce": ..., "sealed": "", "kdf": {"name": "kms", "key": "arn"}, "kind": "kms"}
    parsed = slot(changed(SHEET_SLOT, **later))
    assert parsed.kind == "kms"
    assert slots.open_slot(parsed, passphrase="correct horse", secret=SECRET) is None
    canonical.check_mac(parsed.value, MASTER, "")
    foreign = wrap(changed(WRAPPED, kind="recipient", sealed="00", commitment=..., nonce=...))
    assert foreign.kind == "recipient" != slots.MASTER
    refuses(lambda: slots.open_wrap(foreign, MASTER, DIGEST, "x"))


@pytest.mark.parametrize("bad", [..., 1, "", "zz", None, [], "2026-11-25T07:00:00", "2026-11-25T07:00:00Z\n"])
@pytest.mark.parametrize("name", ["created", "id", "repository", "salt", "commitment", "nonce", "sealed", "kdf"])
def test_fields_of_other_shapes_are_damage(name: str, bad: Any) -> None:
    refuses(lambda: slot(changed(SHEET_SLOT, **{name: bad})))
    if name not in ("kdf", "repository"):  # a wrap has no such field, or only the MAC speaks for it
        refuses(lambda: wrap(changed(WRAPPED, **{name: bad})))


@pytest.mark.parametrize("bad", [..., 1, None, []])
def test_a_kind_is_text(bad: Any) -> None:
    refuses(lambda: slot(changed(SHEET_SLOT, kind=bad)))
    refuses(lambda: wrap(changed(WRAPPED, kind=bad)))


def test_repository_json() -> None:
    stored = slots.encode_repository(MASTER, CREATED)
    repository, value = slots.decode_repository(stored, "repository.json")
    assert repository == REPOSITORY
    canonical.check_mac(value, MASTER, "")
    for fields in ({"kind": "slot"}, {"kind": 1}, {"repository": "0"}, {"repository": ...}, {"created": "now"}):
        refuses(lambda f=fields: slots.decode_repository(changed(stored, **f), "x"))
    with pytest.raises(NewerFormat):
        slots.decode_repository(changed(stored, format=2), "x")


BAD_COSTS = [
    (7, 1, 1),
    (4 * 2**20 + 1, 1, 1),
    (8, 0, 1),
    (8, 65, 1),
    (8, 1, 0),
    (8 * 65, 1, 65),
    (8 * 4 - 1, 1, 4),
    (2**53 - 1, 2**53 - 1, 2**53 - 1),
]


@pytest.mark.parametrize(("memory", "iterations", "lanes"), BAD_COSTS)
def test_bounds_of_the_cost_are_checked_before_any_work(
    memory: int, iterations: int, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "stretch", lambda *_: pytest.fail("worked"))
    kdf = {"iterations": iterations, "lanes": lanes, "memory_kib": memory, "name": "argon2id"}
    refuses(lambda: open_passphrase(changed(PASSPHRASE_SLOT, kdf=kdf)), "bounds")


def test_the_bounds_themselves_are_allowed() -> None:
    for allowed in ((8, 1, 1), (4 * 2**20, 64, 64), (512, 64, 64)):
        kdf = dict(zip(("memory_kib", "iterations", "lanes", "name"), (*allowed, "argon2id"), strict=True))
        assert slot(changed(PASSPHRASE_SLOT, kdf=kdf)).cost == Argon2Cost(*allowed)
    for bad in (True, 8.0, "8", None):
        refuses(lambda b=bad: slot(changed(PASSPHRASE_SLOT, kdf={**kdf, "memory_kib": b})))


def test_the_commitment_is_compared_before_the_key_is_used() -> None:
    """A sealed key that would authenticate under another secret is not opened when the commitment differs."""
    made = keys.seal_key(SECRET, SALT, b"info", b"aad", MASTER.secret)
    assert keys.open_key(SECRET, made, b"info", b"aad") == MASTER.secret
    assert keys.open_key(SECRET, replace(made, commitment=bytes(32)), b"info", b"aad") is None
    assert keys.open_key(SECRET, made, b"other", b"aad") is None
    with pytest.raises(Corrupt):
        keys.open_key(SECRET, made, b"info", b"other")
    with pytest.raises(Corrupt):
        keys.open_key(SECRET, replace(made, nonce=bytes(12)), b"info", b"aad")


def test_one_salt_used_twice_never_gives_one_nonce_for_two_texts() -> None:
    found = {}
    for aad in (b"", b"a", b"b"):
        for key in (MASTER.secret, KEYS.secret):
            found[aad, key] = keys.seal_key(SECRET, SALT, b"info", aad, key).nonce
    assert len(set(found.values())) == len(found)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_never_raise_anything_else(data: bytes) -> None:
    judged(lambda: slot(data))
    judged(lambda: wrap(data))
    judged(lambda: slots.decode_repository(data, "x"))


values = st.one_of(
    st.none(), st.booleans(), st.integers(0, 2**65), st.text(max_size=4), st.just("0" * 32), st.just([]), st.just({})
)


@given(st.dictionaries(st.sampled_from(sorted(json.loads(PASSPHRASE_SLOT))), values, max_size=4), values)
def test_objects_with_arbitrary_fields_never_raise_anything_else(fields: dict[str, Any], cost: Any) -> None:
    for stored, opens in ((PASSPHRASE_SLOT, open_passphrase), (SHEET_SLOT, open_sheet), (WRAPPED, open_wrap)):
        said = {**json.loads(stored), **fields}
        judged(lambda v=said, o=opens: o(canonical.encode(v) + b"\n"))
    kdf = {"iterations": 1, "lanes": cost, "memory_kib": 8, "name": "argon2id"}
    judged(lambda: open_passphrase(changed(PASSPHRASE_SLOT, kdf=kdf)))


def test_too_little_memory_for_a_passphrase_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> bytes:
        raise HashingError("Memory allocation error")

    monkeypatch.setattr(keys, "hash_secret_raw", fails)
    with pytest.raises(LocalStateError, match="Memory allocation error") as caught:
        keys.stretch("never asked before", bytes(32), keys.Argon2Cost())
    assert "256 MiB" in caught.value.meaning
