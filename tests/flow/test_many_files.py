"""Memory does not grow with the number of files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flow.conftest import in_memory

LIMIT_MIB = 512
COUNT = int(os.environ.get("GATEWAY_MANY_FILES", "20000"))
"""CI takes a tenth; ``GATEWAY_MANY_FILES=200000`` is the whole, 450 CPU seconds (docs/benchmarks.md)."""


# Ten times what two idle cores take, for those that are shared.
SECONDS = 120 + COUNT // 100


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 30)
def test_many_small_files_in_bounded_memory(capsys: pytest.CaptureFixture[str]) -> None:
    with in_memory() as root:
        done = subprocess.run(
            [sys.executable, "-m", "tests.flow.many_files", str(root / "many"), str(COUNT)],
            capture_output=True, check=False, cwd=Path(__file__).parents[2], text=True, timeout=SECONDS,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    measured = json.loads(done.stdout)
    with capsys.disabled():
        sys.stdout.write(f"\n{COUNT} files: {measured}\n")
    assert max(measured["rss_mib with init"], measured["rss_mib"]) < LIMIT_MIB
