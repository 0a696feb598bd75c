"""Command lines against a fake api: what it is asked, and which exit code comes out."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest

from gateway import errors
from gateway.api import (
    CheckReport,
    Depth,
    Finding,
    Grade,
    Head,
    IngestReport,
    LeftOut,
    Problem,
    ProblemKind,
    Reference,
    SourceIngest,
)
from gateway.model.ids import ChainName
from tests.unit.fake_api import (
    DIGEST,
    FAILURE,
    HELD,
    INCOMPLETE,
    PLAN,
    SHEET,
    FakeApi,
    Gateway,
    command_line,
    written_config,
)


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return written_config(tmp_path)


@pytest.fixture
def gateway(
    api: FakeApi, config_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Gateway:
    return command_line(api, config_file, capsys, monkeypatch)


LATEST = Reference(source="orcl-prod")
FREE = "", None, None, False, "ada"
"""No tier, deadline and budget; not detached; who asks."""


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("init", ("init",)),
        ("config check --online", ("check_config",)),
        ("ingest", ("ingest", None, False, False, "ada")),
        ("ingest orcl-prod --seal-now", ("ingest", "orcl-prod", True, False, "ada")),
        ("ingest orcl-prod --new-chain", ("ingest", "orcl-prod", False, True, "ada")),
        ("chains", ("chains", None)),
        ("generations", ("generations", None)),
        ("generations orcl-prod", ("generations", "orcl-prod")),
        ("show orcl-prod", ("show", LATEST)),
        ("show orcl-prod@latest", ("show", LATEST)),
        ("show orcl-prod@17", ("show", Reference(source="orcl-prod", number=17))),
        ("show orcl-prod@g3f", ("show", Reference(source="orcl-prod", id_prefix="g3f"))),
        ("ls orcl-prod@17", ("list_files", Reference(source="orcl-prod", number=17), b"")),
        ("ls orcl-prod a/b", ("list_files", LATEST, b"a/b")),
        ("ls orcl-prod odd\udcff", ("list_files", LATEST, b"odd\xff")),
        ("diff a@1 a@2", ("diff", Reference(source="a", number=1), Reference(source="a", number=2))),
        ("restore orcl-prod --to /to", ("restore", LATEST, Path("/to"), (), False, False, False, *FREE)),
        (
            "restore orcl-prod --to /to --path a* --path **/b --overwrite --incomplete --dry-run",
            ("restore", LATEST, Path("/to"), (b"a*", b"**/b"), True, True, True, *FREE),
        ),
        ("verify", ("verify", None, Depth.STRUCTURE, False)),
        ("verify orcl-prod --depth data --dry-run", ("verify", "orcl-prod", Depth.DATA, True)),
        ("rebuild", ("rebuild", ())),
        (
            f"rebuild --expect-head a/000001:5:{DIGEST} --expect-head b/2:0:{DIGEST}",
            (
                "rebuild",
                (
                    Head(chain=ChainName("a", 1), sequence=5, digest=DIGEST),
                    Head(chain=ChainName("b", 2), sequence=0, digest=DIGEST),
                ),
            ),
        ),
    ],
)
@pytest.mark.parametrize("form", ["", "--json"])
def test_a_verb_asks_the_api(gateway: Gateway, api: FakeApi, words: str, asked: tuple[Any, ...], form: str) -> None:
    done = gateway(*words.split(), *form.split())
    assert (done.code, api.asked) == (0, [asked]), done.err
    assert api.closed == 1
    if form:
        json.loads(done.out)


def test_shared_options_stand_before_or_after_the_verb(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GATEWAY_CONFIG")
    for words in (("--json", "generations"), ("generations", "--json"), ("--quiet", "generations", "--json", "-v")):
        done = gateway(*words)
        assert done.code == 2
        assert done.document["error"]["what"].startswith("The configuration file /etc/gateway/gateway.toml")
    other = tmp_path / "other.toml"
    other.write_text("x")
    for words in (("--config", "/none", "config", "check", "--config"), ("--config", "/none", "config", "--config")):
        done = gateway(*words, str(other), *(() if "check" in words else ("check",)))
        assert f"{other}:1:2: " in done.err


def test_the_recovery_sheet_is_read_from_a_file(
    gateway: Gateway, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheet = tmp_path / "sheet"
    sheet.write_text(SHEET)
    assert gateway("generations", "--recovery-sheet", str(sheet)).code == 0
    assert api.recovery_sheet == SHEET
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"from stdin")))
    assert gateway("generations", "--recovery-sheet", "-").code == 0
    assert api.recovery_sheet == "from stdin"
    for data in (b"", b"\xff", b"x" * 65537):
        sheet.write_bytes(data)
        done = gateway("generations", "--recovery-sheet", str(sheet))
        assert (done.code, "is not the text of a recovery sheet" in done.err) == (2, True)
    done = gateway("generations", "--recovery-sheet", str(tmp_path / "none"))
    assert (done.code, "cannot be read" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("sources", "code", "said"),
    [
        ((SourceIngest(source="a"),), 0, ""),
        ((HELD,), 0, "warning: a: x\\ny is held back: growing\nwarning: a: 3 more files held back\n"),
        ((SourceIngest(source="a", generation=INCOMPLETE),), 3, ""),
        ((HELD, SourceIngest(source="b", failure=FAILURE)), 14, "error: b: No answer.\nm\na\n"),
    ],
)
def test_what_an_ingest_means(
    gateway: Gateway, api: FakeApi, sources: tuple[SourceIngest, ...], code: int, said: str
) -> None:
    api.answers["ingest"] = IngestReport(sources=sources)
    for words in (("ingest",), ("ingest", "--json"), ("ingest", "--quiet")):
        done = gateway(*words)
        assert (done.code, said in done.err) == (code, True)
    assert gateway("ingest", "--quiet").out == ""


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"left_out": (LeftOut(path=b"x", reason="exists"),)}, 3),
        ({"left_out_more": 1}, 3),
        ({"plan": dataclasses.replace(PLAN, generation=INCOMPLETE)}, 3),
        ({"plan": dataclasses.replace(PLAN, generation=INCOMPLETE), "dry_run": True}, 0),
        ({"notes": ("owners were not set",)}, 0),
    ],
)
def test_what_a_restore_means(gateway: Gateway, api: FakeApi, changes: dict[str, Any], code: int) -> None:
    api.answers["restore"] = dataclasses.replace(api.answers["restore"], **changes)
    done = gateway("restore", "orcl-prod", "--to", "/to")
    assert done.code == code
    assert ("warning:" in done.err) == bool(code or "notes" in changes)
    document = gateway("restore", "orcl-prod", "--to", "/to", "--json").document
    assert document["plan"]["generation"]["source"] == "orcl-prod"
    assert document["target"] == "/to"


@pytest.mark.parametrize(
    ("kinds", "code"),
    [
        ((), 0),
        ((ProblemKind.COLD,), 20),
        ((ProblemKind.COLD, ProblemKind.DENIED), 14),
        ((ProblemKind.BUSY,), 14),
        ((ProblemKind.COLD, ProblemKind.MISSING), 13),
        ((ProblemKind.ROLLED_BACK,), 13),
        ((ProblemKind.DENIED, ProblemKind.CORRUPT), 13),
    ],
)
@pytest.mark.parametrize("verb", ["verify", "rebuild"])
def test_what_problems_mean(
    gateway: Gateway, api: FakeApi, verb: str, kinds: tuple[ProblemKind, ...], code: int
) -> None:
    problems = tuple(Problem(kind=kind, address="packs/x", what="w", generations=("a@1",)) for kind in kinds)
    api.answers[verb] = dataclasses.replace(api.answers[verb], problems=problems)
    done = gateway(verb, "--quiet")
    assert done.code == code
    assert ("packs/x" in done.out) == bool(kinds)
    assert ("error:" in done.err) == bool(kinds)
    document = gateway(verb, "--json").document
    assert [each["kind"] for each in document["problems"]] == [str(kind) for kind in kinds]


def test_a_check_that_finds_problems(gateway: Gateway, api: FakeApi) -> None:
    finding = Finding(grade=Grade.PROBLEM, subject="store", text="does not answer")
    api.answers["check_config"] = CheckReport(findings=(finding,))
    done = gateway("config", "check", "--online", "--json")
    assert (done.code, done.document["findings"][0]["grade"]) == (1, "problem")
    assert "does not answer" in gateway("config", "check", "--online").out


def test_a_check_that_is_not_online_asks_nobody(gateway: Gateway, api: FakeApi, config_file: Path) -> None:
    done = gateway("config", "check", "--json")
    assert (done.code, api.asked, done.document["file"]) == (0, [], str(config_file))
    assert "limits.memory" in gateway("config", "check").out


def test_mistakes_of_the_configuration(gateway: Gateway, config_file: Path) -> None:
    config_file.write_text('[repository]\nurl = "s3://bucket"\nregoin = "x"\nprofil = "y"\n')
    done = gateway("generations")
    assert done.code == 2
    assert done.err.splitlines() == [
        "error: The configuration has 2 mistakes.",
        f'{config_file}:3:1: repository.regoin: unknown key; did you mean "region"?',
        f'{config_file}:4:1: repository.profil: unknown key; did you mean "profile"?',
        "Nothing was done.",
    ]
    error = gateway("generations", "--json").document["error"]
    assert (error["class"], error["exit_code"], len(error["mistakes"])) == ("ConfigError", 2, 2)


def test_warnings_of_the_configuration(gateway: Gateway, config_file: Path, tmp_path: Path) -> None:
    passphrase = tmp_path / "p"
    passphrase.write_text("x")
    passphrase.chmod(0o644)
    config_file.write_text(config_file.read_text() + f'[keys]\npassphrase_file = "{passphrase}"\n')
    done = gateway("generations", "--json")
    assert done.err.startswith(f"warning: {config_file}:4:1: keys.passphrase_file")
    assert len(done.document) == 1


def classes(root: type[errors.GatewayError] = errors.GatewayError) -> list[type[errors.GatewayError]]:
    """Those of the exception tree itself: what a room derives from them for its own use keeps their exit code."""
    children = [child for child in root.__subclasses__() if child.__module__ == errors.__name__]
    return [root, *(each for child in children for each in classes(child))]


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_every_error_has_its_exit_code(gateway: Gateway, api: FakeApi, kind: type[errors.GatewayError]) -> None:
    error = kind(("f:1:1: x",)) if issubclass(kind, errors.ConfigError) else kind("what", meaning="m", advice="a")
    api.answers["generations"] = error
    done = gateway("generations")
    assert (done.code, done.out) == (kind.exit_code, "")
    assert done.err.startswith("error: ")
    document = gateway("generations", "--json").document
    assert document["error"]["class"] == kind.__name__
    assert document["error"]["exit_code"] == kind.exit_code
    assert api.closed == 2


def test_an_error_is_three_lines_and_moves_no_cursor(gateway: Gateway, api: FakeApi) -> None:
    api.answers["generations"] = errors.StoreDenied("[red]\x1b[2J what", meaning="means", advice="do")
    assert gateway("generations").err == "error: [red]\\x1b[2J what\nmeans\ndo\n"


def test_an_unexpected_error_is_a_message(gateway: Gateway, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api.answers["generations"] = ZeroDivisionError("oops")
    done = gateway("generations", "--json")
    assert done.code == 1
    assert done.err.startswith("error: Unexpected ZeroDivisionError: oops\n")
    assert "Traceback" not in done.err
    assert "GATEWAY_DEBUG=1" in done.err
    assert done.document["error"]["class"] == "ZeroDivisionError"
    monkeypatch.setenv("GATEWAY_DEBUG", "1")
    assert "Traceback" in gateway("generations").err


def test_an_interrupt(gateway: Gateway, api: FakeApi) -> None:
    api.answers["generations"] = KeyboardInterrupt()
    done = gateway("generations", "--json")
    assert (done.code, done.document["error"]["class"], api.closed) == (130, "Interrupted", 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("restor",), 'Did you mean "restore"?'),
        (("zebra",), "There are: init, config, ingest"),
        ((), "Usage: gateway"),
        (("config",), "Usage: gateway config"),
        (("restore", "a"), "Missing option '--to'"),
        (("restore", "a", "--to", "/x", "--dryrun"), "No such option"),
        (("verify", "--depth", "deep"), "'deep' is not one of"),
        (("show", "A@1"), '"A@1" does not name a generation.'),
        (("show", "a@"), '"" in "a@" does not name a generation.'),
        (("show", "a@g"), "does not name a generation."),
        (("show", "a@3f"), "does not name a generation."),
        (("show", "a@1@2"), "does not name a generation."),
        (("rebuild", "--expect-head", "a/1:2:3"), '"a/1:2:3" is not the head of a log.'),
    ],
)
def test_usage_errors(gateway: Gateway, api: FakeApi, words: tuple[str, ...], said: str) -> None:
    done = gateway(*words)
    assert (done.code, api.asked) == (2, [])
    assert said in done.err
    assert done.out == ""
    assert gateway(*words, "--json").document["error"]["exit_code"] == 2


def test_help_is_no_error(gateway: Gateway) -> None:
    assert gateway("--help").code == 0
    assert "--path GLOB" in gateway("restore", "-h").out


def test_version_needs_no_configuration(gateway: Gateway, api: FakeApi, config_file: Path) -> None:
    config_file.unlink()
    assert gateway("version").out.startswith("gateway ")
    assert gateway("version", "--json").document["format"] == 1
    assert api.asked == []
