"""The stores under test and their habits."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

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
    forgets_replaced_parts: bool = True  # SeaweedFS lists and takes every version of a part
    knows_that_uploads_end: bool = True  # moto answers 500 to requests for an aborted one
    thaws: bool = True  # archives objects and thaws them
    keeps_rules: bool = True  # lifecycle rules come back as they were put; False: as `test_lifecycle` says


HABITS = {
    "memory": Habits(),
    "coldsim": Habits(),
    "directory": Habits(
        states_checksums=False, refuses_small_parts=False, knows_classes=False, thaws=False, keeps_rules=False
    ),
    # moto never compares a checksum, and a part of an upload it does not know ends in its own KeyError.
    "moto": Habits(
        refuses_bad_checksum=False,
        refuses_bad_part_checksum=False,
        knows_that_uploads_end=False,
        keeps_rules=False,
    ),
    "seaweedfs": Habits(forgets_replaced_parts=False, thaws=False, keeps_rules=False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A fresh, empty store of one kind. `reopen` gives another adapter on the same contents.

    `now` and `advance` read and move the store's time, where it has one of its own.
    """

    name: str
    store: ObjectStore
    habits: Habits
    reopen: Callable[[], ObjectStore]
    now: Callable[[], datetime] | None = None
    advance: Callable[[timedelta], None] | None = None


@functools.cache
def session() -> boto3.session.Session:
    """Credentials of the test servers. One for all: loading the description of S3 takes most of a second."""
    return boto3.session.Session(
        aws_access_key_id="test-access-key", aws_secret_access_key="test-secret-key", region_name="us-east-1"
    )


@functools.cache
def _bucket(url: str) -> str:
    client = session().client("s3", endpoint_url=url)
    client.create_bucket(Bucket="contract")
    client.close()
    return "contract"


def s3_settings(url: str) -> S3Settings:
    """An empty place on a server. Small pages: a listing of more than three names takes several requests."""
    return S3Settings(
        bucket=_bucket(url),
        prefix=f"some/prefix-{next(_numbers)}",
        endpoint_url=url,
        addressing_style="path",
        page_keys=3,
    )
