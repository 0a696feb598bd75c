"""A scripted HTTP server on loopback that answers whatever a test wants, true or not."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

HTML = b"<html><body>Welcome to the hotel's network. Please log in.</body></html>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """One answer. `length`: what Content-Length claims; `reset`: cut the connection instead ("before" the body of the
    request was read, "after" it, or in the middle of the "answer").
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    reset: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class LyingServer(socketserver.ThreadingTCPServer):
    """Gives the answers of `script` in order, then fails the test's client by closing every connection."""

    daemon_threads = False
    block_on_close = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: list[Say] = []
        self.asked: list[Asked] = []
        self.lock = threading.Lock()
        self._open: set[socket.socket] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self.lock:
            self._open.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            with self.lock:
                self._open.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no news here."""

    def cut_all(self) -> None:
        """Cut idle connections: an error that a test still holds keeps its connection open."""
        with self.lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def next(self) -> Say:
        with self.lock:
            return self.script.pop(0) if self.script else Say(reset="after")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LyingServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        return

    def _answer(self) -> None:
        say = self.server.next()
        if say.reset == "before":
            return self._reset()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = Asked(method=self.command, path=self.path, headers=dict(self.headers.items()), body=body)
        self.server.asked.append(asked)
        if say.reset == "after":
            return self._reset()
        self.send_response(say.status)
        for name, value in say.headers.items():
            self.send_header(name, value)
        if self.command != "HEAD" and say.status != 204:
            self.send_header("Content-Length", str(len(say.body) if say.length is None else say.length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(say.body)
        if say.length is not None or say.reset:
            return self._reset()
        return None

    def _reset(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer  # noqa: N815 - the base class looks for these names


@contextlib.contextmanager
def lying_server() -> Iterator[LyingServer]:
    server = LyingServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.cut_all()
        server.server_close()
