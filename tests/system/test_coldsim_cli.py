"""The command against the cold simulator: its own process, its own time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3.session
import pytest

from gateway.store.lifecycle import Lifecycle, LifecycleRule
from gateway.store.s3 import S3Settings, S3Store
from tests.servers.process import until
from tests.system.command import Gateway, Place, end
from tests.system.serving import Serving

ROOT = Path(__file__).parents[2]
LOGS = LifecycleRule(id="logs", prefix="logs/", expire_days=30)

SIZES = ("[advanced]", "small_pack_bytes = 1", 'pack_bytes = "8 MiB"', 'part_bytes = "5 MiB"')


@pytest.fixture
def simulator() -> Iterator[str]:
    """Its address. It begins later than any file of this test was made, as a real store would be."""
    words = ["--port", "0", "--bucket", "backups", "--start", "2031-03-01T12:00:00"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.servers.coldsim", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[0]
        finally:
            process.terminate()


def ask(url: str, path: str, method: str = "GET") -> Any:
    with urllib.request.urlopen(urllib.request.Request(f"{url}{path}", method=method), timeout=30) as answer:
        return json.loads(answer.read())


@contextlib.contextmanager
def bucket(simulator: str) -> Iterator[S3Store]:
    """As somebody else sees it."""
    keys = boto3.session.Session(aws_access_key_id="any", aws_secret_access_key="any")
    settings = S3Settings(bucket="backups", endpoint_url=simulator, region="us-east-1", addressing_style="path")
    with contextlib.closing(S3Store(settings, session=keys)) as store:
        yield store


@pytest.fixture
def gateway(tmp_path: Path, simulator: str) -> Gateway:
    place = Place(
        url="s3://backups/gateway",
        lines=(f'endpoint_url = "{simulator}"', 'region = "us-east-1"', 'addressing_style = "path"'),
        environment={"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "GATEWAY_CLOCK": "store"},
    )
    spool = tmp_path / "spool"
    spool.mkdir()
    made = Gateway(
        tmp_path / "home",
        place,
        {"src": spool},
        more=SIZES,
    )
    made.config.write_text(made.config.read_text().replace('class = "hot"', 'class = "deep"'))
    return made


def test_a_generation_is_hot_as_long_as_was_said(gateway: Gateway, simulator: str, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    sheet = gateway.init()
    for number in range(3):
        (spool / str(number)).write_bytes(os.urandom(6 << 20))
    with bucket(simulator) as store:
        store.put_lifecycle(Lifecycle(rules=(LOGS,)))
    (made,) = gateway.json("ingest")["sources"]
    generation = made["generation"]
    assert generation["state"] == "protected"
    assert generation["created"].startswith("2031-03-01T12:00:")
    assert generation["hot_until"] == "2031-06-07T00:00:00Z"  # 97 days, and the rest of a day
    assert f"hot until {generation['hot_until']}" in gateway.run("generations").data
    assert generation["hot_until"] in gateway.run("show", "src").data

    gateway.run("lifecycle", "check", code=3)
    planned = gateway.json("lifecycle", "plan")
    assert {each["kind"] for each in planned["drift"]} == {"missing"}
    applied = gateway.json("lifecycle", "apply")
    assert applied["written"]
    assert not applied["drift"]
    assert [each["rule"] for each in applied["rules"] if not each["own"]] == ["logs"]
    assert "as they should be" in gateway.run("lifecycle", "check").data
    with bucket(simulator) as store:
        assert LOGS in store.get_lifecycle().rules

    # On the day before it can be read at once, also where nothing is cached.
    ask(simulator, "/_clock?advance=96d", "POST")
    gateway.lose_state()
    gateway.run("rebuild", "--recovery-sheet", sheet)
    gateway.run("restore", "src", "--to", tmp_path / "hot")
    assert (tmp_path / "hot" / "0").read_bytes() == (spool / "0").read_bytes()

    now = ask(simulator, "/_clock?advance=24d", "POST")["now"]
    assert datetime.fromisoformat(now) > datetime.fromisoformat(generation["hot_until"])
    plan = gateway.json("restore", "src", "--to", tmp_path / "cold", "--dry-run")["plan"]
    assert plan["cold_packs"] >= 3
    assert plan["cold_bytes"] >= 18 << 20
    hurried = ("restore", "src", "--to", tmp_path / "cold", "--deadline", "1 h")
    refused = gateway.run("--json", *hurried, code=22).document["error"]
    assert refused["class"] == "OverBudget"
    assert f"{plan['cold_packs']} packs are cold" in refused["meaning"]
    assert not (tmp_path / "cold").exists()

    # What comes now does not stand on what is cold.
    (spool / "3").write_bytes(os.urandom(1 << 20))
    (later,) = gateway.json("ingest")["sources"]
    assert later["generation"]["chain"] != generation["chain"]
    gateway.lose_state()
    gateway.run("rebuild", "--recovery-sheet", sheet)
    gateway.run("restore", "src", "--to", tmp_path / "hot-again")


def test_drift_and_foreign_rules_are_alarms(gateway: Gateway, simulator: str) -> None:
    gateway.init()
    gateway.run("lifecycle", "apply")
    with bucket(simulator) as store:
        store.put_lifecycle(Lifecycle(rules=(replace(LOGS, prefix=""),)))
    told = gateway.run("lifecycle", "check", code=3)
    assert "lifecycle rule logs is not the gateway's and acts on all objects of the bucket" in told.told
    assert "is missing" in told.data
    kinds = {each["kind"] for each in gateway.json("alarms")}
    assert kinds == {"lifecycle-drift", "foreign-rule"}


def test_the_clock_of_a_store_is_for_this_machine_only(gateway: Gateway) -> None:
    told = gateway.run("generations", code=2, environment={"GATEWAY_CLOCK": "moon"}).told
    assert "GATEWAY_CLOCK" in told
    text = gateway.config.read_text()
    line = next(line for line in text.splitlines() if line.startswith("endpoint_url"))
    for other in ("https://s3.example.com", "http://192.0.2.1:9000", "https://127.0.0.1:9000", ""):
        gateway.config.write_text(text.replace(line, f'endpoint_url = "{other}"' if other else ""))
        assert "is for a store on this machine" in gateway.run("generations", code=2).told


# --- restore jobs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def frozen(gateway: Gateway, simulator: str, tmp_path: Path) -> Gateway:
    """A generation whose packs lie in DEEP_ARCHIVE, and a machine that has only the bucket, the keys and the sheet."""
    sheet = gateway.init()
    for number in range(3):
        (tmp_path / "spool" / str(number)).write_bytes(os.urandom(5 << 20))
    gateway.json("ingest")
    gateway.run("lifecycle", "apply")
    ask(simulator, "/_clock?advance=120d", "POST")
    gateway.lose_state()
    gateway.run("rebuild", "--recovery-sheet", sheet)
    return gateway


def approval_above(gateway: Gateway, amount: int) -> None:
    gateway.config.write_text(gateway.config.read_text() + f"[restore]\napproval_above = {amount}\n")


def thawed(simulator: str) -> int:
    """Thaws that were asked for, as the bill has them."""
    lines = [line for bucket in ask(simulator, "/_bill")["buckets"] for line in bucket["lines"]]
    found = [line for line in lines if line["item"].startswith("request:thaw")]
    assert {line["unit"] for line in found} <= {"1000 requests"}, found
    return round(sum(1000 * float(line["quantity"]) for line in found))


def same(spool: Path, restored: Path) -> bool:
    names = sorted(each.name for each in spool.iterdir())
    assert names == sorted(each.name for each in restored.iterdir())
    return all((spool / name).read_bytes() == (restored / name).read_bytes() for name in names)


def test_a_frozen_generation_is_quoted_approved_thawed_and_restored(
    frozen: Gateway, simulator: str, tmp_path: Path
) -> None:
    approval_above(frozen, 0)
    spool, target = tmp_path / "spool", tmp_path / "out"
    restore = ("restore", "src@1", "--to", target)
    dry = frozen.json(*restore, "--dry-run")
    assert dry["packs"] == dry["by_state"]["cold"]["packs"] >= 2
    assert dry["bytes"] == 15 << 20
    offers = dry["tiers"]
    assert set(offers) == {"bulk", "standard", "expedited"}
    assert 48 <= offers["bulk"]["hours"] < 49
    assert 12 <= offers["standard"]["hours"] < 13
    assert offers["standard"]["usd"] > offers["bulk"]["usd"] > 0
    assert not offers["expedited"]["fits"]
    assert all(figure["origin"] for each in offers.values() for figure in each["figures"])
    people = " ".join(frozen.run(*restore, "--dry-run").data.split())
    assert "bulk 0.01 USD 48 h" in people
    assert "does not fit" in people
    assert frozen.json("jobs") == []

    # Over budget, or too late: nothing is asked for, and there is no job.
    assert "over the budget" in frozen.run(*restore, "--budget", "0.0001 USD", code=22).told
    assert "it takes up to" in frozen.run(*restore, "--deadline", "1 h", code=22).told
    assert frozen.json("jobs") == []

    refused = frozen.run("--json", *restore, "--tier", "standard", code=21).document["error"]
    (job,) = frozen.json("jobs")
    assert job["state"] == "approval"
    assert job["id"] in refused["what"]
    assert frozen.run("jobs", "watch", job["id"], code=21).told
    assert thawed(simulator) == 0
    assert not target.exists()

    approved = frozen.run("jobs", "approve", job["id"][:5])
    assert f"gateway jobs watch {job['id']}" in approved.told  # no engine runs
    ask(simulator, "/_clock?advance=1h", "POST")
    with frozen.start("--json", "jobs", "watch", job["id"]) as watching:
        alive = lambda: watching.poll() is None  # noqa: E731
        until("it is asked for", lambda: thawed(simulator) == dry["packs"], seconds=60, alive=alive)
        assert frozen.json("jobs", "show", job["id"])["state"] == "thawing"
        ask(simulator, "/_clock?advance=13h", "POST")
        out, told = watching.communicate(timeout=60)
    assert watching.returncode == 0, told
    assert same(spool, target)
    report = json.loads(out)
    assert report["files"] == 3
    done = frozen.json("jobs", "show", job["id"])
    assert report["job"] == done
    assert (done["state"], done["bytes_done"], done["bytes_total"]) == ("delivered", 15 << 20, 15 << 20)
    assert done["approved_by"]
    assert done["spent_usd"] <= done["quote_usd"] * 1.01
    assert done["requests"] >= 2 * dry["packs"]
    assert thawed(simulator) == dry["packs"]
    assert "Quoted" in frozen.run("jobs", "watch", job["id"]).data


def _has_socket(pid: int) -> bool:
    """Whether a process talks to somebody: then it is past its start, where a signal would just end it."""
    links = Path(f"/proc/{pid}/fd").iterdir()
    return any(os.readlink(each).startswith("socket:") for each in links if each.is_symlink())


def test_ctrl_c_leaves_a_job_that_goes_on(frozen: Gateway, simulator: str, tmp_path: Path) -> None:
    target = tmp_path / "out"
    process = frozen.start("--json", "restore", "src@1", "--to", target, "--tier", "standard")
    until("it waits", lambda: thawed(simulator) >= 2, seconds=60, alive=lambda: process.poll() is None)
    left = end(process, signal.SIGINT)
    assert left.code == 130
    (job,) = frozen.json("jobs")
    assert job["state"] == "thawing"
    assert f"gateway jobs watch {job['id']}" in left.document["error"]["advice"]
    asked = thawed(simulator)
    ask(simulator, "/_clock?advance=13h", "POST")
    frozen.run("jobs", "watch", job["id"])
    assert same(tmp_path / "spool", target)
    assert thawed(simulator) == asked


def test_a_detached_job_without_an_engine_begins_and_waits(frozen: Gateway, simulator: str, tmp_path: Path) -> None:
    """A relative directory is the caller's, whoever goes on with the job and from where."""
    begun = frozen.run("--json", "restore", "src@1", "--to", "below", "--tier", "standard", "--detach")
    job = begun.document["job"]
    assert (job["state"], job["target"]) == ("thawing", str(frozen.home / "below"))
    assert f"`gateway serve` or `gateway jobs watch {job['id']}`" in begun.told
    assert thawed(simulator) == job["packs"]
    assert frozen.json("jobs", "pause", job["id"])["state"] == "paused"
    assert "paused by" in frozen.run("jobs", "watch", job["id"], code=20).told
    frozen.run("jobs", "resume", job["id"])
    ask(simulator, "/_clock?advance=13h", "POST")
    frozen.run("jobs", "watch", job["id"])
    assert same(tmp_path / "spool", frozen.home / "below")
    assert "has ended already" in frozen.run("jobs", "cancel", job["id"], code=2).told


