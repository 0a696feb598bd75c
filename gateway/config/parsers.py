"""What turns one value of a TOML file into the value that is meant, or says in a `ValueError` what is wrong with it."""

from __future__ import annotations

from pathlib import Path

from gateway.config.values import NAME


def text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text in quotes")
    if not value.strip():
        raise ValueError("must not be empty")
    if "\0" in value:
        raise ValueError("must not contain a zero byte")
    return value


def absolute(value: object) -> Path:
    path = Path(text(value))
    if not path.is_absolute():
        raise ValueError(f'"{value}" must be an absolute path, one that starts with "/"')
    if ".." in path.parts:
        raise ValueError(f'"{value}" must not contain ".."')
    return path


def name(value: object) -> str:
    result = text(value)
    if not NAME.fullmatch(result):
        raise ValueError(f'"{result}" must be 1 to 32 of a-z, 0-9 and "-" (it is visible in the bucket)')
    return result


class count:  # noqa: N801  (used like a function: `count(1, 5)` is a parser)
    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most

    def __call__(self, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not self._least <= value <= self._most:
            raise ValueError(f"must be a whole number from {self._least} to {self._most}")
        return value
