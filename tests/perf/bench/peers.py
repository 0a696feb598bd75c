"""Peers that keep generations, each as it comes and with the settings that suit small changes best: where one can
choose them, chunks of 16 KiB on average and zstd 1.

A program is a table of command lines, over a repository in a directory beside the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.perf.bench import contenders, measure
from tests.perf.bench.contenders import PASSWORD, Gateway, _version, program
from tests.perf.bench.data import DataSet
from tests.perf.bench.measure import BenchError, Command

DEFAULTS, FINE, YARDSTICK = "defaults", "fine", "yardstick"


@dataclass(slots=True)
class Program:
    """A peer. In its words ``{store}``, ``{source}``, ``{to}``, ``{home}`` and ``{number}`` (of the generation, from 1)
    are places. `inner`: a restore puts the tree where the source was, below the target. `style`: `DEFAULTS`, or `FINE`
    when its chunks have 16 KiB, or `YARDSTICK` when it does not do the same job.
    """

    name: str
    version: str
    style: str
    prepared: Sequence[Sequence[str | Path]]
    ingested: Sequence[str | Path]
    restored: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    inner: bool = False
    _home: Path = field(init=False)
    _source: Path = field(init=False)
    _number: int = field(init=False, default=0)

    def begin(self, home: Path, data: DataSet) -> None:
        self._home, self._source, self._number = home, data.path, 0
        (home / "store").mkdir(parents=True)
        for words in self.prepared:
            measure.prepare(self._command(words, home))

    def _command(self, words: Sequence[str | Path], to: Path) -> Command:
        places = {
            "store": self._home / "store", "home": self._home, "source": self._source, "to": to,
            "number": self._number,
        }  # fmt: skip
        environment = {key: value.format(**places) for key, value in self.environment.items()}
        return Command(
            words=[str(word).format(**places) for word in words], environment=environment, directory=self._home
        )

    def ingest(self) -> Command:
        self._number += 1
        return self._command(self.ingested, self._home)

    def restore(self, to: Path) -> Command:
        to.mkdir()
        return self._command(self.restored, to)

    def tree(self, to: Path) -> Path:
        """Where in a restored directory the source's content is."""
        return to / self._source.relative_to("/") if self.inner else to

    def stored(self) -> int:
        return measure.stored_bytes(self._home / "store")


class Ours(Gateway):
    """The gateway, the newest generation restored."""

    style, note = "", ""

    def restore(self, to: Path) -> Command:
        return self._command("restore", "bench", "--to", to)

    def tree(self, to: Path) -> Path:
        return to

    def taken(self) -> dict[str, int]:
        """What the newest generation's statistics say."""
        import json

        shown = json.loads(measure.prepare(self._command("show", "bench", "--json")))
        found = shown["statistics"]
        return {name: int(found[name] or 0) for name in ("new_chunks", "bases_missing", "bases_bounded")}


class Yardstick(contenders.Yardstick):
    """The yardstick, the newest generation restored."""

    style, note = YARDSTICK, "it compresses and encrypts everything each time, and does nothing else"

    def tree(self, to: Path) -> Path:
        return to


Contender = Ours | Program | Yardstick


def restic(path: Path) -> list[Program]:
    def made(name: str, style: str, *options: str, note: str = "") -> Program:
        words: list[str | Path] = [path, "--quiet", "--repo", "{store}", *options]
        return Program(
            name=name, version=_version([path, "version"]), style=style, prepared=[[*words, "init"]],
            ingested=[*words, "backup", "{source}"],
            restored=[*words, "restore", "latest:{source}", "--target", "{to}"], note=note,
            environment={"RESTIC_PASSWORD": PASSWORD, "RESTIC_CACHE_DIR": "{home}/cache"},
        )  # fmt: skip

    return [
        made("restic", DEFAULTS),
        made("restic, fastest", DEFAULTS, "--compression", "fastest", "--pack-size", "64",
             note="its chunk size cannot be chosen"),
    ]  # fmt: skip


def rustic(path: Path) -> list[Program]:
    def made(name: str, style: str, *options: str) -> Program:
        words: list[str | Path] = [path, "--no-progress", "--log-level", "warn"]
        return Program(
            name=name, version=_version([path, "--version"]), style=style, prepared=[[*words, "init", *options]],
            ingested=[*words, "backup", "{source}"], restored=[*words, "restore", "latest:{source}", "{to}"],
            environment={
                "RUSTIC_REPOSITORY": "{store}", "RUSTIC_PASSWORD": PASSWORD, "XDG_CACHE_HOME": "{home}/cache",
                "XDG_CONFIG_HOME": "{home}/config",
            },
        )  # fmt: skip

    sizes = ("--set-chunk-size", "16KiB", "--set-chunk-min-size", "4KiB", "--set-chunk-max-size", "64KiB")
    return [made("rustic", DEFAULTS), made("rustic, 16 KiB, zstd 1", FINE, *sizes, "--set-compression", "1")]


