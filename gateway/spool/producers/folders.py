"""Job folders: each directory directly below the source is one backup job.

It is whole when a marker says so, a file whose name fits a pattern, or a seal that matches. Without either it stays
open, however long it is quiet; whether quiet is enough after all is the source's policy, not ours. A folder with a
temporary name (`run-7.tmp`) is open until it is renamed.

A marker speaks of what was there when it was written: a member that changed *after* it, by ctime, which no copy tool
sets back, means that the folder is used again or that the marker was copied too early, and the job is open until
there is a newer one. That holds back a job whose files are renamed or given away after its marker, and says so.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator

from gateway.model.entry import EntryType, Evidence, LeftOut
from gateway.policy.naming import is_temporary
from gateway.spool.looks import Looked, Verdict
from gateway.spool.pin import NotPinned
from gateway.spool.producers.base import (
    FoundJob,
    JobState,
    JudgedJob,
    LogFile,
    Member,
    Reasons,
    Role,
    Seal,
    Span,
    SpoolView,
    match_seal,
    member_of,
)
from gateway.spool.trailers import Read, State, Structure, inspect

TEMPORARY_FOLDER = "Its name is that of a folder that is renamed when it is whole."


class FoldersProducer:
    """`marker`: a shell pattern for a name directly in the folder (``*.done``), or with ``{folder}`` in it, for a name
    beside the folder (``{folder}.done``); empty: only a seal completes a job. `look_inside`: a member whose structure
    is torn makes the job incomplete in spite of its marker; costs a bounded read a file."""

    name = "folders"

    def __init__(self, marker: str = "", *, look_inside: bool = True) -> None:
        if "/" in marker:
            raise ValueError("a marker is a name, not a path")
        self._marker = marker
        self._look_inside = look_inside

    def find(self, view: SpoolView) -> Iterator[FoundJob]:
        for seen in view.list(b""):
            if isinstance(seen, Looked) and seen.entry.type is EntryType.DIRECTORY:
                folder = seen.entry.path
                beside = tuple(sorted(member.entry.path for member in self._beside(view, folder)))
                yield FoundJob(producer=self.name, name=folder, folders=(folder,), paths=beside)

    def inspect(self, path: bytes, size: int, read: Read) -> Structure:  # noqa: ARG002
        return Structure(state=State.UNKNOWN)  # no format of its own

    def judge(self, view: SpoolView, found: FoundJob, seal: Seal | None = None) -> JudgedJob:
        reasons, members, markers = Reasons(), list[Member](), list[Member]()
        if seal is None and is_temporary(found.name):
            reasons.wait(found.name, TEMPORARY_FOLDER)
        for looked in self._beside(view, found.name):
            markers.append(member_of(looked, Role.MARKER))
            self._wait_for_growing(looked, reasons)
        files: list[Looked] = []
        for seen in view.walk(found.name):
            if isinstance(seen, LeftOut):
                reasons.left_out(seen)
                continue
            self._wait_for_growing(seen, reasons)
            if self._is_marker_inside(found.name, seen):
                markers.append(member_of(seen, Role.MARKER))
            else:
                members.append(member_of(seen))
                if seen.entry.type is EntryType.FILE:
                    files.append(seen)
        evidence = Evidence.SEAL
        if seal is not None:
            evidence = match_seal(view, seal, tuple(_files_only(members, files)), reasons)
        elif not files and not reasons:
            reasons.wait(found.name, "The folder holds no file yet.")
        elif not markers:
            what = f"no marker {self._marker!r}" if self._marker else "no seal"
            reasons.wait(found.name, f"There is {what} yet.")
        else:
            evidence = Evidence.MARKER
            newest = max(marker.identity.ctime_ns for marker in markers)
            for looked in files:
                if looked.entry.identity.ctime_ns > newest:
                    reasons.wait(looked.entry.path, "It changed after the marker was written.")
        if not reasons and self._look_inside:
            evidence = min(evidence, _structures(view, files, reasons))
        everything = (*members, *markers)
        if reasons:
            return JudgedJob(found=found, state=reasons.state, members=everything, reasons=reasons.all())
        return JudgedJob(found=found, state=JobState.COMPLETE, evidence=evidence, members=everything)

    def restore_kit(self, judged: JudgedJob) -> str:  # noqa: ARG002 (the interface's shape)
        return ""

    def may_hold(self, file: LogFile, wanted: Span) -> bool:  # noqa: ARG002
        return False

    def log_held(self, view: SpoolView, files: Iterable[LogFile], wanted: Span) -> Iterator[tuple[int, int]]:  # noqa: ARG002
        return iter(())

    def _beside(self, view: SpoolView, folder: bytes) -> list[Looked]:
        if "{folder}" not in self._marker:
            return []
        before, _, after = (part.encode() for part in self._marker.partition("{folder}"))
        return [
            seen
            for seen in view.list(b"")
            if isinstance(seen, Looked)
            and seen.entry.type is EntryType.FILE
            and fnmatch.fnmatchcase(seen.entry.path, before + _literal(folder) + after)
        ]

    def _is_marker_inside(self, folder: bytes, seen: Looked) -> bool:
        directory, _, name = seen.entry.path.rpartition(b"/")
        return bool(
            self._marker
            and "{folder}" not in self._marker
            and directory == folder
            and seen.entry.type is EntryType.FILE
            and fnmatch.fnmatchcase(name, self._marker.encode())
        )

    @staticmethod
    def _wait_for_growing(looked: Looked, reasons: Reasons) -> None:
        if looked.verdict is Verdict.GROWING:
            reasons.wait(looked.entry.path, "It changed within the settle time.")


def _literal(name: bytes) -> bytes:
    """A name as a pattern that fits nothing else."""
    return b"".join(
        b"[" + name[i : i + 1] + b"]" if name[i : i + 1] in b"*?[" else name[i : i + 1] for i in range(len(name))
    )


def _files_only(members: list[Member], files: list[Looked]) -> Iterator[Member]:
    names = {looked.entry.path for looked in files}
    return (member for member in members if member.path in names)


def _structures(view: SpoolView, files: list[Looked], reasons: Reasons) -> Evidence:
    """Opens every file: one with a writer or a torn structure is a reason. The weakest evidence its pins allow."""
    limit = Evidence.SEAL
    for looked in files:
        try:
            with view.open(looked.entry.path) as file:
                if file.entry.identity != looked.entry.identity:
                    reasons.wait(looked.entry.path, "It is not the version that was seen.")
                    continue
                found = inspect(looked.entry.path, file.size, file.read)
                file.check()
                limit = min(limit, file.evidence_limit)
        except NotPinned as error:
            reasons.not_pinned(error)
            continue
        if found.state is State.TORN:
            reasons.wrong(looked.entry.path, f"{found.kind}: {found.detail}")
    return limit
