"""A file of more than two extents: its digest is that of its pieces, and they are read and restored by several."""

from __future__ import annotations

from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any

import pytest

from gateway.api import Reference
from gateway.config.sizes import WriterSizes
from gateway.repository.writer import ChainWriter
from tests.flow.conftest import in_memory, proved
from tests.flow.gateways import KIB, Born, Gateway
from tests.flow.trees import noise, tree

MIB = KIB * KIB
EXTENT = 64 * MIB


SIZES = WriterSizes(part_bytes=4 * MIB, pack_bytes=24 * MIB, small_pack_bytes=MIB)


@pytest.mark.slow
def test_a_file_of_several_extents(born: Born) -> None:
    with in_memory() as root, proved(root, born) as gateway:
        gateway.change(sizes={name: getattr(SIZES, name) for name in WriterSizes.__slots__})
        pieces(gateway)
        made = gateway.made()
        assert made.bytes == 2 * (2 * EXTENT + 5 * MIB) + EXTENT
        whole = tree(gateway.source.root)
        assert gateway.restored() == whole
        digests = {each.path: each.digest for each in gateway.engine.list_files(Reference.parse("src"))}
        assert len(set(digests.values())) == 3
        # One byte, and everything behind the extent it is in stays what it was.
        gateway.source.overwrite("large", EXTENT - 1, b"!")
        report = gateway.ingest()
        assert 0 < report.new_bytes <= 4 * 64 * KIB
        assert gateway.restored(paths=[b"large"]) == {b"large": tree(gateway.source.root)[b"large"]}


def test_a_file_beyond_an_extent_is_a_stream_of_its_own_whatever_is_configured(born: Born) -> None:
    with in_memory() as root, proved(root, born) as gateway:
        gateway.change(sizes={name: getattr(SIZES, name) for name in WriterSizes.__slots__})
        gateway.change(sizes={"own_stream_bytes": 1024 * MIB})
        gateway.source.write("large", noise(1, MIB) * 65)
        gateway.made()
        assert gateway.restored() == tree(gateway.source.root)


def test_a_file_is_not_recorded_before_all_of_it_was_given_to_the_workers(
    born: Born, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that are done with all they have got while the file's next pieces are still to come."""
    submit = ChainWriter.submit

    def done_at_once(writer: ChainWriter, *extent: Any) -> Future[None]:
        future = submit(writer, *extent)
        wait([future])
        return future

    monkeypatch.setattr(ChainWriter, "submit", done_at_once)
    with in_memory() as root, proved(root, born) as gateway:
        gateway.change(sizes={name: getattr(SIZES, name) for name in WriterSizes.__slots__})
        gateway.config = replace(gateway.config, limits=replace(gateway.config.limits, workers=1))
        gateway.source.write("large", noise(1, MIB) * (4 * 64 + 1))
        gateway.made()
        assert gateway.restored() == tree(gateway.source.root)


def pieces(gateway: Gateway) -> None:
    """Cheap to store: a block that repeats, and some noise at every edge of an extent."""
    block = noise(1, MIB)
    size = 2 * EXTENT + 5 * MIB
    edges = {0, EXTENT - 700, EXTENT, 2 * EXTENT - 1, size - 3000}
    large = gateway.source.write("large", block * (size // MIB))
    sparse = gateway.source.sparse("sparse", size, [(at * 3 * MIB, block) for at in range(size // (3 * MIB))])
    gateway.source.sparse("exact", EXTENT, [(0, block * 64)])
    for path in (large, sparse):
        with path.open("r+b") as file:
            for number, at in enumerate(sorted(edges)):
                file.seek(at)
                file.write(noise(number + 10, 3000)[: size - at])
