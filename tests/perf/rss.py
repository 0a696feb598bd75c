"""How much memory an ingest and a restore hold: ``python -m tests.perf.rss [GiB ...]`` (1 and 4 without arguments).

Unique incompressible data in one file, a pack cache of 2 GiB, a directory repository, the command as people run it.
What comes back is compared with what was made, as a stream; the source is deleted before, so twice the size and the
cache have to fit on the disk.
"Running" is the greatest resident set after the repository was opened: the kernel is told to forget the mark
(`/proc/PID/clear_refs`, 5) as soon as the first pack or the first restored file is there. "Whole" includes the opening,
whose key derivation alone takes 256 MiB for a second. The whole must be below 512 MiB and differ by less than 10 %
between the sizes.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.perf.bench import measure
from tests.perf.bench.contenders import PASSWORD
from tests.perf.bench.data import GIB, unique_bytes, write_unique
from tests.perf.bench.measure import Command

MIB = 1 << 20
BOUND = 512 * MIB
DIFFERENCE = 0.10
CACHE = "2 GiB"


@dataclass(slots=True)
class Watch:
    """Resets the high-water mark of a process once `opened`, then follows it."""

    opened: Callable[[], bool]
    reset: bool = False
    opening: int = 0
    running: int = 0

    def __call__(self, pid: int) -> None:
        with contextlib.suppress(OSError):  # it may have ended just now
            mark = _mark(pid)
            if self.reset:
                self.running = max(self.running, mark)
                return
            self.opening = max(self.opening, mark)
            if self.opened():
                Path(f"/proc/{pid}/clear_refs").write_text("5")
                self.reset = True


def _mark(pid: int) -> int:
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """`running`: after opening; 0 when it was over too soon to be told apart."""

    step: str
    size: int
    running: int
    whole: int


def measure_size(size: int, work: Path) -> list[Peak]:
    shutil.rmtree(work, ignore_errors=True)
    source, out = work / "source", work / "out"
    source.mkdir(parents=True)
    write_unique(source / "unique.bin", size, size)
    secret = work / "passphrase"
    secret.write_text(PASSWORD)
    secret.chmod(0o600)
    (work / "gateway.toml").write_text(
        f'[repository]\nurl = "file://{work}/store"\n[state]\ndir = "{work}/state"\n[cache]\nmax_size = "{CACHE}"\n'
        f'[keys]\npassphrase_file = "{secret}"\n[[source]]\nname = "rss"\npath = "{source}"\nsettle = "1 s"\n'
    )

    def command(*words: str | Path) -> Command:
        program = Path(sys.executable).parent / "gateway"
        return Command(words=[program, "--config", work / "gateway.toml", *words], directory=work)

    def first_pack() -> bool:
        return any(path.is_file() for path in (work / "state" / "cache").rglob("*"))

    def first_file() -> bool:
        return out.is_dir() and any(path.is_file() and path.stat().st_size for path in out.iterdir())

    measure.prepare(command("init"))
    peaks = []
    for step, words, opened in (
        ("ingest", ("ingest", "rss", "--seal-now"), first_pack),
        ("restore", ("restore", "rss@1", "--to", out), first_file),
    ):
        if step == "restore":
            shutil.rmtree(source)
        watch = Watch(opened)
        run = measure.run(command(*words), meanwhile=watch)
        peaks.append(
            Peak(step=step, size=size, running=watch.running, whole=max(watch.opening, watch.running, run.rss))
        )
        print(f"{step} of {size / GIB:g} GiB: {run.wall:.0f} s", file=sys.stderr, flush=True)
    with (out / "unique.bin").open("rb") as file:
        for piece in unique_bytes(size, size):
            if file.read(len(piece)) != piece:
                raise SystemExit(f"the restore of {size / GIB:g} GiB differs before byte {file.tell()}")
    shutil.rmtree(work)
    return peaks


def table(peaks: list[Peak]) -> str:
    lines = ["| step | unique data | running MiB | whole MiB |", "| --- | --- | --- | --- |"]
    for peak in sorted(peaks, key=lambda each: (each.step, each.size)):
        running = f"{peak.running / MIB:.0f}" if peak.running else "not seen"
        lines.append(f"| {peak.step} | {peak.size / GIB:g} GiB | {running} | {peak.whole / MIB:.0f} |")
    return "\n".join(lines)


def problems(peaks: list[Peak]) -> list[str]:
    found = [f"{p.step} of {p.size / GIB:g} GiB: {p.whole / MIB:.0f} MiB" for p in peaks if p.whole > BOUND]
    for step in ("ingest", "restore"):
        whole = [peak.whole for peak in peaks if peak.step == step]
        if max(whole) > (1 + DIFFERENCE) * min(whole):
            found.append(f"{step}: from {min(whole) / MIB:.0f} to {max(whole) / MIB:.0f} MiB")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.perf.rss", description=__doc__.split("\n", 1)[0])
    parser.add_argument("sizes", nargs="*", type=float, default=[1.0, 4.0], metavar="GiB")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/gateway-rss"))
    options = parser.parse_args()
    peaks = [peak for size in options.sizes for peak in measure_size(int(size * GIB), options.work)]
    print(table(peaks))
    for problem in problems(peaks):
        print(f"beyond the bound: {problem}")
    return 1 if problems(peaks) else 0


if __name__ == "__main__":
    sys.exit(main())
