"""The engine: implements `GatewayApi` for one configuration. The composition root.

Verbs that change something take the exclusive lock on `state.dir` with the first call and keep it until `close`; verbs
that only read work beside another process, from the catalog's file and the store.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from gateway import durable
from gateway.api import (
    ACCEPTED,
    Alarm,
    ChainInfo,
    CheckReport,
    Depth,
    DiffEntry,
    ExpireReport,
    Failure,
    FileInfo,
    Finding,
    GenerationDetail,
    GenerationInfo,
    Grade,
    Head,
    HoldReport,
    IngestReport,
    InitReport,
    JobInfo,
    LifecycleReport,
    Progress,
    ProgressCallback,
    RebuildReport,
    Reference,
    ReleaseReport,
    RestoreReport,
    RetentionReport,
    RunReport,
    SealedFile,
    SourceIngest,
    StatusReport,
    SweepReport,
    VerifyReport,
    VersionInfo,
    no_progress,
)
from gateway.catalog import Catalog, GenerationRow, GenerationState, RestoreJobRow, set_aside
from gateway.clock import Clock, milliseconds
from gateway.config import read_passphrase
from gateway.config.values import Config, SourceConfig, SourceKind
from gateway.errors import GatewayError, LocalStateError, NoRepository, StoreError, UsageError
from gateway.format.chunker import implementation
from gateway.format.filelist import Item
from gateway.format.log import Commit
from gateway.jobs import damage, retain
from gateway.jobs import verify as verifying
from gateway.jobs.alarms import Alarms, Kind, shown
from gateway.jobs.barriers import with_unprotected
from gateway.jobs.conditions import Conditions
from gateway.jobs.context import Context
from gateway.jobs.detail import generation_detail
from gateway.jobs.diff import differences
from gateway.jobs.ingest import Ingest
from gateway.jobs.keeper import Keeper
from gateway.jobs.lifecycle import Rules
from gateway.jobs.rebuild import Rebuild, rebuild
from gateway.jobs.release import Release
from gateway.jobs.restore import ListView
from gateway.jobs.restores import Opened, RestoreJobs, Wanted, require_approved, restore_unrecorded
from gateway.jobs.seals import Seals
from gateway.jobs.status import status
from gateway.jobs.sweep import Sweep
from gateway.jobs.views import capability_infos, chain_infos, file_info, generation_infos
from gateway.log import Log, printable, silent
from gateway.model.ids import generation_text
from gateway.policy.patterns import normal
from gateway.repository.cache import PackCache
from gateway.repository.chain import Chain
from gateway.repository.repository import Repository, Secrets, create, exists, has_chains, open_repository, read_id
from gateway.repository.sheets import add_sheet
from gateway.repository.upload import abort_unknown_uploads
from gateway.store.clock import clock_for
from gateway.store.directory import DirectoryStore
from gateway.store.open import open_store
from gateway.store.passing import innermost
from gateway.store.port import ObjectStore
from gateway.store.probe import AsProbed, from_text, probe, sweep_probes, to_text

REPOSITORY = "repository"
CAPABILITIES = "capabilities"


def open_engine(
    config: Config,
    *,
    recovery_sheet: str | None = None,
    log: Log | None = None,
    clock: Clock | None = None,
    store: ObjectStore | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Engine:
    """An engine for a configuration. Nothing is opened before the first call; `store` replaces the configured one."""
    clock = clock or clock_for(config.repository.endpoint_url, environment)
    return Engine(config, recovery_sheet, log or silent(clock), clock, store, environment)


class Engine:
    """See `GatewayApi` for what each method promises. Not for several threads at once."""

    def __init__(
        self,
        config: Config,
        recovery_sheet: str | None,
        log: Log,
        clock: Clock,
        store: ObjectStore | None,
        environment: Mapping[str, str],
    ) -> None:
        self._config = config
        self._sheet = recovery_sheet
        self._log = log
        self._clock = clock
        self._given_store = store
        self._environment = environment
        self._lock: durable.StateLock | None = None
        self._context: Context | None = None
        self._opened_before: Repository | None = None
        self._catalog_for_jobs: Catalog | None = None
        self._jobs_elsewhere = False
        self.listener: ProgressCallback = no_progress
        """Is told of what takes long in verbs that tell their callers nothing: a running engine shows it."""
        self._writer = clock.random_bytes(16)

    # --- opening -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        if self._context is not None:
            self._context.catalog.close()
            self._context = None
        if self._catalog_for_jobs is not None:
            if not self._jobs_elsewhere:
                self._catalog_for_jobs.close()
            self._catalog_for_jobs = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def _state(self) -> Path:
        return self._config.state.directory

    def _store(self) -> ObjectStore:
        if self._given_store is None:
            self._given_store = open_store(self._config.repository, self._clock)
        return self._given_store

    def _secrets(self) -> Secrets:
        if self._sheet is not None:
            return Secrets.from_sheet(self._sheet)
        return Secrets(passphrase=read_passphrase(self._config.keys, self._environment).reveal())

    def _take_lock(self) -> None:
        if self._lock is None:
            self._lock = durable.StateLock(self._state)

    def _reading(self) -> Context:
        """For verbs that only read: nothing local is changed, no lock is taken."""
        if self._context is None:
            catalog = self._catalog_to_read()
            self._context = self._open(catalog, writable=False)
        return self._context

    def _writing(self, *, fresh_catalog: bool = False) -> Context:
        """For verbs that change something: lock, left-overs swept, catalog opened for writing."""
        if self._context is not None and not self._context.writable:
            self._context.catalog.close()
            self._context = None
        if self._context is None:
            self._take_lock()
            durable.sweep_temporary("state", self._state, below=False)
            for name in ("cache", "ids", "index", "log", "scratch", "sketches"):
                durable.make_directory(name, self._state / name)
                durable.sweep_temporary(name, self._state / name)
            self._context = self._open(self._catalog_to_write(fresh=fresh_catalog), writable=True)
            self._jobs(self._context.catalog).tidy()
        return self._context

    def _proving(self, context: Context) -> Context:
        """The same, with a store that is believed no more than its probe said. A catalog made anew asks again."""
        text = context.catalog.meta(CAPABILITIES)
        if text is None:
            found, notes = probe(context.repository.store, self._clock)
            for note in notes:
                self._log.warning("store.probed", note=note)
            text = to_text(found)
            context.catalog.set_meta(CAPABILITIES, text)
        store = AsProbed(context.repository.store, from_text(text))
        return replace(context, repository=replace(context.repository, store=store))

    def _catalog_path(self) -> Path:
        return self._state / "catalog.sqlite"

    def _catalog_to_read(self) -> Catalog:
        return Catalog(self._catalog_path(), read_only=True)

    def _catalog_to_write(self, *, fresh: bool) -> Catalog:
        try:
            return Catalog(self._catalog_path())
        except LocalStateError:
            if not fresh:
                raise
            aside = set_aside(self._catalog_path())
            self._log.warning("catalog.set_aside", kept_as=str(aside))
            return Catalog(self._catalog_path())

    def _open(self, catalog: Catalog, *, writable: bool) -> Context:
        try:
            repository = self._opened_before or open_repository(self._store(), self._clock, self._secrets())
            for problem in repository.problems:
                self._log.error("slot.damaged", problem=str(problem))
            known = catalog.meta(REPOSITORY)
            if known is not None and known != repository.id.hex():
                raise NoRepository(
                    f"{self._state} belongs to repository {known}; the one at {repository.store.url} is "
                    f"{repository.id.hex()}.",
                    meaning="Its catalog, ledger and cache are another repository's.",
                    advice="Correct repository.url, or give this repository a state.dir of its own.",
                )
            if known is None and writable:
                catalog.set_meta(REPOSITORY, repository.id.hex())
        except BaseException:
            catalog.close()
            raise
        cache = PackCache(self._state / "cache", self._config.cache.max_bytes, read_only=not writable)
        return Context(
            config=self._config, clock=self._clock, log=self._log, repository=repository, catalog=catalog, cache=cache,
            writer=self._writer, writable=writable,
            seen=frozenset(name.group for name in catalog.heads()),
        )  # fmt: skip

    def _audit(self, context: Context, what: str, detail: str = "", who: str = "") -> None:
        context.catalog.audit(who or _user(), what, milliseconds(self._clock.now()), detail)

    # --- init, check, version ----------------------------------------------------------------------------------------

    def init(self) -> InitReport:
        self._take_lock()
        store = self._store()
        root = innermost(store)
        if isinstance(root, DirectoryStore):
            root.create_root()
            self._sweep_store()
        if exists(store):
            return self._finish_init(store)
        self._require_own_state()
        passphrase = read_passphrase(self._config.keys, self._environment).reveal()
        capabilities, notes = probe(store, self._clock)
        where = self._config.repository
        created = create(store, self._clock, passphrase, region=where.region or "", endpoint=where.endpoint_url or "")
        self._sheet = None
        context = self._writing(fresh_catalog=True)
        context.catalog.set_meta(CAPABILITIES, to_text(capabilities))
        self._audit(context, "init", f"repository {created.repository.id.hex()}")
        return InitReport(
            repository=created.repository.id.hex(), url=store.url, recovery_sheet=created.sheet,
            capabilities=tuple(capability_infos(capabilities)), notes=tuple(notes),
        )  # fmt: skip

    def _finish_init(self, store: ObjectStore) -> InitReport:
        """A repository without any chain may be one whose `init` was cut off before its sheet was seen: it gets one."""
        repository_id, _ = read_id(store)
        if has_chains(store):
            raise UsageError(
                f"There is a repository at {store.url} already: {repository_id.hex()}.",
                meaning="Nothing was changed.",
                advice="Use another prefix for a second one; a lost catalog is made anew by `gateway rebuild`.",
            )
        context = self._writing(fresh_catalog=True)
        where = self._config.repository
        text = add_sheet(context.repository, region=where.region or "", endpoint=where.endpoint_url or "")
        self._audit(context, "init", f"one more recovery sheet for {repository_id.hex()}")
        capabilities, notes = probe(store, self._clock)
        context.catalog.set_meta(CAPABILITIES, to_text(capabilities))
        notes.append(
            "The repository was there already, and empty: this is one more recovery sheet for it. "
            "Sheets printed before open it, too."
        )
        return InitReport(
            repository=repository_id.hex(), url=store.url, recovery_sheet=text,
            capabilities=tuple(capability_infos(capabilities)), notes=tuple(notes),
        )  # fmt: skip

    def _sweep_store(self, context: Context | None = None) -> None:
        """Remove what writers that were killed left in the store long ago. What cannot be removed now, can later."""
        try:
            root = innermost(self._store())
            if isinstance(root, DirectoryStore) and (count := root.sweep_leftovers()):
                self._log.info("store.swept", leftovers=count)
            sweep_probes(self._store(), self._clock)
            if context is not None:
                for key in abort_unknown_uploads(context.repository.store, context.catalog, self._clock):
                    self._log.info("upload.aborted", key=key)
        except StoreError as error:
            self._log.warning("store.not_swept", problem=str(error))

    def _require_own_state(self) -> None:
        """A state directory that another repository uses must not become this one's."""
        if not self._catalog_path().exists():
            return
        with Catalog(self._catalog_path(), read_only=True) as catalog:
            known = catalog.meta(REPOSITORY)
        if known is not None:
            raise NoRepository(
                f"{self._state} belongs to repository {known}, which is not at {self._store().url}.",
                meaning="Nothing was created.",
                advice="Correct repository.url, or give the new repository a state.dir of its own.",
            )

    def check_config(self) -> CheckReport:
        findings = [Finding(grade=Grade.WARNING, subject=w.where, text=w.text) for w in self._config.warnings]
        findings += [_source_finding(source) for source in self._config.sources]
        try:
            store = self._store()
            repository_id, _ = read_id(store)
            findings.append(Finding(grade=Grade.OK, subject="repository", text=f"{repository_id.hex()} at {store.url}"))
            open_repository(store, self._clock, self._secrets())
            findings.append(Finding(grade=Grade.OK, subject="keys", text="The passphrase or sheet opens it."))
        except GatewayError as error:
            subject = "keys" if error.exit_code == 12 else "repository"
            findings.append(Finding(grade=Grade.PROBLEM, subject=subject, text=str(error)))
        return CheckReport(findings=tuple(findings))

    # --- lifecycle rules ---------------------------------------------------------------------------------------------

    def lifecycle_plan(self) -> LifecycleReport:
        return Rules(self._reading()).plan()

    def lifecycle_apply(self, *, operator: str = "") -> LifecycleReport:
        context = self._proving(self._writing())
        report = Rules(context).apply(self._alarms(context))
        if report.written:
            self._audit(context, "lifecycle", f"{len(report.rules)} rules at {report.url}", operator)
        return report

    def lifecycle_check(self) -> LifecycleReport:
        context = self._proving(self._writing())
        return Rules(context).check(self._alarms(context))

    def version(self) -> VersionInfo:
        return VersionInfo(chunker=f"wide-64, {implementation()}")

    # --- ingest ------------------------------------------------------------------------------------------------------

    def ingest(
        self,
        source: str | None = None,
        *,
        seal_now: bool = False,
        new_chain: bool = False,
        operator: str = "",
        progress: ProgressCallback = no_progress,
    ) -> IngestReport:
        chosen = (self._config.source(source),) if source is not None else self._config.sources
        context = self.hold()
        reports = []
        for one in chosen:
            try:
                keeper = Keeper(context, one, self._alarms(context))
                keeper.seal_files.take(self._clock)
                made = keeper.once(progress)
                keeper.seal_files.look()
                reports += made[:-1] if one.kind is SourceKind.JOB else made
                if one.kind is SourceKind.JOB:
                    report = made[-1]
                else:
                    report = Ingest(
                        context, one, seal_now=seal_now, new_chain=new_chain, operator=operator or _user(),
                        progress=progress,
                    ).run()  # fmt: skip
            except GatewayError as error:
                if len(chosen) == 1:
                    raise
                self._log.error("ingest.failed", source=one.name, problem=str(error))
                report = SourceIngest(source=one.name, failure=failure_of(error))
            if report.generation is not None:
                self._audit(context, "ingest", f"{one.name}@{report.generation.number}", operator)
                conditions = Conditions(context, one, self._alarms(context))
                conditions.judge(report.generation)
                conditions.well(worked=True)
            reports.append(report)
        return IngestReport(sources=tuple(map(with_unprotected, reports)))

    def hold(self) -> Context:
        """Everything that writing verbs work with: lock, catalog, keys, a store believed as far as it was probed."""
        context = self._proving(self._writing())
        self._sweep_store(context)
        self._alarms(context).close(Kind.CLOCK, "store")  # it answered, which it does to nobody with a wrong clock
        self._close_of_others(context)
        return context

    def _close_of_others(self, context: Context) -> None:
        self._alarms(context).close_of_others({each.name for each in self._config.sources})

    def reconfigure(self, config: Config) -> None:
        """Take over settings that a running engine may change: sources, hooks, how it watches."""
        self._config = config
        if self._context is not None:
            self._context = replace(self._context, config=config)
            self._close_of_others(self._context)

    def reader(self, opened: Repository, jobs: Catalog | None = None) -> Engine:
        """One more engine for verbs that only read, for another thread; the keys are those of this one. `jobs`: where
        restore jobs are written, which others then carry out.
        """
        other = Engine(self._config, self._sheet, self._log, self._clock, self._given_store, self._environment)
        other._opened_before = opened
        other._catalog_for_jobs, other._jobs_elsewhere = jobs, jobs is not None
        return other

    def _alarms(self, context: Context) -> Alarms:
        return Alarms(context.catalog, self._clock, self._log)

    def _seals(self, source: str) -> tuple[Context, Seals]:
        context = self._proving(self._writing())
        return context, Seals(context, self._config.source(source), self._alarms(context))

    # --- producers ---------------------------------------------------------------------------------------------------

    def accept(self, source: str, *, alarm: str = ACCEPTED[0], operator: str = "") -> bool:
        context = self._writing()
        self._require_source(context.catalog, source)
        if alarm not in ACCEPTED:
            raise UsageError(
                f'An alarm "{alarm}" is not for anybody to accept.',
                meaning="It closes when what it says is over.",
                advice=f"These are accepted: {', '.join(ACCEPTED)}.",
            )
        if alarm == Kind.DAMAGE:  # before it closes, or the next look would open it again
            damage.answer(context.catalog, source)
        closed = self._alarms(context).close_all(source, Kind(alarm))
        if closed:
            self._audit(context, "accept", f"{alarm} of {source}", operator)
        return closed

    def begin(self, source: str, run: str, *, operator: str = "") -> RunReport:
        return self._seals(source)[1].begin(run, operator or _user())

    def seal(
        self,
        source: str,
        run: str,
        *,
        files: Sequence[SealedFile] = (),
        folder: bytes = b"",
        requires: Sequence[str] = (),
        operator: str = "",
        wait: bool = False,
        progress: ProgressCallback = no_progress,
    ) -> RunReport:
        context, seals = self._seals(source)
        report = seals.seal(run, files, folder, requires, operator or _user(), progress)
        if wait and seals.waiting():
            Keeper(context, self._config.source(source), self._alarms(context)).once(progress)
            row = context.catalog.job(source, run)
            assert row is not None
            report = seals.report(row)
        return report

    def fail(self, source: str, run: str, *, reason: str = "", operator: str = "") -> RunReport:
        return self._seals(source)[1].fail(run, reason, operator or _user())

    def barrier(
        self, source: str | None = None, *, wait: bool = True, progress: ProgressCallback = no_progress
    ) -> IngestReport:
        """Without an engine there is nobody to leave the work to: it is done now."""
        del wait
        return self.ingest(source, progress=progress)

    def release(self, source: str | None = None, *, dry_run: bool = False) -> Sequence[ReleaseReport]:
        chosen = (self._config.source(source),) if source is not None else self._config.sources
        context = self._writing()
        reports = []
        for one in chosen:
            reports.append(Release(context, one, self.listener).run(dry_run=dry_run))
            if reports[-1].files and not dry_run:
                self._audit(context, "release", f"{one.name}: {reports[-1].files} files")
        return reports

    # --- retention ---------------------------------------------------------------------------------------------------

    def retention_plan(self, source: str | None = None) -> RetentionReport:
        context = self._reading()
        self._require_source(context.catalog, source)
        job = retain.Retention(context, source)
        return job.report(job.plan())

    def retention_apply(self, source: str | None = None, *, approve: str = "", operator: str = "") -> RetentionReport:
        context = self._proving(self._writing())
        self._require_source(context.catalog, source)
        report = retain.Retention(context, source).apply(approve, operator or _user())
        if report.expired:
            self._audit(context, "expire", f"plan {report.plan}: {', '.join(report.expired)}", operator)
        return report

    def hold_generation(self, reference: Reference, *, reason: str, operator: str = "") -> HoldReport:
        context = self._proving(self._writing())
        report = retain.hold(context, reference, reason, operator or _user())
        self._audit(context, "hold", f"{report.source}@{report.number}: {reason}", operator)
        return report

    def unhold_generation(self, reference: Reference, *, reason: str = "", operator: str = "") -> HoldReport:
        context = self._proving(self._writing())
        report = retain.unhold(context, reference, reason, operator or _user())
        self._audit(context, "unhold", f"{report.source}@{report.number}: {reason}", operator)
        return report

    def expire_generation(self, reference: Reference, *, dry_run: bool = False, operator: str = "") -> ExpireReport:
        context = self._proving(self._writing())
        report = retain.expire(context, reference, dry_run=dry_run, operator=operator or _user())
        if not dry_run:
            self._audit(context, "expire", f"{report.source}@{report.number}, by hand", operator)
        return report

    def sweep(
        self, source: str | None = None, *, dry_run: bool = False, progress: ProgressCallback = no_progress
    ) -> SweepReport:
        context = self._proving(self._writing()) if dry_run else self.hold()
        self._require_source(context.catalog, source)
        report = Sweep(context, source, progress).run(dry_run=dry_run)
        if (report.deleted or report.ended) and not dry_run:
            self._audit(context, "sweep", f"{report.deleted} objects, {report.deleted_bytes} bytes")
        return report

    # --- looking -----------------------------------------------------------------------------------------------------

    def generations(self, source: str | None = None) -> Sequence[GenerationInfo]:
        """From the catalog alone: needs neither keys nor the store."""
        if self._context is not None:
            return self._generations_of(self._context.catalog, source)
        with self._catalog_to_read() as catalog:
            return self._generations_of(catalog, source)

    def status(self) -> StatusReport:
        """From the catalog alone, like `generations`."""
        if self._context is not None:
            return status(self._context.catalog, self._config, self._clock)
        with self._catalog_to_read() as catalog:
            return status(catalog, self._config, self._clock)

    def alarms(self, limit: int = 100) -> Sequence[Alarm]:
        """From the catalog alone, like `generations`."""
        if self._context is not None:
            return shown(self._context.catalog.alarms(limit))
        with self._catalog_to_read() as catalog:
            return shown(catalog.alarms(limit))

    def chains(self, source: str | None = None) -> Sequence[ChainInfo]:
        """From the catalog alone, like `generations`."""
        if self._context is not None:
            return self._chains_of(self._context.catalog, source)
        with self._catalog_to_read() as catalog:
            return self._chains_of(catalog, source)

    def _chains_of(self, catalog: Catalog, source: str | None) -> Sequence[ChainInfo]:
        self._require_source(catalog, source)
        return chain_infos(catalog, source)

    def _generations_of(self, catalog: Catalog, source: str | None) -> Sequence[GenerationInfo]:
        self._require_source(catalog, source)
        return generation_infos(catalog.generations(source), catalog)

    def _require_source(self, catalog: Catalog, source: str | None) -> None:
        """`UsageError` for a name that neither the configuration nor the repository has: most likely a slip."""
        if source is not None and all(row.source != source for row in catalog.chains()):
            self._config.source(source)

    def _row(self, context: Context, reference: Reference, *, incomplete: bool = True) -> GenerationRow:
        rows = context.catalog.generations(reference.source)
        info = reference.choose(generation_infos(rows, context.catalog), incomplete=incomplete)
        return next(row for row in rows if generation_text(row.generation) == info.id)

    def _opened(self, reference: Reference, *, newest: bool = False) -> tuple[Context, GenerationRow, Chain, Commit]:
        """A generation with its chain. `newest`: "latest" means the newest whatever its state."""
        context = self._reading()
        row = self._row(context, reference, incomplete=newest)
        chain = context.open_chain(row.chain)
        state = chain.fold.generations.get(row.generation)
        if state is None:
            raise UsageError(
                f"{row.source}@{row.number} is in the catalog, but not in the chain's log any more.",
                meaning="The log was damaged or rolled back, or the generation superseded.",
                advice="Run `gateway verify` and `gateway rebuild`.",
            )
        return context, row, chain, state.commit

    def show(self, reference: Reference) -> GenerationDetail:
        context, row, chain, commit = self._opened(reference)
        return generation_detail(context, row, chain, commit)

    def _list(self, reference: Reference) -> ListView:
        context, row, chain, commit = self._opened(reference)
        return ListView(commit.files, context.reader(chain), f"file list of {row.source}@{row.number}")

    def list_files(self, reference: Reference, path: bytes = b"") -> Iterator[FileInfo]:
        view = self._list(reference)
        where = normal(path)
        items = view.below(where) if where else (each for each in view.records() if isinstance(each, Item))
        found = False
        for item in items:
            found = True
            yield file_info(item.entry)
        if where and not found:
            raise UsageError(
                f'There is no "{printable(where)}" in {reference}.',
                meaning="Paths are relative to the source.",
                advice=f"`gateway ls {reference}` lists all.",
            )

    def diff(self, before: Reference, after: Reference) -> Iterator[DiffEntry]:
        yield from differences(self._list(before).records(), self._list(after).records())

    # --- restore -----------------------------------------------------------------------------------------------------

    def restore(
        self,
        reference: Reference,
        to: Path,
        *,
        paths: Sequence[bytes] = (),
        overwrite: bool = False,
        incomplete: bool = False,
        dry_run: bool = False,
        tier: str = "",
        deadline: timedelta | None = None,
        budget: Decimal | None = None,
        detach: bool = False,
        operator: str = "",
        progress: ProgressCallback = no_progress,
    ) -> RestoreReport:
        context, row, chain, commit = self._opened(reference, newest=incomplete)
        if row.state is not GenerationState.PROTECTED and not incomplete:
            raise UsageError(
                f"{row.source}@{row.number} is not protected: {'; '.join(row.reasons) or row.state}.",
                meaning="Some of its files may be missing or unreadable.",
                advice="Restore an older generation, or add --incomplete to get what there is.",
            )
        opened = context, row, chain, commit.files
        wanted = Wanted(
            to=to, what=str(reference), paths=tuple(paths), overwrite=overwrite, incomplete=incomplete, tier=tier,
            deadline=deadline, budget=budget, operator=operator or _user(),
            by_command=not (detach or self._jobs_elsewhere),
        )  # fmt: skip
        if dry_run:
            _, _, plan = self._jobs(context.catalog).plan(opened, wanted)
            return RestoreReport(plan=plan, target=to, dry_run=True)
        catalog = self._catalog_of_jobs()
        if catalog is None:
            return restore_unrecorded(self._jobs(context.catalog), opened, wanted, progress)
        jobs = self._jobs(catalog)
        job, plan = jobs.make(opened, wanted)
        if job is None:
            return restore_unrecorded(jobs, opened, wanted, progress)
        if not self._jobs_elsewhere:
            job = jobs.begin(job.id, progress) if detach else jobs.run(job.id, progress)
        elif not detach:
            job = jobs.follow(job.id, progress) if job.planned.cold_packs else jobs.run(job.id, progress)
        return jobs.report(job, plan)

    def _catalog_of_jobs(self) -> Catalog | None:
        """One that restore jobs can be written to, also beside another process; None: this user may not."""
        if self._context is not None and self._context.writable:
            return self._context.catalog
        if self._catalog_for_jobs is None:
            try:
                self._catalog_for_jobs = Catalog(self._catalog_path())
            except LocalStateError:
                return None
        return self._catalog_for_jobs

    def _require_jobs(self) -> RestoreJobs:
        catalog = self._catalog_of_jobs()
        if catalog is None:
            raise LocalStateError(
                f"{self._catalog_path()} cannot be written.", meaning="Nothing was changed.",
                advice="Run the command as the user that the gateway runs as.",
            )  # fmt: skip
        return self._jobs(catalog)

    def _jobs(self, catalog: Catalog) -> RestoreJobs:
        return RestoreJobs(catalog, self._config, self._clock, self._open_generation)

    def _open_generation(self, source: str, generation: bytes) -> Opened:
        context = self._context or self._reading()
        row = next((each for each in context.catalog.generations(source) if each.generation == generation), None)
        chain = context.open_chain(row.chain) if row is not None else None
        state = chain.fold.generations.get(generation) if chain is not None else None
        if row is None or chain is None or state is None:
            raise UsageError(
                f"The generation of {source} that the job restores is not there any more.",
                meaning="It was swept, or its log was damaged.",
                advice="`gateway generations` lists what there is.",
            )
        return context, row, chain, state.commit.files

    def jobs(self) -> Sequence[JobInfo]:
        """From the catalog alone, like `generations`."""
        if self._context is not None:
            return self._jobs(self._context.catalog).all()
        with self._catalog_to_read() as catalog:
            return self._jobs(catalog).all()

    def job(self, job: str) -> JobInfo:
        if self._context is not None:
            found = self._jobs(self._context.catalog)
            return found.shown(found.find(job))
        with self._catalog_to_read() as catalog:
            found = self._jobs(catalog)
            return found.shown(found.find(job))

    def approve_job(self, job: str, *, operator: str = "") -> JobInfo:
        return self._changed("approve", lambda jobs, who: jobs.approve(job, who), operator)

    def cancel_job(self, job: str, *, operator: str = "") -> JobInfo:
        return self._changed("cancel", lambda jobs, who: jobs.cancel(job, who), operator)

    def pause_job(self, job: str, *, operator: str = "") -> JobInfo:
        return self._changed("pause", lambda jobs, who: jobs.pause(job, who), operator)

    def resume_job(
        self,
        job: str,
        *,
        deadline: timedelta | None = None,
        budget: Decimal | None = None,
        tier: str = "",
        operator: str = "",
    ) -> JobInfo:
        return self._changed(
            "resume", lambda jobs, _: jobs.resume(job, deadline=deadline, budget=budget, tier=tier), operator
        )

    def _changed(self, what: str, change: Callable[[RestoreJobs, str], RestoreJobRow], operator: str) -> JobInfo:
        jobs, who = self._require_jobs(), operator or _user()
        row = change(jobs, who)
        catalog = self._catalog_of_jobs()
        assert catalog is not None
        catalog.audit(who, f"{what} restore", milliseconds(self._clock.now()), f"job {row.id}")
        return jobs.shown(row)

    def watch_job(self, job: str, *, progress: ProgressCallback = no_progress) -> RestoreReport:
        jobs = self._require_jobs()
        row = jobs.find(job)
        require_approved(row)
        return jobs.report(jobs.follow(row.id, progress) if self._jobs_elsewhere else jobs.run(row.id, progress))

    def turn_restore(self, job: str, progress: ProgressCallback) -> RestoreJobRow:
        """Do what can be done now of a restore job; for a running engine, on a thread of its own."""
        return self._require_jobs().turn(job, progress)

    def due_restores(self, catalog: Catalog) -> list[RestoreJobRow]:
        """Restore jobs that have something to do now."""
        return self._jobs(catalog).due()

    # --- verify, rebuild ---------------------------------------------------------------------------------------------

    def verify(
        self,
        source: str | None = None,
        *,
        depth: Depth = Depth.STRUCTURE,
        dry_run: bool = False,
        progress: ProgressCallback = no_progress,
    ) -> VerifyReport:
        context = self._writing()
        self._require_source(context.catalog, source)
        job = verifying.Verify(context, source, depth, progress)
        return job.plan() if dry_run else job.run()

    def rebuild(self, *, expect_heads: Sequence[Head] = (), progress: ProgressCallback = no_progress) -> RebuildReport:
        context = self._writing(fresh_catalog=True)
        report = rebuild(context, expect_heads, progress)
        self._audit(context, "rebuild", f"{report.chains} chains, {report.generations} generations")
        return report

    # --- beside a worker, which alone writes: `on_worker` runs something there and waits for it -----------------------

    def verify_beside(
        self, on_worker: Callable[[Callable[[], Any]], Any], *, source: str | None = None,
        depth: Depth = Depth.STRUCTURE, dry_run: bool = False, progress: ProgressCallback = no_progress,
    ) -> VerifyReport:  # fmt: skip
        context = self._writing()
        self._require_source(context.catalog, source)
        job = verifying.Verify(context, source, depth, progress, on_worker)
        return job.plan() if dry_run else job.run()

    def rebuild_beside(
        self, on_worker: Callable[[Callable[[], Any]], Any], *, expect_heads: Sequence[Head] = (),
        progress: ProgressCallback = no_progress,
    ) -> RebuildReport:  # fmt: skip
        context = self._writing()
        steps = Rebuild(context, expect_heads)
        found = on_worker(lambda: steps.begin(clear=False))
        for done, name in enumerate(found):
            progress(Progress(phase="rebuilding", done=done, total=len(found), unit="chains"))
            on_worker(partial(steps.fold, name))
        report: RebuildReport = on_worker(steps.end)
        self._audit(context, "rebuild", f"{report.chains} chains, {report.generations} generations")
        return report


# --- small parts -----------------------------------------------------------------------------------------------------


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


def failure_of(error: GatewayError) -> Failure:
    return Failure(
        kind=type(error).__name__, what=error.what, meaning=error.meaning, advice=error.advice,
        exit_code=error.exit_code,
    )  # fmt: skip


def _source_finding(source: SourceConfig) -> Finding:
    if not source.path.is_dir():
        return Finding(grade=Grade.PROBLEM, subject=source.name, text=f"{source.path} is not a directory.")
    if not os.access(source.path, os.R_OK | os.X_OK):
        return Finding(grade=Grade.PROBLEM, subject=source.name, text=f"{source.path} cannot be read.")
    return Finding(grade=Grade.OK, subject=source.name, text=str(source.path))
