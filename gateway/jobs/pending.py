"""What is pending in a source, for people: rows for `gateway status`, and the text of an alarm."""

from __future__ import annotations

from gateway.catalog import PendingRow, PendingState
from gateway.log import printable
from gateway.spool.watch import Pending, Unread, Watch

HELD_SECONDS = 24 * 3600.0
"""LIMIT: how long a file may be held back before somebody is told: a night's job is done by then."""
NAMED = 1000


def rows_of(watch: Watch) -> tuple[list[PendingRow], int]:
    """The first by path, and how many there are. What is only read again is protected as it is: nobody need look at
    it."""
    both: dict[bytes, Pending | Unread] = dict(watch.unread)
    both |= {path: each for path, each in watch.pending.items() if not each.again}
    pending = sorted(both.items(), key=lambda item: item[0])
    return [_row(watch, path, each) for path, each in pending[:NAMED]], len(pending)


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
