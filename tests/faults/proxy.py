"""A proxy on loopback between the gateway and a truthful S3 server: it does to requests and answers what a script says.

A script is a comma-separated list of ``operation:which=fault``: `operation` as `tests.faults.truth.operation` names it,
``put`` for every PUT of an object and ``*`` for all; `which` counts such requests since the script was armed: ``3``,
``2-5``, ``3+`` or ``*``; `fault` is a name of `tests.faults.kinds.KINDS`.

The client may be another process, which is told the store's place by `tests.faults.place.in_memory`; a script that is
armed, a line that is throttled and a store that hangs up then work on what it is just doing.
"""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.faults.kinds import KINDS, Kind, Wire
from tests.faults.truth import S3, Answer, Request, operation, parse

_RULE = re.compile(r"(?P<op>[a-z-]+|\*):(?P<which>\*|\d+(?:-\d+|\+)?)=(?P<kind>[a-z0-9-]+)")
TRICKLE_SECONDS = 0.002


@dataclass(slots=True)
class Rule:
    operation: str
    kind: Kind
    first: int
    last: int | None
    seen: int = 0
    hits: int = 0

    def takes(self, name: str) -> bool:
        return self.operation in ("*", name) or (self.operation == "put" and name.startswith("put-"))


def parse_script(script: str) -> list[Rule]:
    """The rules of a script; `ValueError` names what is none."""
    rules = []
    for text in filter(None, script.split(",")):
        match = _RULE.fullmatch(text)
        if match is None or match["kind"] not in KINDS:
            raise ValueError(f"not a fault rule: {text!r}")
        which = match["which"]
        first, _, last = ("1", "", "") if which == "*" else which.partition("-")
        ever = which == "*" or which.endswith("+")
        first = first.rstrip("+")
        rules.append(Rule(match["op"], KINDS[match["kind"]], int(first), None if ever else int(last or first)))
    return rules


@dataclass(slots=True)
class Seen:
    """What passed the proxy. `told`: writes whose true success the client was told, by operation, key and part."""

    requests: Counter[str] = field(default_factory=Counter)
    told: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    sent_again: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.requests.values())


