"""Strict records in canonical MessagePack (docs/format/README.md section 1).

A record is a `msgspec.Struct` with ``array_like=True``: unknown trailing elements are ignored, missing ones are an
error. MessagePack has several spellings of one value; `decode` accepts only the shortest, by encoding what it can see
again where that is cheap (log entries, headers, directories); list records are carried as bytes and need no check.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from gateway.errors import Corrupt

Decoded = TypeVar("Decoded")

_encoder = msgspec.msgpack.Encoder()
_any = msgspec.msgpack.Decoder()


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of every record of the format: positions, not names, are what is stored."""


def encode(record: Any) -> bytes:
    return _encoder.encode(record)


def decode(data: bytes, kind: type[Decoded], address: str) -> Decoded:
    """One record that fills `data` exactly."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError) as error:
        raise Corrupt("record is malformed", address=address) from error


def require_shortest(data: bytes, address: str) -> None:
    """`Corrupt` unless every value in `data` is spelled the shortest way."""
    try:
        same = _encoder.encode(_any.decode(data)) == data
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError) as error:
        raise Corrupt("record is malformed", address=address) from error
    if not same:
        raise Corrupt("record is not in its shortest form", address=address)
