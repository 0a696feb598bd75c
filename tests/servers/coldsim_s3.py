"""What the cold simulator answers: S3's REST protocol, as far as boto3 and the gateway speak it, over `Shelf`s.

`Buckets.answer` is a function from a request to an answer, without a socket. Names are those of the gateway's port
(printable ASCII, no empty component); versions, tags, policies, encryption, ACLs and CopyObject are answered with 501.
"""

from __future__ import annotations

import base64
import re
import threading
from typing import NoReturn
from urllib.parse import quote
from xml.etree import ElementTree as ET

from gateway.clock import Clock
from gateway.errors import Corrupt, GatewayError, ObjectCold, ObjectExists, ObjectMissing, StoreRefused
from gateway.store.cold import Weather
from gateway.store.crc import combine_all, crc64, encode
from gateway.store.port import MAX_PUT_BYTES, MIN_PART_BYTES, ObjectFacts, Part, Thaw, ThawAnswer, ThawTier
from gateway.store.shelf import Shelf
from tests.servers.coldsim_lifecycle import NotRules, lifecycle_from_xml, lifecycle_to_xml
from tests.servers.coldsim_wire import (
    XML,
    Answer,
    Refused,
    Request,
    document,
    element,
    error,
    http_date,
    moment,
    verify,
)

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_ETAG = re.compile(r'"?([0-9a-f-]+)"?')
# What S3 knows and the simulator does not.
_FOREIGN = frozenset(
    {
        "acl", "accelerate", "analytics", "attributes", "cors", "encryption", "inventory", "legal-hold", "logging",
        "metrics", "notification", "object-lock", "ownershipControls", "policy", "policyStatus", "publicAccessBlock",
        "replication", "requestPayment", "retention", "select", "tagging", "torrent", "versionId", "versioning",
        "versions", "website",
    }
)  # fmt: skip


class Buckets:
    """All buckets of a simulator. Thread-safe: one request at a time, so that a seed gives the same run again."""

    def __init__(self, clock: Clock, *, weather: Weather, min_part_bytes: int = MIN_PART_BYTES) -> None:
        self._clock = clock
        self._weather = weather
        self._min_part_bytes = min_part_bytes
        self._lock = threading.RLock()
        self._shelves: dict[str, Shelf] = {}
        self.ever: list[tuple[str, Shelf]] = []
        """Every bucket there ever was: deleting one does not pay its bill."""

    def create(self, name: str) -> None:
        """`Refused` when there is one of that name."""
        with self._lock:
            if not _BUCKET.fullmatch(name):
                raise Refused(400, "InvalidBucketName")
            if name in self._shelves:
                raise Refused(409, "BucketAlreadyOwnedByYou")
            self._shelves[name] = Shelf(
                self._clock, url=f"s3://{name}", min_part_bytes=self._min_part_bytes, weather=self._weather
            )
            self.ever.append((name, self._shelves[name]))

    def catch_up(self) -> None:
        with self._lock:
            for shelf in self._shelves.values():
                shelf.catch_up()

    def answer(self, request: Request) -> Answer:
        try:
            with self._lock:
                answer = self._answer(request)
        except Refused as refused:
            answer = refused.answer
        except ObjectMissing:
            answer = error(404, "NoSuchUpload" if "uploadId" in request.query else "NoSuchKey")
        except ObjectExists:
            answer = error(412, "PreconditionFailed")
        except ObjectCold:
            more = element("StorageClass", self._shelves[request.bucket].look(request.key).storage_class)
            answer = error(403, "InvalidObjectState", "Its storage class does not allow that.", more)
        except Corrupt as problem:
            answer = error(400, "BadDigest", str(problem))
        except (ValueError, GatewayError) as problem:
            answer = error(400, "InvalidArgument", str(problem))
        if request.method == "HEAD":  # never has a body, in errors too
            length = answer.length if answer.length is not None else 0
            return Answer(status=answer.status, headers=answer.headers, length=length)
        return answer

    def _answer(self, request: Request) -> Answer:
        foreign = _FOREIGN & request.query.keys()
        if foreign or "x-amz-copy-source" in request.headers:
            raise Refused(501, "NotImplemented", f"Not simulated: {', '.join(sorted(foreign)) or 'CopyObject'}.")
        if not request.bucket:
            return self._list_buckets(request)
        if request.method == "PUT" and not request.key and not request.query:
            self.create(request.bucket)
            return Answer(headers={"Location": f"/{request.bucket}"})
        shelf = self._shelves.get(request.bucket)
        if shelf is None:
            raise Refused(404, "NoSuchBucket")
        if request.key:
            return _Objects(request, shelf).answer()
        if request.method == "DELETE" and "lifecycle" not in request.query:
            if shelf.dump():
                raise Refused(409, "BucketNotEmpty")
            del self._shelves[request.bucket]
            return Answer(status=204)
        return _Bucket(request, shelf).answer()

    def _list_buckets(self, request: Request) -> Answer:
        if request.method != "GET":
            raise Refused(405, "MethodNotAllowed")
        one = element("CreationDate", moment(self._clock.now()))
        names = "".join(f"<Bucket>{element('Name', name)}{one}</Bucket>" for name in sorted(self._shelves))
        return document("ListAllMyBucketsResult", f"<Owner><ID>1</ID></Owner><Buckets>{names}</Buckets>")


