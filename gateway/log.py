"""Structured events: a fixed dotted name and fields, as one line for people or as one JSON object a line.

    log.info("pack.uploaded", source="orcl-prod", pack=17, bytes=234_881_024)

* The event's name is a literal, never formatted: ``what.happened``, lower case, at least two words
  (`tests/unit/test_log.py` checks every call in the tree). What varies is a field.
* DEBUG is for developers; INFO one event per file, pack or job; WARNING somebody should look this week; ERROR a
  promise was broken.
* A value is shown by its `str`, so a `Secret` shows as ``***``; names of files, which may be any bytes, are escaped by
  `printable`.

A `Log` may be used from several threads; a line is written as a whole.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, IntEnum
from pathlib import PurePath
from typing import Protocol, TextIO

from gateway import clock as clocks

JsonValue = str | int | float | bool | list["JsonValue"] | dict[str, "JsonValue"] | None


class Level(IntEnum):
    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    moment: datetime
    level: Level
    name: str
    fields: Mapping[str, object] = field(default_factory=dict)


class Sink(Protocol):
    """Where events go. Called from any thread."""

    def __call__(self, event: Event, /) -> None: ...


class Log:
    """Hands events of at least `level` to a sink. `bind` makes a log whose events all carry more fields."""

    def __init__(
        self,
        sink: Sink,
        clock: clocks.Clock,
        *,
        level: Level = Level.INFO,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        self._sink = sink
        self._clock = clock
        self._level = level
        self._fields = dict(fields or {})

    def bind(self, **fields: object) -> Log:
        return Log(self._sink, self._clock, level=self._level, fields={**self._fields, **fields})

    def debug(self, event: str, /, **fields: object) -> None:
        self._emit(Level.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        self._emit(Level.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        self._emit(Level.WARNING, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        self._emit(Level.ERROR, event, fields)

    def _emit(self, level: Level, event: str, fields: dict[str, object]) -> None:
        if level >= self._level:
            moment = self._clock.now()
            self._sink(Event(moment=moment, level=level, name=event, fields={**self._fields, **fields}))


def silent(clock: clocks.Clock | None = None) -> Log:
    """A log that drops everything."""
    return Log(lambda _: None, clock or clocks.SystemClock(), level=Level.ERROR)


class Collector:
    """A sink that keeps events, for tests."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event, /) -> None:
        self.events.append(event)

    def names(self) -> list[str]:
        return [event.name for event in self.events]


class LineSink:
    """Writes one line an event. A stream that does not take it (full disk, closed pipe) never stops the work.

    Without a `stream` it is standard error as it is at that moment, so that a progress bar may redirect it.
    """

    def __init__(self, shape: Callable[[Event], str], stream: TextIO | None = None) -> None:
        self._shape = shape
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, event: Event, /) -> None:
        line = self._shape(event) + "\n"
        with self._lock:
            try:
                stream = self._stream or sys.stderr
                stream.write(line)
                stream.flush()
            except (OSError, ValueError):
                pass  # there is no better place to say so


def human_line(event: Event) -> str:
    """``2026-11-25T07:00:00Z WARNING file.held_back source=orcl-prod path=a.dbf``."""
    shown = " ".join(f"{name}={_word(_plain(value))}" for name, value in event.fields.items())
    return f"{clocks.text(event.moment)} {event.level.name:<7} {event.name} {shown}".rstrip()


def json_line(event: Event) -> str:
    """One object: ``ts``, ``level``, ``event`` and the fields; a field of one of these names gets an underscore."""
    record: dict[str, JsonValue] = {
        "ts": event.moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": event.level.name.lower(),
        "event": event.name,
    }
    for name, value in event.fields.items():
        record[f"{name}_" if name in ("ts", "level", "event") else name] = _plain(value)
    return json.dumps(record, ensure_ascii=True)


class LibraryHandler(logging.Handler):
    """Brings what libraries say through `logging` into the same place, as event ``library.message``."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001  (a library's broken format string must not stop us)
            text = str(record.msg)
        if record.levelno >= logging.ERROR:
            # what a library calls an error is retried or translated by its door; only we break promises
            self._log.warning("library.message", library=record.name, text=text)
        elif record.levelno >= logging.WARNING:
            self._log.warning("library.message", library=record.name, text=text)
        else:
            self._log.debug("library.message", library=record.name, text=text)


_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(name: bytes | str | PurePath) -> str:
    r"""A name that may hold any bytes, in a form that is unambiguous and safe on a terminal.

    Backslash, newline, carriage return and tab become ``\\``, ``\n``, ``\r``, ``\t``; a byte that is not UTF-8 and
    other control bytes ``\xNN``; characters that do not print or would reorder the line ``\uNNNN`` or ``\UNNNNNNNN``.
    A text may carry foreign bytes as lone surrogates, as the operating system's names do.
    """
    data = name if isinstance(name, bytes) else os.fsencode(name)
    text = data.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if character.isprintable():
        return character
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _plain(value: object) -> JsonValue:
    if isinstance(value, Enum):
        return str(value.value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, datetime):
        return clocks.text(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | PurePath):
        return printable(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    return str(value)


_PLAIN_WORD = re.compile(r"[!#-\[\]-~]+")


def _word(value: JsonValue) -> str:
    """A field's value in a human line: bare where that is unambiguous, else as JSON."""
    if isinstance(value, str) and _PLAIN_WORD.fullmatch(value):
        return value
    if isinstance(value, str) and value.isprintable():
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value)
