"""A server that CI names must be there: its absence is a failure, never a skip in silence."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from tests.servers import loopfs, postgresql, samba, seaweedfs

FINDERS = {
    "seaweedfs": seaweedfs.find_weed,
    "postgresql": postgresql.find_binaries,
    "samba": samba.find_smbd,
    "loopfs": loopfs.find_loopfs,
}


def required() -> frozenset[str]:
    """The servers named in GATEWAY_REQUIRE ("seaweedfs,postgresql")."""
    return frozenset(name.strip() for name in os.environ.get("GATEWAY_REQUIRE", "").split(",") if name.strip())


def require_server(name: str) -> None:
    """Return when server `name` can be started; else fail where GATEWAY_REQUIRE names it, skip elsewhere."""
    unknown = required() - FINDERS.keys()
    if unknown:
        pytest.fail(f"GATEWAY_REQUIRE names unknown servers: {', '.join(sorted(unknown))}", pytrace=False)
    if FINDERS[name]() is not None:
        if name == "samba" and not samba.can_run():
            cannot("run smbd: that needs root")
        return
    if name in required():
        pytest.fail(f"{name} is missing, and GATEWAY_REQUIRE says that it must be here", pytrace=False)
    pytest.skip(f"{name} is not installed, or not allowed here")


def cannot(what: str) -> NoReturn:
    """Fail in CI, where everything has to run; skip elsewhere, and say what this machine is not able to do."""
    if os.environ.get("CI"):
        pytest.fail(f"this machine cannot {what}, and CI runs every test", pytrace=False)
    pytest.skip(f"this machine cannot {what}")