def at_rest(engine: Serving) -> int:
    """Threads of the engine that stay for a second."""
    assert engine.process is not None
    tasks = f"/proc/{engine.process.pid}/task"
    seen: list[set[str]] = []

    def looked_often() -> bool:
        seen.append(set(os.listdir(tasks)))
        return len(seen) > 20

    engine.until("threads that end have ended", looked_often)
    return len(set.intersection(*seen))


def test_an_engine_goes_on_with_a_job_also_after_a_kill(frozen: Gateway, simulator: str, tmp_path: Path) -> None:
    target = tmp_path / "out"
    with Serving(frozen) as engine:
        begun = frozen.run("--json", "restore", "src@1", "--to", target, "--tier", "standard", "--detach")
        job = begun.document["job"]["id"]
        assert "The engine goes on with" in begun.told
        engine.until("it is asked for", lambda: thawed(simulator) >= 2)
        # Whoever only watches may leave.
        engine.until("it waits", lambda: frozen.json("jobs", "show", job)["state"] == "thawing")
        before = min(at_rest(engine) for _ in range(3))  # who asked last may take its time to leave
        watching = frozen.start("jobs", "watch", job)
        engine.until("it is connected", lambda: _has_socket(watching.pid))
        engine.until("it is followed", lambda: at_rest(engine) > before)
        left = end(watching, signal.SIGINT)
        assert left.code == 130
        engine.until("nothing of it stays", lambda: at_rest(engine) <= before)
        assert frozen.json("jobs", "show", job)["state"] == "thawing"
        asked = thawed(simulator)
        engine.kill()
        engine.start()
        ask(simulator, "/_clock?advance=13h", "POST")
        report = frozen.json("jobs", "watch", job)
        assert report["job"]["state"] == "delivered"
        assert same(tmp_path / "spool", target)
        assert thawed(simulator) == asked
        # The same answers as without an engine.
        again = frozen.json("restore", "src@1", "--to", target, code=3)
        assert len(again["left_out"]) == 3
        assert frozen.json("jobs")[0]["state"] == "partial"
        frozen.run("restore", "src@1", "--to", tmp_path / "late", "--deadline", "1 s", "--budget", "0", code=22)


