"""The configuration as frozen values. `load` makes them from TOML; tests may make them directly."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path, PurePosixPath

from gateway.config.classes import BUILT_IN, ClassConfig
from gateway.config.retention import RetentionConfig
from gateway.config.sizes import WriterSizes
from gateway.errors import UsageError

MIB = 1024 * 1024
GIB = 1024 * MIB
NAME = re.compile(r"[a-z0-9-]{1,32}")
MINIMUM_MEMORY_BYTES = 256 * MIB


class StorageClass(StrEnum):
    """The built-in classes; a configuration may have others beside them. `classes.py` says what each does."""

    INSTANT = "instant"
    HOT = "hot"
    DEEP = "deep"


class SourceKind(StrEnum):
    """What a generation holds: all complete files of the spool, or the members of one backup job."""

    FILES = "files"
    JOB = "job"


class AddressingStyle(StrEnum):
    """Where the bucket's name stands in a request: in the path or in the host name."""

    AUTO = "auto"
    PATH = "path"
    VIRTUAL = "virtual"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Location:
    """`prefix` has no slash at either end; empty is the bucket's root."""

    bucket: str
    prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryLocation:
    directory: Path


Location = S3Location | DirectoryLocation

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()=+@,-]+(?:/[A-Za-z0-9!_.*'()=+@,-]+)*")


def parse_location(url: str) -> Location:
    """What a repository's URL names. `ValueError` says what is wrong with it."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("s3", "file"):
        raise ValueError('must be "s3://bucket/prefix" or "file:///directory"')
    if scheme == "file":
        path = PurePosixPath(rest)
        if not rest.startswith("/"):
            raise ValueError('a file URL has three slashes and an absolute path: "file:///srv/store"')
        if ".." in path.parts or path == PurePosixPath("/") or any(sign in rest for sign in "%?#\0"):
            raise ValueError('the path after "file://" must be a plain directory, without "..", "%", "?" and "#"')
        return DirectoryLocation(directory=Path(rest))
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(f'"{bucket}" is not the name of a bucket: 3 to 63 of a-z, 0-9, "." and "-"')
    if prefix and (not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/"))):
        raise ValueError(f'"{prefix}" is not a plain prefix: letters, digits and "-_.=" between single slashes')
    return S3Location(bucket=bucket, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryConfig:
    url: str
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    addressing_style: AddressingStyle = AddressingStyle.AUTO

    def __post_init__(self) -> None:
        parse_location(self.url)

    @property
    def location(self) -> Location:
        return parse_location(self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateConfig:
    directory: Path = Path("/var/lib/gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysConfig:
    """At most one of the two; neither means the environment variable. `read_passphrase` follows it."""

    passphrase_file: Path | None = None
    passphrase_command: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.passphrase_file is not None and self.passphrase_command is not None:
            raise ValueError("passphrase_file and passphrase_command exclude each other")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """`max_bytes` bounds the pack cache on disk, packs that wait for their upload included."""

    max_bytes: int = 200 * GIB


def usable_cores() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """`memory_bytes` is what the whole process may hold; docs/operate/configuration.md has the formula."""

    memory_bytes: int = 512 * MIB
    workers: int = field(default_factory=usable_cores)
    uploaders: int = 2

    def __post_init__(self) -> None:
        if self.memory_bytes < MINIMUM_MEMORY_BYTES or self.workers < 1 or self.uploaders < 1:
            raise ValueError("memory must be at least 256 MiB, workers and uploaders at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseConfig:
    """What of a source may leave the spool. `keep_generations`: files of the newest ones stay; None: nothing goes.

    `high` and `low` are shares of the spool's file system: above `high` files go, the oldest first, until `low`.
    Both 1: whatever may go, goes at once.
    """

    keep_generations: int | None = None
    high: float = 1.0
    low: float = 1.0

    def __post_init__(self) -> None:
        if self.keep_generations is not None and self.keep_generations < 1:
            raise ValueError("files of the newest generation are never released")
        if not 0 < self.low <= self.high <= 1:
            raise ValueError("low and high are shares, low not above high")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """`ignore`: patterns of names that are nobody's backup; `marker`: a pattern of the name of the file that says that
    another is complete, with ``{name}`` for that other's name, or, for a job folder, of a file in it."""

    name: str
    path: Path
    kind: SourceKind = SourceKind.FILES
    storage_class: str = StorageClass.INSTANT
    settle: timedelta = timedelta(seconds=60)
    minimum_evidence: int = 1
    generation_interval: timedelta = timedelta(hours=1)
    expect_every: timedelta | None = None
    ignore: tuple[str, ...] = ()
    marker: str | None = None
    release: ReleaseConfig = ReleaseConfig()

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError("a source's name is 1 to 32 of a-z, 0-9 and -")
        if not self.path.is_absolute():
            raise ValueError("a source's path is absolute")
        if not 1 <= self.minimum_evidence <= 5 or self.settle < timedelta():
            raise ValueError("minimum_evidence is 1 to 5, settle not negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How `gateway serve` works. `socket`: None is ``control.sock`` in `state.dir`; `users`: names who may speak to it
    beside root and the engine's own user. `spool_warning`: share of a spool's file system that opens an alarm.
    `retention`: how often it expires and sweeps by itself; zero is never."""

    rescan: timedelta = timedelta(minutes=5)
    socket: Path | None = None
    users: tuple[str, ...] = ()
    spool_warning: float = 0.8
    retention: timedelta = timedelta(days=1)


class HookKind(StrEnum):
    COMMAND = "command"
    WEBHOOK = "webhook"
    SMTP = "smtp"


@dataclass(frozen=True, slots=True, kw_only=True)
class HookConfig:
    """Who is told of alarms: a program with the alarm as JSON on standard input, a URL it is posted to, or a mail."""

    name: str
    kind: HookKind
    command: tuple[str, ...] = ()
    url: str = ""
    server: str = ""
    sender: str = ""
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PricesConfig:
    """`file`: a price list of your own, in place of the one that comes with the gateway."""

    file: Path | None = None


class Via(StrEnum):
    """Which way data leave the store; REGION: to a machine in the same region."""

    INTERNET = "internet"
    DIRECT_CONNECT = "direct-connect"
    REGION = "region"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreConfig:
    """`approval_above`: what a restore may cost without being approved, in the price list's currency. `scratch`: where
    packs wait that are not written out yet; None: below `state.dir`. `link`: bytes a second that the way from the store
    carries; None: as measured.
    """

    approval_above: Decimal = Decimal(25)
    scratch: Path | None = None
    link: int | None = None
    via: Via = Via.INTERNET


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigWarning:
    """Something that works and should be looked at. `where` is ``file:line:column``."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One effective value, and where it came from: ``line 12`` or ``default``."""

    key: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    repository: RepositoryConfig
    state: StateConfig = StateConfig()
    keys: KeysConfig = KeysConfig()
    cache: CacheConfig = CacheConfig()
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    sources: tuple[SourceConfig, ...] = ()
    classes: tuple[ClassConfig, ...] = BUILT_IN
    retention: tuple[RetentionConfig, ...] = ()
    prices: PricesConfig = PricesConfig()
    restore: RestoreConfig = RestoreConfig()
    writer: WriterSizes = field(default_factory=WriterSizes)
    engine: EngineConfig = EngineConfig()
    hooks: tuple[HookConfig, ...] = ()
    file: Path | None = None
    settings: tuple[Setting, ...] = ()
    warnings: tuple[ConfigWarning, ...] = ()

    @property
    def socket(self) -> Path:
        """Where a running engine listens."""
        return self.engine.socket or self.state.directory / "control.sock"

    def class_named(self, name: str) -> ClassConfig:
        """The class of that name; `KeyError`: there is none, which no source of a loaded configuration can have."""
        return {each.name: each for each in self.classes}[name]

    def source(self, name: str) -> SourceConfig:
        """`UsageError` names the nearest source when there is none of that name."""
        for source in self.sources:
            if source.name == name:
                return source
        names = [source.name for source in self.sources]
        raise UsageError(
            f'The configuration has no source named "{name}".',
            meaning=f"Its sources are: {', '.join(names)}." if names else "It has no sources at all.",
            advice=_advice(name, names),
        )


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def _advice(name: str, names: list[str]) -> str:
    meant = nearest(name, names)
    return f'Did you mean "{meant}"?' if meant else "Add a [[source]] table for it, or use one of those names."
