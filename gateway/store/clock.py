"""The clock by which a store dates its answers, for a simulated store whose time is moved by hand."""

from __future__ import annotations

import http.client
import ipaddress
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from gateway.clock import Clock, SystemClock
from gateway.errors import StoreUnreachable, UsageError

CLOCK_VARIABLE = "GATEWAY_CLOCK"


class StoreClock(SystemClock):
    """The wall clock of a store: what its answers are dated by. For a simulator whose time is moved by hand.

    Durations are this machine's. LIMIT: asked at most every `FRESH_SECONDS`; within them its time stands still, and it
    never goes back.
    """

    FRESH_SECONDS = 0.05
    ANSWER_SECONDS = 10.0

    def __init__(self, endpoint_url: str) -> None:
        """`UsageError` unless the endpoint is on this machine: nobody else's word for the time is taken."""
        parts = urlsplit(endpoint_url)
        host = parts.hostname or ""
        if parts.scheme != "http" or not _is_loopback(host):
            raise UsageError(
                f"{CLOCK_VARIABLE}=store is for a store on this machine, and {endpoint_url or 'AWS'} is none.",
                meaning="Backups would be dated, and expire, by what somebody else says the time is.",
                advice=f"Unset {CLOCK_VARIABLE}; it is for tests with a simulated store.",
            )
        self._host, self._port = host, parts.port or 80
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._last = datetime.min.replace(tzinfo=UTC)

    def now(self) -> datetime:
        """`StoreUnreachable`: it does not answer, or without a date."""
        with self._lock:
            if self.monotonic() - self._asked >= self.FRESH_SECONDS:
                self._last = max(self._last, self._ask())
                self._asked = self.monotonic()
            return self._last

    def _ask(self) -> datetime:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self.ANSWER_SECONDS)
        try:
            connection.request("HEAD", "/")
            date = connection.getresponse().getheader("Date") or ""
            return parsedate_to_datetime(date).astimezone(UTC)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise StoreUnreachable(
                f"The store at {self._host}:{self._port} does not say what time it is: {error}.",
                meaning=f"{CLOCK_VARIABLE}=store takes the time from it.",
            ) from error
        finally:
            connection.close()


def clock_for(endpoint_url: str | None, environment: Mapping[str, str]) -> Clock:
    """The system's clock, or with ``GATEWAY_CLOCK=store`` the store's. `UsageError`: any other value, or see there."""
    said = environment.get(CLOCK_VARIABLE, "")
    if not said:
        return SystemClock()
    if said != "store":
        raise UsageError(
            f'{CLOCK_VARIABLE} is "{said}", which is no clock.', meaning="Nothing was done.",
            advice="Unset it; the one value there is, store, is for tests with a simulated store.",
        )  # fmt: skip
    return StoreClock(endpoint_url or "")


def _is_loopback(host: str) -> bool:
    """By address or by the one name that may mean nothing else (RFC 6761)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
