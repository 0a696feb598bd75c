"""What the independent writer wrote, the independent reader restores; and what is broken is never restored wrongly."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import stat
from pathlib import Path

import pytest

from scripts import rescue
from tests.golden import spec_writer
from tests.golden.spec_writer import PASSPHRASE, SOURCE, Writer, Written, entry, framed


class Repository:
    """A written repository and the program on it."""

    def __init__(self, root: Path, written: Written, secrets: Path) -> None:
        self.root, self.written, self.secrets = root, written, secrets
        secrets.mkdir(exist_ok=True)
        (secrets / "sheet").write_text(written.sheet)
        (secrets / "passphrase").write_text(PASSPHRASE + "\n")
        (secrets / "wrong").write_text("wrong\n")

    def run(self, *args: str | Path, secret: str = "sheet") -> int:
        option = "--recovery-sheet" if secret == "sheet" else "--passphrase-file"
        return rescue.main([str(self.root), option, str(self.secrets / secret), *map(str, args)])


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Read only."""
    base = tmp_path_factory.mktemp("written")
    return Repository(base / "repository", spec_writer.write(base / "repository"), base / "secrets")


@pytest.fixture
def copy(pristine: Repository, tmp_path: Path) -> Repository:
    """To be broken."""
    shutil.copytree(pristine.root, tmp_path / "repository")
    return Repository(tmp_path / "repository", pristine.written, tmp_path / "secrets")


def tree(root: Path) -> dict[str, object]:
    """What lies in a restored directory, in the terms of `Written.trees`."""
    found: dict[str, object] = {}
    for path in root.rglob("*"):
        mode = path.lstat().st_mode
        name = str(path.relative_to(root))
        if stat.S_ISLNK(mode):
            found[name] = os.readlink(path)
        elif stat.S_ISDIR(mode):
            found[name] = "dir"
        elif stat.S_ISFIFO(mode):
            found[name] = "fifo"
        else:
            found[name] = path.read_bytes()
    return found


