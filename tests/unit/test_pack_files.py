"""Packs that are kept open: never more than the limit, none that was removed, and none closed while it is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.repository import cache as caches
from gateway.repository.cache import PackCache
from gateway.repository.pack_files import PackFiles
from tests.unit.test_pack_cache import CHAIN, added, ids


def open_below(place: Path) -> list[str]:
    """What this process has open there."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue  # that of the listing itself
    return [each for each in found if each.startswith(str(place))]


def packs(place: Path, count: int) -> list[Path]:
    made = [place / f"{number}" for number in range(count)]
    for path in made:
        path.write_bytes(path.name.encode())
    return made


def test_no_more_are_open_than_the_limit_and_the_last_used_stay(tmp_path: Path) -> None:
    files, made = PackFiles(3), packs(tmp_path, 10)
    for path in made:
        files.open(made[0])
        file = files.open(path)
        assert os.pread(file.fd, 9, 0) == path.name.encode()
        del file
    assert len(files) == 3
    assert sorted(open_below(tmp_path)) == [str(made[0]), str(made[8]), str(made[9])]


def test_one_that_is_being_read_is_closed_behind_its_last_reader(tmp_path: Path) -> None:
    files, made = PackFiles(1), packs(tmp_path, 2)
    held = files.open(made[0])
    files.open(made[1])
    assert os.pread(held.fd, 9, 0) == b"0"
    assert len(open_below(tmp_path)) == 2
    del held
    assert open_below(tmp_path) == [str(made[1])]


def test_what_the_cache_removes_keeps_no_place_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = PackFiles()
    monkeypatch.setattr(caches, "PACK_FILES", files)
    cache = PackCache(tmp_path, 10_000)
    kept = [added(cache, CHAIN, number, pack_id) for number, pack_id in enumerate(ids(3), 1)]
    for number, pack_id in kept:
        path = cache.find(CHAIN, number, pack_id)
        assert path is not None
        files.open(path)
    cache.drop(CHAIN, *kept[0])
    assert len(open_below(tmp_path)) == 2
    cache.max_bytes = 0
    cache.acknowledged(CHAIN, *kept[1])
    assert open_below(tmp_path) == []
