"""Who is measured: this gateway, peers that do the same job, and a yardstick that does much less.

Each is used as it comes: no option but those that say where. A repository is a directory beside the data.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.perf.bench import measure
from tests.perf.bench.data import DataSet
from tests.perf.bench.measure import BenchError, Command

PASSWORD = "ten green bottles hanging on the wall"
OURS = "gateway"
YARDSTICK = "zstd -1 -T0, openssl"


class Contender(Protocol):
    """`begin` is called before every ingest, with an empty directory; only what the two commands do is measured."""

    name: str
    version: str

    def begin(self, home: Path, data: DataSet) -> None: ...

    def ingest(self) -> Command: ...

    def restore(self, to: Path) -> Command: ...

    def stored(self) -> int: ...


class Gateway:
    """This product as its command, with a configuration that names nothing but places."""

    name = OURS

    def __init__(self) -> None:
        self.version = measure.prepare(Command(words=[*_gateway(), "version"])).split(",")[0].removeprefix("gateway ")

    def begin(self, home: Path, data: DataSet) -> None:
        self._home = home
        passphrase = home / "passphrase"
        passphrase.write_text(PASSWORD + "\n")
        passphrase.chmod(0o600)
        (home / "gateway.toml").write_text(
            f'[repository]\nurl = "file://{home}/store"\n[state]\ndir = "{home}/state"\n'
            f'[keys]\npassphrase_file = "{passphrase}"\n'
            f'[[source]]\nname = "bench"\npath = "{data.path}"\nsettle = "1 s"\n'
        )
        measure.prepare(self._command("init"))

    def _command(self, *words: str | Path) -> Command:
        return Command(words=[*_gateway(), "--config", self._home / "gateway.toml", *words], directory=self._home)

    def ingest(self) -> Command:
        return self._command("ingest", "bench", "--seal-now")

    def restore(self, to: Path) -> Command:
        return self._command("restore", "bench@1", "--to", to)

    def stored(self) -> int:
        return measure.stored_bytes(self._home / "store")


def _gateway() -> list[str | Path]:
    return [Path(sys.executable).parent / "gateway"]


class Restic:
    def __init__(self, program: Path) -> None:
        self._program = program
        self.name = "restic"
        self.version = _version([program, "version"])

    def begin(self, home: Path, data: DataSet) -> None:
        self._home, self._source = home, data.path
        measure.prepare(self._command("init"))

    def _command(self, *words: str | Path) -> Command:
        return Command(
            words=[self._program, "--quiet", "--repo", self._home / "store", *words],
            environment={"RESTIC_PASSWORD": PASSWORD, "RESTIC_CACHE_DIR": str(self._home / "cache")},
            directory=self._home,
        )

    def ingest(self) -> Command:
        return self._command("backup", self._source)

    def restore(self, to: Path) -> Command:
        return self._command("restore", f"latest:{self._source}", "--target", to)

    def stored(self) -> int:
        return measure.stored_bytes(self._home / "store")


class Rustic:
    def __init__(self, program: Path) -> None:
        self._program = program
        self.name = "rustic"
        self.version = _version([program, "--version"])

    def begin(self, home: Path, data: DataSet) -> None:
        self._home, self._source = home, data.path
        measure.prepare(self._command("init"))

    def _command(self, *words: str | Path) -> Command:
        return Command(
            words=[self._program, "--no-progress", "--log-level", "warn", *words],
            environment={
                "RUSTIC_REPOSITORY": str(self._home / "store"),
                "RUSTIC_PASSWORD": PASSWORD,
                "XDG_CACHE_HOME": str(self._home / "cache"),
                "XDG_CONFIG_HOME": str(self._home / "config"),
            },
            directory=self._home,
        )

    def ingest(self) -> Command:
        return self._command("backup", self._source)

    def restore(self, to: Path) -> Command:
        return self._command("restore", f"latest:{self._source}", to)

    def stored(self) -> int:
        return measure.stored_bytes(self._home / "store")


class Yardstick:
    """What compression and encryption alone take: no deduplication, no integrity, no names, nothing is synced.

    A file a generation, everything in it.
    """

    name = YARDSTICK

    def __init__(self) -> None:
        self.version = f"{_version(['zstd', '--version'])}, {_version(['openssl', 'version'])}"

    def begin(self, home: Path, data: DataSet) -> None:
        self._store, self._data, self._number = home / "store", data, 0
        self._store.mkdir()

    def _shell(self, script: str, *words: str | Path) -> Command:
        return Command(words=["/bin/sh", "-euc", script, "sh", *words], environment={"PASSWORD": PASSWORD})

    def _sealed(self) -> Path:
        return self._store / str(self._number)

    def ingest(self) -> Command:
        self._number += 1
        seal = 'zstd -q -1 -T0 -c | openssl enc -aes-256-ctr -pbkdf2 -pass env:PASSWORD > "$2"'
        if self._data.single is not None:
            return self._shell(f'exec < "$1"; {seal}', self._data.single, self._sealed())
        return self._shell(f'tar -C "$1" -cf - . | {seal}', self._data.path, self._sealed())

    def restore(self, to: Path) -> Command:
        unseal = 'openssl enc -d -aes-256-ctr -pbkdf2 -pass env:PASSWORD < "$1" | zstd -q -d -c'
        if self._data.single is not None:
            return self._shell(f'mkdir "$2"; {unseal} > "$2/$3"', self._sealed(), to, self._data.single.name)
        return self._shell(f'mkdir "$2"; {unseal} | tar -C "$2" -xf -', self._sealed(), to)

    def stored(self) -> int:
        return measure.stored_bytes(self._store)


# --- finding them ----------------------------------------------------------------------------------------------------


def _version(words: Sequence[str | Path]) -> str:
    said = measure.prepare(Command(words=words))
    found = re.search(r"\d+(?:\.\d+)+[a-z0-9.-]*", said)
    return found[0] if found else said.strip()


def program(name: str, places: Sequence[Path]) -> Path | None:
    """The newest program of that name in `places` and PATH."""
    found: list[tuple[tuple[int, ...], Path]] = []
    for place in [*places, *map(Path, os.environ.get("PATH", os.defpath).split(os.pathsep))]:
        path = place / name
        if not path.is_file() or not os.access(path, os.X_OK):
            continue
        for word in ("--version", "version"):
            try:
                version = _version([path, word])
            except (BenchError, OSError):
                continue
            found.append((tuple(int(number) for number in re.findall(r"\d+", version)[:4]), path))
            break
    return max(found, default=(None, None))[1]


def find(places: Sequence[Path]) -> tuple[list[Contender], list[str]]:
    """Contenders that are here, and the names of those that are not."""
    contenders: list[Contender] = [Gateway()]
    absent = []
    restic, rustic = program("restic", places), program("rustic", places)
    if restic is not None:
        contenders.append(Restic(restic))
    else:
        absent.append("restic")
    if rustic is not None:
        contenders.append(Rustic(rustic))
    else:
        absent.append("rustic")
    if shutil.which("zstd") and shutil.which("openssl"):
        contenders.append(Yardstick())
    else:
        absent.append(YARDSTICK)
    return contenders, absent
