"""Retries, and looking where an answer was lost. No sockets, no real time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import FakeClock
from gateway.errors import (
    AnswerUnknown,
    ClockSkew,
    Corrupt,
    ObjectExists,
    ObjectMissing,
    StoreDenied,
    StoreError,
    StoreRefused,
    StoreUnreachable,
)
from gateway.store.crc import crc64
from gateway.store.faults import FaultyStore
from gateway.store.lifecycle import Lifecycle, LifecycleRule
from gateway.store.memory import MemoryStore
from gateway.store.passing import PassingStore
from gateway.store.port import ObjectFacts, Part, ThawAnswer, ThawTier
from gateway.store.wrap import RetryingStore, RetryPolicy

DATA = b"an entry of the log"
CRC = crc64(DATA)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 1, 1, tzinfo=UTC), seed=b"wrap")


def stores(clock: FakeClock, faults: str, *, states_checksums: bool = True) -> tuple[MemoryStore, RetryingStore]:
    memory = MemoryStore(clock, faults=faults, min_part_bytes=1, states_checksums=states_checksums)
    return memory, RetryingStore(memory, clock)


def put(store: RetryingStore, data: bytes = DATA, *, if_absent: bool = False) -> ObjectFacts:
    return store.put("k", data, crc64=crc64(data), if_absent=if_absent)


class TestPolicy:
    def test_waits_grow_and_end(self, clock: FakeClock) -> None:
        memory, store = stores(clock, "get:*=503")
        with pytest.raises(StoreUnreachable):
            store.get("k")
        # The fake clock draws the middle of each span.
        assert clock.slept == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]
        assert memory.meter().requests("get") == RetryPolicy().tries == 12

    def test_total_time_is_bounded(self, clock: FakeClock) -> None:
        memory = MemoryStore(clock, faults="get:*=503")
        store = RetryingStore(memory, clock, RetryPolicy(tries=1000, total=timedelta(seconds=20)))
        with pytest.raises(StoreUnreachable):
            store.get("k")
        assert sum(clock.slept) <= 20
        assert memory.meter().requests("get") == 7

    def test_one_try_is_no_retry(self, clock: FakeClock) -> None:
        store = RetryingStore(MemoryStore(clock, faults="get:1=503"), clock, RetryPolicy(tries=1))
        with pytest.raises(StoreUnreachable):
            store.get("k")
        assert clock.slept == []

    @pytest.mark.parametrize("bad", [{"tries": 0}, {"total": timedelta(-1)}, {"first_wait": timedelta(-1)}])
    def test_no_policy(self, bad: dict[str, int]) -> None:
        with pytest.raises(ValueError):
            RetryPolicy(**bad)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("kind", "error"), [("denied", StoreDenied), ("skew", ClockSkew), ("refused", StoreRefused)]
    )
    def test_final_at_once(self, clock: FakeClock, kind: str, error: type[StoreError]) -> None:
        calls: dict[str, Callable[[RetryingStore], object]] = {
            "put": put,
            "get": lambda store: store.get("k"),
            "head": lambda store: store.head("k"),
            "list": lambda store: list(store.list_objects("")),
            "delete": lambda store: store.delete("k"),
            "start": lambda store: store.start_upload("k"),
            "part": lambda store: store.put_part("k", "u", 1, b"", crc64=0),
            "parts": lambda store: store.list_parts("k", "u"),
            "complete": lambda store: store.complete_upload("k", "u", [], size=0, crc64=0),
            "abort": lambda store: store.abort_upload("k", "u"),
            "uploads": lambda store: store.list_uploads(""),
            "thaw": lambda store: store.thaw("k", days=1, tier=ThawTier.BULK),
            "rules": lambda store: store.get_lifecycle(),
            "newrules": lambda store: store.put_lifecycle(Lifecycle()),
        }
        for operation, call in calls.items():
            memory, store = stores(clock, f"{operation}:*={kind}")
            with pytest.raises(error):
                call(store)
            assert memory.meter().requests(operation) == 1
        assert clock.slept == []


class TestPut:
    @pytest.mark.parametrize("kind", ["503", "409", "timeout", "lost"])
    @pytest.mark.parametrize("if_absent", [False, True])
    @pytest.mark.parametrize("states", [False, True])
    def test_goes_through(self, clock: FakeClock, kind: str, if_absent: bool, states: bool) -> None:
        memory, store = stores(clock, f"put:1-3={kind}", states_checksums=states)
        facts = put(store, if_absent=if_absent)
        assert facts.size == len(DATA)
        assert memory.dump() == {"k": DATA}
        assert memory.meter().requests("put") == (1 if kind == "lost" else 4)

    def test_lost_answer_is_read_back_when_it_must_be_ours(self, clock: FakeClock) -> None:
        memory, store = stores(clock, "put:1=lost")
        put(store, if_absent=True)
        assert memory.meter().requests("get") == 1
        memory, store = stores(clock, "put:1=lost")
        put(store)
        assert memory.meter().requests("get") == 0  # the stated checksum is enough

    def test_foreign_object_after_lost_answer(self, clock: FakeClock) -> None:
        for foreign in (b"another writer's", DATA[:-1] + b"X"):
            memory, store = stores(clock, "put:1=timeout")
            memory.load({"k": foreign})
            with pytest.raises(ObjectExists):
                put(store, if_absent=True)
            assert memory.dump() == {"k": foreign}

    def test_foreign_object_arrives_between(self, clock: FakeClock) -> None:
        class Overtaken(PassingStore):
            def head(self, key: str) -> ObjectFacts:
                try:
                    return super().head(key)
                finally:
                    memory.load({"k": b"another writer's"})

        memory = MemoryStore(clock, faults="put:1=timeout")
        store = RetryingStore(Overtaken(memory), clock)
        with pytest.raises(ObjectExists):
            put(store, if_absent=True)
        assert memory.dump() == {"k": b"another writer's"}

    def test_late_arrival_of_our_own(self, clock: FakeClock) -> None:
        """The first try reaches the store after we looked: the second finds it, and it is ours."""

        class Late(PassingStore):
            def head(self, key: str) -> ObjectFacts:
                try:
                    return super().head(key)
                finally:
                    memory.load({"k": DATA})

        memory = MemoryStore(clock, faults="put:1=timeout")
        facts = put(RetryingStore(Late(memory), clock), if_absent=True)
        assert facts.crc64 == CRC

    def test_same_object_without_lost_answer_is_not_ours(self, clock: FakeClock) -> None:
        memory, store = stores(clock, "put:1=503")
        memory.load({"k": DATA})
        with pytest.raises(ObjectExists):
            put(store, if_absent=True)

    def test_old_object_is_replaced(self, clock: FakeClock) -> None:
        memory, store = stores(clock, "put:1=timeout")
        memory.load({"k": b"old"})
        put(store)
        assert memory.dump() == {"k": DATA}

    def test_same_checksum_is_not_the_same_bytes(self, clock: FakeClock) -> None:
        memory, store = stores(clock, "put:1=timeout")
        memory.load({"k": DATA})
        memory.rot("k")
        with pytest.raises(ObjectExists):
            put(store, if_absent=True)

    def test_cannot_look(self, clock: FakeClock) -> None:
        for faults in ("put:1=lost,head:*=503", "put:1=lost,head:*=denied", "put:1=lost,get:*=503"):
            _, store = stores(clock, faults)
            with pytest.raises(AnswerUnknown):
                put(store, if_absent=True)

    def test_damage_on_the_way_in_is_final(self, clock: FakeClock) -> None:
        memory, store = stores(clock, "")
        with pytest.raises(Corrupt):
            store.put("k", DATA, crc64=CRC ^ 1)
        assert memory.meter().requests("put") == 1


class TestComplete:
    def begin(self, store: RetryingStore) -> tuple[str, list[Part]]:
        upload_id = store.start_upload("k")
        halves = [DATA[:7], DATA[7:]]
        parts = [
            store.put_part("k", upload_id, number, half, crc64=crc64(half)) for number, half in enumerate(halves, 1)
        ]
        return upload_id, parts

    def complete(self, store: RetryingStore, upload_id: str, parts: list[Part]) -> ObjectFacts:
        return store.complete_upload("k", upload_id, parts, size=len(DATA), crc64=CRC)

    @pytest.mark.parametrize("states", [False, True])
    @pytest.mark.parametrize(
        "faults",
        [
            "complete:1=lost",
            "complete:1=timeout",
            "complete:1-2=timeout,complete:3=lost",
            "complete:1=503",
            "complete:1=lost,head:1-2=503",
            "complete:1=timeout,parts:1=503",
            "start:1=lost,part:1=lost,part:4=503,complete:1=409",
        ],
    )
    def test_goes_through(self, clock: FakeClock, faults: str, states: bool) -> None:
        memory, store = stores(clock, faults, states_checksums=states)
        upload_id, parts = self.begin(store)
        assert self.complete(store, upload_id, parts).size == len(DATA)
        assert memory.dump() == {"k": DATA}

    def test_lost_answer_is_not_sent_again(self, clock: FakeClock) -> None:
        memory, store = stores(clock, "complete:1=lost")
        self.complete(store, *self.begin(store))
        assert memory.meter().requests("complete") == 1

    def test_looks_twice_before_it_sends_again(self, clock: FakeClock) -> None:
        memory, store = stores(clock, "complete:1=timeout")
        self.complete(store, *self.begin(store))
        assert memory.meter().requests("head") == 2
        assert memory.meter().requests("complete") == 2
        assert len(clock.slept) == 1

    def test_completed_by_an_earlier_life(self, clock: FakeClock) -> None:
        memory, store = stores(clock, "")
        upload_id, parts = self.begin(store)
        self.complete(store, upload_id, parts)
        assert self.complete(store, upload_id, parts).crc64 == CRC
        memory.delete("k")
        with pytest.raises(ObjectMissing):
            self.complete(store, upload_id, parts)

    def test_another_object_is_not_ours(self, clock: FakeClock) -> None:
        for states in (True, False):
            memory, store = stores(clock, "", states_checksums=states)
            upload_id, parts = self.begin(store)
            memory.load({"k": DATA[:-1] + b"X"})
            with pytest.raises(ObjectMissing):
                self.complete(store, upload_id, parts)

    def test_cannot_look(self, clock: FakeClock) -> None:
        for faults in ("complete:1=lost,head:*=503", "complete:1=timeout,parts:*=503"):
            _, store = stores(clock, faults)
            upload_id, parts = self.begin(store)
            with pytest.raises(AnswerUnknown):
                self.complete(store, upload_id, parts)

    def test_never_twice_at_once(self, clock: FakeClock) -> None:
        class Watched(PassingStore):
            under_way = 0
            most = 0

            def complete_upload(self, *args: object, **how: object) -> ObjectFacts:
                self.under_way += 1
                self.most = max(self.most, self.under_way)
                entered.set()
                proceed.wait(5)
                try:
                    return super().complete_upload(*args, **how)  # type: ignore[arg-type]
                finally:
                    self.under_way -= 1

        entered, proceed = threading.Event(), threading.Event()
        watched = Watched(MemoryStore(clock, min_part_bytes=1))
        store = RetryingStore(watched, clock)
        upload_id, parts = self.begin(store)
        results: list[ObjectFacts] = []
        threads = [
            threading.Thread(target=lambda: results.append(self.complete(store, upload_id, parts))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        entered.wait(5)
        proceed.set()
        for thread in threads:
            thread.join()
        assert watched.most == 1
        assert len(results) == 3
        assert store._completing == {}


class TestList:
    NAMES = tuple(f"k{number}" for number in range(9))

    class Breaking(PassingStore):
        """Breaks off each listing after three objects."""

        def list_objects(self, prefix: str, *, after: str = ""):  # type: ignore[no-untyped-def]
            for count, facts in enumerate(super().list_objects(prefix, after=after)):
                if count == 3:
                    raise StoreUnreachable("broke off")
                yield facts

    def test_goes_on_where_it_broke_off(self, clock: FakeClock) -> None:
        memory = MemoryStore(clock)
        memory.load(dict.fromkeys(self.NAMES, b""))
        store = RetryingStore(self.Breaking(memory), clock, RetryPolicy(tries=2))
        assert [facts.key for facts in store.list_objects("k")] == list(self.NAMES)

    def test_raises_without_progress(self, clock: FakeClock) -> None:
        _, store = stores(clock, "list:*=503")
        with pytest.raises(StoreUnreachable):
            list(store.list_objects(""))


@given(
    script=st.lists(st.tuples(st.sampled_from(["put", "complete", "part", "head", "get", "parts"]), st.integers(1, 6),
                              st.sampled_from(["503", "timeout", "lost"])), max_size=8),
    states=st.booleans(),
    foreign=st.sampled_from([None, b"another's", DATA]),
)  # fmt: skip
def test_what_returns_was_done(script: list[tuple[str, int, str]], states: bool, foreign: bytes | None) -> None:
    """Under any faults: success means that our bytes are there, and a foreign object is never overwritten."""
    clock = FakeClock(datetime(2026, 1, 1, tzinfo=UTC), seed=b"any")
    memory = MemoryStore(clock, min_part_bytes=1, states_checksums=states)
    if foreign is not None:
        memory.load({"k": foreign})
    memory.faults.add(",".join(f"{operation}:{which}={kind}" for operation, which, kind in script))
    store = RetryingStore(memory, clock)
    try:
        put(store, if_absent=True)
    except ObjectExists:
        assert foreign is not None
        assert memory.dump()["k"] == foreign
    else:
        assert memory.dump()["k"] == DATA
    upload_id = store.start_upload("m")
    part = store.put_part("m", upload_id, 1, DATA, crc64=CRC)
    assert store.complete_upload("m", upload_id, [part], size=len(DATA), crc64=CRC).size == len(DATA)
    assert memory.dump()["m"] == DATA


def test_faulty_store_over_any(clock: FakeClock) -> None:
    faulty = FaultyStore(MemoryStore(clock), "put:1=flip,get:2=flip,list:1=stale")
    facts = faulty.put("k", DATA, crc64=CRC)
    assert facts.crc64 == CRC  # the answer is that of success
    assert faulty.head("k").crc64 != CRC  # the proof finds it
    assert faulty.get("k") != DATA
    assert list(faulty.list_objects("")) == []
    assert [facts.key for facts in faulty.list_objects("")] == ["k"]


class TestCold:
    @pytest.mark.parametrize(
        ("kind", "answer"),
        [
            ("503", ThawAnswer.STARTED),
            ("409", ThawAnswer.STARTED),
            ("timeout", ThawAnswer.STARTED),
            ("lost", ThawAnswer.RUNNING),  # the first request's
        ],
    )
    def test_a_thaw_goes_through(self, clock: FakeClock, kind: str, answer: ThawAnswer) -> None:
        _, store = stores(clock, f"thaw:1={kind}")
        store.put("k", DATA, crc64=CRC, storage_class="DEEP_ARCHIVE")
        assert store.thaw("k", days=3, tier=ThawTier.BULK) is answer
        thaw = store.head("k").thaw
        assert thaw is not None
        assert thaw.in_progress

    def test_no_capacity_is_not_tried_again(self, clock: FakeClock) -> None:
        memory, store = stores(clock, "thaw:*=nocapacity")
        store.put("k", DATA, crc64=CRC, storage_class="GLACIER")
        assert store.thaw("k", days=3, tier=ThawTier.EXPEDITED) is ThawAnswer.NO_CAPACITY
        assert memory.meter().requests("thaw") == 1
        assert clock.slept == []

    @pytest.mark.parametrize("kind", ["503", "timeout", "lost"])
    def test_rules_go_through(self, clock: FakeClock, kind: str) -> None:
        memory, store = stores(clock, f"rules:1-2={kind},newrules:1-2={kind}")
        rules = Lifecycle(rules=(LifecycleRule(id="r", expire_days=1),))
        store.put_lifecycle(rules)
        assert store.get_lifecycle() == rules
        assert memory.meter().requests("newrules") == 3
