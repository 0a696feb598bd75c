"""Creating and opening a repository: `repository.json` and its key slots.

Order of creation: slots, each read back and opened; `repository.json`, if absent; then slots of others are removed.
CRASH: until `repository.json` there is no repository; slots that lie about then are removed by the next `create`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.clock import Clock, text
from gateway.errors import (
    Corrupt,
    IntegrityError,
    Missing,
    NewerFormat,
    NoRepository,
    ObjectExists,
    ObjectMissing,
    UsageError,
    WrongKey,
)
from gateway.format import canonical, limits, names, sheet, slots
from gateway.format.keys import Argon2Cost, MasterKey
from gateway.format.slots import Slot
from gateway.model.ids import ChainName
from gateway.store.crc import crc64
from gateway.store.port import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What a user has to open a repository with: one of the two. `sheet_repository`: the id the sheet names."""

    passphrase: str | None = field(default=None, repr=False)
    sheet: bytes | None = field(default=None, repr=False)
    sheet_repository: bytes | None = None

    @classmethod
    def from_sheet(cls, text: str) -> Secrets:
        secret, repository = sheet.parse(text)
        return cls(sheet=secret, sheet_repository=repository)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """An opened repository. `problems`: slots that are damaged, found while another one opened."""

    store: ObjectStore
    clock: Clock
    master: MasterKey
    problems: tuple[IntegrityError, ...] = ()

    @property
    def id(self) -> bytes:
        return self.master.repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    repository: Repository
    sheet: str


def put_checked(store: ObjectStore, key: str, data: bytes, *, if_absent: bool = True) -> None:
    """Create an object; one that is there already with the very same bytes is ours, from a try that was cut off."""
    try:
        store.put(key, data, crc64=crc64(data), if_absent=if_absent)
    except ObjectExists:
        if store.get(key) != data:
            raise


def require_absent(store: ObjectStore, key: str) -> None:
    """`ObjectExists`, also where the store would not refuse a second one: some ignore the condition of a put."""
    try:
        store.head(key)
    except ObjectMissing:
        return
    raise ObjectExists(f"There is already an object {key} in {store.url}.")


def exists(store: ObjectStore) -> bool:
    try:
        store.head(names.REPOSITORY)
    except ObjectMissing:
        return False
    return True


def create(
    store: ObjectStore, clock: Clock, passphrase: str, *, region: str, endpoint: str, cost: Argon2Cost | None = None
) -> Created:
    """Make a repository with a passphrase slot and a recovery-sheet slot. `NoRepository` is not raised here;
    an existing repository is refused by `ObjectExists` from the last step, or by the caller beforehand; one whose
    repository.json is lost by `UsageError`: its slots are all that still opens it.
    """
    if has_chains(store):
        raise UsageError(
            f"At {store.url} are chains of a repository, but no repository.json.",
            meaning="It was deleted. A new repository in its place would make all that is stored unreadable.",
            advice="`gateway rebuild` reads a repository without it; use another prefix for a new one.",
        )
    repository_id, now = clock.random_bytes(16), clock.now()
    master = MasterKey(clock.random_bytes(32), repository_id)
    secret = clock.random_bytes(32)
    passphrase_id, sheet_id = clock.random_bytes(16), clock.random_bytes(16)
    made = {
        passphrase_id: slots.passphrase_slot(
            master, passphrase_id, clock.random_bytes(32), now, passphrase, cost or Argon2Cost()
        ),
        sheet_id: slots.sheet_slot(master, sheet_id, clock.random_bytes(32), now, secret),
    }
    for slot_id, data in made.items():
        key = names.slot(slot_id)
        put_checked(store, key, data)
        slot = slots.decode_slot(store.get(key), slot_id, key)
        if slots.open_slot(slot, passphrase=passphrase, secret=secret) != master:
            raise Corrupt("key slot does not open after it was written", address=key)
    try:
        require_absent(store, names.REPOSITORY)
        put_checked(store, names.REPOSITORY, slots.encode_repository(master, now))
    except ObjectExists:
        for slot_id in made:
            store.delete(names.slot(slot_id))
        raise
    # Only now: before, they may have been those of another `init` that was faster.
    for left in list(store.list_objects(names.SLOTS)):
        if left.key not in map(names.slot, made):
            store.delete(left.key)
    repository = Repository(store=store, clock=clock, master=master)
    rendered = sheet.render(
        secret, url=store.url, region=region, endpoint=endpoint, repository=repository_id, slot=sheet_id,
        created=text(now),
    )  # fmt: skip
    return Created(repository=repository, sheet=rendered)


def has_chains(store: ObjectStore) -> bool:
    return next(iter(store.list_objects(names.CHAINS)), None) is not None


def read_id(store: ObjectStore) -> tuple[bytes, canonical.Json]:
    """The id of the repository at the store, unauthenticated, and the object for its MAC. `NoRepository`, `Corrupt`;
    `Missing` where only repository.json is.
    """
    try:
        data = store.get(names.REPOSITORY)
    except ObjectMissing as error:
        if has_chains(store):
            raise Missing("is not there, though chains are", address=names.REPOSITORY) from error
        raise NoRepository(
            f"There is no repository at {store.url}.",
            meaning="Nothing there has the name repository.json.",
            advice="Check the URL and the prefix; a new repository is made by `gateway init`.",
        ) from error
    try:
        return slots.decode_repository(data, names.REPOSITORY)
    except Corrupt as error:
        if b"gateway-repository" in data or has_chains(store):
            raise
        raise NoRepository(
            f"What lies at {store.url} is not a gateway repository.",
            meaning="Its repository.json is something else.",
            advice="Check the URL and the prefix.",
        ) from error


