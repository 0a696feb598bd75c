"""The list of crash points is complete: a new durable effect cannot come without being killed at."""

from __future__ import annotations

import pytest

from tests.crash import points
from tests.crash.cases import STEPS, Prepared


@pytest.mark.parametrize("step", STEPS)
def test_the_effects_of_a_step_are_those_listed(prepared: Prepared, step: str) -> None:
    """What `points.txt` has for a step is met there, or a kill at it would prove nothing. What is met and is not listed
    for this step (threads meet in one order or another) is listed for another one.
    """
    met, listed = set(prepared.occurrences(step)), points.listed()
    assert not {name for name, where in listed.items() if step in where.split()} - met
    assert not met - {name for name, where in listed.items() if set(where.split()) & STEPS.keys()}


def test_the_effects_in_the_code_are_those_listed() -> None:
    assert points.in_the_code() == set(points.listed())


def test_what_is_not_killed_at_here_is_elsewhere() -> None:
    for name, where in points.listed().items():
        if not set(where.split()) <= set(STEPS):
            text = (points.ROOT / where).read_text()
            assert "SIGKILL" in text or "os._exit" in text, f"{where} kills nothing at {name}"


def test_a_chain_of_effects_is_what_the_pages_say(prepared: Prepared) -> None:
    """The order that everything rests on: packs and their indexes are there before the entry, and the entry before
    the catalog says so (docs/design/chain.md, pipeline.md).
    """
    for step in ("first-parts", "second-parts", "first", "second"):
        done = [name for moment, name in prepared.traces[step] if moment == "after"]
        commit = done.index("store:commit")
        assert not {"store:pack", "store:file", "store:complete", "store:index"} & set(done[commit:])
        assert done.count("store:index") == done.count("pack:rename")
        assert done.index("entry-pending:rename") < commit < done.index("entry:rename", done.index("store:commit"))
        assert "catalog:replace-chain" in done[commit:]
        assert done[0] != "store:commit"


def test_a_checkpoint_is_part_of_what_is_killed(prepared: Prepared) -> None:
    for step in ("first-parts", "second-parts", "first", "second"):
        assert prepared.occurrences(step)["store:checkpoint"] >= 1, step
        assert prepared.occurrences(step)["store:commit"] == 1
