"""TOML -> Config: what is read, and every mistake with its place."""

from __future__ import annotations

import dataclasses
import pickle
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import (
    AddressingStyle,
    Config,
    DirectoryLocation,
    KeysConfig,
    LimitsConfig,
    RepositoryConfig,
    S3Location,
    Secret,
    SourceConfig,
    SourceKind,
    StorageClass,
    WriterSizes,
    load,
    parse,
    parse_location,
)
from gateway.errors import ConfigError, UsageError

ROOT = Path(__file__).parents[2]
HEAD = '[repository]\nurl = "s3://bucket/prefix"\n'


def mistakes(text: str, *, head: str = HEAD) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse((head + text).encode(), Path("g.toml"))
    return caught.value.mistakes


def test_the_example_loads() -> None:
    config = load(ROOT / "config" / "gateway.example.toml")
    assert [source.name for source in config.sources] == ["orcl-prod", "pg-prod"]
    assert config.repository.location == S3Location(bucket="example-backups", prefix="gateway")
    assert config.writer == WriterSizes()


def test_every_key_is_read() -> None:
    text = """
[repository]
url = "s3://bucket/a/b/"
endpoint_url = "http://127.0.0.1:8333"
region = "eu-central-1"
profile = "p"
addressing_style = "path"
[state]
dir = "/var/lib/other"
[keys]
passphrase_command = ["/bin/secret", "get it"]
[cache]
max_size = "10 GiB"
[limits]
memory = "1 GiB"
workers = 3
uploaders = 5
[advanced]
pack_bytes = "1 MiB"
part_bytes = "64 KiB"
segment_bytes = 4096
extent_bytes = "1 MiB"
own_stream_bytes = "256 KiB"
small_pack_bytes = "32 KiB"
list_part_records = 16
runs_per_record = 8
outline_runs_bytes = 512
checkpoint_packs = 4
checkpoint_minutes = 1
chunk_average_bytes = "4 KiB"
[[source]]
name = "a"
path = "/srv/spool/a"
kind = "files"
class = "hot"
settle = "5 min"
minimum_evidence = 2
[[source]]
name = "b-2"
path = "/srv/spool/b"
"""
    config = parse(text.encode())
    assert config.repository == RepositoryConfig(
        url="s3://bucket/a/b/",
        endpoint_url="http://127.0.0.1:8333",
        region="eu-central-1",
        profile="p",
        addressing_style=AddressingStyle.PATH,
    )
    assert config.repository.location == S3Location(bucket="bucket", prefix="a/b")
    assert config.state.directory == Path("/var/lib/other")
    assert config.keys == KeysConfig(passphrase_command=("/bin/secret", "get it"))
    assert config.cache.max_bytes == 10 * 1024**3
    assert config.limits == LimitsConfig(memory_bytes=1024**3, workers=3, uploaders=5)
    assert config.writer == WriterSizes(
        pack_bytes=1024**2,
        part_bytes=65536,
        segment_bytes=4096,
        extent_bytes=1024**2,
        own_stream_bytes=262144,
        small_pack_bytes=32768,
        list_part_records=16,
        runs_per_record=8,
        outline_runs_bytes=512,
        checkpoint_packs=4,
        checkpoint_minutes=1,
        chunk_average_bytes=4096,
    )
    assert config.sources == (
        SourceConfig(
            name="a",
            path=Path("/srv/spool/a"),
            kind=SourceKind.FILES,
            storage_class=StorageClass.HOT,
            settle=timedelta(minutes=5),
            minimum_evidence=2,
        ),
        SourceConfig(name="b-2", path=Path("/srv/spool/b")),
    )
    origins = {setting.key: (setting.value, setting.origin) for setting in config.settings}
    assert origins["cache.max_size"] == ("10 GiB", "line 13")
    assert origins["source[2].settle"] == ("1 min", "default")
    assert origins["keys.passphrase_command"] == ("/bin/secret 'get it'", "line 11")


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    text = """
regoin = "eu"
memory = 3
[keys]
passphrase_command = "pass show x"
[[source]]
name = "a"
path = "relative"
class = "meta"
[advancd]
x = 1
"""
    assert mistakes(text) == (
        'g.toml:4:1: repository.regoin: unknown key; did you mean "region"?',
        "g.toml:5:1: repository.memory: unknown key; it belongs in [limits]",
        'g.toml:7:1: keys.passphrase_command: must be a list of words, since no shell reads it: ["pass", "show", "x"]',
        'g.toml:10:1: source[1].path: "relative" must be an absolute path, one that starts with "/"',
        'g.toml:11:1: source[1].class: "meta" is a reserved name; it must be "instant" or "hot" or "deep"',
        "g.toml:12:1: advancd: unknown table; did you mean [advanced]?",
    )


