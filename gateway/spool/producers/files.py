"""Plain files: every file is for itself, complete by its structure or by nothing but quiet.

There are no jobs: a source of this kind is taken as one complete picture, and a file that is not whole holds back
only itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.spool.looks import Looked
from gateway.spool.producers.base import (
    FoundJob,
    JudgedFile,
    JudgedJob,
    LogFile,
    Seal,
    Span,
    SpoolView,
    judge_alone,
)


class FilesProducer:
    name = "files"

    def find(self, view: SpoolView) -> Iterator[FoundJob]:  # noqa: ARG002 (the interface's shape)
        return iter(())

    def judge_file(self, view: SpoolView, looked: Looked) -> JudgedFile:
        return judge_alone(view, looked)

    def judge(self, view: SpoolView, found: FoundJob, seal: Seal | None = None) -> JudgedJob:  # noqa: ARG002
        raise ValueError(f"plain files are no jobs: {found.name!r}")

    def restore_kit(self, judged: JudgedJob) -> str:  # noqa: ARG002
        return ""

    def may_hold(self, file: LogFile, wanted: Span) -> bool:  # noqa: ARG002
        return False

    def log_held(self, view: SpoolView, files: Iterable[LogFile], wanted: Span) -> Iterator[tuple[int, int]]:  # noqa: ARG002
        return iter(())
