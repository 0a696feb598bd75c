"""The door: every call's values and errors come out on the other side as they went in."""

from __future__ import annotations

import dataclasses
import os
import socket
import threading
import types
import typing
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.api import Alarm, Change, DiffEntry, Head, Progress, Reference, SealedFile
from gateway.clock import SystemClock
from gateway.control import client, wire
from gateway.control.client import RemoteGateway, connected
from gateway.control.server import ControlServer, short_path
from gateway.errors import Corrupt, GatewayError, LocalStateError, LockHeld, UsageError
from gateway.log import Collector, Log
from gateway.model.ids import ChainName
from tests.unit.fake_api import DIGEST, FILES, GENERATION, MOMENT, FakeApi

CALLS = wire.calls()
ODD = b"odd\xff\x80/new\nline\0"
ODD_PATH = Path(os.fsdecode(b"/srv/odd\xff\n"))
GIVEN: dict[Any, Any] = {
    int: 2**62 + 1,
    float: 0.1,
    bool: True,
    str: 'text "\\ \n \N{SNOWMAN}',
    bytes: ODD,
    Path: ODD_PATH,
    timedelta: timedelta(days=3, seconds=7, microseconds=1),
    Decimal: Decimal("25.50"),
    datetime: datetime(2026, 11, 25, 7, 1, 2, 345678, tzinfo=UTC),
    Reference: Reference(source="a", number=3),
    Head: Head(chain=ChainName("a", 1), sequence=2, digest=DIGEST),
}


def sample(kind: Any, *, full: bool) -> Any:
    """A value of a type; `full`: with everything optional in it, else with nothing."""
    if kind in GIVEN:
        return GIVEN[kind]
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        wanted = [each for each in inner if each is not type(None)]
        return sample(wanted[0], full=full) if full else None
    if origin is tuple:
        if inner[-1] is not Ellipsis:
            return tuple(sample(each, full=full) for each in inner)
        return (sample(inner[0], full=True), sample(inner[0], full=False)) if full else ()
    assert isinstance(kind, type), kind
    if issubclass(kind, Enum):
        return list(kind)[-1 if full else 0]
    assert dataclasses.is_dataclass(kind), kind
    hints = typing.get_type_hints(kind)
    names = [
        each.name
        for each in dataclasses.fields(kind)
        if full or (each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING)
    ]
    return kind(**{name: sample(hints[name], full=full) for name in names})


def _shapes() -> Iterator[tuple[str, Any]]:
    for call in CALLS.values():
        yield f"{call.name} result", call.result
        for name, kind in call.arguments.items():
            yield f"{call.name} {name}", kind
    yield "progress", Progress


SHAPES = dict(_shapes())


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_argument_and_result_survives(shape: str, full: bool) -> None:
    kind = SHAPES[shape]
    value = sample(kind, full=full)
    again = wire.decode(wire.encode(value), kind)
    assert again == value
    assert repr(again) == repr(value)  # of the very same types


def test_every_method_of_the_api_is_a_call() -> None:
    assert set(CALLS) >= {"ingest", "restore", "seal", "status", "list_files", "version", "init"}
    assert set(CALLS) == {name for name in vars(FakeApi) if not name.startswith("_")} - {"close"}
    assert {name for name, call in CALLS.items() if call.iterates} == {"list_files", "diff"}
    assert "close" not in CALLS
    assert all("progress" not in call.arguments for call in CALLS.values())


@given(st.binary(max_size=40), st.binary(min_size=1, max_size=40).filter(lambda each: b"\0" not in each))
def test_any_bytes_are_a_path(name: bytes, path: bytes) -> None:
    sealed = SealedFile(path=name)
    assert wire.decode(wire.encode(sealed), SealedFile) == sealed
    place = Path(os.fsdecode(b"/" + path))
    again = wire.decode(wire.encode(place), Path)
    assert os.fsencode(again) == os.fsencode(place)


def test_what_is_not_of_the_type_is_refused() -> None:
    for data in (b"{}", b"null", b'{"path":"!"}', b'{"path":"YQ==","size":"3"}', b"", b"\xff"):
        with pytest.raises(msgspec.MsgspecError):
            wire.decode(data, SealedFile)


