"""What planning a large restore takes: ``python -m tests.perf.plan [--packs 50000] [--files 10000000] DIR``.

Builds a repository below DIR, once: one chain of a class that goes into GLACIER, whose packs were declared by THIRTY
generations, and the newest generation with that many files. Nine files of ten lie in their generation's packs in the
order of the list, so that thirty streams of packs alternate; the tenth lies anywhere, and every fifth has data in two
packs. Every fourth segment of a later generation is a delta on one of the generation before. Log, index objects, list
parts and outlines are real, made with the product's own functions; of data packs, which a plan never reads, there are
sparse files of the right size.

Then `Engine.restore(dry_run=True)` runs in a fresh process, its store a directory whose data packs are all said to lie
in GLACIER. What it plans is compared with what was built.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from gateway.api import Reference
from gateway.clock import SystemClock
from gateway.config.classes import BUILT_IN, ClassConfig
from gateway.config.sizes import WriterSizes
from gateway.config.values import Config, RepositoryConfig, SourceConfig, StateConfig
from gateway.engine import Engine, open_engine
from gateway.format import directory, filelist, log, names, wire
from gateway.format.container import HEADER, Frame, Kind, Name, Sealer
from gateway.format.directory import Segment
from gateway.format.filelist import FileEntry, OutlineLine
from gateway.format.keys import chunk_id
from gateway.format.log import Commit, Declaration, ListRoot, Statistics
from gateway.format.segment import Encoding, SegmentCodec
from gateway.model.ids import ChainName, Run, flatten, ranges
from gateway.repository.chain import Chain, StorageClassFacts, create_chain
from gateway.repository.packs import FinishedPack, PackWriter
from gateway.repository.repository import Secrets, open_repository
from gateway.store.directory import DirectoryStore
from gateway.store.meter import CountingStore
from gateway.store.passing import PassingStore
from gateway.store.port import ObjectFacts

MIB = 1 << 20
TARGET_SECONDS, TARGET_BYTES = 60, 512 * MIB
PASSWORD = "a plan of many files"
CLASS = ClassConfig(name="flex", steps=((0, "STANDARD"), (30, "GLACIER")), hot_days=7, chain_days=15)
CHAIN = ChainName("plan", 1)
THIRTY = 30
IN_DIRECTORY = 500
IN_SEGMENT = 16
IN_PART, IN_OUTLINE = 4096, 4096
MTIME = 1_900_000_000_000_000_000
CHUNK = 16 * 1024
LIST_CHUNK = 16 * 1024
SEALED = 128 * 1024
"""Of every segment: half of what its chunks have."""


def config(base: Path) -> Config:
    return Config(
        repository=RepositoryConfig(url=(base / "store").as_uri(), region="us-east-1"),
        state=StateConfig(directory=base / "state"), classes=(*BUILT_IN, CLASS),
        sources=(SourceConfig(name="plan", path=base / "spool", storage_class="flex"),),
    )  # fmt: skip


class AllFrozen(PassingStore):
    """A directory whose data packs are in GLACIER."""

    @property
    def knows_classes(self) -> bool:
        return True

    def list_objects(self, prefix: str, *, after: str = "") -> Iterator[ObjectFacts]:
        return map(_frozen, super().list_objects(prefix, after=after))

    def head(self, key: str) -> ObjectFacts:
        return _frozen(super().head(key))


def _frozen(facts: ObjectFacts) -> ObjectFacts:
    return replace(facts, storage_class="GLACIER") if facts.key.startswith("packs/flex/") else facts


def opened(base: Path) -> tuple[Engine, CountingStore]:
    store = CountingStore(AllFrozen(DirectoryStore(base / "store")))
    return open_engine(config(base), store=store, environment={"GATEWAY_PASSPHRASE": PASSWORD}), store


# --- building ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Packs:
    """The data packs that are declared, and which of their segments the list needs."""

    chain: Chain
    root: Path
    count: int
    segments: int
    drawn: random.Random = field(default_factory=lambda: random.Random(1))
    bases: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)

    def generation(self, pack: int) -> int:
        return (pack - 1) * THIRTY // self.count

    def of_generation(self, generation: int) -> range:
        first = -(-generation * self.count // THIRTY)
        return range(first + 1, -(-(generation + 1) * self.count // THIRTY) + 1)

    def write(self, pack: int) -> Declaration:
        """An index object, and a sparse file in the place of the pack."""
        generation, bases, segments = self.generation(pack), set[int](), []
        tag, count = bytes(16), self.segments * IN_SEGMENT
        for number in range(self.segments):
            runs: tuple[Run, ...] = ()
            if generation % 8 and number % 4 == 3:
                base = self.drawn.choice(self.of_generation(generation - 1))
                at = self.drawn.randrange(self.segments)
                self.bases[pack, number] = base, at
                bases.add(base)
                runs = (Run(base, at * IN_SEGMENT, IN_SEGMENT),)
            segments.append(Segment(
                number, Encoding.DELTA if runs else Encoding.ZSTD, HEADER.size + number * SEALED, SEALED,
                number * IN_SEGMENT, IN_SEGMENT, IN_SEGMENT * CHUNK, tag, runs,
            ))  # fmt: skip
        pack_id = self.drawn.randbytes(16)
        name = Name(kind=Kind.DATA, repository=self.chain.repository.id, chain=CHAIN, number=pack, pack_id=pack_id)
        sealer = Sealer(name, self.chain.keys, self.drawn.randbytes(32))
        plain = directory.encode(self.chain.pack_head(bytes(16)), segments, os.urandom(16 * count), [CHUNK] * count)
        end = HEADER.size + self.segments * SEALED
        frame, trailer = sealer.finish(end, self.segments, Frame.DIRECTORY, plain)
        data = directory.index_object(sealer.header, frame, trailer)
        (self.root / names.index(CHAIN, pack, pack_id)).write_bytes(data)
        size = end + len(frame) + len(trailer)
        with (self.root / names.pack("flex", CHAIN, pack, pack_id)).open("wb") as file:
            file.truncate(size)
        return Declaration(
            number=pack, pack_id=pack_id, storage="flex", size=size, crc64=0, index_digest=sha256(data).digest(),
            index_size=len(data), chunks=count, raw=count * CHUNK, bases=tuple(ranges(list(bases))),
        )  # fmt: skip

    def needed(self, direct: np.ndarray) -> np.ndarray:
        """The segments that these stand on too."""
        wanted = direct.copy()
        for (pack, number), (base, at) in sorted(self.bases.items(), reverse=True):  # a base's pack is an earlier one
            wanted[base, at] |= wanted[pack, number]
        return wanted


@dataclass(slots=True)
class ListPacks:
    """Stores parts and outlines in real packs, cut evenly."""

    chain: Chain
    root: Path
    number: int
    pack_bytes: int = WriterSizes().pack_bytes
    codec: SegmentCodec = field(default_factory=SegmentCodec)
    finished: list[FinishedPack] = field(default_factory=list)
    writer: PackWriter | None = None

    def store(self, data: bytes) -> list[Run]:
        if self.writer is None or self.writer.projected > self.pack_bytes:
            self.end()
            self._begin()
        assert self.writer is not None
        first = self.writer.chunks
        for start in range(0, len(data), SEALED * 2):
            raw = data[start : start + SEALED * 2]
            cut = [raw[at : at + LIST_CHUNK] for at in range(0, len(raw), LIST_CHUNK)]
            ids = b"".join(chunk_id(self.chain.keys.list_id, each) for each in cut)
            encoding, packed = self.codec.compress(raw)
            self.writer.add(self.codec, raw, encoding, packed, ids, [len(each) for each in cut], None)
        return [Run(self.writer.name.number, first, self.writer.chunks - first)]

    def _begin(self) -> None:
        name = Name(kind=Kind.LIST, repository=self.chain.repository.id, chain=CHAIN, number=self.number,
                    pack_id=os.urandom(16))  # fmt: skip
        path = self.root / names.pack(names.META, CHAIN, name.number, name.pack_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.writer = PackWriter(name, self.chain.keys, os.urandom(32), self.chain.pack_head(bytes(16)), path)
        self.number += 1

    def end(self) -> None:
        if self.writer is None:
            return
        done = self.writer.finish()
        (self.root / names.index(CHAIN, done.name.number, done.name.pack_id)).write_bytes(done.index)
        self.finished.append(done)
        self.writer = None

    def declarations(self) -> tuple[Declaration, ...]:
        return tuple(
            Declaration(
                number=each.name.number, pack_id=each.name.pack_id, storage=names.META, size=each.size,
                crc64=each.crc64, index_digest=each.index_digest, index_size=len(each.index), chunks=each.chunks,
                raw=each.raw, bases=each.bases,
            )
            for each in self.finished
        )  # fmt: skip


def records(path: bytes, size: int, mtime: int, digest: bytes, flat: tuple[int, ...]) -> bytes:
    """What `filelist.encode_entry` makes of a file, in a fifth of the time."""
    head = wire.encode((
        filelist.ENTRY, path, 1, size, mtime, 0o644, 1000, 1000, "backup", "backup", (), b"", b"", 0, digest, size, 0,
        3, 0, 1,
    ))  # fmt: skip
    return filelist.frame(head) + filelist.frame(wire.encode((filelist.RUNS, flat)))


def directory_records(path: bytes) -> bytes:
    return filelist.encode_entry(FileEntry(path=path, kind=2, mode=0o755, mtime_ns=MTIME), (), ())


def folder(number: int) -> bytes:
    return b"data/%05d" % (number // IN_DIRECTORY)


def file_path(number: int) -> bytes:
    return b"%s/file-%08d.dat" % (folder(number), number)


def places_of(packs: Packs, files: int) -> tuple[np.ndarray, np.ndarray]:
    """Pack and chunk of every file, and of every fifth one's second run."""
    drawn, chunks = np.random.default_rng(2), packs.segments * IN_SEGMENT
    generation = drawn.integers(0, THIRTY, files)
    found = np.empty(files, np.int64)
    for each in range(THIRTY):
        of_it, here = packs.of_generation(each), np.flatnonzero(generation == each)
        first, room = (of_it[0] - 1) * chunks, len(of_it) * chunks
        found[here] = first + np.arange(len(here)) * room // max(1, len(here))  # as the generation wrote it
    found[::10] = drawn.integers(0, packs.count * chunks, len(found[::10]))
    return found, drawn.integers(0, packs.count * chunks, len(found[::5]))


