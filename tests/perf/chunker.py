"""How fast streams are cut: ``python -m tests.perf.chunker [MiB]`` (256 without an argument).

Prints MB (10^6 bytes) per second of processor time, the best of three passes, for random data and database-like
pages: "streamed" takes 1 MiB buffers one after the other out of memory that is larger than the caches, "cached" the
same 512 KiB again and again. Both read a range as the writer does, without its tail. A copy of the same buffers is
the peer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from gateway.format import chunker
from gateway.format.chunker import Chunker, ChunkerParameters
from tests.golden.test_chunker_golden import pages, shake

MIB = 1 << 20
Pass = Callable[[int, int], object]


def best(run: Callable[[], int]) -> float:
    """MB per second of processor time; `run` tells how many bytes it did."""
    result = 0.0
    for _ in range(3):
        started = time.process_time()
        done = run()
        result = max(result, done / 1e6 / (time.process_time() - started))
    return result


def measure(one: Pass, size: int) -> tuple[float, float]:
    def streamed() -> int:
        for at in range(0, size, MIB):
            one(at, MIB)
        return size

    def cached() -> int:
        for _ in range(size // MIB):
            one(0, MIB // 2)
        return size // 2

    return best(streamed), best(cached)


def main() -> None:
    size = int(sys.argv[1]) * MIB if len(sys.argv) > 1 else 256 * MIB
    chunks = Chunker(bytes(range(32)), ChunkerParameters.of_average(16384))
    target = bytearray(MIB)
    kernel = chunker._kernel
    print(f"{'data':8}{'what':26}{'streamed':>10}{'cached':>10}  MB/s")
    for name, data in (("random", bytearray(shake(size))), ("pages", bytearray(pages(8 * MIB) * (size // (8 * MIB))))):
        view = memoryview(data)

        def copy(at: int, length: int, view: memoryview = view) -> None:
            target[:length] = view[at : at + length]

        def cut(at: int, length: int, view: memoryview = view) -> list[int]:
            return chunks.cut(view, at, length, False)

        print(f"{name:8}{'copy':26}" + "".join(f"{each:10.0f}" for each in measure(copy, len(view))))
        if kernel is not None:
            fastest = kernel.isa()
            for isa in ("plain", "avx2", "avx512bw"):
                if kernel.use(isa):
                    speeds = measure(cut, len(view))
                    print(f"{name:8}{chunker.implementation():26}" + "".join(f"{each:10.0f}" for each in speeds))
            kernel.use(fastest)
        chunker._kernel = None
        speeds = measure(cut, min(len(view), 32 * MIB))
        print(f"{name:8}{chunker.implementation():26}" + "".join(f"{each:10.0f}" for each in speeds))
        chunker._kernel = kernel


if __name__ == "__main__":
    main()
