"""The cold simulator as a server: S3 with archive classes, thaws, lifecycle and a bill, and a clock one can move.

    scripts/coldsim --port 9000 --bucket backups
    curl -X POST 'http://127.0.0.1:9000/_clock?advance=3d'    # also 12h, 30m, 15s, 1d12h; GET says what time it is
    curl 'http://127.0.0.1:9000/_bill?egress=internet'

Any credentials do, signatures are not checked, and so neither are their dates: clients keep the real time, the
simulator has its own, which stands still until it is moved. What it keeps to and what it leaves out is in
docs/design/coldsim.md.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from gateway.clock import FakeClock, text
from gateway.store.bill import Bill, bill
from gateway.store.cold import Weather
from gateway.store.port import MIN_PART_BYTES
from gateway.store.prices import default_prices
from tests.servers.coldsim_s3 import Buckets
from tests.servers.coldsim_wire import Answer, Refused, error, http_date, parse

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
_SPAN = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def span(words: str) -> timedelta:
    """``3d``, ``12h``, ``1d12h30m``; `ValueError` for anything else."""
    match = _SPAN.fullmatch(words)
    if match is None or not words:
        raise ValueError(f"not a span of time like 3d, 12h, 30m or 15s: {words!r}")
    days, hours, minutes, seconds = (int(each or 0) for each in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


class ColdSim(ThreadingHTTPServer):
    """The server; `running` runs it in a thread. The same seed and the same requests give the same answers."""

    daemon_threads = False
    block_on_close = True

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        start: datetime = START,
        weather: Weather | None = None,
        min_part_bytes: int = MIN_PART_BYTES,
    ) -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"{host} is not a loopback address: the simulator takes anybody's word")
        if ":" in host:
            self.address_family = socket.AF_INET6
        self.clock = FakeClock(start, seed=b"coldsim")
        self.buckets = Buckets(self.clock, weather=weather or Weather(), min_part_bytes=min_part_bytes)
        self._open: set[socket.socket] = set()
        self._stopping = False
        self._open_lock = threading.Lock()
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}" if self.address_family == socket.AF_INET6 else f"http://{host!s}:{port}"

    def advance(self, by: timedelta) -> None:
        """Move the time and let the rules run."""
        self.clock.advance(by)
        self.buckets.catch_up()

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            if self._stopping:
                return
            self._open.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            with self._open_lock:
                self._open.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news; anything else is a mistake here and must be seen."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def cut_all(self) -> None:
        """Cut connections that clients keep open, and those that come late."""
        with self._open_lock:
            self._stopping = True
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def control(self, method: str, target: str) -> Answer | None:
        """``/_clock`` and ``/_bill``; None for S3's requests: no bucket's name begins so."""
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query))
        match method, parts.path:
            case ("GET", "/_clock"):
                pass
            case ("POST", "/_clock"):
                try:
                    self.advance(span(query.get("advance", "")))
                except (ValueError, OverflowError) as problem:
                    return _json({"error": str(problem)}, status=400)
            case ("GET", "/_bill"):
                return self._bill(query.get("egress", ""))
            case _:
                return None if not parts.path.startswith("/_") else error(404, "NoSuchKey")
        return _json({"now": text(self.clock.now())})

    def _bill(self, egress: str) -> Answer:
        prices = default_prices()
        if egress and egress not in prices.egress:
            return _json({"error": f"egress is one of {', '.join(sorted(prices.egress))}"}, status=400)
        until = self.clock.now()
        made = [(name, bill(shelf.log(), prices, until=until, egress=egress)) for name, shelf in self.buckets.ever]
        return _json(
            {
                "until": text(until),
                "prices": {"name": prices.name, "as_of": str(prices.as_of), "currency": "USD"},
                "total": _money(sum(each.total for _, each in made)),
                "buckets": [{"name": name, "total": _money(each.total), "lines": _lines(each)} for name, each in made],
            }
        )


def _lines(made: Bill) -> list[dict[str, str]]:
    return [
        {
            "item": line.item, "class": line.storage_class, "quantity": _money(line.quantity), "unit": line.unit,
            "price": str(line.price), "amount": _money(line.amount),
        }
        for line in made.lines
    ]  # fmt: skip


def _money(value: Any) -> str:
    """To a millionth of a millionth, without an exponent: small bills are what tests compare."""
    return f"{value:.12f}".rstrip("0").rstrip(".")


def _json(value: object, *, status: int = 200) -> Answer:
    body = json.dumps(value, indent=1).encode() + b"\n"
    return Answer(status=status, body=body, headers={"Content-Type": "application/json"})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ColdSim

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        return

    def date_time_string(self, timestamp: float | None = None) -> str:  # the simulator's time
        return http_date(self.server.clock.now())

    def version_string(self) -> str:
        return "coldsim"

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            length = int(self.headers.get("Content-Length") or 0)
            data = self.rfile.read(length)
            if len(data) != length:
                raise ConnectionAbortedError("the client went away in the middle of a body")
            return data
        pieces = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers of HTTP's own kind are not used
            pass
        return b"".join(pieces)

    def _answer(self) -> None:
        body = self._body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.control(self.command, self.path)
        if answer is None:
            try:
                answer = self.server.buckets.answer(parse(self.command, self.path, headers, body))
            except Refused as refused:
                answer = refused.answer
        self.send_response(answer.status)
        for name, value in ({"x-amz-request-id": "1"} | dict(answer.headers)).items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
        self.end_headers()
        if self.command != "HEAD" and answer.body:
            self.wfile.write(answer.body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer  # noqa: N815 - the base class looks for these names


@contextlib.contextmanager
def running(server: ColdSim) -> Iterator[ColdSim]:
    """Serve from a thread until the end of the block; no connection outlives it."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.cut_all()
        server.server_close()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="coldsim", description="S3 with archive classes and a clock one can move.")
    parser.add_argument("--port", type=int, required=True, help="0: any free one; the first line says which")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address")
    parser.add_argument("--start", default=text(START), help="the time it begins with; default %(default)s")
    parser.add_argument("--bucket", action="append", default=[], help="make this bucket; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="of how long thaws take")
    parser.add_argument("--expedited-capacity", type=float, default=1.0, metavar="SHARE", help="of requests taken")
    parser.add_argument("--min-part-bytes", type=int, default=MIN_PART_BYTES, help="default %(default)s, as S3")
    said = parser.parse_args(arguments)
    try:
        start = datetime.fromisoformat(said.start)
        server = ColdSim(
            host=said.host, port=said.port, start=start if start.tzinfo else start.replace(tzinfo=UTC),
            weather=Weather(seed=said.seed, expedited_capacity=said.expedited_capacity),
            min_part_bytes=said.min_part_bytes,
        )  # fmt: skip
        for name in said.bucket:
            server.buckets.create(name)
    except (ValueError, OSError, Refused) as problem:
        parser.error(str(problem))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with running(server):
        print(f"{server.url} is ready; its time is {text(server.clock.now())}", flush=True)  # noqa: T201 - a program
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
