"""Other backup programs, to compare decisions with; and repositories of restic made of snapshots alone.

A snapshot of restic is one small encrypted file. Ten thousand of them take `restic backup` two hours, and us a second;
what `restic forget` reads, decrypts and decides is the same.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.poly1305 import Poly1305

from tests.servers.require import cannot

PASSWORD = "a repository of tests"


def peer(name: str, *, everywhere: bool = True) -> Path:
    """The program, from PATH or the directory GATEWAY_BENCH_PEERS. Where it is missing CI fails and others skip;
    CI skips, too, what is not for everywhere: no package of Debian has it.
    """
    places = os.pathsep.join(filter(None, (os.environ.get("GATEWAY_BENCH_PEERS"), os.environ.get("PATH"))))
    found = shutil.which(name, path=places)
    if found is None and everywhere:
        cannot(f"run {name}; install it or name its directory in GATEWAY_BENCH_PEERS")
    if found is None:
        pytest.skip(f"{name} is neither in PATH nor in GATEWAY_BENCH_PEERS")
    return Path(found)


class Restic:
    """A repository of restic in `directory`/repository, and the snapshots put into it."""

    def __init__(self, program: Path, directory: Path) -> None:
        self._program, self._directory = program, directory
        self._repository = directory / "repository"
        self._run("init", "--quiet")
        self._key = self._master_key()

    def add(self, host: str, times: Iterable[datetime]) -> list[str]:
        """Snapshots of `host` that were begun at these times; their ids, in the same order."""
        return [self._add(host, moment) for moment in times]

    def forget(self, *arguments: str) -> dict[str, dict[str, tuple[str, ...]]]:
        """What the policy in `arguments` would keep: host -> id of a snapshot -> restic's reasons."""
        output = self._run(
            "forget", "--dry-run", "--json", "--no-lock", "--no-cache", "--group-by", "host", *arguments
        )  # fmt: skip
        kept: dict[str, dict[str, tuple[str, ...]]] = {}
        for group in json.loads(output):
            # Older versions give reasons without ids; within a host times are unique.
            ids = {each["time"]: each["id"] for each in group["keep"]}
            reasons = {ids[each["snapshot"]["time"]]: tuple(each["matches"]) for each in group["reasons"]}
            assert len(reasons) == len(ids) == len(group["keep"])
            kept[group["host"]] = reasons
        return kept

    @property
    def keeps_the_oldest(self) -> bool:
        """Whether it fills up a rule with the oldest snapshot, as it does from version 0.16 on."""
        version = self._run("version").decode().split()[1]
        return tuple(map(int, version.split(".")[:2])) >= (0, 16)

    def _run(self, *arguments: str) -> bytes:
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(self._directory), "TZ": "UTC", "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_REPOSITORY": str(self._repository),
        }  # fmt: skip
        done = subprocess.run(
            [self._program, *arguments], env=environment, cwd=self._directory, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def _master_key(self) -> _Key:
        (file,) = (self._repository / "keys").iterdir()
        facts = json.loads(file.read_bytes())
        derive = Scrypt(salt=base64.b64decode(facts["salt"]), length=64, n=facts["N"], r=facts["r"], p=facts["p"])
        secret = derive.derive(PASSWORD.encode())
        user = _Key(secret[:32], secret[32:48], secret[48:])
        master: Mapping[str, Any] = json.loads(user.open(base64.b64decode(facts["data"])))
        return _Key(*map(base64.b64decode, (master["encrypt"], master["mac"]["k"], master["mac"]["r"])))

    def _add(self, host: str, moment: datetime) -> str:
        snapshot = {
            "time": moment.isoformat().replace("+00:00", "Z"), "tree": "0" * 64, "paths": ["/spool"], "hostname": host,
            "username": "gateway",
        }  # fmt: skip
        data = self._key.seal(json.dumps(snapshot).encode())
        name = sha256(data).hexdigest()
        (self._repository / "snapshots" / name).write_bytes(data)
        return name


class _Key:
    """AES-256-CTR and Poly1305-AES, as restic's design document says: IV, ciphertext, MAC of the ciphertext."""

    def __init__(self, encrypt: bytes, k: bytes, r: bytes) -> None:
        self._encrypt, self._k, self._r = encrypt, k, r

    def seal(self, plain: bytes) -> bytes:
        # The same plaintext is the same file, which is what tests want.
        nonce = sha256(plain).digest()[:16]
        body = self._crypt(nonce, plain)
        return nonce + body + Poly1305.generate_tag(self._mac_key(nonce), body)

    def open(self, data: bytes) -> bytes:
        nonce, body, tag = data[:16], data[16:-16], data[-16:]
        Poly1305.verify_tag(self._mac_key(nonce), body, tag)
        return self._crypt(nonce, body)

    def _crypt(self, nonce: bytes, data: bytes) -> bytes:
        return Cipher(algorithms.AES(self._encrypt), modes.CTR(nonce)).encryptor().update(data)

    def _mac_key(self, nonce: bytes) -> bytes:
        block = Cipher(algorithms.AES(self._k), modes.ECB()).encryptor().update(nonce)
        return self._r + block
