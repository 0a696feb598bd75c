"""The tables `[[class]]`, `[[retention]]` and `[prices]`: from TOML to values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from gateway.config.classes import (
    BUILT_IN,
    MINIMUM_DAYS,
    MOST_DAYS,
    MOST_STEPS,
    REFUSED,
    RESERVED,
    ClassConfig,
    Steps,
    contradictions,
)
from gateway.config.parsers import absolute, count, name, text
from gateway.config.reading import Table
from gateway.config.retention import (
    ALL_OTHERS,
    COUNTS,
    DEFAULT_RELEASED_KEEP,
    DEFAULT_SWEEP_AFTER,
    RetentionConfig,
    RetentionRules,
)
from gateway.config.units import MAX_DURATION, duration_text, parse_duration, parse_money, parse_size, size_text
from gateway.config.values import PricesConfig, RestoreConfig, Via, nearest

MOST_KEPT = 100_000
MOST_MINIMUM = 1_000
MIN_LINK = 16 * 1024


def classes(tables: Sequence[Table]) -> tuple[tuple[ClassConfig, ...], list[str]]:
    """The built-in classes and the file's own, in this order; and the names that a source may use, also those of
    classes that are mistakes already.
    """
    found: list[ClassConfig] = []
    lines: dict[str, int] = {}
    for table in tables:
        called = table.require("name", _class_name, placeholder="")
        if called in lines:
            table.mistake("name", f'"{called}" is already the name of the class in line {lines[called]}')
            called = ""
        elif called:
            lines[called] = table.position("name").line
        nothing: Steps = ()
        steps = table.require("steps", _steps, placeholder=nothing, show=_steps_text)
        hot_days = table.take("hot_days", count(0, MOST_DAYS), 0)
        chain_days = table.take("chain_days", count(0, MOST_DAYS), 0)
        table.finish()
        wrong = contradictions(steps, hot_days, chain_days) if steps else []
        for key, what in wrong:
            table.mistake(key, what)
        if called and steps and not wrong:
            found.append(ClassConfig(name=called, steps=steps, hot_days=hot_days, chain_days=chain_days))
    return (*BUILT_IN, *found), [*(each.name for each in BUILT_IN), *lines]


def one_of(known: Sequence[str]) -> Callable[[object], str]:
    """Takes the name of a class that a source may choose."""
    shown = " or ".join(f'"{each}"' for each in known)

    def parse(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"must be {shown}")
        if value in known:
            return value
        if value in RESERVED:
            raise ValueError(f'"{value}" is a reserved name; it must be {shown}')
        meant = nearest(value, known)
        raise ValueError(f'"{value}" must be {shown}' + (f'; did you mean "{meant}"?' if meant else ""))

    return parse


def retention(tables: Sequence[Table], sources: Sequence[str]) -> tuple[RetentionConfig, ...]:
    """`sources`: the names of all there are."""
    found: list[RetentionConfig] = []
    lines: dict[str, int] = {}
    for table in tables:
        nobody: tuple[str, ...] = ()
        named = table.require("sources", _sources(sources), placeholder=nobody, show=", ".join)
        for each in named:
            if each in lines:
                what = "the rules of all others" if each == ALL_OTHERS else f'the rules of source "{each}"'
                table.mistake("sources", f"{what} are in line {lines[each]} already")
            else:
                lines[each] = table.position("sources").line
        counts = {each: table.take(each, count(1, MOST_KEPT), 0) for each in COUNTS}
        within = table.take("keep_within", _within, None, lambda each: duration_text(each) if each else "")
        minimum = table.take("minimum_generations", count(1, MOST_MINIMUM), 1)
        released = table.duration("released_keep", DEFAULT_RELEASED_KEEP, least=timedelta(days=1), most=MAX_DURATION)
        undo = table.duration("sweep_after", DEFAULT_SWEEP_AFTER, least=timedelta(days=1), most=MAX_DURATION)
        if not any(table.has(each) for each in (*COUNTS, "keep_within")):
            table.mistake(
                "keep_last", f"is missing, and so are {', '.join(COUNTS[1:])} and keep_within: give one of them"
            )
        table.finish()
        if named and (any(counts.values()) or within is not None):
            rules = RetentionRules(
                **counts, keep_within=within, minimum_generations=minimum, released_keep=released, sweep_after=undo
            )  # fmt: skip
            found.append(RetentionConfig(sources=named, rules=rules))
    return tuple(found)


def prices(table: Table) -> PricesConfig:
    result = PricesConfig(file=table.take("file", absolute, None))
    table.finish()
    return result


def restore(table: Table) -> RestoreConfig:
    default = RestoreConfig()
    result = RestoreConfig(
        approval_above=table.take("approval_above", parse_money, default.approval_above),
        scratch=table.take("scratch", absolute, None),
        link=table.take("link", _rate, None, show=size_text),
        via=table.choice("via", Via, default.via),
    )
    table.finish()
    return result


def _rate(value: object) -> int:
    rate = parse_size(value)
    if rate < MIN_LINK:
        raise ValueError(f"must be at least {size_text(MIN_LINK)}: what the way from the store carries in a second")
    return rate


def _class_name(value: object) -> str:
    called = name(value)
    if called in RESERVED:
        raise ValueError(f'"{called}" is a reserved name; give your class another one')
    return called


def _steps(value: object) -> Steps:
    wanted = 'must be a list of steps, [days, "STORAGE_CLASS"]: [[0, "GLACIER_IR"], [97, "DEEP_ARCHIVE"]]'
    if not isinstance(value, list) or not value:
        raise ValueError(wanted)
    if len(value) > MOST_STEPS:
        raise ValueError(f"must be at most {MOST_STEPS} steps, one for each storage class")
    found: list[tuple[int, str]] = []
    for number, step in enumerate(value, 1):
        if not isinstance(step, list) or len(step) != 2:
            raise ValueError(wanted)
        days: Any = step[0]
        try:
            found.append((count(0, MOST_DAYS)(days), _storage(step[1])))
        except ValueError as error:
            raise ValueError(f"step {number}: {error}") from error
    return tuple(found)


def _storage(value: object) -> str:
    called = text(value)
    if called in MINIMUM_DAYS:
        return called
    if called in REFUSED:
        raise ValueError(f"{called} {REFUSED[called]}; choose one of {', '.join(MINIMUM_DAYS)}")
    meant = nearest(called, MINIMUM_DAYS)
    hint = f'did you mean "{meant}"?' if meant else f"there are {', '.join(MINIMUM_DAYS)}"
    raise ValueError(f'"{called}" is not a storage class; {hint}')


def _steps_text(steps: Steps) -> str:
    return ", ".join(f"day {days} {storage}" for days, storage in steps)


def _sources(known: Sequence[str]) -> Callable[[object], tuple[str, ...]]:
    def parse(value: object) -> tuple[str, ...]:
        if value == ALL_OTHERS:
            return (ALL_OTHERS,)
        named: list[Any] = value if isinstance(value, list) else [value]
        if not named or not all(isinstance(each, str) for each in named):
            raise ValueError('must be a list of sources, ["a", "b"], one source, or "*" for all that have no rules yet')
        for each in named:
            if each not in known:
                meant = nearest(each, known)
                raise ValueError(f'there is no source "{each}"' + (f'; did you mean "{meant}"?' if meant else ""))
            if named.count(each) > 1:
                raise ValueError(f'"{each}" is named twice')
        return tuple(named)

    return parse


def _within(value: object) -> timedelta:
    result = parse_duration(value)
    if result < timedelta(hours=1):
        raise ValueError(f'"{value}" must be at least 1 h')
    return result
