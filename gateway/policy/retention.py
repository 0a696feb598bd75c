"""Which generations are kept, which expire, and why. Pure: what happens is `plan` carried out, and nothing else.

Three steps. Each generation gets the reasons of its own: rules, holds, a running restore, the last copy of a file. Then
what a kept one requires is kept, to any depth. Then sources whose expiry is frozen keep everything, with what that
requires. INVARIANT: nothing that a kept generation requires expires, and doubt always keeps.

The rules are restic's (`restic forget`, tests/system/test_retention_restic.py), so somebody who knows them is not
surprised: OR-ed, the newest of each period in UTC, and while a rule for periods has counts left it keeps the oldest
generation as well, which the next ones build their history on. Only candidates are counted: generations that are
protected, and whose closure is.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import assert_never

from gateway.config.retention import RetentionRules
from gateway.config.units import duration_text
from gateway.model.ids import ChainName, GenerationId

MOST_SKEW = timedelta(hours=1)
"""A clock that differs more from the store's stops expiry: by it everything might be old."""
RECENT = timedelta(days=7)
"""The newest protected generation of a source is not older, unless its `SourceState` says otherwise; else its expiry
stops: a source whose backups fail must not lose the good ones.
"""
APPROVAL_SHARE = 0.1
"""A plan that removes a larger part of the stored bytes needs somebody to approve that very plan."""


class State(StrEnum):
    """What a generation is, as far as retention cares. RUNNING: still being made."""

    PROTECTED = "protected"
    RUNNING = "running"
    INCOMPLETE = "incomplete"
    FAILED = "failed"


class Rule(StrEnum):
    """Why a generation is kept."""

    LAST = "last"
    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    YEARLY = "yearly"
    WITHIN = "within"
    MINIMUM = "minimum"
    HOLD = "hold"
    RESTORE = "restore"
    RUNNING = "running"
    LAST_COPY = "last-copy"
    NOT_REPLACED = "not-replaced"
    UNKNOWN = "unknown"
    READ_ONLY = "read-only"
    REQUIRED = "required"
    FROZEN = "frozen"
    NO_RULES = "no-rules"


@dataclass(frozen=True, slots=True, kw_only=True)
class LastCopy:
    """Files of which a generation is the last to hold a version, although their producer did not remove them.

    `since`: when the first generation that lacks them began. `released`: the gateway itself took them out of the spool;
    else they were growing, torn or unreadable. `held_again_by`: later generations with a complete version of all.
    `example`: one of their paths, for people.
    """

    files: int
    since: datetime
    released: bool
    held_again_by: tuple[GenerationId, ...] = ()
    example: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """`begun`: by the store's clock. `requires`: generations without which this one is worth nothing, of any source.
    `holds`: the reasons somebody gave. `read_only`: why its chain's log takes no entry. `needs`: the packs of `chain`,
    as flat ranges.
    """

    id: GenerationId
    source: str
    number: int
    begun: datetime
    state: State = State.PROTECTED
    requires: tuple[GenerationId, ...] = ()
    holds: tuple[str, ...] = ()
    restoring: bool = False
    read_only: str = ""
    last_copies: tuple[LastCopy, ...] = ()
    chain: ChainName | None = None
    needs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.begun.utcoffset() != timedelta():
            raise ValueError("a generation's begin is in UTC")

    def __str__(self) -> str:
        return f"{self.source} {self.number}"

    @property
    def order(self) -> tuple[datetime, int, str, bytes]:
        return self.begun, self.number, self.source, self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """`rules` None: everything is kept. `alarms`: anomalies, damaged packs; each stops the source's expiry."""

    name: str
    rules: RetentionRules | None
    alarms: tuple[str, ...] = ()
    recent: timedelta = RECENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """`until`: the moment from which it does not hold any more, where time alone ends it; else the text says what
    does.
    """

    rule: Rule
    text: str
    until: datetime | None = None

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`reasons`: all that keep it; none: it expires, and `why` says why no rule keeps it."""

    generation: GenerationId
    source: str
    number: int
    begun: datetime
    reasons: tuple[Reason, ...]
    why: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        return bool(self.reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """Expiry of `source` has stopped; an empty name: of all. `of_alarm`: by an alarm that is open about it."""

    source: str
    reason: str
    of_alarm: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Stored bytes that a source's generations need, and those of them that nothing needs after the plan."""

    source: str
    bytes: int
    removed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPlan:
    """`decisions`: one for each generation, by source, the newest first. `bytes`, `removed_bytes`: as in `Share`, of
    all sources.

    `id` is a digest of what is decided and why, not of when: an approval of a plan holds for the same decisions only.
    """

    id: str
    decisions: tuple[Decision, ...]
    freezes: tuple[Freeze, ...]
    bytes: int
    removed_bytes: int
    shares: tuple[Share, ...] = ()

    @property
    def expiring(self) -> tuple[Decision, ...]:
        return tuple(each for each in self.decisions if not each.kept)

    @property
    def kept(self) -> tuple[Decision, ...]:
        return tuple(each for each in self.decisions if each.kept)

    @property
    def removed_share(self) -> float:
        return self.removed_bytes / self.bytes if self.bytes else 0.0

    @property
    def needs_approval(self) -> bool:
        return self.removed_share > APPROVAL_SHARE

    def only(self, source: str) -> RetentionPlan:
        """The part that is about one source; its chains hold packs of no other."""
        decisions = tuple(each for each in self.decisions if each.source == source)
        freezes = tuple(each for each in self.freezes if each.source in ("", source))
        shares = tuple(each for each in self.shares if each.source == source)
        removed = sum(each.removed for each in shares)
        return RetentionPlan(
            id=_digest(decisions, freezes, removed), decisions=decisions, freezes=freezes,
            bytes=sum(each.bytes for each in shares), removed_bytes=removed, shares=shares,
        )  # fmt: skip


