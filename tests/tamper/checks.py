"""What must hold for every case, and the table of what cannot be noticed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.api import Depth, Problem
from gateway.catalog import GenerationKind
from gateway.engine import Engine
from gateway.errors import GatewayError, IntegrityError
from gateway.format import names
from tests.golden.described import path_text
from tests.tamper.bench import Machine
from tests.tamper.cases import Case, chain_of, sort_of
from tests.tamper.subjects import Subject

BOUND_SECONDS = 20.0
"""LIMIT: one case, all machines, of the processor's time, since others may want it, too; a usual one takes a hundredth
of a second.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unnoticed:
    """Objects that a verification need not name, and why."""

    why: str
    when: Callable[[Subject, Case, str, bool], bool]


# --- what cannot be noticed ------------------------------------------------------------------------------------------


def _left(subject: Subject, case: Case) -> set[str]:
    return set(case.apply(subject.objects))


def _gone(case: Case, key: str) -> bool:
    return case.changes[key] is None


def _added(subject: Subject, key: str) -> bool:
    return key not in subject.objects


def _slot_gone(subject: Subject, case: Case, key: str, knows: bool) -> bool:
    return _gone(case, key) and sort_of(key) == "slot"


def _chain_gone(subject: Subject, case: Case, key: str, knows: bool) -> bool:
    """Nothing is left of the chain, and no later one was opened after it."""
    chain = chain_of(key)
    later = any(other > chain for other in map(chain_of, _left(subject, case)) if other)
    return not knows and not later and chain not in map(chain_of, _left(subject, case))


def _newest_entry_gone(subject: Subject, case: Case, key: str, knows: bool) -> bool:
    """Neither a later entry nor a pack that was written after it is left, nor a chain that was opened after it."""
    if knows or sort_of(key) != "entry" or not _gone(case, key):
        return False
    return not any(
        other > key
        if sort_of(other) == "entry" and chain_of(other) == chain_of(key)
        else _written_after(subject, key, other)
        for other in _left(subject, case)
        if chain_of(other)
    )


def _written_after(subject: Subject, entry: str, key: str) -> bool:
    """Whether a pack, an index or a header was made when the entry was there."""
    if sort_of(key) not in ("pack", "index", "header") or chain_of(key) < chain_of(entry):
        return False
    if sort_of(key) != "header" and chain_of(key) != chain_of(entry):
        return False
    return any(entry in moment and key not in moment for moment in subject.moments)


def _undeclared(subject: Subject, case: Case, key: str, knows: bool) -> bool:
    """A pack or an index went together with the entry that declared it; or it was never declared."""
    if sort_of(key) not in ("pack", "index") or not _gone(case, key):
        return False
    entry = subject.declared.get(key)
    return entry is None or (not knows and entry in case.changes)


def _no_name(subject: Subject, case: Case, key: str, knows: bool) -> bool:
    """An object whose name is none that the format has."""
    if not _added(subject, key) or key.startswith("slots/"):
        return False
    found = names.parse_chain(key)
    known = ("header", "end")
    return not chain_of(key) or bool(
        found
        and found[1] not in known
        and not names.parse_entry(found[1])
        and not names.parse_index(found[1])
        and not re.fullmatch("wraps/[0-9a-f]{32}", found[1])
        and any(chain_of(k) == chain_of(key) for k in subject.objects)
    )


def _no_class(subject: Subject, case: Case, key: str, knows: bool) -> bool:
    """A pack in a class that its chain does not use."""
    pack = names.parse_pack(key)
    return _added(subject, key) and pack is not None and pack.storage == "strange"


def _bare_header(subject: Subject, case: Case, key: str, knows: bool) -> bool:
    """A header and nothing else is a birth that was cut off."""
    chain = chain_of(key)
    return (
        _added(subject, key)
        and sort_of(key) == "header"
        and {k for k in _left(subject, case) if chain_of(k) == chain} <= {key}
    )


def _left_over(subject: Subject, case: Case, key: str, knows: bool) -> bool:
    """A frame of a pack that no entry declares: such packs are opened as far as their directory."""
    return case.kind == "flip" and sort_of(key) == "pack" and key not in subject.declared


UNNOTICED: tuple[Unnoticed, ...] = (
    Unnoticed(why="nothing names the slots of a repository", when=_slot_gone),
    Unnoticed(why="only the local state or a later chain remembers a chain that is gone whole", when=_chain_gone),
    Unnoticed(why="only the local state or an expected head remembers the newest entries", when=_newest_entry_gone),
    Unnoticed(why="what only lost entries declared is remembered by the local state alone", when=_undeclared),
    Unnoticed(why="what no entry declares is not read beyond its directory; nothing needs it", when=_left_over),
    Unnoticed(why="objects whose names the format does not have are nobody's", when=_no_name),
    Unnoticed(why="nobody looks for a pack in a class that its chain does not use", when=_no_class),
    Unnoticed(why="a header alone is what a birth that was cut off leaves", when=_bare_header),
)


# --- what must be noticed --------------------------------------------------------------------------------------------


