"""The ways to the passphrase."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.config import KeysConfig, read_passphrase
from gateway.errors import UsageError


def from_file(tmp_path: Path, data: bytes) -> str:
    file = tmp_path / "passphrase"
    file.write_bytes(data)
    return read_passphrase(KeysConfig(passphrase_file=file), {}).reveal()


def command(script: str) -> KeysConfig:
    return KeysConfig(passphrase_command=(sys.executable, "-c", script, "$HOME; echo no-shell"))


@pytest.mark.parametrize(
    ("data", "passphrase"),
    [
        (b"x", "x"), (b"x\n", "x"), (b"x\r\n", "x"), (b"x\n\n", "x\n"), (b" x \n", " x "), ("ö\n".encode(), "ö"),
        (b"a" * 4096 + b"\r\n", "a" * 4096),
    ],
)  # fmt: skip
def test_one_newline_at_the_end_is_not_part_of_it(tmp_path: Path, data: bytes, passphrase: str) -> None:
    assert from_file(tmp_path, data) == passphrase


@pytest.mark.parametrize("data", [b"", b"\n", b"  \n", b"\xff\n", b"a" * 4097, b"a" * 100_000])
def test_what_cannot_be_a_passphrase(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UsageError, match="The passphrase file") as caught:
        from_file(tmp_path, data)
    assert caught.value.__cause__ is None


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_passphrase(KeysConfig(passphrase_file=tmp_path / "none"), {})


def test_the_environment() -> None:
    assert read_passphrase(KeysConfig(), {"GATEWAY_PASSPHRASE": "x\n"}).reveal() == "x\n"


def test_no_way() -> None:
    for environment in ({}, {"GATEWAY_PASSPHRASE": ""}):
        with pytest.raises(UsageError, match="No passphrase is given"):
            read_passphrase(KeysConfig(), environment)


def test_two_ways_are_refused(tmp_path: Path) -> None:
    for keys in (KeysConfig(passphrase_file=tmp_path / "p"), command("")):
        with pytest.raises(UsageError, match="There are two passphrases"):
            read_passphrase(keys, {"GATEWAY_PASSPHRASE": "x"})


def test_a_command_gets_its_words_as_they_are() -> None:
    assert read_passphrase(command("import sys; print(sys.argv[1])"), {}).reveal() == "$HOME; echo no-shell"


def test_a_command_gets_no_input() -> None:
    assert read_passphrase(command("import sys; print('got', len(sys.stdin.read()))"), {}).reveal() == "got 0"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (command("print('canary-7a1f'); raise SystemExit(3)"), "failed with exit code 3"),
        (command("pass"), "is empty"),
        (KeysConfig(passphrase_command=("/nonexistent/secret",)), "cannot be started: No such file"),
    ],
)
def test_a_command_that_fails(keys: KeysConfig, expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        read_passphrase(keys, {})
    assert "canary" not in repr(caught.value) + repr(caught.value.__cause__)


def test_a_command_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.config.passphrase.COMMAND_SECONDS", 0.05)
    script = "import sys, signal; print('canary-7a1f', flush=True); signal.pause()"
    with pytest.raises(UsageError, match="did not end within") as caught:
        read_passphrase(command(script), {})
    assert caught.value.__cause__ is None
    assert "canary" not in str(caught.value)
