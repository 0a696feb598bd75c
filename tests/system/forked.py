"""Commands in processes of their own that need not import everything first.

Most of a small command is the import of libraries, and the rest of it the passphrase, stretched on purpose slowly. Here
one server has imported all and forks for each command; the child gets the words, the environment, the directory and the
three streams that `subprocess.run` would give it, and from there on is the command line as it is, to the end of its
interpreter. `init` makes slots that are stretched cheaply; whoever opens them does what they say.

What depends on how the interpreter is started (Python's own variables, limits, signals at its first steps) needs the
real thing: `tests.system.command.Gateway(real=True)`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.cli import main
from gateway.format.keys import Argon2Cost
from gateway.repository import repository

ROOT = Path(__file__).parents[2]
LONGEST_REQUEST = 128 * 1024


class Forked:
    """The server's client. Thread-safe: commands run beside each other."""

    def __init__(self) -> None:
        self._door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.system.forked", str(theirs.fileno())],
                cwd=ROOT, pass_fds=[theirs.fileno()], env={**os.environ, "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip

    def close(self) -> None:
        self._door.close()
        self._process.wait(60)

    def run(
        self,
        words: Sequence[str],
        *,
        given: str,
        timeout: float,
        env: Mapping[str, str],
        cwd: Path,
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run`, its output captured as text; `given` on standard input."""
        request = json.dumps({"words": list(words), "env": dict(env), "cwd": str(cwd)}).encode()
        assert len(request) < LONGEST_REQUEST
        with contextlib.ExitStack() as stack:
            stdin, out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
            stdin.write(given.encode())
            stdin.seek(0)
            reader, writer = os.pipe()
            answers = stack.enter_context(os.fdopen(reader, "rb", buffering=0))
            try:
                socket.send_fds(self._door, [request], [stdin.fileno(), out.fileno(), err.fileno(), writer])
            finally:
                os.close(writer)
            status = self._wait(answers, words, timeout)
            said = []
            for stream in (out, err):
                stream.seek(0)
                said.append(stream.read().decode())
        return subprocess.CompletedProcess(list(words), os.waitstatus_to_exitcode(status), *said)

    def _wait(self, answers: Any, words: Sequence[str], timeout: float) -> int:
        """The command's status, as `os.waitpid` gives it; one that takes too long is killed."""
        deadline = time.monotonic() + timeout
        answer = b""
        while True:
            if not select.select([answers], [], [], max(0.0, deadline - time.monotonic()))[0]:
                with contextlib.suppress(ProcessLookupError, IndexError):
                    os.kill(int(answer.split()[0]), signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(words), timeout)
            piece = answers.read(100)
            if not piece:
                pid_and_status = answer.split()
                assert len(pid_and_status) == 2, "the server of commands is gone"
                return int(pid_and_status[1])
            answer += piece


@functools.cache
def forked() -> Forked:
    """One for this process, started when it is first asked for."""
    made = Forked()
    atexit.register(made.close)
    return made


# --- the server ------------------------------------------------------------------------------------------------------


def _serve(door: socket.socket) -> list[str] | None:
    """None at the end of the server. In a command's process: its words, when all is as it would be at its start."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks for the status of those who wait
    while True:
        message, files, _, _ = socket.recv_fds(door, LONGEST_REQUEST, 4)
        if not message:
            return None
        if os.fork():
            for file in files:
                os.close(file)
            continue
        door.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        *streams, answers = files
        pid = os.fork()
        if pid:
            for stream in streams:
                os.close(stream)
            os.write(answers, b"%d\n" % pid)
            os.write(answers, b"%d\n" % os.waitpid(pid, 0)[1])
            os._exit(0)
        os.close(answers)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        request = json.loads(message)
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        words: list[str] = request["words"]
        return words


def _main() -> int:
    for name in ("control.client", "engine", "store.directory", "store.s3"):
        importlib.import_module(f"gateway.{name}")
    repository.Argon2Cost = lambda: Argon2Cost(memory_kib=64, iterations=1, lanes=1)  # type: ignore[assignment, misc]
    words = _serve(socket.socket(fileno=int(sys.argv[1])))
    if words is None:
        return 0
    sys.argv = ["gateway", *words]
    return main(words)


if __name__ == "__main__":
    sys.exit(_main())
