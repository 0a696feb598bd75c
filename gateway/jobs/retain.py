"""Carrying retention out: `gateway.policy.retention` decides, this appends what it decided, and holds by hand.

What is decided on is the catalog, brought up to date from the logs just before. Each `expire` stands where the plan saw
the log's end, or is not written: whoever wrote something meanwhile (a hold, a generation that requires one) is asked
first. CRASH: an expiry that was appended to some chains only leaves the rest to the next run; what requires another
generation expires before that one.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from gateway import api
from gateway.api import ExpireReport, HoldReport, Reference, RetentionReport
from gateway.catalog import (
    ChainRow,
    ChainRows,
    ChainState,
    EntryRow,
    GenerationKind,
    GenerationRow,
    GenerationState,
    Head,
    HoldRow,
)
from gateway.catalog.derived import not_superseded
from gateway.clock import from_milliseconds, text
from gateway.config.retention import rules_of, sweep_after
from gateway.errors import ApprovalNeeded, GatewayError, IntegrityError, Overtaken, UsageError
from gateway.format import log, names
from gateway.jobs.alarms import Kind, source_of
from gateway.jobs.context import Context
from gateway.jobs.dates import StoreDate, store_date
from gateway.jobs.last_copies import LastCopies
from gateway.jobs.views import generation_infos
from gateway.log import printable
from gateway.model.ids import ChainName, GenerationId, generation_text, in_ranges
from gateway.policy import retention
from gateway.policy.retention import MOST_SKEW, Generation, RetentionPlan, SourceState, State
from gateway.repository.chain import Chain
from gateway.repository.derive import chain_rows
from gateway.repository.repository import chain_names

TRIES = 3
"""LIMIT: plans for one call when another writer gets in between."""
ROUNDS = 10
"""LIMIT: reads of the logs until none goes on meanwhile; from the second on only of those that did."""
STOPPING = (Kind.DAMAGE, Kind.CLOCK, Kind.ANOMALY)
"""Open alarms of these kinds stop expiry: one of the clock everybody's, the others that of their source."""
REASON_BYTES = 1000
"""LIMIT: of what somebody writes as a reason; an entry is small."""


