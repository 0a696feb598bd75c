"""The kinds of writers, and schedules of them. Every function writes the script of one actor, drawn from a seed.

What no look at a file can tell is not played: half of a tar or an SQL dump written over an old one of the same size
by a writer that then dies, and a preallocated tar that lacks only its end. `tests/unit/test_writers_plan.py` proves
over some seeds that nothing of the kind comes up, and whoever plays others can ask `Version.beyond_telling`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.writers.content import CHECKED, STRUCTURED, Content, Form
from tests.writers.plan import (
    TEMPORARY,
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
    Step,
    Write,
)

KIB = 1024
STAND = 5.0
"""How long, in settle times, a version stands that has to be found: settle, a rescan, the work, and slack."""


@dataclass(slots=True)
class Script:
    """What one actor does, as it is written down. Paths are its own, below `base`."""

    chance: random.Random
    base: str
    small_files: int = 1000
    now: float = 0.0
    steps: list[tuple[float, Action]] = field(default_factory=list)
    _names: int = 0

    def do(self, action: Action) -> None:
        self.steps.append((self.now, action))

    def wait(self, shortest: float, longest: float | None = None) -> None:
        self.now += shortest if longest is None else self.chance.uniform(shortest, longest)

    def stand(self) -> None:
        self.wait(STAND, STAND + 1)

    def path(self, form: Form, stem: str = "piece") -> str:
        self._names += 1
        return f"{self.base}/{stem}-{self._names}{form}"

    def form(self, forms: Sequence[Form] = tuple(Form)) -> Form:
        return self.chance.choice(forms)

    def content(self, form: Form, smallest: int = 40 * KIB, largest: int = 200 * KIB) -> Content:
        return Content(form=form, seed=self.chance.randrange(2**32), about=self.chance.randint(smallest, largest))

    def cuts(self, total: int, pieces: int, *, until: float = 1.0) -> list[tuple[int, int]]:
        """So many consecutive ranges of unequal length, from 0 to a share of the total."""
        stop = int(total * until)
        marks = sorted(self.chance.sample(range(1, max(stop, pieces + 1)), pieces - 1))
        return list(zip([0, *marks], [*marks, stop], strict=True))

    def write(
        self, content: Content, ranges: Sequence[tuple[int, int]], pause: tuple[float, float], at: int = 0
    ) -> None:
        for start, stop in ranges:
            self.do(Write(content=content, start=start, stop=stop, offset=at + start))
            self.wait(*pause)

    def whole(
        self, path: str, content: Content, *, how: How = How.CREATE, pause: tuple[float, float] = (0.0, 0.1)
    ) -> None:
        """A whole file in a few writes, closed."""
        self.do(Open(path=path, how=how))
        self.write(content, self.cuts(len(content.bytes()), 3), pause)
        self.do(Close(complete=True))

    def half(self, content: Content, pause: tuple[float, float]) -> Write:
        """Write nearly half of a file; returns the write that would come next."""
        ranges = self.cuts(len(content.bytes()), 4, until=0.5)
        self.write(content, ranges[:-1], pause)
        start, stop = ranges[-1]
        return Write(content=content, start=start, stop=stop, offset=start)


def slow(script: Script) -> None:
    """Writes with pauses, one of which is longer than the settle time while the file stays open."""
    form = script.form()
    content = script.content(form)
    script.do(Open(path=script.path(form), how=How.CREATE))
    ranges = script.cuts(len(content.bytes()), script.chance.randint(4, 7))
    middle = script.chance.randrange(1, len(ranges))
    script.write(content, ranges[:middle], (0.2, 0.8))
    script.wait(3.0, 5.5)
    script.write(content, ranges[middle:], (0.2, 0.8))
    script.do(Close(complete=True))
    script.stand()


def preallocating(script: Script) -> None:
    """The full size first, then the data from the start; the mtime is set back before the file is closed."""
    form = script.form()
    content = script.content(form)
    size = len(content.bytes())
    script.do(Open(path=script.path(form), how=How.CREATE))
    script.do(SetEnd(size=size))
    script.wait(0.3, 2.5)
    script.write(content, script.cuts(size, 5), (0.2, 1.4))
    script.do(Backdate())
    script.wait(0.2, 2.0)
    script.do(Close(complete=True))
    script.stand()


def killed(script: Script) -> None:
    """Half of a new file, and the client is gone. Somebody else may bring the whole file later."""
    form = script.form()
    content, path = script.content(form), script.path(form)
    script.do(Open(path=path, how=How.CREATE))
    next_write = script.half(content, (0.1, 0.7))
    script.do(Kill(in_flight=script.chance.choice((None, next_write))))
    script.stand()
    if script.chance.random() < 0.5:
        script.whole(path, content)
        script.stand()


def preallocated_killed(script: Script) -> None:
    """The full size, half of the data, and the client is gone: size and name are those of the whole file."""
    form = script.form()
    content = script.content(form, 120 * KIB)
    script.do(Open(path=script.path(form), how=How.CREATE))
    script.do(SetEnd(size=len(content.bytes())))
    next_write = script.half(content, (0.1, 0.7))
    script.do(Kill(in_flight=script.chance.choice((None, next_write))))
    script.stand()


def rewritten_killed(script: Script) -> None:
    """A good version; then the file is emptied, half written anew, and the client is gone."""
    form = script.form()
    path = script.path(form)
    script.whole(path, script.content(form))
    script.stand()
    content = script.content(form)
    script.do(Open(path=path, how=How.CREATE))
    script.do(Kill(in_flight=script.half(content, (0.1, 0.7))))
    script.stand()


def overwritten_killed(script: Script) -> None:
    """A good version; half of another one is written over it, and the client is gone. The old end still stands."""
    form = script.form((Form.OPAQUE, *CHECKED))
    path = script.path(form)
    script.whole(path, script.content(form, 120 * KIB))
    script.stand()
    content = script.content(form, 60 * KIB, 100 * KIB)
    script.do(Open(path=path, how=How.UPDATE))
    script.do(Kill(in_flight=script.half(content, (0.1, 0.7))))
    script.stand()


def renamed(script: Script) -> None:
    """Under a temporary name, with a long pause after its close, then into place; a second time over the first."""
    form = script.form()
    path = script.path(form)
    name = path + script.chance.choice(TEMPORARY)
    for _ in range(script.chance.choice((1, 2))):
        script.do(Open(path=name, how=How.CREATE))
        content = script.content(form)
        script.write(content, script.cuts(len(content.bytes()), 4), (0.1, 0.9))
        script.do(Close(complete=True))
        script.wait(0.1, 2.5)
        script.do(Rename(path=name, to=path))
        script.stand()


def renamed_killed(script: Script) -> None:
    """Renamed into place, and soon written over by somebody who dies: the rename speaks for the first version only."""
    form = script.form((Form.OPAQUE, *CHECKED))
    path = script.path(form)
    name = path + script.chance.choice(TEMPORARY)
    script.whole(name, script.content(form, 120 * KIB))
    script.do(Rename(path=name, to=path))
    script.wait(*script.chance.choice(((0.0, 0.1), (0.1, 1.0))))
    script.do(Open(path=path, how=script.chance.choice((How.CREATE, How.UPDATE))))
    script.do(Kill(in_flight=script.half(script.content(form, 60 * KIB, 100 * KIB), (0.0, 0.2))))
    script.stand()


def temporary_killed(script: Script) -> None:
    """Half of a file under a temporary name, which never gets its own."""
    form = script.form()
    script.do(Open(path=script.path(form) + script.chance.choice(TEMPORARY), how=How.CREATE))
    script.do(Kill(in_flight=script.half(script.content(form), (0.1, 0.7))))
    script.stand()


def rewritten(script: Script) -> None:
    """Emptied and written again under the same name, once while it stands and again and again before it settles."""
    form = script.form()
    path = script.path(form)
    script.whole(path, script.content(form))
    script.stand()
    for _ in range(script.chance.randint(2, 5)):
        script.whole(path, script.content(form), pause=(0.0, 0.3))
        script.wait(0.6, 1.6)
    script.whole(path, script.content(form))
    script.stand()


def overwritten(script: Script) -> None:
    """Written over in place, just when it is likely to be read, without being emptied or getting another size."""
    form = script.form()
    path = script.path(form)
    first = script.content(form, 4096 * KIB, 6144 * KIB) if form is Form.OPAQUE else script.content(form)
    size = len(first.bytes())
    script.whole(path, first)
    for _ in range(script.chance.randint(2, 3)):
        script.wait(0.9, 2.2)
        content = Content(form=form, seed=script.chance.randrange(2**32), about=first.about)
        script.do(Open(path=path, how=How.UPDATE))
        size = len(content.bytes())
        script.write(content, script.cuts(size, 5), (0.0, 0.5))
        script.do(SetEnd(size=size))
        script.do(Close(complete=True))
    script.stand()


def volume(script: Script) -> None:
    """Appended to by several jobs, same name and inode; in the end emptied and used again."""
    path = script.path(Form.OPAQUE, "volume")
    end = 0
    for job in range(3):
        content = script.content(Form.OPAQUE)
        script.do(Open(path=path, how=How.APPEND if job else How.CREATE))
        script.write(content, script.cuts(content.about, 4), (0.1, 0.9), end)
        script.do(Close(complete=True))
        end += content.about
        script.wait(*script.chance.choice(((0.3, 0.9), (STAND, STAND + 1))))
    script.stand()
    if script.chance.random() < 0.5:
        script.whole(path, script.content(Form.OPAQUE))
        script.stand()


def volume_killed(script: Script) -> None:
    """A volume whose last job dies: what earlier jobs wrote is still in front of the torn end."""
    path = script.path(Form.OPAQUE, "volume")
    first, second = script.content(Form.OPAQUE), script.content(Form.OPAQUE)
    script.whole(path, first)
    script.stand()
    script.do(Open(path=path, how=How.APPEND))
    ranges = script.cuts(second.about, 4, until=0.5)
    script.write(second, ranges[:-1], (0.1, 0.7), first.about)
    start, stop = ranges[-1]
    script.do(Kill(in_flight=Write(content=second, start=start, stop=stop, offset=first.about + start)))
    script.stand()


def reopened(script: Script) -> None:
    """Closed and opened again several times before it is whole; one of the pauses is longer than the settle time."""
    form = script.form()
    content, path = script.content(form), script.path(form)
    ranges = script.cuts(len(content.bytes()), 4)
    long = script.chance.randrange(3)
    for number, each in enumerate(ranges):
        script.do(Open(path=path, how=How.APPEND if number else How.CREATE))
        script.write(content, [each], (0.1, 0.3))
        script.do(Close(complete=number == 3))
        script.wait(*((1.3, 2.5) if number == long else (0.2, 0.7)))
    script.stand()


def small_files(script: Script) -> None:
    """Very many small files at once, in a few directories; some are deleted again, some written anew."""
    directories = [f"{script.base}/{number}" for number in range(5)]
    for each in directories:
        script.do(MakeDirectory(path=each))
    paths, contents = [], []
    for number in range(script.small_files):
        form = Form.SQL if number % 4 == 0 else Form.OPAQUE
        paths.append(f"{directories[number % 5]}/{number}{form}")
        contents.append(script.content(form, 1, 3000))
    # In batches that let the other writers have their turn.
    for start in range(0, len(paths), 20):
        script.do(Small(paths=tuple(paths[start : start + 20]), contents=tuple(contents[start : start + 20])))
        script.wait(0.0, 0.1)
    script.stand()
    for path in script.chance.sample(paths, len(paths) // 50):
        script.do(Delete(path=path))
    again = tuple(script.chance.sample(paths, len(paths) // 50))
    forms = (Form.SQL if path.endswith(Form.SQL) else Form.OPAQUE for path in again)
    script.do(Small(paths=again, contents=tuple(script.content(form, 1, 3000) for form in forms)))
    script.stand()


def deleted(script: Script) -> None:
    """One that stands long enough before it is deleted, and one that does not."""
    for stands in (True, False):
        form = script.form()
        path = script.path(form)
        script.whole(path, script.content(form))
        if stands:
            script.stand()
        else:
            script.wait(0.2, 1.5)
        script.do(Delete(path=path))
        script.wait(0.2)


def directory_renamed(script: Script) -> None:
    """A job's directory with files, renamed as a whole when they stood for a while, or at once."""
    directory = f"{script.base}/job"
    script.do(MakeDirectory(path=directory))
    for _ in range(3):
        form = script.form()
        script.whole(script.path(form, "job/piece"), script.content(form))
    script.wait(*script.chance.choice(((0.1, 1.2), (STAND, STAND + 1))))
    script.do(Rename(path=directory, to=f"{script.base}/done", directory=True))
    script.stand()


