"""A reload beside calls: each is answered by who keeps the source then, or told why not; none waits for ever."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest

from gateway.api import SealedFile, no_progress
from gateway.config.values import Config
from gateway.daemon import Daemon, Task
from gateway.errors import UsageError
from gateway.jobs import seals
from tests.flow.gateways import Gateway
from tests.flow.test_beside import SECONDS, call, served


@pytest.fixture
def daemon(gateway: Gateway) -> Iterator[Daemon]:
    gateway.change(settle=timedelta(0), generation_interval=timedelta(0))
    with served(gateway) as one:
        yield one


def reload(daemon: Daemon, config: Config) -> threading.Event:
    """As SIGHUP has it done, on the worker."""
    task = Task("reload", lambda _: daemon._take_over(config), threading.Event())
    daemon._tasks.put(task)
    daemon._wake.set()
    return task.done


def changed(gateway: Gateway) -> Config:
    source = replace(gateway.config.sources[0], expect_every=timedelta(days=1))
    return replace(gateway.config, sources=(source,))


@pytest.fixture
def digesting(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """A seal call that computes a digest, until it is let go on."""
    reached, opened = threading.Event(), threading.Event()
    real = seals.pin

    def pin(*arguments: Any, **more: Any) -> Any:
        reached.set()
        assert opened.wait(SECONDS)
        return real(*arguments, **more)

    monkeypatch.setattr(seals, "pin", pin)
    yield reached, opened
    opened.set()


def seal(daemon: Daemon, gateway: Gateway, *, wait: bool = False) -> tuple[threading.Thread, list[Any]]:
    data = os.urandom(3000)
    gateway.source.write("large", data)
    file = SealedFile(path=b"large", size=3000, digest=f"sha256:{sha256(data).hexdigest()}")
    return call(daemon, "seal", source="src", run="night", files=(file,), wait=wait)


def answered(daemon: Daemon, name: str, **arguments: Any) -> Any:
    thread, answers = call(daemon, name, **arguments)
    thread.join(10)
    assert answers, f"{name} waits"
    return answers[0]


@pytest.mark.parametrize("source", ["src", None])
def test_a_barrier_that_comes_with_a_reload_is_answered(
    gateway: Gateway, daemon: Daemon, monkeypatch: pytest.MonkeyPatch, source: str | None
) -> None:
    chosen = daemon._chosen

    def overtaken(name: str | None) -> Any:
        found = chosen(name)
        reload(daemon, changed(gateway)).wait(2)
        return found

    monkeypatch.setattr(daemon, "_chosen", overtaken)
    answer = answered(daemon, "barrier", source=source)
    assert isinstance(answer, UsageError)
    assert answer.what == "Source src was reconfigured."
    monkeypatch.undo()
    gateway.source.write("a", b"1")
    assert answered(daemon, "barrier", source=source).sources[0].failure is None


def test_nobody_waits_for_the_digests_of_a_seal(
    gateway: Gateway, daemon: Daemon, digesting: tuple[threading.Event, threading.Event]
) -> None:
    reached, opened = digesting
    thread, answers = seal(daemon, gateway)
    assert reached.wait(SECONDS)
    assert answered(daemon, "status").running
    assert str(answered(daemon, "begin", source="src", run="other").state) == "begun"
    assert str(answered(daemon, "fail", source="src", run="third").state) == "failed"
    assert reload(daemon, replace(gateway.config, hooks=())).wait(10), "and the worker goes on"
    gateway.source.write("a", b"1")
    assert answered(daemon, "barrier", source="src").sources[0].failure is None
    assert not answers
    opened.set()
    thread.join(SECONDS)
    (report,) = answers
    assert report.problems == ()


def test_two_seal_calls_of_one_run_are_one_seal(
    gateway: Gateway, daemon: Daemon, digesting: tuple[threading.Event, threading.Event]
) -> None:
    reached, opened = digesting
    first, one = seal(daemon, gateway, wait=True)
    assert reached.wait(SECONDS)
    digest = sha256(gateway.source.path("large").read_bytes()).hexdigest()
    file = SealedFile(path=b"large", size=3000, digest=f"sha256:{digest}")
    reached.clear()
    second, other = call(daemon, "seal", source="src", run="night", files=(file,))
    assert reached.wait(SECONDS)
    opened.set()
    first.join(SECONDS)
    second.join(SECONDS)
    context = daemon._context
    assert context is not None
    row = context.catalog.job("src", "night")
    assert row is not None
    assert (str(one[0].state), row.problems, len(other)) == ("protected", (), 1)
    assert len(context.catalog.jobs("src")) == 1


def test_a_seal_of_a_source_that_was_reconfigured_meanwhile_is_refused(
    gateway: Gateway, daemon: Daemon, digesting: tuple[threading.Event, threading.Event]
) -> None:
    reached, opened = digesting
    thread, answers = seal(daemon, gateway)
    assert reached.wait(SECONDS)
    assert reload(daemon, changed(gateway)).wait(10)
    opened.set()
    thread.join(SECONDS)
    assert isinstance(answers[0], UsageError)
    assert str(answered(daemon, "begin", source="src", run="night").state) == "begun"


def test_who_waits_for_a_run_of_a_source_that_is_kept_no_more_is_told(
    gateway: Gateway, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    (keeper,) = daemon._chosen("src")
    idle = threading.Event()

    def turn(*_: object) -> bool:
        idle.set()
        return False

    monkeypatch.setattr(type(keeper), "turn", turn)
    assert idle.wait(SECONDS), "the turn that was under way would find the run"
    thread, answers = seal(daemon, gateway, wait=True)
    context = daemon._context
    assert context is not None
    while not context.catalog.jobs("src"):
        thread.join(0.1)
    assert reload(daemon, replace(gateway.config, sources=())).wait(10)
    thread.join(10)
    assert isinstance(answers[0], UsageError)
    assert daemon.call("status", {}, "", no_progress).running


def test_sources_are_served_in_the_order_of_the_configuration(daemon: Daemon, gateway: Gateway) -> None:
    """Logs first, also when they came later, or changed."""
    gateway.add_source("logs")
    databases, logs = gateway.config.sources

    def order() -> list[str]:
        assert reload(daemon, gateway.config).wait(SECONDS)
        return list(daemon._keepers)

    assert order() == ["src", "logs"]
    gateway.config = replace(gateway.config, sources=(replace(logs, expect_every=timedelta(hours=1)), databases))
    assert order() == ["logs", "src"]
