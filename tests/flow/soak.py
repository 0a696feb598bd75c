"""The whole of what CI does a share of: days on the simulated cold store, and kills of restores that wait for thaws.

Run by ``scripts/soak``; one line for each call, also appended to docs/soak.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from gateway.catalog import Catalog
from gateway.config.values import Config, RepositoryConfig, StateConfig
from gateway.engine import CAPABILITIES, REPOSITORY, open_engine
from gateway.jobs import restores
from tests.flow import test_restore_kills as kills
from tests.flow.cold_days import Days
from tests.flow.cold_restores import Machine, freeze
from tests.flow.conftest import in_memory
from tests.flow.gateways import ENVIRONMENT, KIB, Born, Gateway, make_clock, make_store

RESULTS = Path(__file__).parents[2] / "docs" / "soak.md"
DAYS = 400
LONGEST_MINUTES = 60


@contextmanager
def machine() -> Iterator[Gateway]:
    with in_memory() as root:
        clock = make_clock(b"born")
        store = make_store(clock)
        config = Config(
            repository=RepositoryConfig(url="s3://bucket/gateway"), state=StateConfig(directory=root / "born")
        )
        engine = open_engine(config, store=store, clock=clock, environment=ENVIRONMENT)
        sheet = engine.init().recovery_sheet
        engine.close()
        with Catalog(root / "born" / "catalog.sqlite", read_only=True) as catalog:
            meta = {key: catalog.meta(key) or "" for key in (REPOSITORY, CAPABILITIES)}
        (root / "machine").mkdir()
        gateway = Gateway(root / "machine", Born(store.dump(), sheet, meta))
        try:
            yield gateway
        finally:
            gateway.close()


def run_days(seed: int, minutes: float) -> tuple[str, list[str]]:
    """So many days as fit, of 400."""
    began = time.monotonic()
    with machine() as gateway:
        days = Days(gateway, seed=seed)
        days.run(DAYS, lambda: time.monotonic() - began < minutes * 60)
        share = (
            f"{days.day} of {DAYS} days; {days.restored} restores, {days.thawed} with thaws; {days.crashes} kills; "
            f"billed {days.metered():.4f}, ledger {days.spent:.4f} USD, and {days.shaken:.4f} where somebody died"
        )
        return share, days.wrong


def run_kills(seed: int, minutes: float) -> tuple[str, list[str]]:
    """Every occurrence of every effect and store call, of one wave and of two."""
    del seed
    began, count, total = time.monotonic(), 0, 0
    wrong: list[str] = []
    for link in (1 << 40, 300 * KIB // (8 * 3600)):
        with machine() as gateway:
            freeze(gateway, link=link)

            def in_time(found: list[kills.Kill]) -> Iterator[kills.Kill]:
                nonlocal count, total
                total += len(found)
                for each in found:
                    if time.monotonic() - began > minutes * 60:
                        return
                    count += 1
                    yield each

            wrong += kills.attack(Machine(gateway, tier="standard"), in_time)[0]
    return f"{count} of {total}", wrong


SUITES = {"days": run_days, "restore-kills": run_kills}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("suite", choices=list(SUITES))
    parser.add_argument("--minutes", type=float, default=LONGEST_MINUTES)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    restores.WAITED_SECONDS = 600.0
    began = time.monotonic()
    share, wrong = SUITES[given.suite](given.seed, min(given.minutes, LONGEST_MINUTES))
    sys.stderr.write("".join(f"{given.suite}: {each}\n" for each in wrong))
    spent = (time.monotonic() - began) / 60
    line = f"| {datetime.now(UTC):%Y-%m-%d} | {given.suite} | {given.seed} | {share} | {len(wrong)} | {spent:.1f} |\n"
    sys.stdout.write(line)
    with RESULTS.open("a") as results:
        results.write(line)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
