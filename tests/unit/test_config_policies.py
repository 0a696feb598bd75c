"""`[[class]]`, `[[retention]]`, `[prices]` and `[restore]`: what is read, and every mistake with its place."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import (
    ClassConfig,
    RetentionConfig,
    RetentionRules,
    SourceConfig,
    StorageClass,
    load,
    parse,
    rules_of,
)
from gateway.config.classes import BUILT_IN, COLD, INGEST_DAYS, MINIMUM_DAYS, RESERVED, Steps, contradictions
from gateway.config.values import RestoreConfig, Via
from gateway.errors import ConfigError
from gateway.policy import rolling

ROOT = Path(__file__).parents[2]
HEAD = """[repository]
url = "s3://bucket/prefix"
[[source]]
name = "a"
path = "/srv/a"
[[source]]
name = "b"
path = "/srv/b"
"""
"""What follows begins in line 9."""


def mistakes(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse((HEAD + text).encode(), Path("g.toml"))
    return caught.value.mistakes


def test_every_key_is_read() -> None:
    text = """
[prices]
file = "/etc/gateway/prices.toml"
[restore]
approval_above = "12.50 USD"
scratch = "/srv/scratch"
link = "100 MiB"
via = "direct-connect"
[[class]]
name = "month"
steps = [[0, "STANDARD"], [45, "DEEP_ARCHIVE"]]
hot_days = 14
chain_days = 24
[[source]]
name = "c"
path = "/srv/c"
class = "month"
[[retention]]
sources = ["a", "c"]
keep_last = 1
keep_hourly = 2
keep_daily = 3
keep_weekly = 4
keep_monthly = 5
keep_yearly = 6
keep_within = "36 h"
minimum_generations = 7
released_keep = "40 d"
[[retention]]
sources = "*"
keep_daily = 9
"""
    config = parse((HEAD + text).encode())
    month = ClassConfig(name="month", steps=((0, "STANDARD"), (45, "DEEP_ARCHIVE")), hot_days=14, chain_days=24)
    assert config.classes == (*BUILT_IN, month)
    assert config.source("c").storage_class == "month"
    assert config.class_named("month") == month
    assert month.flat == (0, "STANDARD", 45, "DEEP_ARCHIVE")
    rules = RetentionRules(
        keep_last=1, keep_hourly=2, keep_daily=3, keep_weekly=4, keep_monthly=5, keep_yearly=6,
        keep_within=timedelta(hours=36), minimum_generations=7, released_keep=timedelta(days=40),
    )  # fmt: skip
    others = RetentionRules(keep_daily=9)
    assert config.retention == (
        RetentionConfig(sources=("a", "c"), rules=rules),
        RetentionConfig(sources=("*",), rules=others),
    )
    assert [rules_of(config.retention, each) for each in ("a", "b", "c")] == [rules, others, rules]
    assert rules_of(config.retention[:1], "b") is None
    assert config.prices.file == Path("/etc/gateway/prices.toml")
    assert config.restore == RestoreConfig(
        approval_above=Decimal("12.50"), scratch=Path("/srv/scratch"), link=100 << 20, via=Via.DIRECT_CONNECT
    )
    shown = {setting.key: (setting.value, setting.origin) for setting in config.settings}
    assert shown["restore.link"] == ("100 MiB", "line 15")
    assert shown["class[1].steps"] == ("day 0 STANDARD, day 45 DEEP_ARCHIVE", "line 19")
    assert shown["retention[1].sources"] == ("a, c", "line 27")
    assert shown["retention[2].released_keep"] == ("35 d", "default")


def test_without_them_there_are_the_built_in_classes_and_nothing_expires() -> None:
    config = parse(HEAD.encode())
    assert config.classes == BUILT_IN
    assert config.retention == ()
    assert rules_of(config.retention, "a") is None
    assert config.prices.file is None
    assert config.restore == RestoreConfig(approval_above=Decimal(25), scratch=None, link=None, via=Via.INTERNET)
    assert {each.name for each in BUILT_IN} == set(StorageClass)
    assert set(RESERVED) == {*StorageClass, "meta"}


def test_the_example_has_rules_for_its_sources() -> None:
    config = load(ROOT / "config" / "gateway.example.toml")
    rules = RetentionRules(keep_daily=14, keep_weekly=8, keep_monthly=12)
    assert [rules_of(config.retention, each.name) for each in config.sources] == [rules, rules]


CLASS = '[[class]]\nname = "c"\n'
RETENTION = '[[retention]]\nsources = "a"\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[class]]\nsteps = [[0, 'STANDARD']]", "9:1: class[1].name: is missing"),
        (CLASS, "9:1: class[1].steps: is missing"),
        ("[[class]]\nname = 'deep'", '10:1: class[1].name: "deep" is a reserved name'),
        ("[[class]]\nname = 'Deep'", '10:1: class[1].name: "Deep" must be 1 to 32'),
        (CLASS + "steps = 'STANDARD'", "11:1: class[1].steps: must be a list of steps"),
        (CLASS + "steps = []", "11:1: class[1].steps: must be a list of steps"),
        (CLASS + "steps = [0, 'STANDARD']", "11:1: class[1].steps: must be a list of steps"),
        (CLASS + "steps = [[0]]", "11:1: class[1].steps: must be a list of steps"),
        (CLASS + "steps = [['STANDARD', 0]]", "class[1].steps: step 1: must be a whole number from 0 to 36500"),
        (CLASS + "steps = [[0, 1]]", "class[1].steps: step 1: must be a text"),
        (CLASS + "steps = [[0, 'STANDART']]", 'step 1: "STANDART" is not a storage class; did you mean "STANDARD"?'),
        (CLASS + "steps = [[0, 'X']]", 'step 1: "X" is not a storage class; there are STANDARD, STANDARD_IA'),
        (CLASS + "steps = [[0, 'INTELLIGENT_TIERING']]", "step 1: INTELLIGENT_TIERING moves objects by their use"),
        (CLASS + "steps = [[0, 'ONEZONE_IA']]", "step 1: ONEZONE_IA keeps everything in one zone"),
        (CLASS + "steps = [" + "[0, 'STANDARD']," * 6 + "]", "class[1].steps: must be at most 5 steps"),
        (CLASS + "steps = [[1, 'STANDARD']]", "class[1].steps: must begin with day 0"),
        (CLASS + "steps = [[0, 'GLACIER']]", "class[1].steps: must not begin with GLACIER"),
        (CLASS + "steps = [[0, 'GLACIER_IR'], [90, 'STANDARD']]", "cannot go from GLACIER_IR to STANDARD"),
        (CLASS + "steps = [[0, 'STANDARD'], [0, 'GLACIER_IR']]", "later days from step to step: 0 follows 0"),
        (CLASS + "steps = [[0, 'GLACIER_IR'], [89, 'GLACIER']]", "must not leave GLACIER_IR before day 90"),
        (CLASS + "steps = [[0, 'STANDARD'], [29, 'STANDARD_IA']]", "must not reach STANDARD_IA before day 30"),
        (CLASS + "steps = [[0, 'STANDARD'], [30, 'DEEP_ARCHIVE']]", "9:1: class[1].chain_days: must be given"),
        (
            CLASS + "steps = [[0, 'STANDARD'], [45, 'DEEP_ARCHIVE']]\nhot_days = 14\nchain_days = 25",
            "13:1: class[1].chain_days: plus hot_days plus 7 for uploads is 46, and packs are cold after 45 days",
        ),
        (CLASS + "steps = [[0, 'STANDARD']]\nhot_days = 1", "12:1: class[1].hot_days: is for a class with a cold step"),
        (CLASS + "steps = [[0, 'STANDARD']]\nchain_days = -1", "must be a whole number from 0 to 36500"),
        (CLASS + "step = [[0, 'STANDARD']]", 'unknown key; did you mean "steps"?'),
        ((CLASS + "steps = [[0, 'STANDARD']]\n") * 2, '13:1: class[2].name: "c" is already the name of the class'),
        ("[class]\nname = 'c'", "9:1: class: must be an array of tables: [[class]]"),
        ("[[classes]]\nname = 'c'", "9:1: classes: unknown table; did you mean [[class]]?"),
        ("[[retention]]\nkeep_last = 1", "9:1: retention[1].sources: is missing"),
        ("[[retention]]\nsources = []\nkeep_last = 1", "10:1: retention[1].sources: must be a list of sources"),
        ("[[retention]]\nsources = ['a', 1]\nkeep_last = 1", "10:1: retention[1].sources: must be a list of sources"),
        ("[[retention]]\nsources = ['aa']\nkeep_last = 1", 'there is no source "aa"; did you mean "a"?'),
        ("[[retention]]\nsources = ['a', '*']\nkeep_last = 1", 'there is no source "*"'),
        ("[[retention]]\nsources = ['a', 'a']\nkeep_last = 1", '"a" is named twice'),
        (RETENTION, "9:1: retention[1].keep_last: is missing, and so are keep_hourly, keep_daily"),
        (RETENTION + "keep_last = 0", "11:1: retention[1].keep_last: must be a whole number from 1 to 100000"),
        (RETENTION + "keep_daily = '7'", "11:1: retention[1].keep_daily: must be a whole number from 1 to 100000"),
        (RETENTION + "keep_within = '59 min'", 'retention[1].keep_within: "59 min" must be at least 1 h'),
        (RETENTION + "keep_within = '14'", "retention[1].keep_within: \"14\" has no unit"),
        (RETENTION + "keep_within = '1 d'\nminimum_generations = 0", "must be a whole number from 1 to 1000"),
        (RETENTION + "keep_last = 1\nreleased_keep = '1 h'", 'released_keep: "1 h" must be from 1 d to'),
        (RETENTION + "keep_las = 1", 'unknown key; did you mean "keep_last"?'),
        ((RETENTION + "keep_last = 1\n") * 2, '13:1: retention[2].sources: the rules of source "a" are in line 10'),
        ("keep_last = 1\n" + RETENTION + "keep_last = 1", "keep_last: unknown key; it belongs in [[retention]]"),
        ("[[retentoin]]\n", "unknown table; did you mean [[retention]]?"),
        ("[prices]\nfile = 'prices.toml'", '10:1: prices.file: "prices.toml" must be an absolute path'),
        ("[prices]\nfiles = '/p'", '10:1: prices.files: unknown key; did you mean "file"?'),
        ("[restore]\napproval_above = -1", "10:1: restore.approval_above: must be an amount such as 25"),
        ("[restore]\napproval_above = true", "10:1: restore.approval_above: must be an amount such as 25"),
        ("[restore]\napproval_above = '25 EURO'", "10:1: restore.approval_above: must be an amount such as 25"),
        ("[restore]\napproval_above = nan", "10:1: restore.approval_above: must be an amount such as 25"),
        ("[restore]\nscratch = 'scratch'", '10:1: restore.scratch: "scratch" must be an absolute path'),
        ("[restore]\nlink = '1 KiB'", "10:1: restore.link: must be at least 16 KiB"),
        ("[restore]\nlink = '100 MBit'", "10:1: restore.link: unknown unit"),
        ("[restore]\nvia = 'satellite'", '10:1: restore.via: "satellite" must be'),
        ("[restore]\nbudget = 25", "10:1: restore.budget: unknown key"),
        ("approval_above = 25", "approval_above: unknown key"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(text: str, expected: str) -> None:
    found = mistakes(text)
    assert any(expected in each for each in found), found
    assert all(each.startswith("g.toml:") for each in found)


MISSING_RULES = (
    "g.toml:16:1: retention[1].keep_last: is missing, and so are keep_hourly, keep_daily, keep_weekly, keep_monthly, "
    "keep_yearly and keep_within: give one of them"
)


def test_all_mistakes_at_once_and_none_twice() -> None:
    text = """[[source]]
