"""The scanner that finds where keys of a valid TOML text stand."""

from __future__ import annotations

import contextlib
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.positions import Position, locate


@pytest.mark.parametrize(
    ("text", "path", "position"),
    [
        ("a = 1\n  b = 2", ("b",), (2, 3)),
        ("[a]\nb = 1", ("a",), (1, 1)),
        ("[a.b]\nc = 1", ("a", "b", "c"), (2, 1)),
        ("[ 'a x' . \"b\\u0041\" ]\nc = 1", ("a x", "bA", "c"), (2, 1)),
        ("a.b.c = 1", ("a", "b", "c"), (1, 5)),
        ("[[s]]\nx = 1\n[[s]]\nx = 2", ("s", 1, "x"), (4, 1)),
        ("[[s]]\n[s.t]\nx = 1\n[[s]]\n[s.t]\nx = 1", ("s", 1, "t", "x"), (6, 1)),
        ("a = '''\nb = 1\n[c]'''\nd = 1", ("d",), (4, 1)),
        ('a = """\n"" \\""" b = 1\n"""\nd = 1', ("d",), (4, 1)),
        ('a = """x"""""\nd = 1', ("d",), (2, 1)),
        ("a = ''''x''''\nd = 1", ("d",), (2, 1)),
        ('a = "# \\" ]"\nd = 1', ("d",), (2, 1)),
        ("a = [ 1, # ]\n  [2, 3],\n  {x = 4}, ]\nd = 1", ("a", 2, "x"), (3, 4)),
        ("a = [ 1, # ]\n  [2, 3],\n  {x = 4}, ]\nd = 1", ("d",), (4, 1)),
        ("a = [ 1, # ]\n  [2, 3],\n  {x = 4}, ]\nd = 1", ("a", 1, 1), (2, 7)),
        ("a = { b = { c = 1 }, d = [] }\ne = 1979-05-27 07:32:00Z # x", ("a", "d"), (1, 22)),
        ("a = {}\nb = []\nc = 1", ("c",), (3, 1)),
        ('"ä" = 1\n\t"ö" = 2', ("ö",), (2, 2)),
    ],
)
def test_a_key_is_found(text: str, path: tuple[str | int, ...], position: tuple[int, int]) -> None:
    tomllib.loads(text)
    assert locate(text)[path] == Position(*position)


def paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key, each in value.items():
            found += paths(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            found += paths(each, (*path, index))
    return found


KEYS = st.text(alphabet='ab-_"\\\n#[]. ä', min_size=1, max_size=5)
SCALARS = st.integers() | st.booleans() | st.floats(allow_nan=False) | st.text(alphabet="a\"'#\\]}\n,=", max_size=8)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'''{value}'''" if "'" not in value and "\n" in value[1:] else quoted(value)
    if isinstance(value, list):
        return "[" + "".join(f"\n  {written(each)}, # ]" for each in value) + "\n]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {written(each)}" for key, each in value.items()) + "}"
    return repr(value)


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.dictionaries(KEYS, VALUES, max_size=4))
def test_every_value_of_a_document_has_a_place(top: dict[str, Any], tables: dict[str, Any]) -> None:
    lines = [f"{quoted(key)} = {written(value)} # end" for key, value in top.items()]
    for _ in range(2):
        lines += ["[['tables']]", *(f"{quoted(key)} = {written(value)}" for key, value in tables.items())]
    text = "\n".join(lines)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assert "tables" in top  # the one way in which this text is not valid
        return
    found = locate(text)
    source = text.split("\n")
    for path in paths(content):
        place = found[path]
        rest = source[place.line - 1][place.column - 1 :]
        if isinstance(path[-1], str) and path != ("tables",):
            assert rest.startswith(quoted(path[-1]))


@given(st.text(alphabet="[]{}\"'=.,#\n ab\\", max_size=40))
def test_the_scanner_ends_on_any_text(text: str) -> None:
    with contextlib.suppress(IndexError):
        locate(text)
