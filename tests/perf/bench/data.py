"""The data sets. Each is made once, in a directory of its own; a marker that is written last says that it is whole."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.perf.bench import measure
from tests.servers.postgresql import PostgreSQL, find_binaries

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """`path` is a directory to back up. `single`: its only file, where there is but one."""

    name: str
    title: str
    path: Path
    size: int
    files: int
    single: Path | None


class Absent(Exception):
    """This data set cannot be made here; the text says why."""


def unique_bytes(size: int, seed: int) -> Iterator[bytes]:
    """Incompressible bytes that repeat nowhere, the same ones for the same seed: AES in counter mode, some GB/s."""
    stream = Cipher(algorithms.AES(seed.to_bytes(32)), modes.CTR(bytes(16))).encryptor()
    zeros = bytes(MIB)
    while size:
        take = min(size, MIB)
        yield stream.update(zeros[:take])
        size -= take


def write_unique(path: Path, size: int, seed: int) -> None:
    with path.open("wb", buffering=0) as file:
        for piece in unique_bytes(size, seed):
            file.write(piece)


# --- incompressible --------------------------------------------------------------------------------------------------


RANDOM_GIB = 2
"""Like the database: of one gigabyte, the second that starting a command takes would be a third of the time."""


def make_random(path: Path, scale: float) -> str:
    size = int(RANDOM_GIB * GIB * scale)
    write_unique(path / "random.bin", size, 1)
    return f"{size / MIB:.0f} MiB of AES-CTR output"


# --- a database ------------------------------------------------------------------------------------------------------

WORDS = """
    the of and to in is that for it as was with be by on not he his but at are this have from which one had all her
    they you were their we him been has when who will no more if out so up said what its about than into them can
    only other time new some could these two may first then do any like my now over such our man me even most made
    after also did many before must through years where much your way well down should because each just those
    people how too little state good very make world still see own work long here get both between life being under
    never day same another know year while last might us great old off come since go against came right used take
    three himself few house use during without again place american around however home small found thought went say
    part once general high upon school every does got left number course war until always away something fact though
    water less public put think almost hand enough took far head yet government system set better told nothing night
    end why called didn't eyes find going look asked later knew point next program city business give group toward
    invoice delivery contract customer warehouse payment reminder account discount returned damaged refund shipment
""".split()  # noqa: SIM905 - one word a line would be two pages


PGBENCH_SCALE = 58
LETTERS = 1_700_000


def _letters(rows: int) -> str:
    """A table of prose: words drawn with a bias to the frequent ones, names, dates, numbers, JSON."""
    words = "array['" + "','".join(word.replace("'", "''") for word in WORDS) + "']"
    draw = f"w[1 + floor(power(random(), 2.2) * {len(WORDS)})::int]"
    return f"""
        set synchronous_commit = off;
        select setseed(0.25);
        create table letters as
        select g as id,
               timestamp '2024-01-01' + g * interval '41 seconds' + random() * interval '40 seconds' as written,
               'customer-' || (random() * 60000)::int || '@example.net' as sender,
               (random() * 100000)::numeric(12, 2) as amount,
               encode(sha256((g * 2654435761)::text::bytea), 'base64') as token,
               jsonb_build_object('ref', gen_random_uuid(), 'qty', 1 + (random() * 9)::int,
                                  'status', (array['new', 'paid', 'shipped', 'returned'])[1 + (random() * 3)::int],
                                  'sku', substr(md5((random() * 5000)::int::text), 1, 10)) as document,
               (select string_agg(drawn.word, ' ')
                from (select {draw} as word from generate_series(1, 40 + g % 50)) drawn) as body
        from generate_series(1, {rows}) g, (select {words} as w) words;
        create index on letters (sender);
        create index on letters (written);
        alter table letters add primary key (id);
    """


def make_postgresql(path: Path, scale: float) -> str:
    """The tar of a base backup: pgbench's tables, and one of text. About 2 GB at scale 1."""
    if find_binaries() is None:
        raise Absent("PostgreSQL is not installed")
    settings = {
        "shared_buffers": "256MB",
        "max_wal_size": "4GB",
        "full_page_writes": "off",
        "wal_level": "replica",
        "autovacuum": "off",
        "max_parallel_workers_per_gather": "0",
    }
    with PostgreSQL(settings=settings) as server:
        server.pgbench_init(max(1, round(PGBENCH_SCALE * scale)))
        server.psql(_letters(max(1000, round(LETTERS * scale))))
        server.pgbench(transactions=max(100, round(10_000 * scale)))
        server.psql("vacuum analyze")
        made = path / "backup"
        server.base_backup(made, format="tar")
    (made / "base.tar").rename(path / "base.tar")
    shutil.rmtree(made)
    return f"base.tar of pg_basebackup, pgbench -s {max(1, round(PGBENCH_SCALE * scale))} + a table of text"


