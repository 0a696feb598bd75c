"""The kernel, its numpy twin and the reference from the specification cut the same."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.format import _wide64, chunker
from gateway.format.chunker import Chunker, ChunkerParameters
from gateway.format.chunker_numpy import BLOCK, cut_numpy
from tests.reference.wide64 import Wide64, derive

Cut = Callable[[bytes, int, int, int, bytes, int, int, bool], list[int]]


BEST = _wide64.isa()
# What this processor and compiler have; the last one tried is the best again.
VARIANTS = [isa for isa in ("plain", "avx2", "avx512bw", BEST) if _wide64.use(isa)][:-1]


@pytest.fixture(scope="module", autouse=True)
def best_variant_after() -> Iterator[None]:
    yield
    _wide64.use(BEST)


def kernel(isa: str) -> Cut:
    def cut(*arguments: object) -> list[int]:
        assert _wide64.use(isa)
        return _wide64.cut(*arguments)  # type: ignore[arg-type]

    return cut


CUTS: dict[str, Cut] = {isa: kernel(isa) for isa in VARIANTS} | {"numpy": cut_numpy}


def everyone(p: bytes, average: int, data: bytes, start: int, length: int, final: bool) -> list[int]:
    """The cuts, on which all implementations must agree."""
    found = {name: cut(p, average // 4, average, average * 4, data, start, length, final) for name, cut in CUTS.items()}
    first = found["numpy"]
    assert all(each == first for each in found.values()), {k: v[:5] for k, v in found.items()}
    return first


def random_bytes(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def few_values(seed: int, size: int) -> bytes:
    source = random.Random(seed)
    alphabet = source.randbytes(source.randint(1, 4))
    return bytes(source.choices(alphabet, k=size))


def periodic(seed: int, size: int) -> bytes:
    source = random.Random(seed)
    unit = source.randbytes(source.choice([1, 2, 3, 4, 5, 7, 8, 16, 24, 63, 64, 65, 100, 300]))
    return (unit * (size // len(unit) + 1))[:size]


PARAMETERS = st.binary(min_size=40, max_size=40)
AVERAGES = st.sampled_from([1 << n for n in range(8, 17)])


@st.composite
def streams(draw: st.DrawFn, greatest: int) -> bytes:
    pieces = []
    left = draw(st.integers(0, greatest))
    while left > 0:
        size = draw(st.integers(1, left))
        make = draw(st.sampled_from([random_bytes, few_values, periodic]))
        pieces.append(make(draw(st.integers(0, 1 << 32)), size))
        left -= size
    return b"".join(pieces)


def test_the_reference_derives_as_the_chunker_does() -> None:
    key = bytes(range(32))
    assert Chunker(key, ChunkerParameters.of_average(16384))._derived == derive(key)


@given(p=PARAMETERS, average=st.sampled_from([256, 512, 1024, 4096]), data=streams(12_000))
@settings(max_examples=150, deadline=None)
def test_all_cut_as_the_specification_says(p: bytes, average: int, data: bytes) -> None:
    reference = Wide64(p)
    sizes = (average // 4, average, average * 4)
    assert everyone(p, average, data, 0, len(data), True) == reference.cut(*sizes, data)
    assert everyone(p, average, data, 0, len(data), False) == reference.certain(*sizes, data)


@given(p=PARAMETERS, average=AVERAGES, data=streams(3 * BLOCK))
@settings(max_examples=50, deadline=None)
def test_all_agree_on_streams_of_several_blocks(p: bytes, average: int, data: bytes) -> None:
    ends = everyone(p, average, data, 0, len(data), True)
    assert [0, *ends][-1] == len(data)
    sizes = [b - a for a, b in zip([0, *ends], ends, strict=False)]
    assert all(average // 4 <= size <= average * 4 for size in sizes[:-1])
    assert all(0 < size <= average * 4 for size in sizes[-1:])
    certain = everyone(p, average, data, 0, len(data), False)
    assert certain == ends[: len(certain)]
    assert len(data) - [0, *certain][-1] < average * 4


@given(
    p=PARAMETERS,
    average=st.sampled_from([256, 1024, 4096, 16384]),
    data=streams(200_000),
    seed=st.integers(0, 1 << 32),
)
@settings(max_examples=60, deadline=None)
def test_pieces_of_a_stream_give_the_cuts_of_the_stream(p: bytes, average: int, data: bytes, seed: int) -> None:
    source = random.Random(seed)
    whole = everyone(p, average, data, 0, len(data), True)
    ends: list[int] = []
    fed = start = 0
    while fed < len(data):
        fed = min(len(data), fed + source.choice([1, 63, 64, 65, 1000, 5000, 70_000]))
        final = fed == len(data) and source.random() < 0.5
        ends += [start + end for end in everyone(p, average, data[:fed], start, fed - start, final)]
        start = [0, *ends][-1]
    ends += [start + end for end in everyone(p, average, data, start, len(data) - start, True)]
    assert ends == whole


@given(p=PARAMETERS, average=st.sampled_from([256, 4096]), data=streams(30_000), around=streams(3000))
@settings(max_examples=60, deadline=None)
def test_only_the_range_decides(p: bytes, average: int, data: bytes, around: bytes) -> None:
    alone = everyone(p, average, data, 0, len(data), True)
    assert everyone(p, average, around + data + around, len(around), len(data), True) == alone


@given(p=PARAMETERS, a=st.integers(0, 255), b=st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_runs_of_period_one_and_two_never_pass_stage_1(p: bytes, a: int, b: int) -> None:
    # Stage 2 lets everything pass when the average is this small.
    assert everyone(p, 256, bytes([a, b]) * 1100, 0, 2200, True) == [1024, 2048, 2200]
    assert not any(Wide64(p).stage1(bytes([a, b]) * 50))


@pytest.mark.parametrize("average", [256, 4096, 8192])
def test_a_run_that_passes_stage_1_all_the_time(average: int) -> None:
    """Of period three, with a phase that passes: a third of all positions goes to stage 2."""
    source = random.Random(average)
    p = source.randbytes(40)
    reference = Wide64(p)
    unit = source.randbytes(3)
    while not any(reference.stage1(unit * 22)):
        unit = source.randbytes(3)
    data = unit * 10_000
    assert sum(reference.stage1(data)) > 9_900
    expected = reference.cut(average // 4, average, average * 4, data)
    assert everyone(p, average, data, 0, len(data), True) == expected


@pytest.mark.parametrize("average", [4096, 16384])
def test_chunks_of_random_data_are_a_little_larger_than_the_average(average: int) -> None:
    data = random_bytes(average, 8 << 20)
    ends = Chunker(b"k" * 32, ChunkerParameters.of_average(average)).cut(data, 0, len(data), True)
    assert 1.0 < len(data) / len(ends) / average < 1.5
    forced = sum(b - a == 4 * average for a, b in zip([0, *ends], ends, strict=False))
    assert forced / len(ends) < 0.02


def test_an_insertion_moves_only_the_cuts_near_it() -> None:
    chunks = Chunker(b"k" * 32, ChunkerParameters.of_average(4096))
    data = random_bytes(1, 1 << 20)
    changed = data[:300_000] + b"seven b" + data[300_000:]
    before = set(chunks.cut(data, 0, len(data), True))
    after = {end - 7 for end in chunks.cut(changed, 0, len(changed), True)}
    assert {end for end in before - after if end > 340_000} == set()
    assert {end for end in before if end < 290_000} <= {end + 7 for end in after}


def test_another_key_cuts_elsewhere() -> None:
    data = random_bytes(2, 1 << 20)
    sizes = ChunkerParameters.of_average(4096)
    one, two = (set(Chunker(key * 32, sizes).cut(data, 0, len(data), True)) for key in (b"1", b"2"))
    assert one & two == {len(data)}


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))[:]])
@pytest.mark.parametrize("use_kernel", [True, False])
def test_any_buffer_will_do(make: Callable[[bytes], bytes], use_kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not use_kernel:
        monkeypatch.setattr(chunker, "_kernel", None)
    chunks = Chunker(b"k" * 32, ChunkerParameters.of_average(256))
    data = random_bytes(3, 5000)
    ends = chunks.cut(make(data), 10, 4000, True)
    assert ends == chunks.cut(data[10:4010], 0, 4000, True)
    assert ends[-1] == 4000
    assert chunks.cut(make(data), 5000, 0, True) == []
    assert chunks.cut(make(data), 0, 64, True) == [64]
    for start, length in [(-1, 10), (0, -1), (0, 5001), (5001, 0), (1, 5000), (1 << 62, 1 << 62)]:
        with pytest.raises(ValueError, match="leave the buffer"):
            chunks.cut(make(data), start, length, True)


@pytest.mark.parametrize(
    "sizes",
    [(64, 256, 1025), (63, 256, 1024), (32, 128, 512), (75, 300, 1200), (1 << 15, 1 << 17, 1 << 19), (0, 0, 0)],
)
def test_sizes_that_cannot_be(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="chunk size"):
        ChunkerParameters(minimum=sizes[0], average=sizes[1], maximum=sizes[2])


def test_the_kernel_refuses_what_would_leave_the_buffer() -> None:
    data, p = bytes(1000), bytes(40)
    for minimum, average, maximum in [(63, 256, 1024), (64, 128, 512), (300, 256, 1024), (64, 256, 255)]:
        with pytest.raises(ValueError, match="64 <= minimum"):
            _wide64.cut(p, minimum, average, maximum, data, 0, 1000, True)
    with pytest.raises(ValueError, match="40 bytes"):
        _wide64.cut(p[1:], 64, 256, 1024, data, 0, 1000, True)


def test_only_averages_of_the_format_may_be_stored() -> None:
    assert [n for n in range(8, 17) if ChunkerParameters.of_average(1 << n).storable] == list(range(12, 17))


def test_threads_may_share_a_chunker() -> None:
    chunks = Chunker(b"k" * 32, ChunkerParameters.of_average(4096))
    streams = [random_bytes(seed, 1 << 20) for seed in range(4)]
    alone = [chunks.cut(data, 0, len(data), True) for data in streams]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda data: chunks.cut(data, 0, len(data), True), streams)) == alone


@pytest.mark.parametrize(("switch", "said"), [("1", "numpy twin"), ("", "C kernel (")])
def test_the_environment_chooses_and_the_kernel_needs_no_numpy(switch: str, said: str) -> None:
    program = (
        "import sys; from gateway.format.chunker import *; "
        "Chunker(b'k' * 32, ChunkerParameters.of_average(4096)).cut(bytes(100), 0, 100, True); "
        "print(implementation(), 'numpy' in sys.modules)"
    )
    environment = os.environ | {"GATEWAY_NO_KERNEL": switch}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert answer.startswith(said)
    assert answer.endswith(f" {switch == '1'}\n")
