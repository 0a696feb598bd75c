"""What the product writes today, scripts/rescue.py reads the same; what the other hand wrote, the product reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden import compared, described, make


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
