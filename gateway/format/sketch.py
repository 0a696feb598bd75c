"""Sketches: a hash of a short window of every chunk, which a similar chunk most likely has, too.

The window is the last 64 bytes of a chunk: those that made the chunker cut there. A change elsewhere in the chunk
leaves it, an insertion moves it, and after either the chunker cuts at the same content again. So two chunks that ended
at the same content are most likely versions of each other, however many bytes differ before it.

Nothing of it is stored in a repository: sketches may change with any version.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from numpy.typing import NDArray

from gateway.format.chunker import WINDOW_BYTES

FEATURE = 16
WORDS = WINDOW_BYTES // 8
INFO = b"gateway/sketch-1"

U64 = NDArray[np.uint64]


class Sketcher:
    """Makes features with one key. Immutable; any number of threads may share one."""

    def __init__(self, key: bytes) -> None:
        made = HKDFExpand(algorithm=SHA256(), length=8 * 2 * (WORDS + 1), info=INFO).derive(key)
        numbers = np.frombuffer(made, "<u8").astype(np.uint64).reshape(2, WORDS + 1) | np.uint64(1)
        self._keys: list[tuple[U64, np.uint64]] = [(row[:WORDS], row[WORDS]) for row in numbers]

    def features(self, data: bytes | bytearray | memoryview, ends: Sequence[int], ids: bytes) -> bytes:
        """`FEATURE` bytes for each chunk. `data`: the chunks joined, `ends`: where each ends, `ids`: their ids;
        of these one stands for a chunk that is shorter than a window.
        """
        out = np.frombuffer(ids, np.uint64).reshape(-1, 2).copy()
        last = np.array(ends, np.int64)
        long = np.flatnonzero(np.diff(last, prepend=0) >= WINDOW_BYTES)
        if len(long):
            array = np.frombuffer(data, np.uint8)
            windows = np.lib.stride_tricks.sliding_window_view(array, WINDOW_BYTES)[last[long] - WINDOW_BYTES]
            words = np.ascontiguousarray(windows).view("<u8").astype(np.uint64, copy=False)
            for column, (keys, final) in enumerate(self._keys):
                product = words * keys  # modulo 2^64
                total: U64 = (product ^ (product >> np.uint64(32))).sum(axis=1, dtype=np.uint64)
                total = (total ^ (total >> np.uint64(29))) * final
                out[long, column] = total ^ (total >> np.uint64(32))
        return out.tobytes()
