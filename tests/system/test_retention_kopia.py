"""Beside kopia, whose rules differ from restic's in two ways: a rule for n hours, days, months or years looks only at
the last n of them before the newest, however many had a snapshot; and the oldest is never kept for want of others.

So kopia keeps nothing that we expire, and we keep more than kopia by exactly these two. Weeks are left out: kopia gives
week 1 and January one name, and skips the second of them.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.config.retention import RetentionRules
from gateway.model.ids import GenerationId
from gateway.policy.retention import Generation, Rule, SourceState, plan
from tests.system.peers import peer

SEED = 20261126
SNAPSHOTS = 10
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
STEPS = (HOUR, 6 * HOUR, DAY, 20 * DAY, 100 * DAY)
"""One timeline each."""
WORDS = {
    "latest": Rule.LAST, "hourly": Rule.HOURLY, "daily": Rule.DAILY, "monthly": Rule.MONTHLY, "annual": Rule.YEARLY,
}  # fmt: skip
POLICIES = (
    RetentionRules(keep_last=5),
    RetentionRules(keep_hourly=4),
    RetentionRules(keep_daily=3),
    RetentionRules(keep_monthly=6),
    RetentionRules(keep_yearly=2),
    RetentionRules(keep_last=1, keep_hourly=10, keep_daily=4, keep_monthly=3, keep_yearly=3),
)


class Kopia:
    def __init__(self, program: Path, directory: Path) -> None:
        self._program, self._directory = program, directory
        self.run("repository", "create", "filesystem", f"--path={directory / 'repository'}")
        self.set_policy(RetentionRules(keep_last=1000))

    def run(self, *arguments: str) -> bytes:
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(self._directory), "TZ": "UTC", "KOPIA_PASSWORD": "tests",
            "KOPIA_CONFIG_PATH": str(self._directory / "config"), "KOPIA_CHECK_FOR_UPDATES": "false",
        }  # fmt: skip
        words = [self._program, *arguments, "--no-progress", "--log-level=error", "--disable-file-logging"]
        done = subprocess.run(words, env=environment, cwd=self._directory, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def set_policy(self, rules: RetentionRules) -> None:
        counts = {
            "latest": rules.keep_last, "hourly": rules.keep_hourly, "daily": rules.keep_daily, "weekly": 0,
            "monthly": rules.keep_monthly, "annual": rules.keep_yearly,
        }  # fmt: skip
        self.run("policy", "set", "--global", *(f"--keep-{word}={count}" for word, count in counts.items()))

    def reasons(self) -> dict[str, dict[datetime, set[Rule]]]:
        """Timeline -> moment -> why kopia keeps the snapshot; an empty set: it does not."""
        found: dict[str, dict[datetime, set[Rule]]] = {}
        for each in json.loads(self.run("snapshot", "list", "--all", "--json", "--max-results=1000")):
            moment = datetime.fromisoformat(each["startTime"])
            rules = {WORDS[reason.split("-")[0]] for reason in each.get("retentionReason") or ()}
            found.setdefault(Path(each["source"]["path"]).name, {})[moment] = rules
        return found


def moments(step: timedelta, chance: random.Random) -> list[datetime]:
    found, at = [], datetime(2021, 12, 30, 3, tzinfo=UTC)
    for _ in range(SNAPSHOTS):
        at += step * chance.choice((1, 1, chance.random() + 0.2, 3))
        found.append(at.replace(microsecond=0))
    return found


@pytest.fixture(scope="module")
def kopia(tmp_path_factory: pytest.TempPathFactory) -> Kopia:
    made, chance = Kopia(peer("kopia", everywhere=False), tmp_path_factory.mktemp("kopia")), random.Random(SEED)
    for number, step in enumerate(STEPS):
        source = made._directory / f"timeline-{number}"
        source.mkdir()
        (source / "file").write_text("x")
        for moment in moments(step, chance):
            shown = f"{moment:%Y-%m-%d %H:%M:%S} UTC"
            made.run("snapshot", "create", str(source), f"--start-time={shown}", f"--end-time={shown}")
    return made


def before(newest: datetime, rule: Rule, count: int) -> datetime:
    """From where on kopia looks."""
    if rule is Rule.HOURLY:
        return newest - count * HOUR
    if rule is Rule.DAILY:
        return newest - count * DAY
    months = newest.year * 12 + newest.month - 1 - count * (12 if rule is Rule.YEARLY else 1)
    start = datetime(months // 12, months % 12 + 1, 1, newest.hour, newest.minute, newest.second, tzinfo=UTC)
    return start + (newest.day - 1) * DAY  # as Go adds months: the 31st of a short one is in the next


@pytest.mark.slow
@pytest.mark.parametrize("rules", POLICIES, ids=str)
def test_kopia_keeps_the_same_but_for_two_things(kopia: Kopia, rules: RetentionRules) -> None:
    kopia.set_policy(rules)
    theirs = kopia.reasons()
    assert len(theirs) == len(STEPS)
    for name, kept in theirs.items():
        assert len(kept) == SNAPSHOTS
        newest = max(kept)
        generations = [
            Generation(id=GenerationId(bytes([number])), source=name, number=number, begun=begun)
            for number, begun in enumerate(sorted(kept), 1)
        ]
        decided = plan(generations, [SourceState(name=name, rules=rules)], now=newest + HOUR)
        for decision in decided.decisions:
            ours = {
                reason.rule for reason in decision.reasons
                if reason.rule is not Rule.MINIMUM and not reason.text.startswith("the oldest")
                and (
                    reason.rule is Rule.LAST
                    or decision.begun >= before(newest, reason.rule, getattr(rules, f"keep_{reason.rule}"))
                )
            }  # fmt: skip
            assert ours == kept[decision.begun], (name, decision)
            assert kept[decision.begun] <= {reason.rule for reason in decision.reasons}
