"""Makes golden repositories with the product's writer: `python -m tests.golden.make NAME ...`.

A golden that is there is never made again (README.md says why): remove nothing, add a new name to `GOLDENS`. The same
code, machine and user give the same bytes, but nothing depends on that.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256, shake_256
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from gateway.clock import milliseconds
from gateway.format import canonical, container, log, names, wire
from gateway.model.ids import ChainName, in_ranges, ranges
from gateway.repository.repository import Repository, put_checked
from tests.golden import described, spec_writer
from tests.golden.product import PASSPHRASE, SMALL, Product

ROOT = Path(__file__).parent / "v1"
TIME_NS = 1_700_000_000_123_456_789


def noise(seed: str, size: int) -> bytes:
    return shake_256(seed.encode()).digest(size)


def prose(seed: str, lines: int) -> bytes:
    return b"".join(b"%s %06d says that nothing of this is noise\n" % (seed.encode(), i) for i in range(lines))


class Builder(Product):
    """A product that remembers what its source looked like at each generation."""

    def __init__(self, base: Path, seed: str, **more: Any) -> None:
        super().__init__(base, seed=seed, **more)
        self.contents: dict[str, dict[str, str]] = {}
        self.ticks = 0

    # --- the source --------------------------------------------------------------------------------------------------

    def path(self, name: str | bytes) -> bytes:
        return os.fsencode(self.spool) + b"/" + (name.encode() if isinstance(name, str) else name)

    def touch(self, name: str | bytes) -> None:
        self.ticks += 1
        when = TIME_NS + self.ticks * 1_000_000_007
        os.utime(self.path(name), ns=(when, when), follow_symlinks=False)

    def file(self, name: str | bytes, *parts: bytes | int, mode: int = 0o640) -> None:
        """Parts are data, or holes of so many bytes."""
        with open(self.path(name), "wb") as f:
            for part in parts:
                if isinstance(part, int):
                    f.seek(part, os.SEEK_CUR)
                    f.truncate()
                else:
                    f.write(part)
        os.chmod(self.path(name), mode)
        self.touch(name)

    def directory(self, name: str | bytes, mode: int = 0o755) -> None:
        os.mkdir(self.path(name))
        os.chmod(self.path(name), mode)

    def settle_directories(self) -> None:
        """Times of directories move with what happens in them."""
        for path, status in described.walk(os.fsencode(self.spool)):
            if stat.S_ISDIR(status.st_mode):
                os.utime(self.path(path), ns=(TIME_NS, TIME_NS))

    def ingest(self, **more: Any) -> str:
        """The id of the generation, or of the checkpoint of the run that was cut off."""
        self.settle_directories()
        super().ingest(**more)
        if more.get("commit") is False:  # only rebuilding shows what the log has
            with self.opened() as engine:
                engine.rebuild()
        with self.opened() as engine:
            generation = "g" + engine._reading().catalog.generations()[-1].generation.hex()
        found = described.tree(self.spool)
        self.contents[generation] = {path: one["content"] for path, one in found.items() if "content" in one}
        return generation

    # --- entries by hand ---------------------------------------------------------------------------------------------

    def chain(self, number: int = 1) -> tuple[Repository, Any]:
        with self.opened() as engine:
            context = engine._writing()
            return context.repository, context.open_chain(ChainName(self.source, number))

    def pack_id(self, number: int, chain: int = 1) -> bytes:
        declared = self.chain(chain)[1].fold.packs[number].declaration
        return bytes(declared.pack_id)

    def raw_entry(self, chain: int, features: list[str], kind: str, payload: list[Any]) -> None:
        """An entry that this version does not know how to write."""
        opened = self.chain(chain)[1]
        sequence, before = opened.head
        record = [features, kind, bytes(16), before, milliseconds(self.clock.now()), b"", payload, "of a later version"]
        name = log.entry_name(opened.keys.repository, opened.name, sequence + 1)
        data = container.seal_body(name, opened.keys, self.clock.random_bytes(32), msgspec.msgpack.encode(record))
        put_checked(self.store, names.entry(opened.name, sequence + 1), data)


@contextmanager
def longer_records() -> Iterator[None]:
    """Commits and the records in them as a later version may write them: with more fields at the end."""
    encode = wire.encode

    def commit(record: Any) -> bytes:
        if not isinstance(record, log.Commit):
            return encode(record)
        values = msgspec.msgpack.decode(encode(record))
        values[10] = [[*declaration, "later", [1, b"x"]] for declaration in values[10]]
        for at in (12, 16):
            values[at].append(7)
        return encode([*values, ["later"], -1])

    with mock.patch.object(log.wire, "encode", commit):
        yield


# --- tiny ones --------------------------------------------------------------------------------------------------------


def tiny_one(b: Builder) -> None:
    """One file."""
    b.file("file", noise("one", 700))
    b.ingest()


def tiny_tree(b: Builder) -> None:
    """Links and holes."""
    b.directory("d", 0o700)
    b.file("d/data", prose("tree", 20))
    b.file("d/sparse", b"head", 8192 - 4, noise("tail", 100), 4096)
    os.link(b.path("d/data"), b.path("other"))
    os.symlink("d/data", b.path("soft"))
    b.touch("soft")
    b.file("empty")
    b.ingest()


def tiny_delta(b: Builder) -> None:
    """Two generations, the second standing on the first."""
    content = noise("delta", 900)
    b.file("file", content)
    b.ingest()
    b.file("file", content[:300] + b"changed" + content[310:])
    b.ingest()


def tiny_checkpoint(b: Builder) -> None:
    """A checkpoint whose run never ended."""
    b.sizes = replace(SMALL, own_stream_bytes=1)
    b.file("a", noise("a", 1000))
    b.file("b", noise("b", 1000))
    b.file("c", noise("c", 1000))
    b.ingest(commit=False, checkpoints=2)


def tiny_damaged(b: Builder) -> None:
    """A pack that an entry calls damaged."""
    b.file("file", noise("damaged", 600))
    b.ingest()
    b.append(1, log.DAMAGED, log.Damaged(1, b.pack_id(1), "a disk lost it", milliseconds(b.clock.now()), 0))


# --- the wide one -----------------------------------------------------------------------------------------------------

ODD = [
    b"-rf",
    b" space ",
    b"new\nline",
    b"\xff\xfe not text",
    b"back\\slash",
    b"..x",
    "ünï \U0001f512".encode(),
    b"a" * 255,
]


def wide(b: Builder) -> None:
    """All of version 1 that a directory of a file server brings about."""
    base, text = noise("base", 30_000), prose("wide", 900)
    b.directory("big")
    b.file("big/noise", base)
    b.file("big/prose", text, mode=0o4755)
    b.file("big/sparse", 4096, base[:5000], 8192 - 5000 % 4096, prose("between", 100), 16384)
    b.file("big/hollow", 40960)
    b.file("big/empty")
    b.file("big/gone", noise("gone", 60_000))
    b.directory("odd", 0o1777)
    for i, name in enumerate(ODD):
        b.file(b"odd/" + name, prose(f"odd {i}", 3))
    b.directory("links")
    os.link(b.path("big/noise"), b.path("links/hard-1"))
    os.link(b.path("big/noise"), b.path("z-hard-2"))
    for name, target in ((b"dangling", b"../nowhere"), (b"absolute", b"/etc/passwd"), (b"bytes", b"\xff\n")):
        os.symlink(target, b.path(b"links/" + name))
        b.touch(b"links/" + name)
    b.directory("special")
    os.mkfifo(b.path("special/fifo"))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{os.open(b.path('special'), os.O_RDONLY)}/socket")
    os.mknod(b.path("special/char"), stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(b.path("special/block"), stat.S_IFBLK | 0o600, os.makedev(7, 259))
    for name in ("fifo", "socket", "char", "block"):
        os.chmod(b.path(f"special/{name}"), 0o620)
        b.touch(f"special/{name}")
    b.directory("attributes")
    b.file("attributes/file", b"attributes", mode=0o400)
    for where in ("attributes", "attributes/file"):
        os.setxattr(b.path(where), "user.empty", b"")
        os.setxattr(b.path(where), "user.note", b"\x00\xff" + noise(where, 100))
    b.directory("empty", 0o2750)
    b.file("old", b"before 1970")
    os.utime(b.path("old"), ns=(-1_000_000_001, -1_000_000_001))
    b.sizes = replace(SMALL, runs_per_record=2)
    b.ingest(commit=False, checkpoints=1)
    first = b.ingest(checkpoints=1)

    b.file("big/noise-2", base[:12_000] + b"one change" + base[12_010:])
    b.file("big/prose", text[:20_000] + b"another line\n" + text[20_000:])
    os.unlink(b.path("big/gone"))
    b.file("growing.log", prose("log", 50))

    def grow() -> None:
        with open(b.path("growing.log"), "ab") as f:
            f.write(b"and on\n")

    b.ingest(passing=grow)
    os.unlink(b.path("z-hard-2"))
    os.unlink(b.path("growing.log"))
    b.file("big/noise-3", base[:12_000] + b"one change" + base[12_010:20_000] + b"a third" + base[20_000:])
    b.file("big/noise-2", base[:6_000] + b"two changes" + base[6_000:12_000] + b"one change" + base[12_010:])
    third = b.ingest()

    packs = b.chain()[1].fold
    by_id = {state.commit.generation: state.commit for state in packs.generations.values()}
    first_id, third_id = bytes.fromhex(first[1:]), bytes.fromhex(third[1:])
    kept = {n for g, commit in by_id.items() if g != first_id for n in in_ranges(commit.needs)}
    gone = [n for n in in_ranges(by_id[first_id].needs) if n not in kept]
    assert gone
    now = milliseconds(b.clock.now())
    b.append(1, log.HOLD, log.Hold(noise("hold 1", 16), third_id, "golden", "to be let go"))
    b.append(1, log.HOLD, log.Hold(noise("hold 2", 16), third_id, "golden", "to stay"))
    b.append(1, log.UNHOLD, log.Unhold(noise("hold 1", 16), "golden", "let go"))
    b.append(1, log.DAMAGED, log.Damaged(1, b.pack_id(1), "it did not open", now, 0))
    b.append(1, log.DAMAGED, log.Damaged(1, b.pack_id(1), "it opens", now, 1))
    b.append(1, log.DAMAGED, log.Damaged(1, bytes(16), "another pack of that number", now, 0))
    b.append(1, log.EXPIRE, log.Expire((first_id,), "golden", "keep 2"))
    condemned = tuple(b.pack_id(n) for n in gone)
    b.append(1, log.CONDEMN, log.Condemn(tuple(ranges(gone)), condemned, "only expired generations need them"))
    b.append(1, log.HOLD, log.Hold(noise("hold 3", 16), first_id, "golden", "too late"))

    b.storage = type(b.storage).HOT  # closes the chain and opens the next
    b.file("in-chain-2", prose("two", 100))
    with longer_records():
        b.ingest()
    b.file("in-chain-2-too", noise("unfinished", 10_000))
    b.ingest(commit=False, checkpoints=1)
    b.raw_entry(2, [], "celebrate", [[b"anything"], -1, "at all"])


# --- what newer versions write ----------------------------------------------------------------------------------------


def features(b: Builder) -> None:
    """An entry that cannot be understood without a feature nobody knows."""
    b.file("file", noise("features", 600))
    b.ingest()
    b.raw_entry(1, ["time-travel"], "commit", [])


def future(b: Builder) -> None:
    """A repository of format 2."""
    b.file("file", noise("future", 600))
    b.ingest()
    repository, _ = b.chain()
    value = json.loads(b.store.get(names.REPOSITORY))
    b.store.delete(names.REPOSITORY)
    put_checked(b.store, names.REPOSITORY, canonical.with_mac(value | {"format": 2}, repository.master))


GOLDENS: dict[str, Callable[[Builder], None]] = {
    "tiny-one": tiny_one, "tiny-tree": tiny_tree, "tiny-delta": tiny_delta, "tiny-checkpoint": tiny_checkpoint,
    "tiny-damaged": tiny_damaged, "wide": wide, "features": features, "future": future,
}  # fmt: skip
NEWER = {"features", "future"}
DAMAGED = {"tiny-damaged"}


def build(name: str, base: Path) -> tuple[Product, dict[str, Any]]:
    """The repository of that name below `base`, and what is expected of it."""
    b = Builder(base, name)
    GOLDENS[name](b)
    facts: dict[str, Any] = {
        "golden": name, "says": (GOLDENS[name].__doc__ or "").strip(), "source": b.source, "passphrase": PASSPHRASE,
        "sheet": b.sheet, "newer": name in NEWER, "damaged": name in DAMAGED, "generations": {}, "catalog": [],
    }  # fmt: skip
    if name not in NEWER:
        expect(b, facts, b.contents)
    return b, facts


def other_hand(base: Path) -> tuple[Product, dict[str, Any]]:
    """The repository that `spec_writer` writes: by another hand, from the specification alone."""
    written = spec_writer.write(base / "repository")
    p = Product(base, store=base / "repository", passphrase=spec_writer.PASSPHRASE, sheet=written.sheet)
    p.store.create_root()
    facts: dict[str, Any] = {
        "golden": "other-hand", "says": "Written by other code, from the specification alone.",
        "source": spec_writer.SOURCE, "passphrase": spec_writer.PASSPHRASE, "sheet": written.sheet, "newer": False,
        "damaged": False, "generations": {}, "catalog": [],
    }  # fmt: skip
    digest = described.blake3
    contents = {
        "g" + written.generations[number].hex(): {
            described.path_text(path.encode()): digest(data).hexdigest()
            for path, data in tree.items()
            if isinstance(data, bytes)
        }
        for number, tree in written.trees.items()
    }
    expect(p, facts, contents)
    return p, facts


def expect(p: Product, facts: dict[str, Any], contents: dict[str, dict[str, str]]) -> None:
    """Fill in generations and catalog, as a rebuild finds them."""
    with p.opened() as engine:
        engine.rebuild()
        rows = {"g" + row.generation.hex(): row for row in engine._context.catalog.generations()}  # type: ignore[union-attr]
    for generation, records in p.records().items():
        row = rows[generation]
        facts["generations"][generation] = {
            "number": row.number, "kind": str(row.kind), "state": str(row.state), "chain": str(row.chain),
            "records": records, "contents": contents[generation],
        }  # fmt: skip
    facts["catalog"] = p.rows()


def sums() -> str:
    """Lines of SHA256SUMS."""
    files = sorted(p for p in ROOT.rglob("*") if p.is_file() and p.name != "SHA256SUMS")
    return "".join(f"{sha256(p.read_bytes()).hexdigest()}  {p.relative_to(ROOT).as_posix()}\n" for p in files)


def main(wanted: list[str]) -> None:
    for name in wanted or [*GOLDENS, "other-hand"]:
        target = ROOT / name
        if target.exists():
            sys.exit(f"{target} is there: a golden never changes, make one of another name")
        with tempfile.TemporaryDirectory() as scratch:
            product, facts = other_hand(Path(scratch)) if name == "other-hand" else build(name, Path(scratch))
            target.mkdir(parents=True)
            for path in sorted(p for p in product.root.rglob("*") if p.is_file()):
                copy = target / "repository" / path.relative_to(product.root)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
            text = json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=True)
            (target / "expected.json").write_text(text + "\n")
    (ROOT / "SHA256SUMS").write_text(sums())


if __name__ == "__main__":
    main(sys.argv[1:])