class Proxy(socketserver.ThreadingTCPServer):
    """Listens on a port of its own from the start. All but `serve` may be called at any moment, by any thread."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.lock = threading.Lock()
        self.s3: S3 | None = None
        self.seen = Seen()
        self.race: Callable[[], None] = lambda: None
        self.hits = 0
        self.body_bytes = 0
        self.dropped = 0
        self._bytes_per_second: float | None = None
        self._line_free = 0.0
        self._line_changed = threading.Event()
        self._hung_up = False
        self._rules: list[Rule] = []
        self._sockets: set[socket.socket] = set()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def serve(self, s3: S3) -> None:
        """Stand in front of this server, without faults, everything counted anew."""
        self.heal()
        with self.lock:
            self.s3, self.seen, self.hits, self.race = s3, Seen(), 0, lambda: None

    def arm(self, script: str) -> None:
        rules = parse_script(script)
        with self.lock:
            self._rules = rules
            self.released = threading.Event()

    def heal(self) -> None:
        """No faults any more; who is being stalled is let go."""
        with self.lock:
            self.hits += sum(rule.hits for rule in self._rules)
            self._rules = []
            self.released.set()

    def throttle(self, bytes_per_second: float | None) -> None:
        """Be a slow line for what clients send, all of them together; None: as fast as can be. Who waits on the line
        is let go at every change. A body of `read_timeout` times this must not be sent: its client would give up.
        """
        with self.lock:
            self._bytes_per_second = bytes_per_second
            self._line_free = time.monotonic()
            self._line_changed.set()
            self._line_changed = threading.Event()

    def line(self, count: int) -> None:
        """Wait until the line has taken so many bytes."""
        with self.lock:
            self.body_bytes += count
            if self._bytes_per_second is None:
                return
            now, changed = time.monotonic(), self._line_changed
            self._line_free = max(self._line_free, now) + count / self._bytes_per_second
            seconds = self._line_free - now
        changed.wait(seconds)

    def hang_up(self) -> None:
        """Break every connection, and every new one at once, until `listen_again`: the store is gone."""
        with self.lock:
            self._hung_up = True
        self.cut_all()

    def listen_again(self) -> None:
        with self.lock:
            self._hung_up = False

    def verify_request(self, request: Any, client_address: Any) -> bool:
        with self.lock:
            self.dropped += self._hung_up
            return not self._hung_up

    def due(self, name: str) -> Kind | None:
        """Count one request and say what shall go wrong with it. The first rule that is due wins."""
        found: Kind | None = None
        with self.lock:
            self.seen.requests[name] += 1
            for rule in self._rules:
                if not rule.takes(name):
                    continue
                rule.seen += 1
                if found is None and rule.first <= rule.seen and (rule.last is None or rule.seen <= rule.last):
                    found = rule.kind
                    rule.hits += 1
        return found

    def armed_hits(self) -> int:
        """How many requests were harmed since `serve`."""
        with self.lock:
            return self.hits + sum(rule.hits for rule in self._rules)

    def note(self, name: str, request: Request, status: int) -> None:
        """A write was done and its answer went out whole and true."""
        if status // 100 != 2 or not (name in ("part", "complete") or name.startswith("put-")):
            return
        what = (name, request.key, request.query.get("uploadId", "") + request.query.get("partNumber", ""))
        with self.lock:
            self.seen.told[what] += 1
            if self.seen.told[what] > 1 and name in ("part", "complete", "put-pack", "put-index", "put-entry"):
                self.seen.sent_again.append(f"{name} {request.key}")

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self.lock:
            self._sockets.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            with self.lock:
                self._sockets.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no news here."""

    def cut_all(self) -> None:
        with self.lock:
            self.released.set()
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Proxy
    _headers_buffer: list[bytes]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        return

    def _answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        bare = parse(self.command, self.path, headers, b"")
        name = operation(bare)
        kind = self.server.due(name)
        if kind is not None and kind.wire is Wire.RESET_EARLY:
            return self._reset()
        sent = self.rfile.read(int(headers.get("content-length") or 0))
        self.server.line(len(sent))
        request = parse(self.command, self.path, headers, sent)
        if kind is not None and kind.race:
            self.server.race()
        s3 = self.server.s3
        assert s3 is not None
        truth = s3.answer(request) if kind is None or kind.acts else None
        if kind is not None and kind.twice:
            s3.answer(request)
        answer = truth if kind is None or kind.change is None else kind.change(request, truth, s3)
        if kind is not None and kind.wire is Wire.RESET:
            return self._reset()
        if kind is not None and kind.wire is Wire.STALL:
            self.server.released.wait(20)
            return self._reset()
        assert answer is not None
        if truth is not None and answer == truth and (kind is None or kind.wire in (Wire.WHOLE, Wire.TRICKLE)):
            self.server.note(name, request, truth.status)
        return self._write(answer, kind.wire if kind is not None else Wire.WHOLE)

    def _write(self, answer: Answer, wire: Wire) -> None:
        self.send_response(answer.status)
        length = len(answer.body) if answer.length is None else answer.length
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(length))
        if wire is Wire.CUT_HEAD:
            self._headers_buffer = [b"".join(self._headers_buffer)[:20]]
            self.flush_headers()
            return self._reset()
        body = b"" if self.command == "HEAD" or answer.status == 204 else answer.body
        if wire is Wire.TRICKLE:
            whole = b"".join(self._headers_buffer) + b"\r\n" + body
            self._headers_buffer = []
            step = max(1, len(whole) // 40)
            for start in range(0, len(whole), step):
                self.wfile.write(whole[start : start + step])
                self.wfile.flush()
                self.server.released.wait(TRICKLE_SECONDS)
            return None
        self.end_headers()
        if wire is Wire.CUT_BODY:
            self.wfile.write(body[: len(body) // 2])
            return self._reset()
        self.wfile.write(body)
        self.wfile.flush()
        return None

    def _reset(self) -> None:
        """Close with RST, as a middlebox does; what was written so far arrives or does not."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer  # noqa: N815 - the base class looks for these names


@contextlib.contextmanager
def running_proxy() -> Iterator[Proxy]:
    proxy = Proxy()
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.throttle(None)
        proxy.cut_all()
        proxy.shutdown()
        thread.join()
        proxy.server_close()
