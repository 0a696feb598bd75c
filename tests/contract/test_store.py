"""The contract of `gateway.store.port`, on all adapters."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from gateway.errors import (
    AnswerUnknown,
    Corrupt,
    ObjectExists,
    ObjectMissing,
    StoreError,
    StoreRefused,
)
from gateway.store.crc import crc64
from gateway.store.port import MAX_PUT_BYTES, MIN_PART_BYTES, ObjectFacts, ObjectStore, Part
from tests.contract.stores import Subject

FIRST = bytes(range(256)) * (MIN_PART_BYTES // 256)
SECOND = b"and a tail"


def put(store: ObjectStore, key: str, data: bytes, *, if_absent: bool = False) -> ObjectFacts:
    return store.put(key, data, crc64=crc64(data), if_absent=if_absent)


def part(store: ObjectStore, key: str, upload_id: str, number: int, data: bytes) -> Part:
    return store.put_part(key, upload_id, number, data, crc64=crc64(data))


def keys(store: ObjectStore, prefix: str, after: str = "") -> list[str]:
    return [facts.key for facts in store.list_objects(prefix, after=after)]


class TestPut:
    def test_what_was_put_is_there(self, subject: Subject) -> None:
        store = subject.store
        facts = put(store, "a/b/c", b"hello")
        assert (facts.key, facts.size) == ("a/b/c", 5)
        assert facts.crc64 in (None, crc64(b"hello"))
        assert store.get("a/b/c") == b"hello"
        head = store.head("a/b/c")
        assert (head.key, head.size, head.storage_class) == ("a/b/c", 5, "STANDARD")
        assert head.modified is not None
        assert head.modified.utcoffset() == timedelta(0)
        assert keys(store, "") == ["a/b/c"]

    def test_checksum_is_stated(self, subject: Subject) -> None:
        put(subject.store, "a", b"hello")
        assert subject.store.states_checksums == subject.habits.states_checksums
        assert subject.store.head("a").crc64 == (crc64(b"hello") if subject.habits.states_checksums else None)

    def test_replaces(self, subject: Subject) -> None:
        put(subject.store, "a", b"one")
        put(subject.store, "a", b"the other")
        assert subject.store.get("a") == b"the other"
        assert subject.store.head("a").size == 9

    def test_empty(self, subject: Subject) -> None:
        put(subject.store, "a", b"")
        assert subject.store.head("a").size == 0
        assert subject.store.get("a") == b""

    def test_any_buffer(self, subject: Subject) -> None:
        data = memoryview(bytearray(b"0123456789" * 300_000))[7:]
        subject.store.put("a", data, crc64=crc64(data))
        assert subject.store.get("a") == data

    def test_too_large(self, subject: Subject) -> None:
        data = memoryview(bytearray(MAX_PUT_BYTES + 1))
        with pytest.raises(ValueError):
            subject.store.put("a", data, crc64=0)

    def test_bad_keys(self, subject: Subject) -> None:
        for key in ("", "/a", "a/", "a//b", "a/../b", ".", "a/./b", "ä", "a\nb", "x" * 1025):
            with pytest.raises(ValueError):
                put(subject.store, key, b"x")
            with pytest.raises(ValueError):
                subject.store.get(key)
            with pytest.raises(ValueError):
                subject.store.head(key)
            with pytest.raises(ValueError):
                subject.store.delete(key)
            with pytest.raises(ValueError):
                subject.store.start_upload(key)

    def test_if_absent(self, subject: Subject) -> None:
        put(subject.store, "a", b"mine", if_absent=True)
        with pytest.raises(ObjectExists):
            put(subject.store, "a", b"other", if_absent=True)
        with pytest.raises(ObjectExists):
            put(subject.store, "a", b"mine", if_absent=True)
        assert subject.store.get("a") == b"mine"

    def test_if_absent_has_one_winner(self, subject: Subject) -> None:
        barrier = threading.Barrier(6)

        def race(number: int) -> int | None:
            barrier.wait()
            try:
                put(subject.store, "a", b"writer %d" % number, if_absent=True)
            except (StoreError, Corrupt):
                return None
            return number

        with ThreadPoolExecutor(6) as pool:
            winners = [number for number in pool.map(race, range(6)) if number is not None]
        assert len(winners) == 1
        assert subject.store.get("a") == b"writer %d" % winners[0]

    def test_wrong_checksum(self, subject: Subject) -> None:
        def damaged() -> object:
            return subject.store.put("a", b"hello", crc64=crc64(b"hallo"))

        if subject.habits.refuses_bad_checksum:
            with pytest.raises(Corrupt):
                damaged()
            with pytest.raises(ObjectMissing):
                subject.store.head("a")
        else:
            damaged()

    def test_class(self, subject: Subject) -> None:
        store = subject.store
        store.put("a", b"x", crc64=crc64(b"x"), storage_class="GLACIER_IR")
        expected = "GLACIER_IR" if subject.habits.knows_classes else "STANDARD"
        assert store.knows_classes == subject.habits.knows_classes
        assert store.head("a").storage_class == expected
        assert [facts.storage_class for facts in store.list_objects("")] == [expected]
        assert store.get("a") == b"x"


class TestGet:
    def test_ranges(self, subject: Subject) -> None:
        data = bytes(range(256)) * 40
        put(subject.store, "a", data)
        for start, length in [(0, 1), (0, len(data)), (17, 1000), (len(data) - 1, 1), (0, None), (5, None)]:
            end = None if length is None else start + length
            assert subject.store.get("a", start=start, length=length) == data[start:end]

    def test_behind_the_end(self, subject: Subject) -> None:
        put(subject.store, "a", b"12345")
        put(subject.store, "empty", b"")
        for key, start, length in [("a", 0, 6), ("a", 4, 2), ("a", 5, 1), ("a", 9, None), ("a", 5, None)]:
            with pytest.raises(Corrupt):
                subject.store.get(key, start=start, length=length)
        with pytest.raises(Corrupt):
            subject.store.get("empty", start=0, length=1)

    def test_no_range(self, subject: Subject) -> None:
        put(subject.store, "a", b"12345")
        for start, length in [(0, 0), (-1, None), (0, -1)]:
            with pytest.raises(ValueError):
                subject.store.get("a", start=start, length=length)

    def test_missing(self, subject: Subject) -> None:
        put(subject.store, "a/b", b"x")
        for key in ("b", "a", "a/b/c", "a/c"):
            with pytest.raises(ObjectMissing):
                subject.store.get(key)
            with pytest.raises(ObjectMissing):
                subject.store.get(key, start=1, length=1)
            with pytest.raises(ObjectMissing):
                subject.store.head(key)


class TestList:
    NAMES = ("a-b", "a.b", "a/b", "a/c-d", "a/c/d", "a/c0", "a0/b", "aa", "b", "b-/x", "b/x", "c d+e%2F&f")

    def fill(self, store: ObjectStore) -> None:
        for name in self.NAMES:
            if name != "b":  # a directory cannot hold `b` and `b/x`
                put(store, name, name.encode())

    def test_byte_order(self, subject: Subject) -> None:
        self.fill(subject.store)
        expected = sorted(name for name in self.NAMES if name != "b")
        assert keys(subject.store, "") == expected
        assert [facts.size for facts in subject.store.list_objects("")] == [len(name) for name in expected]

    def test_prefix(self, subject: Subject) -> None:
        self.fill(subject.store)
        for prefix in ("a", "a/", "a/c", "a/c/", "a/c/d", "a/c/d/", "b", "x", "x/y/", "a-", "c d"):
            expected = sorted(name for name in self.NAMES if name != "b" and name.startswith(prefix))
            assert keys(subject.store, prefix) == expected, prefix

    def test_after(self, subject: Subject) -> None:
        self.fill(subject.store)
        for prefix in ("", "a/"):
            for after in ("a", "a-b", "a.b", "a/", "a/b", "a/c-d", "a/c/d", "b/x", "zz"):
                below = sorted(name for name in self.NAMES if name != "b" and name.startswith(prefix))
                assert keys(subject.store, prefix, after) == [name for name in below if name > after], (prefix, after)

    def test_lazy(self, subject: Subject) -> None:
        self.fill(subject.store)
        listing = subject.store.list_objects("")
        assert next(listing).key == "a-b"
        assert next(listing).key == "a.b"

    def test_many_pages(self, subject: Subject) -> None:
        names = [f"log/{number:08d}" for number in range(25)]
        for name in names:
            put(subject.store, name, b"")
        assert keys(subject.store, "log/") == names
        assert keys(subject.store, "") == names

    def test_sees_every_change(self, subject: Subject) -> None:
        put(subject.store, "a", b"1")
        put(subject.store, "b", b"2")
        subject.store.delete("a")
        assert keys(subject.store, "") == ["b"]
        assert keys(subject.reopen(), "") == ["b"]


class TestDelete:
    def test_idempotent(self, subject: Subject) -> None:
        put(subject.store, "a/b", b"x")
        subject.store.delete("a/b")
        subject.store.delete("a/b")
        subject.store.delete("never/was/there")
        with pytest.raises(ObjectMissing):
            subject.store.head("a/b")
        assert keys(subject.store, "") == []
        put(subject.store, "a/b", b"again", if_absent=True)
        assert subject.store.get("a/b") == b"again"


class TestUpload:
    WHOLE = FIRST + SECOND

    def test_two_parts(self, subject: Subject) -> None:
        store = subject.store
        upload_id = store.start_upload("m/x", storage_class="GLACIER_IR")
        second = part(store, "m/x", upload_id, 2, SECOND)
        first = part(store, "m/x", upload_id, 1, FIRST)
        assert keys(store, "") == []
        with pytest.raises(ObjectMissing):
            store.head("m/x")
        facts = store.complete_upload("m/x", upload_id, [first, second], size=len(self.WHOLE), crc64=crc64(self.WHOLE))
        assert (facts.key, facts.size) == ("m/x", len(self.WHOLE))
        assert facts.crc64 == (crc64(self.WHOLE) if subject.habits.states_checksums else None)
        assert facts == store.head("m/x")
        assert facts.storage_class == ("GLACIER_IR" if subject.habits.knows_classes else "STANDARD")
        assert store.get("m/x") == self.WHOLE
        assert store.get("m/x", start=MIN_PART_BYTES - 1, length=3) == self.WHOLE[MIN_PART_BYTES - 1 :][:3]
        assert keys(store, "") == ["m/x"]
        assert store.list_uploads("") == []

    def test_resume_elsewhere(self, subject: Subject) -> None:
        upload_id = subject.store.start_upload("m/x")
        first = part(subject.store, "m/x", upload_id, 1, FIRST)
        other = subject.reopen()
        held = other.list_parts("m/x", upload_id)
        assert [(each.number, each.size, each.etag) for each in held] == [(1, len(FIRST), first.etag)]
        assert held[0].crc64 in (None, crc64(FIRST))
        uploads = other.list_uploads("m/")
        assert [(upload.key, upload.upload_id) for upload in uploads] == [("m/x", upload_id)]
        assert uploads[0].initiated is not None
        assert other.list_uploads("n/") == []
        second = part(other, "m/x", upload_id, 2, SECOND)
        other.complete_upload("m/x", upload_id, [*held, second], size=len(self.WHOLE), crc64=crc64(self.WHOLE))
        assert other.get("m/x") == self.WHOLE

    def test_a_part_sent_again_replaces(self, subject: Subject) -> None:
        store = subject.store
        upload_id = store.start_upload("a")
        stale = part(store, "a", upload_id, 1, b"one")
        fresh = part(store, "a", upload_id, 1, b"the other")
        listed = store.list_parts("a", upload_id)
        assert [each.number for each in listed] == [1]
        if subject.habits.forgets_replaced_parts:
            assert listed[0].etag == fresh.etag
            with pytest.raises((StoreRefused, Corrupt)):
                store.complete_upload("a", upload_id, [stale], size=3, crc64=crc64(b"one"))
        else:
            assert listed[0].etag in (stale.etag, fresh.etag)
        store.complete_upload("a", upload_id, [fresh], size=9, crc64=crc64(b"the other"))
        assert store.get("a") == b"the other"

    def test_a_part_sent_twice_is_one(self, subject: Subject) -> None:
        store = subject.store
        upload_id = store.start_upload("a")
        first = part(store, "a", upload_id, 1, b"the same")
        again = part(store, "a", upload_id, 1, b"the same")
        assert first == again
        assert [(each.number, each.etag) for each in store.list_parts("a", upload_id)] == [(1, first.etag)]
        store.complete_upload("a", upload_id, [first], size=8, crc64=crc64(b"the same"))
        assert store.get("a") == b"the same"

    def test_only_the_named_parts(self, subject: Subject) -> None:
        store = subject.store
        upload_id = store.start_upload("a")
        part(store, "a", upload_id, 3, b"not this one")
        only = part(store, "a", upload_id, 1, b"this")
        store.complete_upload("a", upload_id, [only], size=4, crc64=crc64(b"this"))
        assert store.get("a") == b"this"

    def test_parts_never_sent(self, subject: Subject) -> None:
        store = subject.store
        upload_id = store.start_upload("a")
        part(store, "a", upload_id, 2, b"x")
        with pytest.raises(StoreRefused):
            store.complete_upload("a", upload_id, [Part(number=1, size=1, etag='"0123"')], size=1, crc64=0)
        with pytest.raises(ObjectMissing):
            store.head("a")

    def test_small_parts(self, subject: Subject) -> None:
        store = subject.store
        upload_id = store.start_upload("a")
        parts = [part(store, "a", upload_id, number, b"small") for number in (1, 2)]

        def complete() -> object:
            return store.complete_upload("a", upload_id, parts, size=10, crc64=crc64(b"smallsmall"))

        if subject.habits.refuses_small_parts:
            with pytest.raises(StoreRefused):
                complete()
        else:
            complete()
            assert store.get("a") == b"smallsmall"

    def test_wrong_size_or_checksum_is_never_success(self, subject: Subject) -> None:
        store = subject.store
        for size, crc in [(4, crc64(b"thas")), (5, crc64(b"this"))]:
            upload_id = store.start_upload("a")
            only = part(store, "a", upload_id, 1, b"this")
            if subject.habits.states_checksums or size != 4:
                with pytest.raises((Corrupt, StoreRefused)):
                    store.complete_upload("a", upload_id, [only], size=size, crc64=crc)

    def test_wrong_part_checksum(self, subject: Subject) -> None:
        store = subject.store
        upload_id = store.start_upload("a")

        def damaged() -> object:
            return store.put_part("a", upload_id, 1, b"hello", crc64=crc64(b"hallo"))

        if subject.habits.refuses_bad_part_checksum:
            with pytest.raises(Corrupt):
                damaged()
            assert store.list_parts("a", upload_id) == []
        else:
            damaged()

    def test_part_numbers(self, subject: Subject) -> None:
        upload_id = subject.store.start_upload("a")
        for number in (0, -1, 10_001):
            with pytest.raises(ValueError):
                part(subject.store, "a", upload_id, number, b"x")

    def test_abort(self, subject: Subject) -> None:
        store = subject.store
        upload_id = store.start_upload("a")
        only = part(store, "a", upload_id, 1, b"x")
        store.abort_upload("a", upload_id)
        store.abort_upload("a", upload_id)
        assert store.list_uploads("") == []
        with pytest.raises(ObjectMissing):
            store.list_parts("a", upload_id)
        expected = ObjectMissing if subject.habits.knows_that_uploads_end else AnswerUnknown
        with pytest.raises(expected):
            store.complete_upload("a", upload_id, [only], size=1, crc64=crc64(b"x"))
        with pytest.raises(expected):
            part(store, "a", upload_id, 1, b"x")
        assert keys(store, "") == []

    def test_complete_again(self, subject: Subject) -> None:
        store = subject.store
        upload_id = store.start_upload("a")
        only = part(store, "a", upload_id, 1, b"x")
        facts = store.complete_upload("a", upload_id, [only], size=1, crc64=crc64(b"x"))
        try:
            again = store.complete_upload("a", upload_id, [only], size=1, crc64=crc64(b"x"))
        except ObjectMissing:
            pass  # the upload is not known any more
        else:
            assert again.size == facts.size
        assert store.get("a") == b"x"

    def test_two_uploads_of_one_key(self, subject: Subject) -> None:
        store = subject.store
        one, other = store.start_upload("a"), store.start_upload("a")
        assert one != other
        assert {upload.upload_id for upload in store.list_uploads("a")} == {one, other}
        parts = {upload_id: part(store, "a", upload_id, 1, upload_id.encode()) for upload_id in (one, other)}
        for upload_id in (one, other):
            data = upload_id.encode()
            store.complete_upload("a", upload_id, [parts[upload_id]], size=len(data), crc64=crc64(data))
            assert store.get("a") == data
