"""Entries of logs, opened once: a log is read whole whenever its chain is opened, and an entry never changes.

Kept by what it was opened from and with, so that other bytes, another place or another key are opened anew.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from hashlib import sha256

from gateway.format import log
from gateway.format.keys import ChainKeys
from gateway.format.log import Entry
from gateway.model.ids import ChainName

LIMIT_ENTRIES = 4096
LIMIT_ENTRY_BYTES = 16 * 1024
"""LIMIT: of entries that are kept. Most have one or two KiB; one that declares very many packs is opened every time."""

_Mark = tuple[bytes, bytes, ChainName, int, bytes]
_opened: OrderedDict[_Mark, Entry] = OrderedDict()
_lock = threading.Lock()


def opened(data: bytes, sequence: int, chain: ChainName, keys: ChainKeys, address: str) -> Entry:
    """As `log.decode_entry`, whose errors are never kept."""
    if len(data) > LIMIT_ENTRY_BYTES:
        return log.decode_entry(data, sequence, chain, keys, address)
    mark = keys.repository, keys.log, chain, sequence, sha256(data).digest()
    with _lock:
        entry = _opened.get(mark)
        if entry is not None:
            _opened.move_to_end(mark)
            return entry
    entry = log.decode_entry(data, sequence, chain, keys, address)
    with _lock:
        _opened[mark] = entry
        if len(_opened) > LIMIT_ENTRIES:
            _opened.popitem(last=False)
    return entry
