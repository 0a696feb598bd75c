"""TOML -> `Config`, or every mistake of the file at once."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from datetime import timedelta
from os.path import commonpath
from pathlib import Path
from urllib.parse import urlsplit

from gateway.config import policies, values
from gateway.config.parsers import absolute as _absolute
from gateway.config.parsers import count as _count
from gateway.config.parsers import name as _name
from gateway.config.parsers import text as _text
from gateway.config.reading import Document, Problem, Table
from gateway.config.sizes import WriterSizes, contradictions
from gateway.config.units import duration_text, parse_duration, parse_share, parse_size, share_text, size_text
from gateway.config.values import (
    AddressingStyle,
    CacheConfig,
    Config,
    ConfigWarning,
    DirectoryLocation,
    EngineConfig,
    HookConfig,
    HookKind,
    KeysConfig,
    LimitsConfig,
    ReleaseConfig,
    RepositoryConfig,
    SourceConfig,
    SourceKind,
    StateConfig,
    parse_location,
)
from gateway.errors import ConfigError, UsageError

DEFAULT_FILE = Path("/etc/gateway/gateway.toml")
LIMIT_FILE_BYTES = 1024 * 1024
ARRAYS = ("source", "class", "retention", "hook")
TABLES = ("repository", "state", "keys", "cache", "limits", "prices", "restore", "advanced", "engine", *ARRAYS)

_SYNTAX_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def load(file: Path) -> Config:
    """Read a configuration file.

    `ConfigError` carries every mistake of the file; `UsageError`: it is not there or cannot be read.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(LIMIT_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"The configuration file {file} cannot be read: {error.strerror or error}.",
            meaning="Without it the gateway knows neither its repository nor its sources.",
            advice="Name another file with --config FILE, or start from config/gateway.example.toml.",
        ) from error
    if len(data) > LIMIT_FILE_BYTES:
        raise ConfigError((f"{file}:1:1: the file is larger than 1 MiB and surely not a configuration",))
    return parse(data, file)


def parse(data: bytes, file: Path = Path("gateway.toml")) -> Config:
    """Make a `Config` of a file's bytes; `file` is only the name in messages and in `Config.file`."""
    document = parse_document(data, file, tables=TABLES, arrays=ARRAYS)
    config = _config(document)
    document.raise_mistakes()
    return config


def parse_document(data: bytes, file: Path, *, tables: tuple[str, ...], arrays: tuple[str, ...]) -> Document:
    """The tables of a TOML file; `arrays` are those of them that may be there several times."""
    text = _decoded(data, file)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError((_syntax_mistake(str(error), text, file),)) from error
    except RecursionError as error:
        raise ConfigError((f"{file}:1:1: the file is nested too deeply",)) from error
    return Document(file=file, text=text, content=content, tables=tables, arrays=arrays)


def _decoded(data: bytes, file: Path) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        raise ConfigError((f"{file}:{line}:{column}: not UTF-8; save the file with that encoding",)) from error
    if text.startswith("\ufeff"):
        raise ConfigError((f"{file}:1:1: the file starts with a byte order mark; save it as UTF-8 without one",))
    return text.replace("\r\n", "\n")


def _syntax_mistake(message: str, text: str, file: Path) -> str:
    found = _SYNTAX_POSITION.search(message)
    if found is None:
        return f"{file}:1:1: {message}"
    line, column = found[1], found[2]
    if line is None:
        line, column = str(text.count("\n") + 1), str(len(text) - (text.rfind("\n") + 1) + 1)
        return f"{file}:{line}:{column}: {message[: found.start()]} (at the end of the file)"
    return f"{file}:{line}:{column}: {message[: found.start()]}"


