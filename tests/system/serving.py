"""`gateway serve` as a real process of a test."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from tests.servers.process import until
from tests.system.command import Gateway

SECONDS = 60.0


class Serving:
    """An engine from start to end; a context manager. `kill` and `start` may alternate."""

    def __init__(self, gateway: Gateway, *, words: Sequence[str] = ("serve",), **environment: str) -> None:
        self.gateway = gateway
        self._words = words
        self._environment = environment
        self._log = gateway.home / "engine.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, *, ready: bool = True) -> None:
        with self._log.open("ab") as out:
            self.process = subprocess.Popen(
                self.gateway.command(*self._words), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env={**self.gateway.environment, **self._environment}, cwd=self.gateway.home,
            )  # fmt: skip
        if ready:
            socket = self.gateway.state / "control.sock"
            until("the engine listens", socket.is_socket, seconds=SECONDS, alive=lambda: self.alive)
            self.until("it answers", lambda: self.status()["running"])

    def stop(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = 40) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def until(self, what: str, done: Callable[[], object], *, seconds: float = SECONDS) -> None:
        try:
            until(what, done, seconds=seconds, alive=lambda: self.alive)
        except Exception as error:
            raise AssertionError(f"{what}: {error}\n{self.log[-4000:]}") from error

    def status(self) -> Any:
        """Whatever its exit code: 3 says that an alarm is open."""
        done = self.gateway.run("--json", "status", code=(0, 3), seconds=SECONDS)
        return done.document

    def alarms(self) -> dict[str, str]:
        """Kind -> subject of what is open."""
        return {each["kind"]: each["subject"] for each in self.status()["alarms"]}

    def generations(self, source: str) -> list[Any]:
        found: list[Any] = self.gateway.json("generations", source)
        return found

    def protected(self, source: str) -> list[int]:
        return [each["number"] for each in self.generations(source) if each["state"] == "protected"]

    def files(self, source: str, generation: int | str = "latest") -> dict[str, Any]:
        listed = self.gateway.json("ls", f"{source}@{generation}")
        return {each["path"]: each for each in listed if each["type"] == "file"}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
