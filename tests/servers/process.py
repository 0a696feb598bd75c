"""What every server here needs: free ports, a bounded wait, a child that does not outlive us."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class ServerError(RuntimeError):
    """A server of the tests did not do what it must; the message ends with the tail of its log."""


def free_ports(count: int, *, partner: int = 0) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on; with `partner`, port + partner is free too.

    They come from below the kernel's range for outgoing connections, so that none of these takes a port while
    its server is down between a kill and a restart; nor does another worker of pytest-xdist: each has a part of the
    range to itself.
    """
    chosen: list[int] = []
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % workers
    ports = range(20000, 22768)[worker::workers]
    for port in random.SystemRandom().sample(ports, len(ports)):
        with contextlib.ExitStack() as stack:
            try:
                for number in {port, port + partner}:
                    probe = stack.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", number))
            except OSError:
                continue
        chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise ServerError(f"{count} free ports on 127.0.0.1 not found")


def until(what: str, done: Callable[[], object], *, seconds: float, alive: Callable[[], bool] | None = None) -> None:
    """Wait until `done()` is true; `ServerError` after `seconds`, or at once when `alive()` turns false."""
    deadline = time.monotonic() + seconds
    while not done():
        if alive is not None and not alive():
            raise ServerError(f"the process ended while waiting: {what}")
        if time.monotonic() > deadline:
            raise ServerError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)


def accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def tail(log: Path, size: int = 3000) -> str:
    return log.read_bytes()[-size:].decode(errors="replace") if log.exists() else ""


def privileges(user: str | None, *options: str) -> list[str]:
    """The words before a command that runs it as `user` (None: as we are), by setpriv of util-linux."""
    if shutil.which("setpriv") is None:
        raise ServerError("setpriv (util-linux) is missing")
    if user is not None:
        entry = pwd.getpwnam(user)
        options = (f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", *options)
    return ["setpriv", *options, "--"]


class Child:
    """A server process with its output in a log file. It dies with the thread that started it."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        cwd: Path,
        env: Mapping[str, str],
        user: str | None = None,
    ) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*privileges(user, "--pdeathsig=KILL"), *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=dict(env),
                start_new_session=True,  # Ctrl-C reaches the tests, which then stop their servers in order
            )
        self.log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def children(self) -> list[int]:
        """Process ids of its direct children; none when it has ended."""
        try:
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        except FileNotFoundError:
            return []

    def send(self, number: signal.Signals) -> None:
        if self.alive():
            os.kill(self._process.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = 15) -> None:
        """Ask with `number`, then SIGKILL after `seconds`. Idempotent."""
        self.send(number)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self._process.wait(seconds)
