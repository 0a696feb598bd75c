"""systemd reads the unit without a complaint."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd on this machine")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = (ROOT / "config" / "systemd" / "gateway.service").read_text()
    unit = tmp_path / "gateway.service"
    unit.write_text(text.replace("ExecStart=/opt/gateway/bin/gateway", "ExecStart=/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if "gateway.service" in line]
    assert (done.returncode, complaints) == (0, [])
