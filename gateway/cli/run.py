"""What one invocation knows: its options, its streams, its log; it opens the api."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import IO, NoReturn, Protocol, cast

from rich.console import Console, RenderableType
from rich.text import Text

from gateway.api import Failure, GatewayApi, ProgressCallback
from gateway.cli import progress
from gateway.cli.plain import plain
from gateway.clock import SystemClock
from gateway.config import DEFAULT_FILE, Config, load
from gateway.errors import UsageError
from gateway.log import Level, LibraryHandler, LineSink, Log, human_line, json_line

LIMIT_SHEET_BYTES = 64 * 1024
"""LIMIT: a recovery sheet is about one page; docs/format/limits.md."""

WIDE = 10_000
"""Columns where standard output is not a terminal: nothing is folded for a file or a pipe."""


class ReaderGone(Exception):
    """Nobody reads our standard output any more (``gateway ls ... | head``)."""


class ApiFactory(Protocol):
    def __call__(self, config: Config, *, recovery_sheet: str | None, log: Log) -> GatewayApi: ...


def import_lasting(name: str) -> ModuleType:
    """A part of the product that only some verbs need, imported when one does.

    It stays until the end, so the collector of cycles need not go through it while it grows, later, and when the
    process ends: a tenth of a small command.
    """
    if name in sys.modules:
        return sys.modules[name]
    collects = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def open_engine(config: Config, *, recovery_sheet: str | None, log: Log) -> GatewayApi:
    """The real api. Imported when a verb needs it: ``gateway --help`` must not load the store's libraries.

    Where an engine runs it does what is asked, but with the keys it was started with: with a recovery sheet the verb
    works by itself, beside it.
    """
    if recovery_sheet is None and config.socket.is_socket():
        client = import_lasting("gateway.control.client")
        running = client.connected(config.socket)
        if running is not None:
            return cast(GatewayApi, running)
    engine = import_lasting("gateway.engine")
    return cast(GatewayApi, engine.open_engine(config, recovery_sheet=recovery_sheet, log=log))


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        raise ReaderGone


def _console(stream: IO[str], *, stderr: bool) -> Console:
    terminal = stream.isatty()
    return _Console(file=stream, stderr=stderr, width=None if terminal else WIDE, highlight=False, emoji=False)


@dataclass(slots=True, kw_only=True)
class Run:
    """Filled by the options, wherever in the command line they stand; then used by the verb."""

    factory: ApiFactory
    config_file: Path = DEFAULT_FILE
    json: bool = False
    json_asked: bool = False
    """`json` as the bare words have it, for errors that come before the options are read."""
    quiet: bool = False
    verbose: bool = False
    log_json: bool = False
    recovery_sheet: str | None = None
    exit_code: int = 0
    """What the verb's report means; set before anything of it is printed."""
    interruption: Failure | None = None
    """What Ctrl-C meant for what was under way, where the verb knows better than the general words."""
    began_data: bool = False
    """Something is on standard output already."""
    opened: Config | None = None
    """The configuration once it was read."""
    _out: Console | None = field(default=None, init=False)
    _err: Console | None = field(default=None, init=False)

    @property
    def out(self) -> Console:
        self._out = self._out or _console(sys.stdout, stderr=False)
        return self._out

    @property
    def err(self) -> Console:
        self._err = self._err or _console(sys.stderr, stderr=True)
        return self._err

    # --- standard output: data ---

    def document(self, value: object) -> None:
        """One JSON document."""
        self.write(json.dumps(plain(value), ensure_ascii=False, indent=2) + "\n")

    def array(self, values: Iterable[object]) -> None:
        """One JSON document that is an array, written as its values come. An error leaves it visibly unfinished."""
        separator = "[\n"
        for value in values:
            self.write(separator + json.dumps(plain(value), ensure_ascii=False))
            separator = ",\n"
        self.write("[]\n" if separator == "[\n" else "\n]\n")

    def write(self, text: str) -> None:
        self.began_data = True
        try:
            sys.stdout.write(text)
        except BrokenPipeError as error:
            raise ReaderGone from error

    def show(self, *renderables: RenderableType) -> None:
        """Tables and lines for people."""
        self.began_data = True
        for renderable in renderables:
            self.out.print(renderable, soft_wrap=isinstance(renderable, Text), markup=False)

    def summary(self, *renderables: RenderableType) -> None:
        """What a verb that does something says about it at the end."""
        if not self.quiet:
            self.show(*renderables)

    # --- standard error: everything else ---

    def note(self, text: str) -> None:
        if self.log_json:
            self.log().info("cli.note", text=text)
        elif not self.quiet:
            self.err.print(Text(safe(text)), soft_wrap=True)

    def warn(self, text: str) -> None:
        if self.log_json:
            self.log().warning("cli.warning", text=text)
        else:
            self.err.print(Text.assemble(("warning: ", "yellow"), safe(text)), soft_wrap=True)

    def show_failure(self, failure: Failure, *, about: str = "", mistakes: tuple[str, ...] = ()) -> None:
        """What happened, what it means, what to do, a line each; then `mistakes`, with nothing before them."""
        if self.log_json:
            self.log().error(
                "cli.failed",
                about=about,
                kind=failure.kind,
                what=failure.what,
                meaning=failure.meaning,
                advice=failure.advice,
                exit_code=failure.exit_code,
            )
            return
        lines = [failure.what, *mistakes, failure.meaning, failure.advice]
        first, *rest = [safe(line) for line in lines if line]
        self.err.print(
            Text.assemble(("error:", "bold red"), f" {about}: {first}" if about else f" {first}"), soft_wrap=True
        )
        for line in rest:
            self.err.print(Text(line), soft_wrap=True)

    @contextlib.contextmanager
    def progress(self) -> Iterator[ProgressCallback]:
        wanted = not self.quiet and not self.log_json
        with progress.shown(self.err, wanted=wanted) as callback:
            yield callback

    def log(self) -> Log:
        if self.log_json:
            return Log(LineSink(json_line), SystemClock(), level=Level.WARNING if self.quiet else Level.INFO)
        return Log(LineSink(human_line), SystemClock(), level=Level.INFO if self.verbose else Level.WARNING)

    # --- the api ---

    def config(self) -> Config:
        config = self.opened = load(self.config_file)
        for warning in config.warnings:
            self.warn(str(warning))
        return config

    @contextlib.contextmanager
    def api(self) -> Iterator[GatewayApi]:
        config = self.config()
        sheet = self.read_sheet()
        log = self.log()
        handler = LibraryHandler(log)
        logging.getLogger().addHandler(handler)
        try:
            with contextlib.closing(self.factory(config, recovery_sheet=sheet, log=log)) as api:
                yield api
        finally:
            logging.getLogger().removeHandler(handler)

    def read_sheet(self) -> str | None:
        """The recovery sheet's text where one was named."""
        if self.recovery_sheet is None:
            return None
        try:
            if self.recovery_sheet == "-":
                data = sys.stdin.buffer.read(LIMIT_SHEET_BYTES + 1)
            else:
                with Path(self.recovery_sheet).open("rb") as stream:
                    data = stream.read(LIMIT_SHEET_BYTES + 1)
        except OSError as error:
            raise UsageError(
                f"The recovery sheet {safe(self.recovery_sheet)} cannot be read: {error.strerror or error}.",
                meaning="The repository was not opened.",
                advice="Type the sheet's text into a file and name that file.",
            ) from error
        try:
            text = data.decode("utf-8") if len(data) <= LIMIT_SHEET_BYTES else ""
        except UnicodeDecodeError:
            text = ""  # SECURITY: the exception holds the bytes, so it is not chained
        if not text.strip():
            raise UsageError(
                f"{safe(self.recovery_sheet)} is not the text of a recovery sheet.",
                meaning="It is empty, larger than 64 KiB or not UTF-8 text.",
                advice="Type the sheet's text into a file and name that file.",
            )
        return text


def safe(text: str) -> str:
    """A message without anything that could move the cursor: what does not print is escaped, line ends stay."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode("ascii") for each in text
    )


def operator_name() -> str:
    """Who answers for what is done by hand: the login behind sudo, else the login."""
    import getpass

    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