def mapped(script: Script) -> None:
    """Full size at once, written through a mapping after the file was closed. Local only."""
    form = script.form()
    content = script.content(form)
    size = len(content.bytes())
    script.do(Open(path=script.path(form), how=How.MAP, size=size))
    script.write(content, script.cuts(size, 5), (0.2, 1.6))
    script.do(Close(complete=True))
    script.stand()


def mapped_killed(script: Script) -> None:
    """The same, killed in the middle. Local only."""
    form = script.form()
    content = script.content(form, 120 * KIB)
    script.do(Open(path=script.path(form), how=How.MAP, size=len(content.bytes())))
    script.do(Kill(in_flight=script.half(content, (0.2, 1.6))))
    script.stand()


KINDS: dict[str, Callable[[Script], None]] = {
    each.__name__: each
    for each in (
        slow, preallocating, killed, preallocated_killed, rewritten_killed, overwritten_killed, renamed,
        renamed_killed, temporary_killed, rewritten, overwritten, volume, volume_killed, reopened, small_files, deleted,
        directory_renamed, mapped, mapped_killed,
    )
}  # fmt: skip
LOCAL_ONLY = frozenset({"mapped", "mapped_killed"})


def schedule(
    seed: int, *, local: bool, kinds: Sequence[str] | None = None, writers: int = 0, small_files: int = 1000
) -> Schedule:
    """The schedule of a seed. Every one of `kinds` (None: all that can be played there) comes once, then drawn ones
    until there are `writers`. Each writer begins at a moment of its own in the first three settle times.
    """
    possible = [name for name in KINDS if local or name not in LOCAL_ONLY]
    chosen = list(possible if kinds is None else kinds)
    if not local and LOCAL_ONLY & set(chosen):
        raise ValueError("nobody maps a file over SMB")
    chance = random.Random(f"schedule {seed} {local}")
    chosen += chance.choices([name for name in chosen if name != "small_files"], k=max(0, writers - len(chosen)))
    steps: list[Step] = []
    mortal = set()
    for actor, name in enumerate(chosen):
        script = Script(random.Random(f"{seed} {actor} {name}"), f"{actor:02}-{name}", small_files)
        script.do(MakeDirectory(path=script.base))
        script.wait(0.0, 3.0)
        KINDS[name](script)
        steps += [Step(at=at, actor=actor, action=action) for at, action in script.steps]
        if any(isinstance(action, Kill) for _, action in script.steps):
            mortal.add(actor)
    steps.sort(key=lambda step: step.at)  # stable: what an actor does stays in its order
    return Schedule(seed=seed, steps=tuple(steps), kinds=tuple(chosen), mortal=frozenset(mortal))


__all__ = ["KINDS", "LOCAL_ONLY", "STAND", "STRUCTURED", "Script", "schedule"]
