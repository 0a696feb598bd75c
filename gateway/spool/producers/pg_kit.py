"""The restore kit of a PostgreSQL base backup: how to get from the restored files to a running server."""

from __future__ import annotations

import os

from gateway.spool.producers.base import JobKey, JudgedJob, Span
from gateway.spool.producers.pg_manifest import format_lsn

_NEEDS = """\
It needs PostgreSQL of major version {version}, the same architecture, and the server's operating system user as owner
of all files. DATA is the new data directory: empty before, mode 0700 after.
"""

_TO_A_POINT = """\
To go on to a point in time, give the server the archive before its first start:

    echo "restore_command = 'COMMAND %f %p'"                      >> DATA/postgresql.auto.conf
    echo "recovery_target_time = 'YYYY-MM-DD HH:MM:SS+00'"        >> DATA/postgresql.auto.conf
    echo "recovery_target_action = 'promote'"                     >> DATA/postgresql.auto.conf
    touch DATA/recovery.signal

COMMAND must end with a code from 1 to 125 for a segment that is not there. The target must not lie before {stop}.
"""


def text(judged: JudgedJob) -> str:
    """Plain text, wrapped at 120; commands are indented. DATA and BACKUP are for the reader to fill in."""
    fact = judged.fact
    version, stop = fact("version") or "the same", fact("stop-lsn")
    parts = [
        f"PostgreSQL base backup {os.fsdecode(judged.found.name)!r}\n",
        "\n".join(f"    {name:18} {value}" for name, value in judged.facts) + "\n",
        _NEEDS.format(version=version),
    ]
    if fact("kind") == "incremental":
        parents = " ".join(one.text for one in judged.requires if isinstance(one, JobKey))
        parts.append(
            f"It is incremental and no data directory by itself. It needs {parents}.\n"
            "Restore all of them, then, oldest first and this one last:\n\n"
            "    pg_combinebackup -o DATA FULL [INCREMENTAL ...] THIS\n"
            + (
                "\nUnpack tars before that, each backup into a directory of its own.\n"
                if fact("format") == "tar"
                else ""
            )
        )
    elif fact("format") == "tar":
        parts.append(_unpack(judged))
    else:
        parts.append("Copy the directory to DATA with owners, modes and links (cp -a, rsync -aH).\n")
    places = [value.partition(" ") for name, value in judged.facts if name == "tablespace"]
    if places:
        listed = "\n".join(f"    {oid}  was at {target}" for oid, _, target in places)
        links = "\n".join(f"    ln -sfn TABLESPACE-{oid} DATA/pg_tblspc/{oid}" for oid, _, _ in places)
        parts.append(
            f"Its tablespaces:\n\n{listed}\n\nPut each where you like (TABLESPACE-OID), never two on one place:\n"
        )
        parts.append(links + "\n")
    no_wal = "" if fact("wal") == "inside" else "-n "
    parts.append(f"Before the first start, prove it:\n\n    pg_verifybackup {no_wal}DATA\n")
    if places and fact("format") == "tar":
        lines = "\\n".join(f"{oid} TABLESPACE-{oid}" for oid, _, _ in places)
        parts.append(
            "Only after that, because pg_verifybackup compares it too, say where the tablespaces are now; the server\n"
            f"makes the links anew from it:\n\n    printf '{lines}\\n' > DATA/tablespace_map\n"
        )
    if fact("wal") == "inside":
        parts.append(f"Started as it is (pg_ctl -D DATA start), it recovers to {stop}, the end of the backup.\n")
    else:
        spans = ", ".join(
            f"{format_lsn(one.start)} to {format_lsn(one.end)} (timeline {one.series.rpartition(':')[2]})"
            for one in judged.requires
            if isinstance(one, Span)
        )
        parts.append(f"It holds no WAL. It cannot be started without the archive's, at least {spans}.\n")
    parts.append(_TO_A_POINT.format(stop=stop))
    parts.append(
        "Never delete backup_label: without it the server may start from a wrong point and lose data silently.\n"
    )
    parts.extend(f"Note: {note}\n" for note in judged.notes)
    return "\n".join(part for part in parts if part)


def _unpack(judged: JudgedJob) -> str:
    names = sorted(os.fsdecode(member.path.rpartition(b"/")[2]) for member in judged.members)
    lines = ["Unpack the tars (tar -xf finds out the compression):\n"]
    for name in names:
        first = name.partition(".tar")[0]
        if ".tar" not in name:
            continue
        if first == "base":
            where = "DATA"
        elif first == "pg_wal":
            where = "DATA/pg_wal"
        elif first.isdigit():
            where = f"TABLESPACE-{first}"
        else:
            continue
        lines.append(f"    mkdir -p {where} && tar -xf BACKUP/{name} -C {where}")
    lines.append("    cp BACKUP/backup_manifest DATA/ && chmod 0700 DATA\n")
    return "\n".join(lines)
