#!/usr/bin/env python3
"""Restores a backup repository of format version 1 without the product that wrote it.

    rescue.py REPOSITORY_DIR [--passphrase-file F | --recovery-sheet F] list [--json]
    rescue.py REPOSITORY_DIR ... restore SOURCE[@GEN] --to DIR [--incomplete]
    rescue.py REPOSITORY_DIR ... check

REPOSITORY_DIR is a directory store, or a bucket copied down file by file. GEN is `latest` (the default), a number, or
a unique beginning of a generation's id written g<hex>.

Exit codes: 0 ok, 2 usage, 3 restored but something was left out, 10 no repository here, 12 wrong passphrase or sheet,
13 damage found, 15 written by a newer version. Any damage met on the way makes 13, also where all that was asked for
could be restored: a damaged log may hide a newer generation.

Written from docs/format alone, as the proof that those pages are enough; a section sign in a comment refers to them
("README §4.2"). It shares no code with the product, so that one mistake cannot sit in both. That, and that somebody
must be able to carry it to another machine as one file, is why it is longer than the 600 lines a file here may have.

What it holds in memory: one record of a list, one pack's segment table (two caches of bounded size), one segment and
what it stands on. It needs Python 3.11, `cryptography`, `zstandard` and `blake3`, on Linux.
"""

from __future__ import annotations

import argparse
import array
import bisect
import collections
import contextlib
import getpass
import hashlib
import hmac
import itertools
import json
import os
import re
import secrets
import stat
import struct
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

# Bounds of limits.md §1: each is checked before the bytes behind it are used.
MAX_JSON = MAX_SHEET = 64 * KIB
MAX_BODY = MIB  # log entry, header, end
MAX_PACK, MAX_INDEX, MAX_FRAMES = GIB, 64 * MIB, 1 << 20
MAX_CHUNK, MAX_SEGMENT, MAX_FRAME = MIB, 2 * MIB, 4 * MIB
MAX_BASE, MAX_BASE_RUNS, MAX_DEPTH, MAX_CLOSURE = MIB, 64, 8, 32 * MIB
MAX_PART, MAX_LIST_DEPTH, MAX_RECORD, MAX_PATH = 64 * MIB, 8, MIB, 65_535
MAX_RANGE = 1 << 24  # packs that one array of ranges names
MAX_PAIRS = 4096  # pairs or triples in a record of holes or runs, data.md §5
MAX_NESTING = 16  # arrays in arrays, README §1

OK, USAGE, PARTIAL, NO_REPOSITORY, WRONG_KEY, DAMAGE, NEWER = 0, 2, 3, 10, 12, 13, 15


class Stop(Exception):
    """Ends the program with an exit code and one sentence."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Damage(Exception):
    """Bytes that are not what the format says. The text names the object."""


class Newer(Exception):
    """Something says of itself that a newer version wrote it."""


class Report:
    """Says what was found, at once, and remembers how bad it is."""

    def __init__(self) -> None:
        self.damage: list[str] = []
        self.newer: list[str] = []
        self.left_out: list[str] = []

    def _say(self, kept: list[str] | None, what: str, text: object) -> None:
        if kept is not None:
            kept.append(str(text))
        print(f"{what}: {text}", file=sys.stderr)

    def problem(self, text: object) -> None:
        self._say(self.damage, "damage", text)

    def too_new(self, text: object) -> None:
        self._say(self.newer, "newer format", text)

    def omit(self, text: str) -> None:
        self._say(self.left_out, "left out", text)

    def note(self, text: str) -> None:
        self._say(None, "note", text)

    @contextlib.contextmanager
    def about(self, name: str) -> Iterator[None]:
        """Damage inside is said with the object's name, and what comes behind goes on."""
        try:
            yield
        except (Damage, Newer) as e:
            said = str(e) if str(e).startswith((name, "chains/", "keys/", "packs/")) else f"{name}: {e}"
            (self.problem if isinstance(e, Damage) else self.too_new)(said)

    def code(self) -> int:
        return DAMAGE if self.damage else NEWER if self.newer else PARTIAL if self.left_out else OK


# --- msgpack, README §1 -----------------------------------------------------------------------------------------------
# Integers, text, byte strings and arrays, each in its shortest form; everything else is corrupt.

_INT = {  # lead byte: (bytes, signed, where this form starts to be the shortest)
    0xCC: (1, False, 1 << 7), 0xCD: (2, False, 1 << 8), 0xCE: (4, False, 1 << 16), 0xCF: (8, False, 1 << 32),
    0xD0: (1, True, -33), 0xD1: (2, True, -129), 0xD2: (4, True, -(1 << 15) - 1), 0xD3: (8, True, -(1 << 31) - 1),
}  # fmt: skip
_SIZED = {  # lead byte: (kind, bytes of the length, least length that needs this form)
    0xC4: ("bytes", 1, 0), 0xC5: ("bytes", 2, 1 << 8), 0xC6: ("bytes", 4, 1 << 16),
    0xD9: ("text", 1, 32), 0xDA: ("text", 2, 1 << 8), 0xDB: ("text", 4, 1 << 16),
    0xDC: ("array", 2, 16), 0xDD: ("array", 4, 1 << 16),
}  # fmt: skip


def unpack(buf: bytes, pos: int = 0, nesting: int = 0) -> tuple[Any, int]:
    """Decodes one value at `pos`; returns it and the position behind it."""
    lead, pos = _bytes(buf, pos, 1)[0], pos + 1
    if lead < 0x80 or lead >= 0xE0:
        return lead if lead < 0x80 else lead - 0x100, pos
    if lead in _INT:
        size, signed, edge = _INT[lead]
        number = int.from_bytes(_bytes(buf, pos, size), "big", signed=signed)
        if (number > edge) if signed else (number < edge):
            raise Damage("msgpack: an integer is not in its shortest form")
        return number, pos + size
    if 0x90 <= lead < 0xA0:
        kind, length = "array", lead & 0x0F
    elif 0xA0 <= lead < 0xC0:
        kind, length = "text", lead & 0x1F
    elif lead in _SIZED:
        kind, size, least = _SIZED[lead]
        length = int.from_bytes(_bytes(buf, pos, size), "big")
        pos += size
        if length < least:
            raise Damage("msgpack: a length is not in its shortest form")
    else:
        raise Damage(f"msgpack: type {lead:#04x} does not occur in this format")
    if kind == "array":
        if nesting >= MAX_NESTING:
            raise Damage("msgpack: arrays are nested too deeply")
        values = []
        for _ in range(length):  # a lying length ends with the buffer, which is bounded
            value, pos = unpack(buf, pos, nesting + 1)
            values.append(value)
        return values, pos
    data = _bytes(buf, pos, length)
    try:
        return data if kind == "bytes" else data.decode(), pos + length
    except UnicodeDecodeError as e:
        raise Damage("msgpack: text is not UTF-8") from e


def _bytes(buf: bytes, pos: int, size: int) -> bytes:
    if pos + size > len(buf):
        raise Damage("msgpack: the value is cut short")
    return buf[pos : pos + size]


def unpack_whole(buf: bytes) -> Any:
    value, end = unpack(buf)
    if end != len(buf):
        raise Damage("msgpack: bytes behind the value")
    return value


Check = Callable[[Any], bool]


def integer(low: int, end: int) -> Check:
    return lambda v: type(v) is int and low <= v < end


def sized(*sizes: int) -> Check:
    return lambda v: type(v) is bytes and len(v) in sizes


def items(check: Check) -> Check:
    return lambda v: type(v) is list and all(check(x) for x in v)


def text(v: Any) -> bool:
    return type(v) is str


def blob(v: Any) -> bool:
    return type(v) is bytes


def anything(_: Any) -> bool:
    return True


def pair(v: Any) -> bool:
    return type(v) is list and len(v) == 2 and blob(v[0]) and blob(v[1])


u8, u16, u32, u64 = (integer(0, 1 << bits) for bits in (8, 16, 32, 64))
i64, flag, time = integer(-(1 << 63), 1 << 63), integer(0, 2), integer(0, 253_402_300_800_000)
ident, digest32, u32s, texts, values = sized(16), sized(32), items(u32), items(text), items(anything)


def take(record: Any, what: str, *checks: Check) -> list[Any]:
    """The fields of a record this version knows; elements behind them are ignored (README §1, growth)."""
    if type(record) is not list or len(record) < len(checks):
        raise Damage(f"{what}: not a record of at least {len(checks)} fields")
    for i, check in enumerate(checks):
        if not check(record[i]):
            raise Damage(f"{what}: field {i} has the wrong type or range")
    return record[: len(checks)]


def tuples(flat: list[int], n: int, what: str) -> list[tuple[int, ...]]:
    if len(flat) % n:
        raise Damage(f"{what}: {len(flat)} numbers are not groups of {n}")
    return list(zip(*[iter(flat)] * n, strict=True))


class Ranges:
    """Ascending disjoint ranges `[first, count, ...]` of pack numbers; never expanded, a hostile count is large."""

    def __init__(self, flat: list[int], what: str) -> None:
        self.pairs = tuples(flat, 2, what)
        end = 1
        for first, count in self.pairs:
            if count < 1 or first < end or first + count > 1 << 32:
                raise Damage(f"{what}: ranges are empty, overlap or descend")
            end = first + count
        self.starts = [first for first, _ in self.pairs]
        self.total = sum(count for _, count in self.pairs)
        if self.total > MAX_RANGE:
            raise Damage(f"{what}: names too many packs")

    def __contains__(self, number: int) -> bool:
        i = bisect.bisect_right(self.starts, number) - 1
        return i >= 0 and number < self.starts[i] + self.pairs[i][1]

    def __iter__(self) -> Iterator[int]:
        return itertools.chain.from_iterable(range(first, first + count) for first, count in self.pairs)