def test_the_writer_always_writes_the_same(pristine: Repository, tmp_path: Path) -> None:
    spec_writer.write(tmp_path / "again")
    for path in pristine.root.rglob("*"):
        if path.is_file():
            assert (tmp_path / "again" / path.relative_to(pristine.root)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("secret", ["sheet", "passphrase"])
@pytest.mark.parametrize(
    ("wanted", "number", "code"),
    [(f"{SOURCE}@1", 1, 0), (SOURCE, 2, 3), (f"{SOURCE}@latest", 2, 3), (f"{SOURCE}@3", 3, 3)],
)
def test_restores_every_generation(
    pristine: Repository, tmp_path: Path, wanted: str, number: int, code: int, secret: str
) -> None:
    more = ["--incomplete"] if number == 3 else []
    assert pristine.run("restore", wanted, "--to", tmp_path / "out", *more, secret=secret) == code
    assert tree(tmp_path / "out") == pristine.written.trees[number]


def test_restores_what_is_not_content(pristine: Repository, tmp_path: Path) -> None:
    out = tmp_path / "out"
    identity = f"g{pristine.written.generations[1].hex()}"
    assert pristine.run("restore", f"{SOURCE}@{identity[:9]}", "--to", out) == 0
    assert stat.S_IMODE((out / "big").stat().st_mode) == 0o750
    assert stat.S_IMODE((out / "big/text").stat().st_mode) == 0o600
    assert stat.S_IMODE((out / "empty-dir").stat().st_mode) == 0o555
    assert stat.S_IMODE((out / "fifo").stat().st_mode) == 0o640
    assert (out / "big/sparse").stat().st_mtime_ns == -1
    for name in ("big", "big/text", "symlink", "empty-dir", "fifo"):
        assert (out / name).lstat().st_mtime_ns == 1_600_000_000_123_456_789
    assert (out / "link-2").samefile(out / "big/random.bin")
    assert os.getxattr(out / "big/random.bin", "user.note") == b"\x00\xff"
    holes = (out / "hollow").stat()
    assert holes.st_size == 5000
    assert holes.st_blocks == 0


def test_list(pristine: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    assert pristine.run("list", "--json") == 0
    first, second, third = json.loads(capsys.readouterr().out)
    assert (first["number"], first["held"], first["incomplete"], first["left_out"]) == (1, True, [], 2)
    assert (second["number"], second["held"], second["incomplete"], second["files"]) == (2, False, [], 3)
    assert (third["number"], third["checkpoint"], third["incomplete"][0]) == (3, True, "a checkpoint")
    assert pristine.run("list") == 0
    assert "files@1 g" in capsys.readouterr().out


def test_check_finds_nothing_and_counts_what_it_does_not_know(
    pristine: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pristine.run("check") == 0
    said = capsys.readouterr().err
    assert "0 problems" in said
    assert "log: 1 entries of unknown kinds" in said
    assert "1 records of unknown kinds" in said


def test_exit_codes(pristine: Repository, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert pristine.run("list", secret="wrong") == rescue.WRONG_KEY
    assert pristine.run("restore", f"{SOURCE}@3", "--to", out) == rescue.USAGE  # a checkpoint, not asked for
    assert pristine.run("restore", f"{SOURCE}@9", "--to", out) == rescue.USAGE
    assert pristine.run("restore", "other", "--to", out) == rescue.USAGE
    assert pristine.run("restore", f"{SOURCE}@x", "--to", out) == rescue.USAGE
    assert not out.exists()
    empty = Repository(tmp_path / "empty", pristine.written, tmp_path / "secrets")
    assert empty.run("list") == rescue.NO_REPOSITORY


def test_a_newer_repository_is_refused(copy: Repository) -> None:
    path = copy.root / "repository.json"
    for old, new in ((b'"format":1', b'"format":2'), (b'"needs_features":[]', b'"needs_features":["x"]')):
        good = path.read_bytes()
        path.write_bytes(good.replace(old, new))
        assert copy.run("list") == rescue.NEWER
        path.write_bytes(good)


def test_a_marked_pack_makes_generations_incomplete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = spec_writer.write(tmp_path / "repository", bad_pack=True)
    marked = Repository(tmp_path / "repository", written, tmp_path / "secrets")
    assert marked.run("list", "--json") == 0
    for row in json.loads(capsys.readouterr().out):
        assert "pack 1 is marked as damaged" in row["incomplete"]
    assert marked.run("check") == rescue.DAMAGE
    assert marked.run("restore", f"{SOURCE}@1", "--to", tmp_path / "out") == rescue.USAGE
    assert marked.run("restore", f"{SOURCE}@1", "--to", tmp_path / "out", "--incomplete") == rescue.PARTIAL
    assert tree(tmp_path / "out") == written.trees[1]


# --- damage -----------------------------------------------------------------------------------------------------------


def objects() -> list[str]:
    """Kinds of objects, by how their names begin and end."""
    return [
        "repository.json",
        "slots/",
        "/header",
        "/wraps/",
        "keys/",
        "/log/",
        "/index/",
        "packs/meta",
        "packs/i",
        "packs/h",
    ]


def delivered_is_right(out: Path, right: dict[str, object]) -> bool:
    """Every file under its own name is the right one, whatever is missing."""
    return not out.exists() or all(name in right and right[name] == what for name, what in tree(out).items())


@pytest.mark.parametrize("kind", objects())
def test_flipped_bits_are_found_and_never_restored(copy: Repository, tmp_path: Path, kind: str) -> None:
    draw = random.Random(kind)
    names = sorted(str(p.relative_to(copy.root)) for p in copy.root.rglob("*") if p.is_file())
    for name in [n for n in names if kind in n]:
        path = copy.root / name
        good = path.read_bytes()
        for at in {0, len(good) - 1, *(draw.randrange(len(good)) for _ in range(3))}:
            path.write_bytes(good[:at] + bytes([good[at] ^ 1 << draw.randrange(8)]) + good[at + 1 :])
            code = copy.run("check")
            assert code in (rescue.DAMAGE, rescue.WRONG_KEY, rescue.NEWER), (name, at)
            assert code == rescue.DAMAGE or kind in (
                "slots/",
                "repository.json",
                "/header",
                "/log/",
                "/wraps/",
                "keys/",
            )
            for number in (1, 2):
                out = tmp_path / "out"
                code = copy.run("restore", f"{SOURCE}@{number}", "--to", out, "--incomplete")
                assert delivered_is_right(out, copy.written.trees[number]), (name, at)
                if out.exists() and len(tree(out)) < len(copy.written.trees[number]):
                    assert code in (rescue.DAMAGE, rescue.NEWER), (name, at)
                shutil.rmtree(out, ignore_errors=True)
        path.write_bytes(good)


@pytest.mark.parametrize("kind", objects())
def test_missing_and_short_objects_are_found(copy: Repository, kind: str) -> None:
    for path in sorted(p for p in copy.root.rglob("*") if p.is_file() and kind in str(p.relative_to(copy.root))):
        good = path.read_bytes()
        path.unlink()
        last = str(path).endswith("/log/00000008")  # limits.md section 2: nobody remembers the newest entry
        expected = {"slots/": None, "/log/": 0 if last else 13}.get(kind, 13)
        if expected is not None:
            assert copy.run("check") == expected
        path.write_bytes(good[: len(good) // 2])
        assert copy.run("check") in (rescue.DAMAGE, rescue.WRONG_KEY)
        path.write_bytes(good)


def test_one_copy_of_a_wrap_is_enough(copy: Repository, tmp_path: Path) -> None:
    next((copy.root / "chains/alpha/000001/wraps").iterdir()).write_bytes(b"{}\n")
    assert copy.run("restore", f"{SOURCE}@1", "--to", tmp_path / "out") == rescue.DAMAGE
    assert tree(tmp_path / "out") == copy.written.trees[1]


def test_one_copy_of_a_header_is_enough(copy: Repository, tmp_path: Path) -> None:
    first, second = copy.root / "chains/alpha/000001/header", copy.root / "keys/alpha-000001-header"
    good = first.read_bytes()
    assert second.read_bytes() == good
    for at, path in enumerate((first, second)):
        for bad in (b"", good[:-1] + b"x", None):
            path.write_bytes(bad) if bad is not None else path.unlink()
            out = tmp_path / f"out-{at}-{bad and len(bad)}"
            assert copy.run("restore", f"{SOURCE}@1", "--to", out) == rescue.DAMAGE
            assert tree(out) == copy.written.trees[1]
            path.write_bytes(good)
    first.write_bytes(good[:-1] + b"x")
    second.write_bytes(b"x" + good[1:])
    assert copy.run("list") == rescue.DAMAGE


def test_packs_of_a_lost_entry_are_taken_for_reading(
    copy: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = copy.root / "chains/alpha/000001/log"
    (log / "00000001").unlink()  # declared packs 1 and 2, which generation 2 needs
    for number in (1, 2):
        assert copy.run("restore", f"{SOURCE}@{number}", "--to", tmp_path / f"{number}") == rescue.DAMAGE
        assert tree(tmp_path / f"{number}") == copy.written.trees[number]
    assert copy.run("check") == rescue.DAMAGE
    assert "though the entry that declares it is lost" in capsys.readouterr().err
    # Two objects of that number: nobody knows which one it was.
    pack = copy.root / copy.written.packs[1]
    shutil.copy(pack, pack.with_name("00000001-" + "0" * 32))
    assert copy.run("restore", f"{SOURCE}@2", "--to", tmp_path / "none") == rescue.USAGE


@pytest.mark.parametrize("broken", [False, True])
def test_the_end_of_a_chain(tmp_path: Path, broken: bool, capsys: pytest.CaptureFixture[str]) -> None:
    w = Writer(tmp_path / "repository")
    w.pack(1, "meta", [(0, [b"x"], [])])
    w.generation("commit", b"A" * 16, 1, [1], [0, 0, []], [])
    data, _ = w.container(
        5, 0, bytes(16), "head", [(3, spec_writer.pack([[], 1, w.before, spec_writer.TIME, w.writer]))]
    )
    w.put(f"{w.folder}/end", data[:-1] + b"x" if broken else data)
    repository = Repository(tmp_path / "repository", w.written, tmp_path / "secrets")
    assert repository.run("list", "--json") == (rescue.DAMAGE if broken else 0)
    assert len(json.loads(capsys.readouterr().out)) == broken  # an end that does not open is damage: the log is read
    for wrap in [*(tmp_path / "repository/keys").iterdir(), *(tmp_path / "repository" / w.folder / "wraps").iterdir()]:
        wrap.unlink()
    assert repository.run("list") == rescue.DAMAGE  # wraps go last
    for where in ("packs", f"{w.folder}/log", f"{w.folder}/index"):
        shutil.rmtree(tmp_path / "repository" / where)
    capsys.readouterr()
    assert repository.run("list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_exchanged_objects_are_found(copy: Repository) -> None:
    for pattern in ("packs/instant/alpha/000001/*", "chains/alpha/000001/log/*", "chains/alpha/000001/index/*"):
        one, two = sorted(copy.root.glob(pattern))[:2]
        a, b = one.read_bytes(), two.read_bytes()
        one.write_bytes(b)
        two.write_bytes(a)
        assert copy.run("check") == rescue.DAMAGE
        one.write_bytes(a)
        two.write_bytes(b)


def test_an_index_object_stands_in_for_a_lost_directory(copy: Repository, tmp_path: Path) -> None:
    pack = copy.root / copy.written.packs[1]
    pack.write_bytes(pack.read_bytes()[:-40])
    assert copy.run("restore", f"{SOURCE}@1", "--to", tmp_path / "out") == 0
    assert tree(tmp_path / "out") == copy.written.trees[1]


# --- hostile lists ----------------------------------------------------------------------------------------------------


def small(root: Path, records: list[list], data: bytes = b"data") -> Repository:
    """A repository of one generation with any records; pack 1 has `data` as its one segment of one chunk."""
    w = Writer(root / "repository")
    w.pack(1, "hot", [(0, [data], [])])
    body = framed(records)
    chunks = [body[i : i + 1000] for i in range(0, len(body), 1000)]
    w.pack(2, "meta", [(1, chunks, [])])
    gen = w.seed.draw(16)
    w.generation("commit", gen, 1, [1, 2], [0, len(body), [2, 0, len(chunks)]], [])
    return Repository(root / "repository", w.written, root / "secrets")


RUN = [3, [1, 0, 1]]


def test_nothing_is_written_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    away = str(outside).encode()
    repository = small(tmp_path, [
        entry("../outside/a", 1, data=b"data", runs=1), RUN,
        entry(f"{outside}/b", 1, data=b"data", runs=1), RUN,
        entry("d", 3, target=away), entry("d/c", 1, data=b"data", runs=1), RUN,
        entry("e", 3, target=away + b"/secret"), entry("f", 1, link=b"d/secret"), entry("g", 1, link=b"e"),
        entry("h", 1, link=b"../outside/secret"), entry("i", 1, data=b"data", runs=1), RUN,
    ])  # fmt: skip
    assert repository.run("restore", SOURCE, "--to", tmp_path / "out") == rescue.DAMAGE
    assert {p.name for p in outside.iterdir()} == {"secret"}
    assert (outside / "secret").stat().st_nlink == 1
    assert tree(tmp_path / "out") == {"d": str(outside), "e": f"{outside}/secret", "i": b"data"}


@pytest.mark.parametrize(
    "bad",
    [
        [entry("b", 1, data=b"date", runs=1), RUN],  # a wrong digest
        [entry("b", 1, data=b"data", data_bytes=5, size=5, runs=1), RUN],  # more than there is
        [entry("b", 1, data=b"data", skip=4, runs=1), RUN],
        [entry("b", 1, data=b"data", runs=1), [3, [1, 0, 2]]],
        [entry("b", 1, data=b"data", runs=1), [3, [1, 1 << 31, 1 << 31]]],
        [entry("b", 1, data=b"data", runs=1), [3, [2, 0, 1]]],  # a pack of lists
        [entry("b", 1, data=b"data", runs=1), [3, [3, 0, 1]]],  # a pack nobody declared
        [entry("b", 1, data=b"data", holes=1, size=9, runs=1), [2, [4, 4]], RUN],
    ],
)
def test_a_wrong_file_is_not_delivered(tmp_path: Path, bad: list, capsys: pytest.CaptureFixture[str]) -> None:
    repository = small(
        tmp_path, [entry("a", 1, data=b"data", runs=1), RUN, *bad, entry("c", 1, data=b"data", runs=1), RUN]
    )
    assert repository.run("restore", SOURCE, "--to", tmp_path / "out") == rescue.DAMAGE
    assert tree(tmp_path / "out") == {"a": b"data", "c": b"data"}
    assert "b: " in capsys.readouterr().err or len(bad) == 3
    assert repository.run("check") == rescue.DAMAGE


def test_a_file_that_is_right_is_delivered_though_its_runs_are_short(tmp_path: Path) -> None:
    repository = small(tmp_path, [entry("b", 1, data=b"data", runs=2), RUN, entry("c", 2)])
    assert repository.run("restore", SOURCE, "--to", tmp_path / "out") == rescue.DAMAGE
    assert tree(tmp_path / "out") == {"b": b"data", "c": "dir"}


# --- bounds of segments -----------------------------------------------------------------------------------------------


def deltas(root: Path, segments: list[tuple[int, list[bytes], list[int]]], data: bytes) -> Repository:
    w = Writer(root / "repository")
    w.pack(1, "hot", segments)
    n = len(w.chunks[1])
    records = [entry("a", 1, data=data, runs=1), [3, [1, n - 1, 1]]]
    body = framed(records)
    w.pack(2, "meta", [(0, [body], [])])
    w.generation("commit", w.seed.draw(16), 1, [1, 2], [0, len(body), [2, 0, 1]], records)
    return Repository(root / "repository", w.written, root / "secrets")


@pytest.mark.parametrize(("depth", "code"), [(8, 0), (9, rescue.DAMAGE)])
def test_depth(tmp_path: Path, depth: int, code: int) -> None:
    chunks = [b"%d" % i + b"text " * 50 for i in range(depth + 1)]
    segments = [(1, [chunks[0]], []), *((2, [chunks[i]], [1, i - 1, 1]) for i in range(1, depth + 1))]
    assert deltas(tmp_path, segments, chunks[-1]).run("check") == code


@pytest.mark.parametrize(("bases", "code"), [(64, 0), (65, rescue.DAMAGE)])
def test_base_runs(tmp_path: Path, bases: int, code: int) -> None:
    segments = [(0, [b"some text", b"more text"], []), (2, [b"some text and more"], [1, 0, 1] * bases)]
    assert deltas(tmp_path, segments, b"some text and more").run("check") == code


def test_bases_may_begin_like_a_trained_dictionary(tmp_path: Path) -> None:
    base = bytes.fromhex("37a430ec") + b"some text"
    repository = deltas(tmp_path, [(0, [base], []), (2, [b"some text, more"], [1, 0, 1])], b"some text, more")
    assert repository.run("check") == 0


@pytest.mark.parametrize(("size", "code"), [(1 << 20, 0), ((1 << 20) + 1, rescue.DAMAGE)])
def test_chunk_size(tmp_path: Path, size: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec_writer, "crc64", rescue.crc64)  # the slow one is compared elsewhere
    data = hashlib.shake_128(b"").digest(size)
    assert deltas(tmp_path, [(1, [data], [])], data).run("check") == code


# --- folding ----------------------------------------------------------------------------------------------------------


def folded(root: Path, *entries: tuple[str, list]) -> rescue.Repository:
    """The log of `write`, with more entries behind."""
    w = Writer(root)
    w.pack(1, "meta", [(0, [b"x"], [])])
    w.generation("commit", b"A" * 16, 1, [1], [0, 0, []], [])
    for kind, payload in entries:
        if kind in ("commit", "checkpoint"):
            w.generation(kind, payload[0], payload[1], [1], [0, 0, []], [])
        else:
            w.entry(kind, payload)
    return rescue.Repository(rescue.Store(root), None, w.written.sheet, rescue.Report())


EXPIRE = ("expire", [[b"A" * 16], "who", "rule"])
HOLD, UNHOLD = ("hold", [b"H" * 16, b"A" * 16, "who", "why"]), ("unhold", [b"H" * 16, "who", "why"])


def condemn(root: Path) -> tuple[str, list]:
    w = Writer(root)
    w.pack(1, "meta", [(0, [b"x"], [])])
    return "condemn", [[1, 1], [bytes.fromhex(w.written.packs[1][-32:])], "why"]


@pytest.mark.parametrize(
    ("entries", "expired", "held"),
    [
        ([], False, False),
        ([EXPIRE], True, False),
        ([EXPIRE, HOLD], False, True),
        ([EXPIRE, HOLD, UNHOLD], False, False),
        ([HOLD, UNHOLD, EXPIRE], True, False),
        ([EXPIRE, "condemn", HOLD], True, True),
    ],
)
def test_expire_and_hold(tmp_path: Path, entries: list, expired: bool, held: bool) -> None:
    entries = [condemn(tmp_path / "other") if e == "condemn" else e for e in entries]
    (generation,) = folded(tmp_path / "r", *entries).generations()
    assert (generation.expired, bool(generation.holds)) == (expired, held)


@pytest.mark.parametrize(
    ("entries", "numbers"),
    [
        ([("commit", [b"A" * 16, 7])], [1]),  # an id is committed once
        ([("checkpoint", [b"A" * 16, 7])], [1]),
        ([("checkpoint", [b"B" * 16, 2]), ("checkpoint", [b"B" * 16, 3])], [1, 3]),
        ([("checkpoint", [b"B" * 16, 2]), ("commit", [b"B" * 16, 2])], [1, 2]),
        ([("checkpoint", [b"B" * 16, 2]), ("commit", [b"C" * 16, 3])], [1, 3]),
        ([("close", ["why"]), ("commit", [b"C" * 16, 3])], [1]),
    ],
)
def test_commits_and_checkpoints(tmp_path: Path, entries: list, numbers: list) -> None:
    assert [g.number for g in folded(tmp_path / "r", *entries).generations()] == numbers


def test_a_commit_on_condemned_packs_is_damage(tmp_path: Path) -> None:
    repository = folded(tmp_path / "r", condemn(tmp_path / "other"), ("commit", [b"B" * 16, 2]))
    assert "condemned" in repository.report.damage[0]
