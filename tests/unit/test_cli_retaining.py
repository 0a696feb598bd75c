"""The verbs of retention: what each asks for, what it prints, how it ends."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from gateway.api import Freeze, Reference
from gateway.control import wire
from gateway.errors import ApprovalNeeded
from tests.unit.fake_api import HELD_GENERATION, RETENTION, SWEPT, FakeApi, Gateway, command_line, written_config


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def gateway(
    api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Gateway:
    return command_line(api, written_config(tmp_path), capsys, monkeypatch)


REFERENCE = Reference(source="orcl-prod", number=3)


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["retention", "plan"], ("retention_plan", None)),
        (["retention", "plan", "a"], ("retention_plan", "a")),
        (["retention", "apply"], ("retention_apply", None, "", "ada")),
        (["retention", "apply", "a", "--approve", "ff"], ("retention_apply", "a", "ff", "ada")),
        (["retention", "apply", "--dry-run"], ("retention_plan", None)),
        (["hold", "orcl-prod@3", "--reason", "audit"], ("hold_generation", REFERENCE, "audit", "ada")),
        (["unhold", "orcl-prod@3"], ("unhold_generation", REFERENCE, "", "ada")),
        (["expire", "orcl-prod@3", "--dry-run"], ("expire_generation", REFERENCE, True, "ada")),
        (["expire", "orcl-prod@3"], ("expire_generation", REFERENCE, False, "ada")),
        (["sweep"], ("sweep", None, False)),
        (["sweep", "a", "--dry-run"], ("sweep", "a", True)),
    ],
    ids=str,
)
def test_what_is_asked(gateway: Gateway, api: FakeApi, words: list[str], asked: tuple[Any, ...]) -> None:
    done = gateway(*words, "--json")
    assert (done.code, api.asked) == (0, [asked])
    assert isinstance(done.document, dict)
    shown = gateway(*words)
    assert shown.code == 0
    assert shown.out


def test_a_plan_says_why(gateway: Gateway, api: FakeApi) -> None:
    frozen = Freeze(source="", reason="the clock is wrong")
    api.answers["retention_plan"] = dataclasses.replace(RETENTION, freezes=(frozen,))
    out = gateway("retention", "plan").out
    for text in (
        "last: 1st of the newest 7", "hold: audit (ada)", "last: 7 later ones are protected", "Plan 0123456789abcdef",
        "1 of 2 generations expire", "25%", "--approve 0123456789abcdef", "Nothing of all sources expires",
    ):  # fmt: skip
        assert text in out, text


def test_a_plan_that_needs_an_approval_is_exit_code_21(gateway: Gateway, api: FakeApi) -> None:
    api.answers["retention_apply"] = ApprovalNeeded("Plan 0123 removes 25%.", advice="--approve 0123")
    done = gateway("retention", "apply", "--json")
    assert done.code == 21
    assert done.document["error"]["class"] == "ApprovalNeeded"
    assert "0123" in done.err


def test_a_sweep_that_left_something_is_exit_code_3(gateway: Gateway, api: FakeApi) -> None:
    api.answers["sweep"] = dataclasses.replace(SWEPT, problems=("chain a/000001: locked",))
    done = gateway("sweep")
    assert done.code == 3
    assert "locked" in done.err
    assert "orcl-prod/000001 is finished" in done.out


@pytest.mark.parametrize(
    ("name", "value"),
    [("retention_plan", RETENTION), ("sweep", SWEPT), ("hold_generation", HELD_GENERATION)],
)
def test_reports_pass_through_the_control_socket(name: str, value: object) -> None:
    assert wire.decode(wire.encode(value), wire.calls()[name].result) == value