class Retention:
    """Of one source, or of all. `plan` needs nothing but reading; the others are for the owner of `state.dir`."""

    def __init__(self, context: Context, source: str | None) -> None:
        self._context = context
        self._source = source
        self._heads: dict[ChainName, Head] = {}
        self._date = StoreDate(now=context.clock.now())

    # --- deciding ----------------------------------------------------------------------------------------------------

    def plan(self, *, fresh: bool = False) -> RetentionPlan:
        """What the logs come to. `fresh`: the catalog was just brought up to date from them."""
        context = self._context
        self._date = store_date(context)
        chains = self._rows(fresh=fresh)
        self._heads = {
            each.chain.chain: Head(sequence=each.chain.head_sequence, digest=each.chain.head_digest) for each in chains
        }
        read_only = {
            each.chain.chain: why for each in chains if (why := _read_only(each.chain, each.entries))
        }  # fmt: skip
        holds = _holds(one for each in chains for one in each.holds)
        reading = context.held_by_jobs()
        rows = not_superseded([row for each in chains for row in each.generations])
        by_source: dict[str, list[GenerationRow]] = defaultdict(list)
        for row in rows:
            by_source[row.source].append(row)
        states = [self._state(name) for name in sorted({*by_source, *(each.name for each in context.config.sources)})]
        copies: dict[bytes, tuple[retention.LastCopy, ...]] = {}
        for state in states:
            if state is not None and state.rules is not None:
                copies |= LastCopies(context, by_source[state.name]).of_generations()
        standing = [
            Generation(
                id=GenerationId(row.generation), source=row.source, number=row.number,
                begun=from_milliseconds(row.begun), state=_policy_state(row),
                requires=tuple(GenerationId(each) for _, _, each in row.requires),
                holds=tuple(holds.get(row.generation, ())), restoring=row.generation in reading,
                last_copies=copies.get(row.generation, ()),
                chain=row.chain, needs=row.needs, read_only=read_only.get(row.chain, ""),
            )
            for row in rows
            if row.state is not GenerationState.EXPIRED
        ]  # fmt: skip
        made = retention.plan(
            standing,
            [state for state in states if state is not None],
            now=self._date.now,
            skew=self._date.skew,
            gone={GenerationId(row.generation) for row in rows if row.state is GenerationState.EXPIRED},
            packs={each.chain.chain: {pack.number: pack.size for pack in each.packs} for each in chains},
        )
        return made if self._source is None else made.only(self._source)

    def _rows(self, *, fresh: bool) -> list[ChainRows]:
        """Every chain: from the catalog where it has seen the log to its end, else folded anew. What was written since
        the catalog was brought up to date, before a kill or by another machine, belongs to the plan.
        """
        context = self._context
        known = {row.chain: row for row in context.catalog.chains()}
        found: list[ChainRows] = []
        names_there = known if fresh else {*known, *chain_names(context.repository.store)}
        for name in sorted(names_there):
            row = known.get(name)
            if fresh or (row is not None and row.head_sequence == self._newest_entry(name)):
                rows = context.catalog.chain_rows(name)
            else:
                try:
                    chain = context.open_chain(name)
                    rows = chain_rows(chain, chain.list_packs())
                except IntegrityError:  # `refresh` says what is wrong with it, and forgets one that is finished
                    ended = context.left_of_ended(name) is not None
                    rows = None if ended else context.catalog.chain_rows(name)
            if rows is not None:
                found.append(rows)
        return found

    def _newest_entry(self, name: ChainName) -> int:
        sequences = [0]
        for facts in self._context.repository.store.list_objects(names.log_prefix(name)):
            parsed = names.parse_chain(facts.key)
            sequences.append((names.parse_entry(parsed[1]) if parsed else None) or 0)
        return max(sequences)

    def _state(self, name: str) -> SourceState | None:
        """None for a source that is not configured. With one source asked for, all others keep everything: what they
        require must stay, too.
        """
        config = self._context.config
        if all(each.name != name for each in config.sources):
            return None
        rules = rules_of(config.retention, name) if self._source in (None, name) else None
        return SourceState(name=name, rules=rules, alarms=alarms_of(self._context, name))

    def report(self, plan: RetentionPlan, expired: Sequence[str] = ()) -> RetentionReport:
        return RetentionReport(
            plan=plan.id, decisions=tuple(_shown(each) for each in plan.decisions),
            freezes=tuple(api.Freeze(source=each.source, reason=each.reason) for each in plan.freezes),
            stored_bytes=plan.bytes, removed_bytes=plan.removed_bytes, needs_approval=plan.needs_approval,
            expired=tuple(expired), notes=(self._date.note,) if self._date.note else (),
        )  # fmt: skip

    # --- carrying out ------------------------------------------------------------------------------------------------

    def apply(self, approve: str, operator: str) -> RetentionReport:
        """`ApprovalNeeded`: as in `GatewayApi.retention_apply`. What was begun goes on after another writer's entry
        without being asked for again, as long as it only becomes less.
        """
        first: RetentionPlan | None = None
        allowed: set[GenerationId] | None = None
        done: list[str] = []
        for left in range(TRIES - 1, -1, -1):
            refresh(self._context)
            plan = self.plan(fresh=True)
            expiring = {each.generation for each in plan.expiring}
            if allowed is None or not expiring <= allowed:
                _require_approval(plan, approve)
                allowed = expiring
            first = first or plan
            try:
                self._expire(plan, operator, done)
                return self.report(first, done)
            except Overtaken:
                if not left:
                    raise
        raise AssertionError("a last try returns or raises")

    def _expire(self, plan: RetentionPlan, operator: str, done: list[str]) -> None:
        rows = {row.generation: row for row in self._context.catalog.generations()}
        left = [rows[each.generation] for each in plan.expiring]
        while left:
            chain, batch = _next_batch(left)
            self._append(chain, log.EXPIRE, log.Expire(
                tuple(row.generation for row in batch), operator, f"retention plan {plan.id}"
            ))  # fmt: skip
            done += [f"{row.source}@{row.number}" for row in batch]
            gone = {row.generation for row in batch}
            left = [row for row in left if row.generation not in gone]

    def _append(self, name: ChainName, kind: str, payload: log.Payload) -> None:
        chain = append_at(self._context, name, self._heads.get(name), kind, payload)
        self._heads[name] = Head(sequence=chain.head[0], digest=chain.head[1])


# --- by hand ---------------------------------------------------------------------------------------------------------


