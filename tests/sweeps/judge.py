"""What must hold at every moment of a schedule, and what must be left at its end. From the store alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.clock import SystemClock
from gateway.errors import IntegrityError
from gateway.format import names
from gateway.model.ids import generation_text, in_ranges
from gateway.repository.chain import Chain, NeverBorn, finished, open_chain
from gateway.repository.repository import Repository, Secrets, chain_names, open_repository
from gateway.store.passing import PassingStore
from gateway.store.port import ObjectStore
from tests.crash.machine import PASSPHRASE

Problems = list[str]


class _Remembering(PassingStore):
    """Entries, headers and wraps never change: each is asked for once."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._known: dict[str, bytes] = {}

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        if start or length is not None or not key.startswith((names.CHAINS, "keys/")):
            return super().get(key, start=start, length=length)
        if key not in self._known:
            self._known[key] = super().get(key)
        return self._known[key]


@dataclass(slots=True)
class Judge:
    """`promised`: generations that an engine reported as protected; `expired`: those an entry has ever let go."""

    store: ObjectStore
    promised: set[str] = field(default_factory=set)
    expired: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    looks: int = 0
    _repository: Repository = field(init=False)

    def __post_init__(self) -> None:
        self.store = _Remembering(self.store)
        self._repository = open_repository(self.store, SystemClock(), Secrets(passphrase=PASSPHRASE))

    def _chains(self, problems: Problems) -> list[Chain]:
        found = []
        for name in chain_names(self.store):
            try:
                chain = open_chain(self._repository, name, None)
            except NeverBorn:
                continue
            except IntegrityError as error:
                if not finished(self._repository, name):
                    problems.append(f"chain {name} cannot be opened: {error}")
                continue
            if chain.problem:
                problems.append(f"chain {name}: {chain.problem}")
            if not chain.ended:
                found.append(chain)
        return found

    def look(self) -> Problems:
        """No generation that is kept misses a pack or an index, and none that was promised is gone."""
        self.looks += 1
        problems: Problems = []
        sizes = {facts.key: facts.size for facts in self.store.list_objects("")}
        standing: set[str] = set()
        for chain in self._chains(problems):
            for generation, state in chain.fold.generations.items():
                text = generation_text(generation)
                self.known.add(text)
                if state.expired:
                    self.expired.add(text)
                    continue
                standing.add(text)
                label = f"{state.commit.source}@{state.commit.number} of {chain.name}"
                for number in in_ranges(state.commit.needs):
                    problems += self._pack(chain, number, label, sizes)
        gone = self.promised - standing - self.expired
        return problems + [f"generation {each} was reported as protected, and is in no log" for each in sorted(gone)]

    def _pack(self, chain: Chain, number: int, label: str, sizes: dict[str, int]) -> Problems:
        pack = chain.fold.packs.get(number)
        if pack is None:
            return [f"{label} needs pack {number:08x}, which no entry declares"]
        one = pack.declaration
        found = []
        if pack.condemned:
            found.append(f"{label} needs pack {number:08x}, which is condemned")
        if sizes.get(names.pack(one.storage, chain.name, number, one.pack_id)) != one.size:
            found.append(f"{label} needs pack {number:08x}, which is not there")
        if sizes.get(names.index(chain.name, number, one.pack_id)) != one.index_size:
            found.append(f"{label} needs pack {number:08x}, whose index is not there")
        return found

    def left(self) -> Problems:
        """At the end: objects that nothing that is kept needs, and uploads that nobody goes on with."""
        problems: Problems = []
        wanted: set[str] = set()
        chains = self._chains(problems)
        for chain in chains:
            todo = {
                number
                for state in chain.fold.generations.values()
                if not state.expired
                for number in in_ranges(state.commit.needs)
            }
            needed: set[int] = set()
            while todo:
                number = todo.pop()
                needed.add(number)
                todo |= set(in_ranges(chain.fold.packs[number].declaration.bases)) - needed
            for number in needed:
                one = chain.fold.packs[number].declaration
                wanted.add(names.pack(one.storage, chain.name, number, one.pack_id))
                wanted.add(names.index(chain.name, number, one.pack_id))
        open_ones = {chain.name for chain in chains}
        for facts in self.store.list_objects(""):
            parsed = names.parse_chain(facts.key)
            if names.parse_pack(facts.key) is not None or (parsed and names.parse_index(parsed[1]) is not None):
                if facts.key not in wanted:
                    problems.append(f"{facts.key} stays for ever")
            elif parsed is not None and parsed[0] not in open_ones and parsed[1] not in ("header", "end"):
                problems.append(f"{facts.key} is left of a chain that has ended")
        problems += [f"an upload of {each.key} stays for ever" for each in self.store.list_uploads("")]
        return problems
