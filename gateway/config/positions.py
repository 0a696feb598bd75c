"""Where in a TOML text each table and each value stands.

`tomllib` says where a syntax error is, but keeps no positions for a text it accepted. `locate` walks such a
text again; it relies on the text being valid and only finds its way over strings, brackets and comments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Counted from 1, in characters, as editors do."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


START = Position(1, 1)

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}(?!")'
    r"|'''.*?'{3,5}(?!')"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]+")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_LETTERS = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}


def locate(text: str) -> dict[Path, Position]:
    """The position of every key, table header and array element, by its path: ``("source", 0, "path")``.

    `text` has been accepted by `tomllib`, with ``\\n`` as line ends.
    """
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found: dict[Path, Position] = {}
        self._lengths: dict[Path, int] = {}
        """How many elements each array of tables has so far."""
        self._line = 1
        self._line_start = 0
        self._counted = 0

    def run(self) -> dict[Path, Position]:
        table: Path = ()
        self._blank()
        while self._at < len(self._text):
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._assignment(table)
            self._blank()
        return self._found

    def _blank(self) -> None:
        found = _BLANK.match(self._text, self._at)
        if found:
            self._at = found.end()

    def _position(self) -> Position:
        newlines = self._text.count("\n", self._counted, self._at)
        if newlines:
            self._line += newlines
            self._line_start = self._text.rindex("\n", 0, self._at) + 1
        self._counted = self._at
        return Position(self._line, self._at - self._line_start + 1)

    def _note(self, path: Path, position: Position) -> None:
        self._found.setdefault(path, position)

    def _header(self) -> Path:
        position = self._position()
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        keys = [key for key, _ in self._keys()]
        self._at += 2 if is_array else 1
        path: Path = ()
        for key in keys[:-1]:
            path = self._entered((*path, key))
            self._note(path, position)
        path = (*path, keys[-1])
        self._note(path, position)
        if is_array:
            self._lengths[path] = self._lengths.get(path, 0) + 1
        path = self._entered(path)
        self._note(path, position)
        return path

    def _entered(self, path: Path) -> Path:
        """`path`, or the newest element when it is an array of tables."""
        length = self._lengths.get(path, 0)
        return (*path, length - 1) if length else path

    def _keys(self) -> list[tuple[str, Position]]:
        """A dotted key; stands behind it afterwards."""
        keys = []
        while True:
            self._blank()
            position = self._position()
            bare = _BARE.match(self._text, self._at)
            if bare:
                self._at = bare.end()
                keys.append((bare[0], position))
            else:
                keys.append((_unquoted(self._string()), position))
            self._blank()
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _string(self) -> str:
        found = _STRING.match(self._text, self._at)
        if not found:  # not valid TOML: go on behind it rather than for ever
            self._at += 1
            return ""
        self._at = found.end()
        return found[0]

    def _assignment(self, table: Path) -> None:
        path = table
        for key, position in self._keys():
            path = (*path, key)
            self._note(path, position)
        self._at += 1  # the equals sign
        self._value(path)

    def _value(self, path: Path) -> None:
        self._blank()
        first = self._text[self._at : self._at + 1]
        if first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        elif first in ('"', "'"):
            self._string()
        else:
            found = _SCALAR.match(self._text, self._at)
            self._at = found.end() if found else self._at + 1

    def _array(self, path: Path) -> None:
        self._at += 1
        index = 0
        self._blank()
        while self._at < len(self._text) and self._text[self._at] != "]":
            self._note((*path, index), self._position())
            self._value((*path, index))
            index += 1
            self._separator()
        self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        self._blank()
        while self._at < len(self._text) and self._text[self._at] != "}":
            self._assignment(path)
            self._separator()
        self._at += 1

    def _separator(self) -> None:
        self._blank()
        if self._text.startswith(",", self._at):
            self._at += 1
            self._blank()


def _unquoted(quoted: str) -> str:
    if quoted.startswith("'"):
        return quoted[1:-1]

    def replaced(found: re.Match[str]) -> str:
        digits = found[1] or found[2] or found[3]
        return chr(int(digits, 16)) if digits else _LETTERS.get(found[4], found[4])

    return _ESCAPE.sub(replaced, quoted[1:-1])
