"""The engine as a process: it notices, protects, answers, stops, and goes on after a SIGKILL where it was."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.system.command import Gateway, in_directory
from tests.system.serving import Serving

FAST = ("[engine]", 'rescan = "3 s"')


def made(tmp_path: Path, more: tuple[str, ...] = (), *, settle: str = "1 s", **sources: tuple[str, ...]) -> Gateway:
    """A gateway with its sources below `spool`; of each, further lines of its table."""
    paths = {name: tmp_path / "spool" / name for name in sources}
    for path in paths.values():
        path.mkdir(parents=True)
    gateway = Gateway(tmp_path / "gateway", in_directory(tmp_path / "store"), {}, more=(*FAST, *more))
    lines: list[str] = []
    for name, settings in sources.items():
        lines += ["[[source]]", f'name = "{name}"', f'path = "{paths[name]}"', f'settle = "{settle}"', 'class = "hot"']
        lines += ['generation_interval = "0 s"', *settings]
    with gateway.config.open("a") as out:
        out.write("\n".join(lines) + "\n")
    gateway.init()
    return gateway


def test_what_is_written_is_protected_and_every_verb_answers_as_without_an_engine(tmp_path: Path) -> None:
    gateway = made(tmp_path, files=())
    spool = tmp_path / "spool" / "files"
    with Serving(gateway) as engine:
        (spool / "one").write_bytes(b"1" * 5000)
        engine.until("it is protected", lambda: engine.protected("files"))
        (spool / "two.part").write_bytes(b"half")
        (spool / "sub").mkdir()
        (spool / "sub" / "three").write_bytes(b"3")
        engine.until("the next is", lambda: "sub/three" in engine.files("files"))
        assert set(engine.files("files")) == {"one", "sub/three"}
        assert {left["reason"] for left in gateway.json("show", "files")["left_out"]} == {"temporary"}
        verbs = (
            ("generations",), ("generations", "files"), ("chains",), ("show", "files"), ("ls", "files"),
            ("diff", "files@1", "files@2"), ("alarms", "--all"), ("verify", "--depth", "data"),
            ("restore", "files", "--to", str(tmp_path / "to"), "--dry-run"), ("config", "check"),
        )  # fmt: skip
        with_engine = {verb: gateway.json(*verb) for verb in verbs}
        failing = (("show", "nothing"), ("generations", "fies"), ("ls", "files", "nowhere"), ("init",))
        told = {verb: gateway.run("--json", *verb, code=2).document for verb in failing}
        gateway.run("restore", "files", "--to", tmp_path / "with")
        assert gateway.run("ingest", "files").code == 0
        assert gateway.run("barrier").code == 0
        assert engine.stop() == 0
    assert not (gateway.state / "control.sock").exists()
    for verb in verbs:
        assert _timeless(gateway.json(*verb)) == _timeless(with_engine[verb]), verb
    for verb in failing[:-1]:
        assert gateway.run("--json", *verb, code=2).document == told[verb]
    gateway.run("restore", "files", "--to", tmp_path / "without")
    assert (tmp_path / "with" / "sub" / "three").read_bytes() == (tmp_path / "without" / "sub" / "three").read_bytes()
    assert not gateway.json("status")["running"]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key not in ("seconds", "cached_bytes")}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def test_one_engine_a_state_directory_and_a_killed_one_leaves_no_trouble(tmp_path: Path) -> None:
    gateway = made(tmp_path, files=())
    with Serving(gateway) as engine:
        assert "11" in str(gateway.run("serve", code=11).code)
        engine.kill()
        assert (gateway.state / "control.sock").is_socket()
        assert not gateway.json("status")["running"]
        gateway.run("ingest")
        (tmp_path / "spool" / "files" / "x").write_bytes(b"x")
        engine.start()
        engine.until("it is protected", lambda: engine.protected("files"))


def test_systemd_hears_that_it_is_ready_lives_and_stops(tmp_path: Path) -> None:
    gateway = made(tmp_path, files=())
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(address)
        heard.settimeout(60)
        engine = Serving(gateway, NOTIFY_SOCKET=address, WATCHDOG_USEC="1000000")
        engine.start()
        try:
            assert [heard.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
            gateway.config.write_text(gateway.config.read_text().replace("[engine]", "[engin]"))
            assert engine.process is not None
            engine.process.send_signal(signal.SIGHUP)
            engine.until("it says so", lambda: "config.not_reloaded" in engine.log)
            assert engine.stop() == 0
            rest = []
            heard.settimeout(0.2)
            while b"STOPPING=1" not in rest:
                rest.append(heard.recv(100))
            assert b"RELOADING=1" in rest
        finally:
            engine.kill()


def test_sighup_takes_over_sources_and_says_what_needs_a_restart(tmp_path: Path) -> None:
    gateway = made(tmp_path, files=())
    (tmp_path / "spool" / "late").mkdir()
    with Serving(gateway) as engine:
        assert engine.process is not None
        text = gateway.config.read_text() + (
            f'[[source]]\nname = "late"\npath = "{tmp_path}/spool/late"\nsettle = "1 s"\nclass = "hot"\n'
            '[limits]\nmemory = "600 MiB"\n'
        )
        gateway.config.write_text(text)
        engine.process.send_signal(signal.SIGHUP)
        engine.until("it is taken over", lambda: "config.reloaded" in engine.log)
        assert 'settings=["limits"]' in engine.log
        (tmp_path / "spool" / "late" / "x").write_bytes(b"x")
        engine.until("the new source is kept", lambda: engine.protected("late"))


def test_seal_calls_are_compared_idempotent_and_waited_for(tmp_path: Path) -> None:
    gateway = made(tmp_path, jobs=('kind = "job"', "minimum_evidence = 5"))
    spool = tmp_path / "spool" / "jobs"
    with Serving(gateway) as engine:
        (spool / "monday").mkdir()
        data = b"full" * 20_000
        (spool / "monday" / "piece-1").write_bytes(data)
        (spool / "monday" / "log").write_bytes(b"log")
        assert gateway.json("begin", "jobs", "--run", "mon")["state"] == "begun"
        assert gateway.json("begin", "jobs", "--run", "mon")["state"] == "begun"
        listed = f"{hashlib.sha256(data).hexdigest()}  monday/piece-1\n3 monday/log\n"
        sealed = gateway.run("--json", "seal", "jobs", "--run", "mon", "--list", "-", "--wait", stdin=listed).document
        assert (sealed["state"], sealed["generation"]["number"]) == ("protected", 1)
        assert set(engine.files("jobs")) == {"monday/piece-1", "monday/log"}
        assert {each["evidence"] for each in engine.files("jobs").values()} == {5}
        again = gateway.run("--json", "seal", "jobs", "--run", "mon", "--list", "-", stdin=listed).document
        assert again == sealed
        # The next job: the same names in another folder, most of the bytes the same.
        (spool / "tuesday").mkdir()
        (spool / "tuesday" / "piece-1").write_bytes(data + b"more")
        done = gateway.json("seal", "jobs", "--run", "tue", "--folder", "tuesday", "--requires", "mon", "--wait")
        assert done["state"] == "protected"
        assert set(engine.files("jobs", 2)) == {"tuesday/piece-1"}
        assert gateway.json("show", "jobs@2")["requires"] == [sealed["generation"]["id"]]
        # A seal that is not so: kept, incomplete, told.
        (spool / "wednesday").mkdir()
        (spool / "wednesday" / "piece-1").write_bytes(data[:-1])
        wrong = f"{hashlib.sha256(data).hexdigest()}  wednesday/piece-1\n9 wednesday/gone\n"
        told = gateway.run("--json", "seal", "jobs", "--run", "wed", "--list", "-", "--wait", stdin=wrong, code=3)
        assert told.document["state"] == "incomplete"
        assert len(told.document["problems"]) == 2
        assert engine.generations("jobs")[-1]["state"] == "incomplete"
        assert engine.alarms() == {"generation-incomplete": "jobs", "seal-mismatch": "jobs/wed"}
        assert gateway.json("fail", "jobs", "--run", "thu", "--reason", "disk")["state"] == "failed"
        gateway.run("fail", "jobs", "--run", "mon", code=2)
        gateway.run("seal", "jobs", "--run", "no good", code=2)
        gateway.run("seal", "jbs", "--run", "x", code=2)


def test_a_sealed_run_is_made_after_a_kill(tmp_path: Path) -> None:
    gateway = made(tmp_path, jobs=('kind = "job"', "minimum_evidence = 5"))
    spool = tmp_path / "spool" / "jobs"
    (spool / "a").mkdir()
    (spool / "a" / "x").write_bytes(b"x")
    assert gateway.json("seal", "jobs", "--run", "1", "--folder", "a")["state"] == "sealed"
    with Serving(gateway) as engine:
        engine.until("it is protected", lambda: engine.protected("jobs") == [1])
        (spool / "a" / "x").write_bytes(b"y")
        assert gateway.json("seal", "jobs", "--run", "2", "--folder", "a")["state"] in ("sealed", "protected")
        engine.kill()
        engine.start()
        # Killed behind its entry it is made once more, and has another number.
        engine.until("so is the next", lambda: gateway.json("seal", "jobs", "--run", "2")["state"] == "protected")
        first, *later = engine.protected("jobs")
        assert first == 1
        assert later in ([2], [3], [2, 3])
    for number in later:
        gateway.run("restore", f"jobs@{number}", "--to", tmp_path / f"to{number}")
        assert (tmp_path / f"to{number}" / "a" / "x").read_bytes() == b"y"


def test_a_seal_file_is_taken_and_answered(tmp_path: Path) -> None:
    gateway = made(tmp_path, jobs=('kind = "job"', "minimum_evidence = 5"))
    spool = tmp_path / "spool" / "jobs"
    own = spool / ".gateway"
    own.mkdir()
    (spool / "a").mkdir()
    (spool / "a" / "x").write_bytes(b"x" * 10)

    def answer(run: str) -> Any:
        path = own / f"answer-{run}.json"
        return json.loads(path.read_text()) if path.exists() else {"state": None}

    with Serving(gateway) as engine:
        seal = {"files": [{"path": "a/x", "size": 10, "sha256": hashlib.sha256(b"x" * 10).hexdigest()}]}
        (own / "seal-good.json").write_text(json.dumps(seal))
        engine.until("it is protected", lambda: answer("good")["state"] == "protected")
        engine.until("the seal file is gone", lambda: not (own / "seal-good.json").exists())
        assert engine.protected("jobs") == [1]
        (own / "seal-bad.json").write_text(json.dumps({"files": [{"path": "a/x", "size": 11}]}))
        engine.until("it is told", lambda: answer("bad")["problems"] if answer("bad")["state"] else False)
        assert answer("bad")["state"] == "incomplete"
        (own / "seal-odd.json").write_text("{")
        engine.until("so is this", lambda: answer("odd")["state"] == "refused")
        (own / "seal-off.json").write_text(json.dumps({"failed": "disk full"}))
        engine.until("and this", lambda: answer("off")["state"] == "failed")


def test_job_folders_wait_for_their_marker_and_a_volume_is_a_series_of_versions(tmp_path: Path) -> None:
    gateway = made(tmp_path, jobs=('kind = "job"', "minimum_evidence = 3", 'marker = "DONE"'))
    spool = tmp_path / "spool" / "jobs"
    volume = spool / "vol" / "data"
    volume.parent.mkdir()
    with Serving(gateway) as engine:
        volume.write_bytes(b"first" * 3000)
        asked = gateway.run("barrier", "jobs", code=3)
        assert "vol/data is not protected" in asked.told
        assert engine.generations("jobs") == []
        (spool / "vol" / "DONE").touch()
        engine.until("the first", lambda: engine.protected("jobs") == [1])
        inode = volume.stat().st_ino
        with volume.open("ab") as out:
            out.write(b"appended")
        (spool / "vol" / "DONE").unlink()
        (spool / "vol" / "DONE").touch()
        engine.until("the appended", lambda: engine.protected("jobs") == [1, 2])
        with volume.open("r+b") as out:
            out.truncate(0)
            out.write(b"recycled")
        (spool / "vol" / "DONE").touch()
        engine.until("the recycled", lambda: engine.protected("jobs") == [1, 2, 3])
        assert volume.stat().st_ino == inode
        for number, wanted in enumerate((b"first" * 3000, b"first" * 3000 + b"appended", b"recycled"), 1):
            gateway.run("restore", f"jobs@{number}", "--to", tmp_path / f"to{number}")
            assert (tmp_path / f"to{number}" / "vol" / "data").read_bytes() == wanted


def test_evidence_comes_from_structure_markers_and_renames(tmp_path: Path) -> None:
    gateway = made(tmp_path, files=("minimum_evidence = 2", 'marker = "{name}.done"'))
    spool = tmp_path / "spool" / "files"
    with Serving(gateway) as engine:
        (spool / "opaque").write_bytes(b"nobody knows")
        (spool / "with-marker").write_bytes(b"somebody says")
        (spool / "with-marker.done").touch()
        (spool / "renamed.tmp").write_bytes(b"into place")
        subprocess.run(["tar", "-cf", spool / "a.tar", "-C", "/etc", "hostname"], check=True)
        whole = (spool / "a.tar").read_bytes()
        (spool / "torn.tar").write_bytes(whole[:700])
        engine.until("it is noticed", lambda: engine.status()["sources"][0]["pending"] >= 4)
        os.rename(spool / "renamed.tmp", spool / "renamed")
        wanted = {"a.tar": 2, "with-marker": 3, "renamed": 3}
        engine.until(
            "what is enough is protected",
            lambda: {name: each["evidence"] for name, each in engine.files("files").items()} == wanted
            if engine.protected("files") else False,
        )  # fmt: skip
        held = {each["path"]: each["detail"] for each in engine.status()["sources"][0]["files"]}
        assert set(held) == {"opaque", "torn.tar"}
        assert "evidence 2" in held["opaque"]
        done = gateway.json("ingest", "files", "--seal-now")
        assert done["sources"][0]["generation"]["state"] == "protected"
        assert set(engine.files("files")) == {"opaque", "torn.tar", *wanted}


def test_a_hook_is_told_when_an_alarm_opens_and_closes(tmp_path: Path) -> None:
    told = tmp_path / "told"
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ncat >> {told}\necho >> {told}\n")
    hook.chmod(0o755)
    more = ("[[hook]]", 'name = "pager"', f'command = ["{hook}"]')
    gateway = made(tmp_path, more=more, files=('expect_every = "3 s"',))
    with Serving(gateway) as engine:
        engine.until("the source is overdue", lambda: "source-overdue" in engine.alarms())
        engine.until("the hook was told", lambda: told.exists() and '"opened"' in told.read_text())
        (tmp_path / "spool" / "files" / "x").write_bytes(b"x")
        engine.until("it is over", lambda: '"state":"closed"' in told.read_text())
    documents = [json.loads(line) for line in told.read_text().splitlines() if line]
    first = documents[0]
    assert (first["kind"], first["subject"], first["state"]) == ("source-overdue", "files", "opened")
    assert all(first[part] for part in ("what", "meaning", "advice"))


def test_a_file_goes_from_the_spool_only_when_newer_generations_are_protected(tmp_path: Path) -> None:
    # Settled longer than a clock's tick is doubted: what the first generation read, the second need not read again.
    gateway = made(tmp_path, settle="3 s", files=("release_keep_generations = 1",))
    spool = tmp_path / "spool" / "files"
    with Serving(gateway) as engine:
        (spool / "old").write_bytes(b"old" * 1000)
        engine.until("the first", lambda: engine.protected("files") == [1])
        assert (spool / "old").exists()
        (spool / "new").write_bytes(b"new")
        engine.until("the old one is released", lambda: not (spool / "old").exists())
        assert (spool / "new").exists()
        (spool / "third").write_bytes(b"3")
        engine.until("the third", lambda: 3 in engine.protected("files"))
        assert "old" not in engine.files("files", 3)
        left = {each["path"]: each["reason"] for each in gateway.json("show", "files@3")["left_out"]}
        assert left == {"old": "released"}
        gateway.run("restore", "files@2", "--to", tmp_path / "to")
        assert (tmp_path / "to" / "old").read_bytes() == b"old" * 1000


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_only_root_the_engine_and_named_users_are_answered(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as run:
        os.chmod(run, 0o755)
        path = Path(run) / "control.sock"
        gateway = made(tmp_path, more=('users = ["nobody"]', f'socket = "{path}"'), files=())
        engine = Serving(gateway)
        engine.start(ready=False)
        try:
            engine.until("it listens", path.is_socket)
            nobody, other = 65534, 12345
            assert _ask(path, nobody, "status") == 200
            assert _ask(path, nobody, "restore") == 403
            assert _ask(path, nobody, "rebuild") == 403
            assert _ask(path, nobody, "nothing") == 404
            assert _ask(path, other, "status") == 403
            assert _ask(path, 0, "generations") == 200
        finally:
            engine.kill()


ANSWERS = (200, 400, 403, 404)


def _ask(path: Path, uid: int, call: str) -> int:
    """What a bare request from a process of that user is answered."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            os.setresuid(uid, uid, uid)
            with socket.socket(socket.AF_UNIX) as asked:
                asked.connect(str(path))
                asked.sendall(b"POST /v1/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}" % call.encode())
                code = ANSWERS.index(int(asked.recv(1000).split()[1]))
        finally:
            os._exit(code)
    return ANSWERS[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]