def _config(document: Document) -> Config:
    document.check_tables()
    repository = _repository(document.table("repository", required=True))
    state = _state(document.table("state"))
    keys, warnings = _keys(document.table("keys"))
    writer = _writer(document.table("advanced"))
    cache = _cache(document.table("cache"), writer)
    limits = _limits(document.table("limits"))
    prices = policies.prices(document.table("prices"))
    restore = policies.restore(document.table("restore"))
    classes, class_names = policies.classes(document.tables_of("class"))
    sources = _sources(document.tables_of("source"), class_names)
    retention = policies.retention(document.tables_of("retention"), [source.name for source, _ in sources])
    engine = _engine(document.table("engine"))
    hooks = _hooks(document.tables_of("hook"))
    _check_places(document, repository, state, sources)
    return Config(
        repository=repository,
        state=state,
        keys=keys,
        cache=cache,
        limits=limits,
        sources=tuple(source for source, _ in sources),
        classes=classes,
        retention=retention,
        prices=prices,
        restore=restore,
        writer=writer,
        engine=engine,
        hooks=hooks,
        file=document.file,
        settings=tuple(document.settings),
        warnings=warnings,
    )


def _repository(table: Table) -> RepositoryConfig:
    location: list[values.Location] = []

    def url(value: object) -> str:
        location.append(parse_location(_text(value)))
        return _text(value)

    result = RepositoryConfig(
        url=table.require("url", url, placeholder="file:///nowhere"),
        endpoint_url=table.take("endpoint_url", _endpoint, None),
        region=table.take("region", _region, None),
        profile=table.take("profile", _text, None),
        addressing_style=table.choice("addressing_style", AddressingStyle, AddressingStyle.AUTO),
    )
    if location and isinstance(location[0], DirectoryLocation):
        for key in ("endpoint_url", "region", "profile", "addressing_style"):
            if table.has(key):
                table.mistake(key, "has a meaning for s3:// repositories only")
    table.finish()
    return result


def _state(table: Table) -> StateConfig:
    default = StateConfig()
    result = StateConfig(directory=table.take("dir", _absolute, default.directory))
    table.finish()
    return result


def _keys(table: Table) -> tuple[KeysConfig, tuple[ConfigWarning, ...]]:
    file = table.take("passphrase_file", _absolute, None)
    command = table.take("passphrase_command", _command, None, shlex.join)
    if table.has("passphrase"):
        table.known("passphrase")
        table.mistake(
            "passphrase",
            "no secret belongs in this file; use passphrase_file, passphrase_command or the environment",
        )
    if table.has("passphrase_file") and table.has("passphrase_command"):
        table.mistake("passphrase_command", "passphrase_file is given too; keep one of them")
        command = None
    table.finish()
    warnings: list[ConfigWarning] = []
    if file is not None and _readable_by_others(file):
        text = f"keys.passphrase_file: {file} can be read by every user of this machine; chmod o= {file}"
        warnings.append(ConfigWarning(where=table.where("passphrase_file"), text=text))
    return KeysConfig(passphrase_file=file, passphrase_command=command), tuple(warnings)


def _readable_by_others(file: Path) -> bool:
    try:
        return bool(file.stat().st_mode & 0o004)
    except OSError:
        return False  # who reads the passphrase says so


def _writer(table: Table) -> WriterSizes:
    sizes: dict[str, int] = {}
    for each in fields(WriterSizes):
        default = getattr(WriterSizes(), each.name)
        if each.name.endswith("_bytes"):
            sizes[each.name] = table.take(each.name, parse_size, default, size_text)
        else:
            sizes[each.name] = table.take(each.name, _count(1, 2**31), default)
    table.finish()
    wrong = contradictions(sizes)
    for name, text in wrong:
        table.mistake(name, text)
    return WriterSizes() if wrong else WriterSizes(**sizes)


def _cache(table: Table, writer: WriterSizes) -> CacheConfig:
    least = 4 * writer.pack_bytes

    def size(value: object) -> int:
        result = parse_size(value)
        if result < least:
            raise ValueError(f"must be at least {size_text(least)}: four packs have to fit in")
        return result

    result = CacheConfig(max_bytes=table.take("max_size", size, CacheConfig().max_bytes, size_text))
    table.finish()
    return result


