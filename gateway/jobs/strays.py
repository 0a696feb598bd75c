"""What verification finds by comparing what is there with what somebody says was there.

Three witnesses besides the logs: the local state, which remembers entries and packs; objects no entry names, whose
directories name the entry their writer had folded; and the next chain, whose header names this one and its last entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from gateway.api import Problem, ProblemKind
from gateway.catalog.rows import ChainRows, PackState
from gateway.errors import Corrupt, IntegrityError, NewerFormat, ObjectCold, ObjectMissing
from gateway.format import limits, names
from gateway.format.container import Kind, Name
from gateway.format.directory import Head, cut_index, open_index
from gateway.format.names import PackName
from gateway.jobs.rebuild import problem_of
from gateway.model.ids import ChainName
from gateway.repository.chain import Chain
from gateway.store.port import ObjectFacts


def forgotten(rows: ChainRows, chain: Chain) -> list[Problem]:
    """Entries that the local state remembers of a chain and the log has no more, and packs only these declared."""
    if chain.ended:
        return []
    store, found = chain.repository.store, []
    digests = {each.sequence: each.digest for each in chain.entries}
    named = {getattr(error, "address", "") for error in chain.problems}
    for row in rows.entries:
        key = names.entry(chain.name, row.sequence)
        if digests.get(row.sequence) != row.digest and key not in named:
            what = "another entry is in its place" if row.sequence in digests else "is not in the log any more"
            found.append(Problem(kind=ProblemKind.ROLLED_BACK, address=key, what=f"{key}: {what}"))
    there: set[str] | None = None
    for pack in rows.packs:
        if pack.number in chain.fold.packs or pack.state is PackState.CONDEMNED:
            continue
        if there is None:
            prefixes = {names.index_prefix(chain.name)}
            prefixes |= {names.pack_prefix(each.storage, chain.name) for each in rows.packs}
            there = {facts.key for prefix in prefixes for facts in store.list_objects(prefix)}
        for key in (
            names.pack(pack.storage, chain.name, pack.number, pack.pack_id),
            names.index(chain.name, pack.number, pack.pack_id),
        ):
            if key not in there:
                what = f"{key} is not there, nor the entry that declared it"
                found.append(Problem(kind=ProblemKind.MISSING, address=key, what=what))
    return found


def undeclared(chain: Chain) -> tuple[list[Problem], list[tuple[str, Head]]]:
    """Objects with the names of packs and indexes that no entry declares: those that are none, and what the others'
    directories name as the newest entry of their time. A run that was cut off leaves such objects; they are no problem.
    """
    problems: list[Problem] = []
    heads: list[tuple[str, Head]] = []
    for facts in (*_undeclared_packs(chain), *_undeclared_indexes(chain)):
        try:
            heads.append((facts.key, _head(chain, facts)))
        except (ObjectMissing, ObjectCold):
            continue  # deleted since it was listed, or cold before an entry named it; nobody needs it
        except IntegrityError as error:
            problems.append(problem_of(error, facts.key))
        except NewerFormat as error:
            problems.append(problem_of(Corrupt(error.what, address=facts.key), facts.key))
    return problems, heads


def _undeclared_indexes(chain: Chain) -> Iterator[ObjectFacts]:
    packs = chain.fold.packs
    for facts in chain.repository.store.list_objects(names.index_prefix(chain.name)):
        found = names.parse_index(facts.key.removeprefix(names.chain_prefix(chain.name)))
        if found is not None and (found[0] not in packs or packs[found[0]].declaration.pack_id != found[1]):
            yield facts


def _undeclared_packs(chain: Chain) -> Iterator[ObjectFacts]:
    storages = {names.META, "hot", chain.header.storage}
    storages |= {each.declaration.storage for each in chain.fold.packs.values()}
    for storage in sorted(storages):
        for facts in chain.repository.store.list_objects(names.pack_prefix(storage, chain.name)):
            pack = names.parse_pack(facts.key)
            if pack is not None and _owner(chain, pack.number) != (pack.pack_id, pack.storage):
                yield facts


def _owner(chain: Chain, number: int) -> tuple[bytes, str] | None:
    state = chain.fold.packs.get(number)
    return (state.declaration.pack_id, state.declaration.storage) if state else None


def _head(chain: Chain, facts: ObjectFacts) -> Head:
    """The head in the directory of a pack, or of an index object."""
    store, key = chain.repository.store, facts.key
    pack = names.parse_pack(key)
    if pack is not None:
        data = cut_index(lambda start, length: store.get(key, start=start, length=length), facts.size, key)
        kinds: tuple[Kind, ...] = (_kind(pack),)
        number, pack_id = pack.number, pack.pack_id
    else:
        parsed = names.parse_index(key.removeprefix(names.chain_prefix(chain.name)))
        assert parsed is not None
        number, pack_id = parsed
        if facts.size > limits.INDEX_BYTES:
            raise Corrupt("is too large for an index", address=key)
        data, kinds = store.get(key), (Kind.DATA, Kind.LIST)
    problem: IntegrityError | None = None
    for kind in kinds:
        name = Name(kind=kind, repository=chain.repository.id, chain=chain.name, number=number, pack_id=pack_id)
        try:
            return open_index(data, name, chain.keys, key).directory.head
        except IntegrityError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _kind(pack: PackName) -> Kind:
    return Kind.LIST if pack.storage == names.META else Kind.DATA


def unlinked(opened: Mapping[ChainName, Chain], present: Iterable[ChainName]) -> list[Problem]:
    """Chains that a later one says were there: numbers have no gaps, since a chain's header outlives its end, and a
    header names the chain before and the last entry of it.
    """
    found, there = [], set(present)
    for name in sorted(there):
        before = ChainName(name.group, name.number - 1) if name.number > 1 else None
        if before is not None and before not in there and name in opened:
            key = names.header(before)
            what = f"chain {before} is not there, though chain {name} is"
            found.append(Problem(kind=ProblemKind.MISSING, address=key, what=what))
    for name, chain in opened.items():
        header = chain.header
        if not header.before or not header.before_digest:
            continue
        before_name = ChainName(name.group, header.before)
        before_chain = opened.get(before_name)
        if before_chain is None or before_chain.ended:
            continue
        if header.before_digest not in {before_chain.header_digest, *(e.digest for e in before_chain.entries)}:
            key = names.log_prefix(before_name)
            what = f"the entry that the header of chain {name} names as the last one is not in this log any more"
            found.append(Problem(kind=ProblemKind.ROLLED_BACK, address=key, what=what))
    return found
