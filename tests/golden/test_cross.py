"""What the product writes today, scripts/rescue.py reads the same; what the other hand wrote, the product reads."""

from __future__ import annotations

import shutil
from base64 import b64decode
from pathlib import Path

import pytest

from gateway.api import Depth, Reference
from gateway.errors import UsageError
from gateway.format import log, names
from gateway.repository import lists
from tests.golden import compared, described, make, spec_writer
from tests.golden.product import Product


@pytest.mark.parametrize("name", make.GOLDENS)
def test_both_read_what_the_product_writes(name: str, tmp_path: Path) -> None:
    product, facts = make.build(name, tmp_path / "made")
    compared.rescue_agrees(facts, product.root, tmp_path / "rescue", with_sheet=False)
    again = compared.opened_product(facts, product.root, tmp_path / "product")
    compared.product_agrees(facts, again, with_sheet=True)
    if not facts["newer"]:
        latest = list(facts["generations"].values())[-1]
        source = described.tree(product.spool)
        if latest["kind"] == "commit":
            wanted = described.wanted(latest["records"], latest["contents"])
            special = {path for path, one in source.items() if one["type"] > 4}
            assert {path: one for path, one in source.items() if path not in special} == wanted


def test_both_read_what_the_other_hand_writes(tmp_path: Path) -> None:
    product, facts = make.other_hand(tmp_path / "made")
    compared.rescue_agrees(facts, product.root, tmp_path / "rescue", with_sheet=False)
    compared.product_agrees(facts, product, with_sheet=False)


def test_items_that_pass_over_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry, its holes and its runs may each lie in a part of their own; what follows begins in such a part, too."""
    for part_bytes in (60, 200):
        monkeypatch.setattr(lists, "PART_BYTES", part_bytes)
        builder = make.Builder(tmp_path / f"made-{part_bytes}", "parts")
        for name in ("a", "b"):
            builder.file(name, 4096, b"x" * 4096, 4096, make.noise(name, 9000), 8192)
            builder.file(name + "-empty")
        generation = builder.ingest()
        facts: compared.Facts = {
            "source": builder.source, "passphrase": make.PASSPHRASE, "sheet": builder.sheet, "newer": False,
            "damaged": False, "generations": {}, "catalog": [],
        }  # fmt: skip
        make.expect(builder, facts, builder.contents)
        compared.rescue_agrees(facts, builder.root, tmp_path / f"rescue-{part_bytes}", with_sheet=False)
        compared.product_agrees(facts, builder, with_sheet=False)
        with builder.opened() as engine:
            for record in facts["generations"][generation]["records"]:
                path = b64decode(record["path"])
                assert [each.path for each in engine.list_files(Reference(source="files"), path)] == [path]


def test_a_deleted_repository_json_ends_nothing(tmp_path: Path) -> None:
    product, facts = make.build("tiny-one", tmp_path / "made")
    (product.root / "repository.json").unlink()
    with product.opened() as engine:
        assert [problem.address for problem in engine.rebuild().problems] == ["repository.json"]
        assert [problem.address for problem in engine.verify().problems] == ["repository.json"]
    assert product.records() == {g: each["records"] for g, each in facts["generations"].items()}
    assert compared.opened_rescue(facts, product.root, with_sheet=True).report.damage == ["repository.json: missing"]
    # A new repository in its place would delete the slots that still open this one.
    shutil.rmtree(product.state)
    slots = sorted((product.root / "slots").iterdir())
    with product.opened() as engine, pytest.raises(UsageError, match="chains of a repository"):
        engine.init()
    assert sorted((product.root / "slots").iterdir()) == slots


@pytest.mark.parametrize(("depth", "good"), [(8, True), (9, False)])
def test_the_bound_of_depth_does_not_depend_on_what_was_read_before(tmp_path: Path, depth: int, good: bool) -> None:
    w = spec_writer.Writer(tmp_path / "repository")
    chunks = [b"%d" % i + b"text " * 50 for i in range(depth + 1)]
    w.pack(1, "hot", [(1, [chunks[0]], []), *((2, [chunks[i]], [1, i - 1, 1]) for i in range(1, depth + 1))])
    records = [spec_writer.entry("a", 1, data=chunks[-1], runs=1), [3, [1, depth, 1]]]
    body = spec_writer.framed(records)
    w.pack(2, "meta", [(0, [body], [])])
    w.generation("commit", w.seed.draw(16), 1, [1, 2], [0, len(body), [2, 0, 1]], records)
    product = Product(tmp_path, store=w.root, passphrase=spec_writer.PASSPHRASE)
    product.store.create_root()
    with product.opened() as engine:
        engine.rebuild()
        assert bool(engine.verify(depth=Depth.DATA).problems) != good  # reads the pack's segments one after the other
    with product.opened() as engine:
        report = engine.restore(Reference(source="files"), tmp_path / "out", incomplete=True)
        assert bool(report.left_out) != good


def test_a_chain_that_has_ended(tmp_path: Path) -> None:
    """With its wraps it is read as ended; without them it is finished and not missed; its number stays."""
    product, _ = make.build("tiny-one", tmp_path / "made")
    assert isinstance(product, make.Builder)
    opened = product.chain()[1]
    sequence, digest = opened.head
    end = log.End((), sequence, digest, 1_700_000_000_000, bytes(16))
    data = log.encode_end(end, opened.name, opened.keys, bytes(32))
    path = product.root / names.end(opened.name)
    for broken in (True, False):
        path.write_bytes(data[:-1] + b"x" if broken else data)
        with product.opened() as engine:
            report = engine.rebuild()
            assert (bool(report.problems), report.generations) == (broken, int(broken))
    with product.opened() as engine:
        assert not engine.verify(depth=Depth.DATA).problems
    for path in sorted(p for p in product.root.rglob("*") if p.is_file() and not p.name.endswith(("header", "end"))):
        if path.relative_to(product.root).parts[0] in ("chains", "keys", "packs"):
            path.unlink()
    with product.opened() as engine:  # who remembers its log does not take a word for it that nobody can check
        assert [problem.kind for problem in engine.rebuild().problems] == ["rolled-back"]
    shutil.rmtree(product.state)
    with product.opened() as engine:
        assert not engine.rebuild().problems
        assert not engine.verify(depth=Depth.DATA).problems
    product.file("file", b"anew")
    product.ingest()
    with product.opened() as engine:
        assert [info.chain for info in engine.generations()] == ["files/000002"]
