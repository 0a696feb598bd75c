"""Executes a schedule, one step after the other at its moment, and keeps the books: what lay where, and when.

One thread carries out the steps of all writers, so that the moments of the oracle are exact; a step that takes longer
than planned delays all that follows. What is open, closed or half there is known from the steps. Only what a killed
writer left is looked up on the disk.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from tests.servers.process import until
from tests.servers.samba import Address
from tests.writers.child import RemoteHands
from tests.writers.content import Form, shows_complete
from tests.writers.hands import Hands, LocalHands, MemoryHands, has_writer
from tests.writers.kinds import STAND
from tests.writers.oracle import Ended, Oracle, Version, digest_of, evidence_of
from tests.writers.plan import (
    Action,
    Backdate,
    Close,
    Delete,
    How,
    Kill,
    MakeDirectory,
    Open,
    Rename,
    Schedule,
    SetEnd,
    Small,
    Write,
    is_temporary,
)

RELEASE_SECONDS = 30.0
"""How long a server may take to close the file of a client that is gone."""


class Pace(Protocol):
    def now(self) -> float: ...

    def wait_until(self, moment: float) -> None: ...


class RealPace:
    """Monotonic seconds. `stop` (from another thread) lets everything that is still to come happen at once."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def now(self) -> float:
        return time.monotonic()

    def wait_until(self, moment: float) -> None:
        self._stopped.wait(max(0.0, moment - time.monotonic()))

    def stop(self) -> None:
        self._stopped.set()


@dataclass(slots=True)
class FakePace:
    """Time that passes by waiting, and a little with every look."""

    moment: float = 1000.0
    tick: float = 0.0001

    def now(self) -> float:
        self.moment += self.tick
        return self.moment

    def wait_until(self, moment: float) -> None:
        self.moment = max(self.moment, moment)


class Place(Protocol):
    """Where a schedule is played."""

    def hands(self, *, mortal: bool) -> Hands: ...

    def kill(self, hands: Hands, write: Write | None, path: str) -> bytes:
        """Kill a writer, in the middle of a write where there is one; what the file is when nobody has it open."""

    def read(self, path: str) -> bytes: ...

    def close(self) -> None: ...


class OnDisk:
    """A spool, written to by this machine, or over SMB where an address is given."""

    def __init__(self, spool: Path, address: Address | None = None) -> None:
        self.spool = spool
        self._address = address
        self._own: Hands | None = None
        self._all: list[Hands] = []

    def hands(self, *, mortal: bool) -> Hands:
        made: Hands
        if mortal:
            made = RemoteHands(self._address or self.spool)
        elif self._address is None:
            made = LocalHands(self.spool)
        else:
            from tests.writers.smb import SmbHands

            made = SmbHands(self._address)
        self._all.append(made)
        return made

    def kill(self, hands: Hands, write: Write | None, path: str) -> bytes:
        assert isinstance(hands, RemoteHands)
        hands.kill(write.offset if write else 0, write.bytes() if write else b"")
        until(
            "the file of a killed writer is closed", lambda: not has_writer(self.spool / path), seconds=RELEASE_SECONDS
        )
        return self.read(path)

    def read(self, path: str) -> bytes:
        return (self.spool / path).read_bytes()

    def close(self) -> None:
        for each in self._all:
            each.end()


