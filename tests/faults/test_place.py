"""The store on command, with the gateway as another process."""

from __future__ import annotations

import os
from pathlib import Path

from tests.faults.place import in_memory
from tests.faults.proxy import running_proxy
from tests.servers.process import until
from tests.system.command import Gateway

SIZE = 3_000_000
RATE = 1_000_000


def test_a_gateway_of_another_process_meets_what_its_store_is_told(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    with running_proxy() as proxy:
        gateway = Gateway(tmp_path / "gateway", in_memory(proxy), {"src": spool})
        gateway.init()

        (spool / "one").write_bytes(os.urandom(SIZE))
        proxy.throttle(RATE)
        before = proxy.body_bytes
        with gateway.start("--json", "ingest", "--seal-now") as running:
            until("the slow line is in use", lambda: proxy.body_bytes > before, seconds=60)
            assert running.poll() is None
            proxy.throttle(None)
            _, told = running.communicate(timeout=60)
            assert running.returncode == 0, told
        assert proxy.body_bytes - before >= SIZE

        (spool / "two").write_bytes(os.urandom(SIZE))
        proxy.arm("*:*=access-denied")
        gateway.run("ingest", "--seal-now", code=14)
        proxy.heal()
        proxy.hang_up()
        before = proxy.seen.total
        with gateway.start("ingest", "--seal-now") as running:
            until("it tries", lambda: proxy.dropped > 1, seconds=60)
            assert proxy.seen.total == before
            assert running.poll() is None
            proxy.listen_again()
            _, told = running.communicate(timeout=120)
            assert running.returncode == 0, told
        assert [row["state"] for row in gateway.json("generations")] == ["protected"] * 2
        assert not gateway.json("verify", "--depth", "data")["problems"]
