"""A restore asks the store for what its plan says, also where files of several packs alternate, nothing cached."""

from __future__ import annotations

import shutil

from tests.flow.gateways import KIB, Gateway
from tests.flow.test_deltas import change_pages, write_pages


def require_as_planned(gateway: Gateway) -> int:
    """Restore without the cache, within what the plan says; bytes it planned to fetch."""
    gateway.close()
    shutil.rmtree(gateway.config.state.directory / "cache")
    _, dry = gateway.restore(check=False, dry_run=True)
    gateway.close()
    before = gateway.store.meter()
    gateway.restore()
    asked = gateway.store.meter() - before
    assert asked.total.received < 1.2 * dry.plan.fetch_bytes + 200 * KIB
    assert asked.total.requests < dry.plan.requests + 60
    return dry.plan.fetch_bytes


def test_a_restore_asks_what_its_plan_says(gateway: Gateway) -> None:
    for number in range(60):
        gateway.source.noise(f"f{number:02}", 30 * KIB)
    gateway.made()
    for number in range(0, 60, 2):
        gateway.source.noise(f"f{number:02}", 30 * KIB)
    gateway.made()
    assert require_as_planned(gateway) > 1000 * KIB


def test_deltas_on_deltas_are_asked_for_in_blocks(gateway: Gateway) -> None:
    """What a segment stands on lies in as many packs as there are generations; each is asked for once."""
    gateway.change(sizes={"segment_bytes": 16 * KIB, "pack_bytes": 1024 * KIB, "part_bytes": 256 * KIB})
    write_pages(gateway, "db", 1500)
    for number in range(1, 10):
        gateway.made()
        change_pages(gateway, "db", 0.1, number)
    gateway.made()
    require_as_planned(gateway)
    before = gateway.store.meter()
    assert not gateway.verify()
    asked = gateway.store.meter() - before
    assert asked.total.requests < 12 * len(gateway.keys("packs/"))
