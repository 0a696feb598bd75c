"""The verbs of the engine and of producers, against a fake api: text, JSON, exit codes; and lists of sealed files."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import daemon, errors
from gateway.api import IngestReport, LeftOut, ReleaseReport, RunState, SealedFile, SourceIngest, StatusReport
from gateway.cli.lists import parse_list
from gateway.errors import UsageError
from tests.unit.fake_api import (
    ALARM,
    DIGEST,
    FAILURE,
    GENERATION,
    INCOMPLETE,
    RUN,
    STATUS,
    FakeApi,
    Gateway,
    command_line,
    written_config,
)


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def gateway(
    api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Gateway:
    return command_line(api, written_config(tmp_path), capsys, monkeypatch)


# --- what is asked ---------------------------------------------------------------------------------------------------

RELATIVE = (SealedFile(path=b"mon/a", digest="sha256:" + DIGEST), SealedFile(path=b"mon/b", size=3))


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("status", ("status",)),
        ("alarms", ("alarms", 100)),
        ("accept orcl-prod", ("accept", "orcl-prod", "anomaly", "ada")),
        ("accept orcl-prod --alarm damaged-pack", ("accept", "orcl-prod", "damaged-pack", "ada")),
        ("begin orcl-prod --run mon", ("begin", "orcl-prod", "mon", "ada")),
        ("fail orcl-prod --run mon --reason full", ("fail", "orcl-prod", "mon", "full", "ada")),
        ("fail orcl-prod --run mon", ("fail", "orcl-prod", "mon", "", "ada")),
        ("seal orcl-prod --run mon", ("seal", "orcl-prod", "mon", (), b"", (), "ada", False)),
        (
            "seal orcl-prod --run mon --folder monday/x --requires a --requires b --wait",
            ("seal", "orcl-prod", "mon", (), b"monday/x", ("a", "b"), "ada", True),
        ),
        ("barrier", ("barrier", None, True)),
        ("barrier orcl-prod --no-wait", ("barrier", "orcl-prod", False)),
        ("release", ("release", None, False)),
        ("release orcl-prod --dry-run", ("release", "orcl-prod", True)),
    ],
)
def test_what_the_api_is_asked(gateway: Gateway, api: FakeApi, words: str, asked: tuple[Any, ...]) -> None:
    assert gateway(*words.split()).code == 0
    assert api.asked == [asked]
    assert api.closed == 1


def test_a_list_comes_from_a_file_or_from_standard_input(
    gateway: Gateway, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"# made by a script\n{DIGEST}  mon/a\n\n3 mon/b\n".encode()
    (tmp_path / "list").write_bytes(text)
    assert gateway("seal", "orcl-prod", "--run", "mon", "--list", str(tmp_path / "list")).code == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert gateway("seal", "orcl-prod", "--run", "mon", "--list", "-").code == 0
    assert [asked[3] for asked in api.asked] == [RELATIVE, RELATIVE]


@pytest.mark.parametrize(
    "words",
    ["begin a", "seal a", "fail a", "begin --run x", "seal", "alarms x", "status x", "accept a --alarm no-events"],
)
def test_what_is_missing_or_too_much_is_a_usage_error(gateway: Gateway, api: FakeApi, words: str) -> None:
    assert gateway(*words.split()).code == 2
    assert api.asked == []


def test_a_list_that_is_not_there_or_is_absolute_seals_nothing(gateway: Gateway, api: FakeApi, tmp_path: Path) -> None:
    done = gateway("--json", "seal", "a", "--run", "x", "--list", str(tmp_path / "none"))
    assert (done.code, done.document["error"]["class"]) == (2, "UsageError")
    assert "none cannot be read: No such file" in done.err
    (tmp_path / "list").write_text("relative\n/absolute\n")
    done = gateway("seal", "a", "--run", "x", "--list", str(tmp_path / "list"))
    assert done.code == 2
    assert "list, line 2: the path is absolute." in done.err
    assert api.asked == []


# --- what is said ----------------------------------------------------------------------------------------------------


def test_status_for_people(gateway: Gateway) -> None:
    done = gateway("status")
    assert done.code == 0
    for line in (
        "The engine runs since 2026-11-25T07:00:00Z (pid 4711).",
        "ingest orcl-prod: reading 1 GiB of 2 GiB, 128 MiB/s, for 8 s",
        "waiting: verify, run mon orcl-prod",
        "orcl-prod: odd\\xff\\nname (2 KiB) is held: it is torn",
        "orcl-prod: plain (0 B) is growing",
        "orcl-prod: 20 more files pending",
    ):
        assert line in done.out
    (row,) = [line.split() for line in done.out.splitlines() if line.split()[:2] == ["orcl-prod", "17"]]
    assert row == ["orcl-prod", "17", "2026-11-25T07:00:00Z", "2", "h", "24", "h", "22", "40", "GiB", "3", "d"]


def test_status_without_an_engine_says_so(gateway: Gateway, api: FakeApi) -> None:
    bare = dataclasses.replace(STATUS.sources[0], newest=None, age=None, expect_every=None, full_in=None, pending=0,
                               files=())  # fmt: skip
    api.answers["status"] = StatusReport(running=False, sources=(bare,), alarms=())
    done = gateway("status")
    assert done.code == 0
    assert "No engine runs" in done.out
    assert "none" in done.out
    document = gateway("status", "--json").document
    assert (document["running"], document["pid"], document["since"]) == (False, None, None)


def test_status_as_json(gateway: Gateway) -> None:
    document = gateway("--json", "status").document
    assert document["pid"] == 4711
    (source,) = document["sources"]
    assert (source["name"], source["path"], source["pending"]) == ("orcl-prod", "/srv/spool/orcl-prod", 22)
    assert source["newest"]["number"] == 17
    odd, plain = source["files"]
    assert odd["path"] == "odd\\xff\\nname"
    assert odd["path_base64"] == "b2Rk/wpuYW1l"
    assert plain["state"] == "growing"
    assert document["work"][0]["rate"] == 2**27
    assert [each["what"] for each in document["queue"]] == ["verify", "run mon"]


@pytest.mark.parametrize("options", [(), ("--json",), ("--quiet",)])
def test_an_open_alarm_or_an_overdue_source_is_exit_code_3(
    gateway: Gateway, api: FakeApi, options: tuple[str, ...]
) -> None:
    api.answers["status"] = dataclasses.replace(STATUS, alarms=(ALARM,))
    assert gateway("status", *options).code == 3
    late = dataclasses.replace(STATUS.sources[0], overdue=True)
    api.answers["status"] = dataclasses.replace(STATUS, sources=(late,))
    assert gateway("status", *options).code == 3


def test_alarms_are_those_that_are_open_unless_all_are_wanted(gateway: Gateway) -> None:
    done = gateway("alarms")
    assert done.code == 0
    assert done.out.splitlines() == [
        "source-overdue orcl-prod since 2026-11-25T07:00:00Z",
        "  Source orcl-prod is overdue.",
        "  What was written since then is not protected.",
        "  Look at the producer's log.",
    ]
    assert "clock-skew orcl-prod since 2026-11-25T07:00:00Z, closed 2026-11-25" in gateway("alarms", "--all").out
    (one,) = gateway("alarms", "--json").document
    assert (one["kind"], one["opened"], one["closed"]) == ("source-overdue", "2026-11-25T07:00:00Z", None)
    assert len(gateway("alarms", "--json", "--all").document) == 2


@pytest.mark.parametrize("verb", ["begin", "seal", "fail"])
@pytest.mark.parametrize(
    ("state", "code"),
    [
        (RunState.BEGUN, 0),
        (RunState.SEALED, 0),
        (RunState.PROTECTED, 0),
        (RunState.INCOMPLETE, 3),
        (RunState.FAILED, 1),
    ],
)
def test_what_became_of_a_run_is_the_exit_code(
    gateway: Gateway, api: FakeApi, verb: str, state: RunState, code: int
) -> None:
    api.answers[verb] = dataclasses.replace(RUN, state=state, problems=("mon/b: is not there",))
    done = gateway(verb, "orcl-prod", "--run", "mon")
    assert done.code == (0 if (verb, state) == ("fail", RunState.FAILED) else code)
    assert "warning: orcl-prod: mon/b: is not there" in done.err
    assert str(state) in done.out
    document = gateway("--json", verb, "orcl-prod", "--run", "mon").document
    assert (document["run"], document["state"], document["problems"]) == ("mon", str(state), ["mon/b: is not there"])
    assert document["generation"]["number"] == 17


def test_a_barrier_reports_as_ingest_does(gateway: Gateway, api: FakeApi) -> None:
    assert gateway("--json", "barrier").document["sources"][0]["generation"]["number"] == 17
    api.answers["barrier"] = IngestReport(sources=(SourceIngest(source="a", generation=INCOMPLETE),))
    assert gateway("barrier").code == 3
    api.answers["barrier"] = IngestReport(sources=(SourceIngest(source="a", failure=FAILURE),))
    done = gateway("barrier")
    assert done.code == 14
    ingested = FakeApi()
    ingested.answers["ingest"] = api.answers["barrier"]
    assert done.out == gateway("barrier").out


def test_a_barrier_that_leaves_something_out_says_so_by_name_and_exit_code(gateway: Gateway, api: FakeApi) -> None:
    torn, temporary = LeftOut(path=b"x\ny", reason="torn"), LeftOut(path=b"a.tmp", reason="temporary")
    one = SourceIngest(source="a", generation=GENERATION, held_back=(temporary, torn))
    api.answers["barrier"] = IngestReport(sources=(one,))
    assert gateway("barrier").code == 0
    api.answers["barrier"] = IngestReport(sources=(dataclasses.replace(one, unprotected=(torn,), unprotected_more=2),))
    done = gateway("barrier")
    assert done.code == 3
    for line in ("x\\ny is not protected: torn", "2 more files not protected", "a.tmp is held back: temporary"):
        assert f"warning: a: {line}\n" in done.err
    done = gateway("--json", "barrier")
    assert done.code == 3
    (source,) = done.document["sources"]
    assert [each["reason"] for each in source["unprotected"]] == ["torn"]
    assert source["unprotected_more"] == 2
    api.answers["ingest"] = api.answers["barrier"]
    assert gateway("ingest").code == 0


def test_release_says_what_went_or_why_nothing_does(gateway: Gateway, api: FakeApi) -> None:
    assert gateway("release").out.splitlines() == ["orcl-prod: 1 file, 2 KiB released", "  a\\xff"]
    api.answers["release"] = (
        ReleaseReport(source="a", dry_run=True, paths=(b"x", b"y"), files=2, size=4096),
        ReleaseReport(source="b", dry_run=True, reason="the spool is not full enough"),
    )
    lines = gateway("release", "--dry-run").out.splitlines()
    assert lines[0] == "a: 2 files, 4 KiB would be released"
    assert lines[-1] == "b: nothing goes, the spool is not full enough"
    first, second = gateway("--json", "release", "--dry-run").document
    assert (first["dry_run"], first["paths"], first["files"], first["size"]) == (True, ["x", "y"], 2, 4096)
    assert second["reason"] == "the spool is not full enough"


@pytest.mark.parametrize("words", ["status", "alarms", "begin a --run x", "seal a --run x", "barrier", "release"])
def test_an_error_of_the_engine_is_its_exit_code(gateway: Gateway, api: FakeApi, words: str) -> None:
    verb = words.split(maxsplit=1)[0]
    api.answers[verb] = errors.Stopped("The engine was stopped.", advice="Ask again.")
    done = gateway("--json", *words.split())
    assert (done.code, done.document["error"]["class"]) == (1, "Stopped")
    api.answers[verb] = errors.LockHeld("x")
    assert gateway(*words.split()).code == 11


def test_serve_runs_the_engine_with_the_configuration_and_the_sheet(
    gateway: Gateway, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str | None]] = []

    def serve(config: Any, *, recovery_sheet: str | None, log: Any) -> None:
        told.append((config.repository.url, recovery_sheet))
        log.info("engine.started")

    monkeypatch.setattr(daemon, "serve", serve)
    done = gateway("serve")
    assert (done.code, done.out) == (0, "")
    assert "engine.started" in done.err
    (tmp_path / "sheet").write_text("the sheet\n")
    gateway("serve", "--recovery-sheet", str(tmp_path / "sheet"))
    assert told == [("s3://bucket/prefix", None), ("s3://bucket/prefix", "the sheet\n")]
    assert api.asked == []


# --- lists -----------------------------------------------------------------------------------------------------------

OTHER = "CD" * 32


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"plain", SealedFile(path=b"plain")),
        (b"two words", SealedFile(path=b"two words")),
        (b"12 words", SealedFile(path=b"words", size=12)),
        (b"12  words", SealedFile(path=b"words", size=12)),
        (b"0 empty", SealedFile(path=b"empty", size=0)),
        (b"12", SealedFile(path=b"12")),
        (b"12 ", SealedFile(path=b"12 ")),
        (b"9" * 20 + b" x", SealedFile(path=b"9" * 20 + b" x")),
        (b"-1 x", SealedFile(path=b"-1 x")),
        (f"{DIGEST}  a b".encode(), SealedFile(path=b"a b", digest=f"sha256:{DIGEST}")),
        (f"{DIGEST} *a".encode(), SealedFile(path=b"a", digest=f"sha256:{DIGEST}")),
        (f"{DIGEST}  *a".encode(), SealedFile(path=b"*a", digest=f"sha256:{DIGEST}")),
        (f"{OTHER}  a\xff".encode("latin-1"), SealedFile(path=b"a\xff", digest=f"sha256:{OTHER.lower()}")),
        (f"{DIGEST}  a\r".encode(), SealedFile(path=b"a", digest=f"sha256:{DIGEST}")),
        (f"{DIGEST}  a\rb".encode(), SealedFile(path=b"a\rb", digest=f"sha256:{DIGEST}")),
        (rf"\{DIGEST}  a\nb\\n\r".encode(), SealedFile(path=b"a\nb\\n\r", digest=f"sha256:{DIGEST}")),
        (rf"{DIGEST}  a\nb".encode(), SealedFile(path=rb"a\nb", digest=f"sha256:{DIGEST}")),
        (rb"\plain", SealedFile(path=rb"\plain")),
        (f"{DIGEST[:-1]}  a".encode(), SealedFile(path=f"{DIGEST[:-1]}  a".encode())),
    ],
)
def test_a_line_of_a_list(line: bytes, expected: SealedFile) -> None:
    assert list(parse_list(b"# comment\n\n   \n" + line + b"\n", "list")) == [expected]


@pytest.mark.parametrize("line", [b"/a", b"3 /a", f"{DIGEST}  /a".encode(), f"{DIGEST} */a".encode()])
def test_absolute_paths_are_refused_in_every_kind_of_line(line: bytes) -> None:
    with pytest.raises(UsageError, match="list, line 2: the path is absolute"):
        list(parse_list(b"x\n" + line, "list"))


@given(st.binary(max_size=200) | st.text(alphabet="ab0 */\\#\n\r", max_size=120).map(str.encode))
def test_any_bytes_are_a_list_or_a_usage_error(data: bytes) -> None:
    try:
        found = list(parse_list(data, "list"))
    except UsageError:
        return
    assert all(each.path and not each.path.startswith(b"/") for each in found)
