"""Ingest is never fooled: a share of `scripts/soak schedules`, fifty seeds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.schedules import Case, cases, play
from tests.servers.samba import Samba

BATCHES = (range(17), range(17, 34), range(34, 50))


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Samba]:
    with Samba(tmp_path_factory.mktemp("share")) as server:
        yield server


@pytest.mark.slow
@pytest.mark.needs_samba
@pytest.mark.parametrize("seeds", BATCHES, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_no_schedule_fools_the_engine(seeds: range, tmp_path: Path, share: Samba) -> None:
    found = play(tmp_path / "batch", cases(seeds, shared=True), share)
    assert not found, "\n".join(text for each in found.values() for text in each)


@pytest.mark.slow
@pytest.mark.needs_samba
def test_a_thousand_small_files_over_smb_beside_other_writers(tmp_path: Path, share: Samba) -> None:
    """At the default minimum, and at 2, where three of four are held back and named."""
    chosen = [Case(seed=seed, shared=True, small_files=1000) for seed in (1001, 1003)]
    assert [each.minimum_evidence for each in chosen] == [1, 2]
    found = play(tmp_path / "batch", chosen, share)
    assert not found, "\n".join(text for each in found.values() for text in each)
