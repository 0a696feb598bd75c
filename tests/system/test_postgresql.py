"""The main job with a real producer: base backups of PostgreSQL, to the store and back on an empty machine.

Proof of a restore is what a DBA takes for it: `pg_verifybackup` passes, and a server that starts *in the restored
directory* has the very rows that the source had when the backup was made.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.postgresql import PostgreSQL, server_user, unpack_tar_backup, verify_backup
from tests.servers.seaweedfs import SeaweedFS
from tests.system.command import Gateway, Place, in_bucket, in_directory

SCALE = 2
TABLES = ("pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history", "notes")
NEW, REPLACED = "in new directories", "replaced in place"


@pytest.fixture
def open_place() -> Iterator[Path]:
    """Where the server's user may pass; pytest's own directories are closed to it."""
    path = Path(tempfile.mkdtemp(prefix="gw-system-", dir="/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def bucket(seaweedfs: SeaweedFS, request: pytest.FixtureRequest) -> Place:
    name = f"postgresql-{'new' if request.node.callspec.params['style'] == NEW else 'replaced'}"
    seaweedfs.create_bucket(name)
    return in_bucket(seaweedfs, name)


@pytest.mark.needs_postgresql
@pytest.mark.parametrize("style", [NEW, REPLACED])
def test_base_backups_come_back_from_a_directory(style: str, tmp_path: Path, open_place: Path) -> None:
    there_and_back(in_directory(tmp_path / "store"), style, tmp_path, open_place)


@pytest.mark.needs_postgresql
@pytest.mark.needs_seaweedfs
@pytest.mark.parametrize("style", [NEW, REPLACED])
def test_base_backups_come_back_from_a_bucket(style: str, bucket: Place, tmp_path: Path, open_place: Path) -> None:
    there_and_back(bucket, style, tmp_path, open_place)


def there_and_back(place: Place, style: str, tmp_path: Path, open_place: Path) -> None:
    """Two generations of both forms of backup; then everything local is lost, and both come back."""
    spool, work = tmp_path / "spool", tmp_path / "work"
    spool.mkdir()
    work.mkdir()
    gateway = Gateway(tmp_path / "gateway", place, {"pg": spool})
    sheet = gateway.init()
    states: list[dict[str, str]] = []
    stored: list[int] = []
    with PostgreSQL() as source:
        source.pgbench_init(SCALE)
        source.psql("create table notes as select i, repeat(md5(i::text), 9) as text from generate_series(1, 20000) i")
        for number in (1, 2):
            if number == 2:
                source.pgbench(transactions=300)
                source.psql("update notes set text = text || ' seen again' where i % 50 = 0")
            states.append(state_of(source))
            made = work / str(number)
            for form in ("plain", "tar"):
                source.base_backup(made / form, format=form)
            give_to_server(made)
            if style == NEW:
                made.rename(spool / f"night-{number}")
            else:
                if (spool / "nightly").exists():
                    shutil.rmtree(spool / "nightly")
                made.rename(spool / "nightly")
            [report] = gateway.json("ingest", "pg")["sources"]
            assert report["generation"]["state"] == "protected"
            assert report["generation"]["number"] == number
            assert not report["held_back"]
            stored.append(report["stored_bytes"])
    assert states[0] != states[1]
    assert stored[1] < stored[0] / 2, "the second night must cost much less than the first"

    gateway.lose_state()
    shutil.rmtree(spool)
    gateway.run("rebuild", "--recovery-sheet", sheet)
    for number, state in enumerate(states, 1):
        target = open_place / str(number)
        report = gateway.json("restore", f"pg@{number}", "--to", target, "--recovery-sheet", sheet)
        assert not report["left_out"]
        assert not report["notes"]
        nights = {1: ["night-1"], 2: ["night-1", "night-2"]}[number] if style == NEW else ["nightly"]
        assert sorted(os.listdir(target)) == nights
        prove(target / nights[-1], state)


def state_of(server: PostgreSQL) -> dict[str, str]:
    """Per table the number of rows and a sum over their text."""
    return {
        table: server.psql(f"select count(*), coalesce(sum(hashtext(t::text)::bigint), 0) from {table} t")
        for table in TABLES
    }


def give_to_server(directory: Path) -> None:
    """pg_basebackup runs as the server's user where backups are made in earnest; here as root it must be played."""
    user = server_user()
    if user is None:
        return
    entry = pwd.getpwnam(user)
    for top, _, files in os.walk(directory):
        for path in (Path(top), *(Path(top, name) for name in files)):
            os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def prove(backup: Path, state: dict[str, str]) -> None:
    """Both forms of one night's backup are whole, and a server starts from each as it lies there."""
    plain, unpacked = backup / "plain", backup / "unpacked"
    unpack_tar_backup(backup / "tar", unpacked)
    give_to_server(unpacked)
    unpacked.chmod(0o700)
    assert plain.stat().st_mode & 0o7777 == 0o700
    assert plain.owner() == (server_user() or pwd.getpwuid(os.geteuid()).pw_name)
    for data in (plain, unpacked):
        verify_backup(data)
        with PostgreSQL.start_in(data) as server:
            assert state_of(server) == state
