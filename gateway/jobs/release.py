"""Removes from a spool what is safely in the store: `gateway.policy.release` says what, this does it.

Row "releasing" -> renamed into ``.gateway/released`` -> identity compared, no writer -> unlinked -> row "released".
CRASH: a row "releasing" whose file lies in ``.gateway/released`` is put back at the next start, into the nearest
directory that is still there; one whose file is still at its place is forgotten; one whose file is nowhere was unlinked
and becomes "released".
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection, Iterator
from dataclasses import replace

from gateway import durable
from gateway.api import ProgressCallback, ReleaseReport, no_progress
from gateway.catalog import GenerationState, KnownFile, ReleasedRow, ReleaseState
from gateway.clock import milliseconds
from gateway.config.values import SourceConfig, SourceKind
from gateway.jobs.alarms import Kind
from gateway.jobs.changes import is_sure
from gateway.jobs.context import Context
from gateway.jobs.pace import Pace
from gateway.jobs.runs import forget_gone, known_name, of_runs
from gateway.log import printable
from gateway.model.entry import EntryType, Identity
from gateway.policy.release import Decision, Version, bound, choose
from gateway.spool.pin import NotPinned, Pinned, pin
from gateway.spool.walk import RESERVED, SpoolEntry, open_below, open_root

FOLDER = b"released"
NAMED = 20
"""LIMIT: paths that a report names."""


class Release:
    """Of one source; for the owner of `state.dir`."""

    def __init__(self, context: Context, source: SourceConfig, tell: ProgressCallback = no_progress) -> None:
        self._context = context
        self._source = source
        self._tell = tell
        self._pace = Pace(context.clock, tell, "releasing", "files")

    def recover(self) -> None:
        """Finish or undo what a kill left, and have a place for what goes: a spool that is full has no room for one."""
        for row in self._context.catalog.released(self._source.name):
            if row.state is ReleaseState.RELEASING:
                self._recover(row)
        if self._source.release.keep_generations is not None:
            with contextlib.suppress(OSError):  # where something really goes, it is said
                root = open_root(self._source.path)
                try:
                    os.close(self._aside(root))
                finally:
                    os.close(root)

    def run(self, *, dry_run: bool) -> ReleaseReport:
        self._pace = Pace(self._context.clock, self._tell, "releasing", "files")
        if not dry_run:
            # What is believed protected is looked at again, by the store's own listing, before anything goes.
            self.recover()
            self._context.refresh(self._source.name)
        decisions, reason = self.plan()
        done = list[Decision]()
        for each in decisions:
            if dry_run or self._one(each):
                done.append(each)
            self._pace.step(1)
        if not dry_run and self._source.kind is SourceKind.JOB:
            forget_gone(self._context.catalog, self._source.name, os.fsencode(self._source.path))
        return ReleaseReport(
            source=self._source.name, dry_run=dry_run, paths=tuple(each.version.path for each in done[:NAMED]),
            files=len(done), size=sum(each.version.size for each in done), reason=reason,
        )  # fmt: skip

    # --- what may go -------------------------------------------------------------------------------------------------

    def plan(self) -> tuple[list[Decision], str]:
        """What may go now, the oldest first, or why nothing may."""
        settings, catalog = self._source.release, self._context.catalog
        if settings.keep_generations is None:
            return [], "the source does not set release_keep_generations"
        if any(each.kind == Kind.ANOMALY and each.subject == self._source.name for each in catalog.open_alarms()):
            return [], "an anomaly of the source is open"
        rows = catalog.generations(self._source.name)
        protected = [row for row in rows if row.state is GenerationState.PROTECTED]
        newest = max(rows, key=lambda row: row.number, default=None)
        if newest is None or newest.state is not GenerationState.PROTECTED:
            return [], "the newest generation is not protected"
        of_jobs = self._source.kind is SourceKind.JOB
        if not of_jobs and catalog.known_generation(self._source.name) != newest.generation:
            return [], "what the newest generation read is not known"
        before = bound([row.begun for row in protected], settings.keep_generations)
        if before is None:
            return [], f"there are not more than {settings.keep_generations} protected generations"
        wanted = self._wanted_bytes()
        if wanted == 0:
            return [], "the spool is not full enough"
        versions = (
            self._of_jobs({row.generation for row in protected}, before)
            if of_jobs
            else map(_version, self._still_there(catalog.known_files(self._source.name)))
        )
        return list(choose(versions, before_ms=before, wanted=wanted)), ""

    def _of_jobs(self, protected: Collection[bytes], before_ms: int) -> Iterator[Version]:
        """Files of the jobs whose generations are protected, job by job, the newest first.

        INVARIANT: of a job that another one shares a file with that must stay, or of which a file is another now,
        nothing goes: what is left of it could be taken for a job of its own.
        """
        stay: set[bytes] = set()
        for row, generation in reversed(of_runs(self._context.catalog, self._source.name)):
            run = row.run
            known = list(self._context.catalog.known_files(known_name(self._source.name, run)))
            self._pace.step()
            there = [each for each in known if os.path.lexists(self._place(each.path))]
            if not there:
                continue
            versions = [replace(_version(each), group=run) for each in self._still_there(iter(there))]
            is_old = generation in protected and all(each.held_ms < before_ms for each in versions)
            if not is_old or len(versions) != len(there) or any(each.path in stay for each in versions):
                stay.update(each.path for each in there)
                continue
            yield from versions

    def _place(self, path: bytes) -> bytes:
        return os.path.join(os.fsencode(self._source.path), path)

    def _wanted_bytes(self) -> int | None:
        """How much is to go; None: all that may."""
        settings = self._source.release
        if settings.high >= 1 and settings.low >= 1:
            return None
        space = os.statvfs(self._source.path)
        capacity, used = space.f_blocks * space.f_frsize, (space.f_blocks - space.f_bfree) * space.f_frsize
        return 0 if used < settings.high * capacity else max(0, round(used - settings.low * capacity))

    def _still_there(self, known: Iterator[KnownFile]) -> Iterator[KnownFile]:
        """Those that are as they were read, under one name each: taking one of several frees nothing."""
        for each in known:
            self._pace.step()
            with contextlib.suppress(OSError):
                status = os.lstat(self._place(each.path))
                if status.st_nlink == 1 and Identity.of(status) == each.identity:
                    yield each

    # --- doing it ----------------------------------------------------------------------------------------------------

    def _one(self, decision: Decision) -> bool:
        """False: it changed, somebody uses it, or it went by itself; then it stays what it is."""
        path, identity = decision.version.path, decision.version.identity
        entry = SpoolEntry(path=path, type=EntryType.FILE, identity=identity, mode=0, uid=0, gid=0)
        try:
            # The lease outlives the renaming: whoever opens the file for writing meanwhile breaks it, and is noticed.
            with pin(self._source.path, entry, clone=False) as pinned:
                if pinned.by != "lease":
                    self._context.log.info("release.left", path=printable(path), problem="no lease can be had on it")
                    return False
                return self._leased(decision.version, pinned)
        except NotPinned as error:
            self._context.log.info("release.left", path=printable(path), problem=error.what)
            return False

    def _leased(self, version: Version, pinned: Pinned) -> bool:
        row = ReleasedRow(
            path=version.path, id=self._context.clock.random_bytes(12).hex(), size=version.size,
            when=milliseconds(self._context.clock.now()), state=ReleaseState.RELEASING,
        )  # fmt: skip
        directory, _, last = version.path.rpartition(b"/")
        with contextlib.ExitStack() as opened:
            root = open_root(self._source.path)
            opened.callback(os.close, root)
            aside = self._aside(root)
            opened.callback(os.close, aside)
            parent = open_below(root, directory)
            opened.callback(os.close, parent)
            self._context.catalog.put_released(self._source.name, row)
            try:
                durable.move_at("release", parent, last, aside, row.id.encode())
            except OSError as error:
                self._context.catalog.remove_released(self._source.name, [row.path])
                self._context.log.info("release.left", path=printable(row.path), problem=str(error))
                return False
            if not self._is_it(aside, row, version.identity) or not pinned.lease_holds():
                self._put_back(parent, last, aside, row)
                return False
            # CRASH: the row says "releasing" until the name is gone for good.
            durable.remove_at("release", aside, row.id.encode())
            durable.sync_file("release", parent)
            durable.sync_file("release", aside)
        self._is_released(row)
        self._context.log.info("file.released", source=self._source.name, path=printable(row.path), bytes=row.size)
        return True

    def _is_released(self, row: ReleasedRow) -> None:
        """The next generation names it; of a job there is none that would."""
        if self._source.kind is SourceKind.JOB:
            self._context.catalog.remove_released(self._source.name, [row.path])
        else:
            self._context.catalog.put_released(self._source.name, replace(row, state=ReleaseState.RELEASED))

    def _is_it(self, aside: int, row: ReleasedRow, known: Identity) -> bool:
        """Whether what lies aside is what was read, under no other name: renaming moves ctime, nothing else."""
        status = os.stat(row.id.encode(), dir_fd=aside, follow_symlinks=False)
        return status.st_nlink == 1 and replace(Identity.of(status), ctime_ns=0) == replace(known, ctime_ns=0)

    def _put_back(
        self, parent: int, last: bytes, aside: int, row: ReleasedRow, *, under_its_name: bool = True
    ) -> None:  # fmt: skip
        # A newer version may have the name already, or its directory be gone. What lies aside may be in no generation:
        # it becomes a file, too.
        name = last if under_its_name else _kept(last, row)
        try:
            durable.move_at("release-back", aside, row.id.encode(), parent, name)
        except FileExistsError:
            name = _kept(last, row)
            durable.move_at("release-back", aside, row.id.encode(), parent, name)
        self._context.catalog.remove_released(self._source.name, [row.path])
        self._context.log.warning("release.undone", source=self._source.name, path=printable(row.path),
                                  name=printable(name))  # fmt: skip

    def _recover(self, row: ReleasedRow) -> None:
        """Put back what lies aside. Only what lies nowhere was unlinked: that its directory is gone does not say so."""
        directory, _, last = row.path.rpartition(b"/")
        with contextlib.ExitStack() as opened:
            root = open_root(self._source.path)
            opened.callback(os.close, root)
            aside = self._aside(root)
            opened.callback(os.close, aside)
            if _is_there(aside, row.id.encode()):
                parent, found = _nearest(root, directory)
                opened.callback(os.close, parent)
                self._put_back(parent, last, aside, row, under_its_name=found == directory)
            elif os.path.lexists(self._place(row.path)):
                self._context.catalog.remove_released(self._source.name, [row.path])
            else:
                self._is_released(row)

    def _aside(self, root: int) -> int:
        """A descriptor of ``.gateway/released``, made where it is not there."""
        own = self._made(root, RESERVED)
        try:
            return self._made(own, FOLDER)
        finally:
            os.close(own)

    def _made(self, parent: int, name: bytes) -> int:
        with contextlib.suppress(FileExistsError):
            durable.make_directory_at("release", parent, name)
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def _kept(last: bytes, row: ReleasedRow) -> bytes:
    return last[:200] + b".kept-" + row.id[:8].encode()


def _is_there(directory: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _nearest(root: int, directory: bytes) -> tuple[int, bytes]:
    """The directory, or what of the way to it is still there, as a descriptor and a path."""
    while True:
        try:
            return open_below(root, directory), directory
        except OSError as error:
            if not directory or error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
        directory = directory.rpartition(b"/")[0]


def _version(known: KnownFile) -> Version:
    """INVARIANT: what was too young when it was read last may be another by now, with the same times. It is as young as
    that reading, and the newest generation keeps it.
    """
    held_ns = known.held_ns if is_sure(known) else known.read_started_ns
    return Version(path=known.path, identity=known.identity, held_ms=held_ns // 1_000_000)
