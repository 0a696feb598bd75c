"""When a new chain opens. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

DAY_MS = 24 * 3600 * 1000
COLD = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""S3's storage classes of which nothing is read before it was thawed."""
JITTER = 0.2
"""Of `chain_days`: so much earlier, at most, a chain ends, that not all sources send their fulls in one night."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewestChain:
    """What is known of a source's newest chain. Times in ms.

    `problem`: why it takes no more entries, empty when it does. `steps`, `hot_days`, `chain_days`: as its header fixes
    them. `oldest`: when the upload of the oldest data pack it may refer to began, 0 when there is none; `longest`: what
    the longest of its ingests took.
    """

    storage: str
    problem: str = ""
    created: int = 0
    steps: tuple[int | str, ...] = ()
    hot_days: int = 0
    chain_days: int = 0
    oldest: int = 0
    longest: int = 0


def reason_to_roll(
    newest: NewestChain | None, storage: str, *, source: str = "", now: int = 0, requested: bool = False
) -> str:
    """Why the next generation of a source whose class is `storage` needs a new chain; empty when it needs none."""
    if newest is None:
        return "it is the source's first"
    if newest.problem:
        return f"the chain before takes no more entries: {newest.problem}"
    if newest.storage != storage:
        return f"the class changed from {newest.storage} to {storage}"
    if requested:
        return "it was asked for"
    days = lifetime(newest.chain_days, source)
    if days and now - newest.created >= days * DAY_MS:
        return f"the chain before is {days:.0f} days old, of {newest.chain_days} that its class allows"
    cold_after = transition(newest.steps)
    if cold_after is not None and newest.oldest:
        left = newest.oldest + cold_after * DAY_MS - now
        if left < newest.hot_days * DAY_MS + 2 * newest.longest:
            return (
                f"packs of the chain before get cold in {max(0, left) // DAY_MS} days, and a generation has to be "
                f"readable at once for {newest.hot_days}"
            )
    return ""


def transition(steps: tuple[int | str, ...]) -> int | None:
    """After how many days an object of a class is cold; None: never."""
    return next(
        (int(days) for days, name in zip(steps[::2], steps[1::2], strict=True) if name in COLD),
        None,
    )


def lifetime(chain_days: int, source: str) -> float:
    """The days after which a source's chains end: `chain_days`, less what its name takes off; 0: they do not."""
    part = int.from_bytes(blake2b(source.encode(), digest_size=4).digest()) / 2**32
    return chain_days * (1 - JITTER * part)
