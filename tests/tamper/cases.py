"""Every way to tamper with a repository, as values: which objects change, and how. Pure.

A case replaces, deletes or adds whole objects of a subject; `Case.apply` gives the repository as the tamperer leaves
it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.format import names
from tests.tamper.subjects import Objects, Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`changes`: key -> its new bytes, None = deleted. `kind` groups cases in the table of what cannot be noticed."""

    kind: str
    what: str
    changes: dict[str, bytes | None] = field(repr=False)

    def apply(self, objects: Objects) -> Objects:
        merged = {**objects, **self.changes}
        return {key: data for key, data in merged.items() if data is not None}


def flips(key: str, data: bytes, bits: Iterator[int]) -> Iterator[Case]:
    """`bits`: numbers of bits, 0 = the lowest one of the first byte."""
    for bit in bits:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield Case(kind="flip", what=f"{key} bit {bit}", changes={key: bytes(changed)})


def one_bit_of_two_bytes(data: bytes, chance: random.Random) -> Iterator[int]:
    """One of each 16 bits, 6 % of them, so that each field of three bytes or more has one."""
    bits = 8 * len(data)
    return (chance.randrange(at, min(at + 16, bits)) for at in range(0, bits, 16))


def sort_of(key: str) -> str:
    """What kind of object a key names: keys of one sort may be exchanged."""
    first, _, rest = key.partition("/")
    if first == "keys":
        return "header" if rest.endswith("-header") else "wrap"
    if first == "chains" and rest.count("/") >= 2:
        _, _, inside = rest.split("/", maxsplit=2)
        return {"wraps": "wrap", "log": "entry", "index": "index"}.get(inside.partition("/")[0], inside)
    return {"packs": "pack", "slots": "slot"}.get(first, key)


def deleted(subject: Subject) -> Iterator[Case]:
    for key in subject.objects:
        yield Case(kind="delete", what=key, changes={key: None})