# --- canonical JSON, README §5 ----------------------------------------------------------------------------------------


def canonical(value: dict[str, Any]) -> bytes:
    """The one way to write an object, without the final 0A."""
    return json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode("ascii")


def _refuse(what: str) -> Any:
    raise ValueError(f"{what} does not occur in canonical JSON")


def _proper(value: Any) -> None:
    """ValueError for what JSON has and the format has not."""
    if type(value) is dict:
        for key, inner in value.items():
            if not re.fullmatch(r"[ !#-\[\]-}]*", key):
                _refuse(f"the key {key!r}")
            _proper(inner)
    elif type(value) is list:
        for inner in value:
            _proper(inner)
    elif type(value) is str:
        value.encode()  # a lone surrogate is a ValueError
    elif type(value) is not int or not 0 <= value < 1 << 53:
        _refuse(repr(value))


def parse_json(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw.decode("ascii"), parse_float=_refuse, parse_constant=_refuse)
        if type(value) is not dict or canonical(value) + b"\n" != raw:
            _refuse("this way of writing")
        _proper({k: v for k, v in value.items() if k != "~mac" or not text(v)})
    except (ValueError, RecursionError) as e:
        raise Damage(f"not canonical JSON: {e}") from e
    return dict(value)


def json_mac(key: bytes, value: dict[str, Any]) -> str:
    bare = {k: v for k, v in value.items() if k != "~mac"}
    return hmac.new(key, canonical(bare), hashlib.sha256).hexdigest()


def check_mac(key: bytes, value: dict[str, Any]) -> None:
    if not hmac.compare_digest(json_mac(key, value).encode(), str(value.get("~mac")).encode()):
        raise Damage("the MAC is wrong")


def check_newer(value: dict[str, Any]) -> None:
    version, needs = value.get("format"), value.get("needs_features")
    if type(version) is not int or version < 1:
        raise Damage("`format` is missing")
    if version > 1:
        raise Newer(f"format {version}")
    if not texts(needs):
        raise Damage("`needs_features` is missing")
    if needs:
        raise Newer(f"features {needs}")


def hex_field(value: dict[str, Any], key: str, size: int) -> bytes:
    v = value.get(key)
    if type(v) is not str or not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", v):
        raise Damage(f"`{key}` is not {size} bytes in hexadecimal")
    return bytes.fromhex(v)


# --- keys, README §3 --------------------------------------------------------------------------------------------------


