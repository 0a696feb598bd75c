"""What `gateway status` shows, from the catalog alone; a running engine adds what it has under way."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta

from gateway.api import PendingFile, SourceStatus, StatusReport
from gateway.catalog import Catalog, GenerationState
from gateway.clock import Clock, from_milliseconds
from gateway.config.values import Config, SourceConfig
from gateway.jobs.alarms import shown
from gateway.jobs.views import generation_info
from gateway.policy.freshness import Sample, freshness, seconds_to_full

NAMED = 20
"""LIMIT: pending files of a source that a report names."""
WATCHED_SINCE = "watched-since/"


def status(
    catalog: Catalog, config: Config, clock: Clock, *, samples: Mapping[str, Sequence[Sample]] | None = None
) -> StatusReport:
    """Of all sources of the configuration. `samples`: how full their spools were, where somebody kept watch."""
    sources = tuple(_source(catalog, each, clock, list((samples or {}).get(each.name, ()))) for each in config.sources)
    return StatusReport(running=False, sources=sources, alarms=shown(catalog.open_alarms()))


def _source(catalog: Catalog, source: SourceConfig, clock: Clock, samples: list[Sample]) -> SourceStatus:
    rows = catalog.generations(source.name)
    protected = [row for row in rows if row.state is GenerationState.PROTECTED]
    newest = max(protected, key=lambda row: row.number, default=None)
    since = int(catalog.meta(WATCHED_SINCE + source.name) or 0)
    found = freshness(
        from_milliseconds(newest.begun) if newest is not None else None, from_milliseconds(since), clock.now(),
        source.expect_every,
    )  # fmt: skip
    pending, count = catalog.pending(source.name)
    capacity, free = _space(source)
    return SourceStatus(
        name=source.name, path=source.path, kind=str(source.kind), pending=count,
        files=tuple(
            PendingFile(path=row.path, state=str(row.state), size=row.size, since=from_milliseconds(row.since),
                        detail=row.detail)
            for row in pending[:NAMED]
        ),
        newest=generation_info(newest, catalog) if newest is not None else None,
        age=_seconds(found.age), expect_every=_seconds(source.expect_every),
        overdue=found.overdue is not None and (newest is not None or since > 0),
        spool_bytes=capacity, spool_free=free, full_in=seconds_to_full(samples, capacity),
    )  # fmt: skip


def _space(source: SourceConfig) -> tuple[int, int]:
    try:
        space = os.statvfs(source.path)
    except OSError:
        return 0, 0
    return space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize


def _seconds(time: timedelta | None) -> float | None:
    return None if time is None else time.total_seconds()
