"""Rules of the house that no linter knows: sizes, links, hosts, durable writes, time and chance."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LONGEST_FILE = 600
# File -> why it may be longer.
LONG_FILES: dict[str, str] = {
    "gateway/api.py": "the one door: its values stand beside the protocol that takes and gives them",
    "gateway/engine.py": "implements the one door: every method of it, each a few lines",
    "scripts/rescue.py": "one file that somebody can carry to another machine, sharing no code with the product",
}

# "file:call" -> why this call of gateway/ outside durable.py does not write durably.
NOT_DURABLE: dict[str, str] = {}

WRITING_OS = {
    "fdatasync", "fsync", "ftruncate", "link", "makedirs", "mkdir", "mkfifo", "mknod", "posix_fallocate",
    "pwrite", "pwritev", "remove", "removedirs", "rename", "renames", "replace", "rmdir", "symlink", "sync",
    "truncate", "unlink", "write", "writev",
}  # fmt: skip
WRITING_PATH = {
    "hardlink_to", "mkdir", "rename", "rmdir", "symlink_to", "touch", "unlink", "write_bytes", "write_text",
}  # fmt: skip
WRITING_SHUTIL = {"copy", "copy2", "copyfile", "copyfileobj", "copytree", "move", "rmtree", "unpack_archive"}
OPEN_FLAGS = {"O_WRONLY", "O_RDWR", "O_CREAT", "O_APPEND", "O_TRUNC", "O_TMPFILE"}

# Modules whose every use, and functions whose use, belongs to gateway/clock.py.
CHANCE_MODULES = {"random", "secrets"}
TIME_AND_CHANCE = {
    "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter",
    "time.perf_counter_ns", "time.sleep", "datetime.datetime.now", "datetime.datetime.utcnow",
    "datetime.datetime.today", "datetime.date.today", "os.urandom", "os.getrandom", "uuid.uuid1", "uuid.uuid4",
}  # fmt: skip


def tracked() -> list[Path]:
    """Files that git has or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return [ROOT / name for name in sorted(set(listed.stdout.split("\0"))) if name and (ROOT / name).is_file()]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python_files(*folders: str) -> list[Path]:
    return [
        path for path in tracked() if path.suffix == ".py" and (not folders or name_of(path).split("/")[0] in folders)
    ]


class Uses(ast.NodeVisitor):
    """Every dotted name a module uses, its imports resolved: `from os import link as l; l()` is `os.link`."""

    def __init__(self, source: str) -> None:
        self._names: dict[str, str] = {}
        self.found: list[tuple[int, str, ast.Call | None]] = []
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self._names[alias.asname or alias.name.split(".")[0]] = (
                        alias.name if alias.asname else alias.name.split(".")[0]
                    )
                    self.found.append((node.lineno, alias.name, None))
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    self._names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                    self.found.append((node.lineno, f"{node.module}.{alias.name}", None))
        self.visit(tree)

    def _dotted(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return self._names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self._dotted(node.value)}.{node.attr}"
        return ""

    def visit_Call(self, node: ast.Call) -> None:
        self.found.append((node.lineno, self._dotted(node.func), node))
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.found.append((node.lineno, self._dotted(node), None))
        self.generic_visit(node)


def _strings(node: ast.Call) -> Iterator[str]:
    for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value


def _may_write(name: str, call: ast.Call) -> bool:
    """Is this call of `open`, `io.open`, `Path.open` or `os.open` anything but surely a read?"""
    if name == "os.open":
        nodes = [node for argument in call.args[1:] for node in ast.walk(argument)]
        flags = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        flags |= {node.id for node in nodes if isinstance(node, ast.Name)}
        return bool(flags & OPEN_FLAGS)
    position = 0 if name.endswith(".open") and name not in ("io.open", "os.open") else 1
    mode = next((keyword.value for keyword in call.keywords if keyword.arg == "mode"), None)
    if mode is None and len(call.args) > position:
        mode = call.args[position]
    if mode is None:
        return False
    if not (isinstance(mode, ast.Constant) and isinstance(mode.value, str)):
        # A mode we cannot read, unless this is another kind of open (zip member, webbrowser ...).
        return name in ("open", "io.open")
    return bool(re.fullmatch(r"[rwaxbt+U]+", mode.value)) and bool(set(mode.value) & set("wax+"))


