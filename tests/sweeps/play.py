"""Schedules of two processes on one store, drawn by a seed: who does what, who goes on when, who is killed where.

Both run the same source in one repository: one is the machine whose spool it is, the other its clone or a second host.
In every round each does one act (an ingest, a new chain, an expiry, a sweep, a hold) while the other does its own; at
each gate the schedule lets one of the two on. After every entry and every deletion, and when somebody is killed, the
judge looks at the store. Then days pass.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from gateway.api import Depth, Reference
from gateway.clock import FakeClock
from gateway.repository.repository import create
from gateway.store.directory import DirectoryStore
from gateway.store.passing import innermost
from tests.crash.machine import CHEAP, KIB, PASSPHRASE, SOURCE
from tests.flow.trees import Source, Tree, noise, tree
from tests.sweeps.hands import BASE, DatedStore, Line, Place, live
from tests.sweeps.judge import Judge, Problems

NAMES = ("one", "two")
ROUNDS = 4
STUCK_SECONDS = 120.0
"""LIMIT: nothing that a process does between two gates takes that long, on any machine."""
DAY = timedelta(days=1)
ACTS = {
    "one": {"ingest": 60, "new-chain": 8, "expire": 12, "sweep": 15, "hold": 5},
    "two": {"ingest": 15, "new-chain": 2, "expire": 28, "sweep": 40, "hold": 5, "unhold": 5, "expire-one": 5},
}
SEEN_AFTER = ("commit", "checkpoint", "expire", "condemn", "hold", "unhold", "swept-index", "swept-pack",
              "swept-unnamed", "end", "ended-object")  # fmt: skip
VERSIONS = 6


@dataclass(slots=True)
class Hand:
    """A process as the schedule has it. `at`: the gate it stands at; None: it runs, or has nothing to do."""

    pid: int
    line: Line
    busy: bool = False
    at: str | None = None
    gates: int = 0
    came: dict[str, Any] = field(default_factory=dict)


class Wrong(Exception):
    """What no schedule may come to."""


@dataclass(slots=True)
class Schedule:
    """One of them. `counts`: what happened, so that a suite can say that its schedules do something."""

    seed: int
    place: Place
    chance: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    story: list[str] = field(default_factory=list)
    trees: dict[bytes, Tree] = field(default_factory=dict)
    hands: dict[str, Hand] = field(default_factory=dict)
    clock: FakeClock = field(default_factory=lambda: FakeClock(BASE, seed=b"judge"))
    judge: Judge = field(init=False)
    lives: int = 0
    stamps: int = 0
    looks_often: bool = True

    # --- processes ---------------------------------------------------------------------------------------------------

    def hand(self, name: str) -> Hand:
        found = self.hands.get(name)
        if found is None:
            ours, theirs = socket.socketpair()
            self.lives += 1
            pid = os.fork()
            if pid == 0:
                ours.close()
                for other in self.hands.values():
                    other.line.close()
                live(self.place, name, f"{self.seed} {name} {self.lives}", Line(theirs))
            theirs.close()
            ours.settimeout(STUCK_SECONDS)
            found = self.hands[name] = Hand(pid, Line(ours))
        return found

    def end(self, name: str, *, kill: bool) -> None:
        hand = self.hands.pop(name)
        if kill:
            os.kill(hand.pid, signal.SIGKILL)
        hand.line.close()
        os.waitpid(hand.pid, 0)

    def begin(self, name: str, act: str, **more: Any) -> None:
        hand = self.hand(name)
        if act in ("ingest", "new-chain"):
            self.change_spool(name)
        hand.busy, hand.at, hand.gates = True, None, 0
        reopen = self.chance.random() < 0.3
        self.story.append(f"{name} {act}")
        self.counts[act] += 1
        hand.line.say(act=act, now=self.clock.now().timestamp(), reopen=reopen, **more)

    def hear(self, name: str) -> None:
        """Wait until a process stands at a gate or is done."""
        hand = self.hands[name]
        try:
            heard = hand.line.hear()
        except TimeoutError:
            raise Wrong(f"{name} stands still") from None
        if heard is None:
            raise Wrong(f"{name} died by itself")
        if "failed" in heard:
            raise Wrong(f"{name}: {heard['failed']}")
        if "at" in heard:
            hand.at, hand.gates = heard["at"], hand.gates + 1
            return
        hand.busy, hand.at, hand.came = False, None, heard["done"]
        self.clock.advance(max(timedelta(), timedelta(seconds=heard["now"] - self.clock.now().timestamp())))
        self.came(name, hand.came)

    def came(self, name: str, what: dict[str, Any]) -> None:
        self.story.append(f"{name} -> {what}")
        self.counts["refused"] += "refused" in what
        self.counts["deleted"] += what.get("deleted", 0)
        self.counts["ended"] += what.get("ended", 0)
        self.counts["expired"] += what.get("expired", 0)
        if "made" in what:
            if what["state"] != "protected":
                raise Wrong(f"a generation is {what['state']}: {what['reason']}")
            self.counts["made"] += 1
            self.judge.promised.add(what["made"])
        if what.get("problems"):
            raise Wrong(f"a sweep left something: {what['problems']}")

    def look(self, when: str) -> None:
        problems = self.judge.look()
        if problems:
            raise Wrong(f"{when}: " + "; ".join(problems[:5]))

    # --- rounds ------------------------------------------------------------------------------------------------------

    def draw(self, name: str) -> tuple[str, dict[str, Any]]:
        weights = ACTS[name]
        act = self.chance.choices(list(weights), list(weights.values()))[0]
        if act in ("hold", "unhold", "expire-one"):
            known = sorted(self.judge.known)
            if not known:
                return "sweep", {}
            return act, {"generation": self.chance.choice(known)}
        return act, {}

    def round(self) -> None:
        """Both at once; with luck one is killed, and begins again at once or later."""
        for name in NAMES:
            act, more = self.draw(name)
            self.begin(name, act, **more)
        victim = self.chance.choice(NAMES) if self.chance.random() < 0.45 else ""
        dies_at = self.chance.choice([self.chance.randrange(1, 25), self.chance.randrange(1, 140)])
        stay = self.chance.choice([0.0, 0.5, 0.9, 0.97, 0.995])
        current = self.chance.choice(NAMES)
        while busy := [name for name in NAMES if name in self.hands and self.hands[name].busy]:
            for name in busy:
                if self.hands[name].at is None and self.hands[name].busy:
                    self.hear(name)
            at_gates = [name for name in busy if self.hands[name].at is not None]
            if not at_gates:
                continue
            if current not in at_gates or self.chance.random() >= stay:
                current = self.chance.choice(at_gates)
            hand = self.hands[current]
            if current == victim and hand.gates >= dies_at:
                self.kill(current)
                victim = ""
                if self.chance.random() < 0.5:
                    act, more = self.draw(current)
                    self.begin(current, act, **more)
                continue
            where, hand.at = hand.at or "", None
            moment, _, effect = where.partition(" ")
            seen = SEEN_AFTER if self.looks_often else ("expire",)
            if moment == "after" and effect.removeprefix("store:") in seen:
                self.look(where)
            hand.line.say(go=True)
        self.look("after a round")

    def kill(self, name: str) -> None:
        where = self.hands[name].at
        self.story.append(f"{name} killed at {where}")
        self.counts["killed"] += 1
        self.end(name, kill=True)
        self.look(f"after a kill at {where}")

    def alone(self, name: str, act: str) -> dict[str, Any]:
        """An act with nobody beside it."""
        self.begin(name, act, free=True)
        while self.hands[name].busy:
            self.hear(name)
            if self.hands[name].at is not None:
                self.hands[name].at = None
                self.hands[name].line.say(go=True, free=True)
        self.look(f"after {name} {act}")
        return self.hands[name].came

    def surely(self, name: str, act: str) -> None:
        came = self.alone(name, act)
        if "refused" in came:
            raise Wrong(f"{name} {act} with nobody beside it: {came['refused']}")

    # --- spools ------------------------------------------------------------------------------------------------------

    def change_spool(self, name: str) -> None:
        """Data comes and goes and comes again, so that what one process gives up the other just wants."""
        spool = Source(self.place.spool(name))
        spool.root.mkdir(exist_ok=True)
        for version in range(VERSIONS):
            draw = self.chance.random()
            if draw < 0.3:
                spool.path(f"v{version}").unlink(missing_ok=True)
            elif draw < 0.7:
                spool.write(f"v{version}", noise(1000 + self.chance.randrange(VERSIONS), 50 * KIB))
        pages = spool.path("pages")
        if not pages.exists():
            spool.write("pages", noise(999, 120 * KIB))
        spool.overwrite("pages", self.chance.randrange(100 * KIB), noise(self.chance.randrange(1 << 30), 300))
        self.stamps += 1
        spool.write("own", noise(5000 + self.stamps, self.chance.choice([2, 30, 90]) * KIB))
        stamp = f"{self.stamps}".encode()
        spool.write("stamp", stamp)
        self.trees[stamp] = tree(spool.root)

    # --- the whole ---------------------------------------------------------------------------------------------------

    def play(self) -> None:
        place = self.place
        if not place.real:
            DirectoryStore(place.root / "store").create_root()
        store = DatedStore(place, self.clock)
        create(store, self.clock, PASSPHRASE, region="", endpoint="", cost=CHEAP)
        self.judge = Judge(store)
        self.surely("one", "ingest")
        if self.chance.random() < 0.5:  # a clone of the machine, else a second host that knows nothing
            self.end("one", kill=False)
            shutil.copytree(place.state("one"), place.state("two"))
        else:
            self.surely("two", "rebuild")
        for _ in range(ROUNDS):
            self.round()
            self.clock.advance(self.chance.choice([timedelta(), timedelta(hours=2), 2 * DAY, 4 * DAY, 8 * DAY]))
            for name in list(self.hands):
                if self.chance.random() < 0.2:
                    self.end(name, kill=True)  # between two acts
        self.settle()
        self.check()

    def settle(self) -> None:
        """What must do away with whatever the schedule left: both write once more, then all that may go goes."""
        for name in NAMES:
            if name in self.hands:
                self.end(name, kill=False)
        for name in NAMES:
            self.surely(name, "ingest")
        self.clock.advance(8 * DAY)
        self.surely("one", "ingest")
        self.surely("two", "expire")
        self.clock.advance(8 * DAY)
        for name in self.chance.sample(NAMES, 2):
            self.surely(name, "sweep")
            self.end(name, kill=False)

    def check(self) -> None:
        self.look("at the very end")
        problems: Problems = self.judge.left()
        store = DatedStore(self.place, self.clock)
        engine = self.place.engine("judge", store, self.clock)
        target = self.place.root / "restored"
        try:
            problems += [f"rebuild: {each}" for each in engine.rebuild().problems]
            infos = engine.generations(SOURCE)
            for info in infos:
                if info.state != "protected":
                    problems.append(f"generation {info.number} is {info.state}: {info.reason}")
                engine.restore(Reference(source=SOURCE, id_prefix=info.id), target)
                stamp = (target / "stamp").read_bytes()
                if tree(target) != self.trees[stamp]:
                    problems.append(f"generation {info.number} is not what was backed up")
                shutil.rmtree(target)
            self.counts["restored"] += len(infos)
            if not infos:
                problems.append("no generation is left")
            problems += [f"verify: {each}" for each in engine.verify(depth=Depth.DATA).problems]
        finally:
            engine.close()
        for name in NAMES:
            for event in map(json.loads, self.place.events(name).read_text().splitlines()):
                if event["level"] == "error" and event["event"] != "chain.foreign_writer":
                    problems.append(f"{name} logged {event}")
        if problems:
            raise Wrong("at the end: " + "; ".join(problems[:5]))


def schedule(seed: int, root: Path, real: str = "") -> Schedule:
    chance = random.Random(seed)
    place = Place(
        root=root, real=real, parts=not real and chance.random() < 0.5,
        sweep_after=chance.choice([timedelta(), DAY, 7 * DAY]),
    )  # fmt: skip
    return Schedule(seed, place, chance, looks_often=not real or chance.random() < 0.2)


def run(seed: int, root: Path, real: str = "") -> tuple[Problems, Counter[str]]:
    """Play one schedule in a new directory, which is removed; what was wrong, with all that happened before."""
    root.mkdir()
    one = schedule(seed, root, real)
    try:
        one.play()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        said = str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"
        return [f"seed {seed}: {said}", *one.story[-12:]], one.counts
    finally:
        for name in list(one.hands):
            with contextlib.suppress(ProcessLookupError):
                one.end(name, kill=True)
        if real:
            _empty(one)
        shutil.rmtree(root)
    return [], one.counts


def _empty(one: Schedule) -> None:
    """A bucket that other schedules use, too."""
    store = innermost(one.place.bare_store())
    for facts in list(store.list_objects("")):
        store.delete(facts.key)
    store.close()
