"""The server of ``discard.c``, compiled when a benchmark needs it; in Python where there is no compiler.

``python -m tests.perf.bench.discard PORT`` is the latter: several times slower, and then the limit of what is measured.
"""

from __future__ import annotations

import http.server
import itertools
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.servers.process import Child, accepts, free_ports, until

SOURCE = Path(__file__).with_name("discard.c")
REGION = "us-east-1"
CRC = "x-amz-checksum-crc64nvme"


class Discard:
    """A running server; `kind` says which of the two."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self.kind = ""

    def __enter__(self) -> Self:
        self._work.mkdir(parents=True, exist_ok=True)
        self.port = free_ports(1)[0]
        self._child = Child(
            [*self._program(), str(self.port)], log=self._work / "discard.log", cwd=Path(__file__).parents[3],
            env={"PATH": os.environ.get("PATH", os.defpath)},
        )  # fmt: skip
        until("the discarding server answers", lambda: accepts(self.port), seconds=20, alive=self._child.alive)
        return self

    def _program(self) -> list[str]:
        compiler, program = shutil.which(os.environ.get("CC", "cc")), self._work / "discard"
        if compiler is not None:
            words = [compiler, "-std=c11", "-O2", "-pthread", SOURCE, "-o", program]
            if subprocess.run(words, capture_output=True, check=False).returncode == 0:
                self.kind = "C"
                return [str(program)]
        self.kind = "Python"
        return [sys.executable, "-m", "tests.perf.bench.discard"]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.stop()


class Handler(http.server.BaseHTTPRequestHandler):
    """See discard.c."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, tuple[int, str]] = {}  # noqa: RUF012 - one server a process
    uploads: dict[str, int] = {}  # noqa: RUF012
    numbers = itertools.count(1)
    lock = threading.Lock()

    def _answer(self, status: int, headers: dict[str, str] | None = None, body: str = "") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def _body(self) -> int:
        size = left = int(self.headers.get("Content-Length") or 0)
        buffer = bytearray(min(left, 1 << 20))
        while left:
            count = self.rfile.readinto(memoryview(buffer)[: min(left, len(buffer))])  # type: ignore[attr-defined]
            if not count:
                raise ConnectionError("the body ended")
            left -= count
        return int(self.headers.get("x-amz-decoded-content-length") or size)

    def _asked(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return parts.path, parse_qs(parts.query, keep_blank_values=True)

    def do_PUT(self) -> None:
        size = self._body()
        path, query = self._asked()
        crc = self.headers.get(CRC) or ""
        with self.lock:
            if upload := query.get("uploadId"):
                self.uploads[upload[0]] += size
            else:
                self.objects[path] = (size, crc)
        self._answer(200, {"ETag": f'"{size:032x}-1"', **({CRC: crc} if crc else {})})

    def do_POST(self) -> None:
        self._body()
        path, query = self._asked()
        bucket, _, key = path[1:].partition("/")
        said = f"<Bucket>{bucket}</Bucket><Key>{key}</Key>"
        with self.lock:
            if upload := query.get("uploadId"):
                self.objects[path] = (self.uploads.pop(upload[0]), self.headers.get(CRC) or "")
                kind, said = "CompleteMultipartUploadResult", f"{said}<ETag>&quot;{0:032x}-1&quot;</ETag>"
            else:
                number = f"upload{next(self.numbers)}"
                self.uploads[number] = 0
                kind, said = "InitiateMultipartUploadResult", f"{said}<UploadId>{number}</UploadId>"
        self._answer(200, {"Content-Type": "application/xml"}, f'<?xml version="1.0"?><{kind}>{said}</{kind}>')

    def do_HEAD(self) -> None:
        found = self.objects.get(self._asked()[0])
        if found is None:
            self._answer(404)
            return
        size, crc = found
        headers = {"Content-Length": str(size), "ETag": f'"{size:032x}-1"'}
        headers["Last-Modified"] = "Thu, 01 Jan 2026 00:00:00 GMT"
        self._answer(200, {**headers, **({CRC: crc} if crc else {})})

    def do_DELETE(self) -> None:
        self._answer(204)

    def do_GET(self) -> None:
        self._answer(404, {"Content-Type": "application/xml"}, "<Error><Code>NoSuchKey</Code></Error>")

    def log_message(self, *_: Any) -> None:
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
