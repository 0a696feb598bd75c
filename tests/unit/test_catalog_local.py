"""Local rows: known files, the upload ledger, proofs, heads, meta, audit."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog import Catalog, Head, KnownFile, PackUpload, Proof, UploadPart, UploadState, known
from gateway.model.entry import Identity
from gateway.model.ids import ChainName

ONE = ChainName("db", 1)
TWO = ChainName("db", 2)
FIRST, SECOND = b"1" * 16, b"2" * 16


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "catalog") as opened:
        yield opened


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "BATCH_ROWS", 3)


def file(path: bytes, version: int = 1) -> KnownFile:
    identity = Identity(2**64 - 1, 2**63, version, -version, 10**18 + version)
    return KnownFile.of(path, identity, 10**18, 3)


def files(*numbers: int, version: int = 1) -> list[KnownFile]:
    return [file(b"%04d" % number, version) for number in numbers]


# --- known files -----------------------------------------------------------------------------------------------------


def test_known_files_come_back_in_the_order_of_a_file_list(catalog: Catalog) -> None:
    paths = [b"a", b"a/b", b"a/\xff", b"a!", b"a.b"]
    catalog.update_known("db", FIRST, [file(path) for path in reversed(paths)])
    back = list(catalog.known_files("db"))
    assert [each.path for each in back] == paths
    assert back[0] == file(b"a")
    assert catalog.known_generation("db") == FIRST
    assert list(catalog.known_files("other")) == []
    assert catalog.known_generation("other") is None


@pytest.mark.parametrize("count", range(8))
@pytest.mark.usefixtures("small_batches")
def test_pages_of_every_filling_are_read_and_written(catalog: Catalog, count: int) -> None:
    catalog.update_known("db", FIRST, files(*range(count)))
    catalog.update_known("dc", FIRST, files(77))
    assert list(catalog.known_files("db")) == files(*range(count))
    catalog.update_known("db", SECOND, files(*range(0, count, 2), version=2), [each.key for each in files(*range(5))])
    expected = {each.key: each for each in files(*range(5, count))}
    expected |= {each.key: each for each in files(*range(0, count, 2), version=2)}
    assert list(catalog.known_files("db")) == [expected[key] for key in sorted(expected)]
    assert catalog.known_generation("db") == SECOND
    catalog.forget_known("db")
    assert list(catalog.known_files("db")) == []
    assert catalog.known_generation("db") is None
    assert list(catalog.known_files("dc")) == files(77)


@pytest.mark.usefixtures("small_batches")
def test_known_files_may_be_read_while_they_are_written(catalog: Catalog) -> None:
    catalog.update_known("db", FIRST, files(*range(20)))

    def newer() -> Iterator[KnownFile]:
        for each in catalog.known_files("db"):
            catalog.set_meta("at", each.path.decode())  # writes of others in between
            if each.identity.size == 1:
                yield file(each.path, 2)

    catalog.update_known("db", SECOND, newer())
    assert list(catalog.known_files("db")) == files(*range(20), version=2)


class StopHere(Exception):
    pass


@pytest.mark.usefixtures("small_batches")
def test_a_half_updated_table_is_never_trusted(catalog: Catalog) -> None:
    catalog.update_known("db", FIRST, files(*range(10)))

    def breaking() -> Iterator[KnownFile]:
        yield from files(*range(20, 27), version=2)
        raise StopHere

    with pytest.raises(StopHere):
        catalog.update_known("db", SECOND, breaking())
    assert catalog.known_generation("db") is None
    assert list(catalog.known_files("db")) == []
    # Also when the next update is small: nothing of the half one is left.
    catalog.update_known("db", SECOND, files(1))
    assert list(catalog.known_files("db")) == files(1)
    assert catalog.known_generation("db") == SECOND


def test_an_update_that_fails_before_its_first_batch_changes_nothing(catalog: Catalog) -> None:
    catalog.update_known("db", FIRST, files(1))

    def breaking() -> Iterator[KnownFile]:
        yield file(b"x")
        raise StopHere

    with pytest.raises(StopHere):
        catalog.update_known("db", SECOND, breaking())
    assert catalog.known_generation("db") == FIRST
    assert list(catalog.known_files("db")) == files(1)


def test_forgetting_what_was_never_known_is_no_error(catalog: Catalog) -> None:
    catalog.forget_known("db")
    assert catalog.known_generation("db") is None


@pytest.fixture(scope="module")
def shared() -> Iterator[Catalog]:
    with tempfile.TemporaryDirectory() as folder, Catalog(Path(folder) / "catalog") as opened:
        opened._database._connection.exec_driver_sql("PRAGMA synchronous=OFF")  # many examples, no power cut
        yield opened


paths = st.binary(min_size=1, max_size=4).filter(lambda path: b"\0" not in path)


@given(
    updates=st.lists(
        st.tuples(st.dictionaries(paths, st.integers(-(2**63), 2**63 - 1), max_size=9), st.sets(paths, max_size=9)),
        max_size=4,
    ),
    batch=st.integers(1, 5),
)
def test_updates_are_those_of_a_dictionary(
    shared: Catalog, updates: list[tuple[dict[bytes, int], set[bytes]]], batch: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known, "BATCH_ROWS", batch)
        shared.forget_known("db")
        model: dict[bytes, KnownFile] = {}
        for puts, deletes in updates:
            rows = [KnownFile.of(path, Identity(1, 2, 3, when, when), when, 1) for path, when in puts.items()]
            keys = [path.replace(b"/", b"\0") for path in deletes]
            shared.update_known("db", FIRST, rows, keys)
            for key in keys:
                model.pop(key, None)
            model |= {row.key: row for row in rows}
            assert list(shared.known_files("db")) == [model[key] for key in sorted(model)]


# --- the upload ledger -----------------------------------------------------------------------------------------------


def upload(number: int, chain: ChainName = ONE, **changes: Any) -> PackUpload:
    row = PackUpload(
        chain=chain, number=number, pack_id=number.to_bytes(16), storage="instant", size=2**40, crc64=2**64 - 1,
        index_digest=b"i" * 32, index_size=10, chunks=3, raw=200, bases=(1, 2, 7, 1), generation=FIRST,
    )  # fmt: skip
    return dataclasses.replace(row, **changes)


def test_the_ledger_follows_an_upload(catalog: Catalog) -> None:
    catalog.ledger_add(upload(2))
    catalog.ledger_add(upload(1))
    catalog.ledger_add(upload(1, TWO))
    assert catalog.ledger() == [upload(1), upload(2), upload(1, TWO)]
    assert catalog.ledger(TWO) == [upload(1, TWO)]

    catalog.ledger_upload(ONE, 1, "u1")
    assert catalog.ledger(ONE)[0] == upload(1, upload_id="u1", state=UploadState.SENDING)
    before = UploadPart(number=1, size=5, etag="", crc64=2**63)
    after = dataclasses.replace(before, etag='"e"')
    catalog.ledger_part(ONE, 1, dataclasses.replace(before, number=2))
    catalog.ledger_part(ONE, 1, before)
    catalog.ledger_part(ONE, 1, after)
    assert catalog.ledger_parts(ONE, 1) == [after, dataclasses.replace(before, number=2)]
    assert catalog.ledger_parts(ONE, 2) == []

    catalog.ledger_state(ONE, 1, UploadState.STORED)
    assert catalog.ledger(ONE)[0] == upload(1, upload_id="u1", state=UploadState.STORED)
    catalog.ledger_remove(ONE, [1, 9])
    catalog.ledger_remove(ONE, [])
    assert catalog.ledger() == [upload(2), upload(1, TWO)]
    assert catalog.ledger_parts(ONE, 1) == []


def test_parts_belong_to_one_upload(catalog: Catalog) -> None:
    part = UploadPart(number=1, size=5, etag="e", crc64=0)
    catalog.ledger_add(upload(1))
    catalog.ledger_upload(ONE, 1, "u1")
    catalog.ledger_part(ONE, 1, part)
    catalog.ledger_upload(ONE, 1, "u1")
    assert catalog.ledger_parts(ONE, 1) == [part]
    catalog.ledger_upload(ONE, 1, "u2")
    assert catalog.ledger_parts(ONE, 1) == []
    catalog.ledger_part(ONE, 1, part)
    catalog.ledger_upload(ONE, 1, None)
    assert catalog.ledger_parts(ONE, 1) == []
    assert catalog.ledger() == [upload(1)]


def test_a_number_in_the_ledger_is_one_packs(catalog: Catalog) -> None:
    catalog.ledger_add(upload(1))
    catalog.ledger_upload(ONE, 1, "u1")
    catalog.ledger_part(ONE, 1, UploadPart(number=1, size=5, etag="e", crc64=0))
    with pytest.raises(ValueError, match="another id"):
        catalog.ledger_add(upload(1, pack_id=b"x" * 16))
    again = upload(1, upload_id="u1", state=UploadState.SENDING)
    catalog.ledger_add(again)
    assert catalog.ledger() == [again]
    assert len(catalog.ledger_parts(ONE, 1)) == 1


def test_a_pack_that_is_not_in_the_ledger_has_no_upload(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match="not in the ledger"):
        catalog.ledger_state(ONE, 1, UploadState.STORED)
    with pytest.raises(ValueError, match="not in the ledger"):
        catalog.ledger_upload(ONE, 1, "u")
    with pytest.raises(ValueError, match="not in the ledger"):
        catalog.ledger_part(ONE, 1, UploadPart(number=1, size=5, etag="e", crc64=0))
    assert catalog.ledger() == []


# --- marks -----------------------------------------------------------------------------------------------------------


def test_a_proof_of_a_pack_only_gets_newer(catalog: Catalog) -> None:
    catalog.proved(ONE, 1, FIRST, 50)
    catalog.proved(ONE, 1, FIRST, 40)
    catalog.proved_all(ONE, [Proof(number=2, pack_id=FIRST, when=1), Proof(number=3, pack_id=FIRST, when=1)])
    catalog.proved_all(ONE, [])
    assert {number: proof.when for number, proof in catalog.proofs(ONE).items()} == {1: 50, 2: 1, 3: 1}
    catalog.proved(ONE, 1, SECOND, 30)  # another pack of that number: its own date
    assert catalog.proofs(ONE)[1] == Proof(number=1, pack_id=SECOND, when=30)
    assert catalog.proofs(TWO) == {}
    catalog.forget_proofs(ONE, [1, 7])
    assert set(catalog.proofs(ONE)) == {2, 3}
    catalog.forget_proofs(ONE)
    assert catalog.proofs(ONE) == {}


def test_a_head_never_goes_back_unless_forced(catalog: Catalog) -> None:
    assert catalog.remember_head(ONE, 5, b"a" * 32)
    assert catalog.remember_head(ONE, 5, b"a" * 32)
    assert not catalog.remember_head(ONE, 4, b"b" * 32)
    assert not catalog.remember_head(ONE, 5, b"b" * 32)
    assert catalog.heads() == {ONE: Head(sequence=5, digest=b"a" * 32)}
    assert catalog.remember_head(ONE, 6, b"c" * 32)
    assert catalog.remember_head(TWO, 1, b"t" * 32)
    assert catalog.remember_head(ONE, 2, b"d" * 32, force=True)
    assert catalog.heads() == {ONE: Head(sequence=2, digest=b"d" * 32), TWO: Head(sequence=1, digest=b"t" * 32)}


def test_meta_is_set_changed_and_removed(catalog: Catalog) -> None:
    assert catalog.meta("repository") is None
    catalog.set_meta("repository", "ab")
    catalog.set_meta("repository", "cd")
    assert catalog.meta("repository") == "cd"
    catalog.set_meta("repository", None)
    assert catalog.meta("repository") is None


def test_audit_rows_are_kept_in_order_and_in_any_text(catalog: Catalog) -> None:
    catalog.audit("ann", "hold", 10)
    catalog.audit("bob", "release", 5, b"caf\xe9".decode("utf-8", "surrogateescape"))
    rows = catalog.audits()
    assert [(row.who, row.when) for row in rows] == [("bob", 5), ("ann", 10)]
    assert rows[0].detail == "caf\\udce9"
    assert len(catalog.audits(limit=1)) == 1