name = "c"
path = "/srv/c"
class = "month"
[[class]]
name = "month"
steps = [[0, "GLACIER"]]
[[retention]]
sources = "d"
"""
    assert mistakes(text) == (
        "g.toml:15:1: class[1].steps: must not begin with GLACIER: deltas and checks read a pack before it is cold",
        MISSING_RULES,
        'g.toml:17:1: retention[1].sources: there is no source "d"',
    )


def test_built_in_classes_obey_the_law() -> None:
    for each in BUILT_IN:
        assert not contradictions(each.steps, each.hot_days, each.chain_days)
    with pytest.raises(ValueError):
        ClassConfig(name="x", steps=((0, "GLACIER"),))
    with pytest.raises(ValueError):
        RetentionConfig(sources=(), rules=RetentionRules(keep_last=1))
    assert SourceConfig(name="a", path=Path("/a")).storage_class == "instant"


storages = st.sampled_from(list(MINIMUM_DAYS))
any_steps = st.lists(st.tuples(st.sampled_from([0, 1, 30, 60, 90, 97, 180, 300]), storages), min_size=1, max_size=4)


@given(any_steps.map(tuple), st.integers(0, 60), st.integers(0, 120), st.integers(0, INGEST_DAYS * 24 * 3600 // 2))
def test_what_obeys_the_law_keeps_its_promise(steps: Steps, hot_days: int, chain_days: int, ingest: int) -> None:
    """A generation that was begun while its chain took any is readable at once for `hot_days`, whatever its packs.

    The chain rolls by `gateway.policy.rolling`, which a promise that can be kept never makes roll early.
    """
    if contradictions(steps, hot_days, chain_days):
        return
    config = ClassConfig(name="x", steps=steps, hot_days=hot_days, chain_days=chain_days)
    assert config.cold_after == rolling.transition(config.flat)
    assert rolling.COLD == COLD
    assert [each for each, _ in steps] == sorted({each for each, _ in steps})
    if config.cold_after is None:
        return
    newest = rolling.NewestChain(
        storage="x", created=0, steps=config.flat, hot_days=hot_days, chain_days=chain_days, oldest=1,
        longest=ingest * 1000,
    )  # fmt: skip
    last = chain_days * rolling.DAY_MS - 1
    reason = rolling.reason_to_roll(newest, "x", source="s", now=last)
    assert "get cold" not in reason, "the law leaves room for ingests of up to half of INGEST_DAYS"
    for now in range(0, 2 * last, rolling.DAY_MS // 3):
        if not rolling.reason_to_roll(newest, "x", source="s", now=now):
            assert 1 + config.cold_after * rolling.DAY_MS - now >= hot_days * rolling.DAY_MS
