"""Trees of files in tests: what one is, compared in everything a generation keeps."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One entry. `data`: SHA-256; `ranges`: what is not a hole; `first`: the first other name of a hard link."""

    kind: str
    mode: int
    mtime_ns: int
    uid: int
    gid: int
    size: int = 0
    data: str = ""
    ranges: tuple[tuple[int, int], ...] = ()
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    target: bytes = b""
    first: bytes = b""


Tree = dict[bytes, Node]


def paths_below(root: Path) -> Iterator[bytes]:
    """All paths below a directory, by their parts."""
    top = os.fsencode(root)
    todo = [b""]
    found = []
    while todo:
        directory = todo.pop()
        for name in os.listdir(os.path.join(top, directory)):
            path = directory + b"/" + name if directory else name
            found.append(path)
            if stat.S_ISDIR(os.lstat(os.path.join(top, path)).st_mode):
                todo.append(path)
    return iter(sorted(found, key=lambda path: path.split(b"/")))


def tree(root: Path, *, holes: bool = True) -> Tree:
    """Everything below a directory. Directories' times are kept, too: they are restored last."""
    top = os.fsencode(root)
    found: Tree = {}
    inodes: dict[int, bytes] = {}
    for path in paths_below(root):
        place = os.path.join(top, path)
        status = os.lstat(place)
        facts = {
            "mode": stat.S_IMODE(status.st_mode),
            "mtime_ns": status.st_mtime_ns,
            "uid": status.st_uid,
            "gid": status.st_gid,
        }
        xattrs = tuple(
            (os.fsencode(name), os.getxattr(place, name, follow_symlinks=False))
            for name in sorted(os.listxattr(place, follow_symlinks=False))
        )
        if stat.S_ISDIR(status.st_mode):
            found[path] = Node(kind="directory", xattrs=xattrs, **facts)
        elif stat.S_ISLNK(status.st_mode):
            found[path] = Node(kind="symlink", target=os.readlink(place), **facts)
        elif stat.S_ISFIFO(status.st_mode):
            found[path] = Node(kind="fifo", **facts)
        else:
            first = inodes.setdefault(status.st_ino, path)
            found[path] = Node(
                kind="file", size=status.st_size, xattrs=xattrs, data=_digest(place),
                ranges=ranges(place, status.st_size) if holes else (), first=b"" if first == path else first, **facts,
            )  # fmt: skip
    return found


def _digest(place: bytes) -> str:
    hasher = sha256()
    with open(place, "rb", buffering=0) as file:
        while piece := file.read(1 << 20):
            hasher.update(piece)
    return hasher.hexdigest()


def ranges(place: bytes | Path, size: int) -> tuple[tuple[int, int], ...]:
    """Offset and length of everything in a file that is not a hole."""
    out: list[tuple[int, int]] = []
    fd = os.open(place, os.O_RDONLY)
    try:
        at = 0
        while at < size:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:
                break
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
            if out and sum(out[-1]) == start:
                out[-1] = (out[-1][0], end - out[-1][0])
            else:
                out.append((start, end - start))
            at = end
    finally:
        os.close(fd)
    return tuple(out)


def noise(seed: int, size: int) -> bytes:
    """Bytes that nothing compresses, the same for the same seed."""
    from hashlib import shake_128

    return shake_128(seed.to_bytes(8, "big")).digest(size)


@dataclass(slots=True)
class Source:
    """A spool directory with short words for what producers do."""

    root: Path
    made: int = field(default=0)

    def path(self, name: str | bytes) -> Path:
        return self.root / os.fsdecode(name)

    def write(self, name: str | bytes, data: bytes) -> Path:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def noise(self, name: str | bytes, size: int) -> Path:
        """A file of its own random bytes."""
        self.made += 1
        return self.write(name, noise(self.made, size))

    def overwrite(self, name: str | bytes, offset: int, data: bytes) -> None:
        with self.path(name).open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def sparse(self, name: str | bytes, size: int, pieces: list[tuple[int, bytes]]) -> Path:
        path = self.write(name, b"")
        with path.open("r+b") as file:
            for offset, data in pieces:
                file.seek(offset)
                file.write(data)
            file.truncate(size)
        return path
