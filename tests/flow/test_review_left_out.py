"""However much is left out, and whatever it is called, a generation can be committed."""

from __future__ import annotations

from tests.flow.gateways import Gateway


def test_long_names_of_what_is_left_out_fit_into_an_entry(gateway: Gateway) -> None:
    gateway.change(minimum_evidence=2)
    deep = gateway.source.root / ("x" * 240) / ("y" * 240) / ("z" * 240) / ("w" * 240)
    deep.mkdir(parents=True)
    for number in range(1100):
        (deep / f"{number:0200}").write_bytes(b"1")
    report = gateway.ingest()
    assert report.generation is not None
    assert report.generation.left_out == 1100
    assert report.held_back
    assert len(report.held_back) + report.held_back_more == 1100
