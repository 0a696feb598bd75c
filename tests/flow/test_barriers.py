"""What who asked for a barrier is told: a generation, what is held back, or what failed; never just nothing."""

from __future__ import annotations

import shutil
from datetime import timedelta

from gateway.daemon import Daemon
from gateway.log import silent
from gateway.store.wrap import RetryingStore
from tests.flow.gateways import ENVIRONMENT, Gateway
from tests.flow.test_beside import call


def test_a_barrier_for_all_sources_tells_of_one_that_failed(gateway: Gateway) -> None:
    gateway.change(settle=timedelta(0), generation_interval=timedelta(0))
    gateway.source.write("a", b"1")
    other = gateway.add_source("other")
    shutil.rmtree(other.root)
    daemon = Daemon(
        gateway.config, log=silent(gateway.clock), clock=gateway.clock, environment=ENVIRONMENT,
        store=RetryingStore(gateway.store, gateway.clock),
    )  # fmt: skip
    daemon.start()
    try:
        thread, answers = call(daemon, "barrier")
        thread.join(30)
    finally:
        daemon.finish()
    well, failed = answers[0].sources
    assert well.failure is None
    assert failed.generation is None
    assert failed.failure.kind == "SourceError"
