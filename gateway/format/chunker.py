"""Cuts streams into chunks where content and a key say: `wide-64` of ``docs/format/chunker.md``.

There are two implementations with the same cuts, bit for bit: the C kernel `gateway.format._wide64` (5 GB/s a
core where there is AVX2, 2.7 without) and, where it was not compiled, the numpy twin
`gateway.format.chunker_numpy` (0.6 GB/s). A cut that moved would silently store everything a second time, so
golden files pin both.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from gateway.format import kernels

INFO = b"gateway/v1/wide-64"
PARAMETER_BYTES = 40
WINDOW_BYTES = 64
LEAST_AVERAGE_BYTES = 1 << 12
GREATEST_AVERAGE_BYTES = 1 << 16
LEAST_GOLDEN_AVERAGE_BYTES = 1 << 8

Bytes = bytes | bytearray | memoryview


_kernel = kernels.load("_wide64")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkerParameters:
    """Sizes of chunks in bytes, as a chain's header has them.

    Anything but a power of two with its quarter and its fourfold is a `ValueError`. Averages below
    `LEAST_AVERAGE_BYTES` exist for goldens only: `storable` is False and a header must not have them.
    """

    minimum: int
    average: int
    maximum: int

    def __post_init__(self) -> None:
        average = self.average
        if not LEAST_GOLDEN_AVERAGE_BYTES <= average <= GREATEST_AVERAGE_BYTES or average & (average - 1):
            raise ValueError(f"average chunk size {average} is not a power of two from 256 to 65536")
        if self.minimum != average // 4 or self.maximum != average * 4:
            raise ValueError(
                f"chunk sizes {self.minimum}, {average}, {self.maximum}: the minimum must be a quarter "
                "of the average and the maximum four times it"
            )

    @classmethod
    def of_average(cls, average: int) -> ChunkerParameters:
        return cls(minimum=average // 4, average=average, maximum=average * 4)

    @property
    def storable(self) -> bool:
        return self.average >= LEAST_AVERAGE_BYTES


class Chunker:
    """Cuts for one chunk key and one set of sizes.

    Immutable; any number of threads may share one. The kernel works without the GIL, the twin mostly so.
    """

    __slots__ = ("_derived", "parameters")

    def __init__(self, key: bytes, parameters: ChunkerParameters) -> None:
        self.parameters = parameters
        # SECURITY: derived from the key as secret as the key itself; it has no place in a message or a repr.
        self._derived = HKDFExpand(algorithm=SHA256(), length=PARAMETER_BYTES, info=INFO).derive(key)

    def cut(self, buffer: Bytes, start: int, length: int, final: bool) -> list[int]:
        """Ends of the chunks of ``buffer[start:start + length]``, counted from `start`, rising.

        A chunk begins at `start`. With `final` the stream ends with the range and the last end is `length`
        (no end at all for an empty range). Without, only cuts that no later byte can move are told: the
        caller carries what lies behind the last one (under `maximum` bytes) to the front of its next range.

        The buffer is read in place and must not be written to meanwhile. `ValueError`: the range leaves it.
        """
        sizes = self.parameters
        if _kernel is not None:
            ends: list[int] = _kernel.cut(
                self._derived, sizes.minimum, sizes.average, sizes.maximum, buffer, start, length, final
            )
            return ends
        # Imported here because the twin needs numpy, which takes longer to load than the rest of the gateway.
        from gateway.format.chunker_numpy import cut_numpy

        return cut_numpy(self._derived, sizes.minimum, sizes.average, sizes.maximum, buffer, start, length, final)


def implementation() -> str:
    """What cuts in this process, for ``gateway version``: ``C kernel (avx2)``, ``numpy twin``."""
    return "numpy twin" if _kernel is None else f"C kernel ({_kernel.isa()})"
