"""A truthful S3 server: what S3 answers, as far as the gateway asks, on top of a store in memory.

`S3.answer` is a function from a request to an answer, without a socket: the proxy (`tests.faults.proxy`) carries both,
and can so lie about one, lose the other, or do both at any moment. It checks what S3 checks: checksums, conditions,
parts. Two things are made easy for tests: a part may be small, and keys are those of the memory store, without prefix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from gateway.errors import Corrupt, GatewayError, ObjectExists, ObjectMissing, StoreRefused
from gateway.store.crc import crc64, decode, encode
from gateway.store.memory import MemoryStore
from gateway.store.port import ObjectFacts, Part

BUCKET = "bucket"
XML = {"Content-Type": "application/xml"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`headers` have names in lower case; `key` is empty for requests to the bucket."""

    method: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`length` overrules Content-Length, which is otherwise that of the body (a HEAD's has none)."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None


def parse(method: str, target: str, headers: Mapping[str, str], body: bytes) -> Request:
    parts = urlsplit(target)
    _, _, key = unquote(parts.path).lstrip("/").partition("/")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return Request(method=method, key=key, query=query, headers=headers, body=body)


def operation(request: Request) -> str:
    """What the request is for, in the words of the fault scripts. ``put-entry`` and its like say which object."""
    key, query = request.key, request.query
    match request.method:
        case "PUT" if "partNumber" in query:
            return "part"
        case "PUT":
            return f"put-{_thing(key)}"
        case "POST" if "uploads" in query:
            return "start"
        case "POST":
            return "complete"
        case "HEAD":
            return "head"
        case "DELETE":
            return "abort" if "uploadId" in query else "delete"
        case _ if "uploads" in query:
            return "uploads"
        case _ if "uploadId" in query:
            return "parts"
        case _ if not key:
            return "list"
    return "range" if "range" in request.headers else "get"


def _thing(key: str) -> str:
    for mark, thing in (
        ("packs/", "pack"), ("slots/", "slot"), ("repository.json", "repository"), (".probe/", "probe"),
    ):  # fmt: skip
        if key.startswith(mark):
            return thing
    for mark, thing in (("/log/", "entry"), ("/index/", "index"), ("/wraps/", "wrap"), ("header", "header")):
        if mark in key:
            return thing
    return "wrap" if key.startswith("keys/") else "other"


def error(status: int, code: str, more: str = "") -> Answer:
    body = f"<?xml version='1.0' encoding='UTF-8'?>\n<Error><Code>{code}</Code><Message>{code} it is.</Message>{more}"
    return Answer(status=status, body=f"{body}<RequestId>1</RequestId></Error>".encode(), headers=XML)


def document(root: str, inside: str) -> Answer:
    text = f"<?xml version='1.0' encoding='UTF-8'?>\n<{root} xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>"
    return Answer(body=f"{text}{inside}</{root}>".encode(), headers=XML)


def element(name: str, value: object) -> str:
    return f"<{name}>{escape(str(value))}</{name}>"


def moment(when: datetime | None) -> str:
    return (when or datetime(2031, 1, 1, tzinfo=UTC)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


class S3:
    """One bucket. Thread-safe, as the store is."""

    def __init__(self, store: MemoryStore, *, page_keys: int = 1000) -> None:
        self.store = store
        self._page_keys = page_keys

    def answer(self, request: Request) -> Answer:
        try:
            return self._answers()[operation(request).partition("-")[0]](request)
        except ObjectMissing:
            if request.method == "HEAD":
                return Answer(status=404)
            return error(404, "NoSuchUpload" if "uploadId" in request.query else "NoSuchKey")
        except ObjectExists:
            return error(412, "PreconditionFailed")
        except Corrupt as problem:
            return error(400, "BadDigest", element("Reason", problem))
        except StoreRefused as problem:
            return error(400, "EntityTooSmall" if "small" in str(problem) else "InvalidPart")
        except (ValueError, GatewayError) as problem:
            return error(400, "InvalidArgument", element("Reason", problem))

    def _answers(self) -> Mapping[str, Callable[[Request], Answer]]:
        return {
            "put": self._put, "part": self._part, "start": self._start, "complete": self._complete,
            "head": self._head, "delete": self._delete, "abort": self._abort, "uploads": self._uploads,
            "parts": self._parts, "list": self._list, "range": self._range, "get": self._get,
        }  # fmt: skip

    def _put(self, request: Request) -> Answer:
        crc = _sent_crc(request)
        facts = self.store.put(
            request.key, request.body, crc64=crc, storage_class=request.headers.get("x-amz-storage-class", "STANDARD"),
            if_absent=request.headers.get("if-none-match") == "*",
        )  # fmt: skip
        return Answer(headers=_stated(crc) | {"ETag": _etag(facts)})

    def _start(self, request: Request) -> Answer:
        storage_class = request.headers.get("x-amz-storage-class", "STANDARD")
        upload_id = self.store.start_upload(request.key, storage_class=storage_class)
        inside = element("Bucket", BUCKET) + element("Key", request.key) + element("UploadId", upload_id)
        return document("InitiateMultipartUploadResult", inside)

    def _part(self, request: Request) -> Answer:
        crc = _sent_crc(request)
        number, upload_id = int(request.query["partNumber"]), request.query["uploadId"]
        part = self.store.put_part(request.key, upload_id, number, request.body, crc64=crc)
        return Answer(headers={"ETag": part.etag, "x-amz-checksum-crc64nvme": encode(crc)})

    def _parts(self, request: Request) -> Answer:
        inside = element("Bucket", BUCKET) + element("Key", request.key)
        inside += element("UploadId", request.query["uploadId"]) + element("IsTruncated", "false")
        for part in self.store.list_parts(request.key, request.query["uploadId"]):
            one = element("PartNumber", part.number) + element("ETag", part.etag) + element("Size", part.size)
            one += element("LastModified", moment(None)) + element("ChecksumCRC64NVME", encode(part.crc64 or 0))
            inside += f"<Part>{one}</Part>"
        return document("ListPartsResult", inside)

    def _complete(self, request: Request) -> Answer:
        upload_id = request.query["uploadId"]
        held = {part.number: part for part in self.store.list_parts(request.key, upload_id)}
        chosen = []
        for each in ET.fromstring(request.body).iter():
            if each.tag.rpartition("}")[2] == "Part":
                said = {child.tag.rpartition("}")[2]: child.text or "" for child in each}
                number = int(said["PartNumber"])
                size = held[number].size if number in held else 0
                chosen.append(Part(number=number, size=size, etag=said["ETag"]))
        size = int(request.headers.get("x-amz-mp-object-size", sum(part.size for part in chosen)))
        self.store.complete_upload(request.key, upload_id, chosen, size=size, crc64=_sent_crc(request))
        inside = element("Bucket", BUCKET) + element("Key", request.key) + element("ETag", '"of-parts-1"')
        return document("CompleteMultipartUploadResult", inside)

    def _abort(self, request: Request) -> Answer:
        self.store.abort_upload(request.key, request.query["uploadId"])
        return Answer(status=204)

    def _uploads(self, request: Request) -> Answer:
        inside = element("Bucket", BUCKET) + element("IsTruncated", "false")
        for upload in self.store.list_uploads(request.query.get("prefix", "")):
            one = element("Key", upload.key) + element("UploadId", upload.upload_id)
            inside += f"<Upload>{one}{element('Initiated', moment(upload.initiated))}</Upload>"
        return document("ListMultipartUploadsResult", inside)

    def _delete(self, request: Request) -> Answer:
        self.store.delete(request.key)
        return Answer(status=204)

    def _head(self, request: Request) -> Answer:
        facts = self.store.head(request.key)
        return Answer(headers=_described(facts), length=facts.size)

    def _get(self, request: Request) -> Answer:
        facts = self.store.head(request.key)
        return Answer(body=self.store.get(request.key), headers=_described(facts))

    def _range(self, request: Request) -> Answer:
        facts = self.store.head(request.key)
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers["range"])
        assert match is not None
        start, last = int(match[1]), min(int(match[2] or facts.size), facts.size - 1)
        if start > last:
            return error(416, "InvalidRange")
        body = self.store.get(request.key, start=start, length=last + 1 - start)
        headers = {"ETag": _etag(facts), "Content-Range": f"bytes {start}-{last}/{facts.size}"}
        return Answer(status=206, body=body, headers=headers)

    def _list(self, request: Request) -> Answer:
        query = request.query
        after = query.get("continuation-token") or query.get("start-after", "")
        found = list(self.store.list_objects(query.get("prefix", ""), after=after))
        page = found[: min(self._page_keys, int(query.get("max-keys", "1000")))]
        return listing(query.get("prefix", ""), page, page[-1].key if len(page) < len(found) else "")


def listing(
    prefix: str, page: Sequence[ObjectFacts], token: str, *, truncated: str = "", count: int | None = None
) -> Answer:
    """A page of ListObjectsV2, as true as what it is given."""
    inside = element("Name", BUCKET) + element("Prefix", prefix)
    inside += element("KeyCount", len(page) if count is None else count)
    inside += element("IsTruncated", truncated or ("true" if token else "false"))
    if token:
        inside += element("NextContinuationToken", token)
    for facts in page:
        one = element("Key", facts.key) + element("LastModified", moment(facts.modified)) + element("ETag", '"x"')
        one += element("Size", facts.size) + element("StorageClass", facts.storage_class)
        inside += f"<Contents>{one}</Contents>"
    return document("ListBucketResult", inside)


def _sent_crc(request: Request) -> int:
    stated = request.headers.get("x-amz-checksum-crc64nvme")
    return decode(stated) if stated else crc64(request.body)


def _stated(crc: int) -> dict[str, str]:
    return {"x-amz-checksum-crc64nvme": encode(crc), "x-amz-checksum-type": "FULL_OBJECT"}


def _etag(facts: ObjectFacts) -> str:
    return f'"{facts.crc64 or 0:032x}"'


def _described(facts: ObjectFacts) -> dict[str, str]:
    modified = format_datetime((facts.modified or datetime(2031, 1, 1, tzinfo=UTC)).astimezone(UTC), usegmt=True)
    more = {} if facts.storage_class == "STANDARD" else {"x-amz-storage-class": facts.storage_class}
    return _stated(facts.crc64 or 0) | {"ETag": _etag(facts), "Last-Modified": modified} | more
