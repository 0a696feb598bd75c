"""Values of the api as JSON."""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum
from pathlib import PurePath

from gateway import clock
from gateway.log import JsonValue, printable


def plain(value: object) -> JsonValue:
    """The JSON form of a value: objects by field name, times as RFC 3339, sizes and durations (in seconds) as numbers.

    A name of a file is its text. Where it is not UTF-8 it is the escaped form that people see, and a field
    ``<name>_base64`` beside it has the exact bytes. No text ever holds a lone surrogate.
    """
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, datetime):
        return clock.text(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | PurePath):
        return _name(value)[0]
    if isinstance(value, Mapping):
        return _object({str(key): each for key, each in value.items()})
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _object({each.name: getattr(value, each.name) for each in dataclasses.fields(value)})
    return _text(str(value))


def _object(fields: Mapping[str, object]) -> dict[str, JsonValue]:
    out: dict[str, JsonValue] = {}
    for name, value in fields.items():
        if isinstance(value, bytes | PurePath):
            out[name], exact = _name(value)
            if exact is not None:
                out[f"{name}_base64"] = base64.b64encode(exact).decode("ascii")
        else:
            out[name] = plain(value)
    return out


def _name(name: bytes | PurePath) -> tuple[str, bytes | None]:
    """What to show, and the exact bytes where that does not say them."""
    data = name if isinstance(name, bytes) else os.fsencode(name)
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError:
        return printable(data), data


def _text(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text
