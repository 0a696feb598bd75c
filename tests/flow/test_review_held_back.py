"""Names of files that are held back."""

from __future__ import annotations

import os

from tests.flow.gateways import Gateway
from tests.flow.trees import tree


def test_no_link_leads_to_a_file_below_the_minimum_evidence(gateway: Gateway) -> None:
    gateway.change(minimum_evidence=2)
    gateway.source.noise("a", 1000)
    gateway.made(seal_now=True, operator="alice")
    gateway.source.noise("b", 1000)
    os.link(gateway.source.path("b"), gateway.source.path("c"))
    gateway.source.path("d").mkdir()
    report = gateway.ingest()
    assert {left.path for left in report.held_back} == {b"b", b"c"}
    assert gateway.list() == [b"a", b"d"]
    assert gateway.restored().keys() == {b"a", b"d"}
    gateway.made(seal_now=True, operator="alice")
    assert gateway.restored() == tree(gateway.source.root)
