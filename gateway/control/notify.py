"""What systemd is told of a service (sd_notify(3)): one datagram to the socket it names."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping


def notify(environment: Mapping[str, str], text: str) -> None:
    """Nothing where there is no systemd, or it does not listen."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)


def watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """How often systemd wants to hear that the service lives: half of what it waits. None: it does not."""
    return int(environment.get("WATCHDOG_USEC", "0") or 0) / 2e6 or None
