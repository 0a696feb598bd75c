"""What a commit plans to retire, and the run after it carries out (docs/design/reduction.md).

The plan is LOCAL: a lost one costs a day, since the next commit plans anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.errors import IntegrityError
from gateway.jobs.context import Context
from gateway.policy.density import Retirement, budget
from gateway.repository.chain import Chain
from gateway.repository.fold import GenerationState, as_full
from gateway.repository.indexes import PackIndexes
from gateway.repository.retired import NOTHING, Retired, retired_chunks

KEY = "retire/"
"""With a chain behind it: under this the catalog keeps the plan."""


class _Plan(msgspec.Struct, frozen=True):
    """`generation`: the one whose commit made it."""

    generation: str
    packs: list[int]


def plan(context: Context, chain: Chain, generation: bytes, retire: Sequence[Retirement]) -> None:
    """Keep what the generation after this one is to retire."""
    made = _Plan(generation.hex(), [each.pack for each in retire])
    context.catalog.set_meta(KEY + str(chain.name), msgspec.json.encode(made).decode() if retire else None)
    for each in retire:
        context.log.info("pack.retiring", chain=str(chain.name), pack=each.pack, reason=each.reason)


def planned(context: Context, chain: Chain, before: GenerationState | None, indexes: PackIndexes) -> Retired:
    """What the run after the generation `before` does not refer to. Nothing where there is no plan for it."""
    text = context.catalog.meta(KEY + str(chain.name))
    if before is None or not text:
        return NOTHING
    try:
        found = msgspec.json.decode(text, type=_Plan)
        if found.generation != before.commit.generation.hex():
            return NOTHING
        full = as_full(chain.fold, before.commit.statistics.data_bytes)
        return retired_chunks(found.packs, budget(full), chain.fold, indexes)
    except (msgspec.MsgspecError, IntegrityError) as error:
        context.log.warning("retire.failed", chain=str(chain.name), problem=str(error))
        return NOTHING
