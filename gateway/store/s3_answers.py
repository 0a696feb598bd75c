"""What an S3 store may answer, and what that means: pure functions over answers already parsed from XML and headers.

The client library takes an empty body, an HTML page or a false checksum for success. Every answer passes through
here before anything is believed: what lacks a member that S3 always sends, or contradicts the question, is a
`NotAnAnswer`, and the store decides what that means for the request at hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from gateway.errors import (
    AnswerUnknown,
    ClockSkew,
    Conflict,
    Corrupt,
    ObjectCold,
    ObjectExists,
    ObjectMissing,
    StoreDenied,
    StoreError,
    StoreRefused,
    StoreUnreachable,
)
from gateway.store.crc import decode
from gateway.store.lifecycle import ARCHIVED
from gateway.store.port import ObjectFacts, Part, Thaw, ThawAnswer, Upload

Answer = Mapping[str, Any]

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_RESTORE = re.compile(r'ongoing-request="(true|false)"(?:, *expiry-date="([^"]+)")?')


class NotAnAnswer(Exception):
    """What came back is no S3 answer to what was asked."""


def member(answer: Answer, name: str, kind: type, expected: object = None) -> Any:
    """A member that S3 always sends, of the right type and, where `expected` is given, of that very value."""
    value = answer.get(name)
    if not isinstance(value, kind) or (kind is str and not value):
        raise NotAnAnswer(f"it has no {name}")
    if expected is not None and value != expected:
        raise NotAnAnswer(f"its {name} is {value!r:.80}, not {expected!r:.80}")
    return value


def stated_crc(answer: Answer) -> int | None:
    """The CRC64NVME of the full object that an answer states; composite and absent ones are None."""
    value = answer.get("ChecksumCRC64NVME")
    if not value or answer.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    try:
        return decode(member(answer, "ChecksumCRC64NVME", str))
    except ValueError as error:
        raise NotAnAnswer(f"its checksum is {value!r:.40}") from error


def check_stored(answer: Answer, crc64: int) -> str:
    """The ETag of an answer to PUT or to a part; its checksum, where there is one, must be ours and its body empty."""
    etag: str = member(answer, "ETag", str)
    check_empty(answer)
    crc = stated_crc(answer)
    if crc is not None and crc != crc64:
        raise NotAnAnswer(f"it states the checksum {crc:016x}, not {crc64:016x}")
    return etag


def check_empty(answer: Answer) -> None:
    """An answer that says all it has to say by its status: any body is somebody else's."""
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise NotAnAnswer("it has a body")


def check_gone(answer: Answer) -> None:
    """The answer to DELETE and to an abort is 204, or an empty 200."""
    metadata = answer.get("ResponseMetadata", {})
    empty = metadata.get("HTTPHeaders", {}).get("content-length") == "0"
    if metadata.get("HTTPStatusCode") != 204 and not empty:
        raise NotAnAnswer("it is not that of a deletion")


def thaw_of(answer: Answer) -> ThawAnswer:
    """What an answer to RestoreObject means that is no error."""
    check_empty(answer)
    match answer.get("ResponseMetadata", {}).get("HTTPStatusCode"):
        case 202:
            return ThawAnswer.STARTED
        case 200:
            return ThawAnswer.EXTENDED
        case status:
            raise NotAnAnswer(f"its status is {status}")


def refused_thaw(refusal: Refusal) -> ThawAnswer | None:
    """What an error answer to RestoreObject means where it is no failure; None: it is one."""
    return {
        "RestoreAlreadyInProgress": ThawAnswer.RUNNING,
        "GlacierExpeditedRetrievalNotAvailable": ThawAnswer.NO_CAPACITY,
        "InvalidObjectState": ThawAnswer.NEVER_COLD,
        "ObjectAlreadyInActiveTierError": ThawAnswer.NEVER_COLD,
    }.get(refusal.code)


def thaw_of_header(answer: Answer) -> Thaw | None:
    """What the header ``x-amz-restore`` of a HEAD says: ``ongoing-request="false", expiry-date="..."``."""
    said = answer.get("Restore")
    if not said:
        return None
    match = _RESTORE.fullmatch(said)
    if match is None or (match[1] == "false") is not bool(match[2]):
        raise NotAnAnswer(f"its thaw is {said!r:.80}")
    if match[1] == "true":
        return Thaw(in_progress=True)
    try:
        return Thaw(in_progress=False, until=parsedate_to_datetime(match[2]).astimezone(UTC))
    except ValueError as error:
        raise NotAnAnswer(f"its thaw ends on {match[2]!r:.40}") from error


def _thaw_of_listing(each: Answer) -> Thaw | None:
    said = each.get("RestoreStatus")
    if not said or each.get("StorageClass") not in ARCHIVED:
        return None
    if said.get("IsRestoreInProgress"):
        return Thaw(in_progress=True)
    until = said.get("RestoreExpiryDate")
    return Thaw(in_progress=False, until=until) if until is not None else None


