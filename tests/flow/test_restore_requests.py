"""A restore asks the store for what its plan says, also where files of several packs alternate, nothing cached."""

from __future__ import annotations

import shutil

from tests.flow.gateways import KIB, Gateway


def test_a_restore_asks_what_its_plan_says(gateway: Gateway) -> None:
    for number in range(60):
        gateway.source.noise(f"f{number:02}", 30 * KIB)
    gateway.made()
    for number in range(0, 60, 2):
        gateway.source.noise(f"f{number:02}", 30 * KIB)
    gateway.made()
    gateway.close()
    shutil.rmtree(gateway.config.state.directory / "cache")
    _, dry = gateway.restore(check=False, dry_run=True)
    assert dry.plan.fetch_bytes > 1000 * KIB
    gateway.close()
    before = gateway.store.meter()
    gateway.restore()
    asked = gateway.store.meter() - before
    assert asked.total.received < 1.2 * dry.plan.fetch_bytes + 200 * KIB
    assert asked.total.requests < dry.plan.requests + 60
