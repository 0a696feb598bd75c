"""What time it is by the store: what expires and what is deleted goes by its clock, not by this machine's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.errors import StoreError
from gateway.jobs.context import Context
from gateway.store.probe import date_of

EXACT = timedelta(seconds=2)
"""LIMIT: stores date objects in whole seconds, and the answer takes its time; less is no difference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreDate:
    """`skew`: how far the store is ahead. `note`: said where the store's date is not known: it is this machine's."""

    now: datetime
    skew: timedelta = timedelta()
    note: str = ""


def store_date(context: Context) -> StoreDate:
    """Costs three requests: an object is put, asked for its date and deleted."""
    before = context.clock.now()
    try:
        stated = date_of(context.repository.store, context.clock)
        problem = "it dates no objects"
    except StoreError as error:
        stated, problem = None, error.what
    after = context.clock.now()
    if stated is None:
        note = f"What time it is by the store is not known ({problem}): this machine's clock is believed."
        return StoreDate(now=after, note=note)
    skew = stated - (before + (after - before) / 2)
    if abs(skew) <= EXACT:
        skew = timedelta()
    return StoreDate(now=after + skew, skew=skew)
