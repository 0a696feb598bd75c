"""Files that do not hold still: left out and named, and taken as soon as they do."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO

import pytest

from gateway.api import Progress, Reference
from gateway.jobs import backup
from gateway.spool.pin import Pinned, Unreadable, pin
from gateway.spool.walk import SpoolEntry
from tests.flow.gateways import KIB, Gateway
from tests.flow.trees import noise, tree

Meddle = Callable[[SpoolEntry], None]


def meddling(monkeypatch: pytest.MonkeyPatch, path: bytes, *, pinned: Meddle | None = None,
             read: Meddle | None = None) -> None:  # fmt: skip
    """Do something to a file just before it is pinned, or after its first read."""

    def scripted(root: object, entry: SpoolEntry, **options: object) -> Pinned:
        if entry.path == path and pinned is not None:
            pinned(entry)
        one = pin(root, entry, **options)  # type: ignore[arg-type]
        if entry.path == path and read is not None:
            inner = one.read_into
            done: list[bool] = []

            def read_into(buffer: memoryview, offset: int) -> int:
                count = inner(buffer[: 16 * KIB], offset)
                if not done:
                    done.append(True)
                    read(entry)
                return count

            one.read_into = read_into  # type: ignore[method-assign]
        return one

    monkeypatch.setattr(backup, "pin", scripted)


SIZES = [10 * KIB, 300 * KIB]  # within a common stream, and a stream of its own


def prepare(gateway: Gateway, size: int) -> None:
    for name in ("a", "moving", "z"):
        gateway.source.noise(name, size)


def check(gateway: Gateway, reason: str) -> None:
    """Only the moving file is left out and named; the next pass has it, if it is still there."""
    report = gateway.ingest()
    assert report.generation is not None
    assert report.generation.state == "protected"
    assert [(left.path, left.reason) for left in report.held_back] == [(b"moving", reason)]
    assert gateway.list() == [b"a", b"z"]
    assert report.generation.left_out == 1
    shown = gateway.engine.show(Reference.parse("src"))
    assert [(left.path, left.reason) for left in shown.left_out] == [(b"moving", reason)]
    assert set(gateway.restored()) == {b"a", b"z"}


def check_next(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "pin", pin)
    made = gateway.made()
    assert (made.number, made.left_out) == (2, 0)
    assert gateway.restored() == tree(gateway.source.root)


@pytest.mark.parametrize("size", SIZES)
def test_changed_after_the_looks(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    prepare(gateway, size)
    meddling(monkeypatch, b"moving", pinned=lambda _: gateway.source.overwrite("moving", 5, b"changed"))
    check(gateway, "changed")
    check_next(gateway, monkeypatch)


@pytest.mark.parametrize("size", SIZES)
def test_changed_while_it_was_read(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """A rename over it does not break a lease; what is read stays one version, but it is no longer the file's."""
    prepare(gateway, size)

    def change(_: SpoolEntry) -> None:
        os.utime(gateway.source.path("moving"), ns=(0, 0))

    meddling(monkeypatch, b"moving", read=change)
    check(gateway, "changed")
    check_next(gateway, monkeypatch)


