"""Strict records in canonical MessagePack (docs/format/README.md section 1).

A record is a `msgspec.Struct` with ``array_like=True``: unknown trailing elements are ignored, missing ones are an
error. MessagePack has several spellings of one value; `decode` accepts only the shortest, by encoding what it can see
again where that is cheap (log entries, headers, directories); list records are carried as bytes and need no check.
"""

from __future__ import annotations

from itertools import chain
from typing import Any, ClassVar, TypeVar

import msgspec

from gateway.errors import Corrupt
from gateway.format import limits

Decoded = TypeVar("Decoded")

_encoder = msgspec.msgpack.Encoder()
_any = msgspec.msgpack.Decoder()
_TYPES = frozenset((list, int, str, bytes))


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of every record of the format: positions, not names, are what is stored.

    `LATER`: how many of its last fields were added after the format was frozen. Records from before lack them.
    """

    LATER: ClassVar[int] = 0


def encode(record: Any) -> bytes:
    return _encoder.encode(record)


def decode(data: bytes, kind: type[Decoded], address: str) -> Decoded:
    """One record that fills `data` exactly.

    INVARIANT: the defaults of a record are for who makes one. `msgspec` would also put them in where bytes end early;
    here a record that is too short is `Corrupt`. Only the outermost record is looked at: see `require_fields`.
    """
    try:
        record = msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise Corrupt("record is malformed", address=address) from error
    if getattr(kind, "__struct_defaults__", ()):
        require_fields(_elements(data), kind, address)
    return record


def require_fields(elements: int, kind: type[Any], address: str) -> None:
    """`Corrupt` when a record of so many elements lacks some that this version names."""
    if elements < len(kind.__struct_fields__) - kind.LATER:
        raise Corrupt("record is too short", address=address)


def _elements(data: bytes) -> int:
    """How many elements the array that `data` begins with has."""
    if data[0] & 0xF0 == 0x90:
        return data[0] & 0x0F
    return int.from_bytes(data[1:3] if data[0] == 0xDC else data[1:5])


def require_shortest(data: bytes, address: str) -> Any:
    """What `data` says, untyped. `Corrupt` unless all of it is of the format's types and spelled the shortest way."""
    try:
        value = _any.decode(data)
        same = _encoder.encode(value) == data
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Corrupt("record is malformed", address=address) from error
    level, depth = [value], 0
    while level:
        if not _TYPES.issuperset(map(type, level)):
            raise Corrupt("record holds a type the format does not have", address=address)
        arrays = [each for each in level if type(each) is list]
        level, depth = list(chain.from_iterable(arrays)), depth + bool(arrays)
        if depth > limits.NESTING:
            raise Corrupt("record nests too deep", address=address)
    if not same:
        raise Corrupt("record is not in its shortest form", address=address)
    return value
