"""What takes long in a running engine does not hold up generations."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from gateway.api import Depth, Reference, no_progress
from gateway.daemon import Daemon
from gateway.log import silent
from gateway.store.memory import MemoryStore
from gateway.store.wrap import RetryingStore
from tests.flow.gateways import ENVIRONMENT, KIB, Gateway

SECONDS = 60


class Gate:
    """Holds up one kind of reading of a store until it is opened."""

    def __init__(self, store: MemoryStore, wanted: str) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self._get, self._store, self._wanted = store.get, store, wanted
        store.get = self.get  # type: ignore[method-assign]

    def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        if self._wanted in key and threading.current_thread().name.startswith("caller"):
            self.reached.set()
            assert self.opened.wait(SECONDS)
        return self._get(key, *arguments, **options)


@contextmanager
def served(gateway: Gateway, meet: Callable[[Daemon], None] = lambda _: None) -> Iterator[Daemon]:
    """An engine of this process. `meet` is shown it before it does anything."""
    one = Daemon(
        gateway.config, log=silent(gateway.clock), clock=gateway.clock, environment=ENVIRONMENT,
        store=RetryingStore(gateway.store, gateway.clock),
    )  # fmt: skip
    meet(one)
    one.start()
    yield one
    one.finish()


@pytest.fixture
def daemon(gateway: Gateway) -> Iterator[Daemon]:
    gateway.change(settle=timedelta(0), generation_interval=timedelta(0))
    gateway.source.noise("large", 300 * KIB)
    gateway.made()
    gateway.close()
    with served(gateway) as one:
        yield one


def call(daemon: Daemon, name: str, **arguments: Any) -> tuple[threading.Thread, list[Any]]:
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(daemon.call(name, arguments, "ada", no_progress))
        except BaseException as error:  # noqa: BLE001  (the test looks at it)
            answers.append(error)

    thread = threading.Thread(target=ask, name=f"caller-{name}")
    thread.start()
    return thread, answers


def protect(daemon: Daemon, gateway: Gateway, name: str) -> None:
    """A barrier after a new file: the generation is there when it returns, and everything else stands still."""
    gateway.source.write(name, name.encode() * 100)
    thread, answers = call(daemon, "barrier", source="src")
    while thread.is_alive():
        gateway.clock.advance(timedelta(seconds=3))
        thread.join(0.2)
    (report,) = answers
    assert not isinstance(report, BaseException), report
    newest = daemon.call("generations", {"source": "src"}, "", no_progress)
    assert max(newest, key=lambda each: each.number).state == "protected"
    listed = daemon.call("list_files", {"reference": Reference.parse("src"), "path": b""}, "", no_progress)
    assert name.encode() in [each.path for each in listed]


@pytest.mark.parametrize("wanted", ["/index/", "packs/"])
def test_a_verification_on_a_store_that_stands_still_lets_generations_be_made(
    gateway: Gateway, daemon: Daemon, wanted: str
) -> None:
    gate = Gate(gateway.store, wanted)
    thread, answers = call(daemon, "verify", depth=Depth.DATA)
    assert gate.reached.wait(SECONDS)
    for name in ("one", "two"):
        protect(daemon, gateway, name)
    assert not answers, "it is still being verified"
    assert [each.what for each in daemon.call("status", {}, "", no_progress).queue] == []
    gate.opened.set()
    thread.join(SECONDS)
    (report,) = answers
    assert report.problems == (), "what was written meanwhile is no damage"


def test_damage_is_found_and_written_down_beside_generations(gateway: Gateway, daemon: Daemon) -> None:
    gateway.healthy = False
    gateway.lose([*gateway.keys("packs/instant/"), *gateway.keys("packs/hot/")][0])
    thread, answers = call(daemon, "verify", depth=Depth.PRESENCE)
    thread.join(SECONDS)
    (report,) = answers
    assert report.problems
    context = daemon._context
    assert context is not None
    assert {str(row.state) for row in context.catalog.generations("src")} == {"incomplete"}


def test_a_rebuild_lets_generations_be_made_between_two_chains(
    gateway: Gateway, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = daemon._context
    assert context is not None
    before = context.catalog.generations("src")
    gate, queued = threading.Event(), daemon._queued
    reached = threading.Event()

    def slow(name: str, run: Any) -> Any:
        if name == "rebuild":
            found = queued(name, run)
            reached.set()
            assert gate.wait(SECONDS)
            return found
        return queued(name, run)

    monkeypatch.setattr(daemon, "_queued", slow)
    thread, answers = call(daemon, "rebuild")
    assert reached.wait(SECONDS)
    assert context.catalog.generations("src") == before, "nothing is missing meanwhile"
    protect(daemon, gateway, "one")
    gate.set()
    thread.join(SECONDS)
    (report,) = answers
    assert (report.generations, report.problems) == (2, ())


def test_who_queues_one_task_after_another_does_not_keep_sources_waiting(gateway: Gateway, daemon: Daemon) -> None:
    ended = threading.Event()

    def again() -> None:
        while not ended.is_set():
            daemon._queued("check", lambda _: None)

    threads = [threading.Thread(target=again, name=f"caller-{number}") for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        protect(daemon, gateway, "one")
    finally:
        ended.set()
        for thread in threads:
            thread.join(SECONDS)
