"""Directories and index objects: where every chunk lies, and every way in which that can be said wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Corrupt, NewerFormat
from gateway.format import _columns, directory, limits, wire
from gateway.format.container import HEADER, OVERHEAD, TRAILER, Frame, Kind, Sealer
from gateway.format.directory import Directory, Head, Segment
from gateway.format.segment import Encoding
from gateway.model.ids import Run
from tests.unit.format_values import KEYS, SALT, WRITER, judged, pack_name, refuses, some

HEAD = Head(writer=WRITER, sequence=3, digest=some("digest", 32))
PACK = 5


def lengths_of(numbers: Sequence[int]) -> bytes:
    return b"".join(number.to_bytes(3, "little") for number in numbers)


def body(rows: list[list[Any]], lengths: Sequence[int], /, **changes: Any) -> bytes:
    """A directory by hand; `rows` as the format has them: encoding, size, chunks, tag, bases."""
    fields = {
        "writer": HEAD.writer,
        "sequence": HEAD.sequence,
        "digest": HEAD.digest,
        "segments": rows,
        "ids": some("ids", 16 * len(lengths)),
        "lengths": lengths_of(lengths),
    }
    return wire.encode(list({**fields, **changes}.values()))


def decode(plain: bytes, end: int | None = None, pack: int = PACK) -> Directory:
    if end is None:
        end = HEADER.size + sum(row[1] for row in wire.require_shortest(plain, "x")[3])
    return directory.decode(plain, pack, end, "index/x")


def columns_said(found: directory.Columns) -> list[Any]:
    arrays = (found.offsets, found.sizes, found.firsts, found.bases, found.bases_to)
    return [*(each.tolist() for each in arrays), found.chunks, found.raw]


def agree(plain: bytes, pack: int, end: int) -> None:
    """What the kernel says of these bytes is what `decode` does, or nothing."""
    found = _columns.columns(plain, pack, end)
    try:
        expected = directory.decode(plain, pack, end, "x").columns()
    except Corrupt:
        assert found is None
        refuses(lambda: directory.decode_columns(plain, pack, end, "x"))
    else:
        assert columns_said(directory.decode_columns(plain, pack, end, "x")) == columns_said(expected)
        assert columns_said(directory._decoded(plain, pack, end, "x")[1]) == columns_said(expected)


def row(
    encoding: int = 0, size: int = 100, chunks: int = 1, tag: bytes = bytes(16), bases: list[int] | None = None
) -> list[Any]:
    return [encoding, size, chunks, tag, bases or []]


@st.composite
def packs(draw: st.DrawFn) -> tuple[list[list[Any]], list[int]]:
    rows, lengths = [], []
    for _ in range(draw(st.integers(0, 5))):
        chunks = draw(st.lists(st.integers(1, 2**18), min_size=1, max_size=6))
        encoding = draw(st.integers(0, 2))
        bases: list[int] = []
        if encoding == 2:
            bases = [draw(st.integers(1, PACK - 1)), draw(st.integers(0, 2**31)), draw(st.integers(1, 2**31))]
            if lengths and draw(st.booleans()):
                bases += [PACK, draw(st.integers(0, len(lengths) - 1)), 1]
        rows.append(
            row(
                encoding,
                draw(st.integers(OVERHEAD + 1, limits.FRAME_BYTES)),
                len(chunks),
                draw(st.binary(min_size=16, max_size=16)),
                bases,
            )
        )
        lengths += chunks
    return rows, lengths


@given(packs())
def test_a_directory_comes_back(made: tuple[list[list[Any]], list[int]]) -> None:
    rows, lengths = made
    found = decode(body(rows, lengths))
    ids = some("ids", 16 * len(lengths))
    assert directory.encode(found.head, found.segments, found.ids, lengths) == body(rows, lengths)
    assert (found.head, found.chunks, found.raw) == (HEAD, len(lengths), sum(lengths))
    offset, first = 148, 0
    for number, (segment, said) in enumerate(zip(found.segments, rows, strict=True)):
        assert (segment.number, segment.offset, segment.first) == (number, offset, first)
        assert [segment.encoding, segment.size, segment.chunks, segment.tag] == said[:4]
        assert segment.raw == sum(lengths[first : first + segment.chunks])
        offset, first = offset + segment.size, first + segment.chunks
    for index, length in enumerate(lengths):
        assert found.length(index) == length
        assert found.chunk_id(index) == ids[16 * index : 16 * index + 16]
        segment = found.segment_of(index)
        assert segment.first <= index < segment.first + segment.chunks


@given(packs())
def test_columns_are_what_the_directory_says(made: tuple[list[list[Any]], list[int]]) -> None:
    rows, lengths = made
    end = HEADER.size + sum(each[1] for each in rows)
    agree(body(rows, lengths), PACK, end)
    usual = all(sum(lengths[first : first + n]) <= limits.SEGMENT_BYTES for first, n in spans(rows))
    assert (_columns.columns(body(rows, lengths), PACK, end) is not None) == usual


def spans(rows: list[list[Any]]) -> list[tuple[int, int]]:
    counts = [each[2] for each in rows]
    return [(sum(counts[:number]), count) for number, count in enumerate(counts)]


@given(packs(), st.integers(0, 2**16), st.integers(0, 255), st.integers(-1, 2))
def test_of_changed_bytes_the_kernel_says_what_the_twin_says_or_nothing(
    made: tuple[list[list[Any]], list[int]], at: int, byte: int, cut: int
) -> None:
    rows, lengths = made
    plain = bytearray(body(rows, lengths))
    plain[at % len(plain)] = byte
    if cut == 0:
        del plain[at % len(plain) :]
    elif cut > 0:
        plain += bytes(cut)
    agree(bytes(plain), PACK, HEADER.size + sum(each[1] for each in rows))


@pytest.mark.parametrize("long", [b"\xcc\x01", b"\xcd\x00\x01", b"\xce\x00\x00\x00\x01"])
def test_what_is_not_spelled_the_shortest_way_is_refused_by_both(long: bytes) -> None:
    plain = body([row(1)], [1])
    wanted = b"\x95\x01\x64\x01"
    assert plain.count(wanted) == 1
    for place in (1, 3):
        agree(plain.replace(wanted, wanted[:place] + long + wanted[place + 1 :]), PACK, 248)
    for short, spelled in ((b"\x91\x95", b"\xdc\x00\x01\x95"), (b"\xc4\x03", b"\xc5\x00\x03")):
        assert plain.count(short) == 1
        agree(plain.replace(short, spelled), PACK, 248)


def test_what_a_later_version_adds_is_left_to_the_twin() -> None:
    plain = wire.encode([*wire.require_shortest(body([row()], [1]), "x"), 7])
    assert _columns.columns(plain, PACK, 248) is None
    agree(plain, PACK, 248)


@given(packs().filter(lambda made: made[1]), st.data())
def test_runs_are_found_in_their_segments(made: tuple[list[list[Any]], list[int]], data: st.DataObject) -> None:
    rows, lengths = made
    found = decode(body(rows, lengths))
    first = data.draw(st.integers(0, len(lengths) - 1))
    count = data.draw(st.integers(1, len(lengths) - first))
    pieces = list(found.segments_of(first, count, "x"))
    assert [n for _, start, end in pieces for n in range(start, end)] == list(range(first, first + count))
    for segment, start, end in pieces:
        assert segment.first <= start < end <= segment.first + segment.chunks
    assert found.span(first, count) == sum(lengths[first : first + count])
    refuses(lambda: list(found.segments_of(first, len(lengths) - first + 1, "x")), "no chunk")


def test_the_bytes_of_the_specification() -> None:
    plain = body([row(2, 100, 2, b"t" * 16, [4, 0, 1])], [0x010203, 1])
    assert plain[:1] == b"\x96"
    assert plain[19:20] == b"\x03"
    assert b"\x91\x95\x02\x64\x02\xc4\x10" + b"t" * 16 + b"\x93\x04\x00\x01" in plain
    assert plain.endswith(b"\xc4\x06\x03\x02\x01\x01\x00\x00")
    assert decode(plain).segments[0] == Segment(0, Encoding.DELTA, 148, 100, 0, 2, 0x010204, b"t" * 16, (Run(4, 0, 1),))


def test_an_empty_pack() -> None:
    found = decode(body([], []))
    assert (found.chunks, found.raw, found.segments) == (0, 0, ())
    refuses(lambda: list(found.segments_of(0, 1, "x")))


MANY_BASES = [n for _ in range(limits.BASE_RUNS) for n in (1, 0, 1)]


@pytest.mark.parametrize(
    ("rows", "lengths"),
    [
        ([row()], [limits.CHUNK_BYTES]),
        ([row(chunks=2)], [limits.CHUNK_BYTES] * 2),
        ([row(size=OVERHEAD + 1)], [1]),
        ([row(size=limits.FRAME_BYTES)], [1]),
        ([row(2, bases=MANY_BASES)], [1]),
        ([row(2, bases=[4, 2**32 - 1, 1])], [1]),
        ([row(), row(2, bases=[PACK, 0, 1])], [1, 1]),
    ],
)
def test_directories_at_the_bounds(rows: list[list[Any]], lengths: list[int]) -> None:
    decode(body(rows, lengths))
    end = HEADER.size + sum(each[1] for each in rows)
    assert _columns.columns(body(rows, lengths), PACK, end) is not None
    agree(body(rows, lengths), PACK, end)


@pytest.mark.parametrize(
    ("rows", "lengths"),
    [
        ([row()], [0]),
        ([row()], [limits.CHUNK_BYTES + 1]),
        ([row()], [2**24 - 1]),
        ([row(chunks=3)], [limits.CHUNK_BYTES, limits.CHUNK_BYTES, 1]),
        ([row(size=OVERHEAD)], [1]),
        ([row(size=0)], [1]),
        ([row(size=limits.FRAME_BYTES + 1)], [1]),
        ([row(size=2**32)], [1]),
        ([row(chunks=0)], []),
        ([row(chunks=0), row()], [1]),
        ([row(chunks=2)], [1]),
        ([row(chunks=2**32 - 1)], [1]),
        ([row()], [1, 1]),
        ([row()], []),
        ([], [1]),
        ([row(3)], [1]),
        ([row(255)], [1]),
        ([row(-1)], [1]),
        ([row(True)], [1]),  # type: ignore[arg-type]
        ([row(tag=bytes(15))], [1]),
        ([row(tag=bytes(17))], [1]),
        ([row(2)], [1]),
        ([row(0, bases=[4, 0, 1])], [1]),
        ([row(1, bases=[4, 0, 1])], [1]),
        ([row(2, bases=[*MANY_BASES, 1, 0, 1])], [1]),
        ([row(2, bases=[4, 0])], [1]),
        ([row(2, bases=[4, 0, 0])], [1]),
        ([row(2, bases=[0, 0, 1])], [1]),
        ([row(2, bases=[4, 2**32 - 1, 2])], [1]),
        ([row(2, bases=[4, 2**32, 1])], [1]),
        ([row(2, bases=[PACK, 0, 1])], [1]),
        ([row(2, bases=[PACK + 1, 0, 1])], [1]),
        ([row(), row(2, bases=[PACK, 1, 1])], [1, 1]),
        ([row(), row(2, bases=[PACK, 0, 2])], [1, 1]),
        ([row(2, bases=[4, 0, True])], [1]),
        ([row()[:4]], [1]),
    ],
)
def test_contradictions_of_a_directory(rows: list[list[Any]], lengths: list[int]) -> None:
    plain, end = body(rows, lengths), HEADER.size + sum(each[1] for each in rows)
    refuses(lambda: directory.decode(plain, PACK, end, "x"))
    agree(plain, PACK, end)


def test_segments_end_where_the_directory_starts() -> None:
    plain = body([row(), row()], [1, 1])
    decode(plain, 348)
    for end in (0, 148, 248, 347, 349, 2**63):
        refuses(lambda e=end: decode(plain, e), "fill")
        agree(plain, PACK, end)


@pytest.mark.parametrize(
    "change",
    [
        {"writer": bytes(15)},
        {"sequence": 2**32},
        {"sequence": -1},
        {"digest": bytes(31)},
        {"ids": bytes(15)},
        {"ids": bytes(17)},
        {"ids": bytes(32)},
        {"ids": "x" * 16},
        {"lengths": b"\1\0"},
        {"lengths": b"\1\0\0\0"},
        {"lengths": b"\1\0\0" * 2},
        {"lengths": ""},
        {"segments": None},
        {"segments": [1]},
        {"segments": [[]]},
    ],
    ids=str,
)
def test_fields_of_other_shapes(change: dict[str, Any]) -> None:
    refuses(lambda: decode(body([row()], [1], **change), 248))
    agree(body([row()], [1], **change), PACK, 248)


def test_growth_at_the_end_only() -> None:
    fields = wire.require_shortest(body([[*row(), "later"]], [1]), "x")
    assert decode(wire.encode([*fields, [b"later"]])).segments[0].size == 100
    for length in range(6):
        refuses(lambda n=length: decode(wire.encode(fields[:n]), 248))
    refuses(lambda: decode(b"\xdc\x00\x06" + body([row()], [1])[1:], 248), "shortest")


def index(
    plain: bytes, *, number: int = 1, offset: int = 248, frame: Frame = Frame.DIRECTORY, pack: int = PACK
) -> bytes:
    sealer = Sealer(pack_name(pack), KEYS, SALT)
    last, trailer = sealer.finish(offset, number, frame, plain)
    return directory.index_object(sealer.header, last, trailer)


PLAIN = body([row()], [1])
INDEX = index(PLAIN)


def open_index(data: bytes) -> directory.PackIndex:
    return directory.open_index(data, pack_name(), KEYS, "index/x")


def test_an_index_opens_and_opens_the_packs_frames() -> None:
    sealer = Sealer(pack_name(), KEYS, SALT)
    frame = bytes(sealer.seal(0, Frame.SEGMENT, b"chunk"))
    plain = body([row(0, len(frame), 1, frame[-16:])], [5])
    last, trailer = sealer.finish(148 + len(frame), 1, Frame.DIRECTORY, plain)
    found = open_index(directory.index_object(sealer.header, last, trailer))
    segment = found.directory.segments[0]
    assert found.opener.open(segment.number, Frame.SEGMENT, frame) == b"chunk"
    assert frame[-16:] == segment.tag
    assert found.trailer.total == 148 + len(frame) + len(last) + 32
    whole = sealer.header + frame + bytes(last) + trailer
    assert open_index(whole[:148] + whole[-32 - found.trailer.length :]).directory.segments == found.directory.segments


def test_every_flipped_bit_of_an_index_is_noticed() -> None:
    open_index(INDEX)
    for at in range(len(INDEX)):
        for bit in range(8):
            with pytest.raises((Corrupt, NewerFormat)):
                open_index(INDEX[:at] + bytes([INDEX[at] ^ 1 << bit]) + INDEX[at + 1 :])


def test_every_truncation_and_extension_of_an_index_is_noticed() -> None:
    for at in range(len(INDEX)):
        refuses(lambda n=at: open_index(INDEX[:n]))
        refuses(lambda n=at: open_index(INDEX[n + 1 :]))
    refuses(lambda: open_index(INDEX + b"\0"))
    refuses(lambda: open_index(INDEX[:148] + b"\0" + INDEX[148:]))
    refuses(lambda: open_index(INDEX + INDEX[-TRAILER.size :]))


def test_an_authentic_index_that_lies() -> None:
    for data in (
        index(PLAIN, number=2),
        index(PLAIN, number=0),
        index(PLAIN, offset=249),
        index(PLAIN, frame=Frame.SEGMENT),
        index(PLAIN, frame=Frame.BODY),
        index(PLAIN, pack=6),
        index(PLAIN, offset=limits.PACK_BYTES),
        index(b"\x90"),
    ):
        refuses(lambda d=data: open_index(d))


def test_an_index_is_of_its_kind() -> None:
    with pytest.raises(Corrupt, match="another object"):
        directory.open_index(INDEX, pack_name(kind=Kind.LIST), KEYS, "x")


def test_a_base_of_the_pack_counts_from_the_packs_own_number() -> None:
    plain = body([row(), row(2, bases=[PACK, 0, 1])], [1, 1])
    decode(plain)
    refuses(lambda: decode(plain, pack=PACK - 1), "behind")
    decode(plain, pack=PACK + 1)


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1))
def test_arbitrary_bytes_never_raise_anything_else(data: bytes, end: int) -> None:
    judged(lambda: directory.decode(data, PACK, end, "x"))
    judged(lambda: open_index(data))
    judged(lambda: open_index(index(data or b"\0")))


def test_changed_bytes_never_raise_anything_else() -> None:
    plain = body([row(1, 100, 2), row(2, 300, 1, bases=[4, 0, 1, PACK, 0, 2])], [5, 6, 7])
    decode(plain, 548)
    for at in range(len(plain)):
        for value in {0x00, 0x80, 0x91, 0xC0, 0xC3, 0xCA, 0xCF, 0xDD, 0xFF, plain[at] ^ 1, plain[at] ^ 0x80}:
            found = judged(lambda a=at, v=value: decode(plain[:a] + bytes([v]) + plain[a + 1 :], 548))
            assert found is None or found.chunks == 3
        assert judged(lambda a=at: decode(plain[:a], 548)) is None
        assert judged(lambda a=at: decode(plain[:a] + plain[a + 1 :], 548)) is None
