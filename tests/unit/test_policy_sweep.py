"""Which packs may be deleted: what is needed never, what is free when its time has come, and always with a reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gateway.model.ids import in_ranges, ranges
from gateway.policy.hot import entered_at
from gateway.policy.sweep import Holder, Pack, SweepPlan, Unnamed, Verdict, plan

NOW = datetime(2031, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
WEEK = 7 * DAY


def pack(number: int, *bases: int, age: int = 400, **changes: object) -> Pack:
    given = {"size": 1000, "declared": NOW - age * DAY, "stored": NOW - age * DAY, "bases": tuple(ranges(list(bases)))}
    return Pack(number=number, **(given | changes))  # type: ignore[arg-type]


def needs(*numbers: int, expired: int | None = None, label: str = "a@1") -> Holder:
    when = NOW - expired * DAY if expired is not None else None
    return Holder(label=label, needs=tuple(ranges(list(numbers))), expired=when)


def verdicts(made: SweepPlan) -> dict[int, str]:
    return {each.number: str(each.verdict) for each in made.decisions}


def test_what_a_kept_generation_needs_stays_with_all_that_is_under_it() -> None:
    packs = [pack(1), pack(2, 1), pack(3, 2), pack(4)]
    made = plan(packs, [needs(3), needs(1, 2, 4, expired=30)], now=NOW, sweep_after=WEEK)
    assert verdicts(made) == {1: "keep", 2: "keep", 3: "keep", 4: "condemn"}
    assert made.decisions[0].reason == "pack 00000002 stands on it, and that is needed"
    assert made.decisions[2].reason == "a@1 needs it"
    assert made.condemning == (4,)


def test_an_expiry_can_be_undone_for_a_while() -> None:
    holders = [needs(1, expired=30), needs(1, expired=5, label="a@2")]
    (one,) = plan([pack(1)], holders, now=NOW, sweep_after=WEEK).decisions
    assert (one.verdict, one.until) == (Verdict.WAIT, NOW + 2 * DAY)
    assert "a@2 expired" in one.reason
    (one,) = plan([pack(1)], holders, now=NOW + 2 * DAY, sweep_after=WEEK).decisions
    assert one.verdict is Verdict.CONDEMN


def test_a_storage_class_is_paid_for_its_least_time() -> None:
    young = pack(1, age=20, storage_class="GLACIER_IR")
    (one,) = plan([young], [needs(1, expired=19)], now=NOW, sweep_after=WEEK).decisions
    assert (one.verdict, one.until) == (Verdict.WAIT, NOW + 70 * DAY)
    assert "billed for 90 days" in one.reason


def test_the_least_time_counts_from_when_it_came_into_the_class() -> None:
    old = pack(1, age=120, storage_class="DEEP_ARCHIVE", entered=NOW - 23 * DAY)
    (one,) = plan([old], [needs(1, expired=19)], now=NOW, sweep_after=WEEK).decisions
    assert (one.verdict, one.until) == (Verdict.WAIT, NOW + 157 * DAY)


def test_when_it_came_into_the_class() -> None:
    steps, day = (0, "STANDARD", 7, "GLACIER", 97, "DEEP_ARCHIVE"), 86_400_000
    stored = 1000 * day + 5
    assert entered_at(steps, "STANDARD", stored) == stored
    assert entered_at(steps, "GLACIER", stored) == 1008 * day
    assert entered_at(steps, "DEEP_ARCHIVE", stored) == 1098 * day
    assert entered_at(steps, "DEEP_ARCHIVE", 1000 * day) == 1097 * day
    assert entered_at(steps, "GLACIER_IR", stored) == stored  # somebody else's rule


def test_a_lock_is_waited_for() -> None:
    until = NOW + 3 * DAY
    locked = pack(1, locked_until=until)
    (one,) = plan([locked], [needs(1, expired=30)], now=NOW, sweep_after=WEEK).decisions
    assert (one.verdict, one.until, "locked" in one.reason) == (Verdict.WAIT, until, True)
    (one,) = plan([pack(1, locked_until=until, condemned=True)], [], now=NOW, sweep_after=WEEK).decisions
    assert (one.verdict, one.until) == (Verdict.WAIT, until)


def test_a_legal_hold_has_no_end() -> None:
    for condemned in (False, True):
        held = pack(1, legal_hold=True, condemned=condemned)
        (one,) = plan([held], [needs(1, expired=30)], now=NOW, sweep_after=WEEK).decisions
        assert (one.verdict, one.until, "legal hold" in one.reason) == (Verdict.WAIT, None, True)


def test_what_no_entry_names_waits_for_its_lock() -> None:
    until, old = NOW + 3 * DAY, NOW - 30 * DAY
    unnamed = [
        Unnamed(key="a", size=1, stored=old, locked_until=until),
        Unnamed(key="b", size=1, stored=old, legal_hold=True),
        Unnamed(key="c", size=1, stored=old, locked_until=NOW),
    ]
    found = plan([], [], unnamed, now=NOW, sweep_after=WEEK).decisions
    assert [(each.verdict, each.until) for each in found] == [
        (Verdict.WAIT, until), (Verdict.WAIT, None), (Verdict.CONDEMN, None),
    ]  # fmt: skip
    condemned = [replace(each, condemned=True) for each in unnamed]
    found = plan([], [], condemned, now=NOW, sweep_after=WEEK, frozen="an alarm is open").decisions
    assert [(each.verdict, each.until) for each in found] == [
        (Verdict.WAIT, until), (Verdict.WAIT, None), (Verdict.DELETE, None),
    ]  # fmt: skip


def test_what_nothing_ever_needed_waits_from_its_declaration() -> None:
    packs = [pack(1, age=3), pack(2)]
    assert verdicts(plan(packs, [], now=NOW, sweep_after=WEEK)) == {1: "wait", 2: "condemn"}


def test_frozen_nothing_more_is_given_up() -> None:
    packs = [pack(1), pack(2, condemned=True), pack(3, condemned=True, there=False)]
    made = plan(
        packs, [needs(1, 2, expired=30)], [Unnamed(key="x", size=1, stored=NOW - 30 * DAY)], now=NOW, sweep_after=WEEK,
        frozen="an alarm is open",
    )  # fmt: skip
    assert verdicts(made) == {1: "wait", 2: "delete", 0: "wait"}
    assert "an alarm is open" in made.decisions[0].reason


def test_what_no_entry_names_goes_by_the_stores_date() -> None:
    found = [
        Unnamed(key="a", size=1, stored=NOW - 8 * DAY),
        Unnamed(key="b", size=1, stored=NOW - 6 * DAY),
        Unnamed(key="c", size=1, stored=None),
        Unnamed(key="d", size=1, stored=NOW - 80 * DAY, ours=True),
        Unnamed(key="e", size=1, stored=None, ours=True, condemned=True),
    ]
    made = plan([], [], found, now=NOW, sweep_after=WEEK)
    assert [(each.key, str(each.verdict)) for each in made.decisions] == [
        ("a", "condemn"), ("b", "wait"), ("c", "wait"), ("d", "wait"), ("e", "delete"),
    ]  # fmt: skip
    assert made.condemning == ()


packs_of_a_chain = st.integers(1, 12).flatmap(
    lambda count: st.tuples(
        *(
            st.builds(
                pack, st.just(number), *(st.sampled_from(range(1, number + 1)) for _ in range(min(2, number - 1))),
                age=st.integers(0, 300), storage_class=st.sampled_from(["STANDARD", "GLACIER_IR"]),
                condemned=st.just(False),
            )
            for number in range(1, count + 1)
        )
    )
)  # fmt: skip
generations = st.lists(
    st.tuples(st.lists(st.integers(1, 12), max_size=6), st.none() | st.integers(0, 60)), max_size=5
)  # fmt: skip


@given(packs_of_a_chain, generations)
def test_nothing_that_is_needed_goes_and_time_only_frees(
    packs: tuple[Pack, ...], drawn: list[tuple[list[int], int | None]]
) -> None:
    holders = [needs(*numbers, expired=expired) for numbers, expired in drawn]
    made = plan(packs, holders, now=NOW, sweep_after=WEEK)
    going = set(made.condemning)
    stays = {each.number for each in made.of(Verdict.KEEP)}
    for holder in holders:
        if holder.expired is None:
            assert not going & set(in_ranges(holder.needs))
    by_number = {each.number: each for each in packs}
    for number in stays:
        assert not going & set(in_ranges(by_number[number].bases))
    later = plan(packs, holders, now=NOW + 30 * DAY, sweep_after=WEEK)
    assert going <= set(later.condemning)
    for each in (*made.decisions, *later.decisions):
        assert each.reason
    # Every expiry undone: everything they need stays.
    undone = [needs(*in_ranges(each.needs)) for each in holders]
    assert not set(plan(packs, undone, now=NOW + 900 * DAY, sweep_after=WEEK).condemning) & {
        number for each in holders for number in in_ranges(each.needs)
    }