def facts_of_head(answer: Answer, key: str) -> ObjectFacts:
    """What HEAD says about an object. An answer without ETag and date is none: any web server answers 200."""
    member(answer, "ETag", str)
    return ObjectFacts(
        key=key,
        size=member(answer, "ContentLength", int),
        crc64=stated_crc(answer),
        storage_class=answer.get("StorageClass") or "STANDARD",
        modified=member(answer, "LastModified", datetime),
        version=version_of(answer),
        thaw=thaw_of_header(answer),
        locked_until=_lock_of(answer),
        legal_hold=answer.get("ObjectLockLegalHoldStatus") == "ON",
    )


def _lock_of(answer: Answer) -> datetime | None:
    if answer.get("ObjectLockRetainUntilDate") is None:
        return None
    until: datetime = member(answer, "ObjectLockRetainUntilDate", datetime)
    return until.astimezone(UTC)


def version_of(answer: Answer) -> str | None:
    """The VersionId of what was written or found; None in a bucket without versions."""
    version = answer.get("VersionId")
    return version if isinstance(version, str) and version != "null" else None


def whole_length(answer: Answer) -> int:
    """How many bytes the body of an unranged GET must have."""
    member(answer, "ETag", str)
    if answer.get("ResponseMetadata", {}).get("HTTPStatusCode") != 200:
        raise NotAnAnswer("it is not the whole object")
    length: int = member(answer, "ContentLength", int)
    return length


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The bytes ``[start, end)`` of an object of `total` bytes."""

    start: int
    end: int
    total: int


def range_of(answer: Answer) -> Range:
    """Which bytes the body of a ranged GET holds, as the store says."""
    member(answer, "ETag", str)
    if answer.get("ResponseMetadata", {}).get("HTTPStatusCode") != 206:
        raise NotAnAnswer("the range was ignored")
    match = _CONTENT_RANGE.fullmatch(answer.get("ContentRange") or "")
    if match is None:
        raise NotAnAnswer(f"its Content-Range is {answer.get('ContentRange')!r:.40}")
    first, last, total = map(int, match.groups())
    if not first <= last < total or answer.get("ContentLength") != last + 1 - first:
        raise NotAnAnswer("its Content-Range and Content-Length contradict each other")
    return Range(start=first, end=last + 1, total=total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of a listing: objects, and the names of "directories" where the listing asked for a level only."""

    objects: tuple[ObjectFacts, ...]
    levels: tuple[str, ...]
    token: str | None


def page_of(answer: Answer, *, bucket: str, prefix: str) -> Page:
    """A page of ListObjectsV2. Keys are the bucket's; order is for the caller to check."""
    member(answer, "Name", str, bucket)
    if (answer.get("Prefix") or "") != prefix:
        raise NotAnAnswer("it lists another prefix")
    contents = answer.get("Contents") or []
    levels = tuple(member(each, "Prefix", str) for each in answer.get("CommonPrefixes") or [])
    member(answer, "KeyCount", int, len(contents) + len(levels))
    token = _token(answer, "NextContinuationToken")
    if token and not contents and not levels:
        raise NotAnAnswer("an empty page is said to be continued")
    objects = []
    for each in contents:
        size: int = member(each, "Size", int)
        objects.append(
            ObjectFacts(
                key=member(each, "Key", str),
                size=size,
                storage_class=each.get("StorageClass") or "STANDARD",
                modified=member(each, "LastModified", datetime),
                thaw=_thaw_of_listing(each),
            )
        )
    for name in (*(facts.key for facts in objects), *levels):
        if not name.startswith(prefix):
            raise NotAnAnswer(f"it lists {name!r:.80}, which is not below the prefix")
    return Page(objects=tuple(objects), levels=levels, token=token)


def _token(answer: Answer, name: str) -> str | None:
    """Where the next page begins; present if and only if the page says that it was cut."""
    truncated: bool = member(answer, "IsTruncated", bool)
    token = answer.get(name)
    if truncated and not token:
        raise NotAnAnswer(f"it is cut, but has no {name}")
    return str(token) if truncated else None


def parts_of(answer: Answer, *, bucket: str, key: str, upload_id: str) -> tuple[list[Part], int | None]:
    """A page of ListParts and the marker of the next.

    SeaweedFS lists a part that was sent twice twice, while AWS keeps the last only: so the newest of a number counts.
    """
    member(answer, "Bucket", str, bucket)
    member(answer, "Key", str, key)
    member(answer, "UploadId", str, upload_id)
    newest: dict[int, tuple[datetime, Part]] = {}
    for each in answer.get("Parts") or []:
        part = Part(
            number=member(each, "PartNumber", int),
            size=member(each, "Size", int),
            etag=member(each, "ETag", str),
            crc64=stated_crc({"ChecksumCRC64NVME": each.get("ChecksumCRC64NVME")}),
        )
        if newest and part.number < max(newest):
            raise NotAnAnswer("its parts are not in ascending order")
        sent: datetime = member(each, "LastModified", datetime)
        if part.number not in newest or sent >= newest[part.number][0]:
            newest[part.number] = (sent, part)
    parts = [part for _, part in newest.values()]
    numbers = list(newest)
    token = _token(answer, "NextPartNumberMarker")
    if token is not None and (not numbers or int(token) < numbers[-1]):
        raise NotAnAnswer("its marker does not go forward")
    return parts, None if token is None else int(token)


