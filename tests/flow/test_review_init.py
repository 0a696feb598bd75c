"""Two who begin at one time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway import engine as engines
from gateway.config.values import Config, RepositoryConfig, StateConfig
from gateway.engine import Engine, open_engine
from gateway.errors import ObjectExists
from tests.flow.gateways import ENVIRONMENT, make_clock, make_store


def test_of_two_inits_at_one_time_one_wins_and_keeps_its_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = make_clock(b"two")
    store = make_store(clock)

    def machine(name: str, **options: Any) -> Engine:
        state = StateConfig(directory=tmp_path / name)
        config = Config(repository=RepositoryConfig(url="s3://bucket/gateway"), state=state)
        return open_engine(config, store=store, clock=clock, **{"environment": ENVIRONMENT, **options})

    first, second = machine("first"), machine("second")
    probe, sheets = engines.probe, []

    def meanwhile(*arguments: Any) -> Any:
        """The second has seen that there is no repository; now the first makes it."""
        if not sheets:
            sheets.append("")
            sheets[0] = first.init().recovery_sheet
        return probe(*arguments)

    monkeypatch.setattr(engines, "probe", meanwhile)
    with pytest.raises(ObjectExists):
        second.init()
    first.close()
    second.close()
    assert len([key for key in store.dump() if key.startswith("slots/")]) == 2
    for each in (machine("third"), machine("fourth", recovery_sheet=sheets[0], environment={})):
        assert not each.rebuild().problems
        each.close()
