"""A tree of many small files, there and back, in a process of its own: ``many_files.py DIRECTORY COUNT``.

Prints one JSON object: seconds of each step, and greatest resident sizes of the process in MiB. The store is a
directory, so that what is measured is the gateway.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from gateway.api import Reference
from gateway.clock import FakeClock
from gateway.config.values import Config, RepositoryConfig, SourceConfig, StateConfig
from gateway.engine import open_engine
from tests.flow.gateways import START

IN_DIRECTORY = 500


def peak_mib() -> int:
    """The greatest resident size since the last time it was reset."""
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM:"))
    return int(line.split()[1]) // 1024


def fill(spool: Path, count: int) -> None:
    for number in range(count):
        if number % IN_DIRECTORY == 0:
            directory = spool / f"d{number // IN_DIRECTORY:05d}"
            directory.mkdir(parents=True)
        fd = os.open(directory / f"file-{number:07d}.dat", os.O_CREAT | os.O_WRONLY, 0o640)
        os.write(fd, b"content of file %d\n" % number * (number % 20))
        os.close(fd)


def run(root: Path, count: int) -> dict[str, float]:
    spool, target = root / "spool", root / "restored"
    took: dict[str, float] = {}

    @contextmanager
    def step(name: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        took[name] = round(time.monotonic() - begun, 2)

    with step("fill"):
        fill(spool, count)
    config = Config(
        repository=RepositoryConfig(url=f"file://{root}/store"),
        state=StateConfig(directory=root / "state"),
        sources=(SourceConfig(name="src", path=spool, settle=timedelta(seconds=1)),),
    )
    engine = open_engine(config, clock=FakeClock(START), environment={"GATEWAY_PASSPHRASE": "many"})
    engine.init()
    # `init` stretches a passphrase in 256 MiB and gives them back; what grows with files is measured from here on.
    took["rss_mib with init"] = peak_mib()
    Path("/proc/self/clear_refs").write_text("5")
    with step("ingest"):
        (report,) = engine.ingest("src").sources
    assert report.generation is not None
    assert (report.generation.files, report.generation.state) == (count, "protected")
    with step("ingest unchanged"):
        (report,) = engine.ingest("src").sources
    assert (report.generation, report.bytes_read) == (None, 0)
    for number in range(0, count, 1000):
        with (spool / f"d{number // IN_DIRECTORY:05d}" / f"file-{number:07d}.dat").open("ab") as file:
            file.write(b"changed")
    with step("ingest changed"):
        (report,) = engine.ingest("src").sources
    assert (report.files_read, report.files_unchanged) == (-(-count // 1000), count - -(-count // 1000))
    with step("list"):
        assert sum(1 for _ in engine.list_files(Reference.parse("src"))) == count + -(-count // IN_DIRECTORY)
    with step("restore"):
        restored = engine.restore(Reference.parse("src"), target)
    assert (restored.files, restored.left_out) == (count, ())
    with step("verify"):
        assert not engine.verify(depth="data").problems  # type: ignore[arg-type]
    engine.close()
    for number in range(0, count, 997):
        name = f"d{number // IN_DIRECTORY:05d}/file-{number:07d}.dat"
        assert (target / name).read_bytes() == (spool / name).read_bytes()
    took["rss_mib"] = peak_mib()
    return took


if __name__ == "__main__":
    place = Path(sys.argv[1])
    sys.stdout.write(json.dumps(run(place, int(sys.argv[2]))) + "\n")
    shutil.rmtree(place)