def durable_writes(source: str) -> list[tuple[int, str]]:
    """(line, call) of everything that changes files."""
    writes = []
    for line, name, call in Uses(source).found:
        room, _, last = name.rpartition(".")
        if (
            (room == "os" and last in WRITING_OS)
            or (room == "shutil" and last in WRITING_SHUTIL)
            or name.startswith("tempfile.")
            or (call is not None and last == "open" and _may_write(name, call))
        ):
            writes.append((line, name))
        elif call is not None and last in WRITING_PATH and room not in ("os", "shutil"):
            writes.append((line, f"*.{last}"))
        elif call is not None and last == "replace" and len(call.args) == 1 and not call.keywords:
            # Path.replace(target); str.replace and dataclasses.replace take other arguments.
            writes.append((line, "*.replace"))
    return sorted(set(writes))


def time_and_chance(source: str) -> list[tuple[int, str]]:
    return sorted(
        {
            (line, name)
            for line, name, _ in Uses(source).found
            if name in TIME_AND_CHANCE or name.split(".")[0] in CHANCE_MODULES or name.startswith("numpy.random")
        }
    )


def test_no_file_is_longer_than_a_reader_bears() -> None:
    lengths = {name_of(path): path.read_bytes().count(b"\n") for path in python_files()}
    too_long = {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE and name not in LONG_FILES}
    assert not too_long, f"split these or say in LONG_FILES why not: {too_long}"
    stale = [name for name in LONG_FILES if lengths.get(name, 0) <= LONGEST_FILE]
    assert not stale, f"no longer long: {stale}"


