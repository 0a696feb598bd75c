"""Object Lock: what HEAD says of it, on all adapters, and what a sweep makes of that, over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import FakeClock, SystemClock
from gateway.config.retention import RetentionConfig, RetentionRules
from gateway.config.values import Config, RepositoryConfig, SourceConfig, StateConfig, StorageClass
from gateway.engine import open_engine
from gateway.repository.repository import create
from gateway.store.crc import crc64
from gateway.store.directory import DirectoryStore
from gateway.store.memory import MemoryStore
from gateway.store.port import ObjectStore
from gateway.store.s3 import S3Settings, S3Store
from gateway.store.wrap import RetryingStore
from tests.contract.stores import session
from tests.crash.machine import CHEAP, ENVIRONMENT, PASSPHRASE
from tests.flow.trees import Source

UNTIL = datetime.now(UTC).replace(microsecond=0) + timedelta(days=40)
DATA = b"an object that somebody locks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lockable:
    """A store, and what an administrator does to its objects; None where a store knows no locks."""

    store: ObjectStore
    lock: Callable[[str, datetime], None] | None = None
    hold: Callable[[str, bool], None] | None = None


def bucket_on(url: str, name: str, prefix: str) -> Lockable:
    client: Any = session().client("s3", endpoint_url=url)
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    store = S3Store(
        S3Settings(bucket=name, prefix=prefix, endpoint_url=url, addressing_style="path"), session=session()
    )  # fmt: skip

    def lock(key: str, until: datetime) -> None:
        client.put_object_retention(
            Bucket=name, Key=f"{prefix}/{key}", Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until}
        )

    def hold(key: str, on: bool) -> None:
        client.put_object_legal_hold(
            Bucket=name, Key=f"{prefix}/{key}", LegalHold={"Status": "ON" if on else "OFF"}
        )  # fmt: skip

    return Lockable(store=store, lock=lock, hold=hold)


@pytest.fixture(
    params=["memory", "directory", "moto", pytest.param("seaweedfs", marks=pytest.mark.needs_seaweedfs)]
)  # fmt: skip
def lockable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lockable]:
    kind: str = request.param
    if kind == "memory":
        memory = MemoryStore(FakeClock(datetime(2026, 1, 1, tzinfo=UTC)))
        yield Lockable(
            store=memory, lock=lambda key, until: memory.lock(key, until=until),
            hold=lambda key, on: memory.lock(key, legal_hold=on),
        )  # fmt: skip
    elif kind == "directory":
        directory = DirectoryStore(tmp_path / "store", SystemClock())
        directory.create_root()
        yield Lockable(store=directory)
    else:
        name = "moto_url" if kind == "moto" else "seaweedfs"
        server = request.getfixturevalue(name)
        url = server if isinstance(server, str) else server.endpoint
        made = bucket_on(url, f"locks-{request.node.name.translate(str.maketrans('_[]', '---'))}"[:60].strip("-"), "p")
        yield made
        made.store.close()


def test_head_states_the_date_and_the_hold(lockable: Lockable) -> None:
    store = lockable.store
    for key in ("packs/a", "packs/b", "packs/c"):
        store.put(key, DATA, crc64=crc64(DATA))
    if lockable.lock is None or lockable.hold is None:
        assert {(each.locked_until, each.legal_hold) for each in map(store.head, ("packs/a", "packs/b"))} == {
            (None, False)
        }
        return
    lockable.lock("packs/a", UNTIL)
    lockable.hold("packs/b", True)
    found = {key: store.head(key) for key in ("packs/a", "packs/b", "packs/c")}
    assert [(each.locked_until, each.legal_hold) for each in found.values()] == [
        (UNTIL, False), (None, True), (None, False),
    ]  # fmt: skip
    assert {each.locked_until for each in store.list_objects("packs/")} == {None}, "a listing states no locks"
    lockable.hold("packs/b", False)
    assert not store.head("packs/b").legal_hold


def test_a_sweep_shows_the_dates_and_waits_for_them(moto_url: str, tmp_path: Path) -> None:
    """A whole gateway on a bucket behind HTTP: of two packs that are free one is locked, then held, then let go."""
    bucket = bucket_on(moto_url, "locked-sweep", "gateway")
    clock = SystemClock()
    store = RetryingStore(bucket.store, clock)
    create(store, clock, PASSPHRASE, region="", endpoint="", cost=CHEAP)
    spool = Source(tmp_path / "spool")
    spool.root.mkdir()
    config = Config(
        repository=RepositoryConfig(url="s3://locked-sweep/gateway", endpoint_url=moto_url),
        state=StateConfig(directory=tmp_path / "state"),
        sources=(SourceConfig(name="src", path=spool.root, storage_class=StorageClass.HOT),),
        retention=(RetentionConfig(sources=("src",), rules=RetentionRules(keep_last=1, sweep_after=timedelta())),),
    )
    engine = open_engine(config, store=store, environment=ENVIRONMENT)
    try:
        for number in range(3):
            spool.noise(f"own-{number}", 60_000)
            spool.path(f"own-{number - 1}").unlink(missing_ok=True)
            (report,) = engine.ingest("src", seal_now=True).sources
            assert report.generation is not None
        engine.retention_apply(approve=engine.retention_plan().plan)
        free = [each.key for each in engine.sweep(dry_run=True).objects if each.verdict == "condemn"]
        data = [key for key in free if "/meta/" not in key]
        assert len(data) == 2
        assert bucket.lock is not None
        assert bucket.hold is not None
        bucket.lock(data[0], UNTIL)
        shown = {each.key: each for each in engine.sweep(dry_run=True).objects}
        assert (shown[data[0]].verdict, shown[data[0]].until) == ("wait", UNTIL)
        assert "locked in the store" in shown[data[0]].reason
        assert engine.sweep().deleted == len(free) - 1
        assert store.head(data[0]).size
        # Ended by who may (moto takes a date that has passed; S3 wants none at all), and held by hand instead.
        client: Any = session().client("s3", endpoint_url=moto_url)
        client.put_object_retention(
            Bucket="locked-sweep", Key=f"gateway/{data[0]}", BypassGovernanceRetention=True,
            Retention={"Mode": "GOVERNANCE", "RetainUntilDate": datetime.now(UTC) - timedelta(days=1)},
        )  # fmt: skip
        bucket.hold(data[0], True)
        (waiting,) = [each for each in engine.sweep().objects if each.key == data[0]]
        assert (waiting.verdict, waiting.until) == ("wait", None)
        assert "legal hold" in waiting.reason
        bucket.hold(data[0], False)
        assert engine.sweep().deleted == 1
        assert not [each.key for each in store.list_objects(data[0])]
    finally:
        engine.close()
        bucket.store.close()
