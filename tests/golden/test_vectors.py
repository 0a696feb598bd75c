"""docs/format/vectors.md, recomputed by the product and by scripts/rescue.py (what only writes: by `spec_writer`)."""

from __future__ import annotations

import hmac
import json
import re
import struct
from datetime import UTC, datetime
from hashlib import sha256, shake_256
from pathlib import Path
from typing import Any

from blake3 import blake3

from gateway.format import container, directory, filelist, keys, log, sheet, slots, wire
from gateway.format.chunker import Chunker, ChunkerParameters
from gateway.format.container import Frame, Kind, Name
from gateway.format.directory import Head, Segment
from gateway.format.segment import Encoding
from gateway.jobs import backup
from gateway.model.ids import ChainName, Run
from gateway.store.crc import crc64
from scripts import rescue
from tests.golden import spec_writer

PAGE = Path(__file__).parents[2] / "docs/format/vectors.md"
ROW = re.compile(r"^\| `([^`]+)` \| `([^`]*)` \|", re.MULTILINE)


def stated() -> dict[str, str]:
    rows = ROW.findall(PAGE.read_text())
    assert len(rows) == len(dict(rows))
    return dict(rows)


S = stated() if PAGE.exists() else {}


def given(name: str) -> bytes:
    return bytes.fromhex(S[name])


CHAIN = ChainName("alpha", 7)
CREATED = datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC)
TIME = 1_706_933_106_000
PASSPHRASE = "Gru\u0308ße"
STREAM = shake_256(b"gateway/v1/vectors").digest(4096)
LARGE = (64 << 20) + 1


def master() -> keys.MasterKey:
    return keys.MasterKey(given("MK"), given("R"))


def chain_keys() -> keys.ChainKeys:
    return keys.ChainKeys.of(given("CK"), given("R"))


def entry_name() -> Name:
    return log.entry_name(given("R"), CHAIN, 3)


def pack_name() -> Name:
    return Name(kind=Kind.DATA, repository=given("R"), chain=CHAIN, number=5, pack_id=given("pack id"))


def entry_body() -> bytes:
    envelope = log._Envelope((), log.CLOSE, bytes(16), bytes(32), TIME, b"", wire.encode(log.Close("done")))
    fields = [getattr(envelope, name) for name in envelope.__struct_fields__[:-1]]
    return wire.encode([*fields, [log.Close("done").why]])


def pack() -> tuple[bytes, bytes, bytes]:
    """The whole pack of one raw segment with two chunks, its index object, and the directory's plain text."""
    sealer = container.Sealer(pack_name(), chain_keys(), given("salt"))
    frame = bytes(sealer.seal(0, Frame.SEGMENT, b"hello, world"))
    segment = Segment(0, Encoding.RAW, 148, len(frame), 0, 2, 12, frame[-16:], ())
    ids = b"".join(keys.chunk_id(chain_keys().chunk_id, chunk) for chunk in (b"hello", b", world"))
    plain = directory.encode(Head(writer=bytes(16), sequence=0, digest=bytes(32)), [segment], ids, [5, 7])
    last, trailer = sealer.finish(148 + len(frame), 1, Frame.DIRECTORY, plain)
    return sealer.header + frame + last + trailer, sealer.header + last + trailer, plain


def file_record() -> bytes:
    record = filelist.FileEntry(
        path=b"a/b", kind=1, size=5, mtime_ns=-1, mode=0o640, uid=1000, gid=1000, user="u", group="g",
        xattrs=((b"user.x", b"\0"),), digest=blake3(b"hello").digest(), data_bytes=5, evidence=1,
    )  # fmt: skip
    return filelist.encode_entry(record, (), [Run(5, 0, 1)])


def slot() -> bytes:
    cost = keys.Argon2Cost(8, 1, 1)
    return slots.passphrase_slot(master(), given("slot id"), given("salt"), CREATED, PASSPHRASE, cost)


def wrap() -> bytes:
    digest = given("header digest")
    return slots.encode_wrap(master(), CHAIN, given("CK"), digest, given("wrap id"), given("salt"), CREATED)


def text(data: bytes) -> str:
    return data.decode().rstrip("\n")


