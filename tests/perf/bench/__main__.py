"""``scripts/bench``: measures the gateway beside its peers on this machine and prints tables."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import sys
from pathlib import Path

from tests.perf.bench import contenders, data, generations, install, nights, peers, rounds, series, tables, upload
from tests.perf.bench.report import Report, machine

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- bench:begin (written by scripts/bench) -->", "<!-- bench:end -->"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one generation each and the upload, in ten minutes")
    parser.add_argument("--set", metavar="NAME", choices=sorted({**series.KINDS, **nights.KINDS}),
                        help="generations of one data set, all peers; goes on where it was cut off: "
                        + ", ".join({**series.KINDS, **nights.KINDS}))  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="with --set: measure all anew")
    parser.add_argument("--only", default="", metavar="KINDS", help=f"with --set: of {','.join(peers.KINDS)}")
    parser.add_argument("--peers", action="store_true", help="install or build the peers that are missing")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the data sets")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", default="tiny,postgresql,random,tree", help="names of data sets; empty: none")
    parser.add_argument("--no-upload", action="store_true", help="leave the upload out")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/gateway-bench"), help="data sets are kept there")
    parser.add_argument("--peers-path", type=Path, default=os.environ.get("GATEWAY_BENCH_PEERS"),
                        help="a directory with programs of peers, beside PATH")  # fmt: skip
    parser.add_argument(
        "--quiet-seconds", type=float, default=2, help="how long to wait before a run for a quiet machine"
    )
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    places = [Path(options.peers_path)] if options.peers_path else []
    options.work.mkdir(parents=True, exist_ok=True)
    failed = install.install(options.work, places) if options.peers else []
    places.append(options.work / "peers" / "bin")
    if options.set:
        return compare_generations(options, places, failed)
    if options.quick:
        return quick(options, places)
    print("scripts/bench: --quick or --set NAME, please", file=sys.stderr)
    return 0 if options.peers and not failed else 2


def compare_generations(options: argparse.Namespace, places: list[Path], failed: list[str]) -> int:
    """Generations of one data set through every contender; a region of its own in the document."""
    if options.set in nights.KINDS:
        return compare_nights(options, places, failed)
    try:
        of = series.provide(options.set, options.work, options.scale)
    except data.Absent as reason:
        print(f"scripts/bench: {options.set}: {reason}", file=sys.stderr)
        return 2
    found, absent = peers.find(places, [kind for kind in options.only.split(",") if kind])
    kept = generations.Kept(options.work / "results" / f"{of.name}-{options.scale:g}.jsonl", fresh=options.fresh)
    results = generations.compare(
        of, found, options.work, kept, times=options.rounds, quiet_seconds=options.quiet_seconds
    )
    text = tables.text(of, results, [*absent, *failed], _facts(options))
    _show(options, text, tables.plot(of.name, results))
    return 1 if any(result.failed for result in results) else 0


def compare_nights(options: argparse.Namespace, places: list[Path], failed: list[str]) -> int:
    """Ninety generations, at defaults."""
    found, absent = peers.find(places, [kind for kind in options.only.split(",") if kind] or nights.PEERS)
    found = [each for each in found if each.style != peers.FINE and "," not in each.name]
    kept = generations.Kept(options.work / "results" / f"{options.set}-{options.scale:g}.jsonl", fresh=options.fresh)
    results = nights.compare(options.set, found, options.work, options.scale, kept)
    text = tables.of_nights(options.set, nights.KINDS[options.set][0], results, [*absent, *failed], _facts(options))
    _show(options, text, tables.plot(options.set, results))
    return 1 if any(result.failed for result in results) else 0


def _facts(options: argparse.Namespace) -> list[tuple[str, str]]:
    scale = f" --scale {options.scale:g}" if options.scale != 1 else ""
    only = f" --only {options.only}" if options.only else ""
    return [
        ("command", f"`scripts/bench --set {options.set}{scale}{only}`"),
        ("date", f"{dt.datetime.now(dt.UTC):%Y-%m-%d}"),
        ("machine", machine()),
    ]


def _show(options: argparse.Namespace, text: str, plot: str) -> None:
    print(text)
    if options.write:
        write(text, options.set)
        plots = DOCUMENT.parent / "benchmarks"
        plots.mkdir(exist_ok=True)
        (plots / f"{options.set}.svg").write_text(plot)


def quick(options: argparse.Namespace, places: list[Path]) -> int:
    names = [name for name in options.data.split(",") if name]
    unknown = set(names) - data.MAKERS.keys()
    if unknown:
        print(f"scripts/bench: no data set {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    found, absent = contenders.find(places)
    compared = []
    for name in names:
        try:
            made = data.provide(name, options.work, options.scale)
        except data.Absent as reason:
            absent.append(f"data set {name} ({reason})")
            continue
        compared.append((made, rounds.compare(made, found, options.work, options.rounds, options.quiet_seconds)))
    uploads = None
    if not options.no_upload:
        uploads = upload.compare(options.work, options.scale, options.rounds, places, options.quiet_seconds)
        if not uploads.rclone:
            absent.append("rclone")
    shown = f"scripts/bench --quick --scale {options.scale:g} --rounds {options.rounds}"
    report = Report(
        command=shown.replace(" --scale 1 ", " ").replace(" --rounds 3", ""),
        date=f"{dt.datetime.now(dt.UTC):%Y-%m-%d}", scale=options.scale, rounds=options.rounds, contenders=found,
        absent=absent, compared=compared, uploads=uploads,
    )  # fmt: skip
    text = report.text()
    print(text)
    if options.write:
        write(text)
    failed = [result.failed for _, results in compared for result in results if result.failed]
    failed += [way.failed for way in (uploads.ways if uploads else []) if way.failed]
    for each in failed:
        print(f"failed: {each}", file=sys.stderr)
    return 1 if failed else 0


def write(text: str, name: str = "") -> None:
    """Replace what stands between the marks, of a set or of --quick; the prose around it is written by people."""
    begin, end = (BEGIN, END) if not name else (f"<!-- {name}:begin -->", f"<!-- {name}:end -->")
    document = DOCUMENT.read_text()
    if begin not in document:
        document = f"{document.rstrip()}\n\n{begin}\n\n{end}\n"
    before, _, rest = document.partition(begin)
    after = rest.partition(end)[2]
    DOCUMENT.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")


if __name__ == "__main__":
    sys.exit(main())
