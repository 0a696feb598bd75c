"""Nothing grows: a share of `scripts/soak flat`, seventy-five seconds, and the measure itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.repository.pack_files import OPEN_FILES
from tests.engine.flat import Sample, growth, serve

STEADY = [Sample(rss_mib=150.0, threads=12, files=40, packs=60)] * 40


def test_what_leaks_is_found() -> None:
    assert not growth(STEADY)
    for leak in ("rss_mib", "threads", "files"):
        samples = [replace(each, **{leak: 40 + number * 2}) for number, each in enumerate(STEADY)]
        (told,) = growth(samples)
        assert told.startswith(leak)
    (told,) = growth([*STEADY, replace(STEADY[0], packs=OPEN_FILES + 13)])
    assert told.startswith("packs")


@pytest.mark.slow
def test_a_minute_of_work_is_flat(tmp_path: Path) -> None:
    wrong = serve(tmp_path, 1, 75.0, share=0.25, spare_mib=32.0)
    assert not wrong
