"""Answers are believed only when they are whole; whatever comes, nothing else than `NotAnAnswer` is raised."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import AnswerUnknown, GatewayError, StoreUnreachable
from gateway.store import s3_answers as answers

NAMES = [
    "Name", "Prefix", "KeyCount", "IsTruncated", "Contents", "CommonPrefixes", "NextContinuationToken", "Key", "Size",
    "LastModified", "ETag", "Bucket", "UploadId", "Parts", "PartNumber", "NextPartNumberMarker", "Uploads", "Initiated",
    "NextKeyMarker", "ContentLength", "ContentRange", "ChecksumCRC64NVME", "ChecksumType", "VersionId",
]  # fmt: skip
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 3),
    st.sampled_from(
        ["", "b", "p/", "p/a", "k", "u", "1", "AAAAAAAAAAA=", "AAAAAAAAAAA=-1", "bytes 0-1/2", "bytes 5-1/2"]
    ),
    st.just(datetime(2026, 1, 1, tzinfo=UTC)),
)
ENTRY = st.dictionaries(st.sampled_from(NAMES), PLAIN, max_size=6)
ANSWER = st.dictionaries(st.sampled_from(NAMES), st.one_of(PLAIN, st.lists(ENTRY, max_size=3)), max_size=12)

READERS: list[Callable[[answers.Answer], object]] = [
    lambda a: answers.facts_of_head(a, "k"),
    answers.stated_crc,
    answers.whole_length,
    answers.range_of,
    answers.check_gone,
    lambda a: answers.check_stored(a, 0),
    lambda a: answers.page_of(a, bucket="b", prefix="p/"),
    lambda a: answers.parts_of(a, bucket="b", key="k", upload_id="u"),
    lambda a: answers.uploads_of(a, bucket="b"),
]


@pytest.mark.parametrize("reader", READERS)
@given(answer=ANSWER)
def test_raises_nothing_else(reader: Callable[[answers.Answer], object], answer: dict[str, object]) -> None:
    try:
        reader(answer)
    except answers.NotAnAnswer:
        pass


@given(
    code=st.sampled_from(["", "AccessDenied", "NoSuchKey", "SlowDown", "500", "InternalError", "Anything"]),
    status=st.integers(200, 599),
    writes=st.booleans(),
)
def test_every_refusal_is_an_error(code: str, status: int, writes: bool) -> None:
    error = answers.error_of(answers.Refusal(code=code, status=status), what="do it", writes=writes)
    assert isinstance(error, GatewayError)
    assert str(error).startswith(("Cannot do it", "it is shorter"))
    if isinstance(error, AnswerUnknown):
        assert writes


def test_a_server_error_leaves_a_write_in_doubt() -> None:
    for status in (500, 502, 504, 503):
        refusal = answers.Refusal(code="InternalError", status=status)
        assert type(answers.error_of(refusal, what="x", writes=True)) is AnswerUnknown
        assert type(answers.error_of(refusal, what="x", writes=False)) is StoreUnreachable
    slow = answers.Refusal(code="SlowDown", status=503)
    assert type(answers.error_of(slow, what="x", writes=True)) is StoreUnreachable
