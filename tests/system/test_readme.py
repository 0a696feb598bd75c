"""The tour of README.md, word for word, as a stranger would paste it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def tour() -> list[str]:
    """Its blocks of shell. The set-up is what runs this test already."""
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## Ten minutes") : text.index("### The same with a bucket")]
    blocks = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 7
    return [block.replace("scripts/setup\n", "") for block in blocks]


@pytest.mark.slow
def test_the_tour_works_as_it_stands(tmp_path: Path) -> None:
    environment = {
        "HOME": str(tmp_path),
        "LC_ALL": "C.UTF-8",
        # The command of this Python, wherever the clone's .venv is.
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
    }
    script = "set -euo pipefail\n" + "\n".join(tour())
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    for words in ("byte by byte the same", "it is back", "no problems", "Rebuilt the catalog"):
        assert words in said, said
    assert "warning:" not in said
    assert not (tmp_path / "gateway-tour").exists()
