"""Names of objects in the store (docs/format/README.md section 2)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.model.ids import ChainName

REPOSITORY = "repository.json"
SLOTS = "slots/"
CHAINS = "chains/"
PACKS = "packs/"
KEYS = "keys/"
META = "meta"
HIGHEST = 2**32 - 1
"""Number of a chain, or of a pack in it."""


def slot(slot_id: bytes) -> str:
    return f"{SLOTS}{slot_id.hex()}.json"


def chain_prefix(chain: ChainName) -> str:
    return f"{CHAINS}{chain.group}/{chain.number:06d}/"


def header(chain: ChainName) -> str:
    return chain_prefix(chain) + "header"


def end(chain: ChainName) -> str:
    return chain_prefix(chain) + "end"


def wrap_prefix(chain: ChainName) -> str:
    return chain_prefix(chain) + "wraps/"


def wrap(chain: ChainName, wrap_id: bytes) -> str:
    return wrap_prefix(chain) + wrap_id.hex()


def second_header(chain: ChainName) -> str:
    return second_wrap_prefix(chain) + "header"


def second_wrap(chain: ChainName, wrap_id: bytes) -> str:
    return f"{KEYS}{chain.group}-{chain.number:06d}-{wrap_id.hex()}"


def second_wrap_prefix(chain: ChainName) -> str:
    return f"{KEYS}{chain.group}-{chain.number:06d}-"


def log_prefix(chain: ChainName) -> str:
    return chain_prefix(chain) + "log/"


def entry(chain: ChainName, sequence: int) -> str:
    return f"{log_prefix(chain)}{sequence:08d}"


def index_prefix(chain: ChainName) -> str:
    return chain_prefix(chain) + "index/"


def index(chain: ChainName, pack: int, pack_id: bytes) -> str:
    return f"{index_prefix(chain)}{pack:08x}-{pack_id.hex()}"


def pack_prefix(storage: str, chain: ChainName) -> str:
    return f"{PACKS}{storage}/{chain.group}/{chain.number:06d}/"


def pack(storage: str, chain: ChainName, number: int, pack_id: bytes) -> str:
    """`storage` is the class in the name: ``meta``, ``hot``, ``instant`` ..."""
    return f"{pack_prefix(storage, chain)}{number:08x}-{pack_id.hex()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackName:
    storage: str
    chain: ChainName
    number: int
    pack_id: bytes


_NUMBER = "[0-9]{6}|[1-9][0-9]{6,9}"
_PACK = re.compile(rf"packs/([a-z0-9-]{{1,32}})/([a-z0-9-]{{1,32}})/({_NUMBER})/([0-9a-f]{{8}})-([0-9a-f]{{32}})")
_CHAIN = re.compile(rf"chains/([a-z0-9-]{{1,32}})/({_NUMBER})/(.+)", re.DOTALL)
_KEY = re.compile(rf"keys/([a-z0-9-]{{1,32}})-({_NUMBER})-(?:header|[0-9a-f]{{32}})")
_ENTRY = re.compile(r"log/([0-9]{8})")
_INDEX = re.compile(r"index/([0-9a-f]{8})-([0-9a-f]{32})")


def _chain(group: str, number: str) -> ChainName | None:
    """None for a number that no chain has: they are u32 and counted from 1."""
    return ChainName(group, int(number)) if 0 < int(number) < 2**32 else None


def parse_pack(key: str) -> PackName | None:
    """The parts of a pack's key, or None for any other key."""
    found = _PACK.fullmatch(key)
    chain = _chain(found[2], found[3]) if found else None
    if not found or chain is None or not int(found[4], 16):
        return None
    return PackName(storage=found[1], chain=chain, number=int(found[4], 16), pack_id=bytes.fromhex(found[5]))


def parse_chain(key: str) -> tuple[ChainName, str] | None:
    """The chain a key below ``chains/`` belongs to, and the rest of the key; None for any other key."""
    found = _CHAIN.fullmatch(key)
    chain = _chain(found[1], found[2]) if found else None
    return (chain, found[3]) if found and chain is not None else None


def chain_of(key: str) -> ChainName | None:
    """The chain that an object belongs to by its name; None for objects of none, and for names of no object."""
    if chain := parse_chain(key):
        return chain[0]
    if pack := parse_pack(key):
        return pack.chain
    found = _KEY.fullmatch(key)
    return _chain(found[1], found[2]) if found else None


def parse_entry(rest: str) -> int | None:
    """The sequence number of ``log/<seq>``, from 1 on."""
    found = _ENTRY.fullmatch(rest)
    return int(found[1]) or None if found else None


def parse_index(rest: str) -> tuple[int, bytes] | None:
    """Pack number and id of ``index/<pack>-<id>``; packs are counted from 1."""
    found = _INDEX.fullmatch(rest)
    return (int(found[1], 16), bytes.fromhex(found[2])) if found and int(found[1], 16) else None
