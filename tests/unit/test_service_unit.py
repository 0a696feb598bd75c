"""The unit for systemd: what it promises fits the engine, and the documents name it."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from gateway import daemon, errors
from gateway.config import StateConfig
from gateway.config.units import parse_duration

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "config" / "systemd" / "gateway.service"


def settings() -> dict[str, dict[str, list[str]]]:
    """Section -> key -> its values. Raises where a line is neither."""
    found: dict[str, dict[str, list[str]]] = {}
    keys: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if not line or line.startswith(("#", ";")):
            continue
        if heading := re.fullmatch(r"\[([A-Z][a-z]+)\]", line):
            keys = found.setdefault(heading[1], {})
            continue
        pair = re.fullmatch(r"([A-Z][A-Za-z]+)=(\S.*)", line)
        assert pair is not None, line
        keys.setdefault(pair[1], []).append(pair[2])
    return found


@pytest.fixture
def service() -> dict[str, list[str]]:
    return settings()["Service"]


def _seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|min)", text).groups()  # type: ignore[union-attr]
    return parse_duration(f"{number} {unit}").total_seconds()


def test_it_has_the_sections_of_a_service() -> None:
    assert list(settings()) == ["Unit", "Service", "Install"]


def test_it_starts_reloads_and_stops_as_the_engine_does(service: dict[str, list[str]]) -> None:
    assert service["Type"] == ["notify"]
    (start,) = service["ExecStart"]
    assert start.split()[0].startswith("/")
    assert start.split()[-1] == "serve"
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert service["Restart"] == ["on-failure"]
    assert _seconds(service["TimeoutStopSec"][0]) > daemon.STOP_SECONDS
    assert _seconds(service["WatchdogSec"][0]) > timedelta(seconds=10).total_seconds()


def test_what_a_restart_cannot_mend_is_not_restarted(service: dict[str, list[str]]) -> None:
    hopeless = (errors.UsageError, errors.NoRepository, errors.WrongKey, errors.NewerFormat)
    assert service["RestartPreventExitStatus"] == [" ".join(str(each.exit_code) for each in hopeless)]


def test_it_has_the_directories_and_the_powers_that_the_engine_needs(service: dict[str, list[str]]) -> None:
    assert StateConfig().directory == Path("/var/lib") / service["StateDirectory"][0]
    assert service["RuntimeDirectory"] == ["gateway"]
    powers = " ".join(service["CapabilityBoundingSet"]).split()
    assert {"CAP_DAC_READ_SEARCH", "CAP_LEASE"} <= set(powers)
    assert service["NoNewPrivileges"] == ["yes"]
    # With any of these a restore through the engine would write where nobody looks, or not at all.
    assert not {"PrivateTmp", "ProtectHome", "ReadOnlyPaths", "DynamicUser"} & set(service)
    assert service["ProtectSystem"] == ["full"]


def test_the_documents_name_it() -> None:
    name = UNIT.relative_to(ROOT).as_posix()
    for document in ("README.md", "docs/operate/engine.md"):
        assert name in (ROOT / document).read_text(), document
