"""Was the gateway fooled? Compares what generations hold with what lay in the spool. Pure.

What must hold, for a source with `minimum_evidence` m:

========== ==========================================================================================================
`torn`      no protected generation holds a torn version: of m >= 2 never; of m = 1 only one that no writer had open and
            that stood for the settle time
`overrated` nothing claims more evidence than its writer left; so a torn version of m = 1 has 1
`below`     nothing in a protected generation has less evidence than m
`mixed`     the bytes of every file are those of one of its versions; what else is there was put together of several
`apart`     the files of a generation lay in the spool at one time; none was carried on behind its end
`lost`      a complete version whose evidence is enough, and that stood long enough, is in a protected generation
`unnamed`   a torn version that stands is named as held back, with a reason, by every generation made meanwhile; and
            whatever stands at the end is in a protected generation, or named as held back now
========== ==========================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from tests.writers.oracle import Ended, Oracle, Version
from tests.writers.plan import is_temporary

PROTECTED = "protected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A file of a generation. `digest`: as `gateway ls --json` states it, BLAKE3 up to 64 MiB."""

    digest: str
    size: int
    evidence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What a generation holds. `held_back`: reasons by path; `held_back_more`: how many it does not name.

    `created` None: unknown, and nothing is asked of what it should have named. `spread_seconds`: how long the pass that
    made it took, where that is known.
    """

    number: int
    state: str
    files: Mapping[str, Held] = field(default_factory=dict)
    held_back: Mapping[str, str] = field(default_factory=dict)
    held_back_more: int = 0
    created: datetime | None = None
    spread_seconds: float = 0.0


class Wrong(StrEnum):
    TORN = "torn"
    OVERRATED = "overrated"
    BELOW = "below"
    MIXED = "mixed"
    APART = "apart"
    LOST = "lost"
    UNNAMED = "unnamed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    wrong: Wrong
    path: str
    generation: int | None
    why: str

    def __str__(self) -> str:
        where = f" in generation {self.generation}" if self.generation is not None else ""
        return f"{self.wrong}: {self.path}{where}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """`settle_seconds` of the source. `grace_seconds`: after how long of standing a version must be found: the settle
    time, a rescan, the interval between generations, the work itself. `apart_seconds`: how long one pass over the spool
    may take, so how far the moments of a generation's files may be from one another; what is known of a pass is added.
    `busy`: monotonic spans in which the gateway was at work for somebody; time in them is no grace.
    """

    minimum_evidence: int
    settle_seconds: float
    grace_seconds: float
    apart_seconds: float
    busy: Sequence[tuple[float, float]] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.minimum_evidence <= 5 or self.grace_seconds < self.settle_seconds:
            raise ValueError("minimum_evidence is 1 to 5, and nothing is found before it settled")

    def idle(self, begin: float, end: float) -> float:
        """How much of this time the gateway had for what lay there. Spans of `busy` do not overlap."""
        return (end - begin) - sum(max(0.0, min(end, until) - max(begin, since)) for since, until in self.busy)


def judge(
    oracle: Oracle, generations: Sequence[Generation], rules: Rules, *, held_now: Mapping[str, str] | None = None
) -> list[Violation]:
    """Every violation, by generation. `held_now`: what the gateway holds back at the oracle's end, with reasons; None
    where nobody asked it.
    """
    protected = [each for each in generations if each.state == PROTECTED]
    found: list[Violation] = []
    for generation in sorted(protected, key=lambda each: each.number):
        for path, held in sorted(generation.files.items()):
            found += _file(oracle, generation, path, held, rules)
        found += _apart(oracle, generation, rules)
    found += _lost(oracle, protected, rules)
    found += _unnamed(oracle, generations, rules, held_now)
    found += _silent(oracle, protected, rules, held_now)
    return found


def _file(oracle: Oracle, generation: Generation, path: str, held: Held, rules: Rules) -> Iterator[Violation]:
    def violation(wrong: Wrong, why: str) -> Violation:
        return Violation(wrong=wrong, path=path, generation=generation.number, why=why)

    if held.evidence < rules.minimum_evidence:
        yield violation(Wrong.BELOW, f"evidence {held.evidence}, the minimum is {rules.minimum_evidence}")
    matching = oracle.matching(path, held.digest, held.size)
    if not matching:
        seen = len(oracle.versions.get(path, ()))
        why = f"{held.size} bytes that are none of its {seen} versions" if seen else "no writer ever made it"
        yield violation(Wrong.MIXED, why)
        return
    whole = [each for each in matching if each.complete]
    if not whole:
        told = _why_torn(oracle, matching, rules)
        if told:
            yield violation(Wrong.TORN, told)
    limit = max(each.evidence_limit for each in whole or matching)
    if held.evidence > limit:
        what = "whole" if whole else "torn"
        yield violation(Wrong.OVERRATED, f"evidence {held.evidence} for a {what} file that left {limit}")


def _why_torn(oracle: Oracle, matching: Sequence[Version], rules: Rules) -> str:
    """Why these torn versions may not be there; empty when one of them may."""
    share = f"{matching[0].size} bytes of it, {matching[0].ended}"
    if rules.minimum_evidence >= 2:
        return share
    quiet = [each for each in matching if each.ended is not Ended.OPEN]
    if not quiet:
        return f"{share}, with its writer still at it"
    stood = max(each.until(oracle.end) - each.first for each in quiet)
    if stood < rules.settle_seconds:
        return f"{share}, which stood for {stood:.2f} s only"
    return ""


def _apart(oracle: Oracle, generation: Generation, rules: Rules) -> Iterator[Violation]:
    """Of the file that came last and the one that was gone first."""
    spans = []
    for path, held in generation.files.items():
        matching = oracle.matching(path, held.digest, held.size)
        if matching:
            spans.append((matching[0].first, max(each.until(oracle.end) for each in matching), path))
    if not spans:
        return
    begin, _, young = max(spans)
    _, end, old = min(spans, key=lambda span: span[1])
    if begin > end + rules.apart_seconds + generation.spread_seconds:
        why = f"it was gone {begin - end:.2f} s before {young} came"
        yield Violation(wrong=Wrong.APART, path=old, generation=generation.number, why=why)


def _lost(oracle: Oracle, protected: Sequence[Generation], rules: Rules) -> Iterator[Violation]:
    held = {(path, file.digest, file.size) for each in protected for path, file in each.files.items()}
    for path, version in oracle.all():
        stood = version.until(oracle.end) - version.first
        idle = rules.idle(version.first, version.until(oracle.end))
        enough = version.evidence >= rules.minimum_evidence and idle >= rules.grace_seconds
        if version.complete and enough and (path, version.digest, version.size) not in held:
            why = f"complete, evidence {version.evidence}, stood for {stood:.2f} s, and is in no protected generation"
            yield Violation(wrong=Wrong.LOST, path=path, generation=None, why=why)


def _unnamed(
    oracle: Oracle, generations: Sequence[Generation], rules: Rules, held_now: Mapping[str, str] | None
) -> Iterator[Violation]:
    """Torn versions that a generation takes no notice of.

    Not those under a temporary name, which a gateway may pass over; and of m = 1 not those that it may take.
    """
    for path, version in oracle.all():
        if not version.torn or is_temporary(path):
            continue
        if rules.minimum_evidence == 1 and version.ended is not Ended.OPEN:
            continue
        end = version.until(oracle.end)
        if rules.idle(version.first, end) < rules.grace_seconds:
            continue
        what = f"torn ({version.ended}) for {end - version.first:.2f} s, and not named as held back"
        for generation in generations:
            if generation.created is None or not version.first <= (made := oracle.moment(generation.created)) <= end:
                continue
            if rules.idle(version.first, made) < rules.grace_seconds:
                continue
            if not generation.held_back.get(path) and not generation.held_back_more:
                yield Violation(wrong=Wrong.UNNAMED, path=path, generation=generation.number, why=what)
        if held_now is not None and version.last is None and not held_now.get(path):
            yield Violation(wrong=Wrong.UNNAMED, path=path, generation=None, why=what)


def _silent(
    oracle: Oracle, protected: Sequence[Generation], rules: Rules, held_now: Mapping[str, str] | None
) -> Iterator[Violation]:
    """What stands at the end with too little evidence, or torn where that can be taken for quiet: nobody is told."""
    held = {(path, file.digest, file.size) for each in protected for path, file in each.files.items()}
    for path, version in oracle.all():
        stands = version.last is None and rules.idle(version.first, oracle.end) >= rules.grace_seconds
        if held_now is None or held_now.get(path) or not stands or is_temporary(path):
            continue
        less = version.complete and version.evidence < rules.minimum_evidence
        quiet = version.torn and version.ended is not Ended.OPEN and rules.minimum_evidence == 1
        if (less or quiet) and (path, version.digest, version.size) not in held:
            what = f"complete, evidence {version.evidence}" if version.complete else f"torn ({version.ended})"
            why = f"{what}, in no protected generation and not named as held back"
            yield Violation(wrong=Wrong.UNNAMED, path=path, generation=None, why=why)