SOURCE = '[[source]]\nname = "a"\npath = "/srv/a"\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  endpoint_url = 'ftp://x'", '3:3: repository.endpoint_url: "ftp://x" must start with "https://"'),
        ("endpoint_url = 'https://me:secret@x'", "3:1: repository.endpoint_url: credentials do not belong"),
        ("endpoint_url = 'https://x:port'", '3:1: repository.endpoint_url: "https://x:port" is not a URL'),
        ("region = ''", "3:1: repository.region: must not be empty"),
        ("region = 7", "3:1: repository.region: must be a text"),
        ("addressing_style = 'pth'", '"pth" must be "auto" or "path" or "virtual"; did you mean "path"?'),
        ("[keys]\npassphrase = 'x'", "4:1: keys.passphrase: no secret belongs in this file"),
        ("[keys]\npassphrase_file = '/a'\npassphrase_command = ['b']", "5:1: keys.passphrase_command: passphrase_file"),
        ("[keys]\npassphrase_command = []", "4:1: keys.passphrase_command: must be a list of texts"),
        ("[keys]\npassphrase_command = ['']", "4:1: keys.passphrase_command: must name a program"),
        ("[keys]\npassphrase_file = '/a/../b'", '4:1: keys.passphrase_file: "/a/../b" must not contain ".."'),
        ("[cache]\nmax_size = '100 MiB'", "4:1: cache.max_size: must be at least 896 MiB"),
        ("[cache]\nmax_size = '200 G'", 'did you mean "GiB" (1024) or "GB" (1000)?'),
        ("[cache]\nmax_size = true", "4:1: cache.max_size: must be a size"),
        ("[limits]\nmemory = '255 MiB'", "4:1: limits.memory: must be at least 256 MiB"),
        ("[limits]\nworkers = 0", "4:1: limits.workers: must be a whole number from 1 to 256"),
        ("[limits]\nworkers = true", "4:1: limits.workers: must be a whole number from 1 to 256"),
        ("[limits]\nuploaders = 1.5", "4:1: limits.uploaders: must be a whole number from 1 to 64"),
        ("[limit]\nworkers = 1", "3:1: limit: unknown table; did you mean [limits]?"),
        ("[sources]\nname = 'a'", "3:1: sources: unknown table; did you mean [[source]]?"),
        ("[zebra]\nname = 'a'", "3:1: zebra: unknown table; there are [repository], [state]"),
        ("[source]\nname = 'a'", "3:1: source: must be an array of tables: [[source]]"),
        ("[[state]]\ndir = '/a'", "3:1: state: must be a table: [state]"),
        ("[advanced]\nchunk_average_bytes = 5000", "4:1: advanced.chunk_average_bytes: must be a power of two"),
        ("[advanced]\npack_bytes = 1\n", "advanced.part_bytes: must not be larger than pack_bytes"),
        ("[[source]]\npath = '/a'", "3:1: source[1].name: is missing"),
        ("[[source]]\nname = 'a'", "3:1: source[1].path: is missing"),
        ("[[source]]\nname = 'A_b'\npath = '/a'", '4:1: source[1].name: "A_b" must be 1 to 32 of'),
        ("[[source]]\nname = '" + "a" * 33 + "'\npath = '/a'", "must be 1 to 32 of"),
        (SOURCE + SOURCE.replace("/srv/a", "/srv/b"), '7:1: source[2].name: "a" is already the name'),
        (SOURCE + "kind = 'jobs'", '6:1: source[1].kind: "jobs" must be "files" or "job"; did you mean "job"?'),
        (SOURCE + "marker = '{name}'", '6:1: source[1].marker: "{name}" must be a name, such as "{name}.done"'),
        (SOURCE + "ignore = ['a/b']", '6:1: source[1].ignore: "a/b" must be a pattern of a name'),
        (SOURCE + "ignore = 'a'", "6:1: source[1].ignore: must be a list of texts"),
        (SOURCE + "expect_every = 'daily'", "6:1: source[1].expect_every: "),
        (SOURCE + "release_above = '80 %'", "6:1: source[1].release_above: means nothing without"),
        (SOURCE + "release_keep_generations = 0", "6:1: source[1].release_keep_generations: must be a whole number"),
        (
            SOURCE + "release_keep_generations = 2\nrelease_above = '70 %'\nrelease_until = '80 %'",
            "8:1: source[1].release_until: must not be above",
        ),
        (SOURCE + "[engine]\nspool_warning = 80", '7:1: engine.spool_warning: must be a share such as "85 %"'),
        (SOURCE + "[engine]\nrescan = '0 s'", '7:1: engine.rescan: "0 s" must be from 1 s to 1 d'),
        (SOURCE + "[engine]\nusers = ['postgres']", "7:1: engine.users: needs engine.socket"),
        (SOURCE + "[[hook]]\nname = 'a'", 'hook[1].command: is missing: a hook of kind "command" needs it'),
        (
            SOURCE + "[[hook]]\nname = 'a'\nkind = 'webhook'\nurl = 'ftp://x'\nserver = 'y'",
            '9:1: hook[1].url: must start with "https://"',
        ),
        (
            SOURCE + "[[hook]]\nname = 'a'\nkind = 'webhook'\nurl = 'https://x'\nserver = 'y'",
            '10:1: hook[1].server: has a meaning for hooks of kind "smtp" only',
        ),
        (SOURCE + "[hook]\nname = 'a'", "hook: must be an array of tables: [[hook]]"),
        (SOURCE + "class = 'glacier'", '6:1: source[1].class: "glacier" must be "instant" or "hot"'),
        (SOURCE + "class = 'meta'", '6:1: source[1].class: "meta" is a reserved name'),
        (SOURCE + "class = 'instnat'", 'did you mean "instant"?'),
        (SOURCE + "settle = 60", "6:1: source[1].settle: must be a duration such as"),
        (SOURCE + "settle = '60'", '"60" has no unit'),
        (SOURCE + "settle = '8 d'", '"8 d" must be from 1 s to 7 d'),
        (SOURCE + "settle = '0 s'", '"0 s" must be from 1 s to 7 d'),
        (SOURCE + "minimum_evidence = 6", "6:1: source[1].minimum_evidence: must be a whole number from 1 to 5"),
        (SOURCE + "minimum_evidense = 2", 'unknown key; did you mean "minimum_evidence"?'),
        (
            SOURCE + "[[source]]\nname = 'b'\npath = '/srv/a/b'",
            '8:1: source[2].path: /srv/a/b and /srv/a of source "a"',
        ),
        ("[state]\ndir = '/srv'\n" + SOURCE, "7:1: source[1].path: /srv/a and state.dir (/srv) must not lie"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, expected: str) -> None:
    found = mistakes(text)
    assert any(expected in each for each in found), found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "g.toml:1:1: repository: the table [repository] is missing"),
        ("[repository]\nurl = ", "g.toml:2:7: Invalid value (at the end of the file)"),
        ("[repository]\nurl = x", "g.toml:2:7: Invalid value"),
        ("a = 1\na = 2", "g.toml:2:6: Cannot overwrite a value"),
        ("[repository]", "g.toml:1:1: repository.url: is missing"),
        ("\ufeff[repository]", "g.toml:1:1: the file starts with a byte order mark; save it as UTF-8 without one"),
        ("a=" + "[" * 50_000, "g.toml:1:1: the file is nested too deeply"),
    ],
)
def test_a_broken_file_is_one_mistake_with_its_place(text: str, expected: str) -> None:
    assert mistakes(text, head="") == (expected,) or mistakes(text, head="")[0].startswith(expected)