Packs = Mapping[ChainName, Mapping[int, int]]
"""The stored bytes of each pack of each chain, by its number."""


def plan(
    generations: Iterable[Generation],
    sources: Iterable[SourceState],
    *,
    now: datetime,
    skew: timedelta = timedelta(),
    gone: Collection[GenerationId] = frozenset(),
    packs: Packs | None = None,
) -> RetentionPlan:
    """Decide on every generation; `ValueError` if two of them, or two sources, have one name.

    `generations`: all that have not expired, of all sources, in any order. `gone`: ids that expired before; who
    requires one of them is known to be incomplete, while a required id found nowhere is doubt, and keeps. `now`: by the
    store's clock, from which the local one differs by `skew`.
    """
    return _Planner(tuple(generations), tuple(sources), now, skew, frozenset(gone), packs or {}).plan()


def _hour(moment: datetime) -> tuple[int, ...]:
    return moment.year, moment.month, moment.day, moment.hour


def _day(moment: datetime) -> tuple[int, ...]:
    return moment.year, moment.month, moment.day


def _week(moment: datetime) -> tuple[int, ...]:
    year, week, _ = moment.isocalendar()
    return year, week


def _month(moment: datetime) -> tuple[int, ...]:
    return moment.year, moment.month


def _year(moment: datetime) -> tuple[int, ...]:
    return (moment.year,)


@dataclass(frozen=True, slots=True)
class _Period:
    rule: Rule
    noun: str
    of: Callable[[datetime], tuple[int, ...]]

    def count(self, rules: RetentionRules) -> int:
        return int(getattr(rules, f"keep_{self.rule}"))


_PERIODS = (
    _Period(Rule.HOURLY, "hour", _hour),
    _Period(Rule.DAILY, "day", _day),
    _Period(Rule.WEEKLY, "week", _week),
    _Period(Rule.MONTHLY, "month", _month),
    _Period(Rule.YEARLY, "year", _year),
)


