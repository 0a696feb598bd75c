"""Seal calls by file, for hosts without a client: ``.gateway/seal-<run>.json`` in the source's directory.

    {"files": [{"path": "a/piece-1", "size": 4096, "sha256": "..."}, ...], "folder": "a", "requires": ["run"]}
    {"failed": "why"}

All keys may be missing; a path that is not UTF-8 is given as ``path_base64``. The file is to be renamed into place, or
is taken when it was the same at two looks. The answer lies beside it as ``answer-<run>.json``: state, problems,
generation; it is written again when the run is protected, and then the seal file is removed.

CRASH: the file stays until the answer that ends it is there; taking it again finds the run as it is.
"""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path

import msgspec

from gateway import durable
from gateway.api import RunReport, SealedFile
from gateway.config.values import SourceConfig
from gateway.errors import GatewayError, UsageError
from gateway.jobs.seals import Seals
from gateway.log import Log, printable
from gateway.spool.walk import RESERVED

LIMIT_BYTES = 256 * 1024 * 1024
_NAME = re.compile(rb"seal-(.{1,128})\.json", re.DOTALL)


class _File(msgspec.Struct, frozen=True):
    path: str = ""
    path_base64: str = ""
    size: int | None = None
    sha256: str = ""


class _Seal(msgspec.Struct, frozen=True):
    files: tuple[_File, ...] = ()
    folder: str = ""
    requires: tuple[str, ...] = ()
    failed: str | None = None


class SealFiles:
    """Of one source; for the thread that keeps it."""

    def __init__(self, source: SourceConfig, seals: Seals, log: Log) -> None:
        self._source = source
        self._seals = seals
        self._log = log
        self._seen: dict[bytes, tuple[int, int, int]] = {}
        self._answered: dict[str, bytes] = {}

    def look(self) -> None:
        """Take what is there, and bring answers up to date."""
        place = os.path.join(os.fsencode(self._source.path), RESERVED)
        try:
            names = sorted(os.listdir(place))
        except OSError:
            return
        found = {name: match for name in names if (match := _NAME.fullmatch(name))}
        for name, match in found.items():
            self._one(Path(os.fsdecode(place)), name, os.fsdecode(match[1]))
        for name in set(self._seen) - set(found):
            del self._seen[name]

    def _one(self, place: Path, name: bytes, run: str) -> None:
        path = place / os.fsdecode(name)
        try:
            status = path.lstat()
            now = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if self._seen.get(name) != now:
                self._seen[name] = now
                return
            report = self._take(path, run, status.st_size)
        except OSError as error:
            self._log.warning("seal.unreadable", source=self._source.name, file=printable(name), problem=str(error))
            return
        except GatewayError as error:
            self._answer(place, run, {"state": "refused", "problems": [str(error)]})
            return
        self._answer(place, run, _document(report))
        if all(row.run != run for row in self._seals.waiting()):
            durable.remove("seal-file", path)

    def _take(self, path: Path, run: str, size: int) -> RunReport:
        if size > LIMIT_BYTES:
            raise UsageError(f"The seal file has {size} bytes.", meaning="Nothing was sealed.", advice="Seal a folder.")
        try:
            seal = msgspec.json.decode(path.read_bytes(), type=_Seal)
            files = [
                SealedFile(
                    path=base64.b64decode(each.path_base64) if each.path_base64 else os.fsencode(each.path),
                    size=each.size, digest=f"sha256:{each.sha256}" if each.sha256 else "",
                )
                for each in seal.files
            ]  # fmt: skip
        except (msgspec.MsgspecError, ValueError) as error:
            raise UsageError(
                f"The seal file cannot be understood: {error}.", meaning="Nothing was sealed.",
                advice="docs/operate/engine.md has its form.",
            ) from error  # fmt: skip
        if seal.failed is not None:
            return self._seals.fail(run, seal.failed, "a seal file")
        return self._seals.seal(run, files, os.fsencode(seal.folder), seal.requires, "a seal file")

    def _answer(self, place: Path, run: str, document: dict[str, object]) -> None:
        data = msgspec.json.encode(document)
        if self._answered.get(run) == data:
            return
        if document.get("problems"):
            self._log.warning("seal.problems", source=self._source.name, run=printable(run),
                              problems=document["problems"])  # fmt: skip
        durable.write_file("seal-answer", place / f"answer-{run}.json", data, mode=0o644)
        self._answered[run] = data


def _document(report: RunReport) -> dict[str, object]:
    number = report.generation.number if report.generation is not None else None
    return {"run": report.run, "state": str(report.state), "problems": list(report.problems), "generation": number}
