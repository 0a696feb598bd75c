"""What is pending in a source, for people: rows for `gateway status`, and the text of an alarm."""

from __future__ import annotations

import errno
import os
import re

from gateway.catalog import PendingRow, PendingState
from gateway.log import printable
from gateway.model.entry import LeftOutReason
from gateway.spool.watch import Pending, Unread, Watch

HELD_SECONDS = 24 * 3600.0
"""LIMIT: how long a file may be held back before somebody is told: a night's job is done by then."""
NAMED = 1000
_DISK = re.compile("|".join(re.escape(os.strerror(each)) for each in (errno.EIO, errno.EUCLEAN, errno.EBADMSG)))
"""How the detail of such a file begins: a bad sector, or a file system that finds its own tables broken (EUCLEAN, and
EBADMSG for a checksum, of XFS and ext4)."""


def rows_of(watch: Watch) -> tuple[list[PendingRow], int]:
    """The first by path, and how many there are. What is only read again is protected as it is: nobody need look at
    it."""
    both: dict[bytes, Pending | Unread] = dict(watch.unread)
    both |= {path: each for path, each in watch.pending.items() if not each.again}
    pending = sorted(both.items(), key=lambda item: item[0])
    return [_row(watch, path, each) for path, each in pending[:NAMED]], len(pending)


def failed_by_disk(watch: Watch, source: str) -> str:
    """One sentence about what was left out because the disk cannot read it; empty: nothing. From any thread."""
    held = [each.held for each in watch.pending.copy().values() if each.held is not None]
    held += [each.left for each in watch.unread.copy().values()]
    bad = [each for each in held if each.reason is LeftOutReason.UNREADABLE and _DISK.match(each.detail)]
    if not bad:
        return ""
    more = f", and {len(bad) - 1:,} more of {source}" if len(bad) > 1 else ""
    return f"The disk cannot read {printable(bad[0].path)}{more}: {bad[0].detail.rstrip('.')}."


def held_for_long(watch: Watch, source: str, now: float) -> str:
    """One sentence about what is held back for more than a day; empty: nothing. From any thread."""
    late = now - HELD_SECONDS
    # Copied at once: the worker goes on meanwhile.
    held = [each.held for each in watch.pending.copy().values() if each.held is not None and each.since < late]
    unread = [each.left for each in watch.unread.copy().values() if each.since < late]
    counted = [(len(held), "files"), (len(unread), "directories that could not be read")]
    what = " and ".join(f"{number} {noun}" for number, noun in counted if number)
    if not what:
        return ""
    first = (held or unread)[0]
    return f"{what} of {source} are held back for more than a day; {printable(first.path)}: {first.reason}."


def _row(watch: Watch, path: bytes, each: Pending | Unread) -> PendingRow:
    if isinstance(each, Unread):
        detail = each.left.detail or str(each.left.reason)
        return PendingRow(path=path, state=PendingState.HELD, size=0, since=each.first_ms, detail=detail)
    detail = ""
    if each.held is not None:
        state = PendingState.HELD
        detail = each.held.detail or str(each.held.reason)
    elif watch.settled(path, each.identity):
        state = PendingState.CANDIDATE
    elif each.looks == 1:
        state = PendingState.GROWING if each.changed else PendingState.SEEN
    else:
        state = PendingState.QUIET
    return PendingRow(path=path, state=state, size=each.identity.size, since=each.first_ms, detail=detail)
