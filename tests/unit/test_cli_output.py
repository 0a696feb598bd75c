"""What is printed where: tables, JSON, names of files, logs, progress."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway import errors
from gateway.api import (
    BackupJob,
    Change,
    ClassNeeds,
    DiffEntry,
    EvidenceCount,
    Fact,
    FileInfo,
    GenerationDetail,
    GenerationInfo,
    IngestReport,
    LeftOut,
    PackInfo,
    SourceIngest,
    Statistics,
)
from gateway.cli import main
from tests.unit.fake_api import (
    CHAIN,
    DIGEST,
    FAILURE,
    FILES,
    GENERATION,
    HELD,
    INCOMPLETE,
    MOMENT,
    ROOT,
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


def test_init_prints_the_sheet_and_nothing_else(gateway: Gateway) -> None:
    for words in (("init",), ("init", "--quiet")):
        done = gateway(*words)
        assert done.out == SHEET
        assert SHEET not in done.err
    assert "conditional create: yes (several writers)" in gateway("init").err
    document = gateway("init", "--json").document
    assert (document["repository"], document["recovery_sheet"]) == ("r" * 32, SHEET)


def test_generations_as_json(gateway: Gateway) -> None:
    (row,) = gateway("generations", "--json").document
    assert (
        row.items()
        >= {
            "source": "orcl-prod",
            "number": 17,
            "id": "g" + "3f" * 16,
            "chain": "orcl-prod/000001",
            "head": f"orcl-prod/000001:5:{DIGEST}",
            "created": "2026-11-25T07:00:00Z",
            "state": "protected",
            "evidence": 2,
            "files": 1234,
            "bytes": 3 * 2**30,
            "stored_bytes": 5 * 2**20,
        }.items()
    )


def test_generations_for_people(gateway: Gateway, api: FakeApi) -> None:
    done = gateway("generations")
    assert "orcl-prod" in done.out
    assert "2026-11-25T07:00:00Z" in done.out
    assert "3 GiB" in done.out
    assert done.err == ""
    api.answers["generations"] = [INCOMPLETE]
    assert "orcl-prod@17: pack 3 is damaged\n" in gateway("generations").out
    api.answers["generations"] = []
    assert "There are no generations yet" in gateway("generations").out
    assert gateway("generations", "--json").document == []


def test_names_of_files_for_people(gateway: Gateway) -> None:
    lines = gateway("ls", "orcl-prod").out.splitlines()
    assert lines[0] == "-rw-r-----      2 KiB 2025-11-25T07:00:00Z plain.dbf"
    assert lines[1].endswith(" new\\nline[red]")
    assert lines[1].startswith("-rwsr-xr-x ")
    assert lines[2].startswith("lrwxrwxrwx ")
    assert lines[2].endswith(" odd\\xff -> \\xfe")
    assert lines[3].endswith(" 😀 == plain.dbf")
    assert len(lines) == len(FILES)


def test_names_of_files_as_json(gateway: Gateway) -> None:
    done = gateway("ls", "orcl-prod", "--json")
    plain, newline, odd, emoji = done.document
    assert (plain["path"], newline["path"], emoji["path"]) == ("plain.dbf", "new\nline[red]", "😀")
    assert "path_base64" not in plain
    assert odd["path"] == "odd\\xff"
    assert base64.b64decode(odd["path_base64"]) == b"odd\xff"
    assert base64.b64decode(odd["link_target_base64"]) == b"\xfe"
    done.out.encode("utf-8")


def test_empty_lists_are_documents(gateway: Gateway, api: FakeApi) -> None:
    api.answers["list_files"] = ()
    assert gateway("ls", "orcl-prod", "--json").document == []
    assert gateway("diff", "a@1", "a@2", "--json").document == []


def test_an_error_in_a_list_leaves_it_unfinished(gateway: Gateway, api: FakeApi) -> None:
    def files() -> Iterator[FileInfo]:
        yield FILES[0]
        raise errors.Corrupt("bad tag", address="packs/meta/x")

    api.answers["list_files"] = files
    done = gateway("ls", "orcl-prod", "--json")
    assert done.code == 13
    assert "error: packs/meta/x: bad tag" in done.err
    with pytest.raises(json.JSONDecodeError):
        json.loads(done.out)


def test_diff(gateway: Gateway, api: FakeApi) -> None:
    api.answers["diff"] = [DiffEntry(path=bytes([97 + i]), change=change) for i, change in enumerate(Change)]
    done = gateway("diff", "a@1", "a@2")
    assert done.out == "+ a\n- b\nM c\nU d\n"
    assert done.err == "1 added, 1 removed, 1 changed, 1 metadata\n"
    assert gateway("diff", "a@1", "a@2", "--quiet").err == ""
    assert [each["change"] for each in gateway("diff", "a@1", "a@2", "--json").document] == [str(c) for c in Change]


def test_chains(gateway: Gateway, api: FakeApi) -> None:
    out = gateway("chains").out
    for expected in ("orcl-prod/000001", "open", "instant", "17", "51 GiB", "20 GiB", "3 GiB"):
        assert expected in out
    api.answers["chains"] = [replace(CHAIN, state="damaged", problem="entry 3 is missing")]
    assert "orcl-prod/000001: entry 3 is missing" in gateway("chains", "orcl-prod").out
    assert api.asked[-1] == ("chains", "orcl-prod")
    assert gateway("chains", "--json").document[0]["full_bytes"] == 20 * 2**30
    api.answers["chains"] = []
    assert "no chains yet" in gateway("chains").out


def test_show(gateway: Gateway, api: FakeApi) -> None:
    api.answers["show"] = GenerationDetail(
        info=GENERATION,
        sealed=MOMENT,
        operator="ada",
        statistics=Statistics(
            read_bytes=4096,
            duplicate_bytes=1024,
            new_bytes=3072,
            stored_bytes=512,
            delta_bytes=2**21,
            new_chunks=1000,
            bases_missing=4,
            bases_bounded=10,
            cache_wanted_bytes=2**31,
            seconds=3700,
        ),
        evidence=(EvidenceCount(evidence=2, files=1234),),
        needs=(ClassNeeds(storage_class="instant", packs=7, bytes=2**30),),
        packs=(PackInfo(number=3, id="cd" * 16, storage_class="meta", bytes=17, new=True, proved=MOMENT),),
        left_out=(LeftOut(path=b"growing\xff", reason="growing"),),
        left_out_more=2,
        requires=("g" + "00" * 16,),
        jobs=(
            BackupJob(
                run="night-1", producer="postgresql", facts=(Fact(name="label", value="a\x1b[2Jb"),),
                lacks=("it requires the full",), kit="Unpack:\n\n    tar -xf base.tar\x1b[2J",
            ),
        ),
    )  # fmt: skip
    out = gateway("show", "orcl-prod").out
    for expected in (
        "orcl-prod@17",
        "sealed by   ada",
        "as deltas     2 MiB",
        "0.4% of the new chunks not in the pack cache (the cache would need 2 GiB)",
        "1.0% of the new chunks because of bounds",
        "1 h 01 min",
        "trailer, no writer, quiet",
        "cd" * 16,
        "growing\\xff",
        "and 2 more files",
        "Backup job of postgresql",
        "night-1",
        "it requires the full",
        "    tar -xf base.tar",
    ):
        assert expected in out
    assert "\x1b[2J" not in out, "what a producer wrote does not move the cursor"
    document = gateway("show", "orcl-prod", "--json").document
    assert document["jobs"][0]["facts"][0]["name"] == "label"
    assert document["info"]["number"] == 17
    assert document["left_out"][0] == {"path": "growing\\xff", "path_base64": "Z3Jvd2luZ/8=", "reason": "growing"}


def test_log_lines(gateway: Gateway, api: FakeApi) -> None:
    def generations() -> list[GenerationInfo]:
        assert api.log
        api.log.info("pack.uploaded", pack=1)
        api.log.warning("pack.slow", pack=2)
        return []

    api.answers["generations"] = generations
    assert [line.split()[2] for line in gateway("generations").err.splitlines()] == ["pack.slow"]
    assert len(gateway("generations", "-v").err.splitlines()) == 2
    assert gateway("generations", "--quiet").err.count("\n") == 1
    events = [json.loads(line) for line in gateway("generations", "--log-json", "--json").err.splitlines()]
    assert [event["event"] for event in events] == ["pack.uploaded", "pack.slow"]


def test_everything_on_standard_error_is_json_with_log_json(gateway: Gateway, api: FakeApi) -> None:
    api.answers["ingest"] = IngestReport(sources=(HELD, SourceIngest(source="b", failure=FAILURE)))
    events = [json.loads(line) for line in gateway("ingest", "--log-json").err.splitlines()]
    assert [event["event"] for event in events] == ["cli.warning", "cli.warning", "cli.failed"]
    done = gateway("diff", "a@1", "a@2", "--log-json")
    assert json.loads(done.err)["event"] == "cli.note"
    api.answers["generations"] = errors.LockHeld("busy")
    assert json.loads(gateway("generations", "--log-json").err)["exit_code"] == 11


def test_progress_is_for_terminals(
    gateway: Gateway, api: FakeApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gateway("ingest").err == ""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    for words, drawn in (
        (("ingest", "--json"), True),
        (("ingest", "--quiet"), False),
        (("ingest", "--log-json"), False),
    ):
        terminal = Terminal()
        monkeypatch.setattr("sys.stderr", terminal)
        assert main(words, api_factory=api) == 0
        assert ("reading" in terminal.getvalue()) == drawn
        assert ("proving" in terminal.getvalue()) == drawn
        if words[-1] == "--json":
            json.loads(capsys.readouterr().out)


READER = """
import sys
sys.path.insert(0, {root!r})
from tests.unit.fake_api import FILES, FakeApi
from gateway.cli import main
api = FakeApi()
api.answers["list_files"] = lambda: (FILES[0] for _ in range(100_000))
sys.exit(main({words!r}, api_factory=api))
"""


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_goes_away_ends_a_list_quietly(config_file: Path, form: list[str]) -> None:
    script = READER.format(root=str(ROOT), words=["--config", str(config_file), "ls", "orcl-prod", *form])
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert (process.wait(60), said) == (0, b"")


def test_what_a_verb_needs_is_imported_once_and_the_collector_goes_on_behind_it() -> None:
    script = """
