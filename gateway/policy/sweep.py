"""Which packs of a chain may be deleted, and why each other one may not. Pure: what happens is `plan` carried out.

INVARIANT: nothing that a kept generation needs is given up, and nothing that a pack which stays or still waits stands
on, whether or not a generation uses just those chunks: every pack that is not condemned can be read as a whole, a hold
that undoes an expiry brings all of it back, and new generations may refer to any chunk of what is kept. Doubt keeps.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from gateway.config.classes import MINIMUM_DAYS
from gateway.model.ids import in_ranges

UNNAMED_FOR = timedelta(days=7)
"""LIMIT: so old, by the store's date, is what no entry names before it is condemned: until then some writer may be
about to declare it, and would have to send it again. A run declares what it has every hour.
"""


_HELD = "under a legal hold in the store"


class Verdict(StrEnum):
    KEEP = "keep"
    """A kept generation needs it."""
    WAIT = "wait"
    """Nothing needs it; its time has not come."""
    CONDEMN = "condemn"
    """An entry must say first that nobody may refer to it, or declare it, any more."""
    DELETE = "delete"
    """The log says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """A declared pack. `declared`: when; `stored`, `storage_class`: what the store says, None where it lists none.
    `entered`: when it came into that class, which bills its least time from then on; None: when it was stored.

    `locked_until`, `legal_hold`: until when it is locked in the store, and whether somebody holds it there without a
    date, where the store states that.
    """

    number: int
    size: int
    declared: datetime
    bases: tuple[int, ...] = ()
    condemned: bool = False
    there: bool = True
    stored: datetime | None = None
    storage_class: str = "STANDARD"
    entered: datetime | None = None
    locked_until: datetime | None = None
    legal_hold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A generation of the chain. `expired`: when; None: it is kept. `label`: ``SOURCE@NUMBER``."""

    label: str
    needs: tuple[int, ...]
    expired: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unnamed:
    """An object that no entry declares. `ours`: this machine has it in its ledger, and goes on with it. `condemned`: an
    entry says already that nobody may declare it."""

    key: str
    size: int
    stored: datetime | None
    ours: bool = False
    condemned: bool = False
    locked_until: datetime | None = None
    legal_hold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`number` 0 and a `key`: an object that no entry names. `until`: when a waiting one may go, if that is known."""

    number: int
    size: int
    verdict: Verdict
    reason: str
    until: datetime | None = None
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """`decisions`: of every pack that is left, by number, then of what no entry names."""

    decisions: tuple[Decision, ...]

    def of(self, verdict: Verdict) -> tuple[Decision, ...]:
        return tuple(each for each in self.decisions if each.verdict is verdict)

    @property
    def condemning(self) -> tuple[int, ...]:
        """Declared packs, by number."""
        return tuple(each.number for each in self.of(Verdict.CONDEMN) if each.number)

    @property
    def empty(self) -> bool:
        """Whether nothing stays behind once it was carried out."""
        return not self.of(Verdict.KEEP) and not self.of(Verdict.WAIT)


def plan(
    packs: Iterable[Pack],
    holders: Iterable[Holder],
    unnamed: Iterable[Unnamed] = (),
    *,
    now: datetime,
    sweep_after: timedelta,
    frozen: str = "",
) -> SweepPlan:
    """Decide on every pack of one chain. `now`: by the store's clock. `frozen`: why nothing may be given up just now;
    what the log has condemned before goes nevertheless.
    """
    by_number = {each.number: each for each in packs}
    all_holders = tuple(holders)
    needed = _needed(by_number, all_holders)
    freed: dict[int, tuple[datetime, str]] = {}
    for holder in all_holders:
        if holder.expired is not None:
            for number in in_ranges(holder.needs):
                before = freed.get(number)
                if before is None or before[0] < holder.expired:
                    freed[number] = holder.expired, holder.label
    decisions: list[Decision] = []
    under: dict[int, Decision] = {}
    for number in sorted(by_number, reverse=True):
        each = by_number[number]
        if not each.there and each.condemned:
            continue
        one = _pack(each, needed, freed, now, sweep_after, frozen)
        above = under.get(number)
        if above is not None and (
            one.verdict is Verdict.CONDEMN or (one.verdict is Verdict.WAIT and _later(above, one))
        ):
            reason = f"pack {above.number:08x} stands on it, and that waits"
            one = replace(one, verdict=Verdict.WAIT, reason=reason, until=above.until)
        if one.verdict is Verdict.WAIT and not each.condemned:
            for base in in_ranges(each.bases):
                if base not in under or _later(one, under[base]):
                    under[base] = one
        decisions.append(one)
    decisions.reverse()
    decisions += [_unnamed(each, now, frozen) for each in sorted(unnamed, key=lambda each: each.key)]
    return SweepPlan(decisions=tuple(decisions))


