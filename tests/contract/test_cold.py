"""The part of the contract that archive classes bring: thaws and lifecycle rules, on all adapters."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from gateway.errors import ObjectCold, ObjectMissing, StoreRefused
from gateway.store.crc import crc64
from gateway.store.lifecycle import Lifecycle, LifecycleRule, SmallObjects, Transition, midnight
from gateway.store.port import ObjectFacts, ObjectStore, Thaw, ThawAnswer, ThawTier
from tests.contract.stores import Subject

# The stores in which time passes; in the others nothing thaws or moves by itself.
KEEPS_TIME = pytest.mark.parametrize("subject", ["memory", "coldsim", "coldsim-flat"], indirect=True)

DATA = b"an object that is put where it freezes"


def put(store: ObjectStore, key: str, storage_class: str = "STANDARD") -> ObjectFacts:
    return store.put(key, DATA, crc64=crc64(DATA), storage_class=storage_class)


def time_of(subject: Subject) -> datetime:
    assert subject.now is not None
    return subject.now()


def advance(subject: Subject, **by: float) -> None:
    assert subject.advance is not None
    subject.advance(timedelta(**by))


class TestThaw:
    def test_what_is_hot_needs_none(self, subject: Subject) -> None:
        put(subject.store, "a")
        assert subject.store.head("a").thaw is None
        if subject.name == "seaweedfs":  # it has no such request
            with pytest.raises(StoreRefused):
                subject.store.thaw("a", days=1, tier=ThawTier.BULK)
        else:
            assert subject.store.thaw("a", days=1, tier=ThawTier.BULK) is ThawAnswer.NEVER_COLD
        assert subject.store.get("a") == DATA

    def test_what_is_missing(self, subject: Subject) -> None:
        with pytest.raises(StoreRefused if subject.name == "seaweedfs" else ObjectMissing):
            subject.store.thaw("nothing/there", days=1, tier=ThawTier.BULK)

    def test_arguments(self, subject: Subject) -> None:
        put(subject.store, "a")
        with pytest.raises(ValueError):
            subject.store.thaw("a", days=0, tier=ThawTier.BULK)
        with pytest.raises(ValueError):
            subject.store.thaw("/a", days=1, tier=ThawTier.BULK)

    def test_freeze_thaw_read_freeze(self, subject: Subject) -> None:
        store = subject.store
        put(store, "a/deep", "DEEP_ARCHIVE")
        if not subject.habits.thaws:
            assert store.get("a/deep") == DATA  # never cold
            return
        facts = store.head("a/deep")
        assert (facts.storage_class, facts.thaw) == ("DEEP_ARCHIVE", None)
        with pytest.raises(ObjectCold):
            store.get("a/deep")
        with pytest.raises(ObjectCold):
            store.get("a/deep", start=3, length=5)
        assert store.thaw("a/deep", days=2, tier=ThawTier.STANDARD) is ThawAnswer.STARTED
        if subject.advance is None:  # moto thaws at once, and says so in HEAD only
            thaw = store.head("a/deep").thaw
            assert thaw is not None
            assert not thaw.in_progress
            assert store.get("a/deep") == DATA
            assert store.thaw("a/deep", days=2, tier=ThawTier.STANDARD) is ThawAnswer.EXTENDED
            return
        until = midnight(time_of(subject) + timedelta(days=2))
        assert store.thaw("a/deep", days=2, tier=ThawTier.STANDARD) is ThawAnswer.RUNNING
        assert store.head("a/deep").thaw == Thaw(in_progress=True)
        assert [facts.thaw for facts in store.list_objects("a/")] == [Thaw(in_progress=True)]
        with pytest.raises(ObjectCold):
            store.get("a/deep")
        advance(subject, hours=12)
        thawed = Thaw(in_progress=False, until=until)
        assert subject.reopen().head("a/deep").thaw == thawed
        assert [facts.thaw for facts in store.list_objects("a/")] == [thawed]
        assert store.head("a/deep").readable(time_of(subject))
        assert store.get("a/deep") == DATA
        assert store.get("a/deep", start=3, length=5) == DATA[3:8]
        until = midnight(time_of(subject) + timedelta(days=5))
        assert store.thaw("a/deep", days=5, tier=ThawTier.BULK) is ThawAnswer.EXTENDED
        assert store.head("a/deep").thaw == Thaw(in_progress=False, until=until)
        advance(subject, seconds=(until - time_of(subject)).total_seconds() - 1)
        assert store.get("a/deep") == DATA
        advance(subject, seconds=2)
        assert store.head("a/deep").thaw is None
        with pytest.raises(ObjectCold):
            store.get("a/deep")

    @KEEPS_TIME
    def test_tiers(self, subject: Subject) -> None:
        store = subject.store
        put(store, "deep", "DEEP_ARCHIVE")
        put(store, "flexible", "GLACIER")
        with pytest.raises(StoreRefused):
            store.thaw("deep", days=1, tier=ThawTier.EXPEDITED)
        assert store.thaw("flexible", days=1, tier=ThawTier.BULK) is ThawAnswer.STARTED
        assert store.thaw("flexible", days=1, tier=ThawTier.EXPEDITED) is ThawAnswer.STARTED  # hastened
        advance(subject, minutes=5)
        assert store.get("flexible") == DATA


def ours(base: str) -> tuple[LifecycleRule, ...]:
    return (
        LifecycleRule(
            id="gateway-deep",
            prefix=f"{base}packs/deep/",
            transitions=(Transition(days=97, storage_class="DEEP_ARCHIVE"),),
            larger_than=1000,
        ),
        LifecycleRule(id="gateway-uploads", prefix=base, abort_days=14),
    )


class TestLifecycle:
    def test_there_and_back(self, subject: Subject) -> None:
        store = subject.store
        assert store.base == "" or store.base.endswith("/")
        if subject.name == "directory":
            with pytest.raises(StoreRefused):
                store.get_lifecycle()
            with pytest.raises(StoreRefused):
                store.put_lifecycle(Lifecycle())
            return
        store.put_lifecycle(Lifecycle())
        assert store.get_lifecycle() == Lifecycle()
        if subject.name == "seaweedfs":  # it takes expirations, but no transitions
            with pytest.raises(StoreRefused):
                store.put_lifecycle(Lifecycle(rules=ours(store.base)))
            assert store.get_lifecycle() == Lifecycle()
            return
        put_in = Lifecycle(rules=ours(store.base), small_objects=SmallObjects.VARY)
        store.put_lifecycle(put_in)
        back = subject.reopen().get_lifecycle()
        assert {rule.id for rule in back.rules} == {rule.id for rule in put_in.rules}
        # moto drops filters of sizes in silence: why what the store holds is compared later.
        assert (set(back.rules) == set(put_in.rules)) is subject.habits.keeps_rules
        store.put_lifecycle(Lifecycle(rules=put_in.rules[1:]))
        assert [rule.id for rule in store.get_lifecycle().rules] == ["gateway-uploads"]
        store.put_lifecycle(Lifecycle())
        assert store.get_lifecycle() == Lifecycle()

    @KEEPS_TIME
    def test_rules_are_carried_out(self, subject: Subject) -> None:
        store = subject.store
        rules = (
            LifecycleRule(
                id="freeze",
                prefix=f"{store.base}packs/deep/",
                transitions=(Transition(days=3, storage_class="DEEP_ARCHIVE"),),
                larger_than=0,
            ),
            LifecycleRule(id="abort", prefix=store.base, abort_days=7),
        )
        store.put_lifecycle(Lifecycle(rules=rules))
        put(store, "packs/deep/1", "GLACIER_IR")
        put(store, "packs/meta/1")
        store.start_upload("packs/deep/2")
        advance(subject, days=2)
        assert store.get("packs/deep/1") == DATA
        advance(subject, days=2)
        classes = {facts.key: facts.storage_class for facts in store.list_objects("")}
        assert classes == {"packs/deep/1": "DEEP_ARCHIVE", "packs/meta/1": "STANDARD"}
        with pytest.raises(ObjectCold):
            store.get("packs/deep/1")
        assert len(store.list_uploads("")) == 1
        advance(subject, days=4)
        assert store.list_uploads("") == []
        store.put_lifecycle(Lifecycle())

    @KEEPS_TIME  # moto takes everything
    def test_rules_that_cannot_be(self, subject: Subject) -> None:
        backwards = LifecycleRule(id="r", transitions=(Transition(days=1, storage_class="STANDARD"),))
        with pytest.raises(StoreRefused):
            subject.store.put_lifecycle(Lifecycle(rules=(backwards,)))
