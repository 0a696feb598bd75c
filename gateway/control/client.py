"""`RemoteGateway`: the api of an engine that runs, through its socket."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from gateway.api import GatewayApi, Progress, ProgressCallback, no_progress
from gateway.control import wire
from gateway.control.server import short_path
from gateway.errors import GatewayError, LocalStateError

CONNECT_SECONDS = 10.0


def connected(path: Path) -> GatewayApi | None:
    """The engine that listens at `path`; None where nobody does, so that the caller works by itself."""
    if not path.is_socket():
        return None
    probe = _Connection(path)
    try:
        probe.connect()
    except (ConnectionRefusedError, FileNotFoundError):
        return None
    except PermissionError as error:
        raise LocalStateError(
            f"An engine runs, but its socket {path} may not be used: {error.strerror}.",
            meaning="Nothing was done.",
            advice="Run the command as root, or have the user named in engine.users.",
        ) from error
    finally:
        probe.close()
    return cast(GatewayApi, RemoteGateway(path))


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("gateway")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(CONNECT_SECONDS)
        with short_path(self._path) as short:
            self.sock.connect(short)
        self.sock.settimeout(None)  # a call takes as long as it takes


class RemoteGateway:
    """Has every method of `GatewayApi`; what they promise, they promise here, too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._calls = wire.calls()

    def __getattr__(self, name: str) -> Any:
        call = self._calls.get(name)
        if call is None:
            raise AttributeError(name)

        def method(*values: object, progress: ProgressCallback = no_progress, **named: object) -> Any:
            arguments = dict(zip(call.positional, values, strict=False)) | named
            lines = self._lines(call, arguments, progress)
            if call.iterates:
                return lines
            return next(lines)

        return method

    def close(self) -> None:
        """Nothing is kept open between calls."""

    def _lines(self, call: wire.Call, arguments: dict[str, object], progress: ProgressCallback) -> Iterator[Any]:
        connection = _Connection(self._path)
        try:
            body = wire.encode({key: _absolute(value) for key, value in arguments.items()})
            connection.request("POST", wire.PREFIX + call.name, body)
            answer = connection.getresponse()
            while line := answer.readline():
                fields = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
                if "progress" in fields:
                    progress(wire.decode(bytes(fields["progress"]), Progress))
                elif "item" in fields:
                    yield wire.decode(bytes(fields["item"]), call.result)
                elif "result" in fields:
                    yield wire.decode(bytes(fields["result"]), call.result)
                    return
                elif "error" in fields:
                    raise wire.as_error(wire.decode(bytes(fields["error"]), wire.ErrorDocument))
                else:
                    return
        except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
            raise _cut_off(error) from error
        finally:
            connection.close()
        raise _cut_off(None)


def _absolute(value: object) -> object:
    """Paths are ours, and the engine's directory is another."""
    if isinstance(value, Path):
        return Path(os.path.abspath(value))
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else value


def _cut_off(error: Exception | None) -> GatewayError:
    return LocalStateError(
        f"The engine's answer was cut off{f': {error}' if error else ''}.",
        meaning="The engine may have ended. What it had under way goes on when it starts again.",
        advice="Look at the engine's log (`journalctl -u gateway`), then at `gateway status`.",
    )
