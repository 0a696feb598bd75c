"""The store's clock: whom it asks, and whom never."""

from __future__ import annotations

import pytest

from gateway.clock import SystemClock
from gateway.errors import UsageError
from gateway.store.clock import StoreClock, clock_for


def test_without_the_variable_it_is_the_systems() -> None:
    assert type(clock_for("http://127.0.0.1:9000", {})) is SystemClock
    assert type(clock_for(None, {"GATEWAY_CLOCK": ""})) is SystemClock


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000", "http://localhost:1", "http://[::1]:9000", "http://127.9.9.9"]
)
def test_this_machine_is_asked(url: str) -> None:
    assert type(clock_for(url, {"GATEWAY_CLOCK": "store"})) is StoreClock


@pytest.mark.parametrize(
    "url", [None, "", "https://127.0.0.1", "http://192.0.2.1", "http://localhost.example.com", "http://[2001:db8::1]"]
)
def test_nobody_else_is(url: str | None) -> None:
    with pytest.raises(UsageError, match="on this machine"):
        clock_for(url, {"GATEWAY_CLOCK": "store"})


def test_another_value_is_a_slip() -> None:
    with pytest.raises(UsageError, match="no clock"):
        clock_for("http://127.0.0.1:9000", {"GATEWAY_CLOCK": "1"})