def hkdf(ikm: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    """RFC 5869 with SHA-256, extract and expand; written out because it is shorter than its import."""
    prk = hmac.digest(salt, ikm, "sha256")
    out = block = b""
    for i in range(1, -(-size // 32) + 1):
        block = hmac.digest(prk, block + info + bytes([i]), "sha256")
        out += block
    return out[:size]


def keyed(key: bytes, data: bytes) -> bytes:
    return blake3(data, key=key).digest()


def chunk_id(key: bytes, data: bytes) -> bytes:
    return keyed(key, data)[:16]


class ChainKeys:
    def __init__(self, chain_key: bytes, repository: bytes) -> None:
        data, meta, log, head, files, lists = (
            hkdf(chain_key, repository, b"gateway/v1/chain/" + name, 32)
            for name in (b"data", b"meta", b"log", b"head", b"id", b"list-id")
        )
        self.purpose = {1: data, 2: meta, 3: log, 4: head, 5: head}  # by container type
        self.id = {1: files, 2: lists}  # by pack type


def argon2id(passphrase: str, salt: bytes, kdf: dict[str, Any]) -> bytes:
    """README §5.2; the bounds come before any work."""
    memory, rounds, lanes = (kdf.get(k) for k in ("memory_kib", "iterations", "lanes"))
    for v, low, high in ((memory, 8, 4_194_304), (rounds, 1, 64), (lanes, 1, 64)):
        if type(v) is not int or not low <= v <= high:
            raise Damage("Argon2id parameters out of bounds")
    if memory < 8 * lanes:
        raise Damage("Argon2id parameters out of bounds")
    secret = unicodedata.normalize("NFC", passphrase).encode()
    return Argon2id(salt=salt, length=32, iterations=rounds, lanes=lanes, memory_cost=memory).derive(secret)


def unseal(secret: bytes, info: bytes, value: dict[str, Any]) -> bytes | None:
    """Opens a slot or a wrap: the 32 bytes sealed in it; None where the commitment says: another secret."""
    salt, commitment = hex_field(value, "salt", 32), hex_field(value, "commitment", 32)
    keys = hkdf(secret, salt, info, 96)
    if not hmac.compare_digest(keys[32:64], commitment):
        return None
    aad = canonical({k: v for k, v in value.items() if k not in ("commitment", "nonce", "sealed", "~mac")})
    try:
        return AESGCM(keys[:32]).decrypt(hex_field(value, "nonce", 12), hex_field(value, "sealed", 48), aad)
    except InvalidTag as e:
        raise Damage("the sealed key does not open, though the commitment is right") from e


# --- the recovery sheet, README §5.4 ----------------------------------------------------------------------------------


def word_value(word: str) -> int:
    value = 0
    for i, letter in enumerate(word.lower()):
        alphabet, bits = (("bdfghjklmnprstvz", 4), ("aiou", 2))[i % 2]
        at = alphabet.find(letter)
        if at < 0:
            raise ValueError(f"the letter {letter!r} of {word!r} cannot stand there")
        value = value << bits | at
    return value


def read_sheet(sheet: str) -> tuple[bytes, bytes | None]:
    """The secret of a sheet, and the repository's id where the sheet says it."""
    lines: dict[int, bytes] = {}
    repository = None
    for line in sheet.splitlines():
        if match := re.fullmatch(r"\s*repository id:\s*([0-9a-fA-F]{32})\s*", line):
            repository = bytes.fromhex(match[1])
        match = re.fullmatch(r"\s*([1-4])\s+([A-Za-z]{5}(?:[\s-]+[A-Za-z]{5}){4})\s*", line)
        if not match:
            continue
        n = int(match[1])
        try:
            numbers = [word_value(word) for word in re.split(r"[\s-]+", match[2])]
        except ValueError as e:
            raise Stop(USAGE, f"recovery sheet, line {n}: {e}") from e
        eight = struct.pack(">4H", *numbers[:4])
        if hashlib.sha256(b"gateway/v1/sheet" + bytes([n]) + eight).digest()[:2] != struct.pack(">H", numbers[4]):
            raise Stop(USAGE, f"recovery sheet, line {n}: the words do not fit together, one is misread")
        if lines.setdefault(n, eight) != eight:
            raise Stop(USAGE, f"recovery sheet: there are two different lines {n}")
    if missing := [str(n) for n in range(1, 5) if n not in lines]:
        raise Stop(USAGE, f"recovery sheet: no readable line {', '.join(missing)}")
    return b"".join(lines[n] for n in range(1, 5)), repository


# --- CRC64NVME, README §1 ---------------------------------------------------------------------------------------------

_crc_tables: list[array.array[int]] = []


def _crc_step(value: int, bits: int) -> int:
    for _ in range(bits):
        value = value >> 1 ^ (0x9A6C9329AC4BC9B5 if value & 1 else 0)
    return value


def crc64(data: bytes, before: int = 0) -> int:
    if not _crc_tables:  # four tables for 16 bits each: eight bytes a step, which plain Python needs
        _crc_tables.append(array.array("Q", (_crc_step(i, 16) for i in range(1 << 16))))
        for _ in range(3):
            last = _crc_tables[-1]
            _crc_tables.append(array.array("Q", (v >> 16 ^ _crc_tables[0][v & 0xFFFF] for v in last)))
    one, two, three, four = _crc_tables
    value = before ^ 0xFFFFFFFFFFFFFFFF
    whole = len(data) & ~7
    for (eight,) in struct.iter_unpack("<Q", data[:whole]):
        v = value ^ eight
        value = four[v & 0xFFFF] ^ three[v >> 16 & 0xFFFF] ^ two[v >> 32 & 0xFFFF] ^ one[v >> 48]
    for byte in data[whole:]:
        value = value >> 8 ^ _crc_step((value ^ byte) & 0xFF, 8)
    return value ^ 0xFFFFFFFFFFFFFFFF


# --- the store --------------------------------------------------------------------------------------------------------


class Store:
    """A directory with the objects of README §2."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def size(self, name: str) -> int | None:
        """None = there is no such object."""
        path = self.root / name
        return path.stat().st_size if path.is_file() else None

    def read(self, name: str, limit: int) -> bytes:
        size = self.size(name)
        if size is None:
            raise Damage(f"{name}: missing")
        if size > limit:
            raise Damage(f"{name}: {size} bytes, more than the format allows")
        return self.part(name, 0, size)

    def part(self, name: str, offset: int, size: int) -> bytes:
        try:
            with (self.root / name).open("rb") as f:
                f.seek(offset)
                data = f.read(size)
        except OSError as e:
            raise Damage(f"{name}: cannot be read: {e.strerror}") from e
        if len(data) != size:
            raise Damage(f"{name}: ends before byte {offset + size}")
        return data

    def names(self, folder: str, pattern: str) -> list[re.Match[str]]:
        """What in a folder has a name of the format; strangers are none of a reader's business."""
        path = self.root / folder
        found = sorted(os.listdir(path)) if path.is_dir() else []
        return [m for name in found if (m := re.fullmatch(pattern, name, re.ASCII))]


# --- containers, README §4 --------------------------------------------------------------------------------------------

HEADER, TRAILER = 148, 32
MAGIC, END_MAGIC = bytes.fromhex("894757420d0a1a0a"), bytes.fromhex("4757454e440d0a1a")
SEGMENT, DIRECTORY, BODY = 1, 2, 3


def container_name(kind: int, repository: bytes, group: str, chain: int, number: int, pack: bytes = bytes(16)) -> bytes:
    """Bytes 11 to 83 of a header."""
    return struct.pack(">B16s32sII16s", kind, repository, group.encode(), chain, number, pack)


def container_key(purpose: bytes, header: bytes, wanted: bytes) -> AESGCM:
    """Checks a header against the name asked for and the commitment; the key of the frames."""
    if len(header) != HEADER or header[:8] != MAGIC:
        raise Damage("not a container")
    version, suite = struct.unpack_from(">HB", header, 8)
    if version > 1 or (version == 1 and suite != 1):
        raise Newer(f"container format {version}, suite {suite}")
    if version < 1:
        raise Damage("container format 0")
    if header[11:84] != wanted:
        raise Damage("says of itself that it is another object: objects were exchanged, or the header is damaged")
    keys = hkdf(purpose, header[84:116], b"gateway/v1/container", 64)
    if not hmac.compare_digest(keys[32:], header[116:]):
        raise Damage("the key commitment is wrong")
    return AESGCM(keys[:32])


class Trailer(NamedTuple):
    """Of the last frame: offset, length, number; bytes of the whole container; the trailer itself."""

    offset: int
    length: int
    number: int
    total: int
    raw: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Trailer:
        offset, length, number, total, magic = struct.unpack(">QIIQ8s", raw)
        if magic != END_MAGIC:
            raise Damage("no trailer at the end")
        if offset < HEADER or length < 24 or offset + length + TRAILER != total or number >= MAX_FRAMES:
            raise Damage("the trailer contradicts itself")
        return cls(offset, length, number, total, raw)


def open_frame(key: AESGCM, header: bytes, i: int, kind: int, sealed: bytes, trailer: bytes | None = None) -> bytes:
    """Frame `i` (README §4.2); `trailer` for the last one."""
    aad = header + struct.pack(">IBB", i, kind, trailer is not None) + (trailer or b"")
    try:
        return key.decrypt(struct.pack(">I", i) + sealed[:8], sealed[8:], aad)
    except InvalidTag as e:
        raise Damage(f"frame {i} does not open") from e


def open_body(raw: bytes, purpose: bytes, wanted: bytes) -> Any:
    """The record of an entry, a chain header or a chain end."""
    if len(raw) < HEADER + 24 + TRAILER:
        raise Damage("too short for a container")
    try:
        return _open_body(raw, purpose, wanted)
    except Newer as newer:
        try:
            _open_body(raw[:8] + b"\0\1\1" + raw[11:], purpose, wanted)
        except Damage:
            raise newer from None
        raise Damage("its format or suite was changed: with ours it opens") from None


def _open_body(raw: bytes, purpose: bytes, wanted: bytes) -> Any:
    header = raw[:HEADER]
    key = container_key(purpose, header, wanted)
    trailer = Trailer.parse(raw[-TRAILER:])
    if (trailer.offset, trailer.number, trailer.total) != (HEADER, 0, len(raw)):
        raise Damage("the trailer is not that of an object with one frame")
    return unpack_whole(open_frame(key, header, 0, BODY, raw[HEADER:-TRAILER], trailer.raw))


# --- chains and their logs, log.md ------------------------------------------------------------------------------------

NAME = r"[a-z0-9-]{1,32}"
PACK = r"([0-9a-f]{8})-([0-9a-f]{32})"


class Declaration(NamedTuple):
    """log.md §2.2. `crc` and what follows `index_size` are None for a pack that was adopted."""

    number: int
    id: bytes
    cls: str
    size: int
    crc: int | None
    index_sha: bytes
    index_size: int
    chunks: int | None
    raw: int | None
    bases: Ranges | None

    @classmethod
    def parse(cls, record: Any) -> Declaration:
        known = take(record, "declaration", u32, ident, text, u64, u64, digest32, u32, u32, u64, u32s)
        if not re.fullmatch(NAME, known[2]) or known[0] < 1 or known[3] > MAX_PACK or known[6] > MAX_INDEX:
            raise Damage(f"declaration of pack {known[0]}: out of bounds")
        return cls(*known[:9], Ranges(known[9], "bases of a declaration"))


class Generation:
    """log.md §2.1, and what the rest of the log says about it."""

    def __init__(self, chain: Chain, payload: Any, *, checkpoint: bool) -> None:
        head = take(
            payload, "commit", ident, text, u64, text, time, time, u8, text, flag, texts,
            values, u32s, values, values, u64, values, values,
        )  # fmt: skip
        self.chain, self.checkpoint = chain, checkpoint
        self.id, self.source, self.number, _, _, self.cut_ms, _, _, complete, self.reasons = head[:10]
        declared, needs, file_list, requires, self.left_out, _, statistics = head[10:]
        self.complete, self.needs = bool(complete), Ranges(needs, "needs")
        self.depth, self.list_bytes, runs = take(file_list, "file list", u8, u64, u32s)
        self.list_runs = tuples(runs, 3, "runs of the list")
        self.requires = [r for r in requires if len(take(r, "requires", text, u32, ident)) == len(r)]
        self.statistics = take(statistics, "statistics", *[u64] * 15)
        self.declared = [Declaration.parse(r) for r in declared]
        self.expired = False
        self.holds: set[bytes] = set()
        if (
            not re.fullmatch(NAME, self.source)
            or self.depth > MAX_LIST_DEPTH
            or self.list_bytes > MAX_PART
            or (checkpoint and complete)
            or len(self.requires) < len(requires)
        ):
            raise Damage("commit: out of bounds")

    def why_not(self) -> list[str]:
        """Why this is not a complete generation; empty = it is."""
        packs = self.chain.packs
        why = [] if self.complete else ["a checkpoint" if self.checkpoint else "incomplete", *self.reasons]
        if self.needs.total > len(packs) or any(n not in packs for n in self.needs):
            return [*why, "it needs packs no readable entry declares"]
        return [*why, *(f"pack {n} is marked as damaged" for n in self.needs if packs[n].id in self.chain.damaged)]

    def title(self) -> str:
        return f"{self.source}@{self.number} g{self.id.hex()}"


class Chain:
    def __init__(self, group: str, number: int, repository: bytes, keys: ChainKeys) -> None:
        self.group, self.number, self.repository, self.keys = group, number, repository, keys
        self.folder = f"chains/{group}/{number:06d}"
        self.packs: dict[int, Declaration] = {}
        self.generations: dict[bytes, Generation] = {}
        self.condemned: set[bytes] = set()  # ids of packs, as is `damaged`
        self.damaged: set[bytes] = set()
        self.closed = False
        self.unknown_kinds = 0
        self.digests: dict[int, bytes] = {}  # SHA-256 of the entries, 0 = the header

    def name(self, kind: int, number: int = 0, pack: bytes = bytes(16)) -> bytes:
        return container_name(kind, self.repository, self.group, self.number, number, pack)

    def pack_name(self, d: Declaration) -> str:
        return f"packs/{d.cls}/{self.group}/{self.number:06d}/{d.number:08x}-{d.id.hex()}"

    def index_name(self, d: Declaration) -> str:
        return f"{self.folder}/index/{d.number:08x}-{d.id.hex()}"

    def apply(self, kind: str, payload: Any, problem: Callable[[str], None]) -> None:
        """One step of the fold, log.md §3."""
        if kind in ("commit", "checkpoint"):
            self._commit(Generation(self, payload, checkpoint=kind == "checkpoint"), problem)
        elif kind == "expire":
            for gen in take(payload, kind, items(ident), text, text)[0]:
                if gen in self.generations:
                    self.generations[gen].expired = True
        elif kind == "hold":
            hold, gen = take(payload, kind, ident, ident, text, text)[:2]
            if generation := self.generations.get(gen):
                generation.holds.add(hold)
                generation.expired &= self._condemned(generation.needs)
        elif kind == "unhold":
            hold = take(payload, kind, ident, text, text)[0]
            for generation in self.generations.values():
                generation.holds.discard(hold)
        elif kind == "damaged":
            number, pack, _, _, good = take(payload, kind, u32, ident, text, time, flag)
            if self._is(number, pack):
                (self.damaged.discard if good else self.damaged.add)(pack)
        elif kind == "condemn":
            flat, ids, _ = take(payload, kind, u32s, items(ident), text)
            ranges = Ranges(flat, kind)
            if ranges.total != len(ids):
                raise Damage("condemn: not one id for each number")
            self.condemned.update(pack for number, pack in zip(ranges, ids, strict=True) if self._is(number, pack))
        elif kind == "close":
            take(payload, kind, text)
            self.closed = True
        else:
            self.unknown_kinds += 1

    def _is(self, number: int, pack: bytes) -> bool:
        return number in self.packs and self.packs[number].id == pack

    def _condemned(self, needs: Ranges) -> bool:
        return any(n in needs and d.id in self.condemned for n, d in self.packs.items())

    def _commit(self, generation: Generation, problem: Callable[[str], None]) -> None:
        if self.closed:
            return
        for d in generation.declared:
            self.packs.setdefault(d.number, d)  # the first entry that declares a number owns it
        if self._condemned(generation.needs):
            problem("needs packs that an earlier entry condemned")
        old = self.generations.get(generation.id)
        if old and not old.checkpoint:
            return  # this id has a commit already
        for other in [g for g in self.generations.values() if g.checkpoint and g.source == generation.source]:
            del self.generations[other.id]  # superseded
        self.generations[generation.id] = generation


# --- opening a repository ---------------------------------------------------------------------------------------------


class Repository:
    """Opens the slots, then every chain as far as it can be read."""

    def __init__(self, store: Store, passphrase: str | None, sheet: str | None, report: Report) -> None:
        self.store, self.report = store, report
        self.chains: list[Chain] = []
        facts: dict[str, Any] | None = None
        if store.size("repository.json") is None and not store.names("chains", NAME):
            raise Stop(NO_REPOSITORY, "there is no repository.json here")
        with report.about("repository.json"):  # damage to it keeps nobody out, README §5
            facts = parse_json(store.read("repository.json", MAX_JSON))
            try:
                check_newer(facts)
            except Newer as e:
                raise Stop(NEWER, f"the repository was written by a newer version: {e}") from e
        self.id, master = self._open_slots(passphrase, sheet)
        self.mac = hkdf(master, self.id, b"gateway/v1/master/mac", 32)
        self.wrap_secret = hkdf(master, self.id, b"gateway/v1/master/wrap", 32)
        if facts is not None:
            with report.about("repository.json"):
                check_mac(self.mac, facts)
                if facts.get("repository") != self.id.hex() or facts.get("kind") != "gateway-repository":
                    raise Damage("is not that of this repository")
        for name, slot in self.slots.items():
            with report.about(name):
                check_mac(self.mac, slot)
                if slot.get("repository") != self.id.hex() or slot.get("id") != name[6:38]:
                    raise Damage("is a slot of something else")
        for g in store.names("chains", NAME):
            for n in store.names(f"chains/{g[0]}", r"\d{6,10}"):
                if n[0] == f"{int(n[0]):06d}" and 1 <= int(n[0]) < 1 << 32:
                    with report.about(f"chains/{g[0]}/{n[0]}"):
                        self._open_chain(g[0], int(n[0]))

    def _open_slots(self, passphrase: str | None, sheet: str | None) -> tuple[bytes, bytes]:
        """The repository's id and the master key. The id is the slot's own: repository.json may be damaged."""
        self.slots: dict[str, dict[str, Any]] = {}
        sheet_secret, sheet_id = read_sheet(sheet) if sheet is not None else (b"", None)
        wanted, derivation = ("sheet", "none") if sheet is not None else ("passphrase", "argon2id")
        tried, newer, found = 0, False, None
        for match in self.store.names("slots", r"[0-9a-f]{32}\.json"):
            name = f"slots/{match[0]}"
            with self.report.about(name):
                slot = parse_json(self.store.read(name, MAX_JSON))
                try:
                    check_newer(slot)
                except Newer as e:  # another slot may still do
                    newer = True
                    self.report.note(f"{name}: skipped, written by a newer version: {e}")
                    continue
                self.slots[name] = slot
                if slot.get("kind") != wanted or found is not None:
                    continue
                repository, slot_id = hex_field(slot, "repository", 16), hex_field(slot, "id", 16)
                if sheet_id not in (None, repository):
                    raise Stop(WRONG_KEY, "the recovery sheet is that of another repository")
                kdf, salt = slot.get("kdf"), hex_field(slot, "salt", 32)
                if type(kdf) is not dict or kdf.get("name") != derivation:
                    raise Damage(f"key derivation {kdf!r}")
                secret = sheet_secret if sheet is not None else argon2id(str(passphrase), salt, kdf)
                tried += 1
                master = unseal(secret, b"gateway/v1/slot" + repository + slot_id, slot)
                found = (repository, master) if master is not None else None
        if found is not None:
            return found
        if tried:
            raise Stop(WRONG_KEY, f"no slot opens with this {wanted} (or the slot is damaged)")
        if self.report.damage or newer:
            raise Stop(DAMAGE if self.report.damage else NEWER, f"no {wanted} slot can be read")
        raise Stop(WRONG_KEY, f"the repository has no {wanted} slot")

    def _open_chain(self, group: str, number: int) -> None:
        folder, stem = f"chains/{group}/{number:06d}", f"{group}-{number:06d}-"
        wraps: dict[str, set[str]] = {}
        for where, prefix in ((f"{folder}/wraps", ""), ("keys", stem)):
            for m in self.store.names(where, re.escape(prefix) + r"([0-9a-f]{32})"):
                wraps.setdefault(m[1], set()).add(f"{where}/{m[0]}")
        ended = self.store.size(f"{folder}/end") is not None
        left = [f"{folder}/log", f"{folder}/index", *(
            f"packs/{cls[0]}/{group}/{number:06d}" for cls in self.store.names("packs", NAME)
        )]  # fmt: skip
        if ended and not wraps and not any(self.store.names(where, ".*") for where in left):
            return  # log.md §4: finished; nobody can open what is left, header and end
        headers: dict[str, bytes] = {}  # by SHA-256: of two copies that differ the wrap names the right one
        for name in (f"{folder}/header", f"keys/{stem}header"):
            with self.report.about(name):
                raw = self.store.read(name, MAX_BODY)
                headers[hashlib.sha256(raw).hexdigest()] = raw
        keys, digest = self._open_wraps(group, number, wraps, headers, quiet=ended)
        if len(headers) > 1:
            self.report.problem(f"{folder}/header and keys/{stem}header: not equal, one is damaged")
        chain = Chain(group, number, self.id, keys)
        record = open_body(headers[digest], keys.purpose[4], chain.name(4))
        if take(record, "header", texts)[0]:
            raise Newer(f"the chain needs features {record[0]}")
        known = take(record, "header", texts, text, u32, time, ident, text, values, u32, u32, text, u32s, u32s,
                     text, u32, sized(0, 32))  # fmt: skip
        if known[1:3] != [group, number]:
            raise Damage("the body of the header names another chain")
        chain.digests[0] = bytes.fromhex(digest)
        if ended:
            with self.report.about(f"{folder}/end"):  # where it does not open, the log is read
                body = open_body(self.store.read(f"{folder}/end", MAX_BODY), keys.purpose[5], chain.name(5))
                if take(body, "end", texts)[0]:
                    raise Newer(f"features {body[0]}")
                take(body, "end", texts, u32, digest32, time, ident)
                return
        self.chains.append(chain)
        self._read_log(chain)
        self._adopt(chain)
        if chain.unknown_kinds:
            self.report.note(f"{folder}/log: {chain.unknown_kinds} entries of unknown kinds ignored")

    def _open_wraps(
        self, group: str, number: int, wraps: dict[str, set[str]], headers: dict[str, bytes], *, quiet: bool
    ) -> tuple[ChainKeys, str]:
        """Opens every copy of every wrap (README §5.3), so that a bad one is known while the other still opens."""
        found: set[tuple[bytes, str]] = set()
        for wrap, copies in wraps.items():
            if len(copies) == 1 and not quiet:
                self.report.problem(f"{next(iter(copies))}: the other copy of this wrap is missing")
            for name in sorted(copies):
                with self.report.about(name):
                    value = parse_json(self.store.read(name, MAX_JSON))
                    check_newer(value)
                    check_mac(self.mac, value)
                    says = [value.get(k) for k in ("id", "group", "chain", "repository")]
                    if says != [wrap, group, number, self.id.hex()]:
                        raise Damage("is the wrap of another chain")
                    if value.get("kind") != "master":
                        continue
                    if value.get("header") not in headers:
                        raise Damage("is bound to another chain header: header or wrap was exchanged or damaged")
                    key = unseal(self.wrap_secret, b"gateway/v1/wrap" + self.id + bytes.fromhex(wrap), value)
                    if key is None:
                        raise Damage("the commitment is wrong")
                    found.add((key, value["header"]))
        if not found:
            raise Damage("no wrap of the chain's key opens")
        if len(found) > 1:
            raise Damage("its wraps hold different keys")
        key, digest = found.pop()
        return ChainKeys(key, self.id), digest

    def _read_log(self, chain: Chain) -> None:
        expected, before = 1, chain.digests.get(0)
        for match in self.store.names(f"{chain.folder}/log", r"\d{8}"):
            name, seq = f"{chain.folder}/log/{match[0]}", int(match[0])
            if not seq:
                continue
            if seq != expected:
                self.report.problem(f"{chain.folder}/log: entries {expected} to {seq - 1} are missing")
                before = None
            expected, last = seq + 1, before
            before = None  # behind an entry that cannot be read nothing is known to compare with
            with self.report.about(name):
                raw = self.store.read(name, MAX_BODY)
                record = open_body(raw, chain.keys.purpose[3], chain.name(3, seq))
                before = chain.digests[seq] = hashlib.sha256(raw).digest()
                if take(record, "entry", texts)[0]:
                    raise Newer(f"features {record[0]}")
                checks = (texts, text, ident, digest32, time, blob, anything)
                _, kind, _, named, _, _, payload = take(record, "entry", *checks)
                if last is not None and named != last:
                    self.report.problem(f"{name}: does not follow the entry before it: damaged or rolled back")
                chain.apply(kind, payload, lambda problem, name=name: self.report.problem(f"{name}: {problem}"))

    def _adopt(self, chain: Chain) -> None:
        """log.md §2: packs that are needed and whose declaration was in a lost entry; for reading only."""
        lost: dict[int, list[Declaration]] = {}
        for cls in self.store.names("packs", NAME):
            folder = f"packs/{cls[0]}/{chain.group}/{chain.number:06d}"
            for m in self.store.names(folder, PACK):
                number, size = int(m[1], 16), self.store.size(f"{folder}/{m[0]}") or 0
                if number not in chain.packs and any(number in g.needs for g in chain.generations.values()):
                    d = Declaration(number, bytes.fromhex(m[2]), cls[0], size, None, b"", 0, None, None, None)
                    lost.setdefault(number, []).append(d)
        for number, found in lost.items():
            for d in found if len(found) == 1 else ():
                with self.report.about(chain.index_name(d)):
                    index = self.store.read(chain.index_name(d), MAX_INDEX)
                    adopted = d._replace(index_sha=hashlib.sha256(index).digest(), index_size=len(index))
                    Pack(chain, self.store, adopted)
                    chain.packs[number] = adopted
                    self.report.note(f"{chain.pack_name(d)}: taken, though the entry that declares it is lost")

    def generations(self) -> list[Generation]:
        every = [g for chain in self.chains for g in chain.generations.values()]
        return sorted(every, key=lambda g: (g.source, g.number, g.cut_ms))


# --- packs, data.md §1 to §3 ------------------------------------------------------------------------------------------


class Lru:
    """Keeps what was used last, up to a budget in bytes; the newest always stays."""

    def __init__(self, budget: int) -> None:
        self.budget, self.used = budget, 0
        self.entries: collections.OrderedDict[Any, tuple[Any, int]] = collections.OrderedDict()

    def get(self, key: Any) -> Any:
        if key in self.entries:
            self.entries.move_to_end(key)
            return self.entries[key][0]
        return None

    def put(self, key: Any, value: Any, cost: int) -> Any:
        self.entries[key] = (value, cost)
        self.used += cost
        while self.used > self.budget and len(self.entries) > 1:
            self.used -= self.entries.popitem(last=False)[1][1]
        return value


class Segment(NamedTuple):
    first: int  # number of its first chunk
    end: int  # of the first behind it
    offset: int
    size: int  # of the sealed frame
    raw: int
    encoding: int
    tag: bytes
    bases: list[tuple[int, ...]]


class Pack:
    """A pack's directory, from the pack's own end or from the index object (README §4.4)."""

    def __init__(self, chain: Chain, store: Store, d: Declaration) -> None:
        self.chain, self.store, self.declared = chain, store, d
        self.kind = 2 if d.cls == "meta" else 1
        self.name = chain.pack_name(d)
        try:
            index = self.own_index()
        except Damage:
            index = store.read(chain.index_name(d), MAX_INDEX)  # the copy is as good
            if hashlib.sha256(index).digest() != d.index_sha:
                raise
        try:
            self.header = index[:HEADER]
            self.key = container_key(chain.keys.purpose[self.kind], self.header, chain.name(self.kind, d.number, d.id))
            trailer = Trailer.parse(index[-TRAILER:])
            if trailer.total != d.size or trailer.length != len(index) - HEADER - TRAILER or len(index) != d.index_size:
                raise Damage("sizes differ from the declaration")
            frame = index[HEADER:-TRAILER]
            plain = open_frame(self.key, self.header, trailer.number, DIRECTORY, frame, trailer.raw)
            self._directory(unpack_whole(plain), trailer)
        except Damage as e:
            raise Damage(f"{self.name}: {e}") from e
        self.cost = len(index) * 4

    def own_index(self) -> bytes:
        """`header ‖ directory frame ‖ trailer` from the pack itself, as declared."""
        size = self.store.size(self.name)
        if size is None:
            raise Damage(f"{self.name}: missing")
        if size != self.declared.size or size < HEADER + 24 + TRAILER:
            raise Damage(f"{self.name}: has {size} bytes, {self.declared.size} are declared")
        tail = self.store.part(self.name, size - TRAILER, TRAILER)
        try:
            trailer = Trailer.parse(tail)
        except Damage as e:
            raise Damage(f"{self.name}: {e}") from e
        if trailer.total != size or trailer.length + HEADER + TRAILER > MAX_INDEX:
            raise Damage(f"{self.name}: the trailer contradicts the size")
        frame = self.store.part(self.name, trailer.offset, trailer.length)
        index = self.store.part(self.name, 0, HEADER) + frame + tail
        if hashlib.sha256(index).digest() != self.declared.index_sha:
            raise Damage(f"{self.name}: its directory is not the one declared")
        return index

    def _directory(self, record: Any, trailer: Trailer) -> None:
        _, self.log_seq, self.log_sha, segments, self.ids, self.lengths = take(
            record, "directory", ident, u32, digest32, values, blob, blob
        )
        n = len(self.ids) // 16
        if len(segments) != trailer.number or (16 * n, 3 * n) != (len(self.ids), len(self.lengths)):
            raise Damage("directory: counts contradict each other")
        self.segments: list[Segment] = []
        first, offset, own = 0, HEADER, self.declared.number
        for i, segment in enumerate(segments):
            encoding, size, chunks, tag, bases = take(segment, "segment", u8, u32, u32, ident, u32s)
            if encoding > 2 or not 24 <= size <= MAX_FRAME or not 1 <= chunks <= n - first:
                raise Damage(f"directory: segment {i} is out of bounds")
            lengths = [self.length(c) for c in range(first, first + chunks)]
            raw = sum(lengths)
            if min(lengths) < 1 or max(lengths) > MAX_CHUNK or raw > MAX_SEGMENT:
                raise Damage(f"directory: chunks of segment {i} are out of bounds")
            if (encoding == 2) != bool(bases) or len(bases) > 3 * MAX_BASE_RUNS or (encoding == 0 and size != raw + 24):
                raise Damage(f"directory: segment {i} contradicts its encoding")
            runs = tuples(bases, 3, "bases")
            for pack, start, count in runs:
                if count < 1 or pack > own or (pack == own and start + count > first):
                    raise Damage(f"directory: segment {i} stands on something behind itself")
            self.segments.append(Segment(first, first + chunks, offset, size, raw, encoding, tag, runs))
            first, offset = first + chunks, offset + size
        if (first, offset) != (n, trailer.offset):
            raise Damage("directory: segments do not fill the pack")
        self.chunks, self.firsts = n, [s.first for s in self.segments]

    def length(self, chunk: int) -> int:
        return int.from_bytes(self.lengths[3 * chunk : 3 * chunk + 3], "little")

    def segments_of(self, first: int, count: int) -> range:
        """The segments a run of chunks touches."""
        if count < 1 or first + count > self.chunks:
            raise Damage(f"{self.name}: there are no {count} chunks from {first} on")
        low = bisect.bisect_right(self.firsts, first) - 1
        return range(low, bisect.bisect_left(self.firsts, first + count))

    def frame(self, i: int) -> bytes:
        segment = self.segments[i]
        sealed = self.store.part(self.name, segment.offset, segment.size)
        if sealed[-16:] != segment.tag:
            raise Damage(f"{self.name}: frame {i} is not the one its directory names")
        try:
            return open_frame(self.key, self.header, i, SEGMENT, sealed)
        except Damage as e:
            raise Damage(f"{self.name}: {e}") from e


def unzstd(frame: bytes, raw: int, dictionary: bytes | None) -> bytes:
    """One zstd frame that says it holds `raw` bytes, nothing behind it (data.md §2)."""
    try:
        facts = zstandard.get_frame_parameters(frame)
        if frame[:4] != b"\x28\xb5\x2f\xfd" or facts.content_size != raw or facts.dict_id != 0:
            raise Damage("not a zstd frame, or it declares another size, or a dictionary id")
        base = None
        if dictionary is not None:
            base = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        decoder = zstandard.ZstdDecompressor(dict_data=base)
        return decoder.decompress(frame, max_output_size=raw, allow_extra_data=False)
    except zstandard.ZstdError as e:
        raise Damage(f"zstd: {e}") from e


class Data:
    """Chunks of one chain, through two caches."""

    def __init__(self, chain: Chain, store: Store) -> None:
        self.chain, self.store = chain, store
        self.packs, self.segments = Lru(96 * MIB), Lru(48 * MIB)
        self.needs: Ranges | None = None  # of the generation that is read: it names every pack it needs

    def pack(self, number: int, kind: int) -> Pack:
        declared = self.chain.packs.get(number)
        if declared is None:
            raise Damage(f"{self.chain.folder}: pack {number} is not declared")
        if self.needs is not None and number not in self.needs:
            raise Damage(f"{self.chain.pack_name(declared)}: not among the packs the generation needs")
        pack: Pack | None = self.packs.get(number)
        if pack is None:
            pack = Pack(self.chain, self.store, declared)
            self.packs.put(number, pack, pack.cost)
        if pack.kind != kind:
            raise Damage(f"{pack.name}: is not of the kind asked for (files, or file lists)")
        return pack

    def chunks(self, run: Iterable[int], kind: int) -> Iterator[bytes]:
        """The chunks of a run, in order, each compared with its id."""
        number, first, count = run
        pack = self.pack(number, kind)
        for s in pack.segments_of(first, count):
            data, pos = self.segment(pack, s), 0
            for chunk in range(pack.segments[s].first, min(pack.segments[s].end, first + count)):
                length = pack.length(chunk)
                if chunk >= first:
                    yield data[pos : pos + length]
                pos += length

    def segment(self, pack: Pack, s: int) -> bytes:
        key, segment = (pack.declared.number, s), pack.segments[s]
        data: bytes | None = self.segments.get(key)
        if data is not None:
            return data
        dictionary = None
        if segment.encoding == 2:
            self.check_closure(pack, s)
            dictionary = b"".join(chunk for run in segment.bases for chunk in self.chunks(run, pack.kind))
        data = pack.frame(s)
        try:
            if segment.encoding:
                data = unzstd(data, segment.raw, dictionary)
        except Damage as e:
            raise Damage(f"{pack.name}: segment {s}: {e}") from e
        if len(data) != segment.raw:
            raise Damage(f"{pack.name}: segment {s}: another size than its directory says")
        pos = 0
        for chunk in range(segment.first, segment.end):
            length = pack.length(chunk)
            found = chunk_id(self.chain.keys.id[pack.kind], data[pos : pos + length])
            if found != pack.ids[16 * chunk : 16 * chunk + 16]:
                raise Damage(f"{pack.name}: chunk {chunk} is not what its id says")
            pos += length
        self.segments.put(key, data, len(data))
        return data

    def check_closure(self, top: Pack, s: int) -> None:
        """Depth, closure and base bounds of a delta segment, from directories only (data.md §2).

        It ends: every base is smaller in (pack, segment), and level and sum are bounded.
        """
        depths: dict[tuple[int, int], int] = {}
        total = 0

        def depth(pack: Pack, i: int, level: int) -> int:
            nonlocal total
            at, segment = (pack.declared.number, i), pack.segments[i]
            if at in depths:
                return depths[at]
            total += segment.raw
            if total > MAX_CLOSURE or level > MAX_DEPTH:
                raise Damage(f"{top.name}: segment {s} stands on too much")
            deepest, base_bytes = -1, 0
            for number, first, count in segment.bases:
                base = self.pack(number, pack.kind)
                touched = base.segments_of(first, count)
                if count <= MAX_BASE:
                    base_bytes += sum(base.length(c) for c in range(first, first + count))
                if count > MAX_BASE or base_bytes > MAX_BASE:
                    raise Damage(f"{pack.name}: the bases of segment {i} are too large")
                deepest = max(deepest, *(depth(base, t, level + 1) for t in touched))
            depths[at] = deepest + 1
            if depths[at] > MAX_DEPTH:
                raise Damage(f"{top.name}: segment {s} stands on too much")
            return depths[at]

        depth(top, s, 0)


# --- file lists, data.md §5 -------------------------------------------------------------------------------------------

FILE, DIR, SYMLINK, FIFO, SOCKET, CHAR, BLOCK = range(1, 8)
BREAK = None  # stands in a stream of records where some could not be read
Run = tuple[int, ...]


def path_key(path: bytes) -> bytes:
    return path.replace(b"/", b"\0")


def good_path(path: bytes) -> bool:
    """SECURITY: nothing that leaves the target or means two things."""
    parts = path.split(b"/")
    return len(path) <= MAX_PATH and b"\0" not in path and not any(p in (b"", b".", b"..") for p in parts)


class Entry:
    def __init__(self, record: Any) -> None:
        known = take(
            record, "entry", u8, blob, u8, u64, i64, u16, u32, u32, text, text, items(pair), blob, blob, u64,
            sized(0, 32), u64, u32, u8, u32, u32,
        )  # fmt: skip
        (_, self.path, self.type, self.size, self.mtime_ns, self.mode, self.uid, self.gid, _, _, self.xattrs,
         self.target, self.link, device, self.digest, self.data_bytes, self.skip, evidence, self.hole_records,
         self.run_records) = known  # fmt: skip
        names = [name for name, *_ in self.xattrs]
        own = self.has_data = self.type == FILE and not self.link
        wrong = {
            "path, type, mode or size": not good_path(self.path)
            or not FILE <= self.type <= BLOCK
            or self.mode > 0o7777
            or self.size >= 1 << 63,
            "link target": b"\0" in self.target or (self.type == SYMLINK) != bool(self.target),
            "data": not own and bool(self.data_bytes or self.hole_records or self.run_records),
            "size or evidence": self.type != FILE and bool(self.size or evidence),
            "digest": len(self.digest) != (32 if own else 0),
            "device number": self.type not in (CHAR, BLOCK) and bool(device),
            "order of attributes": any(a >= b for a, b in itertools.pairwise(names)),
            "hard link": bool(self.link)
            and (self.type != FILE or not good_path(self.link) or path_key(self.link) >= path_key(self.path)),
        }
        for what, is_wrong in wrong.items():
            if is_wrong:
                raise Damage(f"{show(self.path)}: {what} is not allowed")


def show(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace").encode("unicode_escape").decode("ascii")


class Digest:
    """data.md §4: the digest of a file's data, fed in any pieces."""

    PIECE = 64 * MIB

    def __init__(self) -> None:
        self.piece, self.room, self.done = blake3(), self.PIECE, []

    def update(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if not self.room:  # only when more follows: 64 MiB sharp is one piece
                self.done.append(self.piece.digest())
                self.piece, self.room = blake3(), self.PIECE
            part = view[: self.room]
            self.piece.update(part)
            self.room -= len(part)
            view = view[len(part) :]

    def value(self) -> bytes:
        last = self.piece.digest()
        return blake3(b"".join([*self.done, last])).digest() if self.done else last


class Holes:
    """The holes of one file. They all come before the data, so they wait in a file when they are many."""

    def __init__(self, size: int) -> None:
        self.size, self.end, self.total = size, 0, 0
        self.spool = tempfile.SpooledTemporaryFile(max_size=MIB)  # noqa: SIM115 - lives as long as the entry

    def add(self, flat: Any) -> None:
        if not items(u64)(flat) or len(flat) > 2 * MAX_PAIRS:
            raise Damage("a record of holes is out of bounds")
        for offset, length in tuples(flat, 2, "holes"):
            if length < 1 or offset < self.end or offset + length > self.size:
                raise Damage("holes overlap, descend or leave the file")
            self.end = offset + length
            self.total += length
            self.spool.write(struct.pack("=QQ", offset, length))

    def __del__(self) -> None:
        self.spool.close()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        self.spool.seek(0)
        while both := self.spool.read(16):
            yield struct.unpack("=QQ", both)


class Totals:
    """Of a part, to be compared with what its outline says."""

    def __init__(self) -> None:
        self.first: bytes | None = None
        self.counts = [0, 0, 0]  # entries, files, logical bytes
        self.whole = True


class FileList:
    """Reads a generation's list, part by part; a damaged part costs only itself."""

    def __init__(self, data: Data, generation: Generation, report: Report) -> None:
        self.data, self.generation, self.report = data, generation, report
        self.unknown = 0
        self.path: bytes | None = b""  # of the entry read last; None = lost with a damaged part
        self.waiting: list[Any] = []
        self.records = self._known(self._walk(generation.depth, generation.list_bytes, generation.list_runs))
        data.needs = generation.needs

    def problem(self, text: object) -> None:
        self.report.problem(f"list of {self.generation.title()}: {text}")

    def _part(self, size: int, runs: Iterable[Run]) -> Iterator[Any]:
        """The records of one part, with never more than a chunk and a record in memory."""
        if size > MAX_PART:
            raise Damage("a part of the list is too large")
        buf, got = bytearray(), 0
        for chunk in itertools.chain.from_iterable(self.data.chunks(run, 2) for run in runs):
            got += len(chunk)
            if got > size:
                raise Damage("a part of the list is longer than it should be")
            buf += chunk
            pos = 0
            while len(buf) - pos >= 4:
                length = int.from_bytes(buf[pos : pos + 4], "big")
                if not 0 < length <= MAX_RECORD:
                    raise Damage("a record of the list is out of bounds")
                if len(buf) - pos - 4 < length:
                    break
                record = unpack_whole(bytes(buf[pos + 4 : pos + 4 + length]))
                if type(record) is not list or not record:
                    raise Damage("a record of the list is none")
                yield record
                pos += 4 + length
            del buf[:pos]
        if buf or got != size:
            raise Damage("a part of the list ends inside a record, or early")

    def _walk(self, depth: int, size: int, runs: Iterable[Run]) -> Iterator[Any]:
        """All records under a part, BREAK where some are lost; returns its `Totals`."""
        totals = Totals()
        try:
            for record in self._part(size, runs):
                if depth:
                    yield from self._row(record, depth, totals)
                    continue
                if type(record[0]) is not int:
                    raise Damage("a record of the list is none")
                if record[0] in (1, 4):
                    self.path = take(record, "record", u8, blob)[1]
                    totals.counts[0] += 1
                if totals.first is None:  # holes and runs go on with the entry of the part before
                    totals.first = self.path
                if record[0] == 1 and len(record) > 3 and record[2] == FILE and u64(record[3]):
                    totals.counts[1] += 1
                    totals.counts[2] += record[3]
                yield record
        except Damage as e:
            self.problem(e)
            totals.whole, self.path = False, None
            yield BREAK
        return totals

    def _row(self, record: Any, depth: int, totals: Totals) -> Iterator[Any]:
        """One line of an outline: what it names, then whether it said the truth about it."""
        first, *counts, size, runs = take(record, "outline", blob, u64, u64, u64, u64, u32s)
        totals.first = first if totals.first is None else totals.first
        part = yield from self._walk(depth - 1, size, tuples(runs, 3, "outline"))
        totals.whole &= part.whole
        totals.counts = [a + b for a, b in zip(totals.counts, counts, strict=True)]
        if part.whole and (first if part.first is None else part.first, part.counts) != (first, counts):
            self.problem(f"the outline is wrong about {show(first)}")

    def _known(self, records: Iterator[Any]) -> Iterator[Any]:
        """Records of known kinds, those put back into `waiting` first."""
        while True:
            if self.waiting:
                yield self.waiting.pop()
                continue
            try:
                record = next(records)
            except StopIteration:
                return
            if record is BREAK or record[0] in (1, 2, 3, 4):
                yield record
            else:
                self.unknown += 1

    def _following(self, kind: int) -> list[int]:
        """The numbers of the next record, which must be of that kind."""
        record = next(self.records, BREAK)
        if record is BREAK or record[0] != kind or len(record) < 2 or type(record[1]) is not list:
            self.waiting.append(record)
            raise Damage("records of holes or runs are missing")
        flat: list[int] = record[1]
        return flat

    def _runs(self, count: int) -> Iterator[Run]:
        for _ in range(count):
            flat = self._following(3)
            if not u32s(flat) or len(flat) > 3 * MAX_PAIRS:
                raise Damage("a record of runs is out of bounds")
            yield from tuples(flat, 3, "runs")

    def things(self) -> Iterator[tuple[Entry, Holes, Iterator[Run]] | tuple[bytes, str, str]]:
        """Entries with their holes and a stream of their runs (to be read before the next entry), and left-out
        records as (path, reason, detail)."""
        last, of_entry, skipping = b"", False, False
        for record in self.records:
            if record is BREAK:
                skipping = True
                continue
            try:
                if record[0] in (2, 3):
                    if skipping:
                        continue  # of an entry that was refused
                    raise Damage("holes or runs without an entry")
                if record[0] == 4:
                    _, path, reason, detail = take(record, "left out", u8, blob, text, text)
                    key = path_key(path)
                    if not good_path(path) or key < last or (key == last and not of_entry):
                        raise Damage(f"left out {show(path)}: not allowed there")
                    last, of_entry, skipping = key, False, False
                    yield path, reason, detail
                    continue
                skipping = True
                entry = Entry(record)
                if path_key(entry.path) <= last:
                    raise Damage(f"{show(entry.path)}: not in ascending order")
                last, of_entry = path_key(entry.path), True
                holes = Holes(entry.size)
                for _ in range(entry.hole_records):
                    holes.add(self._following(2))
                if entry.has_data and entry.data_bytes + holes.total != entry.size:
                    raise Damage(f"{show(entry.path)}: data and holes are not its size")
            except Damage as e:
                self.problem(e)
                skipping = True
                continue
            runs = self._runs(entry.run_records)
            yield entry, holes, runs
            try:
                collections.deque(runs, maxlen=0)  # what the caller did not want
            except Damage as e:
                self.problem(f"{show(entry.path)}: {e}")
        if self.unknown:
            self.report.note(f"list of {self.generation.title()}: {self.unknown} records of unknown kinds ignored")

    def contents(self, entry: Entry, runs: Iterator[Run]) -> Iterator[bytes]:
        """A file's data. Raises `Damage` at its end where the digest differs: nothing is good before that."""
        skip, left, digest = entry.skip, entry.data_bytes, Digest()
        for chunk in itertools.chain.from_iterable(self.data.chunks(run, 1) for run in runs) if left else ():
            if skip >= len(chunk):
                raise Damage("more bytes to skip than the first chunk has")
            part = chunk[skip : skip + left]
            skip = 0
            left -= len(part)
            digest.update(part)
            yield part
            if not left:
                break
        if left:
            raise Damage(f"{left} bytes of data are missing")
        if digest.value() != entry.digest:
            raise Damage("the digest of the data is wrong")


# --- restore ----------------------------------------------------------------------------------------------------------

_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Target:
    """Puts things below one directory.

    SECURITY: every step goes through descriptors of directories this program made or opened without following a
    link, with single components; so no path, symlink or hard link in a list leads outside.
    """

    def __init__(self, root: Path, report: Report) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.report = report
        self.root = os.open(root, _OPEN_DIR & ~os.O_NOFOLLOW)
        if os.listdir(self.root):
            raise Stop(USAGE, f"{root} is not empty")
        self.stack: list[tuple[bytes, int, Entry | None]] = []  # where we are: component, descriptor, its entry
        self.as_root = os.geteuid() == 0

    def enter(self, parts: list[bytes]) -> int:
        """The descriptor of the directory with these components; those not below it are finished."""
        same = 0
        while same < min(len(parts), len(self.stack)) and self.stack[same][0] == parts[same]:
            same += 1
        self.leave(same)
        for part in parts[same:]:  # a list has an entry for every directory; one that is lost is made here
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=self.here())
            self.stack.append((part, os.open(part, _OPEN_DIR, dir_fd=self.here()), None))
        return self.here()

    def here(self) -> int:
        return self.stack[-1][1] if self.stack else self.root

    def leave(self, depth: int = 0) -> None:
        """Finishes directories: their mode and times come last, when nothing is put into them any more."""
        while len(self.stack) > depth:
            path = b"/".join(part for part, _, _ in self.stack)
            _, fd, entry = self.stack.pop()
            if entry is not None:
                with self.guarded(path):
                    self.dress(fd, entry)
            os.close(fd)

    @contextlib.contextmanager
    def guarded(self, path: bytes) -> Iterator[None]:
        """What the file system refuses is reported as left out, what is damaged as damage; then the next."""
        try:
            yield
        except Damage as e:
            self.report.problem(f"{show(path)}: {e}")
        except (OSError, OverflowError) as e:
            self.report.omit(f"{show(path)}: {getattr(e, 'strerror', e)}")

    def put(self, entry: Entry, holes: Holes, data: Iterator[bytes]) -> None:
        with self.guarded(entry.path):
            *parents, name = entry.path.split(b"/")
            fd = self.enter(parents)
            if entry.link:
                self._link(entry, name, fd)
            elif entry.type == FILE:
                self._file(entry, name, fd, holes, data)
            elif entry.type == DIR:
                os.mkdir(name, 0o700, dir_fd=fd)
                self.stack.append((name, os.open(name, _OPEN_DIR, dir_fd=fd), entry))
            elif entry.type in (SYMLINK, FIFO):
                if entry.type == SYMLINK:
                    os.symlink(entry.target, name, dir_fd=fd)
                else:
                    os.mkfifo(name, 0o600, dir_fd=fd)
                self.dress_path(fd, name, entry)
            else:
                self.report.omit(f"{show(entry.path)}: sockets and devices are not restored")

    def _link(self, entry: Entry, name: bytes, fd: int) -> None:
        *parents, first = entry.link.split(b"/")
        with contextlib.ExitStack() as opened:
            at = self.root
            for part in parents:
                at = os.open(part, _OPEN_DIR, dir_fd=at)
                opened.callback(os.close, at)
            if not stat.S_ISREG(_mode(first, at)):
                raise Damage(f"the file it is a hard link of, {show(entry.link)}, was not restored")
            os.link(first, name, src_dir_fd=at, dst_dir_fd=fd, follow_symlinks=False)

    def _file(self, entry: Entry, name: bytes, fd: int, holes: Holes, data: Iterator[bytes]) -> None:
        # Under a name nobody takes for the file until the digest is right.
        part = f".rescue-{secrets.token_hex(12)}.part".encode()
        out = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=fd)
        try:
            os.ftruncate(out, entry.size)
            write_around(out, holes, data)
            self.dress(out, entry)
            if _mode(name, fd):
                raise OSError(0, "there is a thing of that name already (does this file system know case?)")
            os.rename(part, name, src_dir_fd=fd, dst_dir_fd=fd)
        except BaseException:
            os.unlink(part, dir_fd=fd)
            raise
        finally:
            os.close(out)

    def dress(self, fd: int, entry: Entry) -> None:
        """Owner, attributes, mode, times: in this order, as each may change what comes before the next."""
        if self.as_root:
            os.chown(fd, entry.uid, entry.gid)
        self._xattrs(fd, entry)
        os.chmod(fd, entry.mode)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def dress_path(self, fd: int, name: bytes, entry: Entry) -> None:
        """The same for what cannot be opened."""
        if self.as_root:
            os.chown(name, entry.uid, entry.gid, dir_fd=fd, follow_symlinks=False)
        self._xattrs(f"/proc/self/fd/{fd}/".encode() + name, entry)
        if entry.type == FIFO:
            os.chmod(name, entry.mode, dir_fd=fd)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=fd, follow_symlinks=False)

    def _xattrs(self, where: int | bytes, entry: Entry) -> None:
        for name, value, *_ in entry.xattrs:
            try:
                os.setxattr(where, name, value, follow_symlinks=isinstance(where, int))
            except (OSError, ValueError) as e:
                self.report.omit(f"{show(entry.path)}: attribute {show(name)}: {e}")


def _mode(name: bytes, fd: int) -> int:
    """Type and mode of what has that name, 0 = nothing."""
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


def write_around(fd: int, holes: Iterable[tuple[int, int]], data: Iterator[bytes]) -> None:
    """Writes the data into what the holes leave; the file has its full size already."""
    pos, gaps = 0, iter(holes)
    hole = next(gaps, None)
    for block in data:
        view = memoryview(block)
        while view:
            if hole is not None and pos == hole[0]:
                pos, hole = pos + hole[1], next(gaps, None)
                continue
            room = len(view) if hole is None else min(len(view), hole[0] - pos)
            written = os.pwrite(fd, view[:room], pos)
            pos += written
            view = view[written:]


def choose(repository: Repository, wanted: str, *, incomplete: bool) -> Generation:
    source, _, which = wanted.partition("@")
    own = [g for g in repository.generations() if g.source == source]
    if not own:
        raise Stop(repository.report.code() or USAGE, f"no generation of {source!r}")
    if which in ("", "latest"):
        found = [g for g in own if not g.expired and (incomplete or not g.why_not())][-1:]
    elif re.fullmatch(r"g[0-9a-f]{1,32}", which):
        found = [g for g in own if g.id.hex().startswith(which[1:])]
    elif re.fullmatch(r"[0-9]{1,19}", which):
        found = [g for g in own if g.number == int(which)]
    else:
        raise Stop(USAGE, f"{which!r} is not `latest`, a number or g<hex>")
    if len(found) != 1:
        said = "is ambiguous" if found else "is not there (or only incomplete or expired ones are)"
        raise Stop(repository.report.code() or USAGE, f"{wanted} {said}")
    why = found[0].why_not()
    if why and not incomplete:
        raise Stop(USAGE, f"{found[0].title()} is not complete ({'; '.join(why)}); --incomplete restores what there is")
    return found[0]


def restore(repository: Repository, wanted: str, to: Path, *, incomplete: bool) -> int:
    report = repository.report
    generation = choose(repository, wanted, incomplete=incomplete)
    report.note(f"restoring {generation.title()}, cut {when(generation.cut_ms)}")
    if generation.expired:
        report.note("this generation is expired; some of its packs may be gone")
    for reason in generation.why_not():
        report.omit(f"the generation is incomplete: {reason}")
    for group, chain, other in generation.requires:
        report.note(f"it requires g{other.hex()} of chain {group}/{chain:06d}, to be restored by itself")
    target = Target(to, report)
    files = FileList(Data(generation.chain, repository.store), generation, report)
    for thing in files.things():
        if isinstance(thing[0], bytes):
            report.note(f"{show(thing[0])}: not in this generation: {thing[1]} {thing[2]}".rstrip())
        else:
            entry, holes, runs = thing
            target.put(entry, holes, files.contents(entry, runs))
    target.leave()
    return report.code()


# --- list and check ---------------------------------------------------------------------------------------------------


def when(ms: int) -> str:
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:
        return f"{ms} ms"


def list_generations(repository: Repository, *, as_json: bool) -> int:
    rows = [
        {
            "source": g.source, "number": g.number, "id": f"g{g.id.hex()}", "cut": when(g.cut_ms),
            "chain": f"{g.chain.group}/{g.chain.number:06d}", "checkpoint": g.checkpoint, "incomplete": g.why_not(),
            "expired": g.expired, "held": bool(g.holds), "left_out": g.left_out, "entries": g.statistics[0],
            "files": g.statistics[1], "logical_bytes": g.statistics[2],
        }
        for g in repository.generations()
    ]  # fmt: skip
    if as_json:
        print(json.dumps(rows, indent=1))
    for r in [] if as_json else rows:
        state = [w for w in ("checkpoint", "incomplete", "expired", "held") if r[w]] or ["complete"]
        size = f"{r['files']} files {r['logical_bytes']} bytes"
        print(f"{r['source']}@{r['number']} {r['id']} {r['cut']} {size} {' '.join(state)}")
    return repository.report.code()


def check(repository: Repository) -> int:
    """Slots, wraps, headers and logs were opened on the way here; now packs, then the files of every generation."""
    report = repository.report
    for chain in repository.chains:
        data = Data(chain, repository.store)
        for d in chain.packs.values():
            if d.id in chain.condemned:
                continue  # may be deleted at any time
            if d.id in chain.damaged:
                report.problem(f"{chain.pack_name(d)}: marked as damaged in the log")
            with report.about(chain.pack_name(d)):
                check_pack(repository, data, d)
        for generation in chain.generations.values():
            files = FileList(data, generation, report)
            for thing in files.things() if not generation.expired else ():
                if isinstance(thing[0], bytes) or not thing[0].has_data:
                    continue
                entry, _, runs = thing
                try:
                    collections.deque(files.contents(entry, runs), maxlen=0)
                except Damage as e:
                    report.problem(f"{generation.title()}: {show(entry.path)}: {e}")
            data.needs = None
    print(f"{len(report.damage)} problems", file=sys.stderr)
    return report.code()


def check_pack(repository: Repository, data: Data, d: Declaration) -> None:
    chain, store, report = data.chain, repository.store, repository.report
    name, index_name = chain.pack_name(d), chain.index_name(d)
    with report.about(index_name):
        if hashlib.sha256(store.read(index_name, MAX_INDEX)).digest() != d.index_sha:
            raise Damage("is not the index object declared")
    pack = data.pack(d.number, 2 if d.cls == "meta" else 1)
    with report.about(name):
        pack.own_index()
    crc = 0
    for offset in range(0, d.size, MIB):
        crc = crc64(store.part(name, offset, min(MIB, d.size - offset)), crc)
    if d.crc not in (None, crc):
        report.problem(f"{name}: CRC64NVME is {crc:016x}, {d.crc:016x} is declared")
    if d.crc is not None and (pack.chunks, sum(s.raw for s in pack.segments)) != (d.chunks, d.raw):
        report.problem(f"{name}: other numbers of chunks or bytes than declared")
    bases = {run[0] for s in pack.segments for run in s.bases} - {d.number}
    if d.bases is not None and not all(b in d.bases for b in bases):
        report.problem(f"{name}: stands on packs its declaration does not name")
    if pack.log_seq not in chain.digests:
        report.problem(f"{name}: its writer knew log entry {pack.log_seq}, which is not there or unreadable")
    elif chain.digests[pack.log_seq] != pack.log_sha:
        report.problem(f"{name}: its writer knew another log entry {pack.log_seq}")
    for s in range(len(pack.segments)):
        with report.about(name):
            data.segment(pack, s)


# --- command line -----------------------------------------------------------------------------------------------------


def read_passphrase(path: Path) -> str:
    """The file's text without one line end at its end."""
    try:
        return re.sub(r"\r?\n\Z", "", path.read_bytes().decode())
    except UnicodeDecodeError as e:
        raise Stop(USAGE, f"{path} is not UTF-8") from e


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Restores a backup repository of format version 1.")
    parser.add_argument("repository", type=Path, metavar="REPOSITORY_DIR")
    secret = parser.add_mutually_exclusive_group()
    secret.add_argument("--passphrase-file", type=Path, metavar="F")
    secret.add_argument("--recovery-sheet", type=Path, metavar="F")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="the generations").add_argument("--json", action="store_true")
    put = verbs.add_parser("restore", help="one generation into an empty directory")
    put.add_argument("source", metavar="SOURCE[@GEN]")
    put.add_argument("--to", type=Path, required=True, metavar="DIR")
    put.add_argument("--incomplete", action="store_true", help="also what is known to be incomplete")
    verbs.add_parser("check", help="open everything and compare")
    args = parser.parse_args(argv)
    try:
        sheet = passphrase = None
        if args.recovery_sheet:
            with args.recovery_sheet.open("rb") as f:
                raw = f.read(MAX_SHEET + 1)
            if len(raw) > MAX_SHEET:
                raise Stop(USAGE, "the recovery sheet is too large")
            sheet = raw.decode("utf-8", "replace")
        elif args.passphrase_file:
            passphrase = read_passphrase(args.passphrase_file)
        elif sys.stdin.isatty():
            passphrase = getpass.getpass("Passphrase: ")
        else:
            raise Stop(USAGE, "--passphrase-file or --recovery-sheet is needed")
        repository = Repository(Store(args.repository), passphrase, sheet, Report())
        if args.verb == "list":
            return list_generations(repository, as_json=args.json)
        if args.verb == "check":
            return check(repository)
        return restore(repository, args.source, args.to, incomplete=args.incomplete)
    except Stop as e:
        print(f"rescue: {e}", file=sys.stderr)
        return e.code
    except OSError as e:
        print(f"rescue: {e}", file=sys.stderr)
        return USAGE


if __name__ == "__main__":
    sys.exit(main())
