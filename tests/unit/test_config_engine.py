"""`[engine]`, `[[hook]]` and what a source says to the engine: what is read, and every mistake with its place."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from gateway.config import parse
from gateway.config.values import EngineConfig, HookConfig, HookKind, ReleaseConfig, SourceConfig, SourceKind
from gateway.errors import ConfigError

HEAD = '[repository]\nurl = "s3://bucket/prefix"\n'
SOURCE = '[[source]]\nname = "a"\npath = "/srv/a"\n'
HOOK = '[[hook]]\nname = "h"\n'


def mistakes(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse((HEAD + text).encode(), Path("g.toml"))
    return caught.value.mistakes


def source(text: str) -> SourceConfig:
    (found,) = parse((HEAD + SOURCE + text).encode()).sources
    return found


def hook(text: str) -> HookConfig:
    (found,) = parse((HEAD + HOOK + text).encode()).hooks
    return found


def test_what_a_source_says_to_the_engine() -> None:
    found = source(
        'kind = "job"\nmarker = "{name}.done"\nignore = ["*.log", "lost+found"]\ngeneration_interval = "0 s"\n'
        'expect_every = "1 d"\nrelease_keep_generations = 2\nrelease_above = "85 %"\nrelease_until = "70.5%"\n'
    )
    assert found.kind is SourceKind.JOB
    assert (found.marker, found.ignore) == ("{name}.done", ("*.log", "lost+found"))
    assert (found.generation_interval, found.expect_every) == (timedelta(), timedelta(days=1))
    assert found.release == ReleaseConfig(keep_generations=2, high=0.85, low=0.705)


def test_without_a_word_nothing_is_released_expected_or_ignored() -> None:
    found = source("")
    assert found.release == ReleaseConfig(keep_generations=None, high=1.0, low=1.0)
    assert (found.kind, found.expect_every, found.ignore, found.marker) == (SourceKind.FILES, None, (), None)
    assert found.generation_interval == timedelta(hours=1)


def test_release_goes_down_to_where_it_begins_unless_told_otherwise() -> None:
    found = source('release_keep_generations = 1\nrelease_above = "80 %"\n')
    assert (found.release.high, found.release.low) == (0.8, 0.8)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('kind = "tape"', 'source[1].kind: "tape" must be "files" or "job"'),
        ('marker = "a/b"', 'source[1].marker: "a/b" must be a name'),
        ('marker = "{name}"', 'source[1].marker: "{name}" must be a name'),
        ('marker = "{name}{name}"', 'source[1].marker: "{name}{name}" must be a name'),
        ('ignore = "*.log"', "source[1].ignore: must be a list of texts"),
        ('ignore = [""]', "source[1].ignore: must be a list of texts"),
        ('ignore = ["a/b"]', 'source[1].ignore: "a/b" must be a pattern of a name, without "/"'),
        ('expect_every = "1"', "source[1].expect_every: "),
        ('generation_interval = "32 d"', "source[1].generation_interval: "),
        ("release_keep_generations = 0", "source[1].release_keep_generations: "),
        ('release_above = "80 %"', "source[1].release_above: means nothing without release_keep_generations"),
        ('release_until = "80 %"', "source[1].release_until: means nothing without release_keep_generations"),
        (
            "release_keep_generations = 1\nrelease_until = 0.8",
            'source[1].release_until: must be a share such as "85 %"',
        ),
        ('release_keep_generations = 1\nrelease_above = "101 %"', "source[1].release_above: must be a share"),
    ],
)
def test_a_mistake_of_a_source(line: str, expected: str) -> None:
    (found,) = mistakes(SOURCE + line + "\n")
    assert found.startswith(f"g.toml:{6 + line.count(chr(10))}:1: {expected}"), found


def test_release_does_not_go_upwards() -> None:
    (found,) = mistakes(SOURCE + 'release_keep_generations = 1\nrelease_above = "70 %"\nrelease_until = "80 %"\n')
    assert found == "g.toml:8:1: source[1].release_until: must not be above release_above"


def test_the_engine_and_where_it_listens() -> None:
    plain = parse((HEAD + '[state]\ndir = "/state"\n').encode())
    assert plain.engine == EngineConfig()
    assert plain.socket == Path("/state/control.sock")
    text = (
        '[engine]\nrescan = "30 s"\nsocket = "/run/gateway/s"\nusers = ["oracle", "postgres"]\nspool_warning = "90 %"\n'
        'retention = "0 s"\n'
    )
    found = parse((HEAD + text).encode())
    assert found.engine == EngineConfig(
        rescan=timedelta(seconds=30),
        socket=Path("/run/gateway/s"),
        users=("oracle", "postgres"),
        spool_warning=0.9,
        retention=timedelta(),
    )
    assert found.socket == Path("/run/gateway/s")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('rescan = "0 s"', "engine.rescan: "),
        ('rescan = "2 d"', "engine.rescan: "),
        ('socket = "control.sock"', "engine.socket: "),
        ('users = ["oracle"]', "engine.users: needs engine.socket"),
        ("users = 1", "engine.users: must be a list of texts"),
        ('spool_warning = "0 %"', "engine.spool_warning: must be a share"),
        ('retention = "32 d"', "engine.retention: "),
        ('user = ["oracle"]', 'engine.user: unknown key; did you mean "users"?'),
    ],
)
def test_a_mistake_of_the_engine(line: str, expected: str) -> None:
    (found,) = mistakes("[engine]\n" + line + "\n")
    assert found.startswith("g.toml:4:1: " + expected), found


def test_each_kind_of_hook() -> None:
    assert hook('command = ["page", "$x"]\n') == HookConfig(name="h", kind=HookKind.COMMAND, command=("page", "$x"))
    assert hook('kind = "webhook"\nurl = "https://h.example/x?token=y"\n') == HookConfig(
        name="h", kind=HookKind.WEBHOOK, url="https://h.example/x?token=y"
    )
    assert hook('kind = "smtp"\nserver = "mail:2525"\nsender = "g@x"\nrecipients = ["a@x", "b@x"]\n') == HookConfig(
        name="h", kind=HookKind.SMTP, server="mail:2525", sender="g@x", recipients=("a@x", "b@x")
    )


def test_the_url_of_a_hook_is_never_shown() -> None:
    text = HEAD + HOOK + 'kind = "webhook"\nurl = "https://h.example/canary-7a1f"\n' + HOOK.replace('"h"', '"g"')
    settings = parse((text + 'command = ["x"]\n').encode()).settings
    assert "canary" not in repr(settings)
    assert {each.key: each.value for each in settings if each.key.endswith(".url") and "hook" in each.key} == {
        "hook[1].url": "(set)", "hook[2].url": "",
    }  # fmt: skip
    (found,) = mistakes(HOOK + 'kind = "webhook"\nurl = "ftp://h.example/canary-7a1f"\n')
    assert "canary" not in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 'hook[1].command: is missing: a hook of kind "command" needs it'),
        ('kind = "webhook"', 'hook[1].url: is missing: a hook of kind "webhook" needs it'),
        ('command = ["x"]\nurl = "http://x"', 'hook[1].url: has a meaning for hooks of kind "webhook" only'),
        ('kind = "webhook"\nurl = "x"', 'hook[1].url: must start with "https://" or "http://"'),
        ('kind = "webhook"\nurl = "https://["', "hook[1].url: is not a URL"),
        ('kind = "webhook"\nurl = "https://h:canary"', "hook[1].url: is not a URL"),
        ('command = "page now"', 'hook[1].command: must be a list of words, since no shell reads it: ["page", "now"]'),
        ('kind = "pager"\ncommand = ["x"]', 'hook[1].kind: "pager" must be '),
        ('command = ["x"]\n[[hook]]\nname = "h"\ncommand = ["y"]', 'hook[2].name: "h" is already the name of a hook'),
        ('kind = "smtp"\nserver = "mail:x"\nsender = "g"\nrecipients = ["a"]', 'hook[1].server: "mail:x" must be'),
        ('kind = "smtp"\nserver = "mail"\nsender = "g"\nrecipients = []', "hook[1].recipients: "),
    ],
)
def test_a_mistake_of_a_hook(text: str, expected: str) -> None:
    (found,) = mistakes(HOOK + text + "\n")
    assert expected in found
