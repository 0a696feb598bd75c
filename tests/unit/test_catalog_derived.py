"""Derived rows: the same however they came in, and what is asked of them."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog import (
    Catalog,
    ChainRow,
    ChainRows,
    ChainState,
    EntryRow,
    GenerationKind,
    GenerationRow,
    GenerationState,
    HoldRow,
    PackRow,
    PackState,
)
from gateway.errors import UsageError
from gateway.format.log import Statistics
from gateway.model.ids import ChainName

ONE = ChainName("db", 1)
TWO = ChainName("db", 2)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "catalog") as opened:
        yield opened


def chain_row(name: ChainName = ONE, **changes: Any) -> ChainRow:
    row = ChainRow(
        chain=name, created=1, source=name.group, storage="instant", state=ChainState.OPEN, header_digest=b"h" * 32,
        header_size=900, head_sequence=1, head_digest=b"e" * 32,
    )  # fmt: skip
    return dataclasses.replace(row, **changes)


def generation_row(number: int, name: ChainName = ONE, **changes: Any) -> GenerationRow:
    row = GenerationRow(
        source=name.group, number=number, generation=bytes([number]) * 16, chain=name, sequence=number,
        kind=GenerationKind.COMMIT, source_kind="files", begun=1, cut=2, evidence=3, operator="",
        state=GenerationState.PROTECTED, reasons=(), needs=(1, 2), list_depth=0, list_size=10, list_runs=(1, 0, 1),
        requires=(), left_out_count=0, statistics=Statistics(files=1), files=1, bytes=10, stored_bytes=5,
    )  # fmt: skip
    return dataclasses.replace(row, **changes)


def pack_row(number: int, name: ChainName = ONE, **changes: Any) -> PackRow:
    row = PackRow(
        chain=name, number=number, pack_id=number.to_bytes(16), storage="instant", size=100, crc64=2**64 - number,
        index_digest=b"i" * 32, index_size=10, chunks=3, raw=200, bases=(), declared_by=1,
    )  # fmt: skip
    return dataclasses.replace(row, **changes)


# --- any rows --------------------------------------------------------------------------------------------------------

u32 = st.integers(0, 2**32 - 1)
u64 = st.one_of(st.integers(0, 100), st.integers(0, 2**64 - 1))
flat = st.lists(u32, max_size=6).map(tuple)
words = st.text(st.characters(codec="utf-8"), max_size=5)
ids = st.integers(0, 5).map(lambda number: number.to_bytes(16))
digests = st.binary(min_size=32, max_size=32)


def unique(rows: st.SearchStrategy[Any], key: str) -> st.SearchStrategy[Any]:
    return st.lists(rows, max_size=3, unique_by=lambda row: getattr(row, key)).map(tuple)


@st.composite
def chains(draw: st.DrawFn) -> ChainRows:
    name = draw(st.sampled_from([ONE, TWO]))
    few = st.integers(1, 6)
    here = st.just(name)
    chain = st.builds(
        ChainRow, chain=here, created=u64, source=words, storage=words, state=st.sampled_from(ChainState),
        header_digest=digests, header_size=u32, head_sequence=u32, head_digest=digests, problem=words,
    )  # fmt: skip
    entries = st.builds(
        EntryRow, chain=here, sequence=few, digest=digests, size=u32, kind=words, writer=ids, time=u64,
    )  # fmt: skip
    packs = st.builds(
        PackRow, chain=here, number=few, pack_id=ids, storage=words, size=u64, crc64=u64, index_digest=digests,
        index_size=u32, chunks=u32, raw=u64, bases=flat, declared_by=u32, state=st.sampled_from(PackState),
        problem=words,
    )  # fmt: skip
    generations = st.builds(
        GenerationRow, source=words, number=u64, generation=ids, chain=here, sequence=u32,
        kind=st.sampled_from(GenerationKind), source_kind=words, begun=u64, cut=u64, evidence=st.integers(0, 5),
        operator=words, state=st.sampled_from(GenerationState), reasons=st.lists(words, max_size=2).map(tuple),
        needs=flat, list_depth=st.integers(0, 7), list_size=u64, list_runs=flat,
        requires=st.lists(st.tuples(words, u32, ids), max_size=2).map(tuple), left_out_count=u64,
        statistics=st.builds(Statistics, files=u64, milliseconds=u64), files=u64, bytes=u64, stored_bytes=u64,
    )  # fmt: skip
    holds = st.builds(HoldRow, hold=ids, generation=ids, who=words, why=words, chain=here, sequence=u32)
    return ChainRows(
        chain=draw(chain),
        entries=draw(unique(entries, "sequence")),
        packs=draw(unique(packs, "number")),
        generations=draw(unique(generations, "generation")),
        holds=draw(unique(holds, "hold")),
    )


def in_order(rows: ChainRows) -> ChainRows:
    return dataclasses.replace(
        rows,
        entries=tuple(sorted(rows.entries, key=lambda row: row.sequence)),
        packs=tuple(sorted(rows.packs, key=lambda row: row.number)),
        generations=tuple(sorted(rows.generations, key=lambda row: (row.number, row.generation))),
        holds=tuple(sorted(rows.holds, key=lambda row: (row.sequence, row.hold))),
    )


@pytest.fixture(scope="module")
def two_catalogs() -> Iterator[tuple[Catalog, Catalog]]:
    """One that grows, one that is made anew for every example."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Catalog(Path(folder) / "grown") as grown,
        Catalog(Path(folder) / "fresh") as fresh,
    ):
        for catalog in (grown, fresh):
            catalog._database._connection.exec_driver_sql("PRAGMA synchronous=OFF")  # many examples, no power cut
        yield grown, fresh


