"""`gateway serve`: threads, signals, systemd and the door. What is done is in `gateway.jobs`; docs/design/engine.md.

One worker thread owns the writing engine and takes sources and queued calls in turn. Calls that only read have engines
of their own on the door's threads. A kill at any moment is an ordinary end.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from gateway.api import IngestReport, Progress, ProgressCallback, RunReport, SourceIngest, StatusReport, Work
from gateway.catalog import JobState
from gateway.clock import Clock
from gateway.config import load
from gateway.config.values import Config, SourceConfig
from gateway.control.notify import notify, watchdog_seconds
from gateway.control.server import ControlServer
from gateway.engine import Engine, failure_of, open_engine
from gateway.errors import ConfigError, GatewayError, LockHeld, PartialError, Stopped, UsageError
from gateway.jobs.alarms import Alarms
from gateway.jobs.barriers import Barrier
from gateway.jobs.context import Context
from gateway.jobs.hooks import Hooks
from gateway.jobs.keeper import Keeper
from gateway.jobs.lifecycle import DailyCheck
from gateway.jobs.seals import Compared
from gateway.jobs.status import status
from gateway.jobs.upkeep import Upkeep
from gateway.log import Log
from gateway.store.clock import clock_for
from gateway.store.port import ObjectStore

TICK_SECONDS = 1.0
"""LIMIT: between two turns of a source; a quarter of its settle time where that is shorter."""
STOP_SECONDS = 20.0
"""LIMIT: how long a stop waits for the worker. What is not at its end then is given up as a kill would: nothing is lost
by that, and systemd would do it anyway."""
STUCK_SECONDS = 1800.0
"""LIMIT: without any sign of the worker for so long, systemd's watchdog is not fed any more. A store that does not
answer is tried for five minutes a request."""
HOOK_SECONDS = 2.0
OBSERVE_SECONDS = 5.0
RESTORES = 4
"""LIMIT: restore jobs that are worked on at a time."""
RETRY_SECONDS = 5.0
"""LIMIT: between two turns of a restore job."""

READING = frozenset(
    {
        "alarms", "approve_job", "cancel_job", "chains", "check_config", "diff", "generations", "job", "jobs",
        "lifecycle_plan", "list_files", "pause_job", "restore", "resume_job", "retention_plan", "show", "watch_job",
    }
)  # fmt: skip
TELLING = frozenset({"restore", "watch_job"})
"""Of those: they tell progress."""
QUIET = frozenset(
    {
        "accept", "expire_generation", "hold_generation", "lifecycle_apply", "lifecycle_check", "release",
        "retention_apply", "unhold_generation",
    }
)  # fmt: skip
"""Of those queued: they tell no progress."""
QUEUED = frozenset({"sweep"}) | QUIET


@dataclass(slots=True)
class Task:
    """A call that waits for the worker."""

    name: str
    run: Callable[[Engine], Any]
    done: threading.Event
    result: Any = None
    error: BaseException | None = None


class Daemon:
    """One engine from start to end; `run` returns when it was told to stop."""

    def __init__(
        self,
        config: Config,
        *,
        log: Log,
        recovery_sheet: str | None = None,
        clock: Clock | None = None,
        store: ObjectStore | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._config = config
        self._log = log
        self._clock = clock or clock_for(config.repository.endpoint_url, environment)
        self._environment = environment
        self._engine = open_engine(
            config, recovery_sheet=recovery_sheet, log=log, clock=self._clock, store=store, environment=environment
        )
        self._context: Context | None = None
        self._keepers: dict[str, Keeper] = {}
        self._lock = threading.RLock()
        self._tasks: queue.Queue[Task] = queue.Queue()
        self._stopping = threading.Event()
        self._reload = threading.Event()
        self._wake = threading.Event()
        self._heartbeat = 0.0
        self._work: Work | None = None
        self._work_began = 0.0
        self._worker: threading.Thread | None = None
        self._restores: threading.Thread | None = None
        self._since: datetime | None = None
        self._failure: BaseException | None = None
        self._rules: DailyCheck | None = None
        self._beside = threading.Lock()
        self._beside_work: Work | None = None
        self._upkeep: Upkeep | None = None

    # --- life --------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises what makes a start impossible."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        signal.signal(signal.SIGHUP, lambda *_: self._reload.set())
        self.start()
        server = ControlServer(self._config.socket, self._config.engine.users, self, self._clock, self._log)
        try:
            self._notify("READY=1")
            self._log.info("engine.started", pid=os.getpid(), socket=str(self._config.socket),
                           sources=[each.name for each in self._config.sources])  # fmt: skip
            self._attend()
        finally:
            self._notify("STOPPING=1")
            server.close()
            self.finish()

    def start(self) -> None:
        """Take the lock, open the repository, begin to watch and to work."""
        self._context = self._engine.hold()
        self._engine.listener = self._progress
        self._since = self._clock.now()
        self._heartbeat = self._clock.monotonic()
        for source in self._config.sources:
            self._keep(source)
        self._rules = DailyCheck(self._alarms())
        self._upkeep = Upkeep(self._alarms())
        self._worker = threading.Thread(target=self._work_on, name="worker")
        self._worker.start()
        threading.Thread(target=self._tell, name="hooks", daemon=True).start()
        self._restores = threading.Thread(target=self._restore_on, name="restores")
        self._restores.start()

    def stop(self) -> None:
        """From any thread and from signal handlers."""
        self._stopping.set()
        self._wake.set()

    def finish(self) -> None:
        """Wait for the worker, or leave it."""
        self.stop()
        for thread in (self._worker, self._restores):
            if thread is not None:
                thread.join(STOP_SECONDS)
        if any(thread is not None and thread.is_alive() for thread in (self._worker, self._restores)):
            self._log.warning("engine.left_work", work=self._work.what if self._work else "")
            os._exit(0)
        for keeper in self._keepers.values():
            keeper.stop()
        self._engine.close()
        self._log.info("engine.stopped")
        if self._failure is not None:
            raise self._failure

    def _attend(self) -> None:
        """The main thread: signals arrive here, and systemd hears that we live."""
        period = watchdog_seconds(self._environment) or 5.0
        observe_at = self._clock.monotonic() + OBSERVE_SECONDS
        while not self._stopping.wait(min(period, 1.0)):
            if self._reload.is_set():
                self._reload.clear()
                self.reload()
            if self._clock.monotonic() - self._heartbeat < STUCK_SECONDS:
                self._notify("WATCHDOG=1")
            if self._clock.monotonic() >= observe_at:
                observe_at = self._clock.monotonic() + OBSERVE_SECONDS
                self._observe()

    def _observe(self) -> None:
        for keeper in list(self._keepers.values()):
            try:
                keeper.observe()
            except GatewayError as error:
                self._log.warning("source.not_observed", source=keeper.source.name, problem=str(error))

    def _notify(self, text: str) -> None:
        notify(self._environment, text)

    # --- configuration -----------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Take over what can be taken over while running; say what cannot."""
        if self._config.file is None:
            return
        self._notify("RELOADING=1")
        try:
            new = load(self._config.file)
        except (ConfigError, UsageError) as error:
            self._log.error("config.not_reloaded", problem=str(error))
            self._notify("READY=1")
            return
        fixed = ("repository", "state", "keys", "cache", "limits", "writer")
        waits = [name for name in fixed if getattr(new, name) != getattr(self._config, name)]
        if new.socket != self._config.socket or new.engine.users != self._config.engine.users:
            waits.append("engine.socket")
        kept = {name: getattr(self._config, name) for name in fixed}
        config = replace(new, **kept)
        self._tasks.put(Task("reload", lambda _: self._take_over(config), threading.Event()))
        self._wake.set()
        if waits:
            self._log.warning("config.needs_restart", settings=waits)
        self._notify("READY=1")

    def _take_over(self, config: Config) -> None:
        assert self._context is not None
        with self._lock:
            self._config = config
            self._context = replace(self._context, config=config)
            self._engine.reconfigure(config)
            for name in list(self._keepers):
                keeper = self._keepers[name]
                wanted = next((each for each in config.sources if each.name == name), None)
                if wanted != keeper.source:
                    keeper.stop()
                    for barrier in keeper.barriers:
                        barrier.error, barrier.done = _reconfigured(name), True
                    del self._keepers[name]
            for source in config.sources:
                if source.name not in self._keepers:
                    self._keep(source)
            self._keepers = {each.name: self._keepers[each.name] for each in config.sources}  # served in this order
        self._log.info("config.reloaded", sources=[each.name for each in config.sources])

    def _keep(self, source: SourceConfig) -> None:
        assert self._context is not None
        keeper = Keeper(self._context, source, self._alarms())
        keeper.close_old_alarms()
        keeper.start()
        self._keepers[source.name] = keeper

    def _alarms(self) -> Alarms:
        assert self._context is not None
        return Alarms(self._context.catalog, self._clock, self._log)

    # --- the worker --------------------------------------------------------------------------------------------------

    def _work_on(self) -> None:
        try:
            while not self._stopping.is_set():
                self._heartbeat = self._clock.monotonic()
                worked = self._run_tasks()
                for keeper in list(self._keepers.values()):
                    if self._stopping.is_set():
                        return
                    with self._doing("ingest", keeper.source.name):
                        worked |= keeper.turn(self._progress)
                if self._rules is not None and self._context is not None and self._rules.due(self._context):
                    with self._doing("lifecycle check", ""):
                        self._rules.turn(self._context)
                if self._upkeep is not None and self._context is not None and self._upkeep.due(self._context):
                    with self._doing("retention", ""):
                        self._upkeep.turn(self._context, self._progress)
                if not worked:
                    self._wake.wait(self._tick())
                    self._wake.clear()
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001  (the main thread ends the process with it)
            self._failure = error
            self._log.error("engine.defect", problem=f"{type(error).__name__}: {error}")
        finally:
            self._drop_tasks()
            self.stop()

    def _tick(self) -> float:
        settles = [keeper.source.settle.total_seconds() for keeper in self._keepers.values()]
        return max(0.05, min([TICK_SECONDS, *(each / 4 for each in settles)]))

    def _run_tasks(self) -> bool:
        """Those that wait now: who queues one after another must not keep sources waiting."""
        worked = False
        with contextlib.suppress(queue.Empty):
            for _ in range(self._tasks.qsize()):
                task = self._tasks.get_nowait()
                worked = True
                with self._doing(task.name, ""):
                    try:
                        task.result = task.run(self._engine)
                    except Stopped as error:
                        task.error = error
                        raise
                    except BaseException as error:  # noqa: BLE001  (belongs to who waits for it)
                        task.error = error
                    finally:
                        task.done.set()
        return worked

    def _drop_tasks(self) -> None:
        """Nobody works any more: whoever waits is told."""
        error = Stopped("The engine was stopped.", meaning="What waited was not done.", advice="Ask again later.")
        with contextlib.suppress(queue.Empty):
            while True:
                task = self._tasks.get_nowait()
                task.error = error
                task.done.set()
        for keeper in self._keepers.values():
            for barrier in keeper.barriers:
                barrier.error, barrier.done = error, True

    @contextlib.contextmanager
    def _doing(self, what: str, source: str) -> Iterator[None]:
        self._work, self._work_began = Work(what=what, source=source), self._clock.monotonic()
        try:
            yield
        finally:
            self._work = None

    def _progress(self, progress: Progress) -> None:
        """From the worker's own thread it is also the place where a stop takes effect."""
        self._heartbeat = self._clock.monotonic()
        work = self._work
        if work is not None:
            seconds = self._clock.monotonic() - self._work_began
            self._work = replace(
                work, phase=progress.phase, done=progress.done, total=progress.total, unit=progress.unit,
                seconds=seconds, rate=progress.done / seconds if seconds > 0 else None,
            )  # fmt: skip
        if self._stopping.is_set() and threading.current_thread() is self._worker:
            raise Stopped("The engine was stopped.")

    def _tell(self) -> None:
        assert self._context is not None
        while not self._stopping.wait(HOOK_SECONDS):
            try:
                Hooks(self._context.catalog, self._config.hooks, self._log).tell()
            except GatewayError as error:
                self._log.warning("hook.failed", problem=str(error))

    # --- restore jobs ------------------------------------------------------------------------------------------------

    def _restore_on(self) -> None:
        """Carry restore jobs forward: one that has something to do gets a thread, one that waits holds none."""
        assert self._context is not None
        running: dict[str, threading.Thread] = {}
        tried: dict[str, float] = {}
        while not self._stopping.wait(TICK_SECONDS):
            running = {job: thread for job, thread in running.items() if thread.is_alive()}
            try:
                due = [row.id for row in self._engine.due_restores(self._context.catalog)]
            except GatewayError as error:
                self._log.warning("restore.not_looked", problem=str(error))
                continue
            now = self._clock.monotonic()
            for job in due:
                if job in running or len(running) >= RESTORES or now - tried.get(job, -RETRY_SECONDS) < RETRY_SECONDS:
                    continue
                tried[job] = now
                running[job] = threading.Thread(target=self._restore_turn, args=(job,), name=f"restore {job}")
                running[job].start()
        for thread in running.values():
            thread.join(STOP_SECONDS)

    def _restore_turn(self, job: str) -> None:
        assert self._context is not None
        engine = self._engine.reader(self._context.repository, self._context.catalog)
        try:
            engine.turn_restore(job, self._restoring)
        except LockHeld:
            pass  # whoever asked for it carries it out
        except Stopped:
            pass
        except GatewayError as error:
            self._log.error("restore.failed", job=job, problem=str(error))
        except Exception as error:  # noqa: BLE001  (one job must not end the engine)
            self._log.error("restore.defect", job=job, problem=f"{type(error).__name__}: {error}")
        finally:
            engine.close()

    def _restoring(self, _: Progress) -> None:
        """A stop takes effect here."""
        if self._stopping.is_set():
            raise Stopped("The engine was stopped.")

    # --- calls, from the door's threads ------------------------------------------------------------------------------

    def call(self, name: str, arguments: dict[str, Any], operator: str, progress: ProgressCallback) -> Any:
        """See `gateway.control.server.Serves`."""
        del operator
        if name in READING:
            return self._read(name, arguments, progress)
        if name in QUEUED:
            told = {} if name in QUIET else {"progress": self._both(progress)}
            return self._queued(name, lambda engine: getattr(engine, name)(**arguments, **told))
        if name in ("verify", "rebuild"):
            return self._long(name, arguments, progress)
        if name == "version":
            return self._engine.version()
        if name == "status":
            return self._status()
        if name == "ingest":
            return self._ingest(progress=progress, **arguments)
        if name == "barrier":
            return self._barrier(progress=progress, **arguments)
        if name in ("begin", "fail", "seal"):
            return self._run_call(name, arguments, progress)
        raise UsageError(
            f"A running engine does not {name}.",
            meaning="Its repository and its keys are those it was started with.",
            advice="Stop it first (`systemctl stop gateway`).",
        )

    def _read(self, name: str, arguments: dict[str, Any], progress: ProgressCallback) -> Any:
        assert self._context is not None
        engine = self._engine.reader(self._context.repository, self._context.catalog)
        if name in TELLING:
            arguments = {**arguments, "progress": self._until_stop(progress)}
        found = getattr(engine, name)(**arguments)
        if not isinstance(found, Iterator):
            engine.close()
            return found
        return _closing(found, engine)

    def _until_stop(self, progress: ProgressCallback) -> ProgressCallback:
        def tell(one: Progress) -> object:
            self._restoring(one)
            return progress(one)

        return tell

    def _queued(self, name: str, run: Callable[[Engine], Any]) -> Any:
        task = Task(name, run, threading.Event())
        self._tasks.put(task)
        self._wake.set()
        while not task.done.wait(1.0):
            if self._stopping.is_set() and (self._worker is None or not self._worker.is_alive()):
                raise Stopped("The engine was stopped.", advice="Ask again when it runs.")
        if task.error is not None:
            raise task.error
        return task.result

    def _long(self, name: str, arguments: dict[str, Any], progress: ProgressCallback) -> Any:
        """What takes hours and must not hold up generations: on the door's thread, one at a time. What it writes, it
        writes on the worker, a chain at a time."""
        assert self._context is not None
        began = self._clock.monotonic()

        def tell(one: Progress) -> None:
            progress(one)
            seconds = self._clock.monotonic() - began
            self._beside_work = Work(what=name, phase=one.phase, done=one.done, total=one.total, unit=one.unit,
                                     seconds=seconds, rate=one.done / seconds if seconds > 0 else None)  # fmt: skip
            if self._stopping.is_set():
                raise Stopped("The engine was stopped.")

        def on_worker(write: Callable[[], Any]) -> Any:
            return self._queued(name, lambda _: write())

        with self._beside:
            try:
                if name == "verify":
                    return self._engine.verify_beside(on_worker, progress=tell, **arguments)
                return self._engine.rebuild_beside(on_worker, progress=tell, **arguments)
            finally:
                self._beside_work = None

    def _both(self, progress: ProgressCallback) -> ProgressCallback:
        def tell(one: Progress) -> None:
            progress(one)
            self._progress(one)

        return tell

    def _chosen(self, source: str | None) -> list[Keeper]:
        """INVARIANT: who leaves something with a keeper chooses it under the same lock: a reload may replace it."""
        with self._lock:
            if source is None:
                return list(self._keepers.values())
            self._config.source(source)
            return [self._keepers[source]]

    def _ingest(
        self, source: str | None = None, *, seal_now: bool = False, new_chain: bool = False, operator: str = "",
        progress: ProgressCallback,
    ) -> IngestReport:  # fmt: skip
        return self._await(self._ask(source, seal_now=seal_now, new_chain=new_chain, operator=operator), progress)

    def _barrier(self, source: str | None = None, *, wait: bool = True, progress: ProgressCallback) -> IngestReport:
        asked = self._ask(source)
        if not wait:
            return IngestReport(sources=tuple(SourceIngest(source=each.source.name) for each, _ in asked))
        return self._await(asked, progress)

    def _ask(self, source: str | None, **how: Any) -> list[tuple[Keeper, Barrier]]:
        asked = []
        with self._lock:
            now = self._clock.monotonic()
            for keeper in self._chosen(source):
                settle = keeper.source.settle.total_seconds()
                asked.append((keeper, Barrier(begun=now, deadline=now + 2 * settle + 5, **how)))
                keeper.barriers.append(asked[-1][1])
        self._wake.set()
        return asked

    def _await(self, asked: list[tuple[Keeper, Barrier]], progress: ProgressCallback) -> IngestReport:
        reports = []
        for keeper, barrier in asked:
            while not barrier.done:
                if self._stopping.is_set() and (self._worker is None or not self._worker.is_alive()):
                    raise Stopped("The engine was stopped.", advice="Ask again when it runs.")
                work = self._work
                if work is not None and work.phase and work.source == keeper.source.name:
                    progress(Progress(phase=work.phase, done=work.done, total=work.total, unit=work.unit))
                self._clock.sleep(0.1)
            if barrier.error is not None and len(asked) == 1:
                raise barrier.error
            failure = failure_of(barrier.error) if barrier.error is not None else None
            reports.append(barrier.report or SourceIngest(source=keeper.source.name, failure=failure))
        return IngestReport(sources=tuple(reports))

    def _run_call(self, name: str, arguments: dict[str, Any], progress: ProgressCallback) -> RunReport:
        (keeper,) = self._chosen(arguments.pop("source"))
        run, wait, operator = arguments.pop("run"), arguments.pop("wait", False), arguments.get("operator", "")
        compared = Compared()
        if name == "seal":  # without the lock: it may read for hours
            files, folder = arguments.get("files", ()), arguments.get("folder", b"")
            compared = keeper.seals.compare(run, files, folder, self._until_stop(progress))
        with self._lock:
            if self._keepers.get(keeper.source.name) is not keeper:
                raise _reconfigured(keeper.source.name)
            if name == "begin":
                return keeper.seals.begin(run, operator)
            if name == "fail":
                return keeper.seals.fail(run, arguments.get("reason", ""), operator)
            report = keeper.seals.note(run, compared, arguments.get("requires", ()), operator)
        self._wake.set()
        return self._run_made(keeper, run, progress) if wait else report

    def _run_made(self, keeper: Keeper, run: str, progress: ProgressCallback) -> RunReport:
        assert self._context is not None
        while True:
            row = self._context.catalog.job(keeper.source.name, run)
            if row is None or row.state is not JobState.SEALED:
                break
            if self._stopping.is_set():
                raise PartialError(
                    "The engine was stopped before the run was protected.",
                    meaning="It is sealed; its generation is made when the engine runs again.",
                    advice="Repeat the call then: it answers what became of the run.",
                )
            self._chosen(keeper.source.name)  # an error where a reload took the source away
            work = self._work
            if work is not None and work.phase:
                progress(Progress(phase=work.phase, done=work.done, total=work.total, unit=work.unit))
            self._clock.sleep(0.1)
        assert row is not None
        return keeper.seals.report(row)

    def _status(self) -> StatusReport:
        assert self._context is not None
        samples = {name: keeper.samples for name, keeper in list(self._keepers.items())}
        found = status(self._context.catalog, self._config, self._clock, samples=samples)
        work, beside = self._work, self._beside_work
        waiting = [Work(what=task.name) for task in list(self._tasks.queue)]
        for keeper in list(self._keepers.values()):
            waiting += [Work(what="barrier", source=keeper.source.name) for _ in keeper.barriers]
            waiting += [Work(what=f"run {row.run}", source=keeper.source.name) for row in keeper.seals.waiting()]
        return replace(
            found, running=True, pid=os.getpid(), since=self._since, queue=tuple(waiting),
            work=tuple(each for each in (work, beside) if each is not None and each.phase),
        )  # fmt: skip


def _reconfigured(source: str) -> UsageError:
    return UsageError(f"Source {source} was reconfigured.", advice="Repeat the call.")


def _closing(found: Iterator[Any], engine: Engine) -> Iterator[Any]:
    with contextlib.closing(engine):
        yield from found


def serve(config: Config, *, recovery_sheet: str | None, log: Log) -> None:
    """Run an engine until it is told to stop."""
    Daemon(config, recovery_sheet=recovery_sheet, log=log).run()
