"""Alarms go out over HTTP and SMTP, to servers on loopback."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.catalog import Catalog
from gateway.clock import FakeClock
from gateway.config.values import HookConfig, HookKind
from gateway.jobs.alarms import Alarms, Kind
from gateway.jobs.hooks import Hooks
from gateway.log import Collector, Log

START = datetime(2026, 11, 25, 7, tzinfo=UTC)
SECRET = "canary-7a1f"


class Server(socketserver.ThreadingTCPServer):
    """Listens on loopback; `told` is what it was told, `answers` what it says next, then 200 or 250."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, handler: type[socketserver.BaseRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.told: list[Any] = []
        self.answers: list[int] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def answer(self, usual: int) -> int:
        return self.answers.pop(0) if self.answers else usual


class Web(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = cast(Server, self.server)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.told.append((self.path, self.headers["Content-Type"], json.loads(body)))
        code = server.answer(200)
        if code == 0:
            self.wfile.write(f"nonsense about {SECRET}\r\n\r\n".encode())
            return
        self.send_response(code)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the library's signature)
        """Nothing."""


class Mail(socketserver.StreamRequestHandler):
    """As much SMTP as a client needs that has no password."""

    def handle(self) -> None:
        server = cast(Server, self.server)
        envelope: list[str] = []
        self._say(server.answer(220))
        while line := self.rfile.readline():
            verb = line.split(None, 1)[0].upper() if line.strip() else b""
            if verb in (b"MAIL", b"RCPT"):
                envelope.append(line.decode().split(":", 1)[1].split()[0])
                self._say(250)
            elif verb == b"DATA":
                self._say(354)
                data = b""
                while (part := self.rfile.readline()) != b".\r\n":
                    data += part
                server.told.append((envelope, message_from_bytes(data)))
                self._say(250)
            elif verb == b"QUIT":
                self._say(221)
                return
            else:
                self._say(250)

    def _say(self, code: int) -> None:
        self.wfile.write(b"%d said\r\n" % code)


@pytest.fixture
def web() -> Iterator[Server]:
    with Server(Web) as server:
        yield server
        server.shutdown()


@pytest.fixture
def mail() -> Iterator[Server]:
    with Server(Mail) as server:
        yield server
        server.shutdown()


class Desk:
    def __init__(self, catalog: Catalog, hook: HookConfig) -> None:
        self.clock = FakeClock(START)
        self.events = Collector()
        self.alarms = Alarms(catalog, self.clock, Log(lambda _: None, self.clock))
        self.hooks = Hooks(catalog, (hook,), Log(self.events, self.clock))

    def open(self) -> None:
        self.alarms.open(Kind.FILLING, "orcl-prod", "The spool is 90% full: \N{SNOWMAN}.", meaning="m", advice="do")
        self.hooks.tell()

    def close(self) -> None:
        self.clock.advance(timedelta(seconds=60))
        self.alarms.close(Kind.FILLING, "orcl-prod")
        self.hooks.tell()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "catalog.sqlite") as one:
        yield one


def _webhook(port: int) -> HookConfig:
    return HookConfig(name="chat", kind=HookKind.WEBHOOK, url=f"http://127.0.0.1:{port}/hooks/{SECRET}")


def test_a_webhook_is_posted_the_alarm_when_it_opens_and_when_it_closes(catalog: Catalog, web: Server) -> None:
    desk = Desk(catalog, _webhook(web.port))
    desk.open()
    desk.hooks.tell()
    desk.close()
    desk.hooks.tell()
    assert [(path, kind) for path, kind, _ in web.told] == [(f"/hooks/{SECRET}", "application/json")] * 2
    opened, closed = (document for _, _, document in web.told)
    assert (opened["state"], opened["kind"], opened["subject"]) == ("opened", "spool-filling", "orcl-prod")
    assert opened["what"].endswith("\N{SNOWMAN}.")
    assert (closed["state"], closed["closed"]) == ("closed", "2026-11-25T07:01:00Z")
    assert desk.events.events == []


@pytest.mark.parametrize("answer", [500, 404, 0])
def test_a_webhook_that_fails_is_logged_without_its_url_and_tried_again(
    catalog: Catalog, web: Server, answer: int
) -> None:
    web.answers = [answer, answer]
    desk = Desk(catalog, _webhook(web.port))
    desk.open()
    desk.hooks.tell()
    assert desk.events.names() == ["hook.failed"]
    desk.hooks.tell()
    desk.hooks.tell()
    assert [document["state"] for _, _, document in web.told] == ["opened"] * 3
    assert SECRET not in repr(desk.events.events)


def test_a_webhook_that_nobody_listens_at(catalog: Catalog, web: Server) -> None:
    web.shutdown()
    web.server_close()
    desk = Desk(catalog, _webhook(web.port))
    desk.open()
    assert "refused" in str(desk.events.events[0].fields["problem"])
    assert SECRET not in repr(desk.events.events)


def _mailing(port: int) -> HookConfig:
    return HookConfig(
        name="mail", kind=HookKind.SMTP, server=f"127.0.0.1:{port}", sender="gateway@example.net",
        recipients=("ops@example.net", "night@example.net"),
    )  # fmt: skip


def test_a_mail_goes_to_every_recipient(catalog: Catalog, mail: Server) -> None:
    desk = Desk(catalog, _mailing(mail.port))
    desk.open()
    desk.close()
    assert desk.events.events == []
    (envelope, opened), (_, closed) = mail.told
    assert envelope == ["<gateway@example.net>", "<ops@example.net>", "<night@example.net>"]
    assert opened["To"] == "ops@example.net, night@example.net"
    assert "spool-filling opened: orcl-prod" in opened["Subject"]
    assert "spool-filling closed: orcl-prod" in closed["Subject"]
    text = opened.get_payload(decode=True).decode()
    assert text.split() == ["The", "spool", "is", "90%", "full:", "\N{SNOWMAN}.", "m", "do"]


def test_a_mail_that_is_not_taken_is_tried_again(catalog: Catalog, mail: Server) -> None:
    mail.answers = [554]
    desk = Desk(catalog, _mailing(mail.port))
    desk.open()
    assert desk.events.names() == ["hook.failed"]
    assert mail.told == []
    desk.hooks.tell()
    assert len(mail.told) == 1
