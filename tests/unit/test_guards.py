"""The guards of the test suite itself: no network in unit tests, no skip in silence."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from tests.servers import require


@pytest.mark.parametrize(
    "use",
    [
        lambda: socket.create_connection(("127.0.0.1", 9)),
        lambda: socket.getaddrinfo("localhost", 80),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", ("127.0.0.1", 9)),
        lambda: socket.socket().bind(("127.0.0.1", 0)),
    ],
    ids=["connect", "look-up", "send", "bind"],
)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the refusal interrupts the one-liner
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_network_is_refused(use) -> None:
    with pytest.raises(BaseException, match="tests/unit must not"):
        use()


def test_unix_sockets_are_not_network(tmp_path: Path) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(tmp_path / "s"))


def test_a_server_that_ci_names_may_not_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(require.FINDERS, "seaweedfs", lambda: None)
    monkeypatch.setenv("GATEWAY_REQUIRE", "postgresql, seaweedfs")
    with pytest.raises(pytest.fail.Exception, match="must be here"):
        require.require_server("seaweedfs")
    monkeypatch.setenv("GATEWAY_REQUIRE", "postgresql")
    with pytest.raises(pytest.skip.Exception, match="not installed"):
        require.require_server("seaweedfs")


def test_a_misspelt_requirement_is_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_REQUIRE", "postgres")
    with pytest.raises(pytest.fail.Exception, match="unknown servers: postgres"):
        require.require_server("postgresql")


def test_a_server_that_is_there_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(require.FINDERS, "seaweedfs", lambda: Path("weed"))
    monkeypatch.setenv("GATEWAY_REQUIRE", "seaweedfs")
    require.require_server("seaweedfs")


def test_a_server_that_needs_root_is_not_taken_for_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(require.FINDERS, "samba", lambda: Path("smbd"))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs root"):
        require.require_server("samba")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="needs root"):
        require.require_server("samba")
