"""The pack cache: what goes when room is needed, and what never does."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from gateway.errors import LocalStateError
from gateway.model.ids import ChainName
from gateway.repository.cache import PackCache

CHAIN, OLD, OTHER = ChainName("db", 2), ChainName("db", 1), ChainName("files", 1)
SIZE = 100


def added(cache: PackCache, chain: ChainName, number: int, pack_id: bytes) -> tuple[int, bytes]:
    """A pack that the store has acknowledged."""
    cache.prepare(chain)
    cache.path(chain, number, pack_id).write_bytes(bytes(SIZE))
    cache.added(chain, number, pack_id, SIZE)
    cache.acknowledged(chain, number, pack_id)
    return number, pack_id


def ids(count: int, seed: int = 1) -> list[bytes]:
    chance = random.Random(seed)
    return [chance.randbytes(16) for _ in range(count)]


def room(cache: PackCache, packs: int) -> None:
    cache.wait_for_room(packs * SIZE, threading.Event())


def test_what_the_newest_generation_does_not_need_goes_first_the_oldest_first(tmp_path: Path) -> None:
    cache = PackCache(tmp_path, 10 * SIZE)
    packs = [added(cache, CHAIN, number, pack_id) for number, pack_id in enumerate(ids(8), 1)]
    gone = [added(cache, OLD, number, pack_id) for number, pack_id in enumerate(ids(2, 2), 1)]
    cache.keep(CHAIN, [1, 2, 5, 6, 7], [], of=7)
    room(cache, 1)
    assert cache.packs(OLD) == gone[1:]
    room(cache, 3)
    assert cache.packs(OLD) == []
    assert cache.packs(CHAIN) == [pack for pack in packs if pack[0] != 3]


def test_of_needed_packs_those_with_the_lowest_ids_stay_and_lists_last(tmp_path: Path) -> None:
    cache = PackCache(tmp_path, 20 * SIZE)
    packs = [added(cache, CHAIN, number, pack_id) for number, pack_id in enumerate(ids(20), 1)]
    highest = max(packs, key=lambda pack: pack[1])
    cache.keep(CHAIN, range(1, 21), [highest[0]], of=20)
    room(cache, 12)
    by_id = sorted((pack for pack in packs if pack != highest), key=lambda pack: pack[1])
    assert cache.packs(CHAIN) == sorted([highest, *by_id[:7]])


def test_the_share_of_hits_is_the_share_of_bytes_night_after_night(tmp_path: Path) -> None:
    """Each night all needed packs are read in order, and three are replaced by new ones."""
    cache = PackCache(tmp_path, 50 * SIZE)
    chance = random.Random(5)
    newest = {number: chance.randbytes(16) for number in range(1, 101)}
    for number, pack_id in newest.items():
        room(cache, 1)
        added(cache, CHAIN, number, pack_id)
    number = 100
    for _ in range(20):
        cache.keep(CHAIN, newest, [], of=number)
        hits = sum(cache.find(CHAIN, each, pack_id) is not None for each, pack_id in newest.items())
        assert hits >= 45
        for gone in chance.sample(sorted(newest), 3):
            del newest[gone]
            number += 1
            newest[number] = chance.randbytes(16)
            room(cache, 1)
            added(cache, CHAIN, number, newest[number])


def test_packs_of_sources_of_which_nothing_was_said_count_as_needed(tmp_path: Path) -> None:
    cache = PackCache(tmp_path, 4 * SIZE)
    mine = added(cache, CHAIN, 1, b"\xff" * 16)
    unneeded = added(cache, CHAIN, 2, bytes(16))
    others = [added(cache, OTHER, number, pack_id) for number, pack_id in enumerate(ids(2), 1)]
    cache.keep(CHAIN, [1], [], of=2)
    room(cache, 1)
    assert unneeded not in cache.packs(CHAIN)
    assert (cache.packs(CHAIN), cache.packs(OTHER)) == ([mine], others)


def held(cache: PackCache, number: int, pack_id: bytes) -> tuple[int, bytes]:
    """A pack that the store has not acknowledged."""
    cache.prepare(CHAIN)
    cache.path(CHAIN, number, pack_id).write_bytes(bytes(SIZE))
    cache.added(CHAIN, number, pack_id, SIZE)
    return number, pack_id


def test_a_pack_that_is_not_acknowledged_never_goes(tmp_path: Path) -> None:
    cache = PackCache(tmp_path, 8 * SIZE)
    waits = held(cache, 1, b"\xff" * 16)
    for number, pack_id in enumerate(ids(7), 2):
        added(cache, CHAIN, number, pack_id)
    cache.keep(CHAIN, [], [], of=8)
    room(cache, 1)
    assert waits in cache.packs(CHAIN)
    assert len(cache.packs(CHAIN)) == 7
    stopped = threading.Event()
    waiting = threading.Thread(target=cache.wait_for_room, args=(8 * SIZE, stopped), daemon=True)
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    assert waits in cache.packs(CHAIN)
    cache.acknowledged(CHAIN, *waits)
    waiting.join(10)
    assert not waiting.is_alive()
    assert cache.packs(CHAIN) == []


def test_packs_that_a_run_left_hold_up_nobody_and_go_last(tmp_path: Path) -> None:
    cache = PackCache(tmp_path, 8 * SIZE)
    waits = [held(cache, number, pack_id) for number, pack_id in enumerate(ids(3), 1)]
    others = [added(cache, OTHER, number, pack_id) for number, pack_id in enumerate(ids(5, 2), 1)]
    cache.left(CHAIN)
    cache.keep(OTHER, range(1, 6), range(1, 6), of=5)
    room(cache, 5)
    assert (cache.packs(CHAIN), cache.packs(OTHER)) == (waits, [])
    room(cache, 7)
    assert cache.packs(CHAIN) == waits[-1:]
    cache.added(CHAIN, *waits[-1], SIZE)  # the next run goes on with it
    added(cache, OTHER, 6, others[0][1])
    cache.wait_for_room(SIZE, threading.Event())
    assert cache.packs(CHAIN) == waits[-1:]


def test_packs_that_wait_for_a_slow_store_never_push_out_more_than_a_quarter(tmp_path: Path) -> None:
    cache = PackCache(tmp_path, 20 * SIZE)
    bases = [added(cache, CHAIN, number, pack_id) for number, pack_id in enumerate(ids(20), 1)]
    cache.keep(CHAIN, range(1, 21), [], of=20)
    for number in range(21, 26):
        room(cache, 1)
        held(cache, number, bytes(16))
    stopped = threading.Event()
    waiting = threading.Thread(target=cache.wait_for_room, args=(SIZE, stopped), daemon=True)
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    assert len([pack for pack in cache.packs(CHAIN) if pack in bases]) == 15
    stopped.set()
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_cache_smaller_than_a_pack_says_so(tmp_path: Path) -> None:
    with pytest.raises(LocalStateError, match="smaller than one pack"):
        room(PackCache(tmp_path, SIZE), 2)