class InMemory:
    """No files and no processes; a write in flight at a kill arrives by half."""

    def __init__(self) -> None:
        self.files: dict[str, bytearray] = {}

    def hands(self, *, mortal: bool) -> Hands:
        return MemoryHands(self.files)

    def kill(self, hands: Hands, write: Write | None, path: str) -> bytes:
        if write is not None:
            data = write.bytes()
            hands.write(write.offset, data[: len(data) // 2])
        hands.close()
        return self.read(path)

    def read(self, path: str) -> bytes:
        return bytes(self.files[path])

    def close(self) -> None:
        pass


class Books:
    """Versions as they come and go. Its `data` is what every file must hold at this moment."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.data: dict[str, bytearray] = {}
        self._now = now
        self._versions: dict[str, list[Version]] = {}

    def touch(self, path: str) -> None:
        """Something is about to happen to this path: what lay there lies no longer."""
        held = self._versions.get(path)
        if held and held[-1].last is None:
            held[-1] = replace(held[-1], last=self._now())

    def stand(self, path: str, *, ended: Ended, complete: bool) -> None:
        """From now on there lies what `data` says."""
        data = self.data[path]
        structure = ended is not Ended.OPEN and shows_complete(form_of(path), bytes(data))
        low, high = evidence_of(path, complete=complete, structure=structure, moved=False, into_place=False)
        self._add(
            path,
            Version(
                digest=digest_of(data), size=len(data), complete=complete, structure=structure, ended=ended,
                evidence=low, evidence_limit=high, first=self._now(),
            ),
        )  # fmt: skip

    def _add(self, path: str, version: Version) -> None:
        held = self._versions.setdefault(path, [])
        assert not held or held[-1].last is not None, f"{path} lies there twice"
        held.append(version)

    def below(self, path: str) -> list[str]:
        return [name for name in self.data if name == path or name.startswith(path + "/")]

    def moved(self, path: str, to: str) -> None:
        """Renamed a moment ago; everything below was touched before."""
        for name in self.below(path):
            new = to + name[len(path) :]
            version = self._versions[name][-1]
            into_place = name == path and is_temporary(path) and not is_temporary(to)
            low, high = evidence_of(
                new, complete=version.complete, structure=version.structure, moved=True, into_place=into_place
            )
            self.data[new] = self.data.pop(name)
            self._add(
                new,
                replace(version, ended=Ended.RENAMED, evidence=low, evidence_limit=high, first=self._now(), last=None),
            )

    def versions(self) -> dict[str, tuple[Version, ...]]:
        return {path: tuple(versions) for path, versions in self._versions.items()}


def form_of(path: str) -> Form:
    """By the name, without what marks it as temporary."""
    name = path
    while is_temporary(name):
        name = name.rpartition(".")[0]
    return next((form for form in Form if name.endswith(form)), Form.OPAQUE)


class Player:
    """Plays one schedule at one place, once."""

    def __init__(
        self, schedule: Schedule, place: Place, *, settle_seconds: float, pace: Pace | None = None, check: bool = False
    ) -> None:
        """`settle_seconds`: what a settle time of the schedule takes. `check`: compare the place with the books as
        often as possible; a difference is an `AssertionError`.
        """
        self.schedule = schedule
        self.pace = pace or RealPace()
        self._place = place
        self._scale = settle_seconds
        self._check = check
        self.books = Books(self.pace.now)
        self._hands: dict[int, Hands] = {}
        self._open: dict[int, str] = {}
        self._deaths: Counter[int] = Counter()

    def play(self, *, rest: float = STAND) -> Oracle:
        """From the first step to `rest` settle times behind the last. Whatever happens, its writers are gone then."""
        try:
            for actor in range(len(self.schedule.kinds)):
                self._hands[actor] = self._place.hands(mortal=actor in self.schedule.mortal)
            for hands in self._hands.values():
                if isinstance(hands, RemoteHands):
                    hands.ready()
            wall, began = datetime.now(UTC), self.pace.now()
            start = began
            for step in self.schedule.steps:
                # Who is late moves all that follows: a version that is to stand shall stand as long as planned.
                start = max(start, self.pace.now() - step.at * self._scale)
                self.pace.wait_until(start + step.at * self._scale)
                self._do(step.actor, step.action)
            self.pace.wait_until(self.pace.now() + rest * self._scale)
        finally:
            self._place.close()
        return Oracle(versions=self.books.versions(), began=began, end=self.pace.now(), wall=wall)

    def _do(self, actor: int, action: Action) -> None:
        hands, books = self._hands[actor], self.books
        match action:
            case MakeDirectory():
                hands.make_directory(action.path)
            case Open():
                self._begin(actor, action)
            case SetEnd():
                with self._changing(actor) as data:
                    hands.set_end(action.size)
                    del data[action.size :]
                    data.extend(bytes(action.size - len(data)))
            case Write():
                with self._changing(actor) as data:
                    hands.write(action.offset, action.bytes())
                    put(data, action.offset, action.bytes())
            case Backdate():
                with self._changing(actor):
                    hands.backdate()
            case Close():
                path = self._open.pop(actor)
                books.touch(path)
                hands.close()
                books.stand(path, ended=Ended.CLOSED, complete=action.complete)
                self._compare(path)
            case Kill():
                path = self._open.pop(actor)
                books.touch(path)
                books.data[path][:] = self._place.kill(hands, action.in_flight, path)
                books.stand(path, ended=Ended.KILLED, complete=False)
                self._revive(actor)
            case Rename():
                for name in (*books.below(action.path), *books.below(action.to)):
                    books.touch(name)
                hands.rename(action.path, action.to)
                books.moved(action.path, action.to)
                for name in books.below(action.to):
                    self._compare(name)
            case Delete():
                books.touch(action.path)
                hands.delete(action.path)
                del books.data[action.path]
            case Small():
                for path, content in zip(action.paths, action.contents, strict=True):
                    books.touch(path)
                    hands.open(path, How.CREATE)
                    hands.write(0, content.bytes())
                    hands.close()
                    books.data[path] = bytearray(content.bytes())
                    books.stand(path, ended=Ended.CLOSED, complete=True)

    def _begin(self, actor: int, action: Open) -> None:
        path, books = action.path, self.books
        books.touch(path)
        self._hands[actor].open(path, action.how, action.size)
        self._open[actor] = path
        if action.how in (How.CREATE, How.MAP) or path not in books.data:
            books.data[path] = bytearray(action.size if action.how is How.MAP else 0)
        books.stand(path, ended=Ended.OPEN, complete=False)

    @contextlib.contextmanager
    def _changing(self, actor: int) -> Iterator[bytearray]:
        path = self._open[actor]
        self.books.touch(path)
        yield self.books.data[path]
        self.books.stand(path, ended=Ended.OPEN, complete=False)

    def _revive(self, actor: int) -> None:
        """A new writer for what is left to do; whether it dies, too, is in the plan."""
        self._deaths[actor] += 1
        deaths = 0
        for number, action in enumerate(following := self.schedule.of(actor)):
            deaths += isinstance(action, Kill)
            if deaths == self._deaths[actor]:
                left = following[number + 1 :]
                if left:
                    self._hands[actor] = self._place.hands(mortal=any(isinstance(each, Kill) for each in left))
                return

    def _compare(self, path: str) -> None:
        if self._check:
            found = self._place.read(path)
            assert found == self.books.data[path], (
                f"{path}: {len(found)} bytes are not the {len(self.books.data[path])}"
            )

    def differences(self, names: set[str]) -> list[str]:
        """What differs between the books and a place that has these files."""
        wrong = [f"{name}: not in the books" for name in sorted(names - self.books.data.keys())]
        wrong += [f"{name}: not there" for name in sorted(self.books.data.keys() - names)]
        same = sorted(names & self.books.data.keys())
        return wrong + [f"{name}: other bytes" for name in same if self._place.read(name) != self.books.data[name]]


def put(data: bytearray, offset: int, piece: bytes) -> None:
    data.extend(bytes(max(0, offset - len(data))))
    data[offset : offset + len(piece)] = piece


def files_below(spool: Path) -> set[str]:
    return {path.relative_to(spool).as_posix() for path in spool.rglob("*") if path.is_file()}
