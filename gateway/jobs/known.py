"""What a pass learnt of the files it read, until its generation is committed."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from gateway import durable
from gateway.catalog import KnownFile
from gateway.model.entry import Identity


class KnownSpill:
    """What was learnt of files, kept out of memory until the generation is committed."""

    _ROW = struct.Struct("<IQQQqqqqB")

    def __init__(self, scratch: durable.ScratchFile) -> None:
        self._scratch = scratch

    def add(self, known: KnownFile) -> None:
        one = known.identity
        self._scratch.append(
            self._ROW.pack(len(known.key), one.device, one.inode, one.size, one.mtime_ns, one.ctime_ns,
                           known.read_started_ns, known.held_ns, known.evidence) + known.key
        )  # fmt: skip

    def files(self) -> Iterator[KnownFile]:
        self._scratch.seek(0)
        while head := self._scratch.read(self._ROW.size):
            length, device, inode, size, mtime, ctime, started, held, evidence = self._ROW.unpack(head)
            yield KnownFile(key=self._scratch.read(length), identity=Identity(device, inode, size, mtime, ctime),
                            read_started_ns=started, evidence=evidence, held_ns=held)  # fmt: skip

    def close(self) -> None:
        self._scratch.close()
