"""Waves, days of a copy, looks: properties, against the simulated store where it has a rule of its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy import thaw
from gateway.policy.thaw import DAY, Waves
from gateway.store.cold import Copy, Weather, ask
from gateway.store.port import ThawAnswer, ThawTier

HOUR = timedelta(hours=1)
moments = st.integers(0, 4 * 365 * 86_400).map(
    lambda second: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
)
spans = st.integers(1, 48 * 60).map(lambda minutes: timedelta(minutes=minutes))


# --- waves ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 40)), st.integers(1, 100))
def test_waves_cover_every_item_once_and_in_order(sizes: list[int], limit: int) -> None:
    waves = Waves(limit)
    of_item = [waves.add(at, size) for at, size in enumerate(sizes)]
    total = len(waves.ends) + 1
    windows = [waves.window(wave, len(sizes)) for wave in range(total)]
    assert [item for first, end in windows for item in range(first, end)] == list(range(len(sizes)))
    for at, wave in enumerate(of_item):
        first, end = windows[wave]
        assert first <= at < end
    for first, end in windows:
        inside = [size for size in sizes[first:end] if size]
        assert sum(inside) <= limit or len(inside) == 1 or sum(inside[:-1]) <= limit
    brought = [sum(sizes[first:end]) for first, end in windows]
    assert all(one + two > limit for one, two in pairwise(brought)), "a wave ends only where the next item is too much"


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[int, int], list[tuple[int, int]]]:
    direct = draw(st.dictionaries(st.integers(0, 12), st.integers(0, 5), min_size=1))
    pairs = st.tuples(st.integers(0, 12), st.integers(0, 12))
    return direct, draw(st.lists(pairs, max_size=30))


@given(graphs())
def test_a_base_is_needed_for_as_long_as_what_stands_on_it(graph: tuple[dict[int, int], list[tuple[int, int]]]) -> None:
    direct, bases = graph
    found = thaw.last_uses(direct, bases)
    for pack, wave in direct.items():
        assert found[pack] >= wave
    for pack, base in bases:
        if pack in found:
            assert found[base] >= found[pack]
    assert set(found.values()) <= set(direct.values()), "no wave out of nothing"
    above: dict[int, set[int]] = {}
    for pack, base in bases:
        above.setdefault(base, set()).add(pack)
    for pack, wave in found.items():  # no longer than anything that stands on it
        seen, todo, latest = {pack}, [pack], direct.get(pack, -1)
        while todo:
            for each in above.get(todo.pop(), set()) - seen:
                seen.add(each)
                todo.append(each)
                latest = max(latest, direct.get(each, -1))
        assert wave == latest


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_scratch_bytes_are_the_most_that_lies_there(packs: list[tuple[int, int, int]]) -> None:
    sizes = {at: size for at, (size, _, _) in enumerate(packs)}
    first = {at: min(a, b) for at, (_, a, b) in enumerate(packs)}
    last = {at: max(a, b) for at, (_, a, b) in enumerate(packs)}
    most = max(
        sum(size for at, size in sizes.items() if first[at] - 1 <= wave <= last[at]) for wave in range(6)
    )  # fmt: skip
    assert thaw.scratch_bytes(sizes, first, last, 5) == most


@given(st.lists(st.integers(0, 10**9), max_size=10), st.integers(1, 10**6))
def test_a_wave_starts_when_those_before_it_were_fetched(sizes: list[int], rate: int) -> None:
    found = thaw.starts(sizes, rate)
    assert len(found) == len(sizes)
    assert found == sorted(found)
    for at, start in enumerate(found):
        assert abs(start.total_seconds() - sum(sizes[:at]) / rate) < 1e-3


# --- days and ends of copies ------------------------------------------------------------------------------------------


def thawed(asked: datetime, days: int, tier: ThawTier, storage: str, seed: int) -> Copy:
    answer, copy = ask(
        None, key="k", size=1, storage_class=storage, days=days, tier=tier, now=asked, weather=Weather(seed=seed)
    )
    assert answer is ThawAnswer.STARTED
    assert copy is not None
    return copy


@given(moments, st.sampled_from([ThawTier.STANDARD, ThawTier.BULK]), st.sampled_from(["GLACIER", "DEEP_ARCHIVE"]),
       st.timedeltas(timedelta(), timedelta(hours=40)), st.integers(0, 9))  # fmt: skip
def test_what_is_asked_for_stands_until_it_was_fetched(
    asked: datetime, tier: ThawTier, storage: str, fetch: timedelta, seed: int
) -> None:
    """By the store's own rule of midnights, however late it is thawed."""
    at_most = {
        ("GLACIER", ThawTier.STANDARD): 5, ("GLACIER", ThawTier.BULK): 12,
        ("DEEP_ARCHIVE", ThawTier.STANDARD): 12, ("DEEP_ARCHIVE", ThawTier.BULK): 48,
    }[storage, tier] * HOUR  # fmt: skip
    copy = thawed(asked, thaw.days(at_most, fetch), tier, storage, seed)
    assert copy.ready <= asked + at_most
    assert copy.until - asked >= at_most + fetch
    assert copy.readable(asked + at_most)
    assert copy.readable(asked + at_most + fetch - timedelta(seconds=1)) or not fetch


@given(moments, st.integers(1, 9), spans)
def test_kept_is_to_the_midnight_at_which_the_store_lets_a_copy_go(asked: datetime, days: int, late: timedelta) -> None:
    copy = thawed(asked, days, ThawTier.STANDARD, "GLACIER", 1)
    kept = thaw.kept(asked, days, timedelta())
    assert asked + kept == copy.until
    assert copy.until.time() == datetime.min.time()
    assert timedelta() <= kept - days * DAY < DAY
    assert thaw.kept(asked, days, late) == max(timedelta(), kept - late)


# --- looks ------------------------------------------------------------------------------------------------------------


@given(moments, spans, st.lists(st.timedeltas(timedelta(), timedelta(hours=60)), max_size=20))
def test_the_next_look_is_never_before_now_nor_before_one_asked_earlier(
    asked: datetime, at_most: timedelta, later: list[timedelta]
) -> None:
    nows = sorted(asked + each for each in later)
    looks = [thaw.next_look(asked, at_most, now) for now in nows]
    assert looks == sorted(looks)
    for now, look in zip(nows, looks, strict=True):
        assert look > now
        assert look >= asked + at_most / 2


@given(moments, spans)
def test_looks_are_as_many_as_there_are(asked: datetime, at_most: timedelta) -> None:
    now, count = asked, 0
    while now < asked + at_most:
        now = thaw.next_look(asked, at_most, now)
        count += 1
    assert count <= thaw.looks(at_most) <= count + 1


@given(st.integers(0, 10**5), st.integers(0, 10**6))
def test_a_listing_is_taken_where_it_costs_less(packs: int, keys: int) -> None:
    pages = max(1, -(-keys // 1000))
    assert thaw.by_listing(packs, keys, 1000) == (packs * 0.0004 > pages * 0.005 - 1e-9 and packs > 12 * pages)