@pytest.mark.parametrize("size", SIZES)
def test_opened_for_writing_while_it_was_read(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    prepare(gateway, size)

    def change(_: SpoolEntry) -> None:
        # Opening waits for our lease to be given up, so it is asked without waiting.
        with pytest.raises(BlockingIOError):
            os.open(gateway.source.path("moving"), os.O_WRONLY | os.O_NONBLOCK)

    meddling(monkeypatch, b"moving", read=change)
    check(gateway, "changed")
    check_next(gateway, monkeypatch)


@pytest.mark.parametrize("size", SIZES)
def test_vanished(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    prepare(gateway, size)
    meddling(monkeypatch, b"moving", pinned=lambda _: gateway.source.path("moving").unlink())
    check(gateway, "vanished")
    monkeypatch.setattr(backup, "pin", pin)
    gateway.source.noise("moving", size)
    check_next(gateway, monkeypatch)


@pytest.mark.parametrize("size", SIZES)
def test_replaced_by_something_else(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    prepare(gateway, size)

    def replace(_: SpoolEntry) -> None:
        gateway.source.path("moving").unlink()
        gateway.source.path("moving").symlink_to("/etc/passwd")

    meddling(monkeypatch, b"moving", pinned=replace)
    check(gateway, "changed")
    check_next(gateway, monkeypatch)


@pytest.mark.parametrize("size", SIZES)
def test_a_writer_holds_it(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    prepare(gateway, size)
    with gateway.source.path("moving").open("r+b"):
        check(gateway, "writer")
    check_next(gateway, monkeypatch)


@pytest.mark.parametrize("size", SIZES)
def test_a_disk_that_cannot_read_it(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    prepare(gateway, size)

    def fail(entry: SpoolEntry) -> None:
        raise Unreadable(entry.path, "Input/output error at byte 16384.")

    meddling(monkeypatch, b"moving", read=fail)
    check(gateway, "unreadable")
    check_next(gateway, monkeypatch)


@pytest.mark.parametrize("size", SIZES)
def test_shorter_than_it_was(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    prepare(gateway, size)
    meddling(monkeypatch, b"moving", pinned=lambda _: os.truncate(gateway.source.path("moving"), 1))
    check(gateway, "changed")
    check_next(gateway, monkeypatch)


def growing(gateway: Gateway, file: IO[bytes]) -> Callable[[Progress], None]:
    def grow(progress: Progress) -> None:
        if progress.phase == "settling":
            file.write(b"more")
            file.flush()

    return grow


def test_growing_between_the_looks(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(gateway, KIB)
    with gateway.source.path("moving").open("ab") as file:
        report = gateway.ingest(progress=growing(gateway, file))
    assert [(left.path, left.reason) for left in report.held_back] == [(b"moving", "growing")]
    check_next(gateway, monkeypatch)


def test_a_growing_file_holds_back_its_other_names(gateway: Gateway) -> None:
    prepare(gateway, KIB)
    gateway.source.path("other").hardlink_to(gateway.source.path("moving"))
    with gateway.source.path("moving").open("ab") as file:
        report = gateway.ingest(progress=growing(gateway, file))
    assert {left.path for left in report.held_back} == {b"moving", b"other"}
    assert gateway.list() == [b"a", b"z"]
    gateway.made()
    assert gateway.restored() == tree(gateway.source.root)


@pytest.mark.parametrize("size", SIZES)
def test_a_file_left_out_holds_back_its_other_names(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    prepare(gateway, size)
    gateway.source.path("other").hardlink_to(gateway.source.path("moving"))
    meddling(monkeypatch, b"moving", pinned=lambda _: gateway.source.overwrite("moving", 0, b"x"))
    report = gateway.ingest()
    assert {left.path for left in report.held_back} == {b"moving", b"other"}
    assert gateway.list() == [b"a", b"z"]
    monkeypatch.setattr(backup, "pin", pin)
    gateway.made()
    assert gateway.restored() == tree(gateway.source.root)


def test_only_what_holds_still_is_news(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass in which the only new file could not be had makes no generation."""
    prepare(gateway, KIB)
    gateway.made()
    gateway.source.overwrite("moving", 0, b"new")
    meddling(monkeypatch, b"moving", pinned=lambda _: gateway.source.overwrite("moving", 0, noise(9, 8)))
    report = gateway.ingest()
    assert report.generation is None
    assert [left.path for left in report.held_back] == [b"moving"]
    check_next(gateway, monkeypatch)


# --- evidence --------------------------------------------------------------------------------------------------------


def test_below_the_minimum_evidence_is_held_back(gateway: Gateway) -> None:
    gateway.change(minimum_evidence=2)
    gateway.source.noise("a", KIB)
    gateway.source.path("d").mkdir()
    report = gateway.ingest()
    assert report.generation is not None  # the directory
    assert [(left.path, left.reason) for left in report.held_back] == [(b"a", "below-minimum-evidence")]
    assert gateway.list() == [b"d"]


def test_other_names_of_what_is_held_back_are_held_back(gateway: Gateway) -> None:
    gateway.change(minimum_evidence=2)
    gateway.source.noise("a", KIB)
    gateway.source.path("b").hardlink_to(gateway.source.path("a"))
    gateway.source.path("d").mkdir()
    report = gateway.ingest()
    assert {left.path for left in report.held_back} == {b"a", b"b"}
    assert gateway.list() == [b"d"]
    assert set(gateway.restored()) == {b"d"}


def test_a_named_person_answers_for_it(gateway: Gateway) -> None:
    gateway.change(minimum_evidence=3)
    gateway.source.noise("a", KIB)
    made = gateway.made(seal_now=True, operator="bob")
    assert (made.files, made.evidence) == (1, 1)
    assert gateway.engine.show(Reference.parse("src")).operator == "bob"
    assert gateway.ingest().generation is None
    assert gateway.restored() == tree(gateway.source.root)
