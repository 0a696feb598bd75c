"""What the tests of the codecs share: keys, values of every record, and how a hostile byte string is judged."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256, shake_256
from typing import Any

import pytest
from hypothesis import strategies as st

from gateway.errors import Corrupt, IntegrityError, NewerFormat
from gateway.format import log, names
from gateway.format.container import Kind, Name
from gateway.format.keys import Argon2Cost, ChainKeys, MasterKey
from gateway.format.log import (
    ChainHeader,
    Close,
    Commit,
    Condemn,
    Damaged,
    Declaration,
    Expire,
    Hold,
    ListRoot,
    Payload,
    Statistics,
    Unhold,
)
from gateway.model.ids import ChainName, ranges


def some(label: str, count: int) -> bytes:
    """Bytes that look random and are the same every time."""
    return shake_256(label.encode()).digest(count)


REPOSITORY = some("repository", 16)
MASTER = MasterKey(some("master", 32), REPOSITORY)
KEYS = ChainKeys.of(some("chain", 32), REPOSITORY)
CHAIN = ChainName("orcl-prod", 7)
SALT = some("salt", 32)
WRITER = some("writer", 16)
CREATED = datetime(2026, 11, 25, 7, 0, 0, tzinfo=UTC)
CHEAP = Argon2Cost(memory_kib=8, iterations=1, lanes=1)
AT = names.entry(CHAIN, 3)


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 with SHA-256, from nothing but HMAC."""
    pseudorandom = hmac.digest(salt, secret, sha256)
    out = block = b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(pseudorandom, block + info + bytes([counter]), sha256)
        out += block
    return out[:length]


def entry_name(sequence: int = 3) -> Name:
    return log.entry_name(REPOSITORY, CHAIN, sequence)


def pack_name(number: int = 5, kind: Kind = Kind.DATA) -> Name:
    return Name(kind=kind, repository=REPOSITORY, chain=CHAIN, number=number, pack_id=some("pack", 16))


def judged(parse: Callable[[], Any]) -> Any:
    """What `parse` gives, or None for damage and newer formats. Everything else that is raised fails the test."""
    try:
        return parse()
    except (IntegrityError, NewerFormat):
        return None


def refuses(parse: Callable[[], Any], match: str | None = None) -> None:
    with pytest.raises(Corrupt, match=match):
        parse()


def header(**changes: Any) -> ChainHeader:
    facts: dict[str, Any] = {
        "group": CHAIN.group,
        "number": CHAIN.number,
        "created": 1_795_590_000_000,
        "writer": WRITER,
        "storage": "instant",
        "steps": (0, "STANDARD", 30, "GLACIER_IR"),
        "hot_days": 7,
        "chain_days": 0,
        "chunker": "wide-64",
        "data_chunks": (4096, 16384, 65536),
        "list_chunks": (1024, 4096, 16384),
        "reason": "first",
        "before": 0,
        "before_digest": b"",
    }
    return ChainHeader(**{**facts, **changes})


def declaration(**changes: Any) -> Declaration:
    facts: dict[str, Any] = {
        "number": 5,
        "pack_id": some("pack", 16),
        "storage": "hot",
        "size": 1000,
        "crc64": 2**64 - 1,
        "index_digest": some("index", 32),
        "index_size": 300,
        "chunks": 3,
        "raw": 900,
        "bases": (1, 2),
    }
    return Declaration(**{**facts, **changes})


def commit(**changes: Any) -> Commit:
    facts: dict[str, Any] = {
        "generation": some("generation", 16),
        "source": "orcl-prod",
        "number": 12,
        "source_kind": "files",
        "begun": 1,
        "cut": 2,
        "evidence": 3,
        "operator": "",
        "complete": 1,
        "reasons": (),
        "packs": (declaration(),),
        "needs": (1, 2, 5, 1),
        "files": ListRoot(0, 10, (5, 0, 1)),
        "requires": (),
        "left_out_count": 1,
        "left_out": ((b"a\xff", "growing", ""),),
        "statistics": Statistics(entries=4),
    }
    return Commit(**{**facts, **changes})


u8 = st.integers(0, 2**8 - 1)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
ids = st.binary(min_size=16, max_size=16)
digests = st.binary(min_size=32, max_size=32)
labels = st.text("abcxyz0189-", min_size=1, max_size=32)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def numbers(most: int = 200) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(1, most), max_size=6).map(lambda found: tuple(ranges(found)))


def runs() -> st.SearchStrategy[tuple[int, ...]]:
    one = st.tuples(st.integers(1, 2**32 - 1), st.integers(0, 2**31), st.integers(1, 2**31))
    return st.lists(one, max_size=5).map(lambda found: tuple(n for run in found for n in run))


declarations = st.builds(
    Declaration,
    number=st.integers(200, 2**32 - 1),
    pack_id=ids,
    storage=labels,
    size=st.integers(0, 2**30),
    crc64=u64,
    index_digest=digests,
    index_size=st.integers(0, 2**26),
    chunks=u32,
    raw=u64,
    bases=numbers(),
)
roots = st.one_of(
    st.just(ListRoot(0, 0, ())),
    st.builds(ListRoot, st.integers(0, 8), st.integers(1, 2**26), runs().filter(bool)),
)
commits = st.builds(
    Commit,
    generation=ids,
    source=labels,
    number=u64,
    source_kind=st.sampled_from(["files", "job"]),
    begun=u64,
    cut=u64,
    evidence=u8,
    operator=texts,
    complete=st.just(0),
    reasons=st.lists(texts, max_size=3).map(tuple),
    packs=st.lists(declarations, max_size=3).map(tuple),
    needs=numbers(),
    files=roots,
    requires=st.lists(st.tuples(labels, u32, ids), max_size=2).map(tuple),
    left_out_count=u64,
    left_out=st.lists(st.tuples(st.binary(max_size=20), texts, texts), max_size=3).map(tuple),
    statistics=st.builds(Statistics, entries=u64, files=u64, milliseconds=u64),
)
payloads: dict[str, st.SearchStrategy[Payload]] = {
    log.COMMIT: commits,
    log.CHECKPOINT: commits,
    log.EXPIRE: st.builds(Expire, st.lists(ids, max_size=3).map(tuple), texts, texts),
    log.HOLD: st.builds(Hold, ids, ids, texts, texts),
    log.UNHOLD: st.builds(Unhold, ids, texts, texts),
    log.DAMAGED: st.builds(Damaged, u32, ids, texts, u64, st.integers(0, 1)),
    log.CONDEMN: st.sets(st.integers(1, 50), max_size=6).flatmap(
        lambda found: st.builds(
            Condemn,
            st.just(tuple(ranges(list(found)))),
            st.lists(ids, min_size=len(found), max_size=len(found)).map(tuple),
            texts,
        )
    ),
    log.CLOSE: st.builds(Close, texts),
}
