"""Chains stay dense: what is hardly used is stored anew, little by little, until nothing needs the old pack."""

from __future__ import annotations

import contextlib
import random
import shutil
from datetime import timedelta

import pytest

from gateway.api import Reference
from gateway.catalog import Catalog
from gateway.format import names
from gateway.jobs.retire import KEY
from gateway.model.ids import in_ranges
from gateway.policy.density import SHARE
from gateway.repository.fold import GenerationState, as_full
from gateway.repository.lists import read_list
from tests.flow.gateways import KIB, Gateway
from tests.flow.test_deltas import PAGE, write_pages
from tests.flow.trees import tree


def newest(gateway: Gateway) -> GenerationState:
    context = gateway.engine._reading()
    chain = context.open_chain(context.chains_of("src")[-1])
    return max(chain.fold.generations.values(), key=lambda each: each.commit.number)


def needed(gateway: Gateway) -> set[int]:
    """The data packs that the newest generation needs, which are exactly those its files stand on."""
    context = gateway.engine._reading()
    chain = context.open_chain(context.chains_of("src")[-1])
    commit = newest(gateway).commit
    reader, exact = context.reader(chain), set[int]()
    for item in read_list(commit.files, reader.fetch, "list"):
        for pack, segment, _, _ in reader.closures.parts(getattr(item, "runs", [])):
            exact |= reader.closures.of(pack, segment).packs
    said = {number for number in in_ranges(commit.needs) if chain.fold.packs[number].declaration.storage != names.META}
    assert said == exact
    return said


def bound(gateway: Gateway) -> float:
    """What one generation may store anew, and the segments that are on their way when it is reached."""
    context = gateway.engine._reading()
    chain = context.open_chain(context.chains_of("src")[-1])
    return SHARE * as_full(chain.fold, newest(gateway).commit.statistics.data_bytes) + 4 * 2 * 16 * KIB


def sparse(gateway: Gateway) -> None:
    """Two generations, the second of which uses an eighth of the first's packs. Each file is a stream of its own."""
    gateway.change(sizes={"own_stream_bytes": 8 * KIB})
    for number in range(64):
        gateway.source.noise(f"{number:02d}", 20 * KIB)
    gateway.made()
    for number in range(64):
        if number % 8:
            gateway.source.noise(f"{number:02d}", 20 * KIB)
    gateway.made()


def test_a_pack_of_which_little_is_left_gets_free(gateway: Gateway) -> None:
    sparse(gateway)
    first = {number for number in needed(gateway) if number <= 5}
    assert first
    assert newest(gateway).commit.statistics.retired == 0
    content = tree(gateway.source.root)
    anew = []
    for number in range(12):
        gateway.source.write("99", b"%d" % number)
        gateway.made()
        anew.append(newest(gateway).commit.statistics.retired)
        assert anew[-1] <= bound(gateway)
        assert content.items() <= tree(gateway.source.root).items()
        assert gateway.restored() == tree(gateway.source.root)
        if not needed(gateway) & first:
            break
    assert not needed(gateway) & first
    assert sum(anew) >= 8 * 20 * KIB
    assert len([each for each in anew if each]) > 1
    assert len(gateway.list("src@1")) == 64
    gateway.restore("src@1")


def test_what_stands_on_a_retired_pack_goes_with_it(gateway: Gateway) -> None:
    write_pages(gateway, "db", 1600)
    gateway.made()
    first = needed(gateway)
    data = bytearray(gateway.source.path("db").read_bytes())
    chance = random.Random(1)
    data[: 1400 * PAGE] = chance.randbytes(1400 * PAGE)
    gateway.source.write("db", bytes(data))
    gateway.made()
    for seed in range(2, 40):
        # Half of what is left of the first generation is only its base from here on.
        tail = gateway.source.path("db").read_bytes()
        changed = bytearray(tail)
        for page in chance.sample(range(1400, 1600), 4):
            changed[page * PAGE : page * PAGE + 20] = chance.randbytes(20)
        gateway.source.write("db", bytes(changed))
        gateway.made()
        assert newest(gateway).commit.statistics.retired <= bound(gateway)
        if seed % 8 == 0:
            assert gateway.restored() == tree(gateway.source.root)
    sparse = {number for number in first if number in needed(gateway)}
    assert len(sparse) < len(first)


def test_small_packs_are_joined(gateway: Gateway) -> None:
    gateway.source.noise("base", 4000 * KIB)
    most = anew = 0
    for number in range(60):
        gateway.clock.advance(timedelta(days=1))
        gateway.source.noise(f"{number:02d}", 5 * KIB)
        gateway.made()
        most, anew = max(most, len(needed(gateway))), anew + newest(gateway).commit.statistics.retired
    assert most < 20 + 32
    assert 2 * 13 * 5 * KIB <= anew < 60 * 5 * KIB
    assert gateway.restored() == tree(gateway.source.root)


def test_retiring_alone_makes_no_generation(gateway: Gateway) -> None:
    sparse(gateway)
    assert gateway.engine._reading().catalog.meta(KEY + "src/000001")
    assert gateway.ingest().generation is None
    gateway.source.write("new", b"1")
    gateway.made()
    assert newest(gateway).commit.statistics.retired > 0


def test_a_file_that_cannot_be_read_again_stays_as_it_is(gateway: Gateway) -> None:
    sparse(gateway)
    gateway.source.path("link").symlink_to("00")
    with contextlib.ExitStack() as writers:
        for path in gateway.source.root.iterdir():
            if not path.is_symlink():
                writers.enter_context(path.open("r+b"))
        gateway.made()
    assert newest(gateway).commit.statistics.retired == 0
    assert not newest(gateway).commit.left_out
    assert gateway.restored() == tree(gateway.source.root)


@pytest.mark.parametrize("text", [None, "", "{", '{"generation":"00","packs":[1]}', '{"generation":"%s","packs":[77]}'])
def test_a_plan_that_is_lost_or_wrong_retires_nothing(gateway: Gateway, text: str | None) -> None:
    sparse(gateway)
    generation = newest(gateway).commit.generation.hex()
    gateway.close()
    with Catalog(gateway.config.state.directory / "catalog.sqlite") as catalog:
        catalog.set_meta(KEY + "src/000001", text and text.replace("%s", generation))
    gateway.source.write("new", b"1")
    gateway.made()
    assert newest(gateway).commit.statistics.retired == 0
    assert gateway.restored() == tree(gateway.source.root)


def test_an_index_made_again_has_the_newest_place(gateway: Gateway) -> None:
    """Else chunks that were stored anew would be referred to in the old pack again."""
    sparse(gateway)
    for number in range(8):
        gateway.source.write("new", b"%d" % number)
        gateway.made()
    before = needed(gateway)
    gateway.close()
    shutil.rmtree(gateway.config.state.directory / "ids")
    for path in gateway.source.root.iterdir():
        path.touch()
    gateway.source.write("new", b"last")
    gateway.made()
    assert needed(gateway) - before == {max(needed(gateway))}


def test_show_says_what_was_stored_anew(gateway: Gateway) -> None:
    sparse(gateway)
    gateway.source.write("new", b"1")
    gateway.made()
    taken = gateway.engine.show(Reference.parse("src")).statistics
    assert taken is not None
    assert taken.retired_bytes == newest(gateway).commit.statistics.retired
