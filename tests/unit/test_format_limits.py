"""The bounds of docs/format/limits.md, each with both of its sides, where a codec is the place that checks.

Only who reads several packs can check depth and closure of a segment, and the raw bytes of bases in other packs; they
are checked in `gateway.repository`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Corrupt, UsageError
from gateway.format import canonical, container, directory, filelist, limits, log, sheet, wire
from gateway.format.container import Frame, Trailer
from gateway.format.filelist import FileEntry, OutlineLine
from gateway.format.log import Close, Entry, ListRoot
from gateway.format.segment import Encoding, SegmentCodec
from tests.unit.format_values import CHAIN, KEYS, SALT, WRITER, commit, declaration, entry_name, header, pack_name, some

LIMITS = Path(__file__).parents[2] / "docs/format/limits.md"
MIB = 2**20


def decode_entry(payload: Any, kind: str) -> object:
    made = Entry(kind=kind, writer=WRITER, before=some("b", 32), time=1, payload=payload)
    return log.decode_entry(log.encode_entry(made, 3, CHAIN, KEYS, SALT), 3, CHAIN, KEYS, "x")


def json_object(size: int) -> object:
    shell = b'{"a":"","format":1,"needs_features":[],"~mac":"' + b"0" * 64 + b'"}\n'
    return canonical.decode(shell.replace(b'""', b'"' + b"a" * (size - len(shell)) + b'"', 1), "x")


def recovery_sheet(size: int) -> object:
    text = "\n".join(sheet.lines(bytes(32))) + "\n"
    return sheet.parse(text + " " * (size - len(text)))


def entry_object(size: int) -> object:
    name = entry_name()
    return container.open_body(
        container.seal_body(name, KEYS, SALT, b"\x90" + bytes(size - 148 - 24 - 32 - 1)), name, KEYS, "x"
    )


def header_object(size: int) -> object:
    shell = len(log.encode_header(header(reason="x" * 2**16), KEYS, SALT)) - 2**16
    data = log.encode_header(header(reason="x" * (size - shell)), KEYS, SALT)
    assert len(data) == size
    return log.decode_header(data, CHAIN, KEYS, "x")


def pack_object(size: int) -> object:
    return container.decode_trailer(Trailer(size - 132, 100, 3, size).encode(), "x")


def index_object(size: int) -> object:
    """Too large is told before anything is opened; of the right size it fails only where it is opened."""
    try:
        return directory.open_index(bytes(size), pack_name(), KEYS, "x")
    except Corrupt as error:
        if "too large" in str(error):
            raise
        return None


def pack_frames(frames: int) -> object:
    return container.decode_trailer(Trailer(148, 100, frames - 1, 280).encode(), "x")


def one_directory(lengths: list[int], encoding: int = 0, bases: tuple[int, ...] = (), size: int = 100) -> object:
    packed = b"".join(length.to_bytes(3, "little") for length in lengths)
    rows = [[encoding, size, len(lengths), bytes(16), bases]]
    plain = wire.encode([WRITER, 0, bytes(32), rows, bytes(16 * len(lengths)), packed])
    return directory.decode(plain, 5, 148 + size, "x")


def chunk(size: int) -> object:
    return one_directory([size])


def segment_in_directory(size: int) -> object:
    return one_directory([MIB, size - MIB - 1, 1])


def segment_in_codec(size: int) -> object:
    return SegmentCodec().expand(Encoding.RAW, bytes(size), size, b"", "x")


def bases_in_codec(size: int) -> object:
    codec = SegmentCodec()
    return codec.expand(Encoding.DELTA, codec.compress_delta(b"x", bytes(size)), 1, bytes(size), "x")


def base_runs(count: int) -> object:
    return one_directory([1], 2, (1, 0, 1) * count)


def filled(size: int) -> bytes:
    """So many bytes of records that hold nothing this version knows, or that an outline has."""
    most = filelist.frame(wire.encode([9, bytes(900_000)]))
    part = most * ((size - 100_000) // len(most))
    return part + filelist.frame(wire.encode([9, bytes(size - len(part) - 4 - 7)]))


def part_of_a_list(size: int) -> object:
    return list(filelist.decode_part(filled(size), "x"))


def part_an_outline_names(size: int) -> object:
    line = OutlineLine(first=b"a", entries=1, files=1, bytes=1, size=size, runs=(1, 0, 1))
    return list(filelist.decode_outline(filelist.encode_line(line), "x"))


def part_of_an_outline(size: int) -> object:
    shell = len(filelist.frame(wire.encode([b"000", 1, 1, 1, 1, [1, 0, 1], bytes(70_000)]))) - 70_000
    sizes = [900_000] * ((size - 100_000) // (900_000 + shell))
    sizes.append(size - sum(sizes) - shell * (len(sizes) + 1))
    lines = [[b"%03d" % n, 1, 1, 1, 1, [1, 0, 1], bytes(each)] for n, each in enumerate(sizes)]
    part = b"".join(filelist.frame(wire.encode(line)) for line in lines)
    assert len(part) == size
    return list(filelist.decode_outline(part, "x"))


def record_of_an_outline(size: int) -> object:
    line = wire.encode([b"a", 1, 1, 1, 1, [1, 0, 1], bytes(size - 17)])
    assert len(line) == size
    return list(filelist.decode_outline(filelist.frame(line), "x"))


def unknown_record(size: int) -> object:
    return list(filelist.decode_part(filelist.frame(wire.encode([9, bytes(size - 7)])), "x"))


def frame_in_directory(size: int) -> object:
    return one_directory([1], size=size)


def frame_to_open(size: int) -> object:
    sealer = container.Sealer(pack_name(), KEYS, SALT)
    opener = container.Opener(sealer.header, pack_name(), KEYS, "x")
    opener.open(0, Frame.DIRECTORY, sealer.seal(0, Frame.DIRECTORY, bytes(limits.FRAME_BYTES), bytes(32)), bytes(32))
    return opener.open(0, Frame.SEGMENT, sealer.seal(0, Frame.SEGMENT, bytes(size - container.OVERHEAD)))


def part_at_the_top(size: int) -> object:
    return decode_entry(commit(files=ListRoot(0, size, (1, 0, 1))), "commit")


def depth_of_a_list(depth: int) -> object:
    return decode_entry(commit(files=ListRoot(depth, 10, (1, 0, 1))), "commit")


def entry_record(size: int) -> object:
    shell = len(filelist.encode_entry(FileEntry(path=b"a", kind=2, xattrs=((b"a", bytes(2**17)),)), (), [])) - 4 - 2**17
    data = filelist.encode_entry(FileEntry(path=b"a", kind=2, xattrs=((b"a", bytes(size - shell)),)), (), [])
    assert len(data) == 4 + size
    return list(filelist.decode_part(data, "x"))


def path(size: int) -> object:
    return list(filelist.decode_part(filelist.encode_entry(FileEntry(path=b"a" * size, kind=2), (), []), "x"))


def declared_pack(size: int) -> object:
    return decode_entry(commit(packs=(declaration(size=size),)), "commit")


def declared_index(size: int) -> object:
    return decode_entry(commit(packs=(declaration(index_size=size),)), "commit")


def left_out(count: int) -> object:
    return decode_entry(commit(left_out=((b"a", "b", "c"),) * count), "commit")


def ranges_naming(count: int) -> object:
    return log.check_ranges((1, count), "ranges")


BOUNDS: list[tuple[str, Callable[[int], object], int, int]] = [
    ("JSON objects", json_object, 200, limits.JSON_BYTES),
    ("recovery sheet", recovery_sheet, 200, limits.SHEET_BYTES),
    ("log entry, header, end object", entry_object, 206, limits.ENTRY_BYTES),
    ("log entry, header, end object", header_object, 70_000, limits.ENTRY_BYTES),
    ("pack object", pack_object, 280, limits.PACK_BYTES),
    ("pack object", declared_pack, 0, limits.PACK_BYTES),
    ("index object", index_object, 0, limits.INDEX_BYTES),
    ("index object", declared_index, 0, limits.INDEX_BYTES),
    ("frames in a pack, directory included", pack_frames, 1, limits.PACK_FRAMES),
    ("packs that one array of ranges names", ranges_naming, 1, limits.PACKS_IN_RANGES),
    ("chunk", chunk, 1, limits.CHUNK_BYTES),
    ("segment, raw", segment_in_directory, MIB + 2, limits.SEGMENT_BYTES),
    ("segment, raw", segment_in_codec, 1, limits.SEGMENT_BYTES),
    ("base chunks of a delta segment, raw", bases_in_codec, 1, limits.BASE_BYTES),
    ("base runs of a delta segment", base_runs, 1, limits.BASE_RUNS),
    ("part of a list or outline", part_of_a_list, 200_000, limits.PART_BYTES),
    ("part of a list or outline", part_of_an_outline, 200_000, limits.PART_BYTES),
    ("part of a list or outline", part_an_outline_names, 1, limits.PART_BYTES),
    ("part of a list or outline", part_at_the_top, 1, limits.PART_BYTES),
    ("depth of a list", depth_of_a_list, 0, limits.LIST_DEPTH),
    ("a record of a list or outline, its length field not counted", entry_record, 132_000, limits.RECORD_BYTES),
    ("a record of a list or outline, its length field not counted", record_of_an_outline, 70_000, limits.RECORD_BYTES),
    ("a record of a list or outline, its length field not counted", unknown_record, 70_000, limits.RECORD_BYTES),
    ("sealed frame, the last of a container aside", frame_in_directory, 25, limits.FRAME_BYTES),
    ("sealed frame, the last of a container aside", frame_to_open, 25, limits.FRAME_BYTES),
    ("path", path, 1, limits.PATH_BYTES),
]
ABOVE = {"depth of a segment", "closure of a segment, raw"}
"""What only a reader of several packs can check."""


@pytest.mark.parametrize(("name", "read", "least", "most"), BOUNDS, ids=lambda each: getattr(each, "__name__", None))
def test_both_sides_of_every_bound(name: str, read: Callable[[int], object], least: int, most: int) -> None:
    read(least)
    read(most)
    with pytest.raises((Corrupt, UsageError)):
        read(most + 1)


def test_the_least_of_a_chunk_a_part_and_base_runs() -> None:
    for read in (chunk, base_runs, part_an_outline_names):
        with pytest.raises(Corrupt):
            read(0)


def test_at_most_1000_left_out_in_an_entry() -> None:
    left_out(limits.LEFT_OUT_IN_ENTRY)
    with pytest.raises(Corrupt):
        left_out(limits.LEFT_OUT_IN_ENTRY + 1)


def test_every_bound_of_the_specification_is_in_the_table() -> None:
    rows = re.findall(r"^\| (?!what|---)(.+?) \| (.+?) \|$", LIMITS.read_text().split("## 2.")[0], re.MULTILINE)
    assert {name for name, _ in rows} == {name for name, *_ in BOUNDS} | ABOVE
    said = dict(rows)
    sizes = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "bytes": 1}
    for name, _, _, most in BOUNDS:
        number, _, unit = said[name].split("to ")[-1].replace(",", "").partition(" ")
        power = int(number[2:]) if number.startswith("2^") else None
        assert most == (2**power if power else int(number) * sizes.get(unit, 1)), name
    assert said["depth of a segment"] == str(limits.DEPTH)
    assert said["closure of a segment, raw"] == f"{limits.CLOSURE_BYTES // MIB} MiB"


def test_an_entry_too_large_is_not_made_either() -> None:
    with pytest.raises(ValueError, match="log entry of"):
        decode_entry(Close("x" * limits.ENTRY_BYTES), "close")
