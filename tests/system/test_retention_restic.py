"""Our rules keep what `restic forget` keeps, for the same reasons: 500 random timelines under every policy.

Each timeline is a host of one repository, so that one call of restic decides on all of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from gateway.config.retention import RetentionRules
from gateway.model.ids import GenerationId
from gateway.policy.retention import Generation, Rule, SourceState, plan
from tests.system.peers import Restic, peer

TIMELINES = 500
SEED = 20261126
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
END = datetime(2025, 12, 31, tzinfo=UTC)
"""`--keep-within` of restic leaves out what lies in its future when it looks for the newest."""

POLICIES = (
    RetentionRules(keep_last=1),
    RetentionRules(keep_last=7),
    RetentionRules(keep_hourly=1),
    RetentionRules(keep_hourly=24),
    RetentionRules(keep_daily=1),
    RetentionRules(keep_daily=7),
    RetentionRules(keep_weekly=1),
    RetentionRules(keep_weekly=5),
    RetentionRules(keep_monthly=2),
    RetentionRules(keep_monthly=12),
    RetentionRules(keep_yearly=1),
    RetentionRules(keep_yearly=10),
    RetentionRules(keep_within=12 * HOUR),
    RetentionRules(keep_within=14 * DAY),
    RetentionRules(keep_within=400 * DAY + 5 * HOUR),
    RetentionRules(keep_daily=7, keep_weekly=4, keep_monthly=12, keep_yearly=7),
    RetentionRules(keep_last=3, keep_hourly=6, keep_daily=3, keep_weekly=2, keep_monthly=2, keep_yearly=2),
    RetentionRules(keep_last=2, keep_within=3 * DAY, keep_weekly=3),
    RetentionRules(keep_hourly=48, keep_within=36 * HOUR, keep_yearly=2),
)
WORDS = {
    "last": Rule.LAST, "hourly": Rule.HOURLY, "daily": Rule.DAILY, "weekly": Rule.WEEKLY, "monthly": Rule.MONTHLY,
    "yearly": Rule.YEARLY, "within": Rule.WITHIN,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Timeline:
    host: str
    times: tuple[datetime, ...]
    ids: tuple[str, ...]


def moments(chance: random.Random) -> tuple[datetime, ...]:
    """1 to 30 moments of one of many rhythms, often around the turn of a year, in no order."""
    start = datetime(chance.randint(2015, 2022), 12, 20, tzinfo=UTC) + chance.randint(0, 20) * DAY
    step = chance.choice((timedelta(minutes=20), HOUR, 6 * HOUR, DAY, 3 * DAY, 7 * DAY, 30 * DAY))
    found, at = set(), start
    for _ in range(chance.choice((1, 2, 5, 12, 20, 30))):
        at += step * chance.choice((1, 1, 1, chance.random() + 0.1, chance.randint(1, 12)))
        if at > END:
            break
        if chance.random() < 0.2:
            at = at.replace(hour=0, minute=0, second=0)  # where periods meet
        found.add(at.replace(microsecond=0))
    shuffled = sorted(found)
    chance.shuffle(shuffled)
    return tuple(shuffled)


@pytest.fixture(scope="module")
def restic(tmp_path_factory: pytest.TempPathFactory) -> Restic:
    return Restic(peer("restic"), tmp_path_factory.mktemp("restic"))


@pytest.fixture(scope="module")
def timelines(restic: Restic) -> tuple[Timeline, ...]:
    chance = random.Random(SEED)

    def made() -> Iterator[Timeline]:
        for number in range(TIMELINES):
            times = moments(chance)
            yield Timeline(f"host-{number}", times, tuple(restic.add(f"host-{number}", times)))

    return tuple(made())


def arguments(rules: RetentionRules) -> list[str]:
    counts = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
    found = [f"--keep-{word}={getattr(rules, f'keep_{word}')}" for word in counts if getattr(rules, f"keep_{word}")]
    if rules.keep_within is not None:
        found.append(f"--keep-within={rules.keep_within.days}d{rules.keep_within.seconds // 3600}h")
    return found


def ours(timeline: Timeline, rules: RetentionRules, *, oldest: bool) -> dict[str, set[Rule]]:
    """What we keep and why; without what is kept as the oldest alone, unless `oldest` says that it counts."""
    ids = {GenerationId(sha256(each.encode()).digest()[:16]): each for each in timeline.ids}
    by_time = sorted(zip(timeline.times, ids, strict=True))
    generations = [
        Generation(id=generation, source=timeline.host, number=number, begun=begun)
        for number, (begun, generation) in enumerate(by_time, 1)
    ]
    decided = plan(generations, [SourceState(name=timeline.host, rules=rules)], now=by_time[-1][0] + DAY)
    assert not decided.freezes
    kept = {
        ids[each.generation]: {
            reason.rule for reason in each.reasons
            if reason.rule is not Rule.MINIMUM and (oldest or not reason.text.startswith("the oldest"))
        }
        for each in decided.kept
    }  # fmt: skip
    return {each: reasons for each, reasons in kept.items() if reasons or oldest}


@pytest.mark.slow
@pytest.mark.parametrize("rules", POLICIES, ids=lambda rules: " ".join(arguments(rules)).replace("--keep-", ""))
def test_restic_keeps_the_same(restic: Restic, timelines: tuple[Timeline, ...], rules: RetentionRules) -> None:
    theirs = restic.forget(*arguments(rules))
    assert len(theirs) == len(timelines) == TIMELINES
    expiring, oldest = 0, restic.keeps_the_oldest
    for timeline in timelines:
        kept = ours(timeline, rules, oldest=oldest)
        expiring += len(timeline.ids) - len(kept)
        expected = {
            each: {WORDS[next(word for word in reason.split() if word in WORDS)] for reason in reasons}
            for each, reasons in theirs[timeline.host].items()
        }
        assert kept == expected, timeline
    assert expiring, "a policy under which nothing expires shows nothing"


def test_a_repository_of_snapshots_alone_is_what_restic_makes(tmp_path: Path) -> None:
    """The one shortcut of this file: restic itself reads such a snapshot like one of its own."""
    theirs = Restic(peer("restic"), tmp_path)
    (tmp_path / "file").write_text("x")
    theirs._run("backup", "--quiet", "--host", "a", "--time", "2026-01-02 03:04:05", "file")
    theirs.add("b", [datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)])
    kept = theirs.forget("--keep-daily=1")
    assert [list(reasons.values()) for reasons in kept.values()] == [[("daily snapshot",)], [("daily snapshot",)]]
