"""Folding a chain's log into what it means (docs/format/log.md section 3). Pure.

The catalog's derived tables and everything the writer and the reader know of a chain come from here, so that a
rebuild and a running gateway can only agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.format import log, names
from gateway.format.log import Commit, Declaration, Entry, Hold
from gateway.model.ids import in_ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An entry as it lies in the store. `digest` is the SHA-256 of the object."""

    sequence: int
    digest: bytes
    size: int
    entry: Entry


@dataclass(slots=True)
class PackState:
    declaration: Declaration
    declared_by: int
    condemned: bool = False
    damaged: str = ""

    @property
    def adopted(self) -> bool:
        """No entry that is left declares it: it was taken over for reading (docs/format/log.md section 2)."""
        return self.declared_by == 0

    @property
    def usable(self) -> bool:
        """Whether new generations may refer to it."""
        return not (self.condemned or self.damaged or self.adopted)


@dataclass(slots=True)
class GenerationState:
    """The newest commit or checkpoint of a generation, and what its entries and packs take in the store.

    `birth`: bytes of the chain's own objects counted to it. `foreign`: pack numbers it declared that others own.
    """

    commit: Commit
    sequence: int
    committed: bool
    stored_bytes: int = 0
    birth: int = 0
    foreign: tuple[int, ...] = ()
    expired: bool = False


@dataclass(slots=True)
class Fold:
    """What the entries so far say. `packs` by number, `generations` by id, `holds` by hold id. `given_up`: numbers and
    ids of packs that were condemned before any entry declared them: no writer declares them any more."""

    packs: dict[int, PackState] = field(default_factory=dict)
    generations: dict[bytes, GenerationState] = field(default_factory=dict)
    holds: dict[bytes, tuple[int, Hold]] = field(default_factory=dict)
    given_up: set[tuple[int, bytes]] = field(default_factory=set)
    closed: bool = False
    unknown: int = 0

    def add(self, stored: Stored) -> None:
        payload = stored.entry.payload
        match payload:
            case None:
                self.unknown += 1
            case Commit():
                if not self.closed:
                    self._generation(payload, stored, stored.entry.kind == log.COMMIT)
            case log.Expire(generations=ids):
                for each in ids:
                    if each in self.generations:
                        self.generations[each].expired = True
            case Hold(hold=hold_id, generation=each):
                self.holds[hold_id] = (stored.sequence, payload)
                state = self.generations.get(each)
                if state is not None and not any(self._condemned(n) for n in in_ranges(state.commit.needs)):
                    state.expired = False
            case log.Unhold(hold=hold_id):
                self.holds.pop(hold_id, None)
            case log.Damaged():
                pack = self.packs.get(payload.pack)
                if pack is not None and pack.declaration.pack_id == payload.pack_id:
                    pack.damaged = "" if payload.good else payload.what or "damaged"
            case log.Condemn(packs=numbers, ids=ids):
                for number, pack_id in zip(in_ranges(numbers), ids, strict=True):
                    pack = self.packs.get(number)
                    if pack is not None and pack.declaration.pack_id == pack_id:
                        pack.condemned = True
                    else:
                        self.given_up.add((number, pack_id))
            case log.Close():
                self.closed = True

    def _condemned(self, number: int) -> bool:
        pack = self.packs.get(number)
        return pack is None or pack.condemned

    def _generation(self, commit: Commit, stored: Stored, committed: bool) -> None:
        added = stored.size
        foreign = []
        for declaration in commit.packs:
            owner = self.packs.get(declaration.number)
            if owner is None:
                self.packs[declaration.number] = PackState(declaration, stored.sequence)
                added += declaration.size + declaration.index_size
            elif owner.declaration.pack_id != declaration.pack_id:
                foreign.append(declaration.number)
        before = self.generations.get(commit.generation)
        if before is not None and before.committed:
            return
        birth = commit.statistics.birth
        # Packs of an abandoned run's checkpoints count for the generation that was cut after it: they are its packs.
        for each, state in list(self.generations.items()):
            if not state.committed and state.commit.source == commit.source:
                added += state.stored_bytes
                birth = max(birth, state.birth)
                if each == commit.generation:
                    foreign += state.foreign
                del self.generations[each]
        self.generations[commit.generation] = GenerationState(
            commit, stored.sequence, committed, added, birth, tuple(sorted(set(foreign)))
        )

    def is_gone(self, state: GenerationState) -> bool:
        """Whether a generation has expired for good: some pack of it is condemned."""
        return state.expired and any(self._condemned(number) for number in in_ranges(state.commit.needs))

    def undeclared(self) -> list[int]:
        """Numbers of packs that generations need and no entry declares."""
        needed = {n for state in self.generations.values() if not state.expired for n in in_ranges(state.commit.needs)}
        return sorted(needed - set(self.packs))


def as_full(fold: Fold, data_bytes: int) -> int:
    """What so many bytes would take in a chain of their own, by what the chain's data packs without deltas took."""
    packs = [state.declaration for state in fold.packs.values()]
    plain = [each for each in packs if not each.bases and each.storage != names.META]
    raw = sum(each.raw for each in plain)
    return round(data_bytes * sum(each.size for each in plain) / raw) if raw else data_bytes
