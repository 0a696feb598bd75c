"""The table of chunk ids, in C and as a dict, against a model."""

from __future__ import annotations

import os
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.format import _id_table
from gateway.repository import id_table
from gateway.repository.id_table import DictIdTable

Table = _id_table.IdTable | DictIdTable
TABLES = pytest.mark.parametrize("make", [_id_table.IdTable, DictIdTable])


def key(number: int, crowded: bool) -> bytes:
    """Crowded ones all want the same slot, or the last ones of a part."""
    if crowded:
        return b"\xff" * 8 + number.to_bytes(8, "little")
    return random.Random(number).randbytes(16)


def lookup(table: Table, ids: list[bytes]) -> list[tuple[int, int] | None]:
    places = [(pack, index) for pack, index in struct.iter_unpack("<II", table.lookup(b"".join(ids)))]
    assert all(place == (0, 0) for place in places if place[0] == 0)
    return [place if place[0] else None for place in places]


def records(table: Table) -> dict[bytes, tuple[int, int]]:
    joined = table.records()
    assert len(joined) == 24 * len(table)
    found = {each: (pack, index) for each, pack, index in struct.iter_unpack("<16sII", joined)}
    assert len(found) == len(table)
    return found


ADDITIONS = st.lists(st.tuples(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 6)), max_size=30)


@TABLES
@given(additions=ADDITIONS, crowded=st.booleans(), hint=st.sampled_from([0, 10_000]))
@settings(max_examples=150, deadline=None)
def test_against_a_model(make: type[Table], additions: list[tuple[list[int], int]], crowded: bool, hint: int) -> None:
    table = make(hint)
    model: dict[bytes, tuple[int, int]] = {}
    everything = [key(number, crowded) for number in range(301)]
    for step, (numbers, pack) in enumerate(additions):
        ids = [everything[number] for number in numbers]
        table.add(b"".join(ids), pack, step * 1000)
        for index, each in enumerate(ids, step * 1000):
            model[each] = (pack, index)
        assert len(table) == len(model)
        assert lookup(table, everything) == [model.get(each) for each in everything]
        assert table.get(everything[step]) == model.get(everything[step])
    assert records(table) == model


@TABLES
def test_many(make: type[Table]) -> None:
    """Through several growths, with packs that come twice."""
    table = make()
    source = random.Random(5)
    packs = {pack: [source.randbytes(16) for _ in range(200)] for pack in range(1, 501)}
    before = table.memory_bytes()
    for pack, ids in packs.items():
        table.add(b"".join(ids), pack, 7)
    assert table.memory_bytes() > 4 * before
    for pack in range(1, 501, 2):
        table.add(b"".join(packs[pack]), pack + 1000, 0)
    assert len(table) == 100_000
    newest = {pack: (pack + 1000, 0) if pack % 2 else (pack, 7) for pack in packs}
    for pack, ids in packs.items():
        assert lookup(table, ids) == [(newest[pack][0], newest[pack][1] + n) for n in range(200)]
    assert records(table) == {
        each: (newest[pack][0], newest[pack][1] + n) for pack, ids in packs.items() for n, each in enumerate(ids)
    }


@TABLES
@pytest.mark.parametrize("hint", [0, 10_000])
def test_records_of_an_empty_table(make: type[Table], hint: int) -> None:
    assert make(hint).records() == b""


@TABLES
def test_records_byte_for_byte(make: type[Table]) -> None:
    """Little-endian, an id of zeros and pack and index of all sizes; of a duplicate the last place counts."""
    table = make()
    table.add(bytes(16) + bytes(16), 0x01020304, 0)
    assert table.records() == bytes(16) + b"\x04\x03\x02\x01" + b"\x01" + bytes(3)
    table.add(bytes(16) + b"\xff" * 16 + bytes(16), 0xFFFFFFFF, 0xA0B0C0D0)
    got = table.records()
    assert {got[:24], got[24:]} == {
        bytes(16) + b"\xff" * 4 + b"\xd2\xc0\xb0\xa0",
        b"\xff" * 16 + b"\xff" * 4 + b"\xd1\xc0\xb0\xa0",
    }


def test_memory() -> None:
    """Between 40 bytes an id (0.6 full) and 80 (just grown), and no more for ids that come twice."""
    table = _id_table.IdTable()
    source = random.Random(6)
    packs = [source.randbytes(16 * 250) for _ in range(400)]
    for pack, ids in enumerate(packs, 1):
        table.add(ids, pack, 0)
    assert 40 <= table.memory_bytes() / 100_000 <= 90
    grown = table.memory_bytes()
    for pack, ids in enumerate(packs, 1001):
        table.add(ids, pack, 0)
    assert table.memory_bytes() <= 2 * grown
    assert len(table) == 100_000

    table = _id_table.IdTable(100_000)
    before = table.memory_bytes()
    for pack in range(1, 401):
        table.add(source.randbytes(16 * 250), pack, 0)
    assert table.memory_bytes() == before


@TABLES
def test_greatest_numbers(make: type[Table]) -> None:
    table = make()
    greatest = (1 << 32) - 1
    table.add(bytes(16), greatest, greatest)
    assert table.get(bytes(16)) == (greatest, greatest)
    assert table.lookup(memoryview(bytearray(16))) == b"\xff" * 8
    table.add(b"", 1, greatest)
    assert table.lookup(b"") == b""
    assert table.memory_bytes() > 0


@TABLES
def test_what_is_refused_changes_nothing(make: type[Table]) -> None:
    table = make()
    greatest = (1 << 32) - 1
    for ids, pack, index in [
        (bytes(15), 1, 0),
        (bytes(16), 0, 0),
        (bytes(16), greatest + 1, 0),
        (bytes(16), 1, -1),
        (bytes(16), 1, greatest + 1),
        (bytes(32), 1, greatest),
    ]:
        with pytest.raises(ValueError):
            table.add(ids, pack, index)
    for ids in (bytes(1), bytes(17)):
        with pytest.raises(ValueError):
            table.lookup(ids)
        with pytest.raises(ValueError):
            table.get(ids)
    with pytest.raises(ValueError):
        make(-1)
    assert len(table) == 0


def test_a_size_no_machine_has() -> None:
    with pytest.raises(MemoryError):
        _id_table.IdTable((1 << 63) - 1)


def test_the_compiled_table_is_taken_where_it_is() -> None:
    forced = os.environ.get("GATEWAY_NO_KERNEL") == "1"
    assert id_table.IdTable is (DictIdTable if forced else _id_table.IdTable)