def write_list(packs: Packs, out: ListPacks, files: int) -> tuple[ListRoot, np.ndarray]:
    """The list of so many files, and the segments that they lie in."""
    one, two = places_of(packs, files)
    chunks = packs.segments * IN_SEGMENT
    direct = np.zeros((packs.count + 1, packs.segments), np.bool_)
    for each in (one, two):
        direct[1 + each // chunks, each % chunks // IN_SEGMENT] = True
    lines: list[OutlineLine] = []
    for start in range(0, files, IN_PART):
        stop = min(start + IN_PART, files)
        digests, parts, size = os.urandom(32 * (stop - start)), [], 0
        for number, place in enumerate(one[start:stop].tolist(), start):
            if number % IN_DIRECTORY == 0:
                parts += [directory_records(path) for path in ([b"data"] if not number else []) + [folder(number)]]
            flat: tuple[int, ...] = (1 + place // chunks, place % chunks, 1)
            if number % 5 == 0:
                other = int(two[number // 5])
                flat += (1 + other // chunks, other % chunks, 1)
            at = 32 * (number - start)
            of_it, digest = 4000 * len(flat), digests[at : at + 32]
            parts.append(records(file_path(number), of_it, MTIME + number, digest, flat))
            size += of_it
            if number == start:
                entry = FileEntry(
                    path=file_path(number), kind=1, size=of_it, data_bytes=of_it, mode=0o644, mtime_ns=MTIME + number,
                    uid=1000, gid=1000, user="backup", group="backup", digest=digest, evidence=3,
                )  # fmt: skip
                runs = [Run(*flat[i : i + 3]) for i in range(0, len(flat), 3)]
                assert parts[-1] == filelist.encode_entry(entry, (), runs)
        part = b"".join(parts)
        first = (b"data" if not start else folder(start)) if start % IN_DIRECTORY == 0 else file_path(start)
        lines.append(OutlineLine(
            first=first, entries=len(parts), files=stop - start, bytes=size, size=len(part),
            runs=tuple(flatten(out.store(part))),
        ))  # fmt: skip
    depth = 0
    while len(lines) > 1:
        depth += 1
        groups = [lines[at : at + IN_OUTLINE] for at in range(0, len(lines), IN_OUTLINE)]
        lines = []
        for group in groups:
            data = b"".join(filelist.encode_line(line) for line in group)
            lines.append(OutlineLine(
                first=group[0].first, entries=sum(line.entries for line in group),
                files=sum(line.files for line in group), bytes=sum(line.bytes for line in group), size=len(data),
                runs=tuple(flatten(out.store(data))),
            ))  # fmt: skip
    out.end()
    return ListRoot(depth, lines[0].size, lines[0].runs), direct


def build(base: Path, count: int, files: int) -> None:
    segments = max(4, -(-files * 6 // (5 * count * IN_SEGMENT)))
    engine, store = opened(base)
    engine.init()
    engine.close()
    clock, root = SystemClock(), base / "store"
    repository = open_repository(store, clock, Secrets(passphrase=PASSWORD))
    chain, _ = create_chain(
        repository, CHAIN, StorageClassFacts.of(CLASS), writer=bytes(16), reason="first", before=None,
        data_chunks=(CHUNK // 4, CHUNK, 4 * CHUNK), list_chunks=(LIST_CHUNK // 4, LIST_CHUNK, 4 * LIST_CHUNK),
        local=base / "build",
    )  # fmt: skip
    for prefix in (names.index_prefix(CHAIN), names.pack_prefix("flex", CHAIN)):
        (root / prefix).mkdir(parents=True)
    packs = Packs(chain, root, count, segments)
    begun = time.monotonic()
    declared = [packs.write(number) for number in range(1, count + 1)]
    print(f"{count:,} packs declared in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    out = ListPacks(chain, root, count + 1)
    files_root, direct = write_list(packs, out, files)
    print(f"list of {files:,} files after {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    for generation in range(THIRTY):
        last = generation == THIRTY - 1
        of_it = packs.of_generation(generation)
        given = tuple(declared[number - 1] for number in of_it) + (out.declarations() if last else ())
        commit = Commit(
            generation=bytes([generation + 1] * 16), source="plan", number=generation + 1, source_kind="files",
            begun=1, cut=1, evidence=3, operator="bench", complete=1, reasons=(), packs=given,
            needs=tuple(ranges([each.number for each in (declared + list(out.declarations()) if last else given)])),
            files=files_root if last else ListRoot(0, 0, ()), requires=(), left_out_count=0, left_out=(),
            statistics=Statistics(entries=files if last else 0, files=files if last else 0),
        )  # fmt: skip
        chain.append(log.COMMIT, commit, bytes(16))
    engine, _ = opened(base)
    engine.rebuild()
    engine.close()
    needed = packs.needed(direct)
    (base / "built.json").write_text(json.dumps({
        "packs": count, "files": files, "segments": segments, "needed_packs": int(needed.any(axis=1).sum()),
        "needed_bytes": int(needed.sum()) * SEALED,
        "index_bytes": sum(each.index_size for each in declared),
        "list_bytes": sum(each.size for each in out.declarations()),
    }))  # fmt: skip
    print(f"built in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)


# --- measuring --------------------------------------------------------------------------------------------------------


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(base: Path, paths: list[bytes]) -> None:
    """In a process of its own: prints what it took as JSON."""
    engine, store = opened(base)
    engine.version()
    begun = time.monotonic()
    report = engine.restore(Reference.parse("plan@30"), base / "nowhere", paths=paths, dry_run=True)
    wall, plan = time.monotonic() - begun, report.plan
    used, meter = resource.getrusage(resource.RUSAGE_SELF), store.meter()
    engine.close()
    print(json.dumps({
        "wall": wall, "cpu": used.ru_utime + used.ru_stime, "rss": peak(), "packs": plan.packs,
        "cold_packs": plan.cold_packs, "requests": plan.requests, "fetch_bytes": plan.fetch_bytes, "files": plan.files,
        "waves": plan.waves,
        "by_kind": {str(kind): each.requests for kind, each in sorted(meter.by_operation.items())},
        "received": meter.total.received,
    }))  # fmt: skip


def in_fresh_process(base: Path, paths: list[str]) -> dict[str, object]:
    words = [sys.executable, "-m", "tests.perf.plan", "--measure", str(base)]
    for path in paths:
        words += ["--path", path]
    found: dict[str, object] = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)
    return found


def row(what: str, found: dict[str, object]) -> str:
    kinds = ", ".join(f"{n:,} {kind.upper()}" for kind, n in found["by_kind"].items())  # type: ignore[attr-defined]
    return (
        f"| {what} | {found['wall']:.1f} | {found['cpu']:.1f} | {int(found['rss']) / MIB:.0f} | {kinds} "  # type: ignore[call-overload]
        f"| {int(found['received']) / 1e6:,.1f} | {found['packs']:,} | {int(found['fetch_bytes']) / 1e9:,.1f} |"  # type: ignore[call-overload]
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.perf.plan", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--packs", type=int, default=50_000)
    parser.add_argument("--files", type=int, default=10_000_000)
    parser.add_argument("--path", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    base = options.directory.absolute()
    if options.measure:
        measure(base, [os.fsencode(path) for path in options.path])
        return 0
    if not (base / "built.json").exists():
        base.mkdir(parents=True, exist_ok=True)
        build(base, options.packs, options.files)
    built = json.loads((base / "built.json").read_text())
    print(f"{built['files']:,} files, {built['packs']:,} packs of {built['segments']} segments; list "
          f"{built['list_bytes'] / 1e6:,.0f} MB, indexes {built['index_bytes'] / 1e6:,.0f} MB\n")  # fmt: skip
    print("| restore | wall s | CPU s | RSS MiB | requests | MB read | packs planned | GB planned |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    whole = in_fresh_process(base, [])
    print(row("everything", whole), flush=True)
    for what, path in (("one file", os.fsdecode(file_path(built["files"] // 2))),
                       ("one directory", os.fsdecode(folder(built["files"] // 3))),
                       ("a glob that takes 1 of 100", "data/**/*77.dat")):  # fmt: skip
        print(row(what, in_fresh_process(base, [path])), flush=True)
    problems = []
    if whole["packs"] != built["needed_packs"] or whole["files"] != built["files"]:
        problems.append(f"{whole['packs']} packs are planned, {built['needed_packs']} are needed")
    if int(whole["fetch_bytes"]) < built["needed_bytes"]:  # type: ignore[call-overload]
        problems.append("fewer bytes are planned than the segments have")
    if float(whole["wall"]) > TARGET_SECONDS:  # type: ignore[arg-type]
        problems.append(f"longer than {TARGET_SECONDS} s")
    if int(whole["rss"]) > TARGET_BYTES:  # type: ignore[call-overload]
        problems.append(f"more than {TARGET_BYTES // MIB} MiB")
    for problem in problems:
        print(f"beyond the bound: {problem}")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
