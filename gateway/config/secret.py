"""A text that must not be shown by accident."""

from __future__ import annotations

from typing import NoReturn

REDACTED = "***"


class Secret:
    """Holds a secret text; every way of printing, logging or pickling it shows `REDACTED` or fails.

    SECURITY: Python cannot wipe a text from memory; this type prevents leaks by formatting, nothing more.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself. Only for the call that needs it; never stored, never formatted."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret({REDACTED})"

    def __str__(self) -> str:
        return REDACTED

    def __format__(self, format_spec: str) -> str:
        return format(REDACTED, format_spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not written anywhere")
