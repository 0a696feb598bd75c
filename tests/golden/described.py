"""What a repository holds, as plain JSON: file lists, restored trees, the catalog's rows.

Bytes are hexadecimal, paths base64 (they need not be text). Prose is left out on purpose: a golden file says what is
true, not how a message is worded.
"""

from __future__ import annotations

import os
import stat
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from gateway.format.filelist import Item, LeftOutRecord
from gateway.model.entry import entry_type
from gateway.model.ids import ChainName
from scripts import rescue

PROSE = {"problem", "reasons"}


def path_text(path: bytes) -> str:
    return b64encode(path).decode()


SINCE = frozenset({"delta_raw", "based", "absent", "bounded", "retired"})
"""Fields that records got at their ends after the goldens were made; `wide` has something else in their places."""


def plain(value: Any) -> Any:
    """A value of the catalog as JSON has it."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, ChainName):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    if is_dataclass(value):
        names = [field.name for field in fields(value)]
    elif isinstance(value, msgspec.Struct):
        names = [name for name in value.__struct_fields__ if name not in SINCE]
    else:
        return value
    return {name: bool(getattr(value, name)) if name in PROSE else plain(getattr(value, name)) for name in names}


# --- file lists -------------------------------------------------------------------------------------------------------


def product_record(item: Item | LeftOutRecord) -> dict[str, Any]:
    """A record as the product reads it."""
    if isinstance(item, LeftOutRecord):
        return {"path": path_text(item.path), "left_out": item.reason}
    e = item.entry
    return {
        "path": path_text(e.path), "type": e.kind, "size": e.size, "mtime_ns": e.mtime_ns, "mode": e.mode,
        "uid": e.uid, "gid": e.gid, "xattrs": [[name.hex(), value.hex()] for name, value in e.xattrs],
        "target": e.target.hex(), "link": path_text(e.hardlink), "digest": e.digest.hex(),
        "data_bytes": e.data_bytes, "holes": list(item.holes),
    }  # fmt: skip


def rescue_record(thing: tuple[Any, ...]) -> dict[str, Any]:
    """The same record as scripts/rescue.py reads it."""
    if isinstance(thing[0], bytes):
        return {"path": path_text(thing[0]), "left_out": thing[1]}
    e, holes, _ = thing
    return {
        "path": path_text(e.path), "type": e.type, "size": e.size, "mtime_ns": e.mtime_ns, "mode": e.mode,
        "uid": e.uid, "gid": e.gid, "xattrs": [[name.hex(), value.hex()] for name, value, *_ in e.xattrs],
        "target": e.target.hex(), "link": path_text(e.link), "digest": e.digest.hex(),
        "data_bytes": e.data_bytes, "holes": [n for hole in holes for n in hole],
    }  # fmt: skip


def rescue_records(repository: rescue.Repository, generation: rescue.Generation) -> list[dict[str, Any]]:
    data = rescue.Data(generation.chain, repository.store)
    return [rescue_record(thing) for thing in rescue.FileList(data, generation, repository.report).things()]


# --- trees ------------------------------------------------------------------------------------------------------------


def walk(root: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    for name in sorted(os.listdir(root)):
        status = os.lstat(root + b"/" + name)
        yield name, status
        if stat.S_ISDIR(status.st_mode):
            yield from ((name + b"/" + below, s) for below, s in walk(root + b"/" + name))


def tree(root: Path) -> dict[str, dict[str, Any]]:
    """What lies below a directory, by path, in the words of `wanted`."""
    found: dict[str, dict[str, Any]] = {}
    inodes: dict[int, bytes] = {}
    top = os.fsencode(root)
    for path, status in sorted(walk(top), key=lambda each: rescue.path_key(each[0])):
        full, kind = top + b"/" + path, int(entry_type(status.st_mode))
        one: dict[str, Any] = {
            "type": kind, "mtime_ns": status.st_mtime_ns,
            "xattrs": [[os.fsencode(n).hex(), os.getxattr(full, n, follow_symlinks=False).hex()]
                       for n in sorted(os.listxattr(full, follow_symlinks=False))],
        }  # fmt: skip
        if kind == rescue.SYMLINK:
            one["target"] = os.readlink(full).hex()
        else:
            one["mode"] = stat.S_IMODE(status.st_mode)
        if kind == rescue.FILE:
            first = inodes.setdefault(status.st_ino, path)
            one |= {"size": status.st_size, "content": blake3(Path(os.fsdecode(full)).read_bytes()).hexdigest()}
            one["link"] = path_text(first if first != path else b"")
        found[path_text(path)] = one
    return found


def wanted(records: list[dict[str, Any]], contents: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The tree that restoring these records must make. `contents`: digest of each whole file, holes included."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        if "left_out" in record or record["type"] > rescue.FIFO:
            continue
        one = {name: record[name] for name in ("type", "mtime_ns", "xattrs")}
        if record["type"] == rescue.SYMLINK:
            one["target"] = record["target"]
        else:
            one["mode"] = record["mode"]
        if record["type"] == rescue.FILE:
            one |= {"size": record["size"], "content": contents[record["path"]], "link": record["link"]}
        found[record["path"]] = one
    return found
