"""The door's server: HTTP on a unix socket, one thread a connection, answers as lines of JSON while they come.

SECURITY: who may connect is decided by the kernel's word for the peer's user (SO_PEERCRED), not by the socket's mode
alone. Root and the engine's own user may do everything. Users named in `engine.users` may do what producers and people
who look need; restores write wherever the engine may, so they are not among it.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import pwd
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from gateway import durable
from gateway.api import Progress, ProgressCallback
from gateway.clock import Clock
from gateway.control import wire
from gateway.errors import GatewayError, LocalStateError, LockHeld
from gateway.log import Log

LIMIT_REQUEST_BYTES = 256 * 1024 * 1024
"""LIMIT: a seal call that lists a million files."""
LIMIT_CONNECTIONS = 64
PROGRESS_SECONDS = 0.2
IDLE_SECONDS = 600.0
_CREDENTIALS = struct.Struct("3i")

FOR_USERS = frozenset(
    {"alarms", "barrier", "begin", "chains", "diff", "fail", "generations", "job", "jobs", "list_files", "seal", "show",
     "status", "version"}
)  # fmt: skip
"""Calls that users named in the configuration may make."""


class Serves(Protocol):
    """Who carries out calls. Called from many threads."""

    def call(self, name: str, arguments: dict[str, Any], operator: str, progress: ProgressCallback) -> Any:
        """The result of a method of `GatewayApi`, or an iterable of items where it gives them one by one."""


class ControlServer:
    """Listens until it is closed."""

    def __init__(self, path: Path, users: tuple[str, ...], serves: Serves, clock: Clock, log: Log) -> None:
        """`LockHeld`: another engine answers there. `LocalStateError`: the socket cannot be made."""
        self._path = path
        allowed = frozenset(uid for uid in map(_uid, users) if uid is not None)

        class Handler(_Handler):
            pass

        Handler.serves, Handler.allowed, Handler.clock, Handler.log_to = serves, allowed, clock, log
        _remove_stale(path)
        try:
            with _short(path) as short:
                self._server = _Server(short, Handler)
            os.chmod(path, 0o666 if users else 0o600)
        except OSError as error:
            raise LocalStateError(
                f"The engine cannot listen at {path}: {error.strerror or error}.",
                meaning="Nothing was started.",
                advice="Check the directory's permissions, or set engine.socket.",
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="door", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """No new calls; those under way end with the process."""
        self._server.shutdown()
        self._server.server_close()
        with contextlib.suppress(OSError):
            durable.remove("socket", self._path)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = LIMIT_CONNECTIONS

    def __init__(self, address: str, handler: type[_Handler]) -> None:
        self._free = threading.BoundedSemaphore(LIMIT_CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(timeout=IDLE_SECONDS):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no event."""


class _Handler(http.server.BaseHTTPRequestHandler):
    serves: Serves
    allowed: frozenset[int]
    clock: Clock
    log_to: Log
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    server_version, sys_version = "gateway", ""

    def do_POST(self) -> None:
        call = wire.calls().get(self.path.removeprefix(wire.PREFIX))
        length = self.headers.get("Content-Length", "")
        if call is None or not self.path.startswith(wire.PREFIX):
            self._refuse(404, "There is no such call.")
            return
        if not length.isdigit() or int(length) > LIMIT_REQUEST_BYTES:
            self._refuse(413, "The request has no length, or a too large one.")
            return
        uid, operator = self._peer()
        if uid not in (0, os.geteuid()) and not (uid in self.allowed and call.name in FOR_USERS):
            self._refuse(403, f"{operator} may not call {call.name}; engine.users names who may ask and seal.")
            return
        try:
            given = msgspec.json.decode(self.rfile.read(int(length)), type=dict[str, msgspec.Raw])
            arguments = {key: wire.decode(bytes(value), call.arguments[key]) for key, value in given.items()}
        except (msgspec.MsgspecError, KeyError, ValueError) as error:
            self._refuse(400, f"The arguments of {call.name} cannot be understood: {error}.")
            return
        if "operator" in call.arguments and not (uid == 0 and arguments.get("operator")):
            arguments["operator"] = operator  # SECURITY: only root, behind sudo, may say who answers for it
        self._answer(call, arguments, operator)

    def _answer(self, call: wire.Call, arguments: dict[str, Any], operator: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        lines = _Lines(self.wfile.write, self.clock)
        try:
            found = self.serves.call(call.name, arguments, operator, lines.progress)
            if call.iterates:
                lines.items(found)
                lines.line({"end": None})
            else:
                lines.line({"result": found})
        except GatewayError as error:
            lines.line({"error": wire.error_document(error)})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
            return
        except Exception as error:  # noqa: BLE001  (a defect must reach the caller, and not end the engine)
            self.log_to.error("door.defect", call=call.name, problem=f"{type(error).__name__}: {error}")
            lines.line({"error": wire.error_document(GatewayError(
                f"Unexpected {type(error).__name__} in the engine: {error}",
                meaning="This is a defect of the gateway.", advice="Report it with the engine's log.",
            ))})  # fmt: skip
        lines.end()

    def _peer(self) -> tuple[int, str]:
        data = self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(data)
        try:
            return uid, pwd.getpwuid(uid).pw_name
        except KeyError:
            return uid, f"uid {uid}"

    def _refuse(self, status: int, text: str) -> None:
        self.close_connection = True
        body = wire.encode({"error": wire.ErrorDocument("UsageError", text, "Nothing was done.", "")}) + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the library's signature)
        """The engine logs what it does; a line a request would drown that."""

    def address_string(self) -> str:
        return "unix"


class _Lines:
    """Writes lines as chunks; several threads may tell progress."""

    def __init__(self, write: Callable[[bytes], object], clock: Clock) -> None:
        self._write = write
        self._clock = clock
        self._lock = threading.Lock()
        self._told = float("-inf")
        self._gone = False

    def line(self, value: object) -> None:
        self._chunk(wire.encode(value) + b"\n")

    def items(self, items: Iterable[object]) -> None:
        """Many lines a chunk: a list of a million files is not a million writes."""
        waiting = bytearray()
        try:
            for item in items:
                waiting += b'{"item":' + wire.encode(item) + b"}\n"
                if len(waiting) >= 32 * 1024:
                    self._chunk(bytes(waiting))
                    waiting.clear()
        finally:  # what came before an error is told before it
            if waiting:
                self._chunk(bytes(waiting))

    def progress(self, progress: Progress) -> bool:
        """Whether anybody listens. Never raises: that nobody does any more does not end the work."""
        now = self._clock.monotonic()
        if not self._gone and now - self._told >= PROGRESS_SECONDS:
            self._told = now
            try:
                self.line({"progress": progress})
            except OSError:
                self._gone = True
        return not self._gone

    def end(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        with self._lock:
            self._write(b"%x\r\n%s\r\n" % (len(data), data))


def _uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _remove_stale(path: Path) -> None:
    """A socket that nobody answers at was left by a kill."""
    if not path.is_socket():
        return
    probe = socket.socket(socket.AF_UNIX)
    try:
        with _short(path) as short:
            probe.connect(short)
    except OSError:
        durable.remove("socket", path)
    else:
        raise LockHeld(
            f"Another engine answers at {path}.", meaning="Nothing was started.",
            advice="`gateway status` shows what it does.",
        )  # fmt: skip
    finally:
        probe.close()


class _short:  # noqa: N801  (used like a function)
    """A path to the socket that fits into the 107 bytes that the kernel takes, however deep the directory lies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> str:
        self._fd = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._fd}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


short_path = _short