def test_bytes_that_are_not_utf8_have_a_place() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(b"[repository]\nurl = \xff", Path("g.toml"))
    assert caught.value.mistakes == ("g.toml:2:7: not UTF-8; save the file with that encoding",)


@given(st.binary(max_size=200) | st.text(alphabet="[]{}\"'=.,#\n ab1\\", max_size=60).map(str.encode))
def test_any_bytes_give_a_config_or_a_config_error(data: bytes) -> None:
    for prefix in (b"", HEAD.encode()):
        found: tuple[str, ...] = ()
        try:
            parse(prefix + data)
        except ConfigError as error:
            found = error.mistakes
        assert all(line.startswith("gateway.toml:") for line in found)


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("s3://bucket", S3Location(bucket="bucket", prefix="")),
        ("s3://my.bucket-1/x/y/", S3Location(bucket="my.bucket-1", prefix="x/y")),
        ("file:///srv/store", DirectoryLocation(directory=Path("/srv/store"))),
    ],
)
def test_a_url_names_a_location(url: str, location: object) -> None:
    assert parse_location(url) == location


@pytest.mark.parametrize(
    "url",
    [
        "bucket", "http://bucket/x", "S3://bucket", "s3://", "s3://Bucket", "s3://ab", "s3://bucket//x", "s3://bucket/a/../b",
        "s3://bucket/a b", "s3://bucket/ä", "file://srv/store", "file:///", "file:///srv/../x", "file:///a%20b",
    ],
)  # fmt: skip
def test_what_is_not_a_repository_url(url: str) -> None:
    assert "repository.url" in mistakes("", head=f'[repository]\nurl = "{url}"\n')[0]


