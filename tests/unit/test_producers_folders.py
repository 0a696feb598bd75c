"""Plain files and job folders: what completes them, what holds them back."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.values import SourceConfig, SourceKind
from gateway.model.entry import Evidence, LeftOut
from gateway.spool.looks import Looked, Verdict
from gateway.spool.producers.base import (
    FoundJob,
    JobState,
    JudgedJob,
    Member,
    Producer,
    Reason,
    Role,
    Seal,
    SealedFile,
    Span,
    SpoolView,
)
from gateway.spool.producers.choice import inspect, producers_of
from gateway.spool.producers.files import FilesProducer
from gateway.spool.producers.folders import FoldersProducer
from gateway.spool.producers.view import DirectoryView
from gateway.spool.structure import Read, State, Structure


def later(path: Path, than: Path) -> None:
    """Touch until ctime, which moves in ticks, is really later."""
    while path.stat().st_ctime_ns <= than.stat().st_ctime_ns:
        path.touch()


def judge(producer: Producer, spool: Path, name: bytes = b"night", seal: Seal | None = None) -> JudgedJob:
    view = DirectoryView(spool)
    [found] = [each for each in producer.find(view) if each.name == name]
    return producer.judge(view, found, seal)


def looked(view: SpoolView, path: bytes) -> Looked:
    [found] = [each for each in view.walk(b"") if isinstance(each, Looked) and each.entry.path == path]
    return found


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    root = tmp_path / "spool"
    (root / "night/deep").mkdir(parents=True)
    (root / "night/a").write_bytes(b"a" * 100)
    (root / "night/deep/b").write_bytes(b"b" * 100)
    return root


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(SourceKind))
def test_a_file_by_itself_whatever_kind_of_source(kind: SourceKind, spool: Path) -> None:
    (spool / "plain").write_bytes(b"nothing known")
    with tarfile.open(spool / "whole.tar", "w") as archive:
        archive.add(spool / "plain", "plain")
    whole = (spool / "whole.tar").read_bytes()
    producers = producers_of(SourceConfig(name="src", path=spool, kind=kind))

    def state(name: bytes, data: bytes) -> State:
        return inspect(producers, b"night/" + name, len(data), lambda at, count: data[at : at + count]).state

    assert state(b"plain", b"nothing known") is State.UNKNOWN
    assert state(b"whole.tar", whole) is State.COMPLETE
    assert state(b"torn.tar", whole[:700]) is State.TORN
    assert state(b"zeros.gz", bytes(5000)) is State.TORN


def test_who_knows_a_file_is_asked_before_who_knows_only_formats() -> None:
    class Own(FilesProducer):
        def inspect(self, path: bytes, size: int, read: Read) -> Structure:
            known = path.endswith(b".own") and read(0, size)[-3:] == b"end"
            return Structure(state=State.COMPLETE if known else State.UNKNOWN, kind="own")

    def ask(path: bytes, data: bytes) -> Structure:
        return inspect([Own(), FilesProducer()], path, len(data), lambda at, count: data[at : at + count])

    assert ask(b"a.own", b"all of it, the end") == Structure(state=State.COMPLETE, kind="own")
    assert ask(b"a.gz", bytes(5000)).state is State.TORN
    assert ask(b"a", b"x").state is State.UNKNOWN


def test_plain_files_are_no_jobs(spool: Path) -> None:
    producer = FilesProducer()
    assert list(producer.find(DirectoryView(spool))) == []
    with pytest.raises(ValueError, match="no jobs"):
        producer.judge(DirectoryView(spool), FoundJob(producer="files", name=b"night"))


# --- folders ------------------------------------------------------------------------------------------------------


def test_every_directory_below_the_source_is_a_job(spool: Path) -> None:
    (spool / "morning").mkdir()
    (spool / "file").touch()
    (spool / "link").symlink_to("night")
    (spool / ".gateway").mkdir()
    found = list(FoldersProducer().find(DirectoryView(spool)))
    assert [each.name for each in found] == [b"morning", b"night"]
    assert found[1].holds(b"night/deep/b")
    assert not found[1].holds(b"nights/b")


def test_without_marker_or_seal_it_stays_open(spool: Path) -> None:
    judged = judge(FoldersProducer(), spool)
    assert judged.state is JobState.OPEN
    assert judged.reasons == (Reason(path=b"night", text="There is no seal yet."),)
    assert judge(FoldersProducer("*.done"), spool).reasons[0].text == "There is no marker '*.done' yet."
    (spool / "empty").mkdir()
    assert judge(FoldersProducer("*.done"), spool, b"empty").state is JobState.OPEN


@pytest.mark.parametrize(("pattern", "name"), [("*.done", "night/x.done"), ("{folder}.ok", "night.ok")])
def test_a_marker_completes_it(spool: Path, pattern: str, name: str) -> None:
    producer = FoldersProducer(pattern)
    (spool / "night.okay").touch()
    (spool / "night/deep/y.done").touch()
    assert judge(producer, spool).state is JobState.OPEN
    (spool / name).touch()
    later(spool / name, spool / "night/deep/y.done")
    judged = judge(producer, spool)
    assert judged.state is JobState.COMPLETE, judged.reasons
    assert judged.evidence is Evidence.MARKER
    [marker] = [member for member in judged.members if member.role is Role.MARKER]
    assert marker.path == name.encode()
    assert judged.found.holds(marker.path)


def test_a_marker_older_than_the_files_is_none(spool: Path) -> None:
    """Yesterday's, in a folder that is used again; or one that was copied before the files."""
    producer = FoldersProducer("DONE")
    (spool / "night/DONE").touch()
    later(spool / "night/DONE", spool / "night/deep/b")
    assert judge(producer, spool).state is JobState.COMPLETE
    (spool / "night/a").write_bytes(b"new")
    later(spool / "night/a", spool / "night/DONE")
    os.utime(spool / "night/a", (0, 0))
    judged = judge(producer, spool)
    assert judged.state is JobState.OPEN
    assert [reason.path for reason in judged.reasons] == [b"night/a"]
    later(spool / "night/DONE", spool / "night/a")
    assert judge(producer, spool).state is JobState.COMPLETE


