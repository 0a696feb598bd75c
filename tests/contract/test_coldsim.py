"""The cold simulator as other programs see it: boto3 as it comes, its own paths, and what it refuses."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.request import Request, urlopen

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from gateway.store.cold import Weather
from gateway.store.crc import crc64, encode
from tests.contract.stores import session
from tests.servers import coldsim
from tests.servers.coldsim_wire import Refused, unchunk

MIB = 1 << 20
DATA = b"an object of the simulator"


@pytest.fixture
def server() -> Iterator[coldsim.ColdSim]:
    with coldsim.running(coldsim.ColdSim()) as running:
        running.buckets.create("cold")
        yield running


@pytest.fixture
def client(server: coldsim.ColdSim) -> Iterator[Any]:
    """boto3 without any settings but the address."""
    made = session().client("s3", endpoint_url=server.url)
    yield made
    made.close()


def asked(server: coldsim.ColdSim, path: str, method: str = "GET") -> Any:
    with urlopen(Request(server.url + path, method=method)) as answer:
        return json.load(answer)


def code(caught: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def test_freeze_restore_advance_read_freeze(server: coldsim.ColdSim, client: Any) -> None:
    asked(server, "/_clock?advance=1h", "POST")
    client.put_bucket_lifecycle_configuration(
        Bucket="cold",
        LifecycleConfiguration={
            "Rules": [
                {
                    "ID": "deep",
                    "Status": "Enabled",
                    "Filter": {"And": {"Prefix": "packs/", "ObjectSizeGreaterThan": 1}},
                    "Transitions": [{"Days": 7, "StorageClass": "DEEP_ARCHIVE"}],
                }
            ]
        },
    )
    client.put_object(Bucket="cold", Key="packs/1", Body=DATA, StorageClass="GLACIER_IR")
    assert asked(server, "/_clock?advance=8d", "POST") == {"now": "2026-01-09T13:00:00Z"}
    assert client.head_object(Bucket="cold", Key="packs/1")["StorageClass"] == "DEEP_ARCHIVE"
    with pytest.raises(ClientError) as caught:
        client.get_object(Bucket="cold", Key="packs/1")
    assert code(caught) == (403, "InvalidObjectState")
    wanted = {"Days": 3, "GlacierJobParameters": {"Tier": "Bulk"}}
    answer = client.restore_object(Bucket="cold", Key="packs/1", RestoreRequest=wanted)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    with pytest.raises(ClientError) as caught:
        client.restore_object(Bucket="cold", Key="packs/1", RestoreRequest=wanted)
    assert code(caught) == (409, "RestoreAlreadyInProgress")
    assert client.head_object(Bucket="cold", Key="packs/1")["Restore"] == 'ongoing-request="true"'
    asked(server, "/_clock?advance=1d23h59m60s", "POST")
    head = client.head_object(Bucket="cold", Key="packs/1")
    assert head["Restore"] == 'ongoing-request="false", expiry-date="Tue, 13 Jan 2026 00:00:00 GMT"'
    assert client.get_object(Bucket="cold", Key="packs/1")["Body"].read() == DATA
    listed = client.list_objects_v2(Bucket="cold", OptionalObjectAttributes=["RestoreStatus"])["Contents"]
    assert listed[0]["RestoreStatus"] == {
        "IsRestoreInProgress": False,
        "RestoreExpiryDate": datetime(2026, 1, 13, tzinfo=UTC),
    }
    assert "RestoreStatus" not in client.list_objects_v2(Bucket="cold")["Contents"][0]
    answer = client.restore_object(Bucket="cold", Key="packs/1", RestoreRequest={"Days": 1})
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    asked(server, "/_clock?advance=2d", "POST")
    with pytest.raises(ClientError) as caught:
        client.get_object(Bucket="cold", Key="packs/1")
    assert code(caught) == (403, "InvalidObjectState")
    assert "Restore" not in client.head_object(Bucket="cold", Key="packs/1")


def test_expedited(server: coldsim.ColdSim, client: Any) -> None:
    wanted = {"Days": 1, "GlacierJobParameters": {"Tier": "Expedited"}}
    for name in ("GLACIER", "DEEP_ARCHIVE", "STANDARD"):
        client.put_object(Bucket="cold", Key=name, Body=DATA, StorageClass=name)
    with pytest.raises(ClientError) as caught:
        client.restore_object(Bucket="cold", Key="DEEP_ARCHIVE", RestoreRequest=wanted)
    assert code(caught) == (400, "InvalidArgument")
    with pytest.raises(ClientError) as caught:
        client.restore_object(Bucket="cold", Key="STANDARD", RestoreRequest=wanted)
    assert code(caught) == (403, "InvalidObjectState")
    client.restore_object(Bucket="cold", Key="GLACIER", RestoreRequest=wanted)
    with coldsim.running(coldsim.ColdSim(weather=Weather(expedited_capacity=0))) as poor:
        poor.buckets.create("cold")
        other = session().client("s3", endpoint_url=poor.url)
        other.put_object(Bucket="cold", Key="k", Body=DATA, StorageClass="GLACIER")
        with pytest.raises(ClientError) as caught:
            other.restore_object(Bucket="cold", Key="k", RestoreRequest=wanted)
        assert code(caught) == (503, "GlacierExpeditedRetrievalNotAvailable")
        other.close()


def test_buckets(client: Any) -> None:
    client.create_bucket(Bucket="another")
    client.head_bucket(Bucket="another")
    assert [each["Name"] for each in client.list_buckets()["Buckets"]] == ["another", "cold"]
    with pytest.raises(ClientError) as caught:
        client.create_bucket(Bucket="another")
    assert code(caught) == (409, "BucketAlreadyOwnedByYou")
    client.put_object(Bucket="another", Key="k", Body=DATA)
    with pytest.raises(ClientError) as caught:
        client.delete_bucket(Bucket="another")
    assert code(caught) == (409, "BucketNotEmpty")
    client.delete_object(Bucket="another", Key="k")
    client.delete_bucket(Bucket="another")
    with pytest.raises(ClientError) as caught:
        client.head_bucket(Bucket="another")
    assert code(caught)[0] == 404
    with pytest.raises(ClientError) as caught:
        client.put_object(Bucket="another", Key="k", Body=DATA)
    assert code(caught) == (404, "NoSuchBucket")


def test_objects(client: Any) -> None:
    made = client.put_object(Bucket="cold", Key="a/b c+d", Body=DATA, IfNoneMatch="*")
    with pytest.raises(ClientError) as caught:
        client.put_object(Bucket="cold", Key="a/b c+d", Body=b"x", IfNoneMatch="*")
    assert code(caught) == (412, "PreconditionFailed")
    got = client.get_object(Bucket="cold", Key="a/b c+d")
    assert got["Body"].read() == DATA
    assert (got["ETag"], got["ChecksumCRC64NVME"]) == (made["ETag"], encode(crc64(DATA)))
    for asked_for, expected in [("bytes=3-5", DATA[3:6]), ("bytes=20-99", DATA[20:]), ("bytes=-4", DATA[-4:])]:
        answer = client.get_object(Bucket="cold", Key="a/b c+d", Range=asked_for)
        assert answer["Body"].read() == expected
        assert answer["ContentRange"].endswith(f"/{len(DATA)}")
    with pytest.raises(ClientError) as caught:
        client.get_object(Bucket="cold", Key="a/b c+d", Range="bytes=99-")
    assert code(caught) == (416, "InvalidRange")
    with pytest.raises(ClientError) as caught:
        client.get_object(Bucket="cold", Key="nothing")
    assert code(caught) == (404, "NoSuchKey")
    with pytest.raises(ClientError) as caught:
        client.head_object(Bucket="cold", Key="nothing")
    assert code(caught) == (404, "404")
    client.put_object(Bucket="cold", Key="a/c", Body=b"")
    gone = client.delete_objects(Bucket="cold", Delete={"Objects": [{"Key": "a/b c+d"}, {"Key": "a/c"}, {"Key": "n"}]})
    assert {each["Key"] for each in gone["Deleted"]} == {"a/b c+d", "a/c", "n"}
    assert client.list_objects_v2(Bucket="cold")["KeyCount"] == 0


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksums(client: Any, algorithm: str) -> None:
    made = client.put_object(Bucket="cold", Key="k", Body=DATA, ChecksumAlgorithm=algorithm)
    stated = made[f"Checksum{algorithm}"]
    wrong = {f"Checksum{algorithm}": stated}
    with pytest.raises(ClientError) as caught:
        client.put_object(Bucket="cold", Key="k", Body=b"other bytes", **wrong)
    assert code(caught) == (400, "BadDigest")
    assert client.get_object(Bucket="cold", Key="k")["Body"].read() == DATA


def test_listings(client: Any) -> None:
    names = [f"a/{number:04d}" for number in range(7)] + ["a-b", "b/c/d", "b/c/e", "b/f"]
    for name in names:
        client.put_object(Bucket="cold", Key=name, Body=b"x")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="cold", PaginationConfig={"PageSize": 2})
    assert [each["Key"] for page in pages for each in page["Contents"]] == sorted(names)
    found = client.list_objects_v2(Bucket="cold", Prefix="a/", StartAfter="a/0004")
    assert [each["Key"] for each in found["Contents"]] == ["a/0005", "a/0006"]
    levels = []
    for page in client.get_paginator("list_objects_v2").paginate(
        Bucket="cold", Prefix="", Delimiter="/", PaginationConfig={"PageSize": 1}
    ):
        levels += [each["Prefix"] for each in page.get("CommonPrefixes", [])]
        levels += [each["Key"] for each in page.get("Contents", [])]
    assert levels == ["a-b", "a/", "b/"]
    found = client.list_objects_v2(Bucket="cold", Prefix="b/", Delimiter="/")
    assert [each["Prefix"] for each in found["CommonPrefixes"]] == ["b/c/"]
    assert client.list_objects_v2(Bucket="cold", MaxKeys=0)["KeyCount"] == 0
    with pytest.raises(ClientError) as caught:
        client.list_objects_v2(Bucket="cold", ContinuationToken="é")
    assert code(caught)[0] == 400


def test_uploads(client: Any) -> None:
    data = bytes(range(256)) * (12 * MIB // 256)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=3)
    client.upload_fileobj(io.BytesIO(data), "cold", "big", Config=config, ExtraArgs={"StorageClass": "GLACIER_IR"})
    head = client.head_object(Bucket="cold", Key="big", ChecksumMode="ENABLED")
    assert (head["ContentLength"], head["StorageClass"]) == (len(data), "GLACIER_IR")
    assert (head["ChecksumCRC64NVME"], head["ChecksumType"]) == (encode(crc64(data)), "FULL_OBJECT")
    back = io.BytesIO()
    client.download_fileobj("cold", "big", back, Config=config)
    assert back.getvalue() == data

    upload_id = client.create_multipart_upload(Bucket="cold", Key="m", ChecksumAlgorithm="CRC64NVME")["UploadId"]
    parts = []
    for number in (1, 2, 3):
        made = client.upload_part(Bucket="cold", Key="m", UploadId=upload_id, PartNumber=number, Body=b"small")
        parts.append({"PartNumber": number, "ETag": made["ETag"]})
    pages = client.get_paginator("list_parts").paginate(
        Bucket="cold", Key="m", UploadId=upload_id, PaginationConfig={"PageSize": 2}
    )
    assert [each["PartNumber"] for page in pages for each in page["Parts"]] == [1, 2, 3]
    other = client.create_multipart_upload(Bucket="cold", Key="m")["UploadId"]
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket="cold", PaginationConfig={"PageSize": 1})
    assert [each["UploadId"] for page in pages for each in page["Uploads"]] == sorted([upload_id, other])

    def complete(chosen: list[dict[str, Any]], **more: Any) -> Any:
        return client.complete_multipart_upload(
            Bucket="cold", Key="m", UploadId=upload_id, MultipartUpload={"Parts": chosen}, **more
        )

    for chosen, more, expected in (
        (parts, {}, "EntityTooSmall"),
        (parts[::-1], {}, "InvalidPartOrder"),
        ([{"PartNumber": 9, "ETag": parts[0]["ETag"]}], {}, "InvalidPart"),
        (parts[:1], {"MpuObjectSize": 6}, "InvalidRequest"),
        (parts[:1], {"ChecksumCRC64NVME": encode(1), "ChecksumType": "FULL_OBJECT"}, "BadDigest"),
    ):
        with pytest.raises(ClientError) as caught:
            complete(chosen, **more)
        assert code(caught) == (400, expected)
    done = complete(parts[:1], IfNoneMatch="*", ChecksumCRC64NVME=encode(crc64(b"small")), ChecksumType="FULL_OBJECT")
    assert done["ChecksumCRC64NVME"] == encode(crc64(b"small"))
    upload_id = other
    with pytest.raises(ClientError) as caught:
        complete(parts[:1], IfNoneMatch="*")
    assert code(caught) == (412, "PreconditionFailed")
    client.abort_multipart_upload(Bucket="cold", Key="m", UploadId=other)
    with pytest.raises(ClientError) as caught:
        client.list_parts(Bucket="cold", Key="m", UploadId=other)
    assert code(caught) == (404, "NoSuchUpload")


def test_trailing_checksums(server: coldsim.ColdSim) -> None:
    """As boto3 sends them over TLS: the body in chunks, its checksum behind it."""

    def put(checksum: int) -> tuple[int, bytes]:
        trailer = encode_crc32(checksum)
        body = b"5\r\nhello\r\n7;chunk-signature=00\r\n, world\r\n0\r\nx-amz-checksum-crc32:" + trailer + b"\r\n\r\n"
        headers = {
            "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            "content-encoding": "aws-chunked",
            "x-amz-trailer": "x-amz-checksum-crc32",
            "x-amz-decoded-content-length": "12",
        }
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
        said = 0, b""
        for chunked in (False, True):
            # The pieces of an iterator go out in HTTP's own chunks, too.
            sent = iter([body[:9], body[9:]]) if chunked else body
            connection.request("PUT", "/cold/k", sent, headers, encode_chunked=chunked)
            answer = connection.getresponse()
            said = answer.status, answer.read()
        connection.close()
        return said

    def encode_crc32(value: int) -> bytes:
        import base64

        return base64.b64encode(value.to_bytes(4))

    assert put(zlib.crc32(b"hello, world"))[0] == 200
    with urlopen(f"{server.url}/cold/k") as answer:
        assert answer.read() == b"hello, world"
    status, body = put(0)
    assert status == 400
    assert b"BadDigest" in body


@pytest.mark.parametrize("body", [b"", b"5\r\nhel", b"x\r\n", b"3\r\nhello\r\n0\r\n"])
def test_cut_chunks(body: bytes) -> None:
    with pytest.raises(Refused):
        unchunk(body)


def test_wrong_hash_of_the_payload(server: coldsim.ColdSim) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request("PUT", "/cold/k", DATA, {"x-amz-content-sha256": hashlib.sha256(b"other").hexdigest()})
    answer = connection.getresponse()
    assert answer.status == 400
    assert b"XAmzContentSHA256Mismatch" in answer.read()
    connection.close()


def test_lifecycle_rules(client: Any) -> None:
    with pytest.raises(ClientError) as caught:
        client.get_bucket_lifecycle_configuration(Bucket="cold")
    assert code(caught) == (404, "NoSuchLifecycleConfiguration")
    rules = [
        {
            "ID": "a&b",
            "Status": "Disabled",
            "Filter": {"And": {"Prefix": "x/", "ObjectSizeGreaterThan": 5, "ObjectSizeLessThan": 50}},
            "Transitions": [{"Days": 0, "StorageClass": "GLACIER_IR"}, {"Days": 90, "StorageClass": "GLACIER"}],
            "Expiration": {"Days": 400},
        },
        {
            "ID": "abort",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        },
        {"ID": "large", "Status": "Enabled", "Filter": {"ObjectSizeGreaterThan": 5}, "Expiration": {"Days": 1}},
    ]
    client.put_bucket_lifecycle_configuration(
        Bucket="cold",
        LifecycleConfiguration={"Rules": rules},
        TransitionDefaultMinimumObjectSize="varies_by_storage_class",
    )
    answer = client.get_bucket_lifecycle_configuration(Bucket="cold")
    assert answer["Rules"] == rules
    assert answer["TransitionDefaultMinimumObjectSize"] == "varies_by_storage_class"
    for bad in (
        {"Filter": {"Tag": {"Key": "a", "Value": "b"}}, "Expiration": {"Days": 1}},
        {"Filter": {"Prefix": ""}, "Expiration": {"Date": datetime(2030, 1, 1, tzinfo=UTC)}},
        {"Filter": {"Prefix": ""}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}},
        {"Filter": {"Prefix": ""}},
    ):
        with pytest.raises(ClientError) as caught:
            client.put_bucket_lifecycle_configuration(
                Bucket="cold", LifecycleConfiguration={"Rules": [{"ID": "r", "Status": "Enabled"} | bad]}
            )
        assert code(caught) == (400, "InvalidRequest")
    assert client.get_bucket_lifecycle_configuration(Bucket="cold")["Rules"] == rules
    client.delete_bucket_lifecycle(Bucket="cold")
    with pytest.raises(ClientError):
        client.get_bucket_lifecycle_configuration(Bucket="cold")


def test_not_simulated(client: Any) -> None:
    client.put_object(Bucket="cold", Key="k", Body=DATA)
    absent: list[Callable[[], object]] = [
        lambda: client.get_bucket_versioning(Bucket="cold"),
        lambda: client.get_object_tagging(Bucket="cold", Key="k"),
        lambda: client.copy_object(Bucket="cold", Key="c", CopySource="cold/k"),
        lambda: client.list_objects(Bucket="cold"),
        lambda: client.put_object(Bucket="cold", Key="k", Body=DATA, IfMatch='"x"'),
    ]
    for call in absent:
        with pytest.raises(ClientError) as caught:
            call()
        assert code(caught) == (501, "NotImplemented")
    refused: list[Callable[[], object]] = [
        lambda: client.put_object(Bucket="cold", Key="k/", Body=DATA),
        lambda: client.put_object(Bucket="cold", Key="k", Body=DATA, StorageClass="STANDARD_IA"),
    ]
    for call in refused:
        with pytest.raises(ClientError) as caught:
            call()
        assert code(caught)[0] == 400


def test_the_clock(server: coldsim.ColdSim, client: Any) -> None:
    assert asked(server, "/_clock") == {"now": "2026-01-01T12:00:00Z"}
    assert asked(server, "/_clock?advance=1d2h3m4s", "POST") == {"now": "2026-01-02T14:03:04Z"}
    answer = client.put_object(Bucket="cold", Key="k", Body=DATA)
    date = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
    assert parsedate_to_datetime(date) == datetime(2026, 1, 2, 14, 3, 4, tzinfo=UTC)
    assert client.head_object(Bucket="cold", Key="k")["LastModified"] == datetime(2026, 1, 2, 14, 3, 4, tzinfo=UTC)
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    for path, method, status in [
        ("/_clock?advance=tomorrow", "POST", 400),
        ("/_clock", "POST", 400),
        ("/_clock?advance=-3d", "POST", 400),
        ("/_clock?advance=99999999d", "POST", 400),
        ("/_bill?egress=pigeon", "GET", 400),
        ("/_other", "GET", 404),
    ]:
        connection.request(method, path)
        said = connection.getresponse()
        said.read()
        assert said.status == status, path
    connection.close()
    assert asked(server, "/_clock") == {"now": "2026-01-02T14:03:04Z"}


def test_the_bill(server: coldsim.ColdSim, client: Any) -> None:
    """1 MiB in STANDARD for 30 days is 0.023/1024 dollars; a PUT and a GET; 1 MiB sent over the internet 0.09/1024."""
    client.put_object(Bucket="cold", Key="k", Body=bytes(MIB))
    client.get_object(Bucket="cold", Key="k")["Body"].read()
    asked(server, "/_clock?advance=30d", "POST")
    made = asked(server, "/_bill?egress=internet")
    assert made["until"] == "2026-01-31T12:00:00Z"
    assert made["prices"] == {"name": "us-east-1", "as_of": "2026-11-22", "currency": "USD"}
    amounts = {line["item"]: float(line["amount"]) for line in made["buckets"][0]["lines"]}
    assert amounts == pytest.approx(
        {"storage": 0.023 / 1024, "request:put": 0.000005, "request:get": 0.0000004, "egress": 0.09 / 1024}, abs=1e-12
    )
    assert float(made["total"]) == pytest.approx(sum(amounts.values()), abs=1e-11)
    client.delete_object(Bucket="cold", Key="k")
    client.delete_bucket(Bucket="cold")
    assert asked(server, "/_bill?egress=internet") == made  # a bucket that is gone is still paid for


def test_the_same_seed_gives_the_same_run() -> None:
    def run(seed: int) -> tuple[list[str | None], Any]:
        with coldsim.running(coldsim.ColdSim(weather=Weather(seed=seed))) as server:
            server.buckets.create("cold")
            client = session().client("s3", endpoint_url=server.url)
            for number in range(8):
                client.put_object(Bucket="cold", Key=f"k{number}", Body=DATA, StorageClass="GLACIER")
                client.restore_object(Bucket="cold", Key=f"k{number}", RestoreRequest={"Days": 1})
            server.advance(timedelta(hours=4))
            seen = [client.head_object(Bucket="cold", Key=f"k{number}").get("Restore") for number in range(8)]
            client.close()
            return seen, asked(server, "/_bill")

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_only_loopback() -> None:
    for host in ("0.0.0.0", "192.0.2.1", "::"):
        with pytest.raises(ValueError):
            coldsim.ColdSim(host=host)


def test_the_program() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.servers.coldsim",
        "--port",
        "0",
        "--bucket",
        "cold",
        "--start",
        "2031-05-01",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url, _, rest = process.stdout.readline().partition(" ")
        assert rest == "is ready; its time is 2031-05-01T00:00:00Z\n"
        client = session().client("s3", endpoint_url=url)
        client.head_bucket(Bucket="cold")
        client.close()
        process.terminate()
        assert process.wait(20) == 0
    refused = subprocess.run([*command, "--host", "0.0.0.0"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "loopback" in refused.stderr
