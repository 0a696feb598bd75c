"""Names of objects: parsing undoes formatting, and no second spelling is taken for a name."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.format import names
from gateway.format.names import PackName
from gateway.model.ids import ChainName
from tests.unit.format_values import ids, labels

chains = st.builds(ChainName, labels, st.integers(1, 2**32 - 1))
packs = st.integers(1, 2**32 - 1)
ID = "0123456789abcdef" * 2
CHAIN = ChainName("a", 1)


@given(chains, labels, packs, ids)
def test_a_pack(chain: ChainName, storage: str, number: int, pack_id: bytes) -> None:
    key = names.pack(storage, chain, number, pack_id)
    assert names.parse_pack(key) == PackName(storage=storage, chain=chain, number=number, pack_id=pack_id)
    assert key.startswith(names.pack_prefix(storage, chain))
    assert names.parse_chain(key) is None


@given(chains, packs, ids, st.integers(1, 10**8 - 1))
def test_what_is_below_a_chain(chain: ChainName, number: int, an_id: bytes, sequence: int) -> None:
    for key in (
        names.header(chain),
        names.end(chain),
        names.entry(chain, sequence),
        names.index(chain, number, an_id),
        names.wrap(chain, an_id),
    ):
        parsed = names.parse_chain(key)
        assert parsed is not None
        assert parsed[0] == chain
        assert names.chain_prefix(chain) + parsed[1] == key
        assert names.parse_pack(key) is None
    prefix = names.chain_prefix(chain)
    assert names.parse_entry(names.entry(chain, sequence).removeprefix(prefix)) == sequence
    assert names.parse_index(names.index(chain, number, an_id).removeprefix(prefix)) == (number, an_id)


def test_the_names_of_the_specification() -> None:
    chain, an_id = ChainName("orcl-prod", 12), bytes.fromhex(ID)
    assert names.REPOSITORY == "repository.json"
    assert names.slot(an_id) == f"slots/{ID}.json"
    assert names.header(chain) == "chains/orcl-prod/000012/header"
    assert names.end(chain) == "chains/orcl-prod/000012/end"
    assert names.wrap(chain, an_id) == f"chains/orcl-prod/000012/wraps/{ID}"
    assert names.second_wrap(chain, an_id) == f"keys/orcl-prod-000012-{ID}"
    assert names.entry(chain, 7) == "chains/orcl-prod/000012/log/00000007"
    assert names.index(chain, 255, an_id) == f"chains/orcl-prod/000012/index/000000ff-{ID}"
    assert names.pack("deep", chain, 255, an_id) == f"packs/deep/orcl-prod/000012/000000ff-{ID}"
    assert names.pack(names.META, ChainName("a", 1234567), 1, an_id) == f"packs/meta/a/1234567/00000001-{ID}"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "packs/",
        f"packs/hot/a/000001/00000001-{ID}\n",
        f"/packs/hot/a/000001/00000001-{ID}",
        f"packs/hot/a/000001/00000001-{ID}/",
        f"packs/hot/a/000001/00000001-{ID}.tmp",
        f"packs/hot/a/000001/00000001-{ID[:-1]}",
        f"packs/hot/a/000001/00000001-{ID.upper()}",
        f"packs/hot/a/000001/0000000A-{ID}",
        f"packs/hot/a/000001/0000001-{ID}",
        f"packs/hot/a/000001/000000001-{ID}",
        f"packs/hot/a/000001/00000000-{ID}",
        f"packs/hot/a/000000/00000001-{ID}",
        f"packs/hot/a/00001/00000001-{ID}",
        f"packs/hot/a/0000001/00000001-{ID}",
        f"packs/hot/a/4294967296/00000001-{ID}",
        f"packs/hot/a/99999999999/00000001-{ID}",
        f"packs/hot/a/\u0660\u0660\u0660\u0660\u0660\u0661/00000001-{ID}",
        f"packs/hot/A/000001/00000001-{ID}",
        f"packs/hot/a_b/000001/00000001-{ID}",
        f"packs/hot/{'a' * 33}/000001/00000001-{ID}",
        f"packs/{'a' * 33}/a/000001/00000001-{ID}",
        f"packs//a/000001/00000001-{ID}",
        f"packs/hot//000001/00000001-{ID}",
        f"packs/hot/../000001/00000001-{ID}",
        f"chains/a/000001/index/00000001-{ID}",
    ],
)
def test_what_is_no_pack(key: str) -> None:
    assert names.parse_pack(key) is None


@pytest.mark.parametrize(
    "key",
    [
        "",
        "chains/a/000001",
        "chains/a/000001/",
        "chains/a/000000/header",
        "chains/a/0000001/header",
        "chains/a/00001/header",
        "chains/a/+00001/header",
        "chains/a/ 00001/header",
        "chains/a/4294967296/header",
        "chains/a/\u0661\u0661\u0661\u0661\u0661\u0661/header",
        "chains/A/000001/header",
        "chains/a\n/000001/header",
        f"chains/{'a' * 33}/000001/header",
        "chains//000001/header",
        "chains/a/b/000001/header",
        "xchains/a/000001/header",
        f"keys/a-000001-{ID}",
    ],
)
def test_what_is_no_chain(key: str) -> None:
    assert names.parse_chain(key) is None


@pytest.mark.parametrize(
    "rest",
    [
        "log/0000001",
        "log/000000001",
        "log/00000000",
        "log/00000001\n",
        "log/-0000001",
        "log/0000000\u0661",
        "log/",
        "0000001",
    ],
)
def test_what_is_no_entry(rest: str) -> None:
    assert names.parse_entry("log/00000001") == 1
    assert names.parse_entry(rest) is None


@pytest.mark.parametrize(
    "rest",
    [
        f"index/00000000-{ID}",
        f"index/00000001-{ID}\n",
        f"index/00000001-{ID[:-2]}",
        f"index/1-{ID}",
        f"index/0000000G-{ID}",
    ],
)
def test_what_is_no_index(rest: str) -> None:
    assert names.parse_index(f"index/00000001-{ID}") == (1, bytes.fromhex(ID))
    assert names.parse_index(rest) is None


def reformatted(key: str) -> str | None:
    pack = names.parse_pack(key)
    if pack is not None:
        return names.pack(pack.storage, pack.chain, pack.number, pack.pack_id)
    parsed = names.parse_chain(key)
    if parsed is None:
        return None
    chain, rest = parsed
    sequence, index = names.parse_entry(rest), names.parse_index(rest)
    if sequence is not None:
        return names.entry(chain, sequence)
    return names.index(chain, *index) if index is not None else names.chain_prefix(chain) + rest


@given(st.text("packschinlogdexm0123456789abcdef-/\n\u0661", max_size=60))
def test_nothing_is_accepted_that_is_not_made(key: str) -> None:
    assert reformatted(key) in (None, key)


@given(chains, packs, ids, st.data())
def test_a_changed_name_is_refused_or_the_name_of_what_it_says(
    chain: ChainName, number: int, an_id: bytes, data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from([names.pack("hot", chain, number, an_id), names.index(chain, number, an_id)]))
    at = data.draw(st.integers(0, len(key)))
    other = key[:at] + data.draw(st.text("0afG/-\n \u0661", max_size=2)) + key[at + data.draw(st.integers(0, 2)) :]
    assert reformatted(other) in (None, other)


@given(chains, chains, ids, ids)
def test_two_second_wraps_never_share_a_name(one: ChainName, two: ChainName, first: bytes, second: bytes) -> None:
    same = names.second_wrap(one, first) == names.second_wrap(two, second)
    assert same == ((one, first) == (two, second))


def test_a_prefix_of_second_wraps_may_hold_those_of_another_group() -> None:
    """Groups may look like the end of a name. What is behind the prefix is an id only if it is 32 digits."""
    foreign = names.second_wrap(ChainName("a-000001", 2), bytes.fromhex(ID))
    assert foreign.startswith(names.second_wrap_prefix(CHAIN))
    assert not re.fullmatch("[0-9a-f]{32}", foreign.removeprefix(names.second_wrap_prefix(CHAIN)))
