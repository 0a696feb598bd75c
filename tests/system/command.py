"""The command `gateway` as people run it: a process with a configuration file and an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers.seaweedfs import SeaweedFS
from tests.system.forked import forked

COMMAND_SECONDS = 120.0
PASSPHRASE = "ten green bottles hanging on the wall"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a command did; `told` is standard error, where all but data goes."""

    code: int
    data: str
    told: str

    @property
    def document(self) -> Any:
        return json.loads(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a repository is, and what one must know to get there."""

    url: str
    lines: tuple[str, ...] = ()
    """More lines of the table [repository]."""
    environment: Mapping[str, str] = field(default_factory=dict)


_FROM_A_TERMINAL = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def in_directory(path: Path) -> Place:
    return Place(url=f"file://{path}")


def in_bucket(server: SeaweedFS, bucket: str, prefix: str = "gateway") -> Place:
    return Place(
        url=f"s3://{bucket}/{prefix}",
        lines=(f'endpoint_url = "{server.endpoint}"', f'region = "{server.region}"', 'addressing_style = "path"'),
        environment={"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key},
    )


class Gateway:
    """One machine with a gateway: `home` has its configuration, its passphrase and its state directory."""

    def __init__(
        self,
        home: Path,
        place: Place,
        sources: Mapping[str, Path],
        *,
        settle: str = "1 s",
        passphrase: str = PASSPHRASE,
        more: Sequence[str] = (),
        real: bool = False,
    ) -> None:
        """`more`: further lines of the configuration, with their tables' heads. `real`: every command is a program
        started anew, its passphrase stretched as slowly as an operator's (else as `tests.system.forked` says).
        """
        self.home = home
        self.real = real
        self.state = home / "state"
        self.config = home / "gateway.toml"
        self.place = place
        home.mkdir(parents=True, exist_ok=True)
        secret = home / "passphrase"
        secret.touch(mode=0o600)
        secret.write_text(passphrase + "\n")
        lines = ["[repository]", f'url = "{place.url}"', *place.lines, "[state]", f'dir = "{self.state}"', "[keys]"]
        lines += [f'passphrase_file = "{secret}"', *more]
        for name, path in sources.items():
            lines += ["[[source]]", f'name = "{name}"', f'path = "{path}"', f'settle = "{settle}"', 'class = "hot"']
        self.config.write_text("\n".join(lines) + "\n")
        self.environment = {
            # Nothing of the developer's own AWS set-up may help or hinder.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "PATH": os.environ.get("PATH", os.defpath),
            **place.environment,
        }

    def command(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-m", "gateway", *self._words(*words)]

    def _words(self, *words: str | Path) -> list[str]:
        return ["--config", str(self.config), *map(str, words)]

    def run(
        self,
        *words: str | Path,
        code: int | tuple[int, ...] = 0,
        stdin: str | None = None,
        environment: Mapping[str, str] | None = None,
        seconds: float = COMMAND_SECONDS,
        before: Sequence[str] = (),
    ) -> Done:
        """Run to the end and expect an exit code, or one of some; `before`: words that go before the command (prlimit
        ...).
        """
        whole = {**self.environment, **(environment or {})}
        given = stdin if stdin is not None else ""
        if self.real or before or any(name.startswith(("LC_", "PYTHON")) for name in environment or {}):
            done = subprocess.run(
                [*before, *self.command(*words)],
                input=given,
                capture_output=True,
                text=True,
                timeout=seconds,
                env=whole,
                cwd=self.home,
                check=False,
            )
        else:
            done = forked().run(self._words(*words), given=given, timeout=seconds, env=whole, cwd=self.home)
        said = f"gateway {' '.join(map(str, words))}: exit {done.returncode}, not {code}\n{done.stdout}{done.stderr}"
        assert done.returncode in (code if isinstance(code, tuple) else (code,)), said
        assert "Traceback" not in done.stderr, said
        return Done(code=done.returncode, data=done.stdout, told=done.stderr)

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Run beside us, as from a terminal: where we were started with SIGINT ignored (in the background of a script),
        a child would ignore it, too. As a context manager it is waited for.
        """
        return subprocess.Popen(
            [sys.executable, "-c", _FROM_A_TERMINAL, *self.command(*words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=self.home,
            restore_signals=True,
            start_new_session=True,
        )

    def json(self, *words: str | Path, code: int = 0) -> Any:
        return self.run("--json", *words, code=code).document

    def init(self) -> Path:
        """Create the repository; the file with the recovery sheet."""
        sheet = self.home / "sheet.txt"
        sheet.write_text(self.run("init").data)
        return sheet

    def lose_state(self) -> None:
        """What a lost machine takes with it; configuration and sheet are kept elsewhere."""
        shutil.rmtree(self.state)


def end(process: subprocess.Popen[str], number: signal.Signals, *, seconds: float = 30) -> Done:
    """Send a signal to a process that `start` started, and wait for its end."""
    process.send_signal(number)
    data, told = process.communicate(timeout=seconds)
    return Done(code=process.returncode, data=data, told=told)
