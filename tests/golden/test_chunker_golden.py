"""Cut points that never change: a writer that cuts elsewhere stores everything a second time.

A file in ``chunker/`` names key, sizes and data; the data is made here. Run as a program, this module writes the
files of cases that have none, by the reference in `tests.reference`, and leaves the others alone:
``python -m tests.golden.test_chunker_golden``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.format import _wide64, chunker
from gateway.format.chunker import Chunker, ChunkerParameters
from tests.reference.wide64 import Wide64, derive

FOLDER = Path(__file__).with_name("chunker")
KIB = 1024


def shake(size: int) -> bytes:
    return hashlib.shake_256(b"gateway chunker golden").digest(size)


def shifted(size: int) -> bytes:
    """The same with a byte put in after the first 100,000, and one taken out after 200,000."""
    data = shake(size)
    return (data[:100_000] + b"+" + data[100_000:200_000] + data[200_001:])[:size]


def zeros(size: int) -> bytes:
    return bytes(size)


def pages(size: int) -> bytes:
    """Pages of 8 KiB as a database has them: header, pointers, a gap, rows with much in common, growing down."""
    result = bytearray()
    number = row = 0
    while len(result) < size:
        page = bytearray(8192)
        page[0:8] = (number * 8192 + 24).to_bytes(8, "big")
        rows = 40 + number % 31
        top = 8192
        for slot in range(rows):
            text = b"%010d|account of branch %05d|%s|" % (row, row % 977, b"x" * (row * row % 47))
            top -= len(text)
            page[top : top + len(text)] = text
            page[24 + 4 * slot : 28 + 4 * slot] = top.to_bytes(2, "little") + len(text).to_bytes(2, "little")
            row += 1
        page[12:16] = (24 + 4 * rows).to_bytes(2, "little") + top.to_bytes(2, "little")
        result += page
        number += 1
    return bytes(result[:size])


def squares(size: int) -> bytes:
    """Lines of text."""
    lines = b"".join(b"%d squared is %d\n" % (n, n * n) for n in range(size // 12))
    return lines[:size]


MAKERS: dict[str, Callable[[int], bytes]] = {each.__name__: each for each in (shake, shifted, zeros, pages, squares)}

KEY_A = bytes(range(32))
KEY_B = hashlib.sha256(b"another chain").digest()

# name: key, average, maker, size
CASES: dict[str, tuple[bytes, int, str, int]] = {
    "shake-4k": (KEY_A, 4096, "shake", 256 * KIB + 17),
    "shake-16k": (KEY_A, 16384, "shake", 1024 * KIB),
    "shake-64k": (KEY_A, 65536, "shake", 2048 * KIB),
    "shake-256": (KEY_A, 256, "shake", 64 * KIB),
    "shake-1k-other-key": (KEY_B, 1024, "shake", 128 * KIB + 1),
    "shake-16k-other-key": (KEY_B, 16384, "shake", 1024 * KIB),
    "shifted-16k": (KEY_A, 16384, "shifted", 1024 * KIB),
    "zeros-4k": (KEY_A, 4096, "zeros", 100_000),
    "zeros-16k": (KEY_A, 16384, "zeros", 65536 * 3 + 4096),
    "pages-8k": (KEY_A, 8192, "pages", 512 * KIB),
    "pages-16k": (KEY_A, 16384, "pages", 2048 * KIB),
    "pages-16k-other-key": (KEY_B, 16384, "pages", 1024 * KIB),
    "squares-4k": (KEY_A, 4096, "squares", 300_000),
    "squares-512": (KEY_B, 512, "squares", 60_000),
}


BEST = _wide64.isa()
# What this processor and compiler have; the last one tried is the best again.
VARIANTS = [isa for isa in ("plain", "avx2", "avx512bw", BEST) if _wide64.use(isa)][:-1]


@pytest.fixture(params=[*VARIANTS, "numpy"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "numpy":
        monkeypatch.setattr(chunker, "_kernel", None)
    else:
        monkeypatch.setattr(chunker, "_kernel", _wide64)
        assert _wide64.use(request.param)
    yield
    _wide64.use(BEST)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_cuts_are_where_they_were(path: Path) -> None:
    golden = json.loads(path.read_bytes())
    data = MAKERS[golden["data"]](golden["length"])
    assert hashlib.sha256(data).hexdigest() == golden["sha256"], "the maker of the data was changed"
    chunks = Chunker(bytes.fromhex(golden["key"]), ChunkerParameters.of_average(golden["average"]))
    assert chunks._derived.hex() == golden["parameters"]
    assert chunks.cut(data, 0, len(data), True) == golden["ends"]


@pytest.mark.parametrize("name", CASES)
def test_every_case_has_its_file(name: str) -> None:
    key, average, maker, length = CASES[name]
    golden = json.loads((FOLDER / f"{name}.json").read_bytes())
    assert [golden[field] for field in ("key", "average", "data", "length")] == [key.hex(), average, maker, length]


def write_new() -> None:
    for name, (key, average, maker, length) in CASES.items():
        path = FOLDER / f"{name}.json"
        if path.exists():
            continue
        data = MAKERS[maker](length)
        golden = {
            "key": key.hex(),
            "parameters": derive(key).hex(),
            "average": average,
            "data": maker,
            "length": length,
            "sha256": hashlib.sha256(data).hexdigest(),
            "ends": Wide64(derive(key)).cut(average // 4, average, average * 4, data),
        }
        lines = ",\n".join(f'"{field}": {json.dumps(value)}' for field, value in golden.items())
        path.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    write_new()
