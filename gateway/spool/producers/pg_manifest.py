"""The backup manifest of PostgreSQL 13 and later: what a base backup must consist of.

The file is JSON whose last line is a SHA-256 over all lines before it (PostgreSQL documentation, "Backup Manifest
Format"). Version 2, from PostgreSQL 17 on, adds the system identifier.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec
from awscrt import checksums

MANIFEST_BYTES = 512 * 1024 * 1024
"""LIMIT: some 3 million files at 160 bytes each; a larger manifest is not read."""

_LAST_LINE = re.compile(rb'"Manifest-Checksum": "([0-9a-f]{64})"\}\n')


class ManifestError(Exception):
    """One sentence: it is not a manifest, or a damaged one."""


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """`algorithm` is empty where the backup was made without checksums."""

    size: int
    algorithm: str
    checksum: bytes


@dataclass(frozen=True, slots=True)
class WalRange:
    """WAL from `start` to before `end`, positions in bytes, that must be readable on this timeline."""

    timeline: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    version: int
    system_identifier: int | None
    files: Mapping[bytes, ManifestFile]
    wal_ranges: tuple[WalRange, ...]
    checksum: bytes


class _File(msgspec.Struct):
    size: int = msgspec.field(name="Size")
    path: str | None = msgspec.field(name="Path", default=None)
    encoded_path: str | None = msgspec.field(name="Encoded-Path", default=None)
    algorithm: str = msgspec.field(name="Checksum-Algorithm", default="")
    checksum: str = msgspec.field(name="Checksum", default="")


class _Range(msgspec.Struct):
    timeline: int = msgspec.field(name="Timeline")
    start: str = msgspec.field(name="Start-LSN")
    end: str = msgspec.field(name="End-LSN")


class _Manifest(msgspec.Struct):
    version: int = msgspec.field(name="PostgreSQL-Backup-Manifest-Version")
    files: list[_File] = msgspec.field(name="Files")
    ranges: list[_Range] = msgspec.field(name="WAL-Ranges")
    checksum: str = msgspec.field(name="Manifest-Checksum")
    system_identifier: int | None = msgspec.field(name="System-Identifier", default=None)


def parse_manifest(data: bytes) -> Manifest:
    """`ManifestError` for everything that is not a whole, undamaged manifest of version 1 or 2."""
    last = data.rfind(b"\n", 0, len(data) - 1) + 1
    found = _LAST_LINE.fullmatch(data, last)
    if found is None:
        raise ManifestError("Its last line, the checksum, is missing.")
    said = bytes.fromhex(found[1].decode())
    if hashlib.sha256(memoryview(data)[:last]).digest() != said:
        raise ManifestError("Its own checksum is wrong.")
    try:
        read = msgspec.json.decode(data, type=_Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"It is not a manifest: {error}.") from error
    if read.version not in (1, 2):
        raise ManifestError(f"Its version {read.version} is not known here.")
    files: dict[bytes, ManifestFile] = {}
    for file in read.files:
        path, entry = _file(file)
        if path in files:
            raise ManifestError(f"It names {path!r} twice.")
        files[path] = entry
    ranges = tuple(WalRange(one.timeline, parse_lsn(one.start), parse_lsn(one.end)) for one in read.ranges)
    if not files or not ranges or any(one.end < one.start or one.timeline < 1 for one in ranges):
        raise ManifestError("It names no files or no WAL.")
    return Manifest(
        version=read.version,
        system_identifier=read.system_identifier,
        files=files,
        wal_ranges=ranges,
        checksum=said,
    )


def _file(file: _File) -> tuple[bytes, ManifestFile]:
    try:
        checksum = bytes.fromhex(file.checksum)
        path = bytes.fromhex(file.encoded_path) if file.encoded_path is not None else (file.path or "").encode()
    except (ValueError, UnicodeEncodeError) as error:
        raise ManifestError("It holds a path or a checksum that is none.") from error
    parts = path.split(b"/")
    if not path or b"\0" in path or any(part in (b"", b".", b"..") for part in parts) or file.size < 0:
        raise ManifestError(f"It names {path!r} with {file.size} bytes.")
    algorithm = "" if file.algorithm in ("", "NONE") else file.algorithm
    if algorithm and (algorithm not in _SUMS or len(checksum) != _SUMS[algorithm]().size):
        raise ManifestError(f"It has a checksum of {path!r} that is not known here.")
    return path, ManifestFile(file.size, algorithm, checksum)


def parse_lsn(text: str) -> int:
    """``16/B374D848`` as a number; `ManifestError` for anything else."""
    found = re.fullmatch(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", text)
    if found is None:
        raise ManifestError(f"{text!r} is not a position in the WAL.")
    return int(found[1], 16) << 32 | int(found[2], 16)


def format_lsn(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFF_FFFF:X}"


class Sum(Protocol):
    size: int

    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc32c:
    """As the server writes it: four bytes, least significant first."""

    size = 4

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = int(checksums.crc32c(data, self._value))

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "little")


class _Sha:
    def __init__(self, name: str) -> None:
        self._inner = hashlib.new(name)
        self.size = self._inner.digest_size

    def update(self, data: bytes, /) -> None:
        self._inner.update(data)

    def digest(self) -> bytes:
        return self._inner.digest()


class _Nothing:
    size = 0

    def update(self, data: bytes, /) -> None:
        pass

    def digest(self) -> bytes:
        return b""


_SUMS: dict[str, Callable[[], Sum]] = {
    "": _Nothing,
    "CRC32C": _Crc32c,
    "SHA224": lambda: _Sha("sha224"),
    "SHA256": lambda: _Sha("sha256"),
    "SHA384": lambda: _Sha("sha384"),
    "SHA512": lambda: _Sha("sha512"),
}


def new_sum(algorithm: str) -> Sum:
    return _SUMS[algorithm]()
