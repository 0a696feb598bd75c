"""A chain: its header, its keys, its log.

Birth: header (written locally, then PUT if absent) and its copy -> wrap twice -> both read back and opened. CRASH: a
header without a wrap is a chain nobody can write; the next number is taken then.

Appending an entry is the one commit point: local copy `pending`, fsynced -> PUT if absent -> renamed to its number.
CRASH: a pending copy that equals what the store has under that number is ours and is adopted; otherwise it is
dropped, since its PUT either never happened or lost against another writer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from gateway import durable
from gateway.clock import milliseconds
from gateway.config.classes import ClassConfig
from gateway.errors import (
    Corrupt,
    GatewayError,
    IntegrityError,
    Missing,
    NewerFormat,
    ObjectExists,
    ObjectMissing,
    Overtaken,
)
from gateway.format import canonical, container, log, names, slots
from gateway.format.container import Kind, Name
from gateway.format.directory import Head, cut_index, open_index
from gateway.format.keys import ChainKeys
from gateway.format.log import ChainHeader, Declaration, Entry, Payload
from gateway.format.names import PackName
from gateway.format.slots import Wrap
from gateway.model.ids import ChainName, ranges
from gateway.policy.lifecycle import SMALLEST_BYTES
from gateway.repository.entries import opened as opened_entry
from gateway.repository.fold import Fold, PackState, Stored
from gateway.repository.repository import Repository, put_checked, require_absent
from gateway.store.port import ObjectStore

PENDING = "pending"
GAPS_NAMED = 100
"""LIMIT: entries missing in one place that are named; a foreign object may have any number."""


class NeverBorn(Missing):
    """The birth of this chain was cut off before it had a key: nothing was ever written to it, or can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageClassFacts:
    """A class as a chain's header fixes it."""

    name: str
    steps: tuple[int | str, ...]
    hot_days: int = 0
    chain_days: int = 0

    @classmethod
    def of(cls, config: ClassConfig) -> StorageClassFacts:
        return cls(name=config.name, steps=config.flat, hot_days=config.hot_days, chain_days=config.chain_days)


