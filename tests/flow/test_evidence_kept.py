"""Evidence that a source wants holds for every generation, and what an operator took stays taken."""

from __future__ import annotations

import gzip
import os
import random
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.api import Reference
from gateway.clock import milliseconds
from gateway.model.entry import Evidence, LeftOutReason
from gateway.spool.completeness import Completeness, OpenElsewhere
from gateway.spool.pin import pin
from gateway.spool.producers.files import FilesProducer
from gateway.spool.walk import walk
from tests.flow.gateways import Gateway
from tests.flow.hand_turned import HandTurned

WHOLE = gzip.compress(random.Random(1).randbytes(30_000))


def evidence(gateway: Gateway) -> dict[bytes, int | None]:
    return {each.path: each.evidence for each in gateway.engine.list_files(Reference.parse("src"), b"")}


def test_a_higher_minimum_holds_for_what_was_taken_before(gateway: Gateway) -> None:
    gateway.source.write("opaque", b"half of a file")
    gateway.source.write("d/whole.gz", WHOLE)
    gateway.made()
    gateway.change(minimum_evidence=2)
    gateway.source.write("more.gz", WHOLE + WHOLE)
    made = gateway.made()
    assert made.evidence == Evidence.STRUCTURE
    assert gateway.list() == [b"d", b"d/whole.gz", b"more.gz"]
    assert made.left_out == 1
    assert gateway.list("src@1") == [b"d", b"d/whole.gz", b"opaque"]


def test_what_an_operator_took_stays_as_long_as_it_is_what_it_was(gateway: Gateway) -> None:
    gateway.change(minimum_evidence=2)
    gateway.source.write("opaque", b"half of a file")
    gateway.source.write("torn.gz", WHOLE[:15_000])
    gateway.made(seal_now=True, operator="anna")
    for number in range(3):
        gateway.clock.advance(timedelta(days=20))
        forgotten = milliseconds(gateway.clock.now() - timedelta(days=30))
        gateway.engine.hold().catalog.forget_marks("src", forgotten)
        gateway.source.write("whole.gz", WHOLE * (number + 1))
        gateway.made()
        assert evidence(gateway) == {b"opaque": 1, b"torn.gz": 1, b"whole.gz": 2}
    gateway.source.write("opaque", b"another half")
    gateway.source.write("torn.gz", WHOLE[:10_000])
    gateway.source.write("more.gz", WHOLE)
    gateway.made()
    assert evidence(gateway) == {b"more.gz": 2, b"whole.gz": 2}


@pytest.mark.parametrize("how", ["renamed", "marker"])
def test_a_torn_file_is_held_back_whatever_its_producer_says(gateway: Gateway, how: str) -> None:
    by_hand = HandTurned.of(gateway, marker="{name}.done")
    gateway.source.write("whole.gz", WHOLE)
    by_hand.turn(0, 6)
    if how == "marker":
        gateway.source.write("d.gz", WHOLE[:15_000])
        gateway.source.write("d.gz.done", b"")
        by_hand.keeper.watch.hint(b"d.gz")
    else:
        gateway.source.write("d.gz.tmp", WHOLE[:15_000])
        by_hand.turn(0)
        os.rename(gateway.source.path("d.gz.tmp"), gateway.source.path("d.gz"))
        by_hand.keeper.watch.renamed(b"d.gz.tmp", b"d.gz")
    by_hand.turn(1, 6, 6)
    assert gateway.list() == [b"whole.gz"]
    held = by_hand.keeper.watch.pending[b"d.gz"].held
    assert held is not None
    assert held.reason is LeftOutReason.TORN


def test_a_marker_vouches_for_nobody_who_still_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel can be asked for writers, and where not even that."""
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "a.done").write_bytes(b"")
    entry = next(each for each in walk(tmp_path) if each.path == b"a")
    judge = Completeness(tmp_path, "{name}.done", 1, lambda _: None, [FilesProducer()])
    with pin(tmp_path, entry) as pinned:  # type: ignore[arg-type]
        pinned.no_writer = True
        assert judge.evidence(pinned) == Evidence.MARKER
        pinned.no_writer = False
        assert judge.evidence(pinned) == Evidence.QUIET
        pinned.no_writer = True
        (tmp_path / "a.done").unlink()
        (tmp_path / "a.done").mkdir()
        assert judge.evidence(pinned) == Evidence.QUIET  # a marker is a plain file
        pinned.no_writer = False
        monkeypatch.setattr("gateway.spool.completeness.writer_of", lambda _: "rman (pid 7)")
        with pytest.raises(OpenElsewhere, match="rman"):
            judge.evidence(pinned)