def test_a_torn_or_open_member_speaks_against_the_marker(spool: Path) -> None:
    producer = FoldersProducer("DONE")
    packed = gzip.compress(os.urandom(5000))
    (spool / "night/dump.gz").write_bytes(packed[:4000])
    (spool / "night/DONE").touch()
    later(spool / "night/DONE", spool / "night/dump.gz")
    judged = judge(producer, spool)
    assert judged.state is JobState.INCOMPLETE
    assert judged.reasons[0].path == b"night/dump.gz"
    assert judge(FoldersProducer("DONE", look_inside=False), spool).state is JobState.COMPLETE
    (spool / "night/dump.gz").write_bytes(packed)
    later(spool / "night/DONE", spool / "night/dump.gz")
    with (spool / "night/a").open("r+b"):
        assert judge(producer, spool).state is JobState.OPEN
    assert judge(producer, spool).state is JobState.COMPLETE


def test_a_growing_member_is_waited_for(spool: Path) -> None:
    (spool / "night/DONE").touch()
    later(spool / "night/DONE", spool / "night/deep/b")
    view = DirectoryView(spool, lambda entry: Verdict.GROWING if entry.path == b"night/deep/b" else Verdict.SETTLED)
    producer = FoldersProducer("DONE")
    [found] = producer.find(view)
    judged = producer.judge(view, found)
    assert judged.state is JobState.OPEN
    assert judged.reasons[0].path == b"night/deep/b"


@pytest.mark.parametrize("case", ["match", "digest", "size", "missing", "more", "more allowed"])
def test_a_seal(spool: Path, case: str) -> None:
    files = [SealedFile(path=f"night/{name}".encode(), size=100, sha256=b"") for name in ("a", "deep/b")]
    files[0] = SealedFile(path=b"night/a", size=100, sha256=hashlib.sha256(b"a" * 100).digest())
    if case == "digest":
        files[0] = SealedFile(path=b"night/a", size=100, sha256=bytes(32))
    elif case == "size":
        files[1] = SealedFile(path=b"night/deep/b", size=99)
    elif case == "missing":
        files.append(SealedFile(path=b"night/c", size=0))
    elif case.startswith("more"):
        del files[1]
    seal = Seal(job=b"night", files=tuple(files), only_these=case != "more allowed")
    judged = judge(FoldersProducer("*.done"), spool, seal=seal)
    if case in ("match", "more allowed"):
        assert judged.evidence is Evidence.SEAL
    else:
        assert judged.state is JobState.INCOMPLETE
        assert len(judged.reasons) == 1


def test_a_folders_name_is_no_pattern(spool: Path) -> None:
    (spool / "[n]*").mkdir()
    (spool / "[n]*/x").touch()
    (spool / "night.ok").touch()
    producer = FoldersProducer("{folder}.ok")
    assert judge(producer, spool, b"[n]*").state is JobState.OPEN
    (spool / "[n]*.ok").touch()
    assert judge(producer, spool, b"[n]*").state is JobState.COMPLETE


