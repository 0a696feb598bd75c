"""What is kept, what expires, and what must hold for any generations, rules and moments."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.retention import RetentionRules
from gateway.model.ids import ChainName, GenerationId, in_ranges
from gateway.policy.retention import (
    MOST_SKEW,
    RECENT,
    Generation,
    LastCopy,
    RetentionPlan,
    Rule,
    SourceState,
    State,
    plan,
)

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
START = datetime(2026, 1, 1, 3, tzinfo=UTC)
FAR = timedelta(days=100_000)


def id_of(number: int, source: str = "a") -> GenerationId:
    return GenerationId(sha256(f"{source} {number}".encode()).digest()[:16])


def nightly(count: int, source: str = "a") -> list[Generation]:
    return [
        Generation(id=id_of(n, source), source=source, number=n, begun=START + n * DAY) for n in range(1, count + 1)
    ]


def decide(generations: list[Generation], rules: RetentionRules | None, **more: object) -> RetentionPlan:
    now = max(each.begun for each in generations) + HOUR
    sources = [SourceState(name=name, rules=rules) for name in sorted({each.source for each in generations})]
    return plan(generations, sources, **({"now": now} | more))  # type: ignore[arg-type]


def kept(decided: RetentionPlan) -> list[int]:
    return sorted(each.number for each in decided.kept)


def texts(decided: RetentionPlan, number: int) -> list[str]:
    return next([str(reason) for reason in each.reasons] for each in decided.decisions if each.number == number)


LAST_2 = RetentionRules(keep_last=2)


def test_each_rule_says_what_ends_it() -> None:
    decided = decide(nightly(10), RetentionRules(keep_last=2, keep_daily=3, keep_within=2 * DAY))
    assert kept(decided) == [8, 9, 10]
    assert texts(decided, 9) == [
        "last: 2nd of the newest 2, until 1 more is protected",
        "daily: the newest of its day, 2nd of 3, until there are later ones in 2 later days",
        "within: within 2 d before the newest, until one begins at 2026-01-12 03:00:00 or later",
    ]
    assert texts(decided, 10)[1].endswith("3 later days or one in the same day")
    expired = decided.expiring[0]
    assert (expired.number, expired.why) == (
        7,
        (
            "last: 2 later ones are protected",
            "daily: there are later ones in 3 days",
            "within: it began 2 d or more before the newest",
        ),
    )


def test_the_newest_of_a_period_stands_for_it_and_the_oldest_fills_up() -> None:
    generations = [replace(each, begun=START + each.number * HOUR) for each in nightly(3)]
    decided = decide(generations, RetentionRules(keep_daily=1))
    assert kept(decided) == [3]
    assert decided.expiring[0].why == ("daily: 3 is the newest of its day",)
    decided = decide(generations, RetentionRules(keep_daily=2))
    assert kept(decided) == [1, 3]
    assert texts(decided, 1) == ["daily: the oldest, while there are fewer than 2 days"]


def test_within_ends_before_what_is_exactly_as_old() -> None:
    assert kept(decide(nightly(5), RetentionRules(keep_within=2 * DAY))) == [4, 5]
    assert kept(decide(nightly(5), RetentionRules(keep_within=2 * DAY + timedelta(seconds=1)))) == [3, 4, 5]


def test_weeks_are_iso_weeks_and_go_across_the_turn_of_a_year() -> None:
    new_year = datetime(2027, 1, 1, tzinfo=UTC)  # a Friday, in week 53 of 2026
    days = [new_year + number * DAY for number in (-5, -4, -1, 0, 2, 3)]
    generations = [replace(each, begun=begun) for each, begun in zip(nightly(6), days, strict=True)]
    assert kept(decide(generations, RetentionRules(keep_weekly=3))) == [1, 5, 6]


def test_without_rules_everything_stays() -> None:
    assert kept(decide(nightly(4), None)) == [1, 2, 3, 4]
    assert texts(decide(nightly(4), None), 1) == ["no-rules: its source has no retention policy"]
    decided = plan(nightly(2), [], now=START + 9 * DAY)
    assert texts(decided, 1) == ["no-rules: its source is not configured"]


def test_a_generation_that_is_not_protected_satisfies_no_rule() -> None:
    generations = nightly(4)
    generations[2] = replace(generations[2], state=State.INCOMPLETE)
    decided = decide(generations, LAST_2)
    assert kept(decided) == [2, 4]
    gone = next(each for each in decided.expiring if each.number == 3)
    assert gone.why == ("it is incomplete, so no rule counts it, and 4 is protected",)


def test_a_failed_newest_stays_until_a_later_one_is_protected() -> None:
    generations = nightly(4)
    generations[3] = replace(generations[3], state=State.FAILED)
    decided = decide(generations, LAST_2)
    assert kept(decided) == [2, 3, 4]
    assert texts(decided, 4) == ["not-replaced: it is failed, until a later one is protected"]
    generations[3] = replace(generations[3], state=State.RUNNING)
    assert texts(decide(generations, LAST_2), 4) == ["running: it is still being made"]


def test_holds_restores_and_what_they_require_stay() -> None:
    generations = nightly(8)
    generations[1] = replace(generations[1], requires=(id_of(1),))
    generations[2] = replace(generations[2], requires=(id_of(2),), holds=("audit 2026",))
    generations[4] = replace(generations[4], restoring=True)
    decided = decide(generations, RetentionRules(keep_last=1))
    assert kept(decided) == [1, 2, 3, 5, 8]
    assert texts(decided, 3) == ["hold: audit 2026"]
    assert texts(decided, 2) == ["required: a 3 requires it"]
    assert texts(decided, 1) == ["required: a 2 requires it"]
    assert texts(decided, 5) == ["restore: a restore job reads it, until it ends"]


def test_a_closure_crosses_sources() -> None:
    fulls, logs = nightly(5, "full"), nightly(5, "logs")
    logs[4] = replace(logs[4], requires=(id_of(1, "full"),))
    decided = decide(fulls + logs, RetentionRules(keep_last=1))
    assert [(each.source, each.number) for each in decided.kept] == [("full", 5), ("full", 1), ("logs", 5)]


def test_an_unknown_dependency_keeps_and_counts_for_nothing() -> None:
    generations = nightly(5)
    generations[0] = replace(generations[0], requires=(id_of(99),))
    generations[4] = replace(generations[4], requires=(id_of(1),))
    decided = decide(generations, LAST_2)
    assert kept(decided) == [1, 3, 4, 5]
    assert texts(decided, 5) == ["unknown: it requires a generation of which nothing is known"]


def test_an_incomplete_closure_satisfies_no_rule() -> None:
    generations = nightly(5)
    generations[2] = replace(generations[2], requires=(id_of(99),))
    generations[3] = replace(generations[3], requires=(id_of(3),))
    decided = decide(generations, LAST_2, gone=[id_of(99)])
    assert kept(decided) == [2, 5]
    assert [each.why[0] for each in decided.expiring[:2]] == [
        "what it requires is not protected, so no rule counts it, and 5 is protected"
    ] * 2
    generations[4] = replace(generations[4], requires=(id_of(4),))
    assert kept(decide(generations, LAST_2, gone=[id_of(99)])) == [1, 2, 3, 4, 5], "5 is not replaced, and requires 4"


def test_generations_that_require_each_other_come_to_an_end() -> None:
    generations = nightly(3)
    generations[0] = replace(generations[0], requires=(id_of(2),))
    generations[1] = replace(generations[1], requires=(id_of(1),))
    assert kept(decide(generations, RetentionRules(keep_last=2))) == [1, 2, 3]


def test_the_last_copy_of_a_released_file_goes_by_age_alone() -> None:
    generations = nightly(10)
    since = generations[3].begun
    copy = LastCopy(files=1, since=since, released=True, example="x.dmp")
    generations[2] = replace(generations[2], last_copies=(copy,))
    decided = decide(generations, LAST_2)
    (reason,) = next(each.reasons for each in decided.decisions if each.number == 3)
    assert (
        str(reason) == "last-copy: the last to hold a file (x.dmp) released from the spool, until 2026-02-09 03:00:00"
    )
    assert reason.until == since + 35 * DAY
    later = {"now": reason.until, "recent": 60 * DAY}
    sources = [SourceState(name="a", rules=LAST_2, recent=60 * DAY)]
    assert kept(plan(generations, sources, now=reason.until)) == [9, 10], later
    assert kept(plan(generations, sources, now=reason.until - timedelta(seconds=1))) == [3, 9, 10]
    short = replace(LAST_2, released_keep=DAY)
    assert kept(decide(generations, short)) == [9, 10]


def test_the_last_copy_of_a_torn_file_waits_for_a_complete_one() -> None:
    generations = nightly(10)
    copy = LastCopy(files=3, since=generations[3].begun, released=False, example="x.dmp")
    generations[2] = replace(generations[2], last_copies=(copy,))
    sources = [SourceState(name="a", rules=LAST_2, recent=FAR)]
    much_later = START + 1000 * DAY
    assert texts(plan(generations, sources, now=much_later), 3) == [
        "last-copy: the last complete version of 3 files (x.dmp ...), until a later generation holds one"
    ]
    generations[2] = replace(generations[2], last_copies=(replace(copy, held_again_by=(id_of(6),)),))
    assert kept(plan(generations, sources, now=much_later)) == [9, 10]
    assert kept(plan(generations, sources, now=START + 20 * DAY)) == [3, 9, 10], "not before it is old enough"
    generations[5] = replace(generations[5], state=State.INCOMPLETE)
    assert kept(plan(generations, sources, now=much_later)) == [3, 9, 10], "6 does not hold it any more"


def test_what_stops_expiry() -> None:
    generations = nightly(5)
    now = generations[-1].begun + HOUR
    clock = plan(generations, [SourceState(name="a", rules=LAST_2)], now=now, skew=-MOST_SKEW - timedelta(minutes=2))
    assert not clock.expiring
    assert [str(each) for each in clock.freezes] == [
        "Freeze(source='', reason=\"the clock differs from the store's by 62 minutes\", of_alarm=False)"
    ]
    alarmed = plan(generations, [SourceState(name="a", rules=LAST_2, alarms=("90 % of it is new",))], now=now)
    assert not alarmed.expiring
    assert texts(alarmed, 1) == ["frozen: 90 % of it is new"]
    stale = plan(generations, [SourceState(name="a", rules=LAST_2)], now=now + RECENT)
    assert not stale.expiring
    assert stale.freezes[0].reason == (
        "its newest protected generation, 5, began 2026-01-06 03:00:00; one of the last 7 d is wanted"
    )
    future = plan(generations, [SourceState(name="a", rules=LAST_2)], now=now - 3 * HOUR)
    assert not future.expiring
    assert future.freezes[0].reason == "generation 5 begins in the future, at 2026-01-06 03:00:00"
    bad = [replace(each, state=State.INCOMPLETE) for each in generations]
    none = plan(bad, [SourceState(name="a", rules=LAST_2)], now=now)
    assert none.freezes[0].reason == "it has no protected generation"
    assert not none.expiring


def test_a_frozen_source_stops_no_other_but_keeps_what_it_requires() -> None:
    fulls, logs = nightly(5, "full"), nightly(5, "logs")
    logs[1] = replace(logs[1], requires=(id_of(2, "full"),))
    now = fulls[-1].begun + HOUR
    rules = RetentionRules(keep_last=1)
    sources = [SourceState(name="full", rules=rules), SourceState(name="logs", rules=rules, alarms=("strange",))]
    decided = plan(fulls + logs, sources, now=now)
    assert [each.number for each in decided.kept if each.source == "full"] == [5, 2]
    assert [each.number for each in decided.kept if each.source == "logs"] == [5, 4, 3, 2, 1]


def test_the_share_of_bytes_is_that_of_packs_nobody_needs() -> None:
    chain = ChainName("a", 1)
    generations = [replace(each, chain=chain, needs=(1, 1, each.number + 1, 1)) for each in nightly(4)]
    packs = {chain: {1: 800, 2: 20, 3: 30, 4: 50, 5: 50, 6: 10_000}}
    decided = decide(generations, LAST_2, packs=packs)
    assert (decided.bytes, decided.removed_bytes) == (950, 50)
    assert not decided.needs_approval
    decided = decide(generations, RetentionRules(keep_last=1), packs=packs)
    assert decided.removed_share == 100 / 950
    assert decided.needs_approval
    assert [(each.source, each.bytes, each.removed) for each in decided.shares] == [("a", 950, 100)]
    assert decide(generations, None).removed_share == 0


def test_a_plan_is_named_by_what_it_decides() -> None:
    generations = nightly(9)
    one, later = decide(generations, LAST_2), decide(generations, LAST_2, now=START + 10 * DAY)
    assert one == later
    assert len(one.id) == 16
    assert one.id == "e2b7887fd52c54ac"
    assert one.id != decide(generations[1:], LAST_2).id
    assert one.id != decide([replace(generations[0], holds=("x",)), *generations[1:]], LAST_2).id


def test_names_are_given_once_and_times_in_utc() -> None:
    with pytest.raises(ValueError):
        plan([*nightly(2), *nightly(1)], [], now=START)
    with pytest.raises(ValueError):
        plan([], [SourceState(name="a", rules=None)] * 2, now=START)
    with pytest.raises(ValueError):
        replace(nightly(1)[0], begun=datetime(2026, 1, 1))  # noqa: DTZ001
    for wrong in ({"keep_last": -1}, {}, {"keep_within": timedelta()}, {"keep_last": 1, "minimum_generations": 0}):
        with pytest.raises(ValueError):
            RetentionRules(**wrong)  # type: ignore[arg-type]


# --- what holds for all of them ---------------------------------------------------------------------------------------

SOURCES = ("a", "b")
COUNTS = ("hourly", "daily", "weekly", "monthly", "yearly")


class Digits:
    """Small numbers out of a large one: hypothesis draws and shrinks one number much faster than many."""

    def __init__(self, number: int) -> None:
        self._left = number

    def below(self, bound: int) -> int:
        self._left, digit = divmod(self._left, bound)
        return digit


def rules_from(number: int) -> RetentionRules:
    digits = Digits(number)
    within = digits.below(2000)
    return RetentionRules(
        keep_last=1 + digits.below(4),
        **{f"keep_{each}": digits.below(5) for each in COUNTS},
        keep_within=within * HOUR if within % 2 else None,
        minimum_generations=1 + digits.below(4),
        released_keep=digits.below(61) * DAY,
    )


STATES = [*[State.PROTECTED] * 6, State.RUNNING, State.INCOMPLETE, State.FAILED]


def generations_from(numbers: list[int]) -> list[Generation]:
    found = []
    for number, drawn in enumerate(numbers):
        digits = Digits(drawn)
        at = digits.below(24 * 800) // (1 + 20 * digits.below(2))

        def some(most: int, digits: Digits = digits) -> tuple[GenerationId, ...]:
            """Up to `most` ids, some of them nobody's."""
            return tuple(id_of(digits.below(len(numbers) + 2)) for _ in range(max(0, digits.below(most + 3) - 2)))

        copies = LastCopy(
            files=1,
            since=START + (at + digits.below(1200)) * HOUR,
            released=bool(digits.below(2)),
            held_again_by=some(2),
        )
        generation = Generation(
            id=id_of(number), source=SOURCES[digits.below(2)], number=number, begun=START + at * HOUR,
            state=STATES[digits.below(len(STATES))], requires=some(2), holds=("x",) * (digits.below(10) // 9),
            restoring=digits.below(10) == 9, last_copies=(copies,) * (digits.below(4) // 3),
            chain=ChainName("a", 1 + number % 2), needs=((), (1, 3), (2, 1), (4, 2))[digits.below(4)],
        )  # fmt: skip
        found.append(generation)
    return found


rules_of_any_kind = st.integers(0, 2**48).map(rules_from)
generations_of_any_kind = st.lists(st.integers(0, 2**80), min_size=1, max_size=14).map(generations_from)
gone_ids = st.sampled_from([frozenset(), frozenset({id_of(0)}), frozenset(id_of(n) for n in range(20))])
moments = st.integers(24 * 801, 24 * 900).map(lambda hours: START + hours * HOUR)
LIVE = st.tuples(generations_of_any_kind, st.tuples(*[rules_of_any_kind] * 2), gone_ids, moments)
Case = tuple[list[Generation], tuple[RetentionRules, ...], frozenset[GenerationId], datetime]


def decided(case: Case, **more: object) -> RetentionPlan:
    generations, rules, gone, now = case
    present = {each.id for each in generations}
    sources = [SourceState(name=name, rules=each, recent=FAR) for name, each in zip(SOURCES, rules, strict=True)]
    options = {
        "now": now,
        "gone": gone - present,
        "packs": {ChainName("a", n): dict.fromkeys(range(6), n) for n in (1, 2)},
    }
    return plan(generations, sources, **(options | more))  # type: ignore[arg-type]


def ids(decisions: object) -> set[GenerationId]:
    return {each.generation for each in decisions}  # type: ignore[attr-defined]


@given(LIVE)
def test_nothing_that_a_kept_generation_requires_expires(case: Case) -> None:
    outcome = decided(case)
    by_id = {each.id: each for each in case[0]}
    for each in outcome.kept:
        assert not ids(outcome.expiring) & set(by_id[each.generation].requires)
    assert ids(outcome.kept) | ids(outcome.expiring) == set(by_id)
    assert all(each.why for each in outcome.expiring)


@given(LIVE, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(case: Case, chance: random.Random) -> None:
    shuffled = list(case[0])
    chance.shuffle(shuffled)
    assert decided((shuffled, *case[1:])) == decided(case)


@given(LIVE, st.integers(0, 2000))
def test_as_time_passes_more_expires_never_less(case: Case, hours: int) -> None:
    later = decided(case, now=case[3] + hours * HOUR)
    assert ids(decided(case).expiring) <= ids(later.expiring)


@given(LIVE)
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(case: Case) -> None:
    first = decided(case)
    left = [each for each in case[0] if each.id in ids(first.kept)]
    if left:
        second = decided((left, case[1], case[2] | ids(first.expiring), case[3]))
        assert second.expiring == ()
        assert second.removed_bytes == 0


@given(LIVE, st.sampled_from(["keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly"]))
def test_a_larger_count_keeps_more(case: Case, rule: str) -> None:
    generations, rules, gone, now = case
    more = tuple(replace(each, **{rule: getattr(each, rule) + 1}) for each in rules)
    assert ids(decided(case).kept) <= ids(decided((generations, more, gone, now)).kept)


@given(LIVE, st.integers(0, 13))
def test_a_hold_keeps_more_and_changes_nothing_else(case: Case, number: int) -> None:
    held = [replace(each, holds=("y",)) if each.number == number else each for each in case[0]]
    before, after = decided(case), decided((held, *case[1:]))
    assert ids(before.kept) <= ids(after.kept)
    extra = ids(after.kept) - ids(before.kept)
    assert not extra or id_of(number) in extra


@given(LIVE)
def test_the_newest_protected_ones_of_a_source_never_expire(case: Case) -> None:
    free = [replace(each, requires=()) for each in case[0]]
    outcome = decided((free, *case[1:]))
    for name, rules in zip(SOURCES, case[1], strict=True):
        protected = [each for each in free if each.source == name and each.state is State.PROTECTED]
        newest = sorted(protected, key=lambda each: each.order)[-rules.minimum_generations :]
        assert {each.id for each in newest} <= ids(outcome.kept)


@given(LIVE)
def test_what_satisfies_no_rule_takes_no_place(case: Case) -> None:
    """The protected generations that rules keep are the same when all others are not there at all."""
    generations, rules, gone, now = case
    free = [replace(each, requires=()) for each in generations]
    protected = [each for each in free if each.state is State.PROTECTED]
    if not protected:
        return
    alone = decided((protected, rules, gone, now))
    together = decided((free, rules, gone, now))
    counted = {
        rule for rule in Rule if rule.value in ("last", "hourly", "daily", "weekly", "monthly", "yearly", "within")
    }

    def by_rules(outcome: RetentionPlan) -> set[tuple[GenerationId, str]]:
        return {(each.generation, str(r)) for each in outcome.kept for r in each.reasons if r.rule in counted}

    assert by_rules(alone) == by_rules(together)


@given(LIVE, st.sampled_from(SOURCES))
def test_a_frozen_source_loses_nothing(case: Case, name: str) -> None:
    generations, rules, gone, now = case
    sources = [
        SourceState(name=each, rules=own, recent=FAR, alarms=("odd",) if each == name else ())
        for each, own in zip(SOURCES, rules, strict=True)
    ]
    outcome = plan(generations, sources, now=now, gone=gone - {each.id for each in generations})
    assert not [each for each in outcome.expiring if each.source == name]
    assert ids(decided(case).kept) <= ids(outcome.kept)
    assert not plan(generations, sources, now=now, skew=2 * HOUR).expiring


@given(LIVE)
def test_removed_bytes_are_those_of_packs_that_only_expiring_ones_need(case: Case) -> None:
    outcome = decided(case)
    sizes = {ChainName("a", n): dict.fromkeys(range(6), n) for n in (1, 2)}

    def weight(generations: Iterable[Generation]) -> int:
        needed = {(each.chain, number) for each in generations for number in in_ranges(each.needs) if each.chain}
        return sum(sizes[chain][number] for chain, number in needed if chain is not None)

    left = [each for each in case[0] if each.id in ids(outcome.kept)]
    assert outcome.bytes == weight(case[0])
    assert outcome.removed_bytes == weight(case[0]) - weight(left)
    for share in outcome.shares:
        own = [each for each in case[0] if each.source == share.source]
        assert share.bytes == weight(own)
        assert share.removed == weight([*own, *left]) - weight(left)


@given(LIVE)
def test_where_only_time_ends_a_reason_it_does(case: Case) -> None:
    for each in decided(case).kept:
        for reason in each.reasons:
            if reason.until is not None:
                later = decided(case, now=reason.until)
                assert reason not in next(d for d in later.decisions if d.generation == each.generation).reasons
