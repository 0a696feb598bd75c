"""Lying, broken and lost answers: each becomes the right error, and never a success."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import boto3.session
import pytest

from gateway.errors import (
    AnswerUnknown,
    ClockSkew,
    Conflict,
    Corrupt,
    GatewayError,
    ObjectCold,
    ObjectExists,
    ObjectMissing,
    StoreDenied,
    StoreRefused,
    StoreUnreachable,
    UsageError,
)
from gateway.store.crc import crc64, encode
from gateway.store.lifecycle import Lifecycle, LifecycleRule, SmallObjects
from gateway.store.port import Part, Thaw, ThawAnswer, ThawTier
from gateway.store.s3 import BLOCK_BYTES, S3Settings, S3Store, enlarge_blocks
from tests.contract.lying import HTML, LyingServer, Say, lying_server
from tests.contract.stores import session

DATA = b"some bytes of an object"
CRC = crc64(DATA)
ETAG = {"ETag": '"0123456789abcdef0123456789abcdef"'}
DATED = ETAG | {"Last-Modified": "Wed, 25 Nov 2026 07:00:00 GMT"}
STATED = {"x-amz-checksum-crc64nvme": encode(CRC)}
FALSE = {"x-amz-checksum-crc64nvme": encode(CRC ^ 1)}


@pytest.fixture
def server() -> Iterator[LyingServer]:
    with lying_server() as running:
        yield running


@pytest.fixture
def store(server: LyingServer) -> Iterator[S3Store]:
    settings = S3Settings(
        bucket="bucket",
        prefix="p",
        endpoint_url=server.url,
        addressing_style="path",
        byte_order=True,
        read_timeout=timedelta(seconds=5),
    )
    opened = S3Store(settings, session=session())
    yield opened
    opened.close()


def error(status: int, code: str, more: str = "") -> Say:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code} it is</Message>{more}</Error>"
    return Say(status=status, body=body.encode(), headers={"Content-Type": "application/xml"})


def xml(body: str, status: int = 200) -> Say:
    return Say(status=status, body=body.encode(), headers={"Content-Type": "application/xml"})


def listing(
    *names: str, name: str = "bucket", prefix: str = "p/", count: int | None = None, cut: str = "false", token: str = ""
) -> Say:
    contents = "".join(
        f"<Contents><Key>{each}</Key><LastModified>2026-11-25T07:00:00.000Z</LastModified><Size>1</Size></Contents>"
        for each in names
    )
    truncated = f"<IsTruncated>{cut}</IsTruncated>" if cut else ""
    token = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    return xml(
        f"<ListBucketResult><Name>{name}</Name><Prefix>{prefix}</Prefix><KeyCount>"
        f"{len(names) if count is None else count}</KeyCount>{truncated}{token}{contents}"
        "</ListBucketResult>"
    )


def completed(key: str = "p/k", etag: str = '"abc-1"') -> Say:
    return xml(
        f"<CompleteMultipartUploadResult><Bucket>bucket</Bucket><Key>{key}</Key><ETag>{etag}</ETag>"
        "</CompleteMultipartUploadResult>"
    )


def headed(size: int = len(DATA), crc: dict[str, str] = STATED) -> Say:
    return Say(headers=DATED | crc | {"Content-Length": str(size)})


def put(store: S3Store) -> object:
    return store.put("k", DATA, crc64=CRC)


def part(store: S3Store) -> object:
    return store.put_part("k", "id", 1, DATA, crc64=CRC)


def complete(store: S3Store) -> object:
    parts = [Part(number=1, size=len(DATA), etag='"x"')]
    return store.complete_upload("k", "id", parts, size=len(DATA), crc64=CRC)


def get(store: S3Store) -> object:
    return store.get("k")


def piece(store: S3Store) -> object:
    return store.get("k", start=2, length=4)


def head(store: S3Store) -> object:
    return store.head("k")


def names(store: S3Store) -> object:
    return [facts.key for facts in store.list_objects("")]


def delete(store: S3Store) -> object:
    store.delete("k")
    return None


def start(store: S3Store) -> object:
    return store.start_upload("k")


def parts(store: S3Store) -> object:
    return store.list_parts("k", "id")


def uploads(store: S3Store) -> object:
    return store.list_uploads("")


def abort(store: S3Store) -> object:
    store.abort_upload("k", "id")
    return None


def thaw(store: S3Store) -> object:
    return store.thaw("k", days=3, tier=ThawTier.BULK)


def rules(store: S3Store) -> object:
    return store.get_lifecycle()


RULE = LifecycleRule(id="r", prefix="p/packs/", expire_days=9)


def new_rules(store: S3Store) -> object:
    store.put_lifecycle(Lifecycle(rules=(RULE,)))
    return None


def no_rules(store: S3Store) -> object:
    store.put_lifecycle(Lifecycle())
    return None


CALLS: list[Callable[[S3Store], object]] = [
    put, part, complete, get, piece, head, names, delete, start, parts, uploads, abort, thaw, rules, new_rules,
    no_rules,
]  # fmt: skip
WRITES = [put, part, complete, delete, start, abort, thaw, new_rules, no_rules]
READS = [get, piece, names, parts, uploads, rules]


def page(first: int, last: int, total: int, body: bytes, length: int | None = None) -> Say:
    return Say(status=206, body=body, headers=ETAG | {"Content-Range": f"bytes {first}-{last}/{total}"}, length=length)


Lie = tuple[Callable[[S3Store], object], list[Say], type[GatewayError]]
LIES: dict[str, Lie] = {
    # A put that looks like a success.
    "put: html": (put, [Say(body=HTML)], AnswerUnknown),
    "put: html with an ETag": (put, [Say(body=HTML, headers=ETAG)], AnswerUnknown),
    "put: empty, no ETag": (put, [Say()], AnswerUnknown),
    "put: false checksum": (put, [Say(headers=ETAG | FALSE)], AnswerUnknown),
    "put: checksum that is none": (put, [Say(headers=ETAG | {"x-amz-checksum-crc64nvme": "AA"})], AnswerUnknown),
    "part: no ETag": (part, [Say()], AnswerUnknown),
    "part: false checksum": (part, [Say(headers=ETAG | FALSE)], AnswerUnknown),
    "start: html": (start, [Say(body=HTML)], AnswerUnknown),
    "start: no id": (
        start,
        [xml("<InitiateMultipartUploadResult><Key>p/k</Key></InitiateMultipartUploadResult>")],
        AnswerUnknown,
    ),
    "start: other key": (
        start,
        [xml("<InitiateMultipartUploadResult><Key>k</Key><UploadId>1</UploadId></InitiateMultipartUploadResult>")],
        AnswerUnknown,
    ),
    "delete: html": (delete, [Say(body=HTML)], AnswerUnknown),
    "abort: html": (abort, [Say(body=HTML)], AnswerUnknown),
    # A completion that looks like a success.
    "complete: error inside": (complete, [error(200, "InternalError")], AnswerUnknown),
    "complete: empty": (complete, [Say()], AnswerUnknown),
    "complete: html": (complete, [Say(body=HTML)], AnswerUnknown),
    "complete: torn xml": (complete, [xml("<CompleteMultipartUploadResult><Bucket>bu")], AnswerUnknown),
    "complete: other key": (complete, [completed(key="p/other")], AnswerUnknown),
    "complete: no ETag": (complete, [completed(etag="")], AnswerUnknown),
    "complete: then nothing there": (complete, [completed(), Say(status=404), listing(prefix="p/k")], AnswerUnknown),
    "complete: then no answer": (complete, [completed(), Say(reset="after")], AnswerUnknown),
    "complete: then another size": (complete, [completed(), headed(size=1)], Corrupt),
    "complete: then another checksum": (complete, [completed(), headed(crc=FALSE)], Corrupt),
    "complete: bad digest": (complete, [error(400, "BadDigest")], Corrupt),
    "complete: unknown upload": (complete, [error(404, "NoSuchUpload")], ObjectMissing),
    "complete: small part": (complete, [error(400, "EntityTooSmall")], StoreRefused),
    # Listings.
    "list: html": (names, [Say(body=HTML)], StoreUnreachable),
    "list: empty": (names, [Say()], StoreUnreachable),
    "list: torn": (names, [xml("<ListBucketResult><Name>bucket</Name><Con")], StoreUnreachable),
    "list: other bucket": (names, [listing("p/a", name="other")], StoreUnreachable),
    "list: other prefix": (names, [listing("q/a", prefix="q/")], StoreUnreachable),
    "list: not below the prefix": (names, [listing("q/a")], StoreUnreachable),
    "list: count too high": (names, [listing("p/a", count=2)], StoreUnreachable),
    "list: cut, no token": (names, [listing("p/a", cut="true")], StoreUnreachable),
    "list: cut and empty": (names, [listing(cut="true", token="t")], StoreUnreachable),
    "list: not said whether cut": (names, [listing("p/a", cut="")], StoreUnreachable),
    "list: unsorted": (names, [listing("p/b", "p/a")], StoreUnreachable),
    "list: twice the same": (names, [listing("p/a", "p/a")], StoreUnreachable),
    "list: unsorted over pages": (names, [listing("p/b", cut="true", token="t"), listing("p/a")], StoreUnreachable),
    "list: token again": (
        names,
        [listing("p/a", cut="true", token="t"), listing("p/b", cut="true", token="t")],
        StoreUnreachable,
    ),
    "list: second page lost": (names, [listing("p/a", cut="true", token="t"), Say(reset="after")], StoreUnreachable),
    "list: no bucket": (names, [error(404, "NoSuchBucket")], StoreRefused),
    "parts: html": (parts, [Say(body=HTML)], StoreUnreachable),
    "uploads: html": (uploads, [Say(body=HTML)], StoreUnreachable),
    # Thaws and rules.
    "thaw: html": (thaw, [Say(body=HTML)], AnswerUnknown),
    "thaw: html, accepted": (thaw, [Say(status=202, body=HTML)], AnswerUnknown),
    "thaw: neither": (thaw, [Say(status=201)], AnswerUnknown),
    "thaw: nothing there": (thaw, [error(404, "NoSuchKey")], ObjectMissing),
    "thaw: wrong tier": (thaw, [error(400, "InvalidArgument")], StoreRefused),
    "thaw: unknown there": (thaw, [error(405, "MethodNotAllowed")], StoreRefused),
    "thaw: no such feature": (thaw, [error(501, "NotImplemented")], StoreRefused),
    "rules: html": (rules, [Say(body=HTML)], StoreUnreachable),
    "rules: empty": (rules, [Say()], StoreUnreachable),
    "rules: none, 200": (rules, [xml("<LifecycleConfiguration/>")], StoreUnreachable),
    "rules: no status": (rules, [xml("<LifecycleConfiguration><Rule/></LifecycleConfiguration>")], StoreUnreachable),
    "rules: no bucket": (rules, [error(404, "NoSuchBucket")], StoreRefused),
    "new rules: html": (new_rules, [Say(body=HTML)], AnswerUnknown),
    "new rules: bad": (new_rules, [error(400, "MalformedXML")], StoreRefused),
    "new rules: no such feature": (new_rules, [error(501, "NotImplemented")], StoreRefused),
    "no rules: html": (no_rules, [Say(body=HTML)], AnswerUnknown),
    # Reads.
    "get: no ETag": (get, [Say(body=DATA)], StoreUnreachable),
    "get: cut short": (get, [Say(body=DATA[:5], length=len(DATA), headers=ETAG)], StoreUnreachable),
    "get: wrong bytes": (get, [Say(body=DATA[:-1] + b"X", headers=ETAG | STATED)], Corrupt),
    "get: part of the object": (get, [page(0, 4, 23, DATA[:5])], StoreUnreachable),
    "get: cold": (get, [error(403, "InvalidObjectState")], ObjectCold),
    "get: missing": (get, [error(404, "NoSuchKey")], ObjectMissing),
    "get: no bucket": (get, [error(404, "NoSuchBucket")], StoreRefused),
    "get: a web server's 404": (get, [Say(status=404, body=HTML)], StoreUnreachable),
    "range: ignored": (piece, [Say(body=DATA, headers=ETAG)], StoreUnreachable),
    "range: another one": (piece, [page(3, 6, 23, DATA[3:7])], StoreUnreachable),
    "range: too long": (piece, [page(2, 6, 23, DATA[2:7])], StoreUnreachable),
    "range: too short": (piece, [page(2, 4, 23, DATA[2:5])], StoreUnreachable),
    "range: object too short": (piece, [page(2, 4, 5, DATA[2:5])], Corrupt),
    "range: cut": (piece, [page(2, 5, 23, DATA[2:4], length=4)], StoreUnreachable),
    "range: behind the end": (piece, [error(416, "InvalidRange")], Corrupt),
    "head: any web page": (head, [Say(headers={"Content-Length": "23"})], StoreUnreachable),
    "head: missing": (head, [Say(status=404), listing(prefix="p/k")], ObjectMissing),
    "head: missing, but listed": (head, [Say(status=404), listing("p/k", prefix="p/k")], StoreUnreachable),
    "head: missing, listing denied": (head, [Say(status=404), error(403, "AccessDenied")], ObjectMissing),
    "head: no bucket": (head, [Say(status=404), error(404, "NoSuchBucket")], StoreRefused),
    "head: a proxy's 404": (head, [Say(status=404), Say(status=404, body=HTML)], StoreUnreachable),
    "head: denied": (head, [Say(status=403), error(403, "AccessDenied")], StoreDenied),
    "head: denied, may list": (head, [Say(status=403), listing(prefix="p/k")], StoreDenied),
    "head: skewed": (head, [Say(status=403), error(403, "RequestTimeTooSkewed")], ClockSkew),
    # In between the library asks for the bucket's region.
    "head: expired": (head, [Say(status=400), Say(status=400), error(400, "ExpiredToken")], StoreDenied),
    "head: 503": (head, [Say(status=503)], StoreUnreachable),
    "head: no answer": (head, [Say(reset="after")], StoreUnreachable),
    # Conditions and damage.
    "put: exists": (put, [error(412, "PreconditionFailed")], ObjectExists),
    "put: conflict": (put, [error(409, "ConditionalRequestConflict")], Conflict),
    "put: damaged on the way": (put, [error(400, "BadDigest")], StoreUnreachable),
    "put: never arrived whole": (put, [error(400, "IncompleteBody")], StoreUnreachable),
    "put: invalid": (put, [error(400, "InvalidArgument")], StoreRefused),
    "put: no bucket": (put, [error(404, "NoSuchBucket")], StoreRefused),
    "delete: missing is fine elsewhere": (delete, [error(404, "NoSuchBucket")], StoreRefused),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies(server: LyingServer, store: S3Store, lie: str) -> None:
    call, script, expected = LIES[lie]
    server.script = list(script)
    with pytest.raises(GatewayError) as caught:
        call(store)
    assert type(caught.value) is expected
    assert not server.script
    if lie == "list: no bucket":
        assert "bucket" in str(caught.value)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("RequestTimeTooSkewed", 403, ClockSkew),
        ("AccessDenied", 403, StoreDenied),
        ("ExpiredToken", 400, StoreDenied),
        ("InvalidAccessKeyId", 403, StoreDenied),
        ("SlowDown", 503, StoreUnreachable),
        ("PermanentRedirect", 301, StoreRefused),
    ],
)
def test_refusals(
    server: LyingServer,
    store: S3Store,
    call: Callable[[S3Store], object],
    code: str,
    status: int,
    expected: type[GatewayError],
) -> None:
    said = error(status, code, "<ServerTime>2030-01-01T00:00:00Z</ServerTime>")
    # HEAD asks again by a listing; the library follows a redirect to another region once.
    server.script = [replace(said, headers={"x-amz-bucket-region": "eu-west-1"})] * 4
    with pytest.raises(expected) as caught:
        call(store)
    if expected is ClockSkew and call is not head:
        assert "2030-01-01" in str(caught.value)


@pytest.mark.parametrize("call", [*WRITES, *READS])
@pytest.mark.parametrize(
    "say",
    [
        Say(reset="after"),
        Say(status=500),
        Say(status=502, body=HTML),
        Say(status=503, body=HTML),
        Say(status=302, body=HTML, headers={"Location": "http://portal.example/login"}),
    ],
)
def test_no_answer(server: LyingServer, store: S3Store, call: Callable[[S3Store], object], say: Say) -> None:
    server.script = [say]
    expected = AnswerUnknown if call in WRITES else StoreUnreachable
    with pytest.raises(GatewayError) as caught:
        call(store)
    assert type(caught.value) is expected


def test_nobody_listens(server: LyingServer) -> None:
    with lying_server() as gone:
        url = gone.url
    settings = S3Settings(bucket="bucket", endpoint_url=url, addressing_style="path")
    store = S3Store(settings, session=session())
    for call in (*CALLS,):
        with pytest.raises(StoreUnreachable):
            call(store)
    store.close()


def test_what_is_sent(server: LyingServer, store: S3Store) -> None:
    """Our own checksum, no hash of the body, the condition, and no round trip before a small body."""
    server.script = [Say(headers=ETAG | STATED), Say(headers=ETAG)]
    store.put("k", DATA, crc64=CRC, storage_class="GLACIER_IR", if_absent=True)
    large = memoryview(bytes(3 * BLOCK_BYTES + 5))
    store.put("k", large, crc64=crc64(large))
    first, second = server.asked
    assert (first.method, first.path, first.body) == ("PUT", "/bucket/p/k", DATA)
    sent = {name.lower(): value for name, value in first.headers.items()}
    assert sent["x-amz-checksum-crc64nvme"] == encode(CRC)
    assert sent["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert sent["x-amz-storage-class"] == "GLACIER_IR"
    assert sent["if-none-match"] == "*"
    assert "expect" not in sent
    assert second.body == large
    assert {name.lower() for name in second.headers} >= {"expect", "content-length"}
    assert "If-None-Match" not in second.headers


def test_memory_that_went_bad_is_named(server: LyingServer, store: S3Store) -> None:
    server.script = [error(400, "BadDigest")]
    with pytest.raises(Corrupt):
        store.put("k", DATA, crc64=CRC ^ 1)


def test_composite_checksums_are_not_ours(server: LyingServer, store: S3Store) -> None:
    more = {"x-amz-checksum-type": "COMPOSITE", "x-amz-checksum-crc64nvme": "AAAAAAAAAAA=-3"}
    server.script = [headed(crc=more)]
    assert store.head("k").crc64 is None


def test_blocks_are_enlarged(store: S3Store) -> None:
    """A private hook of the client library; when this fails, look for the new place or take the hook out."""
    assert enlarge_blocks(store._client)
    assert store._client._endpoint.http_session._manager.connection_pool_kw["blocksize"] == BLOCK_BYTES


def test_without_the_hook(store: S3Store) -> None:
    assert not enlarge_blocks(object())


def test_no_credentials(server: LyingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    settings = S3Settings(bucket="bucket", endpoint_url=server.url, addressing_style="path")
    store = S3Store(settings, session=boto3.session.Session())
    with pytest.raises(StoreDenied) as caught:
        store.head("k")
    assert "AWS_PROFILE" in str(caught.value)
    store.close()


def test_settings_that_cannot_be(server: LyingServer) -> None:
    with pytest.raises(UsageError):
        S3Settings(bucket="")
    with pytest.raises(UsageError):
        S3Settings(bucket="b", prefix="/a")
    with pytest.raises(UsageError):
        S3Store(S3Settings(bucket="bucket", profile="there-is-no-such-profile"))
    with pytest.raises(UsageError):
        S3Store(S3Settings(bucket="bucket", endpoint_url="not a url"), session=session())


@pytest.mark.parametrize(
    ("say", "expected"),
    [
        (Say(status=202), ThawAnswer.STARTED),
        (Say(), ThawAnswer.EXTENDED),
        (error(409, "RestoreAlreadyInProgress"), ThawAnswer.RUNNING),
        (error(503, "GlacierExpeditedRetrievalNotAvailable"), ThawAnswer.NO_CAPACITY),
        (error(403, "InvalidObjectState"), ThawAnswer.NEVER_COLD),
        (error(403, "ObjectAlreadyInActiveTierError"), ThawAnswer.NEVER_COLD),
    ],
)
def test_answers_to_a_thaw(server: LyingServer, store: S3Store, say: Say, expected: ThawAnswer) -> None:
    server.script = [say]
    assert thaw(store) is expected
    (sent,) = server.asked
    assert (sent.method, sent.path) == ("POST", "/bucket/p/k?restore")
    assert b"<Days>3</Days>" in sent.body
    assert b"<Tier>Bulk</Tier>" in sent.body


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, None),
        ('ongoing-request="true"', Thaw(in_progress=True)),
        (
            'ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"',
            Thaw(in_progress=False, until=datetime(2012, 12, 21, tzinfo=UTC)),
        ),
    ],
)
def test_state_of_a_thaw(server: LyingServer, store: S3Store, said: str | None, expected: Thaw | None) -> None:
    server.script = [headed(crc=STATED | ({} if said is None else {"x-amz-restore": said}))]
    assert store.head("k").thaw == expected


@pytest.mark.parametrize(
    "said",
    [
        "soon",
        'ongoing-request="false"',
        'ongoing-request="true", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"',
        'ongoing-request="false", expiry-date="tomorrow"',
    ],
)
def test_a_thaw_that_cannot_be(server: LyingServer, store: S3Store, said: str) -> None:
    server.script = [headed(crc=STATED | {"x-amz-restore": said})]
    with pytest.raises(StoreUnreachable):
        store.head("k")


def test_listings_ask_for_thaws(server: LyingServer, store: S3Store) -> None:
    until = "<RestoreExpiryDate>2012-12-21T00:00:00.000Z</RestoreExpiryDate>"
    deep = "<StorageClass>DEEP_ARCHIVE</StorageClass>"
    states = (
        "",
        f"{deep}<RestoreStatus><IsRestoreInProgress>true</IsRestoreInProgress></RestoreStatus>",
        f"{deep}<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress>{until}</RestoreStatus>",
        f"{deep}<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress></RestoreStatus>",
        deep,
    )
    contents = "".join(
        f"<Contents><Key>p/{number}</Key><LastModified>2026-11-25T07:00:00.000Z</LastModified><Size>1</Size>{state}"
        "</Contents>"
        for number, state in enumerate(states)
    )
    server.script = [
        xml(
            f"<ListBucketResult><Name>bucket</Name><Prefix>p/</Prefix><KeyCount>{len(states)}</KeyCount>"
            f"<IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
        )
    ]
    assert [facts.thaw for facts in store.list_objects("")] == [
        None,
        Thaw(in_progress=True),
        Thaw(in_progress=False, until=datetime(2012, 12, 21, tzinfo=UTC)),
        None,
        None,
    ]
    sent = {name.lower(): value for name, value in server.asked[0].headers.items()}
    assert sent["x-amz-optional-object-attributes"] == "RestoreStatus"


def test_rules_of_others_come_back_as_they_were(server: LyingServer, store: S3Store) -> None:
    """Tags, dates and versions are not in our values; what S3 gave is what it gets."""
    foreign = (
        "<Rule><ID>theirs</ID><Filter><And><Prefix>logs/</Prefix><Tag><Key>a</Key><Value>b</Value></Tag></And></Filter>"
        "<Status>Enabled</Status><Transition><Date>2030-01-01T00:00:00Z</Date><StorageClass>GLACIER</StorageClass>"
        "</Transition><NoncurrentVersionExpiration><NoncurrentDays>7</NoncurrentDays></NoncurrentVersionExpiration></Rule>"
    )
    old = (
        "<Rule><ID>old</ID><Prefix>tmp/</Prefix><Status>Disabled</Status><Expiration><Days>1</Days></Expiration></Rule>"
    )
    plain = (
        "<Rule><ID>r</ID><Filter><Prefix>p/packs/</Prefix></Filter><Status>Enabled</Status>"
        "<Expiration><Days>9</Days></Expiration></Rule>"
    )
    small = {"x-amz-transition-default-minimum-object-size": "varies_by_storage_class"}
    given = xml(f"<LifecycleConfiguration>{foreign}{old}{plain}</LifecycleConfiguration>")
    server.script = [replace(given, headers={**given.headers, **small}), Say(headers=small)]
    found = store.get_lifecycle()
    assert [(rule.id, rule.prefix, rule.enabled, bool(rule.foreign)) for rule in found.rules] == [
        ("theirs", "logs/", True, True),
        ("old", "tmp/", False, True),
        ("r", "p/packs/", True, False),
    ]
    assert found.rules[2] == RULE
    assert found.small_objects is SmallObjects.VARY
    store.put_lifecycle(found)
    sent = server.asked[-1]
    body = sent.body.decode()
    for piece_ in (
        "<Tag><Key>a</Key><Value>b</Value></Tag>", "<Date>2030-01-01T00:00:00Z</Date>",
        "<NoncurrentDays>7</NoncurrentDays>", "<Prefix>tmp/</Prefix>", "<Filter><Prefix>p/packs/</Prefix></Filter>",
    ):  # fmt: skip
        assert piece_ in body, piece_
    headers = {name.lower(): value for name, value in sent.headers.items()}
    assert headers["x-amz-transition-default-minimum-object-size"] == "varies_by_storage_class"
    assert any(name.startswith("x-amz-checksum-") or name == "content-md5" for name in headers)
