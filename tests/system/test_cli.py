"""Every verb of the command as a process: what it says, what its data is, and that all of it leads through and back."""

from __future__ import annotations

import filecmp
import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.servers.process import until
from tests.servers.seaweedfs import SeaweedFS
from tests.system.command import Gateway, Place, end, in_bucket, in_directory

NAMES = ("orders.csv", "logs/today.log", "logs/broken \x1b[31m\n name", "zwölf.txt", "empty")


def fill(spool: Path) -> None:
    (spool / "logs").mkdir(parents=True)
    for name in NAMES:
        (spool / name).write_bytes(b"" if name == "empty" else name.encode() * 5000)


def same(one: Path, other: Path) -> bool:
    """Names, types and bytes of two trees are the same."""
    compared = filecmp.dircmp(one, other, ignore=[])
    stack = [compared]
    while stack:
        now = stack.pop()
        if now.left_only or now.right_only or now.funny_files:
            return False
        if filecmp.cmpfiles(now.left, now.right, now.common_files, shallow=False)[0] != now.common_files:
            return False
        stack += now.subdirs.values()
    return True


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return in_directory(tmp_path_factory.mktemp("cli") / "store")


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spool = tmp_path_factory.mktemp("spool") / "files"
    fill(spool)
    return spool


@pytest.fixture(scope="module")
def gateway(place: Place, spool: Path, tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    """A gateway with two generations of a source `files`; the tests of this module only look at them."""
    made = Gateway(tmp_path_factory.mktemp("gateway"), place, {"files": spool})
    made.init()
    made.run("ingest")
    (spool / "orders.csv").write_bytes(b"changed")
    (spool / "new").write_bytes(b"new")
    (spool / "empty").unlink()
    made.run("ingest")
    return made


# --- every verb, for people and as JSON ------------------------------------------------------------------------------


def test_init_prints_the_sheet_alone_and_says_the_rest_on_standard_error(tmp_path: Path) -> None:
    one = Gateway(tmp_path / "one", in_directory(tmp_path / "store-1"), {}, real=True)
    done = one.run("init")
    assert "RECOVERY" in done.data.upper()
    assert "is ready at file://" in done.told
    assert "keep it in two places" in done.told

    two = Gateway(tmp_path / "two", in_directory(tmp_path / "store-2"), {})
    document = two.json("init")
    assert document["url"] == two.place.url
    assert len(document["repository"]) == 32
    assert document["recovery_sheet"].count("\n") > 5
    assert document["capabilities"]


def test_config_check(gateway: Gateway) -> None:
    done = gateway.run("config", "check")
    assert "source[1].settle" in done.data or "settle" in done.data
    assert "is valid" in done.told
    assert gateway.json("config", "check")["sources"] == ["files"]
    online = gateway.json("config", "check", "--online")
    assert {each["grade"] for each in online["findings"]} == {"ok"}
    assert gateway.run("config", "check", "--online").data


def test_ingest(tmp_path: Path) -> None:
    fill(tmp_path / "spool")
    sources = {"files": tmp_path / "spool"}
    gateway = Gateway(tmp_path / "gateway", in_directory(tmp_path / "store"), sources, real=True)
    gateway.init()
    done = gateway.run("ingest")
    assert "@1 protected" in done.data
    again = gateway.json("ingest", "files")
    [report] = again["sources"]
    assert report["generation"] is None, "nothing is new"
    assert report["failure"] is None
    (tmp_path / "spool" / "by-hand").write_bytes(b"now")
    [report] = gateway.json("ingest", "--seal-now", code=0)["sources"]
    assert report["generation"]["number"] == 2
    assert gateway.json("show", "files")["operator"]


def test_generations(gateway: Gateway) -> None:
    rows = gateway.json("generations")
    assert [(row["source"], row["number"], row["state"]) for row in rows] == [
        ("files", 1, "protected"),
        ("files", 2, "protected"),
    ]
    assert all(row["head"] and row["created"].endswith("Z") for row in rows)
    assert gateway.run("generations", "files").data.count("protected") == 2


def test_show(gateway: Gateway) -> None:
    detail = gateway.json("show", "files@1")
    assert detail["info"]["number"] == 1
    assert detail["packs"]
    assert all(pack["proved"] for pack in detail["packs"])
    assert gateway.json("show", detail["info"]["id"].join(("files@", "")))["info"] == detail["info"]
    assert detail["info"]["id"][:10] in gateway.run("show", "files@1").data


def test_ls(gateway: Gateway) -> None:
    files = gateway.json("ls", "files@1")
    assert {each["path"] for each in files if each["type"] == "file"} == set(NAMES)
    lines = gateway.run("ls", "files", "logs").data
    assert "\x1b" not in lines, "no name of a file may drive the terminal"
    assert len(lines.splitlines()) == 3


def test_diff(gateway: Gateway) -> None:
    changes = {each["path"]: each["change"] for each in gateway.json("diff", "files@1", "files@2")}
    assert changes.pop("", None) in (None, "metadata")
    assert changes == {"orders.csv": "changed", "new": "added", "empty": "removed"}
    assert "+ " in gateway.run("diff", "files@1", "files@2").data


def test_restore(gateway: Gateway, spool: Path, tmp_path: Path) -> None:
    plan = gateway.json("restore", "files", "--to", tmp_path / "dry", "--dry-run")
    assert plan["dry_run"] is True
    assert not (tmp_path / "dry").exists()
    report = gateway.json("restore", "files", "--to", tmp_path / "json")
    assert report["files"] == 5
    done = gateway.run("restore", "files@2", "--to", tmp_path / "people")
    assert "Restored 5 files" in done.data
    assert same(spool, tmp_path / "json")
    assert same(spool, tmp_path / "people")
    gateway.run("restore", "files@1", "--to", tmp_path / "part", "--path", "logs/*.log")
    assert [each.name for each in (tmp_path / "part").rglob("*") if each.is_file()] == ["today.log"]


@pytest.mark.parametrize("depth", ["presence", "structure", "data"])
def test_verify(depth: str, gateway: Gateway) -> None:
    assert gateway.json("verify", "--depth", depth, "--dry-run")["dry_run"] is True
    report = gateway.json("verify", "files", "--depth", depth)
    assert (report["depth"], report["generations"], report["problems"]) == (depth, 2, [])
    assert "no problems" in gateway.run("verify", "--depth", depth).data


def test_version(gateway: Gateway) -> None:
    assert gateway.json("version")["format"] == 1
    assert gateway.run("version").data.startswith("gateway ")


def test_the_bucket_is_enough(place: Place, gateway: Gateway, spool: Path, tmp_path: Path) -> None:
    """Another machine with nothing but the sheet; what it was told to expect is there."""
    sheet = gateway.home / "sheet.txt"
    head = gateway.json("generations")[-1]["head"]
    other = Gateway(tmp_path / "other", place, {}, passphrase="not the one")
    report = other.json("rebuild", "--recovery-sheet", sheet, "--expect-head", head)
    assert (report["chains"], report["generations"], report["problems"]) == (1, 2, [])
    assert head in report["heads"]
    assert [row["id"] for row in other.json("generations")] == [row["id"] for row in gateway.json("generations")]
    other.run("restore", "files", "--to", tmp_path / "out", "--recovery-sheet", sheet)
    assert same(spool, tmp_path / "out")
    typed = other.run("restore", "files", "--to", tmp_path / "typed", "--recovery-sheet", "-", stdin=sheet.read_text())
    assert "Restored" in typed.data
    assert "Rebuilt the catalog: 1 chain, 2 generations" in gateway.run("rebuild").data


@pytest.mark.needs_seaweedfs
def test_every_verb_against_a_bucket(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    seaweedfs.create_bucket("every-verb")
    fill(tmp_path / "spool")
    gateway = Gateway(tmp_path / "gateway", in_bucket(seaweedfs, "every-verb"), {"files": tmp_path / "spool"})
    sheet = gateway.init()
    gateway.run("ingest")
    (tmp_path / "spool" / "new").write_bytes(b"new")
    gateway.run("ingest")
    assert {each["grade"] for each in gateway.json("config", "check", "--online")["findings"]} == {"ok"}
    assert all(pack["proved"] for pack in gateway.json("show", "files")["packs"])
    assert "new" in {each["path"] for each in gateway.json("diff", "files@1", "files@2")}
    assert gateway.json("verify", "--depth", "data")["problems"] == []
    gateway.lose_state()
    gateway.run("rebuild", "--recovery-sheet", sheet)
    assert [row["state"] for row in gateway.json("generations")] == ["protected", "protected"]
    assert len(gateway.run("ls", "files@2").data.splitlines()) == 7
    gateway.run("restore", "files", "--to", tmp_path / "out", "--recovery-sheet", sheet)
    assert same(tmp_path / "spool", tmp_path / "out")


# --- readers that go away, and people who interrupt -------------------------------------------------------------------


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    for number in range(3000):
        (spool / f"a file with a rather long name, so that the list does not fit into a pipe {number}").touch()
    gateway = Gateway(tmp_path / "gateway", in_directory(tmp_path / "store"), {"files": spool})
    gateway.init()
    gateway.run("ingest")
    for words in (("ls", "files"), ("--json", "ls", "files")):
        with gateway.start(*words) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr is not None
            assert process.stderr.read() == ""
            assert process.wait(60) == 0


def test_ctrl_c_says_that_one_can_go_on_and_only_one_may_write(tmp_path: Path) -> None:
    """An `ingest` that waits for its settle time holds the lock; others may read, but not write."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "file").write_bytes(b"x" * 100_000)
    place = in_directory(tmp_path / "store")
    waiting = Gateway(tmp_path / "waiting", place, {"files": tmp_path / "spool"}, settle="1 h")
    waiting.init()
    waiting.run("ingest", "--seal-now")
    (tmp_path / "spool" / "file").write_bytes(b"y" * 100_000)
    with waiting.start("ingest") as process:
        lock = waiting.state / "lock"
        until("the lock is taken", lambda: str(process.pid) in lock.read_text(), seconds=30)
        refused = waiting.run("ingest", code=11)
        assert f"pid {process.pid}" in refused.told
        assert "Only one process" in refused.told
        assert "Wait for it to end" in refused.told
        assert waiting.json("ingest", code=11)["error"]["class"] == "LockHeld"
        assert len(waiting.json("generations")) == 1
        assert waiting.run("ls", "files").data
        waiting.run("restore", "files", "--to", tmp_path / "beside")
        done = end(process, signal.SIGINT)
    assert done.code == 130
    assert done.told.lstrip("\n") == (
        "error: Interrupted.\nWhat was reported as done stays done; the rest was not done.\n"
        "Run the same command again: it goes on from there.\n"
    )
    waiting.run("ingest", "--seal-now")
    assert len(waiting.json("generations")) == 2


@pytest.mark.parametrize("reached", ["", "slots", ".probe"])
def test_an_init_that_was_killed_can_be_run_again(reached: str, tmp_path: Path) -> None:
    """SIGKILL as soon as something of that name lies in the store."""
    store = tmp_path / "store"
    gateway = Gateway(tmp_path / "gateway", in_directory(store), {})
    with gateway.start("init") as process:
        while not (store / reached).exists():  # without a pause: the moment is short
            assert process.poll() is None
        done = end(process, signal.SIGKILL)
    assert (done.code, done.data) == (-signal.SIGKILL, "")
    assert not (store / "repository.json").exists()
    gateway.init()
    assert {each["grade"] for each in gateway.json("config", "check", "--online")["findings"]} == {"ok"}


def test_standard_output_that_is_closed_full_or_not_utf_8(gateway: Gateway) -> None:
    done = gateway.run("ls", "files", environment={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
    assert "zwölf.txt" in done.data
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *gateway.command("ls", "files")],
        env=gateway.environment, cwd=gateway.home, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (closed.returncode, closed.stderr) == (0, "")
    full = subprocess.run(
        ["sh", "-c", 'exec "$@" >/dev/full', "sh", *gateway.command("ls", "files")],
        env=gateway.environment, cwd=gateway.home, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (full.returncode, full.stderr.splitlines()[0]) == (
        1,
        "error: Standard output cannot be written: No space left on device.",
    )
    assert json.loads(gateway.run("--json", "version").data)