def named(subject: Subject, case: Case, key: str, problems: Sequence[Problem]) -> bool:
    """Whether a problem has this object's address or that of a frame in it, or speaks of it; or that of the chain,
    when it is the whole chain that cannot be opened.
    """
    if any(p.address == key or p.address.startswith(key + " ") or key in p.what for p in problems):
        return True
    chain = chain_of(key)
    whole = {f"chains/{chain}/", f"chains/{chain}/header", f"chains/{chain}/wraps/", f"chains/{chain}/log/"}
    if (chain and len(case.changes) > 1) or _added(subject, key):
        addresses = {p.address for p in problems}
        if addresses & whole:
            return True
        if sort_of(key) == "entry":  # a log that ends too early is named by its last entry
            return any(a > key for a in addresses if a.startswith(f"chains/{chain}/log/"))
    return False


def excused(subject: Subject, case: Case, key: str, knows: bool) -> bool:
    return any(each.when(subject, case, key, knows) for each in UNNOTICED)


def check(machines: tuple[Machine, Machine], case: Case, *, verifies: int | None = None) -> list[str]:
    """What is wrong with how the gateway takes a case; empty = nothing. `verifies`: the only one of the machines that
    runs a verification; restores are always tried.
    """
    began = time.process_time()
    wrong: list[str] = []
    for number, machine in enumerate(machines):
        verified = verifies in (None, number)
        if not verified and machine.knows:
            continue
        subject, objects = machine.subject, case.apply(machine.subject.objects)
        for with_sheet in (False, True):
            try:
                with machine.engine(objects, with_sheet=with_sheet) as engine:
                    wrong += _machine(machine, engine, case, verified=verified)
                break
            except GatewayError as error:
                if with_sheet and not _locked(subject, case, error):
                    wrong.append(f"does not open: {type(error).__name__}: {error}")
            except Exception as error:  # noqa: BLE001 - any other type is what is looked for
                wrong.append(f"{type(error).__name__} on opening: {error}")
                break
    seconds = time.process_time() - began
    if seconds > BOUND_SECONDS:
        wrong.append(f"took {seconds:.1f} s")
    return [f"{machines[0].subject.name}, {case.kind} {case.what}: {each}" for each in wrong]


def _locked(subject: Subject, case: Case, error: GatewayError) -> bool:
    """Whether no slot is left that could open, and the error says so."""
    slots = {key for key in subject.objects if sort_of(key) == "slot"}
    return slots <= case.changes.keys() and isinstance(error, IntegrityError)


def _machine(machine: Machine, engine: Engine, case: Case, *, verified: bool) -> list[str]:
    wrong: list[str] = []
    who = "knowing machine" if machine.knows else "empty machine"
    try:
        if not machine.knows:
            engine.rebuild()
            wrong += _restores(machine, engine, case)
        if not verified:
            return wrong
        problems = engine.verify(depth=Depth.DATA).problems
    except Exception as error:  # noqa: BLE001 - any other type is what is looked for
        return [*wrong, f"{who}: {type(error).__name__}: {error}"]
    for key in case.changes:
        if not named(machine.subject, case, key, problems) and not excused(machine.subject, case, key, machine.knows):
            wrong.append(f"{who}: {key} is not named: {[(str(p.kind), p.address) for p in problems]}")
    if case.kind in ("flip", "truncate", "extend", "delete"):
        wrong += [f"{who}: {p.address} is blamed: {p.what}" for p in problems if _blamed(machine.subject, case, p)]
    return wrong


def _blamed(subject: Subject, case: Case, problem: Problem) -> bool:
    """Whether a problem calls an object damaged that nobody touched."""
    address = problem.address.split(" ")[0]
    return address in subject.objects and address not in case.changes and not subject.blames(address)


def _restores(machine: Machine, engine: Engine, case: Case) -> list[str]:
    """Every generation that the catalog has: the right bytes, or what is left out is named."""
    wrong = []
    for row in engine._writing().catalog.generations():
        generation = "g" + row.generation.hex()
        wanted = machine.subject.wanted.get(generation)
        if wanted is None:
            wrong.append(f"a generation {generation} that never was")
            continue
        try:
            tree, report = machine.restore(engine, generation)
        except GatewayError as error:
            if not getattr(error, "address", ""):
                wrong.append(f"restore of {generation}: no address: {type(error).__name__}: {error}")
            continue
        except Exception as error:  # noqa: BLE001 - any other type is what is looked for
            wrong.append(f"restore of {generation}: {type(error).__name__}: {error}")
            continue
        left_out = {path_text(each.path) for each in report.left_out}
        for path, found in tree.items():
            if found != wanted.get(path):
                wrong.append(f"restore of {generation}: {path} is {found}, not {wanted.get(path)}")
        if row.kind == GenerationKind.CHECKPOINT and any(sort_of(key) == "entry" for key in case.changes):
            continue  # an older checkpoint has fewer files
        lost = wanted.keys() - tree.keys() - left_out
        wrong += [f"restore of {generation}: {path} is neither there nor named" for path in lost]
    return wrong