class _Planner:
    def __init__(
        self,
        generations: tuple[Generation, ...],
        sources: tuple[SourceState, ...],
        now: datetime,
        skew: timedelta,
        gone: frozenset[GenerationId],
        packs: Packs,
    ) -> None:
        self._all = {each.id: each for each in generations}
        self._sources = {each.name: each for each in sources}
        if len(self._all) != len(generations) or len(self._sources) != len(sources):
            raise ValueError("a generation or a source is given twice")
        self._now, self._skew, self._packs = now, skew, packs
        self._of_source: dict[str, list[Generation]] = defaultdict(list)
        for each in sorted(generations, key=lambda each: each.order, reverse=True):
            self._of_source[each.source].append(each)
        self._dependents: dict[GenerationId, list[Generation]] = defaultdict(list)
        for each in generations:
            for required in set(each.requires):
                self._dependents[required].append(each)
        self._unknown = self._reaching(
            required for required in self._dependents if required not in self._all and required not in gone
        )
        self._incomplete = self._reaching(
            required for required in self._dependents
            if required in gone or (required in self._all and self._all[required].state is not State.PROTECTED)
        )  # fmt: skip
        self._reasons: dict[GenerationId, list[Reason]] = defaultdict(list)
        self._newest: dict[tuple[str, Rule], dict[tuple[int, ...], Generation]] = {}
        self._candidates = {
            source: [each for each in of_source if self._is_candidate(each)]
            for source, of_source in self._of_source.items()
        }

    def _reaching(self, required: Iterable[GenerationId]) -> set[GenerationId]:
        """The generations that require one of these, to any depth."""
        found: set[GenerationId] = set()
        left = list(required)
        while left:
            for each in self._dependents.get(left.pop(), ()):
                if each.id not in found:
                    found.add(each.id)
                    left.append(each.id)
        return found

    def _is_candidate(self, each: Generation) -> bool:
        return each.state is State.PROTECTED and each.id not in self._unknown and each.id not in self._incomplete

    def plan(self) -> RetentionPlan:
        for source, of_source in self._of_source.items():
            state = self._sources.get(source)
            for each in of_source:
                self._reasons[each.id] += self._own_reasons(each, state)
            if state is not None and state.rules is not None:
                self._apply(state.rules, self._candidates[source])
        kept = self._closure(each for each, reasons in self._reasons.items() if reasons)
        freezes = self._freezes()
        for freeze in freezes:
            for source in [freeze.source] if freeze.source else list(self._of_source):
                for each in self._of_source.get(source, ()):
                    if each.id not in kept:
                        self._reasons[each.id].append(Reason(rule=Rule.FROZEN, text=freeze.reason))
        kept = self._closure([*kept, *(each for each, reasons in self._reasons.items() if reasons)])
        for required in kept:
            by = [dependent for dependent in self._dependents.get(required, ()) if dependent.id in kept]
            if by:
                text = f"{max(by, key=lambda dependent: dependent.order)} requires it"
                self._reasons[required].append(Reason(rule=Rule.REQUIRED, text=text))
        decisions = tuple(self._decisions())
        total, removed, shares = self._bytes(kept)
        return RetentionPlan(
            id=_digest(decisions, freezes, removed), decisions=decisions, freezes=freezes, bytes=total,
            removed_bytes=removed, shares=shares,
        )  # fmt: skip

    # --- reasons of its own -------------------------------------------------------------------------------------------

    def _own_reasons(self, each: Generation, state: SourceState | None) -> Iterator[Reason]:
        if state is None:
            yield Reason(rule=Rule.NO_RULES, text="its source is not configured")
        elif state.rules is None:
            yield Reason(rule=Rule.NO_RULES, text="its source has no retention policy")
        for why in each.holds:
            yield Reason(rule=Rule.HOLD, text=why)
        if each.read_only:
            yield Reason(rule=Rule.READ_ONLY, text=each.read_only)
        if each.restoring:
            yield Reason(rule=Rule.RESTORE, text="a restore job reads it, until it ends")
        match each.state:
            case State.RUNNING:
                yield Reason(rule=Rule.RUNNING, text="it is still being made")
            case State.PROTECTED | State.INCOMPLETE | State.FAILED:
                if each.id in self._unknown:
                    text = "it requires a generation of which nothing is known"
                    yield Reason(rule=Rule.UNKNOWN, text=text)
                elif not self._is_candidate(each) and self._replacement(each) is None:
                    text = f"{self._flaw(each)}, until a later one is protected"
                    yield Reason(rule=Rule.NOT_REPLACED, text=text)
            case _:
                assert_never(each.state)
        if state is not None and state.rules is not None:
            for copy in each.last_copies:
                yield from self._last_copy(copy, state.rules.released_keep)

    def _flaw(self, each: Generation) -> str:
        if each.state is State.PROTECTED:
            return "what it requires is not protected"
        return f"it is {each.state}"

    def _replacement(self, each: Generation) -> Generation | None:
        """The newest candidate, if it is later than this generation."""
        candidates = self._candidates[each.source]
        return candidates[0] if candidates and candidates[0].order > each.order else None

    def _last_copy(self, copy: LastCopy, released_keep: timedelta) -> Iterator[Reason]:
        files = f"{copy.files:,} files" if copy.files != 1 else "a file"
        if copy.example:
            files += f" ({copy.example})" if copy.files == 1 else f" ({copy.example} ...)"
        replaced = any(each in self._all and self._is_candidate(self._all[each]) for each in copy.held_again_by)
        if not copy.released and not replaced:
            text = f"the last complete version of {files}, until a later generation holds one"
            yield Reason(rule=Rule.LAST_COPY, text=text)
        until = copy.since + released_keep
        if self._now < until:
            kind = "released from the spool" if copy.released else "left out later"
            text = f"the last to hold {files} {kind}, until {_shown(until)}"
            yield Reason(rule=Rule.LAST_COPY, text=text, until=until)

    # --- rules --------------------------------------------------------------------------------------------------------

    def _apply(self, rules: RetentionRules, candidates: Sequence[Generation]) -> None:
        """Add the reasons that rules give; `candidates`: of one source, the newest first."""
        for rank, each in enumerate(candidates[: rules.keep_last], 1):
            more = rules.keep_last - rank + 1
            ended = "1 more is" if more == 1 else f"{more:,} more are"
            text = f"{_ordinal(rank)} of the newest {rules.keep_last}, until {ended} protected"
            self._reasons[each.id].append(Reason(rule=Rule.LAST, text=text))
        for period in _PERIODS:
            self._apply_period(period, period.count(rules), candidates)
        if rules.keep_within is not None and candidates:
            newest = candidates[0].begun
            for each in candidates:
                if each.begun > newest - rules.keep_within:
                    text = (
                        f"within {duration_text(rules.keep_within)} before the newest, until one begins at "
                        f"{_shown(each.begun + rules.keep_within)} or later"
                    )
                    self._reasons[each.id].append(Reason(rule=Rule.WITHIN, text=text))
        for each in candidates[: rules.minimum_generations]:
            text = f"one of the {rules.minimum_generations} that are kept in any case"
            self._reasons[each.id].append(Reason(rule=Rule.MINIMUM, text=text))

    def _apply_period(self, period: _Period, count: int, candidates: Sequence[Generation]) -> None:
        left, last = count, None
        for each in candidates:
            if not left:
                return
            value = period.of(each.begun)
            if value != last:
                rank = count - left + 1
                text = (
                    f"the newest of its {period.noun}, {_ordinal(rank)} of {count}, until there are later ones in "
                    f"{_count(count - rank + 1, f'later {period.noun}')}"
                )
                if rank == 1:
                    text += f" or one in the same {period.noun}"
            elif each is candidates[-1]:
                text = f"the oldest, while there are fewer than {_count(count, period.noun)}"
            else:
                continue
            self._reasons[each.id].append(Reason(rule=period.rule, text=text))
            left, last = left - 1, value

    # --- closure and freezes ------------------------------------------------------------------------------------------

    def _closure(self, start: Iterable[GenerationId]) -> set[GenerationId]:
        """These, and what they require to any depth, as far as it is there."""
        found = set(start)
        left = list(found)
        while left:
            for required in self._all[left.pop()].requires:
                if required in self._all and required not in found:
                    found.add(required)
                    left.append(required)
        return found

    def _freezes(self) -> tuple[Freeze, ...]:
        found: list[Freeze] = []
        if abs(self._skew) > MOST_SKEW:
            minutes = abs(self._skew) // timedelta(minutes=1)
            found.append(Freeze(source="", reason=f"the clock differs from the store's by {minutes} minutes"))
        for source in sorted(self._of_source):
            state = self._sources.get(source)
            if state is not None and state.rules is not None:
                found += [Freeze(source=source, reason=text, of_alarm=True) for text in state.alarms]
                found += [Freeze(source=source, reason=text) for text in self._stale(state)]
        return tuple(found)

    def _stale(self, state: SourceState) -> Iterator[str]:
        newest = self._of_source[state.name][0]
        if newest.begun > self._now + MOST_SKEW:
            yield f"generation {newest.number} begins in the future, at {_shown(newest.begun)}"
        candidates = self._candidates[state.name]
        if not candidates:
            yield "it has no protected generation"
        elif self._now - candidates[0].begun > state.recent:
            yield (
                f"its newest protected generation, {candidates[0].number}, began {_shown(candidates[0].begun)}; "
                f"one of the last {duration_text(state.recent)} is wanted"
            )

    # --- the outcome --------------------------------------------------------------------------------------------------

    def _decisions(self) -> Iterator[Decision]:
        for source in sorted(self._of_source):
            for each in self._of_source[source]:
                reasons = tuple(self._reasons[each.id])
                why = () if reasons else tuple(self._why_not(each))
                yield Decision(
                    generation=each.id, source=source, number=each.number, begun=each.begun, reasons=reasons, why=why
                )

    def _why_not(self, each: Generation) -> Iterator[str]:
        if not self._is_candidate(each):
            replacement = self._replacement(each)
            later = f", and {replacement.number} is protected" if replacement else ""
            yield f"{self._flaw(each)}, so no rule counts it{later}"
            return
        rules = self._sources[each.source].rules
        assert rules is not None
        if rules.keep_last:
            yield f"last: {rules.keep_last:,} later ones are protected"
        for period in _PERIODS:
            count = period.count(rules)
            if count:
                newest = self._newest_of(each.source, period)[period.of(each.begun)]
                if newest is each:
                    yield f"{period.rule}: there are later ones in {_count(count, period.noun)}"
                else:
                    yield f"{period.rule}: {newest.number} is the newest of its {period.noun}"
        if rules.keep_within is not None:
            yield f"within: it began {duration_text(rules.keep_within)} or more before the newest"

    def _newest_of(self, source: str, period: _Period) -> dict[tuple[int, ...], Generation]:
        """The newest candidate of each period."""
        found = self._newest.get((source, period.rule))
        if found is None:
            found = {period.of(each.begun): each for each in reversed(self._candidates[source])}
            self._newest[source, period.rule] = found
        return found

    def _bytes(self, kept: set[GenerationId]) -> tuple[int, int, tuple[Share, ...]]:
        needed: dict[ChainName, dict[str, set[_Range]]] = defaultdict(lambda: defaultdict(set))
        stays: dict[ChainName, set[_Range]] = defaultdict(set)
        for each in self._all.values():
            if each.chain is not None:
                found = set(zip(each.needs[::2], each.needs[1::2], strict=True))
                needed[each.chain][each.source] |= found
                if each.id in kept:
                    stays[each.chain] |= found
        total, removed = 0, 0
        shares: dict[str, tuple[int, int]] = {}
        for chain, by_source in needed.items():
            sizes, staying = self._packs.get(chain, {}), _numbers(stays[chain])
            packs = {source: _numbers(ranges) for source, ranges in by_source.items()}
            together = set().union(*packs.values())
            total += sum(sizes.get(number, 0) for number in together)
            removed += sum(sizes.get(number, 0) for number in together - staying)
            for source, numbers in packs.items():
                before, gone = shares.get(source, (0, 0))
                before += sum(sizes.get(number, 0) for number in numbers)
                shares[source] = before, gone + sum(sizes.get(number, 0) for number in numbers - staying)
        found_shares = (
            Share(source=source, bytes=size, removed=gone) for source, (size, gone) in sorted(shares.items())
        )
        return total, removed, tuple(found_shares)


_Range = tuple[int, int]
"""The first of some consecutive packs, and how many they are."""


def _numbers(ranges: Iterable[_Range]) -> set[int]:
    """The packs in these ranges, each touched once however many ranges overlap."""
    found: set[int] = set()
    end = 0
    for first, count in sorted(ranges):
        found.update(range(max(first, end), first + count))
        end = max(end, first + count)
    return found


def _digest(decisions: Sequence[Decision], freezes: Sequence[Freeze], removed: int) -> str:
    content = [
        [[each.source, each.generation.hex(), *map(str, each.reasons), "|", *each.why] for each in decisions],
        [[each.source, each.reason] for each in freezes],
        removed,
    ]
    return blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
