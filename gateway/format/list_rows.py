"""A file list as rows of what a plan needs: kind, size, runs, and where its path and its link stand.

There are two implementations: the C kernel `gateway.format._list_rows` and the twin here, which is
`filelist.decode_parts`. The kernel accepts only what is as the gateway itself writes it; a part in which it finds
anything else is read by the twin, which accepts or refuses it as every other reader of lists does.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.errors import Corrupt
from gateway.format import filelist, kernels
from gateway.format.filelist import Item

ROW = np.dtype([
    ("path", np.uint64), ("link", np.uint64), ("size", np.uint64), ("runs", np.uint64), ("path_bytes", np.uint32),
    ("link_bytes", np.uint32), ("kind", np.uint64),
])  # fmt: skip
"""`path`, `link`: where they begin in `Rows.text`. `runs`: how many there are up to and with this row."""


_kernel = kernels.load("_list_rows")


@dataclass(frozen=True, slots=True)
class Rows:
    """Some consecutive entries of a list. `runs`: pack, first, count of all of them, one row each."""

    entries: NDArray[np.void]
    runs: NDArray[np.int64]
    text: bytes

    @property
    def run_counts(self) -> NDArray[np.int64]:
        ends = self.entries["runs"].astype(np.int64)
        counts = ends.copy()
        counts[1:] -= ends[:-1]
        return counts

    def paths(self) -> Iterator[bytes]:
        text = self.text
        for at, size in zip(self.entries["path"].tolist(), self.entries["path_bytes"].tolist(), strict=True):
            yield text[at : at + size]

    def path(self, row: int) -> bytes:
        at = int(self.entries["path"][row])
        return self.text[at : at + int(self.entries["path_bytes"][row])]

    def link(self, row: int) -> bytes:
        at = int(self.entries["link"][row])
        return self.text[at : at + int(self.entries["link_bytes"][row])]


_Scanned = tuple[Rows, int, bytes, bool]
"""Rows, how many bytes of the part they are, the last path, and whether it was left out."""


def read_rows(parts: Iterable[bytes], address: str) -> Iterator[Rows]:
    """The entries of a list, checked as `filelist.decode_parts` does. What was left out has no row."""
    before, left, rest = b"", False, b""
    for part in parts:
        filelist.check_part(part, address)
        data = rest + part
        rows, done, before, left = _scan(data, before, left, address)
        rest = data[done:]
        yield rows
    if rest:
        raise Corrupt("file list ends within a file", address=address)


def _scan(data: bytes, before: bytes, left: bool, address: str) -> _Scanned:
    found = _kernel.scan(data, before, left) if _kernel is not None else None
    if found is None:
        return _scan_slowly(data, before, left, address)
    rows, runs, done, before, left = found
    return Rows(np.frombuffer(rows, ROW), _as_runs(runs), data), done, before, left


def _as_runs(data: bytes | array[int]) -> NDArray[np.int64]:
    return np.frombuffer(data, np.int64).reshape(-1, 3)


def _scan_slowly(data: bytes, before: bytes, left: bool, address: str) -> _Scanned:
    done = filelist.end_of_items(data, address)
    rows, runs, text = [], array("Q"), bytearray()
    for item in filelist.decode_parts((data[:done],), address, behind=(before, left)):
        if not isinstance(item, Item):
            before, left = item.path, True
            continue
        entry = item.entry
        before, left = entry.path, False
        runs.extend(item.flat)
        at = len(text)
        text += entry.path + entry.hardlink
        rows.append((
            at, at + len(entry.path), entry.size, len(runs) // 3, len(entry.path), len(entry.hardlink), entry.kind,
        ))  # fmt: skip
    return Rows(np.array(rows, ROW), _as_runs(runs), bytes(text)), done, before, left
