"""What is wrong with one source, as its keeper sees it: each condition is an alarm, open as long as it is so."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from gateway.api import GenerationInfo
from gateway.catalog import GenerationRow
from gateway.clock import from_milliseconds, milliseconds
from gateway.config.units import duration_text
from gateway.config.values import SourceConfig, SourceKind
from gateway.errors import ClockSkew, GatewayError, IntegrityError, SourceError, StoreError
from gateway.jobs.alarms import Alarms, Kind
from gateway.jobs.context import Context
from gateway.jobs.pending import failed_by_disk, held_for_long
from gateway.jobs.status import WATCHED_SINCE
from gateway.log import printable
from gateway.policy.anomaly import ENOUGH_BYTES, Shape, anomaly
from gateway.policy.freshness import Freshness, Sample, freshness, seconds_to_full
from gateway.spool.watch import Watch

SAMPLE_SECONDS = 30.0
SAMPLES = 240


@dataclass(slots=True)
class Conditions:
    """Of one source. `observe` on one thread at a time, the rest on the worker."""

    context: Context
    source: SourceConfig
    alarms: Alarms
    samples: list[Sample] = field(init=False, default_factory=list)
    _sampled: float = field(init=False, default=float("-inf"))
    _failing: bool = field(init=False, default=False)
    _proved: bool = field(init=False, default=False)
    _deleted: int = field(init=False, default=0)

    # --- turns -------------------------------------------------------------------------------------------------------

    def failed(self, error: GatewayError) -> None:
        self._failing = True
        subject = self.source.name
        if isinstance(error, ClockSkew):
            self.alarms.of_error(Kind.CLOCK, "store", error)
        elif isinstance(error, StoreError):
            self.alarms.of_error(Kind.STORE, self.context.repository.store.url, error)
        elif isinstance(error, SourceError):
            self.alarms.of_error(Kind.UNREADABLE, subject, error)
        elif isinstance(error, IntegrityError):
            # Beside what is known of packs and logs, which closes by itself: see `damage`.
            self.alarms.of_error(Kind.DAMAGE, f"{subject} ingest", error)
        else:
            self.alarms.of_error(Kind.FAILED, subject, error)

    def well(self, *, worked: bool) -> None:
        """A turn came to its end: whatever failed before does not any more. The first that had something to do also
        ends what failed before a start: one that had nothing to do never asked the store."""
        if not self._failing and (self._proved or not worked):
            return
        self._failing, self._proved = False, self._proved or worked
        self.alarms.close(Kind.CLOCK, "store")
        self.alarms.close(Kind.STORE, self.context.repository.store.url)
        self.alarms.close(Kind.DAMAGE, f"{self.source.name} ingest")
        for kind in (Kind.UNREADABLE, Kind.FAILED):
            self.alarms.close(kind, self.source.name)

    def begin(self) -> None:
        """At a start: what failed before a restart is found again, or is over."""
        for kind in (Kind.UNREADABLE, Kind.FAILED):
            self.alarms.close(kind, self.source.name)

    def watched(self, refused: int) -> None:
        """`refused`: directories that the kernel does not watch."""
        self.no_events(
            f"The kernel watches only a part of {self.source.path}: it gave no watch for {refused:,} directories."
            if refused
            else ""
        )

    def no_events(self, what: str) -> None:
        every = duration_text(self.context.config.engine.rescan)
        self.alarms.set(
            Kind.WATCH, self.source.name, what,
            meaning=f"New files there are found by the rescan every {every}; a rename there is no evidence.",
            advice="Raise fs.inotify.max_user_watches above the number of directories in all sources. The next rescan "
            "tries again.",
        )  # fmt: skip

    # --- generations -------------------------------------------------------------------------------------------------

    def made(self, generation: GenerationInfo) -> None:
        self.judge(generation)
        what = ""
        if str(generation.state) != "protected":
            what = f"Generation {self.source.name}@{generation.number} is incomplete: {generation.reason}."
        self.alarms.set(
            Kind.INCOMPLETE, self.source.name, what,
            meaning="It is kept, but not offered for restore.", advice="`gateway show` names what is missing.",
        )  # fmt: skip

    def judge(self, generation: GenerationInfo) -> None:
        """Whether the newest generation looks as if something destroyed the source. Only a person closes this alarm."""
        rows = self.context.catalog.protected(self.source.name)
        kept = [row for row in rows if row.number <= generation.number]
        if self.source.kind is not SourceKind.FILES or len(kept) < 2 or kept[-1].number != generation.number:
            return
        earlier = [_shape(row) for row in kept[:-1]]
        new_raw = sum(each.new_raw for each in earlier)
        dense = sum(each.stored_raw for each in earlier) / new_raw if new_raw >= ENOUGH_BYTES else None
        may_shrink = self.source.release.keep_generations is not None
        what = anomaly(earlier[-1], _shape(kept[-1]), dense_before=dense, may_shrink=may_shrink)
        if what:
            self.alarms.open(
                Kind.ANOMALY, self.source.name, f"{self.source.name}@{generation.number}: {what}.",
                meaning="Older generations may be the only good ones: none of them expires, nothing leaves the spool.",
                advice=f"Look at the source. If all is well: `gateway accept {self.source.name}`.",
            )  # fmt: skip

    # --- files -------------------------------------------------------------------------------------------------------

    def deleted(self, paths: Sequence[bytes]) -> None:
        """Files went that nobody has: no look can find that this is over, so a person closes this alarm."""
        if not paths:
            return
        name = self.source.name
        for path in paths:
            self.context.log.warning("file.deleted_before_protected", source=name, path=printable(path))
        if not self.alarms.is_open(Kind.DELETED, name):
            self._deleted = 0
        self._deleted += len(paths)
        files = "file was" if self._deleted == 1 else "files were"
        self.alarms.open(
            Kind.DELETED, name,
            f"{self._deleted:,} {files} deleted from {name} before a generation had them; the last: "
            f"{printable(paths[-1])}.",
            meaning="They had settled, and they are in no backup.",
            advice="Have the producer keep files until they are protected (`gateway barrier`), or `ignore` such names. "
            f"Then: `gateway accept {name} --alarm {Kind.DELETED}`.",
        )  # fmt: skip

    def check_disk(self, watch: Watch) -> None:
        """Closed only when a pass has tried all there is: after a start nothing is known to be unreadable yet."""
        what = failed_by_disk(watch, self.source.name)
        if what or self._proved:
            self.alarms.set(
                Kind.DISK, self.source.name, what,
                meaning="The newest version of it is in no generation; what else is there is protected. A disk that "
                "begins so may fail as a whole.",
                advice="Look at the kernel's log and the disk's SMART values, and replace it. The file is tried again: "
                "the alarm closes when it can be read, is written anew, or is gone.",
            )  # fmt: skip

    # --- what can be said at any time --------------------------------------------------------------------------------

    def observe(self, watch: Watch) -> None:
        """From any thread; the worker may be busy with `watch` meanwhile."""
        self._sample(self.context.clock.monotonic())
        self._check_freshness()
        self.alarms.set(
            Kind.HELD_BACK, self.source.name,
            held_for_long(watch, self.source.name, self.context.clock.monotonic()),
            meaning="They are in no generation.",
            advice="`gateway status` says why; `gateway ingest --seal-now` takes files as they are.",
        )  # fmt: skip
        self.check_disk(watch)
        self.context.check_damage(self.source.name)

    def fresh(self) -> Freshness:
        """How old the newest protected generation is, against what the source expects."""
        begun = [row.begun for row in self.context.catalog.protected(self.source.name)]
        now = milliseconds(self.context.clock.now())
        since = int(self.context.catalog.meta(WATCHED_SINCE + self.source.name) or now)
        return freshness(
            from_milliseconds(max(begun)) if begun else None, from_milliseconds(since), self.context.clock.now(),
            self.source.expect_every,
        )  # fmt: skip

    def _check_freshness(self) -> None:
        found, name = self.fresh(), self.source.name
        what = ""
        if found.overdue is not None and self.source.expect_every is not None:
            age = "no protected generation yet" if found.age is None else f"the newest is {_rounded(found.age)} old"
            every = duration_text(self.source.expect_every)
            what = f"Source {name} is overdue: {age}, and one is expected every {every}."
        self.alarms.set(
            Kind.OVERDUE, name, what, meaning="What was written since then is not protected.",
            advice="`gateway status` names files that are held back; look at the producer's log.",
        )  # fmt: skip

    def _sample(self, now: float) -> None:
        if now - self._sampled < min(SAMPLE_SECONDS, self.context.config.engine.rescan.total_seconds()):
            return
        self._sampled = now
        try:
            space = os.statvfs(self.source.path)
        except OSError:
            return
        capacity = space.f_blocks * space.f_frsize
        used = (space.f_blocks - space.f_bfree) * space.f_frsize
        self.samples = [*self.samples[-SAMPLES:], Sample(at=now, used=used)]
        share = used / capacity if capacity else 0.0
        what = ""
        if share >= self.context.config.engine.spool_warning:
            full = seconds_to_full(self.samples, capacity)
            when = f", full in {_rounded(timedelta(seconds=full))} at this rate" if full is not None else ""
            what = f"The spool of {self.source.name} is {share:.0%} full{when}."
        self.alarms.set(Kind.FILLING, self.source.name, what,
                        meaning="When it is full, backup jobs fail; nothing that is not proved is ever removed.",
                        advice="Let less be written, add space, or set release_keep_generations.")  # fmt: skip


def _shape(row: GenerationRow) -> Shape:
    one = row.statistics
    return Shape(
        files=one.files, bytes=one.bytes, carried=one.carried, new_raw=one.new_raw, stored_raw=one.stored_raw
    )  # fmt: skip


def _rounded(time: timedelta) -> str:
    seconds = max(0, round(time.total_seconds()))
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"
