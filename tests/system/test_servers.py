"""The servers of the tests themselves: they start, survive a kill, and stand side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.servers.postgresql import PostgreSQL, unpack_tar_backup
from tests.servers.process import ServerError
from tests.servers.seaweedfs import SeaweedFS


@pytest.mark.needs_seaweedfs
def test_seaweedfs_keeps_objects_and_refuses_strangers(seaweedfs: SeaweedFS) -> None:
    seaweedfs.create_bucket("keeps-objects")
    client = seaweedfs.client()
    client.put_object(Bucket="keeps-objects", Key="a", Body=b"payload")
    assert client.get_object(Bucket="keeps-objects", Key="a")["Body"].read() == b"payload"
    client.close()

    stranger = SeaweedFS(seaweedfs.directory, secret_key="wrong")
    stranger._ports = seaweedfs._ports
    client = stranger.client()
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        client.list_objects_v2(Bucket="keeps-objects")
    client.close()


@pytest.mark.needs_seaweedfs
def test_two_seaweedfs_side_by_side_and_one_survives_its_kill(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    with SeaweedFS(tmp_path) as second:
        assert second.endpoint != seaweedfs.endpoint
        second.create_bucket("survives")
        client = second.client()
        client.put_object(Bucket="survives", Key="a", Body=b"payload")
        endpoint = second.endpoint
        second.kill()
        second.start()
        assert second.endpoint == endpoint
        assert client.get_object(Bucket="survives", Key="a")["Body"].read() == b"payload"
        client.close()
    with pytest.raises(ServerError, match="not running"):
        _ = second.pid


@pytest.mark.needs_postgresql
def test_postgresql_backups_of_both_formats_start_again(tmp_path: Path) -> None:
    with PostgreSQL() as server:
        server.pgbench_init(scale=1)
        server.base_backup(tmp_path / "plain", format="plain")
        server.verify_backup(tmp_path / "plain")
        server.pgbench(transactions=50)
        server.base_backup(tmp_path / "tar", format="tar")
        assert server.psql("select count(*) from pgbench_history") == "50"

        unpack_tar_backup(tmp_path / "tar", tmp_path / "unpacked")
        server.verify_backup(tmp_path / "unpacked")
        with (
            PostgreSQL.start_from(tmp_path / "plain") as before,
            PostgreSQL.start_from(tmp_path / "unpacked") as after,
        ):
            assert before.psql("select count(*) from pgbench_history") == "0"
            assert after.psql("select count(*) from pgbench_history") == "50"
        server.verify_backup(tmp_path / "plain")


@pytest.mark.needs_postgresql
def test_postgresql_recovers_from_its_kill_and_says_what_is_wrong() -> None:
    with PostgreSQL() as server:
        server.psql("create table t (x int); insert into t values (1)")
        server.kill()
        server.start()
        assert server.psql("select x from t") == "1"
        with pytest.raises(ServerError, match="does not exist"):
            server.psql("select * from nowhere")
