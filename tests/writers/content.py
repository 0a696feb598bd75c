"""The bytes that writers write: forms whose own structure shows whether they are whole, and one that shows nothing."""

from __future__ import annotations

import gzip
import io
import random
import re
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

TAR_RECORD = 10_240
"""What tar pads an archive to; more zeros than that behind its end are a preallocated file that was not written."""

_PIECES = 6
_SQL_END = re.compile(rb"\n(-- PostgreSQL database dump complete\n--\n\n|-- Dump completed on [^\n]*\n)\Z")
_WORDS = tuple(f"column_{number}" for number in range(64))


class Form(StrEnum):
    """The value is the suffix of such a file's name."""

    OPAQUE = ".bak"
    TAR = ".tar"
    GZIP = ".gz"
    ZIP = ".zip"
    SQL = ".sql"


STRUCTURED = (Form.TAR, Form.GZIP, Form.ZIP, Form.SQL)
CHECKED = (Form.GZIP, Form.ZIP)
"""Forms with checksums over their data: only these show that half of them is another version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a whole file holds. `about` is its size, met roughly (structure comes on top)."""

    form: Form
    seed: int
    about: int

    def bytes(self) -> bytes:
        # Small ones are cheap to make, and so many that they would push out the others.
        return _make(self) if self.about < 8192 else _remembered(self)


@lru_cache(maxsize=128)
def _remembered(content: Content) -> bytes:
    return _make(content)


def _make(content: Content) -> bytes:
    chance = random.Random(f"{content.form} {content.seed}")
    match content.form:
        case Form.OPAQUE:
            return chance.randbytes(content.about)
        case Form.TAR:
            return _tar(chance, content.about)
        case Form.GZIP:
            return gzip.compress(chance.randbytes(content.about).hex().encode(), compresslevel=1, mtime=0)
        case Form.ZIP:
            return _zip(chance, content.about)
        case Form.SQL:
            return _sql(chance, content.about)


def _tar(chance: random.Random, about: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for number in range(_PIECES):
            data = chance.randbytes(max(1, about // _PIECES - chance.randrange(700)))
            member = tarfile.TarInfo(f"base/{number}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def _zip(chance: random.Random, about: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(_PIECES):
            name = zipfile.ZipInfo(f"base/{number}", (2030, 1, 1, 0, 0, 0))
            archive.writestr(name, chance.randbytes(max(1, about // _PIECES)))
    return out.getvalue()


def _sql(chance: random.Random, about: int) -> bytes:
    """As pg_dump or mysqldump writes it; both say at the end that it is the end."""
    head, tail = chance.choice(
        (
            ("--\n-- PostgreSQL database dump\n--\n\n", "--\n-- PostgreSQL database dump complete\n--\n\n"),
            ("-- MySQL dump 10.13\n--\n", "-- Dump completed on 2030-01-01  1:02:03\n"),
        )
    )
    rows = io.StringIO()
    rows.write(head)
    while rows.tell() < about:
        values = f"{chance.randrange(10**9)}, '{chance.randbytes(min(500, about)).hex()}'"
        rows.write(f"INSERT INTO {chance.choice(_WORDS)} VALUES ({values});\n")
    return (rows.getvalue() + tail).encode()


def shows_complete(form: Form, data: bytes) -> bool:
    """Whether the bytes alone show that they are a whole file of this form: everything is read, every checksum counted.

    False for OPAQUE, always. It can be fooled, as anybody can who has only the bytes: by half a tar or SQL dump over
    an old one of the same size, and by a tar whose last member is missing from a preallocated file.
    """
    if not data:
        return False
    match form:
        case Form.OPAQUE:
            return False
        case Form.TAR:
            return _whole_tar(data)
        case Form.GZIP:
            return _whole_gzip(data)
        case Form.ZIP:
            try:
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    # Readers forgive what stands behind the end; ours have no comment, so nothing does.
                    return archive.testzip() is None and data[-22:-18] == b"PK\5\6"
            except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError):
                return False
        case Form.SQL:
            return data.startswith(b"--") and _SQL_END.search(data) is not None


def _whole_tar(data: bytes) -> bool:
    """From header to header to two blocks of zeros, with nothing but the padding of one record behind them."""
    at = 0
    while at + 1024 <= len(data):
        block = data[at : at + 512]
        if not block.strip(b"\0"):
            rest = data[at:]
            return len(data) % 512 == 0 and not rest.strip(b"\0") and 1024 <= len(rest) < TAR_RECORD + 1024
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            return False
        at += 512 + -(-member.size // 512) * 512
    return False


def _whole_gzip(data: bytes) -> bool:
    engine = zlib.decompressobj(wbits=31)
    try:
        engine.decompress(data)
    except zlib.error:
        return False
    return engine.eof and not engine.unused_data
