"""A store in an S3 bucket; with `target/ec2.py` the only place that knows boto3.

What is not the library's default, and why:

* Its retries are off: `gateway.store.wrap` retries, and looks first where that is needed.
* Bodies are not hashed for the signature, and the checksum S3 verifies is our own CRC64NVME: over TLS that loses
  nothing, over plain http a man in the middle could change bytes, which no reader of the repository would accept.
* Bodies are handed out as slices of the caller's buffer in blocks of 1 MiB. Together that is 0.35 instead of 1.75 CPU
  seconds per GB over http, 0.9 instead of 2.1 over https (docs/benchmarks.md).
* Every answer is checked by `gateway.store.s3_answers` before it is believed.
* `Expect: 100-continue` is sent with bodies from 1 MiB up: a redirect or a 503 then costs a round trip, not the body.
  Below, the round trip costs more.

`s3transfer` carries nothing here: parts must go on after a kill, so the upload ledger drives them one by one.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import boto3.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    InvalidEndpointConfigurationError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    SSLError,
    SSOError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from gateway.errors import (
    AnswerUnknown,
    Corrupt,
    GatewayError,
    ObjectMissing,
    StoreAbsent,
    StoreDenied,
    StoreError,
    StoreRefused,
    StoreUnreachable,
    UsageError,
)
from gateway.store import s3_answers as answers
from gateway.store.crc import crc64 as crc64_of
from gateway.store.crc import encode
from gateway.store.lifecycle import Lifecycle
from gateway.store.port import (
    MAX_KEY_BYTES,
    MAX_PARTS,
    MAX_PUT_BYTES,
    PAGE_KEYS,
    ObjectFacts,
    Part,
    ThawAnswer,
    ThawTier,
    Upload,
    check_key,
    check_range,
    is_key,
)
from gateway.store.s3_body import Slices
from gateway.store.s3_lifecycle import lifecycle_of, request_of

# How much of a body is handed to the socket at a time, and from which size on a body waits for "100 Continue".
BLOCK_BYTES: Final = 1 << 20
EXPECT_BYTES: Final = 1 << 20

AddressingStyle = Literal["auto", "path", "virtual"]

_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
    SSOError,
)
_NOT_SENT = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError)
_NO_ANSWER = (HTTPClientError, IncompleteReadError, ResponseParserError)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """Where a bucket is and what its store can do.

    `prefix` has no slash at either end. Without `endpoint_url` it is AWS. `states_checksums`, `knows_classes`: what
    `probe` found. `byte_order`: listings come in byte order of keys, as AWS gives them; False asks level by level,
    which is right everywhere but takes a request per "directory"; None means: at AWS yes, elsewhere no.
    LIMIT: memory for requests is at most `connections` times the size of a part.
    """

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    addressing_style: AddressingStyle = "auto"
    ca_bundle: str | None = None
    connect_timeout: timedelta = timedelta(seconds=10)
    read_timeout: timedelta = timedelta(seconds=120)
    connections: int = 8
    sign_payload: bool = False
    states_checksums: bool = True
    knows_classes: bool = True
    byte_order: bool | None = None
    page_keys: int = PAGE_KEYS

    def __post_init__(self) -> None:
        if not self.bucket or "/" in self.bucket:
            raise UsageError(f"Not the name of a bucket: {self.bucket!r}.")
        if self.prefix:
            try:
                check_key(self.prefix)
            except ValueError as error:
                raise UsageError(f"Not a prefix inside a bucket: {self.prefix!r}.") from error

    @property
    def lists_in_byte_order(self) -> bool:
        if self.byte_order is not None:
            return self.byte_order
        host = urlsplit(self.endpoint_url or "").hostname
        return host is None or host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


class S3Store:
    """See the module's docstring. Thread-safe; threads beyond `connections` wait for one another.

    `session`: whose credentials and region are used; by default the usual chain of environment, shared files (with
    `profile`) and the machine's role.
    """

    def __init__(self, settings: S3Settings, *, session: Any = None) -> None:
        self.settings = settings
        self._base = f"{settings.prefix}/" if settings.prefix else ""
        self._bucket = settings.bucket
        self._client = _client(settings, session)

    @property
    def url(self) -> str:
        return "/".join(filter(None, (f"s3://{self._bucket}", self.settings.prefix)))

    @property
    def base(self) -> str:
        return self._base

    @property
    def states_checksums(self) -> bool:
        return self.settings.states_checksums

    @property
    def knows_classes(self) -> bool:
        return self.settings.knows_classes

    def close(self) -> None:
        """Close the idle connections. Idempotent."""
        self._client.close()

    def put(
        self,
        key: str,
        data: bytes | memoryview,
        *,
        crc64: int,
        storage_class: str = "STANDARD",
        if_absent: bool = False,
    ) -> ObjectFacts:
        if len(data) > MAX_PUT_BYTES:
            raise ValueError(f"{len(data)} bytes are too many for one PUT")
        extra: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent else {}
        with self._checked(f"write {key}", writes=True, sent=(key, data, crc64)):
            answer = self._client.put_object(
                Bucket=self._bucket,
                Key=self._name(key),
                Body=Slices(data),
                ChecksumAlgorithm="CRC64NVME",
                ChecksumCRC64NVME=encode(crc64),
                **self._class(storage_class),
                **extra,
            )
            answers.check_stored(answer, crc64)
            return ObjectFacts(
                key=key,
                size=len(data),
                crc64=answers.stated_crc(answer) if self.states_checksums else None,
                storage_class=storage_class if self.knows_classes else "STANDARD",
                version=answers.version_of(answer),
            )

    def put_file(self, *_: object, **__: object) -> None:
        """In parts, always: they can be resumed."""

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)
        whole = start == 0 and length is None
        end = None if length is None else start + length
        extra: dict[str, Any] = (
            {"ChecksumMode": "ENABLED"} if whole else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        )
        with self._checked(f"read {key}", writes=False):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._name(key), **extra)
            with contextlib.closing(answer["Body"]) as body:
                if whole:
                    expected = answers.whole_length(answer)
                else:
                    found = answers.range_of(answer)
                    end = found.total if end is None else end
                    if found.end < end <= found.total or found.start != start or found.end > end:
                        raise answers.NotAnAnswer("it holds another range")
                    if found.end < end:
                        raise Corrupt(f"holds {found.total} bytes, not {start} to {end}", address=key)
                    expected = end - start
                try:
                    data: bytes = body.read()
                except FlexibleChecksumError as error:
                    raise Corrupt("the bytes do not have the checksum that the store states", address=key) from error
            if len(data) != expected:
                raise StoreUnreachable(f"The answer to reading {key} ended after {len(data)} of {expected} bytes.")
            crc = answers.stated_crc(answer) if whole else None
            if crc is not None and crc64_of(data) != crc:
                raise Corrupt("the bytes do not have the checksum that the store states", address=key)
            return data

    def head(self, key: str) -> ObjectFacts:
        name = self._name(key)
        try:
            with self._checked(f"look at {key}", writes=False):
                answer = self._client.head_object(Bucket=self._bucket, Key=name, ChecksumMode="ENABLED")
                facts = answers.facts_of_head(answer, key)
        except GatewayError as error:
            if not isinstance(error.__cause__, ClientError) or answers.refusal_of(error.__cause__).status >= 500:
                raise
            # An error answer to HEAD has no words: 404 may be a missing bucket or a proxy, 403 a wrong clock, 400 an
            # expired token. The same question as a listing is answered with words.
            self._explain(key, error)
            raise
        return facts if self.states_checksums else replace(facts, crc64=None)

    def _explain(self, key: str, error: GatewayError) -> None:
        """Raise what a refused HEAD really means, or return when the listing adds nothing."""
        name = self._name(key)
        missing = answers.refusal_of(error.__cause__).status == 404
        try:
            with self._checked(f"look at {key}", writes=False):
                answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=name, MaxKeys=1)
                page = answers.page_of(answer, bucket=self._bucket, prefix=name)
        except StoreDenied:
            if missing:
                return self._raise_missing(key, error)
            raise
        if not missing:
            return None
        if any(facts.key == name for facts in page.objects):
            raise StoreUnreachable(f"The store says that {key} is missing, and lists it.") from error
        return self._raise_missing(key, error)

    def _raise_missing(self, key: str, error: GatewayError) -> None:
        raise ObjectMissing(f"No object {key} in {self.url}.") from error

    def list_objects(self, prefix: str, *, after: str = "") -> Iterator[ObjectFacts]:
        full = self._base + prefix
        found = self._flat(full, after) if self.settings.lists_in_byte_order else self._by_level(full)
        last = ""
        for facts in found:
            if facts.key <= last:
                raise StoreUnreachable(
                    f"The listing of {full} in {self.url} is out of order: {facts.key!r} after {last!r}.",
                    advice="Probe the store again: its listings do not come in byte order.",
                )
            last = facts.key
            key = facts.key[len(self._base) :]
            if key > after and is_key(key):
                yield replace(facts, key=key)

    def _pages(self, prefix: str, **extra: Any) -> Iterator[answers.Page]:
        tokens = set()
        more: dict[str, Any] = {}
        while True:
            with self._checked(f"list {prefix}", writes=False):
                answer = self._client.list_objects_v2(
                    Bucket=self._bucket, Prefix=prefix, MaxKeys=self.settings.page_keys,
                    OptionalObjectAttributes=["RestoreStatus"], **extra, **more,
                )  # fmt: skip
                page = answers.page_of(answer, bucket=self._bucket, prefix=prefix)
                if page.token in tokens:
                    raise answers.NotAnAnswer("it gives a token again")
            yield page
            if page.token is None:
                return
            tokens.add(page.token)
            more = {"ContinuationToken": page.token}

    def _flat(self, prefix: str, after: str) -> Iterator[ObjectFacts]:
        extra = {"StartAfter": self._base + after} if after else {}
        for page in self._pages(prefix, **extra):
            yield from page.objects

    def _by_level(self, prefix: str) -> Iterator[ObjectFacts]:
        """In byte order, also where a store lists ``a/b`` before ``a-b`` because its "directory" ``a`` comes first.

        Each "directory" waits until a name comes that is behind it with its slash.
        """
        waiting: list[str] = []
        for page in self._pages(prefix, Delimiter="/"):
            entries: list[tuple[str, ObjectFacts | None]] = [(facts.key, facts) for facts in page.objects]
            entries += [(level, None) for level in page.levels]
            for name, facts in sorted(entries, key=lambda entry: entry[0].removesuffix("/")):
                while waiting and waiting[0] < name:
                    yield from self._by_level(heapq.heappop(waiting))
                if facts is not None:
                    yield facts
                elif name not in waiting:
                    heapq.heappush(waiting, name)
        while waiting:
            yield from self._by_level(heapq.heappop(waiting))

    def delete(self, key: str) -> None:
        try:
            with self._checked(f"delete {key}", writes=True):
                answers.check_gone(self._client.delete_object(Bucket=self._bucket, Key=self._name(key)))
        except ObjectMissing:
            return

    def start_upload(self, key: str, *, storage_class: str = "STANDARD") -> str:
        name = self._name(key)
        extra = {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"} if self.states_checksums else {}
        with self._checked(f"begin an upload of {key}", writes=True):
            answer = self._client.create_multipart_upload(
                Bucket=self._bucket, Key=name, **self._class(storage_class), **extra
            )
            answers.member(answer, "Key", str, name)
            upload_id: str = answers.member(answer, "UploadId", str)
            return upload_id

    def put_part(self, key: str, upload_id: str, number: int, data: bytes | memoryview, *, crc64: int) -> Part:
        if not 1 <= number <= MAX_PARTS:
            raise ValueError(f"not a part number: {number}")
        extra = {"ChecksumAlgorithm": "CRC64NVME", "ChecksumCRC64NVME": encode(crc64)} if self.states_checksums else {}
        with self._checked(f"write part {number} of {key}", writes=True, sent=(key, data, crc64)):
            answer = self._client.upload_part(
                Bucket=self._bucket,
                Key=self._name(key),
                UploadId=upload_id,
                PartNumber=number,
                Body=Slices(data),
                **extra,
            )
            etag = answers.check_stored(answer, crc64)
            return Part(number=number, size=len(data), etag=etag, crc64=answers.stated_crc(answer))

    def list_parts(self, key: str, upload_id: str) -> list[Part]:
        name = self._name(key)
        parts: list[Part] = []
        extra: dict[str, Any] = {}
        while True:
            with self._checked(f"list the parts of {key}", writes=False):
                answer = self._client.list_parts(Bucket=self._bucket, Key=name, UploadId=upload_id, **extra)
                page, marker = answers.parts_of(answer, bucket=self._bucket, key=name, upload_id=upload_id)
                if parts and page and page[0].number <= parts[-1].number:
                    raise answers.NotAnAnswer("it does not go on behind the page before")
            parts += page
            if marker is None:
                return parts
            extra = {"PartNumberMarker": marker}

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part], *, size: int, crc64: int) -> ObjectFacts:
        name = self._name(key)
        extra = (
            {"ChecksumCRC64NVME": encode(crc64), "ChecksumType": "FULL_OBJECT", "MpuObjectSize": size}
            if self.states_checksums
            else {}
        )
        with self._checked(f"complete {key}", writes=True, sent=(key, None, crc64)):
            answer = self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=name,
                UploadId=upload_id,
                MultipartUpload={"Parts": [{"PartNumber": part.number, "ETag": part.etag} for part in parts]},
                **extra,
            )
            answers.member(answer, "Bucket", str, self._bucket)
            answers.member(answer, "Key", str, name)
            answers.member(answer, "ETag", str)
        try:
            facts = self.head(key)
        except StoreError as error:
            raise AnswerUnknown(f"{key} was completed, but cannot be looked at: {error.what}") from error
        if facts.size != size or (facts.crc64 is not None and facts.crc64 != crc64):
            stated = "no CRC" if facts.crc64 is None else f"CRC {facts.crc64:016x}"
            raise Corrupt(f"it became {facts.size} bytes with {stated}, not {size} with {crc64:016x}", address=key)
        return facts

    def abort_upload(self, key: str, upload_id: str) -> None:
        try:
            with self._checked(f"abort the upload of {key}", writes=True):
                answers.check_gone(
                    self._client.abort_multipart_upload(Bucket=self._bucket, Key=self._name(key), UploadId=upload_id)
                )
        except ObjectMissing:
            return

    def list_uploads(self, prefix: str) -> list[Upload]:
        uploads: list[Upload] = []
        extra: dict[str, Any] = {}
        while True:
            with self._checked("list uploads", writes=False):
                answer = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=self._base + prefix, **extra)
                page, marker = answers.uploads_of(answer, bucket=self._bucket)
                if marker is not None and marker == (extra.get("KeyMarker"), extra.get("UploadIdMarker")):
                    raise answers.NotAnAnswer("its markers do not go forward")
            uploads += [
                replace(upload, key=upload.key[len(self._base) :])
                for upload in page
                if upload.key.startswith(self._base + prefix)
            ]
            if marker is None:
                return uploads
            extra = {"KeyMarker": marker[0], "UploadIdMarker": marker[1]}

    def thaw(self, key: str, *, days: int, tier: ThawTier) -> ThawAnswer:
        if days < 1:
            raise ValueError(f"cannot thaw for {days} days")
        asked = {"Days": days, "GlacierJobParameters": {"Tier": tier.value}}
        try:
            with self._checked(f"thaw {key}", writes=True):
                answer = self._client.restore_object(Bucket=self._bucket, Key=self._name(key), RestoreRequest=asked)
                return answers.thaw_of(answer)
        except StoreError as error:
            said = answers.refused_thaw(answers.refusal_of(error.__cause__))
            if said is None:
                raise
            return said

    def get_lifecycle(self) -> Lifecycle:
        try:
            with self._checked("read the lifecycle rules", writes=False):
                return lifecycle_of(self._client.get_bucket_lifecycle_configuration(Bucket=self._bucket))
        except StoreError as error:
            if answers.refusal_of(error.__cause__).code != "NoSuchLifecycleConfiguration":
                raise
        return Lifecycle()

    def put_lifecycle(self, lifecycle: Lifecycle) -> None:
        with self._checked("replace the lifecycle rules", writes=True):
            if lifecycle.rules:
                answer = self._client.put_bucket_lifecycle_configuration(Bucket=self._bucket, **request_of(lifecycle))
                answers.check_empty(answer)
            else:
                answers.check_gone(self._client.delete_bucket_lifecycle(Bucket=self._bucket))

    def _name(self, key: str) -> str:
        """The key in the bucket."""
        check_key(key)
        if len(self._base) + len(key) > MAX_KEY_BYTES:
            raise ValueError(f"too long a key below this prefix: {key[:80]!r}")
        return self._base + key

    def _class(self, storage_class: str) -> dict[str, str]:
        return {"StorageClass": storage_class} if self.knows_classes and storage_class != "STANDARD" else {}

    @contextlib.contextmanager
    def _checked(
        self, what: str, *, writes: bool, sent: tuple[str, bytes | memoryview | None, int] | None = None
    ) -> Iterator[None]:
        """Foreign exceptions become the port's here. `sent`: key, body and checksum of a write."""
        unclear = AnswerUnknown if writes else StoreUnreachable
        where = f"{what} in {self.url}"
        try:
            yield
        except answers.NotAnAnswer as error:
            raise unclear(f"The answer to the request to {where} cannot be believed: {error}.") from error
        except ClientError as error:
            refusal = answers.refusal_of(error)
            if sent is not None and answers.is_damage(refusal):
                key, data, crc64 = sent
                if data is None or crc64_of(data) != crc64:
                    raise Corrupt("the bytes sent do not have the checksum given with them", address=key) from error
            raise answers.error_of(refusal, what=where, writes=writes) from error
        except _NO_CREDENTIALS as error:
            raise StoreDenied(
                f"No usable credentials to {where}: {error}",
                advice="Set AWS_PROFILE or the keys in the environment, log in again, or give the machine a role.",
            ) from error
        except _NOT_SENT as error:
            raise StoreAbsent(
                f"Cannot {where}: {error}",
                meaning="Nobody answers at the store's address; nothing was sent.",
                advice="Check endpoint_url and region in the configuration, the network, and whether the store runs.",
            ) from error
        except SSLError as error:
            if "CERTIFICATE" in str(error).upper():
                raise StoreRefused(
                    f"Cannot {where}: {error}",
                    advice="Check the endpoint's name and date, or configure the authority that signed for it.",
                ) from error
            raise unclear(f"Cannot {where}: {error}") from error
        except (*_NO_ANSWER, HTTPError, ConnectionError, TimeoutError) as error:
            raise unclear(f"No answer to the request to {where}: {error}") from error
        except BotoCoreError as error:
            raise StoreRefused(f"Cannot {where}: {error}") from error


