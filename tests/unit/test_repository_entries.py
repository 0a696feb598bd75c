"""An entry that was opened is not opened again, and nothing that is another one is taken for it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from gateway.errors import Corrupt
from gateway.format import log
from gateway.format.keys import ChainKeys
from gateway.format.log import Close, Entry
from gateway.model.ids import ChainName
from gateway.repository import entries

CHAIN = ChainName("src", 1)
KEYS = ChainKeys.of(b"k" * 32, b"r" * 16)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sequence numbers of what was really opened."""
    found: list[int] = []
    decode = log.decode_entry

    def noted(data: bytes, sequence: int, *rest: Any) -> Entry:
        found.append(sequence)
        return decode(data, sequence, *rest)

    monkeypatch.setattr(log, "decode_entry", noted)
    monkeypatch.setattr(entries, "_opened", type(entries._opened)())
    return found


def made(why: str, sequence: int = 3, keys: ChainKeys = KEYS) -> bytes:
    entry = Entry(kind=log.CLOSE, writer=b"w" * 16, before=b"b" * 32, time=12, payload=Close(why))
    return log.encode_entry(entry, sequence, CHAIN, keys, os.urandom(32))


def opened(data: bytes, sequence: int = 3, chain: ChainName = CHAIN, keys: ChainKeys = KEYS) -> Entry:
    return entries.opened(data, sequence, chain, keys, "log/x")


def test_it_is_opened_once(decoded: list[int]) -> None:
    data = made("why")
    first = opened(data)
    assert first.payload == Close("why")
    assert opened(bytes(bytearray(data))) is first
    assert decoded == [3]


def test_other_bytes_another_place_and_another_key_are_opened_anew(decoded: list[int]) -> None:
    data = made("why")
    opened(data)
    flipped = data[:60] + bytes([data[60] ^ 1]) + data[61:]
    others = ChainKeys.of(b"K" * 32, b"r" * 16)
    for _ in range(2):
        with pytest.raises(Corrupt):
            opened(flipped)
        with pytest.raises(Corrupt):
            opened(data, sequence=4)
        with pytest.raises(Corrupt):
            opened(data, chain=ChainName("src", 2))
        with pytest.raises(Corrupt):
            opened(data, keys=others)
    assert len(decoded) == 9, "an error is not kept"


def test_few_and_small_ones_are_kept(decoded: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "LIMIT_ENTRIES", 2)
    data = {number: made("why", number) for number in (1, 2, 3)}
    for number in (1, 2, 1, 3, 1, 2):
        opened(data[number], number)
    assert decoded == [1, 2, 3, 2]
    monkeypatch.setattr(entries, "LIMIT_ENTRY_BYTES", len(data[1]) - 1)
    opened(data[1], 1)
    assert decoded == [1, 2, 3, 2, 1]
