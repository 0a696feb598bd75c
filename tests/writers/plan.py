"""What writers are going to do: steps with their moments, as values. Nothing here touches a file.

Moments and pauses are in *settle times*: 1.0 is the time a file must have been quiet. Who plays a schedule says how
many seconds that is, so that the same schedule suits a test of some seconds and a source as in production.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tests.writers.content import Content

TEMPORARY = (".partial", ".tmp", ".filepart", ".crdownload")
"""Suffixes that copy tools give to what is not there yet."""


def is_temporary(path: str) -> bool:
    return path.endswith(TEMPORARY)


class How(StrEnum):
    CREATE = "create"
    """Made, or emptied where it is there."""
    APPEND = "append"
    """What is there stays; made where it is not."""
    UPDATE = "update"
    """What is there is written over in place."""
    MAP = "map"
    """Made with its full size, mapped, and closed: what is written comes through the mapping. Local only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeDirectory:
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Open a file for writing; an actor has one at a time. `size`: of a MAP."""

    path: str
    how: How
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SetEnd:
    """Give the open file its size at once, without data, as the Explorer does; or cut it."""

    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Bytes `start` to `stop` of a content, at `offset` of the open file."""

    content: Content
    start: int
    stop: int
    offset: int

    def bytes(self) -> bytes:
        return self.content.bytes()[self.start : self.stop]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backdate:
    """Set the open file's mtime to a year ago, as copy tools do that keep times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """`complete`: the producer has written all that belongs into the file."""

    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """SIGKILL of the actor's process. `in_flight`: a write that it was just doing; how much of it arrives is chance."""

    in_flight: Write | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename:
    """Of a file, over what is there; or of a directory with all in it."""

    path: str
    to: str
    directory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """Whole files, one after the other, each opened, written and closed."""

    paths: tuple[str, ...]
    contents: tuple[Content, ...]

    def __post_init__(self) -> None:
        if len(self.paths) != len(self.contents):
            raise ValueError("one content for each path")


Action = MakeDirectory | Open | SetEnd | Write | Backdate | Close | Kill | Rename | Delete | Small


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    at: float
    actor: int
    action: Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """`steps` are in the order of their moments. `kinds`: what each actor plays; `mortal`: those that get killed and
    need a process of their own.
    """

    seed: int
    steps: tuple[Step, ...]
    kinds: tuple[str, ...]
    mortal: frozenset[int]

    @property
    def length(self) -> float:
        return self.steps[-1].at if self.steps else 0.0

    def of(self, actor: int) -> tuple[Action, ...]:
        return tuple(step.action for step in self.steps if step.actor == actor)