def _client(settings: S3Settings, session: Any) -> Any:
    try:
        session = session or boto3.session.Session(profile_name=settings.profile)
        region = settings.region or session.region_name or ("us-east-1" if settings.endpoint_url else None)
        client = session.client(
            "s3",
            endpoint_url=settings.endpoint_url,
            region_name=region,
            verify=settings.ca_bundle,
            config=Config(
                retries={"total_max_attempts": 1, "mode": "standard"},
                connect_timeout=settings.connect_timeout.total_seconds(),
                read_timeout=settings.read_timeout.total_seconds(),
                max_pool_connections=settings.connections,
                tcp_keepalive=True,
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={
                    "addressing_style": settings.addressing_style,
                    "payload_signing_enabled": settings.sign_payload,
                },
            ),
        )
    except (ProfileNotFound, NoRegionError, InvalidEndpointConfigurationError, ValueError) as error:
        raise UsageError(f"Cannot use s3://{settings.bucket}: {error}") from error
    client.meta.events.register("request-created.s3", _without_expect)
    client.meta.events.register("before-parse.s3", _no_foreign_redirect)
    enlarge_blocks(client)
    return client


def _no_foreign_redirect(response_dict: Any, **_: Any) -> None:
    """Take a redirect that names no region for a bad gateway: it is some portal's, not S3's.

    The library would ask for the bucket's region, be redirected again, and so on until the stack is full.
    """
    if response_dict["status_code"] in (301, 302, 307, 308) and not response_dict["headers"].get("x-amz-bucket-region"):
        response_dict["status_code"] = 502
        response_dict["body"] = b""


def _without_expect(request: Any, **_: Any) -> None:
    """Take ``Expect: 100-continue`` from small bodies. It is not signed, so the signature does not mind."""
    if "Expect" in request.headers and isinstance(request.data, Slices) and len(request.data) < EXPECT_BYTES:
        del request.headers["Expect"]


def enlarge_blocks(client: Any) -> bool:
    """Let the library's pool send bodies in blocks of `BLOCK_BYTES`; False when its inside has changed.

    There is no public way. Without it everything works, at more CPU time; a test notices when it no longer holds.
    """
    try:
        arguments = client._endpoint.http_session._manager.connection_pool_kw
    except AttributeError:
        return False
    if not isinstance(arguments, dict) or "blocksize" not in arguments:
        return False
    arguments["blocksize"] = BLOCK_BYTES
    return True
