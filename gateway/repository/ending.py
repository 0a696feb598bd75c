"""The end of a chain (docs/format/log.md section 4): the `end` object, then packs, indexes, log, wraps, in this order.

CRASH: before `end` is there nothing has happened. From then on nobody reads the log; what is left of it and of the
packs is deleted by the next sweep, which finds the chain ended while one of its wraps is left, and finished without.
"""

from __future__ import annotations

from gateway import durable
from gateway.clock import milliseconds
from gateway.errors import Corrupt, ObjectExists
from gateway.format import log, names
from gateway.format.log import End
from gateway.repository.chain import Chain
from gateway.repository.repository import put_checked, require_absent


def may_end(chain: Chain) -> bool:
    """Whether a log says that its chain is over: closed, every pack condemned, every generation expired. A run that was
    cut off has left a checkpoint, with which nobody goes on."""
    fold = chain.fold
    if chain.problem or chain.ended or fold.unknown or not fold.closed:
        return False
    return all(each.condemned for each in fold.packs.values()) and all(
        each.expired or not each.committed for each in fold.generations.values()
    )


def put_end(chain: Chain, writer: bytes) -> None:
    """Write the object that says so. One that another gateway has just written is as good."""
    if not may_end(chain):
        raise Corrupt("is not over", address=names.chain_prefix(chain.name))
    clock, store = chain.repository.clock, chain.repository.store
    sequence, digest = chain.head
    end = End((), sequence, digest, milliseconds(clock.now()), writer)
    key = names.end(chain.name)
    with durable.effect("store:end"):
        try:
            require_absent(store, key)
            put_checked(store, key, log.encode_end(end, chain.name, chain.keys, clock.random_bytes(32)))
        except ObjectExists:
            return
