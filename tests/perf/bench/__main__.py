"""``scripts/bench``: measures the gateway beside its peers on this machine and prints tables."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import sys
from pathlib import Path

from tests.perf.bench import contenders, data, rounds, upload
from tests.perf.bench.report import Report

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- bench:begin (written by scripts/bench) -->", "<!-- bench:end -->"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of an hour at most; there is no longer one yet")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="size of the data sets; 1 is about 3 GB each, the tree a tenth of one"
    )
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
    if not options.quick:
        print("scripts/bench: only --quick exists", file=sys.stderr)
        return 2
    places = [Path(options.peers_path)] if options.peers_path else []
    names = [name for name in options.data.split(",") if name]
    unknown = set(names) - data.MAKERS.keys()
    if unknown:
        print(f"scripts/bench: no data set {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    options.work.mkdir(parents=True, exist_ok=True)
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


def write(text: str) -> None:
    """Replace what stands between the marks; the prose around it is written by people."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
