"""What people get wrong, and a job that runs unwatched must not pass over."""

from __future__ import annotations

import pytest

from gateway.errors import UsageError
from tests.flow.gateways import Gateway


def test_a_source_that_became_empty_is_a_warning(gateway: Gateway) -> None:
    gateway.source.noise("file", 1000)
    gateway.made()
    gateway.source.path("file").unlink()
    assert gateway.ingest().generation is None
    assert "source.empty" in gateway.events.names()


def test_a_source_that_never_had_anything_is_none(gateway: Gateway) -> None:
    assert gateway.ingest().generation is None
    assert "source.empty" not in gateway.events.names()


def test_a_name_nobody_knows_is_a_slip(gateway: Gateway) -> None:
    gateway.source.noise("file", 1000)
    gateway.made()
    for ask in (gateway.engine.generations, gateway.engine.verify):
        with pytest.raises(UsageError, match="srx"):
            ask("srx")
        assert ask("src")
