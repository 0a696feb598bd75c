"""Results of a set of generations as markdown, with what was wanted of them, and the plot of stored bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import log10

from tests.perf.bench.contenders import OURS
from tests.perf.bench.generations import Result
from tests.perf.bench.measure import Summary
from tests.perf.bench.peers import DEFAULTS, FINE, YARDSTICK
from tests.perf.bench.report import MIB, spread
from tests.perf.bench.series import Series

COLUMNS = (
    "first MB/s", "CPU s/GB", "stored MB", "later MB/s", "CPU s/GB", "stored MB, all later", "restore MB/s", "CPU s/GB",
    "RSS MiB", "",
)  # fmt: skip
Target = tuple[str, str, str, bool]
DEDUPLICATING = ("restic", "rustic", "borg")


def text(of: Series, results: Sequence[Result], absent: Sequence[str], facts: Sequence[tuple[str, str]]) -> str:
    """All that is said of one set."""
    good = [result for result in results if not result.failed]
    lines = [f"### {of.name}", "", f"{of.title}. {len(of.generations)} generations.", ""]
    lines += ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts)]
    if absent:
        lines.append(f"| not here, so not measured | {', '.join(absent)} |")
    rows = list(_targets(of, good))
    if rows:
        lines += ["", "| target | wanted | reached | met |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {what} | {wanted} | {reached} | {'yes' if met else 'no'} |" for what, wanted, reached, met in rows
        ]
    lines += [
        "",
        f"| | {' | '.join(COLUMNS)} |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *map(_row, results),
        "",
        f"![stored bytes of each generation](benchmarks/{of.name}.svg)",
    ]
    return "\n".join(lines) + "\n"


def of_nights(
    name: str, title: str, results: Sequence[Result], absent: Sequence[str], facts: Sequence[tuple[str, str]]
) -> str:
    """Ninety generations: totals, and the largest night."""
    good = {result.name: result for result in results if not result.failed}
    ours, peers = good.get(OURS), [result for key, result in good.items() if key != OURS]
    lines = [f"### {name}", "", f"{title}. {max(len(each.stored) for each in results)} generations.", ""]
    lines += ["| | |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in facts)]
    if absent:
        lines.append(f"| not here, so not measured | {', '.join(absent)} |")
    if ours is not None and peers:
        best = min(peers, key=_all_bytes)
        rows = (
            [
                _at_most("stored in all, against the best", ours, [best], 1 / 8, _all_bytes),
                ("largest night after the first, of the first", "<= 0.1", *_met(_largest(ours) / ours.stored[0], 0.1)),
            ]
            if "database" in name
            else [_at_most("stored in all, against the best", ours, [best], 1.1, _all_bytes)]
        )
        lines += ["", "| target | wanted | reached | met |", "| --- | --- | --- | --- |"]
        lines += [f"| {' | '.join(cells)} | {'yes' if met else 'no'} |" for *cells, met in rows]
    lines += ["", "| | first, MB | all later, MB | in all, MB | largest night after the first, MB |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for each in results:
        if each.failed:
            lines.append(f"| {each.name} | failed: {each.failed.splitlines()[0]:.100} | | | |")
            continue
        cells = [f"{size / 1e6:.2f}" for size in (each.stored[0], _later_bytes(each), _all_bytes(each), _largest(each))]
        lines.append(f"| {each.name} ({each.version}) | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"![stored bytes of each night](benchmarks/{name}.svg)"]) + "\n"


def _largest(result: Result) -> int:
    return max(result.stored[1:])


def _all_bytes(result: Result) -> int:
    return sum(result.stored)


def _row(result: Result) -> str:
    name = f"{result.name} ({result.version})"
    if result.failed:
        return f"| {name} | failed: {result.failed.splitlines()[0]:.100} |" + " |" * 9
    first, later, restore = result.first, result.later, result.restore
    cells = (
        name, spread(first), f"{first.cpu:.2f}", f"{result.stored[0] / 1e6:.1f}", spread(later), f"{later.cpu:.2f}",
        f"{sum(result.stored[1:]) / 1e6:.2f}", spread(restore), f"{restore.cpu:.2f}", f"{result.rss / MIB:.0f}",
        result.note,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


# --- targets ---------------------------------------------------------------------------------------------------------


def _targets(of: Series, results: Sequence[Result]) -> Iterator[Target]:
    ours = next((result for result in results if result.name == OURS), None)
    peers = [result for result in results if result.name != OURS and result.style != YARDSTICK]
    if ours is None or not peers:
        return
    if of.paged:
        yield from _stored(ours, peers)
    least = min(peers, key=_later_bytes)
    yield _at_most("stored, all later generations, against the best peer", ours, [least], 1.05, _later_bytes)
    same = [peer for peer in peers if peer.name.startswith(DEDUPLICATING)]
    if of.reducible and same:
        fastest = max(same, key=lambda peer: peer.first.speed)
        yield _speed("first generation: MB/s", ours.first, [(peer.name, peer.first) for peer in same], 1.8)
        yield _at_most(f"first generation: stored, against the fastest, {fastest.name}", ours, [fastest], 1.05, _first)
        cpu = min(peer.first.cpu for peer in same)
        yield "first generation: CPU s/GB against the least", "<= 0.8", *_met(ours.first.cpu / cpu, 0.8)
    elif not of.reducible:
        yield "first generation: CPU s/GB", "< 2", *_met(ours.first.cpu, 2.0)
    second = ours.one_core / ours.first.wall
    yield "first generation: what a second core brings", ">= 1.7", f"{second:.2f}", second >= 1.7
    yield _speed("later generations: MB/s", ours.later, [(peer.name, peer.later) for peer in peers], 1.3)
    fine = [peer for peer in peers if peer.style == FINE]
    if fine:
        yield _speed("later generations: MB/s, peers with 16 KiB", ours.later, [(p.name, p.later) for p in fine], 3)
    if same:
        yield _speed("restore of the newest: MB/s", ours.restore, [(peer.name, peer.restore) for peer in same], 1.5)
    yield "peak RSS, MiB", "< 512", f"{ours.rss / MIB:.0f}", ours.rss < 512 * MIB


def _stored(ours: Result, peers: Sequence[Result]) -> Iterator[Target]:
    what = "stored, all later generations, against"
    plain = [peer for peer in peers if peer.style == DEFAULTS]
    for name in DEDUPLICATING:
        mine = [peer for peer in plain if peer.name.startswith(name) and "," not in peer.name]
        if mine:
            yield _at_most(f"{what} {name} at its defaults", ours, mine, 1 / 20, _later_bytes)
    fine = [peer for peer in peers if peer.style == FINE]
    if fine:
        yield _at_most(f"{what} the best at 16 KiB", ours, fine, 1 / 8, _later_bytes)
    others = [peer for peer in peers if peer.name in ("duplicity", "bup")]
    if others:
        yield _at_most(f"{what} duplicity and bup", ours, others, 1 / 4, _later_bytes)
    part = ours.bounded / ours.new_chunks if ours.new_chunks else 0.0
    yield "new chunks left plain because of bounds", "< 1 %", f"{part:.2%}", part < 0.01


def _later_bytes(result: Result) -> int:
    return sum(result.stored[1:])


def _first(result: Result) -> int:
    return result.stored[0]


def _at_most(what: str, ours: Result, peers: Sequence[Result], part: float, of: object) -> Target:
    assert callable(of)
    best = min(peers, key=of)
    reached = of(ours) / max(1, of(best))
    wanted = f"<= 1/{1 / part:.0f}" if part < 1 else f"<= {part:g}"
    shown = f"1/{1 / reached:.1f}" if 0 < reached < 0.5 else f"{reached:.2f}"
    return what, wanted, f"{shown} ({best.name})", reached <= part


def _speed(what: str, ours: Summary, peers: Sequence[tuple[str, Summary]], wanted: float) -> Target:
    name, best = max(peers, key=lambda peer: peer[1].speed)
    reached = ours.speed / best.speed
    return what, f">= {wanted:g}", f"{reached:.2f} ({name})", reached >= wanted


def _met(reached: float, most: float) -> tuple[str, bool]:
    return f"{reached:.2f}", reached <= most


# --- the plot --------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, LEGEND = 860, 420, 70, 30, 40, 250
COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f", "#bcbd22", "#e377c2")


def plot(name: str, results: Sequence[Result]) -> str:
    """Stored bytes of each generation, on a logarithmic scale: a line a contender."""
    good = [result for result in results if not result.failed]
    values = [max(1, each) for result in good for each in result.stored] or [1]
    low, high = int(log10(min(values))), int(log10(max(values))) + 1
    count = max((len(result.stored) for result in good), default=1)
    right, bottom = WIDTH - LEGEND, HEIGHT - BOTTOM

    def x(number: int) -> float:
        return LEFT + (right - LEFT) * number / max(1, count - 1)

    def y(value: int) -> float:
        return bottom - (bottom - TOP) * (log10(max(1, value)) - low) / (high - low)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="18" font-size="14">{escape(name)}: bytes stored for each generation</text>',
    ]
    for power in range(low, high + 1):
        at = y(10**power)
        out.append(f'<line x1="{LEFT}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}" stroke="#dddddd"/>')
        out.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_bytes(10**power)}</text>')
    step = max(1, count // 12)
    out += [
        f'<text x="{x(number):.1f}" y="{bottom + 18}" text-anchor="middle">{number + 1}</text>'
        for number in range(0, count, step)
    ]
    for number, result in enumerate(good):
        colour, ours = COLOURS[number % len(COLOURS)], result.name == OURS
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in enumerate(result.stored))
        dashes = ' stroke-dasharray="5 3"' if number >= len(COLOURS) else ""
        out.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{3 if ours else 1.5}"{dashes}/>'
        )
        at = TOP + 18 * number
        out.append(
            f'<line x1="{right + 15}" y1="{at}" x2="{right + 40}" y2="{at}" stroke="{colour}" '
            f'stroke-width="{3 if ours else 1.5}"{dashes}/>'
        )
        out.append(f'<text x="{right + 46}" y="{at + 4}">{escape(result.name)}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def _bytes(value: int) -> str:
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if value >= 10**power:
            return f"{value // 10**power} {unit}"
    return f"{value} B"
