"""What is damaged in the repository, as the catalog has it from logs and listings, and the alarm that says so.

One alarm a source, opened and closed by these facts alone, wherever they reach the catalog: a verification, an ingest
that finds packs missing, a plan that lists them, a rebuild. So whoever finds damage need not think of the alarm, and a
restart forgets none. It stops expiry, which else could take the only generations that are whole.

A pack that is whole again, or that no generation needs any more, is no damage. One that a person answered for is none
that somebody must look at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.catalog import Catalog, ChainState, GenerationState
from gateway.format import names
from gateway.jobs.alarms import Alarms, Kind
from gateway.model.ids import in_ranges

NAMED = 5
"""LIMIT: generations that an alarm names."""
_ANSWERED = "damage-answered/"
"""With a source behind it: under this the catalog keeps the damage that a person answered for (LOCAL)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """`mark` tells it from any other."""

    mark: str
    address: str
    what: str
    generations: tuple[tuple[int, str], ...]


def check(catalog: Catalog, alarms: Alarms, source: str) -> None:
    """Idempotent; from any thread."""
    damage = _unanswered(catalog, source)
    if not damage:
        alarms.close(Kind.DAMAGE, source)
        return
    alarms.open(
        Kind.DAMAGE, source, _text(source, damage),
        meaning="What needs it cannot be restored as a whole. Others may be the only good generations: none expires.",
        advice="The next generation stores anew what the spool still has. When the object is back: `gateway verify "
        f"{source} --depth data`. When all that can be done is done: `gateway accept {source} --alarm {Kind.DAMAGE}`.",
    )  # fmt: skip


def answer(catalog: Catalog, source: str) -> None:
    """A person has seen what is damaged now; what is damaged later is another matter."""
    _keep(catalog, source, {each.mark for each in _found(catalog, source)})


def _unanswered(catalog: Catalog, source: str) -> list[Damage]:
    damage = list(_found(catalog, source))
    answered = set((catalog.meta(_ANSWERED + source) or "").split())
    # What was mended may break again: then it is new.
    if answered - (there := {each.mark for each in damage}):
        _keep(catalog, source, answered & there)
    return [each for each in damage if each.mark not in answered]


def _keep(catalog: Catalog, source: str, marks: set[str]) -> None:
    catalog.set_meta(_ANSWERED + source, " ".join(sorted(marks)) or None)


def _found(catalog: Catalog, source: str) -> Iterator[Damage]:
    packs, broken = catalog.damaged_packs(source), catalog.damaged_chains(source)
    if packs:
        ended = {row.chain for row in catalog.chains() if row.state is ChainState.ENDED}
        packs = [pack for pack in packs if pack.chain not in ended]
    if not packs and not broken:
        return
    standing = [row for row in catalog.generations(source) if row.state is not GenerationState.EXPIRED]
    for row in broken:
        users = tuple((each.number, f"{source}@{each.number}") for each in standing if each.chain == row.chain)
        yield Damage(mark=str(row.chain), address=names.log_prefix(row.chain), what=row.problem, generations=users)
    needs = [(row, set(in_ranges(row.needs))) for row in standing if packs]
    for pack in packs:
        users = tuple(
            (row.number, f"{source}@{row.number}")
            for row, needed in needs
            if row.chain == pack.chain and pack.number in needed
        )
        if users:
            address = names.pack(pack.storage, pack.chain, pack.number, pack.pack_id)
            yield Damage(mark=pack.pack_id.hex(), address=address, what=pack.problem, generations=users)


def _text(source: str, damage: list[Damage]) -> str:
    first, more = damage[0], len(damage) - 1
    what = f"{first.address} is missing or damaged: {first.what.rstrip('.')}"
    if more:
        what += f"; so are {more:,} more objects of {source}"
    users = [label for _, label in sorted({each for one in damage for each in one.generations})]
    if users:
        rest = f" and {len(users) - NAMED:,} more" if len(users) > NAMED else ""
        what += f". Needed by {', '.join(users[:NAMED])}{rest}"
    return f"{what}."
