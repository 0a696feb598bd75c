"""Small repositories to tamper with: what they hold, what they looked like earlier, and what must be restored of them.

`TINY` are the golden repositories of at most 16 KiB, made anew by the same code; `LARGER` ones have what the tiny ones
lack: several chains, files that die in the middle, holds.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.config.values import (
    Config,
    KeysConfig,
    LimitsConfig,
    RepositoryConfig,
    SourceConfig,
    StateConfig,
    StorageClass,
)
from gateway.format import log, names
from tests.golden import described, make
from tests.golden.product import SMALL

LIMIT_BYTES = 16 * 1024
URL = "s3://bucket/gateway"
OURS = ".gateway-store"
"""What a directory store keeps for itself."""

Objects = dict[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """`moments`: the repository before each change to it; `foreign`: another repository of the same shape; `wanted`:
    generation id -> the tree that a restore makes; `declared`: pack or index -> the entry that declares it; `where`:
    holds `state` (the machine that wrote it) and `spool`.
    """

    name: str
    source: str
    sheet: str
    objects: Objects = field(repr=False)
    moments: tuple[Objects, ...] = field(repr=False)
    foreign: Objects = field(repr=False)
    wanted: dict[str, dict[str, dict[str, Any]]] = field(repr=False)
    declared: dict[str, str] = field(repr=False)
    where: Path

    def config(self, state: Path, spool: Path | None = None) -> Config:
        return Config(
            repository=RepositoryConfig(url=URL), state=StateConfig(directory=state),
            keys=KeysConfig(passphrase_file=self.where / "passphrase"), limits=LimitsConfig(workers=1, uploaders=1),
            sources=(SourceConfig(name=self.source, path=spool or self.where / "spool"),), writer=SMALL,
        )  # fmt: skip

    def blames(self, key: str) -> bool:
        """Whether this object is called damaged in the repository as it is."""
        return self.name == "tiny-damaged" and "/00000001-" in key


def objects_of(root: Path) -> Objects:
    files = (path for path in root.rglob("*") if path.is_file() and path.name != OURS)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(files)}


class Recorded(make.Builder):
    """A builder that keeps what the repository was before each change."""

    def __init__(self, base: Path, seed: str, **more: Any) -> None:
        self.moments: list[Objects] = []
        super().__init__(base, seed, **more)

    def ingest(self, **more: Any) -> str:
        self.moments.append(objects_of(self.root))
        return super().ingest(**more)

    def append(self, chain: int, kind: str, payload: log.Payload) -> None:
        self.moments.append(objects_of(self.root))
        super().append(chain, kind, payload)


def two_chains(b: make.Builder) -> None:
    """Five generations in two chains, one of them held, and entries after the last commit of each."""
    content = make.noise("chains", 6000)
    b.directory("d")
    b.file("d/small", make.prose("small", 4))
    b.file("large", content)
    b.file("other", make.noise("other", 5000))
    b.ingest()
    b.file("large", content[:2000] + b"changed" + content[2000:])
    second = b.ingest()
    b.append(1, log.HOLD, log.Hold(make.noise("hold", 16), bytes.fromhex(second[1:]), "tamper", "an audit"))
    os.unlink(b.path("other"))
    b.file("new", make.prose("new", 60))
    b.ingest()
    b.storage = StorageClass.HOT
    b.file("large", content[:1000] + b"again" + content[1000:])
    b.ingest()
    b.file("last", make.noise("last", 3000))
    b.ingest()


TINY = [name for name in make.GOLDENS if name.startswith("tiny-")]
LARGER: dict[str, Callable[[make.Builder], None]] = {"two-chains": two_chains}


def subject(name: str, base: Path) -> Subject:
    """Make one below `base`, with a machine that knows all of it."""
    write = LARGER[name] if name in LARGER else make.GOLDENS[name]
    b = Recorded(base / "made", name)
    write(b)
    other = make.Builder(base / "other", f"not {name}")
    write(other)
    facts: dict[str, Any] = {"generations": {}}
    spare = base / "rebuilt"
    state, b.state = b.state, spare
    make.expect(b, facts, b.contents)
    declared = _declared(b)
    b.state = state
    shutil.rmtree(spare)
    assert b.sheet is not None
    generations = facts["generations"]
    return Subject(
        name=name, source=b.source, sheet=b.sheet, objects=objects_of(b.root), moments=tuple(b.moments),
        foreign=objects_of(other.root), where=b.base, declared=declared,
        wanted={g: described.wanted(each["records"], each["contents"]) for g, each in generations.items()},
    )  # fmt: skip


def _declared(b: make.Builder) -> dict[str, str]:
    found = {}
    with b.opened() as engine:
        context = engine._reading()
        for row in context.catalog.chains():
            for pack in context.catalog.packs(row.chain):
                entry = names.entry(row.chain, pack.declared_by)
                found[names.pack(pack.storage, row.chain, pack.number, pack.pack_id)] = entry
                found[names.index(row.chain, pack.number, pack.pack_id)] = entry
    return found
