"""A writer and a sweeper in two processes, interleaved and killed as a seed says: a share of `scripts/soak sweep`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.sweeps import soak
from tests.sweeps.lane import Outcome, play_all

LOCAL = [case for case in range(soak.SCHEDULES // soak.SHARE) if not soak.is_real(case)]
# A few more than their share: in one of three a chain ends.
REAL = [case for case in range(7 * soak.REAL_EVERY) if soak.is_real(case)]
LANES = min(2, os.cpu_count() or 1)


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    root = Path(tempfile.mkdtemp(prefix="gateway-sweep-", dir=memory))
    yield root
    shutil.rmtree(root)


def judged(outcomes: Iterator[Outcome]) -> None:
    """Nothing was wrong, and something did happen."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for _, problems, each in outcomes:
        wrong += problems
        counts += each
    assert not wrong, "\n".join(wrong)
    for name in ("made", "expired", "deleted", "killed", "restored", "ended"):
        assert counts[name], f"no schedule came to it: {name}"


def test_schedules_on_a_directory(quick: Path) -> None:
    judged(play_all(LOCAL, quick, lanes=LANES))


@pytest.mark.needs_seaweedfs
def test_schedules_on_a_real_server(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "")
    with ExitStack() as stack:
        server = soak.start_server(stack, quick / "seaweedfs")
        judged(play_all(REAL, quick, soak.where(server), lanes=LANES))