@given(steps=st.lists(chains(), min_size=1, max_size=4))
def test_rows_written_step_by_step_are_those_of_a_rebuild(
    two_catalogs: tuple[Catalog, Catalog], steps: list[ChainRows]
) -> None:
    grown, fresh = two_catalogs
    for name in (ONE, TWO):
        if all(step.chain.chain != name for step in steps):
            grown.remove_chain(name)
    for step in steps:
        grown.replace_chain(step)
    fresh.clear_derived()
    last = {step.chain.chain: step for step in steps}
    for name, step in last.items():
        fresh.replace_chain(step)
        assert fresh.chain_rows(name) == grown.chain_rows(name) == in_order(step)
        assert grown.chain(name) == step.chain
        assert grown.entries(name) == list(in_order(step).entries)
        assert grown.packs(name) == list(in_order(step).packs)
    assert grown.dump_derived() == fresh.dump_derived()
    assert grown.generations() == fresh.generations()


def test_an_unchanged_row_is_not_written_again(catalog: Catalog) -> None:
    rows = ChainRows(chain=chain_row(), packs=tuple(map(pack_row, range(1, 200))))
    catalog.replace_chain(rows)
    connection = catalog._database._connection.connection.dbapi_connection
    assert connection is not None

    def written() -> int:
        return int(connection.total_changes)

    before = written()
    catalog.replace_chain(dataclasses.replace(rows, packs=(*rows.packs, pack_row(200))))
    assert written() - before == 1  # the new pack
    before = written()
    catalog.replace_chain(dataclasses.replace(rows, packs=rows.packs[1:]))
    assert written() - before == 2  # packs 1 and 200 go


def test_rows_given_again_are_not_even_compared_unless_somebody_else_wrote(catalog: Catalog) -> None:
    rows = ChainRows(chain=chain_row(), packs=tuple(map(pack_row, range(1, 5))))
    selected = 0

    def count(statement: str) -> None:
        nonlocal selected
        selected += statement.startswith("SELECT pack")

    catalog.replace_chain(rows)
    catalog._database._driver.set_trace_callback(count)
    catalog.replace_chain(rows)
    assert selected == 0
    with contextlib.closing(sqlite3.connect(catalog.path, isolation_level=None)) as other:
        other.execute("DELETE FROM pack WHERE number = 2")
    catalog.replace_chain(rows)
    assert catalog.packs(ONE) == list(rows.packs)
    assert selected > 0


