"""Every verb, option, exit code, JSON field and configuration key has its line in docs/operate."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from gateway import api, errors
from gateway.cli.app import gateway
from gateway.config import WriterSizes, parse
from gateway.control.server import FOR_USERS
from gateway.jobs.alarms import Kind
from gateway.policy import naming

ROOT = Path(__file__).parents[2]
CLI = (ROOT / "docs" / "operate" / "cli.md").read_text()
CONFIGURATION = (ROOT / "docs" / "operate" / "configuration.md").read_text()
ENGINE = (ROOT / "docs" / "operate" / "engine.md").read_text()
EXAMPLE = ROOT / "config" / "gateway.example.toml"

SHARED = ("--config", "--json", "--quiet", "--verbose", "--log-json", "--help")


def verbs(command: click.Command = gateway, path: str = "gateway") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from verbs(each, f"{path} {name}")
    else:
        yield path, command


def section(text: str, title: str) -> str:
    """From a heading that starts with `title` to the next heading of the same rank."""
    found = re.search(rf"^(#+) `?{re.escape(title)}(?![\w-]).*?(?=^\1 |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no heading {title}"
    return found[0]


@pytest.mark.parametrize(("path", "command"), list(verbs()), ids=lambda each: each if isinstance(each, str) else "")
def test_every_verb_and_option_is_documented(path: str, command: click.Command) -> None:
    text = section(CLI, path)
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            words = (parameter.metavar or str(parameter.name).upper()).replace("[@GEN]", "").split()
        else:
            words = [each for each in parameter.opts if each.startswith("--") and each not in SHARED]
        assert all(word in text for word in words), f"{path}: {words}"


def test_the_documented_verbs_exist() -> None:
    named = re.findall(r"^### `(gateway [a-z]+(?: [a-z]+)?)", CLI, re.MULTILINE)
    assert named == [path for path, _ in verbs()]


def test_shared_options_are_documented_and_every_verb_takes_them() -> None:
    for option in SHARED:
        assert f"`{option}" in section(CLI, "The command line").split("## Naming")[0]
    for path, command in [("gateway", gateway), *verbs()]:
        taken = {option for parameter in command.params for option in parameter.opts}
        assert taken >= set(SHARED) - {"--help"}, path


def test_verbs_that_open_the_repository_take_a_recovery_sheet() -> None:
    taking = {path for path, each in verbs() if any("--recovery-sheet" in one.opts for one in each.params)}
    assert {path for path, _ in verbs()} - taking == {"gateway init", "gateway config check", "gateway version"}


def test_whatever_costs_or_deletes_has_a_dry_run() -> None:
    taking = {path for path, each in verbs() if any("--dry-run" in one.opts for one in each.params)}
    assert taking == {
        f"gateway {each}"
        for each in ("restore", "verify", "release", "retention apply", "expire", "sweep", "lifecycle apply")
    }


def classes(root: type[errors.GatewayError] = errors.GatewayError) -> Iterator[type[errors.GatewayError]]:
    yield root
    for child in root.__subclasses__():
        yield from classes(child)


def test_exit_codes_are_documented() -> None:
    rows = re.findall(r"^\| (\d+) \| `?(\w+)`? \|", section(CLI, "Exit codes"), re.MULTILINE)
    documented = {int(code): name for code, name in rows}
    assert documented.pop(0) == "ok"
    assert documented.pop(1) == "failed"
    assert documented.pop(130) == "interrupted"
    # the class nearest to the root speaks for its code
    real: dict[int, str] = {}
    for each in classes():
        if each.exit_code != 1:
            real.setdefault(each.exit_code, each.__name__)
    assert documented == real


@pytest.mark.parametrize(
    ("verb", "kind"),
    [
        ("gateway init", api.InitReport),
        ("gateway ingest", api.SourceIngest),
        ("gateway generations", api.GenerationInfo),
        ("gateway show", api.GenerationDetail),
        ("gateway show", api.Statistics),
        ("gateway show", api.PackInfo),
        ("gateway ls", api.FileInfo),
        ("gateway diff", api.DiffEntry),
        ("gateway restore", api.RestoreReport),
        ("gateway restore", api.RestorePlan),
        ("gateway restore", api.TierOffer),
        ("gateway restore", api.CostFigure),
        ("gateway jobs show", api.JobInfo),
        ("gateway verify", api.VerifyReport),
        ("gateway verify", api.Problem),
        ("gateway rebuild", api.RebuildReport),
        ("gateway status", api.StatusReport),
        ("gateway status", api.SourceStatus),
        ("gateway status", api.PendingFile),
        ("gateway status", api.Work),
        ("gateway show", api.BackupJob),
        ("gateway alarms", api.Alarm),
        ("gateway begin", api.RunReport),
        ("gateway release", api.ReleaseReport),
        ("gateway retention plan", api.RetentionReport),
        ("gateway retention plan", api.RetentionDecision),
        ("gateway retention plan", api.KeepReason),
        ("gateway hold", api.HoldReport),
        ("gateway expire", api.ExpireReport),
        ("gateway sweep", api.SweepReport),
        ("gateway sweep", api.SweptObject),
    ],
)
def test_every_json_field_is_documented(verb: str, kind: type) -> None:
    text = section(CLI, verb)
    missing = [each.name for each in dataclasses.fields(kind) if f"`{each.name}`" not in text]
    assert not missing, f"{verb}: {missing}"


ARRAYS = ("source", "class", "retention", "hook")
SMALLEST = """
[repository]
url = "s3://bucket"
[[class]]
name = "b"
steps = [[0, "STANDARD"]]
[[source]]
name = "a"
path = "/srv/a"
[[retention]]
sources = "a"
keep_last = 1
[[hook]]
name = "p"
command = ["page"]
"""


def keys() -> list[str]:
    """Every key of the configuration, as the reader knows them."""
    return [setting.key.replace("[1]", "") for setting in parse(SMALLEST.encode()).settings]


def test_every_key_is_documented_with_its_default() -> None:
    assert "limits.memory" in keys()
    for key in keys():
        table, name = key.split(".")
        heading = f"[[{table}]]" if table in ARRAYS else f"[{table}]"
        assert re.search(rf"^\| `{name}` \| \S", section(CONFIGURATION, heading), re.MULTILINE), key


def test_every_documented_key_exists() -> None:
    plain = ("repository", "state", "keys", "cache", "limits", "prices", "restore", "advanced", "engine")
    for table in (*plain, *(f"[{each}]" for each in ARRAYS)):
        rows = re.findall(r"^\| `([a-z_]+)` \|", section(CONFIGURATION, f"[{table}]"), re.MULTILINE)
        real = [key.split(".")[1] for key in keys() if key.startswith(table.strip("[]") + ".")]
        assert rows == real


def test_documented_defaults_are_the_defaults() -> None:
    row = re.compile(r"^\| `([a-z_]+)` \| `?\"?([^`\"|]+?)\"?`? \|", re.MULTILINE)
    for setting in parse(SMALLEST.encode()).settings:
        table, name = setting.key.replace("[1]", "").split(".")
        shown = dict(row.findall(section(CONFIGURATION, f"[[{table}]]" if table in ARRAYS else f"[{table}]")))
        if setting.origin == "default" and name not in ("workers", "settle") and setting.value:
            assert shown[name] == setting.value, setting.key
    assert len(dataclasses.fields(WriterSizes)) == 12


def test_every_temporary_name_is_documented() -> None:
    text = section(CONFIGURATION, "Names of files that are being written")
    assert all(f"`{pattern}`" in text for pattern in naming.TEMPORARY)


def test_every_alarm_and_every_call_of_other_users_is_documented() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", section(ENGINE, "Alarms"), re.MULTILINE)
    assert rows == list(Kind)
    (users,) = re.findall(r"^\| `users` .*$", CONFIGURATION, re.MULTILINE)
    verbs_of = {"list_files": "ls", "job": "jobs"}
    assert {verbs_of.get(call, call) for call in FOR_USERS} <= set(re.findall(r"`([a-z]+)`", users))


def test_the_example_names_every_key() -> None:
    text = EXAMPLE.read_text()
    tomllib.loads(text)
    missing = [
        key
        for key in keys()
        if not key.startswith("advanced.") and not re.search(rf"^(# )?{key.split('.')[1]} = ", text, re.MULTILINE)
    ]
    assert not missing


def test_environment_variables_are_documented() -> None:
    used = set()
    for path in (ROOT / "gateway").rglob("*.py"):
        used |= set(re.findall(r'"(GATEWAY_[A-Z_]+)"', path.read_text()))
    assert used >= {"GATEWAY_CONFIG", "GATEWAY_PASSPHRASE", "GATEWAY_DEBUG"}
    assert all(f"`{name}`" in section(CONFIGURATION, "Environment") for name in used)
