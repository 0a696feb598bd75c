"""Tells people of alarms: a program, a URL, a mail. At least once: a kill between telling and noting it tells again.

SECURITY: what is sent names sources, paths and the repository's address, nothing else; URLs may hold secrets and are
never logged.
"""

from __future__ import annotations

import http.client
import smtplib
import subprocess
import urllib.error
import urllib.request
from dataclasses import asdict
from email.message import EmailMessage
from socket import gethostname

import msgspec

from gateway.api import Alarm
from gateway.catalog import AlarmRow, Catalog
from gateway.config.values import HookConfig, HookKind
from gateway.jobs.alarms import shown
from gateway.log import Log

LIMIT_SECONDS = 30.0
"""LIMIT: how long one hook may take for one alarm."""
LIMIT_ALARMS = 1_000
"""LIMIT: the newest alarms; older ones are closed and told of, or nobody could be told for very long."""
OPENED, CLOSED = 1, 2
_FAILURES = (OSError, subprocess.SubprocessError, smtplib.SMTPException, http.client.HTTPException, ValueError)


class Hooks:
    """Looks into the table and tells each hook what it was not told yet. One thread."""

    def __init__(self, catalog: Catalog, hooks: tuple[HookConfig, ...], log: Log) -> None:
        self._catalog = catalog
        self._hooks = hooks
        self._log = log
        self._failed: set[tuple[int, str, int]] = set()

    def tell(self) -> None:
        """Everything that is due, the oldest first. A hook that fails is logged and tried again next time."""
        if not self._hooks:
            return
        for row in reversed(self._catalog.alarms(LIMIT_ALARMS)):
            for hook in self._hooks:
                told = row.told.get(hook.name, 0)
                if told < OPENED and row.closed is None:
                    self._one(hook, row, OPENED)
                elif told == OPENED and row.closed is not None:
                    self._one(hook, row, CLOSED)

    def _one(self, hook: HookConfig, row: AlarmRow, level: int) -> None:
        (alarm,) = shown([row])
        try:
            send(hook, alarm)
        except _FAILURES as error:
            if (row.id, hook.name, level) not in self._failed:
                self._failed.add((row.id, hook.name, level))
                self._log.warning("hook.failed", hook=hook.name, kind=row.kind, subject=row.subject,
                                  problem=_without_url(error))  # fmt: skip
            return
        self._failed.discard((row.id, hook.name, level))
        self._catalog.told(row.id, hook.name, level)


def _without_url(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the answer was {error.code}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit code {error.returncode}"
    if isinstance(error, TimeoutError | subprocess.TimeoutExpired):
        return f"it did not end within {LIMIT_SECONDS:.0f} seconds"
    # What these say holds what they were given.
    return type(error).__name__ if isinstance(error, ValueError | http.client.HTTPException) else str(error)


def send(hook: HookConfig, alarm: Alarm) -> None:
    """Tell one hook of one alarm. Raises what the way to it raises."""
    document = msgspec.json.encode({"gateway": gethostname(), "state": _state(alarm), **asdict(alarm)})
    match hook.kind:
        case HookKind.COMMAND:
            subprocess.run(
                list(hook.command), input=document, timeout=LIMIT_SECONDS, check=True, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
        case HookKind.WEBHOOK:
            request = urllib.request.Request(  # noqa: S310  (the configuration allows http and https only)
                hook.url, data=document, headers={"Content-Type": "application/json"}, method="POST"
            )
            with urllib.request.urlopen(request, timeout=LIMIT_SECONDS):  # noqa: S310
                pass
        case HookKind.SMTP:
            host, _, port = hook.server.partition(":")
            with smtplib.SMTP(host, int(port or 25), timeout=LIMIT_SECONDS) as server:
                server.send_message(_mail(hook, alarm))


def _state(alarm: Alarm) -> str:
    return "opened" if alarm.closed is None else "closed"


def _mail(hook: HookConfig, alarm: Alarm) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"] = hook.sender, ", ".join(hook.recipients)
    mail["Subject"] = f"[gateway {gethostname()}] {alarm.kind} {_state(alarm)}: {alarm.subject}"
    mail.set_content("\n\n".join(part for part in (alarm.what, alarm.meaning, alarm.advice) if part) + "\n")
    return mail
