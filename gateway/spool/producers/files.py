"""Plain files: every file is for itself, complete by its structure or by nothing but quiet.

There are no jobs: a source of this kind is taken as one complete picture, and a file that is not whole holds back
only itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.spool.producers.base import (
    FoundJob,
    JudgedJob,
    LogFile,
    Seal,
    Span,
    SpoolView,
)
from gateway.spool.trailers import Read, Structure, inspect


class FilesProducer:
    name = "files"

    def find(self, view: SpoolView) -> Iterator[FoundJob]:  # noqa: ARG002 (the interface's shape)
        return iter(())

    def inspect(self, path: bytes, size: int, read: Read) -> Structure:
        """By the formats that are known by their content: archives, compressed streams, dumps."""
        return inspect(path.rpartition(b"/")[2], size, read)

    def judge(self, view: SpoolView, found: FoundJob, seal: Seal | None = None) -> JudgedJob:  # noqa: ARG002
        raise ValueError(f"plain files are no jobs: {found.name!r}")

    def restore_kit(self, judged: JudgedJob) -> str:  # noqa: ARG002
        return ""

    def may_hold(self, file: LogFile, wanted: Span) -> bool:  # noqa: ARG002
        return False

    def log_held(self, view: SpoolView, files: Iterable[LogFile], wanted: Span) -> Iterator[tuple[int, int]]:  # noqa: ARG002
        return iter(())
