"""How calls of `GatewayApi` look as JSON. Both sides read the shapes from the protocol's own type hints.

    POST /v1/<method>          {"argument": value, ...}
    200, application/x-ndjson  {"progress": {...}}*, then {"item": value}* {"end": null}  where the method iterates,
                               else {"result": value}; an error is {"error": {...}} wherever it happens

Bytes are base64, paths too (of the bytes the file system has), times ISO 8601.
An answer without its last line was cut off.
"""

from __future__ import annotations

import base64
import inspect
import os
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gateway import errors
from gateway.api import GatewayApi
from gateway.errors import GatewayError
from gateway.model.ids import ChainName

PREFIX = "/v1/"
LOCAL_ONLY = frozenset({"close"})
"""Methods that are no calls."""


@dataclass(frozen=True, slots=True)
class Call:
    """A method of the api: the types of its arguments, of its result, and whether it gives items one by one."""

    name: str
    arguments: dict[str, Any]
    result: Any
    iterates: bool
    tells: bool
    positional: tuple[str, ...]


def calls() -> dict[str, Call]:
    """Every method of `GatewayApi` that can be called from outside."""
    found = {}
    for name, function in vars(GatewayApi).items():
        if name.startswith("_") or name in LOCAL_ONLY or not inspect.isfunction(function):
            continue
        hints = typing.get_type_hints(function)
        result = hints.pop("return")
        tells = hints.pop("progress", None) is not None
        iterates = typing.get_origin(result) is Iterator
        item = typing.get_args(result)[0] if iterates else _plain(result)
        kinds = inspect.signature(function).parameters
        positional = tuple(
            each.name for each in kinds.values() if each.kind is each.POSITIONAL_OR_KEYWORD and each.name != "self"
        )
        found[name] = Call(name, {key: _plain(hint) for key, hint in hints.items()}, item, iterates, tells, positional)
    return found


def _plain(hint: Any) -> Any:
    """Sequences come back as tuples."""
    if typing.get_origin(hint) is Sequence:
        return tuple[typing.get_args(hint)[0], ...]  # type: ignore[misc]
    return hint


def encode(value: object) -> bytes:
    return msgspec.json.encode(value, enc_hook=_encoded)


def decode(data: bytes, kind: Any) -> Any:
    """Raises `msgspec.DecodeError` or `ValidationError`."""
    return msgspec.json.decode(data, type=kind, dec_hook=_decoded)


def convert(value: object, kind: Any) -> Any:
    return msgspec.convert(value, type=kind, dec_hook=_decoded, builtin_types=())


def _encoded(value: object) -> object:
    if isinstance(value, Path):
        return base64.b64encode(os.fsencode(value)).decode("ascii")
    if isinstance(value, ChainName):
        return str(value)
    raise NotImplementedError(f"{type(value)} has no form in JSON")


def _decoded(kind: type, value: object) -> object:
    if kind is Path:
        return Path(os.fsdecode(base64.b64decode(str(value), validate=True)))
    raise NotImplementedError(f"{kind} has no form in JSON")


# --- errors ----------------------------------------------------------------------------------------------------------


class ErrorDocument(msgspec.Struct, frozen=True):
    kind: str
    what: str
    meaning: str
    advice: str
    address: str = ""
    mistakes: tuple[str, ...] = ()


def error_document(error: GatewayError) -> ErrorDocument:
    return ErrorDocument(
        type(error).__name__, error.what, error.meaning, error.advice, getattr(error, "address", ""),
        tuple(getattr(error, "mistakes", ())),
    )  # fmt: skip


def as_error(document: ErrorDocument) -> GatewayError:
    """The same error on this side of the door; a class that this version does not have is the general one."""
    kind = getattr(errors, document.kind, GatewayError)
    if not (isinstance(kind, type) and issubclass(kind, GatewayError)):
        kind = GatewayError
    error = kind.__new__(kind)
    GatewayError.__init__(error, document.what, meaning=document.meaning, advice=document.advice)
    if issubclass(kind, errors.Corrupt | errors.Missing):
        error.address = document.address  # type: ignore[attr-defined]
    if issubclass(kind, errors.ConfigError):
        error.mistakes = document.mistakes  # type: ignore[attr-defined]
    return error
