"""Events, their two shapes, and names that may be any bytes."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import FakeClock
from gateway.config import Secret
from gateway.log import (
    Collector,
    Event,
    Level,
    LibraryHandler,
    LineSink,
    Log,
    human_line,
    json_line,
    printable,
    silent,
)

ROOT = Path(__file__).parents[2]
MOMENT = datetime(2026, 11, 25, 7, 0, 0, 123456, tzinfo=UTC)


class Colour(StrEnum):
    RED = "red"


FIELDS: dict[str, object] = {
    "source": "orcl-prod",
    "path": b"a b\n\xff\\.dbf",
    "pack": 17,
    "ratio": 0.5,
    "ok": True,
    "none": None,
    "at": MOMENT,
    "took": timedelta(seconds=90),
    "colour": Colour.RED,
    "file": PurePath("/x/y"),
    "list": (1, b"\xff"),
    "map": {"k": Secret("canary-7a1f")},
    "secret": Secret("canary-7a1f"),
    "text": 'say "hi"',
    "empty": "",
    "level": "collides",
}


def log(shape: object = None) -> tuple[Log, io.StringIO]:
    stream = io.StringIO()
    return Log(LineSink(json_line if shape is None else human_line, stream), FakeClock(MOMENT)), stream


def test_json_lines() -> None:
    writer, stream = log()
    writer.info("pack.uploaded", **FIELDS)
    record = json.loads(stream.getvalue())
    assert record == {
        "ts": "2026-11-25T07:00:00.123Z",
        "level": "info",
        "event": "pack.uploaded",
        "source": "orcl-prod",
        "path": "a b\\n\\xff\\\\.dbf",
        "pack": 17,
        "ratio": 0.5,
        "ok": True,
        "none": None,
        "at": "2026-11-25T07:00:00Z",
        "took": 90.0,
        "colour": "red",
        "file": "/x/y",
        "list": [1, "\\xff"],
        "map": {"k": "***"},
        "secret": "***",
        "text": 'say "hi"',
        "empty": "",
        "level_": "collides",
    }


def test_human_lines() -> None:
    writer, stream = log("human")
    writer.warning("file.held_back", **FIELDS)
    line = stream.getvalue()
    assert line.startswith("2026-11-25T07:00:00Z WARNING file.held_back source=orcl-prod path=")
    assert line.count("\n") == 1
    assert 'text="say \\"hi\\""' in line
    assert 'empty=""' in line
    assert "secret=***" in line
    assert "canary" not in line


def test_levels_and_bound_fields() -> None:
    seen = Collector()
    writer = Log(seen, FakeClock(MOMENT), level=Level.WARNING).bind(source="a", job=1)
    for call in (writer.debug, writer.info, writer.warning, writer.error):
        call("a.b", job=2)
    assert [event.level for event in seen.events] == [Level.WARNING, Level.ERROR]
    assert seen.events[0].fields == {"source": "a", "job": 2}
    assert seen.names() == ["a.b", "a.b"]


def test_a_stream_that_fails_stops_nothing() -> None:
    writer, stream = log()
    stream.close()
    writer.error("a.b")
    silent().error("a.b")


def test_what_libraries_say() -> None:
    seen = Collector()
    handler = LibraryHandler(Log(seen, FakeClock(MOMENT), level=Level.DEBUG))
    for level in (logging.INFO, logging.WARNING, logging.CRITICAL):
        handler.handle(logging.LogRecord("boto", level, "f", 1, "retry %s", ("x",), None))
    handler.handle(logging.LogRecord("boto", logging.INFO, "f", 1, "broken %d", ("x",), None))
    assert [event.level for event in seen.events] == [Level.DEBUG, Level.WARNING, Level.WARNING, Level.DEBUG]
    assert seen.events[0].fields == {"library": "boto", "text": "retry x"}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"plain.dbf", "plain.dbf"),
        ("übung".encode(), "übung"),
        (b"a\nb\r\t\\", "a\\nb\\r\\t\\\\"),
        (b"\xff\x00\x7f", "\\xff\\x00\\x7f"),
        ("\u202e\u0085\U000e0001".encode(), "\\u202e\\u0085\\U000e0001"),
        ("\udcff", "\\xff"),
        (PurePath("a\udcfe"), "a\\xfe"),
    ],
)
def test_printable(name: bytes | str | PurePath, shown: str) -> None:
    assert printable(name) == shown


def unescaped(shown: str) -> bytes:
    simple = {"\\\\": b"\\", "\\n": b"\n", "\\r": b"\r", "\\t": b"\t"}
    out = b""
    for part in re.findall(r"\\x..|\\u....|\\U........|\\.|.", shown):
        if part in simple:
            out += simple[part]
        elif part.startswith("\\x"):
            out += bytes.fromhex(part[2:])
        elif part.startswith("\\"):
            out += chr(int.from_bytes(bytes.fromhex(part[2:]))).encode()
        else:
            out += part.encode()
    return out


@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")))
def test_printable_is_safe_and_unambiguous(name: bytes) -> None:
    shown = printable(name)
    assert shown.isprintable()
    assert unescaped(shown) == name


def event_names() -> list[tuple[str, ast.expr]]:
    """First argument of every call of a log in the tree."""
    found = []
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            owner = node.func.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            if isinstance(owner, ast.Call) and isinstance(owner.func, ast.Attribute):
                name = owner.func.attr
            if name in ("log", "_log") and node.func.attr in ("debug", "info", "warning", "error"):
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", node.args[0]))
    return found


def test_every_event_has_a_fixed_dotted_name() -> None:
    names = event_names()
    assert names
    wrong = [
        place
        for place, name in names
        if not isinstance(name, ast.Constant) or not re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)+", str(name.value))
    ]
    assert not wrong, f"an event's name is a literal of two or more lower-case words with dots: {wrong}"


def test_an_event_is_a_value() -> None:
    event = Event(moment=MOMENT, level=Level.INFO, name="a.b")
    assert human_line(event) == "2026-11-25T07:00:00Z INFO    a.b"
