"""When a new chain opens. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NewestChain:
    """What is known of a source's newest chain. `problem`: why it takes no more entries, empty when it does."""

    storage: str
    problem: str = ""


def reason_to_roll(newest: NewestChain | None, storage: str) -> str:
    """Why the next generation of a source whose class is `storage` needs a new chain; empty when it needs none."""
    if newest is None:
        return "it is the source's first"
    if newest.problem:
        return f"the chain before takes no more entries: {newest.problem}"
    if newest.storage != storage:
        return f"the class changed from {newest.storage} to {storage}"
    return ""
