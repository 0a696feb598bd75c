"""What generations hold, asked of the product by its command line, as an operator would (docs/operate/cli.md)."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from tests.system.command import Gateway
from tests.writers.judge import PROTECTED, Generation, Held


def read_generations(gateway: Gateway, source: str) -> list[Generation]:
    """All generations of a source, oldest first. Files are listed of protected ones only: others may not open.

    Runs `generations`, and for each of them `show` and `ls`: seconds, where there are many.
    """
    rows = sorted(gateway.json("generations", source), key=lambda row: int(row["number"]))
    return [_generation(gateway, source, row) for row in rows]


def _generation(gateway: Gateway, source: str, row: Mapping[str, Any]) -> Generation:
    name = f"{source}@{row['number']}"
    detail = gateway.json("show", name)
    protected = row["state"] == PROTECTED
    return Generation(
        number=row["number"],
        state=row["state"],
        created=datetime.fromisoformat(row["created"]),
        files=files_of(gateway.json("ls", name)) if protected else {},
        held_back=held_back_of(detail["left_out"]),
        held_back_more=detail["left_out_more"],
    )


def files_of(listed: Sequence[Mapping[str, Any]]) -> dict[str, Held]:
    """Of what `gateway ls --json` says; a hard link is what its first member is."""
    files = {path_of(each): each for each in listed if each["type"] == "file"}
    held = {}
    for path, each in files.items():
        first = files[path_of(each, "hard_link_to")] if each["hard_link_to"] is not None else each
        held[path] = Held(digest=first["digest"], size=first["size"], evidence=first["evidence"])
    return held


def held_back_of(listed: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Of `left_out` in `show --json`, or `held_back` in `ingest --json`."""
    return {path_of(each): each["reason"] for each in listed}


def path_of(each: Mapping[str, Any], name: str = "path") -> str:
    """The exact name, with surrogates for what is not UTF-8, as `os.fsdecode` makes it."""
    exact = each.get(f"{name}_base64")
    return os.fsdecode(base64.b64decode(exact)) if exact is not None else str(each[name])