def uploads_of(answer: Answer, *, bucket: str) -> tuple[list[Upload], tuple[str, str] | None]:
    """A page of ListMultipartUploads (keys are the bucket's) and the two markers of the next."""
    member(answer, "Bucket", str, bucket)
    uploads = [
        Upload(
            key=member(each, "Key", str),
            upload_id=member(each, "UploadId", str),
            initiated=member(each, "Initiated", datetime),
        )
        for each in answer.get("Uploads") or []
    ]
    marker = _token(answer, "NextKeyMarker")
    if marker is None:
        return uploads, None
    if not uploads:
        raise NotAnAnswer("an empty page is said to be continued")
    return uploads, (marker, answer.get("NextUploadIdMarker") or "")


# Error codes of S3 ("List of error codes" in its API reference) by what the caller can do about them.
_DENIED = frozenset(
    {
        "AccessDenied", "AccountProblem", "AllAccessDisabled", "ExpiredToken", "ExpiredTokenException", "Forbidden",
        "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidSecurity", "InvalidToken", "NotSignedUp",
        "SignatureDoesNotMatch", "TokenRefreshRequired", "UnauthorizedAccess", "UnrecognizedClientException",
    }
)  # fmt: skip
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_NOT_DONE = frozenset(
    {
        "BandwidthLimitExceeded", "ClientTokenConflict", "IncompleteBody", "RequestLimitExceeded", "RequestThrottled",
        "RequestThrottledException", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling",
        "ThrottlingException", "TooManyRequests", "TooManyRequestsException",
    }
)  # fmt: skip
_DAMAGED = frozenset({"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"})
_ELSEWHERE = frozenset(
    {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect", "TemporaryRedirect"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error answer: S3's code (empty or the bare status where it gave none), the status and S3's own words."""

    code: str
    status: int
    message: str = ""
    server_time: str = ""


def refusal_of(error: BaseException | None) -> Refusal:
    """The error answer inside an exception of the client library; an empty one where there is none."""
    response = getattr(error, "response", None)
    if not isinstance(response, Mapping):
        response = {}
    said = response.get("Error", {})
    return Refusal(
        code=str(said.get("Code") or ""),
        status=int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0),
        message=str(said.get("Message") or ""),
        server_time=str(said.get("ServerTime") or ""),
    )


def is_damage(refusal: Refusal) -> bool:
    """Whether the store says that the bytes which arrived are not those that were sent."""
    return refusal.code in _DAMAGED


def error_of(refusal: Refusal, *, what: str, writes: bool) -> StoreError | Corrupt:
    """The port's error for an error answer. `what` is a clause: ``write chains/a/...``."""
    code, status = refusal.code, refusal.status
    said = f"{code}: {refusal.message}" if refusal.message and refusal.message != code else code
    text = f"Cannot {what}: the store says {status} {said}".rstrip(".") + "."
    if code == "NoSuchBucket":
        return StoreRefused(text, advice="Create the bucket, or correct its name in the configuration.")
    if code in ("NoSuchKey", "NoSuchUpload"):
        return ObjectMissing(text)
    if code == "RequestTimeTooSkewed":
        return ClockSkew(
            text,
            meaning=f"This machine's clock is wrong; the store's shows {refusal.server_time or 'another time'}.",
            advice="Set the clock (chrony, systemd-timesyncd) and run the command again.",
        )
    if code in _EXPIRED:
        return StoreDenied(text, advice="The session's credentials have expired: get new ones.")
    if code in _DENIED or status == 401 or (status == 403 and code != "InvalidObjectState"):
        return StoreDenied(
            text,
            advice="Check the credentials and what the policies of identity and bucket allow; without the right to "
            "list, a missing object is denied as well.",
        )
    if code == "InvalidObjectState":
        return ObjectCold(text, meaning="The object is in an archive class and must be thawed first.")
    if code == "PreconditionFailed" or status == 412:
        return ObjectExists(text)
    if code in ("ConditionalRequestConflict", "OperationAborted"):
        return Conflict(text)
    if code == "InvalidRange" or status == 416:
        return Corrupt(f"it is shorter than it must be: cannot {what}")
    if code in _ELSEWHERE or status in (301, 302, 307, 308):
        return StoreRefused(text, advice="Check region and endpoint in the configuration.")
    if code in _NOT_DONE or is_damage(refusal) or status == 429:
        return StoreUnreachable(text)
    if code == "NotImplemented" or status == 501:
        return StoreRefused(text, meaning="This store cannot do that.")
    if status >= 500:
        # It may have failed after the thing was done.
        return AnswerUnknown(text) if writes else StoreUnreachable(text)
    if code in ("", str(status)):
        # Not S3's words: a proxy or a web server on the way.
        return StoreUnreachable(text, advice="Check the endpoint: something that is not S3 answers there.")
    return StoreRefused(text)
