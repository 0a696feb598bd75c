"""What goes wrong, as people see it: exit code, and three sentences: what happened, what it means, what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.servers.process import free_ports
from tests.servers.seaweedfs import SeaweedFS
from tests.system.command import Done, Gateway, Place, in_bucket, in_directory

MIB = 1 << 20
SOON = 60.0
"""Seconds: a store that never answered is looked for ten, and one that did for minutes (tests/unit/test_store_absent.py
counts them on a clock of its own). Here it is the clock of a machine with other work, so the bound lies between.
"""


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spool = tmp_path_factory.mktemp("spool") / "files"
    spool.mkdir()
    for name in ("one", "two", "three"):
        (spool / name).write_bytes(os.urandom(1000))
    return spool


@pytest.fixture(scope="module")
def gateway(spool: Path, tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    """With one generation; tests change neither it nor its repository."""
    home = tmp_path_factory.mktemp("gateway")
    made = Gateway(home, in_directory(home / "store"), {"files": spool})
    made.init()
    made.run("ingest")
    return made


def fails(
    gateway: Gateway, *words: str | Path, code: int, kind: str, says: str, environment: Mapping[str, str] | None = None
) -> Done:
    """For people: up to three sentences on standard error and no data. As JSON: the same, taken apart."""
    done = gateway.run(*words, code=code, environment=environment)
    assert done.data == ""
    lines = done.told.splitlines()
    assert re.search(says, done.told), done.told
    first = next(line for line in lines if line.startswith("error: "))
    error = gateway.run("--json", *words, code=code, environment=environment).document["error"]
    assert (error["class"], error["exit_code"]) == (kind, code)
    assert first == f"error: {error['what']}"
    assert error["meaning"] or error["advice"], f"nothing says what it means or what to do: {error}"
    return done


# --- keys ------------------------------------------------------------------------------------------------------------


def with_passphrase(gateway: Gateway, home: Path, passphrase: str) -> Gateway:
    """The same repository seen from another machine."""
    return Gateway(home, gateway.place, {}, passphrase=passphrase)


def test_a_wrong_passphrase(gateway: Gateway, tmp_path: Path) -> None:
    other = with_passphrase(gateway, tmp_path / "other", "wrong")
    fails(other, "rebuild", code=12, kind="WrongKey", says="The passphrase does not open the repository at file://")
    findings = other.json("config", "check", "--online", code=1)["findings"]
    assert [each["grade"] for each in findings if each["subject"] == "keys"] == ["problem"]


def test_a_sheet_of_another_repository(gateway: Gateway, tmp_path: Path) -> None:
    other = Gateway(tmp_path / "other", in_directory(tmp_path / "store"), {})
    sheet = other.init()
    words = ("rebuild", "--recovery-sheet", sheet)
    fails(gateway, *words, code=12, kind="WrongKey", says="sheet is for another repository")
    lines = "".join(line for line in sheet.read_text().splitlines(keepends=True) if re.match(r"[1-4] ", line))
    sheet.write_text(lines)
    fails(gateway, *words, code=12, kind="WrongKey", says="The recovery sheet does not open the repository")


def test_a_sheet_with_a_typing_error_says_in_which_line(gateway: Gateway, tmp_path: Path) -> None:
    text = (gateway.home / "sheet.txt").read_text()
    third = next(line for line in text.splitlines() if line.startswith("3 "))
    words = third.split()
    words[1] = words[2]
    wrong = tmp_path / "sheet"
    wrong.write_text(text.replace(third, " ".join(words)))
    done = gateway.run("ls", "files", "--recovery-sheet", wrong, code=2)
    assert "Line 3 of the recovery sheet" in done.told
    assert words[2] not in done.told, "no part of a sheet in any message"


def test_no_passphrase_at_all(gateway: Gateway, tmp_path: Path) -> None:
    other = with_passphrase(gateway, tmp_path / "other", "any")
    (other.home / "passphrase").unlink()
    fails(other, "rebuild", code=2, kind="UsageError", says="passphrase")


# --- places ----------------------------------------------------------------------------------------------------------


def test_nothing_is_there_yet(gateway: Gateway, tmp_path: Path) -> None:
    """Before `init`: the directory is missing, or there but empty, or an empty store."""
    fresh = Gateway(tmp_path / "fresh", in_directory(tmp_path / "store"), {})
    fails(fresh, "generations", code=10, kind="NoRepository", says="no catalog at .*(.|\n)*gateway init")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / ".gateway-store").touch()
    fails(fresh, "rebuild", code=10, kind="NoRepository", says="There is no repository at file://(.|\n)*gateway init")
    (tmp_path / "store" / "repository.json").write_bytes(b"{}")
    fails(fresh, "rebuild", code=10, kind="NoRepository", says="not a gateway repository")


def test_a_store_that_is_not_mounted(gateway: Gateway, tmp_path: Path) -> None:
    fresh = Gateway(tmp_path / "fresh", in_directory(tmp_path / "store"), {})
    (tmp_path / "store").mkdir()
    started = time.monotonic()
    done = fresh.run("rebuild", code=14)
    assert time.monotonic() - started < SOON
    assert "not mounted" in done.told
    assert list((tmp_path / "store").iterdir()) == []


def test_a_state_directory_of_another_repository(gateway: Gateway, tmp_path: Path) -> None:
    one = Gateway(tmp_path / "one", in_directory(tmp_path / "store"), {})
    one.init()
    mixed = Gateway(tmp_path / "one", gateway.place, {})
    fails(mixed, "verify", code=10, kind="NoRepository", says=r"belongs to repository [0-9a-f]{32}; the one at")
    nowhere = Gateway(tmp_path / "one", in_directory(tmp_path / "store-2"), {})
    done = nowhere.run("init", code=10)
    assert "Nothing was created" in done.told
    assert not (tmp_path / "store-2" / "repository.json").exists()


def test_a_second_init_touches_nothing(gateway: Gateway) -> None:
    before = sorted(path for path in Path(gateway.place.url.removeprefix("file://")).rglob("*"))
    fails(gateway, "init", code=2, kind="UsageError", says="There is a repository at .* already")
    assert sorted(path for path in Path(gateway.place.url.removeprefix("file://")).rglob("*")) == before


def test_an_init_whose_sheet_nobody_saw_gives_another(spool: Path, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "home", in_directory(tmp_path / "store"), {"files": spool})
    first = gateway.init().read_text()
    again = gateway.run("init")
    assert "one more recovery sheet" in again.told
    for sheet in (first, again.data):
        file = tmp_path / "sheet"
        file.write_text(sheet)
        gateway.lose_state()
        gateway.run("rebuild", "--recovery-sheet", file)


def test_a_newer_format(tmp_path: Path) -> None:
    """As a newer gateway leaves it: its slots are of the new format, too, so nothing here opens as ours."""
    one = Gateway(tmp_path / "one", in_directory(tmp_path / "store"), {})
    one.init()
    for file in (tmp_path / "store" / "repository.json", *(tmp_path / "store" / "slots").iterdir()):
        file.write_text(file.read_text().replace('"format":1', '"format":2'))
        assert json.loads(file.read_text())["format"] == 2
    fails(one, "rebuild", code=15, kind="NewerFormat", says="newer")


def test_references_to_nothing(gateway: Gateway, tmp_path: Path) -> None:
    for words in (("show", "files@7"), ("ls", "nobody"), ("ls", "files", "no/such/file"), ("show", "files@")):
        fails(gateway, *words, code=2, kind="UsageError", says=words[1].split("@")[0])
    done = gateway.run("restore", "files", "--to", tmp_path / "out", "--path", "nothing*", code=2)
    assert "nothing*" in done.told
    assert not (tmp_path / "out").exists()


# --- stores that do not answer, or not to us ------------------------------------------------------------------------


def test_an_endpoint_where_nobody_listens_is_given_up_soon(tmp_path: Path) -> None:
    [port] = free_ports(1)
    place = Place(
        url="s3://bucket/prefix",
        lines=(f'endpoint_url = "http://127.0.0.1:{port}"', 'region = "us-east-1"'),
        environment={"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
    )
    gateway = Gateway(tmp_path / "gateway", place, {})
    started = time.monotonic()
    done = gateway.run("init", code=14)
    assert time.monotonic() - started < SOON
    assert "Nobody answers" in done.told
    assert "endpoint_url" in done.told


def test_a_host_that_does_not_exist(tmp_path: Path) -> None:
    place = Place(
        url="s3://bucket/prefix",
        lines=('endpoint_url = "http://store.invalid"', 'region = "us-east-1"'),
        environment={"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
    )
    done = Gateway(tmp_path / "gateway", place, {}).run("rebuild", code=14)
    assert "store.invalid" in done.told


@pytest.mark.needs_seaweedfs
def test_credentials_that_are_missing_or_wrong_and_a_bucket_that_is_not_there(
    seaweedfs: SeaweedFS, tmp_path: Path
) -> None:
    seaweedfs.create_bucket("denied")
    place = in_bucket(seaweedfs, "denied")
    gateway = Gateway(tmp_path / "gateway", place, {})
    none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    fails(gateway, "init", code=14, kind="StoreDenied", says="No usable credentials", environment=none)
    wrong = {"AWS_SECRET_ACCESS_KEY": "wrong"}
    done = fails(gateway, "init", code=14, kind="StoreDenied", says="Check the credentials", environment=wrong)
    assert "wrong" not in done.told
    fails(gateway, "rebuild", code=10, kind="NoRepository", says="There is no repository at s3://denied/gateway")
    nowhere = Gateway(tmp_path / "nowhere", in_bucket(seaweedfs, "no-such-bucket"), {})
    fails(nowhere, "init", code=14, kind="StoreRefused", says="Create the bucket")


# --- disks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a tmpfs of a size, or resize it; skipped where nobody may mount."""
    place = tmp_path / "disk"
    place.mkdir()

    def resize(size: str) -> Path:
        again = ["-o", f"remount,size={size}"] if os.path.ismount(place) else ["-t", "tmpfs", "-o", f"size={size}"]
        done = subprocess.run(["mount", *again, "tmpfs", place], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"nobody may mount here: {done.stderr.strip()}")
        return place

    yield resize
    if os.path.ismount(place):
        subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_full_loses_nothing(small_disk: Callable[[str], Path], tmp_path: Path) -> None:
    disk = small_disk("24m")
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "first").write_bytes(os.urandom(2 * MIB))
    gateway = Gateway(disk / "gateway", in_directory(tmp_path / "store"), {"files": spool})
    gateway.init()
    gateway.run("ingest")
    (spool / "second").write_bytes(os.urandom(40 * MIB))
    done = gateway.run("ingest", code=1)
    assert "No space left" in done.told
    assert "Free or add disk space" in done.told
    assert [row["state"] for row in gateway.json("generations")] == ["protected"]
    gateway.run("restore", "files@1", "--to", tmp_path / "meanwhile")
    assert (tmp_path / "meanwhile" / "first").read_bytes() == (spool / "first").read_bytes()
    small_disk("200m")
    gateway.run("ingest")
    gateway.run("restore", "files", "--to", tmp_path / "out")
    for name in ("first", "second"):
        assert (tmp_path / "out" / name).read_bytes() == (spool / name).read_bytes()
    assert gateway.json("verify", "--depth", "data")["problems"] == []


