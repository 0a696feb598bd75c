"""Running a command under a clock: wall, processor time, greatest resident set, and what others burnt meanwhile."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A contender did not do what it must; nothing of it can be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is run inside the clock. Without `environment` nothing is inherited but PATH and HOME."""

    words: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run. `cpu`: user and system seconds of the process and all it waited for. `others`: how many cores the rest
    of the machine kept busy on average. `rss`: bytes of the largest process; no less than this program's own, which
    the kernel counts for a child until it has become another program.
    """

    wall: float
    cpu: float
    rss: int
    others: float


def busy_seconds() -> float:
    """Processor seconds that the machine has worked since it started (steal not counted: nobody here had it)."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _wait, irq, softirq, _steal = fields
    return (user + nice + system + irq + softirq) / _TICK


def cores() -> int:
    return len(os.sched_getaffinity(0))


def wait_quiet(seconds: float, *, limit: float = 0.3) -> None:
    """Until the machine does little, `seconds` at most."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = busy_seconds()
        time.sleep(0.25)
        if (busy_seconds() - before) / 0.25 < limit:
            return


def environment_of(command: Command) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(command.directory or Path.home()),
        "LC_ALL": "C.UTF-8",
        **command.environment,
    }


def run(
    command: Command,
    *,
    seconds: float = 1800,
    meanwhile: Callable[[int], None] | None = None,
) -> Run:
    """Run to the end; `BenchError` with what it said unless it exits with 0.

    `meanwhile` is called with the process's number about 50 times a second.
    """
    words = [str(word) for word in command.words]
    with open(os.devnull, "rb") as nothing, _Output() as output:
        busy, begun = busy_seconds(), time.perf_counter()
        process = subprocess.Popen(
            words,
            stdin=nothing,
            stdout=output.file,
            stderr=subprocess.STDOUT,
            env=environment_of(command),
            cwd=command.directory,
        )
        try:
            status, usage = _wait(process.pid, begun + seconds, meanwhile)
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)  # it is reaped; Popen must not wait again
        cpu = usage.ru_utime + usage.ru_stime
        others = max(0.0, busy_seconds() - busy - cpu) / wall
        if process.returncode != 0:
            raise BenchError(f"{' '.join(words)}: exit {process.returncode}\n{output.tail()}")
        return Run(wall=wall, cpu=cpu, rss=usage.ru_maxrss * 1024, others=others)


def _wait(pid: int, deadline: float, meanwhile: Callable[[int], None] | None) -> tuple[int, os.struct_rusage]:
    if meanwhile is None:
        _, status, usage = os.wait4(pid, 0)
        return status, usage
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return status, usage
        if time.perf_counter() > deadline:
            raise BenchError(f"process {pid} takes too long")
        meanwhile(pid)
        time.sleep(0.02)


class _Output:
    """What a command says, in an unnamed file: a pipe that nobody reads would stop it."""

    def __enter__(self) -> _Output:
        self.file = os.memfd_create("output")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.file)

    def tail(self, size: int = 3000) -> str:
        end = os.fstat(self.file).st_size
        return os.pread(self.file, size, max(0, end - size)).decode(errors="replace")


def prepare(command: Command) -> str:
    """Run outside the clock; what it printed. `BenchError`."""
    done = subprocess.run(
        [str(word) for word in command.words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment_of(command),
        cwd=command.directory,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(f"{' '.join(map(str, command.words))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Several runs over `size` bytes. MB and GB are 10^6 and 10^9 bytes."""

    size: int
    runs: tuple[Run, ...]

    @property
    def speeds(self) -> list[float]:
        return [self.size / 1e6 / each.wall for each in self.runs]

    @property
    def speed(self) -> float:
        return statistics.median(self.speeds)

    @property
    def wall(self) -> float:
        return statistics.median(each.wall for each in self.runs)

    @property
    def processor(self) -> float:
        """User and system seconds."""
        return statistics.median(each.cpu for each in self.runs)

    @property
    def cpu(self) -> float:
        """Seconds per GB."""
        return self.processor / (self.size / 1e9)

    @property
    def rss(self) -> int:
        return max(each.rss for each in self.runs)

    @property
    def others(self) -> float:
        return statistics.median(each.others for each in self.runs)


def read_all(paths: Iterable[Path]) -> int:
    """Read files once, so that they are in the page cache; how many bytes they have."""
    total = 0
    buffer = bytearray(1 << 20)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                total += count
    return total


def files_below(top: Path) -> list[Path]:
    return sorted(Path(at, name) for at, _, names in os.walk(top) for name in names if not Path(at, name).is_symlink())


def stored_bytes(top: Path) -> int:
    return sum(path.lstat().st_size for path in files_below(top))
