"""An engine that watches very many small files: its memory stays in bounds, and it reads again what changed only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flow.conftest import in_memory

FILES = int(os.environ.get("GATEWAY_WATCHED_FILES", "200000"))
"""CI takes a fifth of the million of ``python -m tests.perf.spool`` (docs/benchmarks.md)."""
LIMIT_MIB = 512


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_files_are_watched_in_bounded_memory(capsys: pytest.CaptureFixture[str]) -> None:
    with in_memory() as root:
        done = subprocess.run(
            [sys.executable, "-m", "tests.perf.spool", str(FILES), str(root)],
            capture_output=True, check=False, cwd=Path(__file__).parents[2], text=True, timeout=1750,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    with capsys.disabled():
        sys.stdout.write(f"\n{done.stdout}")
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("|")][2:]
    assert len(rows) == 4, "a first generation, changes by events, changes by a rescan, and nothing at all"
    assert max(int(row[4]) for row in rows) < LIMIT_MIB