# --- a source tree ---------------------------------------------------------------------------------------------------

TREE_BYTES = 100_000_000
RELEASES = 3
LEAST, LARGEST = 1024, MIB
# Kinds of text; compiled things would make the tree a few large binaries.
ENDINGS = (".py", ".pyi", ".txt", ".md", ".rst", ".json", ".h", ".c", ".html", ".js", ".css", ".xml", ".po", ".sh")


def make_tree(path: Path, scale: float) -> str:
    """Python's library, what is installed beside it, and texts of the system; then the same again with edits."""
    tops = [Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))]
    tops += [Path(top) for top in ("/usr/lib/python3", "/usr/share", "/usr/include")]
    wanted = int(TREE_BYTES * scale) // RELEASES
    for release in range(RELEASES):
        total = 0
        for number, source in enumerate(_texts(tops)):
            if total >= wanted:
                break
            content = source.read_bytes()
            if release and (number + release) % 7 == 0:
                content = _edited(content, release)
            target = path / f"release-{release}" / source.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            total += len(content)
        if not total:
            raise Absent("no texts found to make a tree of")
    return f"{RELEASES} releases of Python's library and texts of the system, every 7th file of a later one edited"


def _texts(tops: list[Path]) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    for top in tops:
        for at, directories, names in os.walk(top):
            directories.sort()
            for name in sorted(names):
                each = Path(at, name)
                if not name.endswith(ENDINGS) or each.is_symlink():
                    continue
                status = each.stat()
                if LEAST <= status.st_size <= LARGEST and (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    yield each


def _edited(content: bytes, release: int) -> bytes:
    lines = content.split(b"\n")
    middle = len(lines) // 2
    lines[middle:middle] = [b"# edited in release %d" % release]
    return b"\n".join(lines)


# --- next to nothing -------------------------------------------------------------------------------------------------


def make_tiny(path: Path, scale: float) -> str:
    """What a command costs before it does anything: start, key derivation, opening, closing."""
    (path / "tiny.bin").write_bytes(b"one small file\n")
    return "one file of 15 bytes"


# --- all -------------------------------------------------------------------------------------------------------------

MAKERS: dict[str, Callable[[Path, float], str]] = {
    "postgresql": make_postgresql,
    "random": make_random,
    "tree": make_tree,
    "tiny": make_tiny,
}
VERSION = 5
"""Of what the makers make; a higher one makes every set anew."""


def provide(name: str, work: Path, scale: float) -> DataSet:
    """The data set, made if it is not there yet. `Absent`."""
    home = work / "data" / f"{name}-{scale:g}"
    marker = home / "made.json"
    content = home / "content"
    made: dict[str, object] = json.loads(marker.read_text()) if marker.exists() else {}
    if made.get("version") != VERSION:
        shutil.rmtree(home, ignore_errors=True)
        content.mkdir(parents=True)
        print(f"making data set {name} ...", file=sys.stderr, flush=True)
        begun = time.monotonic()
        try:
            title = MAKERS[name](content, scale)
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise
        marker.write_text(json.dumps({"version": VERSION, "title": title}))
        print(f"... {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        made = {"title": title}
    files = measure.files_below(content)
    return DataSet(
        name=name, title=str(made["title"]), path=content, size=sum(path.stat().st_size for path in files),
        files=len(files), single=files[0] if len(files) == 1 else None,
    )  # fmt: skip
