"""The PostgreSQL producer against what pg_basebackup, pg_dump and pg_dumpall really write."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.model.entry import Evidence
from gateway.spool.producers.base import JobState, JudgedJob
from gateway.spool.producers.postgresql import PostgreSQLProducer
from gateway.spool.producers.view import DirectoryView
from gateway.spool.trailers import State, inspect
from tests.servers.postgresql import PostgreSQL, verify_backup
from tests.servers.process import ServerError

pytestmark = pytest.mark.needs_postgresql

PRODUCER = PostgreSQLProducer()
FORMS = {
    "plain": ("--format=plain",),
    "plain sha256": ("--format=plain", "--manifest-checksums=SHA256"),
    "tar": ("--format=tar",),
    "tar gzip": ("--format=tar", "--gzip"),
    "tar zstd": ("--format=tar", "--compress=server-zstd"),
    "tar fetched": ("--format=tar", "--gzip", "--wal-method=fetch"),
    "tar lz4": ("--format=tar", "--compress=server-lz4"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    with PostgreSQL() as made:
        made.pgbench_init(1)
        # Below the server's own directory: its user may pass there.
        place = tablespace(made)
        place.mkdir()
        owner = made.data.stat()
        os.chown(place, owner.st_uid, owner.st_gid)
        made.psql(f"create tablespace aside location '{place}'")
        made.psql("create table aside (text text) tablespace aside")
        made.psql("insert into aside select repeat('x', 500) from generate_series(1, 2000)")
        yield made


def tablespace(server: PostgreSQL) -> Path:
    return server.socket_directory / "tablespace"


def back_up(server: PostgreSQL, place: Path, form: str) -> Path:
    """`ServerError` where this build of PostgreSQL lacks a compression."""
    method = () if "fetched" in form else ("--wal-method=stream",)
    mapping = (f"--tablespace-mapping={tablespace(server)}={place}-aside",) if "plain" in form else ()
    server._run(
        "pg_basebackup", "-D", str(place), "--checkpoint=fast", "--no-sync", "-l", form, *FORMS[form], *method, *mapping
    )
    return place


def judge(spool: Path) -> JudgedJob:
    view = DirectoryView(spool)
    [found] = PRODUCER.find(view)
    return PRODUCER.judge(view, found)


def why(judged: JudgedJob) -> str:
    return "\n".join(f"{os.fsdecode(reason.path)}: {reason.text}" for reason in judged.reasons)


def system_identifier(server: PostgreSQL) -> str:
    return server.psql("select system_identifier from pg_control_system()")


@pytest.mark.parametrize("form", FORMS)
def test_a_backup_is_verified_and_every_damage_named(server: PostgreSQL, tmp_path: Path, form: str) -> None:
    place = back_up(server, tmp_path / "spool/night", form)
    judged = judge(tmp_path / "spool")
    assert judged.state is JobState.COMPLETE, why(judged)
    assert judged.evidence is (Evidence.MARKER if "lz4" in form else Evidence.MANIFEST)
    if "lz4" not in form:
        assert judged.fact("system-identifier") == system_identifier(server)
        assert judged.fact("version") == server.psql("show server_version").split(".", 1)[0]
        assert judged.fact("label") == form
        assert judged.fact("wal") == "inside"
        assert judged.fact("start-lsn")
        assert judged.provides
        assert judged.fact("tablespace").endswith("-aside" if "plain" in form else "/tablespace")
    kit = PRODUCER.restore_kit(judged)
    assert judged.fact("stop-lsn") in kit

    (place / "backup_manifest").rename(place / "backup_manifest.tmp")
    assert judge(tmp_path / "spool").state is JobState.OPEN
    (place / "backup_manifest.tmp").rename(place / "backup_manifest")

    if form.startswith("plain"):
        damage_plain(server, tmp_path, place)
    elif "lz4" not in form:
        damage_tar(tmp_path, place)


def damage_plain(server: PostgreSQL, tmp_path: Path, place: Path) -> None:
    """Whatever pg_verifybackup refuses is refused here, and the other way round."""
    relation = server.psql("select pg_relation_filepath('pgbench_accounts')")
    verify_backup(place)
    copies = tmp_path / "copies"

    def judged_copy(number: int) -> tuple[Path, Path]:
        spool = copies / str(number)
        shutil.copytree(place, spool / "night", symlinks=True)
        shutil.copytree(f"{place}-aside", spool / "night-aside")
        [link] = (spool / "night/pg_tblspc").iterdir()
        link.unlink()
        link.symlink_to(spool / "night-aside")
        return spool, spool / "night"

    def refused(spool: Path, text: str) -> None:
        with pytest.raises(ServerError):
            verify_backup(spool / "night")
        judged = judge(spool)
        assert judged.state is JobState.INCOMPLETE
        assert text in why(judged)

    spool, night = judged_copy(1)
    with (night / relation).open("r+b") as file:
        file.seek(100_000)
        byte = file.read(1)
        file.seek(100_000)
        file.write(bytes([byte[0] ^ 1]))
    refused(spool, f"night/{relation}: Its ")

    spool, night = judged_copy(2)
    (night / relation).unlink()
    refused(spool, f"{relation}: It is in the manifest and not in the backup.")

    spool, night = judged_copy(3)
    (night / "base/extra").write_bytes(b"x")
    refused(spool, "night/base/extra: It is not in the manifest.")

    spool, night = judged_copy(4)
    segments = sorted(path for path in (night / "pg_wal").iterdir() if path.is_file() and len(path.name) == 24)
    with segments[-1].open("r+b") as file:
        file.write(bytes(8192))
    refused(spool, f"night/pg_wal/{segments[-1].name}: It does not begin with a WAL page.")

    spool, night = judged_copy(6)
    [row, *_] = sorted(path for path in (spool / "night-aside").rglob("*") if path.is_file() and path.stat().st_size)
    with row.open("r+b") as file:
        file.truncate(row.stat().st_size - 8192)
    refused(spool, f"night-aside/{row.relative_to(spool / 'night-aside')}: It has ")

    spool, night = judged_copy(5)
    (night / "recovery.signal").touch()
    assert judge(spool).state is JobState.COMPLETE
    verify_backup(night)


def damage_tar(tmp_path: Path, place: Path) -> None:
    [base] = place.glob("base.tar*")
    data = base.read_bytes()

    def refused() -> str:
        judged = judge(tmp_path / "spool")
        assert judged.state is JobState.INCOMPLETE
        return why(judged)

    base.write_bytes(data[: len(data) // 2])
    assert "night/base.tar" in refused()
    base.write_bytes(data[: len(data) // 2].ljust(len(data), b"\0"))
    assert "night/base.tar" in refused()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    base.write_bytes(flipped)
    assert "night/base.tar" in refused()
    base.unlink()
    # With no base.tar it is taken for a plain backup of which everything is missing.
    assert "It is in the manifest and not in the backup." in refused()
    base.write_bytes(data)
    for wal in place.glob("pg_wal.tar*"):
        packed = wal.read_bytes()
        wal.write_bytes(packed[: len(packed) // 2])
        refused()
        wal.unlink()
        judged = judge(tmp_path / "spool")
        assert judged.state is JobState.COMPLETE
        assert judged.requires, "without its WAL it needs the archive's"


@pytest.fixture
def open_place() -> Iterator[Path]:
    """Where the server's user may pass; pytest's own directories are closed to it."""
    path = Path(tempfile.mkdtemp(prefix="gw-system-", dir="/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("form", ["plain", "tar gzip"])
def test_a_server_starts_by_the_restore_kit(server: PostgreSQL, tmp_path: Path, open_place: Path, form: str) -> None:
    """The commands of the kit, run in their order as they stand there."""
    place = back_up(server, tmp_path / "spool/night", form)
    judged = judge(tmp_path / "spool")
    data = open_place / "data"
    if form == "plain":
        [oid] = [value.split()[0] for name, value in judged.facts if name == "tablespace"]
        shutil.copytree(place, data, symlinks=True)
        shutil.copytree(f"{place}-aside", open_place / f"ts-{oid}")
    verified = False
    for line in PRODUCER.restore_kit(judged).splitlines():
        command = line.strip()
        if line.startswith("    ") and command.startswith(("mkdir", "cp ", "ln ", "printf", "pg_verifybackup")):
            if command == "pg_verifybackup DATA":
                verify_backup(data)
                verified = True
                continue
            filled = command.replace("DATA", str(data)).replace("BACKUP", str(place))
            subprocess.run(["bash", "-ec", filled.replace("TABLESPACE", str(open_place / "ts"))], check=True)
    assert verified
    owner = server.data.stat()
    for top, directories, files in os.walk(open_place):
        for path in (top, *(os.path.join(top, name) for name in [*directories, *files])):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    data.chmod(0o700)
    with PostgreSQL.start_in(data) as restored:
        assert restored.psql("select count(*) from pgbench_accounts") == "100000"
        assert restored.psql("select count(*) from aside") == "2000"
        [link] = (data / "pg_tblspc").iterdir()
        assert link.resolve().parent == open_place


def test_dumps_end_where_they_should(server: PostgreSQL, tmp_path: Path) -> None:
    made = {
        "plain": ("pg_dump", "postgres"),
        "plain inserts": ("pg_dump", "--inserts", "--verbose", "-t", "aside", "postgres"),
        "all": ("pg_dumpall",),
        "custom": ("pg_dump", "-Fc", "postgres"),
        "custom uncompressed": ("pg_dump", "-Fc", "-Z0", "postgres"),
        "custom of the schema": ("pg_dump", "-Fc", "-s", "postgres"),
    }
    server.psql("select lo_from_bytea(0, 'large object'), lo_from_bytea(0, repeat('x', 100000)::bytea)")
    for name, command in made.items():
        path = tmp_path / name
        server._run(*command, "-f", str(path))
        data = path.read_bytes()

        def look(data: bytes) -> State:
            return inspect(b"dump", len(data), lambda offset, length: data[offset : offset + length]).state

        assert look(data) is State.COMPLETE, name
        end = len(data) if name.startswith("custom") else len(data.rstrip()) + 1
        for number in range(100):
            cut = end * number // 100
            assert look(data[:cut]) is not State.COMPLETE, (name, cut)
            assert look(data[:cut].ljust(len(data), b"\0")) is not State.COMPLETE, (name, cut)
        for cut in range(end - 30, end):
            assert look(data[:cut]) is not State.COMPLETE, (name, cut)
        assert look(data + bytes(5000)) is not State.COMPLETE
    to_pipe = subprocess.run(
        [server.binaries / "pg_dump", "-Fc", "postgres"], env=server._environment(), stdout=subprocess.PIPE, check=True
    ).stdout
    assert inspect(b"d", len(to_pipe), lambda at, length: to_pipe[at : at + length]).state is State.UNKNOWN
