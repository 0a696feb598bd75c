"""Fixtures of all suites. What a folder may talk to is said in its own conftest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.servers.postgresql import PostgreSQL
from tests.servers.require import require_server
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
    for name in ("seaweedfs", "postgresql", "samba"):
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
