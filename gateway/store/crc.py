"""CRC64NVME: the checksum by which an object in a store is compared with what was sent.

S3 computes it over the full object, also of a multipart upload, and states it as base64 of the eight bytes,
most significant first (S3 user guide, "Checking object integrity"). It finds accidents, not attacks: against
those every frame of a container is authenticated.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from awscrt import checksums


def crc64(data: bytes | bytearray | memoryview, previous: int = 0) -> int:
    """The CRC64NVME of what gave `previous` followed by `data`; 0 is the CRC of nothing."""
    return int(checksums.crc64nvme(data, previous))


def combine(first: int, second: int, second_length: int) -> int:
    """The CRC of two byte strings in a row from the CRC of each and the length of the second; O(log
    length)."""
    return int(checksums.combine_crc64nvme(first, second, second_length))


def combine_all(pieces: Iterable[tuple[int, int]]) -> int:
    """The CRC of a concatenation from (crc, length) of its pieces, in order."""
    result = 0
    for crc, length in pieces:
        result = combine(result, crc, length)
    return result


def encode(crc: int) -> str:
    """As S3 writes it in headers and XML: base64 of eight big-endian bytes."""
    return base64.b64encode(crc.to_bytes(8)).decode("ascii")


def decode(text: str) -> int:
    """The inverse of `encode`. `ValueError` for anything else, composite checksums (``...-N``) included."""
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {text!r}") from error
    if len(raw) != 8:
        raise ValueError(f"not eight bytes: {text!r}")
    return int.from_bytes(raw)
