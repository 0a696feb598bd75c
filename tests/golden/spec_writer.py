"""Writes a small repository of format version 1, from docs/format alone.

It shares no code with the product nor with scripts/rescue.py, so that each can be tried against what another read
into the same pages. Everything is drawn from a seed: the same zstd gives the same bytes. `write(root)` returns what
a reader should find. Section signs refer to docs/format.

The repository: one chain `alpha/000001` of class `instant`, source `files`, and these entries:

| entry | kind | says |
| --- | --- | --- |
| 1 | checkpoint | generation A so far: packs 1 (data) and 2 (list) |
| 2 | commit | generation A, number 1, list of depth 0: packs 3 (data, delta) and 4 (list, delta against pack 2) |
| 3 | a kind nobody knows | to be ignored and counted |
| 4 | commit | generation B, number 2, list of depth 1 in three parts: packs 5 (data, hot) and 6 (list) |
| 5 | hold | generation A |
| 6 | damaged | pack 1, then |
| 7 | damaged | pack 1, good again |
| 8 | checkpoint | generation C, number 3, still running: nothing new |

With `bad_pack=True` entry 7 is missing, so that pack 1 stays marked.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

PASSPHRASE = "Grüße aus dem Keller"
GROUP, CHAIN, SOURCE = "alpha", 1, "files"
CREATED = "2024-02-03T04:05:06Z"
TIME = 1_706_933_106_000
CHUNKER = [64, 256, 1024]
LIST_CHUNKER = [64, 256, 1024]

# --- msgpack and JSON, README §1 and §5 -------------------------------------------------------------------------------


def pack(value: object) -> bytes:
    if isinstance(value, int):
        if 0 <= value < 128:
            return bytes([value])
        if -32 <= value < 0:
            return bytes([256 + value])
        for lead, size, signed in (
            [(0xCC, 1, False), (0xCD, 2, False), (0xCE, 4, False), (0xCF, 8, False)]
            if value >= 0
            else [(0xD0, 1, True), (0xD1, 2, True), (0xD2, 4, True), (0xD3, 8, True)]
        ):
            try:
                return bytes([lead]) + value.to_bytes(size, "big", signed=signed)
            except OverflowError:
                continue
        raise ValueError(value)
    if isinstance(value, str):
        data = value.encode()
        return _head(len(data), (0xA0, 32), ((0xD9, 1), (0xDA, 2), (0xDB, 4))) + data
    if isinstance(value, bytes):
        return _head(len(value), None, ((0xC4, 1), (0xC5, 2), (0xC6, 4))) + value
    if isinstance(value, list):
        return _head(len(value), (0x90, 16), ((0xDC, 2), (0xDD, 4))) + b"".join(pack(v) for v in value)
    raise TypeError(value)


def _head(length: int, fix: tuple[int, int] | None, forms: tuple[tuple[int, int], ...]) -> bytes:
    if fix is not None and length < fix[1]:
        return bytes([fix[0] + length])
    for lead, size in forms:
        if length < 1 << 8 * size:
            return bytes([lead]) + length.to_bytes(size, "big")
    raise ValueError(length)


def framed(records: list[list]) -> bytes:
    """Records of a list or an outline, each behind its length (data.md §5)."""
    return b"".join(struct.pack(">I", len(data)) + data for data in map(pack, records))


def canonical(value: dict) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


# --- keys, README §3 --------------------------------------------------------------------------------------------------


def hkdf(ikm: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    prk = hmac.new(salt, ikm, hashlib.sha256).digest()
    return expand(prk, info, size)


def expand(prk: bytes, info: bytes, size: int) -> bytes:
    out, last, i = b"", b"", 0
    while len(out) < size:
        i += 1
        last = hmac.new(prk, last + info + bytes([i]), hashlib.sha256).digest()
        out += last
    return out[:size]


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class Seed:
    """Random bytes that are the same every time."""

    def __init__(self, seed: str) -> None:
        self.seed, self.count = seed.encode(), 0

    def draw(self, size: int) -> bytes:
        self.count += 1
        return blake3(self.seed + struct.pack(">I", self.count)).digest(length=size)


# --- the recovery sheet, README §5.4 ----------------------------------------------------------------------------------


def word(value: int) -> str:
    c, v = "bdfghjklmnprstvz", "aiou"
    return c[value >> 12] + v[value >> 10 & 3] + c[value >> 6 & 15] + v[value >> 4 & 3] + c[value & 15]


def sheet(secret: bytes, repository: bytes) -> str:
    lines = ["Recovery sheet", f"repository id: {repository.hex()}", ""]
    for n in range(1, 5):
        eight = secret[8 * n - 8 : 8 * n]
        check = hashlib.sha256(b"gateway/v1/sheet" + bytes([n]) + eight).digest()[:2]
        lines.append(f"  {n}  " + "-".join(word(v) for v in struct.unpack(">5H", eight + check)))
    return "\n".join([*lines, "", "Keep it where the machine is not.", ""])


# --- the chunker, chunker.md ------------------------------------------------------------------------------------------


@cache
def cuts(key: bytes, data: bytes, least: int, avg: int, most: int) -> list[bytes]:
    """wide-64, read off the page line by line: slow, for small data."""
    p = expand(key, b"gateway/v1/wide-64", 40)
    c0, c1 = ((-1 if b & 0x80 else 1) * (b & 0x3F | 1) for b in p[:2])
    k = [v | 3 for v in struct.unpack("<5H", p[2:12])]
    off = struct.unpack("<H", p[12:14])[0] & 0xFC00 | 0x0200
    s, m1, m2 = struct.unpack("<3Q", p[16:40])
    m1, m2 = m1 | 1, m2 | 1
    bits, mask = avg.bit_length() - 1, (1 << 64) - 1

    def is_cut(window: bytes, early: bool) -> bool:
        x = [0] + [(c0 * window[i - 1] + c1 * window[i]) & 0xFFFF for i in range(1, 64)]
        x = [v ^ v >> 7 for v in x]
        for step, mult in zip((2, 4, 8, 16, 32), k, strict=True):
            x = [(x[i] + mult * x[i - step]) & 0xFFFF if i >= 2 * step - 1 else 0 for i in range(64)]
        if (x[63] - off) % 65536 >= 32:
            return False
        h = s
        for n in range(8, 0, -1):
            h = (h ^ int.from_bytes(window[64 - 8 * n : 72 - 8 * n], "little")) * m1 & mask
            h ^= h >> 32
        h = h * m2 & mask
        zeros = bits - 11 + (1 if early else -1)
        return zeros < 1 or h >> (64 - zeros) == 0

    out, start = [], 0
    while start < len(data):
        n = len(data) - start
        end = n if n <= least else min(n, most)
        if n > least:
            for e in range(least, min(n, most)):
                if is_cut(data[start + e - 64 : start + e], e <= avg):
                    end = e
                    break
        out.append(data[start : start + end])
        start += end
    return out


# --- CRC64NVME, README §1 ---------------------------------------------------------------------------------------------


def _shifted(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x9A6C9329AC4BC9B5 * (value & 1))
    return value


SHIFTED = [_shifted(byte) for byte in range(256)]


def crc64(data: bytes) -> int:
    value = (1 << 64) - 1
    for byte in data:
        value = value >> 8 ^ SHIFTED[(value ^ byte) & 0xFF]
    return value ^ (1 << 64) - 1


# --- the writer -------------------------------------------------------------------------------------------------------


@dataclass
class Written:
    """What a reader should find."""

    repository: bytes
    sheet: str
    generations: dict[int, bytes] = field(default_factory=dict)
    trees: dict[int, dict[str, object]] = field(default_factory=dict)  # by number: path -> bytes, or what it is
    packs: dict[int, str] = field(default_factory=dict)  # by number: name


def digest(data: bytes) -> bytes:
    assert len(data) <= 64 << 20
    return blake3(data).digest()


class Writer:
    def __init__(self, root: Path, seed: str = "spec-writer") -> None:
        self.root, self.seed = root, Seed(seed)
        self.repository = self.seed.draw(16)
        self.master = self.seed.draw(32)
        self.writer = self.seed.draw(16)
        self.mac_key = hkdf(self.master, self.repository, b"gateway/v1/master/mac", 32)
        secret = self.seed.draw(32)
        self.written = Written(self.repository, sheet(secret, self.repository))
        kdf: dict = {"iterations": 1, "lanes": 1, "memory_kib": 8, "name": "argon2id"}
        salt = self.seed.draw(32)
        derived = Argon2id(salt=salt, length=32, iterations=1, lanes=1, memory_cost=8).derive(PASSPHRASE.encode())
        self.slot("passphrase", kdf, derived, salt)
        self.slot("sheet", {"name": "none"}, secret, self.seed.draw(32))
        self.chunks: dict[int, list[bytes]] = {}  # by pack
        self.declared: list[list] = []
        self.all_packs: list[int] = []
        self.seq = 0
        self.birth()
        self.json(
            "repository.json",
            {
                "created": CREATED,
                "format": 1,
                "kind": "gateway-repository",
                "needs_features": [],
                "note": 'unknown keys are ignored: \u00e9 \U0001f512 "\\\n\t',
                "repository": self.repository.hex(),
            },
        )

    def put(self, name: str, data: bytes) -> bytes:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as f:
            f.write(data)
        return data

    def json(self, name: str, value: dict) -> bytes:
        mac = hmac.new(self.mac_key, canonical(value), hashlib.sha256).hexdigest()
        return self.put(name, canonical(value | {"~mac": mac}) + b"\n")

    def sealed(self, value: dict, info: bytes, secret: bytes, salt: bytes, plain: bytes) -> dict:
        """README §5.2: adds commitment, nonce and sealed."""
        value = value | {"salt": salt.hex()}
        keys = hkdf(secret, salt, info, 96)
        aad = canonical(value)
        nonce = blake3(aad + plain, key=keys[64:]).digest()[:12]
        sealed = AESGCM(keys[:32]).encrypt(nonce, plain, aad)
        return value | {"commitment": keys[32:64].hex(), "nonce": nonce.hex(), "sealed": sealed.hex()}

    def slot(self, kind: str, kdf: dict, secret: bytes, salt: bytes) -> None:
        slot_id = self.seed.draw(16)
        value = {
            "created": CREATED,
            "format": 1,
            "id": slot_id.hex(),
            "kdf": kdf,
            "kind": kind,
            "needs_features": [],
            "repository": self.repository.hex(),
        }
        info = b"gateway/v1/slot" + self.repository + slot_id
        self.json(f"slots/{slot_id.hex()}.json", self.sealed(value, info, secret, salt, self.master))

    # containers, README §4

    def container(
        self, kind: int, number: int, pack_id: bytes, purpose: str, frames: list[tuple[int, bytes]]
    ) -> tuple[bytes, list[tuple[int, int]]]:
        """The object and (offset, length) of each of its frames. A frame that is callable is made from those."""
        salt = self.seed.draw(32)
        keys = hkdf(self.key(purpose), salt, b"gateway/v1/container", 64)
        header = bytes.fromhex("894757420d0a1a0a") + struct.pack(">HB", 1, 1)
        header += struct.pack(">B16s32sII16s", kind, self.repository, GROUP.encode(), CHAIN, number, pack_id)
        header += salt + keys[32:]
        assert len(header) == 148
        out, places, tags = header, [], []
        for i, (frame_type, body) in enumerate(frames):
            last = i == len(frames) - 1
            plain = body(places, tags) if callable(body) else body
            length = len(plain) + 24
            extra = b""
            if last:
                extra = struct.pack(">QIIQ", len(out), length, i, len(out) + length + 32)
                extra += bytes.fromhex("4757454e440d0a1a")
            aad = header + struct.pack(">IBB", i, frame_type, int(last)) + extra
            tail = blake3(aad + plain, key=self.key("nonce")).digest()[:8]
            sealed = AESGCM(keys[:32]).encrypt(struct.pack(">I", i) + tail, plain, aad)
            places.append((len(out), length))
            tags.append(sealed[-16:])
            out += tail + sealed + extra
        return out, places

    def key(self, name: str) -> bytes:
        return hkdf(self.chain_key, self.repository, b"gateway/v1/chain/" + name.encode(), 32)

    def birth(self) -> None:
        self.chain_key = self.seed.draw(32)
        self.folder = f"chains/{GROUP}/{CHAIN:06d}"
        body = [[], GROUP, CHAIN, TIME, self.writer, "instant", [0, "GLACIER_IR"], 0, 0, "wide-64", CHUNKER]
        body += [LIST_CHUNKER, "first", 0, b"", "a field of a later writer"]
        header, _ = self.container(4, 0, bytes(16), "head", [(3, pack(body))])
        wrap_id = self.seed.draw(16)
        value = {
            "chain": CHAIN,
            "created": CREATED,
            "format": 1,
            "group": GROUP,
            "header": sha(header).hex(),
            "id": wrap_id.hex(),
            "kind": "master",
            "needs_features": [],
            "repository": self.repository.hex(),
        }
        secret = hkdf(self.master, self.repository, b"gateway/v1/master/wrap", 32)
        info = b"gateway/v1/wrap" + self.repository + wrap_id
        value = self.sealed(value, info, secret, self.seed.draw(32), self.chain_key)
        self.put(f"{self.folder}/header", header)
        self.put(f"keys/{GROUP}-{CHAIN:06d}-header", header)
        wrap = self.json(f"keys/{GROUP}-{CHAIN:06d}-{wrap_id.hex()}", value)
        self.put(f"{self.folder}/wraps/{wrap_id.hex()}", wrap)
        self.birth_bytes = 2 * (len(header) + len(wrap))
        self.before = sha(header)

    # packs, data.md §2 and §3

    def pack(self, number: int, cls: str, segments: list[tuple[int, list[bytes], list[int]]]) -> None:
        """Segments as (encoding, chunks, base runs); written, with its index object, and noted for declaration."""
        meta = cls == "meta"
        self.chunks[number] = [c for _, chunks, _ in segments for c in chunks]
        frames: list[tuple[int, object]] = []
        for encoding, chunks, bases in segments:
            raw = b"".join(chunks)
            if encoding == 1:
                raw = zstandard.ZstdCompressor(level=3).compress(raw)
            elif encoding == 2:
                base = self.follow(bases)
                dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
                raw = zstandard.ZstdCompressor(level=3, dict_data=dictionary).compress(raw)
            frames.append((1, raw))
        chunk_key = self.key("list-id" if meta else "id")
        ids = b"".join(blake3(c, key=chunk_key).digest()[:16] for c in self.chunks[number])
        lengths = b"".join(len(c).to_bytes(3, "little") for c in self.chunks[number])

        def directory(places: list[tuple[int, int]], tags: list[bytes]) -> bytes:
            table = [
                [encoding, length, len(chunks), tag, bases]
                for (encoding, chunks, bases), (_, length), tag in zip(segments, places, tags, strict=True)
            ]
            return pack([self.writer, self.seq, self.before, table, ids, lengths])

        pack_id = self.seed.draw(16)
        kind, purpose = (2, "meta") if meta else (1, "data")
        data, places = self.container(kind, number, pack_id, purpose, [*frames, (2, directory)])
        index = data[:148] + data[places[-1][0] :]
        stem = f"{number:08x}-{pack_id.hex()}"
        self.written.packs[number] = f"packs/{cls}/{GROUP}/{CHAIN:06d}/{stem}"
        self.put(self.written.packs[number], data)
        self.put(f"{self.folder}/index/{stem}", index)
        based = sorted({b for _, _, bases in segments for b in bases[::3]} - {number})
        raw_bytes = sum(len(c) for c in self.chunks[number])
        self.declared.append(
            [number, pack_id, cls, len(data), crc64(data), sha(index), len(index), len(self.chunks[number]),
             raw_bytes, ranges(based)]
        )  # fmt: skip
        self.all_packs.append(number)

    def follow(self, runs: list[int]) -> bytes:
        triples = zip(runs[::3], runs[1::3], runs[2::3], strict=True)
        return b"".join(c for p, first, count in triples for c in self.chunks[p][first : first + count])

    def cut(self, data: bytes) -> list[bytes]:
        return cuts(self.key("chunker"), data, *CHUNKER)

    def cut_list(self, data: bytes) -> list[bytes]:
        return cuts(self.key("chunker"), data, *LIST_CHUNKER)

    # the log, log.md §2

    def entry(self, kind: str, payload: list) -> None:
        body = pack([[], kind, self.writer, self.before, TIME + self.seq, b"", payload, "later"])
        self.seq += 1
        data, _ = self.container(3, self.seq, bytes(16), "log", [(3, body)])
        self.put(f"{self.folder}/log/{self.seq:08d}", data)
        self.before = sha(data)

    def generation(self, kind: str, gen: bytes, number: int, needs: list[int], file_list: list, tree: list) -> None:
        files = [r for r in tree if r[0] == 1 and r[2] == 1]
        left = [r[1:4] for r in tree if r[0] == 4]
        stats = [0] * 15
        stats[0] = sum(r[0] in (1, 4) for r in tree)
        stats[1:4] = [len(files), sum(r[3] for r in files), sum(r[15] for r in files)]
        stats[13] = self.birth_bytes if self.seq == 0 else 0
        self.entry(
            kind,
            [gen, SOURCE, number, "files", TIME, TIME + 1000 * number, 3 if files else 0, "", int(kind == "commit"),
             [] if kind == "commit" else ["still running"], self.declared, ranges(needs), file_list, [], len(left),
             left, stats],
        )  # fmt: skip
        self.declared = []


def ranges(numbers: list[int]) -> list[int]:
    out: list[int] = []
    for n in sorted(numbers):
        if out and n == out[-2] + out[-1]:
            out[-1] += 1
        else:
            out += [n, 1]
    return out


def entry(path: str, kind: int, **more: object) -> list:
    """An entry record, data.md §5."""
    data = more.pop("data", b"")
    base: dict = {
        "size": len(data), "mtime": 1_600_000_000_123_456_789, "mode": 0o644, "uid": 0, "gid": 0, "user": "root",
        "group": "", "xattrs": [], "target": b"", "link": b"", "device": 0,
        "digest": digest(data) if kind == 1 and not more.get("link") else b"",
        "data_bytes": len(data), "skip": 0, "evidence": 3 if kind == 1 else 0, "holes": 0, "runs": 0,
    }  # fmt: skip
    base |= more
    return [1, path.encode(), kind, *base.values()]


def write(root: Path, *, bad_pack: bool = False) -> Written:
    """Writes the repository described at the top below `root`."""
    w = Writer(root)
    noise = Seed("data")
    text = b"".join(b"line %06d of a text that compresses well\n" % i for i in range(200))
    random = noise.draw(3000)
    changed = text[:4000] + b"one changed line\n" + text[4000:]

    # Pack 1: a segment stored as it is, and one compressed.
    raw_chunks, text_chunks = w.cut(random), w.cut(text)
    w.pack(1, "instant", [(0, raw_chunks, []), (1, text_chunks, [])])
    n_raw, n_text = len(raw_chunks), len(text_chunks)
    run_random, run_text = [1, 0, n_raw], [1, n_raw, n_text]

    # Generation A so far: two files. The skip starts the second file 100 bytes into the first chunk.
    skipped = random[100:2000]
    file_random = entry("big/random.bin", 1, data=skipped, skip=100, runs=1, xattrs=[[b"user.note", b"\x00\xff"]])
    file_text = entry("big/text", 1, data=text, runs=1, mode=0o600)
    big = entry("big", 2, mode=0o750)
    early = [big, file_random, [3, run_random], file_text, [3, run_text]]
    early_bytes = framed(early)
    early_chunks = w.cut_list(early_bytes)
    w.pack(2, "meta", [(1, early_chunks, [])])
    gen_a, gen_b, gen_c = (w.seed.draw(16) for _ in range(3))
    w.generation("checkpoint", gen_a, 1, [1, 2], [0, len(early_bytes), [2, 0, len(early_chunks)]], early)

    # Pack 3: a delta on pack 1, and a delta on that delta within the same pack (depth 2).
    delta_chunks = w.cut(changed)
    again = changed.replace(b"000150", b"999999")
    again_chunks = w.cut(again)
    w.pack(3, "instant", [(2, delta_chunks, [1, n_raw, n_text]), (2, again_chunks, [3, 0, len(delta_chunks)])])
    run_changed, run_again = [3, 0, len(delta_chunks)], [3, len(delta_chunks), len(again_chunks)]

    # A sparse file: a hole first, one inside, one last; its data are two runs in two records.
    sparse_data = random + changed
    holes = [2, [0, 4096, 4096 + 1000, 8192, 4096 + 8192 + len(sparse_data), 10_000]]
    sparse = entry(
        "big/sparse", 1, data=sparse_data, size=4096 + 8192 + 10_000 + len(sparse_data), holes=1, runs=2, mtime=-1
    )
    linked = entry(
        "link-2", 1, size=len(skipped), link=b"big/random.bin", evidence=0, xattrs=[[b"user.note", b"\x00\xff"]]
    )
    # Byte by byte "big-2" is before "big/..."; as path keys it is behind all that is in "big".
    full: list[list] = [
        big,
        [*file_random, 7, [b"unknown", -1, [[]]]],  # fields of a later writer
        [3, run_random],
        sparse,
        holes,
        [3, run_random],
        [3, run_changed],
        file_text,
        [3, run_text],
        entry("big-2", 1, data=again, runs=1),
        [3, run_again],
        entry("empty", 1),
        entry("empty-dir", 2, mode=0o555),
        entry("fifo", 4, mode=0o640),
        [4, b"growing.db", "growing", "written to at the cut"],
        entry("hidden", 2, mode=0o700),
        [4, b"hidden", "unreadable", "the directory was there, what is in it could not be read"],
        entry("hollow", 1, size=5000, holes=1),
        [2, [0, 5000]],
        linked,
        [99, b"a record of a later writer", [1, 2]],
        entry("symlink", 3, mode=0o777, target=b"../../outside"),
        entry("\u00fcmlaut", 1, data=text, runs=1),
        [3, run_text],
    ]
    full_bytes = framed(full)
    list_chunks = w.cut_list(full_bytes)
    w.pack(4, "meta", [(2, list_chunks, [2, 0, len(early_chunks)])])
    w.generation("commit", gen_a, 1, [1, 2, 3, 4], [0, len(full_bytes), [4, 0, len(list_chunks)]], full)
    w.entry("celebrate", [["anything"], b"at all"])

    # Generation B: two parts and an outline of depth 1. The first part is the old list's chunks where they are.
    new_text = b"".join(b"line %d of a new file\n" % i for i in range(100))
    w.pack(5, "hot", [(0, w.cut(new_text), [])])
    part_1 = early
    part_2 = [entry("new", 2), entry("new/file", 1, data=new_text, runs=2), [3, [5, 0, 1]]]
    part_3 = [[3, [5, 1, len(w.chunks[5]) - 1]], entry("socket", 5)]  # begins with runs of the part before
    part_2_bytes, part_3_bytes = framed(part_2), framed(part_3)
    chunks_2, chunks_3 = w.cut_list(part_2_bytes), w.cut_list(part_3_bytes)
    lines = []
    for first, records, size, run in (
        (b"big", part_1, len(early_bytes), [2, 0, len(early_chunks)]),
        (b"new", part_2, len(part_2_bytes), [6, 0, len(chunks_2)]),
        (b"new/file", part_3, len(part_3_bytes), [6, len(chunks_2), len(chunks_3)]),
    ):
        begin = [r for r in records if r[0] in (1, 4)]
        files = [r for r in begin if r[0] == 1 and r[2] == 1]
        lines.append([first, len(begin), len(files), sum(r[3] for r in files), size, run, "later"])
    outline = framed(lines)
    outline_chunks = w.cut_list(outline)
    n = len(chunks_2) + len(chunks_3)
    w.pack(6, "meta", [(1, chunks_2 + chunks_3, []), (0, outline_chunks, [])])
    top = [1, len(outline), [6, n, len(outline_chunks)]]
    w.generation("commit", gen_b, 2, [1, 2, 5, 6], top, part_1 + part_2 + part_3)

    w.entry("hold", [w.seed.draw(16), gen_a, "an operator", "because"])
    first_id = bytes.fromhex(w.written.packs[1][-32:])
    w.entry("damaged", [1, first_id, "a frame did not open", TIME, 0])
    if not bad_pack:
        w.entry("damaged", [1, first_id, "a passing fault of the disk", TIME, 1])
    w.generation("checkpoint", gen_c, 3, [1, 2], [0, len(early_bytes), [2, 0, len(early_chunks)]], early)

    sparse_file = bytes(4096) + sparse_data[:1000] + bytes(8192) + sparse_data[1000:] + bytes(10_000)
    tree_early: dict[str, object] = {"big": "dir", "big/random.bin": skipped, "big/text": text}
    w.written.generations = {1: gen_a, 2: gen_b, 3: gen_c}
    w.written.trees = {
        1: tree_early
        | {
            "big/sparse": sparse_file,
            "big-2": again,
            "empty": b"",
            "empty-dir": "dir",
            "fifo": "fifo",
            "hidden": "dir",
            "hollow": bytes(5000),
            "link-2": skipped,
            "symlink": "../../outside",
            "ümlaut": text,
        },
        2: tree_early | {"new": "dir", "new/file": new_text},  # the socket is reported
        3: tree_early,
    }
    return w.written