def _classes(root: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _classes(child)


def _error(kind: type[GatewayError]) -> GatewayError:
    if issubclass(kind, errors.ConfigError):
        return kind(("g.toml:1:1: one", "g.toml:2:1: two \N{SNOWMAN}"))
    if issubclass(kind, errors.Corrupt | errors.Missing):
        return kind("wrong", address="packs/1#2", meaning="m", advice="a")
    return kind("what", meaning="m", advice="a")


@pytest.mark.parametrize("kind", list(_classes()), ids=lambda kind: kind.__name__)
def test_every_error_comes_back_as_itself(kind: type[GatewayError]) -> None:
    error = _error(kind)
    document = wire.decode(wire.encode(wire.error_document(error)), wire.ErrorDocument)
    again = wire.as_error(document)
    assert type(again) is kind
    assert str(again) == str(error)
    assert again.args == error.args
    for part in ("what", "meaning", "advice", "exit_code", "address", "mistakes"):
        assert getattr(again, part, None) == getattr(error, part, None), part


@pytest.mark.parametrize("kind", ["NoSuchError", "ClassVar", "annotations", "__doc__", ""])
def test_an_error_of_another_version_is_the_general_one(kind: str) -> None:
    again = wire.as_error(wire.ErrorDocument(kind, "what", "m", "a"))
    assert type(again) is GatewayError
    assert (again.what, again.meaning, again.advice) == ("what", "m", "a")


# --- through the socket ----------------------------------------------------------------------------------------------


class Serving:
    """Carries out calls with a fake api."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        self.operators: list[str] = []

    def call(self, name: str, arguments: dict[str, Any], operator: str, progress: Callable[[Progress], None]) -> Any:
        self.operators.append(operator)
        told = {"progress": progress} if CALLS[name].tells else {}
        return getattr(self.api, name)(**arguments, **told)


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def log() -> Collector:
    return Collector()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Deeper than the 107 bytes that an address may have."""
    deep = tmp_path / ("deep" * 20) / ("er" * 20)
    deep.mkdir(parents=True)
    return deep / "control.sock"


@pytest.fixture
def remote(path: Path, api: FakeApi, log: Collector) -> Iterator[Any]:
    server = ControlServer(path, (), Serving(api), SystemClock(), Log(log, SystemClock()))
    try:
        yield RemoteGateway(path)
    finally:
        server.close()
    assert not path.exists()


def test_answers_are_those_of_the_api(remote: Any, api: FakeApi) -> None:
    assert remote.status() == api.answers["status"]
    assert remote.alarms(7) == api.answers["alarms"]
    assert tuple(remote.generations("a")) == (GENERATION,)
    assert list(remote.list_files(Reference(source="a"), b"x\xff")) == list(FILES)
    assert list(remote.diff(Reference(source="a"), Reference(source="a", number=1))) == []
    assert remote.release(dry_run=True) == api.answers["release"]
    assert [asked[0] for asked in api.asked] == ["status", "alarms", "generations", "list_files", "diff", "release"]
    assert api.asked[1] == ("alarms", 7)
    assert api.asked[3] == ("list_files", Reference(source="a"), b"x\xff")


def test_arguments_and_progress_go_both_ways(remote: Any, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Progress] = []
    monkeypatch.setattr("gateway.control.server.PROGRESS_SECONDS", 0.0)
    remote.ingest("a", seal_now=True, operator="ada", progress=told.append)
    assert [(each.phase, each.done) for each in told] == [("reading", 1), ("reading", 2), ("proving", 2)]
    files = [SealedFile(path=ODD, size=3), SealedFile(path=b"x", digest="sha256:" + DIGEST)]
    remote.seal("a", "mon", files=files, folder=ODD, requires=["x"], operator="ada", wait=True)
    assert api.asked[-1][:6] == ("seal", "a", "mon", tuple(files), ODD, ("x",))
    assert api.asked[-1][7] is True


def test_a_path_is_of_the_callers_directory(remote: Any, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.os, "getcwd", lambda: "/somewhere")
    remote.restore(Reference(source="a"), Path("to/../there"), paths=[b"x\xff"])
    assert api.asked[-1][2:4] == (Path("/somewhere/there"), (b"x\xff",))


def test_errors_are_raised_on_the_other_side(remote: Any, api: FakeApi) -> None:
    for kind in _classes():
        api.answers["show"] = error = _error(kind)
        with pytest.raises(kind) as caught:
            remote.show(Reference(source="a"))
        assert type(caught.value) is kind
        assert str(caught.value) == str(error)


def test_an_error_in_the_middle_of_a_list_comes_after_what_was_there(remote: Any, api: FakeApi) -> None:
    def some() -> Iterator[Any]:
        yield from FILES
        raise Corrupt("wrong", address="packs/9")

    api.answers["list_files"] = some
    listed = remote.list_files(Reference(source="a"))
    assert [next(listed) for _ in FILES] == list(FILES)
    with pytest.raises(Corrupt) as caught:
        next(listed)
    assert caught.value.address == "packs/9"


def test_a_defect_reaches_the_caller_and_the_log(remote: Any, api: FakeApi, log: Collector) -> None:
    api.answers["status"] = ZeroDivisionError("by zero")
    with pytest.raises(GatewayError, match="Unexpected ZeroDivisionError in the engine: by zero"):
        remote.status()
    assert log.names() == ["door.defect"]
    api.answers["status"] = UsageError("now another")
    with pytest.raises(UsageError):
        remote.status()


def test_a_long_list_comes_whole(remote: Any, api: FakeApi) -> None:
    many = [DiffEntry(path=b"%d\xff" % number, change=Change.ADDED, after=FILES[0]) for number in range(5000)]
    api.answers["diff"] = many
    assert list(remote.diff(Reference(source="a"), Reference(source="a"))) == many


def test_a_method_that_is_none_is_an_attribute_error(remote: Any) -> None:
    with pytest.raises(AttributeError):
        remote.nothing()


def test_nobody_listens(tmp_path: Path) -> None:
    assert connected(tmp_path / "none.sock") is None
    (tmp_path / "file").touch()
    assert connected(tmp_path / "file") is None
    with pytest.raises(LocalStateError):
        RemoteGateway(tmp_path / "none.sock").status()


def test_one_engine_listens_at_a_path_and_a_dead_one_leaves_it(remote: Any, path: Path, api: FakeApi) -> None:
    del remote
    assert connected(path) is not None
    with pytest.raises(LockHeld):
        ControlServer(path, (), Serving(api), SystemClock(), Log(Collector(), SystemClock()))


def test_a_socket_that_nobody_answers_at_is_taken_over(path: Path, api: FakeApi) -> None:
    with socket.socket(socket.AF_UNIX) as left, short_path(path) as short:
        left.bind(short)
    assert path.is_socket()
    assert connected(path) is None
    server = ControlServer(path, (), Serving(api), SystemClock(), Log(Collector(), SystemClock()))
    try:
        assert oct(path.stat().st_mode & 0o777) == "0o600"
        assert RemoteGateway(path).status() == api.answers["status"]
    finally:
        server.close()


def test_many_callers_at_once(remote: Any, api: FakeApi) -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(remote.alarms())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [api.answers["alarms"]] * 20
    assert all(isinstance(each[0], Alarm) and each[0].opened == MOMENT for each in found)
