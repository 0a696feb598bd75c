"""Bills worked by hand: each test shows its arithmetic. Prices of us-east-1, November 2026; a month is 30 days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from gateway.clock import FakeClock
from gateway.errors import ObjectCold, ObjectExists, ObjectMissing, StoreUnreachable, UsageError
from gateway.store.bill import Bill, bill
from gateway.store.crc import crc64
from gateway.store.lifecycle import Lifecycle, LifecycleRule, Transition
from gateway.store.memory import MemoryStore
from gateway.store.meter import Operation
from gateway.store.port import ThawAnswer, ThawTier
from gateway.store.prices import Prices, default_prices, parse_prices
from gateway.store.record import Event, Record

START = datetime(2026, 1, 1, tzinfo=UTC)
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
D = Decimal


@pytest.fixture(scope="module")
def prices() -> Prices:
    return default_prices()


def at(days: float) -> datetime:
    return START + timedelta(days=days)


def put(key: str, size: int, storage_class: str = "STANDARD", day: float = 0, status: int = 200) -> Record:
    return Record(
        at=at(day), what=Operation.PUT, key=key, size=size, sent=size, storage_class=storage_class, status=status
    )


def delete(key: str, size: int, storage_class: str, day: float) -> Record:
    return Record(at=at(day), what=Operation.DELETE, key=key, size=size, storage_class=storage_class)


def thaw(
    size: int, storage_class: str, tier: ThawTier, day: float, ready: float, until: float, *, key: str = "k",
    status: int = 202,
) -> Record:  # fmt: skip
    return Record(
        at=at(day), what=Operation.THAW, key=key, size=size, storage_class=storage_class, tier=tier, status=status,
        ready=at(ready), until=at(until),
    )  # fmt: skip


def near(value: Decimal, expected: float) -> None:
    assert float(value) == pytest.approx(expected, rel=1e-12), f"{value} is not {expected}"


def test_1_a_month_of_standard(prices: Prices) -> None:
    """100 GB x $0.023 x 30/30 months = $2.30; one PUT is $0.005/1000."""
    made = bill([put("k", 100 * GIB)], prices, until=at(30))
    assert made.amount("storage") == D("2.30")
    assert made.amount("request:put") == D("0.000005")
    assert made.total == D("2.300005")


def test_2_deep_archive_deleted_after_a_week(prices: Prices) -> None:
    """The 180 days are owed: 7 of them as storage, 173 as early deletion.

    storage: (100 GB + 32 KiB) x $0.00099 x 7/30. early: the same x 173/30. Together 100 GB cost $0.594.
    index: 8 KiB x $0.023 x 7/30. PUT: $0.05/1000.
    """
    size = 100 + 32 / (1 << 20)
    made = bill([put("k", 100 * GIB, "DEEP_ARCHIVE"), delete("k", 100 * GIB, "DEEP_ARCHIVE", 7)], prices, until=at(365))
    near(made.amount("storage"), size * 0.00099 * 7 / 30)
    near(made.amount("early"), size * 0.00099 * 173 / 30)
    near(made.amount("index"), 8 / (1 << 20) * 0.023 * 7 / 30)
    near(made.total, size * 0.00099 * 6 + 8 / (1 << 20) * 0.023 * 7 / 30 + 0.00005)


def test_3_small_archived_objects_cost_more_than_they_weigh(prices: Prices) -> None:
    """1,024 objects of 8 KiB for a month: (8 + 32) KiB x 1,024 = 40 MiB at $0.00099, and 8 MiB at $0.023.

    40/1024 x 0.00099 = $0.0000386719; 8/1024 x 0.023 = $0.0001796875; 1,024 PUTs at $0.05/1000 = $0.0512.
    """
    made = bill([put(f"k{n}", 8 * KIB, "DEEP_ARCHIVE") for n in range(1024)], prices, until=at(30))
    near(made.amount("storage", "DEEP_ARCHIVE"), 40 / 1024 * 0.00099)
    near(made.amount("index", "STANDARD"), 8 / 1024 * 0.023)
    near(made.amount("request:put"), 0.0512)


def test_4_glacier_ir_bills_128_kib_and_90_days(prices: Prices) -> None:
    """8,192 objects of 1 KiB, deleted after 30 days, are 1 GB: $0.004 x 1 month, and $0.004 x 2 months early.

    Their PUTs are $0.02/1000 x 8,192 = $0.16384.
    """
    log = [put(f"k{n}", KIB, "GLACIER_IR") for n in range(8192)]
    log += [delete(f"k{n}", KIB, "GLACIER_IR", 30) for n in range(8192)]
    made = bill(log, prices, until=at(400))
    near(made.amount("storage"), 0.004)
    near(made.amount("early"), 0.008)
    near(made.amount("request:put"), 0.16384)
    near(made.total, 0.004 + 0.008 + 0.16384)


def test_5_a_pack_of_class_deep_lives_half_a_year(prices: Prices) -> None:
    """1 GB in GLACIER_IR for 97 days: $0.004 x 97/30 = $0.0129333, nothing early.

    Then DEEP_ARCHIVE for 83 days until day 180, when it is deleted, 97 days before its minimum there: it pays 180 days,
    (1 GB + 32 KiB) x $0.00099 x 6. Index: 8 KiB x $0.023 x 83/30. PUT $0.02/1000, transition $0.05/1000.
    """
    moved = Record(at=at(97), what=Event.TRANSITION, key="k", size=GIB, storage_class="DEEP_ARCHIVE")
    made = bill([put("k", GIB, "GLACIER_IR"), moved, delete("k", GIB, "DEEP_ARCHIVE", 180)], prices, until=at(180))
    near(made.amount("storage", "GLACIER_IR"), 0.004 * 97 / 30)
    assert made.amount("early", "GLACIER_IR") == 0
    size = 1 + 32 / (1 << 20)
    near(made.amount("storage", "DEEP_ARCHIVE"), size * 0.00099 * 83 / 30)
    near(made.amount("early", "DEEP_ARCHIVE"), size * 0.00099 * 97 / 30)
    near(made.amount("request:transition"), 0.00005)
    near(made.total, 0.004 * 97 / 30 + size * 0.00099 * 6 + 8 / (1 << 20) * 0.023 * 83 / 30 + 0.00002 + 0.00005)


@pytest.mark.parametrize(
    ("storage_class", "tier", "requests", "gigabytes"),
    [
        # 4,096 packs of 256 MiB are 1,024 GB.
        ("DEEP_ARCHIVE", ThawTier.STANDARD, 0.4096, 20.48),  # 4.096 x $0.10; 1,024 x $0.02
        ("DEEP_ARCHIVE", ThawTier.BULK, 0.1024, 2.56),  # 4.096 x $0.025; 1,024 x $0.0025
        ("GLACIER", ThawTier.EXPEDITED, 40.96, 30.72),  # 4.096 x $10; 1,024 x $0.03
        ("GLACIER", ThawTier.STANDARD, 0.2048, 10.24),  # 4.096 x $0.05; 1,024 x $0.01
        ("GLACIER", ThawTier.BULK, 0, 0),
    ],
)
def test_6_thawing_a_tebibyte(
    prices: Prices, storage_class: str, tier: ThawTier, requests: float, gigabytes: float
) -> None:
    log = [thaw(256 * MIB, storage_class, tier, 0, 1, 2, key=f"k{n}") for n in range(4096)]
    made = bill(log, prices, until=at(1))
    near(made.amount(f"request:thaw:{tier}"), requests)
    near(made.amount(f"retrieval:{tier}"), gigabytes)
    near(made.total, requests + gigabytes)


def test_7_the_thawed_copy_is_standard_on_top(prices: Prices) -> None:
    """100 GB asked for on day 0, ready after 12 h, until day 4: 3.5 days of STANDARD, 100 x 0.023 x 3.5/30 = $0.26833.

    On day 2 it is extended to day 7 (6.5 days in all: $0.49833), for one request at $0.10/1000 and no gigabytes.
    Deleted on day 5, it was there for 4.5 days: $0.345. Retrieval, once: 100 x $0.02 = $2.
    """
    deep, standard = "DEEP_ARCHIVE", ThawTier.STANDARD
    once = [thaw(100 * GIB, deep, standard, 0, 0.5, 4)]
    longer = [*once, thaw(100 * GIB, deep, standard, 2, 0.5, 7, status=200)]
    near(bill(once, prices, until=at(30)).amount("copy"), 100 * 0.023 * 3.5 / 30)
    made = bill(longer, prices, until=at(30))
    near(made.amount("copy"), 100 * 0.023 * 6.5 / 30)
    near(made.amount("request:thaw:Standard"), 0.0002)
    near(made.amount("retrieval:Standard"), 2)
    cut = bill([*longer, delete("k", 100 * GIB, deep, 5)], prices, until=at(30))
    near(cut.amount("copy"), 0.345)
    near(cut.amount("retrieval:Standard"), 2)


def test_8_a_thaw_that_is_hastened(prices: Prices) -> None:
    """GLACIER, 50 GB, Bulk (free), an hour later Expedited: $10/1000 and 50 x $0.03 = $1.50; ready a minute later.

    The copy is there from then to day 3: 50 x 0.023 x (3 - 61/1440)/30. A third request, refused with 409, costs its
    request of the Standard tier, $0.05/1000; one that finds no capacity costs nothing.
    """
    hour, minute = 1 / 24, 1 / 1440
    log = [
        thaw(50 * GIB, "GLACIER", ThawTier.BULK, 0, 10 * hour, 3),
        Record(
            at=at(hour / 2), what=Operation.THAW, key="k", size=50 * GIB, storage_class="GLACIER", status=503,
            tier=ThawTier.EXPEDITED,
        ),
        thaw(50 * GIB, "GLACIER", ThawTier.EXPEDITED, hour, hour + minute, 3),
        Record(
            at=at(hour), what=Operation.THAW, key="k", size=50 * GIB, storage_class="GLACIER", status=409,
            tier=ThawTier.STANDARD,
        ),
    ]  # fmt: skip
    made = bill(log, prices, until=at(30))
    near(made.amount("request:thaw:Expedited"), 0.01)
    near(made.amount("request:thaw:Standard"), 0.00005)
    near(made.amount("retrieval:Expedited"), 1.5)
    near(made.amount("copy"), 50 * 0.023 * (3 - 61 / 1440) / 30)
    assert made.amount("retrieval:Bulk") == 0


def test_9_a_pack_straight_into_deep_archive(prices: Prices) -> None:
    """14 parts of 16 MiB: 15 requests at STANDARD's $0.005/1000, the completion at $0.05/1000.

    The parts lie in STANDARD for the six hours from being sent to the completion: 224/1024 x 0.023 x 0.25/30.
    """
    start = Record(at=at(0), what=Operation.START, key="k", storage_class="DEEP_ARCHIVE", upload_id="u")
    parts = [
        Record(
            at=at(0), what=Operation.PART, key="k", storage_class="DEEP_ARCHIVE", upload_id="u", number=n + 1,
            size=16 * MIB, sent=16 * MIB,
        )
        for n in range(14)
    ]  # fmt: skip
    done = Record(
        at=at(0.25), what=Operation.COMPLETE, key="k", size=224 * MIB, storage_class="DEEP_ARCHIVE", upload_id="u"
    )
    made = bill([start, *parts, done], prices, until=at(0.25))
    near(made.amount("request:put", "STANDARD"), 15 * 0.000005)
    near(made.amount("request:put", "DEEP_ARCHIVE"), 0.00005)
    near(made.amount("storage", "STANDARD"), 224 / 1024 * 0.023 * 0.25 / 30)
    assert made.amount("early") == 0


def test_10_reading_glacier_ir_over_the_internet(prices: Prices) -> None:
    """10 GB in 640 GETs of 16 MiB: 640 x $0.01/1000 = $0.0064; 10 x $0.03 = $0.30; egress 10 x $0.09 = $0.90."""
    get = Record(at=at(0), what=Operation.GET, key="k", size=224 * MIB, storage_class="GLACIER_IR", received=16 * MIB)
    made = bill([get] * 640, prices, until=at(0), egress="internet")
    near(made.amount("request:get"), 0.0064)
    near(made.amount("retrieval"), 0.30)
    near(made.amount("egress"), 0.90)
    near(made.total, 1.2064)
    near(bill([get] * 640, prices, until=at(0)).total, 0.3064)
    near(bill([get] * 640, prices, until=at(0), egress="direct-connect").amount("egress"), 0.20)


def test_11_overwritten_and_aborted(prices: Prices) -> None:
    """GLACIER overwritten after 30 of 90 days: 60 days early, (1 GB + 32 KiB) x $0.0036 x 2. Parts owe no minimum:
    1 GB of a GLACIER_IR upload aborted after 3 days is $0.004 x 3/30. The second PUT fails (412) and is billed.
    """
    log = [
        put("k", GIB, "GLACIER"),
        Record(at=at(0), what=Operation.START, key="m", storage_class="GLACIER_IR", upload_id="u"),
        Record(
            at=at(0), what=Operation.PART, key="m", storage_class="GLACIER_IR", upload_id="u", number=1, size=GIB
        ),
        Record(at=at(3), what=Event.RULE_ABORT, key="m", upload_id="u"),
        put("k", GIB, "GLACIER", 20, status=412),
        put("k", 0, "STANDARD", 30),
    ]  # fmt: skip
    made = bill(log, prices, until=at(60))
    near(made.amount("early"), (1 + 32 / (1 << 20)) * 0.0036 * 2)
    near(made.amount("storage", "GLACIER_IR"), 0.004 * 3 / 30)
    near(made.amount("request:put", "GLACIER"), 2 * 0.00003)
    near(made.amount("storage", "GLACIER"), (1 + 32 / (1 << 20)) * 0.0036)


@pytest.mark.parametrize(
    ("days", "standard", "instant", "flexible", "deep"),
    [
        (7, "0.0054", "0.0120", "0.0108", "0.0059"),
        (14, "0.0107", "0.0120", "0.0108", "0.0059"),
        (35, "0.0268", "0.0120", "0.0108", "0.0059"),
        (90, "0.0690", "0.0120", "0.0108", "0.0059"),
        (180, "0.1380", "0.0240", "0.0216", "0.0059"),
        (365, "0.2798", "0.0487", "0.0438", "0.0120"),
    ],
)
def test_12_cost_of_a_gigabyte_by_lifetime(
    prices: Prices, days: int, standard: str, instant: str, flexible: str, deep: str
) -> None:
    """Storage and early deletion of 1,000 GB / 1,000, the table by which a storage class is chosen."""
    classes = {"STANDARD": standard, "GLACIER_IR": instant, "GLACIER": flexible, "DEEP_ARCHIVE": deep}
    for storage_class, expected in classes.items():
        log = [put("k", 1000 * GIB, storage_class), delete("k", 1000 * GIB, storage_class, days)]
        made = bill(log, prices, until=at(days))
        got = (made.amount("storage") + made.amount("early")) / 1000
        assert got.quantize(D("0.0001")) == D(expected), storage_class


class TestOfAStore:
    """The log that the store in memory writes."""

    def made(self, store: MemoryStore, prices: Prices) -> Bill:
        return store.bill(prices)

    def test_every_request(self, prices: Prices) -> None:
        clock = FakeClock(START)
        store = MemoryStore(clock, min_part_bytes=1, faults="get:1=503")
        data = b"0123456789"
        store.put("a", data, crc64=crc64(data), storage_class="GLACIER_IR")
        with pytest.raises(ObjectExists):
            store.put("a", data, crc64=crc64(data), if_absent=True)
        with pytest.raises(StoreUnreachable):  # never reached the store, and costs nothing
            store.get("a")
        store.get("a", start=2, length=3)
        store.head("a")
        list(store.list_objects(""))
        upload_id = store.start_upload("b", storage_class="DEEP_ARCHIVE")
        part = store.put_part("b", upload_id, 1, data, crc64=crc64(data))
        store.list_parts("b", upload_id)
        store.list_uploads("")
        store.complete_upload("b", upload_id, [part], size=10, crc64=crc64(data))
        with pytest.raises(ObjectCold):
            store.get("b")
        with pytest.raises(ObjectMissing):
            store.get("c")
        assert store.thaw("b", days=1, tier=ThawTier.BULK) is ThawAnswer.STARTED
        assert store.thaw("b", days=1, tier=ThawTier.BULK) is ThawAnswer.RUNNING
        assert store.thaw("a", days=1, tier=ThawTier.BULK) is ThawAnswer.NEVER_COLD
        store.put_lifecycle(Lifecycle())
        store.get_lifecycle()
        store.delete("a")
        store.abort_upload("b", upload_id)
        seen = [(record.what.value, record.status, record.storage_class) for record in store.log()]
        assert seen == [
            ("put", 200, "GLACIER_IR"),
            ("put", 412, "STANDARD"),
            ("get", 200, "GLACIER_IR"),
            ("head", 200, "GLACIER_IR"),
            ("list", 200, "STANDARD"),
            ("start", 200, "DEEP_ARCHIVE"),
            ("part", 200, "DEEP_ARCHIVE"),
            ("parts", 200, "STANDARD"),
            ("uploads", 200, "STANDARD"),
            ("complete", 200, "DEEP_ARCHIVE"),
            ("get", 403, "DEEP_ARCHIVE"),
            ("get", 404, "STANDARD"),
            ("thaw", 202, "DEEP_ARCHIVE"),
            ("thaw", 409, "DEEP_ARCHIVE"),
            ("thaw", 403, "GLACIER_IR"),
            ("newrules", 200, "STANDARD"),
            ("rules", 200, "STANDARD"),
            ("delete", 200, "GLACIER_IR"),
            ("abort", 200, "STANDARD"),
        ]
        made = self.made(store, prices)
        # Per 1,000: put 1 x 0.02 + 1 x 0.005, start and part 2 x 0.005, complete 0.05; list, parts, uploads, rules
        # 4 x 0.005; get and head in GLACIER_IR 2 x 0.01, the others 3 x 0.0004; thaws 2 x 0.025.
        near(made.amount("request:put"), (0.02 + 0.005 + 0.01 + 0.05) / 1000)
        near(made.amount("request:list"), 0.02 / 1000)
        near(made.amount("request:get"), (0.02 + 0.0012) / 1000)
        near(made.amount("request:thaw:Bulk"), 0.05 / 1000)
        near(made.amount("retrieval"), 3 / GIB * 0.03)
        near(made.amount("retrieval:Bulk"), 10 / GIB * 0.0025)
        near(made.amount("early", "GLACIER_IR"), 128 * KIB / GIB * 0.004 * 3)

    def test_a_life(self, prices: Prices) -> None:
        """1 MiB in STANDARD; at the midnight after 7 days it moves to GLACIER; thawed on day 100; deleted on day 101.

        STANDARD 8 days (from noon to midnight it is 7.5); GLACIER until noon of day 101: 93.5 days, above the 90.
        """
        clock = FakeClock(START + timedelta(hours=12))
        store = MemoryStore(clock)
        rule = LifecycleRule(id="r", transitions=(Transition(days=7, storage_class="GLACIER"),))
        store.put_lifecycle(Lifecycle(rules=(rule,)))
        data = bytes(MIB)
        store.put("k", data, crc64=crc64(data))
        clock.advance(timedelta(days=100))
        assert store.thaw("k", days=9, tier=ThawTier.EXPEDITED) is ThawAnswer.STARTED
        clock.advance(timedelta(days=1))
        ready = store.log()[-1].ready
        assert ready is not None
        store.delete("k")
        made = self.made(store, prices)
        near(made.amount("storage", "STANDARD"), 1 / 1024 * 0.023 * 7.5 / 30)
        near(made.amount("storage", "GLACIER"), (1 / 1024 + 32 / (1 << 20)) * 0.0036 * 93.5 / 30)
        near(made.amount("index"), 8 / (1 << 20) * 0.023 * 93.5 / 30)
        near(made.amount("copy"), 1 / 1024 * 0.023 * (clock.now() - ready) / timedelta(days=30))
        near(made.amount("request:transition"), 0.00003)
        near(made.amount("retrieval:Expedited"), 1 / 1024 * 0.03)
        assert made.amount("early") == 0
        assert store.bill(prices, until=clock.now() + timedelta(days=99)).total == made.total

    def test_loaded_objects_cost_their_storage_only(self, prices: Prices) -> None:
        clock = FakeClock(START)
        store = MemoryStore(clock)
        store.put("gone", b"x", crc64=crc64(b"x"))
        store.load({"k": bytes(MIB)})
        clock.advance(timedelta(days=30))
        near(self.made(store, prices).total, 1 / 1024 * 0.023)


def test_what_is_no_price_table() -> None:
    for text in ("", "name = 1", "[", 'name = "x"\nas_of = 2026-01-01\nclass.X.storage = "a"\nthaw = {}\negress = {}'):
        with pytest.raises(UsageError):
            parse_prices(text)


def test_the_table_says_what_it_is(prices: Prices) -> None:
    assert (prices.name, str(prices.as_of)) == ("us-east-1", "2026-11-22")
    assert set(prices.classes) == {"STANDARD", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"}
    assert ("DEEP_ARCHIVE", ThawTier.EXPEDITED) not in prices.thaws
