"""The parent's side of `tests.crash.child`: commands on machines, some of which end in a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.crash.child import machine_to
from tests.crash.machine import Kill, Machine

ROOT = Path(__file__).parents[2]


class Forks:
    """One fork server. Used by one thread at a time; a context manager that ends it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.child"], cwd=ROOT, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)

    def _ask(self, machine: Machine, **request: Any) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"machine": machine_to(machine), **request}) + "\n")
        self._process.stdin.flush()
        return int(json.loads(self._process.stdout.readline())["status"])

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
