"""Taking values out of a parsed TOML document while collecting mistakes, with their positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from gateway.config.positions import START, Position, locate
from gateway.config.positions import Path as KeyPath
from gateway.config.units import duration_text, parse_duration
from gateway.config.values import Setting, nearest
from gateway.errors import ConfigError

T = TypeVar("T")
D = TypeVar("D")
E = TypeVar("E", bound=StrEnum)
Content = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    position: Position
    text: str


class Document:
    """A parsed file: hands out its tables, gathers problems and effective settings."""

    def __init__(
        self, *, file: Path, text: str, content: Content, tables: tuple[str, ...], arrays: tuple[str, ...]
    ) -> None:
        self.file = file
        self.content = content
        self.problems: list[Problem] = []
        self.settings: list[Setting] = []
        self.key_names: dict[str, list[str]] = {}
        """The keys each table was asked for, to name the right table of a misplaced key."""
        self._names = tables
        self._arrays = arrays
        self._positions = locate(text)
        self._unknown: list[tuple[Table, str]] = []

    def position(self, path: KeyPath) -> Position:
        """Of this path, or of the nearest table around it."""
        while path and path not in self._positions:
            path = path[:-1]
        return self._positions.get(path, START)

    def check_tables(self) -> None:
        for name in self.content:
            if name not in self._names:
                self.problems.append(Problem(self.position((name,)), f"{name}: {self._unknown_table(name)}"))

    def _unknown_table(self, name: str) -> str:
        meant = nearest(name, self._names)
        if meant:
            return f"unknown table; did you mean {self._heading(meant)}?"
        return f"unknown table; there are {', '.join(map(self._heading, self._names))}"

    def _heading(self, name: str) -> str:
        return f"[[{name}]]" if name in self._arrays else f"[{name}]"

    def table(self, name: str, *, required: bool = False) -> Table:
        value = self.content.get(name, {})
        if not isinstance(value, dict):
            self.problems.append(Problem(self.position((name,)), f"{name}: must be a table: [{name}]"))
            return Table(self, (name,), {}, name, quiet=True)
        if required and name not in self.content:
            self.problems.append(Problem(START, f"{name}: the table [{name}] is missing"))
            return Table(self, (name,), {}, name, quiet=True)
        return Table(self, (name,), value, name)

    def tables_of(self, name: str) -> list[Table]:
        value = self.content.get(name, [])
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            self.problems.append(Problem(self.position((name,)), f"{name}: must be an array of tables: [[{name}]]"))
            return []
        return [Table(self, (name, i), each, f"{name}[{i + 1}]") for i, each in enumerate(value)]

    def add_unknown(self, table: Table, key: str) -> None:
        self._unknown.append((table, key))

    def raise_mistakes(self) -> None:
        """Raise `ConfigError` with everything found, in the order of the file."""
        for table, key in self._unknown:
            table.mistake(key, self._unknown_key(table, key))
        if self.problems:
            ordered = sorted(self.problems, key=lambda problem: problem.position)
            raise ConfigError(tuple(f"{self.file}:{each.position}: {each.text}" for each in ordered))

    def _unknown_key(self, table: Table, key: str) -> str:
        own = self.key_names[table.kind]
        meant = nearest(key, own)
        if meant:
            return f'unknown key; did you mean "{meant}"?'
        elsewhere = [kind for kind, keys in self.key_names.items() if key in keys]
        if elsewhere:
            return f"unknown key; it belongs in {self._heading(elsewhere[0])}"
        return f"unknown key; there are {', '.join(own)}"


class Table:
    """One table of the document. `kind` is its name, the same for all tables of an array.

    `quiet`: the table itself is a mistake already, its missing keys are none.
    """

    def __init__(self, document: Document, path: KeyPath, content: Content, label: str, *, quiet: bool = False) -> None:
        self.kind = str(path[0])
        self._document = document
        self._path = path
        self._content = content
        self._label = label
        self._quiet = quiet
        self._known: list[str] = []
        document.key_names.setdefault(self.kind, [])

    def has(self, key: str) -> bool:
        return key in self._content

    def known(self, key: str) -> None:
        """This key is not reported as unknown."""
        self._known.append(key)

    def position(self, key: str) -> Position:
        return self._document.position((*self._path, key))

    def where(self, key: str) -> str:
        return f"{self._document.file}:{self.position(key)}"

    def mistake(self, key: str, text: str) -> None:
        self._document.problems.append(Problem(self.position(key), f"{self._label}.{key}: {text}"))

    def take(self, key: str, parse: Callable[[object], T], default: D, show: Callable[[Any], str] = str) -> T | D:
        """The value of an optional key. `parse` raises `ValueError` with what is wrong."""
        self._register(key)
        result: T | D = default
        if key in self._content:
            try:
                result = parse(self._content[key])
            except ValueError as error:
                self.mistake(key, str(error))
        self._set(key, "" if result is None else show(result))
        return result

    def require(self, key: str, parse: Callable[[object], T], placeholder: T, show: Callable[[Any], str] = str) -> T:
        """The value of a key that must be there; `placeholder` stands in for a mistake."""
        if key in self._content:
            return self.take(key, parse, placeholder, show)
        self._register(key)
        if not self._quiet:
            self.mistake(key, "is missing")
        return placeholder

    def choice(self, key: str, kind: type[E], default: E) -> E:
        """One of the values of an enumeration."""
        allowed = [str(each) for each in kind]

        def parse(value: object) -> E:
            if isinstance(value, str) and value in allowed:
                return kind(value)
            shown = " or ".join(f'"{each}"' for each in allowed)
            if not isinstance(value, str):
                raise ValueError(f"must be {shown}")
            meant = nearest(value, allowed)
            raise ValueError(f'"{value}" must be {shown}' + (f'; did you mean "{meant}"?' if meant else ""))

        return self.take(key, parse, default)

    def duration(self, key: str, default: timedelta, *, least: timedelta, most: timedelta) -> timedelta:
        def parse(value: object) -> timedelta:
            result = parse_duration(value)
            if not least <= result <= most:
                raise ValueError(f'"{value}" must be from {duration_text(least)} to {duration_text(most)}')
            return result

        return self.take(key, parse, default, duration_text)

    def finish(self) -> None:
        """Every key that nobody asked for is a mistake."""
        for key in self._content:
            if key not in self._known:
                self._document.add_unknown(self, key)

    def _register(self, key: str) -> None:
        self._known.append(key)
        names = self._document.key_names[self.kind]
        if key not in names:
            names.append(key)

    def _set(self, key: str, shown: str) -> None:
        origin = f"line {self.position(key).line}" if key in self._content else "default"
        self._document.settings.append(Setting(key=f"{self._label}.{key}", value=shown, origin=origin))
