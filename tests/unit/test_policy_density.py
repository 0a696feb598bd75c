"""What is retired, and why."""

from __future__ import annotations

from gateway.policy.density import SMALL, SMALL_AFTER_MS, TOGETHER, PackUse, budget, to_retire

MIB = 1024 * 1024
FULL = 1000 * 1024 * MIB
NOW = 10 * SMALL_AFTER_MS


def pack(number: int, used: float, size: int = 100 * MIB, age: int = 0) -> PackUse:
    return PackUse(number=number, size=size, used=int(used * size), written=NOW - age)


def retired(*packs: PackUse, full: int = FULL) -> list[int]:
    return [each.pack for each in to_retire(packs, now=NOW, full=full, full_pack=224 * MIB)]


def test_sparse_packs_are_retired_the_sparsest_first() -> None:
    assert retired(pack(1, 0.29), pack(2, 0.31), pack(3, 0.01), pack(4, 1.0)) == [3, 1]
    (only,) = to_retire([pack(1, 0.25)], now=NOW, full=FULL, full_pack=224 * MIB)
    assert only.reason == "only 25% of it is used"
    assert only.used == 25 * MIB


def test_what_nobody_uses_needs_nothing() -> None:
    assert retired(pack(1, 0.0), pack(2, 0.0, size=MIB, age=2 * SMALL_AFTER_MS)) == []


def test_small_packs_wait_for_a_week_and_for_company() -> None:
    old, size = SMALL_AFTER_MS + 1, MIB
    many = [pack(number, 1.0, size, old) for number in range(1, 9)]
    assert retired(*many[:7]) == []
    assert retired(*many) == list(range(1, 9)), "together they are not small any more"
    assert retired(*many[:7], pack(8, 1.0, size, SMALL_AFTER_MS)) == []
    tiny = [pack(number, 1.0, 1024, old) for number in range(1, TOGETHER + 1)]
    assert retired(*tiny[1:]) == []
    assert retired(*tiny) == list(range(1, TOGETHER + 1))
    assert retired(*[pack(number, 1.0, SMALL, old) for number in range(1, 9)]) == []
    found = to_retire(many, now=NOW, full=FULL, full_pack=4 * MIB)
    assert not found, "where packs are small on purpose, none of them is too small"


def test_no_more_than_a_twentieth_of_a_full_but_for_one_pack() -> None:
    assert budget(1000) == 50
    packs = [pack(number, 0.2) for number in range(1, 10)]
    assert retired(*packs, full=20 * 30 * MIB) == [1, 2]
    assert retired(*packs, full=MIB) == [1]
    assert retired(*packs, full=0) == []


def test_deltas_are_joined_also_where_they_stand_on_one_another() -> None:
    def deltas(number: int, *, is_base: bool = False, joins: bool = True) -> PackUse:
        return PackUse(number=number, size=MIB, used=MIB, written=NOW, is_base=is_base, joins=joins)

    assert retired(deltas(1), deltas(2), deltas(3, is_base=True), deltas(4, joins=False)) == [1, 2, 3]


def test_small_packs_that_others_stand_on_stay() -> None:
    old = SMALL_AFTER_MS + 1
    packs = [pack(number, 1.0, MIB, old) for number in range(1, 12)]
    base = PackUse(number=99, size=MIB, used=MIB, written=0, is_base=True)
    assert retired(*packs, base) == list(range(1, 12))
    assert retired(pack(1, 0.1, MIB)) == [], "a small one is not sparse, but small"