class _Bucket:
    """Requests to a bucket."""

    def __init__(self, request: Request, shelf: Shelf) -> None:
        self._request = request
        self._query = request.query
        self._shelf = shelf
        self._coded = request.query.get("encoding-type") == "url"

    def answer(self) -> Answer:
        match self._request.method:
            case "HEAD":
                return Answer(headers={"x-amz-bucket-region": "us-east-1"})
            case "GET" if "lifecycle" in self._query:
                return self._rules()
            case "GET" if "location" in self._query:
                return document("LocationConstraint", "")
            case "GET" if "uploads" in self._query:
                return self._uploads()
            case "GET" if self._query.get("list-type") == "2":
                return self._list()
            case "PUT" if "lifecycle" in self._query:
                verify(self._request, required=True)
                return self._new_rules()
            case "DELETE" if "lifecycle" in self._query:
                self._shelf.put_lifecycle(lifecycle_from_xml(b"<LifecycleConfiguration/>", ""))
                return Answer(status=204)
            case "POST" if "delete" in self._query:
                verify(self._request, required=True)
                return self._delete()
        raise Refused(501, "NotImplemented", f"Not simulated: {self._request.method} with {sorted(self._query)}.")

    def _name(self, name: str) -> str:
        return quote(name, safe="/") if self._coded else name

    def _rules(self) -> Answer:
        lifecycle = self._shelf.get_lifecycle()
        if not lifecycle.rules:
            raise Refused(404, "NoSuchLifecycleConfiguration")
        answer = document("LifecycleConfiguration", lifecycle_to_xml(lifecycle))
        small = {"x-amz-transition-default-minimum-object-size": lifecycle.small_objects.value}
        return Answer(body=answer.body, headers=XML | small)

    def _new_rules(self) -> Answer:
        small = self._request.headers.get("x-amz-transition-default-minimum-object-size", "")
        try:
            lifecycle = lifecycle_from_xml(self._request.body, small)
            self._shelf.put_lifecycle(lifecycle)
        except (NotRules, StoreRefused) as problem:
            raise Refused(400, "InvalidRequest", str(problem)) from problem
        return Answer(headers={"x-amz-transition-default-minimum-object-size": lifecycle.small_objects.value})

    def _list(self) -> Answer:
        query = self._query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        token = query.get("continuation-token", "")
        after = _untoken(token) if token else query.get("start-after", "")
        limit = min(int(query.get("max-keys", "1000")), 1000)
        page = self._shelf.page(prefix, after=after, limit=limit, delimiter=delimiter)
        more = page.after if limit else None
        inside = element("Name", self._request.bucket) + element("Prefix", self._name(prefix))
        inside += element("KeyCount", len(page.objects) + len(page.levels)) + element("MaxKeys", limit)
        inside += element("IsTruncated", "true" if more is not None else "false")
        for name in ("delimiter", "start-after"):
            if name in query:
                inside += element({"delimiter": "Delimiter"}.get(name, "StartAfter"), self._name(query[name]))
        if self._coded:
            inside += element("EncodingType", "url")
        if token:
            inside += element("ContinuationToken", token)
        if more is not None:
            inside += element("NextContinuationToken", _token(more))
        thaws = "RestoreStatus" in self._request.headers.get("x-amz-optional-object-attributes", "")
        inside += "".join(self._listed(facts, thaws) for facts in page.objects)
        inside += "".join(
            f"<CommonPrefixes>{element('Prefix', self._name(name))}</CommonPrefixes>" for name in page.levels
        )
        return document("ListBucketResult", inside)

    def _listed(self, facts: ObjectFacts, thaws: bool) -> str:
        assert facts.modified is not None
        one = element("Key", self._name(facts.key)) + element("LastModified", moment(facts.modified))
        one += element("ETag", _etag(self._shelf.look(facts.key))) + element("Size", facts.size)
        one += element("ChecksumAlgorithm", "CRC64NVME") + element("ChecksumType", "FULL_OBJECT")
        one += element("StorageClass", facts.storage_class)
        if thaws and facts.thaw is not None:
            state = element("IsRestoreInProgress", "true" if facts.thaw.in_progress else "false")
            if facts.thaw.until is not None:
                state += element("RestoreExpiryDate", moment(facts.thaw.until))
            one += f"<RestoreStatus>{state}</RestoreStatus>"
        return f"<Contents>{one}</Contents>"

    def _uploads(self) -> Answer:
        query = self._query
        limit = min(int(query.get("max-uploads", "1000")), 1000)
        marker = (query.get("key-marker", ""), query.get("upload-id-marker", "\x7f"))
        found = sorted(self._shelf.list_uploads(query.get("prefix", "")), key=lambda each: (each.key, each.upload_id))
        found = [each for each in found if not marker[0] or (each.key, each.upload_id) > marker]
        page = found[:limit]
        inside = element("Bucket", self._request.bucket) + element("Prefix", self._name(query.get("prefix", "")))
        inside += element("MaxUploads", limit) + element("IsTruncated", "true" if len(page) < len(found) else "false")
        if self._coded:
            inside += element("EncodingType", "url")
        if len(page) < len(found):
            inside += element("NextKeyMarker", self._name(page[-1].key))
            inside += element("NextUploadIdMarker", page[-1].upload_id)
        for each in page:
            assert each.initiated is not None
            one = element("Key", self._name(each.key)) + element("UploadId", each.upload_id)
            inside += f"<Upload>{one}{element('Initiated', moment(each.initiated))}</Upload>"
        return document("ListMultipartUploadsResult", inside)

    def _delete(self) -> Answer:
        root = _xml(self._request.body)
        quiet = _text(root, "Quiet") == "true"
        inside = ""
        for each in [child for child in root if _tag(child) == "Object"]:
            key = _text(each, "Key")
            try:
                self._shelf.delete(key)
            except ValueError as problem:
                one = element("Key", key) + element("Code", "InvalidArgument") + element("Message", problem)
                inside += f"<Error>{one}</Error>"
            else:
                inside += "" if quiet else f"<Deleted>{element('Key', key)}</Deleted>"
        return document("DeleteResult", inside)