@pytest.mark.parametrize("how", ["other rows", "removed", "cleared", "failed"])
def test_rows_given_again_after_a_change_are_written(catalog: Catalog, how: str) -> None:
    rows = ChainRows(chain=chain_row(), packs=tuple(map(pack_row, range(1, 5))))
    other = dataclasses.replace(rows, packs=rows.packs[:2])
    catalog.replace_chain(rows)
    if how == "other rows":
        catalog.replace_chain(other)
    elif how == "removed":
        catalog.remove_chain(ONE)
    elif how == "cleared":
        catalog.clear_derived()
    else:
        catalog.replace_chain(other)
        connection = catalog._database._connection
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connection, "commit", lambda: connection.no_such_thing)
            with pytest.raises(AttributeError):
                catalog.replace_chain(rows)
    catalog.replace_chain(rows)
    assert catalog.packs(ONE) == list(rows.packs)


def test_rows_of_another_chain_are_refused() -> None:
    with pytest.raises(ValueError, match="another chain"):
        ChainRows(chain=chain_row(), packs=(pack_row(1, TWO),))


def test_two_rows_with_one_key_are_refused_and_nothing_is_written(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match="one key"):
        catalog.replace_chain(ChainRows(chain=chain_row(), packs=(pack_row(1), pack_row(1, size=7))))
    assert catalog.chains() == []


def test_a_removed_chain_leaves_nothing_and_touches_no_other(catalog: Catalog) -> None:
    hold = HoldRow(hold=b"1" * 16, generation=b"g" * 16, who="ann", why="audit", chain=ONE, sequence=3)
    catalog.replace_chain(
        ChainRows(chain=chain_row(), packs=(pack_row(1),), generations=(generation_row(1),), holds=(hold,))
    )
    catalog.replace_chain(ChainRows(chain=chain_row(TWO), packs=(pack_row(1, TWO),)))
    assert catalog.holds() == catalog.holds(ONE) == [hold]
    assert catalog.holds(TWO) == []
    catalog.remove_chain(ONE)
    catalog.remove_chain(ONE)
    assert catalog.chain_rows(ONE) is None
    assert catalog.chain(ONE) is None
    assert {table: len(rows) for table, rows in catalog.dump_derived().items()} == {
        "chain": 1, "entry": 0, "pack": 1, "generation": 0, "hold": 0,
    }  # fmt: skip
    assert [row.chain for row in catalog.chains()] == [TWO]
    assert catalog.packs(TWO) == [pack_row(1, TWO)]
    assert catalog.packs(ONE) == []


def test_local_rows_outlive_the_derived_ones(catalog: Catalog) -> None:
    catalog.replace_chain(ChainRows(chain=chain_row()))
    catalog.proved(ONE, 1, b"p" * 16, 5)
    catalog.remember_head(ONE, 4, b"d" * 32)
    catalog.replace_chain(ChainRows(chain=chain_row(storage="deep")))
    catalog.remove_chain(ONE)
    catalog.clear_derived()
    assert catalog.proofs(ONE)[1].when == 5
    assert catalog.heads()[ONE].sequence == 4


# --- generations -----------------------------------------------------------------------------------------------------


def put(catalog: Catalog, *rows: GenerationRow) -> None:
    for name in {row.chain for row in rows}:
        own = tuple(row for row in rows if row.chain == name)
        catalog.replace_chain(ChainRows(chain=chain_row(name), generations=own))


def test_generations_come_by_source_and_number(catalog: Catalog) -> None:
    other = ChainName("a", 1)
    put(catalog, generation_row(2, TWO), generation_row(10, TWO), generation_row(1), generation_row(3, other))
    assert [(row.source, row.number) for row in catalog.generations()] == [("a", 3), ("db", 1), ("db", 2), ("db", 10)]
    assert [row.number for row in catalog.generations("db")] == [1, 2, 10]
    assert catalog.generations("none") == []


