"""The parent's side of `tests.crash.child`: commands on machines, some of which end in a kill."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from tests.crash.child import machine_to
from tests.crash.machine import Kill, Machine
from tests.servers.answering import Answering


class Forks(Answering):
    """One fork server."""

    def __init__(self) -> None:
        super().__init__("tests.crash.child")

    def _ask(self, machine: Machine, **request: Any) -> int:
        return int(self.ask({"machine": machine_to(machine), **request})["status"])

    def run(
        self, machine: Machine, command: str, run: int, *, kill: Kill | None = None, trace: Path | None = None
    ) -> bool:
        """Whether the command was killed. One that fails is an `AssertionError` with its traceback."""
        shape = {"moment": kill.moment, "name": kill.name, "occurrence": kill.occurrence} if kill else None
        status = self._ask(machine, command=command, run=run, kill=shape, trace=str(trace) if trace else None)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and kill is not None:
            return True
        assert status == 0, (machine.root / "error").read_text()
        return False

    def check(self, machine: Machine, check: str, run: int, *arguments: Any) -> Any:
        """What a function of `tests.crash.checks` finds."""
        status = self._ask(machine, command=check, run=run, arguments=arguments)
        assert status == 0, (machine.root / "error").read_text()
        return json.loads((machine.root / "found").read_text())
