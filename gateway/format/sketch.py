"""Sketches: a hash of a short window of every chunk, which a similar chunk most likely has, too.

The window is the last 64 bytes of a chunk: those that made the chunker cut there. A change elsewhere in the chunk
leaves it, an insertion moves it, and after either the chunker cuts at the same content again. So two chunks that ended
at the same content are most likely versions of each other, however many bytes differ before it.

Nothing of it is stored in a repository: sketches may change with any version.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from blake3 import blake3
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from gateway.format.chunker import WINDOW_BYTES

FEATURE = 16
INFO = b"gateway/sketch-1"


class Sketcher:
    """Makes features with one key. Immutable; any number of threads may share one."""

    def __init__(self, key: bytes) -> None:
        self._key = HKDFExpand(algorithm=SHA256(), length=32, info=INFO).derive(key)

    def features(self, data: bytes | bytearray | memoryview, ends: Sequence[int]) -> bytes:
        """`FEATURE` bytes for each chunk. `data`: the chunks joined, `ends`: where each ends. Of a chunk shorter
        than a window, all counts.
        """
        view, key = memoryview(data), self._key
        return b"".join(
            blake3(view[max(start, end - WINDOW_BYTES) : end], key=key).digest(FEATURE)
            for start, end in pairwise((0, *ends))
        )