def _later(one: Decision, other: Decision) -> bool:
    """Whether one waits for longer; None: nobody knows for how long."""
    return other.until is not None and (one.until is None or one.until > other.until)


def _needed(packs: Mapping[int, Pack], holders: Iterable[Holder]) -> dict[int, str]:
    """The packs that stay, with why: needed by a kept generation, or under one that is, to any depth."""
    by: dict[int, list[str]] = defaultdict(list)
    for holder in holders:
        if holder.expired is None:
            for number in in_ranges(holder.needs):
                by[number].append(holder.label)
    found = {
        number: f"{labels[-1]} needs it" + (f", and {len(labels) - 1:,} more" if len(labels) > 1 else "")
        for number, labels in by.items()
    }
    todo = [-number for number in found]
    heapq.heapify(todo)
    while todo:
        number = -heapq.heappop(todo)
        pack = packs.get(number)
        for base in in_ranges(pack.bases) if pack is not None else ():
            if base not in found:
                found[base] = f"pack {number:08x} stands on it, and that is needed"
                heapq.heappush(todo, -base)
    return found


def _pack(
    pack: Pack,
    needed: Mapping[int, str],
    freed: Mapping[int, tuple[datetime, str]],
    now: datetime,
    sweep_after: timedelta,
    frozen: str,
) -> Decision:
    def decided(verdict: Verdict, reason: str, until: datetime | None = None) -> Decision:
        return Decision(number=pack.number, size=pack.size, verdict=verdict, reason=reason, until=until)

    if pack.condemned:
        if pack.locked_until is not None and now < pack.locked_until:
            return decided(Verdict.WAIT, "condemned, and locked in the store", pack.locked_until)
        if pack.legal_hold:
            return decided(Verdict.WAIT, f"condemned, and {_HELD}")
        return decided(Verdict.DELETE, "condemned")
    if pack.number in needed:
        return decided(Verdict.KEEP, needed[pack.number])
    if pack.number in freed:
        since, label = freed[pack.number]
        free = f"nothing needs it since {label} expired"
    else:
        since, free = pack.declared, "no generation needs it"
    waits = [(since + sweep_after, "the expiry can be undone until then" if pack.number in freed else "it is new")]
    days = MINIMUM_DAYS.get(pack.storage_class, 0)
    if pack.there and days:
        age_from = pack.entered or pack.stored or pack.declared
        waits.append((age_from + timedelta(days=days), f"{pack.storage_class} is billed for {days} days anyway"))
    if pack.locked_until is not None:
        waits.append((pack.locked_until, "it is locked in the store"))
    until, why = max(waits, key=lambda each: each[0])
    if now < until:
        return decided(Verdict.WAIT, f"{free}; {why}", until)
    if pack.legal_hold:
        return decided(Verdict.WAIT, f"{free}; it is {_HELD}")
    if frozen:
        return decided(Verdict.WAIT, f"{free}; {frozen}")
    return decided(Verdict.CONDEMN, free)


def _unnamed(each: Unnamed, now: datetime, frozen: str) -> Decision:
    def decided(verdict: Verdict, reason: str, until: datetime | None = None) -> Decision:
        return Decision(number=0, size=each.size, verdict=verdict, reason=reason, until=until, key=each.key)

    if not each.condemned:
        if each.ours:
            return decided(Verdict.WAIT, "the next generation declares it")
        if each.stored is None:
            return decided(Verdict.WAIT, "no entry names it, and the store does not say how old it is")
        if now < each.stored + UNNAMED_FOR:
            return decided(Verdict.WAIT, "no entry names it yet", each.stored + UNNAMED_FOR)
    if each.locked_until is not None and now < each.locked_until:
        return decided(Verdict.WAIT, "no entry names it; it is locked in the store", each.locked_until)
    if each.legal_hold:
        return decided(Verdict.WAIT, f"no entry names it; it is {_HELD}")
    if each.condemned:
        return decided(Verdict.DELETE, "condemned, and no entry names it")
    if frozen:
        return decided(Verdict.WAIT, f"no entry names it; {frozen}")
    return decided(Verdict.CONDEMN, "no entry names it")
