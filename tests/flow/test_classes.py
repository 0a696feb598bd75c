"""Storage classes: from the configuration into header, packs and dates, and what a class promises over half a year."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.api import Depth, ProblemKind, Reference, RestoreState
from gateway.cli.reports import of_problems
from gateway.config.classes import BUILT_IN, DEEP, INGEST_DAYS, ClassConfig
from gateway.errors import ApprovalNeeded
from gateway.format import log, names
from gateway.model.ids import ChainName
from gateway.policy.hot import cold_at
from gateway.policy.rolling import DAY_MS, NewestChain, reason_to_roll
from gateway.repository.chain import read_header
from gateway.repository.indexes import pack_key
from gateway.store.meter import Operation
from gateway.store.port import ObjectFacts, ThawTier
from tests.flow.gateways import KIB, Gateway, make_store
from tests.flow.trees import tree

DAY = timedelta(days=1)
MONTH = ClassConfig(
    name="month", steps=((0, "STANDARD"), (45, "DEEP_ARCHIVE")), hot_days=14, chain_days=24,
)  # fmt: skip


def packs_of(gateway: Gateway, reference: str) -> list[str]:
    """The keys of all packs that a generation needs."""
    shown = gateway.engine.show(Reference.parse(reference))
    group, number = shown.info.chain.split("/")
    chain = ChainName(group, int(number))
    return [names.pack(each.storage_class, chain, each.number, bytes.fromhex(each.id)) for each in shown.packs]


def facts(gateway: Gateway) -> dict[str, ObjectFacts]:
    return {each.key: each for each in gateway.store.list_objects("packs/")}


def use(gateway: Gateway, name: str, *classes: ClassConfig) -> None:
    gateway.change(storage_class=name)
    gateway.config = replace(gateway.config, classes=(*BUILT_IN, *classes))


# --- from the configuration to the bucket -----------------------------------------------------------------------------


def test_a_class_of_the_configuration_is_fixed_in_the_header_and_in_the_names(gateway: Gateway) -> None:
    use(gateway, "month", MONTH)
    gateway.source.noise("a", 300 * KIB)
    info = gateway.made()
    gateway.change(sizes={"small_pack_bytes": 64 * KIB})
    gateway.source.noise("b", 10 * KIB)
    assert gateway.made().chain == info.chain
    assert info.storage_class == "month"
    header = read_header(gateway.engine.hold().repository, ChainName("src", 1))
    assert (header.storage, header.steps, header.hot_days, header.chain_days) == (
        "month", (0, "STANDARD", 45, "DEEP_ARCHIVE"), 14, 24,
    )  # fmt: skip
    kinds = {key.split("/")[1] for key in facts(gateway)}
    assert kinds == {"meta", "month", "hot"}  # small packs never go cold
    gateway.close()
    gateway.config = replace(gateway.config, classes=BUILT_IN)
    gateway.change(storage_class="hot")
    assert gateway.restored() == tree(gateway.source.root)  # the configuration is not needed to read it


def test_packs_go_into_the_storage_class_of_day_0(gateway: Gateway) -> None:
    use(gateway, "deep")
    gateway.source.noise("a", 300 * KIB)
    gateway.made()
    classes = {(key.split("/")[1], each.storage_class) for key, each in facts(gateway).items()}
    assert classes == {("meta", "STANDARD"), ("deep", "GLACIER_IR")}


def test_a_store_without_classes_keeps_everything_hot_and_says_so(gateway: Gateway) -> None:
    gateway.store = make_store(gateway.clock, knows_classes=False)
    gateway.store.load(gateway.born.objects)
    use(gateway, "deep")
    gateway.source.noise("a", 300 * KIB)
    info = gateway.made()
    assert (info.storage_class, info.hot_until) == ("hot", None)
    said = [each for each in gateway.events.events if each.name == "source.kept_hot"]
    assert [each.fields["wanted"] for each in said] == ["deep"]
    gateway.source.noise("b", 10)
    assert gateway.made().chain == info.chain  # and it stays so: no chain rolls because of it


# --- until when -------------------------------------------------------------------------------------------------------


def test_hot_until_is_what_the_store_does(gateway: Gateway) -> None:
    """Readable to the last second before, cold from then on; and what is refused has written nothing."""
    use(gateway, "month", MONTH)
    gateway.engine.lifecycle_apply()
    gateway.source.noise("a", 800 * KIB)
    first = gateway.made()
    gateway.clock.advance(3 * DAY)
    gateway.source.noise("b", 300 * KIB)
    second = gateway.made()
    assert first.hot_until is not None
    assert second.hot_until == first.hot_until  # it needs the packs of the first
    assert first.hot_until.time() == datetime.min.time()
    assert first.created + 45 * DAY <= first.hot_until < first.created + 46 * DAY + timedelta(hours=1)
    shown = gateway.engine.show(Reference.parse("src@2"))
    assert shown.info.hot_until == second.hot_until

    whole, empty = tree(gateway.source.root), gateway.elsewhere()
    gateway.close()
    engine = gateway.open(empty)  # with a pack cache that has nothing
    engine.rebuild()
    gateway.config = empty
    gateway.clock.advance(first.hot_until - gateway.clock.now() - timedelta(seconds=1))
    assert gateway.restored("src@2") == whole
    assert [each.hot_until for each in gateway.engine.generations()] == [first.hot_until] * 2

    gateway.clock.advance(timedelta(seconds=2))
    target = gateway.root / "refused"
    plan = gateway.restore("src@2", to=target, dry_run=True)[1].plan
    cold = [each for each in facts(gateway).values() if each.storage_class == "DEEP_ARCHIVE"]
    assert (plan.cold_packs, plan.cold_bytes) == (len(cold), sum(each.size for each in cold))
    assert 0 < plan.cold_packs < plan.packs
    with pytest.raises(ApprovalNeeded, match="what is not known") as caught:  # no region, so no price
        gateway.restore("src@2", to=target)
    assert caught.value.exit_code == 21
    assert not target.exists()
    assert not [each for each in gateway.store.log() if each.what is Operation.THAW]

    job = gateway.engine.jobs()[0]
    assert (job.state, job.quote_usd) == (RestoreState.APPROVAL, None)
    gateway.engine.approve_job(job.id)
    report = gateway.engine.watch_job(job.id)
    assert not report.left_out
    assert tree(target) == whole
    asked = [each.key for each in gateway.store.log() if each.what is Operation.THAW]
    assert sorted(asked) == sorted(each.key for each in cold)
    gateway.checked = False  # the thaw ends: what is cold is not read for a proof


def test_what_somebody_else_thawed_needs_no_approval(gateway: Gateway) -> None:
    use(gateway, "month", MONTH)
    gateway.engine.lifecycle_apply()
    gateway.source.noise("a", 800 * KIB)
    gateway.made()
    whole = tree(gateway.source.root)
    gateway.clock.advance(60 * DAY)
    gateway.lose_state()
    cold = [each.key for each in facts(gateway).values() if each.storage_class == "DEEP_ARCHIVE"]
    assert cold
    for key in cold:
        gateway.store.thaw(key, days=5, tier=ThawTier.STANDARD)
    gateway.clock.advance(timedelta(hours=12))
    assert gateway.restored() == whole
    assert sum(each.what is Operation.THAW for each in gateway.store.log()) == len(cold)
    gateway.checked = False


def test_verify_reads_what_is_not_cold_and_names_the_rest(gateway: Gateway) -> None:
    """Damage in a hot pack is found behind cold ones; a cold pack that is known as damaged is not taken for healed."""
    use(gateway, "month", MONTH)
    gateway.engine.lifecycle_apply()
    gateway.source.noise("a", 300 * KIB)
    gateway.made()
    gateway.clock.advance(60 * DAY)
    cold = {each.key for each in facts(gateway).values() if each.storage_class == "DEEP_ARCHIVE"}
    gateway.source.noise("b", 300 * KIB)
    gateway.made(new_chain=True)
    found = gateway.engine.verify(depth=Depth.DATA)
    assert {each.kind for each in found.problems} == {ProblemKind.COLD}
    assert {each.address for each in found.problems} == {*cold, "src@1"}
    failure = of_problems(found.problems)
    assert failure is not None
    assert failure.exit_code == 20
    assert gateway.engine.verify(depth=Depth.STRUCTURE).problems == ()
    hot = next(each.key for each in facts(gateway).values() if "/month/src/000002/" in each.key)
    gateway.put_back(hot, bytes(facts(gateway)[hot].size))
    found = gateway.engine.verify(depth=Depth.DATA)
    assert found.problems[0].address == hot, "damage is named first"
    assert {each.address for each in found.problems} >= cold
    failure = of_problems(found.problems)
    assert failure is not None
    assert failure.exit_code == 13
    # Found while it was readable, and cold since: nobody has seen it whole again.
    chain = gateway.engine.hold().open_chain(ChainName("src", 1))
    number = next(number for number, each in chain.fold.packs.items() if pack_key(chain, each.declaration) in cold)
    chain.append(
        log.DAMAGED, log.Damaged(number, chain.fold.packs[number].declaration.pack_id, "seen once", 0, 0),
        gateway.engine.hold().writer,
    )  # fmt: skip
    gateway.engine.verify(depth=Depth.DATA)
    again = gateway.engine.hold().open_chain(ChainName("src", 1))
    assert again.fold.packs[number].damaged == "seen once"
    gateway.checked = False


def test_verify_of_a_pack_that_stands_on_a_cold_one_compares_what_it_can(gateway: Gateway) -> None:
    use(gateway, "month", MONTH)
    gateway.engine.lifecycle_apply()
    gateway.source.noise("pages", 500 * KIB)
    gateway.made()
    gateway.clock.advance(5 * DAY)
    gateway.source.overwrite("pages", 64 * KIB + 100, b"x" * 300)
    gateway.made()
    chain = gateway.engine.hold().open_chain(ChainName("src", 1))
    upper = {
        pack_key(chain, each.declaration)
        for each in chain.fold.packs.values()
        if each.declaration.bases and each.declaration.storage != "meta"
    }
    assert upper, "no delta was made"
    gateway.clock.advance(42 * DAY)
    cold = {each.key for each in facts(gateway).values() if each.storage_class == "DEEP_ARCHIVE"}
    assert cold
    assert not upper & cold
    found = {each.address: each for each in gateway.engine.verify(depth=Depth.DATA).problems}
    assert {each.kind for each in found.values()} == {ProblemKind.COLD}
    assert set(found) == {*cold, *upper, "src@1", "src@2"}
    for key in upper:
        assert "only its checksum was compared" in found[key].what
    gateway.checked = False


def test_cached_packs_need_no_thaw(gateway: Gateway) -> None:
    use(gateway, "month", MONTH)
    gateway.engine.lifecycle_apply()
    gateway.source.noise("a", 300 * KIB)
    gateway.made()
    gateway.clock.advance(60 * DAY)
    assert {each.storage_class for each in facts(gateway).values()} == {"STANDARD", "DEEP_ARCHIVE"}
    assert gateway.restored() == tree(gateway.source.root)
    gateway.checked = False


def test_instant_and_hot_never_go_cold(gateway: Gateway) -> None:
    gateway.source.noise("a", 300 * KIB)
    assert gateway.made().hot_until is None
    use(gateway, "hot")
    gateway.source.noise("b", 300 * KIB)
    assert gateway.made().hot_until is None
    gateway.engine.lifecycle_apply()
    gateway.clock.advance(400 * DAY)
    assert gateway.restored() == tree(gateway.source.root)


# --- the law ----------------------------------------------------------------------------------------------------------


def test_200_days_of_a_deep_source(gateway: Gateway) -> None:
    """A generation every other day, the rules at work: what is younger than `hot_days` never needs a cold pack."""
    use(gateway, "deep")
    gateway.engine.lifecycle_apply()
    made: list[tuple[datetime, str, list[str]]] = []
    chains: dict[str, int] = {}
    for day in range(0, 200, 2):
        gateway.source.noise(f"{day % 8}", 140 * KIB)
        gateway.clock.advance(2 * DAY - timedelta(minutes=10))
        info = gateway.made()
        chains[info.chain] = chains.get(info.chain, 0) + 1
        made.append((info.created, f"src@{info.number}", packs_of(gateway, f"src@{info.number}")))
        now, there = gateway.clock.now(), facts(gateway)
        assert info.hot_until is not None
        assert info.hot_until >= info.created + DEEP.hot_days * DAY
        for created, name, keys in made:
            if now - created < DEEP.hot_days * DAY:
                assert all(there[key].readable(now) for key in keys), (day, name)
    assert 4 <= len(chains) <= 6  # of 48 to 60 days each, by the jitter of the source's name
    assert all(24 <= count <= DEEP.chain_days / 2 for count in list(chains.values())[:-1])
    now, there = gateway.clock.now(), facts(gateway)
    assert any(each.storage_class == "DEEP_ARCHIVE" for each in there.values())
    for (created, _, keys), info in zip(made, gateway.engine.generations(), strict=True):
        assert info.created == created
        assert info.hot_until is not None
        assert all(there[key].readable(now) for key in keys) is (now < info.hot_until)

    oldest = next(name for created, name, _ in made if now - created < DEEP.hot_days * DAY)
    here = gateway.derived()
    gateway.lose_state()  # no cache: everything comes from the store
    assert gateway.derived()["generation"] == here["generation"]
    gateway.restored(oldest)
    with pytest.raises(ApprovalNeeded) as caught:
        gateway.restore("src@1")
    assert caught.value.exit_code == 21
    waiting = next(each for each in gateway.engine.jobs() if each.state is RestoreState.APPROVAL)
    assert waiting.generation == "src@1"
    gateway.checked = False


@st.composite
def laws(draw: st.DrawFn) -> tuple[ClassConfig, list[tuple[int, int]]]:
    hot, chain = draw(st.integers(0, 60)), draw(st.integers(1, 90))
    cold = hot + chain + INGEST_DAYS + draw(st.integers(0, 30))
    assume(cold >= 1)
    made = ClassConfig(
        name="x", steps=((0, "STANDARD"), (cold, "GLACIER")), hot_days=hot, chain_days=chain,
    )  # fmt: skip
    pauses = st.integers(0, 40 * DAY_MS)
    takes = st.integers(0, 3 * DAY_MS)
    return made, draw(st.lists(st.tuples(pauses, takes), min_size=1, max_size=60))


@given(laws(), st.text("abcdefgh-", min_size=1, max_size=8))
def test_every_generation_younger_than_hot_days_is_readable(
    drawn: tuple[ClassConfig, list[tuple[int, int]]], source: str
) -> None:
    """Whatever the class, the pauses and the length of uploads (up to three days): the oldest pack of a generation's
    chain goes cold no sooner than `hot_days` after the generation was there. Its uploads take at most twice the longest
    so far, or what `INGEST_DAYS` leaves in a new chain.
    """
    law, ingests = drawn
    newest: NewestChain | None = None
    now = 0
    for pause, took in ingests:
        now += DAY_MS + pause
        if reason_to_roll(newest, "x", source=source, now=now):
            newest = NewestChain(
                storage="x", created=now, steps=law.flat, hot_days=law.hot_days, chain_days=law.chain_days, oldest=now
            )
            bound = took
        else:
            assert newest is not None
            bound = min(took, 2 * newest.longest)
        assert newest is not None
        cold = cold_at(law.flat, newest.oldest)
        assert cold is not None
        assert cold >= now + bound + law.hot_days * DAY_MS
        newest = replace(newest, longest=max(newest.longest, took))
        now += took
