"""Where the passphrase comes from: a file, a command or the environment, never an argument."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from gateway.config.secret import Secret
from gateway.config.values import KeysConfig
from gateway.errors import UsageError

VARIABLE = "GATEWAY_PASSPHRASE"
LIMIT_BYTES = 4096
COMMAND_SECONDS = 120.0
"""LIMIT: long enough for a person at a PIN prompt or a slow secret store."""

_WAYS = f"Set keys.passphrase_file or keys.passphrase_command, or {VARIABLE} in the environment."


def read_passphrase(keys: KeysConfig, environment: Mapping[str, str]) -> Secret:
    """The passphrase, by the one way that is given.

    An empty variable counts as not set. One newline at the end of a file or of a command's output is not part
    of the passphrase. `UsageError`: no way, two ways, or a way that leads to nothing usable. Two are refused
    rather than ordered: a variable forgotten in a shell must not decide what seals a new repository.
    """
    from_environment = environment.get(VARIABLE, "")
    configured = "passphrase_file" if keys.passphrase_file else "passphrase_command" if keys.passphrase_command else ""
    if from_environment and configured:
        raise UsageError(
            f"There are two passphrases: {VARIABLE} is set, and the configuration has keys.{configured}.",
            meaning="The gateway does not guess which of them was meant.",
            advice=f"Unset {VARIABLE}, or remove keys.{configured}.",
        )
    if from_environment:
        return Secret(from_environment)
    if keys.passphrase_file:
        return _usable(_from_file(keys.passphrase_file), f"The passphrase file {keys.passphrase_file}")
    if keys.passphrase_command:
        program = keys.passphrase_command[0]
        return _usable(_from_command(keys.passphrase_command), f"The output of the passphrase command {program}")
    raise UsageError(
        "No passphrase is given.",
        meaning="The repository can be opened only with its passphrase or its recovery sheet.",
        advice=f"{_WAYS} With the recovery sheet at hand use --recovery-sheet FILE.",
    )


def _from_file(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(LIMIT_BYTES + 3)
    except OSError as error:
        raise UsageError(
            f"The passphrase file {file} cannot be read: {error.strerror or error}.",
            meaning="The repository cannot be opened without it.",
            advice="Check keys.passphrase_file, the file and its owner.",
        ) from error


def _from_command(command: tuple[str, ...]) -> bytes:
    # SECURITY: no shell; standard error stays the terminal's, so that a prompt is seen.
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=COMMAND_SECONDS, check=False
        )
    except OSError as error:
        raise UsageError(
            f"The passphrase command {command[0]} cannot be started: {error.strerror or error}.",
            meaning="The repository cannot be opened without it.",
            advice="Check keys.passphrase_command; its first word is a program, no shell is involved.",
        ) from error
    except subprocess.TimeoutExpired:
        # the exception would carry what the command has printed so far
        raise UsageError(
            f"The passphrase command {command[0]} did not end within {COMMAND_SECONDS:g} seconds.",
            meaning="The repository cannot be opened without it.",
            advice="Run it by hand to see what it waits for; it gets no standard input.",
        ) from None
    if done.returncode != 0:
        raise UsageError(
            f"The passphrase command {command[0]} failed with exit code {done.returncode}.",
            meaning="The repository cannot be opened without it.",
            advice="Run it by hand to see why.",
        )
    return done.stdout


def _usable(data: bytes, what: str) -> Secret:
    if data.endswith(b"\n"):
        data = data[:-2] if data.endswith(b"\r\n") else data[:-1]
    fault = ""
    if not data.strip():
        fault = "is empty"
    elif len(data) > LIMIT_BYTES:
        fault = f"is longer than {LIMIT_BYTES} bytes"
    else:
        try:
            return Secret(data.decode("utf-8"))
        except UnicodeDecodeError:
            fault = "is not UTF-8 text"  # SECURITY: the exception holds the bytes, so it is not chained
    raise UsageError(
        f"{what} {fault}.",
        meaning="This cannot be the passphrase of a repository.",
        advice="Put one line of text there.",
    )
