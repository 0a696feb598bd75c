"""Canonical JSON with a MAC: `repository.json`, slots, wraps (docs/format/README.md section 5)."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from typing import Any

from gateway.errors import Corrupt, NewerFormat
from gateway.format import limits
from gateway.format.keys import MasterKey

MAC = "~mac"

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

    The MAC is not checked here: `check_mac` does, once a master key is known.
    """
    if len(data) > limits.JSON_BYTES:
        raise Corrupt("object is too large", address=address)
    try:
        value = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise Corrupt("not JSON", address=address) from error
    if not isinstance(value, dict) or encode(value) + b"\n" != data:
        raise Corrupt("not canonical JSON", address=address)
    if not isinstance(value.get(MAC), str):
        raise Corrupt("has no MAC", address=address)
    version = value.get("format")
    features = value.get("needs_features")
    if type(version) is not int or version < 1:
        raise Corrupt("names no format", address=address)
    if not isinstance(features, list) or not all(isinstance(each, str) for each in features):
        raise Corrupt("names no features", address=address)
    require_known(version, features, address)
    return value


def require_known(version: int, features: list[str] | tuple[str, ...], address: str) -> None:
    """Refuse what a newer version wrote."""
    unknown = sorted(set(features) - limits.FEATURES)
    if version > limits.FORMAT or unknown:
        needs = f"format {version}" if version > limits.FORMAT else "features " + ", ".join(unknown)
        raise NewerFormat(
            f"{address} needs {needs}.",
            meaning="A newer version of the gateway wrote it.",
            advice="Upgrade the gateway and run the command again.",
        )


def check_mac(value: Json, key: MasterKey, address: str) -> None:
    body = {name: each for name, each in value.items() if name != MAC}
    if not hmac.compare_digest(key.mac(encode(body)), str(value[MAC])):
        raise Corrupt("MAC is wrong: the object was changed or belongs to another repository", address=address)


def hex_field(value: Json, name: str, length: int, address: str) -> bytes:
    """A field of `length` bytes in lower-case hexadecimal."""
    text = value.get(name)
    if not isinstance(text, str) or len(text) != 2 * length or text != text.lower():
        raise Corrupt(f"field {name} is wrong", address=address)
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise Corrupt(f"field {name} is wrong", address=address) from error


def text_field(value: Json, name: str, address: str) -> str:
    text = value.get(name)
    if not isinstance(text, str):
        raise Corrupt(f"field {name} is wrong", address=address)
    return text
