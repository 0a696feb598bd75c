"""What a commit plans to retire, and the run after it carries out (docs/design/reduction.md).

The plan is LOCAL: a lost one costs a day, since the next commit plans anew.
"""

from __future__ import annotations

import msgspec

from gateway.clock import milliseconds
from gateway.errors import IntegrityError
from gateway.format.log import Commit
from gateway.jobs.anchors import joined
from gateway.jobs.context import Context
from gateway.policy.density import budget, to_retire
from gateway.repository.chain import Chain
from gateway.repository.fold import GenerationState, as_full
from gateway.repository.indexes import PackIndexes
from gateway.repository.retired import NOTHING, Retired, retired_chunks
from gateway.repository.usage import Usage
from gateway.repository.writer import ChainWriter

KEY = "retire/"
"""With a chain behind it: under this the catalog keeps the plan."""


class _Plan(msgspec.Struct, frozen=True):
    """`generation`: the one whose commit made it."""

    generation: str
    packs: list[int]


def plan(context: Context, writer: ChainWriter, commit: Commit, usage: Usage) -> None:
    """Keep what the generation after `commit`, which was just made, is to retire. `usage`: all that it uses."""
    chain = writer.chain
    retire = to_retire(
        writer.uses(usage, joined(chain, commit.source)),
        now=milliseconds(context.clock.now()),
        full=as_full(chain.fold, commit.statistics.data_bytes),
        full_pack=context.config.writer.pack_bytes,
    )
    made = _Plan(commit.generation.hex(), [each.pack for each in retire])
    key = KEY + str(chain.name)
    if retire or context.catalog.meta(key) is not None:
        context.catalog.set_meta(key, msgspec.json.encode(made).decode() if retire else None)
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