def test_the_engine_expires_and_sweeps_by_itself_and_waits_for_whom_it_must(
    gateway: Gateway, simulator: str, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    rules = ("[[retention]]", 'sources = "src"', "keep_last = 1", "minimum_generations = 1", 'sweep_after = "2 d"')
    settings = gateway.config.read_text().replace('class = "deep"', 'class = "hot"\ngeneration_interval = "0 s"')
    gateway.config.write_text("\n".join((settings, *rules, "")))
    gateway.init()

    def stored() -> int:
        with bucket(simulator) as store:
            return sum(each.size for each in store.list_objects("gateway/packs/"))

    with Serving(gateway) as engine:
        (spool / "a").write_bytes(os.urandom(6 << 20))
        engine.until("the first is there", lambda: engine.protected("src") == [1])
        (spool / "a").write_bytes(os.urandom(6 << 20))
        engine.until("so is the second", lambda: engine.protected("src") == [1, 2])
        ask(simulator, "/_clock?advance=25h", "POST")
        engine.until("somebody must approve it", lambda: "retention-waits" in engine.alarms())
        assert engine.protected("src") == [1, 2]
        plan = gateway.json("retention", "plan")
        assert plan["needs_approval"]
        gateway.run("retention", "apply", "--approve", plan["plan"])
        assert engine.protected("src") == [2]
        # Nothing of it goes before `sweep_after`; then the engine deletes by itself.
        ask(simulator, "/_clock?advance=61m", "POST")
        engine.until("that is over", lambda: "retention-waits" not in engine.alarms())
        assert stored() > 12 << 20
        ask(simulator, "/_clock?advance=3d", "POST")
        engine.until("it is swept", lambda: stored() < 7 << 20)
        gateway.run("verify", "--depth", "data")
        gateway.run("restore", "src", "--to", tmp_path / "out")
        assert same(spool, tmp_path / "out")
