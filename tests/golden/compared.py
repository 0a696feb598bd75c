"""Product, rescue.py and what is expected of a repository, all against each other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from gateway.api import Depth
from gateway.errors import NewerFormat
from scripts import rescue
from tests.golden import described
from tests.golden.product import Product

Facts = dict[str, Any]


def opened_product(facts: Facts, root: Path, base: Path) -> Product:
    """The product on a copy of a repository: it may write there."""
    copy = base / "repository"
    shutil.copytree(root, copy)
    return Product(base, store=copy, source=facts["source"], passphrase=facts["passphrase"], sheet=facts["sheet"])


def opened_rescue(facts: Facts, root: Path, *, with_sheet: bool) -> rescue.Repository:
    secrets = (None, facts["sheet"]) if with_sheet else (facts["passphrase"], None)
    return rescue.Repository(rescue.Store(root), *secrets, rescue.Report())


def product_agrees(facts: Facts, product: Product, *, with_sheet: bool) -> None:
    """Rebuild, lists, restores and a whole verification are as expected."""
    if facts["newer"]:
        with product.opened(with_sheet=with_sheet) as engine, pytest.raises(NewerFormat) as caught:
            engine.rebuild()
        assert caught.value.exit_code == 15
        return
    with product.opened(with_sheet=with_sheet) as engine:
        engine.rebuild()
        rows = {"g" + row.generation.hex(): row for row in engine._writing().catalog.generations()}
    wanted = facts["generations"]
    assert {generation: (row.number, str(row.state)) for generation, row in rows.items()} == {
        generation: (each["number"], each["state"]) for generation, each in wanted.items()
    }
    assert product.rows() == facts["catalog"]
    assert product.records() == {generation: each["records"] for generation, each in wanted.items()}
    for generation, each in wanted.items():
        if each["state"] != "expired":
            out = product.base / f"out-{with_sheet}-{generation}"
            product.restore(generation, out, with_sheet=with_sheet)
            assert described.tree(out) == described.wanted(each["records"], each["contents"])
    with product.opened(with_sheet=with_sheet) as engine:
        assert not engine.verify(depth=Depth.DATA).problems
        if facts["damaged"]:  # what the log calls damaged is whole, which verify has found and written down
            states = {str(row.state) for row in engine._writing().catalog.generations()}
            assert states == {"protected"}


def rescue_agrees(facts: Facts, root: Path, out: Path, *, with_sheet: bool) -> None:
    """The same of scripts/rescue.py, through its command line where it can be."""
    secret = out / "secret"
    out.mkdir()
    secret.write_text(facts["sheet"] if with_sheet else facts["passphrase"] + "\n")
    option = "--recovery-sheet" if with_sheet else "--passphrase-file"

    def run(*args: str | Path) -> int:
        return rescue.main([str(root), option, str(secret), *map(str, args)])

    if facts["newer"]:
        assert run("list") == rescue.NEWER
        return
    assert run("check") == (rescue.DAMAGE if facts["damaged"] else rescue.OK)
    repository = opened_rescue(facts, root, with_sheet=with_sheet)
    found = {"g" + g.id.hex(): g for g in repository.generations()}
    assert found.keys() == facts["generations"].keys()
    for generation, each in facts["generations"].items():
        read = found[generation]
        state = "expired" if read.expired else "incomplete" if read.why_not() else "protected"
        assert (read.number, state, read.checkpoint) == (each["number"], each["state"], each["kind"] == "checkpoint")
        assert described.rescue_records(repository, read) == each["records"]
        to = out / generation
        code = run("restore", f"{read.source}@{generation}", "--to", to, "--incomplete")
        tree = described.wanted(each["records"], each["contents"])
        left_out = any(record.get("type", 0) > rescue.FIFO for record in each["records"])
        assert code == (rescue.PARTIAL if left_out or state == "incomplete" else rescue.OK)
        assert described.tree(to) == tree
    assert repository.report.damage == []
