"""Checksums, meters, fault scripts, the pace: the small values of the store room."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import FakeClock
from gateway.errors import (
    AnswerUnknown,
    ClockSkew,
    Conflict,
    Corrupt,
    GatewayError,
    ObjectCold,
    ObjectMissing,
    StoreDenied,
    StoreRefused,
    StoreUnreachable,
    UsageError,
)
from gateway.store import crc
from gateway.store.faults import Fault, FaultRule, Faults, FaultyStore, flipped, parse_faults
from gateway.store.lifecycle import Lifecycle
from gateway.store.limit import LimitedStore, Pace
from gateway.store.memory import MemoryStore
from gateway.store.meter import CountingStore, Meter, Operation, Traffic
from gateway.store.port import Part, ThawTier, check_key
from gateway.store.s3 import S3Settings


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 1, 1, 12, 0, 0, 999_999, tzinfo=UTC), seed=b"values")


class TestCrc:
    def test_check_value(self) -> None:
        """CRC-64/NVME of "123456789", from the catalogue of parametrised CRC algorithms."""
        assert crc.crc64(b"123456789") == 0xAE8B14860A799888
        assert crc.encode(0xAE8B14860A799888) == "rosUhgp5mIg="

    @given(pieces=st.lists(st.binary(max_size=300), max_size=6))
    def test_combine(self, pieces: list[bytes]) -> None:
        whole = b"".join(pieces)
        assert crc.combine_all((crc.crc64(piece), len(piece)) for piece in pieces) == crc.crc64(whole)
        running = 0
        for piece in pieces:
            running = crc.crc64(piece, running)
        assert running == crc.crc64(whole)

    @given(value=st.integers(0, 2**64 - 1))
    def test_coding(self, value: int) -> None:
        assert crc.decode(crc.encode(value)) == value

    @pytest.mark.parametrize("text", ["", "AAAA", "AAAAAAAAAAA=-3", "AAAAAAAAAAAA", "ÄAAAAAAAAAA=", "AAAA AAAAAAA="])
    def test_not_a_checksum(self, text: str) -> None:
        with pytest.raises(ValueError):
            crc.decode(text)


class TestFaults:
    def test_parse(self) -> None:
        assert parse_faults("put:3=503, get@/log/:7-9=flip,complete:*=lost,list:2+=stale") == (
            FaultRule(operation=Operation.PUT, fault=Fault.UNREACHABLE, first=3, last=3),
            FaultRule(operation=Operation.GET, fault=Fault.FLIP, text="/log/", first=7, last=9),
            FaultRule(operation=Operation.COMPLETE, fault=Fault.LOST),
            FaultRule(operation=Operation.LIST, fault=Fault.STALE, first=2),
        )
        assert parse_faults("") == ()

    @pytest.mark.parametrize(
        "script", ["put", "put:0=503", "put:3=nothing", "write:1=503", "put:3-2=503", "get:1=409", "put:1=cold"]
    )
    def test_not_a_script(self, script: str) -> None:
        with pytest.raises(ValueError):
            parse_faults(script)

    def test_due(self) -> None:
        faults = Faults("get@a:2=503,get:3+=denied")
        taken = [faults.take(Operation.GET, key) for key in ("a", "b", "xa", "a")]
        assert taken == [None, None, Fault.UNREACHABLE, Fault.DENIED]
        assert faults.take(Operation.HEAD, "a") is None
        faults.add("get:1=flip")  # counts from now, but what was due first wins
        assert faults.take(Operation.GET, "c") is Fault.DENIED
        faults.clear()
        assert faults.take(Operation.GET, "c") is None

    @pytest.mark.parametrize(
        ("kind", "error", "done"),
        [
            ("503", StoreUnreachable, False),
            ("timeout", AnswerUnknown, False),
            ("lost", AnswerUnknown, True),
            ("409", Conflict, False),
            ("denied", StoreDenied, False),
            ("refused", StoreRefused, False),
            ("skew", ClockSkew, False),
        ],
    )
    def test_put(self, clock: FakeClock, kind: str, error: type[GatewayError], done: bool) -> None:
        store = MemoryStore(clock, faults=f"put:1={kind}")
        with pytest.raises(error):
            store.put("k", b"x", crc64=crc.crc64(b"x"))
        assert store.dump() == ({"k": b"x"} if done else {})

    @pytest.mark.parametrize(
        ("kind", "error"),
        [
            ("503", StoreUnreachable),
            ("timeout", StoreUnreachable),
            ("lost", StoreUnreachable),
            ("cold", ObjectCold),
            ("missing", ObjectMissing),
            ("short", Corrupt),
        ],
    )
    def test_get(self, clock: FakeClock, kind: str, error: type[GatewayError]) -> None:
        store = MemoryStore(clock, faults=f"get:1={kind}")
        store.load({"k": b"x"})
        with pytest.raises(error):
            store.get("k")
        assert store.get("k") == b"x"

    def test_flips(self, clock: FakeClock) -> None:
        assert flipped(b"") == b""
        assert flipped(b"\x00\x00\x00") == b"\x00\x10\x00"
        store = FaultyStore(MemoryStore(clock, min_part_bytes=1), "part:1=flip")
        upload_id = store.start_upload("k")
        sent = store.put_part("k", upload_id, 1, b"abc", crc64=crc.crc64(b"abc"))
        assert sent.crc64 == crc.crc64(b"abc")  # looks like success
        with pytest.raises(Corrupt):
            store.complete_upload("k", upload_id, [sent], size=3, crc64=crc.crc64(b"abc"))

    @pytest.mark.parametrize("operation", list(Operation))
    def test_every_operation_fails_and_counts(self, clock: FakeClock, operation: Operation) -> None:
        store = MemoryStore(clock, faults=f"{operation}:*=denied")
        calls: dict[Operation, Callable[[], object]] = {
            Operation.PUT: lambda: store.put("k", b"", crc64=0),
            Operation.GET: lambda: store.get("k"),
            Operation.HEAD: lambda: store.head("k"),
            Operation.LIST: lambda: list(store.list_objects("")),
            Operation.DELETE: lambda: store.delete("k"),
            Operation.START: lambda: store.start_upload("k"),
            Operation.PART: lambda: store.put_part("k", "u", 1, b"", crc64=0),
            Operation.PARTS: lambda: store.list_parts("k", "u"),
            Operation.COMPLETE: lambda: store.complete_upload("k", "u", [], size=0, crc64=0),
            Operation.ABORT: lambda: store.abort_upload("k", "u"),
            Operation.UPLOADS: lambda: store.list_uploads(""),
            Operation.THAW: lambda: store.thaw("k", days=1, tier=ThawTier.BULK),
            Operation.RULES: store.get_lifecycle,
            Operation.NEWRULES: lambda: store.put_lifecycle(Lifecycle()),
        }
        with pytest.raises(StoreDenied):
            calls[operation]()
        assert store.meter().by_operation == {operation: Traffic(requests=1)}


class TestMeter:
    def test_counts(self, clock: FakeClock) -> None:
        store = CountingStore(MemoryStore(clock))
        store.put("a", b"12345", crc64=crc.crc64(b"12345"))
        before = store.meter()
        store.get("a", start=1, length=3)
        assert store.meter().of("put") == Traffic(requests=1, sent=5)
        assert store.meter() - before == Meter(
            by_operation={Operation.PUT: Traffic(), Operation.GET: Traffic(requests=1, received=3)}
        )
        assert store.meter().total == Traffic(requests=2, sent=5, received=3)

    def test_a_listing_costs_a_request_a_page(self, clock: FakeClock) -> None:
        store = MemoryStore(clock)
        for count, requests in [(0, 1), (999, 1), (1000, 1), (1001, 2), (2001, 3)]:
            store.load({f"{number:05d}": b"" for number in range(count)})
            before = store.meter().requests("list")
            assert len(list(store.list_objects(""))) == count
            assert store.meter().requests("list") - before == requests


class TestMemory:
    def test_dates(self, clock: FakeClock) -> None:
        """Whole seconds; a multipart object is as old as its initiation."""
        store = MemoryStore(clock, min_part_bytes=1)
        upload_id = store.start_upload("k")
        clock.sleep(3600)
        part = store.put_part("k", upload_id, 1, b"x", crc64=crc.crc64(b"x"))
        facts = store.complete_upload("k", upload_id, [part], size=1, crc64=crc.crc64(b"x"))
        assert facts.modified == datetime(2026, 1, 1, 12, tzinfo=UTC)

    def test_rot_is_found_by_a_whole_read_only(self, clock: FakeClock) -> None:
        store = MemoryStore(clock)
        store.load({"k": b"0123456789"})
        store.rot("k")
        assert store.head("k").crc64 == crc.crc64(b"0123456789")
        with pytest.raises(Corrupt):
            store.get("k")
        assert store.get("k", start=4, length=3) == b"4\x256"

    def test_dump_and_load(self, clock: FakeClock) -> None:
        store = MemoryStore(clock)
        store.put("a", b"1", crc64=crc.crc64(b"1"))
        kept = store.dump()
        store.delete("a")
        other = MemoryStore(clock)
        other.load(kept)
        assert other.get("a") == b"1"
        assert store.dump() == {}

    def test_poorer_stores(self, clock: FakeClock) -> None:
        store = MemoryStore(clock, states_checksums=False, knows_classes=False, conditional_put=False)
        store.put("a", b"1", crc64=crc.crc64(b"1"), storage_class="GLACIER_IR")
        store.put("a", b"2", crc64=crc.crc64(b"2"), if_absent=True)
        assert (store.head("a").crc64, store.head("a").storage_class) == (None, "STANDARD")
        assert store.get("a") == b"2"

    def test_part_rules(self, clock: FakeClock) -> None:
        store = MemoryStore(clock, min_part_bytes=2)
        upload_id = store.start_upload("k")
        parts = [store.put_part("k", upload_id, n, b"x", crc64=crc.crc64(b"x")) for n in (1, 2)]
        for bad in ([], parts, parts[::-1], [parts[0], parts[0]], [Part(number=3, size=1, etag="x")]):
            with pytest.raises(StoreRefused):
                store.complete_upload("k", upload_id, bad, size=2, crc64=crc.crc64(b"xx"))


class TestPace:
    def test_rate(self, clock: FakeClock) -> None:
        pace = Pace(clock, 1000)
        for _ in range(5):
            pace.take(500)
        assert clock.slept == [0.5] * 4
        clock.sleep(100)
        pace.take(1)  # idle time is not saved up, and this one waits for nobody
        assert len(clock.slept) == 5

    def test_store(self, clock: FakeClock) -> None:
        store = LimitedStore(MemoryStore(clock), clock, bytes_per_second=10)
        for key in ("a", "b"):
            store.put(key, b"12345", crc64=crc.crc64(b"12345"))
        upload_id = store.start_upload("c")
        store.put_part("c", upload_id, 1, b"x", crc64=crc.crc64(b"x"))
        assert clock.slept == [0.5, 0.5]

    def test_no_rate(self, clock: FakeClock) -> None:
        with pytest.raises(ValueError):
            Pace(clock, 0)


@given(st.text(max_size=30))
def test_check_key_raises_nothing_else(text: str) -> None:
    try:
        check_key(text)
    except ValueError:
        return
    assert text.isascii()
    assert not text.startswith("/")


@pytest.mark.parametrize(
    ("url", "ordered"),
    [
        (None, True),
        ("https://s3.eu-central-1.amazonaws.com", True),
        ("https://bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com", True),
        ("http://nas.example:9000", False),
        ("https://amazonaws.com.example", False),
    ],
)
def test_who_lists_in_byte_order(url: str | None, ordered: bool) -> None:
    assert S3Settings(bucket="b", endpoint_url=url).lists_in_byte_order is ordered
    assert S3Settings(bucket="b", endpoint_url=url, byte_order=not ordered).lists_in_byte_order is not ordered


def test_not_a_bucket() -> None:
    for bucket, prefix in [("", ""), ("a/b", ""), ("b", "/a"), ("b", "a/"), ("b", "a//b")]:
        with pytest.raises(UsageError):
            S3Settings(bucket=bucket, prefix=prefix)
