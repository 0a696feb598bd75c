"""Every fault at every operation of a job, over HTTP and at the port; `tests.faults.job` says what is proved.

Each run takes the same share of it, at least one operation for each script; `tests/faults/soak.py` takes all, with the
call that is hit drawn anew each time.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from gateway.errors import StoreAbsent
from gateway.store.wrap import RetryingStore
from tests.faults.job import POLICY, Case, Job
from tests.faults.kinds import KINDS
from tests.faults.matrix import OPERATIONS, Born, at_the_port, cases, over_http, placed, scripts, share
from tests.faults.proxy import Proxy, parse_script
from tests.faults.rigs import ProxyRig, Wires, s3_store

SEED = 1

# What the soak, or a reader, once found: these run every time.
FIXED = [
    Case(fault="race", operation="put-header"),
    Case(fault="race", operation="put-entry", first=1),
    Case(fault="race", operation="put-entry", first=2),
    Case(fault="reset-after-commit", operation="put-entry"),
    Case(fault="exists-but-ours", operation="put-header"),
    Case(fault="no-upload", operation="parts"),
    Case(fault="wrong-etag", operation="part"),
    Case(fault="list-stale", operation="list", first=20),
    Case(fault="conflict", operation="part", lasts="for-ever"),
    Case(fault="gateway-timeout-done", operation="put-repository"),
]


@pytest.mark.parametrize("case", share(cases(), SEED), ids=str)
def test_over_http(case: Case, place: Path, wires: Wires, born: Born, baseline: dict[str, Counter[str]]) -> None:
    over_http(placed(case, baseline, SEED), place, wires, born, baseline)


@pytest.mark.parametrize("case", FIXED, ids=lambda case: f"{case}-{case.first}")
def test_fixed(case: Case, place: Path, wires: Wires, born: Born, baseline: dict[str, Counter[str]]) -> None:
    over_http(case, place, wires, born, baseline)


@pytest.mark.parametrize("case", share(cases(at_the_port=True), SEED), ids=str)
def test_at_the_port(case: Case, place: Path, born: Born, baseline: dict[str, Counter[str]]) -> None:
    at_the_port(placed(case, baseline, SEED), place, born)


def test_nobody_listens_from_the_start(place: Path, wires: Wires, born: Born) -> None:
    """A store that was never there is given up soon; once it is, the same command does it."""
    rig = ProxyRig(wires, born.objects, None)
    job = Job(place, rig, born.sheet)
    job._fill()
    gone = Proxy()
    gone.server_close()
    nobody = s3_store(gone)
    began = rig.clock.monotonic()
    with pytest.raises(StoreAbsent) as caught:
        job.ingest(1)(job.open("here", RetryingStore(nobody, rig.clock, POLICY), born.sheet))
    assert caught.value.exit_code == 14
    assert caught.value.advice
    assert rig.clock.monotonic() - began < 660  # ten minutes are the job's own
    nobody.close()
    assert job.ingest(1)(job.open("here", rig.store, born.sheet)) == ""
    job.close()


def test_the_matrix_is_as_large_as_said() -> None:
    assert len(scripts()) >= 60
    assert len(cases()) >= 1000
    assert {case.operation for case in cases()} == set(OPERATIONS)
    chosen = Counter((case.fault, case.lasts) for case in share(cases(), SEED))
    whole = Counter((case.fault, case.lasts) for case in cases())
    assert all(chosen[script] >= 0.05 * count for script, count in whole.items())


def test_scripts_are_read() -> None:
    first, second = parse_script("put:2-5=slow-down,get:3+=stall")
    assert (first.operation, first.first, first.last, second.last) == ("put", 2, 5, None)
    assert first.takes("put-entry")
    assert not second.takes("range")
    for wrong in ("put=stall", "put:1=no-such-thing", "put:x=stall"):
        with pytest.raises(ValueError):
            parse_script(wrong)
    assert all(kind.operations for kind in KINDS.values())
