"""Results as markdown: what is printed and what docs/benchmarks.md holds."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.perf.bench import measure
from tests.perf.bench.contenders import OURS, YARDSTICK, Contender
from tests.perf.bench.data import DataSet
from tests.perf.bench.measure import Summary
from tests.perf.bench.rounds import Result
from tests.perf.bench.upload import OURS as OUR_ADAPTER
from tests.perf.bench.upload import Uploads

MIB = 1 << 20
PEER = "restic"
TARGETS = {"postgresql": 2.0, "random": 2.0}
UPLOAD_TARGET = 0.9
START = "tiny"
"""The data set that shows what a command costs before it does anything."""


@dataclass(slots=True)
class Report:
    """All that one run of the benchmark found."""

    command: str
    date: str
    scale: float
    rounds: int
    contenders: Sequence[Contender]
    absent: list[str]
    compared: list[tuple[DataSet, list[Result]]]
    uploads: Uploads | None

    def text(self) -> str:
        parts = [self._head(), self._targets()]
        parts += [
            _start(results) if data.name == START else _comparison(data, results, self._starts)
            for data, results in self.compared
        ]
        if self.uploads is not None:
            parts.append(_uploads(self.uploads))
        return "\n\n".join(parts) + "\n"

    @property
    def _starts(self) -> dict[str, Result]:
        """By contender, its runs over next to nothing."""
        for data, results in self.compared:
            if data.name == START:
                return {result.contender.name: result for result in results if not result.failed}
        return {}

    def _head(self) -> str:
        rows = [
            ("command", f"`{self.command}`"),
            ("date", self.date),
            ("machine", machine()),
            *(("version", f"{each.name} {each.version}") for each in self.contenders),
        ]
        if self.uploads is not None and self.uploads.rclone:
            rows.append(("version", f"rclone {self.uploads.rclone}"))
        if self.absent:
            rows.append(("not here, so not measured", ", ".join(self.absent)))
        return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])

    # --- targets -----------------------------------------------------------------------------------------------------

    def _targets(self) -> str:
        rows = [
            f"| {what} | {wanted} | {reached} | {'yes' if met else 'no'} |"
            for what, wanted, reached, met in [*self._speed_targets(), *self._upload_targets()]
        ]
        if not rows:
            return "No peer was at hand, so no target could be looked at."
        return "\n".join(["| target | wanted | reached | met |", "| --- | --- | --- | --- |", *rows])

    def _speed_targets(self) -> Iterator[tuple[str, str, str, bool]]:
        for data, results in self.compared:
            by_name = {result.contender.name: result for result in results if not result.failed}
            ours, peer = by_name.get(OURS), by_name.get(PEER)
            if data.name not in TARGETS or ours is None or peer is None:
                continue
            wanted = TARGETS[data.name]
            for step, mine, theirs in (
                ("ingest", ours.ingests, peer.ingests),
                ("restore", ours.restores, peer.restores),
            ):
                one, other = Summary(size=data.size, runs=tuple(mine)), Summary(size=data.size, runs=tuple(theirs))
                reached = one.speed / other.speed
                low, high = ratio_range(one, other)
                yield (
                    f"{step}, {data.name}: MB/s against {PEER} {peer.contender.version}",
                    f">= {wanted:g}",
                    f"{reached:.2f} [{low:.2f}-{high:.2f}]",
                    reached >= wanted,
                )

    def _upload_targets(self) -> Iterator[tuple[str, str, str, bool]]:
        ways = [way for way in self.uploads.ways if not way.failed] if self.uploads else []
        ours = next((way for way in ways if way.name == OUR_ADAPTER), None)
        peers = [way for way in ways if way.name != OUR_ADAPTER]
        if ours is None or not peers:
            return
        best = max(peers, key=lambda way: way.summary.speed)
        speed = ours.summary.speed / best.summary.speed
        yield f"upload: MB/s against {best.name}", f">= {UPLOAD_TARGET:g}", f"{speed:.2f}", speed >= UPLOAD_TARGET
        least = min(peers, key=lambda way: way.summary.cpu)
        cpu = ours.summary.cpu / least.summary.cpu
        yield f"upload: CPU s/GB against {least.name}", "<= 1", f"{cpu:.2f}", cpu <= 1


def ratio_range(one: Summary, other: Summary) -> tuple[float, float]:
    """Least and greatest ratio of two runs of the same round."""
    ratios = [mine / theirs for mine, theirs in zip(one.speeds, other.speeds, strict=True)]
    return min(ratios), max(ratios)


# --- tables ----------------------------------------------------------------------------------------------------------


def spread(summary: Summary) -> str:
    return f"{summary.speed:.0f} [{min(summary.speeds):.0f}-{max(summary.speeds):.0f}]"


def _comparison(data: DataSet, results: list[Result], starts: Mapping[str, Result]) -> str:
    lines = [
        f"### {data.name}: {data.size / 1e6:.0f} MB in {data.files} file{'s' * (data.files > 1)}",
        "",
        f"{data.title}.",
        "",
        "| | ingest MB/s | CPU s/GB | RSS MiB | others | stored MB | restore MB/s | CPU s/GB | RSS MiB | others |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        name = (
            f"{result.contender.name} {result.contender.version}" if result.contender.name != YARDSTICK else YARDSTICK
        )
        if result.failed:
            lines.append(f"| {name} | failed: {result.failed.splitlines()[0]:.100} |" + " |" * 8)
            continue
        ingest, restore = result.ingest, result.restore
        lines.append(f"| {name} | {_cells(ingest)} | {result.stored / 1e6:.0f} | {_cells(restore)} |")
    by_name = {result.contender.name: result for result in results if not result.failed}
    ours = by_name.get(OURS)
    peers = [result for name, result in by_name.items() if name != OURS]
    if ours is not None and peers:
        lines += [
            "",
            'The gateway against each, by medians. "Running": without what a command takes for next to nothing.',
            "",
        ]
        lines += [
            "| against | ingest | restore | running ingest | running restore | CPU ingest | CPU restore | stored |"
        ]
        lines += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
        lines += [f"| {peer.contender.name} | {' | '.join(_ratios(ours, peer, starts))} |" for peer in peers]
    return "\n".join(lines)


def _ratios(ours: Result, peer: Result, starts: Mapping[str, Result]) -> Iterator[str]:
    """Of speeds, of speeds without the start, of processor time, of stored bytes."""
    yield f"{ours.ingest.speed / peer.ingest.speed:.2f}"
    yield f"{ours.restore.speed / peer.restore.speed:.2f}"
    mine, theirs = starts.get(ours.contender.name), starts.get(peer.contender.name)
    if mine is None or theirs is None:
        yield from ("", "")
    else:
        yield _running(ours.ingest, mine.ingest, peer.ingest, theirs.ingest)
        yield _running(ours.restore, mine.restore, peer.restore, theirs.restore)
    yield f"{ours.ingest.cpu / peer.ingest.cpu:.2f}"
    yield f"{ours.restore.cpu / peer.restore.cpu:.2f}"
    yield f"{ours.stored / peer.stored:.2f}"


def _running(mine: Summary, my_start: Summary, theirs: Summary, their_start: Summary) -> str:
    rest, other = mine.wall - my_start.wall, theirs.wall - their_start.wall
    return f"{other / rest:.2f}" if rest > 0.05 * mine.wall and other > 0 else "noise"


def _start(results: list[Result]) -> str:
    lines = ["### What a command takes for next to nothing", ""]
    lines += ["| | ingest s | CPU s | restore s | CPU s |", "| --- | --- | --- | --- | --- |"]
    for result in results:
        if not result.failed:
            cells = [f"{each.wall:.2f} | {each.processor:.2f}" for each in (result.ingest, result.restore)]
            lines.append(f"| {result.contender.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(summary: Summary) -> str:
    return f"{spread(summary)} | {summary.cpu:.2f} | {summary.rss / MIB:.0f} | {summary.others:.1f}"


def _uploads(uploads: Uploads) -> str:
    lines = [
        f"### upload: {uploads.size / 1e6:.0f} MB to a server on this machine that discards ({uploads.server})",
        "",
        "| | MB/s | CPU s/GB | RSS MiB | others |",
        "| --- | --- | --- | --- | --- |",
    ]
    for way in uploads.ways:
        if way.failed:
            lines.append(f"| {way.name} | failed: {way.failed.splitlines()[0]:.100} | | | |")
        else:
            lines.append(f"| {way.name} | {_cells(way.summary)} |")
    return "\n".join(lines)


def machine() -> str:
    """Processor, cores, memory, kernel, Python."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    total = int(Path("/proc/meminfo").read_text().split()[1]) // (1024 * 1024)
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{measure.cores()} cores of {model}, {total} GiB, {system}"
