"""Canonical JSON with a MAC: `repository.json`, slots, wraps (docs/format/README.md section 5)."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping
from typing import Any

from gateway.errors import Corrupt, NewerFormat
from gateway.format import limits
from gateway.format.keys import MasterKey

MAC = "~mac"
_HEX = re.compile("[0-9a-f]*")
# Without the two that would be escaped, so that keys have one order, whether escaped bytes or characters are compared.
_KEY = re.compile(r"[ !#-\[\]-}]*")

Json = Mapping[str, Any]


def encode(value: Json) -> bytes:
    """Canonical bytes of an object, without the final newline."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def with_mac(value: Json, key: MasterKey) -> bytes:
    """The object as it is stored: canonical, MAC last, newline."""
    body = {name: each for name, each in value.items() if name != MAC}
    return encode({**body, MAC: key.mac(encode(body))}) + b"\n"


def decode(data: bytes, address: str) -> dict[str, Any]:
    """Parse a stored object. `Corrupt` when the bytes are not canonical, `NewerFormat` when they are beyond us.

    Format and features are looked at before all other fields: what a newer version wrote may differ in everything else.

    The MAC is not checked here: `check_mac` does, once a master key is known.
    """
    if len(data) > limits.JSON_BYTES:
        raise Corrupt("object is too large", address=address)
    try:
        value = json.loads(data.decode("ascii"), parse_float=_refuse, parse_constant=_refuse, parse_int=_unsigned)
        canonical = isinstance(value, dict) and encode(value) + b"\n" == data
        # A lone surrogate is no character: other readers could not even hold the text.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
        _check_types({name: each for name, each in value.items() if name != MAC} if canonical else {})
    except (ValueError, RecursionError) as error:
        raise Corrupt("not JSON as the format has it", address=address) from error
    if not canonical:
        raise Corrupt("not canonical JSON", address=address)
    version = value.get("format")
    if type(version) is not int or version < 1:
        raise Corrupt("names no format", address=address)
    require_known(version, (), address)
    features = value.get("needs_features")
    if not isinstance(features, list) or not all(isinstance(each, str) for each in features):
        raise Corrupt("names no features", address=address)
    require_known(version, features, address)
    hex_field(value, MAC, 32, address)
    return dict(value)


def _refuse(text: str) -> None:
    raise ValueError(f"not in canonical JSON: {text[:20]}")


def _unsigned(text: str) -> int:
    if text[0] == "-" or int(text) > limits.JSON_INTEGER:
        _refuse(text)
    return int(text)


def _check_types(value: Any) -> None:
    """ValueError unless all is text, integers, arrays and objects with plain keys."""
    if isinstance(value, dict):
        for name, each in value.items():
            if not _KEY.fullmatch(name):
                _refuse(name)
            _check_types(each)
    elif isinstance(value, list):
        for each in value:
            _check_types(each)
    elif type(value) not in (str, int):
        _refuse(str(value))


def require_known(version: int, features: list[str] | tuple[str, ...], address: str) -> None:
    """Refuse what a newer version wrote."""
    unknown = sorted(set(features) - limits.FEATURES)
    if version > limits.FORMAT or unknown:
        # SECURITY: nothing of this is proved yet, so the names are shown escaped.
        needs = f"format {version}" if version > limits.FORMAT else "features " + ", ".join(map(ascii, unknown))
        raise NewerFormat(
            f"{address} needs {needs}.",
            meaning="A newer version of the gateway wrote it.",
            advice="Upgrade the gateway and run the command again.",
        )


def check_mac(value: Json, key: MasterKey, address: str) -> None:
    body = {name: each for name, each in value.items() if name != MAC}
    if not hmac.compare_digest(bytes.fromhex(key.mac(encode(body))), hex_field(value, MAC, 32, address)):
        raise Corrupt("MAC is wrong: the object was changed or belongs to another repository", address=address)


def is_ours(data: bytes, key: MasterKey) -> bool:
    """Whether an object of whatever version has the MAC of this master key: MAC and canonical form never change."""
    try:
        value = json.loads(data.decode("ascii"))
        body = {name: each for name, each in value.items() if name != MAC}
        return hmac.compare_digest(key.mac(encode(body)), str(value.get(MAC)))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return False


def hex_field(value: Json, name: str, length: int, address: str) -> bytes:
    """A field of `length` bytes in lower-case hexadecimal."""
    text = value.get(name)
    # `bytes.fromhex` alone would pass over white space and give fewer bytes.
    if not isinstance(text, str) or len(text) != 2 * length or not _HEX.fullmatch(text):
        raise Corrupt(f"field {name} is wrong", address=address)
    return bytes.fromhex(text)


def text_field(value: Json, name: str, address: str) -> str:
    text = value.get(name)
    if not isinstance(text, str):
        raise Corrupt(f"field {name} is wrong", address=address)
    return text
