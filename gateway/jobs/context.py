"""What every job works with, and how the catalog is brought up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from gateway import durable
from gateway.api import Head, RestoreState
from gateway.catalog import Catalog, ChainState, GenerationState
from gateway.catalog import Head as Seen
from gateway.clock import Clock, milliseconds
from gateway.config.values import Config
from gateway.errors import IntegrityError
from gateway.format import names
from gateway.jobs import damage
from gateway.jobs.alarms import Alarms
from gateway.jobs.closed import ClosedChains, digests
from gateway.log import Log
from gateway.model.ids import ChainName
from gateway.repository.cache import PackCache
from gateway.repository.chain import PENDING, Chain, NeverBorn, beside_end, open_chain
from gateway.repository.derive import Listed, chain_rows
from gateway.repository.indexes import PackIndexes
from gateway.repository.reader import ChainReader
from gateway.repository.repository import Repository, chain_names
from gateway.store.port import ObjectFacts

ABANDONED = timedelta(days=7)
GOING_ON = tuple(each for each in RestoreState if not each.ended)
_ENDED = "ended/"
"""With a chain behind it: ended by this gateway, and not by somebody whose word cannot be checked."""
_HIGHEST = "highest-number/"
"""With a source behind it: under this the catalog keeps the highest number of a generation it ever saw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One opened gateway. `writable` is False for verbs that only read: then nothing local is written.

    `seen`: groups of whose logs something was known here when it was opened.
    """

    config: Config
    clock: Clock
    log: Log
    repository: Repository
    catalog: Catalog
    cache: PackCache | None
    writer: bytes
    writable: bool
    seen: frozenset[str] = frozenset()
    closed: ClosedChains = field(default_factory=ClosedChains)

    @property
    def state(self) -> Path:
        return self.config.state.directory

    @property
    def alarms(self) -> Alarms:
        return Alarms(self.catalog, self.clock, self.log)

    def check_damage(self, source: str) -> None:
        """INVARIANT: asked wherever rows of a chain become others, so that no damage is known without its alarm."""
        damage.check(self.catalog, self.alarms, source)

    def local_log(self, chain: ChainName) -> Path | None:
        return self._log_copies(chain) if self.writable else None

    def _log_copies(self, chain: ChainName) -> Path:
        return self.state / "log" / chain.group / f"{chain.number:06d}"

    def local_indexes(self, chain: ChainName) -> Path:
        return self.state / "index" / chain.group / f"{chain.number:06d}"

    @property
    def scratch(self) -> Path:
        return self.state / "scratch"

    def open_chain(self, name: ChainName) -> Chain:
        return open_chain(self.repository, name, self.local_log(name), self.seen_end(name))

    def seen_end(self, name: ChainName) -> Callable[[], None] | None:
        """What notes the end of a chain that an entry of this gateway meets."""
        return partial(self.note_ended, name) if self.writable else None

    def chunk_ids(self, chain: ChainName) -> Path:
        return self.state / "ids" / chain.group / f"{chain.number:06d}"

    def sketches(self, chain: ChainName) -> Path:
        return self.state / "sketches" / chain.group / f"{chain.number:06d}"

    def indexes(self, chain: Chain) -> PackIndexes:
        return PackIndexes(chain, self.local_indexes(chain.name), keep=self.writable)

    def reader(self, chain: Chain) -> ChainReader:
        return ChainReader(chain, self.indexes(chain), self.cache)

    def chains_of(self, group: str) -> list[ChainName]:
        """All chains of a group that the store has, ascending."""
        parsed = (names.parse_chain(each.key) for each in self._objects(group))
        return sorted({each[0] for each in parsed if each is not None})

    def _objects(self, group: str) -> Iterator[ObjectFacts]:
        return self.repository.store.list_objects(f"{names.CHAINS}{group}/")

    def groups(self) -> list[str]:
        """All groups that have a chain in the store."""
        return sorted({name.group for name in chain_names(self.repository.store)})

    def heads(self) -> list[Head]:
        """The newest entries ever seen, as the local state remembers them."""
        return [
            Head(chain=name, sequence=head.sequence, digest=head.digest.hex())
            for name, head in self.catalog.heads().items()
        ]

    def record(self, chain: Chain, listed: Listed) -> None:
        """Bring the catalog's rows of a chain up to date."""
        rows = chain_rows(chain, listed)
        self.catalog.replace_chain(rows)
        self.check_damage(chain.name.group)
        highest = max((row.number for row in rows.generations), default=0)
        if highest > int(self.catalog.meta(_HIGHEST + chain.name.group) or 0):
            self.catalog.set_meta(_HIGHEST + chain.name.group, str(highest))
        self._alarm_of_strangers(chain)
        sequence, digest = chain.head
        if chain.problem:
            return
        seen = self.catalog.head(chain.name)
        digests = {0: chain.header_digest} | {each.sequence: each.digest for each in chain.entries}
        if seen is not None and not chain.ended and digests.get(seen.sequence) != seen.digest:
            # The remembered head stays: `verify` and `rebuild` name what is missing until an operator has decided.
            self.log.error("chain.rolled_back", chain=str(chain.name), entry=seen.sequence)
            return
        if seen != Seen(sequence=sequence, digest=digest):
            self.catalog.remember_head(chain.name, sequence, digest)

    def held_by_jobs(self, source: str | None = None) -> frozenset[bytes]:
        """Generations of a source, or of all, that a job of the gateway's own reads: they and what they require neither
        expire nor are swept, expired or not, until it ends. The one place that retention, expiry by hand and sweep ask.
        Of what a command was to carry out and left, it is believed for `ABANDONED` that it may still be at it.
        """
        since = milliseconds(self.clock.now() - ABANDONED)
        return frozenset(
            row.generation
            for row in self.catalog.restores(GOING_ON)
            if source in (None, row.source) and not (row.alone and row.updated < since)
        )  # fmt: skip

    def next_number(self, source: str) -> int:
        """Of the source's next generation: behind the highest that the catalog has or ever had, so that a log that
        cannot be read for a moment never leads to one number for two generations.
        """
        return max(self.catalog.next_generation_number(source), int(self.catalog.meta(_HIGHEST + source) or 0) + 1)

    def _alarm_of_strangers(self, chain: Chain) -> None:
        """Entries behind the newest one ever seen that this state directory has not written: somebody else did.

        On an empty machine nothing was ever seen, and everything there is taken for what it was.
        """
        head = self.catalog.head(chain.name)
        foreign = [each for each in chain.strangers if head is None or each.sequence > head.sequence]
        if foreign and (head is not None or chain.name.group in self.seen):
            self.log.error(
                "chain.foreign_writer", chain=str(chain.name), entries=[each.sequence for each in foreign],
                writers=sorted({each.entry.writer.hex() for each in foreign}),
            )  # fmt: skip

    def distrust(self, name: ChainName, error: IntegrityError) -> None:
        """Nothing of a chain that cannot be opened is protected, whatever its log said when it could be."""
        rows = self.catalog.chain_rows(name)
        if rows is None:
            return
        what = f"its chain cannot be opened: {error.what}"
        generations = tuple(
            replace(row, state=GenerationState.INCOMPLETE, reasons=(what,))
            if row.state is GenerationState.PROTECTED
            else row
            for row in rows.generations
        )
        row = replace(rows.chain, state=ChainState.DAMAGED, problem=str(error))
        self.catalog.replace_chain(replace(rows, chain=row, generations=generations))
        self.check_damage(name.group)

    def note_ended(self, name: ChainName) -> None:
        """This gateway ended a chain, or has seen its end while its key was there: that its log is gone later is no
        sign of a store that was rolled back."""
        if not self.has_ended(name):
            self.catalog.set_meta(f"{_ENDED}{name}", "1")

    def has_ended(self, name: ChainName) -> bool:
        return self.catalog.meta(f"{_ENDED}{name}") is not None

    def left_of_ended(self, name: ChainName) -> frozenset[str] | None:
        """Of a chain that cannot be opened: whether it has ended, and what lies beside its end that nobody needs. None:
        it has not, or nobody can tell, which is damage.

        A writer that had not seen the end may have sent an entry and packs after it, and was killed before it took them
        back. SECURITY: the key is gone, so that anything but an end alone is believed only where this gateway ended the
        chain itself or saw a proof, or where all there is it sent itself and has no answer for.
        """
        left = beside_end(self.repository, name)
        if left is None or not (self.has_ended(name) or left <= self._unanswered(name, left)):
            return None
        return frozenset(left)

    def _unanswered(self, name: ChainName, there: set[str]) -> set[str]:
        """Of objects of a chain those that this gateway sent, and that no entry it has written declares."""
        found: set[str] = set()
        for row in self.catalog.ledger(name) if there else ():
            found |= {
                names.pack(row.storage, name, row.number, row.pack_id), names.index(name, row.number, row.pack_id)
            }  # fmt: skip
        pending = self._log_copies(name) / PENDING
        if there and pending.is_file():
            data = durable.read_file(pending)
            entries = {key for key in there if key.startswith(names.log_prefix(name))}
            found |= {key for key in entries if self.repository.store.get(key) == data}
        return found

    def forget(self, name: ChainName) -> None:
        """A chain that has ended and of which all was deleted; the head that was seen of it stays remembered."""
        self.closed.forget(name)
        if self.catalog.chain(name) is not None:
            self.catalog.remove_chain(name)
            self.check_damage(name.group)

    def refresh(self, group: str) -> list[Chain]:
        """Open every chain of a group, newest last, and record it. A chain that cannot be opened is logged and left
        as the catalog has it; one that was never born is passed over, and one that is finished is forgotten. Whoever
        changes one of them opens it himself.
        """
        opened = []
        for name, objects in digests(self._objects(group)).items():
            try:
                chain = self.closed.find(name, objects, self.repository) or self.open_chain(name)
            except NeverBorn:
                continue
            except IntegrityError as error:
                if self.left_of_ended(name) is not None:
                    self.forget(name)
                    continue
                self.log.error("chain.damaged", chain=str(name), problem=str(error))
                self.distrust(name, error)
                continue
            listed = chain.list_packs()
            if not self.closed.is_recorded(chain, listed, self.catalog):
                self.record(chain, listed)
                self.closed.keep(chain, objects, listed, self.catalog)
            opened.append(chain)
        return opened