def hold(context: Context, reference: Reference, reason: str, operator: str) -> HoldReport:
    """See `GatewayApi.hold_generation`."""
    if not reason.strip():
        raise UsageError("A hold needs a reason.", meaning="Nothing was held.", advice="Say why with --reason TEXT.")
    refresh(context)
    row = find(context, reference)
    rows = {each.generation: each for each in context.catalog.generations()}
    needed = closure(row, rows)
    again = [each for each in needed if each.state is GenerationState.EXPIRED]
    for each in again:
        _require_undoable(context, each)
    made: list[tuple[GenerationRow, bytes]] = []
    try:
        # CRASH: what it requires is kept first, so a kept generation never requires an expired one. INVARIANT: each
        # gets an entry, expired or not: an expiry by somebody who has not seen the hold is refused, or undone by it.
        for each in [each for each in needed if each is not row and (each in again or _takes(context, each))] + [row]:
            hold_id, why = context.clock.random_bytes(16), reason if each is row else _bounded(_requires_it(row))
            made.append((each, hold_id))
            append(context, each.chain, log.HOLD, log.Hold(hold_id, each.generation, operator, _bounded(why)))
        for each, _ in made:
            _require_undoable(context, each)  # an expiry and a sweep may have been faster than its hold
    except GatewayError:
        with contextlib.suppress(GatewayError):
            for each, hold_id in made:
                take_back(context, each.chain, hold_id, operator, "it could not be held")
        raise
    for each, hold_id in made[:-1]:  # from here on the closure keeps them
        take_back(context, each.chain, hold_id, operator, "what requires it is held")
    return _hold_report(context, row, tuple(f"{each.source}@{each.number}" for each in again))


def _requires_it(row: GenerationRow) -> str:
    return f"{row.source}@{row.number} is held and requires it"


def _takes(context: Context, row: GenerationRow) -> bool:
    """Whether its chain takes an entry; in one that does not, nothing expires either."""
    chain = context.catalog.chain(row.chain)
    return chain is not None and not _read_only(chain, context.catalog.entries(row.chain))


def unhold(context: Context, reference: Reference, reason: str, operator: str) -> HoldReport:
    """See `GatewayApi.unhold_generation`."""
    refresh(context)
    row = find(context, reference)
    found = [each for each in context.catalog.holds(row.chain) if each.generation == row.generation]
    if not found:
        raise UsageError(
            f"{row.source}@{row.number} has no hold.", meaning="Nothing was changed.",
            advice=f"`gateway generations {row.source}` shows which generations are held.",
        )  # fmt: skip
    for each in found:
        append(context, row.chain, log.UNHOLD, log.Unhold(each.hold, operator, _bounded(reason)))
    # What a kill in the middle of holding it has left.
    rows = {each.generation: each for each in context.catalog.generations()}
    for other in closure(row, rows):
        for each in context.catalog.holds(other.chain):
            if (each.generation, each.why) == (other.generation, _bounded(_requires_it(row))):
                take_back(context, other.chain, each.hold, operator, _bounded(reason))
    return _hold_report(context, row, ())


def expire(context: Context, reference: Reference, *, dry_run: bool, operator: str) -> ExpireReport:
    """See `GatewayApi.expire_generation`."""
    if reference.number is None and reference.id_prefix is None:
        raise UsageError(
            f'"{reference}" does not say which generation is to expire.',
            meaning="The latest one is never meant without being named; nothing was changed.",
            advice="Give its number or id, as `gateway generations` shows them.",
        )
    refresh(context)
    date = store_date(context)
    row = find(context, reference)
    name = f"{row.source}@{row.number}"
    head = context.catalog.chain(row.chain)
    why = next(_why_not(context, row, date), "")
    if why:
        raise UsageError(
            f"{name} cannot expire: {why}.", meaning="Nothing was changed.",
            advice=f"`gateway retention plan {row.source}` says what keeps each generation.",
        )  # fmt: skip
    others = {
        number
        for each in context.catalog.generations()
        if each.chain == row.chain and each.generation != row.generation and each.state is not GenerationState.EXPIRED
        for number in in_ranges(each.needs)
    }
    mine = set(in_ranges(row.needs)) - others
    freed = sum(pack.size for pack in context.catalog.packs(row.chain) if pack.number in mine)
    if not dry_run:
        assert head is not None
        at = Head(sequence=head.head_sequence, digest=head.head_digest)
        append_at(context, row.chain, at, log.EXPIRE, log.Expire((row.generation,), operator, "by hand"))
    return ExpireReport(
        source=row.source, number=row.number, id=generation_text(row.generation), dry_run=dry_run, freed_bytes=freed,
        until=date.now + sweep_after(context.config.retention, row.source), notes=(date.note,) if date.note else (),
    )  # fmt: skip


