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


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.integers(0, 300), max_size=60), st.integers(1, 6)),
        st.tuples(st.just("remove"), st.just([]), st.integers(1, 6)),
    ),
    max_size=30,
)


@TABLES
@given(operations=OPERATIONS, crowded=st.booleans(), hint=st.sampled_from([0, 10_000]))
@settings(max_examples=150, deadline=None)
def test_against_a_model(
    make: type[Table], operations: list[tuple[str, list[int], int]], crowded: bool, hint: int
) -> None:
    table = make(hint)
    model: dict[bytes, tuple[int, int]] = {}
    for step, (what, numbers, pack) in enumerate(operations):
        if what == "add":
            ids = [key(number, crowded) for number in numbers]
            table.add(b"".join(ids), pack, step * 1000)
            for index, each in enumerate(ids, step * 1000):
                model.setdefault(each, (pack, index))
        else:
            gone = [each for each, place in model.items() if place[0] == pack]
            assert table.remove_pack(pack) == len(gone)
            for each in gone:
                del model[each]
        assert len(table) == len(model)
        everything = [key(number, crowded) for number in range(301)]
        assert lookup(table, everything) == [model.get(each) for each in everything]
        assert table.get(everything[step]) == model.get(everything[step])


@TABLES
def test_many(make: type[Table]) -> None:
    """Through several growths, with packs that go and come back."""
    table = make()
    source = random.Random(5)
    packs = {pack: [source.randbytes(16) for _ in range(200)] for pack in range(1, 501)}
    for pack, ids in packs.items():
        table.add(b"".join(ids), pack, 7)
    for pack in range(1, 501, 2):
        assert table.remove_pack(pack) == 200
        assert table.remove_pack(pack) == 0
    assert len(table) == 50_000
    for pack, ids in packs.items():
        assert lookup(table, ids) == [None if pack % 2 else (pack, 7 + n) for n in range(200)]
    for pack in range(1, 501, 2):
        table.add(b"".join(packs[pack]), pack + 1000, 0)
    assert len(table) == 100_000
    assert lookup(table, packs[499]) == [(1499, n) for n in range(200)]
    assert lookup(table, packs[500]) == [(500, 7 + n) for n in range(200)]


def test_memory() -> None:
    """Between 40 bytes an id (0.6 full) and 80 (just grown), and no more for ids that come and go."""
    table = _id_table.IdTable()
    source = random.Random(6)
    for pack in range(1, 401):
        table.add(source.randbytes(16 * 250), pack, 0)
    assert 40 <= table.memory_bytes() / 100_000 <= 90
    grown = table.memory_bytes()
    for pack in range(1001, 4001):
        table.add(source.randbytes(16 * 250), pack, 0)
        table.remove_pack(pack)
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
    assert table.remove_pack(greatest) == 1
    assert table.get(bytes(16)) is None
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
    for pack in (0, -1, greatest + 1):
        with pytest.raises(ValueError):
            table.remove_pack(pack)
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