def product() -> dict[str, str]:
    """Every value of the page, made by the product of the page's inputs."""
    own, salt = chain_keys(), given("salt")
    fields = {"id": "chunk_id", "list-id": "list_id"}
    entry = container.seal_body(entry_name(), own, salt, entry_body())
    sealing = keys.derive(own.log, salt, b"gateway/v1/container", 64)
    whole, index, listed = pack()
    chunker = Chunker(own.chunker, ChunkerParameters(minimum=64, average=256, maximum=1024))
    ends = chunker.cut(bytearray(STREAM), 0, len(STREAM), True)
    pieces = [blake3(bytes(LARGE - 1)).digest(), blake3(b"\0").digest()]
    return {
        **{name: S[name] for name in INPUTS},
        "master/mac": keys.derive(given("MK"), given("R"), b"gateway/v1/master/mac", 32).hex(),
        "master/wrap": master().wrap_secret().hex(),
        **{f"chain/{name}": getattr(own, fields.get(name, name)).hex() for name in keys.PURPOSES},
        "id of hello in files": keys.chunk_id(own.chunk_id, b"hello").hex(),
        "id of hello in lists": keys.chunk_id(own.list_id, b"hello").hex(),
        "entry body": entry_body().hex(),
        "entry container key": sealing[:32].hex(),
        "entry commitment": sealing[32:].hex(),
        "entry nonce tail": entry[148:156].hex(),
        "entry object": entry.hex(),
        "pack directory": listed.hex(),
        "pack object": whole.hex(),
        "pack CRC64NVME": f"{crc64(whole):016x}",
        "pack index digest": sha256(index).hexdigest(),
        "slot secret": keys.stretch(PASSPHRASE, salt, keys.Argon2Cost(8, 1, 1)).hex(),
        "slot": text(slot()),
        "wrap": text(wrap()),
        "repository.json": text(slots.encode_repository(master(), CREATED)),
        **{f"sheet line {n}": " ".join(line.split()[1:]) for n, line in enumerate(sheet.lines(given("MK")), 1)},
        "CRC64NVME of 123456789": f"{crc64(b'123456789'):016x}",
        "chunker P": spec_writer.expand(own.chunker, b"gateway/v1/wide-64", 40).hex(),
        "chunker ends": " ".join(map(str, ends)),
        "path key of a/b-c": filelist.path_key(b"a/b-c").hex(),
        "file record": file_record().hex(),
        "digest of nothing": backup.digest([]).hex(),
        "digest of 64 MiB and one zero bytes": backup.digest(pieces).hex(),
    }


INPUTS = ("R", "MK", "CK", "salt", "slot id", "wrap id", "pack id", "header digest")


def test_the_product_computes_every_value_of_the_page() -> None:
    assert product() == S


# --- scripts/rescue.py ------------------------------------------------------------------------------------------------


def test_rescue_derives_the_same_keys() -> None:
    made = rescue.ChainKeys(given("CK"), given("R"))
    assert made.purpose == {
        n: given(f"chain/{name}") for n, name in enumerate(("data", "meta", "log", "head", "head"), 1)
    }
    assert made.id == {1: given("chain/id"), 2: given("chain/list-id")}
    for name in ("head", "log", "meta", "data", "nonce", "id", "list-id", "chunker"):
        info = b"gateway/v1/chain/" + name.encode()
        assert rescue.hkdf(given("CK"), given("R"), info, 32) == given(f"chain/{name}")
    for name in ("mac", "wrap"):
        info = b"gateway/v1/master/" + name.encode()
        assert rescue.hkdf(given("MK"), given("R"), info, 32) == given(f"master/{name}")
    for where in ("files", "lists"):
        key = made.id[1 if where == "files" else 2]
        assert rescue.chunk_id(key, b"hello") == given(f"id of hello in {where}")


def test_rescue_opens_the_entry() -> None:
    wanted = rescue.container_name(3, given("R"), "alpha", 7, 3)
    record = rescue.open_body(given("entry object"), given("chain/log"), wanted)
    assert record == rescue.unpack_whole(given("entry body"))
    assert record[1:2] + record[4:] == ["close", TIME, b"", ["done"]]
    header, salt = given("entry object")[:148], given("salt")
    assert header[84:116] == salt
    assert (
        rescue.hkdf(given("chain/log"), salt, b"gateway/v1/container", 64)
        == given("entry container key") + header[116:]
    )
    assert header[116:] == given("entry commitment")
    trailer = given("entry object")[-32:]
    aad = header + struct.pack(">IBB", 0, 3, 1) + trailer
    assert rescue.keyed(given("chain/nonce"), aad + given("entry body"))[:8] == given("entry nonce tail")


