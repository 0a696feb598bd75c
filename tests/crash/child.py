"""The process that is killed. Run as a fork server: all is imported once, each command has a process of its own.

    python -m tests.crash.child

reads requests, one JSON object a line, and answers each with one: ``{"status": ...}``, as `os.waitpid` gives it. A
command that fails leaves its traceback in ``error`` below its machine; ``check`` leaves what it found in ``found``.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.catalog import database
from gateway.repository import repository
from tests.crash import checks
from tests.crash.machine import CHEAP, COMMANDS, Kill, Machine, watch

FAILED = 3


def prepare() -> None:
    """What makes these runs quick and nothing less: a kill leaves the pages of the system's cache alone."""
    database.SYNCHRONOUS = "OFF"
    repository.Argon2Cost = lambda: CHEAP  # type: ignore[assignment, misc]


def machine_to(machine: Machine) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(machine).items()}


def machine_of(values: dict[str, Any]) -> Machine:
    return Machine(**{**values, "root": Path(values["root"]), "spool": Path(values["spool"])})


def carry_out(request: dict[str, Any]) -> None:
    machine = machine_of(request["machine"])
    command, run = request["command"], request["run"]
    if command in COMMANDS:
        kill = Kill(**request["kill"]) if request.get("kill") else None
        trace = request.get("trace")
        if kill is not None or trace is not None:
            watch(Path(trace) if trace is not None else None, kill)
        COMMANDS[command](machine, run)
        return
    found = checks.CHECKS[command](machine, run, *request["arguments"])
    (machine.root / "found").write_text(json.dumps(found))


def serve() -> None:
    prepare()
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                carry_out(request)
            except BaseException:  # noqa: BLE001 - told to the parent, whatever it is
                Path(request["machine"]["root"], "error").write_text(traceback.format_exc())
                os._exit(FAILED)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(json.dumps({"status": status}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
