"""Against which generation the next one is compressed, and when that changes."""

from __future__ import annotations

from gateway.policy.anchor import LEAST, Anchor, Reduced, anchor


def taken(*ratios: float, readable: int = 1) -> list[Reduced]:
    """Generations from 1 on; the first has no deltas."""
    raw = 100 * LEAST
    return [
        Reduced(
            number=number, delta_raw=raw if ratio else 0, delta_stored=int(raw * ratio), readable=number >= readable
        )
        for number, ratio in enumerate(ratios, 1)
    ]


def test_the_first_is_the_anchor_as_long_as_deltas_against_it_are_small() -> None:
    assert anchor([]) is None
    assert anchor(taken(0)) == Anchor(number=1, joins=False)
    assert anchor(taken(0, 0.01, 0.012, 0.02)) == Anchor(number=1, joins=False)


def test_deltas_that_have_doubled_let_the_next_one_join_and_be_the_anchor() -> None:
    grown = (0, 0.01, 0.015, 0.021)
    assert anchor(taken(*grown)) == Anchor(number=1, joins=True)
    assert anchor(taken(*grown, 0.05)) == Anchor(number=5, joins=False)
    assert anchor(taken(*grown, 0.05, 0.01, 0.02)) == Anchor(number=5, joins=False)
    assert anchor(taken(*grown, 0.05, 0.01, 0.021)) == Anchor(number=5, joins=True)


def test_generations_with_hardly_any_deltas_say_nothing() -> None:
    few = Reduced(number=3, delta_raw=LEAST - 1, delta_stored=LEAST)
    assert anchor([*taken(0, 0.01), few]) == Anchor(number=1, joins=False)


def test_of_an_anchor_whose_list_is_gone_the_oldest_readable_one_takes_the_place() -> None:
    assert anchor(taken(0, 0.01, 0.01, readable=2)) == Anchor(number=2, joins=False)
    assert anchor(taken(0, 0.01, 0.021, readable=2)) == Anchor(number=2, joins=False), (
        "it joins nothing: few stand on it"
    )
    assert anchor(taken(0, 0.01, 0.01, readable=9)) is None
