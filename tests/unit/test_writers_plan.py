"""Schedules of writers are pure, play every kind, and ask of nobody what cannot be known."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.writers.content import STRUCTURED, Content, Form, shows_complete
from tests.writers.kinds import KINDS, LOCAL_ONLY, STAND, schedule
from tests.writers.oracle import Ended, Oracle, digest_of
from tests.writers.plan import TEMPORARY, Close, Kill, Open
from tests.writers.play import FakePace, InMemory, Player, form_of

SETTLE = 0.3


def played(seed: int, *, local: bool = True) -> Oracle:
    plan = schedule(seed, local=local, small_files=40)
    return Player(plan, InMemory(), settle_seconds=SETTLE, pace=FakePace()).play()


def test_a_seed_is_a_schedule() -> None:
    one, again, other = (schedule(seed, local=True, small_files=20, writers=25) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    assert set(one.kinds) == set(KINDS)
    assert len(one.kinds) == 25
    assert list(one.steps) == sorted(one.steps, key=lambda step: step.at)
    assert not LOCAL_ONLY & set(schedule(1, local=False, small_files=20).kinds)
    with pytest.raises(ValueError, match="over SMB"):
        schedule(1, local=False, kinds=["mapped"])


def test_every_file_that_is_opened_is_closed_or_its_writer_killed() -> None:
    plan = schedule(3, local=True, small_files=20)
    for actor in range(len(plan.kinds)):
        is_open = False
        for action in plan.of(actor):
            if isinstance(action, Open):
                assert not is_open
                is_open = True
            elif isinstance(action, Close | Kill):
                assert is_open
                is_open = False
        assert not is_open
    assert plan.mortal == {step.actor for step in plan.steps if isinstance(step.action, Kill)}


@pytest.mark.parametrize("seed", range(6))
def test_nothing_comes_up_that_nobody_can_tell(seed: int) -> None:
    for path, version in played(seed).all():
        assert not version.beyond_telling, path
        assert version.last is None or version.first <= version.last


def test_a_schedule_has_what_it_is_for() -> None:
    oracle = played(1)
    ends = defaultdict(set)
    for path, version in oracle.all():
        ends[version.ended].add(path.partition("/")[0].partition("-")[2])
    assert {name for name in KINDS if name.endswith("killed")} == ends[Ended.KILLED]
    assert {"renamed", "renamed_killed", "directory_renamed"} == ends[Ended.RENAMED]
    for kind in KINDS:
        mine = [version for path, version in oracle.all() if f"-{kind}/" in path]
        assert any(version.until(oracle.end) - version.first >= SETTLE * STAND * 0.9 for version in mine), kind
    renamed = [version for path, version in oracle.all() if "-renamed/" in path and version.ended is Ended.RENAMED]
    assert {version.evidence for version in renamed} == {3}
    stalled = [version for path, version in oracle.all() if "-slow/" in path and version.ended is Ended.OPEN]
    assert max(version.until(oracle.end) - version.first for version in stalled) > SETTLE * 2
    [volume] = [path for path in oracle.versions if "-volume/" in path]
    assert sum(version.complete for version in oracle.versions[volume]) >= 3


@pytest.mark.parametrize("form", STRUCTURED)
def test_a_structure_shows_its_end(form: Form) -> None:
    for seed in range(3):
        data = Content(form=form, seed=seed, about=90_000).bytes()
        other = Content(form=form, seed=seed + 100, about=90_000).bytes()
        assert shows_complete(form, data)
        for share in (0.0, 0.1, 0.5, 0.9, 0.999):
            cut = int(len(data) * share)
            assert not shows_complete(form, data[:cut]), share
            if share <= 0.6 or form is not Form.TAR:
                assert not shows_complete(form, data[:cut] + bytes(len(data) - cut)), f"preallocated, {share}"
            if form in (Form.GZIP, Form.ZIP) and share:
                assert not shows_complete(form, other[:cut] + data[cut:]), f"written over, {share}"
        assert not shows_complete(form, data + b"x")


def test_what_shows_nothing_shows_nothing() -> None:
    data = Content(form=Form.OPAQUE, seed=1, about=90_000).bytes()
    assert len(data) == 90_000
    assert not any(shows_complete(form, data) for form in Form)


def test_a_form_is_known_by_its_name() -> None:
    for form in Form:
        assert form_of(f"a.tar/piece{form}") is form
        assert {form_of(f"piece{form}{suffix}") for suffix in TEMPORARY} == {form}


def test_the_digest_is_that_of_the_product() -> None:
    assert digest_of(b"") == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    with pytest.raises(ValueError, match="64 MiB"):
        digest_of(bytes(64 * 1024 * 1024 + 1))
