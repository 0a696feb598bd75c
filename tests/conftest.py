"""Fixtures of all suites. What a folder may talk to is said in its own conftest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.servers.loopfs import LoopFS, NotMounted
from tests.servers.postgresql import PostgreSQL
from tests.servers.require import cannot, require_server
from tests.servers.samba import Samba
from tests.servers.seaweedfs import SeaweedFS

# `ci`: the same examples every time, so that a red run is red again. `soak`: new ones, many more
# (pytest --hypothesis-profile=soak); what it finds becomes a fixed case.
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile(
    "soak",
    deadline=None,
    max_examples=5_000,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _markers_require_their_servers(request: pytest.FixtureRequest) -> None:
    """A test marked needs_X runs only where X is, and fails where it must be."""
    for name in ("seaweedfs", "postgresql", "samba", "loopfs"):
        if request.node.get_closest_marker(f"needs_{name}"):
            require_server(name)


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """One server for the whole run. A test makes its own bucket; one that kills, its own server."""
    require_server("seaweedfs")
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """One server for the whole run; tests that change or stop it make their own."""
    require_server("postgresql")
    with PostgreSQL() as server:
        yield server


@pytest.fixture
def samba(tmp_path: Path) -> Iterator[Samba]:
    """A server of the test's own, its share on a new directory `spool` of the test's."""
    require_server("samba")
    spool = tmp_path / "spool"
    spool.mkdir()
    with Samba(spool) as server:
        yield server


@pytest.fixture
def loopfs(tmp_path: Path) -> Iterator[Callable[[int], LoopFS]]:
    """Makes mounted ext4 file systems of so many bytes; they are unmounted after the test."""
    require_server("loopfs")
    with ExitStack() as stack:

        def make(size_bytes: int) -> LoopFS:
            number = len(list(tmp_path.glob("volume-*.image")))
            try:
                return stack.enter_context(LoopFS(tmp_path / f"volume-{number}", size_bytes=size_bytes))
            except NotMounted as error:
                cannot(f"mount an image: {error}")

        yield make
