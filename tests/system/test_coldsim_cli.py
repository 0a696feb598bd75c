"""The command against the cold simulator: its own process, its own time."""

from __future__ import annotations

import contextlib
import json
import os
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
from tests.system.command import Gateway, Place

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


def test_a_frozen_generation_is_refused(gateway: Gateway, simulator: str, tmp_path: Path) -> None:
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
    refused = gateway.run("--json", "restore", "src", "--to", tmp_path / "cold", code=20).document["error"]
    assert refused["class"] == "NotReady"
    assert f"{plan['cold_packs']} packs of the {plan['packs']}" in refused["what"]
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
