"""Structure: what real programs wrote is complete; cut, zeroed or padded it never is; reads are bounded."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gateway.spool import archives, streams
from gateway.spool.structure import LOOK_BYTES
from gateway.spool.trailers import State, Structure, inspect, recognise
from tests.servers.require import cannot

SEED = 20_261_126


class File:
    """Bytes that count how many of them are read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.bytes = 0
        self.reads = 0
        self.largest = 0

    def read(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        assert length > 0
        self.bytes += length
        self.reads += 1
        self.largest = max(self.largest, length)
        return self.data[offset : offset + length]


def look(data: bytes, name: bytes = b"piece", *, whole: bool = False) -> Structure:
    file = File(data)
    found = inspect(name, len(data), file.read, whole=whole)
    if not whole:
        assert file.bytes <= archives.WALK_BYTES + LOOK_BYTES
    assert file.largest <= 1 << 20
    return found


def run(*command: str | Path, cwd: Path, given: bytes | None = None) -> bytes:
    if shutil.which(str(command[0])) is None:
        cannot(f"run {command[0]}: it is not installed")
    return subprocess.run(command, cwd=cwd, input=given, check=True, capture_output=True).stdout


def noise(size: int, seed: int = SEED) -> bytes:
    return random.Random(seed).randbytes(size)


def text(size: int) -> bytes:
    words = random.Random(SEED)
    return " ".join(f"word{words.randrange(5000)}" for _ in range(size // 5 + 1)).encode()[:size]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files, a hole, links, a directory, and names too long for one header."""
    root = tmp_path_factory.mktemp("tree")
    (root / "a").mkdir()
    (root / "a/noise").write_bytes(noise(70_000))
    (root / "a/zeros").write_bytes(bytes(30_000))
    (root / "a/empty").touch()
    (root / "a/link").symlink_to("noise")
    os.link(root / "a/noise", root / "a/twin")
    (root / "a" / ("long" * 50)).write_bytes(text(3000))
    with (root / "a/sparse").open("wb") as file:
        for number in range(40):
            file.seek(number * 40_000)
            file.write(b"data" * 1024)
    (root / "a/zz-last").write_bytes(text(20_001))
    return root


@pytest.fixture(scope="module")
def samples(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, int]]:
    """Name -> (bytes, the length from which on a cut file still is a whole one: what follows is padding)."""
    made: dict[str, tuple[bytes, int]] = {}
    work = tmp_path_factory.mktemp("made")
    names = sorted(os.listdir(tree / "a"))

    def add(name: str, data: bytes, *, padding_from: int | None = None) -> None:
        made[name] = (data, len(data) if padding_from is None else padding_from)

    for form in ("ustar", "pax", "gnu", "v7", "oldgnu"):
        skipped = ["--exclude=long*"] if form in ("v7", "ustar") else []
        sparse = ["--sparse"] if form in ("pax", "gnu", "oldgnu") else []
        data = run("tar", f"--format={form}", *sparse, *skipped, "-C", tree, "-cf", "-", "--sort=name", "a", cwd=work)
        add(f"tar {form}", data, padding_from=len(data.rstrip(b"\0")) // 512 * 512 + 512 + 1024)
    plain = made["tar gnu"][0]
    add("tar without padding", plain[: made["tar gnu"][1]])
    huge = io.BytesIO()
    with tarfile.open(fileobj=huge, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("ümlaut" * 30)
        info.size, info.mtime = 5000, 1.5  # type: ignore[assignment]
        archive.addfile(info, io.BytesIO(text(5000)))
    add("tar python", huge.getvalue(), padding_from=len(huge.getvalue().rstrip(b"\0")) // 512 * 512 + 512 + 1024)

    listing = "\n".join(f"a/{name}" for name in names).encode() + b"\n"
    for form in ("newc", "crc", "odc"):
        data = run("cpio", "-o", "-H", form, "--quiet", cwd=tree, given=listing)
        add(f"cpio {form}", data, padding_from=data.rindex(b"TRAILER!!!\0") + 11)

    (work / "noise").write_bytes(noise(300_000))
    (work / "text").write_bytes(text(200_000))
    run("zip", "-qr", work / "one.zip", "a", cwd=tree)
    add("zip", (work / "one.zip").read_bytes())
    run("zip", "-q", "-z", work / "one.zip", cwd=tree, given=b"a comment\n.\n")
    add("zip with a comment", (work / "one.zip").read_bytes())
    add("zip streamed", run("zip", "-q", "-", "text", cwd=work))
    many = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch, zipfile.ZipFile(many, "w") as archive:
        patch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 100)  # from there on it writes the records of zip64
        for number in range(3000):
            archive.writestr(str(number), b"")
    add("zip with zip64", many.getvalue())

    for name in ("noise", "text"):
        data = (work / name).read_bytes()
        add(f"zstd {name}", run("zstd", "-qc", name, cwd=work))
        add(f"zstd {name} with nothing known", run("zstd", "-qc", "--no-check", cwd=work, given=data))
        add(f"xz {name}", run("xz", "-c", name, cwd=work))
        add(f"xz {name} in blocks", run("xz", "-c", "--block-size=50000", "--check=sha256", name, cwd=work))
        add(f"bzip2 {name}", run("bzip2", "-c", name, cwd=work))
        add(f"lz4 {name}", run("lz4", "-qc", name, cwd=work))
        add(f"lz4 {name} with all checksums", run("lz4", "-qcBXB4", "--content-size", name, cwd=work))
    add("zstd empty", run("zstd", "-qc", cwd=work, given=b""))
    add("zstd in two frames", made["zstd text"][0] + b"\x50\x2a\x4d\x18\x03\0\0\0abc" + made["zstd noise"][0])
    add("xz in two streams", made["xz noise"][0] + bytes(8) + made["xz text"][0])
    add("xz empty", run("xz", "-c", cwd=work, given=b""))
    add("bzip2 empty", run("bzip2", "-c", cwd=work, given=b""))
    add("lz4 empty", run("lz4", "-qc", cwd=work, given=b""))
    add("gzip small", run("gzip", "-c", cwd=work, given=text(20_000)))
    add("gzip empty", run("gzip", "-c", cwd=work, given=b""))

    for name, data in DUMPS.items():
        add(name, data, padding_from=len(data.rstrip()) + 1)
    return made


ROWS = b"".join(b"INSERT INTO notes VALUES (%d, '-- Dump comp');\n" % number for number in range(3000))
DUMPS = {
    "pg_dump SQL": b"--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.3\n\n"
    + ROWS
    + b"\n--\n-- PostgreSQL database dump complete\n--\n\n",
    "pg_dump SQL restricted": b"--\n-- PostgreSQL database dump\n--\n\n\\restrict aBc123\n\n"
    + ROWS
    + b"\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict aBc123\n\n",
    "pg_dumpall": b"--\n-- PostgreSQL database cluster dump\n--\n\n"
    + ROWS
    + b"--\n-- PostgreSQL database dump\n--\n"
    + ROWS
    + b"\n--\n-- PostgreSQL database dump complete\n--\n\n"
    + b"--\n-- PostgreSQL database cluster dump complete\n--\n\n",
    "mysqldump": b"-- MySQL dump 10.13  Distrib 8.0.36, for Linux (x86_64)\n--\n"
    + ROWS
    + b"\n-- Dump completed on 2026-03-01  2:00:07\n",
    "mariadb-dump": b"/*M!999999\\- enable the sandbox mode */ \n-- MariaDB dump 10.19  Distrib 10.11.8-MariaDB\n--\n"
    + ROWS
    + b"\n-- Dump completed\n",
}

NAMES = [
    "tar ustar", "tar pax", "tar gnu", "tar v7", "tar oldgnu", "tar without padding", "tar python", "cpio newc",
    "cpio crc", "cpio odc", "zip", "zip with a comment", "zip streamed", "zip with zip64", "zstd noise", "zstd text",
    "zstd noise with nothing known", "zstd text with nothing known", "zstd empty", "zstd in two frames", "xz noise",
    "xz text", "xz noise in blocks", "xz text in blocks", "xz in two streams", "xz empty", "bzip2 noise", "bzip2 text",
    "bzip2 empty", "lz4 noise", "lz4 text", "lz4 noise with all checksums", "lz4 text with all checksums", "lz4 empty",
    "gzip small", "gzip empty", *DUMPS,
]  # fmt: skip

Samples = dict[str, tuple[bytes, int]]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_program_wrote_is_complete(name: str, samples: Samples) -> None:
    data, _ = samples[name]
    found = look(data)
    assert found.state is State.COMPLETE, found
    assert found.kind == name if name in ("pg_dumpall", "mysqldump", "pg_dump SQL") else found.kind
    assert found.detail
    assert look(data, whole=True).state is State.COMPLETE


def test_every_sample_is_tested(samples: Samples) -> None:
    assert sorted(samples) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_cut_is_never_complete(name: str, samples: Samples) -> None:
    data, padding_from = samples[name]
    chance = random.Random(f"{SEED} {name}")
    cuts = {chance.randrange(padding_from) for _ in range(100)}
    cuts |= {padding_from - step for step in range(1, 40)} | {padding_from - 512 * step for step in range(1, 25)}
    states = set()
    for cut in sorted(cuts):
        if 0 <= cut < padding_from:
            found = look(data[:cut])
            assert found.state is not State.COMPLETE, (cut, found)
            states.add(found.state)
            if not name.startswith("gzip") and (cut % 8 == 0 or padding_from - cut < 3):
                found = look(data[:cut], whole=True)
                assert found.state is not State.COMPLETE, (cut, found)
    if not name.startswith("bzip2") and "empty" not in name:
        assert State.TORN in states


@pytest.mark.parametrize("name", NAMES)
def test_a_tail_of_zeros_is_never_complete(name: str, samples: Samples) -> None:
    """The size was reserved, and the bytes came only so far. What is within the padding cannot be told apart."""
    data, padding_from = samples[name]
    if "empty" in name or "two frames" in name:
        return
    chance = random.Random(f"{SEED} {name}")
    spare = archives.RECORD + 1024 if name.startswith("tar") else 8
    for kept in sorted({chance.randrange(max(1, padding_from - spare)) for _ in range(150)}):
        zeroed = data[:kept].ljust(len(data), b"\0")
        if zeroed != data:
            found = look(zeroed)
            assert found.state is not State.COMPLETE, (kept, found)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("more", [513, 4096, 1 << 20])
def test_zeros_behind_the_end_are_never_complete(name: str, more: int, samples: Samples) -> None:
    data, padding_from = samples[name]
    assert look(data[:padding_from] + bytes(more)).state is not State.COMPLETE


@pytest.mark.parametrize("name", NAMES)
def test_garbage_behind_the_end_is_never_complete(name: str, samples: Samples) -> None:
    data, _ = samples[name]
    assert look(data + b"garbage\n" * 5).state is not State.COMPLETE


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        (b"night.tar.gz", 100_000, State.TORN),
        (b"dir/dump.SQL", 5000, State.TORN),
        (b"base.tar", 100_000, State.UNKNOWN),
        (b"disk.img", 100_000, State.UNKNOWN),
        (b"x.gz/image", 100_000, State.UNKNOWN),
        (b"x.gz", 0, State.UNKNOWN),
    ],
)
def test_nothing_but_zeros(name: bytes, size: int, expected: State) -> None:
    assert look(bytes(size), name).state is expected


def test_a_large_gzip_is_only_known_by_reading_it() -> None:
    data = gzip.compress(noise(600_000), mtime=0)
    assert look(data).state is State.UNKNOWN
    assert look(data, whole=True).state is State.COMPLETE
    assert look(data[:-1], whole=True).state is State.TORN
    assert look(data[:300_000] + bytes(len(data) - 300_000)).state is State.TORN
    flipped = bytearray(data)
    flipped[300_000] ^= 1
    assert look(bytes(flipped), whole=True).state is State.TORN
    assert look(data + data, whole=True).state is State.COMPLETE
    assert look(data + b"garbage", whole=True).state is State.UNKNOWN


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd"])
def test_a_bomb_is_read_in_bounded_pieces(kind: str) -> None:
    bomb = bytes(16 << 20)
    packed = {
        "gzip": lambda: gzip.compress(bomb, mtime=0),
        "bzip2": lambda: bz2.compress(bomb),
        "xz": lambda: lzma.compress(bomb),
        "zstd": lambda: zstandard.ZstdCompressor(write_checksum=True).compress(bomb),
    }[kind]()
    file = File(packed)
    sizes = [len(piece) for piece in streams.decompressed(kind, streams.Look(len(packed), file.read, None))]
    assert sum(sizes) == len(bomb)
    assert max(sizes) <= streams.PIECE_BYTES
    assert look(packed, whole=True).state is State.COMPLETE


def test_a_damaged_zstd_is_found_by_reading_it() -> None:
    data = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(noise(400_000)))
    data[200_000] ^= 1
    assert look(bytes(data)).state is State.COMPLETE, "a walk sees blocks, not bytes"
    assert look(bytes(data), whole=True).state is State.TORN


def test_half_of_a_zip_over_another_is_not_whole() -> None:
    """Its end and its directory are those of the old one; only the members' own headers tell."""

    def made(pieces: int) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(pieces):
                archive.writestr(f"base/{number}", noise(30_000 + pieces))
        return out.getvalue()

    old, new = made(6), made(5)
    assert look(old).state is State.COMPLETE
    assert look(new[: len(old) // 2] + old[len(old) // 2 :]).state is State.UNKNOWN
    assert look(new[:500] + old[500:]).state is State.UNKNOWN
    assert look(made(500)).state is State.COMPLETE, "a directory with many entries"


def test_a_tar_of_more_members_than_a_look_walks() -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for number in range(archives.WALKED_MEMBERS + 1):
            archive.addfile(tarfile.TarInfo(str(number)))
    data = made.getvalue()
    assert look(data).state is State.UNKNOWN
    assert look(data, whole=True).state is State.COMPLETE
    assert look(data[:700_000], whole=True).state is State.TORN


def test_a_member_larger_than_eight_gigabytes(tmp_path: Path) -> None:
    """In a pax tar its size stands in a header of its own, in a GNU tar as a binary number."""
    for form in ("pax", "gnu"):
        with (tmp_path / "huge").open("wb") as file:
            file.truncate(9 << 30)
            file.seek((9 << 30) - 4)
            file.write(b"last")
        header = run("bash", "-c", f"tar --format={form} -cf - huge | head -c 4096", cwd=tmp_path)
        sizes = (9 << 30) + 5 * 512
        offset = 512 if form == "gnu" else 3 * 512
        total = -(-(offset + (9 << 30) + 1024) // 10_240) * 10_240

        def read(at: int, length: int, header: bytes = header, offset: int = offset) -> bytes:
            end = offset + (9 << 30)
            out = bytearray(length)
            for place, data in ((0, header[:offset]), (end - 4, b"last")):
                for index, byte in enumerate(data):
                    if at <= place + index < at + length:
                        out[place + index - at] = byte
            return bytes(out)

        assert inspect(b"huge.tar", total, read).state is State.COMPLETE
        assert inspect(b"huge.tar", sizes // 2, read).state is State.TORN


def test_a_tar_whose_last_member_ends_in_zeros_is_not_guessed() -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        info = tarfile.TarInfo("image")
        info.size = 100_000
        archive.addfile(info, io.BytesIO(b"begin" + bytes(99_995)))
    assert look(made.getvalue()).state is State.UNKNOWN


def test_volumes_of_several_are_not_called_torn(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(noise(60_000))
    subprocess.run(
        ["tar", "-cM", "-L", "30", "-V", "label", "-f", "one.tar", "-f", "two.tar", "-f", "three.tar", "data"],
        cwd=tmp_path,
        check=True,
    )
    for name in ("one.tar", "two.tar"):
        assert look((tmp_path / name).read_bytes()).state is State.UNKNOWN


def test_a_zip_within_a_zip_cut_at_its_end() -> None:
    inner, outer = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("inner", text(5000))
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr("first", text(100))
        archive.writestr("inner.zip", inner.getvalue())
    data = outer.getvalue()
    cut = data.index(inner.getvalue()) + len(inner.getvalue())
    assert look(data).state is State.COMPLETE
    assert look(data[:cut]).state is State.UNKNOWN


def test_a_dump_with_something_appended_is_not_torn() -> None:
    assert look(DUMPS["mysqldump"] + b"-- copied by cron\n").state is State.UNKNOWN
    assert (
        look(DUMPS["pg_dumpall"][: -len(b"--\n-- PostgreSQL database cluster dump complete\n--\n\n")]).state
        is State.TORN
    )


def test_a_file_that_is_shorter_than_it_was_said_to_be(samples: Samples) -> None:
    for data, _ in samples.values():
        file = File(data)
        assert inspect(b"x", len(data) + 10_000, file.read).state is not State.COMPLETE


def test_errors_of_reading_are_the_callers(samples: Samples) -> None:
    def failing(_offset: int, _length: int) -> bytes:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        inspect(b"x", 1000, failing)


def test_only_what_is_recognised_is_named(samples: Samples) -> None:
    assert recognise(samples["gzip small"][0][:1024]) == "gzip"
    assert recognise(b"") == ""
    assert recognise(text(1024)) == ""
    assert look(text(100_000), b"night.tar.gz").state is State.UNKNOWN


# --- arbitrary bytes ----------------------------------------------------------------------------------------------

HEADS: list[bytes] = [
    b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"\xfd7zXZ\0", b"BZh91AY&SY",
    b"\x04\x22\x4d\x18\x64\x40\xa7",
    b"PK\3\4", b"PK\5\6", b"PGDMP\x01\x0e\x00\x04\x08\x01\x00", b"070701" + b"0" * 104, b"070707" + b"0" * 70,
    b"--\n-- PostgreSQL database dump\n--\n", b"-- MySQL dump 1", b"",
]  # fmt: skip


@given(st.sampled_from(HEADS), st.binary(max_size=3000), st.sampled_from([0, 1, 10_000, 1 << 45]), st.booleans())
def test_arbitrary_bytes_raise_nothing_and_read_little(head: bytes, rest: bytes, more: int, whole: bool) -> None:
    data = head + rest
    file = File(data)
    found = inspect(b"x.gz", len(data) + more, file.read, whole=whole and not more)
    assert found.state in State
    assert file.bytes <= archives.WALK_BYTES + LOOK_BYTES
    assert file.reads < 3 * streams.WALKED_BLOCKS
    if more:
        assert found.state is not State.COMPLETE


@given(st.data())
def test_real_files_with_bytes_changed_raise_nothing(data: st.DataObject) -> None:
    sample = bytearray(_mutable()[data.draw(st.sampled_from(sorted(_mutable())))])
    for _ in range(data.draw(st.integers(1, 8))):
        sample[data.draw(st.integers(0, len(sample) - 1))] = data.draw(st.integers(0, 255))
    whole = data.draw(st.booleans())
    file = File(bytes(sample))
    inspect(b"x", len(sample), file.read, whole=whole)
    assert file.bytes <= archives.WALK_BYTES + LOOK_BYTES


_made: dict[str, bytes] = {}


def _mutable() -> dict[str, bytes]:
    if not _made:
        makers: dict[str, Callable[[], bytes]] = {
            "gzip": lambda: gzip.compress(text(2000), mtime=0),
            "bzip2": lambda: bz2.compress(text(2000)),
            "xz": lambda: lzma.compress(text(2000)),
            "zstd": lambda: zstandard.ZstdCompressor(write_checksum=True).compress(text(2000)),
        }
        _made.update({kind: make() for kind, make in makers.items()})
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
            info = tarfile.TarInfo("n" * 200)
            info.size = 1000
            archive.addfile(info, io.BytesIO(text(1000)))
        _made["tar"] = made.getvalue()
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("a", text(100))
        _made["zip"] = packed.getvalue()
    return _made


def test_zeros_without_end_are_given_up_early() -> None:
    """A zstd or lz4 head before a petabyte of zeros: not walked block by block."""
    for head in (b"\x28\xb5\x2f\xfd\x00\x58", b"\x04\x22\x4d\x18\x64\x40\xa7"):
        file = File(head + bytes(100_000))

        def read(offset: int, length: int, file: File = file) -> bytes:
            return file.read(offset, length).ljust(length, b"\0")

        assert inspect(b"x", 1 << 50, read).state is State.TORN
        assert file.reads < 20
