"""Histories of a spool for hypothesis: what producers do to a tree between two generations."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

from hypothesis import strategies as st

from tests.flow.gateways import KIB
from tests.flow.trees import Tree, noise, paths_below

# Around every size at which the writer of these tests cuts something: chunk (least, average, most), part of an upload,
# stream of its own, pack.
EDGES = (KIB, 4 * KIB, 16 * KIB, 64 * KIB, 96 * KIB, 256 * KIB)
SIZES = st.one_of(
    st.sampled_from([0, 1, *(edge + off for edge in EDGES for off in (-1, 0, 1))]),
    st.integers(0, 9 * KIB),
)


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes from a seed: of their own, or compressible, or all the same."""

    kind: str
    seed: int
    size: int

    def bytes(self) -> bytes:
        match self.kind:
            case "noise":
                return noise(self.seed, self.size)
            case "text":
                lines = b"".join(b"line %d of %d\n" % (i, self.seed) for i in range(self.size // 12 + 1))
                return lines[: self.size]
            case _:
                return bytes([self.seed]) * self.size


contents = st.builds(Content, st.sampled_from(["noise", "noise", "text", "same"]), st.integers(0, 5), SIZES)

_raw = st.binary(min_size=1, max_size=12).map(lambda raw: raw.translate(None, b"/\0"))
names = st.one_of(
    st.sampled_from([b"a", b"b", b"c", b"a.b", b"a-", b" ", b"\n", b"\xff\xfe", "\u00fc".encode(), b"-rf", b"*", b"~"]),
    st.binary(min_size=255, max_size=255).map(lambda raw: raw.replace(b"/", b"x").replace(b"\0", b"y")),
    _raw.filter(lambda name: name not in (b"", b".", b"..")),
)


P = ParamSpec("P")
Act = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Step:
    """Something a producer does, shown by its name and arguments."""

    name: str
    arguments: tuple[Any, ...]
    act: Callable[[Path], None]

    def __call__(self, root: Path) -> None:
        self.act(root)

    def __repr__(self) -> str:
        return f"h.{self.name}{self.arguments!r}"


def named(make: Callable[P, Callable[[Path], None]]) -> Callable[P, Step]:
    def step(*arguments: P.args, **keywords: P.kwargs) -> Step:
        return Step(make.__name__, arguments, make(*arguments, **keywords))

    return step


def _place(root: Path, path: bytes) -> bytes:
    return os.path.join(os.fsencode(root), path)


def _make_way(root: Path, path: bytes) -> bytes:
    """The place of a new thing: directories on the way are made, what stands there goes."""
    place = _place(root, path)
    at = b""
    for name in path.split(b"/")[:-1]:
        at = at + b"/" + name if at else name
        way = _place(root, at)
        if not os.path.isdir(way) or os.path.islink(way):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(way)
            os.mkdir(way)
    remove(place)
    return place


def remove(place: bytes) -> None:
    if not os.path.lexists(place):
        return
    if os.path.isdir(place) and not os.path.islink(place):
        for name in os.listdir(place):
            remove(os.path.join(place, name))
        os.rmdir(place)
    else:
        os.unlink(place)


def _pick(root: Path, number: int, wanted: Callable[[int], bool]) -> bytes | None:
    """One of the paths there are, by a number."""
    found = [path for path in paths_below(root) if wanted(os.lstat(_place(root, path)).st_mode)]
    return found[number % len(found)] if found else None


# --- what may happen -------------------------------------------------------------------------------------------------


@named
def write(path: bytes, content: Content) -> Act:
    def act(root: Path) -> None:
        with open(_make_way(root, path), "wb") as file:
            file.write(content.bytes())

    return act


@named
def sparse(path: bytes, size: int, pieces: list[tuple[int, Content]]) -> Act:
    """A file with holes: leading, trailing, between, or nothing else."""

    def act(root: Path) -> None:
        with open(_make_way(root, path), "wb") as file:
            for page, content in pieces:
                file.seek(page * 4 * KIB)
                file.write(content.bytes())
            file.truncate(max(size, file.seek(0, os.SEEK_END)))

    return act


@named
def symlink(path: bytes, target: bytes) -> Act:
    return lambda root: os.symlink(target, _make_way(root, path))


@named
def directory(path: bytes) -> Act:
    return lambda root: os.mkdir(_make_way(root, path))


@named
def fifo(path: bytes) -> Act:
    return lambda root: os.mkfifo(_make_way(root, path))


@named
def hard_link(path: bytes, number: int) -> Act:
    def act(root: Path) -> None:
        first = _pick(root, number, stat.S_ISREG)
        if first is not None and not (path + b"/").startswith(first + b"/"):
            place = _make_way(root, path)
            with contextlib.suppress(FileNotFoundError):  # it stood in the way
                os.link(_place(root, first), place)

    return act


@named
def change(number: int, offset: int, content: Content) -> Act:
    def act(root: Path) -> None:
        path = _pick(root, number, stat.S_ISREG)
        if path is not None:
            with open(_place(root, path), "r+b") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(offset % (size + 1))
                file.write(content.bytes())

    return act


@named
def truncate(number: int, part: float) -> Act:
    def act(root: Path) -> None:
        path = _pick(root, number, stat.S_ISREG)
        if path is not None:
            os.truncate(_place(root, path), int(os.lstat(_place(root, path)).st_size * part))

    return act


@named
def rename(number: int, to: bytes) -> Act:
    def act(root: Path) -> None:
        path = _pick(root, number, lambda _: True)
        if path is not None and not (to + b"/").startswith(path + b"/") and not (path + b"/").startswith(to + b"/"):
            place = _make_way(root, to)
            with contextlib.suppress(FileNotFoundError):
                os.rename(_place(root, path), place)

    return act


@named
def delete(number: int) -> Act:
    def act(root: Path) -> None:
        path = _pick(root, number, lambda _: True)
        if path is not None:
            remove(_place(root, path))

    return act


@named
def chmod(number: int, mode: int) -> Act:
    def act(root: Path) -> None:
        path = _pick(root, number, lambda found: not stat.S_ISLNK(found))
        if path is not None:
            needed = 0o700 if os.path.isdir(_place(root, path)) else 0o400
            os.chmod(_place(root, path), mode | needed)

    return act


@named
def touch(number: int, mtime_ns: int) -> Act:
    def act(root: Path) -> None:
        path = _pick(root, number, lambda _: True)
        if path is not None:
            os.utime(_place(root, path), ns=(0, mtime_ns), follow_symlinks=False)

    return act


@named
def attribute(number: int, name: str, value: bytes) -> Act:
    def act(root: Path) -> None:
        path = _pick(root, number, lambda found: stat.S_ISREG(found) or stat.S_ISDIR(found))
        if path is not None:
            os.setxattr(_place(root, path), f"user.{name}", value)

    return act


_number = st.integers(0, 50)
_second = 10**9


def steps(paths: st.SearchStrategy[bytes]) -> st.SearchStrategy[Step]:
    pages = st.integers(0, 80)
    piece = st.tuples(pages, contents)
    return st.one_of(
        st.builds(write, paths, contents),
        st.builds(write, paths, contents),
        st.builds(sparse, paths, st.integers(0, 400 * KIB), st.lists(piece, max_size=3)),
        st.builds(symlink, paths, st.one_of(st.just(b"/nowhere/at all"), st.binary(min_size=1, max_size=40).map(
            lambda raw: raw.replace(b"\0", b"0")))),
        st.builds(hard_link, paths, _number),
        st.builds(hard_link, paths, _number),
        st.builds(directory, paths),
        st.builds(fifo, paths),
    )  # fmt: skip


def mutations(paths: st.SearchStrategy[bytes]) -> st.SearchStrategy[Step]:
    return st.one_of(
        steps(paths),
        st.builds(change, _number, st.integers(0, 1 << 20), contents),
        st.builds(truncate, _number, st.floats(0, 1.5)),
        st.builds(rename, _number, paths),
        st.builds(delete, _number),
        st.builds(chmod, _number, st.integers(0, 0o7777)),
        st.builds(touch, _number, st.one_of(
            st.sampled_from([0, -1, 1, -_second, 2**31 * _second, 2**31 * _second - 1]),
            st.integers(-(2**31) * _second, 2**33 * _second))),
        st.builds(attribute, _number, st.sampled_from(["a", "b", "caf\u00e9"]), st.binary(max_size=60)),
    )  # fmt: skip


@st.composite
def histories(draw: st.DrawFn) -> list[list[Step]]:
    """What happens before each generation."""
    pool = draw(st.lists(names, min_size=3, max_size=7, unique=True))
    paths = st.lists(st.sampled_from(pool), min_size=1, max_size=3).map(b"/".join)
    first = draw(st.lists(steps(paths), min_size=1, max_size=12))
    return [first, *draw(st.lists(st.lists(mutations(paths), max_size=5), min_size=1, max_size=3))]


def news(before: Tree, after: Tree) -> bool:
    """Whether there is something in `after` that a generation with `before` does not have."""
    from dataclasses import replace

    for path, node in after.items():
        old = before.get(path)
        if old is not None and node.kind == "directory" == old.kind:
            old = replace(old, mtime_ns=node.mtime_ns)
        if old != node:
            return True
    return False