def test_a_superseded_checkpoint_does_not_show(catalog: Catalog) -> None:
    checkpoint = generation_row(5, kind=GenerationKind.CHECKPOINT, state=GenerationState.INCOMPLETE, sequence=9)
    put(catalog, generation_row(4), checkpoint)
    assert [row.number for row in catalog.generations("db")] == [4, 5]
    put(catalog, generation_row(4), checkpoint, generation_row(6, sequence=10))
    assert [row.number for row in catalog.generations("db")] == [4, 6]
    put(catalog, generation_row(4), checkpoint, generation_row(6, TWO, sequence=1))
    assert [row.number for row in catalog.generations("db")] == [4, 6]
    assert catalog.next_generation_number("db") == 7
    # Its entry stands before the commit's in the same log, whatever the numbers say.
    late = dataclasses.replace(checkpoint, sequence=20)
    put(catalog, generation_row(4), late, generation_row(6, sequence=10))
    catalog.remove_chain(TWO)
    assert [row.number for row in catalog.generations("db")] == [4, 5, 6]


def test_the_next_number_counts_all_chains_and_states(catalog: Catalog) -> None:
    assert catalog.next_generation_number("db") == 1
    put(catalog, generation_row(7, state=GenerationState.EXPIRED), generation_row(3, TWO))
    assert catalog.next_generation_number("db") == 8
    assert catalog.next_generation_number("other") == 1


def test_only_what_is_protected(catalog: Catalog) -> None:
    states = (GenerationState.PROTECTED, GenerationState.EXPIRED, GenerationState.INCOMPLETE, GenerationState.PROTECTED)
    rows = [generation_row(number, state=state) for number, state in enumerate(states, 1)]
    other = dataclasses.replace(generation_row(9, TWO), source="other")
    put(catalog, *rows, other)
    assert catalog.protected("db") == [rows[0], rows[3]]
    assert catalog.protected() == [row for row in catalog.generations() if row.state is GenerationState.PROTECTED]
    assert len(catalog.protected()) == 3


def test_a_generation_is_found_by_what_an_operator_says(catalog: Catalog) -> None:
    first = generation_row(1, generation=bytes.fromhex("ab12" + "00" * 14))
    second = generation_row(2, generation=bytes.fromhex("ab34" + "00" * 14))
    third = generation_row(3, generation=bytes.fromhex("1234" + "00" * 14), state=GenerationState.INCOMPLETE)
    put(catalog, first, second, third)
    assert catalog.find_generation("db", "latest") == second
    assert catalog.find_generation("db") == second
    assert catalog.find_generation("db", "1") == first
    assert catalog.find_generation("db", "gAB3") == second
    assert catalog.find_generation("db", "ab12") == first
    assert catalog.find_generation("db", "g1") == third


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("ab", ["fits 2", "1 (gab12", "2 (gab34", "more digits"]),
        ("9", ['no generation "9"', "1 (gab12", "2 (gab34"]),
        ("1234", ['no generation "1234"']),
        ("gff", ['no generation "gff"']),
        ("x!", ["does not name a generation"]),
        ("", ["does not name a generation"]),
        ("latest", ["No generation of source", "is protected", "incomplete"]),
    ],
)
def test_what_is_not_found_is_answered_with_what_there_is(catalog: Catalog, spec: str, words: list[str]) -> None:
    state = GenerationState.INCOMPLETE
    put(
        catalog,
        generation_row(1, generation=bytes.fromhex("ab12" + "00" * 14), state=state),
        generation_row(2, generation=bytes.fromhex("ab34" + "00" * 14), state=state),
    )
    with pytest.raises(UsageError) as caught:
        catalog.find_generation("db", spec)
    for word in words:
        assert word in str(caught.value)


def test_many_generations_are_not_all_named(catalog: Catalog) -> None:
    put(catalog, *map(generation_row, range(1, 9)))
    with pytest.raises(UsageError, match=r"8 .*, 7 .*, 6 .*, 5 .* and 4 more"):
        catalog.find_generation("db", "99")


def test_an_unknown_source_is_answered_with_the_known_ones(catalog: Catalog) -> None:
    with pytest.raises(UsageError, match="no chains yet"):
        catalog.find_generation("db")
    put(catalog, generation_row(1))
    with pytest.raises(UsageError, match=r'source "dc".*chains of: db'):
        catalog.find_generation("dc")
