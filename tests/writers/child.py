"""A writer in a process of its own, so that it can be killed; and the process itself.

Commands are pickles on its standard input, answers on its standard output: it does nothing by itself, so when it is
killed, it is killed exactly there.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.servers.process import until
from tests.servers.samba import Address
from tests.writers.hands import Hands, LocalHands
from tests.writers.plan import How

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
CAUGHT_SECONDS = 0.002
"""How long a killed writer had for the write it was at. Short, so that most die in the middle of it."""


class RemoteHands:
    """`Hands` in another process: on a directory, or over SMB where an address is given."""

    def __init__(self, where: Path | Address) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.writers.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        self._send("begin", where)
        self._begun = False

    def ready(self) -> None:
        """Wait until it is; many can so be started at once. Implied by the first command."""
        if not self._begun:
            self._begun = True
            self._receive("begin")

    @property
    def pid(self) -> int:
        return self._process.pid

    def _send(self, *command: object) -> None:
        pickle.dump(command, self._to)
        self._to.flush()

    def _ask(self, *command: object) -> None:
        self.ready()
        self._send(*command)
        self._receive(command[0])

    def _receive(self, name: object) -> None:
        answer = pickle.load(self._from)
        if answer is not None:
            raise OSError(f"{name}: {answer}")

    def make_directory(self, path: str) -> None:
        self._ask("make_directory", path)

    def open(self, path: str, how: How, size: int = 0) -> None:
        self._ask("open", path, how, size)

    def set_end(self, size: int) -> None:
        self._ask("set_end", size)

    def write(self, offset: int, data: bytes) -> None:
        self._ask("write", offset, data)

    def backdate(self) -> None:
        self._ask("backdate")

    def close(self) -> None:
        self._ask("close")

    def rename(self, path: str, to: str) -> None:
        self._ask("rename", path, to)

    def delete(self, path: str) -> None:
        self._ask("delete", path)

    def kill(self, offset: int, data: bytes) -> None:
        """SIGKILL; where there is data, in the middle of writing it, or shortly before or after."""
        self.ready()
        if data:
            self._send("write", offset, data)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CAUGHT_SECONDS)
        self._process.kill()
        self._finish()

    def stop(self) -> None:
        """SIGSTOP: a client that hangs, its connection and its file open."""
        self._process.send_signal(signal.SIGSTOP)
        state = Path(f"/proc/{self.pid}/stat")
        until("the writer stands still", lambda: ") T " in state.read_text(), seconds=SECONDS)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            with contextlib.suppress(BrokenPipeError):
                self._to.close()
            try:
                self._process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._finish()

    def _finish(self) -> None:
        self._process.wait(SECONDS)
        for each in (self._to, self._from):
            with contextlib.suppress(BrokenPipeError):
                each.close()


def _begin(where: Path | Address) -> Hands:
    if isinstance(where, Path):
        return LocalHands(where)
    from tests.writers.smb import SmbHands  # half a second of imports that a local writer does not need

    return SmbHands(where)


def main() -> None:
    hands: Hands | None = None
    answers = sys.stdout.buffer
    while True:
        try:
            name, *arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        answer: str | None = None
        try:
            if hands is None:
                hands = _begin(*arguments)
            else:
                do: Callable[..., None] = getattr(hands, name)
                do(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test must be told
            answer = f"{type(error).__name__}: {error}"
        pickle.dump(answer, answers)
        answers.flush()
    if hands is not None:
        hands.end()


if __name__ == "__main__":
    main()