@dataclass(slots=True)
class Chain:
    """One chain as its log says it is. `problem` is set when the log is damaged: then it takes no more entries;
    `problems` are all that was found, each with its address. `strangers`: entries that were read from the store for
    the first time, so they are another writer's, or the local copies were lost. `dates`: the store's own of the packs
    that the class's rules move, in ms, as `list_packs` has last seen them. `seen_end` is called when an
    entry meets the `end` of the chain, which its key proves, and before anything is deleted.
    """

    repository: Repository
    name: ChainName
    header: ChainHeader
    header_digest: bytes
    header_size: int
    keys: ChainKeys
    local: Path | None = None
    entries: list[Stored] = field(default_factory=list)
    fold: Fold = field(default_factory=Fold)
    problem: str = ""
    problems: list[IntegrityError] = field(default_factory=list)
    strangers: list[Stored] = field(default_factory=list)
    dates: dict[int, int] = field(default_factory=dict)
    ended: bool = False
    seen_end: Callable[[], None] | None = None

    @property
    def head(self) -> tuple[int, bytes]:
        """Sequence number and digest of the newest entry; 0 and the header's digest when there is none."""
        last = self.entries[-1] if self.entries else None
        return (last.sequence, last.digest) if last else (0, self.header_digest)

    def pack_head(self, writer: bytes) -> Head:
        sequence, digest = self.head
        return Head(writer=writer, sequence=sequence, digest=digest)

    @property
    def writable(self) -> bool:
        """Whether it takes another generation."""
        return self.takes(log.COMMIT)

    def takes(self, kind: str) -> bool:
        """Whether an entry of this kind may be appended: a closed chain takes all but generations."""
        if self.problem or self.ended or self.fold.unknown:
            return False
        return not self.fold.closed or kind not in (log.COMMIT, log.CHECKPOINT, log.CLOSE)

    def read_log(self) -> None:
        """Read and fold the log. Damage is not raised but kept in `problem`; the store's failures are raised."""
        store, listed = self.repository.store, []
        for facts in store.list_objects(names.log_prefix(self.name)):
            parsed = names.parse_chain(facts.key)
            sequence = names.parse_entry(parsed[1]) if parsed else None
            if sequence is not None:
                listed.append(sequence)
        if self._has_end():
            return
        self._settle_pending(listed)
        self._require_known(listed)
        before, there = self.header_digest, set(listed)
        copies = self._copies()
        for sequence in listed:
            key = names.entry(self.name, sequence)
            expected = self.entries[-1].sequence + 1 if self.entries else 1
            try:
                data, entry = self._entry(sequence, newest=sequence == listed[-1])
            except IntegrityError as error:
                self._blame(error)
                continue
            if sequence == expected and entry.before != before:
                self._blame(Corrupt("the entry before it is another one", address=key,
                                    meaning="The chain's log was damaged or rolled back."))  # fmt: skip
            for gone in range(expected, min(sequence, expected + GAPS_NAMED)):
                if gone not in there:
                    self._blame(Missing("is not there, though later ones are", address=names.entry(self.name, gone),
                                        meaning="The chain's log was damaged or rolled back."))  # fmt: skip
            self._take(Stored(sequence=sequence, digest=sha256(data).digest(), size=len(data), entry=entry))
            if sequence not in copies:
                self.strangers.append(self.entries[-1])
            before = self.entries[-1].digest
        if self.problem and self.fold.undeclared():
            self._adopt_undeclared()

    def _blame(self, error: IntegrityError) -> None:
        self.problem = self.problem or str(error)
        self.problems.append(error)

    def _adopt_undeclared(self) -> None:
        """Take over packs whose declaration was in a lost entry, for reading: the only object of a needed number,
        if its index opens under its name.
        """
        wanted = set(self.fold.undeclared())
        candidates: dict[int, list[tuple[PackName, int]]] = {}
        for facts in self.repository.store.list_objects(names.PACKS):
            parsed = names.parse_pack(facts.key)
            if parsed is not None and parsed.chain == self.name and parsed.number in wanted:
                candidates.setdefault(parsed.number, []).append((parsed, facts.size))
        for number, found in candidates.items():
            if len(found) == 1:
                with contextlib.suppress(IntegrityError, NewerFormat):
                    self.fold.packs[number] = PackState(self._declare(*found[0]), 0)

    def _declare(self, pack: PackName, size: int) -> Declaration:
        """What the lost entry must have said of a pack, from the pack's own directory; its checksum stays unknown."""
        store = self.repository.store
        key = names.pack(pack.storage, self.name, pack.number, pack.pack_id)
        data = cut_index(lambda start, length: store.get(key, start=start, length=length), size, key)
        kind = Kind.LIST if pack.storage == names.META else Kind.DATA
        name = Name(kind=kind, repository=self.repository.id, chain=self.name, number=pack.number, pack_id=pack.pack_id)
        opened = open_index(data, name, self.keys, key).directory
        bases = {run.pack for segment in opened.segments for run in segment.bases} - {pack.number}
        return Declaration(
            number=pack.number, pack_id=pack.pack_id, storage=pack.storage, size=size, crc64=0,
            index_digest=sha256(data).digest(), index_size=len(data), chunks=opened.chunks, raw=opened.raw,
            bases=tuple(ranges(list(bases))),
        )  # fmt: skip

    def _has_end(self) -> bool:
        key = names.end(self.name)
        try:
            data = self.repository.store.get(key)
        except ObjectMissing:
            return False
        try:
            log.decode_end(data, self.name, self.keys, key)
        except IntegrityError as error:
            self._blame(error)
            return False
        self.ended = True
        return True

    def _require_not_ended(self) -> None:
        """Behind an entry: its number is free, too, where another gateway has ended the chain and deleted the log. Then
        nobody reads it, and whoever holds the key of the chain can still tell: it takes back what it sent. `Overtaken`.

        CRASH: what is left beside the `end` is taken back by the next sweep of whoever saw or made that end, or sent
        it: of the latter the pending copy is left, or that the end was noted.
        """
        if not self._has_end():
            return
        if self.seen_end is not None:
            self.seen_end()
        if self.local is not None:
            durable.remove("entry-pending", self.local / PENDING)
        for _ in delete_rest(self.repository.store, self.name, list(pack_classes(self.repository.store))):
            pass
        raise Overtaken(
            f"Chain {self.name} was ended by somebody else.",
            meaning="A second gateway opened the next chain, and nothing of this one was kept.",
        )

    def _entry(self, sequence: int, *, newest: bool) -> tuple[bytes, Entry]:
        """From the local copy where one opens, the newest always from the store. Nothing is copied that does not."""
        key = names.entry(self.name, sequence)
        copy = self.local / f"{sequence:08d}" if self.local else None
        known: bytes | None = durable.read_file(copy) if copy is not None and copy.is_file() else None
        if known is not None:
            try:
                entry = opened_entry(known, sequence, self.name, self.keys, key)
            except IntegrityError:
                known = None  # this disk is at fault, and the store has it
            else:
                if not newest:
                    return known, entry
        data = self.repository.store.get(key)
        entry = opened_entry(data, sequence, self.name, self.keys, key)
        if known is not None and known != data:
            raise Corrupt("is not the entry this gateway knows", address=key,
                          meaning="The log was rewritten or rolled back.")  # fmt: skip
        if copy is not None and known is None:
            durable.write_file("entry-copy", copy, data)
        return data, entry

    def _require_known(self, listed: list[int]) -> None:
        """Entries this gateway has seen are still there: a shorter log must never be gone on from in silence."""
        gone = min(self._copies() - set(listed), default=0)
        if gone:
            self._blame(Missing("is not there any more", address=names.entry(self.name, gone),
                                meaning="The log was rolled back: the store shows less than this gateway has seen.")
            )  # fmt: skip

    def _copies(self) -> set[int]:
        """Entries of which a local copy lies here: every one that this gateway has written or read before."""
        if self.local is None:
            return set()
        return {int(copy.name) for copy in self.local.iterdir() if copy.name.isdigit()}

    def _settle_pending(self, listed: list[int]) -> None:
        if self.local is None:
            return
        pending = self.local / PENDING
        if not pending.is_file():
            return
        sequence = max(listed, default=0)
        if sequence and self.repository.store.get(names.entry(self.name, sequence)) == durable.read_file(pending):
            durable.publish("entry", pending, self.local / f"{sequence:08d}")
        else:
            durable.remove("entry-pending", pending)

    def _take(self, stored: Stored) -> None:
        self.entries.append(stored)
        self.fold.add(stored)

    def list_packs(self) -> dict[int, tuple[bytes, int]]:
        """Number -> (id, size) of every pack object the store lists for this chain; the owner's where two claim one."""
        found: dict[int, tuple[bytes, int]] = {}
        dates: dict[int, int] = {}
        storages = {state.declaration.storage for state in self.fold.packs.values()}
        for storage in sorted({names.META, "hot", self.header.storage} | storages):
            for facts in self.repository.store.list_objects(names.pack_prefix(storage, self.name)):
                parsed = names.parse_pack(facts.key)
                if parsed is None:
                    continue
                owner = self.fold.packs.get(parsed.number)
                if owner is None or (owner.declaration.pack_id, owner.declaration.storage) == (parsed.pack_id, storage):
                    found[parsed.number] = (parsed.pack_id, facts.size)
                    moves = storage == self.header.storage and facts.size >= SMALLEST_BYTES
                    if moves and facts.modified is not None:
                        dates[parsed.number] = milliseconds(facts.modified)
        self.dates = dates
        return found

    def append(self, kind: str, payload: Payload, writer: bytes) -> Stored:
        """Append an entry. `Overtaken`: somebody else wrote that number; read the log again and decide anew."""
        clock, store = self.repository.clock, self.repository.store
        if not self.takes(kind):
            raise Corrupt("takes no more entries", address=names.chain_prefix(self.name), meaning=self.problem)
        sequence, before = self.head
        sequence += 1
        entry = Entry(kind=kind, writer=writer, before=before, time=milliseconds(clock.now()), payload=payload)
        data = log.encode_entry(entry, sequence, self.name, self.keys, clock.random_bytes(32))
        if self.local is not None:
            durable.write_file("entry-pending", self.local / PENDING, data)
        key = names.entry(self.name, sequence)
        with durable.effect(f"store:{kind}"):
            try:
                require_absent(store, key)
                put_checked(store, key, data)
                self._require_not_ended()
            except ObjectExists as error:
                if self.local is not None:
                    durable.remove("entry-pending", self.local / PENDING)
                raise Overtaken(
                    f"{key} was written by somebody else.",
                    meaning="A second gateway writes to this chain: a cloned or reverted machine, or another host.",
                    advice="Stop one of them; nothing is lost.",
                ) from error
        if self.local is not None:
            durable.publish("entry", self.local / PENDING, self.local / f"{sequence:08d}")
        stored = Stored(sequence=sequence, digest=sha256(data).digest(), size=len(data), entry=entry)
        self._take(stored)
        return stored


