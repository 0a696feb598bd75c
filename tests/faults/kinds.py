"""What can go wrong between the gateway and a store, as data: one `Kind` a fault, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from gateway.errors import (
    AnswerUnknown,
    ClockSkew,
    Conflict,
    GatewayError,
    IntegrityError,
    NoRepository,
    NotReady,
    ObjectCold,
    ObjectExists,
    ObjectMissing,
    StoreDenied,
    StoreRefused,
    StoreUnreachable,
    WrongKey,
)
from gateway.store.crc import decode, encode
from gateway.store.port import ObjectFacts
from tests.faults.truth import S3, XML, Answer, Request, error, listing

HTML = b"<html><body>Welcome to the hotel's network. Please log in.</body></html>"


class Wire(Enum):
    """How an answer travels."""

    WHOLE = "whole"
    RESET_EARLY = "reset before the request's body was read"
    RESET = "reset instead of an answer"
    STALL = "nothing, until the client gives up"
    CUT_HEAD = "reset in the middle of the headers"
    CUT_BODY = "reset in the middle of the body"
    TRICKLE = "a few bytes at a time"


Change = Callable[[Request, Answer | None, S3], Answer]
Errors = tuple[type[GatewayError], ...]

PUTS = frozenset({"put-header", "put-wrap", "put-entry", "put-index", "put-pack"})
BIRTH = frozenset({"put-slot", "put-repository"})
WRITES = PUTS | BIRTH | {"part", "start", "complete"}
READS = frozenset({"get", "range", "head", "list", "parts"})
ALL = WRITES | READS
WITH_BODY = frozenset({"get", "range", "list", "parts", "start", "complete"})
WITH_XML = frozenset({"list", "parts", "start", "complete"})
UNCLEAR: Errors = (StoreUnreachable, AnswerUnknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """`acts`: the server does what was asked. `change` makes the answer, of the true one where the server acted.

    `operations`: those it makes sense for. `ridden`: once or a few times in a row, it must not be noticed by the
    user; for ever, it ends in one of `errors`. Otherwise one of `errors` may come of it at once (`fatal`: must).
    `script`: the same fault at the port, for `gateway.store.faults`.
    """

    acts: bool = False
    change: Change | None = None
    wire: Wire = Wire.WHOLE
    race: bool = False
    twice: bool = False
    operations: frozenset[str] = ALL
    ridden: bool = False
    fatal: bool = False
    errors: Errors = ()
    of_a_slot: Errors = ()
    """Further ones where a key slot was what was harmed."""
    script: str = ""


def say(answer: Answer) -> Change:
    return lambda request, truth, s3: answer


def page(status: int, **headers: str) -> Change:
    """An HTML page of something that is not S3."""
    named = {name.replace("_", "-"): value for name, value in headers.items()} | {"Content-Type": "text/html"}
    return say(Answer(status=status, body=HTML, headers=named))


def header(name: str, make: Callable[[str], str | None]) -> Change:
    """The true answer with one header changed, or without it."""

    def change(request: Request, truth: Answer | None, s3: S3) -> Answer:
        assert truth is not None
        if name not in truth.headers:
            return truth
        headers = dict(truth.headers)
        value = make(headers.pop(name))
        return replace(truth, headers=headers | ({} if value is None else {name: value}))

    return change


def body(make: Callable[[Request, bytes], bytes]) -> Change:
    def change(request: Request, truth: Answer | None, s3: S3) -> Answer:
        assert truth is not None
        return replace(truth, body=make(request, truth.body))

    return change


def pages(make: Callable[[str, list[ObjectFacts]], Answer]) -> Change:
    """Another page of a listing than the true one, made of the prefix and all its objects."""

    def change(request: Request, truth: Answer | None, s3: S3) -> Answer:
        prefix = request.query.get("prefix", "")
        after = request.query.get("continuation-token") or request.query.get("start-after", "")
        return make(prefix, list(s3.store.list_objects(prefix, after=after)))

    return change


def flipped(request: Request, data: bytes) -> bytes:
    copy = bytearray(data)
    if copy:
        copy[len(copy) // 2] ^= 1
    return bytes(copy)


def half_range(request: Request, truth: Answer | None, s3: S3) -> Answer:
    """The first half of the range that was asked for, honestly labelled."""
    assert truth is not None
    if truth.status != 206 or len(truth.body) < 2:
        return truth
    first, _, rest = truth.headers["Content-Range"].removeprefix("bytes ").partition("-")
    total, cut = rest.partition("/")[2], truth.body[: len(truth.body) // 2]
    named = f"bytes {first}-{int(first) + len(cut) - 1}/{total}"
    return replace(truth, body=cut, headers=dict(truth.headers) | {"Content-Range": named})


def other_range(request: Request, truth: Answer | None, s3: S3) -> Answer:
    assert truth is not None
    if truth.status != 206:
        return truth
    first, _, rest = truth.headers["Content-Range"].removeprefix("bytes ").partition("-")
    last, _, total = rest.partition("/")
    named = f"bytes {int(first) + 1}-{int(last) + 1}/{int(total) + 1}"
    return replace(truth, headers=dict(truth.headers) | {"Content-Range": named})


def whole_object(request: Request, truth: Answer | None, s3: S3) -> Answer:
    return Answer(body=s3.store.get(request.key), headers={"ETag": '"x"'})


def wrong_size(request: Request, truth: Answer | None, s3: S3) -> Answer:
    assert truth is not None
    return truth if truth.length is None else replace(truth, length=truth.length + 1)


def without_newest(request: Request, truth: Answer | None, s3: S3) -> Answer:
    """A listing that has not seen the last object yet."""
    prefix = request.query.get("prefix", "")
    found = list(s3.store.list_objects(prefix, after=request.query.get("start-after", "")))
    newest = max(found, key=lambda facts: (facts.modified, facts.key), default=None)
    return listing(prefix, [facts for facts in found if facts is not newest], "")


RETRIED: dict[str, Kind] = {
    "slow-down": Kind(change=say(error(503, "SlowDown")), script="503"),
    "unavailable-page": Kind(change=page(503), script="503"),
    "internal-error": Kind(change=say(error(500, "InternalError")), script="timeout"),
    "internal-error-done": Kind(acts=True, change=say(error(500, "InternalError")), script="lost"),
    "too-many-requests": Kind(change=say(error(429, "TooManyRequests")), script="503"),
    "bad-gateway": Kind(change=page(502), script="timeout"),
    "gateway-timeout-done": Kind(acts=True, change=page(504), script="lost"),
    "reset-early": Kind(wire=Wire.RESET_EARLY, script="timeout"),
    "reset-after-read": Kind(wire=Wire.RESET, script="timeout"),
    "reset-after-commit": Kind(acts=True, wire=Wire.RESET, script="lost"),
    "torn-headers": Kind(acts=True, wire=Wire.CUT_HEAD, script="lost"),
    "stall": Kind(wire=Wire.STALL, script="timeout"),
    "stall-done": Kind(acts=True, wire=Wire.STALL, script="lost"),
    "torn-body": Kind(acts=True, wire=Wire.CUT_BODY, operations=WITH_BODY),
    "success-that-is-an-error": Kind(change=say(error(200, "InternalError"))),
    "success-empty": Kind(change=say(Answer())),
    "success-empty-done": Kind(acts=True, change=say(Answer()), operations=WRITES),
    "success-page": Kind(change=page(200)),
    "success-page-done": Kind(acts=True, change=page(200), operations=WRITES),
    "garbage-xml": Kind(
        acts=True, change=say(Answer(body=b"<?xml version='1.0'?><A><B>&&<", headers=XML)), operations=WITH_XML
    ),
    "request-timeout": Kind(change=say(error(400, "RequestTimeout"))),
    "not-found-page": Kind(change=page(404)),
    "redirect-to-portal": Kind(change=page(302, Location="http://portal.invalid/login")),
    "redirect-307": Kind(change=page(307, Location="http://127.0.0.1:9/elsewhere")),
    "conflict": Kind(change=say(error(409, "ConditionalRequestConflict")), operations=WRITES, script="409"),
    "operation-aborted": Kind(change=say(error(409, "OperationAborted")), operations=WRITES, script="409"),
    "bad-digest": Kind(change=say(error(400, "BadDigest")), operations=PUTS | BIRTH | {"part"}),
    "incomplete-body": Kind(change=say(error(400, "IncompleteBody")), operations=PUTS | BIRTH | {"part"}),
    "no-etag": Kind(
        acts=True, change=header("ETag", lambda value: None), operations=PUTS | BIRTH | {"part", "get", "range", "head"}
    ),
    "checksum-that-is-none": Kind(
        acts=True, change=header("x-amz-checksum-crc64nvme", lambda value: "AAAA"),
        operations=PUTS | BIRTH | {"part", "head"},
    ),
    "another-key": Kind(
        acts=True, change=body(lambda request, data: data.replace(b"<Key>", b"<Key>x")),
        operations=frozenset({"start", "complete", "parts"}),
    ),
    "head-not-found": Kind(change=say(Answer(status=404)), operations=frozenset({"head"})),
    "range-ignored": Kind(change=whole_object, operations=frozenset({"range"})),
    "range-of-others": Kind(acts=True, change=other_range, operations=frozenset({"range"})),
    "range-half": Kind(acts=True, change=half_range, operations=frozenset({"range"})),
    "list-cut-no-token": Kind(
        change=pages(lambda prefix, found: listing(prefix, found, "", truncated="true")), operations=frozenset({"list"})
    ),
    "list-wrong-count": Kind(
        change=pages(lambda prefix, found: listing(prefix, found, "", count=len(found) + 1)),
        operations=frozenset({"list"}),
    ),
    "list-twice-the-same": Kind(
        change=pages(lambda prefix, found: listing(prefix, [*found, *found[-1:]], "", count=None if found else 1)),
        operations=frozenset({"list"}),
    ),
    "list-of-others": Kind(
        change=pages(lambda prefix, found: listing(f"x{prefix}", found, "")), operations=frozenset({"list"})
    ),
    "list-in-a-circle": Kind(
        change=pages(lambda prefix, found: listing(prefix, found, prefix or "a")), operations=frozenset({"list"})
    ),
}  # fmt: skip

UNNOTICED: dict[str, Kind] = {
    "slow-trickle": Kind(acts=True, wire=Wire.TRICKLE),
    "delivered-twice": Kind(acts=True, twice=True),
    "no-checksum": Kind(
        acts=True, change=header("x-amz-checksum-crc64nvme", lambda value: None),
        operations=PUTS | BIRTH | {"part", "head", "get"},
    ),
    "another-class": Kind(
        acts=True, change=header("x-amz-storage-class", lambda value: "DEEP_ARCHIVE"), operations=frozenset({"head"})
    ),
    "list-one-by-one": Kind(
        change=pages(lambda prefix, found: listing(prefix, found[:1], found[0].key if len(found) > 1 else "")),
        operations=frozenset({"list"}),
    ),
    "exists-but-ours": Kind(
        acts=True, change=say(error(412, "PreconditionFailed")), operations=(PUTS | BIRTH) - {"put-pack"}
    ),
}  # fmt: skip

_DENIED: Errors = (StoreDenied,)
FATAL: dict[str, Kind] = {
    "clock-skew": Kind(change=say(error(403, "RequestTimeTooSkewed")), errors=(ClockSkew,), script="skew"),
    "expired-token": Kind(change=say(error(400, "ExpiredToken")), errors=_DENIED, script="denied"),
    "access-denied": Kind(change=say(error(403, "AccessDenied")), errors=_DENIED, script="denied"),
    "unknown-access-key": Kind(change=say(error(403, "InvalidAccessKeyId")), errors=_DENIED, script="denied"),
    "unauthorized-page": Kind(change=page(401), errors=_DENIED),
    "no-bucket": Kind(change=say(error(404, "NoSuchBucket")), errors=(StoreRefused,), operations=ALL - {"head"}),
    "invalid-request": Kind(
        change=say(error(400, "InvalidArgument")), errors=(StoreRefused,), operations=ALL - {"head"}, script="refused"
    ),
}

_DAMAGE: Errors = (IntegrityError, ObjectMissing, NoRepository, *UNCLEAR)
# Of the slots, too, only some may be listed: then none that is seen opens.
_HIDDEN: Errors = (*_DAMAGE, Conflict, ObjectExists, WrongKey)
EITHER: dict[str, Kind] = {
    "redirect-to-region": Kind(
        change=say(replace(error(301, "PermanentRedirect"), headers=XML | {"x-amz-bucket-region": "eu-west-1"})),
        errors=(StoreRefused, *UNCLEAR),
    ),
    "wrong-etag": Kind(
        acts=True, change=header("ETag", lambda value: '"0123456789abcdef"'), errors=(StoreRefused,),
        operations=PUTS | BIRTH | {"part", "head", "get", "range"},
    ),
    "wrong-checksum": Kind(
        acts=True, change=header("x-amz-checksum-crc64nvme", lambda value: encode(decode(value) ^ 1)),
        errors=_DAMAGE, operations=PUTS | BIRTH | {"part", "head", "get"},
    ),
    "wrong-size": Kind(acts=True, change=wrong_size, errors=_DAMAGE, operations=frozenset({"head"})),
    "flipped-bit": Kind(
        acts=True, change=body(flipped), errors=_DAMAGE, operations=frozenset({"get", "range"}), script="flip",
        of_a_slot=(WrongKey,),  # nobody can tell it from one made with something else
    ),
    "not-found": Kind(
        change=say(error(404, "NoSuchKey")), errors=_DAMAGE, operations=frozenset({"get", "range"}), script="missing"
    ),
    "no-upload": Kind(
        change=say(error(404, "NoSuchUpload")), errors=(ObjectMissing,),
        operations=frozenset({"part", "parts", "complete"}), script="missing",
    ),
    "invalid-part": Kind(
        change=say(error(400, "InvalidPart")), errors=(StoreRefused,), operations=frozenset({"complete"})
    ),
    "behind-the-end": Kind(
        change=say(error(416, "InvalidRange")), errors=_DAMAGE, operations=frozenset({"get", "range"}), script="short"
    ),
    "cold": Kind(
        change=say(error(403, "InvalidObjectState")), errors=(ObjectCold, NotReady, *_DAMAGE),
        operations=frozenset({"get", "range"}), script="cold",
    ),
    "list-stale": Kind(
        change=without_newest, errors=_HIDDEN, operations=frozenset({"list"}), script="stale"
    ),
    "list-half": Kind(
        change=pages(lambda prefix, found: listing(prefix, found[: len(found) // 2], "")),
        errors=_HIDDEN, operations=frozenset({"list"}),
    ),
    "list-empty": Kind(
        change=pages(lambda prefix, found: listing(prefix, [], "")),
        errors=_HIDDEN, operations=frozenset({"list"}),
    ),
}  # fmt: skip

_LASTING: Errors = (*UNCLEAR, Conflict)
KINDS: dict[str, Kind] = (
    {name: replace(kind, ridden=True, errors=_LASTING) for name, kind in RETRIED.items()}
    | {name: replace(kind, ridden=True) for name, kind in UNNOTICED.items()}
    | {name: replace(kind, fatal=True) for name, kind in FATAL.items()}
    | EITHER
)
KINDS["race"] = Kind(acts=True, race=True, ridden=True, operations=frozenset({"put-header", "put-entry"}))
