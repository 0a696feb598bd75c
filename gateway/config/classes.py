"""Classes: where the data packs of a source go, and when. The law they all obey stands in `contradictions`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

STANDARD = "STANDARD"
MINIMUM_DAYS = {STANDARD: 0, "STANDARD_IA": 30, "GLACIER_IR": 90, "GLACIER": 90, "DEEP_ARCHIVE": 180}
"""S3's storage classes that a step may name, in the order in which a lifecycle rule may go through them, and for how
many days each is billed at least (S3 User Guide, "Understanding and managing Amazon S3 storage classes").
"""
COLD = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Of them nothing is read before it was thawed."""
REFUSED = {
    "INTELLIGENT_TIERING": "moves objects by their use, so nobody can promise when they are readable",
    "ONEZONE_IA": "keeps everything in one zone only",
    "REDUCED_REDUNDANCY": "is made for data that may get lost",
}
DAYS_BEFORE_IA = 30
"""LIMIT: days an object must have spent in STANDARD before a rule may move it to STANDARD_IA (S3 User Guide,
"Transitioning objects using Amazon S3 Lifecycle").
"""
INGEST_DAYS = 7
"""What `hot_days` and `chain_days` together leave of the days to the first cold step: the time that uploads take, since
S3 counts an object's age from the moment its upload began.
"""
MOST_DAYS = 36_500
MOST_STEPS = len(MINIMUM_DAYS)
META = "meta"
"""The class of file lists: always STANDARD, in no source's hands."""

Steps = tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassConfig:
    """`steps`: (days after the upload began, storage class); day 0 is what a pack is put into, the others are carried
    out by the bucket's lifecycle rules.

    `hot_days`: every generation that is younger restores without a thaw. `chain_days`: after so many days a chain takes
    no more generations; 0: no limit.
    """

    name: str
    steps: Steps
    hot_days: int = 0
    chain_days: int = 0

    def __post_init__(self) -> None:
        for key, text in contradictions(self.steps, self.hot_days, self.chain_days):
            raise ValueError(f"{key} {text}")

    @property
    def cold_after(self) -> int | None:
        """After how many days a pack is cold; None: never."""
        return cold_after(self.steps)

    @property
    def flat(self) -> tuple[int | str, ...]:
        """The steps as a chain's header has them."""
        return tuple(each for step in self.steps for each in step)


def cold_after(steps: Steps) -> int | None:
    return next((days for days, storage in steps if storage in COLD), None)


def contradictions(steps: Steps, hot_days: int, chain_days: int) -> list[tuple[str, str]]:
    """What is wrong in a class, as (key, text).

    The law: what is younger than `hot_days` is readable at once, also in the oldest pack of its chain. So a chain that
    takes generations for `chain_days`, each of which has to stay readable for `hot_days`, fits before the first cold
    step with `INGEST_DAYS` to spare.
    """
    found = _order(steps)
    if found:
        return found
    cold = cold_after(steps)
    if cold is None:
        if hot_days:
            found.append(("hot_days", "is for a class with a cold step; without one every generation is hot"))
    elif cold == 0:
        found.append(("steps", f"must not begin with {steps[0][1]}: deltas and checks read a pack before it is cold"))
    elif not chain_days:
        found.append(("chain_days", f"must be given: packs are cold after {cold} days, and a chain has to end before"))
    elif hot_days + chain_days + INGEST_DAYS > cold:
        together = hot_days + chain_days + INGEST_DAYS
        text = (
            f"plus hot_days plus {INGEST_DAYS} for uploads is {together}, and packs are cold after {cold} days: young "
            "generations would need a thaw"
        )
        found.append(("chain_days", text))
    return found


def _order(steps: Steps) -> list[tuple[str, str]]:
    if not steps:
        return [("steps", "must have one step at least")]
    if steps[0][0] != 0:
        return [("steps", "must begin with day 0, the storage class into which packs are put")]
    names = list(MINIMUM_DAYS)
    found: list[tuple[str, str]] = []
    for (earlier, left), (later, entered) in pairwise(steps):
        if names.index(entered) <= names.index(left):
            found.append(("steps", f"cannot go from {left} to {entered}; a rule goes down only: {', '.join(names)}"))
        elif later <= earlier:
            found.append(("steps", f"must name later days from step to step: {later} follows {earlier}"))
        elif later - earlier < MINIMUM_DAYS[left]:
            billed = MINIMUM_DAYS[left]
            text = f"must not leave {left} before day {earlier + billed}: it is billed for {billed} days anyway"
            found.append(("steps", text))
        elif entered == "STANDARD_IA" and later < DAYS_BEFORE_IA:
            found.append(("steps", f"must not reach STANDARD_IA before day {DAYS_BEFORE_IA}; S3 refuses such a rule"))
    return found


INSTANT = ClassConfig(name="instant", steps=((0, "GLACIER_IR"),))
HOT = ClassConfig(name="hot", steps=((0, STANDARD),))
DEEP = ClassConfig(name="deep", steps=((0, "GLACIER_IR"), (97, "DEEP_ARCHIVE")), hot_days=30, chain_days=60)
BUILT_IN = (INSTANT, HOT, DEEP)
RESERVED = (META, *(each.name for each in BUILT_IN))