def links(text: str) -> Iterator[str]:
    """Targets of markdown links outside code."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`\n]*`", "", text)
    for target in re.findall(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)", text):
        yield target
    for target in re.findall(r"^\[[^\]]+\]:\s*<?(\S+?)>?\s*$", text, flags=re.MULTILINE):
        yield target


def test_links_in_the_documentation_lead_somewhere() -> None:
    broken = []
    for path in tracked():
        if path.suffix != ".md":
            continue
        for target in links(path.read_text()):
            if re.match(r"[a-z][a-z0-9+.-]*:", target) or target.startswith("#"):
                continue
            file = target.split("#")[0]
            found = (ROOT / file.lstrip("/")) if file.startswith("/") else (path.parent / file)
            if not found.exists():
                broken.append(f"{name_of(path)}: {target}")
    assert not broken, broken


def test_every_decision_has_a_number_of_its_own_and_a_status() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert records, "no decisions found"
    numbers = [path.name[:4] for path in records]
    assert len(set(numbers)) == len(numbers), f"two decisions with one number: {numbers}"
    for path in records:
        text = path.read_text()
        assert text.startswith(f"# {path.name[:4]}. "), f"{name_of(path)}: begin with '# {path.name[:4]}. Title'"
        status = re.search(r"^Status: (accepted|superseded by \[\d{4}\]\(\d{4}-[a-z0-9-]+\.md\))$", text, re.MULTILINE)
        assert status, f"{name_of(path)}: no line 'Status: accepted' or 'Status: superseded by [NNNN](file)'"


def test_no_file_names_a_package_registry() -> None:
    # Put together here, so that this file does not name them either.
    hosts = [
        "." .join(parts)
        for parts in (
            ("pypi", "org"), ("pythonhosted", "org"), ("crates", "io"), ("npmjs", "org"), ("npmjs", "com"),
            ("proxy", "golang", "org"), ("maven", "org"), ("maven", "apache", "org"),
            ("deb", "debian", "org"),
            ("archive", "ubuntu", "com"), ("docker", "io"),
        )
    ]  # fmt: skip
    pattern = re.compile("|".join(map(re.escape, hosts)).encode(), re.IGNORECASE)
    naming = [name_of(path) for path in tracked() if pattern.search(path.read_bytes())]
    assert not naming, naming


def test_durable_writes_go_through_durable() -> None:
    found = {
        f"{name_of(path)}:{call}": line
        for path in python_files("gateway")
        if name_of(path) != "gateway/durable.py"
        for line, call in durable_writes(path.read_text())
    }
    new = {call: line for call, line in found.items() if call not in NOT_DURABLE}
    assert not new, f"use gateway.durable, or say in NOT_DURABLE why this is not a durable write: {new}"
    assert not NOT_DURABLE.keys() - found.keys(), f"gone: {NOT_DURABLE.keys() - found.keys()}"


def test_time_and_chance_come_from_the_clock() -> None:
    found = [
        f"{name_of(path)}:{line} {name}"
        for path in python_files("gateway")
        if name_of(path) != "gateway/clock.py"
        for line, name in time_and_chance(path.read_text())
    ]
    assert not found, found


def test_tests_do_not_sleep() -> None:
    """They wait for something, with a bound: tests.servers.process.until. Benches measure and may pause."""
    found = [
        f"{name_of(path)}:{line}"
        for path in python_files("tests")
        if not name_of(path).startswith(("tests/servers/", "tests/perf/"))
        for line, name in time_and_chance(path.read_text())
        if name == "time.sleep"
    ]
    assert not found, found


def test_the_api_is_a_contract_of_values() -> None:
    """gateway.api is imported by the web UI, so it must not pull in any room that works."""
    allowed = ("gateway.__version__", "gateway.api", "gateway.errors", "gateway.log", "gateway.model")
    sources = [path for path in python_files("gateway") if re.match(r"gateway/api(\.py|/)", name_of(path))]
    found = [
        f"{name_of(path)}:{line} {name}"
        for path in sources
        for line, name, call in Uses(path.read_text()).found
        if call is None and name.startswith("gateway.") and not name.startswith(allowed)
    ]
    assert not found, found


@pytest.mark.parametrize(
    "source",
    [
        "open('f', 'w')",
        "open('f', mode='ab')",
        "open('f', mode)",
        "from io import open as o\no('f', 'x')",
        "p.open('r+')",
        "import os\nos.open('f', os.O_RDONLY | os.O_CREAT)",
        "from os import link as l\nl('a', 'b')",
        "import os\nf = os.fsync",
        "p.write_bytes(b'')",
        "p.replace(q)",
        "import shutil as s\ns.rmtree('d')",
        "import tempfile\ntempfile.mkdtemp()",
    ],
)
def test_a_durable_write_is_seen(source: str) -> None:
    assert durable_writes(source)


@pytest.mark.parametrize(
    "source",
    [
        "open('f')",
        "open('f', 'rb')",
        "p.open()",
        "import os\nos.open('f', os.O_RDONLY | os.O_CLOEXEC)",
        "'a'.replace('a', 'b')",
        "from dataclasses import replace\nreplace(x, a=1)",
        "d.link",
        "container.open(key, 'name')",
    ],
)
def test_a_read_is_not_taken_for_a_write(source: str) -> None:
    assert not durable_writes(source)


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.time()",
        "from time import sleep as s\ns(1)",
        "from datetime import datetime\ndatetime.now()",
        "import datetime as d\nd.datetime.now(d.UTC)",
        "import os\nf = os.urandom",
        "import random",
        "from secrets import token_bytes",
        "import numpy as np\nnp.random.default_rng()",
    ],
)
def test_time_and_chance_are_seen(source: str) -> None:
    assert time_and_chance(source)


def test_links_are_seen() -> None:
    text = "[a](x.md) `[b](y.md)`\n```\n[c](z.md)\n```\n[d]: w.md#part\n"
    assert list(links(text)) == ["x.md", "w.md#part"]
