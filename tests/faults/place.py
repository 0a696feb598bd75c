"""A store in our memory as the repository of another process, to be slowed down and refused on command.

::

    with running_proxy() as proxy:
        gateway = Gateway(home, in_memory(proxy), {"src": spool})    # tests.system.command
        gateway.init()
        with gateway.start("ingest") as running:
            proxy.throttle(200_000)                  # the line takes 200 kB a second, of all uploads together
            proxy.arm("part:*=slow-down")            # and answers every part with 503 SlowDown
            proxy.arm("*:*=access-denied")           # or everything with 403
            proxy.hang_up(); proxy.listen_again()    # or is not there
            proxy.heal(); proxy.throttle(None)       # all is well again

`proxy.seen.requests` counts by operation, `proxy.body_bytes` what was sent. Every fault is in `tests.faults.kinds`.
What the store holds lies in this process: large data belongs before a real server, which can be killed and started
again (`tests.servers.seaweedfs`).
"""

from __future__ import annotations

from gateway.clock import SystemClock
from gateway.store.memory import MemoryStore
from tests.faults.proxy import Proxy
from tests.faults.truth import BUCKET, S3
from tests.system.command import Place


def in_memory(proxy: Proxy) -> Place:
    """An empty bucket behind this proxy. The truthful server asks nobody who he is."""
    proxy.serve(S3(MemoryStore(SystemClock())))
    return Place(
        url=f"s3://{BUCKET}",
        lines=(f'endpoint_url = "{proxy.url}"', 'region = "us-east-1"', 'addressing_style = "path"'),
        environment={"AWS_ACCESS_KEY_ID": "test-access-key", "AWS_SECRET_ACCESS_KEY": "test-secret-key"},
    )
