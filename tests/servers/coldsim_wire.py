"""Requests and answers of the cold simulator as they travel: chunked bodies, checksums, error documents."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from awscrt import checksums

from gateway.store.crc import crc64, encode

XML = {"Content-Type": "application/xml"}
_CHECKSUMS: Mapping[str, Callable[[bytes], bytes]] = {
    "crc32": lambda data: zlib.crc32(data).to_bytes(4),
    "crc32c": lambda data: int(checksums.crc32c(data)).to_bytes(4),
    "crc64nvme": lambda data: crc64(data).to_bytes(8),
    "sha1": lambda data: hashlib.sha1(data).digest(),
    "sha256": lambda data: hashlib.sha256(data).digest(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`headers` have names in lower case, trailing ones among them; the body is as the client meant it."""

    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`length` overrules Content-Length, which is otherwise that of the body: a HEAD states one and has none."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None


class Refused(Exception):
    """Becomes an error answer."""

    def __init__(self, status: int, code: str, message: str = "", more: str = "") -> None:
        super().__init__(code)
        self.answer = error(status, code, message, more)


def error(status: int, code: str, message: str = "", more: str = "") -> Answer:
    inside = element("Code", code) + element("Message", message or f"{code} it is.") + more
    body = f"<?xml version='1.0' encoding='UTF-8'?>\n<Error>{inside}<RequestId>1</RequestId></Error>"
    return Answer(status=status, body=body.encode(), headers=XML)


def document(root: str, inside: str) -> Answer:
    text = f"<?xml version='1.0' encoding='UTF-8'?>\n<{root} xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>"
    return Answer(body=f"{text}{inside}</{root}>".encode(), headers=XML)


def element(name: str, value: object) -> str:
    return f"<{name}>{escape(str(value))}</{name}>"


def moment(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def http_date(when: datetime) -> str:
    return format_datetime(when.astimezone(UTC), usegmt=True)


def parse(method: str, target: str, headers: Mapping[str, str], body: bytes) -> Request:
    """A request as it came, path style; `Refused` when its body is not what it says."""
    parts = urlsplit(target)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
        body, trailers = unchunk(body)
        headers = {**headers, **trailers}
    return Request(method=method, bucket=bucket, key=key, query=query, headers=headers, body=body)


def unchunk(body: bytes) -> tuple[bytes, dict[str, str]]:
    """The bytes and the trailing headers in a body of ``aws-chunked`` encoding; signatures are not looked at."""
    pieces, at = [], 0
    try:
        while True:
            end = body.index(b"\r\n", at)
            size = int(body[at:end].partition(b";")[0], 16)
            at = end + 2
            if not size:
                break
            pieces.append(body[at : at + size])
            if len(pieces[-1]) != size or body[at + size : at + size + 2] != b"\r\n":
                raise ValueError("a chunk is cut")
            at += size + 2
    except ValueError:
        raise Refused(400, "IncompleteBody") from None
    lines = [line.partition(":") for line in body[at:].decode("latin-1").split("\r\n") if ":" in line]
    return b"".join(pieces), {name.strip().lower(): value.strip() for name, _, value in lines}


def verify(request: Request, *, required: bool = False) -> dict[str, str]:
    """Compare the body with every checksum that came with it; the header by which the answer states one back."""
    sent = request.headers.get("x-amz-content-sha256", "")
    if re.fullmatch(r"[0-9a-f]{64}", sent) and hashlib.sha256(request.body).hexdigest() != sent:
        raise Refused(400, "XAmzContentSHA256Mismatch")
    digest = request.headers.get("content-md5")
    if digest is not None and base64.b64encode(hashlib.md5(request.body).digest()).decode() != digest:
        raise Refused(400, "BadDigest")
    stated = {}
    for name, value in request.headers.items():
        algorithm = name.removeprefix("x-amz-checksum-")
        if name.startswith("x-amz-checksum-") and algorithm in _CHECKSUMS:
            if base64.b64encode(_CHECKSUMS[algorithm](request.body)).decode() != value:
                raise Refused(400, "BadDigest", f"The {algorithm} does not fit.")
            stated[name] = value
    if required and digest is None and not stated:
        raise Refused(
            400, "InvalidRequest", "Missing required header for this request: Content-MD5 or x-amz-checksum-*"
        )
    return stated or {
        "x-amz-checksum-crc64nvme": encode(crc64(request.body)), "x-amz-checksum-type": "FULL_OBJECT"
    }  # fmt: skip