def test_a_marker_is_a_name() -> None:
    with pytest.raises(ValueError, match="a name"):
        FoldersProducer("deep/DONE")


# --- the view -----------------------------------------------------------------------------------------------------


def test_the_view_follows_no_link_and_shows_nothing_reserved(spool: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/file").touch()
    (spool / "out").symlink_to(tmp_path / "secret")
    (spool / ".gateway").mkdir()
    (spool / "night/.gateway").mkdir()
    view = DirectoryView(spool)
    paths = [each.entry.path for each in view.walk(b"") if isinstance(each, Looked)]
    assert paths == [b"night", b"night/.gateway", b"night/a", b"night/deep", b"night/deep/b", b"out"]
    assert list(view.list(b"gone")) == []
    [refused] = view.list(b"out")
    assert isinstance(refused, LeftOut)
    assert next(iter(view.walk(b"night/deep"))) == looked(view, b"night/deep/b")


# --- what the interface can carry ---------------------------------------------------------------------------------


class Volumes:
    """A producer as unlike a folder as they come: jobs are appended to volumes in two directories, volumes are
    recycled in place, and a job needs the one before it. Its catalogue is a line a job: name, volume, offset, length.
    """

    name = "volumes"

    def find(self, view: SpoolView) -> Iterator[FoundJob]:
        for name, parts in self._catalogue(view).items():
            yield FoundJob(producer=self.name, name=name, paths=tuple(sorted({path for path, _ in parts})))

    def inspect(self, path: bytes, size: int, read: Read) -> Structure:
        return Structure(state=State.UNKNOWN)

    def judge(self, view: SpoolView, found: FoundJob, seal: Seal | None = None) -> JudgedJob:
        parts = self._catalogue(view)[found.name]
        members = tuple(
            Member(
                path=path,
                identity=looked(view, path).entry.identity,
                mutable=True,
                extents=tuple(extent for other, extent in parts if other == path),
            )
            for path in found.paths
        )
        number = int(found.name)
        return JudgedJob(
            found=found,
            state=JobState.COMPLETE,
            evidence=Evidence.MARKER,
            members=members,
            provides=(Span(series="jobs", start=number, end=number + 1),),
            requires=(Span(series="jobs", start=0, end=number),),
        )

    def restore_kit(self, judged: JudgedJob) -> str:
        return ""

    @staticmethod
    def _catalogue(view: SpoolView) -> dict[bytes, list[tuple[bytes, tuple[int, int]]]]:
        jobs: dict[bytes, list[tuple[bytes, tuple[int, int]]]] = {}
        with view.open(b"catalogue") as file:
            for line in file.read(0, file.size).splitlines():
                name, path, offset, length = line.split()
                jobs.setdefault(name, []).append((path, (int(offset), int(length))))
        return jobs


def test_jobs_on_recycled_volumes_in_several_folders(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "volume").write_bytes(b"label" + b"x" * 95)
    (tmp_path / "catalogue").write_bytes(b"0 one/volume 5 95\n1 one/volume 100 7\n1 two/volume 5 95\n")
    producer: Producer = Volumes()
    view = DirectoryView(tmp_path)
    first, second = producer.find(view)
    assert second.holds(b"two/volume")
    assert first.holds(b"one/volume")
    assert second.holds(b"one/volume")
    before = producer.judge(view, first)
    inode = (tmp_path / "one/volume").stat().st_ino
    with (tmp_path / "one/volume").open("r+b") as volume:
        volume.truncate(5)
    after = producer.judge(view, second)
    assert [(member.path, member.extents) for member in after.members] == [
        (b"one/volume", ((100, 7),)),
        (b"two/volume", ((5, 95),)),
    ]
    old, new = before.members[0], after.members[0]
    assert old.path == new.path
    assert old.identity.inode == new.identity.inode == inode
    assert old != new, "the same name and inode, and another version"
    assert after.requires == before.provides


def test_judgements_that_contradict_themselves_cannot_be_made() -> None:
    found = FoundJob(producer="x", name=b"y")
    with pytest.raises(ValueError):
        JudgedJob(found=found, state=JobState.COMPLETE)
    with pytest.raises(ValueError):
        JudgedJob(found=found, state=JobState.OPEN)
    with pytest.raises(ValueError):
        JudgedJob(found=found, state=JobState.OPEN, evidence=Evidence.QUIET, reasons=(Reason(path=b"", text="x"),))
    with pytest.raises(ValueError):
        Span(series="x", start=2, end=1)
