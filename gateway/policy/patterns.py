"""Patterns over whole paths, as `restore --path` takes them. Pure.

``*``, ``?`` and ``[...]`` never match a slash; ``**`` matches anything. A pattern that matches a directory takes all
that is below it. Paths are bytes and so are patterns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.errors import UsageError

_MAGIC = re.compile(rb"[*?\[]")


def is_literal(pattern: bytes) -> bool:
    """Whether a pattern can match only the path it spells, and what is below."""
    return not _MAGIC.search(pattern)


def normal(pattern: bytes) -> bytes:
    """Without a leading ``./`` or slashes at either end."""
    while pattern.startswith(b"./"):
        pattern = pattern[2:]
    return pattern.strip(b"/")


def compile_pattern(pattern: bytes) -> re.Pattern[bytes]:
    """A regular expression for `fullmatch` on a path or on any path that leads to it."""
    out, at = b"", 0
    while at < len(pattern):
        each = pattern[at : at + 1]
        if pattern.startswith(b"**/", at):
            out += rb"(?:.*/)?"
            at += 3
        elif pattern.startswith(b"**", at):
            out += rb".*"
            at += 2
        elif each == b"*":
            out += rb"[^/]*"
            at += 1
        elif each == b"?":
            out += rb"[^/]"
            at += 1
        elif each == b"[" and (end := pattern.find(b"]", at + 2)) > 0:
            body = pattern[at + 1 : end].replace(b"\\", rb"\\")
            body = b"^" + body[1:] if body.startswith(b"!") else body
            out += b"(?!/)[" + body.replace(b"[", rb"\[") + b"]"
            at = end + 1
        else:
            out += re.escape(each)
            at += 1
    try:
        return re.compile(out + rb"(?:/.*)?", re.DOTALL)
    except re.error as error:
        raise UsageError(
            f"The pattern {pattern.decode(errors='backslashreplace')!r} cannot be read: {error}.",
            advice="A range in brackets goes from the smaller to the greater letter: [a-z].",
        ) from error


class Selection:
    """What a restore takes. Remembers which patterns matched, for the error about those that never did."""

    def __init__(self, patterns: Sequence[bytes]) -> None:
        self.patterns = tuple(normal(each) for each in patterns)
        self._compiled = [compile_pattern(each) for each in self.patterns]
        self._matched = [False] * len(self.patterns)

    @property
    def everything(self) -> bool:
        return not self.patterns

    @property
    def literals(self) -> tuple[bytes, ...] | None:
        """The paths, when all patterns are literal; None when a list must be read as a whole."""
        if self.patterns and all(is_literal(each) and each for each in self.patterns):
            return tuple(sorted(set(self.patterns), key=lambda each: each.replace(b"/", b"\0")))
        return None

    def takes(self, path: bytes) -> bool:
        if not self.patterns:
            return True
        found = False
        for at, compiled in enumerate(self._compiled):
            if compiled.fullmatch(path):
                self._matched[at] = found = True
        return found

    def unmatched(self) -> list[bytes]:
        """Patterns that took nothing so far."""
        return [pattern for pattern, matched in zip(self.patterns, self._matched, strict=True) if not matched]