class _Objects:
    """Requests to an object or to an upload."""

    def __init__(self, request: Request, shelf: Shelf) -> None:
        self._request = request
        self._query = request.query
        self._headers = request.headers
        self._key = request.key
        self._shelf = shelf

    def answer(self) -> Answer:
        upload_id = self._query.get("uploadId", "")
        match self._request.method:
            case "PUT" if upload_id:
                return self._part(upload_id)
            case "PUT":
                return self._put()
            case "POST" if "uploads" in self._query:
                return self._start()
            case "POST" if upload_id:
                return self._complete(upload_id)
            case "POST" if "restore" in self._query:
                return self._restore()
            case "DELETE" if upload_id:
                self._shelf.abort_upload(self._key, upload_id)
                return Answer(status=204)
            case "DELETE":
                self._shelf.delete(self._key)
                return Answer(status=204)
            case "GET" if upload_id:
                return self._parts(upload_id)
            case "GET":
                return self._get()
            case "HEAD":
                facts = self._shelf.head(self._key)
                return Answer(headers=self._described(facts), length=facts.size)
        raise Refused(405, "MethodNotAllowed")

    def _put(self) -> Answer:
        echo = verify(self._request)
        condition = self._headers.get("if-none-match")
        if condition not in (None, "*") or "if-match" in self._headers:
            raise Refused(501, "NotImplemented", "Of the conditions only If-None-Match: * is simulated.")
        if len(self._request.body) > MAX_PUT_BYTES:
            raise Refused(400, "EntityTooLarge", f"Simulated up to {MAX_PUT_BYTES} bytes in one PUT.")
        facts = self._shelf.put(
            self._key, self._request.body, crc64=crc64(self._request.body), storage_class=self._class(),
            if_absent=condition == "*",
        )  # fmt: skip
        return Answer(headers=echo | {"ETag": _etag(facts)})

    def _class(self) -> str:
        name = self._headers.get("x-amz-storage-class", "STANDARD")
        if name not in ("STANDARD", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"):
            raise Refused(400, "InvalidStorageClass")
        return name

    def _start(self) -> Answer:
        upload_id = self._shelf.start_upload(self._key, storage_class=self._class())
        inside = element("Bucket", self._request.bucket) + element("Key", self._key) + element("UploadId", upload_id)
        answer = document("InitiateMultipartUploadResult", inside)
        asked = {
            name: self._headers[name]
            for name in ("x-amz-checksum-algorithm", "x-amz-checksum-type")
            if name in self._headers
        }
        return Answer(body=answer.body, headers=XML | asked)

    def _part(self, upload_id: str) -> Answer:
        echo = verify(self._request)
        body = self._request.body
        part = self._shelf.put_part(self._key, upload_id, int(self._query["partNumber"]), body, crc64=crc64(body))
        return Answer(headers=echo | {"ETag": part.etag})

    def _parts(self, upload_id: str) -> Answer:
        limit = min(int(self._query.get("max-parts", "1000")), 1000)
        marker = int(self._query.get("part-number-marker", "0"))
        found = [part for part in self._shelf.list_parts(self._key, upload_id) if part.number > marker]
        page = found[:limit]
        inside = element("Bucket", self._request.bucket) + element("Key", self._key) + element("UploadId", upload_id)
        inside += element("PartNumberMarker", marker) + element("MaxParts", limit)
        inside += element("IsTruncated", "true" if len(page) < len(found) else "false")
        inside += element("NextPartNumberMarker", page[-1].number if page else marker)
        for part in page:
            one = element("PartNumber", part.number) + element("ETag", part.etag) + element("Size", part.size)
            one += element("LastModified", moment(self._shelf.now()))
            inside += f"<Part>{one}{element('ChecksumCRC64NVME', encode(part.crc64 or 0))}</Part>"
        return document("ListPartsResult", inside)

    def _complete(self, upload_id: str) -> Answer:
        if self._headers.get("if-none-match") == "*" and self._exists():
            raise Refused(412, "PreconditionFailed")
        chosen = [_chosen(each) for each in _xml(self._request.body) if _tag(each) == "Part"]
        if not chosen:
            raise Refused(400, "MalformedXML")
        held = {part.number: part for part in self._shelf.list_parts(self._key, upload_id)}
        named = [held[number] for number, _, _ in chosen if number in held]
        for number, etag, stated in chosen:
            part = held.get(number)
            if part is None or part.etag.strip('"') != etag or stated not in ("", encode(part.crc64 or 0)):
                raise Refused(400, "InvalidPart")
        size = sum(part.size for part in named)
        crc = combine_all((part.crc64 or 0, part.size) for part in named)
        if self._headers.get("x-amz-mp-object-size", str(size)) != str(size):
            raise Refused(400, "InvalidRequest", "The parts have another size than x-amz-mp-object-size.")
        if self._headers.get("x-amz-checksum-crc64nvme", encode(crc)) != encode(crc):
            raise Refused(400, "BadDigest")
        self._complete_with(upload_id, named, size, crc)
        inside = element("Location", f"/{self._request.bucket}/{self._key}") + element("Bucket", self._request.bucket)
        inside += element("Key", self._key) + element("ETag", _etag(self._shelf.look(self._key)))
        inside += element("ChecksumCRC64NVME", encode(crc)) + element("ChecksumType", "FULL_OBJECT")
        return document("CompleteMultipartUploadResult", inside)

    def _complete_with(self, upload_id: str, parts: list[Part], size: int, crc: int) -> None:
        try:
            self._shelf.complete_upload(self._key, upload_id, parts, size=size, crc64=crc)
        except StoreRefused as problem:
            code = "EntityTooSmall" if "small" in str(problem) else "InvalidPartOrder"
            raise Refused(400, code, str(problem)) from problem

    def _exists(self) -> bool:
        try:
            self._shelf.look(self._key)
        except ObjectMissing:
            return False
        return True

    def _restore(self) -> Answer:
        root = _xml(self._request.body)
        inner = next((child for child in root if _tag(child) == "GlacierJobParameters"), root)
        days, tier = _text(root, "Days"), _text(inner, "Tier") or "Standard"
        if not days.isdigit():
            raise Refused(400, "MalformedXML", "Days are missing.")
        match self._shelf.thaw(self._key, days=int(days), tier=ThawTier(tier)):
            case ThawAnswer.STARTED:
                return Answer(status=202)
            case ThawAnswer.EXTENDED:
                return Answer()
            case ThawAnswer.RUNNING:
                return error(409, "RestoreAlreadyInProgress")
            case ThawAnswer.NO_CAPACITY:
                return error(503, "GlacierExpeditedRetrievalNotAvailable")
            case ThawAnswer.NEVER_COLD:
                return error(403, "InvalidObjectState", "Restore is not allowed for its storage class.")

    def _get(self) -> Answer:
        if not self._exists():
            self._shelf.get(self._key)  # raises, and is a request like any other
        facts = self._shelf.look(self._key)
        asked = _range(self._headers.get("range", ""), facts.size)
        if asked is None:
            return Answer(body=self._shelf.get(self._key), headers=self._described(facts))
        start, end = asked
        body = self._shelf.get(self._key, start=start, length=end - start)
        headers = self._described(facts, whole=False) | {"Content-Range": f"bytes {start}-{end - 1}/{facts.size}"}
        return Answer(status=206, body=body, headers=headers)

    def _described(self, facts: ObjectFacts, *, whole: bool = True) -> dict[str, str]:
        assert facts.modified is not None
        found = {
            "ETag": _etag(facts), "Last-Modified": http_date(facts.modified), "Accept-Ranges": "bytes",
            "Content-Type": "binary/octet-stream",
        }  # fmt: skip
        if facts.storage_class != "STANDARD":
            found["x-amz-storage-class"] = facts.storage_class
        if facts.thaw is not None:
            found["x-amz-restore"] = restore_header(facts.thaw)
        if whole and self._headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
            found |= {"x-amz-checksum-crc64nvme": encode(facts.crc64 or 0), "x-amz-checksum-type": "FULL_OBJECT"}
        return found


def restore_header(thaw: Thaw) -> str:
    if thaw.until is None:
        return 'ongoing-request="true"'
    return f'ongoing-request="false", expiry-date="{http_date(thaw.until)}"'


def _range(text: str, size: int) -> tuple[int, int] | None:
    """The bytes ``[start, end)`` that a Range header asks for; None: all of them."""
    match = _RANGE.fullmatch(text)
    if match is None or match[0] == "bytes=-":
        return None
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(int(match[2]) + 1 if match[2] else size, size)
        if match[2] and int(match[2]) < int(match[1]):
            return None  # not a range at all, RFC 9110
    if start >= end:
        raise Refused(416, "InvalidRange", more=element("ActualObjectSize", size))
    return start, end


def _etag(facts: ObjectFacts) -> str:
    return f'"{facts.crc64 or 0:016x}-{facts.size}"'


def _token(after: str) -> str:
    return base64.urlsafe_b64encode(after.encode()).decode()


def _untoken(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except ValueError:
        raise Refused(400, "InvalidArgument", "The continuation token is not one of ours.") from None


def _xml(body: bytes) -> ET.Element:
    try:
        return ET.fromstring(body)
    except ET.ParseError:
        malformed()


def malformed() -> NoReturn:
    raise Refused(400, "MalformedXML")


def _tag(node: ET.Element) -> str:
    return node.tag.rpartition("}")[2]


def _text(node: ET.Element, name: str) -> str:
    return next((child.text or "" for child in node if _tag(child) == name), "")


def _chosen(node: ET.Element) -> tuple[int, str, str]:
    """Number, ETag and stated CRC64NVME of a part in a completion."""
    match = _ETAG.fullmatch(_text(node, "ETag"))
    if match is None:
        malformed()
    return int(_text(node, "PartNumber")), match[1], _text(node, "ChecksumCRC64NVME")
