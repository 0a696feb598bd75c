"""What must hold after a kill, and once the command was given again. Each check returns sentences about what does not.

They run in processes of their own (`tests.crash.child`), on the machine itself or on an empty one beside it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gateway import durable
from gateway.api import Depth, GenerationInfo, GenerationState, Reference
from gateway.catalog import Catalog
from gateway.catalog.rows import UploadState
from gateway.engine import Engine
from gateway.format import names
from gateway.jobs.context import Context
from gateway.repository.chain import Chain, NeverBorn
from gateway.store.directory import UPLOADS
from tests.crash.machine import SOURCE, Machine
from tests.flow.trees import Tree, tree

Problems = list[str]
LOST = ""
"""Stands for the spool of a generation that is incomplete because a pack of it was lost."""


def _restored(engine: Engine, machine: Machine, number: int) -> Tree:
    target = machine.root / "restored"
    report = engine.restore(Reference(source=SOURCE, number=number), target, incomplete=True)
    found = tree(target)
    shutil.rmtree(target)
    if report.left_out or report.notes:
        raise AssertionError(f"restore of {number}: {report}")
    return found


def elsewhere(machine: Machine, run: int, spools: list[str]) -> Problems:
    """An empty machine just after the kill: everything committed is there and equal, in the order of `spools`, of
    which the last need not be there; what a checkpoint lists is a part of the spool that was being read. An empty
    name is a generation that has lost a pack.
    """
    problems = []
    state = machine.root / "elsewhere"
    engine = machine.engine(run, state=state)
    try:
        report = engine.rebuild()
        if LOST not in spools:
            problems += [f"rebuild elsewhere: {each}" for each in report.problems]
        infos = sorted(engine.generations(SOURCE), key=lambda info: info.number)
        committed = [info for info in infos if "checkpoint" not in info.reason]
        if len(committed) not in (len(spools), len(spools) - 1):
            problems.append(f"{len(committed)} generations for {len(spools)} spools")
        problems += _as_spools(engine, machine, committed, spools)
        for info in infos:
            if info not in committed:
                problems += _incomplete(engine, machine, info.number, tree(Path(spools[-1])))
    finally:
        engine.close()
        shutil.rmtree(state, ignore_errors=True)
    return problems


def _as_spools(engine: Engine, machine: Machine, infos: list[GenerationInfo], spools: list[str]) -> Problems:
    problems = []
    for info, spool in zip(infos, spools, strict=False):
        if spool == LOST:
            continue
        if info.state is not GenerationState.PROTECTED:
            problems.append(f"generation {info.number} is {info.state}: {info.reason}")
        if _restored(engine, machine, info.number) != tree(Path(spool)):
            problems.append(f"generation {info.number} is not what was backed up")
    return problems


def _incomplete(engine: Engine, machine: Machine, number: int, whole: Tree) -> Problems:
    found = _restored(engine, machine, number)
    return [f"{path!r} of checkpoint {number} is not what was read" for path in found if found[path] != whole[path]
            and found[path].kind != "directory"]  # fmt: skip


def checkpoint(machine: Machine, run: int) -> list[int]:
    """How many files the newest checkpoint gives back, all equal to the spool's; 0 when there is none. A file that is
    not equal raises.
    """
    whole = tree(machine.spool)
    engine = machine.engine(run, state=machine.root / "elsewhere")
    try:
        engine.rebuild()
        infos = engine.generations(SOURCE)
        if not infos:
            return [0]
        (info,) = infos
        found = _restored(engine, machine, info.number)
        assert {path: whole[path] for path in found} == found
        return [len(found)]
    finally:
        engine.close()
        shutil.rmtree(machine.root / "elsewhere", ignore_errors=True)


def in_order(machine: Machine, run: int, spools: list[str]) -> Problems:
    """The machine at the end: its generations are the spools, the bucket is enough, nothing is left over."""
    problems = []
    engine = machine.engine(run)
    try:
        found = engine.verify(depth=Depth.DATA)
        if LOST not in spools:
            problems += [f"verify: {each}" for each in found.problems]
        infos = sorted(engine.generations(SOURCE), key=lambda info: info.number)
        if len(infos) != len(spools):
            problems.append(f"not {len(spools)} generations: {infos}")
        problems += _as_spools(engine, machine, infos, spools)
        context = engine._reading()
        problems += _left_over(machine, context)
        if LOST not in spools:
            problems += _twice(context)
    finally:
        engine.close()
    problems += _differs_from_rebuild(machine, run, lost=LOST in spools)
    return problems


def _differs_from_rebuild(machine: Machine, run: int, *, lost: bool) -> Problems:
    state = machine.root / "elsewhere"
    engine = machine.engine(run, state=state)
    try:
        report = engine.rebuild()
        problems = [] if lost else [f"rebuild: {each}" for each in report.problems]
    finally:
        engine.close()
    with Catalog(machine.state / "catalog.sqlite", read_only=True) as catalog:
        here = catalog.dump_derived()
    with Catalog(state / "catalog.sqlite", read_only=True) as catalog:
        there = catalog.dump_derived()
    shutil.rmtree(state)
    return problems + [f"table {table} differs from a rebuilt one" for table in here if here[table] != there[table]]


def _chains(context: Context) -> Iterator[Chain]:
    for name in context.chains_of(SOURCE):
        with contextlib.suppress(NeverBorn):
            yield context.open_chain(name)


def _left_over(machine: Machine, context: Context) -> Problems:
    """Temporary files, open uploads, and packs and indexes that nobody knows, here and in the store."""
    problems = []
    for top in (machine.store_root, machine.state):
        for directory, _, files in os.walk(top):
            problems += [f"{directory}/{name}" for name in files if name.startswith(durable.TEMPORARY)]
            problems += [f"{directory}/{name}" for name in files if name == "pending"]
    uploads = machine.store_root / UPLOADS
    problems += [f"open upload {each}" for each in (os.listdir(uploads) if uploads.exists() else ())]
    store = context.repository.store
    problems += [f"open upload of {each.key}" for each in store.list_uploads("")]
    rows = context.catalog.ledger()
    problems += [f"in the ledger still: {row}" for row in rows]
    known = {(row.chain, row.number, row.pack_id) for row in rows}
    for chain in _chains(context):
        known |= {(chain.name, number, state.declaration.pack_id) for number, state in chain.fold.packs.items()}
    for facts in store.list_objects(""):
        pack = names.parse_pack(facts.key)
        rest = names.parse_chain(facts.key)
        index = names.parse_index(rest[1]) if rest else None
        if pack is not None and (pack.chain, pack.number, pack.pack_id) not in known:
            problems.append(f"nobody knows {facts.key}")
        if rest is not None and index is not None and (rest[0], *index) not in known:
            problems.append(f"nobody knows {facts.key}")
        if facts.key.split("/")[0] not in ("chains", "keys", "packs", "slots", names.REPOSITORY):
            problems.append(f"nobody knows {facts.key}")
    stems = {(chain.group, f"{chain.number:06d}", f"{number:08x}-{pack_id.hex()}") for chain, number, pack_id in known}
    for kind in ("cache", "index"):
        for path in (machine.state / kind).glob("*/*/*"):
            if path.parts[-3:] not in stems:
                problems.append(f"nobody knows {path}")
    problems += [f"nobody knows {path}" for path in (machine.state / "scratch").iterdir()]
    return problems


def _twice(context: Context) -> Problems:
    """Chunks that lie in two packs of a chain: sent twice."""
    problems = []
    for chain in _chains(context):
        indexes = context.indexes(chain)
        counts: Counter[bytes] = Counter()
        for number in chain.fold.packs:
            directory = indexes.opened(number).directory
            counts.update({directory.chunk_id(index) for index in range(directory.chunks)})
        twice = [chunk for chunk, count in counts.items() if count > 1]
        if twice:
            problems.append(f"{len(twice)} chunks of {chain.name} lie in several packs")
    return problems


def acknowledged(machine: Machine) -> set[str]:
    """Keys of packs whose acknowledgement is in the ledger, looked up in a copy: nothing is played back here."""
    if not (machine.state / "catalog.sqlite").exists() or not (machine.state / "catalog.sqlite").stat().st_size:
        return set()
    copy = machine.root / "looked"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for path in machine.state.glob("catalog.sqlite*"):
        shutil.copy(path, copy)
    with Catalog(copy / "catalog.sqlite") as catalog:
        rows = catalog.ledger()
    return {
        names.pack(row.storage, row.chain, row.number, row.pack_id)
        for row in rows
        if row.state in (UploadState.STORED, UploadState.INDEXED)
    }


CHECKS: dict[str, Callable[..., Any]] = {
    "elsewhere": elsewhere,
    "in_order": in_order,
    "checkpoint": checkpoint,
}