def _why_not(context: Context, row: GenerationRow, date: StoreDate) -> Iterator[str]:
    rows = context.catalog.generations()
    chain = context.catalog.chain(row.chain)
    if row.state is GenerationState.EXPIRED:
        yield "it has expired already"
    if row.kind is GenerationKind.CHECKPOINT:
        yield "it is still being made"
    for why in _holds(context.catalog.holds()).get(row.generation, ()):
        yield f"it is held ({printable(why)})"
    if row.generation in context.held_by_jobs(row.source):
        yield "a restore job reads it"
    for each in rows:
        if each.state is not GenerationState.EXPIRED and any(one == row.generation for _, _, one in each.requires):
            yield f"{each.source}@{each.number} requires it"
    if chain is not None and (problem := _read_only(chain, context.catalog.entries(row.chain))):
        yield problem
    protected = [each for each in rows if each.source == row.source and each.state is GenerationState.PROTECTED]
    if row in protected and len(protected) == 1 and any(each.name == row.source for each in context.config.sources):
        yield "it is the only protected generation of its source"
    if abs(date.skew) > MOST_SKEW:
        yield f"the clock differs from the store's by {abs(date.skew) // timedelta(minutes=1)} minutes"
    yield from alarms_of(context, row.source)


# --- parts -----------------------------------------------------------------------------------------------------------


def refresh(context: Context) -> None:
    """Every log, as all of them were at one moment. `Overtaken`: others write faster than this gateway reads.

    One that is read before somebody writes to it, and another one after that, would together say what never was: that
    nothing requires a generation whose hold has ended, since what it was held for was committed to the first one.
    """
    seen, groups = _ends(context), context.groups()
    for _ in range(ROUNDS):
        for group in groups:
            context.refresh(group)
        now = _ends(context)
        groups = sorted({name.group for name in seen.keys() | now.keys() if seen.get(name) != now.get(name)})
        if not groups:
            return
        seen = now
    raise Overtaken("The logs go on all the time.", meaning="Other gateways write to them; nothing was changed.")


def _ends(context: Context) -> dict[ChainName, int]:
    """The number of the newest entry of every chain, as the store lists them."""
    found: dict[ChainName, int] = {}
    for facts in context.repository.store.list_objects(names.CHAINS):
        parsed = names.parse_chain(facts.key)
        if parsed is not None:
            found[parsed[0]] = max(found.get(parsed[0], 0), names.parse_entry(parsed[1]) or 0)
    return found


def find(context: Context, reference: Reference) -> GenerationRow:
    """The generation meant; unlike elsewhere an expired one can be named, by its number or id."""
    rows = context.catalog.generations(reference.source)
    if reference.number is not None or reference.id_prefix is not None:
        found = [
            row
            for row in rows
            if row.number == reference.number
            or (reference.id_prefix is not None and generation_text(row.generation).startswith(reference.id_prefix))
        ]
        if len(found) == 1:
            return found[0]
    info = reference.choose(generation_infos(rows, context.catalog))
    return next(row for row in rows if generation_text(row.generation) == info.id)


def alarms_of(context: Context, source: str) -> tuple[str, ...]:
    """Open alarms that stop expiry of a source."""
    return tuple(
        f"alarm {row.kind} is open since {text(from_milliseconds(row.opened))}: {row.what}"
        for row in context.catalog.open_alarms()
        if row.kind in STOPPING and (row.kind == Kind.CLOCK or source_of(row.subject) == source)
    )


def append_at(context: Context, name: ChainName, head: Head | None, kind: str, payload: log.Payload) -> Chain:
    """Append an entry to a log that still ends where it was seen to end. `Overtaken`: it does not."""
    chain = context.open_chain(name)
    if chain.ended:
        context.note_ended(name)
    if head is not None and chain.head != (head.sequence, head.digest):
        context.record(chain, chain.list_packs())
        raise Overtaken(
            f"The log of chain {name} went on meanwhile.", meaning="Another gateway wrote to it.",
            advice="Run the command again: it decides anew.",
        )  # fmt: skip
    chain.append(kind, payload, context.writer)
    context.record(chain, chain.list_packs())
    return chain


def append(context: Context, name: ChainName, kind: str, payload: log.Payload) -> None:
    """The same for what is right wherever the log ends."""
    for left in range(TRIES - 1, -1, -1):
        try:
            append_at(context, name, None, kind, payload)
            return
        except Overtaken:
            if not left:
                raise


