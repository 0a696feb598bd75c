"""Unit tests talk to nothing: every use of a network socket is refused, also by a library and from C."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

_state = {"blocked": False, "installed": False}


class NetworkBlocked(BaseException):
    """Not an Exception: code under test that swallows errors must not swallow this one."""


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if not _state["blocked"] or not event.startswith("socket."):
        return
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        raise NetworkBlocked(f"{event}{arguments}: tests/unit must not look up hosts")
    if event in ("socket.connect", "socket.bind", "socket.sendto") and not isinstance(arguments[1], str | bytes):
        # A unix socket's address is a path; every other one is a tuple.
        raise NetworkBlocked(f"{event} {arguments[1]}: tests/unit must not use the network")


@pytest.fixture(autouse=True)
def _no_network() -> Iterator[None]:
    if not _state["installed"]:
        # An audit hook stays for the life of the process; the flag says when it applies.
        sys.addaudithook(_refuse)
        _state["installed"] = True
    _state["blocked"] = True
    yield
    _state["blocked"] = False
