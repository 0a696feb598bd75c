"""Base backups: whole ones are verified to evidence 4, every damage is named, nothing is believed too early."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.entry import Evidence
from gateway.spool.looks import Verdict
from gateway.spool.producers.base import JobKey, JobState, JudgedJob, Producer, Seal, SealedFile, Span
from gateway.spool.producers.pg_manifest import ManifestError, parse_lsn, parse_manifest
from gateway.spool.producers.postgresql import PostgreSQLProducer
from gateway.spool.producers.view import DirectoryView
from tests.unit.pg_backups import LABEL, PAGE, SEGMENT, SYSTEM, Backup, wal_segment, write, write_tar

PRODUCER: Producer = PostgreSQLProducer()
SUFFIXES = ["", ".gz", ".zst", ".bz2", ".xz"]


def judge(spool: Path, view: DirectoryView | None = None) -> JudgedJob:
    view = view or DirectoryView(spool)
    [found] = PRODUCER.find(view)
    return PRODUCER.judge(view, found)


def why(judged: JudgedJob) -> str:
    return "\n".join(f"{reason.path.decode(errors='replace')}: {reason.text}" for reason in judged.reasons)


def rewrite(path: Path, change: Callable[[bytearray], object]) -> None:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def flip(data: bytearray) -> None:
    data[len(data) // 2] ^= 1


@pytest.mark.parametrize("algorithm", ["CRC32C", "SHA224", "SHA256", "SHA384", "SHA512"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_plain_backup_is_verified(tmp_path: Path, algorithm: str, version: int) -> None:
    backup = Backup(algorithm=algorithm, version=version)
    backup.files["base/1/büro"] = b"odd"
    backup.plain(tmp_path / "night")
    judged = judge(tmp_path)
    assert judged.state is JobState.COMPLETE, why(judged)
    assert judged.evidence is Evidence.MANIFEST
    assert judged.found.name == b"night"
    assert judged.fact("system-identifier") == str(SYSTEM)
    assert judged.fact("version") == "17"
    assert judged.fact("kind") == "full"
    assert judged.fact("start-lsn") == "0/200028"
    assert judged.fact("stop-lsn") == "0/304000"
    assert judged.fact("label") == "nightly"
    assert judged.keys == (f"postgresql:{SYSTEM}:1:0/200028",)
    assert judged.provides == (Span(series=f"postgresql:{SYSTEM}:wal:1", start=0x200028, end=0x304000),)
    assert not judged.requires
    paths = {member.path for member in judged.members}
    assert {b"night/backup_manifest", b"night/base/1/1259", b"night/pg_wal/archive_status"} <= paths


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_tar_backup_is_verified(tmp_path: Path, suffix: str) -> None:
    backup = Backup(tablespaces={16_400: {"PG_17_202406281/5/1": b"row" * 9000}})
    backup.tar(tmp_path / "night", suffix)
    judged = judge(tmp_path)
    assert judged.state is JobState.COMPLETE, why(judged)
    assert judged.evidence is Evidence.MANIFEST
    assert judged.fact("format") == "tar"
    assert judged.fact("tablespace") == "16400 /old/ts-16400"
    assert judged.fact("wal") == "inside"
    kit = PRODUCER.restore_kit(judged)
    assert f"tar -xf BACKUP/base.tar{suffix} -C DATA" in kit
    assert f"BACKUP/pg_wal.tar{suffix} -C DATA/pg_wal" in kit
    assert "tablespace_map" in kit
    assert "recovery.signal" in kit


def test_wal_inside_base_tar(tmp_path: Path) -> None:
    """--wal-method=fetch"""
    backup = Backup()
    backup.tar(tmp_path / "night")
    (tmp_path / "night/pg_wal.tar").unlink()
    write_tar(tmp_path / "night/base.tar", backup.files | {f"pg_wal/{name}": data for name, data in backup.wal.items()})
    judged = judge(tmp_path)
    assert judged.state is JobState.COMPLETE, why(judged)
    assert judged.fact("wal") == "inside"


@pytest.mark.parametrize("form", ["plain", "tar"])
def test_a_backup_without_wal_requires_it(tmp_path: Path, form: str) -> None:
    backup = Backup(wal={})
    getattr(backup, form)(tmp_path / "night")
    judged = judge(tmp_path)
    assert judged.state is JobState.COMPLETE, why(judged)
    assert judged.requires == (Span(series=f"postgresql:{SYSTEM}:wal:1", start=0x200028, end=0x304000),)
    assert not judged.provides
    assert "It holds no WAL" in PRODUCER.restore_kit(judged)


@pytest.mark.parametrize("form", ["plain", "tar"])
@pytest.mark.parametrize("lsn", ["0/100028", "0/00100028"])
def test_an_incremental_backup_requires_its_parent(tmp_path: Path, form: str, lsn: str) -> None:
    backup = Backup()
    backup.files["backup_label"] = LABEL + f"INCREMENTAL FROM LSN: {lsn}\nINCREMENTAL FROM TLI: 1\n".encode()
    backup.files["base/1/INCREMENTAL.1259"] = b"blocks"
    getattr(backup, form)(tmp_path / "night")
    judged = judge(tmp_path)
    assert judged.state is JobState.COMPLETE, why(judged)
    assert judged.fact("kind") == "incremental"
    [needed] = judged.requires
    assert isinstance(needed, JobKey)
    parent = Backup(start="0/100028")
    parent.wal = {"000000010000000000000001": wal_segment(1)} | parent.wal
    parent.plain(tmp_path / "parent/full")
    other = judge(tmp_path / "parent")
    assert other.state is JobState.COMPLETE, why(other)
    assert needed.key in other.keys
    assert "pg_combinebackup" in PRODUCER.restore_kit(judged)


def test_not_yet(tmp_path: Path) -> None:
    night = Backup().plain(tmp_path / "night")
    (night / "backup_manifest").rename(night / "backup_manifest.tmp")
    judged = judge(tmp_path)
    assert judged.state is JobState.OPEN
    assert "not finished" in why(judged)
    (night / "backup_manifest.tmp").unlink()
    judged = judge(tmp_path)
    assert judged.state is JobState.OPEN
    assert judged.evidence is None


@pytest.mark.parametrize("name", ["backup_manifest", "base/1/1259", "pg_wal/000000010000000000000002"])
def test_what_grows_is_waited_for(tmp_path: Path, name: str) -> None:
    Backup().plain(tmp_path / "night")
    path = f"night/{name}".encode()
    view = DirectoryView(tmp_path, lambda entry: Verdict.GROWING if entry.path == path else Verdict.SETTLED)
    judged = judge(tmp_path, view)
    assert judged.state is JobState.OPEN
    assert [reason.path for reason in judged.reasons if "settle" in reason.text] == [path]


def test_an_open_file_is_waited_for(tmp_path: Path) -> None:
    night = Backup().plain(tmp_path / "night")
    with (night / "base/1/1259").open("r+b"):
        assert judge(tmp_path).state is JobState.OPEN
    assert judge(tmp_path).state is JobState.COMPLETE


def cut(data: bytearray) -> None:
    del data[len(data) // 2 :]


def zero(data: bytearray) -> None:
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)


def old_page(data: bytearray) -> None:
    data[PAGE : 2 * PAGE] = wal_segment(9)[PAGE : 2 * PAGE]


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("base/1/1259", flip, "night/base/1/1259: Its CRC32C is not the manifest's."),
        ("base/1/1259", cut, "night/base/1/1259: It has 20000 bytes, the manifest says 40000."),
        ("base/1/1259", zero, "night/base/1/1259: Its CRC32C"),
        ("base/1/empty", lambda data: data.append(1), "night/base/1/empty: It has 1 bytes"),
        ("backup_manifest", flip, "Its own checksum is wrong."),
        ("backup_manifest", cut, "Its last line, the checksum, is missing."),
        ("pg_wal/000000010000000000000002", cut, "WAL segment has no"),
        ("pg_wal/000000010000000000000002", zero, "Its page at byte 524288"),
        ("pg_wal/000000010000000000000002", old_page, "Its page at byte 8192"),
        ("pg_wal/000000010000000000000003", zero, ""),
    ],
)
def test_damage_in_a_plain_backup_is_named(
    tmp_path: Path, name: str, change: Callable[[bytearray], object], reason: str
) -> None:
    night = Backup().plain(tmp_path / "night")
    rewrite(night / name, change)
    judged = judge(tmp_path)
    if not reason:
        assert judged.state is JobState.COMPLETE, "behind the last position a segment is whatever it was before"
        return
    assert judged.state is JobState.INCOMPLETE
    assert judged.evidence is None
    assert reason in why(judged)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("base/1/1259", "base/1/1259: It is in the manifest and not in the backup."),
        ("base/1/empty", "base/1/empty: It is in the manifest"),
        ("global/pg_control", "global/pg_control: It is in"),
        ("pg_wal/000000010000000000000002", "from 0/200028 to 0/304000 is not in the backup"),
        ("pg_wal/000000010000000000000003", "from 0/300000 to 0/304000 is not in the backup"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, name: str, reason: str) -> None:
    (Backup().plain(tmp_path / "night") / name).unlink()
    judged = judge(tmp_path)
    assert judged.state is JobState.INCOMPLETE
    assert reason in why(judged)


def test_an_extra_file_is_named(tmp_path: Path) -> None:
    night = Backup().plain(tmp_path / "night")
    for harmless in ("standby.signal", "recovery.signal", "pg_wal/archive_status/000000010000000000000002.done"):
        write(night / harmless, b"")
    (night / "postgresql.auto.conf").write_bytes(b"primary_conninfo = ''\n")
    assert judge(tmp_path).state is JobState.COMPLETE
    write(night / "base/1/9999", b"extra")
    judged = judge(tmp_path)
    assert judged.state is JobState.INCOMPLETE
    assert why(judged) == "night/base/1/9999: It is not in the manifest."
    (night / "base/1/9999").unlink()
    (night / "base/1/9999").symlink_to("1259")
    assert "symlink" in why(judge(tmp_path))


def test_another_clusters_wal_is_refused(tmp_path: Path) -> None:
    backup = Backup()
    backup.wal["000000010000000000000003"] = wal_segment(3, system=SYSTEM + 1)
    backup.plain(tmp_path / "night")
    assert "several database systems" in why(judge(tmp_path))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["base", "pg_wal"])
def test_every_cut_of_a_tar_is_noticed(tmp_path: Path, suffix: str, name: str) -> None:
    night = Backup().tar(tmp_path / "night", suffix)
    path = night / f"{name}.tar{suffix}"
    data = path.read_bytes()
    for kept in (0, 100, len(data) // 3, len(data) // 2, len(data) - 10_300, len(data) - 1):
        if kept >= 0:
            path.write_bytes(data[:kept])
            judged = judge(tmp_path)
            if suffix == "" and kept == len(data) - 1:
                continue  # within the padding of the last record
            assert judged.state is JobState.INCOMPLETE, kept
            path.write_bytes(data[:kept].ljust(len(data), b"\0"))
            # Behind the last position a segment may hold anything, zeros too.
            if path.read_bytes() != data and (name == "base" or kept <= len(data) // 2):
                assert judge(tmp_path).state is JobState.INCOMPLETE, kept


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_flipped_byte_in_a_tar_is_named(tmp_path: Path, suffix: str) -> None:
    backup = Backup()
    backup.tar(tmp_path / "night", suffix)
    changed = backup.files | {"base/1/1259": b"Relation" + backup.files["base/1/1259"][8:]}
    write_tar(tmp_path / f"night/base.tar{suffix}", changed, suffix)
    judged = judge(tmp_path)
    assert why(judged) == f"night/base.tar{suffix}/base/1/1259: Its CRC32C is not the manifest's."
    write_tar(tmp_path / f"night/base.tar{suffix}", backup.files | {"base/1/extra": b""}, suffix)
    assert "base/1/extra: It is not in the manifest." in why(judge(tmp_path))
    del changed["base/1/1259"]
    write_tar(tmp_path / f"night/base.tar{suffix}", changed, suffix)
    assert why(judge(tmp_path)) == "base/1/1259: It is in the manifest and not in the backup."


def test_missing_and_foreign_tars(tmp_path: Path) -> None:
    backup = Backup(tablespaces={16_400: {"PG_17_1/5/1": b"row"}})
    night = backup.tar(tmp_path / "night")
    (night / "backup.log").write_bytes(b"made by cron")
    judged = judge(tmp_path)
    assert judged.state is JobState.COMPLETE
    assert judged.notes == ("backup.log is no part of a backup.",)
    (night / "16400.tar").unlink()
    assert "The tablespace 16400 at '/old/ts-16400' has no 16400.tar." in why(judge(tmp_path))


def test_an_lz4_is_not_read_and_claims_less(tmp_path: Path) -> None:
    night = Backup().tar(tmp_path / "night")
    (night / "base.tar").rename(night / "base.tar.lz4")
    rewrite(night / "base.tar.lz4", lambda data: data.__setitem__(slice(0, 7), b"\x04\x22\x4d\x18\x64\x40\xa7"))
    judged = judge(tmp_path)
    assert judged.state is JobState.COMPLETE
    assert judged.evidence is Evidence.MARKER
    assert "lz4" in judged.notes[0]


def test_without_checksums_a_manifest_proves_less(tmp_path: Path) -> None:
    night = Backup(algorithm="NONE").plain(tmp_path / "night")
    judged = judge(tmp_path)
    assert judged.evidence is Evidence.MARKER
    assert "no checksums" in judged.notes[0]
    rewrite(night / "base/1/1259", cut)
    assert judge(tmp_path).state is JobState.INCOMPLETE


def test_a_tablespace_in_another_folder_of_the_spool(tmp_path: Path) -> None:
    backup = Backup(tablespaces={16_400: {"PG_17_1/5/1": b"row" * 100}})
    spool = tmp_path / "spool"
    backup.plain(spool / "night", tablespaces=spool / "other")
    judged = judge(spool)
    assert judged.state is JobState.COMPLETE, why(judged)
    assert judged.found.folders == (b"night", b"other/ts-16400")
    assert judged.found.holds(b"other/ts-16400/PG_17_1/5/1")
    assert not judged.found.holds(b"other/ts-164000")
    assert b"other/ts-16400/PG_17_1/5/1" in {member.path for member in judged.members}
    rewrite(spool / "other/ts-16400/PG_17_1/5/1", flip)
    assert "other/ts-16400/PG_17_1/5/1: Its CRC32C" in why(judge(spool))


def test_a_tablespace_outside_of_the_spool(tmp_path: Path) -> None:
    backup = Backup(tablespaces={16_400: {"PG_17_1/5/1": b"row"}})
    backup.plain(tmp_path / "spool/night", tablespaces=tmp_path)
    judged = judge(tmp_path / "spool")
    assert judged.state is JobState.INCOMPLETE
    assert "outside of the source" in why(judged)


def test_jobs_are_found_wherever_they_lie(tmp_path: Path) -> None:
    Backup().plain(tmp_path / "a/deep/plain")
    Backup().tar(tmp_path / "b")
    write(tmp_path / "c/notes.tar", b"")
    write(tmp_path / "c/2024.tar", b"")
    write(tmp_path / "d/base.tar.zst", b"")
    write(tmp_path / "a/deep/plain/base/backup_label", b"")
    names = [found.name for found in PRODUCER.find(DirectoryView(tmp_path))]
    assert names == [b"a/deep/plain", b"b", b"d"]


def test_the_source_itself_may_be_the_backup(tmp_path: Path) -> None:
    Backup().plain(tmp_path / "spool")
    judged = judge(tmp_path / "spool")
    assert judged.state is JobState.COMPLETE, why(judged)
    assert judged.found.name == b""


def test_a_seal_on_top(tmp_path: Path) -> None:
    Backup().tar(tmp_path / "night")
    view = DirectoryView(tmp_path)
    [found] = PRODUCER.find(view)
    files = tuple(
        SealedFile(
            path=f"night/{path.name}".encode(),
            size=path.stat().st_size,
            sha256=hashlib.sha256(path.read_bytes()).digest(),
        )
        for path in sorted((tmp_path / "night").iterdir())
    )
    assert PRODUCER.judge(view, found, Seal(job=b"night", files=files)).evidence is Evidence.SEAL
    short = PRODUCER.judge(view, found, Seal(job=b"night", files=files[1:]))
    assert short.state is JobState.INCOMPLETE
    gone = SealedFile(path=b"night/gone.tar", size=1)
    assert "is not there" in why(PRODUCER.judge(view, found, Seal(job=b"night", files=(*files, gone))))


def test_many_reasons_are_counted(tmp_path: Path) -> None:
    backup = Backup()
    backup.files |= {f"base/2/{number}": b"x" for number in range(300)}
    shutil.rmtree(backup.plain(tmp_path / "night") / "base/2")
    judged = judge(tmp_path)
    assert len(judged.reasons) == 101
    assert judged.reasons[-1].text == "And 200 more."


HEAD = b'{"PostgreSQL-Backup-Manifest-Version": 1, "Files": ['
NO_WAL = b'], "WAL-Ranges": [],'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"PostgreSQL-Backup-Manifest-Version": 3, "Files": [], "WAL-Ranges": [],',
        HEAD + b'{"Path": "../x", "Size": 1}' + NO_WAL,
        HEAD + b'{"Path": "/x", "Size": 1}' + NO_WAL,
        HEAD + b'{"Path": "x", "Size": -1}' + NO_WAL,
        HEAD + b'{"Path": "x", "Size": 1, "Checksum-Algorithm": "MD5", "Checksum": ""}' + NO_WAL,
        HEAD + b'{"Encoded-Path": "xy", "Size": 1}' + NO_WAL,
        HEAD + b'{"Path": "x", "Size": 1}], "WAL-Ranges": [{"Timeline": 1, "Start-LSN": "x", "End-LSN": "0/0"}],',
        HEAD + b'{"Path": "x", "Size": 1}, {"Path": "x", "Size": 1}' + NO_WAL,
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused_with_a_right_checksum(body: bytes) -> None:
    body += b"\n"
    whole = body + b'"Manifest-Checksum": "' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'
    with pytest.raises(ManifestError):
        parse_manifest(whole)


@given(st.binary(max_size=300), st.integers(0, 2000), st.integers(0, 255))
def test_arbitrary_manifests_raise_one_error(data: bytes, place: int, byte: int) -> None:
    for candidate in (data, data + b'"Manifest-Checksum": "' + hashlib.sha256(data).hexdigest().encode() + b'"}\n'):
        with pytest.raises(ManifestError):
            parse_manifest(candidate)
    changed = bytearray(Backup().manifest())
    place %= len(changed)
    if changed[place] != byte:
        changed[place] = byte
        with pytest.raises(ManifestError):
            parse_manifest(bytes(changed))


def test_positions() -> None:
    assert parse_lsn("16/B374D848") == 0x16_B374_D848
    for text in ("", "1", "1/", "/1", "1/123456789", "g/1", "1/1 "):
        with pytest.raises(ManifestError):
            parse_lsn(text)


def test_nothing_is_written(tmp_path: Path) -> None:
    Backup().plain(tmp_path / "night")
    before = {path: os.stat(path).st_ctime_ns for path in tmp_path.rglob("*")}
    judge(tmp_path)
    assert {path: os.stat(path).st_ctime_ns for path in tmp_path.rglob("*")} == before
    assert SEGMENT % PAGE == 0
