"""The stores under test and their habits."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import boto3.session

from gateway.store.port import ObjectStore
from gateway.store.s3 import S3Settings

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """What a store does where the contract leaves room, or where a test double is known to fall short."""

    states_checksums: bool = True  # in HEAD, as the store's own word
    refuses_bad_checksum: bool = True
    refuses_bad_part_checksum: bool = True
    refuses_small_parts: bool = True
    knows_classes: bool = True
    part_of_unknown_upload_is_missing: bool = True
    dates_by_initiation: bool = True  # a multipart object; AWS does


HABITS = {
    "memory": Habits(),
    "directory": Habits(
        states_checksums=False, refuses_small_parts=False, knows_classes=False, dates_by_initiation=False
    ),
    # moto never compares a checksum, and a part of an upload it does not know ends in its own KeyError.
    "moto": Habits(
        refuses_bad_checksum=False,
        refuses_bad_part_checksum=False,
        part_of_unknown_upload_is_missing=False,
        dates_by_initiation=False,
    ),
    "seaweedfs": Habits(dates_by_initiation=False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A fresh, empty store of one kind. `reopen` gives another adapter on the same contents."""

    name: str
    store: ObjectStore
    habits: Habits
    reopen: Callable[[], ObjectStore]


def session(access_key: str = "test-access-key", secret_key: str = "test-secret-key") -> boto3.session.Session:
    return boto3.session.Session(
        aws_access_key_id=access_key, aws_secret_access_key=secret_key, region_name="us-east-1"
    )


def _make_bucket(url: str, bucket: str) -> None:
    client = session().client("s3", endpoint_url=url)
    client.create_bucket(Bucket=bucket)
    client.close()


def s3_settings(url: str) -> S3Settings:
    """A new bucket on a server."""
    bucket = f"bucket-{next(_numbers)}"
    _make_bucket(url, bucket)
    # Small pages: every listing of more than three names takes several requests.
    return S3Settings(bucket=bucket, prefix="some/prefix", endpoint_url=url, addressing_style="path", page_keys=3)
