"""A source that is destroyed goes on being backed up, but nothing good is let go because of it."""

from __future__ import annotations

from gateway.config.values import ReleaseConfig
from tests.flow.gateways import KIB, Gateway


def alarms(gateway: Gateway) -> list[str]:
    return [each.kind for each in gateway.engine.status().alarms]


def test_files_encrypted_in_place_raise_an_alarm_until_somebody_accepts_it(gateway: Gateway) -> None:
    gateway.change(release=ReleaseConfig(keep_generations=1))
    for number in range(20):
        gateway.source.write(f"f{number}", b"a line of text that compresses well, number %d\n" % number * 3000)
    gateway.made()
    gateway.source.write("f0", b"and another text\n" * 9000)
    gateway.made()
    assert not alarms(gateway)
    for number in range(20):
        gateway.source.noise(f"f{number}", 140 * KIB)
    gateway.made()
    assert alarms(gateway) == ["anomaly"]
    (report,) = gateway.engine.release("src")
    assert "anomaly" in report.reason
    gateway.source.noise("f1", 10 * KIB)
    gateway.made()
    assert alarms(gateway) == ["anomaly"], "only a person closes it"
    assert gateway.engine.accept("src", operator="alice")
    assert not gateway.engine.accept("src")
    assert not alarms(gateway)


def test_a_source_that_is_emptied_raises_one(gateway: Gateway) -> None:
    for number in range(20):
        gateway.source.write(f"f{number}", b"text")
    gateway.made()
    for number in range(15):
        gateway.source.path(f"f{number}").unlink()
    gateway.source.write("new", b"1")
    gateway.made()
    assert alarms(gateway) == ["anomaly"]