def _limits(table: Table) -> LimitsConfig:
    def memory(value: object) -> int:
        result = parse_size(value)
        if result < values.MINIMUM_MEMORY_BYTES:
            raise ValueError(f"must be at least {size_text(values.MINIMUM_MEMORY_BYTES)}")
        return result

    default = LimitsConfig()
    result = LimitsConfig(
        memory_bytes=table.take("memory", memory, default.memory_bytes, size_text),
        workers=table.take("workers", _count(1, 256), default.workers),
        uploaders=table.take("uploaders", _count(1, 64), default.uploaders),
    )
    table.finish()
    return result


def _sources(tables: list[Table], classes: Sequence[str]) -> list[tuple[SourceConfig, Table]]:
    found: list[tuple[SourceConfig, Table]] = []
    first_of: dict[str, Table] = {}
    default = SourceConfig(name="none", path=Path("/"))
    for number, table in enumerate(tables, 1):
        name = table.require("name", _name, placeholder="")
        if name in first_of:
            line = first_of[name].position("name").line
            table.mistake("name", f'"{name}" is already the name of the source in line {line}')
        elif name:
            first_of[name] = table
        source = SourceConfig(
            name=name or f"unnamed-{number}",
            path=table.require("path", _absolute, placeholder=Path("/nowhere")),
            kind=table.choice("kind", SourceKind, default.kind),
            storage_class=table.take("class", policies.one_of(classes), default.storage_class),
            settle=table.duration("settle", default.settle, least=timedelta(seconds=1), most=timedelta(days=7)),
            minimum_evidence=table.take("minimum_evidence", _count(1, 5), default.minimum_evidence),
            generation_interval=table.duration(
                "generation_interval", default.generation_interval, least=timedelta(), most=timedelta(days=31)
            ),
            expect_every=table.take("expect_every", parse_duration, None, duration_text),
            ignore=table.take("ignore", _patterns, (), ", ".join),
            marker=table.take("marker", _marker, None),
            release=_release(table),
        )
        table.finish()
        found.append((source, table))
    return found


def _release(table: Table) -> ReleaseConfig:
    """The keys ``release_*`` of a source; without ``release_keep_generations`` nothing is ever released."""
    keep = table.take("release_keep_generations", _count(1, 10_000), None)
    high = table.take("release_above", parse_share, 1.0, share_text)
    low = table.take("release_until", parse_share, high, share_text)
    for key in ("release_above", "release_until"):
        if table.has(key) and keep is None:
            table.mistake(key, "means nothing without release_keep_generations")
    if low > high:
        table.mistake("release_until", "must not be above release_above")
        low = high
    return ReleaseConfig(keep_generations=keep, high=high, low=low)


def _engine(table: Table) -> EngineConfig:
    default = EngineConfig()
    result = EngineConfig(
        rescan=table.duration("rescan", default.rescan, least=timedelta(seconds=1), most=timedelta(days=1)),
        socket=table.take("socket", _absolute, None),
        users=table.take("users", _words, (), ", ".join),
        spool_warning=table.take("spool_warning", parse_share, default.spool_warning, share_text),
        retention=table.duration("retention", default.retention, least=timedelta(), most=timedelta(days=31)),
    )
    if result.users and result.socket is None:
        table.mistake(
            "users",
            "needs engine.socket: the default one, control.sock in state.dir, can be reached by the engine's own user "
            'only. "/run/gateway/control.sock" is a good place, whose directory the unit for systemd makes',
        )
    table.finish()
    return result


_HOOK_KEYS = {
    HookKind.COMMAND: ("command",),
    HookKind.WEBHOOK: ("url",),
    HookKind.SMTP: ("server", "sender", "recipients"),
}


def _hooks(tables: list[Table]) -> tuple[HookConfig, ...]:
    found: list[HookConfig] = []
    for table in tables:
        name = table.require("name", _name, placeholder="")
        if name and any(each.name == name for each in found):
            table.mistake("name", f'"{name}" is already the name of a hook')
        kind = table.choice("kind", HookKind, HookKind.COMMAND)
        hook = HookConfig(
            name=name or f"unnamed-{len(found)}",
            kind=kind,
            command=table.take("command", _command, (), shlex.join),
            url=table.take("url", _hook_url, "", lambda each: "(set)" if each else ""),
            server=table.take("server", _mail_server, ""),
            sender=table.take("sender", _text, ""),
            recipients=table.take("recipients", _recipients, (), ", ".join),
        )
        for key in _HOOK_KEYS[kind]:
            if not table.has(key):
                table.mistake(key, f'is missing: a hook of kind "{kind}" needs it')
        for other, keys in _HOOK_KEYS.items():
            for key in keys:
                if other is not kind and table.has(key):
                    table.mistake(key, f'has a meaning for hooks of kind "{other}" only')
        table.finish()
        found.append(hook)
    return tuple(found)