import gc, sys
from gateway.cli.run import import_lasting
assert "gateway.engine" not in sys.modules
engine = import_lasting("gateway.engine")
frozen = gc.get_freeze_count()
print(gc.isenabled(), frozen > 10_000, import_lasting("gateway.engine") is engine, gc.get_freeze_count() == frozen)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd=ROOT, text=True)
    assert done.stdout.split() == ["True"] * 4


def test_a_full_disk_is_an_error(config_file: Path) -> None:
    script = READER.format(root=str(ROOT), words=["--config", str(config_file), "ls", "orcl-prod"])
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=full, stderr=subprocess.PIPE, check=False, cwd=ROOT
        )
    assert done.returncode == 1
    assert b"error: " in done.stderr
    assert b"No space left" in done.stderr


def test_json_is_utf8_in_every_locale(config_file: Path) -> None:
    script = READER.format(root=str(ROOT), words=["--config", str(config_file), "ls", "orcl-prod", "--json"])
    script = script.replace("(FILES[0] for _ in range(100_000))", "FILES")
    done = subprocess.run(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        check=True,
        cwd=ROOT,
        env={"LC_ALL": "C", "PYTHONIOENCODING": "latin-1", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    )
    assert json.loads(done.stdout.decode("utf-8"))[3]["path"] == "😀"
