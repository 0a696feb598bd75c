"""Base backups made by hand, as PostgreSQL would lay them out: for versions and cases that no server here makes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from awscrt import checksums

SYSTEM = 7_301_234_567_890_123_456
SEGMENT = 1 << 20
PAGE = 8192
LABEL = (
    b"START WAL LOCATION: 0/200028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/200060\n"
    b"BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-03-01 02:00:00 UTC\nLABEL: nightly\n"
    b"START TIMELINE: 1\n"
)


def wal_segment(number: int, *, system: int = SYSTEM, timeline: int = 1, written: int = SEGMENT) -> bytes:
    """`written`: bytes of real pages; behind them are those of a recycled segment."""
    pages = []
    for offset in range(0, SEGMENT, PAGE):
        position = number * SEGMENT + offset - (0 if offset < written else SEGMENT)
        head = struct.pack("<HHIQI", 0xD110, 2 if offset == 0 else 0, timeline, position, 0)
        if offset == 0:
            head = head.ljust(24, b"\0") + struct.pack("<QII", system, SEGMENT, PAGE)
        pages.append(head.ljust(PAGE, b"w"))
    return b"".join(pages)


def digest(algorithm: str, data: bytes) -> bytes:
    if algorithm == "CRC32C":
        return int(checksums.crc32c(data)).to_bytes(4, "little")
    return hashlib.new(algorithm.lower(), data).digest()


@dataclass
class Backup:
    files: dict[str, bytes] = field(
        default_factory=lambda: {
            "PG_VERSION": b"17\n",
            "backup_label": LABEL,
            "global/pg_control": struct.pack("<Q", SYSTEM) + bytes(8184),
            "base/1/1259": b"relation" * 5000,
            "base/1/empty": b"",
            "postgresql.conf": b"port = 5432\n",
            "postgresql.auto.conf": b"",
        }
    )
    wal: dict[str, bytes] = field(
        default_factory=lambda: {
            "000000010000000000000002": wal_segment(2),
            "000000010000000000000003": wal_segment(3, written=3 * PAGE),
        }
    )
    tablespaces: dict[int, dict[str, bytes]] = field(default_factory=dict)
    version: int = 2
    algorithm: str = "CRC32C"
    start: str = "0/200028"
    end: str = "0/304000"
    system: int = SYSTEM

    def all_files(self) -> dict[str, bytes]:
        below = {
            f"pg_tblspc/{oid}/{name}": data for oid, files in self.tablespaces.items() for name, data in files.items()
        }
        return self.files | below

    def manifest(self) -> bytes:
        lines = [f'{{ "PostgreSQL-Backup-Manifest-Version": {self.version},']
        if self.version == 2:
            lines.append(f'"System-Identifier": {self.system},')
        lines.append('"Files": [')
        entries = []
        for name, data in self.all_files().items():
            entry: dict[str, object] = {"Path": name, "Size": len(data), "Last-Modified": "2026-03-01 02:00:00 GMT"}
            if not name.isascii():
                del entry["Path"]
                entry = {"Encoded-Path": os.fsencode(name).hex(), **entry}
            if self.algorithm != "NONE":
                entry |= {"Checksum-Algorithm": self.algorithm, "Checksum": digest(self.algorithm, data).hex()}
            entries.append(json.dumps(entry))
        lines.append(",\n".join(entries))
        lines += ["],", '"WAL-Ranges": [']
        lines.append(f'{{ "Timeline": 1, "Start-LSN": "{self.start}", "End-LSN": "{self.end}" }}')
        lines += ["],", ""]
        body = "\n".join(lines).encode()
        return body + b'"Manifest-Checksum": "' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'

    def plain(self, place: Path, tablespaces: Path | None = None) -> Path:
        for name, data in self.files.items():
            write(place / name, data)
        (place / "pg_wal/archive_status").mkdir(parents=True)
        (place / "pg_tblspc").mkdir()
        for name, data in self.wal.items():
            write(place / "pg_wal" / name, data)
        for oid, files in self.tablespaces.items():
            there = (tablespaces or place.parent) / f"ts-{oid}"
            for name, data in files.items():
                write(there / name, data)
            (place / "pg_tblspc" / str(oid)).symlink_to(there)
        write(place / "backup_manifest", self.manifest())
        return place

    def tar(self, place: Path, suffix: str = "") -> Path:
        files = dict(self.files)
        if self.tablespaces:
            lines = "".join(f"{oid} /old/ts-{oid}\n" for oid in self.tablespaces)
            files = self.files = {"backup_label": files["backup_label"], "tablespace_map": lines.encode()} | files
        place.mkdir(parents=True)
        tars = {"base": files} | {str(oid): files for oid, files in self.tablespaces.items()}
        if self.wal:
            tars["pg_wal"] = self.wal
        for name, members in tars.items():
            write_tar(place / f"{name}.tar{suffix}", members, suffix)
        write(place / "backup_manifest", self.manifest())
        return place


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_tar(path: Path, members: dict[str, bytes], suffix: str = "") -> None:
    mode = {"": "w", ".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz", ".zst": "w"}[suffix]
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    data = made.getvalue()
    if suffix == ".zst":
        import zstandard

        data = zstandard.ZstdCompressor(write_checksum=True).compress(data)
    path.write_bytes(data)
