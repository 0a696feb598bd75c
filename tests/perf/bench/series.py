"""Data sets of several generations. All of one set are made once and kept, so that every contender gets the same.

A maker gets an empty directory and yields after each generation; what is in the directory then is copied away.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.perf.bench import data, measure
from tests.perf.bench.data import WORDS, Absent, DataSet
from tests.servers.postgresql import PostgreSQL, find_binaries

PAGE = 8192
MIB = 1 << 20
Maker = Callable[[Path, float], Iterator[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """`paged`: databases' pages, of which a part changes each time, so that the targets for those hold."""

    name: str
    title: str
    generations: tuple[Path, ...]
    paged: bool
    reducible: bool


def place(generation: Path, at: Path) -> DataSet:
    """Make `at` hold what a generation holds, files written in place as producers do, and read it once."""
    wanted = {path.relative_to(generation) for path in measure.files_below(generation)}
    for path in measure.files_below(at):
        if path.relative_to(at) not in wanted:
            path.unlink()
    for name in sorted(wanted):
        source, target = generation / name, at / name
        if target.exists() and source.stat().st_size == target.stat().st_size and _same(source, target):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    files = measure.files_below(at)
    measure.read_all(files)
    return DataSet(
        name=at.name, title="", path=at, size=sum(path.stat().st_size for path in files), files=len(files),
        single=files[0] if len(files) == 1 else None,
    )  # fmt: skip


def _same(one: Path, other: Path) -> bool:
    def digest(path: Path) -> bytes:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()

    return digest(one) == digest(other)


# --- pages -----------------------------------------------------------------------------------------------------------


