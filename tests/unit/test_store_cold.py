"""Freezing, thawing, lifecycle: the store in memory keeps S3's rules of time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import FakeClock
from gateway.errors import ObjectCold, ObjectMissing, StoreRefused
from gateway.store.bill import bill
from gateway.store.cold import Copy, Weather, ask
from gateway.store.crc import crc64
from gateway.store.lifecycle import Lifecycle, LifecycleRule, SmallObjects, Transition, midnight, refusal
from gateway.store.memory import MemoryStore
from gateway.store.port import ObjectFacts, Thaw, ThawAnswer, ThawTier
from gateway.store.prices import default_prices
from gateway.store.record import Event, Record

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DATA = b"a frozen object"
EXPEDITED, STANDARD, BULK = ThawTier.EXPEDITED, ThawTier.STANDARD, ThawTier.BULK


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON, seed=b"cold")


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    return MemoryStore(clock, min_part_bytes=1)


def put(store: MemoryStore, key: str, storage_class: str, data: bytes = DATA) -> ObjectFacts:
    return store.put(key, data, crc64=crc64(data), storage_class=storage_class)


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


def days(count: float) -> timedelta:
    return timedelta(days=count)


def rules(*made: LifecycleRule) -> Lifecycle:
    return Lifecycle(rules=made)


def moves(into: str, after: int, prefix: str = "", *, name: str = "r", larger_than: int | None = 0) -> LifecycleRule:
    return LifecycleRule(
        id=name, prefix=prefix, transitions=(Transition(days=after, storage_class=into),), larger_than=larger_than
    )


class TestMidnight:
    @pytest.mark.parametrize(
        ("moment", "expected"),
        [
            # The two examples of the S3 user guide, "Restoring an archived object".
            (datetime(2012, 10, 15, 10, 30, tzinfo=UTC) + days(3), datetime(2012, 10, 19, tzinfo=UTC)),
            (datetime(2012, 10, 16, 11, 0, tzinfo=UTC) + days(1), datetime(2012, 10, 18, tzinfo=UTC)),
            (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
            (datetime(2026, 12, 31, 0, 0, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        ],
    )
    def test_rounds_up(self, moment: datetime, expected: datetime) -> None:
        assert midnight(moment) == expected


class TestThaw:
    def test_freeze_thaw_freeze(self, store: MemoryStore, clock: FakeClock) -> None:
        put(store, "k", "DEEP_ARCHIVE")
        assert store.head("k").thaw is None
        assert not store.head("k").readable(clock.now())
        with pytest.raises(ObjectCold):
            store.get("k")
        assert store.thaw("k", days=2, tier=STANDARD) is ThawAnswer.STARTED
        assert store.head("k").thaw == Thaw(in_progress=True)
        clock.advance(hours(8))
        with pytest.raises(ObjectCold):
            store.get("k")
        clock.advance(hours(4))
        # Asked on 1 January at 12:00 for 2 days: until 3 January 12:00, rounded up.
        thawed = Thaw(in_progress=False, until=datetime(2026, 1, 4, tzinfo=UTC))
        assert store.head("k").thaw == thawed
        assert [facts.thaw for facts in store.list_objects("")] == [thawed]
        assert store.head("k").readable(clock.now())
        assert store.head("k").storage_class == "DEEP_ARCHIVE"
        assert store.get("k") == DATA
        assert store.get("k", start=2, length=6) == DATA[2:8]
        clock.advance(days(2))
        assert clock.now() == datetime(2026, 1, 4, tzinfo=UTC)
        with pytest.raises(ObjectCold):
            store.get("k")
        assert store.head("k").thaw is None

    @pytest.mark.parametrize(
        ("storage_class", "tier", "shortest", "longest"),
        [
            ("GLACIER", EXPEDITED, hours(1 / 60), hours(5 / 60)),
            ("GLACIER", STANDARD, hours(3), hours(5)),
            ("GLACIER", BULK, hours(5), hours(12)),
            ("DEEP_ARCHIVE", STANDARD, hours(0), hours(12)),
            ("DEEP_ARCHIVE", BULK, hours(0), hours(48)),
        ],
    )
    def test_times(
        self, store: MemoryStore, storage_class: str, tier: ThawTier, shortest: timedelta, longest: timedelta
    ) -> None:
        for number in range(30):
            key = f"k{number}"
            put(store, key, storage_class)
            store.thaw(key, days=9, tier=tier)
        taken = {record.ready - record.at for record in store.log() if record.ready is not None}
        assert len(taken) > 10
        assert shortest <= min(taken)
        assert max(taken) <= longest

    def test_large_objects_take_longer_expedited(self) -> None:
        """Beyond 250 MB at 300 MB a second: 3.25 GB takes 10 seconds more."""

        def takes(size: int) -> timedelta:
            return Weather().takes(key="k", size=size, storage_class="GLACIER", tier=EXPEDITED, now=NOON)

        assert takes(3_250_000_000) == takes(1) + timedelta(seconds=10)

    def test_the_same_seed_gives_the_same_times(self) -> None:
        def times(seed: int) -> list[timedelta]:
            weather = Weather(seed=seed)
            return [weather.takes(key=f"k{n}", size=1, storage_class="GLACIER", tier=BULK, now=NOON) for n in range(20)]

        assert times(1) == times(1)
        assert times(1) != times(2)

    def test_few_days_of_a_slow_thaw_leave_nothing(self, clock: FakeClock) -> None:
        """Days count from the request: one day of a Bulk thaw is over before it begins."""
        store = MemoryStore(clock)
        put(store, "k", "DEEP_ARCHIVE")
        store.thaw("k", days=1, tier=BULK)
        clock.advance(hours(35))
        assert store.head("k").thaw == Thaw(in_progress=True)
        clock.advance(hours(13))
        assert store.head("k").thaw is None
        assert store.thaw("k", days=1, tier=BULK) is ThawAnswer.STARTED

    def test_in_progress(self, store: MemoryStore, clock: FakeClock) -> None:
        put(store, "k", "GLACIER")
        assert store.thaw("k", days=3, tier=BULK) is ThawAnswer.STARTED
        clock.advance(hours(1))
        assert store.thaw("k", days=3, tier=BULK) is ThawAnswer.RUNNING
        assert store.thaw("k", days=5, tier=BULK) is ThawAnswer.RUNNING
        assert store.thaw("k", days=5, tier=EXPEDITED) is ThawAnswer.RUNNING  # hastened by the same days only
        assert store.thaw("k", days=3, tier=EXPEDITED) is ThawAnswer.STARTED
        assert store.thaw("k", days=3, tier=STANDARD) is ThawAnswer.RUNNING
        clock.advance(timedelta(minutes=5))
        assert store.head("k").thaw == Thaw(in_progress=False, until=datetime(2026, 1, 5, tzinfo=UTC))

    def test_hastened_is_never_later(self, store: MemoryStore, clock: FakeClock) -> None:
        put(store, "k", "GLACIER")
        store.thaw("k", days=3, tier=BULK)
        ready = store.log()[-1].ready
        assert ready is not None
        clock.advance(ready - NOON - timedelta(minutes=30))
        assert store.thaw("k", days=3, tier=STANDARD) is ThawAnswer.STARTED
        assert store.log()[-1].ready == ready

    def test_extend(self, store: MemoryStore, clock: FakeClock) -> None:
        put(store, "k", "GLACIER")
        store.thaw("k", days=3, tier=EXPEDITED)
        clock.advance(hours(23))
        assert store.thaw("k", days=30, tier=BULK) is ThawAnswer.EXTENDED
        assert store.head("k").thaw == Thaw(in_progress=False, until=datetime(2026, 2, 2, tzinfo=UTC))
        assert store.thaw("k", days=1, tier=BULK) is ThawAnswer.EXTENDED  # shorter, too
        assert store.head("k").thaw == Thaw(in_progress=False, until=datetime(2026, 1, 4, tzinfo=UTC))

    def test_no_capacity(self, clock: FakeClock) -> None:
        store = MemoryStore(clock, weather=Weather(seed=3, expedited_capacity=0.5))
        answers = []
        for number in range(40):
            put(store, f"k{number}", "GLACIER")
            answers.append(store.thaw(f"k{number}", days=1, tier=EXPEDITED))
        assert set(answers) == {ThawAnswer.STARTED, ThawAnswer.NO_CAPACITY}
        refused = f"k{answers.index(ThawAnswer.NO_CAPACITY)}"
        assert store.head(refused).thaw is None
        assert store.thaw(refused, days=1, tier=STANDARD) is ThawAnswer.STARTED

    def test_no_capacity_leaves_a_running_thaw_alone(self, clock: FakeClock) -> None:
        store = MemoryStore(clock, weather=Weather(expedited_capacity=0))
        put(store, "k", "GLACIER")
        store.thaw("k", days=2, tier=BULK)
        assert store.thaw("k", days=2, tier=EXPEDITED) is ThawAnswer.NO_CAPACITY
        assert store.head("k").thaw == Thaw(in_progress=True)

    def test_scripted_capacity(self, clock: FakeClock) -> None:
        store = MemoryStore(clock, faults="thaw:2=nocapacity")
        for name in "ab":
            put(store, name, "GLACIER")
        answers = [store.thaw(name, days=1, tier=EXPEDITED) for name in "ab"]
        assert answers == [ThawAnswer.STARTED, ThawAnswer.NO_CAPACITY]

    def test_what_cannot_be_thawed(self, store: MemoryStore, clock: FakeClock) -> None:
        put(store, "deep", "DEEP_ARCHIVE")
        with pytest.raises(StoreRefused):
            store.thaw("deep", days=1, tier=EXPEDITED)
        for name in ("STANDARD", "GLACIER_IR"):
            put(store, "k", name)
            assert store.thaw("k", days=1, tier=BULK) is ThawAnswer.NEVER_COLD
            assert store.get("k") == DATA
        with pytest.raises(ObjectMissing):
            store.thaw("nothing", days=1, tier=BULK)
        with pytest.raises(ValueError):
            store.thaw("deep", days=0, tier=BULK)
        with pytest.raises(StoreRefused):
            put(store, "k", "LUKEWARM")

    def test_overwriting_ends_a_thaw(self, store: MemoryStore, clock: FakeClock) -> None:
        put(store, "k", "GLACIER")
        store.thaw("k", days=3, tier=EXPEDITED)
        clock.advance(hours(1))
        put(store, "k", "GLACIER", b"another")
        with pytest.raises(ObjectCold):
            store.get("k")

    def test_a_store_without_classes_is_never_cold(self, clock: FakeClock) -> None:
        store = MemoryStore(clock, knows_classes=False)
        put(store, "k", "DEEP_ARCHIVE")
        assert store.get("k") == DATA
        assert store.thaw("k", days=1, tier=BULK) is ThawAnswer.NEVER_COLD
        with pytest.raises(StoreRefused):
            store.get_lifecycle()
        with pytest.raises(StoreRefused):
            store.put_lifecycle(Lifecycle())

    @given(
        st.lists(
            st.tuples(st.integers(0, 50), st.integers(1, 4), st.sampled_from([EXPEDITED, STANDARD, BULK])), max_size=12
        )
    )
    def test_never_readable_before_a_thaw_or_after_its_end(self, asked: list[tuple[int, int, ThawTier]]) -> None:
        """Whatever is asked when: a copy is readable only between its times, and a running thaw gets no slower."""
        now, copy = NOON, None
        weather = Weather(seed=5, expedited_capacity=0.7)
        for wait, count, tier in asked:
            now += hours(wait)
            before: Copy | None = copy
            answer, copy = ask(
                copy, key="k", size=1, storage_class="GLACIER", days=count, tier=tier, now=now, weather=weather
            )
            if before is not None and before.state(now) == Thaw(in_progress=True) and copy is not None:
                assert copy.ready <= before.ready
                assert copy.until == before.until
            if before is not None and before.readable(now):
                assert answer is ThawAnswer.EXTENDED
            if answer in (ThawAnswer.RUNNING, ThawAnswer.NO_CAPACITY):
                assert copy == before
            if copy is not None and copy.readable(now):
                assert answer is ThawAnswer.EXTENDED


class TestLifecycle:
    def test_by_age(self, store: MemoryStore, clock: FakeClock) -> None:
        store.put_lifecycle(rules(moves("DEEP_ARCHIVE", 7)))
        put(store, "k", "GLACIER_IR")
        clock.advance(days(7) + hours(11.9))  # 7 days after noon, and not yet midnight
        assert store.head("k").storage_class == "GLACIER_IR"
        clock.advance(hours(0.1))
        assert store.head("k").storage_class == "DEEP_ARCHIVE"
        with pytest.raises(ObjectCold):
            store.get("k")
        assert store.head("k").modified == NOON

    def test_day_zero_is_the_next_midnight(self, store: MemoryStore, clock: FakeClock) -> None:
        store.put_lifecycle(rules(moves("GLACIER", 0)))
        put(store, "k", "STANDARD")
        assert store.head("k").storage_class == "STANDARD"
        clock.advance(hours(12))
        assert store.head("k").storage_class == "GLACIER"

    def test_by_prefix_and_size(self, store: MemoryStore, clock: FakeClock) -> None:
        rule = moves("GLACIER", 1, "packs/", larger_than=10)
        store.put_lifecycle(rules(rule))
        for key, size in [("packs/a", 11), ("packs/b", 10), ("other/a", 11)]:
            put(store, key, "STANDARD", bytes(size))
        clock.advance(days(3))
        frozen = [facts.key for facts in store.list_objects("") if facts.storage_class == "GLACIER"]
        assert frozen == ["packs/a"]

    @pytest.mark.parametrize(
        ("small", "into", "expected"),
        [
            (SmallObjects.STAY, "GLACIER", {"large": "GLACIER", "small": "STANDARD"}),
            (SmallObjects.VARY, "GLACIER", {"large": "GLACIER", "small": "GLACIER"}),
            (SmallObjects.VARY, "GLACIER_IR", {"large": "GLACIER_IR", "small": "STANDARD"}),
        ],
    )
    def test_small_objects_stay(
        self, store: MemoryStore, clock: FakeClock, small: SmallObjects, into: str, expected: dict[str, str]
    ) -> None:
        store.put_lifecycle(Lifecycle(rules=(moves(into, 1, larger_than=None),), small_objects=small))
        put(store, "small", "STANDARD", bytes((128 << 10) - 1))
        put(store, "large", "STANDARD", bytes(128 << 10))
        clock.advance(days(3))
        assert {facts.key: facts.storage_class for facts in store.list_objects("")} == expected

    def test_only_downwards(self, store: MemoryStore, clock: FakeClock) -> None:
        store.put_lifecycle(rules(moves("GLACIER_IR", 1)))
        put(store, "k", "DEEP_ARCHIVE")
        clock.advance(days(9))
        assert store.head("k").storage_class == "DEEP_ARCHIVE"

    def test_step_by_step(self, store: MemoryStore, clock: FakeClock) -> None:
        """Each move is dated by the midnight at which it was due, however late the clock is looked at."""
        both = (Transition(days=97, storage_class="DEEP_ARCHIVE"), Transition(days=7, storage_class="GLACIER_IR"))
        store.put_lifecycle(rules(LifecycleRule(id="r", transitions=both, larger_than=0)))
        put(store, "k", "STANDARD")
        clock.advance(days(200))
        made = [(record.at, record.storage_class) for record in store.log() if record.what is Event.TRANSITION]
        assert made == [
            (datetime(2026, 1, 9, tzinfo=UTC), "GLACIER_IR"),
            (datetime(2026, 4, 9, tzinfo=UTC), "DEEP_ARCHIVE"),
        ]

    def test_a_put_replaces_all(self, store: MemoryStore, clock: FakeClock) -> None:
        store.put_lifecycle(rules(moves("GLACIER", 1)))
        put(store, "k", "STANDARD")
        store.put_lifecycle(rules(moves("GLACIER", 30, name="other")))
        assert [rule.id for rule in store.get_lifecycle().rules] == ["other"]
        clock.advance(days(9))
        assert store.head("k").storage_class == "STANDARD"
        store.put_lifecycle(Lifecycle())
        clock.advance(days(90))
        assert store.head("k").storage_class == "STANDARD"

    def test_what_was_due_long_ago_moves_at_the_next_midnight(self, store: MemoryStore, clock: FakeClock) -> None:
        put(store, "k", "STANDARD")
        clock.advance(days(50))
        store.put_lifecycle(rules(moves("GLACIER", 1)))
        clock.advance(days(50))
        assert [record.at for record in store.log() if record.what is Event.TRANSITION] == [
            datetime(2026, 2, 21, tzinfo=UTC)
        ]

    def test_age_of_an_upload_counts_from_its_initiation(self, store: MemoryStore, clock: FakeClock) -> None:
        store.put_lifecycle(rules(moves("GLACIER", 3)))
        upload_id = store.start_upload("k")
        clock.advance(days(9))
        part = store.put_part("k", upload_id, 1, DATA, crc64=crc64(DATA))
        store.complete_upload("k", upload_id, [part], size=len(DATA), crc64=crc64(DATA))
        assert store.get("k") == DATA
        clock.advance(hours(12))
        assert store.head("k").storage_class == "GLACIER"
        log = store.log()
        assert [record.at for record in log] == sorted(record.at for record in log)

    def test_unfinished_uploads(self, store: MemoryStore, clock: FakeClock) -> None:
        store.put_lifecycle(rules(LifecycleRule(id="r", prefix="packs/", abort_days=7)))
        one, other = store.start_upload("packs/k"), store.start_upload("other/k")
        store.put_part("packs/k", one, 1, DATA, crc64=crc64(DATA))
        clock.advance(days(7))
        assert len(store.list_uploads("")) == 2
        clock.advance(hours(12))
        assert [upload.upload_id for upload in store.list_uploads("")] == [other]
        with pytest.raises(ObjectMissing):
            store.list_parts("packs/k", one)

    def test_expiry(self, store: MemoryStore, clock: FakeClock) -> None:
        """Also of a thawed copy: the rule wins over the days of the thaw."""
        store.put_lifecycle(rules(LifecycleRule(id="r", prefix="jobs/", expire_days=2)))
        put(store, "jobs/1", "GLACIER")
        put(store, "packs/1", "GLACIER")
        store.thaw("jobs/1", days=30, tier=EXPEDITED)
        clock.advance(days(2) + hours(12))
        with pytest.raises(ObjectMissing):
            store.get("jobs/1")
        assert store.head("packs/1").size == len(DATA)

    def test_a_move_ends_a_thaw(self, store: MemoryStore, clock: FakeClock) -> None:
        store.put_lifecycle(rules(moves("DEEP_ARCHIVE", 2)))
        put(store, "k", "GLACIER")
        store.thaw("k", days=30, tier=EXPEDITED)
        clock.advance(days(1))
        assert store.get("k") == DATA
        clock.advance(days(2))
        with pytest.raises(ObjectCold):
            store.get("k")

    def test_disabled_and_foreign_rules_do_nothing(self, store: MemoryStore, clock: FakeClock) -> None:
        off = LifecycleRule(id="off", enabled=False, expire_days=1)
        foreign = LifecycleRule(id="tags", foreign='{"ID": "tags"}', expire_days=1)
        store.put_lifecycle(rules(off, foreign))
        assert set(store.get_lifecycle().rules) == {off, foreign}
        put(store, "k", "STANDARD")
        clock.advance(days(9))
        assert store.get("k") == DATA

    @pytest.mark.parametrize(
        "bad",
        [
            rules(moves("GLACIER", 1), moves("GLACIER", 2)),  # one id twice
            rules(moves("GLACIER", 1, name="")),
            rules(LifecycleRule(id="r")),
            rules(moves("STANDARD", 1)),
            rules(moves("LUKEWARM", 1)),
            rules(LifecycleRule(id="r", expire_days=0)),
            rules(LifecycleRule(id="r", abort_days=0)),
            rules(LifecycleRule(id="r", abort_days=1, larger_than=5)),
            rules(LifecycleRule(id="r", expire_days=1, larger_than=5, smaller_than=6)),
            rules(
                LifecycleRule(id="r", expire_days=5, transitions=(Transition(days=5, storage_class="GLACIER"),)),
            ),
            rules(
                LifecycleRule(
                    id="r",
                    transitions=(
                        Transition(days=5, storage_class="DEEP_ARCHIVE"), Transition(days=9, storage_class="GLACIER"),
                    ),
                )
            ),
        ],
    )  # fmt: skip
    def test_rules_that_cannot_be(self, store: MemoryStore, bad: Lifecycle) -> None:
        assert refusal(bad)
        store.put_lifecycle(rules(moves("GLACIER", 1)))
        with pytest.raises(StoreRefused):
            store.put_lifecycle(bad)
        assert store.get_lifecycle() == rules(moves("GLACIER", 1))


@given(
    acts=st.lists(
        st.tuples(
            st.integers(0, 60),  # hours that pass before
            st.sampled_from(["put", "thaw", "get", "delete", "rules", "start"]),
            st.sampled_from(["a", "b"]),
            st.sampled_from(["STANDARD", "GLACIER_IR", "GLACIER"]),
            st.integers(0, 3),
        ),
        max_size=25,
    )
)
def test_looking_changes_nothing(acts: list[tuple[int, str, str, str, int]]) -> None:
    """The log is the same whether the store is looked at every hour or never, and in order of time."""

    def run(looks: bool) -> list[Record]:
        clock = FakeClock(NOON, seed=b"cold")
        store = MemoryStore(clock, min_part_bytes=1)
        for wait, act, key, storage_class, count in acts:
            for _ in range(wait if looks else 1):
                clock.advance(hours(1) if looks else hours(wait))
                if looks:
                    store.dump()
            try:
                match act:
                    case "put":
                        put(store, key, storage_class)
                    case "thaw":
                        store.thaw(key, days=count + 1, tier=BULK)
                    case "get":
                        store.get(key)
                    case "delete":
                        store.delete(key)
                    case "start":
                        store.start_upload(key)
                    case _:
                        aborts = LifecycleRule(id="a", abort_days=count + 1)
                        expires = LifecycleRule(id="e", prefix="b", expire_days=count + 2)
                        store.put_lifecycle(rules(moves("GLACIER", count), aborts, expires))
            except (ObjectCold, ObjectMissing):
                pass  # in the log like everything else
        clock.advance(days(9))
        return list(store.log())

    once, often = run(False), run(True)
    assert once == often
    assert [record.at for record in once] == sorted(record.at for record in once)
    spent = bill(once, default_prices(), until=once[-1].at if once else NOON)
    assert all(line.quantity > 0 for line in spent.lines)


def test_facts_of_a_thaw_agree() -> None:
    with pytest.raises(ValueError):
        Thaw(in_progress=True, until=NOON)
    with pytest.raises(ValueError):
        Thaw(in_progress=False)
    with pytest.raises(ValueError):
        Transition(days=-1, storage_class="GLACIER")
    with pytest.raises(ValueError):
        Weather(expedited_capacity=2)