def resized(subject: Subject) -> Iterator[Case]:
    for key, data in subject.objects.items():
        for what, changed in {
            "to nothing": b"", "to half": data[: len(data) // 2], "by a byte": data[:-1], "by 32 bytes": data[:-32],
        }.items():  # fmt: skip
            yield Case(kind="truncate", what=f"{key} {what}", changes={key: changed})
        for what, changed in {"by a zero": data + b"\0", "by itself": data + data, "in front": b"\n" + data}.items():
            yield Case(kind="extend", what=f"{key} {what}", changes={key: changed})


def exchanged(subject: Subject) -> Iterator[Case]:
    """Two objects of a sort that differ swap places; one of another repository, or of another sort, comes instead."""
    keys = sorted(subject.objects)
    for at, one in enumerate(keys):
        for other in keys[at + 1 :]:
            if sort_of(one) == sort_of(other) and subject.objects[one] != subject.objects[other]:
                changes: dict[str, bytes | None] = {one: subject.objects[other], other: subject.objects[one]}
                yield Case(kind="swap", what=f"{one} with {other}", changes=changes)
                yield Case(kind="copy", what=f"{one} over {other}", changes={other: subject.objects[one]})
    foreign: dict[str, list[str]] = {}
    for key in sorted(subject.foreign):
        foreign.setdefault(sort_of(key), []).append(key)
    for key in keys:
        for other in foreign.get(sort_of(key), [])[:2]:
            yield Case(kind="foreign", what=f"{other} of another repository as {key}",
                       changes={key: subject.foreign[other]})  # fmt: skip
    for sort in ("pack", "entry", "index"):
        one = next(key for key in keys if sort_of(key) == sort)
        for other in (next(k for k in keys if sort_of(k) == s) for s in ("pack", "entry", "wrap", "slot", "header")):
            if sort_of(other) != sort:
                yield Case(kind="sort", what=f"{one} as {other}", changes={other: subject.objects[one]})


def replayed(subject: Subject) -> Iterator[Case]:
    """An older state of the whole repository, of its logs alone, or of its packs alone."""
    for at, moment in enumerate(subject.moments):
        gone = {key for key in subject.objects if key not in moment}
        for what, sorts in {
            "everything": None, "logs": {"entry"}, "packs": {"pack"}, "indexes": {"index"}, "logs and indexes":
            {"entry", "index"}, "packs and indexes": {"pack", "index"},
        }.items():  # fmt: skip
            chosen = {key for key in gone if sorts is None or sort_of(key) in sorts}
            if chosen and moment:
                yield Case(kind="replay", what=f"{what} of moment {at}", changes=dict.fromkeys(chosen))


def logs_cut(subject: Subject) -> Iterator[Case]:
    logs: dict[str, list[str]] = {}
    for key in sorted(subject.objects):
        if sort_of(key) == "entry":
            logs.setdefault(key.rpartition("/")[0], []).append(key)
    for prefix, keys in logs.items():
        for at in range(len(keys)):
            yield Case(kind="cut", what=f"{prefix} from entry {at + 1} on", changes=dict.fromkeys(keys[at:]))
            yield Case(kind="behead", what=f"{prefix} up to entry {at + 1}", changes=dict.fromkeys(keys[: at + 1]))
        turned: dict[str, bytes | None] = {a: subject.objects[b] for a, b in zip(keys, keys[::-1], strict=True)}
        if len(keys) > 1:
            yield Case(
                kind="reorder", what=prefix, changes={k: v for k, v in turned.items() if v != subject.objects[k]}
            )
            moved: dict[str, bytes | None] = {a: subject.objects[b] for a, b in itertools.pairwise(keys)}
            yield Case(kind="close up", what=prefix, changes={**moved, keys[-1]: None})
    chains = sorted({key.rpartition("/log/")[0] + "/" for key in subject.objects if "/log/" in key})
    for chain in chains:
        group, number = chain.split("/")[1:3]
        mine = [k for k in subject.objects if k.startswith((chain, f"keys/{group}-{number}-"))]
        packs = [k for k in subject.objects if k.startswith("packs/") and f"/{group}/{number}/" in k]
        yield Case(kind="chain", what=chain, changes=dict.fromkeys(mine))
        yield Case(kind="chain", what=f"{chain} and its packs", changes=dict.fromkeys(mine + packs))
        headers = [k for k in mine if sort_of(k) == "header"]
        yield Case(kind="both headers", what=chain, changes=dict.fromkeys(headers))
        yield Case(kind="both wraps", what=chain, changes=dict.fromkeys(k for k in mine if sort_of(k) == "wrap"))


JUNK = b"this is not an object of the format\n"


def added(subject: Subject, chance: random.Random) -> Iterator[Case]:
    """Foreign objects: under names of the format, next to them, and under names that are no text."""
    some = chance.randbytes(16).hex()
    chain = next(key for key in sorted(subject.objects) if key.endswith("/header")).removesuffix("header")
    group, number = chain.split("/")[1:3]
    pack = next(key for key in sorted(subject.objects) if sort_of(key) == "pack")
    folder, _, name = pack.rpartition("/")
    index = f"{chain}index/{name}"
    entries = sum(key.startswith(f"{chain}log/") for key in subject.objects)
    new = {
        f"{folder}/{name[:8]}-{some}": subject.objects[pack],
        f"{folder}/{name[:8]}-{some[::-1]}": JUNK,
        f"{folder}/fffffff0-{some}": JUNK,
        f"{folder}/ffffffff-{some}": JUNK,
        f"{folder}/{name}x": JUNK,
        f"packs/strange/{group}/{number}/{name}": subject.objects[pack],
        f"packs/strange/{group}/{number}/00000077-{some}": JUNK,
        f"packs/meta/{group}/{number}/{name[:8]}-{some}": JUNK,
        f"packs/hot/{group}/999999/00000001-{some}": JUNK,
        "packs/x": JUNK,
        f"{chain}index/{name[:8]}-{some}": subject.objects[index],
        f"{chain}index/00000077-{some}": JUNK,
        f"{chain}index/nothing": JUNK,
        f"{chain}log/{entries + 1:08d}": subject.objects[f"{chain}log/{entries:08d}"],
        f"{chain}log/{entries + 2:08d}": JUNK,
        f"{chain}log/99999999": JUNK,
        f"{chain}log/00000000": JUNK,
        f"{chain}log/1": JUNK,
        f"{chain}wraps/{some}": JUNK,
        f"{chain}wraps/nothing": JUNK,
        f"{chain}end": JUNK,
        f"{chain}strange": JUNK,
        f"keys/{group}-{number}-{some}": JUNK,
        f"keys/{group}-{number}-nothing": JUNK,
        "keys/x": JUNK,
        f"slots/{some}.json": JUNK,
        f"slots/{some}": JUNK,
        "slots/nothing.json": JUNK,
        f"chains/{group}/999999/header": subject.objects[f"{chain}header"],
        f"chains/{group}/999999/log/00000001": subject.objects[f"{chain}log/00000001"],
        f"chains/{group}/4294967295/strange": JUNK,
        f"chains/{group}/9999999999/strange": JUNK,
        "chains/another/000001/header": JUNK,
        "chains/another/000001/log/00000001": JUNK,
        "chains/UPPER/000001/header": JUNK,
        "chains/x": JUNK,
        "jobs/x": JUNK,
        "strange": JUNK,
        "\N{SNOWMAN}/\N{SNOWMAN}": JUNK,
    }
    for key, data in new.items():
        assert key not in subject.objects, key
        yield Case(kind="add", what=key, changes={key: data})
    yield Case(kind="add all", what="every foreign object at once", changes={
        key: data for key, data in new.items() if not key.startswith(f"{chain}log/") and key != f"{chain}end"
    })  # fmt: skip
    for key in sorted(subject.foreign):
        if key not in subject.objects:
            yield Case(kind="add", what=f"{key} of another repository", changes={key: subject.foreign[key]})


def structural(subject: Subject, chance: random.Random) -> Iterator[Case]:
    """All but flips."""
    yield from deleted(subject)
    yield from resized(subject)
    yield from exchanged(subject)
    yield from replayed(subject)
    yield from logs_cut(subject)
    yield from added(subject, chance)


def chain_of(key: str) -> str:
    """``group/number`` of the chain an object belongs to; empty when it is of none."""
    chain = names.chain_of(key)
    return f"{chain.group}/{chain.number:06d}" if chain else ""
