"""Base backups of PostgreSQL, recognised and proved by their `backup_manifest`.

Plain (a data directory) or tar (`base.tar`, one tar a tablespace, `pg_wal.tar`; bare, gzip, zstd, bzip2 or xz), as
pg_basebackup and tools like it make them. The manifest lies beside them and is renamed into place as the very last
thing, so its presence is a marker; what it says of every file, verified, is evidence 4:

* every file is there, with its size and checksum, and no other but those that belong to a server and to no manifest;
* the WAL that makes it consistent is in `pg_wal` and its pages are the right ones; or there is none at all, and then
  the job `requires` it (a backup made with ``--wal-method=none``);
* one system identifier everywhere.

A manifest that is whole but proves less (made without checksums; tars that cannot be read here) is evidence 3, and
`notes` say why. Verifying reads and decompresses everything once, in memory that depends on the number of files only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from gateway.model.entry import EntryType, Evidence, LeftOut
from gateway.spool.looks import Looked, Verdict
from gateway.spool.pin import NotPinned
from gateway.spool.producers import pg_kit
from gateway.spool.producers.base import (
    FoundJob,
    JobKey,
    JobState,
    JudgedJob,
    LogFile,
    Member,
    Reasons,
    Role,
    Seal,
    Span,
    SpoolFile,
    SpoolView,
    match_seal,
    member_of,
    pieces,
)
from gateway.spool.producers.pg_manifest import (
    MANIFEST_BYTES,
    Manifest,
    ManifestError,
    WalRange,
    format_lsn,
    new_sum,
    parse_lsn,
    parse_manifest,
)
from gateway.spool.producers.pg_wal import WalCheck, segment_place
from gateway.spool.streams import DamagedStreamError, TrailingBytesError, decompressed
from gateway.spool.structure import Look, Read, State, Structure
from gateway.spool.tarstream import TarStream
from gateway.spool.trailers import HEAD_BYTES, recognise

MANIFEST, TEMPORARY, LABEL = b"backup_manifest", b"backup_manifest.tmp", b"backup_label"

_TAR = re.compile(rb"(base|pg_wal|\d+)\.tar(\.gz|\.zst|\.lz4|\.bz2|\.xz)?")

_NOT_IN_MANIFEST = frozenset({MANIFEST, b"postgresql.auto.conf", b"recovery.signal", b"standby.signal"})
"""What pg_basebackup itself adds or rewrites behind the manifest's back (-R), and pg_verifybackup passes over."""

_KEPT = frozenset({LABEL, b"tablespace_map", b"PG_VERSION", b"global/pg_control"})
"""Files whose beginnings tell what the backup is."""

_KEPT_BYTES = 64 * 1024


