"""SIGKILL of a working engine: a share of `scripts/soak engine-kills`, twenty-five kills of five machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.kills import run_all


@pytest.mark.slow
def test_a_killed_engine_loses_nothing_and_makes_nothing_twice(tmp_path: Path) -> None:
    found = run_all(tmp_path, list(range(5)))
    assert not found, "\n".join(found)
