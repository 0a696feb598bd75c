"""The names of all durable effects: where each is met, as ``points.txt`` says, and as the code says.

A line of ``points.txt`` is a name and where a process is killed at it: steps of `tests.crash.cases`, or the test that
does it elsewhere.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from gateway.catalog.database import TRANSACTIONS
from gateway.format import log

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("points.txt")

# What each function of gateway/durable.py that is given a name makes of it.
EFFECTS = {
    "make_directory": ("mkdir",),
    "share_file": ("share", "rename"),
    "write_file": ("write", "rename"),
    "publish": ("rename",),
    "link_new": ("link",),
    "GrowingFile": ("create", "fsync", "rename"),
    "remove": ("unlink",),
    "remove_tree": ("rmtree",),
    "sweep_temporary": ("unlink",),
    "create_at": ("create",),
    "make_directory_at": ("mkdir",),
    "symlink_at": ("symlink",),
    "fifo_at": ("mkfifo",),
    "link_at": ("link",),
    "publish_at": ("rename",),
    "move_at": ("move",),
    "remove_at": ("unlink",),
    "sync_file": ("fsync",),
    "sync_file_system": ("syncfs",),
}

# Names that are not written out where they are used: file and expression -> what it may be.
COMPUTED = {
    ("gateway/engine.py", "name"): ("cache", "ids", "index", "log", "scratch", "sketches"),
    ("gateway/catalog/database.py", "f'catalog:{name}'"): tuple(f"catalog:{name}" for name in TRANSACTIONS),
    ("gateway/repository/chain.py", "f'store:{kind}'"): tuple(f"store:{kind}" for kind in log.PAYLOADS),
}


def listed() -> dict[str, str]:
    """Name -> where it is killed at, as the committed list says."""
    lines = [line.split(None, 1) for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    return {name: where.strip() for name, where in lines}


def _whats(file: str, node: ast.expr) -> tuple[str, ...]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return (node.value,)
    return COMPUTED[file, ast.unparse(node)]


def _calls(file: str, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if not isinstance(node.func.value, ast.Name) or node.func.value.id != "durable":
            continue
        name = node.func.attr
        if name == "effect":
            yield from _whats(file, node.args[0])
        elif name in EFFECTS:
            effects: tuple[str, ...] = EFFECTS[name]
            replace = next((ast.unparse(word.value) for word in node.keywords if word.arg == "replace"), "True")
            if name == "write_file" and replace != "True":
                effects = ("write", "link") if replace == "False" else ("write", "rename", "link")
            for what in _whats(file, node.args[0]):
                yield from (f"{what}:{effect}" for effect in effects)


def in_the_code() -> set[str]:
    """Every name that a durable effect in gateway/ can have. `KeyError`: one that `COMPUTED` must explain."""
    found: set[str] = set()
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        if file != "gateway/durable.py":
            found.update(_calls(file, ast.parse(path.read_text())))
    return found
