"""Who is told of alarms, when, and what the log says where that fails. Over the network: tests/system/test_hooks.py."""

from __future__ import annotations

import dataclasses
import http.client
import json
import smtplib
import subprocess
import urllib.error
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import Message
from pathlib import Path

import pytest

from gateway.api import Alarm
from gateway.catalog import Catalog
from gateway.clock import FakeClock
from gateway.config.values import HookConfig, HookKind
from gateway.jobs import hooks as telling
from gateway.jobs.alarms import Alarms, Kind
from gateway.jobs.hooks import Hooks, send
from gateway.log import Collector, Level, Log

START = datetime(2026, 11, 25, 7, tzinfo=UTC)
SECRET = "https://chat.example.net/hooks/canary-7a1f"
PAGER = HookConfig(name="pager", kind=HookKind.COMMAND, command=("page",))
CHAT = HookConfig(name="chat", kind=HookKind.WEBHOOK, url=SECRET)


class Desk:
    """A table of alarms and what was sent where."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.clock = FakeClock(START)
        self.events = Collector()
        self.log = Log(self.events, self.clock)
        self.alarms = Alarms(catalog, self.clock, Log(lambda _: None, self.clock))
        self.sent: list[tuple[str, str, str]] = []
        self.trouble: Exception | None = None

    def hooks(self, *hooks: HookConfig) -> Hooks:
        return Hooks(self.catalog, hooks, self.log)

    def send(self, hook: HookConfig, alarm: Alarm) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.sent.append((hook.name, alarm.kind, "opened" if alarm.closed is None else "closed"))

    def open(self, kind: Kind = Kind.OVERDUE, what: str = "It is late.") -> None:
        self.clock.advance(timedelta(seconds=1))
        self.alarms.open(kind, "a", what, meaning="m", advice="do")

    def close(self, kind: Kind = Kind.OVERDUE) -> None:
        self.clock.advance(timedelta(seconds=1))
        self.alarms.close(kind, "a")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    with Catalog(tmp_path / "catalog.sqlite") as catalog:
        desk = Desk(catalog)
        monkeypatch.setattr(telling, "send", desk.send)
        yield desk


def test_opening_and_closing_are_told_once_each(desk: Desk) -> None:
    hooks = desk.hooks(PAGER, CHAT)
    hooks.tell()
    assert desk.sent == []
    desk.open()
    for _ in range(3):
        hooks.tell()
    desk.open(what="It is later.")
    hooks.tell()
    assert desk.sent == [("pager", "source-overdue", "opened"), ("chat", "source-overdue", "opened")]
    desk.close()
    for _ in range(3):
        hooks.tell()
    assert desk.sent[2:] == [("pager", "source-overdue", "closed"), ("chat", "source-overdue", "closed")]
    desk.open()
    desk.hooks(PAGER).tell()
    assert desk.sent[4:] == [("pager", "source-overdue", "opened")]


def test_the_oldest_alarm_is_told_first(desk: Desk) -> None:
    desk.open(Kind.STORE)
    desk.open(Kind.FILLING)
    desk.hooks(PAGER).tell()
    assert [kind for _, kind, _ in desk.sent] == ["store-refusing", "spool-filling"]


def test_what_was_over_before_anybody_was_told_is_not_told(desk: Desk) -> None:
    desk.open()
    desk.close()
    desk.hooks(PAGER).tell()
    assert desk.sent == []


def test_after_a_restart_nobody_is_told_twice_and_a_new_hook_is_told(desk: Desk) -> None:
    desk.open()
    desk.hooks(PAGER).tell()
    desk.hooks(PAGER, CHAT).tell()
    assert desk.sent == [("pager", "source-overdue", "opened"), ("chat", "source-overdue", "opened")]
    desk.close()
    desk.hooks(CHAT).tell()
    desk.hooks().tell()
    desk.hooks(PAGER).tell()
    assert desk.sent[2:] == [("chat", "source-overdue", "closed"), ("pager", "source-overdue", "closed")]


def test_a_failure_is_logged_once_and_tried_again_until_it_works(desk: Desk) -> None:
    hooks = desk.hooks(CHAT)
    desk.open()
    desk.trouble = ConnectionRefusedError(111, "Connection refused")
    for _ in range(3):
        hooks.tell()
    assert desk.events.names() == ["hook.failed"]
    (event,) = desk.events.events
    assert event.level is Level.WARNING
    assert (event.fields["hook"], event.fields["kind"], event.fields["subject"]) == ("chat", "source-overdue", "a")
    desk.trouble = None
    hooks.tell()
    assert desk.sent == [("chat", "source-overdue", "opened")]
    desk.close()
    desk.trouble = ConnectionRefusedError(111, "Connection refused")
    hooks.tell()
    assert desk.events.names() == ["hook.failed", "hook.failed"]
    desk.trouble = None
    hooks.tell()
    assert desk.sent[1:] == [("chat", "source-overdue", "closed")]


def test_one_hook_that_fails_does_not_keep_others_from_being_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fussy(hook: HookConfig, alarm: Alarm) -> None:
        if hook is CHAT:
            raise OSError("no")
        desk.send(hook, alarm)

    monkeypatch.setattr(telling, "send", fussy)
    desk.open(Kind.STORE)
    desk.open(Kind.CLOCK)
    desk.hooks(CHAT, PAGER).tell()
    assert [name for name, _, _ in desk.sent] == ["pager", "pager"]


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (urllib.error.HTTPError(SECRET, 500, "Internal", Message(), None), "the answer was 500"),
        (urllib.error.URLError(ConnectionRefusedError(111, "Connection refused")), "Connection refused"),
        (subprocess.CalledProcessError(7, ["page", SECRET]), "exit code 7"),
        (subprocess.TimeoutExpired(["page", SECRET], 30), "it did not end within 30 seconds"),
        (TimeoutError("timed out"), "it did not end within 30 seconds"),
        (ValueError(f"unknown url type: {SECRET}"), "ValueError"),
        (http.client.InvalidURL(f"nonnumeric port: '{SECRET}'"), "InvalidURL"),
        (http.client.BadStatusLine(SECRET), "BadStatusLine"),
        (smtplib.SMTPServerDisconnected("Connection unexpectedly closed"), "Connection unexpectedly closed"),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else "",
)
def test_no_failure_ends_the_telling_or_shows_a_url(desk: Desk, trouble: Exception, said: str) -> None:
    desk.open()
    desk.trouble = trouble
    desk.hooks(CHAT).tell()
    (event,) = desk.events.events
    assert said in str(event.fields["problem"])
    assert "canary" not in repr(event)


# --- a program -------------------------------------------------------------------------------------------------------

ALARM = Alarm(kind="spool-filling", subject="a", what="It is 90% full.", meaning="m", advice="Add space.", opened=START)


def _program(directory: Path, text: str) -> HookConfig:
    program = directory / "hook"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return HookConfig(name="p", kind=HookKind.COMMAND, command=(str(program), "$HOME; two words"))


def test_a_program_gets_the_document_on_standard_input_and_its_arguments_as_they_are(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hook = _program(tmp_path, f'cat > "{tmp_path}/told"; echo "$1" > "{tmp_path}/argument"; echo noise; echo noise >&2')
    send(hook, ALARM)
    assert json.loads((tmp_path / "told").read_text()) == {
        "gateway": telling.gethostname(), "state": "opened", "kind": "spool-filling", "subject": "a",
        "what": "It is 90% full.", "meaning": "m", "advice": "Add space.", "opened": "2026-11-25T07:00:00Z",
        "closed": None,
    }  # fmt: skip
    assert (tmp_path / "argument").read_text() == "$HOME; two words\n"
    assert capfd.readouterr() == ("", "")
    send(hook, dataclasses.replace(ALARM, closed=START))
    document = json.loads((tmp_path / "told").read_text())
    assert (document["state"], document["closed"]) == ("closed", "2026-11-25T07:00:00Z")


def test_a_program_that_fails_hangs_or_is_not_there_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        send(_program(tmp_path, "exit 7"), ALARM)
    with pytest.raises(FileNotFoundError):
        send(HookConfig(name="p", kind=HookKind.COMMAND, command=(str(tmp_path / "none"),)), ALARM)
    monkeypatch.setattr(telling, "LIMIT_SECONDS", 0.05)
    with pytest.raises(subprocess.TimeoutExpired):
        send(_program(tmp_path, "exec sleep 60"), ALARM)