def delete_rest(store: ObjectStore, name: ChainName, storages: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Delete all of an ended chain but header and `end`; key and size of each, as it goes. `storages`: the classes that
    its packs may have in their names.

    INVARIANT: wraps go last. Without them the chain cannot be opened, and what would be left then counts as damage.
    """
    stages = [names.pack_prefix(storage, name) for storage in storages]
    stages += [names.index_prefix(name), names.log_prefix(name), names.wrap_prefix(name)]
    for prefix in stages:
        for facts in list(store.list_objects(prefix)):
            with durable.effect("store:ended-object"):
                store.delete(facts.key)
            yield facts.key, facts.size
    for facts in list(store.list_objects(names.second_wrap_prefix(name))):
        if facts.key != names.second_header(name):
            with durable.effect("store:ended-object"):
                store.delete(facts.key)
            yield facts.key, facts.size


def finished(repository: Repository, name: ChainName) -> bool:
    """Whether a chain has ended and all else of it was deleted: nobody can open it any more, and nothing is missed.

    SECURITY: its key is gone, so that nothing proves the end. An object that only has the name of one does not count,
    nor does one beside which packs, entries or wraps are left, since wraps are deleted last.
    """
    return beside_end(repository, name) == set()


def beside_end(repository: Repository, name: ChainName) -> set[str] | None:
    """What there is of a chain besides its headers and its `end`; None where it has no object that looks like one."""
    key = names.end(name)
    try:
        container.check_header(
            repository.store.get(key, length=container.HEADER.size), log.end_name(repository.id, name), key
        )
    except (ObjectMissing, IntegrityError, NewerFormat):
        return None
    return _objects_of(repository, name) - {key, names.header(name), names.second_header(name)}


def open_chain(
    repository: Repository, name: ChainName, local: Path | None, seen_end: Callable[[], None] | None = None
) -> Chain:
    """Open header and wrap, and read the log. `Missing` or `Corrupt` when no copy of either is left that fits."""
    copies = _header_copies(repository, name)
    data, keys = _open_wraps(repository, name, copies)
    header = log.decode_header(data, name, keys, names.header(name))
    if local is not None:
        durable.make_directory("log", local)
    chain = Chain(
        repository=repository, name=name, header=header, header_digest=sha256(data).digest(), header_size=len(data),
        keys=keys, local=local, seen_end=seen_end,
    )  # fmt: skip
    chain.read_log()
    return chain


def _header_copies(repository: Repository, name: ChainName) -> dict[bytes, bytes]:
    """The copies of the header that are there, by their digest; one when both are equal or the first serves."""
    found: dict[bytes, bytes] = {}
    problem: IntegrityError = Missing("the chain's header is not there", address=names.header(name))
    for key in (names.header(name), names.second_header(name)):
        try:
            data = repository.store.get(key)
        except ObjectMissing:
            continue
        except Corrupt as error:
            problem = error
            continue
        found[sha256(data).digest()] = data
    if not found:
        raise problem
    return found


def wrap_keys(repository: Repository, name: ChainName) -> Iterator[tuple[str, bytes]]:
    """Names and ids of all wraps of a chain, both copies."""
    for prefix in (names.wrap_prefix(name), names.second_wrap_prefix(name)):
        for facts in repository.store.list_objects(prefix):
            try:
                yield facts.key, bytes.fromhex(facts.key.removeprefix(prefix))
            except ValueError:
                continue


def read_wrap(repository: Repository, name: ChainName, wrap_id: bytes, key: str) -> Wrap:
    """A wrap whose MAC is right, of whatever kind. `NewerFormat` only when a newer version really wrote it."""
    data = repository.store.get(key)
    try:
        wrap = slots.decode_wrap(data, name, wrap_id, key)
    except NewerFormat:
        if canonical.is_ours(data, repository.master):
            raise
        raise Corrupt("format or features were changed", address=key) from None
    canonical.check_mac(wrap.value, repository.master, key)
    return wrap


def _open_wraps(repository: Repository, name: ChainName, headers: dict[bytes, bytes]) -> tuple[bytes, ChainKeys]:
    """The header a wrap vouches for, and the chain's keys."""
    opened = _try_wraps(repository, name, headers)
    if isinstance(opened, Missing):
        there = _objects_of(repository, name)
        if there <= {names.header(name), names.second_header(name)}:
            raise NeverBorn("the chain has a header and nothing else", address=names.chain_prefix(name))
        if any(key.startswith((names.wrap_prefix(name), names.second_wrap_prefix(name))) for key in there):
            opened = _try_wraps(repository, name, headers)  # it was born just now
    if isinstance(opened, GatewayError):
        raise opened
    return opened


def _try_wraps(
    repository: Repository, name: ChainName, headers: dict[bytes, bytes]
) -> tuple[bytes, ChainKeys] | GatewayError:
    problem: GatewayError = Missing("the chain has no wrap of its key", address=names.wrap_prefix(name))
    for key, wrap_id in wrap_keys(repository, name):
        try:
            wrap = read_wrap(repository, name, wrap_id, key)
            if wrap.kind == slots.MASTER:
                header = headers.get(wrap.header_digest)
                digest = wrap.header_digest if header is not None else next(iter(headers))
                keys = slots.open_wrap(wrap, repository.master, digest, key)
                return headers[digest], keys
        except (IntegrityError, NewerFormat) as error:
            problem = error
    return problem


def _objects_of(repository: Repository, name: ChainName) -> set[str]:
    prefixes = [names.chain_prefix(name), names.second_wrap_prefix(name)]
    prefixes += [names.pack_prefix(storage, name) for storage in pack_classes(repository.store)]
    return {facts.key for prefix in prefixes for facts in repository.store.list_objects(prefix)}


def pack_classes(store: ObjectStore) -> Iterator[str]:
    """Every class of which there are packs, that of lists among them, by asking once for each."""
    after = ""
    while (facts := next(iter(store.list_objects(names.PACKS, after=after)), None)) is not None:
        storage, slash, _ = facts.key.removeprefix(names.PACKS).partition("/")
        if slash:
            yield storage
        after = f"{names.PACKS}{storage}0" if slash else facts.key  # "0" follows "/"


def read_header(repository: Repository, name: ChainName) -> ChainHeader:
    """A chain's header alone. Raises as `open_chain`."""
    data, keys = _open_wraps(repository, name, _header_copies(repository, name))
    return log.decode_header(data, name, keys, names.header(name))


def complete_birth(chain: Chain) -> None:
    """Make the copies of wraps that a birth which was cut off did not come to. Idempotent."""
    store, name = chain.repository.store, chain.name
    present = dict(wrap_keys(chain.repository, name))
    for key, wrap_id in list(present.items()):
        for copy in (names.second_wrap(name, wrap_id), names.wrap(name, wrap_id)):
            if copy not in present:
                with durable.effect("store:wrap"):
                    put_checked(store, copy, store.get(key))


def create_chain(
    repository: Repository,
    name: ChainName,
    storage: StorageClassFacts,
    *,
    writer: bytes,
    reason: str,
    before: Chain | None,
    data_chunks: tuple[int, int, int],
    list_chunks: tuple[int, int, int],
    local: Path,
    seen_end: Callable[[], None] | None = None,
) -> tuple[Chain, int]:
    """Give birth to a chain; returns it and the bytes of the objects made. `Overtaken`: the number is taken."""
    clock, store = repository.clock, repository.store
    keys = ChainKeys.of(clock.random_bytes(32), repository.id)
    header = ChainHeader(
        group=name.group, number=name.number, created=milliseconds(clock.now()), writer=writer, storage=storage.name,
        steps=storage.steps, hot_days=storage.hot_days, chain_days=storage.chain_days, chunker="wide-64",
        data_chunks=data_chunks, list_chunks=list_chunks, reason=reason, before=before.name.number if before else 0,
        before_digest=before.head[1] if before else b"",
    )  # fmt: skip
    data = log.encode_header(header, keys, clock.random_bytes(32))
    digest = sha256(data).digest()
    durable.make_directory("log", local)
    durable.write_file("header", local / "header", data)
    with durable.effect("store:header"):
        try:
            require_absent(store, names.header(name))
            put_checked(store, names.header(name), data)
        except ObjectExists as error:
            raise Overtaken(f"Chain {name} exists already.", meaning="Another gateway has just opened it.") from error
    with durable.effect("store:header-copy"):
        put_checked(store, names.second_header(name), data)
    wrap_id = clock.random_bytes(16)
    wrap = slots.encode_wrap(repository.master, name, keys.secret, digest, wrap_id, clock.random_bytes(32), clock.now())
    durable.write_file("wrap", local / f"wrap-{wrap_id.hex()}", wrap)
    for key in (names.second_wrap(name, wrap_id), names.wrap(name, wrap_id)):
        with durable.effect("store:wrap"):
            put_checked(store, key, wrap)
        opened = slots.open_wrap(slots.decode_wrap(store.get(key), name, wrap_id, key), repository.master, digest, key)
        if opened != keys:
            raise Corrupt("wrap does not open after it was written", address=key)
    chain = Chain(
        repository=repository, name=name, header=header, header_digest=digest, header_size=len(data), keys=keys,
        local=local, seen_end=seen_end,
    )  # fmt: skip
    return chain, 2 * (len(data) + len(wrap))
