"""Which generations are the last to hold a version of a file that a later one lacks though its producer kept it.

What a generation left out stands in its entry, and whether another holds the file in that one's list. Expired
generations still tell what they left out, as long as their chain's log is there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from gateway.catalog import GenerationKind, GenerationRow, GenerationState
from gateway.clock import from_milliseconds
from gateway.errors import IntegrityError, StoreError
from gateway.format.filelist import LeftOutRecord
from gateway.jobs.context import Context
from gateway.jobs.restore import ListView
from gateway.log import printable
from gateway.model.entry import EntryType, LeftOutReason
from gateway.model.ids import ChainName, GenerationId
from gateway.policy.retention import LastCopy
from gateway.repository.chain import Chain

LOOKUPS = 2000
"""LIMIT: look-ups in file lists for one plan; one beyond them counts as held by the one before, and by none after."""
_PRODUCER = frozenset({LeftOutReason.VANISHED.value, LeftOutReason.TEMPORARY.value})
"""Left out, but nothing that anybody would miss: the producer removed it, or never finished it."""


class LastCopies:
    """Of one source. `rows`: all its generations that the catalog has, expired ones too."""

    def __init__(self, context: Context, rows: Sequence[GenerationRow]) -> None:
        commits = [row for row in rows if row.kind is GenerationKind.COMMIT]
        self._rows = sorted(commits, key=lambda row: (row.begun, row.number, row.generation))
        self._context = context
        self._chains: dict[ChainName, Chain | None] = {}
        self._views: dict[bytes, ListView | None] = {}
        self._known: dict[tuple[bytes, bytes], bool] = {}
        self._left = LOOKUPS

    def of_generations(self) -> dict[bytes, tuple[LastCopy, ...]]:
        """By generation id."""
        if not any(row.left_out_count for row in self._rows):
            return {}
        omitted = [self._omitted(row) for row in self._rows]
        found: dict[tuple[bytes, int, bool, bytes], list[bytes]] = defaultdict(list)
        for at in range(1, len(self._rows)):
            for path, reason in omitted[at].items():
                if path not in omitted[at - 1]:
                    before = self._before(at, path, omitted)
                    if before is not None:
                        again = self._again(at, path, omitted)
                        found[before, at, reason == LeftOutReason.RELEASED, again].append(path)
        out: dict[bytes, list[LastCopy]] = defaultdict(list)
        for (generation, at, released, again), paths in found.items():
            out[generation].append(
                LastCopy(files=len(paths), since=from_milliseconds(self._rows[at].begun), released=released,
                         held_again_by=(GenerationId(again),) if again else (), example=printable(min(paths)))
            )  # fmt: skip
        return {generation: tuple(copies) for generation, copies in out.items()}

    def _omitted(self, row: GenerationRow) -> dict[bytes, str]:
        """Path and reason of what a generation left out."""
        if not row.left_out_count:
            return {}
        chain = self._chain(row.chain)
        state = chain.fold.generations.get(row.generation) if chain is not None else None
        if chain is None or state is None:
            return {}
        found = {path: reason for path, reason, _ in state.commit.left_out}
        view = self._view(row)
        if row.left_out_count > len(found) and view is not None:
            try:
                found |= {each.path: each.reason for each in view.records() if isinstance(each, LeftOutRecord)}
            except (IntegrityError, StoreError) as error:
                self._context.log.warning("list.damaged", source=row.source, problem=str(error))
        return {path: reason for path, reason in found.items() if reason not in _PRODUCER}

    def _before(self, at: int, path: bytes, omitted: Sequence[dict[bytes, str]]) -> bytes | None:
        """The generation that is the last to hold a path before row `at`; None: it was in none."""
        for number in range(at - 1, -1, -1):
            row = self._rows[number]
            if path not in omitted[number] and row.state is GenerationState.PROTECTED:
                return row.generation if self._holds(row, path, doubt=True) else None
        return None

    def _again(self, at: int, path: bytes, omitted: Sequence[dict[bytes, str]]) -> bytes:
        """The newest later generation that holds a path again; empty: none."""
        for number in range(len(self._rows) - 1, at, -1):
            row = self._rows[number]
            standing = path not in omitted[number] and row.state is GenerationState.PROTECTED
            if standing and self._holds(row, path, doubt=False):
                return row.generation
        return b""

    def _holds(self, row: GenerationRow, path: bytes, *, doubt: bool) -> bool:
        known = self._known.get((row.generation, path))
        if known is not None:
            return known
        view = self._view(row) if self._left > 0 else None
        if view is None:
            return doubt
        self._left -= 1
        try:
            held = any(item.entry.kind == EntryType.FILE for item in view.below(path))
        except (IntegrityError, StoreError):
            return doubt
        self._known[row.generation, path] = held
        return held

    def _view(self, row: GenerationRow) -> ListView | None:
        if row.generation not in self._views:
            chain = self._chain(row.chain)
            state = chain.fold.generations.get(row.generation) if chain is not None else None
            self._views[row.generation] = (
                ListView(state.commit.files, self._context.reader(chain), f"file list of {row.source}@{row.number}")
                if chain is not None and state is not None and not chain.fold.is_gone(state)
                else None
            )
        return self._views[row.generation]

    def _chain(self, name: ChainName) -> Chain | None:
        if name not in self._chains:
            try:
                self._chains[name] = self._context.open_chain(name)
            except IntegrityError:
                self._chains[name] = None
        return self._chains[name]