def test_rescue_reads_the_pack(tmp_path: Path) -> None:
    raw = given("pack object")
    trailer = rescue.Trailer.parse(raw[-32:])
    index = raw[:148] + raw[trailer.offset :]
    assert sha256(index).digest() == given("pack index digest")
    assert f"{rescue.crc64(raw):016x}" == S["pack CRC64NVME"]
    chain = rescue.Chain("alpha", 7, given("R"), rescue.ChainKeys(given("CK"), given("R")))
    declared = rescue.Declaration(
        5, given("pack id"), "hot", len(raw), rescue.crc64(raw), given("pack index digest"), len(index), 2, 12, None
    )
    chain.packs[5] = declared
    path = tmp_path / chain.pack_name(declared)
    path.parent.mkdir(parents=True)
    path.write_bytes(raw)
    assert list(rescue.Data(chain, rescue.Store(tmp_path)).chunks((5, 0, 2), 1)) == [b"hello", b", world"]
    frame = rescue.open_frame(
        rescue.container_key(given("chain/data"), raw[:148], chain.name(1, 5, given("pack id"))), raw[:148], 1,
        rescue.DIRECTORY, raw[trailer.offset : -32], trailer.raw,
    )  # fmt: skip
    assert frame == given("pack directory")


def parsed(name: str) -> dict[str, Any]:
    value = rescue.parse_json(S[name].encode() + b"\n")
    assert rescue.json_mac(given("master/mac"), value) == value["~mac"]
    assert (
        hmac.digest(given("master/mac"), S[name].rpartition(',"~mac"')[0].encode() + b"}", "sha256").hex()
        == value["~mac"]
    )
    return value


def test_rescue_opens_slot_and_wrap() -> None:
    value = parsed("slot")
    secret = rescue.argon2id(PASSPHRASE, given("salt"), value["kdf"])
    assert secret == given("slot secret")
    assert rescue.unseal(secret, b"gateway/v1/slot" + given("R") + given("slot id"), value) == given("MK")
    value = parsed("wrap")
    assert value["header"] == S["header digest"]
    assert rescue.unseal(given("master/wrap"), b"gateway/v1/wrap" + given("R") + given("wrap id"), value) == given("CK")
    assert parsed("repository.json")["repository"] == S["R"]


def test_rescue_reads_the_sheet() -> None:
    lines = [f"{n} {S[f'sheet line {n}']}" for n in range(1, 5)]
    assert rescue.read_sheet("\n".join(lines)) == (given("MK"), None)


def test_rescue_computes_checksums_and_digests() -> None:
    assert f"{rescue.crc64(b'123456789'):016x}" == S["CRC64NVME of 123456789"]
    for name, data in (("digest of nothing", b""), ("digest of 64 MiB and one zero bytes", bytes(LARGE))):
        digest = rescue.Digest()
        digest.update(data)
        assert digest.value() == given(name)
    assert rescue.path_key(b"a/b-c") == given("path key of a/b-c")


def test_rescue_reads_the_record() -> None:
    raw = given("file record")
    length = int.from_bytes(raw[:4], "big")
    entry = rescue.Entry(rescue.unpack_whole(raw[4 : 4 + length]))
    assert (entry.path, entry.size, entry.mtime_ns, entry.xattrs, entry.run_records) == (
        b"a/b", 5, -1, [[b"user.x", b"\0"]], 1,
    )  # fmt: skip
    assert rescue.unpack_whole(raw[8 + length :]) == [3, [5, 0, 1]]


def test_the_other_hand_cuts_the_same() -> None:
    sizes = [len(chunk) for chunk in spec_writer.cuts(given("chain/chunker"), STREAM, 64, 256, 1024)]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    assert " ".join(map(str, ends)) == S["chunker ends"]
    assert json.loads(S["repository.json"])["created"] == spec_writer.CREATED
