"""Seal files are taken and answered, wherever that is cut off."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gateway import durable
from gateway.api import no_progress
from gateway.config.values import SourceKind
from gateway.jobs.alarms import Alarms
from gateway.jobs.keeper import Keeper
from tests.flow.gateways import Gateway

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
KILLED = 9


def place(gateway: Gateway) -> Path:
    own = gateway.source.root / ".gateway"
    own.mkdir(exist_ok=True)
    return own


def keeper(gateway: Gateway) -> Keeper:
    context = gateway.engine.hold()
    return Keeper(context, gateway.config.sources[0], Alarms(context.catalog, gateway.clock, context.log))


def answer(gateway: Gateway, run: str) -> Any:
    path = place(gateway) / f"answer-{run}.json"
    return json.loads(path.read_text()) if path.exists() else None


def test_a_seal_file_that_is_still_written_waits(gateway: Gateway) -> None:
    gateway.change(kind=SourceKind.JOB)
    gateway.source.write("a/x", b"x")
    one = keeper(gateway)
    file = place(gateway) / "seal-1.json"
    file.write_text('{"folder": "a"')
    one.seal_files.look()
    assert answer(gateway, "1") is None
    file.write_text('{"folder": "a"}')
    one.seal_files.look()
    assert answer(gateway, "1") is None
    one.seal_files.look()
    assert answer(gateway, "1")["state"] == "sealed"
    one.turn(no_progress)
    one.seal_files.look()
    assert answer(gateway, "1")["state"] == "protected"
    assert not file.exists()
    assert gateway.list() == [b"a", b"a/x"]


def test_taking_one_can_be_cut_off_anywhere(gateway: Gateway) -> None:
    """os._exit before and after every effect of taking, answering and removing; the run is made once all the same."""
    gateway.change(kind=SourceKind.JOB)
    for at in range(1, 100):
        run = f"run-{at}"
        gateway.source.write(f"{run}/x", run.encode())
        (place(gateway) / f"seal-{run}.json").write_text(json.dumps({"folder": run}))
        killed = _killed(gateway, at)
        gateway.open()
        one = keeper(gateway)
        for _ in range(3):
            one.seal_files.look()
            one.turn(no_progress)
        one.seal_files.look()
        assert answer(gateway, run)["state"] == "protected"
        assert not (place(gateway) / f"seal-{run}.json").exists()
        assert f"{run}/x".encode() in gateway.list()
        assert len(gateway.engine.generations("src")) == at
        if not killed:
            assert at > 4
            return
    raise AssertionError("it never came to its end")


def _killed(gateway: Gateway, at: int) -> bool:
    """Two looks in a process that ends at their effect number `at`. False: they have not so many."""
    gateway.close()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            left = at

            def hook(moment: str, name: str) -> None:
                nonlocal left
                if name.startswith("seal-") or name in ("catalog:job", "catalog:mark"):
                    left -= 1
                    if left == 0:
                        os._exit(KILLED)

            one = keeper(gateway)
            durable.install_hook(hook)
            one.seal_files.look()
            one.seal_files.look()
            # The generation of it would go to the store of this process: it counts as made elsewhere.
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, KILLED)
    return code == KILLED
