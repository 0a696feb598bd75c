"""`gateway serve` under load for an hour: neither memory nor threads nor open files grow.

Two sources, in which files come, are written anew and go, so that what the engine has to know of them stays the same.
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.repository.pack_files import OPEN_FILES
from tests.engine.machines import Source, init, machine
from tests.system.serving import Serving

MINUTES = 50
FILES = 60
"""Names of a source; a file that comes has one of them."""
FILE_BYTES = 200_000
WRITE_SECONDS = 0.5
SPARE_MIB = 16.0
SPARE_COUNT = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """`packs`: open packs of the cache, which are kept up to a bound; `files`: whatever else is open."""

    rss_mib: float
    threads: int
    files: int
    packs: int


def sample(pid: int, cache: Path) -> Sample:
    is_pack = [each.startswith(f"{cache}/") for each in _open(pid)]
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return Sample(
        rss_mib=int(fields["VmRSS"].split()[0]) / 1024,
        threads=int(fields["Threads"]),
        files=len(is_pack) - sum(is_pack),
        packs=sum(is_pack),
    )


def _open(pid: int) -> Iterator[str]:
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            yield os.readlink(f"/proc/{pid}/fd/{fd}")


def growth(samples: Sequence[Sample], *, share: float = 0.10, spare_mib: float = SPARE_MIB) -> list[str]:
    """What grew: the median of the last quarter against that of the second, by which the caches are warm. And whether
    more packs were open than may be, one for each thread that reads among them.
    """
    if len(samples) < 8:
        raise ValueError("too few samples")
    quarter = len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    wrong = []
    for name, spare in (("rss_mib", spare_mib), ("threads", SPARE_COUNT), ("files", SPARE_COUNT)):
        before, after = (statistics.median(getattr(each, name) for each in part) for part in (second, last))
        if after > before * (1 + share) + spare:
            wrong.append(f"{name} grew from {before:.1f} to {after:.1f}")
    most = max(each.packs for each in samples)
    if most > OPEN_FILES + max(each.threads for each in samples):
        wrong.append(f"packs: {most} were open")
    return wrong


def serve(
    root: Path, seed: int, seconds: float, *, share: float = 0.10, spare_mib: float = SPARE_MIB,
    say: Callable[[str], object] = lambda _: None,
) -> list[str]:  # fmt: skip
    """What grew in this time, and whether anything was done at all."""
    every = ('generation_interval = "5 s"',)
    sources = [Source(name=name, path=root / "spool" / name, minimum_evidence=1, more=every) for name in ("one", "two")]
    gateway = machine(root / "gateway", root / "store", sources)
    init(gateway)
    stop = threading.Event()
    writers = [threading.Thread(target=_write, args=(source.path, seed, stop)) for source in sources]
    samples = []
    with Serving(gateway) as engine:
        assert engine.process is not None
        try:
            for each in writers:
                each.start()
            end = time.monotonic() + seconds
            while time.monotonic() < end and engine.alive:
                samples.append(sample(engine.process.pid, gateway.state / "cache"))
                stop.wait(max(0.5, seconds / 600))
        finally:
            stop.set()
            for each in writers:
                each.join()
        wrong = [] if engine.alive else [f"the engine ended: {engine.log[-2000:]}"]
        made = sum(len(engine.protected(source.name)) for source in sources)
        wrong += growth(samples, share=share, spare_mib=spare_mib)
        if made < seconds / 10:
            wrong.append(f"only {made} generations in {seconds:.0f} s")
        say(f"{made} generations; first {samples[0]}, middle {samples[len(samples) // 2]}, last {samples[-1]}\n")
        if engine.stop():
            wrong.append("the engine did not end well")
    return wrong


def _write(spool: Path, seed: int, stop: threading.Event) -> None:
    chance = random.Random(f"{seed} {spool.name}")
    while not stop.wait(WRITE_SECONDS):
        path = spool / f"file-{chance.randrange(FILES)}"
        if path.exists() and chance.random() < 0.3:
            path.unlink()
        else:
            path.write_bytes(chance.randbytes(FILE_BYTES))
