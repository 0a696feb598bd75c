"""An api that answers with what a test gave it, and command lines run against it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.api import (
    ACCEPTED,
    Alarm,
    Answer,
    BucketRule,
    Capability,
    ChainInfo,
    CheckReport,
    ClassNeeds,
    CostFigure,
    Depth,
    DiffEntry,
    ExpireReport,
    Failure,
    FileInfo,
    FileType,
    Finding,
    GenerationDetail,
    GenerationInfo,
    GenerationState,
    Grade,
    Head,
    HoldReport,
    IngestReport,
    InitReport,
    JobInfo,
    KeepReason,
    LeftOut,
    LifecycleReport,
    PendingFile,
    Progress,
    ProgressCallback,
    RebuildReport,
    Reference,
    ReleaseReport,
    RestorePlan,
    RestoreReport,
    RestoreState,
    RetentionDecision,
    RetentionReport,
    RunReport,
    RunState,
    SealedFile,
    SourceIngest,
    SourceStatus,
    StateNeeds,
    StatusReport,
    SweepReport,
    SweptObject,
    TierOffer,
    VerifyReport,
    VersionInfo,
    Work,
    no_progress,
)
from gateway.cli import main
from gateway.config import Config
from gateway.log import Log

ROOT = Path(__file__).parents[2]
MOMENT = datetime(2026, 11, 25, 7, tzinfo=UTC)
DIGEST = "ab" * 32
SHEET = "Recovery sheet\nrepository s3://bucket/prefix\n1 babab-dabab\n"
GENERATION = GenerationInfo(
    source="orcl-prod",
    number=17,
    id="g" + "3f" * 16,
    chain="orcl-prod/000001",
    head=f"orcl-prod/000001:5:{DIGEST}",
    created=MOMENT,
    state=GenerationState.PROTECTED,
    evidence=2,
    files=1234,
    bytes=3 * 2**30,
    stored_bytes=5 * 2**20,
)
CHAIN = ChainInfo(
    chain="orcl-prod/000001",
    source="orcl-prod",
    storage_class="instant",
    state="open",
    created=MOMENT,
    head=f"orcl-prod/000001:5:{DIGEST}",
    generations=17,
    packs=40,
    stored_bytes=3 * 2**30,
    data_bytes=51 * 2**30,
    full_bytes=20 * 2**30,
)
FILES = (
    FileInfo(path=b"plain.dbf", type=FileType.FILE, size=2048, mtime_ns=1764054000 * 10**9, mode=0o640),
    FileInfo(path=b"new\nline[red]", type=FileType.FILE, size=0, mtime_ns=2**90, mode=0o4755),
    FileInfo(path=b"odd\xff", type=FileType.SYMLINK, size=1, mtime_ns=-1, mode=0o777, link_target=b"\xfe"),
    FileInfo(path="😀".encode(), type=FileType.FIFO, size=1, mtime_ns=0, mode=0, hard_link_to=b"plain.dbf"),
)
PLAN = RestorePlan(
    generation=GENERATION,
    files=3,
    bytes=4096,
    packs=2,
    requests=5,
    fetch_bytes=2048,
    cached_bytes=1024,
    classes=(ClassNeeds(storage_class="instant", packs=2, bytes=3072),),
    existing=1,
)
FIGURE = CostFigure(
    what="thawing from DEEP_ARCHIVE, bulk", quantity=2.0, unit="GB", amount=0.005, origin="list of us-east-1"
)
COLD_PLAN = dataclasses.replace(
    PLAN, cold_packs=1, cold_bytes=2**30, scratch_bytes=2048, waves=2, chosen="bulk", reason="it is the cheapest",
    by_state=(
        StateNeeds(state="readable", packs=1, size=1024, fetch_bytes=512),
        StateNeeds(state="cold", packs=1, size=2**30, fetch_bytes=1536),
    ),
    tiers=(
        TierOffer(tier="bulk", usd=0.0051, hours=48.5, fits=True, reason="it is the cheapest", figures=(FIGURE,)),
        TierOffer(tier="standard", usd=None, hours=12.5, fits=True, reason="it is not cheaper",
                  cautions=("no price for thawing",)),
        TierOffer(tier="expedited", usd=None, hours=None, fits=False, reason="DEEP_ARCHIVE has no expedited retrieval"),
    ),
)  # fmt: skip
JOB = JobInfo(
    id="0a1b2c3d4e5f", state=RestoreState.DELIVERED, generation="orcl-prod@17", target=Path("/to"), created=MOMENT,
    updated=MOMENT, packs=2, bytes_done=4096, bytes_total=4096, quote_usd=0.0051, spent_usd=0.004, requests=9,
    tier="bulk", quote_hours=48.5, files_done=3, files_total=3, stages=(("fetched", 2),),
    phases=(("fetching", 90.0), ("thawing", 170000.0)), operator="ada",
)  # fmt: skip
THAWING = dataclasses.replace(
    JOB, state=RestoreState.THAWING, bytes_done=0, files_done=0, stages=(("ready", 1), ("thawing", 1)),
    next_look=MOMENT,
)  # fmt: skip
ALARM = Alarm(
    kind="source-overdue",
    subject="orcl-prod",
    what="Source orcl-prod is overdue.",
    meaning="What was written since then is not protected.",
    advice="Look at the producer's log.",
    opened=MOMENT,
)
STATUS = StatusReport(
    running=True,
    pid=4711,
    since=MOMENT,
    alarms=(),
    sources=(
        SourceStatus(
            name="orcl-prod",
            path=Path("/srv/spool/orcl-prod"),
            kind="files",
            pending=22,
            files=(
                PendingFile(path=b"odd\xff\nname", state="held", size=2048, since=MOMENT, detail="it is torn"),
                PendingFile(path=b"plain", state="growing", size=0, since=MOMENT),
            ),
            newest=GENERATION,
            age=7200.0,
            expect_every=86400.0,
            spool_bytes=100 * 2**30,
            spool_free=40 * 2**30,
            full_in=3 * 86400.0,
        ),
    ),
    work=(Work(what="ingest", source="orcl-prod", phase="reading", done=2**30, total=2**31, seconds=8.0, rate=2**27),),
    queue=(Work(what="verify"), Work(what="run mon", source="orcl-prod")),
)
RUN = RunReport(source="orcl-prod", run="mon", state=RunState.PROTECTED, generation=GENERATION)

LIFECYCLE = LifecycleReport(
    url="s3://bucket/prefix",
    written=False,
    rules=(
        BucketRule(rule="gateway.0123456789ab.deep", own=True, does='below "packs/deep/": moves objects'),
        BucketRule(rule="logs", own=False, does='below "logs/": deletes objects after 30 days'),
    ),
)


RETENTION = RetentionReport(
    plan="0123456789abcdef",
    decisions=(
        RetentionDecision(
            source="orcl-prod", number=17, id="g" + "3f" * 16, begun=MOMENT,
            reasons=(KeepReason(rule="last", text="1st of the newest 7"), KeepReason(rule="hold", text="audit (ada)")),
        ),
        RetentionDecision(
            source="orcl-prod", number=3, id="g" + "4f" * 16, begun=MOMENT, why=("last: 7 later ones are protected",)
        ),
    ),
    stored_bytes=2000,
    removed_bytes=500,
    needs_approval=True,
)  # fmt: skip
HELD_GENERATION = HoldReport(source="orcl-prod", number=17, id="g" + "3f" * 16, holds=("audit (ada)",))
SWEPT = SweepReport(
    dry_run=False, kept=3, kept_bytes=3000, deleted=1, deleted_bytes=1000, ended=("orcl-prod/000001",),
    objects=(
        SweptObject(chain="orcl-prod/000002", key="packs/instant/orcl-prod/000002/00000001-00", size=1000,
                    verdict="wait", reason="nothing needs it", until=MOMENT),
    ),
)  # fmt: skip


class FakeApi:
    """Answers with what a test gave it, remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.answers: dict[str, Any] = {
            "init": InitReport(
                repository="r" * 32,
                url="s3://bucket/prefix",
                recovery_sheet=SHEET,
                capabilities=(Capability(name="conditional create", answer=Answer.YES, meaning="several writers"),),
                notes=("a note",),
            ),
            "check_config": CheckReport(findings=(Finding(grade=Grade.OK, subject="store", text="answers"),)),
            "ingest": IngestReport(sources=(SourceIngest(source="orcl-prod", generation=GENERATION, files_read=2),)),
            "generations": [GENERATION],
            "chains": [CHAIN],
            "show": GenerationDetail(info=GENERATION),
            "list_files": FILES,
            "diff": (),
            "restore": RestoreReport(plan=PLAN, target=Path("/to"), dry_run=False, files=3, bytes=4096),
            "jobs": (THAWING, JOB),
            "job": JOB,
            "approve_job": THAWING,
            "cancel_job": dataclasses.replace(JOB, state=RestoreState.CANCELLED, reason="cancelled by ada"),
            "pause_job": dataclasses.replace(JOB, state=RestoreState.PAUSED, reason="paused by ada"),
            "resume_job": THAWING,
            "watch_job": RestoreReport(plan=PLAN, target=Path("/to"), dry_run=False, files=3, bytes=4096, job=JOB),
            "verify": VerifyReport(depth=Depth.STRUCTURE, dry_run=False, generations=1, objects=2, bytes=3),
            "lifecycle": LIFECYCLE,
            "retention_plan": RETENTION,
            "retention_apply": dataclasses.replace(RETENTION, expired=("orcl-prod@3",)),
            "hold_generation": HELD_GENERATION,
            "unhold_generation": dataclasses.replace(HELD_GENERATION, holds=()),
            "expire_generation": ExpireReport(
                source="orcl-prod", number=3, id="g" + "4f" * 16, dry_run=False, freed_bytes=500, until=MOMENT
            ),
            "sweep": SWEPT,
            "rebuild": RebuildReport(chains=1, generations=2, packs=3, heads=(GENERATION.head,)),
            "status": STATUS,
            "alarms": (ALARM, dataclasses.replace(ALARM, kind="clock-skew", closed=MOMENT)),
            "accept": True,
            "begin": dataclasses.replace(RUN, state=RunState.BEGUN, generation=None),
            "seal": RUN,
            "fail": dataclasses.replace(RUN, state=RunState.FAILED, generation=None),
            "barrier": IngestReport(sources=(SourceIngest(source="orcl-prod", generation=GENERATION),)),
            "release": (ReleaseReport(source="orcl-prod", dry_run=False, paths=(b"a\xff",), files=1, size=2048),),
        }
        self.config: Config | None = None
        self.recovery_sheet: str | None = None
        self.log: Log | None = None
        self.closed = 0

    def __call__(self, config: Config, *, recovery_sheet: str | None, log: Log) -> FakeApi:
        self.config, self.recovery_sheet, self.log = config, recovery_sheet, log
        return self

    def _answer(self, name: str, *asked: Any) -> Any:
        self.asked.append((name, *asked))
        answer = self.answers[name]
        if isinstance(answer, BaseException):
            raise answer
        return answer() if callable(answer) else answer

    def init(self) -> InitReport:
        return self._answer("init")

    def check_config(self) -> CheckReport:
        return self._answer("check_config")

    def ingest(
        self,
        source: str | None = None,
        *,
        seal_now: bool = False,
        new_chain: bool = False,
        operator: str = "",
        progress: ProgressCallback = no_progress,
    ) -> IngestReport:
        progress(Progress(phase="reading", done=1, total=2))
        progress(Progress(phase="reading", done=2, total=2))
        progress(Progress(phase="proving", done=2, unit="packs"))
        return self._answer("ingest", source, seal_now, new_chain, operator)

    def chains(self, source: str | None = None) -> Sequence[ChainInfo]:
        return self._answer("chains", source)

    def generations(self, source: str | None = None) -> Sequence[GenerationInfo]:
        return self._answer("generations", source)

    def show(self, reference: Reference) -> GenerationDetail:
        return self._answer("show", reference)

    def list_files(self, reference: Reference, path: bytes = b"") -> Iterator[FileInfo]:
        return iter(self._answer("list_files", reference, path))

    def diff(self, before: Reference, after: Reference) -> Iterator[DiffEntry]:
        return iter(self._answer("diff", before, after))

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
        terms = tier, deadline, budget, detach, operator
        return self._answer("restore", reference, to, paths, overwrite, incomplete, dry_run, *terms)

    def jobs(self) -> Sequence[JobInfo]:
        return self._answer("jobs")

    def job(self, job: str) -> JobInfo:
        return self._answer("job", job)

    def approve_job(self, job: str, *, operator: str = "") -> JobInfo:
        return self._answer("approve_job", job, operator)

    def cancel_job(self, job: str, *, operator: str = "") -> JobInfo:
        return self._answer("cancel_job", job, operator)

    def pause_job(self, job: str, *, operator: str = "") -> JobInfo:
        return self._answer("pause_job", job, operator)

    def resume_job(
        self,
        job: str,
        *,
        deadline: timedelta | None = None,
        budget: Decimal | None = None,
        tier: str = "",
        operator: str = "",
    ) -> JobInfo:
        return self._answer("resume_job", job, deadline, budget, tier, operator)

    def watch_job(self, job: str, *, progress: ProgressCallback = no_progress) -> RestoreReport:
        return self._answer("watch_job", job)

    def verify(
        self,
        source: str | None = None,
        *,
        depth: Depth = Depth.STRUCTURE,
        dry_run: bool = False,
        progress: ProgressCallback = no_progress,
    ) -> VerifyReport:
        return self._answer("verify", source, depth, dry_run)

    def rebuild(self, *, expect_heads: Sequence[Head] = (), progress: ProgressCallback = no_progress) -> RebuildReport:
        return self._answer("rebuild", tuple(expect_heads))

    def status(self) -> StatusReport:
        return self._answer("status")

    def alarms(self, limit: int = 100) -> Sequence[Alarm]:
        return self._answer("alarms", limit)

    def accept(self, source: str, *, alarm: str = ACCEPTED[0], operator: str = "") -> bool:
        return self._answer("accept", source, alarm, operator)

    def begin(self, source: str, run: str, *, operator: str = "") -> RunReport:
        return self._answer("begin", source, run, operator)

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
        return self._answer("seal", source, run, tuple(files), folder, tuple(requires), operator, wait)

    def fail(self, source: str, run: str, *, reason: str = "", operator: str = "") -> RunReport:
        return self._answer("fail", source, run, reason, operator)

    def barrier(
        self, source: str | None = None, *, wait: bool = True, progress: ProgressCallback = no_progress
    ) -> IngestReport:
        return self._answer("barrier", source, wait)

    def release(self, source: str | None = None, *, dry_run: bool = False) -> Sequence[ReleaseReport]:
        return self._answer("release", source, dry_run)

    def lifecycle_plan(self) -> LifecycleReport:
        return self._answer("lifecycle", "plan")

    def lifecycle_apply(self, *, operator: str = "") -> LifecycleReport:
        return self._answer("lifecycle", "apply", operator)

    def lifecycle_check(self) -> LifecycleReport:
        return self._answer("lifecycle", "check")

    def retention_plan(self, source: str | None = None) -> RetentionReport:
        return self._answer("retention_plan", source)

    def retention_apply(self, source: str | None = None, *, approve: str = "", operator: str = "") -> RetentionReport:
        return self._answer("retention_apply", source, approve, operator)

    def hold_generation(self, reference: Reference, *, reason: str, operator: str = "") -> HoldReport:
        return self._answer("hold_generation", reference, reason, operator)

    def unhold_generation(self, reference: Reference, *, reason: str = "", operator: str = "") -> HoldReport:
        return self._answer("unhold_generation", reference, reason, operator)

    def expire_generation(self, reference: Reference, *, dry_run: bool = False, operator: str = "") -> ExpireReport:
        return self._answer("expire_generation", reference, dry_run, operator)

    def sweep(
        self, source: str | None = None, *, dry_run: bool = False, progress: ProgressCallback = no_progress
    ) -> SweepReport:
        progress(Progress(phase="deleting", done=1000, total=1000))
        return self._answer("sweep", source, dry_run)

    def version(self) -> VersionInfo:
        return VersionInfo()

    def close(self) -> None:
        self.closed += 1


INCOMPLETE = dataclasses.replace(GENERATION, state=GenerationState.INCOMPLETE, reason="pack 3 is damaged")
FAILURE = Failure(kind="StoreUnreachable", what="No answer.", meaning="m", advice="a", exit_code=14)
HELD = SourceIngest(
    source="a", generation=GENERATION, held_back=(LeftOut(path=b"x\ny", reason="growing"),), held_back_more=3
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Gateway = Callable[..., Done]


def written_config(directory: Path) -> Path:
    file = directory / "gateway.toml"
    file.write_text('[repository]\nurl = "s3://bucket/prefix"\n')
    return file


def command_line(
    api: FakeApi, config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Gateway:
    """Runs command lines in this process, with the fake in place of the engine."""
    monkeypatch.setenv("GATEWAY_CONFIG", str(config))
    monkeypatch.delenv("GATEWAY_DEBUG", raising=False)
    monkeypatch.setenv("SUDO_USER", "ada")

    def run(*words: str) -> Done:
        capsys.readouterr()
        code = main(words, api_factory=api)
        captured = capsys.readouterr()
        return Done(code=code, out=captured.out, err=captured.err)

    return run
