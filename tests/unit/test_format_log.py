"""Headers, entries, ends: each comes back, and each contradiction the codec can see is damage."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Corrupt, NewerFormat
from gateway.format import container, limits, log, wire
from gateway.format.log import ChainHeader, Close, Condemn, Damaged, End, Entry, Expire, Hold, ListRoot, Payload
from gateway.model.ids import ChainName, in_ranges
from tests.unit.format_values import (
    CHAIN,
    KEYS,
    REPOSITORY,
    SALT,
    WRITER,
    commit,
    declaration,
    digests,
    entry_name,
    header,
    ids,
    judged,
    labels,
    payloads,
    refuses,
    some,
    texts,
    u32,
    u64,
)

BEFORE = some("before", 32)


def entry(payload: Payload | None, kind: str) -> Entry:
    return Entry(kind=kind, writer=WRITER, before=BEFORE, time=12, payload=payload)


def decode(data: bytes, sequence: int = 3) -> Entry:
    return log.decode_entry(data, sequence, CHAIN, KEYS, "log/x")


def again(payload: Payload, kind: str) -> Payload | None:
    return decode(log.encode_entry(entry(payload, kind), 3, CHAIN, KEYS, SALT)).payload


def envelope(**changes: Any) -> list[Any]:
    fields = {
        "features": [],
        "kind": "close",
        "writer": WRITER,
        "before": BEFORE,
        "time": 1,
        "signature": b"",
        "payload": ["why"],
    }
    return list({**fields, **changes}.values())


def sealed(body: Any) -> bytes:
    """An entry whose body is anything: by somebody who has the key."""
    plain = body if isinstance(body, bytes) else wire.encode(body)
    return container.seal_body(entry_name(), KEYS, SALT, plain)


@pytest.mark.parametrize("kind", payloads)
def test_every_kind_comes_back(kind: str) -> None:
    @settings(max_examples=40)
    @given(st.data(), ids, digests, u64)
    def comes_back(data: st.DataObject, writer: bytes, before: bytes, time: int) -> None:
        made = Entry(kind=kind, writer=writer, before=before, time=time, payload=data.draw(payloads[kind]))
        stored = log.encode_entry(made, 9, CHAIN, KEYS, SALT)
        assert decode(stored, 9) == made

    comes_back()


@given(
    st.builds(
        ChainHeader,
        group=labels,
        number=st.integers(1, 2**32 - 1),
        created=u64,
        writer=ids,
        storage=labels,
        steps=st.lists(st.tuples(u32, texts), max_size=3).map(
            lambda found: tuple(each for step in found for each in step)
        ),
        hot_days=u32,
        chain_days=u32,
        chunker=texts,
        data_chunks=st.tuples(u32, u32, u32),
        list_chunks=st.tuples(u32, u32, u32),
        reason=texts,
        before=u32,
        before_digest=st.one_of(st.just(b""), digests),
    )
)
def test_a_header_comes_back(made: ChainHeader) -> None:
    chain = ChainName(made.group, made.number)
    assert log.decode_header(log.encode_header(made, KEYS, SALT), chain, KEYS, "x") == made


@given(st.builds(End, st.just(()), u32, digests, u64, ids))
def test_an_end_comes_back(made: End) -> None:
    assert log.decode_end(log.encode_end(made, CHAIN, KEYS, SALT), CHAIN, KEYS, "x") == made


def test_an_entry_is_bound_to_its_place() -> None:
    stored = log.encode_entry(entry(Close("why"), "close"), 3, CHAIN, KEYS, SALT)
    refuses(lambda: decode(stored, 4), "another object")
    refuses(lambda: log.decode_entry(stored, 3, ChainName("orcl-prod", 8), KEYS, "x"), "another object")
    refuses(lambda: log.decode_header(stored, CHAIN, KEYS, "x"), "another object")
    refuses(lambda: log.decode_end(stored, CHAIN, KEYS, "x"), "another object")
    made = log.encode_header(header(), KEYS, SALT)
    refuses(lambda: log.decode_end(made, CHAIN, KEYS, "x"), "another object")


def test_a_header_that_says_another_chain_inside_is_refused() -> None:
    for other in (header(group="orcl"), header(number=8)):
        data = container.seal_body(log.header_name(REPOSITORY, CHAIN), KEYS, SALT, wire.encode(other))
        refuses(lambda d=data: log.decode_header(d, CHAIN, KEYS, "x"), "another chain")


def test_an_unknown_kind_has_no_payload_whatever_it_holds() -> None:
    for payload in ([], ["x", 1, b"y", [[[]]]], "text", 7, b""):
        found = decode(sealed(envelope(kind="retune", payload=payload)))
        assert (found.kind, found.payload, found.writer, found.time) == ("retune", None, WRITER, 1)


def test_unknown_fields_at_the_end_are_ignored() -> None:
    assert decode(sealed([*envelope(), "later", [1]])) == decode(sealed(envelope()))
    assert decode(sealed(envelope(payload=["why", 1, [b"x"]]))).payload == Close("why")
    grown = msgspec.to_builtins(commit(), builtin_types=(bytes,))
    for at in (10, 12, 16):
        grown[at] = [[*each, "later"] for each in grown[at]] if at == 10 else [*grown[at], "later"]
    assert decode(sealed(envelope(kind="commit", payload=[*grown, "later"]))).payload == commit()


def test_fields_that_are_missing_are_damage() -> None:
    for length in range(7):
        refuses(lambda n=length: decode(sealed(envelope()[:n])))
    for kind, made in (("commit", commit()), ("damaged", Damaged(1, some("p", 16), "x", 1, 0))):
        full = msgspec.to_builtins(made, builtin_types=(bytes,))
        for length in range(len(full) - type(made).LATER):
            refuses(lambda k=kind, p=full[:length]: decode(sealed(envelope(kind=k, payload=p))))
    full = msgspec.to_builtins(commit(), builtin_types=(bytes,))
    for length in range(15):
        short = [*full[:16], full[16][:length]]
        refuses(lambda p=short: decode(sealed(envelope(kind="commit", payload=p))))
    for length in range(10):
        short = [*full[:10], [full[10][0], full[10][0][:length]], *full[11:]]
        refuses(lambda p=short: decode(sealed(envelope(kind="commit", payload=p))))
    full = msgspec.to_builtins(header(), builtin_types=(bytes,))
    for length in range(len(full)):
        data = container.seal_body(log.header_name(REPOSITORY, CHAIN), KEYS, SALT, wire.encode(full[:length]))
        refuses(lambda d=data: log.decode_header(d, CHAIN, KEYS, "x"))


@pytest.mark.parametrize(
    "rest",
    [
        [],
        [1],
        ["commit", "not a writer"],
        [{}],
        [1.5],
        [None],
        ["close", WRITER, BEFORE, -1, b"", [[[[]]]]],
        ["x" * 300] * 20,
    ],
)
def test_what_needs_a_feature_is_newer_even_when_the_rest_would_not_parse(rest: list[Any]) -> None:
    body = msgspec.msgpack.encode([["sharding"], *rest])
    for parse in (
        lambda: decode(sealed(body)),
        lambda: log.decode_header(
            container.seal_body(log.header_name(REPOSITORY, CHAIN), KEYS, SALT, body), CHAIN, KEYS, "x"
        ),
        lambda: log.decode_end(
            container.seal_body(log.end_name(REPOSITORY, CHAIN), KEYS, SALT, body), CHAIN, KEYS, "x"
        ),
    ):
        with pytest.raises(NewerFormat, match="sharding"):
            parse()


def test_a_longer_spelling_anywhere_in_a_body_is_damage() -> None:
    body = wire.encode(envelope())
    assert body[-5:] == b"\x91\xa3why"
    for other in (body[:-4] + b"\xd9\x03why", body[:-5] + b"\xdc\x00\x01\xa3why", b"\xdc\x00\x07" + body[1:]):
        refuses(lambda b=other: decode(sealed(b)), "shortest")
    hidden = wire.encode(envelope(kind="retune", payload=msgspec.Raw(b"\x91\xcc\x01")))
    refuses(lambda: decode(sealed(hidden)), "shortest")
    refuses(lambda: decode(sealed(wire.encode(envelope(kind="retune", payload=1.5)))), "type")
    refuses(lambda: decode(sealed(wire.encode(envelope(kind="retune", payload={})))), "type")


@pytest.mark.parametrize(
    "change",
    [
        {"features": None},
        {"features": [1]},
        {"features": ""},
        {"kind": b"close"},
        {"kind": 1},
        {"writer": bytes(15)},
        {"writer": "x" * 16},
        {"before": bytes(33)},
        {"time": -1},
        {"time": True},
        {"time": 1.0},
        {"signature": ""},
        {"payload": None},
        {"payload": "why"},
        {"payload": [b"why"]},
        {"payload": []},
    ],
)
def test_wrong_types_in_an_entry(change: dict[str, Any]) -> None:
    refuses(lambda: decode(sealed(envelope(**change))))


def test_a_reserved_signature_is_ignored() -> None:
    assert decode(sealed(envelope(signature=b"later"))).payload == Close("why")


@pytest.mark.parametrize(
    "change",
    [
        {"needs": (1,)},
        {"needs": (0, 1)},
        {"needs": (5, 0)},
        {"needs": (5, 1, 5, 1)},
        {"needs": (5, 2, 6, 1)},
        {"needs": (6, 1, 5, 1)},
        {"needs": (2**32 - 1, 2)},
        {"needs": (1, 2**32)},
        {"needs": (-1, 1)},
        {"packs": (declaration(bases=(1,)),)},
        {"packs": (declaration(bases=(0, 1)),)},
        {"packs": (declaration(bases=(1, 5)),)},
        {"packs": (declaration(bases=(6, 1)),)},
        {"packs": (declaration(number=0, bases=()),)},
        {"packs": (declaration(number=2**32),)},
        {"packs": (declaration(pack_id=bytes(15)),)},
        {"packs": (declaration(storage="HOT"),)},
        {"packs": (declaration(storage="hot\n"),)},
        {"packs": (declaration(index_digest=bytes(31)),)},
        {"files": ListRoot(0, 10, ())},
        {"files": ListRoot(0, 0, (5, 0, 1))},
        {"files": ListRoot(1, 0, ())},
        {"files": ListRoot(0, 10, (5, 0))},
        {"files": ListRoot(0, 10, (0, 0, 1))},
        {"files": ListRoot(0, 10, (5, 0, 0))},
        {"files": ListRoot(0, 10, (5, 2**32 - 1, 2))},
        {"complete": 2},
        {"complete": True},
        {"generation": bytes(15)},
        {"source": "Orcl"},
        {"source": ""},
        {"evidence": 256},
        {"number": -1},
        {"requires": (("Orcl", 1, bytes(16)),)},
        {"requires": (("orcl", 1, bytes(15)),)},
        {"requires": (("orcl", 1),)},
        {"reasons": (b"x",)},
        {"left_out": (("a", "b", "c"),)},
        {"left_out": ((b"a", "b"),)},
        {"statistics": (1, 2)},
    ],
    ids=str,
)
def test_contradictions_of_a_commit(change: dict[str, Any]) -> None:
    refuses(lambda: again(commit(**change), "commit"))


def test_a_commit_at_its_bounds() -> None:
    packs = (declaration(number=2**32 - 1, bases=(2**32 - 1 - 2**24, 2**24)),)
    made = commit(
        needs=(1, 1, 2**32 - 2**24, 2**24 - 1), packs=packs, files=ListRoot(8, 2**26, (2**32 - 1, 2**32 - 1, 1))
    )
    assert again(made, "commit") == made
    assert again(commit(files=ListRoot(0, 0, ())), "commit")
    adjacent = commit(needs=(1, 1, 2, 1))
    assert again(adjacent, "commit") == adjacent
    refuses(lambda: again(commit(needs=(1, 1, 3, 2**24)), "commit"))


def test_a_checkpoint_is_never_complete() -> None:
    assert again(commit(complete=0), "checkpoint") == commit(complete=0)
    refuses(lambda: again(commit(complete=1), "checkpoint"), "checkpoint")


def test_a_condemnation_names_an_id_for_every_pack() -> None:
    """The count also bounds what a reader makes of the ranges: `in_ranges` would take gigabytes for one pair."""
    good = Condemn((3, 2, 9, 1), tuple(some(str(n), 16) for n in range(3)), "old")
    assert again(good, "condemn") == good
    assert in_ranges(good.packs) == [3, 4, 9]
    for packs in ((3, 2), (3, 2, 9, 2), (1, 2**32 - 1), (3, 3, 3, 0), (9, 1, 3, 2), (3,), (0, 3), ()):
        refuses(lambda p=packs: again(Condemn(p, good.ids, "old"), "condemn"))


def test_good_again_is_0_or_1() -> None:
    for good in (0, 1):
        assert again(Damaged(1, some("p", 16), "x", 1, good), "damaged")
    refuses(lambda: again(Damaged(1, some("p", 16), "x", 1, 2), "damaged"))


@pytest.mark.parametrize(
    "change",
    [
        {"steps": (0,)},
        {"steps": ("STANDARD", 0)},
        {"steps": (0, "STANDARD", 30)},
        {"steps": (0, 30)},
        {"steps": ("A", "B")},
        {"steps": (-1, "A")},
        {"before_digest": bytes(31)},
        {"before_digest": "x"},
        {"writer": b""},
        {"storage": "Hot"},
        {"hot_days": 2**32},
        {"data_chunks": (1, 2)},
        {"data_chunks": (1, 2, 3, 4)},
        {"chunker": 1},
        {"created": -1},
    ],
    ids=str,
)
def test_contradictions_of_a_header(change: dict[str, Any]) -> None:
    refuses(lambda: log.decode_header(log.encode_header(header(**change), KEYS, SALT), CHAIN, KEYS, "x"))


def test_a_chunker_of_later_is_no_damage_since_a_reader_never_cuts() -> None:
    made = header(chunker="wide-128", data_chunks=(1, 2, 3))
    assert log.decode_header(log.encode_header(made, KEYS, SALT), CHAIN, KEYS, "x") == made


def test_an_entry_too_large_is_the_writers_to_split() -> None:
    room = limits.ENTRY_BYTES - len(log.encode_entry(entry(Close("x" * 2**16), "close"), 3, CHAIN, KEYS, SALT)) + 2**16
    stored = log.encode_entry(entry(Close("x" * room), "close"), 3, CHAIN, KEYS, SALT)
    assert len(stored) == limits.ENTRY_BYTES
    assert decode(stored).payload == Close("x" * room)
    with pytest.raises(ValueError, match="bytes"):
        log.encode_entry(entry(Close("x" * (room + 1)), "close"), 3, CHAIN, KEYS, SALT)


@given(st.binary(max_size=120))
def test_arbitrary_bodies_never_raise_anything_else(body: bytes) -> None:
    judged(lambda: decode(sealed(body or b"\0")))
    judged(
        lambda: log.decode_header(
            container.seal_body(log.header_name(REPOSITORY, CHAIN), KEYS, SALT, body or b"\0"), CHAIN, KEYS, "x"
        )
    )
    judged(
        lambda: log.decode_end(
            container.seal_body(log.end_name(REPOSITORY, CHAIN), KEYS, SALT, body or b"\0"), CHAIN, KEYS, "x"
        )
    )


CHANGED: dict[str, Payload] = {
    "commit": commit(requires=(("orcl", 1, some("g", 16)),), reasons=("x",)),
    "expire": Expire((some("g", 16),), "who", "rule"),
    "hold": Hold(some("h", 16), some("g", 16), "who", "why"),
    "damaged": Damaged(1, some("p", 16), "x", 1, 0),
    "condemn": Condemn((3, 1), (some("p", 16),), "old"),
    "close": Close("why"),
}


@pytest.mark.parametrize("kind", CHANGED)
def test_changed_bytes_of_a_body_never_raise_anything_else(kind: str) -> None:
    """The bytes are authentic: this is what a writer with a fault could leave behind."""
    stored = log.encode_entry(entry(CHANGED[kind], kind), 3, CHAIN, KEYS, SALT)
    body = container.open_body(stored, entry_name(), KEYS, "x")
    for at in range(len(body)):
        for value in {0x00, 0x80, 0x91, 0xC0, 0xC3, 0xCA, 0xCF, 0xDD, 0xFF, body[at] ^ 1, body[at] ^ 0x80}:
            judged(lambda a=at, v=value: decode(sealed(body[:a] + bytes([v]) + body[a + 1 :])))
        judged(lambda a=at: decode(sealed(body[:a] or b"\0")))
        judged(lambda a=at: decode(sealed(body[:a] + body[a + 1 :])))
    assert decode(sealed(body)).payload == CHANGED[kind]


def test_errors_name_the_object() -> None:
    with pytest.raises(Corrupt) as caught:
        decode(sealed([]))
    assert caught.value.address == "log/x"


def test_backup_jobs_are_there_again_and_what_a_later_writer_means_is_passed_over() -> None:
    job = log.BackupJob(
        run="r", producer="postgresql", keys=("k",), provides=(("line", 1, 2**63),), lacks=("it requires x",),
        facts=(("kind", "full"),), kit="cp -a",
    )  # fmt: skip
    made = msgspec.structs.replace(commit(), jobs=(job, ["later"], 7))
    entry = decode(sealed(envelope(kind="commit", payload=msgspec.to_builtins(made, builtin_types=(bytes,)))))
    assert isinstance(entry.payload, log.Commit)
    assert list(log.jobs_of(entry.payload)) == [job]