def test_settings_of_s3_mean_nothing_for_a_directory() -> None:
    found = mistakes("region = 'x'\n", head="[repository]\nurl = 'file:///srv/store'\n")
    assert found == ("g.toml:3:1: repository.region: has a meaning for s3:// repositories only",)


def test_state_and_a_directory_store_must_not_lie_in_each_other() -> None:
    found = mistakes("[state]\ndir = '/srv/store/state'\n", head="[repository]\nurl = 'file:///srv/store'\n")
    assert found == ("g.toml:4:1: state.dir and repository.url must not lie in each other",)


def test_a_passphrase_file_for_everyone_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text("x\n")
    text = HEAD + f"[keys]\npassphrase_file = '{file}'\n"
    file.chmod(0o640)
    assert parse(text.encode()).warnings == ()
    file.chmod(0o644)
    (warning,) = parse(text.encode(), Path("g.toml")).warnings
    assert str(warning).startswith(f"g.toml:4:1: keys.passphrase_file: {file} can be read by every user")


def test_windows_line_ends_keep_the_places() -> None:
    found = mistakes("", head='[repository]\r\nurl = "s3://bucket"\r\n  nope = 1\r\n')
    assert found[0].startswith("g.toml:3:3: repository.nope")


def test_a_source_by_name() -> None:
    config = parse((HEAD + SOURCE).encode())
    assert config.source("a").path == Path("/srv/a")
    with pytest.raises(UsageError, match='Did you mean "orcl-prod"'):
        parse((HEAD + SOURCE.replace('"a"', '"orcl-prod"')).encode()).source("orcl-prd")
    with pytest.raises(UsageError, match="no sources at all"):
        parse(HEAD.encode()).source("a")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load(tmp_path / "none.toml")


def test_a_file_that_is_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load(tmp_path / "big")


def test_values_hold_their_invariants() -> None:
    with pytest.raises(ValueError):
        SourceConfig(name="A", path=Path("/a"))
    with pytest.raises(ValueError):
        SourceConfig(name="a", path=Path("a"))
    with pytest.raises(ValueError):
        KeysConfig(passphrase_file=Path("/a"), passphrase_command=("a",))
    with pytest.raises(ValueError):
        WriterSizes(part_bytes=2, pack_bytes=1)
    with pytest.raises(ValueError):
        LimitsConfig(workers=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config(repository=RepositoryConfig(url="s3://bucket")).file = None  # type: ignore[misc]


def test_a_secret_is_never_shown() -> None:
    canary = Secret("canary-7a1f")
    shown = [str(canary), repr(canary), f"{canary}", f"{canary:>20}", "%s" % canary, str([canary]), ascii(canary)]  # noqa: UP031
    assert not any("canary" in each for each in shown)
    assert canary.reveal() == "canary-7a1f"
    assert canary == Secret("canary-7a1f")
    assert canary != Secret("other")
    with pytest.raises(TypeError):
        pickle.dumps(canary)