def kopia(path: Path) -> list[Program]:
    def made(name: str, style: str, *options: str, note: str = "", compression: str = "none") -> Program:
        words: list[str | Path] = [path, "--config-file={home}/kopia.config", "--log-dir={home}/log"]
        return Program(
            name=name, version=_version([path, "--version"]), style=style,
            prepared=[
                [*words, "repository", "create", "filesystem", "--path={store}", "--cache-directory={home}/cache",
                 *options],
                [*words, "policy", "set", "--global", f"--compression={compression}"],
            ],
            ingested=[*words, "snapshot", "create", "{source}", "--no-progress"],
            restored=[*words, "snapshot", "restore", "{source}", "{to}", "--snapshot-time=latest"],
            environment={"KOPIA_PASSWORD": PASSWORD, "KOPIA_CHECK_FOR_UPDATES": "false"}, note=note,
        )  # fmt: skip

    return [
        made("kopia", DEFAULTS, note="its default is not to compress"),
        made("kopia, 128 KiB, zstd-fastest", DEFAULTS, "--object-splitter=DYNAMIC-128K-BUZHASH",
             compression="zstd-fastest", note="its smallest chunks"),
    ]  # fmt: skip


def borg1(path: Path) -> list[Program]:
    def made(name: str, style: str, *options: str) -> Program:
        return Program(
            name=name, version=_version([path, "--version"]), style=style,
            prepared=[[path, "init", "--encryption=repokey-blake2", "{store}"]],
            ingested=[path, "create", *options, "{store}::g{number}", "{source}"],
            restored=["/bin/sh", "-euc", 'cd "$1"; exec "$2" extract "$3"', "sh", "{to}", path,
                      "{store}::g{number}"],
            environment=_BORG, inner=True,
        )  # fmt: skip

    fine = ("--chunker-params=buzhash,12,18,14,4095", "--compression=zstd,1")
    return [made("borg 1.4", DEFAULTS), made("borg 1.4, 16 KiB, zstd 1", FINE, *fine)]


def borg2(path: Path) -> list[Program]:
    def made(name: str, style: str, *options: str) -> Program:
        return Program(
            name=name, version=_version([path, "--version"]), style=style,
            prepared=[[path, "--repo={store}/borg", "repo-create", "--encryption=aes256-ocb", "--id-hash=blake3"]],
            ingested=[path, "--repo={store}/borg", "create", *options, "g{number}", "{source}"],
            restored=["/bin/sh", "-euc", 'cd "$1"; exec "$2" "--repo=$3" extract "$4"', "sh", "{to}", path,
                      "{store}/borg", "g{number}"],
            environment=_BORG, inner=True,
        )  # fmt: skip

    fine = ("--chunker-params=buzhash,12,18,14,4095", "--compression=zstd,1")
    return [made("borg 2", DEFAULTS), made("borg 2, 16 KiB, zstd 1", FINE, *fine)]


_BORG = {
    "BORG_PASSPHRASE": PASSWORD, "BORG_BASE_DIR": "{home}/borg", "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
    "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
}  # fmt: skip


def duplicity(path: Path) -> list[Program]:
    words: list[str | Path] = [path, "--archive-dir={home}/archive", "--tempdir={home}", "--no-print-statistics"]
    return [
        Program(
            name="duplicity", version=_version([path, "--version"]), style=DEFAULTS, prepared=[],
            ingested=[*words, "{source}", "file://{store}"],
            restored=[*words, "restore", "--force", "file://{store}", "{to}"],
            environment={"PASSPHRASE": PASSWORD, "GNUPGHOME": "{home}"}, note="gzip and GnuPG",
        )
    ]  # fmt: skip


def bup(path: Path) -> list[Program]:
    save = 'bup index "$1"; exec bup save -q -n bench --strip "$1"'
    return [
        Program(
            name="bup", version=_version([path, "--version"]), style=DEFAULTS, prepared=[[path, "init"]],
            ingested=["/bin/sh", "-euc", save, "sh", "{source}"],
            restored=[path, "restore", "-q", "-C", "{to}", "bench/latest/."],
            environment={"BUP_DIR": "{store}"}, note="it does not encrypt",
        )
    ]  # fmt: skip


def yardstick(path: Path) -> list[Yardstick]:
    """`path` is zstd's."""
    return [Yardstick()]


def rclone(path: Path) -> list[Program]:
    remote = ":crypt,remote='{store}',password={secret}:g{number}"
    obscured = measure.prepare(Command(words=[path, "obscure", PASSWORD])).strip()
    where = remote.replace("{secret}", obscured)
    words: list[str | Path] = [path, "--config=/dev/null", "--quiet", "copy"]
    return [
        Program(
            name="rclone crypt", version=_version([path, "version"]), style=YARDSTICK, prepared=[],
            ingested=[*words, "{source}", where], restored=[*words, where, "{to}"],
            note="it encrypts, and copies everything each time",
        )
    ]  # fmt: skip


KINDS = {
    "restic": restic, "rustic": rustic, "kopia": kopia, "borg1": borg1, "borg2": borg2, "duplicity": duplicity,
    "bup": bup, "rclone": rclone, "zstd": yardstick,
}  # fmt: skip


def find(places: Sequence[Path], wanted: Sequence[str]) -> tuple[list[Contender], list[str]]:
    """The gateway and the peers that are here, and of the others why not. `wanted`: kinds of peers; empty: all."""
    found: list[Contender] = [Ours()]
    absent = []
    for kind, make in KINDS.items():
        if wanted and kind not in wanted:
            continue
        path = program(kind, places)
        if path is None:
            absent.append(f"{kind} (no program of that name)")
            continue
        try:
            found += make(path)
        except (BenchError, OSError) as error:
            absent.append(f"{kind} ({str(error).splitlines()[0]})")
    return found, absent