def _check_places(
    document: Document,
    repository: RepositoryConfig,
    state: StateConfig,
    sources: list[tuple[SourceConfig, Table]],
) -> None:
    """No place may lie in another where the gateway would back up itself or one file twice."""
    own = [("state.dir", state.directory)]
    if isinstance(repository.location, DirectoryLocation):
        own.append(("repository.url", repository.location.directory))
    for index, (source, table) in enumerate(sources):
        for what, path in own:
            if _overlap(source.path, path):
                table.mistake("path", f"{source.path} and {what} ({path}) must not lie in each other")
        for other, _ in sources[:index]:
            if _overlap(source.path, other.path):
                table.mistake(
                    "path",
                    f'{source.path} and {other.path} of source "{other.name}" must not lie in each other',
                )
    if len(own) == 2 and _overlap(own[0][1], own[1][1]):
        document.problems.append(
            Problem(document.position(("state", "dir")), "state.dir and repository.url must not lie in each other")
        )


def _overlap(one: Path, other: Path) -> bool:
    nowhere = Path("/nowhere")  # the placeholder of a path that is a mistake already
    return nowhere not in (one, other) and commonpath((one, other)) in (str(one), str(other))


def _region(value: object) -> str:
    region = _text(value)
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", region):
        raise ValueError(f'"{region}" is not the name of a region')
    return region


def _endpoint(value: object) -> str:
    url = _text(value)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f'"{url}" is not a URL') from error
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f'"{url}" must start with "https://" or "http://" and name a host')
    if "@" in parts.netloc:
        raise ValueError("credentials do not belong in a URL; use profile, or the environment's AWS variables")
    if parts.query or parts.fragment:
        raise ValueError(f'"{url}" must not have a query or a fragment')
    return url


def _command(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        words = ", ".join(f'"{word}"' for word in value.split())
        raise ValueError(f"must be a list of words, since no shell reads it: [{words}]")
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise ValueError("must be a list of texts: the program and its arguments")
    if not value[0].strip() or any("\0" in word for word in value):
        raise ValueError("must name a program first, and contain no zero byte")
    return tuple(value)


def _words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) and word.strip() for word in value):
        raise ValueError("must be a list of texts")
    return tuple(value)


def _patterns(value: object) -> tuple[str, ...]:
    """Of names, without a slash: they hold for files and directories wherever they lie."""
    words = _words(value)
    wrong = next((word for word in words if "/" in word), None)
    if wrong is not None:
        raise ValueError(f'"{wrong}" must be a pattern of a name, without "/"')
    return words


def _marker(value: object) -> str:
    text = _text(value)
    if "/" in text or text.count("{name}") > 1 or text == "{name}":
        raise ValueError(f'"{text}" must be a name, such as "{{name}}.done", or "DONE" for the folders of jobs')
    return text


def _hook_url(value: object) -> str:
    """Unlike an endpoint it may hold a secret, so it is never shown."""
    url = _text(value)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not a URL") from None  # SECURITY: what it says holds part of it
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError('must start with "https://" or "http://" and name a host')
    return url


def _mail_server(value: object) -> str:
    server = _text(value)
    found = re.fullmatch(r"[A-Za-z0-9._-]+(?::([0-9]{1,5}))?", server)
    if found is None or not 0 < int(found[1] or 25) < 65536:
        raise ValueError(f'"{server}" must be a host, or host:port, such as "localhost:25"')
    return server


def _recipients(value: object) -> tuple[str, ...]:
    words = _words(value)
    if not words:
        raise ValueError("must name somebody")
    return words