def change_pages(content: bytearray, share: float, chance: random.Random, *, clustered: bool = False) -> None:
    """In so many of the pages a few fields of rows change, and what a database notes in the page's head."""
    count = len(content) // PAGE
    wanted = max(1, int(count * share))
    if clustered:
        run = 64
        starts = chance.sample(range(max(1, count // run)), max(1, wanted // run))
        pages: Sequence[int] = [page for start in starts for page in range(start * run, min(count, start * run + run))]
    else:
        pages = chance.sample(range(count), wanted)
    for page in pages:
        at = page * PAGE
        content[at : at + 10] = chance.randbytes(10)
        for _ in range(chance.randrange(2, 6)):
            text = f"{chance.choice(WORDS)} {chance.randrange(10**9)} {chance.choice(WORDS)}".encode()[:60]
            offset = at + chance.randrange(24, PAGE - 60)
            content[offset : offset + len(text)] = text


def pages(share: float, *, clustered: bool = False, later: int = 10, size: float = 1.0) -> Maker:
    """`size`: of the base backup at scale 1, in units of 512 MB."""

    def make(path: Path, scale: float) -> Iterator[None]:
        first = path / "base.tar"
        shutil.rmtree(path)
        path.mkdir()
        data.make_postgresql(path, 0.25 * size * scale)
        yield
        chance = random.Random(f"{share} {clustered}")
        content = bytearray(first.read_bytes())
        for _ in range(later):
            change_pages(content, share, chance, clustered=clustered)
            first.write_bytes(content)
            yield

    return make


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


def postgresql(kind: str, *, later: int = 5) -> Maker:
    """`plain` or `tar` base backups, or `dump`, with pgbench at work between them."""

    def make(path: Path, scale: float) -> Iterator[None]:
        if find_binaries() is None:
            raise Absent("PostgreSQL is not installed")
        settings = {"shared_buffers": "256MB", "max_wal_size": "2GB", "wal_level": "replica", "autovacuum": "off"}
        with PostgreSQL(settings=settings) as server:
            server.pgbench_init(max(1, round(20 * scale)))
            server.psql(data._letters(max(1000, round(550_000 * scale))))
            for number in range(1 + later):
                if number:
                    server.pgbench(transactions=max(100, round(6_000 * scale)), seed=number)
                    server.psql(
                        "update letters set amount = amount + 1, body = body || ' again' "
                        f"where id % 97 = {number}; checkpoint"
                    )
                shutil.rmtree(path)
                if kind == "dump":
                    path.mkdir()
                    server.dump(path / "dump.sql")
                else:
                    server.base_backup(path, format=kind)
                    shutil.rmtree(path / "pg_wal", ignore_errors=True)
                    (path / "pg_wal.tar").unlink(missing_ok=True)
                yield

    return make


# --- RMAN-like pieces ------------------------------------------------------------------------------------------------

FILES, BUFFER = 4, 64


def rman(kind: str, *, later: int = 10) -> Maker:
    """Backup pieces of 8 KiB blocks. `scattered`, `clustered`; `addresses`: each block's is another every time;
    `multiplexed`: blocks of several files take turns, in another order every time.
    """

    def make(path: Path, scale: float) -> Iterator[None]:
        chance = random.Random(f"rman {kind}")
        count = int(128 * MIB * scale) // PAGE
        files = [_blocks(count, chance) for _ in range(FILES)]
        for number in range(1 + later):
            if number:
                for content in files:
                    change_pages(content, 0.05, chance, clustered=kind == "clustered")
                    if kind == "addresses":
                        shift = chance.randrange(1 << 20)
                        for block in range(count):
                            content[block * PAGE + 4 : block * PAGE + 8] = (block + shift).to_bytes(4, "little")
            if kind == "multiplexed":
                (path / "piece").write_bytes(_multiplexed(files, count, chance))
            else:
                for which, content in enumerate(files):
                    (path / f"piece-{which}").write_bytes(content)
            yield

    return make


def _blocks(count: int, chance: random.Random) -> bytearray:
    """Blocks with an address in their heads, and rows of text that repeat only in their words."""
    out = bytearray()
    pool = [" ".join(chance.choices(WORDS, k=12)).encode() for _ in range(5000)]
    for block in range(count):
        body = bytearray(b"\x06\xa2\0\0" + block.to_bytes(4, "little") + chance.randbytes(8))
        while len(body) < PAGE:
            body += b"%s;%d;%d\n" % (chance.choice(pool), chance.randrange(10**9), chance.randrange(10**6))
        out += body[:PAGE]
    return out


def _multiplexed(files: list[bytearray], count: int, chance: random.Random) -> bytes:
    turns = [which for which in range(FILES) for _ in range(-(-count // BUFFER))]
    chance.shuffle(turns)
    at, out = [0] * FILES, []
    for which in turns:
        out.append(files[which][at[which] : at[which] + BUFFER * PAGE])
        at[which] += BUFFER * PAGE
    return b"".join(out)


# --- others ----------------------------------------------------------------------------------------------------------


def disk_image(path: Path, scale: float, *, later: int = 5) -> Iterator[None]:
    """An ext4 image of a tree of texts, files changed, added and removed in it by the file system's own tools."""
    for tool in ("mke2fs", "debugfs"):
        if shutil.which(tool) is None:
            raise Absent(f"{tool} is not installed")
    image, tree, chance = path / "disk.img", path.with_name("tree"), random.Random("image")
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    data.make_tree(tree, scale * 2)
    names = [str(each.relative_to(tree)) for each in measure.files_below(tree)]
    size = int(400 * scale) + 32
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, image, f"{size}M"], check=True)
    yield
    for number in range(later):
        script = []
        for name in chance.sample(names, len(names) // 50):
            changed = tree / name
            changed.write_bytes(changed.read_bytes() + b"# changed %d\n" % number)
            script += [f'rm "/{name}"', f'write "{changed}" "/{name}"']
        subprocess.run(["debugfs", "-w", "-f", "-", image], input="\n".join(script).encode(), check=True,
                       capture_output=True)  # fmt: skip
        yield
    shutil.rmtree(tree)


def source_tree(path: Path, scale: float) -> Iterator[None]:
    """Two versions of a tree of sources: each seventh file edited in the second."""
    made = path.with_name("made")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    data.make_tree(made, scale)
    for number in range(2):
        shutil.rmtree(path)
        (made / f"release-{number}").rename(path)
        yield
    shutil.rmtree(made)


def incompressible(path: Path, scale: float) -> Iterator[None]:
    """Two files of random bytes; a tenth of one is other bytes in the second generation."""
    for name, seed in (("one", 1), ("two", 2)):
        data.write_unique(path / name, int(400 * MIB * scale), seed)
    yield
    with (path / "one").open("r+b") as file:
        file.seek(int(100 * MIB * scale))
        for piece in data.unique_bytes(int(40 * MIB * scale), 3):
            file.write(piece)
    yield


@dataclass(frozen=True, slots=True)
class _Kind:
    title: str
    maker: Maker
    paged: bool = False
    reducible: bool = True


KINDS = {
    "pages-1": _Kind("tar of a PostgreSQL base backup, 1 % of the pages changed each time", pages(0.01), True),
    "pages-5": _Kind("the same, 5 %", pages(0.05), True),
    "pages-5-large": _Kind(
        "the same, four times as large: what it takes to start weighs less", pages(0.05, size=4), True
    ),
    "pages-12": _Kind("the same, 12 %", pages(0.12), True),
    "pages-5-clustered": _Kind("the same, 5 % in runs of 64 pages", pages(0.05, clustered=True), True),
    "postgresql-tar": _Kind("pg_basebackup as tar, pgbench and an update between", postgresql("tar")),
    "postgresql-plain": _Kind("pg_basebackup as files, pgbench and an update between", postgresql("plain")),
    "postgresql-dump": _Kind("pg_dump, pgbench and an update between", postgresql("dump")),
    "rman-scattered": _Kind("four pieces of 8 KiB blocks, 5 % changed", rman("scattered"), True),
    "rman-clustered": _Kind("the same in runs of 64 blocks", rman("clustered"), True),
    "rman-addresses": _Kind("the same, scattered, and the address of every block rewritten", rman("addresses")),
    "rman-multiplexed": _Kind("four files in one piece, taking turns in another order", rman("multiplexed")),
    "disk-image": _Kind("ext4 image of a tree, 2 % of the files rewritten", disk_image),
    "source-tree": _Kind("texts, each seventh file edited in the second version", source_tree),
    "incompressible": _Kind("random bytes, a twentieth others in the second generation", incompressible, False, False),
}
VERSION = 1
"""Of what the makers make; a higher one makes every set anew."""


def _make(name: str, home: Path, scale: float) -> int:
    shutil.rmtree(home, ignore_errors=True)
    content, count = home / "content", 0
    content.mkdir(parents=True)
    for _ in KINDS[name].maker(content, scale):
        count += 1
        shutil.copytree(content, home / f"{count:02d}")
    shutil.rmtree(content)
    return count


def provide(name: str, work: Path, scale: float) -> Series:
    """All generations of a set, made if they are not there yet. `Absent`."""
    kind, home = KINDS[name], work / "series" / f"{name}-{scale:g}"
    marker = home / "made.json"
    made: dict[str, int] = json.loads(marker.read_text()) if marker.exists() else {}
    if made.get("version") != VERSION:
        print(f"making data set {name} ...", file=sys.stderr, flush=True)
        begun = time.monotonic()
        # In a process of its own: what this one has of memory is the least that it can tell of a contender.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            made = {"version": VERSION, "generations": pool.submit(_make, name, home, scale).result()}
        marker.write_text(json.dumps(made))
        print(f"... {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    generations = tuple(home / f"{number:02d}" for number in range(1, made["generations"] + 1))
    return Series(name=name, title=kind.title, generations=generations, paged=kind.paged, reducible=kind.reducible)
