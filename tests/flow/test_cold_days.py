"""Days on the simulated cold store; the whole year is `scripts/soak days`."""

from __future__ import annotations

import pytest

from tests.flow.cold_days import Days
from tests.flow.gateways import Gateway

DAYS = 30


@pytest.mark.timeout(900)
def test_days_of_a_gateway_whose_packs_go_cold(gateway: Gateway) -> None:
    days = Days(gateway, seed=4)
    days.run(DAYS)
    assert days.wrong == []
    assert days.restored >= DAYS
    assert days.thawed >= 3
    assert days.crashes >= DAYS
