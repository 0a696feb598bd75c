"""The judge himself: he acquits who does everything right, and convicts each wrong by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import pytest

from tests.writers.generations import files_of, held_back_of
from tests.writers.judge import Generation, Held, Rules, Violation, Wrong, judge
from tests.writers.kinds import schedule
from tests.writers.oracle import Ended, Oracle, Version
from tests.writers.play import FakePace, InMemory, Player

SETTLE = 1.0
WALL = datetime(2030, 1, 1, tzinfo=UTC)


def rules(minimum: int) -> Rules:
    return Rules(minimum_evidence=minimum, settle_seconds=SETTLE, grace_seconds=2 * SETTLE, apart_seconds=SETTLE)


def version(name: str, first: float, last: float | None, **more: object) -> Version:
    """Opaque, complete and closed, if nothing else is said."""
    given: dict[str, object] = {
        "digest": name, "size": len(name), "complete": True, "structure": False, "ended": Ended.CLOSED,
        "evidence": 1, "evidence_limit": 1, "first": first, "last": last,
    }  # fmt: skip
    return Version(**(given | more))  # type: ignore[arg-type]


def good(name: str, first: float, last: float | None, evidence: int = 2) -> Version:
    return version(name, first, last, structure=evidence == 2, evidence=evidence, evidence_limit=evidence)


def torn(name: str, first: float, last: float | None, ended: Ended = Ended.KILLED) -> Version:
    return version(name, first, last, complete=False, ended=ended, evidence=0)


def oracle(**paths: list[Version]) -> Oracle:
    versions = {path.replace("_", "."): tuple(each) for path, each in paths.items()}
    return Oracle(versions=versions, began=0.0, end=100.0, wall=WALL)


def generation(
    number: int, at: float, files: dict[str, tuple[str, int]], held: dict[str, str] | None = None, **more: object
) -> Generation:
    made: dict[str, object] = {
        "number": number, "state": "protected", "created": WALL + timedelta(seconds=at),
        "files": {path: Held(digest=name, size=len(name), evidence=level) for path, (name, level) in files.items()},
        "held_back": held or {},
    }  # fmt: skip
    return Generation(**(made | more))  # type: ignore[arg-type]


def wrongs(found: list[Violation]) -> list[tuple[str, str, int | None]]:
    return [(each.wrong.value, each.path, each.generation) for each in found]


# --- each wrong by hand ----------------------------------------------------------------------------------------------

WHOLE_THEN_TORN = oracle(a_sql=[good("v1", 0, 10), torn("half", 11, None)])
OPAQUE_KILLED = oracle(a_bak=[torn("half", 10, None)], b_sql=[good("v1", 0, None)])


def test_a_torn_version_convicts_at_minimum_two_whatever_it_claims() -> None:
    gens = [generation(1, 5, {"a.sql": ("v1", 2)}), generation(2, 20, {"a.sql": ("half", 2)}, {"a.sql": "no end"})]
    found = judge(WHOLE_THEN_TORN, gens, rules(2))
    assert wrongs(found) == [("torn", "a.sql", 2), ("overrated", "a.sql", 2)]
    assert "in generation 2" in str(found[0])


def test_a_torn_version_may_be_in_what_is_not_protected() -> None:
    gens = [
        generation(1, 5, {"a.sql": ("v1", 2)}),
        generation(2, 20, {"a.sql": ("half", 2)}, {"a.sql": "no end"}, state="incomplete"),
    ]
    assert not judge(WHOLE_THEN_TORN, gens, rules(2))


def test_what_is_not_protected_does_not_count_as_found() -> None:
    gens = [generation(1, 5, {"a.sql": ("v1", 2)}, state="incomplete"), generation(2, 20, {}, {"a.sql": "no end"})]
    assert wrongs(judge(WHOLE_THEN_TORN, gens, rules(2))) == [("lost", "a.sql", None)]


def test_at_minimum_one_a_torn_version_may_be_there_with_evidence_one_beside_the_earlier_good_one() -> None:
    first = generation(1, 5, {"a.sql": ("v1", 2)})
    assert not judge(WHOLE_THEN_TORN, [first, generation(2, 20, {"a.sql": ("half", 1)})], rules(1))
    found = judge(WHOLE_THEN_TORN, [first, generation(2, 20, {"a.sql": ("half", 2)})], rules(1))
    assert wrongs(found) == [("overrated", "a.sql", 2)]
    found = judge(WHOLE_THEN_TORN, [generation(2, 20, {"a.sql": ("half", 1)})], rules(1))
    assert wrongs(found) == [("lost", "a.sql", None)]


def test_at_minimum_one_nothing_is_taken_that_moves_or_has_a_writer() -> None:
    writing = oracle(a_bak=[torn("half", 0, None, Ended.OPEN)])
    assert ("torn", "a.bak", 1) in wrongs(judge(writing, [generation(1, 50, {"a.bak": ("half", 1)})], rules(1)))
    moving = oracle(a_bak=[torn("half", 0, 0.5), version("whole", 0.6, None)])
    gens = [generation(1, 0.5, {"a.bak": ("half", 1)}), generation(2, 3, {"a.bak": ("whole", 1)})]
    assert wrongs(judge(moving, gens, rules(1))) == [("torn", "a.bak", 1)]


def test_a_complete_version_that_stood_must_be_found() -> None:
    stood = oracle(a_sql=[good("v1", 0, 10), good("v2", 10.5, None)], b_bak=[version("opaque", 0, None)])
    gens = [generation(1, 20, {"a.sql": ("v2", 2)}, {"b.bak": "below-minimum-evidence"})]
    assert wrongs(judge(stood, gens, rules(2))) == [("lost", "a.sql", None)]
    assert wrongs(judge(stood, gens, rules(1))) == [("lost", "a.sql", None), ("lost", "b.bak", None)]
    brief = oracle(a_sql=[good("v1", 0, 1.9), good("v2", 2, None)])
    assert not judge(brief, [generation(1, 20, {"a.sql": ("v2", 2)})], rules(2))


def test_under_a_temporary_name_nothing_need_be_found_or_named() -> None:
    whole = version("v1", 0, 20, structure=True, evidence=0, evidence_limit=2)
    versions = {"a.sql.tmp": (whole,), "b.bak.partial": (torn("half", 0, None),)}
    waiting = Oracle(versions=versions, began=0.0, end=100.0, wall=WALL)
    assert not judge(waiting, [generation(1, 10, {})], rules(1))
    assert not judge(waiting, [generation(1, 10, {})], rules(2))


def test_a_torn_file_that_stands_must_be_named_by_every_generation_made_meanwhile() -> None:
    named = {"a.bak": "below-minimum-evidence"}
    early, late = generation(1, 5, {"b.sql": ("v1", 2)}), generation(2, 30, {"b.sql": ("v1", 2)})
    assert wrongs(judge(OPAQUE_KILLED, [early, late], rules(2))) == [("unnamed", "a.bak", 2)]
    late_named = generation(2, 30, {"b.sql": ("v1", 2)}, named)
    assert not judge(OPAQUE_KILLED, [early, late_named], rules(2))
    without_reason = generation(2, 30, {"b.sql": ("v1", 2)}, {"a.bak": ""})
    assert wrongs(judge(OPAQUE_KILLED, [without_reason], rules(2))) == [("unnamed", "a.bak", 2)]
    assert not judge(OPAQUE_KILLED, [generation(2, 30, {"b.sql": ("v1", 2)}, held_back_more=3)], rules(2))
    assert wrongs(judge(OPAQUE_KILLED, [early], rules(2), held_now={})) == [("unnamed", "a.bak", None)]
    assert not judge(OPAQUE_KILLED, [early], rules(2), held_now=named)


def test_at_minimum_one_a_stalled_writer_must_be_named_too() -> None:
    stalled = oracle(a_bak=[torn("half", 10, None, Ended.OPEN)], b_sql=[good("v1", 0, None)])
    assert wrongs(judge(stalled, [generation(1, 30, {"b.sql": ("v1", 1)})], rules(1))) == [("unnamed", "a.bak", 1)]
    assert not judge(stalled, [generation(1, 30, {"b.sql": ("v1", 1)}, {"a.bak": "growing"})], rules(1))


def test_bytes_that_are_no_version_convict() -> None:
    overwritten = oracle(a_sql=[good("v1", 0, 10), good("v2", 11, None)])
    gens = [generation(1, 5, {"a.sql": ("v1", 2)}), generation(2, 11, {"a.sql": ("xx", 2)})]
    gens.append(generation(3, 20, {"a.sql": ("v2", 2), "b": ("v2", 2)}))
    assert wrongs(judge(overwritten, gens, rules(2))) == [("mixed", "a.sql", 2), ("mixed", "b", 3)]


def test_the_right_digest_with_another_size_convicts() -> None:
    other = Generation(number=1, state="protected", files={"a.sql": Held(digest="v1", size=3, evidence=2)})
    one = oracle(a_sql=[good("v1", 0, None)])
    assert wrongs(judge(one, [other], rules(2))) == [("mixed", "a.sql", 1), ("lost", "a.sql", None)]


def test_files_that_never_lay_there_together_convict() -> None:
    replaced = oracle(a_sql=[good("v1", 0, 10)], b_sql=[good("v1", 20, None)])
    gens = [generation(1, 5, {"a.sql": ("v1", 2)}), generation(2, 25, {"a.sql": ("v1", 2), "b.sql": ("v1", 2)})]
    assert wrongs(judge(replaced, gens, rules(2))) == [("apart", "a.sql", 2)]
    close = oracle(a_sql=[good("v1", 0, 10)], b_sql=[good("v1", 10.5, None)])
    assert not judge(close, gens, rules(2))


def test_more_evidence_than_the_writer_left_convicts_also_a_whole_file() -> None:
    one = oracle(a_bak=[version("v1", 0, None)])
    gens = [generation(1, 20, {"a.bak": ("v1", 2)})]
    assert wrongs(judge(one, gens, rules(1))) == [("overrated", "a.bak", 1)]
    assert wrongs(judge(one, gens, rules(2))) == [("overrated", "a.bak", 1)]


def test_less_evidence_than_the_minimum_convicts() -> None:
    one = oracle(a_sql=[good("v1", 0, None)])
    assert wrongs(judge(one, [generation(1, 20, {"a.sql": ("v1", 1)})], rules(2))) == [("below", "a.sql", 1)]


def test_what_a_pass_took_is_no_distance_between_its_files() -> None:
    replaced = oracle(a_sql=[good("v1", 0, 10)], b_sql=[good("v1", 20, None)])
    made = generation(2, 25, {"a.sql": ("v1", 2), "b.sql": ("v1", 2)})
    assert wrongs(judge(replaced, [made], rules(2))) == [("apart", "a.sql", 2)]
    assert not judge(replaced, [replace(made, spread_seconds=9.5)], rules(2))


def test_time_in_which_the_gateway_was_busy_is_no_grace() -> None:
    one = oracle(a_sql=[good("v1", 0, 5), good("v2", 5, None)])
    gens = [generation(1, 20, {"a.sql": ("v2", 2)})]
    assert wrongs(judge(one, gens, rules(2))) == [("lost", "a.sql", None)]
    for busy, lost in ((((0.0, 2.5), (3.0, 4.0)), False), (((-5.0, 1.0), (4.0, 8.0)), True)):
        spans = tuple((one.began + begin, one.began + end) for begin, end in busy)
        assert bool(judge(one, gens, replace(rules(2), busy=spans))) is lost


def test_a_complete_version_that_is_not_enough_must_be_named_at_the_end() -> None:
    one = oracle(a_bak=[version("v1", 0, None)])
    assert not judge(one, [], rules(2), held_now={"a.bak": "quiet only"})
    assert wrongs(judge(one, [], rules(2), held_now={})) == [("unnamed", "a.bak", None)]
    assert not judge(one, [], rules(2))


def test_a_torn_version_that_is_quiet_is_there_at_minimum_one_or_named() -> None:
    one = oracle(a_bak=[torn("half", 0, None)])
    assert wrongs(judge(one, [], rules(1), held_now={})) == [("unnamed", "a.bak", None)]
    assert not judge(one, [], rules(1), held_now={"a.bak": "torn"})
    assert not judge(one, [generation(1, 20, {"a.bak": ("half", 1)})], rules(1), held_now={})


def test_rules_that_make_no_sense_are_refused() -> None:
    for wrong in ({"minimum_evidence": 0}, {"grace_seconds": 0.5}):
        given = {"minimum_evidence": 2, "settle_seconds": 1.0, "grace_seconds": 2.0, "apart_seconds": 1.0} | wrong
        with pytest.raises(ValueError):
            Rules(**given)


# --- whole schedules -------------------------------------------------------------------------------------------------

Takes = Callable[[Version, float, int], int]
"""The evidence that a gateway believes in when it looks at a version at a moment, with a minimum; 0: held back."""


@lru_cache(maxsize=2)
def played(seed: int) -> Oracle:
    plan = schedule(seed, local=True, small_files=20)
    return Player(plan, InMemory(), settle_seconds=SETTLE, pace=FakePace()).play()


def gateway(oracle: Oracle, takes: Takes, minimum: int) -> list[Generation]:
    """A generation every half settle time, of what a gateway would take that believes as `takes` says."""
    made: list[Generation] = []
    at = oracle.began + SETTLE / 2
    while at <= oracle.end:
        files, held = {}, {}
        for path, versions in oracle.versions.items():
            for each in versions:
                if each.first <= at <= each.until(oracle.end):
                    evidence = takes(each, at, minimum)
                    if evidence >= minimum:
                        files[path] = Held(digest=each.digest, size=each.size, evidence=evidence)
                    else:
                        held[path] = "held back"
        created = oracle.wall + timedelta(seconds=at - oracle.began)
        made.append(Generation(number=len(made) + 1, state="protected", files=files, held_back=held, created=created))
        at += SETTLE / 2
    return made


def careful(each: Version, at: float, minimum: int) -> int:
    """Quiet, no writer, and what the bytes or a rename show."""
    if each.ended is Ended.OPEN or at < each.first + SETTLE:
        return 0
    return max(each.evidence, 1)


def believes_size(each: Version, at: float, minimum: int) -> int:
    """Quiet is enough, and counts as more than it is."""
    return 2 if at >= each.first + SETTLE else 0


def believes_close(each: Version, at: float, minimum: int) -> int:
    """Nobody has it open: so it is done."""
    return 0 if each.ended is Ended.OPEN else 2


def believes_quiet_writers(each: Version, at: float, minimum: int) -> int:
    """Evidence 1 for all that is quiet, also with a writer."""
    return 1 if at >= each.first + SETTLE else 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("minimum", [1, 2])
def test_a_careful_gateway_is_acquitted(seed: int, minimum: int) -> None:
    found = judge(played(seed), gateway(played(seed), careful, minimum), rules(minimum))
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("takes", "minimum", "expected"),
    [
        (believes_size, 2, {Wrong.TORN, Wrong.OVERRATED}),
        (believes_close, 2, {Wrong.TORN, Wrong.OVERRATED}),
        (believes_close, 1, {Wrong.TORN, Wrong.OVERRATED}),
        (believes_quiet_writers, 1, {Wrong.TORN}),
    ],
)
def test_a_gateway_that_believes_too_much_is_convicted(
    seed: int, takes: Takes, minimum: int, expected: set[Wrong]
) -> None:
    found = judge(played(seed), gateway(played(seed), takes, minimum), rules(minimum))
    assert expected <= {each.wrong for each in found}


def test_a_gateway_that_forgets_to_name_is_convicted() -> None:
    silent = [
        Generation(number=each.number, state=each.state, files=each.files, created=each.created)
        for each in gateway(played(0), careful, 2)
    ]
    assert {each.wrong for each in judge(played(0), silent, rules(2))} == {Wrong.UNNAMED}


def test_a_gateway_that_carries_on_what_is_gone_is_convicted() -> None:
    made = gateway(played(0), careful, 1)
    files: dict[str, Held] = {}
    carried = []
    for each in made:
        files = {**files, **each.files}
        carried.append(Generation(number=each.number, state=each.state, files=files, created=each.created))
    assert Wrong.APART in {each.wrong for each in judge(played(0), carried, rules(1))}


# --- what the product says -------------------------------------------------------------------------------------------


def test_the_lists_of_the_product_are_read_by_exact_names() -> None:
    listed = [
        {"path": "a", "type": "file", "size": 2, "evidence": 1, "digest": "d", "hard_link_to": None},
        {"path": "b", "type": "file", "size": 2, "evidence": None, "digest": None, "hard_link_to": "a"},
        {"path": "c", "type": "directory", "size": 0, "evidence": None, "digest": None, "hard_link_to": None},
        {"path": "\\xff", "path_base64": "/w==", "type": "file", "size": 1, "evidence": 2, "digest": "e",
         "hard_link_to": None},
    ]  # fmt: skip
    a = Held(digest="d", size=2, evidence=1)
    assert files_of(listed) == {"a": a, "b": a, "\udcff": Held(digest="e", size=1, evidence=2)}
    assert held_back_of([{"path": "x", "reason": "growing"}]) == {"x": "growing"}