def test_a_file_that_may_not_grow_loses_nothing(tmp_path: Path) -> None:
    """The same by RLIMIT_FSIZE, which needs no rights: the kernel refuses to write beyond it."""
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "file").write_bytes(os.urandom(12 * MIB))
    gateway = Gateway(tmp_path / "gateway", in_directory(tmp_path / "store"), {"files": spool})
    gateway.init()
    done = gateway.run("ingest", code=1, before=("prlimit", f"--fsize={4 * MIB}:"))
    assert "Cannot write" in done.told
    assert "Check the disk" in done.told
    assert gateway.json("generations") == []
    gateway.run("ingest")
    gateway.run("restore", "files", "--to", tmp_path / "out")
    assert (tmp_path / "out" / "file").read_bytes() == (spool / "file").read_bytes()


def test_a_target_that_cannot_be_written(gateway: Gateway, small_disk: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fails(gateway, "restore", "files", "--to", tmp_path / "file" / "below", code=1, kind="TargetError", says="below")
    done = gateway.run("restore", "files", "--to", tmp_path / "file", code=2)
    assert "is a file" in done.told
    fails(gateway, "restore", "files", "--to", "/proc/gateway", code=1, kind="TargetError", says="/proc/gateway")


def test_a_target_that_is_full_says_so_and_keeps_what_was_delivered(
    small_disk: Callable[[str], Path], tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "large").write_bytes(os.urandom(12 * MIB))
    gateway = Gateway(tmp_path / "gateway", in_directory(tmp_path / "store"), {"files": spool})
    gateway.init()
    gateway.run("ingest")
    disk = small_disk("8m")
    done = gateway.run("restore", "files", "--to", disk / "out", code=1)
    assert "No space left" in done.told
    assert not [path for path in disk.rglob("*") if path.is_file()], "nothing half written stays"
    small_disk("64m")
    gateway.run("restore", "files", "--to", disk / "out")
    assert (disk / "out" / "large").read_bytes() == (spool / "large").read_bytes()


def test_files_that_exist_are_left_out_unless_asked(gateway: Gateway, spool: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "two").write_text("mine")
    done = gateway.run("restore", "files", "--to", target, code=3)
    assert "1 file left out" in done.told
    assert "two" in done.data
    assert (target / "two").read_text() == "mine"
    assert (target / "one").read_bytes() == (spool / "one").read_bytes()
    report = gateway.json("restore", "files", "--to", target, code=3)
    assert {each["path"] for each in report["left_out"]} == {"one", "two", "three"}
    gateway.run("restore", "files", "--to", target, "--overwrite")
    assert (target / "two").read_bytes() == (spool / "two").read_bytes()


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    sources = {"gone": tmp_path / "gone", "here": tmp_path / "here"}
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").write_bytes(b"x")
    gateway = Gateway(tmp_path / "gateway", in_directory(tmp_path / "store"), sources)
    gateway.init()
    fails(gateway, "ingest", "gone", code=1, kind="SourceError", says=str(tmp_path / "gone"))
    gone, here = gateway.json("ingest", code=1)["sources"]
    assert gone["failure"]["kind"] == "SourceError"
    assert here["generation"]["state"] == "protected", "one source's failure does not stop the others"


# --- damage ----------------------------------------------------------------------------------------------------------


def test_damage_is_found_and_named(gateway: Gateway, spool: Path, tmp_path: Path) -> None:
    """Copies of the repository with a pack that is gone and one that is changed."""
    store = Path(gateway.place.url.removeprefix("file://"))
    for kind, harm in {"missing": Path.unlink, "corrupt": flip}.items():
        broken = Gateway(tmp_path / kind, in_directory(tmp_path / f"store-{kind}"), {})
        shutil.copytree(store, tmp_path / f"store-{kind}")
        [pack] = [path for path in (tmp_path / f"store-{kind}" / "packs" / "hot").rglob("*") if path.is_file()]
        harm(pack)
        rebuilt = broken.run("rebuild", code=13 if kind == "missing" else 0)
        assert ("files@1" in rebuilt.data) == (kind == "missing"), "a rebuild sees what a listing shows"
        report = broken.json("verify", "--depth", "data", code=13)
        assert kind in {problem["kind"] for problem in report["problems"]}
        assert all(problem["generations"] == ["files@1"] for problem in report["problems"])
        done = broken.run("verify", "--depth", "data", code=13)
        assert pack.name in done.data
        assert "Keep what the spool still holds" in done.told
        done = broken.run("restore", "files@1", "--incomplete", "--to", tmp_path / f"out-{kind}", code=3)
        assert "left out" in done.told
        assert not [path for path in (tmp_path / f"out-{kind}").rglob("*") if path.is_file()]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


# --- configuration ---------------------------------------------------------------------------------------------------


TEN_MISTAKES = """\
[repository]
url = "s3://UPPER/x"
regoin = "eu-central-1"
endpoint_url = "ftp://host"
[state]
dir = "relative"
[keys]
passphrase = "oh no"
[cache]
max_size = "1 KiB"
[limits]
workers = 0
[[source]]
name = "Has Spaces"
path = "/srv/spool"
settle = "5 m"
minimum_evidence = 6
class = "deep freeze"
"""


def test_ten_mistakes_at_once(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "gateway", in_directory(tmp_path / "store"), {})
    gateway.config.write_text(TEN_MISTAKES)
    lines = TEN_MISTAKES.splitlines()
    for words in (("config", "check"), ("ingest",), ("init",)):
        done = gateway.run(*words, code=2)
        first, *mistakes, last = done.told.splitlines()
        assert first == "error: The configuration has 11 mistakes."
        assert last == "Nothing was done."
        places = [re.fullmatch(re.escape(str(gateway.config)) + r":(\d+):(\d+): (.+)", line) for line in mistakes]
        assert len(places) == 11
        assert all(places)
        assert sorted(int(place[1]) for place in places if place) == [2, 3, 4, 6, 8, 10, 12, 14, 16, 17, 18]
        for place in places:
            assert place is not None
            assert re.match(r"\w", lines[int(place[1]) - 1][int(place[2]) - 1 :])
        assert "oh no" not in done.told
    error = gateway.json("ingest", code=2)["error"]
    assert error["class"] == "ConfigError"
    assert len(error["mistakes"]) == 11


def test_command_lines_that_are_wrong(gateway: Gateway) -> None:
    for words, says in (
        (("ingset",), 'Did you mean "ingest"'),
        (("restore", "files"), "--to"),
        (("ls", "files", "--colour"), "--colour"),
        (("--config", "/no/such/file", "generations"), "/no/such/file"),
    ):
        done = gateway.run(*words, code=2)
        assert done.data == ""
        assert says in done.told
