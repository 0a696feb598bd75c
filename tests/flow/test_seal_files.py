"""Seal files are taken and answered, wherever that is cut off."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import durable
from gateway.api import no_progress
from gateway.config.values import ReleaseConfig, SourceKind
from gateway.errors import LocalStateError
from gateway.jobs import seal_files
from gateway.jobs.alarms import Alarms
from gateway.jobs.keeper import Keeper
from gateway.jobs.seals import Seals
from tests.flow.gateways import Gateway
from tests.flow.hand_turned import HandTurned

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
KILLED = 9
PAGE = Path(__file__).parents[2] / "docs" / "operate" / "engine.md"


def place(gateway: Gateway) -> Path:
    own = gateway.source.root / ".gateway"
    own.mkdir(exist_ok=True)
    return own


def keeper(gateway: Gateway) -> Keeper:
    context = gateway.engine.hold()
    return Keeper(context, gateway.config.sources[0], Alarms(context.catalog, gateway.clock, context.log))


def answer(gateway: Gateway, run: str) -> Any:
    path = place(gateway) / f"answer-{run}.json"
    return json.loads(path.read_text()) if path.exists() else None


def test_a_seal_file_that_is_still_written_waits(gateway: Gateway) -> None:
    gateway.change(kind=SourceKind.JOB)
    gateway.source.write("a/x", b"x")
    one = keeper(gateway)
    file = place(gateway) / "seal-1.json"
    file.write_text('{"folder": "a"')
    one.seal_files.look()
    assert answer(gateway, "1") is None
    file.write_text('{"folder": "a"}')
    one.seal_files.look()
    assert answer(gateway, "1") is None
    one.seal_files.look()
    assert answer(gateway, "1")["state"] == "sealed"
    one.turn(no_progress)
    one.seal_files.look()
    assert answer(gateway, "1")["state"] == "protected"
    assert not file.exists()
    assert gateway.list() == [b"a", b"a/x"]


def logged(gateway: Gateway) -> list[tuple[str, str]]:
    """Events of seal files, and what they are about."""
    seen = [each for each in gateway.events.events if each.name.startswith("seal.")]
    return [(each.name, str(each.fields.get("file") or each.fields["run"])) for each in seen]


@pytest.fixture
def full() -> Iterator[Callable[[bool], None]]:
    """Whether the spool's disk is full for whoever writes a seal file's answer."""

    def hook(moment: str, name: str) -> None:
        if name == "seal-answer:create":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    yield lambda is_full: durable.install_hook(hook if is_full else None)
    durable.install_hook(None)


def test_an_answer_that_cannot_be_written_stops_nothing(gateway: Gateway, full: Callable[[bool], None]) -> None:
    """And comes when it can be: a full spool gets its space back from the very release that goes on meanwhile."""
    by_hand = HandTurned.of(gateway, release=ReleaseConfig(keep_generations=1))
    for number in range(3):
        gateway.source.write(f"old-{number}", bytes([number]))
        by_hand.keeper.watch.hint(b"old-%d" % number)
        by_hand.turn(0, 6)
    assert by_hand.numbers() == [1, 2, 3]
    full(True)
    gateway.source.write("sealed", b"x")
    file = place(gateway) / "seal-1.json"
    file.write_text(json.dumps({"files": [{"path": "sealed"}]}))
    by_hand.turn(0, 1)
    assert by_hand.numbers() == [1, 2, 3, 4], "of what was sealed"
    gateway.source.write("new", b"1")
    barrier = by_hand.ask()
    by_hand.turn(0, 6, 6, 6)
    assert by_hand.numbers() == [1, 2, 3, 4, 5]
    assert barrier.report is not None
    assert barrier.report.unprotected == ()
    assert [path.name for path in sorted(gateway.source.root.iterdir())] == [".gateway", "new"], "all else is released"
    assert answer(gateway, "1") is None
    assert file.exists()
    assert logged(gateway) == [("seal.not_handled", "seal-1.json")]
    full(False)
    by_hand.turn(1)
    assert (answer(gateway, "1")["state"], answer(gateway, "1")["generation"]) == ("protected", 4)
    assert not file.exists()
    assert len(logged(gateway)) == 1


def test_one_whose_answer_has_no_place_does_not_keep_others_waiting(gateway: Gateway) -> None:
    by_hand = HandTurned.of(gateway)
    gateway.source.write("a", b"a")
    (place(gateway) / "answer-1.json").mkdir()
    (place(gateway) / "answer-1.json" / "inside").write_bytes(b"")
    for run in "12":
        (place(gateway) / f"seal-{run}.json").write_text(json.dumps({"files": [{"path": "a"}]}))
    by_hand.turn(0, 1, 1, 1)
    assert answer(gateway, "2")["state"] == "protected"
    assert [path.name for path in sorted(place(gateway).iterdir())] == ["answer-1.json", "answer-2.json", "seal-1.json"]
    assert logged(gateway) == [("seal.not_handled", "seal-1.json")]


def test_what_was_refused_for_good_is_read_once_and_logged_once(
    gateway: Gateway, full: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[bytes] = []
    read = seal_files._read
    monkeypatch.setattr(seal_files, "_read", lambda *how: reads.append(how[1]) or read(*how))
    by_hand = HandTurned.of(gateway)
    full(True)
    (place(gateway) / "seal-1.json").write_text("{")
    by_hand.turn(0, 1, 1, 1)
    assert reads == [b"seal-1.json"]
    assert logged(gateway) == [("seal.problems", "1"), ("seal.not_handled", "seal-1.json")]
    full(False)
    by_hand.turn(1)
    assert answer(gateway, "1")["state"] == "refused"
    (place(gateway) / "seal-1.json").write_text('{"failed": "it broke"}')
    by_hand.turn(1, 1)
    assert answer(gateway, "1") == {"run": "1", "state": "failed", "problems": ["it broke"], "generation": None}
    assert not (place(gateway) / "seal-1.json").exists()


def test_a_catalog_that_cannot_be_written_refuses_nothing(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand = HandTurned.of(gateway)
    gateway.source.write("a", b"a")
    (place(gateway) / "seal-1.json").write_text(json.dumps({"files": [{"path": "a"}]}))
    with monkeypatch.context() as disk:
        error = LocalStateError("No space left.", meaning="Not done.", advice="Free some.")
        disk.setattr(Seals, "note", lambda *_: (_ for _ in ()).throw(error))
        by_hand.turn(0, 1, 1)
    assert answer(gateway, "1") is None
    assert logged(gateway) == [("seal.not_handled", "seal-1.json")]
    by_hand.turn(1, 1)
    assert answer(gateway, "1")["state"] == "protected"


@pytest.mark.parametrize("kind", ["FIFO", "symlink", "directory", "socket"])
@pytest.mark.timeout(60)
def test_what_is_no_plain_file_is_named_and_not_opened(gateway: Gateway, kind: str) -> None:
    by_hand = HandTurned.of(gateway)
    gateway.source.write("a", b"a")
    file = place(gateway) / "seal-1.json"
    if kind == "FIFO":
        os.mkfifo(file)
    elif kind == "symlink":
        (gateway.source.root / "aside").write_text("{}")
        file.symlink_to("../aside")
    elif kind == "directory":
        file.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(file))
    by_hand.turn(0, 1, 6)
    (problem,) = answer(gateway, "1")["problems"]
    assert f"seal-1.json is a {kind}, not a file" in problem
    assert logged(gateway) == [("seal.problems", "1")]
    assert b"a" in gateway.list()


def test_a_link_in_the_place_of_their_directory_is_not_followed(gateway: Gateway, tmp_path: Path) -> None:
    by_hand = HandTurned.of(gateway)
    gateway.source.write("a", b"a")
    (tmp_path / "seal-1.json").write_text(json.dumps({"files": [{"path": "a"}]}))
    (gateway.source.root / ".gateway").symlink_to(tmp_path)
    by_hand.turn(0, 1, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["seal-1.json"]
    assert logged(gateway) == [("seal.not_handled", ".gateway")]
    assert gateway.list() == [b"a"]


def test_a_fifo_that_takes_the_place_of_a_file_does_not_block(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand = HandTurned.of(gateway)
    gateway.source.write("a", b"a")
    file = place(gateway) / "seal-1.json"
    file.write_text(json.dumps({"files": [{"path": "a"}]}))
    read = seal_files._read

    def late(*how: Any) -> Any:
        monkeypatch.undo()
        file.unlink()
        os.mkfifo(file)
        return read(*how)

    monkeypatch.setattr(seal_files, "_read", late)
    by_hand.turn(0, 1, 1, 1)
    assert "a FIFO" in answer(gateway, "1")["problems"][0]


@pytest.mark.parametrize("kind", list(SourceKind))
def test_they_are_taken_and_answered_without_an_engine(gateway: Gateway, kind: SourceKind) -> None:
    gateway.change(kind=kind)
    gateway.source.write("job/a", b"a")
    for run, path in (("1", "job/a"), ("2", "../a")):
        (place(gateway) / f"seal-{run}.json").write_text(json.dumps({"files": [{"path": path}]}))
    gateway.healthy = False  # a rebuild names what is incomplete
    report = gateway.engine.ingest("src")
    assert report.sources[0].generation is not None
    assert report.sources[0].generation.evidence == 5
    assert (answer(gateway, "1")["state"], answer(gateway, "1")["generation"]) == ("protected", 1)
    assert answer(gateway, "2")["state"] != "protected"
    assert not (place(gateway) / "seal-1.json").exists()


def test_the_script_of_the_page_does_what_it_says(gateway: Gateway, tmp_path: Path) -> None:
    gateway.change(kind=SourceKind.JOB)
    (text,) = [each for each in re.findall("```sh\n(.*?)```", PAGE.read_text(), re.DOTALL) if "new-$run" in each]
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("x")
    for old, new in (("/mnt/jobs", str(gateway.source.root)), ("-C /", f"-C {tmp_path}"), ("sleep 5", "sleep 0.1")):
        assert old in text
        text = text.replace(old, new)
    one = keeper(gateway)
    failing = text.replace("-czf", "--nonsense").replace('run="etc-', 'run="failed-')  # in the same second
    for broken in (False, True):
        with subprocess.Popen(["sh", "-c", failing if broken else text]) as script:
            while script.poll() is None:
                one.turn(no_progress)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    script.wait(0.1)
        assert script.returncode == (1 if broken else 0)
    assert [path.rpartition(b"/")[2] for path in gateway.list()][1:] == [b"etc.tar.gz"]
    states = sorted(json.loads(each.read_text())["state"] for each in place(gateway).glob("answer-*"))
    assert states == ["failed", "protected"]
    assert not list(place(gateway).glob("seal-*"))


def test_taking_one_can_be_cut_off_anywhere(gateway: Gateway) -> None:
    """os._exit before and after every effect of taking, answering and removing; the run is made once all the same."""
    gateway.change(kind=SourceKind.JOB)
    for at in range(1, 100):
        run = f"run-{at}"
        gateway.source.write(f"{run}/x", run.encode())
        (place(gateway) / f"seal-{run}.json").write_text(json.dumps({"folder": run}))
        killed = _killed(gateway, at)
        gateway.open()
        one = keeper(gateway)
        for _ in range(3):
            one.seal_files.look()
            one.turn(no_progress)
        one.seal_files.look()
        assert answer(gateway, run)["state"] == "protected"
        assert not (place(gateway) / f"seal-{run}.json").exists()
        assert f"{run}/x".encode() in gateway.list()
        assert len(gateway.engine.generations("src")) == at
        if not killed:
            assert at > 4
            return
    raise AssertionError("it never came to its end")


def _killed(gateway: Gateway, at: int) -> bool:
    """Two looks in a process that ends at their effect number `at`. False: they have not so many."""
    gateway.close()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            left = at

            def hook(moment: str, name: str) -> None:
                nonlocal left
                if name.startswith("seal-") or name in ("catalog:job", "catalog:mark"):
                    left -= 1
                    if left == 0:
                        os._exit(KILLED)

            one = keeper(gateway)
            durable.install_hook(hook)
            one.seal_files.look()
            one.seal_files.look()
            # The generation of it would go to the store of this process: it counts as made elsewhere.
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, KILLED)
    return code == KILLED