class _Backup:
    """What is collected while one backup is verified."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.reasons = Reasons()
        self.notes: list[str] = []
        self.members: list[Member] = []
        self.wal = WalCheck(manifest.wal_ranges)
        self.limit = Evidence.MANIFEST
        self.kept: dict[bytes, bytes] = {}
        self.seen: set[bytes] = set()
        self.tablespaces: list[tuple[str, str]] = []
        self.format = "plain"
        self.whole = True
        """Whether all that is there could be read: else nothing is missing for certain."""

    def compare(self, name: bytes, where: bytes, size: int, data: Iterator[bytes]) -> None:
        """One file of the backup by its name in the manifest; `where` is the path that reasons name."""
        expected = self.manifest.files.get(name)
        self.seen.add(name)
        directory, _, last = name.rpartition(b"/")
        if directory == b"pg_wal" and self.wal.is_segment(last):
            self.wal.add(last, size, data)
            return
        if name == b"pg_wal" or name.startswith(b"pg_wal/") or (name in _NOT_IN_MANIFEST):
            return
        if expected is None:
            self.reasons.wrong(where, "It is not in the manifest.")
            return
        if size != expected.size:
            self.reasons.wrong(where, f"It has {size} bytes, the manifest says {expected.size}.")
            return
        found, read, begin = new_sum(expected.algorithm), 0, b""
        for piece in data:
            found.update(piece)
            read += len(piece)
            if name in _KEPT and len(begin) < _KEPT_BYTES:
                begin += piece[: _KEPT_BYTES - len(begin)]
        if read != size:
            self.reasons.wait(where, "It became shorter while it was read.")
        elif found.digest() != expected.checksum:
            self.reasons.wrong(where, f"Its {expected.algorithm} is not the manifest's.")
        elif name in _KEPT:
            self.kept[name] = begin

    def missing(self) -> None:
        for name in self.manifest.files:
            if name not in self.seen and name not in _NOT_IN_MANIFEST:
                self.reasons.wrong(name, "It is in the manifest and not in the backup.")


class PostgreSQLProducer:
    name = "postgresql"

    def find(self, view: SpoolView) -> Iterator[FoundJob]:
        """Every directory that holds a manifest, a base.tar, or a backup_label; none that lies in another such."""
        last: bytes | None = None
        candidates = set[bytes]()
        for seen in view.walk(b""):
            if isinstance(seen, Looked) and seen.entry.type is EntryType.FILE:
                directory, _, name = seen.entry.path.rpartition(b"/")
                tar = _TAR.fullmatch(name)
                if name in (MANIFEST, TEMPORARY, LABEL) or (tar is not None and tar[1] == b"base"):
                    candidates.add(directory)
        for directory in sorted(candidates, key=lambda path: path.replace(b"/", b"\0")):
            if last is None or (last and not directory.startswith(last + b"/")):
                last = directory
                yield FoundJob(producer=self.name, name=directory, folders=(directory, *_linked(view, directory)))

    def inspect(self, path: bytes, size: int, read: Read) -> Structure:  # noqa: ARG002
        return Structure(state=State.UNKNOWN)  # no format of its own

    def judge(self, view: SpoolView, found: FoundJob, seal: Seal | None = None) -> JudgedJob:
        there = {
            seen.entry.path.rpartition(b"/")[2]: seen for seen in view.list(found.name) if isinstance(seen, Looked)
        }
        early = Reasons()
        manifest: Manifest | None = None
        if MANIFEST not in there:
            state = "is not finished" if TEMPORARY in there else "is not there"
            early.wait(_below(found.name, MANIFEST), f"The manifest {state}.")
        elif there[MANIFEST].verdict is Verdict.GROWING:
            early.wait(_below(found.name, MANIFEST), "It changed within the settle time.")
        else:
            manifest = _read_manifest(view, there[MANIFEST], early)
        if manifest is None:
            return JudgedJob(found=found, state=early.state, reasons=early.all())
        backup = _Backup(manifest)
        if any(tar[1] == b"base" for name in there if (tar := _TAR.fullmatch(name))):
            _compare_tars(view, found, there, backup)
        else:
            _compare_plain(view, found, backup)
        if backup.whole:
            backup.missing()
        return _judged(view, found, backup, seal)

    def restore_kit(self, judged: JudgedJob) -> str:
        return pg_kit.text(judged)

    def may_hold(self, file: LogFile, wanted: Span) -> bool:
        return _stretch(file, wanted) is not None

    def log_held(self, view: SpoolView, files: Iterable[LogFile], wanted: Span) -> Iterator[tuple[int, int]]:
        """Segments of an archive, uncompressed: every page that is wanted is the one that belongs there."""
        for each in files:
            stretch, line = _stretch(each, wanted), _line(wanted.series)
            if stretch is None or line is None:
                continue
            system, timeline = line
            check = WalCheck((WalRange(timeline=timeline, start=wanted.start, end=wanted.end),))
            try:
                with view.open(each.path) as file:
                    if file.entry.identity != each.identity:
                        continue
                    check.add(each.path.rpartition(b"/")[2], file.size, pieces(file))
                    file.check()
            except NotPinned:
                continue
            if not check.wrong and check.system_identifiers == {system}:
                yield stretch


def _below(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _read_manifest(view: SpoolView, looked: Looked, reasons: Reasons) -> Manifest | None:
    path = looked.entry.path
    if looked.entry.identity.size > MANIFEST_BYTES:
        reasons.wrong(path, f"The manifest has more than {MANIFEST_BYTES} bytes.")
        return None
    try:
        with view.open(path) as file:
            if file.entry.identity != looked.entry.identity:
                reasons.wait(path, "It is not the version that was seen.")
                return None
            data = b"".join(pieces(file))
            file.check()
        return parse_manifest(data)
    except NotPinned as error:
        reasons.not_pinned(error)
    except ManifestError as error:
        reasons.wrong(path, f"The manifest is damaged. {error}")
    return None


# --- plain --------------------------------------------------------------------------------------------------------


def _links(view: SpoolView, folder: bytes) -> Iterator[tuple[bytes, bytes, bytes | None]]:
    """Tablespaces of a plain backup: (link, its target, the target's path in the spool or None)."""
    for seen in view.list(_below(folder, b"pg_tblspc")):
        if isinstance(seen, Looked) and seen.entry.type is EntryType.SYMLINK:
            target = seen.entry.target
            inside = target[len(view.root) + 1 :].strip(b"/") if target.startswith(view.root + b"/") else None
            if inside is not None and any(part in (b"", b".", b"..") for part in inside.split(b"/")):
                inside = None
            yield seen.entry.path, target, inside


def _linked(view: SpoolView, folder: bytes) -> tuple[bytes, ...]:
    return tuple(inside for _, _, inside in _links(view, folder) if inside is not None)


def _compare_plain(view: SpoolView, found: FoundJob, backup: _Backup) -> None:
    _compare_below(view, found.name, b"", backup)
    for link, target, inside in _links(view, found.name):
        oid = link.rpartition(b"/")[2]
        backup.tablespaces.append((oid.decode(errors="replace"), target.decode(errors="replace")))
        if inside is None:
            backup.reasons.wrong(link, f"The tablespace lies at {target!r}, outside of the source.")
        else:
            _compare_below(view, inside, b"pg_tblspc/" + oid + b"/", backup)


def _compare_below(view: SpoolView, folder: bytes, prefix: bytes, backup: _Backup) -> None:
    """Every entry below `folder`; its name in the manifest is `prefix` and its path from there."""
    for seen in view.walk(folder):
        if isinstance(seen, LeftOut):
            backup.reasons.left_out(seen)
            backup.whole = False
            continue
        entry = seen.entry
        name = prefix + (entry.path[len(folder) + 1 :] if folder else entry.path)
        role = Role.MANIFEST if name == MANIFEST else Role.LOG if name.startswith(b"pg_wal/") else Role.DATA
        backup.members.append(member_of(seen, role))
        if entry.type is EntryType.DIRECTORY or (
            entry.type is EntryType.SYMLINK and (name == b"pg_wal" or name.startswith(b"pg_tblspc/"))
        ):
            continue
        if seen.verdict is Verdict.GROWING:
            backup.seen.add(name)
            backup.reasons.wait(entry.path, "It changed within the settle time.")
        elif entry.type is not EntryType.FILE:
            backup.reasons.wrong(entry.path, f"It is a {entry.type.name.lower()}, and no backup has one there.")
        else:
            _compare_file(view, seen, name, backup)


def _compare_file(view: SpoolView, seen: Looked, name: bytes, backup: _Backup) -> None:
    try:
        with view.open(seen.entry.path) as file:
            if file.entry.identity != seen.entry.identity:
                backup.seen.add(name)
                backup.reasons.wait(seen.entry.path, "It is not the version that was seen.")
                return
            backup.limit = min(backup.limit, file.evidence_limit)
            backup.compare(name, seen.entry.path, file.size, pieces(file))
            file.check()
    except NotPinned as error:
        backup.seen.add(name)
        backup.reasons.not_pinned(error)


# --- tar ----------------------------------------------------------------------------------------------------------


def _compare_tars(view: SpoolView, found: FoundJob, there: dict[bytes, Looked], backup: _Backup) -> None:
    backup.format = "tar"
    given = dict[bytes, bytes]()
    for name, looked in there.items():
        tar = _TAR.fullmatch(name)
        if tar is None:
            backup.members.append(member_of(looked, Role.MANIFEST if name == MANIFEST else Role.DATA))
            if name != MANIFEST:
                backup.notes.append(f"{name.decode(errors='backslashreplace')} is no part of a backup.")
            continue
        backup.members.append(member_of(looked, Role.LOG if tar[1] == b"pg_wal" else Role.DATA))
        if tar[1] in given:
            backup.reasons.wrong(looked.entry.path, f"It is there twice: {given[tar[1]].decode()} too.")
            continue
        given[tar[1]] = name
        if looked.verdict is Verdict.GROWING:
            backup.whole = False
            backup.reasons.wait(looked.entry.path, "It changed within the settle time.")
            continue
        prefix = {b"base": b"", b"pg_wal": b"pg_wal/"}.get(tar[1], b"pg_tblspc/" + tar[1] + b"/")
        try:
            with view.open(looked.entry.path) as file:
                if file.entry.identity != looked.entry.identity:
                    backup.whole = False
                    backup.reasons.wait(looked.entry.path, "It is not the version that was seen.")
                    continue
                backup.limit = min(backup.limit, file.evidence_limit)
                _compare_tar(file, prefix, backup)
                file.check()
        except NotPinned as error:
            backup.whole = False
            backup.reasons.not_pinned(error)
    for line in backup.kept.get(b"tablespace_map", b"").decode(errors="replace").splitlines():
        oid, _, target = line.partition(" ")
        backup.tablespaces.append((oid, target))
        if oid.encode() not in given:
            backup.reasons.wrong(found.name, f"The tablespace {oid} at {target!r} has no {oid}.tar.")


def _compare_tar(file: SpoolFile, prefix: bytes, backup: _Backup) -> None:
    path = file.entry.path
    kind = recognise(file.read(0, HEAD_BYTES))
    look = Look(file.size, file.read, None)
    if kind == "lz4":
        backup.whole = False
        backup.limit = min(backup.limit, Evidence.MARKER)
        backup.notes.append(f"{path.decode(errors='backslashreplace')} is an lz4, whose contents are not read here.")
        return
    if kind not in ("tar", "gzip", "zstd", "bzip2", "xz"):
        backup.whole = False
        backup.reasons.wrong(path, "It is no tar.")
        return
    try:
        stream = TarStream(pieces(file) if kind == "tar" else decompressed(kind, look))
        for member in stream:
            name = prefix + member.name.removeprefix(b"./").rstrip(b"/")
            if member.type == "0":
                if name in backup.seen and name in backup.manifest.files:
                    backup.reasons.wrong(path, f"It holds {name!r} twice.")
                backup.compare(name, path + b"/" + member.name, member.size, stream.data())
            elif member.type not in "25":
                backup.reasons.wrong(path, f"It holds {name!r}, which is neither file nor directory.")
    except (DamagedStreamError, TrailingBytesError) as error:
        backup.whole = False
        backup.reasons.wrong(path, str(error))


# --- what it comes to ---------------------------------------------------------------------------------------------


def _judged(view: SpoolView, found: FoundJob, backup: _Backup, seal: Seal | None) -> JudgedJob:
    manifest, reasons = backup.manifest, backup.reasons
    label = _label(backup.kept.get(LABEL, b""))
    control = backup.kept.get(b"global/pg_control", b"")
    identifiers = backup.wal.system_identifiers | ({manifest.system_identifier} - {None})
    if len(control) >= 8:
        identifiers = identifiers | {int.from_bytes(control[:8], "little")}
    if len(identifiers) > 1:
        reasons.wrong(found.name, "Its parts are of several database systems: " + ", ".join(map(str, identifiers)))
    system = str(next(iter(identifiers))) if len(identifiers) == 1 else ""
    first, last = manifest.wal_ranges[0], manifest.wal_ranges[-1]
    provides: tuple[Span, ...] = ()
    requires = list[Span | JobKey]()
    needed = tuple(_span(system, one) for one in manifest.wal_ranges)
    if backup.wal.segments:
        for name, text in backup.wal.wrong:
            reasons.wrong(_below(found.name, b"pg_wal/" + name), text)
        if backup.whole:
            for text in backup.wal.missing():
                reasons.wrong(found.name, text)
        provides = needed
    elif backup.whole:
        requires.extend(needed)
        backup.notes.append("It holds no WAL: it can be started only with the archive's.")
    parent = label.get("INCREMENTAL FROM LSN", "")
    if parent:
        key = _key(system, label.get("INCREMENTAL FROM TLI", ""), parent)
        requires.append(JobKey(key=key, text=f"the backup that starts at {parent}, and what that one needs"))
    if any(not file.algorithm for file in manifest.files.values()):
        backup.limit = min(backup.limit, Evidence.MARKER)
        backup.notes.append("The manifest has no checksums: only names and sizes were compared.")
    facts = (
        ("system-identifier", system),
        ("version", backup.kept.get(b"PG_VERSION", b"").decode(errors="replace").strip()),
        ("kind", "incremental" if parent else "full"),
        ("format", backup.format),
        ("timeline", str(last.timeline)),
        ("start-lsn", format_lsn(first.start)),
        ("stop-lsn", format_lsn(last.end)),
        ("label", label.get("LABEL", "")),
        ("started", label.get("START TIME", "")),
        ("from", label.get("BACKUP FROM", "")),
        ("wal", "inside" if provides else "elsewhere"),
        ("manifest", manifest.checksum.hex()),
        *(("tablespace", f"{oid} {target}") for oid, target in backup.tablespaces),
    )
    evidence = backup.limit
    if seal is not None:
        evidence = (
            min(Evidence.SEAL, match_seal(view, seal, tuple(backup.members), reasons)) if evidence > 1 else evidence
        )
    whole = not reasons
    return JudgedJob(
        found=found,
        state=JobState.COMPLETE if whole else reasons.state,
        evidence=evidence if whole else None,
        members=tuple(backup.members),
        reasons=reasons.all(),
        notes=tuple(backup.notes),
        facts=tuple((name, value) for name, value in facts if value),
        keys=(_key(system, str(first.timeline), format_lsn(first.start)),) if system else (),
        provides=provides,
        requires=tuple(requires),
    )


def _key(system: str, timeline: str, lsn: str) -> str:
    """How an incremental backup names its parent: where that one started."""
    try:
        lsn = format_lsn(parse_lsn(lsn))  # later versions write it with zeros
    except ManifestError:
        pass
    return f"postgresql:{system}:{timeline}:{lsn}"


def _span(system: str, one: WalRange) -> Span:
    text = f"WAL of timeline {one.timeline} from {format_lsn(one.start)} to {format_lsn(one.end)}"
    return Span(series=f"postgresql:{system}:wal:{one.timeline}", start=one.start, end=one.end, text=text)


def _line(series: str) -> tuple[int, int] | None:
    """System identifier and timeline of a span's line."""
    parts = series.split(":")
    if len(parts) != 4 or (parts[0], parts[2]) != ("postgresql", "wal") or not (parts[1] + parts[3]).isdigit():
        return None
    return (int(parts[1]), int(parts[3])) if parts[1] and parts[3] else None


def _stretch(file: LogFile, wanted: Span) -> tuple[int, int] | None:
    """The positions that a segment has by its name and size, where some of them are wanted."""
    line, place = _line(wanted.series), segment_place(file.path.rpartition(b"/")[2], file.identity.size)
    if line is None or place is None:
        return None
    timeline, start, end = place
    return (start, end) if timeline == line[1] and start < wanted.end and end > wanted.start else None


def _label(data: bytes) -> dict[str, str]:
    lines = (line.partition(": ") for line in data.decode(errors="replace").splitlines())
    return {name: value.strip() for name, _, value in lines if value}