def take_back(context: Context, name: ChainName, hold_id: bytes, who: str, why: str) -> None:
    """End a hold, if it still stands: nothing where its chain has ended."""
    try:
        if hold_id not in context.open_chain(name).fold.holds:
            return
    except IntegrityError:
        return
    append(context, name, log.UNHOLD, log.Unhold(hold_id, who, why))


def _read_only(chain: ChainRow, entries: Iterable[EntryRow]) -> str:
    """Why a chain's log takes no entry; empty: it does."""
    if chain.state is ChainState.DAMAGED:
        return f"the log of chain {chain.chain} is damaged"
    if any(each.kind not in log.PAYLOADS for each in entries):
        return f"the log of chain {chain.chain} has entries that this version does not know"
    return ""


def _policy_state(row: GenerationRow) -> State:
    if row.kind is GenerationKind.CHECKPOINT:
        return State.RUNNING
    return State.PROTECTED if row.state is GenerationState.PROTECTED else State.INCOMPLETE


def _holds(rows: Iterable[HoldRow]) -> dict[bytes, list[str]]:
    found: dict[bytes, list[str]] = defaultdict(list)
    for each in rows:
        found[each.generation].append(f"{each.why} ({each.who})")
    return found


def _shown(each: retention.Decision) -> api.RetentionDecision:
    return api.RetentionDecision(
        source=each.source, number=each.number, id=generation_text(each.generation), begun=each.begun, why=each.why,
        reasons=tuple(api.KeepReason(rule=str(one.rule), text=one.text, until=one.until) for one in each.reasons),
    )  # fmt: skip


def _require_approval(plan: RetentionPlan, approve: str) -> None:
    if approve and approve != plan.id:
        raise ApprovalNeeded(
            f"The plan is {plan.id} now, not {printable(approve)}.",
            meaning="Something changed since it was shown; nothing was carried out.",
            advice="Look at it with `gateway retention plan`, then approve it by that name.",
        )
    if plan.needs_approval and not approve:
        raise ApprovalNeeded(
            f"Plan {plan.id} removes {plan.removed_share:.0%} of the stored bytes: "
            f"{len(plan.expiring)} of {len(plan.decisions)} generations.",
            meaning=f"More than {retention.APPROVAL_SHARE:.0%} needs somebody's approval; nothing was carried out.",
            advice=f"Look at it with `gateway retention plan`, then run this again with --approve {plan.id}.",
        )


def _next_batch(left: Sequence[GenerationRow]) -> tuple[ChainName, list[GenerationRow]]:
    """Generations of one chain that nothing else which is left requires: they can expire before all others."""
    for chain in dict.fromkeys(row.chain for row in left):
        batch = {row.generation: row for row in left if row.chain == chain}
        while True:
            kept_out = {
                one
                for row in left
                if row.generation not in batch
                for _, _, one in row.requires
                if one in batch
            }  # fmt: skip
            if not kept_out:
                break
            batch = {each: row for each, row in batch.items() if each not in kept_out}
        if batch:
            return chain, list(batch.values())
    # They require each other in a circle, which no writer makes: then no order is better than another.
    return left[0].chain, [row for row in left if row.chain == left[0].chain]


def closure(row: GenerationRow, rows: dict[bytes, GenerationRow]) -> list[GenerationRow]:
    """A generation and all it requires, as far as it is there; the deepest first."""
    found: dict[bytes, GenerationRow] = {}
    todo = [row]
    while todo:
        each = todo.pop()
        if each.generation not in found:
            found[each.generation] = each
            todo += [rows[one] for _, _, one in each.requires if one in rows]
    return list(reversed(found.values()))


def _require_undoable(context: Context, row: GenerationRow) -> None:
    chain = context.open_chain(row.chain)
    state = chain.fold.generations.get(row.generation)
    if state is None or chain.fold.is_gone(state):
        raise UsageError(
            f"{row.source}@{row.number} has expired, and packs of it are condemned.",
            meaning="It cannot be brought back; nothing was changed.",
            advice=f"`gateway generations {row.source}` lists what there is.",
        )


def _bounded(reason: str) -> str:
    return printable(reason)[:REASON_BYTES]


def _hold_report(context: Context, row: GenerationRow, again: tuple[str, ...]) -> HoldReport:
    return HoldReport(
        source=row.source, number=row.number, id=generation_text(row.generation),
        holds=tuple(_holds(context.catalog.holds()).get(row.generation, ())), kept_again=again,
    )  # fmt: skip
