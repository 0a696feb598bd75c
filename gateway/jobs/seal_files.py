"""Seal calls by file, for hosts without a client: ``.gateway/seal-<run>.json`` in the source's directory.

    {"files": [{"path": "a/piece-1", "size": 4096, "sha256": "..."}, ...], "folder": "a", "requires": ["run"]}
    {"failed": "why"}

All keys may be missing; a path that is not UTF-8 is given as ``path_base64``. The file is to be renamed into place, or
is taken when it was the same at two looks. The answer lies beside it as ``answer-<run>.json``: state, problems,
generation; it is written again when the run is protected, and then the seal file is removed. docs/operate/engine.md
tells producers of it.

INVARIANT: whatever lies there, and whatever cannot be written there, stops nothing else of the source. What failed is
logged once and tried at every look; an answer comes when it can be written, and the seal file stays until then.
SECURITY: who may write there is no friend. Nothing is opened that is not a plain file, no link is followed, and nothing
blocks.
CRASH: the file stays until the answer that ends it is there; taking it again finds the run as it is.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import stat
from dataclasses import dataclass

import msgspec

from gateway import durable
from gateway.api import ProgressCallback, RunReport, SealedFile, no_progress
from gateway.clock import Clock
from gateway.config.values import SourceConfig
from gateway.errors import GatewayError, Stopped, UsageError
from gateway.jobs.seals import Seals
from gateway.log import Log, printable
from gateway.spool.walk import RESERVED, open_below, open_root

LIMIT_BYTES = 256 * 1024 * 1024
READ_BYTES = 1024 * 1024
LOOK_SECONDS = 1.0
"""Between the two looks of who runs no engine."""
_NAME = re.compile(rb"seal-(.{1,128})\.json", re.DOTALL)
_KINDS = {stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symlink", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}


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


class _Answer(msgspec.Struct, frozen=True):
    run: str
    state: str
    problems: tuple[str, ...] = ()
    generation: int | None = None


@dataclass(slots=True)
class _Known:
    """A seal file in the `version` that was seen last."""

    version: tuple[int, ...]
    taken: bool = False
    refused: str = ""
    answered: bytes = b""
    warned: tuple[str, ...] = ()


class SealFiles:
    """Of one source; for the thread that keeps it."""

    def __init__(self, source: SourceConfig, seals: Seals, log: Log, tell: ProgressCallback = no_progress) -> None:
        self._source = source
        self._seals = seals
        self._log = log
        self._tell = tell
        self._known: dict[bytes, _Known] = {}
        self._told: dict[bytes, str] = {}
        """By name, what was logged last: the same again is no news."""

    def take(self, clock: Clock) -> None:
        """For who runs no engine, and looks no third time: two looks."""
        self.look()
        if self._known:
            clock.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Take what is there, and bring answers up to date. Raises nothing but `Stopped`."""
        with contextlib.ExitStack() as opened:
            try:
                place = self._place(opened)
                names = sorted(map(os.fsencode, os.listdir(place)))
            except FileNotFoundError:
                return
            except (OSError, GatewayError) as error:
                self._trouble(RESERVED, error)
                return
            self._told.pop(RESERVED, None)
            found = {name: match for name in names if (match := _NAME.fullmatch(name))}
            for name, match in found.items():
                try:
                    self._one(place, name, os.fsdecode(match[1]))
                except Stopped:
                    raise
                except (OSError, GatewayError) as error:
                    self._trouble(name, error)
                else:
                    self._told.pop(name, None)
            for gone in set(self._known) - set(found):
                del self._known[gone]
            for gone in set(self._told) - set(found):
                del self._told[gone]

    def _place(self, opened: contextlib.ExitStack) -> int:
        root = open_root(self._source.path)
        opened.callback(os.close, root)
        place = open_below(root, RESERVED)
        opened.callback(os.close, place)
        return place

    def _trouble(self, name: bytes, error: OSError | GatewayError) -> None:
        text = str(error)
        if self._told.get(name) != text:
            self._told[name] = text
            self._log.warning("seal.not_handled", source=self._source.name, file=printable(name), problem=text)

    def _one(self, place: int, name: bytes, run: str) -> None:
        version = _version(os.stat(name, dir_fd=place, follow_symlinks=False))
        known = self._known.get(name)
        if known is None or known.version != version:
            self._known[name] = _Known(version)
            return
        report = None
        if not known.refused:
            try:
                report = self._report(place, name, run, known)
            except UsageError as error:
                known.refused = str(error)
        if known.refused:
            self._answer(place, run, known, _Answer(printable(run), "refused", (known.refused,)))
        elif report is not None:
            number = report.generation.number if report.generation is not None else None
            self._answer(place, run, known, _Answer(run, str(report.state), report.problems, number))
            if all(row.run != run for row in self._seals.waiting()):
                durable.remove_at("seal-file", place, name)
                durable.sync_file("seal-file", place)

    def _report(self, place: int, name: bytes, run: str, known: _Known) -> RunReport | None:
        """What became of the run; None: the file is another by now."""
        report = self._seals.known(run) if known.taken else None
        if report is None:
            data = _read(place, name, known.version)
            if data is None:
                return None
            report = self._take(data, run)
            known.taken = True
        return report

    def _take(self, data: bytes, run: str) -> RunReport:
        try:
            seal = msgspec.json.decode(data, type=_Seal)
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
        return self._seals.seal(run, files, os.fsencode(seal.folder), seal.requires, "a seal file", self._tell)

    def _answer(self, place: int, run: str, known: _Known, answer: _Answer) -> None:
        if answer.problems and known.warned != answer.problems:
            known.warned = answer.problems
            self._log.warning("seal.problems", source=self._source.name, run=answer.run, problems=answer.problems)
        data = msgspec.json.encode(answer)
        if known.answered != data:
            _write(place, b"answer-" + os.fsencode(run) + b".json", data)
            known.answered = data


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read(place: int, name: bytes, version: tuple[int, ...]) -> bytes | None:
    """All of this version; None: it is another. `UsageError` for what is no plain file: that is never opened, and what
    takes its place meanwhile cannot block.
    """
    if not stat.S_ISREG(version[0]):
        raise UsageError(
            f"{printable(name)} is {_KINDS.get(stat.S_IFMT(version[0]), 'a device')}, not a file.",
            meaning="Nothing was sealed.", advice="Remove it, and rename a plain file there.",
        )  # fmt: skip
    if version[2] > LIMIT_BYTES:
        raise UsageError(
            f"The seal file has {version[2]} bytes, and may have {LIMIT_BYTES}.", meaning="Nothing was sealed.",
            advice="Seal a folder.",
        )  # fmt: skip
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place)
    try:
        if _version(os.fstat(fd)) != version:
            return None
        blocks, left = list[bytes](), version[2] + 1
        while block := os.read(fd, min(READ_BYTES, left)):
            blocks.append(block)
            left -= len(block)
        return b"".join(blocks) if _version(os.fstat(fd)) == version else None
    finally:
        os.close(fd)


def _write(place: int, name: bytes, data: bytes) -> None:
    """CRASH: under its name it is whole, or the one before; what a kill left has a temporary name, and goes here."""
    temporary = durable.TEMPORARY.encode() + name
    durable.remove_at("seal-answer", place, temporary)
    fd = durable.create_at("seal-answer", place, temporary, 0o644)
    try:
        durable.write_at(fd, data, 0)
        durable.sync_file("seal-answer", fd)
        durable.publish_at("seal-answer", place, temporary, name, replace=True)
    except BaseException:
        with contextlib.suppress(OSError):
            durable.remove_at("seal-answer", place, temporary)
        raise
    finally:
        os.close(fd)
    durable.sync_file("seal-answer", place)