def open_repository(store: ObjectStore, clock: Clock, given: Secrets) -> Repository:
    """Find the slot that what was given opens, then check every MAC. `NoRepository`, `WrongKey`, `Corrupt`,
    `NewerFormat`.

    A damaged, exchanged or deleted `repository.json` keeps nobody out: the slots name the repository, too, and the one
    that opens is believed. It is among the problems then. So is what says that a newer version wrote it and has a wrong
    MAC: a single changed bit must not look like an upgrade.
    """
    problems: list[IntegrityError] = []
    newer: list[tuple[str, NewerFormat]] = []
    repository_id: bytes | None = None
    value: canonical.Json | None = None
    try:
        repository_id, value = read_id(store)
    except IntegrityError as error:
        problems.append(error)
    except NewerFormat as error:
        newer.append((names.REPOSITORY, error))
    found: list[Slot] = []
    for key, slot in _slots(store):
        if isinstance(slot, NewerFormat):
            newer.append((key, slot))
        elif isinstance(slot, Corrupt):
            problems.append(slot)
        else:
            found.append(slot)
    found.sort(key=lambda slot: slot.repository != repository_id)
    master = _first_that_opens(found, given, problems)
    if master is None:
        if newer:
            raise newer[0][1]
        if repository_id is not None and given.sheet_repository not in (None, repository_id):
            raise WrongKey(
                f"The recovery sheet is for another repository than {repository_id.hex()}, which lies at {store.url}.",
                advice="Take the sheet of this repository, or correct the URL.",
            )
        what = "passphrase" if given.passphrase is not None else "recovery sheet"
        if not found:
            raise Missing(
                "no usable key slot is left", address=names.SLOTS,
                advice=f"Damaged: {problems[0]}" if problems else "Put one back from a copy of the repository.",
            )  # fmt: skip
        raise WrongKey(
            f"The {what} does not open the repository at {store.url}.",
            meaning="No key slot was made with it, or its slot was changed.",
            advice=f"Check the {what}; any other slot's passphrase or sheet opens the repository, too.",
        )
    if given.sheet_repository not in (None, master.repository):
        raise WrongKey(
            f"The recovery sheet is for another repository than {master.repository.hex()}, which lies at {store.url}.",
            advice="Take the sheet of this repository, or correct the URL.",
        )
    if value is not None:
        if repository_id != master.repository:
            problems.append(Corrupt("names another repository than the slot that opens", address=names.REPOSITORY))
        _check_mac(value, master, names.REPOSITORY, problems)
    for slot in found:
        if slot.repository == master.repository:
            _check_mac(slot.value, master, names.slot(slot.slot_id), problems)
        else:
            problems.append(Corrupt("belongs to another repository", address=names.slot(slot.slot_id)))
    for key, refused in newer:
        if canonical.is_ours(store.get(key), master):
            if key == names.REPOSITORY:
                raise refused
        else:
            problems.append(Corrupt("format or features were changed", address=key))
    return Repository(store=store, clock=clock, master=master, problems=tuple(problems))


def _check_mac(value: canonical.Json, master: MasterKey, key: str, problems: list[IntegrityError]) -> None:
    try:
        canonical.check_mac(value, master, key)
    except Corrupt as error:
        problems.append(error)


def _slots(store: ObjectStore) -> Iterator[tuple[str, Slot | Corrupt | NewerFormat]]:
    for facts in store.list_objects(names.SLOTS):
        stem = facts.key.removeprefix(names.SLOTS).removesuffix(".json")
        try:
            slot_id = bytes.fromhex(stem)
            if facts.size > limits.JSON_BYTES or names.slot(slot_id) != facts.key:
                raise Corrupt("is not a key slot", address=facts.key)
            yield facts.key, slots.decode_slot(store.get(facts.key), slot_id, facts.key)
        except ValueError:
            yield facts.key, Corrupt("is not a key slot", address=facts.key)
        except (Corrupt, NewerFormat) as error:
            yield facts.key, error


def _first_that_opens(found: list[Slot], given: Secrets, problems: list[IntegrityError]) -> MasterKey | None:
    for slot in found:
        try:
            master = slots.open_slot(slot, passphrase=given.passphrase, secret=given.sheet)
        except Corrupt as error:
            problems.append(Corrupt(error.what, address=names.slot(slot.slot_id), meaning=error.meaning))
            continue
        if master is not None:
            return master
    return None


def chain_names(store: ObjectStore) -> list[ChainName]:
    """Every chain that has any object under `chains/`, `keys/` or `packs/`, ascending: what is left of one whose header
    was deleted tells that it was there.
    """
    found: set[ChainName] = set()
    for prefix in (names.CHAINS, names.KEYS, names.PACKS):
        for facts in store.list_objects(prefix):
            chain = names.chain_of(facts.key)
            if chain is not None:
                found.add(chain)
    return sorted(found)
